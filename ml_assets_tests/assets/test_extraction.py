"""From the warehouse to features, through real runs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.runs import RunFailed, run_days
from ml_assets.use_cases.claims.delivery import TABLE
from ml_assets_tests.conftest import Platform

MONDAY, TUESDAY, WEDNESDAY = "2026-01-05", "2026-01-06", "2026-01-07"


@pytest.fixture
def arrived(platform: Platform) -> Platform:
    platform.arrive(MONDAY, WEDNESDAY)
    return platform


def change_table(platform: Platform, statement: str) -> None:
    import duckdb

    with duckdb.connect(platform.warehouse.url.removeprefix("duckdb:///")) as connection:
        connection.execute(statement)


def with_query(platform: Platform, change: Callable[[str], str]) -> Platform:
    """The platform with another source query."""
    file = platform.environment.home / "source.sql"
    file.write_text(change(platform.use_case.query))
    # The contract's files are looked for beside the query.
    for name in ("schema.py", "use_case.py"):
        (file.parent / name).write_text("")
    return Platform(
        platform.environment, platform.instance, replace(platform.use_case, query_file=file)
    )


def features_after_check(platform: Platform, day: str) -> None:
    """Run the account's check on the tables as they are, and features if it lets them."""
    check = dg.AssetCheckKey(dg.AssetKey(["claims", "raw"]), "every_row_accounted")
    job = dg.define_asset_job(
        "features_after_check",
        selection=dg.AssetSelection.assets(["claims", "features"])
        | dg.AssetSelection.checks(check),
    )
    definitions = dg.Definitions.merge(platform.definitions, dg.Definitions(jobs=[job]))
    run_days(definitions, platform.instance, "features_after_check", day, day)


def evaluation(platform: Platform, check: str, stage: str) -> dg.AssetCheckEvaluation:
    """The newest outcome of a check."""
    key = dg.AssetCheckKey(dg.AssetKey(["claims", stage]), check)
    record = platform.instance.get_latest_asset_check_evaluation_record(key)
    assert record is not None
    return record.evaluation


def with_all(column: str, value: Any) -> Any:
    return lambda rows: rows.assign(**{column: value})


