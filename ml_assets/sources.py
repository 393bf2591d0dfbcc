"""Where a use case's rows come from: the warehouse or the landing folder, as configured.

Both answer the same questions, so that nothing else need know which it is: the rows of some days,
the state of every day, and what a day looks like now. How each is read belongs in
`ml_assets.resources`; which days changed, in `ml_assets.changes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import pyarrow as pa

from ml_assets.environment import Environment
from ml_assets.partitions import day_end, day_start
from ml_assets.resources.lake import Lake
from ml_assets.resources.landing import File, Landing, Taken
from ml_assets.resources.ledger import ledger_of, read_files
from ml_assets.resources.warehouse import Extract, Warehouse
from ml_assets.use_case import DAY, UseCase

# Rows before the start date, or of the future, are nobody's: they are counted, and told.
_EVER = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


REJECTIONS_DAYS = 7  # how long a rejected file is news


@dataclass(frozen=True)
class Source:
    """The configured source, and the lake that holds the landing folder's ledger."""

    environment: Environment = field(repr=False)  # its URLs may carry passwords
    warehouse: Warehouse
    landing: Landing
    lake: Lake

    @property
    def lands(self) -> bool:
        """Whether rows come in files."""
        return self.environment.source == "landing"


def ledger(use_case: UseCase) -> str:
    """The table that records which files were taken."""
    return f"{use_case.name}/landing"


def take_files(
    source: Source, use_case: UseCase, now: datetime, *, budget_seconds: float
) -> Taken | None:
    """Take the files that are complete; None if rows do not come in files.

    Raises:
        LandingError, LandingUnavailable: The folder cannot be read or written.
    """
    if not source.lands:
        return None
    zone = source.environment.zone
    return source.landing.take(
        source.lake,
        ledger(use_case),
        received_at=use_case.received_at,
        zone=zone,
        first_day=use_case.start_date,
        today=now.astimezone(zone).date(),
        now=now,
        budget_seconds=budget_seconds,
    )


def rejections(source: Source, use_case: UseCase, now: datetime) -> list[File]:
    """Files rejected in the last days, newest first; none if rows do not come in files.

    A file is no longer among them once another of its name was taken.

    Raises:
        LakeError: The ledger cannot be read.
    """
    if not source.lands:
        return []
    newest = ledger_of(read_files(source.lake, ledger(use_case))).newest.values()
    since = now - timedelta(days=REJECTIONS_DAYS)
    found = [file for file in newest if file.outcome == "rejected" and file.taken_at >= since]
    return sorted(found, key=lambda file: file.number, reverse=True)


def extract(source: Source, use_case: UseCase, days: Sequence[str]) -> Extract:
    """The rows of consecutive days and the fingerprint of each, of one and the same moment.

    Raises:
        WarehouseError, WarehouseUnavailable, LandingError, LandingUnavailable: The source cannot
            be read; that is not "no rows".
    """
    zone = source.environment.zone
    if source.lands:
        return source.landing.extract(
            source.lake,
            ledger(use_case),
            days,
            key=use_case.key,
            updated_at=use_case.updated_at,
            received_at=use_case.received_at,
            zone=zone,
            required=[
                name
                for name, column in use_case.raw.to_schema().columns.items()
                if column.required and name != DAY
            ],
        )
    return source.warehouse.extract(
        use_case.query,
        (day_start(days[0], zone), day_end(days[-1], zone)),
        key=use_case.key,
        received_at=use_case.received_at,
        updated_at=use_case.updated_at,
    )


def fingerprints(source: Source, use_case: UseCase) -> dict[str, str]:
    """The fingerprint of every day that has rows, also of days that are no partition.

    Raises:
        WarehouseError, WarehouseUnavailable, LandingError, LandingUnavailable: The source cannot
            be read; that is not "no rows".
    """
    if source.lands:
        return source.landing.fingerprints(source.lake, ledger(use_case))
    return source.warehouse.fingerprints(
        use_case.query,
        _EVER,
        key=use_case.key,
        received_at=use_case.received_at,
        updated_at=use_case.updated_at,
    )


def sample(
    source: Source, use_case: UseCase, day: str | None, *, today: date
) -> tuple[str, pa.Table]:
    """The rows of one day as the source gives them: by default the newest day that has any.

    Raises:
        ValueError: There are none.
    """
    if day is None:
        there = [known for known in fingerprints(source, use_case) if known <= today.isoformat()]
        if not there:
            raise ValueError(f"the source holds no rows of {use_case.name} up to {today}.")
        day = max(there)
    rows = extract(source, use_case, [day]).rows
    if not rows.num_rows:
        raise ValueError(f"the source holds no rows of {use_case.name} for {day}.")
    return day, rows
