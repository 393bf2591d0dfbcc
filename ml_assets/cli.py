"""The command line, `ml-assets …`: thin commands over the platform's own functions.

Errors that a person can mend end in one message and exit code 1, never in a traceback.
"""

import os
import socket
import sys
from collections.abc import Sequence
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
import yaml
from rich.table import Column, Table

from ml_assets.cli_alerts import app as alerts_app
from ml_assets.cli_common import (
    EnvOption,
    HomeOption,
    a_day,
    clear_errors,
    console,
    load,
    require_home,
    shown,
)
from ml_assets.cli_contract import app as contract_app
from ml_assets.cli_daemon import app as daemon_app
from ml_assets.cli_data import app as data_app
from ml_assets.cli_deploy import app as deploy_app
from ml_assets.cli_doctor import app as doctor_app
from ml_assets.cli_landing import app as landing_app
from ml_assets.cli_models import app as models_app
from ml_assets.cli_quarantine import app as quarantine_app
from ml_assets.environment import Environment, mask_url, masked

if TYPE_CHECKING:  # it takes seconds to import, which --help need not wait for
    from ml_assets.resources.lake import Lake

WarehouseOption = Annotated[
    str | None,
    typer.Option(
        "--warehouse",
        help="Another warehouse, postgresql://user@host/database (password: PGPASSWORD). "
        "[env: ML_ASSETS_WAREHOUSE_URL; default: a DuckDB file in the home]",
    ),
]


class Job(StrEnum):
    """The jobs of a use case."""

    INGESTION = "ingestion"
    SCORING = "scoring"
    TRAINING = "training"
    TUNING = "tuning"
    MAINTENANCE = "maintenance"
    MONITORING = "monitoring"


app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Daily batch machine learning for insurers, on Dagster.

Start with `ml-assets demo`, then `ml-assets ui`; `ml-assets status` tells where things stand.

