"""Splits by time: a model is judged on days that came after all it has learned from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Part = Literal["train", "validation", "holdout"]


class TooFewDays(ValueError):
    """There are not enough matured days to train and judge a model."""


@dataclass(frozen=True)
class TimeSplit:
    """Days of each part, oldest first; every day of a part precedes every day of the next."""

    train: tuple[str, ...]
    validation: tuple[str, ...]
    holdout: tuple[str, ...]

    def rows(self, frame: pd.DataFrame, part: Part) -> pd.DataFrame:
        """The rows of `frame` (with a `day` column) that belong to one part."""
        return frame[frame["day"].isin(getattr(self, part))]


def split_by_day(days: Sequence[str], *, validation_days: int, holdout_days: int) -> TimeSplit:
    """Split days by time: the newest are the holdout, those before them the validation.

    Args:
        days: Matured days that have rows, in any order.
        validation_days: Number of days that stop the fit.
        holdout_days: Number of days that only the evaluation sees.

    Raises:
        TooFewDays: No day would be left to train on.
    """
    ordered = sorted(set(days))
    needed = validation_days + holdout_days + 1
    if len(ordered) < needed:
        raise TooFewDays(
            f"training needs rows of at least {needed} matured days (1 to train, "
            f"{validation_days} to validate, {holdout_days} as holdout), and there are "
            f"{len(ordered)}. Materialise features for more days, or wait for outcomes to mature."
        )
    first_holdout = len(ordered) - holdout_days
    first_validation = first_holdout - validation_days
    return TimeSplit(
        train=tuple(ordered[:first_validation]),
        validation=tuple(ordered[first_validation:first_holdout]),
        holdout=tuple(ordered[first_holdout:]),
    )
