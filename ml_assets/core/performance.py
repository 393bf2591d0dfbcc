"""How good was what was really said: realised once outcomes are final, estimated before.

Rows are those of `core.tables.Predictions` as they stand on record; nothing is scored again here.
Which days are final, and where tables lie, belongs to the callers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

import numpy as np
import pandas as pd

from ml_assets.core.calibration import rounded
from ml_assets.core.gate import row_log_loss
from ml_assets.core.metrics import Interval, bootstrap_metrics, expected_positives

REALISED = ("roc_auc", "log_loss", "brier", "calibration_slope", "calibration_intercept")
ESTIMATED = ("roc_auc", "log_loss", "brier")

_TAILS = (0.025, 0.975)
_CHUNK = 2_000_000  # outcomes drawn at once: 16 MB of random numbers
_UNDEFINED: Interval = (None, None, None)


@dataclass(frozen=True)
class Judged:
    """What to make of a realised figure beside what was promised.

    Attributes:
        state: `ok`, `worse`, `one class` where the figure is not defined, or `unknown` where
            nothing was promised to compare it with.
        sentence: The same in words and numbers.
    """

    state: str
    sentence: str


def first_said(
    predictions: pd.DataFrame, key: str, final: Mapping[str, pd.Timestamp] | None = None
) -> pd.DataFrame:
    """The first word about each application.

    Of several predictions for one application the first counts: it is what people acted on when the
    application came in, and a later one may know more.

    Args:
        predictions: All that is on record of some days, superseded rows included.
        key: Column that names an application.
        final: For each day, the instant at which its outcomes are final. If given, only what was
            said before it counts: a model that spoke later may have learned the outcome.
    """
    if final is not None:
        ends = pd.to_datetime(predictions["day"].map(final), utc=True)
        predictions = predictions[predictions["scored_at"] < ends]
    ordered = predictions.sort_values(["day", key, "scored_at"], kind="stable")
    return ordered.drop_duplicates(["day", key], keep="first").reset_index(drop=True)


def realised(
    probability: np.ndarray, outcome: np.ndarray, *, resamples: int, seed: int
) -> dict[str, Interval]:
    """The figures of `REALISED`, each with its 95 % bootstrap interval.

    See `core.metrics.bootstrap_metrics`; a figure that is not defined is None.

    Args:
        probability: What was said, shape (rows,).
        outcome: What came true, 0 and 1.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    return bootstrap_metrics(probability, outcome, resamples=resamples, seed=seed, names=REALISED)


