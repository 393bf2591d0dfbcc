"""The platform's own tables: Delta Lake, one table per asset, partitioned by `day`.

Every read and write names its days, so nothing touches a whole table by accident. Every commit is
a version of its table, and carries a note of who wrote it. Which asset is stored where and when
belongs in `ml_assets.io_managers`, what is removed again in `ml_assets.resources.clean_up`.

`DeltaTable.scan` is used rather than `to_pyarrow_dataset`, which at times aborts the interpreter at
exit with our pinned pyarrow (seen 2026-11).
"""

import itertools
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Field, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ml_assets.core.texts import visible
from ml_assets.environment import mask_url
from ml_assets.resources.arrow import to_arrow, to_pandas

# Delta deletes log entries older than thirty days at every hundredth commit, and with them the way
# back to the rows that a model was trained on.
_KEEP_HISTORY: dict[str, str | None] = {"delta.enableExpiredLogCleanup": "false"}

_T = TypeVar("_T")
_STAMP = "_environment"  # the table that names the environment which the lake belongs to
_NOTE = "ml_assets."  # begins our keys in a commit's own record, among those of Delta
_DAY = re.compile(r"'(\d{4}-\d{2}-\d{2})'")
_OPERATIONS = {"OPTIMIZE": "compact", "CREATE TABLE": "create"}


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
class Version:
    """One commit of a table, as the table's own log tells it.

    Attributes:
        version: Its number, from 0.
        at: When it was committed, by the clock of the machine that wrote it; UTC.
        operation: `write` (days were replaced), `append`, `compact`, or what else Delta calls it.
        first_day: First day that it wrote; None if the log does not say.
        last_day: Last day.
        cause: Why: schedule, sensor, backfill, hand, …; None for commits without a note.
        run_id: Dagster's run; None for commits without a note.
        rows: Rows written.
        readable: Whether all files of the table as of this version are still there; None if that
            was not looked up.
    """

    version: int
    at: datetime
    operation: str
    first_day: str | None
    last_day: str | None
    cause: str | None
    run_id: str | None
    rows: int | None
    readable: bool | None = None


@dataclass(frozen=True)
class Stored:
    """A file in a table's folder.

    Attributes:
        path: Below the folder.
        size: In bytes.
        modified: When it was written, with a time zone.
    """

    path: str
    size: int
    modified: datetime

    @property
    def is_data(self) -> bool:
        """Whether it holds rows, or did: Delta ignores what begins with `_` or `.`."""
        return not any(part.startswith(("_", ".")) for part in self.path.split("/"))


