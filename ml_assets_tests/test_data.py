"""`ml_assets.load`, as a person in a notebook calls it."""

import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import ml_assets
from ml_assets.resources.clean_up import clean_up
from ml_assets.resources.lake import Lake, LakeError
from ml_assets_tests.resources.test_lake import MONDAY, TABLE, TUESDAY, WEDNESDAY, rows, stamp


@pytest.fixture(autouse=True)
def no_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ENV", "HOME", "SOURCE", "LAKE_URL", "WAREHOUSE_URL", "REGISTRY_URL"):
        monkeypatch.delenv(f"ML_ASSETS_{variable}", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Three versions of three days, in the home that the current folder holds."""
    found = Lake(url=str(tmp_path / ".ml_assets" / "lake"), storage_options={}, attempts=3)
    found.write(TABLE, rows(MONDAY, TUESDAY, WEDNESDAY), MONDAY, WEDNESDAY)
    for amount in (1, 2):
        found.write(TABLE, rows(TUESDAY, amount=amount), TUESDAY, TUESDAY)
    stamp(found, *(f"2026-02-0{day}T12:00:00+00:00" for day in (1, 2, 3)))
    return found


def amount(**choice: Any) -> float:
    return float(ml_assets.load(TABLE, TUESDAY, TUESDAY, **choice)["amount"].iloc[0])


def test_one_line_gives_the_whole_table(lake: Lake) -> None:
    found = ml_assets.load(TABLE)

    expected = [rows(MONDAY), rows(TUESDAY, amount=2), rows(WEDNESDAY)]
    pd.testing.assert_frame_equal(found, pd.concat(expected, ignore_index=True))
    assert found.attrs == {"table": TABLE, "table_version": 2}


@pytest.mark.parametrize(
    ("start", "end", "days"),
    [
        (TUESDAY, None, [TUESDAY, WEDNESDAY]),
        (None, TUESDAY, [MONDAY, TUESDAY]),
        (date(2026, 1, 6), date(2026, 1, 6), [TUESDAY]),
        ("2026-02-01", "2026-02-28", []),
    ],
)
def test_both_ends_are_included(lake: Lake, start: Any, end: Any, days: list[str]) -> None:
    assert list(ml_assets.load(TABLE, start, end)["day"].unique()) == days


def test_columns_are_chosen(lake: Lake) -> None:
    assert list(ml_assets.load(TABLE, columns=["id", "amount"])) == ["id", "amount"]


def test_a_version_and_what_stood_at_an_instant(lake: Lake) -> None:
    assert amount(version=0) == 0.5
    assert amount(version=1) == 1
    assert amount(as_of=datetime(2026, 2, 1, 13, tzinfo=UTC)) == 0.5
    assert amount(as_of="2026-02-02T12:00:00+00:00") == 1
    assert amount(as_of="2026-02-02T12:00:00Z") == 1
    found = ml_assets.load(TABLE, as_of="2026-02-02T13:00:00Z")
    assert found.attrs["table_version"] == 1


def test_an_instant_without_a_zone_is_one_of_the_environments_own_zone(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp(lake, "2026-06-30T22:59:59+00:00", "2026-06-30T23:30:00+00:00", "2026-07-02T00:00:00Z")

    # In London's summer, 1 July begins at 23:00 UTC.
    assert amount(as_of="2026-07-01") == 0.5
    assert amount(as_of=date(2026, 7, 1)) == 0.5
    assert amount(as_of="2026-07-01T00:30:00") == 1
    assert amount(as_of=datetime(2026, 7, 1, 0, 29)) == 0.5


def test_before_the_first_version_there_is_nothing(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"no version at 2026-01-31 .* its first, 0, is of 2026-02"):
        ml_assets.load(TABLE, as_of="2026-01-31T12:00:00Z")


def test_a_version_that_was_cleaned_up_is_told(lake: Lake) -> None:
    from datetime import timedelta

    clean_up(lake, TABLE, needed=(), keep=timedelta(0))

    with pytest.raises(LakeError, match=r"version 1 .*was cleaned up.*oldest readable .* is 2\."):
        ml_assets.load(TABLE, version=1)


def test_an_unknown_version_is_told_with_the_newest(lake: Lake) -> None:
    with pytest.raises(
        LakeError,
        match=r"at version 9 cannot be opened: there is no such version\. .*newest version is 2$",
    ):
        ml_assets.load(TABLE, version=9)


def test_an_unknown_table_is_told_with_those_there_are(lake: Lake) -> None:
    with pytest.raises(LakeError, match=r"claims/feature does not exist .* there are claims/featu"):
        ml_assets.load("claims/feature")


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"start": "5.1.2026"}, "start '5.1.2026' is not a day"),
        ({"end": "20260105"}, "end '20260105' is not a day"),
        ({"start": datetime(2026, 1, 5, 1)}, "start is the instant 2026-01-05 01:00:00"),
        ({"start": WEDNESDAY, "end": MONDAY}, f"start {WEDNESDAY} is after end {MONDAY}"),
        ({"version": 1, "as_of": "2026-02-02"}, "give one of them"),
        ({"as_of": "yesterday"}, "as_of 'yesterday' is not an instant"),
    ],
)
def test_what_is_meant_must_be_clear(lake: Lake, choice: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ml_assets.load(TABLE, **choice)


def test_the_home_is_found_as_the_command_line_finds_it(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)

    with pytest.raises(ValueError, match=r"nothing in .*elsewhere/\.ml_assets.*ML_ASSETS_HOME"):
        ml_assets.load(TABLE)
    assert list(elsewhere.iterdir()) == []

    assert len(ml_assets.load(TABLE, home=tmp_path / ".ml_assets")) == 6
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path / ".ml_assets"))
    assert len(ml_assets.load(TABLE)) == 6


def test_tables_elsewhere_need_no_home(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("ML_ASSETS_LAKE_URL", f"file://{lake.url}")

    assert len(ml_assets.load(TABLE)) == 6


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, ml_assets; "
        "heavy = {'pandas', 'deltalake', 'dagster', 'numpy'} & set(sys.modules); "
        "assert not heavy, heavy; assert callable(ml_assets.load)"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_the_package_is_an_error_as_in_any_other() -> None:
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        ml_assets.lode  # noqa: B018
