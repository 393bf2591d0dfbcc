"""Asset checks: what a person should look at, even though the contract was kept.

Each check has its asset's partitions; without them Dagster would load every partition.
"""

from datetime import date, timedelta

import dagster as dg
import pandas as pd

from ml_assets.changes import now, today
from ml_assets.core.metrics import expected_positives
from ml_assets.environment import Environment
from ml_assets.partitions import daily, day_end
from ml_assets.resources.lake import Lake
from ml_assets.use_case import UseCase

_REALISED_DAYS = 28
_TOLERANCE = 0.1


def volume_check(use_case: UseCase, environment: Environment) -> dg.AssetChecksDefinition:
    """Warn of days with fewer or more rows than the use case expects."""

    @dg.asset_check(
        asset=[use_case.name, "extraction"],
        name="volume_as_expected",
        description="The number of rows read is within what the use case declares as normal "
        "for that weekday. Today is not judged: it is not over",
        partitions_def=daily(use_case, environment.time_zone),
    )
    def volume_as_expected(
        context: dg.AssetCheckExecutionContext, lake: dg.ResourceParam[Lake]
    ) -> dg.AssetCheckResult:
        keys = context.partition_keys
        accounts = lake.read(f"{use_case.name}/extraction", min(keys), max(keys))
        unfinished = today(environment, now()).isoformat()
        unusual = {}
        for day, rows in zip(accounts["day"], accounts["rows_read"], strict=True):
            fewest, most = use_case.volume(date.fromisoformat(day))
            if day < unfinished and not fewest <= rows <= most:
                unusual[day] = f"{rows} rows, expected {fewest} to {most}"
        return dg.AssetCheckResult(
            passed=not unusual,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"days": len(accounts), "unusual": unusual},
        )

    return volume_as_expected


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
        matured = date.fromisoformat(max(context.partition_keys)) - timedelta(
            days=use_case.label_maturity_days
        )
        first = (matured - timedelta(days=_REALISED_DAYS - 1)).isoformat()
        said = lake.rows_per_day(f"{use_case.name}/predictions")
        days = [day for day in said if first <= day <= matured.isoformat()]
        if not days:
            return dg.AssetCheckResult(
                passed=True, metadata={"days": 0, "note": "no matured day was scored yet"}
            )
        on = ["day", use_case.key]
        predicted = lake.read(
            f"{use_case.name}/predictions",
            min(days),
            max(days),
            columns=[*on, "probability", "scored_at"],
        )
        # What was said after the outcome was known proves nothing: its model may have learned it.
        maturity = timedelta(days=use_case.label_maturity_days)
        final = predicted["day"].map(
            {
                day: day_end(date.fromisoformat(day) + maturity, environment.zone)
                for day in predicted["day"].unique()
            }
        )
        in_time = predicted[predicted["scored_at"] < pd.to_datetime(final, utc=True)]
        both = in_time.merge(
            lake.read(
                f"{use_case.name}/features", min(days), max(days), columns=[*on, use_case.target]
            ).dropna(subset=[use_case.target]),
            on=on,
        )
        expected, low, high = expected_positives(both["probability"].to_numpy())
        actual = int(both[use_case.target].sum())
        is_off = abs(actual - expected) > _TOLERANCE * expected
        return dg.AssetCheckResult(
            passed=low <= actual <= high or not is_off,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "days": len(days),
                "rows": len(both),
                "rows_said_too_late": len(predicted) - len(in_time),
                "expected": round(expected, 1),
                "expected_95": f"{low:.0f} to {high:.0f}",
                "actual": actual,
            },
        )

    return positives_as_expected
