"""Tuning through real runs: what is adopted serves from its day on, and what is kept says why."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_assets.assets import tuning
from ml_assets.assets.as_of import hyperparameters_as_of
from ml_assets.core.gate import Difference
from ml_assets.core.tuning import Choice
from ml_assets.runs import RunFailed
from ml_assets_tests.conftest import SMALL, Platform, new_platform

LAST = "2026-01-16"
OP = "claims__hyperparameters"


def config(**values: Any) -> dict[str, Any]:
    return {"ops": {OP: {"config": values}}}


def as_of(platform: Platform, day: str) -> tuple[Any, str]:
    return hyperparameters_as_of(platform.lake, SMALL, day, platform.environment.training)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform with twelve days of features, tuned as of the last."""
    found = new_platform(tmp_path_factory.mktemp("tuned"))
    found.arrive("2026-01-05", LAST)
    found.run("ingestion", "2026-01-05", LAST)
    found.run("tuning", LAST)
    return found


def test_the_outcome_says_what_was_decided_and_on_what(tuned: Platform) -> None:
    row = tuned.table("hyperparameters", LAST).iloc[0]

    rows = tuned.table("features", "2026-01-10", "2026-01-11")
    assert row["judged_rows"] == rows["claim_status"].notna().sum()
    assert row["trials"] == 5
    assert row["metric"] == "log_loss"
    assert row["content_hash"] == tuned.table("training_set", LAST)["content_hash"][0]
    adopted = row["decision"] == "adopted"
    words = "the tuned parameters are adopted" if adopted else "the parameters in use are kept"
    assert row["reason"].startswith(words)
    assert f"{row['difference_high']:+.4f}] against XGBoost's defaults" in row["reason"]
    if not adopted:
        assert json.loads(row["parameters"]) == tuned.environment.training.parameters


def test_the_run_shows_its_days_and_every_trial(tuned: Platform) -> None:
    shown = tuned.metadata("hyperparameters", LAST)

    # Matured by the 14th; holdout 13th and 14th, calibration the 12th: none of these is tuned on.
    assert shown["searched_days"] == "2026-01-05 to 2026-01-09"
    assert shown["judging_days"] == "2026-01-10 to 2026-01-11"
    assert shown["all_trials"].count("\n") == tuned.table("hyperparameters", LAST)["trials"][0] + 1
    assert shown["in_use_before"].endswith("from the configuration (training.parameters)")


def test_tuning_again_gives_the_same_outcome(tuned: Platform) -> None:
    before = tuned.table("hyperparameters", LAST)

    tuned.run("tuning", LAST)

    again = tuned.table("hyperparameters", LAST)
    pd.testing.assert_frame_equal(again, before)
    assert again.attrs == before.attrs, "the table was written anew"


def test_no_outcome_of_calibration_or_holdout_days_reaches_the_tuning(
    tuned: Platform, tmp_path: Path
) -> None:
    other = new_platform(tmp_path)
    other.arrive("2026-01-05", LAST)
    for day in ("2026-01-12", "2026-01-13", "2026-01-14"):
        other.replace_day(day, lambda rows: rows.assign(claim_status=1 - rows["claim_status"]))
    other.run("ingestion", "2026-01-05", LAST)
    other.run("tuning", LAST)

    said, before = (
        each.table("hyperparameters", LAST).drop(columns="content_hash") for each in (other, tuned)
    )
    pd.testing.assert_frame_equal(said, before)
    assert (
        other.table("training_set", LAST)["content_hash"][0]
        != tuned.table("training_set", LAST)["content_hash"][0]
    )


def test_a_person_sets_trials_seed_and_metric_in_the_launchpad(tuned: Platform) -> None:
    tuned.run("tuning", "2026-01-15", config=config(trials=2, seed=7, metric="roc_auc"))

    row = tuned.table("hyperparameters", "2026-01-15").iloc[0]
    assert (row["trials"], row["seed"], row["metric"]) == (3, 7, "roc_auc")
    assert 0.5 < row["score"] < 1


