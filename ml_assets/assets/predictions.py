"""From `features` and a model to probabilities: what we said, and what we said it with.

`predictions` is what the champion says, `shadow` what the challenger would have said.
"""

from datetime import datetime

import dagster as dg
import numpy as np
import pandas as pd
from pydantic import Field

from ml_assets.assets.common import code_version, histogram, preview, spec, table_pool
from ml_assets.champions import champion, remedy
from ml_assets.changes import now
from ml_assets.core.bundle import Bundle, count_unseen
from ml_assets.core.metrics import expected_positives
from ml_assets.core.scoring import beside, score, standing
from ml_assets.core.tables import Predictions, keyed
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase, columns

_CODE = tuple(f"core/{name}.py" for name in ("scoring", "bundle", "features", "explanations"))


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
    version = _code_version(use_case, environment)

    @dg.asset(
        **spec(
            use_case,
            "predictions",
            "Step 6: what the champion says of each application.\n\n"
            f"{use_case.description}: probability, decision and reasons, with the model, data and "
            "code version that they rest on. What was said before stays on record, with the "
            "instant at which another took its place (superseded_at). Any day can be materialized: "
            "the champion of now scores it, whether or not `champion` has that day.",
            keyed(Predictions, use_case.key),
            kinds={"xgboost", "deltalake"},
        ),
        code_version=version,
        partitions_def=daily(use_case, environment.time_zone),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=table_pool(use_case),
        ins={"features": _features(use_case)},
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
            serving = champion(lake, use_case)
            try:
                bundle = registry.load(use_case.name, serving.version, serving.sha256)
            except RegistryError as error:
                raise RegistryError(f"{error} {remedy(lake, use_case, registry)}") from error
            frame = _score(use_case, environment, features, bundle, serving.version, version)
            before = _said_before(lake, f"{use_case.name}/predictions", days)
            if before is not None:
                frame = beside(
                    frame,
                    before,
                    key=use_case.key,
                    any_model=config.keep_unchanged,
                    at=_instant(),
                )
        unseen = count_unseen(features, bundle.vocabulary)
        if unseen:
            context.log.warning(
                f"categories that version {serving.version} has never seen count as missing "
                f"(rows per column): {unseen}"
            )
        stands = standing(frame)
        by_day = dict(list(stands.groupby("day")))
        all_said = frame["day"].value_counts()
        unseen_on = {
            day: count_unseen(rows, bundle.vocabulary)
            for day, rows in (features.groupby("day") if unseen else ())
        }
        for day in days:
            said = by_day.get(day, frame.head(0))
            expected, low, high = expected_positives(said["probability"].to_numpy())
            context.add_asset_metadata(
                {
                    "preview": preview(said),
                    "applications": len(said),
                    "superseded": int(all_said.get(day, 0)) - len(said),
                    "expected_positives": round(expected, 1),
                    "expected_positives_95": f"{low:.0f} to {high:.0f}",
                    "referred": int(said["refer"].sum()),
                    "champion_version": serving.version,
                    "rows_with_unseen_category": unseen_on.get(day, {}),
                    "probabilities": histogram(said["probability"]),
                },
                partition_key=day,
            )
        return frame

    return predictions


def shadow_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `shadow` of a use case."""
    version = _code_version(use_case, environment)
    table = f"{use_case.name}/shadow"

    @dg.asset(
        **spec(
            use_case,
            "shadow",
            "For comparison: what the challenger would have said.\n\n"
            "The newest model scores the day's applications while another serves; nobody acts on "
            "it. Empty while the newest model is the champion.",
            keyed(Predictions, use_case.key),
            kinds={"xgboost", "deltalake"},
        ),
        code_version=version,
        partitions_def=daily(use_case, environment.time_zone),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=table_pool(use_case),
        ins={
            "features": _features(use_case),
            "predictions": dg.AssetIn(key=[use_case.name, "predictions"]),
        },
    )
    def shadow(
        context: dg.AssetExecutionContext,
        features: pd.DataFrame,
        predictions: pd.DataFrame,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> pd.DataFrame:
        days = context.partition_keys
        with clear_failures():
            before = _said_before(lake, table, days)
            newest = lake.newest(f"{use_case.name}/model")
            if newest is None or newest["version"] == champion(lake, use_case).version:
                context.log.info("the newest model serves: there is no challenger")
                return predictions.head(0) if before is None else before
            bundle = registry.load(use_case.name, newest["version"], newest["sha256"])
            frame = _score(use_case, environment, features, bundle, newest["version"], version)
            if before is not None:
                # What a challenger said at the time stands, whoever is challenger now.
                frame = beside(frame, before, key=use_case.key, any_model=True, at=_instant())
        context.add_asset_metadata(
            {
                "challenger_versions": sorted(frame["model_version"].unique().tolist()),
                "disagreements": preview(
                    _disagreements(use_case, standing(predictions), standing(frame)), rows=10
                ),
            }
        )
        return frame

    return shadow


def _disagreements(
    use_case: UseCase, predictions: pd.DataFrame, shadow: pd.DataFrame
) -> pd.DataFrame:
    """Rows of both tables, those first on which champion and challenger differ most."""
    on = ["day", use_case.key]
    both = predictions[[*on, "probability", "reasons"]].merge(
        shadow[[*on, "probability", "reasons"]], on=on, suffixes=("_champion", "_challenger")
    )
    apart = np.abs(both["probability_champion"] - both["probability_challenger"])
    return both.iloc[np.argsort(-apart.to_numpy(), kind="stable")]


def _code_version(use_case: UseCase, environment: Environment) -> str:
    return code_version(use_case, *_CODE, settings=environment.scoring.model_dump_json())


def _features(use_case: UseCase) -> dg.AssetIn:
    needed = [name for name in columns(use_case.features) if name != use_case.target]
    return dg.AssetIn(key=[use_case.name, "features"], metadata={"columns": needed})


def _score(
    use_case: UseCase,
    environment: Environment,
    features: pd.DataFrame,
    bundle: Bundle,
    model_version: int,
    version: str,
) -> pd.DataFrame:
    return score(
        features,
        bundle,
        inputs=use_case.inputs,
        key=use_case.key,
        received_at=use_case.received_at,
        model_version=model_version,
        code_version=version,
        scored_at=_instant(),
        reasons=environment.scoring.reasons,
        threads=environment.training.threads,
    )


def _instant() -> datetime:
    return now().replace(microsecond=0)


def _said_before(lake: Lake, table: str, days: list[str]) -> pd.DataFrame | None:
    """The days as the table has them, or None if it has none of them."""
    if any(days[0] <= day <= days[-1] for day in lake.rows_per_day(table)):
        return lake.read(table, days[0], days[-1])
    return None
