"""What the modules of the command line share: options, output, and how errors end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ml_assets.core.texts import visible
from ml_assets.environment import ENVIRONMENTS, Environment, load_environment

console = Console()
errors = Console(stderr=True)

EnvOption = Annotated[
    str | None,
    typer.Option("--env", help=f"Environment: {', '.join(ENVIRONMENTS)}. [env: ML_ASSETS_ENV]"),
]
HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help="The project's own folder: tables, models, Dagster's history. "
        "[env: ML_ASSETS_HOME; default: .ml_assets]",
    ),
]

DayOption = Annotated[str | None, typer.Option("--day", help="Only this day, YYYY-MM-DD.")]


def a_day(text: str) -> str:
    """A day as it is written in the tables.

    Raises:
        ValueError: The text is not a day.
    """
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"{text!r} is not a day: expected YYYY-MM-DD") from None


def shown(value: object, *, keep: str = "") -> str:
    """A value from outside, fit for the terminal: neither markup nor control characters act."""
    return escape(visible(str(value), keep=keep))


@contextmanager
def clear_errors() -> Iterator[None]:
    """End errors that a person can mend in one message and exit code 1."""
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        if not type(error).__module__.startswith("ml_assets") and type(error) is not ValueError:
            raise
        errors.print(
            f"[red]Error:[/red] {shown(error, keep=chr(10))}", soft_wrap=True, highlight=False
        )
        raise typer.Exit(1) from None


def load(name: str | None, home: Path | None, **variables: str) -> Environment:
    """The environment that the options name, with some environment variables set otherwise."""
    environ: dict[str, str] = {**os.environ, **variables}
    if home is not None:
        environ["ML_ASSETS_HOME"] = str(home)
    return load_environment(name, environ=environ)


def require_home(environment: Environment) -> None:
    """Refuse a folder in which nothing has run yet, rather than make an empty one.

    Raises:
        ValueError: There is nothing in the environment's folder.
    """
    if not environment.dagster_home.exists():
        begin = "Run `ml-assets demo`" if environment.name == "dev" else "Run `ml-assets ui`"
        raise ValueError(
            f"there is nothing in {environment.home} yet. {begin}, or name another folder "
            "with --home."
        )
