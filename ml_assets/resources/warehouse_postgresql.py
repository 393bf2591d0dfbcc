"""PostgreSQL as the warehouse's engine, through ADBC: rows arrive as Arrow.

Rows travel by COPY, which takes two thirds of the CPU time, and less than a third of the memory,
that ADBC needs for a query with bound parameters (`benchmarks/warehouse.py`). COPY takes none, so
a statement's parameters become settings of its transaction: `set_config` gets their values bound,
and the statement asks for them by name. No value is ever pasted into SQL.
"""

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.environment import mask_url
from ml_assets.resources.warehouse_session import (
    Parameters,
    Session,
    WarehouseError,
    WarehouseUnavailable,
    bind,
    is_plain,
    missing_table,
    quoted,
    refuse_repeated,
    refused_query,
)

T = TypeVar("T")

_URL = re.compile(
    r"postgresql://(?:(?P<user>[^:@/?]*)(?::(?P<password>[^@?]*))?@)?"
    r"(?P<hosts>[^@/?]*)(?P<database>/[^@?]*)?(?:\?(?P<options>[^@]*))?"
)
_HOST = re.compile(r"(\[[^\[\]]*\]|[^:\[\]]*)(:\d+)?")
# A dead connection ends in an error after about a minute.
_CONNECTION = (
    "connect_timeout=10&client_encoding=UTF8&application_name=ml_assets&keepalives=1"
    "&keepalives_idle=30&keepalives_interval=10&keepalives_count=3&tcp_user_timeout=60000"
)
_SETTINGS = {
    # The server's or the user's own settings must not decide how an instant is written.
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "standard_conforming_strings": "on",
    "extra_float_digits": "1",
}
_LOCK_SECONDS = 60
_GRACE_SECONDS = 30
_TOLD = re.compile(
    r"^[A-Z_]+: (?:\[libpq\] )?(?:Failed to connect: |.*?(?=(?:ERROR|FATAL|PANIC): ))?", re.DOTALL
)
# Refusals when connecting carry no code.
_REFUSED = re.compile(
    r"authentication failed|does not exist|no password|pg_hba\.conf|permission|not permitted|"
    r"certificate|invalid"
)
_PASSING = ("08", "25P03", "40", "53", "57P", "58")
_CASTS = {"money": "NUMERIC", "oid": "BIGINT"}  # the driver's own are cents, and negative
_MIN_INSTANT = -210_866_803_200_000_000  # 4713 BC, the first of PostgreSQL, in microseconds
_MIN_DAY = -2_440_588
_MINUS_INFINITY = {"timestamp": -9_222_425_352_054_775_808, "date": -2_147_472_691}


def run(work: Callable[[Session], T], url: str, timeout_seconds: int, *, writes: bool) -> T:
    """Do some work in one transaction: a snapshot that cannot write, unless `writes`.

    The work runs in a thread of its own: a server, or a proxy before it, that neither answers nor
    hangs up is given up here, and signals are heard while a statement runs.

    Args:
        work: What to do.
        url: `postgresql://…`
        timeout_seconds: How long one statement may take.
        writes: Whether the transaction may write.

    Raises:
        WarehouseUnavailable: No connection, or no answer in time.
        WarehouseError: The URL cannot be read, the server refuses this user, or a statement.
    """
    server = _Server.at(url, timeout_seconds)
    watch = _Watch()
    result: Future[T] = Future()

    def job() -> None:
        try:
            with _transaction(server, watch, writes) as session:
                done = work(session)
            result.set_result(done)
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=job, name="warehouse", daemon=True).start()
    try:
        while not wait([result], timeout=1).done:
            if time.monotonic() - watch.since > timeout_seconds + _GRACE_SECONDS:
                raise WarehouseUnavailable(
                    f"the warehouse {server.shown} has not answered for "
                    f"{timeout_seconds + _GRACE_SECONDS} seconds, though it was to give up after "
                    f"{timeout_seconds} (warehouse.statement_timeout_seconds). Check the server, "
                    "and what lies between."
                )
    except BaseException:
        watch.cancel()
        raise
    return result.result()


