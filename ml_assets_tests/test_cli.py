"""The command line: what it prints, and how it fails."""

from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from ml_assets.cli import app

PAGES = "the server of model cards and monitoring pages"


@pytest.fixture(autouse=True)
def no_environment_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in ("ENV", "HOME", "WAREHOUSE_URL", "LAKE_URL", "REGISTRY_URL", "REPORTS_URL"):
        monkeypatch.delenv(f"ML_ASSETS_{variable}", raising=False)
    monkeypatch.chdir(tmp_path)
    # Commands announce their home to Dagster by this variable; let no test see another's.
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    "command", ["demo", "simulate", "run", "config", "status", "ui", "doctor", "daemon"]
)
def test_help_teaches_each_command(command: str) -> None:
    overview, own = call("--help"), call(command, "--help")

    assert command in overview.output
    assert own.exit_code == 0
    assert "--home" in own.output
    assert len(own.output) > 500


@pytest.mark.parametrize("env", ["dev", "preprod", "prod"])
def test_config_prints_the_effective_values(env: str) -> None:
    values = yaml.safe_load(call("config", "--env", env).output)

    assert values["name"] == env
    assert values["schedules"]["enabled"] is (env != "preprod")


def test_config_masks_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ASSETS_WAREHOUSE_URL", "postgresql://ml:hunter2@db/claims")

    result = call("config")

    assert "hunter2" not in result.output
    assert yaml.safe_load(result.output)["warehouse"]["url"] == "postgresql://ml:***@db/claims"


def test_an_unknown_environment_is_refused() -> None:
    result = call("config", "--env", "live")

    assert result.exit_code == 1
    assert "unknown environment 'live': expected one of dev, preprod, prod" in result.output


def test_status_before_anything_says_what_to_do() -> None:
    result = call("status")

    assert result.exit_code == 1
    assert "Set ML_ASSETS_HOME (or --home) or ML_ASSETS_ENV if it lies elsewhere" in result.output
    assert "for a first look run `ml-assets demo`" in result.output


def test_status_is_told_while_the_warehouse_is_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".ml_assets" / "dagster").mkdir(parents=True)
    monkeypatch.setenv("ML_ASSETS_WAREHOUSE_URL", "postgresql://ml:hunter2@127.0.0.1:1/claims")

    result = call("status")

    assert result.exit_code == 0, result.output
    assert "features" in result.output
    assert "Champion: none yet" in result.output
    (changed,) = [line for line in result.output.splitlines() if "not yet read: " in line]
    where = "unknown: the warehouse postgresql://ml:***@127.0.0.1:1/claims cannot be reached: "
    assert where in changed
    assert "\\t" not in changed  # libpq breaks its lines by tabs
    assert "hunter2" not in result.output


def test_a_day_without_rows_is_told_with_the_files_that_wait(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "landing").mkdir()
    (tmp_path / "landing" / "late.csv.part").write_text("")
    monkeypatch.setenv("ML_ASSETS_SOURCE", "landing")
    monkeypatch.setenv("ML_ASSETS_LANDING_URL", str(tmp_path / "landing"))

    result = call("run", "ingestion", "--day", "2026-01-05")

    assert result.exit_code == 0, result.output
    told = "The source holds no rows of 1: 2026-01-05; 1 file is left: late.csv.part: under way"
    assert told in result.output


def test_monitoring_ends_with_its_findings_and_its_page(tmp_path: Path) -> None:
    result = call("run", "monitoring", "--day", "2026-01-05", "--to", "2026-01-06")

    assert result.exit_code == 0, result.output
    last = result.output.splitlines()[-1]
    page = tmp_path / ".ml_assets" / "reports" / "claims" / "monitoring_2026-01-06.html"
    assert last.startswith("2026-01-06: ")
    assert "3 no rows" in last
    assert last.endswith(f"Page: {page}")
    assert page.exists()


def test_simulate_before_the_demo_says_what_to_do() -> None:
    result = call("simulate")

    assert result.exit_code == 1
    assert "no applications yet. Run `ml-assets demo` first" in result.output


@pytest.mark.parametrize(
    ("days", "told"),
    [("10", "Use --days 58 or more"), ("5000", "reaches back before 2025-07-01")],
)
def test_a_demo_of_impossible_size_is_refused_before_any_work(
    days: str, told: str, tmp_path: Path
) -> None:
    result = call("demo", "--days", days)

    assert result.exit_code == 1
    assert told in result.output
    assert not (tmp_path / ".ml_assets" / "warehouse.duckdb").exists()


def test_a_home_that_cannot_be_used_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    result = call("demo", "--home", str(tmp_path / "file"))

    assert result.exit_code == 1
    assert "cannot be used" in result.output
    assert "Choose another with --home" in result.output


def test_a_warehouse_that_is_down_ends_the_demo_with_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ML_ASSETS_WAREHOUSE_URL", "postgresql://ml:hunter2@127.0.0.1:1/claims")

    result = call("simulate")

    assert result.exit_code == 1
    assert "postgresql://ml:***@127.0.0.1:1/claims cannot be reached" in result.output
    assert "hunter2" not in result.output


