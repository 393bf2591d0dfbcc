"""The commands about models: who serves and served, by whose hand, and why we said what we said.

They are part of `ml-assets`; see `ml_assets.cli`.
"""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.panel import Panel
from rich.table import Column, Table

from ml_assets.cli_common import (
    EnvOption,
    HomeOption,
    clear_errors,
    console,
    errors,
    load,
    require_home,
    shown,
)
from ml_assets.environment import Environment

if TYPE_CHECKING:  # they take seconds to import, which --help need not wait for
    from ml_assets.core.explanations import Reason
    from ml_assets.resources.lake import Lake
    from ml_assets.resources.registry import Registry

app = typer.Typer()

BecauseOption = Annotated[
    str,
    typer.Option("--because", help="Why, in a sentence; it stays on record for good."),
]
_WIDTH = 24  # characters of the longest bar


@app.command()
def models(env: EnvOption = None, home: HomeOption = None) -> None:
    """List the registered versions: how good, who serves, who is challenger, who served when."""
    with clear_errors():
        _, lake, registry = _open(env, home)
        from ml_assets.models import listed
        from ml_assets.use_cases.claims.use_case import CLAIMS

        found = listed(CLAIMS, lake, registry)
        if not found:
            raise ValueError(
                f"no model of {CLAIMS.name} is registered yet. Run `ml-assets demo`, or "
                "`ml-assets run training --day D`."
            )
        table = Table(
            Column("Version", no_wrap=True),
            Column("As of", no_wrap=True),
            "ROC AUC",
            "Log loss",
            "Slope",
            "Threshold",
            Column("Alias", no_wrap=True),
            "Served",
            title=CLAIMS.name,
        )
        for each in found:
            metrics = each.registered.metrics
            periods = [f"{start:%F %H:%M} … {end:%F %H:%M}" for start, end in each.served]
            if each.serving_since:
                periods.append(f"[bold]since {each.serving_since:%F %H:%M}[/bold]")
            table.add_row(
                str(each.registered.version),
                each.registered.as_of,
                *(
                    f"{metrics[name]:.4f}" if name in metrics else "–"
                    for name in (
                        "holdout_roc_auc",
                        "holdout_log_loss",
                        "holdout_calibration_slope",
                        "threshold",
                    )
                ),
                "\n".join([*each.registered.aliases, *(["barred"] if each.barred else [])]) or "–",
                "\n".join(periods) or "–",
            )
        console.print(table)
        console.print("Figures are those of each version's own holdout; times are UTC.")


