"""Maintenance through real runs: what it frees, and that no registered model loses its rows."""

import threading
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.assets import maintenance
from ml_assets.assets.maintenance import needed_versions
from ml_assets.reproduction import reproduce
from ml_assets.resources.lake import Lake, LakeError
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.runs import RunFailed
from ml_assets_tests.conftest import SMALL, Platform, new_platform

FIRST, LAST = "2026-01-05", "2026-01-16"
FEATURES = "claims/features"


def keeping(platform: Platform, days: int) -> Platform:
    """The same platform under another `maintenance.keep_days`."""
    settings = platform.environment.maintenance.model_copy(update={"keep_days": days})
    environment = platform.environment.model_copy(update={"maintenance": settings})
    return Platform(environment, platform.instance)


def correct(lake: Lake, *days: str) -> None:
    """Let features of these days change, as after a correction in the source."""
    for day in days:
        frame = lake.read(FEATURES, day, day)
        lake.write(FEATURES, frame.assign(age=(frame["age"] + 1).clip(18, 90)), day, day)


def pinned(platform: Platform) -> int:
    return int(platform.table("training_set", LAST)["table_version"].iloc[0])


def readable(lake: Lake) -> list[int]:
    log = lake.log(FEATURES, check_files=True)
    return sorted(each.version for each in log if each.readable)


