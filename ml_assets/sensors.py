"""The new-data sensor: asks for exactly the days that changed, and never for one change twice.

`plan` decides, as a pure function; the sensor around it reads the fingerprints and talks to
Dagster. What a change is, is defined in `ml_assets.changes`.

The cursor remembers each day that was asked for until its run has succeeded and the day is
extracted as the source has it. Dagster's own run-key deduplication is forever, and a day may come
back to a state that it was in before; so each request has a key of its own, and the cursor alone
tells what was asked.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import cache

import dagster as dg
from dagster import DagsterRunStatus
from pydantic import BaseModel

from ml_assets.changes import (
    changed_days,
    extracted_fingerprints,
    now,
    outside_note,
    recent,
    source_days,
)
from ml_assets.environment import Environment
from ml_assets.jobs import Jobs
from ml_assets.partitions import partition_tags, ranges
from ml_assets.resources.lake import Lake
from ml_assets.resources.landing import Taken
from ml_assets.schedules import keep_unchanged
from ml_assets.sources import Source, take_files
from ml_assets.state import outdated
from ml_assets.use_case import UseCase

# Of a tick, for files that have landed; Dagster gives up a tick after a minute.
_TAKING_SECONDS = 20.0


class Outcome(StrEnum):
    """What became of the run that was asked for."""

    PENDING = "pending"
    ENDED = "ended"
    CANCELED = "canceled"


class Asked(BaseModel):
    """What was asked for a day: the state of the source, in which run, and whether once more."""

    state: str
    run_key: str
    again: bool = False


class Cursor(BaseModel):
    """What the sensor remembers.

    Attributes:
        epoch: When this cursor began; makes its run keys differ from those of an earlier one.
        requests: Runs asked for since.
        asked: The days asked for that are not up to date yet.
    """

    epoch: str = ""
    requests: int = 0
    asked: dict[str, Asked] = {}


@dataclass(frozen=True)
class Request:
    """A run to ask for: a range of days, scored if they are recent."""

    first: str
    last: str
    scored: bool
    run_key: str


@dataclass(frozen=True)
class Plan:
    """What to do at a tick.

    Attributes:
        requests: The runs to ask for, newest days first.
        cursor: What to remember.
        left: Changed days for the next tick.
        running: Days whose run is not over yet.
        stuck: Days that were asked for twice, or whose run was cancelled: a person has to look, or
            the source has to change.
    """

    requests: list[Request]
    cursor: Cursor
    left: list[str]
    running: list[str]
    stuck: list[str]


def plan(
    changed: Mapping[str, str],
    cursor: Cursor,
    *,
    is_recent: Callable[[str], bool],
    is_made: Callable[[str], bool],
    outcome: Callable[[str], Outcome],
    max_days: int,
) -> Plan:
    """Decide what to ask for.

    A change is asked for once. If its run failed, or ended without bringing the day up to date, the
    day is asked for once more, alone, so that one bad day does not hold back the others. Then it
    waits until the source changes again.

    Args:
        changed: Days that differ from what was extracted, with the source's fingerprint.
        cursor: What was asked for before.
        is_recent: Whether a day is young enough to be scored again.
        is_made: Whether all that follows from a day's extraction is as new as that.
        outcome: What became of the run with this key.
        max_days: Most days to ask for now, newest first.
    """
    asked, running, again, stuck = {}, [], [], []
    for day, known in cursor.asked.items():
        became = outcome(known.run_key)
        if became == Outcome.PENDING:
            running.append(day)
        elif known.state != changed[day] if day in changed else is_made(day):
            continue
        elif known.again or became == Outcome.CANCELED:
            stuck.append(day)
        else:
            again.append(day)
        asked[day] = known
    new = [day for day in changed if day not in asked]
    chosen = sorted(new + again, reverse=True)[:max_days]
    requests: list[Request] = []
    count = cursor.requests
    for scored in (True, False):
        together = [day for day in chosen if day in new and is_recent(day) == scored]
        alone = [day for day in chosen if day in again and is_recent(day) == scored]
        for first, last in ranges(together) + [(day, day) for day in alone]:
            count += 1
            key = f"{first}:{last}:{cursor.epoch}:{count}"
            requests.append(Request(first, last, scored, key))
            for day in (day for day in together + alone if first <= day <= last):
                state = changed[day] if day in changed else asked[day].state
                asked[day] = Asked(state=state, run_key=key, again=day in again)
    return Plan(
        requests=sorted(requests, key=lambda request: request.last, reverse=True),
        cursor=Cursor(epoch=cursor.epoch, requests=count, asked=asked),
        left=sorted({*new, *again} - set(chosen)),
        running=sorted(running),
        stuck=sorted(stuck),
    )


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
        description="Takes files that have landed, if rows come in files, and asks for the days "
        "whose source rows changed since they were last extracted: the last "
        f"{settings.scoring_days} days are scored again, older ones refreshed",
    )
    def sensor(
        context: dg.SensorEvaluationContext,
        source: dg.ResourceParam[Source],
        lake: dg.ResourceParam[Lake],
    ) -> dg.SensorResult | dg.SkipReason:
        instant = now()
        taken = take_files(source, use_case, instant, budget_seconds=_TAKING_SECONDS)
        _tell(context, taken)
        days, outside = source_days(use_case, environment, source, instant)
        extracted = extracted_fingerprints(use_case, lake, environment, instant)
        cursor = (
            Cursor.model_validate_json(context.cursor)
            if context.cursor
            else Cursor(epoch=instant.isoformat())
        )
        decided = plan(
            changed_days(days, extracted),
            cursor,
            is_recent=lambda day: recent(day, environment, instant),
            is_made=lambda day: _is_made(context.instance, use_case, day, environment, instant),
            outcome=cache(lambda run_key: _outcome(context.instance, run_key)),
            max_days=settings.max_days_per_tick,
        )
        if decided.stuck:
            context.log.warning(_stuck(decided))
        note = outside_note(use_case, outside)
        if note:
            context.log.warning(note)
        if decided.left:
            context.log.info(f"{len(decided.left)} more days are left for the next tick")
        return dg.SensorResult(
            run_requests=[
                dg.RunRequest(
                    run_key=request.run_key,
                    job_name=(jobs.scoring if request.scored else jobs.ingestion).name,
                    run_config=keep_unchanged(use_case) if request.scored else {},
                    partition_key=request.first if request.first == request.last else None,
                    tags=partition_tags(request.first, request.last),
                )
                for request in decided.requests
            ],
            skip_reason=(
                None
                if decided.requests
                else "; ".join(filter(None, [_nothing_to_ask(decided, len(days)), note]))
            ),
            cursor=decided.cursor.model_dump_json(),
        )

    return [sensor]


def _tell(context: dg.SensorEvaluationContext, taken: Taken | None) -> None:
    """Say which files were taken, and which were not and why."""
    for file in taken.taken if taken else ():
        context.log.info(f"took {file}")
    for file in taken.repeated if taken else ():
        context.log.info(f"repeated {file}: {file.reason}")
    for file in taken.rejected if taken else ():
        context.log.warning(f"rejected {file}")


def _nothing_to_ask(decided: Plan, days: int) -> str:
    """Why a tick asks for nothing, in words for the UI."""
    if decided.stuck:
        return _stuck(decided)
    if decided.running:
        return f"runs of {len(decided.running)} days are not over yet"
    return f"no change in {days} days of the source"


def _stuck(decided: Plan) -> str:
    return (
        f"runs failed twice or were cancelled for {', '.join(decided.stuck)}: see their runs, "
        "and materialise these days by hand once the cause is mended"
    )


def _is_made(
    instance: dg.DagsterInstance,
    use_case: UseCase,
    day: str,
    environment: Environment,
    now: datetime,
) -> bool:
    stages = ["features", "predictions"] if recent(day, environment, now) else ["features"]
    return not any(outdated(instance, use_case, stage, [day]) for stage in stages)


def _outcome(instance: dg.DagsterInstance, run_key: str) -> Outcome:
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/run_key": run_key}), limit=1)
    # Runs are created before the next tick; one that is not there was deleted.
    return _after_retries(instance, runs[0]) if runs else Outcome.CANCELED


def _after_retries(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Outcome:
    """What became of a run and of its retries: a run whose process died is started again."""
    root = run.root_run_id or run.run_id
    retries = instance.get_runs(dg.RunsFilter(tags={"dagster/root_run_id": root}), limit=1)
    last = retries[0] if retries else run
    # Dagster takes the first tag back if it cannot start the retry after all.
    awaited = last.tags.get("dagster/will_retry") == "true"
    if last.status == DagsterRunStatus.FAILURE and awaited:
        # With the second tag there was a retry, and somebody has deleted it.
        return Outcome.ENDED if "dagster/auto_retry_run_id" in last.tags else Outcome.PENDING
    return {
        DagsterRunStatus.SUCCESS: Outcome.ENDED,
        DagsterRunStatus.FAILURE: Outcome.ENDED,
        DagsterRunStatus.CANCELED: Outcome.CANCELED,
    }.get(last.status, Outcome.PENDING)
