"""A deterministic imitation of the insurer's application table `claims.ds_dataset`.

Belongs here: what the table of one day holds and how it changes over time, as pure functions of
(day, seed, volume, time zone). Every day is drawn alone, from its own random streams, so any day
can be asked for without the days before it.

Does not belong here: reading or writing a database, the clock, the contract that good rows keep
(`schema.py`), or anything a model does with the rows.

The forty features follow the notebook's table, which has the structure of scikit-learn's
`make_classification`: seven informative dimensions, two clusters per class at corners of a
hypercube, four linear combinations, three repeated columns, two columns of noise, and labels that
were flipped at random. The constants below were fitted on that table; `docs/simulator.md` tells
how, and `benchmarks/simulator_fidelity.py` compares the two.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import IntEnum
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

_Ints = npt.NDArray[np.int64]
_Floats = npt.NDArray[np.float64]
_Bools = npt.NDArray[np.bool_]
_Value = str | int | None

_TEXT, _WHOLE, _REAL, _INSTANT = "VARCHAR", "INTEGER", "DOUBLE PRECISION", "TIMESTAMPTZ"

TABLE_COLUMNS: dict[str, str] = {
    "application_id": _TEXT,
    "received_at": _INSTANT,
    "updated_at": _INSTANT,
    "claim_status": _WHOLE,
    "age": _WHOLE,
    "height_cm": _WHOLE,
    "weight_kg": _WHOLE,
    "income": _WHOLE,
    "financial_hist_1": _REAL,
    "financial_hist_2": _REAL,
    "financial_hist_3": _REAL,
    "financial_hist_4": _REAL,
    "credit_score_1": _WHOLE,
    "credit_score_2": _WHOLE,
    "credit_score_3": _TEXT,
    "insurance_hist_1": _REAL,
    "insurance_hist_2": _REAL,
    "insurance_hist_3": _REAL,
    "insurance_hist_4": _REAL,
    "insurance_hist_5": _REAL,
    "bmi": _WHOLE,
    "gender": _WHOLE,
    "marital_status": _TEXT,
    "occupation": _TEXT,
    "location": _TEXT,
    "prev_claim_rejected": _WHOLE,
    "known_health_conditions": _WHOLE,
    "uk_residence": _WHOLE,
    "family_history_1": _WHOLE,
    "family_history_2": _WHOLE,
    "family_history_3": _WHOLE,
    "family_history_4": _WHOLE,
    "family_history_5": _WHOLE,
    "product_var_1": _WHOLE,
    "product_var_2": _WHOLE,
    "product_var_3": _TEXT,
    "product_var_4": _WHOLE,
    "health_status": _WHOLE,
    "driving_record": _WHOLE,
    "previous_claim_rate": _WHOLE,
    "education_level": _WHOLE,
    "income level": _WHOLE,
    "n_dependents": _TEXT,
    "employment_type": _WHOLE,
}
"""The source table's columns in order, with SQL types that DuckDB and PostgreSQL both accept.

`income level` has a space and must be quoted in SQL. `credit_score_3` and `n_dependents` are text
that normally looks like a whole number.
"""

BREACHES: dict[str, tuple[tuple[str, _Value], ...]] = {
    "missing_key": (("application_id", None),),
    "out_of_range": (("age", 150), ("income", -1), ("weight_kg", 830)),
    "unknown_category": (("marital_status", "Z"), ("product_var_3", "X"), ("occupation", "?")),
    "wrong_type": (
        ("n_dependents", "three"),
        ("n_dependents", "n/a"),
        ("credit_score_3", "n/a"),
        ("credit_score_3", "pending"),
    ),
    "missing_required": (
        ("age", None),
        ("income", None),
        ("financial_hist_1", None),
        ("marital_status", None),
        ("product_var_3", None),
        ("n_dependents", None),
    ),
    "duplicate_key": (),
}
"""The ways a row breaks the contract, each with its (column, value) variants, equally likely.

