import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import (
    BUNDLE_FILE,
    MODEL_FILE,
    Bundle,
    CorruptBundle,
    calibrated,
    contributions,
    count_unseen,
    encode,
    feature_types,
    learn_vocabulary,
    margins,
    mean_gain,
    predict,
)

INPUTS = ("level", "amount", "kind")
VOCABULARY = {"kind": ("A", "B"), "level": (1, 2, 3)}


def bundle(trees: bytes = b"trees", **facts: object) -> Bundle:
    facts = facts or {"seed": 0, "parameters": {"eta": 0.1}, "note": "é"}
    return Bundle(
        trees=trees,
        inputs=INPUTS,
        vocabulary=VOCABULARY,
        calibration={"method": "beta", "a": 1.0, "b": 0.9, "intercept": -0.1},
        threshold=0.125,
        duplicates={"kind_2": "kind"},
        facts=facts,
    )


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "kind": ["A", "B", "Z", None],
            "amount": [1.5, None, 3.0, 4.0],
            "level": [3.0, 2.0, 9.0, None],
        }
    )


EXPECTED = [[2, 1.5, 0], [1, np.nan, 1], [np.nan, 3, np.nan], [np.nan, 4, np.nan]]


def altered(change: Callable[[dict], object]) -> dict[str, bytes]:
    files = bundle().to_files()
    content = json.loads(files[BUNDLE_FILE])
    change(content)
    return {**files, BUNDLE_FILE: json.dumps(content).encode()}


def test_a_bundle_survives_its_files() -> None:
    again = Bundle.from_files(bundle().to_files(), bundle().sha256)

    assert again == bundle()
    assert again.sha256 == bundle().sha256


def test_the_same_bundle_gives_the_same_bytes() -> None:
    one = Bundle(
        b"t",
        INPUTS,
        {"kind": ("A",), "level": (1,)},
        calibration={"method": "platt", "slope": 1.1, "intercept": 0.2},
        duplicates={"x": "kind", "y": "level"},
        facts={"a": 1, "b": {"c": 2, "d": 3}},
    )
    same = Bundle(
        b"t",
        INPUTS,
        {"level": (1,), "kind": ("A",)},
        calibration={"intercept": 0.2, "slope": 1.1, "method": "platt"},
        duplicates={"y": "level", "x": "kind"},
        facts={"b": {"d": 3, "c": 2}, "a": 1},
    )

    assert one.to_files() == same.to_files()
    assert one.sha256 == same.sha256


@pytest.mark.parametrize(
    "other",
    [
        bundle(trees=b"other"),
        bundle(seed=1),
        replace(bundle(), inputs=INPUTS[::-1]),
        replace(bundle(), vocabulary={**VOCABULARY, "kind": ("B", "A")}),
        replace(bundle(), calibration={"method": "platt", "slope": 1.0, "intercept": 0.0}),
        replace(bundle(), threshold=0.25),
        replace(bundle(), duplicates={"amount_2": "amount"}),
    ],
    ids=["trees", "facts", "inputs", "vocabulary", "calibration", "threshold", "duplicates"],
)
def test_another_bundle_has_another_hash(other: Bundle) -> None:
    assert other.sha256 != bundle().sha256


def test_the_files_are_the_trees_and_readable_json() -> None:
    files = bundle().to_files()

    assert files[MODEL_FILE] == b"trees"
    assert json.loads(files[BUNDLE_FILE])["inputs"] == list(INPUTS)
    assert "é" in files[BUNDLE_FILE].decode()


@pytest.mark.parametrize("name", [MODEL_FILE, BUNDLE_FILE])
def test_a_missing_file_is_named(name: str) -> None:
    files = bundle().to_files()
    del files[name]

    with pytest.raises(CorruptBundle, match=f"{name} is missing"):
        Bundle.from_files(files)


@pytest.mark.parametrize("trees", [b"tree", b"", b"treez", b"trees and more"])
def test_altered_trees_are_detected_without_knowing_the_bundles_hash(trees: bytes) -> None:
    files = {**bundle().to_files(), MODEL_FILE: trees}

    with pytest.raises(CorruptBundle, match=f"{MODEL_FILE} has SHA-256 .*, expected"):
        Bundle.from_files(files)


