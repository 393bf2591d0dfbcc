"""Plots: each is a picture of modest size, drawn from what it is given, also where that is thin."""

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.assets import plots
from ml_assets.core.bundle import Bundle, calibrated, contributions, encode, margins
from ml_assets.core.calibration import Choice
from ml_assets.core.evaluation import (
    Bin,
    Estimate,
    Evaluation,
    Importance,
    Scored,
    evaluate,
)
from ml_assets.core.exploration import Exploration, explore
from ml_assets.core.threshold import Costs, choose_threshold

INPUTS, CATEGORICAL = ["amount", "noise", "kind"], ["kind"]
NOTHING = Estimate(value=None, low=None, high=None)


def rows() -> pd.DataFrame:
    generator = np.random.Generator(np.random.PCG64(7))
    frame = pd.DataFrame(
        {
            "amount": generator.normal(size=1_200),
            "noise": np.where(generator.random(1_200) < 0.1, np.nan, generator.normal(size=1_200)),
            "kind": generator.choice([f"kind {letter}" for letter in "abcdefghij"], 1_200),
        }
    )
    odds = 2 * frame["amount"] + 2 * frame["kind"].isin(["kind b", "kind e"]) - 2
    frame["outcome"] = (generator.random(1_200) < 1 / (1 + np.exp(-odds))).astype("int8")
    return frame


def trees(frame: pd.DataFrame, depth: int = 4, rounds: int = 8) -> Bundle:
    import xgboost as xgb

    vocabulary = {"kind": tuple(sorted(frame["kind"].unique()))}
    matrix = xgb.DMatrix(
        encode(frame, INPUTS, vocabulary),
        label=frame["outcome"],
        feature_names=INPUTS,
        feature_types=["q", "q", "c"],
        enable_categorical=True,
    )
    settings = {"objective": "binary:logistic", "max_depth": depth, "eta": 0.3, "nthread": 1}
    booster = xgb.train(settings, matrix, rounds)
    return Bundle(bytes(booster.save_raw("ubj")), tuple(INPUTS), vocabulary)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return trees(rows())


@pytest.fixture(scope="module")
def evaluation(bundle: Bundle) -> Evaluation:
    frame = rows()
    margin = margins(bundle, frame)
    outcome = frame["outcome"].to_numpy(dtype=np.int8)
    calibration = {"method": "platt", "slope": 0.8, "intercept": 0.1}
    probability = calibrated(margin, calibration)
    costs = Costs(9, 1)
    part = Scored(frame, margin, probability, outcome)
    return evaluate(
        {"train": part, "holdout": part},
        calibration=Choice(calibration, {"none": 0.3, "platt": 0.29}),
        threshold=choose_threshold(probability, outcome, costs),
        costs=costs,
        importance=[
            Importance(feature=name, gain=1 + place, contribution=0.3 / (1 + place))
            for place, name in enumerate(INPUTS)
        ],
        slices={},
        resamples=20,
        seed=0,
    )


@pytest.fixture(scope="module")
def exploration() -> Exploration:
    return explore(rows(), inputs=INPUTS, categorical=CATEGORICAL, target="outcome")


def pixels(image: bytes) -> np.ndarray:
    """The picture's colours; fails if it is no picture, or empty, or too large for metadata."""
    from PIL import Image

    assert image.startswith(b"\x89PNG")
    assert len(image) < 60_000
    found = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    assert found.std() > 5, "an empty picture"
    return found


def has(color: str, image: bytes) -> bool:
    wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
    return bool((np.abs(pixels(image).astype(int) - wanted).max(axis=2) <= 6).sum() >= 10)


def test_a_model_has_a_plot_of_everything_in_its_evaluation(
    bundle: Bundle, evaluation: Evaluation
) -> None:
    frame = rows()

    found = plots.model_plots(bundle, evaluation, frame, contributions(bundle, frame))

    assert list(found) == [
        "roc_and_precision_recall",
        "reliability",
        "cost_curve",
        "confusion_matrix",
        "lift",
        "importance",
        "shap_summary",
        "first_tree",
    ]
    for image in found.values():
        pixels(image)
    assert len(set(found.values())) == len(found)


def test_a_training_set_has_a_plot_of_everything_in_its_exploration(
    exploration: Exploration,
) -> None:
    found = plots.exploration_plots(exploration)

    assert list(found) == ["histograms", "categories", "correlation", "missing"]
    for image in found.values():
        pixels(image)


def test_the_same_content_gives_the_same_bytes_and_other_content_others(
    evaluation: Evaluation,
) -> None:
    reversed_lift = tuple(
        one.model_copy(update={"decile": 11 - one.decile}) for one in evaluation.lift
    )

    assert plots.lift(evaluation.lift) == plots.lift(evaluation.lift)
    assert plots.lift(evaluation.lift) != plots.lift(reversed_lift)


def test_drawing_leaves_matplotlibs_own_style_alone(evaluation: Evaluation) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)

    plots.lift(evaluation.lift)

    assert dict(mpl.rcParams) == before


