"""Compare the simulated application table with the notebook's own table.

Run from the repository root: `python benchmarks/simulator_fidelity.py PATH_TO_claims_dataset.csv`.
Prints Markdown tables; `docs/simulator.md` quotes them. Takes about half a minute on one core.
"""

import argparse
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ml_assets.use_cases.claims.simulator import (
    TABLE_COLUMNS,
    applications,
    changes_between,
    rows_as_of,
)

TARGET = "claim_status"
FEATURES = list(TABLE_COLUMNS)[4:]
TEXT_NUMBERS = ["credit_score_3", "n_dependents"]
LETTERS = ["marital_status", "occupation", "location", "product_var_3"]
YEAR = [date(2026, 1, 1) + timedelta(days=number) for number in range(365)]
# Ordinary values, not searched for: the same for both tables.
EARLY_STOPPED: dict[str, Any] = {
    "n_estimators": 400,
    "learning_rate": 0.08,
    "max_depth": 5,
    "subsample": 0.8,
    "colsample_bytree": 0.6,
    "early_stopping_rounds": 30,
}
MODELS: dict[str, dict[str, Any]] = {"defaults": {}, "early stopping": EARLY_STOPPED}


def main() -> None:
    """Read the notebook's table, simulate one of the same size, print how they compare."""
    parser = argparse.ArgumentParser(description="Compare the simulator with the notebook's table.")
    parser.add_argument("csv", type=Path, help="the notebook's table, claims_dataset.csv")
    parser.add_argument("--seed", type=int, default=0, help="the simulator's seed")
    arguments = parser.parse_args()

    notebook = pd.read_csv(arguments.csv, index_col=0)[[TARGET, *FEATURES]]
    year = good_rows(YEAR, arguments.seed)
    simulated = year.sample(len(notebook), random_state=arguments.seed)
    continuous = [name for name in FEATURES if notebook[name].nunique() > 30]

    print_summary(notebook, simulated, continuous)
    print_columns(notebook, simulated, continuous)
    print_models(notebook, simulated)
    print_time_split(year)
    print_year(year)
    print_speed(arguments.seed)


def good_rows(days: list[date], seed: int) -> pd.DataFrame:
    """The final, unbroken rows of the days: `received_at`, target and features as numbers."""
    rows = pd.concat([applications(day, seed=seed) for day in days], ignore_index=True)
    rows = rows.loc[rows["breach"].eq("") & ~rows["exact_duplicate"]]
    numbers = [name for name in [TARGET, *FEATURES] if name not in LETTERS]
    return rows[["received_at", TARGET, *FEATURES]].astype(dict.fromkeys(numbers, "float64"))


def print_table(heads: list[str], rows: list[list[str]]) -> None:
    """One Markdown table and an empty line."""
    for cells in (heads, ["---"] * len(heads), *rows):
        print(f"| {' | '.join(cells)} |")
    print()


def print_summary(notebook: pd.DataFrame, simulated: pd.DataFrame, continuous: list[str]) -> None:
    """What one number can say about a table."""
    tables = (notebook, simulated)
    repeated = {"financial_hist_1": "insurance_hist_2", "financial_hist_3": "insurance_hist_3"}
    rows = [
        ["rows", *(f"{len(table):,}" for table in tables)],
        ["share of claims", *(f"{table[TARGET].mean():.4f}" for table in tables)],
    ]
    rows += [
        [f"missing {name}", *(f"{table[name].isna().mean():.4f}" for table in tables)]
        for name in notebook.columns[notebook.isna().any()]
    ]
    rows += [
        [f"{one} = {other}", *(str(bool((table[one] == table[other]).all())) for table in tables)]
        for one, other in repeated.items()
    ]
    rows.append(
        [
            "correlation of income and insurance_hist_5",
            *(f"{table['income'].corr(table['insurance_hist_5']):.4f}" for table in tables),
        ]
    )
    one, other = (table[continuous].corr() for table in tables)
    gap = (one - other).abs().max().max()
    rows.append(
        [f"largest difference of a correlation, {len(continuous)} columns", "", f"{gap:.3f}"]
    )
    for label, name in ((1, "claims"), (0, "non-claims")):
        one, other = (table.loc[table[TARGET] == label, continuous].corr() for table in tables)
        gap = (one - other).abs().max().max()
        rows.append([f"the same among {name}", "", f"{gap:.3f}"])
    with_target = [table[continuous].corrwith(table[TARGET]) for table in tables]
    gap = (with_target[0] - with_target[1]).abs().max()
    rows.append(["the same with claim_status", "", f"{gap:.3f}"])
    print_table(["what", "notebook", "simulator"], rows)


