"""A source's columns beside the contract's: what is read, what fails, and what is suggested."""

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pytest
from pandera.typing import Series

from ml_assets.core.contract import ContractError, judge
from ml_assets.core.evolution import Difference, compare, remedy

RULES: dict[str, Any] = {
    "days": ["2026-01-06"],
    "key": "name",
    "received_at": "at",
    "updated_at": "at",
    "zone": ZoneInfo("Europe/London"),
}


class Small(pandera.DataFrameModel):
    """A small contract."""

    day: Series[str]
    name: Series[str]
    at: Series[pd.DatetimeTZDtype] = pandera.Field(dtype_kwargs={"unit": "us", "tz": "UTC"})
    age: Series[int] = pandera.Field(ge=18, le=95)
    amount: Series[float] = pandera.Field(ge=0)
    code: Series[str] = pandera.Field(isin=["A", "B"])
    asked: Series[pd.Int8Dtype] | None = pandera.Field(isin=[0, 1], nullable=True)


SCHEMA = Small.to_schema()


def table(**changed: Any) -> pa.Table:
    """Four good rows with some columns changed, or left out if None."""
    columns = {
        "name": ["a", "b", "c", "d"],
        "at": [datetime(2026, 1, 6, hour, tzinfo=UTC) for hour in range(4)],
        "age": [20, 30, 40, 50],
        "amount": [1.5, 2.5, 3.5, 450.25],
        "code": ["A", "B", "A", "B"],
        "asked": [None, 0, 1, None],
    } | changed
    return pa.table({name: values for name, values in columns.items() if values is not None})


def refused(rows: pa.Table) -> str:
    with pytest.raises(ContractError) as error:
        judge(rows, SCHEMA, **RULES)
    return str(error.value)


def found(rows: pa.Table, column: str) -> Difference:
    (difference,) = [each for each in compare(rows, SCHEMA) if each.column == column]
    return difference


def test_a_source_that_keeps_the_contract_has_no_differences() -> None:
    differences = compare(table(), SCHEMA)

    assert {each.verdict for each in differences} == {"ok"}
    assert [(each.column, each.expected) for each in differences] == [
        ("name", "text"),
        ("at", "instant with time zone"),
        ("age", "whole number, 18 to 95"),
        ("amount", "number, from 0"),
        ("code", "text, one of A, B"),
        ("asked", "whole number, one of 0, 1, optional"),
    ]
    assert {each.breaking for each in differences} == {0.0}
    assert remedy(differences) == ""


def test_new_and_missing_optional_columns_do_not_fail() -> None:
    rows = table(asked=None, surprise=[7, 7, 7, 7])

    judged = judge(rows, SCHEMA, **RULES)

    assert (judged.ignored, judged.absent) == (("surprise",), ("asked",))
    assert len(judged.good) == 4
    assert found(rows, "surprise").verdict == "ignored"
    assert found(rows, "surprise").found == "whole number, for example 7"
    assert found(rows, "asked").verdict == "optional_missing"


def test_a_missing_column_is_shown_beside_what_was_expected() -> None:
    assert refused(table(age=None)) == (
        "the source does not keep the contract in 1 column:\n"
        "column  expected                found\n"
        "age     whole number, 18 to 95  no such column\n"
        "Have the source mended, or change the contract in schema.py, then materialise the day "
        "again."
    )


@pytest.mark.parametrize(
    ("column", "renamed", "sql"),
    [
        ("age", "Age", '"Age" AS age'),
        ("age", "ages", "ages AS age"),
        ("amount", "Amount ", '"Amount " AS amount'),
        # Nothing in the name tells, but it is the only new column whose values suit.
        ("code", "letter", "letter AS code"),
        ("age", "jahre", "jahre AS age"),
        # Not even an optional column may go by another spelling: its values would be lost.
        ("asked", "ASKED", '"ASKED" AS asked'),
    ],
)
def test_a_rename_is_suggested(column: str, renamed: str, sql: str) -> None:
    values = table()[column]
    rows = table(**{column: None, renamed: values, "other": [[1], [2], [3], [4]]})

    told = refused(rows)

    assert f"no such column; {renamed!r} (" in told
    assert f"{column} is now called {renamed!r}. In the .sql file write {sql}." in told
    assert found(rows, column).verdict == "renamed"
    assert found(rows, column).suggestion == renamed


