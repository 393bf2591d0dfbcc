"""`ml-assets smoke` against a real HTTP server that answers as a webserver would, well and ill."""

import json
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.smoke import SmokeError, smoke

YESTERDAY = (date.today() - timedelta(days=1)).isoformat()

GOOD: dict[str, Any] = {
    "version": "1.13.27",
    "workspaceOrError": {
        "locationEntries": [
            {
                "name": "ml_assets",
                "loadStatus": "LOADED",
                "locationOrLoadError": {
                    "__typename": "RepositoryLocation",
                    "repositories": [
                        {
                            "schedules": [
                                {"name": "daily", "scheduleState": {"status": "RUNNING"}}
                            ],
                            "sensors": [{"name": "new_data", "sensorState": {"status": "RUNNING"}}],
                        }
                    ],
                },
            }
        ]
    },
    "instance": {
        "daemonHealth": {
            "allDaemonStatuses": [{"daemonType": "SENSOR", "required": True, "healthy": True}]
        }
    },
    "assetNodes": [
        {
            "assetKey": {"path": ["claims", "predictions"]},
            "assetPartitionStatuses": {
                "ranges": [
                    {"endKey": YESTERDAY, "status": "MATERIALIZED"},
                    {"endKey": "2026-01-05", "status": "MATERIALIZED"},
                ]
            },
        }
    ],
}


@pytest.fixture
def answers() -> Iterator[Callable[[Any], str]]:
    """Starts a server that gives one answer, and tells its address."""
    servers = []

    def start(answer: Any, status: int = 200) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(status)
                self.end_headers()
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.wfile.write(content)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def changed(change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    found = deepcopy(GOOD)
    change(found)
    return {"data": found}


def repository(data: dict[str, Any]) -> dict[str, Any]:
    entry = data["workspaceOrError"]["locationEntries"][0]
    found: dict[str, Any] = entry["locationOrLoadError"]["repositories"][0]
    return found


def test_a_sound_platform_passes(answers: Callable[[Any], str]) -> None:
    done = CliRunner().invoke(app, ["smoke", "--url", answers({"data": GOOD})])

    assert done.exit_code == 0, done.output
    assert f"predictions: newest is {YESTERDAY}" in done.output
    assert "fail" not in done.output


def broken(data: dict[str, Any]) -> None:
    data["workspaceOrError"]["locationEntries"][0]["locationOrLoadError"] = {
        "__typename": "PythonError",
        "message": "ModuleNotFoundError: no such\n",
    }


def silent(data: dict[str, Any]) -> None:
    data["instance"]["daemonHealth"]["allDaemonStatuses"][0]["healthy"] = False


def switched_off(data: dict[str, Any]) -> None:
    repository(data)["schedules"][0]["scheduleState"]["status"] = "STOPPED"


def elsewhere(data: dict[str, Any]) -> None:
    data["assetNodes"] = []


def empty(data: dict[str, Any]) -> None:
    data["workspaceOrError"]["locationEntries"] = []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (broken, "code location: ml_assets: ModuleNotFoundError: no such. See the server's log"),
        (silent, "daemon: no heartbeat of SENSOR"),
        (switched_off, "schedules: off: daily"),
        (elsewhere, "predictions: the asset is not there"),
        (empty, "code location: it has none"),
    ],
)
def test_what_is_wrong_is_told_and_fails(
    answers: Callable[[Any], str], change: Callable[[dict[str, Any]], None], told: str
) -> None:
    done = CliRunner().invoke(app, ["smoke", "--url", answers(changed(change))])

    assert done.exit_code == 1
    assert told in done.output


def test_an_environment_without_schedules_may_have_none(answers: Callable[[Any], str]) -> None:
    def without(data: dict[str, Any]) -> None:
        repository(data).update(schedules=[], sensors=[])

    url = answers(changed(without))

    assert {line.state for line in smoke(url, expect_schedules=False)} == {"pass"}
    assert "is this the environment" in str(smoke(url))


def test_no_predictions_yet_is_no_failure(answers: Callable[[Any], str]) -> None:
    def new(data: dict[str, Any]) -> None:
        data["assetNodes"][0]["assetPartitionStatuses"]["ranges"] = []

    states = {line.subject: line.state for line in smoke(answers(changed(new)))}

    assert states["predictions"] == "warn"


def test_predictions_that_do_not_reach_yesterday_are_no_good_sign(
    answers: Callable[[Any], str],
) -> None:
    def late(data: dict[str, Any]) -> None:
        data["assetNodes"][0]["assetPartitionStatuses"]["ranges"][0]["status"] = "FAILED"

    line = smoke(answers(changed(late)))[-1]

    assert line.state == "warn"
    assert f"newest is 2026-01-05, and {YESTERDAY} is missing" in line.found


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (b"<html>", 200, "does not answer as a Dagster webserver"),
        ([], 200, "refuses the question"),
        ({"errors": ["no"]}, 200, "refuses the question"),
        (b"", 401, "asks for a login"),
        (b"", 502, "answers HTTP 502"),
    ],
)
def test_what_is_no_webserver_is_told(
    answers: Callable[..., str], answer: Any, status: int, told: str
) -> None:
    with pytest.raises(SmokeError, match=told):
        smoke(answers(answer, status))


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://127.0.0.1", "127.0.0.1:3000"])
def test_an_address_that_nobody_answers_ends_in_one_message(url: str) -> None:
    done = CliRunner().invoke(app, ["smoke", "--url", url])

    assert done.exit_code == 1
    assert "Traceback" not in done.output