@dataclass(frozen=True)
class Lake:
    """Delta tables below one URL.

    Attributes:
        url: A folder, or a place in an object store.
        storage_options: What the object store needs to know; may be secret, and is never shown.
        attempts: Tries at a commit that another writer overtook.
        owners: The environment that it belongs to, and after it those that may have stamped it; a
            lake with the stamp of another is not written. Empty: nobody asks.
    """

    url: str = field(repr=False)
    storage_options: dict[str, str] = field(repr=False)
    attempts: int
    owners: tuple[str, ...] = ()

    def uri(self, table: str) -> str:
        """Where a table such as `claims/raw` lies.

        Raises:
            LakeError: The name leads out of the lake.
        """
        # The lake itself has no name.
        if table and {"", ".", ".."} & set(table.split("/")):
            raise LakeError(
                f"{visible(table)} does not name a table: expected a use case and a stage, such as "
                "claims/raw."
            )
        return f"{self.url.rstrip('/')}/{table}"

    def read(
        self,
        table: str,
        first: str,
        last: str,
        *,
        columns: Sequence[str] | None = None,
        version: int | datetime | None = None,
    ) -> pd.DataFrame:
        """Read the days from `first` to `last`, both included, in one scan.

        Args:
            table: Name of the table, such as `claims/features`.
            first: First day, YYYY-MM-DD.
            last: Last day.
            columns: The columns to read; by default all.
            version: An earlier version of the table, by its number or as the instant, with a time
                zone, at which it stood; by default the newest.

        Returns:
            Rows ordered by day and the table's second column; `attrs["table_version"]` tells the
            version that was read.

        Raises:
            LakeError: The table, the version or a column is not there, or maintenance has removed
                the version's files.
            ValueError: An instant without a time zone.
        """
        if isinstance(version, datetime):
            version = self.version_at(table, version)
        while True:
            delta = self._open(table, version)
            if delta is None:
                raise self._no_such_table(table)
            names = [field.name for field in delta.schema().fields]
            wanted = list(columns) if columns is not None else names
            if missing := [name for name in wanted if name not in names]:
                raise LakeError(f"the table {table} has no column {missing}; it has {names}")
            order = [name for name in ("day", names[1]) if name in wanted]
            try:
                found = self._scan(table, delta, _between(first, last), wanted)
            except LakeError:
                # Maintenance may have taken the files of a version that was replaced meanwhile.
                if version is None and self.version(table) != delta.version():
                    continue
                raise
            frame = found.sort_values(order, kind="stable", ignore_index=True)
            frame.attrs["table_version"] = delta.version()
            return frame

    def write(
        self,
        table: str,
        frame: pd.DataFrame,
        first: str,
        last: str,
        *,
        note: Mapping[str, str] | None = None,
    ) -> Written:
        """Make `frame` the content of the days from `first` to `last`, in one commit.

        Other days are not touched. If the days hold the same rows already, nothing is written.

        Args:
            table: Name of the table.
            frame: The rows.
            first: First day.
            last: Last day.
            note: What to put on record with the commit, such as `cause` and `run_id`; see `log`.

        Raises:
            ValueError: A row lies outside the days.
            LakeError: The place is not writable, or other writers won every race.
        """
        outside = frame.loc[~frame["day"].between(first, last), "day"].unique()
        if len(outside):
            days = ", ".join(map(str, outside[:5]))
            raise ValueError(f"{table}: rows of {days} in a write of {first} to {last}")
        told = _commit_note(note, first, last, len(frame))
        with self.writing(table):
            return self._again(self._write_once, table, frame, first, last, told)

    def append(
        self, table: str, frame: pd.DataFrame, *, note: Mapping[str, str] | None = None
    ) -> None:
        """Add rows to a table, in one commit; what is there stays as it is.

        Args:
            table: Name of the table.
            frame: The rows.
            note: What to put on record with the commit; see `log`.

        Raises:
            LakeError: The place is not writable, or the rows have other columns than the table.
        """
        first, last = (frame["day"].min(), frame["day"].max()) if len(frame) else (None, None)
        with self.writing(table):
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
                commit_properties=_commit_note(note, first, last, len(frame)),
            )

    def compact(self, table: str, *, note: Mapping[str, str] | None = None) -> None:
        """Make one file of each day's many, in one commit; without any there is no commit.

        Raises:
            LakeError: The table cannot be opened, the place is not writable, or other writers won
                every race.
        """

        def once() -> None:
            delta = self._open(table)
            if delta is not None:
                told = _commit_note(note, None, None, None)
                delta.optimize.compact(commit_properties=told)

        with self.writing(table):
            self._again(once)

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

    def bytes_per_day(self, table: str) -> dict[str, int]:
        """Size of each day's files as they are now, from the table's log alone."""
        delta = self._open(table)
        return {} if delta is None else _per_day(delta, "size_bytes")

    def version(self, table: str) -> int | None:
        """The number of the newest version; None if there is no such table."""
        delta = self._open(table)
        return None if delta is None else delta.version()

    def version_at(self, table: str, instant: datetime) -> int:
        """The number of the version that stood at an instant.

        It goes by the times in the log, not by those of its files, which a copy would change.

        Raises:
            ValueError: The instant has no time zone.
            LakeError: There is no such table, or it began later.
        """
        if instant.tzinfo is None:
            raise ValueError(f"{instant} has no time zone: say which instant is meant")
        delta = self._existing(table)
        oldest = None
        for each in self._commits(table, delta):
            if each.at <= instant:
                return each.version
            oldest = each
        began = f"its first, {oldest.version}, is of {_words(oldest.at)}" if oldest else "none is"
        raise LakeError(
            f"the table {table} had no version at {_words(instant)} yet: {began}. Choose a later "
            "instant."
        )

    def log(
        self,
        table: str,
        *,
        day: str | None = None,
        limit: int | None = None,
        check_files: bool = False,
    ) -> list[Version]:
        """The versions of a table, newest first.

        Args:
            table: Name of the table.
            day: Only versions that wrote this day, or of which the log does not tell the days.
            limit: At most so many.
            check_files: Whether to look up which of them are still readable.

        Raises:
            LakeError: There is no such table, or its log cannot be read.
        """
        delta = self._existing(table)
        commits = self._commits(table, delta)
        found = list(
            itertools.islice(
                (each for each in commits if day is None or _may_have_written(each, day)), limit
            )
        )
        if not check_files:
            return found
        there = {file.path for file in self.stored(table)}
        return [
            replace(each, readable=self.files(table, version=each.version) <= there)
            for each in found
        ]

    def files(
        self,
        table: str,
        first: str | None = None,
        last: str | None = None,
        *,
        version: int | None = None,
    ) -> frozenset[str]:
        """The files that hold the days from `first` to `last`, by the log; none without a table.

        While they are the same, so are the rows.

        Args:
            table: Name of the table.
            first: First day; by default from the beginning.
            last: Last day; by default to the end.
            version: An earlier version; by default the newest.

        Raises:
            LakeError: The version is not there.
        """
        delta = self._open(table, version)
        if delta is None:
            return frozenset()
        return frozenset(
            unquote(file["path"])
            for file in pa.table(delta.get_add_actions(flatten=True))
            .select(["path", "partition.day"])
            .to_pylist()
            if (first or "") <= file["partition.day"]
            and (not last or file["partition.day"] <= last)
        )

    def stored(self, table: str) -> list[Stored]:
        """Every file in the folder of a table: rows of all versions, its log, and what was left.

        Raises:
            LakeError: The folder cannot be listed.
        """
        from pyarrow.fs import FileType

        return [
            Stored(found.path, found.size, found.mtime)
            for found in self._listed(table, recursive=True)
            if found.type == FileType.File
        ]

    def remove(self, table: str, paths: Iterable[str]) -> None:
        """Remove files from the folder of a table, whatever they are; see `clean_up`.

        Raises:
            LakeError: The place is not writable.
        """
        folder = self._folder(table)
        with self.writing(table):
            for path in paths:
                with suppress(FileNotFoundError):
                    folder.delete_file(path)

    def checkpoint(self, table: str) -> None:
        """Sum up the log in one file, which makes opening the table fast; no log is removed.

        Raises:
            LakeError: There is no such table, or the place is not writable.
        """
        delta = self._existing(table)
        with self.writing(table):
            delta.create_checkpoint()

    def tables(self) -> list[str]:
        """The names of all tables, such as `claims/raw`, in order."""
        return [
            f"{use_case}/{stage}"
            for use_case in self._folders("")
            for stage in self._folders(use_case)
            if "_delta_log" in self._folders(f"{use_case}/{stage}")
        ]

    @contextmanager
    def writing(self, table: str) -> Iterator[None]:
        """Turn whatever goes wrong in a write into an error that names the table and a remedy."""
        try:
            if self.owners:
                self._require_ours(self.owners)
            yield
        except LakeError:
            raise
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise LakeError(
                f"the table {table} cannot be written below {mask_url(self.url)}: {_plain(error)}. "
                "Check that the place exists, has room, and that this user may write there."
            ) from error

    def try_writing(self) -> None:
        """Commit an empty table beside the others, and remove it.

        Raises:
            LakeError: The place is not writable.
        """
        name = f"_probe-{uuid4().hex}"
        probe = self.uri(name)
        schema = Schema([Field("nothing", PrimitiveType("string"))])
        try:
            DeltaTable.create(probe, schema, storage_options=self.storage_options)
            if "://" not in (folder := probe.removeprefix("file://")):
                shutil.rmtree(folder)
                return
            for file in self._listed(name, recursive=True):
                if file.is_file:
                    self._folder(name).delete_file(file.path)
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"nothing can be written below {mask_url(self.url)}: {_plain(error)}. Check that "
                "the place has room, and that this user may write there."
            ) from error

    def owner(self) -> str | None:
        """The environment that has stamped the lake; None if it has no stamp yet.

        The stamp is an empty table's name, since Delta commits in full or not at all, in any store.

        Raises:
            LakeError: The stamp cannot be read.
        """
        stamp = self._open(_STAMP)
        return stamp.metadata().name if stamp else None

    def _require_ours(self, owners: tuple[str, ...]) -> None:
        """Refuse a lake that another environment has stamped; stamp one that none has.

        One without a stamp is new, or older than the stamps.
        """
        stamp = self.owner()
        if stamp is None:
            DeltaTable.create(
                self.uri(_STAMP),
                Schema([Field("environment", PrimitiveType("string"))]),
                mode="ignore",
                name=owners[0],
                storage_options=self.storage_options,
            )
            stamp = self.owner()  # another process may have been faster
        if stamp not in owners:
            raise LakeError(
                f"the lake {mask_url(self.url)} belongs to {visible(str(stamp))}, as its table "
                f"{_STAMP} says, and {owners[0]} must not write there by mistake. Give {owners[0]} "
                f"one of its own (ML_ASSETS_LAKE_URL); if it is meant, say so in {owners[0]}.yaml: "
                f"shares: [{visible(str(stamp))}.lake]"
            )

    def _again(self, write: Callable[..., _T], *arguments: Any) -> _T:
        """Try anew what another writer's commit has overtaken."""
        tries = Retrying(
            stop=stop_after_attempt(self.attempts),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            retry=retry_if_exception_type(CommitFailedError),
            reraise=True,
        )
        return tries(write, *arguments)

    def _existing(self, table: str) -> DeltaTable:
        delta = self._open(table)
        if delta is None:
            raise self._no_such_table(table)
        return delta

    def _no_such_table(self, table: str) -> LakeError:
        try:
            known = ", ".join(self.tables())
        except LakeError:
            known = ""
        there = f"there are {known}" if known else "there are no tables yet"
        return LakeError(
            f"the table {visible(table)} does not exist in {mask_url(self.url)} yet; {there}. "
            "Materialise the asset first, for the days you need."
        )

    def _commits(self, table: str, delta: DeltaTable) -> Iterator[Version]:
        """The versions, newest first; older commits are read only when they are asked for."""
        seen, pages = 0, itertools.chain((64, 1024), itertools.repeat(None))
        for page in pages:
            try:
                entries = delta.history(page)
            except (DeltaError, OSError) as error:
                raise LakeError(
                    f"the log of the table {table} cannot be read: {_plain(error)}. Restore its "
                    "_delta_log from a backup."
                ) from error
            for entry in entries[seen:]:
                yield _from_log(entry)
            if page is None or len(entries) < page:
                return
            seen = len(entries)

    def _folder(self, path: str) -> Any:
        from deltalake.fs import DeltaStorageHandler
        from pyarrow.fs import LocalFileSystem, PyFileSystem, SubTreeFileSystem

        if "://" not in self.url:
            # Delta's own door does not show the halves of files that a killed writer leaves.
            return SubTreeFileSystem(str(Path(self.uri(path)).absolute()), LocalFileSystem())
        return PyFileSystem(DeltaStorageHandler(self.uri(path), self.storage_options))

    def _folders(self, path: str) -> list[str]:
        from pyarrow.fs import FileType

        found = self._listed(path, recursive=False)
        return sorted(each.path for each in found if each.type == FileType.Directory)

    def _listed(self, path: str, *, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        try:
            return list(self._folder(path).get_file_info(FileSelector("", recursive=recursive)))
        except (TableNotFoundError, FileNotFoundError):
            return []
        except (DeltaError, OSError) as error:
            raise LakeError(
                f"{mask_url(self.uri(path))} cannot be listed: {_plain(error)}. Check that the "
                "place exists, and that this user may read it."
            ) from error

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
            newest = None if version is None else self.version(table)
            if newest is not None and version is not None and version > newest:
                raise LakeError(
                    f"{which} cannot be opened: there is no such version. Its newest version is "
                    f"{newest}"
                ) from None
            remedy = "" if newest is None else f". Its newest version is {newest}"
            raise LakeError(f"{which} cannot be opened: {_plain(error)}{remedy}") from error

    def _scan(
        self, table: str, delta: DeltaTable, predicate: str, columns: list[str] | None = None
    ) -> pd.DataFrame:
        try:
            return to_pandas(pa.table(delta.scan(columns=columns, predicate=predicate)))
        except (DeltaError, OSError, pa.ArrowException) as error:
            self._require_files(table, delta)
            raise LakeError(
                f"the table {table} cannot be read: {_plain(error)}. Restore its files from a "
                "backup, or materialise the asset again for these days."
            ) from error

    def _require_files(self, table: str, delta: DeltaTable) -> None:
        """Tell a version that was cleaned up from one whose files are broken."""
        there = {file.path for file in self.stored(table)}
        version, newest = delta.version(), self.version(table)
        gone = self.files(table, version=version) - there
        if newest is None or not gone - self.files(table):
            return
        readable = (
            each
            for each in range(version + 1, newest + 1)
            if self.files(table, version=each) <= there
        )
        oldest = next(readable, None)
        raise LakeError(
            f"version {version} of the table {table} was cleaned up: maintenance removes the files "
            "of versions that are older than maintenance.keep_days and that no registered model "
            f"needs. The oldest readable version after it is {oldest}."
        )

    def _write_once(
        self, table: str, frame: pd.DataFrame, first: str, last: str, note: CommitProperties
    ) -> Written:
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
            commit_properties=note,
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


def _commit_note(
    note: Mapping[str, str] | None, first: str | None, last: str | None, rows: int | None
) -> CommitProperties:
    facts = {"first_day": first, "last_day": last, "rows": rows, **(note or {})}
    return CommitProperties(
        custom_metadata={
            f"{_NOTE}{key}": str(value) for key, value in facts.items() if value is not None
        }
    )


def _from_log(entry: Mapping[str, Any]) -> Version:
    parameters, metrics = (
        entry.get(name) or {} for name in ("operationParameters", "operationMetrics")
    )
    days = _DAY.findall(parameters.get("predicate") or "")
    rows = entry.get(f"{_NOTE}rows", metrics.get("num_added_rows"))
    name = entry.get("operation") or "unknown"
    if name == "WRITE":
        name = "append" if parameters.get("mode") == "Append" else "write"
    return Version(
        version=entry["version"],
        at=datetime.fromtimestamp((entry.get("timestamp") or 0) / 1000, UTC),
        operation=_OPERATIONS.get(name, name.lower()),
        first_day=entry.get(f"{_NOTE}first_day", min(days, default=None)),
        last_day=entry.get(f"{_NOTE}last_day", max(days, default=None)),
        cause=entry.get(f"{_NOTE}cause"),
        run_id=entry.get(f"{_NOTE}run_id"),
        rows=None if rows is None else int(rows),
    )


def _may_have_written(version: Version, day: str) -> bool:
    if version.first_day is None or version.last_day is None:
        return version.operation == "append"  # compaction and the like change no day's rows
    return version.first_day <= day <= version.last_day


def _plain(error: Exception) -> str:
    """Delta's own words, without the colours that it puts into some."""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(error))


def _words(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


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
