"""Numbers and terms as people read them: separators, units, intervals, and what each metric says.

Only text belongs here; marks and pages are in `svg` and `card`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ml_assets.core.evaluation import Estimate

UNDEFINED = "not defined"
_MINUS, _SPACE = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Measure:
    """A metric for people.

    Attributes:
        name: Its key in `Part.metrics`.
        label: Its name.
        meaning: What it says, in a few words.
        digits: Decimals that are worth showing.
    """

    name: str
    label: str
    meaning: str
    digits: int = 3


@dataclass(frozen=True)
class Group:
    """Metrics that share an axis, from `low` to `high`; an open end follows the values."""

    title: str
    measures: tuple[Measure, ...]
    low: float | None = 0.0
    high: float | None = 1.0


def metric_groups(event: str) -> tuple[Group, ...]:
    """The metrics of `Part`, in the order in which a reader asks for them.

    Args:
        event: The positive outcome in one word, such as `claim`.
    """
    return (
        Group(
            f"Ranking: does it put {event}s above the rest?",
            (
                Measure(
                    "roc_auc",
                    "ROC AUC",
                    f"how often a random {event} gets a higher probability than a random "
                    f"non-{event}; 0.5 is a coin toss, 1 is perfect",
                ),
                Measure(
                    "pr_auc",
                    "PR AUC",
                    f"precision averaged over every recall; guessing gives the share of {event}s",
                ),
            ),
        ),
        Group(
            "Probabilities: how far off? Lower is better",
            (
                Measure(
                    "log_loss",
                    "Log loss",
                    "mean surprise at the outcomes, in nats; confident errors cost most",
                    4,
                ),
                Measure("brier", "Brier score", "mean squared gap of probability and outcome", 4),
                Measure(
                    "calibration_error",
                    "Calibration error",
                    "mean gap between promised and realised share, over groups of like probability",
                    4,
                ),
            ),
            high=None,
        ),
        Group(
            "Calibration: are the probabilities too bold, or too high?",
            (
                Measure(
                    "calibration_slope",
                    "Calibration slope",
                    "1 is right; below 1 the probabilities are too extreme",
                ),
                Measure(
                    "calibration_intercept",
                    "Calibration intercept",
                    "0 is right, together with a slope of 1",
                ),
            ),
            low=None,
            high=None,
        ),
        Group(
            "Decisions at the threshold",
            (
                Measure("recall", "Recall", f"share of {event}s that were referred"),
                Measure("precision", "Precision", f"share of referrals that led to a {event}"),
                Measure("f1", "F1", "harmonic mean of precision and recall"),
                Measure(
                    "accuracy",
                    "Accuracy",
                    "share decided rightly; the tick is what the same decision for all reaches",
                ),
                Measure("kappa", "Cohen’s kappa", "agreement beyond chance; 0 none, 1 complete"),
            ),
        ),
    )


def baselines(share: float) -> Mapping[str, float]:
    """What each metric is if every row gets the share of positives as its probability.

    For slope and intercept: what right probabilities have. None where the share is 0 or 1.
    """
    if not 0 < share < 1:
        return {"calibration_slope": 1.0, "calibration_intercept": 0.0}
    return {
        "roc_auc": 0.5,
        "pr_auc": share,
        "log_loss": -share * math.log(share) - (1 - share) * math.log(1 - share),
        "brier": share * (1 - share),
        "calibration_slope": 1.0,
        "calibration_intercept": 0.0,
        "accuracy": max(share, 1 - share),
        "kappa": 0.0,
    }


def count(value: float) -> str:
    """A whole number with thousands separators."""
    return f"{value:,.0f}".replace("-", _MINUS)


def number(value: float | None, digits: int = 3) -> str:
    """A figure with fixed decimals, or that it is not defined."""
    if value is None or math.isnan(value):
        return UNDEFINED
    if math.isinf(value):
        return "unbounded"
    text = f"{value:,.{digits}f}"
    if float(text.replace(",", "")) == 0:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


def percent(value: float | None, digits: int = 1) -> str:
    """A share as per cent; a small one is never rounded down to nothing."""
    if value is None or math.isnan(value):
        return UNDEFINED
    smallest = 10**-digits
    if 0 < 100 * value < smallest / 2:
        return f"<{_SPACE}{smallest:.{digits}f}{_SPACE}%"
    if 0 < 100 * (1 - value) < smallest / 2:
        return f">{_SPACE}{100 - smallest:.{digits}f}{_SPACE}%"
    return number(100 * value, digits) + f"{_SPACE}%"


def points(value: float) -> str:
    """A difference of probabilities in percentage points, with its sign."""
    sign = "+" if value > 0 else ""
    return f"{sign}{number(100 * value, 1)}"


def interval(estimate: Estimate, digits: int = 3) -> str:
    """The 95 % interval of a figure, as `0.903 to 0.921`."""
    if estimate.value is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"interval {UNDEFINED}"
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def money(value: float | None) -> str:
    """A cost in the declared unit, with as many decimals as its size deserves."""
    size = abs(value or 0.0)
    return number(value, 0 if size >= 1_000 else 1 if size >= 100 else 2 if size >= 10 else 3)


def amount(value: object) -> str:
    """A setting as it was given; long floats are cut to four figures."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return count(value)
    return f"{value:.4g}".replace("-", _MINUS)
