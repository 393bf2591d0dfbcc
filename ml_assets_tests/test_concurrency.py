"""Several real processes at once on the same tables: nothing lost, duplicated or mixed."""

import multiprocessing
import random
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.assets.common import without_preview_warnings
from ml_assets.io_managers import LakeIOManager
from ml_assets.partitions import days_between
from ml_assets.resources.lake import Lake

pytestmark = pytest.mark.slow

TABLE = "claims/features"
DAYS = days_between("2026-01-05", "2026-01-09")
RAW, FEATURES = dg.AssetKey(["claims", "raw"]), dg.AssetKey(["claims", "features"])
DAILY = dg.DailyPartitionsDefinition(start_date=DAYS[0], end_date="2026-02-01")


def at_once(work: Callable[..., Any], *arguments: list[Any]) -> list[Any]:
    """Call `work` in a process for each of the arguments, all of them begun before any works."""
    context = multiprocessing.get_context("spawn")
    count = len(arguments[0])
    with context.Manager() as manager:
        start = manager.Barrier(count)
        with ProcessPoolExecutor(count, mp_context=context) as processes:
            return list(processes.map(work, [start] * count, *arguments))


def lake_in(folder: Path) -> Lake:
    return Lake(url=str(folder / "lake"), storage_options={}, attempts=8)


def rows(*days: str, amount: float, count: int = 50) -> pd.DataFrame:
    names = [(day, f"{day}/{number:04}") for day in days for number in range(count)]
    return pd.DataFrame(names, columns=["day", "id"]).assign(amount=float(amount))


def write_own_days(start: Any, folder: Path, writer: int) -> None:
    lake = lake_in(folder)
    start.wait()
    for day in days_of(writer):
        note = {"run_id": str(writer), "cause": "backfill"}
        lake.write(TABLE, rows(day, amount=writer), day, day, note=note)


def days_of(writer: int) -> list[str]:
    return [f"2026-{writer:02d}-{day:02d}" for day in range(1, 11)]


@pytest.mark.parametrize("is_new", [True, False])
def test_eight_writers_of_different_days_lose_nothing(tmp_path: Path, is_new: bool) -> None:
    lake = lake_in(tmp_path)
    if not is_new:
        lake.write(TABLE, rows("2025-01-01", amount=0), "2025-01-01", "2025-01-01")
    writers = list(range(1, 9))

    at_once(write_own_days, [tmp_path] * 8, writers)

    found = lake.read(TABLE, "2026-01-01", "2026-12-31")
    expected = [rows(day, amount=writer) for writer in writers for day in days_of(writer)]
    pd.testing.assert_frame_equal(found, pd.concat(expected, ignore_index=True))
    commits = [each for each in lake.log(TABLE) if each.run_id]
    assert sorted((each.run_id, each.first_day) for each in commits) == [
        (str(writer), day) for writer in writers for day in days_of(writer)
    ]


def read_whole(start: Any, folder: Path, writes: int) -> list[int]:
    """Read until the last write was seen; the amounts seen, in order."""
    lake, seen = lake_in(folder), []
    start.wait()
    while not seen or seen[-1] < writes:
        found = lake.read(TABLE, DAYS[0], DAYS[-1])
        amounts = found["amount"].unique()
        assert len(amounts) == 1, f"a mix of {amounts}"
        assert len(found) == 50 * len(DAYS)
        seen.append(int(amounts[0]))
    return seen


def write_whole(start: Any, folder: Path, writes: int) -> list[int]:
    lake = lake_in(folder)
    start.wait()
    for amount in range(1, writes + 1):
        lake.write(TABLE, rows(*DAYS, amount=amount), DAYS[0], DAYS[-1])
    return []


def write_or_read(start: Any, folder: Path, writes: int, reads: bool) -> list[int]:
    return (read_whole if reads else write_whole)(start, folder, writes)


def test_readers_see_whole_commits_only_and_never_an_older_one_again(tmp_path: Path) -> None:
    writes = 60
    lake_in(tmp_path).write(TABLE, rows(*DAYS, amount=0), DAYS[0], DAYS[-1])

    seen = at_once(write_or_read, [tmp_path] * 4, [writes] * 4, [False, True, True, True])

    for amounts in seen[1:]:
        assert amounts == sorted(amounts)
        assert len(set(amounts)) > 2, "the reader was not there while it was written"


