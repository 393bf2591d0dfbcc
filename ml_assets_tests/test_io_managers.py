import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.assets.common import without_preview_warnings
from ml_assets.failures import cause
from ml_assets.io_managers import LakeIOManager
from ml_assets.locks import tables_lock
from ml_assets.resources.lake import Lake

FIRST, SECOND, THIRD, FOURTH = (f"2026-01-0{day}" for day in range(1, 5))
DAILY = dg.DailyPartitionsDefinition(start_date=FIRST, end_date="2026-01-10")
RAW, FEATURES = dg.AssetKey(["claims", "raw"]), dg.AssetKey(["claims", "features"])


def rows(*days: str) -> pd.DataFrame:
    frame = pd.DataFrame({"day": days, "id": [f"A-{day}" for day in days]}, dtype=object)
    return frame.assign(amount=1.5)


with without_preview_warnings():

    @dg.asset(key=RAW, partitions_def=DAILY, backfill_policy=dg.BackfillPolicy.single_run())
    def raw(context: dg.AssetExecutionContext) -> pd.DataFrame:
        """Has a row for each day but the fourth."""
        return rows(*(day for day in context.partition_keys if day != FOURTH))


class Tables:
    """A lake, an instance, and what the downstream assets were given."""

    def __init__(self, folder: Path) -> None:
        self.lake = Lake(url=str(folder), storage_options={}, attempts=3)
        self.instance = dg.DagsterInstance.ephemeral()
        self.given: list[pd.DataFrame] = []

    def reader(
        self,
        *,
        metadata: Mapping[str, Any] | None = None,
        mapping: dg.PartitionMapping | None = None,
        partitions_def: dg.PartitionsDefinition | None = DAILY,
    ) -> dg.AssetsDefinition:
        with without_preview_warnings():

            @dg.asset(
                key=FEATURES,
                partitions_def=partitions_def,
                backfill_policy=dg.BackfillPolicy.single_run(),
                ins={"given": dg.AssetIn(key=RAW, metadata=metadata, partition_mapping=mapping)},
            )
            def features(given: pd.DataFrame) -> None:
                self.given.append(given)

        return features

    def run(
        self,
        asset: dg.AssetsDefinition,
        first: str | None = None,
        last: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        home: Path | None = None,
        raise_on_error: bool = True,
    ) -> dg.ExecuteInProcessResult:
        others = [] if RAW in asset.keys else [raw]
        tags = dict(tags or {})
        if last:
            tags |= {
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            }
        return dg.materialize(
            [asset, *others],
            selection=[asset],
            partition_key=None if last else first,
            tags=tags,
            instance=self.instance,
            resources={"io_manager": LakeIOManager(self.lake, home)},
            raise_on_error=raise_on_error,
        )

    def stored(self) -> list[str]:
        return self.lake.read("claims/raw", FIRST, "2026-01-31")["day"].to_list()


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(tmp_path)


def test_a_partition_is_stored_below_the_assets_key_and_given_to_the_next_asset(
    tables: Tables,
) -> None:
    tables.run(raw, SECOND)

    tables.run(tables.reader(), SECOND)

    assert tables.stored() == [SECOND]
    pd.testing.assert_frame_equal(tables.given[0], rows(SECOND))


def test_a_run_of_one_day_replaces_that_day_alone(tables: Tables) -> None:
    tables.run(raw, FIRST, THIRD)
    tables.lake.write("claims/raw", rows(SECOND, SECOND), SECOND, SECOND)

    tables.run(raw, SECOND)

    assert tables.stored() == [FIRST, SECOND, THIRD]


def test_a_range_is_written_in_one_commit_and_read_in_one_frame(tables: Tables) -> None:
    result = tables.run(raw, FIRST, THIRD)

    tables.run(tables.reader(), FIRST, THIRD)

    assert metadata_of(result)["table_version"] == 0
    assert len(tables.given) == 1
    pd.testing.assert_frame_equal(tables.given[0], rows(FIRST, SECOND, THIRD))