def test_a_range_of_days_gives_what_the_days_give_one_by_one(
    arrived: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    arrived.run("ingestion", MONDAY, WEDNESDAY)
    together = {
        stage: arrived.table(stage, MONDAY, WEDNESDAY)
        for stage in ("raw", "quarantine", "extraction", "features")
    }
    for day in (MONDAY, TUESDAY, WEDNESDAY):
        arrived.run("ingestion", day)

    for stage, frame in together.items():
        assert frame.attrs["table_version"] == 0
        assert arrived.table(stage, MONDAY, WEDNESDAY).attrs["table_version"] == 0, stage
        assert sorted(frame["day"].unique()) <= [MONDAY, TUESDAY, WEDNESDAY]
    assert together["features"]["day"].nunique() == 3


def test_rows_read_are_kept_quarantined_or_dropped(arrived: Platform) -> None:
    arrived.replace_day(TUESDAY, lambda rows: rows.assign(age=rows["age"].where(rows.index > 2, 7)))

    arrived.run("ingestion", MONDAY, WEDNESDAY)

    account = arrived.table("extraction", TUESDAY).iloc[0]
    quarantine = arrived.table("quarantine", TUESDAY)
    raw = arrived.table("raw", TUESDAY)
    assert (quarantine["column"] == "age").sum() == 3
    assert account["rows_quarantined"] == len(quarantine)
    assert account["rows_kept"] == len(raw) == len(arrived.table("features", TUESDAY))
    assert account["rows_read"] == len(raw) + len(quarantine) + account["duplicates_dropped"]


def test_features_drop_what_no_model_sees(arrived: Platform) -> None:
    arrived.run("ingestion", MONDAY)

    raw, features = arrived.table("raw", MONDAY), arrived.table("features", MONDAY)
    assert set(raw) - set(features) == {"family_history_3", "employment_type"}
    assert raw["family_history_3"].isna().mean() > 0.5


def test_a_day_without_rows_is_an_empty_partition(arrived: Platform) -> None:
    arrived.run("ingestion", "2026-01-04")

    assert arrived.table("extraction", "2026-01-04")["rows_read"].tolist() == [0]
    assert arrived.table("raw", "2026-01-04").empty
    assert arrived.table("features", "2026-01-04").empty


def test_a_day_all_bad_lies_in_quarantine_and_holds_back_what_follows(arrived: Platform) -> None:
    arrived.run("ingestion", MONDAY, TUESDAY)
    features = arrived.table("features", TUESDAY)
    arrived.replace_day(TUESDAY, with_all("marital_status", "Z"))

    with pytest.raises(
        RunFailed, match=r"(?s)2026-01-06: 100\.0% .*unknown_category in marital_stat.*replay"
    ):
        arrived.run("ingestion", TUESDAY)

    account = arrived.table("extraction", TUESDAY).iloc[0]
    assert account["rows_kept"] == 0
    assert len(arrived.table("quarantine", TUESDAY)) == account["rows_quarantined"] > 100
    pd.testing.assert_frame_equal(arrived.table("features", TUESDAY), features)


@pytest.mark.parametrize("stage", ["raw", "quarantine", "extraction"])
def test_rows_that_nobody_accounts_for_hold_back_what_follows(
    arrived: Platform, stage: str
) -> None:
    arrived.replace_day(TUESDAY, lambda rows: rows.assign(age=rows["age"].where(rows.index > 2, 7)))
    arrived.run("ingestion", TUESDAY)
    features = arrived.table("features", TUESDAY)
    table = arrived.table(stage, TUESDAY)
    lost = table.iloc[1:] if stage != "extraction" else table.assign(duplicates_dropped=5_000)
    arrived.lake.write(f"claims/{stage}", lost, TUESDAY, TUESDAY)

    assert evaluation(arrived, "every_row_accounted", "raw").passed
    with pytest.raises(RunFailed, match=r"(?s)2026-01-06: .* rows read, .*Materialise these days"):
        features_after_check(arrived, TUESDAY)

    assert not evaluation(arrived, "every_row_accounted", "raw").passed
    assert arrived.table("features", TUESDAY).attrs == features.attrs
    arrived.run("ingestion", TUESDAY)
    assert evaluation(arrived, "every_row_accounted", "raw").passed


def test_a_new_column_is_reported_and_ignored(arrived: Platform) -> None:
    change_table(arrived, f"ALTER TABLE {TABLE} ADD COLUMN shoe_size INTEGER DEFAULT 42")
    other = with_query(arrived, lambda query: query.replace("age,", "age, shoe_size,"))

    other.run("ingestion", MONDAY)

    assert other.metadata("raw", MONDAY)["columns_ignored"] == ["shoe_size"]
    assert "shoe_size" not in other.table("raw", MONDAY)


def test_a_missing_optional_column_is_reported_and_all_missing(arrived: Platform) -> None:
    other = with_query(arrived, lambda query: query.replace("employment_type", "NULL AS nothing"))

    other.run("ingestion", MONDAY)

    assert other.metadata("raw", MONDAY)["columns_absent"] == ["employment_type"]
    assert other.table("raw", MONDAY)["employment_type"].isna().all()


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("bmi,", "", r"bmi .*8 to 80 .*no such column"),
        ("bmi,", "bmi AS body_mass_index,", r"bmi.*body_mass_index"),
        ("bmi,", "'heavy' AS bmi,", r"bmi.*heavy"),
    ],
    ids=["missing", "renamed", "changed type"],
)
def test_a_source_that_breaks_the_contract_fails_side_by_side_and_nothing_is_written(
    arrived: Platform, before: str, after: str, told: str
) -> None:
    other = with_query(arrived, lambda query: query.replace(before, after))

    with pytest.raises(RunFailed, match=f"(?s)expected.*found.*(?:{told})"):
        other.run("ingestion", MONDAY)

    assert other.lake.rows_per_day("claims/raw") == {}


def test_rows_in_quarantine_tell_when_and_by_which_run_they_were_put_aside(
    arrived: Platform,
) -> None:
    arrived.replace_day(TUESDAY, lambda rows: rows.assign(age=rows["age"].where(rows.index > 2, 7)))
    arrived.run("ingestion", TUESDAY)
    first = arrived.table("quarantine", TUESDAY)
    assert first["run_id"].nunique() == 1
    assert first["quarantined_at"].notna().all()

    arrived.replace_day(
        TUESDAY, lambda rows: rows.assign(age=rows["age"].where(rows.index != 5, 8))
    )
    arrived.run("ingestion", TUESDAY)

    second = arrived.table("quarantine", TUESDAY)
    assert len(second) == len(first) + 1
    assert second["run_id"].nunique() == 2
    both = second.merge(first, on=list(first.columns))
    assert len(both) == len(first), "rows that were there before keep when and by which run"


