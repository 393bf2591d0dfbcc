"""What an evaluation says: plain records that go through JSON unchanged.

They are made by `evaluate` below from `ml_assets.core.metrics`, stored with each registered model,
and read by plots and the model card. Fitting is in `ml_assets.core.training`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from ml_assets.core.calibration import Choice, rounded
from ml_assets.core.metrics import (
    Interval,
    bootstrap_metrics,
    bootstrap_sums,
    confusion,
    equal_mass_bins,
    expected_positives,
    wilson,
)
from ml_assets.core.splits import require_both_classes
from ml_assets.core.threshold import Chosen, Costs, decide, row_costs, theoretical_threshold

# Points of a curve that a person can still tell apart.
_POINTS = 200

_CALIBRATION_METRICS = (
    "brier",
    "calibration_error",
    "calibration_slope",
    "calibration_intercept",
    "log_loss",
)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Estimate(_Record):
    """A figure with its 95 % bootstrap interval; None where it is not defined (one class only)."""

    value: float | None
    low: float | None
    high: float | None


class Part(_Record):
    """How well probabilities and decisions fit outcomes on one part of the split.

    Attributes:
        rows: Number of rows judged.
        positives: How many of them turned out positive.
        metrics: By name: roc_auc, pr_auc, log_loss, brier, calibration_error, calibration_slope,
            calibration_intercept, accuracy, f1, precision, recall, kappa.
        confusion: Rows by outcome and decision: (true negatives, false positives, false negatives,
            true positives) at the model's threshold.
    """

    rows: int
    positives: int
    metrics: Mapping[str, Estimate]
    confusion: tuple[int, int, int, int]


class Bin(_Record):
    """Rows of similar probability.

    Attributes:
        rows: Number of rows.
        promised: Their mean probability.
        realised: Their share of positives, with its interval (Wilson).
    """

    rows: int
    promised: float
    realised: Estimate


class Slice(_Record):
    """A group of holdout rows, such as `gender = 1`; small groups have wide intervals.

    Attributes:
        column: The column that groups.
        value: The group's value, or band such as `under 30`, or `missing`.
        rows: Number of rows.
        positives: How many turned out positive.
        expected: Sum of their probabilities.
        log_loss: Mean log loss of the group's rows.
        roc_auc: ROC AUC within the group.
    """

    column: str
    value: str
    rows: int
    positives: int
    expected: float
    log_loss: Estimate
    roc_auc: Estimate


class Decile(_Record):
    """A tenth of the holdout by falling probability; lift is its share of positives over all's."""

    decile: int
    rows: int
    positives: int
    lift: Estimate


class Importance(_Record):
    """How much a feature matters: XGBoost's gain, and mean absolute contribution in log-odds."""

    feature: str
    gain: float
    contribution: float


class CalibrationReport(_Record):
    """What calibration changed, on the holdout.

    Attributes:
        method: The one chosen: none, platt, beta or isotonic.
        cross_validated_log_loss: Of each candidate, on the calibration days.
        before: brier, calibration_error, calibration_slope, calibration_intercept, log_loss of the
            uncalibrated probabilities.
        after: The same of the calibrated ones.
        reliability_before: Bins of uncalibrated probability.
        reliability_after: Bins of calibrated probability.
    """

    method: str
    cross_validated_log_loss: Mapping[str, float]
    before: Mapping[str, Estimate]
    after: Mapping[str, Estimate]
    reliability_before: tuple[Bin, ...]
    reliability_after: tuple[Bin, ...]


class CostReport(_Record):
    """What decisions cost, per application, in the unit of the declared costs.

    Attributes:
        missed_claim: Declared cost of a claim that was not referred.
        needless_referral: Declared cost of referring an application without a claim.
        threshold: Probability from which an application is referred; chosen on calibration days.
        theoretical_threshold: What perfectly calibrated probabilities would take (Elkan, 2001).
        curve: (threshold, cost per application) on the calibration days.
        holdout: Cost per application on the holdout at the chosen threshold.
        refer_none: Cost per application on the holdout if nothing were referred.
        refer_all: The same if everything were.
    """

    missed_claim: float
    needless_referral: float
    threshold: float
    theoretical_threshold: float
    curve: tuple[tuple[float, float], ...]
    holdout: Estimate
    refer_none: float
    refer_all: float


class Evaluation(_Record):
    """All that is known of how well a model does.

    Attributes:
        parts: `train` and `holdout`.
        calibration: What calibration changed.
        costs: What decisions cost.
        slices: The holdout by group.
        lift: The holdout by tenth.
        roc: Points (false positive rate, true positive rate) of the holdout, at most 200.
        precision_recall: Points (recall, precision) of the holdout, at most 200.
        importance: Features, the most important first.
        expected_positives: Sum of the holdout's probabilities, with the interval in which 95 % of
            actual counts should fall if the probabilities are right.
        actual_positives: The holdout's positives.
    """

    parts: Mapping[str, Part]
    calibration: CalibrationReport
    costs: CostReport
    slices: tuple[Slice, ...]
    lift: tuple[Decile, ...]
    roc: tuple[tuple[float, float], ...]
    precision_recall: tuple[tuple[float, float], ...]
    importance: tuple[Importance, ...]
    expected_positives: Estimate
    actual_positives: int


