import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import (
    BUNDLE_FILE,
    MODEL_FILE,
    Bundle,
    CorruptBundle,
    count_unseen,
    encode,
    feature_types,
    learn_vocabulary,
)

INPUTS = ("level", "amount", "kind")
VOCABULARY = {"kind": ("A", "B"), "level": (1, 2, 3)}


def bundle(trees: bytes = b"trees", **facts: object) -> Bundle:
    facts = facts or {"seed": 0, "parameters": {"eta": 0.1}, "note": "é"}
    return Bundle(trees=trees, inputs=INPUTS, vocabulary=VOCABULARY, facts=facts)


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
    one = Bundle(b"t", INPUTS, {"kind": ("A",), "level": (1,)}, {"a": 1, "b": {"c": 2, "d": 3}})
    same = Bundle(b"t", INPUTS, {"level": (1,), "kind": ("A",)}, {"b": {"d": 3, "c": 2}, "a": 1})

    assert one.to_files() == same.to_files()
    assert one.sha256 == same.sha256


@pytest.mark.parametrize(
    "other",
    [
        bundle(trees=b"other"),
        bundle(seed=1),
        Bundle(b"trees", INPUTS[::-1], VOCABULARY, bundle().facts),
        Bundle(b"trees", INPUTS, {**VOCABULARY, "kind": ("B", "A")}, bundle().facts),
    ],
    ids=["trees", "facts", "inputs", "vocabulary"],
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


@pytest.mark.parametrize("key", ["inputs", "vocabulary", "facts", "trees_sha256"])
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
