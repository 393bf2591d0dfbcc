"""Decisions: the threshold follows the costs, and costs are what they say."""

import numpy as np
import pytest

from ml_assets.core.threshold import (
    Costs,
    choose_threshold,
    decide,
    row_costs,
    theoretical_threshold,
)


def calibrated_rows(rows: int = 40_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.Generator(np.random.PCG64(seed))
    probability = 1 / (1 + np.exp(-generator.normal(-2, 2, rows)))
    return probability, (generator.random(rows) < probability).astype(np.int8)


@pytest.mark.parametrize(
    ("missed_claim", "needless_referral", "expected"),
    [(1, 1, 0.5), (9, 1, 0.1), (1, 3, 0.75), (500, 100, 1 / 6)],
)
def test_the_theoretical_threshold_is_elkans(
    missed_claim: float, needless_referral: float, expected: float
) -> None:
    assert theoretical_threshold(Costs(missed_claim, needless_referral)) == pytest.approx(expected)


@pytest.mark.parametrize("costs", [Costs(9, 1), Costs(1, 1), Costs(1, 3)])
def test_calibrated_probabilities_get_nearly_the_theoretical_threshold(costs: Costs) -> None:
    found = choose_threshold(*calibrated_rows(), costs)

    assert found.threshold == pytest.approx(theoretical_threshold(costs), abs=0.06)


def test_probabilities_that_promise_too_much_get_a_higher_threshold() -> None:
    probability, outcome = calibrated_rows()
    inflated = probability**0.5

    found = choose_threshold(inflated, outcome, Costs(9, 1))

    # The square root of 0.1.
    assert found.threshold == pytest.approx(0.316, abs=0.05)


def test_chance_does_not_move_the_threshold_of_calibrated_probabilities() -> None:
    samples = [calibrated_rows(3_600, seed) for seed in range(40)]

    chosen = [choose_threshold(*sample, Costs(9, 1)).threshold for sample in samples]

    assert sum(threshold != 0.1 for threshold in chosen) <= 5
    cheapest = [
        min(choose_threshold(*sample, Costs(9, 1)).curve, key=lambda point: point[1])[0]
        for sample in samples
    ]
    assert sum(threshold != 0.1 for threshold in cheapest) > 20


def test_every_point_of_the_curve_is_the_cost_of_those_decisions() -> None:
    probability, outcome = calibrated_rows(3_000)
    probability = probability.round(2)  # many exactly at a candidate
    costs = Costs(7, 2)

    found = choose_threshold(probability, outcome, costs)

    assert [point[0] for point in found.curve] == sorted({*np.arange(1, 100) / 100, 2 / 9})
    for threshold, cost in found.curve:
        referred = decide(probability, threshold)
        missed = np.sum(~referred & (outcome == 1)) * 7
        needless = np.sum(referred & (outcome == 0)) * 2
        assert cost == pytest.approx((missed + needless) / 3_000)
        assert cost == pytest.approx(row_costs(referred, outcome, costs).mean())


def test_of_equally_cheap_thresholds_the_one_nearest_to_theory_is_taken() -> None:
    probability = np.tile([0.1, 0.1, 0.9, 0.9], 50)
    outcome = np.tile([0, 0, 1, 1], 50)

    # Every threshold between makes no error at all.
    assert choose_threshold(probability, outcome, Costs(3, 1)).threshold == 0.25
    assert choose_threshold(probability, outcome, Costs(19, 1)).threshold == 0.11


def test_a_row_at_the_threshold_is_referred() -> None:
    assert decide(np.array([0.29, 0.3, 0.31]), 0.3).tolist() == [False, True, True]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["missed_claim", "needless_referral"])
def test_a_cost_that_is_no_cost_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a finite number above 0, got {value}"):
        Costs(**{"missed_claim": 1.0, "needless_referral": 1.0, name: value})


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to choose a threshold on"):
        choose_threshold(np.empty(0), np.empty(0), Costs(1, 1))
