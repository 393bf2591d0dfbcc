"""Bad input: whatever is delivered ends accepted, in quarantine, or rejected with a clear word.

`CASES=10000` asks for the full round, whose seed is printed; without it, a short and always equal
one is run. A case is a file in the landing folder, or a table for the contract. `CASES_REPORT` asks
for a file with the seed and how the cases ended, since workers of xdist print nothing.
"""

import csv
import faulthandler
import gzip
import hashlib
import io
import json
import os
import random
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ml_assets.core.contract import ContractError, Judged, judge
from ml_assets.core.raw_rows import ORIGIN
from ml_assets.resources.csv_text import FileError
from ml_assets.resources.files import file_format, read_file
from ml_assets.resources.lake import Lake
from ml_assets.resources.landing import File, Landing, Taken
from ml_assets.use_cases.claims.schema import ClaimsRaw
from ml_assets_tests.conftest import Platform, small_environment
from ml_assets_tests.faults.mutations import (
    DAYS,
    NAMES,
    Dropped,
    as_csv,
    as_json_lines,
    dropped_files,
    some_rows,
    tables,
    valid_rows,
)
from ml_assets_tests.test_sensors import Ticks

pytestmark = [pytest.mark.faults, pytest.mark.slow]

SHORT = 600
CASES = int(os.environ.get("CASES", SHORT))
FULL = CASES > SHORT
SEED = int(os.environ.get("SEED", random.SystemRandom().randrange(2**32)))
if not FULL:
    SEED = 20261124
BATCH = 12  # files dropped at once
OF_FILES = 0.7  # the rest are tables for the contract

ZONE = ZoneInfo("Europe/London")
NOW = datetime(2026, 1, 20, 12, tzinfo=UTC)
TODAY = "2026-01-20"
SCHEMA = ClaimsRaw.to_schema()
NAMED = {"key": "application_id", "received_at": "received_at", "updated_at": "updated_at"}
MOST_BYTES = 1_000_000
PATIENCE_S = 120  # a batch takes a second; beyond this it hangs, and the process ends with a trace

round_of = settings(
    deadline=None,
    database=None,
    derandomize=not FULL,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    report_multiple_bugs=False,
)
ends: Counter[str] = Counter()


@pytest.fixture(scope="module", autouse=True)
def told(request: pytest.FixtureRequest) -> Iterator[None]:
    """The seed, and how the cases ended: for the record, and to run the same round again."""
    yield
    summary = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        print(f"\nbad input, seed {SEED}: {summary}")
    if place := os.environ.get("CASES_REPORT"):
        Path(place).write_text(f"bad input, {CASES} cases, seed {SEED}: {summary}\n")


def within_time(work: Callable[[], Any]) -> Any:
    """Do some work; a hang ends the whole process, with a trace of where it hangs."""
    faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
    try:
        return work()
    finally:
        faulthandler.cancel_dump_traceback_later()


# Judging


def require_account(judged: Judged, rows: int, days: list[str]) -> None:
    """Every row is kept, in quarantine or dropped, on each day and in the tables."""
    account = judged.extraction
    assert account["day"].tolist() == days
    kept, aside, dropped = (
        account[name] for name in ("rows_kept", "rows_quarantined", "duplicates_dropped")
    )
    assert (account["rows_read"] == kept + aside + dropped).all()
    assert account["rows_read"].sum() == rows
    for frame, counts in ((judged.good, kept), (judged.quarantine, aside)):
        found = frame["day"].value_counts()
        assert [int(found.get(day, 0)) for day in days] == counts.tolist()
    assert (judged.quarantine["reason"] != "").all()
    for text in judged.quarantine["row"]:
        assert isinstance(json.loads(text), dict)
    # Its ranges are asked of Pandera within `judge`; to ask again would take half the time.
    types = {name: str(column.dtype) for name, column in SCHEMA.columns.items()}
    assert judged.good.dtypes.astype(str).replace("object", "str").to_dict() == types
    assert judged.good["age"].between(18, 95).all()
    assert judged.good["marital_status"].isin([*"ABCDEF"]).all()


def judged_or_refused(rows: pa.Table, days: list[str]) -> Judged | None:
    try:
        judged = judge(rows, SCHEMA, days=days, zone=ZONE, **NAMED)
    except ContractError as error:
        told = str(error)
    else:
        require_account(judged, len(rows), days)
        return judged
    assert 10 < len(told) < 100_000
    return None