Places and switches come from `ml_assets/config/*.yaml` and from environment variables:
`ML_ASSETS_ENV` (dev, preprod, prod), `ML_ASSETS_HOME`, `ML_ASSETS_SOURCE` (warehouse, landing),
`ML_ASSETS_WAREHOUSE_URL`, `ML_ASSETS_LANDING_URL`, `ML_ASSETS_LAKE_URL`,
`ML_ASSETS_REGISTRY_URL`, `ML_ASSETS_STORAGE_URL`, `ML_ASSETS_REPORTS_URL`,
`ML_ASSETS_ALERT_URLS`, `ML_ASSETS_HEARTBEAT_URL`, `ML_ASSETS_UI_URL`.
`ml-assets config` prints the outcome.
""",
)
app.add_typer(models_app)
app.add_typer(alerts_app, name="alerts")
app.add_typer(deploy_app)
app.add_typer(daemon_app)
app.add_typer(doctor_app)
app.add_typer(contract_app, name="contract")
app.add_typer(data_app, name="data")
app.add_typer(landing_app, name="landing")
app.add_typer(quarantine_app, name="quarantine")


@app.command()
def demo(
    days: Annotated[
        int, typer.Option("--days", help="Days of simulated applications, ending yesterday.")
    ] = 60,
    warehouse: WarehouseOption = None,
    home: HomeOption = None,
) -> None:
    """Run the main job on simulated applications.

    Lets applications arrive in an embedded warehouse, or in the one named, materialises raw data
    and features, trains a model, and scores the last 14 days, all on a persistent Dagster instance.
    Run it again and it continues: what is there stays, what is missing or changed is made.

    It never touches a table that the simulator did not make.
    """
    with clear_errors():
        environment = _simulated_environment(home, warehouse)
        import dagster as dg

        from ml_assets.changes import now
        from ml_assets.demo import check_size, run_demo, show
        from ml_assets.home import prepare_home

        check_size(environment, days, now())
        prepare_home(environment)
        with dg.DagsterInstance.get() as instance:
            summary = run_demo(environment, instance, days=days, now=now(), console=console)
        show(summary, environment, console, _ui_command(environment))
        if warehouse:
            console.print(
                "The applications lie in the warehouse that you named: set ML_ASSETS_WAREHOUSE_URL "
                "to it for all other commands, make ui included."
            )


@app.command()
def simulate(
    days: Annotated[int, typer.Option("--days", min=1, help="Days to let pass.")] = 1,
    warehouse: WarehouseOption = None,
    home: HomeOption = None,
) -> None:
    """Let simulated days pass: new applications arrive, outcomes become known, rows are corrected.

    The simulated clock goes on from the last day in the warehouse, at most to the end of today.
    With the UI running, the sensor finds the changed days and scores them within a minute.
    """
    with clear_errors():
        environment = _simulated_environment(home, warehouse)
        from ml_assets.build import resources
        from ml_assets.changes import now, today
        from ml_assets.use_cases.claims.delivery import deliver, delivered_days, next_days

        doors = resources(environment)
        there = delivered_days(doors["warehouse"])
        if not there:
            raise ValueError("the warehouse holds no applications yet. Run `ml-assets demo` first.")
        first, last = next_days(there, days)
        latest = today(environment, now())
        if first > latest:
            raise ValueError(
                f"applications up to the end of {there[-1]} have arrived already, and the "
                "simulated clock does not run ahead of the calendar. Try again tomorrow."
            )
        changed = deliver(doors["warehouse"], environment, first, min(last, latest))
        new = [day for day in changed if date.fromisoformat(day) >= first]
        console.print(
            f"Applications of {', '.join(new)} arrived; outcomes or corrections arrived for "
            f"{len(changed) - len(new)} earlier days."
        )
        if last > latest:
            console.print(f"Stopped at the end of today, {latest}.")


@app.command()
def run(
    job: Annotated[Job, typer.Argument(help="What to run.")],
    day: Annotated[str, typer.Option("--day", help="The day, YYYY-MM-DD.")],
    to: Annotated[
        str | None, typer.Option("--to", help="Last day of a range that begins with --day.")
    ] = None,
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Materialise a day, or a range of days, now and in this process.

    **ingestion** reads from the warehouse to features, **scoring** goes on to predictions with the
    champion of now, **training** trains as of the day and lets the gate decide who serves,
    **tuning** searches the hyperparameters that models are trained with from the day on,
    **maintenance** compacts the tables and removes what nobody needs, **monitoring** looks at what
    came in, what was said and what came true.

    The same as *Materialize* in the UI; running it again is always safe.
    """
    with clear_errors():
        environment = load(env, home)
        import dagster as dg

        from ml_assets.build import build_definitions, resources
        from ml_assets.home import prepare_home
        from ml_assets.runs import run_days
        from ml_assets.use_cases.claims.use_case import CLAIMS

        days = _all_days(a_day(day), a_day(to or day))
        # The days of a training or a tuning are a sequence: each decision rests on the one before.
        one_by_one = job not in (Job.INGESTION, Job.SCORING, Job.MONITORING)
        spans = [(each, each) for each in days] if one_by_one else [(days[0], days[-1])]
        name = f"{CLAIMS.name}_{job.value}"
        definitions = build_definitions(environment)
        prepare_home(environment)
        reads = job in (Job.INGESTION, Job.SCORING)
        waiting = _take_files(environment) if reads else []
        with dg.DagsterInstance.get() as instance, console.status(f"{name} …") as state:
            for first, last in spans:
                run_days(
                    definitions,
                    instance,
                    name,
                    first,
                    last,
                    on_event=lambda event: state.update(f"{name}: {event.step_key or '…'}"),
                )
        console.print(f"{name} is done for {_days(days)}")
        lake = resources(environment)["lake"]
        if reads:
            _tell_days_without_rows(lake, days, waiting)
        if job is Job.MONITORING:
            _tell_findings(environment, lake, days[-1])
        table = {Job.TRAINING: "champion", Job.TUNING: "hyperparameters"}.get(job)
        for each in days if table else ():
            reason = lake.read(f"{CLAIMS.name}/{table}", each, each)["reason"].iloc[0]
            console.print(f"{each}: {shown(reason)}", soft_wrap=True, highlight=False)


@app.command()
def config(env: EnvOption = None, home: HomeOption = None) -> None:
    """Print the effective configuration of an environment, secrets masked."""
    with clear_errors():
        environment = load(env, home)
        print(yaml.safe_dump(masked(environment), sort_keys=False, allow_unicode=True), end="")


