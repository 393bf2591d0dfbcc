"""Figures against scikit-learn's own, intervals against simulated truth."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from ml_assets.core.metrics import (
    METRICS,
    bootstrap_metrics,
    bootstrap_sums,
    confusion,
    equal_mass_bins,
    expected_positives,
    wilson,
)


def sample(rows: int, seed: int = 0, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose log-odds should have been multiplied by `slope`, and outcomes."""
    generator = np.random.Generator(np.random.PCG64(seed))
    log_odds = generator.normal(-2, 1.5, rows)
    outcome = generator.random(rows) < 1 / (1 + np.exp(-slope * log_odds))
    return 1 / (1 + np.exp(-log_odds)), outcome.astype(np.int8)


def value_of(name: str, probability: np.ndarray, outcome: np.ndarray) -> float | None:
    return bootstrap_metrics(
        probability, outcome, threshold=0.2, resamples=2, seed=0, names=[name]
    )[name][0]


def slope_and_intercept(probability: np.ndarray, outcome: np.ndarray) -> tuple[float, float]:
    from sklearn.linear_model import LogisticRegression

    log_odds = np.log(probability / (1 - probability))[:, np.newaxis]
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    model.fit(log_odds, outcome)
    return model.coef_[0, 0], model.intercept_[0]


@pytest.mark.parametrize("digits", [17, 2, 1], ids=["distinct", "ties", "many ties"])
def test_every_figure_is_that_of_scikit_learn(digits: int) -> None:
    from sklearn import metrics as sk

    probability, outcome = sample(3_000)
    probability = probability.round(digits).clip(0.01, 0.99)
    referred = probability >= 0.2
    slope, intercept = slope_and_intercept(probability, outcome)
    expected = {
        "roc_auc": sk.roc_auc_score(outcome, probability),
        "pr_auc": sk.average_precision_score(outcome, probability),
        "log_loss": sk.log_loss(outcome, probability),
        "brier": sk.brier_score_loss(outcome, probability),
        "calibration_slope": slope,
        "calibration_intercept": intercept,
        "accuracy": sk.accuracy_score(outcome, referred),
        "f1": sk.f1_score(outcome, referred),
        "precision": sk.precision_score(outcome, referred),
        "recall": sk.recall_score(outcome, referred),
        "kappa": sk.cohen_kappa_score(outcome, referred, weights="quadratic"),
    }

    found = bootstrap_metrics(probability, outcome, threshold=0.2, resamples=50, seed=0)

    assert set(found) == {*expected, "calibration_error"} == set(METRICS)
    for name, truth in expected.items():
        value, low, high = found[name]
        assert value == pytest.approx(truth, abs=1e-7), name
        assert low is not None
        assert high is not None
        assert low <= value <= high
    assert np.array(confusion(referred, outcome)).reshape(2, 2).tolist() == (
        sk.confusion_matrix(outcome, referred).tolist()
    )


def test_figures_of_a_resample_are_those_of_its_rows() -> None:
    """With one resample both bounds are its figures, but for being widened to hold the value."""
    from sklearn import metrics as sk

    probability, outcome = sample(400)
    probability = probability.round(2).clip(0.01, 0.99)
    order = np.lexsort((outcome, probability))
    drawn = order[np.random.Generator(np.random.PCG64(5)).integers(0, 400, size=400)]
    p, y = probability[drawn], outcome[drawn]
    expected = {
        "roc_auc": sk.roc_auc_score(y, p),
        "pr_auc": sk.average_precision_score(y, p),
        "log_loss": sk.log_loss(y, p),
        "kappa": sk.cohen_kappa_score(y, p >= 0.2),
    }

    found = bootstrap_metrics(probability, outcome, threshold=0.2, resamples=1, seed=5)

    for name, truth in expected.items():
        value, low, high = found[name]
        assert pytest.approx(truth) in (low, high), name
        assert value in (low, high)


def test_the_calibration_error_is_the_mean_distance_over_tenths() -> None:
    probability, outcome = sample(1_000)
    order = np.argsort(probability)
    tenths = zip(probability[order].reshape(10, 100), outcome[order].reshape(10, 100), strict=True)
    expected = np.mean([abs(p.mean() - y.mean()) for p, y in tenths])

    assert value_of("calibration_error", probability, outcome) == pytest.approx(expected)


def test_equal_probabilities_share_a_bin() -> None:
    probability = np.array([0.1] * 35 + [0.2] * 30 + [0.3] * 35)

    bins = equal_mass_bins(probability)

    assert [set(bins[probability == p]) for p in (0.1, 0.2, 0.3)] == [{0}, {3}, {6}]


@pytest.mark.parametrize("slope", [0.5, 1.0, 1.5])
def test_a_known_calibration_slope_is_found_again(slope: float) -> None:
    probability, outcome = sample(20_000, slope=slope)

    found = bootstrap_metrics(probability, outcome, resamples=200, seed=0)

    value, low, high = found["calibration_slope"]
    assert value == pytest.approx(slope, abs=0.06)
    assert low is not None
    assert high is not None
    assert low - 0.02 < slope < high + 0.02