@dataclass(frozen=True)
class Scored:
    """Rows of one part of the split, with what the model says of them.

    Attributes:
        frame: The rows; only columns that slices name are read.
        margin: Raw log-odds, shape (rows,), float64.
        probability: Calibrated probabilities, shape (rows,), 0 to 1.
        outcome: Outcomes 0 and 1, shape (rows,).
    """

    frame: pd.DataFrame
    margin: np.ndarray
    probability: np.ndarray
    outcome: np.ndarray


def evaluate(
    parts: Mapping[str, Scored],
    *,
    calibration: Choice,
    threshold: Chosen,
    costs: Costs,
    importance: Sequence[Importance],
    slices: Mapping[str, Sequence[float] | None],
    resamples: int,
    seed: int,
) -> Evaluation:
    """Judge a model on all parts, and on the holdout in detail.

    The same arguments give the same figures, to the ninth digit that is kept, over any number of
    threads. Every interval is of 95 %.

    Args:
        parts: `train` and `holdout`, with outcomes of both classes.
        calibration: How probabilities came from margins.
        threshold: What decides, and how it was chosen on the calibration days.
        costs: What the two errors cost.
        importance: Features in any order.
        slices: Columns that group the holdout: each with the rising bounds of its bands, a bound
            belonging to the band above it, or with None to take each value by itself. Missing
            values are a group of their own.
        resamples: Bootstrap samples behind each interval.
        seed: Seed of the bootstrap.

    Raises:
        OneClass: A part holds only one outcome.
    """
    for name, part in parts.items():
        require_both_classes(name, pd.Series(part.outcome))
    holdout = parts["holdout"]
    expected = expected_positives(holdout.probability)
    roc, precision_recall = _curves(holdout)
    return Evaluation(
        parts={
            name: _part(part, threshold.threshold, resamples, seed) for name, part in parts.items()
        },
        calibration=_calibration_report(holdout, calibration, resamples, seed),
        costs=_cost_report(holdout, threshold, costs, resamples, seed),
        slices=tuple(
            _slice(column, value, holdout, members, resamples, seed)
            for column, edges in slices.items()
            for value, members in _groups(holdout.frame[column], edges)
        ),
        lift=_lift(holdout, resamples, seed),
        roc=roc,
        precision_recall=precision_recall,
        importance=tuple(sorted(importance, key=lambda one: (-one.contribution, one.feature))),
        expected_positives=_estimate((expected[0], expected[1], expected[2])),
        actual_positives=int(holdout.outcome.sum()),
    )


def reliability(probability: np.ndarray, outcome: np.ndarray) -> tuple[Bin, ...]:
    """Promised against realised shares in up to ten bins of equal mass, by rising probability."""
    bins = equal_mass_bins(probability)
    found = []
    for place in np.unique(bins):
        members = bins == place
        rows, positives = int(members.sum()), int(outcome[members].sum())
        promised = rounded(float(probability[members].mean()))
        realised = _estimate((positives / rows, *wilson(positives, rows)))
        found.append(Bin(rows=rows, promised=promised, realised=realised))
    return tuple(found)


def _estimate(interval: Interval) -> Estimate:
    value, low, high = (None if bound is None else rounded(bound) for bound in interval)
    return Estimate(value=value, low=low, high=high)


def _estimates(intervals: Mapping[str, Interval]) -> dict[str, Estimate]:
    return {name: _estimate(interval) for name, interval in intervals.items()}


def _part(part: Scored, threshold: float, resamples: int, seed: int) -> Part:
    intervals = bootstrap_metrics(
        part.probability, part.outcome, threshold=threshold, resamples=resamples, seed=seed
    )
    return Part(
        rows=len(part.outcome),
        positives=int(part.outcome.sum()),
        metrics=_estimates(intervals),
        confusion=confusion(decide(part.probability, threshold), part.outcome),
    )


def _calibration_report(
    holdout: Scored, choice: Choice, resamples: int, seed: int
) -> CalibrationReport:
    raw = np.exp(-np.logaddexp(0, -holdout.margin))
    before, after = (
        bootstrap_metrics(
            probability,
            holdout.outcome,
            resamples=resamples,
            seed=seed,
            names=_CALIBRATION_METRICS,
        )
        for probability in (raw, holdout.probability)
    )
    return CalibrationReport(
        method=choice.calibration["method"],
        cross_validated_log_loss=choice.cross_validated_log_loss,
        before=_estimates(before),
        after=_estimates(after),
        reliability_before=reliability(raw, holdout.outcome),
        reliability_after=reliability(holdout.probability, holdout.outcome),
    )


