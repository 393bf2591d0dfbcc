"""Compare the platform with a plain pandas + xgboost + pyarrow script that does the same work.

Run from the repository root: `make bench`, or `python benchmarks/daily.py --case a1200 --pairs 2`.
Linux and macOS only (`os.wait4`). Cases:

- `a1200`, `a100000`: score one new day of about 1,200 or 100,000 rows: the job `claims_scoring`
  (raw, features, predictions, and a shadow that stays empty since the newest model serves), on a
  home that holds 60 earlier days and a champion.
- `b`: read and clean 365 days of about 1,200 rows: the job `claims_ingestion` as one range run.
- `c`: train on 60 matured days of about 1,200 rows, and judge the model of the day before on the
  same holdout: the job `claims_training`.

The plain side is the `plain_*` functions below. They read the same DuckDB file by the same query,
check the same types, ranges, categories and keys, put bad rows aside, and write Parquet by day.
They import nothing of `ml_assets`; ranges and settings come from a JSON file. In training they
split the days likewise, leave out the same duplicate columns, and judge by ROC AUC and log loss; in
scoring they apply the stored model's calibration and threshold, and give the same reasons.

What they leave out is what a platform is for: history and metadata of every run, atomic tables with
versions, accounts of extractions, hashes of inputs, a model registry; and for each new model its
calibration and threshold, intervals, slices, plots, reasons, guardrails and card. So the difference
holds all of these too; what each of a model's parts costs is in `benchmarks/model.py`.

How to read the table:

- Every run is a process of its own, so its seconds hold the interpreter's start and all imports,
  and its peak memory is its own. Platform and plain script alternate, and so does who goes first.
- Seconds and memory are medians over the pairs. Ratio and difference are medians of the pairs' own
  ratios and differences, which suffer less from a machine whose speed drifts.
- "in job" leaves out the interpreter's start, imports and the building of Dagster's definitions:
  libraries that are imported late are imported before the clock starts, on both sides.
- Before every run of the platform its home is put back as it was prepared, so it never finds its
  work done. Preparation is not measured.
- After the first pair the two results are compared: predictions, rows of the tables, or the bytes
  of the model's trees. The aims are only printed: nothing fails when one is missed.
"""

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

SCORING_DAYS, TRAINING_DAYS, BACKFILL_DAYS = 60, 60, 365
VOLUME = 1_200


@dataclass(frozen=True)
class Case:
    """What is measured, and what we aim for.

    Attributes:
        title: For the table.
        job: The platform's job.
        pairs: Pairs to run unless told otherwise.
        aim: The aim in words.
        met: Whether a ratio and a difference in seconds meet it.
        late: Libraries that the platform imports while the job runs.
        volume: Rows of the measured day or days.
    """

    title: str
    job: str
    pairs: int
    aim: str
    met: Callable[[float, float], bool]
    late: tuple[str, ...]
    volume: int = VOLUME


_SCORING = ("duckdb", "xgboost", "tabulate")
_TRAINING = (
    "xgboost",
    "sklearn.metrics",
    "sklearn.calibration",
    "matplotlib.backends.backend_agg",
    "jinja2",
    "mlflow",
    "mlflow.artifacts",
    "mlflow.pyfunc",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "tabulate",
)
CASES = {
    "a1200": Case(
        "score a day of 1,200 rows",
        "claims_scoring",
        5,
        "at most 3 s more",
        lambda _, difference: difference <= 3,
        _SCORING,
    ),
    "a100000": Case(
        "score a day of 100,000 rows",
        "claims_scoring",
        5,
        "at most 1.3x",
        lambda ratio, _: ratio <= 1.3,
        _SCORING,
        100_000,
    ),
    "b": Case(
        "read and clean {days} days",
        "claims_ingestion",
        3,
        "at most 2x",
        lambda ratio, _: ratio <= 2,
        ("duckdb", "tabulate"),
    ),
    "c": Case(
        "train on 60 days",
        "claims_training",
        5,
        "at most 1.1x",
        lambda ratio, _: ratio <= 1.1,
        _TRAINING,
    ),
}


