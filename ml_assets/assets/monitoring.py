"""From a day's tables to `monitoring`: what moved, what was said, and what of it came true."""

from collections.abc import Mapping

import dagster as dg
import pandas as pd

from ml_assets.assets.common import code_version, page_link, preview, spec, table_pool
from ml_assets.changes import now, today
from ml_assets.core.tables import Monitoring
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.monitoring import look, trouble
from ml_assets.monitoring_pages import write_page
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry
from ml_assets.use_case import UseCase

_CODE = (
    "monitoring.py",
    *(f"core/{name}.py" for name in ("drift", "monitoring", "performance", "metrics")),
)


def monitoring_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `monitoring` of a use case."""

    @dg.asset(
        **spec(
            use_case,
            "monitoring",
            "Step 7: what a look at the day found.\n\n"
            "Inputs and probabilities against those of the model's training and holdout, rows "
            "against the usual, and what was really said against what came true, or an estimate "
            "until that is known. Open the page for people by its link below.",
            Monitoring.to_schema(),
            kinds={"deltalake"},
        ),
        code_version=code_version(
            use_case, *_CODE, settings=environment.monitoring.model_dump_json()
        ),
        partitions_def=daily(use_case, environment.time_zone),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=table_pool(use_case),
        # Read as they are, from days long before as well: a day that lacks rows is a finding.
        deps=[dg.AssetDep([use_case.name, name]) for name in ("features", "predictions", "shadow")],
    )
    def monitoring(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> pd.DataFrame:
        days = context.partition_keys
        present = today(environment, now()).isoformat()
        with clear_failures():
            frame = look(use_case, environment, lake, registry, days, today=present)
        by_day: Mapping[str, pd.DataFrame] = dict(list(frame.groupby("day")))
        pages = _pages(context, use_case, environment, lake, frame)
        for day in days:
            found = trouble(by_day[day])
            context.add_asset_metadata(
                {
                    "trouble": len(found),
                    "found": preview(found[["section", "subject", "since", "sentence"]], rows=20),
                    **({"page": pages[day]} if day in pages else {}),
                },
                partition_key=day,
            )
        newest = trouble(by_day[days[-1]])
        told = [f"{len(newest)} findings for {days[-1]}", *newest["sentence"].head(5)]
        context.log.info("; ".join(told) if len(newest) else f"nothing is amiss on {days[-1]}")
        return frame

    return monitoring


def _pages(
    context: dg.AssetExecutionContext,
    use_case: UseCase,
    environment: Environment,
    lake: Lake,
    frame: pd.DataFrame,
) -> dict[str, dg.MetadataValue[str]]:
    """Links to the pages of the days, but for those that could not be written.

    A full disk must not hide what was found: the table, on which the checks rest, is stored all
    the same once this is done.
    """
    links = {}
    for day in sorted(set(frame["day"])):
        try:
            file = write_page(environment, use_case, lake, frame, day)
        except OSError as error:
            context.log.warning(f"the page of {day} could not be written: {error}")
        else:
            links[day] = page_link(environment, file)
    return links
