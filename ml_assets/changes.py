"""Which days changed: the source as it is now against what was last extracted.

Shared by the sensor, `ml-assets demo` and `ml-assets status`. When and how runs are asked for
belongs to each of them.
"""

import time
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pandas as pd

from ml_assets.environment import Environment
from ml_assets.partitions import day_end, day_start
from ml_assets.resources.lake import Lake
from ml_assets.resources.warehouse import Fingerprint, Warehouse
from ml_assets.use_case import UseCase

NO_ROWS = Fingerprint(0, None)


def now() -> datetime:
    """The present instant in UTC, for all that asks which day it is."""
    return datetime.fromtimestamp(time.time(), UTC)


def today(environment: Environment, now: datetime) -> date:
    """The local day of an instant."""
    return now.astimezone(environment.zone).date()


def source_fingerprints(
    use_case: UseCase, environment: Environment, warehouse: Warehouse, now: datetime
) -> dict[str, Fingerprint]:
    """The source's fingerprint of each day that has rows, from the start date to today.

    Raises:
        WarehouseError, WarehouseUnavailable: The source cannot be read; that is not "no rows".
    """
    zone = environment.zone
    window = day_start(use_case.start_date, zone), day_end(today(environment, now), zone)
    return warehouse.fingerprints(
        use_case.query,
        window,
        received_at=use_case.received_at,
        updated_at=use_case.updated_at,
    )


def extracted_fingerprints(
    use_case: UseCase, lake: Lake, environment: Environment, now: datetime
) -> dict[str, Fingerprint]:
    """The fingerprint of each day as it was last extracted, from the table of accounts."""
    table = f"{use_case.name}/extraction"
    if not lake.rows_per_day(table):
        return {}
    first, last = use_case.start_date.isoformat(), today(environment, now).isoformat()
    columns = ["day", "rows_read", "newest_updated_at"]
    accounts = lake.read(table, first, last, columns=columns)
    return {
        account.day: Fingerprint(
            int(account.rows_read),
            None
            if pd.isna(account.newest_updated_at)
            else account.newest_updated_at.to_pydatetime(),
        )
        for account in accounts.itertuples()
    }


def changed_days(
    source: Mapping[str, Fingerprint], extracted: Mapping[str, Fingerprint]
) -> dict[str, Fingerprint]:
    """The days whose source differs from what was extracted, each with the source's fingerprint.

    A day whose rows have all gone from the source has changed too; a day that never had any has
    not.
    """
    days = source.keys() | {day for day, known in extracted.items() if known.rows}
    return {
        day: source.get(day, NO_ROWS)
        for day in sorted(days)
        if source.get(day, NO_ROWS) != extracted.get(day)
    }


def recent(day: str, environment: Environment, now: datetime) -> bool:
    """Whether a day is young enough for its predictions to follow its changes."""
    oldest = today(environment, now) - timedelta(days=environment.sensor.scoring_days)
    return day >= oldest.isoformat()