# The parent: runs children, measures them, prints.


@dataclass(frozen=True)
class Measured:
    """One process: its seconds from start to end, its peak memory, and what it printed."""

    seconds: float
    megabytes: float
    said: dict[str, Any]


def main() -> None:
    """Prepare each case, run its pairs, and print the table."""
    parser = argparse.ArgumentParser(description="Compare the platform with a plain script.")
    parser.add_argument("--case", choices=[*CASES, "all"], default="all", help="default: all")
    parser.add_argument("--pairs", type=_positive, help="pairs of runs; default: 5, for b 3")
    parser.add_argument(
        "--days", type=_positive, default=BACKFILL_DAYS, help="days of case b; default: 365"
    )
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    arguments = parser.parse_args()
    names = list(CASES) if arguments.case == "all" else [arguments.case]
    if arguments.folder:
        arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="daily-", dir=arguments.folder) as folder:
        lines = []
        for name in names:
            pairs = arguments.pairs or CASES[name].pairs
            lines.append(compare(name, Path(folder).resolve() / name, pairs, arguments.days))
            shutil.rmtree(Path(folder) / name)
    _print_table(lines)


def compare(name: str, folder: Path, pairs: int, days: int) -> list[str]:
    """Prepare one case, run its pairs, check that the results agree; a line of the table."""
    prepared, home = folder / "prepared", folder / "home"
    home.mkdir(parents=True)
    _say(f"{name}: preparing …")
    ready = _child("prepare", name, home, str(days))
    home.rename(prepared)
    _say(f"{name}: prepared in {ready.seconds:.0f} s: {ready.said['note']}")
    found: list[dict[str, Measured]] = []
    for pair in range(pairs):
        sides = ("platform", "plain") if pair % 2 == 0 else ("plain", "platform")
        found.append({})
        for side in sides:
            _reset(side, folder)
            found[-1][side] = _child(side, name, home)
        _say(
            f"{name}: pair {pair + 1} of {pairs}: "
            + ", ".join(f"{side} {found[-1][side].seconds:.2f} s" for side in ("platform", "plain"))
        )
        if pair == 0:
            _say(f"{name}: {_child('check', name, home).said['note']}")
    return _line(CASES[name], days, found)


def _reset(side: str, folder: Path) -> None:
    """Put one side back to where its work is not done yet.

    The platform's home keeps its path, since the registry remembers where its models lie.
    """
    if side == "platform":
        shutil.rmtree(folder / "home", ignore_errors=True)
        shutil.copytree(folder / "prepared", folder / "home")
    else:
        shutil.rmtree(folder / "plain", ignore_errors=True)
        if not (folder / "home").exists():
            shutil.copytree(folder / "prepared", folder / "home")
    # What was just copied should not be written to the disk at the expense of the next run.
    os.sync()