@seed(SEED)
@settings(round_of, max_examples=ceil(CASES * (1 - OF_FILES)))
@given(rows=tables())
def test_any_rows_are_judged_or_refused_as_a_whole(rows: pa.Table) -> None:
    judged = within_time(lambda: judged_or_refused(rows, [*DAYS]))

    ends["tables refused by the contract" if judged is None else "tables judged"] += 1


# Files


def landing_at(folder: Path, **settings: Any) -> tuple[Landing, Lake]:
    defaults = {"complete": "renamed", "settle_seconds": 0, "max_file_bytes": MOST_BYTES}
    landing = Landing(str(folder / "landing"), {}, **{**defaults, **settings})
    (folder / "landing").mkdir()
    return landing, Lake(str(folder / "lake"), {}, 3)


def take(landing: Landing, lake: Lake) -> Taken:
    return landing.take(
        lake,
        "claims/landing",
        received_at="received_at",
        zone=ZONE,
        first_day=date(2026, 1, 1),
        today=date.fromisoformat(TODAY),
        now=NOW,
        budget_seconds=3_600,
    )


def drop(folder: Path, files: list[Dropped]) -> dict[str, bytes]:
    """Put files into the inbox, each in a folder of its own, so that no two have one path."""
    contents = {}
    for place, file in enumerate(files):
        path = folder / "landing" / f"in{place:02}" / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        contents[f"in{place:02}"] = file.content
    return contents


def rows_within(content: bytes, kind: str) -> int:
    """The rows of a file, counted by other means than ours."""
    if kind.endswith(".gz"):
        content = gzip.decompress(content)
    if kind == ".parquet":
        return int(parquet.read_metadata(io.BytesIO(content)).num_rows)
    text = content.decode("utf-8-sig")
    if not kind.startswith(".csv"):
        return len(text.rstrip().split("\n"))
    return len(cells_of(text)) - 1


def cells_of(text: str) -> list[list[str]]:
    """A CSV file by Python's own reader, with the delimiter that its header has."""
    header = text.split("\n")[0]
    delimiter = max(",;\t|", key=lambda each: header.count(each))
    csv.field_size_limit(2**31)
    cells = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    while cells and not cells[-1]:
        cells.pop()
    return cells


def require_values(content: bytes, kind: str) -> None:
    """What was accepted as CSV says the same to Python's own reader, cell by cell."""
    lines = read_file(content, kind, max_bytes=MOST_BYTES)
    unpacked = gzip.decompress(content) if kind.endswith(".gz") else content
    header, *expected = cells_of(unpacked.decode("utf-8-sig"))
    assert lines.table.column_names == header
    found = [["" if cell is None else cell for cell in row.values()] for row in _rows(lines.table)]
    assert found == expected


def _rows(table: pa.Table) -> list[dict[str, str | None]]:
    rows: list[dict[str, str | None]] = table.to_pylist()
    return rows


def require_rejected(folder: Path, file: File, content: bytes) -> None:
    """It lies aside as it came, and the reason beside it names the file and says what to do."""
    assert "did not foresee" not in file.reason, file.reason
    assert len(file.reason) < 20_000
    rejected = folder / "landing" / "rejected"
    reasons = [
        Path(f"{path}.reason.txt").read_text()
        for path in rejected.iterdir()
        if path.read_bytes() == content
    ]
    assert reasons, "a rejected file is nowhere"
    # The same content under the same name lies there once, with the reason of the last.
    name = file.path.rsplit("/", 1)[-1]
    (reason,) = (text for text in reasons if text.partition("\n")[0].rsplit("/", 1)[-1] == name)
    assert file.reason in reason
    assert "\x1b" not in reason


def require_nothing_lost(folder: Path, files: list[Dropped]) -> None:
    landing, lake = landing_at(folder)
    contents = drop(folder, files)

    taken = take(landing, lake)

    assert not taken.waiting, taken.waiting
    lines = [*taken.taken, *taken.rejected, *taken.repeated]
    kinds: dict[str, str] = {}
    assert sorted(line.path.split("/")[0] for line in lines) == sorted(contents)
    for line in lines:
        content = contents[line.path.split("/")[0]]
        assert line.sha256 == hashlib.sha256(content).hexdigest()
        ends[f"files {line.outcome}"] += 1
        if line.outcome == "rejected":
            require_rejected(folder, line, content)
            continue
        # The same bytes are the same file, under whatever name they come again.
        kind = kinds.setdefault(line.sha256, str(file_format(line.path)))
        assert line.rows == rows_within(content, kind) == sum(line.days.values())
        if kind.startswith(".csv") and line.rows:
            require_values(content, kind)
    again = take(landing, lake)
    assert not any(again), "a second look finds nothing"
    require_rows_read(landing, lake, taken)


