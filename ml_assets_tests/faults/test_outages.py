"""Outages of what the platform rests on: a clear word, nothing half-written, and mended next time.

The server, the proxy before it and the full or read-only folders are real.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import psycopg
import pytest

from ml_assets.core.scoring import standing
from ml_assets.resources.lake import LakeError
from ml_assets.resources.landing import LandingError, LandingUnavailable
from ml_assets.resources.warehouse import Warehouse, WarehouseError, WarehouseUnavailable
from ml_assets.runs import RunFailed
from ml_assets.use_cases.claims.delivery import TABLE
from ml_assets_tests.assets.test_extraction import with_query
from ml_assets_tests.conftest import Platform, new_platform, small_environment
from ml_assets_tests.faults.mutations import DAYS, as_csv, valid_rows
from ml_assets_tests.faults.proxy import Proxy, proxy_to
from ml_assets_tests.postgres import Postgres, running_postgres
from ml_assets_tests.programs import leave_out, need_programs
from ml_assets_tests.test_demo import ml_assets
from ml_assets_tests.test_sensors import Ticks

pytestmark = [pytest.mark.faults, pytest.mark.slow]

MONDAY, TUESDAY, WEDNESDAY = "2026-01-05", "2026-01-06", "2026-01-07"
EXTRACTED = ("raw", "quarantine", "extraction")
STAGES = (*EXTRACTED, "features")
# When and by which run is not the same in two runs.
CLOCK = ["quarantined_at", "run_id", "scored_at", "superseded_at"]

Tables = dict[str, pd.DataFrame]


# What every fault must leave behind


def tables(platform: Platform, first: str, last: str) -> Tables:
    return {
        stage: platform.table(stage, first, last).drop(columns=CLOCK, errors="ignore")
        for stage in STAGES
    }


def require_same(found: Tables, expected: Tables) -> None:
    for stage, frame in expected.items():
        pd.testing.assert_frame_equal(found[stage], frame, obj=stage)


def require_sound(platform: Platform) -> None:
    """Every table can be read, and where a day has its three tables, they add up."""
    rows = {stage: platform.lake.rows_per_day(f"claims/{stage}") for stage in EXTRACTED}
    for stage, days in rows.items():
        if days:
            assert len(platform.table(stage, min(days), max(days))) == sum(days.values())
    for day in rows["extraction"]:
        account = platform.table("extraction", day).iloc[0]
        # The account is committed last: where there is one, the day is whole.
        assert account["rows_kept"] == rows["raw"].get(day, 0)
        assert account["rows_quarantined"] == rows["quarantine"].get(day, 0)
        assert account["rows_read"] == (
            account["rows_kept"] + account["rows_quarantined"] + account["duplicates_dropped"]
        )


def require_nothing(platform: Platform) -> None:
    for stage in STAGES:
        assert platform.lake.rows_per_day(f"claims/{stage}") == {}


@contextmanager
def beside(work: Callable[[], Any]) -> Iterator[Future[Any]]:
    """Some work in a thread of its own; whatever goes wrong there goes wrong here."""
    pool = ThreadPoolExecutor(1)
    try:
        future = pool.submit(work)
        yield future
        future.result(timeout=180)
    finally:
        pool.shutdown(wait=False)


# The warehouse


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    need_programs("initdb", "pg_ctl")
    with running_postgres() as found:
        yield found


@pytest.fixture(scope="module")
def database(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with applications of three days."""
    name = server.new_database()
    platform_at(server.url(name), tmp_path_factory.mktemp("feeds")).arrive(MONDAY, WEDNESDAY)
    return name


@pytest.fixture(scope="module")
def undisturbed(
    server: Postgres, database: str, tmp_path_factory: pytest.TempPathFactory
) -> Tables:
    platform = platform_at(server.url(database), tmp_path_factory.mktemp("undisturbed"))
    platform.run("ingestion", MONDAY, WEDNESDAY)
    found = tables(platform, MONDAY, WEDNESDAY)
    assert len(found["features"]) > 300
    return found


