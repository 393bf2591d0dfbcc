"""From the source to `raw`: what it said that day, judged by the contract, every row accounted.

One extraction makes three assets in one scan: `raw` (good rows), `quarantine` (bad rows with a
reason) and `extraction` (the day's account, whose fingerprint tells the sensor what was read).
Where rows come from belongs in `ml_assets.sources`, how they are judged in `core.contract`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg
import pandas as pd
from pydantic import Field

from ml_assets.assets.common import code_version, previews, spec, table_pool
from ml_assets.changes import accounts, now
from ml_assets.core.contract import Judged, judge, rejudge
from ml_assets.core.tables import Extraction, Quarantine, keyed
from ml_assets.core.texts import visible
from ml_assets.environment import Environment
from ml_assets.failures import clear_failures
from ml_assets.locks import tables_lock
from ml_assets.partitions import daily
from ml_assets.resources.lake import Lake, LakeError
from ml_assets.resources.warehouse import Extract
from ml_assets.sources import Source, extract
from ml_assets.use_case import UseCase

_CODE = tuple(
    f"core/{name}.py" for name in ("contract", "reading", "raw_rows", "evolution", "tables")
)


class ExtractionConfig(dg.Config):
    """What is judged."""

    replay: bool = Field(
        default=False,
        description="Judge the rows that are there already, good ones and quarantined ones, by "
        "the contract of now, without reading the source. `ml-assets quarantine replay` says so.",
    )


def extraction_assets(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `raw`, `quarantine` and `extraction` of a use case.

    A range of days is read, judged and written as one.
    """
    raw_schema = use_case.raw.to_schema()
    version = code_version(use_case, *_CODE)
    outs = {
        "raw": spec(
            use_case,
            "raw",
            "Step 1: the day's applications that keep the contract.\n\n"
            "Read from the source and judged by the contract, column by column below. Rows that "
            "break it are put aside in `quarantine`, and `extraction` accounts for all of them; "
            "the three are made together. Materializing a day reads it anew, which is always safe.",
            raw_schema,
            kinds={"sql", "pandas", "deltalake"},
        ),
        "quarantine": spec(
            use_case,
            "quarantine",
            "Step 1: the day's rows that break the contract.\n\n"
            "Each with the reason, the column, the value, and the row as it came. Look at them by "
            "`ml-assets quarantine show`; once the contract is mended, `ml-assets quarantine "
            "replay` judges them again.",
            keyed(Quarantine, use_case.key),
            kinds={"pandas", "deltalake"},
        ),
        "extraction": spec(
            use_case,
            "extraction",
            "Step 1: the account of what was read.\n\n"
            "Rows read = rows kept + quarantined + exact duplicates dropped. Its fingerprint of "
            f"the source tells the sensor `{use_case.name}_new_data` which days changed since.",
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
        context: dg.AssetExecutionContext,
        config: ExtractionConfig,
        source: dg.ResourceParam[Source],
        lake: dg.ResourceParam[Lake],
    ) -> Any:
        days = context.partition_keys
        # Held over the reading and all three commits, which happen while this waits at its yields:
        # another process must not put older rows beside our newer account. The pool keeps runs of
        # the queue apart already; this, those of the command line, which do not queue.
        with clear_failures(), tables_lock(environment.home, use_case.name):
            superseded: Mapping[str, int] = {}
            lacking: Mapping[str, Sequence[str]] = {}  # of optional columns
            if config.replay:
                judged, prints = _judge_again(use_case, environment, lake, days)
            else:
                found = extract(source, use_case, days)
                judged, prints = _judged(use_case, environment, days, found), found.fingerprints
                superseded = found.superseded
                lacking = {
                    visible(path): absent
                    for path, names in found.lacking.items()
                    if (absent := [name for name in names if name in raw_schema.columns])
                }
            _tell_columns(context, judged, lacking)
            aside = _put_aside(use_case, lake, judged.quarantine, days, context.run.run_id)
            frames = {
                "raw": judged.good,
                "quarantine": aside,
                "extraction": judged.extraction.assign(
                    fingerprint=[prints.get(day, "") for day in judged.extraction["day"]]
                ),
            }
            _describe(context, use_case, frames, judged, superseded, lacking)
            for name, frame in frames.items():
                yield dg.Output(frame, output_name=name)

    return extraction


def _judged(
    use_case: UseCase, environment: Environment, days: Sequence[str], found: Extract
) -> Judged:
    """Judge the rows that the source has now."""
    return judge(
        found.rows,
        use_case.raw.to_schema(),
        days=days,
        key=use_case.key,
        received_at=use_case.received_at,
        updated_at=use_case.updated_at,
        zone=environment.zone,
    )


def _judge_again(
    use_case: UseCase, environment: Environment, lake: Lake, days: Sequence[str]
) -> tuple[Judged, dict[str, str]]:
    """Judge the rows that were read before, by the contract of now.

    The fingerprints stay those of the reading, so that the sensor still sees what changed since.
    """
    account = accounts(use_case, lake, days[0], days[-1])
    if never := sorted(set(days) - set(account["day"])):
        raise LakeError(
            f"{never[0]} was never extracted, so there is nothing to judge again. Materialise "
            f"{use_case.name}/raw for it first."
        )
    if torn := account.loc[account["torn"], "day"].tolist():
        # Which of the rows count twice cannot be told from the tables.
        raise LakeError(
            f"an extraction of {torn[0]} died between its tables, so that they cannot be judged "
            f"again. Read the day from the source: `ml-assets run ingestion --day {torn[0]}`."
        )
    raw, quarantine = (
        lake.read(f"{use_case.name}/{stage}", days[0], days[-1]) for stage in ("raw", "quarantine")
    )
    judged = rejudge(
        raw,
        quarantine,
        use_case.raw.to_schema(),
        days=days,
        key=use_case.key,
        received_at=use_case.received_at,
        updated_at=use_case.updated_at,
        zone=environment.zone,
    )
    before = account.set_index("day").loc[judged.extraction["day"]]
    dropped = before["duplicates_dropped"].to_numpy()
    counted = judged.extraction.assign(
        rows_read=judged.extraction["rows_read"] + dropped,
        duplicates_dropped=judged.extraction["duplicates_dropped"] + dropped,
    )
    fingerprints = {str(day): str(known) for day, known in before["fingerprint"].items() if known}
    return replace(judged, extraction=counted), fingerprints


def _put_aside(
    use_case: UseCase, lake: Lake, bad: pd.DataFrame, days: Sequence[str], run_id: str
) -> pd.DataFrame:
    """The quarantine of the days; a row that was there already keeps when and by which run."""
    table = f"{use_case.name}/quarantine"
    instant = pd.Timestamp(now()).floor("s").as_unit("us")
    bad = bad.assign(quarantined_at=instant, run_id=pd.Series(run_id, bad.index, dtype=object))
    bad["quarantined_at"] = bad["quarantined_at"].astype("datetime64[us, UTC]")
    if bad.empty or not any(days[0] <= day <= days[-1] for day in lake.rows_per_day(table)):
        return bad
    same = ["day", "reason", "column", "row", "origin"]
    before = lake.read(table, days[0], days[-1]).drop_duplicates(same)
    known = bad[same].merge(before, on=same, how="left")
    for name in ("quarantined_at", "run_id"):
        earlier = known[name].set_axis(bad.index)
        bad[name] = earlier.where(earlier.notna(), bad[name])
    bad["quarantined_at"] = bad["quarantined_at"].astype("datetime64[us, UTC]")
    return bad


def _tell_columns(
    context: dg.AssetExecutionContext, judged: Judged, lacking: Mapping[str, Sequence[str]]
) -> None:
    """Columns that came or went without breaking the contract are news all the same."""
    if judged.ignored:
        context.log.info(
            f"the source has columns that the contract does not know; they are ignored: "
            f"{visible(', '.join(judged.ignored))}"
        )
    if judged.absent:
        context.log.warning(
            f"the source lacks optional columns, so all their values are missing: "
            f"{', '.join(judged.absent)}"
        )
    for path, absent in lacking.items():
        context.log.warning(
            f"the file {path} lacks optional columns that other files have, so their values are "
            f"missing in its rows: {', '.join(absent)}"
        )


def _describe(
    context: dg.AssetExecutionContext,
    use_case: UseCase,
    frames: dict[str, pd.DataFrame],
    judged: Judged,
    superseded: Mapping[str, int],
    lacking: Mapping[str, Sequence[str]],
) -> None:
    """Say, for each day, what a person wants to know without opening the table."""
    reasons = frames["quarantine"].groupby("day")["reason"].value_counts()
    known = frames["raw"].groupby("day")[use_case.target].agg(["count", "mean"])
    for stage, frame in frames.items():
        key = dg.AssetKey([use_case.name, stage])
        for day, rows in previews(frame, context.partition_keys).items():
            context.add_asset_metadata({"preview": rows}, key, day)
    columns = {
        "columns_ignored": [visible(name) for name in judged.ignored],
        "columns_absent": list(judged.absent),
        "columns_absent_in_files": dict(lacking),
    }
    context.add_asset_metadata(columns, dg.AssetKey([use_case.name, "raw"]))
    for account in frames["extraction"].to_dict("records"):
        day = account["day"]
        counts = {
            name: account[name]
            for name in ("rows_read", "rows_kept", "rows_quarantined", "duplicates_dropped")
        }
        if superseded.get(day):
            counts["rows_left_out_for_newer_files"] = superseded[day]
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
