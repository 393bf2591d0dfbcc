import json
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from ml_assets.partitions import days_between
from ml_assets.resources.lake import Lake, LakeError

TABLE = "claims/features"
MONDAY, TUESDAY, WEDNESDAY, THURSDAY = days_between(date(2026, 1, 5), date(2026, 1, 8))


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return lake_in(tmp_path / "lake")


def lake_in(folder: Path) -> Lake:
    return Lake(url=str(folder), storage_options={}, attempts=8)


def rows(*days: str, count: int = 2, amount: float = 0.5) -> pd.DataFrame:
    names = [(day, f"{day}/{number}") for day in days for number in range(count)]
    frame = pd.DataFrame(names, columns=["day", "id"], dtype=object)
    return frame.assign(
        received_at=pd.to_datetime(frame["day"], utc=True).astype("datetime64[us, UTC]"),
        amount=float(amount),
        outcome=pd.Series([1, None] * len(frame), dtype="Int8").iloc[: len(frame)],
        note=pd.Series([None] * len(frame), dtype=object),
    )


def assert_holds(lake: Lake, *expected: pd.DataFrame) -> None:
    found = lake.read(TABLE, "2000-01-01", "2100-01-01")
    pd.testing.assert_frame_equal(found, pd.concat(expected, ignore_index=True))


def test_what_was_written_is_read_again(lake: Lake) -> None:
    written = lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)

    found = lake.read(TABLE, MONDAY, MONDAY)

    pd.testing.assert_frame_equal(found, rows(MONDAY))
    assert found.attrs["table_version"] == written.version
    assert (written.rows, written.changed) == (2, True)
    assert written.bytes > 0


def test_the_size_of_a_write_counts_its_days_alone(lake: Lake) -> None:
    first = lake.write(TABLE, rows(MONDAY, count=5), MONDAY, MONDAY)
    second = lake.write(TABLE, rows(TUESDAY, count=3), TUESDAY, TUESDAY)

    files = list(Path(lake.uri(TABLE)).glob(f"day={TUESDAY}/*.parquet"))

    assert (first.rows, second.rows) == (5, 3)
    assert second.bytes == sum(file.stat().st_size for file in files)


def test_a_range_is_read_with_both_ends_and_nothing_else(lake: Lake) -> None:
    week = rows(MONDAY, TUESDAY, WEDNESDAY, THURSDAY)
    lake.write(TABLE, week, MONDAY, THURSDAY)

    found = lake.read(TABLE, TUESDAY, WEDNESDAY)

    pd.testing.assert_frame_equal(found, rows(TUESDAY, WEDNESDAY))


def test_a_window_with_gaps_gives_the_days_that_are_there(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)
    lake.write(TABLE, rows(THURSDAY), THURSDAY, THURSDAY)

    assert_holds(lake, rows(MONDAY), rows(THURSDAY))
    assert lake.read(TABLE, TUESDAY, WEDNESDAY).empty


def test_rows_come_ordered_by_day_and_key_however_they_were_written(lake: Lake) -> None:
    lake.write(TABLE, rows(WEDNESDAY).iloc[::-1], WEDNESDAY, WEDNESDAY)
    lake.write(TABLE, rows(MONDAY, TUESDAY).sample(frac=1, random_state=1), MONDAY, TUESDAY)

    assert_holds(lake, rows(MONDAY, TUESDAY, WEDNESDAY))


def test_only_the_wanted_columns_are_read_in_the_wanted_order(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)

    found = lake.read(TABLE, MONDAY, MONDAY, columns=["amount", "day"])

    pd.testing.assert_frame_equal(found, rows(MONDAY)[["amount", "day"]])


def test_columns_may_leave_out_the_day_and_the_key(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY)

    found = lake.read(TABLE, TUESDAY, TUESDAY, columns=["amount"])

    assert list(found) == ["amount"]
    assert len(found) == 2


def test_an_overwrite_replaces_exactly_its_days_in_one_commit(lake: Lake) -> None:
    before = lake.write(TABLE, rows(MONDAY, TUESDAY, WEDNESDAY, THURSDAY), MONDAY, THURSDAY).version

    after = lake.write(TABLE, rows(TUESDAY, WEDNESDAY, amount=9), TUESDAY, WEDNESDAY)

    assert after.version == before + 1
    assert after.changed
    assert_holds(lake, rows(MONDAY), rows(TUESDAY, WEDNESDAY, amount=9), rows(THURSDAY))


