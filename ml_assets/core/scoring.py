"""Probabilities for rows, and which of them are new; tables are read and written elsewhere."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from ml_assets.core.bundle import Bundle, predict
from ml_assets.core.explanations import strongest_reasons
from ml_assets.core.features import row_hashes


def score(
    features: pd.DataFrame,
    bundle: Bundle,
    *,
    inputs: Sequence[str],
    key: str,
    received_at: str,
    model_version: int,
    code_version: str,
    scored_at: datetime,
    reasons: int,
    threads: int = 1,
) -> pd.DataFrame:
    """Predictions for feature rows, as `core.tables.Predictions` with the key's own name.

    Args:
        features: Rows to score, with a `day` column.
        bundle: The model.
        inputs: Columns whose values name the data; those that any model of the use case may see,
            so that the name does not change with the model.
        key: Column that names a row.
        received_at: Column with the instant of receipt.
        model_version: Registered version of the model.
        code_version: Version of the code that scores.
        scored_at: When this happens, with a time zone.
        reasons: Number of reasons to give per row; 0 for none.
        threads: Threads to score with.
    """
    rows = len(features)
    probability = predict(bundle, features, threads)
    now = pd.DatetimeIndex([scored_at]).tz_convert("UTC").as_unit("us")
    return pd.DataFrame(
        {
            "day": features["day"].to_numpy(object),
            key: features[key].to_numpy(object),
            "received_at": features[received_at].array,
            "probability": probability,
            "refer": probability >= bundle.threshold,
            "reasons": strongest_reasons(bundle, features, reasons, threads),
            "model_version": np.full(rows, model_version, dtype=np.int64),
            "data_version": row_hashes(features, inputs).to_numpy(object),
            "code_version": np.full(rows, code_version, dtype=object),
            "scored_at": now.repeat(rows),
            "superseded_at": pd.Series(pd.NaT, index=range(rows), dtype="datetime64[us, UTC]"),
        }
    )


def beside(
    predictions: pd.DataFrame,
    before: pd.DataFrame,
    *,
    key: str,
    any_model: bool,
    at: datetime,
) -> pd.DataFrame:
    """All that was ever said about some days: what was said before, and what is new beside it.

    A prediction stands as it was when its inputs are the same and so are model and code, so that
    scoring twice says nothing new; with `any_model`, when its inputs are the same, whichever model
    said it. Otherwise the new one takes its place, and the old one stays on record, superseded. So
    does that of an application which has gone from the source.

    Args:
        predictions: New predictions of whole days.
        before: All rows that the table has of these days.
        key: Column that names an application.
        any_model: Whether an earlier model's prediction stands too.
        at: When the new ones take the place of the old, with a time zone.

    Returns:
        Rows ordered by day, key and `scored_at`.
    """
    same = ["day", key, "data_version"]
    if not any_model:
        same += ["model_version", "code_version"]
    standing = before["superseded_at"].isna()
    said = pd.MultiIndex.from_frame(before.loc[standing, same])
    new = pd.MultiIndex.from_frame(predictions[same])
    kept = before.copy()
    gone = standing.to_numpy().copy()
    gone[gone] = ~said.isin(new)
    added = predictions[~new.isin(said)].copy()
    instant = pd.Timestamp(at).tz_convert("UTC").as_unit("us")
    kept.loc[gone, "superseded_at"] = _no_earlier(instant, kept[gone], before, key)
    added["scored_at"] = _no_earlier(added["scored_at"], added, before, key)
    together = pd.concat([kept[predictions.columns], added])
    return together.astype(predictions.dtypes.to_dict()).sort_values(
        ["day", key, "scored_at"], kind="stable", ignore_index=True
    )


def _no_earlier(
    instants: pd.Timestamp | pd.Series, rows: pd.DataFrame, before: pd.DataFrame, key: str
) -> pd.Series:
    """The instants, or where that is later, the last one on record of the same application.

    So what was said stays in its order when the clock was set back.
    """
    last = before.groupby(["day", key])[["scored_at", "superseded_at"]].max().max(axis=1)
    known = last.reindex(pd.MultiIndex.from_frame(rows[["day", key]])).set_axis(rows.index)
    return known.where(known > instants, instants).astype("datetime64[us, UTC]")


def standing(predictions: pd.DataFrame) -> pd.DataFrame:
    """Those predictions that stand: one per application."""
    return predictions[predictions["superseded_at"].isna()]