def test_altered_json_is_detected_by_the_bundles_hash() -> None:
    files = altered(lambda content: content["vocabulary"]["kind"].reverse())

    with pytest.raises(CorruptBundle, match=f"{BUNDLE_FILE} has SHA-256"):
        Bundle.from_files(files, bundle().sha256)


def test_another_bundle_than_the_registered_one_is_detected() -> None:
    with pytest.raises(CorruptBundle, match=f"expected {bundle().sha256}"):
        Bundle.from_files(bundle(trees=b"other").to_files(), bundle().sha256)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"{}", b"\xff", b'"text"'])
def test_unreadable_json_is_detected(text: bytes) -> None:
    with pytest.raises(CorruptBundle, match=f"{BUNDLE_FILE} cannot be read"):
        Bundle.from_files({**bundle().to_files(), BUNDLE_FILE: text})


@pytest.mark.parametrize(
    "key",
    ["inputs", "vocabulary", "calibration", "threshold", "duplicates", "facts", "trees_sha256"],
)
def test_a_missing_part_of_the_json_is_named(key: str) -> None:
    with pytest.raises(CorruptBundle, match=f"{BUNDLE_FILE} cannot be read: KeyError.*{key}"):
        Bundle.from_files(altered(lambda content: content.pop(key)))


def test_a_vocabulary_of_the_wrong_shape_is_detected() -> None:
    files = altered(lambda content: content.update(vocabulary=["A"]))

    with pytest.raises(CorruptBundle, match=f"{BUNDLE_FILE} cannot be read"):
        Bundle.from_files(files)


def test_amounts_stay_and_categories_become_their_place_in_the_vocabulary() -> None:
    matrix = encode(frame(), INPUTS, VOCABULARY)

    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, EXPECTED)


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        ("kind", "category"),
        ("kind", "string"),
        ("level", "Int8"),
        ("level", "Int64"),
        ("level", "float32"),
        ("level", object),
        ("level", "category"),
        ("amount", object),
        ("amount", "Float64"),
        ("amount", "float32"),
    ],
)
def test_the_dtype_of_a_column_does_not_matter(column: str, dtype: str) -> None:
    typed = frame().astype({column: dtype})

    np.testing.assert_array_equal(encode(typed, INPUTS, VOCABULARY), EXPECTED)
    assert count_unseen(typed, VOCABULARY) == {"kind": 1, "level": 1}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_whole_numbers_of_any_width_are_read(dtype: str) -> None:
    typed = pd.DataFrame({"kind": ["B"], "amount": [7], "level": [3]}).astype(
        {"amount": dtype, "level": dtype}
    )

    np.testing.assert_array_equal(encode(typed, INPUTS, VOCABULARY), [[2, 7, 1]])


def test_column_order_further_columns_and_the_index_do_not_matter() -> None:
    shuffled = frame()[["amount", "level", "kind"]].assign(other="x").set_index(pd.Index([4] * 4))

    np.testing.assert_array_equal(encode(shuffled, INPUTS, VOCABULARY), EXPECTED)


def test_a_row_alone_is_encoded_as_in_a_batch() -> None:
    alone = [encode(frame().iloc[[row]], INPUTS, VOCABULARY)[0] for row in range(4)]

    np.testing.assert_array_equal(alone, EXPECTED)


def test_no_rows_give_an_empty_matrix() -> None:
    assert encode(frame().iloc[:0], INPUTS, VOCABULARY).shape == (0, 3)


def test_a_missing_input_is_named() -> None:
    with pytest.raises(KeyError, match="level"):
        encode(frame().drop(columns="level"), INPUTS, VOCABULARY)


def test_an_unseen_category_is_counted_and_a_missing_value_is_not() -> None:
    seen = frame().assign(kind=["A", None, "Z", "Y"], level=[1, 2, None, 3])

    assert count_unseen(seen, VOCABULARY) == {"kind": 2}


