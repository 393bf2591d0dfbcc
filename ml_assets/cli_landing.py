"""`ml-assets landing …`: which files came in, and taking those that are there now.

They are part of `ml-assets`; see `ml_assets.cli`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from ml_assets.cli_common import (
    EnvOption,
    HomeOption,
    clear_errors,
    console,
    load,
    require_home,
)

if TYPE_CHECKING:  # they take seconds to import, which --help need not wait for
    from ml_assets.sources import Source

app = typer.Typer(
    no_args_is_help=True, help="The landing folder: list what came, take what is there."
)

_NO_BUDGET = 24 * 3600.0  # a person can see that it goes on, and stop it


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most files to show.")] = 50,
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """List the files that came, newest first: their rows and days, and what became of them.

    A file that was `taken` counts until another of the same name takes its place; one that was
    `repeated` changed nothing; one that was `rejected` lies in the landing folder's `rejected/`,
    with the reason beside it.
    """
    with clear_errors():
        source = _open(env, home)
        from ml_assets.resources.ledger import read_files
        from ml_assets.sources import ledger
        from ml_assets.use_cases.claims.use_case import CLAIMS

        files = read_files(source.lake, ledger(CLAIMS))
        if not files:
            raise ValueError(
                "no file has been taken yet. Put files into the landing folder (landing.url), "
                "then run `ml-assets landing take`."
            )
        table = Table(
            Column("Taken (UTC)", no_wrap=True),
            Column("File", overflow="fold", min_width=16),
            Column("Outcome", no_wrap=True),
            Column("Rows", justify="right", no_wrap=True),
            "Days",
            "Reason",
            "SHA-256",
        )
        for file in files[::-1][:limit]:
            table.add_row(
                f"{file.taken_at:%F %H:%M:%S}",
                escape(file.path),
                file.outcome,
                "–" if file.outcome == "rejected" else f"{file.rows:,}",
                _days(list(file.days)),
                escape(file.reason) or "–",
                file.sha256[:12],
            )
        console.print(table)
        if len(files) > limit:
            console.print(f"{len(files) - limit:,} older ones are not shown (--limit).")


@app.command()
def take(env: EnvOption = None, home: HomeOption = None) -> None:
    """Take the files that are complete now, as the sensor would; extracting their days is next."""
    with clear_errors():
        source = _open(env, home, begin=True)
        from ml_assets.changes import now
        from ml_assets.sources import take_files
        from ml_assets.use_cases.claims.use_case import CLAIMS

        found = take_files(source, CLAIMS, now(), budget_seconds=_NO_BUDGET)
        if found is None:
            raise ValueError(
                f"rows come from the {source.environment.source}, not from files. Set "
                "ML_ASSETS_SOURCE=landing to take files."
            )
        told = [
            *(f"taken: {file}" for file in found.taken),
            *(f"repeated: {file.path}: {file.reason}" for file in found.repeated),
            *(f"[red]rejected:[/red] {escape(str(file))}" for file in found.rejected),
            *(f"left: {each}" for each in found.waiting),
        ]
        for line in told:
            plain = line if line.startswith("[red]") else escape(line)
            console.print(plain, soft_wrap=True, highlight=False)
        if not told:
            console.print("There are no files.")
        if found.taken:
            console.print(
                "The sensor asks for their days; without a daemon: "
                "`ml-assets run ingestion --day FIRST --to LAST`."
            )


def _days(days: list[str]) -> str:
    if not days:
        return "–"
    first, last = min(days), max(days)
    return first if first == last else f"{first} … {last} ({len(days)})"


def _open(env: str | None, home: Path | None, *, begin: bool = False) -> "Source":
    environment = load(env, home)
    if begin and environment.source == "landing" and not environment.dagster_home.exists():
        from ml_assets.home import prepare_home

        prepare_home(environment)
    require_home(environment)
    from ml_assets.build import resources

    source: Source = resources(environment)["source"]
    return source
