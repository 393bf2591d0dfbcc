"""The files of a deployment agree with one another, and with the schemas of those who read them."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.build import DOCKERFILE, command, lines
from deploy.stack import interpolated
from ml_assets.code_server import PATIENCE_S
from ml_assets.environment import ENVIRONMENTS, VARIABLES, load_environment
from ml_assets.servers import GRACE_S

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def schema_errors(schema: str, *files: Path) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", schema]
        + [str(file) for file in files],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout if done.returncode else ""


def locked(path: Path) -> dict[str, str]:
    """Each package of a lock: its version, marker and hashes, as they stand there."""
    found = {}
    for entry in re.split(r"\n(?=\S)", path.read_text().replace("\\\n", "")):
        if "==" in entry:
            found[entry.partition("==")[0]] = " ".join(sorted(entry.split()))
    return found


def test_the_image_gets_only_what_the_main_lock_has_been_tested_with() -> None:
    deployed, tested = locked(DEPLOY / "requirements.lock"), locked(PROJECT / "requirements.lock")

    assert {"dagster", "mlflow", "psycopg2-binary"} <= deployed.keys()
    assert not {"pytest", "ruff", "uv", "psycopg", "playwright"} & deployed.keys()
    hashes = re.compile(r"--hash=\S+|==\S+")
    for name, entry in deployed.items():
        assert hashes.findall(entry), f"{name} has no hash"
        assert set(hashes.findall(entry)) <= set(hashes.findall(tested[name])), name


def test_compose_keeps_its_schema_and_a_typo_does_not(tmp_path: Path) -> None:
    wrong = tmp_path / "compose.yaml"
    wrong.write_text((DEPLOY / "compose.yaml").read_text().replace("healthcheck:", "healthchecks:"))

    assert schema_errors("vendor.compose-spec", DEPLOY / "compose.yaml") == ""
    assert "healthchecks" in schema_errors("vendor.compose-spec", wrong)


def test_every_service_is_watched_and_published_on_loopback_only() -> None:
    compose = read(DEPLOY / "compose.yaml")

    for name, service in compose["services"].items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        assert service["restart"] == "unless-stopped", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        if name != "postgres":  # its own image starts as root to own its volume, and steps down
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"] is True, name
        if service.get("ports"):  # an internal network publishes none
            assert set(service["networks"]) != {"inside"}, name
    assert compose["networks"]["inside"]["internal"] is True


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_same_image_is_accepted_as_each_environment(name: str) -> None:
    services = read(DEPLOY / "compose.yaml")["services"]
    variables = {
        "ML_ASSETS_ENV": name,
        "ML_ASSETS_WAREHOUSE_URL": "postgresql://r:p@host/insurance",
    }
    variables |= dict.fromkeys(("DAGSTER_DB_PASSWORD", "MLFLOW_DB_PASSWORD"), "secret")

    def environ(service: str) -> dict[str, str]:
        declared = services[service]["environment"].items()
        return {key: interpolated(value, variables) for key, value in declared if value is not None}

    for service in ("code", "daemon", "webserver", "viewer"):
        found = load_environment(environ=environ(service))
        assert found.name == name
        assert environ(service)["DAGSTER_HOME"] == str(found.dagster_home)
        assert Path("/var/lib/ml_assets") in found.home.parents, "the volume"
        assert "home:/var/lib/ml_assets" in services[service]["volumes"]
    host = found.registry.url.removeprefix("http://")
    aliases = services["mlflow"]["networks"]["inside"]["aliases"]
    assert [f"{interpolated(alias, variables)}:5000" for alias in aliases] == [host]
    assert host in environ("mlflow")["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    command = [interpolated(word, variables) for word in services["reports"]["command"]]
    assert command[command.index("--folder") + 1] == str(found.reports_folder)


def test_what_serves_pages_to_people_has_no_secret_and_changes_nothing() -> None:
    services = read(DEPLOY / "compose.yaml")["services"]
    reports = services.pop("reports")

    assert "environment" not in reports
    assert reports["volumes"] == ["home:/var/lib/ml_assets:ro"]
    met = {name for name, each in services.items() if {*each["networks"]} & {*reports["networks"]}}
    assert met == set(), "whoever meets the code server can let it run anything"


def test_links_lead_to_the_pages_where_they_are_published() -> None:
    compose = read(DEPLOY / "compose.yaml")
    url = interpolated(compose["x-platform"]["environment"]["ML_ASSETS_REPORTS_URL"], {})

    published = compose["services"]["reports"]["ports"][0].rpartition(":")[0]
    assert url == f"http://{published}"
    assert f"ML_ASSETS_REPORTS_URL={url}\n" in (DEPLOY / "env.example").read_text()
    assert f"proxy_pass {url}/;" in (DEPLOY / "proxy" / "nginx.conf").read_text()


def test_compose_holds_no_secret_and_the_example_names_every_variable() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    needed = set(re.findall(r"\$\{(\w+)", text))
    example = dict(
        line.partition("=")[::2]
        for line in (DEPLOY / "env.example").read_text().splitlines()
        if "=" in line and not line.startswith("# ")
    )
    platform = read(DEPLOY / "compose.yaml")["x-platform"]["environment"]
    if_set = {f"#{name}" for name, value in platform.items() if value is None}

    assert needed | if_set | {"COMPOSE_PROFILES"} == example.keys()
    filled_in = {"ML_ASSETS_IMAGE", "ML_ASSETS_ENV", "ML_ASSETS_UI_URL", "ML_ASSETS_REPORTS_URL"}
    assert {key for key, value in example.items() if value} == filled_in
    for value in re.findall(r"PASSWORD: (.*)", text):
        assert value.startswith("${"), value


def test_every_variable_of_the_configuration_reaches_the_platform() -> None:
    services = read(DEPLOY / "compose.yaml")["services"]

    for name in ("code", "daemon", "webserver", "viewer"):
        found = services[name]["environment"].keys()
        assert {"ML_ASSETS_ENV", *VARIABLES} == {key for key in found if "ML_ASSETS" in key}, name


def test_the_code_server_has_the_time_to_wait_for_its_runs() -> None:
    compose = read(DEPLOY / "compose.yaml")["services"]["code"]["stop_grace_period"]
    manifests = read(DEPLOY / "helm" / "values.yaml")["extraManifests"]
    pod = next(each for each in manifests if each["kind"] == "Deployment")["spec"]["template"]

    assert int(compose.removesuffix("m")) * 60 > PATIENCE_S + GRACE_S
    assert pod["spec"]["terminationGracePeriodSeconds"] > PATIENCE_S + GRACE_S


def test_the_image_runs_as_nobody_in_particular_and_compose_starts_what_it_starts() -> None:
    found = lines(DOCKERFILE.read_text())

    user = [rest for name, rest in found if name == "USER"]
    assert user == ["10001:10001"]
    assert [name for name, _ in found].count("HEALTHCHECK") == 1
    code = read(DEPLOY / "compose.yaml")["services"]["code"]
    assert command() == code["command"]
    health = next(rest for name, rest in found if name == "HEALTHCHECK").partition(" CMD ")[2]
    assert yaml.safe_load(health) == code["healthcheck"]["test"][1:]


def test_the_builder_is_sent_no_more_than_the_image_copies() -> None:
    sent = {
        line.removeprefix("!")
        for line in (PROJECT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        word
        for name, rest in lines(DOCKERFILE.read_text())
        if name == "COPY" and not rest.startswith("--from")
        for word in rest.split()[:-1]
    }

    assert sent == copied


def test_helm_and_compose_agree_with_dagsters_own_settings() -> None:
    values = read(DEPLOY / "helm" / "values.yaml")
    ours = read(PROJECT / "ml_assets" / "config" / "dagster.yaml")

    runs, pools = values["concurrency"]["runs"], values["concurrency"]["pools"]
    assert runs["maxConcurrentRuns"] == ours["concurrency"]["runs"]["max_concurrent_runs"]
    assert pools["defaultLimit"] == ours["concurrency"]["pools"]["default_limit"]
    assert pools["granularity"] == ours["concurrency"]["pools"]["granularity"]
    watched = values["dagsterDaemon"]["runMonitoring"]
    assert watched["pollIntervalSeconds"] == ours["run_monitoring"]["poll_interval_seconds"]
    assert watched["maxRuntimeSeconds"] == ours["run_monitoring"]["max_runtime_seconds"] > 0
    retries = values["dagsterDaemon"]["runRetries"]
    assert retries["maxRetries"] == ours["run_retries"]["max_retries"]
    assert values["additionalInstanceConfig"]["run_queue"] == ours["run_queue"]
    code = next(each for each in values["extraManifests"] if each["kind"] == "Deployment")
    container = code["spec"]["template"]["spec"]["containers"][0]
    assert container["args"] == command()
    environ = {each["name"]: each for each in container["env"]}
    # The daemon hands its instance to the code server, and the chart's reads this variable.
    assert environ["DAGSTER_PG_PASSWORD"]["valueFrom"]["secretKeyRef"] == {
        "name": values["global"]["postgresqlSecretName"],
        "key": "postgresql-password",
    }
    assert code["spec"]["strategy"]["type"] == "Recreate", "never two on one home"
    pod = code["spec"]["template"]["spec"]["securityContext"]
    assert (pod["runAsUser"], pod["runAsNonRoot"]) == (10001, True)


def test_workflows_keep_their_schema_and_a_typo_does_not(tmp_path: Path) -> None:
    wrong = tmp_path / "ci.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on:", "run-on:"))

    assert [each.name for each in WORKFLOWS] == ["ci.yml", "deploy.yml"]
    assert schema_errors("vendor.github-workflows", *WORKFLOWS) == ""
    assert schema_errors("vendor.github-workflows", wrong)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_every_command_of_a_workflow_is_a_target_of_the_makefile(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    jobs = read(workflow)["jobs"].values()
    steps = [step for job in jobs if "uses" not in job for step in job["steps"]]

    ran = [step["run"] for step in steps if "run" in step]
    assert ran
    for line in ran:
        program, *asked = line.split()
        assert program == "make", line
        assert {word for word in asked if "=" not in word} <= targets, line


def test_each_environment_waits_for_the_one_before_and_is_asked_afterwards() -> None:
    jobs = read(PROJECT / ".github" / "workflows" / "deploy.yml")["jobs"]

    assert list(jobs) == ["ci", "image", "dev", "preprod", "prod"]
    for before, name in (("image", "dev"), ("dev", "preprod"), ("preprod", "prod")):
        job = jobs[name]
        assert before in job["needs"]
        # Without a word of its own GitHub would skip it where `ci` was skipped.
        assert job["if"] == f"${{{{ !cancelled() && needs.{before}.result == 'success' }}}}"
        assert job["environment"]["name"] == name
        assert job["env"]["ML_ASSETS_IMAGE"].endswith("@${{ needs.image.outputs.digest }}")
        steps = [step for step in job["steps"] if "run" in step]
        assert steps[0]["run"] == "make deploy"
        assert steps[0]["env"].keys() == {"REGISTRY_USER", "REGISTRY_PASSWORD"}
        asked = "make deployed-smoke ARGS=--no-schedules"
        wants_schedules = load_environment(name, environ={}).schedules.enabled
        assert steps[1]["run"] == asked.partition(" ARGS")[0] if wants_schedules else asked


def test_nothing_is_deployed_that_ci_has_not_passed() -> None:
    jobs = read(PROJECT / ".github" / "workflows" / "deploy.yml")["jobs"]
    ci = read(PROJECT / ".github" / "workflows" / "ci.yml")

    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in ci[True], "`on`, as YAML 1.1 reads it"
    assert jobs["image"]["needs"] == ["ci"]
    # An image of before was checked when it was built.
    assert jobs["ci"]["if"] == "${{ !inputs.digest }}"
    passed = "!cancelled() && (needs.ci.result == 'success' || inputs.digest)"
    assert jobs["image"]["if"] == f"${{{{ {passed} }}}}"
    # In a called workflow the name is the caller's.
    assert "${{ github.workflow }}" in ci["concurrency"]["group"]


def test_ci_fills_up_disks_and_drills_each_week() -> None:
    ci = read(PROJECT / ".github" / "workflows" / "ci.yml")

    container = ci["jobs"]["test-all"]["container"]
    assert "--cap-add SYS_ADMIN" in container["options"], "or the tests of a full disk are skipped"
    assert ci["jobs"]["drill"]["if"] == "github.event_name == 'schedule'"
    assert [step.get("run") for step in ci["jobs"]["drill"]["steps"]][-1] == "make drill"
    assert ci["jobs"]["drill"]["container"] == container["image"]


DOCKER = """#!/bin/sh
echo "$COMPOSE_PROFILES $ML_ASSETS_IMAGE: $*" >> "$RECORD"
case "$*" in login*) cat >> "$RECORD.stdin";; esac
case "$*" in *"$FAILS"*) exit 1;; *" ps "*) echo "$VIEWER";; esac
"""


@pytest.fixture
def deployed(tmp_path: Path) -> Any:
    """Runs deploy.sh with a `docker` that only writes down what it is asked."""
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    settings = tmp_path / "deploy.env"
    settings.write_text("ML_ASSETS_ENV=prod\nML_ASSETS_IMAGE=ml-assets@sha256:old\n")
    settings.chmod(0o600)

    def run(
        image: str,
        fails: str = "nothing does",
        backups: Path | None = None,
        viewer: str = "",
        **variables: str,
    ) -> tuple[int, str, list[str]]:
        record = tmp_path / "record"
        record.write_text("")
        done = subprocess.run(
            [str(DEPLOY / "deploy.sh")],
            env={
                "PATH": f"{tmp_path}:/usr/bin:/bin",
                "RECORD": str(record),
                "FAILS": fails,
                "ML_ASSETS_IMAGE": image,
                "HOME": str(tmp_path),
                "ML_ASSETS_BACKUPS": str(backups or ""),
                "ML_ASSETS_ENV_FILE": str(settings),
                "VIEWER": viewer,
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        asked = [line.partition("deploy.env ")[2] for line in record.read_text().splitlines()]
        return done.returncode, done.stdout + done.stderr, asked

    return run


def test_a_deployment_backs_up_what_stands_still_before_it_migrates(
    deployed: Any, tmp_path: Path
) -> None:
    code, told, asked = deployed("ml-assets@sha256:abc")

    assert code == 0, told
    order = ["stop daemon", "stop webserver code mlflow", "pg_dump", "mlflow db upgrade"]
    order += ["ml-assets migrate", "up --detach --wait"]
    places = [max(n for n, line in enumerate(asked) if part in line) for part in order]
    assert places == sorted(places), asked
    assert f"the databases of before are in {tmp_path}/ml_assets_backups/" in told
    settings = tmp_path / "deploy.env"
    assert settings.read_text() == "ML_ASSETS_ENV=prod\nML_ASSETS_IMAGE=ml-assets@sha256:abc\n"
    assert settings.stat().st_mode & 0o777 == 0o600
    assert not [line for line in asked if "stop" in line and "viewer" in line]


def test_a_read_only_webserver_that_is_there_gets_the_new_image_too(
    deployed: Any, tmp_path: Path
) -> None:
    code, told, asked = deployed("ml-assets@sha256:abc", viewer="0123456789ab")

    assert code == 0, told
    assert "stop webserver viewer code mlflow" in asked
    record = (tmp_path / "record").read_text().splitlines()
    assert [line for line in record if "up --detach --wait" in line][-1].startswith("viewer ")


@pytest.mark.parametrize("folder", ["backups", ".", "deploy/../backups"])
def test_backups_never_lie_where_a_checkout_empties(deployed: Any, folder: str) -> None:
    for backups in (Path(folder), PROJECT / folder):
        code, told, asked = deployed("ml-assets@sha256:abc", backups=backups)

        assert (code, asked) == (2, [])
        assert "outside of the checkout" in told


@pytest.mark.parametrize("fails", ["pg_dump", "db upgrade", "ml-assets migrate"])
def test_a_deployment_stops_where_it_fails(deployed: Any, fails: str, tmp_path: Path) -> None:
    code, told, asked = deployed("ml-assets@sha256:abc", fails)

    assert code != 0
    assert "Not deployed" in told
    assert fails in asked[-1]
    assert "ML_ASSETS_IMAGE=ml-assets@sha256:old" in (tmp_path / "deploy.env").read_text()


def test_a_runner_logs_in_at_the_registry_before_it_pulls(deployed: Any, tmp_path: Path) -> None:
    image = "registry.example.com/team/ml-assets@sha256:abc"
    login = {"REGISTRY_USER": "robot", "REGISTRY_PASSWORD": "its password"}

    code, told, _ = deployed(image, **login)

    assert code == 0, told
    record = (tmp_path / "record").read_text()
    asked = "login --username robot --password-stdin registry.example.com\n"
    assert 0 < record.index(asked) < record.index(" pull\n")
    assert "its password" not in record, "nor in a list of processes"
    assert (tmp_path / "record.stdin").read_text() == "its password"
    code, told, asked = deployed(image, fails="login", **login)
    assert code != 0
    assert "pull" not in asked


def test_the_webserver_is_asked_in_its_own_container(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n")
    (tmp_path / "docker").chmod(0o755)
    environ = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ML_ASSETS_ENV_FILE": "/etc/ml-assets.env"}

    done = subprocess.run(
        ["make", "deployed-smoke", "ARGS=--no-schedules"],
        cwd=PROJECT,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )

    *asked, shell, option, script, name, argument = done.stdout.splitlines()
    where = "compose --file deploy/compose.yaml --env-file /etc/ml-assets.env exec -T webserver"
    assert " ".join(asked) == where
    # What the container's shell makes of it, with the variable that compose.yaml hands to it.
    webserver = read(DEPLOY / "compose.yaml")["services"]["webserver"]["environment"]
    prefix = interpolated(webserver["WEBSERVER_PREFIX"], {"WEBSERVER_PREFIX": "/operate"})
    (tmp_path / "ml-assets").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "ml-assets").chmod(0o755)
    told = subprocess.run(
        [shell, option, script, name, argument],
        env={"PATH": environ["PATH"], "WEBSERVER_PREFIX": prefix},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "smoke --url http://127.0.0.1:3000/operate --no-schedules\n"


@pytest.mark.parametrize("image", ["", "ml-assets:latest"])
def test_an_image_without_a_digest_is_refused(deployed: Any, image: str) -> None:
    code, told, asked = deployed(image)

    assert (code, asked) == (2, [])
    assert "by digest" in told
