"""Plots for asset metadata, drawn from plain records and arrays; matplotlib is imported to draw.

Each function returns one image as PNG bytes, small enough to be stored with an event (under 60 kB);
`as_markdown` puts it into metadata. What is drawn is computed in `ml_assets.core`.
"""

import base64
import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from ml_assets.core.bundle import Bundle, encode
from ml_assets.core.evaluation import (
    Bin,
    CalibrationReport,
    CostReport,
    Decile,
    Estimate,
    Evaluation,
    Importance,
    Part,
)
from ml_assets.core.exploration import Exploration
from ml_assets.core.metrics import wilson

# Okabe and Ito's blue and vermillion, an orange, which colour-blind readers tell apart; else grey.
BLUE, ORANGE = "#0072B2", "#D55E00"
INK, GREY, PALE, GRID = "#27313d", "#7d8894", "#cfd6dd", "#e9edf1"
# Neither end is white, so that a point at either shows on a white ground.
_COOL_TO_WARM = ("#0072B2", "#8fbcd8", "#d9d9d9", "#e8a877", "#D55E00")

_STYLE: Any = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": PALE,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 10,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.8,
}
_DPI = 90


def as_markdown(*images: bytes) -> dg.MarkdownMetadataValue:
    """Images for the UI, one below the other."""
    lines = [
        f"![plot](data:image/png;base64,{base64.b64encode(image).decode()})" for image in images
    ]
    return dg.MetadataValue.md("\n\n".join(lines))


def exploration_plots(exploration: Exploration) -> dict[str, bytes]:
    """Every plot of a training set, by name."""
    return {
        "histograms": histograms(exploration),
        "categories": categories(exploration),
        "correlation": correlation(exploration),
        "missing": missing_values(exploration),
    }


def model_plots(
    bundle: Bundle, evaluation: Evaluation, holdout: pd.DataFrame, contributions: np.ndarray
) -> dict[str, bytes]:
    """Every plot of a model and its evaluation, by name.

    Args:
        bundle: The model.
        evaluation: How it did.
        holdout: Rows with the model's inputs.
        contributions: SHAP values of those rows, shape (rows, inputs + 1), in log-odds.
    """
    return {
        "roc_and_precision_recall": roc_and_precision_recall(evaluation),
        "reliability": reliability(evaluation.calibration),
        "cost_curve": cost_curve(evaluation.costs),
        "confusion_matrix": confusion_matrix(
            evaluation.parts["holdout"], evaluation.costs.threshold
        ),
        "lift": lift(evaluation.lift),
        "importance": importance(evaluation.importance),
        "shap_summary": shap_summary(
            contributions,
            encode(holdout, bundle.inputs, bundle.vocabulary),
            bundle.inputs,
            categorical=tuple(bundle.vocabulary),
        ),
        "first_tree": tree(bundle),
    }


