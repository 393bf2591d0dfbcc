"""The whole graph: what is defined, and that every asset says what a person wants to know."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.build import build_definitions
from ml_assets.environment import ENVIRONMENTS, load_environment

STAGES = {
    "raw",
    "quarantine",
    "extraction",
    "features",
    "training_set",
    "hyperparameters",
    "model",
    "champion",
    "model_card",
    "predictions",
    "shadow",
    "maintenance",
    "monitoring",
}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dg.RepositoryDefinition:
    home = tmp_path_factory.mktemp("home")
    environment = load_environment("dev", environ={"ML_ASSETS_HOME": str(home)})
    return build_definitions(environment).get_repository_def()


def test_the_graph_is_the_journey_of_a_row(repository: dg.RepositoryDefinition) -> None:
    graph = repository.asset_graph
    edges = {
        (parent.path[-1], key.path[-1])
        for key in graph.get_all_asset_keys()
        for parent in graph.get(key).parent_keys
    }

    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        f"claims/{stage}" for stage in STAGES
    }
    assert edges == {
        ("raw", "features"),
        ("features", "training_set"),
        ("training_set", "hyperparameters"),
        ("hyperparameters", "model"),
        ("training_set", "model"),
        ("training_set", "champion"),
        ("model", "champion"),
        ("features", "predictions"),
        ("champion", "predictions"),
        ("champion", "model_card"),
        ("features", "shadow"),
        ("predictions", "shadow"),
        ("features", "monitoring"),
        ("predictions", "monitoring"),
        ("shadow", "monitoring"),
    }


@pytest.mark.parametrize("stage", sorted(STAGES))
def test_every_asset_says_what_it_is(repository: dg.RepositoryDefinition, stage: str) -> None:
    key = dg.AssetKey(["claims", stage])
    node = repository.asset_graph.get(key)
    definition = repository.assets_defs_by_key[key]

    assert len(node.description or "") > 40
    assert node.owners == ["team:data-science"]
    assert node.kinds
    assert node.group_name == "claims"
    assert len(node.code_version or "") == 12
    assert isinstance(node.partitions_def, dg.DailyPartitionsDefinition)
    if stage == "model_card":
        return  # a page and no table
    schema = definition.metadata_by_key[key]["dagster/column_schema"]
    described = [column.description for column in schema.columns]
    assert all(described), "every column reaches the UI with a description"


@pytest.mark.parametrize("stage", ["raw", "features", "predictions", "shadow", "quarantine"])
def test_the_type_of_an_asset_is_its_contract(
    repository: dg.RepositoryDefinition, stage: str
) -> None:
    import pandas as pd

    key = dg.AssetKey(["claims", stage])
    definition = repository.assets_defs_by_key[key]
    name = definition.get_output_name_for_asset_key(key)
    (output,) = [each for each in definition.op.output_defs if each.name == name]

    check = output.dagster_type.type_check(None, pd.DataFrame({"day": ["yesterday"]}))

    assert not check.success


def test_the_jobs_schedules_and_sensor_are_there(repository: dg.RepositoryDefinition) -> None:
    jobs = {job.name for job in repository.get_all_jobs() if not job.name.startswith("__")}

    assert jobs == {
        "claims_ingestion",
        "claims_scoring",
        "claims_training",
        "claims_tuning",
        "claims_maintenance",
        "claims_monitoring",
        "claims_freshness",
    }
    assert {each.name for each in repository.schedule_defs} == {
        "claims_scoring_daily",
        "claims_training_daily",
        "claims_tuning_weekly",
        "claims_maintenance_weekly",
        "claims_monitoring_daily",
        "claims_freshness_daily",
    }
    assert {each.name for each in repository.sensor_defs} == {"claims_new_data", "alerts"}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_builds(name: str) -> None:
    repository = build_definitions(load_environment(name, environ={})).get_repository_def()

    assert len(repository.asset_graph.get_all_asset_keys()) == len(STAGES)
    assert bool(list(repository.schedule_defs)) is (name != "preprod")


def test_loading_is_quiet_does_no_work_and_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys, ml_assets.definitions as found; found.defs.get_repository_def();"
        "print([name for name in ('xgboost', 'mlflow', 'matplotlib', 'sklearn', 'scipy', 'optuna')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert done.stderr == ""
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_a_resource_can_be_replaced(tmp_path: Path) -> None:
    from ml_assets.resources.lake import Lake

    environment = load_environment("dev", environ={"ML_ASSETS_HOME": str(tmp_path)})
    other = Lake(url="elsewhere", storage_options={}, attempts=1)

    definitions = build_definitions(environment, resource_overrides={"lake": other})

    assert definitions.resources is not None
    assert definitions.resources["lake"] is other
    assert definitions.resources["lake_io_manager"].lake is other


def test_no_secret_reaches_what_the_ui_shows(tmp_path: Path) -> None:
    from dagster._core.remote_representation.external_data import RepositorySnap
    from dagster_shared.serdes import serialize_value

    environ = {
        "ML_ASSETS_HOME": str(tmp_path),
        "ML_ASSETS_WAREHOUSE_URL": "postgresql://ml:hunter2@db/claims",
        "ML_ASSETS_REGISTRY_URL": "http://ml:hunter2@models:5000",
    }
    definitions = build_definitions(load_environment("dev", environ=environ))

    shown = serialize_value(RepositorySnap.from_def(definitions.get_repository_def()))

    assert "claims_scoring" in shown
    assert "hunter2" not in shown
    assert "hunter2" not in repr(definitions.resources)


def test_one_run_at_a_time_writes_the_tables(repository: dg.RepositoryDefinition) -> None:
    pools = {
        key.path[-1]: definition.op.pool
        for key, definition in repository.assets_defs_by_key.items()
    }

    written = {stage for stage, pool in pools.items() if pool == "claims_tables"}
    assert written == STAGES - {
        "training_set",
        "hyperparameters",
        "model",
        "champion",
        "model_card",
    }
    assert pools["champion"] == "claims_champion"
