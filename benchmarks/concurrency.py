"""Eight processes that write different days of one table, against one that writes the same.

Run from the repository root: `python benchmarks/concurrency.py`. Each day is a commit of its own,
of 1,200 rows with 45 columns, as the daily job makes them. Processes are started, and have imported
all they need, before the clock begins. The cost of a table's age follows: opening and reading after
a thousand commits.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.resources.lake import Lake

TABLE = "claims/features"
ROWS, COLUMNS = 1_200, 45


def main() -> None:
    """Print both measurements as tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--days", type=int, default=20, help="of each writer")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--commits", type=int, default=1_000)
    asked = parser.parse_args()
    print(f"{asked.writers * asked.days} commits of {ROWS} rows, best of {asked.repeat}:\n")
    print("| writers | seconds | commits per second |")
    print("| --- | --- | --- |")
    for writers in (1, asked.writers):
        each = asked.writers * asked.days // writers
        seconds = min(write(writers, each) for _ in range(asked.repeat))
        print(f"| {writers} | {seconds:.2f} | {writers * each / seconds:.0f} |")
    print("\n| commits | open, ms | files of all days, ms | read a day, ms | log of 20, ms |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        lake, done = lake_in(Path(folder)), 0
        for commits in (10, asked.commits // 10, asked.commits):
            for number in range(done, commits):
                day = a_day(0, number % 365)
                lake.write(TABLE, rows(day, number, count=10), day, day)
            done = commits
            day = a_day(0, 3)
            figures = (
                best(lambda: lake.version(TABLE)),
                best(lambda: lake.files(TABLE)),
                best(lambda day=day: lake.read(TABLE, day, day)),
                best(lambda: lake.log(TABLE, limit=20)),
            )
            print(f"| {commits:,} | {' | '.join(f'{each:.1f}' for each in figures)} |")


def write(writers: int, days: int) -> float:
    """Seconds from the start shot until the last of the writers is done."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        lake = lake_in(Path(folder))
        first = "2019-12-31"
        lake.write(TABLE, rows(first, 0), first, first)
        start = context.Barrier(writers + 1)
        processes = [
            context.Process(target=write_days, args=(start, folder, writer, days))
            for writer in range(writers)
        ]
        for process in processes:
            process.start()
        start.wait()
        began = time.perf_counter()
        for process in processes:
            process.join()
        seconds = time.perf_counter() - began
        there = lake.rows_per_day(TABLE)
        if any(process.exitcode for process in processes) or len(there) != writers * days + 1:
            raise RuntimeError(f"{len(there)} days instead of {writers * days + 1}")
        return seconds


def write_days(start: Any, folder: str, writer: int, days: int) -> None:
    """What each process does."""
    lake = lake_in(Path(folder))
    frames = {day: rows(day, writer) for day in (a_day(writer, number) for number in range(days))}
    start.wait()
    for day, frame in frames.items():
        lake.write(TABLE, frame, day, day)


def lake_in(folder: Path) -> Lake:
    """The table's place."""
    return Lake(url=str(folder), storage_options={}, attempts=8)


def a_day(writer: int, number: int) -> str:
    """A day that no other writer has."""
    return (date(2020, 1, 1) + timedelta(days=400 * writer + number)).isoformat()


def rows(day: str, seed: int, count: int = ROWS) -> pd.DataFrame:
    """A day's rows."""
    values = np.random.Generator(np.random.PCG64(seed)).random((count, COLUMNS - 2))
    frame = pd.DataFrame(values, columns=[f"x{number}" for number in range(COLUMNS - 2)])
    frame.insert(0, "day", day)
    frame.insert(1, "id", [f"{day}/{number:05}" for number in range(count)])
    return frame


def best(work: Callable[[], object], times: int = 5) -> float:
    """Milliseconds of the quickest of some calls."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return 1_000 * min(found)


if __name__ == "__main__":
    main()
