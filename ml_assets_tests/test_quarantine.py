"""Quarantine through the command line: what is there, and judging it again, once."""

from dataclasses import replace
from typing import Any

import pandas as pd
import pandera.pandas as pa
import pytest
from pandera.typing import Series

from ml_assets.changes import (
    TORN,
    changed_days,
    extracted_fingerprints,
    rows_told,
    source_days,
)
from ml_assets.quarantine import Replayed, days_to_replay, replay, rows_aside, summary
from ml_assets.resources.lake import Lake, LakeError, Written
from ml_assets.runs import RunFailed
from ml_assets.use_cases.claims.schema import ClaimsFeatures, ClaimsRaw
from ml_assets_tests.conftest import Platform

MONDAY, TUESDAY = "2026-01-05", "2026-01-06"
NOW = pd.Timestamp("2026-01-20 12:00", tz="UTC")


class YoungFeatures(ClaimsFeatures):
    age: Series[int] = pa.Field(ge=5, le=95)


class YoungRaw(ClaimsRaw):
    age: Series[int] = pa.Field(ge=5, le=95)


@pytest.fixture
def too_young(platform: Platform) -> Platform:
    """A platform with three rows of Tuesday in quarantine for an age of seven."""
    platform.arrive(MONDAY, TUESDAY)
    platform.replace_day(
        TUESDAY, lambda rows: rows.assign(age=rows["age"].where(rows.index > 2, 7))
    )
    platform.run("ingestion", MONDAY, TUESDAY)
    return platform


def mended(platform: Platform) -> Platform:
    """The platform under a contract that lets children apply."""
    use_case = replace(platform.use_case, raw=YoungRaw, features=YoungFeatures)
    return Platform(platform.environment, platform.instance, use_case)


def source(platform: Platform) -> dict[str, str]:
    return source_days(platform.use_case, platform.environment, platform.source, NOW).days


def extracted(platform: Platform) -> dict[str, str]:
    return extracted_fingerprints(platform.use_case, platform.lake, platform.environment, NOW)


def changed(platform: Platform) -> dict[str, str]:
    return changed_days(source(platform), extracted(platform))


def replayed(platform: Platform, *days: str) -> list[Replayed]:
    return replay(
        platform.definitions,
        platform.instance,
        platform.environment,
        platform.use_case,
        platform.lake,
        days,
        changed=changed(platform),
        now=NOW,
        on_day=lambda day: None,
    )


def young(platform: Platform, stage: str) -> int:
    return int((platform.table(stage, TUESDAY)["age"] == 7).sum())


def test_the_summary_counts_rows_by_day_and_reason(too_young: Platform) -> None:
    counted = summary(rows_aside(too_young.lake, too_young.use_case, TUESDAY))

    ages = counted[counted["column"] == "age"].iloc[0]
    assert (ages["day"], ages["reason"], ages["rows"]) == (TUESDAY, "out_of_range", 3)
    assert counted["rows"].sum() == len(too_young.table("quarantine", TUESDAY))


def test_a_day_without_quarantine_is_named(too_young: Platform) -> None:
    with pytest.raises(ValueError, match=r"no row of 2026-01-09 is in quarantine"):
        rows_aside(too_young.lake, too_young.use_case, "2026-01-09")


def test_rows_pass_once_after_the_contract_was_mended(too_young: Platform) -> None:
    before = too_young.table("extraction", TUESDAY).iloc[0]
    aside = len(too_young.table("quarantine", TUESDAY))
    raw = too_young.table("raw", TUESDAY)
    platform = mended(too_young)
    # The rows come from the quarantine: the source need not be there any more.
    (platform.environment.home / "warehouse.duckdb").rename(platform.environment.home / "away")

    (first,) = replay_stored(platform)
    versions = {stage: platform.table(stage, TUESDAY).attrs for stage in ("raw", "features")}
    (second,) = replay_stored(platform)

    assert (first.before, first.after, first.problem) == (aside, aside - 3, "")
    assert (second.before, second.after) == (aside - 3, aside - 3)
    assert young(platform, "raw") == young(platform, "features") == 3
    assert versions == {
        stage: platform.table(stage, TUESDAY).attrs for stage in ("raw", "features")
    }
    after = platform.table("extraction", TUESDAY).iloc[0]
    assert after["rows_read"] == before["rows_read"]
    assert after["duplicates_dropped"] == before["duplicates_dropped"]
    assert after["rows_kept"] == before["rows_kept"] + 3
    assert after["fingerprint"] == before["fingerprint"]
    kept = platform.table("raw", TUESDAY)
    pd.testing.assert_frame_equal(
        kept[kept["application_id"].isin(raw["application_id"])].reset_index(drop=True), raw
    )


