"""What a training set looks like: missing values, distributions, correlations, repeated columns.

What the notebook looked at by eye, as values that plots and tables can be made of. Judging rows by
a contract is in `ml_assets.core.contract`, judging a model in `ml_assets.core.evaluation`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

# Whole-number amounts repeat a real one up to rounding: in the notebook's table, income repeats
# insurance_hist_5 with 1 - |r| = 5e-11. Columns that are merely close are far from this: the next
# pair there, insurance_hist_5 and income level, has 0.118.
_SAME = 1e-6


@dataclass(frozen=True)
class Histogram:
    """A column of numbers in equal bins; of whole numbers, each bin spans as many.

    Attributes:
        edges: Bounds of the bins, one more than there are bins.
        rows: Rows in each bin.
        positives: Those of them with a positive outcome.
    """

    edges: tuple[float, ...]
    rows: tuple[int, ...]
    positives: tuple[int, ...]


@dataclass(frozen=True)
class Count:
    """One value of a column of names: its rows, and those with a positive outcome."""

    value: str
    rows: int
    positives: int


@dataclass(frozen=True)
class Exploration:
    """What there is to see in labelled rows before any model.

    Attributes:
        rows: Number of rows.
        positives: How many have a positive outcome.
        missing: Missing values of each column.
        histograms: Of each column of numbers.
        counts: Of each column of names, the most frequent value first.
        correlation: Pearson's r between all columns of numbers and the outcome, which comes last;
            NaN where a column is constant.
        duplicates: Columns that repeat another, and that other: see `duplicate_columns`.
    """

    rows: int
    positives: int
    missing: dict[str, int]
    histograms: dict[str, Histogram]
    counts: dict[str, tuple[Count, ...]]
    correlation: pd.DataFrame
    duplicates: dict[str, str]


def explore(
    frame: pd.DataFrame,
    *,
    inputs: Sequence[str],
    categorical: Sequence[str],
    target: str,
    bins: int = 30,
) -> Exploration:
    """Describe labelled rows.

    Args:
        frame: Rows with known outcomes 0 and 1 in `target`.
        inputs: Columns to describe.
        categorical: Those inputs whose values are names.
        target: Column with the outcomes.
        bins: Number of bins of a histogram, at most.
    """
    outcome = frame[target].to_numpy(dtype=np.int8)
    numbers = [name for name in inputs if name not in categorical]
    amounts = _amounts(frame, [*numbers, target])
    correlation = pd.DataFrame(
        np.round(_correlation(amounts), 6), index=[*numbers, target], columns=[*numbers, target]
    )
    return Exploration(
        rows=len(frame),
        positives=int(outcome.sum()),
        missing={name: int(count) for name, count in frame[list(inputs)].isna().sum().items()},
        histograms={
            name: _histogram(amounts[:, position], outcome, bins)
            for position, name in enumerate(numbers)
        },
        counts={name: _counts(frame[name], outcome) for name in categorical},
        correlation=correlation,
        duplicates=duplicate_columns(frame, inputs),
    )


def duplicate_columns(frame: pd.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Columns that say nothing new, since an earlier one says the same.

    A column of numbers repeats another up to scale and rounding: both are missing in the same rows,
    and |Pearson r| is at least 1 - 1e-6. A column of text repeats another when each value of one
    always comes with the same value of the other. Constant columns are left alone.

    Args:
        frame: Rows to compare in.
        columns: Columns to compare, in the order in which they are kept.

    Returns:
        Each repeated column and the earlier one that it repeats, which itself repeats none.
    """
    repeats: dict[str, str] = {}
    numbers = [name for name in columns if pd.api.types.is_numeric_dtype(frame[name].dtype)]
    amounts = _amounts(frame, numbers)
    absent = np.isnan(amounts)
    with np.errstate(invalid="ignore"):
        same = np.abs(_correlation(amounts)) >= 1 - _SAME
    for later, name in enumerate(numbers):
        for earlier in np.flatnonzero(same[later, :later]):
            first = numbers[earlier]
            if first not in repeats and (absent[:, earlier] == absent[:, later]).all():
                repeats[name] = first
                break
    first_with: dict[bytes, str] = {}
    for name in columns:
        if name in numbers:
            continue
        # Numbered by first appearance, columns that map one to one become the same.
        codes, values = pd.factorize(frame[name])
        if len(values) > 1:
            kept = first_with.setdefault(codes.tobytes(), name)
            if kept != name:
                repeats[name] = kept
    return {name: repeats[name] for name in columns if name in repeats}


def _amounts(frame: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Columns of numbers as a float64 matrix with NaN for missing values."""
    amounts = np.empty((len(frame), len(columns)))
    for position, name in enumerate(columns):
        amounts[:, position] = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return amounts


def _correlation(amounts: np.ndarray) -> np.ndarray:
    """Pearson's r between columns, over the rows in which both are there; NaN if one is constant.

    With missing values a column is centred on its own mean, not on that of the common rows: exact
    where two columns are missing in the same rows.
    """
    present = ~np.isnan(amounts)
    rows = present.sum(axis=0)
    centred = np.where(present, amounts, 0.0)
    centred -= centred.sum(axis=0) / np.maximum(rows, 1)
    centred[~present] = 0.0
    squares = centred**2
    with np.errstate(invalid="ignore", divide="ignore"):
        if present.all():
            scale = np.sqrt(np.outer(squares.sum(axis=0), squares.sum(axis=0)))
        else:
            # As float64: numpy has no fast product of numbers and booleans.
            common = squares.T @ present.astype(np.float64)
            scale = np.sqrt(common * common.T)
        correlation: np.ndarray = centred.T @ centred / scale
    # Means are not exact, so the deviations of a constant column are about 1e-16 of its value.
    spread = np.sqrt(squares.sum(axis=0) / np.maximum(rows, 1))
    level = np.abs(np.where(present, amounts, 0.0)).max(axis=0, initial=0.0)
    constant = spread <= 1e-12 * level
    correlation[constant] = correlation[:, constant] = np.nan
    return correlation


def _histogram(values: np.ndarray, outcome: np.ndarray, bins: int) -> Histogram:
    there = ~np.isnan(values)
    limits = bins if not there.any() else _edges(values[there], bins)
    rows, edges = np.histogram(values[there], limits)
    positives, _ = np.histogram(values[there & (outcome == 1)], edges)
    return Histogram(tuple(edges.tolist()), tuple(rows.tolist()), tuple(positives.tolist()))


def _edges(values: np.ndarray, bins: int) -> np.ndarray:
    """Equal bins; of whole numbers each holds as many, or the histogram would show teeth."""
    low, high = values.min(), values.max()
    if (values == np.round(values)).all():
        width = max(1.0, np.ceil((high - low + 1) / bins))
        return np.arange(low, high + width + 1, width)[: int((high - low) // width) + 2] - 0.5
    edges: np.ndarray = np.histogram_bin_edges(values, bins)
    return edges


def _counts(values: pd.Series, outcome: np.ndarray) -> tuple[Count, ...]:
    per_value = pd.DataFrame({"value": values.to_numpy(object), "positive": outcome})
    found = per_value.groupby("value")["positive"].agg(["size", "sum"])
    found = found.sort_values("size", ascending=False, kind="stable")
    return tuple(
        Count(str(value), int(row["size"]), int(row["sum"])) for value, row in found.iterrows()
    )
