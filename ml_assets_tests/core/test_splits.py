"""Splits are by time, and the newest days are the holdout."""

from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.splits import OneClass, TooFewDays, require_both_classes, split_by_day

DAYS = [f"2026-01-{day:02}" for day in range(1, 13)]


def test_every_day_of_a_part_precedes_every_day_of_the_next() -> None:
    split = split_by_day(DAYS[::-1], validation_days=2, calibration_days=1, holdout_days=3)

    assert split.train == tuple(DAYS[:6])
    assert split.validation == tuple(DAYS[6:8])
    assert split.calibration == tuple(DAYS[8:9])
    assert split.holdout == tuple(DAYS[9:])


@pytest.mark.parametrize("seed", range(20))
def test_no_order_of_rows_and_no_gap_in_the_days_mixes_the_parts(seed: int) -> None:
    """The notebook split at random; whatever is put in here, later parts are later days."""
    generator = np.random.Generator(np.random.PCG64(seed))
    days = generator.permutation([f"2026-{m:02}-{d:02}" for m in (1, 2, 3) for d in range(1, 28)])
    sizes = generator.integers(1, 6, 3)

    split = split_by_day(
        list(days[:40]) * 2,
        validation_days=int(sizes[0]),
        calibration_days=int(sizes[1]),
        holdout_days=int(sizes[2]),
    )

    parts = list(asdict(split).values())
    assert [len(part) for part in parts[1:]] == sizes.tolist()
    assert sorted(day for part in parts for day in part) == sorted(days[:40])
    for earlier, later in pairwise(parts):
        assert max(earlier) < min(later)


def test_the_rows_of_a_part_are_those_of_its_days_in_the_order_given() -> None:
    split = split_by_day(DAYS, validation_days=2, calibration_days=1, holdout_days=3)
    frame = pd.DataFrame({"day": [DAYS[8], DAYS[0], DAYS[11], DAYS[8]], "row": range(4)})

    assert split.rows(frame, "calibration")["row"].tolist() == [0, 3]
    assert split.rows(frame, "holdout")["row"].tolist() == [2]
    assert split.rows(frame, "validation").empty
    assert split.rows(frame, "train")["row"].tolist() == [1]


def test_one_day_more_than_the_later_parts_need_is_enough_to_train() -> None:
    split = split_by_day(DAYS[:7], validation_days=2, calibration_days=1, holdout_days=3)

    assert split.train == (DAYS[0],)


def test_too_few_days_are_refused_with_the_number_needed() -> None:
    with pytest.raises(TooFewDays, match=r"at least 7 matured days.*1 to calibrate.*there are 6"):
        split_by_day(DAYS[:6], validation_days=2, calibration_days=1, holdout_days=3)


@pytest.mark.parametrize(
    ("outcome", "told"), [([1, 1, 1], "the 3 holdout rows .* (1)"), ([], "the 0 .* (none)")]
)
def test_one_outcome_only_is_refused_with_the_part_and_the_remedy(
    outcome: list[int], told: str
) -> None:
    told = told.replace("(", r"\(").replace(")", r"\)")

    with pytest.raises(OneClass, match=rf"{told}: both are needed.*more days"):
        require_both_classes("holdout", pd.Series(outcome, dtype="Int8"))


def test_both_outcomes_are_enough() -> None:
    require_both_classes("holdout", pd.Series([0, 0, 1]))
