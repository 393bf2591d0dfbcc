import math

import pytest

from ml_assets.core.evaluation import Estimate
from ml_assets.report import svg, words


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1561, "15.6 %"),
        (0.0, "0.0 %"),
        (1.0, "100.0 %"),
        (0.0001, "< 0.1 %"),
        (0.99999, "> 99.9 %"),
        (None, "not defined"),
        (math.nan, "not defined"),
    ],
)
def test_percent_never_rounds_to_certainty(value: float | None, text: str) -> None:
    assert words.percent(value).replace("\u00a0", " ") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(-0.0214, "\u22120.021"), (-0.0001, "0.000"), (1234.5, "1,234.500"), (math.inf, "unbounded")],
)
def test_numbers_have_separators_and_a_true_minus(value: float, text: str) -> None:
    assert words.number(value) == text


def test_intervals() -> None:
    assert words.interval(Estimate(value=0.9, low=0.88, high=0.92)) == "0.880 to 0.920"
    assert words.interval(Estimate(value=0.9, low=None, high=None)) == "interval not defined"
    assert words.interval(Estimate(value=None, low=None, high=None)) == ""


def test_baselines_are_those_of_a_constant_probability() -> None:
    found = words.baselines(0.16)
    assert found["log_loss"] == pytest.approx(0.4397, abs=1e-4)
    assert found["brier"] == pytest.approx(0.1344)
    assert "log_loss" not in words.baselines(0.0)


@pytest.mark.parametrize("values", [[], [0.0], [3.0, 3.0], [None, -0.3, 1.2], [1e-6, 2e-6], [4e7]])
def test_scales_hold_their_values_with_few_round_ticks(values: list[float | None]) -> None:
    scale = svg.scale_of(values)
    assert 2 <= len(scale.ticks) <= 8
    assert scale.low < scale.high
    assert all(scale.low <= value <= scale.high for value in values if value is not None)


def test_fixed_ends_of_a_scale_are_kept() -> None:
    scale = svg.scale_of([0.2, 0.7], low=0, high=1)
    assert (scale.low, scale.high) == (0, 1)
    assert scale.ticks[0] == 0
    assert scale.ticks[-1] == 1