def test_a_failed_day_is_mended_by_the_next_ordinary_run(arrived: Platform) -> None:
    status = []

    def break_it(rows: pd.DataFrame) -> pd.DataFrame:
        status.append(rows["marital_status"])
        return rows.assign(marital_status="Z")

    arrived.replace_day(TUESDAY, break_it)
    with pytest.raises(RunFailed):
        arrived.run("ingestion", TUESDAY)
    arrived.replace_day(TUESDAY, lambda rows: rows.assign(marital_status=status[0]))

    arrived.run("ingestion", TUESDAY)

    assert len(arrived.table("raw", TUESDAY)) > 100


def test_a_corrected_day_replaces_its_rows_and_no_others(arrived: Platform) -> None:
    arrived.run("ingestion", MONDAY, WEDNESDAY)
    monday = arrived.table("raw", MONDAY)
    arrived.replace_day(TUESDAY, lambda rows: rows.assign(income=12_345))

    arrived.run("ingestion", TUESDAY)

    assert arrived.table("features", TUESDAY)["income"].unique().tolist() == [12_345]
    pd.testing.assert_frame_equal(arrived.table("raw", MONDAY), monday)


@pytest.mark.parametrize("missing", ["table", "column"])
def test_a_source_that_lacks_something_is_named_and_nothing_is_written(
    arrived: Platform, missing: str
) -> None:
    import duckdb

    with duckdb.connect(arrived.warehouse.url.removeprefix("duckdb:///")) as connection:
        what = {"table": f"DROP TABLE {TABLE}", "column": f"ALTER TABLE {TABLE} DROP height_cm"}
        connection.execute(what[missing])

    told = {"table": "ds_dataset.*Check the table's name", "column": "height_cm.*Compare the"}
    with pytest.raises(RunFailed, match=f"(?s){told[missing]}"):
        arrived.run("ingestion", MONDAY)
    assert arrived.lake.rows_per_day("claims/raw") == {}


def test_a_warehouse_that_is_not_there_is_named_with_the_remedy(platform: Platform) -> None:
    with pytest.raises(RunFailed, match=r"warehouse\.duckdb does not exist.*ml-assets demo"):
        platform.run("ingestion", MONDAY)


def test_a_lake_that_cannot_be_written_is_named_with_the_remedy(arrived: Platform) -> None:
    (arrived.environment.home / "lake").write_text("a file where the folder should be")

    with pytest.raises(RunFailed, match=r"(?s)claims/raw cannot be .*/lake"):
        arrived.run("ingestion", MONDAY)


def test_a_day_before_the_start_date_is_refused(arrived: Platform) -> None:
    with pytest.raises(RunFailed, match=r"2025-12-31.*2026-01-01"):
        arrived.run("ingestion", "2025-12-31")


def test_each_day_of_a_range_has_metadata_of_its_own(arrived: Platform) -> None:
    arrived.run("ingestion", MONDAY, WEDNESDAY)

    for day in (MONDAY, TUESDAY, WEDNESDAY):
        raw = arrived.metadata("raw", day)
        account = arrived.table("extraction", day).iloc[0]
        assert raw["rows_read"] == account["rows_read"]
        assert raw["rows_kept"] == len(arrived.table("raw", day))
        assert raw["table_version"] == 0
        assert raw["dagster/row_count"] == account["rows_kept"]
        assert raw["size_bytes"] > 1000
        assert "application_id" in raw["preview"]
        assert arrived.metadata("features", day)["dagster/row_count"] == account["rows_kept"]


@pytest.mark.parametrize(("share", "passed"), [(1.0, True), (0.3, False)])
def test_the_volume_check_warns_of_an_unusual_day(
    arrived: Platform, share: float, passed: bool
) -> None:
    arrived.replace_day(TUESDAY, lambda rows: rows.head(int(len(rows) * share)))

    arrived.run("ingestion", TUESDAY)

    found = evaluation(arrived, "volume_as_expected", "extraction")
    assert found.passed is passed
    assert (TUESDAY in found.metadata["unusual"].value) is not passed


def test_an_extraction_waits_for_another_process_and_reads_after_it(arrived: Platform) -> None:
    import threading

    from ml_assets.locks import tables_lock

    with tables_lock(arrived.environment.home, "claims"):
        run = threading.Thread(target=arrived.run, args=("ingestion", TUESDAY))
        run.start()
        run.join(timeout=2)
        assert run.is_alive()
        assert arrived.lake.rows_per_day("claims/raw") == {}
        # What the source says in the meantime is what the run must read.
        arrived.replace_day(TUESDAY, lambda rows: rows.assign(income=12_345))
    run.join(timeout=60)

    assert arrived.table("raw", TUESDAY)["income"].unique().tolist() == [12_345]
