"""A registered version trained again: the same bytes, or a verdict that names the cause."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.build import resources
from ml_assets.reproduction import Reproduction, reproduce
from ml_assets.resources.lake import Lake, LakeError
from ml_assets.resources.registry import RegistryError
from ml_assets.use_case import UseCase
from ml_assets_tests.conftest import SMALL, Platform

LAST = "2026-01-16"


def again(
    platform: Platform, *, use_case: UseCase = SMALL, lake: Lake | None = None, version: int = 1
) -> Reproduction:
    return reproduce(
        platform.environment, use_case, lake or platform.lake, platform.registry, version
    )


@pytest.fixture
def other_lake(trained: Platform, tmp_path: Path) -> Lake:
    """Tables of another place, with none in it yet."""
    settings = trained.environment.lake.model_copy(update={"url": str(tmp_path)})
    lake: Lake = resources(trained.environment.model_copy(update={"lake": settings}))["lake"]
    return lake


def test_an_untouched_version_is_reproduced_to_the_byte(trained: Platform) -> None:
    found = again(trained)

    assert (found.same_rows, found.same_model, found.same_bundle) == (True, True, True)
    assert found.differences == ()
    sha256 = trained.table("model", LAST)["sha256"][0]
    assert found.sha256 == sha256
    assert found.verdict == f"version 1 is reproduced: the same bytes, SHA-256 {sha256}"


def test_a_version_is_reproduced_whatever_the_configuration_says_now(trained: Platform) -> None:
    training = trained.environment.training.model_copy(
        update={"seed": 99, "max_rounds": 2, "threads": 1, "parameters": {"max_depth": 1}}
    )
    environment = trained.environment.model_copy(update={"training": training})

    found = reproduce(environment, SMALL, trained.lake, trained.registry, 1)

    assert found.same_bundle
    assert found.code_now != found.code_then


def test_a_version_is_reproduced_after_its_rows_were_corrected(trained: Platform) -> None:
    before = trained.table("features", "2026-01-08")
    trained.replace_day(
        "2026-01-08",
        lambda rows: rows.assign(
            age=rows["age"].max(), updated_at=rows["updated_at"] + pd.Timedelta("1h")
        ),
    )
    trained.run("ingestion", "2026-01-08")
    after = trained.table("features", "2026-01-08")
    assert after["age"].nunique() == 1 < before["age"].nunique()

    found = again(trained)

    assert (found.same_rows, found.same_bundle) == (True, True)


def test_rows_that_are_not_those_of_the_manifest_are_told(
    trained: Platform, other_lake: Lake
) -> None:
    version = int(trained.table("training_set", LAST)["table_version"][0])
    rows = trained.lake.read("claims/features", "2026-01-05", LAST, version=version)
    # As a backup would bring it back: a table of the same versions with other rows.
    other_lake.write("claims/features", rows.assign(age=40), "2026-01-05", LAST)
    assert other_lake.read("claims/features", LAST, LAST).attrs["table_version"] == version

    found = again(trained, lake=other_lake)

    assert (found.same_rows, found.same_model, found.same_bundle) == (False, False, False)
    assert found.verdict.startswith("version 1 is not reproduced (trees, ")
    assert "the table was replaced or restored since" in found.verdict


def test_rows_that_are_gone_are_told(trained: Platform, other_lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"claims/features does not exist"):
        again(trained, lake=other_lake)


def test_another_declaration_is_told_with_what_differs(trained: Platform) -> None:
    categorical = tuple(name for name in SMALL.categorical if name != "n_dependents")

    found = again(trained, use_case=replace(SMALL, categorical=categorical))

    assert found.same_rows
    assert not found.same_bundle
    assert "vocabulary" in found.differences
    assert "rows, recipe, code and XGBoost are the same" in found.verdict


def test_an_unknown_version_is_refused_with_those_known(trained: Platform) -> None:
    with pytest.raises(RegistryError, match=r"claims has no version 9 .* newest known: 1"):
        again(trained, version=9)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"same_rows": False, "code_now": "new"}, "not those it learned from"),
        (
            {"xgboost_now": "4.0", "code_now": "new"},
            "trained by XGBoost 3.2, and 4.0 is here",
        ),
        ({"code_now": "new"}, "trained by code and settings old, and these are new: check out"),
        ({}, "another processor, or another version of a library"),
    ],
)
def test_the_verdict_names_the_likeliest_cause(changes: dict[str, object], told: str) -> None:
    failed = Reproduction(
        version=3,
        same_rows=True,
        same_model=False,
        same_bundle=False,
        differences=("trees", "rounds"),
        code_then="old",
        code_now="old",
        xgboost_then="3.2",
        xgboost_now="3.2",
        sha256="abc",
    )

    verdict = replace(failed, **changes).verdict  # type: ignore[arg-type]

    assert verdict.startswith("version 3 is not reproduced (trees, rounds differ): ")
    assert told in verdict