def _child(role: str, case: str, home: Path, *more: str) -> Measured:
    """Run this file as a process of its own, and measure it from outside."""
    command = [sys.executable, str(Path(__file__).resolve()), "child", role, case, str(home), *more]
    ours = ("ML_ASSETS_", "DAGSTER_", "MLFLOW_")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            env={**environ, "ML_ASSETS_HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout
        with process.stdout as stdout:
            output = stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            text = errors.read().decode(errors="replace")
            raise SystemExit(f"{' '.join(command[2:])} failed ({process.returncode}):\n{text}")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(seconds, usage.ru_maxrss * unit / 1e6, json.loads(output.splitlines()[-1]))


def _line(case: Case, days: int, found: list[dict[str, Measured]]) -> list[str]:
    def middle(value: Callable[[Measured, Measured], float]) -> float:
        return statistics.median(value(pair["platform"], pair["plain"]) for pair in found)

    ratio = middle(lambda platform, plain: platform.seconds / plain.seconds)
    difference = middle(lambda platform, plain: platform.seconds - plain.seconds)
    return [
        case.title.format(days=days),
        f"{found[0]['plain'].said['rows']:,}",
        f"{middle(lambda platform, _: platform.seconds):.2f}",
        f"{middle(lambda _, plain: plain.seconds):.2f}",
        f"{ratio:.2f}",
        f"{difference:+.2f}",
        f"{middle(lambda platform, _: platform.said['seconds']):.2f}",
        f"{middle(lambda _, plain: plain.said['seconds']):.2f}",
        f"{middle(lambda platform, _: platform.megabytes):.0f}",
        f"{middle(lambda _, plain: plain.megabytes):.0f}",
        f"{case.aim}: {'met' if case.met(ratio, difference) else 'missed'}",
    ]


def _print_table(lines: list[list[str]]) -> None:
    heads = [
        "case",
        "rows",
        "platform s",
        "plain s",
        "ratio",
        "difference s",
        "platform in job s",
        "plain in job s",
        "platform peak MB",
        "plain peak MB",
        "aim",
    ]
    rows = [heads, *lines]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    rows.insert(1, ["-" * width for width in widths])
    print()
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(cells)} |")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("expected a whole number from 1")
    return number


def _say(text: str) -> None:
    print(text, flush=True)


# The children. Each ends with one line of JSON on its standard output.


def child(role: str, case: str, home: Path, days: int) -> None:
    """Play one part in a process of its own."""
    plan_file = home.parent / "plan.json"
    if role == "prepare":
        plan, note = prepare(case, home, days)
        plan_file.write_text(json.dumps(plan, default=str), encoding="utf-8")
        print(json.dumps({"note": note}))
        return
    plan = json.loads(plan_file.read_text(encoding="utf-8"))
    out = home.parent / "plain"
    if role == "platform":
        print(json.dumps({"seconds": platform(CASES[case], plan)}))
    elif role == "plain":
        print(json.dumps(plain(case, plan, home, out)))
    else:
        print(json.dumps({"note": check(case, plan, out)}))


def platform(case: Case, plan: dict[str, Any]) -> float:
    """Run the case's job by the door that the command line uses; the seconds of the run."""
    import dagster as dg

    from ml_assets.build import build_definitions
    from ml_assets.environment import load_environment
    from ml_assets.home import prepare_home
    from ml_assets.runs import run_days

    environment = load_environment("dev")
    prepare_home(environment)
    definitions = build_definitions(environment)
    for library in case.late:
        importlib.import_module(library)
    with dg.DagsterInstance.get() as instance:
        start = time.perf_counter()
        run_days(definitions, instance, case.job, plan["first"], plan["last"])
        return time.perf_counter() - start


