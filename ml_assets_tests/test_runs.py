"""Runs in this process, and what a killed one leaves behind."""

import platform as machine
import subprocess
import sys

import dagster as dg
import pytest

from ml_assets.home import AlreadyServed, prepare_home, serve_alone
from ml_assets.runs import RunFailed, close_dead_runs
from ml_assets_tests.conftest import Platform


def started(
    platform: Platform,
    tags: dict[str, str],
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
) -> str:
    run = platform.instance.create_run_for_job(
        platform.definitions.resolve_job_def("claims_scoring"),
        tags=tags,
        status=status,
    )
    return run.run_id


def status(platform: Platform, run_id: str) -> dg.DagsterRunStatus:
    run = platform.instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_of_a_process_that_is_gone_is_marked_as_failed(platform: Platform) -> None:
    host = machine.node()
    dead = started(platform, {"ml_assets/process": f"{host}:{dead_process()}"})
    elsewhere = started(platform, {"ml_assets/process": f"another-host:{dead_process()}"})
    of_a_daemon = started(platform, {})

    close_dead_runs(platform.instance)

    assert status(platform, dead) == dg.DagsterRunStatus.FAILURE
    assert status(platform, elsewhere) == dg.DagsterRunStatus.STARTED
    assert status(platform, of_a_daemon) == dg.DagsterRunStatus.STARTED


def test_a_run_that_died_before_its_first_event_is_marked_too(platform: Platform) -> None:
    not_started = dg.DagsterRunStatus.NOT_STARTED
    tags = {"ml_assets/process": f"{machine.node()}:{dead_process()}"}
    dead = started(platform, tags, not_started)
    about_to_be_queued = started(platform, {}, not_started)

    close_dead_runs(platform.instance, without_daemon=True)

    assert status(platform, dead) == dg.DagsterRunStatus.FAILURE
    assert status(platform, about_to_be_queued) == not_started


def test_without_a_daemon_the_runs_that_one_launched_are_dead(platform: Platform) -> None:
    of_a_daemon = started(platform, {})

    close_dead_runs(platform.instance, without_daemon=True)

    assert status(platform, of_a_daemon) == dg.DagsterRunStatus.FAILURE


def test_a_folder_is_served_by_one_process_at_a_time(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("DAGSTER_HOME", "ML_ASSETS_HOME", "ML_ASSETS_ENV"):
        monkeypatch.setenv(variable, "as it was")
    prepare_home(platform.environment)
    serve_alone(platform.environment)

    with pytest.raises(AlreadyServed, match=r"already running on .*stop it first with Ctrl-C"):
        serve_alone(platform.environment)


def test_the_failure_of_a_run_is_its_own_message(platform: Platform) -> None:
    with pytest.raises(RunFailed) as failure:
        platform.run("training", "2026-01-05")

    assert str(failure.value).startswith("the table claims/features does not exist")


def test_a_window_that_lies_before_the_start_date_is_told(trained: Platform) -> None:
    with pytest.raises(RunFailed, match="that this needs lie before its start date"):
        trained.run("training", "2026-01-02")


def test_runs_of_a_daemon_whose_heart_beats_are_left_alone(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datetime import UTC, datetime

    from dagster._daemon.types import DaemonHeartbeat

    def beat() -> None:
        now = datetime.now(UTC).timestamp()
        platform.instance.add_daemon_heartbeat(DaemonHeartbeat(now, "SENSOR", "id", []))

    beat()
    # The daemon lives: while we watch, its heart beats again.
    monkeypatch.setattr("time.sleep", lambda seconds: beat())
    of_a_daemon = started(platform, {})

    close_dead_runs(platform.instance, without_daemon=True)
    assert status(platform, of_a_daemon) == dg.DagsterRunStatus.STARTED

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    close_dead_runs(platform.instance, without_daemon=True)
    assert status(platform, of_a_daemon) == dg.DagsterRunStatus.FAILURE
