"""Judging raw rows by their contract: which go on, which go to quarantine, and why.

The contract itself (columns, types, ranges) is a Pandera model of the use case. How values are read
as its types is in `ml_assets.core.reading`, how a source's columns compare with it in
`ml_assets.core.evolution`; cleaning good rows further belongs in `ml_assets.core.features`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.core.evolution import (
    ContractError,
    absent_columns,
    columns_of,
    judge_columns,
    may_be_missing,
    new_columns,
)
from ml_assets.core.raw_rows import ASSIGNED_DAY, ORIGIN, from_json, to_json, told, without_views
from ml_assets.core.reading import (
    Positions,
    Read,
    all_missing,
    as_pandas,
    joined,
    kind_of,
    local_days,
    read,
)

__all__ = ["ASSIGNED_DAY", "ORIGIN", "ContractError", "Judged", "bad_days", "judge", "rejudge"]

_LONGEST_VALUE = 200


@dataclass(frozen=True)
class Judged:
    """The outcome of judging some days of raw rows.

    Attributes:
        good: Rows that passed, with the contract's columns and types, ordered by day and key.
        quarantine: Rows that did not: day, key, reason, column, value, row (as it came, as JSON)
            and origin.
        extraction: One account per day, as `core.tables.Extraction` without the fingerprint.
        ignored: Columns of the source that the contract does not know.
        absent: Optional columns of the contract that the source does not have.
    """

    good: pd.DataFrame
    quarantine: pd.DataFrame
    extraction: pd.DataFrame
    ignored: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


def judge(
    rows: pa.Table,
    schema: pandera.DataFrameSchema,
    *,
    days: Sequence[str],
    key: str,
    received_at: str,
    updated_at: str,
    zone: ZoneInfo,
) -> Judged:
    """Split raw rows into good ones and quarantine, and account for every one of them.

    Of every day, rows read = rows kept + rows in quarantine + exact copies dropped. Rows are copies
    when every column of the contract is read the same, whatever else the source adds. Rows of a day
    that share a key and differ are all quarantined, since nothing tells which of them is right.

    A row is counted in its `ASSIGNED_DAY` if the source gives it one, else in the local day of its
    `received_at`; if that cannot be read, in the first of `days`. A row whose `received_at`
    contradicts its assigned day goes to quarantine, as `outside_days`.

    Args:
        rows: What the source gave, typed or as text; columns that the contract does not know are
            ignored, but kept with the rows in quarantine.
        schema: Contract of the raw rows, including the `day` column, which is added here.
        days: The days that were asked for; each gets an account, also when it has no rows.
        key: Column that names a row.
        received_at: Column that decides a row's day in `zone`.
        updated_at: Column with the source's last change.
        zone: The time zone of the days.

    Raises:
        ContractError: A required column is missing, or renamed, or most of its values are not of
            the contract's type; timestamps have no time zone; or there are rows of other days.
    """
    rows = without_views(rows)
    judging = _Judging(schema, days, key, received_at, updated_at, zone)
    columns = judge_columns(rows, schema, zone, received_at)
    return judging.verdict([rows], columns, new_columns(rows, schema), absent_columns(rows, schema))


def rejudge(
    good: pd.DataFrame,
    quarantine: pd.DataFrame,
    schema: pandera.DataFrameSchema,
    *,
    days: Sequence[str],
    key: str,
    received_at: str,
    updated_at: str,
    zone: ZoneInfo,
) -> Judged:
    """Judge stored rows again, good and quarantined together, by the contract as it is now.

    Rows that `judge` would decide upon as before come out as they were, byte by byte. Exact copies
    were dropped when the rows were first read, so the account says nothing of those.

    Args:
        good: All good rows of the days, as stored.
        quarantine: All rows in quarantine of the days, as stored: `day`, `row` and `origin` are
            used. Each stays in its day.
        schema: See `judge`, as for all that follow.
        days: The days that the rows are of.
        key: Column that names a row.
        received_at: Column that decides a row's day in `zone`.
        updated_at: Column with the source's last change.
        zone: The time zone of the days.

    Raises:
        ContractError: The good rows lack a column that the contract requires by now, or hold
            another type; the days must be read from the source anew.
        ValueError: A quarantined row is not JSON.
    """
    kept = pa.Table.from_pandas(good.drop(columns="day"), preserve_index=False)
    bad = from_json(quarantine["row"].tolist())
    bad = bad.append_column(ASSIGNED_DAY, pa.array(quarantine["day"], pa.string()))
    bad = bad.append_column(ORIGIN, pa.array(quarantine["origin"], pa.string(), from_pandas=True))
    judging = _Judging(schema, days, key, received_at, updated_at, zone)
    of_kept = judge_columns(kept, schema, zone, received_at)
    columns = {
        # A row in quarantine may lack anything: it is judged by itself, not by its columns.
        name: joined([of_kept[name], _read_or_missing(bad, name, column.dtype.type)])
        for name, column in columns_of(schema).items()
    }
    return judging.verdict([kept, bad], columns, (), absent_columns(kept, schema))


def bad_days(judged: Judged, max_bad_share: float) -> dict[str, str]:
    """The days in which too large a share of the rows is bad, with a sentence on each.

    The sentence names the share, the most frequent reasons and an example.

    Args:
        judged: What `judge` found.
        max_bad_share: Largest share of a day's rows that may be in quarantine, 0 to 1.
    """
    account = judged.extraction
    judged_rows = (account["rows_read"] - account["duplicates_dropped"]).clip(lower=1)
    shares = (account["rows_quarantined"] / judged_rows).set_axis(account["day"])
    sentences = {}
    for day, share in shares[shares > max_bad_share].items():
        found = judged.quarantine[judged.quarantine["day"] == day]
        worst = (
            found.value_counts(["reason", "column"])
            .sort_index()
            .sort_values(ascending=False, kind="stable")
        )
        reason, column = worst.index[0]
        text = ", ".join(f"{n} x {why} in {where}" for (why, where), n in worst.head(3).items())
        example = found[(found["reason"] == reason) & (found["column"] == column)].iloc[0]
        sentences[str(day)] = (
            f"{share:.1%} of the rows break the contract ({text}; for example "
            f"{example['column']} = {example['value']!r}); at most {max_bad_share:.1%} may "
            "(contract.max_bad_share)"
        )
    return sentences


@dataclass(frozen=True)
class _Judging:
    """The rules that rows are judged by."""

    schema: pandera.DataFrameSchema
    days: Sequence[str]
    key: str
    received_at: str
    updated_at: str
    zone: ZoneInfo

    def verdict(
        self,
        tables: list[pa.Table],
        columns: dict[str, Read],
        ignored: tuple[str, ...],
        absent: tuple[str, ...],
    ) -> Judged:
        """Judge rows whose columns have been read, given as one or more tables."""
        raw = _RawRows(tables, self._texts())
        failures = _Failures(list(self.schema.columns))
        day, day_failures = self._days(tables, columns[self.received_at])
        failures.add(day_failures, self.received_at, "outside_days")
        for name, column in columns_of(self.schema).items():
            found = columns[name]
            if not may_be_missing(column):
                reason = "missing_key" if name == self.key else "missing_value"
                failures.add(found.missing(), name, reason)
            failures.add(np.setdiff1d(found.wrong, found.zoneless), name, "wrong_type")
            failures.add(found.zoneless, name, "no_time_zone")
        unreadable = failures.positions()

        keys = columns[self.key].values
        order, shared = _ordered(day, keys)
        copy_of = self._copies(shared, day, columns, raw)
        kept = copy_of == np.arange(len(day))
        twins = _twins(shared[kept[shared]], day, keys)
        failures.add(twins, self.key, "duplicate_key")

        readable = kept.copy()
        readable[unreadable] = False
        order = order[readable[order]]
        frame = self._frame(order, day, columns)
        for position, column, reason in _validate(frame, self.schema):
            failures.add(order[position], column, reason)
        bad = failures.positions()
        is_bad = np.zeros(len(day), dtype=bool)
        is_bad[bad] = True
        if is_bad[order].any():
            frame = frame.drop(index=np.flatnonzero(is_bad[order]))
            frame.index = pd.RangeIndex(len(frame))  # reset_index would copy it once more
        # Which of several bad copies is told of must not depend on the order they came in.
        told_of = np.flatnonzero(is_bad[copy_of])
        quarantine = self._quarantine(told_of, copy_of[told_of], day, failures, raw)
        account = self._account(day, kept, is_bad, columns[self.updated_at].values)
        return Judged(frame, quarantine, account, ignored, absent)

    def _texts(self) -> set[str]:
        columns = columns_of(self.schema)
        return {name for name, each in columns.items() if kind_of(each.dtype.type) == "text"}

    def _days(self, tables: list[pa.Table], received: Read) -> tuple[Positions, Positions]:
        """Each row's day as a position in `days`, and the rows whose instant contradicts it."""
        codes, names = local_days(received.values, self.zone)
        asked = {day: position for position, day in enumerate(self.days)}
        # The last place is for rows without an instant: -1.
        local = np.array([asked.get(name, -1) for name in names] + [-1], dtype=np.int64)[codes]
        unknown = codes == -1
        assigned = np.concatenate([_assigned(table, asked) for table in tables])
        day = np.where(assigned >= 0, assigned, np.where(unknown, 0, local))
        if (stray := np.flatnonzero(day < 0)).size:
            others = sorted({names[code] for code in np.unique(codes[stray])})
            raise ContractError(
                f"the source gave {stray.size:,} rows received on days that were not asked for: "
                f"{', '.join(others[:3])}{' …' if len(others) > 3 else ''}. Let the query return "
                f"rows with {self.received_at} >= :start and {self.received_at} < :end alone."
            )
        return day, np.flatnonzero((assigned >= 0) & ~unknown & (local != assigned))

    def _copies(
        self, shared: Positions, day: Positions, columns: dict[str, Read], raw: "_RawRows"
    ) -> Positions:
        """For each row the first one that it is a copy of: mostly itself."""
        copy_of = np.arange(len(day))
        if not shared.size:
            return copy_of
        shared = np.sort(shared)
        codes = [day[shared]]
        wrong: dict[int, dict[str, Any]] = {}
        for name, column in columns.items():
            values = column.values.take(pa.array(shared)).to_pandas()
            codes.append(pd.factorize(values, use_na_sentinel=False)[0])
            for position in np.intersect1d(column.wrong, shared):
                wrong.setdefault(int(position), {})[name] = None
        if wrong:
            # What cannot be read is the same only if it is written the same.
            positions = sorted(wrong)
            for position, text in zip(positions, raw.json(np.array(positions)), strict=True):
                row = json.loads(text)
                wrong[position] = {name: row[name] for name in wrong[position]}
            texts = [json.dumps(wrong.get(int(position))) for position in shared]
            codes.append(pd.factorize(np.array(texts, dtype=object))[0])
        _, first, group = np.unique(
            np.column_stack(codes), axis=0, return_index=True, return_inverse=True
        )
        copy_of[shared] = shared[first[group.reshape(-1)]]
        return copy_of

    def _frame(self, order: Positions, day: Positions, columns: dict[str, Read]) -> pd.DataFrame:
        """The rows at these positions, in the contract's own dtypes and column order."""
        places = pa.array(order)
        names = np.array([*self.days], dtype=object)
        series: dict[str, Any] = {}
        for name, column in self.schema.columns.items():
            if name == "day":
                series[name] = names[day[order]]
            else:
                series[name] = as_pandas(columns[name].values.take(places), column.dtype.type)
        return pd.DataFrame(series, copy=False)

    def _quarantine(
        self,
        positions: Positions,
        copy_of: Positions,
        day: Positions,
        failures: "_Failures",
        raw: "_RawRows",
    ) -> pd.DataFrame:
        """One line per bad row: its first failure in the contract's column order."""
        reasons, where = failures.first(copy_of)
        texts = raw.json(positions)
        values = []
        keys = []
        for text, column in zip(texts, where, strict=True):
            row = json.loads(text)
            keys.append(told(row.get(self.key)))
            value = told(row.get(column))
            values.append(None if value is None else value[:_LONGEST_VALUE])
        table = pd.DataFrame(
            {
                "day": [self.days[code] for code in day[positions]],
                self.key: keys,
                "reason": reasons,
                "column": where,
                "value": values,
                "row": texts,
                "origin": raw.origins(positions),
                "copy_of": copy_of,
            },
            dtype=object,
        )
        table = table.sort_values(["day", "row", "origin"], ignore_index=True)
        return table.drop_duplicates("copy_of", ignore_index=True).drop(columns="copy_of")

    def _account(self, day: Positions, kept: Any, is_bad: Any, updated: pa.Array) -> pd.DataFrame:
        def per_day(rows: Any) -> Any:
            return np.bincount(day[rows], minlength=len(self.days))

        newest = pd.Series(updated.to_pandas()).groupby(day).max()
        return pd.DataFrame(
            {
                "day": np.array([*self.days], dtype=object),
                "rows_read": per_day(slice(None)),
                "rows_kept": per_day(kept & ~is_bad),
                "rows_quarantined": per_day(kept & is_bad),
                "duplicates_dropped": per_day(~kept),
                "newest_updated_at": newest.reindex(range(len(self.days))).astype(
                    "datetime64[us, UTC]"
                ),
            }
        )