def platform_at(url: str, home: Path, **settings: Any) -> Platform:
    environment = small_environment(home)
    warehouse = environment.warehouse.model_copy(update={"url": url, **settings})
    environment = environment.model_copy(update={"warehouse": warehouse})
    return Platform(environment, dg.DagsterInstance.ephemeral())


@pytest.fixture
def platform(server: Postgres, database: str, tmp_path: Path) -> Platform:
    return platform_at(server.url(database), tmp_path)


def slow(platform: Platform, seconds: float) -> Platform:
    """The same platform, whose query takes its time before the first row."""
    pause = f"FROM {TABLE}, (SELECT pg_sleep({seconds})) AS pause"
    return with_query(platform, lambda query: query.replace(f"FROM {TABLE}", pause))


def require_unreachable(platform: Platform) -> None:
    with pytest.raises(RunFailed, match=r"postgresql://tester:\*\*\*@127.*cannot be reached"):
        platform.run("ingestion", MONDAY, WEDNESDAY)


def wait_for(url: str, event: str) -> None:
    """Wait until a session of the server waits for an event: PgSleep, or Lock."""
    deadline = time.monotonic() + 60
    with psycopg.connect(url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            found = connection.execute(
                "SELECT 1 FROM pg_stat_activity WHERE %s IN (wait_event, wait_event_type)", [event]
            ).fetchone()
            if found:
                return
            time.sleep(0.02)
    raise AssertionError(f"no session waits for {event}")


def mended(platform: Platform, undisturbed: Tables) -> None:
    """The next ordinary run gives what an undisturbed one gives."""
    require_sound(platform)
    platform.run("ingestion", MONDAY, WEDNESDAY)
    require_sound(platform)
    require_same(tables(platform, MONDAY, WEDNESDAY), undisturbed)


def test_a_server_that_restarts_in_mid_query_is_read_again_by_the_same_run(
    server: Postgres, platform: Platform, database: str, undisturbed: Tables
) -> None:
    with beside(lambda: slow(platform, 2).run("ingestion", MONDAY, WEDNESDAY)):
        wait_for(server.url("postgres"), "PgSleep")
        server.stop()
        time.sleep(0.5)
        server.start()

    require_same(tables(platform, MONDAY, WEDNESDAY), undisturbed)
    mended(platform, undisturbed)


def test_a_server_that_stays_away_ends_the_run_in_a_clear_word(
    server: Postgres, platform: Platform, database: str, undisturbed: Tables
) -> None:
    with beside(lambda: require_unreachable(slow(platform, 5))):
        wait_for(server.url("postgres"), "PgSleep")
        server.stop()
    server.start()

    require_nothing(platform)
    mended(platform, undisturbed)


def test_a_server_that_takes_too_long_is_given_up_with_the_setting_to_change(
    server: Postgres, database: str, tmp_path: Path, undisturbed: Tables
) -> None:
    platform = platform_at(server.url(database), tmp_path, statement_timeout_seconds=1, attempts=1)

    with pytest.raises(RunFailed, match=r"1 seconds \(warehouse\.statement_timeout_seconds\)"):
        slow(platform, 30).run("ingestion", MONDAY, WEDNESDAY)

    require_nothing(platform)
    mended(platform, undisturbed)


def test_a_terminated_session_is_replaced_by_the_same_run(
    server: Postgres, platform: Platform, database: str, undisturbed: Tables
) -> None:
    with beside(lambda: slow(platform, 2).run("ingestion", MONDAY, WEDNESDAY)):
        wait_for(server.url("postgres"), "PgSleep")
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                [database],
            )

    mended(platform, undisturbed)


@pytest.fixture
def proxy(server: Postgres) -> Iterator[Proxy]:
    with proxy_to(server.port) as found:
        yield found


