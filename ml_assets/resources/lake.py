"""The platform's own tables: Delta Lake, one table per asset, partitioned by `day`.

Every read and write names its days, so nothing touches a whole table by accident. Which asset is
stored where and when belongs in `ml_assets.io_managers`.

`DeltaTable.scan` is used rather than `to_pyarrow_dataset`, which at times aborts the interpreter at
exit with our pinned pyarrow (seen 2026-11).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ml_assets.environment import mask_url
from ml_assets.resources.arrow import to_arrow, to_pandas

# Delta deletes log entries older than thirty days at every hundredth commit, and with them the way
# back to the rows that a model was trained on.
_KEEP_HISTORY: dict[str, str | None] = {"delta.enableExpiredLogCleanup": "false"}


class LakeError(OSError):
    """A table cannot be read or written; the message names it and says what to do."""


@dataclass(frozen=True)
class Written:
    """What a write left behind.

    Attributes:
        version: Version of the table that holds the rows.
        rows_per_day: Rows of each day written that has any.
        bytes_per_day: Size of each such day's files.
        changed: False if the table held the same content already, and was left as it was.
    """

    version: int
    rows_per_day: dict[str, int]
    bytes_per_day: dict[str, int]
    changed: bool

    @property
    def rows(self) -> int:
        """Rows of all days written."""
        return sum(self.rows_per_day.values())

    @property
    def bytes(self) -> int:
        """Size of their files."""
        return sum(self.bytes_per_day.values())


@dataclass(frozen=True)
class Lake:
    """Delta tables below one URL.

    Attributes:
        url: A folder, or a place in an object store.
        storage_options: What the object store needs to know; may be secret, and is never shown.
        attempts: Tries at a commit that another writer overtook.
    """

    url: str = field(repr=False)
    storage_options: dict[str, str] = field(repr=False)
    attempts: int

    def uri(self, table: str) -> str:
        """Where a table such as `claims/raw` lies."""
        return f"{self.url.rstrip('/')}/{table}"

    def read(
        self,
        table: str,
        first: str,
        last: str,
        *,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pd.DataFrame:
        """Read the days from `first` to `last`, both included, in one scan.

        Args:
            table: Name of the table, such as `claims/features`.
            first: First day, YYYY-MM-DD.
            last: Last day.
            columns: The columns to read; by default all.
            version: An earlier version of the table; by default the newest.

        Returns:
            Rows ordered by day and the table's second column; `attrs["table_version"]` tells the
            version that was read.

        Raises:
            LakeError: The table, the version or a column is not there.
        """
        delta = self._open(table, version)
        if delta is None:
            raise LakeError(
                f"the table {table} does not exist in {mask_url(self.url)} yet. Materialise the "
                "asset first, for the days you need."
            )
        names = [field.name for field in delta.schema().fields]
        wanted = list(columns) if columns is not None else names
        if missing := [name for name in wanted if name not in names]:
            raise LakeError(f"the table {table} has no column {missing}; it has {names}")
        order = [name for name in ("day", names[1]) if name in wanted]
        found = self._scan(table, delta, _between(first, last), wanted)
        frame = found.sort_values(order, kind="stable", ignore_index=True)
        frame.attrs["table_version"] = delta.version()
        return frame

    def write(self, table: str, frame: pd.DataFrame, first: str, last: str) -> Written:
        """Make `frame` the content of the days from `first` to `last`, in one commit.

        Other days are not touched. If the days hold the same rows already, nothing is written.

        Raises:
            ValueError: A row lies outside the days.
            LakeError: The place is not writable, or other writers won every race.
        """
        outside = frame.loc[~frame["day"].between(first, last), "day"].unique()
        if len(outside):
            days = ", ".join(map(str, outside[:5]))
            raise ValueError(f"{table}: rows of {days} in a write of {first} to {last}")
        tries = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            retry=retry_if_exception_type(CommitFailedError),
            reraise=True,
        )
        with self._writing(table):
            return tries(self._write_once, table, frame, first, last)

    def append(self, table: str, frame: pd.DataFrame) -> None:
        """Add rows to a table, in one commit; what is there stays as it is.

        Raises:
            LakeError: The place is not writable, or the rows have other columns than the table.
        """
        with self._writing(table):
            rows = to_arrow(frame)
            delta = self._open(table)
            if delta is not None:
                _require_same_columns(table, delta, rows)
            write_deltalake(
                self.uri(table),
                rows,
                mode="append",
                partition_by=["day"],
                storage_options=self.storage_options,
                configuration=_KEEP_HISTORY,
            )

    def find(self, table: str, column: str, value: str) -> pd.DataFrame:
        """Rows of every day whose text column holds a value, oldest day first; empty if none.

        Raises:
            LakeError: The table cannot be read, or has no such column.
        """
        delta = self._open(table)
        if delta is None:
            return pd.DataFrame()
        quoted = value.replace("'", "''")
        return self._scan(table, delta, f"{column} = '{quoted}'").sort_values(
            "day", kind="stable", ignore_index=True
        )

    def newest(self, table: str, *, before: str | None = None) -> dict[str, Any] | None:
        """The row of the newest day of a table with one row a day; None if there is none.

        Args:
            table: Name of the table.
            before: Only days earlier than this one count.

        Raises:
            LakeError: The table cannot be read.
        """
        days = [day for day in self.rows_per_day(table) if before is None or day < before]
        return self.read(table, max(days), max(days)).iloc[0].to_dict() if days else None

    def rows_per_day(self, table: str) -> dict[str, int]:
        """Number of rows of each day that has any, from the table's log alone."""
        delta = self._open(table)
        return {} if delta is None else _per_day(delta, "num_records")

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        try:
            return DeltaTable(
                self.uri(table), version=version, storage_options=self.storage_options
            )
        except TableNotFoundError:
            if version is not None and self._open(table) is not None:
                raise LakeError(
                    f"version {version} of the table {table} is gone: its log was cleaned up. "
                    "Restore the table from a backup of that time."
                ) from None
            return None
        except (DeltaError, OSError) as error:
            which = f"the table {table}" + ("" if version is None else f" at version {version}")
            raise LakeError(f"{which} cannot be opened: {error}") from error

    @contextmanager
    def _writing(self, table: str) -> Iterator[None]:
        try:
            yield
        except LakeError:
            raise
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"the table {table} cannot be written below {mask_url(self.url)}: {error}. Check "
                "that the place exists, has room, and that this user may write there."
            ) from error

    def _scan(
        self, table: str, delta: DeltaTable, predicate: str, columns: list[str] | None = None
    ) -> pd.DataFrame:
        try:
            return to_pandas(pa.table(delta.scan(columns=columns, predicate=predicate)))
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise LakeError(
                f"the table {table} cannot be read: {error}. Restore its files from a backup, or "
                "materialise the asset again for these days."
            ) from error

    def _write_once(self, table: str, frame: pd.DataFrame, first: str, last: str) -> Written:
        delta = self._open(table)
        rows = to_arrow(frame)
        if delta is not None:
            _require_same_columns(table, delta, rows)
            if self._holds(delta, frame, first, last):
                return self._written(delta, first, last, changed=False)
        write_deltalake(
            self.uri(table),
            rows,
            mode="overwrite",
            predicate=_between(first, last),
            partition_by=["day"],
            storage_options=self.storage_options,
            configuration=_KEEP_HISTORY,
        )
        delta = DeltaTable(self.uri(table), storage_options=self.storage_options)
        return self._written(delta, first, last, changed=True)

    def _holds(self, delta: DeltaTable, frame: pd.DataFrame, first: str, last: str) -> bool:
        there = _per_day(delta, "num_records")
        there = {day: rows for day, rows in there.items() if first <= day <= last and rows}
        if there != frame.groupby("day").size().to_dict():
            return False
        try:
            found = to_pandas(pa.table(delta.scan(predicate=_between(first, last))))
        except (DeltaError, OSError, pa.ArrowException):
            return False  # a broken file is mended by writing its day anew
        return bool(np.array_equal(_sorted_hashes(found), _sorted_hashes(frame)))

    def _written(self, delta: DeltaTable, first: str, last: str, *, changed: bool) -> Written:
        rows, sizes = (
            {day: value for day, value in _per_day(delta, name).items() if first <= day <= last}
            for name in ("num_records", "size_bytes")
        )
        return Written(delta.version(), rows, sizes, changed)


