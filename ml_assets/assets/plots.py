"""Plots for asset metadata, as images inside markdown; matplotlib is imported only to draw."""

import base64
import io
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from ml_assets.core.bundle import Bundle
from ml_assets.core.scoring import predict


def roc_and_reliability(
    bundle: Bundle, holdout: pd.DataFrame, target: str
) -> dg.MarkdownMetadataValue:
    """The ROC curve, and promised against realised probability by tenth, on the holdout."""
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import roc_curve

    outcome = holdout[target].to_numpy(dtype=np.int8)
    probability = predict(bundle, holdout)
    figure = _figure()
    roc, reliability = figure.subplots(1, 2)
    for axes in (roc, reliability):
        axes.plot([0, 1], [0, 1], color="lightgrey", linestyle="--")
    false_positives, true_positives, _ = roc_curve(outcome, probability)
    roc.plot(false_positives, true_positives)
    roc.set(title="ROC curve", xlabel="False positive rate", ylabel="True positive rate")
    realised, promised = calibration_curve(outcome, probability, n_bins=10, strategy="quantile")
    reliability.plot(promised, realised, marker="o")
    reliability.set(title="Reliability by tenth", xlabel="Promised", ylabel="Realised")
    return _as_markdown(figure)


def _figure() -> Any:
    # Figure without pyplot: no global state, and no display is looked for.
    from matplotlib.figure import Figure

    return Figure(figsize=(8, 3.5), layout="constrained")


def _as_markdown(figure: Any) -> dg.MarkdownMetadataValue:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{encoded})")
