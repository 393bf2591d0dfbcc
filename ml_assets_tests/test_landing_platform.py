"""Files through the whole platform: sensor, extraction, and where every row of them ends."""

import gzip
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.resources.ledger import read_files
from ml_assets.runs import RunFailed
from ml_assets.use_cases.claims.simulator import rows_as_of
from ml_assets_tests.conftest import SHAPE, Platform

MONDAY, TUESDAY, TODAY = "2026-01-05", "2026-01-06", "2026-01-20"
NOON = datetime(2026, 1, 20, 12, tzinfo=UTC)


def simulated(day: str) -> pd.DataFrame:
    rows = rows_as_of(date.fromisoformat(day), NOON, **SHAPE)
    return rows.rename(columns={"income level": "income_level"})


def as_csv(rows: pd.DataFrame) -> bytes:
    rows = rows.copy()
    for name in ("received_at", "updated_at"):
        rows[name] = rows[name].dt.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return rows.to_csv(index=False).encode()


class Landed:
    """The small platform with files as its source, the clock standing at noon."""

    def __init__(self, platform: Platform) -> None:
        environment = platform.environment
        settings = environment.landing.model_copy(update={"complete": "renamed"})
        changes = {"source": "landing", "landing": settings}
        self.platform = Platform(
            environment.model_copy(update=changes), dg.DagsterInstance.ephemeral()
        )
        self.inbox = Path(settings.url)
        self.inbox.mkdir(parents=True)

    def tick(self) -> set[str | None]:
        """The days that the real sensor asks for."""
        repository = self.platform.definitions.get_repository_def()
        with dg.build_sensor_context(
            instance=self.platform.instance,
            repository_def=repository,
            resources={"source": self.platform.source, "lake": self.platform.lake},
        ) as context:
            data = repository.get_sensor_def("claims_new_data").evaluate_tick(context)
        return {request.partition_key for request in data.run_requests or []}

    def account(self, day: str) -> dict[str, Any]:
        (found,) = self.platform.table("extraction", day).to_dict("records")
        return {str(name): value for name, value in found.items()}