A duplicate key, the last kind, has no value to write: a row takes the key and the time of the row
before it.
"""

BROKEN_SHARE = 0.002
EXACT_DUPLICATE_SHARE = 0.0002
CORRECTED_SHARE = 0.003
WEEKEND_VOLUME = 0.45
CORRECTION_DAYS = (1, 10)

_DAY_SECONDS = 86_400
_SLOT_SECONDS = 900
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = np.iinfo(np.int64).max
# Relative arrivals by local hour: quiet nights, a late-morning peak, a smaller one after dinner.
_HOUR_PROFILE = np.array(
    [3, 2, 1, 1, 1, 2, 5, 12, 25, 38, 45, 44, 38, 36, 38, 37, 34, 30, 28, 30, 29, 22, 14, 7]
)

_CLAIM_SHARE = 0.16
_CLAIM_SHARE_SWING = 0.003
# Shares of claims drawn from a non-claim cluster and the other way round: the table's label noise.
# The table itself has about 0.080 and 0.0027; a little more keeps a month of rows, which is three
# times the table, about as hard to learn from as the table is.
_UNEXPECTED_CLAIMS = 0.1
_UNEXPECTED_NON_CLAIMS = 0.004
# The share of the outcome window that has passed when an outcome is known is u ** power for a
# uniform u: a claim is filed early, that there was none is only settled late.
_OUTCOME_POWER = {"claim": 1.5, "no_claim": 1.0}
# How far each informative dimension wanders over a year, in its own units (its spread is about 2).
_SEASONAL_SWING = 0.08

# The informative dimensions, in this order, with (centre, scale) of the column each one becomes.
_INFORMATIVE = {
    "age": (54.45, 6.171),
    "height_cm": (173.14, 4.792),
    "weight_kg": (89.08, 5.111),
    "credit_score_1": (572.6, 74.09),
    "financial_hist_1": (0.0, 1.0),
    "financial_hist_3": (0.0, 1.0),
    "financial_hist_4": (0.0, 1.0),
}
# Intercept and weights on the informative dimensions.
_COMBINED = {
    "credit_score_2": (366.7, 15.64, -8.64, 29.54, 14.15, 7.70, -8.38, -22.46),
    "credit_score_3": (340.9, -15.97, -23.45, 8.05, -17.27, -27.03, 5.93, -1.48),
    "insurance_hist_1": (0.03, -0.439, 0.211, -0.326, 0.810, 0.838, -0.317, 0.191),
    "insurance_hist_5": (0.02, 0.669, 0.047, -0.313, -0.259, -0.014, 0.662, 0.703),
}
_REPEATED = {"insurance_hist_2": "financial_hist_1", "insurance_hist_3": "financial_hist_3"}
_NOISE = ("financial_hist_2", "insurance_hist_4")
# Income is the third repeated column: insurance_hist_5 in money, as centre and scale.
_INCOME = (125_194.0, 13_364.0)
_INCOME_BAND = 50_000

# Two clusters without claims, then two with: corners of a hypercube of half-width 1.2, and the
# lower triangle that turns standard normal draws into the cluster's spread.
_HALF_WIDTH = 1.2
_CORNERS = np.array(
    [
        [1, -1, -1, -1, -1, -1, -1],
        [-1, 1, -1, -1, -1, 1, 1],
        [1, 1, -1, 1, 1, 1, -1],
        [1, 1, 1, 1, -1, -1, -1],
    ]
)
_SPREADS = np.array(
    [
        [
            [1.50, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00],
            [0.01, 1.57, 0.00, 0.00, 0.00, 0.00, 0.00],
            [1.29, 0.27, 1.71, 0.00, 0.00, 0.00, 0.00],
            [1.19, -0.06, -0.21, 0.59, 0.00, 0.00, 0.00],
            [-0.50, 0.06, -0.58, 0.42, 0.87, 0.00, 0.00],
            [-0.48, 0.80, -0.59, 0.65, 0.67, 0.15, 0.00],
            [0.06, 0.15, 0.13, -0.28, 0.41, 0.09, 0.25],
        ],
        [
            [1.45, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00],
            [-0.76, 1.38, 0.00, 0.00, 0.00, 0.00, 0.00],
            [0.62, -0.25, 1.45, 0.00, 0.00, 0.00, 0.00],
            [-0.78, 0.48, 0.72, 1.30, 0.00, 0.00, 0.00],
            [0.87, 1.74, -0.31, -0.05, 0.82, 0.00, 0.00],
            [0.62, -0.75, 0.65, -0.20, -0.67, 0.55, 0.00],
            [0.72, 0.46, -0.34, -0.19, 0.42, -1.27, 0.67],
        ],
        [
            [0.88, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00],
            [0.40, 1.67, 0.00, 0.00, 0.00, 0.00, 0.00],
            [1.13, 0.53, 1.15, 0.00, 0.00, 0.00, 0.00],
            [0.04, 1.33, 0.15, 0.44, 0.00, 0.00, 0.00],
            [-0.79, -0.23, 0.89, -0.08, 1.19, 0.00, 0.00],
            [-0.29, 0.20, 0.55, 1.22, -0.22, 0.80, 0.00],
            [-0.42, 0.55, 0.00, -0.07, -0.31, 0.91, 0.33],
        ],
        [
            [1.17, 0.00, 0.00, 0.00, 0.00, 0.00, 0.00],
            [-0.90, 1.32, 0.00, 0.00, 0.00, 0.00, 0.00],
            [-0.73, -0.02, 1.73, 0.00, 0.00, 0.00, 0.00],
            [-0.86, 0.13, 0.09, 1.38, 0.00, 0.00, 0.00],
            [0.06, 0.12, -0.35, -0.33, 1.58, 0.00, 0.00],
            [0.52, -0.78, -0.33, -1.26, 0.27, 0.42, 0.00],
            [0.09, -0.61, -1.06, -0.21, 0.51, -0.43, 0.17],
        ],
    ]
)

# Whole-number columns end at these bounds, which are the notebook's; both ends are possible.
_BOUNDS = {
    "age": (18, 95),
    "height_cm": (140, 210),
    "weight_kg": (45, 125),
    "income": (0, 249_999),
    "credit_score_1": (0, 999),
    "credit_score_2": (0, 700),
    "credit_score_3": (0, 710),
}

# First code of the column and the share of each code; these columns carry no signal.
_CODES: dict[str, tuple[int, tuple[float, ...]]] = {
    "known_health_conditions": (0, (0.941, 0.059)),
    "uk_residence": (0, (0.239, 0.761)),
    "family_history_1": (0, (0.782, 0.218)),
    "family_history_2": (0, (0.750, 0.250)),
    "family_history_3": (0, (0.370, 0.630)),
    "family_history_4": (0, (0.725, 0.275)),
    "family_history_5": (0, (0.687, 0.313)),
    "product_var_1": (0, (0.629, 0.371)),
    "product_var_2": (0, (0.456, 0.544)),
    "product_var_4": (0, (0.246, 0.754)),
    "health_status": (1, (0.25,) * 4),
    "driving_record": (1, (0.25,) * 4),
    "education_level": (0, (1 / 7,) * 7),
    "n_dependents": (1, (0.228, 0.312, 0.279, 0.107, 0.074)),
    "employment_type": (0, (0.472, 0.528)),
}
_MISSING_SHARE = {"family_history_3": 0.808, "employment_type": 0.7135}
# Shares of the letters from A on; these columns carry no signal either.
_LETTERS: dict[str, tuple[float, ...]] = {
    "marital_status": (0.206, 0.144, 0.100, 0.255, 0.150, 0.145),
    "occupation": (1 / 7,) * 7,
    "location": (1 / 26,) * 26,
    "product_var_3": (0.225, 0.283, 0.318, 0.174),
}
# First code, shares among non-claims, shares among claims: what the outcome itself shifts.
_CODES_BY_OUTCOME: dict[str, tuple[int, tuple[float, ...], tuple[float, ...]]] = {
    "gender": (0, (0.545, 0.455), (0.467, 0.533)),
    "prev_claim_rejected": (0, (0.922, 0.078), (0.839, 0.161)),
    "previous_claim_rate": (
        1,
        (0.482, 0.292, 0.114, 0.083, 0.029),
        (0.115, 0.280, 0.353, 0.180, 0.072),
    ),
}


class _Stream(IntEnum):
    """One random stream per concern, so that reading one never shifts another."""

    ARRIVALS = 0
    OUTCOMES = 1
    DEFECTS = 2
    CORRECTIONS = 3
    FEATURES = 4
    BROKEN_VALUES = 5
    FIRST_VALUES = 6


@dataclass(frozen=True)
class _Events:
    """A day's applications without their features: one entry per row in every array.

    Times are whole seconds since 1970 in UTC; `_NEVER` where nothing happens. `breach` counts the
    keys of `BREACHES` from 1, 0 is a good row. `source` is the row that each row shows: itself, or
    the row before it for an exact duplicate.
    """

    number: _Ints
    received: _Ints
    outcome: _Ints
    corrected: _Ints
    claim: _Bools
    breach: _Ints
    source: _Ints


def applications(
    day: date,
    *,
    seed: int = 0,
    daily_volume: int = 1200,
    time_zone: str = "Europe/London",
    max_outcome_days: int = 45,
) -> pd.DataFrame:
    """Everything that will ever be true of one day's applications.

    Args:
        day: the local calendar day on which the applications are received.
        seed: at least 0; another seed is another insurer.
        daily_volume: mean number of rows on a weekday, at least 1; weekends see 45 % of it.
        time_zone: IANA name of the zone whose calendar day is meant.
        max_outcome_days: at least 1; every outcome is known 1 to this many days after receipt.

    Returns:
        One row per application, ordered by `received_at`: the columns of `TABLE_COLUMNS` in their
        final state (nullable `Int64` for INTEGER, `float64`, `object` text,
        `datetime64[us, UTC]`), then `outcome_at` (when `claim_status` becomes known),
        `corrected_at` (NaT for most), `first_income`, `first_income_level` and `first_occupation`
        (what the row shows before its correction; the final values where there is none), `breach`
        (a key of `BREACHES`, empty for a good row; both rows of a duplicate key carry it) and
        `exact_duplicate` (True for the second of two identical rows, which is not a breach).

    Raises:
        ValueError: a number is below its range.
        zoneinfo.ZoneInfoNotFoundError: the time zone is unknown.
    """
    events = _events(day, seed, daily_volume, time_zone, max_outcome_days)
    known = pd.DataFrame(
        {
            "application_id": [f"A-{day:%Y%m%d}-{number:06d}" for number in events.number],
            "received_at": _instants(events.received),
            "updated_at": _instants(_newest(events)),
            "claim_status": events.claim.astype(np.int64),
            **_features(_stream(day, seed, _Stream.FEATURES), _season(day), events.claim),
        }
    )
    types = {name: "Int64" for name, kind in TABLE_COLUMNS.items() if kind == _WHOLE}
    types |= {name: "object" for name, kind in TABLE_COLUMNS.items() if kind == _TEXT}
    rows = known[list(TABLE_COLUMNS)].astype(types)
    rows = _with_broken_values(rows, _stream(day, seed, _Stream.BROKEN_VALUES), events.breach)
    rows = rows.assign(
        outcome_at=_instants(events.outcome),
        corrected_at=_instants(events.corrected),
        **_first_values(_stream(day, seed, _Stream.FIRST_VALUES), rows, events.corrected != _NEVER),
        breach=np.array(["", *BREACHES], dtype=object)[events.breach],
    )
    exact_duplicate = events.source != np.arange(len(rows))
    return rows.take(events.source).reset_index(drop=True).assign(exact_duplicate=exact_duplicate)


def rows_as_of(
    day: date,
    as_of: datetime,
    *,
    seed: int = 0,
    daily_volume: int = 1200,
    time_zone: str = "Europe/London",
    max_outcome_days: int = 45,
) -> pd.DataFrame:
    """The rows of one day as the source table holds them at one instant.

    Args:
        day: as for `applications`.
        as_of: an aware instant; whatever happens at this very instant has happened.
        seed: as for `applications`.
        daily_volume: as for `applications`.
        time_zone: as for `applications`.
        max_outcome_days: as for `applications`.

    Returns:
        The columns of `TABLE_COLUMNS`, the received rows only, ordered by `received_at`.
        `claim_status` is missing until the outcome is known, a corrected value shows from its
        correction on, and `updated_at` is the newest event so far.

    Raises:
        ValueError: `as_of` has no time zone, or a number is below its range.
        zoneinfo.ZoneInfoNotFoundError: the time zone is unknown.
    """
    _require_aware(as_of)
    rows = applications(
        day,
        seed=seed,
        daily_volume=daily_volume,
        time_zone=time_zone,
        max_outcome_days=max_outcome_days,
    )
    rows = rows.loc[rows["received_at"] <= as_of]
    known = rows["outcome_at"] <= as_of
    corrected = rows["corrected_at"] <= as_of
    updated_at = rows["received_at"].mask(known, rows["outcome_at"])
    updated_at = updated_at.mask(
        corrected & (rows["corrected_at"] > updated_at), rows["corrected_at"]
    )
    return rows[list(TABLE_COLUMNS)].assign(
        **{
            "updated_at": updated_at,
            "claim_status": rows["claim_status"].where(known),
            "income": rows["first_income"].mask(corrected, rows["income"]),
            "income level": rows["first_income_level"].mask(corrected, rows["income level"]),
            "occupation": rows["first_occupation"].mask(corrected, rows["occupation"]),
        }
    )


def changes_between(
    day: date,
    after: datetime,
    until: datetime,
    *,
    seed: int = 0,
    daily_volume: int = 1200,
    time_zone: str = "Europe/London",
    max_outcome_days: int = 45,
) -> bool:
    """Whether `rows_as_of` of the day differs between two instants, without drawing any feature.

    Args:
        day: as for `applications`.
        after: an aware instant; what happens at this very instant does not count.
        until: an aware instant; what happens at this very instant counts.
        seed: as for `applications`.
        daily_volume: as for `applications`.
        time_zone: as for `applications`.
        max_outcome_days: as for `applications`.

    Returns:
        True when a receipt, an outcome or a correction lies between the two; their order does not
        matter.

    Raises:
        ValueError: an instant has no time zone, or a number is below its range.
        zoneinfo.ZoneInfoNotFoundError: the time zone is unknown.
    """
    early, late = sorted(_second(instant) for instant in (after, until))
    events = _events(day, seed, daily_volume, time_zone, max_outcome_days)
    return any(
        bool(((times > early) & (times <= late)).any())
        for times in (events.received, events.outcome, events.corrected)
    )


def _stream(day: date, seed: int, stream: _Stream) -> np.random.Generator:
    return np.random.Generator(
        np.random.PCG64(np.random.SeedSequence([seed, day.toordinal(), stream]))
    )


def _season(day: date) -> float:
    """The day's place in the year, in radians."""
    return 2 * np.pi * day.toordinal() / 365.25


