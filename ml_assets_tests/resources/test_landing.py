"""The landing folder: which files are taken, what they count for, and what a crash leaves."""

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import permutations
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_assets.core.contract import ContractError
from ml_assets.core.raw_rows import ASSIGNED_DAY, ORIGIN, is_json
from ml_assets.core.tables import Landing as LandingTable
from ml_assets.resources import inbox, places
from ml_assets.resources.lake import Lake
from ml_assets.resources.landing import (
    Landing,
    LandingError,
    LandingUnavailable,
    Taken,
)
from ml_assets.resources.ledger import read_files
from ml_assets.resources.places import Folder
from ml_assets.resources.warehouse import Extract

TABLE = "claims/landing"
ZONE = ZoneInfo("Europe/London")
NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
DAYS = ["2026-01-05", "2026-01-06", "2026-01-10"]
Row = tuple[str | None, str | None, str | None, str | None]


def row(
    key: str | None,
    received: str | None = "2026-01-05T10:00:00Z",
    updated: str | None = "2026-01-05T10:00:00Z",
    value: str | None = "1",
) -> Row:
    return key, received, updated, value


def csv(*rows: Row, header: str = "id,received_at,updated_at,value") -> bytes:
    lines = [",".join("" if cell is None else cell for cell in each) for each in rows]
    return "\n".join([header, *lines, ""]).encode()


def table(**columns: Any) -> bytes:
    target = io.BytesIO()
    parquet.write_table(pa.table(columns), target)
    return target.getvalue()


@dataclass
class Site:
    """A landing folder with its ledger, and a clock."""

    root: Path
    complete: str = "renamed"
    settle_seconds: int = 60
    max_file_bytes: int = 1 << 20
    now: datetime = NOW
    first_day: date = date(2026, 1, 1)
    lake: Lake = field(init=False)

    def __post_init__(self) -> None:
        self.inbox = self.root / "inbox"
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.lake = Lake(str(self.root / "lake"), {}, 3)

    @property
    def landing(self) -> Landing:
        return Landing(str(self.inbox), {}, self.complete, self.settle_seconds, self.max_file_bytes)

    def drop(self, name: str, content: bytes, *, age: float = 0) -> Path:
        path = self.inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written = time.time() - age
        os.utime(path, (written, written))
        return path

    def take(self, *, budget_seconds: float = 60) -> Taken:
        return self.landing.take(
            self.lake,
            TABLE,
            received_at="received_at",
            zone=ZONE,
            first_day=self.first_day,
            today=self.now.astimezone(ZONE).date(),
            now=self.now,
            budget_seconds=budget_seconds,
        )

    def take_in(self, name: str, content: bytes) -> Taken:
        self.drop(name, content)
        return self.take()

    def extract(self, days: Sequence[str] = DAYS, **options: Any) -> Extract:
        named = {"key": "id", "updated_at": "updated_at", "received_at": "received_at"}
        return self.landing.extract(self.lake, TABLE, days, zone=ZONE, **named, **options)

    def rows(self, days: Sequence[str] = DAYS) -> list[tuple[Any, ...]]:
        """Key, value and day of every row, in an order of their own."""
        found = self.extract(days).rows.to_pylist()
        rows = [(each["id"], each["value"], each[ASSIGNED_DAY]) for each in found]
        return sorted(rows, key=repr)

    def fingerprints(self) -> dict[str, str]:
        return self.landing.fingerprints(self.lake, TABLE)

    def outcomes(self) -> list[tuple[str, str]]:
        return [(file.path, file.outcome) for file in read_files(self.lake, TABLE)]

    def left(self) -> list[str]:
        """What lies in the inbox, but for our own folders and hidden files."""
        found = [path.relative_to(self.inbox) for path in self.inbox.rglob("*")]
        return sorted(
            str(path)
            for path in found
            if path.parts[0] not in ("archive", "rejected")
            and not path.parts[0].startswith(".")
            and not (self.inbox / path).is_dir()
        )


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def paths(files: Sequence[Any]) -> list[str]:
    return [file.path for file in files]


# Taking


def test_a_file_is_archived_as_it_came_put_on_record_and_removed(site: Site) -> None:
    content = csv(row("a"), row("b", "2026-01-06T10:00:00Z"), row("c"))
    taken = site.take_in("from/claims.csv", content)

    (file,) = taken.taken
    assert (taken.rejected, taken.repeated, taken.waiting) == ([], [], [])
    assert str(file) == "from/claims.csv: 3 rows of 2026-01-05 to 2026-01-06"
    assert (site.inbox / "archive" / file.sha256 / "claims.csv").read_bytes() == content
    assert site.left() == []
    (line,) = read_files(site.lake, TABLE)
    assert line == file
    assert (line.day, line.number, line.bytes, line.rows) == ("2026-01-10", 1, len(content), 3)
    assert line.days == {"2026-01-05": 2, "2026-01-06": 1}
    assert line.taken_at == NOW
    LandingTable.validate(site.lake.read(TABLE, "2026-01-10", "2026-01-10"))