def test_one_newton_step_gives_the_interval_that_fitting_every_resample_anew_gives() -> None:
    probability, outcome = sample(1_000)
    generator = np.random.Generator(np.random.PCG64(9))
    slopes = []
    for _ in range(300):
        drawn = generator.integers(0, 1_000, 1_000)
        slopes.append(slope_and_intercept(probability[drawn], outcome[drawn])[0])

    _, low, high = bootstrap_metrics(probability, outcome, resamples=3_000, seed=0)[
        "calibration_slope"
    ]

    assert [low, high] == pytest.approx(np.quantile(slopes, [0.025, 0.975]), abs=0.04)


@pytest.mark.parametrize("name", ["roc_auc", "pr_auc", "log_loss", "brier", "f1", "kappa"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(name: str) -> None:
    truth = value_of(name, *sample(400_000, seed=99))
    assert truth is not None
    held = 0
    for seed in range(150):
        _, low, high = bootstrap_metrics(
            *sample(800, seed), threshold=0.2, resamples=200, seed=0, names=[name]
        )[name]
        assert low is not None
        assert high is not None
        held += low <= truth <= high

    # 95 % less three standard errors of 150 trials.
    assert held / 150 >= 0.89


def test_the_interval_of_a_calibration_error_holds_it() -> None:
    """The bootstrap adds noise to noise, so that its quantiles alone would often lie above."""
    for seed in range(20):
        value, low, high = bootstrap_metrics(*sample(500, seed), resamples=100, seed=0)[
            "calibration_error"
        ]
        assert value is not None
        assert low is not None
        assert high is not None
        assert low <= value <= high


def test_the_same_seed_gives_the_same_figures_whatever_the_order_and_the_threads() -> None:
    probability, outcome = sample(5_000)
    shuffled = np.random.Generator(np.random.PCG64(1)).permutation(5_000)
    found = []
    for threads, rows in ((1, slice(None)), (2, shuffled)):
        with threadpool_limits(threads):
            found.append(bootstrap_metrics(probability[rows], outcome[rows], resamples=80, seed=3))

    assert found[0] == found[1]
    assert found[0] != bootstrap_metrics(probability, outcome, resamples=80, seed=4)


@pytest.mark.parametrize("only", [0, 1])
def test_one_class_leaves_undefined_what_is_undefined(only: int) -> None:
    probability, _ = sample(100)

    found = bootstrap_metrics(probability, np.full(100, only), resamples=20, seed=0)

    defined = {name for name, interval in found.items() if interval != (None, None, None)}
    assert defined == {"log_loss", "brier", "calibration_error", "accuracy"}


def test_no_rows_leave_everything_undefined() -> None:
    found = bootstrap_metrics(np.empty(0), np.empty(0), resamples=20, seed=0)

    assert set(found.values()) == {(None, None, None)}


def test_precision_is_undefined_where_nothing_is_referred() -> None:
    probability, outcome = sample(100)

    found = bootstrap_metrics(probability, outcome, threshold=1.1, resamples=20, seed=0)

    assert found["precision"] == (None, None, None)
    assert found["recall"] == found["f1"] == found["kappa"] == (0, 0, 0)


def test_one_probability_for_all_has_no_slope() -> None:
    found = bootstrap_metrics(np.full(60, 0.2), np.arange(60) % 5 == 0, resamples=20, seed=0)

    assert found["calibration_slope"] == (None, None, None)
    assert found["roc_auc"] == (0.5, 0.5, 0.5)


def test_a_few_positives_give_an_interval_from_the_resamples_that_have_any() -> None:
    outcome = np.zeros(30, dtype=np.int8)
    outcome[0] = 1

    value, low, high = bootstrap_metrics(np.linspace(0.9, 0.1, 30), outcome, resamples=100, seed=0)[
        "roc_auc"
    ]

    assert value == low == high == 1


def test_certain_and_wrong_is_a_large_figure_and_not_an_infinite_one() -> None:
    found = bootstrap_metrics(
        np.array([0.0, 1.0, 0.3, 0.6]), np.array([1, 0, 0, 1]), resamples=20, seed=0
    )

    assert found["log_loss"][0] is not None
    assert found["log_loss"][0] > 15


def test_sums_get_the_interval_of_their_rows() -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    cost = generator.gamma(2, 3, 2_000)

    ((value, low, high),) = bootstrap_sums(
        cost[:, np.newaxis], lambda total: total / 2_000, resamples=2_000, seed=0
    )

    error = cost.std() / 2_000**0.5
    assert value == pytest.approx(cost.mean())
    assert [low, high] == pytest.approx(cost.mean() + np.array([-1.96, 1.96]) * error, abs=0.02)


@pytest.mark.parametrize(
    ("positives", "rows", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (8, 40, 0.1050, 0.3476)],
)
def test_wilsons_interval(positives: int, rows: int, low: float, high: float) -> None:
    from scipy.stats import binomtest

    found = wilson(positives, rows)

    assert found == pytest.approx((low, high), abs=1e-4)
    assert found == pytest.approx(
        tuple(binomtest(positives, rows).proportion_ci(method="wilson")), abs=1e-12
    )


def test_actual_counts_fall_into_the_expected_interval_about_as_often_as_said() -> None:
    probability, _ = sample(1_000)
    generator = np.random.Generator(np.random.PCG64(4))
    counts = (generator.random((4_000, 1_000)) < probability).sum(axis=1)

    mean, low, high = expected_positives(probability)

    assert mean == pytest.approx(probability.sum())
    assert 0.945 <= np.mean((counts >= low) & (counts <= high)) <= 0.97
    assert expected_positives(np.zeros(3)) == (0, 0, 0.5)
