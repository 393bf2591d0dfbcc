"""The door to the insurer's warehouse: DuckDB in a file by default, PostgreSQL by URL.

It runs a use case's `.sql` for a window of time, and tells which days changed. What rows mean, and
whether they are good, is not its business; nor how a driver is spoken to, which is in
`warehouse_duckdb` and `warehouse_postgresql`. Either way rows arrive as Arrow, with the source's
own types. (duckdb-engine, which would put both behind SQLAlchemy, has had no release since March
2025; and SQLAlchemy hands over rows, not columns.)
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar

import pandas as pd
import pyarrow as pa
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from ml_assets.resources import warehouse_duckdb, warehouse_postgresql
from ml_assets.resources.arrow import to_arrow
from ml_assets.resources.warehouse_session import (
    Session,
    WarehouseError,
    WarehouseUnavailable,
    quoted,
    with_parameters,
)

__all__ = ["Extract", "Warehouse", "WarehouseError", "WarehouseUnavailable", "Window"]

_DAY = re.compile(r"\d{4}-\d\d-\d\d")

T = TypeVar("T")
Window = tuple[datetime, datetime]


class Extract(NamedTuple):
    """Rows, and each day's fingerprint, as they were at one instant.

    `superseded` counts, per day, the rows that were left out for newer ones in other files;
    `lacking` has the columns that a file lacks and another has, by file.
    """

    rows: pa.Table
    fingerprints: dict[str, str]
    superseded: Mapping[str, int] = MappingProxyType({})
    lacking: Mapping[str, Sequence[str]] = MappingProxyType({})


@dataclass(frozen=True)
class Warehouse:
    """Reads windows of a source query, and per-day fingerprints of it.

    A fingerprint is a text such as `1203 rows, newest 2026-01-05T22:10:00+00:00, 8f3a…`. It differs
    once a row came, went, or got another key or another time of change, whatever the order of those
    times; a day without rows has none. The digest is the sum of a hash per row.

    Attributes:
        url: Where it is; may carry a password, and is never shown.
        time_zone: Decides which day an instant belongs to.
        attempts: Tries at a connection that fails for a passing reason.
        backoff_seconds: Pause before the second try; doubles each time, up to ten seconds.
        statement_timeout_seconds: A statement of PostgreSQL that takes longer is given up.
    """

    url: str = field(repr=False)
    time_zone: str
    attempts: int
    backoff_seconds: float
    statement_timeout_seconds: int

    def extract(
        self, query: str, window: Window, *, key: str, received_at: str, updated_at: str
    ) -> Extract:
        """Rows of a window and the fingerprints of its days, from one consistent snapshot.

        Args:
            query: SQL with bound parameters `:start` and `:end`.
            window: First instant, and the one after the last.
            key: The query's column that names a row.
            received_at: The query's column that decides a row's day in `time_zone`.
            updated_at: The query's column with the source's last change.

        Raises:
            WarehouseUnavailable: No connection, or no answer in time, after all tries.
            WarehouseError: A table, column or driver is missing, or the query is wrong.
        """
        columns = (key, received_at, updated_at)
        return self._run(
            lambda session: Extract(
                session.query(query, _bounds(window)),
                self._fingerprints(session, query, window, *columns),
            )
        )

    def fingerprints(
        self, query: str, window: Window, *, key: str, received_at: str, updated_at: str
    ) -> dict[str, str]:
        """The fingerprint of each day (YYYY-MM-DD) that has rows, as one grouped query.

        Arguments and errors are those of `extract`.
        """
        columns = (key, received_at, updated_at)
        return self._run(
            lambda session: self._fingerprints(session, query, window, *columns),
        )

    def read(self, query: str, window: Window) -> pa.Table:
        """The rows of a query with bound parameters `:start` and `:end`; errors as in `extract`.

        Whole numbers stay whole beside missing ones, instants are `timestamp[us, tz=UTC]`, those
        without a zone stay without, NUMERIC is decimal (text, if a value needs over 38 digits),
        text is text, and what has no plain Arrow type (JSON, arrays, ranges) is text as the server
        writes it. An infinite instant or date is the last, or first, that Arrow can hold.
        """
        return self._run(lambda session: session.query(query, _bounds(window)))

    def exists(self, table: str) -> bool:
        """Whether a table `schema.name` is there."""
        schema, name = table.split(".")
        query = (
            "SELECT 1 AS found FROM information_schema.tables "
            "WHERE table_schema = :schema AND table_name = :name"
        )
        if self._is_duckdb and not self._duckdb_file.exists():
            return False
        found = self._run(lambda session: session.query(query, {"schema": schema, "name": name}))
        return len(found) > 0

    def replace(
        self,
        table: str,
        column_types: Mapping[str, str],
        rows: pd.DataFrame,
        windows: Sequence[Window],
        *,
        received_at: str,
    ) -> None:
        """Replace the rows of some windows, in one transaction; creates the table if need be.

        With no windows and no rows it only creates the table. For those who feed the warehouse:
        the simulator and tests. The platform itself only reads.

        Raises:
            WarehouseUnavailable: No connection, or no answer in time, after all tries.
            WarehouseError: A value does not fit its column, or this user may not write.
        """

        def write(session: Session) -> None:
            session.execute(f"CREATE SCHEMA IF NOT EXISTS {table.split('.')[0]}", {})
            names = ", ".join(f"{quoted(name)} {type_}" for name, type_ in column_types.items())
            session.execute(f"CREATE TABLE IF NOT EXISTS {table} ({names})", {})
            for window in _joined(windows):
                session.execute(
                    f"DELETE FROM {table} WHERE {received_at} >= :start AND {received_at} < :end",  # noqa: S608
                    _bounds(window),
                )
            if len(rows):
                session.insert(table, column_types, to_arrow(rows[list(column_types)]))

        self._run(write, writes=True)

    def _fingerprints(
        self,
        session: Session,
        query: str,
        window: Window,
        key: str,
        received_at: str,
        updated_at: str,
    ) -> dict[str, str]:
        digest = session.digest(quoted(key), quoted(updated_at))
        grouped = (
            f"SELECT CAST(CAST({quoted(received_at)} AT TIME ZONE :zone AS DATE) AS VARCHAR) "  # noqa: S608
            f"AS day, count(*) AS n, CAST(max({quoted(updated_at)}) AS VARCHAR) AS newest, "
            f"CAST({digest} AS VARCHAR) AS digest "
            f"FROM (\n{with_parameters(query, ':{}'.format)}\n) AS source_rows "
            "GROUP BY 1 ORDER BY 1"
        )
        found = session.query(grouped, {**_bounds(window), "zone": self.time_zone}).to_pylist()
        return {
            day["day"]: _fingerprint(day["n"], day["newest"], int(day["digest"]))
            for day in found
            if day["day"] and _DAY.fullmatch(day["day"])  # "infinity" is no day
        }

    @property
    def _is_duckdb(self) -> bool:
        return self.url.startswith("duckdb://")

    @property
    def _duckdb_file(self) -> Path:
        return Path(self.url.removeprefix("duckdb:///"))

    def _run(self, work: Callable[[Session], T], *, writes: bool = False) -> T:
        tries = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential(multiplier=self.backoff_seconds, max=10),
            retry=retry_if_exception_type(WarehouseUnavailable),
            reraise=True,
        )

        def once() -> T:
            if self._is_duckdb:
                return warehouse_duckdb.run(work, self._duckdb_file, writes=writes)
            limit = self.statement_timeout_seconds
            return warehouse_postgresql.run(work, self.url, limit, writes=writes)

        return tries(once)


def _fingerprint(rows: int, newest: str | None, digest: int) -> str:
    changed = newest.replace(" ", "T").replace("+00", "+00:00") if newest else "unknown"
    return f"{rows} row{'' if rows == 1 else 's'}, newest {changed}, {digest % 2**64:016x}"


def _joined(windows: Sequence[Window]) -> list[Window]:
    """The same instants in as few windows as possible."""
    joined: list[Window] = []
    for start, end in sorted(windows):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _bounds(window: Window) -> dict[str, datetime]:
    start, end = window
    return {"start": start, "end": end}
