"""Alarms: none where nothing moved, each limit by hand, and what a person is told."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.drift import measure, reference
from ml_assets.core.monitoring import STATES, Limits, decide, volume
from ml_assets.environment import load_environment

LIMITS = Limits(
    min_rows=200,
    psi=0.05,
    missing_increase=0.01,
    unseen_share=0.005,
    psi_at_once=0.5,
    false_discovery_rate=0.01,
    days_over=2,
    days=3,
    volume_change=0.25,
    volume_confidence=0.999,
    volume_weeks=8,
    volume_min_weeks=4,
)
DAYS = [f"2026-03-{number:02d}" for number in range(1, 32)]
MOVED = {"psi": 0.2, "p_value": 1e-9, "moved": "above 61: 30 % of rows, 10 % when trained"}
GROSS = {**MOVED, "psi": 2.0}


def line(day: str, feature: str = "age", **changed: Any) -> dict[str, Any]:
    """What `measure` says of an ordinary feature, but for what is changed."""
    return {
        "day": day,
        "feature": feature,
        "rows": 1_200,
        "trained_rows": 100_000,
        "psi": 0.01,
        "psi_by_chance": 0.0076,
        "statistic": 9.0,
        "p_value": 0.4,
        "missing_share": 0.02,
        "missing_share_trained": 0.02,
        "unseen_share": 0.0,
        "moved": "above 61: 11 % of rows, 10 % when trained",
    } | changed


def history(*days: dict[str, Any], feature: str = "age") -> pd.DataFrame:
    return pd.DataFrame(
        [line(day, feature, **changed) for day, changed in zip(DAYS, days, strict=False)]
    )


def judged(*days: dict[str, Any], limits: Limits = LIMITS) -> pd.Series:
    """The state of one feature on the last of these days."""
    return decide(history(*days), limits, DAYS[len(days) - 1]).iloc[0]


@pytest.mark.parametrize(
    ("days", "state", "since", "days_over"),
    [
        ([{}], "ok", None, 0),
        ([{}, MOVED], "watch", 2, 1),
        ([{}, MOVED, {}], "ok", None, 1),
        ([{}, MOVED, MOVED], "drift", 2, 2),
        ([{}, MOVED, {}, MOVED], "drift", 2, 2),
        ([{}, MOVED, {}, {}, MOVED], "watch", 5, 1),
        ([{}, MOVED, MOVED, {}], "drift", 2, 2),
        ([{}, MOVED, MOVED, {}, {}], "ok", None, 1),
        ([MOVED] * 6, "drift", 1, 3),
        ([{}, GROSS], "drift", 2, 1),
        ([{}, GROSS, {}], "ok", None, 1),
        ([MOVED, {}, {}, {}, MOVED, MOVED], "drift", 5, 2),
        ([MOVED, {"rows": 40}, {"rows": 10}, MOVED], "drift", 1, 2),
        ([MOVED, MOVED, {"rows": 40}], "too few rows", None, 2),
    ],
)
def test_an_alarm_needs_several_of_the_last_days_or_a_gross_one(
    days: Sequence[dict[str, Any]], state: str, since: int | None, days_over: int
) -> None:
    found = judged(*days)

    assert found["state"] == state
    assert found["since"] == (None if since is None else DAYS[since - 1])
    assert found["days_over"] == days_over


@pytest.mark.parametrize(
    "harmless",
    [
        pytest.param({"psi": 0.055, "p_value": 1e-9}, id="PSI within what chance adds"),
        pytest.param({"psi": 0.3, "p_value": 0.02}, id="large but by chance"),
        pytest.param({"psi": 0.02, "p_value": 1e-12}, id="sure but small"),
        pytest.param({"missing_share": 0.028}, id="few more missing"),
        pytest.param({"missing_share": 0.0}, id="fewer missing"),
        pytest.param({"missing_share": 0.733, "missing_share_trained": 0.72}, id="by chance"),
        pytest.param({"unseen_share": 0.004}, id="few unseen"),
        pytest.param({**GROSS, "rows": 199}, id="too few rows"),
    ],
)
def test_no_alarm_without_an_effect_that_matters_and_a_test_that_holds(
    harmless: dict[str, Any],
) -> None:
    assert judged(*[harmless] * 5)["state"] in {"ok", "too few rows"}


@pytest.mark.parametrize(
    ("trouble", "told"),
    [
        (MOVED, "age: moved, PSI 0.20; above 61: 30 % of rows, 10 % when trained; on 2 "),
        ({"missing_share": 0.23}, "age: 23 % missing, 2 % when trained; on 2 of the last 2 days"),
        (
            {"missing_share": 0.23, **MOVED, "moved": "23 % missing, 2 % when trained"},
            "age: 23 % missing, 2 % when trained; PSI 0.20; on 2 ",
        ),
        (
            {"unseen_share": 0.04, **MOVED},
            "age: 4 % of rows have values unseen when trained; moved, PSI 0.20; above 61: 30 % ",
        ),
        ({"unseen_share": 0.04}, "age: 4 % of rows have values unseen when trained; on 2 "),
    ],
)
def test_a_person_is_told_what_is_seen_and_since_when(trouble: dict[str, Any], told: str) -> None:
    found = judged(trouble, trouble)

    assert found["state"] == "drift"
    assert told in found["sentence"]
    assert found["sentence"].endswith("since 2026-03-01")


def test_a_person_is_told_what_is_watched_what_is_over_and_what_cannot_be_judged() -> None:
    assert judged({}, MOVED)["sentence"].endswith("on 1 of the last 2 days, 2 of 3 raise an alarm")
    assert judged(MOVED, MOVED, {})["sentence"] == (
        "age: not today, PSI 0.01, but on 2 of the last 3 days; since 2026-03-01"
    )
    assert judged({})["sentence"] == "age: as when trained, PSI 0.01"
    assert judged({"rows": 1})["sentence"] == "age: 1 row, too few to judge; 200 are needed"


def test_q_values_are_those_of_scipy_over_all_tests_of_the_day() -> None:
    from scipy.stats import false_discovery_control

    p_values = np.array([1e-6, 0.001, 0.004, 0.03, 0.2, 0.9])
    day = pd.DataFrame([line(DAYS[0], f"f{n}", p_value=p) for n, p in enumerate(p_values)])

    found = decide(day, LIMITS, DAYS[0])

    # Nothing is missing or unseen beyond training: those tests of each feature find nothing.
    expected = false_discovery_control([*p_values, *[1.0] * 12])[:6]
    assert found["q_value"].to_numpy() == pytest.approx(expected)
    assert (found["q_value"] >= p_values).all()


@pytest.mark.parametrize("seed", range(5))
def test_control_of_false_discoveries_never_finds_more_than_each_test_alone(seed: int) -> None:
    generator = np.random.Generator(np.random.PCG64(seed))
    day = pd.DataFrame(
        [
            line(DAYS[0], f"f{n}", psi=0.2, p_value=generator.choice([1.0, 0.05]) * p)
            for n, p in enumerate(generator.random(60))
        ]
    )

    found = decide(day, LIMITS, DAYS[0]).set_index("feature")["state"] != "ok"

    alone = day.set_index("feature")["p_value"] <= LIMITS.false_discovery_rate
    assert not (found & ~alone).any()
    assert found.sum() < alone.sum()


def test_features_and_days_in_any_order_are_judged_the_same() -> None:
    both = pd.concat([history(MOVED, {}, MOVED), history({}, {}, {}, feature="income")])
    mixed = both.sample(frac=1, random_state=1)

    first = decide(both, LIMITS, DAYS[2]).set_index("feature")
    second = decide(mixed, LIMITS, DAYS[2]).set_index("feature")

    pd.testing.assert_frame_equal(first, second.loc[first.index])
    assert first["state"].to_dict() == {"age": "drift", "income": "ok"}


def test_later_days_do_not_count() -> None:
    days = history({}, MOVED, MOVED, GROSS)

    assert decide(days, LIMITS, DAYS[1])["state"].tolist() == ["watch"]
    assert decide(days, LIMITS, DAYS[0])["state"].tolist() == ["ok"]


def test_a_day_without_measures_and_no_measures_at_all_are_told() -> None:
    gone = decide(history(MOVED, MOVED), LIMITS, DAYS[4])

    assert gone["state"].tolist() == ["too few rows"]
    assert gone["sentence"].tolist() == ["age: 0 rows, too few to judge; 200 are needed"]
    assert decide(history({}).head(0), LIMITS, DAYS[0]).empty
    assert set(gone["state"]) <= set(STATES)


def _applications(generator: np.random.Generator, rows: int) -> pd.DataFrame:
    frame = pd.DataFrame(
        {f"amount_{n}": generator.lognormal(sigma=0.5, size=rows) for n in range(8)}
        | {f"kind_{n}": generator.choice(list("abcdef"), rows) for n in range(8)}
    )
    frame.loc[generator.random(rows) < 0.3, "amount_0"] = np.nan
    return frame


KINDS = [f"kind_{n}" for n in range(8)]


@pytest.fixture(scope="module")
def sixty_days() -> tuple[dict[str, Any], pd.DataFrame]:
    """What was kept of training, and the measures of sixty days in which nothing happens."""
    generator = np.random.Generator(np.random.PCG64(4))
    trained = _applications(generator, 30_000)
    known = reference(trained, list(trained.columns), KINDS)
    days = [
        measure(known, _applications(generator, rows), trained_rows=30_000).assign(
            day=(date(2026, 1, 1) + timedelta(days=number)).isoformat()
        )
        for number, rows in enumerate(generator.choice([540, 1_200], 60))
    ]
    return known, pd.concat(days, ignore_index=True)


def test_sixty_quiet_days_raise_no_alarm(
    sixty_days: tuple[dict[str, Any], pd.DataFrame],
) -> None:
    _, measures = sixty_days
    limits = Limits(**load_environment("dev", environ={}).monitoring.limits.model_dump())

    for day in sorted(measures["day"].unique())[9::10]:
        found = decide(measures, limits, day)
        assert set(found["state"]) <= {"ok", "watch"}
        assert (found["days_over"] <= 1).all()


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("amount_1", lambda rows: rows.assign(amount_1=rows["amount_1"] * 1.5)),
        ("amount_2", lambda rows: rows.assign(amount_2=rows["amount_2"] * 100)),
        ("amount_3", lambda rows: rows.assign(amount_3=rows["amount_3"].where(rows.index % 5 > 0))),
        ("amount_4", lambda rows: rows.assign(amount_4=np.nan)),
        ("kind_1", lambda rows: rows.assign(kind_1=rows["kind_1"].replace("f", "a"))),
        ("kind_2", lambda rows: rows.assign(kind_2=rows["kind_2"].mask(rows.index < 60, "new"))),
    ],
)
def test_drifts_raise_an_alarm_of_their_feature_alone(
    sixty_days: tuple[dict[str, Any], pd.DataFrame], feature: str, change: Any
) -> None:
    known, quiet = sixty_days
    limits = Limits(**load_environment("dev", environ={}).monitoring.limits.model_dump())
    generator = np.random.Generator(np.random.PCG64(9))
    drifted = pd.concat(
        measure(known, change(_applications(generator, 1_200)), trained_rows=30_000).assign(
            day=DAYS[number]
        )
        for number in range(limits.days_over)
    )

    found = decide(pd.concat([quiet, drifted]), limits, DAYS[limits.days_over - 1])

    alarmed = found[found["state"] == "drift"]
    assert alarmed["feature"].tolist() == [feature]
    assert alarmed["since"].tolist() == [DAYS[0]]


def rows_of(*fridays: int) -> dict[str, int]:
    """Rows of so many Fridays in a row, and of the days between."""
    last = date(2026, 5, 1)
    found = {}
    for back, rows in enumerate(reversed(fridays)):
        friday = last - timedelta(weeks=back)
        found |= {(friday + timedelta(days=day)).isoformat(): 7 for day in range(1, 7)}
        found[friday.isoformat()] = rows
    return found


USUAL = (1_180, 1_235, 1_204, 1_166, 1_210, 1_222, 1_191, 1_201)


@pytest.mark.parametrize(
    ("today", "state"),
    [(0, "too few"), (800, "too few"), (950, "ok"), (1_400, "ok"), (1_600, "too many")],
)
def test_rows_are_judged_by_the_same_weekday_of_the_weeks_before(today: int, state: str) -> None:
    found = volume(rows_of(*USUAL, today), LIMITS, "2026-05-01")

    assert found.state == state
    assert found.expected == 1_202.5
    assert f"{today:,} rows on a Friday; 1,202 are usual, " in found.sentence


def test_one_holiday_moves_what_is_usual_by_little() -> None:
    with_holiday = volume(rows_of(*USUAL[:-1], 0, 1_200), LIMITS, "2026-05-01")

    assert with_holiday.state == "ok"
    assert with_holiday.expected == pytest.approx(1_197, abs=10)


def test_a_day_that_varies_much_by_itself_is_given_more_room() -> None:
    restless = volume(
        rows_of(400, 1_900, 900, 1_500, 700, 1_300, 1_100, 500, 1_700), LIMITS, "2026-05-01"
    )

    assert restless.state == "ok"
    assert restless.high is not None
    assert restless.high > 2_000


@pytest.mark.parametrize("fridays", [(0,) * 8, (1,) * 8, (3, 2, 4, 3), USUAL, (40_000, 52_000) * 4])
@pytest.mark.parametrize("confidence", [0.9, 0.999])
def test_the_normal_range_is_that_of_a_negative_binomial_distribution(
    fridays: tuple[int, ...], confidence: float
) -> None:
    from scipy.stats import nbinom

    limits = replace(LIMITS, volume_confidence=confidence, volume_change=0.0)

    found = volume(rows_of(*fridays, 10), limits, "2026-05-01")

    median = float(np.median(fridays))
    spread = 1.4826 * float(np.median(np.abs(np.array(fridays) - median)))
    mean = max(median, 0.5)
    variance = max(spread**2, mean) * (1 + np.pi / 2 / len(fridays))
    expected = nbinom(mean**2 / (variance - mean), mean / variance)
    tail = (1 - confidence) / 2
    assert found.low == min(expected.ppf(tail), np.ceil(median))
    assert found.high == max(expected.isf(tail), np.floor(median))


@pytest.mark.parametrize(
    ("fridays", "state"),
    [
        ((1_200, 1_200, 1_200, 0), "too little history"),
        ((0,), "too little history"),
        ((0, 0, 0, 0, 0), "ok"),
        ((0, 0, 0, 0, 300), "too many"),
        ((3, 2, 4, 3, 0), "ok"),
    ],
)
def test_few_weeks_and_few_rows(fridays: tuple[int, ...], state: str) -> None:
    assert volume(rows_of(*fridays), LIMITS, "2026-05-01").state == state


def test_a_day_that_nobody_measured_is_no_day_without_rows() -> None:
    known = rows_of(*USUAL, 1_200)
    del known["2026-04-24"], known["2026-04-17"]

    found = volume(known, LIMITS, "2026-05-01")

    assert found.state == "ok"
    assert found.expected == pytest.approx(1_207)
    with pytest.raises(KeyError):
        volume(known, LIMITS, "2026-04-24")


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"days_over must be from 1 to days \(3\), got 4"):
        replace(LIMITS, days_over=4)
    with pytest.raises(ValueError, match=r"volume_min_weeks must be from 1 to volume_weeks \(8\)"):
        replace(LIMITS, volume_min_weeks=9)
    with pytest.raises(ValueError, match=r"psi_at_once \(0.01\) must not be below psi \(0.05\)"):
        replace(LIMITS, psi_at_once=0.01)