def test_the_vocabulary_is_sorted_and_leaves_out_missing_values() -> None:
    rows = pd.DataFrame(
        {"kind": ["B", None, "A", "B"], "level": pd.array([10, 2, None, 2], dtype="Int8")}
    )

    assert learn_vocabulary(rows, ["kind", "level"]) == {"kind": ("A", "B"), "level": (2, 10)}


@pytest.mark.parametrize("dtype", ["int8", "int64", "Int8", "float64", "object"])
def test_the_vocabulary_holds_values_that_json_knows(dtype: str) -> None:
    learned = learn_vocabulary(pd.DataFrame({"level": pd.Series([2, 1], dtype=dtype)}), ["level"])

    assert json.loads(json.dumps(learned)) == {"level": [1, 2]}
    assert {type(value) for value in learned["level"]} <= {int, float}


def test_the_vocabulary_does_not_depend_on_the_order_of_rows() -> None:
    assert learn_vocabulary(frame(), ["kind"]) == learn_vocabulary(frame()[::-1], ["kind"])


def test_the_code_of_a_category_survives_the_files() -> None:
    again = Bundle.from_files(bundle().to_files())

    np.testing.assert_array_equal(encode(frame(), again.inputs, again.vocabulary), EXPECTED)


def test_trees_are_told_which_inputs_are_codes() -> None:
    assert feature_types(INPUTS, VOCABULARY) == ["c", "q", "c"]


CALIBRATIONS: list[dict[str, Any]] = [
    {"method": "none"},
    {"method": "platt", "slope": 0.7, "intercept": -0.4},
    {"method": "beta", "a": 0.8, "b": 1.3, "intercept": 0.2},
    {"method": "isotonic", "x": [-2.5, -1.0, 0.5, 3.0], "y": [0.02, 0.1, 0.1, 0.9]},
]
each_calibration = pytest.mark.parametrize(
    "calibration", CALIBRATIONS, ids=[str(each["method"]) for each in CALIBRATIONS]
)
MARGINS = np.concatenate([[-800.0, -40.0], np.linspace(-6, 6, 241), [40.0, 800.0]])


@pytest.fixture(scope="module")
def grown() -> Bundle:
    """Real trees on an amount with gaps and two columns of categories."""
    import xgboost as xgb

    rows = many_rows()
    matrix = xgb.DMatrix(
        encode(rows, INPUTS, VOCABULARY),
        label=((rows["amount"].fillna(2) > 1) ^ (rows["kind"] == "B")).astype(float),
        feature_names=list(INPUTS),
        feature_types=feature_types(INPUTS, VOCABULARY),
        enable_categorical=True,
    )
    parameters = {"objective": "binary:logistic", "max_depth": 4, "nthread": 1}
    return replace(bundle(), trees=bytes(xgb.train(parameters, matrix, 12).save_raw("ubj")))


def many_rows(rows: int = 300) -> pd.DataFrame:
    generator = np.random.Generator(np.random.PCG64(3))
    frame = pd.DataFrame(
        {
            "kind": generator.choice(["A", "B", "never seen", None], rows, p=[0.5, 0.3, 0.1, 0.1]),
            "amount": generator.normal(1, 2, rows),
            "level": generator.choice([1.0, 2.0, 3.0, np.nan], rows),
        }
    )
    return frame.assign(amount=frame["amount"].where(generator.random(rows) < 0.8))


@each_calibration
def test_calibrated_probabilities_are_probabilities_and_rise_with_the_margin(
    calibration: Mapping[str, Any],
) -> None:
    with np.errstate(all="raise", under="ignore"):
        probability = calibrated(MARGINS, calibration)

    assert probability.dtype == np.float64
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (np.diff(probability) >= 0).all()
    assert probability[0] < 0.1 < 0.8 < probability[-1]


