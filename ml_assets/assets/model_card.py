"""From `champion` to `model_card`: what is known of the day's model, as a page for people."""

import dagster as dg
import pandas as pd

from ml_assets.assets.common import code_version, page_link
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.model_cards import write_card
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase


def model_card_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `model_card` of a use case."""

    @dg.asset(
        key=[use_case.name, "model_card"],
        description="For people: a page about the day's model.\n\n"
        "What it is for, how good it is, for whom it is worse, and who let it serve. Open it by "
        "the link *model_card* below; a copy is kept with the version in MLflow.",
        owners=list(use_case.owners),
        kinds={"mlflow"},
        group_name=use_case.name,
        code_version=code_version(
            use_case, "core/evaluation.py", "report/card.py", "report/card.html.jinja"
        ),
        partitions_def=daily(use_case, environment.time_zone),
        ins={"champion": dg.AssetIn(key=[use_case.name, "champion"])},
    )
    def model_card(
        context: dg.AssetExecutionContext,
        champion: pd.DataFrame,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> dg.MaterializeResult[None]:
        version = int(champion["challenger_version"].iloc[0])
        with clear_failures():
            written = write_card(environment, use_case, lake, registry, version)
        for other in _were_shown(use_case, lake, context.partition_key, champion) - {version}:
            try:
                write_card(environment, use_case, lake, registry, other)
            except RegistryError as error:
                context.log.warning(f"the card of version {other} could not be renewed: {error}")
        context.log.info(f"the model card of version {version}: {written.file}")
        return dg.MaterializeResult(
            metadata={
                "version": version,
                "status": written.status,
                "model_card": page_link(environment, written.file),
                "registry": dg.MetadataValue.url(registry.link(use_case.name, version)),
            }
        )

    return model_card


def _were_shown(use_case: UseCase, lake: Lake, day: str, champion: pd.DataFrame) -> set[int]:
    """Versions whose cards may still call them champion or challenger."""
    challenger = lake.newest(f"{use_case.name}/model", before=day)
    shown = [
        *champion["previous_version"].dropna(),
        *([challenger["version"]] if challenger else []),
    ]
    return {int(version) for version in shown}
