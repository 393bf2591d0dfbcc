"""How far rows have moved from those that a model learned from: PSI and a test per input.

What to make of it belongs elsewhere: limits and alarms in `ml_assets.core.monitoring`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

# A bin that is empty on one side would make the index infinite.
_SMALLEST_SHARE = 1e-4

# Bins that expect fewer rows are tested together: far below it, the test's statistic is no longer
# chi-squared (Cochran, Some methods for strengthening the common chi-squared tests, Biometrics,
# 1954, allows one where only few bins expect less than five).
_FEWEST_EXPECTED = 1.0

_MEASURES = {
    "feature": object,
    "rows": np.int64,
    "trained_rows": np.int64,
    "psi": np.float64,
    "psi_by_chance": np.float64,
    "statistic": np.float64,
    "p_value": np.float64,
    "missing_share": np.float64,
    "missing_share_trained": np.float64,
    "unseen_share": np.float64,
    "moved": object,
}


def reference(
    frame: pd.DataFrame, columns: Sequence[str], categorical: Sequence[str], bins: int = 10
) -> dict[str, dict[str, Any]]:
    """How the values of each column are distributed, as plain JSON values.

    Numbers are counted between their own quantiles, categories by value, missing values apart.

    Returns:
        Per column: `edges` (inner edges) and `range` (smallest and largest, if any) for numbers,
        `values` for categories, and `shares`: of each bin or value, then of all other values
        (categories only), then of missing ones.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in columns:
        column = frame[name]
        if name in categorical:
            known = sorted(column.dropna().unique())
            scale: dict[str, Any] = {
                "values": [each.item() if hasattr(each, "item") else each for each in known]
            }
        else:
            numbers = column.dropna().to_numpy(dtype=np.float64)
            quantiles = (
                np.quantile(numbers, np.linspace(0, 1, bins + 1)[1:-1]) if len(numbers) else []
            )
            scale = {
                "edges": np.unique(quantiles).tolist(),
                "range": [numbers.min().item(), numbers.max().item()] if len(numbers) else [],
            }
        found[name] = {**scale, "shares": _shares(column, scale).round(6).tolist()}
    return found


def population_stability(
    trained: Mapping[str, Mapping[str, Any]], frame: pd.DataFrame
) -> dict[str, float]:
    """PSI of each column that both know: 0 where nothing moved.

    The population stability index, sum over bins of (q - p) ln(q / p) (Siddiqi, Credit Risk
    Scorecards, 2006); by its convention, below 0.1 is no shift to speak of, above 0.25 a large one.

    Args:
        trained: What `reference` said of the earlier rows.
        frame: The rows to compare.
    """
    found = {}
    for name, scale in trained.items():
        if name not in frame.columns or frame.empty:
            continue
        found[name] = float(_terms(np.asarray(scale["shares"]), _shares(frame[name], scale)).sum())
    return found


def measure(
    trained: Mapping[str, Mapping[str, Any]], frame: pd.DataFrame, *, trained_rows: int
) -> pd.DataFrame:
    """How far each column that both know has moved, and whether chance alone explains it.

    The test is Pearson's chi-squared test of homogeneity on the counts in the bins of `reference`,
    with categories that are new and missing values as bins of their own: it needs no more of the
    earlier rows than `reference` keeps, and serves numbers and categories alike. Where nothing
    moved, PSI is about (1 / rows + 1 / trained_rows) times a chi-squared variable with one degree
    of freedom less than there are bins (Yurdakul & Naranjo, Statistical properties of the
    population stability index, Journal of Risk Model Validation, 2020).

    Args:
        trained: What `reference` said of the earlier rows.
        frame: The rows to compare, of one day or of several.
        trained_rows: How many rows `reference` saw, at least 1; a bundle's `facts["train_rows"]`.

    Returns:
        One row per column, in the order of `trained`. Without rows to compare, all but the counts
        of rows and `missing_share_trained` is missing.

        - `feature`, `rows`, `trained_rows`
        - `psi`: see `population_stability`; `psi_by_chance`: its mean where nothing moved
        - `statistic`, `p_value`: of the test; bins that expect less than one row are pooled
        - `missing_share`, `missing_share_trained`, `unseen_share`: shares of rows, 0 to 1; unseen
          is a category that no earlier row had, or a number beyond the smallest and largest of
          them (0 for numbers if `trained` comes from a release that did not keep these)
        - `moved`: the bin that adds most to PSI, with its share now and then, in words

    Raises:
        ValueError: `trained_rows` is below 1.
    """
    if trained_rows < 1:
        raise ValueError(f"trained_rows must be at least 1, got {trained_rows}")
    found = []
    for name, scale in trained.items():
        if name not in frame.columns:
            continue
        before = np.asarray(scale["shares"], dtype=np.float64)
        line = {
            "feature": name,
            "rows": len(frame),
            "trained_rows": trained_rows,
            "missing_share_trained": float(before[-1]),
        }
        if len(frame):
            now = _shares(frame[name], scale)
            statistic, p_value = _homogeneity(
                np.rint(before * trained_rows), np.rint(now * len(frame))
            )
            bins = int(((before > 0) | (now > 0)).sum())
            terms = _terms(before, now)
            line |= {
                "psi": float(terms.sum()),
                "psi_by_chance": (bins - 1) * (1 / len(frame) + 1 / trained_rows),
                "statistic": statistic,
                "p_value": p_value,
                "missing_share": float(now[-1]),
                "unseen_share": _unseen(frame[name], scale, now),
                "moved": _moved(scale, before, now, int(terms.argmax())),
            }
        found.append(line)
    return pd.DataFrame(found, columns=list(_MEASURES)).astype(_MEASURES)