@each_calibration
def test_a_calibration_is_a_formula_that_a_person_can_check(calibration: Mapping[str, Any]) -> None:
    def by_hand(s: float) -> float:
        p = 1 / (1 + np.exp(-s))
        match calibration["method"]:
            case "none":
                return p
            case "platt":
                s = calibration["slope"] * s + calibration["intercept"]
            case "beta":
                s = calibration["a"] * np.log(p) - calibration["b"] * np.log(1 - p)
                s += calibration["intercept"]
            case "isotonic":
                # Halfway between -1 and 0.5 there are 0.1 and 0.1; between 0.5 and 3, 0.1 and 0.9.
                return {-1.0: 0.1, 0.0: 0.1, 1.75: 0.5}[s]
        return 1 / (1 + np.exp(-s))

    found = calibrated(np.array([-1.0, 0.0, 1.75]), calibration)

    assert found == pytest.approx([by_hand(-1.0), by_hand(0.0), by_hand(1.75)])


@each_calibration
def test_a_calibration_survives_the_files_to_the_bit(
    grown: Bundle, calibration: dict[str, Any]
) -> None:
    # A third has no end in binary; nor may it be cut in JSON.
    calibration = {
        name: value / 3 if isinstance(value, float) else value
        for name, value in calibration.items()
    }
    before = replace(grown, calibration=calibration, threshold=1 / 3)

    after = Bundle.from_files(before.to_files(), before.sha256)

    assert after.calibration == calibration
    assert after.threshold == 1 / 3
    assert after.sha256 == before.sha256
    assert predict(after, many_rows()).tolist() == predict(before, many_rows()).tolist()


@each_calibration
def test_a_row_alone_gets_the_probability_that_it_gets_in_a_batch_to_the_bit(
    grown: Bundle, calibration: Mapping[str, Any]
) -> None:
    model, rows = replace(grown, calibration=calibration), many_rows(80)

    alone = [predict(model, rows.iloc[[place]])[0] for place in range(len(rows))]

    assert predict(model, rows).tolist() == alone
    assert predict(model, rows[::-1], threads=2)[::-1].tolist() == alone
    assert len(set(alone)) > 3


def test_probabilities_are_the_calibrated_margins(grown: Bundle) -> None:
    rows = many_rows()

    found = predict(grown, rows)

    assert found.tolist() == calibrated(margins(grown, rows), grown.calibration).tolist()
    assert found.tolist() != predict(replace(grown, calibration={"method": "none"}), rows).tolist()


def test_contributions_sum_to_the_raw_score_with_categories_and_missing_values(
    grown: Bundle,
) -> None:
    rows = many_rows()

    found = contributions(grown, rows)

    assert found.shape == (len(rows), len(INPUTS) + 1)
    np.testing.assert_allclose(found.sum(axis=1), margins(grown, rows), atol=1e-4, rtol=0)
    assert len(set(found[:, -1])) == 1, "the base value is the same for every row"
    assert (np.abs(found[:, :-1]).max(axis=0) > 0.1).any()


def test_contributions_are_the_same_each_time_and_over_any_number_of_threads(
    grown: Bundle,
) -> None:
    rows = many_rows()

    once, again = contributions(grown, rows), contributions(grown, rows, threads=2)

    assert once.tolist() == again.tolist()
    assert once[7].tolist() == contributions(grown, rows.iloc[[7]])[0].tolist()


def test_an_input_that_no_tree_uses_contributes_and_gains_nothing(grown: Bundle) -> None:
    import xgboost as xgb

    rows = many_rows()
    matrix = xgb.DMatrix(
        encode(rows, INPUTS, VOCABULARY),
        label=(rows["kind"] == "B").astype(float),
        feature_names=list(INPUTS),
        feature_types=feature_types(INPUTS, VOCABULARY),
        enable_categorical=True,
    )
    trees = xgb.train({"objective": "binary:logistic", "max_depth": 1}, matrix, 1).save_raw("ubj")
    stump = replace(grown, trees=bytes(trees))

    gain = mean_gain(stump)

    assert gain["kind"] > 0
    assert gain["level"] == gain["amount"] == 0
    assert not contributions(stump, rows)[:, :2].any()


def test_no_rows_have_no_margins_probabilities_or_contributions(grown: Bundle) -> None:
    none = many_rows().head(0)

    assert margins(grown, none).shape == (0,)
    assert predict(grown, none).dtype == np.float64
    assert contributions(grown, none).shape == (0, 4)