def test_an_empty_folder_and_one_that_is_not_there_yet_hold_nothing(site: Site) -> None:
    shutil.rmtree(site.inbox)

    assert not any(site.take())
    assert site.fingerprints() == {}
    found = site.extract()
    assert found.rows.num_rows == 0
    assert set(found.rows.column_names) >= {"id", "received_at", ASSIGNED_DAY, ORIGIN}
    assert found.fingerprints == {}


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "jsonl", "ndjson", "jsonl.gz"])
def test_every_format_gives_its_rows_with_day_and_origin(site: Site, kind: str) -> None:
    values = {"id": "a", "received_at": "2026-01-05T10:00:00Z", "updated_at": None, "value": "x"}
    lines = json.dumps(values).encode() + b"\n" + json.dumps({**values, "id": "b"}).encode()
    content = {
        "csv": csv(row("a", updated=None, value="x"), row("b", updated=None, value="x")),
        "jsonl": lines,
        "ndjson": lines,
        "parquet": table(
            id=["a", "b"],
            received_at=[datetime(2026, 1, 5, 10, tzinfo=UTC)] * 2,
            updated_at=pa.nulls(2, pa.timestamp("us", "UTC")),
            value=["x", "x"],
        ),
    }[kind.removesuffix(".gz")]
    if kind.endswith(".gz"):
        content = gzip.compress(content)

    assert len(site.take_in(f"f.{kind}", content).taken) == 1

    assert site.rows() == [("a", "x", "2026-01-05"), ("b", "x", "2026-01-05")]
    first = {"csv": "line 2", "parquet": "row 1"}.get(kind.removesuffix(".gz"), "line 1")
    assert site.extract().rows[ORIGIN].to_pylist()[0] == f"f.{kind}, {first}"


def test_a_header_alone_is_taken_and_has_no_day(site: Site) -> None:
    (file,) = site.take_in("none.csv", csv()).taken

    assert (file.rows, file.days) == (0, {})
    assert site.fingerprints() == {}
    assert site.extract().rows.column_names[:4] == ["id", "received_at", "updated_at", "value"]


def test_rows_that_no_day_fits_are_counted_in_the_day_of_taking(site: Site) -> None:
    received = {
        "good": "2026-01-05T23:59:59.999999Z",
        "midnight": "2026-01-06T00:00:00Z",
        "offset": "2026-01-06T00:30:00+01:00",
        "missing": None,
        "words": "yesterday",
        "zoneless": "2026-01-05T10:00:00",
        "early": "2025-12-31T23:59:59Z",
        "future": "2026-01-11T00:00:00Z",
        "today": "2026-01-10T23:59:59Z",
    }
    site.take_in("f.csv", csv(*(row(key, at) for key, at in received.items())))

    days = {key: day for key, _, day in site.rows()}
    assert days.pop("good") == days.pop("offset") == "2026-01-05"
    assert days.pop("midnight") == "2026-01-06"
    assert set(days.values()) == {"2026-01-10"}
    assert len(days) == 6


def test_the_day_of_a_row_is_the_same_however_late_it_is_read(site: Site) -> None:
    site.take_in("f.csv", csv(row("future", "2026-01-11T09:00:00Z"), row("none", None)))
    before, told = site.rows(), site.fingerprints()

    site.now += timedelta(days=3)
    site.first_day = date(2026, 1, 12)
    site.take_in("other.csv", csv(row("x", "2026-01-13T09:00:00Z")))

    assert site.rows() == before
    assert site.fingerprints()["2026-01-10"] == told["2026-01-10"]


TOMORROWS = csv(row("a", "2026-01-10T09:00:00Z"), row("ahead", "2026-01-11T00:00:01Z"))


@pytest.mark.parametrize("again", ["f.csv", "other.csv"])
def test_rows_that_were_ahead_of_their_day_come_in_when_the_file_comes_again(
    site: Site, again: str
) -> None:
    site.take_in("f.csv", TOMORROWS)
    assert site.rows() == [("a", "1", "2026-01-10"), ("ahead", "1", "2026-01-10")]

    site.now += timedelta(days=1)
    (file,) = site.take_in(again, TOMORROWS).taken
    rows, told = site.rows(["2026-01-10", "2026-01-11"]), site.fingerprints()
    later = site.take_in(again, TOMORROWS)

    assert file.reason == "rows of it that had no day before have one now"
    assert rows == [("a", "1", "2026-01-10"), ("ahead", "1", "2026-01-11")]
    assert (later.taken, site.fingerprints()) == ([], told)
    assert len(list((site.inbox / "archive").rglob("*.csv"))) == 1