def test_the_time_budget_ends_the_search(tuned: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 40))
    monkeypatch.setattr(tuning.time, "monotonic", lambda: next(clock))

    tuned.run("tuning", "2026-01-15", config=config(time_budget_seconds=60))

    assert tuned.table("hyperparameters", "2026-01-15")["trials"][0] == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 0}, r"trials.*greater than or equal to 1"),
        ({"trials": 5_000}, r"trials.*less than or equal to 1000"),
        ({"time_budget_seconds": 0}, r"time_budget_seconds.*greater than or equal to 1"),
        ({"seed": -1}, r"seed.*greater than or equal to 0"),
    ],
)
def test_a_config_out_of_range_is_refused_with_the_range(
    tuned: Platform, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(RunFailed, match=f"(?s){message}"):
        tuned.run("tuning", "2026-01-15", config=config(**values))


def test_an_unknown_metric_is_refused_with_the_known_ones(tuned: Platform) -> None:
    from dagster import DagsterInvalidConfigError

    with pytest.raises(DagsterInvalidConfigError, match=r"'log_loss', 'roc_auc'"):
        tuned.run("tuning", "2026-01-15", config=config(metric="accuracy"))


def test_too_few_days_are_refused_with_the_number_needed(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-12")
    platform.run("ingestion", "2026-01-05", "2026-01-12")

    # Six matured days, of which calibration and holdout take three.
    with pytest.raises(RunFailed, match=r"tuning needs rows of at least 5 days .* there are 3"):
        platform.run("tuning", "2026-01-12")
    assert platform.lake.rows_per_day("claims/hyperparameters") == {}


def test_a_day_uses_the_newest_adopted_parameters_up_to_it(tuned: Platform, tmp_path: Path) -> None:
    rows = tuned.table("hyperparameters", LAST)
    platform = new_platform(tmp_path)
    for day, decision, depth in (
        ("2026-01-10", "kept", 1),
        ("2026-01-12", "adopted", 2),
        ("2026-01-14", "adopted", 3),
        ("2026-01-16", "kept", 4),
    ):
        row = rows.assign(day=day, decision=decision, parameters=json.dumps({"max_depth": depth}))
        platform.lake.write("claims/hyperparameters", row, day, day)

    configured = platform.environment.training.parameters
    assert as_of(platform, "2026-01-11") == (configured, "the configuration (training.parameters)")
    assert as_of(platform, "2026-01-12") == (
        {"max_depth": 2},
        "claims/hyperparameters of 2026-01-12",
    )
    assert as_of(platform, "2026-01-13")[0] == {"max_depth": 2}
    assert as_of(platform, "2026-01-20")[0] == {"max_depth": 3}


def test_before_any_tuning_the_configuration_holds(platform: Platform) -> None:
    assert as_of(platform, LAST)[0] == platform.environment.training.parameters


def test_what_was_adopted_before_is_the_incumbent_of_the_next_tuning(
    tuned: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def adopt(*_: Any, tuned: Any, incumbent: Any, **__: Any) -> Choice:
        seen.append(incumbent)
        difference = Difference(-0.1, -0.2, -0.05, 400)
        return Choice(True, {"max_depth": 5}, "adopted for the test", difference, difference)

    monkeypatch.setattr(tuning, "compare", adopt)
    quick = config(trials=1)
    tuned.arrive("2026-01-17", "2026-01-18")
    tuned.run("ingestion", "2026-01-17", "2026-01-18")
    tuned.run("tuning", "2026-01-17", config=quick)
    tuned.run("tuning", "2026-01-18", config=quick)
    tuned.run("tuning", "2026-01-17", config=quick)

    assert seen[1] == {"max_depth": 5}
    assert seen[2] == seen[0] != seen[1], "a tuning never starts from its own day's outcome"
