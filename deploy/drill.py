"""The drill: what goes wrong on an ordinary Tuesday, done on purpose, and timed.

`make drill` (or `python -m deploy.drill`) starts the services of `compose.yaml` as `deploy.stack`
does, with a receiver of alerts on loopback, and lets four troubles come over them one after the
other: the warehouse goes away over night, a delivery is bad, an input drifts, and a poor model is
promoted by hand. After each it waits for the alert, mends the cause as docs/runbook.md says, and
waits until users have what they need. It prints a table of seconds, and ends with exit code 1 if an
alert does not come or the platform does not recover.

A night is as long here as it takes until the alert comes; the jobs of the morning are asked for by
hand, since nobody waits for 06:15.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from deploy.stack import (
    SQL,
    Lost,
    Records,
    Running,
    Told,
    arrive,
    cli,
    run_script,
    settled,
    stack,
    wait_for,
    wait_settled,
)
from ml_assets.build import resources
from ml_assets.champions import champion
from ml_assets.changes import now, today
from ml_assets.core.scoring import standing
from ml_assets.environment import Environment
from ml_assets.use_cases.claims.delivery import TABLE
from ml_assets.use_cases.claims.use_case import CLAIMS
from ml_assets_tests.faults.proxy import Proxy, proxy_to
from ml_assets_tests.postgres import run_sql, unused_port
from ml_assets_tests.receivers import http_receiver

HISTORY_DAYS = 64  # outcomes take 45 to mature, and two trainings look at 11 of them
_READER = "reader_of_the_stack"


@dataclass(frozen=True)
class Drilled:
    """One trouble: seconds from its beginning to the alert, and from the mending to being well."""

    fault: str
    alert: str
    to_alert: float
    mended_by: str
    to_well: float


@dataclass(frozen=True)
class Drill:
    """The services, what they send, and what can be done to them."""

    running: Running
    environment: Environment
    records: Records
    alerts: list[dict[str, Any]]
    told: Told

    def sql(self, statement: str) -> None:
        """Let the warehouse's owner change rows."""
        run_sql(self.running.postgres.url("insurance"), statement)

    def meet(
        self,
        fault: str,
        title: str,
        mended_by: str,
        strike: Callable[[], Any],
        mend: Callable[[], Any],
        well: Callable[[], bool],
    ) -> Drilled:
        """Let a trouble come, wait for the alert whose title has these words, mend it, and wait."""
        before = len(self.alerts)
        began = time.monotonic()
        strike()

        def alert() -> str | None:
            titles = [each["title"] for each in self.alerts[before:]]
            return next((each for each in titles if title in each), None)

        told = wait_for(alert, f"alert about {fault} among {self.alerts[before:]}")
        to_alert = time.monotonic() - began
        self.told(f"{fault}: alert after {to_alert:.0f} s: {told}")
        began = time.monotonic()
        mend()
        wait_for(well, f"recovery from {fault}")
        to_well = time.monotonic() - began
        self.told(f"{fault}: well {to_well:.0f} s after it was mended ({mended_by})")
        return Drilled(fault, told, to_alert, mended_by, to_well)


def drill(told: Told) -> list[Drilled]:
    """Let every trouble come and go.

    Raises:
        Lost: No alert comes, or the platform does not recover.
    """
    port = unused_port()
    with stack(told) as (running, environment), http_receiver(port) as alerts:
        yesterday = today(environment, now()) - timedelta(days=1)
        last = yesterday - timedelta(days=2)
        first = last - timedelta(days=HISTORY_DAYS - 1)
        with proxy_to(running.postgres.port) as proxy:
            _let_it_call(running, proxy, port)
            _serve(running, environment, first, last, told)
            records = Records(environment, running.declared["code"].environ)
            it = Drill(running, environment, records, alerts, told)
            return [
                _warehouse_down(it, proxy, yesterday - timedelta(days=1)),
                _bad_delivery(it, yesterday),
                _drift(it, yesterday),
                _bad_model(it, yesterday),
            ]


def _let_it_call(running: Running, proxy: Proxy, port: int) -> None:
    """The warehouse is reached by the proxy, and alerts go to the receiver."""
    for service in running.declared.values():
        environ: Any = service.environ
        if url := environ.get("ML_ASSETS_WAREHOUSE_URL"):
            direct = f":{running.postgres.port}/insurance"
            environ["ML_ASSETS_WAREHOUSE_URL"] = url.replace(direct, f":{proxy.port}/insurance")
            environ["ML_ASSETS_ALERT_URLS"] = f"json://127.0.0.1:{port}"


def _serve(running: Running, environment: Environment, first: date, last: date, told: Told) -> None:
    """A platform that has two models, and whose services run."""
    running.start("mlflow")
    arrive(running, environment, first, last)
    run_script(
        running.postgres,
        "insurance",
        SQL / "warehouse_reader.sql",
        ML_ASSETS_READER_PASSWORD=_READER,
    )
    running.wait_healthy("mlflow")
    earlier = last - timedelta(days=3)
    cli(running, "run", "ingestion", "--day", first.isoformat(), "--to", last.isoformat())
    cli(running, "run", "training", "--day", earlier.isoformat())
    cli(running, "run", "training", "--day", last.isoformat())
    cli(running, "run", "scoring", "--day", earlier.isoformat(), "--to", last.isoformat())
    cli(running, "run", "monitoring", "--day", earlier.isoformat(), "--to", last.isoformat())
    running.start("code")
    running.wait_healthy("code")
    running.start("daemon", "webserver", "reports")
    running.wait_healthy("webserver", "daemon", "reports")
    told(f"{HISTORY_DAYS} days are read, two models trained, and all services are healthy")


