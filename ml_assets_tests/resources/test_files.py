"""Files of rows: what is read exactly, and what is refused with its place and the remedy."""

import gzip
import io
import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ml_assets.core.raw_rows import is_json
from ml_assets.resources.csv_text import FileError, Lines
from ml_assets.resources.files import FORMATS, combine, file_format, read_file

MEGABYTE = 1 << 20


def read(data: bytes, kind: str = ".csv", **limits: Any) -> Lines:
    return read_file(data, kind, **{"max_bytes": MEGABYTE, **limits})


def refused(data: bytes, kind: str = ".csv", **limits: Any) -> str:
    with pytest.raises(FileError) as error:
        read(data, kind, **limits)
    return str(error.value)


def packed_table(table: pa.Table, **options: Any) -> bytes:
    target = io.BytesIO()
    parquet.write_table(table, target, **options)
    return target.getvalue()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a/b.CSV", ".csv"),
        ("b.csv.GZ", ".csv.gz"),
        ("b.parquet", ".parquet"),
        ("b.ndjson", ".ndjson"),
        ("b.jsonl.gz", ".jsonl.gz"),
        ("b.gz", None),
        ("csv", None),
        ("b.csv.zip", None),
    ],
)
def test_the_name_tells_the_format(path: str, kind: str | None) -> None:
    assert file_format(path) == kind
    assert kind is None or kind in FORMATS


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_csv_is_text_whatever_delimiter_line_ending_and_mark(
    delimiter: str, ending: str, mark: str
) -> None:
    lines = [["id", "code", "note"], ["007", "", "1.50"], ["8", "x", " y "]]
    text = mark + ending.join(delimiter.join(line) for line in lines) + ending * 3

    found = read(text.encode())

    assert found.table.to_pylist() == [
        {"id": "007", "code": None, "note": "1.50"},
        {"id": "8", "code": "x", "note": " y "},
    ]
    assert found.lines.tolist() == [2, 3]


def test_rows_keep_their_physical_lines_after_quoted_line_breaks() -> None:
    data = b'a,"b\nc"\r\n1,"x\r\ny ""z"", w"\r\n"",v\r\n3,"p\nq\nr"\n4,s'

    found = read(data)

    assert found.names == ["a", "b\nc"]
    assert found.table.column("b\nc").to_pylist() == ['x\r\ny "z", w', "v", "p\nq\nr", "s"]
    assert found.table.column("a").to_pylist() == ["1", None, "3", "4"]
    assert found.lines.tolist() == [3, 5, 6, 9]
    assert read(data, known=True).lines.tolist() == found.lines.tolist()
    assert read(data, known=True).table.equals(found.table)


@pytest.mark.parametrize("data", [b"a,b\n", b"a,b", b"a,b\r\n\r\n"])
def test_a_header_alone_is_a_table_without_rows(data: bytes) -> None:
    found = read(data)

    assert (found.table.num_rows, found.names, len(found.lines)) == (0, ["a", "b"], 0)


