import dataclasses
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from ml_assets.core.contract import judge
from ml_assets.partitions import day_end, day_start, days_between
from ml_assets.resources.warehouse import (
    Fingerprint,
    Warehouse,
    WarehouseError,
    WarehouseUnavailable,
    Window,
)
from ml_assets.use_cases.claims.delivery import TABLE
from ml_assets.use_cases.claims.simulator import TABLE_COLUMNS, rows_as_of
from ml_assets.use_cases.claims.use_case import CLAIMS

LONDON = ZoneInfo("Europe/London")
MONDAY, TUESDAY, WEDNESDAY = days_between(date(2026, 6, 1), date(2026, 6, 3))
TYPES = {
    "id": "VARCHAR",
    "received_at": "TIMESTAMPTZ",
    "updated_at": "TIMESTAMPTZ",
    "score": "INTEGER",
    "level of income": "DOUBLE PRECISION",
}
QUERY = """
-- the rows of [:start, :end), with a colon or two: 12:30, a::b
SELECT id, received_at, updated_at, CAST(score AS INTEGER) AS score,
    "level of income" AS income, 'at 12:30' AS note
FROM shop.orders WHERE received_at >= :start AND received_at < :end
"""


def window(first: str, last: str | None = None) -> Window:
    return day_start(first, LONDON), day_end(last or first, LONDON)


def row(at: datetime, key: str = "", **values: Any) -> dict[str, Any]:
    fields = {
        "id": key or at.astimezone(UTC).isoformat(),
        "received_at": at,
        "updated_at": at,
        "score": 1,
        "level of income": 2.5,
    }
    return {**fields, **values}


def noon(day: str) -> datetime:
    return day_start(day, LONDON) + timedelta(hours=12)


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    made = pd.DataFrame(list(rows), columns=list(TYPES))
    for name in ("received_at", "updated_at"):
        made[name] = pd.to_datetime(made[name], utc=True).astype("datetime64[us, UTC]")
    return made.astype({"score": "Int64"})


def replace(warehouse: Warehouse, rows: pd.DataFrame, *windows: Window) -> None:
    warehouse.replace("shop.orders", TYPES, rows, windows, received_at="received_at")


def keys(warehouse: Warehouse, read: Window) -> list[str]:
    return sorted(warehouse.read(QUERY, read)["id"])


def fingerprints(warehouse: Warehouse, read: Window) -> dict[str, Fingerprint]:
    return warehouse.fingerprints(QUERY, read, received_at="received_at", updated_at="updated_at")


def warehouse_at(url: str, *, attempts: int = 1, backoff_seconds: float = 0) -> Warehouse:
    return Warehouse(
        url=url,
        time_zone="Europe/London",
        attempts=attempts,
        backoff_seconds=backoff_seconds,
    )


def in_file(file: Path, **settings: Any) -> Warehouse:
    return warehouse_at(f"duckdb:///{file}", **settings)


@pytest.fixture(params=["duckdb", pytest.param("postgresql", marks=pytest.mark.slow)])
def new_warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Warehouse]:
    """Makes empty warehouses, each on its own."""

    def make() -> Warehouse:
        if request.param == "duckdb":
            return in_file(tmp_path / "warehouse.duckdb")
        postgres = request.getfixturevalue("postgres")
        return warehouse_at(postgres.url(postgres.new_database()))

    return make


@pytest.fixture
def warehouse(new_warehouse: Callable[[], Warehouse]) -> Warehouse:
    return new_warehouse()


def test_rows_come_back_with_their_values_and_types(warehouse: Warehouse) -> None:
    at = noon(MONDAY) + timedelta(microseconds=123456)
    replace(
        warehouse,
        frame(row(at, "é", score=None), row(at, "b", **{"level of income": None})),
        window(MONDAY),
    )

    found = warehouse.read(QUERY, window(MONDAY)).sort_values("id", ignore_index=True)

    assert list(found) == ["id", "received_at", "updated_at", "score", "income", "note"]
    assert found["id"].to_list() == ["b", "é"]
    assert found["received_at"].dt.tz_convert("UTC").to_list() == [pd.Timestamp(at)] * 2
    assert found["score"].isna().to_list() == [False, True]
    assert found["income"].isna().to_list() == [True, False]
    assert found["income"].iloc[1] == 2.5
    assert found["note"].to_list() == ["at 12:30"] * 2


def test_whole_numbers_next_to_a_missing_one_stay_whole(warehouse: Warehouse) -> None:
    rows = frame(row(noon(MONDAY), "a", score=7), row(noon(MONDAY), "b", score=None))
    replace(warehouse, rows, window(MONDAY))

    found = warehouse.read(QUERY, window(MONDAY)).set_index("id")

    assert pd.api.types.is_integer_dtype(found["score"])
    assert found["score"]["a"] == 7