def print_columns(notebook: pd.DataFrame, simulated: pd.DataFrame, continuous: list[str]) -> None:
    """KS distance for continuous columns, largest difference of a share for the others."""
    rows = []
    for name in FEATURES:
        label, measure = ("KS", ks_distance) if name in continuous else ("share", share_distance)
        parts = [
            measure(
                *(table.loc[table[TARGET].isin(labels), name] for table in (notebook, simulated))
            )
            for labels in ([0, 1], [1], [0])
        ]
        rows.append([name, label, *(f"{part:.3f}" for part in parts)])
    print_table(["column", "measure", "all rows", "claims", "non-claims"], rows)


def print_models(notebook: pd.DataFrame, simulated: pd.DataFrame) -> None:
    """The same XGBoost on both tables: five folds, one thread."""
    rows, most_used = [], []
    for name, table in (("notebook", notebook), ("simulator", simulated)):
        for model, settings in MODELS.items():
            scores, gains = cross_validate(table, settings)
            cells = [
                f"{mean:.4f} ({spread:.4f})"
                for mean, spread in zip(scores.mean(axis=0), scores.std(axis=0), strict=True)
            ]
            rows.append([model, name, *cells])
        most_used.append(gains.sort_values(ascending=False).head(10))
    print_table(["model, 5 folds", "table", "ROC AUC (sd of folds)", "log loss (sd)"], rows)
    ranks = [
        [str(rank + 1), *(f"{gains.index[rank]} {gains.iloc[rank]:.3f}" for gains in most_used)]
        for rank in range(10)
    ]
    print_table(["rank by share of total gain", "notebook", "simulator"], ranks)


def print_time_split(year: pd.DataFrame) -> None:
    """A month or so of training days and the two weeks after it, at several times of the year."""
    day_number = year["received_at"].dt.dayofyear
    rows = []
    for start, days in ((1, 20), (1, 30), (120, 30), (240, 30), (1, 40)):
        train = year[day_number.between(start, start + days - 1)]
        test = year[day_number.between(start + days, start + days + 13)]
        for model, settings in MODELS.items():
            auc, loss = evaluated(fitted(train, settings), test)
            trained_on = f"{days} days from day {start}, {len(train):,} rows"
            rows.append([model, trained_on, f"{len(test):,} rows", f"{auc:.4f}", f"{loss:.4f}"])
    print_table(["model", "trained on", "tested on the next 14 days", "ROC AUC", "log loss"], rows)


def print_year(year: pd.DataFrame) -> None:
    """How far the months are apart."""
    months = [rows for _, rows in year.groupby(year["received_at"].dt.month)]
    claims = [rows[TARGET].mean() for rows in months]
    widest, name = max(
        (psi(one[name], other[name]), name)
        for name in FEATURES
        if name not in LETTERS
        for one in months
        for other in months
    )
    rows = [
        ["rows", f"{len(year):,}"],
        ["share of claims", f"{year[TARGET].mean():.4f}"],
        ["share of claims, lowest and highest month", f"{min(claims):.4f}, {max(claims):.4f}"],
        ["largest PSI between two months", f"{widest:.4f} ({name})"],
    ]
    print_table(["over one year", ""], rows)


