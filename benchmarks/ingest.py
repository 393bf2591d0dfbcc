"""What taking in a million rows costs over the quickest plain way, in the same session.

Run from the repository root: `python benchmarks/ingest.py`. Ours is the real run of the extraction
with contract, quarantine, account and both blocking checks, in a process of its own; plain reads
the same rows by the same library and writes one Delta table, without looking at a value. Every
measurement is a process of its own, started in turn; figures are medians of pairs. The server needs
PostgreSQL's `initdb` and `pg_ctl`, and is started here, on loopback.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ml_assets.environment import load_environment
from ml_assets.use_cases.claims.simulator import TABLE_COLUMNS, applications
from ml_assets.use_cases.claims.use_case import CLAIMS

DAY = date(2026, 1, 5)
COLUMNS = list(TABLE_COLUMNS)
WINDOW = 180  # days of a window read


def main() -> None:
    """Print a row per way in, then one per piece."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        task, folder = arguments.child
        print(json.dumps(TASKS[task](Path(folder))))
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the tests' own server
    from ml_assets_tests.postgres import running_postgres

    with tempfile.TemporaryDirectory() as folder, running_postgres() as postgres:
        place = Path(folder)
        (place / "url").write_text(postgres.url(postgres.new_database()))
        prepare(place, arguments.rows)
        compare(place, arguments.repeats)


