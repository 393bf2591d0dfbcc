"""The landing folder: files that other systems drop, as a source of rows.

`take` moves complete files into an archive and puts them on record in a ledger; everything else is
answered from ledger and archive alone, so that an extraction can be made again at any time. How
files are read is in `ml_assets.resources.files`, how moved in `ml_assets.resources.places`, what
follows from the ledger in `ml_assets.resources.ledger`; what rows mean, and whether they are good,
is the contract's business.

Below the landing folder, `archive/<sha256>/<name>` holds every file that was taken, as it came, and
`rejected/<name>` every one that cannot be read, with a `<name>.reason.txt` beside it. All else is
the inbox.

A file is taken in this order, so that whatever a killed process left is mended by the next take: it
is copied and hashed, read, moved into the archive, put on record, and removed from the inbox.
"""

import difflib
import errno
import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from filelock import Timeout

from ml_assets.core.contract import ContractError
from ml_assets.core.raw_rows import ASSIGNED_DAY, ORIGIN
from ml_assets.core.reading import local_days, read
from ml_assets.environment import mask_url
from ml_assets.resources.csv_text import FileError, Lines
from ml_assets.resources.files import FORMATS, combine, file_format, read_file
from ml_assets.resources.lake import Lake
from ml_assets.resources.ledger import (
    Content,
    File,
    Ledger,
    append_files,
    ledger_of,
    read_files,
)
from ml_assets.resources.places import (
    ARCHIVE,
    REJECTED,
    Changed,
    Copy,
    Entry,
    Place,
    open_place,
    safe_name,
    shown,
)
from ml_assets.resources.warehouse import Extract

__all__ = ["File", "Landing", "LandingError", "LandingUnavailable", "Taken", "Waiting"]

_INSTANT = pd.DatetimeTZDtype("us", "UTC")
_MARKER = ".done"
_UNDER_WAY = (".part", ".tmp", ".filepart", ".crdownload", "~")
_AT_ONCE = 64  # files on record in one commit, which takes longer than most files
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY)


class LandingError(ValueError):
    """The landing folder cannot be used, and trying again will not help: the message says what."""


class LandingUnavailable(ConnectionError):
    """The landing folder cannot be used for now; a later try may succeed."""


class Waiting(NamedTuple):
    """A file that was left alone, and why."""

    path: str
    reason: str

    def __str__(self) -> str:
        """In words, for logs."""
        return f"{self.path}: {self.reason}"


class Taken(NamedTuple):
    """What one look into the inbox came to.

    Attributes:
        taken: Files whose rows count from now on.
        rejected: Files that cannot be read.
        repeated: Files that changed nothing, since their content was there already.
        waiting: Files that were left alone.
    """

    taken: list[File]
    rejected: list[File]
    repeated: list[File]
    waiting: list[Waiting]


class Extracted(Extract):
    """Rows and fingerprints, and how many rows were left out for newer ones in other files."""

    superseded: int = 0


