import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from ml_assets.cli import app
from ml_assets.environment import (
    CONFIG_DIR,
    ENVIRONMENTS,
    Environment,
    InvalidEnvironment,
    load_environment,
    mask_url,
    masked,
    missing_variables,
    require_variables,
)

SECRET = "s3cr3t"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CONFIG_DIR, tmp_path / "config"))


@pytest.fixture
def with_dev(config: Path) -> Callable[..., Environment]:
    def load(text: str, environ: dict[str, str] | None = None) -> Environment:
        (config / "dev.yaml").write_text(text, encoding="utf-8")
        return load_environment("dev", environ=environ or {}, config_dir=config)

    return load


@pytest.fixture
def refusal(with_dev: Callable[..., Environment]) -> Callable[..., str]:
    def load(text: str, environ: dict[str, str] | None = None) -> str:
        with pytest.raises(InvalidEnvironment) as refused:
            with_dev(text, environ)
        return str(refused.value)

    return load


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_files_of_every_environment_are_valid(name: str) -> None:
    environment = load_environment(name, environ={})

    assert environment.name == name
    assert environment.zone.key == "Europe/London"


def test_every_key_of_every_file_is_one_that_base_yaml_documents() -> None:
    def keys(content: dict, prefix: str = "") -> set[str]:
        found = set()
        for key, value in content.items():
            found |= keys(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key}
        return found

    base, *others = (
        keys(yaml.safe_load((CONFIG_DIR / f"{name}.yaml").read_text(encoding="utf-8")))
        for name in ("base", *ENVIRONMENTS)
    )

    assert set().union(*others) <= base


def test_the_environment_file_lies_over_base_and_variables_over_both(
    with_dev: Callable[..., Environment],
) -> None:
    text = "warehouse:\n  attempts: 7\n  url: duckdb:///dev.duckdb\nlake:\n  url: dev-lake\n"

    environment = with_dev(text, {"ML_ASSETS_LAKE_URL": "s3://bucket/lake"})

    assert environment.lake.url == "s3://bucket/lake"
    assert environment.warehouse.url == "duckdb:///dev.duckdb"
    assert environment.warehouse.attempts == 7
    assert environment.warehouse.backoff_seconds == 0.5


@pytest.mark.parametrize(
    ("variable", "value", "field"),
    [
        ("ML_ASSETS_WAREHOUSE_URL", "postgresql://host/db", ("warehouse", "url")),
        ("ML_ASSETS_LAKE_URL", "s3://bucket", ("lake", "url")),
        ("ML_ASSETS_REGISTRY_URL", "http://mlflow:5000", ("registry", "url")),
        ("ML_ASSETS_REPORTS_URL", "https://reports.example", ("reports", "url")),
    ],
)
def test_each_place_can_be_set_by_its_variable(
    variable: str, value: str, field: tuple[str, str]
) -> None:
    environment = load_environment("prod", environ={variable: value})

    section, key = field
    assert getattr(getattr(environment, section), key) == value


def test_an_empty_variable_counts_as_not_set() -> None:
    environ = {"ML_ASSETS_LAKE_URL": "", "ML_ASSETS_ENV": ""}

    assert load_environment(environ=environ) == load_environment("dev", environ={})


def test_home_is_filled_into_every_place(tmp_path: Path) -> None:
    environment = load_environment("dev", environ={"ML_ASSETS_HOME": str(tmp_path)})

    assert environment.home == tmp_path
    assert environment.dagster_home == tmp_path / "dagster"
    assert environment.warehouse.url == f"duckdb:///{tmp_path}/warehouse.duckdb"
    assert environment.lake.url == f"{tmp_path}/lake"
    assert environment.registry.url == f"sqlite:///{tmp_path}/mlflow.db"
    assert environment.registry.artifacts == f"{tmp_path}/artifacts"
    assert "{home}" not in str(environment.model_dump())