def compare(place: Path, repeats: int) -> None:
    """Run each pair in turn, and print the medians."""
    print("| | ours s | plain s | ratio | ours CPU s | plain CPU s | peak MB, ours / plain |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, ours, plain in PAIRS:
        pairs = [(child(ours, place), child(plain, place)) for _ in range(repeats)]
        wall, cpu, memory = (
            [median(pair[side][figure] for pair in pairs) for side in (0, 1)]
            for figure in ("seconds", "cpu", "memory")
        )
        ratio = median(a["seconds"] / b["seconds"] for a, b in pairs)
        print(
            f"| {name} | {wall[0]:.3f} | {wall[1]:.3f} | {ratio:.2f} | {cpu[0]:.2f} | {cpu[1]:.2f} "
            f"| {memory[0]:.0f} / {memory[1]:.0f} |"
        )
    print("\n| | CPU s | million rows per CPU s |\n| --- | --- | --- |")
    for name, task in ALONE:
        found = [child(task, place) for _ in range(repeats)]
        cpu_alone = median(each["cpu"] for each in found)
        print(f"| {name} | {cpu_alone:.2f} | {found[0]['rows'] / cpu_alone / 1e6:.2f} |")


def child(task: str, place: Path) -> dict[str, Any]:
    """Measure a task in a process of its own."""
    command = [sys.executable, __file__, "--child", task, str(place)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def timed(work: Callable[[], Any], rows: int, times: int = 1) -> dict[str, Any]:
    """Wall and CPU seconds of some work, and the process's peak memory."""
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(times):
        work()
    seconds, used = time.perf_counter() - started, time.process_time() - cpu
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    return {"seconds": seconds / times, "cpu": used / times, "rows": rows, "memory": peak}


def prepare(place: Path, rows: int) -> None:
    """A million simulated rows of one day, in PostgreSQL, CSV and Parquet."""
    import pyarrow.csv
    import pyarrow.parquet

    some = applications(DAY, daily_volume=rows // 5)
    frame = pd.concat([some] * 5, ignore_index=True)[COLUMNS]
    frame["application_id"] = [f"A-{place:07}" for place in range(len(frame))]
    warehouse(place).replace(
        "claims.ds_dataset", TABLE_COLUMNS, frame, [], received_at="received_at"
    )
    table = pa.Table.from_pandas(
        frame.rename(columns={"income level": "income_level"}), preserve_index=False
    )
    pyarrow.parquet.write_table(table, place / "rows.parquet")
    zone = pa.scalar("Z")
    for name in ("received_at", "updated_at"):
        text = pa.compute.strftime(table[name], format="%Y-%m-%dT%H:%M:%S")
        text = pa.compute.binary_join_element_wise(text, zone, "")
        table = table.set_column(table.schema.get_field_index(name), name, text)
    pyarrow.csv.write_csv(table, place / "rows.csv")


def warehouse(place: Path) -> Any:
    """The door to the server of this session."""
    from ml_assets.build import resources

    return resources(environment(place, "warehouse"))["warehouse"]


def environment(place: Path, source: str, home: str = "home") -> Any:
    """The dev environment on this session's server and folders."""
    return load_environment(
        "dev",
        environ={
            "ML_ASSETS_HOME": str(place / home),
            "ML_ASSETS_WAREHOUSE_URL": (place / "url").read_text(),
            "ML_ASSETS_SOURCE": source,
        },
    )


def platform_run(place: Path, source: str, inbox: Path | None = None) -> dict[str, Any]:
    """The real extraction of a day, into an empty lake."""
    import dagster as dg

    from ml_assets.build import build_definitions
    from ml_assets.changes import now
    from ml_assets.runs import run_days
    from ml_assets.sources import take_files

    with tempfile.TemporaryDirectory() as home:
        settings = environment(place, source, home)
        if source != "warehouse":
            landing = settings.landing.model_copy(update={"url": str(inbox), "complete": "renamed"})
            settings = settings.model_copy(update={"source": "landing", "landing": landing})
        definitions = build_definitions(settings)
        definitions.resolve_job_def("claims_ingestion")
        instance = dg.DagsterInstance.ephemeral()
        keys = [dg.AssetKey(["claims", name]) for name in ("raw", "quarantine", "extraction")]

        def work() -> None:
            if source != "warehouse":
                take_files(definitions.resources["source"], CLAIMS, now(), budget_seconds=600.0)
            day = DAY.isoformat()
            run_days(definitions, instance, "claims_ingestion", day, day, assets=keys)

        found = timed(work, 0)
        lake = definitions.resources["lake"]
        if not (rows := lake.rows_per_day("claims/raw").get(DAY.isoformat(), 0)):
            raise RuntimeError(f"{source}: no rows came through")
        return {**found, "rows": rows}


def landed(place: Path, name: str) -> dict[str, Any]:
    """The same from a file: it is dropped, taken, and read."""
    import shutil

    inbox = Path(tempfile.mkdtemp(dir=place))
    shutil.copy(place / name, inbox / name)
    try:
        return platform_run(place, "landing", inbox)
    finally:
        shutil.rmtree(inbox)


def plain_postgres(place: Path) -> dict[str, Any]:
    """ADBC to a Delta table."""
    import adbc_driver_postgresql.dbapi

    def work() -> None:
        with (
            adbc_driver_postgresql.dbapi.connect((place / "url").read_text()) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT * FROM claims.ds_dataset")
            write_plain(cursor.fetch_arrow_table())

    return timed(work, 0)


def plain_csv(place: Path) -> dict[str, Any]:
    """Arrow's CSV reader to a Delta table."""
    import pyarrow.csv

    return timed(lambda: write_plain(pyarrow.csv.read_csv(place / "rows.csv")), 0)


def plain_parquet(place: Path) -> dict[str, Any]:
    """Arrow's Parquet reader to a Delta table."""
    import pyarrow.parquet

    return timed(lambda: write_plain(pyarrow.parquet.read_table(place / "rows.parquet")), 0)


def write_plain(table: pa.Table) -> None:
    """One Delta table, partitioned by day as ours are."""
    from deltalake import write_deltalake

    with tempfile.TemporaryDirectory() as folder:
        day = pa.array(np.full(table.num_rows, DAY.isoformat()))
        write_deltalake(folder, table.append_column("day", day), partition_by=["day"])


def judged(place: Path, *, name: str) -> dict[str, Any]:
    """The contract alone, on rows that are there already."""
    import pyarrow.csv
    import pyarrow.parquet

    from ml_assets.core.contract import judge

    if name == "csv":
        header = pyarrow.csv.open_csv(place / "rows.csv").schema.names
        text = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()))
        table = pyarrow.csv.read_csv(place / "rows.csv", convert_options=text)
    else:
        table = pyarrow.parquet.read_table(place / "rows.parquet")
    zone = environment(place, "warehouse").zone
    schema = CLAIMS.raw.to_schema()
    return timed(
        lambda: judge(
            table,
            schema,
            days=[DAY.isoformat()],
            key=CLAIMS.key,
            received_at=CLAIMS.received_at,
            updated_at=CLAIMS.updated_at,
            zone=zone,
        ),
        table.num_rows,
    )


def validated(place: Path) -> dict[str, Any]:
    """The gate before a table alone, on good rows: types, ranges and categories by Pandera."""
    import pyarrow.parquet

    from ml_assets.assets.common import contract_type
    from ml_assets.core.contract import judge

    zone = environment(place, "warehouse").zone
    schema = CLAIMS.raw.to_schema()
    good = judge(
        pyarrow.parquet.read_table(place / "rows.parquet"),
        schema,
        days=[DAY.isoformat()],
        key=CLAIMS.key,
        received_at=CLAIMS.received_at,
        updated_at=CLAIMS.updated_at,
        zone=zone,
    ).good
    gate = contract_type(schema, "raw")

    def work() -> None:
        if not (check := gate.type_check(None, good)).success:
            raise RuntimeError(check.description)

    return timed(work, len(good))


def some_days() -> pd.DataFrame:
    """A window of ordinary days, as they lie in the features table."""
    day = applications(DAY)[COLUMNS].rename(columns={"income level": "income_level"})
    days = [(DAY + timedelta(days=place)).isoformat() for place in range(WINDOW)]
    return pd.concat([day.assign(day=each) for each in days], ignore_index=True)[
        ["day", *day.columns]
    ]


def lake_overwrite(_: Path) -> dict[str, Any]:
    """Overwrite one day of a table of many, with other content each time."""
    from ml_assets.resources.lake import Lake

    with tempfile.TemporaryDirectory() as folder:
        lake, frame = Lake(folder, {}, 3), some_days()
        lake.write("t", frame, frame["day"].min(), frame["day"].max())
        day = frame[frame["day"] == frame["day"].max()]
        turn = iter(range(1, 100))

        def work() -> None:
            lake.write("t", day.assign(age=next(turn)), day["day"].iloc[0], day["day"].iloc[0])

        return timed(work, len(day), times=20)


def plain_overwrite(_: Path) -> dict[str, Any]:
    """Overwrite one Parquet file."""
    frame = some_days()
    day = frame[frame["day"] == frame["day"].max()]
    turn = iter(range(1, 100))
    with tempfile.TemporaryDirectory() as folder:
        return timed(
            lambda: day.assign(age=next(turn)).to_parquet(Path(folder) / "day.parquet"),
            len(day),
            times=20,
        )


def lake_window(_: Path) -> dict[str, Any]:
    """Read a window of many days."""
    from ml_assets.resources.lake import Lake

    with tempfile.TemporaryDirectory() as folder:
        lake, frame = Lake(folder, {}, 3), some_days()
        first, last = frame["day"].min(), frame["day"].max()
        lake.write("t", frame, first, last)
        return timed(lambda: lake.read("t", first, last), len(frame), times=5)


def plain_window(_: Path) -> dict[str, Any]:
    """Read as many Parquet files."""
    frame = some_days()
    with tempfile.TemporaryDirectory() as folder:
        frame.to_parquet(folder, partition_cols=["day"])
        return timed(lambda: pd.read_parquet(folder), len(frame), times=5)


PAIRS = (
    ("PostgreSQL to the lake", "postgres", "plain_postgres"),
    ("CSV in the landing folder to the lake", "csv", "plain_csv"),
    ("Parquet in the landing folder to the lake", "parquet", "plain_parquet"),
    ("overwrite a day of 180 (plain: one Parquet file)", "overwrite", "plain_overwrite"),
    ("read a window of 180 days (plain: as many Parquet files)", "window", "plain_window"),
)
ALONE = (
    ("validation (the gate of `claims/raw`: types, ranges, categories)", "validated"),
    ("judging typed rows: all of it, quarantine and account too", "judged"),
    ("judging rows of a CSV: all of it", "judged_csv"),
)
TASKS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "postgres": lambda place: platform_run(place, "warehouse"),
    "csv": lambda place: landed(place, "rows.csv"),
    "parquet": lambda place: landed(place, "rows.parquet"),
    "plain_postgres": plain_postgres,
    "plain_csv": plain_csv,
    "plain_parquet": plain_parquet,
    "overwrite": lake_overwrite,
    "plain_overwrite": plain_overwrite,
    "window": lake_window,
    "plain_window": plain_window,
    "validated": validated,
    "judged": lambda place: judged(place, name="parquet"),
    "judged_csv": lambda place: judged(place, name="csv"),
}

if __name__ == "__main__":
    main()
