"""The landing folder: files that other systems drop, as a source of rows.

`take` moves complete files into an archive and puts them on record in a ledger; everything else is
answered from ledger and archive alone, so that an extraction can be made again at any time. How
files are taken is in `ml_assets.resources.inbox`, read in `ml_assets.resources.files`, moved in
`ml_assets.resources.places`, and what follows from the ledger in `ml_assets.resources.ledger`; what
rows mean, and whether they are good, is the contract's business.

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
from dataclasses import dataclass, field
from datetime import date, datetime
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from filelock import Timeout

from ml_assets.core.contract import ContractError
from ml_assets.core.raw_rows import ASSIGNED_DAY, ORIGIN
from ml_assets.core.reading import read
from ml_assets.environment import mask_url
from ml_assets.resources.files import combine, file_format, read_file
from ml_assets.resources.inbox import NO_LIMIT, Inbox, Taken, Waiting, archive_key, counted_days
from ml_assets.resources.lake import Lake
from ml_assets.resources.ledger import Content, File, ledger_of, read_files
from ml_assets.resources.places import Place, open_place
from ml_assets.resources.warehouse import Extract

__all__ = ["File", "Landing", "LandingError", "LandingUnavailable", "Taken", "Waiting"]

_INSTANT = pd.DatetimeTZDtype("us", "UTC")
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY)


class LandingError(ValueError):
    """The landing folder cannot be used, and trying again will not help: the message says what."""


class LandingUnavailable(ConnectionError):
    """The landing folder cannot be used for now; a later try may succeed."""


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
            place = self._place()
            try:
                with place.lock(max(budget_seconds, 0)):
                    place.tidy()
                    inbox = Inbox(
                        self, place, lake, table, received_at, zone, first_day, today, now
                    )
                    return inbox.take(deadline)
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
    ) -> Extract:
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
            required: Columns that a file must have if another has them; where none has, the
                contract tells. Any others are missing values where a file lacks them.

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
        _require_columns(contents, required)
        with self._reaching():
            place = self._place()
            tables = [self._rows(place, content, wanted, received_at, zone) for content in contents]
        fingerprints = {day: told for day, told in ledger.fingerprints().items() if day in wanted}
        if not tables:
            known = ledger.in_force()
            newest = max(known, key=lambda each: each.first.number).first.columns if known else []
            names = [*newest, *required, key, received_at, updated_at, ASSIGNED_DAY, ORIGIN]
            empty = pa.table({name: pa.array([], pa.string()) for name in dict.fromkeys(names)})
            return Extract(empty, fingerprints)
        stands, rows = _newest(tables, key, updated_at)
        lacking = _lacking(contents)
        if stands.all():
            return Extract(rows, fingerprints, lacking=lacking)
        gone = rows.column(ASSIGNED_DAY).filter(pa.array(~stands)).value_counts().to_pylist()
        superseded = {each["values"]: each["counts"] for each in gone}
        return Extract(rows.filter(pa.array(stands)), fingerprints, superseded, lacking)

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
        found = read_file(data, kind, max_bytes=NO_LIMIT, known=True)
        if received_at not in found.names:
            raise LandingError(
                f"{content.path}, which was taken, has no column {received_at!r}. Was the use "
                "case's received_at renamed? Move the ledger's table aside and deliver the "
                "archived files again."
            )
        first_day = date.fromisoformat(first.first_day)
        days = counted_days(found.table, received_at, zone, first_day, first.day)
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
        key = archive_key(first)
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

    def _place(self) -> Place:
        try:
            return open_place(self.url, self.storage_options)
        except (ImportError, TypeError, ValueError) as error:
            # Without the cause, which may quote an option.
            raise LandingError(
                f"the landing folder {mask_url(self.url)} cannot be opened: {error}. Check "
                "landing.url and landing.storage_options, and that the package for such places is "
                "installed (s3fs for s3://)."
            ) from None

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Let errors of the file system or the object store end in our own words."""
        where = mask_url(self.url)
        try:
            yield
        except (ContractError, LandingError, LandingUnavailable):
            raise
        except OSError as error:
            if type(error).__module__.startswith("ml_assets."):  # the lake's own
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
            if "://" not in self.url or type(error).__module__.startswith(
                ("ml_assets.", "pandera")
            ):
                raise
            raise LandingUnavailable(
                f"the landing folder {where} cannot be reached: {type(error).__name__}: {error}"
            ) from error


_NEVER = np.iinfo(np.int64).min


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


def _lacking(contents: Sequence[Content]) -> dict[str, list[str]]:
    """The columns that a file lacks and another has; once combined, nobody could tell."""
    there = dict.fromkeys(name for content in contents for name in content.first.columns)
    found = {
        content.path: [name for name in there if name not in content.first.columns]
        for content in contents
    }
    return {path: names for path, names in found.items() if names}


def _require_columns(contents: Sequence[Content], required: Sequence[str]) -> None:
    """Refuse a file without a column that others have: nobody could tell once they are combined."""
    there = {name for content in contents for name in content.first.columns}
    for content in contents:
        columns = content.first.columns
        absent = [name for name in required if name in there and name not in columns]
        if not absent:
            continue
        unknown = [name for name in columns if name not in required]
        hints = []
        for name in absent:
            near = difflib.get_close_matches(name, unknown, 1)
            hints.append(f"{name!r}" + (f" (renamed to {near[0]!r}?)" if near else ""))
        days = ", ".join(sorted(content.first.days)[:3])
        raise ContractError(
            f"the file {content.path}, with rows of {days}, lacks {', '.join(hints)}, unlike the "
            f"other files.\nexpected: {', '.join(required)}\nfound: {', '.join(columns)}\nHave the "
            "file delivered again under the same name with these columns, or change the contract "
            "in schema.py."
        )


def _told(days: Mapping[str, int]) -> str:
    some = [f"{day} ({count:,})" for day, count in sorted(days.items())[:5]]
    return ", ".join(some) + (" …" if len(days) > 5 else "") or "no day"
