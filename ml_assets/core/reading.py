"""Reading a source's values as the types of a contract: what each means, and which mean nothing.

One rule for typed sources and for text, so that a number means the same whether it came in a
Parquet file, a CSV file or as JSON from the quarantine. Which types and ranges are wanted, and what
becomes of a value that cannot be read, is decided in `ml_assets.core.contract`.

A value is read as

- a whole number: integers of any width; floats, decimals and text that say a whole number ("42",
  "42.0", "4.2e1"), from 2**53 on only where digits alone say it; true and false as 1 and 0, but not
  the words. Not "42.5", nor what the contract's type cannot hold;
- a number: the same, and fractions. Text is decimal with a point, at will with sign and exponent;
  no blanks, thousands separators, hexadecimals. NaN and infinities are no numbers;
- a flag: whole numbers 0 and 1;
- text: text in UTF-8, and nothing else, so that a code that turned into a number is noticed;
- an instant: timestamps with a zone, and ISO 8601 text with an offset or Z, in the years 1 to 9999;
  whatever is finer than a microsecond is cut off.

Empty text is a missing value in every column, since a CSV file knows no other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.raw_rows import is_json, parsed, readable

Positions = npt.NDArray[np.int64]
Kind = Literal["text", "whole", "number", "flag", "instant"]

INSTANT = pa.timestamp("us", "UTC")

_EXACT = 2**53  # from here on two whole numbers may be the same float
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799  # years 1 to 9999
_TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# What Arrow reads as a number or an instant, but for the calendar: spares most failing casts.
_LIKE_NUMBER = r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$"
_LIKE_DATE = r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
_LIKE_TIME = r"[T ]([01][0-9]|2[0-3])(:[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?)?"
_LIKE_INSTANT = rf"^{_LIKE_DATE}{_LIKE_TIME}(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$"
_LIKE_ZONELESS = rf"^{_LIKE_DATE}({_LIKE_TIME})?$"


@dataclass(frozen=True)
class Read:
    """A column as the contract's type.

    Attributes:
        values: The values; null where the row holds none, or one that cannot be read.
        wrong: Positions of the values that cannot be read.
        zoneless: Those of them that would be instants, had they a time zone.
    """

    values: pa.Array
    wrong: Positions
    zoneless: Positions

    def missing(self) -> Positions:
        """Positions of rows that hold no value."""
        if self.values.null_count == len(self.wrong):
            return self.wrong[:0]
        return np.setdiff1d(_positions(self.values.is_null()), self.wrong, assume_unique=True)


def kind_of(dtype: Any) -> Kind:
    """What values of a contract's dtype are.

    Raises:
        ValueError: No value can be read as such a dtype.
    """
    if isinstance(dtype, pd.DatetimeTZDtype):
        return "instant"
    if pd.api.types.is_bool_dtype(dtype):
        return "flag"
    if pd.api.types.is_integer_dtype(dtype):
        return "whole"
    if pd.api.types.is_float_dtype(dtype):
        return "number"
    if pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype):
        return "text"
    raise ValueError(
        f"no column can be read as {dtype}: a contract's columns are str, int, float, bool, "
        "pandas' nullable kinds of these, or instants with a time zone"
    )


def read(column: pa.ChunkedArray, dtype: Any) -> Read:
    """Read a column as a contract's dtype; see the module's own words for what means what."""
    kind = kind_of(dtype)
    given = _one_array(column)
    if is_json(given.type):
        given, present = _from_json(given.storage, kind)
    else:
        present = None
    if pa.types.is_string(given.type) or pa.types.is_large_string(given.type):
        empty = pc.equal(pc.binary_length(given), 0)
        if pc.any(empty).as_py():
            given = pc.if_else(empty, None, given)
        if (decodable := _decodable(given)) is not given:
            given, present = decodable, given.is_valid()
    values = _READERS[kind](given, dtype)
    if present is None and values.null_count == given.null_count:
        return Read(values, _NONE, _NONE)
    if present is None:
        present = given.is_valid()
    wrong = _positions(pc.and_(present, values.is_null()))
    zoneless = _zoneless(given, wrong) if kind == "instant" else _NONE
    return Read(values, wrong, zoneless)


def all_missing(count: int, dtype: Any) -> Read:
    """A column that the source does not have."""
    return read(pa.chunked_array([pa.nulls(count)]), dtype)


def joined(reads: list[Read]) -> Read:
    """The same column of several tables, one below the other."""
    if len(reads) == 1:
        return reads[0]
    starts = np.cumsum([0, *(len(each.values) for each in reads)])
    return Read(
        pa.concat_arrays([each.values for each in reads]),
        np.concatenate([each.wrong + start for each, start in zip(reads, starts, strict=False)]),
        np.concatenate([each.zoneless + start for each, start in zip(reads, starts, strict=False)]),
    )


def as_pandas(values: pa.Array, dtype: Any) -> Any:
    """Read values in the contract's own dtype, text as Python's `str`."""
    if kind_of(dtype) == "text":
        return values.to_numpy(zero_copy_only=False)
    if hasattr(dtype, "__from_arrow__") and not isinstance(dtype, pd.DatetimeTZDtype):
        return dtype.__from_arrow__(values)
    return values.to_pandas().astype(dtype, copy=False).array


def local_days(instants: pa.Array, zone: ZoneInfo) -> tuple[npt.NDArray[np.int64], list[str]]:
    """The local day of each instant, as a position in a list of days; -1 where there is none.

    A day begins at its local midnight, or where the clocks skip midnight, right after; so days of
    23 and 25 hours hold what they should.
    """
    ticks = instants.cast(pa.int64()).fill_null(0).to_numpy()
    # A time zone is asked about a few midnights only; pandas would ask it about every instant.
    utc_days = np.unique(ticks // (86_400 * _TICKS["us"])) + date(1970, 1, 1).toordinal()
    nearby = np.unique(np.concatenate([utc_days - 1, utc_days, utc_days + 1]))
    days = [
        date.fromordinal(int(day))
        for day in nearby[(nearby > date.min.toordinal() + 1) & (nearby < date.max.toordinal())]
    ] or [date(1970, 1, 1)]
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    midnights = [
        round((datetime.combine(day, time.min, tzinfo=zone) - epoch).total_seconds()) * _TICKS["us"]
        for day in days
    ]
    codes = np.searchsorted(midnights, ticks, side="right").astype(np.int64) - 1
    codes = np.clip(codes, 0, None)
    if instants.null_count:
        codes[_positions(instants.is_null())] = -1
    return codes, [day.isoformat() for day in days]


_NONE: Positions = np.zeros(0, dtype=np.int64)


def _positions(mask: pa.Array) -> Positions:
    return np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    """The column in one piece, with dictionaries looked up."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string_view(column.type) or (
        pa.types.is_string(column.type) and column.nbytes > 2**31 - 1
    ):
        column = column.cast(pa.large_string())  # a plain string array ends at 2 GiB
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _decodable(texts: pa.Array) -> pa.Array:
    """Text without what is not UTF-8, which Arrow passes on unseen."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        written = [_is_utf8(data) for data in texts.cast(pa.large_binary()).to_pylist()]
        return pc.if_else(pa.array(written), texts, None)
    return texts


def _is_utf8(data: bytes | None) -> bool:
    try:
        (data or b"").decode()
    except UnicodeDecodeError:
        return False
    return True


def _from_json(texts: pa.Array, kind: Kind) -> tuple[pa.Array, pa.Array]:
    """JSON values as the text in them, and which rows hold a value at all."""
    distinct = texts.cast(pa.string()).dictionary_encode()
    found = [parsed(text) for text in distinct.dictionary.to_pylist()]
    read_as = pa.array([readable(value, kind) for value in found], pa.string())
    present = pa.array([value is not None and value != "" for value in found], pa.bool_())
    return read_as.take(distinct.indices), pc.fill_null(present.take(distinct.indices), False)


def _text(given: pa.Array, _: Any) -> pa.Array:
    if pa.types.is_string(given.type) or pa.types.is_large_string(given.type):
        return given
    return pa.nulls(len(given), pa.string())


def _number(given: pa.Array, dtype: Any) -> pa.Array:
    floats = _floats(_numeric(given))
    finite = pc.is_finite(floats)
    # All true, or null where there is no value: the common case costs no copy.
    if pc.all(finite).as_py() is False:
        floats = pc.if_else(finite, floats, None)
    largest = float(np.finfo(getattr(dtype, "numpy_dtype", dtype)).max)
    if largest < np.finfo(np.float64).max:
        floats = pc.if_else(pc.less_equal(pc.abs(floats), largest), floats, None)
    return floats


def _floats(numeric: pa.Array) -> pa.Array:
    if pa.types.is_string(numeric.type) or pa.types.is_large_string(numeric.type):
        return _parsed(numeric, pa.float64(), _LIKE_NUMBER)
    return numeric.cast(pa.float64(), safe=False)


def _whole(given: pa.Array, dtype: Any) -> pa.Array:
    target = getattr(dtype, "numpy_dtype", dtype)
    bounds = np.iinfo(target)
    low, high = int(bounds.min), min(int(bounds.max), np.iinfo(np.int64).max)
    whole = _whole_numbers(_numeric(given))
    span = pc.min_max(whole).as_py()
    if span["min"] is not None and not (low <= span["min"] and span["max"] <= high):
        within = pc.and_(pc.greater_equal(whole, low), pc.less_equal(whole, high))
        whole = pc.if_else(within, whole, None)
    return whole.cast(pa.from_numpy_dtype(target))


def _whole_numbers(numeric: pa.Array) -> pa.Array:
    """Whole numbers as 64-bit integers; null for what is none."""
    if pa.types.is_integer(numeric.type):
        if pa.types.is_uint64(numeric.type):
            fits = pc.less_equal(numeric, pa.scalar(np.iinfo(np.int64).max, pa.uint64()))
            numeric = pc.if_else(fits, numeric, None)
        return numeric.cast(pa.int64())
    floats = _floats(numeric)
    # Null, and so dropped, for NaN and infinities too.
    exact = pc.and_(pc.equal(floats, pc.floor(floats)), pc.less(pc.abs(floats), float(_EXACT)))
    whole = pc.if_else(exact, floats, None).cast(pa.int64())
    if not pa.types.is_floating(numeric.type):
        # Digits alone are exact however many there are.
        large = pc.fill_null(pc.greater_equal(pc.abs(floats), float(_EXACT)), False)
        if pc.any(large).as_py():
            digits = pc.if_else(large, numeric, None)
            whole = pc.coalesce(_parsed(digits, pa.int64(), r"^-?[0-9]+$"), whole)
    return whole


def _numeric(given: pa.Array) -> pa.Array:
    """Integers, floats or text; for any other type, nulls."""
    kind = given.type
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return given
    if pa.types.is_floating(kind):
        return given.cast(pa.float64())
    if pa.types.is_boolean(kind):
        return given.cast(pa.int8())
    if pa.types.is_decimal(kind):
        # By way of text: Arrow's own conversion is a last bit off for many.
        return given.cast(pa.string())
    return pa.nulls(len(given), pa.int64())


def _flag(given: pa.Array, _: Any) -> pa.Array:
    whole = _whole_numbers(_numeric(given))
    return pc.if_else(pc.is_in(whole, pa.array([0, 1])), whole, None).cast(pa.bool_())


def _instant(given: pa.Array, _: Any) -> pa.Array:
    kind = given.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _in_range(_instants(given, INSTANT, _LIKE_INSTANT))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        return pc.cast(
            _in_range(given),
            options=pc.CastOptions(target_type=INSTANT, allow_time_truncate=True),
        )
    return pa.nulls(len(given), INSTANT)


def _instants(texts: pa.Array, kind: pa.DataType, like: str) -> pa.Array:
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        finer = pc.replace_substring_regex(texts, r"(\.[0-9]{6})[0-9]{1,3}", r"\1")
        return _parsed(finer, kind, like)


def _in_range(instants: pa.Array) -> pa.Array:
    """Instants of the years that a calendar date can say; PostgreSQL's infinity is none."""
    ticks = _TICKS[instants.type.unit]
    numbers = instants.cast(pa.int64())
    span = pc.min_max(numbers).as_py()
    first, last = _FIRST_SECOND * ticks, (_LAST_SECOND + 1) * ticks - 1
    if span["min"] is None or (first <= span["min"] and span["max"] <= last):
        return instants
    # Only for units whose bounds are 64-bit: all nanoseconds are within range.
    within = pc.and_(pc.greater_equal(numbers, first), pc.less_equal(numbers, last))
    return pc.if_else(within, instants, None)