def _events(
    day: date, seed: int, daily_volume: int, time_zone: str, max_outcome_days: int
) -> _Events:
    _require_at_least("seed", seed, 0)
    _require_at_least("daily_volume", daily_volume, 1)
    _require_at_least("max_outcome_days", max_outcome_days, 1)
    received = _arrivals(_stream(day, seed, _Stream.ARRIVALS), day, daily_volume, time_zone)
    rows = np.arange(len(received))
    breach, second_of_key, source = _defects(_stream(day, seed, _Stream.DEFECTS), len(rows))
    # One submission sent twice at once: were the second row later, the first would be a good row
    # for a while, and a row is to be broken from its receipt on.
    first = rows - second_of_key
    received = received[first]
    rng = _stream(day, seed, _Stream.OUTCOMES)
    claim_share = _CLAIM_SHARE + _CLAIM_SHARE_SWING * np.sin(_season(day))
    claim = rng.random(len(rows)) < claim_share
    power = np.where(claim, _OUTCOME_POWER["claim"], _OUTCOME_POWER["no_claim"])
    outcome = received + _delay(rng.random(len(rows)) ** power, 1, max_outcome_days)
    rng = _stream(day, seed, _Stream.CORRECTIONS)
    is_corrected = (rng.random(len(rows)) < CORRECTED_SHARE) & (breach == 0)
    corrected = received + _delay(rng.random(len(rows)), *CORRECTION_DAYS)
    return _Events(
        number=(first + 1)[source],
        received=received[source],
        outcome=outcome[source],
        corrected=np.where(is_corrected, corrected, _NEVER)[source],
        claim=claim[source],
        breach=breach,
        source=source,
    )


