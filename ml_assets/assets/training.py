"""From `features` to a challenger: the training set's manifest, and the model trained on it.

Both are daily *as-of* assets: the partition of day D uses nothing that was not final by D.
"""

from dataclasses import asdict
from typing import Any

import dagster as dg
import pandas as pd

from ml_assets.assets.common import code_version, preview, spec
from ml_assets.assets.plots import roc_and_reliability
from ml_assets.core.features import content_hash
from ml_assets.core.splits import TooFewDays, split_by_day
from ml_assets.core.tables import Model, TrainingSet
from ml_assets.core.training import evaluate, fit
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily, training_window
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry
from ml_assets.use_case import UseCase, columns


def labelled_rows(
    use_case: UseCase, lake: Lake, manifest: dict[str, Any], first: str, last: str
) -> pd.DataFrame:
    """Feature rows with a known outcome, at the table version that a manifest pins."""
    version = manifest["table_version"]
    frame = lake.read(f"{use_case.name}/features", first, last, version=version)
    return frame[frame[use_case.target].notna()]


def training_assets(use_case: UseCase, environment: Environment) -> list[dg.AssetsDefinition]:
    """Build `training_set` and `model` of a use case."""
    partitions_def = daily(use_case, environment.time_zone)
    settings = environment.training
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
            frame = labelled_rows(
                use_case, lake, manifest, manifest["first_day"], manifest["last_day"]
            )
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

    return [training_set, model]
