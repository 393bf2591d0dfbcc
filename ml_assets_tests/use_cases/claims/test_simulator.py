from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
import pytest

from ml_assets.use_cases.claims.simulator import (
    BREACHES,
    TABLE_COLUMNS,
    applications,
    changes_between,
    rows_as_of,
)

FEATURES = list(TABLE_COLUMNS)[4:]
LETTERS = {"marital_status": "F", "occupation": "G", "location": "Z", "product_var_3": "D"}
RANGES = {
    "age": (18, 95),
    "height_cm": (140, 210),
    "weight_kg": (45, 125),
    "income": (0, 250_000),
    "credit_score_1": (0, 999),
    "credit_score_2": (0, 700),
    "credit_score_3": (0, 710),
    "health_status": (1, 4),
    "driving_record": (1, 4),
    "previous_claim_rate": (1, 5),
    "education_level": (0, 6),
    "income level": (0, 4),
    "n_dependents": (1, 5),
}
FLAGS = [
    "gender",
    "prev_claim_rejected",
    "known_health_conditions",
    "uk_residence",
    *(f"family_history_{number}" for number in range(1, 6)),
    "product_var_1",
    "product_var_2",
    "product_var_4",
    "employment_type",
]
OPTIONAL = {"family_history_3", "employment_type"}
TEXT_NUMBERS = ["credit_score_3", "n_dependents"]
DAY = date(2026, 1, 5)
START = datetime(2026, 1, 5, tzinfo=UTC)


def days(start: date, count: int, step: int = 1) -> Iterator[date]:
    return (start + timedelta(days=step * number) for number in range(count))


def several(start: date, count: int, step: int = 1) -> pd.DataFrame:
    return pd.concat(
        [applications(day).assign(day=day) for day in days(start, count, step)], ignore_index=True
    )


def good(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["breach"].eq("") & ~rows["exact_duplicate"]]


def numbers(rows: pd.DataFrame) -> pd.DataFrame:
    """Target and features of good rows as floats, letters as their position."""
    return (
        rows[["claim_status", *FEATURES]]
        .apply(
            lambda column: column.map(ord) if column.name in LETTERS else column.astype("Float64")
        )
        .astype("float64")
    )


@pytest.fixture(scope="module")
def sixty_days() -> pd.DataFrame:
    return several(date(2026, 1, 1), 60)


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    """Every third day: a step that visits each weekday equally often."""
    return good(several(date(2026, 1, 1), 122, step=3))


# What a call returns -----------------------------------------------------------------------------


def test_same_day_is_identical_and_needs_no_day_before_it(sixty_days):
    in_sequence = sixty_days[sixty_days["day"] == DAY].drop(columns="day").reset_index(drop=True)
    pd.testing.assert_frame_equal(applications(DAY), in_sequence)
    pd.testing.assert_frame_equal(applications(DAY), applications(DAY))


def test_days_and_seeds_differ():
    base = applications(DAY)["financial_hist_1"].to_numpy()
    for other in (applications(DAY + timedelta(days=7)), applications(DAY, seed=1)):
        assert not np.isin(other["financial_hist_1"].to_numpy(), base).any()


def test_numbers_of_one_day_are_those_of_every_machine():
    rows = applications(DAY)
    assert len(rows) == 1165
    assert rows["received_at"].iloc[0] == pd.Timestamp("2026-01-05 00:01:16", tz="UTC")
    assert rows["outcome_at"].iloc[-1] == pd.Timestamp("2026-02-19 05:41:42", tz="UTC")
    assert rows["income"].sum() == 151_378_364
    assert rows["insurance_hist_1"].sum() == pytest.approx(-1427.665811, abs=1e-5)


def test_columns_and_types_follow_the_table():
    expected = {
        "INTEGER": "Int64",
        "DOUBLE PRECISION": "float64",
        "VARCHAR": "object",
        "TIMESTAMPTZ": "datetime64[us, UTC]",
    }
    for as_of in (START - timedelta(days=1), START + timedelta(hours=12), START + timedelta(90)):
        rows = rows_as_of(DAY, as_of)
        types = {name: str(kind) for name, kind in rows.dtypes.items()}
        assert types == {name: expected[kind] for name, kind in TABLE_COLUMNS.items()}
    assert TABLE_COLUMNS["n_dependents"] == TABLE_COLUMNS["credit_score_3"] == "VARCHAR"
    assert len(FEATURES) == 40


