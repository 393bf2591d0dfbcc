"""How simulated applications arrive: in one transaction, and never over somebody else's rows."""

from datetime import date

import duckdb
import pytest

from ml_assets.resources.warehouse import Warehouse
from ml_assets.use_cases.claims.delivery import TABLE, NotSimulated, deliver, delivered_days
from ml_assets_tests.conftest import SHAPE, Platform
from ml_assets_tests.postgres import Postgres, run_sql

FILE = "warehouse.duckdb"


def test_days_arrive_once(platform: Platform) -> None:
    first = platform.arrive("2026-01-05", "2026-01-07")
    again = platform.arrive("2026-01-05", "2026-01-07")

    assert first == ["2026-01-05", "2026-01-06", "2026-01-07"]
    assert again == []
    assert delivered_days(platform.warehouse) == first


def test_days_missing_before_are_filled_in_as_of_the_same_clock(platform: Platform) -> None:
    platform.arrive("2026-01-07", "2026-01-08")

    assert platform.arrive("2026-01-05", "2026-01-08") == ["2026-01-05", "2026-01-06"]


def test_a_table_of_somebody_else_is_never_touched(platform: Platform) -> None:
    with duckdb.connect(str(platform.environment.home / FILE)) as connection:
        connection.execute("CREATE SCHEMA claims")
        connection.execute(f"CREATE TABLE {TABLE} AS SELECT 'REAL-1' AS application_id")

    with pytest.raises(NotSimulated, match=r"did not make.*Nothing was changed"):
        platform.arrive("2026-01-05", "2026-01-05")

    with duckdb.connect(str(platform.environment.home / FILE), read_only=True) as connection:
        assert connection.execute(f"SELECT * FROM {TABLE}").fetchall() == [("REAL-1",)]
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    assert tables == [("ds_dataset",)]


def test_every_day_of_the_range_has_rows(platform: Platform) -> None:
    days = platform.arrive("2026-03-28", "2026-03-30")

    assert [date.fromisoformat(day).day for day in days] == [28, 29, 30]


def test_the_mark_of_a_table_that_was_replaced_does_not_count(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-05")
    with duckdb.connect(str(platform.environment.home / FILE)) as connection:
        connection.execute(f"UPDATE {TABLE} SET application_id = 'REAL-' || application_id")

    with pytest.raises(NotSimulated):
        platform.arrive("2026-01-05", "2026-01-06")

    assert delivered_days(platform.warehouse) == ["2026-01-05"]


@pytest.mark.slow
def test_days_arrive_in_postgresql_as_in_a_file(platform: Platform, postgres: Postgres) -> None:
    days = date(2026, 1, 5), date(2026, 1, 7)
    platform.arrive(*(day.isoformat() for day in days))
    warehouse = Warehouse(postgres.url(postgres.new_database()), "Europe/London", 1, 0, 60)
    first = deliver(warehouse, platform.environment, *days, **SHAPE)
    again = deliver(warehouse, platform.environment, *days, **SHAPE)
    query = f"SELECT application_id, count(*)::int AS n FROM {TABLE} GROUP BY 1 ORDER BY 1"
    arrived = run_sql(warehouse.url, query)
    run_sql(warehouse.url, f"UPDATE {TABLE} SET application_id = 'REAL-1'")
    with pytest.raises(NotSimulated):
        deliver(warehouse, platform.environment, *days, **SHAPE)

    assert first == delivered_days(platform.warehouse)
    assert again == []
    with duckdb.connect(str(platform.environment.home / FILE), read_only=True) as connection:
        expected = connection.sql(query).fetchall()
    assert sorted((row["application_id"] or "", row["n"]) for row in arrived) == sorted(
        (key or "", n) for key, n in expected
    )