@dataclass
class _Watch:
    """What the thread that waits sees of the one that works."""

    since: float = field(default_factory=time.monotonic)
    cursor: Any = None

    def begin(self, cursor: Any) -> Any:
        self.since, self.cursor = time.monotonic(), cursor
        return cursor

    def cancel(self) -> None:
        def ask() -> None:
            with contextlib.suppress(Exception):  # done already, or lost
                self.cursor.adbc_cancel()

        # In a thread: asking may get no answer either.
        threading.Thread(target=ask, name="warehouse cancel", daemon=True).start()


class _Server(NamedTuple):
    """Where the server is: for the driver, and for people."""

    uri: str
    shown: str
    secrets: tuple[str, ...]
    timeout_seconds: int

    @classmethod
    def at(cls, url: str, timeout_seconds: int) -> "_Server":
        match = _URL.fullmatch(url)
        if not match or not all(map(_HOST.fullmatch, match["hosts"].split(","))):
            # Without a cause: it may quote a part of the password.
            raise WarehouseError(
                f"the warehouse {mask_url(url)} is not a URL that can be read. Write it as "
                "postgresql://user:password@host:port/database, with %40 for an @ in the password "
                "(ML_ASSETS_WAREHOUSE_URL)."
            )
        user, password = (unquote(match[name] or "") for name in ("user", "password"))
        login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        options = "&".join(filter(None, (_CONNECTION, match["options"])))
        uri = (
            f"postgresql://{login}{'@' if login else ''}{match['hosts']}{match['database'] or '/'}"
        )
        return cls(
            uri=f"{uri}?{options}",
            shown=mask_url(url),
            secrets=tuple(filter(None, {password, match["password"], quote(password, safe="")})),
            timeout_seconds=timeout_seconds,
        )

    def told(self, error: Exception) -> str:
        """What the server said, in short."""
        text = str(error).split("\n\nQuery was:")[0].split(". SQLSTATE:")[0]
        text = _TOLD.sub("", text, count=1).strip()
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


@contextlib.contextmanager
def _transaction(server: _Server, watch: _Watch, writes: bool) -> Iterator[Session]:
    try:
        import adbc_driver_postgresql.dbapi as driver
    except ImportError as error:
        raise WarehouseError(
            f"the driver for {server.shown} is not installed: {error}. Run `make setup`."
        ) from error
    try:
        connection = driver.connect(server.uri)
    except driver.Error as error:
        told = _one_line(server.told(error))
        if _REFUSED.search(told):
            raise WarehouseError(
                f"the warehouse {server.shown} refuses the connection: {told}. Check "
                "ML_ASSETS_WAREHOUSE_URL (user, password, database)."
            ) from None
        raise WarehouseUnavailable(
            f"the warehouse {server.shown} cannot be reached: {told}"
        ) from None
    try:
        session = _PostgreSQL(connection, watch)
        if not writes:
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", {})
        limit = server.timeout_seconds
        session.settings(
            {
                **_SETTINGS,
                "statement_timeout": f"{limit}s",
                # Before the statement's own limit, or nobody is told that it is a lock.
                "lock_timeout": f"{min(limit * 900, _LOCK_SECONDS * 1000)}ms",
            }
        )
        yield session
        connection.commit()
    except driver.Error as error:
        raise _explained(server, error) from None
    except pa.ArrowException as error:
        raise WarehouseError(refused_query(server.shown, server.told(error))) from None
    finally:
        # What a lost connection says when it is closed is no news.
        with contextlib.suppress(driver.Error):
            connection.close()


