"""Calibration: recovers a known distortion, prefers the simple, and gives the same bytes always."""

import json

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ml_assets.core.bundle import calibrated
from ml_assets.core.calibration import Choice, choose_calibration, fit_calibration
from ml_assets.core.splits import OneClass


def sample(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Raw margins, and uniform draws that outcomes are made of."""
    generator = np.random.Generator(np.random.PCG64(seed))
    return generator.normal(-2, 2, rows), generator.random(rows)


def outcomes(draws: np.ndarray, true_log_odds: np.ndarray) -> np.ndarray:
    return (draws < 1 / (1 + np.exp(-true_log_odds))).astype(np.int8)


def log_p(margin: np.ndarray) -> np.ndarray:
    return -np.logaddexp(0, -margin)


def chosen(margin: np.ndarray, outcome: np.ndarray) -> Choice:
    return choose_calibration(margin, outcome, folds=5, seed=0)


def test_a_known_slope_and_intercept_are_found_again() -> None:
    margin, draws = sample(20_000)

    found = chosen(margin, outcomes(draws, 0.6 * margin - 0.4))

    assert found.calibration["method"] == "platt"
    assert found.calibration["slope"] == pytest.approx(0.6, abs=0.03)
    assert found.calibration["intercept"] == pytest.approx(-0.4, abs=0.06)
    scores = found.cross_validated_log_loss
    assert list(scores) == ["none", "platt", "beta", "isotonic"]
    assert scores["platt"] < scores["none"] - 0.01


def test_a_known_beta_map_is_found_again() -> None:
    margin, draws = sample(20_000)
    truth = 0.4 * log_p(margin) - 1.6 * log_p(-margin) + 0.2

    found = chosen(margin, outcomes(draws, truth)).calibration

    assert found["method"] == "beta"
    assert [found["a"], found["b"], found["intercept"]] == pytest.approx([0.4, 1.6, 0.2], abs=0.15)


def test_steps_call_for_isotonic() -> None:
    margin, draws = sample(20_000)

    found = chosen(margin, outcomes(draws, np.where(margin < -1, -4.0, 1.0))).calibration

    assert found["method"] == "isotonic"
    assert calibrated(np.array([-3.0, 1.0]), found) == pytest.approx([0.018, 0.731], abs=0.02)


def test_what_is_calibrated_already_is_mostly_left_alone_and_hardly_made_worse() -> None:
    from sklearn.metrics import log_loss

    none, harm = 0, []
    for seed in range(20):
        margin, draws = sample(6_000, seed)
        outcome = outcomes(draws, margin)
        found = chosen(margin[:3_000], outcome[:3_000]).calibration
        none += found["method"] == "none"
        before, after = (
            log_loss(outcome[3_000:], calibrated(margin[3_000:], calibration))
            for calibration in ({"method": "none"}, found)
        )
        harm.append(after - before)
    assert none >= 12
    assert np.mean(harm) < 0.0005


def test_a_side_with_a_negative_coefficient_is_left_out_of_beta() -> None:
    margin, draws = sample(20_000)
    outcome = outcomes(draws, -0.4 * log_p(margin) - 1.5 * log_p(-margin) - 2)

    found = fit_calibration("beta", margin, outcome)

    assert found is not None
    assert found["a"] == 0
    assert found["b"] > 0
    order = calibrated(np.linspace(-6, 6, 50), found)
    assert (np.diff(order) > 0).all()


def test_a_model_that_is_upside_down_is_not_turned_round() -> None:
    margin, draws = sample(3_000)

    found = chosen(margin, outcomes(draws, -margin - 4))

    assert not {"platt", "beta"} & set(found.cross_validated_log_loss)
    assert found.calibration["method"] not in {"platt", "beta"}


@pytest.mark.parametrize("method", ["platt", "beta"])
def test_order_and_so_roc_auc_is_kept(method: str) -> None:
    from sklearn.metrics import roc_auc_score

    margin, draws = sample(5_000)
    outcome = outcomes(draws, 0.5 * margin)

    found = fit_calibration(method, margin, outcome)

    assert found is not None
    assert roc_auc_score(outcome, calibrated(margin, found)) == roc_auc_score(outcome, margin)
    # The sum of the probabilities is the number of positives: no smoothed targets.
    assert calibrated(margin, found).sum() == pytest.approx(outcome.sum(), rel=1e-6)


def test_isotonic_never_says_never() -> None:
    margin = np.linspace(-5, 5, 200)
    outcome = (margin > 0).astype(np.int8)

    found = fit_calibration("isotonic", margin, outcome)

    assert found is not None
    probability = calibrated(np.array([-100.0, 100.0]), found)
    assert probability == pytest.approx([1 / 202, 201 / 202])


@pytest.mark.parametrize("gap", [1.0, 0.1, 0.001])
def test_outcomes_that_the_margin_separates_have_no_platt_and_no_beta(gap: float) -> None:
    margin = np.concatenate([np.linspace(-5, -gap, 100), np.linspace(gap, 5, 100)])
    outcome = (margin > 0).astype(np.int8)

    assert fit_calibration("platt", margin, outcome) is None
    assert fit_calibration("beta", margin, outcome) is None
    found = chosen(margin, outcome)
    assert list(found.cross_validated_log_loss) == ["none", "isotonic"]


def test_one_row_out_of_order_is_enough_for_platt() -> None:
    margin = np.linspace(-5, 5, 200)
    outcome = (margin > 0).astype(np.int8)
    outcome[0] = 1

    assert fit_calibration("platt", margin, outcome) is not None


@pytest.mark.parametrize("truth", [(0.6, -0.4), (1.0, 0.0)])
def test_the_same_rows_give_the_same_bytes_over_one_or_two_blas_threads(
    truth: tuple[float, float],
) -> None:
    margin, draws = sample(30_000)
    outcome = outcomes(draws, truth[0] * margin + truth[1])
    texts = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            fitted = [fit_calibration(name, margin, outcome) for name in ("platt", "beta")]
            found = chosen(margin, outcome)
            texts.append(json.dumps([fitted, found.calibration, found.cross_validated_log_loss]))

    assert texts[0] == texts[1]


@pytest.mark.parametrize("method", ["none", "platt", "beta", "isotonic"])
def test_a_calibration_goes_through_json_unchanged(method: str) -> None:
    margin, draws = sample(2_000)
    found = fit_calibration(method, margin, outcomes(draws, margin))

    assert found is not None
    read = json.loads(json.dumps(found))
    assert (calibrated(margin, read) == calibrated(margin, found)).all()


def test_too_few_positives_to_compare_are_left_uncalibrated_and_that_can_be_seen() -> None:
    margin, _ = sample(100)
    outcome = np.zeros(100, dtype=np.int8)
    outcome[:9] = 1

    assert chosen(margin, outcome) == Choice({"method": "none"}, {})
    outcome[9] = 1
    assert chosen(margin, outcome).cross_validated_log_loss


def test_a_model_that_says_the_same_of_all_is_left_alone() -> None:
    found = chosen(np.full(200, -1.5), (np.arange(200) % 5 == 0).astype(np.int8))

    assert found.calibration == {"method": "none"}
    assert list(found.cross_validated_log_loss) == ["none"]


@pytest.mark.parametrize("only", [0, 1])
def test_one_outcome_is_refused(only: int) -> None:
    with pytest.raises(OneClass, match="the 50 calibration rows hold only one outcome"):
        chosen(np.zeros(50), np.full(50, only))


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"no calibration method 'magic'; there are: none, platt"):
        fit_calibration("magic", np.zeros(2), np.array([0, 1]))
