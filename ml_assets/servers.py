"""The UIs of Dagster and MLflow, and the pages for people, as child processes.

They end together, and never outlive this process.

Which of them run, and on which ports, is decided in `ml_assets.cli`.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

GRACE_S = 30.0  # Dagster ends in about 3 s, but lets a step that is writing finish
_STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LEADER_S = 10.0  # of them, in which a group's leader ends the others in its own order
_CHECK_S = 0.1
_WORK_S = 0.5
# From Linux's sys/prctl.h.
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class ServerEnded(RuntimeError):
    """A server ended by itself.

    Attributes:
        code: The exit code to hand on, never 0.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Server:
    """A program that runs until it is told to stop.

    Attributes:
        name: What it is to a person: "the Dagster UI".
        command: The program and its arguments.
        environ: Its environment variables.
        inherits: File descriptors that it holds open, such as a lock.
    """

    name: str
    command: Sequence[str]
    environ: Mapping[str, str]
    inherits: tuple[int, ...] = ()


def dagster_ui(workspace: Path, port: int, lock: int, log_format: str = "text") -> Server:
    """Dagster's UI and daemon.

    Args:
        workspace: Dagster's workspace file.
        port: Its port on 127.0.0.1.
        lock: The lock's file descriptor, for its daemon may need a moment to end if we are killed.
        log_format: `text` for people, or `json`, as in the environment's `logs.format`.
    """
    # `dg dev`, which Dagster would rather we used, takes no workspace of our choosing.
    quiet = {"PYTHONWARNINGS": "ignore:Function `dev_command` is superseded"}
    place = ["-h", "127.0.0.1", "-p", str(port)]
    logs = ["--log-format", "json"] if log_format == "json" else []
    return Server(
        name="the Dagster UI",
        command=[sys.executable, "-m", "dagster", "dev", "-w", str(workspace), *place, *logs],
        environ={**_environ(), **quiet},
        inherits=(lock,),
    )


def dagster_daemon(workspace: Path, lock: int, log_format: str = "text") -> Server:
    """Dagster's daemon.

    Args:
        workspace: Dagster's workspace file.
        lock: The lock's file descriptor, for it may need a moment to end if we are killed.
        log_format: `text` for people, or `json`, as in the environment's `logs.format`.
    """
    logs = ["--log-format", "json"] if log_format == "json" else []
    program = str(Path(sys.executable).parent / "dagster-daemon")
    return Server(
        name="Dagster's daemon",
        command=[program, "run", "-w", str(workspace), *logs],
        environ=_environ(),
        inherits=(lock,),
    )


def mlflow_ui(url: str, artifacts: str, port: int) -> Server:
    """MLflow's UI on a registry that is a database.

    Args:
        url: The database.
        artifacts: Where its models lie.
        port: Its port on 127.0.0.1.
    """
    from ml_assets.resources.registry import MLFLOW_SETTINGS

    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    store = ["--no-serve-artifacts", "--default-artifact-root", artifacts]
    quiet = ["--uvicorn-opts", "--log-level warning"]  # no line per request
    return Server(
        name="the MLflow UI",
        command=[sys.executable, "-m", "mlflow", "server", *place, *store, *quiet],
        environ={
            **_environ(),
            **MLFLOW_SETTINGS,
            # Not as arguments, which every user of the machine can read.
            "MLFLOW_BACKEND_STORE_URI": url,
            "MLFLOW_REGISTRY_STORE_URI": url,
            # Its queue for language models would be more processes.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PYTHONWARNINGS": "ignore",  # MLflow's own, about its web framework
        },
    )


def report_pages(folder: Path, port: int) -> Server:
    """The pages for people, read-only.

    Args:
        folder: Where they lie.
        port: Its port on 127.0.0.1.
    """
    place = ["--folder", str(folder), "--port", str(port)]
    return Server(
        name="the server of model cards and monitoring pages",
        command=[sys.executable, "-m", "ml_assets.report_server", *place],
        environ=_environ(),
    )


