"""From `features` and the champion to `predictions`: what we said, and what we said it with."""

from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from ml_assets.assets.common import code_version, histogram, preview, spec, table_pool
from ml_assets.changes import now
from ml_assets.core.bundle import count_unseen
from ml_assets.core.scoring import keep_known, score
from ml_assets.core.tables import Predictions, keyed
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase, columns


class ScoringConfig(dg.Config):
    """How a day is scored."""

    keep_unchanged: bool = Field(
        default=False,
        description="Let a prediction stand while its inputs are unchanged, even if another model "
        "has become champion since. The schedule and the sensor say so; materialising by hand "
        "scores with the champion of now.",
    )


def predictions_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `predictions` of a use case."""
    version = code_version(use_case, "scoring.py", "bundle.py", "features.py")
    table = f"{use_case.name}/predictions"
    needed = [name for name in columns(use_case.features) if name != use_case.target]

    @dg.asset(
        **spec(
            use_case,
            "predictions",
            f"{use_case.description}: probability per application, with the model, data and code "
            "version that it rests on",
            keyed(Predictions, use_case.key),
            kinds={"xgboost", "deltalake"},
        ),
        code_version=version,
        partitions_def=daily(use_case, environment.time_zone),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=table_pool(use_case),
        ins={"features": dg.AssetIn(key=[use_case.name, "features"], metadata={"columns": needed})},
        # The model itself comes from the registry, with its hash checked.
        deps=[dg.AssetDep([use_case.name, "champion"])],
    )
    def predictions(
        context: dg.AssetExecutionContext,
        config: ScoringConfig,
        features: pd.DataFrame,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> pd.DataFrame:
        days = context.partition_keys
        with clear_failures():
            champion = _champion(lake, use_case.name)
            bundle = registry.load(use_case.name, champion["version"], champion["sha256"])
            frame = score(
                features,
                bundle,
                key=use_case.key,
                received_at=use_case.received_at,
                model_version=champion["version"],
                code_version=version,
                scored_at=now().replace(microsecond=0),
                threads=environment.training.threads,
            )
            if any(days[0] <= day <= days[-1] for day in lake.rows_per_day(table)):
                before = lake.read(table, days[0], days[-1])
                frame = keep_known(frame, before, key=use_case.key, any_model=config.keep_unchanged)
        unseen = count_unseen(features, bundle.vocabulary)
        if unseen:
            context.log.warning(
                f"categories that version {champion['version']} has never seen count as missing "
                f"(rows per column): {unseen}"
            )
        context.add_asset_metadata({"preview": preview(frame)})
        by_day = frame.groupby("day")["probability"]
        unseen_on = {
            day: count_unseen(rows, bundle.vocabulary)
            for day, rows in (features.groupby("day") if unseen else ())
        }
        for day in days:
            probability = by_day.get_group(day) if day in by_day.groups else pd.Series(dtype=float)
            context.add_asset_metadata(
                {
                    "rows": len(probability),
                    "expected_positives": round(float(probability.sum()), 1),
                    "champion_version": champion["version"],
                    "rows_with_unseen_category": unseen_on.get(day, {}),
                    "probabilities": histogram(probability),
                },
                partition_key=day,
            )
        return frame

    return predictions


def _champion(lake: Lake, use_case: str) -> dict[str, Any]:
    """The newest decision of the gate: the table is the record, the registry's alias follows it."""
    table = f"{use_case}/champion"
    days = lake.rows_per_day(table)
    if not days:
        raise RegistryError(
            f"no model serves yet: {table} is empty. Materialise {use_case}/training_set, "
            f"{use_case}/model and {table} for a day with enough matured rows (job "
            f"{use_case}_training), then score again."
        )
    return lake.read(table, max(days), max(days)).iloc[0].to_dict()
