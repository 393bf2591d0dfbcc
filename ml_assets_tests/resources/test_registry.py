import contextlib
import hashlib
import json
import logging
import os
import pickletools
import shutil
import signal
import subprocess
import sys
import time
import traceback
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import BUNDLE_FILE, MODEL_FILE, Bundle, Served, encode, predict
from ml_assets.partitions import day_end, day_start
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets_tests.conftest import Platform
from ml_assets_tests.postgres import Postgres

DAY, NEXT_DAY = "2026-01-05", "2026-01-06"
VOCABULARY = {"kind": ("A", "B"), "level": (1, 2, 3)}
ROWS = pd.DataFrame(
    {"kind": ["A", "B", "A", "B"] * 10, "amount": np.arange(40.0), "level": [1, 2, 3, 1] * 10}
)
# As a source delivers rows: other columns, other order, gaps, values that no model has seen, and
# numbers as text; and the same rows as our contract reads them.
RAW = pd.DataFrame(
    {
        "level": ["1", "3", None, "9", "2"],
        "note": ["x", None, "y", "z", ""],
        "amount": [1.5, None, 3, -1e9, 7],
        "day": ["2026-01-05"] * 5,
        "kind": ["A", "B", "Z", None, "B"],
    },
    index=[7, 3, 5, 1, 9],
)
READ = RAW.assign(level=[1, 3, None, 9, 2])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def registry(folder: Path) -> Registry:
    return registry_in(folder)


@pytest.fixture(scope="module")
def fitted() -> Bundle:
    import xgboost as xgb

    matrix = xgb.DMatrix(
        encode(ROWS, ("kind", "amount", "level"), VOCABULARY),
        label=ROWS["kind"].eq("B") | ROWS["level"].eq(3),
        feature_names=["kind", "amount", "level"],
        feature_types=["c", "q", "c"],
        enable_categorical=True,
    )
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, matrix, 2)
    return Bundle(
        trees=bytes(booster.save_raw("ubj")),
        inputs=("kind", "amount", "level"),
        vocabulary=VOCABULARY,
        threshold=0.6,
        facts={
            "recipe": {"parameters": {"max_depth": 6}, "seed": 7},
            "training_set": {"content_hash": "c0ffee"},
        },
    )


@pytest.fixture
def bundle(fitted: Bundle) -> Bundle:
    """Another model for each test, so that none meets the copies of an earlier one."""
    return replace(fitted, facts={**fitted.facts, "test": uuid4().hex})


@pytest.fixture
def name(bundle: Bundle) -> str:
    return f"claims_{bundle.facts['test']}"


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("dagster")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


@pytest.fixture
def own_registry(tmp_path: Path) -> Registry:
    """A registry for one test alone, which may break it."""
    return registry_in(tmp_path)


def registry_in(folder: Path) -> Registry:
    return Registry(
        url=f"sqlite:///{folder}/mlflow.db",
        artifacts=f"{folder}/artifacts",
        cache=f"{folder}/cache",
    )


def register(
    registry: Registry, name: str, bundle: Bundle, as_of: str = DAY, **artifacts: bytes
) -> int:
    return registry.register(
        name,
        bundle,
        as_of=as_of,
        metrics={"log_loss": 0.25},
        tags={"code_version": "abc"},
        artifacts={"training_manifest.json": b"{}", "plots/roc.png": b"png", **artifacts},
        input_types={"day": "str", "kind": "str", "amount": "int64"},
    )


def cached_files(registry: Registry, bundle: Bundle) -> Path:
    return Path(registry.cache) / bundle.sha256


def artifact(registry: Registry, name: str, file: str) -> Path:
    [found] = (Path(registry.artifacts) / name).rglob(file)
    return found


def model_folder(registry: Registry, name: str, version: int) -> str:
    return str(client(registry).get_model_version(name, str(version)).source)


def artifacts_of(registry: Registry, name: str, version: int) -> dict[str, bytes]:
    """Every file of a version, by its path."""
    root = Path(model_folder(registry, name, version)).parent
    files = [file for file in root.rglob("*") if file.is_file()]
    return {str(file.relative_to(root)): file.read_bytes() for file in files}


