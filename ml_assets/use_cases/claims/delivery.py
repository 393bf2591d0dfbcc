"""Lets simulated applications arrive in the warehouse, as the insurer's own systems would.

Only the command line calls this; nothing else in the platform knows that a simulator exists. What
the applications look like is in `ml_assets.use_cases.claims.simulator`.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from ml_assets.environment import Environment
from ml_assets.partitions import day_end, day_start, days_between
from ml_assets.resources.warehouse import Warehouse
from ml_assets.use_cases.claims.simulator import TABLE_COLUMNS, changes_between, rows_as_of

TABLE = "claims.ds_dataset"
_MARKER = "claims.ds_dataset_is_simulated"  # a table whose presence allows us to replace rows
_WINDOW = f"SELECT * FROM {TABLE} WHERE received_at >= :start AND received_at < :end"  # noqa: S608

_EVER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class NotSimulated(ValueError):
    """The table belongs to somebody else."""


def delivered_days(warehouse: Warehouse) -> list[str]:
    """The days that have applications in the warehouse, oldest first."""
    if not warehouse.exists(TABLE):
        return []
    found = warehouse.fingerprints(
        _WINDOW,
        _EVER,
        key="application_id",
        received_at="received_at",
        updated_at="updated_at",
    )
    return sorted(found)


def deliver(
    warehouse: Warehouse,
    environment: Environment,
    first: date,
    last: date,
    **shape: int,
) -> list[str]:
    """Let the days from `first` to `last` arrive, and everything else that happened until then.

    The simulated clock stands at the end of the last day in the warehouse, and moves on to the end
    of `last`: new applications arrive, outcomes of older ones become known, some are corrected.
    Days that are missing before that are filled in. All of it is one transaction.

    Args:
        warehouse: Where the applications arrive.
        environment: For its time zone.
        first: First day.
        last: Last day.
        shape: The simulator's own `seed`, `daily_volume` and `max_outcome_days`.

    Returns:
        The days whose rows changed, oldest first; none if all has arrived already.

    Raises:
        NotSimulated: The table is there, and the simulator did not make it.
    """
    zone = environment.zone
    simulator: dict[str, Any] = {"time_zone": environment.time_zone, **shape}
    _claim_table(warehouse)
    there = delivered_days(warehouse)
    newest = max([*there, last.isoformat()])
    until = day_end(newest, zone)
    changed: list[str] = [
        day
        for day in sorted({*there, *days_between(first, last)})
        if day not in there
        or changes_between(date.fromisoformat(day), day_end(there[-1], zone), until, **simulator)
    ]
    if not changed:
        return []
    rows = [rows_as_of(date.fromisoformat(day), until, **simulator) for day in changed]
    warehouse.replace(
        TABLE,
        TABLE_COLUMNS,
        pd.concat(rows, ignore_index=True),
        [(day_start(day, zone), day_end(day, zone)) for day in changed],
        received_at="received_at",
    )
    return changed


def _claim_table(warehouse: Warehouse) -> None:
    """Mark the table as the simulator's own before it exists, or refuse to touch another's.

    Raises:
        NotSimulated: The table is there, and the simulator did not make it.
    """
    if warehouse.exists(TABLE) and (not warehouse.exists(_MARKER) or _foreign_keys(warehouse)):
        raise NotSimulated(
            f"the warehouse holds a table {TABLE} that this simulator did not make, and its rows "
            "would be replaced. Nothing was changed. Unset ML_ASSETS_WAREHOUSE_URL to simulate in "
            "an embedded warehouse."
        )
    if warehouse.exists(_MARKER):
        return
    nothing = pd.DataFrame({"note": pd.Series(dtype=object)})
    warehouse.replace(_MARKER, {"note": "VARCHAR"}, nothing, [], received_at="note")


def _foreign_keys(warehouse: Warehouse) -> bool:
    """Whether the table holds keys that are not the simulator's: the mark may outlive its table."""
    query = f"{_WINDOW} AND application_id NOT LIKE 'A-________-______%' LIMIT 1"
    return len(warehouse.read(query, _EVER)) > 0


def next_days(there: Sequence[str], days: int) -> tuple[date, date]:
    """The `days` days that follow the last one delivered."""
    newest = date.fromisoformat(there[-1])
    return newest + timedelta(days=1), newest + timedelta(days=days)
