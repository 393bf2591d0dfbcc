"""Why a row got its score: its strongest contributions, as text that a table can hold.

The contributions themselves come from `ml_assets.core.bundle`; plots of them are drawn elsewhere.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ml_assets.core.bundle import Bundle, contributions


@dataclass(frozen=True)
class Reason:
    """One of the things that moved a score.

    Attributes:
        feature: The input.
        value: Its value in the row; None if missing.
        effect: What it added to the raw score, in log-odds; positive makes the outcome likelier.
    """

    feature: str
    value: Any
    effect: float


def strongest_reasons(
    bundle: Bundle, frame: pd.DataFrame, top: int, threads: int = 1
) -> np.ndarray:
    """The inputs that moved each row's raw score most, strongest first, as JSON.

    Columns that repeat another are not among the bundle's inputs, so no effect is split in two.

    Args:
        bundle: The model.
        frame: Rows with the bundle's inputs.
        top: Number of reasons per row; 0 for none, which costs nothing.
        threads: Threads to compute with.

    Returns:
        Object array of shape (rows,): each a JSON list of [feature, value, effect], the effect in
        log-odds to four decimals. `read_reasons` reads it.
    """
    texts = np.full(len(frame), "[]", dtype=object)
    top = min(top, len(bundle.inputs))
    if not top or frame.empty:
        return texts
    effects = contributions(bundle, frame, threads)[:, :-1]
    # A stable order: of equal effects, the input that comes first.
    order = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :top]
    rounded = np.take_along_axis(effects, order, axis=1).round(4).tolist()
    # Each distinct value is put into JSON once; a whole table has few of them.
    names = [json.dumps(name) for name in bundle.inputs]
    columns = [_as_json(frame[name]) for name in bundle.inputs]
    for row, (places, values) in enumerate(zip(order.tolist(), rounded, strict=True)):
        reasons = [
            f"[{names[place]}, {columns[place][row]}, {value}]"
            for place, value in zip(places, values, strict=True)
        ]
        texts[row] = f"[{', '.join(reasons)}]"
    return texts


def read_reasons(text: str) -> list[Reason]:
    """The reasons of one row, from its text in the predictions table."""
    return [Reason(feature, value, effect) for feature, value, effect in json.loads(text)]


def _as_json(column: pd.Series) -> list[str]:
    codes, values = pd.factorize(column)
    known = [json.dumps(value.item() if hasattr(value, "item") else value) for value in values]
    known.append("null")  # code -1: missing
    return np.array(known, dtype=object)[codes].tolist()
