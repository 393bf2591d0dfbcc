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
        }
    )


def keep_known(
    predictions: pd.DataFrame, before: pd.DataFrame, *, key: str, any_model: bool
) -> pd.DataFrame:
    """Let a prediction that was already made stand, so that scoring twice changes nothing.

    A row stands as it was, `scored_at` included, when its inputs are the same and so are model and
    code; with `any_model`, when its inputs are the same, whichever model said it.

    Args:
        predictions: New predictions.
        before: Predictions of the same days as the table has them.
        key: Column that names a row.
        any_model: Whether an earlier model's prediction stands too.
    """
    same = [key, "day", "data_version"]
    if not any_model:
        same += ["model_version", "code_version"]
    said = ["probability", "refer", "reasons", "model_version", "code_version", "scored_at"]
    known = before.set_index(same)[[name for name in said if name not in same]]
    position = known.index.get_indexer(pd.MultiIndex.from_frame(predictions[same]))
    stands = position >= 0
    kept = predictions.copy()
    for name in known.columns:
        kept.loc[stands, name] = known[name].to_numpy()[position[stands]]
    return kept.astype(predictions.dtypes.to_dict())