def test_a_copy_with_the_time_of_the_first_is_counted_anew_too(site: Site) -> None:
    path = site.drop("f.csv", TOMORROWS)
    stat = path.stat()
    site.take()

    site.now += timedelta(days=1)
    os.utime(site.drop("f.csv", TOMORROWS), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    site.take()

    assert site.rows(["2026-01-11"]) == [("ahead", "1", "2026-01-11")]


def test_rows_before_the_start_come_in_once_it_is_earlier_and_the_file_comes_again(
    site: Site,
) -> None:
    content = csv(row("old", "2025-12-30T10:00:00Z"), row("new", "2026-01-05T10:00:00Z"))
    site.take_in("f.csv", content)

    site.first_day = date(2025, 12, 1)
    site.take_in("f.csv", content)

    assert sorted(site.fingerprints()) == ["2025-12-30", "2026-01-05"]


@pytest.mark.parametrize("received", [None, "2026-01-10T10:00:00Z"])
def test_rows_that_have_no_more_days_than_before_stay_where_they_are(
    site: Site, received: str | None
) -> None:
    content = csv(row("a", received))
    site.take_in("f.csv", content)
    before = site.rows(), site.fingerprints()

    site.now += timedelta(days=2)
    found = site.take_in("f.csv", content)

    assert paths(found.repeated) == ["f.csv"]
    assert (site.rows(), site.fingerprints()) == before


def test_a_file_that_leaves_a_day_without_rows_says_so(site: Site) -> None:
    site.take_in("export.csv", csv(row("a", "2026-01-05T10:00:00Z")))

    (file,) = site.take_in("export.csv", csv(row("b", "2026-01-06T10:00:00Z"))).taken

    assert "leaves no row of 2026-01-05" in file.reason
    assert "each under a name of its own" in file.reason


def test_a_correction_by_what_another_file_holds_is_told_as_a_correction(site: Site) -> None:
    other = csv(row("b", "2026-01-06T10:00:00Z"))
    site.take_in("f.csv", csv(row("a", "2026-01-05T10:00:00Z")))
    site.take_in("g.csv", other)

    (file,) = site.take_in("f.csv", other).taken

    assert file.reason.startswith("replaces the content taken on 2026-01-10, and leaves no row of ")
    assert sorted(site.fingerprints()) == ["2026-01-06"]


def test_a_lack_of_memory_rejects_no_file(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("ml_assets.resources.inbox.read_file", full)
        found = site.take_in("f.csv", csv(row("a")))
    assert (found.rejected, paths(found.waiting)) == ([], ["f.csv"])
    assert "not enough memory" in found.waiting[0].reason

    assert paths(site.take().taken) == ["f.csv"]


def test_a_summer_night_counts_in_its_local_day(site: Site) -> None:
    site.now = datetime(2026, 7, 10, 12, tzinfo=UTC)
    site.take_in("f.csv", csv(row("a", "2026-07-01T23:30:00Z"), row("b", "2026-07-01T22:30:00Z")))

    assert sorted(site.fingerprints()) == ["2026-07-01", "2026-07-02"]


def test_days_are_counted_in_one_pass_however_many_there_are(site: Site) -> None:
    days = [date(2000, 1, 1) + timedelta(days=each) for each in range(9_000)]
    site.first_day = date(1990, 1, 1)
    site.take_in("f.csv", csv(*(row(str(day), f"{day}T10:00:00Z") for day in days)))

    assert len(site.fingerprints()) == 9_000


# Completeness


def test_settled_waits_until_a_file_was_left_alone_for_a_while(site: Site) -> None:
    site.complete, site.settle_seconds = "settled", 60
    site.drop("f.csv", csv(row("a")), age=3_600)  # as `cp -p` would date it

    changed = datetime.now(UTC)
    for seconds, taken in ((0, 0), (50, 0), (70, 1)):
        site.now = changed + timedelta(seconds=seconds)
        found = site.take()
        assert (len(found.taken), len(found.waiting)) == (taken, 1 - taken)


@pytest.mark.parametrize("mode", ["settled", "marker", "renamed"])
def test_a_file_that_grows_while_it_is_read_is_left_whole(
    site: Site, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.complete = mode
    path = site.drop("f.csv", csv(row("a")))
    site.drop("f.csv.done", b"")

    def grow(handle: int) -> None:
        monkeypatch.undo()
        with path.open("ab") as file:
            file.write(b"b,2026-01-05T10:00:00Z,,2\n")

    monkeypatch.setattr(places.os, "fsync", grow)
    (left,) = site.take().waiting

    assert str(left) == "f.csv: it changed while it was read"
    assert site.outcomes() == []
    assert len(site.take().taken[0].days) == 1
    assert len(site.rows()) == 2


def test_a_marker_lets_its_file_be_taken_and_goes_with_it(site: Site) -> None:
    site.complete = "marker"
    site.drop("a.csv", csv(row("a")))
    site.drop("b.csv", csv(row("b")))
    site.drop("b.csv.done", b"")
    site.drop("c.csv.done", b"")

    found = site.take()

    assert paths(found.taken) == ["b.csv"]
    assert [str(each) for each in found.waiting] == ["a.csv: there is no a.csv.done beside it yet"]
    assert site.left() == ["a.csv", "c.csv.done"]


def test_a_marker_goes_before_its_file_lest_it_vouch_for_the_next(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.complete = "marker"
    site.drop("a.csv", csv(row("a")))
    site.drop("a.csv.done", b"")
    removed: list[str] = []
    remove = Folder.remove

    def killed_at_the_second(self: Folder, entry: places.Entry) -> None:
        if removed:
            raise KeyboardInterrupt
        removed.append(entry.path)
        remove(self, entry)

    monkeypatch.setattr(Folder, "remove", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        site.take()
    monkeypatch.undo()

    assert removed == ["a.csv.done"]
    assert not any(site.take()), "it is on record; only what was left of it goes"
    assert (site.left(), site.outcomes()) == ([], [("a.csv", "taken")])


@pytest.mark.parametrize("name", ["f.csv.part", "f.csv.tmp", "f.csv.filepart", "f.csv~"])
@pytest.mark.parametrize("mode", ["settled", "marker", "renamed"])
def test_names_of_files_under_way_are_left_alone(site: Site, name: str, mode: str) -> None:
    site.complete, site.settle_seconds = mode, 0
    for each in (name, f"{name}.done", ".f.csv", ".hidden/f.csv"):
        site.drop(each, b"half of")

    found = site.take()

    assert found.taken == []
    assert name in site.left()
    assert name in paths(found.waiting)
    assert (site.inbox / ".f.csv").exists()
    assert (site.inbox / ".hidden/f.csv").exists()


def test_after_the_time_is_over_the_rest_waits_for_the_next_look(site: Site) -> None:
    for name in "cab":
        site.drop(f"{name}.csv", csv(row(name)))

    assert [len(site.take(budget_seconds=0).taken) for _ in range(3)] == [1, 1, 1]
    assert [key for key, *_ in site.rows()] == ["a", "b", "c"]
    assert not any(site.take(budget_seconds=0))


# Again, corrected, in any order


def test_the_same_content_again_changes_nothing(site: Site) -> None:
    content = csv(row("a"), row("b"))
    site.take_in("f.csv", content)
    before = site.rows(), site.fingerprints()

    same_path, other_path = site.take_in("f.csv", content), site.take_in("g.csv", content)

    assert str(same_path.repeated[0]).endswith("(the same content was taken from this path before)")
    assert str(other_path.repeated[0]).endswith("(the same content as f.csv)")
    assert (same_path.taken, other_path.taken) == ([], [])
    assert (site.rows(), site.fingerprints()) == before
    assert site.left() == []
    assert site.outcomes() == [("f.csv", "taken"), ("f.csv", "repeated"), ("g.csv", "repeated")]


def test_the_same_content_twice_at_once_counts_once(site: Site) -> None:
    for name in ("f.csv", "copy of f.csv"):
        site.drop(name, csv(row("a")))

    found = site.take()

    assert (paths(found.taken), paths(found.repeated)) == (["copy of f.csv"], ["f.csv"])
    assert len(site.rows()) == 1


def test_a_corrected_file_replaces_its_rows_on_all_days(site: Site) -> None:
    site.take_in("other.csv", csv(row("o", "2026-01-06T10:00:00Z")))
    site.take_in("f.csv", csv(row("a"), row("gone"), row("moved", "2026-01-06T10:00:00Z")))
    before = site.fingerprints()

    corrected = csv(row("a", value="2"), row("moved", "2026-01-10T10:00:00Z"))
    (file,) = site.take_in("f.csv", corrected).taken

    assert file.reason == "replaces the content taken on 2026-01-10"
    assert site.rows() == [
        ("a", "2", "2026-01-05"),
        ("moved", "1", "2026-01-10"),
        ("o", "1", "2026-01-06"),
    ]
    after = site.fingerprints()
    assert all(before.get(day) != after[day] for day in DAYS)


def test_a_day_that_loses_all_rows_has_no_fingerprint(site: Site) -> None:
    site.take_in("f.csv", csv(row("a")))
    site.take_in("f.csv", csv(row("a", "2026-01-06T10:00:00Z")))

    assert sorted(site.fingerprints()) == ["2026-01-06"]
    assert site.extract(["2026-01-05"]).rows.num_rows == 0


def test_an_old_delivery_of_the_same_path_does_not_come_back(site: Site) -> None:
    first, second = csv(row("a", value="1")), csv(row("a", value="2"))
    site.take_in("f.csv", first)
    site.take_in("f.csv", second)

    (file,) = site.take_in("f.csv", first).repeated

    assert "to bring it back, deliver it with any change" in file.reason
    assert site.rows() == [("a", "2", "2026-01-05")]
    site.take_in("f.csv", first + b"\n")
    assert site.rows() == [("a", "1", "2026-01-05")]


@pytest.mark.parametrize("order", [*permutations(["latest.csv", "day5.csv"])])
def test_a_sender_that_moves_its_files_on_loses_nothing(site: Site, order: tuple[str, ...]) -> None:
    old, new = csv(row("old")), csv(row("new"))
    site.take_in("latest.csv", old)

    contents = {"latest.csv": new, "day5.csv": old}
    for name in order:
        site.take_in(name, contents[name])

    assert [key for key, *_ in site.rows()] == ["new", "old"]


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_the_order_of_files_does_not_matter(site: Site, order: tuple[int, ...]) -> None:
    files = [
        ("a.csv", csv(row("x", value="1"), row("y"))),
        ("b.csv", csv(row("x", updated="2026-01-06T10:00:00Z", value="2"))),
        ("c.jsonl", b'{"id": "z", "received_at": "2026-01-06T10:00:00Z", "value": "3"}'),
        ("d.csv", csv(row("x", value="1"), row("y"))),
    ]
    for place in order:
        site.take_in(*files[place])

    assert site.rows() == [
        ("x", "2", "2026-01-05"),
        ("y", "1", "2026-01-05"),
        ("z", "3", "2026-01-06"),
    ]
    site_at_once = Site(site.root / "at once")
    for file in files:
        site_at_once.drop(*file)
    site_at_once.take()
    assert site_at_once.rows() == site.rows()
    assert site_at_once.fingerprints() == site.fingerprints()


def test_a_clock_set_back_does_not_bring_an_old_content_back(site: Site) -> None:
    site.take_in("f.csv", csv(row("a", value="1")))
    site.now -= timedelta(days=2)
    site.take_in("f.csv", csv(row("a", value="2")))

    assert site.rows() == [("a", "2", "2026-01-05")]


def test_a_broken_correction_leaves_the_rows_as_they_were(site: Site) -> None:
    site.take_in("f.csv", csv(row("a")))
    before = site.fingerprints()

    assert len(site.take_in("f.csv", csv(row("b"))[:-5] + b'"').rejected) == 1

    assert site.rows() == [("a", "1", "2026-01-05")]
    assert site.fingerprints() == before


# Rejected files


def test_an_unreadable_file_lies_aside_with_its_reason(site: Site) -> None:
    content = csv(row("a"), row("b"))[:-12]
    found = site.take_in("in/f.csv", content)

    (file,) = found.rejected
    assert "in/f.csv: line 3: 3 fields where the header has 4" in str(file)
    assert (site.inbox / "rejected/f.csv").read_bytes() == content
    reason = (site.inbox / "rejected/f.csv.reason.txt").read_text()
    assert reason.startswith(f"in/f.csv\n{file.reason}\n")
    assert file.sha256 in reason
    assert (site.left(), site.fingerprints()) == ([], {})


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("f.xlsx", b"PK", ".parquet"),
        ("f", b"a", "does not end in"),
        ("f.csv", b"", "0 bytes"),
        ("f.csv", b"id,recieved_at\n1,2\n", "Was it renamed to 'recieved_at'?"),
        ("f.csv", b"id,other\n", "no column 'received_at'"),
        ("f.jsonl", b'{"id": 1}', "no column 'received_at'"),
        ("f.parquet", table(id=[1]), "no column 'received_at'"),
        ("f.csv", csv(header="id,received_at,__day,x"), "'__day' is ours"),
        ("f.csv.gz", gzip.compress(bytes(2 << 20), mtime=0), "max_file_bytes"),
        ("f.csv", csv(*[row("a" * 1000)] * 1100), "max_file_bytes"),
    ],
)
def test_what_cannot_be_read_is_rejected_with_the_remedy(
    site: Site, name: str, content: bytes, told: str
) -> None:
    (file,) = site.take_in(name, content).rejected

    assert told in file.reason
    assert told in (site.inbox / f"rejected/{name}.reason.txt").read_text()


def test_an_earlier_rejected_file_is_never_overwritten(site: Site) -> None:
    contents = [b"one", b"two", b"three", b"two"]
    for content in contents:
        site.take_in("x/f.csv", content)
    site.take_in("f.csv.reason.txt", b"a file of this name")

    aside = list((site.inbox / "rejected").iterdir())
    found = sorted(path.read_bytes() for path in aside)
    assert {b"one", b"two", b"three", b"a file of this name"} <= set(found)
    assert len(aside) == 8, "four contents, each with a reason"


def test_a_file_without_end_does_not_keep_others_from_being_taken(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = inbox.read_file

    def stumble(data: bytes, *arguments: Any, **options: Any) -> Any:
        if b"stumble" in data:
            raise ZeroDivisionError("our own fault")
        return read(data, *arguments, **options)

    monkeypatch.setattr(inbox, "read_file", stumble)
    site.drop("a.csv", csv(row("stumble")))
    site.drop("b.csv", csv(row("b")))

    found = site.take()

    assert paths(found.taken) == ["b.csv"]
    assert "did not foresee: ZeroDivisionError('our own fault')" in found.rejected[0].reason


def test_a_mended_file_put_back_is_taken(site: Site) -> None:
    assert site.take_in("f.csv", csv(row("a"))[:-3]).rejected
    aside = site.inbox / "rejected/f.csv"
    aside.write_bytes(aside.read_bytes() + b",7\n")
    aside.rename(site.inbox / "f.csv")

    assert paths(site.take().taken) == ["f.csv"]
    assert site.rows() == [("a", "7", "2026-01-05")]


# Names


ODD = [
    "..csv",
    "-rf.csv",
    "a\nb.csv",
    "a\rb\x1b[31m.csv",
    "C:\\temp\\x.csv",
    "a:b|c*d?.csv",
    "%2e%2e%2fescape.csv",
    "naïve 東京 🦆.csv",
    "$(touch gone).csv",
    "'; DROP TABLE x; --.csv",
    "x" * 240 + ".csv",
    "rejected.csv",
    "<b>.csv",
]


@pytest.mark.parametrize("content", [csv(row("a")), b"not a table"], ids=["good", "bad"])
@pytest.mark.parametrize("name", ODD)
def test_odd_names_stay_inside_the_folder(site: Site, name: str, content: bytes) -> None:
    outside = set(site.root.rglob("*"))
    site.drop(name, content)

    found = site.take()

    if name.startswith("."):
        assert not any(found)
        return
    (file,) = [*found.taken, *found.rejected]
    assert str(file).isprintable()
    assert site.left() == []
    made = [path for path in site.root.rglob("*") if path not in outside and path.is_file()]
    for path in made:
        relative = path.relative_to(site.root).parts
        assert relative[0] == "lake" or relative[1] in ("archive", "rejected", ".landing.lock")
        assert path.name.isprintable()
    if file.outcome == "taken":
        (origin,) = site.extract().rows[ORIGIN].to_pylist()
        assert origin == f"{file.path}, line 2"


def test_a_name_that_is_no_text_is_rejected(site: Site) -> None:
    (site.inbox / os.fsdecode(b"caf\xe9.csv")).write_bytes(csv(row("a")))

    (file,) = site.take().rejected

    assert "its name is not UTF-8" in file.reason
    assert file.path == "caf\\udce9.csv"
    assert site.left() == []


def test_names_that_look_alike_when_shown_are_different_files(site: Site) -> None:
    site.drop("a\nb.csv", csv(row("a")))
    site.drop("a\\nb.csv", csv(row("b")))

    assert len(site.take().taken) == 2
    assert [key for key, *_ in site.rows()] == ["a", "b"]


def test_what_is_no_file_is_left_alone(site: Site) -> None:
    secret = site.root / "secret.csv"
    secret.write_bytes(csv(row("secret")))
    (site.inbox / "link.csv").symlink_to(secret)
    (site.inbox / "folder").symlink_to(site.root)
    os.mkfifo(site.inbox / "pipe.csv")

    found = site.take()

    assert {each.path: each.reason for each in found.waiting} == {
        "folder": "a symbolic link; put the file itself here",
        "link.csv": "a symbolic link; put the file itself here",
        "pipe.csv": "no regular file",
    }
    assert site.outcomes() == []


@pytest.mark.parametrize("name", ["archive", "rejected", ".taking"])
def test_our_own_folders_must_not_lead_elsewhere(site: Site, name: str) -> None:
    elsewhere = site.root / "elsewhere"
    elsewhere.mkdir()
    (site.inbox / name).symlink_to(elsewhere)
    site.drop("f.csv", csv(row("a")))

    with pytest.raises(LandingError, match="is a symbolic link"):
        site.take()

    assert list(elsewhere.iterdir()) == []


# Killed in the middle


STEPS: dict[str, tuple[Any, str]] = {
    "copied": (Folder, "read"),
    "read": (Folder, "size"),
    "checked": (Folder, "keep"),
    "archived": (inbox, "append_files"),
    "on record": (Folder, "remove"),
}


@pytest.mark.parametrize("mode", ["renamed", "marker"])
@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
def test_whatever_a_killed_process_leaves_is_mended_by_the_next_take(
    site: Site, monkeypatch: pytest.MonkeyPatch, step: str, late: bool, mode: str
) -> None:
    site.complete = mode
    files = {"good.csv": csv(row("a"), row("b")), "same.csv": csv(row("a"), row("b"))}
    files["bad.csv"] = b"no table"
    for name, content in files.items():
        site.drop(name, content)
        if mode == "marker":
            site.drop(f"{name}.done", b"")
    owner, name = STEPS[step]
    original = getattr(owner, name)
    killed = 0

    def kill(*arguments: Any, **options: Any) -> Any:
        nonlocal killed
        killed += 1
        if late:
            original(*arguments, **options)
        raise KeyboardInterrupt

    for _ in range(2):  # and again at the same place
        monkeypatch.setattr(owner, name, kill)
        with suppress(KeyboardInterrupt):
            site.take()
        monkeypatch.undo()
    site.take()

    assert killed
    assert site.left() == []
    assert sorted(site.outcomes()) == [
        ("bad.csv", "rejected"),
        ("good.csv", "taken"),
        ("same.csv", "repeated"),
    ]
    assert [key for key, *_ in site.rows()] == ["a", "b"]
    aside = sorted(path.name for path in (site.inbox / "rejected").iterdir())
    assert aside == ["bad.csv", "bad.csv.reason.txt"]
    assert list((site.inbox / "archive").glob(".under_way/*")) == []


def test_a_correction_that_comes_while_its_file_is_removed_is_not_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site.drop("f.csv", csv(row("a", value="1")))
    append = inbox.append_files

    def deliver_meanwhile(*arguments: Any) -> None:
        append(*arguments)
        path.with_name(".f").write_bytes(csv(row("a", value="2")))
        path.with_name(".f").rename(path)

    monkeypatch.setattr(inbox, "append_files", deliver_meanwhile)
    site.take()
    monkeypatch.undo()

    assert site.left() == ["f.csv"]
    site.take()
    assert site.rows() == [("a", "2", "2026-01-05")]


def test_a_file_that_was_set_aside_when_a_process_was_killed_comes_back(site: Site) -> None:
    aside = site.inbox / ".taking/in/f.csv"
    aside.parent.mkdir(parents=True)
    aside.write_bytes(csv(row("a")))

    assert paths(site.take().taken) == ["in/f.csv"]
    assert site.rows() == [("a", "1", "2026-01-05")]


def test_a_file_that_cannot_be_removed_is_on_record_once(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Folder, entry: places.Entry) -> None:
        raise PermissionError(13, "Permission denied", entry.path)

    site.drop("f.csv", csv(row("a")))
    monkeypatch.setattr(Folder, "remove", refuse)

    first, second = site.take(), site.take()

    assert (len(first.taken), len(second.taken)) == (1, 0)
    for found in (first, second):
        assert "it is on record, but cannot be removed" in found.waiting[0].reason
    assert site.outcomes() == [("f.csv", "taken")]


@pytest.mark.slow
def test_two_processes_at_once_take_each_file_once(site: Site) -> None:
    for place in range(12):
        site.drop(f"{place}.csv", csv(row(str(place))))
    script = """
import sys
from pathlib import Path
from ml_assets_tests.resources.test_landing import Site
print(len(Site(Path(sys.argv[1])).take().taken))
"""
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(site.root)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    taken = [int(run.communicate(timeout=120)[0]) for run in runs]

    assert sum(taken) == 12
    assert len(site.outcomes()) == 12
    assert len(site.rows()) == 12


def test_a_second_taker_waits_and_then_says_so(site: Site) -> None:
    site.drop("f.csv", csv(row("a")))
    with Folder(site.inbox).lock(0), pytest.raises(LandingUnavailable, match="another process"):
        site.take(budget_seconds=0)

    outcome: list[Taken] = []
    with Folder(site.inbox).lock(0):
        waiting = Thread(target=lambda: outcome.append(site.take()))
        waiting.start()
        assert outcome == []
    waiting.join(60)
    assert len(outcome[0].taken) == 1


# Extraction


def test_only_the_days_asked_for_are_read(site: Site) -> None:
    site.take_in("f.csv", csv(row("a"), row("b", "2026-01-06T10:00:00Z")))
    site.take_in("g.csv", csv(row("c", "2026-01-10T10:00:00Z")))
    (archived,) = (site.inbox / "archive").glob("*/g.csv")
    archived.unlink()

    found = site.extract(["2026-01-06"])

    assert found.rows["id"].to_pylist() == ["b"]
    assert found.fingerprints == {"2026-01-06": site.fingerprints()["2026-01-06"]}
    assert found.fingerprints["2026-01-06"].startswith("1 rows in 1 file, ")


def test_of_several_files_the_newest_row_of_a_key_stands(site: Site) -> None:
    hour = "2026-01-05T{:02}:00:00Z".format
    site.take_in("1.csv", csv(row("k", updated=hour(1)), row("same", updated=hour(1))))
    site.take_in(
        "2.csv",
        csv(row("k", updated=hour(3), value="new"), row("same", value="other", updated=hour(1))),
    )
    site.take_in("3.csv", csv(row("k", updated=hour(2)), row("copy"), row("unread", updated="?")))
    site.take_in(
        "4.csv",
        csv(
            row("copy"),
            row("unread", updated=hour(1)),
            row(None),
            row("k", "2026-01-06T10:00:00Z", hour(1)),
        ),
    )
    site.take_in("5.csv", csv(row("own", updated=hour(1)), row("own", updated=hour(2)), row(None)))

    found = site.extract()

    assert found.superseded == {"2026-01-05": 2}
    rows = [each for each in site.rows() if each[0] is not None]
    assert [each for each in rows if each[0] == "k"] == [
        ("k", "1", "2026-01-06"),
        ("k", "new", "2026-01-05"),
    ]
    keys = [key for key, *_ in rows]
    assert {key: keys.count(key) for key in ("same", "copy", "unread", "own")} == {
        "same": 2,
        "copy": 2,
        "unread": 2,
        "own": 2,
    }
    assert found.rows["id"].null_count == 2


def test_a_row_of_the_newest_file_may_itself_be_older_than_another_files(site: Site) -> None:
    hour = "2026-01-05T{:02}:00:00Z".format
    site.take_in("1.csv", csv(row("k", updated=hour(1)), row("k", updated=hour(4), value="top")))
    site.take_in("2.csv", csv(row("k", updated=hour(2), value="mid")))

    assert site.rows() == [("k", "top", "2026-01-05")]
    assert site.extract().superseded == {"2026-01-05": 2}


def test_files_of_different_formats_and_columns_make_one_table(site: Site) -> None:
    site.take_in("a.csv", csv(row("007", value="1")))
    site.take_in(
        "b.parquet",
        table(
            id=["8"],
            received_at=pa.array([datetime(2026, 1, 5, 11, tzinfo=UTC)], pa.timestamp("ms", "UTC")),
            updated_at=[datetime(2026, 1, 5, 11, tzinfo=UTC)],
            value=[2],
            extra=[0.5],
        ),
    )
    found = site.extract().rows

    assert found["id"].to_pylist() == ["007", "8"]
    assert is_json(found["value"].type)
    assert [json.loads(each) for each in found["value"].to_pylist()] == ["1", 2]
    assert found["extra"].to_pylist() == [None, 0.5]
    assert found[ORIGIN].to_pylist() == ["a.csv, line 2", "b.parquet, row 1"]


def test_the_newest_row_is_found_across_formats(site: Site) -> None:
    site.take_in("a.csv", csv(row("k", value="old"), row("l", updated="2026-01-07T00:00:00Z")))
    at = datetime(2026, 1, 6, tzinfo=UTC)
    received = datetime(2026, 1, 5, 11, tzinfo=UTC)
    site.take_in(
        "b.parquet",
        table(id=["k", "l"], received_at=[received] * 2, updated_at=[at] * 2, value=["b", "b"]),
    )

    assert site.rows() == [("k", "b", "2026-01-05"), ("l", "1", "2026-01-05")]


def test_a_file_without_a_required_column_is_named(site: Site) -> None:
    site.take_in("good.csv", csv(row("a")))
    site.take_in("short.csv", csv(row("b"), header="id,received_at,updated_at,valeu"))
    site.take_in("later.csv", csv(row("c", "2026-01-06T10:00:00Z")))
    required = ["id", "value"]

    with pytest.raises(ContractError, match=r"short\.csv, with rows of 2026-01-05, lacks 'value'"):
        site.extract(["2026-01-05"], required=required)

    assert site.extract(["2026-01-06"], required=required).rows.num_rows == 1
    assert site.extract(["2026-01-06"], required=[*required, "none has it"]).rows.num_rows == 1
    assert site.extract(["2026-01-05"]).rows["value"].to_pylist() == ["1", None]


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"a", b"b", 1)), "is damaged"),
    ],
)
def test_an_archive_amiss_is_told_and_mended_by_the_same_file(
    site: Site, spoil: Callable[[Path], object], told: str
) -> None:
    content = csv(row("a"))
    site.take_in("f.csv", content)
    (archived,) = (site.inbox / "archive").glob("*/f.csv")
    spoil(archived)

    with pytest.raises(LandingError, match=f"{told}.*deliver the same file again"):
        site.extract()

    archived.unlink(missing_ok=True)
    assert len(site.take_in("f.csv", content).repeated) == 1
    assert site.rows() == [("a", "1", "2026-01-05")]


