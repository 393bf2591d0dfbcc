"""What the model's parts cost over bare XGBoost on the same rows, in the same session.

Run from the repository root: `python benchmarks/model.py`. Training is compared with `xgb.train` on
the same binned rows and rounds, scoring with `inplace_predict` on a matrix of codes that is there
already. Every measurement is a process of its own; seconds are medians of repeated pairs. Memory is
the process's peak above its level before the work, over the size of the raw frame.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ml_assets.core.bundle import Bundle, calibrated, contributions, encode, margins, predict
from ml_assets.core.contract import judge
from ml_assets.core.evaluation import Importance, Scored, evaluate, slice_groups
from ml_assets.core.explanations import strongest_reasons
from ml_assets.core.gate import paired_bootstrap, slice_guardrail
from ml_assets.core.splits import TimeSplit, split_by_day
from ml_assets.core.training import Recipe, Trained, fit, train
from ml_assets.environment import load_environment
from ml_assets.use_cases.claims.simulator import applications
from ml_assets.use_cases.claims.use_case import CLAIMS

ENVIRONMENT = load_environment("dev", environ={})
SETTINGS = ENVIRONMENT.training
DAYS = 60
TARGET = CLAIMS.target


def main() -> None:
    """Print a row per part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(arguments.child)))
        return
    print("| what | rows | ours s | bare s | ratio | peak memory / raw data |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, ours, bare in PAIRS:
        found = [(child(ours), child(bare)) for _ in range(arguments.repeats)]
        seconds = [median(pair[side]["seconds"] for pair in found) for side in (0, 1)]
        ratio = median(a["seconds"] / b["seconds"] for a, b in found)
        first = found[0][0]
        print(
            f"| {name} | {first['rows']:,} | {seconds[0]:.2f} | {seconds[1]:.2f} | {ratio:.2f} | "
            f"{median(each['memory'] for each, _ in found):.1f} |"
        )
    print("\n| what | rows | s |\n| --- | --- | --- |")
    for name, task in ALONE:
        found_alone = [child(task) for _ in range(arguments.repeats)]
        seconds_alone = median(each["seconds"] for each in found_alone)
        print(f"| {name} | {found_alone[0]['rows']:,} | {seconds_alone:.2f} |")


def child(task: str) -> dict[str, Any]:
    """Measure a task in a process of its own."""
    command = [sys.executable, __file__, "--child", task]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(task: str) -> dict[str, Any]:
    """Prepare a task, then time it."""
    import xgboost  # noqa: F401  (its import is not the work)

    work, frame = TASKS[task]()
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux: begin the peak anew
    started = time.perf_counter()
    work()
    seconds = time.perf_counter() - started
    size = frame.memory_usage(deep=True).sum() / 2**20
    return {"seconds": seconds, "rows": len(frame), "memory": (_memory("VmHWM") - before) / size}


def _memory(what: str) -> float:
    """Memory of this process in MiB: `VmRSS` now, `VmHWM` at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 2**10


@cache
def labelled() -> pd.DataFrame:
    """Clean, labelled feature rows of sixty days, as training reads them."""
    first = date(2026, 1, 5)
    rows = pd.concat(applications(first + timedelta(days=i)) for i in range(DAYS))
    days = [(first + timedelta(days=i)).isoformat() for i in range(DAYS)]
    judged = judge(
        pa.Table.from_pandas(  # as source.sql gives them
            rows.rename(columns={"income level": "income_level"}), preserve_index=False
        ),
        CLAIMS.raw.to_schema(),
        days=days,
        key=CLAIMS.key,
        received_at=CLAIMS.received_at,
        updated_at=CLAIMS.updated_at,
        zone=ENVIRONMENT.zone,
    )
    frame = judged.good[list(CLAIMS.features.to_schema().columns)]
    return frame[frame[TARGET].notna()].reset_index(drop=True)


@cache
def split() -> TimeSplit:
    """The default split of those days."""
    return split_by_day(
        labelled()["day"].unique(),
        validation_days=SETTINGS.validation_days,
        calibration_days=SETTINGS.calibration_days,
        holdout_days=SETTINGS.holdout_days,
    )


def trained() -> Trained:
    """A model as the platform trains it."""
    recipe = Recipe(
        parameters=SETTINGS.parameters,
        seed=SETTINGS.seed,
        max_rounds=SETTINGS.max_rounds,
        early_stopping_rounds=SETTINGS.early_stopping_rounds,
        calibration_folds=SETTINGS.calibration_folds,
        costs=CLAIMS.costs,
    )
    return train(
        labelled(),
        split(),
        recipe,
        inputs=CLAIMS.inputs,
        categorical=CLAIMS.categorical,
        target=TARGET,
        threads=SETTINGS.threads,
        facts={},
    )


def train_ours() -> tuple[Callable[[], object], pd.DataFrame]:
    """Fit, calibrate, choose a threshold."""
    frame = labelled()
    split()
    return trained, frame


def train_bare() -> tuple[Callable[[], object], pd.DataFrame]:
    """`xgb.train` on the same codes, with the same early stopping."""
    import xgboost as xgb

    frame = labelled()
    bundle = trained().bundle
    parts = [split().rows(frame, part) for part in ("train", "validation")]
    coded = [encode(part, bundle.inputs, bundle.vocabulary) for part in parts]
    outcomes = [part[TARGET].to_numpy(dtype=np.float32) for part in parts]
    types = ["c" if name in bundle.vocabulary else "q" for name in bundle.inputs]

    def work() -> object:
        options = {"feature_types": types, "enable_categorical": True, "nthread": SETTINGS.threads}
        matrix = xgb.QuantileDMatrix(coded[0], outcomes[0], **options)
        return xgb.train(
            {
                **SETTINGS.parameters,
                "objective": "binary:logistic",
                "eval_metric": "logloss",
                "seed": SETTINGS.seed,
                "nthread": SETTINGS.threads,
            },
            matrix,
            SETTINGS.max_rounds,
            evals=[(xgb.QuantileDMatrix(coded[1], outcomes[1], ref=matrix, **options), "v")],
            early_stopping_rounds=SETTINGS.early_stopping_rounds,
            verbose_eval=False,
        )

    return work, frame


def many(rows: int) -> pd.DataFrame:
    """So many feature rows, by repetition."""
    frame = labelled()
    return frame.iloc[np.arange(rows) % len(frame)].reset_index(drop=True)


def score_ours(rows: int, what: str) -> tuple[Callable[[], object], pd.DataFrame]:
    """Score rows: raw, calibrated, or calibrated with reasons."""
    bundle, frame = trained().bundle, many(rows)
    threads = SETTINGS.threads
    work: dict[str, Callable[[], object]] = {
        "raw": lambda: margins(bundle, frame, threads),
        "calibrated": lambda: predict(bundle, frame, threads),
        "reasons": lambda: (
            predict(bundle, frame, threads),
            strongest_reasons(bundle, frame, ENVIRONMENT.scoring.reasons, threads),
        ),
    }
    return work[what], frame


def score_bare(rows: int) -> tuple[Callable[[], object], pd.DataFrame]:
    """`inplace_predict` on codes that are there already."""
    import xgboost as xgb

    bundle: Bundle = trained().bundle
    frame = many(rows)
    matrix = encode(frame, bundle.inputs, bundle.vocabulary)
    booster = xgb.Booster({"nthread": SETTINGS.threads})
    booster.load_model(bytearray(bundle.trees))
    return lambda: booster.inplace_predict(matrix, validate_features=False), frame


def alone(what: str) -> tuple[Callable[[], object], pd.DataFrame]:
    """Parts of a day's training that bare XGBoost has nothing to compare with."""
    model = trained()
    bundle, frame = model.bundle, labelled()
    holdout = split().rows(frame, "holdout")
    outcome = holdout[TARGET].to_numpy(dtype="int8")
    ours = predict(bundle, holdout)
    theirs = calibrated(margins(bundle, holdout) * 1.1, bundle.calibration)
    gate = ENVIRONMENT.gate
    bootstrap = {"confidence": gate.confidence, "resamples": gate.resamples, "seed": 0}

    def judge_pair() -> object:
        from ml_assets.assets.champion import gate_limits

        return paired_bootstrap(ours, theirs, outcome, **bootstrap), slice_guardrail(
            ours,
            theirs,
            outcome,
            slice_groups(holdout, CLAIMS.slices),
            gate_limits(gate),
            **bootstrap,
        )

    def evaluation() -> object:
        effects = np.abs(contributions(bundle, holdout)[:, :-1]).mean(axis=0)
        parts = {}
        for name in ("train", "holdout"):
            rows = split().rows(frame, name)
            margin = margins(bundle, rows, SETTINGS.threads)
            probability = calibrated(margin, bundle.calibration)
            parts[name] = Scored(rows, margin, probability, rows[TARGET].to_numpy(dtype="int8"))
        return evaluate(
            parts,
            calibration=model.calibration,
            threshold=model.threshold,
            costs=CLAIMS.costs,
            importance=[
                Importance(feature=name, gain=0.0, contribution=float(effect))
                for name, effect in zip(bundle.inputs, effects, strict=True)
            ],
            slices=CLAIMS.slices,
            resamples=ENVIRONMENT.evaluation.resamples,
            seed=0,
        )

    def fit_alone() -> object:
        return fit(
            frame,
            split(),
            inputs=bundle.inputs,
            categorical=tuple(bundle.vocabulary),
            target=TARGET,
            parameters=SETTINGS.parameters,
            seed=SETTINGS.seed,
            threads=SETTINGS.threads,
            max_rounds=SETTINGS.max_rounds,
            early_stopping_rounds=SETTINGS.early_stopping_rounds,
            facts={},
        )

    work = {"gate": judge_pair, "evaluation": evaluation, "fit": fit_alone}
    return work[what], frame if what in ("evaluation", "fit") else holdout


TASKS: dict[str, Callable[[], tuple[Callable[[], object], pd.DataFrame]]] = {
    "train": train_ours,
    "train bare": train_bare,
    **{name: partial(alone, name) for name in ("gate", "evaluation", "fit")},
}
PAIRS: list[tuple[str, str, str]] = [
    ("train: fit, duplicates, calibration, threshold", "train", "train bare")
]
for count in (10_000, 1_000_000):
    TASKS[f"score {count} bare"] = partial(score_bare, count)
    for kind, words in (
        ("raw", "score, not calibrated"),
        ("calibrated", "score, calibrated"),
        ("reasons", "score, calibrated, three reasons"),
    ):
        if kind == "reasons" and count > 10_000:
            continue  # minutes: what a row costs is the same
        TASKS[f"score {count} {kind}"] = partial(score_ours, count, kind)
        PAIRS.append((words, f"score {count} {kind}", f"score {count} bare"))
ALONE = (
    ("fit alone: codes, bins, trees", "fit"),
    ("evaluation: 500 resamples, all slices", "evaluation"),
    ("gate: two bounds, all slices", "gate"),
)


if __name__ == "__main__":
    main()
