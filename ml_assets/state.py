"""Where each asset stands, day by day, from Dagster's own records.

Used by `ml-assets demo` to continue where it stopped, and by `ml-assets status` to tell. Changes in
the source are in `ml_assets.changes`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import dagster as dg

from ml_assets.use_case import UseCase

# Each stage and the stages of the same day that it is made from.
LINEAGE: dict[str, tuple[str, ...]] = {
    "raw": (),
    "quarantine": (),
    "extraction": (),
    "features": ("raw",),
    "training_set": (),
    # Tuned now and then; that its day's training set was made again does not make it old.
    "hyperparameters": (),
    "model": ("training_set",),
    "champion": ("model",),
    "model_card": ("champion",),
    "predictions": ("features",),
    "shadow": ("features", "predictions"),
    "maintenance": (),
    # A day tells how things stood that morning; what came later shows in later days.
    "monitoring": (),
}

# The stages whose day follows from the source's rows of that day.
_FOLLOW_THE_SOURCE = ("raw", "quarantine", "extraction", "features", "predictions", "shadow")


@dataclass(frozen=True)
class StageState:
    """The days of one asset.

    Attributes:
        present: Days that are materialised.
        stale: Those of them that are older than what they are made from.
        failed: Days whose last run failed.
    """

    present: list[str]
    stale: list[str]
    failed: list[str]


def outdated(
    instance: dg.DagsterInstance, use_case: UseCase, stage: str, days: Iterable[str]
) -> list[str]:
    """Those of `days` that are missing in a stage, or older than what they are made from."""
    wanted = sorted(days)
    made, older = _made_and_overtaken(instance, use_case, stage, wanted)
    return [day for day in wanted if day not in made or day in older]


def overtaken(
    instance: dg.DagsterInstance, use_case: UseCase, stage: str, days: Iterable[str]
) -> list[str]:
    """Those of `days` of which what a stage is made from is on record, and newer than the stage."""
    return _made_and_overtaken(instance, use_case, stage, sorted(days))[1]


def stage_state(
    instance: dg.DagsterInstance,
    use_case: UseCase,
    stage: str,
    changed: Sequence[str],
    partitions_def: dg.PartitionsDefinition,
) -> StageState:
    """The days of a stage that are present, stale or failed.

    Args:
        instance: Dagster's own records.
        use_case: Whose asset it is.
        stage: Such as `features`.
        changed: Days whose source differs from what was extracted.
        partitions_def: The days there can be.
    """
    key = dg.AssetKey([use_case.name, stage])
    materialised = sorted(instance.get_materialized_partitions(key))
    old = set(outdated(instance, use_case, stage, materialised))
    if stage in _FOLLOW_THE_SOURCE:
        old |= set(changed) & set(materialised)
    status = (
        instance.get_status_by_partition(key, partitions_def.get_partition_keys(), partitions_def)
        or {}
    )
    return StageState(
        present=materialised,
        stale=sorted(old),
        failed=sorted(day for day, value in status.items() if value and value.value == "FAILED"),
    )


def _made_and_overtaken(
    instance: dg.DagsterInstance, use_case: UseCase, stage: str, days: Sequence[str]
) -> tuple[dict[str, int], list[str]]:
    """The days on record of a stage, and those whose upstream is newer, in one reading."""
    made = _newest(instance, use_case, stage, days)
    upstream = [_newest(instance, use_case, name, days) for name in LINEAGE[stage]]
    older = [day for day in days if any(made.get(day, -1) < up.get(day, -1) for up in upstream)]
    return made, older


def _newest(
    instance: dg.DagsterInstance, use_case: UseCase, stage: str, days: Sequence[str]
) -> dict[str, int]:
    return dict(
        instance.get_latest_storage_id_by_partition(
            dg.AssetKey([use_case.name, stage]),
            dg.DagsterEventType.ASSET_MATERIALIZATION,
            set(days),
        )
    )