def test_images_become_metadata(evaluation: Evaluation) -> None:
    image = plots.confusion_matrix(evaluation.parts["holdout"], 0.1)

    found = plots.as_markdown(image, image).value

    assert found is not None
    assert found.count("![plot](data:image/png;base64,iVBORw0KGgo") == 2


def test_undefined_figures_are_drawn_as_such(evaluation: Evaluation) -> None:
    part = evaluation.parts["holdout"]
    undefined = part.model_copy(update={"metrics": dict.fromkeys(part.metrics, NOTHING)})
    holdout = {"train": undefined, "holdout": undefined}
    one_bin = (Bin(rows=9, promised=0.0, realised=Estimate(value=0.0, low=0.0, high=0.3)),)
    report = evaluation.calibration.model_copy(
        update={
            "before": dict.fromkeys(evaluation.calibration.before, NOTHING),
            "after": dict.fromkeys(evaluation.calibration.after, NOTHING),
            "reliability_before": one_bin,
            "reliability_after": one_bin,
        }
    )
    lift = [one.model_copy(update={"lift": NOTHING}) for one in evaluation.lift]

    pixels(plots.roc_and_precision_recall(evaluation.model_copy(update={"parts": holdout})))
    pixels(plots.reliability(report))
    pixels(plots.lift(lift))
    pixels(plots.confusion_matrix(part.model_copy(update={"confusion": (0, 0, 0, 0)}), 0.5))
    pixels(plots.importance([]))


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_tree_is_drawn_to_a_depth(bundle: Bundle, depth: int) -> None:
    pixels(plots.tree(bundle, number=3, depth=depth))


def test_a_tree_of_one_leaf_is_drawn() -> None:
    frame = rows()
    frame["amount"] = frame["noise"] = 0.0
    frame["kind"] = "kind a"

    pixels(plots.tree(trees(frame, rounds=1)))


def test_categories_in_a_tree_go_by_their_names(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.axes import Axes

    said: list[str] = []
    original = Axes.text

    def text(self: Any, x: float, y: float, s: str, *args: Any, **look: Any) -> Any:
        said.append(s)
        return original(self, x, y, s, *args, **look)

    monkeypatch.setattr(Axes, "text", text)
    for number in range(4):
        plots.tree(bundle, number=number, depth=4)
    questions = " ".join(said).replace("\n", " ")

    assert "kind in kind " in questions or "kind is kind " in questions
    assert "amount < " in questions


def test_what_a_tree_says_is_where_its_rows_go(bundle: Bundle) -> None:
    """XGBoost's `yes` means below the bound, or among the categories: the plot relies on it."""
    import json

    import xgboost as xgb

    frame = rows()
    codes = encode(frame, INPUTS, bundle.vocabulary)
    booster = xgb.Booster()
    booster.load_model(bytearray(bundle.trees))
    matrix = xgb.DMatrix(
        codes,
        feature_names=INPUTS,
        feature_types=["q", "q", "c"],
        enable_categorical=True,
    )
    arrived = booster.predict(matrix, pred_leaf=True)[:, 0]
    root = json.loads(booster[:1].get_dump(dump_format="json")[0])

    for row in range(300):
        node = root
        while "leaf" not in node:
            value, condition = codes[row, INPUTS.index(node["split"])], node["split_condition"]
            if np.isnan(value):
                answer = "missing"
            elif isinstance(condition, list):
                answer = "yes" if int(value) in condition else "no"
            else:
                answer = "yes" if value < condition else "no"
            node = next(one for one in node["children"] if one["nodeid"] == node[answer])
        assert node["nodeid"] == arrived[row]


def test_high_values_are_orange_low_ones_blue_and_categories_grey() -> None:
    effects = np.linspace(-1, 1, 400)[:, np.newaxis]
    values = np.repeat([0.0, 1.0], 200)[:, np.newaxis]

    ordered = plots.shap_summary(effects, values, ["amount"])
    grey = plots.shap_summary(effects, values, ["amount"], categorical=["amount"])
    missing = plots.shap_summary(effects, np.full((400, 1), np.nan), ["amount"])

    def left_of_scale(image: bytes, color: str) -> int:
        wanted = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)])
        found = pixels(image)[:, :600].astype(int)
        return int((np.abs(found - wanted).max(axis=2) <= 8).sum())

    assert left_of_scale(ordered, plots.BLUE) > 100
    assert left_of_scale(ordered, plots.ORANGE) > 100
    for image in (grey, missing):
        assert left_of_scale(image, plots.BLUE) == left_of_scale(image, plots.ORANGE) == 0


def test_nothing_missing_is_said(exploration: Exploration) -> None:
    complete = replace(exploration, missing=dict.fromkeys(exploration.missing, 0))

    assert not has(plots.BLUE, plots.missing_values(complete))
    assert has(plots.BLUE, plots.missing_values(exploration))


def test_the_chosen_threshold_stands_out(evaluation: Evaluation) -> None:
    assert has(plots.ORANGE, plots.cost_curve(evaluation.costs))
