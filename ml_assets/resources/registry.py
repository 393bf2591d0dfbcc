"""The model registry: MLflow, in a SQLite file by default, a server by URL.

A registered version carries a model that MLflow can serve anywhere, and how it came to be.
Registering the same bundle for the same day twice gives the same version, so a run that was cut
short can simply run again. Which version serves is decided by the champion asset; the alias here
follows it.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import dagster as dg
import pandas as pd

from ml_assets.core import bundle as served
from ml_assets.core.bundle import Bundle, CorruptBundle
from ml_assets.core.texts import visible
from ml_assets.environment import with_driver
from ml_assets.masking import mask_url

MLFLOW_PORT = 5000  # where `ml-assets ui` shows a registry that is a database

_MODEL = "model"  # the folder of the MLflow model among a version's artifacts
_DATA = "data/bundle"  # within it, the bundle's files, where MLflow copies them
_LOCK = Path(__file__).parents[2] / "requirements.lock"  # there in an editable install
# All that the copied `core/bundle.py` and MLflow need to load and score a model.
_REQUIREMENTS = ("mlflow-skinny", "numpy", "pandas", "scipy", "xgboost")
_STAMP = "ml_assets.environment"  # the experiment's tag that names whose it is
_MOST = 10_000  # versions, or runs, in one answer of MLflow


class RegistryError(RuntimeError):
    """The registry cannot give or take a model; the message says which and what to do."""


@dataclass(frozen=True)
class Version:
    """A registered version of a model, as the registry knows it.

    Attributes:
        version: Its number, from 1.
        as_of: The day that it was trained for.
        sha256: The hash that names its bundle.
        metrics: How well it did.
        tags: What else names its origin: code version, content hash, seed, hash of the lock.
        aliases: Those that point at it now: `champion`, `challenger`.
        created: When it was registered, with a time zone.
        run_id: The MLflow run that holds its artifacts.
    """

    version: int
    as_of: str
    sha256: str
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    created: datetime
    run_id: str


@dataclass(frozen=True)
class Registry:
    """Registers model bundles, and loads them with their hash checked.

    Attributes:
        url: MLflow's database or server; may carry a password, and is never shown.
        artifacts: Where models go while `url` is a database.
        cache: A folder for local copies of models.
        owners: The environment that it belongs to, and after it those that may have stamped it;
            one with the stamp of another takes nothing from us. Empty: nobody asks.
    """

    url: str = field(repr=False)
    artifacts: str
    cache: str
    owners: tuple[str, ...] = ()

    @property
    def is_server(self) -> bool:
        """Whether the registry is an MLflow server, with a UI of its own."""
        return self.url.startswith("http")

    @property
    def _uri(self) -> str:
        return with_driver(self.url)

    @property
    def _file(self) -> Path | None:
        start = "sqlite:///"
        return Path(self.url.removeprefix(start)) if self.url.startswith(start) else None

    def open(self) -> None:
        """Create the database of a local registry, unless it is there.

        Raises:
            RegistryError: It cannot be created.
        """
        # MLflow itself is only needed, and loaded, to create it.
        if self._file and not self._file.exists():
            self._client()

    def register(
        self,
        name: str,
        bundle: Bundle,
        *,
        as_of: str,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        artifacts: Mapping[str, bytes] | None = None,
        input_types: Mapping[str, str] | None = None,
    ) -> int:
        """Register a bundle, or find it registered already for this day.

        The version appears last, whole, in one transaction: before it, there is only an MLflow run,
        which is marked as failed if the registration breaks off.

        Args:
            name: Name of the registered model: the use case's.
            bundle: The model.
            as_of: The day that it was trained for.
            metrics: How well it did.
            tags: Where it comes from: `code_version`, `content_hash` and the like.
            artifacts: Further files by path, such as `plots/roc.png`.
            input_types: Type of each raw column, for those who serve the model elsewhere.

        Returns:
            The version.

        Raises:
            RegistryError: The registry does not take it; no version is registered then.
        """
        client = self._client()
        identity = {"sha256": bundle.sha256, "as_of": as_of}
        tags = {**_origin(bundle), **tags, **identity}
        with self._explained(f"the model {name} of {as_of} cannot be registered in"):
            self._require_ours(client, name)
            experiment = self._experiment(client, name)
            known = _registered(client, name, identity)
            run_id = known.run_id if known else None
            # Runs that were killed, or that lost the registry, while they registered this model.
            for left in _unfinished(client, experiment, identity):
                ended = "FINISHED" if left == run_id else "FAILED"
                client.set_terminated(left, ended)
            if known:
                # The model is the same, but how it is judged and drawn may have changed since.
                self.attach(name, int(known.version), artifacts or {})
                return int(known.version)
            run = client.create_run(experiment, tags=tags, run_name=f"{name} {as_of}")
            with _failed_on_error(client, run.info.run_id), tempfile.TemporaryDirectory() as folder:
                _log_facts(
                    client,
                    run.info.run_id,
                    metrics,
                    bundle.facts.get("recipe", {}).get("parameters", {}),
                )
                _save_model(Path(folder) / _MODEL, bundle, run.info.run_id, input_types or {})
                _write_files(
                    Path(folder), {**(artifacts or {}), "environment.txt": _environment_text()}
                )
                client.log_artifacts(run.info.run_id, folder)
                self._create_model(client, name)
                version = client.create_model_version(
                    name,
                    source=f"{run.info.artifact_uri}/{_MODEL}",
                    run_id=run.info.run_id,
                    tags=tags,
                    await_creation_for=0,  # it is there when the call returns
                )
            client.set_terminated(run.info.run_id)
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
        try:
            _write_folder(cached, bundle)
        except OSError as error:
            dg.get_dagster_logger().warning(f"{name} version {version} is not cached: {error}")
        return bundle

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Let an alias such as `champion` point at a version."""
        client = self._client()
        with self._explained(f"{alias} cannot point at {name} version {version} in"):
            self._require_ours(client, name)
            client.set_registered_model_alias(name, alias, str(version))

    def versions(self, name: str) -> list[Version]:
        """All registered versions of a model, newest first; none if there is no such model.

        Raises:
            RegistryError: The registry cannot be read.
        """
        client = self._client()
        with self._explained(f"the versions of {name} cannot be read from"):
            found = list(client.search_model_versions(f"name = '{name}'", max_results=_MOST))
            if not found:
                return []
            runs = client.search_runs([self._experiment(client, name)], max_results=_MOST)
            metrics = {run.info.run_id: run.data.metrics for run in runs}
            aliases = _aliases(client, name)
            versions = [_version(each, metrics.get(each.run_id, {}), aliases) for each in found]
            return sorted(versions, key=lambda each: each.version, reverse=True)

    def version(self, name: str, number: int) -> Version:
        """One registered version.

        Raises:
            RegistryError: There is no such version, or the registry cannot be read.
        """
        client = self._client()
        with self._explained(f"{name} version {number} cannot be read from"):
            found = self._found(client, name, number)
            metrics = client.get_run(found.run_id).data.metrics
            return _version(found, metrics, _aliases(client, name))

    def attach(self, name: str, version: int, files: Mapping[str, bytes]) -> None:
        """Write files to a version's artifacts, over those of the same path.

        Args:
            name: Name of the registered model.
            version: The version.
            files: Content by path, such as `model_card.md`.

        Raises:
            RegistryError: There is no such version, or the registry does not take the files.
        """
        client = self._client()
        with (
            self._explained(f"{', '.join(files)} of {name} version {version} cannot be written to"),
            tempfile.TemporaryDirectory() as folder,
        ):
            run_id = self._found(client, name, version).run_id
            _write_files(Path(folder), files)
            client.log_artifacts(run_id, folder)

    def artifact(self, name: str, version: int, path: str) -> bytes:
        """The content of one file among a version's artifacts.

        Raises:
            RegistryError: There is no such version or file, or the registry cannot be read.
        """
        import mlflow.artifacts

        client = self._client()
        with (
            self._explained(f"{path} of {name} version {version} cannot be fetched from"),
            tempfile.TemporaryDirectory() as folder,
        ):
            run_id = self._found(client, name, version).run_id
            local = mlflow.artifacts.download_artifacts(
                run_id=run_id, artifact_path=path, dst_path=folder, tracking_uri=self._uri
            )
            return Path(local).read_bytes()

    def link(self, name: str, version: int) -> str:
        """The address of a version in MLflow's UI, without a password."""
        server = f"http://127.0.0.1:{MLFLOW_PORT}"
        if self.is_server:
            server = re.sub(r"://.*@", "://", self.url).rstrip("/")
        return f"{server}/#/models/{quote(name, safe='')}/versions/{version}"

    def owner(self, name: str) -> str | None:
        """The environment that has stamped a model's experiment; None if it has no stamp yet.

        Raises:
            RegistryError: The registry cannot be read.
        """
        client = self._client()
        with self._explained(f"the experiment {name} cannot be read from"):
            found = client.get_experiment_by_name(name)
            return found.tags.get(_STAMP) if found else None

    def _require_ours(self, client: Any, name: str) -> None:
        """Refuse an experiment that another environment has stamped; stamp one that none has."""
        if not self.owners:
            return
        stamp = self.owner(name)
        own = self.owners[0]
        if stamp is None:
            client.set_experiment_tag(self._experiment(client, name), _STAMP, own)
        elif stamp not in self.owners:
            raise RegistryError(
                f"the models {name} in the registry {mask_url(self.url)} belong to "
                f"{visible(stamp)}, as the experiment's tag {_STAMP} says, and {own} must not "
                f"change them by mistake. Give {own} a registry of its own "
                f"(ML_ASSETS_REGISTRY_URL); if it is meant, say so in {own}.yaml: "
                f"shares: [{visible(stamp)}.registry]"
            )

    def _found(self, client: Any, name: str, version: int) -> Any:
        from mlflow.exceptions import MlflowException

        try:
            return client.get_model_version(name, str(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        known = client.search_model_versions(f"name = '{name}'", max_results=_MOST)
        numbers = sorted((int(each.version) for each in known), reverse=True)
        newest = ", ".join(map(str, numbers[:5])) or "none"
        raise RegistryError(
            f"{name} has no version {version} in the registry {mask_url(self.url)}; the newest "
            f"known: {newest}. Name one of these, or check registry.url (ML_ASSETS_REGISTRY_URL)."
        )

    def _download(self, name: str, version: int) -> dict[str, bytes]:
        import mlflow.artifacts

        client = self._client()
        with (
            self._explained(f"{name} version {version} cannot be fetched from"),
            tempfile.TemporaryDirectory() as folder,
        ):
            found = self._found(client, name, version)
            local = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{found.source}/{_DATA}", dst_path=folder, tracking_uri=self._uri
            )
            return _read_folder(Path(local))

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            # Without the cause: MLflow quotes the URL, and with it the password.
            place = mask_url(self.url)
            told = mask_url(str(error).replace(self._uri, place))
            raise RegistryError(
                f"{what} the registry {place}: {told}. Check registry.url "
                "(ML_ASSETS_REGISTRY_URL), and that the artifact store is in place, writable and "
                "has room."
            ) from None

    def _client(self) -> Any:
        import logging

        # They announce each step of creating their tables and models; not news to our users.
        for chatty in ("alembic", "mlflow.store.db.utils", "mlflow.pyfunc"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
        for variable, value in MLFLOW_SETTINGS.items():
            os.environ.setdefault(variable, value)
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            if file := self._file:
                _create_database(file)
            return MlflowClient(tracking_uri=self._uri, registry_uri=self._uri)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise RegistryError(
                f"the registry {mask_url(self.url)} cannot be opened: {error}. Check registry.url "
                "(ML_ASSETS_REGISTRY_URL), or restore the database from a backup."
            ) from error

    def _experiment(self, client: Any, name: str) -> str:
        if found := client.get_experiment_by_name(name):
            return str(found.experiment_id)
        # A server has an artifact store of its own; a bare database needs to be told.
        place = None if self.is_server else f"{self.artifacts}/{name}"
        return str(client.create_experiment(name, artifact_location=place))

    @staticmethod
    def _create_model(client: Any, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


# Laid under the process's own environment variables before MLflow is imported.
MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Half a minute, in which a server restarts; MLflow's own 7 tries take four minutes each.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
    # It would print the server's URL, and with it the password.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # A uv project that happens to be the working directory is no part of a model.
    "MLFLOW_UV_AUTO_DETECT": "false",
}


def _origin(bundle: Bundle) -> dict[str, str]:
    """What names the origin of a bundle, as far as it is known here."""
    recipe = bundle.facts.get("recipe", {})
    facts = {"code_version": bundle.facts.get("code_version"), "seed": recipe.get("seed")}
    if isinstance(manifest := bundle.facts.get("training_set"), Mapping):
        facts["content_hash"] = manifest.get("content_hash")
    if _LOCK.is_file():
        facts["lock_sha256"] = hashlib.sha256(_LOCK.read_bytes()).hexdigest()
    return {name: str(value) for name, value in facts.items() if value is not None}


def _registered(client: Any, name: str, identity: Mapping[str, str]) -> Any:
    """The version of this bundle and day, if there is one."""
    same = f"name = '{name}' AND tags.sha256 = '{identity['sha256']}'"
    found = [
        each
        for each in client.search_model_versions(same)
        if each.tags.get("as_of") == identity["as_of"]
    ]
    return min(found, key=lambda each: int(each.version), default=None)


def _unfinished(client: Any, experiment: str, identity: Mapping[str, str]) -> list[str]:
    """Runs that began to register this bundle for this day, and did not end."""
    same = " AND ".join(f"tags.{key} = '{value}'" for key, value in identity.items())
    runs = client.search_runs([experiment], f"{same} AND attributes.status = 'RUNNING'")
    return [run.info.run_id for run in runs]


@contextlib.contextmanager
def _failed_on_error(client: Any, run_id: str) -> Iterator[None]:
    """Mark the run as failed when something breaks; if that fails too, the next try does it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except BaseException:
        with _impatient(), contextlib.suppress(MlflowException, SQLAlchemyError, OSError):
            client.set_terminated(run_id, "FAILED")
        raise


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Ask a server that may be gone twice at most, not for as long as for real work."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _log_facts(
    client: Any, run_id: str, metrics: Mapping[str, float], parameters: Mapping[str, Any]
) -> None:
    from mlflow.entities import Metric, Param

    now = int(datetime.now(UTC).timestamp() * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(key, float(value), now, 0) for key, value in metrics.items()],
        params=[Param(key, str(value)) for key, value in parameters.items()],
    )


def _save_model(folder: Path, bundle: Bundle, run_id: str, input_types: Mapping[str, str]) -> None:
    """Write a bundle as an MLflow model, which needs neither ml_assets nor a pickle to load."""
    import mlflow.pyfunc
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import AnyType

    # `any`, since MLflow refuses whole numbers in a column of fractions, and the other way round;
    # which types the source delivers is in the metadata.
    any_type = AnyType()  # type: ignore[no-untyped-call]
    columns = dict.fromkeys([*bundle.inputs, *input_types])
    signature = ModelSignature(
        inputs=Schema([ColSpec(any_type, each, each in bundle.inputs) for each in columns]),
        outputs=Schema(
            [ColSpec(DataType.double, "probability"), ColSpec(DataType.boolean, "refer")]
        ),
    )
    code = Path(served.__file__).read_bytes()
    # Named by its content, so that models of different code can be loaded side by side.
    module = f"ml_assets_model_{hashlib.sha256(code).hexdigest()[:12]}"
    with tempfile.TemporaryDirectory() as aside:
        _write_files(Path(aside), {f"{module}.py": code})
        _write_files(Path(aside) / _DATA, bundle.to_files())
        mlflow.pyfunc.save_model(
            folder,
            mlflow_model=Model(artifact_path=_MODEL, run_id=run_id),
            loader_module=module,
            code_paths=[f"{aside}/{module}.py"],
            data_path=f"{aside}/{_DATA}",
            pip_requirements=[f"{each}=={metadata.version(each)}" for each in _REQUIREMENTS],
            signature=signature,
            input_example=_example(bundle, input_types),
            metadata={
                "sha256": bundle.sha256,
                "inputs": list(bundle.inputs),
                "raw_columns": dict(input_types),
            },
        )


def _example(bundle: Bundle, input_types: Mapping[str, str]) -> pd.DataFrame:
    """A row to try the model with; made up, since a real one would be an applicant's."""
    return pd.DataFrame(
        {
            name: [bundle.vocabulary[name][0]]
            if bundle.vocabulary.get(name)
            else [1 if input_types.get(name, "").lower().startswith("int") else 1.0]
            for name in bundle.inputs
        }
    )


@cache
def _environment_text() -> bytes:
    """The installed distributions, as `pip freeze` without places."""
    found = {
        re.sub(r"[-_.]+", "-", each.metadata["Name"]).lower(): each.version
        for each in metadata.distributions()
    }
    return "".join(f"{name}=={version}\n" for name, version in sorted(found.items())).encode()


def _aliases(client: Any, name: str) -> dict[str, str]:
    return dict(client.get_registered_model(name).aliases)


def _version(found: Any, metrics: Mapping[str, float], aliases: Mapping[str, str]) -> Version:
    return Version(
        version=int(found.version),
        as_of=found.tags.get("as_of", ""),
        sha256=found.tags.get("sha256", ""),
        metrics=dict(metrics),
        tags=dict(found.tags),
        aliases=tuple(
            sorted(alias for alias, at in aliases.items() if int(at) == int(found.version))
        ),
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        run_id=found.run_id,
    )


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


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for path, content in files.items():
        parts = PurePosixPath(path).parts
        if PurePosixPath(path).is_absolute() or ".." in parts or not parts:
            raise ValueError(f"{path!r} is no path within a version's artifacts")
        file = folder.joinpath(*parts)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def _write_folder(folder: Path, bundle: Bundle) -> None:
    """Write files one by one, each in full or not at all; a torn folder is mended by `load`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in bundle.to_files().items():
        with tempfile.NamedTemporaryFile(dir=folder.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(folder / name)
