"""Figures of how well probabilities fit outcomes, each with its bootstrap interval.

Every figure depends on rows only through how often each distinct (probability, outcome) occurs, so
a resample is a vector of counts, most figures are products of such vectors with sums prepared once,
and rows are sorted once. Gathering figures into an evaluation is in `ml_assets.core.evaluation`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ml_assets.core.calibration import fit_logistic, rounded
from ml_assets.core.gate import row_log_loss

Interval = tuple[float | None, float | None, float | None]
"""A figure and the bounds of its 95 % interval; all None where the figure is not defined."""

METRICS = (
    "roc_auc",
    "pr_auc",
    "log_loss",
    "brier",
    "calibration_error",
    "calibration_slope",
    "calibration_intercept",
    "accuracy",
    "f1",
    "precision",
    "recall",
    "kappa",
)

BINS = 10
_UNDEFINED: Interval = (None, None, None)
_TAILS = (0.025, 0.975)
# Counts held at once. Small enough for the processor's cache: 60,000 rows resample in half the time
# that ten times as many take.
_CHUNK = 200_000


def bootstrap_metrics(
    probability: np.ndarray,
    outcome: np.ndarray,
    *,
    resamples: int,
    seed: int,
    threshold: float = 0.5,
    names: Sequence[str] = METRICS,
) -> dict[str, Interval]:
    """Figures with their 95 % percentile bootstrap intervals.

    Rows are drawn with replacement (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
    chapter 13); a figure's quantiles are over the resamples in which it is defined. Where the
    bootstrap's bias would leave the figure itself out, the interval is widened to hold it: that
    happens to `calibration_error`, which cannot fall below 0, so that noise only adds to it.

    - `roc_auc`: area under the ROC curve, ties counting half.
    - `pr_auc`: average precision.
    - `log_loss` in nats, `brier` (Brier, 1950).
    - `calibration_error`: mean distance of promised and realised share over ten bins of equal mass
      (Naeini et al., 2015), the bins being those of all rows in each resample.
    - `calibration_slope`, `calibration_intercept`: of a logistic regression on the log-odds (Cox,
      1958), 1 and 0 if calibrated. In a resample one Newton step from the fit to all rows, as near
      as the bootstrap needs (Andrews, "Higher-order improvements of a computationally attractive
      k-step bootstrap", Econometrica, 2002).
    - `accuracy`, `f1`, `precision`, `recall`, and `kappa`: Cohen's, which with two classes equals
      the quadratic weighted one. Decided by `threshold`.

    Args:
        probability: Shape (rows,), 0 to 1.
        outcome: Outcomes 0 and 1.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling; the same seed and number of rows draw the same rows.
        threshold: Probability from which a row is decided positive.
        names: Which figures, of `METRICS`.

    Returns:
        For each name, the figure and its bounds. None where it is not defined: there are no rows;
        one outcome only (but `log_loss`, `brier`, `calibration_error` and `accuracy` are defined);
        nothing was decided positive, for `precision`; one probability for all, or outcomes that it
        separates, for the slope and intercept.
    """
    if len(probability) == 0:
        return dict.fromkeys(names, _UNDEFINED)
    table = _tabulate(np.asarray(probability, dtype=np.float64), np.asarray(outcome))
    sums = _prepare(table, threshold, names)

    def figures(counts: np.ndarray) -> dict[str, np.ndarray]:
        with np.errstate(invalid="ignore", divide="ignore"):
            return {**sums.figures(counts), **_ranks(table, counts, names)}

    found = figures(np.bincount(table.code).astype(np.float64)[np.newaxis])
    drawn = [figures(counts) for counts in _resamples(table.code, resamples, seed)]
    return {
        name: _interval(found[name][0], np.concatenate([chunk[name] for chunk in drawn]))
        for name in names
    }


def bootstrap_sums(
    columns: np.ndarray,
    figure: Callable[[np.ndarray], np.ndarray],
    *,
    resamples: int,
    seed: int,
) -> list[Interval]:
    """Figures that depend on rows through sums alone, with their 95 % percentile intervals.

    Args:
        columns: What to sum over rows, shape (rows, columns).
        figure: Turns sums of shape (any, columns) into figures of shape (any, figures), NaN where
            one is not defined.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    everything = columns.sum(axis=0)[np.newaxis]
    rows = np.arange(len(columns))
    sums = np.concatenate([counts @ columns for counts in _resamples(rows, resamples, seed)])
    with np.errstate(invalid="ignore", divide="ignore"):
        found, drawn = figure(everything)[0], figure(sums)
    return [_interval(value, drawn[:, place]) for place, value in enumerate(found)]


def confusion(referred: np.ndarray, outcome: np.ndarray) -> tuple[int, int, int, int]:
    """Rows by outcome and decision: true negatives, false and then true positives last.

    Returns:
        (true negatives, false positives, false negatives, true positives).
    """
    kinds = np.bincount(2 * (outcome == 1) + referred, minlength=4)
    return int(kinds[0]), int(kinds[1]), int(kinds[2]), int(kinds[3])


def equal_mass_bins(probability: np.ndarray, bins: int = BINS) -> np.ndarray:
    """The bin of each row, 0 to bins - 1, by rising probability; equal ones share a bin.

    With many equal probabilities, as isotonic calibration makes, some bins are empty.
    """
    below = np.searchsorted(np.sort(probability), probability, side="left")
    found: np.ndarray = below * bins // max(len(probability), 1)
    return found


def wilson(positives: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson, 1927): sound also near 0 and 1 and for few rows."""
    z = NormalDist().inv_cdf(_TAILS[1])
    share = positives / rows
    centre = share + z**2 / (2 * rows)
    half = z * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    low, high = (centre - half) / (1 + z**2 / rows), (centre + half) / (1 + z**2 / rows)
    # At 0 and all positives a bound is exactly 0 or 1, but for rounding.
    return max(0.0, float(low)), min(1.0, float(high))


def expected_positives(probability: np.ndarray) -> tuple[float, float, float]:
    """How many positives to expect, with the bounds in which 95 % of actual counts fall.

    The count is Poisson-binomial if probabilities are right and rows independent; its normal
    approximation is used, with half a row of continuity correction.
    """
    probability = np.asarray(probability, dtype=np.float64)
    mean = float(probability.sum())
    spread = float(np.sqrt((probability * (1 - probability)).sum()))
    half = NormalDist().inv_cdf(_TAILS[1]) * spread + 0.5
    return mean, max(0.0, mean - half), min(float(len(probability)), mean + half)


@dataclass(frozen=True)
class _Table:
    """The distinct (probability, outcome) of a sample, sorted by both.

    Attributes:
        probability: Of each distinct pair, rising.
        outcome: Of each pair, as bool.
        bin: Of each pair, the bin of equal mass.
        code: Of each row, in rising order, its pair.
    """

    probability: np.ndarray
    outcome: np.ndarray
    bin: np.ndarray
    code: np.ndarray


def _tabulate(probability: np.ndarray, outcome: np.ndarray) -> _Table:
    order = np.lexsort((outcome, probability))
    p, y = probability[order], outcome[order] == 1
    starts = np.concatenate([[True], (p[1:] != p[:-1]) | (y[1:] != y[:-1])])
    return _Table(p[starts], y[starts], equal_mass_bins(p)[starts], np.cumsum(starts) - 1)


def _resamples(code: np.ndarray, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Chunks of float64 counts, shape (resamples, distinct codes)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    rows, distinct = len(code), int(code.max()) + 1
    step = max(1, _CHUNK // rows)
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        drawn = code[generator.integers(0, rows, size=(count, rows))]
        drawn += distinct * np.arange(count)[:, np.newaxis]
        counts = np.bincount(drawn.ravel(), minlength=count * distinct)
        yield counts.reshape(count, distinct).astype(np.float64)


@dataclass(frozen=True)
class _Sums:
    """What to sum over rows, and how figures follow from the sums."""

    columns: np.ndarray
    parts: Sequence[tuple[int, Callable[[np.ndarray], Mapping[str, np.ndarray]]]]

    def figures(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        totals = counts @ self.columns
        found: dict[str, np.ndarray] = {}
        first = 0
        for width, follow in self.parts:
            found.update(follow(totals[:, first : first + width]))
            first += width
        return found


def _prepare(table: _Table, threshold: float, names: Sequence[str]) -> _Sums:
    p, y = table.probability, table.outcome
    rows = len(table.code)
    columns: list[np.ndarray] = []
    parts: list[tuple[int, Callable[[np.ndarray], Mapping[str, np.ndarray]]]] = []

    def add(
        new: Sequence[np.ndarray], follow: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    ) -> None:
        columns.extend(new)
        parts.append((len(new), follow))

    if "log_loss" in names:
        add([row_log_loss(p, y)], lambda total: {"log_loss": total[:, 0] / rows})
    if "brier" in names:
        add([(p - y) ** 2], lambda total: {"brier": total[:, 0] / rows})
    if "calibration_error" in names:
        excess = [np.where(table.bin == place, p - y, 0.0) for place in np.unique(table.bin)]
        add(excess, lambda total: {"calibration_error": np.abs(total).sum(axis=1) / rows})
    if {"calibration_slope", "calibration_intercept"} & set(names):
        add(*_recalibration(table))
    if {"accuracy", "f1", "precision", "recall", "kappa"} & set(names):
        referred = p >= threshold
        cells = [~referred & ~y, referred & ~y, ~referred & y, referred & y]
        add([cell.astype(np.float64) for cell in cells], _decision_figures)
    stacked = np.column_stack(columns) if columns else np.empty((len(p), 0))
    return _Sums(stacked, parts)


def _decision_figures(cells: np.ndarray) -> dict[str, np.ndarray]:
    tn, fp, fn, tp = cells.T
    chance = (tp + fp) * (fp + tn) + (tp + fn) * (fn + tn)
    one_class = (tp + fn == 0) | (tn + fp == 0)
    return {
        "accuracy": (tp + tn) / cells.sum(axis=1),
        "f1": np.where(one_class, np.nan, 2 * tp / (2 * tp + fp + fn)),
        "precision": np.where(one_class, np.nan, tp / (tp + fp)),
        "recall": np.where(one_class, np.nan, tp / (tp + fn)),
        "kappa": np.where(one_class, np.nan, 2 * (tp * tn - fn * fp) / chance),
    }


def _recalibration(
    table: _Table,
) -> tuple[list[np.ndarray], Callable[[np.ndarray], dict[str, np.ndarray]]]:
    """Gradient and Hessian of the recalibration at the fit to all rows, and the step they give."""
    tiny = np.finfo(np.float64).eps
    p = np.clip(table.probability, tiny, 1 - tiny)
    z = np.log(p) - np.log1p(-p)
    y = table.outcome
    fitted = None
    if z[0] < z[-1] and 0 < y.sum() < len(y):
        fitted = fit_logistic(z[table.code][:, np.newaxis], y[table.code])
    if fitted is None:

        def undefined(total: np.ndarray) -> dict[str, np.ndarray]:
            nothing = np.full(len(total), np.nan)
            return {"calibration_slope": nothing, "calibration_intercept": nothing}

        return [], undefined
    slope, intercept = fitted
    mu = np.exp(-np.logaddexp(0, -(slope * z + intercept)))
    residual, weight = y - mu, mu * (1 - mu)

    def step(total: np.ndarray) -> dict[str, np.ndarray]:
        g0, g1, h00, h01, h11 = total.T
        determinant = h00 * h11 - h01**2
        return {
            "calibration_slope": slope + (h00 * g1 - h01 * g0) / determinant,
            "calibration_intercept": intercept + (h11 * g0 - h01 * g1) / determinant,
        }

    return [residual, residual * z, weight, weight * z, weight * z**2], step


def _ranks(table: _Table, counts: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """ROC AUC as the Mann-Whitney statistic, and average precision, from counts of sorted pairs."""
    if not {"roc_auc", "pr_auc"} & set(names):
        return {}
    places = np.flatnonzero(table.outcome)
    if len(places) in (0, len(table.outcome)):
        nothing = np.full(len(counts), np.nan)
        return {"roc_auc": nothing, "pr_auc": nothing}
    positive = counts[:, places]
    negatives_up_to = np.cumsum(counts[:, ~table.outcome], axis=1)
    total = negatives_up_to[:, -1]
    # Of each positive pair: how many negatives come before it, and how many of those tie with it.
    before = places - np.arange(len(places))
    lower = np.where(before > 0, negatives_up_to[:, np.maximum(before - 1, 0)], 0.0)
    ties = (places > 0) & (table.probability[places] == table.probability[places - 1])
    tied = np.where(ties, counts[:, places - 1], 0.0)
    positives_up_to = np.cumsum(positive, axis=1)
    all_positive = positives_up_to[:, -1]
    undefined = (total == 0) | (all_positive == 0)
    wins = (positive * (lower - tied / 2)).sum(axis=1)
    true_positives = all_positive[:, np.newaxis] - positives_up_to + positive
    false_positives = total[:, np.newaxis] - lower + tied
    precision = true_positives / np.maximum(true_positives + false_positives, 1)
    average = (positive * precision).sum(axis=1) / all_positive
    return {
        "roc_auc": np.where(undefined, np.nan, wins / (all_positive * total)),
        "pr_auc": np.where(undefined, np.nan, average),
    }


def _interval(value: float, drawn: np.ndarray) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) == 0:
        return _UNDEFINED
    low, high = np.quantile(drawn, _TAILS)
    # Beyond nine digits, the number of BLAS threads that summed would show.
    return (
        rounded(float(value)),
        rounded(float(min(low, value))),
        rounded(float(max(high, value))),
    )
