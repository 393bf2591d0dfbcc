"""The search for hyperparameters, and whether what it found is worth having.

The search and the judgement use different days: the best of many trials is partly the luckiest, so
its own score says too much (Cawley and Talbot, On Over-fitting in Model Selection, 2010). Clocks,
tables and configuration are elsewhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from ml_assets.core.bundle import encode, learn_vocabulary
from ml_assets.core.gate import Difference, paired_bootstrap
from ml_assets.core.splits import OneClass, TooFewDays
from ml_assets.core.training import binned, boost

Metric = Literal["log_loss", "roc_auc"]
State = Literal["complete", "pruned", "failed"]
Parameters = Mapping[str, int | float | str]

# XGBoost's own, for the parameters that are searched.
DEFAULTS: Parameters = {
    "learning_rate": 0.3,
    "max_depth": 6,
    "min_child_weight": 1.0,
    "subsample": 1.0,
    "colsample_bytree": 1.0,
}

# The sign that makes a smaller one better.
_SIGNS: dict[Metric, int] = {"log_loss": 1, "roc_auc": -1}

# Shapes of trees are compared at the first learning rate; the outcome is grown at the second.
# Smaller steps fit better (Friedman, Greedy Function Approximation, 2001) and cost more rounds.
_RATE, _FINAL_RATE = 0.1, 0.025

# The name of a trial's end in Optuna.
_STATES: dict[State, str] = {"complete": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}


class TuningFailed(ValueError):
    """No trial has come to a score, so there is nothing to choose from."""


@dataclass(frozen=True)
class Fold:
    """Row positions of one fold: fitted on `train`, stopped and scored on `validation`."""

    train: np.ndarray
    validation: np.ndarray


@dataclass(frozen=True)
class Trial:
    """One set of parameters that was tried.

    Attributes:
        number: From 0, in the order of trying.
        state: `complete`, `pruned` (given up after some folds) or `failed` (the score was not a
            number).
        score: Mean over the folds that were fitted; not a number if the trial failed.
        folds: Number of folds that were fitted.
        rounds: Mean number of trees at which the validation rows stopped the fits.
        parameters: Those searched, without those held.
    """

    number: int
    state: State
    score: float
    folds: int
    rounds: int
    parameters: Parameters


@dataclass(frozen=True)
class Search:
    """What a search found.

    Attributes:
        best: The last trial: the mean of the better shapes, with smaller steps. If that one came to
            nothing, or time was over, the best of the others.
        parameters: Its parameters, together with those held.
        trials: All trials, in the order of trying.
    """

    best: Trial
    parameters: Parameters
    trials: tuple[Trial, ...]

    def count(self, state: State) -> int:
        """Number of trials that ended so."""
        return sum(trial.state == state for trial in self.trials)


@dataclass(frozen=True)
class Choice:
    """Whether the tuned parameters are adopted.

    Attributes:
        adopted: Whether they take the place of what was there.
        parameters: Those to use from now on.
        reason: The decision in words and numbers.
        versus_defaults: Log loss of tuned minus XGBoost's defaults, on rows no search has seen.
        versus_incumbent: Log loss of tuned minus what was there, on the same rows.
    """

    adopted: bool
    parameters: Parameters
    reason: str
    versus_defaults: Difference
    versus_incumbent: Difference


@dataclass(frozen=True)
class TuningDays:
    """Days to tune on, oldest first: those of the search, then those that judge its outcome."""

    search: tuple[str, ...]
    judge: tuple[str, ...]


def split_for_tuning(
    days: Sequence[str], *, folds: int, fold_days: int, judge_days: int
) -> TuningDays:
    """Set the newest days aside to judge what a search on the others finds.

    Args:
        days: Days that have rows and may be tuned on, in any order.
        folds: Number of folds of the search.
        fold_days: Days that each fold is scored on.
        judge_days: Number of days to set aside.

    Raises:
        TooFewDays: The first fold would have no day to be fitted on.
    """
    ordered = sorted(set(days))
    needed = folds * fold_days + judge_days + 1
    if len(ordered) < needed:
        raise TooFewDays(
            f"tuning needs rows of at least {needed} days before those of calibration and holdout "
            f"({folds} folds of {fold_days} after 1 to train on, {judge_days} to judge), and there "
            f"are {len(ordered)}. Materialise features for more days, or ask for fewer: "
            "tuning.folds, tuning.fold_days, tuning.judge_days."
        )
    first_judge = len(ordered) - judge_days
    return TuningDays(tuple(ordered[:first_judge]), tuple(ordered[first_judge:]))


def time_folds(days: pd.Series, *, folds: int, fold_days: int) -> list[Fold]:
    """Folds that go forward in time: each is scored on the days that follow all it is fitted on.

    As scikit-learn's TimeSeriesSplit, but over whole days: the newest `folds * fold_days` days are
    scored, and what is fitted grows from fold to fold.

    Args:
        days: The day of each row, in any order.
        folds: Number of folds.
        fold_days: Days that each fold is scored on.

    Raises:
        TooFewDays: The first fold would have no day to be fitted on.
    """
    ordered = split_for_tuning(days.unique(), folds=folds, fold_days=fold_days, judge_days=0).search
    found = []
    for fold in range(folds, 0, -1):
        first = len(ordered) - fold * fold_days
        found.append(
            Fold(
                train=np.flatnonzero(days.isin(ordered[:first])),
                validation=np.flatnonzero(days.isin(ordered[first : first + fold_days])),
            )
        )
    return found


def search(
    frame: pd.DataFrame,
    folds: Sequence[Fold],
    *,
    inputs: Sequence[str],
    categorical: Sequence[str],
    target: str,
    metric: Metric,
    trials: int,
    seed: int,
    threads: int,
    max_rounds: int,
    early_stopping_rounds: int,
    incumbent: Parameters,
    out_of_time: Callable[[], bool] = lambda: False,
    on_trial: Callable[[Trial, Trial | None], None] = lambda *_: None,
) -> Search:
    """Search for the parameters with the best mean score over the folds.

    The tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter
    Optimization, 2011; Optuna's TPESampler) proposes shapes of trees one after the other; the first
    two are those of the incumbent and of XGBoost's defaults. A trial goes on to the next fold only
    while it is among the better half so far: asynchronous successive halving with folds as its
    resource (Li et al., A System for Massively Parallel Hyperparameter Tuning, 2020). Each fold is
    binned once for all trials, and its validation rows stop each fit.

    All shapes take steps of one size, since small steps need many rounds. The outcome is the mean
    of the better half of the shapes that went through every fold, with smaller steps: the single
    best trial is partly a lucky one, and a mean is not (Beyer, Toward a Theory of Evolution
    Strategies, 1995, on recombination under noise). The same arguments give the same outcome,
    unless time cuts the search short.

    Args:
        frame: Feature rows with known outcomes in `target`; rows in no fold are not read.
        folds: Row positions to fit and to score on.
        inputs: Columns that the model sees.
        categorical: Those inputs whose values are names.
        target: Column with outcomes 0 and 1.
        metric: What scores the trials; log loss stops the fits.
        trials: Number of shapes to try; one more trial follows.
        seed: Seed of the proposals, and of row and column sampling.
        threads: Threads to fit with.
        max_rounds: Most trees to grow.
        early_stopping_rounds: Rounds without a better score before a fit stops.
        incumbent: The best parameters known. Those of them that are not searched are held.
        out_of_time: Asked after each trial; no other begins once it says so.
        on_trial: Called after each trial, with it and the best so far.

    Raises:
        OneClass: A fold is to be fitted or scored on one outcome only.
        TuningFailed: The score of every trial was not a number.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    matrices = [
        _matrices(
            frame,
            [fold.train, fold.validation],
            (f"fold {number} train", f"fold {number} validation"),
            inputs=inputs,
            categorical=categorical,
            target=target,
            threads=threads,
        )
        for number, fold in enumerate(folds, start=1)
    ]
    sign = _SIGNS[metric]
    done: list[Trial] = []
    best: Trial | None = None

    def attempt(parameters: Parameters, hopeless: Callable[[float, int], bool]) -> Trial:
        nonlocal best
        scores: list[float] = []
        rounds: list[int] = []
        state: State = "complete"
        for number, (train, validation) in enumerate(matrices, start=1):
            booster = boost(
                {**held, **parameters},
                train,
                validation,
                seed=seed,
                threads=threads,
                max_rounds=max_rounds,
                early_stopping_rounds=early_stopping_rounds,
            )
            scores.append(_score(booster, validation, metric))
            rounds.append(booster.best_iteration + 1)
            if not math.isfinite(scores[-1]):
                state = "failed"
                break
            if number < len(matrices) and hopeless(float(np.mean(scores)), number):
                state = "pruned"
                break
        trial = Trial(
            number=len(done),
            state=state,
            score=float(np.mean(scores)),
            folds=len(scores),
            rounds=round(float(np.mean(rounds))),
            parameters=parameters,
        )
        done.append(trial)
        if state == "complete" and (best is None or sign * trial.score < sign * best.score):
            best = trial
        on_trial(trial, best)
        return trial

    space = _shapes()
    held = {name: value for name, value in incumbent.items() if name not in DEFAULTS}
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=6),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    )
    for known in (incumbent, DEFAULTS):
        study.enqueue_trial(_inside({**DEFAULTS, **known}, space), skip_if_exists=True)
    while len(done) < trials and not (done and out_of_time()):
        proposed = study.ask(space)

        def hopeless(score: float, step: int, proposed: Any = proposed) -> bool:
            proposed.report(sign * score, step)
            return proposed.should_prune()

        tried = attempt({"learning_rate": _RATE, **proposed.params}, hopeless)
        loss = sign * tried.score if tried.state == "complete" else None
        study.tell(proposed, loss, optuna.trial.TrialState[_STATES[tried.state]])
    if best is None:
        raise TuningFailed(
            f"none of {len(done)} trials came to a {metric} that is a number. Look at the "
            f"parameters that were held, {held or 'none'}, and at the features."
        )
    if not out_of_time():
        complete = [trial for trial in done if trial.state == "complete"]
        ranked = sorted(complete, key=lambda trial: sign * trial.score)
        shape = _mean([trial.parameters for trial in ranked[: (len(ranked) + 1) // 2]], space)
        last = attempt({"learning_rate": _FINAL_RATE, **shape}, lambda *_: False)
        best = last if last.state == "complete" else best
    return Search(best=best, parameters={**held, **best.parameters}, trials=tuple(done))


def compare(
    frame: pd.DataFrame,
    stopped: Fold,
    judge: np.ndarray,
    *,
    inputs: Sequence[str],
    categorical: Sequence[str],
    target: str,
    tuned: Parameters,
    incumbent: Parameters,
    seed: int,
    threads: int,
    max_rounds: int,
    early_stopping_rounds: int,
    confidence: float,
    resamples: int,
) -> Choice:
    """Adopt tuned parameters if they beat XGBoost's defaults by more than noise.

    All are fitted and stopped on the same rows, then score rows that neither the search nor a fit
    has seen. The tuned ones are adopted if the upper bound of their difference in log loss from the
    defaults is below zero, and if they are not worse than the incumbent.

    Args:
        frame: Feature rows with known outcomes in `target`.
        stopped: Rows to fit on, and rows to stop the fits.
        judge: Positions of the rows that judge.
        inputs: Columns that the model sees.
        categorical: Those inputs whose values are names.
        target: Column with outcomes 0 and 1.
        tuned: What the search found.
        incumbent: What is in use.
        seed: Seed of row and column sampling, and of the bootstrap.
        threads: Threads to fit with.
        max_rounds: Most trees to grow.
        early_stopping_rounds: Rounds without a better log loss before a fit stops.
        confidence: One-sided confidence of the bounds: see `paired_bootstrap`.
        resamples: Number of bootstrap samples.

    Raises:
        OneClass: The rows to fit on, to stop the fits or to judge hold one outcome only.
    """
    train, validation, unseen = _matrices(
        frame,
        [stopped.train, stopped.validation, judge],
        ("train", "validation", "judging"),
        inputs=inputs,
        categorical=categorical,
        target=target,
        threads=threads,
    )

    def probability(parameters: Parameters) -> np.ndarray:
        booster = boost(
            parameters,
            train,
            validation,
            seed=seed,
            threads=threads,
            max_rounds=max_rounds,
            early_stopping_rounds=early_stopping_rounds,
        )
        return booster.predict(unseen, iteration_range=(0, booster.best_iteration + 1))

    ours = probability(tuned)
    versus_defaults, versus_incumbent = (
        paired_bootstrap(
            ours,
            probability(other),
            frame[target].to_numpy(dtype=np.int8)[judge],
            confidence=confidence,
            resamples=resamples,
            seed=seed,
        )
        for other in (DEFAULTS, incumbent)
    )
    return _choose(tuned, incumbent, versus_defaults, versus_incumbent)


def _choose(
    tuned: Parameters,
    incumbent: Parameters,
    versus_defaults: Difference,
    versus_incumbent: Difference,
) -> Choice:
    numbers = (
        f"log loss {_in_words(versus_defaults)} against XGBoost's defaults and "
        f"{_in_words(versus_incumbent)} against those in use, on {versus_defaults.rows:,} rows "
        "that the search has not seen"
    )
    if versus_defaults.high >= 0:
        adopted, why = False, "does not show that they beat the defaults by more than noise"
    elif versus_incumbent.mean > 0:
        adopted, why = False, "shows them worse than those in use"
    else:
        adopted, why = (
            True,
            "shows that they beat the defaults, and are not worse than those in use",
        )
    done = "the tuned parameters are adopted" if adopted else "the parameters in use are kept"
    return Choice(
        adopted=adopted,
        parameters=tuned if adopted else incumbent,
        reason=f"{done}: {numbers}, {why}",
        versus_defaults=versus_defaults,
        versus_incumbent=versus_incumbent,
    )


def _in_words(difference: Difference) -> str:
    return f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"


def _shapes() -> dict[str, Any]:
    """The notebook's ranges of what shapes trees.

    Columns are drawn by their logarithm: of forty, a tree needs few.
    """
    from optuna.distributions import FloatDistribution, IntDistribution

    return {
        "max_depth": IntDistribution(1, 7),
        "min_child_weight": FloatDistribution(1, 9),
        "subsample": FloatDistribution(0.25, 1),
        "colsample_bytree": FloatDistribution(0.1, 0.85, log=True),
    }


def _inside(parameters: Parameters, space: Mapping[str, Any]) -> dict[str, int | float]:
    """The searched ones of some parameters, moved to the nearest value that the space has."""
    return {
        name: type(range_.low)(min(max(float(parameters[name]), range_.low), range_.high))
        for name, range_ in space.items()
    }


def _mean(shapes: Sequence[Parameters], space: Mapping[str, Any]) -> dict[str, int | float]:
    """The mean of each parameter, rounded where the space has whole numbers only."""
    means = {name: float(np.mean([shape[name] for shape in shapes])) for name in space}
    return {
        name: round(mean) if isinstance(space[name].low, int) else mean
        for name, mean in means.items()
    }


def _matrices(
    frame: pd.DataFrame,
    parts: Sequence[np.ndarray],
    names: Sequence[str],
    *,
    inputs: Sequence[str],
    categorical: Sequence[str],
    target: str,
    threads: int,
) -> list[Any]:
    """A binned matrix for each part; vocabulary and bins are those of the first."""
    vocabulary = learn_vocabulary(frame.iloc[parts[0]], categorical)
    matrices: list[Any] = []
    for name, positions in zip(names, parts, strict=True):
        rows = frame.iloc[positions]
        if rows[target].nunique() < 2:
            raise OneClass(
                f"the {len(rows)} {name} rows hold only one outcome: both are needed. Give each "
                "part of the tuning more days (tuning.fold_days, tuning.judge_days)."
            )
        matrices.append(
            binned(
                encode(rows, inputs, vocabulary),
                rows[target],
                inputs,
                vocabulary,
                threads,
                ref=matrices[0] if matrices else None,
            )
        )
    return matrices


def _score(booster: Any, validation: Any, metric: Metric) -> float:
    if metric == "log_loss" or not math.isfinite(booster.best_score):
        return float(booster.best_score)
    from sklearn.metrics import roc_auc_score

    probability = booster.predict(validation, iteration_range=(0, booster.best_iteration + 1))
    return float(roc_auc_score(validation.get_label(), probability))