class _PostgreSQL(Session):
    def __init__(self, connection: Any, watch: _Watch) -> None:
        self.connection, self.watch = connection, watch

    def settings(self, values: Mapping[str, str]) -> None:
        """Set some settings for this transaction."""
        calls = (f"set_config(${2 * at + 1}, ${2 * at + 2}, true)" for at in range(len(values)))
        flat = tuple(part for setting in values.items() for part in setting)
        with self._cursor() as cursor:
            cursor.execute(f"SELECT {', '.join(calls)}", flat)
            cursor.fetch_arrow_table()

    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        bound = self._bound(sql, parameters)
        with self._cursor() as cursor:
            schema = cursor.adbc_execute_schema(bound)
        refuse_repeated(schema.names)
        casts = {column.name: _cast(column) for column in schema}
        if any(casts.values()):
            values = ", ".join(
                f"CAST({quoted(name)} AS {cast}) AS {quoted(name)}" if cast else quoted(name)
                for name, cast in casts.items()
            )
            bound = f"SELECT {values} FROM (\n{bound}\n) AS source_rows"  # noqa: S608
        with self._cursor() as cursor:
            cursor.execute(f"{bound}\n")  # a comment may end it, and COPY puts a bracket after it
            found = cursor.fetch_arrow_table()
        columns = [_plain(found.column(at), column) for at, column in enumerate(found.schema)]
        return pa.table(columns, names=found.column_names)

    def execute(self, sql: str, parameters: Parameters) -> None:
        with self._cursor() as cursor:
            cursor.execute(self._bound(sql, parameters))

    def insert(self, table: str, column_types: Mapping[str, str], rows: pa.Table) -> None:
        # By way of a table of the driver's own types: it is the server that casts, and refuses.
        names = ", ".join(map(quoted, column_types))
        values = ", ".join(f"CAST({quoted(name)} AS {t})" for name, t in column_types.items())
        with self._cursor() as cursor:
            cursor.adbc_ingest("ml_assets_incoming", rows, mode="create", temporary=True)
            cursor.execute(f"INSERT INTO {table} ({names}) SELECT {values} FROM ml_assets_incoming")  # noqa: S608
            cursor.execute("DROP TABLE ml_assets_incoming")

    def digest(self, key: str, updated_at: str) -> str:
        # One hash of both, by way of text: those of rows and arrays are linear in their parts, so
        # that two keys which swap their times would go unseen.
        text = f"concat('=' || CAST({key} AS TEXT), '|', {updated_at})"
        return f'sum(hashtextextended({text} COLLATE "C", 0))'

    def _bound(self, sql: str, parameters: Parameters) -> str:
        def setting(name: str) -> str:
            type_ = "timestamptz" if isinstance(parameters[name], datetime) else "text"
            # As a query of its own it is computed once, and not for each row that is scanned.
            return f"(SELECT CAST(current_setting('ml_assets.{name}') AS {type_}))"

        bound, values = bind(sql, parameters, setting)
        if values:
            self.settings(
                {
                    f"ml_assets.{name}": value.isoformat() if isinstance(value, datetime) else value
                    for name, value in values.items()
                }
            )
        return bound

    def _cursor(self) -> Any:
        return self.watch.begin(self.connection.cursor())


