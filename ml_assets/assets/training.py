"""From `features` to a challenger: the training set's manifest, and the model trained on it.

Both are daily *as-of* assets: the partition of day D uses nothing that was not final by D.
"""

import json
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from ml_assets.assets import plots
from ml_assets.assets.as_of import hyperparameters_as_of
from ml_assets.assets.common import code_version, preview, spec
from ml_assets.core.bundle import (
    Bundle,
    calibrated,
    contributions,
    margins,
    mean_gain,
)
from ml_assets.core.drift import population_stability, reference
from ml_assets.core.evaluation import Evaluation, Importance, Scored, evaluate
from ml_assets.core.exploration import explore
from ml_assets.core.features import content_hash
from ml_assets.core.splits import TimeSplit, TooFewDays, split_by_day
from ml_assets.core.tables import Model, TrainingSet
from ml_assets.core.training import Recipe, Trained, train
from ml_assets.environment import Environment, TrainingSettings
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily, training_window
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase, columns


def labelled_rows(
    use_case: UseCase, lake: Lake, manifest: dict[str, Any], first: str, last: str
) -> pd.DataFrame:
    """Feature rows with a known outcome, at the table version that a manifest pins."""
    version = manifest["table_version"]
    frame = lake.read(f"{use_case.name}/features", first, last, version=version)
    return frame[frame[use_case.target].notna()]


# All that decides a model's bytes.
_CODE = tuple(
    f"core/{name}.py"
    for name in (
        "training",
        "bundle",
        "splits",
        "calibration",
        "threshold",
        "exploration",
        "gate",  # calibrations are compared by its log loss
    )
)


def model_code_version(use_case: UseCase, environment: Environment) -> str:
    """The version of the code and settings that train a model."""
    # Threads do not change a byte.
    settings = environment.training.model_dump_json(exclude={"threads"})
    return code_version(use_case, *_CODE, settings=settings)


def split_labelled(frame: pd.DataFrame, settings: TrainingSettings) -> TimeSplit:
    """The parts of the days that have rows, as configured."""
    return split_by_day(
        frame["day"].unique(),
        validation_days=settings.validation_days,
        calibration_days=settings.calibration_days,
        holdout_days=settings.holdout_days,
    )