def test_another_time_zone_is_told_rather_than_mixing_days(site: Site) -> None:
    site.take_in("f.csv", csv(row("a", "2026-01-05T23:30:00Z")))

    with pytest.raises(LandingError, match="Was the time zone changed"):
        site.landing.extract(
            site.lake,
            TABLE,
            ["2026-01-05"],
            key="id",
            updated_at="updated_at",
            received_at="received_at",
            zone=ZoneInfo("Asia/Tokyo"),
        )


def test_a_limit_that_was_lowered_does_not_hide_what_was_taken(site: Site) -> None:
    site.take_in("f.csv", csv(row("a")))
    site.max_file_bytes = 1

    assert len(site.rows()) == 1


# Other places


@pytest.fixture
def remote(site: Site) -> tuple[Site, Any]:
    """A site whose inbox is in memory, and the file system there."""
    import fsspec

    url = f"memory://landing-{uuid4().hex}"

    class Remote(Site):
        @property
        def landing(self) -> Landing:
            return Landing(url, {}, self.complete, self.settle_seconds, self.max_file_bytes)

        def drop(self, name: str, content: bytes, *, age: float = 0) -> Path:
            fsspec.filesystem("memory").pipe_file(f"{url}/{name}", content)
            return Path(name)

        def left(self) -> list[str]:
            files = fsspec.filesystem("memory").find(url)
            prefix = "/" + url.removeprefix("memory://") + "/"
            found = [each.removeprefix(prefix) for each in files]
            return sorted(
                each for each in found if each.split("/")[0] not in ("archive", "rejected")
            )

    return Remote(site.root), fsspec.filesystem("memory")