class _RawRows:
    """The rows as they came, in one or more tables, found by their position."""

    def __init__(self, tables: list[pa.Table], texts: set[str]) -> None:
        self._tables = tables
        self._texts = texts
        self._starts = np.cumsum([0, *(len(table) for table in tables)])

    def json(self, positions: Positions) -> list[str]:
        return [text for part in self._parts(positions) for text in to_json(part, self._texts)]

    def origins(self, positions: Positions) -> list[str | None]:
        return [
            origin
            for part in self._parts(positions)
            for origin in (
                part[ORIGIN].to_pylist() if ORIGIN in part.column_names else [None] * len(part)
            )
        ]

    def _parts(self, positions: Positions) -> list[pa.Table]:
        """Ascending positions' rows, table by table."""
        bounds = np.searchsorted(positions, self._starts)
        return [
            table.take(pa.array(positions[low:high] - start))
            for table, start, low, high in zip(
                self._tables, self._starts, bounds, bounds[1:], strict=False
            )
            if high > low
        ]


class _Failures:
    """What was found wrong with which rows."""

    def __init__(self, columns: list[str]) -> None:
        self._ranks = {name: rank for rank, name in enumerate(columns)}
        self._found: list[tuple[Positions, str, str]] = []

    def add(self, positions: Positions, column: str, reason: str) -> None:
        if positions.size:
            self._found.append((positions, column, reason))

    def positions(self) -> Positions:
        """All rows with a failure, ascending."""
        return np.unique(np.concatenate([_NOWHERE, *(found[0] for found in self._found)]))

    def first(self, positions: Positions) -> tuple[list[str], list[str]]:
        """The reason and the column of each row's first failure, in the columns' order."""
        ordered = sorted(self._found, key=lambda found: self._ranks.get(found[1], len(self._ranks)))
        first: dict[int, tuple[str, str]] = {}
        for places, column, reason in ordered:
            for position in places.tolist():
                first.setdefault(position, (reason, column))
        found = [first[position] for position in positions.tolist()]
        return [reason for reason, _ in found], [column for _, column in found]