def estimated(probability: np.ndarray, *, resamples: int, seed: int) -> dict[str, Interval]:
    """What the figures of `ESTIMATED` will be if the probabilities are right; no outcome is needed.

    Confidence-based performance estimation (CBPE: NannyML's documentation, "How it works:
    performance estimation"; its limits in Bialek et al., "Estimating model performance under
    covariate shift without labels", arXiv:2401.08348): a row of probability p counts as p of a
    positive and 1 - p of a negative, so that expected confusion matrices, and all that follows from
    them, need no labels.

    It holds only while the probabilities are calibrated. It sees that applications have become
    harder or easier to judge; it cannot see that the same applications now lead to other outcomes
    (concept drift), nor that a calibration has gone wrong.

    Args:
        probability: What was said, shape (rows,), 0 to 1.
        resamples: Number of sets of outcomes that are drawn from the probabilities.
        seed: Seed of the draws.

    Returns:
        Each figure, and the bounds within which 95 % of what comes true should fall: chance of the
        outcomes alone, given the probabilities. None where it is not defined.
    """
    rows = len(probability)
    if rows == 0:
        return dict.fromkeys(ESTIMATED, _UNDEFINED)
    p = np.sort(np.asarray(probability, dtype=np.float64))
    q = 1 - p
    ranks = _mean_ranks(p)
    ones, zeros = row_log_loss(p, np.ones(rows)), row_log_loss(p, np.zeros(rows))
    # All three are linear in the outcomes, but for the share of positives in the ROC AUC.
    weights = np.column_stack([np.ones(rows), ranks, ones - zeros, q**2 - p**2])
    drawn = _drawn_sums(p, weights, resamples, seed)
    # Pairs of a row with itself are no pairs: a row has one outcome.
    below = np.concatenate([[0.0], np.cumsum(q)])
    first, last = np.searchsorted(p, p, side="left"), np.searchsorted(p, p, side="right")
    wins = (p * (below[first] + (below[last] - below[first]) / 2)).sum() - (p * q).sum() / 2
    pairs = p.sum() * q.sum() - (p * q).sum()
    positives = drawn[:, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (drawn[:, 1] - positives * (positives + 1) / 2) / (positives * (rows - positives))
        expected_auc = wins / pairs
    return {
        "roc_auc": _within(expected_auc, auc),
        "log_loss": _within((p * ones + q * zeros).mean(), (zeros.sum() + drawn[:, 2]) / rows),
        "brier": _within((p * q).mean(), ((p**2).sum() + drawn[:, 3]) / rows),
    }


def weekly(said: pd.DataFrame, target: str, last_day: str, weeks: int) -> pd.DataFrame:
    """Expected against actual positives of each whole calendar week.

    Args:
        said: Rows with `day`, `probability` and the outcome.
        target: Column of the outcome, 0 or 1.
        last_day: Last day whose outcomes are final; a week counts once its Sunday is.
        weeks: Number of newest weeks.

    Returns:
        A row per week that has rows: `week` (its Monday), `rows`, `expected`, `low`, `high`
        (bounds of 95 % of counts: see `core.metrics.expected_positives`) and `actual`.
    """
    end = date.fromisoformat(last_day)
    end -= timedelta(days=(end.weekday() + 1) % 7)  # the last Sunday
    found = []
    for back in reversed(range(weeks)):
        sunday = end - timedelta(days=7 * back)
        monday = sunday - timedelta(days=6)
        rows = said[said["day"].between(monday.isoformat(), sunday.isoformat())]
        if rows.empty:
            continue
        expected, low, high = expected_positives(rows["probability"].to_numpy())
        found.append(
            {
                "week": monday.isoformat(),
                "rows": len(rows),
                "expected": rounded(expected),
                "low": rounded(low),
                "high": rounded(high),
                "actual": int(rows[target].sum()),
            }
        )
    columns = ["week", "rows", "expected", "low", "high", "actual"]
    return pd.DataFrame(found, columns=columns)


def beside_promise(
    name: str, came: Interval, promised: Interval, *, lower_is_better: bool, margin: float
) -> Judged:
    """Whether a realised figure holds what the holdout promised.

    It is `worse` only if the two 95 % intervals do not meet and the figures lie further apart than
    the margin: both luck and trifles are no alarm. Intervals that do not meet are a stricter rule
    than a test at 5 % (Schenker and Gentleman, The American Statistician, 2001).

    Args:
        name: The figure, for the sentence.
        came: What came true.
        promised: The same figure on the model's holdout.
        lower_is_better: As for a loss.
        margin: A difference that matters to nobody.
    """
    value, low, high = came
    if value is None or low is None or high is None:
        return Judged("one class", f"{name} is not defined: one outcome only came.")
    if promised[0] is None or promised[1] is None or promised[2] is None:
        told = f"{name} is {value:.4f}; the holdout promised none to compare with."
        return Judged("unknown", told)
    told = (
        f"{name} is {value:.4f} ({low:.4f} to {high:.4f}); the holdout promised "
        f"{promised[0]:.4f} ({promised[1]:.4f} to {promised[2]:.4f})"
    )
    is_apart = low > promised[2] if lower_is_better else high < promised[1]
    if is_apart and abs(value - promised[0]) > margin:
        return Judged("worse", f"{told}: worse than chance explains.")
    return Judged("ok", f"{told}.")


def _mean_ranks(ordered: np.ndarray) -> np.ndarray:
    first = np.searchsorted(ordered, ordered, side="left")
    last = np.searchsorted(ordered, ordered, side="right")
    ranks: np.ndarray = (first + last + 1) / 2
    return ranks


def _drawn_sums(p: np.ndarray, weights: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Sums of the weights over the positives of each drawn set of outcomes."""
    generator = np.random.Generator(np.random.PCG64(seed))
    step = max(1, _CHUNK // len(p))
    sums = []
    for first in range(0, resamples, step):
        drawn = generator.random((min(step, resamples - first), len(p))) < p
        sums.append(drawn.astype(np.float64) @ weights)
    return np.concatenate(sums)


def _within(value: float, drawn: np.ndarray) -> Interval:
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) == 0:
        return _UNDEFINED
    low, high = np.quantile(drawn, _TAILS)
    # Beyond nine digits, the number of BLAS threads that summed would show.
    return rounded(float(value)), rounded(float(low)), rounded(float(high))