def test_a_range_inside_the_stored_days_gets_its_own_days_only(tables: Tables) -> None:
    tables.run(raw, FIRST, THIRD)

    tables.run(tables.reader(), SECOND, THIRD)

    assert list(tables.given[0]["day"]) == [SECOND, THIRD]


def test_a_window_gets_the_days_that_are_there(tables: Tables) -> None:
    mapping = dg.TimeWindowPartitionMapping(start_offset=-3, end_offset=-1)
    tables.run(raw, FIRST)
    tables.run(raw, THIRD)
    tables.run(raw, "2026-01-05")

    tables.run(tables.reader(metadata={"window": True}, mapping=mapping), "2026-01-05")

    assert list(tables.given[0]["day"]) == [THIRD]


def test_without_the_window_mark_every_day_must_be_there(tables: Tables) -> None:
    mapping = dg.TimeWindowPartitionMapping(start_offset=-2)
    tables.run(raw, THIRD)

    with pytest.raises(dg.Failure, match=f"never materialised for {FIRST}, {SECOND}"):
        tables.run(tables.reader(mapping=mapping), THIRD)


def test_only_the_columns_asked_for_are_read(tables: Tables) -> None:
    tables.run(raw, SECOND)

    tables.run(tables.reader(metadata={"columns": ["amount"]}), SECOND)

    assert list(tables.given[0]) == ["day", "amount"]


def test_the_frame_tells_the_version_it_was_read_from(tables: Tables) -> None:
    tables.run(raw, FIRST)
    tables.run(raw, SECOND)

    tables.run(tables.reader(), FIRST)

    assert tables.given[0].attrs["table_version"] == 1


def test_a_day_that_was_never_materialised_is_a_clear_error(tables: Tables) -> None:
    tables.run(raw, FIRST)

    with pytest.raises(dg.Failure) as refused:
        tables.run(tables.reader(), SECOND)

    assert f"claims/raw was never materialised for {SECOND}" in str(refused.value)
    assert "Materialise it" in str(refused.value)


def test_many_days_that_were_never_materialised_are_not_all_listed(tables: Tables) -> None:
    tables.run(raw, FIRST)

    with pytest.raises(dg.Failure, match=f"for {SECOND}, .*2026-01-06 …"):
        tables.run(tables.reader(), FIRST, "2026-01-09")


def test_a_table_that_does_not_exist_yet_is_a_clear_error(tables: Tables) -> None:
    with pytest.raises(dg.Failure, match=r"claims/raw does not exist .*Materialise the asset"):
        tables.run(tables.reader(), SECOND)


def test_a_day_that_was_materialised_empty_is_no_error(tables: Tables) -> None:
    tables.run(raw, FIRST)
    tables.run(raw, FOURTH)

    tables.run(tables.reader(), FOURTH)

    pd.testing.assert_frame_equal(tables.given[0], rows().astype({"amount": float}))


def test_an_asset_without_partitions_is_refused_before_it_overwrites_the_table(
    tables: Tables,
) -> None:
    @dg.asset(key=RAW)
    def whole() -> pd.DataFrame:
        return rows(SECOND)

    tables.run(raw, FIRST)

    with pytest.raises(dg.Failure, match=r"claims/raw .* would be the whole table"):
        dg.materialize(
            [whole],
            instance=tables.instance,
            resources={"io_manager": LakeIOManager(lake=tables.lake)},
        )

    assert tables.stored() == [FIRST]


def test_an_input_without_partitions_is_refused(tables: Tables) -> None:
    @dg.asset(key=RAW)
    def whole() -> None: ...

    tables.run(raw, FIRST)
    features = tables.reader(partitions_def=None)

    with pytest.raises(dg.Failure, match=r"claims/raw .* would be the whole table"):
        dg.materialize(
            [features, whole],
            selection=[features],
            instance=tables.instance,
            resources={"io_manager": LakeIOManager(lake=tables.lake)},
        )

    assert tables.given == []


def test_rows_of_another_day_fail_the_run_and_are_not_stored(tables: Tables) -> None:
    @dg.asset(key=RAW, partitions_def=DAILY)
    def stray() -> pd.DataFrame:
        return rows(FIRST)

    with pytest.raises(ValueError, match=f"rows of {FIRST} in a write of {SECOND}"):
        tables.run(stray, SECOND)

    assert tables.lake.rows_per_day("claims/raw") == {}


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    [materialised, *_] = result.asset_materializations_for_node("claims__raw")
    return {name: value.value for name, value in materialised.metadata.items()}


