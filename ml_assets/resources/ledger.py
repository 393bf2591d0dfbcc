"""The landing folder's ledger: what came, and which contents are in force now.

It is a table to which lines are only ever added; everything else follows from it, as pure
functions. How files come in and are read belongs in `ml_assets.resources.landing`.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Literal

import pandas as pd

from ml_assets.core.tables import Landing as LandingTable
from ml_assets.resources.lake import Lake

Outcome = Literal["taken", "repeated", "rejected"]


@dataclass(frozen=True)
class File:
    """A line of the ledger.

    Attributes:
        day: Local day on which the file was taken.
        number: Its place in the order; counts on even where the clock jumps.
        path: Where it lay, below the landing folder.
        outcome: taken, repeated (it changed nothing) or rejected.
        reason: Why it was rejected, or what it repeats.
        sha256: Hash of its content.
        bytes: Its size as it came.
        rows: Its rows.
        days: Its rows by the day that they are counted in.
        columns: Its column names.
        first_day: Rows received before this day are counted in `day`.
        modified_at: When its sender last wrote to it, by its own account.
        taken_at: When it was taken.
    """

    day: str
    number: int
    path: str
    outcome: Outcome
    reason: str
    sha256: str
    bytes: int
    rows: int
    days: Mapping[str, int]
    columns: Sequence[str]
    first_day: str
    modified_at: datetime
    taken_at: datetime

    def __str__(self) -> str:
        """In words, for logs."""
        if self.outcome == "rejected":
            return f"{self.path}: {self.reason}"
        days = f" of {_span(self.days)}" if self.days else ""
        told = f" ({self.reason})" if self.reason else ""
        return f"{self.path}: {self.rows:,} rows{days}{told}"


@dataclass(frozen=True)
class Content:
    """What some file held, and holds in force.

    Attributes:
        path: The path that brought it first, of those that still hold it.
        first: The ledger's line by which it first came, or was counted anew; decides how its rows
            map to days.
    """

    path: str
    first: File


@dataclass
class Ledger:
    """The state that all lines together make.

    A path holds the content that was delivered there last. A content is in force while any path
    holds it, and counts once however many do. A path never goes back to a content that it held
    before: that is an old delivery come again, and changes nothing, unless more of its rows have a
    day by now: then they are counted anew.

    So the order in which files of different paths are taken does not matter.
    """

    newest: dict[str, File] = field(default_factory=dict)
    last_number: int = 0
    _first: dict[str, File] = field(default_factory=dict)
    _holds: dict[str, File] = field(default_factory=dict)
    _held: dict[str, set[str]] = field(default_factory=dict)
    _holders: Counter[str] = field(default_factory=Counter)

    def add(self, file: File) -> bool:
        """Let one more line count; tells whether the contents in force change by it."""
        self.newest[file.path] = file
        self.last_number = max(self.last_number, file.number)
        if file.outcome == "rejected":
            return False
        known = self._first.setdefault(file.sha256, file)
        anew = file.outcome == "taken" and file.days != known.days
        if anew:
            self._first[file.sha256] = replace(file, path=known.path)  # where the archive has it
        if file.sha256 in self._held.get(file.path, ()):
            return anew
        self._held.setdefault(file.path, set()).add(file.sha256)
        before = self._holds.get(file.path)
        self._holds[file.path] = file
        self._holders[file.sha256] += 1
        if before is not None:
            self._holders[before.sha256] -= 1
        came = self._holders[file.sha256] == 1
        went = before is not None and self._holders[before.sha256] == 0
        return came or went or anew

    def first(self, sha256: str) -> File | None:
        """The line by which a content first came, if it did and could be read."""
        return self._first.get(sha256)

    def replay(self, path: str, sha256: str) -> bool:
        """Whether a path held this content before, and may hold another since."""
        return sha256 in self._held.get(path, ())

    def holder(self, path: str) -> File | None:
        """The line of the content that a path holds."""
        return self._holds.get(path)

    def path_in_force(self, sha256: str) -> str | None:
        """A path that holds a content, if any does."""
        if not self._holders[sha256]:
            return None
        return next(path for path, file in self._holds.items() if file.sha256 == sha256)

    def in_force(self) -> list[Content]:
        """The contents that count, in the order of their paths."""
        found: dict[str, Content] = {}
        for path, file in sorted(self._holds.items(), key=lambda held: held[1].number):
            found.setdefault(file.sha256, Content(path, self._first[file.sha256]))
        return sorted(found.values(), key=lambda content: (content.path, content.first.sha256))

    def days(self) -> set[str]:
        """The days that have rows."""
        return {day for content in self.in_force() for day in content.first.days}

    def fingerprints(self) -> dict[str, str]:
        """A fingerprint of each day that has rows: it changes with the contents of the day."""
        rows: Counter[str] = Counter()
        contents: dict[str, list[str]] = {}
        for content in self.in_force():
            first = content.first
            for day, count in first.days.items():
                rows[day] += count
                # How rows are mapped to days is a part of what the day holds.
                told = f"{first.sha256} {count} {first.day} {first.first_day}"
                contents.setdefault(day, []).append(told)
        return {
            day: f"{rows[day]} rows in {len(found)} file{'s' if len(found) > 1 else ''}, "
            + hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()[:16]
            for day, found in sorted(contents.items())
        }


def read_files(lake: Lake, table: str) -> list[File]:
    """All lines of a ledger, oldest first; none if it does not exist yet.

    Raises:
        LakeError: The table cannot be read.
    """
    days = lake.rows_per_day(table)
    if not days:
        return []
    rows = lake.read(table, min(days), max(days))
    rows = rows.sort_values(["number", "taken_at", "path"], kind="stable")
    return [
        File(
            **{
                **row,
                "days": json.loads(row["days"]),
                "columns": json.loads(row["columns"]),
                "modified_at": row["modified_at"].to_pydatetime(),
                "taken_at": row["taken_at"].to_pydatetime(),
            }
        )
        for row in rows.to_dict("records")
    ]


def ledger_of(files: Iterable[File]) -> Ledger:
    """The state that lines make, oldest first."""
    ledger = Ledger()
    for file in files:
        ledger.add(file)
    return ledger


def append_files(lake: Lake, table: str, files: Sequence[File]) -> None:
    """Add lines to a ledger, in one commit.

    Raises:
        LakeError: The table cannot be written.
    """
    rows = [
        {
            **asdict(file),
            "days": json.dumps(dict(file.days), sort_keys=True),
            "columns": json.dumps(list(file.columns), ensure_ascii=False),
        }
        for file in files
    ]
    frame = pd.DataFrame(rows, columns=list(LandingTable.to_schema().columns))
    for name in ("modified_at", "taken_at"):
        frame[name] = pd.to_datetime(frame[name], utc=True).astype("datetime64[us, UTC]")
    lake.append(table, LandingTable.validate(frame, lazy=True), note={"cause": "landing"})


def _span(days: Mapping[str, int]) -> str:
    first, last = min(days), max(days)
    return first if first == last else f"{first} to {last}"