def is_pickle(content: bytes) -> bool:
    try:
        opcodes = list(pickletools.genops(content))
    except Exception:
        return False
    return len(opcodes) > 1


def model_error() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    return MlflowException


def statuses(registry: Registry, name: str = "claims") -> list[str]:
    """How the runs of a model's registrations ended."""
    reader = client(registry)
    experiment = reader.get_experiment_by_name(name)
    return [run.info.status for run in reader.search_runs([experiment.experiment_id])]


def client(registry: Registry):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=registry.url, registry_uri=registry.url)


def test_a_registered_model_is_loaded_as_it_was(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    version = register(registry, name, bundle)

    loaded = registry.load(name, version, bundle.sha256)

    assert loaded == bundle
    np.testing.assert_array_equal(predict(loaded, ROWS), predict(bundle, ROWS))


def test_registering_the_same_model_for_the_same_day_again_gives_the_same_version(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    assert register(registry, name, bundle) == 1
    assert register(registry, name, bundle) == 1
    assert len(client(registry).search_model_versions(f"name = '{name}'")) == 1


def test_another_day_is_another_version(registry: Registry, name: str, bundle: Bundle) -> None:
    versions = [register(registry, name, bundle, day) for day in (DAY, NEXT_DAY, DAY)]

    assert versions == [1, 2, 1]


def test_another_model_for_the_same_day_is_another_version(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    other = replace(bundle, facts={**bundle.facts, "recipe": {"seed": 1}})

    assert [register(registry, name, model) for model in (bundle, other)] == [1, 2]
    assert registry.load(name, 1, bundle.sha256) == bundle
    assert registry.load(name, 2, other.sha256) == other


def test_models_of_two_names_are_numbered_apart(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    assert register(registry, name, bundle) == 1
    assert register(registry, f"{name}_other", bundle) == 1


def test_people_find_metrics_parameters_and_origin_in_the_registry(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    version = register(registry, name, bundle)

    found = client(registry).get_model_version(name, str(version))
    run = client(registry).get_run(found.run_id)

    lock = Path(__file__).parents[2] / "requirements.lock"
    assert found.tags == {
        "code_version": "abc",
        "sha256": bundle.sha256,
        "as_of": DAY,
        "seed": "7",
        "content_hash": "c0ffee",
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest(),
    }
    assert found.tags.items() <= run.data.tags.items()
    assert run.data.metrics == {"log_loss": 0.25}
    assert run.data.params == {"max_depth": "6"}
    assert run.info.status == "FINISHED"


def test_a_version_carries_what_it_was_given_and_its_environment(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    version = register(registry, name, bundle)

    assert registry.artifact(name, version, "training_manifest.json") == b"{}"
    assert registry.artifact(name, version, "plots/roc.png") == b"png"
    lines = registry.artifact(name, version, "environment.txt").decode().splitlines()
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(names))
    assert f"pandas=={pd.__version__}" in lines
    assert all(len(line.split("==")) == 2 and "/" not in line for line in lines)


def test_nothing_is_pickled(registry: Registry, name: str, bundle: Bundle) -> None:
    version = register(registry, name, bundle)

    files = artifacts_of(registry, name, version)

    assert len(files) > 10
    for path, content in files.items():
        assert Path(path).suffix not in {".pkl", ".pickle", ".joblib", ".cloudpickle"}
        assert b"pickle" not in content or path == "environment.txt" or path.endswith(".py"), path
        assert not is_pickle(content), path
    model = {path: content for path, content in files.items() if path.startswith("model/data/")}
    assert {Path(path).name: content for path, content in model.items()} == bundle.to_files()


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_would_be_found(protocol: int) -> None:
    import pickle

    assert is_pickle(pickle.dumps({"a": [1, 2.5, "three"]}, protocol=protocol))


def test_mlflow_serves_raw_rows_as_we_score_them_to_the_bit(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    import mlflow.pyfunc

    version = register(registry, name, bundle)
    expected = predict(bundle, READ)

    model = mlflow.pyfunc.load_model(model_folder(registry, name, version))
    told = model.predict(RAW)

    assert list(told.columns) == ["probability", "refer"]
    np.testing.assert_array_equal(told["probability"], expected)
    np.testing.assert_array_equal(told["refer"], expected >= bundle.threshold)
    assert told["refer"].nunique() == 2
    pd.testing.assert_index_equal(told.index, RAW.index)
    shuffled = RAW.sample(frac=1, random_state=1)[["amount", "note", "kind", "level", "day"]]
    np.testing.assert_array_equal(
        model.predict(shuffled)["probability"], told.loc[shuffled.index, "probability"]
    )
    for position in range(len(RAW)):
        alone = model.predict(RAW.iloc[[position]])
        assert alone["probability"].item() == expected[position]


def test_mlflow_serves_the_rows_of_the_real_source_as_we_score_their_features(
    trained: Platform,
) -> None:
    import mlflow.pyfunc

    zone, use_case = trained.environment.zone, trained.use_case
    newest = trained.registry.versions(use_case.name)[0]
    bundle = trained.registry.load(use_case.name, newest.version, newest.sha256)
    days = "2026-01-14", "2026-01-16"
    rows = trained.warehouse.read(
        use_case.query, (day_start(days[0], zone), day_end(days[1], zone))
    ).to_pandas()
    features = trained.table("features", *days)

    model = mlflow.pyfunc.load_model(model_folder(trained.registry, use_case.name, newest.version))
    told = model.predict(rows).set_index(rows[use_case.key])

    assert len(features) > 100
    np.testing.assert_array_equal(
        told.loc[features[use_case.key], "probability"], predict(bundle, features)
    )


@pytest.mark.parametrize(
    "types",
    [
        {"kind": "category"},
        {"kind": "string", "amount": "Float64"},
        {"amount": object},
        {"amount": "float32"},
        {"day": "datetime64[ns, UTC]"},
        {"level": "category"},
        {"level": "float64"},
    ],
    ids=str,
)
def test_mlflow_serves_rows_of_any_sensible_type(
    registry: Registry, name: str, bundle: Bundle, types: dict[str, Any]
) -> None:
    import mlflow.pyfunc

    version = register(registry, name, bundle)
    model = mlflow.pyfunc.load_model(model_folder(registry, name, version))

    told = model.predict(RAW.astype(types))

    np.testing.assert_array_equal(told["probability"], predict(bundle, READ))


@pytest.mark.parametrize("type_", ["int64", "Int8", "float64", "str", object])
def test_mlflow_serves_whole_numbers_of_any_type(
    registry: Registry, name: str, bundle: Bundle, type_: str
) -> None:
    import mlflow.pyfunc

    version = register(registry, name, bundle)
    model = mlflow.pyfunc.load_model(model_folder(registry, name, version))
    rows = ROWS.astype({"amount": type_, "level": type_})

    np.testing.assert_array_equal(model.predict(rows)["probability"], predict(bundle, ROWS))


def test_rows_without_an_input_are_refused_by_its_name(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    import mlflow.pyfunc

    version = register(registry, name, bundle)
    model = mlflow.pyfunc.load_model(model_folder(registry, name, version))

    for missing in (["kind"], ["amount", "kind"]):
        for predict_ in (model.predict, Served(bundle).predict):
            with pytest.raises((ValueError, model_error()), match=missing[0]):
                predict_(RAW.drop(columns=missing))


@pytest.mark.parametrize("column", ["amount", "level"])
def test_text_in_place_of_a_number_is_refused(bundle: Bundle, column: str) -> None:
    rows = RAW.assign(**{column: ["1", "2", "three", None, ""]})

    told = rf"{column} holds 'three' in row 5, which is not a number \(2 such rows\)"
    with pytest.raises(ValueError, match=told):
        Served(bundle).predict(rows)


def test_a_served_model_documents_its_inputs(registry: Registry, name: str, bundle: Bundle) -> None:
    import mlflow.pyfunc

    version = register(registry, name, bundle)
    model = mlflow.pyfunc.load_model(model_folder(registry, name, version))

    assert model.metadata.get_input_schema().required_input_names() == ["kind", "amount", "level"]
    assert model.metadata.get_input_schema().optional_input_names() == ["day"]
    about = model.metadata.metadata
    assert about["raw_columns"] == {"day": "str", "kind": "str", "amount": "int64"}
    assert about["sha256"] == bundle.sha256
    assert model.predict(model.input_example)["probability"].between(0, 1).all()


def test_a_served_model_brings_its_own_code(registry: Registry, name: str, bundle: Bundle) -> None:
    import mlflow.pyfunc

    version = register(registry, name, bundle)
    model = mlflow.pyfunc.load_model(model_folder(registry, name, version))

    code = sys.modules[model.loader_module]
    # Of this model, or of an earlier one with the same code.
    file = Path(code.__file__ or "")
    assert file.is_relative_to(registry.artifacts)
    assert (Path(model_folder(registry, name, version)) / "code" / file.name).is_file()
    code_lines = file.read_text().splitlines()
    assert not [line for line in code_lines if line.startswith(("from ml_assets", "import ml_"))]


def test_versions_are_listed_newest_first(registry: Registry, name: str, bundle: Bundle) -> None:
    started = datetime.now(UTC)
    other = replace(bundle, facts={**bundle.facts, "recipe": {"seed": 8}})
    register(registry, name, bundle, DAY)
    register(registry, name, other, NEXT_DAY)
    registry.set_alias(name, "champion", 1)
    registry.set_alias(name, "challenger", 2)
    registry.set_alias(name, "a_third", 2)

    newest, oldest = registry.versions(name)

    assert (newest.version, newest.as_of, newest.sha256) == (2, NEXT_DAY, other.sha256)
    assert (oldest.version, oldest.as_of, oldest.sha256) == (1, DAY, bundle.sha256)
    assert newest.aliases == ("a_third", "challenger")
    assert oldest.aliases == ("champion",)
    assert (newest.tags["seed"], oldest.tags["seed"]) == ("8", "7")
    assert newest.metrics == {"log_loss": 0.25}
    assert started.timestamp() - 1 < oldest.created.timestamp() <= newest.created.timestamp()
    assert newest.created.tzinfo is not None
    assert registry.version(name, 1) == oldest
    assert registry.version(name, 2) == newest


def test_a_model_that_was_never_registered_has_no_versions(registry: Registry, name: str) -> None:
    assert registry.versions(name) == []


def test_files_are_attached_over_earlier_ones(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    version = register(registry, name, bundle)

    registry.attach(name, version, {"model_card.md": b"proposed", "plots/roc.png": b"new"})
    registry.attach(name, version, {"model_card.md": b"approved"})

    assert registry.artifact(name, version, "model_card.md") == b"approved"
    assert registry.artifact(name, version, "plots/roc.png") == b"new"
    assert registry.load(name, version, bundle.sha256) == bundle


@pytest.mark.parametrize("path", ["../outside", "/outside", "plots/../../outside", ""])
def test_no_file_is_written_outside_of_a_version(
    registry: Registry, name: str, bundle: Bundle, path: str
) -> None:
    version = register(registry, name, bundle)

    with pytest.raises(ValueError, match="no path within a version's artifacts"):
        registry.attach(name, version, {path: b""})


def test_an_artifact_that_is_missing_is_named(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    version = register(registry, name, bundle)

    with pytest.raises(RegistryError, match=rf"card\.md of {name} version 1 cannot be fetched"):
        registry.artifact(name, version, "card.md")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////srv/mlflow.db", "http://127.0.0.1:5000/#/models/claims/versions/3"),
        ("postgresql://ml:s3cr3t@db/ml", "http://127.0.0.1:5000/#/models/claims/versions/3"),
        ("http://mlflow:5001/", "http://mlflow:5001/#/models/claims/versions/3"),
        ("https://u:s3@cr3t@mlflow/at", "https://mlflow/at/#/models/claims/versions/3"),
    ],
)
def test_a_version_has_an_address_without_a_password(url: str, expected: str) -> None:
    assert Registry(url=url, artifacts="", cache="").link("claims", 3) == expected


def test_a_store_that_fails_midway_leaves_nothing_that_looks_registered(
    own_registry: Registry, bundle: Bundle
) -> None:
    Path(own_registry.artifacts).parent.mkdir(exist_ok=True)
    Path(own_registry.artifacts).write_text("a file where the store should be")

    with pytest.raises(RegistryError) as refused:
        register(own_registry, "claims", bundle)

    assert f"the model claims of {DAY} cannot be registered" in str(refused.value)
    assert "artifact store" in str(refused.value)
    assert own_registry.versions("claims") == []
    assert statuses(own_registry) == ["FAILED"]
    Path(own_registry.artifacts).unlink()
    assert register(own_registry, "claims", bundle) == 1
    assert own_registry.load("claims", 1, bundle.sha256) == bundle
    assert sorted(statuses(own_registry)) == ["FAILED", "FINISHED"]


def test_a_registration_that_breaks_before_its_last_step_is_no_version(
    own_registry: Registry, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", interrupted)
        with pytest.raises(KeyboardInterrupt):
            register(own_registry, "claims", bundle)

    assert own_registry.versions("claims") == []
    assert statuses(own_registry) == ["FAILED"]
    assert register(own_registry, "claims", bundle) == 1


@pytest.mark.parametrize(
    ("dies_in", "status"), [("create_model_version", "FAILED"), ("set_terminated", "FINISHED")]
)
def test_a_registration_that_was_killed_is_repaired_by_the_next(
    own_registry: Registry,
    bundle: Bundle,
    monkeypatch: pytest.MonkeyPatch,
    dies_in: str,
    status: str,
) -> None:
    from mlflow import MlflowClient

    class Killed(BaseException):
        pass

    def killed(*args: Any, **kwargs: Any) -> None:
        # As by SIGKILL, no later call comes through.
        patch.setattr(MlflowClient, "set_terminated", killed)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, dies_in, killed)
        with pytest.raises(Killed):
            register(own_registry, "claims", bundle)
    assert statuses(own_registry) == ["RUNNING"]

    assert register(own_registry, "claims", bundle) == 1

    assert [each.version for each in own_registry.versions("claims")] == [1]
    assert own_registry.load("claims", 1, bundle.sha256) == bundle
    assert status in statuses(own_registry)
    assert "RUNNING" not in statuses(own_registry)


def test_a_cached_copy_serves_without_the_registry(
    registry: Registry, name: str, bundle: Bundle, tmp_path: Path
) -> None:
    version = register(registry, name, bundle)
    registry.load(name, version, bundle.sha256)
    offline = Registry(url=f"sqlite:///{tmp_path}/x.db", artifacts="", cache=registry.cache)

    assert offline.load(name, version, bundle.sha256) == bundle
    assert not (tmp_path / "x.db").exists()


@pytest.mark.parametrize("file", [MODEL_FILE, BUNDLE_FILE])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), Path.unlink])
def test_a_corrupt_cached_copy_is_mended_from_the_registry(
    registry: Registry,
    name: str,
    bundle: Bundle,
    warnings_logged: pytest.LogCaptureFixture,
    file: str,
    damage,
) -> None:
    version = register(registry, name, bundle)
    registry.load(name, version, bundle.sha256)
    damage(cached_files(registry, bundle) / file)

    assert registry.load(name, version, bundle.sha256) == bundle
    assert (cached_files(registry, bundle) / file).read_bytes() == bundle.to_files()[file]
    assert f"cached copy of {name} version {version} is corrupt ({file}" in warnings_logged.text


@pytest.mark.parametrize("file", [MODEL_FILE, BUNDLE_FILE])
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"x"), Path.unlink])
def test_a_corrupt_artifact_is_an_error_that_names_model_version_and_remedy(
    registry: Registry, name: str, bundle: Bundle, file: str, damage
) -> None:
    version = register(registry, name, bundle)
    damage(artifact(registry, name, file))

    with pytest.raises(RegistryError) as refused:
        registry.load(name, version, bundle.sha256)

    message = str(refused.value)
    assert f"{name} version {version}" in message
    assert f"is corrupt: {file}" in message
    assert "Restore its files from a backup" in message
    assert f"{name}/model" in message
    assert not cached_files(registry, bundle).exists()


def test_a_version_with_another_hash_than_asked_for_is_refused(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    version = register(registry, name, bundle)

    with pytest.raises(RegistryError, match=f"version {version} .* expected {'0' * 64}"):
        registry.load(name, version, "0" * 64)


def test_a_missing_version_is_named_with_the_remedy(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    register(registry, name, bundle)

    with pytest.raises(RegistryError) as refused:
        registry.load(name, 7, "0" * 64)

    assert f"{name} has no version 7" in str(refused.value)
    assert "the newest known: 1." in str(refused.value)
    assert "ML_ASSETS_REGISTRY_URL" in str(refused.value)


def test_artifacts_that_are_gone_are_told_with_the_remedy(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    version = register(registry, name, bundle)
    shutil.rmtree(Path(registry.artifacts) / name)

    with pytest.raises(RegistryError, match=f"{name} version {version} cannot be fetched"):
        registry.load(name, version, bundle.sha256)


def test_an_alias_points_at_one_version_and_can_move(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    for day in (DAY, NEXT_DAY):
        register(registry, name, bundle, day)

    for version in (1, 2):
        registry.set_alias(name, "champion", version)
        found = client(registry).get_model_version_by_alias(name, "champion")
        assert int(found.version) == version


def test_a_file_that_is_no_database_is_told_with_the_remedy(tmp_path: Path, bundle: Bundle) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"garbage" * 1000)

    with pytest.raises(RegistryError) as refused:
        registry_in(tmp_path).load("claims", 1, bundle.sha256)

    assert f"{tmp_path}/mlflow.db cannot be opened" in str(refused.value)
    assert "restore the database" in str(refused.value)


def test_an_alias_cannot_point_at_a_version_that_is_missing(registry: Registry, name: str) -> None:
    with pytest.raises(RegistryError, match=f"champion cannot point at {name} version 1"):
        registry.set_alias(name, "champion", 1)


USES = {
    "load": lambda registry, bundle: registry.load("claims", 1, bundle.sha256),
    "register": lambda registry, bundle: register(registry, "claims", bundle),
    "set_alias": lambda registry, bundle: registry.set_alias("claims", "champion", 1),
    "versions": lambda registry, bundle: registry.versions("claims"),
    "version": lambda registry, bundle: registry.version("claims", 1),
    "attach": lambda registry, bundle: registry.attach("claims", 1, {"card.md": b""}),
    "artifact": lambda registry, bundle: registry.artifact("claims", 1, "card.md"),
}


@pytest.mark.parametrize("use", ["version", "attach", "artifact", "load"])
def test_an_unknown_version_is_told_with_the_newest_known(
    registry: Registry, bundle: Bundle, use: str
) -> None:
    with pytest.raises(RegistryError, match=r"claims has no version 1 .* newest known: none"):
        USES[use](registry, bundle)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_server_that_cannot_be_reached_is_told_without_the_password_in_its_url(
    tmp_path: Path, bundle: Bundle, free_port: int, monkeypatch: pytest.MonkeyPatch, use
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    url = f"http://user:s3cr3t@127.0.0.1:{free_port}"
    registry = Registry(url=url, artifacts="", cache=str(tmp_path))

    with pytest.raises(RegistryError) as refused:
        use(registry, bundle)

    told = "".join(traceback.format_exception(refused.value))
    assert f"the registry http://user:***@127.0.0.1:{free_port}: " in told
    assert "ML_ASSETS_REGISTRY_URL" in told
    assert "s3cr3t" not in told


@dataclass
class Server:
    """A real `mlflow server` with a database and an artifact store of its own."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, max_file_bytes: int | None = None) -> None:
        """Start the server; with a limit, its disk is as good as full for larger files."""
        import resource

        def limit() -> None:
            if max_file_bytes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

        store = [
            *["--backend-store-uri", f"sqlite:///{self.folder}/server.db"],
            *["--artifacts-destination", f"{self.folder}/store"],
        ]
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, *place],
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=limit,
            )
        self.processes.append(process)
        deadline = time.monotonic() + 120
        while not self.answers():
            assert process.poll() is None, (self.folder / "server.log").read_text()
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.2)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture
def server(tmp_path: Path, free_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    # One: after an error of its own, the server closes the connection.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    found = Server(tmp_path, free_port)
    try:
        yield found
    finally:
        found.kill()


def registry_at(server: Server) -> Registry:
    return Registry(url=server.url, artifacts="", cache=f"{server.folder}/cache")


@pytest.mark.slow
def test_a_server_is_a_registry(server: Server, bundle: Bundle) -> None:
    import mlflow.pyfunc

    server.start()
    registry = registry_at(server)

    assert registry.versions("claims") == []
    assert register(registry, "claims", bundle) == 1
    assert register(registry, "claims", bundle) == 1
    assert register(registry, "claims", bundle, NEXT_DAY) == 2
    registry.set_alias("claims", "champion", 1)
    registry.set_alias("claims", "challenger", 2)
    registry.attach("claims", 2, {"model_card.md": b"proposed"})
    registry.attach("claims", 2, {"model_card.md": b"approved"})

    assert registry.load("claims", 1, bundle.sha256) == bundle
    assert registry.artifact("claims", 2, "model_card.md") == b"approved"
    assert registry.artifact("claims", 1, "plots/roc.png") == b"png"
    newest, oldest = registry.versions("claims")
    assert (newest.as_of, newest.aliases) == (NEXT_DAY, ("challenger",))
    assert (oldest.as_of, oldest.aliases) == (DAY, ("champion",))
    assert oldest.metrics == {"log_loss": 0.25}
    assert registry.version("claims", 2) == newest
    with pytest.raises(RegistryError, match=r"no version 3 .* newest known: 2, 1"):
        registry.version("claims", 3)
    source = client(registry).get_model_version("claims", "1").source
    folder = mlflow.artifacts.download_artifacts(source, tracking_uri=server.url)
    told = mlflow.pyfunc.load_model(folder).predict(RAW)
    np.testing.assert_array_equal(told["probability"], predict(bundle, READ))
    with urllib.request.urlopen(registry.link("claims", 1), timeout=10) as page:
        assert b"MLflow" in page.read()


@pytest.mark.slow
@pytest.mark.parametrize("dies_before", ["log_batch", "log_artifacts", "create_model_version"])
def test_a_server_that_dies_in_mid_registration_is_told_and_later_repaired(
    server: Server, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, dies_before: str
) -> None:
    from mlflow import MlflowClient

    server.start()
    registry = registry_at(server)
    original = getattr(MlflowClient, dies_before)

    def after_its_death(*args: Any, **kwargs: Any) -> Any:
        server.kill()
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, dies_before, after_its_death)
        with pytest.raises(RegistryError) as refused:
            register(registry, "claims", bundle)
    assert f"the model claims of {DAY} cannot be registered in" in str(refused.value)
    assert "ML_ASSETS_REGISTRY_URL" in str(refused.value)

    server.start()
    assert registry.versions("claims") == []
    assert statuses(registry) == ["RUNNING"]
    assert register(registry, "claims", bundle) == 1
    assert [each.version for each in registry.versions("claims")] == [1]
    assert sorted(statuses(registry)) == ["FAILED", "FINISHED"]
    assert registry.load("claims", 1, bundle.sha256) == bundle


@pytest.mark.slow
def test_a_server_whose_artifact_store_is_full_registers_nothing(
    server: Server, bundle: Bundle
) -> None:
    server.start(max_file_bytes=8_000_000)
    registry = registry_at(server)

    with pytest.raises(RegistryError) as refused:
        register(registry, "claims", bundle, large=b"x" * 10_000_000)

    assert f"the model claims of {DAY} cannot be registered in" in str(refused.value)
    assert "has room" in str(refused.value)
    assert registry.versions("claims") == []
    assert statuses(registry) == ["FAILED"]
    assert register(registry, "claims", bundle) == 1


@pytest.mark.slow
def test_a_full_disk_registers_nothing(own_registry: Registry, bundle: Bundle) -> None:
    own_registry.open()
    files = bundle.to_files()
    folder = Path(own_registry.cache).parent
    for name, content in files.items():
        (folder / name).write_bytes(content)
    script = f"""
import resource, sys
from pathlib import Path
from ml_assets.core.bundle import Bundle
from ml_assets.partitions import day_end, day_start
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets_tests.conftest import Platform

folder = Path({str(folder)!r})
bundle = Bundle.from_files({{n: (folder / n).read_bytes() for n in {list(files)}}})
registry = Registry(url={own_registry.url!r}, artifacts={own_registry.artifacts!r}, cache="")
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, 8_000_000))
try:
    registry.register("claims", bundle, as_of="{DAY}", metrics={{}}, tags={{}},
                      artifacts={{"large": b"x" * 10_000_000}})
except RegistryError as error:
    sys.exit(str(error))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert f"the model claims of {DAY} cannot be registered in" in done.stderr
    assert "File too large" in done.stderr
    assert own_registry.versions("claims") == []
    assert statuses(own_registry) == ["FAILED"]
    assert register(own_registry, "claims", bundle) == 1


@pytest.mark.slow
def test_a_model_runs_in_an_environment_of_its_own_requirements(
    own_registry: Registry, bundle: Bundle, tmp_path: Path
) -> None:
    version = register(own_registry, "claims", bundle)
    model = tmp_path / "elsewhere"
    shutil.copytree(model_folder(own_registry, "claims", version), model)
    clean = tmp_path / "clean"
    environ = {k: v for k, v in os.environ.items() if k not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    python = str(clean / "bin" / "python")
    subprocess.run([sys.executable, "-m", "venv", str(clean)], check=True, env=environ)
    install = [python, "-m", "pip", "install", "--quiet", "-r", str(model / "requirements.txt")]
    subprocess.run(install, check=True, env=environ, cwd=tmp_path)
    rows = RAW.to_json(orient="split")
    script = """
import io, json, sys
import mlflow.pyfunc, pandas as pd

try:
    import ml_assets
except ModuleNotFoundError:
    pass
else:
    sys.exit("ml_assets must not be there")
rows = pd.read_json(io.StringIO(sys.argv[2]), orient="split", convert_dates=False)
told = mlflow.pyfunc.load_model(sys.argv[1]).predict(rows)
print(json.dumps({"index": list(told.index), **told.to_dict("list")}))
"""

    done = subprocess.run(
        [python, "-I", "-c", script, str(model), rows],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        cwd=tmp_path,
    )

    assert done.returncode == 0, done.stderr
    expected = predict(bundle, READ)
    assert json.loads(done.stdout) == {
        "index": list(RAW.index),
        "probability": list(expected),
        "refer": list(expected >= bundle.threshold),
    }


def test_models_belong_to_the_environment_that_registered_first(
    registry: Registry, name: str, bundle: Bundle
) -> None:
    dev, prod, sharing = (
        replace(registry, owners=owners) for owners in (("dev",), ("prod",), ("prod", "dev"))
    )
    version = register(dev, name, bundle)

    with pytest.raises(RegistryError, match=r"belong to dev.*shares: \[dev\.registry\]"):
        register(prod, name, bundle, NEXT_DAY)
    with pytest.raises(RegistryError, match=r"belong to dev.*must not change them"):
        prod.set_alias(name, "champion", version)

    assert [each.as_of for each in prod.versions(name)] == [DAY]
    assert prod.owner(name) == "dev"
    sharing.set_alias(name, "champion", version)
    assert register(sharing, name, bundle, NEXT_DAY) == 2


@pytest.mark.slow
def test_a_registry_in_postgresql_keeps_models_without_showing_its_password(
    tmp_path: Path, bundle: Bundle, name: str, postgres: Postgres
) -> None:
    url = postgres.url(postgres.new_database(), password="right")
    registry = replace(registry_in(tmp_path), url=url)

    version = register(registry, name, bundle)

    loaded = replace(registry, cache=f"{tmp_path}/other").load(name, version, bundle.sha256)
    assert loaded.sha256 == bundle.sha256
    with pytest.raises(RegistryError) as absent:
        registry.version(name, 99)
    assert ":right@" not in str(absent.value)
