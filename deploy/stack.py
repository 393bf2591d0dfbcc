"""The services of `compose.yaml` as processes on this machine, and the proof that nothing is lost.

`make stack` (or `python -m deploy.stack`) starts PostgreSQL, an MLflow server, the code server, the
daemon, a webserver and the server of model cards on loopback, each a process of its own with the
command, the variables and the health check of `deploy/compose.yaml`, under prod's configuration.
Days of simulated applications arrive in a warehouse that the platform may only read; the new-data
sensor, and a training asked for over GraphQL, work on them, while one service after the other is
killed in mid-run and started again. In the end the tables have to be those of an undisturbed run.
It prints each step with its seconds, ends with exit code 1 if anything was lost, and leaves nothing
behind.

Of prod's settings only places differ. PostgreSQL is not the image of compose.yaml but the programs
of this machine (`initdb`, `pg_ctl` and `psql` must be there).
"""

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import yaml

from ml_assets.assets.common import page_link
from ml_assets.build import build_definitions, resources
from ml_assets.champions import champion
from ml_assets.changes import changed_days, extracted_fingerprints, now, source_days, today
from ml_assets.code_server import session
from ml_assets.core.scoring import standing
from ml_assets.environment import Environment, load_environment
from ml_assets.model_cards import card_file
from ml_assets.runs import run_days
from ml_assets.schedules import keep_unchanged
from ml_assets.sensors import Cursor
from ml_assets.smoke import SmokeError, ask, smoke
from ml_assets.use_cases.claims.delivery import deliver
from ml_assets.use_cases.claims.use_case import CLAIMS
from ml_assets_tests.postgres import Postgres, run_sql, running_postgres, unused_port

PROJECT = Path(__file__).resolve().parents[1]
COMPOSE = Path(__file__).with_name("compose.yaml")
SQL = Path(__file__).with_name("sql")
STARTED = ("mlflow", "code", "daemon", "webserver", "reports")  # in this order, after PostgreSQL

PATIENCE_S = 300
_POLL_S = 0.5
HISTORY_DAYS = 57  # read and trained on before the services start: outcomes take 45 to mature
# Outcomes arrive within this time, so that a day's news is two runs, and one tick of the sensor.
SHAPE = {"max_outcome_days": 29}

# When something was said or done, and by which commit, is not the same in two runs.
CLOCK = ["scored_at", "decided_at", "at", "superseded_at", "quarantined_at", "run_id"]
_SECRETS = {
    name: f"{name.lower()}_of_the_stack" for name in ("POSTGRES", "DAGSTER_DB", "MLFLOW_DB")
}
_READER = "reader_of_the_stack"

_LAUNCH = """
mutation Launch($run: ExecutionParams!) {
  launchRun(executionParams: $run) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}
"""


class Lost(RuntimeError):
    """Something was lost, or did not come up; the message says what."""


@dataclass(frozen=True)
class Service:
    """A service of `compose.yaml`, as it runs on this machine."""

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    check: Sequence[str]


@dataclass(frozen=True)
class Place:
    """Where the stack lies: ports by service, and a folder for all of its files."""

    folder: Path
    ports: Mapping[str, int]

    @property
    def webserver(self) -> str:
        """The webserver's address."""
        return f"http://127.0.0.1:{self.ports['webserver']}"

    @property
    def mlflow(self) -> str:
        """MLflow's address."""
        return f"http://127.0.0.1:{self.ports['mlflow']}"


