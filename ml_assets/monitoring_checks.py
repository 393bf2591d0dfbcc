"""Checks of the daily look at things: drift, performance, the page; and predictions in time.

They are what raises alerts. What is found is decided in `ml_assets.core`; here it becomes one
sentence of cause and one of remedy. Checks of rows and accounts are in `ml_assets.checks`.
"""

from collections.abc import Sequence
from datetime import datetime, time, timedelta

import dagster as dg
import pandas as pd

from ml_assets.changes import now
from ml_assets.core.texts import visible
from ml_assets.environment import Environment
from ml_assets.monitoring import remedies, trouble
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.landing import LandingError, LandingUnavailable
from ml_assets.resources.warehouse import WarehouseError, WarehouseUnavailable
from ml_assets.sources import Source, fingerprints
from ml_assets.use_case import UseCase

_NAMED = 3  # findings that a description names


def monitoring_checks(
    use_case: UseCase, environment: Environment
) -> list[dg.AssetChecksDefinition]:
    """The checks on what the day's look found."""
    limits = environment.monitoring.limits
    sections = {
        "inputs_stable": (
            "inputs",
            "No input has drifted from the rows that the champion learned from: an effect that "
            f"matters, a test that holds, and that on {limits.days_over} of {limits.days} days",
            "inputs have drifted",
        ),
        "outputs_stable": (
            "outputs",
            "The champion's probabilities are distributed as on its holdout",
            "what the champion says has drifted",
        ),
        "performance_holds": (
            "outcomes",
            "What the champion said and what came true agree as well as its holdout had promised: "
            "fails if the 95 % intervals do not meet and the difference is beyond the margin",
            "what came true is worse than promised",
        ),
    }
    return [
        *(_findings_check(use_case, environment, name, *more) for name, more in sections.items()),
        _page_check(use_case, environment),
    ]


def _findings_check(
    use_case: UseCase,
    environment: Environment,
    name: str,
    section: str,
    description: str,
    cause: str,
) -> dg.AssetChecksDefinition:
    table = f"{use_case.name}/monitoring"
    remedy = remedies(use_case)[section]

    @dg.asset_check(
        asset=[use_case.name, "monitoring"],
        name=name,
        description=description,
        partitions_def=daily(use_case, environment.time_zone),
    )
    def check(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        keys = context.partition_keys
        frame = lake.read(table, min(keys), max(keys))
        here = frame[frame["section"] == section]
        found = trouble(here)
        states = here["state"].dropna().value_counts()
        return dg.AssetCheckResult(
            passed=found.empty,
            severity=dg.AssetCheckSeverity.WARN,
            description=None if found.empty else f"{_told(found, cause)} {remedy}",
            metadata={
                "days": len(keys),
                "states": {str(state): int(count) for state, count in states.items()},
                "found": found[["day", "subject", "since", "sentence"]].to_dict("records")[:50],
            },
        )

    return check


def _told(found: pd.DataFrame, cause: str) -> str:
    """The newest day's findings as one sentence, and how many days have any."""
    day = found["day"].max()
    here = found[found["day"] == day]
    named = "; ".join(
        f"{visible(sentence).rstrip('.')}" for sentence in here["sentence"].head(_NAMED)
    )
    more = f"; and {len(here) - _NAMED} more" if len(here) > _NAMED else ""
    days = found["day"].nunique()
    others = f" ({days} of the days looked at have findings)" if days > 1 else ""
    return f"On {day} {cause}: {named}{more}{others}."


def _page_check(use_case: UseCase, environment: Environment) -> dg.AssetChecksDefinition:
    key = dg.AssetKey([use_case.name, "monitoring"])

    @dg.asset_check(
        asset=key,
        name="page_written",
        description="The page for people could be written",
        partitions_def=daily(use_case, environment.time_zone),
    )
    def page_written(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        missing = []
        for day in context.partition_keys:
            records = context.instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1
            ).records
            made = records[0].asset_materialization if records else None
            if made is None or "page" not in made.metadata:
                missing.append(day)
        folder = environment.reports_folder / use_case.name
        return dg.AssetCheckResult(
            passed=not missing,
            severity=dg.AssetCheckSeverity.WARN,
            description=(
                f"The pages of {', '.join(missing[:5])} could not be written into {folder}, "
                "though the table was. Make room there, or give this user the right to write, and "
                "materialise these days again."
                if missing
                else None
            ),
            metadata={"days": len(context.partition_keys), "missing": missing},
        )

    return page_written


def on_time_check(use_case: UseCase, environment: Environment) -> dg.AssetChecksDefinition:
    """Fail while the predictions that are due are not there, whatever day was just scored.

    It has no partitions on purpose: it is about one day, the newest that is due, so that scoring
    an old day cannot make it pass.
    """
    deadline = environment.monitoring.predictions_by

    @dg.asset_check(
        asset=[use_case.name, "predictions"],
        name="predictions_on_time",
        description=f"Yesterday's predictions are there by {deadline} "
        "(monitoring.predictions_by). Looked at each morning after that, and after each scoring; "
        "always about the newest day that is due, whichever day was scored",
    )
    def predictions_on_time(
        source: dg.ResourceParam[Source], lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        return judge_on_time(use_case, environment, source, lake, now())

    return predictions_on_time


def judge_on_time(
    use_case: UseCase, environment: Environment, source: Source, lake: Lake, instant: datetime
) -> dg.AssetCheckResult:
    """Whether the predictions of the newest day that is due are there.

    Due is yesterday from the deadline on, and the day before until then. A day without any
    application in the source needs no predictions; that the source cannot be read is no excuse.
    """
    scored = lake.rows_per_day(f"{use_case.name}/predictions")
    day = _due(environment, scored, instant)
    start = use_case.start_date.isoformat()

    def result(passed: bool, text: str) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=text,
            metadata={"day": day, "predictions": scored.get(day, 0)},
        )

    if day < start:
        return result(True, f"Nothing is due yet: {use_case.name} starts on {start}.")
    if day in scored:
        return result(True, f"Predictions of {day} are there.")
    remedy = (
        f"Look at the newest failed run, mend its cause, and run `ml-assets run scoring --day "
        f"{day}`."
    )
    by = environment.monitoring.predictions_by
    late = f"The predictions of {day} are not there, and were due by {by} the morning after"
    try:
        applications = day in fingerprints(source, use_case)
    except (WarehouseError, WarehouseUnavailable, LandingError, LandingUnavailable) as error:
        # That it is down is not "no applications": whoever waits for predictions waits in vain.
        return result(False, f"{late}: the source cannot be read: {visible(str(error))} {remedy}")
    if not applications:
        return result(
            True,
            f"No application of {day} is in the source, so that none is to be scored. If some "
            "should be, ask the source; they are scored once they arrive.",
        )
    if lake.version(f"{use_case.name}/champion_history") is None:
        remedy = (
            f"No model serves yet: run {use_case.name}_training for a day with enough matured "
            f"rows, then `ml-assets run scoring --day {day}`."
        )
    return result(False, f"{late}, though the source has applications of that day. {remedy}")


def _due(
    environment: Environment, scored: Sequence[str] | dict[str, int], instant: datetime
) -> str:
    local = instant.astimezone(environment.zone)
    yesterday = (local.date() - timedelta(days=1)).isoformat()
    by = time.fromisoformat(environment.monitoring.predictions_by)
    if local.time() >= by or yesterday in scored:
        return yesterday
    return (local.date() - timedelta(days=2)).isoformat()
