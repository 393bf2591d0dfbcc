"""Runs jobs in this process on the persistent instance, with progress for a person who waits."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg

from ml_assets.partitions import partition_tags


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

    Raises:
        RunFailed: With the first failure's own message.
    """
    run_id = str(uuid.uuid4())
    failures: list[str] = []

    def listen(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        if event.is_step_failure:
            failures.append(_cause(event))
        if on_event:
            on_event(event)

    instance.add_event_listener(run_id, listen)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = definitions.resolve_job_def(job_name).execute_in_process(
        instance=instance,
        run_id=run_id,
        run_config={**(run_config or {}), **quiet},
        raise_on_error=False,
        asset_selection=assets,
        partition_key=first if first == last else None,
        tags=partition_tags(first, last),
    )
    if not result.success:
        raise RunFailed(failures[0] if failures else f"the run {run_id} of {job_name} failed")


def _cause(event: dg.DagsterEvent) -> str:
    """What a person should read: our own description, or else the error at the root."""
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return str(data.user_failure_data.description)
    error = data.error
    while error and error.cause:
        error = error.cause
    return error.message.strip() if error else "unknown error"
