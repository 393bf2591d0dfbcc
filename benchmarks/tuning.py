"""The notebook's search for hyperparameters against ours, side by side on the notebook's own table.

Run from the repository root: `python benchmarks/tuning.py [PATH_TO_claims_dataset.csv]`. For each
seed, one after the other in this process and with one thread: the notebook's RandomizedSearchCV
(100 candidates, 5 stratified folds, ROC AUC), then `ml_assets.core.tuning.search` on the first 3 of
the same folds. Both winners are then fitted with a fixed number of trees on the same 5 folds, and
on 5 folds of another seed, which neither search has seen: the best of 100 candidates is partly the
luckiest on the folds that chose it. Takes about three minutes a seed.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from ml_assets.core.bundle import encode, feature_types, learn_vocabulary
from ml_assets.core.tuning import DEFAULTS, Fold, search
from ml_assets.use_cases.claims.use_case import CLAIMS

Result = TypeVar("Result")
Parameters = dict[str, Any]  # of an XGBClassifier, with its number of trees

FOLDS = 5
SEARCHED_FOLDS = 3
NOTEBOOK = Path(__file__).parents[1] / "../shared/data/claims_dataset.csv"


def main() -> None:
    """Print a row per seed, and the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path, nargs="?", default=NOTEBOOK)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, from 0")
    parser.add_argument("--trials", type=int, default=16, help="shapes of trees that we try")
    arguments = parser.parse_args()

    table = Table(arguments.csv)
    print(
        "| seed | CPU s, notebook / ours | ratio | ROC AUC on the same folds | on other folds "
        "| XGBoost's defaults, same / other |"
    )
    print("| --- | --- | --- | --- | --- | --- |")
    rows = []
    for seed in range(arguments.seeds):
        theirs, their_seconds = timed(lambda seed=seed: table.notebook(seed))
        ours, our_seconds = timed(lambda seed=seed: table.ours(seed, arguments.trials))
        scores = [
            table.roc_auc(parameters, seed, folds_seed)
            for parameters in (theirs, ours, {"n_estimators": 100})
            for folds_seed in (seed, 1_000 + seed)
        ]
        rows.append([their_seconds, our_seconds, *scores])
        print_row(str(seed), rows[-1])
        print(f"<!-- notebook {theirs}; ours {ours} -->", flush=True)
    print_row("mean", [float(mean) for mean in np.mean(rows, axis=0)])


def print_row(name: str, figures: list[float]) -> None:
    """One line of the table."""
    theirs, ours, same, other, our_same, our_other, default_same, default_other = figures
    print(
        f"| {name} | {theirs:.1f} / {ours:.1f} | {theirs / ours:.1f} "
        f"| {same:.5f} / {our_same:.5f} ({our_same - same:+.5f}) "
        f"| {other:.5f} / {our_other:.5f} ({our_other - other:+.5f}) "
        f"| {default_same:.5f} / {default_other:.5f} |",
        flush=True,
    )


def timed(run: Callable[[], Result]) -> tuple[Result, float]:
    """What `run` returns, and its CPU seconds: all threads, and all children that have ended."""

    def spent() -> float:
        times = os.times()
        return time.process_time() + times.children_user + times.children_system

    before = spent()
    result = run()
    return result, spent() - before


class Table:
    """The notebook's rows, as both searches see them."""

    def __init__(self, csv: Path) -> None:
        """Read and encode them."""
        self.frame = pd.read_csv(csv, index_col=0).rename(columns={"income level": "income_level"})
        vocabulary = learn_vocabulary(self.frame, CLAIMS.categorical)
        self.rows = encode(self.frame, CLAIMS.inputs, vocabulary)
        self.types = feature_types(CLAIMS.inputs, vocabulary)
        self.outcome = self.frame[CLAIMS.target].to_numpy()

    def notebook(self, seed: int) -> Parameters:
        """What the notebook's search finds."""
        from scipy.stats import randint, uniform
        from sklearn.model_selection import RandomizedSearchCV

        found = RandomizedSearchCV(
            self.classifier({}, seed),
            {
                "n_estimators": randint(50, 501),
                "learning_rate": uniform(0.01, 0.75),
                "subsample": uniform(0.25, 0.75),
                "max_depth": randint(1, 8),
                "colsample_bytree": uniform(0.1, 0.75),
                "min_child_weight": randint(1, 10),
            },
            n_iter=100,
            scoring="roc_auc",
            cv=self.folds(seed),
            n_jobs=1,
            random_state=seed,
            refit=False,
        ).fit(self.rows, self.outcome)
        return dict(found.best_params_)

    def ours(self, seed: int, trials: int) -> Parameters:
        """What our search finds, starting from XGBoost's defaults."""
        folds = self.folds(seed).split(self.rows, self.outcome)
        found = search(
            self.frame,
            [Fold(train, validation) for train, validation in folds][:SEARCHED_FOLDS],
            inputs=CLAIMS.inputs,
            categorical=CLAIMS.categorical,
            target=CLAIMS.target,
            metric="log_loss",
            trials=trials,
            seed=seed,
            threads=1,
            max_rounds=1_000,
            early_stopping_rounds=20,
            incumbent=DEFAULTS,
        )
        return {**found.parameters, "n_estimators": found.best.rounds}

    def roc_auc(self, parameters: Parameters, seed: int, folds_seed: int) -> float:
        """Cross-validated ROC AUC, with a fixed number of trees."""
        from sklearn.model_selection import cross_val_score

        return float(
            cross_val_score(
                self.classifier(parameters, seed),
                self.rows,
                self.outcome,
                scoring="roc_auc",
                cv=self.folds(folds_seed),
            ).mean()
        )

    def classifier(self, parameters: Parameters, seed: int) -> Any:
        """The model of both."""
        from xgboost import XGBClassifier

        return XGBClassifier(
            **parameters,
            feature_types=self.types,
            enable_categorical=True,
            random_state=seed,
            n_jobs=1,
        )

    def folds(self, seed: int) -> Any:
        """Five folds, drawn at random as the notebook does."""
        from sklearn.model_selection import StratifiedKFold

        return StratifiedKFold(FOLDS, shuffle=True, random_state=seed)


if __name__ == "__main__":
    main()