def test_an_overwrite_drops_rows_and_days_that_are_gone(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY, TUESDAY, count=3), MONDAY, TUESDAY)

    lake.write(TABLE, rows(MONDAY, count=1), MONDAY, TUESDAY)

    assert_holds(lake, rows(MONDAY, count=1))


def test_the_same_content_is_not_written_again(lake: Lake) -> None:
    first = lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY)

    again = lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY)

    assert (again.version, again.changed) == (first.version, False)
    assert (again.rows, again.bytes) == (first.rows, first.bytes)


def test_the_same_rows_in_another_order_are_the_same_content(lake: Lake) -> None:
    first = lake.write(TABLE, rows(MONDAY, TUESDAY, count=9), MONDAY, TUESDAY)

    shuffled = rows(MONDAY, TUESDAY, count=9).sample(frac=1, random_state=1)
    again = lake.write(TABLE, shuffled, MONDAY, TUESDAY)

    assert (again.version, again.changed) == (first.version, False)


@pytest.mark.parametrize(
    ("column", "value"), [("amount", 0.25), ("outcome", 0), ("note", "text"), ("id", "other")]
)
def test_one_changed_value_is_another_content(lake: Lake, column: str, value: object) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)
    changed = rows(MONDAY)
    changed.loc[1, column] = value

    assert lake.write(TABLE, changed, MONDAY, MONDAY).changed
    pd.testing.assert_frame_equal(
        lake.read(TABLE, MONDAY, MONDAY), changed.sort_values("id", ignore_index=True)
    )


def test_a_row_more_of_the_same_is_another_content(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY, count=1), MONDAY, MONDAY)

    twice = pd.concat([rows(MONDAY, count=1)] * 2, ignore_index=True)

    assert lake.write(TABLE, twice, MONDAY, MONDAY).rows == 2


def test_an_empty_day_replaces_its_rows(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY)

    emptied = lake.write(TABLE, rows(), TUESDAY, TUESDAY)
    again = lake.write(TABLE, rows(), TUESDAY, TUESDAY)

    assert (emptied.rows, emptied.bytes, emptied.changed) == (0, 0, True)
    assert (again.version, again.changed) == (emptied.version, False)
    assert_holds(lake, rows(MONDAY))


def test_a_table_may_begin_with_an_empty_day(lake: Lake) -> None:
    lake.write(TABLE, rows(), MONDAY, MONDAY)

    assert lake.rows_per_day(TABLE) == {}
    pd.testing.assert_frame_equal(lake.read(TABLE, MONDAY, MONDAY), rows())

    lake.write(TABLE, rows(TUESDAY), TUESDAY, TUESDAY)

    assert_holds(lake, rows(TUESDAY))


@pytest.mark.parametrize("day", [TUESDAY, None])
def test_rows_outside_the_days_are_refused_and_nothing_is_written(
    lake: Lake, day: str | None
) -> None:
    version = lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY).version
    stray = rows(MONDAY, count=3, amount=7)
    stray.loc[1, "day"] = day

    with pytest.raises(ValueError, match=rf"{TABLE}: rows of {day} in a write of {MONDAY}"):
        lake.write(TABLE, stray, MONDAY, MONDAY)

    assert_holds(lake, rows(MONDAY))
    assert lake.read(TABLE, MONDAY, MONDAY).attrs["table_version"] == version


def test_an_older_version_stays_readable(lake: Lake) -> None:
    old = lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY).version
    lake.write(TABLE, rows(MONDAY, amount=9), MONDAY, MONDAY)

    found = lake.read(TABLE, MONDAY, MONDAY, version=old)

    pd.testing.assert_frame_equal(found, rows(MONDAY))
    assert found.attrs["table_version"] == old


def test_a_version_that_does_not_exist_is_named(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)

    with pytest.raises(
        LakeError, match=rf"{TABLE} at version 7 cannot be opened.*newest version is 0"
    ):
        lake.read(TABLE, MONDAY, MONDAY, version=7)


def test_the_newest_row_is_that_of_the_last_day_or_of_the_last_before_one(lake: Lake) -> None:
    assert lake.newest(TABLE) is None
    for day in (MONDAY, TUESDAY):
        lake.write(TABLE, rows(day, count=1), day, day)

    newest, before = lake.newest(TABLE), lake.newest(TABLE, before=TUESDAY)

    assert newest is not None
    assert before is not None
    assert (newest["day"], before["day"]) == (TUESDAY, MONDAY)
    assert lake.newest(TABLE, before=MONDAY) is None


