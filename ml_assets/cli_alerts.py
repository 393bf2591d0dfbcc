"""The commands about alerts: whether they arrive, and what was told.

They are part of `ml-assets`; see `ml_assets.cli`.
"""

import hashlib
from typing import Annotated

import typer
from rich.table import Column, Table

from ml_assets.cli_common import EnvOption, HomeOption, clear_errors, console, load, shown

app = typer.Typer(no_args_is_help=True, help="Alerts: try the targets, and see what was told.")


@app.command(name="test")
def try_targets(env: EnvOption = None, home: HomeOption = None) -> None:
    """Send a test alert to every target of ML_ASSETS_ALERT_URLS, and say what became of each.

    The watcher of ML_ASSETS_HEARTBEAT_URL is asked too. Exit code 1 if a URL is malformed, or one
    of them did not take it.
    """
    with clear_errors():
        environment = load(env, home)
        from ml_assets.alert_outbox import file_of_alerts, write_line
        from ml_assets.alerts import Alert, message
        from ml_assets.changes import now
        from ml_assets.resources.notifications import heartbeat, send, targets

        instant = now()
        alert = Alert(
            id=hashlib.sha256(f"test {instant}".encode()).hexdigest()[:16],
            at=instant,
            level="info",
            kind="test",
            title="test of the alerts",
            cause="Somebody ran `ml-assets alerts test`.",
            remedy="Nothing.",
            environment=environment.name,
        )
        known, refused = targets(environment.alerts.urls)
        reason = write_line(environment, alert)
        failed = [*refused, *([reason] if reason else [])]
        if reason:
            _line("failed", "red", reason)
        else:
            _line("written", "green", str(file_of_alerts(environment)))
        for error in refused:
            _line("refused", "red", str(error))
        for target in known:
            with console.status(shown(target.name)):
                reason = send(target, message(alert))
            if reason:
                failed.append(reason)
            _line(*(("failed", "red") if reason else ("sent", "green")), target.name, reason or "")
        if not known and not refused:
            console.print("ML_ASSETS_ALERT_URLS names no targets: alerts go to the file alone.")
        if environment.alerts.heartbeat_url:
            with console.status("heartbeat"):
                reason = heartbeat(environment.alerts.heartbeat_url)
            if reason:
                failed.append(reason)
            _line(*(("failed", "red") if reason else ("asked", "green")), "heartbeat", reason or "")
        if not environment.alerts.enabled:
            console.print(f"Alerts are switched off in {environment.name} (alerts.enabled).")
        if failed:
            raise typer.Exit(1)


@app.command(name="list")
def list_(
    last: Annotated[int, typer.Option("--last", help="How many of the newest.", min=1)] = 20,
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Show the last alerts, and what waits for a target that is down."""
    with clear_errors():
        environment = load(env, home)
        from ml_assets.alert_outbox import FILE, last_alerts, room, waiting
        from ml_assets.changes import now
        from ml_assets.resources.notifications import targets

        found, box = last_alerts(environment, last), waiting(environment)
        if not found:
            console.print(f"No alert was ever told in {environment.home}.")
        for alert in found:
            colour = {"error": "red", "warning": "yellow"}.get(alert.level, "green")
            colour = "green" if alert.kind == "well" else colour
            console.print(
                f"{alert.at:%Y-%m-%d %H:%M} [{colour}]{alert.level}[/{colour}] "
                f"{shown(alert.title)}",
                soft_wrap=True,
                highlight=False,
            )
            for text in (alert.cause, alert.remedy, alert.link or alert.run_id):
                if text:
                    console.print(f"  {shown(text)}", soft_wrap=True, highlight=False)
        names = {each.key: each.name for each in targets(environment.alerts.urls)[0]}
        names[FILE] = "the file of alerts"
        gone = {key: f"{name}, no longer configured" for key, name in box.known.items()}
        if box.waiting:
            when = Column("Next try (UTC)", no_wrap=True)
            table = Table("Target", "Waiting", "Failed", when, "Reason")
            for key in sorted({key for each in box.waiting for key in each.targets}):
                down = box.down.get(key)
                if key not in names:
                    following = "to the next new target"
                elif down:
                    following = f"{down.again_at:%Y-%m-%d %H:%M:%S}"
                elif room(environment, box, key, now()) < 1:
                    following = "when its hour is over"
                else:
                    following = "next tick"
                table.add_row(
                    shown(names.get(key) or gone.get(key, "no longer configured")),
                    str(sum(key in each.targets for each in box.waiting)),
                    str(down.failures if down else 0),
                    following,
                    shown(down.reason) if down else "",
                )
            console.print(table)
        if box.memory.held:
            console.print(f"{len(box.memory.held)} alerts are held back for the next digest.")


def _line(what: str, colour: str, name: str, reason: str = "") -> None:
    console.print(
        f"[{colour}]{what}[/{colour}] {shown(name)}{': ' if reason else ''}{shown(reason)}",
        soft_wrap=True,
        highlight=False,
    )
