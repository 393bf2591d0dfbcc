"""The promotion gate: whether a challenger is good enough to serve in the champion's place.

Both have scored the same holdout rows, which neither has learned from. A plain "not larger" would
promote an equally good challenger every other time, for nothing but luck; so the gate asks how sure
the difference is. Reading rows and remembering who serves are done elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Rule = Literal[
    "first", "superior", "routine_refresh", "not_shown", "guardrail", "rolled_back", "on_hold"
]

# Rows resampled at once: bounds the memory of the bootstrap to some tens of MB.
_CHUNK = 2_000_000


class Unfit(ValueError):
    """The first model breaks a guardrail, so that nobody can serve yet."""


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


@dataclass(frozen=True)
class Limits:
    """What no promotion may break, however good the mean.

    Attributes:
        min_holdout_rows: Fewest rows to judge on.
        calibration_slope: Range of slopes that probabilities may have on the holdout; 1 is right.
        slice_margin: Log loss, in nats per row, that a challenger may cost a slice, surely.
        min_slice_rows: Fewest rows of a slice that is looked at.
        max_missing_increase: Share of rows, 0 to 1, by which an input's missing values (unseen
            categories included) may be more frequent on the holdout than in training.
    """

    min_holdout_rows: int
    calibration_slope: tuple[float, float]
    slice_margin: float
    min_slice_rows: int
    max_missing_increase: float


@dataclass(frozen=True)
class Guardrail:
    """One of the limits, and whether a challenger keeps it.

    Attributes:
        name: window, calibration_slope, worst_slice or missing_values.
        holds: Whether the limit is kept.
        finding: What was found, in words and numbers.
    """

    name: str
    holds: bool
    finding: str


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


def window_guardrail(rows: int, limits: Limits) -> Guardrail:
    """Whether there are enough rows to judge on."""
    return Guardrail(
        "window",
        rows >= limits.min_holdout_rows,
        f"judged on {rows:,} rows, at least {limits.min_holdout_rows:,} are needed",
    )


def slope_guardrail(slope: float, low: float, high: float, limits: Limits) -> Guardrail:
    """Whether probabilities are neither far too bold nor far too timid.

    Broken only if the whole interval of the calibration slope lies outside the range, or if there
    is no slope (NaN): probabilities that are all the same, or one outcome only.
    """
    least, most = limits.calibration_slope
    if not np.isfinite([slope, low, high]).all():
        return Guardrail("calibration_slope", False, "the calibration slope is not defined")
    return Guardrail(
        "calibration_slope",
        low <= most and high >= least,
        f"calibration slope {slope:.2f} [{low:.2f}, {high:.2f}], {least:g} to {most:g} is allowed",
    )


def slice_guardrail(
    challenger: np.ndarray,
    champion: np.ndarray,
    outcome: np.ndarray,
    groups: Mapping[str, np.ndarray],
    limits: Limits,
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> Guardrail:
    """Whether the challenger is surely worse than the champion for some group of rows.

    Args:
        challenger: Probabilities of the challenger, shape (rows,).
        champion: Probabilities of the champion for the same rows.
        outcome: Outcomes 0 and 1.
        groups: By name, which rows belong to each group, shape (rows,), boolean.
        limits: Which groups are looked at, and what they may lose.
        confidence: One-sided, over all groups together: that of each is raised by Bonferroni.
        resamples: Number of bootstrap samples.
        seed: Seed of the resampling.
    """
    judged = {name: rows for name, rows in groups.items() if rows.sum() >= limits.min_slice_rows}
    worst, where = -np.inf, ""
    for name, rows in judged.items():
        difference = paired_bootstrap(
            challenger[rows],
            champion[rows],
            outcome[rows],
            confidence=1 - (1 - confidence) / len(judged),
            resamples=resamples,
            seed=seed,
        )
        if difference.low > worst:
            worst = difference.low
            where = f"{name}: log loss {difference.mean:+.4f}, perhaps only {difference.low:+.4f}"
    finding = f"of {len(judged)} slices with {limits.min_slice_rows:,} rows or more, "
    finding += f"the worst is {where}" if judged else "none was judged"
    return Guardrail(
        "worst_slice",
        worst <= limits.slice_margin,
        f"{finding}; broken if surely above {limits.slice_margin:+g}",
    )


def missing_guardrail(
    trained: Mapping[str, float], found: Mapping[str, float], limits: Limits
) -> Guardrail:
    """Whether an input has gone missing since training.

    Args:
        trained: Share of rows in which an input was missing in training, 0 to 1; 0 if not named.
        found: The same on the holdout.
        limits: What increase is allowed.
    """
    increase = {name: share - trained.get(name, 0.0) for name, share in found.items()}
    name = max(increase, key=lambda each: increase[each], default="")
    most = max(0.0, increase.get(name, 0.0))
    return Guardrail(
        "missing_values",
        most <= limits.max_missing_increase,
        f"the largest increase of missing or unseen values is {most:.1%}"
        + (f" ({name})" if most else "")
        + f", {limits.max_missing_increase:.1%} is allowed",
    )


def decide(
    difference: Difference,
    *,
    margin: float,
    champion_age_days: int,
    refresh_after_days: int,
    challenger_version: int,
    guardrails: Sequence[Guardrail] = (),
) -> Verdict:
    """Promote a challenger that is surely better, or, as a routine, one that is surely not worse.

    A champion of some age is replaced by a challenger whose log loss is surely not larger by more
    than a margin, so that the service follows the times even when nothing is gained today. None is
    promoted that breaks a guardrail.

    Args:
        difference: How the two compare.
        margin: Largest loss, in nats per row, that a routine refresh may cost.
        champion_age_days: Days since the champion was trained.
        refresh_after_days: Age from which a champion may be refreshed.
        challenger_version: For the words.
        guardrails: Limits that no promotion may break.
    """
    numbers = (
        f"log loss difference {difference.mean:+.4f} [{difference.low:+.4f}, "
        f"{difference.high:+.4f}] on {difference.rows:,} rows"
    )
    name = f"challenger version {challenger_version}"
    if broken := [each for each in guardrails if not each.holds]:
        findings = "; ".join(each.finding for each in broken)
        return Verdict(
            False, "guardrail", f"{name} stays challenger: {findings} (guardrail). {numbers}"
        )
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
