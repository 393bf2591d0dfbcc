import dataclasses
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.core.contract import judge
from ml_assets.partitions import day_end, day_start, days_between
from ml_assets.resources.warehouse import (
    Extract,
    Warehouse,
    WarehouseError,
    WarehouseUnavailable,
    Window,
)
from ml_assets.use_cases.claims.delivery import TABLE
from ml_assets.use_cases.claims.simulator import TABLE_COLUMNS, rows_as_of
from ml_assets.use_cases.claims.use_case import CLAIMS
from ml_assets_tests.postgres import run_sql

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
    return sorted(warehouse.read(QUERY, read)["id"].to_pylist())


COLUMNS = {"key": "id", "received_at": "received_at", "updated_at": "updated_at"}


def extract(warehouse: Warehouse, read: Window) -> Extract:
    return warehouse.extract(QUERY, read, **COLUMNS)


def fingerprints(warehouse: Warehouse, read: Window) -> dict[str, str]:
    return warehouse.fingerprints(QUERY, read, **COLUMNS)


def counts(warehouse: Warehouse, read: Window) -> dict[str, int]:
    return {day: int(text.split()[0]) for day, text in fingerprints(warehouse, read).items()}


def warehouse_at(url: str, **settings: Any) -> Warehouse:
    defaults = {"attempts": 1, "backoff_seconds": 0, "statement_timeout_seconds": 30}
    return Warehouse(url=url, time_zone="Europe/London", **{**defaults, **settings})


def administer(warehouse: Warehouse, *statements: str) -> None:
    """What others do to the warehouse, past our door."""
    if warehouse.url.startswith("postgresql://"):
        run_sql(warehouse.url, *statements)
        return
    with duckdb.connect(warehouse.url.removeprefix("duckdb:///")) as connection:
        for statement in statements:
            connection.execute(statement)


def value(warehouse: Warehouse, expression: str) -> tuple[pa.DataType, Any]:
    """The type and the value that one expression arrives with."""
    administer(warehouse, "CREATE SCHEMA IF NOT EXISTS shop")  # DuckDB's file is there then
    column = warehouse.read(f"SELECT {expression} AS v", window(MONDAY)).column("v")
    assert len(column) == 1
    return column.type, column.to_pylist()[0]


def in_file(file: Path, **settings: Any) -> Warehouse:
    return warehouse_at(f"duckdb:///{file}", **settings)


@pytest.fixture(scope="session")
def database(postgres) -> str:
    return postgres.url(postgres.new_database())


@pytest.fixture(params=["duckdb", pytest.param("postgresql", marks=pytest.mark.slow)])
def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> Warehouse:
    """An empty warehouse."""
    if request.param == "duckdb":
        return in_file(tmp_path / "warehouse.duckdb")
    warehouse = warehouse_at(request.getfixturevalue("database"))
    administer(warehouse, "DROP SCHEMA IF EXISTS shop CASCADE")
    return warehouse


