"""Runs jobs in this process on the persistent instance, with progress for a person who waits."""

import os
import platform
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from ml_assets.failures import cause, check_failure
from ml_assets.partitions import partition_tags

CAUSE_TAG = "ml_assets/cause"  # what asked for a run, where Dagster's own tags do not tell

# On runs of this module: the process that they live and die with.
_PROCESS = "ml_assets/process"
_KILLED = "The process of this run was killed"

_HEARTBEAT_SECONDS = 30  # of Dagster's daemons


class RunFailed(RuntimeError):
    """A run failed; the message carries the cause."""


def run_days(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job_name: str,
    first: str,
    last: str,
    *,
    assets: Sequence[dg.AssetKey] | None = None,
    run_config: Mapping[str, Any] | None = None,
    on_event: Callable[[dg.DagsterEvent], None] | None = None,
    because: str = "command",
) -> None:
    """Materialise a range of days by one run of a job.

    Args:
        definitions: Where the job is defined.
        instance: Where the run is recorded.
        job_name: Such as `claims_ingestion`.
        first: First day.
        last: Last day; the same as `first` for a single partition.
        assets: Those of the job's assets to materialise; by default all.
        run_config: Configuration of the job's ops.
        on_event: Called with each of the run's events, as it happens.
        because: What asks for the run; the tables' versions tell it.

    Raises:
        RunFailed: With the first failure's own message.
    """
    run_id = str(uuid.uuid4())
    failures: list[str] = []

    def listen(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        if failed := check_failure(event):
            failures.append(failed)
        if event.is_step_failure:
            failures.append(cause(event))
        if on_event:
            on_event(event)

    close_dead_runs(instance)
    instance.add_event_listener(run_id, listen)
    job = definitions.resolve_job_def(job_name)
    days = job.partitions_def
    for day in (first, last):
        if days and not days.has_partition_key(day):
            raise RunFailed(
                f"{day} is outside the days of {job_name}: choose from "
                f"{days.get_first_partition_key()} to {days.get_last_partition_key()}."
            )
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(
        instance=instance,
        run_id=run_id,
        run_config={**(run_config or {}), **quiet},
        raise_on_error=False,
        asset_selection=assets,
        partition_key=first if first == last else None,
        tags={
            **partition_tags(first, last),
            CAUSE_TAG: because,
            _PROCESS: f"{platform.node()}:{os.getpid()}",
        },
    )
    if not result.success:
        raise RunFailed(failures[0] if failures else f"the run {run_id} of {job_name} failed")


def close_dead_runs(instance: dg.DagsterInstance, *, without_daemon: bool = False) -> None:
    """Mark runs whose process was killed as failed.

    Nobody else would: they would look as if they were running for ever, and take up a place in the
    queue of the daemon's runs.

    Args:
        instance: Where the runs are recorded.
        without_daemon: That no daemon should serve the instance, so that the runs it launched are
            dead. If there are such runs, this watches for the heartbeat of a daemon first, which
            may take some seconds.
    """
    underway = [
        # Recorded, and killed before its first event; or one that a daemon is about to queue.
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTING,
        dg.DagsterRunStatus.STARTED,
        dg.DagsterRunStatus.CANCELING,
    ]
    launched = []
    for run in instance.get_runs(dg.RunsFilter(statuses=underway)):
        host, _, pid = run.tags.get(_PROCESS, "").rpartition(":")
        if not host:
            if run.status != dg.DagsterRunStatus.NOT_STARTED:
                launched.append(run)
        elif host == platform.node() and not _is_alive(int(pid)):
            instance.report_run_failed(run, message=_KILLED)
    if without_daemon and launched and not _daemon_is_alive(instance):
        for run in launched:
            instance.report_run_failed(run, message=_KILLED)


def _daemon_is_alive(instance: dg.DagsterInstance) -> bool:
    """Whether a daemon's heart beats: a recent beat, followed by another."""

    def newest() -> float:
        beats = instance.get_daemon_heartbeats().values()
        return max((beat.timestamp for beat in beats), default=0.0)

    seen = newest()
    if time.time() - seen > 2 * _HEARTBEAT_SECONDS:
        return False
    time.sleep(_HEARTBEAT_SECONDS + 5)
    return newest() > seen


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
