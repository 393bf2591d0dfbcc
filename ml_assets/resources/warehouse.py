"""The door to the insurer's warehouse: DuckDB in a file by default, PostgreSQL by URL.

It runs a use case's `.sql` for a window of time and tells which days changed. What rows mean, and
whether they are good, is not its business. DuckDB is reached by its own driver, which hands over
columns; PostgreSQL through SQLAlchemy. (duckdb-engine, which would put both behind SQLAlchemy, has
had no release since March 2025.)
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pandas as pd
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from ml_assets.environment import mask_url
from ml_assets.resources.arrow import to_arrow

_PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)\b")

T = TypeVar("T")
Window = tuple[datetime, datetime]


class WarehouseError(ValueError):
    """The warehouse cannot answer, and asking again will not help: the message says what would."""


class WarehouseUnavailable(ConnectionError):
    """The warehouse cannot be reached for now; a later try may succeed."""


class Fingerprint(NamedTuple):
    """What tells one state of a day's source rows from another."""

    rows: int
    newest: datetime | None


@dataclass(frozen=True)
class Warehouse:
    """Reads windows of a source query, and per-day fingerprints of it.

    Attributes:
        url: Where it is; may carry a password, and is never shown.
        time_zone: Decides which day an instant belongs to.
        attempts: Tries at a connection that fails for a passing reason.
        backoff_seconds: Pause before the second try; doubles each time, up to ten seconds.
    """

    url: str = field(repr=False)
    time_zone: str
    attempts: int
    backoff_seconds: float

    def read(self, query: str, window: Window) -> pd.DataFrame:
        """Run a query with bound parameters `:start` and `:end` in one consistent snapshot.

        Raises:
            WarehouseUnavailable: No connection, after all tries.
            WarehouseError: A table, column or driver is missing, or the query is wrong.
        """
        return self._run(lambda session: session.query(query, _bounds(window)))

    def fingerprints(
        self, query: str, window: Window, *, received_at: str, updated_at: str
    ) -> dict[str, Fingerprint]:
        """Row count and newest change of each day that has rows, as one grouped query.

        Returns:
            A fingerprint per day (YYYY-MM-DD, local to `time_zone`).
        """
        grouped = (
            f"SELECT CAST({received_at} AT TIME ZONE '{self.time_zone}' AS DATE) AS day, "  # noqa: S608
            f"count(*) AS n, max({updated_at}) AS newest FROM (\n{query}\n) AS source_rows "
            "GROUP BY 1 ORDER BY 1"
        )
        found = self._run(lambda session: session.query(grouped, _bounds(window)))
        newest = pd.to_datetime(found["newest"], utc=True)
        return {
            pd.Timestamp(day).date().isoformat(): Fingerprint(
                int(rows), None if pd.isna(at) else at.to_pydatetime()
            )
            for day, rows, at in zip(found["day"], found["n"], newest, strict=True)
        }

    def exists(self, table: str) -> bool:
        """Whether a table `schema.name` is there."""
        schema, name = table.split(".")
        query = (
            "SELECT 1 FROM information_schema.tables "
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
        """

        def write(session: "_Session") -> None:
            session.execute(f"CREATE SCHEMA IF NOT EXISTS {table.split('.')[0]}", {})
            names = ", ".join(f'"{name}" {type_}' for name, type_ in column_types.items())
            session.execute(f"CREATE TABLE IF NOT EXISTS {table} ({names})", {})
            for window in windows:
                session.execute(
                    f"DELETE FROM {table} WHERE {received_at} >= :start AND {received_at} < :end",  # noqa: S608
                    _bounds(window),
                )
            session.insert(table, rows[list(column_types)])

        self._run(write, writes=True)

    @property
    def _is_duckdb(self) -> bool:
        return self.url.startswith("duckdb://")

    @property
    def _duckdb_file(self) -> Path:
        return Path(self.url.removeprefix("duckdb:///"))

    def _run(self, work: Callable[["_Session"], T], *, writes: bool = False) -> T:
        tries = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_exponential(multiplier=self.backoff_seconds, max=10),
            retry=retry_if_exception_type(WarehouseUnavailable),
            reraise=True,
        )

        def once() -> T:
            opened = (
                _duckdb_session(self._duckdb_file, writes)
                if self._is_duckdb
                else _sqlalchemy_session(self.url)
            )
            with opened as session:
                return work(session)

        return tries(once)


class _Session:
    """One open transaction."""

    def query(self, sql: str, parameters: Mapping[str, Any]) -> pd.DataFrame:
        raise NotImplementedError

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def insert(self, table: str, rows: pd.DataFrame) -> None:
        raise NotImplementedError


class _DuckDB(_Session):
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def query(self, sql: str, parameters: Mapping[str, Any]) -> pd.DataFrame:
        frame: pd.DataFrame = self.connection.execute(
            _PARAMETER.sub(r"$\1", sql), dict(parameters)
        ).df()
        return frame

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> None:
        self.connection.execute(_PARAMETER.sub(r"$\1", sql), dict(parameters) or None)

    def insert(self, table: str, rows: pd.DataFrame) -> None:
        self.connection.register("incoming", to_arrow(rows))
        self.connection.execute(f"INSERT INTO {table} SELECT * FROM incoming")  # noqa: S608


class _SqlAlchemy(_Session):
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def query(self, sql: str, parameters: Mapping[str, Any]) -> pd.DataFrame:
        import sqlalchemy as sa

        result = self.connection.execute(sa.text(sql), dict(parameters))
        rows = pd.DataFrame(result.all(), columns=list(result.keys()), dtype=object)
        for position in range(rows.shape[1]):
            values = rows.iloc[:, position]
            if pd.api.types.infer_dtype(values) == "integer":
                rows.isetitem(position, values.astype("Int64"))  # 1 next to NULL is not 1.0
        return rows.infer_objects()

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> None:
        import sqlalchemy as sa

        self.connection.execute(sa.text(sql), dict(parameters))

    def insert(self, table: str, rows: pd.DataFrame) -> None:
        names = ", ".join(f'"{name}"' for name in rows.columns)
        plain = rows.astype(object).where(rows.notna(), None)
        cursor = self.connection.connection.cursor()
        with cursor.copy(f"COPY {table} ({names}) FROM STDIN") as copy:
            for row in plain.itertuples(index=False, name=None):
                copy.write_row(row)


@contextmanager
def _duckdb_session(file: Path, writes: bool) -> Iterator[_Session]:
    import duckdb

    if not writes and not file.exists():
        raise WarehouseError(
            f"the warehouse file {file} does not exist. Run `ml-assets demo` to create one with "
            "simulated applications, or name your own in warehouse.url (ML_ASSETS_WAREHOUSE_URL)."
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        connection = duckdb.connect(str(file), read_only=not writes)
    except (duckdb.Error, OSError) as error:
        # Another process has the file open; DuckDB lets one writer or many readers in.
        if "Could not set lock" in str(error):
            raise WarehouseUnavailable(f"the warehouse file {file} is in use: {error}") from error
        raise WarehouseError(
            f"the warehouse file {file} cannot be opened: {error}. Check warehouse.url "
            "(ML_ASSETS_WAREHOUSE_URL), and that this user may read and write there."
        ) from error
    with connection:
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("BEGIN")
            yield _DuckDB(connection)
            connection.execute("COMMIT")
        except duckdb.CatalogException as error:
            raise WarehouseError(_missing(file, error)) from error
        except duckdb.Error as error:
            raise WarehouseError(_refused(str(file), error)) from error


@contextmanager
def _sqlalchemy_session(url: str) -> Iterator[_Session]:
    try:
        import psycopg
        import sqlalchemy as sa
    except ImportError as error:
        raise WarehouseError(
            f"the driver for {mask_url(url)} is not installed: {error}. Run `make setup`."
        ) from error
    with_driver = re.sub(r"^postgresql://", "postgresql+psycopg://", url)
    try:
        engine = sa.create_engine(
            with_driver, poolclass=sa.pool.NullPool, connect_args={"connect_timeout": 10}
        )
    except (sa.exc.ArgumentError, ValueError):
        # Without the cause: it may quote a part of the password.
        raise WarehouseError(
            f"the warehouse {mask_url(url)} is not a URL that can be read. Write it as "
            "postgresql://user:password@host:port/database, with %40 for an @ in the password "
            "(ML_ASSETS_WAREHOUSE_URL)."
        ) from None
    try:
        with engine.begin() as connection:
            # The server's or the user's own settings must not decide how an instant is written.
            connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'")
            yield _SqlAlchemy(connection)
    except sa.exc.ProgrammingError as error:
        state = getattr(error.orig, "sqlstate", "")
        explain = _missing if state in ("42P01", "3F000") else _refused
        raise WarehouseError(explain(mask_url(url), error.orig)) from error
    except sa.exc.OperationalError as error:
        if re.search(r"authentication failed|does not exist|no password", str(error.orig)):
            raise WarehouseError(
                f"the warehouse {mask_url(url)} refuses the connection: {error.orig}. Check "
                "ML_ASSETS_WAREHOUSE_URL (user, password, database)."
            ) from error
        raise WarehouseUnavailable(
            f"the warehouse {mask_url(url)} cannot be reached: {error.orig}"
        ) from error
    except sa.exc.StatementError as error:
        raise WarehouseError(_refused(mask_url(url), error.orig)) from error
    except psycopg.OperationalError as error:  # COPY goes past SQLAlchemy
        raise WarehouseUnavailable(f"the warehouse {mask_url(url)} is lost: {error}") from error
    except psycopg.Error as error:
        raise WarehouseError(_refused(mask_url(url), error)) from error


def _bounds(window: Window) -> dict[str, datetime]:
    start, end = window
    return {"start": start, "end": end}


def _missing(place: object, error: object) -> str:
    return (
        f"the warehouse {place} lacks a table that the query names: {error}. Check the table's "
        "name in the use case's .sql file, and that warehouse.url points at the right database."
    )


def _refused(place: str, error: object) -> str:
    return (
        f"the warehouse {place} refuses the query: {error}. Compare the use case's .sql file with "
        "the columns of the source table."
    )
