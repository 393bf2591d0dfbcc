"""A small platform that tests can run: the claims use case with a few hundred rows a day."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.build import build_definitions, resources
from ml_assets.environment import Environment, load_environment
from ml_assets.resources.arrow import to_pandas
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry
from ml_assets.resources.warehouse import Warehouse
from ml_assets.runs import run_days
from ml_assets.sources import Source
from ml_assets.use_case import UseCase
from ml_assets.use_cases.claims.delivery import TABLE, deliver
from ml_assets.use_cases.claims.simulator import TABLE_COLUMNS
from ml_assets.use_cases.claims.use_case import CLAIMS
from ml_assets_tests.postgres import Postgres, running_postgres
from ml_assets_tests.programs import need_programs

# Outcomes mature in two days, so that a week is enough to train on.
SMALL = replace(
    CLAIMS,
    label_maturity_days=2,
    training_window_days=10,
    start_date=date(2026, 1, 1),
    weekday_volume=(150, 350),
    weekend_volume=(50, 200),
)
SHAPE = {"daily_volume": 250, "max_outcome_days": 2}


@dataclass
class Platform:
    """A use case on tables, models and run records of its own."""

    environment: Environment
    instance: dg.DagsterInstance
    use_case: UseCase = SMALL

    def __post_init__(self) -> None:
        doors = resources(self.environment)
        self.warehouse: Warehouse = doors["warehouse"]
        self.source: Source = doors["source"]
        self.lake: Lake = doors["lake"]
        self.registry: Registry = doors["registry"]
        self.definitions = build_definitions(self.environment, [self.use_case])

    def arrive(self, first: str, last: str) -> list[str]:
        return deliver(
            self.warehouse,
            self.environment,
            date.fromisoformat(first),
            date.fromisoformat(last),
            **SHAPE,
        )

    def replace_day(self, day: str, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
        """Let the source correct a day: `change` gets its rows and returns the new ones."""
        from ml_assets.partitions import day_end, day_start

        zone = self.environment.zone
        window = day_start(day, zone), day_end(day, zone)
        query = f"SELECT * FROM {TABLE} WHERE received_at >= :start AND received_at < :end"
        rows = change(to_pandas(self.warehouse.read(query, window)))
        self.warehouse.replace(TABLE, TABLE_COLUMNS, rows, [window], received_at="received_at")

    def run(
        self,
        job: str,
        first: str,
        last: str | None = None,
        *,
        only: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        assets = [dg.AssetKey([self.use_case.name, only])] if only else None
        run_days(
            self.definitions,
            self.instance,
            f"{self.use_case.name}_{job}",
            first,
            last or first,
            assets=assets,
            run_config=config,
        )

    def table(self, stage: str, first: str, last: str | None = None) -> pd.DataFrame:
        return self.lake.read(f"{self.use_case.name}/{stage}", first, last or first)

    def check(self, stage: str, name: str) -> dg.AssetCheckEvaluation:
        """The newest evaluation of a check."""
        key = dg.AssetCheckKey(dg.AssetKey([self.use_case.name, stage]), name)
        record = self.instance.get_latest_asset_check_evaluation_record(key)
        assert record is not None
        assert record.event is not None
        found = record.event.dagster_event.asset_check_evaluation_data
        assert isinstance(found, dg.AssetCheckEvaluation)
        return found

    def metadata(self, stage: str, day: str) -> Mapping[str, Any]:
        """The metadata of a day's newest materialisation, as plain values."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(
                asset_key=dg.AssetKey([self.use_case.name, stage]), asset_partitions=[day]
            ),
            limit=1,
        ).records
        found = records[0].asset_materialization
        assert found is not None
        return {name: value.value for name, value in found.metadata.items()}


def small_environment(home: Path) -> Environment:
    """The dev environment in a folder, with splits of a day or two."""
    environment = load_environment("dev", environ={"ML_ASSETS_HOME": str(home)})
    sections = {
        "training": {
            "validation_days": 1,
            "calibration_days": 1,
            "holdout_days": 2,
            "max_rounds": 60,
            # Tests run side by side: two threads each would wait for one another.
            "threads": 1,
        },
        "evaluation": {"resamples": 100, "plots": False},
        "tuning": {"trials": 4, "folds": 2},
        "gate": {
            # Tests live in January 2026, and hands act now.
            "hold_after_rollback_days": 0,
            "guardrails": environment.gate.guardrails.model_copy(
                # A few hundred rows: too few to be strict about, but for those tests that are.
                update={"min_holdout_rows": 50, "calibration_slope_low": 0.3}
            ),
        },
        "warehouse": {"attempts": 2, "backoff_seconds": 0.01},
    }
    return environment.model_copy(
        update={
            name: getattr(environment, name).model_copy(update=changes)
            for name, changes in sections.items()
        }
    )


def new_platform(home: Path) -> Platform:
    """An empty small platform in a folder."""
    return Platform(small_environment(home), dg.DagsterInstance.ephemeral())


@pytest.fixture
def platform(tmp_path: Path) -> Platform:
    """An empty platform of a test's own."""
    return new_platform(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    """A platform with twelve days of features and a champion as of 2026-01-16."""
    found = new_platform(tmp_path_factory.mktemp("trained"))
    found.arrive("2026-01-05", "2026-01-16")
    found.run("ingestion", "2026-01-05", "2026-01-16")
    found.run("training", "2026-01-16")
    return found


def _postgres() -> Iterator[Postgres]:
    need_programs("initdb", "pg_ctl")
    with running_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server; a test that stops it starts it again."""
    yield from _postgres()


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A server of one test's own."""
    yield from _postgres()
