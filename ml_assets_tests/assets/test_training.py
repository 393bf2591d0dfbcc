"""Training set, model and champion, through real runs and a real MLflow store."""

import dataclasses
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.champions import Hand, promote
from ml_assets.champions import history as champion_history
from ml_assets.core.bundle import mean_gain, predict
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
    assert (model["train_rows"], model["validation_rows"], model["calibration_rows"]) == tuple(
        len(trained.table("features", first, last).dropna(subset="claim_status"))
        for first, last in (
            ("2026-01-05", "2026-01-10"),
            ("2026-01-11", "2026-01-11"),
            ("2026-01-12", "2026-01-12"),
        )
    )


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


def test_the_metrics_are_those_of_the_registered_model_on_its_holdout(trained: Platform) -> None:
    """The notebook reported figures of another fit than the one that it saved."""
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    model = trained.table("model", LAST).iloc[0]
    first, last = model["holdout_first_day"], model["holdout_last_day"]
    rows = trained.table("features", first, last).dropna(subset="claim_status")
    outcome = rows["claim_status"].astype(int)

    bundle = trained.registry.load("claims", model["version"], model["sha256"])
    probability = predict(bundle, rows)
    in_mlflow = trained.registry.version("claims", model["version"]).metrics

    assert model["holdout_rows"] == len(rows)
    for name, figure in (
        ("roc_auc", roc_auc_score(outcome, probability)),
        ("log_loss", log_loss(outcome, probability)),
        ("brier", brier_score_loss(outcome, probability)),
    ):
        assert model[name] == pytest.approx(figure, rel=1e-8)
        assert in_mlflow[f"holdout_{name}"] == model[name]
    fitted = trained.table("features", "2026-01-05", "2026-01-10").dropna(subset="claim_status")
    assert in_mlflow["train_log_loss"] == pytest.approx(
        log_loss(fitted["claim_status"].astype(int), predict(bundle, fitted)), rel=1e-8
    )
    assert in_mlflow["train_roc_auc"] > in_mlflow["holdout_roc_auc"]


def test_the_bundle_tells_its_recipe_rows_and_days(trained: Platform) -> None:
    model = trained.table("model", LAST).iloc[0]
    manifest = trained.table("training_set", LAST).iloc[0]

    bundle = trained.registry.load("claims", model["version"], model["sha256"])

    facts = bundle.facts
    assert facts["as_of"] == LAST
    assert facts["code_version"] == model["code_version"]
    assert facts["training_set"]["content_hash"] == manifest["content_hash"]
    assert facts["recipe"]["costs"] == {"missed_claim": 1000.0, "needless_referral": 100.0}
    assert bundle.threshold == model["threshold"]
    assert bundle.calibration["method"] == model["calibration"]
    parts = [facts["split"][part] for part in ("train", "validation", "calibration", "holdout")]
    for earlier, later in pairwise(parts):
        assert max(earlier) < min(later)


def test_what_the_source_repeats_in_another_column_is_no_input(trained: Platform) -> None:
    model = trained.table("model", LAST).iloc[0]

    bundle = trained.registry.load("claims", model["version"], model["sha256"])

    assert bundle.duplicates
    assert not set(bundle.duplicates) & set(bundle.inputs)
    assert set(bundle.duplicates.values()) <= set(bundle.inputs)
    assert {*bundle.duplicates, *bundle.inputs} == set(SMALL.inputs)


def tuned_by(platform: Platform) -> pd.DataFrame:
    """What a short search finds; forgotten again, so that no later model is trained with it."""
    tuning = platform.environment.tuning.model_copy(
        update={"trials": 2, "folds": 2, "fold_days": 1, "judge_days": 1}
    )
    environment = platform.environment.model_copy(update={"tuning": tuning})
    Platform(environment, platform.instance).run("tuning", LAST)
    found = platform.table("hyperparameters", LAST)
    platform.lake.write("claims/hyperparameters", found.head(0), LAST, LAST)
    return found


