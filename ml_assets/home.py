"""The project's own folder: made ready, and announced to Dagster and to child processes."""

import os
from importlib import resources
from pathlib import Path

from ml_assets.environment import Environment


class HomeError(OSError):
    """The project's folder cannot be used."""


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
