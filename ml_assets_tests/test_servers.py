"""Servers side by side end together, however they end: real processes, real signals."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="looks for processes in /proc")

PROJECT = Path(__file__).parents[1]
PATIENCE_S = 120
UI = [str(Path(sys.executable).parent / "ml-assets"), "ui"]

# Runs the given programs as servers, each with a file for the ids of its processes.
SUPERVISOR = """
import os, sys
from ml_assets.servers import Server, ServerEnded, serve

programs, folder, grace = sys.argv[3:], sys.argv[1], float(sys.argv[2])
servers = [
    Server(f"server {n}", [sys.executable, "-c", program, folder], os.environ)
    for n, program in enumerate(programs)
]
try:
    at_work = lambda: os.path.exists(os.path.join(folder, os.pardir, "work"))
    serve(servers, grace, at_work=at_work, patience_s=float(os.environ.get("PATIENCE", 0)))
except ServerEnded as error:
    print(error)
    sys.exit(error.code)
"""
BEGIN = "import os, pathlib, signal, subprocess, sys, time\n"
READY = "pathlib.Path(sys.argv[1], str(os.getpid())).touch()\n"
WAITS = BEGIN + READY + "time.sleep(600)"
STUBBORN = BEGIN + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + READY + "time.sleep(600)"
# A server with a child of its own.
PARENT = (
    BEGIN + READY + f"subprocess.Popen([sys.executable, '-c', {WAITS!r}, sys.argv[1]])\n"
    "time.sleep(600)"
)


def fails(code: str) -> str:
    """A server that ends by itself, once another one runs."""
    return BEGIN + "while not os.listdir(sys.argv[1]): time.sleep(0.05)\n" + code


class Supervised:
    """A process that serves programs, and everything that they started."""

    def __init__(self, folder: Path, *programs: str, grace_s: float = 20) -> None:
        self.folder = folder / "running"
        self.folder.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, str(self.folder), str(grace_s), *programs],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def children(self, count: int) -> list[int]:
        """The ids of the children, once there are as many."""
        wait_for(lambda: len(list(self.folder.iterdir())) == count, f"{count} children")
        return [int(file.name) for file in self.folder.iterdir()]

    def ended(self) -> tuple[int, str]:
        """Exit code and output."""
        output, _ = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, output


def wait_for(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"after {PATIENCE_S} s, still no {what}"
        time.sleep(0.05)


def runs(process_id: int) -> bool:
    try:
        # A zombie has ended; only nobody has asked for its exit code yet.
        return ") Z" not in Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_every_server_and_its_children(tmp_path: Path, number: int) -> None:
    supervised = Supervised(tmp_path, WAITS, PARENT)
    children = supervised.children(3)
    assert all(map(runs, children))

    os.killpg(supervised.process.pid, number)

    assert supervised.ended() == (0, "")
    assert not any(map(runs, children))


@pytest.mark.parametrize("end", ["done", "second signal", "patience"])
def test_work_is_waited_for_before_the_servers_are_told_to_stop(
    tmp_path: Path, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATIENCE", "1.5" if end == "patience" else "600")
    work = tmp_path / "work"
    work.touch()
    supervised = Supervised(tmp_path, WAITS)
    children = supervised.children(1)

    os.kill(supervised.process.pid, signal.SIGTERM)
    time.sleep(0.5)
    assert all(map(runs, children))
    if end == "done":
        work.unlink()
    elif end == "second signal":
        os.kill(supervised.process.pid, signal.SIGTERM)

    assert supervised.ended() == (0, "")
    assert not any(map(runs, children))


@pytest.mark.parametrize(
    ("code", "expected"),
    [("sys.exit(3)", 3), ("sys.exit(0)", 1), ("os.kill(os.getpid(), signal.SIGKILL)", 137)],
)
def test_when_one_server_ends_so_does_the_other(tmp_path: Path, code: str, expected: int) -> None:
    supervised = Supervised(tmp_path, WAITS, fails(code))

    returned, told = supervised.ended()

    assert returned == expected
    assert "server 1 ended by itself" in told
    assert not any(map(runs, supervised.children(1)))


def test_a_child_that_its_server_leaves_behind_ends_too(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, PARENT.removesuffix("time.sleep(600)"))
    children = supervised.children(2)

    assert supervised.ended()[0] == 1
    assert not any(map(runs, children))


def test_a_server_that_does_not_end_is_killed_after_the_grace_period(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, STUBBORN, WAITS, grace_s=1)
    children = supervised.children(2)
    started = time.monotonic()

    supervised.process.terminate()

    assert supervised.ended()[0] == 0
    assert time.monotonic() - started >= 1
    assert not any(map(runs, children))


def test_a_second_signal_does_not_wait_for_the_grace_period(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, STUBBORN, grace_s=600)
    children = supervised.children(1)

    supervised.process.terminate()
    time.sleep(0.5)
    supervised.process.terminate()

    assert supervised.ended()[0] == 0
    assert not any(map(runs, children))


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel, by Linux's prctl")
def test_servers_end_when_what_started_them_is_killed(tmp_path: Path) -> None:
    supervised = Supervised(tmp_path, WAITS, WAITS)
    children = supervised.children(2)

    supervised.process.kill()

    wait_for(lambda: not any(map(runs, children)), "end of the children")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def session(leader: int) -> list[str]:
    """The command lines of what runs in a session."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            _, _, fields = (folder / "stat").read_text().rpartition(") ")
            state, _, _, of, *_ = fields.split()
            command = (folder / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(of) == leader and state != "Z":
            found.append(command)
    return found


@pytest.fixture
def free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for probe in (one, two, three):
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in (one, two, three)]