def test_of_similar_names_the_one_whose_values_suit_is_suggested() -> None:
    rows = table(age=None, ages=["x"] * 4, agee=[20, 30, 40, 50])

    assert found(rows, "age").suggestion == "agee"


def test_two_renames_are_not_confused() -> None:
    values = table()
    rows = table(age=None, amount=None, amounts=values["amount"], ages=values["age"])

    assert found(rows, "age").suggestion == "ages"
    assert found(rows, "amount").suggestion == "amounts"


def test_nothing_is_suggested_where_nothing_is_likely() -> None:
    rows = table(age=None, first=[20, 30, 40, 50], second=[20, 30, 40, 50])

    assert found(rows, "age").verdict == "missing"
    assert "looks like it" not in refused(rows)
    assert "Columns that the contract does not know: first, second." in refused(rows)


@pytest.mark.parametrize(
    ("column", "values", "told"),
    [
        ("age", ["young", "old", "old", None], "text, for example 'young'"),
        ("age", ["20", "30.5", "x", "y"], "text, for example '30.5'"),
        ("code", [1, 2, 1, 2], "whole number, for example 1"),
        ("age", [datetime(2026, 1, 6, tzinfo=UTC)] * 4, "instant with time zone, for example"),
        ("age", [[1], [2], [3], [4]], "list<item: int64>, for example [1]"),
        ("code", [b"A", b"B", b"A", b"B"], "bytes, for example 41"),
        ("at", ["2026-01-06 10:00"] * 4, "text without time zone, for example '2026-01-06 10:00'"),
    ],
)
def test_a_changed_type_is_shown_with_an_example(column: str, values: Any, told: str) -> None:
    rows = table(**{column: values})

    assert told in refused(rows)
    assert found(rows, column).verdict == "changed_type"


def test_half_of_the_values_may_be_wrong_before_a_type_counts_as_changed() -> None:
    half = table(age=["20", "30", "x", "y"])
    judged = judge(half, SCHEMA, **RULES)

    assert judged.quarantine["reason"].tolist() == ["wrong_type", "wrong_type"]
    assert found(half, "age").verdict == "ok"
    assert found(half, "age").breaking == 0.5
    assert found(table(age=["20", "", "x", "y"]), "age").verdict == "changed_type"


@pytest.mark.parametrize("kind", [pa.string(), pa.null(), pa.float64(), pa.list_(pa.int8())])
def test_without_values_no_type_has_changed(kind: pa.DataType) -> None:
    none = table(asked=pa.nulls(4, kind))

    assert found(none, "asked").verdict == "ok"
    assert len(judge(none, SCHEMA, **RULES).good) == 4
    assert judge(table(age=pa.nulls(4, kind)).slice(0, 0), SCHEMA, **RULES).good.empty


def test_timestamps_without_a_zone_are_refused_even_where_there_are_none() -> None:
    naive = table(at=pa.array([datetime(2026, 1, 6)] * 4, pa.timestamp("us")))

    assert "AT TIME ZONE 'Europe/London' AS at" in refused(naive)
    assert "AT TIME ZONE" in refused(naive.slice(0, 0))
    assert found(naive, "at").verdict == "changed_type"
    assert "give it a time zone" in remedy(compare(naive, SCHEMA))


def test_two_columns_of_one_name_are_refused() -> None:
    twice = table().append_column("age", pa.array([1, 2, 3, 4]))

    assert "more than one column 'age'" in refused(twice)


def test_a_column_by_our_own_name_for_raw_rows_is_refused() -> None:
    assert "'__row'" in refused(table(__row=['{"age": 20}'] * 4))


