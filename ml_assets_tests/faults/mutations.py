"""Files and tables as bad as they come: strategies that damage valid ones, and values to put in."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
from hypothesis import strategies as st
from pyarrow import parquet

from ml_assets.use_cases.claims.schema import ClaimsRaw
from ml_assets.use_cases.claims.simulator import rows_as_of

COLUMNS = [name for name in ClaimsRaw.to_schema().columns if name != "day"]
DAYS = ("2026-01-05", "2026-01-06")


class Dropped(NamedTuple):
    """A file as some other system drops it."""

    name: str
    content: bytes

    def __repr__(self) -> str:
        """Short: a dozen of them are told of when one fails."""
        return f"{self.name!r}: {len(self.content)} bytes … {self.content[-150:]!r}"


@cache
def valid_rows() -> pa.Table:
    """Rows of two days that keep the contract, in the types of a warehouse."""
    until = datetime(2026, 1, 20, tzinfo=UTC)
    frames = [
        rows_as_of(date.fromisoformat(day), until, daily_volume=60, max_outcome_days=2)
        for day in DAYS
    ]
    rows = pd.concat(frames, ignore_index=True).rename(columns={"income level": "income_level"})
    rows = rows[rows["age"].between(18, 95) & rows["application_id"].notna()]
    rows = rows.drop_duplicates("application_id").reset_index(drop=True)
    for name in ("credit_score_3", "n_dependents"):
        rows[name] = pd.to_numeric(rows[name])
    return pa.Table.from_pandas(rows[COLUMNS], preserve_index=False)


def some_rows(start: int, count: int) -> pa.Table:
    table = valid_rows()
    return table.slice(start % (len(table) - count), count)


# Values that no column of any type should have


_TEXTS = [
    "",
    " ",
    "NULL",
    "null",
    "NaN",
    "inf",
    "-Infinity",
    "1e999",
    "-1e-999",
    "9223372036854775808",
    "-99999999999999999999999999999",
    "0x10",
    "1_000",
    "1,000",
    "١٢",
    "½",
    "１２",
    "+5",
    "5.",
    ".5",
    "5.0000000000000000000000001",
    "--5",
    "1e5",
    "true",
    "0000-00-00",
    "2026-02-30T00:00:00Z",
    "2026-01-05",
    "2026-01-05T10:00:00",
    "2026-01-05 10:00:00+00",
    "2026-01-05T10:00:00.123456789Z",
    "2026-01-05T23:59:60Z",
    "2026-01-05T24:00:00Z",
    "2026-01-05T10:00:00+99:99",
    "9999-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59-14:00",
    "+292277026596-12-04T15:30:08Z",
    "1767607200",
    "now",
    "'; DROP TABLE claims.ds_dataset; --",
    "\\",
    "\\N",
    "=1+1",
    "a\x00b",
    "\x00",
    "\x1a",
    "a\nb",
    "a\r\nb",
    "a\rb",
    '"',
    '""',
    'a"b',
    "a,b",
    "a;b\tc|d",
    "\ufeff",
    "\u2028",
    "\u202e",
    "\ud83d\ude00",
    "ä́\u0301" * 20,
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "%s%n{0}",
    "x" * 5_000,
    "9" * 5_000,
    "\U0010ffff",
]

_JSON = [
    "{}",
    "[]",
    "[1, [2, [3]]]",
    '{"a": {"b": null}}',
    "NaN",
    "Infinity",
    "1e999",
    "123456789012345678901234567890",
    "-0",
    "-0.0",
    "1.0",
    "0.1e-400",
    "true",
    "null",
    '"\\ud800"',
    '"\\u0000"',
    '"\\u202e"',
    "01",
    "1.",
    ".5",
    "'x'",
    '"unterminated',
    "9" * 5_000,
    "[" * 5_000 + "]" * 5_000,
    "2026-01-05",
    '{"$type": "bytes", "$value": "00"}',
    '{"$type": "decimal128(5, 2)", "$value": "x"}',
]

texts = st.sampled_from(_TEXTS) | st.text(max_size=12)


# Names


NAMES = [
    "day.csv",
    "DAY.CSV",
    "a b.csv",
    "sub/day.csv",
    "sub/deeper/day.csv",
    ";rm -rf ~.csv",
    "$(reboot).csv",
    "%2e%2e%2fday.csv",
    "x\\..\\..\\day.csv",
    "C:day.csv",
    "con.csv",
    "-rf.csv",
    "*.csv",
    "[a-z]?.csv",
    "a#b?c=d&e.csv",
    "s3:__day.csv",
    "a\nb.csv",
    "\x1b[31mred.csv",
    "\u202egpj.csv",
    " day .csv",
    "'; DROP TABLE x; --.csv",
    "<script>alert(1)<.csv",
    "{x}%s.csv",
    "x" * 245 + ".csv",
    "漢" * 80 + ".csv",
    "e\u0301.csv",
    "\udcff\udcfe.csv",
    "day",
    "day.xlsx",
    "day.csv.zip",
    "day.csv.reason.txt",
    "day.csv.done.csv",
    "rejected.csv",
    "archive.csv",
]


# CSV


def as_csv(rows: pa.Table, delimiter: str = ",", end: str = "\n") -> bytes:
    found = io.StringIO()
    writer = csv.writer(found, delimiter=delimiter, lineterminator=end)
    writer.writerow(rows.column_names)
    for row in rows.to_pylist():
        writer.writerow(
            [
                "" if value is None else value.isoformat() if isinstance(value, datetime) else value
                for value in row.values()
            ]
        )
    return found.getvalue().encode()


@st.composite
def csv_files(draw: st.DrawFn) -> bytes:
    rows = some_rows(draw(st.integers(0, 60)), draw(st.integers(0, 14)))
    delimiter = draw(st.sampled_from(",,,,,,;;\t|: "))
    end = draw(st.sampled_from(["\n", "\n", "\n", "\r\n", "\r"]))
    cells = list(csv.reader(io.StringIO(as_csv(rows).decode(), newline="")))
    for _ in range(draw(st.integers(0, 3))):
        line = draw(st.integers(0, len(cells) - 1))
        if not cells[line]:
            continue
        place = draw(st.integers(0, len(cells[line]) - 1))
        change = draw(
            st.sampled_from(["value"] * 8 + ["drop", "add", "double", "double", "column", "raw"])
        )
        if change == "value":
            cells[line][place] = draw(texts)
        elif change == "drop":
            del cells[line][place]
        elif change == "add":
            cells[line].insert(place, draw(texts))
        elif change == "double":
            cells.insert(line, list(cells[line]))
        elif change == "column":
            value = draw(texts)
            for each in cells[1:]:
                if place < len(each):
                    each[place] = value
        else:
            cells[line] = [draw(texts)]
    found = io.StringIO()
    quoting = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
    csv.writer(found, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(cells)
    text = found.getvalue()
    encoding = draw(
        st.sampled_from(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
    )
    return text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")


# JSON Lines


def as_json_lines(rows: pa.Table) -> bytes:
    return b"".join(
        json.dumps(row, default=lambda value: value.isoformat()).encode() + b"\n"
        for row in rows.to_pylist()
    )


@st.composite
def json_files(draw: st.DrawFn) -> bytes:
    rows = some_rows(draw(st.integers(0, 60)), draw(st.integers(1, 12)))
    lines = as_json_lines(rows).decode().splitlines()
    for _ in range(draw(st.integers(0, 3))):
        line = draw(st.integers(0, len(lines) - 1))
        change = draw(
            st.sampled_from(["value"] * 6 + ["key", "key", "drop", "twice", "line", "blank"])
        )
        name = draw(st.sampled_from(COLUMNS))
        value = draw(st.sampled_from(_JSON)) if draw(st.booleans()) else json.dumps(draw(texts))
        if change == "value":
            try:
                row = json.loads(lines[line])
            except (ValueError, RecursionError):
                continue
            if not isinstance(row, dict):
                continue
            row[name] = "\0place\0"
            lines[line] = json.dumps(row).replace(json.dumps("\0place\0"), value)
        elif change == "twice":
            lines[line] = f'{{"{name}": {value}, ' + lines[line][1:]
        elif change == "key":
            lines[line] = f"{{{json.dumps(draw(texts))}: {value}, " + lines[line][1:]
        elif change == "line":
            lines[line] = value
        elif change == "blank":
            lines.insert(line, "")
        else:
            del lines[line]
            if not lines:
                break
    return "\n".join(lines).encode("utf-8", "surrogatepass")


# Parquet, and tables of any type


def _arrays(count: int) -> list[Callable[[], pa.Array]]:
    instant = datetime(2026, 1, 5, 12, tzinfo=UTC)
    return [
        lambda: pa.nulls(count),
        lambda: pa.array([2**62] * count, pa.int64()),
        lambda: pa.array([-1] * count, pa.int8()),
        lambda: pa.array([2**64 - 1] * count, pa.uint64()),
        lambda: pa.array([float("inf"), float("nan"), -0.0, 1e308, 5e-324][:count] * 3, None)[
            :count
        ],
        lambda: pa.array([1.5] * count, pa.float32()),
        lambda: pa.array([1.0] * count, pa.float16()),
        lambda: pa.array([True, None] * count, pa.bool_())[:count],
        lambda: pa.array([Decimal("1.50")] * count, pa.decimal128(38, 10)),
        lambda: pa.array([Decimal(10) ** 60] * count, pa.decimal256(76, 0)),
        lambda: pa.array(["x", None, ""] * count, pa.string())[:count],
        lambda: pa.array(["1"] * count, pa.large_string()),
        lambda: pa.array(["A"] * count, pa.string_view()),
        lambda: pa.array([b"A"] * count, pa.binary_view()),
        lambda: pa.array([{"a": "x"}] * count, pa.struct([("a", pa.string_view())])),
        lambda: pa.array([["x"]] * count, pa.list_(pa.string_view())),
        lambda: pa.array([[1]] * count, pa.list_view(pa.int32())),
        lambda: pa.array(["A"] * count).dictionary_encode(),
        lambda: pa.array([b"\xff\x00"] * count, pa.binary()),
        lambda: pa.array([b"ab"] * count, pa.binary(2)),
        lambda: pa.array([[1, 2], None] * count, pa.list_(pa.int32()))[:count],
        lambda: pa.array([{"a": 1}] * count, pa.struct([("a", pa.int64())])),
        lambda: pa.array([[("a", 1)]] * count, pa.map_(pa.string(), pa.int32())),
        lambda: pa.array([date(2026, 1, 5)] * count, pa.date32()),
        lambda: pa.array([-(2**31)] * count, pa.int32()).cast(pa.date32()),
        lambda: pa.array([1] * count, pa.time64("us")),
        lambda: pa.array([timedelta(days=1)] * count, pa.duration("ns")),
        lambda: pa.array([instant] * count, pa.timestamp("us", "UTC")),
        lambda: pa.array([instant] * count, pa.timestamp("ns", "America/New_York")),
        lambda: pa.array([instant.replace(tzinfo=None)] * count, pa.timestamp("ms")),
        lambda: pa.array([2**63 - 1] * count, pa.int64()).cast(pa.timestamp("us", "UTC")),
        lambda: pa.array([-(2**63)] * count, pa.int64()).cast(pa.timestamp("us", "UTC")),
        lambda: pa.array([2**62] * count, pa.int64()).cast(pa.timestamp("s", "UTC")),
        lambda: pa.array(["\U0001f600'; --\n"] * count, pa.string()),
    ]


@st.composite
def tables(draw: st.DrawFn, *, least: int = 1) -> pa.Table:
    """Rows of the contract's columns, some of which are of any type and value."""
    rows = some_rows(draw(st.integers(0, 60)), draw(st.integers(least, 9)))
    for _ in range(draw(st.integers(0, 4))):
        if not rows.num_columns:
            break
        place = draw(st.integers(0, rows.num_columns - 1))
        name = rows.column_names[place]
        change = draw(
            st.sampled_from(["type", "texts"] + ["some"] * 6 + ["drop", "rename", "twin", "twin"])
        )
        if change == "type":
            array = draw(st.sampled_from(_arrays(len(rows))))()
            rows = rows.set_column(place, name, array)
        elif change == "texts":
            values = draw(st.lists(texts, min_size=len(rows), max_size=len(rows)))
            rows = rows.set_column(place, name, pa.array(map(_whole, values), pa.string()))
        elif change == "some" and len(rows):
            at = draw(st.integers(0, len(rows) - 1))
            rows = rows.set_column(
                place, name, _with(rows.column(place), at, draw(texts | st.none()))
            )
        elif change == "drop":
            rows = rows.drop_columns(name) if rows.column_names.count(name) == 1 else rows
        elif change == "rename":
            names = rows.column_names
            names[place] = _whole(draw(texts))
            rows = rows.rename_columns(names)
        elif change == "twin" and len(rows):
            rows = pa.concat_tables([rows, rows.slice(0, 1)])
    return rows