def test_rows_come_back_with_their_values_and_types(warehouse: Warehouse) -> None:
    at = noon(MONDAY) + timedelta(microseconds=123456)
    replace(
        warehouse,
        frame(row(at, "é", score=None), row(at, "b", score=7, **{"level of income": None})),
        window(MONDAY),
    )

    found = warehouse.read(QUERY, window(MONDAY)).sort_by("id")

    assert found.schema == pa.schema(
        {
            "id": pa.string(),
            "received_at": pa.timestamp("us", tz="UTC"),
            "updated_at": pa.timestamp("us", tz="UTC"),
            "score": pa.int32(),
            "income": pa.float64(),
            "note": pa.string(),
        }
    )
    assert found.to_pydict() == {
        "id": ["b", "é"],
        "received_at": [at, at],
        "updated_at": [at, at],
        "score": [7, None],
        "income": [None, 2.5],
        "note": ["at 12:30"] * 2,
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "مرحبا بالعالم",
        "漢字とかな",
        "🙂👩‍👩‍👧",
        "e\u0301",
        "a\tb\r\nc",
        "\\N",
        "NULL",
        '"; DROP TABLE shop.orders; --',
        "'); DROP TABLE shop.orders; --",
        "x" * 1_000_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_text_of_any_kind_survives(warehouse: Warehouse, text: str) -> None:
    replace(
        warehouse, frame(row(noon(MONDAY), id=text), row(noon(MONDAY), "other")), window(MONDAY)
    )

    found = extract(warehouse, window(MONDAY))

    assert sorted(found.rows["id"].to_pylist()) == sorted([text, "other"])
    assert counts(warehouse, window(MONDAY)) == {MONDAY: 2}


def test_missing_text_is_not_empty_text(warehouse: Warehouse) -> None:
    rows = frame(row(noon(MONDAY), id="", score=1), row(noon(MONDAY), id=None, score=2))
    replace(warehouse, rows, window(MONDAY))

    found = warehouse.read(QUERY, window(MONDAY)).sort_by("score")

    assert found["id"].to_pylist() == ["", None]


FAR = 2**63 - 1


@pytest.mark.parametrize(
    ("expression", "dtype", "expected"),
    [
        ("CAST(12.50 AS NUMERIC(10, 2))", pa.decimal128(10, 2), Decimal("12.50")),
        ("CAST(NULL AS NUMERIC(10, 2))", pa.decimal128(10, 2), None),
        ("CAST(-0.00001 AS NUMERIC(38, 5))", pa.decimal128(38, 5), Decimal("-0.00001")),
        ("CAST(9007199254740993 AS BIGINT)", pa.int64(), 9007199254740993),
        ("CAST(-32768 AS SMALLINT)", pa.int16(), -32768),
        ("CAST(NULL AS BIGINT)", pa.int64(), None),
        ("CAST(0.1 AS REAL)", pa.float32(), pytest.approx(0.1)),
        ("CAST('Infinity' AS DOUBLE PRECISION)", pa.float64(), float("inf")),
        ("TRUE", pa.bool_(), True),
        ("DATE '0001-01-01'", pa.date32(), date(1, 1, 1)),
        ("DATE '9999-12-31'", pa.date32(), date(9999, 12, 31)),
        ("TIME '23:59:59.999999'", pa.time64("us"), time(23, 59, 59, 999999)),
        (
            "CAST('2026-03-29 01:30:00+00' AS TIMESTAMPTZ)",
            pa.timestamp("us", tz="UTC"),
            datetime(2026, 3, 29, 1, 30, tzinfo=UTC),
        ),
        (
            "CAST('2026-03-29 01:30:00.000001' AS TIMESTAMP)",
            pa.timestamp("us"),
            datetime(2026, 3, 29, 1, 30, 0, 1),
        ),
        (
            "CAST('a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11' AS UUID)",
            pa.string(),
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        ),
        ("CAST(NULL AS VARCHAR)", pa.string(), None),
    ],
)
def test_values_arrive_in_the_source_s_own_type(
    warehouse: Warehouse, expression: str, dtype: pa.DataType, expected: Any
) -> None:
    assert value(warehouse, expression) == (dtype, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expression", "dtype", "expected"),
    [
        ("0.00012345::numeric", pa.decimal128(38, 8), Decimal("0.00012345")),
        ("100::numeric", pa.decimal128(38, 0), Decimal("100")),
        ("(repeat('9', 40) || '.5')::numeric", pa.string(), "9" * 40 + ".5"),
        ("repeat('9', 38)::numeric", pa.decimal128(38, 0), Decimal("9" * 38)),
        ("-repeat('9', 39)::numeric", pa.string(), "-" + "9" * 39),
        ("repeat('9', 39)::numeric(39, 0)", pa.string(), "9" * 39),
        ("'-Infinity'::numeric", pa.string(), "-inf"),
        ("'NaN'::numeric(10, 2)", pa.string(), "nan"),
        ("12.50::money", pa.decimal128(38, 2), Decimal("12.50")),
        ("4294967295::oid", pa.int64(), 4294967295),
        ("""'{"a": [1, "é"]}'::jsonb""", pa.string(), '{"a": [1, "é"]}'),
        ("array['a', NULL, 'b c']", pa.string(), '{a,NULL,"b c"}'),
        ("'{{1,2},{3,4}}'::int[]", pa.string(), "{{1,2},{3,4}}"),
        ("row(1, 'x')", pa.string(), "(1,x)"),
        ("inet '10.0.0.1'", pa.string(), "10.0.0.1/32"),
        ("int4range(1, 5)", pa.string(), "[1,5)"),
        ("timetz '12:00+01'", pa.string(), "12:00:00+01"),
        ("interval '1 month 2 days'", pa.string(), "1 mon 2 days"),
        ("'\\x00ff'::bytea", pa.binary(), b"\x00\xff"),
        ("E'it\\'s :start'", pa.string(), "it's :start"),
    ],
)
def test_types_of_postgresql_alone_arrive_plain(
    postgres, expression: str, dtype: pa.DataType, expected: Any
) -> None:
    assert value(warehouse_at(postgres.url("postgres")), expression) == (dtype, expected)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("CAST('infinity' AS TIMESTAMPTZ)", FAR),
        ("CAST('-infinity' AS TIMESTAMPTZ)", -FAR),
        ("CAST('infinity' AS TIMESTAMP)", FAR),
        ("CAST('infinity' AS DATE)", 2**31 - 1),
        ("CAST('-infinity' AS DATE)", -(2**31 - 1)),
        ("CAST('0001-01-01 00:00:00+00' AS TIMESTAMPTZ)", -62_135_596_800_000_000),
        ("CAST('9999-12-31 00:00:00+00' AS TIMESTAMPTZ)", 253_402_214_400_000_000),
    ],
)
def test_an_infinite_time_is_the_last_one_and_does_not_wrap_around(
    warehouse: Warehouse, expression: str, expected: int
) -> None:
    administer(warehouse, "CREATE SCHEMA shop")
    found = warehouse.read(
        f"SELECT {expression} AS v UNION ALL SELECT NULL", window(MONDAY)
    ).column("v")
    whole = pa.int32() if pa.types.is_date32(found.type) else pa.int64()

    assert sorted(found.cast(whole).to_pylist(), key=str) == [expected, None]


