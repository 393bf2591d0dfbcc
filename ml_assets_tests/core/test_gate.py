"""The gate's error rates, by simulation, and its words."""

import numpy as np
import pytest

from ml_assets.core.gate import (
    Difference,
    Guardrail,
    Limits,
    decide,
    missing_guardrail,
    paired_bootstrap,
    row_log_loss,
    slice_guardrail,
    slope_guardrail,
    window_guardrail,
)

ROWS, TRIALS = 1_000, 300
NAN = float("nan")


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


LIMITS = Limits(
    min_holdout_rows=1_000,
    calibration_slope=(0.8, 1.25),
    slice_margin=0.02,
    min_slice_rows=100,
    max_missing_increase=0.125,
)


@pytest.mark.parametrize(("rows", "holds"), [(0, False), (999, False), (1_000, True)])
def test_the_window_guardrail_holds_from_its_limit_on(rows: int, holds: bool) -> None:
    found = window_guardrail(rows, LIMITS)

    assert (found.name, found.holds) == ("window", holds)
    assert f"judged on {rows:,} rows, at least 1,000 are needed" in found.finding


@pytest.mark.parametrize(
    ("slope", "low", "high", "holds"),
    [
        (1.0, 0.9, 1.1, True),
        (0.7, 0.6, 0.8, True),  # the interval touches the range
        (0.7, 0.6, 0.799, False),
        (1.4, 1.25, 1.6, True),
        (1.4, 1.251, 1.6, False),
        (0.5, -1.0, 3.0, True),  # too few rows to tell: the window guardrail is for that
        (-1.0, -1.2, -0.8, False),
    ],
)
def test_the_slope_guardrail_breaks_if_the_whole_interval_lies_outside(
    slope: float, low: float, high: float, holds: bool
) -> None:
    found = slope_guardrail(slope, low, high, LIMITS)

    assert (found.name, found.holds) == ("calibration_slope", holds)
    assert f"{slope:.2f} [{low:.2f}, {high:.2f}], 0.8 to 1.25 is allowed" in found.finding


@pytest.mark.parametrize(
    "slope", [(NAN, NAN, NAN), (1.0, NAN, 1.1), (1.0, 0.9, NAN)], ids=["all", "low", "high"]
)
def test_a_slope_that_is_not_defined_breaks_its_guardrail(
    slope: tuple[float, float, float],
) -> None:
    found = slope_guardrail(*slope, LIMITS)

    assert not found.holds
    assert "not defined" in found.finding


@pytest.mark.parametrize(
    ("found", "holds", "told"),
    [
        ({"age": 0.125, "income": 0.0}, True, "12.5% (age), 12.5% is allowed"),
        ({"age": 0.126, "income": 0.0}, False, "12.6% (age)"),
        ({"age": 0.3, "income": 0.5}, False, "30.0% (age)"),  # income was missing before
        ({"age": 0.0, "income": 0.1}, True, "is 0.0%, 12.5%"),  # a decrease is no harm
        ({}, True, "is 0.0%, 12.5% is allowed"),
    ],
)
def test_the_missing_guardrail_looks_at_the_largest_increase(
    found: dict[str, float], holds: bool, told: str
) -> None:
    guardrail = missing_guardrail({"income": 0.4}, found, LIMITS)

    assert (guardrail.name, guardrail.holds) == ("missing_values", holds)
    assert told in guardrail.finding


def sliced(cost: float, *, rows: int = 200, min_rows: int = 100, margin: float = 0.02) -> Guardrail:
    """A challenger that costs one slice so much log loss on each row, and nothing elsewhere."""
    total = 2_000
    champion = np.full(total, 0.2)
    outcome = np.zeros(total, dtype="int8")
    group = np.arange(total) < rows
    challenger = np.where(group, 1 - np.exp(np.log(0.8) - cost), champion)
    return slice_guardrail(
        challenger,
        champion,
        outcome,
        {"small = 1": group, "rest = 1": ~group},
        Limits(1_000, (0.8, 1.25), margin, min_rows, 0.1),
        confidence=0.95,
        resamples=100,
        seed=0,
    )


@pytest.mark.parametrize(("cost", "holds"), [(-0.1, True), (0.0, True), (0.019, True)])
def test_a_slice_may_lose_up_to_the_margin(cost: float, holds: bool) -> None:
    assert sliced(cost).holds is holds


def test_a_slice_that_surely_loses_more_breaks_the_guardrail_and_is_named() -> None:
    found = sliced(0.021)

    assert (found.name, found.holds) == ("worst_slice", False)
    assert found.finding == (
        "of 2 slices with 100 rows or more, the worst is small = 1: log loss +0.0210, perhaps "
        "only +0.0210; broken if surely above +0.02"
    )


def test_a_slice_too_small_to_judge_is_not_looked_at() -> None:
    assert not sliced(1.0, rows=100).holds
    found = sliced(1.0, rows=99)

    assert found.holds
    assert found.finding.startswith("of 1 slices")


def test_no_slice_that_can_be_judged_is_no_breach_and_said() -> None:
    found = sliced(1.0, min_rows=5_000)

    assert found.holds
    assert "of 0 slices with 5,000 rows or more, none was judged" in found.finding


def test_noise_in_many_slices_does_not_break_the_guardrail_more_often_than_confidence_allows() -> (
    None
):
    generator = np.random.Generator(np.random.PCG64(9))
    broken, trials = 0, 60
    for _ in range(trials):
        log_odds = generator.normal(-1.5, 1, 1_200)
        outcome = (generator.random(1_200) < 1 / (1 + np.exp(-log_odds))).astype("int8")
        ours, theirs = (
            1 / (1 + np.exp(-(log_odds + generator.normal(0, 0.4, 1_200)))) for _ in "ab"
        )
        place = generator.integers(0, 8, 1_200)
        broken += not slice_guardrail(
            ours,
            theirs,
            outcome,
            {f"slice = {each}": place == each for each in range(8)},
            Limits(1, (0.8, 1.25), 0.0, 1, 0.1),
            confidence=0.95,
            resamples=400,
            seed=0,
        ).holds
    assert broken / trials <= 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5


@pytest.mark.parametrize("age", [1, 30])
def test_a_broken_guardrail_stops_even_a_superior_challenger_and_is_named(age: int) -> None:
    guardrails = (
        Guardrail("window", True, "judged on 4,676 rows"),
        Guardrail("calibration_slope", False, "calibration slope 0.40 [0.30, 0.50]"),
        Guardrail("missing_values", False, "increase of 40.0% (age)"),
    )

    def verdict(*kept: Guardrail) -> tuple[bool, str, str]:
        found = decide(
            Difference(-0.05, -0.06, -0.04, 4_676),
            margin=0.005,
            champion_age_days=age,
            refresh_after_days=7,
            challenger_version=12,
            guardrails=kept,
        )
        return found.promote, found.rule, found.reason

    promoted, rule, reason = verdict(*guardrails)

    assert (promoted, rule) == (False, "guardrail")
    assert "challenger version 12 stays challenger: calibration slope 0.40" in reason
    assert "increase of 40.0% (age) (guardrail)" in reason
    assert "judged on" not in reason, "only what is broken"
    assert verdict(guardrails[0])[:2] == (True, "superior")
