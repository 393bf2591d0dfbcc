"""The roles of `deploy/sql` can do what the platform needs and nothing else: a real PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from urllib.parse import quote

import adbc_driver_manager
import pytest

from deploy.stack import SQL, Lost, run_script
from ml_assets.build import resources
from ml_assets.changes import now
from ml_assets.changes import source_days as days_of
from ml_assets.environment import Environment, load_environment
from ml_assets.use_cases.claims.delivery import deliver
from ml_assets.use_cases.claims.use_case import CLAIMS
from ml_assets_tests.postgres import Postgres, run_sql, running_postgres

pytestmark = pytest.mark.slow

DAY = date(2026, 1, 5)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


def as_role(postgres: Postgres, role: str, password: str, database: str) -> str:
    return f"postgresql://{role}:{quote(password)}@127.0.0.1:{postgres.port}/{database}"


@pytest.fixture(scope="module")
def databases(postgres: Postgres) -> None:
    passwords = {"DAGSTER_DB_PASSWORD": "one's own", "MLFLOW_DB_PASSWORD": "another"}
    run_script(postgres, "postgres", SQL / "databases.sql", **passwords)


@pytest.fixture(scope="module")
def environment(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """A warehouse with a day of applications and another table, as the reader sees it."""
    database = postgres.new_database()
    home = str(tmp_path_factory.mktemp("home"))
    reader = as_role(postgres, "ml_assets_reader", "reads", database)
    environment = load_environment(
        "dev", environ={"ML_ASSETS_HOME": home, "ML_ASSETS_WAREHOUSE_URL": reader}
    )
    owner = replace(resources(environment)["warehouse"], url=postgres.url(database))
    deliver(owner, environment, DAY, DAY)
    run_sql(postgres.url(database), "CREATE TABLE claims.salaries (amount numeric)")
    script = SQL / "warehouse_reader.sql"
    run_script(postgres, database, script, ML_ASSETS_READER_PASSWORD="reads")
    return environment


def test_the_reader_sees_the_days_of_the_one_table(environment: Environment) -> None:
    source = resources(environment)["source"]

    assert list(days_of(CLAIMS, environment, source, now()).days) == ["2026-01-05"]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM claims.ds_dataset",
        "UPDATE claims.ds_dataset SET claim_status = 0",
        "CREATE TABLE claims.mine (x int)",
        "SELECT * FROM claims.salaries",
        "DROP TABLE claims.ds_dataset",
        "SET default_transaction_read_only = off; DELETE FROM claims.ds_dataset",
        "CREATE ROLE another",
    ],
)
def test_the_reader_can_do_nothing_else(environment: Environment, statement: str) -> None:
    before = run_sql(environment.warehouse.url, "SELECT count(*) AS n FROM claims.ds_dataset")

    refused = r"permission denied|read-only transaction|must be owner"
    with pytest.raises(adbc_driver_manager.Error, match=refused):
        run_sql(environment.warehouse.url, *statement.split("; "))

    after = run_sql(environment.warehouse.url, "SELECT count(*) AS n FROM claims.ds_dataset")
    assert after == before


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize(
    ("role", "password", "theirs"),
    [("dagster", "one's own", "mlflow"), ("mlflow", "another", "dagster")],
)
def test_dagster_and_mlflow_own_a_database_each_and_see_no_other(
    postgres: Postgres, role: str, password: str, theirs: str
) -> None:
    run_sql(as_role(postgres, role, password, role), "CREATE TABLE t (x int)", "DROP TABLE t")

    for other in (theirs, "postgres"):
        with pytest.raises(adbc_driver_manager.Error, match="permission denied"):
            run_sql(as_role(postgres, role, password, other), "SELECT 1")


def test_the_scripts_run_again_to_change_a_password(
    postgres: Postgres, environment: Environment
) -> None:
    database = environment.warehouse.url.rpartition("/")[2]
    script = SQL / "warehouse_reader.sql"

    run_script(postgres, database, script, ML_ASSETS_READER_PASSWORD="it's new")

    new = as_role(postgres, "ml_assets_reader", "it's new", database)
    assert run_sql(new, "SELECT 1 AS one") == [{"one": 1}]
    with pytest.raises(adbc_driver_manager.Error, match="password authentication failed"):
        run_sql(environment.warehouse.url, "SELECT 1")
    run_script(postgres, database, script, ML_ASSETS_READER_PASSWORD="reads")


def test_a_script_that_fails_says_why(postgres: Postgres) -> None:
    with pytest.raises(Lost, match=r"warehouse_reader\.sql: .*does not exist"):
        run_script(
            postgres,
            postgres.new_database(),
            SQL / "warehouse_reader.sql",
            ML_ASSETS_READER_PASSWORD="x",
        )
