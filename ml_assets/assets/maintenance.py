"""Maintenance: compacts a use case's tables, and removes what nobody needs any more.

Which versions somebody needs is decided here; how a table is cleaned up is in
`ml_assets.resources.clean_up`. It acts on the tables as they are now, whatever day it runs for.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pandas as pd

from ml_assets.assets.common import code_version, spec, table_pool
from ml_assets.causes import cause_of
from ml_assets.champions import history
from ml_assets.changes import now
from ml_assets.core.tables import Maintenance
from ml_assets.environment import Environment, mask_url
from ml_assets.failures import clear_failures
from ml_assets.locks import tables_lock
from ml_assets.partitions import daily
from ml_assets.resources.clean_up import clean_up
from ml_assets.resources.lake import Lake, LakeError
from ml_assets.resources.registry import Registry, RegistryError, Version
from ml_assets.use_case import UseCase

_TRIES_AGAIN = 2
_PAUSE_SECONDS = 30  # in which a server of the registry restarts


def maintenance_asset(use_case: UseCase, environment: Environment) -> dg.AssetsDefinition:
    """Build `maintenance` of a use case."""
    keep_days = environment.maintenance.keep_days
    keep = timedelta(days=keep_days)

    @dg.asset(
        **spec(
            use_case,
            "maintenance",
            "Once a week: tables compacted and cleaned up.\n\n"
            f"Files are removed that only versions older than {keep_days} days hold; those of "
            "versions that a registered model was trained on stay. The history of versions itself "
            "stays whole.",
            Maintenance.to_schema(),
            kinds={"deltalake"},
        ),
        code_version=code_version(use_case, "core/tables.py"),
        partitions_def=daily(use_case, environment.time_zone),
        pool=table_pool(use_case),
    )
    def maintenance(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
    ) -> pd.DataFrame:
        since = now() - keep
        if not keep_days:
            context.log.warning(
                "maintenance.keep_days is 0: only the newest versions, and those that registered "
                "models need, stay readable; whatever a writer on another machine has not "
                "committed yet is removed too"
            )
        note = {"cause": cause_of(context.run.tags), "run_id": context.run.run_id}
        rows, kept = [], {}
        with clear_failures():
            _require_ours(environment, lake)
            needed = _needed(context, use_case, lake, registry, _local_day(since, environment))
            tables = [name for name in lake.tables() if name.startswith(f"{use_case.name}/")]
        for table in tables:
            # Table by table, so that a writer never waits for long.
            with clear_failures(), tables_lock(environment.home, use_case.name):
                found = clean_up(lake, table, needed=needed.get(table, ()), keep=keep, note=note)
            kept[table] = list(found.versions_kept)
            rows.append(
                {
                    "day": context.partition_key,
                    "table": table,
                    **asdict(found),
                    "versions_kept": len(found.versions_kept),
                }
            )
        columns = list(Maintenance.to_schema().columns)
        frame = pd.DataFrame(rows, columns=columns).astype(
            {name: "object" if name in ("day", "table") else "int64" for name in columns}
        )
        context.add_output_metadata(_told(frame, kept))
        return frame

    return maintenance


def _needed(
    context: dg.AssetExecutionContext,
    use_case: UseCase,
    lake: Lake,
    registry: Registry,
    since: str,
) -> dict[str, set[int]]:
    try:
        return needed_versions(use_case, lake, registry, since)
    except RegistryError as error:
        if context.retry_number >= _TRIES_AGAIN:
            raise
        context.log.warning(f"nothing is removed: {error}")
        raise dg.RetryRequested(_TRIES_AGAIN, seconds_to_wait=_PAUSE_SECONDS) from error


def _require_ours(environment: Environment, lake: Lake) -> None:
    """Only its owner knows all the registries whose models need a lake's versions."""
    owner = lake.owner()
    if owner not in (None, environment.name):
        raise LakeError(
            f"the lake belongs to {owner}, so {environment.name} removes nothing from it: its "
            f"models are in the registry of {owner}. Run maintenance there."
        )


def _require_same_record(
    use_case: UseCase, lake: Lake, registry: Registry, registered: Sequence[Version]
) -> None:
    """Refuse a registry that has not the models which the lake's own record names last.

    One that is empty or of somewhere else would look as if no model needed any version. The two
    that served last have to be there: an empty one may have let a new model serve meanwhile.
    """
    reigns = dict.fromkeys(
        (each.version, each.sha256) for each in reversed(history(lake, use_case))
    )
    named = [(*reign, "served") for reign in [*reigns][:2]]
    if not named and (newest := lake.newest(f"{use_case.name}/model")):
        named = [(newest["version"], newest["sha256"], "was trained last")]
    there = {(each.version, each.sha256) for each in registered}
    for version, sha256, deed in named:
        if (version, sha256) not in there:
            raise RegistryError(
                f"the registry {mask_url(registry.url)} does not hold {use_case.name} version "
                f"{version} ({sha256[:8]}…), which {deed} by the lake's own record, so which "
                "versions of tables models need is not known, and nothing is removed. Correct "
                "ML_ASSETS_REGISTRY_URL, or restore the registry from its backup."
            )


def _local_day(instant: datetime, environment: Environment) -> str:
    return instant.astimezone(environment.zone).date().isoformat()


def needed_versions(
    use_case: UseCase, lake: Lake, registry: Registry, since: str
) -> dict[str, set[int]]:
    """The versions of tables that must stay readable whatever their age.

    They are those that the manifest of a registered model names, and those that a training set
    names of which a model may still be trained: it is as young as `since`, or a registered model
    has its content.

    Args:
        use_case: The use case.
        lake: Its tables.
        registry: Its models.
        since: A day, YYYY-MM-DD.

    Raises:
        RegistryError: The registry cannot be read, it lacks the manifest of a version, or it is
            not the one of this lake.
        LakeError: The training sets cannot be read.
    """
    registered = registry.versions(use_case.name)
    _require_same_record(use_case, lake, registry, registered)
    manifests: list[dict[str, Any]] = []
    for each in registered:
        try:
            content = registry.artifact(use_case.name, each.version, "training_manifest.json")
        except RegistryError as error:
            raise RegistryError(
                f"which rows {use_case.name} version {each.version} was trained on is not known: "
                f"{error} Or delete the version from the registry, if nobody needs it."
            ) from None  # with it, the cause that people are shown would be the error within
        manifests.append(json.loads(content))
    table = f"{use_case.name}/training_set"
    days = lake.rows_per_day(table)
    if days:
        contents = {each.tags.get("content_hash") for each in registered}
        sets = lake.read(table, min(days), max(days))
        young = (sets["day"] >= since) | sets["content_hash"].isin(contents)
        manifests += sets[young].to_dict("records")
    return {f"{use_case.name}/features": {int(each["table_version"]) for each in manifests}}


def _told(frame: pd.DataFrame, kept: dict[str, list[int]]) -> dict[str, Any]:
    before, after = int(frame["bytes_before"].sum()), int(frame["bytes_after"].sum())
    return {
        "tables": len(frame),
        "bytes_before": before,
        "bytes_after": after,
        "bytes_freed": before - after,
        "versions_kept_for_models": {table: each for table, each in kept.items() if each},
        "by_table": dg.MetadataValue.md(frame.drop(columns="day").to_markdown(index=False)),
    }