def _zoneless(given: pa.Array, wrong: Positions) -> Positions:
    """Those of the wrong values that are instants but for their time zone."""
    if pa.types.is_date(given.type) or pa.types.is_timestamp(given.type):
        return wrong if pa.types.is_date(given.type) or given.type.tz is None else wrong[:0]
    if not (pa.types.is_string(given.type) or pa.types.is_large_string(given.type)):
        return wrong[:0]
    readable = _instants(given.take(pa.array(wrong)), pa.timestamp("us"), _LIKE_ZONELESS)
    return wrong[readable.is_valid().to_numpy(zero_copy_only=False)]


def _parsed(texts: pa.Array, kind: pa.DataType, like: str) -> pa.Array:
    """Text as another type; null where it is none.

    What a text means must not depend on its neighbours, so there is one parser, Arrow's, which
    gives up at the first text that it cannot read: such texts are narrowed down by halves.
    """
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        distinct = texts.dictionary_encode()
        likely = pc.if_else(
            pc.match_substring_regex(distinct.dictionary, like), distinct.dictionary, None
        )
        return _by_halves(likely, kind).take(distinct.indices)


def _by_halves(texts: pa.Array, kind: pa.DataType) -> pa.Array:
    try:
        return texts.cast(kind)
    except pa.ArrowInvalid:
        if len(texts) == 1:
            return pa.nulls(1, kind)
        half = len(texts) // 2
        parts = (texts.slice(0, half), texts.slice(half))
        return pa.concat_arrays([_by_halves(part, kind) for part in parts])


_READERS: dict[Kind, Callable[[pa.Array, Any], pa.Array]] = {
    "text": _text,
    "whole": _whole,
    "number": _number,
    "flag": _flag,
    "instant": _instant,
}