def test_two_columns_of_one_name_are_refused(warehouse: Warehouse) -> None:
    replace(warehouse, frame(), window(MONDAY))

    with pytest.raises(WarehouseError, match=r"more than one column named 'id'.*\.sql file"):
        warehouse.read("SELECT id, score AS id FROM shop.orders", window(MONDAY))


@pytest.mark.slow
def test_text_of_a_database_in_another_encoding_arrives_as_unicode(postgres) -> None:
    options = "ENCODING 'LATIN1' TEMPLATE template0"
    latin = warehouse_at(postgres.url(postgres.new_database(options)))

    assert value(latin, "chr(233)") == (pa.string(), "é")


@pytest.mark.slow
def test_bytes_that_are_no_unicode_are_refused_with_a_remedy(postgres) -> None:
    options = "ENCODING 'SQL_ASCII' TEMPLATE template0"
    ascii_only = warehouse_at(postgres.url(postgres.new_database(options)))

    assert value(ascii_only, "'a'") == (pa.string(), "a")
    with pytest.raises(WarehouseError, match=r"holds text that is not.*convert_from"):
        value(ascii_only, "chr(233)")


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

    assert len(found) == 0
    assert found.schema.field("score").type == pa.int32()
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

    assert list(found) == [MONDAY, WEDNESDAY]
    assert found[MONDAY].startswith("2 rows, newest 2026-06-03T11:00:00+00:00, ")
    assert found[WEDNESDAY].startswith("1 row, newest unknown, ")


def test_a_fingerprint_is_the_same_however_it_is_asked_for(warehouse: Warehouse) -> None:
    rows = [row(noon(day), f"{day}-{n}") for day in (MONDAY, TUESDAY) for n in range(3)]
    replace(warehouse, frame(*rows), window(MONDAY, TUESDAY))
    both = fingerprints(warehouse, window(MONDAY, TUESDAY))

    again = extract(warehouse, window(TUESDAY))
    replace(warehouse, frame(*reversed(rows)), window(MONDAY, TUESDAY))

    assert again.fingerprints == {TUESDAY: both[TUESDAY]}
    assert len(again.rows) == 3
    assert fingerprints(warehouse, window(MONDAY, TUESDAY)) == both


EARLY, LATE = (datetime(2026, 6, 1, hour, tzinfo=UTC) for hour in (13, 15))
DAY = {"a": EARLY, "b": LATE, "c": LATE}


