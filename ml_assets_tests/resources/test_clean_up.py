"""Clean-up with real files: what goes, what stays, and that nobody who reads or writes is hurt."""

import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from deltalake import DeltaTable

from ml_assets.resources.clean_up import CleanUp, clean_up
from ml_assets.resources.lake import Lake, LakeError

TABLE = "claims/features"
MONDAY, TUESDAY = "2026-01-05", "2026-01-06"
DAY = timedelta(days=1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(url=str(tmp_path / "lake"), storage_options={}, attempts=8)


def rows(day: str, amount: float, count: int = 2) -> pd.DataFrame:
    names = [f"{day}/{number}" for number in range(count)]
    return pd.DataFrame({"day": [day] * count, "id": names, "amount": [float(amount)] * count})


def corrected(lake: Lake, times: int, count: int = 2) -> list[pd.DataFrame]:
    """Write a day again and again; version N holds the amount N."""
    lake.write(TABLE, rows(MONDAY, 0, count), MONDAY, MONDAY)
    for amount in range(1, times):
        lake.write(TABLE, rows(TUESDAY, amount, count), TUESDAY, TUESDAY)
    return [lake.read(TABLE, MONDAY, TUESDAY, version=each) for each in range(times)]


def cleaned(lake: Lake, *needed: int, days: int = 0) -> CleanUp:
    return clean_up(lake, TABLE, needed=needed, keep=days * DAY)


def readable(lake: Lake) -> list[int]:
    return [each.version for each in lake.log(TABLE, check_files=True) if each.readable][::-1]


def age(lake: Lake, days: float, *, file: str = "*") -> None:
    """Let files look as if they had been written earlier."""
    then = (datetime.now(UTC) - days * DAY).timestamp()
    for path in Path(lake.uri(TABLE)).rglob(file):
        os.utime(path, (then, then))


def age_log(lake: Lake, *days: float) -> None:
    """Let the versions look as if they had been committed so many days ago."""
    import json

    for version, ago in enumerate(days):
        path = Path(lake.uri(TABLE)) / "_delta_log" / f"{version:020}.json"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        for line in lines:
            if "commitInfo" in line:
                then = datetime.now(UTC) - ago * DAY
                line["commitInfo"]["timestamp"] = int(then.timestamp() * 1000)
        path.write_text("\n".join(map(json.dumps, lines)))


def test_exactly_the_needed_and_the_newest_versions_stay(lake: Lake) -> None:
    before = corrected(lake, 12, count=1000)

    found = cleaned(lake, 3, 7)

    # Version 0 is what all others hold of Monday; it has no file of its own.
    assert readable(lake) == [0, 3, 7, 11]
    assert (found.versions_kept, found.oldest_readable) == ((3, 7), 11)
    assert (found.files_before, found.files_after) == (12, 4)
    assert found.bytes_after < found.bytes_before
    on_disk = sum(file.stat().st_size for file in Path(lake.uri(TABLE)).rglob("*.*"))
    assert found.bytes_after == on_disk
    for version in (3, 7, 11):
        again = lake.read(TABLE, MONDAY, TUESDAY, version=version)
        pd.testing.assert_frame_equal(again, before[version])


def test_doing_it_again_changes_nothing(lake: Lake) -> None:
    corrected(lake, 30)
    cleaned(lake, 3)
    before = {file.path: file.size for file in lake.stored(TABLE)}

    again = cleaned(lake, 3)

    assert {file.path: file.size for file in lake.stored(TABLE)} == before
    assert (again.bytes_before, again.files_before) == (again.bytes_after, again.files_after)
    assert lake.version(TABLE) == 29


def test_the_history_itself_stays_whole(lake: Lake) -> None:
    corrected(lake, 25)
    before = lake.log(TABLE)

    cleaned(lake)

    assert lake.log(TABLE) == before
    log = Path(lake.uri(TABLE)) / "_delta_log"
    assert len(list(log.glob("*.json"))) == 25
    assert list(log.glob("*.checkpoint.parquet"))
    assert lake.read(TABLE, MONDAY, TUESDAY)["amount"].to_list() == [0, 0, 24, 24]


def test_a_removed_version_is_told_with_the_oldest_that_can_be_read(lake: Lake) -> None:
    corrected(lake, 6)

    cleaned(lake, 4)

    with pytest.raises(LakeError, match=r"version 2 .* was cleaned up.*after it is 4\."):
        lake.read(TABLE, MONDAY, TUESDAY, version=2)


def test_what_stood_since_the_instant_stays_readable(lake: Lake) -> None:
    corrected(lake, 6)
    age(lake, 90)
    age_log(lake, 60, 50, 40, 20, 10, 5)

    found = cleaned(lake, days=30)

    assert readable(lake) == [0, 2, 3, 4, 5]  # version 2 stood until 20 days ago
    assert found.oldest_readable == 2


def test_a_replaced_file_stays_though_checkpoints_have_forgotten_its_removal(lake: Lake) -> None:
    """The reason why Delta's own VACUUM is not used here."""
    from deltalake import write_deltalake

    quick = {"delta.deletedFileRetentionDuration": "interval 0 seconds"}
    write_deltalake(
        lake.uri(TABLE),
        rows(MONDAY, 0),
        partition_by=["day"],
        configuration={**quick, "delta.enableExpiredLogCleanup": "false"},
    )
    lake.write(TABLE, rows(MONDAY, 1), MONDAY, MONDAY)
    lake.checkpoint(TABLE)
    age(lake, 60, file=f"day={MONDAY}/*")
    age_log(lake, 60, 8)

    vacuum = DeltaTable(lake.uri(TABLE)).vacuum(
        retention_hours=30 * 24, enforce_retention_duration=False, dry_run=True, full=True
    )
    cleaned(lake, days=30)

    assert set(vacuum) == lake.files(TABLE, version=0)
    assert lake.read(TABLE, MONDAY, MONDAY, version=0)["amount"].to_list() == [0, 0]


def test_what_writers_may_be_about_to_commit_stays_and_what_killed_ones_left_goes(
    lake: Lake,
) -> None:
    corrected(lake, 2)
    folder = Path(lake.uri(TABLE))
    old, half, commit, young = (
        folder / f"day={MONDAY}" / "part-old.parquet",
        folder / f"day={MONDAY}" / "part-half.parquet#1",
        folder / "_delta_log" / "_commit_0001.json.tmp",
        folder / f"day={MONDAY}" / "part-young.parquet",
    )
    for file in (old, half, commit, young):
        file.write_bytes(b"x")
    then = (datetime.now(UTC) - 40 * DAY).timestamp()
    for file in (old, half, commit):
        os.utime(file, (then, then))

    cleaned(lake, days=30)

    assert [file.exists() for file in (old, half, commit, young)] == [False, False, False, True]
    assert readable(lake) == [0, 1]


def test_many_files_of_a_day_become_one_and_older_versions_stay_needed(lake: Lake) -> None:
    for amount in range(6):
        lake.append(TABLE, rows(MONDAY, amount, count=1))
    before = lake.read(TABLE, MONDAY, MONDAY, version=2)

    found = cleaned(lake, 2)

    assert (found.files_before, found.files_after) == (6, 4)
    assert len(lake.files(TABLE)) == 1
    pd.testing.assert_frame_equal(lake.read(TABLE, MONDAY, MONDAY, version=2), before)
    assert sorted(lake.read(TABLE, MONDAY, MONDAY)["amount"]) == list(range(6))


def test_nothing_is_removed_when_files_of_a_needed_version_are_lost(lake: Lake) -> None:
    corrected(lake, 6)
    [lost] = lake.files(TABLE, TUESDAY, TUESDAY, version=3)
    lake.remove(TABLE, [lost])
    before = {file.path for file in lake.stored(TABLE)}

    with pytest.raises(LakeError, match=r"files of version 3 of claims/features are lost"):
        cleaned(lake, 3)

    assert {file.path for file in lake.stored(TABLE)} == before


def test_versions_that_the_table_never_had_are_passed_over(lake: Lake) -> None:
    corrected(lake, 3)

    assert cleaned(lake, 1, 900).versions_kept == (1,)


def test_an_earlier_stricter_clean_up_is_not_forgotten(lake: Lake) -> None:
    corrected(lake, 5)
    cleaned(lake)

    found = cleaned(lake, days=30)

    assert found.oldest_readable == 4


def test_it_works_through_a_url_as_it_does_in_a_folder(lake: Lake) -> None:
    corrected(lake, 6)
    by_url = Lake(url=f"file://{lake.url}", storage_options={}, attempts=8)

    found = cleaned(by_url, 2)

    assert by_url.tables() == [TABLE]
    assert (found.files_before, found.files_after) == (6, 3)
    assert readable(lake) == [0, 2, 5]


def test_readers_are_not_disturbed(lake: Lake) -> None:
    """They may have opened a version that is replaced, and cleaned up, before they read it."""
    corrected(lake, 2)
    stop, failures, read = threading.Event(), [], [0]

    def reader() -> None:
        while not stop.is_set():
            try:
                amounts = lake.read(TABLE, MONDAY, TUESDAY)["amount"].to_list()
            except Exception as error:
                failures.append(error)
                return
            if amounts[:2] != [0, 0] or amounts[2] != amounts[3]:
                failures.append(AssertionError(amounts))
            read[0] += 1

    thread = threading.Thread(target=reader)
    thread.start()
    for amount in range(60):
        lake.write(TABLE, rows(TUESDAY, amount), TUESDAY, TUESDAY)
        cleaned(lake)
    stop.set()
    thread.join()

    assert failures == []
    assert read[0] > 0


def test_a_read_goes_on_with_the_newer_version_when_its_own_is_cleaned_up(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrected(lake, 2)
    scan = Lake._scan
    overtaken = []

    def overtake_once(*arguments: object) -> pd.DataFrame:
        if not overtaken:
            overtaken.append(True)
            lake.write(TABLE, rows(TUESDAY, 9), TUESDAY, TUESDAY)
            cleaned(lake)
        return scan(*arguments)

    monkeypatch.setattr(Lake, "_scan", overtake_once)

    found = lake.read(TABLE, TUESDAY, TUESDAY)

    assert found["amount"].to_list() == [9, 9]
    assert found.attrs["table_version"] == 2
