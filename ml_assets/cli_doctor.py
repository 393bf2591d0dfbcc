"""`ml-assets doctor`: the lines of `ml_assets.doctor`, for people or as JSON.

It is part of `ml-assets`; see `ml_assets.cli`.
"""

import dataclasses
import json
from typing import Annotated

import typer

from ml_assets.cli_common import EnvOption, HomeOption, clear_errors, console, load, shown

app = typer.Typer()

_MARKS = {
    "pass": "[green]ok  [/green]",
    "warn": "[yellow]warn[/yellow]",
    "fail": "[red]FAIL[/red]",
    "skip": "[dim]skip[/dim]",
}


@app.command()
def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON document, for machines.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds that one check may take.")
    ] = 60,
    watch: Annotated[
        float,
        typer.Option(
            "--watch",
            min=0,
            help="Seconds to watch the daemon's heartbeats: two daemons are surely seen after 40.",
        ),
    ] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", help="This check, and those it rests on; may be repeated."),
    ] = None,
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Check everything that can be checked before a run, and say what to do.

    Variables, versions, folders, disk, alert targets, warehouse, contract, lake, registry,
    champion, Dagster's storage, daemon, schedules. It changes nothing. What rests on a check that
    failed is skipped. Exit code 1 if a line fails; warnings do not fail.
    """
    with clear_errors():
        from ml_assets.environment import InvalidEnvironment

        try:
            environment = load(env, home)
        except InvalidEnvironment as error:
            if not as_json:
                raise
            _print_json(False, None, [_line("configuration", "fail", str(error))])
            raise typer.Exit(1) from None
        from ml_assets.changes import now
        from ml_assets.doctor import Line, examine, is_well

        def show(line: Line) -> None:
            console.print(
                f"{_MARKS[line.state]} [bold]{line.check:<13}[/bold] {shown(line.told)}",
                soft_wrap=True,
                highlight=False,
            )
            if line.remedy:
                console.print(
                    f"     {'':<13} → {shown(line.remedy)}", soft_wrap=True, highlight=False
                )

        begun = Line("configuration", "pass", f"{environment.name} is valid")
        if not as_json:
            show(begun)
        found = examine(
            environment,
            now(),
            timeout_seconds=timeout,
            watch_seconds=watch,
            only=only or (),
            on_line=None if as_json else show,
        )
        lines = [begun, *found]
        well = is_well(lines)
        if as_json:
            _print_json(well, environment.name, [dataclasses.asdict(line) for line in lines])
        else:
            counts = {
                state: sum(line.state == state for line in lines) for state in ("fail", "warn")
            }
            console.print(
                f"{counts['fail']} failed, {counts['warn']} warnings: {environment.name} "
                f"{'can run' if well else 'cannot run yet'}",
                highlight=False,
            )
        if not well:
            raise typer.Exit(1)


def _line(check: str, state: str, told: str) -> dict[str, str]:
    return {"check": check, "state": state, "told": told, "remedy": ""}


def _print_json(well: bool, environment: str | None, lines: list[dict[str, str]]) -> None:
    print(json.dumps({"well": well, "environment": environment, "lines": lines}, indent=2))