def behind(proxy: Proxy, server: Postgres, database: str, home: Path, **settings: Any) -> Platform:
    url = server.url(database).replace(f":{server.port}/", f":{proxy.port}/")
    return platform_at(url, home, **settings)


# Of about 200 KB: in the handshake, as rows begin to flow, in the middle, near the end.
@pytest.mark.parametrize("after_bytes", [0, 300, 20_000, 90_000])
def test_a_connection_cut_in_mid_transfer_is_made_anew(
    server: Postgres,
    database: str,
    proxy: Proxy,
    tmp_path: Path,
    undisturbed: Tables,
    after_bytes: int,
) -> None:
    platform = behind(proxy, server, database, tmp_path)
    proxy.fail("cut", after_bytes=after_bytes, times=1)

    platform.run("ingestion", MONDAY, WEDNESDAY)

    assert proxy.struck == 1
    mended(platform, undisturbed)


@pytest.mark.parametrize("after_bytes", [300, 20_000])
def test_a_connection_that_is_always_cut_ends_in_a_clear_word(
    server: Postgres,
    database: str,
    proxy: Proxy,
    tmp_path: Path,
    undisturbed: Tables,
    after_bytes: int,
) -> None:
    platform = behind(proxy, server, database, tmp_path)
    proxy.fail("cut", after_bytes=after_bytes, times=1_000)

    with pytest.raises(RunFailed, match=r"warehouse .* (is lost|cannot be reached)"):
        platform.run("ingestion", MONDAY, WEDNESDAY)

    require_nothing(platform)
    proxy.fail("cut", after_bytes=0, times=0)
    mended(platform, undisturbed)


@pytest.mark.parametrize("after_bytes", [0, 20_000], ids=["at the handshake", "in mid-transfer"])
def test_a_path_that_falls_silent_is_given_up_and_tried_anew(
    server: Postgres,
    database: str,
    proxy: Proxy,
    tmp_path: Path,
    undisturbed: Tables,
    after_bytes: int,
) -> None:
    platform = behind(proxy, server, database, tmp_path, statement_timeout_seconds=1)
    proxy.fail("silence", after_bytes=after_bytes, times=1)

    with beside(lambda: platform.run("ingestion", MONDAY, WEDNESDAY)) as run:
        run.result(timeout=120)

    assert proxy.struck == 1
    mended(platform, undisturbed)


def test_a_path_that_stays_silent_ends_in_a_clear_word(
    server: Postgres, database: str, proxy: Proxy, tmp_path: Path
) -> None:
    platform = behind(proxy, server, database, tmp_path, statement_timeout_seconds=1, attempts=1)
    proxy.fail("silence", after_bytes=20_000, times=1_000)

    with pytest.raises(WarehouseUnavailable, match=r"has not answered .* what lies between"):
        _read_all(platform)


def _read_all(platform: Platform) -> Any:
    window = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)
    names = {"key": "application_id", "received_at": "received_at", "updated_at": "updated_at"}
    return platform.warehouse.extract(platform.use_case.query, window, **names)


@contextmanager
def locked(server: Postgres, database: str) -> Iterator[Callable[[], None]]:
    """Another session holds the table, until it is told to let go."""
    with psycopg.connect(server.url(database)) as connection:
        connection.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        yield connection.rollback


def test_a_locked_table_ends_in_a_clear_word_and_is_read_once_it_is_free(
    server: Postgres, database: str, tmp_path: Path, undisturbed: Tables
) -> None:
    platform = platform_at(server.url(database), tmp_path, statement_timeout_seconds=2, attempts=1)

    with (
        locked(server, database),
        pytest.raises(RunFailed, match=r"(?s)keeps a table locked .*pg_locks"),
    ):
        platform.run("ingestion", MONDAY, WEDNESDAY)

    require_nothing(platform)
    mended(platform, undisturbed)


