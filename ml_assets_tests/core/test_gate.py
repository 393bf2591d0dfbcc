"""The gate's error rates, by simulation, and its words."""

import numpy as np
import pytest

from ml_assets.core.gate import Difference, decide, paired_bootstrap, row_log_loss

ROWS, TRIALS = 1_000, 300


def compared(challenger: np.ndarray, champion: np.ndarray, outcome: np.ndarray) -> Difference:
    return paired_bootstrap(challenger, champion, outcome, confidence=0.95, resamples=300, seed=0)


def share_promoted(challenger_noise: float, champion_noise: float, *, age: int = 0) -> float:
    """How often a challenger is promoted whose log-odds are off by that much noise."""
    generator = np.random.Generator(np.random.PCG64(20261123))
    promoted = 0
    for _ in range(TRIALS):
        log_odds = generator.normal(-2.5, 2, ROWS)
        outcome = (generator.random(ROWS) < 1 / (1 + np.exp(-log_odds))).astype("int8")
        challenger, champion = (
            1 / (1 + np.exp(-(log_odds + generator.normal(0, noise, ROWS))))
            for noise in (challenger_noise, champion_noise)
        )
        promoted += decide(
            compared(challenger, champion, outcome),
            margin=0.005,
            champion_age_days=age,
            refresh_after_days=7,
            challenger_version=2,
        ).promote
    return promoted / TRIALS


def naive(challenger: np.ndarray, champion: np.ndarray, outcome: np.ndarray) -> bool:
    return bool(row_log_loss(challenger, outcome).mean() <= row_log_loss(champion, outcome).mean())


def test_an_equal_challenger_is_promoted_one_time_in_twenty_at_most() -> None:
    # 5 % and three standard errors of 300 trials.
    assert share_promoted(0.4, 0.4) <= 0.05 + 3 * (0.05 * 0.95 / TRIALS) ** 0.5


def test_a_worse_challenger_is_hardly_ever_promoted() -> None:
    assert share_promoted(0.6, 0.4) <= 0.01


def test_a_clearly_better_challenger_is_promoted() -> None:
    assert share_promoted(0.2, 1.0) >= 0.9


def test_a_routine_refresh_does_not_let_a_worse_challenger_in() -> None:
    # Noise of 0.8 costs more than the margin; 0.4 costs about the same as the champion.
    assert share_promoted(0.8, 0.4, age=30) <= 0.05
    assert share_promoted(0.2, 0.2, age=30) > share_promoted(0.2, 0.2)


def test_the_naive_rule_would_promote_an_equal_challenger_every_other_time() -> None:
    """Why there is a gate at all; if this fails, the trials above prove nothing."""
    generator = np.random.Generator(np.random.PCG64(1))
    promoted = 0
    for _ in range(TRIALS):
        outcome = (generator.random(ROWS) < 0.16).astype("int8")
        first, second = (np.clip(generator.normal(0.16, 0.05, ROWS), 0.01, 0.9) for _ in "ab")
        promoted += naive(first, second, outcome)
    assert 0.4 < promoted / TRIALS < 0.6


def test_the_mean_difference_is_that_of_scikit_learns_log_loss() -> None:
    from sklearn.metrics import log_loss

    generator = np.random.Generator(np.random.PCG64(3))
    outcome = (generator.random(500) < 0.3).astype("int8")
    first, second = generator.random(500), generator.random(500)

    found = compared(first, second, outcome)

    assert found.mean == pytest.approx(log_loss(outcome, first) - log_loss(outcome, second))
    assert found.low < found.mean < found.high
    assert found == compared(first, second, outcome), "the same seed gives the same bounds"


def test_certain_and_wrong_is_a_large_loss_and_not_an_infinite_one() -> None:
    losses = row_log_loss(np.array([0.0, 1.0, 1.0]), np.array([1, 0, 1]))

    assert np.isfinite(losses).all()
    assert losses[0] > 30
    assert losses[2] == pytest.approx(0)


@pytest.mark.parametrize(
    ("low", "high", "age", "rule", "words"),
    [
        (-0.004, -0.001, 1, "superior", "challenger version 12 is promoted as superior: log loss"),
        (-0.001, 0.002, 1, "not_shown", "stays challenger: .* a routine refresh is due when"),
        (-0.001, 0.002, 7, "routine_refresh", "routine refresh of a champion 7 days old"),
        (-0.001, 0.006, 9, "not_shown", "nor within the margin 0.005"),
        (-0.004, -0.001, 9, "superior", "promoted as superior"),
    ],
)
def test_the_verdict_names_its_rule_and_says_why(
    low: float, high: float, age: int, rule: str, words: str
) -> None:
    import re

    verdict = decide(
        Difference((low + high) / 2, low, high, 4_676),
        margin=0.005,
        champion_age_days=age,
        refresh_after_days=7,
        challenger_version=12,
    )

    assert verdict.rule == rule
    assert verdict.promote is (rule != "not_shown")
    assert re.search(words, verdict.reason)
    assert f"[{low:+.4f}, {high:+.4f}] on 4,676 rows" in verdict.reason
