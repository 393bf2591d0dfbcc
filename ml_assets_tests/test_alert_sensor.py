"""The sensor: what really happens in runs becomes alerts, once each, without values or secrets."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets import alert_events
from ml_assets.alert_events import Cursor, read_events
from ml_assets.alert_outbox import OutboxError, last_alerts
from ml_assets.alerts import Alert, cause_and_remedy
from ml_assets.build import resources
from ml_assets.champions import Hand, promote, rollback
from ml_assets.resources.notifications import heartbeat
from ml_assets.runs import RunFailed
from ml_assets.sources import take_files
from ml_assets_tests.conftest import Platform, small_environment
from ml_assets_tests.receivers import free_port, http_receiver, http_url

DAY = "2026-01-05"
SECRET = "hunter2222"


@dataclass
class Alerted:
    """A platform with its alerts sensor and an HTTP receiver."""

    platform: Platform
    posted: list[dict[str, Any]]
    cursor: str | None = None
    skip: str = ""
    known: set[str] = field(default_factory=set)

    def tick(self) -> list[Alert]:
        """The alerts of one more tick."""
        repository = self.platform.definitions.get_repository_def()
        with dg.build_sensor_context(
            instance=self.platform.instance,
            cursor=self.cursor,
            repository_def=repository,
            resources={"lake": self.platform.lake},
        ) as context:
            data = repository.get_sensor_def("alerts").evaluate_tick(context)
        self.cursor, self.skip = data.cursor, str(data.skip_message)
        assert not data.run_requests
        found = [
            each
            for each in last_alerts(self.platform.environment, 1_000)
            if each.id not in self.known
        ]
        self.known |= {each.id for each in found}
        return found


@pytest.fixture
def alerted(tmp_path: Path) -> Iterator[Alerted]:
    port = free_port()
    environment = small_environment(tmp_path)
    alerts = environment.alerts.model_copy(update={"urls": http_url(port)})
    environment = environment.model_copy(update={"alerts": alerts})
    with http_receiver(port) as posted:
        yield Alerted(Platform(environment, dg.DagsterInstance.ephemeral()), posted)


def spoil(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(marital_status="Zorro")


def test_a_failed_run_is_told_once_and_so_is_its_mending(alerted: Alerted) -> None:
    platform = alerted.platform
    platform.arrive(DAY, DAY)
    platform.run("ingestion", DAY)
    with pytest.raises(RunFailed, match="no model serves yet"):
        platform.run("scoring", DAY, only="predictions")

    (failed,) = alerted.tick()
    again = alerted.tick()
    with pytest.raises(RunFailed):
        platform.run("scoring", DAY, only="predictions")
    repeated = alerted.tick()

    assert (failed.level, failed.kind, failed.days) == ("error", "trouble", (DAY,))
    assert failed.title == f"claims_scoring failed at claims__predictions for {DAY}"
    assert failed.cause.startswith("no model serves yet")
    assert "claims_training" in failed.remedy
    assert failed.link == f"http://127.0.0.1:3000/runs/{failed.run_id}"
    assert platform.instance.get_run_by_id(failed.run_id) is not None
    assert again == repeated == []
    assert [each["title"] for each in alerted.posted] == [f"[dev] {failed.title}"]


@pytest.mark.slow
def test_promotion_rollback_and_wellness_are_told(alerted: Alerted) -> None:
    platform = alerted.platform
    platform.arrive("2026-01-05", "2026-01-17")
    with pytest.raises(RunFailed):
        platform.run("scoring", "2026-01-16")
    alerted.tick()
    platform.run("ingestion", "2026-01-05", "2026-01-15")
    platform.run("training", "2026-01-16")

    (promoted,) = alerted.tick()
    platform.run("scoring", "2026-01-16")
    (well,) = alerted.tick()
    platform.run("training", "2026-01-17")
    others = alerted.tick()
    history = platform.table("champion_history", "2026-01-01", "2100-01-01")
    hand = Hand("ann", "password=hunter2222 is in its card", datetime.now(UTC))
    doors = (platform.lake, platform.registry)
    other = 2 if history["version"].iloc[-1] == 1 else 1
    promote(platform.environment, platform.use_case, *doors, other, hand)
    (by_hand,) = alerted.tick()
    rollback(platform.environment, platform.use_case, *doors, hand)
    (back,) = alerted.tick()

    assert (promoted.level, promoted.kind) == ("info", "news")
    assert promoted.title == "claims: version 1 serves, promoted by the gate"
    assert promoted.cause == "challenger version 1 is promoted: none served before"
    assert (well.kind, well.level, well.days) == ("well", "error", ("2026-01-16",))
    assert well.title == "claims/predictions is well again for 2026-01-16"
    assert all(each.kind == "news" for each in others)
    assert "promoted by ann" in by_hand.title
    assert back.level == "warning"
    assert f"in place of version {other}, rolled back by ann" in back.title
    assert back.cause == "password=*** is in its card"
    assert alerted.tick() == []


def test_a_check_that_holds_a_day_back_is_told_as_that_without_its_values(
    alerted: Alerted,
) -> None:
    platform = alerted.platform
    platform.arrive(DAY, DAY)
    platform.replace_day(DAY, spoil)
    with pytest.raises(RunFailed):
        platform.run("ingestion", DAY)

    told = alerted.tick()

    (blocked,) = [each for each in told if each.level == "error"]
    assert blocked.title == f"claims/raw: bad_share_within_limit fails for {DAY}"
    assert "of the rows break the contract" in blocked.cause
    assert "ml-assets quarantine show" in blocked.remedy
    everything = "".join(f"{each}" for each in [*told, *alerted.posted])
    assert "Zorro" not in everything
    assert "for example" not in everything


def test_a_range_with_a_bad_day_blames_that_day_alone(alerted: Alerted) -> None:
    platform = alerted.platform
    first, bad, few = DAY, "2026-01-06", "2026-01-07"
    platform.arrive(first, "2026-01-08")
    good: list[pd.DataFrame] = []

    def spoil_and_keep(rows: pd.DataFrame) -> pd.DataFrame:
        good.append(rows)
        return spoil(rows)

    platform.replace_day(first, spoil_and_keep)
    with pytest.raises(RunFailed):
        platform.run("ingestion", first)
    alerted.tick()
    platform.replace_day(first, lambda _: good[0])
    platform.replace_day(bad, spoil_and_keep)
    platform.replace_day(few, lambda rows: rows.head(9))
    with pytest.raises(RunFailed):
        platform.run("ingestion", first, "2026-01-08")

    told = {each.title for each in alerted.tick()}
    platform.replace_day(bad, lambda _: good[1])
    platform.run("ingestion", first, "2026-01-08")
    mended = {each.title for each in alerted.tick()}

    assert told == {
        f"claims/raw: bad_share_within_limit is well again for {first}",
        f"claims/raw: bad_share_within_limit fails for {bad}",
        f"claims/extraction: volume_as_expected fails for {few}",
    }
    assert mended == {f"claims/raw: bad_share_within_limit is well again for {bad}"}


def test_a_warning_is_told_as_a_warning_and_ends_with_a_good_day_that_is_over(
    alerted: Alerted, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = alerted.platform
    platform.arrive("2026-01-05", "2026-01-06")
    platform.replace_day(DAY, lambda rows: rows.head(9))
    monkeypatch.setattr(time, "time", datetime(2026, 1, 6, 12, tzinfo=UTC).timestamp)
    platform.run("ingestion", DAY)

    (few,) = alerted.tick()
    platform.run("ingestion", "2026-01-06")
    not_over = alerted.tick()
    monkeypatch.setattr(time, "time", datetime(2026, 1, 7, 12, tzinfo=UTC).timestamp)
    platform.run("ingestion", "2026-01-06")
    (well,) = alerted.tick()

    assert (few.level, few.days) == ("warning", (DAY,))
    assert few.title == f"claims/extraction: volume_as_expected fails for {DAY}"
    assert not_over == [], "that day was not judged"
    assert well.title == f"claims/extraction: volume_as_expected is well again for {DAY}"


def started(platform: Platform, **tags: str) -> dg.DagsterRun:
    return platform.instance.create_run_for_job(
        platform.definitions.resolve_job_def("claims_scoring"),
        tags={"dagster/partition": DAY, **tags},
        status=dg.DagsterRunStatus.STARTED,
    )


def test_a_run_whose_process_died_is_told(alerted: Alerted) -> None:
    platform = alerted.platform
    message = f"The process was killed: see postgresql://ml:{SECRET}@host/db"
    platform.instance.report_run_failed(started(platform), message=message)

    (died,) = alerted.tick()

    assert died.title == f"claims_scoring failed for {DAY}"
    assert died.cause == "The process was killed: see postgresql://ml:***@host/db"
    assert "materialise the same days again" in died.remedy


def test_a_run_that_dagster_repeats_is_a_warning_until_the_last_try(alerted: Alerted) -> None:
    platform = alerted.platform
    platform.instance.report_run_failed(started(platform, **{"dagster/will_retry": "true"}))
    (first,) = alerted.tick()
    platform.instance.report_run_failed(started(platform))
    (last,) = alerted.tick()

    assert (first.level, last.level) == ("warning", "error")
    assert "by itself" in first.remedy


def test_a_run_that_a_person_ends_is_no_trouble(alerted: Alerted) -> None:
    alerted.platform.instance.report_run_canceled(started(alerted.platform))

    assert alerted.tick() == []


def test_a_night_without_daemon_is_read_in_one_look_and_once(
    alerted: Alerted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_events, "_PAGE", 10)
    platform = alerted.platform
    alerted.tick()
    for day in range(1, 32):
        run = started(platform, **{"dagster/partition": f"2026-01-{day:02}"})
        platform.instance.report_run_failed(run)

    told = alerted.tick()

    assert sorted(each.days[0] for each in told if each.days) == [
        f"2026-01-{day:02}" for day in range(1, 32)
    ]
    assert len(alerted.posted) == 20, "the last sums up the rest"
    assert alerted.tick() == []
    # The records have settled: the cursor is a single number again.
    later = datetime.now(UTC) + timedelta(hours=1)
    cursor = Cursor.model_validate_json(str(alerted.cursor))
    events, settled = read_events(platform.instance, platform.lake, [], [], cursor, later)
    assert events == []
    assert settled.runs["PIPELINE_FAILURE"].seen == ()


def test_a_sensor_that_cannot_read_is_told_after_three_ticks_and_when_it_reads_again(
    alerted: Alerted, tmp_path: Path
) -> None:
    # Ticks are kept by instances on disk alone.
    alerted.platform.instance = instance = dg.DagsterInstance.local_temp(str(tmp_path))
    sensor = alerted.platform.definitions.get_repository_def().get_sensor_def("claims_new_data")
    told = []
    for number, status in enumerate(["FAILURE", "FAILURE", "FAILURE", "FAILURE", "SKIPPED"]):
        record_tick(instance, sensor.name, status, number)
        told.append(alerted.tick())

    assert [len(each) for each in told] == [0, 0, 1, 0, 1]
    ((failing,), (well,)) = told[2], told[4]
    assert failing.title == "sensor claims_new_data fails"
    assert failing.cause == "the warehouse postgresql://ml:***@host/db cannot be reached."
    assert failing.remedy == "See that it runs."
    assert well.title == "sensor claims_new_data is well again"


def test_a_sensor_that_was_removed_is_nobodys_concern(alerted: Alerted, tmp_path: Path) -> None:
    alerted.platform.instance = instance = dg.DagsterInstance.local_temp(str(tmp_path))
    for number in range(4):
        record_tick(instance, "claims_of_last_year", "FAILURE", number)

    assert alerted.tick() == []


def record_tick(instance: dg.DagsterInstance, name: str, status: str, number: int) -> None:
    """What the daemon writes down of a tick; the public way is to let it tick for minutes."""
    from dagster._core.remote_origin import (
        InProcessCodeLocationOrigin,
        RemoteInstigatorOrigin,
        RemoteRepositoryOrigin,
    )
    from dagster._core.scheduler.instigation import (
        InstigatorState,
        InstigatorStatus,
        InstigatorType,
        SensorInstigatorData,
        TickData,
        TickStatus,
    )
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
    from dagster_shared.error import SerializableErrorInfo

    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="x"))
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "x"), name)
    ids = {"instigator_origin_id": origin.get_id(), "selector_id": "selector"}
    if number == 0:
        instance.add_instigator_state(
            InstigatorState(
                origin,
                InstigatorType.SENSOR,
                InstigatorStatus.DECLARED_IN_CODE,
                SensorInstigatorData(min_interval=30),
            )
        )
    ids["selector_id"] = instance.all_instigator_state()[0].selector_id
    ours = SerializableErrorInfo(
        "ml_assets.resources.warehouse.WarehouseUnavailable: the warehouse "
        f"postgresql://ml:{SECRET}@host/db cannot be reached. See that it runs.",
        [],
        "WarehouseUnavailable",
    )
    instance.create_tick(
        TickData(
            **ids,
            instigator_name=name,
            instigator_type=InstigatorType.SENSOR,
            status=TickStatus(status),
            timestamp=datetime.now(UTC).timestamp() + number,
            error=SerializableErrorInfo("outer", [], "SensorExecutionError", cause=ours)
            if status == "FAILURE"
            else None,
        )
    )


def test_a_malformed_target_is_told_in_the_tick_and_costs_the_others_nothing(
    tmp_path: Path,
) -> None:
    port = free_port()
    environment = small_environment(tmp_path)
    urls = f"slack://{SECRET} {http_url(port)}"
    alerts = environment.alerts.model_copy(update={"urls": urls})
    environment = environment.model_copy(update={"alerts": alerts})
    platform = Platform(environment, dg.DagsterInstance.ephemeral())
    platform.instance.report_run_failed(started(platform))

    with http_receiver(port) as posted:
        (told,) = Alerted(platform, posted).tick()

    assert told.days == (DAY,)
    assert len(posted) == 1


def test_a_lake_out_of_reach_is_told_and_hides_no_failed_run(alerted: Alerted) -> None:
    platform = alerted.platform
    table = Path(platform.environment.lake.url) / "claims" / "champion_history"
    (table / "_delta_log").mkdir(parents=True)
    (table / "_delta_log" / f"{0:020}.json").write_text("no commit")
    platform.instance.report_run_failed(started(platform))

    told = alerted.tick()
    shutil.rmtree(table)
    (well,) = alerted.tick()

    assert sorted(each.title for each in told) == [
        "claims/champion_history cannot be read",
        f"claims_scoring failed for {DAY}",
    ]
    assert well.title == "claims/champion_history is well again"


def with_heartbeat(tmp_path: Path, url: str) -> Alerted:
    environment = small_environment(tmp_path)
    alerts = environment.alerts.model_copy(update={"heartbeat_url": url})
    environment = environment.model_copy(update={"alerts": alerts})
    return Alerted(Platform(environment, dg.DagsterInstance.ephemeral()), [])


def test_a_watcher_elsewhere_is_asked_after_each_tick(tmp_path: Path) -> None:
    port = free_port()
    alerted = with_heartbeat(tmp_path, f"http://127.0.0.1:{port}/ping/{SECRET}?up=1")

    with http_receiver(port) as asked:
        alerted.tick()
        alerted.tick()

    assert asked == [{"asked": f"/ping/{SECRET}?up=1"}] * 2


def test_a_watcher_is_not_asked_by_a_tick_that_fails(tmp_path: Path) -> None:
    port = free_port()
    alerted = with_heartbeat(tmp_path, f"http://127.0.0.1:{port}/{SECRET}")
    alerted.platform.environment.home.joinpath("alerts").write_text("in the way")

    with http_receiver(port) as asked, pytest.raises(OutboxError):
        alerted.tick()

    assert asked == []


def test_a_watcher_that_is_down_is_a_warning_without_its_secret(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/{SECRET}?key={SECRET}"
    alerted = with_heartbeat(tmp_path, url)
    alerted.platform.instance.report_run_failed(started(alerted.platform))

    (told,) = alerted.tick()
    with http_receiver(port, status=404):
        alerted.tick()
        refused = heartbeat(url)
    with http_receiver(port, pause_s=2):
        slow = heartbeat(url, 0.3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("urllib.request.urlopen", quoting)
        quoted = heartbeat(url)

    assert told.days == (DAY,), "the tick tells all the same"
    logged = capfd.readouterr().err
    assert "the watcher of alerts.heartbeat_url was not reached: Connection refused" in logged
    assert "the watcher of alerts.heartbeat_url was not reached: it answers 404" in logged
    assert refused == "it answers 404"
    assert slow == "timed out"
    assert quoted == "cannot reach ***"
    assert SECRET not in logged


def quoting(request: Any, timeout: float) -> None:
    raise OSError(f"cannot reach {request.full_url}")


# Checks

# As much of each table as the checks read.
ACCOUNT = ["day", "rows_read", "rows_kept", "rows_quarantined", "duplicates_dropped", "fingerprint"]
COLUMNS = {
    "extraction": ACCOUNT,
    "raw": ["day", "application_id"],
    "quarantine": ["day", "reason", "column", "value"],
    "features": ["day", "application_id", "claim_status"],
    "predictions": ["day", "application_id", "probability", "scored_at", "superseded_at"],
    "monitoring": ["day", "section", "subject", "state", "since", "sentence"],
}


def test_every_check_that_fails_says_why_and_what_to_do(platform: Platform) -> None:
    day, before = "2026-01-06", "2026-01-02"  # whose outcomes are known by then
    said = pd.Timestamp(before, tz="UTC")
    for stage, rows in {
        "extraction": [[day, 10, 5, 5, 0, "10 rows"]],
        "raw": [[day, "A-1"]],
        "quarantine": [[day, "out_of_range", "age", "431"]],
        "features": [[before, f"A-{n}", 1] for n in range(400)],
        "predictions": [[before, f"A-{n}", 0.1, said, pd.NaT] for n in range(400)],
        "monitoring": [
            [day, section, "age", "drift", day, "it is far off"]
            for section in ("inputs", "outputs", "outcomes")
        ],
    }.items():
        frame = pd.DataFrame(rows, columns=COLUMNS[stage])
        platform.lake.write(f"claims/{stage}", frame, min(before, day), day)
    known = {check.name for check in platform.definitions.resolve_asset_graph().asset_check_keys}

    done = dg.materialize(
        [*(platform.definitions.assets or ()), *(platform.definitions.asset_checks or ())],
        selection=dg.AssetSelection.all_asset_checks()
        - dg.AssetSelection.checks_for_assets("claims/model_card"),
        tags={"dagster/partition": day},  # a partition_key would need an asset
        instance=platform.instance,
        resources=dict(platform.definitions.resources or {}),
        raise_on_error=False,
    )

    found = {each.check_name: each for each in done.get_asset_check_evaluations()}
    # That one is a part of its asset: assets/test_model_card.py lets it fail.
    assert known == {*found, "card_written"}
    for name, evaluation in found.items():
        assert not evaluation.passed, name
        cause, remedy = cause_and_remedy(evaluation.description or "", "")
        assert cause, name
        assert remedy, f"{name} does not say what to do: {cause}"


# Files


def land(alerted: Alerted, name: str, content: str) -> None:
    """Let the new-data sensor's first step take a file, in an environment whose rows come so."""
    platform = alerted.platform
    environment = platform.environment
    settings = environment.landing.model_copy(update={"complete": "renamed"})
    changes = {"source": "landing", "landing": settings}
    source = resources(environment.model_copy(update=changes))["source"]
    folder = Path(settings.url)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(content)
    assert take_files(source, platform.use_case, datetime.now(UTC), budget_seconds=9)