def replay_stored(platform: Platform) -> list[Replayed]:
    return replay(
        platform.definitions,
        platform.instance,
        platform.environment,
        platform.use_case,
        platform.lake,
        [TUESDAY],
        changed=[],
        now=NOW,
        on_day=lambda day: None,
    )


@pytest.mark.parametrize("stage", ["quarantine", "extraction", "features"])
def test_a_replay_that_dies_between_its_tables_is_ended_by_the_next(
    too_young: Platform, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = mended(too_young)
    write = Lake.write

    def dying(self: Lake, table: str, *arguments: Any, **more: Any) -> Written:
        if table == f"claims/{stage}":
            raise LakeError("the disk is full")
        return write(self, table, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "write", dying)
        (died,) = replayed(platform, TUESDAY)
        assert "the disk is full" in died.problem
    torn = stage != "features"
    assert (extracted(platform)[TUESDAY] == TORN) is torn
    if torn:  # the sensor asks for such a day; the stored rows alone cannot tell what it was
        assert list(changed(platform)) == [TUESDAY]
        assert "died between its tables" in replay_stored(platform)[0].problem

    days = days_to_replay(
        platform.instance, platform.environment, platform.use_case, platform.lake, None, NOW
    )
    replayed(platform, *days)

    assert TUESDAY in days
    account = platform.table("extraction", TUESDAY).iloc[0]
    assert young(platform, "features") == 3
    assert account["rows_read"] == rows_told(source(platform)[TUESDAY])
    assert account["duplicates_dropped"] == 0
    assert changed(platform) == {}


def test_what_a_replay_gives_is_what_reading_the_source_gives(too_young: Platform) -> None:
    platform = mended(too_young)
    replayed(platform, TUESDAY)
    stages = ("raw", "features", "extraction")
    by_replay = {stage: platform.table(stage, TUESDAY) for stage in stages}

    platform.run("ingestion", TUESDAY)

    for stage in stages:
        again = platform.table(stage, TUESDAY)
        pd.testing.assert_frame_equal(again, by_replay[stage])
        assert again.attrs == by_replay[stage].attrs, "nothing was left to write"


def test_nothing_moves_while_contract_and_source_are_as_they_were(too_young: Platform) -> None:
    before = too_young.table("quarantine", TUESDAY)

    (told,) = replayed(too_young, TUESDAY)

    assert told.before == told.after == len(before)
    pd.testing.assert_frame_equal(too_young.table("quarantine", TUESDAY), before)


def test_a_day_whose_source_was_mended_is_read_again(too_young: Platform) -> None:
    too_young.replace_day(
        TUESDAY,
        lambda rows: rows.assign(
            age=rows["age"].where(rows["age"] != 7, 30),
            updated_at=rows["updated_at"].where(
                rows["age"] != 7, rows["updated_at"] + pd.Timedelta("1s")
            ),
        ),
    )

    (told,) = replayed(too_young, TUESDAY)

    assert told.read_again
    assert told.before - told.after == 3
    assert young(too_young, "raw") == 0


def test_a_day_over_the_limit_is_released_by_a_replay_under_the_mended_contract(
    platform: Platform,
) -> None:
    platform.arrive(MONDAY, MONDAY)
    platform.replace_day(MONDAY, lambda rows: rows.assign(age=7))
    with pytest.raises(RunFailed, match=r"100\.0% of the rows"):
        platform.run("ingestion", MONDAY)
    (still,) = replayed(platform, MONDAY)
    assert "of the rows break the contract" in still.problem

    (told,) = replayed(mended(platform), MONDAY)

    assert told.problem == ""
    assert len(platform.table("features", MONDAY)) == told.before - told.after > 100


def test_a_day_that_was_never_extracted_cannot_be_judged_again(too_young: Platform) -> None:
    config = {"ops": {"claims_extraction": {"config": {"replay": True}}}}

    with pytest.raises(RunFailed, match=r"2026-01-07 was never extracted"):
        too_young.run("ingestion", "2026-01-07", config=config)
