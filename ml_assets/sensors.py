"""The new-data sensor: asks for exactly the days that changed, and never for one change twice.

`plan` decides, as a pure function; the sensor around it reads the fingerprints and talks to
Dagster. What a change is, is defined in `ml_assets.changes`.

The cursor remembers, for each day that was asked for and is not yet extracted in that state, the
fingerprint and the run key. Dagster's own run-key deduplication is forever, so the key names days
and fingerprints.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster import DagsterRunStatus
from pydantic import BaseModel

from ml_assets.changes import changed_days, extracted_fingerprints, recent, source_fingerprints
from ml_assets.environment import Environment
from ml_assets.jobs import Jobs
from ml_assets.partitions import partition_tags, ranges
from ml_assets.resources.lake import Lake
from ml_assets.resources.warehouse import Fingerprint, Warehouse
from ml_assets.schedules import keep_unchanged
from ml_assets.use_case import UseCase


class Asked(BaseModel):
    """What was asked for a day: the state of the source, and in which run."""

    state: str
    run_key: str
    alone: bool


class Cursor(BaseModel):
    """What the sensor remembers: the days asked for whose change is not extracted yet."""

    asked: dict[str, Asked] = {}


@dataclass(frozen=True)
class Request:
    """A run to ask for: a range of days, scored if they are recent."""

    first: str
    last: str
    scored: bool
    run_key: str


def plan(
    changed: Mapping[str, Fingerprint],
    cursor: Cursor,
    *,
    is_recent: Callable[[str], bool],
    failed: Callable[[str], bool],
    max_days: int,
) -> tuple[list[Request], Cursor, int]:
    """Decide what to ask for.

    A change is asked for once. If the run of a range failed, its days are asked for once more, each
    alone, so that one bad day does not hold back the others.

    Args:
        changed: Days that differ from what was extracted, with the source's fingerprint.
        cursor: What was asked for before.
        is_recent: Whether a day is young enough to be scored again.
        failed: Whether the run with this key has failed.
        max_days: Most days to ask for now, newest first.

    Returns:
        The requests, newest days first; the new cursor; and how many changed days are left for the
        next tick.
    """
    asked = {
        day: known
        for day, known in cursor.asked.items()
        if day in changed and known.state == _state(changed[day])
    }
    new = [day for day in changed if day not in asked]
    retried = [day for day, known in asked.items() if not known.alone and failed(known.run_key)]
    chosen = sorted(new + retried, reverse=True)[:max_days]
    requests = []
    for scored in (True, False):
        together = [day for day in chosen if day in new and is_recent(day) == scored]
        alone = [day for day in chosen if day in retried and is_recent(day) == scored]
        for first, last in ranges(together) + [(day, day) for day in alone]:
            days = [day for day in chosen if first <= day <= last]
            states = " ".join(f"{day}={_state(changed[day])}" for day in sorted(days))
            key = f"{first}:{last}:{hashlib.sha256(states.encode()).hexdigest()[:16]}"
            is_alone = first == last
            if is_alone and first in retried:
                key += ":alone"
            requests.append(Request(first, last, scored, key))
            for day in days:
                asked[day] = Asked(state=_state(changed[day]), run_key=key, alone=is_alone)
    requests.sort(key=lambda request: request.last, reverse=True)
    return requests, Cursor(asked=asked), len(new) + len(retried) - len(chosen)


def sensors(use_case: UseCase, environment: Environment, jobs: Jobs) -> list[dg.SensorDefinition]:
    """Build the sensor of a use case, if the environment wants one."""
    settings = environment.sensor
    if not settings.enabled:
        return []

    @dg.sensor(
        name=f"{use_case.name}_new_data",
        jobs=[jobs.scoring, jobs.ingestion],
        minimum_interval_seconds=settings.interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for the days whose source rows changed since they were last extracted: "
        f"the last {settings.scoring_days} days are scored again, older ones refreshed",
    )
    def sensor(
        context: dg.SensorEvaluationContext, warehouse: Warehouse, lake: Lake
    ) -> dg.SensorResult | dg.SkipReason:
        now = datetime.fromtimestamp(time.time(), UTC)
        source = source_fingerprints(use_case, environment, warehouse, now)
        extracted = extracted_fingerprints(use_case, lake, environment, now)
        cursor = Cursor.model_validate_json(context.cursor) if context.cursor else Cursor()
        requests, after, left = plan(
            changed_days(source, extracted),
            cursor,
            is_recent=lambda day: recent(day, environment, now),
            failed=lambda run_key: _failed(context.instance, run_key),
            max_days=settings.max_days_per_tick,
        )
        if left:
            context.log.info(f"{left} more changed days are left for the next tick")
        skip = None if requests else f"no change in {len(source)} days of the source"
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=request.run_key,
                    job_name=(jobs.scoring if request.scored else jobs.ingestion).name,
                    run_config=keep_unchanged(use_case) if request.scored else {},
                    partition_key=request.first if request.first == request.last else None,
                    tags=partition_tags(request.first, request.last),
                )
                for request in requests
            ],
            skip_reason=skip,
            cursor=after.model_dump_json(),
        )

    return [sensor]


def _state(fingerprint: Fingerprint) -> str:
    newest = fingerprint.newest.astimezone(UTC).isoformat() if fingerprint.newest else "-"
    return f"{fingerprint.rows}@{newest}"


def _failed(instance: dg.DagsterInstance, run_key: str) -> bool:
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": run_key}), limit=1)
    return bool(runs) and runs[0].status in (DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
