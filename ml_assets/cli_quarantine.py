"""`ml-assets quarantine …`: what lies in quarantine and why, and judging it again.

They are part of `ml-assets`; see `ml_assets.cli`.
"""

from typing import Annotated

import typer
from rich.table import Table

from ml_assets.cli_common import (
    DayOption,
    EnvOption,
    HomeOption,
    a_day,
    clear_errors,
    console,
    errors,
    load,
    require_home,
    shown,
)

app = typer.Typer(no_args_is_help=True, help="Rows that broke the contract: list, show, replay.")


@app.command("list")
def list_(day: DayOption = None, env: EnvOption = None, home: HomeOption = None) -> None:
    """Tell how many rows of which day are in quarantine, and for which reason."""
    with clear_errors():
        environment = load(env, home)
        require_home(environment)
        from ml_assets.build import resources
        from ml_assets.quarantine import rows_aside, summary
        from ml_assets.use_cases.claims.use_case import CLAIMS

        aside = rows_aside(resources(environment)["lake"], CLAIMS, a_day(day) if day else None)
        table = Table("Day", "Reason", "Column", "Rows", title=f"{CLAIMS.name}/quarantine")
        for row in summary(aside).itertuples():
            table.add_row(row.day, row.reason, shown(row.column), str(row.rows))
        console.print(table)
        console.print(f"{len(aside)} rows. See them: ml-assets quarantine show --day D")


@app.command()
def show(
    day: DayOption = None,
    reason: Annotated[
        str | None, typer.Option("--reason", help="Only this reason, such as wrong_type.")
    ] = None,
    key: Annotated[str | None, typer.Option("--key", help="Only rows with this key.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most rows to show.")] = 20,
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Show rows in quarantine: what broke the contract, when, and the row as it came, as JSON."""
    with clear_errors():
        environment = load(env, home)
        require_home(environment)
        from ml_assets.build import resources
        from ml_assets.quarantine import rows_aside
        from ml_assets.use_cases.claims.use_case import CLAIMS

        aside = rows_aside(resources(environment)["lake"], CLAIMS, a_day(day) if day else None)
        if reason is not None:
            aside = aside[aside["reason"] == reason]
        if key is not None:
            aside = aside[aside[CLAIMS.key] == key]
        if aside.empty:
            raise ValueError(
                "no such row is in quarantine. `ml-assets quarantine list` tells the days and "
                "reasons that there are."
            )
        for row in aside.head(limit).to_dict("records"):
            found = "missing" if row["value"] is None else repr(row["value"])
            origin = f" ({row['origin']})" if row["origin"] else ""
            console.print(
                f"[bold]{row['day']}  {shown(row[CLAIMS.key])}[/bold]  {row['reason']} in "
                f"{shown(row['column'])}: {shown(found)}{shown(origin)}",
                soft_wrap=True,
                highlight=False,
            )
            console.print(
                f"  put aside {row['quarantined_at']:%Y-%m-%d %H:%M} UTC by run "
                f"{row['run_id'][:8]}",
                soft_wrap=True,
                highlight=False,
            )
            console.print(f"  {shown(row['row'])}", soft_wrap=True, highlight=False)
        if len(aside) > limit:
            console.print(f"{len(aside) - limit} more: --limit {len(aside)}")


@app.command()
def replay(day: DayOption = None, env: EnvOption = None, home: HomeOption = None) -> None:
    """Judge rows in quarantine again, after the contract or the source was mended.

    Rows that pass move to raw, once; features follow, and predictions of recent days. A day whose
    source has changed is read again. Running it again changes nothing.
    """
    with clear_errors():
        environment = load(env, home)
        require_home(environment)
        import dagster as dg

        from ml_assets.build import build_definitions, resources
        from ml_assets.changes import changed_days, extracted_fingerprints, now, source_days
        from ml_assets.home import prepare_home
        from ml_assets.quarantine import days_to_replay
        from ml_assets.quarantine import replay as replay_days
        from ml_assets.resources.landing import LandingUnavailable
        from ml_assets.resources.warehouse import WarehouseUnavailable
        from ml_assets.use_cases.claims.use_case import CLAIMS

        doors = resources(environment)
        lake, instant = doors["lake"], now()
        only = a_day(day) if day else None
        try:
            changed = changed_days(
                source_days(CLAIMS, environment, doors["source"], instant).days,
                extracted_fingerprints(CLAIMS, lake, environment, instant),
            )
        except (WarehouseUnavailable, LandingUnavailable) as error:
            errors.print(f"[yellow]Judging the stored rows only:[/yellow] {shown(str(error))}")
            changed = {}
        prepare_home(environment)
        with dg.DagsterInstance.get() as instance, console.status("judging again …") as state:
            done = replay_days(
                build_definitions(environment),
                instance,
                environment,
                CLAIMS,
                lake,
                days_to_replay(instance, environment, CLAIMS, lake, only, instant),
                changed=changed,
                now=instant,
                on_day=lambda each: state.update(f"judging the rows of {each} again …"),
            )
        for each in done:
            how = "the source had changed and was read again" if each.read_again else "judged again"
            more = f"{each.after - each.before} more rows break the contract now"
            fewer = f"{each.before - each.after} of {each.before} rows pass now"
            console.print(
                f"{each.day}: {more if each.after > each.before else fewer}, "
                f"{each.after} remain in quarantine ({how})",
                highlight=False,
            )
        if problems := [each for each in done if each.problem]:
            raise ValueError("\n".join(f"{each.day}: {each.problem}" for each in problems))