def _cost_report(
    holdout: Scored, chosen: Chosen, costs: Costs, resamples: int, seed: int
) -> CostReport:
    outcome = holdout.outcome
    cost = row_costs(decide(holdout.probability, chosen.threshold), outcome, costs)
    (interval,) = bootstrap_sums(
        cost[:, np.newaxis],
        lambda total: total / len(cost),
        resamples=resamples,
        seed=seed,
    )
    nothing, everything = (
        float(row_costs(np.full(len(outcome), referred), outcome, costs).mean())
        for referred in (False, True)
    )
    return CostReport(
        missed_claim=costs.missed_claim,
        needless_referral=costs.needless_referral,
        threshold=chosen.threshold,
        theoretical_threshold=theoretical_threshold(costs),
        curve=chosen.curve,
        holdout=_estimate(interval),
        refer_none=rounded(nothing),
        refer_all=rounded(everything),
    )


def _slice(
    column: str, value: str, holdout: Scored, members: np.ndarray, resamples: int, seed: int
) -> Slice:
    probability, outcome = holdout.probability[members], holdout.outcome[members]
    intervals = bootstrap_metrics(
        probability,
        outcome,
        resamples=resamples,
        seed=seed,
        names=("log_loss", "roc_auc"),
    )
    return Slice(
        column=column,
        value=value,
        rows=len(outcome),
        positives=int(outcome.sum()),
        expected=rounded(float(probability.sum())),
        log_loss=_estimate(intervals["log_loss"]),
        roc_auc=_estimate(intervals["roc_auc"]),
    )


def _groups(values: pd.Series, edges: Sequence[float] | None) -> list[tuple[str, np.ndarray]]:
    """Name and members of each group that has any, in the order of values, missing ones last."""
    absent = values.isna().to_numpy(dtype=bool)
    groups = []
    if edges is None:
        there = values[~absent]
        for value in sorted(there.unique()):
            name = f"{value:g}" if isinstance(value, float | np.floating) else str(value)
            groups.append((name, (values == value).to_numpy(dtype=bool, na_value=False)))
    else:
        amounts = values.to_numpy(dtype=np.float64, na_value=np.nan)
        band = np.searchsorted(np.asarray(edges, dtype=np.float64), amounts, side="right")
        names = _band_names(edges, whole=pd.api.types.is_integer_dtype(values.dtype))
        groups = [(name, (band == place) & ~absent) for place, name in enumerate(names)]
    groups.append(("missing", absent))
    return [(name, members) for name, members in groups if members.any()]


def slice_groups(
    frame: pd.DataFrame, slices: Mapping[str, Sequence[float] | None]
) -> dict[str, np.ndarray]:
    """The rows of every group, such as `gender = 1`, as boolean masks of shape (rows,).

    Args:
        frame: Rows with the columns that group.
        slices: Columns, each with the rising bounds of its bands, or None: see `evaluate`.
    """
    return {
        f"{column} = {value}": members
        for column, edges in slices.items()
        for value, members in _groups(frame[column], edges)
    }


def _band_names(edges: Sequence[float], *, whole: bool) -> list[str]:
    """Such as `under 30`, `60 and over`; between them 30 to 44, or 30 to under 45 if not whole."""
    between = [
        (f"{low:,g}–{high - 1:,g}" if high - low > 1 else f"{low:,g}")
        if whole
        else f"{low:,g} to under {high:,g}"
        for low, high in pairwise(edges)
    ]
    return [f"under {edges[0]:,g}", *between, f"{edges[-1]:,g} and over"]


def _lift(holdout: Scored, resamples: int, seed: int) -> tuple[Decile, ...]:
    rows = len(holdout.outcome)
    order = np.argsort(-holdout.probability, kind="stable")
    tenth = np.empty(rows, dtype=np.int64)
    tenth[order] = np.arange(rows) * 10 // rows
    places = np.unique(tenth)
    member = tenth[:, np.newaxis] == places
    positive = member & (holdout.outcome == 1)[:, np.newaxis]

    def lift(total: np.ndarray) -> np.ndarray:
        in_tenth, positives = total[:, : len(places)], total[:, len(places) :]
        share = positives.sum(axis=1, keepdims=True) / in_tenth.sum(axis=1, keepdims=True)
        found: np.ndarray = positives / in_tenth / share
        return found

    intervals = bootstrap_sums(
        np.column_stack([member, positive]).astype(np.float64),
        lift,
        resamples=resamples,
        seed=seed,
    )
    return tuple(
        Decile(
            decile=int(place) + 1,
            rows=int(member[:, column].sum()),
            positives=int(positive[:, column].sum()),
            lift=_estimate(intervals[column]),
        )
        for column, place in enumerate(places)
    )


_Curve = tuple[tuple[float, float], ...]


def _curves(holdout: Scored) -> tuple[_Curve, _Curve]:
    """The ROC and the precision-recall curve, thinned evenly along their length."""
    from sklearn.metrics import precision_recall_curve, roc_curve

    false_positives, true_positives, _ = roc_curve(holdout.outcome, holdout.probability)
    precision, recall, _ = precision_recall_curve(holdout.outcome, holdout.probability)
    return _thinned(false_positives, true_positives), _thinned(recall[::-1], precision[::-1])


def _thinned(x: np.ndarray, y: np.ndarray) -> _Curve:
    length = np.concatenate([[0.0], np.cumsum(np.abs(np.diff(x)) + np.abs(np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], _POINTS)))
    return tuple((rounded(x[place]), rounded(y[place])) for place in kept)
