"""From the warehouse to `raw`: what the source said, judged by the contract, every row accounted.

One extraction makes three assets in one scan: `raw` (good rows), `quarantine` (bad rows with a
reason) and `extraction` (the day's account, whose watermark tells the sensor what was read).
"""

from typing import Any

import dagster as dg
import pandas as pd
from filelock import FileLock

from ml_assets.assets.common import code_version, preview, spec, table_pool
from ml_assets.core.contract import judge, refuse_bad_days
from ml_assets.core.tables import Extraction, Quarantine, keyed
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.partitions import daily, day_end, day_start
from ml_assets.resources.warehouse import Warehouse
from ml_assets.use_case import UseCase


def extraction_assets(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `raw`, `quarantine` and `extraction` of a use case.

    A range of days is read, judged and written as one.
    """
    raw_schema = use_case.raw.to_schema()
    version = code_version(use_case, "core/contract.py", "core/tables.py")
    outs = {
        "raw": spec(
            use_case,
            "raw",
            "What the source said about the applications of a day; every row keeps the contract",
            raw_schema,
            kinds={"sql", "pandas", "deltalake"},
        ),
        "quarantine": spec(
            use_case,
            "quarantine",
            "Rows of the day that broke the contract, each with the reason and the row as it came",
            keyed(Quarantine, use_case.key),
            kinds={"pandas", "deltalake"},
        ),
        "extraction": spec(
            use_case,
            "extraction",
            "The account of the day's extraction: rows read, kept, quarantined and dropped",
            Extraction.to_schema(),
            kinds={"pandas", "deltalake"},
        ),
    }

    @dg.multi_asset(
        name=f"{use_case.name}_extraction",
        outs={name: dg.AssetOut(**out, code_version=version) for name, out in outs.items()},
        partitions_def=daily(use_case, environment.time_zone),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=table_pool(use_case),
    )
    def extraction(
        context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
    ) -> Any:
        days = context.partition_keys
        zone = environment.zone
        window = day_start(days[0], zone), day_end(days[-1], zone)
        # Held over the reading and all three commits, which happen while this waits at its yields:
        # another process must not put older rows beside our newer account. The pool keeps runs of
        # the queue apart already; this, those of the command line, which do not queue.
        environment.home.mkdir(parents=True, exist_ok=True)
        with FileLock(environment.home / f"{use_case.name}_extraction.lock"):
            with clear_failures():
                rows = warehouse.read(use_case.query, window)
                context.log.info(f"read {len(rows):,} rows of {days[0]} to {days[-1]}")
                judged = judge(
                    rows,
                    raw_schema,
                    days=days,
                    key=use_case.key,
                    received_at=use_case.received_at,
                    updated_at=use_case.updated_at,
                    zone=zone,
                )
                refuse_bad_days(judged, environment.contract.max_bad_share)
            frames = {
                "raw": judged.good,
                "quarantine": judged.quarantine,
                "extraction": judged.extraction,
            }
            _describe(context, use_case, frames)
            for name, frame in frames.items():
                yield dg.Output(frame, output_name=name)

    return extraction


def _describe(
    context: dg.AssetExecutionContext, use_case: UseCase, frames: dict[str, pd.DataFrame]
) -> None:
    """Say, for each day, what a person wants to know without opening the table."""
    reasons = frames["quarantine"].groupby("day")["reason"].value_counts()
    known = frames["raw"].groupby("day")[use_case.target].agg(["count", "mean"])
    for stage, frame in frames.items():
        key = dg.AssetKey([use_case.name, stage])
        context.add_asset_metadata({"preview": preview(frame)}, key)
    for account in frames["extraction"].to_dict("records"):
        day = account["day"]
        counts = {
            name: account[name]
            for name in ("rows_read", "rows_kept", "rows_quarantined", "duplicates_dropped")
        }
        raw = dict(counts)
        if day in known.index:
            outcomes, share = known.loc[day]
            raw["outcomes_known"] = int(outcomes)
            if outcomes:
                raw["positive_share_of_known"] = round(float(share), 4)
        quarantine = {"rows_quarantined": account["rows_quarantined"]}
        if account["rows_quarantined"]:
            quarantine["reasons"] = reasons[day].to_dict()
        for stage, metadata in (("raw", raw), ("quarantine", quarantine), ("extraction", counts)):
            context.add_asset_metadata(metadata, dg.AssetKey([use_case.name, stage]), day)
