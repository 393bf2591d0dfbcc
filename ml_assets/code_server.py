"""The code server of a deployment: serves the definitions by gRPC, and answers for its runs.

Dagster's own server (`dagster api grpc`) starts each run as a child, and tells Dagster when a child
dies; but nobody tells when the server dies with all of them, or when Dagster's database is away at
that moment. Such a run would stay "started" for ever, hold its place in the queue, and keep its
table's pool. So this marks what died as failed, and the daemon starts it again (`run_retries`).

Runs are its children on Kubernetes too (`deploy/helm/values.yaml`). Not for a launcher that gives
each run a machine or pod of its own, such as Dagster's `K8sRunLauncher`: that watches them itself.
"""

import json
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import dagster as dg

from ml_assets.servers import Server
from ml_assets.storage import AlreadyServed

_INFO_TAG = ".dagster/grpc_info"  # on each run: the server that it was launched in
_WATCH_S = 10.0
PATIENCE_S = 300.0  # with GRACE_S of `servers` less than `stop_grace_period` in compose.yaml
_UNDERWAY = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

_log = logging.getLogger(__name__)


def grpc_server(host: str, port: int, lock: int) -> Server:
    """Dagster's server on our definitions.

    Args:
        host: The address that it listens on.
        port: Its port there.
        lock: The lock's file descriptor, for it may need a moment to end if we are killed.
    """
    place = ["-h", host, "-p", str(port), "-m", "ml_assets.definitions"]
    ours = ["--location-name", "ml_assets", "--use-python-environment-entry-point"]
    return Server(
        name="the code server",
        command=[sys.executable, "-m", "dagster", "api", "grpc", *place, *ours],
        environ=os.environ,
        inherits=(lock,),
    )


def alone(dagster_home: Path, port: int) -> int:
    """Let this process, and those that it hands the lock to, be the only code server on a port.

    Returns:
        The lock's file descriptor; the lock lasts until the last process that has it ends.

    Raises:
        AlreadyServed: Another process is.
    """
    import fcntl

    descriptor = os.open(dagster_home / f"code_server_{port}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise AlreadyServed(
            f"a code server runs on port {port} already, or ends at this moment. Stop it first, or "
            "choose another port with --port."
        ) from None
    return descriptor


def underway(instance: dg.DagsterInstance, port: int) -> list[str]:
    """The ids of runs that were launched in a server on this port, and have not ended."""
    found = instance.get_runs(dg.RunsFilter(statuses=_UNDERWAY))
    return [run.run_id for run in found if _port(run) == port]


def at_work(instance: dg.DagsterInstance, port: int) -> bool:
    """Whether runs of the server on this port are worth waiting for before it is stopped.

    Not while Dagster's database is away: they can record nothing, and fail in any case.
    """
    try:
        return bool(set(underway(instance, port)) - set(_lost(instance, port)))
    except Exception as error:  # of whichever database keeps the records
        _log.warning("cannot ask for runs under way: %s", type(error).__name__)
        return False


def close_lost_runs(instance: dg.DagsterInstance, lost: Iterable[str]) -> list[str]:
    """Mark runs whose process is gone as failed, unless they have ended meanwhile.

    One that somebody was cancelling is canceled: nobody wants it started again.

    Returns:
        The ids of the runs that were marked.
    """
    closed = []
    for run_id in lost:
        run = instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            continue
        message = "The process of this run died with its server"
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message=message)
        else:
            instance.report_run_failed(run, message=message)
        closed.append(run_id)
    return closed


def watch(
    instance: dg.DagsterInstance, port: int, earlier: Iterable[str], stopped: threading.Event
) -> None:
    """Close lost runs, now and then, until told to stop; a database that is away is waited for.

    Nothing is closed before the server answers: Dagster would try the run again at once, and give
    it up since it cannot reach the code.

    Args:
        instance: Where the runs are recorded.
        port: Of the server, on this machine.
        earlier: Runs that were under way when this process began, in a server that is gone.
        stopped: Ends the watch.
    """
    earlier = list(earlier)
    while not stopped.wait(_WATCH_S):
        if not _answers(port):
            continue
        try:
            lost = earlier or _lost(instance, port)
            for run_id in close_lost_runs(instance, lost):
                _log.warning("run %s was lost with its process, and is closed", run_id)
            earlier = []
        except Exception as error:  # the next look is as good
            _log.warning("cannot look for lost runs now: %s", type(error).__name__)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _lost(instance: dg.DagsterInstance, port: int) -> list[str]:
    """Runs of this server whose process is gone, though nobody said so."""
    # In this order: a run's process begins before it says so, and says it has ended before it does.
    recorded = {run_id: _process(instance, run_id) for run_id in underway(instance, port)}
    alive = session(os.getsid(0))
    # Without a process yet it is being launched; should it never begin, Dagster's monitoring sees.
    return [run_id for run_id, process in recorded.items() if process and process not in alive]


def _port(run: dg.DagsterRun) -> int | None:
    found = json.loads(run.tags.get(_INFO_TAG) or "{}").get("port")
    return int(found) if found is not None else None


def _process(instance: dg.DagsterInstance, run_id: str) -> int | None:
    """The id of a run's process, as it said itself when it began."""
    found = None
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        metadata = event.engine_event_data.metadata if event else {}
        if "pid" in metadata:
            found = int(str(metadata["pid"].value))
    return found


def session(leader: int) -> set[int]:
    """The processes of a session that run; a process id that came round again is not one."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, _, fields = (folder / "stat").read_text(encoding="utf-8").rpartition(") ")
        except OSError:  # it ended
            continue
        state, _, _, of, *_ = fields.split()
        if int(of) == leader and state != "Z":
            found.add(int(folder.name))
    return found