def _arrivals(rng: np.random.Generator, day: date, daily_volume: int, time_zone: str) -> _Ints:
    """Sorted seconds since 1970 within the local day.

    Drawn in elapsed time since local midnight, so an hour that the clocks skip cannot come up and
    an hour that they repeat counts twice.
    """
    zone = ZoneInfo(time_zone)
    start, end = (
        _second(datetime.combine(midnight, time.min, tzinfo=zone))
        for midnight in (day, day + timedelta(days=1))
    )
    slots = range(start, end, _SLOT_SECONDS)
    weights = _HOUR_PROFILE[[datetime.fromtimestamp(slot, zone).hour for slot in slots]]
    volume = daily_volume * (WEEKEND_VOLUME if day.weekday() >= 5 else 1.0)
    count = rng.poisson(volume)
    slot = _draw(rng, weights / weights.sum(), count)
    return np.sort(start + slot * _SLOT_SECONDS + rng.integers(0, _SLOT_SECONDS, count))


def _defects(rng: np.random.Generator, count: int) -> tuple[_Ints, _Bools, _Ints]:
    """Breach of each row, which rows repeat the key before them, and the row each row shows."""
    # A duplicate key breaks two rows at once: one part more, so that the total is as stated.
    share = BROKEN_SHARE / (len(BREACHES) + 1)
    good = 1 - share * len(BREACHES) - EXACT_DUPLICATE_SHARE
    kinds = [good, *[share] * len(BREACHES), EXACT_DUPLICATE_SHARE]
    kind = _draw(rng, np.array(kinds), count)
    duplicate_key, exact_duplicate = len(BREACHES), len(BREACHES) + 1
    # Both kinds need a good row before them; the few that have none stay good themselves.
    alone = (kind >= duplicate_key) & (np.concatenate([[-1], kind])[:count] != 0)
    kind = np.where(alone, 0, kind)
    second_of_key = kind == duplicate_key
    breach = np.where(kind == exact_duplicate, 0, kind)
    breach[np.flatnonzero(second_of_key) - 1] = duplicate_key
    return breach, second_of_key, np.arange(count) - (kind == exact_duplicate)


