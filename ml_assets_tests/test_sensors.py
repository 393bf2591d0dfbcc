"""The sensor: exactly the changed days, at most so many a tick, and never one change twice."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from ml_assets.resources.warehouse import WarehouseError
from ml_assets.sensors import Cursor, Outcome, Plan, plan
from ml_assets_tests.conftest import SMALL, Platform


def changed(*days: int, rows: int = 10) -> dict[str, str]:
    return {f"2026-01-{day:02}": f"{rows} rows" for day in days}


def decide(
    days: dict[str, str],
    cursor: Cursor | None = None,
    *,
    ended: Iterable[str] = (),
    canceled: Iterable[str] = (),
    made: bool = True,
    max_days: int = 31,
) -> Plan:
    def outcome(run_key: str) -> Outcome:
        if run_key in set(canceled):
            return Outcome.CANCELED
        return Outcome.ENDED if run_key in set(ended) else Outcome.PENDING

    return plan(
        days,
        cursor or Cursor(epoch="then"),
        is_recent=lambda day: day >= "2026-01-10",
        is_made=lambda day: made,
        outcome=outcome,
        max_days=max_days,
    )


def spans(decided: Plan) -> list[tuple[str, str, bool]]:
    return [(each.first[-2:], each.last[-2:], each.scored) for each in decided.requests]


def keys(decided: Plan) -> list[str]:
    return [each.run_key for each in decided.requests]


def test_consecutive_days_are_asked_for_together_newest_first() -> None:
    decided = decide(changed(11, 12, 14))

    assert spans(decided) == [("14", "14", True), ("11", "12", True)]
    assert decided.left == []


def test_old_days_are_refreshed_and_recent_ones_scored() -> None:
    assert spans(decide(changed(8, 9, 10, 11))) == [("10", "11", True), ("08", "09", False)]


def test_a_change_is_asked_for_once_while_its_run_is_under_way() -> None:
    days = changed(11, 12)
    first = decide(days)

    again = decide(days, first.cursor)

    assert again.requests == []
    assert again.running == list(days)


def test_a_day_that_changes_during_its_run_is_asked_for_after_it() -> None:
    first = decide(changed(11))

    during = decide(changed(11, rows=11), first.cursor)
    after = decide(changed(11, rows=11), during.cursor, ended=keys(first))

    assert during.requests == []
    assert spans(after) == [("11", "11", True)]
    assert keys(after) != keys(first)


def test_a_day_that_is_up_to_date_is_forgotten() -> None:
    first = decide(changed(11, 12))

    after = decide({}, first.cursor, ended=keys(first))

    assert after.cursor.asked == {}
    assert after.requests == []


def test_a_day_that_comes_back_to_an_earlier_state_is_asked_for_under_a_new_key() -> None:
    first = decide(changed(11))
    emptied = decide(changed(11, rows=0), first.cursor, ended=keys(first))

    back = decide(changed(11), emptied.cursor, ended=[*keys(first), *keys(emptied)])

    assert spans(back) == [("11", "11", True)]
    assert len({*keys(first), *keys(emptied), *keys(back)}) == 3


def test_at_most_so_many_days_a_tick_and_the_rest_follows() -> None:
    days = changed(10, 11, 12, 13, 14)

    first = decide(days, max_days=2)
    second = decide(days, first.cursor, max_days=2)
    third = decide(days, second.cursor, max_days=2)

    assert spans(first) == [("13", "14", True)]
    assert [day[-2:] for day in first.left] == ["10", "11", "12"]
    assert spans(second) == [("11", "12", True)]
    assert spans(third) == [("10", "10", True)]
    assert third.left == []


def test_days_of_a_range_that_failed_are_asked_for_alone_and_once() -> None:
    days = changed(11, 12)
    first = decide(days)

    alone = decide(days, first.cursor, ended=keys(first))
    over = decide(days, alone.cursor, ended=[*keys(first), *keys(alone)])

    assert spans(alone) == [("12", "12", True), ("11", "11", True)]
    assert len({*keys(first), *keys(alone)}) == 3
    assert over.requests == []
    assert over.stuck == list(days)


def test_a_day_that_is_extracted_but_not_scored_is_asked_for_once_more() -> None:
    first = decide(changed(11))

    again = decide({}, first.cursor, ended=keys(first), made=False)
    mended = decide({}, again.cursor, ended=[*keys(first), *keys(again)], made=True)

    assert spans(again) == [("11", "11", True)]
    assert mended.cursor.asked == {}


def test_a_day_that_an_older_run_overwrote_is_asked_for_once_more() -> None:
    first = decide(changed(11))

    again = decide(changed(11), first.cursor, ended=keys(first))

    assert spans(again) == [("11", "11", True)]


def test_a_cancelled_run_is_not_asked_for_again_until_the_source_changes() -> None:
    first = decide(changed(11, 12))

    after = decide(changed(11, 12), first.cursor, canceled=keys(first))
    mended = decide(changed(11, 12, rows=12), after.cursor, canceled=keys(first))

    assert after.requests == []
    assert len(after.stuck) == 2
    assert spans(mended) == [("11", "12", True)]


class Ticks:
    """Ticks of the real sensor on a platform, the clock standing at a fixed day."""

    def __init__(self, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
        self.platform = platform
        self.cursor: str | None = None
        now = datetime(2026, 1, 20, 12, tzinfo=UTC)
        monkeypatch.setattr(time, "time", now.timestamp)
        repository = platform.definitions.get_repository_def()
        self.sensor = repository.get_sensor_def("claims_new_data")
        self.repository = repository

    def create_run(self, request: dg.RunRequest) -> dg.DagsterRun:
        """What the daemon does with a request."""
        return self.platform.instance.create_run_for_job(
            self.platform.definitions.resolve_job_def(str(request.job_name)),
            tags={**request.tags, "dagster/run_key": str(request.run_key)},
        )

    def tick(self) -> list[dg.RunRequest]:
        with dg.build_sensor_context(
            instance=self.platform.instance,
            cursor=self.cursor,
            repository_def=self.repository,
            resources={"source": self.platform.source, "lake": self.platform.lake},
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor, self.skip = data.cursor, str(data.skip_message)
        return list(data.run_requests or [])


@pytest.fixture
def ticks(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Ticks:
    platform.arrive("2026-01-03", "2026-01-08")
    return Ticks(platform, monkeypatch)


def test_a_tick_asks_for_ranges_by_tags_and_keeps_unchanged_predictions(ticks: Ticks) -> None:
    scored, refreshed = ticks.tick()

    assert (scored.job_name, refreshed.job_name) == ("claims_scoring", "claims_ingestion")
    assert scored.tags["dagster/asset_partition_range_start"] == "2026-01-06"
    assert scored.tags["dagster/asset_partition_range_end"] == "2026-01-08"
    assert scored.run_config["ops"]["claims__predictions"]["config"] == {"keep_unchanged": True}
    assert refreshed.tags["dagster/asset_partition_range_start"] == "2026-01-03"


def test_a_second_tick_without_news_asks_for_nothing_and_says_so(ticks: Ticks) -> None:
    ticks.platform.run("ingestion", "2026-01-03", "2026-01-08")

    assert ticks.tick() == []
    assert ticks.skip == "no change in 6 days of the source"


def test_after_the_runs_only_the_next_change_is_asked_for(ticks: Ticks) -> None:
    ticks.platform.run("ingestion", "2026-01-03", "2026-01-08")
    assert ticks.tick() == []
    ticks.platform.replace_day(
        "2026-01-07",
        lambda rows: rows.assign(updated_at=rows["updated_at"] + timedelta(days=5)),
    )

    (request,) = ticks.tick()
    ticks.create_run(request)

    assert request.partition_key == "2026-01-07"
    assert ticks.tick() == []
    assert ticks.skip == "runs of 1 days are not over yet"


def test_a_correction_stamped_earlier_than_the_days_newest_is_seen(ticks: Ticks) -> None:
    ticks.platform.run("ingestion", "2026-01-03", "2026-01-08")
    ticks.platform.replace_day(
        "2026-01-07",
        lambda rows: rows.assign(
            age=rows["age"].where(rows.index > 0, 44),
            updated_at=rows["updated_at"].where(
                rows.index > 0, rows["updated_at"] + timedelta(microseconds=1)
            ),
        ).sort_values("updated_at"),
    )

    assert [request.partition_key for request in ticks.tick()] == ["2026-01-07"]


def test_rows_outside_of_all_days_are_told_and_ask_for_nothing(ticks: Ticks) -> None:
    shift = {"2026-01-07": timedelta(days=400), "2026-01-08": timedelta(days=-400)}
    for day, by in shift.items():
        ticks.platform.replace_day(
            day,
            lambda rows, by=by: rows.assign(
                received_at=rows["received_at"].where(rows.index > 0, rows["received_at"] + by)
            ),
        )
    ticks.platform.run("ingestion", "2026-01-03", "2026-01-08")

    assert ticks.tick() == []
    assert ticks.skip.startswith("no change in 6 days of the source; rows of the source lie before")
    assert "2027-02-11: 1 row" in ticks.skip
    assert "2024-12-04: 1 row" in ticks.skip


def test_a_failed_run_of_a_range_is_taken_apart_and_then_left_to_a_person(ticks: Ticks) -> None:
    scored, refreshed = ticks.tick()
    ticks.create_run(refreshed)
    ticks.platform.instance.report_run_failed(ticks.create_run(scored))

    alone = ticks.tick()
    for request in alone:
        ticks.platform.instance.report_run_failed(ticks.create_run(request))

    assert [request.partition_key for request in alone] == [
        "2026-01-08",
        "2026-01-07",
        "2026-01-06",
    ]
    assert ticks.tick() == []
    assert "for 2026-01-06, 2026-01-07, 2026-01-08: see their runs" in ticks.skip


def test_a_run_that_dagster_will_try_again_is_waited_for(ticks: Ticks) -> None:
    instance = ticks.platform.instance
    scored, refreshed = ticks.tick()
    ticks.create_run(refreshed)
    died = ticks.create_run(scored)
    instance.report_run_failed(died)
    # As Dagster's daemon does once a run's process has died.
    instance.add_run_tags(died.run_id, {"dagster/will_retry": "true"})

    assert ticks.tick() == [], "the retry has not begun"

    retry = instance.create_run_for_job(
        ticks.platform.definitions.resolve_job_def(died.job_name),
        tags={"dagster/root_run_id": died.run_id},
        root_run_id=died.run_id,
        parent_run_id=died.run_id,
    )
    instance.add_run_tags(died.run_id, {"dagster/auto_retry_run_id": retry.run_id})
    assert ticks.tick() == [], "the retry runs"

    instance.report_run_failed(retry)
    assert len(ticks.tick()) == 3, "the retry failed too: now each day alone"


def test_a_day_whose_scoring_failed_after_its_extraction_is_not_forgotten(ticks: Ticks) -> None:
    scored, refreshed = ticks.tick()
    ticks.create_run(refreshed)
    ticks.platform.instance.report_run_failed(ticks.create_run(scored))
    # As far as the run got before it failed, for want of a champion.
    ticks.platform.run("ingestion", "2026-01-03", "2026-01-08")

    again = ticks.tick()

    assert {request.job_name for request in again} == {"claims_scoring"}
    assert len(again) == 3


def test_a_source_that_cannot_be_read_fails_the_tick_and_keeps_the_cursor(ticks: Ticks) -> None:
    ticks.tick()
    cursor = ticks.cursor
    (ticks.platform.environment.home / "warehouse.duckdb").unlink()

    with pytest.raises((WarehouseError, dg.DagsterError)):
        ticks.tick()
    assert ticks.cursor == cursor


def test_an_environment_without_sensor_has_none(platform: Platform) -> None:
    off = platform.environment.sensor.model_copy(update={"enabled": False})
    environment = platform.environment.model_copy(update={"sensor": off})

    other = Platform(environment, platform.instance, SMALL)

    assert [each.name for each in other.definitions.get_repository_def().sensor_defs] == ["alerts"]