_NOWHERE: Positions = np.zeros(0, dtype=np.int64)


def _read_or_missing(table: pa.Table, name: str, dtype: Any) -> Read:
    if name in table.column_names:
        return read(table[name], dtype)
    return all_missing(len(table), dtype)


def _assigned(table: pa.Table, asked: dict[str, int]) -> Positions:
    """The assigned days as positions in the days asked for; -1 where none is assigned."""
    if ASSIGNED_DAY not in table.column_names:
        return np.full(len(table), -1, dtype=np.int64)
    days = table[ASSIGNED_DAY].cast(pa.string())
    known = pc.index_in(days, pa.array([*asked], pa.string()))
    if (strange := pc.and_(days.is_valid(), known.is_null())) and pc.any(strange).as_py():
        others = pc.unique(days.filter(strange)).to_pylist()
        raise ContractError(f"rows are assigned to days that were not asked for: {others[:3]}")
    return known.fill_null(-1).to_numpy().astype(np.int64)


def _ordered(day: Positions, keys: pa.Array) -> tuple[Positions, Positions]:
    """The rows' order by day and key, and those that share both with another."""
    table = pa.table({"day": day, "key": keys})
    order = pc.sort_indices(table, [("day", "ascending"), ("key", "ascending")]).to_numpy()
    order = order.astype(np.int64)
    if len(order) < 2:
        return order, _NOWHERE
    places = pa.array(order)
    days, sorted_keys = day[order], keys.take(places)
    same_key = pc.equal(sorted_keys.slice(1), sorted_keys.slice(0, len(order) - 1))
    same = same_key.fill_null(False).to_numpy(zero_copy_only=False) & (days[1:] == days[:-1])
    if keys.null_count:
        gone = sorted_keys.is_null().to_numpy(zero_copy_only=False)
        same |= gone[1:] & gone[:-1] & (days[1:] == days[:-1])
    shares = np.zeros(len(order), dtype=bool)
    shares[1:] |= same
    shares[:-1] |= same
    return order, order[shares]


