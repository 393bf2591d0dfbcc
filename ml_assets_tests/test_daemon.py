"""New data leads to new predictions by the sensor alone: real UI, real daemon, real processes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_assets.build import resources
from ml_assets.environment import load_environment
from ml_assets_tests.test_demo import ml_assets

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[1]
PATIENCE_S = 240  # the work takes about 30 s on two idle cores


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def graphql(port: int, query: str) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)["data"]


def wait_for(condition: Any, what: str) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except OSError:
            pass
        time.sleep(1)
    raise AssertionError(f"after {PATIENCE_S} s, still no {what}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("daemon")
    ml_assets("demo", "--days", "58", "--home", str(home))
    return home


@pytest.fixture(scope="module")
def port(home: Path) -> Iterator[int]:
    """The UI with its daemon, as `make ui` starts it."""
    port = free_port()
    command = [str(Path(sys.executable).parent / "ml-assets"), "ui", "--home", str(home)]
    with (home / "ui.log").open("w") as log:
        process = subprocess.Popen(
            [
                *command,
                *("--port", str(port)),
                *("--mlflow-port", str(free_port())),
                *("--reports-port", str(free_port())),
            ],
            cwd=PROJECT,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            wait_for(lambda: graphql(port, "{ version }"), f"UI: {(home / 'ui.log').read_text()}")
            yield port
        finally:
            os.killpg(process.pid, signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def test_the_ui_shows_the_graph_with_the_history_of_the_demo(port: int) -> None:
    found = graphql(
        port,
        """{ assetNodes { assetKey { path } assetMaterializations(limit: 1) { partition }
             partitionStats { numMaterialized numFailed } }
             runsOrError { ... on Runs { results { jobName status } } } }""",
    )

    stats = {
        node["assetKey"]["path"][-1]: node["partitionStats"]["numMaterialized"]
        for node in found["assetNodes"]
    }
    assert stats["raw"] == stats["features"] == 58
    assert stats["predictions"] == 14
    assert stats["champion"] == 1
    runs = found["runsOrError"]["results"]
    assert {run["jobName"] for run in runs} == {
        "claims_ingestion",
        "claims_tuning",
        "claims_training",
        "claims_scoring",
        "claims_monitoring",
    }
    assert {run["status"] for run in runs} == {"SUCCESS"}


def test_simulated_applications_become_predictions_with_no_further_hand(
    port: int, home: Path
) -> None:
    environment = load_environment("dev", environ={"ML_ASSETS_HOME": str(home)})
    lake = resources(environment)["lake"]
    before = max(lake.rows_per_day("claims/predictions"))
    features = lake.read("claims/features", "2025-07-01", "2100-01-01")

    ml_assets("simulate", "--days", "1", "--home", str(home))

    days = wait_for(
        lambda: [day for day in lake.rows_per_day("claims/predictions") if day > before],
        "predictions of the new day",
    )
    assert len(days) == 1
    status = wait_for(
        lambda: _up_to_date(ml_assets("status", "--home", str(home))), "status up to date"
    )
    assert "failed" not in status.lower().split("last run")[1]
    asked = _asked_days(port)
    changed = lake.read("claims/extraction", "2025-07-01", "2100-01-01")
    assert set(asked) <= set(changed["day"])
    assert len(asked) == len(set(asked)), "no change is asked for twice"
    assert days[0] in asked
    labels = lake.read("claims/features", "2025-07-01", "2100-01-01")["claim_status"]
    assert labels.notna().sum() > features["claim_status"].notna().sum()


def test_the_ui_listens_on_the_loopback_only(port: int) -> None:
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = {
        line.split()[1].split(":")[0]
        for line in table.splitlines()
        if f":{port:04X} " in line and line.split()[3] == "0A"
    }

    assert listening == {"0100007F"}


def _up_to_date(status: str) -> str | None:
    return status if "not yet read: –" in status and "started" not in status else None


def _asked_days(port: int) -> list[str]:
    """The days of every run that the sensor asked for."""
    found = graphql(
        port,
        "{ runsOrError { ... on Runs { results { tags { key value } } } } }",
    )
    from ml_assets.partitions import days_between

    asked: list[str] = []
    for run in found["runsOrError"]["results"]:
        tags = {tag["key"]: tag["value"] for tag in run["tags"]}
        if tags.get("dagster/sensor_name") != "claims_new_data":
            continue
        first = tags.get("dagster/partition") or tags["dagster/asset_partition_range_start"]
        last = tags.get("dagster/asset_partition_range_end", first)
        asked += days_between(first, last)
    return asked