@pytest.mark.parametrize(
    "later",
    [
        {"a": EARLY, "b": LATE},
        {"a": EARLY, "b": LATE, "c": LATE, "d": EARLY},
        {"a": EARLY, "b": LATE, "z": LATE},
        {"a": EARLY + timedelta(microseconds=1), "b": LATE, "c": LATE},
        {"a": EARLY - timedelta(days=9), "b": LATE, "c": LATE},
        {"a": LATE, "b": EARLY, "c": LATE},
        {"a": None, "b": LATE, "c": LATE},
        {None: EARLY, "b": LATE, "c": LATE},
        {"": EARLY, "b": LATE, "c": LATE},
    ],
    ids=[
        "one less",
        "one more",
        "one for another",
        "changed, not the newest",
        "changed to earlier",
        "two times swapped",
        "no time",
        "no key",
        "empty key",
    ],
)
def test_a_fingerprint_changes_with_any_row_that_came_went_or_changed(
    warehouse: Warehouse, later: dict[str | None, datetime | None]
) -> None:
    def arrive(keys: dict[str | None, datetime | None]) -> str:
        rows = frame(*(row(noon(MONDAY), "x", id=key, updated_at=at) for key, at in keys.items()))
        replace(warehouse, rows, window(MONDAY))
        return fingerprints(warehouse, window(MONDAY))[MONDAY]

    assert arrive(DAY) != arrive(later)
    assert arrive({None: None, **later}) != arrive({"": None, **later})


def test_a_key_may_be_a_number_and_a_time_may_be_text(warehouse: Warehouse) -> None:
    replace(warehouse, frame(row(noon(MONDAY), score=7)), window(MONDAY))
    other = {"key": "score", "received_at": "received_at", "updated_at": "id"}

    found = warehouse.fingerprints(QUERY, window(MONDAY), **other)
    replace(warehouse, frame(row(noon(MONDAY), score=8)), window(MONDAY))

    assert found != warehouse.fingerprints(QUERY, window(MONDAY), **other)


def test_equal_rows_do_not_cancel_out_in_a_fingerprint(warehouse: Warehouse) -> None:
    prints = []
    for key in ("a", "b"):
        rows = [row(noon(MONDAY), key)] * 2 + [row(noon(MONDAY), "c")]
        replace(warehouse, frame(*rows), window(MONDAY))
        prints.append(fingerprints(warehouse, window(MONDAY))[MONDAY])

    assert prints[0] != prints[1]


def test_days_centuries_away_and_times_without_end_have_fingerprints(warehouse: Warehouse) -> None:
    old, far = (datetime(year, 6, 1, 12, tzinfo=UTC) for year in (1900, 2200))
    replace(warehouse, frame(row(old, "old"), row(far, "far")), window(MONDAY))
    administer(
        warehouse,
        "INSERT INTO shop.orders (id, received_at, updated_at) VALUES "
        "('never', '2026-06-01 12:00:00+00', 'infinity'), ('ever', 'infinity', NULL)",
    )
    ever = datetime(1800, 1, 1, tzinfo=UTC), datetime(2300, 1, 1, tzinfo=UTC)
    unbounded = QUERY.replace("AND received_at < :end", "")

    found = extract(warehouse, ever)
    every = warehouse.fingerprints(unbounded, ever, **COLUMNS)

    assert list(found.fingerprints) == ["1900-06-01", MONDAY, "2200-06-01"]
    assert found.fingerprints[MONDAY].startswith("1 row, newest infinity, ")
    assert len(found.rows) == 3
    assert every == found.fingerprints


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

    assert counts(warehouse, window(first, last)) == {first: 24, day: hours, last: 24}
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
        ("SELECT :other FROM shop.orders", [":other", ":start and :end", ".sql file"]),
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


@pytest.mark.parametrize("options", ["nonsense=1", "sslmode=maybe", "connect_timeout=soon"])
def test_an_option_that_is_not_known_is_refused_at_once(free_port: int, options: str) -> None:
    warehouse = warehouse_at(f"postgresql://user:s3cr3t@127.0.0.1:{free_port}/db?{options}")

    with pytest.raises(WarehouseError, match=r"invalid.*Check ML_ASSETS_WAREHOUSE_URL"):
        warehouse.read(QUERY, window(MONDAY))


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
        found = warehouse.extract(
            CLAIMS.query,
            window(day),
            key=CLAIMS.key,
            received_at=CLAIMS.received_at,
            updated_at=CLAIMS.updated_at,
        )
        count, newest, _ = found.fingerprints[day].split(", ")
        prints.append((count, newest))
        judged.append(
            judge(
                found.rows,
                CLAIMS.raw.to_schema(),
                days=[day],
                key=CLAIMS.key,
                received_at=CLAIMS.received_at,
                updated_at=CLAIMS.updated_at,
                zone=LONDON,
            )
        )

    assert prints[0] == prints[1]
    assert prints[0][0] == f"{len(rows)} rows"
    assert judged[0].quarantine["reason"].nunique() > 2
    for table in ("good", "quarantine", "extraction"):
        pd.testing.assert_frame_equal(*(getattr(found, table) for found in judged))


