"""From `champion` to `model_card`: what is known of the day's model, as a page for people."""

import dagster as dg
import pandas as pd

from ml_assets.assets.common import code_version, page_link
from ml_assets.checks import FAILING_DAYS
from ml_assets.core.texts import visible
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.model_cards import CardError, gather, keep_card, write_card
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase


def model_card_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `model_card` of a use case."""
    key = dg.AssetKey([use_case.name, "model_card"])
    days = daily(use_case, environment.time_zone)

    @dg.asset(
        key=key,
        description="For people: a page about the day's model.\n\n"
        "What it is for, how good it is, for whom it is worse, and who let it serve. Open it by "
        "the link *model_card* below; a copy is kept with the version in MLflow.",
        owners=list(use_case.owners),
        kinds={"mlflow"},
        group_name=use_case.name,
        code_version=code_version(
            use_case, "core/evaluation.py", "report/card.py", "report/card.html.jinja"
        ),
        partitions_def=days,
        ins={"champion": dg.AssetIn(key=[use_case.name, "champion"])},
        check_specs=[
            dg.AssetCheckSpec(
                "card_written",
                asset=key,
                description="The card could be written, into MLflow and the project's folder",
                partitions_def=days,
            )
        ],
    )
    def model_card(
        context: dg.AssetExecutionContext,
        champion: pd.DataFrame,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> dg.MaterializeResult:  # type: ignore[type-arg]  # Dagster wants it bare beside a check
        version = int(champion["challenger_version"].iloc[0])
        with clear_failures():
            card = gather(use_case, lake, registry, version)
        link, trouble = {}, None
        try:
            file = keep_card(environment, use_case, registry, card)
        except (RegistryError, CardError) as error:
            # A full disk must not mark the day as failed: its model is made, and judged.
            context.log.warning(str(error))
            trouble = (
                f"{visible(str(error))}\n"
                "Once that is mended, materialise `model_card` for this day again."
            )
        else:
            context.log.info(f"the model card of version {version}: {file}")
            link = {"model_card": page_link(environment, file)}
        for other in _were_shown(use_case, lake, context.partition_key, champion) - {version}:
            try:
                write_card(environment, use_case, lake, registry, other)
            except (RegistryError, CardError) as error:
                context.log.warning(f"the card of version {other} could not be renewed: {error}")
        return dg.MaterializeResult(
            metadata={
                "version": version,
                "status": card.status,
                **link,
                "registry": dg.MetadataValue.url(registry.link(use_case.name, version)),
            },
            check_results=[
                dg.AssetCheckResult(
                    passed=trouble is None,
                    severity=dg.AssetCheckSeverity.WARN,
                    description=trouble,
                    metadata={FAILING_DAYS: [context.partition_key] if trouble else []},
                )
            ],
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
