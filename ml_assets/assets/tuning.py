"""From `training_set` to `hyperparameters`: what models are to be trained with, and why."""

import json
import time
from datetime import date, timedelta

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from ml_assets.assets.as_of import hyperparameters_as_of
from ml_assets.assets.common import code_version, preview, spec
from ml_assets.assets.training import labelled_rows, split_labelled
from ml_assets.core.exploration import duplicate_columns
from ml_assets.core.tables import Hyperparameters
from ml_assets.core.tuning import (
    Metric,
    Search,
    Trial,
    compare,
    search,
    split_for_tuning,
    time_folds,
)
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.use_case import UseCase

_LOG_EVERY = 5  # trials

# Hundreds of small fits gain nothing from a second thread (the demo's search: 7 s either way), and
# when other processes want the cores, threads that wait for one another made it 100 s and more.
# The outcome is the same with any number.
_ROWS_PER_THREAD = 50_000


def tuning_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `hyperparameters` of a use case."""
    training, tuning, gate = environment.training, environment.tuning, environment.gate
    version = code_version(
        use_case,
        "core/tuning.py",
        "core/training.py",
        "core/gate.py",
        "core/bundle.py",
        "core/splits.py",
        "core/exploration.py",
        settings="".join(each.model_dump_json() for each in (training, tuning, gate)),
    )

    class TuningConfig(dg.Config):
        """How long to search, and by what; the environment gives the defaults."""

        trials: int = Field(
            default=tuning.trials, ge=1, le=1_000, description="Shapes of trees to try: 1 to 1000"
        )
        time_budget_seconds: int = Field(
            default=tuning.time_budget_seconds,
            ge=1,
            le=86_400,
            description="No trial begins after so many seconds, but for the first: 1 to 86400. A "
            "search that time cuts short may find something else the next time",
        )
        seed: int = Field(
            default=training.seed,
            ge=0,
            le=2**31 - 1,
            description="Seed of the proposals, of row and column sampling, and of the bootstrap",
        )
        metric: Metric = Field(
            default=tuning.metric,
            description="What ranks the trials on the folds; log loss decides about the outcome",
        )

    @dg.asset(
        **spec(
            use_case,
            "hyperparameters",
            "Once a week: what models are trained with.\n\n"
            "The outcome of a search over time-ordered folds, adopted if it beats XGBoost's "
            "defaults by more than noise on later days. Every model takes those adopted last.",
            Hyperparameters.to_schema(),
            kinds={"xgboost", "optuna"},
        ),
        code_version=version,
        partitions_def=daily(use_case, environment.time_zone),
        ins={"training_set": dg.AssetIn(key=[use_case.name, "training_set"])},
    )
    def hyperparameters(
        context: dg.AssetExecutionContext,
        config: TuningConfig,
        training_set: pd.DataFrame,
        lake: dg.ResourceParam[Lake],
    ) -> pd.DataFrame:
        day = context.partition_key
        manifest = training_set.iloc[0].to_dict()
        started = time.monotonic()

        def out_of_time() -> bool:
            return time.monotonic() - started >= config.time_budget_seconds

        def progress(trial: Trial, best: Trial | None) -> None:
            if trial is best or (trial.number + 1) % _LOG_EVERY == 0:
                known = f"{best.score:.5f} (trial {best.number + 1})" if best else "none"
                context.log.info(
                    f"trial {trial.number + 1}: {trial.state} after {trial.folds} of "
                    f"{tuning.folds} folds, {config.metric} {trial.score:.5f}; best so far {known}"
                )

        with clear_failures():
            frame = labelled_rows(
                use_case, lake, manifest, manifest["first_day"], manifest["last_day"]
            )
            split = split_labelled(frame, training)
            days = split_for_tuning(
                [*split.train, *split.validation],
                folds=tuning.folds,
                fold_days=tuning.fold_days,
                judge_days=tuning.judge_days,
            )
            incumbent, origin = hyperparameters_as_of(lake, use_case, _before(day), training)
            # The search is given neither the days that judge it nor those that judge a model.
            searched, judged = (
                frame[frame["day"].isin(part)] for part in (days.search, days.judge)
            )
            folds = time_folds(searched["day"], folds=tuning.folds, fold_days=tuning.fold_days)
            # As in training: the trees do not see columns that repeat another.
            repeats = duplicate_columns(searched, use_case.inputs)
            columns = {
                "inputs": [name for name in use_case.inputs if name not in repeats],
                "categorical": [name for name in use_case.categorical if name not in repeats],
            }
            threads = min(training.threads, 1 + len(searched) // _ROWS_PER_THREAD)
            found = search(
                searched,
                folds,
                **columns,
                target=use_case.target,
                metric=config.metric,
                trials=config.trials,
                seed=config.seed,
                threads=threads,
                max_rounds=training.max_rounds,
                early_stopping_rounds=training.early_stopping_rounds,
                incumbent=incumbent,
                out_of_time=out_of_time,
                on_trial=progress,
            )
            choice = compare(
                pd.concat([searched, judged]),
                folds[-1],
                np.arange(len(searched), len(searched) + len(judged)),
                **columns,
                target=use_case.target,
                tuned=found.parameters,
                incumbent=incumbent,
                seed=config.seed,
                threads=threads,
                max_rounds=training.max_rounds,
                early_stopping_rounds=training.early_stopping_rounds,
                confidence=gate.confidence,
                resamples=gate.resamples,
            )
        context.log.info(f"{choice.reason}; in use was {origin}")
        row = {
            "day": day,
            "decision": "adopted" if choice.adopted else "kept",
            "reason": choice.reason,
            "parameters": json.dumps(choice.parameters, sort_keys=True),
            "metric": config.metric,
            "score": found.best.score,
            "trials": len(found.trials),
            "pruned": found.count("pruned"),
            "failed": found.count("failed"),
            "judged_rows": choice.versus_defaults.rows,
            "difference_low": choice.versus_defaults.low,
            "difference_high": choice.versus_defaults.high,
            "seed": config.seed,
            "code_version": version,
            "content_hash": manifest["content_hash"],
        }
        shown = ("decision", "reason", "score", "trials", "pruned", "failed")
        context.add_output_metadata(
            {
                **{name: row[name] for name in shown},
                "parameters": dict(choice.parameters),
                "in_use_before": f"{json.dumps(dict(incumbent), sort_keys=True)}, from {origin}",
                "searched_days": f"{days.search[0]} to {days.search[-1]}",
                "judging_days": f"{days.judge[0]} to {days.judge[-1]}",
                "all_trials": preview(_table(found), rows=100),
            }
        )
        return pd.DataFrame([row])

    return hyperparameters


def _before(day: str) -> str:
    return (date.fromisoformat(day) - timedelta(days=1)).isoformat()


def _table(found: Search) -> pd.DataFrame:
    """A line per trial, in the order of trying."""
    return pd.DataFrame(
        {
            "trial": trial.number + 1,
            "state": trial.state,
            "score": trial.score,
            "folds": trial.folds,
            "rounds": trial.rounds,
            **trial.parameters,
        }
        for trial in found.trials
    )