@pytest.mark.parametrize(
    "spelling",
    [
        "-- not :other, nor 'this\n",
        "/* :other /* nested :other */ :other ' */",
        "$$ :other ' $$ || $tag$ $$ :other $tag$ ||",
        "':other '' :other' ||",
        "':other\\' ||",
    ],
)
def test_a_colon_in_a_comment_or_a_literal_is_no_parameter(
    warehouse: Warehouse, spelling: str
) -> None:
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))

    found = warehouse.read(
        f'SELECT {spelling} id AS text, score::text AS ":other" FROM shop.orders '
        "WHERE received_at>=:start AND received_at<:end::timestamptz; -- :other; 'x\n /* ; */ ",
        window(MONDAY),
    )

    assert found.column_names == ["text", ":other"]
    assert found[":other"].to_pylist() == ["1"]
    assert found["text"][0].as_py().endswith("a")
    assert found["text"][0].as_py().count(":other") == spelling.count(":other") * (
        spelling[0] in "$'"
    )


def test_a_value_is_bound_and_never_read_as_sql(warehouse: Warehouse) -> None:
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))

    assert not warehouse.exists("shop' OR '1'='1.orders")
    assert not warehouse.exists("shop.orders'; DROP TABLE orders; --")
    assert keys(warehouse, window(MONDAY)) == ["a"]


def test_two_statements_are_refused(warehouse: Warehouse) -> None:
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))

    with pytest.raises(WarehouseError, match=r"refuses the query|only read"):
        warehouse.read("SELECT 1; DROP TABLE shop.orders", window(MONDAY))

    assert keys(warehouse, window(MONDAY)) == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("use", ["extract", "read", "fingerprints"])
def test_a_query_that_writes_through_a_function_is_refused_by_the_server(
    postgres, use: str
) -> None:
    warehouse = warehouse_at(postgres.url(postgres.new_database()))
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))
    administer(
        warehouse,
        "CREATE FUNCTION shop.sly(text) RETURNS text LANGUAGE sql VOLATILE AS "
        "$$ DELETE FROM shop.orders; SELECT $1 $$",
    )
    sly = QUERY.replace("SELECT id,", "SELECT shop.sly(id) AS id,")
    columns = {} if use == "read" else COLUMNS

    with pytest.raises(WarehouseError, match=r"only read, and the query writes: .*DELETE"):
        getattr(warehouse, use)(sly, window(MONDAY), **columns)

    assert keys(warehouse, window(MONDAY)) == ["a"]


@pytest.mark.slow
def test_rows_and_fingerprints_are_of_one_instant(postgres) -> None:
    warehouse = warehouse_at(postgres.url(postgres.new_database()))
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))
    before = fingerprints(warehouse, window(MONDAY))
    waiting = QUERY.replace("shop.orders", "shop.orders, (SELECT pg_advisory_xact_lock(7)) AS _")
    found: list[Extract] = []

    with held(warehouse, "SELECT pg_advisory_lock(7)") as release:
        reader = threading.Thread(
            target=lambda: found.append(warehouse.extract(waiting, window(MONDAY), **COLUMNS))
        )
        reader.start()
        until_waiting(warehouse)
        # The reader is within its first statement: this is committed before its second.
        replace(warehouse, frame(row(noon(MONDAY), "b"), row(noon(MONDAY), "c")), window(MONDAY))
        release()
        reader.join()

    assert found[0].rows["id"].to_pylist() == ["a"]
    assert found[0].fingerprints == before
    assert counts(warehouse, window(MONDAY)) == {MONDAY: 2}