def require_rows_read(landing: Landing, lake: Lake, taken: Taken) -> None:
    """What the ledger counts is what an extraction reads, and what the contract accounts for."""
    counted = sum((Counter(line.days) for line in taken.taken), Counter())
    days = sorted(counted) or [TODAY]
    fingerprints = landing.fingerprints(lake, "claims/landing")
    assert sorted(fingerprints) == sorted(counted)
    found = landing.extract(lake, "claims/landing", days, zone=ZONE, **NAMED)
    assert found.fingerprints == fingerprints
    assert len(found.rows) + sum(found.superseded.values()) == sum(counted.values())
    judged = judged_or_refused(found.rows, days)
    ends["days refused by the contract" if judged is None else "days judged"] += 1
    # A file alone, too: among others its own faults may not be the ones that count.
    for line in taken.taken:
        prefix = f"{line.path}, "
        own = [str(origin).startswith(prefix) for origin in found.rows[ORIGIN].to_pylist()]
        if any(own):
            judged_or_refused(found.rows.filter(pa.array(own)), days)


@seed(SEED)
@settings(round_of, max_examples=ceil(CASES * OF_FILES / BATCH))
@given(files=st.lists(dropped_files(), min_size=BATCH, max_size=BATCH))
def test_any_files_are_accepted_or_rejected_and_no_row_is_lost(files: list[Dropped]) -> None:
    with TemporaryDirectory() as folder:
        within_time(lambda: require_nothing_lost(Path(folder), files))


@pytest.mark.parametrize("content", [as_csv(valid_rows()), b"no table at all"], ids=["good", "bad"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, content: bytes) -> None:
    landing, lake = landing_at(tmp_path)
    before = sorted(tmp_path.iterdir())
    # A content of its own for each, or they would be the same file twice.
    drop(tmp_path, [Dropped(name, content + b"\n" * at) for at, name in enumerate(NAMES, 1)])

    taken = take(landing, lake)

    assert len(taken.taken) + len(taken.rejected) + len(taken.repeated) == len(NAMES)
    assert set(tmp_path.iterdir()) - set(before) <= {tmp_path / "lake"}
    inside = {path.name for path in (tmp_path / "landing").iterdir() if path.is_dir()}
    assert {each for each in inside if not each.startswith((".", "in"))} <= {"archive", "rejected"}
    for line in [*taken.taken, *taken.rejected]:
        assert str(line).isprintable(), "it goes to the log"
    for path in (tmp_path / "landing" / "rejected").glob("*"):
        assert path.name.isprintable()
        assert not path.name.startswith((".", "-"))


def test_links_pipes_and_folders_are_left_alone(tmp_path: Path) -> None:
    landing, lake = landing_at(tmp_path)
    inbox = tmp_path / "landing"
    secret = tmp_path / "secret.csv"
    secret.write_bytes(as_csv(some_rows(0, 3)))
    (inbox / "link.csv").symlink_to(secret)
    (inbox / "endless.csv").symlink_to("/dev/zero")
    (inbox / "dangling.csv").symlink_to(tmp_path / "nowhere")
    (inbox / "loop.csv").symlink_to(inbox / "loop.csv")
    (inbox / "up").symlink_to(tmp_path)
    (inbox / "folder.csv").mkdir()
    os.mkfifo(inbox / "pipe.csv")
    (inbox / "good.csv").write_bytes(as_csv(some_rows(0, 5)))

    taken = within_time(lambda: take(landing, lake))

    assert [line.path for line in taken.taken] == ["good.csv"]
    assert taken.rejected == []
    assert {each.path for each in taken.waiting} >= {
        "link.csv",
        "endless.csv",
        "dangling.csv",
        "loop.csv",
        "pipe.csv",
    }
    assert secret.exists()


# What would fill the memory


def _parquet_bomb() -> bytes:
    """A value that repeats 200 million times takes a few bytes."""
    rows = pa.table(
        {
            "received_at": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(5_000_000, np.int8)), pa.array(["2026-01-05T10:00:00Z"])
            )
        }
    )
    written = io.BytesIO()
    parquet.write_table(rows, written, compression="gzip")
    return written.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "zeros.csv.gz": lambda: gzip.compress(b"\0" * 300_000_000, 9),
    "members.csv.gz": lambda: gzip.compress(b"a,b\n" * 1_000_000, 9) * 50,
    "lines.jsonl.gz": lambda: gzip.compress(b'{"received_at": "x"}\n' * 10_000_000, 9),
    "nested.jsonl": lambda: b"[" * 900_000,
    "deep.jsonl": lambda: b'{"a":' * 150_000 + b"1" + b"}" * 150_000,
    "number.jsonl": lambda: b'{"received_at": ' + b"9" * 900_000 + b"}",
    "repeats.parquet": _parquet_bomb,
    "columns.csv": lambda: b",".join(b"c%d" % at for at in range(120_000)) + b"\n",
    "same.csv": lambda: b"a," * 450_000 + b"a\n",
    "keys.jsonl": lambda: json.dumps({f"k{at}": 1 for at in range(60_000)}).encode(),
    "twice.jsonl": lambda: b"{" + b'"a":1,' * 120_000 + b'"a":1}',
    "field.csv": lambda: b"received_at\n" + b"x" * 990_000,
    "quotes.csv": lambda: b'received_at\n"' + b'""' * 480_000,
    "unclosed.csv": lambda: b"received_at\n" + b'"a\n' * 320_000,
    "returns.csv": lambda: b"received_at" + b"\r" * 950_000,
    "blank.csv": lambda: b"received_at\n" + b"\n" * 950_000,
    "commas.csv": lambda: b"received_at\n" + b"," * 950_000,
}


