"""When a day's rows call for a person: alarms from the measures of the last days, in words.

Belongs here: limits, and decisions from measures and counts. Does not belong here: how far rows
have moved (`ml_assets.core.drift`), how well a model did (`ml_assets.core.performance`), tables,
checks and pages.

An alarm needs all of: enough rows; an effect that matters, after what chance alone adds; a test
that holds among all the tests of the day; and that on several of the last days, unless the effect
is gross. `docs/monitoring-methods.md` tells how often that cries wolf, and how late it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, get_args

import numpy as np
import pandas as pd

from ml_assets.core.drift import percent

State = Literal["ok", "watch", "drift", "too few rows"]
STATES: tuple[str, ...] = get_args(State)

VolumeState = Literal["ok", "too few", "too many", "too little history"]

_DECISIONS = {
    "feature": object,
    "state": object,
    "since": object,
    "psi": np.float64,
    "q_value": np.float64,
    "days_over": np.int64,
    "sentence": object,
}


@dataclass(frozen=True)
class Limits:
    """What counts as trouble.

    Attributes:
        min_rows: Fewest rows of a day that are judged, at least 1.
        psi: PSI, beyond what chance adds, above which a feature has moved.
        missing_increase: Share of rows, 0 to 1, by which missing values may increase.
        unseen_share: Share of rows, 0 to 1, that may have a category unseen when trained, or a
            number beyond those seen.
        psi_at_once: PSI, beyond what chance adds, that raises an alarm on its first day.
        false_discovery_rate: Greatest expected share of false ones among the features that a day's
            tests find, 0 to 1.
        days_over: How many of the last `days` days must be over a limit for an alarm.
        days: The last days with enough rows that are looked at; at least `days_over`.
        volume_change: Share of the expected rows, 0 to 1, by which a day may be off.
        volume_confidence: Of the interval that a day's rows must also be outside of, 0 to 1.
        volume_weeks: Earlier same weekdays to learn the expected rows from, at most.
        volume_min_weeks: Fewest of them to judge a day by, at least 1.
    """

    min_rows: int
    psi: float
    missing_increase: float
    unseen_share: float
    psi_at_once: float
    false_discovery_rate: float
    days_over: int
    days: int
    volume_change: float
    volume_confidence: float
    volume_weeks: int
    volume_min_weeks: int

    def __post_init__(self) -> None:
        """Refuse limits that contradict each other."""
        if not 1 <= self.days_over <= self.days:
            raise ValueError(
                f"days_over must be from 1 to days ({self.days}), got {self.days_over}"
            )
        if not 1 <= self.volume_min_weeks <= self.volume_weeks:
            raise ValueError(
                f"volume_min_weeks must be from 1 to volume_weeks ({self.volume_weeks}), "
                f"got {self.volume_min_weeks}"
            )
        if self.psi_at_once < self.psi:
            raise ValueError(f"psi_at_once ({self.psi_at_once}) must not be below psi ({self.psi})")


def decide(measures: pd.DataFrame, limits: Limits, day: str) -> pd.DataFrame:
    """The state of each feature on a day.

    On one day a feature is over a limit if its PSI (less what chance adds), its increase of missing
    values or its share of unseen values is above the limit, and the test that belongs to it
    holds at `false_discovery_rate` among all tests of that day by Benjamini & Hochberg
    (Controlling the false discovery rate, Journal of the Royal Statistical Society B, 1995). The
    tests of one day depend on each other positively, under which the procedure still holds
    (Benjamini & Yekutieli, Annals of Statistics, 2001). Shares of missing and unseen values are
    tested by Fisher's exact test, one-sided.

    Args:
        measures: `drift.measure` of the last days, with a column `day` (YYYY-MM-DD), all against
            the same earlier rows. Days after `day` do not count. `since` reaches back no further
            than these days.
        limits: What counts as trouble.
        day: The day to judge.

    Returns:
        One row per feature, in the order of their first appearance:

        - `feature`
        - `state`: "drift", an alarm: over a limit on `limits.days_over` of the last `limits.days`
          days that had enough rows, or grossly over on this one; "watch": over on this day, on too
          few days so far; "ok"; or "too few rows" to judge this day
        - `since`: first day that was over in the present run of trouble, or None
        - `psi`, `q_value` of the day: the smallest adjusted p-value among the feature's tests
        - `days_over`: how many of the last `limits.days` days with enough rows were over
        - `sentence`: what is seen, for a person
    """
    past = measures[measures["day"] <= day].sort_values("day", kind="stable")
    judged = _over(past[past["rows"] >= limits.min_rows], limits)
    by_feature = dict(list(judged.groupby("feature", sort=False)))
    found = []
    for feature in pd.unique(measures["feature"]):
        line = {"feature": feature, "state": "too few rows", "since": None, "psi": np.nan}
        line |= {"q_value": np.nan, "days_over": 0}
        lines = by_feature.get(feature, judged.head(0))
        if len(lines) == 0 or lines["day"].iloc[-1] != day:
            here = past.loc[(past["feature"] == feature) & (past["day"] == day), "rows"]
            rows = int(here.sum())
            line["days_over"] = int(lines["over"].tail(limits.days).sum())
            line["sentence"] = (
                f"{feature}: {rows:,} {'row' if rows == 1 else 'rows'}, too few to judge; "
                f"{limits.min_rows:,} are needed"
            )
        else:
            today = lines.iloc[-1]
            state, since, days_over = _run(lines, limits)
            line |= {"state": state, "since": since, "days_over": days_over}
            line |= {"psi": today["psi"], "q_value": today["q_value"]}
            line["sentence"] = _sentence(today, limits, state, since, days_over, len(lines))
        found.append(line)
    return pd.DataFrame(found, columns=list(_DECISIONS)).astype(_DECISIONS)


def _over(measures: pd.DataFrame, limits: Limits) -> pd.DataFrame:
    """The measures with what each day's effects and tests say of each feature."""
    from scipy.stats import false_discovery_control, hypergeom

    found = measures.assign(
        excess=measures["psi"] - measures["psi_by_chance"],
        increase=measures["missing_share"] - measures["missing_share_trained"],
    )
    rows, trained_rows = found["rows"].to_numpy(), found["trained_rows"].to_numpy()

    def fisher(share: pd.Series, trained: pd.Series | float) -> np.ndarray:
        now, before = np.rint(share * rows).to_numpy(), np.rint(trained * trained_rows)
        tail = np.ones(len(rows))
        # Summed one by one, so only where there is an increase to explain.
        more = (share > trained).to_numpy()
        before = np.broadcast_to(before, tail.shape)[more]
        tail[more] = hypergeom.sf(
            now[more] - 1, (rows + trained_rows)[more], now[more] + before, rows[more]
        )
        return tail

    tests = np.column_stack(
        [
            found["p_value"],
            fisher(found["missing_share"], found["missing_share_trained"]),
            fisher(found["unseen_share"], 0.0),
        ]
    ).clip(0.0, 1.0)
    adjusted = np.ones_like(tests)
    for places in found.groupby("day").indices.values():
        adjusted[places] = false_discovery_control(tests[places], axis=None).reshape(-1, 3)
    holds = adjusted <= limits.false_discovery_rate
    moved = holds[:, 0] & (found["excess"] > limits.psi).to_numpy()
    missing = holds[:, 1] & (found["increase"] > limits.missing_increase).to_numpy()
    unseen = holds[:, 2] & (found["unseen_share"] > limits.unseen_share).to_numpy()
    return found.assign(
        q_value=adjusted.min(axis=1),
        over_moved=moved,
        over_missing=missing,
        over_unseen=unseen,
        over=moved | missing | unseen,
        gross=moved & (found["excess"] > limits.psi_at_once).to_numpy(),
    )


