"""The gate before each table: what it lets through, and what it says of the rest."""

import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.typing import Series

from ml_assets.assets.common import contract_type


class Contract(pa.DataFrameModel):
    day: Series[str]
    place: Series[str] = pa.Field(isin=["A", "B"], nullable=True)
    age: Series[int] = pa.Field(ge=18)


GOOD = {"day": ["2026-01-05"] * 2, "place": ["A", None], "age": [18, 40]}


def judged(**columns: list[object]) -> str | None:
    frame = pd.DataFrame(GOOD | columns)
    before = frame.copy()
    check = contract_type(Contract.to_schema(), "gate").type_check(None, frame)
    pd.testing.assert_frame_equal(frame, before)
    assert bool(check.success) == (check.description is None)
    return check.description


@pytest.mark.parametrize("places", [["A", "B"], ["A", None], [None, None], ["A", float("nan")]])
def test_rows_that_keep_the_contract_pass(places: list[object]) -> None:
    assert judged(place=pd.Series(places, dtype=object)) is None


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"day": ["2026-01-05", 20260105]}, "20260105"),
        ({"day": [b"2026-01-05", "2026-01-05"]}, "b'2026-01-05'"),
        ({"day": [20260104, 20260105]}, "expected series 'day' to have type str"),
        ({"day": [None, "2026-01-05"]}, "non-nullable series 'day' contains null values"),
        ({"place": ["A", "C"]}, "C"),
        ({"age": [18.0, 40.0]}, "expected series 'age' to have type int64, got float64"),
        ({"age": [17, 40]}, "greater_than_or_equal_to(18)"),
    ],
)
def test_rows_that_break_it_do_not_and_the_reason_is_told(
    columns: dict[str, list[object]], told: str
) -> None:
    assert told in str(judged(**columns))


def test_what_is_no_frame_does_not_pass() -> None:
    check = contract_type(Contract.to_schema(), "gate").type_check(None, [1])

    assert not check.success
    assert check.description == "must be a DataFrame, not list"


def test_the_ui_shows_types_and_checks_of_the_contract() -> None:
    shown = contract_type(Contract.to_schema(), "gate").metadata["schema"].value

    assert [(column.name, column.type) for column in shown.columns] == [
        ("day", "str"),
        ("place", "str"),
        ("age", "int64"),
    ]
    assert shown.columns[2].constraints.other == [">= 18"]
