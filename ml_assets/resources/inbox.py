"""One look into a landing folder's inbox: what is complete, what it is, and where it goes.

The steps of taking a file, and the day that each of its rows is counted in. The folder as a source
of rows is `ml_assets.resources.landing`.
"""

import difflib
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa

from ml_assets.core.reading import local_days, read
from ml_assets.core.texts import visible
from ml_assets.resources.csv_text import FileError, Lines
from ml_assets.resources.files import FORMATS, file_format, read_file
from ml_assets.resources.lake import Lake
from ml_assets.resources.ledger import File, Ledger, append_files, ledger_of, read_files
from ml_assets.resources.places import (
    ARCHIVE,
    REJECTED,
    Changed,
    Copy,
    Entry,
    Place,
    safe_name,
    shown,
)

_INSTANT = pd.DatetimeTZDtype("us", "UTC")
_MARKER = ".done"
_UNDER_WAY = (".part", ".tmp", ".filepart", ".crdownload", "~")
NO_LIMIT = 2**63  # a file that was taken stays readable, whatever the limit is by now
_AT_ONCE = 64  # files on record in one commit, which takes longer than most files


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


class Rules(Protocol):
    """How a complete file is told, and how large it may be: see `Landing`."""

    @property
    def complete(self) -> str:
        """`settled`, `marker` or `renamed`."""

    @property
    def settle_seconds(self) -> int:
        """How long a settled file has not changed."""

    @property
    def max_file_bytes(self) -> int:
        """Most bytes that a file may have unpacked."""


@dataclass
class Inbox:
    """One look into the inbox, with the lock held.

    Attributes:
        rules: How a complete file is told, and how large it may be.
        place: The landing folder.
        lake: Where the ledger lies.
        table: The ledger's table.
        received_at: Column that decides a row's day in `zone`.
        zone: The time zone of the days.
        first_day: Rows received before it are counted in `today`.
        today: The local day.
        now: The instant.
    """

    rules: Rules
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

    def take(self, deadline: float) -> Taken:
        """Take every complete file; none is begun after the deadline but the first.

        Args:
            deadline: By `time.monotonic`.
        """
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
        if self.rules.complete == "marker" and entry.path + _MARKER not in self.entries:
            return f"there is no {shown(entry.path)}{_MARKER} beside it yet"
        if self.rules.complete == "settled":
            # A time far ahead is a clock that was set back: not one of a write just now.
            age = abs((self.now - entry.changed_at).total_seconds())
            if age < self.rules.settle_seconds:
                return f"changed {age:.0f} s ago; taken after {self.rules.settle_seconds} s"
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
        if (
            leftover
            and self.ledger.newest[path].sha256 == copy.sha256
            and not self._may_map_anew(copy.sha256)
        ):
            self.place.drop(copy)
            self._remove(entry)
            return
        if leftover and (reason := self._not_ready(entry)):
            self.place.drop(copy)
            self._wait(entry, reason)
            return
        try:
            file = self._judged(entry, copy)
        except MemoryError:
            # Nothing is wrong with the file, so it must not be rejected for it.
            self.place.drop(copy)
            self._wait(entry, "there is not enough memory to read it; it is tried again")
            return
        if file.outcome == "rejected":
            self._put_aside(file, copy)
            self.ledger.add(file)
        else:
            key = archive_key(self.ledger.first(copy.sha256) or file)
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
            days = self._mapped_anew(known, copy) if self._may_map_anew(copy.sha256) else known.days
            return replace(line, rows=known.rows, days=days, columns=known.columns)
        try:
            self._require_readable(entry, copy)
        except FileError as error:
            return replace(line, outcome="rejected", reason=visible(str(error)))
        data = self.place.read(copy.key)
        try:
            found = self._read(data, file_format(entry.path) or "")
            counted = counted_days(
                found.table, self.received_at, self.zone, self.first_day, line.day
            )
        except FileError as error:
            return replace(line, outcome="rejected", reason=visible(str(error)))
        except MemoryError:
            raise
        except Exception as error:
            # One file that we cannot cope with must not keep all others from being taken.
            unforeseen = f"it cannot be read, for a reason that we did not foresee: {error!r}"
            return replace(line, outcome="rejected", reason=visible(unforeseen))
        return replace(line, rows=len(found.lines), days=counted.counts(), columns=found.names)

    def _may_map_anew(self, sha256: str) -> bool:
        """Whether rows of a content in force that had no day when it was taken may have one now."""
        known = self.ledger.first(sha256)
        return (
            known is not None
            and known.day in known.days
            and (known.day, known.first_day) != (self.today.isoformat(), self.first_day.isoformat())
            and self.ledger.path_in_force(sha256) is not None
        )

    def _mapped_anew(self, known: File, copy: Copy) -> Mapping[str, int]:
        """The days of a content that came again: other ones if more of its rows have a day now."""
        data = self.place.read(copy.key)
        found = read_file(data, file_format(known.path) or "", max_bytes=NO_LIMIT, known=True)
        column = found.table, self.received_at, self.zone
        then = counted_days(*column, date.fromisoformat(known.first_day), known.day)
        present = counted_days(*column, self.first_day, self.today.isoformat())
        return present.counts() if present.own > then.own else known.days

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
        if copy.size > self.rules.max_file_bytes:
            raise FileError(
                f"it has {copy.size:,} bytes; at most {self.rules.max_file_bytes:,} are read "
                "(landing.max_file_bytes). Have it delivered in parts, or raise the limit."
            )

    def _read(self, data: bytes, kind: str) -> Lines:
        limit = self.rules.max_file_bytes
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
        known = self.ledger.first(file.sha256)
        # Only a correction can empty a day, and a ledger may be long.
        days = self.ledger.days() if before else set()
        if self.ledger.add(file):
            corrects = before is not None and before.sha256 != file.sha256
            if known is not None and known.days != file.days and not corrects:
                return replace(file, reason="rows of it that had no day before have one now")
            if before is None:
                return file
            reason = f"replaces the content taken on {before.day}"
            if emptied := sorted(days - self.ledger.days()):
                reason += (
                    f", and leaves no row of {', '.join(emptied[:3])}"
                    f"{' …' if len(emptied) > 3 else ''}: if that is not meant, deliver both "
                    "again, each under a name of its own"
                )
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
        self.result.waiting.append(Waiting(shown(entry.path), visible(reason)))


