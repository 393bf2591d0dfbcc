"""The promotion gate: whether a challenger is good enough to serve in the champion's place.

Both have scored the same holdout rows, which neither has learned from. A plain "not larger" would
promote an equally good challenger every other time, for nothing but luck; so the gate asks how sure
the difference is. Reading rows and remembering who serves are done elsewhere.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Rule = Literal["superior", "routine_refresh", "not_shown"]

# Rows resampled at once: bounds the memory of the bootstrap to some tens of MB.
_CHUNK = 2_000_000


@dataclass(frozen=True)
class Difference:
    """Log loss of the challenger minus that of the champion, on the same rows.

    Attributes:
        mean: In nats per row; negative if the challenger is better.
        low: Lower bound, at the gate's one-sided confidence.
        high: Upper bound, likewise.
        rows: Number of rows.
    """

    mean: float
    low: float
    high: float
    rows: int


@dataclass(frozen=True)
class Verdict:
    """What the gate decided.

    Attributes:
        promote: Whether the challenger shall serve.
        rule: The rule that promoted it, or that none did.
        reason: The same in words and numbers, for people.
    """

    promote: bool
    rule: Rule
    reason: str


def row_log_loss(probability: np.ndarray, outcome: np.ndarray) -> np.ndarray:
    """Log loss of each row in nats, with probabilities kept off 0 and 1 as scikit-learn does."""
    epsilon = np.finfo(np.float64).eps
    kept = np.clip(probability.astype(np.float64), epsilon, 1 - epsilon)
    losses: np.ndarray = -np.where(outcome == 1, np.log(kept), np.log1p(-kept))
    return losses


def paired_bootstrap(
    challenger: np.ndarray,
    champion: np.ndarray,
    outcome: np.ndarray,
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> Difference:
    """Bound the difference in log loss by resampling rows, each with both models' losses.

    The percentile bootstrap of paired differences (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993, chapter 13): since both models meet the same rows, what makes a row hard
    cancels out.

    Args:
        challenger: Probabilities of the challenger, shape (rows,), 0 to 1.
        champion: Probabilities of the champion for the same rows.
        outcome: Outcomes 0 and 1.
        confidence: One-sided confidence of each bound, 0.5 to 1.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    differences = row_log_loss(challenger, outcome) - row_log_loss(champion, outcome)
    rows = len(differences)
    generator = np.random.Generator(np.random.PCG64(seed))
    means = np.empty(resamples)
    step = max(1, _CHUNK // rows)
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        picked = generator.integers(0, rows, size=(count, rows))
        means[first : first + count] = differences[picked].mean(axis=1)
    low, high = np.quantile(means, [1 - confidence, confidence])
    return Difference(float(differences.mean()), float(low), float(high), rows)


def decide(
    difference: Difference,
    *,
    margin: float,
    champion_age_days: int,
    refresh_after_days: int,
    challenger_version: int,
) -> Verdict:
    """Promote a challenger that is surely better, or, as a routine, one that is surely not worse.

    A champion of some age is replaced by a challenger whose log loss is surely not larger by more
    than a margin, so that the service follows the times even when nothing is gained today.

    Args:
        difference: How the two compare.
        margin: Largest loss, in nats per row, that a routine refresh may cost.
        champion_age_days: Days since the champion was trained.
        refresh_after_days: Age from which a champion may be refreshed.
        challenger_version: For the words.
    """
    numbers = (
        f"log loss difference {difference.mean:+.4f} [{difference.low:+.4f}, "
        f"{difference.high:+.4f}] on {difference.rows:,} rows"
    )
    name = f"challenger version {challenger_version}"
    if difference.high < 0:
        return Verdict(True, "superior", f"{name} is promoted as superior: {numbers}")
    if champion_age_days >= refresh_after_days and difference.high <= margin:
        return Verdict(
            True,
            "routine_refresh",
            f"{name} is promoted as a routine refresh of a champion {champion_age_days} days old: "
            f"{numbers}, margin {margin:g}",
        )
    return Verdict(
        False,
        "not_shown",
        f"{name} stays challenger: {numbers} does not show that it is better"
        + (
            f", nor within the margin {margin:g}"
            if champion_age_days >= refresh_after_days
            else f"; a routine refresh is due when the champion is {refresh_after_days} days old"
        ),
    )