def test_a_window_holds_its_start_and_not_its_end(warehouse: Warehouse) -> None:
    start, end = window(MONDAY)
    tick = timedelta(microseconds=1)
    instants = {"before": start - tick, "start": start, "last": end - tick, "end": end}
    rows = frame(*(row(at.astimezone(UTC), key) for key, at in instants.items()))
    replace(warehouse, rows, window("2026-05-31", TUESDAY))

    assert keys(warehouse, window(MONDAY)) == ["last", "start"]


def test_a_local_day_in_summer_starts_before_midnight_utc(warehouse: Warehouse) -> None:
    rows = frame(
        row(datetime(2026, 5, 31, 22, 59, tzinfo=UTC), "sunday"),
        row(datetime(2026, 5, 31, 23, 1, tzinfo=UTC), "monday"),
    )
    replace(warehouse, rows, window("2026-05-31", MONDAY))

    assert keys(warehouse, window(MONDAY)) == ["monday"]
    assert list(fingerprints(warehouse, window("2026-05-31", MONDAY))) == ["2026-05-31", MONDAY]


def test_a_window_without_rows_gives_an_empty_frame_with_columns(warehouse: Warehouse) -> None:
    replace(warehouse, frame(), window(MONDAY))

    found = warehouse.read(QUERY, window(MONDAY))

    assert found.empty
    assert list(found)[:2] == ["id", "received_at"]
    assert fingerprints(warehouse, window(MONDAY)) == {}


def test_a_fingerprint_counts_rows_and_tells_the_newest_change(warehouse: Warehouse) -> None:
    changed = noon(WEDNESDAY)
    rows = frame(
        row(noon(MONDAY), "a", updated_at=changed),
        row(noon(MONDAY), "b"),
        row(noon(WEDNESDAY), "c", updated_at=None),
    )
    replace(warehouse, rows, window(MONDAY, WEDNESDAY))

    found = fingerprints(warehouse, window(MONDAY, WEDNESDAY))

    assert found == {
        MONDAY: Fingerprint(2, changed.astimezone(UTC)),
        WEDNESDAY: Fingerprint(1, None),
    }


@pytest.mark.parametrize(("day", "hours"), [("2026-03-29", 23), ("2026-10-25", 25)])
def test_days_on_which_the_clocks_change_hold_all_their_hours(
    warehouse: Warehouse, day: str, hours: int
) -> None:
    around = (date.fromisoformat(day) + timedelta(days=step) for step in (-1, 1))
    first, last = (other.isoformat() for other in around)
    start, end = (edge.astimezone(UTC) for edge in window(first, last))
    each_hour = range(int((end - start) / timedelta(hours=1)))
    rows = frame(*(row(start + timedelta(hours=hour)) for hour in each_hour))
    replace(warehouse, rows, window(first, last))

    counts = {at: found.rows for at, found in fingerprints(warehouse, window(first, last)).items()}

    assert counts == {first: 24, day: hours, last: 24}
    assert len(keys(warehouse, window(day))) == hours


def test_the_time_zone_of_the_warehouse_decides_the_day(warehouse: Warehouse) -> None:
    replace(warehouse, frame(row(datetime(2026, 6, 1, 20, tzinfo=UTC))), window(MONDAY))
    tokyo = dataclasses.replace(warehouse, time_zone="Asia/Tokyo")

    assert list(fingerprints(tokyo, window(MONDAY))) == [TUESDAY]


def test_replacing_a_window_leaves_other_days_alone(warehouse: Warehouse) -> None:
    days = [row(noon(day), day) for day in (MONDAY, TUESDAY, WEDNESDAY)]
    replace(warehouse, frame(*days), window(MONDAY, WEDNESDAY))

    replace(warehouse, frame(row(noon(TUESDAY), "new")), window(TUESDAY))

    assert keys(warehouse, window(MONDAY, WEDNESDAY)) == [MONDAY, WEDNESDAY, "new"]


def test_replacing_a_window_keeps_the_row_at_its_very_end(warehouse: Warehouse) -> None:
    start, end = window(MONDAY)
    rows = frame(row(start.astimezone(UTC), "start"), row(end.astimezone(UTC), "end"))
    replace(warehouse, rows, window(MONDAY, TUESDAY))

    replace(warehouse, frame(), window(MONDAY))

    assert keys(warehouse, window(MONDAY, TUESDAY)) == ["end"]


def test_several_windows_are_replaced_at_once(warehouse: Warehouse) -> None:
    days = [row(noon(day), day) for day in (MONDAY, TUESDAY, WEDNESDAY)]
    replace(warehouse, frame(*days), window(MONDAY, WEDNESDAY))

    replace(warehouse, frame(), window(MONDAY), window(WEDNESDAY))

    assert keys(warehouse, window(MONDAY, WEDNESDAY)) == [TUESDAY]


