"""From labelled rows on a time split to a model: trees, calibration, threshold, in one function.

Nothing here knows where rows or models lie. How good the model is belongs in
`ml_assets.core.evaluation`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.core.bundle import (
    Bundle,
    Category,
    calibrated,
    encode,
    feature_types,
    learn_vocabulary,
    margins,
)
from ml_assets.core.calibration import Choice, choose_calibration
from ml_assets.core.exploration import duplicate_columns
from ml_assets.core.splits import TimeSplit, require_both_classes
from ml_assets.core.threshold import Chosen, Costs, choose_threshold


@dataclass(frozen=True)
class Recipe:
    """All that decides a model's bytes, besides its rows and the code.

    Attributes:
        parameters: XGBoost's own training parameters.
        seed: Seed of row and column sampling and of the calibration's folds.
        max_rounds: Most trees to grow.
        early_stopping_rounds: Rounds without a better validation log loss before stopping.
        calibration_folds: Folds in which calibrations are compared.
        costs: What a missed claim and a needless referral cost.
    """

    parameters: Mapping[str, int | float | str]
    seed: int
    max_rounds: int
    early_stopping_rounds: int
    calibration_folds: int
    costs: Costs


@dataclass(frozen=True)
class Trained:
    """A model, and how its calibration and threshold were chosen."""

    bundle: Bundle
    calibration: Choice
    threshold: Chosen


def train(
    frame: pd.DataFrame,
    split: TimeSplit,
    recipe: Recipe,
    *,
    inputs: Sequence[str],
    categorical: Sequence[str],
    target: str,
    threads: int,
    facts: Mapping[str, Any],
) -> Trained:
    """Fit, calibrate, and choose the decision threshold; the holdout is not read.

    Columns that repeat another in the train days are left out of the trees, so that importance and
    reasons do not split between them. The same arguments give the same bytes, whatever the number
    of threads.

    Args:
        frame: Feature rows with a `day` column and known outcomes in `target`.
        split: Days of each part.
        recipe: How to train.
        inputs: Columns that the model may see.
        categorical: Those inputs whose values are names.
        target: Column with outcomes 0 and 1.
        threads: Threads to train with.
        facts: What the bundle should tell of its origin.

    Raises:
        OneClass: The train, validation or calibration days hold only one outcome.
    """
    duplicates = duplicate_columns(split.rows(frame, "train"), inputs)
    fitted = fit(
        frame,
        split,
        inputs=[name for name in inputs if name not in duplicates],
        categorical=[name for name in categorical if name not in duplicates],
        target=target,
        parameters=recipe.parameters,
        seed=recipe.seed,
        threads=threads,
        max_rounds=recipe.max_rounds,
        early_stopping_rounds=recipe.early_stopping_rounds,
        facts=facts,
    )
    rows = split.rows(frame, "calibration")
    require_both_classes("calibration", rows[target])
    outcome = rows[target].to_numpy(dtype=np.int8)
    margin = margins(fitted, rows, threads)
    choice = choose_calibration(margin, outcome, folds=recipe.calibration_folds, seed=recipe.seed)
    threshold = choose_threshold(calibrated(margin, choice.calibration), outcome, recipe.costs)
    bundle = replace(
        fitted,
        calibration=choice.calibration,
        threshold=threshold.threshold,
        duplicates=duplicates,
        facts={
            **fitted.facts,
            "recipe": {**asdict(recipe), "parameters": dict(recipe.parameters)},
            "calibration_rows": len(rows),
            "split": {part: list(days) for part, days in asdict(split).items()},
        },
    )
    return Trained(bundle, choice, threshold)


def fit(
    frame: pd.DataFrame,
    split: TimeSplit,
    *,
    inputs: Sequence[str],
    categorical: Sequence[str],
    target: str,
    parameters: Mapping[str, int | float | str],
    seed: int,
    threads: int,
    max_rounds: int,
    early_stopping_rounds: int,
    facts: Mapping[str, Any],
) -> Bundle:
    """Boost trees on the train days until the validation days stop improving.

    The vocabulary is learned from the train days alone. The same arguments give the same bytes,
    whatever the number of threads.

    Args:
        frame: Feature rows with a `day` column and known outcomes in `target`.
        split: Days of each part; the holdout is not read.
        inputs: Columns that the model sees.
        categorical: Those inputs whose values are names.
        target: Column with outcomes 0 and 1.
        parameters: XGBoost's own training parameters.
        seed: Seed of row and column sampling.
        threads: Threads to train with.
        max_rounds: Most trees to grow.
        early_stopping_rounds: Rounds without a better validation log loss before stopping.
        facts: What the bundle should tell of its origin.

    Raises:
        OneClass: The train or the validation days hold only one outcome.
    """
    import xgboost as xgb

    train, validation = split.rows(frame, "train"), split.rows(frame, "validation")
    for part, rows in (("train", train), ("validation", validation)):
        require_both_classes(part, rows[target])
    vocabulary = learn_vocabulary(train, categorical)

    train_codes, validation_codes = (
        encode(rows, inputs, vocabulary) for rows in (train, validation)
    )
    train_matrix = binned(train_codes, train[target], inputs, vocabulary, threads)
    validation_matrix = binned(
        validation_codes, validation[target], inputs, vocabulary, threads, ref=train_matrix
    )
    booster = boost(
        parameters,
        train_matrix,
        validation_matrix,
        seed=seed,
        threads=threads,
        max_rounds=max_rounds,
        early_stopping_rounds=early_stopping_rounds,
    )
    rounds = booster.best_iteration + 1
    # Unseen categories count as missing, as they do in scoring.
    missing = np.isnan(train_codes).mean(axis=0)
    return Bundle(
        trees=bytes(booster[:rounds].save_raw("ubj")),
        inputs=tuple(inputs),
        vocabulary=vocabulary,
        facts={
            **facts,
            "rounds": rounds,
            "train_rows": len(train),
            "validation_rows": len(validation),
            "validation_log_loss": float(booster.best_score),
            "missing_share": {
                name: round(float(share), 6)
                for name, share in zip(inputs, missing, strict=True)
                if share
            },
            "xgboost": xgb.__version__,
        },
    )


def binned(
    codes: np.ndarray,
    outcome: pd.Series,
    inputs: Sequence[str],
    vocabulary: Mapping[str, Sequence[Category]],
    threads: int,
    ref: Any = None,
) -> Any:
    """Rows as XGBoost's histogram trees take them.

    Args:
        codes: What `encode` made of the rows, shape (rows, inputs).
        outcome: Outcomes 0 and 1.
        inputs: Columns that the model sees.
        vocabulary: Known values of the categorical ones.
        threads: Threads to bin with.
        ref: The matrix whose bins to use: that of the rows that are fitted.
    """
    import xgboost as xgb

    return xgb.QuantileDMatrix(
        codes,
        label=outcome.to_numpy(dtype=np.float32),
        feature_names=list(inputs),
        feature_types=feature_types(inputs, vocabulary),
        enable_categorical=True,
        ref=ref,
        nthread=threads,
    )


def boost(
    parameters: Mapping[str, int | float | str],
    train: Any,
    validation: Any,
    *,
    seed: int,
    threads: int,
    max_rounds: int,
    early_stopping_rounds: int,
) -> Any:
    """Grow trees on one matrix until the log loss of the other stops improving."""
    import xgboost as xgb

    return xgb.train(
        {
            **parameters,
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "seed": seed,
            "nthread": threads,
        },
        train,
        num_boost_round=max_rounds,
        evals=[(validation, "validation")],
        early_stopping_rounds=early_stopping_rounds,
        verbose_eval=False,
    )
