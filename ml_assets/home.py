"""The project's own folder: made ready, and announced to Dagster and to child processes."""

import os
from pathlib import Path
from typing import Any

import yaml

from ml_assets.environment import CONFIG_DIR, Environment, require_variables, with_driver
from ml_assets.storage import AlreadyServed, require_storage
from ml_assets.storage import serve_alone as serve_storage_alone

STORAGE_VARIABLE = "ML_ASSETS_STORAGE_URL"


class HomeError(OSError):
    """The project's folder cannot be used."""


class StorageChanged(ValueError):
    """The instance in the folder keeps its records elsewhere than the environment says."""


def prepare_home(environment: Environment) -> Path:
    """Create the folder and Dagster's instance in it, and let this process and its children use it.

    An existing `dagster.yaml` is left as it is: it may be the user's own. But if it keeps Dagster's
    records elsewhere than `storage.url` says, that is refused rather than ignored.

    Returns:
        The DAGSTER_HOME.

    Raises:
        InvalidEnvironment: An environment variable is missing that the environment requires.
        HomeError: The folder cannot be created or written.
        StorageChanged: `dagster.yaml` names another storage than the environment.
        StorageUnavailable: PostgreSQL, which is to keep Dagster's records, cannot be reached.
        StorageError: It refuses us, or belongs to another environment.
    """
    require_variables(environment)
    folder = environment.dagster_home
    settings = folder / "dagster.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not settings.exists():
            settings.write_text(_dagster_yaml(environment), encoding="utf-8")
        else:
            require_same_storage(environment)
    except OSError as error:
        raise HomeError(
            f"the folder {environment.home} cannot be used: {error}. Choose another with --home or "
            "ML_ASSETS_HOME, or give this user the right to write there."
        ) from error
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["ML_ASSETS_HOME"] = str(environment.home)
    os.environ["ML_ASSETS_ENV"] = environment.name
    announce_storage(environment)
    if environment.storage.url:
        require_storage(environment.storage.url, environment.owners("storage"))
    return folder


def announce_storage(environment: Environment) -> None:
    """Let Dagster find its PostgreSQL, in this process and its children."""
    if environment.storage.url:
        os.environ[STORAGE_VARIABLE] = with_driver(environment.storage.url)


def require_same_storage(environment: Environment) -> None:
    """Refuse a `dagster.yaml` that keeps Dagster's records elsewhere than `storage.url` says.

    With `storage.url` empty, any storage of the user's own is fine, but for the one that we write
    for PostgreSQL.

    Raises:
        StorageChanged: It does.
        OSError: The file cannot be read.
    """
    file = environment.dagster_home / "dagster.yaml"
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StorageChanged(
            f"{file} is not valid YAML: {error}. Mend it, or remove it to have it written anew."
        ) from None
    storage: Any = content.get("storage") if isinstance(content, dict) else None
    postgres = storage.get("postgres") if isinstance(storage, dict) else None
    in_postgres = postgres == {"postgres_url": {"env": STORAGE_VARIABLE}}
    if in_postgres == bool(environment.storage.url):
        return
    if in_postgres:
        raise StorageChanged(
            f"{file} keeps Dagster's records in PostgreSQL ({STORAGE_VARIABLE}), and storage.url "
            f"is empty. Set {STORAGE_VARIABLE}; or move the file away, and a new, empty history "
            "begins in SQLite."
        )
    raise StorageChanged(
        f"{file} keeps Dagster's records in {'a storage of your own' if storage else 'SQLite'}, "
        "and storage.url names PostgreSQL: nothing would be kept there. Move the file away to have "
        "it written anew, and a new, empty history begins in PostgreSQL (the tables and models "
        f"stay); or empty storage.url ({STORAGE_VARIABLE})."
    )


def _dagster_yaml(environment: Environment) -> str:
    names = ["dagster.yaml", *(["dagster_postgresql.yaml"] if environment.storage.url else [])]
    return "".join((CONFIG_DIR / name).read_text(encoding="utf-8") for name in names)


def serve_alone(environment: Environment) -> int:
    """Let this process, and those that it hands the lock to, be the only ones to serve the folder.

    Two daemons on one instance would both start the runs of each schedule. With Dagster's records
    in PostgreSQL, this holds between machines too; the lock there lasts until this process ends.

    Returns:
        The lock's file descriptor; the lock lasts until the last process that has it ends.

    Raises:
        AlreadyServed: Another process does.
        HomeError: The folder cannot be locked.
        StorageUnavailable, StorageError: PostgreSQL, which keeps Dagster's records, cannot be used.
    """
    import fcntl

    file = environment.dagster_home / "ui.lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyServed(
            f"the UI is already running on {environment.home}, or its daemon. Open it in the "
            "browser, or stop it first with Ctrl-C in its terminal."
        ) from None
    except OSError as error:
        raise HomeError(f"{file} cannot be locked: {error}. Remove it, or use --home.") from error
    if environment.storage.url:
        serve_storage_alone(environment.storage.url)
    return descriptor


def served_here(environment: Environment) -> bool:
    """Whether a process serves the folder by `serve_alone`."""
    import fcntl

    try:
        with (environment.dagster_home / "ui.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