def serve(
    servers: Sequence[Server],
    grace_s: float = GRACE_S,
    *,
    at_work: Callable[[], bool] = lambda: False,
    patience_s: float = 0.0,
) -> None:
    """Run servers until this process is told to stop, or until one of them ends.

    SIGINT, SIGTERM and SIGHUP stop them all, and so does the end of one. What has not ended after
    the grace period, or at a second signal, is killed. On Linux the servers are told to stop also
    when this process is killed. Call it from the main thread.

    Args:
        servers: What to run.
        grace_s: Seconds that they have to end.
        at_work: Whether there is work that is better not interrupted; asked once we are told to
            stop, and until it is done.
        patience_s: Seconds that such work is waited for before the servers are told to stop.

    Raises:
        ServerEnded: One ended by itself.
    """
    told: list[int] = []
    before = {each: signal.signal(each, lambda number, _: told.append(number)) for each in _STOP}
    running: list[tuple[Server, subprocess.Popen[bytes]]] = []
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # so that the servers' own orphans are ours to wait for
    try:
        for server in servers:
            running.append((server, _start(server)))

        def all_run() -> bool:
            return all(process.poll() is None for _, process in running)

        while not told and all_run():
            time.sleep(_CHECK_S)
        deadline = time.monotonic() + patience_s
        while len(told) == 1 and all_run() and time.monotonic() < deadline and at_work():
            time.sleep(_WORK_S)
        ended = next(((s, p.returncode) for s, p in running if p.returncode is not None), None)
    finally:
        _stop([process for _, process in running], told, grace_s)
        for number, handler in before.items():
            signal.signal(number, handler)
    if ended and not told:
        server, code = ended
        raise ServerEnded(
            f"{server.name} ended by itself with exit code {code}; its last lines above say why. "
            "What ran beside it was stopped.",
            128 - code if code < 0 else code or 1,
        )


def _environ() -> dict[str, str]:
    folder = Path(sys.executable).parent
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def _start(server: Server) -> subprocess.Popen[bytes]:
    # A process group of its own, so that Ctrl-C reaches it once, through us, and its children too.
    return subprocess.Popen(  # noqa: S603
        list(server.command),
        env=dict(server.environ),
        stdin=subprocess.DEVNULL,
        pass_fds=server.inherits,
        process_group=0,
        preexec_fn=_dying_with(os.getpid()),
    )


def _dying_with(parent: int) -> Callable[[], None]:
    """What a child does first: ask the kernel for SIGTERM at the death of its parent."""
    prctl = _prctl  # found before the fork

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died in between
            os.kill(os.getpid(), signal.SIGTERM)

    return ask


def _stop(processes: Sequence[subprocess.Popen[bytes]], told: list[int], grace_s: float) -> None:
    """End whole process groups: their leaders first, then all politely, then for good."""
    began = time.monotonic()
    # A leader may have an order: Dagster ends its daemon before the code server that it calls.
    # Also for Ctrl-C by SIGTERM: MLflow hands signals on to its worker, which takes a second SIGINT
    # badly.
    for process in processes:
        process.terminate()
    waiting = list(processes)
    while left := [process for process in processes if _alive(process)]:
        for process in [each for each in waiting if each in left]:
            if process.poll() is not None or time.monotonic() > began + _LEADER_S:
                _signal(process, signal.SIGTERM)
                waiting.remove(process)
        if time.monotonic() > began + grace_s or len(told) > 1:
            for process in processes:
                _signal(process, signal.SIGKILL)
            for process in processes:
                process.wait()
            return
        time.sleep(_CHECK_S)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of a process group is left."""
    if process.poll() is None:
        return True
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-process.pid, os.WNOHANG)[0]:  # orphans that became ours
            pass
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def _prctl(option: int, value: int) -> None:
    if _LIBC is not None:
        _LIBC.prctl(option, value)
