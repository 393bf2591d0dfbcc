"""Predictions, through real runs: what was said, with what, and that it stands."""

import shutil
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from ml_assets.core.bundle import MODEL_FILE, predict
from ml_assets.core.explanations import read_reasons, strongest_reasons
from ml_assets.core.scoring import standing
from ml_assets.runs import RunFailed
from ml_assets.use_case import columns
from ml_assets_tests.conftest import SMALL, Platform

FIRST, LAST = "2026-01-14", "2026-01-16"
DAYS = (FIRST, "2026-01-15", LAST)


@pytest.fixture
def scored(trained: Platform) -> Platform:
    trained.run("scoring", FIRST, LAST)
    return trained


def stands(platform: Platform, first: str, last: str | None = None) -> pd.DataFrame:
    """What stands of the predictions of some days."""
    return standing(platform.table("predictions", first, last)).reset_index(drop=True)


def bundle_folders(platform: Platform) -> list[Path]:
    return [file.parent for file in Path(platform.registry.artifacts).rglob(MODEL_FILE)]


def test_every_application_is_scored_and_names_its_versions(scored: Platform) -> None:
    predictions = stands(scored, FIRST, LAST)

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

    expected = stands(scored, LAST)["probability"].sum()
    assert metadata["expected_positives"] == pytest.approx(expected, abs=0.06)
    assert metadata["rows_with_unseen_category"] == {}


def test_scoring_the_same_day_twice_leaves_the_table_as_it_was(scored: Platform) -> None:
    before = scored.table("predictions", FIRST, LAST)

    scored.run("scoring", FIRST, LAST)
    scored.run("scoring", LAST, only="predictions")

    after = scored.table("predictions", FIRST, LAST)
    pd.testing.assert_frame_equal(after, before)
    assert after.attrs == before.attrs


def test_a_correction_is_said_anew_beside_what_was_said_before(scored: Platform) -> None:
    before = scored.table("predictions", LAST)
    applications = len(stands(scored, LAST))
    scored.replace_day(LAST, lambda rows: rows.assign(age=rows["age"].where(rows.index != 0, 91)))
    outcome_only = {"ops": {"claims__predictions": {"config": {"keep_unchanged": True}}}}

    scored.run("scoring", LAST, config=outcome_only)

    after = scored.table("predictions", LAST)
    new = after[~after["data_version"].isin(before["data_version"])]
    assert len(after) == len(before) + 1
    assert len(new) == 1
    old = after[
        after["superseded_at"].notna() & after["application_id"].isin(new["application_id"])
    ]
    assert old["application_id"].tolist() == new["application_id"].tolist()
    others = before[before["application_id"] != old["application_id"].iloc[0]]
    pd.testing.assert_frame_equal(
        after[after["application_id"].isin(others["application_id"])].reset_index(drop=True),
        others.reset_index(drop=True),
    )
    metadata = scored.metadata("predictions", LAST)
    assert (metadata["applications"], metadata["superseded"]) == (applications, 1)


def test_an_outcome_that_arrives_changes_no_prediction(scored: Platform) -> None:
    before = scored.table("predictions", LAST)
    scored.replace_day(LAST, lambda rows: rows.assign(claim_status=1))

    scored.run("scoring", LAST)

    assert (scored.table("features", LAST)["claim_status"] == 1).all()
    pd.testing.assert_frame_equal(scored.table("predictions", LAST), before)


def test_a_row_is_referred_from_the_champions_threshold_on(scored: Platform) -> None:
    predictions = stands(scored, FIRST, LAST)
    threshold = scored.table("model", LAST)["threshold"][0]

    assert predictions["refer"].tolist() == (predictions["probability"] >= threshold).tolist()
    assert predictions["refer"].nunique() == 2
    assert sum(scored.metadata("predictions", day)["referred"] for day in DAYS) == int(
        predictions["refer"].sum()
    )


def test_each_prediction_comes_with_its_three_strongest_reasons(scored: Platform) -> None:
    predictions, features = (
        frame.set_index("application_id")
        for frame in (stands(scored, LAST), scored.table("features", LAST))
    )
    champion = scored.table("champion", LAST).iloc[0]
    bundle = scored.registry.load("claims", champion["version"], champion["sha256"])

    expected = strongest_reasons(bundle, features.loc[predictions.index].reset_index(), 3)

    assert predictions["reasons"].tolist() == expected.tolist()
    assert {len(read_reasons(text)) for text in predictions["reasons"]} == {3}


def test_reasons_can_be_switched_off(scored: Platform) -> None:
    before = stands(scored, LAST)
    scoring = scored.environment.scoring.model_copy(update={"reasons": 0})
    environment = scored.environment.model_copy(update={"scoring": scoring})

    Platform(environment, scored.instance).run("scoring", LAST)
    quiet = stands(scored, LAST)
    scored.run("scoring", LAST)

    assert set(quiet["reasons"]) == {"[]"}
    assert quiet["probability"].tolist() == before["probability"].tolist()
    assert stands(scored, LAST)["reasons"].tolist() == before["reasons"].tolist()


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
        rows = stands(scored, LAST)
    finally:
        scored.lake.write("claims/features", before, LAST, LAST)

    assert metadata["rows_with_unseen_category"] == {"location": len(before)}
    assert len(rows) == len(before)
    champion = scored.table("champion", LAST).iloc[0]
    bundle = scored.registry.load("claims", champion["version"], champion["sha256"])
    missing = predict(bundle, before.assign(location=None))
    assert rows["probability"].tolist() == missing.tolist(), "unseen counts as missing"


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


@pytest.mark.parametrize(("factor", "passed"), [(1.0, True), (0.3, False)])
def test_the_check_of_expected_positives_compares_what_was_said_in_time(
    trained: Platform, factor: float, passed: bool
) -> None:
    days = "2026-01-08", "2026-01-14"
    trained.run("scoring", *days)
    said = stands(trained, *days)
    early = said.assign(scored_at=said["received_at"], probability=said["probability"] * factor)
    trained.lake.write("claims/predictions", early, *days)

    trained.run("training", "2026-01-16", only="training_set")

    check = dg.AssetCheckKey(dg.AssetKey(["claims", "training_set"]), "positives_as_expected")
    record = trained.instance.get_latest_asset_check_evaluation_record(check)
    assert record is not None
    assert record.event is not None
    found = record.event.dagster_event.asset_check_evaluation_data
    told = {name: value.value for name, value in found.metadata.items()}
    assert found.passed is passed
    assert (told["days"], told["rows_said_too_late"]) == (7, 0)
    outcomes = trained.table("features", *days)["claim_status"]
    assert told["actual"] == outcomes.sum()


def test_predictions_made_after_the_outcomes_count_for_nothing(trained: Platform) -> None:
    days = "2026-01-08", "2026-01-14"
    trained.lake.write("claims/predictions", trained.table("predictions", *days).head(0), *days)
    trained.run("scoring", *days)

    trained.run("training", "2026-01-16", only="training_set")

    check = dg.AssetCheckKey(dg.AssetKey(["claims", "training_set"]), "positives_as_expected")
    record = trained.instance.get_latest_asset_check_evaluation_record(check)
    assert record is not None
    assert record.event is not None
    told = record.event.dagster_event.asset_check_evaluation_data.metadata
    assert told["rows"].value == 0
    assert told["rows_said_too_late"].value == len(trained.table("predictions", *days))
