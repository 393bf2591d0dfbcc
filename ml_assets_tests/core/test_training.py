"""Training: deterministic, blind to the holdout, and stopped by the validation days."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import Bundle, calibrated, count_unseen, margins, predict
from ml_assets.core.calibration import choose_calibration
from ml_assets.core.evaluation import Evaluation, Scored, evaluate
from ml_assets.core.explanations import read_reasons, strongest_reasons
from ml_assets.core.splits import OneClass, TimeSplit, split_by_day
from ml_assets.core.threshold import Costs, choose_threshold
from ml_assets.core.training import Recipe, Trained, fit, train

INPUTS = ("amount", "noise", "kind")
COSTS = Costs(missed_claim=10, needless_referral=1)


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
    split = split_by_day(
        frame["day"].unique(), validation_days=2, calibration_days=1, holdout_days=2
    )
    return frame, split


def recipe(**changes: Any) -> Recipe:
    arguments: dict[str, Any] = {
        "parameters": {"learning_rate": 0.3, "max_depth": 4, "subsample": 0.8},
        "seed": 0,
        "max_rounds": 300,
        "early_stopping_rounds": 10,
        "calibration_folds": 3,
        "costs": COSTS,
    }
    return Recipe(**{**arguments, **changes})


def trained(
    frame: pd.DataFrame,
    split: TimeSplit,
    *,
    inputs: tuple[str, ...] = INPUTS,
    categorical: tuple[str, ...] = ("kind",),
    threads: int = 1,
    facts: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Trained:
    return train(
        frame,
        split,
        recipe(**changes),
        inputs=inputs,
        categorical=categorical,
        target="outcome",
        threads=threads,
        facts={"as_of": "2026-01-10"} if facts is None else facts,
    )


def judged(found: Trained, frame: pd.DataFrame, split: TimeSplit) -> Evaluation:
    parts = {}
    for part in ("train", "holdout"):
        rows = split.rows(frame, part)
        margin = margins(found.bundle, rows)
        parts[part] = Scored(
            frame=rows,
            margin=margin,
            probability=calibrated(margin, found.bundle.calibration),
            outcome=rows["outcome"].to_numpy(dtype=np.int8),
        )
    return evaluate(
        parts,
        calibration=found.calibration,
        threshold=found.threshold,
        costs=COSTS,
        importance=[],
        slices={},
        resamples=100,
        seed=0,
    )


def changed_on(
    frame: pd.DataFrame, days: tuple[str, ...], **values: Callable[[pd.Series], Any]
) -> pd.DataFrame:
    """The frame with columns changed on some days."""
    other = frame.copy()
    rows = other["day"].isin(days)
    for name, change in values.items():
        other.loc[rows, name] = change(other.loc[rows, name])
    return other


def flipped(outcome: pd.Series) -> pd.Series:
    return 1 - outcome


def test_the_same_data_and_seed_give_the_same_bytes_with_one_or_two_threads() -> None:
    frame, split = make_frame()

    one, two = trained(frame, split), trained(frame, split, threads=2)

    assert one.bundle.to_files() == two.bundle.to_files()


def test_another_seed_gives_another_model() -> None:
    frame, split = make_frame()

    assert trained(frame, split).bundle.trees != trained(frame, split, seed=1).bundle.trees


def test_no_fit_calibration_or_threshold_sees_the_holdout() -> None:
    frame, split = make_frame()
    other = changed_on(
        frame,
        split.holdout,
        outcome=flipped,
        kind=lambda _: "only here",
        amount=lambda amount: 1e6 * amount,
        noise=lambda _: np.nan,
    )

    assert trained(frame, split).bundle.to_files() == trained(other, split).bundle.to_files()


def test_only_the_validation_days_stop_the_fit() -> None:
    frame, split = make_frame()
    later = changed_on(frame, split.calibration + split.holdout, outcome=flipped)
    validated = changed_on(frame, split.validation, outcome=flipped)

    found = trained(frame, split).bundle

    assert 1 < found.facts["rounds"] < 100
    assert trained(later, split).bundle.trees == found.trees
    assert trained(validated, split).bundle.facts["rounds"] < found.facts["rounds"]
    assert trained(frame, split, max_rounds=5).bundle.facts["rounds"] == 5


def test_the_trees_are_grown_on_the_train_days_and_their_best_round_is_kept() -> None:
    import xgboost as xgb
    from sklearn.metrics import log_loss

    frame, split = make_frame()
    found = trained(frame, split).bundle
    booster = xgb.Booster()
    booster.load_model(bytearray(found.trees))
    rows = split.rows(frame, "validation")

    raw = calibrated(margins(found, rows), {"method": "none"})

    assert booster.num_boosted_rounds() == found.facts["rounds"]
    assert log_loss(rows["outcome"].astype(int), raw) == pytest.approx(
        found.facts["validation_log_loss"], abs=1e-5
    )


def test_calibration_and_threshold_are_chosen_on_the_calibration_days_alone() -> None:
    frame, split = make_frame()
    found = trained(frame, split)
    rows = split.rows(frame, "calibration")
    margin, outcome = margins(found.bundle, rows), rows["outcome"].to_numpy(dtype=np.int8)

    choice = choose_calibration(margin, outcome, folds=3, seed=0)
    threshold = choose_threshold(calibrated(margin, choice.calibration), outcome, COSTS)

    assert found.bundle.calibration == choice.calibration
    assert found.bundle.threshold == threshold.threshold
    assert found.calibration == choice
    assert found.threshold == threshold
    other = changed_on(frame, split.calibration, outcome=flipped)
    again = trained(other, split)
    assert again.bundle.trees == found.bundle.trees
    assert again.threshold.curve != found.threshold.curve


def test_the_facts_tell_recipe_split_and_rows() -> None:
    frame, split = make_frame()

    facts = trained(frame, split, facts={"as_of": "2026-01-10", "note": "é"}).bundle.facts

    assert (facts["as_of"], facts["note"]) == ("2026-01-10", "é")
    assert facts["split"]["holdout"] == ["2026-01-09", "2026-01-10"]
    assert facts["split"]["calibration"] == ["2026-01-08"]
    assert [facts[f"{part}_rows"] for part in ("train", "validation", "calibration")] == [
        1000,
        400,
        200,
    ]
    assert facts["recipe"] == {
        "parameters": {"learning_rate": 0.3, "max_depth": 4, "subsample": 0.8},
        "seed": 0,
        "max_rounds": 300,
        "early_stopping_rounds": 10,
        "calibration_folds": 3,
        "costs": {"missed_claim": 10, "needless_referral": 1},
    }
    assert facts["missing_share"] == {}


def test_a_bundle_with_its_facts_survives_its_files_and_scores_the_same() -> None:
    frame, split = make_frame()
    found = trained(frame, split).bundle

    again = Bundle.from_files(found.to_files(), found.sha256)

    assert again.to_files() == found.to_files()
    assert predict(again, frame).tolist() == predict(found, frame).tolist()


def test_the_evaluation_is_that_of_the_model_on_the_rows_given() -> None:
    from sklearn.metrics import log_loss, roc_auc_score

    frame, split = make_frame()
    found = trained(frame, split)

    holdout = judged(found, frame, split).parts["holdout"]

    rows = split.rows(frame, "holdout")
    outcome, probability = rows["outcome"].astype(int), predict(found.bundle, rows)
    assert holdout.rows == 400
    assert holdout.metrics["roc_auc"].value == pytest.approx(roc_auc_score(outcome, probability))
    assert holdout.metrics["log_loss"].value == pytest.approx(log_loss(outcome, probability))
    assert 0.75 < (holdout.metrics["roc_auc"].value or 0) < 0.95


@pytest.mark.parametrize("part", ["train", "validation", "calibration", "holdout"])
@pytest.mark.parametrize("outcome", [0, 1])
def test_a_part_with_one_outcome_only_is_refused_by_name(part: str, outcome: int) -> None:
    frame, split = make_frame()
    other = changed_on(frame, getattr(split, part), outcome=lambda _: outcome)

    with pytest.raises(OneClass, match=rf"{part} rows hold only one outcome \({outcome}\)"):
        judged(trained(other, split), other, split)


def test_the_vocabulary_is_that_of_the_train_days_and_later_categories_count_as_missing() -> None:
    frame, split = make_frame()
    other = changed_on(frame, split.calibration + split.holdout, kind=lambda _: "new")

    found = trained(other, split).bundle

    assert found.vocabulary == {"kind": ("a", "b", "c")}
    new = split.rows(other, "holdout")
    assert count_unseen(new, found.vocabulary) == {"kind": 400}
    assert predict(found, new).tolist() == predict(found, new.assign(kind=None)).tolist()


def test_the_codes_of_categories_are_frozen_and_not_made_anew_for_each_batch() -> None:
    """`astype("category")` per batch gave b the code of a where no a was in the batch."""
    frame, split = make_frame()
    found = trained(frame, split).bundle
    together = predict(found, frame)

    for batch in ("b", "c"):
        rows = (frame["kind"] == batch).to_numpy()
        alone = frame[rows].astype({"kind": "category"})
        assert predict(found, alone).tolist() == together[rows].tolist()
    a, b = frame.assign(kind="a"), frame.assign(kind="b")
    assert (predict(found, a) != predict(found, b)).any(), "the kind matters at all"


def test_a_repeated_column_is_no_input_and_never_a_reason() -> None:
    frame, split = make_frame()
    frame["amount_in_pence"] = 100 * frame["amount"]
    frame["kind_in_words"] = frame["kind"].map({"a": "first", "b": "second", "c": "third"})
    inputs = ("amount", "amount_in_pence", "kind_in_words", "kind")

    found = trained(frame, split, inputs=inputs, categorical=("kind", "kind_in_words")).bundle

    assert found.inputs == ("amount", "kind_in_words")
    assert found.duplicates == {"amount_in_pence": "amount", "kind": "kind_in_words"}
    assert set(found.vocabulary) == {"kind_in_words"}
    named = {
        reason.feature
        for text in strongest_reasons(found, frame.head(200), top=4)
        for reason in read_reasons(text)
    }
    assert named == {"amount", "kind_in_words"}
    once = trained(frame, split, inputs=("amount", "kind_in_words"), categorical=("kind_in_words",))
    assert once.bundle.trees == found.trees, "the repeats take nothing from the others"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("noise", np.nan),
        ("noise", 3.0),
        ("kind", None),
        ("kind", "a"),
    ],
    ids=["numbers all missing", "one number", "names all missing", "one name"],
)
def test_a_column_that_says_nothing_is_trained_with_and_changes_nothing(
    column: str, values: object
) -> None:
    frame, split = make_frame()
    frame[column] = pd.Series([values] * len(frame), dtype=frame[column].dtype)
    others = tuple(name for name in INPUTS if name != column)

    found = trained(frame, split).bundle

    without = trained(frame, split, inputs=others, categorical=tuple({"kind"} & set(others))).bundle
    assert found.inputs == INPUTS
    assert predict(found, frame).tolist() == predict(without, frame).tolist()
    assert found.facts["missing_share"] == ({column: 1.0} if pd.isna(values) else {})


def test_inputs_that_say_nothing_at_all_give_everyone_the_same_probability() -> None:
    frame, split = make_frame()
    frame = frame.assign(amount=1.0, noise=np.nan, kind="a")

    found = trained(frame, split)

    assert len(set(predict(found.bundle, frame).tolist())) == 1
    slope = judged(found, frame, split).parts["holdout"].metrics["calibration_slope"]
    assert slope.value is None, "so that the gate's guardrail stops it"


def test_missing_values_and_unseen_categories_are_counted_in_training() -> None:
    frame, split = make_frame()
    frame.loc[frame.index[:250], "noise"] = np.nan

    found = fit(
        frame,
        split,
        inputs=INPUTS,
        categorical=("kind",),
        target="outcome",
        parameters={"max_depth": 2},
        seed=0,
        threads=1,
        max_rounds=3,
        early_stopping_rounds=3,
        facts={},
    )

    assert found.facts["missing_share"] == {"noise": 0.25}
    assert found.calibration == {"method": "none"}
