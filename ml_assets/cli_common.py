"""What the modules of the command line share: options, output, and how errors end."""

import errno
import os
import re
import sqlite3
import sys
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
from ml_assets.masking import mask_url

_PIPED_WIDTH = 140  # where nobody's window sets a limit, cut tables help nobody

console = Console()
if not sys.stdout.isatty():
    console.width = max(console.width, _PIPED_WIDTH)
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


_NO_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)
_FULL = re.compile("full|readonly|unable to open|disk I/O")


@contextmanager
def clear_errors() -> Iterator[None]:
    """End errors that a person can mend in one message and exit code 1."""
    try:
        yield
    except Exception as error:
        ours = type(error).__module__.startswith("ml_assets") or type(error) is ValueError
        told = str(error) if ours else _of_a_place(error)
        if not told:
            raise
        errors.print(
            f"[red]Error:[/red] {shown(told, keep=chr(10) + chr(9))}",
            soft_wrap=True,
            highlight=False,
        )
        raise typer.Exit(1) from None


def _of_a_place(error: BaseException) -> str:
    """What to say if a file or Dagster's records cannot be written; empty if it is neither."""
    told = _of_the_records(error)
    link: BaseException | None = error
    # Its causes alone: a context may be an error that was handled.
    while link is not None and not told:
        if isinstance(link, OSError) and link.errno in _NO_PLACE:
            where = f"{link.filename}: " if link.filename else ""
            told = f"{where}{link.strerror}. Check room and rights there, then run it again."
        link = link.__cause__
    return told


def _of_the_records(error: BaseException | None) -> str:
    """What to say if Dagster's own records cannot be written; empty if it is something else."""
    while error is not None:
        if type(error).__module__.split(".")[0] in ("dagster_postgres", "psycopg2"):
            return (
                "the records of runs cannot be read or written, for Dagster's storage is lost: "
                f"{mask_url(str(error).strip())}. Check the server that storage.url names "
                "(ML_ASSETS_STORAGE_URL); then run it again."
            )
        if isinstance(error, sqlite3.OperationalError) and _FULL.search(str(error)):
            return (
                f"the records of runs cannot be written: {error}. Check that the project's folder "
                "(ML_ASSETS_HOME) has room, and that this user may write there; then run it again."
            )
        error = error.__cause__ or error.__context__
    return ""


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
        if environment.source == "landing":
            begin = "to begin here, run `ml-assets landing take`"
        elif environment.name == "dev":
            begin = "for a first look run `ml-assets demo`"
        else:
            begin = "to begin here, run `ml-assets ui`"
        raise ValueError(
            f"there is nothing in {environment.home} yet. Set ML_ASSETS_HOME (or --home) or "
            f"ML_ASSETS_ENV if it lies elsewhere; {begin}."
        )