def services(place: Place, variables: Mapping[str, str]) -> dict[str, Service]:
    """The services of `compose.yaml`, with containers' addresses and folders made this machine's.

    Args:
        place: What takes the place of the containers' ports and volumes.
        variables: What stands in `.env`.
    """
    declared = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    here = {
        "postgres:5432": f"127.0.0.1:{place.ports['postgres']}",
        interpolated("mlflow-${ML_ASSETS_ENV:-prod}:5000", variables): (
            f"127.0.0.1:{place.ports['mlflow']}"
        ),
        "127.0.0.1:3000": f"127.0.0.1:{place.ports['webserver']}",
        "127.0.0.1:3001": f"127.0.0.1:{place.ports['reports']}",
        "127.0.0.1:5000": f"127.0.0.1:{place.ports['mlflow']}",
        "/var/lib/": f"{place.folder}/",
    }
    whole = {  # values of their own, not parts of one
        "0.0.0.0": "127.0.0.1",  # noqa: S104
        "code": "127.0.0.1",
        "3000": str(place.ports["webserver"]),
        "3001": str(place.ports["reports"]),
        "4000": str(place.ports["code"]),
        "5000": str(place.ports["mlflow"]),
        "5432": str(place.ports["postgres"]),
    }

    # At once, and whole ports: one of this machine may begin with the digits of one in the file.
    there = re.compile(rf"(?:{'|'.join(map(re.escape, here))})(?!\d)")

    def local(text: str) -> str:
        text = there.sub(lambda found: here[found[0]], interpolated(str(text), variables))
        return whole.get(text, text)

    own = ("PATH", "HOME", "LANG", "LC_ALL", "OPENBLAS_NUM_THREADS", "TMPDIR")
    inherited = {name: os.environ[name] for name in own if name in os.environ}
    inherited["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{inherited['PATH']}"
    return {
        name: Service(
            name,
            [local(word) for word in declared[name].get("command", ())],
            inherited
            | {
                key: local(value if value is not None else variables[key])
                for key, value in declared[name].get("environment", {}).items()
                if value is not None or key in variables
            },
            [local(word) for word in declared[name]["healthcheck"]["test"][1:]],
        )
        for name in ("postgres", *STARTED)
    }


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """A value of `compose.yaml` with `${NAME}`, `${NAME:-default}` and `${NAME:?why}` filled in."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if variables.get(name):
            return variables[name]
        if kind == ":-":
            return rest
        raise Lost(f"compose.yaml: {name} is not set: {rest or 'no default'}")

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text)


class Running:
    """The services as processes: started, killed with all that they started, started again."""

    def __init__(self, place: Place, declared: Mapping[str, Service], postgres: Postgres) -> None:
        self.place, self.declared, self.postgres = place, declared, postgres
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, *names: str) -> None:
        """Start services; `wait_healthy` tells when they are up."""
        for name in names:
            if name == "postgres":
                self.postgres.start()
                continue
            service = self.declared[name]
            with self.log(name).open("ab") as log:
                self.processes[name] = subprocess.Popen(  # noqa: S603
                    list(service.command),
                    cwd=PROJECT,
                    env=dict(service.environ),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )

    def kill(self, name: str) -> None:
        """End a service as a container ends that is killed: at once, with all its processes."""
        if name == "postgres":
            self.postgres.stop()  # at once too: it comes back by recovery
            return
        leader = self.processes.pop(name)
        while found := session(leader.pid):
            for process in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            leader.poll()
            time.sleep(0.02)
        leader.wait()

    def wait_healthy(self, *names: str) -> None:
        """Wait until the health checks of `compose.yaml` pass."""
        for name in names:
            wait_for(lambda name=name: self.is_healthy(name), f"health of {name}", self.log(name))

    def is_healthy(self, name: str) -> bool:
        """Whether the health check of a service passes now."""
        process = self.processes.get(name)
        if process and process.poll() is not None:
            raise Lost(f"{name} ended with {process.returncode}:\n{tail(self.log(name))}")
        service = self.declared[name]
        command = list(service.check)
        if command[0].startswith("pg_"):
            command[0] = program(command[0])
        done = subprocess.run(  # noqa: S603
            command,
            cwd=PROJECT,
            env={**self.declared["code"].environ, **service.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    def log(self, name: str) -> Path:
        """Where a service's output goes."""
        return self.place.folder / f"{name}.log"

    def end(self) -> None:
        """Kill all but PostgreSQL, which ends with its own context."""
        for name in reversed([*self.processes]):
            self.kill(name)


def wait_for(condition: Callable[[], Any], what: str, log: Path | None = None) -> Any:
    """Wait until a condition holds, and return what it gave.

    Raises:
        Lost: It does not hold after some minutes.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        if time.monotonic() > deadline:
            told = f":\n{tail(log)}" if log and log.exists() else ""
            raise Lost(f"after {PATIENCE_S} s, still no {what}{told}")
        time.sleep(_POLL_S)
    return found


def opens(link: str) -> bool:
    """Whether a page is there."""
    try:
        with urllib.request.urlopen(link, timeout=10) as answer:  # noqa: S310
            return bool(answer.status == HTTPStatus.OK)
    except OSError:
        return False


def tail(log: Path) -> str:
    """The end of a log."""
    return log.read_text(encoding="utf-8", errors="replace")[-3_000:]


def program(name: str) -> str:
    """One of PostgreSQL's programs, beside `initdb`."""
    found = shutil.which(name)
    beside = Path(shutil.which("initdb") or name).resolve().with_name(name)
    return found or str(beside)


def run_script(postgres: Postgres, database: str, script: Path, **passwords: str) -> None:
    """Run a script of `deploy/sql` by psql, as its first lines say.

    Raises:
        Lost: It fails.
    """
    done = subprocess.run(  # noqa: S603
        [program("psql"), "-X", "-q", "-d", postgres.url(database), "-f", str(script)],
        env={**os.environ, **passwords},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Lost(f"{script.name}: {done.stderr.strip()}")


class Told:
    """Prints what was done, with the seconds since the one before."""

    def __init__(self) -> None:
        self.began = self.last = time.monotonic()

    def __call__(self, what: str) -> None:
        """Print a step."""
        instant = time.monotonic()
        print(f"{instant - self.last:7.1f} s  {what}", flush=True)
        self.last = instant

    def end(self, what: str) -> None:
        """Print the outcome, with the seconds of all steps."""
        print(f"{time.monotonic() - self.began:7.1f} s  in all: {what}", flush=True)


@contextlib.contextmanager
def stack(told: Callable[[str], None]) -> Iterator[tuple[Running, Environment]]:
    """PostgreSQL with its roles, a warehouse with history, and MLflow; all is gone afterwards.

    The other services are the caller's to start.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ml_assets_stack_") as folder,
        running_postgres() as postgres,
    ):
        run_script(
            postgres,
            "postgres",
            SQL / "databases.sql",
            **{f"{name}_PASSWORD": value for name, value in _SECRETS.items()},
        )
        run_sql(postgres.url("postgres"), "CREATE DATABASE insurance")
        told("PostgreSQL runs, with a role and a database each for Dagster and MLflow")
        ports = {name: unused_port() for name in STARTED}
        place = Place(Path(folder), {"postgres": postgres.port, **ports})
        warehouse = f"ml_assets_reader:{_READER}@127.0.0.1:{postgres.port}/insurance"
        variables = {f"{name}_PASSWORD": value for name, value in _SECRETS.items()}
        variables["ML_ASSETS_WAREHOUSE_URL"] = f"postgresql://{warehouse}"
        running = Running(place, services(place, variables), postgres)
        environment = load_environment(environ=dict(running.declared["code"].environ))
        try:
            yield running, environment
        finally:
            running.end()


def arrive(running: Running, environment: Environment, first: date, last: date) -> list[str]:
    """Let simulated days arrive, by the warehouse's owner: the platform itself may only read."""
    url = running.postgres.url("insurance")
    owner = resources(environment)["warehouse"]
    return deliver(replace(owner, url=url), environment, first, last, **SHAPE)


def cli(running: Running, *arguments: str) -> str:
    """Run an `ml-assets` command where the code server runs.

    Raises:
        Lost: It fails.
    """
    done = subprocess.run(  # noqa: S603
        [str(Path(sys.executable).parent / "ml-assets"), *arguments],
        cwd=PROJECT,
        env={**running.declared["code"].environ, "COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Lost(f"ml-assets {' '.join(arguments)}:\n{done.stdout}{done.stderr}")
    return done.stdout


class Records:
    """Dagster's records, read past the webserver, which may be away."""

    def __init__(self, environment: Environment, environ: Mapping[str, str]) -> None:
        self.folder = environment.dagster_home
        os.environ["ML_ASSETS_STORAGE_URL"] = environ["ML_ASSETS_STORAGE_URL"]

    def runs(self) -> list[dg.DagsterRun]:
        """Every run, whatever became of it."""
        with dg.DagsterInstance.from_config(str(self.folder)) as instance:
            return list(instance.get_runs())

    def awaited(self) -> list[str]:
        """The days that the new-data sensor asked for and that are not up to date yet."""
        with dg.DagsterInstance.from_config(str(self.folder)) as instance:
            cursors = [
                state.instigator_data.cursor
                for state in instance.all_instigator_state()
                if state.name == f"{CLAIMS.name}_new_data" and state.instigator_data
            ]
        return [day for found in cursors for day in Cursor.model_validate_json(found or "{}").asked]

    def at_work(self, step: str = "", *, but: Sequence[str] = ()) -> str | None:
        """The id of a run with a step under way, that was not seen before."""
        with dg.DagsterInstance.from_config(str(self.folder)) as instance:
            for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
                steps = instance.get_run_step_stats(run.run_id)
                if run.run_id not in but and any(
                    step in each.step_key and each.end_time is None for each in steps
                ):
                    return run.run_id
        return None


def underway(records: Records) -> list[str]:
    """Runs that have not ended, and those that Dagster is about to start again."""
    return [
        run.run_id
        for run in records.runs()
        if not run.is_finished
        or (
            run.tags.get("dagster/will_retry") == "true"
            and "dagster/auto_retry_run_id" not in run.tags
            and run.status == dg.DagsterRunStatus.FAILURE
        )
    ]


def launch_training(place: Place, day: str) -> str:
    """Ask the webserver for a training, as its *Materialize* button does; gives the run's id."""
    parameters = {
        "selector": {
            "repositoryLocationName": "ml_assets",
            "repositoryName": "__repository__",
            "pipelineName": "claims_training",
        },
        "mode": "default",
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
    }
    answer = ask(place.webserver, _LAUNCH, {"run": parameters})["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        raise Lost(f"the webserver launches no training: {answer}")
    return str(answer["run"]["runId"])


def disturb(running: Running, name: str, told: Callable[[str], None], run: str) -> None:
    """Kill a service, start it again, and wait until it is well."""
    running.kill(name)
    told(f"{name} is killed while run {run[:8]} works")
    running.start(name)
    running.wait_healthy(name)
    told(f"{name} is back and healthy")


def settled(records: Records, environment: Environment) -> bool:
    """Whether the source has no news, the sensor waits for no day, and no run is under way.

    What failed on the way does not count: the sensor asks for a day again whose run failed.
    """
    if underway(records):
        return False
    instant = now()
    doors = resources(environment)
    source = source_days(CLAIMS, environment, doors["source"], instant).days
    extracted = extracted_fingerprints(CLAIMS, doors["lake"], environment, instant)
    return not changed_days(source, extracted) and not records.awaited() and not underway(records)


def wait_settled(records: Records, environment: Environment, what: str) -> None:
    """Wait until all is `settled`.

    Raises:
        Lost: It is not after some minutes; the message lists the runs and the days waited for.
    """
    try:
        wait_for(lambda: settled(records, environment), what)
    except Lost as error:
        runs = [f"{run.run_id[:8]} {run.job_name} {run.status.value}" for run in records.runs()]
        waited = ", ".join(records.awaited()) or "none"
        raise Lost(f"{error}; days waited for: {waited}; runs: {'; '.join(runs)}") from error


def undisturbed(environment: Environment, folder: Path, days: list[str]) -> Any:
    """The lake as it would be had nothing been killed: the same days, on a copy from before."""
    lake = environment.lake.model_copy(update={"url": str(folder)})
    calm = environment.model_copy(update={"lake": lake, "home": folder.parent})
    definitions = build_definitions(calm)
    recent = (
        today(environment, now()) - timedelta(days=environment.sensor.scoring_days)
    ).isoformat()
    with dg.DagsterInstance.ephemeral() as instance:
        for job, spans, config in (
            ("ingestion", [day for day in days if day < recent], None),
            ("scoring", [day for day in days if day >= recent], keep_unchanged(CLAIMS)),
            ("training", days[-1:], None),
        ):
            run_days(definitions, instance, f"claims_{job}", spans[0], spans[-1], run_config=config)
    return resources(calm)["lake"]


def tables(lake: Any, first: str, last: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """What has to be the same in two lakes, by table."""
    for stage in ("raw", "quarantine", "extraction", "features"):
        frame = lake.read(f"claims/{stage}", first, last)
        yield stage, frame.drop(columns=CLOCK, errors="ignore")
    said = standing(lake.read("claims/predictions", first, last))
    yield "predictions", said.drop(columns=CLOCK, errors="ignore")
    # Which version of a table was read, and how long it took, differs.
    facts = ["day", "sha256", "version", "roc_auc", "log_loss"]
    yield "model", lake.read("claims/model", first, last)[facts]
    decided = lake.read("claims/champion", first, last)
    yield "champion", decided[["day", "version", "decision"]]


def differences(found: Any, expected: Any, first: str, last: str) -> list[str]:
    """In which tables two lakes differ, in words; none if they are the same."""
    lost = []
    for (stage, one), (_, other) in zip(
        tables(found, first, last), tables(expected, first, last), strict=True
    ):
        order = [name for name in ("day", "application_id") if name in one]
        try:
            pd.testing.assert_frame_equal(
                one.sort_values(order, ignore_index=True),
                other.sort_values(order, ignore_index=True),
            )
        except AssertionError as error:
            lost.append(f"{stage}: {error}")
    return lost


def prove(told: Told, *, restart: bool, keep: bool) -> None:
    """Run days through the services, killing each in turn if `restart`; see the module.

    Raises:
        Lost: Something was lost, or does not come up.
    """
    with stack(told) as (running, environment):
        place = running.place
        yesterday = today(environment, now()) - timedelta(days=1)
        last = yesterday - timedelta(days=2)
        first = last - timedelta(days=HISTORY_DAYS - 1)
        running.start("mlflow")
        arrive(running, environment, first, last)
        run_script(
            running.postgres,
            "insurance",
            SQL / "warehouse_reader.sql",
            ML_ASSETS_READER_PASSWORD=_READER,
        )
        told(f"{HISTORY_DAYS} days lie in the warehouse, which the platform may only read")
        running.wait_healthy("mlflow")
        told(f"mlflow is healthy on {place.mlflow}")
        cli(running, "run", "ingestion", "--day", first.isoformat(), "--to", last.isoformat())
        cli(running, "run", "training", "--day", last.isoformat())
        told("history is read, and a first champion trained, by ml-assets run")
        before = place.folder / "undisturbed" / "lake"
        shutil.copytree(environment.lake.url, before)
        records = Records(environment, running.declared["code"].environ)
        running.start("code")
        running.wait_healthy("code")
        running.start("daemon", "webserver", "reports")
        running.wait_healthy("webserver", "daemon", "reports")
        told(f"code server, daemon, webserver and pages are healthy: {place.webserver}")

        seen: list[str] = []

        def at_work(step: str = "") -> str:
            seen.append(wait_for(lambda: records.at_work(step, but=seen), "run at work"))
            return seen[-1]

        days = (last + timedelta(days=1), yesterday)
        for day, victims in zip(days, (("daemon", "code"), ("postgres", "webserver")), strict=True):
            changed = arrive(running, environment, day, day)
            told(f"applications of {day} arrive, and news of {len(changed) - 1} earlier days")
            for victim in victims if restart else ():
                disturb(running, victim, told, at_work())
            wait_settled(records, environment, f"end of the runs of {day}")
            told(f"{day} is read, judged and scored; no run is left")
        training = launch_training(place, yesterday.isoformat())
        if restart:
            wait_for(lambda: records.at_work("model"), "training at work")
            disturb(running, "mlflow", told, training)
        wait_for(lambda: not underway(records), "end of the training")
        told(f"a model is trained as of {yesterday}, and the gate has decided")

        running.wait_healthy("postgres", *STARTED)
        failed = [line.found for line in smoke(place.webserver) if line.state == "fail"]
        if failed:
            raise Lost(f"the smoke test fails: {'; '.join(failed)}")
        runs = records.runs()
        told(f"the smoke test passes; {len(runs)} runs, {_counted(runs)}")
        span = first.isoformat(), yesterday.isoformat()
        lake = resources(environment)["lake"]
        calm = undisturbed(environment, before, sorted(lake.rows_per_day("claims/raw")))
        if found := differences(lake, calm, *span):
            raise Lost("the tables are not those of an undisturbed run:\n" + "\n".join(found))
        said = standing(lake.read("claims/predictions", span[1], span[1]))
        version = champion(calm, CLAIMS).version
        told(
            f"{len(lake.read('claims/raw', *span)):,} rows and {len(said):,} predictions of "
            f"{yesterday} are those of an undisturbed run; champion is version {version}"
        )
        link = page_link(environment, card_file(environment, CLAIMS, version)).value
        if not opens(link):
            raise Lost(f"the model card of version {version} does not open: {link}")
        told(f"its model card opens: {link}")
        if keep:
            told(f"left running until Ctrl-C: Dagster {place.webserver}, MLflow {place.mlflow}")
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()


def _counted(runs: Sequence[dg.DagsterRun]) -> str:
    found = pd.Series([run.status.value.lower() for run in runs]).value_counts()
    return ", ".join(f"{count} {status}" for status, count in found.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `make stack`; gives the exit code."""
    parser = argparse.ArgumentParser(prog="make stack", description=__doc__.split("\n\n")[0])
    parser.add_argument("--no-restart", action="store_true", help="kill nothing")
    parser.add_argument("--keep", action="store_true", help="leave it running at the end")
    chosen = parser.parse_args(arguments)
    told = Told()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        prove(told, restart=not chosen.no_restart, keep=chosen.keep)
    except (Lost, SmokeError) as error:
        told.end(f"LOST: {error}")
        return 1
    told.end("nothing was lost")
    return 0


if __name__ == "__main__":
    sys.exit(main())
