"""Fitting: deterministic, blind to the holdout, and stopped by the validation days."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import Bundle
from ml_assets.core.scoring import predict
from ml_assets.core.splits import TimeSplit, split_by_day
from ml_assets.core.training import OneClass, evaluate, fit

INPUTS = ["amount", "noise", "kind"]


def make_frame(days: int = 10, rows: int = 200) -> tuple[pd.DataFrame, TimeSplit]:
    rng = np.random.Generator(np.random.PCG64(7))
    total = days * rows
    frame = pd.DataFrame(
        {
            "day": np.repeat([f"2026-01-{day:02}" for day in range(1, days + 1)], rows),
            "amount": rng.normal(size=total),
            "noise": rng.normal(size=total),
            "kind": rng.choice(["a", "b", "c"], size=total),
        }
    )
    odds = 2 * frame["amount"] + (frame["kind"] == "b") - 1.5
    frame["outcome"] = (rng.random(total) < 1 / (1 + np.exp(-odds))).astype("int8")
    frame["outcome"] = frame["outcome"].astype("Int8")
    return frame, split_by_day(frame["day"].unique(), validation_days=2, holdout_days=2)


def fitted(frame: pd.DataFrame, split: TimeSplit, **changes: Any) -> Bundle:
    arguments: dict[str, Any] = {
        "inputs": INPUTS,
        "categorical": ["kind"],
        "target": "outcome",
        "parameters": {"learning_rate": 0.3, "max_depth": 4, "subsample": 0.8},
        "seed": 0,
        "threads": 1,
        "max_rounds": 300,
        "early_stopping_rounds": 10,
        "facts": {"as_of": "2026-01-10"},
    }
    return fit(frame, split, **{**arguments, **changes})


def test_the_same_data_and_seed_give_the_same_bytes_with_one_or_two_threads() -> None:
    frame, split = make_frame()

    assert fitted(frame, split).to_files() == fitted(frame, split, threads=2).to_files()


def test_another_seed_gives_another_model() -> None:
    frame, split = make_frame()

    assert fitted(frame, split).sha256 != fitted(frame, split, seed=1).sha256


def test_no_fit_and_no_early_stopping_sees_the_holdout() -> None:
    frame, split = make_frame()
    flipped = frame.copy()
    held_out = flipped["day"].isin(split.holdout)
    flipped.loc[held_out, "outcome"] = 1 - flipped.loc[held_out, "outcome"]
    flipped.loc[held_out, "kind"] = "only here"

    assert fitted(frame, split).to_files() == fitted(flipped, split).to_files()


def test_the_validation_days_stop_the_fit() -> None:
    frame, split = make_frame()

    rounds = fitted(frame, split).facts["rounds"]

    assert rounds < 100
    assert fitted(frame, split, max_rounds=5).facts["rounds"] == 5


def test_the_evaluation_is_that_of_the_model_on_the_rows_given() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    frame, split = make_frame()
    bundle = fitted(frame, split)
    holdout = split.rows(frame, "holdout")

    found = evaluate(bundle, holdout, "outcome")

    outcome, probability = holdout["outcome"].astype(int), predict(bundle, holdout)
    assert found.rows == 400
    assert found.roc_auc == roc_auc_score(outcome, probability)
    assert found.log_loss == log_loss(outcome, probability)
    assert 0.75 < found.roc_auc < 0.95


@pytest.mark.parametrize("part", ["train", "validation", "holdout"])
def test_a_part_with_one_outcome_only_is_refused_by_name(part: str) -> None:
    frame, split = make_frame()
    bundle = fitted(frame, split)
    frame.loc[frame["day"].isin(getattr(split, part)), "outcome"] = 0

    with pytest.raises(OneClass, match=f"{part} rows hold only one outcome"):
        evaluate(fitted(frame, split), split.rows(frame, "holdout"), "outcome")
    assert bundle.facts["train_rows"] == 1200
