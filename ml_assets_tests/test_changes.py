"""Which days changed: the source against what was extracted."""

from datetime import UTC, datetime

import pytest

from ml_assets.changes import (
    changed_days,
    extracted_fingerprints,
    recent,
    source_days,
)
from ml_assets.resources.warehouse import WarehouseError
from ml_assets_tests.conftest import SMALL, Platform

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
SEEN = {"2026-01-05": "10 rows, a", "2026-01-06": "12 rows, b"}


def test_nothing_changed_when_the_source_is_as_it_was_extracted() -> None:
    assert changed_days(SEEN, SEEN) == {}


def test_a_day_with_another_fingerprint_changed() -> None:
    now = "10 rows, c"

    assert changed_days({**SEEN, "2026-01-05": now}, SEEN) == {"2026-01-05": now}


def test_a_day_never_extracted_changed() -> None:
    new = "1 rows, d"

    assert changed_days({**SEEN, "2026-01-07": new}, SEEN) == {"2026-01-07": new}


def test_a_day_whose_rows_are_gone_changed_and_an_empty_one_did_not() -> None:
    extracted = {**SEEN, "2026-01-07": ""}
    left = {"2026-01-06": SEEN["2026-01-06"]}

    assert changed_days(left, extracted) == {"2026-01-05": ""}


def test_what_was_extracted_has_the_fingerprint_of_the_source(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-07")
    platform.run("ingestion", "2026-01-05", "2026-01-06")

    source = source_days(SMALL, platform.environment, platform.source, NOW).days
    extracted = extracted_fingerprints(SMALL, platform.lake, platform.environment, NOW)

    assert list(changed_days(source, extracted)) == ["2026-01-07"]


def test_outcomes_that_arrive_later_change_exactly_their_days(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-07")
    platform.run("ingestion", "2026-01-05", "2026-01-07")

    arrived = platform.arrive("2026-01-08", "2026-01-08")

    source = source_days(SMALL, platform.environment, platform.source, NOW).days
    extracted = extracted_fingerprints(SMALL, platform.lake, platform.environment, NOW)
    assert list(changed_days(source, extracted)) == arrived
    assert {"2026-01-07", "2026-01-08"} <= set(arrived)


def test_a_source_that_cannot_be_read_is_not_an_empty_one(platform: Platform) -> None:
    with pytest.raises(WarehouseError):
        source_days(SMALL, platform.environment, platform.source, NOW)


def test_recent_counts_local_days(platform: Platform) -> None:
    midsummer = datetime(2026, 7, 15, 23, 30, tzinfo=UTC)  # 00:30 on the 16th in London

    assert recent("2026-07-02", platform.environment, midsummer)
    assert not recent("2026-07-01", platform.environment, midsummer)
