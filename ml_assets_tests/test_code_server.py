"""Runs that died with their code server are closed: on real records, with a real process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets import code_server
from ml_assets.code_server import alone, at_work, close_lost_runs, underway, watch
from ml_assets.storage import AlreadyServed

STARTED = dg.DagsterRunStatus.STARTED
FAILURE = dg.DagsterRunStatus.FAILURE


@dg.op
def nothing() -> None: ...


@dg.job
def a_job() -> None:
    nothing()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def port() -> Iterator[int]:
    """Of a server that answers."""
    with closing(socket.socket()) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield int(server.getsockname()[1])


def a_run(
    instance: dg.DagsterInstance, port: int | None, status: dg.DagsterRunStatus = STARTED
) -> str:
    tags = {} if port is None else {".dagster/grpc_info": json.dumps({"port": port})}
    return instance.create_run_for_job(a_job, status=status, tags=tags).run_id


def says_its_process(instance: dg.DagsterInstance, run_id: str, process: int) -> None:
    """What a run says itself when it begins."""
    from dagster._core.events import EngineEventData  # as Dagster's own run workers do

    data = EngineEventData({"pid": dg.MetadataValue.text(str(process))})
    instance.report_engine_event("Started process for run", instance.get_run_by_id(run_id), data)


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_only_runs_of_this_server_that_have_not_ended_are_under_way(
    instance: dg.DagsterInstance,
) -> None:
    ours = a_run(instance, 4000)
    a_run(instance, 4001)
    a_run(instance, None)
    a_run(instance, 4000, dg.DagsterRunStatus.SUCCESS)
    a_run(instance, 4000, dg.DagsterRunStatus.CANCELED)

    assert underway(instance, 4000) == [ours]


def test_a_run_that_ended_meanwhile_is_left_alone(instance: dg.DagsterInstance) -> None:
    ended = a_run(instance, 4000, dg.DagsterRunStatus.SUCCESS)
    lost = a_run(instance, 4000)

    assert close_lost_runs(instance, [ended, lost, "deleted"]) == [lost]
    assert status(instance, ended) == dg.DagsterRunStatus.SUCCESS
    assert status(instance, lost) == FAILURE


def test_a_run_that_was_being_cancelled_is_canceled_and_so_not_tried_again(
    instance: dg.DagsterInstance,
) -> None:
    canceling = a_run(instance, 4000, dg.DagsterRunStatus.CANCELING)

    assert close_lost_runs(instance, [canceling]) == [canceling]
    assert status(instance, canceling) == dg.DagsterRunStatus.CANCELED


def test_a_server_that_is_stopped_waits_for_runs_that_live(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = a_run(instance, 4000)
    works = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    says_its_process(instance, run_id, works.pid)

    assert at_work(instance, 4000)
    assert not at_work(instance, 4001)
    works.kill()
    works.wait()
    assert not at_work(instance, 4000), "its process is gone"
    monkeypatch.setattr(instance, "get_runs", lambda *_: (_ for _ in ()).throw(OSError("away")))
    assert not at_work(instance, 4000)


@pytest.mark.slow
def test_a_code_server_that_is_told_to_stop_ends_after_its_runs(tmp_path: Path) -> None:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = subprocess.Popen(
        [str(Path(sys.executable).parent / "ml-assets"), "code-server", "--port", str(port)],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "ML_ASSETS_ENV": "dev", "ML_ASSETS_HOME": str(tmp_path)},
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while not code_server._answers(port):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
            run_id = a_run(instance, port)
            says_its_process(instance, run_id, server.pid)  # one of its session that lives
            server.terminate()
            time.sleep(2)
            assert code_server._answers(port)
            instance.report_run_canceled(instance.get_run_by_id(run_id))
            assert server.wait(timeout=60) == 0
    finally:
        for process in code_server.session(server.pid):
            os.kill(process, signal.SIGKILL)
        server.wait()


def watched(
    instance: dg.DagsterInstance, port: int, earlier: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let the watch look some times."""
    monkeypatch.setattr(code_server, "_WATCH_S", 0.05)
    stopped = threading.Event()
    thread = threading.Thread(target=watch, args=(instance, port, earlier, stopped))
    thread.start()
    time.sleep(0.6)
    stopped.set()
    thread.join()


def test_the_watch_closes_runs_whose_process_is_gone_and_no_others(
    instance: dg.DagsterInstance, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, dead, alive, launching = (a_run(instance, port) for _ in range(4))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    works = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        says_its_process(instance, dead, gone.pid)
        says_its_process(instance, alive, works.pid)
        watched(instance, port, [earlier], monkeypatch)
    finally:
        works.kill()
        works.wait()

    found = [status(instance, run_id) for run_id in (earlier, dead, alive, launching)]
    assert found == [FAILURE, FAILURE, STARTED, STARTED]


def test_nothing_is_closed_before_the_server_answers(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = a_run(instance, 1)

    watched(instance, 1, [earlier], monkeypatch)

    assert status(instance, earlier) == STARTED


def test_a_database_that_is_away_is_waited_for(
    instance: dg.DagsterInstance, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier = a_run(instance, port)
    answers = iter([OSError("away"), OSError("away")])
    ask = instance.get_run_by_id

    def away_at_first(run_id: str) -> Any:
        if error := next(answers, None):
            raise error
        return ask(run_id)

    with monkeypatch.context() as patched:
        patched.setattr(instance, "get_run_by_id", away_at_first)
        watched(instance, port, [earlier], monkeypatch)

    assert status(instance, earlier) == FAILURE


def test_two_code_servers_on_one_port_and_home_are_refused(tmp_path: Path) -> None:
    alone(tmp_path, 4000)
    alone(tmp_path, 4001)

    with pytest.raises(AlreadyServed, match="runs on port 4000 already"):
        alone(tmp_path, 4000)
