"""What holds of judging whatever the rows are: nothing is lost, and nothing depends on their order.

The rows are those of a small contract with a column of every kind, as text (a CSV file) or typed.
"""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pandera.typing import Series

from ml_assets.core.contract import ASSIGNED_DAY, ORIGIN, ContractError, Judged, judge, rejudge
from ml_assets.core.raw_rows import from_json, to_json

DAYS = ["2026-01-05", "2026-01-06"]
RULES: dict[str, Any] = {
    "days": DAYS,
    "key": "name",
    "received_at": "at",
    "updated_at": "changed",
    "zone": ZoneInfo("Europe/London"),
}
_START = datetime(2026, 1, 5, tzinfo=UTC)
_DEFECTS = ["", " ", "x", "NaN", "1e999", "2026-01-05T10:00", "9" * 20, "7.5", "\x00", "é"]


class Small(pandera.DataFrameModel):
    """A column of every kind."""

    day: Series[str]
    name: Series[str]
    at: Series[pd.DatetimeTZDtype] = pandera.Field(dtype_kwargs={"unit": "us", "tz": "UTC"})
    changed: Series[pd.DatetimeTZDtype] = pandera.Field(
        dtype_kwargs={"unit": "us", "tz": "UTC"}, nullable=True
    )
    code: Series[str] = pandera.Field(isin=["A", "B"], nullable=True)
    amount: Series[float] = pandera.Field(ge=0, nullable=True)
    count: Series[int] = pandera.Field(le=5)
    flag: Series[pd.Int8Dtype] = pandera.Field(isin=[0, 1], nullable=True)


SCHEMA = Small.to_schema()
COLUMNS = [name for name in SCHEMA.columns if name != "day"]

_instants = st.integers(0, 47).map(lambda hour: _START + timedelta(hours=hour))
_texts = {
    "name": st.sampled_from(["a", "b", "c", "d", ""]),
    "at": _instants.map(datetime.isoformat),
    "changed": _instants.map(datetime.isoformat),
    "code": st.sampled_from(["A", "B", "C", ""]),
    "amount": st.sampled_from(["0", "1.5", "-1", "1e3", ""]),
    "count": st.sampled_from(["1", "5", "6", "5.0"]),
    "flag": st.sampled_from(["0", "1", "2", ""]),
    "extra": st.sampled_from(["p", "q"]),
    ORIGIN: st.sampled_from(["f, line 2", "f, line 3"]),
    ASSIGNED_DAY: st.sampled_from(DAYS),
}
_typed = {
    "name": st.sampled_from(["a", "b", "c", None]),
    "at": _instants,
    "changed": st.none() | _instants,
    "code": st.sampled_from(["A", "B", "C", None]),
    "amount": st.none() | st.floats(-1, 9) | st.sampled_from([1.0, 2.0, float("nan")]),
    "count": st.none() | st.integers(1, 6),
    "flag": st.sampled_from([None, 0, 0, 1, 1, 2, 300]),
    "extra": st.none() | st.binary(max_size=2),
}
_typed_columns = pa.schema(
    {
        "name": pa.string(),
        "at": pa.timestamp("us", "UTC"),
        "changed": pa.timestamp("us", "UTC"),
        "code": pa.string(),
        "amount": pa.float64(),
        "count": pa.int32(),
        "flag": pa.int64(),
        "extra": pa.binary(),
    }
)


@st.composite
def text_tables(draw: Any) -> pa.Table:
    rows = draw(st.lists(st.fixed_dictionaries(_texts), max_size=12))
    for _ in range(draw(st.integers(0, len(rows) // 3))):
        row = draw(st.integers(0, len(rows) - 1))
        defect = st.sampled_from(_DEFECTS) | st.none() | st.text(max_size=4)
        rows[row] = rows[row] | {draw(st.sampled_from(COLUMNS)): draw(defect)}
    return pa.Table.from_pylist(rows, pa.schema(dict.fromkeys(_texts, pa.string())))


tables = text_tables() | st.lists(st.fixed_dictionaries(_typed), max_size=12).map(
    lambda rows: pa.Table.from_pylist(rows, _typed_columns)
)


def judged(rows: pa.Table) -> Judged:
    """The verdict on the rows, if their columns can be judged at all."""
    try:
        return judge(rows, SCHEMA, **RULES)
    except ContractError as error:
        assume("does not keep the contract" not in str(error))
        raise


def same(one: Judged, other: Judged) -> None:
    pd.testing.assert_frame_equal(one.good, other.good)
    pd.testing.assert_frame_equal(one.quarantine, other.quarantine)
    pd.testing.assert_frame_equal(one.extraction, other.extraction)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tables)
def test_every_row_is_kept_quarantined_or_a_copy(rows: pa.Table) -> None:
    found = judged(rows)

    account = found.extraction
    parts = account[["rows_kept", "rows_quarantined", "duplicates_dropped"]]
    assert account["rows_read"].sum() == len(rows)
    assert parts.sum(axis=1).tolist() == account["rows_read"].tolist()
    for day, row in account.set_index("day").iterrows():
        assert row["rows_kept"] == (found.good["day"] == day).sum()
        assert row["rows_quarantined"] == (found.quarantine["day"] == day).sum()
    SCHEMA.validate(found.good)
    assert not found.good.duplicated(["day", "name"]).any()
    told = set(found.quarantine["row"])
    assert told <= set(to_json(rows, {"name", "code"}))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows: pa.Table, random: Any) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)

    same(judged(rows), judged(rows.take(pa.array(order, pa.int64()))))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables)
def test_good_rows_stay_good(rows: pa.Table) -> None:
    good = judged(rows).good

    again = judge(
        pa.Table.from_pandas(good.drop(columns="day"), preserve_index=False), SCHEMA, **RULES
    )

    pd.testing.assert_frame_equal(again.good, good)
    assert again.quarantine.empty


@settings(max_examples=60, deadline=None, derandomize=True)
@given(tables)
def test_stored_rows_are_judged_as_they_were(rows: pa.Table) -> None:
    first = judged(rows)

    again = rejudge(first.good, first.quarantine, SCHEMA, **RULES)

    pd.testing.assert_frame_equal(again.good, first.good)
    pd.testing.assert_frame_equal(again.quarantine, first.quarantine)
    assert again.extraction["rows_kept"].tolist() == first.extraction["rows_kept"].tolist()
    assert again.extraction["duplicates_dropped"].sum() == 0


@settings(max_examples=200, deadline=None, derandomize=True)
@given(tables)
def test_rows_out_of_json_say_what_they_said(rows: pa.Table) -> None:
    texts = to_json(rows, {"name", "code"})

    assert to_json(from_json(texts).drop_columns(["__row"]), ()) == texts