@dataclass(frozen=True)
class Landing:
    """Files in a folder or an object store, as a source of rows.

    Attributes:
        url: A folder, or a place that fsspec reaches.
        storage_options: What the object store needs to know; may be secret, and is never shown.
        complete: How a complete file is told from one under way: `settled` (unchanged for
            `settle_seconds`), `marker` (`<name>.done` lies beside it) or `renamed` (at once).
        settle_seconds: See `complete`.
        max_file_bytes: Most bytes that a file may have unpacked.
    """

    url: str = field(repr=False)
    storage_options: dict[str, str] = field(repr=False)
    complete: str
    settle_seconds: int
    max_file_bytes: int

    def take(
        self,
        lake: Lake,
        table: str,
        *,
        received_at: str,
        zone: ZoneInfo,
        first_day: date,
        today: date,
        now: datetime,
        budget_seconds: float,
    ) -> Taken:
        """Take the files that are complete: into the archive, on record, and out of the inbox.

        One process at a time. Whatever a killed one left is mended first.

        Args:
            lake: Where the ledger lies.
            table: The ledger's table.
            received_at: Column that decides a row's day in `zone`.
            zone: The time zone of the days.
            first_day: Rows received before it are counted in `today`, as are those received after
                `today`, and those without a readable instant.
            today: The local day.
            now: The instant.
            budget_seconds: No further file is begun after this time; at least one is.

        Raises:
            LandingError: The folder cannot be read or written.
            LandingUnavailable: It cannot for now.
            LakeError: The ledger cannot be read or written.
        """
        deadline = time.monotonic() + budget_seconds
        with self._reaching():
            place = open_place(self.url, self.storage_options)
            try:
                with place.lock(max(budget_seconds, 0)):
                    place.tidy()
                    taking = _Taking(
                        self, place, lake, table, received_at, zone, first_day, today, now
                    )
                    return taking.all(deadline)
            except Timeout:
                raise LandingUnavailable(
                    f"another process is taking files from {mask_url(self.url)}; try again later"
                ) from None

    def fingerprints(self, lake: Lake, table: str) -> dict[str, str]:
        """The fingerprint of each day that has rows, from the ledger alone.

        Raises:
            LakeError: The ledger cannot be read.
        """
        return ledger_of(read_files(lake, table)).fingerprints()

    def extract(
        self,
        lake: Lake,
        table: str,
        days: Sequence[str],
        *,
        key: str,
        updated_at: str,
        received_at: str,
        zone: ZoneInfo,
        required: Sequence[str] = (),
    ) -> Extracted:
        """The rows of some days from all files in force, and the days' fingerprints.

        Every row has its day (`ASSIGNED_DAY`) and where it came from (`ORIGIN`). Where files differ
        about a row, the one with the newest `updated_at` stands, and older ones are left out;
        without a newest one all stay, for the contract to judge.

        Args:
            lake: Where the ledger lies.
            table: The ledger's table.
            days: The days, YYYY-MM-DD.
            key: Column that names a row, unique within a day.
            updated_at: Column with the source's last change.
            received_at: Column that decides a row's day.
            zone: The time zone of the days.
            required: Columns that every file must have; others are missing values where a file
                lacks them.

        Raises:
            ContractError: A file lacks a column; the message names the file.
            LandingError: An archived file is gone or damaged.
            LandingUnavailable: The archive cannot be reached for now.
            LakeError: The ledger cannot be read.
        """
        files = read_files(lake, table)
        ledger = ledger_of(files)
        wanted = frozenset(days)
        contents = [each for each in ledger.in_force() if wanted & each.first.days.keys()]
        for content in contents:
            _require_columns(content, required)
        with self._reaching():
            place = open_place(self.url, self.storage_options)
            tables = [self._rows(place, content, wanted, received_at, zone) for content in contents]
        fingerprints = {day: told for day, told in ledger.fingerprints().items() if day in wanted}
        if not tables:
            known = ledger.in_force()
            newest = max(known, key=lambda each: each.first.number).first.columns if known else []
            names = [*newest, *required, key, received_at, updated_at, ASSIGNED_DAY, ORIGIN]
            empty = pa.table({name: pa.array([], pa.string()) for name in dict.fromkeys(names)})
            return Extracted(empty, fingerprints)
        stands, rows = _newest(tables, key, updated_at)
        found = Extracted(rows if stands.all() else rows.filter(pa.array(stands)), fingerprints)
        found.superseded = int((~stands).sum())
        return found

    def _rows(
        self,
        place: Place,
        content: Content,
        wanted: frozenset[str],
        received_at: str,
        zone: ZoneInfo,
    ) -> pa.Table:
        """The rows of a file that are counted in some days, with our own columns."""
        first = content.first
        kind = file_format(first.path) or ""
        data = self._archived(place, first)
        found = read_file(data, kind, max_bytes=_NO_LIMIT, known=True)
        days = _days(found.table, received_at, zone, date.fromisoformat(first.first_day), first.day)
        if (counts := days.counts()) != first.days:
            raise LandingError(
                f"{content.path} (sha256 {first.sha256}) has rows of {_told(counts)}; when it was "
                f"taken, it had rows of {_told(first.days)}. Was the time zone changed since? Move "
                "the ledger's table aside and deliver the archived files again."
            )
        unit = "row" if kind == ".parquet" else "line"
        lines = pa.array(found.lines).cast(pa.string())
        start = pa.scalar(f"{content.path}, {unit} ")
        table = found.table.append_column(ASSIGNED_DAY, days.texts())
        table = table.append_column(ORIGIN, pc.binary_join_element_wise(start, lines, ""))
        if counts.keys() <= wanted:
            return table
        return table.filter(pa.array(days.among(wanted)))

    def _archived(self, place: Place, first: File) -> bytes:
        key = _archive_key(first)
        remedy = "Restore it from a backup, or deliver the same file again."
        try:
            data = place.read(key)
        except FileNotFoundError:
            raise LandingError(f"the archived file {key} is gone. {remedy}") from None
        if hashlib.sha256(data).hexdigest() != first.sha256:
            raise LandingError(
                f"the archived file {key} is damaged: its content is not what was taken. Remove "
                f"it. {remedy}"
            )
        return data

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Let errors of the file system or the object store end in our own words."""
        where = mask_url(self.url)
        try:
            yield
        except (ContractError, LandingError, LandingUnavailable):
            raise
        except ImportError as error:
            raise LandingError(
                f"the driver for the landing folder {where} is not installed: {error}"
            ) from None
        except OSError as error:
            if type(error).__module__.startswith("ml_assets"):  # the lake's own
                raise
            if error.errno in _PASSING or isinstance(error, ConnectionError | TimeoutError):
                raise LandingUnavailable(
                    f"the landing folder {where} cannot be used for now: {error}"
                ) from error
            raise LandingError(
                f"the landing folder {where} cannot be used: {error}. Check that it exists, has "
                "room, and that this user may read and write there."
            ) from error
        except Exception as error:
            # Clients of object stores raise errors of their own for a lost connection.
            if "://" not in self.url or type(error).__module__.startswith(("ml_assets", "pandera")):
                raise
            raise LandingUnavailable(
                f"the landing folder {where} cannot be reached: {type(error).__name__}: {error}"
            ) from error


_NEVER = np.iinfo(np.int64).min
_NO_LIMIT = 2**63  # a file that was taken stays readable, whatever the limit is by now


@dataclass
class _Taking:
    """One look into the inbox."""

    landing: Landing
    place: Place
    lake: Lake
    table: str
    received_at: str
    zone: ZoneInfo
    first_day: date
    today: date
    now: datetime
    result: Taken = field(default_factory=lambda: Taken([], [], [], []))
    pending: list[tuple[Entry, File]] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    entries: dict[str, Entry] = field(default_factory=dict)

    def all(self, deadline: float) -> Taken:
        self.ledger = ledger_of(read_files(self.lake, self.table))
        self.entries = {entry.path: entry for entry in self.place.entries()}
        begun = False
        for path in sorted(self.entries):
            entry = self.entries[path]
            if self._is_marker(path):
                continue
            leftover = self._may_be_leftover(entry)
            if not leftover and (reason := self._not_ready(entry)):
                self._wait(entry, reason)
            elif begun and time.monotonic() >= deadline:
                self._wait(entry, "the time for this look is over; it is taken at the next")
            else:
                begun = True
                self._one(entry, leftover)
            if len(self.pending) >= _AT_ONCE:
                self._record()
        self._record()
        return self.result

    def _not_ready(self, entry: Entry) -> str | None:
        """Why a file is not complete, as far as can be told from outside."""
        if entry.trouble:
            return entry.trouble
        if entry.path.endswith(_UNDER_WAY):
            return "under way, by its name"
        if self.landing.complete == "marker" and entry.path + _MARKER not in self.entries:
            return f"there is no {shown(entry.path)}{_MARKER} beside it yet"
        if self.landing.complete == "settled":
            # A time far ahead is a clock that was set back: not one of a write just now.
            age = abs((self.now - entry.changed_at).total_seconds())
            if age < self.landing.settle_seconds:
                return f"changed {age:.0f} s ago; taken after {self.landing.settle_seconds} s"
        return None

    def _is_marker(self, path: str) -> bool:
        return path.endswith(_MARKER) and file_format(path.removesuffix(_MARKER)) is not None

    def _may_be_leftover(self, entry: Entry) -> bool:
        """Whether a process may have been killed after it put this file on record."""
        newest = self.ledger.newest.get(shown(entry.path))
        return (
            newest is not None
            and not entry.trouble
            and (newest.bytes, newest.modified_at) == (entry.size, entry.modified_at)
        )

    def _one(self, entry: Entry, leftover: bool) -> None:
        """Take one file, up to the ledger's line, which may wait for others."""
        path = shown(entry.path)
        try:
            copy = self.place.copy(entry)
        except Changed:
            self._wait(entry, "it changed while it was read")
            return
        except PermissionError as error:
            self._wait(entry, f"cannot be read: {error.strerror or error}")
            return
        if leftover and self.ledger.newest[path].sha256 == copy.sha256:
            self.place.drop(copy)
            self._remove(entry)
            return
        if leftover and (reason := self._not_ready(entry)):
            self.place.drop(copy)
            self._wait(entry, reason)
            return
        file = self._judged(entry, copy)
        if file.outcome == "rejected":
            self._put_aside(file, copy)
            self.ledger.add(file)
        else:
            key = _archive_key(self.ledger.first(copy.sha256) or file)
            if self.place.size(key) == copy.size:
                self.place.drop(copy)
            else:
                self.place.keep(copy, key)
            file = self._with_outcome(file)
        self.pending.append((entry, file))

    def _judged(self, entry: Entry, copy: Copy) -> File:
        """The ledger's line for a file: taken if it can be read, rejected otherwise."""
        line = File(
            day=self.today.isoformat(),
            number=self.ledger.last_number + 1,
            path=shown(entry.path),
            outcome="taken",
            reason="",
            sha256=copy.sha256,
            bytes=copy.size,
            rows=0,
            days={},
            columns=[],
            first_day=self.first_day.isoformat(),
            modified_at=entry.modified_at,
            taken_at=self.now,
        )
        if (known := self.ledger.first(copy.sha256)) is not None:
            return replace(line, rows=known.rows, days=known.days, columns=known.columns)
        try:
            self._require_readable(entry, copy)
        except FileError as error:
            return replace(line, outcome="rejected", reason=str(error))
        data = self.place.read(copy.key)
        try:
            found = self._read(data, file_format(entry.path) or "")
            days = _days(found.table, self.received_at, self.zone, self.first_day, line.day)
        except FileError as error:
            return replace(line, outcome="rejected", reason=str(error))
        except Exception as error:
            # One file that we cannot cope with must not keep all others from being taken.
            unforeseen = f"it cannot be read, for a reason that we did not foresee: {error!r}"
            return replace(line, outcome="rejected", reason=unforeseen)
        return replace(line, rows=len(found.lines), days=days.counts(), columns=found.names)

    def _require_readable(self, entry: Entry, copy: Copy) -> None:
        """Refuse a file that need not be read at all."""
        try:
            entry.path.encode("utf-8")
        except UnicodeEncodeError:
            raise FileError("its name is not UTF-8. Deliver it under another name.") from None
        if file_format(entry.path) is None:
            raise FileError(
                f"its name does not end in any of {', '.join(FORMATS)}, so nothing tells how to "
                "read it. Deliver it under such a name."
            )
        if copy.size > self.landing.max_file_bytes:
            raise FileError(
                f"it has {copy.size:,} bytes; at most {self.landing.max_file_bytes:,} are read "
                "(landing.max_file_bytes). Have it delivered in parts, or raise the limit."
            )

    def _read(self, data: bytes, kind: str) -> Lines:
        limit = self.landing.max_file_bytes
        found = read_file(data, kind, max_bytes=limit, columns=[self.received_at])
        if self.received_at not in found.names:
            near = difflib.get_close_matches(self.received_at, found.names, 1)
            hint = f" Was it renamed to {near[0]!r}?" if near else ""
            raise FileError(
                f"it has no column {self.received_at!r}, so nothing tells which days its rows "
                f"belong to; it has {', '.join(map(repr, found.names[:60]))}.{hint} Have it "
                "delivered with that column."
            )
        return found

    def _with_outcome(self, file: File) -> File:
        """Let a line count, and tell it as repeated if no content comes into force or goes."""
        before = self.ledger.holder(file.path)
        replay = self.ledger.replay(file.path, file.sha256)
        like = self.ledger.path_in_force(file.sha256)
        if self.ledger.add(file):
            reason = f"replaces the content taken on {before.day}" if before else ""
            return replace(file, reason=reason)
        if not replay:
            return replace(file, outcome="repeated", reason=f"the same content as {like}")
        reason = "the same content was taken from this path before"
        if before is not None and before.sha256 != file.sha256:
            reason += (
                f", and replaced on {before.day}; to bring it back, deliver it with any change, "
                "such as an empty line at its end"
            )
        return replace(file, outcome="repeated", reason=reason)

    def _put_aside(self, file: File, copy: Copy) -> None:
        """Move a copy to the rejected files, with the reason beside it."""
        key = self._free_key(file, copy)
        told = (
            f"{file.path}\n{file.reason}\n\n"
            f"Rejected at {file.taken_at:%Y-%m-%d %H:%M:%S %Z}; {file.bytes:,} bytes, "
            f"sha256 {file.sha256}.\nOnce mended, put it into the landing folder again.\n"
        )
        if self.place.size(key) is None:
            self.place.keep(copy, key)
        else:
            self.place.drop(copy)
        self.place.write(_reason_key(key), told.encode())

    def _free_key(self, file: File, copy: Copy) -> str:
        """A name that no other rejected file has, nor a reason; the file's own if it is there."""
        name = safe_name(file.path)
        stem, dot, ending = name.partition(".")
        for each in (name, f"{stem}.{copy.sha256[:12]}{dot}{ending}"):
            key = f"{REJECTED}/{each}"
            size = self.place.size(key)
            if size is None and self.place.size(_reason_key(key)) is None:
                return key
            if size == copy.size and self._hash(key) == copy.sha256:
                return key
        return f"{REJECTED}/{stem}.{copy.sha256}{dot}{ending}"

    def _hash(self, key: str) -> str:
        return hashlib.sha256(self.place.read(key)).hexdigest()

    def _record(self) -> None:
        """Put files on record, and then remove them from the inbox."""
        if not self.pending:
            return
        append_files(self.lake, self.table, [file for _, file in self.pending])
        for entry, file in self.pending:
            {
                "taken": self.result.taken,
                "rejected": self.result.rejected,
                "repeated": self.result.repeated,
            }[file.outcome].append(file)
            self._remove(entry)
        self.pending = []

    def _remove(self, entry: Entry) -> None:
        """Remove a file that is on record; its marker first, or that would vouch for the next."""
        try:
            if marker := self.entries.get(entry.path + _MARKER):
                self.place.remove(marker)
            self.place.remove(entry)
        except OSError as error:
            self._wait(entry, f"it is on record, but cannot be removed from here: {error}")

    def _wait(self, entry: Entry, reason: str) -> None:
        self.result.waiting.append(Waiting(shown(entry.path), reason))