def test_a_replacement_that_fails_leaves_the_earlier_rows(warehouse: Warehouse) -> None:
    replace(warehouse, frame(row(noon(MONDAY), "old")), window(MONDAY))
    broken = frame(row(noon(MONDAY), "new")).astype({"score": object}).assign(score="three")

    with pytest.raises(WarehouseError, match="three"):
        replace(warehouse, broken, window(MONDAY))

    assert keys(warehouse, window(MONDAY)) == ["old"]


def test_a_first_replacement_that_fails_leaves_no_table(warehouse: Warehouse) -> None:
    broken = frame(row(noon(MONDAY))).astype({"score": object}).assign(score="three")

    with pytest.raises(WarehouseError):
        replace(warehouse, broken, window(MONDAY))

    assert not warehouse.exists("shop.orders")


def test_a_table_exists_once_rows_were_put_there(warehouse: Warehouse) -> None:
    assert not warehouse.exists("shop.orders")

    replace(warehouse, frame(), window(MONDAY))

    assert warehouse.exists("shop.orders")
    assert not warehouse.exists("shop.other")


@pytest.mark.parametrize(
    ("query", "parts"),
    [
        ("SELECT * FROM nowhere.orders", ["nowhere", "lacks a table", "warehouse.url"]),
        ("SELECT * FROM shop.nothing", ["nothing", "lacks a table", "table's name"]),
        ("SELECT shoe_size FROM shop.orders", ["shoe_size", "refuses the query", ".sql file"]),
        ("SELEC 1", ["SELEC", "refuses the query", ".sql file"]),
        ("SELECT :other FROM shop.orders", ["other", "refuses the query", ".sql file"]),
        ("SELECT CAST('x' AS INTEGER) FROM shop.orders", ["refuses the query", ".sql file"]),
    ],
)
def test_a_query_that_does_not_fit_is_an_error_with_a_remedy(
    warehouse: Warehouse, query: str, parts: list[str]
) -> None:
    replace(warehouse, frame(row(noon(MONDAY))), window(MONDAY))
    predicate = "received_at >= :start AND received_at < :end"
    place = "" if query == "SELEC 1" else f" WHERE {predicate}"

    with pytest.raises(WarehouseError) as refused:
        warehouse.read(query + place, window(MONDAY))

    message = str(refused.value).lower()
    assert [part for part in parts if part.lower() not in message] == []


def test_a_missing_file_is_named_with_the_remedy_and_not_created(tmp_path: Path) -> None:
    file = tmp_path / "none" / "warehouse.duckdb"

    with pytest.raises(WarehouseError) as refused:
        in_file(file).read(QUERY, window(MONDAY))

    assert f"{file} does not exist" in str(refused.value)
    assert "ml-assets demo" in str(refused.value)
    assert "ML_ASSETS_WAREHOUSE_URL" in str(refused.value)
    assert not file.parent.exists()
    assert not in_file(file).exists("shop.orders")


