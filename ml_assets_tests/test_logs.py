"""Logs: every line of a real run is JSON, says what it is about, comes once, and hides secrets."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from ml_assets_tests.conftest import new_platform

PROJECT = Path(__file__).parents[1]
PASSWORD = "Tr0ub4dor&3"

# What the process of a run does: it loads the code location, and executes the job. Libraries that
# bring loggers of their own speak within a step.
RUN = """
import logging, sys, warnings
import dagster as dg
from ml_assets.definitions import defs
import ml_assets.assets.extraction as extraction

def speak():
    import mlflow
    logging.getLogger("mlflow.tracking").info("a library speaks")
    logging.getLogger("ml_assets.core").info("we speak")
    warnings.warn("a library warns")
    dg.get_dagster_logger().info("said by way of dagster")

judge = extraction.judge
extraction.judge = lambda *args, **names: (speak(), judge(*args, **names))[1]
with dg.DagsterInstance.ephemeral() as instance:
    result = defs.resolve_job_def("claims_ingestion").execute_in_process(
        instance=instance, partition_key="2026-01-05", raise_on_error=False
    )
sys.exit(0 if result.success else 3)
"""


def run(home: Path, script: str = RUN, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "ML_ASSETS_ENV": "prod",
            "ML_ASSETS_HOME": str(home),
            "ML_ASSETS_LAKE_URL": f"{home}/lake",
            "ML_ASSETS_REGISTRY_URL": f"sqlite:///{home}/mlflow.db",
            "PGPASSWORD": "abcdefgh",
            **variables,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stdout


def parsed(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.slow
def test_every_line_of_a_run_in_prod_is_json_and_says_what_it_is_about(tmp_path: Path) -> None:
    new_platform(tmp_path).arrive("2026-01-05", "2026-01-05")
    code, output = run(tmp_path, ML_ASSETS_WAREHOUSE_URL=f"duckdb:///{tmp_path}/warehouse.duckdb")

    assert code == 0, output
    lines = parsed(output)
    assert all({"timestamp", "level", "logger", "event"} <= line.keys() for line in lines)
    of_run = [line for line in lines if "run_id" in line]
    assert len({line["run_id"] for line in of_run}) == 1
    assert {line["partition"] for line in of_run} == {"2026-01-05"}
    assert {line["job"] for line in of_run} == {"claims_ingestion"}
    made = [line["asset"] for line in lines if line.get("dagster_event") == "ASSET_MATERIALIZATION"]
    assert sorted(made) == [f"claims/{s}" for s in ("extraction", "features", "quarantine", "raw")]
    said = Counter(line["event"].strip() for line in lines)
    for text in ("a library speaks", "we speak", "said by way of dagster"):
        assert said[text] == 1, "each line comes once"
        (line,) = [line for line in lines if line["event"] == text]
        assert line["step"] == "claims_extraction", "whoever speaks within a step"
    assert max(said.values()) == 1
    (few,) = [line for line in lines if line["level"] == "warning" and "check" in line["event"]]
    assert few["asset"] == "claims/extraction"
    assert not re.search(r"A-\d{8}-\d{6}", output), "no row is named"


@pytest.mark.slow
def test_no_password_is_logged_even_if_the_connection_fails_with_it(tmp_path: Path) -> None:
    url = f"postgresql://ml:{quote(PASSWORD)}@127.0.0.1:1/insurance"

    code, output = run(tmp_path, ML_ASSETS_WAREHOUSE_URL=url, PGPASSWORD=PASSWORD)

    assert code == 3
    lines = parsed(output)
    (failed,) = [line for line in lines if line.get("dagster_event") == "PIPELINE_FAILURE"]
    assert "127.0.0.1" in failed["exception"]
    assert PASSWORD not in output
    assert quote(PASSWORD) not in output


# A job of its own, with secrets and values in messages and exceptions.
LEAK = """
import logging, os
import dagster as dg
from ml_assets import logs
from ml_assets.environment import LogSettings

