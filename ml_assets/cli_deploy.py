"""`ml-assets code-server`, `migrate`, `smoke`: what a deployment starts, and asks afterwards."""

import sys
import threading
from typing import Annotated

import typer

from ml_assets.cli_common import EnvOption, HomeOption, clear_errors, console, load, shown

app = typer.Typer()

_COLOURS = {"pass": "green", "warn": "yellow", "fail": "red"}


@app.command("code-server")
def code_server(
    host: Annotated[str, typer.Option("--host", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port to listen on.")] = 4000,
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Serve the definitions to webserver and daemon by gRPC, and run what they launch.

    Told to stop, it waits five minutes for its runs; then, or at a second signal, they are
    interrupted. Runs that died with an earlier server on this port are marked as failed; the daemon
    starts them again. It has no login: let it listen where only webserver and daemon can reach it.
    """
    with clear_errors():
        environment = load(env, home)
        import dagster as dg

        from ml_assets.code_server import PATIENCE_S, alone, at_work, grpc_server, underway, watch
        from ml_assets.home import prepare_home
        from ml_assets.servers import ServerEnded, serve

        prepare_home(environment)
        lock = alone(environment.dagster_home, port)
        with dg.DagsterInstance.get() as instance:
            lost = underway(instance, port)
            for run_id in lost:
                console.print(f"Run {run_id} died with the server before, and will be closed")
            stopped = threading.Event()
            watching = threading.Thread(
                target=watch, args=(instance, port, lost, stopped), daemon=True
            )
            watching.start()
            try:
                serve(
                    [grpc_server(host, port, lock)],
                    at_work=lambda: at_work(instance, port),
                    patience_s=PATIENCE_S,
                )
            except ServerEnded as error:
                print(f"Error: {error}", file=sys.stderr)
                raise typer.Exit(error.code) from None
            finally:
                stopped.set()


@app.command()
def migrate(env: EnvOption = None, home: HomeOption = None) -> None:
    """Bring the databases to the schema of the installed versions: Dagster's, and a local MLflow's.

    Stop the daemon and back up first: docs/runbook.md. Running it again changes nothing. MLflow's
    database behind a server of its own is migrated there, by `mlflow db upgrade`.
    """
    with clear_errors():
        environment = load(env, home)
        import dagster as dg

        from ml_assets.home import prepare_home
        from ml_assets.resources.registry import Registry

        prepare_home(environment)
        with dg.DagsterInstance.get() as instance:
            instance.upgrade()
        console.print("Dagster's database has the schema of the installed version")
        registry = Registry(**environment.registry.model_dump())
        if registry.is_server:
            console.print("MLflow's is behind its own server: `mlflow db upgrade` there")
            return
        from mlflow.db import upgrade  # what `mlflow db upgrade` does, without the URL in `ps`

        registry.open()
        upgrade.callback(registry.url)  # type: ignore[misc]  # of click, whose types are loose
        console.print("MLflow's database has the schema of the installed version")


@app.command()
def smoke(
    url: Annotated[
        str, typer.Option("--url", help="The webserver's address.")
    ] = "http://127.0.0.1:3000",
    schedules: Annotated[
        bool,
        typer.Option(help="Whether this environment has schedules and the new-data sensor."),
    ] = True,
) -> None:
    """Ask a running webserver whether all is well: code, daemon, schedules, predictions.

    Exit code 1 if anything fails. It changes nothing.
    """
    with clear_errors():
        from ml_assets.smoke import smoke as look

        lines = look(url, expect_schedules=schedules)
        for line in lines:
            colour = _COLOURS[line.state]
            console.print(
                f"[{colour}]{line.state}[/{colour}]  {line.subject}: {shown(line.found)}",
                soft_wrap=True,
                highlight=False,
            )
        if any(line.state == "fail" for line in lines):
            raise typer.Exit(1)
