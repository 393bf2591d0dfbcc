"""Checks of the daily look at things: drift, performance, the page; and predictions in time.

They are what raises alerts. What is found is decided in `ml_assets.core`; here it becomes one
sentence of cause and one of remedy. Checks of rows and accounts are in `ml_assets.checks`.
"""

from datetime import UTC, datetime, time, timedelta

import dagster as dg
import pandas as pd

from ml_assets.changes import now, rows_told, standing_per_day
from ml_assets.checks import FAILING_DAYS, JUDGED_DAYS
from ml_assets.core.tables import TROUBLE
from ml_assets.core.texts import visible
from ml_assets.environment import Environment
from ml_assets.monitoring import remedies, trouble
from ml_assets.partitions import daily, day_end
from ml_assets.resources.lake import Lake
from ml_assets.resources.landing import LandingError, LandingUnavailable
from ml_assets.resources.warehouse import WarehouseError, WarehouseUnavailable
from ml_assets.sources import Source, extract, fingerprints
from ml_assets.use_case import UseCase

_NAMED = 3  # findings that a description names
_JUDGED = (*TROUBLE, "watch", "ok")  # states of what could be looked at


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
    blind_remedy = (
        "See by `ml-assets doctor` that registry and tables can be read, then run "
        "`ml-assets run monitoring` for these days again."
    )

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
        judged = sorted(set(here.loc[here["state"].isin(_JUDGED), "day"]))
        # Not to be able to look is no good news, and no end of earlier trouble.
        blind = here[(here["state"] == "unknown") & ~here["day"].isin(judged)]
        states = here["state"].dropna().value_counts()
        told = None
        if not found.empty:
            told = f"{_told(found, cause)} {remedy}"
        elif not blind.empty:
            told = f"{_told(blind, f'it is not known whether {cause}')} {blind_remedy}"
        return dg.AssetCheckResult(
            passed=told is None,
            severity=dg.AssetCheckSeverity.WARN,
            description=told,
            metadata={
                "days": len(keys),
                "states": {str(state): int(count) for state, count in states.items()},
                "found": found[["day", "subject", "since", "sentence"]].to_dict("records")[:50],
                JUDGED_DAYS: judged,
                FAILING_DAYS: sorted({*found["day"], *blind["day"]}),
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
            metadata={
                "days": len(context.partition_keys),
                "missing": missing,
                FAILING_DAYS: missing,
            },
        )

    return page_written


def on_time_check(use_case: UseCase, environment: Environment) -> dg.AssetChecksDefinition:
    """Fail while predictions that are due are missing, whatever day was just scored.

    It has no partitions on purpose: it is about one day, the newest that is due, so that scoring
    an old day cannot make it pass.
    """
    deadline = environment.monitoring.predictions_by

    @dg.asset_check(
        asset=[use_case.name, "predictions"],
        name="predictions_on_time",
        description=f"Each of yesterday's applications has its prediction by {deadline} "
        "(monitoring.predictions_by). Looked at each morning after that, and after each scoring; "
        "always about the newest day that is due, whichever day was scored",
    )
    def predictions_on_time(
        context: dg.AssetCheckExecutionContext,
        source: dg.ResourceParam[Source],
        lake: dg.ResourceParam[Lake],
    ) -> dg.AssetCheckResult:
        return judge_on_time(use_case, environment, source, lake, context.instance, now())

    return predictions_on_time


def judge_on_time(
    use_case: UseCase,
    environment: Environment,
    source: Source,
    lake: Lake,
    instance: dg.DagsterInstance,
    instant: datetime,
) -> dg.AssetCheckResult:
    """Whether the predictions of the newest day that is due are there, all of them.

    Due is yesterday from the deadline on, and the day before until then. Today's rows are scored
    as they come in, so that a day has some predictions does not make it complete: as many rows
    must have been read as the source has, as many must be in features as were good, and as many
    must have a prediction that stands. Rows are counted instead of comparing fingerprints, so that
    a correction or an outcome which is yet to be read does not count as late.

    A day without any application in the source needs no predictions. That the source cannot be
    read is no excuse, unless the day was read after it had ended.
    """
    day = _due(environment, instant)
    start = use_case.start_date.isoformat()
    account = _account(use_case, lake, day)
    features = lake.rows_per_day(f"{use_case.name}/features").get(day, 0)
    stand = standing_per_day(use_case, lake, day, day).get(day, 0)
    held_back = max(int(account["rows_kept"]) - features, 0) if account is not None else 0
    unscored = max(features - stand, 0)

    def result(passed: bool, text: str) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.ERROR,
            description=text,
            metadata={
                "day": day,
                "predictions": stand,
                JUDGED_DAYS: [day],
                FAILING_DAYS: [] if passed else [day],
            },
        )

    if day < start:
        return result(True, f"Nothing is due yet: {use_case.name} starts on {start}.")
    remedy = (
        f"Look at the newest failed run, mend its cause, and run `ml-assets run scoring --day "
        f"{day}`."
    )
    due = f"were due by {environment.monitoring.predictions_by} the morning after"
    late = f"The predictions of {day} are not there, and {due}"
    try:
        unread = _unread(use_case, source, day, account)
    except (WarehouseError, WarehouseUnavailable, LandingError, LandingUnavailable) as error:
        why = f"the source cannot be read: {visible(str(error))}"
        is_scored = stand and not held_back + unscored
        if is_scored and _read_after_its_end(use_case, environment, instance, day):
            return result(
                True, f"All of {day} that was read after its end has predictions; by now {why}"
            )
        if stand:
            late = f"Whether all predictions of {day} are there is not known, and they {due}"
        # That it is down is not "no applications": whoever waits for predictions waits in vain.
        return result(False, f"{late}: {why} {remedy}")
    if unread is None:
        return result(
            True,
            f"No application of {day} is in the source, so that none is to be scored. If some "
            "should be, ask the source; they are scored once they arrive.",
        )
    if stand and not unread + held_back + unscored:
        return result(True, f"Every application of {day} has its prediction.")
    if lake.version(f"{use_case.name}/champion_history") is None:
        remedy = (
            f"No model serves yet: run {use_case.name}_training for a day with enough matured "
            f"rows, then `ml-assets run scoring --day {day}`."
        )
    if not stand:
        return result(False, f"{late}, though the source has applications of that day. {remedy}")
    found = {
        "in the source but not read yet": unread,
        "read and good but not in features": held_back,
        "in features but not scored": unscored,
    }
    where = ", ".join(f"{rows} {what}" for what, rows in found.items() if rows)
    return result(
        False,
        f"{stand} predictions of {day} are there, but {sum(found.values())} are missing, and "
        f"{due}: {where}. {remedy}",
    )


