"""PSI and tests: nothing where nothing moved, and by hand or by SciPy what it should be."""

import json

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.drift import measure, percent, population_stability, reference

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


def measured(now: pd.DataFrame, trained: pd.DataFrame = ROWS) -> pd.DataFrame:
    known = json.loads(json.dumps(reference(trained, COLUMNS, CATEGORICAL)))
    return measure(known, now, trained_rows=len(trained)).set_index("feature")


def test_measures_agree_with_the_index_and_with_scipy() -> None:
    from scipy.stats import chi2_contingency

    now = pd.DataFrame({"kind": ["a"] * 30 + ["b"] * 45 + ["c"] * 15 + [None] * 10})
    known = reference(ROWS, ["kind"], ["kind"])

    found = measure(known, now, trained_rows=1_000).iloc[0]

    before = np.rint(np.array(known["kind"]["shares"])[[0, 1, 2, 4]] * 1_000)
    expected = chi2_contingency([before, [30, 45, 15, 10]], correction=False)
    assert found["statistic"] == pytest.approx(expected.statistic)
    assert found["p_value"] == pytest.approx(expected.pvalue)
    assert found["psi"] == population_stability(known, now)["kind"]
    assert found["psi_by_chance"] == pytest.approx(3 * (1 / 100 + 1 / 1_000))
    assert (found["rows"], found["trained_rows"]) == (100, 1_000)


def test_the_order_of_rows_changes_no_measure() -> None:
    shuffled = ROWS.sample(frac=1, random_state=3)

    pd.testing.assert_frame_equal(measured(ROWS), measured(shuffled))


def test_rows_that_are_those_of_training_never_differ() -> None:
    found = measured(ROWS)

    assert found["psi"].to_numpy() == pytest.approx(0, abs=1e-6)
    assert found["p_value"].to_numpy() == pytest.approx(1, abs=1e-6)


def test_where_nothing_moved_the_index_and_the_test_are_what_chance_makes_them() -> None:
    generator = np.random.Generator(np.random.PCG64(11))
    trained = pd.DataFrame({"amount": generator.normal(size=20_000)})
    known = reference(trained, ["amount"], [])

    days = pd.concat(
        measure(known, pd.DataFrame({"amount": generator.normal(size=1_000)}), trained_rows=20_000)
        for _ in range(200)
    )

    assert days["psi"].mean() == pytest.approx(days["psi_by_chance"].iloc[0], rel=0.15)
    assert (days["p_value"] < 0.1).mean() == pytest.approx(0.1, abs=0.06)


def test_missing_and_unseen_values_are_shares_of_all_rows() -> None:
    found = measured(
        pd.DataFrame(
            {
                "amount": [0.0, 1e6, -1e6, np.nan],
                "kind": ["a", "z", None, None],
                "level": pd.array([1, 2, 3, None], dtype="Int8"),
            }
        )
    )

    assert found["missing_share"].to_dict() == {"amount": 0.25, "kind": 0.5, "level": 0.25}
    assert found["missing_share_trained"].to_dict() == {"amount": 0.1, "kind": 0.1, "level": 0.1}
    assert found["unseen_share"].to_dict() == {"amount": 0.5, "kind": 0.25, "level": 0.25}


def test_what_a_model_of_an_earlier_release_kept_is_enough() -> None:
    known = reference(ROWS, COLUMNS, CATEGORICAL)
    old = {
        name: {key: value for key, value in scale.items() if key != "range"}
        for name, scale in known.items()
    }
    now = ROWS.assign(amount=ROWS["amount"] * 100)

    with_range = measure(known, now, trained_rows=1_000).set_index("feature")
    without = measure(old, now, trained_rows=1_000).set_index("feature")

    assert with_range["unseen_share"]["amount"] > 0.5
    assert without["unseen_share"]["amount"] == 0
    pd.testing.assert_frame_equal(
        with_range.drop(columns="unseen_share"), without.drop(columns="unseen_share")
    )


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("amount", [None] * 20, "100 % missing, 10 % when trained"),
        ("amount", [50.0] * 20, ": 100 % of rows, 9 % when trained"),
        ("kind", ["a"] * 20, "b: 0 % of rows, 30 % when trained"),
        ("kind", ["new"] * 20, "unseen when trained: 100 % of rows, 0 % when trained"),
    ],
)
def test_what_moved_most_is_told(column: str, values: list[object], told: str) -> None:
    now = pd.DataFrame({column: pd.Series(values, dtype=ROWS[column].dtype)})

    assert told in measured(now)["moved"][column]


def test_a_constant_and_an_all_missing_column_are_told_from_their_change() -> None:
    trained = pd.DataFrame({"one": [3.0] * 500, "none": [np.nan] * 500})
    known = reference(trained, ["one", "none"], [])

    same = measure(known, trained, trained_rows=500)
    other = measure(known, trained + 1, trained_rows=500).set_index("feature")
    back = measure(known, trained.fillna(1.0), trained_rows=500).set_index("feature")

    assert same["p_value"].tolist() == [1.0, 1.0]
    assert same["psi"].tolist() == [0.0, 0.0]
    assert other["p_value"]["one"] < 1e-6
    assert back["p_value"]["none"] < 1e-6
    assert back["moved"]["none"] == "any number: 100 % of rows, 0 % when trained"


def test_few_rows_of_rare_values_do_not_pass_for_drift() -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    weights = np.array([0.95, *[0.001] * 50])
    trained = pd.DataFrame({"kind": generator.choice(51, 20_000, p=weights)})
    known = reference(trained, ["kind"], ["kind"])

    p_values = [
        measure(
            known,
            pd.DataFrame({"kind": generator.choice(51, 300, p=weights)}),
            trained_rows=20_000,
        )["p_value"].iloc[0]
        for _ in range(200)
    ]

    assert (np.array(p_values) < 0.01).mean() <= 0.03


def test_no_rows_are_told_as_no_rows() -> None:
    found = measured(ROWS.head(0))

    assert found.index.tolist() == list(COLUMNS)
    assert found["rows"].tolist() == [0] * len(COLUMNS)
    assert found[["psi", "p_value", "missing_share", "unseen_share"]].isna().all(axis=None)
    assert measure({}, ROWS, trained_rows=1).empty


def test_a_reference_of_no_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="trained_rows must be at least 1, got 0"):
        measure(reference(ROWS.head(0), COLUMNS, CATEGORICAL), ROWS, trained_rows=0)


@pytest.mark.parametrize(
    ("share", "told"),
    [(0.0, "0 %"), (0.0002, "0.02 %"), (0.024, "2.4 %"), (0.02, "2 %"), (0.234, "23 %")],
)
def test_shares_are_written_as_people_write_them(share: float, told: str) -> None:
    assert percent(share) == told
