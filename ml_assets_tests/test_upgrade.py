"""Databases of the versions before are brought to the installed ones, and nothing in them is lost.

Dagster's and MLflow's stores are made by the installed versions and taken back by their own
migrations (alembic) to an earlier revision, as they stood before an upgrade. Stores made by the
versions before themselves were migrated by hand: docs/runbook.md.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.environment import load_environment
from ml_assets.home import prepare_home
from ml_assets_tests.postgres import run_sql, running_postgres

pytestmark = pytest.mark.slow

MLFLOW_BEFORE = "b7e2c1a4d9f3"  # of MLflow 3.16
DAGSTER_BEFORE = "-2"  # the schemas of Dagster 1.12 and 1.13 are the same, so further back


@dg.asset
def one() -> None: ...


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    before = dict(os.environ)
    monkeypatch.setenv("ML_ASSETS_HOME", str(tmp_path / "home"))
    yield tmp_path / "home"
    os.environ.clear()
    os.environ.update(before)


def migrate() -> str:
    done = CliRunner().invoke(app, ["migrate"])
    assert done.exit_code == 0, done.output
    return done.output


def test_mlflows_database_of_the_version_before_is_upgraded(home: Path) -> None:
    import mlflow.store.db.utils
    from alembic import command
    from mlflow import MlflowClient

    url = f"sqlite:///{home}/mlflow.db"
    home.mkdir()
    client = MlflowClient(url)
    run = client.create_run(client.create_experiment("claims", artifact_location=f"{home}/a"))
    client.create_registered_model("claims")
    client.create_model_version("claims", f"{home}/a/model", run.info.run_id)
    head = mlflow_revision(home)
    config = mlflow.store.db.utils._get_alembic_config(url)
    command.downgrade(config, MLFLOW_BEFORE)
    assert mlflow_revision(home) == MLFLOW_BEFORE != head

    told = migrate()

    assert "MLflow's database has the schema of the installed version" in told
    assert mlflow_revision(home) == head
    found = MlflowClient(url).search_model_versions("")
    assert [(each.name, int(each.version)) for each in found] == [("claims", 1)]
    migrate()  # once more changes nothing
    assert mlflow_revision(home) == head


def mlflow_revision(home: Path) -> str:
    with closing(sqlite3.connect(home / "mlflow.db")) as database:
        return str(database.execute("SELECT version_num FROM alembic_version").fetchone()[0])


def test_dagsters_database_of_an_earlier_revision_is_upgraded(home: Path) -> None:
    with running_postgres() as server:
        url = server.url(server.new_database())
        os.environ["ML_ASSETS_STORAGE_URL"] = url
        prepare_home(load_environment())
        with dg.DagsterInstance.get() as instance:
            assert dg.materialize([one], instance=instance).success
        head = dagster_revision(url)
        take_dagster_back(url)
        assert dagster_revision(url) != head

        told = migrate()

        assert "Dagster's database has the schema of the installed version" in told
        assert dagster_revision(url) == head
        with dg.DagsterInstance.get() as instance:
            assert instance.get_runs_count() == 1
            assert instance.get_latest_materialization_event(dg.AssetKey("one")) is not None
            assert dg.materialize([one], instance=instance).success


def dagster_revision(url: str) -> str:
    return str(run_sql(url, "SELECT version_num FROM alembic_version")[0]["version_num"])


def take_dagster_back(url: str) -> None:
    """Take the schema back by some revisions, by Dagster's own migrations."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    folder = Path(dg.__file__).parent / "_core" / "storage" / "alembic"
    config.set_main_option("script_location", str(folder))
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg2://"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, DAGSTER_BEFORE)
    engine.dispose()