def test_a_very_small_insurer_has_days_without_rows():
    counts = [len(applications(day, daily_volume=1)) for day in days(DAY, 14)]
    assert 0 in counts
    assert max(counts) > 0


def test_volume_scales():
    assert len(applications(DAY, daily_volume=12_000)) == pytest.approx(12_000, rel=0.05)


# When applications arrive ------------------------------------------------------------------------


def test_weekends_see_less_than_half(sixty_days):
    counts = sixty_days.groupby("day").size()
    weekend = pd.to_datetime(counts.index).dayofweek >= 5
    assert counts[~weekend].mean() == pytest.approx(1200, rel=0.02)
    assert 0.4 < counts[weekend].mean() / counts[~weekend].mean() < 0.5
    # As uneven as independent arrivals are: the variance of a Poisson count is its mean.
    assert 0.4 < counts[~weekend].var() / counts[~weekend].mean() < 2.5


@pytest.mark.parametrize(
    ("day", "zone", "hours"),
    [
        (date(2026, 3, 29), "Europe/London", 23),
        (date(2026, 10, 25), "Europe/London", 25),
        (date(2026, 7, 1), "Europe/London", 24),
        (date(2026, 1, 7), "America/New_York", 24),
        (date(2026, 4, 5), "Australia/Lord_Howe", 24.5),
    ],
)
def test_arrivals_fill_the_local_day(day, zone, hours):
    received = applications(day, daily_volume=20_000, time_zone=zone)["received_at"]
    assert received.is_monotonic_increasing
    start = datetime.combine(day, time.min, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    elapsed = (received - start).dt.total_seconds() / 3600
    assert elapsed.min() >= 0
    assert hours - 0.1 < elapsed.max() < hours
    assert set(received.dt.tz_convert(zone).dt.date) == {day}


def test_hour_that_the_clocks_repeat_counts_twice_and_the_skipped_one_not():
    def in_hour_one(day: date) -> float:
        received = applications(day, daily_volume=100_000)["received_at"]
        return received.dt.tz_convert("Europe/London").dt.hour.eq(1).mean()

    usual = in_hour_one(date(2026, 10, 18))
    assert in_hour_one(date(2026, 3, 29)) == 0
    assert in_hour_one(date(2026, 10, 25)) == pytest.approx(2 * usual, rel=0.2)


def test_more_arrive_in_the_day_than_at_night(sixty_days):
    hours = sixty_days["received_at"].dt.hour
    assert hours.between(9, 17).mean() > 0.5
    assert 0 < hours.between(0, 5).mean() < 0.05


# How the table changes ---------------------------------------------------------------------------


def test_table_only_grows_and_outcomes_only_appear():
    before = rows_as_of(DAY, START - timedelta(hours=1))
    assert before.empty
    everything = applications(DAY)
    steps = [timedelta(hours=9), timedelta(1), timedelta(2), timedelta(8), timedelta(30)]
    for step in [*steps, timedelta(46)]:
        as_of = START + step
        rows = rows_as_of(DAY, as_of)
        assert len(rows) == (everything["received_at"] <= as_of).sum() >= len(before)
        assert rows["received_at"].is_monotonic_increasing
        assert (rows["updated_at"] <= as_of).all()
        assert (rows["updated_at"] >= rows["received_at"]).all()
        known = rows["claim_status"].notna()
        assert (as_of - rows.loc[known, "received_at"] >= timedelta(days=1)).all()
        assert known.tolist() == (everything["outcome_at"] <= as_of)[: len(rows)].tolist()
        earlier = before["claim_status"].dropna()
        assert rows["claim_status"].loc[earlier.index].tolist() == earlier.tolist()
        assert (rows["updated_at"].loc[before.index] >= before["updated_at"]).all()
        before = rows
    assert before["claim_status"].notna().all()
    assert before["claim_status"].isin([0, 1]).all()


@pytest.mark.parametrize("longest", [1, 5, 45])
def test_outcomes_are_known_after_one_day_to_the_longest_wait(longest):
    rows = applications(DAY, max_outcome_days=longest)
    wait = (rows["outcome_at"] - rows["received_at"]) / timedelta(days=1)
    assert wait.min() >= 1
    assert 0.9 * longest < wait.max() <= longest


def test_last_state_is_the_final_one():
    rows = applications(DAY)
    pd.testing.assert_frame_equal(
        rows_as_of(DAY, START + timedelta(days=60)), rows[list(TABLE_COLUMNS)]
    )


def test_claims_are_known_earlier_than_their_absence(sixty_days):
    wait = sixty_days["outcome_at"] - sixty_days["received_at"]
    first_week = sixty_days.loc[wait <= timedelta(days=7), "claim_status"].mean()
    last_week = sixty_days.loc[wait > timedelta(days=38), "claim_status"].mean()
    assert 0.22 < first_week < 0.32
    assert 0.08 < last_week < 0.14


def test_corrections_change_a_valid_value_to_another(sixty_days):
    corrected = sixty_days[sixty_days["corrected_at"].notna()]
    assert 0.002 < len(corrected) / len(sixty_days) < 0.004
    wait = (corrected["corrected_at"] - corrected["received_at"]) / timedelta(days=1)
    assert 1 <= wait.min() < 2
    assert 9 < wait.max() <= 10
    income = corrected["income"] != corrected["first_income"]
    occupation = corrected["occupation"] != corrected["first_occupation"]
    assert (income ^ occupation).all()
    assert income.mean() == pytest.approx(0.5, abs=0.12)
    assert corrected["first_income"].between(0, 250_000).all()
    assert corrected["first_occupation"].isin(list("ABCDEFG")).all()
    assert (corrected["first_income_level"] == corrected["first_income"] // 50_000).all()
    assert (corrected["breach"] == "").all()
    untouched = sixty_days[sixty_days["corrected_at"].isna()]
    assert untouched["income"].equals(untouched["first_income"])
    assert untouched["occupation"].equals(untouched["first_occupation"])


@pytest.mark.parametrize("column", ["income", "occupation"])
def test_old_value_shows_until_the_correction(sixty_days, column):
    seen_in = {"income": "income level", "occupation": "occupation"}[column]
    changed = sixty_days[seen_in] != sixty_days[f"first_{seen_in.replace(' ', '_')}"]
    row = sixty_days[changed].iloc[0]
    for as_of, value in (
        (row["corrected_at"] - timedelta(seconds=1), row[f"first_{column}"]),
        (row["corrected_at"], row[column]),
        (row["corrected_at"] + timedelta(days=60), row[column]),
    ):
        rows = rows_as_of(row["day"], as_of).set_index("application_id")
        shown = rows.loc[row["application_id"]]
        assert shown[column] == value
        assert shown["income level"] == shown["income"] // 50_000
    at_correction = rows_as_of(row["day"], row["corrected_at"]).set_index("application_id")
    assert at_correction.loc[row["application_id"], "updated_at"] == row["corrected_at"]


def test_changes_between_is_what_a_comparison_of_rows_says():
    volume = 6
    rows = applications(DAY, daily_volume=volume)
    events = pd.concat([rows["received_at"], rows["outcome_at"]]).sort_values()
    a_little = timedelta(microseconds=1)
    instants = [START - timedelta(days=1), START + timedelta(days=99)]
    instants += [
        event + shift for event in events[::3] for shift in (-a_little, timedelta(0), a_little)
    ]
    states = {instant: rows_as_of(DAY, instant, daily_volume=volume) for instant in instants}
    answers = set()
    for after in instants:
        for until in instants:
            expected = not states[after].equals(states[until])
            assert changes_between(DAY, after, until, daily_volume=volume) is expected
            answers.add(expected)
    assert answers == {True, False}


def test_changes_between_sees_corrections(sixty_days):
    corrected = sixty_days[sixty_days["corrected_at"].notna()]
    for _, row in corrected.iloc[:3].iterrows():
        before = row["corrected_at"] - timedelta(seconds=1)
        assert changes_between(row["day"], before, row["corrected_at"])


# What is wrong with some rows --------------------------------------------------------------------


def found_breaches(rows: pd.DataFrame) -> dict[str, pd.Series]:
    """Rows that break the contract, by kind, from the source columns alone."""
    text = rows[TEXT_NUMBERS]
    as_numbers = rows.assign(**text.apply(pd.to_numeric, errors="coerce").astype("Float64"))
    out_of_range = pd.Series(False, index=rows.index)
    for name, (low, high) in (RANGES | dict.fromkeys(FLAGS, (0, 1))).items():
        out_of_range |= (~as_numbers[name].between(low, high)).fillna(False).astype(bool)
    unknown = pd.Series(False, index=rows.index)
    for name, last in LETTERS.items():
        unknown |= rows[name].notna() & ~rows[name].between("A", last)
    content = rows.drop_duplicates(list(TABLE_COLUMNS))
    repeated = content["application_id"].duplicated(keep=False) & content["application_id"].notna()
    return {
        "missing_key": rows["application_id"].isna(),
        "out_of_range": out_of_range,
        "unknown_category": unknown,
        "wrong_type": (text.notna() & as_numbers[TEXT_NUMBERS].isna()).any(axis=1),
        "missing_required": rows[[n for n in FEATURES if n not in OPTIONAL]].isna().any(axis=1),
        "duplicate_key": repeated.reindex(rows.index, fill_value=False),
    }


def test_rows_break_the_contract_exactly_where_they_say_so(sixty_days):
    found = found_breaches(sixty_days)
    assert set(found) == set(BREACHES)
    for kind, rows in found.items():
        assert rows.tolist() == (sixty_days["breach"] == kind).tolist(), kind


@pytest.mark.parametrize("seed", [540, 1167, 2142])
def test_defects_that_meet_do_not_mix(seed):
    """Seeds at which a correction falls on a broken row, an exact duplicate on the row after a
    broken one, and an exact duplicate on the day's first row."""
    rows = applications(DAY, seed=seed)
    assert rows["received_at"].is_monotonic_increasing
    for kind, broken in found_breaches(rows).items():
        assert broken.tolist() == (rows["breach"] == kind).tolist(), kind
    assert rows.loc[rows["breach"] != "", "corrected_at"].isna().all()
    assert rows["exact_duplicate"].sum() == rows.duplicated(list(TABLE_COLUMNS)).sum()
    assert not (rows["exact_duplicate"] & rows["breach"].ne("")).any()


def test_every_kind_of_breach_occurs_about_equally_often(sixty_days):
    counts = sixty_days["breach"].value_counts().drop("")
    assert 0.0014 < counts.sum() / len(sixty_days) < 0.0026
    counts["duplicate_key"] //= 2
    assert counts.min() >= 8
    assert counts.max() <= 30
    assert len(counts) == 6


def test_every_variant_of_a_breach_occurs(sixty_days):
    for kind, variants in BREACHES.items():
        rows = sixty_days[sixty_days["breach"] == kind]
        for column, value in variants:
            assert (rows[column].isna() if value is None else rows[column] == value).any()


def test_most_days_have_one_to_four_broken_rows(sixty_days):
    per_day = sixty_days["breach"].ne("").groupby(sixty_days["day"]).sum()
    assert per_day.between(1, 4).mean() > 0.5


def test_broken_rows_are_broken_from_receipt_on(sixty_days):
    broken = sixty_days[sixty_days["breach"] != ""]
    for kind in BREACHES:
        row = broken[broken["breach"] == kind].iloc[0]
        for wait in (timedelta(0), timedelta(days=5), timedelta(days=50)):
            rows = rows_as_of(row["day"], row["received_at"] + wait)
            same = rows["financial_hist_2"] == row["financial_hist_2"]
            assert found_breaches(rows)[kind][same].tolist() == [True]


def test_exact_duplicates_stay_identical(sixty_days):
    copies = sixty_days[sixty_days["exact_duplicate"]]
    assert 4 <= len(copies) <= 24
    row = copies.iloc[0]
    for as_of in (row["received_at"], row["outcome_at"]):
        rows = rows_as_of(row["day"], as_of)
        rows = rows[rows["application_id"] == row["application_id"]]
        assert len(rows) == 2
        assert rows.duplicated().sum() == 1


def test_keys_are_unique_but_for_the_duplicates(sixty_days):
    rows = good(sixty_days)
    assert rows["application_id"].is_unique
    assert rows["application_id"].str.fullmatch(r"A-2026\d{4}-\d{6}").all()


# What the rows look like -------------------------------------------------------------------------


def test_three_pairs_of_columns_are_duplicates(sixty_days):
    rows = good(sixty_days)
    assert (rows["financial_hist_1"] == rows["insurance_hist_2"]).all()
    assert (rows["financial_hist_3"] == rows["insurance_hist_3"]).all()
    income = (125_194 + 13_364 * rows["insurance_hist_5"]).clip(0, 249_999)
    assert (income - rows["income"].astype(float)).between(-1e-6, 1).all()


def test_derived_columns_follow_from_others(sixty_days):
    rows = good(sixty_days)
    bmi = rows["weight_kg"].astype(float) / (rows["height_cm"].astype(float) / 100) ** 2
    assert (bmi - rows["bmi"].astype(float)).between(-1e-6, 1).all()
    assert (rows["income level"] == rows["income"] // 50_000).all()


def test_real_numbers_have_six_decimals(sixty_days):
    reals = sixty_days[[name for name, kind in TABLE_COLUMNS.items() if kind == "DOUBLE PRECISION"]]
    assert reals.equals(reals.round(6))


def test_missing_shares_are_those_of_the_notebook(sixty_days):
    rows = good(sixty_days)
    assert rows["family_history_3"].isna().mean() == pytest.approx(0.808, abs=0.01)
    assert rows["employment_type"].isna().mean() == pytest.approx(0.7135, abs=0.01)


def test_means_and_shares_are_those_of_the_notebook(year):
    table = numbers(year)
    means = {
        "age": (55.04, 11.40),
        "height_cm": (173.51, 9.49),
        "weight_kg": (83.36, 10.17),
        "income": (132_872, 27_549),
        "financial_hist_1": (-1.024, 1.840),
        "financial_hist_2": (-0.003, 1.003),
        "financial_hist_3": (0.026, 1.914),
        "financial_hist_4": (-0.206, 1.749),
        "credit_score_1": (509.9, 131.4),
        "credit_score_2": (321.8, 109.4),
        "credit_score_3": (367.8, 89.9),
        "insurance_hist_1": (-1.258, 2.584),
        "previous_claim_rate": (2.035, 1.138),
    }
    for name, (mean, spread) in means.items():
        assert table[name].mean() == pytest.approx(mean, abs=0.03 * spread), name
        assert table[name].std() == pytest.approx(spread, rel=0.03), name
    correlations = table.corr()
    assert correlations.loc["age", "credit_score_2"] == pytest.approx(0.74, abs=0.03)
    assert correlations.loc["credit_score_3", "insurance_hist_1"] == pytest.approx(-0.84, abs=0.03)
    assert correlations.loc["credit_score_1", "claim_status"] == pytest.approx(0.45, abs=0.04)


def test_share_of_claims_all_year(year):
    by_month = year["claim_status"].groupby(year["received_at"].dt.month).mean()
    assert 0.155 < year["claim_status"].mean() < 0.165
    assert by_month.between(0.15, 0.17).all()


def stability_index(one: pd.Series, other: pd.Series) -> float:
    limits = np.unique(one.quantile(np.linspace(0.1, 0.9, 9)))
    shares = [
        np.bincount(np.searchsorted(limits, part.dropna(), side="right"), minlength=10) + 0.5
        for part in (one, other)
    ]
    shares = [share / share.sum() for share in shares]
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def test_seasons_are_there_but_mild(year):
    months = [rows for _, rows in numbers(year).groupby(year["received_at"].dt.month)]
    drift = {
        name: max(stability_index(months[0][name], month[name]) for month in months)
        for name in FEATURES
    }
    assert max(drift.values()) < 0.05
    assert drift["income"] > 0.01


def test_a_model_finds_it_as_hard_as_the_notebook(year):
    from sklearn.metrics import log_loss, roc_auc_score
    from xgboost import XGBClassifier

    table = numbers(good(several(date(2026, 3, 2), 28)))
    train, test = table.iloc[:20_000], table.iloc[20_000:]
    model = XGBClassifier(n_estimators=120, max_depth=5, learning_rate=0.12, n_jobs=1)
    model.fit(train[FEATURES], train["claim_status"])
    probability = model.predict_proba(test[FEATURES])[:, 1]
    assert 0.945 < roc_auc_score(test["claim_status"], probability) < 0.972
    assert 0.13 < log_loss(test["claim_status"], probability) < 0.175


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "value"),
    [("daily_volume", 0), ("daily_volume", -5), ("seed", -1), ("max_outcome_days", 0)],
)
def test_numbers_below_their_range_are_refused(argument, value):
    with pytest.raises(ValueError, match=f"{argument} must be at least"):
        applications(DAY, **{argument: value})
    with pytest.raises(ValueError, match=f"{argument} must be at least"):
        changes_between(DAY, START, START + timedelta(1), **{argument: value})


def test_naive_instants_are_refused():
    naive = datetime(2026, 1, 6)
    with pytest.raises(ValueError, match="no time zone"):
        rows_as_of(DAY, naive)
    with pytest.raises(ValueError, match="no time zone"):
        changes_between(DAY, naive, START)
    with pytest.raises(ValueError, match="no time zone"):
        changes_between(DAY, START, naive)


def test_unknown_time_zone_is_refused():
    with pytest.raises(ZoneInfoNotFoundError):
        applications(DAY, time_zone="Europe/Nowhere")
