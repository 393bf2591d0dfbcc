"""The project's own folder: made ready, and announced to Dagster and to child processes."""

import os
from importlib import resources
from pathlib import Path

from ml_assets.environment import Environment


class HomeError(OSError):
    """The project's folder cannot be used."""


class AlreadyServed(RuntimeError):
    """Another process serves this folder's UI and daemon."""


def prepare_home(environment: Environment) -> Path:
    """Create the folder and Dagster's instance in it, and let this process and its children use it.

    An existing `dagster.yaml` is left as it is: it may be the user's own.

    Returns:
        The DAGSTER_HOME.

    Raises:
        HomeError: The folder cannot be created or written.
    """
    folder = environment.dagster_home
    settings = folder / "dagster.yaml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not settings.exists():
            content = resources.files("ml_assets") / "config" / "dagster.yaml"
            settings.write_text(content.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        raise HomeError(
            f"the folder {environment.home} cannot be used: {error}. Choose another with --home or "
            "ML_ASSETS_HOME, or give this user the right to write there."
        ) from error
    os.environ["DAGSTER_HOME"] = str(folder)
    os.environ["ML_ASSETS_HOME"] = str(environment.home)
    os.environ["ML_ASSETS_ENV"] = environment.name
    return folder


def serve_alone(environment: Environment) -> int:
    """Let this process, and those that it hands the lock to, be the only ones to serve the folder.

    Two daemons on one folder would both start the runs of each schedule.

    Returns:
        The lock's file descriptor; the lock lasts until the last process that has it ends.

    Raises:
        AlreadyServed: Another process does.
    """
    import fcntl

    file = environment.dagster_home / "ui.lock"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyServed(
            f"the UI is already running on {environment.home}. Open it in the browser, or stop it "
            "first with Ctrl-C in its terminal."
        ) from None
    except OSError as error:
        raise HomeError(f"{file} cannot be locked: {error}. Remove it, or use --home.") from error
    return descriptor
