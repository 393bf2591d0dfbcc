"""Rows as JSON and back."""

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.raw_rows import ASSIGNED_DAY, ORIGIN, from_json, to_json, told


def value_of(array: pa.Array, texts: Any = ()) -> Any:
    (row,) = to_json(pa.table({"a": array}), texts)
    return json.loads(row)["a"]


@pytest.mark.parametrize(
    ("array", "as_number", "as_text"),
    [
        (["é"], "é", "é"),
        ([None], None, None),
        ([3], 3, 3),
        ([True], True, True),
        ([1.5], 1.5, 1.5),
        ([float("nan")], "NaN", {"$type": "double", "$value": "NaN"}),
        ([float("-inf")], "-Infinity", {"$type": "double", "$value": "-Infinity"}),
        ([Decimal("1.50")], "1.50", {"$type": "decimal128(3, 2)", "$value": "1.50"}),
        (
            [datetime(2026, 1, 6, 10, 0, 0, 250_000, tzinfo=UTC)],
            "2026-01-06T10:00:00.25+00:00",
            {"$type": "timestamp[us, tz=UTC]", "$value": "2026-01-06T10:00:00.25+00:00"},
        ),
        (
            [datetime(2026, 1, 6)],
            "2026-01-06T00:00:00",
            {"$type": "timestamp[us]", "$value": "2026-01-06T00:00:00"},
        ),
        ([date(2026, 1, 6)], "2026-01-06", {"$type": "date32[day]", "$value": "2026-01-06"}),
        ([time(10)], "10:00:00", {"$type": "time64[us]", "$value": "10:00:00"}),
        ([timedelta(1)], "1 day, 0:00:00", {"$type": "duration[us]", "$value": "1 day, 0:00:00"}),
        ([b"\xff"], {"$type": "bytes", "$value": "ff"}, {"$type": "bytes", "$value": "ff"}),
        ([[1, 2]], [1, 2], [1, 2]),
        ([{"x": b"a"}], {"x": {"$type": "bytes", "$value": "61"}}, None),
    ],
)
def test_every_value_has_a_form_in_json(array: list[Any], as_number: Any, as_text: Any) -> None:
    column = pa.array(array)

    assert value_of(column) == as_number
    assert value_of(column, {"a"}) == (as_number if as_text is None else as_text)


@pytest.mark.parametrize("kind", [pa.timestamp("s", "UTC"), pa.date64(), pa.timestamp("us")])
def test_instants_beyond_pythons_calendar_have_one_too(kind: pa.DataType) -> None:
    value = value_of(pa.array([10**15]).cast(kind, safe=False))

    assert isinstance(value, str)


def test_rows_are_sorted_by_name_and_without_reserved_columns() -> None:
    rows = pa.table({"b": [1], ASSIGNED_DAY: ["2026-01-06"], "a": ["ü"], ORIGIN: ["f, line 2"]})

    assert to_json(rows, ()) == ['{"a": "ü", "b": 1}']


def test_rows_come_back_as_they_were() -> None:
    texts = ['{"a": "x", "b": 1.5}', '{"a": 3}', '{"b": [1], "c": null}', "{}"]

    rows = from_json(texts)

    assert to_json(rows, ()) == texts
    without = rows.select(["a", "b", "c"])
    assert [json.loads(row) for row in to_json(without, ())] == [
        {"a": None, "b": None, "c": None} | json.loads(text) for text in texts
    ]


def test_no_rows_are_no_rows() -> None:
    assert len(from_json([])) == 0


def test_text_that_is_not_utf8_is_kept_as_bytes() -> None:
    data = [pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"A\xff")]
    rows = pa.table({"a": pa.Array.from_buffers(pa.string(), 2, [None, *data])})

    assert to_json(rows, ()) == ['{"a": "A"}', '{"a": {"$type": "bytes", "$value": "ff"}}']


@pytest.mark.parametrize("text", ["1e999", "9" * 5000, "[" * 9000 + "]" * 9000, '"\\ud800"'])
def test_what_json_can_say_and_we_cannot_is_kept_as_text(text: str) -> None:
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array([text]))

    (row,) = to_json(pa.table({"a": column}), ())

    row.encode()
    assert to_json(from_json([row]), ()) == [row]
    (told(json.loads(row)["a"]) or "").encode()


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", '"row"', '{"a": ' + "[" * 9000])
def test_what_is_no_row_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a row in JSON"):
        from_json(['{"a": 1}', text])