def _homogeneity(before: np.ndarray, now: np.ndarray) -> tuple[float, float]:
    """Statistic and p-value of the chi-squared test that both counts have one distribution."""
    from scipy.stats import chi2_contingency

    together = before + now
    # The smaller sample expects less in every bin.
    expected = together * min(before.sum(), now.sum()) / together.sum()
    order = np.argsort(expected, kind="stable")
    counts = np.stack([before, now])[:, order]
    expected = expected[order]
    # The rarest bins become one, with as many of the next as it takes to expect enough.
    few = int((expected < _FEWEST_EXPECTED).sum())
    if 0 < expected[:few].sum() < _FEWEST_EXPECTED:
        few += 1
    counts = np.column_stack([counts[:, :few].sum(axis=1), counts[:, few:]])
    counts = counts[:, counts.sum(axis=0) > 0]
    if counts.shape[1] < 2:
        return 0.0, 1.0
    found = chi2_contingency(counts, correction=False)
    return float(found.statistic), float(found.pvalue)


def _terms(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """What each bin adds to PSI."""
    p, q = np.maximum(before, _SMALLEST_SHARE), np.maximum(now, _SMALLEST_SHARE)
    terms: np.ndarray = (q - p) * np.log(q / p)
    return terms


def _moved(scale: Mapping[str, Any], before: np.ndarray, now: np.ndarray, place: int) -> str:
    """A bin in words: "above 61: 18 % of rows, 10 % when trained"."""
    if place == len(now) - 1:
        return f"{percent(now[place])} missing, {percent(before[place])} when trained"
    if "values" in scale:
        values = scale["values"]
        bin_name = str(values[place]) if place < len(values) else "unseen when trained"
    elif not scale["edges"]:
        bin_name = "any number"
    else:
        edges = [f"{edge:,.6g}" for edge in scale["edges"]]
        lower = [f"above {edges[place - 1]}"] if place > 0 else []
        upper = [f"up to {edges[place]}"] if place < len(edges) else []
        bin_name = " ".join(lower + upper)
    return f"{bin_name}: {percent(now[place])} of rows, {percent(before[place])} when trained"


def _unseen(column: pd.Series, scale: Mapping[str, Any], now: np.ndarray) -> float:
    if "values" in scale:
        return float(now[-2])
    if not scale.get("range"):
        return 0.0
    low, high = scale["range"]
    numbers = column.dropna().to_numpy(dtype=np.float64)
    return float(((numbers < low) | (numbers > high)).sum() / len(column))


def percent(share: float) -> str:
    """A share as people write it: 23 %, 2.4 %, 0.02 %."""
    hundredths = 100 * share
    digits = 0 if hundredths >= 10 or hundredths == round(hundredths) else 1
    return f"{hundredths:.{digits}f} %" if digits == 0 or hundredths >= 1 else f"{hundredths:.1g} %"


def _shares(column: pd.Series, scale: Mapping[str, Any]) -> np.ndarray:
    missing = int(column.isna().sum())
    if "values" in scale:
        codes = pd.Index(scale["values"]).get_indexer(pd.Index(column.dropna()))
        counts = np.bincount(
            np.where(codes < 0, len(scale["values"]), codes), minlength=len(scale["values"]) + 1
        )
    else:
        numbers = column.dropna().to_numpy(dtype=np.float64)
        places = np.searchsorted(scale["edges"], numbers, side="left")
        counts = np.bincount(places, minlength=len(scale["edges"]) + 1)
    shares: np.ndarray = np.append(counts, missing) / max(len(column), 1)
    return shares
