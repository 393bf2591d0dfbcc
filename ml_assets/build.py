"""Environment + use cases -> `dg.Definitions`. Tests build their own graph with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from ml_assets.alert_sensor import alert_sensors
from ml_assets.assets.champion import champion_asset
from ml_assets.assets.common import without_preview_warnings
from ml_assets.assets.extraction import extraction_assets
from ml_assets.assets.features import features_asset
from ml_assets.assets.maintenance import maintenance_asset
from ml_assets.assets.model_card import model_card_asset
from ml_assets.assets.monitoring import monitoring_asset
from ml_assets.assets.predictions import predictions_asset, shadow_asset
from ml_assets.assets.training import training_assets
from ml_assets.assets.tuning import tuning_asset
from ml_assets.checks import bad_share_check, counts_check, positives_check, volume_check
from ml_assets.environment import Environment, load_environment, require_variables
from ml_assets.io_managers import LakeIOManager
from ml_assets.jobs import build_jobs
from ml_assets.monitoring_checks import monitoring_checks, on_time_check
from ml_assets.resources.lake import Lake
from ml_assets.resources.landing import Landing
from ml_assets.resources.registry import Registry
from ml_assets.resources.warehouse import Warehouse
from ml_assets.schedules import schedules
from ml_assets.sensors import sensors
from ml_assets.sources import Source
from ml_assets.use_case import UseCase
from ml_assets.use_cases.claims.use_case import CLAIMS

USE_CASES = (CLAIMS,)


def build_definitions(
    environment: Environment | None = None,
    use_cases: Sequence[UseCase] = USE_CASES,
    *,
    resource_overrides: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """Compose everything that Dagster shows and runs.

    Args:
        environment: By default the one that `ML_ASSETS_ENV` chooses.
        use_cases: The use cases to serve.
        resource_overrides: Resources to use in place of the environment's own.
    """
    if environment is None:
        environment = load_environment()
        require_variables(environment)
    with without_preview_warnings():
        parts = [_use_case_definitions(use_case, environment) for use_case in use_cases]
    doors = resources(environment, resource_overrides)
    platform = dg.Definitions(
        resources={
            "lake_io_manager": LakeIOManager(lake=doors["lake"], home=environment.home),
            **doors,
        },
        sensors=alert_sensors(environment, use_cases),
        # A process per step costs more than the daily job itself: see docs/architecture.md.
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(platform, *parts)


def _use_case_definitions(use_case: UseCase, environment: Environment) -> dg.Definitions:
    jobs = build_jobs(use_case)
    return dg.Definitions(
        assets=[
            extraction_assets(use_case, environment),
            features_asset(use_case, environment),
            *training_assets(use_case, environment),
            tuning_asset(use_case, environment),
            champion_asset(use_case, environment),
            model_card_asset(use_case, environment),
            predictions_asset(use_case, environment),
            shadow_asset(use_case, environment),
            maintenance_asset(use_case, environment),
            monitoring_asset(use_case, environment),
        ],
        asset_checks=[
            volume_check(use_case, environment),
            bad_share_check(use_case, environment),
            counts_check(use_case, environment),
            positives_check(use_case, environment),
            on_time_check(use_case, environment),
            *monitoring_checks(use_case, environment),
        ],
        jobs=jobs.all(),
        schedules=schedules(use_case, environment, jobs),
        sensors=sensors(use_case, environment, jobs),
    )


def resources(
    environment: Environment, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The doors to the outside, as the environment places them, or as overridden."""
    doors = {
        "warehouse": Warehouse(
            **environment.warehouse.model_dump(), time_zone=environment.time_zone
        ),
        "landing": Landing(**environment.landing.model_dump()),
        "lake": Lake(**environment.lake.model_dump(), owners=environment.owners("lake")),
        "registry": Registry(
            **environment.registry.model_dump(), owners=environment.owners("registry")
        ),
        **(overrides or {}),
    }
    source = Source(environment, doors["warehouse"], doors["landing"], doors["lake"])
    return {"source": source, **doors}
