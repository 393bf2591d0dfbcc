"""Killing the demo at a random moment and running it again ends in the same tables."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from ml_assets.environment import load_environment
from ml_assets_tests.test_demo import ml_assets, tables

pytestmark = pytest.mark.slow

SEED = 20261123
KILLS = 2


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, pd.DataFrame], float]:
    """The tables of a demo that nobody disturbed, and the seconds it took."""
    home = tmp_path_factory.mktemp("undisturbed")
    started = time.monotonic()
    ml_assets("demo", "--days", "58", "--home", str(home))
    seconds = time.monotonic() - started
    return dict(tables(load_environment("dev", environ={"ML_ASSETS_HOME": str(home)}))), seconds


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_killed_demo_ends_in_the_tables_of_an_undisturbed_one(
    kill: int, undisturbed: tuple[dict[str, pd.DataFrame], float], tmp_path: Path
) -> None:
    expected, seconds = undisturbed
    # A moment in each of equal parts of the demo, so that every phase is hit.
    moment = seconds * (kill + random.Random(SEED + kill).random()) / KILLS
    command = [str(Path(sys.executable).parent / "ml-assets"), "demo", "--days", "58"]
    process = subprocess.Popen(
        [*command, "--home", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(moment)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    ml_assets("demo", "--days", "58", "--home", str(tmp_path))

    found = dict(tables(load_environment("dev", environ={"ML_ASSETS_HOME": str(tmp_path)})))
    for stage, frame in expected.items():
        pd.testing.assert_frame_equal(found[stage], frame, obj=f"{stage}, killed at {moment:.1f} s")
    with dg.DagsterInstance.from_config(str(tmp_path / "dagster")) as instance:
        running = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    assert running == [], "a dead run would hold its place in the queue for ever"
