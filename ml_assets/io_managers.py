"""How assets meet the lake: which days an asset's run writes, and which an input needs.

The reading and writing itself is in `ml_assets.resources.lake`.
"""

import dagster as dg
import pandas as pd
from dagster import InputContext, OutputContext

from ml_assets.resources.lake import Lake, LakeError


class LakeIOManager(dg.ConfigurableIOManager):
    """Stores each asset as a Delta table `<use case>/<stage>`, a partition per day.

    An output replaces exactly the partition, or range of partitions, of its run. An input is read
    for its partition, range or window in one scan; its metadata may name the `columns` needed.
    """

    lake: dg.ResourceDependency[Lake]

    def handle_output(self, context: OutputContext, obj: pd.DataFrame) -> None:
        """Write the days of this run in one commit."""
        first, last = _days(context)
        written = self.lake.write(_table(context), obj, first, last)
        context.add_output_metadata(
            {
                "table_uri": dg.MetadataValue.path(self.lake.uri(_table(context))),
                "table_version": written.version,
                "dagster/row_count": written.rows,
                "size_bytes": written.bytes,
                "content_changed": written.changed,
            }
        )

    def load_input(self, context: InputContext) -> pd.DataFrame:
        """Read the days that this input maps to.

        Raises:
            LakeError: A day is neither in the table nor known to have been written empty.
        """
        first, last = _days(context)
        table = _table(context)
        columns = (context.definition_metadata or {}).get("columns")
        frame = self.lake.read(table, first, last, columns=columns)
        missing = sorted(set(context.asset_partition_keys) - set(frame["day"]))
        window = (context.definition_metadata or {}).get("window", False)
        if missing and not window:
            known = context.instance.get_materialized_partitions(context.asset_key)
            if never := [day for day in missing if day not in known]:
                raise LakeError(
                    f"{table} was never materialised for {', '.join(never[:5])}"
                    f"{' …' if len(never) > 5 else ''}. Materialise it for these days first."
                )
        return frame


def _table(context: InputContext | OutputContext) -> str:
    return "/".join(context.asset_key.path)


def _days(context: InputContext | OutputContext) -> tuple[str, str]:
    if not context.has_asset_partitions:
        raise LakeError(
            f"{_table(context)} was asked for without partitions, which would be the whole table. "
            "Give the asset a daily partitions definition, or the input a partition mapping."
        )
    keys = context.asset_partition_keys
    return min(keys), max(keys)
