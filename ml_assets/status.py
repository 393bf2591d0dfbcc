"""`ml-assets status`: where every use case stands, gathered from source, tables and Dagster."""

from dataclasses import dataclass
from datetime import datetime

import dagster as dg

from ml_assets.build import USE_CASES, resources
from ml_assets.champions import history
from ml_assets.changes import changed_days, extracted_fingerprints, outside_note, source_days
from ml_assets.environment import Environment
from ml_assets.failures import cause, check_failure
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
        outside: What is to be said of rows that no partition reads; empty if there are none.
        last_run: The newest run, as a sentence.
        last_failure: The newest failure and its cause, if an asset has failed days.
    """

    name: str
    stages: dict[str, StageState]
    champion: str
    changed: list[str]
    outside: str
    last_run: str
    last_failure: str | None


def platform_status(
    environment: Environment, instance: dg.DagsterInstance, now: datetime
) -> list[UseCaseStatus]:
    """The status of every use case.

    Raises:
        WarehouseError, WarehouseUnavailable, LandingError, LandingUnavailable: The source cannot
            be read.
    """
    doors = resources(environment)
    found = []
    for use_case in USE_CASES:
        days, outside = source_days(use_case, environment, doors["source"], now)
        changed = sorted(
            changed_days(days, extracted_fingerprints(use_case, doors["lake"], environment, now))
        )
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
                outside=outside_note(use_case, outside),
                last_run=_last_run(instance),
                last_failure=_last_failure(instance) if any_failed else None,
            )
        )
    return found


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
