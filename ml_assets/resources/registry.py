"""The model registry: MLflow, in a SQLite file by default, a server by URL.

A registered version carries a model bundle and how it came to be. Registering the same bundle for
the same day twice gives the same version, so a run that was cut short can simply run again. Which
version serves is decided by the champion asset; the alias here follows it.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from ml_assets.core.bundle import Bundle, CorruptBundle
from ml_assets.environment import mask_url

_FOLDER = "bundle"


class RegistryError(RuntimeError):
    """The registry cannot give or take a model; the message says which and what to do."""


@dataclass(frozen=True)
class Registry:
    """Registers model bundles, and loads them with their hash checked.

    Attributes:
        url: MLflow's database or server; may carry a password, and is never shown.
        artifacts: Where models go while `url` is a database.
        cache: A folder for local copies of models.
    """

    url: str = field(repr=False)
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

        Raises:
            RegistryError: The registry does not take it.
        """
        client = self._client()
        with self._explained(f"the model {name} of {as_of} cannot be registered in"):
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
        client = self._client()
        with self._explained(f"{alias} cannot point at {name} version {version} in"):
            client.set_registered_model_alias(name, alias, str(version))

    def _download(self, name: str, version: int) -> dict[str, bytes]:
        import mlflow.artifacts

        client = self._client()
        with (
            self._explained(f"{name} version {version} cannot be fetched from"),
            tempfile.TemporaryDirectory() as folder,
        ):
            found = client.get_model_version(name, str(version))
            local = mlflow.artifacts.download_artifacts(
                artifact_uri=found.source, dst_path=folder, tracking_uri=self.url
            )
            return _read_folder(Path(local))

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except (MlflowException, OSError) as error:
            # Without the cause: MLflow quotes the URL, and with it the password.
            place = mask_url(self.url)
            raise RegistryError(
                f"{what} the registry {place}: {str(error).replace(self.url, place)}. Check "
                "registry.url (ML_ASSETS_REGISTRY_URL) and that the artifact store is in place."
            ) from None

    def _client(self) -> Any:
        import logging

        # MLflow and alembic announce each step of creating their tables; not news to our users.
        for chatty in ("alembic", "mlflow.store.db.utils"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if self.url.startswith("sqlite:///"):
                _create_database(Path(self.url.removeprefix("sqlite:///")))
            return MlflowClient(tracking_uri=self.url, registry_uri=self.url)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise RegistryError(
                f"the registry {mask_url(self.url)} cannot be opened: {error}. Check registry.url "
                "(ML_ASSETS_REGISTRY_URL), or restore the database from a backup."
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


def _create_database(file: Path) -> None:
    """Create MLflow's database, unless it is there.

    MLflow makes its tables step by step, which takes seconds, and cannot open a database whose
    creation was killed half-way. So it is made aside, and put in place whole.
    """
    if file.exists():
        return
    from mlflow import MlflowClient

    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".mlflow-") as folder:
        aside = Path(folder) / file.name
        url = f"sqlite:///{aside}"
        MlflowClient(tracking_uri=url, registry_uri=url).search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.link(aside, file)


def _read_folder(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


def _write_folder(folder: Path, bundle: Bundle) -> None:
    """Write files one by one, each in full or not at all; a torn folder is mended by `load`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in bundle.to_files().items():
        with tempfile.NamedTemporaryFile(dir=folder.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(folder / name)