def prepare(name: str, home: Path, days: int) -> tuple[dict[str, Any], str]:
    """Let applications arrive and make what the case builds upon; what the plain script is told."""
    import dagster as dg

    from ml_assets.build import build_definitions, resources
    from ml_assets.environment import load_environment
    from ml_assets.home import prepare_home
    from ml_assets.partitions import day_end, day_start
    from ml_assets.runs import run_days
    from ml_assets.use_cases.claims.delivery import deliver
    from ml_assets.use_cases.claims.use_case import CLAIMS

    case = CASES[name]
    environment = load_environment("dev")
    prepare_home(environment)
    definitions = build_definitions(environment)
    doors = resources(environment)
    start = CLAIMS.start_date
    if name == "b":
        first, last = start, start + timedelta(days=days - 1)
        if last >= date.today():
            raise SystemExit(f"--days {days}: there are {(date.today() - start).days} until today")
        before: list[date] = []
    elif name == "c":
        first = last = start + timedelta(days=TRAINING_DAYS + CLAIMS.label_maturity_days - 1)
        before = [start, last]
    else:
        first = last = _weekday(start + timedelta(days=SCORING_DAYS))
        before = [first - timedelta(days=SCORING_DAYS), first - timedelta(days=1)]
    # The measured day first: its volume is its own, and what is there is not made anew.
    if first == last:
        deliver(doors["warehouse"], environment, first, last, daily_volume=case.volume)
    deliver(doors["warehouse"], environment, min([first, *before]), last)

    settings, zone = environment.training, environment.zone
    plan: dict[str, Any] = {
        "first": first.isoformat(),
        "last": last.isoformat(),
        "query": CLAIMS.query.replace(":start", "$start").replace(":end", "$end"),
        "start": day_start(first, zone).isoformat(),
        "end": day_end(last, zone).isoformat(),
        "time_zone": environment.time_zone,
        "warehouse": "warehouse.duckdb",
        "key": CLAIMS.key,
        "target": CLAIMS.target,
        "columns": _rules(CLAIMS.raw.to_schema()),
        "dropped": list(CLAIMS.dropped),
        "inputs": CLAIMS.inputs,
        "categorical": CLAIMS.categorical,
        "training": settings.model_dump(),
        "reasons": environment.scoring.reasons,
    }
    note = f"{first} to {last}"
    with dg.DagsterInstance.get() as instance:
        if before:

            def run(job: str, first: date, last: date) -> None:
                days = first.isoformat(), last.isoformat()
                run_days(definitions, instance, f"claims_{job}", *days)

            earlier = before[1] - timedelta(days=1) if name == "c" else before[1]
            run("ingestion", *before)
            run("training", earlier, earlier)
            # Puts the champion into the cache of models, where a daily run finds it.
            run("scoring", earlier, earlier)
            day = earlier.isoformat()
            champion = doors["lake"].read("claims/champion", day, day).iloc[0]
            plan["model"] = f"cache/{champion['sha256']}"
            note += f", champion version {champion['version']}"
    if name == "c":
        matured = last - timedelta(days=CLAIMS.label_maturity_days)
        plan["window"] = [start.isoformat(), matured.isoformat()]
        whole = {
            "start": day_start(start, zone).isoformat(),
            "end": day_end(last, zone).isoformat(),
        }
        plain_ingest({**plan, **whole}, home, home.parent / "plain_features")
        note += f", trains on {start} to {matured}"
    return plan, note


def _weekday(day: date) -> date:
    while day.weekday() >= 5:
        day += timedelta(days=1)
    return day


def _rules(schema: Any) -> dict[str, dict[str, Any]]:
    """A Pandera contract as plain data: type, whether missing is fine, range or values."""
    rules: dict[str, dict[str, Any]] = {}
    for name, column in schema.columns.items():
        if name == "day":
            continue
        dtype = column.dtype.type
        text = "object" if getattr(dtype, "kind", "") in ("U", "O") else str(dtype)
        rules[name] = {"dtype": text, "nullable": column.nullable}
        for found in column.checks:
            rules[name].update(found.statistics)
    return rules


def check(name: str, plan: dict[str, Any], out: Path) -> str:
    """Compare what both sides made; a sentence."""
    from ml_assets.build import resources
    from ml_assets.environment import load_environment

    doors = resources(load_environment("dev"))
    first, last, key = plan["first"], plan["last"], plan["key"]
    if name == "c":
        model = doors["lake"].read("claims/model", last, last).iloc[0]
        trees = doors["registry"].load("claims", int(model["version"]), model["sha256"]).trees
        same = trees == (out / "model.ubj").read_bytes()
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        gap = abs(model["log_loss"] - report["log_loss"])
        return (
            f"the trees' bytes are {'the same' if same else 'DIFFERENT'} on both sides "
            f"({len(trees):,}); the log losses differ by {gap:g}, the platform's after the "
            f"calibration {model['calibration']!r}"
        )
    if name == "b":
        notes = []
        for table in ("raw", "features"):
            ours = doors["lake"].read(f"claims/{table}", first, last)
            theirs = _read_parquet(out / table)[list(ours.columns)].astype(ours.dtypes.to_dict())
            theirs = theirs.sort_values(["day", key], ignore_index=True)
            same = ours.sort_values(["day", key], ignore_index=True).equals(theirs)
            notes.append(f"{table} {'the same' if same else 'DIFFERENT'} ({len(ours):,} rows)")
        return f"both sides wrote: {', '.join(notes)}"
    ours = doors["lake"].read("claims/predictions", first, last).set_index(key)
    theirs = _read_parquet(out / "predictions").set_index(key)
    same = set(ours.index) == set(theirs.index) and len(ours) == len(theirs)
    theirs = theirs.reindex(ours.index)
    gap = (ours["probability"] - theirs["probability"]).abs().max()
    others = [f"{name} of {(ours[name] != theirs[name]).sum():,}" for name in ("refer", "reasons")]
    return (
        f"{'the same' if same else 'DIFFERENT'} {len(ours):,} applications scored on both sides; "
        f"largest difference of a probability: {gap:g}; differing: {', '.join(others)}"
    )


