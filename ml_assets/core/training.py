"""Fitting and judging a model on a time split; nothing here knows where rows or models lie."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.core.bundle import Bundle, encode, feature_types, learn_vocabulary
from ml_assets.core.scoring import predict
from ml_assets.core.splits import TimeSplit


class OneClass(ValueError):
    """A part of the split holds only one outcome, so nothing can be learned or judged on it."""


@dataclass(frozen=True)
class Evaluation:
    """How well probabilities fit outcomes.

    Attributes:
        rows: Number of rows judged.
        roc_auc: Area under the ROC curve, 0.5 for a coin, 1 for perfect order.
        log_loss: Mean negative log-likelihood, in nats; 0 is perfect.
    """

    rows: int
    roc_auc: float
    log_loss: float


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
        _require_both_classes(part, rows[target])
    vocabulary = learn_vocabulary(train, categorical)

    def matrix(rows: pd.DataFrame, ref: Any = None) -> Any:
        return xgb.QuantileDMatrix(
            encode(rows, inputs, vocabulary),
            label=rows[target].to_numpy(dtype=np.float32),
            feature_names=list(inputs),
            feature_types=feature_types(inputs, vocabulary),
            enable_categorical=True,
            ref=ref,
            nthread=threads,
        )

    train_matrix = matrix(train)
    booster = xgb.train(
        {
            **parameters,
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "seed": seed,
            "nthread": threads,
        },
        train_matrix,
        num_boost_round=max_rounds,
        evals=[(matrix(validation, train_matrix), "validation")],
        early_stopping_rounds=early_stopping_rounds,
        verbose_eval=False,
    )
    rounds = booster.best_iteration + 1
    return Bundle(
        trees=bytes(booster[:rounds].save_raw("ubj")),
        inputs=tuple(inputs),
        vocabulary=vocabulary,
        facts={
            **facts,
            "seed": seed,
            "parameters": dict(parameters),
            "rounds": rounds,
            "train_rows": len(train),
            "validation_rows": len(validation),
            "validation_log_loss": float(booster.best_score),
            "xgboost": xgb.__version__,
        },
    )


def evaluate(bundle: Bundle, frame: pd.DataFrame, target: str, threads: int = 1) -> Evaluation:
    """Judge a model on rows with known outcomes.

    Raises:
        OneClass: The rows hold only one outcome, so ROC AUC is not defined.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    outcome = frame[target].to_numpy(dtype=np.int8)
    _require_both_classes("holdout", frame[target])
    probability = predict(bundle, frame, threads)
    return Evaluation(
        rows=len(frame),
        roc_auc=float(roc_auc_score(outcome, probability)),
        log_loss=float(log_loss(outcome, probability)),
    )


def _require_both_classes(part: str, outcome: pd.Series) -> None:
    if outcome.nunique() < 2:
        raise OneClass(
            f"the {len(outcome)} {part} rows hold only one outcome "
            f"({outcome.iloc[0] if len(outcome) else 'none'}): both are needed. Give that part "
            "more days (training.validation_days, training.holdout_days)."
        )