def test_names_out_of_the_source_cannot_write_to_the_terminal() -> None:
    told = refused(table(age=None, **{"a\x1b[2Jge": [20, 30, 40, 50], "x\ny": [1, 2, 3, 4]}))

    assert "\x1b" not in told
    assert "x\ny" not in told


def test_an_optional_column_must_be_able_to_hold_missing_values() -> None:
    schema = SCHEMA.update_column("age", required=False)

    with pytest.raises(ContractError, match=r"age +whole number, 18 to 95 +no such column"):
        judge(table(age=None), schema, **RULES)


def test_the_share_that_breaks_counts_types_ranges_and_missing_values() -> None:
    rows = table(age=["20", "x", "150", ""], code=["A", "B", "C", None])

    assert found(rows, "age").breaking == 0.75
    assert found(rows, "code").breaking == 0.5
    assert found(rows, "asked").breaking == 0
    assert found(rows.slice(0, 0), "age").breaking is None


def test_many_categories_are_told_in_short() -> None:
    schema = SCHEMA.update_column("code", checks=[pandera.Check.isin(list("ABCDEFGHIJ"))])

    (code,) = [each for each in compare(table(), schema) if each.column == "code"]

    assert code.expected == "text, one of A, B … J"


def test_a_check_of_its_own_is_told_by_its_words() -> None:
    even = pandera.Check(lambda ages: ages.mod(2).eq(0), error="an even number")
    schema = SCHEMA.update_column("age", checks=[even])

    differences = {each.column: each for each in compare(table(age=[20, 30, 41, 50]), schema)}

    assert differences["age"].expected == "whole number, an even number"
    assert differences["age"].breaking == np.float64(0.25)


def many(count: int, **changed: Any) -> pa.Table:
    """So many good rows of one day, with some columns changed."""
    columns = {
        "name": [f"n{place}" for place in range(count)],
        "at": [datetime(2026, 1, 6, 12, tzinfo=UTC)] * count,
        "age": [30] * count,
        "amount": [1.0] * count,
        "code": ["A"] * count,
    } | changed
    return pa.table(columns)


@pytest.mark.parametrize(("wrong", "fails"), [(1, False), (9, False), (10, True), (100, True)])
def test_a_few_odd_values_of_a_sparse_column_are_rows_and_no_changed_type(
    wrong: int, fails: bool
) -> None:
    rows = many(100, asked=["n/a"] * wrong + [None] * (100 - wrong))

    if fails:
        assert "text, for example 'n/a'" in refused(rows)
    else:
        assert judge(rows, SCHEMA, **RULES).quarantine["reason"].tolist() == ["wrong_type"] * wrong


def test_a_range_of_days_fails_by_a_day_that_would_fail_alone() -> None:
    good, bad = many(100, age=["30"] * 100), many(20, age=["x"] * 20)
    yesterday = [datetime(2026, 1, 5, 12, tzinfo=UTC)] * 20
    bad = bad.set_column(1, "at", pa.array(yesterday, pa.timestamp("us", "UTC")))
    names = [f"other{place}" for place in range(20)]
    bad = bad.set_column(0, "name", pa.array(names))
    both = pa.concat_tables([good, bad])

    alone = RULES | {"days": ["2026-01-05"]}
    with pytest.raises(ContractError, match=r"age .* text, for example 'x'"):
        judge(bad, SCHEMA, **alone)
    with pytest.raises(ContractError, match=r"age .* text, for example 'x'"):
        judge(both, SCHEMA, **RULES | {"days": ["2026-01-05", "2026-01-06"]})


def test_a_changed_type_in_a_file_is_told_with_file_and_line() -> None:
    origins = [f"m.csv, line {place + 2}" for place in range(20)]
    rows = many(20, age=["30", *["x"] * 19], __origin=origins)

    assert "text, for example 'x' in m.csv, line 3" in refused(rows)