def test_a_materialisation_tells_version_rows_bytes_and_place(tables: Tables) -> None:
    tables.run(raw, FIRST)

    metadata = metadata_of(tables.run(raw, SECOND))

    files = Path(tables.lake.uri("claims/raw")).glob(f"day={SECOND}/*.parquet")
    assert metadata["table_version"] == 1
    assert metadata["dagster/row_count"] == 1
    assert metadata["size_bytes"] == sum(file.stat().st_size for file in files)
    assert metadata["table_uri"] == tables.lake.uri("claims/raw")
    assert metadata["content_changed"] is True


def test_a_materialisation_without_news_says_so(tables: Tables) -> None:
    tables.run(raw, FIRST)

    metadata = metadata_of(tables.run(raw, FIRST))

    assert metadata["content_changed"] is False
    assert metadata["table_version"] == 0


@pytest.mark.parametrize(
    ("tags", "cause"),
    [
        ({}, "hand"),
        ({"dagster/schedule_name": "daily"}, "schedule"),
        ({"dagster/sensor_name": "new_data"}, "sensor"),
        ({"dagster/backfill": "abc"}, "backfill"),
        ({"dagster/schedule_name": "daily", "dagster/backfill": "abc"}, "schedule"),
        ({"dagster/sensor_name": "new_data", "ml_assets/cause": "replay"}, "replay"),
    ],
)
def test_a_version_tells_run_and_cause(tables: Tables, tags: dict[str, str], cause: str) -> None:
    result = tables.run(raw, FIRST, THIRD, tags=tags)

    [version] = tables.lake.log("claims/raw")
    assert (version.cause, version.run_id) == (cause, result.run_id)
    assert (version.first_day, version.last_day, version.rows) == (FIRST, THIRD, 3)


class Overtaken:
    """An asset made of another, which a second run overtakes while it works."""

    def __init__(self, tables: Tables, *overtake: Callable[[], object], window: bool = False):
        self.tables = tables
        self.given: list[list[float]] = []
        self.versions: list[int] = []
        waiting = list(overtake)

        with without_preview_warnings():

            @dg.asset(
                key=FEATURES,
                partitions_def=DAILY,
                backfill_policy=dg.BackfillPolicy.single_run(),
                ins={"given": dg.AssetIn(key=RAW, metadata={"window": window})},
            )
            def features(given: pd.DataFrame) -> pd.DataFrame:
                self.given.append(given["amount"].to_list())
                self.versions.append(given.attrs["table_version"])
                if waiting:
                    waiting.pop(0)()
                return given

        self.asset = features

    def stored(self, table: str = "claims/features") -> list[float]:
        return self.tables.lake.read(table, FIRST, FOURTH)["amount"].to_list()


def rewrite(tables: Tables, day: str, amount: float, table: str = "claims/raw") -> None:
    tables.lake.write(table, rows(day).assign(amount=float(amount)), day, day)


def test_a_step_whose_input_was_rewritten_meanwhile_reads_it_again(tables: Tables) -> None:
    tables.run(raw, SECOND)
    overtaken = Overtaken(tables, lambda: rewrite(tables, SECOND, 9))

    result = tables.run(overtaken.asset, SECOND)

    assert result.success
    assert overtaken.given == [[1.5], [9.0]]
    assert overtaken.stored() == [9.0]
    assert len(tables.lake.log("claims/features")) == 1


def test_another_day_of_the_input_does_not_matter(tables: Tables) -> None:
    tables.run(raw, FIRST, THIRD)
    overtaken = Overtaken(tables, lambda: rewrite(tables, THIRD, 9))

    tables.run(overtaken.asset, FIRST, SECOND)

    assert overtaken.given == [[1.5, 1.5]]


