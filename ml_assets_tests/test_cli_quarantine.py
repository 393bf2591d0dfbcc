"""`ml-assets quarantine …`: what it prints, what it leaves behind, and how it fails."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.cli_common import console
from ml_assets_tests.conftest import Platform, new_platform

MONDAY, TUESDAY = "2026-01-05", "2026-01-06"


@pytest.fixture(autouse=True)
def no_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ENV", "HOME", "SOURCE", "WAREHOUSE_URL", "LAKE_URL", "REGISTRY_URL"):
        monkeypatch.delenv(f"ML_ASSETS_{variable}", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform with three rows of Tuesday in quarantine for an age of seven."""
    found = new_platform(tmp_path_factory.mktemp("quarantine"))
    found.environment.dagster_home.mkdir(parents=True)
    found.arrive(MONDAY, TUESDAY)
    found.replace_day(
        TUESDAY,
        lambda rows: rows.assign(
            age=rows["age"].where(rows.index > 2, 7),
            occupation=rows["occupation"].where(rows.index > 2, "[red]; DROP TABLE"),
        ),
    )
    found.run("ingestion", MONDAY, TUESDAY)
    return found


def call(platform: Platform, *arguments: str) -> Result:
    home = str(platform.environment.home)
    return CliRunner().invoke(app, ["quarantine", *arguments, "--home", home])


def test_list_counts_rows_by_day_and_reason(platform: Platform) -> None:
    told = call(platform, "list")

    aside = platform.table("quarantine", MONDAY, TUESDAY)
    assert told.exit_code == 0
    assert f"{len(aside)} rows." in told.output
    (line,) = [line for line in told.output.splitlines() if "age" in line]
    assert [cell.strip() for cell in line.strip("│").split("│")] == [
        TUESDAY,
        "out_of_range",
        "age",
        "3",
    ]


def test_show_gives_reason_origin_and_the_row_as_it_came(platform: Platform) -> None:
    told = call(platform, "show", "--day", TUESDAY, "--reason", "out_of_range", "--limit", "100")

    aside = platform.table("quarantine", TUESDAY)
    aside = aside[aside["reason"] == "out_of_range"]
    rows = [json.loads(line) for line in told.output.splitlines() if line.strip().startswith("{")]
    assert [row["application_id"] for row in rows] == aside["application_id"].tolist()
    assert rows == [json.loads(row) for row in aside["row"]]
    assert {row["occupation"] for row in rows if row["age"] == 7} == {"[red]; DROP TABLE"}
    assert "out_of_range in age: '7'" in told.output
    assert f"by run {aside['run_id'].iloc[0][:8]}" in told.output


def test_show_finds_a_row_by_its_key_and_says_what_it_leaves_out(platform: Platform) -> None:
    key = platform.table("quarantine", TUESDAY)["application_id"].dropna().iloc[0]

    one, few = call(platform, "show", "--key", key), call(platform, "show", "--limit", "1")

    assert one.output.count('{"age"') == 1
    assert key in one.output
    aside = platform.table("quarantine", MONDAY, TUESDAY)
    assert f"{len(aside) - 1} more: --limit {len(aside)}" in few.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "--key", "nobody"], "no such row is in quarantine"),
        (["show", "--day", "2026-01-19"], "no row of 2026-01-19 is in quarantine"),
        (["list", "--day", "yesterday"], "'yesterday' is not a day: expected YYYY-MM-DD"),
        (["replay", "--day", "2026-01-19"], "no row of 2026-01-19 is in quarantine"),
    ],
)
def test_errors_name_what_is_wrong(platform: Platform, arguments: list[str], message: str) -> None:
    told = call(platform, *arguments)

    assert told.exit_code == 1
    assert message in told.output
    assert "Traceback" not in told.output


def test_replay_without_a_mended_contract_moves_nothing_and_says_so(platform: Platform) -> None:
    before = platform.table("quarantine", TUESDAY)

    told = call(platform, "replay", "--day", TUESDAY)

    assert told.exit_code == 0, told.output
    assert (
        f"{TUESDAY}: 0 of {len(before)} rows pass now, {len(before)} remain in quarantine "
        "(judged again)"
    ) in told.output
    assert platform.table("quarantine", TUESDAY).attrs == before.attrs


@pytest.mark.parametrize("command", ["list", "show", "replay"])
def test_a_folder_in_which_nothing_ran_is_refused(command: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["quarantine", command, "--home", str(tmp_path / "none")])

    assert told.exit_code == 1
    assert "there is nothing in" in told.output


@pytest.mark.parametrize("command", ["list", "show", "replay"])
def test_help_teaches_each_command(command: str) -> None:
    told = CliRunner().invoke(app, ["quarantine", command, "--help"])

    assert told.exit_code == 0
    assert "--day" in told.output