def test_the_ui_outside_the_project_says_so() -> None:
    result = call("ui")

    assert result.exit_code == 1
    assert "no workspace file workspace.yaml" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--day", "yesterday"], "'yesterday' is not a day: expected YYYY-MM-DD"),
        (["--day", "2026-01-05", "--to", "2026-01-04"], "--to 2026-01-04 is before --day"),
        (["--day", "2024-01-05"], "2024-01-05 is outside the days of claims_scoring"),
        (["--day", "2026-01-05"], "warehouse.duckdb does not exist"),
    ],
)
def test_run_refuses_what_it_cannot_do(arguments: list[str], told: str) -> None:
    result = call("run", "scoring", *arguments)

    assert result.exit_code == 1
    assert told in result.output


def test_simulated_applications_have_no_place_in_prod(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ASSETS_ENV", "prod")

    for command in ("demo", "simulate"):
        result = call(command)
        assert result.exit_code == 1
        assert "no place in prod" in result.output


def test_a_mistyped_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ASSETS_WAREHOUS_URL", "duckdb:///x")

    result = call("config")

    assert result.exit_code == 1
    assert "ML_ASSETS_WAREHOUS_URL: unknown; expected one of ML_ASSETS_ENV" in result.output


@pytest.mark.parametrize("option", ["--port", "--mlflow-port", "--reports-port"])
def test_a_taken_port_is_told_with_another(tmp_path: Path, option: str) -> None:
    import socket

    (tmp_path / "workspace.yaml").write_text("load_from: []")
    with socket.socket() as taken, socket.socket() as one, socket.socket() as other:
        for probe in (taken, one, other):
            probe.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        free = [one.getsockname()[1], other.getsockname()[1]]
        one.close(), other.close()
        others = [each for each in ("--port", "--mlflow-port", "--reports-port") if each != option]
        places = [word for each in zip(others, map(str, free), strict=True) for word in each]

        result = call("ui", option, str(port), *places)

    assert result.exit_code == 1
    told = f"port {port} is taken on 127.0.0.1. Choose another: {option} {port + 1}"
    assert told in result.output


@pytest.mark.parametrize("other", ["--mlflow-port", "--reports-port"])
def test_one_port_for_two_uis_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, other: str
) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from: []")
    monkeypatch.setattr("ml_assets.cli._require_free", lambda port, option: None)

    result = call("ui", "--port", "3456", other, "3456")

    assert result.exit_code == 1
    assert f"cannot share port 3456. Choose another: {other} 3457" in result.output


@pytest.mark.parametrize(
    ("url", "pages", "served"),
    [
        (None, None, ["the Dagster UI", "the MLflow UI", PAGES]),
        ("http://u:s3cr3t@mlflow", None, ["the Dagster UI", PAGES]),
        ("http://u:s3cr3t@mlflow", "https://reports.example", ["the Dagster UI"]),
    ],
)
def test_the_ui_shows_models_and_pages_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    url: str | None,
    pages: str | None,
    served: list[str],
) -> None:
    import ml_assets.servers

    (tmp_path / "workspace.yaml").write_text("load_from: []")
    for name, value in (("REGISTRY", url), ("REPORTS", pages)):
        if value:
            monkeypatch.setenv(f"ML_ASSETS_{name}_URL", value)
    monkeypatch.setattr("ml_assets.resources.registry.Registry.open", lambda registry: None)
    monkeypatch.setattr("ml_assets.cli._require_free", lambda port, option: None)
    started: list[ml_assets.servers.Server] = []
    monkeypatch.setattr(ml_assets.servers, "serve", started.extend)

    result = call("ui", "--port", "3456", "--mlflow-port", "5678")

    assert result.exit_code == 0, result.output
    assert [server.name for server in started] == served
    place = "http://u:***@mlflow" if url else "http://127.0.0.1:5678"
    assert f"Models are in MLflow on {place}" in result.output
    assert f"Model cards and monitoring: {pages or 'http://127.0.0.1:3001'}" in result.output
    commands = [word for server in started for word in server.command]
    assert not [word for word in commands if "mlflow.db" in word or "s3cr3t" in word]


def test_a_ui_that_ends_by_itself_hands_its_exit_code_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import ml_assets.servers

    def ended(servers: object) -> None:
        raise ml_assets.servers.ServerEnded("the MLflow UI ended by itself", 3)

    (tmp_path / "workspace.yaml").write_text("load_from: []")
    monkeypatch.setattr("ml_assets.resources.registry.Registry.open", lambda registry: None)
    monkeypatch.setattr("ml_assets.cli._require_free", lambda port, option: None)
    monkeypatch.setattr(ml_assets.servers, "serve", ended)

    result = call("ui")

    assert result.exit_code == 3
    assert "Error: the MLflow UI ended by itself" in result.output
