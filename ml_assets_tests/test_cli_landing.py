"""`ml-assets landing …`: what it prints, what it leaves behind, and how it fails."""

from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.cli_common import console

HEADER = "application_id,received_at,updated_at\n"


@pytest.fixture(autouse=True)
def no_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ENV", "HOME", "WAREHOUSE_URL", "LAKE_URL", "LANDING_URL", "REGISTRY_URL"):
        monkeypatch.delenv(f"ML_ASSETS_{variable}", raising=False)
    monkeypatch.setenv("ML_ASSETS_SOURCE", "landing")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 250)
    # What commands announce to child processes is gone after each test.
    for variable in ("DAGSTER_HOME", "ML_ASSETS_HOME", "ML_ASSETS_ENV"):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A platform's folder with an inbox whose files count at once."""
    home = tmp_path / "home"
    (home / "dagster").mkdir(parents=True)
    (tmp_path / "landing").mkdir()
    monkeypatch.setenv("ML_ASSETS_LANDING_URL", str(tmp_path / "landing"))
    monkeypatch.setattr("ml_assets.changes.time.time", lambda: 4_000_000_000.0)  # all settled
    return home


def put(home: Path, name: str, content: str) -> None:
    (home.parent / "landing" / name).write_text(content)


def call(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["landing", *arguments, "--home", str(home)])


def test_take_tells_what_became_of_every_file(home: Path) -> None:
    rows = HEADER + "a,2026-03-05T10:00:00Z,\nb,2026-03-06T10:00:00Z,\n"
    put(home, "good[1].csv", rows)
    put(home, "zcopy.csv", rows)
    put(home, "[red]bad.csv", HEADER + "a,b\n")
    put(home, "late.csv.part", "")

    told = call(home, "take")

    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    assert lines[:-1] == [
        "taken: good[1].csv: 2 rows of 2026-03-05 to 2026-03-06",
        "repeated: zcopy.csv: the same content as good[1].csv",
        "rejected: [red]bad.csv: line 2: 2 fields where the header has 3; the last that fits is "
        "column 'received_at' = 'b'. The row is cut off, or a value holds a delimiter or line "
        "break and is not quoted.",
        "left: late.csv.part: under way, by its name",
    ]
    assert "`ml-assets run ingestion" in lines[-1]
    rest = {path.name for path in (home.parent / "landing").iterdir() if path.is_file()}
    assert rest - {".landing.lock"} == {"late.csv.part"}


def test_take_without_files_says_so(home: Path) -> None:
    told = call(home, "take")

    assert told.exit_code == 0
    assert told.output == "There are no files.\n"


def test_list_shows_the_newest_first_and_what_it_leaves_out(home: Path) -> None:
    put(home, "a.csv", HEADER + "a,2026-03-05T10:00:00Z,\nb,2026-03-06T10:00:00Z,\n")
    call(home, "take")
    put(home, "[red]b.csv", "")
    call(home, "take")

    every, one = call(home, "list"), call(home, "list", "--limit", "1")

    lines = [line for line in every.output.splitlines() if ".csv" in line]
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    assert [each[1:5] for each in cells] == [
        ["[red]b.csv", "rejected", "–", "–"],
        ["a.csv", "taken", "2", "2026-03-05 … 2026-03-06 (2)"],
    ]
    assert "0 bytes" in cells[0][5]
    assert "a.csv" not in one.output.replace("[red]b.csv", "")
    assert "1 older ones are not shown (--limit)." in one.output


def test_list_before_any_file_says_what_to_do(home: Path) -> None:
    told = call(home, "list")

    assert told.exit_code == 1
    assert "no file has been taken yet" in told.output
    assert "ml-assets landing take" in told.output


def test_take_from_a_warehouse_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ASSETS_SOURCE", "warehouse")

    told = call(home, "take")

    assert told.exit_code == 1
    assert "ML_ASSETS_SOURCE=landing" in told.output


def test_a_folder_that_cannot_be_used_is_told_without_a_traceback(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.parent / "file").write_text("")
    monkeypatch.setenv("ML_ASSETS_LANDING_URL", str(home.parent / "file"))

    told = call(home, "take")

    assert told.exit_code == 1
    assert "cannot be used" in told.output
    assert "Traceback" not in told.output


def test_a_folder_in_which_nothing_ran_is_begun_by_take_alone(home: Path) -> None:
    put(home, "a.csv", HEADER + "a,2026-03-05T10:00:00Z,\n")
    none = home.parent / "none"

    listed, taken = call(none, "list"), call(none, "take")

    assert listed.exit_code == 1
    assert "there is nothing in" in listed.output
    assert "run `ml-assets landing take`" in listed.output
    assert taken.exit_code == 0, taken.output
    assert "taken: a.csv: 1 rows of 2026-03-05" in taken.output
    assert (none / "dagster" / "dagster.yaml").exists()


def test_status_tells_of_rejected_files_until_they_are_mended(home: Path) -> None:
    def status() -> str:
        told = CliRunner().invoke(app, ["status", "--home", str(home)])
        assert told.exit_code == 0, told.output
        return told.output

    put(home, "a.csv", "")
    call(home, "take")
    broken = status()
    put(home, "a.csv", HEADER + "a,2026-03-05T10:00:00Z,\n")
    call(home, "take")

    assert "Rejected files: 1, newest a.csv (ml-assets landing list)" in broken
    assert "Rejected files" not in status()


def test_the_names_of_files_are_not_cut_in_a_narrow_window(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "applications_of_the_north_2026-03-05.csv"
    put(home, name, "")
    call(home, "take")
    monkeypatch.setattr(console, "width", 80)

    told = call(home, "list").output

    cells = [line.split("│")[2].strip() for line in told.splitlines() if line.startswith("│")]
    assert "".join(cells) == name


@pytest.mark.parametrize("command", ["list", "take"])
def test_help_teaches_each_command(command: str) -> None:
    told = CliRunner().invoke(app, ["landing", command, "--help"])

    assert told.exit_code == 0
    assert "--home" in told.output
