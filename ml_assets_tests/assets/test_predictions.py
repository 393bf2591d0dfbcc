"""Predictions, through real runs: what was said, with what, and that it stands."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.core.bundle import MODEL_FILE
from ml_assets.runs import RunFailed
from ml_assets.schedules import keep_unchanged
from ml_assets.use_case import columns
from ml_assets_tests.conftest import SMALL, Platform

FIRST, LAST = "2026-01-14", "2026-01-16"


@pytest.fixture
def scored(trained: Platform) -> Platform:
    trained.run("scoring", FIRST, LAST)
    return trained


def bundle_folders(platform: Platform) -> list[Path]:
    return [file.parent for file in Path(platform.registry.artifacts).rglob(MODEL_FILE)]


def test_every_application_is_scored_and_names_its_versions(scored: Platform) -> None:
    predictions = scored.table("predictions", FIRST, LAST)

    features = scored.table("features", FIRST, LAST)
    champion = scored.table("champion", LAST).iloc[0]
    assert predictions["application_id"].tolist() == features["application_id"].tolist()
    assert predictions["model_version"].unique().tolist() == [champion["version"]]
    assert predictions["data_version"].nunique() == len(predictions)
    assert predictions["code_version"].str.len().unique().tolist() == [12]
    assert predictions["probability"].between(0, 1).all()
    assert predictions["probability"].nunique() > 50


def test_the_metadata_tells_the_expected_number_of_claims(scored: Platform) -> None:
    metadata = scored.metadata("predictions", LAST)

    expected = scored.table("predictions", LAST)["probability"].sum()
    assert metadata["expected_positives"] == pytest.approx(expected, abs=0.06)
    assert metadata["rows_with_unseen_category"] == {}


def test_scoring_the_same_day_twice_leaves_the_table_as_it_was(scored: Platform) -> None:
    before = scored.table("predictions", FIRST, LAST)

    scored.run("scoring", FIRST, LAST)
    scored.run("scoring", LAST, only="predictions")

    after = scored.table("predictions", FIRST, LAST)
    pd.testing.assert_frame_equal(after, before)
    assert after.attrs == before.attrs


def test_a_new_champion_scores_by_hand_and_lets_stand_by_schedule(scored: Platform) -> None:
    before = scored.table("predictions", LAST)
    champion = scored.table("champion", LAST)
    newer = champion.assign(day="2026-01-17", version=champion["version"] + 1)
    scored.lake.write("claims/champion", newer, "2026-01-17", "2026-01-17")
    try:
        scored.run("scoring", LAST, config=keep_unchanged(SMALL))
        stands = scored.table("predictions", LAST)
        scored.run("scoring", LAST)
        again = scored.table("predictions", LAST)
    finally:
        scored.lake.write("claims/champion", newer.head(0), "2026-01-17", "2026-01-17")

    pd.testing.assert_frame_equal(stands, before)
    assert again["model_version"].unique().tolist() == [before["model_version"][0] + 1]


def test_an_unseen_category_is_counted_and_the_row_still_scored(scored: Platform) -> None:
    before = scored.table("features", LAST)
    vocabulary = scored.registry.load(
        "claims", *scored.table("champion", LAST)[["version", "sha256"]].iloc[0]
    ).vocabulary
    # No contract lets a new letter in; a bundle trained on fewer letters meets the same.
    assert "location" in vocabulary
    changed = before.assign(location=["?"] * len(before))
    scored.lake.write("claims/features", changed, LAST, LAST)
    try:
        scored.run("scoring", LAST, only="predictions")
        metadata = scored.metadata("predictions", LAST)
        rows = scored.table("predictions", LAST)
    finally:
        scored.lake.write("claims/features", before, LAST, LAST)

    assert metadata["rows_with_unseen_category"] == {"location": len(before)}
    assert len(rows) == len(before)


def test_a_day_without_rows_has_no_predictions(scored: Platform) -> None:
    scored.run("scoring", "2026-01-04")

    assert scored.table("predictions", "2026-01-04").empty


def test_scoring_without_a_champion_says_what_to_do(platform: Platform) -> None:
    platform.arrive("2026-01-05", "2026-01-05")

    with pytest.raises(RunFailed, match=r"no model serves yet.*job claims_training"):
        platform.run("scoring", "2026-01-05")
    assert platform.lake.rows_per_day("claims/predictions") == {}


def test_scoring_a_day_that_was_never_ingested_is_refused(scored: Platform) -> None:
    with pytest.raises(RunFailed, match=r"claims/features was never materialised for 2026-01-20"):
        scored.run("scoring", "2026-01-20", only="predictions")


def test_a_corrupt_model_file_is_named_and_nothing_is_written(scored: Platform) -> None:
    before = scored.table("predictions", LAST)
    shutil.rmtree(scored.registry.cache)
    (folder, *_) = bundle_folders(scored)
    content = (folder / MODEL_FILE).read_bytes()
    (folder / MODEL_FILE).write_bytes(content[:-100])
    try:
        with pytest.raises(RunFailed, match=r"claims version 1 .*corrupt: model\.ubj has SHA-256"):
            scored.run("scoring", LAST)
    finally:
        (folder / MODEL_FILE).write_bytes(content)

    pd.testing.assert_frame_equal(scored.table("predictions", LAST), before)
    scored.run("scoring", LAST)


def test_the_model_never_sees_the_outcome_or_what_was_dropped() -> None:
    seen = set(SMALL.inputs)

    assert SMALL.target not in seen
    assert not seen & set(SMALL.dropped)
    assert seen < set(columns(SMALL.features))
