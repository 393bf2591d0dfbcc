"""How far rows have moved from those that a model learned from: PSI per input.

What to make of it (limits, alarms) belongs to the callers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

# A bin that is empty on one side would make the index infinite.
_SMALLEST_SHARE = 1e-4


def reference(
    frame: pd.DataFrame, columns: Sequence[str], categorical: Sequence[str], bins: int = 10
) -> dict[str, dict[str, Any]]:
    """How the values of each column are distributed, as plain JSON values.

    Numbers are counted between their own quantiles, categories by value, missing values apart.

    Returns:
        Per column: `edges` (inner edges, numbers only), `values` (categories only), and `shares`:
        of each bin or value, then of all other values (categories only), then of missing ones.
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
            scale = {"edges": np.unique(quantiles).tolist()}
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
        p = np.maximum(np.asarray(scale["shares"]), _SMALLEST_SHARE)
        q = np.maximum(_shares(frame[name], scale), _SMALLEST_SHARE)
        found[name] = float(((q - p) * np.log(q / p)).sum())
    return found


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