def test_only_the_columns_asked_for_are_handed_over_and_all_are_checked() -> None:
    assert read(b"a,b\n1,2\n", columns=["b", "none"]).table.to_pylist() == [{"b": "2"}]
    assert "line 3: 1 fields" in refused(b"a,b\n1,2\n3\n", columns=["a"])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", ["the file is empty (0 bytes)", "header line alone"]),
        (b"\n\n", ["no header line"]),
        (b" \n1\n", ["line 1", "blank"]),
        (b"a,b\n1,2\n3,\xff\n", ["line 3", "0xff", "not UTF-8", "Latin-1"]),
        (b"\xff\xfea\0,\0b\0", ["UTF-16", "UTF-8"]),
        (b"a,b\n1,x\0y\n", ["line 2", "NUL byte after '1,x'"]),
        (b"a,b\n1,2\n3\n", ["line 3", "1 fields where the header has 2", "'a' = '3'"]),
        (b"a,b\n1,2,3\n", ["line 2", "3 fields where the header has 2"]),
        (b'a,b\n"x\ny",2\n3\n', ["line 4", "1 fields"]),
        (b"a,b,a\n1,2,3\n", ["line 1", "columns 1 and 3 are both named 'a'"]),
        (b"a,\n1,2\n", ["line 1", "column 2 has no name"]),
        (b"a,__day\n1,2\n", ["line 1", "'__day' is ours"]),
        (b'a,b\n1,"2\n3,4\n', ["line 2", "column 'b'", "never closed"]),
        (b'a,b\n1,"2"x\n', ["line 2", "column 'b'", "text follows a closing quote"]),
        (b'a,b\n1,5" x\n', ["line 2", "column 'b'", "inside an unquoted value"]),
        (b'"a,b\n1,2\n', ["line 1", "quotes in the header"]),
        (b"a,b\n1,2\n\n3,4\n", ["line 3", "blank"]),
    ],
)
def test_csv_amiss_is_refused_with_its_place(data: bytes, told: list[str]) -> None:
    message = refused(data)

    for part in told:
        assert part in message


_VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.lists(_VALUES, min_size=2, max_size=2), max_size=8),
    ending=st.sampled_from(["\n", "\r\n"]),
    delimiter=st.sampled_from([",", ";"]),
)
def test_any_quoted_text_comes_back_as_it_was(
    rows: list[list[str]], ending: str, delimiter: str
) -> None:
    quoted = [delimiter.join('"' + each.replace('"', '""') + '"' for each in row) for row in rows]

    found = read((ending.join([f"a{delimiter}b", *quoted]) + ending).encode())

    expected = [{"a": a or None, "b": b or None} for a, b in rows]
    assert found.table.to_pylist() == expected


@pytest.mark.parametrize("kind", [".csv", ".jsonl"])
def test_gzip_of_several_members_is_one_file(kind: str) -> None:
    parts = {".csv": [b"a\n", b"1\n"], ".jsonl": [b'{"a":', b' "1"}\n']}[kind]

    found = read(b"".join(map(gzip.compress, parts)), f"{kind}.gz")

    assert found.table.to_pylist() == [{"a": "1"}]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (gzip.compress(b"a,b\n1,2\n", mtime=0)[:-9], "cut off"),
        (b"no gzip", "damaged"),
        (gzip.compress(b"a\n", mtime=0) + b"garbage", "damaged"),
        (gzip.compress(b"a\n" + b"1\n" * MEGABYTE, mtime=0), "landing.max_file_bytes"),
    ],
)
def test_gzip_amiss_is_refused(data: bytes, told: str) -> None:
    assert told in refused(data, ".csv.gz")


def test_a_gzip_bomb_is_refused_below_the_limit_also() -> None:
    bomb = gzip.compress(bytes(80 * MEGABYTE), mtime=0)

    assert "more than 500 times" in refused(bomb, ".csv.gz", max_bytes=2**40)


def test_a_file_at_the_limit_is_read_and_one_byte_more_is_not() -> None:
    data = b"a\n" + b"1\n" * 10

    assert read(data, max_bytes=len(data)).table.num_rows == 10
    assert "at most 21" in refused(data, max_bytes=len(data) - 1)
    assert "at most 21" in refused(gzip.compress(data, mtime=0), ".csv.gz", max_bytes=len(data) - 1)


def test_json_lines_keep_types_and_columns_that_begin_late() -> None:
    rows = [{"a": 1, "t": "x"}, {"a": None, "b": True}, {"a": 3, "t": "ü\n"}]
    data = "".join(json.dumps(row) + "\r\n" for row in rows).encode()

    found = read(b"\xef\xbb\xbf" + data, ".jsonl")

    assert found.table.schema.types == [pa.int64(), pa.string(), pa.bool_()]
    assert found.table.to_pylist() == [{"a": None, "t": None, "b": None, **row} for row in rows]
    assert found.lines.tolist() == [1, 2, 3]


