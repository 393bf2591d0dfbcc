"""Daily partitions and how a window of days maps onto them; the only place that defines either."""

from collections.abc import Iterable
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from ml_assets.use_case import UseCase


def daily(use_case: UseCase, time_zone: str) -> dg.DailyPartitionsDefinition:
    """A partition per local day, from the use case's start date to today.

    Today is included, since applications arrive, and are scored, during the day.
    """
    return dg.DailyPartitionsDefinition(
        start_date=use_case.start_date.isoformat(), timezone=time_zone, end_offset=1
    )


def training_window(use_case: UseCase) -> dg.TimeWindowPartitionMapping:
    """Which days of features the training set of one day reads: the newest matured ones."""
    maturity = use_case.label_maturity_days
    return dg.TimeWindowPartitionMapping(
        start_offset=-(maturity + use_case.training_window_days - 1),
        end_offset=-maturity,
        allow_nonexistent_upstream_partitions=True,
    )


def day_start(day: date | str, zone: ZoneInfo) -> datetime:
    """The instant at which a local day begins."""
    return datetime.combine(_date(day), time.min, tzinfo=zone)


def day_end(day: date | str, zone: ZoneInfo) -> datetime:
    """The instant at which a local day ends: 23, 24 or 25 hours after it began."""
    return day_start(_date(day) + timedelta(days=1), zone)


def days_between(first: date | str, last: date | str) -> list[str]:
    """Every day from `first` to `last`, both included, as partition keys."""
    start, count = _date(first), (_date(last) - _date(first)).days + 1
    return [(start + timedelta(days=i)).isoformat() for i in range(count)]


def partition_tags(first: str, last: str) -> dict[str, str]:
    """The run tags by which Dagster materialises a range of days, or a single one, in one run."""
    if first == last:
        return {"dagster/partition": first}
    return {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }


def ranges(days: Iterable[str]) -> list[tuple[str, str]]:
    """Group days into runs of consecutive days: `(first, last)`, oldest first."""
    found: list[tuple[str, str]] = []
    for day in sorted(set(days)):
        before = (date.fromisoformat(day) - timedelta(days=1)).isoformat()
        if found and found[-1][1] == before:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def _date(day: date | str) -> date:
    return date.fromisoformat(day) if isinstance(day, str) else day