def roc_and_precision_recall(evaluation: Evaluation) -> bytes:
    """How well the holdout is put in order: the ROC curve and the precision-recall curve."""
    holdout = evaluation.parts["holdout"]
    with _figure(9.2, 4.1) as figure:
        left, right = figure.subplots(1, 2)
        x, y = zip(*evaluation.roc, strict=True)
        left.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        left.fill_between(x, y, color=BLUE, alpha=0.08, linewidth=0)
        left.plot(x, y, color=BLUE)
        left.set(
            title=f"ROC curve: AUC {_said(holdout.metrics['roc_auc'])}",
            xlabel="False positive rate",
            ylabel="True positive rate",
        )
        left.text(0.62, 0.56, "a coin", color=GREY, rotation=45, rotation_mode="anchor")
        share = holdout.positives / holdout.rows
        x, y = zip(*evaluation.precision_recall, strict=True)
        right.axhline(share, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        right.fill_between(x, y, color=BLUE, alpha=0.08, linewidth=0)
        right.plot(x, y, color=BLUE)
        right.set(
            title=f"Precision-recall curve: AP {_said(holdout.metrics['pr_auc'])}",
            xlabel="Recall",
            ylabel="Precision",
        )
        right.text(0.02, share + 0.02, f"no skill: {share:.0%} are positive", color=GREY)
        for axes in (left, right):
            axes.set(xlim=(-0.01, 1.01), ylim=(0, 1.02), aspect="equal")
        return _png(figure)


def reliability(report: CalibrationReport) -> bytes:
    """Promised against realised shares of positives, before and after calibration."""
    with _figure(9.2, 4.7) as figure:
        axes = figure.subplots(1, 2)
        sides = (
            ("Raw scores of the trees", report.reliability_before, report.before, GREY),
            (
                f"As served (calibration: {report.method})",
                report.reliability_after,
                report.after,
                BLUE,
            ),
        )
        bounds = [
            value
            for _, bins, _, _ in sides
            for one in bins
            for value in (one.promised, one.realised.high)
            if value is not None
        ]
        top = min(1.0, 1.06 * max(bounds))
        for plot, (name, bins, figures, color) in zip(axes, sides, strict=True):
            plot.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 3)))
            _draw_bins(plot, bins, color)
            slope, error = figures["calibration_slope"], figures["calibration_error"]
            # Most rows promise little: a square root gives them room.
            plot.set_xscale("function", functions=(_root, np.square))
            plot.set_yscale("function", functions=(_root, np.square))
            ticks = [tick for tick in (0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1) if tick <= top]
            plot.set(title=name, xlabel="Promised probability", xticks=ticks, yticks=ticks)
            plot.set(xlim=(0, top), ylim=(0, top), aspect="equal")
            plot.text(
                0.04,
                0.95,
                f"slope {_said(slope, 2)}\ncalibration error {_said(error)}",
                transform=plot.transAxes,
                va="top",
                fontsize=8.5,
                linespacing=1.5,
            )
        axes[0].set_ylabel("Realised share of positives, with 95 % intervals")
        for plot in axes:
            _percent(plot, "both")
        return _png(figure)