@app.command()
def promote(
    version: Annotated[int, typer.Argument(help="The version that shall serve.", min=1)],
    because: BecauseOption,
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Let a version serve from now on, by hand; the next scoring uses it.

    It is put on record with your user name, the time and the reason. The gate goes on judging new
    challengers, against this version from now on.
    """
    with clear_errors():
        environment, lake, registry = _open(env, home)
        from ml_assets.champions import Hand, history, promote
        from ml_assets.changes import now
        from ml_assets.use_cases.claims.use_case import CLAIMS

        before = [reign.version for reign in history(lake, CLAIMS)[-1:]]
        hand = Hand(_user(), _said(because), now())
        reign = promote(environment, CLAIMS, lake, registry, version, hand)
        console.print(f"{CLAIMS.name} version {reign.version} serves from now on.")
        _renew_cards(environment, lake, registry, *before, reign.version)


@app.command()
def rollback(because: BecauseOption, env: EnvOption = None, home: HomeOption = None) -> None:
    """Give the service back to the version that served before; the next scoring uses it.

    The version that served until now is barred: the gate does not promote it again, only
    `ml-assets promote` does. For a week (`gate.hold_after_rollback_days`) the gate promotes none at
    all, since the next ones come from nearly the same rows.
    """
    with clear_errors():
        environment, lake, registry = _open(env, home)
        from ml_assets.champions import Hand, champion, rollback
        from ml_assets.changes import now
        from ml_assets.use_cases.claims.use_case import CLAIMS

        before = champion(lake, CLAIMS).version
        hand = Hand(_user(), _said(because), now())
        reign = rollback(environment, CLAIMS, lake, registry, hand)
        console.print(
            f"{CLAIMS.name} version {reign.version} serves again, in place of version {before}."
        )
        _renew_cards(environment, lake, registry, before, reign.version)


@app.command()
def reproduce(
    version: Annotated[int, typer.Argument(help="The version to train again.", min=1)],
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Train a version again from its manifest, and tell whether the bytes are the same.

    The rows are read at the table version of that time. Exit code 1 if anything differs.
    """
    with clear_errors():
        environment, lake, registry = _open(env, home)
        from ml_assets.reproduction import reproduce
        from ml_assets.use_cases.claims.use_case import CLAIMS

        with console.status(f"training version {version} again …"):
            found = reproduce(environment, CLAIMS, lake, registry, version)
        console.print(shown(found.verdict), soft_wrap=True)
        if not found.same_bundle:
            raise typer.Exit(1)


@app.command()
def explain(
    application_id: Annotated[str, typer.Argument(help="The key of the application.")],
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Tell what was said about an application: when, with which model and data, and why."""
    with clear_errors():
        _, lake, registry = _open(env, home)
        from ml_assets.models import explain
        from ml_assets.use_cases.claims.use_case import CLAIMS

        for found in explain(CLAIMS, lake, registry, application_id):
            facts = found.model.facts
            window = facts["training_set"]
            decision = "referred to a person" if found.refer else "not referred"
            table = Table.grid(padding=(0, 2))
            for name, value in (
                ("Probability", f"{found.probability:.1%}: {decision}, from {found.threshold:.1%}"),
                ("Said", _said_when(found.scored_at, found.superseded_at)),
                (
                    "Model",
                    f"{CLAIMS.name} version {found.model_version} as of {facts['as_of']}, on "
                    f"{window['rows']:,} applications of {window['first_day']} to "
                    f"{window['last_day']}",
                ),
                ("It served because", found.champion_because or "–"),
                ("Data version", found.data_version),
                ("Code version", f"{found.code_version} (hash of code and settings)"),
            ):
                table.add_row(name, shown(value))
            console.print(
                Panel(table, title=shown(f"{found.key}, received {found.day}"), expand=False)
            )
            console.print(_reasons(found.reasons, found.reasons_from))


def _said_when(scored_at: datetime, superseded_at: datetime | None) -> str:
    said = f"{scored_at:%Y-%m-%d %H:%M} UTC"
    if superseded_at is None:
        return f"{said}; this stands"
    return f"{said}; no longer stands since {superseded_at:%Y-%m-%d %H:%M} UTC"


def _reasons(reasons: Sequence["Reason"], origin: str) -> Table | str:
    """A small chart: what made a claim likelier to the right, less likely to the left."""
    if not reasons:
        return (
            "No reasons were stored, and the application has changed since, so they cannot be "
            "computed any more (scoring.reasons stores them)."
        )
    longest = max(abs(each.effect) for each in reasons) or 1.0
    table = Table(
        "What moved the score",
        "Value",
        "Less likely",
        "Likelier",
        "Log-odds",
        title="" if origin == "said" else "computed now: none were stored with the prediction",
        box=None,
    )
    table.columns[2].justify = "right"
    table.columns[4].justify = "right"
    for each in reasons:
        bar = "█" * max(1, round(_WIDTH * abs(each.effect) / longest))
        likelier = each.effect > 0
        table.add_row(
            shown(each.feature),
            "missing" if each.value is None else shown(str(each.value)),
            "" if likelier else f"[blue]{bar}[/blue]",
            f"[red]{bar}[/red]" if likelier else "",
            f"{each.effect:+.2f}",
        )
    return table


def _user() -> str:
    """Who gives the command: by the process's own user, since variables can say anything."""
    try:
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError):  # no such thing on Windows; no name in some containers
        return f"user {os.getuid()}" if hasattr(os, "getuid") else os.getlogin()


def _said(because: str) -> str:
    if not because.strip():
        raise ValueError("--because is empty: say in a sentence why, it stays on record")
    return because.strip()


def _open(env: str | None, home: Path | None) -> tuple[Environment, "Lake", "Registry"]:
    """The environment that the options name, with its tables and models."""
    environment = load(env, home)
    require_home(environment)
    from ml_assets.build import resources

    doors = resources(environment)
    return environment, doors["lake"], doors["registry"]


def _renew_cards(
    environment: Environment, lake: "Lake", registry: "Registry", *versions: int
) -> None:
    from ml_assets.model_cards import write_card
    from ml_assets.resources.registry import RegistryError
    from ml_assets.use_cases.claims.use_case import CLAIMS

    for version in versions:
        try:
            written = write_card(environment, CLAIMS, lake, registry, version)
        except (RegistryError, OSError) as error:
            # The deed is done; a version often gives way just because its files are gone.
            errors.print(
                f"The model card of version {version} could not be renewed: {shown(str(error))}",
                soft_wrap=True,
                highlight=False,
            )
            continue
        console.print(f"Model card of version {version}: {written.file}", soft_wrap=True)
