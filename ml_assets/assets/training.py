"""From `features` to a champion: the training set's manifest, the model, and who serves.

All three are daily *as-of* assets: the partition of day D uses nothing that was not final by D.
"""

from dataclasses import asdict
from typing import Any

import dagster as dg
import pandas as pd

from ml_assets.assets.common import code_version, preview, spec
from ml_assets.assets.plots import roc_and_reliability
from ml_assets.core.contract import ContractError
from ml_assets.core.features import content_hash
from ml_assets.core.splits import TooFewDays, split_by_day
from ml_assets.core.tables import Champion, Model, TrainingSet
from ml_assets.core.training import evaluate, fit, is_not_worse
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily, training_window
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry
from ml_assets.use_case import UseCase, columns


def training_assets(use_case: UseCase, environment: Environment) -> list[dg.AssetsDefinition]:
    """Build `training_set`, `model` and `champion` of a use case."""
    partitions_def = daily(use_case, environment.time_zone)
    settings = environment.training
    features_table = f"{use_case.name}/features"
    model_code = code_version(
        use_case, "training.py", "bundle.py", "splits.py", settings=settings.model_dump_json()
    )

    @dg.asset(
        **spec(
            use_case,
            "training_set",
            f"Which rows the model of a day learns from: those at least "
            f"{use_case.label_maturity_days} days old with a known outcome, from a window of "
            f"{use_case.training_window_days} days. A manifest, not a copy",
            TrainingSet.to_schema(),
            kinds={"pandas", "deltalake"},
        ),
        code_version=code_version(use_case, "features.py"),
        partitions_def=partitions_def,
        ins={
            "features": dg.AssetIn(
                key=[use_case.name, "features"],
                partition_mapping=training_window(use_case),
                metadata={"columns": columns(use_case.features), "window": True},
            )
        },
    )
    def training_set(context: dg.AssetExecutionContext, features: pd.DataFrame) -> pd.DataFrame:
        labelled = features[features[use_case.target].notna()]
        with clear_failures():
            if labelled.empty:
                raise TooFewDays(
                    f"no application is at least {use_case.label_maturity_days} days old with a "
                    f"known outcome as of {context.partition_key}. Materialise features of older "
                    "days, or wait for outcomes to mature."
                )
        per_day = labelled.groupby("day")[use_case.target].agg(["size", "mean"])
        context.add_output_metadata(
            {
                "days": len(per_day),
                "rows": len(labelled),
                "positive_share": float(labelled[use_case.target].mean()),
                "rows_per_day": preview(per_day.reset_index(), rows=len(per_day)),
            }
        )
        return pd.DataFrame(
            {
                "day": [context.partition_key],
                "table_version": [features.attrs["table_version"]],
                "first_day": [labelled["day"].min()],
                "last_day": [labelled["day"].max()],
                "rows": [len(labelled)],
                "rows_unlabelled": [len(features) - len(labelled)],
                "positives": [int(labelled[use_case.target].sum())],
                "content_hash": [content_hash(labelled, columns(use_case.features))],
            }
        )

    def labelled_rows(lake: Lake, manifest: dict[str, Any], first: str, last: str) -> pd.DataFrame:
        """Rows with a known outcome, at the table version that a manifest pins."""
        frame = lake.read(features_table, first, last, version=manifest["table_version"])
        return frame[frame[use_case.target].notna()]

    @dg.asset(
        **spec(
            use_case,
            "model",
            "The challenger of a day: trained on the older matured days, judged on the newest, "
            "registered in MLflow",
            Model.to_schema(),
            kinds={"xgboost", "mlflow"},
        ),
        code_version=model_code,
        partitions_def=partitions_def,
        ins={"training_set": dg.AssetIn(key=[use_case.name, "training_set"])},
    )
    def model(
        context: dg.AssetExecutionContext,
        training_set: pd.DataFrame,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> pd.DataFrame:
        day = context.partition_key
        manifest = training_set.iloc[0].to_dict()
        with clear_failures():
            frame = labelled_rows(lake, manifest, manifest["first_day"], manifest["last_day"])
            split = split_by_day(
                frame["day"].unique(),
                validation_days=settings.validation_days,
                holdout_days=settings.holdout_days,
            )
            bundle = fit(
                frame,
                split,
                inputs=use_case.inputs,
                categorical=use_case.categorical,
                target=use_case.target,
                parameters=settings.parameters,
                seed=settings.seed,
                threads=settings.threads,
                max_rounds=settings.max_rounds,
                early_stopping_rounds=settings.early_stopping_rounds,
                facts={
                    "use_case": use_case.name,
                    "as_of": day,
                    "code_version": model_code,
                    "training_set": {
                        name: manifest[name]
                        for name in ("first_day", "last_day", "rows", "content_hash")
                    },
                    "split": asdict(split),
                },
            )
            holdout = split.rows(frame, "holdout")
            result = evaluate(bundle, holdout, use_case.target, settings.threads)
            version = registry.register(
                use_case.name,
                bundle,
                as_of=day,
                metrics={"roc_auc": result.roc_auc, "log_loss": result.log_loss},
                tags={"code_version": model_code, "content_hash": manifest["content_hash"]},
            )
            if day >= max(lake.rows_per_day(f"{use_case.name}/model"), default=day):
                registry.set_alias(use_case.name, "challenger", version)
        facts = bundle.facts
        context.log.info(f"version {version}: {result} after {facts['rounds']} rounds")
        context.add_output_metadata(
            {
                "version": version,
                "roc_auc": result.roc_auc,
                "log_loss": result.log_loss,
                "holdout_rows": result.rows,
                "rounds": facts["rounds"],
                "sha256": bundle.sha256,
                "evaluation": roc_and_reliability(bundle, holdout, use_case.target),
            }
        )
        return pd.DataFrame(
            {
                "day": [day],
                "version": [version],
                "sha256": [bundle.sha256],
                "content_hash": [manifest["content_hash"]],
                "code_version": [model_code],
                "rounds": [facts["rounds"]],
                "train_rows": [facts["train_rows"]],
                "validation_rows": [facts["validation_rows"]],
                "holdout_rows": [result.rows],
                "holdout_first_day": [split.holdout[0]],
                "holdout_last_day": [split.holdout[-1]],
                "roc_auc": [result.roc_auc],
                "log_loss": [result.log_loss],
            }
        )

    @dg.asset(
        **spec(
            use_case,
            "champion",
            "Who serves from this day on: the challenger, unless the model that served before has "
            "the smaller log loss on the same holdout",
            Champion.to_schema(),
            kinds={"mlflow", "deltalake"},
        ),
        code_version=code_version(use_case, "training.py"),
        partitions_def=partitions_def,
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
        table = f"{use_case.name}/champion"
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
            earlier = [known for known in decided if known < day]
            decision, serving, previous, previous_log_loss = "first", challenger, None, None
            if earlier:
                previous = lake.read(table, max(earlier), max(earlier)).iloc[0].to_dict()
                bundle = registry.load(use_case.name, previous["version"], previous["sha256"])
                holdout = labelled_rows(
                    lake,
                    manifest,
                    challenger["holdout_first_day"],
                    challenger["holdout_last_day"],
                )
                result = evaluate(bundle, holdout, use_case.target, settings.threads)
                previous_log_loss = result.log_loss
                promoted = is_not_worse(challenger["log_loss"], previous_log_loss)
                decision, serving = ("promoted", challenger) if promoted else ("kept", previous)
            if day >= max(decided, default=day):
                registry.set_alias(use_case.name, "champion", serving["version"])
        context.log.info(f"{decision}: version {serving['version']} serves from {day}")
        context.add_output_metadata(
            {
                "decision": decision,
                "version": serving["version"],
                "challenger_log_loss": challenger["log_loss"],
                "previous_log_loss": previous_log_loss if previous else "there was none",
            }
        )
        return pd.DataFrame(
            {
                "day": [day],
                "version": [serving["version"]],
                "sha256": [serving["sha256"]],
                "decision": [decision],
                "challenger_version": [challenger["version"]],
                "challenger_log_loss": [challenger["log_loss"]],
                "previous_version": pd.array(
                    [previous["version"] if previous else pd.NA], dtype="Int64"
                ),
                "previous_log_loss": pd.array([previous_log_loss], dtype="float64"),
            }
        )

    return [training_set, model, champion]
