"""The daily and weekly schedules of a use case, registered by environment.

A toggle in the UI outlives `default_status`, so an environment that wants no schedules has none.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import dagster as dg

from ml_assets.environment import Environment
from ml_assets.jobs import AssetJob, Jobs
from ml_assets.use_case import UseCase


def schedules(
    use_case: UseCase, environment: Environment, jobs: Jobs
) -> list[dg.ScheduleDefinition]:
    """Score yesterday each morning, train as of yesterday each night, tune and tidy once a week."""
    if not environment.schedules.enabled:
        return []
    settings = environment.schedules
    return [
        _of_yesterday(
            use_case,
            environment,
            jobs.scoring,
            "daily",
            at=settings.scoring_at,
            description="Each morning: score yesterday's applications",
            run_config=keep_unchanged(use_case),
        ),
        _of_yesterday(
            use_case,
            environment,
            jobs.monitoring,
            "daily",
            at=settings.monitoring_at,
            description="Each morning, after scoring: look at yesterday's inputs, outputs and "
            "outcomes",
        ),
        _freshness(environment, jobs.freshness),
        _of_yesterday(
            use_case,
            environment,
            jobs.training,
            "daily",
            at=settings.training_at,
            description="Each night: train on what had matured by yesterday",
        ),
        _of_yesterday(
            use_case,
            environment,
            jobs.tuning,
            "weekly",
            at=settings.tuning_at,
            on=settings.tuning_on[:3],
            description=f"Each {settings.tuning_on.capitalize()}: search hyperparameters on what "
            "had matured by yesterday",
        ),
        _of_yesterday(
            use_case,
            environment,
            jobs.maintenance,
            "weekly",
            at=settings.maintenance_at,
            on=settings.maintenance_on[:3],
            description=f"Each {settings.maintenance_on.capitalize()}: compact tables and remove "
            "what nobody needs",
        ),
    ]


def _freshness(environment: Environment, job: AssetJob) -> dg.ScheduleDefinition:
    """Ask whether yesterday's predictions are there, whatever else ran or did not run.

    Five minutes after they should be, so that a run which ends in time is seen. A daemon that was
    down at that minute makes up for it when it is back.
    """
    deadline = datetime.strptime(environment.monitoring.predictions_by, "%H:%M")
    at = deadline + timedelta(minutes=5)

    @dg.schedule(
        name=f"{job.name}_daily",
        job=job,
        cron_schedule=f"{at.minute} {at.hour} * * *",
        execution_timezone=environment.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Each morning: are yesterday's predictions there? They should be by "
        f"{environment.monitoring.predictions_by}",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Any:
        return dg.RunRequest(run_key=_yesterday(context.scheduled_execution_time, environment))

    return schedule


def keep_unchanged(use_case: UseCase) -> dict[str, Any]:
    """Run configuration under which a prediction stands while its inputs are unchanged."""
    return {"ops": {f"{use_case.name}__predictions": {"config": {"keep_unchanged": True}}}}


def _of_yesterday(
    use_case: UseCase,
    environment: Environment,
    job: AssetJob,
    rhythm: str,
    *,
    at: str,
    description: str,
    on: str = "*",
    run_config: Mapping[str, Any] | None = None,
) -> dg.ScheduleDefinition:
    hour, minute = at.split(":")

    # Dagster's own builder takes the newest partition, which here is today: see partitions.daily.
    @dg.schedule(
        name=f"{job.name}_{rhythm}",
        job=job,
        cron_schedule=f"{int(minute)} {int(hour)} * * {on}",
        execution_timezone=environment.time_zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> Any:
        day = _yesterday(context.scheduled_execution_time, environment)
        if day < use_case.start_date.isoformat():
            return dg.SkipReason(
                f"{use_case.name} starts on {use_case.start_date}; {day} is before it"
            )
        return dg.RunRequest(run_key=day, partition_key=day, run_config=run_config)

    return schedule


def _yesterday(now: datetime, environment: Environment) -> str:
    return (now.astimezone(environment.zone).date() - timedelta(days=1)).isoformat()
