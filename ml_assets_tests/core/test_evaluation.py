"""The evaluation as a whole: its parts, groups, tenths, curves and costs, and what it refuses."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import calibrated
from ml_assets.core.calibration import choose_calibration
from ml_assets.core.evaluation import Evaluation, Importance, Scored, evaluate, reliability
from ml_assets.core.splits import OneClass
from ml_assets.core.threshold import Costs, choose_threshold, decide

COSTS = Costs(missed_claim=9, needless_referral=1)


def rows(count: int, seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Rows to group, margins that are twice too sure of themselves, and outcomes."""
    generator = np.random.Generator(np.random.PCG64(seed))
    log_odds = generator.normal(-2, 1.5, count)
    outcome = (generator.random(count) < 1 / (1 + np.exp(-log_odds))).astype(np.int8)
    frame = pd.DataFrame(
        {
            "age": generator.integers(18, 90, count),
            "score": np.where(generator.random(count) < 0.1, np.nan, generator.normal(size=count)),
            "kind": generator.choice(["b", "a", None], count),
            "level": pd.array(generator.integers(1, 4, count), dtype="Int8"),
        }
    )
    frame.loc[frame.index[:30], "level"] = pd.NA
    return frame, 2 * log_odds, outcome


def evaluated(
    slices: Mapping[str, Sequence[float] | None] | None = None, **changes: Any
) -> tuple[Evaluation, dict[str, Scored]]:
    _, margin, outcome = rows(3_000, 0)
    choice = choose_calibration(margin, outcome, folds=5, seed=0)
    parts = {}
    for part, count, seed in (("train", 6_000, 1), ("holdout", 3_000, 2)):
        frame, margin, result = rows(count, seed)
        parts[part] = Scored(frame, margin, calibrated(margin, choice.calibration), result)
    _, margin, outcome = rows(3_000, 0)
    arguments: dict[str, Any] = {
        "calibration": choice,
        "threshold": choose_threshold(calibrated(margin, choice.calibration), outcome, COSTS),
        "costs": COSTS,
        "importance": [
            Importance(feature="age", gain=3, contribution=0.1),
            Importance(feature="score", gain=1, contribution=0.7),
        ],
        "slices": slices or {},
        "resamples": 60,
        "seed": 0,
        **changes,
    }
    parts = arguments.pop("parts", parts)
    return evaluate(parts, **arguments), parts


def test_an_evaluation_goes_through_json_unchanged_and_is_the_same_every_time() -> None:
    first, _ = evaluated({"kind": None})
    second, _ = evaluated({"kind": None})

    assert Evaluation.model_validate_json(first.model_dump_json()) == first
    assert first.model_dump_json() == second.model_dump_json()
    assert "NaN" not in first.model_dump_json()


def test_parts_are_judged_each_by_itself() -> None:
    from sklearn.metrics import confusion_matrix, log_loss

    found, parts = evaluated()

    for name, part in parts.items():
        judged = found.parts[name]
        assert (judged.rows, judged.positives) == (len(part.outcome), part.outcome.sum())
        expected = log_loss(part.outcome, part.probability)
        assert judged.metrics["log_loss"].value == pytest.approx(expected)
        referred = decide(part.probability, found.costs.threshold)
        table = confusion_matrix(part.outcome, referred)
        assert list(judged.confusion) == table.ravel().tolist()


def test_calibration_shows_in_slope_error_and_reliability() -> None:
    report = evaluated()[0].calibration

    assert report.method == "platt"
    assert report.before["calibration_slope"].value == pytest.approx(0.5, abs=0.05)
    assert report.after["calibration_slope"].value == pytest.approx(1, abs=0.1)
    for name in ("brier", "log_loss", "calibration_error"):
        before, after = report.before[name].value, report.after[name].value
        assert before is not None
        assert after is not None
        assert after < before
    assert sum(one.rows for one in report.reliability_before) == 3_000
    within = [
        one.realised.low <= one.promised <= one.realised.high
        for one in report.reliability_after
        if one.realised.low is not None and one.realised.high is not None
    ]
    assert len(within) == 10
    assert sum(within) >= 7


def test_costs_are_those_of_the_decisions_on_the_holdout() -> None:
    found, parts = evaluated()
    costs, holdout = found.costs, parts["holdout"]
    _, false_positives, false_negatives, _ = found.parts["holdout"].confusion

    assert costs.holdout.value == pytest.approx((9 * false_negatives + false_positives) / 3_000)
    assert costs.refer_none == pytest.approx(9 * holdout.outcome.mean())
    assert costs.refer_all == pytest.approx(1 - holdout.outcome.mean())
    assert costs.holdout.value < min(costs.refer_none, costs.refer_all)
    assert costs.theoretical_threshold == 0.1
    assert costs.threshold == 0.1  # another would have to be surely cheaper
    assert costs.threshold in dict(costs.curve)


