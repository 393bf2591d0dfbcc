"""Yesterday's predictions by seven: red when nothing ran, whatever old day is scored."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from zoneinfo import ZoneInfo

import dagster as dg
import pandas as pd
import pytest

from ml_assets_tests.conftest import Platform
from ml_assets_tests.test_alert_sensor import Alerted
from ml_assets_tests.test_schedules import tick

LONDON = ZoneInfo("Europe/London")
DUE = "2026-01-16"


def at(monkeypatch: pytest.MonkeyPatch, day: str, clock: str) -> None:
    hour, minute = map(int, clock.split(":"))
    instant = datetime.fromisoformat(day).replace(hour=hour, minute=minute, tzinfo=LONDON)
    monkeypatch.setattr("ml_assets.monitoring_checks.now", lambda: instant)


def newest(platform: Platform) -> dg.AssetCheckEvaluation:
    return platform.check("predictions", "predictions_on_time")


def look(platform: Platform) -> dg.AssetCheckEvaluation:
    """Run the job of the check alone, as its schedule does."""
    job = platform.definitions.resolve_job_def("claims_freshness")
    assert job.execute_in_process(instance=platform.instance, raise_on_error=False).success
    return newest(platform)


def test_it_turns_red_when_nothing_ran_and_green_only_by_the_day_that_is_due(
    trained: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, "2026-01-17", "07:05")

    red = look(trained)

    assert not red.passed
    assert red.severity == dg.AssetCheckSeverity.ERROR
    assert red.description == (
        f"The predictions of {DUE} are not there, and were due by 07:00 the morning after, though "
        "the source has applications of that day. Look at the newest failed run, mend its cause, "
        f"and run `ml-assets run scoring --day {DUE}`."
    )

    trained.run("scoring", "2026-01-08", "2026-01-09")
    assert not newest(trained).passed, "an old day was scored; it is not the one that is due"

    trained.run("scoring", DUE)
    assert newest(trained).passed
    assert newest(trained).metadata["day"].value == DUE


@contextmanager
def source_down(platform: Platform) -> Iterator[None]:
    file = platform.environment.home / "warehouse.duckdb"
    whole = file.read_bytes()
    file.write_bytes(b"not a database")
    yield
    file.write_bytes(whole)


def test_a_day_of_which_the_morning_alone_was_scored_is_red_and_told_until_it_is_whole(
    trained: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, old = "2026-01-15", "2026-01-08"
    alerted = Alerted(trained, [])
    whole: list[pd.DataFrame] = []

    def clock(instant: str) -> None:
        local = datetime.fromisoformat(instant).replace(tzinfo=LONDON)
        monkeypatch.setattr(time, "time", local.timestamp)

    def told() -> list[tuple[str, tuple[str, ...]]]:
        found = alerted.tick()
        return [(each.kind, each.days) for each in found if "on_time" in each.title]

    def morning(rows: pd.DataFrame) -> pd.DataFrame:
        whole.append(rows)
        return rows.head(100)

    trained.replace_day(day, morning)
    clock("2026-01-15T12:00")
    trained.run("scoring", day)
    told()

    clock("2026-01-16T06:59")
    assert look(trained).metadata["day"].value == "2026-01-14", "it has until seven"
    told()
    clock("2026-01-16T07:05")
    with source_down(trained):
        unknown = look(trained)
    assert not unknown.passed
    assert "is not known" in (unknown.description or "")
    assert "the source cannot be read" in (unknown.description or "")

    trained.replace_day(day, lambda _: whole[0])
    trained.run("scoring", old)
    half = newest(trained)
    assert not half.passed
    late = len(whole[0]) - 100
    assert (half.description or "").startswith(
        f"100 predictions of {day} are there, but {late} are missing, and were due by 07:00 the "
        f"morning after: {late} in the source but not read yet. Look at"
    )
    assert half.metadata["failing_days"].value == [day]
    assert told() == [("trouble", (day,))], "whichever day was scored"

    trained.run("ingestion", day)
    assert f"{late} in features but not scored" in (look(trained).description or "")
    trained.run("scoring", day)
    assert newest(trained).passed
    # The 14th, which was due at 06:59, is nobody's concern any more.
    assert told() == [("well", ("2026-01-14", day))]

    # A correction that is yet to be read is not late; nor is a source that is down by then.
    trained.replace_day(day, lambda rows: rows.assign(income=rows["income"] + 1))
    assert look(trained).passed
    with source_down(trained):
        assert look(trained).passed
    assert "the source cannot be read" in (newest(trained).description or "")
    assert told() == []


def test_each_day_that_is_late_is_told_and_ends_with_a_later_one_that_is_well(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.arrive("2026-01-05", "2026-01-06")
    alerted = Alerted(platform, [])
    told = []

    for morning in ("2026-01-06", "2026-01-07", "2026-01-07", "2026-01-11"):
        at(monkeypatch, morning, "07:05")
        look(platform)
        told.append([(each.kind, each.level, each.days) for each in alerted.tick()])

    assert told == [
        [("trouble", "error", ("2026-01-05",))],
        [("trouble", "error", ("2026-01-06",))],
        [],
        [("well", "error", ("2026-01-05", "2026-01-06"))],
    ]


@pytest.mark.parametrize(
    ("day", "clock", "due"),
    [
        ("2026-01-20", "06:59", "2026-01-18"),
        ("2026-01-20", "07:00", "2026-01-19"),
        # Past midnight it is still the day before yesterday that was due this morning.
        ("2026-01-20", "00:01", "2026-01-18"),
        # The clocks go forward.
        ("2026-03-29", "07:05", "2026-03-28"),
    ],
)
def test_what_is_due_goes_by_the_local_clock(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, day: str, clock: str, due: str
) -> None:
    at(monkeypatch, day, clock)

    assert look(platform).metadata["day"].value == due


def test_a_day_without_applications_needs_no_predictions_and_says_so(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.arrive("2026-01-05", "2026-01-06")
    at(monkeypatch, "2026-01-11", "07:05")

    found = look(platform)

    assert found.passed
    assert (found.description or "").startswith("No application of 2026-01-10 is in the source")


def test_before_the_first_day_nothing_is_due(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, "2026-01-01", "07:05")

    assert look(platform).passed
    assert "starts on 2026-01-01" in (newest(platform).description or "")


def test_without_a_champion_it_says_how_to_get_one(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.arrive("2026-01-05", "2026-01-06")
    at(monkeypatch, "2026-01-07", "07:05")

    found = look(platform)

    assert not found.passed
    assert "No model serves yet: run claims_training" in (found.description or "")


def test_a_source_that_is_down_is_no_excuse(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform.arrive("2026-01-05", "2026-01-06")
    at(monkeypatch, "2026-01-07", "07:05")

    with source_down(platform):
        found = look(platform)

    assert not found.passed
    assert "the source cannot be read" in (found.description or "")


def test_its_schedule_asks_each_morning_after_the_deadline(platform: Platform) -> None:
    schedule = platform.definitions.get_repository_def().get_schedule_def("claims_freshness_daily")

    request = tick(platform, schedule.name, datetime(2026, 1, 20, 7, 5, tzinfo=LONDON))

    assert schedule.cron_schedule == "5 7 * * *"
    assert schedule.execution_timezone == "Europe/London"
    assert request.partition_key is None
    assert date.fromisoformat(request.run_key or "") == date(2026, 1, 19)


def test_monitoring_asks_for_yesterday_after_scoring(platform: Platform) -> None:
    at_quarter_to = datetime(2026, 1, 20, 6, 45, tzinfo=LONDON)

    assert tick(platform, "claims_monitoring_daily", at_quarter_to).partition_key == "2026-01-19"