def test_flipped_outcomes_of_the_holdout_change_nothing_but_its_metrics(
    trained: Platform, tmp_path: Path
) -> None:
    """Thirteen notebooks of this kind, and in eight the test set has a say in the model."""
    other = new_platform(tmp_path)
    other.arrive("2026-01-05", LAST)
    for day in ("2026-01-13", "2026-01-14"):
        other.replace_day(
            day, lambda rows: rows.assign(claim_status=1 - rows["claim_status"].astype("Int64"))
        )
    other.run("ingestion", "2026-01-05", LAST)
    # Probabilities that are the wrong way round are nothing that may serve by itself.
    with pytest.raises(RunFailed, match=r"breaks a guardrail: .*calibration slope -"):
        other.run("training", LAST)
    hand = Hand("ada", "to compare", datetime.now(UTC))
    promote(other.environment, SMALL, other.lake, other.registry, 1, hand)
    for platform in (trained, other):
        platform.run("scoring", LAST)

    models = [platform.table("model", LAST).iloc[0] for platform in (trained, other)]
    ours, theirs = (
        platform.registry.load("claims", model["version"], model["sha256"])
        for platform, model in zip((trained, other), models, strict=True)
    )
    assert theirs.trees == ours.trees
    for part in ("inputs", "vocabulary", "calibration", "threshold", "duplicates"):
        assert getattr(theirs, part) == getattr(ours, part), part
    assert {name for name in ours.facts if ours.facts[name] != theirs.facts[name]} == {
        "training_set"
    }
    said = [platform.table("predictions", LAST) for platform in (trained, other)]
    pd.testing.assert_frame_equal(
        said[0].drop(columns="scored_at"), said[1].drop(columns="scored_at")
    )
    assert models[0]["roc_auc"] + models[1]["roc_auc"] == pytest.approx(1)
    tuned = [tuned_by(platform).drop(columns="content_hash") for platform in (trained, other)]
    pd.testing.assert_frame_equal(*tuned)


@pytest.mark.parametrize(
    ("days", "column", "value", "told"),
    [
        (("2026-01-13", "2026-01-14"), "claim_status", 0, "holdout rows hold only one outcome (0)"),
        (("2026-01-12",), "claim_status", 0, "calibration rows hold only one outcome (0)"),
        (("2026-01-11",), "claim_status", 1, "validation rows hold only one outcome (1)"),
    ],
    ids=["holdout without positives", "calibration without positives", "validation all positive"],
)
def test_a_part_with_one_outcome_fails_the_run_with_its_name_and_nobody_is_promoted(
    one_sided: Platform, days: tuple[str, ...], column: str, value: int, told: str
) -> None:
    before = {day: one_sided.table("features", day) for day in days}
    for day, rows in before.items():
        known = rows[column].where(rows[column].isna(), value)
        one_sided.lake.write("claims/features", rows.assign(**{column: known}), day, day)
    try:
        with pytest.raises(RunFailed, match=re.escape(told)):
            one_sided.run("training", LAST)
    finally:
        for day, rows in before.items():
            one_sided.lake.write("claims/features", rows, day, day)

    assert one_sided.lake.rows_per_day("claims/model") == {}
    assert champion_history(one_sided.lake, SMALL) == []
    assert one_sided.registry.versions("claims") == []


def test_columns_that_say_nothing_are_trained_with_and_have_no_effect(one_sided: Platform) -> None:
    before = one_sided.table("features", "2026-01-05", LAST)
    silent = before.assign(
        age=before["age"].iloc[0],
        education_level=before["education_level"].iloc[0],
    )
    one_sided.lake.write("claims/features", silent, "2026-01-05", LAST)

    one_sided.run("training", LAST)

    model = one_sided.table("model", LAST).iloc[0]
    bundle = one_sided.registry.load("claims", model["version"], model["sha256"])
    gain = mean_gain(bundle)
    assert gain["age"] == gain["education_level"] == 0
    assert len(bundle.vocabulary["education_level"]) == 1
    assert 0.7 < model["roc_auc"] < 1


@pytest.fixture(scope="module")
def one_sided(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform with twelve days of features and no model; each test mends what it breaks."""
    platform = new_platform(tmp_path_factory.mktemp("one_sided"))
    platform.arrive("2026-01-05", LAST)
    platform.run("ingestion", "2026-01-05", LAST)
    return platform


def test_an_unmatured_window_is_refused_with_the_reason(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-09")
    platform.run("ingestion", "2026-01-05", "2026-01-09")

    with pytest.raises(RunFailed, match=r"at least 5 matured days .* there are 3"):
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


def test_a_training_shows_its_plots_and_keeps_those_of_the_model(platform: Platform) -> None:
    evaluation = platform.environment.evaluation.model_copy(update={"plots": True})
    environment = platform.environment.model_copy(update={"evaluation": evaluation})
    platform.arrive("2026-01-05", LAST)
    platform.run("ingestion", "2026-01-05", LAST)

    Platform(environment, platform.instance).run("training", LAST)

    explored, model = (platform.metadata(stage, LAST) for stage in ("training_set", "model"))
    for name in ("histograms", "categories", "correlation", "missing"):
        assert explored[name].startswith("![plot](data:image/png")
    for name in ("roc_and_precision_recall", "reliability", "shap_summary", "first_tree"):
        assert model[name].startswith("![plot](data:image/png")
        image = platform.registry.artifact("claims", 1, f"plots/{name}.png")
        assert image.startswith(b"\x89PNG")