def _run(lines: pd.DataFrame, limits: Limits) -> tuple[State, str | None, int]:
    """State on the last of a feature's judged days, since when it is in trouble, and days over."""
    over, gross = lines["over"].to_numpy(), lines["gross"].to_numpy()
    so_far = np.concatenate([[0], np.cumsum(over)])
    ends = np.arange(1, len(over) + 1)
    starts = np.maximum(ends - limits.days, 0)
    counts = so_far[ends] - so_far[starts]
    drift = gross | (counts >= limits.days_over)
    trouble = drift | over
    days_over = int(counts[-1])
    if not trouble[-1]:
        return "ok", None, days_over
    calm = np.flatnonzero(~trouble)
    first = int(calm[-1]) + 1 if len(calm) else 0
    # What is an alarm only by an earlier day's doing began on that day.
    run = starts[first] + int(over[starts[first] :].argmax()) if drift[-1] else first
    since = str(lines["day"].iloc[run])
    return ("drift" if drift[-1] else "watch"), since, days_over


def _sentence(
    today: pd.Series, limits: Limits, state: State, since: str | None, days_over: int, days: int
) -> str:
    feature, psi = today["feature"], f"PSI {today['psi']:.2f}"
    seen = []
    if today["over_missing"]:
        seen.append(
            f"{percent(today['missing_share'])} missing, "
            f"{percent(today['missing_share_trained'])} when trained"
        )
    if today["over_unseen"]:
        seen.append(f"{percent(today['unseen_share'])} of rows have values unseen when trained")
    if today["over_moved"]:
        # That the missing or unseen values moved it most has been told.
        told = seen and re.search(" missing, |^unseen when trained", today["moved"])
        seen.append(psi if told else f"moved, {psi}; {today['moved']}")
    last = f"of the last {min(days, limits.days)} days"
    if state == "ok":
        return f"{feature}: as when trained, {psi}"
    if state == "watch":
        return (
            f"{feature}: {'; '.join(seen)}; on {days_over} {last}, "
            f"{limits.days_over} of {limits.days} raise an alarm"
        )
    if not seen:
        return f"{feature}: not today, {psi}, but on {days_over} {last}; since {since}"
    return f"{feature}: {'; '.join(seen)}; on {days_over} {last}; since {since}"


