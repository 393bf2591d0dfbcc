"""The doctor's lines: each passes, warns and fails on real folders, databases and servers."""

import json
import os
import shutil
import socket
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from typer.testing import CliRunner

from ml_assets.build import resources
from ml_assets.cli import app
from ml_assets.doctor import CHECKS, Line, examine, is_well
from ml_assets.environment import Environment, load_environment
from ml_assets.home import prepare_home, serve_alone
from ml_assets.sources import take_files
from ml_assets.use_cases.claims.use_case import CLAIMS
from ml_assets_tests.conftest import Platform, small_environment
from ml_assets_tests.faults.test_outages import disk, fill, read_only
from ml_assets_tests.postgres import Postgres, run_sql

NOW = datetime(2026, 1, 17, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("ML_ASSETS_", "PGPASS", "DAGSTER_HOME")):
            monkeypatch.delenv(variable)
    # What `prepare_home` sets is gone after each test.
    for variable in ("DAGSTER_HOME", "ML_ASSETS_HOME", "ML_ASSETS_ENV", "ML_ASSETS_STORAGE_URL"):
        monkeypatch.setenv(variable, "")


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return small_environment(tmp_path / "home")


def changed(environment: Environment, **sections: dict[str, Any]) -> Environment:
    return environment.model_copy(
        update={
            name: getattr(environment, name).model_copy(update=changes)
            for name, changes in sections.items()
        }
    )


def look(environment: Environment, check: str, **options: Any) -> Line:
    """The worst line of one check."""
    found = examine(environment, NOW, only=[check], **options)
    lines = [line for line in found if line.check == check]
    return max(lines, key=lambda line: ("skip", "pass", "warn", "fail").index(line.state))


# As a whole


@pytest.mark.slow
def test_a_platform_that_runs_is_well(trained: Platform) -> None:
    prepare_home(trained.environment)

    lines = examine(trained.environment, NOW)

    assert is_well(lines)
    assert [line for line in lines if line.state == "warn"] == [
        line for line in lines if line.check in ("daemon", "disk") and line.state == "warn"
    ]
    told = {line.check: line.told for line in lines}
    assert told.keys() == {check.name for check in CHECKS} | {"clock"}
    assert "the 44 columns of 2026-01-16 answer the contract" in told["contract"]
    assert "claims version 1 loads" in told["champion"]
    assert "0 runs, schema up to date" in told["storage"]


def test_on_a_new_machine_it_says_where_to_begin_and_makes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"

    result = CliRunner().invoke(app, ["doctor", "--home", str(home)], env={"COLUMNS": "200"})

    assert result.exit_code == 1
    assert "FAIL warehouse" in result.output
    assert "Run `ml-assets demo`" in result.output
    assert "skip contract      not looked at, since warehouse failed" in result.output
    assert "dev cannot run yet" in result.output
    assert not home.exists()


@pytest.mark.slow
def test_machines_get_json_and_the_same_exit_code(trained: Platform, tmp_path: Path) -> None:
    runner = CliRunner()
    well = runner.invoke(app, ["doctor", "--json", "--home", str(trained.environment.home)])
    ill = runner.invoke(app, ["doctor", "--json", "--home", str(tmp_path / "home")])
    few = runner.invoke(app, ["doctor", "--only", "home", "--only", "disk", "--json"])
    unknown = runner.invoke(app, ["doctor", "--only", "heart"])
    wrong = runner.invoke(app, ["doctor", "--json"], env={"ML_ASSETS_LAKE_ULR": "x"})

    assert well.exit_code == 0
    assert json.loads(well.output)["well"] is True
    assert ill.exit_code == 1
    found = json.loads(ill.output)
    assert found["well"] is False
    assert found["environment"] == "dev"
    assert {line["check"] for line in found["lines"] if line["state"] == "fail"} == {"warehouse"}
    assert [line["check"] for line in json.loads(few.output)["lines"]] == [
        "configuration",
        "home",
        "disk",
    ]
    assert "there is no check 'heart': choose from variables, versions" in unknown.output
    assert wrong.exit_code == 1
    assert "ML_ASSETS_LAKE_ULR: unknown" in json.loads(wrong.output)["lines"][0]["told"]


