"""What is seen in rows, and above all which columns repeat another."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.exploration import duplicate_columns, explore

NOTEBOOK_TABLE = Path(__file__).parents[3] / "shared" / "data" / "claims_dataset.csv"


def frame(rows: int = 2_000) -> pd.DataFrame:
    generator = np.random.Generator(np.random.PCG64(0))
    score, absent = generator.normal(size=rows), generator.random(rows) < 0.2
    letter = generator.choice(["x", "y", "z"], rows)
    return pd.DataFrame(
        {
            "score": score,
            "level": generator.integers(1, 6, rows),
            "letter": letter,
            "holes": np.where(absent, np.nan, generator.normal(size=rows)),
            "flag": pd.array(generator.integers(0, 2, rows), dtype="Int8"),
            "same_score": score,
            "income": np.floor(125_000 + 13_000 * score).astype(int),
            "opposite": -3 * score + 1,
            "close": score + generator.normal(0, 0.005, rows),
            "renamed": pd.Series(letter).map({"x": "two", "y": "one", "z": "three"}),
            "merged": pd.Series(letter).map({"x": "a", "y": "a", "z": "b"}),
            "score_with_holes": np.where(absent, np.nan, score),
            "constant": 7.3,
            "constant_too": 7.3,
            "same_letter_always": "k",
            "outcome": (generator.random(rows) < 0.2).astype("int8"),
        }
    )


def test_columns_that_repeat_another_are_found_and_no_others() -> None:
    rows = frame()

    assert duplicate_columns(rows, [name for name in rows if name != "outcome"]) == {
        "same_score": "score",
        "income": "score",  # up to scale and rounding
        "opposite": "score",
        "renamed": "letter",
    }


def test_a_column_that_is_missing_elsewhere_is_no_repeat() -> None:
    rows = frame()
    rows["holes_again"] = 2 * rows["holes"]
    rows["holes_elsewhere"] = rows["holes"].mask(rows.index == rows["holes"].first_valid_index())

    found = duplicate_columns(rows, ["holes", "holes_elsewhere", "holes_again", "flag"])

    assert found == {"holes_again": "holes"}


def test_one_row_that_differs_makes_it_no_repeat() -> None:
    rows = frame()
    rows["almost"] = rows["renamed"]
    rows.loc[0, "almost"] = "one" if rows.loc[0, "almost"] != "one" else "two"
    rows["nearly"] = rows["score"].where(rows.index != 0, 50.0)

    assert duplicate_columns(rows, ["letter", "almost", "score", "nearly"]) == {}


def test_what_is_kept_is_the_first_in_the_order_given() -> None:
    rows = frame()

    found = duplicate_columns(rows, ["income", "opposite", "score"])

    assert found == {"opposite": "income", "score": "income"}


def test_nullable_and_plain_numbers_compare() -> None:
    rows = frame()
    rows["plain_flag"] = rows["flag"].astype("float64")

    assert duplicate_columns(rows, ["flag", "plain_flag"]) == {"plain_flag": "flag"}


@pytest.mark.skipif(not NOTEBOOK_TABLE.exists(), reason="the notebook's table is not here")
def test_the_three_repeats_of_the_notebooks_table_are_found() -> None:
    table = pd.read_csv(NOTEBOOK_TABLE, index_col=0)

    assert duplicate_columns(table, [name for name in table if name != "claim_status"]) == {
        "insurance_hist_2": "financial_hist_1",
        "insurance_hist_3": "financial_hist_3",
        "insurance_hist_5": "income",
    }


def test_an_exploration_counts_what_is_there() -> None:
    rows = frame()

    found = explore(
        rows,
        inputs=["score", "level", "letter", "holes", "flag"],
        categorical=["letter", "flag"],
        target="outcome",
        bins=12,
    )

    assert (found.rows, found.positives) == (2_000, rows["outcome"].sum())
    absent = int(rows["holes"].isna().sum())
    assert found.missing == {"score": 0, "level": 0, "letter": 0, "holes": absent, "flag": 0}
    assert list(found.histograms) == ["score", "level", "holes"]
    assert len(found.histograms["score"].rows) == 12
    assert sum(found.histograms["holes"].rows) == 2_000 - absent
    assert sum(found.histograms["score"].positives) == found.positives
    # Whole numbers: a bin for each.
    assert found.histograms["level"].edges == (0.5, 1.5, 2.5, 3.5, 4.5, 5.5)
    expected = rows["level"].value_counts().sort_index()
    assert list(found.histograms["level"].rows) == expected.tolist()
    most = found.counts["letter"][0]
    assert most.rows == rows["letter"].value_counts().iloc[0]
    assert most.positives == rows.loc[rows["letter"] == most.value, "outcome"].sum()
    assert {one.value for one in found.counts["flag"]} == {"0", "1"}


def test_correlation_is_pearsons() -> None:
    rows = frame()
    names = ["score", "close", "level", "constant"]

    found = explore(rows, inputs=names, categorical=[], target="outcome").correlation

    assert list(found.columns) == [*names, "outcome"]
    expected = rows[[*names, "outcome"]].corr()
    for name in ("score", "close", "level", "outcome"):
        assert found[name].drop("constant").to_numpy() == pytest.approx(
            expected[name].drop("constant").to_numpy(), abs=1e-6
        )
    assert found["constant"].isna().all()


def test_columns_of_one_value_or_of_none_can_be_described() -> None:
    rows = frame(50)
    rows["never"] = np.nan

    found = explore(rows, inputs=["constant", "never"], categorical=[], target="outcome")

    assert found.missing["never"] == 50
    assert sum(found.histograms["never"].rows) == 0
    assert sum(found.histograms["constant"].rows) == 50
    assert found.duplicates == {}