@pytest.fixture
def ui(tmp_path: Path, free_ports: list[int]) -> Iterator[subprocess.Popen[bytes]]:
    """`ml-assets ui` on an empty folder, with all that it serves answering."""
    port, mlflow_port, pages_port = map(str, free_ports)
    ports = ["--port", port, "--mlflow-port", mlflow_port, "--reports-port", pages_port]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*UI, "--home", str(tmp_path / "home"), *ports],
            cwd=PROJECT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        paths = (f"{port}/server_info", f"{mlflow_port}/", f"{pages_port}/")
        addresses = [f"http://127.0.0.1:{path}" for path in paths]
        wait_for(
            lambda: process.poll() is not None or all(map(answers, addresses)), "answer from all"
        )
        assert process.poll() is None, (tmp_path / "log").read_text()
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=PATIENCE_S)


@pytest.mark.slow
def test_a_folder_is_served_once(ui: subprocess.Popen[bytes], tmp_path: Path) -> None:
    again = subprocess.run(
        [*UI, "--home", str(tmp_path / "home")],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert again.returncode == 1
    assert "the UI is already running" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl_c", "sigterm", "sigkill"])
def test_nothing_of_the_uis_is_left_behind(
    ui: subprocess.Popen[bytes], how: str, tmp_path: Path, free_ports: list[int]
) -> None:
    before = session(ui.pid)
    assert any("dagster_webserver" in command for command in before)
    assert any("mlflow" in command for command in before)
    assert any("report_server" in command for command in before)
    told = (tmp_path / "log").read_text()
    assert all(f"http://127.0.0.1:{port}" in told for port in free_ports)

    if how == "ctrl_c":
        os.killpg(ui.pid, signal.SIGINT)
    elif how == "sigterm":
        ui.terminate()
    else:
        ui.kill()

    code = ui.wait(timeout=PATIENCE_S)
    assert code == (-signal.SIGKILL if how == "sigkill" else 0), (tmp_path / "log").read_text()
    if how == "sigkill":
        wait_for(lambda: not session(ui.pid), "end of the UIs")
    assert session(ui.pid) == []
    assert "Traceback" not in (tmp_path / "log").read_text().split("Shutting down Dagster")[-1]
