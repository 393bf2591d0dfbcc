"""From probabilities to decisions: the threshold at which an application is referred.

What the two kinds of error cost is declared, not learned. How good the decisions are is judged in
`ml_assets.core.evaluation`.
"""

from dataclasses import dataclass

import numpy as np

# Standard errors by which another threshold must be cheaper than the theoretical one. The cheapest
# of a hundred is partly the luckiest: with 1.64, the usual 5 %, calibrated probabilities leave
# theory 13 times in 100 on 3,600 rows, with 2.33 4 times.
_SURELY = 2.33


@dataclass(frozen=True)
class Costs:
    """What the two errors cost, in any one unit; only their ratio moves the threshold.

    Attributes:
        missed_claim: An application that led to a claim was not referred; above 0.
        needless_referral: An application without a claim was referred; above 0.

    Raises:
        ValueError: A cost is not a finite number above 0.
    """

    missed_claim: float
    needless_referral: float

    def __post_init__(self) -> None:
        """Refuse costs under which one decision would always be free."""
        for name in ("missed_claim", "needless_referral"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise ValueError(f"costs: {name} must be a finite number above 0, got {value}")


@dataclass(frozen=True)
class Chosen:
    """A chosen threshold, and what it was chosen from.

    Attributes:
        threshold: Probability from which an application is referred, above 0 and below 1.
        curve: (threshold, mean cost per row) of every candidate, by rising threshold.
    """

    threshold: float
    curve: tuple[tuple[float, float], ...]


def theoretical_threshold(costs: Costs) -> float:
    """The threshold at which both errors cost the same if probabilities are calibrated.

    Elkan, "The foundations of cost-sensitive learning", IJCAI 2001, equation 2, with right
    decisions costing nothing.
    """
    return costs.needless_referral / (costs.needless_referral + costs.missed_claim)


def decide(probability: np.ndarray, threshold: float) -> np.ndarray:
    """Which rows to refer: those whose probability reaches the threshold. Shape (rows,), bool."""
    referred: np.ndarray = probability >= threshold
    return referred


def row_costs(referred: np.ndarray, outcome: np.ndarray, costs: Costs) -> np.ndarray:
    """The cost of each decision, in the unit of `costs`. Shape (rows,), float64."""
    missed, needless = ~referred & (outcome == 1), referred & (outcome == 0)
    return missed * float(costs.missed_claim) + needless * float(costs.needless_referral)


def choose_threshold(probability: np.ndarray, outcome: np.ndarray, costs: Costs) -> Chosen:
    """The theoretical threshold, unless rows that no tree has learned from surely know better.

    The cheapest of the candidates (the hundredths from 0.01 to 0.99) takes its place if its mean
    cost is lower by more than 2.33 standard errors of the paired difference, so that noise does not
    move decisions from day to day. Of equally cheap candidates, that nearest to theory is taken.

    Args:
        probability: Calibrated probabilities, shape (rows,), 0 to 1.
        outcome: Outcomes 0 and 1.
        costs: What the two errors cost.

    Raises:
        ValueError: There are no rows.
    """
    if len(probability) == 0:
        raise ValueError("no rows to choose a threshold on")
    ideal = theoretical_threshold(costs)
    candidates = np.unique(np.append(np.arange(1, 100) / 100, ideal))
    # Sorted once: a threshold misses the positives below it and refers the negatives from it on.
    positive, negative = np.sort(probability[outcome == 1]), np.sort(probability[outcome == 0])
    missed = np.searchsorted(positive, candidates, side="left")
    needless = len(negative) - np.searchsorted(negative, candidates, side="left")
    cost = (missed * costs.missed_claim + needless * costs.needless_referral) / len(probability)
    cheapest = np.flatnonzero(cost <= cost.min() * (1 + 1e-12))
    best = float(candidates[cheapest[np.argmin(np.abs(candidates[cheapest] - ideal))]])
    saved = row_costs(decide(probability, ideal), outcome, costs) - row_costs(
        decide(probability, best), outcome, costs
    )
    surely = saved.mean() > _SURELY * saved.std() / np.sqrt(len(saved))
    return Chosen(
        best if surely else ideal,
        tuple(zip(candidates.tolist(), cost.tolist(), strict=True)),
    )
