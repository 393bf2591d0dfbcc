"""The sensor `alerts`: reads what happened, and lets people know.

One ordinary sensor instead of Dagster's `run_failure_sensor`: that one sees runs alone, calls its
body once for each, one after the other, and drops a run whose notification fails. This one sees
runs, checks and champions in one place, so that one trouble is told once, and its outbox keeps what
could not be sent.
"""

from collections.abc import Sequence
from datetime import timedelta

import dagster as dg

from ml_assets.alert_events import Cursor, read_events
from ml_assets.alert_outbox import tell, waiting
from ml_assets.changes import now
from ml_assets.environment import Environment
from ml_assets.resources.lake import Lake
from ml_assets.resources.notifications import heartbeat, targets
from ml_assets.use_case import UseCase

_INTERVAL_SECONDS = 30
_FIRST_LOOK_BACK = timedelta(hours=24)  # before there is a cursor


def alert_sensors(
    environment: Environment, use_cases: Sequence[UseCase]
) -> list[dg.SensorDefinition]:
    """Build the sensor, if the environment wants alerts."""
    settings = environment.alerts
    if not settings.enabled:
        return []

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells people of failed runs and checks, of promotions and rollbacks, and when "
        "all is well again: in the file of alerts, the log, and by ML_ASSETS_ALERT_URLS. It starts "
        "no runs",
    )
    def alerts(
        context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]
    ) -> dg.SensorResult:
        instant = now()
        cursor = (
            Cursor.model_validate_json(context.cursor)
            if context.cursor
            else Cursor(since=instant - _FIRST_LOOK_BACK)
        )
        repository = context.repository_def
        tickers = (
            {each.name for each in repository.sensor_defs}
            | {each.name for each in repository.schedule_defs}
            if repository
            else set()
        )
        events, read = read_events(context.instance, lake, use_cases, tickers, cursor, instant)
        known, refused = targets(settings.urls)
        for error in refused:
            context.log.error(str(error))
        for failed in tell(environment, events, known, instant):
            context.log.warning(failed)
        left = len(waiting(environment).waiting)
        note = f"{left} alerts wait to be delivered" if left else "every alert is delivered"
        seen = sum(each.kind != "well" for each in events)
        # At the very end: a tick that fails tells nobody, so the watcher shall.
        if settings.heartbeat_url and (unheard := heartbeat(settings.heartbeat_url)):
            context.log.warning(f"the watcher of alerts.heartbeat_url was not reached: {unheard}")
        return dg.SensorResult(
            cursor=read.model_dump_json(), skip_reason=f"{seen} troubles and news seen; {note}"
        )

    return [alerts]