def test_json_values_of_several_types_stay_what_they_were() -> None:
    rows: list[dict[str, Any]] = [{"a": 1}, {"a": "1"}, {"a": None}, {"a": [1]}, {"a": 2**70}]

    column = read("\n".join(map(json.dumps, rows)).encode(), ".jsonl").table.column("a")

    assert is_json(column.type)
    texts = column.cast(pa.string()).to_pylist()
    assert [None if each is None else json.loads(each) for each in texts] == [
        row["a"] for row in rows
    ]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", ["0 bytes"]),
        (b" \n", ["no lines"]),
        (b'{"a":1}\n{"a":', ["line 2", "at character", "cut off"]),
        (b'{"a":1}\n\n{"a":2}\n', ["line 2", "blank"]),
        (b'{"a":1,"a":2}\n', ["line 1", "'a' is there twice"]),
        (b'{"a":NaN}\n', ["line 1", "NaN is no JSON"]),
        (b"[1]\n", ["line 1", "no JSON object"]),
        (b'{"a":1}\n{"a":"\xff"}\n', ["line 2", "0xff", "UTF-8"]),
        (b'{"a":1}\n{"a":"\\ud800"}\n', ["line 2", "unpaired surrogate", "'a'"]),
        (b'{"a":1, "\\uDFFF": 2}\n', ["line 1", "unpaired surrogate"]),
        (b'{"a":1}\n{"a":[{"b":"\\ud800"}]}\n', ["line 2", "unpaired surrogate"]),
        (b'{"__origin":1}\n', ["'__origin' is ours"]),
        (b'{"a":' + b"[" * 100_000 + b"\n", ["line 1", "cannot be read"]),
    ],
)
def test_json_lines_amiss_are_refused_with_their_place(data: bytes, told: list[str]) -> None:
    message = refused(data, ".jsonl")

    for part in told:
        assert part in message


def test_parquet_keeps_types_and_is_counted_in_rows() -> None:
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int8()),
            "at": pa.array([0, 1], pa.timestamp("ms", "Europe/London")),
            "t": pa.array(["x", "x"]).dictionary_encode(),
        }
    )

    found = read(packed_table(table), ".parquet")

    assert found.table.schema.types[:2] == table.schema.types[:2]
    assert found.table.schema.field("t").type == pa.string()
    assert found.table.to_pylist() == table.to_pylist()
    assert found.lines.tolist() == [1, 2]
    assert read(packed_table(table.slice(0, 0)), ".parquet").table.num_rows == 0


def test_parquet_amiss_is_refused() -> None:
    whole = packed_table(pa.table({"a": ["x" * 50] * 100}))
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])

    assert "not a sound Parquet file" in refused(b"PAR1 no file", ".parquet")
    assert "not a sound Parquet file" in refused(whole[:-20], ".parquet")
    assert "both named 'a'" in refused(packed_table(twice), ".parquet")


def test_a_parquet_bomb_is_refused_by_what_it_would_grow_to() -> None:
    long = packed_table(pa.table({"a": ["x" * 10_000] * 1000}), compression="zstd")
    many = packed_table(pa.table({"a": pa.array([0] * MEGABYTE, pa.int64())}))

    assert len(long) < 100_000
    assert "landing.max_file_bytes" in refused(long, ".parquet")
    assert "landing.max_file_bytes" in refused(many, ".parquet")


def test_tables_of_different_columns_and_types_go_below_one_another() -> None:
    found = combine(
        [
            pa.table({"a": pa.array([1], pa.int8()), "b": ["x"]}),
            pa.table({"a": pa.array([2], pa.int64()), "c": [0.5], "b": [7]}),
        ]
    )

    assert found.column("a").to_pylist() == [1, 2]
    assert found.column("a").type == pa.int64()
    assert found.column("c").to_pylist() == [None, 0.5]
    assert found.column("b").cast(pa.string()).to_pylist() == ['"x"', "7"]
