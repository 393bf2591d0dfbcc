"""Scoring: a row's probability is its own, and what was said stands."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import Bundle, predict
from ml_assets.core.explanations import strongest_reasons
from ml_assets.core.scoring import beside, score, standing
from ml_assets.core.tables import Predictions, keyed

MORNING = datetime(2026, 1, 6, 6, tzinfo=UTC)
EVENING = datetime(2026, 1, 6, 18, tzinfo=UTC)
ROWS = pd.DataFrame(
    {
        "day": "2026-01-05",
        "claim_id": [f"C{i:02}" for i in range(40)],
        "received_at": pd.to_datetime("2026-01-05 10:00", utc=True).as_unit("us"),
        "amount": [i % 7 / 3 for i in range(40)],
        "kind": [["a", "b", "c"][i % 3] for i in range(40)],
    }
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    import xgboost as xgb

    from ml_assets.core.bundle import encode, feature_types

    inputs, vocabulary = ("amount", "kind"), {"kind": ("a", "b", "c")}
    matrix = xgb.DMatrix(
        encode(ROWS, inputs, vocabulary),
        label=[float(i % 5 == 0 or i % 3 == 1) for i in range(40)],
        feature_names=list(inputs),
        feature_types=feature_types(inputs, vocabulary),
        enable_categorical=True,
    )
    parameters = {"objective": "binary:logistic", "max_depth": 3, "min_child_weight": 0}
    return Bundle(
        bytes(xgb.train(parameters, matrix, 20).save_raw("ubj")),
        inputs,
        vocabulary,
        calibration={"method": "platt", "slope": 0.8, "intercept": -0.3},
        threshold=0.4,
    )


def scored(
    rows: pd.DataFrame,
    bundle: Bundle,
    *,
    version: int = 1,
    at: datetime = MORNING,
    reasons: int = 2,
) -> pd.DataFrame:
    return score(
        rows,
        bundle,
        inputs=bundle.inputs,
        key="claim_id",
        received_at="received_at",
        model_version=version,
        code_version="abc",
        scored_at=at,
        reasons=reasons,
    )


def test_a_row_alone_gets_the_probability_that_it_gets_in_a_batch(bundle: Bundle) -> None:
    together = predict(bundle, ROWS)

    alone = [predict(bundle, ROWS.iloc[[i]])[0] for i in range(len(ROWS))]

    assert together.tolist() == alone
    assert len(set(alone)) > 3


def test_column_order_dtype_and_extra_columns_do_not_matter(bundle: Bundle) -> None:
    shuffled = ROWS[["kind", "day", "amount"]].astype({"kind": "category", "amount": "float32"})

    assert predict(bundle, shuffled).tolist() == predict(bundle, ROWS).tolist()


def test_an_unseen_category_scores_like_a_missing_one(bundle: Bundle) -> None:
    unseen, missing = ROWS.assign(kind="never"), ROWS.assign(kind=None)

    assert predict(bundle, unseen).tolist() == predict(bundle, missing).tolist()


@pytest.mark.parametrize("rows", [ROWS, ROWS.head(0)], ids=["rows", "no rows"])
def test_predictions_keep_their_contract(bundle: Bundle, rows: pd.DataFrame) -> None:
    keyed(Predictions, "claim_id").validate(scored(rows, bundle))


def test_a_row_is_referred_from_the_models_threshold_on(bundle: Bundle) -> None:
    probability = predict(bundle, ROWS)
    exact = float(probability[0])

    at_it, above_it = (
        scored(ROWS, replace(bundle, threshold=threshold))["refer"].tolist()
        for threshold in (exact, np.nextafter(exact, 1))
    )

    assert at_it == (probability >= exact).tolist()
    assert above_it == (probability > exact).tolist()
    assert at_it[0]
    assert not above_it[0]
    assert {True, False} <= set(scored(ROWS, bundle)["refer"])


def test_reasons_are_those_of_the_row_and_can_be_switched_off(bundle: Bundle) -> None:
    said, quiet = scored(ROWS, bundle), scored(ROWS, bundle, reasons=0)

    assert said["reasons"].tolist() == strongest_reasons(bundle, ROWS, 2).tolist()
    assert quiet["reasons"].tolist() == ["[]"] * len(ROWS)
    pd.testing.assert_frame_equal(said.drop(columns="reasons"), quiet.drop(columns="reasons"))


def said_again(new: pd.DataFrame, before: pd.DataFrame, *, any_model: bool) -> pd.DataFrame:
    return beside(new, before, key="claim_id", any_model=any_model, at=EVENING)


def test_decision_and_reasons_stand_with_the_probability_that_they_belong_to(
    bundle: Bundle,
) -> None:
    first = scored(ROWS, bundle)
    stricter = replace(bundle, threshold=0.0)

    stands = said_again(
        scored(ROWS, stricter, version=2, at=EVENING, reasons=0), first, any_model=True
    )

    pd.testing.assert_frame_equal(stands, first)
    assert not first["refer"].all()


def test_scoring_again_with_the_same_model_changes_nothing(bundle: Bundle) -> None:
    first, again = scored(ROWS, bundle), scored(ROWS, bundle, at=EVENING)

    pd.testing.assert_frame_equal(said_again(again, first, any_model=False), first)


def test_a_row_whose_inputs_changed_is_scored_beside_what_was_said_before(bundle: Bundle) -> None:
    first = scored(ROWS, bundle)
    changed = ROWS.copy()
    changed.loc[4, "amount"] = 99.0

    said = said_again(scored(changed, bundle, at=EVENING), first, any_model=False)

    assert len(said) == 41
    old, new = said[said["claim_id"] == "C04"].to_dict("records")
    assert (old["scored_at"], old["superseded_at"]) == (MORNING, EVENING)
    assert old["probability"] == first["probability"][4]
    assert new["scored_at"] == EVENING
    assert pd.isna(new["superseded_at"])
    pd.testing.assert_frame_equal(
        said[said["claim_id"] != "C04"].reset_index(drop=True),
        first.drop(index=4).reset_index(drop=True),
    )
    keyed(Predictions, "claim_id").validate(said)


def test_what_was_superseded_stays_so_when_the_inputs_change_back(bundle: Bundle) -> None:
    changed = ROWS.assign(amount=99.0)
    first = scored(ROWS, bundle)
    second = said_again(scored(changed, bundle, at=EVENING), first, any_model=True)

    third = said_again(scored(ROWS, bundle, at=EVENING), second, any_model=True)

    assert len(third) == 120
    assert standing(third)["probability"].tolist() == first["probability"].tolist()
    assert (standing(third)["scored_at"] == EVENING).all()


def test_an_application_that_has_gone_stays_on_record(bundle: Bundle) -> None:
    first = scored(ROWS, bundle)

    said = said_again(scored(ROWS.drop(index=7), bundle, at=EVENING), first, any_model=True)

    assert len(said) == 40
    assert said.loc[said["superseded_at"].notna(), "claim_id"].tolist() == ["C07"]


def test_another_model_scores_again_unless_unchanged_rows_shall_stand(bundle: Bundle) -> None:
    first = scored(ROWS, bundle)
    second = scored(ROWS, bundle, version=2, at=EVENING)

    again = said_again(second, first, any_model=False)
    stands = said_again(second, first, any_model=True)

    pd.testing.assert_frame_equal(standing(again).reset_index(drop=True), second)
    assert (again["superseded_at"] == EVENING).sum() == 40
    pd.testing.assert_frame_equal(stands, first)


def test_a_new_row_is_scored_beside_those_that_stand(bundle: Bundle) -> None:
    before = scored(ROWS.head(39), bundle)

    said = said_again(scored(ROWS, bundle, at=EVENING), before, any_model=True)

    assert said.index[said["scored_at"] == EVENING].tolist() == [39]
