"""The model registry: MLflow, in a SQLite file by default, a server by URL.

A registered version carries a model bundle and how it came to be. Registering the same bundle for
the same day twice gives the same version, so a run that was cut short can simply run again. Which
version serves is decided by the champion asset; the alias here follows it.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from ml_assets.core.bundle import Bundle, CorruptBundle
from ml_assets.environment import mask_url

_FOLDER = "bundle"


class RegistryError(RuntimeError):
    """The registry cannot give or take a model; the message says which and what to do."""


class Registry(dg.ConfigurableResource[Any]):
    """Registers model bundles, and loads them with their hash checked."""

    url: str
    artifacts: str
    cache: str

    def register(
        self,
        name: str,
        bundle: Bundle,
        *,
        as_of: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> int:
        """Register a bundle, or find it registered already for this day.

        Args:
            name: Name of the registered model: the use case's.
            bundle: The model.
            as_of: The day that it was trained for.
            metrics: How well it did.
            tags: Further facts, for people who browse the registry.

        Returns:
            The version.
        """
        client = self._client()
        identity = {"sha256": bundle.sha256, "as_of": as_of}
        for known in client.search_model_versions(f"name = '{name}'"):
            if all(known.tags.get(key) == value for key, value in identity.items()):
                return int(known.version)
        run = client.create_run(self._experiment(client, name), run_name=f"{name} {as_of}")
        run_id = run.info.run_id
        for metric, value in metrics.items():
            client.log_metric(run_id, metric, value)
        for key, value in bundle.facts.get("parameters", {}).items():
            client.log_param(run_id, key, value)
        with tempfile.TemporaryDirectory() as folder:
            for file, content in bundle.to_files().items():
                (Path(folder) / file).write_bytes(content)
            client.log_artifacts(run_id, folder, _FOLDER)
        self._create_model(client, name)
        version = client.create_model_version(
            name,
            source=f"{run.info.artifact_uri}/{_FOLDER}",
            run_id=run_id,
            tags={**tags, **identity},
        )
        client.set_terminated(run_id)
        return int(version.version)

    def load(self, name: str, version: int, sha256: str) -> Bundle:
        """Load a version, from the local cache if it is there and sound.

        Raises:
            RegistryError: The registry does not have the version, or its files are corrupt.
        """
        cached = Path(self.cache) / sha256
        if cached.is_dir():
            try:
                return Bundle.from_files(_read_folder(cached), sha256)
            except CorruptBundle as error:
                dg.get_dagster_logger().warning(
                    f"the cached copy of {name} version {version} is corrupt ({error}); "
                    "fetching it from the registry again"
                )
        try:
            bundle = Bundle.from_files(self._download(name, version), sha256)
        except CorruptBundle as error:
            raise RegistryError(
                f"{name} version {version} in the registry {mask_url(self.url)} is corrupt: "
                f"{error}. Restore its files from a backup, or materialise {name}/model and "
                f"{name}/champion for a later day to replace it."
            ) from error
        _write_folder(cached, bundle)
        return bundle

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let an alias such as `champion` point at a version."""
        self._client().set_registered_model_alias(name, alias, str(version))

    def _download(self, name: str, version: int) -> dict[str, bytes]:
        import mlflow.artifacts
        from mlflow.exceptions import MlflowException

        client = self._client()
        try:
            found = client.get_model_version(name, str(version))
            with tempfile.TemporaryDirectory() as folder:
                local = mlflow.artifacts.download_artifacts(
                    artifact_uri=found.source, dst_path=folder, tracking_uri=self.url
                )
                return _read_folder(Path(local))
        except (MlflowException, OSError) as error:
            raise RegistryError(
                f"{name} version {version} cannot be fetched from the registry "
                f"{mask_url(self.url)}: {error}. Check registry.url (ML_ASSETS_REGISTRY_URL) and "
                "that the artifact store is in place."
            ) from error

    def _client(self) -> Any:
        import logging
        import os

        # MLflow and alembic announce each step of creating their tables; not news to our users.
        for chatty in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException

        if self.url.startswith("sqlite:///"):
            Path(self.url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            return MlflowClient(tracking_uri=self.url, registry_uri=self.url)
        except MlflowException as error:
            raise RegistryError(
                f"the registry {mask_url(self.url)} cannot be opened: {error}"
            ) from error

    def _experiment(self, client: Any, name: str) -> str:
        if found := client.get_experiment_by_name(name):
            return str(found.experiment_id)
        # A server has an artifact store of its own; a bare database needs to be told.
        place = None if self.url.startswith("http") else f"{self.artifacts}/{name}"
        return str(client.create_experiment(name, artifact_location=place))

    @staticmethod
    def _create_model(client: Any, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def _write_folder(folder: Path, bundle: Bundle) -> None:
    """Write files one by one, each in full or not at all; a torn folder is mended by `load`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in bundle.to_files().items():
        with tempfile.NamedTemporaryFile(dir=folder.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(folder / name)
