"""`ml-assets contract diff`: what it says of the source as it is now, and its exit code."""

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.cli_common import console
from ml_assets_tests.conftest import Platform

MONDAY, TUESDAY = "2026-01-05", "2026-01-06"


@pytest.fixture(autouse=True)
def no_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ENV", "HOME", "SOURCE", "WAREHOUSE_URL", "LAKE_URL", "REGISTRY_URL"):
        monkeypatch.delenv(f"ML_ASSETS_{variable}", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)


@pytest.fixture
def source(platform: Platform) -> Platform:
    """A platform whose source holds two days, of which nothing was read yet."""
    platform.arrive(MONDAY, TUESDAY)
    return platform


def diff(platform: Platform, *arguments: str) -> Result:
    home = str(platform.environment.home)
    return CliRunner().invoke(app, ["contract", "diff", *arguments, "--home", home])


def cells(result: Result, column: str) -> list[str]:
    (line,) = [line for line in result.output.splitlines() if line.startswith(f"│ {column} ")]
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_a_source_that_keeps_the_contract_ends_well(source: Platform) -> None:
    told = diff(source)

    assert told.exit_code == 0, told.output
    assert f"claims/raw: {TUESDAY}" in told.output
    name, expected, found, broken, verdict = cells(told, "age")
    assert (name, expected, verdict) == ("age", "whole number, 18 to 95", "ok")
    assert found.startswith("whole number, for example ")
    assert broken.endswith("%")
    assert f"{TUESDAY} can be read: " in told.output


def test_another_day_can_be_asked_for(source: Platform) -> None:
    assert f"claims/raw: {MONDAY}" in diff(source, "--day", MONDAY).output


def test_a_changed_type_fails_with_what_to_do(source: Platform) -> None:
    source.replace_day(TUESDAY, lambda rows: rows.assign(n_dependents="a few"))

    told = diff(source)

    assert told.exit_code == 1
    assert cells(told, "n_dependents") == [
        "n_dependents",
        "whole number, one of 1, 2, 3, 4, 5",
        "text, for example 'a few'",
        "100.0%",
        "changed its type",
    ]
    assert f"A day like {TUESDAY} cannot be read. Have the source mended" in told.output
    assert diff(source, "--day", MONDAY).exit_code == 0


def test_too_many_bad_rows_fail_with_their_reason(source: Platform) -> None:
    source.replace_day(TUESDAY, lambda rows: rows.assign(age=7, location="[red]"))

    told = diff(source)

    assert told.exit_code == 1
    assert cells(told, "age")[3:] == ["100.0%", "ok"]
    assert "'[red]'" in cells(told, "location")[2]
    assert f"{TUESDAY} would be read, but features would not follow: 100.0%" in told.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--day", "yesterday"], "'yesterday' is not a day"),
        (["--day", "2026-02-01"], "the source holds no rows of claims for 2026-02-01"),
    ],
)
def test_what_cannot_be_compared_is_told(source: Platform, arguments: list[str], told: str) -> None:
    result = diff(source, *arguments)

    assert result.exit_code == 1
    assert told in result.output
