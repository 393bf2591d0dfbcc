"""Splits by time: a model is judged on days that came after all it has learned from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Part = Literal["train", "validation", "calibration", "holdout"]


class TooFewDays(ValueError):
    """There are not enough matured days to train and judge a model."""


class OneClass(ValueError):
    """A part of the split holds only one outcome, so nothing can be learned or judged on it."""


@dataclass(frozen=True)
class TimeSplit:
    """Days of each part, oldest first; every day of a part precedes every day of the next."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    calibration: tuple[str, ...]
    holdout: tuple[str, ...]

    def rows(self, frame: pd.DataFrame, part: Part) -> pd.DataFrame:
        """The rows of `frame` (with a `day` column) that belong to one part."""
        return frame[frame["day"].isin(getattr(self, part))]


def split_by_day(
    days: Sequence[str], *, validation_days: int, calibration_days: int, holdout_days: int
) -> TimeSplit:
    """Split days by time: train, then validation, then calibration, and the newest as holdout.

    Args:
        days: Matured days that have rows, in any order.
        validation_days: Number of days that stop the fit.
        calibration_days: Number of days that choose the calibration and the decision threshold.
        holdout_days: Number of days that only the evaluation sees.

    Raises:
        TooFewDays: No day would be left to train on.
    """
    ordered = sorted(set(days))
    needed = validation_days + calibration_days + holdout_days + 1
    if len(ordered) < needed:
        raise TooFewDays(
            f"training needs rows of at least {needed} matured days (1 to train, "
            f"{validation_days} to validate, {calibration_days} to calibrate, {holdout_days} as "
            f"holdout), and there are {len(ordered)}. Materialise features for more days, or wait "
            "for outcomes to mature."
        )
    first_holdout = len(ordered) - holdout_days
    first_calibration = first_holdout - calibration_days
    first_validation = first_calibration - validation_days
    return TimeSplit(
        train=tuple(ordered[:first_validation]),
        validation=tuple(ordered[first_validation:first_calibration]),
        calibration=tuple(ordered[first_calibration:first_holdout]),
        holdout=tuple(ordered[first_holdout:]),
    )


def require_both_classes(part: str, outcome: pd.Series) -> None:
    """Refuse a part of the split on which nothing can be learned or judged.

    Raises:
        OneClass: It holds only one outcome, or no row.
    """
    if outcome.nunique() < 2:
        raise OneClass(
            f"the {len(outcome)} {part} rows hold only one outcome "
            f"({outcome.iloc[0] if len(outcome) else 'none'}): both are needed. Give that part "
            "more days, by the configuration (training) or by more days of features."
        )
