"""Hashes of rows name their content, and nothing else."""

import pandas as pd

from ml_assets.core.features import content_hash, row_hashes

FRAME = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "note": ["p", "q", "r"]})


def test_a_row_hash_depends_on_the_named_columns_alone() -> None:
    other = FRAME.assign(note="changed").sample(frac=1, random_state=0)

    assert row_hashes(other, ["a", "b"]).sort_index().equals(row_hashes(FRAME, ["a", "b"]))


def test_a_row_hash_follows_any_change_of_a_named_value() -> None:
    changed = row_hashes(FRAME.assign(b=["x", "y", "!"]), ["a", "b"])

    assert (changed == row_hashes(FRAME, ["a", "b"])).tolist() == [True, True, False]


def test_a_row_alone_has_the_hash_that_it_has_among_others() -> None:
    assert row_hashes(FRAME.iloc[[1]], ["a", "b"]).tolist() == [row_hashes(FRAME, ["a", "b"])[1]]


def test_the_content_hash_is_the_same_in_every_process() -> None:
    assert content_hash(FRAME, ["a", "b"])[:12] == "66584c40c279"


def test_the_content_hash_follows_values_columns_and_order() -> None:
    hashes = {
        content_hash(FRAME, ["a", "b"]),
        content_hash(FRAME.iloc[::-1], ["a", "b"]),
        content_hash(FRAME.rename(columns={"a": "c"}), ["c", "b"]),
        content_hash(FRAME.assign(a=[1, 2, 4]), ["a", "b"]),
    }
    assert len(hashes) == 4
