"""How a source's columns compare with the contract: the same, new, missing, renamed or changed.

Sources change without asking. A new column does no harm, and neither does a missing one that the
contract calls optional; anything else must stop the day, with words that let a person mend it.
Judging the rows themselves is in `ml_assets.core.contract`.
"""

import difflib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa

from ml_assets.core.raw_rows import (
    ASSIGNED_DAY,
    ORIGIN,
    RAW,
    RESERVED,
    is_json,
    to_json,
)
from ml_assets.core.raw_rows import told as in_words
from ml_assets.core.reading import (
    Kind,
    Positions,
    Read,
    all_missing,
    as_pandas,
    kind_of,
    local_days,
    read,
)
from ml_assets.core.texts import visible

Verdict = Literal["ok", "ignored", "optional_missing", "missing", "renamed", "changed_type"]

_KINDS: dict[Kind, str] = {
    "text": "text",
    "whole": "whole number",
    "number": "number",
    "flag": "true or false",
    "instant": "instant with time zone",
}
_SIMILAR = 0.6  # of two names, as difflib counts; its own default for close matches
_TRIED_ROWS = 1_000  # enough to tell whether a column's values suit the contract
_MORE_THAN_ODD = 10  # wrong values; fewer among missing ones are rows to quarantine
_LONGEST_EXAMPLE = 40


class ContractError(ValueError):
    """The source as a whole, or a whole day of it, breaks the contract."""


@dataclass(frozen=True)
class Difference:
    """One column of the contract or of the source, and how the two compare.

    Attributes:
        column: Its name.
        expected: Type and range by the contract, in words; empty if it does not know the column.
        found: What the source has, in words; empty if it has no such column.
        verdict: `ok`, `ignored` (new), `optional_missing`, or what makes a day fail: `missing`,
            `renamed`, `changed_type`.
        breaking: Share of the rows that break the contract here; none if there is nothing to judge.
        suggestion: The column of the source that is likely meant, if one is missing.
    """

    column: str
    expected: str
    found: str
    verdict: Verdict
    breaking: float | None = None
    suggestion: str | None = None

    @property
    def fails(self) -> bool:
        """Whether a day with such a column cannot be read."""
        return self.verdict in ("missing", "renamed", "changed_type")


def columns_of(schema: pandera.DataFrameSchema) -> dict[str, Any]:
    """The contract's columns that a source has to give: all but `day`."""
    return {name: column for name, column in schema.columns.items() if name != "day"}


def may_be_missing(column: Any) -> bool:
    """Whether rows may have no value there: the contract says so, and its dtype can hold none."""
    dtype = column.dtype.type
    return bool(column.nullable) and not (isinstance(dtype, np.dtype) and dtype.kind in "iub")


def is_optional(column: Any) -> bool:
    """Whether the source may lack the column, which then holds missing values alone."""
    return not column.required and may_be_missing(column)


def new_columns(rows: pa.Table, schema: pandera.DataFrameSchema) -> tuple[str, ...]:
    """The source's columns that the contract does not know, in the source's order."""
    known = columns_of(schema).keys() | RESERVED
    return tuple(name for name in rows.column_names if name not in known)


def absent_columns(rows: pa.Table, schema: pandera.DataFrameSchema) -> tuple[str, ...]:
    """The optional columns of the contract that the source does not have."""
    return tuple(
        name
        for name, column in columns_of(schema).items()
        if is_optional(column) and name not in rows.column_names
    )


