"""`ml-assets daemon`: Dagster's daemon, alone on its instance.

It is part of `ml-assets`; see `ml_assets.cli`. The UI with a daemon of its own is `ml-assets ui`.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ml_assets.cli_common import EnvOption, HomeOption, clear_errors, load

app = typer.Typer()


@app.command()
def daemon(
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", help="Dagster's workspace file.")
    ] = Path("workspace.yaml"),
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Run Dagster's daemon for schedules, sensors and the queue: one per instance, never two.

    For deployments in which webserver and daemon are processes of their own; `ml-assets ui` has a
    daemon already. The same as `dagster-daemon run`, but a second one is refused, also from another
    machine where Dagster's records are in PostgreSQL. (Dagster itself lets two run side by side:
    both start the runs of each schedule.)
    """
    with clear_errors():
        environment = load(env, home)
        from ml_assets.home import prepare_home, serve_alone
        from ml_assets.servers import ServerEnded, dagster_daemon, serve
        from ml_assets.storage import require_lock

        if not workspace.exists():
            raise ValueError(
                f"no workspace file {workspace}: run this in the project's folder, or name the "
                "file with --workspace"
            )
        prepare_home(environment)
        lock = serve_alone(environment)
        try:
            serve([dagster_daemon(workspace, lock, environment.logs.format)])
            require_lock()
        except ServerEnded as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(error.code) from None