def _explained(server: _Server, error: Any) -> WarehouseError | WarehouseUnavailable:
    from adbc_driver_manager import AdbcStatusCode

    state, told = error.sqlstate or "", server.told(error)
    limit = f"{server.timeout_seconds} seconds (warehouse.statement_timeout_seconds)"
    if state == "57014":
        return WarehouseUnavailable(
            f"the warehouse {server.shown} gave up a query: {told}. One may take {limit}. If it "
            "always takes longer, raise the limit, or give the source table an index on the column "
            "that the .sql file selects by."
        )
    if state == "55P03":
        return WarehouseUnavailable(
            f"the warehouse {server.shown} keeps a table locked for longer than we wait: {told}. "
            "Look up who holds it in pg_locks; a later try may find it free."
        )
    lost = not state and error.status_code == AdbcStatusCode.IO
    if lost or state.startswith(_PASSING):
        return WarehouseUnavailable(f"the warehouse {server.shown} is lost: {_one_line(told)}")
    if state in ("42P01", "3F000"):
        return WarehouseError(missing_table(server.shown, told))
    if state == "42501":
        return WarehouseError(
            f"the warehouse {server.shown} does not let this user do that: {told}. Grant it SELECT "
            "on the source table and USAGE on its schema, or name another in "
            "ML_ASSETS_WAREHOUSE_URL."
        )
    if state == "22021":
        return WarehouseError(
            f"the warehouse {server.shown} holds text that is not of the encoding that it names: "
            f"{told}. Decode that column in the use case's .sql file: "
            "convert_from(name::bytea, 'LATIN1') AS name"
        )
    if state == "25006":
        return WarehouseError(
            f"the warehouse {server.shown} is only read, and the query writes: {told}. Mend the "
            "use case's .sql file."
        )
    return WarehouseError(refused_query(server.shown, told))


def _one_line(told: str) -> str:
    """The driver's account of a connection, which it breaks by ends of line and tabs."""
    return " ".join(told.split())


def _cast(column: pa.Field) -> str | None:
    """What the server is to cast a column to, so that its rows arrive in a plain type."""
    kind = _kind(column)
    if kind == "numeric":
        return None
    return _CASTS.get(kind) or (None if is_plain(column.type) else "TEXT")


def _kind(column: pa.Field) -> str:
    return (column.metadata or {}).get(b"POSTGRESQL:type", b"").decode()


def _plain(values: pa.ChunkedArray, column: pa.Field) -> pa.ChunkedArray:
    if _kind(column) == "numeric":
        return _decimal(values.cast(pa.string()), int(column.metadata[b"POSTGRESQL:typmod"]))
    if pa.types.is_timestamp(column.type):
        return _unwrapped(values, pa.int64(), _MIN_INSTANT, _MINUS_INFINITY["timestamp"])
    if pa.types.is_date32(column.type):
        return _unwrapped(values, pa.int32(), _MIN_DAY, _MINUS_INFINITY["date"])
    return values


def _decimal(text: pa.ChunkedArray, modifier: int) -> pa.ChunkedArray:
    """Numerics, which arrive as text, as decimals; as text if one does not fit (NaN, 39 digits)."""
    precision, scale = ((modifier - 4) >> 16) & 0xFFFF, (modifier - 4) & 0x7FF
    if modifier < 0:  # NUMERIC without a precision: each value has its own
        whole = _longest(text, r"^-?0*(\d*).*", r"\1")
        scale = _longest(text, r"^[^.]*\.?", "")
        precision = 38 if whole + scale <= 38 else 39
    if precision > 38 or not 0 <= scale <= precision:  # Arrow lets such a cast overflow
        return text
    try:
        return text.cast(pa.decimal128(precision, scale))
    except pa.ArrowInvalid:
        return text


def _longest(text: pa.ChunkedArray, pattern: str, replacement: str) -> int:
    """The length of the longest text once a pattern in it is replaced."""
    left = pc.replace_substring_regex(text, pattern, replacement)
    return pc.max(pc.utf8_length(left)).as_py() or 0


def _unwrapped(
    values: pa.ChunkedArray, whole: pa.DataType, first: int, minus_infinity: int
) -> pa.ChunkedArray:
    """Mend what the driver lets overflow: infinity, and instants after the year 294,247."""
    numbers = values.cast(whole)
    lowest = pc.min(numbers).as_py()
    if lowest is None or lowest >= first:
        return values
    last = 2 ** (whole.bit_width - 1) - 1
    mended = pc.if_else(pc.equal(numbers, minus_infinity), -last, last)
    return pc.if_else(pc.less(numbers, first), mended.cast(whole), numbers).cast(values.type)