def _features(
    rng: np.random.Generator, season: float, claim: _Bools
) -> dict[str, npt.NDArray[np.generic] | pd.api.extensions.ExtensionArray]:
    count = len(claim)
    reals = _reals(rng, season, claim)
    wholes = {name: _floored(reals.pop(name), *bounds) for name, bounds in _BOUNDS.items()}
    codes = {name: first + _draw(rng, shares, count) for name, (first, shares) in _CODES.items()}
    letters = {
        name: np.array([chr(ord("A") + code) for code in range(len(shares))], dtype=object)[
            _draw(rng, shares, count)
        ]
        for name, shares in _LETTERS.items()
    }
    by_outcome = {
        name: first + np.where(claim, _draw(rng, claims, count), _draw(rng, others, count))
        for name, (first, others, claims) in _CODES_BY_OUTCOME.items()
    }
    partly_missing = {
        name: pd.arrays.IntegerArray(codes.pop(name), rng.random(count) < share)
        for name, share in _MISSING_SHARE.items()
    }
    return {
        **reals,
        **wholes,
        **codes,
        **letters,
        **by_outcome,
        **partly_missing,
        "bmi": wholes["weight_kg"] * 10_000 // wholes["height_cm"] ** 2,
        "income level": wholes["income"] // _INCOME_BAND,
        "credit_score_3": wholes["credit_score_3"].astype(str),
        "n_dependents": codes["n_dependents"].astype(str),
    }