class _Days(NamedTuple):
    """The day that each row is counted in, as a position among names."""

    codes: np.ndarray
    names: list[str]

    def counts(self) -> dict[str, int]:
        counts = np.bincount(self.codes, minlength=len(self.names))
        return {self.names[code]: int(counts[code]) for code in np.flatnonzero(counts)}

    def texts(self) -> pa.Array:
        return pa.DictionaryArray.from_arrays(
            pa.array(self.codes, pa.int32()), pa.array(self.names, pa.string())
        ).cast(pa.string())

    def among(self, days: frozenset[str]) -> np.ndarray:
        return np.array([name in days for name in self.names], bool)[self.codes]


def _days(
    table: pa.Table, received_at: str, zone: ZoneInfo, first_day: date, taken_on: str
) -> _Days:
    """The day each row is counted in: of its instant, or else the one the file was taken on.

    It depends on the file and its first line in the ledger alone, so it is the same every time.
    """
    if received_at not in table.column_names:
        raise LandingError(
            f"a file that was taken has no column {received_at!r}. Was the use case's received_at "
            "renamed? Move the ledger's table aside and deliver the archived files again."
        )
    codes, names = local_days(read(table.column(received_at), _INSTANT).values, zone)
    if taken_on not in names:
        names = [*names, taken_on]
    within = np.array([first_day.isoformat() <= name <= taken_on for name in names])
    return _Days(np.where((codes >= 0) & within[codes], codes, names.index(taken_on)), names)