with without_preview_warnings():

    class Amount(dg.Config):
        """What the source says now."""

        amount: float

    @dg.asset(key=RAW, partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run())
    def raw(context: dg.AssetExecutionContext, config: Amount) -> pd.DataFrame:
        """Rows of one amount."""
        return rows(*context.partition_keys, amount=config.amount)

    @dg.asset(
        key=FEATURES,
        partitions_def=DAILY,
        backfill_policy=dg.BackfillPolicy.single_run(),
        ins={"given": dg.AssetIn(key=RAW)},
    )
    def features(given: pd.DataFrame) -> pd.DataFrame:
        """What raw said, a moment later."""
        time.sleep(random.random() / 20)
        return given


def rewrite_and_follow(start: Any, folder: Path, writer: int, span: tuple[str, str]) -> int:
    """Several times: a new raw, and the features made of it, each a run of its own."""
    tables = LakeIOManager(lake_in(folder), folder)
    start.wait()
    retries = 0
    with dg.DagsterInstance.ephemeral() as instance:
        for turn in range(6):
            for asset in (raw, features):
                config = {"amount": writer * 100 + turn}
                result = dg.materialize(
                    [raw, features],
                    selection=[asset],
                    tags={
                        "dagster/asset_partition_range_start": span[0],
                        "dagster/asset_partition_range_end": span[1],
                    },
                    instance=instance,
                    resources={"io_manager": tables},
                    run_config=(
                        {"ops": {"claims__raw": {"config": config}}} if asset is raw else {}
                    ),
                    raise_on_error=False,
                )
                assert result.success or asset is features, "only an overtaken step may give up"
                retries += sum(event.is_step_up_for_retry for event in result.all_events)
    return retries


def test_features_never_rest_on_older_rows_than_stand(tmp_path: Path) -> None:
    """Runs of the same day at once, beside backfills of all days."""
    spans = [(DAYS[1], DAYS[1])] * 2 + [(DAYS[0], DAYS[-1])] * 2
    lake = lake_in(tmp_path)
    lake.write("claims/raw", rows(*DAYS, amount=0), DAYS[0], DAYS[-1])

    retries = at_once(rewrite_and_follow, [tmp_path] * 4, [1, 2, 3, 4], spans)

    # At every moment: the features of a day are of the raw rows that stood when they were
    # committed. Versions carry their instant, so the history can be asked.
    assert sum(retries) > 0, "nobody was overtaken, so nothing was tested"
    for version in lake.log(TABLE):
        stood = lake.version_at("claims/raw", version.at)
        assert version.first_day
        assert version.last_day
        made = lake.read(TABLE, version.first_day, version.last_day, version=version.version)
        of = lake.read("claims/raw", version.first_day, version.last_day, version=stood)
        pd.testing.assert_frame_equal(made, of, obj=f"features version {version.version}")


def ingest(start: Any, home: Path, first: str, last: str) -> None:
    from ml_assets_tests.conftest import new_platform  # it takes each process seconds to import

    platform = new_platform(home)
    start.wait()
    platform.run("ingestion", first, last)


def test_runs_of_the_same_day_and_a_backfill_end_in_the_tables_of_one_run(tmp_path: Path) -> None:
    from ml_assets_tests.conftest import new_platform

    alone, beside = new_platform(tmp_path / "alone"), new_platform(tmp_path / "beside")
    first, last = "2026-01-05", "2026-01-09"
    for platform in (alone, beside):
        platform.arrive(first, last)
    alone.run("ingestion", first, last)

    at_once(
        ingest,
        [beside.environment.home] * 3,
        [last, last, first],  # the daily run twice, beside a backfill
        [last, last, last],
    )

    for stage in ("raw", "features", "extraction", "quarantine"):
        unnamed = {"run_id", "quarantined_at"}
        expected, found = (
            platform.table(stage, first, last).drop(columns=unnamed, errors="ignore")
            for platform in (alone, beside)
        )
        pd.testing.assert_frame_equal(found, expected, obj=stage)