@pytest.mark.slow  # two hundred commits
def test_an_old_version_stays_readable_for_ever(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)

    for place in range(210):
        lake.append(TABLE, rows(TUESDAY, count=1, amount=place))
        if place == 105:  # as if this had been two months ago: Delta cleans up at checkpoints
            for file in (Path(lake.uri(TABLE)) / "_delta_log").iterdir():
                os.utime(file, (0, 0))

    assert len(lake.read(TABLE, MONDAY, TUESDAY, version=5)) == 2 + 5


def test_a_missing_table_is_named_with_the_remedy(lake: Lake) -> None:
    with pytest.raises(LakeError, match=rf"{TABLE} does not exist in .*Materialise the asset"):
        lake.read(TABLE, MONDAY, MONDAY)

    assert lake.rows_per_day(TABLE) == {}


def test_a_missing_column_is_named_beside_those_there_are(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)

    with pytest.raises(LakeError) as refused:
        lake.read(TABLE, MONDAY, MONDAY, columns=["day", "shoe_size"])

    assert f"the table {TABLE} has no column ['shoe_size']" in str(refused.value)
    assert "'amount'" in str(refused.value)


def test_a_file_in_the_place_of_the_folder_is_told_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("not a folder")

    with pytest.raises(LakeError) as refused:
        lake_in(tmp_path / "lake").write(TABLE, rows(MONDAY), MONDAY, MONDAY)

    assert f"the table {TABLE} cannot be written below {tmp_path / 'lake'}" in str(refused.value)
    assert "this user may write there" in str(refused.value)
    assert (tmp_path / "lake").read_text() == "not a folder"


def test_a_write_that_fails_midway_leaves_the_table_as_it_was(lake: Lake) -> None:
    version = lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY).version
    in_the_way = Path(lake.uri(TABLE)) / f"day={WEDNESDAY}"
    in_the_way.write_text("not a folder")

    with pytest.raises(LakeError, match="cannot be written"):
        lake.write(TABLE, rows(MONDAY, WEDNESDAY, amount=9), MONDAY, WEDNESDAY)

    assert_holds(lake, rows(MONDAY))
    in_the_way.unlink()
    assert (
        lake.write(TABLE, rows(MONDAY, WEDNESDAY, amount=9), MONDAY, WEDNESDAY).version
        == version + 1
    )
    assert_holds(lake, rows(MONDAY, WEDNESDAY, amount=9))


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"x"), Path.unlink])
def test_a_broken_file_is_told_and_mended_by_writing_its_day_again(lake: Lake, damage) -> None:
    lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY)
    for file in Path(lake.uri(TABLE)).glob(f"day={MONDAY}/*.parquet"):
        damage(file)

    with pytest.raises(LakeError, match=rf"{TABLE} cannot be read: .*materialise the asset again"):
        lake.read(TABLE, MONDAY, MONDAY)
    pd.testing.assert_frame_equal(lake.read(TABLE, TUESDAY, TUESDAY), rows(TUESDAY))

    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)

    assert_holds(lake, rows(MONDAY, TUESDAY))


def test_a_broken_log_is_told(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)
    for file in (Path(lake.uri(TABLE)) / "_delta_log").glob("*.json"):
        file.write_bytes(b"x")

    with pytest.raises(LakeError, match=rf"the table {TABLE} cannot be opened"):
        lake.rows_per_day(TABLE)


def test_secrets_in_the_url_are_not_told(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("not a folder")
    lake = Lake(
        url=f"{tmp_path}/lake/x?password=s3cr3t",
        storage_options={},
        attempts=1,
    )

    with pytest.raises(LakeError) as refused:
        lake.read(TABLE, MONDAY, MONDAY)

    assert "s3cr3t" not in str(refused.value)


def _write_five_days(folder: Path, writer: int) -> None:
    lake = lake_in(folder)
    for day in days_of(writer):
        lake.write(TABLE, rows(day, amount=writer), day, day)


def days_of(writer: int) -> list[str]:
    return [f"2026-{writer:02d}-{day:02d}" for day in range(1, 6)]


@pytest.mark.parametrize("is_new", [True, False])
def test_writers_of_different_days_lose_nothing(tmp_path: Path, is_new: bool) -> None:
    lake = lake_in(tmp_path)
    if not is_new:
        lake.write(TABLE, rows("2025-01-01"), "2025-01-01", "2025-01-01")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda writer: _write_five_days(tmp_path, writer), range(1, 5)))

    expected = [rows(day, amount=writer) for writer in range(1, 5) for day in days_of(writer)]
    assert_holds(lake, *([] if is_new else [rows("2025-01-01")]), *expected)


