"""Asset checks: what a person should look at, even though the contract was kept.

Each check has its asset's partitions; without them Dagster would load every partition.
"""

from datetime import date

import dagster as dg

from ml_assets.changes import now, today
from ml_assets.environment import Environment
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.use_case import UseCase


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