# One long value, or a header and nothing but ends of lines: odd, and within the limit.
HARMLESS = ("field.csv", "returns.csv", "blank.csv")


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_fill_the_memory_is_refused_in_little(tmp_path: Path, name: str) -> None:
    landing, lake = landing_at(tmp_path)
    content = BOMBS[name]()
    drop(tmp_path, [Dropped(name, content), Dropped("good.csv", as_csv(some_rows(0, 5)))])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    taken = within_time(lambda: take(landing, lake))

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000, "kilobytes"
    assert "in01/good.csv" in {line.path for line in taken.taken}
    if name in HARMLESS:
        assert [line.path for line in taken.taken] == [f"in00/{name}", "in01/good.csv"]
        return
    assert [line.path for line in taken.rejected] == [f"in00/{name}"]
    require_rejected(tmp_path, taken.rejected[0], content)


def test_a_file_up_to_the_limit_is_taken_and_one_byte_more_is_not(tmp_path: Path) -> None:
    content = as_csv(some_rows(0, 9))
    for limit, outcome in ((len(content), "taken"), (len(content) - 1, "rejected")):
        for ending in (".csv", ".csv.gz"):
            folder = tmp_path / f"{limit}{ending}"
            folder.mkdir()
            landing, lake = landing_at(folder, max_file_bytes=limit)
            packed = gzip.compress(content) if ending == ".csv.gz" else content
            drop(folder, [Dropped(f"day{ending}", packed)])
            taken = take(landing, lake)
            (line,) = [*taken.taken, *taken.rejected]
            assert line.outcome == outcome
            assert outcome == "taken" or "landing.max_file_bytes" in line.reason


def test_many_columns_that_the_contract_does_not_know_are_judged(tmp_path: Path) -> None:
    rows = some_rows(0, 5)
    extra = {f"extra {at}": pa.array(["x"] * 5) for at in range(1_900)}
    wide = pa.table({**{name: rows[name] for name in rows.column_names}, **extra})

    judged = within_time(lambda: judged_or_refused(wide, [*DAYS]))
    refused = within_time(lambda: judged_or_refused(wide.drop_columns("age"), [*DAYS]))

    assert judged is not None
    assert len(judged.good) == 5
    assert refused is None


VIEWS = (pa.string_view(), pa.list_(pa.string_view()), pa.struct([("a", pa.string_view())]))