def test_a_relative_home_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert load_environment("dev", environ={"ML_ASSETS_HOME": "here"}).home == tmp_path / "here"


@pytest.mark.parametrize(
    ("environ", "name"), [({}, "dev"), ({"ML_ASSETS_ENV": "preprod"}, "preprod")]
)
def test_the_environment_is_chosen_by_ml_assets_env_or_else_dev(
    environ: dict[str, str], name: str
) -> None:
    assert load_environment(environ=environ).name == name


def test_a_name_given_in_code_beats_ml_assets_env() -> None:
    assert load_environment("prod", environ={"ML_ASSETS_ENV": "preprod"}).name == "prod"


def test_the_process_variables_are_used_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ASSETS_ENV", "preprod")

    assert load_environment().name == "preprod"


def test_an_unknown_environment_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidEnvironment) as refused:
        load_environment(environ={"ML_ASSETS_ENV": "staging"})

    assert "'staging'" in str(refused.value)
    assert "dev, preprod, prod" in str(refused.value)
    assert "ML_ASSETS_ENV" in str(refused.value)


def test_an_unknown_key_is_refused_with_file_dotted_key_and_the_known_keys(
    refusal: Callable[..., str],
) -> None:
    message = refusal("warehouse:\n  atempts: 3\n")

    assert message == (
        "dev.yaml: warehouse.atempts: unknown key; expected one of url, attempts, "
        "backoff_seconds, statement_timeout_seconds"
    )


def test_an_unknown_section_is_refused_with_the_known_ones(refusal: Callable[..., str]) -> None:
    message = refusal("wharehouse: {}\n")

    assert message.startswith("dev.yaml: wharehouse: unknown key; expected one of home, time_zone")