def test_a_check_that_hangs_is_given_up(environment: Environment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never says a word
        url = f"postgresql://ml:hunter2@127.0.0.1:{silent.getsockname()[1]}/claims"
        lines = examine(
            changed(environment, warehouse={"url": url}),
            NOW,
            timeout_seconds=1,
            only=["contract", "home"],
        )

    found = {line.check: line for line in lines}
    assert found["warehouse"].state == "fail"
    assert found["warehouse"].told == "no answer within 1 seconds"
    assert found["contract"].state == "skip"
    assert found["home"].state == "pass", "the others are looked at"


def test_an_error_that_nobody_expected_is_a_line_without_secrets(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_ASSETS_WAREHOUSE_URL", "postgresql://ml:hunter2@db/claims")

    def breaks(*_: object) -> None:
        raise RuntimeError("no postgresql://ml:hunter2@db/claims today")

    monkeypatch.setattr("shutil.disk_usage", breaks)

    line = look(environment, "disk")

    assert line.state == "fail"
    assert line.told == "unexpected RuntimeError: no postgresql://ml:***@db/claims today"


# The machine


def test_a_required_variable_that_is_missing_is_named(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    requiring = environment.model_copy(update={"requires": ["AWS_ACCESS_KEY_ID"]})

    missing = look(requiring, "variables")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    there = look(requiring, "variables")

    assert missing.state == "fail"
    assert "AWS_ACCESS_KEY_ID: not set" in missing.told
    assert there.state == "pass"


def test_packages_are_compared_with_what_is_locked(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ml_assets.doctor as doctor

    installed = doctor._installed
    as_locked = look(environment, "versions")

    def other(name: str, replaced: str) -> None:
        monkeypatch.setattr(
            doctor,
            "_installed",
            lambda each: {name: replaced}.get(each) or installed(each),
        )

    other("tenacity", "9.0.0.1")
    unlike = look(environment, "versions")
    other("dagster-postgres", "0.29.26")
    unfit = look(environment, "versions")

    assert as_locked.state == "pass"
    assert unlike.state == "warn"
    assert "tenacity 9.0.0.1 (locked" in unlike.told
    assert unfit.state == "fail"
    assert "dagster-postgres 0.29.26 (==0.29.27 needed)" in unfit.told


def test_a_home_that_cannot_be_written_or_that_all_may_write(environment: Environment) -> None:
    home = environment.home
    with disk(home, 4_000), read_only(home):
        closed = look(environment, "home")
    open_to_all = environment.model_copy(update={"home": home.parent / "open"})
    open_to_all.home.mkdir()
    open_to_all.home.chmod(0o777)
    a_file = environment.model_copy(update={"home": home.parent / "file"})
    a_file.home.touch()

    assert (closed.state, "cannot be written" in closed.told) == ("fail", True)
    assert look(open_to_all, "home").state == "warn"
    assert look(open_to_all, "home").remedy == f"chmod o-w {open_to_all.home}"
    assert look(a_file, "home").state == "fail"


def test_a_full_disk_fails_and_a_small_one_warns(environment: Environment) -> None:
    with disk(environment.home, 200_000):
        small = look(environment, "disk")
        fill(environment.home, 50_000)
        full = look(environment, "disk")

    assert small.state == "warn"
    assert "0.2 GB of 0.2 GB are free for the home" in small.told
    assert full.state == "fail"


def test_alert_targets_are_read(environment: Environment) -> None:
    bad = look(changed(environment, alerts={"urls": "nosuchservice://secret"}), "alerts")
    good = look(changed(environment, alerts={"urls": "json://127.0.0.1:1/x"}), "alerts")
    off = look(changed(environment, alerts={"enabled": False}), "alerts")
    no_target = look(environment.model_copy(update={"name": "prod"}), "alerts")

    assert bad.state == "fail"
    assert "secret" not in bad.told
    assert (good.state, off.state, no_target.state) == ("pass", "warn", "warn")
    assert look(environment, "alerts").state == "pass"


def test_whether_a_watcher_elsewhere_knows_of_the_platform_is_told(
    environment: Environment,
) -> None:
    targets = {"urls": "json://127.0.0.1:1/x"}
    prod = changed(environment.model_copy(update={"name": "prod"}), alerts=targets)
    watched = changed(prod, alerts={"heartbeat_url": "https://watch.example.org/s3cr3t"})
    by_hand = changed(prod, schedules={"enabled": False})

    lines = {
        name: examine(each, NOW, only=["alerts"])[-1]
        for name, each in {"prod": prod, "watched": watched, "by_hand": by_hand}.items()
    }

    assert {name: line.state for name, line in lines.items()} == {
        "prod": "warn",
        "watched": "pass",
        "by_hand": "pass",
    }
    assert lines["prod"].told == "no watcher elsewhere tells when the platform itself is down"
    assert "ML_ASSETS_HEARTBEAT_URL" in lines["prod"].remedy
    assert lines["watched"].told == "a watcher elsewhere is asked after each tick"


# What rows come from


def test_a_source_that_broke_the_contract_is_told_with_the_column(
    platform: Platform,
) -> None:
    platform.arrive("2026-01-05", "2026-01-06")
    whole = look(platform.environment, "contract")
    import duckdb

    with duckdb.connect(str(platform.environment.home / "warehouse.duckdb")) as connection:
        connection.execute("ALTER TABLE claims.ds_dataset ALTER age SET DATA TYPE VARCHAR")
        connection.execute("UPDATE claims.ds_dataset SET age = 'old'")
    broken = look(platform.environment, "contract")

    assert whole.state == "pass"
    assert broken.state == "fail"
    assert "age" in broken.told
    assert "ml-assets contract diff" in broken.remedy


def test_a_source_without_rows_is_a_warning(platform: Platform) -> None:
    platform.arrive("2026-01-20", "2026-01-20")  # of a day that is yet to come

    line = look(platform.environment, "contract")

    assert line.state == "warn"
    assert "holds no rows" in line.told


def test_the_landing_folder_must_be_there_and_open(environment: Environment) -> None:
    landing = environment.model_copy(update={"source": "landing"})
    folder = Path(environment.landing.url)

    absent = look(landing, "landing")
    with disk(folder, 1_000):
        there = look(landing, "landing")
        with read_only(folder):
            closed = look(landing, "landing")

    assert (absent.state, there.state, closed.state) == ("fail", "pass", "fail")
    assert list(folder.iterdir()) == []
    assert look(environment, "landing").state == "skip"


def test_files_rejected_lately_are_a_warning(environment: Environment) -> None:
    settings = {"source": "landing"}
    landing = changed(environment.model_copy(update=settings), landing={"complete": "renamed"})
    folder = Path(landing.landing.url)
    folder.mkdir(parents=True)
    (folder / "broken.csv").write_text("")

    def at(days: int) -> Line:
        (line,) = examine(landing, NOW + timedelta(days=days), only=["landing"])
        return line

    take_files(resources(landing)["source"], CLAIMS, NOW, budget_seconds=60)

    assert (at(1).state, at(8).state) == ("warn", "pass")
    assert "files rejected in the last 7 days: 1, newest broken.csv" in at(1).told


@pytest.mark.slow
def test_a_warehouse_in_postgresql_is_reached_read_and_not_written(
    postgres: Postgres, tmp_path: Path
) -> None:
    database = postgres.new_database()
    environment = small_environment(tmp_path / "home")

    def found(url: str) -> dict[str, list[Line]]:
        at = changed(environment, warehouse={"url": url})
        lines = examine(at, NOW, only=["contract"])
        assert ":right@" not in str(lines)
        assert "wr0ng" not in str(lines)
        return {line.check: [each for each in lines if each.check == line.check] for line in lines}

    without_table = found(postgres.url(database))
    at = changed(environment, warehouse={"url": postgres.url(database)})
    Platform(at, dg.DagsterInstance.ephemeral()).arrive("2026-01-05", "2026-01-05")
    writer = found(postgres.url(database))
    run_sql(
        postgres.url(database),
        "CREATE ROLE reader LOGIN PASSWORD 'right'",
        "GRANT USAGE ON SCHEMA claims TO reader",
        "GRANT SELECT ON claims.ds_dataset TO reader",
    )
    reader = found(postgres.url(database).replace("tester:", "reader:"))
    stranger = found(postgres.url(database, password="wr0ng"))
    postgres.stop()
    down = found(postgres.url(database))
    postgres.start()

    assert without_table["warehouse"][0].state == "pass"
    assert without_table["contract"][0].state == "fail"
    assert "lacks a table" in without_table["contract"][0].told
    assert [line.state for line in writer["warehouse"]] == ["pass", "warn"]
    assert "may write in the warehouse (claims.ds_dataset," in writer["warehouse"][1].told
    assert "read" in writer["warehouse"][1].remedy
    assert [line.state for line in reader["warehouse"]] == ["pass"]
    assert reader["clock"][0].state == reader["contract"][0].state == "pass"
    assert stranger["warehouse"][0].state == "fail"
    assert "password authentication failed" in stranger["warehouse"][0].told
    assert stranger["contract"][0].state == "skip"
    assert down["warehouse"][0].state == "fail"
    assert "cannot be reached" in down["warehouse"][0].told


# Tables and models


def test_a_table_of_the_future_tells_of_a_wrong_clock(environment: Environment) -> None:
    resources(environment)["lake"].append(
        "claims/raw", pd.DataFrame({"day": ["2026-01-05"], "n": [1]})
    )
    before = examine(environment, NOW, only=["lake"])
    (commit,) = Path(environment.lake.url).glob("claims/raw/_delta_log/*.json")
    actions = [json.loads(line) for line in commit.read_text().splitlines()]
    for action in actions:
        if "commitInfo" in action:
            action["commitInfo"]["timestamp"] = 4_102_444_800_000
    commit.write_text("\n".join(map(json.dumps, actions)))

    after = examine(environment, NOW, only=["lake"])

    assert [line.check for line in before] == ["home", "lake"]
    assert (after[-1].check, after[-1].state) == ("clock", "warn")
    assert "2100-01-01 00:00 UTC, which is yet to come" in after[-1].told


def test_the_lake_of_another_environment_fails(environment: Environment) -> None:
    prod = environment.model_copy(update={"name": "prod"})
    resources(prod)["lake"].append("claims/raw", pd.DataFrame({"day": ["2026-01-05"], "n": [1]}))

    foreign = look(environment, "lake")
    shared = look(environment.model_copy(update={"shares": ["prod.lake"]}), "lake")

    assert foreign.state == "fail"
    assert "belongs to prod, and dev must not write there" in foreign.told
    assert "shares: [prod.lake]" in foreign.remedy
    assert shared.state == "pass"
    left = sorted(each.name for each in Path(environment.lake.url).iterdir())
    assert left == ["_environment", "claims"]


def test_a_lake_that_cannot_be_written_or_opened_fails(environment: Environment) -> None:
    lake = Path(environment.lake.url)
    with disk(lake, 1_000), read_only(lake):
        closed = look(environment, "lake")
    log = lake / "claims" / "raw" / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text("not a commit")
    torn = look(environment, "lake")

    assert (closed.state, torn.state) == ("fail", "fail")
    assert "claims/raw" in torn.told


@pytest.mark.slow
def test_a_registry_that_waits_for_a_migration_fails(trained: Platform, tmp_path: Path) -> None:
    file = tmp_path / "mlflow.db"
    shutil.copy(trained.environment.home / "mlflow.db", file)
    environment = changed(trained.environment, registry={"url": f"sqlite:///{file}"})
    up_to_date = look(environment, "registry")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")

    waiting = look(environment, "registry")

    assert up_to_date.state == "pass"
    assert waiting.state == "fail"
    assert "MLflow's schema 451aebb31d03, and the installed MLflow needs" in waiting.told
    assert "ml-assets migrate --env dev" in waiting.remedy
    assert look(environment, "champion").state == "skip"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "postgresql://ml:hunter2@127.0.0.1:1/models"]
)
def test_a_registry_that_is_down_fails_at_once(environment: Environment, url: str) -> None:
    line = look(changed(environment, registry={"url": url}), "registry")

    assert line.state == "fail"
    assert "cannot be reached" in line.told
    assert "hunter2" not in line.told


@pytest.mark.slow
def test_a_champion_whose_files_are_not_what_its_hash_says_fails(trained: Platform) -> None:
    files = list(trained.environment.home.glob("artifacts/**/bundle/*.ubj"))
    assert files
    before = {file: file.read_bytes() for file in files}
    try:
        for file, content in before.items():
            file.write_bytes(content[:-1] + b"?")
        line = look(trained.environment, "champion")
    finally:
        for file, content in before.items():
            file.write_bytes(content)

    assert line.state == "fail"
    assert "is corrupt" in line.told


# Dagster


@pytest.mark.parametrize("database", ["runs.db", "runs/index.db", "schedules.db"])
def test_a_storage_that_waits_for_a_migration_fails(
    environment: Environment, database: str
) -> None:
    prepare_home(environment)
    with dg.DagsterInstance.get():
        pass
    (file,) = environment.dagster_home.glob(f"**/{database}")
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0123456789ab'")

    storage, daemon = examine(environment, NOW, only=["storage", "daemon"])[-2:]

    assert storage.state == "fail"
    assert "has 0123456789ab, and needs" in storage.told
    assert "ml-assets migrate" in storage.remedy
    assert daemon.state == "skip"


def beat(instance: dg.DagsterInstance, daemon: str, who: str, error: str | None = None) -> None:
    from dagster._daemon.types import DaemonHeartbeat
    from dagster_shared.error import SerializableErrorInfo

    errors = [SerializableErrorInfo(error, [], None)] if error else []
    instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), daemon, who, errors))


