"""PSI: nothing where nothing moved, and by hand what it should be."""

import json

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.drift import population_stability, reference

GENERATOR = np.random.Generator(np.random.PCG64(5))
ROWS = pd.DataFrame(
    {
        "amount": GENERATOR.normal(size=1_000),
        "steps": GENERATOR.integers(0, 3, 1_000),
        "kind": GENERATOR.choice(["a", "b", "c"], 1_000),
        "level": pd.array(GENERATOR.choice([1, 2], 1_000), dtype="Int8"),
    }
)
ROWS.loc[ROWS.index[::10], ["amount", "kind", "level"]] = None
COLUMNS, CATEGORICAL = tuple(ROWS.columns), ("kind", "level")


def moved(now: pd.DataFrame, trained: pd.DataFrame = ROWS) -> dict[str, float]:
    # As it is stored with the model: through JSON.
    known = json.loads(json.dumps(reference(trained, COLUMNS, CATEGORICAL)))
    return population_stability(known, now)


def by_hand(trained: list[float], now: list[float]) -> float:
    return sum(
        (max(q, 1e-4) - max(p, 1e-4)) * np.log(max(q, 1e-4) / max(p, 1e-4))
        for p, q in zip(trained, now, strict=True)
    )


def test_rows_have_not_moved_from_themselves_in_any_order() -> None:
    found = moved(ROWS.sample(frac=1, random_state=0))

    assert found == pytest.approx(dict.fromkeys(COLUMNS, 0.0), abs=1e-6)


def test_rows_of_the_same_kind_have_hardly_moved_and_others_have() -> None:
    shifted = ROWS.assign(amount=ROWS["amount"] + 1, kind="a")

    found = moved(shifted)

    assert moved(ROWS.head(500))["amount"] < 0.1
    assert found["amount"] > 0.25
    assert found["kind"] > 0.25
    assert found["steps"] == pytest.approx(0, abs=1e-6)


def test_shares_of_categories_are_compared_by_hand() -> None:
    trained = pd.DataFrame({"kind": ["a"] * 6 + ["b"] * 3 + [None]})
    now = pd.DataFrame({"kind": ["a"] * 2 + ["b"] * 4 + ["new"] * 1 + [None] * 3})

    found = population_stability(reference(trained, ["kind"], ["kind"]), now)

    # a, b, any other value, missing
    assert found["kind"] == pytest.approx(by_hand([0.6, 0.3, 0.0, 0.1], [0.2, 0.4, 0.1, 0.3]))


def test_shares_of_amounts_are_compared_by_hand() -> None:
    trained = pd.DataFrame({"amount": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]})
    now = pd.DataFrame({"amount": [1.0, 1.0, 1.0, 8.0, 99.0, -99.0, np.nan, np.nan]})

    known = reference(trained, ["amount"], [], bins=4)

    assert known["amount"]["edges"] == [2.75, 4.5, 6.25]
    assert known["amount"]["shares"] == [0.25, 0.25, 0.25, 0.25, 0.0]
    assert population_stability(known, now)["amount"] == pytest.approx(
        by_hand([0.25, 0.25, 0.25, 0.25, 0.0], [0.5, 0.0, 0.0, 0.25, 0.25])
    )


def test_an_unseen_category_moves_the_index_as_far_as_a_vanished_one() -> None:
    trained = pd.DataFrame({"kind": ["a"] * 10})

    found = population_stability(
        reference(trained, ["kind"], ["kind"]), pd.DataFrame({"kind": ["z"] * 10})
    )

    assert np.isfinite(found["kind"])
    assert found["kind"] == pytest.approx(by_hand([1.0, 0.0, 0.0], [0.0, 1.0, 0.0]))


@pytest.mark.parametrize("column", ["amount", "kind"])
def test_a_column_that_goes_missing_has_moved_and_is_finite(column: str) -> None:
    found = moved(ROWS.assign(**{column: None}))

    assert 1 < found[column] < 20


@pytest.mark.parametrize("column", ["amount", "kind"])
def test_a_column_that_was_all_missing_has_moved_when_it_comes_back(column: str) -> None:
    before = ROWS.assign(**{column: pd.Series([None] * len(ROWS), dtype=ROWS[column].dtype)})

    there, still_gone = moved(ROWS, before), moved(before, before)

    assert 1 < there[column] < 20
    assert still_gone[column] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("value", [3.0, -1e12])
def test_a_constant_has_not_moved_until_it_changes(value: float) -> None:
    trained = pd.DataFrame({"amount": [value] * 50})
    known = reference(trained, ["amount"], [])

    assert population_stability(known, trained)["amount"] == pytest.approx(0, abs=1e-6)
    assert population_stability(known, trained + 1e13)["amount"] > 1
    assert population_stability(known, trained * 0.5 + 1e13)["amount"] > 1


def test_no_rows_and_columns_that_only_one_side_has_are_left_out() -> None:
    assert moved(ROWS.head(0)) == {}
    assert set(moved(ROWS.drop(columns="kind").assign(other=1))) == {"amount", "steps", "level"}


def test_a_reference_of_no_rows_is_plain_json_and_comparable() -> None:
    known = reference(ROWS.head(0), COLUMNS, CATEGORICAL)

    found = population_stability(json.loads(json.dumps(known)), ROWS)

    assert set(found) == set(COLUMNS)
    assert np.isfinite(list(found.values())).all()


def test_the_dtype_of_a_column_does_not_matter() -> None:
    typed = ROWS.astype({"steps": "Int8", "level": "float64", "kind": "category"})

    assert moved(typed) == pytest.approx(dict.fromkeys(COLUMNS, 0.0), abs=1e-6)
