"""The search: blind to rows outside its folds, repeatable, and humble about what it found."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.core import tuning
from ml_assets.core.splits import OneClass, TooFewDays
from ml_assets.core.tuning import (
    DEFAULTS,
    Choice,
    Fold,
    Search,
    Trial,
    TuningFailed,
    compare,
    search,
    split_for_tuning,
    time_folds,
)

DAYS = [f"2026-01-{day:02}" for day in range(1, 9)]
COLUMNS: dict[str, Any] = {
    "inputs": ["amount", "noise", "kind"],
    "categorical": ["kind"],
    "target": "outcome",
}
IN_USE = {
    "learning_rate": 0.2,
    "max_depth": 3,
    "min_child_weight": 2.0,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "gamma": 0.5,
}


def make_frame(signal: float = 2, rows: int = 150) -> pd.DataFrame:
    rng = np.random.Generator(np.random.PCG64(3))
    total = len(DAYS) * rows
    frame = pd.DataFrame(
        {
            "day": np.repeat(DAYS, rows),
            "amount": rng.normal(size=total),
            "noise": rng.normal(size=total),
            "kind": rng.choice(["a", "b", "c"], size=total),
        }
    )
    odds = signal * (frame["amount"] + (frame["kind"] == "b") - 0.5)
    frame["outcome"] = (rng.random(total) < 1 / (1 + np.exp(-odds))).astype("int8")
    return frame


def found(frame: pd.DataFrame, **changes: Any) -> Search:
    searched = frame[frame["day"] < DAYS[6]]
    arguments: dict[str, Any] = {
        **COLUMNS,
        "folds": time_folds(searched["day"], folds=3, fold_days=1),
        "metric": "log_loss",
        "trials": 8,
        "seed": 0,
        "threads": 1,
        "max_rounds": 60,
        "early_stopping_rounds": 5,
        "incumbent": IN_USE,
    }
    arguments.update(changes)
    return search(frame, **arguments)


def chosen(frame: pd.DataFrame, **changes: Any) -> Choice:
    days = frame["day"].to_numpy()
    arguments: dict[str, Any] = {
        **COLUMNS,
        "stopped": Fold(np.flatnonzero(days < DAYS[4]), np.flatnonzero(days == DAYS[4])),
        "judge": np.flatnonzero(days > DAYS[4]),
        "tuned": {**IN_USE, "learning_rate": 0.05},
        "incumbent": IN_USE,
        "seed": 0,
        "threads": 1,
        "max_rounds": 200,
        "early_stopping_rounds": 10,
        "confidence": 0.95,
        "resamples": 500,
    }
    arguments.update(changes)
    return compare(frame, **arguments)


def mean_of_the_better_half(result: Search, loss: Callable[[Trial], float]) -> dict[str, float]:
    complete = [trial for trial in result.trials[:-1] if trial.state == "complete"]
    better = sorted(complete, key=loss)[: (len(complete) + 1) // 2]
    assert len(complete) > len(better) > 1
    shapes = pd.DataFrame([trial.parameters for trial in better]).drop(columns="learning_rate")
    mean = {name: float(np.mean(values.tolist())) for name, values in shapes.items()}
    return {**mean, "max_depth": round(mean["max_depth"])}


def test_each_fold_is_scored_on_the_days_after_all_it_is_fitted_on() -> None:
    days = make_frame(rows=3).sample(frac=1, random_state=0)["day"]

    folds = time_folds(days, folds=3, fold_days=2)

    seen = [
        (sorted(set(days.iloc[fold.train])), sorted(set(days.iloc[fold.validation])))
        for fold in folds
    ]
    assert seen == [(DAYS[:2], DAYS[2:4]), (DAYS[:4], DAYS[4:6]), (DAYS[:6], DAYS[6:])]
    assert [len(fold.train) for fold in folds] == [6, 12, 18]


def test_the_newest_days_judge_and_the_others_are_searched() -> None:
    days = split_for_tuning(DAYS[::-1], folds=3, fold_days=1, judge_days=2)

    assert (days.search, days.judge) == (tuple(DAYS[:6]), tuple(DAYS[6:]))


@pytest.mark.parametrize(("folds", "judge_days", "enough"), [(3, 4, True), (3, 5, False)])
def test_too_few_days_are_refused_with_the_number_needed(
    folds: int, judge_days: int, enough: bool
) -> None:
    if enough:
        split_for_tuning(DAYS, folds=folds, fold_days=1, judge_days=judge_days)
        return
    with pytest.raises(TooFewDays, match=r"at least 9 days .* there are 8"):
        split_for_tuning(DAYS, folds=folds, fold_days=1, judge_days=judge_days)


def test_the_same_data_and_seed_give_the_same_search_with_one_or_two_threads() -> None:
    frame = make_frame()

    assert found(frame) == found(frame, threads=2)


def test_another_seed_gives_another_search() -> None:
    frame = make_frame()

    assert found(frame).parameters != found(frame, seed=1).parameters


def test_the_search_reads_no_row_outside_its_folds() -> None:
    frame = make_frame()
    flipped = frame.copy()
    outside = flipped["day"] >= DAYS[6]
    flipped.loc[outside, "outcome"] = 1 - flipped.loc[outside, "outcome"]
    flipped.loc[outside, "kind"] = "only here"
    inside = frame.copy()
    inside.loc[inside["day"] == DAYS[5], "outcome"] = (
        1 - inside.loc[inside["day"] == DAYS[5], "outcome"]
    )

    assert found(flipped) == found(frame)
    assert found(inside) != found(frame)


def test_what_is_known_is_tried_first_and_the_mean_of_the_better_last_with_smaller_steps() -> None:
    result = found(make_frame(), trials=24)

    shapes = [
        {name: value for name, value in trial.parameters.items() if name != "learning_rate"}
        for trial in result.trials
    ]
    known = [{name: parameters[name] for name in shapes[0]} for parameters in (IN_USE, DEFAULTS)]
    known[1]["colsample_bytree"] = 0.85  # the edge of the space
    assert shapes[:2] == known
    assert [trial.parameters["learning_rate"] for trial in result.trials] == [0.1] * 24 + [0.025]
    assert shapes[-1] == mean_of_the_better_half(result, lambda trial: trial.score)
    assert result.best is result.trials[-1]


def test_parameters_that_are_not_searched_are_held_and_used() -> None:
    frame = make_frame()

    assert found(frame).parameters["gamma"] == 0.5
    assert found(frame).best.score != found(frame, incumbent={**IN_USE, "gamma": 50}).best.score


def test_a_known_value_outside_the_space_is_tried_at_its_edge() -> None:
    result = found(make_frame(), trials=1, incumbent={**IN_USE, "max_depth": 40})

    assert result.trials[0].parameters["max_depth"] == 7


def test_bad_trials_are_given_up_before_their_last_fold() -> None:
    result = found(make_frame(), trials=12)

    pruned = [trial for trial in result.trials if trial.state == "pruned"]
    assert pruned
    assert all(trial.folds < 3 for trial in pruned)
    assert all(trial.folds == 3 for trial in result.trials if trial.state == "complete")
    assert result.count("pruned") == len(pruned)


def test_the_metric_ranks_the_trials() -> None:
    result = found(make_frame(), metric="roc_auc", trials=24)

    other = mean_of_the_better_half(result, lambda trial: trial.score)
    expected = mean_of_the_better_half(result, lambda trial: -trial.score)
    assert {**expected, "learning_rate": 0.025} == result.best.parameters
    assert expected != other
    assert 0.7 < result.best.score < 1


def test_progress_tells_each_trial_and_the_best_so_far() -> None:
    told: list[tuple[Trial, Trial | None]] = []

    result = found(make_frame(), on_trial=lambda *both: told.append(both))

    assert [trial for trial, _ in told] == list(result.trials)
    scores = [best.score for _, best in told if best]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(("ends_after", "expected"), [(0, 1), (3, 3)])
def test_no_trial_begins_when_time_is_over_but_the_first(ends_after: int, expected: int) -> None:
    told: list[Trial] = []

    result = found(
        make_frame(),
        on_trial=lambda trial, _: told.append(trial),
        out_of_time=lambda: len(told) >= ends_after,
    )

    assert len(result.trials) == expected
    assert result.best.parameters["learning_rate"] == 0.1


def test_a_trial_whose_score_is_not_a_number_fails_and_the_others_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = tuning._score
    calls = iter(range(10_000))
    monkeypatch.setattr(
        tuning, "_score", lambda *args: math.inf if next(calls) == 0 else real(*args)
    )

    result = found(make_frame())

    assert result.trials[0].state == "failed"
    assert result.count("failed") == 1
    assert math.isfinite(result.best.score)


def test_a_search_in_which_every_trial_failed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_score", lambda *_: math.nan)

    with pytest.raises(TuningFailed, match=r"none of 8 trials .*log_loss .*'gamma': 0.5"):
        found(make_frame())


def test_a_fold_with_one_outcome_only_is_refused_by_name() -> None:
    frame = make_frame()
    frame.loc[frame["day"] == DAYS[4], "outcome"] = 0

    with pytest.raises(OneClass, match="the 150 fold 2 validation rows hold only one outcome"):
        found(frame)


def test_the_search_is_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    found(make_frame())

    assert capfd.readouterr() == ("", "")


def test_parameters_that_clearly_beat_the_defaults_are_adopted() -> None:
    # On little data with one weak signal the defaults' deep trees learn noise.
    choice = chosen(make_frame(signal=1))

    assert choice.adopted
    assert choice.versus_defaults.high < 0
    assert choice.versus_incumbent.mean <= 0
    assert choice.parameters == {**IN_USE, "learning_rate": 0.05}
    assert choice.reason.startswith("the tuned parameters are adopted: ")
    assert "on 450 rows" in choice.reason
    json.dumps(dict(choice.parameters))


def test_on_pure_noise_what_is_in_use_is_kept_and_the_reason_says_so() -> None:
    frame = make_frame(signal=0)

    choice = chosen(frame, tuned={**DEFAULTS, "max_delta_step": 0})

    assert not choice.adopted
    assert choice.parameters == IN_USE
    assert choice.reason.startswith("the parameters in use are kept: ")
    assert choice.reason.endswith("does not show that they beat the defaults by more than noise")
    assert f"{choice.versus_defaults.high:+.4f}" in choice.reason


def test_what_beats_the_defaults_but_not_what_is_in_use_is_not_adopted() -> None:
    # Two effects that add up: trees of one split are all that it takes.
    frame, better = make_frame(signal=1), {**IN_USE, "learning_rate": 0.05}

    choice = chosen(frame, tuned=better, incumbent={**better, "max_depth": 1})

    assert choice.versus_defaults.high < 0 < choice.versus_incumbent.mean
    assert not choice.adopted
    assert choice.reason.endswith("shows them worse than those in use")


def test_the_comparison_fits_nothing_on_the_rows_that_judge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real, said = tuning.paired_bootstrap, []

    def listen(ours: np.ndarray, theirs: np.ndarray, *rest: Any, **more: Any) -> Any:
        said.append(np.stack([ours, theirs]))
        return real(ours, theirs, *rest, **more)

    monkeypatch.setattr(tuning, "paired_bootstrap", listen)
    frame = make_frame(signal=1)
    judged, stopping = frame["day"] > DAYS[4], frame["day"] == DAYS[4]

    for flipped in (judged & False, judged, stopping):
        outcome = frame["outcome"].where(~flipped, 1 - frame["outcome"])
        chosen(frame.assign(outcome=outcome))

    plain, judge_flipped, stopping_flipped = said[::2]
    np.testing.assert_array_equal(judge_flipped, plain)
    assert not np.array_equal(stopping_flipped, plain)


@pytest.mark.parametrize(
    ("days", "name"), [(DAYS[:4], "train"), (DAYS[4:5], "validation"), (DAYS[5:], "judging")]
)
def test_a_part_of_the_comparison_with_one_outcome_only_is_refused_by_name(
    days: list[str], name: str
) -> None:
    frame = make_frame()
    frame.loc[frame["day"].isin(days), "outcome"] = 1

    with pytest.raises(OneClass, match=f"{name} rows hold only one outcome"):
        chosen(frame)
