from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ml_assets.assets.common import without_preview_warnings
from ml_assets.partitions import (
    daily,
    day_end,
    day_start,
    days_between,
    partition_tags,
    ranges,
    training_window,
)
from ml_assets.use_cases.claims.use_case import CLAIMS

LONDON = ZoneInfo("Europe/London")
START = CLAIMS.start_date


def partitions(now: datetime, time_zone: str = "Europe/London") -> list[str]:
    return list(daily(CLAIMS, time_zone).get_partition_keys(current_time=now))


def window_of(day: date) -> Any:
    definition = daily(CLAIMS, "Europe/London")
    with without_preview_warnings():
        mapping = training_window(CLAIMS)
    return mapping.get_upstream_mapped_partitions_result_for_partitions(
        definition.subset_with_partition_keys([day.isoformat()]),
        definition,
        definition,
        current_time=datetime(2026, 12, 1, 12, tzinfo=UTC),
    )


def window_days(day: date) -> list[str]:
    return sorted(window_of(day).partitions_subset.get_partition_keys())


def test_the_partitions_run_from_the_start_date_to_today() -> None:
    now = datetime(2025, 7, 4, 15, tzinfo=UTC)

    assert partitions(now) == ["2025-07-01", "2025-07-02", "2025-07-03", "2025-07-04"]


def test_the_first_day_is_a_partition_on_that_day() -> None:
    assert partitions(datetime(2025, 7, 1, 15, tzinfo=UTC)) == ["2025-07-01"]


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        (datetime(2025, 7, 9, 22, 59, 59, tzinfo=UTC), "2025-07-09"),
        (datetime(2025, 7, 9, 23, 0, 0, tzinfo=UTC), "2025-07-10"),
    ],
)
def test_a_new_day_begins_at_local_midnight(now: datetime, newest: str) -> None:
    assert partitions(now)[-1] == newest


def test_the_time_zone_decides_what_today_is() -> None:
    now = datetime(2025, 7, 9, 16, tzinfo=UTC)

    assert partitions(now, "Asia/Tokyo")[-1] == "2025-07-10"
    assert partitions(now, "America/New_York")[-1] == "2025-07-09"


def test_no_day_is_lost_or_doubled_when_the_clocks_change() -> None:
    keys = partitions(datetime(2026, 4, 2, 12, tzinfo=UTC))

    assert keys == days_between(START, date(2026, 4, 2))


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-28", 24), ("2026-03-29", 23), ("2026-10-25", 25)]
)
def test_a_local_day_lasts_as_long_as_its_clocks_say(day: str, hours: int) -> None:
    start, end = (edge(day, LONDON).astimezone(UTC) for edge in (day_start, day_end))

    assert end - start == timedelta(hours=hours)


def test_a_day_starts_at_local_midnight() -> None:
    assert day_start("2026-07-15", LONDON) == datetime(2026, 7, 14, 23, tzinfo=UTC)
    assert day_start("2026-01-15", LONDON) == datetime(2026, 1, 15, tzinfo=UTC)


def test_a_day_whose_midnight_the_clocks_skip_starts_at_its_first_instant() -> None:
    beirut = ZoneInfo("Asia/Beirut")  # 2024-03-31: from 00:00 straight to 01:00

    start, end = (edge("2024-03-31", beirut).astimezone(UTC) for edge in (day_start, day_end))

    assert start == datetime(2024, 3, 30, 22, tzinfo=UTC)
    assert end - start == timedelta(hours=23)


def test_a_day_ends_where_the_next_one_starts_and_may_be_named_by_date_or_text() -> None:
    for day in days_between(date(2026, 3, 27), date(2026, 3, 31)):
        following = date.fromisoformat(day) + timedelta(days=1)
        assert day_end(day, LONDON) == day_start(following, LONDON)
        assert day_start(day, LONDON) == day_start(date.fromisoformat(day), LONDON)


def test_day_edges_agree_with_the_partitions_own_windows() -> None:
    definition = daily(CLAIMS, "Europe/London")

    for day in ("2026-03-28", "2026-03-29", "2026-10-25", "2026-07-15"):
        window = definition.time_window_for_partition_key(day)
        assert window.start.timestamp() == day_start(day, LONDON).timestamp()
        assert window.end.timestamp() == day_end(day, LONDON).timestamp()


def test_days_between_holds_both_ends() -> None:
    assert days_between(date(2024, 2, 28), date(2024, 3, 1)) == [
        "2024-02-28",
        "2024-02-29",
        "2024-03-01",
    ]
    assert days_between(date(2026, 1, 1), date(2026, 1, 1)) == ["2026-01-01"]
    assert days_between(date(2026, 1, 2), date(2026, 1, 1)) == []


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ([], []),
        (["2026-01-01"], [("2026-01-01", "2026-01-01")]),
        (
            ["2026-01-04", "2026-01-01", "2026-01-02", "2026-01-01"],
            [("2026-01-01", "2026-01-02"), ("2026-01-04", "2026-01-04")],
        ),
        (["2025-12-31", "2026-01-01"], [("2025-12-31", "2026-01-01")]),
        (["2024-02-28", "2024-03-01"], [("2024-02-28",) * 2, ("2024-03-01",) * 2]),
        (["2026-03-28", "2026-03-29", "2026-03-30"], [("2026-03-28", "2026-03-30")]),
    ],
)
def test_ranges_join_consecutive_days_only(
    days: list[str], expected: list[tuple[str, str]]
) -> None:
    assert ranges(days) == expected


def test_tags_of_one_day_name_a_partition_and_of_several_a_range() -> None:
    assert partition_tags("2026-01-01", "2026-01-01") == {"dagster/partition": "2026-01-01"}
    assert partition_tags("2026-01-01", "2026-01-05") == {
        "dagster/asset_partition_range_start": "2026-01-01",
        "dagster/asset_partition_range_end": "2026-01-05",
    }


@pytest.mark.parametrize("day", [date(2026, 9, 1), date(2026, 3, 29), date(2026, 10, 25)])
def test_a_day_trains_on_exactly_the_newest_matured_days(day: date) -> None:
    newest = day - timedelta(days=CLAIMS.label_maturity_days)
    oldest = newest - timedelta(days=CLAIMS.training_window_days - 1)

    days = window_days(day)

    assert days == days_between(max(oldest, START), newest)
    assert window_of(day).required_but_nonexistent_subset.is_empty


def test_a_full_window_has_as_many_days_as_declared() -> None:
    assert len(window_days(date(2026, 9, 1))) == CLAIMS.training_window_days


def test_a_window_that_reaches_before_the_start_date_is_cut_there() -> None:
    day = START + timedelta(days=CLAIMS.label_maturity_days + 2)

    assert window_days(day) == days_between(START, START + timedelta(days=2))
    assert window_of(day).required_but_nonexistent_subset.is_empty


def test_a_window_that_lies_wholly_before_the_start_date_is_empty() -> None:
    assert window_days(START) == []
    assert window_of(START).required_but_nonexistent_subset.is_empty
