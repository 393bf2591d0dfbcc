"""`ml-assets data`: what it prints, and how it fails."""

from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_assets.cli_common import console
from ml_assets.cli_data import app
from ml_assets.resources.clean_up import clean_up
from ml_assets.resources.lake import Lake
from ml_assets_tests.resources.test_lake import MONDAY, TABLE, TUESDAY, WEDNESDAY, rows, stamp


@pytest.fixture(autouse=True)
def no_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ENV", "HOME", "SOURCE", "LAKE_URL", "WAREHOUSE_URL", "REGISTRY_URL"):
        monkeypatch.delenv(f"ML_ASSETS_{variable}", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 200)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    home = tmp_path / ".ml_assets"
    (home / "dagster").mkdir(parents=True)  # as any first command leaves it
    return Lake(url=str(home / "lake"), storage_options={}, attempts=3)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def cells(result: Result) -> list[list[str]]:
    """The printed table's rows."""
    assert result.exit_code == 0, result.output
    lines = [line for line in result.output.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_the_tables_are_listed_with_days_rows_version_and_size(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY, TUESDAY, count=600), MONDAY, TUESDAY)
    lake.write(TABLE, rows(TUESDAY, WEDNESDAY), TUESDAY, WEDNESDAY)
    lake.write("claims/quarantine", rows(), MONDAY, MONDAY)

    result = call("list")

    features, quarantine = cells(result)
    assert features[:6] == [TABLE, "3", MONDAY, WEDNESDAY, "604", "1"]
    now, on_disk = (float(size.split()[0]) for size in features[6:])
    assert features[6].endswith("KB")
    assert now < on_disk
    assert quarantine[:6] == ["claims/quarantine", "0", "–", "–", "0", "0"]


def test_the_log_lists_the_versions_newest_first(lake: Lake) -> None:
    note = {"cause": "sensor", "run_id": "0123456789abcdef"}
    lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY, note=note)
    lake.write(TABLE, rows(TUESDAY, amount=1), TUESDAY, TUESDAY)
    stamp(lake, "2026-02-01T12:00:00+00:00", "2026-02-02T12:30:00+00:00")

    newest, oldest = cells(call("log", TABLE))

    assert oldest == [
        "0",
        "2026-02-01 12:00:00",
        "write",
        f"{MONDAY} … {TUESDAY}",
        "sensor",
        "01234567",
        "4",
        "yes",
    ]
    assert newest == ["1", "2026-02-02 12:30:00", "write", TUESDAY, "–", "–", "2", "yes"]


def test_the_log_of_a_day_and_of_the_newest_alone(lake: Lake) -> None:
    for day in (MONDAY, TUESDAY, MONDAY, WEDNESDAY):
        lake.write(TABLE, rows(day, amount=len(lake.rows_per_day(TABLE))), day, day)

    assert [row[0] for row in cells(call("log", TABLE, "--day", MONDAY))] == ["2", "0"]
    limited = call("log", TABLE, "--limit", "2")
    assert [row[0] for row in cells(limited)] == ["3", "2"]
    assert "--limit shows more" in limited.output


def test_versions_that_were_cleaned_up_are_marked(lake: Lake) -> None:
    for amount in range(3):
        lake.write(TABLE, rows(MONDAY, amount=amount), MONDAY, MONDAY)
    clean_up(lake, TABLE, needed=(0,), keep=timedelta(0))

    assert [(row[0], row[-1]) for row in cells(call("log", TABLE))] == [
        ("2", "yes"),
        ("1", "no"),
        ("0", "yes"),
    ]


@pytest.mark.parametrize("command", [["list"], ["log", TABLE]])
def test_names_and_days_are_whole_in_a_narrow_window(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    lake.write(TABLE, rows(MONDAY, TUESDAY), MONDAY, TUESDAY, note={"cause": "a long cause " * 5})
    monkeypatch.setattr(console, "width", 80)

    told = call(*command).output

    key = TABLE if command == ["list"] else f"{MONDAY} … {TUESDAY}"
    assert key in told
    assert MONDAY in told
    assert TUESDAY in told


def test_what_a_note_holds_is_text_not_markup(lake: Lake) -> None:
    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY, note={"cause": "[red]x[/red]"})

    assert cells(call("log", TABLE))[0][4] == "[red]x[/red]"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["log", "claims/nothing"], f"claims/nothing does not exist in .* there are {TABLE}"),
        (["log", TABLE, "--day", "5 January"], "'5 January' is not a day"),
    ],
)
def test_errors_are_one_message(lake: Lake, arguments: list[str], told: str) -> None:
    import re

    lake.write(TABLE, rows(MONDAY), MONDAY, MONDAY)

    result = call(*arguments)

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert re.search(told, result.output)


def test_a_folder_in_which_nothing_ran_is_told(tmp_path: Path) -> None:
    result = call("list", "--home", str(tmp_path / "none"))

    assert result.exit_code == 1
    assert "there is nothing in" in result.output
    assert not (tmp_path / "none").exists()