def training_assets(use_case: UseCase, environment: Environment) -> list[dg.AssetsDefinition]:
    """Build `training_set` and `model` of a use case."""
    partitions_def = daily(use_case, environment.time_zone)
    settings = environment.training
    model_code = model_code_version(use_case, environment)

    @dg.asset(
        **spec(
            use_case,
            "training_set",
            "Step 3: which applications the day's model learns from.\n\n"
            f"Those at least {use_case.label_maturity_days} days old with a known outcome, from a "
            f"window of {use_case.training_window_days} days: younger outcomes are a biased "
            "sample. A manifest, not a copy; the plots under *Events* show what is in it.",
            TrainingSet.to_schema(),
            kinds={"pandas", "deltalake"},
        ),
        code_version=code_version(use_case, "core/features.py"),
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
        with threadpool_limits(1, user_api="blas"):
            explored = explore(
                labelled,
                inputs=use_case.inputs,
                categorical=use_case.categorical,
                target=use_case.target,
            )
        context.add_output_metadata(
            {
                "days": len(per_day),
                "rows": len(labelled),
                "positive_share": float(labelled[use_case.target].mean()),
                "rows_per_day": preview(per_day.reset_index(), rows=len(per_day)),
                "missing_values": {name: n for name, n in explored.missing.items() if n},
                "duplicate_columns": explored.duplicates,
                **(
                    _shown(plots.exploration_plots(explored))
                    if environment.evaluation.plots
                    else {}
                ),
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
            "Step 4: the day's new model, the challenger.\n\n"
            "Trained on the older matured days, calibrated on later ones, judged on the newest, "
            "and registered in MLflow. How good it is, with plots, is under *Events*. It serves "
            "only if `champion` says so.",
            Model.to_schema(),
            kinds={"xgboost", "mlflow"},
        ),
        code_version=model_code,
        partitions_def=partitions_def,
        ins={"training_set": dg.AssetIn(key=[use_case.name, "training_set"])},
        # The newest of them up to this day is looked up, whenever it was tuned.
        deps=[dg.AssetDep([use_case.name, "hyperparameters"])],
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
            split = split_labelled(frame, settings)
            parameters, origin = hyperparameters_as_of(lake, use_case, day, settings)
            trained = train(
                frame,
                split,
                Recipe(
                    parameters=parameters,
                    seed=settings.seed,
                    max_rounds=settings.max_rounds,
                    early_stopping_rounds=settings.early_stopping_rounds,
                    calibration_folds=settings.calibration_folds,
                    costs=use_case.costs,
                ),
                inputs=use_case.inputs,
                categorical=use_case.categorical,
                target=use_case.target,
                threads=settings.threads,
                facts={
                    "use_case": use_case.name,
                    "as_of": day,
                    "code_version": model_code,
                    "hyperparameters": origin,
                    "training_set": {
                        name: manifest[name]
                        for name in ("first_day", "last_day", "rows", "content_hash")
                    },
                },
            )
            context.log.info(f"trained {trained.bundle.facts['rounds']} rounds; judging …")
            holdout = split.rows(frame, "holdout")
            effects = contributions(trained.bundle, holdout, settings.threads)
            # Two BLAS threads beside other work on the same cores: 14 s of CPU instead of 1.
            with threadpool_limits(1, user_api="blas"):
                evaluation = _evaluation(trained, frame, split, effects)
            images = (
                plots.model_plots(trained.bundle, evaluation, holdout, effects)
                if environment.evaluation.plots
                else {}
            )
            version = registry.register(
                use_case.name,
                trained.bundle,
                as_of=day,
                metrics={
                    "threshold": trained.bundle.threshold,
                    **{
                        f"{part}_{name}": estimate.value
                        for part, figures in evaluation.parts.items()
                        for name, estimate in figures.metrics.items()
                        if estimate.value is not None
                    },
                },
                tags={"code_version": model_code, "content_hash": manifest["content_hash"]},
                artifacts={
                    "training_manifest.json": _json(
                        {
                            **manifest,
                            "tables": {f"{use_case.name}/features": manifest["table_version"]},
                        }
                    ),
                    "evaluation.json": evaluation.model_dump_json(indent=1).encode(),
                    "reference.json": _json(
                        reference(
                            split.rows(frame, "train"), trained.bundle.inputs, use_case.categorical
                        )
                    ),
                    "drift.json": _json(_drift(day, holdout, lake, registry)),
                    **{f"plots/{name}.png": image for name, image in images.items()},
                },
                input_types={
                    name: str(column.dtype)
                    for name, column in use_case.raw.to_schema().columns.items()
                },
            )
            if day >= max(lake.rows_per_day(f"{use_case.name}/model"), default=day):
                registry.set_alias(use_case.name, "challenger", version)
        figures, facts = evaluation.parts["holdout"].metrics, trained.bundle.facts
        context.log.info(
            f"version {version}: ROC AUC {figures['roc_auc'].value:.4f}, log loss "
            f"{figures['log_loss'].value:.4f} on {len(holdout):,} holdout rows"
        )
        context.add_output_metadata(
            {
                "version": version,
                "registry": dg.MetadataValue.url(registry.link(use_case.name, version)),
                "roc_auc": figures["roc_auc"].value,
                "log_loss": figures["log_loss"].value,
                "holdout_rows": len(holdout),
                "expected_and_actual_positives": f"{evaluation.expected_positives.value:.1f} "
                f"[{evaluation.expected_positives.low:.0f}, "
                f"{evaluation.expected_positives.high:.0f}] and {evaluation.actual_positives}",
                "rounds": facts["rounds"],
                "hyperparameters": origin,
                "calibration": trained.bundle.calibration["method"],
                "threshold": trained.bundle.threshold,
                "columns_left_out_as_duplicates": dict(trained.bundle.duplicates),
                "sha256": trained.bundle.sha256,
                "metrics": preview(_metrics_table(evaluation), rows=20),
                **_shown(images),
            }
        )
        slope = figures["calibration_slope"]
        row = {
            "day": day,
            "version": version,
            "sha256": trained.bundle.sha256,
            "content_hash": manifest["content_hash"],
            "code_version": model_code,
            "rounds": facts["rounds"],
            "train_rows": facts["train_rows"],
            "validation_rows": facts["validation_rows"],
            "calibration_rows": facts["calibration_rows"],
            "calibration": trained.bundle.calibration["method"],
            "threshold": trained.bundle.threshold,
            "holdout_rows": len(holdout),
            "holdout_first_day": split.holdout[0],
            "holdout_last_day": split.holdout[-1],
            **{name: figures[name].value for name in ("roc_auc", "log_loss", "brier")},
            "calibration_slope": slope.value,
            "calibration_slope_low": slope.low,
            "calibration_slope_high": slope.high,
        }
        # None, where the slope is not defined, has no dtype of its own.
        slopes = [name for name in row if name.startswith("calibration_slope")]
        return pd.DataFrame([row]).astype(dict.fromkeys(slopes, "float64"))

    def _evaluation(
        trained: Trained, frame: pd.DataFrame, split: TimeSplit, effects: np.ndarray
    ) -> Evaluation:
        bundle = trained.bundle
        parts = {}
        for part in ("train", "holdout"):
            rows = split.rows(frame, part)
            margin = margins(bundle, rows, settings.threads)
            parts[part] = Scored(
                frame=rows,
                margin=margin,
                probability=calibrated(margin, bundle.calibration),
                outcome=rows[use_case.target].to_numpy(dtype=np.int8),
            )
        return evaluate(
            parts,
            calibration=trained.calibration,
            threshold=trained.threshold,
            costs=use_case.costs,
            importance=_importance(bundle, effects),
            slices=use_case.slices,
            resamples=environment.evaluation.resamples,
            seed=settings.seed,
        )

    def _drift(day: str, rows: pd.DataFrame, lake: Lake, registry: Registry) -> dict[str, Any]:
        """How far the newest rows have moved from those that the version before learned from."""
        table = f"{use_case.name}/model"
        before = lake.newest(table, before=day)
        if before is None:
            return {"since_version": None, "psi": {}}
        version = before["version"]
        try:
            known = json.loads(registry.artifact(use_case.name, version, "reference.json"))
        except RegistryError as error:
            # The files of an old version may be lost; that must not stop the next from being made.
            dg.get_dagster_logger().warning(f"drift since version {version} is unknown: {error}")
            return {"since_version": version, "psi": {}}
        psi = population_stability(known, rows)
        return {
            "since_version": version,
            "psi": {name: round(value, 6) for name, value in psi.items()},
        }

    return [training_set, model]


def _importance(bundle: Bundle, effects: np.ndarray) -> list[Importance]:
    gain = mean_gain(bundle)
    mean = np.abs(effects[:, :-1]).mean(axis=0)
    return [
        Importance(feature=name, gain=gain[name], contribution=float(contribution))
        for name, contribution in zip(bundle.inputs, mean.round(6), strict=True)
    ]


def _shown(images: dict[str, bytes]) -> dict[str, Any]:
    return {name: plots.as_markdown(image) for name, image in images.items()}


def _metrics_table(evaluation: Evaluation) -> pd.DataFrame:
    def words(part: str, name: str) -> str:
        estimate = evaluation.parts[part].metrics[name]
        if estimate.value is None:
            return "not defined"
        return f"{estimate.value:.4f} [{estimate.low:.4f}, {estimate.high:.4f}]"

    return pd.DataFrame(
        {"metric": name, "train": words("train", name), "holdout": words("holdout", name)}
        for name in evaluation.parts["holdout"].metrics
    )


def _json(content: Any) -> bytes:
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False).encode()
