"""DuckDB as the warehouse's engine: a file, which lets in one writer or many readers."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

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


def run(work: Callable[[Session], T], file: Path, *, writes: bool) -> T:
    """Do some work in one transaction on a file.

    Raises:
        WarehouseUnavailable: Another process keeps the file.
        WarehouseError: There is no such file, it is no database, or a statement is wrong.
    """
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
            done = work(_DuckDB(connection))
            connection.execute("COMMIT")
        except duckdb.CatalogException as error:
            raise WarehouseError(missing_table(file, error)) from error
        except duckdb.Error as error:
            raise WarehouseError(refused_query(file, error)) from error
    return done


class _DuckDB(Session):
    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def query(self, sql: str, parameters: Parameters) -> pa.Table:
        bound, values = bind(sql, parameters, "${}".format)
        found = self.connection.sql(bound, params=dict(values))
        refuse_repeated(found.columns)
        schema = found.limit(0).to_arrow_table().schema
        if not all(is_plain(dtype) for dtype in schema.types):
            columns = [
                quoted(name)
                if is_plain(dtype)
                else f"CAST({quoted(name)} AS VARCHAR) AS {quoted(name)}"
                for name, dtype in zip(schema.names, schema.types, strict=True)
            ]
            found = found.project(", ".join(columns))
        return found.to_arrow_table()

    def execute(self, sql: str, parameters: Parameters) -> None:
        bound, values = bind(sql, parameters, "${}".format)
        self.connection.execute(bound, dict(values))

    def insert(self, table: str, column_types: Mapping[str, str], rows: pa.Table) -> None:
        self.connection.register("incoming", rows)
        names = ", ".join(map(quoted, column_types))
        self.connection.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM incoming")  # noqa: S608

    def digest(self, key: str, updated_at: str) -> str:
        # Not DuckDB's own hash(), which may differ between its versions.
        text = f"concat('=' || CAST({key} AS VARCHAR), '|', CAST({updated_at} AS VARCHAR))"
        return f"sum(md5_number_lower({text}))"
