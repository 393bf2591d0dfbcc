"""How often monitoring cries wolf, and how late it is, on simulated days.

Run from the repository root: `OPENBLAS_NUM_THREADS=1 python benchmarks/monitoring.py`, or with the
name of one table. A champion learns from 180 days of an insurer and then stays for a year, with
1,200 applications on a weekday and 540 on a day of the weekend; the contract's broken rows are left
out, as they are in the platform. Watched are the inputs of the claims use case and the two raw
columns that are mostly missing: forty in all.

- `alarms`: alarms in a year in which nothing happens but the simulator's mild season, by insurer
  (seed); beside ours, what rules of thumb would say on the same days.
- `delays`: drifts of stated sizes are put in from a day on, twelve times, on the first of each
  month: how many days until the alarm.
- `volume`: the same for the number of rows.

Tables are Markdown; `docs/monitoring-methods.md` quotes them. All three take three to four
minutes of CPU.
"""

import argparse
import time
from collections.abc import Callable
from datetime import date, timedelta
from functools import cache

import numpy as np
import pandas as pd

from ml_assets.core.drift import measure, reference
from ml_assets.core.monitoring import Limits, decide, volume
from ml_assets.environment import load_environment
from ml_assets.use_cases.claims.simulator import applications
from ml_assets.use_cases.claims.use_case import CLAIMS

SEEDS = (0, 1, 2, 3)
TRAINED_FROM, TRAINING_DAYS, MATURITY = date(2025, 1, 1), 180, 45
FIRST = TRAINED_FROM + timedelta(days=TRAINING_DAYS + MATURITY)
YEAR = [FIRST + timedelta(days=number) for number in range(365)]
STARTS = [number for number, day in enumerate(YEAR) if day.day == 1]
PATIENCE = 14  # days to wait for an alarm
MONTHS = 12
FEATURES = (*CLAIMS.inputs, *CLAIMS.dropped)
CATEGORICAL = (*CLAIMS.categorical, *CLAIMS.dropped)
LIMITS = Limits(**load_environment("dev", environ={}).monitoring.limits.model_dump())

Change = Callable[[pd.Series, np.random.Generator], pd.Series]


def main() -> None:
    """Print one table, or all."""
    tables = {"alarms": alarms, "delays": delays, "volume": volumes}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", nargs="?", choices=[*tables, "all"], default="all")
    name = parser.parse_args().table
    started = time.process_time()
    for table in tables if name == "all" else [name]:
        tables[table]()
        print(flush=True)
    print(f"{time.process_time() - started:.0f} s of CPU")


def alarms() -> None:
    """Alarms of a year without drift, by seed and rule."""
    print("| seed | alarms in the year | a month | days with a feature on watch | largest PSI |")
    print("| --- | --- | --- | --- | --- |")
    others: dict[str, list[int]] = {}
    for seed in SEEDS:
        measures = undrifted(seed)
        states = _states(measures)
        begun = (states == "drift") & (states.shift() != "drift")
        watched = int((states == "watch").any(axis=1).sum())
        found = int(begun.to_numpy().sum())
        print(f"| {seed} | {found} | {found / MONTHS:.2f} | {watched} | {measures.psi.max():.3f} |")
        for rule, over in _rules_of_thumb(measures).items():
            per_day = over.groupby(measures["day"]).sum()
            others.setdefault(rule, []).extend([int(per_day.sum()), int((per_day > 0).sum())])
    print("\n| rule of thumb, each day and feature for itself | alarms a month | days with one |")
    print("| --- | --- | --- |")
    for rule, counts in others.items():
        alarmed, days = np.array(counts).reshape(-1, 2).mean(axis=0)
        print(f"| {rule} | {alarmed / MONTHS:.1f} | {days / len(YEAR):.0%} |")


def delays() -> None:
    """Days from the first drifted day to the alarm, the first day counting as 1."""
    known, rows = trained(0)
    deviation = {name: rows[name].std() for name in ("income", "financial_hist_2", "age")}
    drifts: list[tuple[str, str, Change]] = [
        (f"mean + {size:g} sd", name, _shifted(size * deviation[name]))
        for size in (0.1, 0.25, 0.5, 1.0)
        for name in deviation
    ]
    drifts += [
        (f"share of one value + {points} points", name, _more_of(value, points / 100))
        for points in (5, 10, 20)
        for name, value in (("gender", 1), ("product_var_3", "A"), ("location", "A"))
    ]
    drifts += [
        (f"missing + {points} points", name, _missing(points / 100))
        for points in (2, 5, 20)
        for name in ("income", "occupation", "employment_type")
    ]
    drifts += [
        (f"{share:.1%} of rows have an unseen value", "occupation", _unseen(share))
        for share in (0.005, 0.01, 0.02, 0.05)
    ]
    drifts += [
        (f"times 100 in {share:.0%} of rows", "income", _times(100, share))
        for share in (0.01, 0.05, 1.0)
    ]
    print("| drift | feature | mean PSI | alarms | days to the alarm: median (range) |")
    print("| --- | --- | --- | --- | --- |")
    for told, name, change in drifts:
        taken, size = _detect(known, rows, name, change)
        in_time = [days for days in taken if days is not None]
        days = f"{np.median(in_time):g} ({min(in_time)} to {max(in_time)})" if in_time else "never"
        print(f"| {told} | `{name}` | {size:.3f} | {len(in_time)} of {len(taken)} | {days} |")


