"""Which days changed: the source as it is now against what was last extracted.

Shared by the sensor, `ml-assets demo` and `ml-assets status`. When and how runs are asked for
belongs to each of them.
"""

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from ml_assets.environment import Environment
from ml_assets.resources.lake import Lake
from ml_assets.sources import Source, fingerprints
from ml_assets.use_case import UseCase

NO_ROWS = ""


class SourceDays(NamedTuple):
    """The state of the source: a fingerprint per day that has rows.

    Attributes:
        days: Days of the platform, from the start date to today.
        outside: Days before and after them, which no partition reads.
    """

    days: dict[str, str]
    outside: dict[str, str]


def now() -> datetime:
    """The present instant in UTC, for all that asks which day it is."""
    return datetime.fromtimestamp(time.time(), UTC)


def today(environment: Environment, now: datetime) -> date:
    """The local day of an instant."""
    return now.astimezone(environment.zone).date()


def source_days(
    use_case: UseCase, environment: Environment, source: Source, now: datetime
) -> SourceDays:
    """The fingerprints of the source's days as they are now.

    Raises:
        WarehouseError, WarehouseUnavailable, LandingError, LandingUnavailable: The source cannot
            be read; that is not "no rows".
    """
    first, last = use_case.start_date.isoformat(), today(environment, now).isoformat()
    found = fingerprints(source, use_case)
    inside = {day: known for day, known in found.items() if first <= day <= last}
    return SourceDays(inside, {day: found[day] for day in found.keys() - inside.keys()})


def outside_note(use_case: UseCase, outside: Mapping[str, str]) -> str:
    """What a person should know of rows that no partition reads; empty if there are none."""
    if not outside:
        return ""
    named = "; ".join(f"{day}: {outside[day]}" for day in sorted(outside)[:3])
    more = f" and {len(outside) - 3} more days" if len(outside) > 3 else ""
    return (
        f"rows of the source lie before {use_case.start_date} or after today, and are not read "
        f"({named}{more}). Mend their {use_case.received_at} in the source"
    )


def extracted_fingerprints(
    use_case: UseCase, lake: Lake, environment: Environment, now: datetime
) -> dict[str, str]:
    """The source's fingerprint of each day when it was last extracted, from the accounts."""
    table = f"{use_case.name}/extraction"
    if not lake.rows_per_day(table):
        return {}
    first, last = use_case.start_date.isoformat(), today(environment, now).isoformat()
    accounts = lake.read(table, first, last, columns=["day", "fingerprint"])
    return dict(zip(accounts["day"], accounts["fingerprint"], strict=True))


def changed_days(source: Mapping[str, str], extracted: Mapping[str, str]) -> dict[str, str]:
    """The days whose source differs from what was extracted, each with the source's fingerprint.

    A day whose rows have all gone from the source has changed too; a day that never had any has
    not.
    """
    days = source.keys() | {day for day, known in extracted.items() if known}
    return {
        day: source.get(day, NO_ROWS)
        for day in sorted(days)
        if source.get(day, NO_ROWS) != extracted.get(day)
    }


def rows_told(fingerprint: str) -> int:
    """How many rows a day's fingerprint counts; those of every source begin with it."""
    return int(fingerprint.split(" ", 1)[0]) if fingerprint else 0


def recent(day: str, environment: Environment, now: datetime) -> bool:
    """Whether a day is young enough for its predictions to follow its changes."""
    oldest = today(environment, now) - timedelta(days=environment.sensor.scoring_days)
    return day >= oldest.isoformat()