def test_an_object_store_does_the_same(remote: tuple[Site, Any]) -> None:
    site, _ = remote
    content = csv(row("a"), row("b"))
    site.drop("in/f.csv", content)
    site.drop("g.csv", content)
    site.drop("bad.csv", b"no table")
    site.drop("x.csv.part", content)

    found = site.take()

    assert (paths(found.taken), paths(found.repeated)) == (["g.csv"], ["in/f.csv"])
    assert paths(found.rejected) == ["bad.csv"]
    assert site.left() == ["x.csv.part"]
    assert [key for key, *_ in site.rows()] == ["a", "b"]
    site.take_in("g.csv", csv(row("a", value="2")))
    assert ("a", "2", "2026-01-05") in site.rows()
    assert len(site.take_in("bad.csv", b"no table either").rejected) == 1


def test_an_object_store_waits_for_settled_objects_and_markers(remote: tuple[Site, Any]) -> None:
    site, _ = remote
    site.complete = "settled"
    site.drop("f.csv", csv(row("a")))
    site.now = datetime.now(UTC)
    assert paths(site.take().waiting) == ["f.csv"]
    site.now += timedelta(seconds=61)
    assert paths(site.take().taken) == ["f.csv"]

    site.complete = "marker"
    site.drop("g.csv", csv(row("b")))
    assert site.take().taken == []
    site.drop("g.csv.done", b"")
    assert paths(site.take().taken) == ["g.csv"]
    assert site.left() == []


