"""From the warehouse to features, through real runs."""

from typing import Any

import pandas as pd
import pytest

from ml_assets.runs import RunFailed
from ml_assets.use_cases.claims.delivery import TABLE
from ml_assets_tests.conftest import Platform

MONDAY, TUESDAY, WEDNESDAY = "2026-01-05", "2026-01-06", "2026-01-07"


@pytest.fixture
def arrived(platform: Platform) -> Platform:
    platform.arrive(MONDAY, WEDNESDAY)
    return platform


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


def test_a_day_all_bad_fails_loudly_and_writes_nothing(arrived: Platform) -> None:
    arrived.run("ingestion", MONDAY)
    arrived.replace_day(TUESDAY, with_all("marital_status", "Z"))

    with pytest.raises(RunFailed, match=r"2026-01-06: 100\.0% .*unknown_category in marital_stat"):
        arrived.run("ingestion", MONDAY, TUESDAY)

    assert arrived.lake.rows_per_day("claims/raw").keys() == {MONDAY}
    assert arrived.lake.rows_per_day("claims/quarantine").keys() <= {MONDAY}
    assert arrived.lake.rows_per_day("claims/extraction") == {MONDAY: 1}


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
    import dagster as dg

    arrived.replace_day(TUESDAY, lambda rows: rows.head(int(len(rows) * share)))

    arrived.run("ingestion", TUESDAY)

    key = dg.AssetCheckKey(dg.AssetKey(["claims", "extraction"]), "volume_as_expected")
    record = arrived.instance.get_latest_asset_check_evaluation_record(key)
    assert record is not None
    evaluation = record.evaluation
    assert evaluation.passed is passed
    assert (TUESDAY in evaluation.metadata["unusual"].value) is not passed


def test_an_extraction_waits_for_another_process_and_reads_after_it(arrived: Platform) -> None:
    import threading

    from filelock import FileLock

    with FileLock(arrived.environment.home / "claims_extraction.lock"):
        run = threading.Thread(target=arrived.run, args=("ingestion", TUESDAY))
        run.start()
        run.join(timeout=2)
        assert run.is_alive()
        assert arrived.lake.rows_per_day("claims/raw") == {}
        # What the source says in the meantime is what the run must read.
        arrived.replace_day(TUESDAY, lambda rows: rows.assign(income=12_345))
    run.join(timeout=60)

    assert arrived.table("raw", TUESDAY)["income"].unique().tolist() == [12_345]