@pytest.mark.slow
def test_writing_processes_of_different_days_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")

    with ProcessPoolExecutor(4, mp_context=context) as processes:
        list(processes.map(_write_five_days, [tmp_path] * 4, range(1, 5)))

    expected = [rows(day, amount=writer) for writer in range(1, 5) for day in days_of(writer)]
    assert_holds(lake_in(tmp_path), *expected)


def test_of_two_writers_of_one_day_one_wins_whole(lake: Lake) -> None:
    lake.write(TABLE, rows(TUESDAY), TUESDAY, TUESDAY)

    with ThreadPoolExecutor(4) as threads:
        list(
            threads.map(
                lambda writer: lake.write(TABLE, rows(MONDAY, amount=writer), MONDAY, MONDAY),
                range(4),
            )
        )

    found = lake.read(TABLE, MONDAY, MONDAY)
    pd.testing.assert_frame_equal(found, rows(MONDAY, amount=found["amount"].iloc[0]))
    pd.testing.assert_frame_equal(lake.read(TABLE, TUESDAY, TUESDAY), rows(TUESDAY))


def test_rows_are_counted_per_day(lake: Lake) -> None:
    lake.write(TABLE, pd.concat([rows(MONDAY, count=3), rows(TUESDAY)]), MONDAY, TUESDAY)
    lake.write(TABLE, rows(THURSDAY, count=1), THURSDAY, THURSDAY)

    assert lake.rows_per_day(TABLE) == {MONDAY: 3, TUESDAY: 2, THURSDAY: 1}

    lake.write(TABLE, rows(), TUESDAY, TUESDAY)

    assert lake.rows_per_day(TABLE) == {MONDAY: 3, THURSDAY: 1}


def test_tables_of_one_lake_do_not_share_rows(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)
    lake.write("claims/raw", rows(TUESDAY), TUESDAY, TUESDAY)

    assert_holds(lake, rows(MONDAY))
    assert lake.rows_per_day("claims/raw") == {TUESDAY: 2}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"amount": [1.5]}, "amount: .* in the table, .* now"),
        ({"extra": ["x"]}, "extra: absent in the table, string now"),
    ],
)
def test_rows_of_another_shape_are_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, list[object]], told: str
) -> None:
    lake = Lake(url=str(tmp_path), storage_options={}, attempts=2)
    rows = pd.DataFrame({"day": ["2026-01-05"], "amount": [1]})
    lake.write("claims/shape", rows, "2026-01-05", "2026-01-05")

    with pytest.raises(LakeError, match=f"contract of claims/shape has changed .*{told}"):
        lake.write("claims/shape", rows.assign(**change), "2026-01-05", "2026-01-05")

    pd.testing.assert_frame_equal(lake.read("claims/shape", "2026-01-05", "2026-01-05"), rows)


def test_the_log_tells_what_was_written_why_and_by_whom(lake: Lake) -> None:
    note = {"cause": "sensor", "run_id": "run-1"}
    lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, WEDNESDAY, note=note)
    lake.append(TABLE, rows(THURSDAY, count=3), note={"cause": "hand"})

    added, written = lake.log(TABLE)

    assert (written.version, written.operation) == (0, "write")
    assert (written.first_day, written.last_day) == (MONDAY, WEDNESDAY)
    assert (written.cause, written.run_id, written.rows) == ("sensor", "run-1", 4)
    assert (added.version, added.operation, added.cause) == (1, "append", "hand")
    assert (added.first_day, added.last_day, added.rows) == (THURSDAY, THURSDAY, 3)
    assert added.run_id is None
    assert written.at <= added.at <= datetime.now(UTC)
    assert written.readable is None


def test_a_note_comes_back_as_it_went_in(lake: Lake) -> None:
    strange = 'he said "x"\n\'; DROP TABLE \\ {}, ünï 😀'

    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY, note={"cause": strange, "rows_of": "b"})

    assert lake.log(TABLE)[0].cause == strange
    assert_holds(lake, rows(MONDAY))


def test_versions_without_a_note_tell_what_delta_knows(lake: Lake) -> None:
    place = lake.uri(TABLE)
    whole = pa.table({"day": [MONDAY, TUESDAY], "id": ["a", "b"]})
    write_deltalake(place, whole, partition_by=["day"])
    write_deltalake(
        place,
        whole.slice(0, 1),
        mode="overwrite",
        predicate=f"day >= '{MONDAY}' AND day <= '{MONDAY}'",
    )

    newest, oldest = lake.log(TABLE)

    assert (newest.cause, newest.run_id) == (None, None)
    assert (newest.first_day, newest.last_day, newest.rows) == (MONDAY, MONDAY, 1)
    assert (oldest.first_day, oldest.rows) == (None, 2)


