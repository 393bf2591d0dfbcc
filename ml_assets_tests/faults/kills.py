"""Kills the daily job at seeded moments, runs it again, and compares with a job nobody disturbed.

A worker process has everything imported and forks a child for each attempt, so that an attempt
begins in milliseconds. The child is a process group of its own; it runs the real job on a
persistent Dagster instance, and tells through a pipe when it enters and leaves the functions of
`HOOKS`. The worker listens and sends SIGKILL. What the tests demand is in `test_kills.py`.

    python -m ml_assets_tests.faults.kills --kills 200 --seed 20261124 --report report.md

`--only N` repeats kill number N alone.
"""

import argparse
import ctypes
import functools
import gc
import gzip
import hashlib
import importlib
import json
import os
import pickle
import platform as machine
import random
import re
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

PROJECT = Path(__file__).parents[2]

# Where the job is caught in which phase: adapt this, and only this, when a function moves. Names
# that are not there are passed over, but each phase must have one.
HOOKS: dict[str, tuple[tuple[str, str], ...]] = {
    "landing": (
        ("ml_assets.resources.landing", "Landing.take"),
        ("ml_assets.resources.inbox", "append_files"),
        *(
            ("ml_assets.resources.places", f"Folder.{name}")
            for name in ("tidy", "copy", "keep", "write", "drop", "remove")
        ),
    ),
    "extraction": (
        ("ml_assets.resources.warehouse", "Warehouse.read"),
        ("ml_assets.resources.warehouse", "Warehouse.extract"),
        ("ml_assets.resources.landing", "Landing.extract"),
        ("ml_assets.assets.extraction", "judge"),
        ("ml_assets.assets.extraction", "rejudge"),
    ),
    "write": (
        ("ml_assets.resources.lake", "Lake.write"),
        ("ml_assets.resources.lake", "Lake.append"),
    ),
    "training": (
        ("ml_assets.assets.training", "train"),
        ("ml_assets.assets.training", "evaluate"),
    ),
    "registry": tuple(
        ("ml_assets.resources.registry", f"Registry.{name}")
        for name in ("register", "load", "attach", "set_alias", "versions", "version", "artifact")
    ),
    "event log": (
        (
            "dagster._core.storage.event_log.sqlite.sqlite_event_log",
            "SqliteEventLogStorage.store_event",
        ),
        ("dagster._core.storage.runs.sqlite.sqlite_run_storage", "SqliteRunStorage.add_run"),
        (
            "dagster._core.storage.runs.sqlite.sqlite_run_storage",
            "SqliteRunStorage.handle_run_event",
        ),
    ),
}
COMMIT, OTHER = "commit", "other"  # a part of "write"; and whatever has no hook
PHASES = ("landing", "extraction", "write", COMMIT, "training", "registry", "event log", OTHER)

# What the wall clock or chance decides, and so differs between two runs that are alike: of these
# columns, only which values are missing is compared.
WALL_CLOCK = {
    "champion": ("decided_at",),
    "champion_history": ("at",),
    "landing": ("taken_at",),
    "predictions": ("scored_at", "superseded_at"),
    "shadow": ("scored_at", "superseded_at"),
    "quarantine": ("quarantined_at", "run_id"),
}
# Among a version's files: MLflow's own account of the model (run id, time).
_RUN_FILES = ("model/MLmodel", "model/registered_model_meta")

# A day's job on a platform that serves already, once with a promotion and once without; the job of
# the first day of all, which also creates tables, registry and run records; a day's job whose rows
# come in files; and a replay of quarantine after the contract was mended.
SCENARIOS = ("promoted", "kept", "first", "landed", "replayed")
OWN_BASE = ("first", "landed", "replayed")
FIRST_DAY, SCORED_FROM, BEFORE, DAY = "2026-01-05", "2026-01-15", "2026-01-16", "2026-01-17"
CORRECTED = SCORED_FROM

_WARM = (
    "dagster",
    "deltalake",
    "duckdb",
    "filelock",
    "matplotlib",
    "mlflow",
    "mlflow.artifacts",
    "mlflow.models",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.types",
    "optuna",
    "psycopg",
    "scipy.optimize",
    "sklearn.linear_model",
    "tabulate",
    "xgboost",
    "dagster._core.storage.event_log.sqlite.sqlite_event_log",
    "dagster._core.storage.runs.sqlite.sqlite_run_storage",
    "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage",
    "ml_assets.build",
    "ml_assets_tests.conftest",
)
_COMMIT, _CHECKPOINT = re.compile(r"\d{20}\.json"), re.compile("checkpoint")
# In model cards: who served when; beside rejected files: since when they lie there.
_INSTANT = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? UTC")
_HANGS_AFTER = 180.0  # seconds; the job takes a few


# The job -------------------------------------------------------------------------------------


def environment_of(home: Path, scenario: str) -> Any:
    """The small environment, with the gate and the source that the scenario wants."""
    from ml_assets_tests.conftest import small_environment

    found = small_environment(home)
    gate = {"refresh_after_days": 1, "margin": 0.5} if scenario == "promoted" else {}
    found = found.model_copy(update={"gate": found.gate.model_copy(update=gate)})
    if scenario != "landed":
        return found
    at_once = found.landing.model_copy(update={"complete": "renamed"})
    return found.model_copy(update={"source": "landing", "landing": at_once})


