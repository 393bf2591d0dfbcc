"""Dagster's records in PostgreSQL: real servers, runs, and daemons."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import typer

from ml_assets import storage
from ml_assets.build import resources
from ml_assets.cli_common import clear_errors
from ml_assets.doctor import examine
from ml_assets.environment import Environment, load_environment
from ml_assets.home import StorageChanged, prepare_home
from ml_assets.runs import close_dead_runs
from ml_assets.storage import (
    AlreadyServed,
    StorageError,
    StorageUnavailable,
    look,
    require_storage,
    serve_alone,
)
from ml_assets_tests.conftest import Platform, small_environment
from ml_assets_tests.postgres import Postgres, run_sql

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]
DAEMON = [str(Path(sys.executable).parent / "ml-assets"), "daemon"]
PATIENCE_S = 90


@pytest.fixture
def url(postgres: Postgres) -> str:
    return postgres.url(postgres.new_database())


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("DAGSTER_HOME", "ML_ASSETS_HOME", "ML_ASSETS_ENV", "ML_ASSETS_STORAGE_URL"):
        monkeypatch.setenv(variable, "")  # what `prepare_home` sets is gone after each test


def at(home: Path, url: str) -> Environment:
    environment = small_environment(home)
    storage = environment.storage.model_copy(update={"url": url})
    return environment.model_copy(update={"storage": storage})


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"after {PATIENCE_S} s, still no {what}"
        time.sleep(0.2)


def test_a_day_runs_with_its_records_in_postgresql(url: str, tmp_path: Path) -> None:
    environment = at(tmp_path, url)
    prepare_home(environment)

    with dg.DagsterInstance.get() as instance:
        platform = Platform(environment, instance)
        platform.arrive("2026-01-05", "2026-01-05")
        platform.run("ingestion", "2026-01-05")
        assert platform.metadata("features", "2026-01-05")
        dead = instance.create_run_for_job(
            platform.definitions.resolve_job_def("claims_scoring"),
            tags={"ml_assets/process": f"{os.uname().nodename}:999999999"},
            status=dg.DagsterRunStatus.STARTED,
        )
        close_dead_runs(instance)
        run = instance.get_run_by_id(dead.run_id)
        assert run is not None
        assert run.status == dg.DagsterRunStatus.FAILURE

    assert run_sql(url, "SELECT count(*) AS n FROM runs")[0]["n"] == 2
    assert not list(tmp_path.glob("dagster/**/runs.db"))
    settings = (tmp_path / "dagster" / "dagster.yaml").read_text()
    assert "env: ML_ASSETS_STORAGE_URL" in settings
    assert "right" not in settings, "the password is in the environment variable alone"
    lines = {line.check: line for line in examine(environment, datetime.now(UTC))}
    assert lines["storage"].state == "pass"
    assert "2 runs, schema up to date" in lines["storage"].told
    assert ":right@" not in str(lines)


def test_a_pending_migration_is_a_failing_line(url: str, tmp_path: Path) -> None:
    environment = at(tmp_path, url)
    prepare_home(environment)
    empty = examine(environment, datetime.now(UTC), only=["storage"])[-1]
    with dg.DagsterInstance.get():
        pass
    run_sql(url, "UPDATE alembic_version SET version_num = '0123456789ab'")

    waiting = examine(environment, datetime.now(UTC), only=["storage"])[-1]

    assert empty.state == "pass"
    assert "is empty; the first start fills it" in empty.told
    assert waiting.state == "fail"
    assert "runs has 0123456789ab, and needs" in waiting.told


def test_a_change_of_storage_is_refused_rather_than_ignored(url: str, tmp_path: Path) -> None:
    prepare_home(at(tmp_path / "was-sqlite", ""))
    prepare_home(at(tmp_path / "was-postgresql", url))

    with pytest.raises(StorageChanged, match=r"records in SQLite, and storage\.url names Postgre"):
        prepare_home(at(tmp_path / "was-sqlite", url))
    with pytest.raises(StorageChanged, match=r"in PostgreSQL .*and storage\.url is empty"):
        prepare_home(at(tmp_path / "was-postgresql", ""))

    edited = tmp_path / "was-sqlite" / "dagster" / "dagster.yaml"
    edited.write_text("storage: {mysql: {mysql_url: x}}\n")
    prepare_home(at(tmp_path / "was-sqlite", ""))
    assert edited.read_text() == "storage: {mysql: {mysql_url: x}}\n", "it is the user's own"


def test_a_storage_that_is_lost_in_the_middle_ends_in_one_message(
    postgres: Postgres, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare_home(at(tmp_path, url))
    with dg.DagsterInstance.get() as instance:
        postgres.stop()
        try:
            with pytest.raises(typer.Exit), clear_errors():
                instance.get_runs()
        finally:
            postgres.start()

    told = capsys.readouterr().err
    assert "Dagster's storage is lost" in told
    assert "ML_ASSETS_STORAGE_URL" in told
    assert "right" not in told


def test_a_storage_belongs_to_the_environment_that_used_it_first(url: str) -> None:
    assert look(url).owner is None
    require_storage(url, ("dev",))
    require_storage(url, ("dev",))
    require_storage(url, ("prod", "dev"))

    with pytest.raises(StorageError, match=r"belongs to dev.*shares: \[dev\.storage\]") as refused:
        require_storage(url, ("prod",))

    assert "right" not in str(refused.value)
    assert look(url).owner == "dev"


@pytest.mark.parametrize("wrong", ["password", "database", "port", "url"])
def test_a_storage_that_cannot_be_reached_is_told_without_its_password(
    postgres: Postgres, wrong: str
) -> None:
    url = {
        "password": postgres.url("postgres", password="wr0ng"),
        "database": postgres.url("nosuch", password="right"),
        "port": "postgresql://tester:wr0ng@127.0.0.1:1/postgres",
        "url": "postgresql://tester:wr0ng@127.0.0.1:port/postgres",
    }[wrong]

    with pytest.raises((StorageUnavailable, StorageError)) as refused:
        require_storage(url, ("dev",))

    told = str(refused.value)
    assert "ML_ASSETS_STORAGE_URL" in told
    assert "wr0ng" not in told
    assert "right" not in told


def test_the_lock_survives_a_restart_of_the_server_and_ends_with_its_holder(
    postgres: Postgres, url: str, tmp_path: Path
) -> None:
    watch = serve_alone(url)
    try:
        with pytest.raises(
            AlreadyServed, match=r"another daemon already serves .*ml-assets daemon"
        ):
            serve_alone(url)
        postgres.stop()
        postgres.start()
        wait_for(lambda: look(url).holder, "lock after the restart")
    finally:
        watch.end()
    wait_for(lambda: not look(url).holder, "end of the lock")


def test_a_connection_that_is_cut_while_it_takes_the_lock_is_told_as_such(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = storage._connect

    def cut(*arguments: str) -> Any:
        connection = connect(*arguments)
        run_sql(url, f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")
        return connection

    monkeypatch.setattr(storage, "_connect", cut)

    with pytest.raises(StorageUnavailable, match="cannot be reached") as told:
        serve_alone(url)
    assert "right" not in str(told.value)


def test_the_server_notices_that_the_holder_of_the_lock_cannot_be_reached(url: str) -> None:
    connection = storage._locked(url)
    with closing(connection), connection.cursor() as cursor:
        cursor.execute("SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp_%'")
        assert dict(cursor.fetchall()) == storage._SERVER_SIDE


@contextmanager
def daemon(home: Path, url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, "ML_ASSETS_STORAGE_URL": url, "ML_ASSETS_HOME": str(home)}
    with log.open("w") as file:
        process = subprocess.Popen(
            DAEMON, cwd=PROJECT, env=environ, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(timeout=60)


@pytest.mark.parametrize("place", ["sqlite", "postgresql"])
def test_a_second_daemon_on_one_instance_is_refused(
    place: str, postgres: Postgres, tmp_path: Path
) -> None:
    """With PostgreSQL also from another home, as if from another machine."""
    url = postgres.url(postgres.new_database()) if place == "postgresql" else ""
    homes = [tmp_path / "one", tmp_path / ("two" if url else "one")]
    logs = [tmp_path / "log1", tmp_path / "log2"]
    environment = load_environment(
        "dev", environ={"ML_ASSETS_HOME": str(homes[0]), "ML_ASSETS_STORAGE_URL": url}
    )

    def state() -> str:
        found = examine(environment, datetime.now(UTC), only=["daemon"])
        return f"{found[-1].state} {found[-1].told}"

    with daemon(homes[0], url, logs[0]) as first:
        wait_for(lambda: "pass one daemon's heart beats" in state(), "heartbeat")
        with daemon(homes[1], url, logs[1]) as second:
            assert second.wait(timeout=PATIENCE_S) == 1
        told = logs[1].read_text()
        assert "Traceback" not in told
        assert ("another daemon already serves" if url else "already running") in told
        assert ":right@" not in told
        assert first.poll() is None

        if url:
            # Another takes the lock while this one's connection is gone.
            holder = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'ml-assets dae%'"
            run_sql(url, f"SELECT pg_terminate_backend(({holder}), 5000)")
            watch = serve_alone(url)
            assert first.wait(timeout=PATIENCE_S) == 1
            watch.end()
            assert "another daemon already serves" in logs[0].read_text()
            return  # the rest takes half a minute, and is the same

        # One that was started without asking is found by watching.
        plain = subprocess.Popen(
            [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-w", "workspace.yaml"],
            cwd=PROJECT,
            env={
                **os.environ,
                "DAGSTER_HOME": str(environment.dagster_home),
                "ML_ASSETS_HOME": str(homes[0]),
                "ML_ASSETS_STORAGE_URL": url,
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            found = examine(environment, datetime.now(UTC), only=["daemon"], watch_seconds=60)[-1]
        finally:
            os.killpg(plain.pid, signal.SIGTERM)
            plain.wait(timeout=60)
        assert found.state == "fail"
        assert "2 daemons serve this instance" in found.told
    assert resources(environment)["lake"].tables() == []