@pytest.fixture
def instance(environment: Environment) -> Iterator[dg.DagsterInstance]:
    prepare_home(environment)
    with dg.DagsterInstance.get() as found:
        yield found


def test_one_daemon_is_well_and_two_are_not(
    environment: Environment, instance: dg.DagsterInstance
) -> None:
    none = look(environment, "daemon")
    by_hand_alone = look(
        changed(environment, schedules={"enabled": False}, sensor={"enabled": False}), "daemon"
    )
    beat(instance, "SCHEDULER", "one")
    unguarded = look(environment, "daemon")
    lock = serve_alone(environment)
    guarded = look(environment, "daemon")
    beat(instance, "SENSOR", "one", "no such table\nTraceback …")
    in_trouble = look(environment, "daemon")
    beat(instance, "SENSOR", "two")
    two = look(environment, "daemon")
    os.close(lock)

    # The queue of runs and the alerts need a daemon even where a person presses each button.
    assert none == by_hand_alone
    assert none.state == "warn"
    assert "queued runs do not start" in none.told
    assert "no schedule or sensor of dev ticks" in none.told
    assert "ml-assets daemon" in none.remedy
    assert unguarded.state == "warn"
    assert "nothing keeps a second one away" in unguarded.told
    assert guarded.state == "pass"
    assert in_trouble.told == "the daemon reports: no such table"
    assert two.state == "fail"
    assert "2 daemons serve this instance" in two.told
    assert "ml-assets daemon" in two.remedy