def test_slices_group_by_band_or_by_value_and_keep_missing_ones_apart() -> None:
    found, parts = evaluated({"age": [30, 31, 60], "score": [-1, 0.5], "kind": None, "level": None})
    frame = parts["holdout"].frame

    groups = {(one.column, one.value): one.rows for one in found.slices}

    assert list(groups) == [
        *(("age", name) for name in ("under 30", "30", "31–59", "60 and over")),
        *(("score", name) for name in ("under -1", "-1 to under 0.5", "0.5 and over", "missing")),
        *(("kind", name) for name in ("a", "b", "missing")),
        *(("level", name) for name in ("1", "2", "3", "missing")),
    ]
    assert groups["age", "31–59"] == frame["age"].between(31, 59).sum()
    assert groups["score", "0.5 and over"] == (frame["score"] >= 0.5).sum()
    assert groups["score", "missing"] == frame["score"].isna().sum()
    assert groups["kind", "a"] == (frame["kind"] == "a").sum()
    assert groups["level", "missing"] == 30
    for column in ("age", "score", "kind", "level"):
        assert sum(count for (name, _), count in groups.items() if name == column) == 3_000


def test_a_slice_is_judged_on_its_own_rows() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    found, parts = evaluated({"kind": None})
    holdout = parts["holdout"]
    members = (holdout.frame["kind"] == "b").to_numpy(dtype=bool)
    outcome, probability = holdout.outcome[members], holdout.probability[members]

    one = found.slices[1]

    assert (one.value, one.rows, one.positives) == ("b", members.sum(), outcome.sum())
    assert one.expected == pytest.approx(probability.sum())
    assert one.log_loss.value == pytest.approx(log_loss(outcome, probability))
    assert one.roc_auc.value == pytest.approx(roc_auc_score(outcome, probability))


def test_a_slice_with_one_outcome_has_no_roc_auc_and_still_a_log_loss() -> None:
    _, parts = evaluated()
    holdout = parts["holdout"]
    alone = np.flatnonzero(holdout.outcome == 0)[:5]
    holdout.frame["few"] = np.where(np.isin(np.arange(3_000), alone), "x", "y")

    found, _ = evaluated({"few": None}, parts=parts)

    few = found.slices[0]
    assert (few.rows, few.positives, few.roc_auc.value, few.roc_auc.low) == (5, 0, None, None)
    assert few.log_loss.value is not None


def test_lift_is_by_tenth_of_falling_probability() -> None:
    found, parts = evaluated()
    holdout = parts["holdout"]
    best = np.argsort(-holdout.probability)[:300]

    assert [one.decile for one in found.lift] == list(range(1, 11))
    assert {one.rows for one in found.lift} == {300}
    assert found.lift[0].positives == holdout.outcome[best].sum()
    expected = holdout.outcome[best].mean() / holdout.outcome.mean()
    lift = found.lift[0].lift
    assert lift.value == pytest.approx(expected)
    assert lift.low is not None
    assert lift.high is not None
    assert lift.low < lift.value < lift.high
    assert sum(one.positives for one in found.lift) == found.actual_positives


def test_curves_are_short_and_keep_their_ends_and_their_area() -> None:
    found, _ = evaluated()
    x, y = np.array(found.roc).T

    assert len(found.roc) <= 200
    assert len(found.precision_recall) <= 200
    assert found.roc[0] == (0, 0)
    assert found.roc[-1] == (1, 1)
    assert found.precision_recall[0][0] == 0
    assert found.precision_recall[-1][0] == 1
    area = found.parts["holdout"].metrics["roc_auc"].value
    assert np.trapezoid(y, x) == pytest.approx(area, abs=0.003)


def test_importance_comes_strongest_first() -> None:
    assert [one.feature for one in evaluated()[0].importance] == ["score", "age"]


def test_expected_positives_hold_the_actual_ones() -> None:
    found, parts = evaluated()
    expected = found.expected_positives

    assert found.actual_positives == parts["holdout"].outcome.sum()
    assert expected.value == pytest.approx(parts["holdout"].probability.sum())
    assert expected.low is not None
    assert expected.high is not None
    assert expected.low < found.actual_positives < expected.high


@pytest.mark.parametrize("part", ["train", "holdout"])
def test_a_part_with_one_outcome_is_refused_by_name(part: str) -> None:
    _, parts = evaluated()
    whole = parts[part]
    parts[part] = Scored(whole.frame, whole.margin, whole.probability, np.zeros_like(whole.outcome))

    with pytest.raises(OneClass, match=f"{part} rows hold only one outcome"):
        evaluated(parts=parts)


def test_a_slice_of_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(KeyError, match="shoe_size"):
        evaluated({"shoe_size": None})


def test_reliability_survives_few_levels() -> None:
    probability = np.array([0.1] * 50 + [0.4] * 50)
    outcome = np.arange(100) % 5 == 0

    bins = reliability(probability, outcome)

    assert [(one.rows, one.promised, one.realised.value) for one in bins] == [
        (50, 0.1, 0.2),
        (50, 0.4, 0.2),
    ]