def _twins(rows: Positions, day: Positions, keys: pa.Array) -> Positions:
    """Those of the rows that share day and key with another of them."""
    frame = pd.DataFrame({"day": day[rows], "key": keys.take(pa.array(rows)).to_pandas()})
    twins = frame.duplicated(keep=False) & frame["key"].notna()
    return np.sort(rows[twins.to_numpy()])


def _validate(
    frame: pd.DataFrame, schema: pandera.DataFrameSchema
) -> list[tuple[Positions, str, str]]:
    """Let Pandera judge ranges and categories of rows whose types are right."""
    # It would look at every text again, to see whether it is one: more than half of its time.
    texts = [name for name, each in schema.columns.items() if kind_of(each.dtype.type) == "text"]
    schema = schema.update_columns({name: {"dtype": None} for name in texts})
    try:
        schema.validate(frame, lazy=True, inplace=True)  # ours alone, so it need not be copied
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        if (broken := cases[cases["index"].isna()]).size:
            raise ContractError(
                f"the contract cannot judge the rows: {broken.to_dict('records')}"
            ) from errors
        checks = cases["check"].astype(str)
        reasons = np.where(checks.str.startswith("isin"), "unknown_category", "out_of_range")
        # A check of whole rows is of no column: it is told by its own name.
        columns = cases["column"].where(cases["schema_context"] == "Column", checks)
        return [
            (found["index"].to_numpy(np.int64), str(column), str(reason))
            for (column, reason), found in cases.groupby([columns, reasons], sort=False)
        ]
    return []