settings = LogSettings(format="FORMAT", level="info")
logs.configure(settings, ["claims/raw"])
logs.configure(settings)
secret = os.environ["PGPASSWORD"]

@dg.op
def claims__raw(context):
    context.log.info(f"connects as postgresql://ml:{secret}@host/db")
    context.log.debug("too fine")
    logging.getLogger("lib").error("password=%s", secret)
    given = {"api_key": "k3y", "pwd": "k3y", "n": 3}
    failed = {"row": ["KeyError: 'Ann Smith'", given], "e": KeyError("Ann")}
    logging.getLogger("ml_assets.x").warning("no column 'age'", extra={"failed": failed})
    logging.getLogger("lib").warning("odd cell 'Ann Smith'", extra={"token": "k3y"})
    raise ValueError(f"could not convert string to float: 'Ann Smith', {secret}")

@dg.job
def leak():
    claims__raw()

leak.execute_in_process(raise_on_error=False, tags={"dagster/partition": "2026-01-05"})
logging.getLogger("lib").warning("after the run")
try:
    raise RuntimeError(secret)
except RuntimeError:
    logging.getLogger("lib").exception("it broke")
try:
    raise OSError("Key (application_id)=(A-12345), cell 'Ann Smith', Authorization: Bearer abcdef")
except OSError:
    logging.getLogger("ml_assets.x").exception("it broke as well")
"""


def test_secrets_and_values_are_blotted_out_of_messages_and_exceptions(tmp_path: Path) -> None:
    _, output = run(tmp_path, LEAK.replace("FORMAT", "json"), PGPASSWORD=PASSWORD)

    lines = parsed(output)
    assert PASSWORD not in output
    assert "Ann" not in output
    said = Counter(line["event"] for line in lines)
    assert said["connects as postgresql://ml:***@host/db"] == 1
    assert said["password=***"] == 1
    assert "too fine" not in said
    (failed,) = [line for line in lines if line.get("dagster_event") == "STEP_FAILURE"]
    assert failed["level"] == "error"
    assert failed["asset"] == "claims/raw"
    assert "could not convert string to float: …, ***" in failed["exception"]
    assert re.search(r'File "[^"…]+", line \d+, in claims__raw', failed["exception"])
    assert "k3y" not in output
    (ours,) = [line for line in lines if line["event"] == "no column 'age'"]
    assert ours["failed"] == {
        "row": ["KeyError: …", {"api_key": "***", "pwd": "***", "n": 3}],
        "e": "builtins.KeyError: …",
    }
    (of_library,) = [line for line in lines if line["event"] == "odd cell …"]
    assert of_library["token"] == "***"
    (after,) = [line for line in lines if line["event"] == "after the run"]
    assert "run_id" not in after
    (broke,) = [line for line in lines if line["event"] == "it broke"]
    assert broke["exception"].endswith("RuntimeError: ***")
    (broke,) = [line for line in lines if line["event"] == "it broke as well"]
    assert broke["exception"].endswith("(application_id)=(…), cell …, Authorization: Bearer ***")
    assert "A-12345" not in output


def test_the_format_for_people_says_and_hides_the_same(tmp_path: Path) -> None:
    _, output = run(tmp_path, LEAK.replace("FORMAT", "text"), PGPASSWORD=PASSWORD)

    assert PASSWORD not in output
    assert "Ann" not in output
    (line,) = [line for line in output.splitlines() if "connects as" in line]
    assert re.search(
        r"INFO +dagster connects as postgresql://ml:\*\*\*@host/db "
        r"\[leak 2026-01-05 claims__raw \w{8}\]$",
        line,
    )
    assert "A-12345" not in output
    assert "OSError: Key (application_id)=(…), cell …, Authorization: Bearer ***" in output
    assert output.count("it broke") == 2
    assert "too fine" not in output