def judge_columns(
    rows: pa.Table, schema: pandera.DataFrameSchema, zone: ZoneInfo, received_at: str
) -> dict[str, Read]:
    """Read every column of the contract, once it is sure that the columns are the ones meant.

    An optional column that is absent is read as missing values. A column has changed its type when
    on some day most of the values that it holds cannot be read, and these are not just a few; where
    there are none, nothing can be told. Each day is looked at by itself, so that a range of days
    comes to what its days come to one by one.

    Args:
        rows: Rows as the source gives them.
        schema: Contract of the raw rows.
        zone: The time zone of the days.
        received_at: Column that decides a row's day, where the source has not assigned one.

    Raises:
        ContractError: Columns share a name, or a required one is missing, was renamed or changed
            its type: with expected and found side by side, and the likely rename.
    """
    _refuse_names(rows)
    _refuse_zoneless(rows, schema, zone)
    columns = columns_of(schema)
    if _missing(rows, schema):
        raise ContractError(_told(compare(rows, schema)))
    reads = {
        name: read(rows[name], column.dtype.type)
        if name in rows.column_names
        else all_missing(len(rows), column.dtype.type)
        for name, column in columns.items()
    }
    if suspects := [each for each in reads.values() if len(each.wrong)]:
        days = _days(rows, reads[received_at], zone)
        changed = np.concatenate([_changed_days(each, days) for each in suspects])
        if len(changed):
            of_first = np.flatnonzero(days == changed.min())
            raise ContractError(_told(compare(rows.take(pa.array(of_first)), schema)))
    return reads


def compare(rows: pa.Table, schema: pandera.DataFrameSchema) -> list[Difference]:
    """Compare a source's columns with the contract: all of the contract's, then the new ones.

    Args:
        rows: Rows as the source gives them now.
        schema: Contract of the raw rows.

    Raises:
        ContractError: Columns share a name.
    """
    _refuse_names(rows)
    new = new_columns(rows, schema)
    renames = _likely_renames(rows, schema, _missing(rows, schema), new)
    found = []
    for name, column in columns_of(schema).items():
        expected = _expected(column)
        if name in rows.column_names:
            found.append(_compared(name, column, rows, expected))
        elif rename := renames.get(name):
            found.append(Difference(name, expected, "", "renamed", None, rename))
        else:
            verdict: Verdict = "optional_missing" if is_optional(column) else "missing"
            found.append(Difference(name, expected, "", verdict))
    ignored = [Difference(name, "", _found(rows[name]), "ignored") for name in new]
    return found + ignored


def _refuse_names(rows: pa.Table) -> None:
    names = rows.column_names
    if shared := sorted({name for name in names if names.count(name) > 1}):
        raise ContractError(
            f"the source gives more than one column {', '.join(map(repr, shared))}, so nothing "
            "tells which of them is meant. Let each have a name of its own."
        )
    if RAW in names:
        raise ContractError(f"the source gives a column {RAW!r}, a name that is taken. Rename it.")


def _refuse_zoneless(rows: pa.Table, schema: pandera.DataFrameSchema, zone: ZoneInfo) -> None:
    for name, column in columns_of(schema).items():
        if name in rows.column_names and kind_of(column.dtype.type) == "instant":
            kind = rows[name].type
            if pa.types.is_timestamp(kind) and kind.tz is None:
                raise ContractError(
                    f"{name} has no time zone, so nothing tells which day a row belongs to. Give "
                    f"it one in the .sql file: {name} AT TIME ZONE '{zone}' AS {name}; or have "
                    "the files written with a zone."
                )


def _days(rows: pa.Table, received: Read, zone: ZoneInfo) -> Positions:
    """A number for each row's day, ascending; rows without a day belong to the first."""
    if ASSIGNED_DAY in rows.column_names:
        days = pd.factorize(rows[ASSIGNED_DAY].to_numpy(), sort=True)[0]
    else:
        days = local_days(received.values, zone)[0]
    known = days[days >= 0]
    return np.where(days >= 0, days, known.min() if len(known) else 0)


def _changed_days(found: Read, days: Positions) -> Positions:
    """The days on which values are of another type: most of them, and more than a few odd ones."""
    readable = found.values.is_valid().to_numpy(zero_copy_only=False)
    wrong, right, all_ = (
        np.bincount(part, minlength=int(days.max(initial=0)) + 1)
        for part in (days[found.wrong], days[readable], days)
    )
    return np.flatnonzero((wrong > right) & ((wrong >= _MORE_THAN_ODD) | (2 * wrong >= all_)))


def _missing(rows: pa.Table, schema: pandera.DataFrameSchema) -> list[str]:
    """Columns that the source lacks though it must not: required, or just written otherwise."""
    there = set(rows.column_names)
    plain = {_plain(name) for name in new_columns(rows, schema)}
    return [
        name
        for name, column in columns_of(schema).items()
        if name not in there and (not is_optional(column) or _plain(name) in plain)
    ]