def test_a_file_that_is_no_database_is_refused_wherever_it_lies(tmp_path: Path) -> None:
    file = tmp_path / "locked" / "warehouse.duckdb"
    file.parent.mkdir()
    file.write_bytes(b"garbage" * 1000)

    with pytest.raises(WarehouseError) as refused:
        in_file(file).read(QUERY, window(MONDAY))

    assert f"{file} cannot be opened" in str(refused.value)
    assert "Check warehouse.url" in str(refused.value)
    assert file.read_bytes() == b"garbage" * 1000


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("not a folder")

    with pytest.raises(WarehouseError, match=r"cannot be opened.*Check warehouse\.url"):
        replace(in_file(tmp_path / "folder" / "w.duckdb"), frame(), window(MONDAY))


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Holds the warehouse open for writing, until its standard input is closed."""
    replace(in_file(tmp_path / "warehouse.duckdb"), frame(row(noon(MONDAY), "a")), window(MONDAY))
    program = (
        "import sys, duckdb; held = duckdb.connect(sys.argv[1]); "
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "warehouse.duckdb")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


@pytest.mark.parametrize(
    "use",
    [
        lambda warehouse: warehouse.read(QUERY, window(MONDAY)),
        lambda warehouse: replace(warehouse, frame(), window(MONDAY)),
    ],
    ids=["read", "write"],
)
def test_a_file_that_another_process_keeps_is_unavailable_after_all_tries(
    tmp_path: Path,
    other_process: subprocess.Popen[str],
    use: Callable[[Warehouse], object],
) -> None:
    warehouse = in_file(tmp_path / "warehouse.duckdb", attempts=3, backoff_seconds=0.01)

    with pytest.raises(WarehouseUnavailable, match=r"warehouse\.duckdb is in use"):
        use(warehouse)


def test_a_file_that_another_process_lets_go_in_time_is_read(
    tmp_path: Path, other_process: subprocess.Popen[str]
) -> None:
    warehouse = in_file(tmp_path / "warehouse.duckdb", attempts=10, backoff_seconds=0.05)
    letting_go = threading.Timer(0.2, other_process.stdin.close)
    letting_go.start()

    assert keys(warehouse, window(MONDAY)) == ["a"]
    letting_go.join()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:s3cr3t@host:port/db",
        "postgresql://user:s3@s3cr3t:1@host/db",
        "postgresql://user:s3/cr3t@host:port/db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(WarehouseError) as refused:
        warehouse_at(url).read(QUERY, window(MONDAY))

    assert "user:***@host" in str(refused.value)
    assert "ML_ASSETS_WAREHOUSE_URL" in str(refused.value)
    assert "cr3t" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_host_that_does_not_answer_is_unavailable_and_the_password_is_not_told(
    free_port: int,
) -> None:
    warehouse = warehouse_at(f"postgresql://user:s3cr3t@127.0.0.1:{free_port}/db", attempts=2)

    with pytest.raises(WarehouseUnavailable) as refused:
        warehouse.read(QUERY, window(MONDAY))

    assert f"user:***@127.0.0.1:{free_port}/db cannot be reached" in str(refused.value)
    assert "s3cr3t" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("database", "password", "told"),
    [("postgres", "wr0ng", "authentication failed"), ("nowhere", "right", '"nowhere" does not')],
)
def test_a_server_that_refuses_the_connection_is_an_error_with_a_remedy(
    postgres, database: str, password: str, told: str
) -> None:
    url = postgres.url(database, password=password)

    with pytest.raises(WarehouseError) as refused:
        warehouse_at(url).read(QUERY, window(MONDAY))

    assert told in str(refused.value)
    assert "Check ML_ASSETS_WAREHOUSE_URL" in str(refused.value)
    assert password not in str(refused.value)


@pytest.mark.slow
def test_a_server_that_cuts_the_connection_is_unavailable(postgres) -> None:
    warehouse = warehouse_at(postgres.url("postgres"))

    with pytest.raises(WarehouseUnavailable, match="terminating connection"):
        warehouse.read(
            "SELECT pg_terminate_backend(pg_backend_pid()) WHERE :start < :end", window(MONDAY)
        )


@pytest.mark.slow
def test_a_server_that_stops_is_unavailable_until_it_is_back(own_postgres) -> None:
    warehouse = warehouse_at(own_postgres.url("postgres"), attempts=2)
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))

    own_postgres.stop()
    with pytest.raises(WarehouseUnavailable, match="cannot be reached"):
        warehouse.read(QUERY, window(MONDAY))
    own_postgres.start()

    assert keys(warehouse, window(MONDAY)) == ["a"]


@pytest.mark.slow
def test_a_server_that_comes_back_in_time_is_read(own_postgres) -> None:
    warehouse = warehouse_at(own_postgres.url("postgres"), attempts=12, backoff_seconds=0.05)
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))

    own_postgres.stop()
    coming_back = threading.Timer(0.2, own_postgres.start)
    coming_back.start()

    assert keys(warehouse, window(MONDAY)) == ["a"]
    coming_back.join()


@pytest.mark.slow
@pytest.mark.parametrize("day", ["2026-01-05", "2026-03-29", "2026-10-25"])
def test_a_simulated_day_is_judged_the_same_from_both_warehouses(
    postgres, tmp_path: Path, day: str
) -> None:
    both = [in_file(tmp_path / "w.duckdb"), warehouse_at(postgres.url(postgres.new_database()))]
    until = day_end(day, LONDON) + timedelta(days=20)
    rows = rows_as_of(date.fromisoformat(day), until, daily_volume=8000)
    judged, prints = [], []

    for warehouse in both:
        warehouse.replace(TABLE, TABLE_COLUMNS, rows, [window(day)], received_at="received_at")
        prints.append(
            warehouse.fingerprints(
                CLAIMS.query, window(day), received_at="received_at", updated_at="updated_at"
            )
        )
        judged.append(
            judge(
                warehouse.read(CLAIMS.query, window(day)),
                CLAIMS.raw.to_schema(),
                days=[day],
                key=CLAIMS.key,
                received_at=CLAIMS.received_at,
                updated_at=CLAIMS.updated_at,
                zone=LONDON,
            )
        )

    assert prints[0] == prints[1]
    assert prints[0][day].rows == len(rows)
    assert judged[0].quarantine["reason"].nunique() > 2
    for table in ("good", "quarantine", "extraction"):
        pd.testing.assert_frame_equal(*(getattr(found, table) for found in judged))
