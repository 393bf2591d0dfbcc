"""Files of rows read into Arrow tables: CSV, Parquet and JSON Lines, also packed with gzip.

What cannot be read as a whole is refused as a whole, with the place and the remedy; whether the
values are good is the contract's business. CSV itself is in `ml_assets.resources.csv_text`, and
where files come from in `ml_assets.resources.landing`.

CSV hands over text. Parquet and JSON Lines keep their types; where the types of a column differ,
between lines or between files, it becomes a column of JSON values, each of the type that it had.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import parquet

from ml_assets.core.raw_rows import RESERVED, is_json, to_json, without_views
from ml_assets.resources.csv_text import (
    MAX_COLUMNS,
    FileError,
    Lines,
    clip,
    read_csv,
    require_names,
    valid_utf8,
)

FORMATS = (".csv", ".csv.gz", ".jsonl", ".jsonl.gz", ".ndjson", ".parquet")
_RESERVED = sorted(RESERVED)
_PIECE = 16 << 20  # bytes unpacked at once
_MAX_RATIO = 500  # honest tables pack 5 to 100 times; a bomb of zeros, a thousand times
_BATCH_ROWS = 65_536
_BATCH_LINES = 20_000
_TO_ESCAPE = r'["\\\x00-\x1f]'
_INFINITY = float("inf")
_PLAIN = {str: pa.string(), bool: pa.bool_(), float: pa.float64()}
_EXACT = 2**53  # whole numbers up to here are exact as floats
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}


def file_format(path: str) -> str | None:
    """The format that a file's name tells, as one of `FORMATS`; None if none of them."""
    endings = [each for each in FORMATS if path.lower().endswith(each)]
    return max(endings, key=len) if endings else None


def read_file(
    data: bytes,
    kind: str,
    *,
    max_bytes: int,
    columns: Sequence[str] | None = None,
    known: bool = False,
) -> Lines:
    """Read a file of rows.

    Args:
        data: The whole file, as it came.
        kind: Its format, one of `FORMATS`.
        max_bytes: Most bytes that it may have unpacked.
        columns: The columns to hand over; by default all. The others are checked all the same.
        known: Whether these very bytes were read before, so that the slower checks can be left out.

    Raises:
        FileError: It cannot be read as such; the message names the place in it and what to do.
    """
    if not data:
        raise FileError(
            "the file is empty (0 bytes). A table without rows is a header line alone, or a "
            "Parquet file."
        )
    if kind.endswith(".gz"):
        data = unpack(data, max_bytes)
    if len(data) > max_bytes:
        raise FileError(_too_large(len(data), max_bytes))
    if kind == ".parquet":
        return _read_parquet(data, max_bytes, columns, known=known)
    if kind.startswith(".csv"):
        return read_csv(data, columns, reserved=_RESERVED, known=known)
    return _read_json_lines(data, columns)