def daily_job(environment: Any, tell: Callable[[str], None]) -> None:
    """What a day asks for: take files, ingest what changed, train, score; as the commands do.

    It runs only what is missing or outdated, so it rests on what a killed run left behind.
    """
    import dagster as dg

    from ml_assets.build import build_definitions, resources
    from ml_assets.changes import changed_days, extracted_fingerprints, now
    from ml_assets.home import prepare_home
    from ml_assets.partitions import days_between, ranges
    from ml_assets.runs import close_dead_runs, run_days
    from ml_assets.schedules import keep_unchanged
    from ml_assets.sources import take_files
    from ml_assets.state import outdated
    from ml_assets_tests.conftest import SMALL

    doors = resources(environment)
    definitions = build_definitions(environment, [SMALL])
    tell("go")
    prepare_home(environment)
    take_files(doors["source"], SMALL, _evening(), budget_seconds=3_600)
    with dg.DagsterInstance.get() as instance:
        close_dead_runs(instance)  # there may be nothing left to run, which would do it too

        def stale(days: Sequence[str], *stages: str) -> set[str]:
            return {day for stage in stages for day in outdated(instance, SMALL, stage, days)}

        def run(job: str, days: set[str], *stages: str, **kwargs: Any) -> None:
            assets = [dg.AssetKey([SMALL.name, stage]) for stage in stages] or None
            for first, last in ranges(days):
                name = f"{SMALL.name}_{job}"
                run_days(definitions, instance, name, first, last, assets=assets, **kwargs)

        source = _source_days(environment, doors)
        extracted = extracted_fingerprints(SMALL, doors["lake"], environment, now())
        run("ingestion", {*changed_days(source, extracted), *stale([*source], "features")})
        run("training", stale([DAY], "training_set"), "training_set")
        decided = ("model", "champion", "model_card")
        run("training", stale([DAY], *decided), *decided)
        said = ("predictions", "shadow")
        scored = days_between(SCORED_FROM, DAY)
        run("scoring", stale(scored, *said), *said, run_config=keep_unchanged(SMALL))


def replay_job(environment: Any, tell: Callable[[str], None]) -> None:
    """What `ml-assets quarantine replay` does, once the contract lets young people apply."""
    import dagster as dg

    from ml_assets.build import build_definitions, resources
    from ml_assets.changes import changed_days, extracted_fingerprints
    from ml_assets.home import prepare_home
    from ml_assets.quarantine import days_to_replay, replay
    from ml_assets.runs import close_dead_runs
    from ml_assets_tests.conftest import SMALL

    doors = resources(environment)
    lake, instant = doors["lake"], _evening(BEFORE)
    definitions = build_definitions(environment, [SMALL])
    tell("go")
    prepare_home(environment)
    source = _source_days(environment, doors)
    with dg.DagsterInstance.get() as instance:
        close_dead_runs(instance)
        try:
            days = days_to_replay(instance, environment, SMALL, lake, None, instant)
        except ValueError:  # none is left
            return
        done = replay(
            definitions,
            instance,
            environment,
            SMALL,
            lake,
            [day for day in days if day >= SCORED_FROM],  # two: the others would be the same again
            changed=changed_days(source, extracted_fingerprints(SMALL, lake, environment, instant)),
            now=instant,
            on_day=lambda _: None,
        )
        if problems := [each.problem for each in done if each.problem]:
            raise RuntimeError("; ".join(problems))


def _source_days(environment: Any, doors: Mapping[str, Any]) -> Mapping[str, Any]:
    """The source's fingerprints."""
    from ml_assets import changes
    from ml_assets_tests.conftest import SMALL

    return changes.source_days(SMALL, environment, doors["source"], changes.now()).days


def _evening(day: str = DAY) -> datetime:
    """The time it is, on another day: in the ledger, a row without a day counts on this one."""
    day_of = date.fromisoformat(day)
    return datetime.now(UTC).replace(year=day_of.year, month=day_of.month, day=day_of.day)


def _strict() -> Any:
    """The use case under a contract that refuses the few who are younger than 30."""
    from dataclasses import replace

    import pandera.pandas as pandera
    from pandera.typing import Series

    from ml_assets.use_cases.claims.schema import ClaimsRaw
    from ml_assets_tests.conftest import SMALL

    class StrictRaw(ClaimsRaw):
        age: Series[int] = pandera.Field(ge=30, le=95)

    return replace(SMALL, raw=StrictRaw)


