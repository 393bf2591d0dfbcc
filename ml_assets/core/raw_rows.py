"""Rows of a source as JSON and back, so that a row in quarantine can be judged again.

What JSON has no word for is text: instants (ISO 8601), dates, decimals, NaN and infinities. Where
the contract wants text, such a value is written as `{"$type": "decimal128(5, 2)", "$value": "…"}`,
or it would be taken for the text that it is not; bytes are always so. Reading values as the
contract's types is in `ml_assets.core.reading`.
"""

import json
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

ASSIGNED_DAY = "__day"
"""Column that a source may add: the day a row is counted in, whatever its instants say."""

ORIGIN = "__origin"
"""Column that a source may add: where the row came from, such as "file.csv, line 17"."""

RAW = "__row"
"""Column of rows that come from JSON: that JSON."""

RESERVED = frozenset({ASSIGNED_DAY, ORIGIN, RAW})


def without_views(rows: pa.Table) -> pa.Table:
    """The same rows without Arrow's view types, of which Arrow can take and filter none."""
    fields = [field.with_type(_without_views(field.type)) for field in rows.schema]
    return rows if fields == list(rows.schema) else rows.cast(pa.schema(fields))


def _without_views(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        value = _without_views(kind.value_type)
        return kind if value == kind.value_type else value
    if pa.types.is_struct(kind):
        return pa.struct([each.with_type(_without_views(each.type)) for each in kind])
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_without_views(kind.value_type)))
    if pa.types.is_map(kind):
        return pa.map_(
            _without_views(kind.key_type),
            kind.item_field.with_type(_without_views(kind.item_type)),
        )
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_without_views(kind.value_type)))
    return kind


def to_json(rows: pa.Table, texts: Collection[str]) -> list[str]:
    """Each row as JSON: all its columns but the reserved ones, sorted by name.

    Args:
        rows: Rows as the source gave them; a few, since this is not quick.
        texts: Columns that the contract wants as text.
    """
    if RAW in rows.column_names:
        return rows[RAW].to_pylist()
    names = sorted(name for name in rows.column_names if name not in RESERVED)
    columns = [_json_values(rows[name], name in texts) for name in names]
    return [_dumped(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def from_json(rows: Sequence[str]) -> pa.Table:
    """Rows that `to_json` wrote, as a table for `judge`.

    The columns are of Arrow's JSON type, so that any column may hold values of several types.

    Raises:
        ValueError: A row is not a JSON object.
    """
    found = []
    for text in rows:
        try:
            row = json.loads(text)
            if not isinstance(row, dict):
                raise ValueError(f"it is of type {type(row).__name__}")
            found.append({name: json.dumps(value) for name, value in row.items()})
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not a row in JSON: {text[:200]!r} ({error})") from None
    names = sorted({name for row in found for name in row} - RESERVED)
    columns = {name: pa.array([row.get(name) for row in found], pa.string()) for name in names}
    arrays = [pa.ExtensionArray.from_storage(pa.json_(), column) for column in columns.values()]
    return pa.table([*arrays, pa.array(rows, pa.string())], names=[*columns, RAW])


def told(value: Any) -> str | None:
    """A value out of a row's JSON, as text for a person."""
    if value is None or value == "":
        return None
    if _is_tagged(value):
        value = value["$value"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode()


def readable(value: Any, wanted: str) -> str | None:
    """A value out of a row's JSON as the text to read it by; None where nothing can be read.

    Args:
        value: The value.
        wanted: What the contract wants: "text", "instant", or a kind of number.
    """
    if isinstance(value, str):
        return value if _is_writable(value) else None
    if wanted == "text":
        return None
    if _is_tagged(value):
        return None if value["$type"] == _BYTES else value["$value"]
    if isinstance(value, bool | int | float) and wanted != "instant":
        return repr(int(value) if isinstance(value, bool) else value)
    return None


def parsed(text: str) -> Any:
    """A JSON value; one that is nested too deep, or has too many digits, as the text that it is."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {"$type": "json", "$value": text}


def is_json(kind: pa.DataType) -> bool:
    """Whether a column holds JSON, value by value."""
    return isinstance(kind, pa.JsonType)


_BYTES = "bytes"


def _is_tagged(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"$type", "$value"}
        and all(isinstance(each, str) for each in value.values())
    )


def _is_writable(text: str) -> bool:
    """Whether a text has no half characters, which JSON can say and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _dumped(row: dict[str, Any]) -> str:
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return text if _is_writable(text) else json.dumps(row, allow_nan=False)


def _json_values(column: pa.ChunkedArray, wanted_as_text: bool) -> list[Any]:
    if is_json(column.type):
        texts = column.cast(pa.string()).to_pylist()
        found = [None if text is None else parsed(text) for text in texts]
        return [_json_value(value, "json", wanted_as_text) for value in found]
    if pa.types.is_timestamp(column.type):
        values: list[Any] = _instants(column)
    else:
        values = _python_values(column)
    return [_json_value(value, str(column.type), wanted_as_text) for value in values]


def _python_values(column: pa.ChunkedArray) -> list[Any]:
    try:
        return column.to_pylist()
    except UnicodeDecodeError:  # Arrow does not look whether text is UTF-8
        return [_decoded(data) for data in column.cast(pa.large_binary()).to_pylist()]
    except (OverflowError, ValueError):  # a date beyond Python's calendar, say
        return [_Other(text) for text in column.cast(pa.string()).to_pylist()]


def _decoded(data: bytes | None) -> str | bytes | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return data


class _Other(str):
    """Text that stands for a value which is not text."""

    __slots__ = ()


def _instants(column: pa.ChunkedArray) -> list[_Other | None]:
    """ISO 8601 with the zone, if any; by NumPy, since Python's calendar ends at the year 9999."""
    offset = "" if column.type.tz is None else "+00:00"
    ticks = column.cast(pa.int64())
    instants = ticks.fill_null(0).to_numpy().astype(f"datetime64[{column.type.unit}]")
    texts = [
        (text.rstrip("0").rstrip(".") if "." in text else text) + offset
        for text in np.datetime_as_string(instants).tolist()
    ]
    missing = ticks.is_null().to_pylist()
    return [None if gone else _Other(text) for text, gone in zip(texts, missing, strict=True)]


def _json_value(value: Any, kind: str, wanted_as_text: bool) -> Any:
    if value is None or isinstance(value, bool | int) or type(value) is str:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, bytes):
        return {"$type": _BYTES, "$value": value.hex()}
    if isinstance(value, list | tuple):
        return [_json_value(each, kind, wanted_as_text) for each in value]
    if isinstance(value, dict):
        return {str(name): _json_value(each, kind, False) for name, each in value.items()}
    text = _NAMES.get(str(value), str(value))
    return {"$type": kind, "$value": text} if wanted_as_text else text


_NAMES = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
