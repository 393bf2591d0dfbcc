"""The services of compose.yaml, each killed in mid-run, lose nothing; see `deploy/stack.py`."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.stack import Lost, Place, interpolated, services

PROJECT = Path(__file__).parents[2]
SECRETS = {"POSTGRES_PASSWORD": "a", "DAGSTER_DB_PASSWORD": "b", "MLFLOW_DB_PASSWORD": "c"}
PORTS = {"postgres": 1, "mlflow": 2, "code": 3, "webserver": 4, "daemon": 5, "reports": 6}


@pytest.mark.slow
@pytest.mark.stack
def test_every_service_is_killed_in_mid_run_and_nothing_is_lost() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deploy.stack"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("postgres", "mlflow", "code", "daemon", "webserver"):
        assert f"{name} is killed while run" in done.stdout
    assert "its model card opens" in done.stdout
    assert "nothing was lost" in done.stdout


def test_the_services_of_compose_run_on_loopback_in_a_folder_with_prods_settings(
    tmp_path: Path,
) -> None:
    variables = {**SECRETS, "ML_ASSETS_WAREHOUSE_URL": "postgresql://reader@127.0.0.1:1/insurance"}

    found = services(Place(tmp_path, PORTS), variables)

    assert found["code"].environ["ML_ASSETS_ENV"] == "prod"
    assert found["code"].environ["ML_ASSETS_HOME"] == f"{tmp_path}/ml_assets/prod"
    assert found["code"].environ["ML_ASSETS_REGISTRY_URL"] == "http://127.0.0.1:2"
    assert found["code"].environ["ML_ASSETS_REPORTS_URL"] == "http://127.0.0.1:6"
    assert found["reports"].command[-4:] == ["--host", "127.0.0.1", "--port", "6"]
    assert "'127.0.0.1:6'" in found["reports"].check[-1]
    assert not [name for name in found["reports"].environ if "ML_ASSETS" in name]
    assert found["webserver"].environ["CODE_SERVER_PORT"] == "3"
    assert "http://127.0.0.1:4/server_info" in found["webserver"].check[-1]
    assert "AWS_REGION" not in found["code"].environ, "not set, so not handed on"
    assert "--path-prefix=" in found["webserver"].command
    text = str(found)
    for there in ("/var/lib", "0.0.0.0", "@postgres:", "http://mlflow", "$"):
        assert there not in text, there


def test_another_environment_has_its_own_home_and_finds_mlflow(tmp_path: Path) -> None:
    variables = {**SECRETS, "ML_ASSETS_WAREHOUSE_URL": "x", "ML_ASSETS_ENV": "preprod"}

    code = services(Place(tmp_path, PORTS), variables)["code"].environ

    assert code["ML_ASSETS_HOME"] == f"{tmp_path}/ml_assets/preprod"
    assert code["ML_ASSETS_REGISTRY_URL"] == "http://127.0.0.1:2"


def test_a_port_that_begins_with_the_digits_of_another_stays_whole(tmp_path: Path) -> None:
    ports = {**PORTS, "postgres": 50_001, "mlflow": 30_001}
    warehouse = "postgresql://reader@127.0.0.1:50001/insurance"
    variables = {**SECRETS, "ML_ASSETS_WAREHOUSE_URL": warehouse}

    code = services(Place(tmp_path, ports), variables)["code"].environ

    assert code["ML_ASSETS_WAREHOUSE_URL"] == warehouse
    assert code["ML_ASSETS_STORAGE_URL"].endswith("@127.0.0.1:50001/dagster")
    assert code["ML_ASSETS_REGISTRY_URL"] == "http://127.0.0.1:30001"


def test_behind_a_proxy_webserver_and_health_check_have_the_prefix(tmp_path: Path) -> None:
    variables = {**SECRETS, "ML_ASSETS_WAREHOUSE_URL": "x", "WEBSERVER_PREFIX": "/operate"}

    found = services(Place(tmp_path, PORTS), {**variables, "AWS_REGION": "eu-west-1"})

    assert "--path-prefix=/operate" in found["webserver"].command
    assert "http://127.0.0.1:4/operate/server_info" in found["webserver"].check[-1]
    assert found["code"].environ["AWS_REGION"] == "eu-west-1"


def test_a_secret_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Lost, match="ML_ASSETS_WAREHOUSE_URL is not set"):
        services(Place(tmp_path, PORTS), SECRETS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("${A:-x}", "x"), ("${A:-}", ""), ("${B}/${B:?why}", "b/b"), ("no variable", "no variable")],
)
def test_values_are_filled_in_as_compose_does(text: str, expected: str) -> None:
    assert interpolated(text, {"A": "", "B": "b"}) == expected