def unpack(data: bytes, max_bytes: int) -> bytes:
    """Unpack gzip, of one or several members, and stop at the limit.

    Raises:
        FileError: It is damaged, cut off, or larger than it may be.
    """
    pieces, size = [], 0
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as packed:
            while piece := packed.read(_PIECE):
                pieces.append(piece)
                size += len(piece)
                if size > max_bytes:
                    raise FileError(_too_large(size, max_bytes))
                if size > max(4 * _PIECE, _MAX_RATIO * len(data)):
                    raise FileError(
                        f"it unpacks to more than {_MAX_RATIO} times its size, as no table of rows "
                        "does. Deliver it unpacked if it is one."
                    )
    except EOFError:
        raise FileError("the gzip stream is cut off. Have it delivered again.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FileError(f"the gzip stream is damaged ({error}). Have it delivered again.") from None
    return b"".join(pieces)


def combine(tables: Sequence[pa.Table]) -> pa.Table:
    """Put the rows of tables below one another, also where columns and types differ.

    A column that one of them lacks is missing there. Where types differ and no one type holds all
    values exactly, they become JSON, as `ml_assets.core.reading` reads it.
    """
    names = list(dict.fromkeys(name for table in tables for name in table.column_names))
    columns = {}
    for name in names:
        parts = [
            table.column(name) if name in table.column_names else pa.nulls(table.num_rows)
            for table in tables
        ]
        columns[name] = _joined([chunk for part in parts for chunk in _chunks(part)])
    return pa.table(columns)


def _too_large(size: int, max_bytes: int) -> str:
    return (
        f"it has {size:,} bytes or more unpacked; at most {max_bytes:,} are read "
        "(landing.max_file_bytes). Have it delivered in parts, or raise the limit."
    )


def _wanted(table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    return (
        table
        if columns is None
        else table.select([name for name in columns if name in table.column_names])
    )


# Parquet


def _read_parquet(
    data: bytes, max_bytes: int, columns: Sequence[str] | None, *, known: bool
) -> Lines:
    try:
        file = parquet.ParquetFile(pa.BufferReader(data))
        schema = file.schema_arrow
        names = list(schema.names)
        require_names(names, "the schema", _RESERVED)
        rows = file.metadata.num_rows
        if not known:
            _require_moderate(file.metadata, max_bytes)
            texts = [field.name for field in schema if _is_text(field.type)]
            table = _careful(data, texts, max_bytes, columns)
        else:
            table = file.read()
        plain = _without_dictionaries(_wanted(table, columns))
    except (pa.ArrowException, OSError) as error:  # a damaged one may ask for endless memory
        raise FileError(
            f"it is not a sound Parquet file ({error}). Have it written and delivered again."
        ) from None
    return Lines(plain, np.arange(1, rows + 1), names)


def _require_moderate(metadata: Any, max_bytes: int) -> None:
    """Refuse files that would grow beyond the limit, by what their footer says, before decoding.

    A value that repeats a billion times takes a few bytes in Parquet, and is no compression by its
    own account; so the values are counted too.
    """
    packed = decoded = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group)
        packed += rows.total_byte_size
        for place in range(rows.num_columns):
            column = metadata.schema.column(place)
            width = _WIDTHS.get(column.physical_type, max(4, column.length))
            decoded += rows.column(place).num_values * width
    if max(packed, decoded) > max_bytes:
        raise FileError(_too_large(max(packed, decoded), max_bytes))


def _careful(
    data: bytes, texts: list[str], max_bytes: int, columns: Sequence[str] | None
) -> pa.Table:
    """Read everything in parts, check it, and keep the columns asked for.

    Text is read as dictionaries, so that a long value that repeats is seen before it is spread out.
    """
    file = parquet.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    nested = any(pa.types.is_nested(field.type) for field in file.schema_arrow)
    kept, rows, size = [], 0, 0
    for batch in file.iter_batches(_BATCH_ROWS // 64 if nested else _BATCH_ROWS):
        batch.validate(full=True)
        rows += batch.num_rows
        size += sum(_decoded_bytes(column) for column in batch.columns)
        if size > max_bytes:
            raise FileError(_too_large(size, max_bytes))
        kept.append(_wanted(pa.Table.from_batches([batch]), columns))
    if rows != file.metadata.num_rows:
        raise FileError(f"it has {rows:,} rows where its footer says {file.metadata.num_rows:,}")
    empty = _wanted(file.schema_arrow.empty_table(), columns)
    return pa.concat_tables(kept) if kept else empty


def _decoded_bytes(column: pa.Array) -> int:
    if not pa.types.is_dictionary(column.type) or not _is_text(column.type.value_type):
        return int(column.nbytes)
    lengths = pc.take(pc.binary_length(column.dictionary), column.indices)
    return int(pc.sum(lengths).as_py() or 0) + 4 * len(column)


def _is_text(dtype: pa.DataType) -> bool:
    return any(
        check(dtype)
        for check in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_binary_view,
        )
    )


def _without_dictionaries(table: pa.Table) -> pa.Table:
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return without_views(table.cast(pa.schema(fields)) if fields != list(table.schema) else table)


# JSON Lines


class _JsonFault(ValueError):
    pass


def _read_json_lines(data: bytes, columns: Sequence[str] | None) -> Lines:
    if not valid_utf8(data):
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise FileError(
                f"line {line:,}: the byte 0x{data[error.start]:02x} is not UTF-8. Have the file "
                "written in UTF-8."
            ) from None
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    end = len(data.rstrip())
    chunks: dict[str, list[pa.Array]] = {}
    names: dict[str, None] = {}
    rows = 0
    for objects in _objects(data[start:end]):
        for each in objects:
            names.update(dict.fromkeys(each))
        if len(names) > MAX_COLUMNS:
            require_names(list(names), f"line {rows + 1:,} and below", _RESERVED)
        for name in names if columns is None else names.keys() & set(columns):
            # A column that begins here is missing in all rows before.
            parts = chunks.setdefault(name, [pa.nulls(rows)] if rows else [])
            parts.append(_typed([each.get(name) for each in objects]))
        rows += len(objects)
    if not rows:
        raise FileError("it has no lines. Every line is a JSON object with the columns as keys.")
    require_names(list(names), "the keys", _RESERVED)
    table = pa.table({name: _joined(chunks[name]) for name in names if name in chunks})
    return Lines(_wanted(table, columns), np.arange(1, rows + 1), list(names))


def _objects(data: bytes) -> Iterator[list[dict[str, Any]]]:
    """The objects of a file, some thousands at a time."""
    decode = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_number).decode
    found: list[dict[str, Any]] = []
    for number, line in enumerate(io.BytesIO(data), 1):
        text = line.decode("utf-8").strip(" \t\r\n")
        try:
            value = decode(text)
        except _JsonFault as error:
            raise FileError(f"line {number:,}: {error}") from None
        except json.JSONDecodeError as error:
            where = "the line is blank" if not text else f"{error.msg} at character {error.colno}"
            near = clip(text[max(0, error.pos - 30) : error.pos + 30])
            raise FileError(
                f"line {number:,}: {where}: {near}. Every line must be one whole JSON object; the "
                "file may be cut off."
            ) from None
        except (RecursionError, ValueError) as error:  # nested too deep; a number without end
            raise FileError(f"line {number:,}: {clip(text)} cannot be read: {error}") from None
        if not isinstance(value, dict):
            raise FileError(
                f"line {number:,}: {clip(text)} is no JSON object. Every line must be one, with "
                "the columns as keys."
            )
        if "\\u" in text and (broken := _broken(value)) is not None:
            raise FileError(
                f"line {number:,}: half a character (an unpaired surrogate) in {broken}. Have the "
                "value written anew."
            )
        found.append(value)
        if len(found) == _BATCH_LINES:
            yield found
            found = []
    if found:
        yield found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _JsonFault(f"the key {clip(twice)} is there twice. Give every key a name of its own.")
    return found


