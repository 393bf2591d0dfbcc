"""From `raw` to `features`: the columns that the model may see, typed and complete.

Category codes are not made here: features keep each category's own value, and the vocabulary that
turns it into a code is frozen in the model (`ml_assets.core.bundle`).
"""

import dagster as dg
import pandas as pd

from ml_assets.assets.common import code_version, previews, spec, table_pool
from ml_assets.environment import Environment
from ml_assets.partitions import daily
from ml_assets.use_case import UseCase, columns


def features_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `features` of a use case."""
    schema = use_case.features.to_schema()
    dropped = ", ".join(f"{name} ({reason})" for name, reason in use_case.dropped.items())

    @dg.asset(
        **spec(
            use_case,
            "features",
            "Step 2: what the model may see of each application.\n\n"
            f"Cleaned, typed and complete. Made only of days of `raw` whose checks hold. Left out: "
            f"{dropped}.",
            schema,
            kinds={"pandas", "deltalake"},
        ),
        code_version=code_version(use_case),
        partitions_def=daily(use_case, environment.time_zone),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=table_pool(use_case),
        ins={
            "raw": dg.AssetIn(
                key=[use_case.name, "raw"], metadata={"columns": columns(use_case.features)}
            )
        },
    )
    def features(context: dg.AssetExecutionContext, raw: pd.DataFrame) -> pd.DataFrame:
        # The type of the output checks the contract: a second check here would cost as much again.
        for day, rows in previews(raw, context.partition_keys).items():
            context.add_asset_metadata({"preview": rows}, partition_key=day)
        return raw

    return features
