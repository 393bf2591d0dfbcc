"""The demo as a newcomer runs it: by the command line, in processes of its own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest

from ml_assets.build import resources
from ml_assets.environment import Environment, load_environment

pytestmark = pytest.mark.slow  # `make demo` itself, more than once

STAGES = (
    "raw",
    "quarantine",
    "extraction",
    "features",
    "training_set",
    "hyperparameters",
    "model",
    "champion",
    "champion_history",
)


def ml_assets(*arguments: str, check: bool = True) -> str:
    executable = Path(sys.executable).parent / "ml-assets"
    environ = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(
        [str(executable), *arguments], capture_output=True, text=True, check=False, env=environ
    )
    assert done.returncode == 0 or not check, done.stdout + done.stderr
    return done.stdout + done.stderr


def tables(environment: Environment) -> Iterator[tuple[str, pd.DataFrame]]:
    lake = resources(environment)["lake"]
    for stage in (*STAGES, "predictions"):
        frame = lake.read(f"claims/{stage}", "2025-07-01", "2100-01-01")
        # When something was said or done is not the same in two runs.
        clock = ["scored_at", "decided_at", "at", "superseded_at", "quarantined_at", "run_id"]
        yield stage, frame.drop(columns=clock, errors="ignore")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def environment(home: Path) -> Environment:
    return load_environment("dev", environ={"ML_ASSETS_HOME": str(home)})


@pytest.fixture(scope="module")
def told(home: Path) -> str:
    return ml_assets("demo", "--days", "58", "--home", str(home))


def test_the_demo_ends_with_a_summary_of_what_it_made(told: str, environment: Environment) -> None:
    made = dict(tables(environment))

    def said(pattern: str) -> float:
        found = re.search(pattern, told)
        assert found, told
        return float(found[1].replace(",", ""))

    assert said(r"Days +([\d,]+)") == 58
    assert said(r"Rows +([\d,]+)") == len(made["raw"])
    assert said(r"quarantine +([\d,]+)") == len(made["quarantine"]) > 30
    assert 0.93 < said(r"ROC AUC on the holdout +([\d.]+)") < 0.98
    assert 0.10 < said(r"Log loss on the holdout +([\d.]+)") < 0.22
    assert said(r"claims version (\d+)") == 1
    yesterday = made["predictions"]["day"].max()
    expected = made["predictions"].query("day == @yesterday")["probability"].sum()
    assert said(rf"expected of {yesterday} +([\d.]+)") == pytest.approx(expected, abs=0.06)
    assert f"make ui HOME_DIR={environment.home}" in told


def test_fourteen_days_are_scored_and_every_row_is_accounted_for(
    told: str, environment: Environment
) -> None:
    made = dict(tables(environment))

    account = made["extraction"]
    parts = account["rows_kept"] + account["rows_quarantined"] + account["duplicates_dropped"]
    assert made["predictions"]["day"].nunique() == 14
    assert (account["rows_read"] == parts).all()
    assert len(made["features"]) == account["rows_kept"].sum()


def test_running_it_again_continues_and_duplicates_nothing(
    told: str, home: Path, environment: Environment
) -> None:
    before = dict(tables(environment))

    again = ml_assets("demo", "--days", "58", "--home", str(home))

    assert again.count("up to date") >= 4
    assert "nothing new" in again
    for stage, frame in tables(environment):
        pd.testing.assert_frame_equal(frame, before[stage])
        assert frame.attrs == before[stage].attrs


def test_status_tells_where_things_stand_before_and_after_a_simulated_day(
    told: str, home: Path
) -> None:
    quiet = ml_assets("status", "--home", str(home))
    arrived = ml_assets("simulate", "--days", "1", "--home", str(home))
    changed = ml_assets("status", "--home", str(home))
    ahead = ml_assets("simulate", "--home", str(home), check=False)
    # The demo of the next day would do the same: bring all that changed up to date.
    ml_assets("demo", "--days", "58", "--home", str(home))
    mended = ml_assets("status", "--home", str(home))

    assert "Changed in the source, not yet read: –" in quiet
    assert re.search(r"outcomes or corrections arrived for 4\d earlier days", arrived)
    assert re.search(r"not yet read: 4\d: 20\d\d-\d\d-\d\d … 20\d\d", changed)
    assert re.search(r"features +│ 58 +│ \S+ +│ 4\d: 20\d\d-\d\d-\d\d …", changed)
    assert "does not run ahead of the calendar" in ahead
    assert "Changed in the source, not yet read: –" in mended
    assert re.search(r"claims version 1, since \S+ \S+ UTC \(first, by gate: ", mended)
    assert "success" in mended


def test_a_day_that_breaks_the_contract_is_told_by_run_and_status(told: str, home: Path) -> None:
    import duckdb

    day = (date.today() - timedelta(days=3)).isoformat()
    with duckdb.connect(str(home / "warehouse.duckdb")) as connection:
        connection.execute(
            "UPDATE claims.ds_dataset SET marital_status = 'Z', updated_at = now() "
            "WHERE CAST(received_at AT TIME ZONE 'Europe/London' AS DATE) = CAST(? AS DATE)",
            [day],
        )

    failed = ml_assets("run", "ingestion", "--day", day, "--home", str(home), check=False)
    status = ml_assets("status", "--home", str(home))

    assert f"Error: {day}: 100.0% of the rows break the contract" in failed
    assert "for example marital_status = 'Z'" in failed
    assert re.search(rf"features +│ .*│ 1: {day} +│", status)
    assert f"Last failure: claims_ingestion of {day}: failure" in status
    assert "unknown_category in marital_status" in status


def test_the_demo_makes_the_same_tables_of_a_postgresql_warehouse(
    tmp_path: Path,
) -> None:
    from ml_assets_tests.postgres import running_postgres

    duckdb = load_environment("dev", environ={"ML_ASSETS_HOME": str(tmp_path / "duckdb")})
    ml_assets("demo", "--days", "58", "--home", str(duckdb.home))
    with running_postgres() as postgres:
        url = postgres.url(postgres.new_database())
        other = tmp_path / "postgresql"
        shown = ml_assets("demo", "--days", "58", "--warehouse", url, "--home", str(other))
        again = ml_assets("demo", "--days", "58", "--warehouse", url, "--home", str(other))

    assert ":right@" not in shown, "the password is shown"
    assert "set ML_ASSETS_WAREHOUSE_URL" in re.sub(r"\s+", " ", shown)
    assert "nothing new" in again
    made = dict(tables(load_environment("dev", environ={"ML_ASSETS_HOME": str(other)})))
    for stage, frame in tables(duckdb):
        # Each engine has a digest of its own; everything else is the same to the byte.
        own = frame.drop(columns="fingerprint", errors="ignore")
        pd.testing.assert_frame_equal(
            made[stage].drop(columns="fingerprint", errors="ignore"), own, obj=stage
        )
    assert not (other / "warehouse.duckdb").exists()