def test_a_table_that_is_freed_in_time_is_read_by_the_same_run(
    server: Postgres, platform: Platform, database: str, undisturbed: Tables
) -> None:
    with (
        locked(server, database) as release,
        beside(lambda: platform.run("ingestion", MONDAY, WEDNESDAY)),
    ):
        wait_for(server.url("postgres"), "Lock")
        release()

    require_same(tables(platform, MONDAY, WEDNESDAY), undisturbed)


@contextmanager
def administered(server: Postgres, database: str, spoil: str, mend: str) -> Iterator[None]:
    with psycopg.connect(server.url(database), autocommit=True) as connection:
        connection.execute(spoil)
        try:
            yield
        finally:
            connection.execute(mend)


@pytest.mark.parametrize(
    ("spoil", "mend", "told"),
    [
        (
            "ALTER ROLE tester PASSWORD 'changed'",
            "ALTER ROLE tester PASSWORD 'right'",
            r"refuses the connection.*authentication failed.*ML_ASSETS_WAREHOUSE_URL",
        ),
        (
            "ALTER ROLE tester NOLOGIN",
            "ALTER ROLE tester LOGIN",
            r"refuses the connection.*not permitted to log in.*ML_ASSETS_WAREHOUSE_URL",
        ),
        (
            f"ALTER TABLE {TABLE} RENAME TO hidden",
            "ALTER TABLE claims.hidden RENAME TO ds_dataset",
            r"lacks a table.*ds_dataset.*Check the table's name",
        ),
    ],
    ids=["password", "login", "table"],
)
def test_what_asking_again_cannot_mend_fails_at_once_and_works_once_mended(
    server: Postgres,
    platform: Platform,
    database: str,
    undisturbed: Tables,
    spoil: str,
    mend: str,
    told: str,
) -> None:
    with (
        administered(server, database, spoil, mend),
        pytest.raises(RunFailed, match=f"(?s){told}") as failed,
    ):
        platform.run("ingestion", MONDAY, WEDNESDAY)

    assert ":right@" not in str(failed.value)
    attempts = [
        entry
        for run in platform.instance.get_runs()
        for entry in platform.instance.all_logs(
            run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY
        )
    ]
    assert attempts == [], "trying again would only delay the word"
    require_nothing(platform)
    mended(platform, undisturbed)


def test_a_lost_warehouse_leaves_what_was_there_before(
    server: Postgres, platform: Platform, database: str, undisturbed: Tables
) -> None:
    platform.run("ingestion", MONDAY, WEDNESDAY)
    spoil, mend = "ALTER ROLE tester NOLOGIN", "ALTER ROLE tester LOGIN"

    with administered(server, database, spoil, mend):
        with pytest.raises(RunFailed):
            platform.run("ingestion", MONDAY, WEDNESDAY)
        with pytest.raises((WarehouseError, WarehouseUnavailable)):
            _read_all(platform)
        require_same(tables(platform, MONDAY, WEDNESDAY), undisturbed)

    mended(platform, undisturbed)


def test_a_tick_that_finds_no_warehouse_loses_no_day(
    server: Postgres,
    platform: Platform,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = Ticks(platform, monkeypatch)
    platform.run("ingestion", MONDAY)
    spoil, mend = "ALTER ROLE tester NOLOGIN", "ALTER ROLE tester LOGIN"

    with (
        administered(server, database, spoil, mend),
        pytest.raises(WarehouseError, match="refuses"),
    ):
        ticks.tick()

    asked = {day for request in ticks.tick() for day in _days_of(request)}
    assert {TUESDAY, WEDNESDAY} <= asked


def _days_of(request: dg.RunRequest) -> list[str]:
    if request.partition_key:
        return [request.partition_key]
    first, last = (request.tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))
    return [day.strftime("%Y-%m-%d") for day in pd.date_range(first, last)]


# Disks