def _reals(rng: np.random.Generator, season: float, claim: _Bools) -> dict[str, _Floats]:
    """The continuous columns before any becomes a whole number, rounded to six decimals.

    The rounding makes two machines agree whose vector units differ in a sum's last bit.
    """
    count = len(claim)
    chance = np.where(claim, 1 - _UNEXPECTED_CLAIMS, _UNEXPECTED_NON_CLAIMS)
    cluster = 2 * (rng.random(count) < chance) + (rng.random(count) < 0.5)
    dimensions = len(_INFORMATIVE)
    drift = _SEASONAL_SWING * np.sin(season + 2 * np.pi * np.arange(dimensions) / dimensions)
    spread = np.einsum("nij,nj->ni", _SPREADS[cluster], rng.standard_normal((count, dimensions)))
    informative = _HALF_WIDTH * _CORNERS[cluster] + drift + spread
    reals = {
        name: centre + scale * informative[:, position]
        for position, (name, (centre, scale)) in enumerate(_INFORMATIVE.items())
    }
    reals |= {
        name: intercept + (informative * np.array(weights)).sum(axis=1)
        for name, (intercept, *weights) in _COMBINED.items()
    }
    reals |= {name: rng.standard_normal(count) for name in _NOISE}
    reals = {name: np.round(values, 6) for name, values in reals.items()}
    reals |= {name: reals[original] for name, original in _REPEATED.items()}
    return reals | {"income": _INCOME[0] + _INCOME[1] * reals["insurance_hist_5"]}