def print_speed(seed: int) -> None:
    """Seconds on one core."""
    as_of = datetime(2026, 2, 1, tzinfo=UTC)
    later = as_of + timedelta(hours=1)

    def seconds(work: Callable[[], object]) -> str:
        started = time.perf_counter()
        work()
        return f"{time.perf_counter() - started:.3f}"

    days = YEAR[:60]
    rows = [
        [
            "rows_as_of, 60 days",
            seconds(lambda: [rows_as_of(day, as_of, seed=seed) for day in days]),
        ],
        [
            "changes_between, 60 days",
            seconds(lambda: [changes_between(day, as_of, later, seed=seed) for day in days]),
        ],
        [
            "rows_as_of, one day of 100,000 rows",
            seconds(lambda: rows_as_of(days[0], as_of, seed=seed, daily_volume=100_000)),
        ],
    ]
    print_table(["speed", "seconds"], rows)


def ks_distance(one: pd.Series, other: pd.Series) -> float:
    """Largest distance of the two empirical distribution functions."""
    points = np.sort(np.concatenate([one, other]))
    steps = [
        np.searchsorted(np.sort(part), points, side="right") / len(part) for part in (one, other)
    ]
    return float(np.abs(steps[0] - steps[1]).max())


def share_distance(one: pd.Series, other: pd.Series) -> float:
    """Largest difference of a category's share; missing is a category."""
    shares = [part.value_counts(normalize=True, dropna=False) for part in (one, other)]
    return float(shares[0].sub(shares[1], fill_value=0).abs().max())


def psi(one: pd.Series, other: pd.Series) -> float:
    """Population stability index over the first sample's tenths; missing is a bin."""
    limits = np.unique(one.quantile(np.linspace(0.1, 0.9, 9)).to_numpy())
    shares = []
    for part in (one, other):
        bins = np.where(part.isna(), -1, np.searchsorted(limits, part.to_numpy(), side="right"))
        counts = np.bincount(bins + 1, minlength=len(limits) + 2)
        shares.append((counts + 0.5) / (counts.sum() + 0.5 * len(counts)))
    return float(((shares[0] - shares[1]) * np.log(shares[0] / shares[1])).sum())


def cross_validate(
    table: pd.DataFrame, settings: dict[str, Any]
) -> tuple[npt.NDArray[np.float64], pd.Series]:
    """(fold, [AUC, log loss]) and the mean share of total gain per original column."""
    from sklearn.model_selection import StratifiedKFold

    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(table, table[TARGET])
    scores, gains = [], []
    for train, test in folds:
        model = fitted(table.iloc[train], settings)
        scores.append(evaluated(model, table.iloc[test]))
        gain = pd.Series(model.get_booster().get_score(importance_type="total_gain"))
        gains.append(gain / gain.sum())
    return np.array(scores), pd.DataFrame(gains).mean()


def fitted(train: pd.DataFrame, settings: dict[str, Any]) -> Any:
    """An XGBoost classifier; where it stops early, the last sixth of the rows validates."""
    import xgboost

    model = xgboost.XGBClassifier(
        n_jobs=1, random_state=0, enable_categorical=True, tree_method="hist", **settings
    )
    features, target = model_input(train), train[TARGET].astype(int)
    if "early_stopping_rounds" not in settings:
        return model.fit(features, target)
    split = len(train) - len(train) // 6
    return model.fit(
        features.iloc[:split],
        target.iloc[:split],
        eval_set=[(features.iloc[split:], target.iloc[split:])],
        verbose=False,
    )


def evaluated(model: Any, test: pd.DataFrame) -> tuple[float, float]:
    """ROC AUC and log loss on the test rows."""
    from sklearn.metrics import log_loss, roc_auc_score

    probability = model.predict_proba(model_input(test))[:, 1]
    target = test[TARGET].astype(int)
    return float(roc_auc_score(target, probability)), float(log_loss(target, probability))


def model_input(table: pd.DataFrame) -> pd.DataFrame:
    """The features, letters as categories known in advance."""
    alphabet = pd.CategoricalDtype([chr(code) for code in range(ord("A"), ord("Z") + 1)])
    return table[FEATURES].astype(dict.fromkeys(LETTERS, alphabet))


if __name__ == "__main__":
    main()
