"""Asset checks: what a person should look at, even though the contract was kept.

Each check has its asset's partitions; without them Dagster would load every partition. A run may
be of many days, and Dagster keeps one result for all of them: which days fail is in its metadata,
for the alerts.
"""

from datetime import date, timedelta

import dagster as dg
import pandas as pd

from ml_assets.changes import now, today
from ml_assets.core.contract import Judged, bad_days
from ml_assets.core.metrics import expected_positives
from ml_assets.core.monitoring import volume
from ml_assets.core.tables import TROUBLE
from ml_assets.environment import Environment
from ml_assets.monitoring import limits, remedies
from ml_assets.partitions import daily, day_end
from ml_assets.resources.lake import Lake
from ml_assets.use_case import UseCase

# In the metadata of every check of ours: the days that make it fail; none if it passed.
FAILING_DAYS = "failing_days"
# The days that it judged, if these are not all the days of the run. That they pass is the end of
# what was told of earlier ones too: such a check is about the newest that can be judged.
JUDGED_DAYS = "judged_days"

_VOLUME = ["day", "rows_read"]
_REALISED_DAYS = 28
_TOLERANCE = 0.1

_BAD_SHARE_REMEDY = (
    "Look at the rows by `ml-assets quarantine show`. Have the source mended, and the day is read "
    "again by itself; or mend the contract in schema.py and run `ml-assets quarantine replay`. "
    "Until then features and predictions stay as they were."
)