@app.command()
def status(env: EnvOption = None, home: HomeOption = None) -> None:
    """Tell which days are present, stale or failed, who serves, and how the last run went.

    Stale: the source changed since, or what the day is made from is newer than the day itself.
    While the source cannot be reached, what changed there is unknown; the rest is told.
    """
    with clear_errors():
        environment = load(env, home)
        import dagster as dg

        from ml_assets.changes import now
        from ml_assets.home import prepare_home
        from ml_assets.status import platform_status

        require_home(environment)
        prepare_home(environment)
        with dg.DagsterInstance.get() as instance:
            found = platform_status(environment, instance, now())
        for use_case in found:
            table = Table(
                Column("Asset", no_wrap=True),
                "Present",
                Column("Newest", no_wrap=True),
                "Stale",
                "Failed",
                title=use_case.name,
            )
            for stage, days in use_case.stages.items():
                newest = max([*days.present, *days.stale], default="–")
                table.add_row(
                    stage, str(len(days.present)), newest, _days(days.stale), _days(days.failed)
                )
            console.print(table)
            console.print(f"Champion: {shown(use_case.champion)}")
            changed = _days(use_case.changed)
            if use_case.unknown:
                changed = f"unknown: {shown(use_case.unknown)}"
            console.print(
                f"Changed in the source, not yet read: {changed}", soft_wrap=True, highlight=False
            )
            if use_case.rejected:
                console.print(
                    f"Rejected files: {len(use_case.rejected)}, newest "
                    f"{shown(use_case.rejected[0].path)} (ml-assets landing list)",
                    style="yellow",
                    soft_wrap=True,
                    highlight=False,
                )
            console.print(f"Last run: {use_case.last_run}")
            if use_case.outside:
                console.print(f"Outside of all days: {use_case.outside}", style="yellow")
            if use_case.last_failure:
                console.print(
                    f"Last failure: {shown(use_case.last_failure, keep=chr(10))}", style="red"
                )


@app.command()
def ui(
    port: Annotated[int, typer.Option("--port", help="Dagster's port on 127.0.0.1.")] = 3000,
    mlflow_port: Annotated[
        int, typer.Option("--mlflow-port", help="MLflow's port on 127.0.0.1.")
    ] = 5000,
    reports_port: Annotated[
        int | None,
        typer.Option(
            "--reports-port",
            help="Port on 127.0.0.1 of model cards and monitoring pages. [default: of reports.url]",
        ),
    ] = None,
    workspace: Annotated[
        Path, typer.Option("--workspace", "-w", help="Dagster's workspace file.")
    ] = Path("workspace.yaml"),
    env: EnvOption = None,
    home: HomeOption = None,
) -> None:
    """Open the Dagster UI on this folder's history, with schedules and sensors running.

    Beside it, MLflow's UI on the registered models, unless the registry is a server of its own, and
    the pages that Dagster's UI links to (model cards, monitoring), unless `reports.url` names
    another machine.

    The UIs have no login, so they listen on 127.0.0.1 only.
    """
    with clear_errors():
        if reports_port:
            # For Dagster's processes too: it is they who make the links.
            os.environ["ML_ASSETS_REPORTS_URL"] = f"http://127.0.0.1:{reports_port}"
        environment = load(env, home)
        import dagster as dg

        from ml_assets.home import prepare_home, serve_alone
        from ml_assets.resources.registry import Registry
        from ml_assets.runs import close_dead_runs
        from ml_assets.servers import ServerEnded, dagster_ui, mlflow_ui, report_pages, serve
        from ml_assets.storage import require_lock

        if not workspace.exists():
            raise ValueError(
                f"no workspace file {workspace}: run this in the project's folder, or name the "
                "file with --workspace"
            )
        registry = Registry(**environment.registry.model_dump())
        prepare_home(environment)
        lock = serve_alone(environment)
        _require_free(port, "--port")
        servers = [dagster_ui(workspace, port, lock, environment.logs.format)]
        models = mask_url(registry.url)
        if not registry.is_server:
            if mlflow_port == port:
                raise ValueError(
                    f"Dagster and MLflow cannot share port {port}. Choose another: "
                    f"--mlflow-port {port + 1}"
                )
            _require_free(mlflow_port, "--mlflow-port")
            registry.open()
            servers.append(mlflow_ui(registry.url, registry.artifacts, mlflow_port))
            models = f"http://127.0.0.1:{mlflow_port}"
        if pages := _own_port(environment.reports.url):
            if pages in (port, mlflow_port):
                raise ValueError(
                    f"model cards and the other UIs cannot share port {pages}. Choose another: "
                    f"--reports-port {pages + 1}"
                )
            _require_free(pages, "--reports-port")
            servers.append(report_pages(environment.reports_folder, pages))
        with dg.DagsterInstance.get() as instance:
            close_dead_runs(instance, without_daemon=True)
        console.print(f"Opening Dagster on http://127.0.0.1:{port} (stop with Ctrl-C) …")
        console.print(f"Models are in MLflow on {models}", highlight=False)
        if environment.reports.url:
            console.print(f"Model cards and monitoring: {environment.reports.url}", highlight=False)
        try:
            serve(servers)
            require_lock()
        except ServerEnded as error:
            print(f"Error: {error}", file=sys.stderr)
            raise typer.Exit(error.code) from None