def test_a_write_without_news_leaves_no_version(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY, note={"cause": "schedule"})
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY, note={"cause": "sensor"})

    assert [each.cause for each in lake.log(TABLE)] == ["schedule"]


def test_the_log_can_be_asked_for_one_day_and_for_the_newest(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY)
    lake.write(TABLE, rows(WEDNESDAY), WEDNESDAY, WEDNESDAY)
    lake.write(TABLE, rows(TUESDAY, amount=9), TUESDAY, TUESDAY)

    assert [each.version for each in lake.log(TABLE, day=TUESDAY)] == [2, 0]
    assert [each.version for each in lake.log(TABLE, limit=2)] == [2, 1]
    assert lake.log(TABLE, day=THURSDAY) == []


@pytest.mark.slow  # some hundred commits
def test_the_log_is_whole_however_long(lake: Lake) -> None:
    for place in range(150):
        lake.append(TABLE, rows(TUESDAY, count=1, amount=place))

    assert [each.version for each in lake.log(TABLE)] == list(range(149, -1, -1))
    assert lake.version_at(TABLE, lake.log(TABLE)[-1].at) >= 0


def test_the_log_and_a_read_of_an_unknown_table_list_those_there_are(lake: Lake) -> None:
    lake.write("claims/raw", rows(MONDAY), MONDAY, MONDAY)
    lake.write("claims/extraction", rows(MONDAY), MONDAY, MONDAY)

    for asked in (lambda: lake.log(TABLE), lambda: lake.read(TABLE, MONDAY, MONDAY)):
        with pytest.raises(LakeError, match="there are claims/extraction, claims/raw"):
            asked()
    assert lake.tables() == ["claims/extraction", "claims/raw"]


def test_without_tables_there_are_none(lake: Lake) -> None:
    assert lake.tables() == []
    with pytest.raises(LakeError, match="there are no tables yet"):
        lake.log(TABLE)


def test_what_is_no_table_is_not_listed(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)
    (Path(lake.url) / "claims/aside").mkdir()
    (Path(lake.url) / "claims/notes.txt").write_text("x")

    assert lake.tables() == [TABLE]


def stamp(lake: Lake, *instants: str) -> None:
    """Give the versions of the table other times, as if written by other clocks."""
    for version, instant in enumerate(instants):
        file = Path(lake.uri(TABLE)) / "_delta_log" / f"{version:020}.json"
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            if "commitInfo" in line:
                at = datetime.fromisoformat(instant)
                line["commitInfo"]["timestamp"] = int(at.timestamp() * 1000)
        file.write_text("\n".join(map(json.dumps, lines)))


def test_an_instant_gives_the_version_that_stood_then(lake: Lake) -> None:
    for amount in range(3):
        lake.write(TABLE, rows(MONDAY, amount=amount), MONDAY, MONDAY)
    stamp(lake, *(f"2026-02-0{day}T12:00:00+00:00" for day in (1, 2, 3)))

    def amount_at(instant: str) -> float:
        found = lake.read(TABLE, MONDAY, MONDAY, version=datetime.fromisoformat(instant))
        return float(found["amount"].iloc[0])

    assert amount_at("2026-02-01T12:00:00+00:00") == 0
    assert amount_at("2026-02-02T11:59:59+00:00") == 0
    assert amount_at("2026-02-02T13:00:00+01:00") == 1
    assert amount_at("2030-01-01T00:00:00+00:00") == 2
    with pytest.raises(LakeError, match=r"no version at 2026-02-01 11:59:59 UTC yet: its first, 0"):
        amount_at("2026-02-01T11:59:59+00:00")
    with pytest.raises(ValueError, match="no time zone"):
        amount_at("2026-02-02T13:00:00")


def test_a_clock_that_was_ahead_once_does_not_hide_later_versions(lake: Lake) -> None:
    for amount in range(3):
        lake.write(TABLE, rows(MONDAY, amount=amount), MONDAY, MONDAY)
    stamp(
        lake, "2026-02-01T12:00:00+00:00", "2031-01-01T12:00:00+00:00", "2026-02-03T12:00:00+00:00"
    )

    assert lake.version_at(TABLE, datetime(2026, 2, 2, tzinfo=UTC)) == 0
    assert lake.version_at(TABLE, datetime(2026, 2, 4, tzinfo=UTC)) == 2


