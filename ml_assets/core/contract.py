"""Judging raw rows by their contract: which go on, which go to quarantine, and why.

The contract itself (columns, types, ranges) is a Pandera model of the use case. Cleaning good rows
further belongs in `ml_assets.core.features`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pa

_FAILURE = ["position", "reason", "column", "value"]


class ContractError(ValueError):
    """The source as a whole, or a whole day of it, breaks the contract."""


@dataclass(frozen=True)
class Judged:
    """The outcome of judging some days of raw rows.

    Attributes:
        good: Rows that passed, with the contract's columns and types, ordered by day and key.
        quarantine: Rows that did not, as `core.tables.Quarantine` with the key's own name.
        extraction: One account per day, as `core.tables.Extraction`.
    """

    good: pd.DataFrame
    quarantine: pd.DataFrame
    extraction: pd.DataFrame


def judge(
    rows: pd.DataFrame,
    schema: pa.DataFrameSchema,
    *,
    days: Sequence[str],
    key: str,
    received_at: str,
    updated_at: str,
    zone: ZoneInfo,
) -> Judged:
    """Split raw rows into good ones and quarantine, and account for every one of them.

    Exact copies of a row are dropped and counted. Rows of a day that share a key and differ are all
    quarantined, since nothing tells which of them is right.

    Args:
        rows: What the source returned, any dtypes; extra columns are ignored.
        schema: Contract of the raw rows, including the `day` column, which is added here.
        days: The days that were asked for; each gets an account, also when it has no rows.
        key: Column that names a row.
        received_at: Column that decides a row's day in `zone`.
        updated_at: Column with the source's last change.
        zone: The time zone of the days.

    Raises:
        ContractError: A column of the contract is missing in the source, or its instants have no
            time zone.
    """
    wanted = [column for column in schema.columns if column != "day"]
    if missing := [column for column in wanted if column not in rows.columns]:
        raise ContractError(
            f"the source query returns no column {', '.join(map(repr, missing))}. "
            f"It returns: {', '.join(map(str, rows.columns))}. "
            "Mend the .sql file or the contract in schema.py."
        )
    for name in (received_at, updated_at):
        if pd.api.types.is_datetime64_dtype(rows[name].dtype):
            raise ContractError(
                f"{name} has no time zone, so nothing tells which day a row belongs to. Give it "
                f"one in the .sql file: {name} AT TIME ZONE '{zone}' AS {name}"
            )
    rows = rows[wanted].reset_index(drop=True)
    rows.insert(0, "day", _local_days(rows[received_at], zone))
    read, newest = rows["day"], pd.to_datetime(rows[updated_at], utc=True, errors="coerce")
    rows = _drop_exact_copies(rows, key)
    typed, failures = _coerce(rows, schema, key)
    unreadable = {position for position, *_ in failures}
    good = _typed(typed.drop(index=list(unreadable)), schema)
    failures += _validate(good, schema)
    failures += [
        (position, "duplicate_key", key, str(value))
        for position, value in rows.loc[_shares_key(rows, key), key].astype(object).items()
    ]
    quarantine = _quarantine(rows, failures, list(schema.columns), key)
    bad = {position for position, *_ in failures}
    good = good.drop(index=list(bad - unreadable)).sort_values(["day", key])
    counted = {"rows_read": read, "rows_kept": good["day"], "rows_quarantined": quarantine["day"]}
    account = pd.DataFrame(
        {name: days_of_rows.value_counts() for name, days_of_rows in counted.items()},
        index=pd.Index(days, name="day"),
    )
    account = account.fillna(0).astype("int64")
    account["duplicates_dropped"] = read.value_counts().sub(
        rows["day"].value_counts(), fill_value=0
    )
    account["duplicates_dropped"] = account["duplicates_dropped"].fillna(0).astype("int64")
    account["newest_updated_at"] = newest.groupby(read).max().astype("datetime64[us, UTC]")
    return Judged(good.reset_index(drop=True), quarantine, account.reset_index())


def refuse_bad_days(judged: Judged, max_bad_share: float) -> None:
    """Refuse days in which too large a share of the rows is bad.

    Args:
        judged: What `judge` found.
        max_bad_share: Largest share of a day's rows that may be in quarantine, 0 to 1.

    Raises:
        ContractError: Naming each such day, its share and its most frequent reasons.
    """
    account = judged.extraction
    judged_rows = (account["rows_read"] - account["duplicates_dropped"]).clip(lower=1)
    share = account["rows_quarantined"] / judged_rows
    lines = []
    for day, bad_share in share[share > max_bad_share].groupby(account["day"]).first().items():
        reasons = judged.quarantine[judged.quarantine["day"] == day]
        worst = reasons.value_counts(["reason", "column"]).head(3)
        reason, column = worst.index[0]
        text = ", ".join(f"{count} x {reason} in {col}" for (reason, col), count in worst.items())
        example = reasons[(reasons["reason"] == reason) & (reasons["column"] == column)].iloc[0]
        lines.append(
            f"{day}: {bad_share:.1%} of the rows break the contract ({text}; "
            f"for example {example['column']} = {example['value']!r})"
        )
    if lines:
        raise ContractError(
            "\n".join(lines) + f"\nAt most {max_bad_share:.1%} of a day may (contract.max_bad_share"
            "). Nothing was written. Have the source mended, or change the contract in schema.py, "
            "then materialise the day again."
        )


def _local_days(instants: pd.Series, zone: ZoneInfo) -> pd.Series:
    local = pd.to_datetime(instants, utc=True).dt.tz_convert(zone).dt.tz_localize(None)
    # A tenth of the time that strftime takes.
    days = np.datetime_as_string(local.to_numpy().astype("datetime64[D]"), unit="D")
    return pd.Series(days, index=instants.index, dtype=object)


def _drop_exact_copies(rows: pd.DataFrame, key: str) -> pd.DataFrame:
    """Keep the first of rows that are the same in every column."""
    # Only rows that share a key can be copies; comparing all columns of all rows would be slow.
    candidates = rows[rows.duplicated(["day", key], keep=False)]
    return rows.drop(index=candidates.index[candidates.duplicated()])


def _shares_key(rows: pd.DataFrame, key: str) -> pd.Series:
    return rows.duplicated(["day", key], keep=False) & rows[key].notna()


def _coerce(
    rows: pd.DataFrame, schema: pa.DataFrameSchema, key: str
) -> tuple[pd.DataFrame, list[tuple[Any, str, str, str | None]]]:
    """Read every value as its column's type; what cannot be read, or is missing, is a failure."""
    failures: list[tuple[Any, str, str, str | None]] = []
    typed: dict[str, pd.Series] = {}
    for name, column in schema.columns.items():
        values = rows[name]
        typed[name] = read = _read_as(values, column.dtype.type)
        absent = values.isna()
        for position in rows.index[read.isna() & ~absent]:
            failures.append((position, "wrong_type", name, str(values[position])))
        if not column.nullable:
            reason = "missing_key" if name == key else "missing_value"
            failures += [(position, reason, name, None) for position in rows.index[absent]]
    return pd.DataFrame(typed, index=rows.index), failures