@dataclass(frozen=True)
class Volume:
    """A day's number of rows against what its weekday leads to expect.

    Attributes:
        rows: Rows of the day.
        expected: Median of the earlier same weekdays; None if they are too few.
        low: Fewest rows that raise no alarm; None likewise.
        high: Most rows that raise no alarm; None likewise.
        state: "ok", "too few" or "too many" rows, or "too little history" to tell.
        sentence: What is seen, for a person.
    """

    rows: int
    expected: float | None
    low: float | None
    high: float | None
    state: VolumeState
    sentence: str


def volume(rows_per_day: Mapping[str, int], limits: Limits, day: str) -> Volume:
    """Judge a day's number of rows by the same weekday of the weeks before.

    The expected number is their median, and the interval that of a negative binomial distribution
    around it. Its variance is that of the median absolute deviation (times 1.4826, as for a normal
    distribution: Rousseeuw & Croux, Alternatives to the median absolute deviation, Journal of the
    American Statistical Association, 1993), but at least Poisson's, and larger by pi / 2 of the
    number of weeks, which is what a median of so few is uncertain by. One odd week, such as a
    holiday, so moves neither much. A day within `volume_change` of the median is never off.

    Args:
        rows_per_day: Rows of each day (YYYY-MM-DD), the judged one among them. A day that is not
            there was not measured and does not count; a day without rows counts as 0.
        limits: What counts as trouble.
        day: The day to judge.

    Raises:
        KeyError: `day` is not in `rows_per_day`.
    """
    rows = rows_per_day[day]
    then = date.fromisoformat(day)
    same = [(then - timedelta(weeks=week)).isoformat() for week in _weeks(limits)]
    known = np.array([rows_per_day[one] for one in same if one in rows_per_day], dtype=float)
    told = f"{rows:,} {'row' if rows == 1 else 'rows'}"
    if len(known) < limits.volume_min_weeks:
        sentence = (
            f"{told}; {len(known)} earlier {then:%A}s are known, "
            f"{limits.volume_min_weeks} are needed to say what is usual"
        )
        return Volume(rows, None, None, None, "too little history", sentence)
    expected = float(np.median(known))
    deviation = 1.4826 * float(np.median(np.abs(known - expected)))
    # A weekday that never had a row is not certain to have none: as if it had half a one.
    mean = max(expected, 0.5)
    variance = max(deviation**2, mean) * (1 + np.pi / 2 / len(known))
    spread = mean**2 / (variance - mean), mean / variance
    tail = (1 - limits.volume_confidence) / 2
    low = min(_quantile(tail, *spread), np.ceil(expected * (1 - limits.volume_change)))
    high = max(_quantile(1 - tail, *spread), np.floor(expected * (1 + limits.volume_change)))
    state: VolumeState = "too few" if rows < low else "too many" if rows > high else "ok"
    sentence = f"{told} on a {then:%A}; {expected:,.0f} are usual, {low:,.0f} to {high:,.0f} normal"
    return Volume(rows, expected, float(low), float(high), state, sentence)


def _quantile(share: float, size: float, success: float) -> float:
    """A quantile of the negative binomial distribution, as `scipy.stats.nbinom.ppf` has it.

    Every daily job asks, and importing `scipy.stats` would take longer than judging its rows.
    """
    from scipy.special import betainc, nbdtrik

    count = float(np.ceil(nbdtrik(share, size, success)))
    before = max(count - 1.0, 0.0)
    return before if betainc(size, before + 1.0, success) >= share else count


def _weeks(limits: Limits) -> range:
    return range(1, limits.volume_weeks + 1)