def account(platform: Platform, day: str = LAST) -> pd.DataFrame:
    return platform.table("maintenance", day).set_index("table")


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform whose features were corrected before, and often after, its model was trained."""
    platform = new_platform(tmp_path_factory.mktemp("corrected"))
    platform.arrive(FIRST, LAST)
    platform.run("ingestion", FIRST, LAST)
    correct(platform.lake, "2026-01-08", "2026-01-09")
    platform.run("training", LAST)
    correct(platform.lake, *["2026-01-08", "2026-01-09", "2026-01-12"] * 4)
    return keeping(platform, 0)


def test_a_model_is_reproduced_after_maintenance_and_what_nobody_needs_is_gone(
    corrected: Platform,
) -> None:
    lake, then = corrected.lake, pinned(corrected)
    newest = lake.version(FEATURES)
    assert newest is not None
    assert readable(lake) == list(range(newest + 1))
    rows = lake.read(FEATURES, FIRST, LAST, version=then)

    corrected.run("maintenance", LAST)

    assert readable(lake) == [then, newest]
    again = reproduce(corrected.environment, SMALL, lake, corrected.registry, 1)
    assert (again.same_rows, again.same_bundle) == (True, True)
    pd.testing.assert_frame_equal(lake.read(FEATURES, FIRST, LAST, version=then), rows)
    with pytest.raises(LakeError, match=r"version 0 .* was cleaned up.* after it is"):
        lake.read(FEATURES, FIRST, LAST, version=0)
    told = account(corrected).loc[FEATURES]
    assert told["bytes_after"] < told["bytes_before"]
    assert told["files_after"] < told["files_before"]
    assert (told["versions_kept"], told["oldest_readable"]) == (1, newest)


def test_every_table_of_the_use_case_has_its_account(corrected: Platform) -> None:
    corrected.run("maintenance", LAST)

    told = account(corrected)
    assert set(told.index) == set(corrected.lake.tables())
    assert (told["bytes_after"] <= told["bytes_before"]).all()
    metadata = corrected.metadata("maintenance", LAST)
    assert metadata["bytes_before"] == told["bytes_before"].sum()
    assert metadata["bytes_freed"] == (told["bytes_before"] - told["bytes_after"]).sum()
    assert metadata["versions_kept_for_models"] == {FEATURES: [pinned(corrected)]}
    assert FEATURES in metadata["by_table"]


def test_a_second_run_frees_nothing_and_keeps_the_same(corrected: Platform) -> None:
    corrected.run("maintenance", LAST)
    before = {each.path for each in corrected.lake.stored(FEATURES)}

    corrected.run("maintenance", LAST)

    assert {each.path for each in corrected.lake.stored(FEATURES)} == before
    told = account(corrected).loc[FEATURES]
    assert told["bytes_after"] == told["bytes_before"]


def test_young_versions_stay(corrected: Platform) -> None:
    corrected.run("maintenance", LAST)
    correct(corrected.lake, "2026-01-08", "2026-01-08", "2026-01-08")
    before = readable(corrected.lake)

    keeping(corrected, 1).run("maintenance", LAST)

    assert readable(corrected.lake) == before
    assert account(corrected).loc[FEATURES, "oldest_readable"] == before[1]


def test_the_rows_of_a_training_set_that_waits_for_its_model_stay(corrected: Platform) -> None:
    lake = corrected.lake
    manifest = corrected.table("training_set", LAST)
    waiting = manifest.assign(day="2026-03-01", table_version=2, content_hash="of no model")
    lake.write("claims/training_set", waiting, "2026-03-01", "2026-03-01")

    def needed(since: str) -> set[int]:
        return needed_versions(SMALL, lake, corrected.registry, since)[FEATURES]

    assert needed("2026-02-01") == {2, pinned(corrected)}
    assert needed("2026-03-02") == {pinned(corrected)}
    # Written anew on another version, it still has the content of a registered model.
    lake.write("claims/training_set", manifest.assign(table_version=1), LAST, LAST)
    assert needed("2026-03-02") == {1, pinned_by_the_model(corrected)}
    lake.write("claims/training_set", manifest, LAST, LAST)
    lake.write("claims/training_set", waiting.head(0), "2026-03-01", "2026-03-01")


def pinned_by_the_model(platform: Platform) -> int:
    import json

    content = platform.registry.artifact("claims", 1, "training_manifest.json")
    return int(json.loads(content)["table_version"])


def test_nothing_is_removed_while_the_registry_cannot_be_read(
    corrected: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(corrected.lake, "2026-01-08", "2026-01-08")
    before = {each.path for each in corrected.lake.stored(FEATURES)}
    tries = []

    def down(*_: object) -> None:
        tries.append(True)
        raise RegistryError("the registry is down")

    monkeypatch.setattr(maintenance, "_PAUSE_SECONDS", 0)
    monkeypatch.setattr(Registry, "versions", down)

    with pytest.raises(RunFailed, match=r"^the registry is down"):
        corrected.run("maintenance", LAST)

    assert len(tries) == 3
    assert {each.path for each in corrected.lake.stored(FEATURES)} == before


def test_nothing_is_removed_while_the_manifest_of_a_model_is_lost(
    corrected: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(corrected.lake, "2026-01-08", "2026-01-08")
    before = {each.path for each in corrected.lake.stored(FEATURES)}
    monkeypatch.setattr(maintenance, "_PAUSE_SECONDS", 0)
    [lost] = (corrected.environment.home / "artifacts").rglob("training_manifest.json")
    aside = lost.rename(lost.with_suffix(".aside"))

    with pytest.raises(
        RunFailed, match=r"^which rows claims version 1 was trained on is not known"
    ):
        corrected.run("maintenance", LAST)

    assert {each.path for each in corrected.lake.stored(FEATURES)} == before
    aside.rename(lost)


@pytest.mark.parametrize("decided", [True, False])
def test_nothing_is_removed_beside_a_registry_that_has_not_the_lakes_models(
    corrected: Platform, decided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(corrected.lake, "2026-01-08", "2026-01-08")
    before = {each.path for each in corrected.lake.stored(FEATURES)}
    monkeypatch.setattr(maintenance, "_PAUSE_SECONDS", 0)
    if not decided:
        monkeypatch.setattr(maintenance, "history", lambda *_: [])
    settings = corrected.environment.registry
    other = settings.model_copy(update={"url": f"sqlite:///{corrected.environment.home}/other.db"})
    environment = corrected.environment.model_copy(update={"registry": other})

    with pytest.raises(RunFailed, match=r"other\.db does not hold claims version 1 \(.*\), which "):
        Platform(environment, corrected.instance).run("maintenance", LAST)

    assert {each.path for each in corrected.lake.stored(FEATURES)} == before


def test_a_registry_that_began_anew_and_has_a_champion_by_now_is_none_of_the_lakes(
    corrected: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(corrected.lake, "2026-01-08", "2026-01-08")
    before = {each.path for each in corrected.lake.stored(FEATURES)}
    monkeypatch.setattr(maintenance, "_PAUSE_SECONDS", 0)
    (now,) = maintenance.history(corrected.lake, SMALL)
    lost = replace(now, version=7, sha256="0" * 64)
    monkeypatch.setattr(maintenance, "history", lambda *_: [lost, now])

    with pytest.raises(RunFailed, match=r"does not hold claims version 7 \(00000000…\), which"):
        corrected.run("maintenance", LAST)

    assert {each.path for each in corrected.lake.stored(FEATURES)} == before


def test_a_lake_that_is_shared_is_cleaned_up_by_its_owner_alone(corrected: Platform) -> None:
    environment = corrected.environment.model_copy(
        update={"name": "preprod", "shares": ["dev.lake", "dev.registry"]}
    )

    with pytest.raises(RunFailed, match=r"belongs to dev, so preprod removes nothing"):
        Platform(environment, corrected.instance).run("maintenance", LAST)


def test_readers_are_not_disturbed(corrected: Platform) -> None:
    lake = corrected.lake
    expected = lake.read(FEATURES, FIRST, "2026-01-07")
    stop, failures, read = threading.Event(), [], []

    def reader() -> None:
        while not stop.is_set():
            try:
                pd.testing.assert_frame_equal(lake.read(FEATURES, FIRST, "2026-01-07"), expected)
                read.append(True)
            except BaseException as error:
                failures.append(error)
                return

    thread = threading.Thread(target=reader)
    thread.start()
    for _ in range(3):
        correct(lake, "2026-01-08")
        corrected.run("maintenance", LAST)
    stop.set()
    thread.join()

    assert failures == []
    assert read


def test_without_any_table_or_model_there_is_nothing_to_do(tmp_path: Path) -> None:
    platform = new_platform(tmp_path)

    platform.run("maintenance", LAST)

    assert platform.table("maintenance", LAST).empty