def _newest(tables: list[pa.Table], key: str, updated_at: str) -> tuple[np.ndarray, pa.Table]:
    """All rows, and which of them stand.

    A row goes if another file has one of the same day and key that was updated later.
    """
    rows = combine(tables)
    stands = np.ones(rows.num_rows, bool)
    if len(tables) == 1 or key not in rows.column_names or updated_at not in rows.column_names:
        return stands, rows
    found = pd.DataFrame(
        {
            "day": _codes(rows.column(ASSIGNED_DAY)),
            "key": _codes(rows.column(key)),
            "file": np.repeat(np.arange(len(tables)), [each.num_rows for each in tables]),
        }
    )
    found = found[(found["key"] >= 0) & found.duplicated(["day", "key"], keep=False)]
    if found.empty:
        return stands, rows
    updated = rows.column(updated_at).take(pa.array(found.index))
    found["at"] = read(updated, _INSTANT).values.cast(pa.int64()).fill_null(_NEVER).to_numpy()
    row = found.groupby(["day", "key"])
    newest = found.loc[row["at"].transform("idxmax")].set_axis(found.index)
    elsewhere = found["at"].where(found["file"] != newest["file"], _NEVER)
    second = elsewhere.groupby([found["day"], found["key"]]).transform("max")
    other = newest["at"].where(found["file"] != newest["file"], second)
    gone = (found["at"] != _NEVER) & (found["at"] < other)
    stands[found.index[gone]] = False
    return stands, rows