def test_a_switch_in_the_ui_that_differs_is_told(
    environment: Environment, instance: dg.DagsterInstance
) -> None:
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.remote_origin import RemoteInstigatorOrigin
    from dagster._core.scheduler.instigation import (
        InstigatorState,
        InstigatorStatus,
        ScheduleInstigatorData,
    )

    as_wanted = look(environment, "schedules")
    origin = RemoteInstigatorOrigin(_repository_origin(), "claims_scoring_daily")
    instance.add_instigator_state(
        InstigatorState(
            origin,
            InstigatorType.SCHEDULE,
            InstigatorStatus.STOPPED,
            ScheduleInstigatorData("15 6 * * *", None),
        )
    )

    line = look(environment, "schedules")

    assert as_wanted.state == "pass"
    assert line.state == "warn"
    assert line.told == "not as dev wants it: claims_scoring_daily was switched off in the UI"


def _repository_origin() -> Any:
    from dagster._core.remote_origin import (
        InProcessCodeLocationOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    target = LoadableTargetOrigin(module_name="ml_assets.definitions")
    return RemoteRepositoryOrigin(
        InProcessCodeLocationOrigin(target, location_name="ml_assets"), "__repository__"
    )


def test_a_storage_that_changed_is_told(environment: Environment) -> None:
    prepare_home(environment)
    moved = changed(environment, storage={"url": "postgresql://ml@127.0.0.1:1/dagster"})

    line = look(moved, "storage")

    assert line.state == "fail"
    assert "keeps Dagster's records in SQLite, and storage.url names PostgreSQL" in line.told


def test_every_environment_of_the_package_can_be_examined(tmp_path: Path) -> None:
    for name in ("preprod", "prod"):
        environment = load_environment(name, environ={"ML_ASSETS_HOME": str(tmp_path / name)})
        lines = {line.check: line for line in examine(environment, NOW, timeout_seconds=20)}

        assert "PGPASSWORD: not set" in lines["variables"].told
        assert {lines[each].state for each in ("warehouse", "storage", "champion")} == {"skip"}
