"""The code location loads through `dg` and through `-w workspace.yaml`, under one name, quietly."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def run(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the environment's own commands in the project's folder."""
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    environ = {
        **os.environ,
        "DAGSTER_HOME": str(tmp_path),
        "ML_ASSETS_HOME": str(tmp_path / "home"),
        "VIRTUAL_ENV": sys.prefix,
    }
    executable = Path(sys.executable).parent / command[0]
    return subprocess.run(
        [str(executable), *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=PROJECT,
        env=environ,
    )


def test_dg_loads_it_without_warnings(tmp_path: Path) -> None:
    done = run(tmp_path, "dg", "check", "defs")

    assert done.returncode == 0, done.stderr
    assert "All definitions loaded successfully" in done.stdout
    assert "arning" not in done.stdout + done.stderr


def test_dg_lists_the_assets(tmp_path: Path) -> None:
    done = run(tmp_path, "dg", "list", "defs", "--json")

    keys = {asset["asset_key"] for asset in json.loads(done.stdout)["assets"]}
    assert {"claims/raw", "claims/champion", "claims/predictions"} <= keys


def test_the_workspace_file_loads_it_under_the_name_that_dg_uses(tmp_path: Path) -> None:
    import tomllib

    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    done = run(tmp_path, "dagster", "definitions", "validate", "-w", "workspace.yaml")

    assert done.returncode == 0, done.stderr
    told = done.stdout + done.stderr
    assert f"Validation successful for code location {settings['code_location_name']}" in told


def test_a_broken_environment_fails_the_load_with_its_own_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_ASSETS_ENV", "production")
    done = run(tmp_path, "dg", "check", "defs")

    assert done.returncode != 0
    assert "unknown environment 'production': expected one of dev, preprod, prod" in (
        done.stdout + done.stderr
    )


def test_the_wheel_carries_queries_and_configuration(tmp_path: Path) -> None:
    import zipfile

    source = tmp_path / "source"
    ignored = shutil.ignore_patterns(".*", "ml_assets_tests", "__pycache__", "*.egg-info", "build")
    shutil.copytree(PROJECT, source, ignore=ignored)
    command = ["-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run(
        [sys.executable, *command, "--wheel-dir", str(tmp_path), str(source)],
        check=True,
        capture_output=True,
    )

    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        str(file.relative_to(PROJECT))
        for pattern in ("*.py", "*.sql", "*.yaml")
        for file in (PROJECT / "ml_assets").rglob(pattern)
    }
    assert wanted <= names
    assert "ml_assets/use_cases/claims/source.sql" in wanted