def test_a_rejected_file_is_told_once_without_its_values_until_one_of_its_name_is_taken(
    alerted: Alerted, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(alerted, "north/monday.csv", f'application_id,age\nAnn {SECRET},"4')
    land(alerted, "tuesday.csv", "Ann Smith,1970\nBob Smith,1980\n")  # no header

    told = alerted.tick()
    monkeypatch.setattr(alert_events, "read_files", None)
    again = alerted.tick()  # looks at the table's version alone
    monkeypatch.undo()
    land(alerted, "north/monday.csv", "application_id,received_at\nA-1,2026-01-05T10:00:00Z\n")
    mended = alerted.tick()

    monday, tuesday = told
    assert (monday.level, monday.kind) == ("warning", "trouble")
    assert monday.title == "claims: the file north/monday.csv was rejected"
    assert monday.cause.startswith("line 2, column …: the quote is never closed")
    assert monday.remedy == (
        "Look at monday.csv.reason.txt in rejected/ of the landing folder, have the file mended, "
        "and drop it again under the same name."
    )
    assert tuesday.cause.startswith("it has no column …")
    for value in ("Ann", "Bob", "1970", SECRET):
        assert value not in f"{told}{alerted.posted}"
    assert again == []
    assert [each.title for each in mended] == ["claims: the file north/monday.csv is well again"]
    assert len(alerted.posted) == 3


def test_a_file_that_was_rejected_long_ago_is_no_news(
    alerted: Alerted, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(f"{__name__}.datetime", LongAgo)
        land(alerted, "old.csv", "no header")

    assert alerted.tick() == []


class LongAgo(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return datetime(2026, 1, 5, tzinfo=tz)


def test_a_ledger_that_cannot_be_read_is_told_and_its_files_are_told_later(
    alerted: Alerted,
) -> None:
    land(alerted, "a.csv", "no header")
    table = Path(alerted.platform.lake.url) / "claims" / "landing"
    files = {file: file.read_bytes() for file in table.rglob("*.parquet")}
    for file in files:
        file.unlink()

    (lost,) = alerted.tick()
    for file, content in files.items():
        file.write_bytes(content)
    found = alerted.tick()

    assert lost.title == "claims/landing cannot be read"
    assert {each.title for each in found} == {
        "claims/landing is well again",
        "claims: the file a.csv was rejected",
    }


def test_an_environment_without_alerts_has_no_sensor(tmp_path: Path) -> None:
    environment = small_environment(tmp_path)
    off = environment.alerts.model_copy(update={"enabled": False})
    platform = Platform(
        environment.model_copy(update={"alerts": off}), dg.DagsterInstance.ephemeral()
    )

    sensors = platform.definitions.get_repository_def().sensor_defs

    assert "alerts" not in {each.name for each in sensors}