def prepare(environment: Any, until: str) -> None:
    """A warehouse alone; or, until "served", a platform that has served for a day.

    Until "strict", it did so under a stricter contract, and no new day has come.
    """
    import dagster as dg

    from ml_assets.home import prepare_home
    from ml_assets.sources import take_files
    from ml_assets_tests.conftest import SMALL, Platform

    prepare_home(environment)
    with dg.DagsterInstance.get() as instance:
        use_case = _strict() if until == "strict" else SMALL
        platform = Platform(environment, instance, use_case)
        inbox, lands = Path(environment.landing.url), platform.source.lands
        if lands:
            _drop(inbox, _files_before())
        else:
            platform.arrive(FIRST_DAY, BEFORE)
        if until in ("served", "strict"):
            take_files(platform.source, SMALL, _evening(BEFORE), budget_seconds=3_600)
            platform.run("ingestion", FIRST_DAY, BEFORE)
            platform.run("tuning", BEFORE)
            platform.run("training", BEFORE)
            platform.run("scoring", SCORED_FROM, BEFORE)
        if until == "strict":
            return
        # The new day, and outcomes and corrections of earlier ones: the job itself only reads.
        if lands:
            _drop(inbox, _files_of_day())
        else:
            platform.arrive(DAY, DAY)
    if until != "served":
        shutil.rmtree(environment.dagster_home)


def _files_before() -> dict[str, bytes]:
    """A file for each day that was served already."""
    from ml_assets.partitions import days_between

    days = days_between(FIRST_DAY, BEFORE)
    return {f"{day}.csv": _as_csv(_rows(day, BEFORE)) for day in days}


def _files_of_day() -> dict[str, bytes]:
    """All that can happen to a file: new, corrected, come again, unreadable, of any format."""
    before = _rows(BEFORE, DAY)
    for name in ("received_at", "updated_at"):
        before[name] = before[name].map(lambda at: at.isoformat())
    rows = _rows(DAY, DAY)
    third = len(rows) // 3
    return {
        # Of the first row nobody can tell the day.
        f"{DAY}.csv": _as_csv(rows[:third]).replace(b"T", b"T?", 1),
        f"{DAY}.parquet": rows[third : 2 * third].to_parquet(index=False),
        f"partner/{DAY}.csv.gz": gzip.compress(_as_csv(rows[2 * third :]), mtime=0),
        f"{CORRECTED}.csv": _as_csv(_rows(CORRECTED, DAY)),  # in place of the earlier file
        f"outcomes/{BEFORE}.jsonl": before.to_json(orient="records", lines=True).encode(),
        f"{FIRST_DAY}.csv": _as_csv(_rows(FIRST_DAY, BEFORE)),
        "same.csv": _as_csv(_rows(FIRST_DAY, BEFORE)),
        "broken.parquet": b"PAR1 and then nothing",
    }


