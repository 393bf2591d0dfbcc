"""What a value means, typed or as text, and which mean nothing."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.core.reading import INSTANT, kind_of, local_days, read

WHOLE, NUMBER, FLAG = np.dtype("int64"), np.dtype("float64"), np.dtype("bool")
INSTANTS = pd.DatetimeTZDtype("us", "UTC")


def meaning(value: Any, dtype: Any, kind: pa.DataType | None = None) -> Any:
    """What a value is read as: `wrong` if it cannot be, None if it is missing."""
    found = read(pa.chunked_array([pa.array([value], kind)]), dtype)
    return "wrong" if len(found.wrong) else found.values[0].as_py()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("42", 42),
        ("+42", 42),
        ("-0", 0),
        ("007", 7),
        ("42.0", 42),
        ("4.2e1", 42),
        ("1e3", 1000),
        ("9007199254740993", 9007199254740993),
        ("9223372036854775807", 9223372036854775807),
        ("-9223372036854775808", -9223372036854775808),
        ("9223372036854775808", "wrong"),
        ("9007199254740993.0", "wrong"),
        ("1e18", "wrong"),
        ("1e30", "wrong"),
        ("42.5", "wrong"),
        (" 42 ", "wrong"),
        ("42 ", "wrong"),
        ("4 2", "wrong"),
        ("1_000", "wrong"),
        ("1,000", "wrong"),
        ("0x10", "wrong"),
        ("٤٢", "wrong"),
        ("NaN", "wrong"),
        ("inf", "wrong"),
        ("true", "wrong"),
        ("-", "wrong"),
        ("42\x00", "wrong"),
        ("", None),
        (None, None),
        (True, 1),
        (False, 0),
        (42.0, 42),
        (42.5, "wrong"),
        (1e18, "wrong"),
        (float("nan"), "wrong"),
        (Decimal("42"), 42),
        (Decimal("42.00"), 42),
        (Decimal("42.50"), "wrong"),
        (Decimal("9007199254740993"), 9007199254740993),
        (b"42", "wrong"),
        ([42], "wrong"),
        ({"a": 42}, "wrong"),
        (date(2026, 1, 6), "wrong"),
        (datetime(2026, 1, 6, tzinfo=UTC), "wrong"),
        (timedelta(1), "wrong"),
    ],
)
def test_whole_numbers(value: Any, expected: Any) -> None:
    assert meaning(value, WHOLE) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0.1", 0.1),
        (".5", 0.5),
        ("1e-7", 1e-7),
        ("-12", -12.0),
        (7, 7.0),
        (True, 1.0),
        (Decimal("0.3"), 0.3),
        (Decimal("1234567.89"), 1234567.89),
        ("1,5", "wrong"),
        ("nan", "wrong"),
        ("-Infinity", "wrong"),
        ("1e999", "wrong"),
        ("0x1p3", "wrong"),
        (float("inf"), "wrong"),
        (float("nan"), "wrong"),
        ("", None),
        (None, None),
    ],
)
def test_numbers(value: Any, expected: Any) -> None:
    assert meaning(value, NUMBER) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(True, True), (0, False), ("1", True), (2, "wrong"), ("true", "wrong"), (None, None)],
)
def test_flags(value: Any, expected: Any) -> None:
    assert meaning(value, FLAG) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("A", "A"),
        (" ", " "),
        ("", None),
        (None, None),
        (3, "wrong"),
        (3.0, "wrong"),
        (Decimal(3), "wrong"),
        (b"A", "wrong"),
        (True, "wrong"),
        (datetime(2026, 1, 6, tzinfo=UTC), "wrong"),
        (["A"], "wrong"),
    ],
)
def test_text(value: Any, expected: Any) -> None:
    assert meaning(value, np.dtype(object)) == expected


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_of_any_layout(kind: pa.DataType) -> None:
    assert meaning("A", np.dtype(object), kind) == "A"
    assert meaning("7", WHOLE, kind) == 7


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-06T10:00:00Z", "2026-01-06T10:00:00"),
        ("2026-01-06 10:00:00+00:00", "2026-01-06T10:00:00"),
        ("2026-01-06T10:00:00.5+01:00", "2026-01-06T09:00:00.500000"),
        ("2026-01-06T10:00:00.123456789Z", "2026-01-06T10:00:00.123456"),
        ("2026-01-06T10:00-0530", "2026-01-06T15:30:00"),
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59"),
        ("9999-12-31T23:59:59-01:00", "wrong"),
        ("0000-01-01T00:00:00Z", "wrong"),
        ("2028-02-29T00:00:00Z", "2028-02-29T00:00:00"),
        ("2026-02-29T00:00:00Z", "wrong"),
        ("2026-01-06T24:00:00Z", "wrong"),
        ("2026-01-06T10:00:00", "wrong"),
        ("06/01/2026 10:00", "wrong"),
        ("1767693600", "wrong"),
        (1767693600, "wrong"),
        (date(2026, 1, 6), "wrong"),
        ("", None),
        (None, None),
    ],
)
def test_instants(value: Any, expected: Any) -> None:
    found = meaning(value, INSTANTS)

    told = found.replace(tzinfo=None).isoformat() if isinstance(found, datetime) else found
    assert told == expected


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_typed_instants_of_every_unit(unit: str) -> None:
    at = datetime(2026, 1, 6, 10, tzinfo=UTC)

    assert meaning(at, INSTANTS, pa.timestamp(unit, "Europe/London")) == at


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
def test_an_instant_beyond_the_calendar_is_none(unit: str) -> None:
    infinity = pa.array([2**63 - 1, 0]).cast(pa.timestamp(unit, "UTC"))

    found = read(pa.chunked_array([infinity]), INSTANTS)

    assert found.wrong.tolist() == [0]
    assert found.values.is_valid().to_pylist() == [False, True]


def test_an_instant_that_lacks_nothing_but_its_zone_is_told_apart() -> None:
    texts = ["2026-01-06T10:00:00", "2026-01-06", "2026-02-30", "soon", "2026-01-06T10:00Z", None]

    found = read(pa.chunked_array([texts]), INSTANTS)

    assert found.wrong.tolist() == [0, 1, 2, 3]
    assert found.zoneless.tolist() == [0, 1]
    assert found.missing().tolist() == [5]


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (127, pd.Int8Dtype(), 127),
        (128, pd.Int8Dtype(), "wrong"),
        ("-129", pd.Int8Dtype(), "wrong"),
        (-1, np.dtype("uint8"), "wrong"),
        (1e39, np.dtype("float32"), "wrong"),
        (2**63, WHOLE, "wrong"),
    ],
)
def test_what_the_contracts_type_cannot_hold_is_wrong(
    value: Any, dtype: Any, expected: Any
) -> None:
    kind = pa.uint64() if value == 2**63 else None
    assert meaning(value, dtype, kind) == expected


def test_text_that_is_not_utf8_is_wrong_and_not_missing() -> None:
    data = [pa.py_buffer(np.array([0, 1, 2, 3], np.int32)), pa.py_buffer(b"A\xffB")]
    broken = pa.Array.from_buffers(pa.string(), 3, [None, *data])

    found = read(pa.chunked_array([broken]), np.dtype(object))

    assert found.wrong.tolist() == [1]
    assert found.values.to_pylist() == ["A", None, "B"]


def test_json_values_of_every_kind_have_a_meaning_or_are_wrong() -> None:
    texts = ["3", '"3"', "true", "1e999", "9" * 5000, "[" * 9000 + "]" * 9000, '"\\ud800"', '""']
    column = pa.ExtensionArray.from_storage(pa.json_(), pa.array([*texts, "null", None]))

    whole = read(pa.chunked_array([column]), WHOLE)
    text = read(pa.chunked_array([column]), np.dtype(object))

    assert whole.values.to_pylist() == [3, 3, 1, *[None] * 7]
    assert whole.wrong.tolist() == [3, 4, 5, 6]
    assert text.values.to_pylist() == [None, "3", *[None] * 8]
    assert text.wrong.tolist() == [0, 2, 3, 4, 5, 6]


def test_a_type_that_no_source_gives_is_refused() -> None:
    with pytest.raises(ValueError, match="no column can be read as category"):
        kind_of(pd.CategoricalDtype())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(
        st.one_of(
            st.integers().map(str),
            st.floats().map(repr),
            st.decimals().map(str),
            st.datetimes().map(datetime.isoformat),
            st.datetimes(timezones=st.timezones()).map(datetime.isoformat),
            st.text(alphabet="0123456789+-.eEx_ naNifZT:", max_size=12),
            st.from_regex(
                r"\A202[0-9]-[0-1]?[0-9]-[0-3]?[0-9]([Tt ]?[0-2]?[0-9](:?[0-6][0-9](:?[0-6][0-9]"
                r"([.,][0-9]{0,10})?)?)?)?( ?(Z|z|[+-][0-2][0-9]:?([0-6][0-9])?))?\Z"
            ),
            st.text(max_size=5),
            st.none(),
        ),
        max_size=12,
    ),
    st.sampled_from([WHOLE, NUMBER, FLAG, np.dtype(object), INSTANTS, pd.Int8Dtype()]),
)
def test_what_text_means_does_not_depend_on_its_neighbours(
    texts: list[str | None], dtype: Any
) -> None:
    together = read(pa.chunked_array([pa.array(texts, pa.string())]), dtype)

    for position, text in enumerate(texts):
        alone = read(pa.chunked_array([pa.array([text], pa.string())]), dtype)
        assert alone.values[0] == together.values[position] or (
            not alone.values[0].is_valid and not together.values[position].is_valid
        )
        assert (position in together.wrong) == bool(len(alone.wrong))
        assert (position in together.zoneless) == bool(len(alone.zoneless))


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.datetimes(datetime(1, 1, 5), datetime(9999, 12, 20)), min_size=1, max_size=5),
    st.timezones(),
)
def test_local_days_are_those_of_the_calendar(times: list[datetime], zone: ZoneInfo) -> None:
    instants = pa.array([time.replace(tzinfo=UTC) for time in times], INSTANT)

    codes, names = local_days(instants, zone)

    expected = [time.replace(tzinfo=UTC).astimezone(zone).date().isoformat() for time in times]
    assert [names[code] for code in codes] == expected


def test_an_instant_at_the_ends_of_the_calendar_has_some_day() -> None:
    texts = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", None]
    instants = pa.array(texts).cast(INSTANT)

    codes, names = local_days(instants, ZoneInfo("Asia/Tokyo"))

    assert codes[2] == -1
    assert all(names[code] for code in codes[:2])