@contextmanager
def held(warehouse: Warehouse, lock: str) -> Iterator[Callable[[], None]]:
    """Another session holds a lock, until it is released."""
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(warehouse.url) as other, other.cursor() as cursor:
        cursor.execute(lock)
        cursor.fetchall()
        yield lambda: cursor.execute("SELECT pg_advisory_unlock_all()")
        other.rollback()


def until_waiting(warehouse: Warehouse) -> None:
    query = "SELECT count(*)::int AS n FROM pg_locks WHERE NOT granted"
    while not run_sql(warehouse.url, query)[0]["n"]:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    "query",
    [
        "SELECT pg_sleep(60)::text AS v",
        "SELECT n, pg_sleep(0.01)::text FROM generate_series(1, 9999) n",
    ],
    ids=["before the first row", "in mid-stream"],
)
def test_a_query_that_takes_too_long_is_given_up(postgres, query: str) -> None:
    warehouse = warehouse_at(postgres.url("postgres"), statement_timeout_seconds=1)

    with pytest.raises(WarehouseUnavailable) as refused:
        warehouse.read(query, window(MONDAY))

    assert "1 seconds (warehouse.statement_timeout_seconds)" in str(refused.value)
    assert "statement timeout" in str(refused.value)


@pytest.mark.slow
def test_a_locked_table_is_unavailable(postgres) -> None:
    warehouse = warehouse_at(postgres.url(postgres.new_database()), statement_timeout_seconds=1)
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))

    with (
        held(warehouse, "LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE"),
        pytest.raises(WarehouseUnavailable, match=r"statement_timeout_seconds|pg_locks"),
    ):
        warehouse.read(QUERY, window(MONDAY))

    assert keys(warehouse, window(MONDAY)) == ["a"]


@pytest.mark.slow
def test_a_server_that_falls_silent_is_given_up(postgres, monkeypatch) -> None:
    monkeypatch.setattr("ml_assets.resources.warehouse_postgresql._GRACE_SECONDS", 0)
    with silent_after_login(postgres.port) as port:
        url = f"postgresql://tester:right@127.0.0.1:{port}/postgres"
        warehouse = warehouse_at(url, statement_timeout_seconds=2)

        with pytest.raises(WarehouseUnavailable, match="has not answered for 2 seconds"):
            warehouse.read("SELECT pg_sleep(1)::text AS v", window(MONDAY))


@contextmanager
def silent_after_login(port: int) -> Iterator[int]:
    """A proxy that passes on what clients say, but answers only until a query sleeps."""
    quiet = threading.Event()
    connections: list[socket.socket] = []

    def pass_on(source: socket.socket, target: socket.socket, asks: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if asks and b"pg_sleep" in data:
                    quiet.set()
                if asks or not quiet.is_set():
                    target.sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", port))
                connections.extend([client, server])
                for ends in ((client, server, True), (server, client, False)):
                    threading.Thread(target=pass_on, args=ends, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_a_user_without_rights_is_told_what_to_grant(postgres) -> None:
    warehouse = warehouse_at(postgres.url(postgres.new_database()))
    replace(warehouse, frame(row(noon(MONDAY), "a")), window(MONDAY))
    name = f"reader_{uuid4().hex}"
    administer(warehouse, f"CREATE ROLE {name} LOGIN PASSWORD 's3/cr3%t'")
    url = warehouse.url.replace("tester:right@", f"{name}:s3%2Fcr3%25t@")
    reader = dataclasses.replace(warehouse, url=url)

    with pytest.raises(WarehouseError, match=r"Grant it SELECT on the source table and USAGE"):
        reader.read(QUERY, window(MONDAY))
    administer(
        warehouse,
        f"GRANT USAGE ON SCHEMA shop TO {name}",
        f"GRANT SELECT ON shop.orders TO {name}",
    )

    assert keys(reader, window(MONDAY)) == ["a"]
    assert keys(dataclasses.replace(reader, url=url.replace("%2F", "/")), window(MONDAY)) == ["a"]


@pytest.mark.slow
def test_an_error_of_the_server_never_tells_the_password(postgres) -> None:
    warehouse = warehouse_at(postgres.url("nowhere", password="right") + "?password=right")

    with pytest.raises(WarehouseError) as refused:
        warehouse.read("SELECT right", window(MONDAY))

    told = "".join(traceback.format_exception(refused.value))
    assert ":right" not in told
    assert "password=right" not in told