def _read_as(values: pd.Series, dtype: Any) -> pd.Series:
    """The values as `dtype` would have them, with a missing value for each that cannot be read."""
    if isinstance(dtype, pd.DatetimeTZDtype):
        instants = pd.to_datetime(values, utc=True, errors="coerce")
        return instants.astype("datetime64[us, UTC]")
    if _is_text(dtype):
        return values.where(values.map(type).eq(str) | values.isna())
    numbers = pd.to_numeric(values, errors="coerce")
    if pd.api.types.is_integer_dtype(dtype):
        # A value too large for the type must not wrap round into another, valid one.
        bounds = np.iinfo(getattr(dtype, "numpy_dtype", dtype))
        exact = 2**53 if pd.api.types.is_float_dtype(numbers) else bounds.max
        low, high = max(bounds.min, -exact), min(bounds.max, exact)
        numbers = numbers.where(numbers.between(low, high))
    if pd.api.types.is_integer_dtype(numbers):
        return numbers
    numbers = numbers.where(np.isfinite(numbers.astype("float64")))
    if pd.api.types.is_integer_dtype(dtype):
        numbers = numbers.where(numbers.astype("float64").mod(1).eq(0))
    return numbers


def _is_text(dtype: Any) -> bool:
    return bool(pd.api.types.is_object_dtype(dtype) or pd.api.types.is_string_dtype(dtype))


def _typed(rows: pd.DataFrame, schema: pa.DataFrameSchema) -> pd.DataFrame:
    """Rows without missing or unreadable values, in the contract's own dtypes and column order."""
    return pd.DataFrame(
        {
            name: rows[name].astype(object if _is_text(column.dtype.type) else column.dtype.type)
            for name, column in schema.columns.items()
        },
        index=rows.index,
    )


def _validate(
    typed: pd.DataFrame, schema: pa.DataFrameSchema
) -> list[tuple[Any, str, str, str | None]]:
    """Let Pandera judge ranges and categories of rows whose types are right."""
    try:
        schema.validate(typed, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        if (broken := cases[cases["index"].isna()]).size:
            raise ContractError(
                f"the contract cannot judge the rows: {broken.to_dict('records')}"
            ) from errors
        return [
            (
                case["index"],
                "unknown_category" if str(case["check"]).startswith("isin") else "out_of_range",
                str(case["column"]),
                str(case["failure_case"]),
            )
            for case in cases.to_dict("records")
        ]
    return []


def _quarantine(
    rows: pd.DataFrame,
    failures: list[tuple[Any, str, str, str | None]],
    order: list[str],
    key: str,
) -> pd.DataFrame:
    """One line per bad row: its first failure in the contract's column order."""
    found = pd.DataFrame(failures, columns=_FAILURE)
    found["rank"] = found["column"].map({name: rank for rank, name in enumerate(order)})
    found = found.sort_values(["position", "rank"], kind="stable").drop_duplicates("position")
    bad = rows.loc[found["position"].to_list()]
    keys = bad[key].astype(object)
    table = pd.DataFrame(
        {
            "day": bad["day"].to_numpy(object),
            key: keys.where(keys.isna(), keys.astype(str)).where(keys.notna(), None).to_numpy(),
            "reason": found["reason"].to_numpy(object),
            "column": found["column"].to_numpy(object),
            "value": found["value"].to_numpy(object),
            "row": [_as_json(row) for row in bad.drop(columns="day").to_dict("records")],
        }
    ).astype(object)
    return table.sort_values(["day", "row"], ignore_index=True)


def _as_json(row: dict[Any, Any]) -> str:
    plain = {name: None if pd.isna(value) else value for name, value in row.items()}
    return json.dumps(plain, default=_plain, ensure_ascii=False, sort_keys=True)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