def volume_check(use_case: UseCase, environment: Environment) -> dg.AssetChecksDefinition:
    """Warn of days with fewer or more rows than the use case expects."""

    @dg.asset_check(
        asset=[use_case.name, "extraction"],
        name="volume_as_expected",
        description="The number of rows read is within what the use case declares as normal "
        "for that weekday, and not far from what the same weekday brought in the weeks before. "
        "Today is not judged: it is not over",
        partitions_def=daily(use_case, environment.time_zone),
    )
    def volume_as_expected(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        keys = context.partition_keys
        known = limits(environment)
        oldest = date.fromisoformat(min(keys)) - timedelta(weeks=known.volume_weeks)
        accounts = lake.read(
            f"{use_case.name}/extraction", oldest.isoformat(), max(keys), columns=_VOLUME
        )
        read = dict(zip(accounts["day"], map(int, accounts["rows_read"]), strict=True))
        unfinished = today(environment, now()).isoformat()
        unusual = {}
        judged = [day for day in sorted(set(keys)) if day in read and day < unfinished]
        for day in judged:
            fewest, most = use_case.volume(date.fromisoformat(day))
            usual = volume(read, known, day)
            if not fewest <= read[day] <= most:
                unusual[day] = f"{read[day]} rows, expected {fewest} to {most}"
            elif usual.state in TROUBLE:
                unusual[day] = usual.sentence
        told = "; ".join(f"{day}: {text}" for day, text in list(unusual.items())[:5])
        return dg.AssetCheckResult(
            passed=not unusual,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{told}. {remedies(use_case)['volume']}" if unusual else None,
            metadata={
                "days": len(keys),
                "unusual": unusual,
                JUDGED_DAYS: judged,
                FAILING_DAYS: sorted(unusual),
            },
        )

    return volume_as_expected


def bad_share_check(use_case: UseCase, environment: Environment) -> dg.AssetChecksDefinition:
    """Hold back days of which too large a share is in quarantine."""
    limit = environment.contract.max_bad_share

    @dg.asset_check(
        asset=[use_case.name, "raw"],
        name="bad_share_within_limit",
        description=f"At most {limit:.1%} of a day's rows are in quarantine "
        "(contract.max_bad_share). Beyond it, features and predictions stay as they were",
        partitions_def=daily(use_case, environment.time_zone),
        blocking=True,
    )
    def bad_share_within_limit(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        keys = context.partition_keys
        account, quarantine = (
            lake.read(f"{use_case.name}/{stage}", min(keys), max(keys))
            for stage in ("extraction", "quarantine")
        )
        bad = bad_days(Judged(pd.DataFrame(), quarantine, account), limit)
        sentences = [f"{day}: {text}" for day, text in bad.items()]
        return dg.AssetCheckResult(
            passed=not bad,
            severity=dg.AssetCheckSeverity.ERROR,
            description="\n\n".join([*sentences, _BAD_SHARE_REMEDY]) if bad else None,
            metadata={
                "days": len(account),
                "days_over_the_limit": sorted(bad),
                FAILING_DAYS: sorted(bad),
            },
        )

    return bad_share_within_limit


def counts_check(use_case: UseCase, environment: Environment) -> dg.AssetChecksDefinition:
    """Hold back days whose account does not say what became of every row."""

    @dg.asset_check(
        asset=[use_case.name, "raw"],
        name="every_row_accounted",
        description="Rows read = rows kept + rows quarantined + exact duplicates dropped, and the "
        "tables hold as many rows as the account says",
        partitions_def=daily(use_case, environment.time_zone),
        blocking=True,
    )
    def every_row_accounted(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        keys = context.partition_keys
        accounts = lake.read(f"{use_case.name}/extraction", min(keys), max(keys))
        kept, aside = (
            lake.rows_per_day(f"{use_case.name}/{stage}") for stage in ("raw", "quarantine")
        )
        wrong = {}
        for day in keys:
            account = accounts[accounts["day"] == day]
            there = kept.get(day, 0), aside.get(day, 0)
            if account.empty:
                wrong[day] = "it has no account"
                continue
            said = account.iloc[0]
            if (said["rows_kept"], said["rows_quarantined"]) != there or said["rows_read"] != (
                sum(there) + said["duplicates_dropped"]
            ):
                wrong[day] = (
                    f"{said['rows_read']} rows read, {said['rows_kept']} kept, "
                    f"{said['rows_quarantined']} quarantined, {said['duplicates_dropped']} "
                    f"duplicates dropped; the tables hold {there[0]} and {there[1]}"
                )
        remedy = "Materialise these days again: their rows are read anew and written as one."
        return dg.AssetCheckResult(
            passed=not wrong,
            severity=dg.AssetCheckSeverity.ERROR,
            description="\n\n".join([*(f"{day}: {text}" for day, text in wrong.items()), remedy])
            if wrong
            else None,
            metadata={"days": len(keys), "wrong": wrong, FAILING_DAYS: sorted(wrong)},
        )

    return every_row_accounted


def positives_check(use_case: UseCase, environment: Environment) -> dg.AssetChecksDefinition:
    """Warn when what came true is not what was expected."""

    @dg.asset_check(
        asset=[use_case.name, "training_set"],
        name="positives_as_expected",
        description=f"Over the newest {_REALISED_DAYS} matured days, as many rows turned out "
        "positive as the probabilities had said in time. Warns if the count is both outside the "
        f"95 % interval and off by more than {_TOLERANCE:.0%}",
        partitions_def=daily(use_case, environment.time_zone),
    )
    def positives_as_expected(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        newest = max(context.partition_keys)
        matured = date.fromisoformat(newest) - timedelta(days=use_case.label_maturity_days)
        first = (matured - timedelta(days=_REALISED_DAYS - 1)).isoformat()
        said = lake.rows_per_day(f"{use_case.name}/predictions")
        days = [day for day in said if first <= day <= matured.isoformat()]
        if not days:
            return dg.AssetCheckResult(
                passed=True,
                metadata={
                    "days": 0,
                    "note": "no matured day was scored yet",
                    JUDGED_DAYS: [],
                    FAILING_DAYS: [],
                },
            )
        on = ["day", use_case.key]
        predicted = lake.read(
            f"{use_case.name}/predictions",
            min(days),
            max(days),
            columns=[*on, "probability", "scored_at"],
        ).sort_values("scored_at", kind="stable")
        # What was said after the outcome was known proves nothing: its model may have learned it.
        maturity = timedelta(days=use_case.label_maturity_days)
        final = predicted["day"].map(
            {
                day: day_end(date.fromisoformat(day) + maturity, environment.zone)
                for day in predicted["day"].unique()
            }
        )
        in_time = predicted[predicted["scored_at"] < pd.to_datetime(final, utc=True)]
        # Of what was said in time about an application, the last word counts.
        last_said = in_time.drop_duplicates(on, keep="last")
        both = last_said.merge(
            lake.read(
                f"{use_case.name}/features", min(days), max(days), columns=[*on, use_case.target]
            ).dropna(subset=[use_case.target]),
            on=on,
        )
        expected, low, high = expected_positives(both["probability"].to_numpy())
        actual = int(both[use_case.target].sum())
        is_off = abs(actual - expected) > _TOLERANCE * expected
        passed = low <= actual <= high or not is_off
        return dg.AssetCheckResult(
            passed=passed,
            severity=dg.AssetCheckSeverity.WARN,
            description=None
            if passed
            else f"From {min(days)} to {max(days)} {actual:,} positive outcomes came, where "
            f"{expected:,.0f} ({low:,.0f} to {high:,.0f}) were expected. "
            f"{remedies(use_case)['positives']}",
            metadata={
                "days": len(days),
                "rows": len(both),
                "rows_said_too_late": len(predicted) - len(in_time),
                "expected": round(expected, 1),
                "expected_95": f"{low:.0f} to {high:.0f}",
                "actual": actual,
                JUDGED_DAYS: [newest],
                FAILING_DAYS: [] if passed else [newest],
            },
        )

    return positives_as_expected
