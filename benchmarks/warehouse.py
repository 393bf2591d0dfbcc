"""How rows leave PostgreSQL: five ways to read the claims table into Arrow, side by side.

Run from the repository root: `python benchmarks/warehouse.py --rows 1000000`. It starts a
PostgreSQL of its own on loopback (`initdb` and `pg_ctl` must be on the PATH) and fills the table by
`Warehouse.replace`. Each read is a process of its own: wall and CPU seconds are the client's, from
before the connection to the Arrow table, without imports; memory is the process's peak. The server
works at the same time on the same cores, and its CPU is in none of the numbers.

- `warehouse.extract`: what the platform does: rows (ADBC, COPY) and fingerprints in one snapshot.
- `adbc, COPY`: rows only, the window written into the SQL.
- `adbc, bound`: rows only, the window as the driver's bound parameters, which COPY does not take.
- `sqlalchemy + psycopg`: rows as Python objects, then a frame, then Arrow.
- `psycopg, COPY as CSV`: text, read by `pyarrow.csv`, which must guess or be told every type.
- `duckdb`: its `postgres` extension, where it can be loaded (it is downloaded on first use).

psycopg is no dependency of the platform; without it its two ways are left out.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa

from ml_assets.resources.warehouse import Warehouse
from ml_assets.use_cases.claims.delivery import TABLE
from ml_assets.use_cases.claims.simulator import TABLE_COLUMNS, rows_as_of
from ml_assets.use_cases.claims.use_case import CLAIMS

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from ml_assets_tests.postgres import run_sql, running_postgres

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)
DRAWN = 200_000
LITERAL = CLAIMS.query.replace(":start", f"'{START}'").replace(":end", f"'{END}'")


def platform(url: str) -> pa.Table:
    """Rows and fingerprints."""
    warehouse = Warehouse(url, "Europe/London", 1, 0, 600)
    return warehouse.extract(
        CLAIMS.query,
        (START, END),
        key=CLAIMS.key,
        received_at=CLAIMS.received_at,
        updated_at=CLAIMS.updated_at,
    ).rows


def adbc_copy(url: str) -> pa.Table:
    """The driver's own way."""
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(LITERAL)
        return cursor.fetch_arrow_table()


def adbc_bound(url: str) -> pa.Table:
    """The driver without COPY."""
    import adbc_driver_postgresql.dbapi as driver

    query = CLAIMS.query.replace(":start", "$1").replace(":end", "$2")
    with driver.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(query, (START, END))
        return cursor.fetch_arrow_table()


def sqlalchemy_psycopg(url: str) -> pa.Table:
    """Rows as Python objects, as this platform read them before."""
    import pandas as pd
    import sqlalchemy as sa

    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO'")
        result = connection.execute(sa.text(CLAIMS.query), {"start": START, "end": END})
        frame = pd.DataFrame(result.all(), columns=list(result.keys()), dtype=object)
    return pa.Table.from_pandas(frame, preserve_index=False)


def psycopg_csv(url: str) -> pa.Table:
    """CSV, with types guessed."""
    import psycopg
    from pyarrow import csv

    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        sink = pa.BufferOutputStream()
        with cursor.copy(f"COPY (\n{LITERAL}\n) TO STDOUT (FORMAT csv, HEADER)") as copy:
            for chunk in copy:
                sink.write(chunk)
    return csv.read_csv(pa.BufferReader(sink.getvalue()))


def duckdb_extension(url: str) -> pa.Table:
    """DuckDB's own client."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute(f"INSTALL postgres; LOAD postgres; ATTACH '{url}' AS w (TYPE postgres)")
        return connection.sql(LITERAL.replace(TABLE, f"w.{TABLE}")).to_arrow_table()


WAYS: dict[str, Callable[[str], pa.Table]] = {
    "warehouse.extract": platform,
    "adbc, COPY": adbc_copy,
    "adbc, bound": adbc_bound,
    "sqlalchemy + psycopg": sqlalchemy_psycopg,
    "psycopg, COPY as CSV": psycopg_csv,
    "duckdb": duckdb_extension,
}


def fill(url: str, rows: int) -> None:
    """Draw some rows, and repeat them under other keys on later days."""
    drawn = min(rows, DRAWN)
    until = datetime(2026, 3, 1, tzinfo=UTC)
    # The volume of a day varies: enough is drawn to cut from.
    frame = rows_as_of(date(2026, 1, 5), until, daily_volume=2 * drawn).head(drawn)
    warehouse = Warehouse(url, "Europe/London", 1, 0, 600)
    warehouse.replace(TABLE, TABLE_COLUMNS, frame, [], received_at="received_at")
    kept = ", ".join(f'"{name}"' for name in list(TABLE_COLUMNS)[3:])
    later = "+ n * interval '1 day'"
    run_sql(
        url,
        f"INSERT INTO {TABLE} SELECT application_id || '-' || n, received_at {later}, "  # noqa: S608
        f"updated_at {later}, {kept} FROM {TABLE}, generate_series(1, {-(-rows // drawn) - 1}) n",
        f"VACUUM ANALYZE {TABLE}",
    )


def measure(way: str, url: str) -> None:
    """Read once and print the numbers as JSON; runs in a process of its own."""
    for module in ("adbc_driver_postgresql.dbapi", "sqlalchemy", "psycopg", "duckdb", "pandas"):
        try:
            __import__(module)
        except ImportError:
            continue
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    table = WAYS[way](url)
    after, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    numbers = {"rows": len(table), "wall": wall, "cpu": cpu, "mb": after.ru_maxrss / 1024}
    print(json.dumps(numbers))


def main() -> None:
    """Fill a server, then let every way read it in turn."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--measure", nargs=2, metavar=("WAY", "URL"), help=argparse.SUPPRESS)
    arguments.add_argument("--fill", metavar="URL", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.fill:
        fill(given.fill, given.rows)
        return
    if given.measure:
        measure(*given.measure)
        return
    rows = str(given.rows)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with running_postgres() as postgres:
        url = postgres.url(postgres.new_database())
        began = time.perf_counter()
        # Not in this process: those it starts would count its peak memory as theirs.
        subprocess.run([sys.executable, __file__, "--fill", url, "--rows", rows], check=True)
        print(f"filled in {timedelta(seconds=round(time.perf_counter() - began))}", flush=True)
        for _ in range(given.rounds):
            for way in WAYS:
                command = [sys.executable, __file__, "--measure", way, url]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    print(f"{way}: {done.stderr.strip().splitlines()[-1][:100]}", flush=True)
                else:
                    found[way].append(json.loads(done.stdout))
    print(f"\n| way | rows | wall s | CPU s | peak MB |\n{'| --- ' * 5}|")
    for way, runs in found.items():
        if runs:
            middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            print(
                f"| {way} | {middle['rows']:,.0f} | {middle['wall']:.2f} | {middle['cpu']:.2f} "
                f"| {middle['mb']:,.0f} |"
            )


if __name__ == "__main__":
    main()