def volumes() -> None:
    """Days off volume in a year without any, and how often a change of stated size is found."""
    rows = {
        seed: {
            (FIRST - timedelta(days=back)).isoformat(): len(
                _rows(FIRST - timedelta(days=back), seed)
            )
            for back in range(1, 7 * LIMITS.volume_weeks + 1)
        }
        | {day.isoformat(): len(frame) for day, frame in zip(YEAR, year(seed), strict=True)}
        for seed in SEEDS
    }
    print("| rows of the day | days off volume |")
    print("| --- | --- |")
    for share in (1.0, 0.9, 0.8, 0.7, 0.5, 0.0, 1.2, 1.3, 1.5, 2.0):
        off = [
            volume(
                {**known, day.isoformat(): round(share * known[day.isoformat()])},
                LIMITS,
                day.isoformat(),
            ).state
            != "ok"
            for known in rows.values()
            for day in YEAR
        ]
        print(f"| {share:.0%} of what they are | {sum(off):,} of {len(off):,} |")


@cache
def trained(seed: int) -> tuple[dict, pd.DataFrame]:
    """What the champion keeps of the rows that it learned from, and these rows."""
    days = [TRAINED_FROM + timedelta(days=number) for number in range(TRAINING_DAYS)]
    rows = pd.concat([_rows(day, seed) for day in days], ignore_index=True)
    return reference(rows, FEATURES, CATEGORICAL), rows


@cache
def year(seed: int) -> list[pd.DataFrame]:
    """The rows of each day."""
    return [_rows(day, seed) for day in YEAR]


@cache
def undrifted(seed: int) -> pd.DataFrame:
    """The measures of each day."""
    known, rows = trained(seed)
    return pd.concat(
        [
            measure(known, frame, trained_rows=len(rows)).assign(day=day.isoformat())
            for day, frame in zip(YEAR, year(seed), strict=True)
        ],
        ignore_index=True,
    )


def _rows(day: date, seed: int) -> pd.DataFrame:
    rows = applications(day, seed=seed)
    good = rows[(rows["breach"] == "") & ~rows["exact_duplicate"]]
    good = good.rename(columns={"income level": "income_level"})
    return good[list(FEATURES)].astype({"credit_score_3": "int64", "n_dependents": "int64"})


def _states(measures: pd.DataFrame) -> pd.DataFrame:
    """State by day and feature."""
    per_day = dict(list(measures.groupby("day")))
    days = sorted(per_day)
    found = {}
    for number, day in enumerate(days):
        last = [per_day[one] for one in days[max(0, number - 2 * LIMITS.days) : number + 1]]
        found[day] = decide(pd.concat(last), LIMITS, day).set_index("feature")["state"]
    return pd.DataFrame(found).T


def _rules_of_thumb(measures: pd.DataFrame) -> dict[str, pd.Series]:
    from scipy.stats import false_discovery_control

    adjusted = measures.groupby("day")["p_value"].transform(false_discovery_control)
    return {
        "PSI above 0.1": measures["psi"] > 0.1,
        "PSI above 0.05": measures["psi"] > 0.05,
        "p-value below 0.05": measures["p_value"] < 0.05,
        "p-value below 0.01": measures["p_value"] < 0.01,
        "false discovery rate of 0.01": adjusted < 0.01,
    }


def _detect(
    known: dict, rows: pd.DataFrame, name: str, change: Change
) -> tuple[list[int | None], float]:
    generator = np.random.default_rng(0)
    base = dict(list(undrifted(0).groupby("day")))
    taken: list[int | None] = []
    sizes = []
    for start in STARTS:
        before = [base[day.isoformat()] for day in YEAR[max(0, start - LIMITS.days) : start]]
        seen = before
        delay = None
        for number, day in enumerate(YEAR[start : start + PATIENCE], start=1):
            drifted = change(year(0)[start + number - 1][name], generator)
            line = measure({name: known[name]}, drifted.to_frame(), trained_rows=len(rows))
            sizes.append(line["psi"].iloc[0])
            there = base[day.isoformat()]
            together = pd.concat(
                [there[there["feature"] != name], line.assign(day=day.isoformat())]
            )
            seen = [*seen, together]
            states = decide(pd.concat(seen[-3 * LIMITS.days :]), LIMITS, day.isoformat())
            if states.set_index("feature").loc[name, "state"] == "drift":
                delay = number
                break
        taken.append(delay)
    return taken, float(np.mean(sizes))


def _shifted(by: float) -> Change:
    return lambda column, _: column + by


def _more_of(value: str | int, share: float) -> Change:
    def change(column: pd.Series, generator: np.random.Generator) -> pd.Series:
        others = np.flatnonzero(column != value)
        taken = generator.choice(others, min(len(others), round(share * len(column))), False)
        return _with(column, taken, value)

    return change


def _missing(share: float) -> Change:
    def change(column: pd.Series, generator: np.random.Generator) -> pd.Series:
        known = np.flatnonzero(column.notna())
        taken = generator.choice(known, min(len(known), round(share * len(column))), False)
        return _with(column, taken, None)

    return change


def _unseen(share: float) -> Change:
    def change(column: pd.Series, generator: np.random.Generator) -> pd.Series:
        return _with(column, np.flatnonzero(generator.random(len(column)) < share), "unseen")

    return change


def _times(factor: float, share: float) -> Change:
    def change(column: pd.Series, generator: np.random.Generator) -> pd.Series:
        return column.mask(generator.random(len(column)) < share, column * factor)

    return change


def _with(column: pd.Series, places: np.ndarray, value: str | int | None) -> pd.Series:
    changed = column.astype(object).reset_index(drop=True)
    changed[places] = value
    return changed


if __name__ == "__main__":
    main()