def _plain(name: str) -> str:
    """A name without what people write differently: case, blanks, underscores."""
    return re.sub(r"[\W_]+", "", name.casefold())


def _likely_renames(
    rows: pa.Table, schema: pandera.DataFrameSchema, missing: Sequence[str], new: Sequence[str]
) -> dict[str, str]:
    """For missing columns the new one that is likely meant: by its name, or else by its values."""
    columns = columns_of(schema)

    @cache
    def suits(name: str, candidate: str) -> bool:
        values = rows[candidate].slice(0, _TRIED_ROWS)
        found = read(values, columns[name].dtype.type)
        return found.values.null_count < len(values) and _breaking(found, columns[name]) < 0.5

    similar = [
        (difflib.SequenceMatcher(None, _plain(name), _plain(candidate)).ratio(), name, candidate)
        for name in missing
        for candidate in new
    ]
    renames: dict[str, str] = {}
    close = [(suits(name, to), ratio, name, to) for ratio, name, to in similar if ratio >= _SIMILAR]
    for _, _, name, candidate in sorted(close, key=lambda each: (-each[1], not each[0])):
        if name not in renames and candidate not in renames.values():
            renames[name] = candidate
    for name in missing:
        left = [to for to in new if to not in renames.values() and suits(name, to)]
        if name not in renames and len(left) == 1:
            renames[name] = left[0]
    return renames


def _compared(name: str, column: Any, rows: pa.Table, expected: str) -> Difference:
    values = rows[name]
    found = read(values, column.dtype.type)
    zoneless = pa.types.is_timestamp(values.type) and values.type.tz is None
    as_one = np.zeros(len(values), dtype=np.int64)
    changed = len(_changed_days(found, as_one)) > 0
    changed = changed or (zoneless and kind_of(column.dtype.type) == "instant")
    example = int(found.wrong[0]) if len(found.wrong) else None
    told = _found(values, example, len(found.zoneless) > 0)
    if changed and example is not None and ORIGIN in rows.column_names:
        told += f" in {rows[ORIGIN][example].as_py()}"
    return Difference(
        name,
        expected,
        told,
        "changed_type" if changed else "ok",
        _breaking(found, column) if len(values) else None,
    )


def _breaking(found: Read, column: Any) -> float:
    """Share of a column's rows that break the contract of that column."""
    count = len(found.values)
    bad = np.zeros(count, dtype=bool)
    bad[found.wrong] = True
    if not may_be_missing(column):
        bad[found.missing()] = True
    places = np.flatnonzero(~bad)
    values = as_pandas(found.values.take(pa.array(places)), column.dtype.type)
    try:
        alone = pandera.DataFrameSchema({column.name: column})
        alone.validate(pd.DataFrame({column.name: values}), lazy=True)
    except pandera.errors.SchemaErrors as errors:
        broken = errors.failure_cases["index"].dropna().unique()
        bad[places[broken.astype(np.int64)]] = True
    return float(bad.mean()) if count else 0.0


def _expected(column: Any) -> str:
    words = [_KINDS[kind_of(column.dtype.type)], *_checks(column.checks)]
    if is_optional(column):
        words.append("optional")
    elif may_be_missing(column):
        words.append("may be missing")
    return ", ".join(words)


def _checks(checks: Sequence[Any]) -> list[str]:
    """A column's checks in words: bounds and categories plainly, others by their own name."""
    words: list[str] = []
    bounds: dict[str, Any] = {}
    for check in checks:
        facts = check.statistics or {}
        if check.name in ("greater_than_or_equal_to", "less_than_or_equal_to"):
            bounds.update(facts)
        elif check.name == "isin":
            words.append(f"one of {_listed(facts['allowed_values'])}")
        else:
            words.append(str(check.description or check.error or check.name))
    if len(bounds) == 2:
        words.insert(0, f"{bounds['min_value']:,} to {bounds['max_value']:,}")
    elif bounds:
        (name, bound), *_ = bounds.items()
        words.insert(0, f"{'from' if name == 'min_value' else 'up to'} {bound:,}")
    return words