def test_any_day_of_a_range_matters(tables: Tables) -> None:
    tables.run(raw, FIRST, THIRD)
    overtaken = Overtaken(tables, lambda: rewrite(tables, SECOND, 9))

    tables.run(overtaken.asset, FIRST, THIRD)

    assert overtaken.stored() == [1.5, 9.0, 1.5]


def test_a_step_whose_own_days_were_written_meanwhile_reads_again(tables: Tables) -> None:
    """What stands in its days, such as an earlier prediction, may be part of what it writes."""
    tables.run(raw, FIRST, THIRD)
    first = Overtaken(tables, lambda: rewrite(tables, SECOND, 9, "claims/features"))

    tables.run(first.asset, SECOND)
    assert first.given == [[1.5], [1.5]]

    second = Overtaken(tables, lambda: rewrite(tables, SECOND, 9, "claims/features"))
    tables.run(second.asset, SECOND)
    assert second.given == [[1.5], [1.5]]

    third = Overtaken(tables, lambda: rewrite(tables, FIRST, 9, "claims/features"))
    tables.run(third.asset, SECOND)
    assert third.given == [[1.5]]


def test_a_window_may_change_while_a_step_works_since_it_names_its_version(tables: Tables) -> None:
    tables.run(raw, SECOND)
    overtaken = Overtaken(tables, lambda: rewrite(tables, SECOND, 9), window=True)

    tables.run(overtaken.asset, SECOND)

    assert overtaken.given == [[1.5]]
    assert overtaken.versions == [0]


def test_a_step_that_is_always_overtaken_gives_up_and_says_why(tables: Tables) -> None:
    tables.run(raw, SECOND)
    overtaken = Overtaken(tables, *[lambda n=n: rewrite(tables, SECOND, n) for n in range(10, 20)])

    result = tables.run(overtaken.asset, SECOND, raise_on_error=False)

    assert not result.success
    assert len(overtaken.given) == 4
    [failure] = [event for event in result.all_events if event.is_step_failure]
    assert f"claims/raw of {SECOND} was written by another run (version 4)" in cause(failure)
    assert tables.lake.rows_per_day("claims/features") == {}


def test_a_run_after_another_is_not_overtaken_by_it(tables: Tables) -> None:
    tables.run(raw, SECOND)
    overtaken = Overtaken(tables)

    tables.run(overtaken.asset, SECOND)
    rewrite(tables, SECOND, 9)
    tables.run(overtaken.asset, SECOND)

    assert overtaken.given == [[1.5], [9.0]]


def test_writing_waits_for_whoever_holds_the_tables(tables: Tables, tmp_path: Path) -> None:
    tables.run(raw, SECOND)
    order: list[str] = []
    overtaken = Overtaken(tables, lambda: held.wait())
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with tables_lock(tmp_path / "home", "claims"):
            held.set()
            # Long enough for a writer that does not wait to be there first.
            done.wait(1)
            rewrite(tables, SECOND, 9)
            order.append("other")

    thread = threading.Thread(target=hold)
    thread.start()
    tables.run(overtaken.asset, SECOND, home=tmp_path / "home")
    order.append("own")
    thread.join()

    assert order == ["other", "own"]
    assert overtaken.stored() == [9.0]


def test_a_step_may_hold_the_tables_over_its_own_outputs(tables: Tables, tmp_path: Path) -> None:
    home = tmp_path / "home"

    with without_preview_warnings():

        @dg.multi_asset(
            outs={
                "raw": dg.AssetOut(key=RAW),
                "features": dg.AssetOut(key=FEATURES),
            },
            partitions_def=DAILY,
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def both() -> Any:
            with tables_lock(home, "claims"):
                yield dg.Output(rows(SECOND), output_name="raw")
                yield dg.Output(rows(SECOND), output_name="features")

    assert tables.run(both, SECOND, home=home).success
    with tables_lock(home, "claims"):  # it has let go of them
        assert tables.lake.tables() == ["claims/features", "claims/raw"]


def test_a_home_that_cannot_be_locked_is_told(tables: Tables, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")

    with pytest.raises(dg.Failure, match=r"tables of claims cannot be written: .*home"):
        tables.run(raw, SECOND, home=tmp_path / "home")

    assert tables.lake.tables() == []