def _no_number(text: str) -> Any:
    raise _JsonFault(
        f"{text} is no JSON. Leave the key out, or write null, where there is no value."
    )


def _typed(values: list[Any]) -> pa.Array:
    """Values of one column as their own type, or as JSON if they differ or have no plain type."""
    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if len(kinds) == 1 and (plain := _PLAIN.get(next(iter(kinds)))):
        return pa.array(values, plain)
    if kinds <= {int, float}:
        whole = [value for value in values if type(value) is int]
        if kinds == {int} and min(whole) >= -(2**63) and max(whole) < 2**63:
            return pa.array(values, pa.int64())
        if kinds == {int, float} and max(map(abs, whole)) <= _EXACT:
            return pa.array(values, pa.float64())
    texts = [None if value is None else _dump(value) for value in values]
    return _json(pa.array(texts, pa.string()))


def _broken(row: dict[str, Any]) -> str | None:
    """A value, with its column, that has no place in UTF-8."""
    for name, value in row.items():
        try:
            (name + _dump(value)).encode("utf-8")
        except UnicodeEncodeError:
            return f"{clip(name)}: {clip(value)}"
    return None


def _dump(value: Any) -> str:
    # 1e999 is a number in JSON, but none to us: its text is told as a wrong value.
    return json.dumps(
        value if value not in (_INFINITY, -_INFINITY) else str(value), ensure_ascii=False
    )


