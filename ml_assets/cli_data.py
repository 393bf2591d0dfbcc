"""`ml-assets data …`: which tables there are, and what happened to each.

They are part of `ml-assets`; see `ml_assets.cli`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from ml_assets.cli_common import (
    DayOption,
    EnvOption,
    HomeOption,
    a_day,
    clear_errors,
    console,
    load,
    require_home,
)

if TYPE_CHECKING:  # they take seconds to import, which --help need not wait for
    from ml_assets.resources.lake import Lake, Version

app = typer.Typer(no_args_is_help=True, help="The tables: list them, and the versions of each.")


@app.command("list")
def list_(env: EnvOption = None, home: HomeOption = None) -> None:
    """List the tables: their days, rows, newest version and size."""
    with clear_errors():
        lake = _open(env, home)
        table = Table(
            Column("Table", no_wrap=True),
            Column("Days", justify="right"),
            Column("First", no_wrap=True),
            Column("Last", no_wrap=True),
            *(Column(name, justify="right") for name in ("Rows", "Version", "Size", "On disk")),
        )
        for name in lake.tables():
            rows = lake.rows_per_day(name)
            table.add_row(
                escape(name),
                f"{len(rows):,}",
                min(rows, default="–"),
                max(rows, default="–"),
                f"{sum(rows.values()):,}",
                str(lake.version(name)),
                _size(sum(lake.bytes_per_day(name).values())),
                _size(sum(file.size for file in lake.stored(name))),
            )
        console.print(table)
        console.print(
            "Size is that of the rows as they are now; on disk, with older versions and the log. "
            "In a notebook: ml_assets.load(TABLE, start=…, end=…)"
        )


@app.command()
def log(
    table: Annotated[str, typer.Argument(help="The table, such as claims/features.")],
    day: DayOption = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most versions to show.")] = 20,
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """List the versions of a table, newest first: which days, why, by which run, how many rows.

    A version is readable until maintenance removes its files, by
    `ml_assets.load(TABLE, version=N)` in a notebook.
    """
    with clear_errors():
        lake = _open(env, home)
        chosen = a_day(day) if day else None
        found = lake.log(table, day=chosen, limit=limit, check_files=True)
        shown = Table(
            Column("Version", justify="right", no_wrap=True),
            "Written (UTC)",
            "What",
            Column("Days", no_wrap=True),
            "Cause",
            "Run",
            Column("Rows", justify="right"),
            "Readable",
        )
        for version in found:
            shown.add_row(
                str(version.version),
                f"{version.at:%F %H:%M:%S}",
                version.operation,
                _days(version),
                escape(version.cause or "–"),
                escape((version.run_id or "–")[:8]),
                "–" if version.rows is None else f"{version.rows:,}",
                "yes" if version.readable else "no",
            )
        console.print(shown)
        if len(found) == limit:
            console.print(f"The newest {limit}; --limit shows more.")


def _open(env: str | None, home: Path | None) -> "Lake":
    environment = load(env, home)
    require_home(environment)
    from ml_assets.resources.lake import Lake

    return Lake(**environment.lake.model_dump())


def _days(version: "Version") -> str:
    if version.first_day is None or version.last_day is None:
        return "–"
    if version.first_day == version.last_day:
        return version.first_day
    return f"{version.first_day} … {version.last_day}"


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
