"""`ml-assets status`: where every use case stands, gathered from source, tables and Dagster."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import dagster as dg

from ml_assets.build import USE_CASES, resources
from ml_assets.champions import history
from ml_assets.changes import changed_days, extracted_fingerprints, outside_note, source_days
from ml_assets.environment import Environment
from ml_assets.failures import cause, check_failure
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.landing import File, LandingError, LandingUnavailable
from ml_assets.resources.warehouse import WarehouseError, WarehouseUnavailable
from ml_assets.sources import rejections
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
        unknown: Why that cannot be told, the source being out of reach; empty if it can.
        rejected: Files that were rejected lately, newest first.
        outside: What is to be said of rows that no partition reads; empty if there are none.
        last_run: The newest run, as a sentence.
        last_failure: The newest failure and its cause, if an asset has failed days.
    """

    name: str
    stages: dict[str, StageState]
    champion: str
    changed: list[str]
    unknown: str
    rejected: list[File]
    outside: str
    last_run: str
    last_failure: str | None


def platform_status(
    environment: Environment, instance: dg.DagsterInstance, now: datetime
) -> list[UseCaseStatus]:
    """The status of every use case.

    It is told where the source cannot be read, too: only what changed there is unknown then.

    Raises:
        LakeError: The tables cannot be read.
    """
    doors = resources(environment)
    found = []
    for use_case in USE_CASES:
        changed, outside, unknown = _source(use_case, environment, doors, now)
        partitions_def = daily(use_case, environment.time_zone)
        stages = {
            stage: stage_state(instance, use_case, stage, changed, partitions_def)
            for stage in LINEAGE
        }
        any_failed = any(state.failed for state in stages.values())
        found.append(
            UseCaseStatus(
                name=use_case.name,
                stages=stages,
                champion=_champion(use_case, doors["lake"]),
                changed=changed,
                unknown=unknown,
                rejected=rejections(doors["source"], use_case, now),
                outside=outside_note(use_case, outside),
                last_run=_last_run(instance),
                last_failure=_last_failure(instance) if any_failed else None,
            )
        )
    return found


def _source(
    use_case: UseCase, environment: Environment, doors: Mapping[str, Any], now: datetime
) -> tuple[list[str], dict[str, str], str]:
    """The days that changed, those outside of all days, and why neither is known."""
    try:
        days, outside = source_days(use_case, environment, doors["source"], now)
    except (WarehouseError, WarehouseUnavailable, LandingError, LandingUnavailable) as error:
        return [], {}, str(error)
    extracted = extracted_fingerprints(use_case, doors["lake"], environment, now)
    return sorted(changed_days(days, extracted)), outside, ""


def _champion(use_case: UseCase, lake: Lake) -> str:
    reigns = history(lake, use_case)
    if not reigns:
        return f"none yet; run the job {use_case.name}_training"
    now = reigns[-1]
    event = now.event.replace("_", " ")
    return (
        f"{use_case.name} version {now.version}, since {now.at:%Y-%m-%d %H:%M} UTC ({event}, by "
        f"{now.by}: {now.reason})"
    )


def _last_run(instance: dg.DagsterInstance) -> str:
    records = instance.get_run_records(limit=1)
    return _describe(records[0]) if records else "none"


def _last_failure(instance: dg.DagsterInstance) -> str | None:
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])
    for record in instance.get_run_records(failed, limit=1):
        events = [
            entry.dagster_event
            for entry in instance.all_logs(
                record.dagster_run.run_id,
                of_type={
                    dg.DagsterEventType.STEP_FAILURE,
                    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
                },
            )
            if entry.dagster_event
        ]
        causes = [
            cause(event) if event.is_step_failure else check_failure(event) for event in events
        ]
        return "\n".join([_describe(record), *[text for text in causes if text][:1]])
    return None


def _describe(record: dg.RunRecord) -> str:
    run = record.dagster_run
    first = run.tags.get("dagster/partition") or run.tags.get(
        "dagster/asset_partition_range_start", ""
    )
    last = run.tags.get("dagster/asset_partition_range_end", first)
    days = first if first == last else f"{first} to {last}"
    created = record.create_timestamp.astimezone().strftime("%Y-%m-%d %H:%M")
    state = run.status.value.lower().replace("_", " ")
    return f"{run.job_name} of {days}: {state}, {created}, run {run.run_id[:8]}"
