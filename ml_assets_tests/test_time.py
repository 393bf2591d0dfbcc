"""Which day a row belongs to: time zones, changes of the clock, midnight, no day at all."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pandas as pd
import pytest

from ml_assets.changes import outside_note, source_days, today
from ml_assets.partitions import day_end, day_start
from ml_assets.runs import RunFailed
from ml_assets.use_cases.claims.delivery import TABLE
from ml_assets.use_cases.claims.simulator import TABLE_COLUMNS
from ml_assets_tests.conftest import SMALL, Platform

EVER = datetime(1990, 1, 1, tzinfo=UTC), datetime(2150, 1, 1, tzinfo=UTC)

# (when a row was received, and the day it belongs to in London)
SPRING = [
    ("2026-03-28T23:59:59.999999Z", "2026-03-28"),
    ("2026-03-29T00:00:00Z", "2026-03-29"),  # exactly midnight, still winter time
    ("2026-03-29T01:00:00Z", "2026-03-29"),  # the hour that does not exist begins
    ("2026-03-29T22:59:59.999999Z", "2026-03-29"),  # a day of 23 hours ends
    ("2026-03-29T23:00:00Z", "2026-03-30"),  # exactly midnight, summer time
    ("2026-03-30T01:00:00+02:00", "2026-03-30"),  # written in another zone
]
AUTUMN = [
    ("2026-10-24T22:59:59.999999Z", "2026-10-24"),
    ("2026-10-24T23:00:00Z", "2026-10-25"),
    ("2026-10-25T00:30:00Z", "2026-10-25"),  # half past one,
    ("2026-10-25T01:30:00Z", "2026-10-25"),  # and half past one again
    ("2026-10-25T23:59:59.999999Z", "2026-10-25"),  # a day of 25 hours ends
    ("2026-10-26T00:00:00Z", "2026-10-26"),
]
LEAP = [
    ("2024-02-28T23:59:59Z", "2024-02-28"),
    ("2024-02-29T00:00:00Z", "2024-02-29"),
    ("2024-02-29T23:59:59Z", "2024-02-29"),
    ("2024-03-01T00:00:00Z", "2024-03-01"),
]


def received(platform: Platform, instants: list[str]) -> None:
    """Let one application arrive at each instant, and nothing else."""
    platform.arrive("2026-01-05", "2026-01-05")
    query = f"SELECT * FROM {TABLE} WHERE received_at >= :start AND received_at < :end"
    rows = platform.warehouse.read(query, EVER).to_pandas()
    good = rows[rows["age"].between(18, 95) & rows["application_id"].notna()]
    rows = good.drop_duplicates("application_id").head(len(instants)).reset_index(drop=True)
    whole = [name for name, kind in TABLE_COLUMNS.items() if kind == "INTEGER"]
    rows = rows.astype(dict.fromkeys(whole, "Int64"))
    rows["received_at"] = pd.to_datetime(pd.Series(instants), utc=True, format="ISO8601")
    rows["application_id"] = [f"A-{place}" for place in range(len(rows))]
    platform.warehouse.replace(TABLE, TABLE_COLUMNS, rows, [EVER], received_at="received_at")


@pytest.mark.parametrize("rows", [SPRING, AUTUMN, LEAP], ids=["spring", "autumn", "leap day"])
def test_every_row_is_in_its_local_day_and_in_no_other(
    platform: Platform, rows: list[tuple[str, str]]
) -> None:
    days = sorted({day for _, day in rows})
    use_case = replace(SMALL, start_date=date(2024, 1, 1))
    platform = Platform(platform.environment, platform.instance, use_case)
    received(platform, [instant for instant, _ in rows])

    platform.run("ingestion", days[0], days[-1])
    together = platform.table("raw", days[0], days[-1])
    for day in days:
        platform.run("ingestion", day)

    alone = platform.table("raw", days[0], days[-1])
    account = platform.table("extraction", days[0], days[-1])
    expected = {f"A-{place}": day for place, (_, day) in enumerate(rows)}
    quarantined = platform.table("quarantine", days[0], days[-1])
    found = pd.concat([alone, quarantined]).set_index("application_id")["day"].to_dict()
    assert found == expected
    assert account.set_index("day")["rows_read"].to_dict() == {
        day: sum(each == day for each in expected.values()) for day in days
    }
    pd.testing.assert_frame_equal(alone, together)


@pytest.mark.parametrize(
    ("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25), ("2024-02-29", 24)]
)
def test_a_day_is_as_long_as_the_clock_says(platform: Platform, day: str, hours: int) -> None:
    zone = platform.environment.zone

    length = day_end(day, zone).astimezone(UTC) - day_start(day, zone).astimezone(UTC)

    assert length.total_seconds() == hours * 3600


def test_the_source_knows_the_same_days_as_the_extraction(platform: Platform) -> None:
    use_case = replace(SMALL, start_date=date(2024, 1, 1))
    platform = Platform(platform.environment, platform.instance, use_case)
    received(platform, [instant for instant, _ in (*SPRING, *AUTUMN, *LEAP)])

    found = source_days(
        use_case, platform.environment, platform.source, datetime(2026, 11, 1, tzinfo=UTC)
    )

    counts = {day: int(text.split()[0]) for day, text in found.days.items()}
    expected = [day for _, day in (*SPRING, *AUTUMN, *LEAP)]
    assert counts == {day: expected.count(day) for day in sorted(set(expected))}
    assert found.outside == {}


def test_rows_before_the_start_and_of_the_future_are_told_and_not_read(
    platform: Platform,
) -> None:
    instants = ["2019-05-01T12:00:00Z", "2026-01-06T12:00:00Z", "2031-01-01T12:00:00Z"]
    received(platform, instants)
    now = datetime(2026, 1, 10, 12, tzinfo=UTC)

    found = source_days(SMALL, platform.environment, platform.source, now)

    assert list(found.days) == ["2026-01-06"]
    assert sorted(found.outside) == ["2019-05-01", "2031-01-01"]
    note = outside_note(SMALL, found.outside)
    assert "2019-05-01: 1 row" in note
    assert "Mend their received_at" in note
    assert outside_note(SMALL, {}) == ""


def test_a_row_of_later_today_belongs_to_today(platform: Platform) -> None:
    received(platform, ["2026-01-10T20:00:00Z"])

    found = source_days(
        SMALL, platform.environment, platform.source, datetime(2026, 1, 10, 12, tzinfo=UTC)
    )

    assert list(found.days) == ["2026-01-10"]


def test_instants_without_a_zone_are_refused_with_the_remedy(platform: Platform) -> None:
    received(platform, ["2026-01-06T12:00:00Z"])
    file = platform.environment.home / "source.sql"
    file.write_text(
        SMALL.query.replace("received_at,", "CAST(received_at AS TIMESTAMP) AS received_at,", 1)
    )
    for name in ("schema.py", "use_case.py"):
        (file.parent / name).write_text("")
    naive = Platform(platform.environment, platform.instance, replace(SMALL, query_file=file))

    with pytest.raises(RunFailed, match=r"received_at has no time zone.*AT TIME ZONE"):
        naive.run("ingestion", "2026-01-06")


@pytest.mark.parametrize(
    ("zone", "day"),
    [("Pacific/Kiritimati", "2026-01-07"), ("Pacific/Niue", "2026-01-06"), ("UTC", "2026-01-06")],
)
def test_the_configured_zone_decides(platform: Platform, zone: str, day: str) -> None:
    environment = platform.environment.model_copy(update={"time_zone": zone})

    assert today(environment, datetime(2026, 1, 6, 12, tzinfo=UTC)).isoformat() == day
