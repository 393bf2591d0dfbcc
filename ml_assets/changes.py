"""Which days changed: the source as it is now against what was last extracted.

Shared by the sensor, `ml-assets demo` and `ml-assets status`. When and how runs are asked for
belongs to each of them.
"""

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import pandas as pd

from ml_assets.core.scoring import standing
from ml_assets.environment import Environment
from ml_assets.resources.lake import Lake
from ml_assets.sources import Source, fingerprints
from ml_assets.use_case import UseCase

NO_ROWS = ""
TORN = "torn"  # no source's fingerprint: such a day has always changed


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
    """The source's fingerprint of each day when it was last extracted, from the accounts.

    A day whose account is not that of its rows is `TORN`: an extraction died between its commits,
    so the day has to be read anew, though the source is as it was.
    """
    if not lake.rows_per_day(f"{use_case.name}/extraction"):
        return {}
    first, last = use_case.start_date.isoformat(), today(environment, now).isoformat()
    found = accounts(use_case, lake, first, last)
    return dict(zip(found["day"], found["fingerprint"].mask(found["torn"], TORN), strict=True))


def accounts(use_case: UseCase, lake: Lake, first: str, last: str) -> pd.DataFrame:
    """The accounts of some days, and whether each is `torn`: not that of the day's rows."""
    found = lake.read(f"{use_case.name}/extraction", first, last)
    torn = pd.Series(False, found.index)
    for stage, counted in (("raw", "rows_kept"), ("quarantine", "rows_quarantined")):
        there = found["day"].map(lake.rows_per_day(f"{use_case.name}/{stage}")).fillna(0)
        torn |= there != found[counted]
    return found.assign(torn=torn)


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


def standing_per_day(use_case: UseCase, lake: Lake, first: str, last: str) -> dict[str, int]:
    """How many predictions stand of each day that has any: one for each application."""
    table = f"{use_case.name}/predictions"
    if not any(first <= day <= last for day in lake.rows_per_day(table)):
        return {}
    said = standing(lake.read(table, first, last, columns=["day", "superseded_at"]))
    return {str(day): int(rows) for day, rows in said.groupby("day").size().items()}


def rows_told(fingerprint: str) -> int:
    """How many rows a day's fingerprint counts; those of every source begin with it."""
    return int(fingerprint.split(" ", 1)[0]) if fingerprint else 0


def recent(day: str, environment: Environment, now: datetime) -> bool:
    """Whether a day is young enough for its predictions to follow its changes."""
    oldest = today(environment, now) - timedelta(days=environment.sensor.scoring_days)
    return day >= oldest.isoformat()
