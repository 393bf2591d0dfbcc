"""`ml-assets status`: where every use case stands, gathered from source, tables and Dagster."""

from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from ml_assets.build import USE_CASES, resources
from ml_assets.changes import changed_days, extracted_fingerprints, source_fingerprints
from ml_assets.environment import Environment
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.state import LINEAGE, StageState, stage_state
from ml_assets.use_case import UseCase


@dataclass(frozen=True)
class UseCaseStatus:
    """Where a use case stands.

    Attributes:
        name: The use case.
        stages: The days of each asset.
        champion: Who serves, and since when, as a sentence.
        changed: Days whose source changed and is not extracted yet.
        last_run: The newest run, as a sentence.
    """

    name: str
    stages: dict[str, StageState]
    champion: str
    changed: list[str]
    last_run: str


def platform_status(
    environment: Environment, instance: dg.DagsterInstance, now: datetime
) -> list[UseCaseStatus]:
    """The status of every use case.

    Raises:
        WarehouseError, WarehouseUnavailable: The source cannot be read.
    """
    doors = resources(environment)
    found = []
    for use_case in USE_CASES:
        changed = sorted(
            changed_days(
                source_fingerprints(use_case, environment, doors["warehouse"], now),
                extracted_fingerprints(use_case, doors["lake"], environment, now),
            )
        )
        partitions_def = daily(use_case, environment.time_zone)
        found.append(
            UseCaseStatus(
                name=use_case.name,
                stages={
                    stage: stage_state(instance, use_case, stage, changed, partitions_def)
                    for stage in LINEAGE
                },
                champion=_champion(use_case, doors["lake"]),
                changed=changed,
                last_run=_last_run(instance),
            )
        )
    return found


def _champion(use_case: UseCase, lake: Lake) -> str:
    table = f"{use_case.name}/champion"
    days = lake.rows_per_day(table)
    if not days:
        return f"none yet; run the job {use_case.name}_training"
    history = lake.read(table, min(days), max(days))
    newest = history.iloc[-1]
    since = history.loc[history["version"] == newest["version"], "day"].min()
    return f"{use_case.name} version {newest['version']}, since {since} ({newest['decision']})"


def _last_run(instance: dg.DagsterInstance) -> str:
    runs = instance.get_run_records(limit=1)
    if not runs:
        return "none"
    run = runs[0].dagster_run
    tags = run.tags
    first = tags.get("dagster/partition") or tags.get("dagster/asset_partition_range_start", "")
    last = tags.get("dagster/asset_partition_range_end", first)
    days = first if first == last else f"{first} to {last}"
    started = runs[0].create_timestamp.astimezone().strftime("%Y-%m-%d %H:%M")
    return f"{run.job_name} of {days}: {run.status.value.lower()}, {started}, run {run.run_id[:8]}"
