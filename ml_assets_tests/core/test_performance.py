"""Realised and estimated performance: what counts, what it is, and how sure."""

import itertools

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.metrics import Interval
from ml_assets.core.performance import beside_promise, estimated, first_said, realised, weekly

MONDAY = "2026-01-05"


def spoken(*lines: tuple[str, str, float, str]) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=["day", "key", "probability", "scored_at"])
    return frame.assign(scored_at=pd.to_datetime(frame["scored_at"], utc=True))


def test_the_first_word_about_each_application_counts() -> None:
    said = spoken(
        (MONDAY, "a", 0.9, "2026-01-08"),
        (MONDAY, "a", 0.1, "2026-01-06"),
        (MONDAY, "b", 0.2, "2026-01-06"),
        ("2026-01-06", "a", 0.3, "2026-01-07"),
    )

    found = first_said(said, "key")

    assert found["probability"].tolist() == [0.1, 0.2, 0.3]


def test_what_was_said_when_the_outcome_was_final_does_not_count() -> None:
    said = spoken((MONDAY, "a", 0.1, "2026-01-06"), (MONDAY, "b", 0.2, "2026-02-01"))
    final = {MONDAY: pd.Timestamp("2026-02-01", tz="UTC")}

    assert first_said(said, "key", final)["key"].tolist() == ["a"]
    assert first_said(said.head(0), "key", final).empty


def test_an_estimate_is_the_expectation_over_all_outcomes() -> None:
    p = np.array([0.2, 0.5, 0.5, 0.9])

    found = estimated(p, resamples=100, seed=0)

    brier = loss = wins = pairs = 0.0
    for outcome in itertools.product([0, 1], repeat=len(p)):
        y = np.array(outcome)
        chance = np.prod(np.where(y == 1, p, 1 - p))
        brier += chance * ((p - y) ** 2).mean()
        loss -= chance * np.log(np.where(y == 1, p, 1 - p)).mean()
        above = p[y == 1][:, None] - p[y == 0]
        wins += chance * ((above > 0).sum() + (above == 0).sum() / 2)
        pairs += chance * above.size
    assert found["brier"][0] == pytest.approx(brier)
    assert found["log_loss"][0] == pytest.approx(loss)
    assert found["roc_auc"][0] == pytest.approx(wins / pairs)


def test_while_probabilities_are_right_what_comes_true_falls_within_the_estimate() -> None:
    generator = np.random.default_rng(0)
    p = generator.beta(1, 6, 2_000)
    found = estimated(p, resamples=500, seed=0)

    inside = dict.fromkeys(found, 0)
    for _ in range(200):
        came = realised(p, (generator.random(len(p)) < p).astype(int), resamples=1, seed=0)
        for name, (_, low, high) in found.items():
            assert low is not None
            assert high is not None
            inside[name] += low <= (came[name][0] or 0) <= high

    assert all(0.90 <= count / 200 <= 0.99 for count in inside.values()), inside


def test_an_estimate_does_not_see_that_the_same_rows_now_come_out_otherwise() -> None:
    generator = np.random.default_rng(0)
    p = generator.beta(1, 6, 2_000)
    came = realised(p, (generator.random(len(p)) < p**0.5).astype(int), resamples=100, seed=0)

    assert (came["log_loss"][1] or 0) > (estimated(p, resamples=100, seed=0)["log_loss"][2] or 1)


@pytest.mark.parametrize(
    ("p", "is_defined"), [([], False), ([0.3], False), ([0.0, 0.0], False), ([0.3, 0.4], True)]
)
def test_an_estimate_says_where_it_is_not_defined(p: list[float], is_defined: bool) -> None:
    found = estimated(np.array(p), resamples=50, seed=0)

    assert (found["roc_auc"][0] is not None) is is_defined
    assert (found["log_loss"][0] is not None) is bool(p)
    assert found == estimated(np.array(p), resamples=50, seed=0)


def test_weeks_are_whole_calendar_weeks_whose_outcomes_are_final() -> None:
    days = pd.date_range("2026-01-01", "2026-01-20").strftime("%Y-%m-%d")
    said = pd.DataFrame({"day": np.repeat(days, 10), "probability": 0.3, "outcome": 0})
    said.loc[said["day"] == "2026-01-06", "outcome"] = 1

    found = weekly(said, "outcome", "2026-01-19", 3)

    # The first is cut short by the data; that of the 19th is not over.
    assert found["week"].tolist() == ["2025-12-29", MONDAY, "2026-01-12"]
    assert found["rows"].tolist() == [40, 70, 70]
    assert found["actual"].tolist() == [0, 10, 0]
    assert found["expected"].tolist() == [12, 21, 21]
    assert found["low"].tolist()[1] == pytest.approx(21 - 1.96 * (70 * 0.21) ** 0.5 - 0.5, abs=0.01)
    assert weekly(said.head(0), "outcome", "2026-01-19", 3).empty


@pytest.mark.parametrize(
    ("came", "state"),
    [
        ((0.30, 0.28, 0.32), "ok"),
        ((0.33, 0.315, 0.345), "worse"),
        ((0.33, 0.305, 0.355), "ok"),  # the intervals meet
        ((0.20, 0.19, 0.21), "ok"),  # better
        ((None, None, None), "one class"),
    ],
)
def test_worse_than_promised_is_beyond_chance(came: Interval, state: str) -> None:
    promised = (0.30, 0.29, 0.31)

    judged = beside_promise("log loss", came, promised, lower_is_better=True, margin=0.01)
    other = beside_promise("log loss", came, promised, lower_is_better=True, margin=0.1)

    assert judged.state == state
    assert other.state == ("one class" if state == "one class" else "ok")
    if came[0] is not None:
        assert "0.3000 (0.2900 to 0.3100)" in judged.sentence


def test_without_a_promise_nothing_is_called_well() -> None:
    judged = beside_promise(
        "ROC AUC", (0.6, 0.58, 0.62), (None, None, None), lower_is_better=False, margin=0.01
    )

    assert judged.state == "unknown"
    assert judged.sentence == "ROC AUC is 0.6000; the holdout promised none to compare with."


def test_a_higher_figure_can_be_the_better_one() -> None:
    judged = beside_promise(
        "ROC AUC", (0.6, 0.58, 0.62), (0.8, 0.78, 0.82), lower_is_better=False, margin=0.01
    )

    assert judged.state == "worse"
