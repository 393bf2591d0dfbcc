"""Choosing the map from a model's raw log-odds to probabilities that can be taken at their word.

A calibration is a plain mapping that goes through JSON; `calibrated` in `ml_assets.core.bundle`
applies it. How well it did is judged in `ml_assets.core.evaluation`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml_assets.core.bundle import calibrated
from ml_assets.core.gate import row_log_loss
from ml_assets.core.splits import OneClass

# From the simplest to the most flexible.
METHODS = ("none", "platt", "beta", "isotonic")

# Candidates this close, in nats per row, are as good as each other. One needless parameter costs
# 1 / (2 * rows), 0.00014 nats on 3,600 calibration rows, so a smaller gain is noise, and following
# it would change the method from day to day.
TIE = 1e-4


@dataclass(frozen=True)
class Choice:
    """A calibration, and what it was chosen from.

    Attributes:
        calibration: Plain JSON values, one of
            `{"method": "none"}`,
            `{"method": "platt", "slope": a, "intercept": b}`: log-odds a * margin + b,
            `{"method": "beta", "a": a, "b": b, "intercept": c}`: log-odds
            a * log_expit(margin) - b * log_expit(-margin) + c,
            `{"method": "isotonic", "x": margins, "y": probabilities}`: linear in between.
        cross_validated_log_loss: Of each candidate, in nats per row on calibration rows that its
            fit did not see. Empty when there were too few rows of one outcome to cross-validate,
            and "none" was taken unseen. A method that came out not increasing is not in it.
    """

    calibration: Mapping[str, Any]
    cross_validated_log_loss: Mapping[str, float]


def choose_calibration(margin: np.ndarray, outcome: np.ndarray, *, folds: int, seed: int) -> Choice:
    """Choose between no calibration, Platt's, beta and isotonic by cross-validated log loss.

    The simplest method whose log loss is within `TIE` of the best is fitted on all rows. Platt:
    "Probabilistic outputs for support vector machines", 1999, without his smoothed targets, so that
    the probabilities sum to the number of positives. Beta: Kull, Silva Filho and Flach, "Beta
    calibration", AISTATS 2017. Isotonic: Zadrozny and Elkan, KDD 2002. All but isotonic keep the
    order of rows and so ROC AUC; isotonic makes ties.

    Args:
        margin: Raw log-odds of the calibration rows, shape (rows,), float64.
        outcome: Outcomes 0 and 1.
        folds: Number of stratified folds, at least 2. With fewer than `2 * folds` rows of either
            outcome nothing can be compared, and "none" is chosen.
        seed: Seed of the folds.

    Raises:
        OneClass: The rows hold only one outcome.
    """
    from sklearn.model_selection import StratifiedKFold

    positives = int(np.sum(outcome == 1))
    fewest = min(positives, len(outcome) - positives)
    if fewest == 0:
        raise OneClass(
            f"the {len(outcome)} calibration rows hold only one outcome: both are needed. Give "
            "that part more days."
        )
    if fewest < 2 * folds:
        return Choice({"method": "none"}, {})
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    splits = list(splitter.split(margin[:, np.newaxis], outcome))
    losses = {}
    for method in METHODS:
        unseen = np.empty(len(margin))
        for fitted, held_out in splits:
            calibration = fit_calibration(method, margin[fitted], outcome[fitted])
            if calibration is None:
                break
            probability = calibrated(margin[held_out], calibration)
            unseen[held_out] = row_log_loss(probability, outcome[held_out])
        else:
            losses[method] = rounded(float(unseen.mean()))
    best = min(losses.values())
    for method in METHODS:
        if losses.get(method, np.inf) <= best + TIE:
            calibration = fit_calibration(method, margin, outcome)
            if calibration is not None:
                return Choice(calibration, losses)
    return Choice({"method": "none"}, losses)


def fit_calibration(method: str, margin: np.ndarray, outcome: np.ndarray) -> dict[str, Any] | None:
    """Fit one method to rows of both outcomes.

    Returns:
        The calibration as `Choice` describes it, or None when no increasing map fits.
    """
    match method:
        case "none":
            return {"method": "none"}
        case "platt":
            fitted = fit_logistic(margin[:, np.newaxis], outcome)
            if fitted is None or fitted[0] <= 0:
                return None
            return {"method": "platt", "slope": fitted[0], "intercept": fitted[1]}
        case "beta":
            return _fit_beta(margin, outcome)
        case "isotonic":
            return _fit_isotonic(margin, outcome)
    raise ValueError(f"no calibration method {method!r}; there are: {', '.join(METHODS)}")


def fit_logistic(features: np.ndarray, outcome: np.ndarray) -> tuple[float, ...] | None:
    """Logistic regression without a penalty.

    Returns:
        Coefficients, then the intercept, each to nine significant digits; None when there is no
        finite fit, as for outcomes that a feature separates.
    """
    from sklearn.linear_model import LogisticRegression

    # Newton's method converges to the last digits, so that the order in which one or two BLAS
    # threads add up shows only beyond the ninth, which is rounded off: the same rows give the same
    # bytes, and so the same hash of the model. lbfgs stops earlier, and somewhere else each time.
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10, max_iter=100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model.fit(features, outcome.astype(np.int8))
        except np.linalg.LinAlgError:
            return None
    # A singular Hessian, as of a constant feature: scikit-learn warns of it (LinAlgWarning), or of
    # not having converged, and falls back on lbfgs.
    if any(issubclass(warning.category, RuntimeWarning | UserWarning) for warning in caught):
        return None
    # Outcomes that the features separate: ever larger coefficients fit ever better, until nothing
    # is left to fit. Of 10 million rows, one that is out of order leaves more than this.
    residual = outcome - model.predict_proba(features)[:, 1]
    if np.abs(residual).mean() < 1e-8:
        return None
    return tuple(rounded(float(value)) for value in (*model.coef_[0], model.intercept_[0]))


def rounded(value: float) -> float:
    """To nine significant digits and twelve decimals: more are the noise of adding up."""
    return float(f"{round(value, 12):.9g}")


def _fit_beta(margin: np.ndarray, outcome: np.ndarray) -> dict[str, Any] | None:
    # ln p and -ln(1 - p), without the rounding of p.
    sides = np.column_stack([-np.logaddexp(0, -margin), np.logaddexp(0, margin)])
    fitted = fit_logistic(sides, outcome)
    if fitted is None:
        return None
    *sloped, intercept = fitted
    if min(sloped) < 0:
        # As in the paper: fitted again without the side whose coefficient came out negative.
        kept = int(np.argmax(sloped))
        refitted = fit_logistic(sides[:, [kept]], outcome)
        if refitted is None:
            return None
        sloped = [0.0, 0.0]
        sloped[kept], intercept = refitted
        if sloped[kept] <= 0:
            return None
    return {"method": "beta", "a": sloped[0], "b": sloped[1], "intercept": intercept}


def _fit_isotonic(margin: np.ndarray, outcome: np.ndarray) -> dict[str, Any] | None:
    from sklearn.isotonic import IsotonicRegression

    # Laplace's rule of succession keeps probabilities off 0 and 1: had all rows been negative, the
    # next would still be positive with 1 / (rows + 2). No group of them can be surer than that.
    lowest = 1 / (len(margin) + 2)
    model = IsotonicRegression(y_min=lowest, y_max=1 - lowest, out_of_bounds="clip")
    model.fit(margin, outcome.astype(np.float64))
    x, y = model.X_thresholds_, model.y_thresholds_
    if len(x) < 2:
        return None  # one level for all rows: no order is left
    return {"method": "isotonic", "x": x.tolist(), "y": y.tolist()}