def _drop(inbox: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        (inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (inbox / name).write_bytes(content)


def _rows(day: str, known: str) -> Any:
    """The simulated rows of a day, as known at the end of another."""
    from ml_assets.partitions import day_end
    from ml_assets.use_cases.claims.simulator import rows_as_of
    from ml_assets_tests.conftest import SHAPE

    until = day_end(known, ZoneInfo("Europe/London"))
    rows = rows_as_of(date.fromisoformat(day), until, **SHAPE)
    return rows.rename(columns={"income level": "income_level"})


def _as_csv(rows: Any) -> bytes:
    rows = rows.copy()
    for name in ("received_at", "updated_at"):
        rows[name] = rows[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    content: bytes = rows.to_csv(index=False).encode()
    return content


# What a home holds ---------------------------------------------------------------------------


def contents(environment: Any) -> dict[str, Any]:
    """All that two undisturbed runs have in common: tables, models, and that nothing is left."""
    import dagster as dg
    from mlflow import MlflowClient

    from ml_assets.build import resources
    from ml_assets.changes import changed_days, extracted_fingerprints, now
    from ml_assets.home import prepare_home
    from ml_assets.state import LINEAGE, outdated
    from ml_assets_tests.conftest import SMALL

    doors = resources(environment)
    lake, registry = doors["lake"], doors["registry"]
    tables = {}
    for log in sorted(Path(lake.url).glob("*/*/_delta_log")):
        stage = log.parent.name
        frame = lake.read(f"{log.parent.parent.name}/{stage}", "2000-01-01", "2100-01-01")
        for name in {*WALL_CLOCK.get(stage, ())} & {*frame.columns}:
            frame[name] = frame[name].notna()
        tables[stage] = frame.sort_values(list(frame.columns), ignore_index=True)
    client = MlflowClient(tracking_uri=registry.url, registry_uri=registry.url)
    experiments = [each.experiment_id for each in client.search_experiments()]
    underway = client.search_runs(experiments, "attributes.status = 'RUNNING'")
    versions = registry.versions(SMALL.name)
    source = _source_days(environment, doors)
    prepare_home(environment)
    with dg.DagsterInstance.get() as instance:
        runs = instance.get_runs()
        days = {
            stage: sorted(instance.get_materialized_partitions(dg.AssetKey([SMALL.name, stage])))
            for stage in LINEAGE
        }
        old = {stage: outdated(instance, SMALL, stage, days[stage]) for stage in LINEAGE}
    extracted = extracted_fingerprints(SMALL, lake, environment, now())
    done = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}
    return {
        "tables": tables,
        "digests": {
            stage: {name: _digest(frame[name]) for name in frame} for stage, frame in tables.items()
        },
        "models": {
            each.version: {
                "as_of": each.as_of,
                "sha256": each.sha256,
                "metrics": dict(each.metrics),
                "tags": dict(each.tags),
                "aliases": each.aliases,
                "files": _artifacts(environment, each.run_id),
            }
            for each in versions
        },
        "materialised": days,
        "reports": _files(environment.home / "reports"),
        # The inbox too, which must be empty; only the lock's file stays.
        "landing": _files(Path(environment.landing.url), without=".landing.lock"),
        "troubles": [
            *(f"run {run.run_id} of {run.job_name} is {run.status.value}"
              for run in runs if run.status not in done),
            *(f"MLflow's run {run.info.run_name} is RUNNING" for run in underway),
            *(f"{stage} is outdated for {days}" for stage, days in old.items() if days),
            *(f"{day} counts as changed" for day in changed_days(source, extracted)),
            *_wrong_sums(tables),
        ],
    }  # fmt: skip


def _digest(column: Any) -> str:
    """A hash of a column's exact values: floats by their bits, everything else by type and text."""
    if column.dtype.kind == "f":
        values = column.to_numpy().copy()
        values[values != values] = float("nan")
        content = values.tobytes()
    else:
        missing = column.isna()
        content = "\x1f".join(
            "\x00" if gone else f"{type(value).__name__}:{value!r}"
            for value, gone in zip(column, missing, strict=True)
        ).encode()
    return f"{column.dtype} {hashlib.sha256(content).hexdigest()}"


def _artifacts(environment: Any, run_id: str) -> dict[str, str]:
    folders = Path(environment.registry.artifacts).rglob(run_id)
    return {
        name: digest
        for folder in folders
        for name, digest in _files(folder / "artifacts").items()
        if not name.startswith(_RUN_FILES)
    }


def _files(folder: Path, without: str = "") -> dict[str, str]:
    """The hash of each file's content, but for instants of the wall clock in pages and reasons."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(
            _INSTANT.sub(b"", file.read_bytes())
            if file.name.endswith((".html", ".reason.txt"))
            else file.read_bytes()
        ).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != without
    }


def _wrong_sums(tables: Mapping[str, Any]) -> Iterator[str]:
    """Days whose account does not add up, or does not tell what the tables hold."""
    accounts = tables["extraction"].set_index("day")
    counted = {stage: tables[stage].groupby("day").size() for stage in ("raw", "quarantine")}
    for day, account in accounts.iterrows():
        parts = ("rows_kept", "rows_quarantined", "duplicates_dropped")
        if account["rows_read"] != sum(account[part] for part in parts):
            yield f"{day}: rows read are not rows kept, quarantined and dropped"
        for stage, part in (("raw", "rows_kept"), ("quarantine", "rows_quarantined")):
            if account[part] != counted[stage].get(day, 0):
                yield f"{day}: {stage} holds {counted[stage].get(day, 0)} rows, not {account[part]}"


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What is not as after an undisturbed run, in words; empty if all is."""
    told = list(found["troubles"])
    for stage in sorted({*expected["tables"], *found["tables"]}):
        pair = [each["tables"].get(stage) for each in (expected, found)]
        if pair[0] is None or pair[1] is None:
            told.append(f"table {stage} is {'new' if pair[0] is None else 'missing'}")
        elif len(pair[0]) != len(pair[1]):
            told.append(f"table {stage} holds {len(pair[1])} rows, not {len(pair[0])}")
        elif expected["digests"][stage] != found["digests"][stage]:
            told.append(f"table {stage} differs: {_first_difference(*pair)}")
    for part in ("models", "materialised", "reports", "landing"):
        for name in sorted({*expected[part], *found[part]}, key=str):
            before, after = (each[part].get(name) for each in (expected, found))
            if before != after:
                told.append(f"{part} {name}: {_inner_difference(before, after)}")
    return told


def _first_difference(expected: Any, found: Any) -> str:
    if list(expected) != list(found):
        return f"columns {list(found)}, not {list(expected)}"
    for name in expected:
        if _digest(expected[name]) == _digest(found[name]):
            continue
        rows = [
            row
            for row, pair in enumerate(zip(expected[name], found[name], strict=True))
            if repr(pair[0]) != repr(pair[1])
        ]
        at = rows[0] if rows else 0
        return (
            f"{name} in {len(rows)} rows; of {expected['day'].iloc[at]}: "
            f"{_short(found[name].iloc[at])}, not {_short(expected[name].iloc[at])}"
        )
    return "nothing"


def _inner_difference(before: Any, after: Any) -> str:
    if isinstance(before, dict) and isinstance(after, dict):
        return "; ".join(
            f"{key}: {_inner_difference(before.get(key), after.get(key))}"
            for key in sorted({*before, *after}, key=str)
            if before.get(key) != after.get(key)
        )
    return f"{_short(after)}, not {_short(before)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else f"{text[:16]}…{text[-8:]}"


# Children ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """That a child entered or left a hooked function, and the state of its table's log then."""

    at: float
    event: str  # go, enter, leave
    phase: str = ""
    what: str = ""
    commit: int = -1
    half_made: int = 0


@dataclass
class Attempt:
    """What became of a child."""

    records: list[Record] = field(default_factory=list)
    killed_at: float | None = None  # seconds after its start
    seconds: float = 0.0
    error: str = ""


def _hook(lake: Path, tell: Callable[..., None]) -> None:
    """Let the functions of `HOOKS` tell when they are entered and left, in this process alone."""

    def wrap(phase: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def hooked(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() is not threading.main_thread():
                return function(*args, **kwargs)
            what, log = name, None
            if phase == "write":
                what = kwargs.get("table") or args[1]
                log = lake / what / "_delta_log"
            tell("enter", phase, what, *log_state(log))
            try:
                return function(*args, **kwargs)
            finally:
                tell("leave", phase, what, *log_state(log))

        return hooked

    for phase, places in HOOKS.items():
        hooked = 0
        for module, path in places:
            try:
                owner: Any = importlib.import_module(module)
                *outer, name = path.split(".")
                for each in outer:
                    owner = getattr(owner, each)
                function = getattr(owner, name)
            except (ImportError, AttributeError):
                continue
            setattr(owner, name, wrap(phase, path, function))
            hooked += 1
        if not hooked:
            raise LookupError(f"no function of the phase {phase!r} is there: mend HOOKS")


def log_state(log: Path | None) -> tuple[int, int]:
    """The number of a table's newest commit, -1 if there is none, and of commits half-made."""
    names = {name for name in _names(log) if not _CHECKPOINT.search(name)}
    made = {name for name in names if _COMMIT.fullmatch(name)}
    return max((int(name[:20]) for name in made), default=-1), len(names - made)


def _names(log: Path | None) -> set[str]:
    try:
        return {entry.name for entry in os.scandir(log)} if log else set()
    except FileNotFoundError:
        return set()


def _fork(work: Callable[[int], None], log: Path) -> tuple[int, int]:
    """Do something in a process group of its own; returns its id and the end of its pipe."""
    others = [
        name
        for task in Path("/proc/self/task").iterdir()
        if not (name := (task / "comm").read_text()).startswith("jemalloc")
    ]
    assert len(others) == 1, f"a process with threads must not be forked: {others}"
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    code = 1
    try:
        os.setpgid(0, 0)
        os.nice(5)  # on a busy machine, the killer must be faster
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with the worker
        os.close(reader)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        work(writer)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run_job(home: Path, scenario: str, hooks: bool) -> Callable[[int], None]:
    def work(writer: int) -> None:
        environment = environment_of(home, scenario)

        def tell(*record: Any) -> None:
            os.write(writer, (json.dumps([time.monotonic(), *record]) + "\n").encode())

        if hooks:
            _hook(Path(environment.lake.url), tell)
        (replay_job if scenario == "replayed" else daily_job)(environment, tell)

    return work


@dataclass(frozen=True)
class Aim:
    """When to kill.

    Attributes:
        kind: `moment` of the whole job, `start` of it, `enter` or `leave` a phase, or `commit`.
        phase: Of `enter` and `leave`.
        pick: Which of the phase's spans, from 0 to 1.
        fraction: How far into the job or the span, from 0 to 1.
    """

    kind: str
    phase: str
    pick: float
    fraction: float


@dataclass(frozen=True)
class Profile:
    """How long an undisturbed job takes, and its spans: phase, seconds, whether it commits."""

    seconds: float
    spans: tuple[tuple[str, float, bool], ...]


def profile(records: Sequence[Record], seconds: float) -> Profile:
    """The spans of a job, in the order in which they are entered."""
    spans: list[tuple[str, float, bool]] = []
    underway: list[tuple[int, Record]] = []
    for record in records:
        if record.event == "enter":
            underway.append((len(spans), record))
            spans.append((record.phase, 0.0, False))
        elif record.event == "leave":
            place, entered = underway.pop()
            committed = record.commit > entered.commit
            spans[place] = (record.phase, record.at - entered.at, committed)
    return Profile(seconds, tuple(spans))


class _Killer:
    """Follows a child's records and kills it at the moment that an aim names."""

    def __init__(self, aim: Aim | None, known: Profile | None, lake: Path) -> None:
        self.aim, self.lake = aim, lake
        self.attempt = Attempt()
        self.deadline: float | None = None
        self.entered = -1
        self.buffer = b""
        self.target, self.delay = None, 0.0
        if aim is None or known is None:
            return
        if aim.kind in ("moment", "start"):
            self.delay = aim.fraction * known.seconds * (1.0 if aim.kind == "moment" else 0.2)
            return
        wanted = [
            place
            for place, (phase, _, commits) in enumerate(known.spans)
            if (phase == "write" and commits if aim.kind == COMMIT else phase == aim.phase)
        ]
        self.target = wanted[int(aim.pick * len(wanted))]
        seconds = known.spans[self.target][1]
        if aim.kind in (COMMIT, "leave"):
            # It is the first moments that matter: a third of the delays are below 0.1 ms.
            self.delay = 0.005 * aim.fraction**4
        else:
            # A write has made its commit well before it returns.
            self.delay = aim.fraction * seconds * (0.6 if aim.phase == "write" else 1.0)

    def follow(self, pid: int, reader: int) -> Attempt:
        started = time.monotonic()
        hangs_at = started + _HANGS_AFTER
        while True:
            now = time.monotonic()
            until = min(self.deadline or hangs_at, hangs_at)
            if now < until:
                if select.select([reader], [], [], until - now)[0] and not self._read(reader):
                    break
                continue
            os.killpg(pid, signal.SIGKILL)
            if now >= hangs_at:
                self.attempt.error = f"hung: killed after {_HANGS_AFTER:.0f} s"
            break
        _, status = os.waitpid(pid, 0)
        ended = time.monotonic()
        while self._read(reader, aims=False):
            pass
        os.close(reader)
        start = next((each.at for each in self.attempt.records if each.event == "go"), started)
        self.attempt.seconds = ended - start
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
            self.attempt.killed_at = ended - start
        elif status:
            self.attempt.error = f"ended with status {status}"
        return self.attempt

    def _read(self, reader: int, aims: bool = True) -> bool:
        """Take in what the child says; False at its end."""
        data = os.read(reader, 65536)
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            record = Record(*json.loads(line))
            self.attempt.records.append(record)
            if aims and self.aim and self.deadline is None:
                self._aim(record, reader)
        return bool(data)

    def _aim(self, record: Record, reader: int) -> None:
        assert self.aim
        if record.event == "go" and self.target is None:
            self.deadline = record.at + self.delay
        if record.event != "enter" or self.target is None:
            if (
                record.event == "leave"
                and self.aim.kind == "leave"
                and self.entered >= (self.target or 0)
                and record.phase == self.aim.phase
            ):
                self.deadline = record.at + self.delay
            return
        self.entered += 1
        if self.entered != self.target or self.aim.kind == "leave":
            return
        if self.aim.kind == COMMIT:
            self._await_commit(self.lake / record.what / "_delta_log", reader)
            self.deadline = time.monotonic() + self.delay
        else:
            self.deadline = record.at + self.delay

    def _await_commit(self, log: Path, reader: int) -> None:
        """Until a table's log has anything new, or the child says more."""
        before = _names(log)
        while not _names(log) - before and not select.select([reader], [], [], 0)[0]:
            pass


def _phase(attempt: Attempt, lake: Path) -> tuple[str, str]:
    """The innermost phase in which a child was killed, and where in it."""
    underway: list[Record] = []
    for record in attempt.records:
        if record.event == "enter":
            underway.append(record)
        elif record.event == "leave":
            underway.pop()
    if not underway:
        return OTHER, ""
    phase, what = underway[-1].phase, underway[-1].what
    if phase == "write":
        commit, half_made = log_state(lake / what / "_delta_log")
        if commit > underway[-1].commit:
            return COMMIT, f"{what}: log entry made, not told"
        if half_made > underway[-1].half_made:
            return COMMIT, f"{what}: log entry half-made"
    return phase, what


# Workers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """One kill and what came of it: a line of a worker's results."""

    number: int
    scenario: str
    aim: Aim
    phase: str
    what: str
    moment: float
    of: float
    second: str
    failures: list[str]
    home: str


class Worker:
    """Prepares homes, and kills and compares, with one child at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # MLflow and Delta remember absolute paths, so every home is used in the same place.
        self.home = folder / "home"
        self.log = folder / "child.log"
        self.profiles: dict[str, Profile] = {}
        folder.mkdir(parents=True)

    def ready(self) -> None:
        """Make the homes that attempts start from, and run each scenario undisturbed."""
        for base, until in (
            ("first", "delivered"),
            ("served", "served"),
            ("landed", "served"),
            ("replayed", "strict"),
        ):
            self._child(
                lambda _, base=base, until=until: prepare(environment_of(self.home, base), until)
            )
            self.home.rename(self.folder / f"base-{base}")
        for scenario in SCENARIOS:
            self._restore(scenario)
            attempt = self._attempt(scenario, None, hooks=True)
            if attempt.error:
                raise RuntimeError(f"the undisturbed job: {attempt.error}\n{self._told()}")
            self.profiles[scenario] = profile(attempt.records, attempt.seconds)
            expected = self._contents(scenario)
            if expected["troubles"]:
                raise RuntimeError(f"after an undisturbed job: {expected['troubles']}")
            (self.folder / f"expected-{scenario}").write_bytes(pickle.dumps(expected))

    def kill(self, number: int, scenario: str, aim: Aim, second: Aim | None) -> Kill | None:
        """Kill a job, run it again, and compare; None if it was over before."""
        self._restore(scenario)
        known = self.profiles[scenario]
        lake = Path(environment_of(self.home, scenario).lake.url)
        attempt = self._attempt(scenario, aim, hooks=True)
        if attempt.killed_at is None and not attempt.error:
            return None
        phase, what = _phase(attempt, lake)
        failures = [f"the job itself: {attempt.error}\n{self._told()}"] if attempt.error else []
        again = ""
        if second and not failures:
            repeated = self._attempt(scenario, second, hooks=True)
            if repeated.killed_at is not None:
                again = _phase(repeated, lake)[0]
            elif repeated.error:
                failures.append(f"the second job: {repeated.error}\n{self._told()}")
        if not failures:
            failures = self._recover(scenario)
        kept = self.folder / f"kept-{number}"
        if failures:
            self.home.rename(kept)
        return Kill(
            number=number,
            scenario=scenario,
            aim=aim,
            phase=phase,
            what=what,
            moment=round(attempt.killed_at or 0.0, 4),
            of=round(known.seconds, 2),
            second=again,
            failures=failures,
            home=str(kept) if failures else "",
        )

    def _recover(self, scenario: str) -> list[str]:
        attempt = self._attempt(scenario, None, hooks=False)
        if attempt.error:
            return [f"the next ordinary run: {attempt.error}\n{self._told()}"]
        expected = pickle.loads((self.folder / f"expected-{scenario}").read_bytes())
        return differences(expected, self._contents(scenario))

    def _restore(self, scenario: str) -> None:
        shutil.rmtree(self.home, ignore_errors=True)
        base = scenario if scenario in OWN_BASE else "served"
        shutil.copytree(self.folder / f"base-{base}", self.home)

    def _attempt(self, scenario: str, aim: Aim | None, *, hooks: bool) -> Attempt:
        lake = Path(environment_of(self.home, scenario).lake.url)
        killer = _Killer(aim, self.profiles.get(scenario), lake)
        return killer.follow(*_fork(_run_job(self.home, scenario, hooks), self.log))

    def _contents(self, scenario: str) -> dict[str, Any]:
        file = self.folder / "contents"
        self._child(
            lambda _: file.write_bytes(pickle.dumps(contents(environment_of(self.home, scenario))))
        )
        return pickle.loads(file.read_bytes())

    def _child(self, work: Callable[[int], Any]) -> None:
        pid, reader = _fork(work, self.log)
        os.close(reader)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(self._told())

    def _told(self) -> str:
        return self.log.read_text(errors="replace")[-6000:]


# What a scenario has not, or what it is like the others in, makes room for what it alone has.
_INSTEAD = {
    "landed": {
        ("moment", ""): ("enter", "landing"),
        ("enter", "training"): ("leave", "landing"),
        ("enter", "registry"): ("leave", "landing"),
    },
    "replayed": {
        ("start", ""): ("leave", "write"),
        ("enter", "training"): ("leave", "write"),
        ("enter", "registry"): (COMMIT, ""),
    },
}


def plan(number: int, seed: int) -> tuple[str, Aim, Aim | None]:
    """The scenario and the aims of a kill: ten have every kind, fifty in every scenario."""
    kinds = [
        ("moment", ""),
        ("moment", ""),
        ("start", ""),  # on the first day, run records and tables are created
        ("enter", "extraction"),
        ("enter", "write"),
        ("enter", "training"),
        (COMMIT, ""),
        ("leave", "write"),  # committed, but Dagster does not know
        ("enter", "registry"),
        ("enter", "event log"),
    ]
    random.Random(seed).shuffle(kinds)
    kind, phase = kinds[number % len(kinds)]
    scenario = SCENARIOS[(number + number // len(kinds)) % len(SCENARIOS)]
    kind, phase = _INSTEAD.get(scenario, {}).get((kind, phase), (kind, phase))
    chance = random.Random(f"{seed}:{number}")
    aim = Aim(kind, phase, chance.random(), chance.random())
    # Every fifth: the run after the kill is killed too.
    second = Aim("moment", "", 0.0, 0.8 * chance.random()) if number % 5 == 4 else None
    return scenario, aim, second


def work(folder: Path, numbers: Sequence[int], seed: int) -> None:
    """Do the kills with these numbers, and write a line of JSON about each."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with its parent, as its children do with it
    for variable in [*os.environ]:
        if variable.startswith("ML_ASSETS_") or variable == "DAGSTER_HOME":
            del os.environ[variable]
    for module in _WARM:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    worker = Worker(folder)
    worker.ready()
    with (folder / "results.jsonl").open("w") as results:
        for number in numbers:
            scenario, aim, second = plan(number, seed)
            done = worker.kill(number, scenario, aim, second)
            line = asdict(done) if done else {"number": number, "missed": True}
            print(json.dumps(line), file=results, flush=True)


# The report ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Report:
    """A whole round.

    Attributes:
        command: How to repeat it.
        seed: What chose scenarios and moments.
        seconds: Duration, all preparations included.
        kills: Each kill.
        missed: Attempts that were over before the moment came.
    """

    command: str
    seed: int
    seconds: float
    machine: str
    kills: list[dict[str, Any]]
    missed: int

    @property
    def total(self) -> int:
        """Kills, those of the runs after a kill included."""
        return sum(self.per_phase().values())

    def per_phase(self) -> dict[str, int]:
        """How many kills hit which phase."""
        hit = [kill["phase"] for kill in self.kills]
        hit += [kill["second"] for kill in self.kills if kill["second"]]
        return {phase: hit.count(phase) for phase in PHASES}

    @property
    def failures(self) -> list[str]:
        """What was not as after an undisturbed job, with all that it takes to look into it."""
        return [
            f"kill {kill['number']} (seed {self.seed}, {kill['scenario']}, in {kill['phase']} "
            f"{kill['what']} after {kill['moment']} s; home kept in {kill['home']}, made in "
            f"{Path(kill['home']).parent / 'home'}):\n  "
            + "\n  ".join(text[-3000:] for text in kill["failures"])
            for kill in self.kills
            if kill["failures"]
        ]

    def markdown(self) -> str:
        """The report for `docs/reliability.md`."""
        rows = []
        for phase, count in self.per_phase().items():
            moments = [kill["moment"] for kill in self.kills if kill["phase"] == phase]
            span = f"{min(moments):.2f} to {max(moments):.2f} s" if moments else "–"
            failed = sum(bool(k["failures"]) for k in self.kills if k["phase"] == phase)
            rows.append(f"| {phase} | {count} | {span} | {failed} |")
        scenarios = {
            name: sum(kill["scenario"] == name for kill in self.kills) for name in SCENARIOS
        }
        second = sum(bool(kill["second"]) for kill in self.kills)
        return "\n".join(
            [
                f"{self.total} kills, {len(self.failures)} failures, {self.seconds / 60:.1f} "
                f"minutes; seed {self.seed}; {self.machine}.",
                "",
                f"    {self.command}",
                "",
                "| Phase | Kills | Moments of the first kill of a round | Failures |",
                "| --- | ---: | --- | ---: |",
                *rows,
                "",
                f"Rounds: {', '.join(f'{n} {name}' for name, n in scenarios.items())}; in {second} "
                f"of them the run after the kill was killed too. {self.missed} attempts were over "
                "before their moment, and count for nothing.",
                *(f"\n{failure}" for failure in self.failures),
                "",
            ]
        )


def run(
    folder: Path,
    *,
    kills: int,
    seed: int,
    workers: int = 2,
    only: Sequence[int] = (),
    report: Path | None = None,
) -> Report:
    """Kill in worker processes side by side, and gather what they found.

    Args:
        folder: Where homes go; those of failures stay there.
        kills: Number of rounds with a kill each.
        seed: Chooses scenarios and moments.
        workers: Processes side by side.
        only: Do the kills with these numbers alone.
        report: A file for the report: Markdown, with JSON beside it.

    Raises:
        RuntimeError: A worker broke, or the job cannot run undisturbed.
    """
    started = time.monotonic()
    numbers = list(only) or list(range(kills))
    workers = min(workers, len(numbers))
    settings = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    processes = []
    for index in range(workers):
        share = ",".join(map(str, numbers[index::workers]))
        command = [sys.executable, "-m", "ml_assets_tests.faults.kills", "--work"]
        where = ["--folder", str(folder / f"worker-{index}")]
        what = ["--seed", str(seed), "--only", share]
        with (folder / f"worker-{index}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [*command, *where, *what],
                    cwd=PROJECT,
                    env={**os.environ, **settings},
                    stdout=log,
                    stderr=log,
                )
            )
    for index, process in enumerate(processes):
        if process.wait():
            told = (folder / f"worker-{index}.log").read_text(errors="replace")
            raise RuntimeError(f"worker {index} broke:\n{told[-6000:]}")
    lines = [
        json.loads(line)
        for index in range(workers)
        for line in (folder / f"worker-{index}" / "results.jsonl").read_text().splitlines()
    ]
    found = Report(
        command=f"python -m ml_assets_tests.faults.kills --kills {kills} --seed {seed}",
        seed=seed,
        seconds=round(time.monotonic() - started, 1),
        machine=f"{os.cpu_count()} cores, {machine.system()}, Python {machine.python_version()}",
        kills=sorted((line for line in lines if "missed" not in line), key=lambda k: k["number"]),
        missed=sum("missed" in line for line in lines),
    )
    if report:
        report.write_text(found.markdown(), encoding="utf-8")
        content = json.dumps(asdict(found), indent=1)
        report.with_suffix(".json").write_text(content + "\n", encoding="utf-8")
    return found


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=20261124)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="numbers of kills, such as 3,17")
    parser.add_argument("--folder", type=Path, help="where homes go; by default a new one in /tmp")
    parser.add_argument("--report", type=Path, help="Markdown; JSON goes beside it")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    only = [int(number) for number in chosen.only.split(",") if number]
    if chosen.work:
        try:
            work(chosen.folder, only, chosen.seed)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)  # at a regular end, DuckDB's bindings fill pages with leaks
        os._exit(0)
    import tempfile

    folder = chosen.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    folder.mkdir(parents=True, exist_ok=True)
    found = run(
        folder,
        kills=chosen.kills,
        seed=chosen.seed,
        workers=chosen.workers,
        only=only,
        report=chosen.report,
    )
    print(found.markdown())
    return 1 if found.failures else 0


if __name__ == "__main__":
    sys.exit(main())