class CountedDays(NamedTuple):
    """The day that each row is counted in, as a position among names."""

    codes: np.ndarray
    names: list[str]
    own: int  # rows counted in the day of their own instant

    def counts(self) -> dict[str, int]:
        """Rows of each day that has any."""
        counts = np.bincount(self.codes, minlength=len(self.names))
        return {self.names[code]: int(counts[code]) for code in np.flatnonzero(counts)}

    def texts(self) -> pa.Array:
        """Each row's day."""
        return pa.DictionaryArray.from_arrays(
            pa.array(self.codes, pa.int32()), pa.array(self.names, pa.string())
        ).cast(pa.string())

    def among(self, days: frozenset[str]) -> np.ndarray:
        """Whether each row's day is one of these."""
        return np.array([name in days for name in self.names], bool)[self.codes]


def counted_days(
    table: pa.Table, received_at: str, zone: ZoneInfo, first_day: date, taken_on: str
) -> CountedDays:
    """The day each row is counted in: of its instant, or else the one the file was taken on.

    It depends on the file and its first line in the ledger alone, so it is the same every time.

    Args:
        table: The file's rows, with the column.
        received_at: Column that decides a row's day.
        zone: The time zone of the days.
        first_day: Earlier days are none.
        taken_on: Later days are none; rows without a day are counted in this one.
    """
    codes, names = local_days(read(table.column(received_at), _INSTANT).values, zone)
    if taken_on not in names:
        names = [*names, taken_on]
    within = np.array([first_day.isoformat() <= name <= taken_on for name in names])
    own = (codes >= 0) & within[codes]
    return CountedDays(np.where(own, codes, names.index(taken_on)), names, int(own.sum()))


def archive_key(first: File) -> str:
    """Where a content lies, by the line with which it first came."""
    return f"{ARCHIVE}/{first.sha256}/{safe_name(first.path)}"


def _reason_key(key: str) -> str:
    return f"{key}.reason.txt"