@pytest.mark.parametrize("kind", VIEWS, ids=str)
def test_a_column_of_views_fails_no_day(tmp_path: Path, kind: pa.DataType) -> None:
    values = {0: "x", 1: ["x"], 2: {"a": "x"}}[VIEWS.index(kind)]
    rows = valid_rows()
    rows = rows.append_column("new", pa.array([values] * len(rows), kind))
    rows = rows.set_column(0, "application_id", rows["application_id"].cast(pa.string_view()))
    ages = pa.array([7, *rows["age"].to_pylist()[1:]])
    rows = rows.set_column(rows.column_names.index("age"), "age", ages)
    written = io.BytesIO()
    parquet.write_table(rows, written)
    landing, lake = landing_at(tmp_path)
    drop(tmp_path, [Dropped("views.parquet", written.getvalue())])

    (file,) = take(landing, lake).taken

    for day in DAYS:
        found = landing.extract(lake, "claims/landing", [day], zone=ZONE, **NAMED)
        assert len(found.rows) == file.days[day]
        assert judged_or_refused(found.rows, [day]) is not None
    judged = judged_or_refused(rows, [*DAYS])
    assert judged is not None
    assert len(judged.quarantine) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'received_at,a\n2026-01-05T10:00:00Z,"x\n', r"line 2\b"),
        (b"received_at,a\n2026-01-05T10:00:00Z,1\n2026-01-05T10:00:00Z\n", r"line 3\b.*"),
        (b"received_at,a\n2026-01-05T10:00:00Z,\xff\n", r"line 2\b.*(0xff|UTF-8)"),
        (b"received_at,a\n2026-01-05T10:00:00Z,a\x00b\n", r"line 2\b.*NUL"),
        (b"received_at,a,a\n2026-01-05T10:00:00Z,1,2\n", r"line 1\b.*columns 2 and 3"),
        (b"received_at,a\n\n2026-01-05T10:00:00Z,1\n", r"line 2\b.*blank"),
    ],
    ids=["quote", "fields", "encoding", "NUL", "header", "blank"],
)
def test_a_reason_tells_the_line_and_what_is_there(content: bytes, told: str) -> None:
    with pytest.raises(FileError, match=f"(?s){told}"):
        read_file(content, ".csv", max_bytes=MOST_BYTES)


# The sensor


def test_the_sensor_lives_on_among_garbage_and_asks_for_the_good_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = small_environment(tmp_path)
    landing = environment.landing.model_copy(
        update={"complete": "renamed", "settle_seconds": 0, "max_file_bytes": MOST_BYTES}
    )
    environment = environment.model_copy(update={"source": "landing", "landing": landing})
    platform = Platform(environment, dg.DagsterInstance.ephemeral())
    ticks = Ticks(platform, monkeypatch)
    noise = random.Random(20261124)
    garbage = [
        Dropped(f"garbage {at}{ending}", noise.randbytes(noise.randint(0, 5_000)))
        for at, ending in enumerate([".csv", ".csv.gz", ".jsonl", ".parquet", ".xlsx"] * 10)
    ]
    (tmp_path / "landing").mkdir(exist_ok=True)
    drop(tmp_path, garbage)
    good = valid_rows()
    (tmp_path / "landing" / "good.csv").write_bytes(as_csv(good))

    requests = within_time(ticks.tick)

    asked = [
        (
            request.partition_key or request.tags["dagster/asset_partition_range_start"],
            request.partition_key or request.tags["dagster/asset_partition_range_end"],
        )
        for request in requests
    ]
    assert sorted(day for span in asked for day in set(span)) == sorted(DAYS)
    rejected = [
        path
        for path in (tmp_path / "landing" / "rejected").iterdir()
        if not path.name.endswith(".reason.txt")
    ]
    assert len(rejected) == 50
    platform.run("ingestion", DAYS[0], DAYS[-1])
    account = platform.table("extraction", DAYS[0], DAYS[-1])
    assert account["rows_read"].sum() == len(good)
    assert account["rows_kept"].sum() == len(good)
    assert ticks.tick() == []
    # The next good file, and garbage beside it: nothing stands in the way.
    (tmp_path / "landing" / "more.jsonl").write_bytes(
        as_json_lines(good.slice(0, 3)).replace(b'"A-', b'"B-')
    )
    (tmp_path / "landing" / "bad.parquet").write_bytes(b"PAR1 no more")
    assert [request.partition_key for request in ticks.tick()] == [DAYS[0]]