# The plain script: nothing below knows of ml_assets.


def plain(name: str, plan: dict[str, Any], home: Path, out: Path) -> dict[str, Any]:
    """Do the case's work; rows that came in, and seconds without imports."""
    needed = {"b": ("duckdb",), "c": ("xgboost", "sklearn.metrics")}
    for library in ("pyarrow.parquet", *needed.get(name, ("duckdb", "xgboost"))):
        importlib.import_module(library)
    start = time.perf_counter()
    if name == "c":
        rows = plain_train(plan, home, out)
    else:
        rows, features = plain_ingest(plan, home, out)
        if name != "b":
            _write_parquet(plain_score(features, plan, home), out / "predictions")
    return {"rows": rows, "seconds": time.perf_counter() - start}


def plain_ingest(plan: dict[str, Any], home: Path, out: Path) -> tuple[int, pd.DataFrame]:
    """Read days from the warehouse, put bad rows aside, write raw rows and features."""
    import duckdb

    window = {name: datetime.fromisoformat(plan[name]) for name in ("start", "end")}
    with duckdb.connect(str(home / plan["warehouse"]), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(plan["query"], window).df()
    good, bad = plain_judge(rows, plan)
    _write_parquet(good, out / "raw")
    _write_parquet(bad, out / "quarantine")
    features = good.drop(columns=plan["dropped"])
    _write_parquet(features, out / "features")
    return len(rows), features


def plain_judge(rows: pd.DataFrame, plan: dict[str, Any]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split rows into good ones, typed and in order, and bad ones with the column at fault."""
    key = plan["key"]
    local = rows["received_at"].dt.tz_convert(plan["time_zone"]).dt.tz_localize(None)
    rows.insert(0, "day", np.datetime_as_string(local.to_numpy(), unit="D"))
    shared = rows[rows[key].duplicated(keep=False)]
    rows = rows.drop(index=shared.index[shared.duplicated()])

    reason = pd.Series(None, index=rows.index, dtype=object)
    typed = {"day": rows["day"]}
    for name, rule in plan["columns"].items():
        number = "int" in rule["dtype"].lower() or "float" in rule["dtype"]
        values = pd.to_numeric(rows[name], errors="coerce") if number else rows[name]
        missing = values.isna()
        fault = missing & rows[name].notna() if rule["nullable"] else missing
        if "min_value" in rule:
            fault = fault | (~values.between(rule["min_value"], rule["max_value"]) & ~missing)
        if "allowed_values" in rule:
            fault = fault | (~values.isin(rule["allowed_values"]) & ~missing)
        if "int" in rule["dtype"].lower() and values.dtype.kind == "f":
            fault = fault | (values.mod(1).ne(0) & ~missing)
        if fault.any():
            reason[fault & reason.isna()] = name
        typed[name] = values
    reason[rows[key].duplicated(keep=False) & reason.isna()] = "duplicate key"

    good = pd.DataFrame(typed)[reason.isna()]
    good = good.astype({name: rule["dtype"] for name, rule in plan["columns"].items()})
    bad = rows.assign(reason=reason)[reason.notna()]
    return good.sort_values(["day", key], ignore_index=True), bad.sort_values("day")


def plain_encode(
    frame: pd.DataFrame, inputs: list[str], vocabulary: dict[str, list[Any]]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The matrix that the trees see, and what XGBoost needs to know of its columns."""
    matrix = np.empty((len(frame), len(inputs)), dtype=np.float32)
    for position, name in enumerate(inputs):
        if name in vocabulary:
            codes = pd.Index(vocabulary[name]).get_indexer(frame[name])
            matrix[:, position] = np.where(codes < 0, np.nan, codes)
        else:
            matrix[:, position] = frame[name].to_numpy(dtype=np.float32)
    return matrix, {
        "feature_names": list(inputs),
        "feature_types": ["c" if name in vocabulary else "q" for name in inputs],
        "enable_categorical": True,
    }


def plain_load(frame: pd.DataFrame, folder: Path, threads: int) -> tuple[Any, Any, dict[str, Any]]:
    """A stored model `model.ubj`, rows as it sees them, and the JSON file with all else of it."""
    import xgboost as xgb

    content = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    booster = xgb.Booster({"nthread": threads})
    booster.load_model(folder / "model.ubj")
    matrix, about = plain_encode(frame, content["inputs"], content["vocabulary"])
    return booster, xgb.DMatrix(matrix, nthread=threads, **about), content


def plain_predict(booster: Any, rows: Any, content: dict[str, Any]) -> np.ndarray:
    """Calibrated probabilities."""
    margin = booster.predict(rows, output_margin=True).astype(np.float64)
    return plain_calibrate(margin, content["calibration"])


def plain_calibrate(margin: np.ndarray, calibration: dict[str, Any]) -> np.ndarray:
    """Probabilities for log-odds by a stored calibration."""
    match calibration:
        case {"method": "isotonic", "x": x, "y": y}:
            return np.interp(margin, x, y)
        case {"method": "platt", "slope": slope, "intercept": intercept}:
            margin = slope * margin + intercept
        case {"method": "beta", "a": a, "b": b, "intercept": c}:
            margin = b * np.logaddexp(0, margin) - a * np.logaddexp(0, -margin) + c
    return np.exp(-np.logaddexp(0, -margin))


def plain_score(features: pd.DataFrame, plan: dict[str, Any], home: Path) -> pd.DataFrame:
    """Predictions of a day."""
    folder, threads = home / plan["model"], plan["training"]["threads"]
    booster, rows, content = plain_load(features, folder, threads)
    probability = plain_predict(booster, rows, content)
    effects = booster.predict(rows, pred_contribs=True)[:, :-1].astype(np.float64)
    return features[["day", plan["key"], "received_at"]].assign(
        probability=probability,
        refer=probability >= content["threshold"],
        reasons=plain_reasons(features, effects, content["inputs"], plan["reasons"]),
    )


def plain_reasons(
    features: pd.DataFrame, effects: np.ndarray, inputs: list[str], top: int
) -> list[str]:
    """The strongest effects of each row as JSON: input, value, effect in log-odds."""
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :top]
    strongest = np.take_along_axis(effects, order, axis=1).round(4).tolist()
    values = [features[name].tolist() for name in inputs]
    return [
        json.dumps(
            [[inputs[at], values[at][row], effect] for at, effect in zip(*both, strict=True)]
        )
        for row, both in enumerate(zip(order.tolist(), strongest, strict=True))
    ]


def plain_duplicates(train: pd.DataFrame, inputs: list[str]) -> set[str]:
    """Columns that repeat an earlier one: numbers up to scale and rounding, text one to one."""
    numbers = train[inputs].select_dtypes("number")
    texts = train[inputs].select_dtypes(exclude="number")
    correlation = np.corrcoef(numbers.to_numpy(np.float64, na_value=np.nan), rowvar=False)
    same = np.triu(np.abs(correlation) >= 1 - 1e-6, k=1).any(axis=0)
    codes = pd.Series([pd.factorize(texts[name])[0].tobytes() for name in texts], dtype=object)
    return {*numbers.columns[same], *texts.columns[codes.duplicated()]}


def plain_train(plan: dict[str, Any], home: Path, out: Path) -> int:
    """Fit on the older days, evaluate on the newest, judge the model that serves, save both."""
    import xgboost as xgb
    from sklearn.metrics import log_loss, roc_auc_score

    settings, target = plan["training"], plan["target"]
    columns = ["day", plan["key"], target, *plan["inputs"]]
    frame = _read_parquet(home.parent / "plain_features" / "features", columns, plan["window"])
    rows = len(frame)
    frame = frame[frame[target].notna()].sort_values(["day", plan["key"]])
    days = sorted(frame["day"].unique())
    # From the newest: the holdout, days to calibrate on, which are not used here, and validation.
    sizes = [settings[f"{part}_days"] for part in ("holdout", "calibration", "validation")]
    *_, validation_end, train_end = len(days) - np.cumsum(sizes)
    parts = days[:train_end], days[train_end:validation_end], days[-sizes[0] :]
    train, validation, holdout = (frame[frame["day"].isin(part)] for part in parts)
    duplicates = plain_duplicates(train, plan["inputs"])
    inputs = [name for name in plan["inputs"] if name not in duplicates]
    vocabulary = {
        name: sorted(train[name].dropna().unique().tolist())
        for name in plan["categorical"]
        if name in inputs
    }

    def matrix(part: pd.DataFrame, ref: Any = None) -> Any:
        values, about = plain_encode(part, inputs, vocabulary)
        label = part[target].to_numpy(dtype=np.float32)
        threads = settings["threads"]
        return xgb.QuantileDMatrix(values, label=label, ref=ref, nthread=threads, **about)

    train_matrix = matrix(train)
    booster = xgb.train(
        {
            **settings["parameters"],
            "objective": "binary:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "seed": settings["seed"],
            "nthread": settings["threads"],
        },
        train_matrix,
        num_boost_round=settings["max_rounds"],
        evals=[(matrix(validation, train_matrix), "validation")],
        early_stopping_rounds=settings["early_stopping_rounds"],
        verbose_eval=False,
    )
    out.mkdir(parents=True, exist_ok=True)
    booster[: booster.best_iteration + 1].save_model(out / "model.ubj")
    content = {"inputs": inputs, "vocabulary": vocabulary, "calibration": {"method": "none"}}
    (out / "bundle.json").write_text(json.dumps(content), encoding="utf-8")
    outcome = holdout[target].to_numpy(dtype=np.int8)
    ours, serving = (
        plain_predict(*plain_load(holdout, folder, settings["threads"]))
        for folder in (out, home / plan["model"])
    )
    report = {
        "roc_auc": float(roc_auc_score(outcome, ours)),
        "log_loss": float(log_loss(outcome, ours)),
        "serving_log_loss": float(log_loss(outcome, serving)),
    }
    (out / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return rows


# File by file, not by `pyarrow.dataset`, which at times aborts the interpreter at exit.


def _write_parquet(frame: pd.DataFrame, folder: Path) -> None:
    """Write a file per day; the rows are in the order of their days."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    days, starts = np.unique(frame["day"].to_numpy(str), return_index=True)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for day, start, end in zip(days, starts, [*starts[1:], len(frame)], strict=False):
        file = folder / f"day={day}" / "rows.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.slice(start, end - start), file)


def _read_parquet(
    folder: Path, columns: list[str] | None = None, window: list[str] | None = None
) -> pd.DataFrame:
    """Read the files of the days of a window, or all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    first, last = window or ("", "9")
    tables = []
    for part in sorted(folder.iterdir()):
        if first <= part.name.removeprefix("day=") <= last:
            with pq.ParquetFile(part / "rows.parquet") as file:
                tables.append(file.read(columns))
    return pa.concat_tables(tables).to_pandas()


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        _role, _case, _home, *_days = sys.argv[2:]
        child(_role, _case, Path(_home), int(_days[0]) if _days else BACKFILL_DAYS)
    else:
        main()