@pytest.fixture
def landed(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Landed:
    monkeypatch.setattr(time, "time", NOON.timestamp)
    return Landed(platform)


def test_every_row_of_a_file_is_on_record_read_and_accounted(landed: Landed) -> None:
    platform = landed.platform
    monday, tuesday = simulated(MONDAY), simulated(TUESDAY)
    (landed.inbox / "monday.csv").write_bytes(as_csv(monday))
    (landed.inbox / "tuesday.csv.gz").write_bytes(gzip.compress(as_csv(tuesday)))

    asked = landed.tick()
    platform.run("ingestion", MONDAY, TUESDAY)

    assert asked == {MONDAY, TUESDAY}
    assert landed.tick() == set()
    ledger = {file.path: dict(file.days) for file in read_files(platform.lake, "claims/landing")}
    assert ledger == {
        "monday.csv": {MONDAY: len(monday)},
        "tuesday.csv.gz": {TUESDAY: len(tuesday)},
    }
    for day, rows in ((MONDAY, monday), (TUESDAY, tuesday)):
        account = landed.account(day)
        assert account["rows_read"] == len(rows)
        assert account["rows_kept"] == len(platform.table("raw", day)) > len(rows) / 2
        assert account["rows_quarantined"] == len(platform.table("quarantine", day))
        assert account["rows_read"] == sum(
            account[name] for name in ("rows_kept", "rows_quarantined", "duplicates_dropped")
        )
    aside = platform.table("quarantine", MONDAY)
    assert len(aside) > 0
    positions = aside["origin"].str.extract(r"^monday\.csv, line (\d+)$")[0].astype(int) - 2
    assert monday["application_id"].iloc[positions].tolist() == [
        key if known else None
        for key, known in zip(aside["application_id"], aside["application_id"].notna(), strict=True)
    ]
    assert [path.name for path in landed.inbox.iterdir() if path.is_file()] == [".landing.lock"]


def test_a_corrected_file_is_asked_for_and_replaces_its_rows(landed: Landed) -> None:
    platform = landed.platform
    rows = simulated(MONDAY)
    (landed.inbox / "a.csv").write_bytes(as_csv(rows))
    landed.tick()
    platform.run("ingestion", MONDAY)
    (landed.inbox / "a.csv").write_bytes(as_csv(rows.head(100)))

    asked = landed.tick()
    platform.run("ingestion", MONDAY)

    assert asked == {MONDAY}
    assert landed.account(MONDAY)["rows_read"] == 100


def test_rows_that_a_newer_file_replaces_are_counted_on_their_day(landed: Landed) -> None:
    rows = simulated(MONDAY).head(50)
    newer = rows.head(7).assign(updated_at=rows["updated_at"].max() + pd.Timedelta(hours=1))
    (landed.inbox / "monday.csv").write_bytes(as_csv(rows))
    (landed.inbox / "corrections.csv").write_bytes(as_csv(newer))

    landed.tick()
    landed.platform.run("ingestion", MONDAY)

    told = landed.platform.metadata("extraction", MONDAY)
    assert (told["rows_read"], told["rows_left_out_for_newer_files"]) == (50, 7)


def test_a_file_that_lacks_an_optional_column_is_named(landed: Landed) -> None:
    rows = simulated(MONDAY)
    without = rows.head(50).drop(columns="family_history_3")
    (landed.inbox / "a.csv").write_bytes(as_csv(without))
    (landed.inbox / "b.csv").write_bytes(as_csv(rows.tail(50).assign(new="x")))
    landed.tick()

    landed.platform.run("ingestion", MONDAY)

    told = landed.platform.metadata("raw", MONDAY)
    assert told["columns_absent_in_files"] == {"a.csv": ["family_history_3"]}
    assert (told["columns_absent"], told["columns_ignored"]) == ([], ["new"])


def test_rows_of_no_day_go_to_quarantine_on_the_day_they_were_taken(landed: Landed) -> None:
    platform = landed.platform
    lines = as_csv(simulated(TUESDAY).head(4).assign(application_id=list("abcd"))).splitlines()
    lines[3] = lines[3].replace(b"c,2026-01-06T", b"c,2026-01-36T")
    lines[2] = lines[2].replace(b"b,2026-01-06T", b"b,2025-12-31T")
    (landed.inbox / "odd.csv").write_bytes(b"\n".join(lines))
    (landed.inbox / "today.csv").write_bytes(as_csv(today := simulated(TODAY)))

    asked = landed.tick()
    platform.run("ingestion", TODAY)

    assert asked == {TUESDAY, TODAY}
    aside = platform.table("quarantine", TODAY).set_index("application_id")
    aside = aside[aside["origin"].str.startswith("odd.csv")]
    assert aside[["reason", "column", "origin"]].to_dict("index") == {
        "b": {"reason": "outside_days", "column": "received_at", "origin": "odd.csv, line 3"},
        "c": {"reason": "wrong_type", "column": "received_at", "origin": "odd.csv, line 4"},
    }
    assert landed.account(TODAY)["rows_read"] == len(today) + 2


def test_a_day_of_unreadable_instants_alone_fails_until_its_own_rows_come(landed: Landed) -> None:
    platform = landed.platform
    rows = as_csv(simulated(TUESDAY).head(1))
    (landed.inbox / "odd.csv").write_bytes(rows.replace(b",2026-01-06T", b",2026-01-36T", 1))

    landed.tick()
    with pytest.raises(RunFailed, match=r"received_at +instant with time zone"):
        platform.run("ingestion", TODAY)
    (landed.inbox / "today.csv").write_bytes(as_csv(simulated(TODAY)))
    landed.tick()
    platform.run("ingestion", TODAY)

    aside = platform.table("quarantine", TODAY)
    (odd,) = aside[aside["origin"] == "odd.csv, line 2"].to_dict("records")
    assert (odd["reason"], odd["column"]) == ("wrong_type", "received_at")
