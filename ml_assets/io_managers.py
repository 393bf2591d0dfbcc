"""How assets meet the lake: which days an asset's run writes, and which an input needs.

The reading and writing itself is in `ml_assets.resources.lake`.
"""

import dagster as dg
import pandas as pd
from dagster import InputContext, OutputContext

from ml_assets.failures import clear_failures
from ml_assets.resources.lake import Lake, LakeError


class LakeIOManager(dg.IOManager):
    """Stores each asset as a Delta table `<use case>/<stage>`, a partition per day.

    An output replaces exactly the partition, or range of partitions, of its run. An input is read
    for its partition, range or window in one scan; its metadata may name the `columns` needed.
    """

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def handle_output(self, context: OutputContext, obj: pd.DataFrame) -> None:
        """Write the days of this run in one commit."""
        with clear_failures():
            first, last = _days(context)
            written = self.lake.write(_table(context), obj, first, last)
        context.add_output_metadata(
            {
                "table_uri": dg.MetadataValue.path(self.lake.uri(_table(context))),
                "table_version": written.version,
                "content_changed": written.changed,
            }
        )
        for day in context.asset_partition_keys:
            context.step_context.add_asset_metadata(
                {
                    "dagster/row_count": written.rows_per_day.get(day, 0),
                    "size_bytes": written.bytes_per_day.get(day, 0),
                },
                context.asset_key,
                day,
            )

    def load_input(self, context: InputContext) -> pd.DataFrame:
        """Read the days that this input maps to.

        Its metadata may say `window`: then days without rows are none of its business.

        Raises:
            dagster.Failure: A day is neither in the table nor known to have been written empty.
        """
        metadata = context.definition_metadata or {}
        columns = metadata.get("columns")
        if columns is not None:
            columns = list(dict.fromkeys(["day", *columns]))
        with clear_failures():
            first, last = _days(context)
            frame = self.lake.read(_table(context), first, last, columns=columns)
            if not metadata.get("window", False):
                _require_materialised(context, frame)
        return frame


def _require_materialised(context: InputContext, frame: pd.DataFrame) -> None:
    """A day that was never written is not a day without rows."""
    missing = sorted(set(context.asset_partition_keys) - set(frame["day"]))
    if not missing:
        return
    known = context.instance.get_materialized_partitions(context.asset_key)
    if never := [day for day in missing if day not in known]:
        raise LakeError(
            f"{_table(context)} was never materialised for {', '.join(never[:5])}"
            f"{' …' if len(never) > 5 else ''}. Materialise it for these days first."
        )


def _table(context: InputContext | OutputContext) -> str:
    return "/".join(context.asset_key.path)


def _days(context: InputContext | OutputContext) -> tuple[str, str]:
    if not context.has_asset_partitions:
        raise LakeError(
            f"{_table(context)} was asked for without partitions, which would be the whole table. "
            "Give the asset a daily partitions definition, or the input a partition mapping."
        )
    keys = context.asset_partition_keys
    if not keys:
        raise LakeError(
            f"the days of {_table(context)} that this needs lie before its start date. "
            "Choose a later day."
        )
    return min(keys), max(keys)