@pytest.mark.parametrize("step", ["copy", "keep", "remove"])
def test_an_object_store_is_mended_after_a_kill(
    remote: tuple[Site, Any], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    site, _ = remote
    site.drop("f.csv", csv(row("a")))

    def kill(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(places.Store, step, kill)
    with pytest.raises(KeyboardInterrupt):
        site.take()
    monkeypatch.undo()
    site.take()

    assert (site.left(), site.outcomes()) == ([], [("f.csv", "taken")])
    assert site.rows() == [("a", "1", "2026-01-05")]


def test_an_object_store_out_of_reach_is_a_passing_trouble(
    remote: tuple[Site, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoConnection(Exception):
        pass

    def fail(*arguments: Any, **options: Any) -> None:
        raise NoConnection("no route")

    site, fs = remote
    site.take_in("f.csv", csv(row("a")))
    monkeypatch.setattr(type(fs), "ls", fail)
    monkeypatch.setattr(type(fs), "cat_file", fail)

    for work in (site.take, site.extract):
        with pytest.raises(LandingUnavailable, match="cannot be reached: NoConnection: no route"):
            work()


def test_a_file_url_is_a_folder(site: Site) -> None:
    site.drop("f.csv", csv(row("a")))
    landing = Landing(f"file://{site.inbox}", {}, "renamed", 0, 1 << 20)
    taken = landing.take(
        site.lake,
        TABLE,
        received_at="received_at",
        zone=ZONE,
        first_day=site.first_day,
        today=date(2026, 1, 10),
        now=NOW,
        budget_seconds=9,
    )

    assert paths(taken.taken) == ["f.csv"]
    assert len(site.rows()) == 1


def test_a_place_without_driver_or_rights_is_told_without_secrets(site: Site) -> None:
    unknown = Landing("nowhere://u:hush@host/x", {"secret": "hush"}, "renamed", 0, 1)
    blocked = site.root / "file"
    blocked.write_bytes(b"")
    errors = []
    for landing in (unknown, Landing(str(blocked / "in"), {}, "renamed", 0, 1)):
        with pytest.raises(LandingError) as error:
            landing.take(
                site.lake,
                TABLE,
                received_at="received_at",
                zone=ZONE,
                first_day=site.first_day,
                today=date(2026, 1, 10),
                now=NOW,
                budget_seconds=1,
            )
        errors.append(str(error.value))

    assert "cannot be used" in errors[1]
    assert "hush" not in "".join(errors) + repr(unknown)


def test_no_room_is_a_passing_trouble_and_the_file_stays(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    site.drop("f.csv", csv(row("a")))
    monkeypatch.setattr(places.os, "fsync", full)
    with pytest.raises(LandingUnavailable, match="No space left"):
        site.take()
    monkeypatch.undo()

    assert site.left() == ["f.csv"]
    assert len(site.take().taken) == 1


def test_reasons_hold_nothing_that_a_terminal_obeys(site: Site) -> None:
    names = ["\x1b[31mred", "a\u202eb"]
    site.drop("a.parquet", table(**{name: [1] for name in names}))
    site.drop("b.csv", ",".join([*names, names[0]]).encode())
    site.drop("c.jsonl", json.dumps({names[0]: 1}, ensure_ascii=False).encode())

    found = site.take()

    assert len(found.rejected) == 3
    for path in (site.inbox / "rejected").glob("*.reason.txt"):
        assert path.read_text().replace("\n", " ").isprintable()
    assert all(str(file).isprintable() for file in found.rejected)
