"""The sensor: exactly the changed days, at most so many a tick, and never one change twice."""

import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from ml_assets.resources.warehouse import Fingerprint, WarehouseError
from ml_assets.sensors import Cursor, Request, plan
from ml_assets_tests.conftest import SMALL, Platform

NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)


def changed(*days: int, rows: int = 10) -> dict[str, Fingerprint]:
    return {f"2026-01-{day:02}": Fingerprint(rows, NOON) for day in days}


def decide(
    days: dict[str, Fingerprint],
    cursor: Cursor | None = None,
    *,
    failed: Iterable[str] = (),
    max_days: int = 31,
) -> tuple[list[Request], Cursor, int]:
    return plan(
        days,
        cursor or Cursor(),
        is_recent=lambda day: day >= "2026-01-10",
        failed=lambda run_key: run_key in set(failed),
        max_days=max_days,
    )


def spans(requests: list[Request]) -> list[tuple[str, str, bool]]:
    return [(request.first[-2:], request.last[-2:], request.scored) for request in requests]


def test_consecutive_days_are_asked_for_together_newest_first() -> None:
    requests, _, left = decide(changed(11, 12, 14))

    assert spans(requests) == [("14", "14", True), ("11", "12", True)]
    assert left == 0


def test_old_days_are_refreshed_and_recent_ones_scored() -> None:
    requests, _, _ = decide(changed(8, 9, 10, 11))

    assert spans(requests) == [("10", "11", True), ("08", "09", False)]


def test_a_change_is_asked_for_once() -> None:
    days = changed(11, 12)
    _, cursor, _ = decide(days)

    again, cursor, _ = decide(days, cursor)

    assert again == []
    assert set(cursor.asked) == set(days)


def test_another_change_of_a_day_is_asked_for_under_another_key() -> None:
    first, cursor, _ = decide(changed(11))

    second, _, _ = decide(changed(11, rows=11), cursor)

    assert spans(second) == [("11", "11", True)]
    assert second[0].run_key != first[0].run_key


def test_the_cursor_forgets_what_was_extracted() -> None:
    _, cursor, _ = decide(changed(11, 12))

    _, cursor, _ = decide(changed(12), cursor)

    assert set(cursor.asked) == {"2026-01-12"}


def test_at_most_so_many_days_a_tick_and_the_rest_follows() -> None:
    days = changed(10, 11, 12, 13, 14)

    first, cursor, left = decide(days, max_days=2)
    second, cursor, _ = decide(days, cursor, max_days=2)
    third, cursor, none_left = decide(days, cursor, max_days=2)

    assert spans(first) == [("13", "14", True)]
    assert left == 3
    assert spans(second) == [("11", "12", True)]
    assert spans(third) == [("10", "10", True)]
    assert none_left == 0


def test_days_of_a_failed_range_are_asked_for_alone_and_once() -> None:
    days = changed(11, 12)
    (together,), cursor, _ = decide(days)

    alone, cursor, _ = decide(days, cursor, failed=[together.run_key])
    keys = [request.run_key for request in alone]
    again, _, _ = decide(days, cursor, failed=[together.run_key, *keys])

    assert spans(alone) == [("12", "12", True), ("11", "11", True)]
    assert len({*keys, together.run_key}) == 3
    assert again == []


def test_a_day_that_failed_alone_waits_for_the_source_to_change() -> None:
    (request,), cursor, _ = decide(changed(11))

    again, cursor, _ = decide(changed(11), cursor, failed=[request.run_key])
    mended, _, _ = decide(changed(11, rows=12), cursor, failed=[request.run_key])

    assert again == []
    assert spans(mended) == [("11", "11", True)]


class Ticks:
    """Ticks of the real sensor on a platform, the clock standing at a fixed day."""

    def __init__(self, platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
        self.platform, self.cursor = platform, None
        now = datetime(2026, 1, 20, 12, tzinfo=UTC)
        monkeypatch.setattr(time, "time", now.timestamp)
        repository = platform.definitions.get_repository_def()
        self.sensor = repository.get_sensor_def("claims_new_data")
        self.repository = repository

    def tick(self) -> list[dg.RunRequest]:
        with dg.build_sensor_context(
            instance=self.platform.instance,
            cursor=self.cursor,
            repository_def=self.repository,
            resources={"warehouse": self.platform.warehouse, "lake": self.platform.lake},
        ) as context:
            data = self.sensor.evaluate_tick(context)
        self.cursor, self.skip = data.cursor, data.skip_message
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
    ticks.tick()

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

    assert request.partition_key == "2026-01-07"
    assert ticks.tick() == []


def test_a_failed_run_of_a_range_is_taken_apart(ticks: Ticks) -> None:
    requests = ticks.tick()
    instance = ticks.platform.instance
    job = ticks.platform.definitions.resolve_job_def("claims_scoring")
    run = instance.create_run_for_job(
        job, tags={**requests[0].tags, "dagster/run_key": str(requests[0].run_key)}
    )
    instance.report_run_failed(run)

    alone = ticks.tick()

    assert [request.partition_key for request in alone] == [
        "2026-01-08",
        "2026-01-07",
        "2026-01-06",
    ]
    assert ticks.tick() == []


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

    assert list(other.definitions.get_repository_def().sensor_defs) == []