# Columns of several types


def _joined(chunks: list[pa.Array]) -> pa.ChunkedArray:
    """Arrays as one column, of the type that holds all of them exactly, or as JSON."""
    types = list(dict.fromkeys(chunk.type for chunk in chunks if not pa.types.is_null(chunk.type)))
    if not types:
        return pa.chunked_array([chunk.cast(pa.string()) for chunk in chunks], pa.string())
    target = types[0] if len(types) == 1 else _common(types, chunks)
    if target is not None and not is_json(target):
        return pa.chunked_array([chunk.cast(target) for chunk in chunks], target)
    return pa.chunked_array([_as_json(chunk) for chunk in chunks], pa.json_())


def _common(types: list[pa.DataType], chunks: list[pa.Array]) -> pa.DataType | None:
    if all(pa.types.is_signed_integer(each) for each in types):
        return pa.int64()
    if all(pa.types.is_timestamp(each) and each.tz for each in types):
        order = ["s", "ms", "us", "ns"]
        unit = max((each.unit for each in types), key=order.index)
        return pa.timestamp(unit, "UTC") if _castable(chunks, pa.timestamp(unit, "UTC")) else None
    numbers = all(pa.types.is_signed_integer(each) or pa.types.is_floating(each) for each in types)
    return pa.float64() if numbers and all(map(_is_exact, chunks)) else None


def _is_exact(chunk: pa.Array) -> bool:
    if not pa.types.is_integer(chunk.type):
        return True
    bounds = pc.min_max(chunk).as_py()
    return max(abs(bounds["min"] or 0), abs(bounds["max"] or 0)) <= _EXACT


def _castable(chunks: list[pa.Array], target: pa.DataType) -> bool:
    try:
        for chunk in chunks:
            chunk.cast(target)
    except pa.ArrowInvalid:
        return False
    return True


def _as_json(chunk: pa.Array) -> pa.Array:
    """Any array as JSON values. Fast for those types of which there may be many."""
    dtype = chunk.type
    if is_json(dtype):
        return chunk
    if pa.types.is_null(dtype) or pa.types.is_integer(dtype) or pa.types.is_boolean(dtype):
        return _json(chunk.cast(pa.string()))
    if pa.types.is_floating(dtype) and pc.all(pc.is_finite(chunk)).as_py() is not False:
        return _json(chunk.cast(pa.float64()).cast(pa.string()))
    if _is_text(dtype) and not pc.any(pc.match_substring_regex(chunk, _TO_ESCAPE)).as_py():
        return _json(_between('"', chunk.cast(pa.string()), '"'))
    if pa.types.is_timestamp(dtype) and dtype.tz:
        # As `core.raw_rows` writes what JSON has no word for.
        texts = pc.replace_substring(
            chunk.cast(pa.timestamp(dtype.unit, "UTC")).cast(pa.string()), " ", "T"
        )
        return _json(_between(f'{{"$type": "{dtype}", "$value": "', texts, '"}'))
    rows = [json.loads(row) for row in to_json(pa.table({"it": chunk}), ["it"])]
    values = [row["it"] for row in rows]
    return _json(pa.array([None if each is None else _dump(each) for each in values], pa.string()))


def _between(before: str, texts: pa.Array, after: str) -> pa.Array:
    return pc.binary_join_element_wise(before, texts, after, "")


def _json(texts: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.json_(), texts)


def _chunks(column: pa.Array | pa.ChunkedArray) -> list[pa.Array]:
    return column.chunks if isinstance(column, pa.ChunkedArray) else [column]
