"""Reasons: the strongest first, with the right sign, in JSON that survives the table."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import Bundle, contributions, encode, feature_types
from ml_assets.core.explanations import read_reasons, strongest_reasons

INPUTS = ("rate", "children", "kind", "region")
VOCABULARY = {"kind": ('"quoted"', "é", "plain"), "region": (1, 2, 3)}


def make_rows(rows: int = 200) -> pd.DataFrame:
    generator = np.random.Generator(np.random.PCG64(11))
    frame = pd.DataFrame(
        {
            "rate": generator.normal(size=rows),
            "children": pd.array(generator.integers(0, 5, rows), dtype="Int8"),
            "kind": generator.choice([*VOCABULARY["kind"], "unseen"], rows),
            "region": pd.array(generator.integers(1, 4, rows), dtype="Int64"),
        }
    )
    for place, name in enumerate(INPUTS):
        frame.loc[frame.index[place::17], name] = None
    return frame


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    import xgboost as xgb

    rows = make_rows()
    score = 3 * rows["rate"].fillna(0) + rows["children"].fillna(0).astype(float)
    score += 2 * (rows["kind"] == "é") - (rows["region"].fillna(1) == 2).astype(float)
    matrix = xgb.DMatrix(
        encode(rows, INPUTS, VOCABULARY),
        label=(score > score.median()).astype(float),
        feature_names=list(INPUTS),
        feature_types=feature_types(INPUTS, VOCABULARY),
        enable_categorical=True,
    )
    parameters = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1}
    trees = bytes(xgb.train(parameters, matrix, 20).save_raw("ubj"))
    return Bundle(trees, INPUTS, VOCABULARY)


def test_reasons_are_the_largest_contributions_strongest_first(bundle: Bundle) -> None:
    rows = make_rows()
    effects = contributions(bundle, rows)[:, :-1]

    texts = strongest_reasons(bundle, rows, top=2)

    for text, row in zip(texts, effects, strict=True):
        reasons = read_reasons(text)
        strongest = np.argsort(-np.abs(row), kind="stable")[:2]
        assert [reason.feature for reason in reasons] == [INPUTS[place] for place in strongest]
        assert [reason.effect for reason in reasons] == row[strongest].round(4).tolist()


def test_a_positive_effect_is_what_makes_the_outcome_likelier(bundle: Bundle) -> None:
    base = make_rows().head(1).assign(children=2, kind="plain", region=1)

    low, high = (
        {each.feature: each.effect for each in read_reasons(text)}
        for rate in (-2.0, 2.0)
        for text in strongest_reasons(bundle, base.assign(rate=rate), top=4)
    )

    assert low["rate"] < 0 < high["rate"]


def test_values_keep_their_type_and_missing_ones_are_null(bundle: Bundle) -> None:
    rows = pd.DataFrame(
        {
            "rate": [0.1, None],
            "children": pd.array([3, None], dtype="Int8"),
            "kind": ['"quoted"', None],
            "region": pd.array([2, None], dtype="Int64"),
        }
    )

    there, missing = (
        {each.feature: each.value for each in read_reasons(text)}
        for text in strongest_reasons(bundle, rows, top=4)
    )

    assert there == {"rate": 0.1, "children": 3, "kind": '"quoted"', "region": 2}
    assert {name: type(value) for name, value in there.items()} == {
        "rate": float,
        "children": int,
        "kind": str,
        "region": int,
    }
    assert missing == dict.fromkeys(INPUTS)


@pytest.mark.parametrize("dtype", ["category", "string", object])
def test_the_dtype_of_a_column_does_not_show(bundle: Bundle, dtype: str) -> None:
    rows = make_rows()

    found = strongest_reasons(bundle, rows.astype({"kind": dtype}), top=4)

    assert found.tolist() == strongest_reasons(bundle, rows, top=4).tolist()


def test_a_value_that_no_model_has_seen_is_told_as_it_is(bundle: Bundle) -> None:
    row = make_rows().head(1).assign(kind="unseen")

    (text,) = strongest_reasons(bundle, row, top=4)

    assert {each.feature: each.value for each in read_reasons(text)}["kind"] == "unseen"


def test_a_row_alone_has_the_reasons_that_it_has_in_a_batch(bundle: Bundle) -> None:
    rows = make_rows(40)

    together = strongest_reasons(bundle, rows, top=3, threads=2)

    alone = [strongest_reasons(bundle, rows.iloc[[place]], top=3)[0] for place in range(len(rows))]
    assert together.tolist() == alone


@pytest.mark.parametrize(("top", "given"), [(0, 0), (1, 1), (4, 4), (5, 4), (20, 4)])
def test_as_many_reasons_are_given_as_asked_for_and_as_there_are(
    bundle: Bundle, top: int, given: int
) -> None:
    texts = strongest_reasons(bundle, make_rows(), top)

    assert {len(json.loads(text)) for text in texts} == {given}


def test_no_rows_have_no_reasons(bundle: Bundle) -> None:
    found = strongest_reasons(bundle, make_rows().head(0), top=3)

    assert found.shape == (0,)
    assert found.dtype == object


def test_no_reasons_cost_nothing_not_even_a_readable_model(bundle: Bundle) -> None:
    unreadable = replace(bundle, trees=b"")

    assert strongest_reasons(unreadable, make_rows(), top=0).tolist() == ["[]"] * 200


def test_of_equal_effects_the_input_that_comes_first_is_named_first(bundle: Bundle) -> None:
    import xgboost as xgb

    rows = make_rows()
    matrix = xgb.DMatrix(
        encode(rows, INPUTS, VOCABULARY),
        label=(rows["rate"].fillna(0) > 0).astype(float),
        feature_names=list(INPUTS),
        feature_types=feature_types(INPUTS, VOCABULARY),
        enable_categorical=True,
    )
    stump = xgb.train({"objective": "binary:logistic", "max_depth": 1}, matrix, 1)
    only_rate = replace(bundle, trees=bytes(stump.save_raw("ubj")))

    texts = strongest_reasons(only_rate, rows, top=3)

    named = {tuple(reason.feature for reason in read_reasons(text)) for text in texts}
    assert named == {("rate", "children", "kind")}