def _listed(values: Sequence[Any]) -> str:
    texts = [str(value) for value in values]
    return ", ".join(texts) if len(texts) <= 7 else f"{texts[0]}, {texts[1]} … {texts[-1]}"


def _found(values: pa.ChunkedArray, position: int | None = None, zoneless: bool = False) -> str:
    """A source's column in words: its type and an example, the value at `position` if given."""
    kind = _kind_in_words(values.type)
    if values.null_count == len(values):
        return f"{kind}, no values" if not pa.types.is_null(values.type) else "no values"
    if zoneless and not pa.types.is_timestamp(values.type):
        kind += " without time zone"
    if position is None:
        valid = values.is_valid().to_numpy()
        position = int(np.argmax(valid))
    (row,) = to_json(pa.table({"value": values.slice(position, 1)}), ())
    value = json.loads(row)["value"]
    example = in_words(value) or ""
    if len(example) > _LONGEST_EXAMPLE:
        example = example[:_LONGEST_EXAMPLE] + "…"
    return f"{kind}, for example {repr(example) if isinstance(value, str) else example}"


_TYPES: list[tuple[Callable[[pa.DataType], bool], str]] = [
    (pa.types.is_string, "text"),
    (pa.types.is_large_string, "text"),
    (pa.types.is_string_view, "text"),
    (pa.types.is_boolean, "true or false"),
    (pa.types.is_integer, "whole number"),
    (pa.types.is_floating, "number"),
    (pa.types.is_decimal, "number"),
    (pa.types.is_date, "date"),
    (pa.types.is_binary, "bytes"),
    (pa.types.is_large_binary, "bytes"),
]


def _kind_in_words(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return _kind_in_words(kind.value_type)
    if pa.types.is_timestamp(kind):
        return "instant with time zone" if kind.tz else "instant without time zone"
    if is_json(kind):
        return "JSON"
    return next((words for is_it, words in _TYPES if is_it(kind)), str(kind))


def _in_columns(lines: Sequence[Sequence[str]]) -> str:
    """Lines of text cells as a table whose columns line up."""
    rows = [[visible(cell) for cell in line] for line in lines]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def remedy(differences: Sequence[Difference]) -> str:
    """What to do about columns that make a day fail, in a sentence or two; empty if none does."""
    failing = [each for each in differences if each.fails]
    if not failing:
        return ""
    sentences = []
    if renames := [each for each in failing if each.suggestion]:
        pairs = ", ".join(f"{each.column} is now called {each.suggestion!r}" for each in renames)
        sql = ", ".join(f"{_quoted(each.suggestion or '')} AS {each.column}" for each in renames)
        sentences.append(f"Likely {pairs}. In the .sql file write {visible(sql)}.")
    for each in failing:
        if "without time zone" in each.found:
            sentences.append(
                f"Nothing tells which instant {each.column} means: give it a time zone, in the "
                f".sql file with {each.column} AT TIME ZONE '…' AS {each.column}."
            )
    sentences.append(
        "Have the source mended, or change the contract in schema.py, then materialise the day "
        "again."
    )
    return " ".join(sentences)


def _quoted(name: str) -> str:
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def _told(differences: Sequence[Difference]) -> str:
    failing = [each for each in differences if each.fails]
    lines = [("column", "expected", "found")]
    for each in failing:
        found = each.found or "no such column"
        if each.suggestion:
            (renamed,) = [other for other in differences if other.column == each.suggestion]
            found = f"no such column; {each.suggestion!r} ({renamed.found}) looks like it"
        lines.append((each.column, each.expected, found))
    unknown = [each.column for each in differences if each.verdict == "ignored"]
    listed = (
        f"\nColumns that the contract does not know: {visible(', '.join(unknown))}."
        if unknown
        else ""
    )
    return (
        f"the source does not keep the contract in {len(failing)} "
        f"column{'s' if len(failing) > 1 else ''}:\n{_in_columns(lines)}{listed}\n"
        f"{remedy(differences)}"
    )