@contextmanager
def disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A folder with so much room and no more."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k"]
    done = subprocess.run(["mount", *options, "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        leave_out(f"this user may not mount a folder: {done.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path, leave_kilobytes: int) -> Path:
    """Fill a disk up to the last few kilobytes; returns the file to remove."""
    filler = folder / "filler"
    state = os.statvfs(folder)
    size = state.f_bavail * state.f_frsize - leave_kilobytes * 1024
    filler.write_bytes(b"\0" * max(size, 0))
    return filler


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Root may write anywhere but on a file system that nobody may write to."""
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)


@pytest.fixture(scope="module")
def fed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DuckDB warehouse with applications of three days."""
    platform = new_platform(tmp_path_factory.mktemp("fed"))
    platform.arrive(MONDAY, WEDNESDAY)
    return platform.environment.home / "warehouse.duckdb"


@pytest.fixture(scope="module")
def at_peace(fed: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    platform = platform_at(f"duckdb:///{fed}", tmp_path_factory.mktemp("peace"))
    platform.run("ingestion", MONDAY, WEDNESDAY)
    return tables(platform, MONDAY, WEDNESDAY)


@pytest.fixture
def on_disk(fed: Path, tmp_path: Path) -> Iterator[Platform]:
    """A platform whose tables lie on a small disk of their own, with Monday in them."""
    platform = platform_at(f"duckdb:///{fed}", tmp_path)
    with disk(tmp_path / "lake", 4_000):
        platform.run("ingestion", MONDAY)
        yield platform


# Room for nothing, for the first table, for two or three of them.
@pytest.mark.parametrize("left", [0, 4, 24, 40, 60, 80, 100, 120, 160])
def test_a_full_disk_below_the_tables_is_named_and_mended_by_room(
    on_disk: Platform, at_peace: Tables, left: int
) -> None:
    lake = on_disk.environment.home / "lake"
    monday = tables(on_disk, MONDAY, MONDAY)
    filler = fill(lake, left)

    with pytest.raises(RunFailed, match=r"(?is)table claims/\w+ cannot be .*(room|space)"):
        on_disk.run("ingestion", TUESDAY, WEDNESDAY)

    require_sound(on_disk)
    require_same(tables(on_disk, MONDAY, MONDAY), monday)
    filler.unlink()
    on_disk.run("ingestion", TUESDAY, WEDNESDAY)
    require_sound(on_disk)
    require_same(tables(on_disk, MONDAY, WEDNESDAY), at_peace)


def test_a_read_only_folder_below_the_tables_is_named_and_mended(
    on_disk: Platform, at_peace: Tables
) -> None:
    lake = on_disk.environment.home / "lake"

    with (
        read_only(lake),
        pytest.raises(RunFailed, match=r"(?is)table claims/raw cannot be written .*user may write"),
    ):
        on_disk.run("ingestion", TUESDAY, WEDNESDAY)

    require_sound(on_disk)
    on_disk.run("ingestion", TUESDAY, WEDNESDAY)
    require_same(tables(on_disk, MONDAY, WEDNESDAY), at_peace)


def test_a_read_only_home_is_named_and_mended(fed: Path, tmp_path: Path, at_peace: Tables) -> None:
    with disk(tmp_path / "home", 4_000) as home:
        platform = platform_at(f"duckdb:///{fed}", home)
        with read_only(home), pytest.raises(RunFailed, match=r"(?s)home.* cannot be .*may write"):
            platform.run("ingestion", MONDAY, WEDNESDAY)

        platform.run("ingestion", MONDAY, WEDNESDAY)
        require_same(tables(platform, MONDAY, WEDNESDAY), at_peace)


@pytest.fixture
def cli_home(fed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ML_ASSETS_WAREHOUSE_URL", f"duckdb:///{fed}")
    return tmp_path / "home"


@pytest.mark.parametrize("left", [0, 60, 400])
def test_a_full_disk_below_dagsters_own_records_is_told_in_one_message(
    cli_home: Path, left: int
) -> None:
    run = ("run", "ingestion", "--day", MONDAY, "--to", WEDNESDAY, "--home", str(cli_home))
    with disk(cli_home / "dagster", 20_000) as folder:
        filler = fill(folder, left)

        told = ml_assets(*run, check=False)

        assert "Traceback" not in told
        assert re.search(r"Error: .*(room|space|full)", told), told
        filler.unlink()
        ml_assets(*run)
    platform = Platform(small_environment(cli_home), dg.DagsterInstance.ephemeral())
    require_sound(platform)
    assert len(platform.table("features", MONDAY, WEDNESDAY)) > 300


def test_read_only_records_of_dagster_are_told_in_one_message(cli_home: Path) -> None:
    run = ("run", "ingestion", "--day", MONDAY, "--home", str(cli_home))
    with disk(cli_home / "dagster", 20_000) as folder:
        ml_assets(*run)
        with read_only(folder):
            told = ml_assets(*run, check=False)

        assert "Traceback" not in told
        assert re.search(r"Error: .*(may write|read-?only)", told), told
        ml_assets(*run)


# Clocks


class Clock:
    """The wall clock, set by hand; time since the machine started goes on as it does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
        self.now = now
        monkeypatch.setattr(time, "time", lambda: self.now.timestamp())

    def jump(self, **by: float) -> None:
        self.now += timedelta(**by)


NOON = datetime(2026, 1, 20, 12, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, NOON)


def asked(ticks: Ticks) -> set[str]:
    return {day for request in ticks.tick() for day in _days_of(request)}


@pytest.fixture
def ticking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Ticks, Clock]:
    platform = new_platform(tmp_path)
    platform.arrive("2026-01-17", "2026-01-20")
    platform.run("ingestion", "2026-01-17", "2026-01-18")
    ticks = Ticks(platform, monkeypatch)
    return ticks, Clock(monkeypatch, NOON)


def test_a_clock_set_back_by_two_days_loses_no_day(ticking: tuple[Ticks, Clock]) -> None:
    ticks, clock = ticking
    clock.jump(days=-2)
    before = asked(ticks)
    clock.jump(days=2)
    after = asked(ticks)

    assert before == set(), "days that have not begun are not asked for"
    assert after == {"2026-01-19", "2026-01-20"}


def test_a_clock_set_forward_and_back_asks_for_each_day_once(
    ticking: tuple[Ticks, Clock],
) -> None:
    ticks, clock = ticking
    clock.jump(days=2)
    requests = ticks.tick()
    for request in requests:
        ticks.create_run(request)
    clock.jump(days=-4)
    meanwhile = ticks.tick()
    clock.jump(days=2)

    assert {day for request in requests for day in _days_of(request)} == {
        "2026-01-19",
        "2026-01-20",
    }
    assert meanwhile == []
    assert ticks.tick() == []
    assert "not over yet" in ticks.skip


def test_run_keys_do_not_come_again_when_the_clock_does(ticking: tuple[Ticks, Clock]) -> None:
    ticks, clock = ticking
    first = {str(request.run_key) for request in ticks.tick()}
    ticks.cursor = None  # as when somebody resets it in the UI
    clock.jump(seconds=-1)
    second = {str(request.run_key) for request in ticks.tick()}

    assert first
    assert second
    assert not first & second


def test_extractions_do_not_depend_on_the_clock(
    fed: Path, tmp_path: Path, at_peace: Tables, clock: Clock
) -> None:
    platform = platform_at(f"duckdb:///{fed}", tmp_path)
    platform.run("ingestion", MONDAY, TUESDAY)
    clock.jump(days=-2)
    platform.run("ingestion", WEDNESDAY)
    before = {stage: platform.lake.version(f"claims/{stage}") for stage in STAGES}
    clock.jump(days=40)
    platform.run("ingestion", MONDAY, WEDNESDAY)

    require_same(tables(platform, MONDAY, WEDNESDAY), at_peace)
    for stage, version in before.items():
        assert platform.lake.version(f"claims/{stage}") == version, "nothing was new"


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Platform:
    platform = new_platform(tmp_path_factory.mktemp("scored"))
    platform.arrive("2026-01-05", "2026-01-16")
    platform.run("ingestion", "2026-01-05", "2026-01-16")
    platform.run("training", "2026-01-16")
    return platform


@pytest.mark.parametrize("jump", [-2, 2])
def test_what_was_said_stays_in_order_when_the_clock_jumps(
    scored: Platform, clock: Clock, jump: int
) -> None:
    day = "2026-01-16" if jump < 0 else "2026-01-15"
    correct = {"age": 40} if jump < 0 else {"age": 41}
    scored.run("scoring", day)
    first = scored.table("predictions", day)
    clock.jump(days=jump)
    scored.replace_day(day, lambda rows: rows.assign(age=rows["age"].where(rows.index > 9, 40)))
    scored.run("scoring", day)
    clock.jump(days=-jump)
    scored.replace_day(day, lambda rows: rows.assign(**correct, income=20_000))
    scored.run("scoring", day)

    said = scored.table("predictions", day)
    now = standing(said)
    assert now["application_id"].is_unique
    assert set(now["application_id"]) == set(first["application_id"])
    assert len(said) > len(first)
    gone = said["superseded_at"].notna()
    assert (said.loc[gone, "superseded_at"] >= said.loc[gone, "scored_at"]).all()
    for _, history in said.groupby("application_id"):
        latest = history.sort_values("scored_at", kind="stable").iloc[-1]
        assert pd.isna(latest["superseded_at"]), "the last word is the one that stands"


def test_each_day_has_one_scheduled_run_however_the_clock_jumps(scored: Platform) -> None:
    repository = scored.definitions.get_repository_def()
    for schedule in repository.schedule_defs:
        keys = []
        for hours in (0, 24, 24, -24, 72, 96, 48):
            at = datetime(2026, 1, 20, 6, 15, tzinfo=UTC) + timedelta(hours=hours)
            with dg.build_schedule_context(
                instance=scored.instance, scheduled_execution_time=at, repository_def=repository
            ) as context:
                found = schedule.evaluate_tick(context)
            keys += [(request.run_key, request.partition_key) for request in found.run_requests]
        assert len(keys) == 7
        # Dagster runs a key once: a tick that comes again, or late, asks for the same run.
        assert len(set(keys)) == 6
        # The question whether yesterday's predictions are there has no partition.
        assert all(day in {run_key, None} for run_key, day in keys)


def test_a_champion_chosen_by_hand_serves_even_if_the_clock_was_set_back(
    scored: Platform,
) -> None:
    from ml_assets.champions import Hand, champion, promote

    scored.run("training", "2026-01-15")
    versions = [each.version for each in scored.registry.versions("claims")]
    serving = champion(scored.lake, scored.use_case).version
    (other, *_) = [version for version in versions if version != serving]
    hand = Hand("a tester", "to see", datetime(2025, 12, 1, tzinfo=UTC))

    promote(scored.environment, scored.use_case, scored.lake, scored.registry, other, hand)

    assert champion(scored.lake, scored.use_case).version == other


def test_a_warehouse_reads_with_any_clock(server: Postgres, database: str, clock: Clock) -> None:
    clock.jump(days=-2)
    own = Warehouse(server.url(database), "Europe/London", 1, 0.01, 30)

    assert own.exists(TABLE)


# The landing folder


@contextmanager
def landing_ticks(
    home: Path, monkeypatch: pytest.MonkeyPatch, full: str, **settings: Any
) -> Iterator[tuple[Ticks, Path]]:
    """A sensor that takes files, one of two folders on a small disk, and a file that has landed."""
    environment = small_environment(home)
    changes = {"complete": "renamed", "settle_seconds": 60, **settings}
    landing = environment.landing.model_copy(update=changes)
    environment = environment.model_copy(update={"source": "landing", "landing": landing})
    platform = Platform(environment, dg.DagsterInstance.ephemeral())
    (home / "landing").mkdir(parents=True)
    with disk(home / full, 2_000) as folder:
        (home / "landing" / "days.csv").write_bytes(as_csv(valid_rows()))
        yield Ticks(platform, monkeypatch), folder


def require_taken_once(ticks: Ticks) -> None:
    """The next ordinary tick takes the file, and its rows are there once."""
    assert asked(ticks) == set(DAYS)
    ticks.platform.run("ingestion", DAYS[0], DAYS[-1])
    require_sound(ticks.platform)
    account = ticks.platform.table("extraction", DAYS[0], DAYS[-1])
    assert account["rows_read"].sum() == account["rows_kept"].sum() == len(valid_rows())
    assert account["duplicates_dropped"].sum() == 0
    inbox = ticks.platform.environment.home / "landing"
    assert not (inbox / "days.csv").exists()
    assert len([path for path in inbox.glob("archive/*/*") if path.is_file()]) == 1
    assert ticks.tick() == []


@pytest.mark.parametrize(
    ("full", "left"), [("landing", 0), ("landing", 8), ("lake", 0), ("lake", 8)]
)
def test_a_full_disk_while_files_are_taken_is_named_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str, left: int
) -> None:
    with landing_ticks(tmp_path, monkeypatch, full) as (ticks, folder):
        filler = fill(folder, left)

        with pytest.raises((LandingUnavailable, LakeError), match=r"(?is)(space|room)"):
            ticks.tick()

        assert (tmp_path / "landing" / "days.csv").read_bytes() == as_csv(valid_rows())
        filler.unlink()
        require_taken_once(ticks)


@pytest.mark.parametrize("full", ["landing", "lake"])
def test_a_folder_that_turns_read_only_while_files_are_taken_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    with landing_ticks(tmp_path, monkeypatch, full) as (ticks, folder):
        with (
            read_only(folder),
            pytest.raises((LandingError, LakeError), match=r"(?is)user may .*write there"),
        ):
            ticks.tick()

        require_taken_once(ticks)


def test_an_archived_file_that_is_gone_fails_its_days_with_what_to_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with landing_ticks(tmp_path, monkeypatch, "landing") as (ticks, folder):
        ticks.tick()
        (archived,) = [path for path in folder.glob("archive/*/*") if path.is_file()]
        content = archived.read_bytes()
        for spoil, told in ((None, "is gone"), (content[:-9], "is damaged")):
            archived.unlink()
            if spoil is not None:
                archived.write_bytes(spoil)
            with pytest.raises(RunFailed, match=rf"(?s)archived file .* {told}.*backup"):
                ticks.platform.run("ingestion", DAYS[0])
            require_nothing(ticks.platform)
            archived.write_bytes(content)

        ticks.platform.run("ingestion", DAYS[0])
        require_sound(ticks.platform)


@pytest.mark.parametrize("days", [-2, 2])
def test_files_land_whatever_the_clock_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    with landing_ticks(tmp_path, monkeypatch, "landing", complete="settled") as (ticks, folder):
        clock = Clock(monkeypatch, NOON)
        written = (NOON - timedelta(hours=1)).timestamp()
        os.utime(folder / "days.csv", (written, written))
        clock.jump(days=days)

        require_taken_once(ticks)
        clock.jump(days=-days)
        assert ticks.tick() == []


def test_a_slow_copy_that_is_still_written_to_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with landing_ticks(tmp_path, monkeypatch, "landing", complete="settled") as (ticks, _):
        monkeypatch.undo()  # the true clock: the file was written just now
        ticks.tick()

        assert (tmp_path / "landing" / "days.csv").exists()
        assert ticks.platform.lake.rows_per_day("claims/landing") == {}