def _with_broken_values(
    rows: pd.DataFrame, rng: np.random.Generator, breach: _Ints
) -> pd.DataFrame:
    broken = rows.copy()
    choice = rng.random(len(rows))
    for kind, variants in enumerate(BREACHES.values(), start=1):
        for row in np.flatnonzero(breach == kind) if variants else ():
            column, value = variants[int(choice[row] * len(variants))]
            broken.loc[row, column] = value
    return broken


def _first_values(
    rng: np.random.Generator, rows: pd.DataFrame, corrected: _Bools
) -> dict[str, pd.Series]:
    """What the corrected columns show before the correction: always another valid value."""
    count = len(rows)
    is_income = corrected & (rng.random(count) < 0.5)
    is_occupation = corrected & ~is_income
    top = _BOUNDS["income"][1] + 1
    income = (rows["income"] + rng.integers(5_000, 50_000, count)) % top
    letters = len(_LETTERS["occupation"])
    steps = rng.integers(1, letters, count)
    # A broken row is never corrected, so every occupation looked up here is a letter.
    positions = rows.loc[is_occupation, "occupation"].map(ord) - ord("A")
    others = ((positions + steps[is_occupation]) % letters + ord("A")).map(chr)
    return {
        "first_income": rows["income"].mask(is_income, income),
        "first_income_level": rows["income level"].mask(is_income, income // _INCOME_BAND),
        "first_occupation": others.reindex(rows.index).fillna(rows["occupation"]),
    }


def _draw(rng: np.random.Generator, shares: npt.ArrayLike, count: int) -> _Ints:
    """Positions 0, 1, ... drawn with these shares (the last takes what is left of 1)."""
    limits = np.cumsum(np.asarray(shares, dtype=float))[:-1]
    return np.searchsorted(limits, rng.random(count), side="right").astype(np.int64)


def _floored(values: _Floats, low: int, high: int) -> _Ints:
    return np.clip(np.floor(values), low, high).astype(np.int64)


def _delay(elapsed: _Floats, first_day: int, last_day: int) -> _Ints:
    """Seconds from the first day to the last for shares 0 to 1 of the time between them."""
    seconds = (first_day + elapsed * (last_day - first_day)) * _DAY_SECONDS
    return seconds.astype(np.int64)


def _newest(events: _Events) -> _Ints:
    corrected = np.where(events.corrected == _NEVER, events.received, events.corrected)
    return np.maximum(events.outcome, corrected)


def _instants(seconds: _Ints) -> pd.DatetimeIndex:
    times = np.where(seconds == _NEVER, np.datetime64("NaT", "s"), seconds.astype("datetime64[s]"))
    return pd.DatetimeIndex(times.astype("datetime64[us]")).tz_localize("UTC")


def _second(instant: datetime) -> int:
    """The last whole second since 1970 that has begun at this instant."""
    _require_aware(instant)
    return (instant - _EPOCH) // timedelta(seconds=1)


def _require_aware(instant: datetime) -> None:
    if instant.utcoffset() is None:
        raise ValueError(f"{instant.isoformat()} has no time zone; an aware instant is needed")


def _require_at_least(name: str, value: int, low: int) -> None:
    if value < low:
        raise ValueError(f"{name} must be at least {low}, got {value}")