def _scored(it: Drill, day: date) -> int:
    """Predictions of a day that stand."""
    lake = resources(it.environment)["lake"]
    if day.isoformat() not in lake.rows_per_day(f"{CLAIMS.name}/predictions"):
        return 0
    return len(standing(lake.read(f"{CLAIMS.name}/predictions", str(day), str(day))))


def _warehouse_down(it: Drill, proxy: Proxy, day: date) -> Drilled:
    def strike() -> None:
        proxy.fail("cut", after_bytes=0, times=10**9)
        arrive(it.running, it.environment, day, day)

    return it.meet(
        "the warehouse is down over night",
        "claims_new_data",
        "the warehouse comes back",
        strike,
        lambda: proxy.fail("cut", after_bytes=0, times=0),
        lambda: _scored(it, day) > 0 and settled(it.records, it.environment),
    )


def _bad_delivery(it: Drill, day: date) -> Drilled:
    bad = f"{_of_days(it, day)} AND mod(abs(hashtext(application_id)), 5) = 0"

    def strike() -> None:
        arrive(it.running, it.environment, day, day)
        it.sql(f"CREATE TABLE claims.kept AS SELECT application_id, age FROM {TABLE} WHERE {bad}")
        it.sql(f"UPDATE {TABLE} SET age = -1, {_TOUCHED} WHERE {bad}")

    return it.meet(
        "a fifth of a delivery is bad",
        "bad_share_within_limit",
        "the source corrects the rows",
        strike,
        lambda: it.sql(
            f"UPDATE {TABLE} AS t SET age = k.age, {_TOUCHED} FROM claims.kept AS k "
            "WHERE t.application_id = k.application_id AND t.age = -1"
        ),
        lambda: settled(it.records, it.environment) and _aside(it, day) < 0.05 and _scored(it, day),
    )


def _drift(it: Drill, day: date) -> Drilled:
    days = [day - timedelta(days=back) for back in (2, 1, 0)]
    there = _of_days(it, *days)

    def look() -> None:
        wait_settled(it.records, it.environment, "end of the runs")
        cli(it.running, "run", "monitoring", "--day", str(days[0]), "--to", str(days[-1]))

    def strike() -> None:
        it.sql(f"UPDATE {TABLE} SET income = income / 12, {_TOUCHED} WHERE {there}")
        time.sleep(_A_TICK_S)
        look()

    def mend() -> None:
        it.sql(f"UPDATE {TABLE} SET income = income * 12, {_TOUCHED} WHERE {there}")
        time.sleep(_A_TICK_S)
        look()

    return it.meet(
        "incomes come by the month instead of the year",
        "inputs_stable",
        "the source corrects the rows",
        strike,
        mend,
        lambda: any("inputs_stable" in each["title"] and "well" in each["title"]
                    for each in it.alerts),
    )  # fmt: skip


def _bad_model(it: Drill, day: date) -> Drilled:
    good = champion(resources(it.environment)["lake"], CLAIMS).version
    poor = next(version for version in (1, 2) if version != good)

    def scored_by(version: int) -> bool:
        lake = resources(it.environment)["lake"]
        said = standing(lake.read(f"{CLAIMS.name}/predictions", str(day), str(day)))
        return set(said["model_version"]) == {version}

    def strike() -> None:
        cli(it.running, "promote", str(poor), "--because", "drill: somebody mistook the version")

    def mend() -> None:
        cli(it.running, "run", "scoring", "--day", str(day))
        if not scored_by(poor):
            raise Lost(f"the predictions of {day} are not version {poor}'s")
        cli(it.running, "rollback", "--because", "drill: it was the wrong version")
        cli(it.running, "run", "scoring", "--day", str(day))

    return it.meet(
        "a poor model is promoted by hand",
        f"version {poor} serves",
        "ml-assets rollback, then ml-assets run scoring",
        strike,
        mend,
        lambda: scored_by(good),
    )


# The source says that it changed a row, as our query relies on.
_TOUCHED = "updated_at = updated_at + interval '1 second'"
_A_TICK_S = 35  # of the new-data sensor


def _of_days(it: Drill, *days: date) -> str:
    listed = ", ".join(f"'{each}'" for each in days)
    return f"(received_at AT TIME ZONE '{it.environment.time_zone}')::date IN ({listed})"


def _aside(it: Drill, day: date) -> float:
    """Share of a day's rows in quarantine."""
    account = resources(it.environment)["lake"].read(
        f"{CLAIMS.name}/extraction", str(day), str(day)
    )
    return float((account["rows_quarantined"] / account["rows_read"]).max())


def table(found: Sequence[Drilled]) -> str:
    """The times, in Markdown."""
    lines = [
        "| Trouble | Alert | Seconds to the alert | Mended by | Seconds until well |",
        "| --- | --- | ---: | --- | ---: |",
    ]
    lines += [
        f"| {each.fault} | {each.alert} | {each.to_alert:.0f} | {each.mended_by} | "
        f"{each.to_well:.0f} |"
        for each in found
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of `make drill`; gives the exit code."""
    argparse.ArgumentParser(
        prog="make drill", description=(__doc__ or "").split("\n\n")[0]
    ).parse_args(arguments)
    told = Told()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        found = drill(told)
    except Lost as error:
        told.end(f"LOST: {error}")
        return 1
    told.end("every trouble was told and mended\n\n" + table(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
