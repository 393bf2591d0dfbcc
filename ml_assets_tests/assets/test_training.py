"""Training set, model and champion, through real runs and a real MLflow store."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.runs import RunFailed
from ml_assets_tests.conftest import SMALL, Platform, new_platform

LAST = "2026-01-16"


def test_the_manifest_names_the_matured_window_and_its_content(trained: Platform) -> None:
    manifest = trained.table("training_set", LAST).iloc[0]

    rows = trained.table("features", "2026-01-05", "2026-01-14")
    assert (manifest["first_day"], manifest["last_day"]) == ("2026-01-05", "2026-01-14")
    assert manifest["rows"] + manifest["rows_unlabelled"] == len(rows)
    assert manifest["positives"] == rows["claim_status"].sum()
    assert manifest["table_version"] == 0


def test_the_model_is_judged_on_the_newest_matured_days(trained: Platform) -> None:
    model = trained.table("model", LAST).iloc[0]

    assert (model["holdout_first_day"], model["holdout_last_day"]) == ("2026-01-13", "2026-01-14")
    assert 0.8 < model["roc_auc"] < 1
    assert trained.metadata("model", LAST)["evaluation"].startswith("![plot](data:image/png")


def test_training_again_gives_the_same_version_and_leaves_the_tables(trained: Platform) -> None:
    before = {stage: trained.table(stage, LAST) for stage in ("training_set", "model", "champion")}

    trained.run("training", LAST)

    for stage, frame in before.items():
        again = trained.table(stage, LAST)
        pd.testing.assert_frame_equal(again, frame)
        assert again.attrs == frame.attrs, f"{stage} was written anew"


def test_the_same_data_give_the_same_model_bytes_elsewhere(
    trained: Platform, tmp_path: Path
) -> None:
    other = new_platform(tmp_path)
    other.arrive("2026-01-05", LAST)
    other.run("ingestion", "2026-01-05", LAST)
    other.run("training", LAST)

    assert other.table("model", LAST)["sha256"][0] == trained.table("model", LAST)["sha256"][0]


def test_an_unmatured_window_is_refused_with_the_reason(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-09")
    platform.run("ingestion", "2026-01-05", "2026-01-09")

    with pytest.raises(RunFailed, match=r"at least 4 matured days .* there are 3"):
        platform.run("training", "2026-01-09")
    assert platform.lake.rows_per_day("claims/model") == {}


def test_a_window_without_any_outcome_is_refused_with_the_reason(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-06")
    platform.run("ingestion", "2026-01-05", "2026-01-06")

    with pytest.raises(
        RunFailed, match=r"at least 2 days old with a known outcome as of 2026-01-06"
    ):
        platform.run("training", "2026-01-06")


def test_training_before_any_features_says_what_to_do(platform: Platform) -> None:
    with pytest.raises(RunFailed, match=r"claims/features does not exist .*Materialise the asset"):
        platform.run("training", LAST)


def test_a_model_older_than_its_training_set_is_not_judged(trained: Platform) -> None:
    model = trained.table("model", LAST)
    trained.lake.write("claims/model", model.assign(content_hash="another"), LAST, LAST)
    try:
        with pytest.raises(RunFailed, match=r"made anew after its model. Materialise claims/model"):
            trained.run("training", LAST, only="champion")
    finally:
        trained.lake.write("claims/model", model, LAST, LAST)


@dataclass(frozen=True)
class History:
    """What the gate decided, day by day, and which version served after each decision."""

    decisions: pd.DataFrame
    serving: dict[str, int]
    before_the_past: pd.DataFrame


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    """Five decisions: first, ordinary, weak challenger, about the past, and one cut short."""
    platform = new_platform(tmp_path_factory.mktemp("gate"))
    platform.arrive("2026-01-05", "2026-01-18")
    platform.run("ingestion", "2026-01-05", "2026-01-18")
    serving = {}

    def alias() -> int:
        from mlflow import MlflowClient

        client = MlflowClient(platform.registry.url, platform.registry.url)
        return int(client.get_model_version_by_alias("claims", "champion").version)

    for day in ("2026-01-14", "2026-01-16"):
        platform.run("training", day)
        serving[day] = alias()
    # One round of boosting knows next to nothing.
    weak = platform.environment.training.model_copy(update={"max_rounds": 1})
    environment = platform.environment.model_copy(update={"training": weak})
    Platform(environment, platform.instance).run("training", "2026-01-17")
    serving["2026-01-17"] = alias()
    before = platform.table("champion", "2026-01-01", "2026-01-31")
    platform.run("training", "2026-01-15")
    serving["2026-01-15"] = alias()
    # As if the process had died between moving the alias and writing the decision.
    platform.run("training", "2026-01-18", only="training_set")
    platform.run("training", "2026-01-18", only="model")
    version = int(platform.table("model", "2026-01-18")["version"][0])
    platform.registry.set_alias("claims", "champion", version)
    platform.run("training", "2026-01-18")
    serving["2026-01-18"] = alias()
    decisions = platform.table("champion", "2026-01-01", "2026-01-31").set_index("day")
    return History(decisions, serving, before.set_index("day"))


def test_the_first_model_serves_for_want_of_another(history: History) -> None:
    assert history.decisions.loc["2026-01-14", "decision"] == "first"
    assert history.serving["2026-01-14"] == 1


def test_the_challenger_serves_only_if_it_is_surely_better_on_the_same_holdout(
    history: History,
) -> None:
    row = history.decisions.loc["2026-01-16"]

    surely_better = row["difference_high"] < 0
    assert row["decision"] == ("promoted" if surely_better else "kept")
    assert row["version"] == (row["challenger_version"] if surely_better else 1)
    difference = row["challenger_log_loss"] - row["previous_log_loss"]
    assert row["difference_low"] < difference < row["difference_high"]
    assert row["reason"].startswith(f"challenger version {row['challenger_version']} ")
    assert row["previous_version"] == 1
    assert history.serving["2026-01-16"] == row["version"]


def test_a_worse_challenger_does_not_serve(history: History) -> None:
    row = history.decisions.loc["2026-01-17"]

    assert row["decision"] == "kept"
    assert row["challenger_log_loss"] > row["previous_log_loss"]
    assert row["version"] == history.serving["2026-01-16"] == history.serving["2026-01-17"]


def test_a_decision_about_the_past_leaves_later_ones_and_the_alias(history: History) -> None:
    past = history.decisions.loc["2026-01-15"]

    assert past["previous_version"] == 1
    pd.testing.assert_frame_equal(
        history.decisions.loc[history.before_the_past.index], history.before_the_past
    )
    assert history.serving["2026-01-15"] == history.serving["2026-01-17"]


def test_a_run_cut_short_before_its_decision_decides_as_if_it_had_not(history: History) -> None:
    row = history.decisions.loc["2026-01-18"]

    assert row["previous_version"] == history.decisions.loc["2026-01-17", "version"]
    assert row["challenger_version"] == history.decisions["challenger_version"].max()
    assert history.serving["2026-01-18"] == row["version"]


@pytest.mark.parametrize(("holdout_days", "judged"), [(5, "2026-01-13"), (2, "2026-01-14")])
def test_the_champion_is_judged_only_on_days_it_has_not_learned_from(
    trained: Platform, holdout_days: int, judged: str
) -> None:
    # The champion of the 16th was stopped by the 12th; a longer holdout reaches back before that.
    settings = trained.environment.training.model_copy(update={"holdout_days": holdout_days})
    environment = trained.environment.model_copy(update={"training": settings})

    Platform(environment, trained.instance).run("training", "2026-01-17")

    rows = trained.table("features", judged, "2026-01-15")["claim_status"].notna().sum()
    assert f"on {rows:,} rows" in trained.table("champion", "2026-01-17")["reason"][0]


def test_a_champion_that_learned_from_the_whole_holdout_stays(trained: Platform) -> None:
    settings = trained.environment.training.model_copy(
        update={"holdout_days": 1, "validation_days": 1}
    )
    environment = trained.environment.model_copy(update={"training": settings})
    # Outcomes that take longer to mature put the holdout among days the champion knows.
    slow = dataclasses.replace(SMALL, label_maturity_days=6)

    Platform(environment, trained.instance, slow).run("training", "2026-01-17")

    row = trained.table("champion", "2026-01-17").iloc[0]
    assert row["decision"] == "kept"
    assert "has learned from every day of the holdout" in row["reason"]
    assert pd.isna(row["difference_high"])