def _with(column: pa.ChunkedArray, at: int, text: str | None) -> pa.ChunkedArray:
    """A column as text, with another value in one place; one that cannot be text stays as it is."""
    try:
        cells = column.cast(pa.string()).to_pylist()
    except pa.ArrowException:
        return column
    cells[at] = None if text is None else _whole(text)
    return pa.chunked_array([cells], pa.string())


def _whole(text: str) -> str:
    """Text that Arrow can hold: half a character is none."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@st.composite
def parquet_files(draw: st.DrawFn) -> bytes:
    rows = draw(tables(least=0))
    written = io.BytesIO()
    compression = draw(st.sampled_from(["snappy", "none", "zstd", "gzip"]))
    try:
        parquet.write_table(rows, written, compression=compression)
    except (pa.ArrowException, OSError):  # a type that Parquet does not have
        written = io.BytesIO()
        parquet.write_table(some_rows(0, 5), written, compression=compression)
    return written.getvalue()


# Any of them, packed and damaged


@st.composite
def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes cut off, flipped, put in or taken out."""
    found = bytearray(content)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, max(len(found) - 1, 0)))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "delete", "zero"]))
        if kind == "cut":
            del found[at:]
        elif kind == "flip" and found:
            found[at] ^= draw(st.integers(1, 255))
        elif kind == "insert":
            found[at:at] = draw(
                st.sampled_from(
                    [b'"', b"\n", b"\r", b",", b"\x00", b"\xff", b"\\", b"\xef\xbb\xbf"]
                )
                | st.binary(min_size=1, max_size=6)
            )
        elif kind == "delete":
            del found[at : at + draw(st.integers(1, 40))]
        elif kind == "zero" and found:
            found[at : at + 8] = bytes(min(8, len(found) - at))
    return bytes(found)


_ENDINGS = {".csv": csv_files, ".jsonl": json_files, ".parquet": parquet_files}


@st.composite
def dropped_files(draw: st.DrawFn) -> Dropped:
    """A file of some format under some name; whole, or damaged."""
    ending = draw(st.sampled_from([".csv", ".csv", ".csv", ".jsonl", ".jsonl", ".parquet"]))
    content = draw(_ENDINGS[ending]())
    if draw(st.integers(0, 2)) == 0:
        content = draw(_damaged(content))
    name = f"day{ending}"
    if ending != ".parquet" and draw(st.integers(0, 4)) == 0:
        content, name = gzip.compress(content, 1, mtime=0), f"{name}.gz"
        if draw(st.booleans()):
            content = draw(_damaged(content))
        if draw(st.integers(0, 9)) == 0:
            content += gzip.compress(b"more\n", mtime=0)
    if draw(st.integers(0, 9)) == 0:
        # Content of one format under the name of another, or a name that plays tricks.
        name = draw(st.sampled_from([*NAMES, "day.parquet", "day.csv.gz", "day.ndjson"]))
    return Dropped(name, content)