def _due(environment: Environment, instant: datetime) -> str:
    local = instant.astimezone(environment.zone)
    is_late = local.time() >= time.fromisoformat(environment.monitoring.predictions_by)
    return (local.date() - timedelta(days=1 if is_late else 2)).isoformat()


def _account(use_case: UseCase, lake: Lake, day: str) -> pd.Series | None:
    """What the day's last extraction counted; None if it was never extracted."""
    table = f"{use_case.name}/extraction"
    if day not in lake.rows_per_day(table):
        return None
    columns = ["day", "rows_read", "rows_kept", "fingerprint"]
    return lake.read(table, day, day, columns=columns).iloc[0]


def _unread(use_case: UseCase, source: Source, day: str, account: pd.Series | None) -> int | None:
    """How many rows of a day the source has beyond those read; None if it has none at all."""
    there = fingerprints(source, use_case).get(day)
    if there is None:
        return None
    if account is None:
        return rows_told(there)
    more = rows_told(there) - rows_told(account["fingerprint"])
    if more > 0 and source.lands:
        # The ledger counts the lines of all files; a file with corrections repeats applications.
        more = extract(source, use_case, [day]).rows.num_rows - int(account["rows_read"])
    return max(more, 0)


def _read_after_its_end(
    use_case: UseCase, environment: Environment, instance: dg.DagsterInstance, day: str
) -> bool:
    """Whether the day's last extraction came after its end; a replay counts as one."""
    key = dg.AssetKey([use_case.name, "extraction"])
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, asset_partitions=[day]), limit=1
    ).records
    end = day_end(day, environment.zone)
    return any(datetime.fromtimestamp(each.timestamp, UTC) >= end for each in records)