def _take_files(environment: Environment) -> list[str]:
    """What has landed is read too; the sensor does the same while the daemon runs.

    Returns:
        The files that were left, and why.
    """
    from ml_assets.build import resources
    from ml_assets.changes import now
    from ml_assets.sources import take_files
    from ml_assets.use_cases.claims.use_case import CLAIMS

    taken = take_files(resources(environment)["source"], CLAIMS, now(), budget_seconds=3_600)
    if taken and taken.taken:
        console.print(f"Took {len(taken.taken)} files that had landed.")
    for file in taken.rejected if taken else ():
        console.print(f"Rejected {file}", style="yellow", markup=False)
    return [str(file) for file in taken.waiting] if taken else []


def _tell_days_without_rows(lake: "Lake", days: Sequence[str], waiting: Sequence[str]) -> None:
    from ml_assets.use_cases.claims.use_case import CLAIMS

    table = f"{CLAIMS.name}/extraction"
    accounts = lake.read(table, days[0], days[-1], columns=["day", "rows_read"])
    empty = list(accounts["day"][accounts["rows_read"] == 0])
    if not empty:
        return
    told = f"The source holds no rows of {_days(empty)}"
    if waiting:
        more = f"; and {len(waiting) - 3} more" if len(waiting) > 3 else ""
        count = "1 file is" if len(waiting) == 1 else f"{len(waiting)} files are"
        told += f"; {count} left: {'; '.join(waiting[:3])}{more}"
    console.print(shown(told), style="yellow", soft_wrap=True, highlight=False)


def _tell_findings(environment: Environment, lake: "Lake", day: str) -> None:
    from ml_assets.monitoring_pages import page_file
    from ml_assets.use_cases.claims.use_case import CLAIMS

    found = lake.read(f"{CLAIMS.name}/monitoring", day, day, columns=["state"])["state"]
    states = found.dropna().value_counts().sort_index().items()
    told = ", ".join(f"{count} {state}" for state, count in states) or "nothing to judge"
    page = page_file(environment, CLAIMS, day)
    console.print(f"{day}: {told}. Page: {shown(page)}", soft_wrap=True, highlight=False)


def main() -> None:
    """Entry point of `ml-assets`."""
    app()


def _simulated_environment(home: Path | None, warehouse: str | None) -> Environment:
    environment = load(None, home, **({"ML_ASSETS_WAREHOUSE_URL": warehouse} if warehouse else {}))
    if environment.name != "dev":
        raise ValueError(
            f"simulated applications have no place in {environment.name}: they are for dev. "
            "Unset ML_ASSETS_ENV."
        )
    if environment.source != "warehouse":
        raise ValueError(
            "simulated applications arrive in a warehouse, and rows are configured to come from "
            f"the {environment.source} folder. Unset ML_ASSETS_SOURCE."
        )
    return environment


def _own_port(url: str) -> int | None:
    """The port of an address on this machine; None if it is another machine's, or none at all."""
    parts = urlsplit(url)
    return parts.port if parts.hostname == "127.0.0.1" else None


def _require_free(port: int, option: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise ValueError(
                f"port {port} is taken on 127.0.0.1. Choose another: {option} {port + 1}"
            ) from None


def _ui_command(environment: Environment) -> str:
    if environment.home == Path(".ml_assets").resolve():
        return "make ui"
    return f"make ui HOME_DIR={environment.home}"


def _all_days(first: str, last: str) -> list[str]:
    from ml_assets.partitions import days_between

    if last < first:
        raise ValueError(f"--to {last} is before --day {first}")
    return days_between(first, last)


def _days(days: Any) -> str:
    """Days for a person: ranges, and at most three of them."""
    from ml_assets.partitions import ranges

    found = [first if first == last else f"{first} … {last}" for first, last in ranges(days)]
    if not found:
        return "–"
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return f"{len(days)}: " + ", ".join(found[-3:]) + more
