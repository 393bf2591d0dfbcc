"""Monitoring, through real runs: what it finds, what it cannot judge, and what its checks say."""

import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from ml_assets.core.tables import Monitoring
from ml_assets.monitoring_pages import page_file
from ml_assets_tests.conftest import Platform, new_platform, small_environment
from ml_assets_tests.test_alert_sensor import Alerted

FIRST, LAST = "2026-01-12", "2026-01-23"  # a Monday, and a Friday
CHECKS = ("inputs_stable", "outputs_stable", "performance_holds", "page_written")


def found(platform: Platform, day: str, section: str) -> pd.DataFrame:
    frame = platform.table("monitoring", day)
    return frame[frame["section"] == section].reset_index(drop=True)


def states(platform: Platform, day: str, section: str) -> dict[str, str]:
    rows = found(platform, day, section).dropna(subset=["state"])
    return dict(zip(rows["subject"], rows["state"], strict=True))


def check(platform: Platform, name: str) -> dg.AssetCheckEvaluation:
    return platform.check("monitoring", name)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform with a champion whose word on three weeks came before their outcomes."""
    made = new_platform(tmp_path_factory.mktemp("scored"))
    made.arrive("2026-01-01", LAST)
    made.run("ingestion", "2026-01-01", LAST)
    made.run("training", FIRST)
    with pytest.MonkeyPatch.context() as patch:
        early = datetime(2026, 1, 12, tzinfo=UTC)
        patch.setattr("ml_assets.assets.predictions.now", lambda: early)
        made.run("scoring", "2026-01-11", LAST)
    return made


@pytest.fixture(scope="module")
def watched(scored: Platform) -> Platform:
    scored.run("monitoring", FIRST, LAST)
    return scored


@pytest.fixture
def copy(scored: Platform, tmp_path: Path) -> Platform:
    """The same, to be harmed."""
    home = tmp_path / "home"
    shutil.copytree(scored.environment.home, home)
    shutil.rmtree(home / "lake/claims/monitoring", ignore_errors=True)
    shutil.rmtree(home / "reports", ignore_errors=True)
    return Platform(small_environment(home), dg.DagsterInstance.ephemeral())


def test_quiet_days_pass_and_say_everything(watched: Platform) -> None:
    frame = watched.table("monitoring", LAST)

    assert [check(watched, name).passed for name in CHECKS] == [True] * 4
    assert set(frame["section"]) == {
        "inputs",
        "outputs",
        "volume",
        "outcomes",
        "weeks",
        "estimate",
    }
    assert not frame.duplicated(["section", "subject", "measure"]).any()
    inputs = states(watched, LAST, "inputs")
    assert set(inputs) <= set(watched.use_case.inputs)
    assert set(inputs.values()) <= {"ok", "watch"}
    Monitoring.validate(frame)


def test_what_was_said_of_the_day_is_told(watched: Platform) -> None:
    outputs = found(watched, LAST, "outputs").set_index("measure")
    said = watched.table("predictions", LAST)

    assert outputs.loc["expected_positives", "value"] == pytest.approx(said["probability"].sum())
    assert outputs.loc["referred_share", "value"] == pytest.approx(said["refer"].mean())
    assert outputs.loc["psi", "rows"] == len(said)


def test_outcomes_are_judged_once_final_beside_promise_and_stored_estimate(
    watched: Platform,
) -> None:
    outcomes = found(watched, LAST, "outcomes").set_index("measure")
    estimate = found(watched, "2026-01-21", "estimate").set_index("measure")  # two days before
    model = watched.table("model", FIRST).iloc[0]

    assert set(outcomes["subject"]) == {"champion 1"}
    assert outcomes.loc["roc_auc", "state"] == "ok"
    assert outcomes.loc["roc_auc", "low"] < outcomes.loc["roc_auc", "value"]
    assert outcomes.loc["roc_auc_promised", "value"] == pytest.approx(model["roc_auc"])
    for name in ("roc_auc", "log_loss", "brier"):
        stored = estimate.loc[name, ["value", "low", "high"]].tolist()
        assert outcomes.loc[f"{name}_estimated", ["value", "low", "high"]].tolist() == stored
    known = watched.table("features", "2026-01-11", "2026-01-21")["claim_status"]
    assert outcomes.loc["positives", "value"] == known.sum()
    assert outcomes.loc["positives", "rows"] == known.notna().sum()


def test_weeks_compare_expected_with_actual_claims(watched: Platform) -> None:
    weeks = found(watched, LAST, "weeks").set_index(["subject", "measure"])

    # The first has one scored day, the third is not over.
    assert {subject for subject, _ in weeks.index} == {"2026-01-05", "2026-01-12"}
    expected = weeks.loc[("2026-01-12", "expected")]
    said = watched.table("predictions", "2026-01-12", "2026-01-18")["probability"].sum()
    assert expected["value"] == pytest.approx(said)
    assert expected["low"] < said < expected["high"]


@pytest.mark.slow
def test_a_range_gives_what_day_after_day_gives_and_again_nothing_new(
    watched: Platform, copy: Platform
) -> None:
    for day in ("2026-01-12", "2026-01-13", "2026-01-14"):
        copy.run("monitoring", day)
    copy.run("monitoring", "2026-01-15", LAST)
    once = copy.table("monitoring", FIRST, LAST)
    copy.run("monitoring", "2026-01-22", LAST)
    again = copy.table("monitoring", FIRST, LAST)

    # But for the order of rows of equal section, which the table does not keep.
    order = ["day", "section", "subject", "measure"]
    expected = watched.table("monitoring", FIRST, LAST).sort_values(order, ignore_index=True)
    pd.testing.assert_frame_equal(once.sort_values(order, ignore_index=True), expected)
    assert again.attrs == once.attrs
    for day in (FIRST, LAST, "latest"):
        page = page_file(watched.environment, watched.use_case, day).read_bytes()
        assert page_file(copy.environment, copy.use_case, day).read_bytes() == page


def test_drift_is_red_once_it_lasts_and_says_what_since_when_and_what_to_do(
    copy: Platform,
) -> None:
    days = ("2026-01-20", "2026-01-21", "2026-01-22", "2026-01-23")
    for day in days:
        copy.replace_day(day, lambda rows: rows.assign(age=(rows["age"] + 9).clip(upper=95)))
    copy.run("ingestion", days[0], LAST)
    copy.run("monitoring", "2026-01-19", days[1])
    assert states(copy, "2026-01-19", "inputs")["age"] == "ok"
    assert states(copy, days[1], "inputs")["age"] in ("watch", "drift")

    copy.run("monitoring", days[2], LAST)

    age = found(copy, LAST, "inputs").query("subject == 'age' and measure == 'psi'").iloc[0]
    assert (age["state"], age["since"]) == ("drift", days[0])
    evaluation = check(copy, "inputs_stable")
    assert not evaluation.passed
    assert evaluation.severity == dg.AssetCheckSeverity.WARN
    told = evaluation.description or ""
    assert told.startswith(f"On {LAST} inputs have drifted: age: ")
    assert "Ask the source whether the change is real" in told
    assert "claims_training" in told
    page = page_file(copy.environment, copy.use_case, LAST).read_text()
    assert f'<time datetime="{days[0]}">' in page
    assert re.search("(One finding is|findings are) red", page)
    metadata = copy.metadata("monitoring", LAST)
    assert metadata["page"] == f"http://127.0.0.1:3001/claims/monitoring_{LAST}.html"
    assert metadata["trouble"] >= 1


def test_a_champion_that_is_worse_than_promised_fails_the_check(copy: Platform) -> None:
    said = copy.table("predictions", "2026-01-11", LAST)
    copy.lake.write(
        "claims/predictions", said.assign(probability=1 - said["probability"]), "2026-01-11", LAST
    )

    copy.run("monitoring", LAST)

    evaluation = check(copy, "performance_holds")
    assert not evaluation.passed
    assert "worse than chance explains" in (evaluation.description or "")
    assert "rollback" in (evaluation.description or "")
    assert not check(copy, "outputs_stable").passed


def test_a_challenger_is_measured_likewise_and_alarms_nobody(copy: Platform) -> None:
    said = copy.table("predictions", "2026-01-18", LAST)
    reversed_ = said.assign(model_version=2, probability=1 - said["probability"])
    copy.lake.write("claims/shadow", reversed_, "2026-01-18", LAST)

    copy.run("monitoring", LAST)

    figures = found(copy, LAST, "outcomes").set_index(["subject", "measure"])["value"]
    assert figures["challenger 2", "roc_auc"] < 0.5 < figures["champion 1", "roc_auc"]
    assert set(states(copy, LAST, "outcomes")) == {"champion 1"}
    assert check(copy, "performance_holds").passed
    page = page_file(copy.environment, copy.use_case, LAST).read_text()
    assert "1 challenger, on which nobody acts" in page


def test_a_later_word_about_an_application_changes_nothing(copy: Platform) -> None:
    copy.run("monitoring", LAST)
    before = found(copy, LAST, "outcomes")
    # Scored anew, by other code as it were, and now: the first word stays on record.
    said = copy.table("predictions", "2026-01-20", "2026-01-21")
    later = said.assign(scored_at=said["scored_at"] + pd.Timedelta(hours=5), probability=0.5)
    earlier = said.assign(superseded_at=later["scored_at"])
    copy.lake.write("claims/predictions", pd.concat([later, earlier]), "2026-01-20", "2026-01-21")

    copy.run("monitoring", LAST)

    pd.testing.assert_frame_equal(found(copy, LAST, "outcomes"), before)


def test_one_outcome_only_is_a_state_and_no_error(copy: Platform) -> None:
    features = copy.table("features", "2026-01-11", "2026-01-21")
    copy.lake.write(
        "claims/features",
        features.assign(claim_status=features["claim_status"] * 0),
        "2026-01-11",
        "2026-01-21",
    )

    copy.run("monitoring", LAST)

    outcomes = found(copy, LAST, "outcomes").set_index("measure")
    assert outcomes.loc["roc_auc", "state"] == "one class"
    assert pd.isna(outcomes.loc["roc_auc", "value"])
    assert pd.notna(outcomes.loc["log_loss", "value"])


def test_before_outcomes_are_final_an_estimate_is_all_there_is(watched: Platform) -> None:
    outcomes = found(watched, FIRST, "outcomes").iloc[0]
    estimate = found(watched, FIRST, "estimate").set_index("measure")

    assert (outcomes["subject"], outcomes["state"]) == ("all", "not matured")
    assert "it is known on 2026-01-13" in outcomes["sentence"]
    assert estimate.loc["log_loss", "low"] < estimate.loc["log_loss", "high"]


def test_no_champion_and_days_without_rows_are_states_and_no_errors(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-06")
    platform.run("ingestion", "2026-01-05", "2026-01-07")

    platform.run("monitoring", "2026-01-02", "2026-01-07")

    assert states(platform, "2026-01-06", "inputs") == {"all": "no model"}
    assert states(platform, "2026-01-06", "outputs") == {"all": "no rows"}
    assert states(platform, "2026-01-02", "volume") == {"applications": "unknown"}
    assert states(platform, "2026-01-07", "inputs") == {"all": "no rows"}
    volume = found(platform, "2026-01-07", "volume").set_index("measure").loc["rows"]
    assert (volume["value"], volume["state"]) == (0, "too little history")
    assert [check(platform, name).passed for name in CHECKS] == [True] * 4
    page = page_file(platform.environment, platform.use_case, "2026-01-06").read_text()
    assert "Run the job" in page
    assert "<h2" in page


def lose_registry(platform: Platform) -> None:
    for name in ("mlflow.db", "cache"):
        place = platform.environment.home / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()


@pytest.mark.slow
def test_a_lost_registry_is_told_and_the_rest_is_looked_at(copy: Platform) -> None:
    lose_registry(copy)

    copy.run("monitoring", LAST)

    assert states(copy, LAST, "inputs") == {"all": "unknown"}
    assert set(states(copy, LAST, "outcomes").values()) == {"unknown"}
    assert states(copy, LAST, "weeks") == dict.fromkeys(("2026-01-05", "2026-01-12"), "ok")
    for name, cause in (
        ("inputs_stable", "inputs have drifted"),
        ("performance_holds", "what came true is worse than promised"),
    ):
        evaluation = check(copy, name)
        assert not evaluation.passed
        told = f"On {LAST} it is not known whether {cause}: what version 1 was made from is not"
        assert (evaluation.description or "").startswith(told)
        assert "`ml-assets doctor`" in (evaluation.description or "")


@pytest.mark.slow
def test_a_day_that_cannot_be_looked_at_ends_no_trouble(copy: Platform) -> None:
    said = copy.table("predictions", "2026-01-11", LAST)
    copy.lake.write(
        "claims/predictions", said.assign(probability=1 - said["probability"]), "2026-01-11", LAST
    )
    alerted = Alerted(copy, [])
    copy.run("monitoring", "2026-01-22")
    before = {each.title: each.kind for each in alerted.tick()}
    lose_registry(copy)

    copy.run("monitoring", LAST)

    after = {each.title: each.kind for each in alerted.tick()}
    for name in ("outputs_stable", "performance_holds"):
        title = f"claims/monitoring: {name} fails for"
        assert before[f"{title} 2026-01-22"] == "trouble"
        assert after[f"{title} {LAST}"] == "trouble"
    assert "well" not in after.values()


def test_a_page_that_cannot_be_written_warns_and_leaves_the_table(copy: Platform) -> None:
    reports = copy.environment.reports_folder
    reports.write_text("in the way")

    copy.run("monitoring", LAST)

    evaluation = check(copy, "page_written")
    assert not evaluation.passed
    assert "Make room there" in (evaluation.description or "")
    assert states(copy, LAST, "volume")
    assert "page" not in copy.metadata("monitoring", LAST)