def test_the_files_of_days_change_with_their_rows_alone(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY)
    monday, tuesday = (lake.files(TABLE, day, day) for day in (MONDAY, TUESDAY))

    lake.write(TABLE, rows(TUESDAY, amount=9), TUESDAY, TUESDAY)

    assert lake.files(TABLE, MONDAY, MONDAY) == monday
    assert lake.files(TABLE, TUESDAY, TUESDAY) != tuesday
    assert lake.files(TABLE, version=0) == monday | tuesday
    assert lake.files("claims/none") == frozenset()


def test_a_version_whose_files_are_gone_is_told_from_a_broken_table(lake: Lake) -> None:
    for amount in range(4):
        lake.write(TABLE, rows(MONDAY, amount=amount), MONDAY, MONDAY)
    lake.remove(TABLE, lake.files(TABLE, version=1) | lake.files(TABLE, version=0))

    with pytest.raises(LakeError) as gone:
        lake.read(TABLE, MONDAY, MONDAY, version=1)

    assert f"version 1 of the table {TABLE} was cleaned up" in str(gone.value)
    assert "The oldest readable version after it is 2." in str(gone.value)
    assert [each.readable for each in lake.log(TABLE, check_files=True)] == [
        True,
        True,
        False,
        False,
    ]
    assert lake.read(TABLE, MONDAY, MONDAY, version=2)["amount"].iloc[0] == 2

    lake.remove(TABLE, lake.files(TABLE))
    with pytest.raises(LakeError, match=r"cannot be read: .*from a backup"):
        lake.read(TABLE, MONDAY, MONDAY)


def test_a_commit_that_breaks_off_leaves_orphans_that_nobody_reads(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)
    in_the_way = Path(lake.uri(TABLE)) / "_delta_log" / f"{1:020}.json"
    in_the_way.mkdir()

    with pytest.raises(LakeError, match=f"{TABLE} cannot be written"):
        lake.write(TABLE, rows(MONDAY, amount=9), MONDAY, MONDAY)

    in_the_way.rmdir()
    assert len([file for file in lake.stored(TABLE) if file.is_data]) > len(lake.files(TABLE))
    assert_holds(lake, rows(MONDAY))
    assert lake.write(TABLE, rows(MONDAY, amount=9), MONDAY, MONDAY).version == 1
    assert_holds(lake, rows(MONDAY, amount=9))


def test_compaction_keeps_the_rows_and_makes_one_file_of_each_day(lake: Lake) -> None:
    for amount in range(3):
        lake.append(TABLE, rows(MONDAY, TUESDAY, count=1, amount=amount))
    before = lake.read(TABLE, MONDAY, TUESDAY)

    lake.compact(TABLE, note={"cause": "schedule"})

    pd.testing.assert_frame_equal(lake.read(TABLE, MONDAY, TUESDAY), before)
    assert len(lake.files(TABLE)) == 2
    newest = lake.log(TABLE)[0]
    assert (newest.version, newest.operation, newest.cause) == (3, "compact", "schedule")
    lake.compact(TABLE)
    assert lake.version(TABLE) == 3
    assert lake.log(TABLE, day=MONDAY)[0].version == 2


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_lake_belongs_to_the_environment_that_wrote_it_first(tmp_path: Path, scheme: str) -> None:
    lake = Lake(url=f"{scheme}{tmp_path}/lake", storage_options={}, attempts=8)
    assert lake.owner() is None
    dev, prod, sharing = (
        replace(lake, owners=owners) for owners in (("dev",), ("prod",), ("prod", "dev"))
    )
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)  # older than the stamps: it is taken over
    assert lake.owner() is None
    dev.write(TABLE, rows(TUESDAY), TUESDAY, TUESDAY)

    for write in (
        lambda: prod.write(TABLE, rows(WEDNESDAY), WEDNESDAY, WEDNESDAY),
        lambda: prod.append(TABLE, rows(WEDNESDAY)),
        lambda: prod.compact(TABLE),
    ):
        with pytest.raises(LakeError, match=r"belongs to dev.*shares: \[dev\.lake\]"):
            write()

    assert prod.owner() == "dev"
    assert_holds(prod, rows(MONDAY), rows(TUESDAY))
    assert sharing.write(TABLE, rows(WEDNESDAY), WEDNESDAY, WEDNESDAY).changed
    assert lake.tables() == [TABLE]
