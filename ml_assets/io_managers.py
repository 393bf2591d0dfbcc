"""How assets meet the lake: which days an asset's run writes, and which an input needs.

The reading and writing itself is in `ml_assets.resources.lake`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
from dagster import InputContext, OutputContext

from ml_assets.causes import cause_of
from ml_assets.failures import clear_failures
from ml_assets.locks import tables_lock
from ml_assets.resources.lake import Lake, LakeError

_TRIES_AGAIN = 3  # a step whose rows were overtaken; each time it waits for the other writer


@dataclass(frozen=True)
class _Basis:
    """What a step's output rests on: days of a table as of a version; None: no table yet."""

    table: str
    first: str
    last: str
    version: int | None


class LakeIOManager(dg.IOManager):
    """Stores each asset as a Delta table `<use case>/<stage>`, a partition per day.

    An output replaces exactly the partition, or range of partitions, of its run. An input is read
    for its partition, range or window in one scan; its metadata may name the `columns` needed.

    An output never rests on older rows than stand when it is written: if another run has rewritten
    the days of an input, or of the output itself, since this step read them, the step runs again.
    """

    def __init__(self, lake: Lake, home: Path | None = None) -> None:
        """Store in `lake`; the lock file of a use case's tables lies in `home`, if one is given."""
        self.lake = lake
        self.home = home
        self._bases: dict[tuple[str, str, int], set[_Basis]] = {}

    def handle_output(self, context: OutputContext, obj: pd.DataFrame) -> None:
        """Write the days of this run in one commit.

        Raises:
            dagster.RetryRequested: What the rows rest on has changed; the step must read anew.
        """
        table = _table(context)
        tags = context.step_context.run_tags
        note = {"cause": cause_of(tags), "run_id": context.run_id}
        with clear_failures(), self._alone(context):
            first, last = _days(context)
            self._require_basis(context, table, first, last)
            written = self.lake.write(table, obj, first, last, note=note)
        context.add_output_metadata(
            {
                "table_uri": dg.MetadataValue.path(self.lake.uri(table)),
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

        Its metadata may say `window`: then days without rows are none of its business, and they may
        change while the step works, since it puts the version that it read on record itself.

        Raises:
            dagster.Failure: A day is neither in the table nor known to have been written empty.
        """
        metadata = context.definition_metadata or {}
        columns = metadata.get("columns")
        if columns is not None:
            columns = list(dict.fromkeys(["day", *columns]))
        with clear_failures():
            first, last = _days(context)
            if not metadata.get("window", False):
                self._remember_outputs(context)
            frame = self.lake.read(_table(context), first, last, columns=columns)
            if not metadata.get("window", False):
                version = frame.attrs["table_version"]
                self._bases_of(context).add(_Basis(_table(context), first, last, version))
                _require_materialised(context, frame)
        return frame

    @contextmanager
    def _alone(self, context: OutputContext) -> Iterator[None]:
        """Let nobody write between the look at what the rows rest on, and their commit."""
        use_case = context.asset_key.path[0]
        with tables_lock(self.home, use_case) if self.home else nullcontext():
            yield

    def _bases_of(self, context: InputContext | OutputContext) -> set[_Basis]:
        step = context.step_context
        return self._bases.setdefault(
            (step.run_id, step.step.key, step.previous_attempt_count), set()
        )

    def _remember_outputs(self, context: InputContext) -> None:
        """Assets build on what their own days held before: two runs must not do so side by side."""
        bases = self._bases_of(context)
        if bases:
            return
        for key in context.step_context.get_output_asset_keys():
            table = "/".join(key.path)
            bases.add(_Basis(table, "", "", self.lake.version(table)))

    def _require_basis(self, context: OutputContext, table: str, first: str, last: str) -> None:
        for basis in self._bases_of(context):
            if not basis.first:  # a table that this step writes: this output's, or another's
                if basis.table != table:
                    continue
                basis = _Basis(table, first, last, basis.version)
            newest = self.lake.version(basis.table)
            if basis.version == newest:
                continue
            days = (basis.first, basis.last)
            before = (
                frozenset()
                if basis.version is None
                else self.lake.files(basis.table, *days, version=basis.version)
            )
            if before != self.lake.files(basis.table, *days):
                told = (
                    f"{basis.table} of {_span(*days)} was written by another run (version "
                    f"{newest}) since this one read version {basis.version}"
                )
                if context.step_context.previous_attempt_count >= _TRIES_AGAIN:
                    raise LakeError(
                        f"{told}, and so it went {_TRIES_AGAIN} times before. Run it again when "
                        "the other runs are done."
                    )
                context.log.warning(f"{told}; reading it again")
                raise dg.RetryRequested(max_retries=_TRIES_AGAIN)


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


def _span(first: str, last: str) -> str:
    return first if first == last else f"{first} to {last}"


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
