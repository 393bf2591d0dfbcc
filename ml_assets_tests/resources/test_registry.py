import logging
import shutil
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import pandas as pd
import pytest

from ml_assets.core.bundle import BUNDLE_FILE, MODEL_FILE, Bundle
from ml_assets.core.scoring import predict
from ml_assets.resources.registry import Registry, RegistryError

DAY, NEXT_DAY = "2026-01-05", "2026-01-06"
ROWS = pd.DataFrame({"kind": ["A", "B", "A", "B"] * 10, "amount": np.arange(40.0)})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def registry(folder: Path) -> Registry:
    return registry_in(folder)


@pytest.fixture(scope="module")
def trained() -> Bundle:
    import xgboost as xgb

    matrix = xgb.DMatrix(
        np.column_stack([ROWS["kind"].eq("B"), ROWS["amount"]]).astype(np.float32),
        label=ROWS["kind"].eq("B"),
        feature_names=["kind", "amount"],
        feature_types=["c", "q"],
        enable_categorical=True,
    )
    booster = xgb.train({"objective": "binary:logistic", "nthread": 1}, matrix, 2)
    return Bundle(
        trees=bytes(booster.save_raw("ubj")),
        inputs=("kind", "amount"),
        vocabulary={"kind": ("A", "B")},
        facts={"parameters": {"max_depth": 6}},
    )


@pytest.fixture
def bundle(trained: Bundle) -> Bundle:
    """Another model for each test, so that none meets the copies of an earlier one."""
    return replace(trained, facts={**trained.facts, "test": uuid4().hex})


@pytest.fixture
def name(bundle: Bundle) -> str:
    return f"claims_{bundle.facts['test']}"


@pytest.fixture
def warnings_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    logger = logging.getLogger("dagster")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def registry_in(folder: Path) -> Registry:
    return Registry(
        url=f"sqlite:///{folder}/mlflow.db",
        artifacts=f"{folder}/artifacts",
        cache=f"{folder}/cache",
    )


def register(registry: Registry, name: str, bundle: Bundle, as_of: str = DAY) -> int:
    return registry.register(
        name, bundle, as_of=as_of, metrics={"log_loss": 0.25}, tags={"code_version": "abc"}
    )


def cached_files(registry: Registry, bundle: Bundle) -> Path:
    return Path(registry.cache) / bundle.sha256


def artifact(registry: Registry, name: str, file: str) -> Path:
    [found] = (Path(registry.artifacts) / name).rglob(file)
    return found


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
    other = replace(bundle, facts={**bundle.facts, "seed": 1})

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

    assert found.tags == {"code_version": "abc", "sha256": bundle.sha256, "as_of": DAY}
    assert run.data.metrics == {"log_loss": 0.25}
    assert run.data.params == {"max_depth": "6"}
    assert run.info.status == "FINISHED"


def test_nothing_is_pickled(registry: Registry, name: str, bundle: Bundle) -> None:
    register(registry, name, bundle)

    files = [file for file in (Path(registry.artifacts) / name).rglob("*") if file.is_file()]

    assert {file.name: file.read_bytes() for file in files} == bundle.to_files()


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

    assert f"{name} version 7 cannot be fetched" in str(refused.value)
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


@pytest.mark.parametrize(
    "use",
    [
        lambda registry, bundle: registry.load("claims", 1, bundle.sha256),
        lambda registry, bundle: register(registry, "claims", bundle),
        lambda registry, bundle: registry.set_alias("claims", "champion", 1),
    ],
    ids=["load", "register", "set_alias"],
)
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
