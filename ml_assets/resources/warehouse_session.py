"""What the warehouse's engines share: a transaction's interface, bound parameters, errors.

Which rows are asked for belongs to `ml_assets.resources.warehouse`; how a driver is spoken to, to
`warehouse_duckdb` and `warehouse_postgresql`.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime

import pyarrow as pa

Parameters = Mapping[str, str | datetime]


def _comment(depth: int) -> str:
    """A pattern for a comment that may hold comments, as SQL's may."""
    inner = f"|{_comment(depth - 1)}" if depth else ""
    return rf"/\*(?:(?!/\*|\*/).{inner})*\*/"


_SQL = re.compile(
    rf"""
    (?P<opaque> --[^\n]* | {_comment(3)}
        | (?<!\w)[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*"
        | (?<![\w$])\$(?P<tag>[A-Za-z_]?\w*)\$.*?\$(?P=tag)\$ | :: )
    | (?<!\w):(?P<name>[a-z_]+)\b
    | (?P<end>;)(?=(?:\s|--[^\n]*|{_comment(3)})*\Z)
    """,
    re.DOTALL | re.VERBOSE,
)
_PLAIN = (
    pa.types.is_boolean,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
    pa.types.is_string,
    pa.types.is_timestamp,
    pa.types.is_date,
    pa.types.is_time,
    pa.types.is_binary,
    pa.types.is_null,
)


class WarehouseError(ValueError):
    """The warehouse cannot answer, and asking again will not help: the message says what would."""


class WarehouseUnavailable(ConnectionError):
    """The warehouse cannot be reached for now; a later try may succeed."""


class Session(ABC):
    """One open transaction; parameters are written `:name` in SQL, and always bound."""

    @abstractmethod
    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        """The rows of a query, in plain Arrow types."""

    @abstractmethod
    def execute(self, sql: str, parameters: Parameters) -> None:
        """Run a statement that returns no rows."""

    @abstractmethod
    def insert(self, table: str, column_types: Mapping[str, str], rows: pa.Table) -> None:
        """Append rows to a table that has these columns."""

    @abstractmethod
    def digest(self, key: str, updated_at: str) -> str:
        """A whole number over all rows of a group, as SQL: a sum, so that equal rows count."""


def with_parameters(sql: str, write: Callable[[str], str]) -> str:
    """Rewrite each parameter `:name` of a statement, and drop the semicolon at its end.

    Literals, comments, quoted names and casts (`::`) are left alone.
    """

    def rewrite(match: re.Match[str]) -> str:
        if match["name"]:
            return write(match["name"])
        return "" if match["end"] else match[0]

    return _SQL.sub(rewrite, sql)


def bind(sql: str, parameters: Parameters, write: Callable[[str], str]) -> tuple[str, Parameters]:
    """Rewrite a statement's parameters for a driver.

    Returns:
        The statement, and those parameters that it names.

    Raises:
        WarehouseError: The statement names a parameter that has no value.
    """
    used: dict[str, str | datetime] = {}

    def known(name: str) -> str:
        if name not in parameters:
            raise WarehouseError(
                f"the warehouse refuses the query: it names :{name}, and only "
                f"{' and '.join(f':{given}' for given in parameters) or 'nothing'} has a value. "
                "Mend the use case's .sql file."
            )
        used[name] = parameters[name]
        return write(name)

    return with_parameters(sql, known), used


def quoted(name: str) -> str:
    """A column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def is_plain(dtype: pa.DataType) -> bool:
    """Whether rows of this Arrow type can be handed over as they are."""
    return any(kind(dtype) for kind in _PLAIN)


def refuse_repeated(names: list[str]) -> None:
    """Refuse a query that returns two columns of one name.

    Raises:
        WarehouseError: Naming them.
    """
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise WarehouseError(
            f"the query returns more than one column named {', '.join(map(repr, repeated))}. Give "
            "each a name of its own in the use case's .sql file (AS …)."
        )


def missing_table(place: object, error: object) -> str:
    """Tells that a query names a table that is not there."""
    return (
        f"the warehouse {place} lacks a table that the query names: {error}. Check the table's "
        "name in the use case's .sql file, and that warehouse.url points at the right database."
    )


def refused_query(place: object, error: object) -> str:
    """Tells that a query is wrong."""
    return (
        f"the warehouse {place} refuses the query: {error}. Compare the use case's .sql file with "
        "the columns of the source table."
    )
