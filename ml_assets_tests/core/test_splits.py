"""Splits are by time, and the newest days are the holdout."""

import pytest

from ml_assets.core.splits import TooFewDays, split_by_day

DAYS = [f"2026-01-{day:02}" for day in range(1, 11)]


def test_every_day_of_a_part_precedes_every_day_of_the_next() -> None:
    split = split_by_day(DAYS[::-1], validation_days=2, holdout_days=3)

    assert split.train == tuple(DAYS[:5])
    assert split.validation == tuple(DAYS[5:7])
    assert split.holdout == tuple(DAYS[7:])


def test_too_few_days_are_refused_with_the_number_needed() -> None:
    with pytest.raises(TooFewDays, match=r"at least 6 matured days.*there are 5"):
        split_by_day(DAYS[:5], validation_days=2, holdout_days=3)
