"""From `model` to `champion`: who serves from a day on, and why; one decision a day."""

from datetime import date
from typing import Any

import dagster as dg
import pandas as pd

from ml_assets.assets.common import code_version, spec
from ml_assets.assets.training import labelled_rows
from ml_assets.core.contract import ContractError
from ml_assets.core.gate import Difference, Verdict, decide, paired_bootstrap, row_log_loss
from ml_assets.core.scoring import predict
from ml_assets.core.tables import Champion
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry
from ml_assets.use_case import UseCase


def champion_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `champion` of a use case."""
    table = f"{use_case.name}/champion"
    gate, settings = environment.gate, environment.training

    @dg.asset(
        **spec(
            use_case,
            "champion",
            "Who serves from this day on: the challenger if it is surely better than the model "
            "that served before, or, once that has grown old, surely not worse",
            Champion.to_schema(),
            kinds={"mlflow", "deltalake"},
        ),
        code_version=code_version(use_case, "gate.py", settings=gate.model_dump_json()),
        partitions_def=daily(use_case, environment.time_zone),
        # One decision at a time: each rests on the one before.
        pool=f"{use_case.name}_champion",
        ins={
            "training_set": dg.AssetIn(key=[use_case.name, "training_set"]),
            "model": dg.AssetIn(key=[use_case.name, "model"]),
        },
    )
    def champion(
        context: dg.AssetExecutionContext,
        training_set: pd.DataFrame,
        model: pd.DataFrame,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> pd.DataFrame:
        day = context.partition_key
        manifest, challenger = training_set.iloc[0].to_dict(), model.iloc[0].to_dict()
        decided = lake.rows_per_day(table)
        with clear_failures():
            if manifest["content_hash"] != challenger["content_hash"]:
                raise ContractError(
                    f"the training set of {day} was made anew after its model. Materialise "
                    f"{use_case.name}/model for {day}, then decide again."
                )
            # The decision rests on the tables alone, never on the registry's alias, so that a run
            # which was cut short decides the same when it runs again.
            earlier = max((known for known in decided if known < day), default=None)
            if earlier is None:
                row = _first(challenger)
            else:
                previous = lake.read(table, earlier, earlier).iloc[0].to_dict()
                row = _judged(day, manifest, challenger, previous, lake, registry)
            if day >= max(decided, default=day):
                registry.set_alias(use_case.name, "champion", row["version"])
        context.log.info(row["reason"])
        context.add_output_metadata(
            {name: row[name] for name in ("decision", "version", "reason", "challenger_log_loss")}
        )
        frame = pd.DataFrame([{"day": day, **row}])
        numbers = ["previous_log_loss", "difference_low", "difference_high"]
        return frame.astype({"previous_version": "Int64", **dict.fromkeys(numbers, "float64")})

    def _judged(
        day: str,
        manifest: dict[str, Any],
        challenger: dict[str, Any],
        previous: dict[str, Any],
        lake: Lake,
        registry: Registry,
    ) -> dict[str, Any]:
        """Let both models score the challenger's holdout, and decide."""
        first, last = challenger["holdout_first_day"], challenger["holdout_last_day"]
        holdout = labelled_rows(use_case, lake, manifest, first, last)
        bundles = [
            registry.load(use_case.name, each["version"], each["sha256"])
            for each in (challenger, previous)
        ]
        # The champion may have been split otherwise, and have learned from some of these days.
        known = max(bundles[1].facts["split"]["validation"])
        holdout = holdout[holdout["day"] > known]
        if holdout.empty:
            reason = (
                f"challenger version {challenger['version']} stays challenger: the champion has "
                f"learned from every day of the holdout, {first} to {last}"
            )
            verdict = Verdict(False, "not_shown", reason)
            return _decided(challenger, previous, None, None, verdict)
        ours, theirs = (predict(bundle, holdout, settings.threads) for bundle in bundles)
        outcome = holdout[use_case.target].to_numpy(dtype="int8")
        difference = paired_bootstrap(
            ours,
            theirs,
            outcome,
            confidence=gate.confidence,
            resamples=gate.resamples,
            seed=settings.seed,
        )
        trained = date.fromisoformat(bundles[1].facts["as_of"])
        verdict = decide(
            difference,
            margin=gate.margin,
            champion_age_days=(date.fromisoformat(day) - trained).days,
            refresh_after_days=gate.refresh_after_days,
            challenger_version=challenger["version"],
        )
        previous_log_loss = float(row_log_loss(theirs, outcome).mean())
        return _decided(challenger, previous, previous_log_loss, difference, verdict)

    return champion


def _first(challenger: dict[str, Any]) -> dict[str, Any]:
    version = challenger["version"]
    return {
        "version": version,
        "sha256": challenger["sha256"],
        "decision": "first",
        "rule": "first",
        "reason": f"challenger version {version} is promoted: none served before",
        "challenger_version": version,
        "challenger_log_loss": challenger["log_loss"],
        "previous_version": None,
        "previous_log_loss": None,
        "difference_low": None,
        "difference_high": None,
    }


def _decided(
    challenger: dict[str, Any],
    previous: dict[str, Any],
    previous_log_loss: float | None,
    difference: Difference | None,
    verdict: Verdict,
) -> dict[str, Any]:
    serving = challenger if verdict.promote else previous
    return {
        "version": serving["version"],
        "sha256": serving["sha256"],
        "decision": "promoted" if verdict.promote else "kept",
        "rule": verdict.rule,
        "reason": verdict.reason,
        "challenger_version": challenger["version"],
        "challenger_log_loss": challenger["log_loss"],
        "previous_version": previous["version"],
        "previous_log_loss": previous_log_loss,
        "difference_low": difference and difference.low,
        "difference_high": difference and difference.high,
    }