def _require_same_columns(table: str, delta: DeltaTable, rows: pa.Table) -> None:
    """Refuse rows of another shape: Delta would cut 1.5 to 1 to fit a column of whole numbers."""
    there, new = (
        {field.name: str(getattr(field.type, "type", field.type)) for field in schema.fields}
        for schema in (delta.schema(), Schema.from_arrow(rows.schema))
    )
    if there != new:
        names = [name for name in {**there, **new} if there.get(name) != new.get(name)]
        changes = "; ".join(
            f"{name}: {there.get(name, 'absent')} in the table, {new.get(name, 'absent')} now"
            for name in names
        )
        raise LakeError(
            f"the contract of {table} has changed ({changes}). Move the folders of the table, and "
            "of those made from it, aside, and backfill their days."
        )


def _between(first: str, last: str) -> str:
    return f"day >= '{first}' AND day <= '{last}'"


def _per_day(delta: DeltaTable, name: str) -> dict[str, int]:
    files = pa.table(delta.get_add_actions(flatten=True))
    if not files.num_rows:
        return {}
    frame = files.select(["partition.day", name]).to_pandas()
    return {
        str(day): int(total) for day, total in frame.groupby("partition.day")[name].sum().items()
    }


def _sorted_hashes(frame: pd.DataFrame) -> np.ndarray:
    return np.sort(pd.util.hash_pandas_object(frame, index=False).to_numpy())
