"""The judge: every row read is kept, quarantined with its reason, or dropped as an exact copy."""

import json
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pytest
from pandera.typing import Series

from ml_assets.core.contract import (
    ASSIGNED_DAY,
    ORIGIN,
    ContractError,
    Judged,
    bad_days,
    judge,
    rejudge,
)
from ml_assets.core.tables import Extraction, Quarantine, keyed
from ml_assets.use_cases.claims.schema import ClaimsRaw
from ml_assets.use_cases.claims.simulator import rows_as_of

LONDON = ZoneInfo("Europe/London")
DAY = "2026-01-06"


RULES: dict[str, Any] = {
    "key": "application_id",
    "received_at": "received_at",
    "updated_at": "updated_at",
    "zone": LONDON,
}


def judge_claims(
    rows: pd.DataFrame | pa.Table, days: list[str] | None = None, schema: Any = None
) -> Judged:
    table = rows if isinstance(rows, pa.Table) else table_of(rows)
    return judge(table, schema or ClaimsRaw.to_schema(), days=days or [DAY], **RULES)


def table_of(rows: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(rows, preserve_index=False)


def as_text(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows as a CSV file has them: text alone, empty where a value is missing."""
    return rows.astype(object).where(rows.notna(), "").astype(str)


@pytest.fixture(scope="module")
def clean_rows() -> pd.DataFrame:
    """Two hundred rows of one day that keep the contract, as the source query returns them."""
    as_of = datetime(2026, 3, 1, tzinfo=LONDON)
    rows = rows_as_of(date.fromisoformat(DAY), as_of, daily_volume=300)
    rows = rows.rename(columns={"income level": "income_level"})
    keys = judge_claims(rows).good["application_id"].head(200)
    return rows[rows["application_id"].isin(keys)].reset_index(drop=True)


def with_value(rows: pd.DataFrame, column: str, value: Any, position: int = 7) -> pd.DataFrame:
    """One value changed; the column becomes text, or fractions, if that is what the value is."""
    kinds = {str: object, float: "Float64"}
    values = rows[column]
    if isinstance(value, str):
        values = values.astype(object).map(str, na_action="ignore")
    changed = rows.assign(**{column: values.astype(kinds.get(type(value), values.dtype))})
    changed.loc[position, column] = value
    return changed


@pytest.mark.parametrize(
    ("column", "value", "reason", "told"),
    [
        ("application_id", None, "missing_key", None),
        ("application_id", "", "missing_key", None),
        ("income", None, "missing_value", None),
        ("income", "", "missing_value", None),
        ("occupation", "", "missing_value", None),
        ("updated_at", None, "missing_value", None),
        ("n_dependents", "three", "wrong_type", "three"),
        ("age", 41.5, "wrong_type", "41.5"),
        ("age", "41.5", "wrong_type", "41.5"),
        ("age", "1e30", "wrong_type", "1e30"),
        ("claim_status", 257, "wrong_type", "257"),
        ("financial_hist_1", float("inf"), "wrong_type", "Infinity"),
        ("financial_hist_1", "nan", "wrong_type", "nan"),
        ("updated_at", "2026-01-06T10:00:00", "no_time_zone", "2026-01-06T10:00:00"),
        ("received_at", "2026-01-06", "no_time_zone", "2026-01-06"),
        ("received_at", "yesterday", "wrong_type", "yesterday"),
        ("age", 150, "out_of_range", "150"),
        ("income", -1, "out_of_range", "-1"),
        ("product_var_3", "X", "unknown_category", "X"),
        ("gender", 2, "unknown_category", "2"),
        ("claim_status", 7, "unknown_category", "7"),
    ],
)
def test_a_broken_row_goes_to_quarantine_with_its_reason(
    clean_rows: pd.DataFrame, column: str, value: Any, reason: str, told: str | None
) -> None:
    judged = judge_claims(with_value(clean_rows, column, value))

    (bad,) = judged.quarantine.to_dict("records")
    assert (bad["reason"], bad["column"], bad["value"]) == (reason, column, told)
    assert len(judged.good) == 199
    assert json.loads(bad["row"])["height_cm"] == clean_rows.loc[7, "height_cm"]
    assert bad["day"] == DAY
    ClaimsRaw.validate(judged.good)


def test_text_is_judged_as_typed_rows_are(clean_rows: pd.DataFrame) -> None:
    typed, text = judge_claims(clean_rows), judge_claims(as_text(clean_rows))

    pd.testing.assert_frame_equal(text.good, typed.good)
    pd.testing.assert_frame_equal(text.extraction, typed.extraction)


def test_the_quarantined_row_is_kept_whole_and_as_it_came(clean_rows: pd.DataFrame) -> None:
    rows = with_value(clean_rows, "n_dependents", "dreißig").assign(surprise=4.5)
    rows["updated_at"] = pd.Timestamp("2026-01-06T12:00:00.25+01:00")
    judged = judge_claims(rows.assign(**{ORIGIN: "a.csv, line 9"}))

    (bad,) = judged.quarantine.to_dict("records")
    kept = json.loads(bad["row"])
    assert kept["n_dependents"] == "dreißig"
    assert "dreißig" in bad["row"]
    assert kept["application_id"] == clean_rows.loc[7, "application_id"]
    assert kept["updated_at"] == "2026-01-06T11:00:00.25+00:00"
    assert kept["surprise"] == 4.5
    assert set(kept) == {*clean_rows.columns, "surprise"}
    assert list(kept) == sorted(kept)
    assert bad["origin"] == "a.csv, line 9"


def test_a_long_value_is_cut_but_its_row_is_not(clean_rows: pd.DataFrame) -> None:
    judged = judge_claims(with_value(clean_rows, "location", "x" * 300))

    (bad,) = judged.quarantine.to_dict("records")
    assert bad["value"] == "x" * 200
    assert json.loads(bad["row"])["location"] == "x" * 300


def test_of_several_failures_the_first_in_the_contracts_order_is_told(
    clean_rows: pd.DataFrame,
) -> None:
    rows = with_value(with_value(clean_rows, "n_dependents", "three"), "age", None)

    judged = judge_claims(rows)

    assert judged.quarantine[["reason", "column"]].to_numpy().tolist() == [["missing_value", "age"]]


def test_rows_that_share_a_key_and_differ_are_all_quarantined(clean_rows: pd.DataFrame) -> None:
    other = with_value(clean_rows, "age", 33).iloc[[7]]
    judged = judge_claims(pd.concat([clean_rows, other]))

    assert judged.quarantine["reason"].tolist() == ["duplicate_key", "duplicate_key"]
    assert judged.quarantine["value"].tolist() == [clean_rows.loc[7, "application_id"]] * 2
    assert len(judged.good) == 199


def test_rows_without_a_key_are_not_of_one_key(clean_rows: pd.DataFrame) -> None:
    rows = with_value(with_value(clean_rows, "application_id", None), "application_id", None, 8)

    judged = judge_claims(rows)

    assert judged.quarantine["reason"].tolist() == ["missing_key", "missing_key"]


def test_a_key_may_come_back_on_another_day(clean_rows: pd.DataFrame) -> None:
    day = pd.Timedelta(days=1)
    later = clean_rows.assign(received_at=pd.to_datetime(clean_rows["received_at"]) + day)

    judged = judge_claims(pd.concat([clean_rows, later]), [DAY, "2026-01-07"])

    assert judged.extraction["rows_kept"].tolist() == [200, 200]


def test_an_exact_copy_is_dropped_and_counted(clean_rows: pd.DataFrame) -> None:
    judged = judge_claims(pd.concat([clean_rows, clean_rows.iloc[[3, 3]]]))

    assert len(judged.good) == 200
    assert judged.extraction["duplicates_dropped"].tolist() == [2]
    assert judged.quarantine.empty


def test_copies_may_differ_in_their_origin_and_in_columns_that_are_ignored(
    clean_rows: pd.DataFrame,
) -> None:
    rows = with_value(clean_rows, "age", 150)
    rows = pd.concat([rows, rows.iloc[[3, 7]]], ignore_index=True)
    rows = rows.assign(**{ORIGIN: [f"line {n:03}" for n in range(len(rows), 0, -1)], "extra": 1})

    judged, backwards = judge_claims(rows), judge_claims(rows[::-1])

    assert len(judged.good) == 199
    assert judged.extraction["duplicates_dropped"].tolist() == [2]
    assert judged.quarantine["origin"].tolist() == ["line 001"]
    pd.testing.assert_frame_equal(judged.quarantine, backwards.quarantine)


def test_bad_rows_are_copies_only_if_what_cannot_be_read_is_the_same(
    clean_rows: pd.DataFrame,
) -> None:
    rows = with_value(clean_rows, "n_dependents", "three")
    rows = pd.concat([rows, rows.iloc[[7, 7]]], ignore_index=True)
    rows.loc[201, "n_dependents"] = "four"

    judged = judge_claims(rows)

    assert judged.extraction["duplicates_dropped"].tolist() == [1]
    assert sorted(judged.quarantine["reason"]) == ["duplicate_key", "duplicate_key"]


def test_every_row_read_is_accounted_for() -> None:
    days = ["2026-01-05", "2026-01-06", "2026-01-07"]
    as_of = datetime(2026, 3, 1, tzinfo=LONDON)
    rows = pd.concat([rows_as_of(date.fromisoformat(day), as_of) for day in days])

    judged = judge_claims(rows.rename(columns={"income level": "income_level"}), days)

    account = judged.extraction
    parts = account["rows_kept"] + account["rows_quarantined"] + account["duplicates_dropped"]
    assert account["rows_read"].sum() == len(rows)
    assert parts.tolist() == account["rows_read"].tolist()
    assert account["rows_quarantined"].sum() > 0
    newest = rows["updated_at"].groupby(rows["received_at"].dt.date).max()
    assert account["newest_updated_at"].tolist() == newest.tolist()
    Extraction.validate(account.assign(fingerprint=""))
    keyed(Quarantine, "application_id").validate(
        judged.quarantine.assign(
            quarantined_at=pd.Timestamp("2026-03-01", tz="UTC").as_unit("us"), run_id="r"
        )
    )


def test_a_day_without_rows_has_an_account_of_zeroes(clean_rows: pd.DataFrame) -> None:
    for rows in (clean_rows.head(0), as_text(clean_rows).head(0)):
        judged = judge_claims(rows)

        (account,) = judged.extraction.to_dict("records")
        assert (account["rows_read"], account["rows_kept"]) == (0, 0)
        assert pd.isna(account["newest_updated_at"])
        ClaimsRaw.validate(judged.good)


@pytest.mark.parametrize("column", ["received_at", "updated_at"])
def test_instants_without_a_time_zone_are_refused(clean_rows: pd.DataFrame, column: str) -> None:
    naive = pd.to_datetime(clean_rows[column]).dt.tz_localize(None)

    with pytest.raises(ContractError, match=f"{column} has no time zone.*AT TIME ZONE 'Europe/Lo"):
        judge_claims(clean_rows.assign(**{column: naive}))


def test_a_column_that_the_contract_does_not_know_is_ignored_and_named(
    clean_rows: pd.DataFrame,
) -> None:
    judged = judge_claims(clean_rows.assign(surprise=1, **{ORIGIN: "a.csv, line 2"}))

    assert "surprise" not in judged.good
    assert len(judged.good) == 200
    assert judged.ignored == ("surprise",)


def test_an_optional_column_that_is_missing_holds_missing_values(clean_rows: pd.DataFrame) -> None:
    schema = ClaimsRaw.to_schema().update_column("employment_type", required=False)

    judged = judge_claims(clean_rows.drop(columns="employment_type"), schema=schema)

    assert judged.absent == ("employment_type",)
    assert judged.good["employment_type"].isna().all()
    assert len(judged.good) == 200
    assert judge_claims(clean_rows, schema=schema).absent == ()
    ClaimsRaw.validate(judged.good)


def test_rows_of_days_that_were_not_asked_for_are_refused(clean_rows: pd.DataFrame) -> None:
    with pytest.raises(ContractError, match=r"200 rows received on days .*2026-01-06.*:start"):
        judge_claims(clean_rows, ["2026-01-05"])


def test_an_assigned_day_counts_and_its_contradiction_is_told(clean_rows: pd.DataFrame) -> None:
    rows = as_text(clean_rows).assign(**{ASSIGNED_DAY: "2026-01-05"})
    rows.loc[1:, ASSIGNED_DAY] = DAY
    rows.loc[5, "received_at"] = "soon"

    judged = judge_claims(rows, ["2026-01-05", DAY])

    told = judged.quarantine[["day", "reason", "column", "value"]].to_numpy().tolist()
    assert told == [
        ["2026-01-05", "outside_days", "received_at", rows.loc[0, "received_at"]],
        [DAY, "wrong_type", "received_at", "soon"],
    ]
    assert judged.extraction["rows_read"].tolist() == [1, 199]


def test_a_row_without_an_instant_is_counted_in_the_first_day(clean_rows: pd.DataFrame) -> None:
    judged = judge_claims(with_value(clean_rows, "received_at", None), ["2026-01-05", DAY])

    assert judged.extraction["rows_read"].tolist() == [1, 199]
    assert judged.quarantine["reason"].tolist() == ["missing_value"]


@pytest.mark.parametrize(
    ("instant", "day"),
    [
        ("2026-03-28T23:59:59.999999+00:00", "2026-03-28"),
        ("2026-03-29T00:00:00+00:00", "2026-03-29"),  # 23 hours long
        ("2026-03-29T22:59:59+00:00", "2026-03-29"),
        ("2026-03-29T23:00:00+00:00", "2026-03-30"),
        ("2026-10-24T23:00:00+00:00", "2026-10-25"),  # 25 hours long
        ("2026-10-25T23:59:59+00:00", "2026-10-25"),
        ("2028-02-29T12:00:00+00:00", "2028-02-29"),
        ("2026-01-01T00:30:00+01:00", "2025-12-31"),
    ],
)
def test_a_row_is_of_the_local_day_it_was_received_on(
    clean_rows: pd.DataFrame, instant: str, day: str
) -> None:
    judged = judge_claims(as_text(clean_rows.head(1)).assign(received_at=instant), [day])

    assert judged.good["day"].tolist() == [day]


class Custom(pandera.DataFrameModel):
    """A contract with checks of its own."""

    day: Series[str]
    name: Series[str]
    at: Series[pd.DatetimeTZDtype] = pandera.Field(dtype_kwargs={"unit": "us", "tz": "UTC"})
    low: Series[float]
    high: Series[float]
    sure: Series[bool]

    @pandera.check("low")
    def low_is_no_seven(cls, low: pd.Series) -> pd.Series:
        return low != 7

    @pandera.dataframe_check
    def low_is_below_high(cls, rows: pd.DataFrame) -> pd.Series:
        return rows["low"] <= rows["high"]


def test_checks_of_the_use_case_count() -> None:
    rows = pa.table(
        {
            "name": ["a", "b", "c", "d"],
            "at": pa.array([pd.Timestamp("2026-01-06", tz="UTC")] * 4),
            "low": [1, 7, 9, None],
            "high": [2, 8, 3, 4],
            "sure": [True, False, True, True],
        }
    )

    judged = judge(
        rows,
        Custom.to_schema(),
        days=[DAY],
        key="name",
        received_at="at",
        updated_at="at",
        zone=LONDON,
    )

    assert judged.good["name"].tolist() == ["a"]
    found = judged.quarantine.set_index("name")[["reason", "column", "value"]]
    assert {key: tuple(row) for key, row in found.T.to_dict("list").items()} == {
        "b": ("out_of_range", "low", "7"),
        "c": ("out_of_range", "low_is_below_high", None),
        "d": ("missing_value", "low", None),
    }


def test_a_check_that_cannot_judge_is_an_error(clean_rows: pd.DataFrame) -> None:
    def breaks(values: pd.Series) -> pd.Series:
        raise KeyError("no such thing")

    schema = ClaimsRaw.to_schema().update_column("age", checks=[pandera.Check(breaks)])

    with pytest.raises(ContractError, match=r"cannot judge the rows.*no such thing"):
        judge_claims(clean_rows, schema=schema)


def test_a_day_with_too_many_bad_rows_is_told_by_name(clean_rows: pd.DataFrame) -> None:
    broken = clean_rows.copy()
    broken.loc[0, "bmi"] = 1
    broken.loc[1:19, "age"] = 200
    judged = judge_claims(broken)

    assert bad_days(judged, 0.10) == {}
    assert bad_days(judged, 0.09) == {
        DAY: "10.0% of the rows break the contract (19 x out_of_range in age, 1 x out_of_range in "
        "bmi; for example age = '200'); at most 9.0% may (contract.max_bad_share)"
    }


def test_stored_rows_are_judged_as_before(clean_rows: pd.DataFrame) -> None:
    rows = with_value(with_value(clean_rows, "n_dependents", "three"), "financial_hist_1", 1e30, 9)
    other = with_value(rows, "age", 33, 11).iloc[[11]]
    rows = pd.concat([rows, other]).assign(surprise=1, **{ORIGIN: "a.csv, line 5"})
    first = judge_claims(rows)

    again = rejudge(first.good, first.quarantine, ClaimsRaw.to_schema(), days=[DAY], **RULES)

    assert len(first.quarantine) == 4
    pd.testing.assert_frame_equal(again.good, first.good)
    pd.testing.assert_frame_equal(again.quarantine, first.quarantine)
    pd.testing.assert_frame_equal(again.extraction, first.extraction)


def test_rows_pass_once_the_contract_is_mended(clean_rows: pd.DataFrame) -> None:
    rows = with_value(clean_rows, "age", 97)
    first = judge_claims(rows)
    wider = ClaimsRaw.to_schema().update_column("age", checks=[pandera.Check.in_range(18, 99)])

    again = rejudge(first.good, first.quarantine, wider, days=[DAY], **RULES)

    assert again.quarantine.empty
    pd.testing.assert_frame_equal(again.good, judge_claims(rows, schema=wider).good)


def test_a_mended_row_that_repeats_a_good_one_is_not_let_in(clean_rows: pd.DataFrame) -> None:
    first = judge_claims(clean_rows)
    row = json.loads(judge_claims(with_value(clean_rows, "age", 150)).quarantine["row"].iloc[0])
    mended = json.dumps({**row, "age": "57"})
    quarantine = pd.DataFrame({"day": [DAY], "row": [mended], "origin": [None]})

    again = rejudge(first.good, quarantine, ClaimsRaw.to_schema(), days=[DAY], **RULES)

    assert again.quarantine["reason"].tolist() == ["duplicate_key", "duplicate_key"]
    assert len(again.good) == 199


def test_rows_in_quarantine_may_hold_anything(clean_rows: pd.DataFrame) -> None:
    rows = clean_rows.head(3)
    good = judge_claims(rows.head(1)).good
    bad = [
        json.loads(judge_claims(with_value(rows, "age", 150, 1).iloc[[1]]).quarantine["row"][0])
    ] * 7
    changes = [
        {"marital_status": 3},
        {"age": [57]},
        {"age": {"years": 57}},
        {"age": "57 years"},
        {"marital_status": {"$type": "decimal128(3, 0)", "$value": "3"}},
        {"age": {"$type": "bytes", "$value": "57"}},
        {"updated_at": 20260106},
    ]
    texts = [
        json.dumps({**row, "age": 57, "application_id": f"X{n}", **change})
        for n, (row, change) in enumerate(zip(bad, changes, strict=True))
    ]
    short = json.dumps({"application_id": "Y"})
    quarantine = pd.DataFrame({"day": DAY, "row": [*texts, short], "origin": None})

    again = rejudge(good, quarantine, ClaimsRaw.to_schema(), days=[DAY], **RULES)

    found = again.quarantine.set_index("application_id")[["reason", "column", "value"]]
    assert {key: tuple(row) for key, row in found.T.to_dict("list").items()} == {
        "X0": ("wrong_type", "marital_status", "3"),
        "X1": ("wrong_type", "age", "[57]"),
        "X2": ("wrong_type", "age", '{"years": 57}'),
        "X3": ("wrong_type", "age", "57 years"),
        "X4": ("wrong_type", "marital_status", "3"),
        "X5": ("wrong_type", "age", "57"),
        "X6": ("wrong_type", "updated_at", "20260106"),
        "Y": ("missing_value", "received_at", None),
    }
    pd.testing.assert_frame_equal(again.good, good)


def test_good_rows_without_a_column_that_is_required_by_now_must_be_read_anew(
    clean_rows: pd.DataFrame,
) -> None:
    first = judge_claims(with_value(clean_rows, "age", 150))

    with pytest.raises(ContractError, match=r"bmi +whole number, 8 to 80 +no such column"):
        rejudge(
            first.good.drop(columns="bmi"),
            first.quarantine,
            ClaimsRaw.to_schema(),
            days=[DAY],
            **RULES,
        )


def test_good_rows_can_be_changed_without_a_warning(clean_rows: pd.DataFrame) -> None:
    good = judge_claims(with_value(clean_rows, "age", 150)).good

    good["age"] = np.int64(50)

    assert good["age"].eq(50).all()