@pytest.mark.parametrize(
    ("text", "start", "expected"),
    [
        (
            "warehouse: {attempts: many}",
            "dev.yaml: warehouse.attempts: ",
            ["valid integer", "'many'"],
        ),
        ("warehouse: {attempts: 0}", "dev.yaml: warehouse.attempts: ", ["greater than", "'0'"]),
        ("warehouse:", "dev.yaml: warehouse: ", ["dictionary", "'None'"]),
        ("sensor: {enabled: 1}", "dev.yaml: sensor.enabled: ", ["valid boolean", "'1'"]),
        (
            "contract: {max_bad_share: 5}",
            "dev.yaml: contract.max_bad_share: ",
            ["less than", "'5'"],
        ),
        ("time_zone: Mars/Base", "dev.yaml: time_zone: ", ["Europe/London", "'Mars/Base'"]),
        (
            'schedules: {scoring_at: "24:15"}',
            "dev.yaml: schedules.scoring_at: ",
            ['"06:15"', "'24:15'"],
        ),
        ("schedules: {scoring_at: 6:15}", "dev.yaml: schedules.scoring_at: ", ["valid string"]),
        ("warehouse: {url: mysql://host}", "dev.yaml: warehouse.url: ", ["postgresql"]),
        ("training: {parameters: {eta: [1]}}", "dev.yaml: training.parameters.eta: ", ["'list'"]),
        ("home: 5", "dev.yaml: home: ", ["path of a folder"]),
        ("home:", "dev.yaml: home: ", ["path of a folder"]),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_was_expected(
    refusal: Callable[..., str], text: str, start: str, expected: list[str]
) -> None:
    message = refusal(text)

    assert message.startswith(start)
    assert all(part in message for part in expected), message


def test_a_wrong_variable_is_named_as_the_place_to_mend(refusal: Callable[..., str]) -> None:
    message = refusal("{}", {"ML_ASSETS_REGISTRY_URL": "ftp://host"})

    assert message.startswith("environment variables: registry.url: ")


def test_every_wrong_value_is_told_at_once(refusal: Callable[..., str]) -> None:
    message = refusal("warehouse: {attempts: many}\nlake: {attempts: few}\n")

    assert "warehouse.attempts" in message
    assert "lake.attempts" in message


def test_text_that_is_not_yaml_is_refused_with_file_and_line(
    refusal: Callable[..., str], config: Path
) -> None:
    message = refusal("home: here\nlake: [\n")

    assert message.startswith(f"{config / 'dev.yaml'}, line 3: not valid YAML: ")


@pytest.mark.parametrize("text", ["home: 2026-13-45", "home: \x00"])
def test_values_that_yaml_cannot_read_are_refused_with_the_file(
    refusal: Callable[..., str], config: Path, text: str
) -> None:
    assert refusal(text).startswith(f"{config / 'dev.yaml'}: not valid YAML: ")


def test_a_file_that_is_not_utf_8_is_refused_with_its_name(config: Path) -> None:
    (config / "dev.yaml").write_bytes(b"home: \xff\xfe")

    with pytest.raises(InvalidEnvironment, match=r"dev\.yaml: not valid YAML: .*utf-8"):
        load_environment("dev", environ={}, config_dir=config)


def test_yaml_that_is_not_keys_and_values_is_refused(refusal: Callable[..., str]) -> None:
    assert refusal("- one\n- two\n").endswith("dev.yaml: expected keys and values, found list")


def test_an_empty_file_changes_nothing(with_dev: Callable[..., Environment]) -> None:
    assert with_dev("# nothing\n") == load_environment("dev", environ={})


def test_yaml_tags_that_would_run_code_are_refused(refusal: Callable[..., str]) -> None:
    assert "line 1: not valid YAML" in refusal("home: !!python/object/apply:os.getcwd []")


@pytest.mark.parametrize("file", ["base.yaml", "dev.yaml"])
def test_a_missing_file_is_named(config: Path, file: str) -> None:
    (config / file).unlink()

    with pytest.raises(InvalidEnvironment, match=rf"{file}: the file is missing"):
        load_environment("dev", environ={}, config_dir=config)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:s3cr3t@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:s3/cr3t@host/db", "postgresql://user:***@host/db"),
        ("postgresql://user:s3@cr3t@host:5432/db", "postgresql://user:***@host:5432/db"),
        ("postgresql://user@server:s3cr3t@host/db", "postgresql://user@server:***@host/db"),
        ("postgresql://:s3cr3t@host/db", "postgresql://:***@host/db"),
        ("postgresql://h/db?user=u&password=s3cr3t", "postgresql://h/db?user=u&password=***"),
        ("postgresql://h:1/db?password=s3@cr3t&x=1", "postgresql://h:1/db?password=***&x=1"),
        ("https://host/?access_token=s3cr3t", "https://host/?access_token=***"),
        ("postgresql://user@host:5432/db", "postgresql://user@host:5432/db"),
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("duckdb:////home/warehouse.duckdb", "duckdb:////home/warehouse.duckdb"),
    ],
)
def test_a_url_is_shown_without_its_secrets_only(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_the_printed_configuration_hides_passwords_and_keys(
    with_dev: Callable[..., Environment],
) -> None:
    environment = with_dev(
        f"""
        warehouse: {{url: "postgresql://user:{SECRET}@host/db?sslpassword={SECRET}"}}
        """,
        {
            "ML_ASSETS_REGISTRY_URL": f"http://user:{SECRET}@models:5000",
            "ML_ASSETS_HEARTBEAT_URL": f"https://watch.example.org/ping/{SECRET}",
        },
    )
    options = {"aws_secret_access_key": SECRET, "region": "north"}
    lake = environment.lake.model_copy(update={"storage_options": options})

    shown = masked(environment.model_copy(update={"lake": lake}))

    assert SECRET not in str(shown)
    assert shown["warehouse"]["url"] == "postgresql://user:***@host/db?sslpassword=***"
    assert shown["registry"]["url"] == "http://user:***@models:5000"
    assert shown["alerts"]["heartbeat_url"] == "***"
    assert shown["lake"]["storage_options"] == {"aws_secret_access_key": "***", "region": "north"}
    assert shown["warehouse"]["attempts"] == environment.warehouse.attempts


@pytest.mark.parametrize(
    "text",
    [
        f"warehouse: {{url: 'mysql://user:{SECRET}@host/db?password={SECRET}'}}",
        f"warehouse: 'postgresql://user:{SECRET}@host/db'",
        f"lake: {{storage_options: {{secret_access_key: [{SECRET}]}}}}",
        f"lake: {{storage_options: [{{secret_access_key: {SECRET}}}]}}",
        f"lake: {{storage_options: {{region: {{token: {SECRET}}}}}}}",
        f"lake: {{storage_options: {{token: {SECRET}, region: 1}}}}",
        f"alerts: {{heartbeat_url: 'https://watch.example.org/{SECRET}'}}",
    ],
)
def test_a_refusal_never_shows_a_secret(refusal: Callable[..., str], text: str) -> None:
    message = refusal(text)

    assert message.startswith("dev.yaml: ")
    assert SECRET not in message


@pytest.mark.parametrize("section", ["lake", "landing"])
@pytest.mark.parametrize(
    "key",
    [
        "aws_secret_access_key",
        "AWS_ACCESS_KEY_ID",
        "password",
        "sas_token",
        "account_key",
        "secret",
    ],
)
def test_a_file_takes_no_credentials_of_an_object_store(
    refusal: Callable[..., str], section: str, key: str
) -> None:
    message = refusal(f"{section}: {{storage_options: {{region: north, {key}: {SECRET}}}}}")

    assert message == (
        f"dev.yaml: {section}.storage_options.{key}: credentials have no place in a file; give "
        "them by the variables of the object store, such as AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY"
    )


def test_a_file_takes_the_other_options_of_an_object_store(
    with_dev: Callable[..., Environment],
) -> None:
    options = {"endpoint_url": "http://store:9000", "aws_sse_kms_key_id": "id", "token": ""}

    environment = with_dev(yaml.safe_dump({"lake": {"storage_options": options}}))

    assert environment.lake.storage_options == options


def test_a_heartbeat_goes_over_http_and_is_set_by_its_variable_alone(
    refusal: Callable[..., str],
) -> None:
    in_a_file = refusal(f"alerts: {{heartbeat_url: 'https://watch.example.org/{SECRET}'}}")
    by_another_way = refusal("{}", {"ML_ASSETS_HEARTBEAT_URL": f"file:///etc/{SECRET}"})

    assert in_a_file == (
        "dev.yaml: alerts.heartbeat_url: it carries secrets; set ML_ASSETS_HEARTBEAT_URL instead"
    )
    told = "alerts.heartbeat_url: expected a URL that begins with http:// or https://; found '***'"
    assert told in by_another_way
    assert SECRET not in by_another_way


# Kept apart


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_no_environment_uses_a_place_of_another(name: str) -> None:
    """Loading compares them; here, that there is something to compare."""
    environment = load_environment(name, environ={})

    assert environment.shares == []
    assert environment.owners("lake") == (name,)


@pytest.mark.parametrize(
    ("variable", "value", "place"),
    [
        ("ML_ASSETS_REGISTRY_URL", "http://mlflow-preprod:5000/", "registry"),
        ("ML_ASSETS_REGISTRY_URL", "http://ml:s3cr3t@MLFLOW-preprod:5000", "registry"),
        (
            "ML_ASSETS_STORAGE_URL",
            "postgresql://x:s3cr3t@dagster-db-preprod:5432/dagster",
            "storage",
        ),
        ("ML_ASSETS_LAKE_URL", "/var/lib/../lib/ml_assets_preprod/lake/", "lake"),
        ("ML_ASSETS_WAREHOUSE_URL", "postgresql://x@warehouse-preprod/insurance?a=b", "warehouse"),
        ("ML_ASSETS_HOME", "/var/lib/ml_assets_preprod", "home"),
    ],
)
def test_prod_does_not_use_a_place_of_preprod_by_mistake(
    config: Path, variable: str, value: str, place: str
) -> None:
    def load() -> Environment:
        return load_environment("prod", environ={variable: value}, config_dir=config)

    with pytest.raises(InvalidEnvironment) as refused:
        load()
    told = str(refused.value)
    with (config / "prod.yaml").open("a") as file:
        file.write(f"shares: [preprod.{place}, preprod.lake]\n")
    meant = load()

    assert told.startswith("environment variables: ")
    assert f"this is the {place} of preprod" in told
    assert variable in told
    assert f"prod.yaml: shares: [preprod.{place}]" in told
    assert SECRET not in told
    assert meant.owners(place) == ("prod", "preprod")
    assert meant.owners("landing") == ("prod",)


def test_dev_in_its_own_folder_is_not_used_by_prod(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    registry = {"ML_ASSETS_REGISTRY_URL": f"sqlite:///{tmp_path}/.ml_assets/mlflow.db"}

    with pytest.raises(InvalidEnvironment, match=r"registry of dev, as dev\.yaml says"):
        load_environment("prod", environ=registry, config_dir=config)


def test_a_place_that_is_not_read_may_be_the_same(config: Path) -> None:
    """Both keep a warehouse configured that neither asks: rows come in files."""
    environ = {
        "ML_ASSETS_SOURCE": "landing",
        "ML_ASSETS_WAREHOUSE_URL": "postgresql://warehouse-preprod/insurance",
    }

    assert load_environment("prod", environ=environ, config_dir=config).source == "landing"


@pytest.mark.parametrize("shared", ["prod", "staging.lake", "prod.cache", "prod."])
def test_only_places_that_there_are_can_be_shared(refusal: Callable[..., str], shared: str) -> None:
    message = refusal(f"shares: [{shared}]\n")

    assert message.startswith("dev.yaml: shares")
    assert "such as prod.warehouse" in message


def test_another_environment_that_cannot_be_read_does_not_stop_this_one(config: Path) -> None:
    (config / "prod.yaml").write_text("lake: [\n")

    assert load_environment("dev", environ={}, config_dir=config).name == "dev"


# Required variables


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, ["PGPASSWORD"]),
        ({"PGPASSWORD": ""}, ["PGPASSWORD"]),
        ({"PGPASSWORD": "x"}, []),
        ({"PGPASSFILE": "/run/secrets/pgpass"}, []),
        ({"ML_ASSETS_WAREHOUSE_URL": "postgresql://u:x@w/d"}, ["PGPASSWORD"]),
        (
            {
                "ML_ASSETS_WAREHOUSE_URL": "postgresql://u:x@w/d",
                "ML_ASSETS_STORAGE_URL": "postgresql://s/d?user=u&password=x",
            },
            [],
        ),
    ],
)
def test_prod_needs_a_password_wherever_a_url_has_none(
    environ: dict[str, str], missing: list[str]
) -> None:
    environment = load_environment("prod", environ=environ)

    assert missing_variables(environment, environ) == missing
    if missing:
        with pytest.raises(InvalidEnvironment, match=r"PGPASSWORD: not set.*prod does not start"):
            require_variables(environment, environ)
    else:
        require_variables(environment, environ)


def test_dev_requires_no_variable() -> None:
    assert missing_variables(load_environment("dev", environ={}), {}) == []


def test_a_required_variable_must_be_a_name(refusal: Callable[..., str]) -> None:
    assert "such as PGPASSWORD" in refusal("requires: [password=secret]\n")


def test_a_command_without_a_required_variable_ends_in_a_message_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(variable, raising=False)
    home = tmp_path / "home"
    arguments = ["run", "ingestion", "--day", "2026-01-05", "--env", "prod", "--home", str(home)]

    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})

    assert result.exit_code == 1
    assert "environment variable PGPASSWORD: not set" in result.output
    assert "Traceback" not in result.output
    assert not home.exists(), "nothing is begun"
