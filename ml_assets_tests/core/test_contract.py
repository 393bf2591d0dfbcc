"""The judge: every row read is kept, quarantined with its reason, or dropped as an exact copy."""

import json
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from ml_assets.core.contract import ContractError, Judged, judge, refuse_bad_days
from ml_assets.core.tables import Extraction, Quarantine, keyed
from ml_assets.use_cases.claims.schema import ClaimsRaw
from ml_assets.use_cases.claims.simulator import rows_as_of

LONDON = ZoneInfo("Europe/London")
DAY = "2026-01-06"


def judge_claims(rows: pd.DataFrame, days: list[str] | None = None) -> Judged:
    return judge(
        rows,
        ClaimsRaw.to_schema(),
        days=days or [DAY],
        key="application_id",
        received_at="received_at",
        updated_at="updated_at",
        zone=LONDON,
    )


@pytest.fixture(scope="module")
def clean_rows() -> pd.DataFrame:
    """Two hundred rows of one day that keep the contract, as the source query returns them."""
    as_of = datetime(2026, 3, 1, tzinfo=LONDON)
    rows = rows_as_of(date.fromisoformat(DAY), as_of, daily_volume=300)
    rows = rows.rename(columns={"income level": "income_level"})
    judged = judge_claims(rows)
    keys = judged.good["application_id"].head(200)
    return rows[rows["application_id"].isin(keys)].astype(object).reset_index(drop=True)


def with_value(rows: pd.DataFrame, column: str, value: Any, position: int = 7) -> pd.DataFrame:
    changed = rows.copy()
    changed.loc[position, column] = value
    return changed


@pytest.mark.parametrize(
    ("column", "value", "reason", "told"),
    [
        ("application_id", None, "missing_key", None),
        ("income", None, "missing_value", None),
        ("updated_at", None, "missing_value", None),
        ("n_dependents", "three", "wrong_type", "three"),
        ("age", 41.5, "wrong_type", "41.5"),
        ("age", "1e30", "wrong_type", "1e30"),
        ("claim_status", 257, "wrong_type", "257"),
        ("marital_status", 3, "wrong_type", "3"),
        ("financial_hist_1", float("inf"), "wrong_type", "inf"),
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


def test_the_quarantined_row_is_kept_as_it_came(clean_rows: pd.DataFrame) -> None:
    judged = judge_claims(with_value(clean_rows, "n_dependents", "dreißig"))

    kept = json.loads(judged.quarantine["row"].iloc[0])
    assert kept["n_dependents"] == "dreißig"
    assert kept["application_id"] == clean_rows.loc[7, "application_id"]


def test_rows_that_share_a_key_and_differ_are_all_quarantined(clean_rows: pd.DataFrame) -> None:
    other = with_value(clean_rows, "age", 33).iloc[[7]]
    judged = judge_claims(pd.concat([clean_rows, other]))

    assert judged.quarantine["reason"].tolist() == ["duplicate_key", "duplicate_key"]
    assert len(judged.good) == 199


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
    Extraction.validate(account)
    keyed(Quarantine, "application_id").validate(judged.quarantine)


def test_a_day_without_rows_has_an_account_of_zeroes(clean_rows: pd.DataFrame) -> None:
    judged = judge_claims(clean_rows.head(0))

    (account,) = judged.extraction.to_dict("records")
    assert (account["rows_read"], account["rows_kept"]) == (0, 0)
    assert pd.isna(account["newest_updated_at"])
    ClaimsRaw.validate(judged.good)


def test_a_missing_column_is_named(clean_rows: pd.DataFrame) -> None:
    with pytest.raises(ContractError, match=r"returns no column 'income'. It returns: appl"):
        judge_claims(clean_rows.drop(columns="income"))


@pytest.mark.parametrize("column", ["received_at", "updated_at"])
def test_instants_without_a_time_zone_are_refused(clean_rows: pd.DataFrame, column: str) -> None:
    naive = pd.to_datetime(clean_rows[column]).dt.tz_localize(None)

    with pytest.raises(ContractError, match=f"{column} has no time zone.*AT TIME ZONE 'Europe/Lo"):
        judge_claims(clean_rows.assign(**{column: naive}))


def test_a_column_that_the_contract_does_not_know_is_ignored(clean_rows: pd.DataFrame) -> None:
    judged = judge_claims(clean_rows.assign(surprise=1))

    assert "surprise" not in judged.good
    assert len(judged.good) == 200


def test_a_day_with_too_many_bad_rows_is_refused_by_name(clean_rows: pd.DataFrame) -> None:
    broken = clean_rows.copy()
    broken.loc[0, "bmi"] = 1
    broken.loc[1:19, "age"] = 200
    judged = judge_claims(broken)

    refuse_bad_days(judged, 0.10)
    with pytest.raises(
        ContractError,
        match=r"2026-01-06: 10\.0% .*19 x out_of_range in age.*for example age = .200",
    ):
        refuse_bad_days(judged, 0.09)