def _codes(values: pa.ChunkedArray) -> np.ndarray:
    """A number for each distinct value; -1 for a missing one."""
    if isinstance(values.type, pa.JsonType):
        values = values.cast(pa.string())
    encoded = values.dictionary_encode().unify_dictionaries().combine_chunks()
    return encoded.indices.fill_null(-1).to_numpy()


def _require_columns(content: Content, required: Sequence[str]) -> None:
    """Refuse a file without a column, which other files of the day may have."""
    columns = content.first.columns
    if absent := [name for name in required if name not in columns]:
        hints = []
        for name in absent:
            near = difflib.get_close_matches(
                name, [each for each in columns if each not in required], 1
            )
            hints.append(f"{name!r}" + (f" (renamed to {near[0]!r}?)" if near else ""))
        days = ", ".join(sorted(content.first.days)[:3])
        raise ContractError(
            f"the file {content.path}, with rows of {days}, lacks {', '.join(hints)}. Expected: "
            f"{', '.join(required)}. Found: {', '.join(columns)}. Have the file delivered again "
            "under the same name with these columns, or change the contract in schema.py."
        )


def _archive_key(first: File) -> str:
    return f"{ARCHIVE}/{first.sha256}/{safe_name(first.path)}"


def _reason_key(key: str) -> str:
    return f"{key}.reason.txt"


def _told(days: Mapping[str, int]) -> str:
    some = [f"{day} ({count:,})" for day, count in sorted(days.items())[:5]]
    return ", ".join(some) + (" …" if len(days) > 5 else "") or "no day"