def cost_curve(report: CostReport) -> bytes:
    """What decisions cost on the calibration days, at every threshold."""
    x, y = (np.array(values) for values in zip(*report.curve, strict=True))
    with _figure(8.6, 3.7) as figure:
        axes = figure.subplots()
        axes.plot(x, y, color=BLUE)
        chosen = float(np.interp(report.threshold, x, y))
        ideal = float(np.interp(report.theoretical_threshold, x, y))
        axes.axvline(report.threshold, color=ORANGE, linewidth=1)
        axes.axvline(report.theoretical_threshold, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(
            report.theoretical_threshold,
            ideal,
            "o",
            color="white",
            markeredgecolor=GREY,
            markersize=7,
            label=f"theoretical threshold {report.theoretical_threshold:.3g}: {ideal:.3g}",
        )
        axes.plot(
            report.threshold,
            chosen,
            "o",
            color=ORANGE,
            markersize=6,
            label=f"chosen threshold {report.threshold:.3g}: {chosen:.3g}",
        )
        axes.set(
            title="Cost of decisions on the calibration days, by threshold",
            xlabel=(
                f"Refer from this probability on (a missed claim costs {report.missed_claim:g}, "
                f"a needless referral {report.needless_referral:g})"
            ),
            ylabel="Cost per application",
            xlim=(0, 1),
            ylim=(0, 1.08 * y.max()),
        )
        handles, labels = axes.get_legend_handles_labels()
        axes.legend(handles[::-1], labels[::-1], loc="lower right")
        return _png(figure)


def lift(deciles: Sequence[Decile]) -> bytes:
    """How many times the average share of positives each tenth of the holdout holds."""
    with _figure(8.6, 3.6) as figure:
        axes = figure.subplots()
        places = [one.decile for one in deciles]
        heights = [one.lift.value or 0.0 for one in deciles]
        bars = axes.bar(places, heights, width=0.72, color=BLUE)
        for bar, one in zip(bars, deciles, strict=True):
            bar.set_alpha(1.0 if (one.lift.value or 0) >= 1 else 0.45)
            if one.lift.low is not None and one.lift.high is not None:
                axes.plot([one.decile] * 2, [one.lift.low, one.lift.high], color=INK, linewidth=1.2)
        axes.axhline(1, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        axes.grid(axis="x", visible=False)
        tops = [one.lift.high or one.lift.value or 0.0 for one in deciles]
        for place, height, top in zip(places, heights, tops, strict=True):
            axes.annotate(
                f"{height:.2f}",
                (place, top),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
            )
        axes.set(
            title="Lift: share of positives in each tenth, over that of all",
            xlabel="Tenth of the holdout, the highest probabilities first",
            ylabel="Lift",
            xticks=places,
            ylim=(0, 1.15 * max([1.0, *tops])),
        )
        return _png(figure)


def importance(features: Sequence[Importance], top: int = 15) -> bytes:
    """The features that move the model most, by mean absolute contribution; gain beside it."""
    shown = list(features)[:top][::-1]
    names = [one.feature for one in shown]
    with _figure(8.6, 0.9 + 0.235 * max(len(shown), 4)) as figure:
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
        left.barh(names, [one.contribution for one in shown], height=0.66, color=BLUE)
        left.set(title="Mean absolute contribution", xlabel="Log-odds")
        right.barh(names, [one.gain for one in shown], height=0.66, color=GREY)
        right.set(title="Gain", xlabel="Mean loss reduction per split")
        for axes in (left, right):
            axes.grid(axis="y", visible=False)
            axes.margins(y=0.02)
        return _png(figure)


def shap_summary(
    contributions: np.ndarray,
    values: np.ndarray,
    names: Sequence[str],
    *,
    categorical: Sequence[str] = (),
    top: int = 12,
    most_points: int = 800,
) -> bytes:
    """What each value of a feature does to a row's score: a point per row, feature below feature.

    After the summary plot of Lundberg and Lee, "A unified approach to interpreting model
    predictions", 2017.

    Args:
        contributions: SHAP values in log-odds, shape (rows, features) or with one column more for
            the base value, which is left out.
        values: The features as the trees see them, shape (rows, features), NaN where missing.
        names: Names of the features.
        categorical: Those whose values are codes without an order: their points are grey.
        top: Number of features shown, those that matter most first.
        most_points: Rows shown, evenly picked.
    """
    contributions = contributions[:, : len(names)]
    order = np.argsort(-np.abs(contributions).mean(axis=0), kind="stable")[:top]
    picked = np.unique(np.linspace(0, len(values) - 1, min(most_points, len(values))).astype(int))
    with _figure(8.6, 1.0 + 0.36 * len(order)) as figure:
        from matplotlib.cm import ScalarMappable

        colors = _colors(*_COOL_TO_WARM)
        axes = figure.subplots()
        axes.axvline(0, color=GREY, linewidth=1)
        for place, feature in enumerate(order):
            x, amounts = contributions[picked, feature], values[picked, feature]
            height = place + _swarm(x)
            ordered = ~np.isnan(amounts) & (names[feature] not in categorical)
            axes.scatter(x[~ordered], height[~ordered], s=5, color=GREY, alpha=0.6, linewidths=0)
            if ordered.any():
                # By rank, so that one extreme value does not make all others look the same.
                distinct, level = np.unique(amounts[ordered], return_inverse=True)
                shade = level / max(len(distinct) - 1, 1)
                axes.scatter(
                    x[ordered], height[ordered], s=5, c=shade, cmap=colors, vmin=0, vmax=1,
                    linewidths=0,
                )  # fmt: skip
        axes.set(
            title="What the values of the most important features do to the score",
            xlabel="Contribution to the log-odds of a positive outcome",
            yticks=range(len(order)),
            yticklabels=[names[feature] for feature in order],
            ylim=(len(order) - 0.4, -0.6),
        )
        axes.grid(axis="x", visible=False)
        scale = figure.colorbar(
            ScalarMappable(cmap=colors), ax=axes, ticks=[0, 1], pad=0.01, aspect=40, fraction=0.03
        )
        scale.set_ticklabels(["low", "high"])
        scale.set_label("Value (grey: a category, or missing)", fontsize=8.5)
        scale.outline.set_visible(False)
        return _png(figure)


def confusion_matrix(part: Part, threshold: float) -> bytes:
    """Rows by what happened and what was decided."""
    tn, fp, fn, tp = part.confusion
    cells = np.array([[tn, fp], [fn, tp]])
    rows = np.maximum(cells.sum(axis=1, keepdims=True), 1)
    with _figure(5.2, 3.6) as figure:
        axes = figure.subplots()
        blues = _colors("#f4f8fb", BLUE)
        axes.imshow(cells / rows, cmap=blues, vmin=0, vmax=1, aspect="auto")
        for (row, column), count in np.ndenumerate(cells):
            share = count / rows[row, 0]
            axes.text(
                column,
                row,
                f"{count:,}\n{share:.0%} of row",
                ha="center",
                va="center",
                color="white" if share > 0.55 else INK,
                fontsize=11,
                linespacing=1.5,
            )
        axes.set(
            title=f"Decisions on {part.rows:,} rows, threshold {threshold:.3g}",
            xticks=[0, 1],
            xticklabels=["not referred", "referred"],
            yticks=[0, 1],
            yticklabels=["no claim", "claim"],
        )
        axes.grid(visible=False)
        _frameless(axes)
        return _png(figure)


def tree(bundle: Bundle, *, number: int = 0, depth: int = 3) -> bytes:
    """One tree of the model down to some depth, with categories by their own names.

    Args:
        bundle: The model.
        number: Which tree, 0 for the first.
        depth: Levels of questions that are shown, 1 to 4; below them there is an ellipsis.
    """
    import json

    import xgboost as xgb

    booster = xgb.Booster()
    booster.load_model(bytearray(bundle.trees))
    booster.feature_names = list(bundle.inputs)
    root = json.loads(booster[number : number + 1].get_dump(dump_format="json")[0])
    leaves = list(_leaves(root))
    strongest = max(abs(leaf) for leaf in leaves) or 1.0
    with _figure(10.4, 1.25 + 1.05 * depth) as figure:
        colors = _colors(*_COOL_TO_WARM)
        axes = figure.subplots()
        width = 22 if depth <= 3 else 17

        def box(text: str, x: float, level: int, **look: Any) -> None:
            axes.text(
                x,
                -level,
                text,
                ha="center",
                va="center",
                fontsize=7.5 if depth <= 3 else 6,
                linespacing=1.35,
                bbox={"boxstyle": "round,pad=0.45", "linewidth": 0.9, **look},
                zorder=3,
            )

        def draw(node: Mapping[str, Any], x: float, level: int) -> None:
            if "leaf" in node:
                shade = 0.5 + 0.5 * node["leaf"] / strongest
                box(f"{node['leaf']:+.3f}", x, level, facecolor=colors(shade), edgecolor="none")
                return
            if level == depth:
                inside = list(_leaves(node))
                text = f"{len(inside)} leaves\n{min(inside):+.2f} … {max(inside):+.2f}"
                box(text, x, level, facecolor="white", edgecolor=PALE)
                return
            question = "\n".join(
                textwrap.wrap(_question(node, bundle), width, break_long_words=False)
            )
            box(question, x, level, facecolor="#eef4f9", edgecolor=BLUE)
            below = {child["nodeid"]: child for child in node["children"]}
            for answer, side in (("yes", -1), ("no", 1)):
                to = x + side / 2 ** (level + 2)
                with_missing = node["missing"] == node[answer]
                axes.plot(
                    [x, to],
                    [-level, -level - 1],
                    color=GREY if with_missing else PALE,
                    linewidth=2.4 if with_missing else 1.2,
                    zorder=1,
                )
                axes.text(
                    (x + to) / 2,
                    -level - 0.5,
                    answer,
                    ha="center",
                    va="center",
                    fontsize=7 if depth <= 3 else 6,
                    color=GREY,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                    zorder=2,
                )
                draw(below[node[answer]], to, level + 1)

        draw(root, 0.5, 0)
        axes.set(
            title=f"Tree {number + 1} of {booster.num_boosted_rounds()}: "
            "leaves add to the log-odds; a missing value takes the thick branch",
            xlim=(0, 1),
            ylim=(-depth - 0.45, 0.4),
        )
        axes.axis("off")
        return _png(figure)


def histograms(exploration: Exploration) -> bytes:
    """Every column of numbers, its positive rows in front of all."""
    return _grid(
        list(exploration.histograms),
        f"Distributions of {exploration.rows:,} rows; orange: those with a positive outcome",
        lambda axes, name: _draw_histogram(axes, exploration, name),
    )


def categories(exploration: Exploration, top: int = 8) -> bytes:
    """The most frequent values of every column of names, each with its share of positives."""
    share = exploration.positives / max(exploration.rows, 1)
    return _grid(
        list(exploration.counts),
        f"Share of positives by value, with 95 % intervals; grey: {share:.1%} of all "
        f"{exploration.rows:,} rows",
        lambda axes, name: _draw_shares(axes, exploration, name, top),
        height=1.5,
    )


def correlation(exploration: Exploration) -> bytes:
    """Pearson's r between columns of numbers and the outcome."""
    matrix = exploration.correlation
    names = list(matrix.columns)
    side = 2.2 + 0.29 * len(names)
    with _figure(side + 0.6, side) as figure:
        colors = _colors(BLUE, "#ffffff", ORANGE)
        axes = figure.subplots()
        values = matrix.to_numpy(dtype=np.float64)
        lower = np.where(np.tri(len(names), k=-1, dtype=bool), values, np.nan)
        image = axes.imshow(lower, cmap=colors, vmin=-1, vmax=1, aspect="auto")
        for (row, column), r in np.ndenumerate(lower):
            if abs(r) >= 0.095:
                axes.text(
                    column,
                    row,
                    f"{r:.1f}".replace("0.", ".").replace("-", "−"),
                    ha="center",
                    va="center",
                    fontsize=6.5,
                    color="white" if abs(r) > 0.6 else INK,
                )
        axes.set(
            title="Correlation (Pearson's r)",
            xticks=range(len(names) - 1),
            yticks=range(1, len(names)),
            xticklabels=names[:-1],
            yticklabels=names[1:],
            xlim=(-0.5, len(names) - 1.5),
            ylim=(len(names) - 0.5, 0.5),
        )
        axes.tick_params(axis="x", labelrotation=90, labelsize=8)
        axes.tick_params(axis="y", labelsize=8)
        axes.grid(visible=False)
        _frameless(axes)
        scale = figure.colorbar(image, ax=axes, shrink=0.5, aspect=25, ticks=[-1, 0, 1])
        scale.outline.set_visible(False)
        return _png(figure)


def missing_values(exploration: Exploration) -> bytes:
    """The columns with missing values, and what share of the rows lacks each."""
    found = {name: count for name, count in exploration.missing.items() if count}
    ordered = sorted(found.items(), key=lambda item: item[1])
    complete = len(exploration.missing) - len(found)
    with _figure(8.6, 1.1 + 0.26 * max(len(ordered), 2)) as figure:
        axes = figure.subplots()
        title = f"Missing values: {complete} of {len(exploration.missing)} columns are complete"
        if ordered:
            shares = [count / exploration.rows for _, count in ordered]
            bars = axes.barh([name for name, _ in ordered], shares, height=0.62, color=BLUE)
            axes.bar_label(bars, [f"{share:.1%}" for share in shares], padding=4, fontsize=8.5)
            axes.set(title=title, xlabel="Share of rows", xlim=(0, 1.08))
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
            axes.grid(axis="y", visible=False)
            _percent(axes, "x")
        else:
            axes.set_title(title)
            axes.text(0, 0.5, "Nothing is missing.", color=GREY, transform=axes.transAxes)
            axes.axis("off")
        return _png(figure)


@contextmanager
def _figure(width: float, height: float) -> Iterator[Any]:
    """A figure of that many inches in our style, which holds until it is drawn."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        # Figure without pyplot: no global state, and no display is looked for.
        yield Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _png(figure: Any) -> bytes:
    from PIL import Image  # comes with matplotlib, which writes its own PNG with it

    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    # 192 colours look the same here and take half the bytes.
    palette = Image.open(drawn).convert("RGB").quantize(192, dither=Image.Dither.NONE)
    palette.save(small, "png", optimize=True)
    return small.getvalue()


def _said(estimate: Estimate, digits: int = 3) -> str:
    """A figure with its interval, such as `0.963 (0.955 to 0.971)`."""
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "not defined"
    return f"{estimate.value:.{digits}f} ({estimate.low:.{digits}f} to {estimate.high:.{digits}f})"


def _percent(axes: Any, which: str) -> None:
    from matplotlib.ticker import PercentFormatter

    for axis in {"x": [axes.xaxis], "y": [axes.yaxis], "both": [axes.xaxis, axes.yaxis]}[which]:
        axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _frameless(axes: Any) -> None:
    for spine in axes.spines.values():
        spine.set_visible(False)


def _colors(*stops: str) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ours", stops)


def _root(values: np.ndarray) -> np.ndarray:
    roots: np.ndarray = np.sqrt(np.maximum(values, 0))
    return roots


def _draw_bins(axes: Any, bins: Sequence[Bin], color: str) -> None:
    for one in bins:
        axes.plot(
            [one.promised] * 2, [one.realised.low, one.realised.high], color=color, linewidth=1.2
        )
    promised, realised = [one.promised for one in bins], [one.realised.value for one in bins]
    axes.plot(promised, realised, "o-", color=color, markersize=5, linewidth=1)


def _swarm(x: np.ndarray) -> np.ndarray:
    """Heights, within 0.4 of 0, that spread points out where many share an x."""
    if len(x) == 0 or x.min() == x.max():
        return np.linspace(-0.38, 0.38, len(x))
    place = np.minimum(((x - x.min()) / (x.max() - x.min()) * 60).astype(int), 59)
    crowd = np.bincount(place, minlength=60)
    order = np.argsort(place, kind="stable")
    rank = np.empty(len(x), dtype=np.int64)
    rank[order] = np.arange(len(x)) - np.repeat(np.cumsum(crowd) - crowd, crowd)
    # 0, 1, -1, 2, -2, …: from the middle outwards.
    step = np.where(rank % 2 == 1, (rank + 1) // 2, -(rank // 2))
    widest = max(int(crowd.max()), 2)
    heights: np.ndarray = 0.76 * step / widest
    return heights


def _leaves(node: Mapping[str, Any]) -> Iterator[float]:
    if "leaf" in node:
        yield float(node["leaf"])
    for child in node.get("children", ()):
        yield from _leaves(child)


def _question(node: Mapping[str, Any], bundle: Bundle) -> str:
    """What a node asks; XGBoost's yes means below the bound, or among the categories."""
    name, condition = node["split"], node["split_condition"]
    if not isinstance(condition, list):
        return f"{name} < {condition:.4g}" if abs(condition) < 1e4 else f"{name} < {condition:,.0f}"
    known = bundle.vocabulary[name]
    values = [str(known[code]) for code in condition]
    if len(values) == 1:
        return f"{name} is {values[0]}"
    more = f" and {len(values) - 6} more" if len(values) > 7 else ""
    return f"{name} in {', '.join(values[:6] if more else values)}{more}"


def _grid(
    names: Sequence[str], title: str, draw: Callable[[Any, str], None], height: float = 1.35
) -> bytes:
    """Small plots of many columns, five in a row, under one title."""
    across = 5
    down = max(1, -(-len(names) // across))
    with _figure(10.4, 0.5 + height * down) as figure:
        all_axes = figure.subplots(down, across, squeeze=False).ravel()
        for axes, name in zip(all_axes, names, strict=False):
            draw(axes, name)
            axes.set_title(name, fontsize=8, pad=4)
            axes.tick_params(labelsize=7)
        for axes in all_axes[len(names) :]:
            axes.axis("off")
        figure.suptitle(title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        return _png(figure)


def _draw_histogram(axes: Any, exploration: Exploration, name: str) -> None:
    found = exploration.histograms[name]
    axes.stairs(found.rows, found.edges, fill=True, color=PALE)
    axes.stairs(found.positives, found.edges, fill=True, color=ORANGE, alpha=0.85)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(visible=False)
    axes.locator_params(axis="x", nbins=3)


def _draw_shares(axes: Any, exploration: Exploration, name: str, top: int) -> None:
    counts = exploration.counts[name]
    shown = sorted(counts[:top], key=lambda one: one.value)
    for place, one in enumerate(shown):
        low, high = wilson(one.positives, one.rows)
        axes.plot([place, place], [low, high], color=BLUE, linewidth=1.2)
    shares = [one.positives / one.rows for one in shown]
    axes.plot(range(len(shown)), shares, "o", color=BLUE, markersize=3.5)
    overall = exploration.positives / exploration.rows
    axes.axhline(overall, color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0)
    axes.set_xticks(range(len(shown)), [one.value for one in shown])
    tops = [wilson(one.positives, one.rows)[1] for one in shown]
    axes.set(ylim=(0, 1.15 * max([overall, *tops])), xlim=(-0.6, len(shown) - 0.4))
    axes.grid(axis="x", visible=False)
    axes.locator_params(axis="y", nbins=3)
    _percent(axes, "y")
    if len(counts) > top:
        axes.set_xlabel(f"{top} of {len(counts)}", fontsize=7, color=GREY)
