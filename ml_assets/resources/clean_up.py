"""Clean-up of one table: compaction, and the removal of files that no version to keep needs.

Which versions are to be kept, and when this runs, belongs in `ml_assets.assets.maintenance`.

The files are chosen here rather than by Delta's own VACUUM, which goes by the removals that the
newest checkpoint still lists. Checkpoints forget removals after a week, and from then on it goes
by the age of the file: with a retention of 30 days, it removes a file that was written 60 days ago
and replaced 8 days ago, and with it every version of before (deltalake 1.6.6; see the tests). It
also lists files that are gone already, and makes two commits whenever it is called.
"""

import re
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ml_assets.resources.lake import Lake, LakeError, Stored, Version

# A checkpoint is a file of its own, and opening a table reads the commits since the last one.
_COMMITS_PER_CHECKPOINT = 20
_CHECKPOINT = re.compile(r"_delta_log/(\d{20})\.checkpoint.*\.parquet")
# Halves of files that a killed writer leaves, also among the log's.
_HALF = re.compile(r"(#\d+|/_commit_[^/]*\.tmp)$")


@dataclass(frozen=True)
class CleanUp:
    """What a clean-up found and left.

    Attributes:
        bytes_before: Size of all in the table's folder, its log included.
        bytes_after: The same afterwards.
        files_before: Files with rows, of whatever version.
        files_after: The same afterwards.
        versions_kept: Versions older than `oldest_readable` that were asked for and kept.
        oldest_readable: From this version on, every version can be read.
    """

    bytes_before: int
    bytes_after: int
    files_before: int
    files_after: int
    versions_kept: tuple[int, ...]
    oldest_readable: int


def clean_up(
    lake: Lake,
    table: str,
    *,
    needed: Collection[int],
    keep: timedelta,
    note: Mapping[str, str] | None = None,
) -> CleanUp:
    """Compact a table, and remove the files that neither a kept version nor a writer needs.

    What stays: the versions in `needed`, every version that stood at any time within `keep`, and
    every file written within it, because a writer may be about to commit it. So if `keep` is
    nothing, no writer may be at work: hold the tables' lock. The log is never shortened, so that
    all versions stay on record. Doing it again changes nothing.

    Args:
        lake: Where the table lies.
        table: Its name.
        needed: Versions to keep whatever their age; those that the table never had are passed over.
        keep: The time up to now from which everything is kept.
        note: What to put on record with the commit of a compaction.

    Raises:
        LakeError: The table cannot be read or written, or files of a needed version are lost.
    """
    before = lake.stored(table)
    lake.compact(table, note=note)
    since = datetime.now(UTC) - keep
    # Listed before the log is read: what is committed after that is not in this list.
    found = lake.stored(table)
    versions = lake.log(table)
    newest = versions[0].version
    recent = range(_first_to_keep(versions, since), newest + 1)
    asked = sorted({version for version in needed if version <= newest})
    there = {file.path for file in found}
    kept = {version: lake.files(table, version=version) for version in {*recent, *asked}}
    if lost := [version for version in asked if not kept[version] <= there]:
        raise LakeError(
            f"files of version {lost[0]} of {table} are lost, which a registered model needs. "
            "Nothing was removed. Restore the table's folder from a backup."
        )
    protected = frozenset().union(*kept.values())
    lake.remove(
        table,
        [
            file.path
            for file in found
            if (file.is_data or _HALF.search(file.path))
            and file.path not in protected
            and file.modified < since
        ],
    )
    if newest - _newest_checkpoint(found) >= _COMMITS_PER_CHECKPOINT:
        lake.checkpoint(table)
    after = lake.stored(table)
    there = {file.path for file in after}
    oldest = _oldest_readable(kept, recent, there)
    return CleanUp(
        bytes_before=sum(file.size for file in before),
        bytes_after=sum(file.size for file in after),
        files_before=sum(file.is_data for file in before),
        files_after=sum(file.is_data for file in after),
        versions_kept=tuple(version for version in asked if version < oldest),
        oldest_readable=oldest,
    )


def _first_to_keep(versions: list[Version], since: datetime) -> int:
    """The version that stood at `since`; also right if a writer's clock was wrong for a while."""
    later = [each.version for each in versions if each.at > since]
    if later:
        return max(min(later) - 1, versions[-1].version)
    return versions[0].version


def _newest_checkpoint(files: list[Stored]) -> int:
    found = (_CHECKPOINT.fullmatch(file.path) for file in files)
    return max((int(match[1]) for match in found if match), default=-1)


def _oldest_readable(kept: Mapping[int, frozenset[str]], recent: range, there: Set[str]) -> int:
    """An earlier clean-up may have kept less than this one."""
    oldest = recent[-1]
    for version in reversed(recent):
        if not kept[version] <= there:
            break
        oldest = version
    return oldest
