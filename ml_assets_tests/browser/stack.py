"""What a browser looks at: `ml-assets ui` on the home of a real demo, with a bad delivery in it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

from ml_assets_tests.test_servers import PATIENCE_S, PROJECT, UI, answers, wait_for

# Of a day's rows; more than contract.max_bad_share allows.
_BAD_TENTHS = 3


@dataclass(frozen=True)
class Stack:
    """A platform that is running.

    Attributes:
        url: Dagster's UI.
        pages_url: The server of model cards and monitoring pages.
        yesterday: The newest day that was scored.
        bad_day: The day of the bad delivery.
        unscored_day: A day with features and without predictions.
        unscored_days: Two days in a row without predictions.
    """

    url: str
    pages_url: str
    yesterday: str
    bad_day: str
    unscored_day: str
    unscored_days: tuple[str, str]


@contextmanager
def running_stack(folder: Path, ports: list[int]) -> Iterator[Stack]:
    """Make a demo, let one of its days be delivered badly, and serve it with everything on.

    Args:
        folder: An empty folder, for the home and the logs.
        ports: Three free ones.
    """
    port, mlflow_port, pages_port = ports
    home = folder / "home"
    pages_url = f"http://127.0.0.1:{pages_port}"
    environ = {**os.environ, "ML_ASSETS_REPORTS_URL": pages_url, "COLUMNS": "160"}

    def ml_assets(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [UI[0], *arguments, "--home", str(home)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)

    made = ml_assets("demo", "--days", "58")
    assert made.returncode == 0, made.stdout + made.stderr
    yesterday = date.today() - timedelta(days=1)

    def before(days: int) -> str:
        return (yesterday - timedelta(days=days)).isoformat()

    stack = Stack(
        url=f"http://127.0.0.1:{port}",
        pages_url=pages_url,
        yesterday=before(0),
        bad_day=before(20),
        unscored_day=before(25),
        unscored_days=(before(31), before(30)),
    )
    _spoil(home / "warehouse.duckdb", stack.bad_day)
    # Read here, so that the sensor has nothing left to ask for, and no run of its own gets between.
    refused = ml_assets("run", "ingestion", "--day", stack.bad_day)
    assert "of the rows break the contract" in refused.stderr, refused.stdout + refused.stderr

    log = folder / "ui.log"
    places = ["--port", str(port), "--mlflow-port", str(mlflow_port)]
    with log.open("w") as output:
        process = subprocess.Popen(
            [*UI, "--home", str(home), *places, "--reports-port", str(pages_port)],
            cwd=PROJECT,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        addresses = [f"{stack.url}/server_info", f"{stack.pages_url}/"]
        wait_for(lambda: process.poll() is not None or all(map(answers, addresses)), "answer")
        assert process.poll() is None, log.read_text()
        yield stack
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=PATIENCE_S)


def _spoil(warehouse: Path, day: str) -> None:
    """Let some of a day's rows carry a category that the contract does not know.

    In a process of its own: DuckDB lets one have a file at a time, and this one may live on.
    """
    program = (
        "import duckdb, sys\n"
        "with duckdb.connect(sys.argv[1]) as connection:\n"
        "    connection.execute(\"UPDATE claims.ds_dataset SET marital_status = 'Z', updated_at ="
        " now() WHERE CAST(received_at AT TIME ZONE 'Europe/London' AS DATE) = CAST(? AS DATE)"
        ' AND CAST(right(application_id, 1) AS INT) < ?", [sys.argv[2], int(sys.argv[3])])\n'
    )
    command = [sys.executable, "-c", program, str(warehouse), day, str(_BAD_TENTHS)]
    subprocess.run(command, check=True)
