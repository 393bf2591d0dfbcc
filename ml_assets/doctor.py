"""`ml-assets doctor`: what can be checked before a run, one line each, from simple to complex.

A check looks and changes nothing, but for small files that it removes again. It never throws, and
never waits for long. How the lines are shown belongs in `ml_assets.cli_doctor`.
"""

import os
import platform
import re
import shutil
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import dagster as dg

from ml_assets.build import USE_CASES, build_definitions, resources
from ml_assets.changes import today
from ml_assets.environment import Environment, missing_in_words, missing_variables, with_driver
from ml_assets.masking import mask_url, without_login, without_secrets

State = Literal["pass", "warn", "fail", "skip"]

TIMEOUT_SECONDS = 60.0
_LOCK = Path(__file__).parents[1] / "requirements.lock"  # there in an editable install
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?:\s*;\s*([^\\]+?))?\s*\\?$", re.MULTILINE)
_LOW_SHARE, _LOW_BYTES, _NO_BYTES = 0.10, 5_000_000_000, 100_000_000
_CLOCK_SECONDS = 60.0
_HEARTBEAT_SECONDS = 30.0  # between two of each of a daemon's heartbeats
_STALE_SECONDS = 120.0
_MODULES = "dagster", "mlflow", "deltalake"  # their schemas and files differ between versions


@dataclass(frozen=True)
class Line:
    """What one check found.

    Attributes:
        check: What was looked at, such as `warehouse`.
        state: `pass`; `warn`, if runs will work but somebody should look; `fail`, if they will not;
            `skip`, if it rests on a check that failed, or has nothing to look at.
        told: What was found, without secrets.
        remedy: What to do; empty if nothing, or if `told` says so.
    """

    check: str
    state: State
    told: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """A check by its name, the checks that it rests on, and what it does."""

    name: str
    needs: tuple[str, ...]
    look: Callable[["Patient"], Iterable[Line]]


@dataclass(frozen=True)
class Patient:
    """What is looked at.

    Attributes:
        environment: Its configuration.
        now: The instant of the examination, with a time zone.
        watch_seconds: How long to watch the heartbeats of daemons; 0 for one look.
    """

    environment: Environment
    now: datetime
    watch_seconds: float = 0.0
    doors: dict[str, Any] = field(default_factory=dict, repr=False)


def examine(
    environment: Environment,
    now: datetime,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
    watch_seconds: float = 0.0,
    only: Sequence[str] = (),
    on_line: Callable[[Line], None] | None = None,
) -> list[Line]:
    """Run all checks.

    Args:
        environment: The environment to look at.
        now: The present instant.
        timeout_seconds: How long one check may take.
        watch_seconds: How long to watch the heartbeats of daemons: two of them on one instance
            are surely seen after 40 seconds. 0 for one look.
        only: The names of checks; those that they rest on run too. By default all.
        on_line: Called with each line as it is found.

    Returns:
        At least one line per check, in order.

    Raises:
        ValueError: `only` names a check that there is not.
    """
    chosen = _chosen(only)
    patient = Patient(environment, now, watch_seconds, _impatient_doors(environment))
    lines: list[Line] = []
    ailing: set[str] = set()
    for check in chosen:
        broken = [name for name in check.needs if name in ailing]
        if broken:
            found = [Line(check.name, "skip", f"not looked at, since {broken[0]} failed")]
            ailing.add(check.name)
        else:
            patience = timeout_seconds + (watch_seconds if check.name == "daemon" else 0)
            found = _within(check, patient, patience)
            if any(line.state == "fail" for line in found):
                ailing.add(check.name)
        for line in found:
            if on_line:
                on_line(line)
        lines += found
    return lines


def _chosen(names: Sequence[str]) -> list[Check]:
    if unknown := [name for name in names if name not in {check.name for check in CHECKS}]:
        raise ValueError(
            f"there is no check {unknown[0]!r}: choose from "
            f"{', '.join(check.name for check in CHECKS)}"
        )
    wanted = set(names)
    for check in reversed(CHECKS):  # a check rests on earlier ones
        if check.name in wanted:
            wanted |= set(check.needs)
    return [check for check in CHECKS if not names or check.name in wanted]


def is_well(lines: Iterable[Line]) -> bool:
    """Whether nothing failed."""
    return all(line.state != "fail" for line in lines)


def _impatient_doors(environment: Environment) -> dict[str, Any]:
    """The doors to the outside, without repeated tries."""
    warehouse = environment.warehouse.model_copy(update={"attempts": 1})
    lake = environment.lake.model_copy(update={"attempts": 1})
    return resources(environment.model_copy(update={"warehouse": warehouse, "lake": lake}))


def _within(check: Check, patient: Patient, seconds: float) -> list[Line]:
    """The lines of one check, which may hang, or throw."""
    found: list[Line] = []

    def look() -> None:
        try:
            for line in check.look(patient):
                found.append(line)
        except Exception as error:
            found.append(Line(check.name, "fail", _in_words(error)))

    # A thread that can be left behind: what hangs in a driver cannot be stopped.
    thread = threading.Thread(target=look, name=f"doctor {check.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    lines = list(found)
    if thread.is_alive():
        lines.append(
            Line(
                check.name,
                "fail",
                f"no answer within {seconds:g} seconds",
                "Check what it talks to, and what lies between; or give it longer: --timeout",
            )
        )
    return lines or [Line(check.name, "fail", "the check said nothing")]


def _in_words(error: Exception) -> str:
    ours = type(error).__module__.startswith("ml_assets") or type(error) is ValueError
    told = str(error) if ours else f"unexpected {type(error).__name__}: {error}"
    return without_secrets(" ".join(told.split()))  # drivers break lines


# The machine


def _variables(patient: Patient) -> Iterator[Line]:
    environment = patient.environment
    if missing := missing_variables(environment):
        yield Line("variables", "fail", missing_in_words(environment, missing))
        return
    needed = ", ".join(environment.requires) or "none is required"
    yield Line("variables", "pass", f"{environment.name}: {needed}")


def _versions(_: Patient) -> Iterator[Line]:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    found = platform.python_version()
    wanted = metadata.metadata("ml-assets")["Requires-Python"]
    if wanted and found not in SpecifierSet(wanted, prereleases=True):
        yield Line(
            "versions",
            "fail",
            f"Python {found}, and ml_assets needs {wanted}",
            "Use another Python: make setup PYTHON=python3.12",
        )
    wrong = [
        f"{each.name} {_installed(each.name) or 'is missing'} ({each.specifier} needed)"
        for each in map(Requirement, metadata.requires("ml-assets") or [])
        if not each.marker or each.marker.evaluate({"extra": ""})
        if not _fits(each)
    ]
    if wrong:
        yield Line("versions", "fail", f"packages that do not fit: {_some(wrong)}", _SETUP)
        return
    other = _unlike_the_lock()
    if other:
        yield Line(
            "versions", "warn", f"other versions than in requirements.lock: {_some(other)}", _SETUP
        )
        return
    known = ", ".join(f"{name} {_installed(name)}" for name in _MODULES)
    lock = "as in requirements.lock" if _LOCK.is_file() else "within what ml_assets allows"
    yield Line("versions", "pass", f"Python {found}, {known}; all packages {lock}")


_SETUP = "Install what is locked: make setup, or the image of this version"


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fits(requirement: Any) -> bool:
    version = _installed(requirement.name)
    return version is not None and requirement.specifier.contains(version, prereleases=True)


def _unlike_the_lock() -> list[str]:
    """Packages that are installed in another version than locked; those not installed count not."""
    from packaging.markers import Marker

    if not _LOCK.is_file():
        return []
    pins = _PIN.findall(_LOCK.read_text(encoding="utf-8"))
    return [
        f"{name} {installed} (locked {version})"
        for name, version, marker in pins
        if not marker or Marker(marker).evaluate()
        if (installed := _installed(name)) and installed != version
    ]


def _home(patient: Patient) -> Iterator[Line]:
    home = patient.environment.home
    if not home.exists():
        there = next(parent for parent in home.parents if parent.exists())
        if not os.access(there, os.W_OK):
            yield Line(
                "home",
                "fail",
                f"{home} does not exist, and this user may not make it in {there}",
                "Make the folder and give it to this user, or choose another: ML_ASSETS_HOME",
            )
            return
        yield Line("home", "pass", f"{home} does not exist yet; the first command makes it")
        return
    for folder in (home, patient.environment.dagster_home):
        if folder.exists() and (problem := _not_writable(folder)):
            yield Line(
                "home",
                "fail",
                f"{folder} cannot be written: {problem}",
                "Give this user the right to write there, make room, or choose another folder: "
                "ML_ASSETS_HOME",
            )
            return
    open_to_all = stat.S_IMODE(home.stat().st_mode) & stat.S_IWOTH
    if open_to_all and not home.stat().st_mode & stat.S_ISVTX:
        yield Line(
            "home",
            "warn",
            f"every user of this machine may write in {home}: tables, models, what runs next",
            f"chmod o-w {home}",
        )
        return
    yield Line("home", "pass", f"{home} can be written")


def _not_writable(folder: Path) -> str:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".probe-") as file:
            file.write(b"may this be written?")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _disk(patient: Patient) -> Iterator[Line]:
    seen: set[int] = set()
    for what, folder in _local_folders(patient.environment):
        there = next(each for each in (folder, *folder.parents) if each.exists())
        device = there.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        usage = shutil.disk_usage(there)
        told = (
            f"{usage.free / 1e9:,.1f} GB of {usage.total / 1e9:,.1f} GB are free for the {what} "
            f"({there})"
        )
        remedy = (
            "Make room, or move it to a larger disk; ml-assets run maintenance removes what no "
            "model needs"
        )
        if usage.free < _NO_BYTES:
            yield Line("disk", "fail", told, remedy)
        elif usage.free < _LOW_BYTES or usage.free < _LOW_SHARE * usage.total:
            yield Line("disk", "warn", told, remedy)
        else:
            yield Line("disk", "pass", told)


def _local_folders(environment: Environment) -> Iterator[tuple[str, Path]]:
    yield "home", environment.home
    if "://" not in environment.lake.url:
        yield "lake", Path(environment.lake.url)
    if environment.source == "landing" and "://" not in environment.landing.url:
        yield "landing folder", Path(environment.landing.url)
    yield "models' cache", Path(environment.registry.cache)


def _alerts(patient: Patient) -> Iterator[Line]:
    from ml_assets.resources.notifications import targets

    settings = patient.environment.alerts
    if not settings.enabled:
        yield Line("alerts", "warn", "alerts are off: nobody is told of trouble", _ALERTS)
        return
    good, bad = targets(settings.urls)
    for each in bad:
        yield Line("alerts", "fail", str(each), "Mend ML_ASSETS_ALERT_URLS (docs/alerts.md)")
    if bad:
        return
    if good:
        yield Line("alerts", "pass", f"{len(good)} targets can be read (none was written to)")
    else:
        state: State = "pass" if patient.environment.name == "dev" else "warn"
        remedy = "" if state == "pass" else _ALERTS
        yield Line("alerts", state, "alerts go to a file and the log only", remedy)
    if settings.heartbeat_url:
        yield Line("alerts", "pass", "a watcher elsewhere is asked after each tick")
    elif patient.environment.name == "dev" or not patient.environment.schedules.enabled:
        yield Line("alerts", "pass", f"{_UNWATCHED} (alerts.heartbeat_url)")
    else:
        yield Line("alerts", "warn", _UNWATCHED, _HEARTBEAT)


_ALERTS = "Set alerts.enabled, and targets by ML_ASSETS_ALERT_URLS (docs/alerts.md)"
_UNWATCHED = "no watcher elsewhere tells when the platform itself is down"
_HEARTBEAT = "Set ML_ASSETS_HEARTBEAT_URL (docs/alerts.md, When the platform itself is down)"


# What rows come from


def _warehouse(patient: Patient) -> Iterator[Line]:
    environment = patient.environment
    if environment.source != "warehouse":
        yield Line("warehouse", "skip", "rows come from the landing folder")
        return
    warehouse = patient.doors["warehouse"]
    place = mask_url(warehouse.url)
    ever = (datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))
    found = warehouse.read(
        "SELECT CAST(CURRENT_TIMESTAMP AS TIMESTAMP WITH TIME ZONE) AS now", ever
    )
    yield Line("warehouse", "pass", f"{place} answers")
    yield _clock("the warehouse", found["now"][0].as_py(), datetime.now(UTC))
    if not warehouse.url.startswith("postgresql://"):
        return
    rights = warehouse.read(_MAY_WRITE, ever).to_pylist()
    if rights:
        names = _some([row["name"] for row in rights])
        yield Line(
            "warehouse",
            "warn",
            f"this user may write in the warehouse ({names}); the platform only reads",
            "Give it a role that may only read: deploy/sql has one",
        )


_MAY_WRITE = """
SELECT n.nspname || '.' || c.relname AS name
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT LIKE 'pg\\_%'
  AND n.nspname <> 'information_schema'
  AND has_table_privilege(c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
ORDER BY 1 LIMIT 4
"""


def _clock(whose: str, there: datetime, here: datetime) -> Line:
    apart = abs((here - there).total_seconds())
    if apart > _CLOCK_SECONDS:
        return Line(
            "clock",
            "warn",
            f"this machine's clock and that of {whose} are {apart:,.0f} seconds apart",
            "Let both follow a time server (NTP): days, schedules and freshness rest on it",
        )
    return Line("clock", "pass", f"this machine's clock and that of {whose} agree")


def _landing(patient: Patient) -> Iterator[Line]:
    import fsspec

    environment = patient.environment
    if environment.source != "landing":
        yield Line("landing", "skip", "rows come from the warehouse")
        return
    url = environment.landing.url
    if "://" in url:
        system, path = fsspec.core.url_to_fs(url, **environment.landing.storage_options)
        system.ls(path)
        yield _rejected(patient) or Line(
            "landing", "pass", f"{mask_url(url)} can be listed; writing was not tried there"
        )
        return
    folder = Path(url)
    remedy = "Make the folder, and let this user read and write there: files are moved once taken"
    if not folder.is_dir():
        yield Line("landing", "fail", f"there is no folder {folder}", remedy)
        return
    next(folder.iterdir(), None)
    if problem := _not_writable(folder):
        yield Line("landing", "fail", f"{folder} cannot be written: {problem}", remedy)
        return
    yield _rejected(patient) or Line("landing", "pass", f"{folder} can be read and written")


def _rejected(patient: Patient) -> Line | None:
    from ml_assets.resources.lake import LakeError
    from ml_assets.sources import REJECTIONS_DAYS, rejections

    try:
        found = [
            file
            for use_case in USE_CASES
            for file in rejections(patient.doors["source"], use_case, patient.now)
        ]
    except LakeError:  # the check of the lake tells
        return None
    if not found:
        return None
    return Line(
        "landing",
        "warn",
        f"files rejected in the last {REJECTIONS_DAYS} days: {len(found)}, newest {found[0].path}",
        "See `ml-assets landing list`; let the sender mend them and deliver them again",
    )


def _contract(patient: Patient) -> Iterator[Line]:
    from ml_assets.core.evolution import compare, remedy
    from ml_assets.sources import sample

    for use_case in USE_CASES:
        try:
            day, rows = sample(
                patient.doors["source"],
                use_case,
                None,
                today=today(patient.environment, patient.now),
            )
        except ValueError as error:
            if type(error) is not ValueError:
                raise
            yield Line("contract", "warn", str(error), "See that the source is being fed")
            continue
        differences = compare(rows, use_case.raw.to_schema())
        if todo := remedy(differences):
            broken = _some([each.column for each in differences if each.fails])
            yield Line(
                "contract",
                "fail",
                f"{use_case.name}: a day like {day} cannot be read, for {broken}. {todo}",
                "ml-assets contract diff shows every column",
            )
            continue
        yield Line(
            "contract",
            "pass",
            f"{use_case.name}: the {len(rows.column_names)} columns of {day} answer the contract",
        )


# Tables and models


def _lake(patient: Patient) -> Iterator[Line]:
    lake, environment = patient.doors["lake"], patient.environment
    place = mask_url(lake.url)
    if "://" not in lake.url and not Path(lake.url).exists():
        yield Line("lake", "pass", f"{place} does not exist yet; the first run makes it")
        return
    owner = lake.owner()
    if owner and owner not in environment.owners("lake"):
        yield Line(
            "lake",
            "fail",
            f"{place} belongs to {owner}, and {environment.name} must not write there",
            f"Name another by ML_ASSETS_LAKE_URL, or say: shares: [{owner}.lake]",
        )
        return
    lake.try_writing()
    names = lake.tables()
    newest: datetime | None = None
    for name in names:
        commits = lake.log(name, limit=1)
        newest = max(filter(None, [newest, *(commit.at for commit in commits)]), default=None)
    yield Line("lake", "pass", f"{place} can be written, and its {len(names)} tables be opened")
    if newest and (newest - datetime.now(UTC)).total_seconds() > _CLOCK_SECONDS:
        yield Line(
            "clock",
            "warn",
            f"the newest table was written at {newest:%Y-%m-%d %H:%M} UTC, which is yet to come",
            "Set the clock of this machine, or of the one that wrote it (NTP)",
        )


def _registry(patient: Patient) -> Iterator[Line]:
    from sqlalchemy.exc import SQLAlchemyError

    registry, environment = patient.doors["registry"], patient.environment
    place = mask_url(registry.url)
    if registry.is_server:
        found = list(_mlflow_server(registry.url))
        yield from found
        if any(line.state == "fail" for line in found):
            return
    else:
        file = Path(registry.url.removeprefix("sqlite:///"))
        if registry.url.startswith("sqlite:///") and not file.exists():
            yield Line("registry", "pass", f"{place} does not exist yet; the first model makes it")
            return
        try:
            there, needed = _mlflow_schema(registry.url)
        except SQLAlchemyError as error:
            yield Line(
                "registry",
                "fail",
                f"{place} cannot be reached: {_first_line(error)}",
                "Check the server, and user, password and database in ML_ASSETS_REGISTRY_URL",
            )
            return
        if there is not None and there != needed:
            yield Line(
                "registry",
                "fail",
                f"{place} has MLflow's schema {there}, and the installed MLflow needs {needed}",
                f"Back it up, then: {_migrate(environment)}",
            )
            return
    for use_case in USE_CASES:
        owner = registry.owner(use_case.name)
        if owner and owner not in environment.owners("registry"):
            yield Line(
                "registry",
                "fail",
                f"the models {use_case.name} in {place} belong to {owner}, and {environment.name} "
                "must not change them",
                f"Name another by ML_ASSETS_REGISTRY_URL, or say: shares: [{owner}.registry]",
            )
            return
        versions = registry.versions(use_case.name)
        yield Line(
            "registry", "pass", f"{place} answers: {len(versions)} versions of {use_case.name}"
        )


def _mlflow_server(url: str) -> Iterator[Line]:
    import urllib.request

    # MLflow itself tries for half a minute.
    try:
        with socket.create_connection(_host_and_port(url), timeout=10):
            pass
    except OSError as error:
        yield Line(
            "registry",
            "fail",
            f"the MLflow server {mask_url(url)} cannot be reached: {error.strerror or error}",
            "Check the server, and ML_ASSETS_REGISTRY_URL",
        )
        return
    request = urllib.request.Request(f"{without_login(url).rstrip('/')}/version")  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            there = answer.read(100).decode().strip()
    except OSError:
        return  # behind a login, or a path of its own: what follows says whether it can be used
    here = _installed("mlflow") or ""
    if there.split(".")[:2] != here.split(".")[:2]:
        yield Line(
            "registry",
            "warn",
            f"the MLflow server is {there}, and this process has {here}",
            "Run the same minor version on both sides",
        )


def _host_and_port(url: str) -> tuple[str, int]:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _mlflow_schema(url: str) -> tuple[str | None, str | None]:
    """The revision of the database's schema, and the one that the installed MLflow needs."""
    import sqlalchemy
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    scripts = metadata.distribution("mlflow").locate_file("mlflow/store/db_migrations")
    engine = sqlalchemy.create_engine(with_driver(url))
    try:
        with engine.connect() as connection:
            there = MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()
    return there, ScriptDirectory(str(scripts)).get_current_head()


def _migrate(environment: Environment) -> str:
    return f"ml-assets migrate --env {environment.name}"


def _champion(patient: Patient) -> Iterator[Line]:
    from ml_assets.champions import history

    lake, registry = patient.doors["lake"], patient.doors["registry"]
    for use_case in USE_CASES:
        reigns = history(lake, use_case)
        if not reigns:
            yield Line(
                "champion",
                "warn",
                f"{use_case.name}: no model serves yet, so nothing can be scored",
                "ml-assets run training --day D, for a day with enough matured outcomes",
            )
            continue
        reign = reigns[-1]
        with tempfile.TemporaryDirectory(prefix="ml_assets_doctor_") as folder:
            # Not from the cache: what counts is whether it could be fetched again.
            replace(registry, cache=folder).load(use_case.name, reign.version, reign.sha256)
        yield Line(
            "champion",
            "pass",
            f"{use_case.name} version {reign.version} loads, and is what its hash "
            f"{reign.sha256[:12]} says",
        )


# Dagster


def _storage(patient: Patient) -> Iterator[Line]:
    from ml_assets.home import STORAGE_VARIABLE, require_same_storage
    from ml_assets.storage import look

    environment = patient.environment
    settings = environment.dagster_home / "dagster.yaml"
    if settings.exists():
        require_same_storage(environment)
    if url := environment.storage.url:
        found = look(url)
        if found.owner and found.owner not in environment.owners("storage"):
            yield Line(
                "storage",
                "fail",
                f"{mask_url(url)} belongs to {found.owner}, and {environment.name} must not use it",
                f"Name another by {STORAGE_VARIABLE}, or say: shares: [{found.owner}.storage]",
            )
            return
        yield _clock("Dagster's storage", found.now, datetime.now(UTC))
        if not found.has_runs:
            yield Line("storage", "pass", f"{mask_url(url)} is empty; the first start fills it")
            return
    if not settings.exists():
        yield Line("storage", "pass", f"there is no {settings} yet; the first command makes it")
        return
    with _instance(environment) as instance:
        stores = {
            "runs": instance.run_storage,
            "events": instance.event_log_storage,
            "schedules": instance.schedule_storage,
        }
        revisions = {name: store and store.alembic_version() for name, store in stores.items()}
        pending = [
            f"{name} has {revision[0]}, and needs {revision[1]}"
            for name, revision in revisions.items()
            if revision and revision[0] is not None and revision[0] != revision[1]
        ]
        if pending:
            yield Line(
                "storage",
                "fail",
                f"Dagster's storage waits for a migration: {'; '.join(pending)}",
                f"Stop the daemon, back up, then: {_migrate(environment)}",
            )
            return
        runs = instance.get_runs_count()
    place = mask_url(url) if url else f"SQLite in {environment.dagster_home}"
    yield Line("storage", "pass", f"{place} answers: {runs:,} runs, schema up to date")


@contextmanager
def _instance(environment: Environment) -> Iterator[dg.DagsterInstance]:
    from ml_assets.home import announce_storage

    announce_storage(environment)
    with dg.DagsterInstance.from_config(str(environment.dagster_home)) as instance:
        yield instance


def _daemon(patient: Patient) -> Iterator[Line]:
    from ml_assets.home import served_here
    from ml_assets.storage import look

    environment = patient.environment
    if not _has_instance(environment):
        yield Line("daemon", "skip", "Dagster has no records yet")
        return
    with _instance(environment) as instance:
        ids, errors = _heartbeats(instance)
        end = time.monotonic() + patient.watch_seconds
        while ids and len(ids) == 1 and time.monotonic() < end:
            time.sleep(1)
            more, errors = _heartbeats(instance)
            ids |= more
    if not ids:
        yield Line(
            "daemon",
            "warn",
            "no daemon's heart beats: queued runs do not start, and no schedule or sensor of "
            f"{environment.name} ticks, nor are alerts told",
            "ml-assets ui, or ml-assets daemon",
        )
        return
    if len(ids) > 1:
        yield Line(
            "daemon",
            "fail",
            f"{len(ids)} daemons serve this instance: both start the runs of each schedule (or one "
            "was just restarted: look again in two minutes)",
            "Stop all but one, and start it by ml-assets daemon, which refuses a second",
        )
        return
    if errors:
        yield Line("daemon", "warn", f"the daemon reports: {errors[0]}", "Look into its log")
        return
    url = environment.storage.url
    guarded = look(url).holder is not None if url else served_here(environment)
    if not guarded:
        yield Line(
            "daemon",
            "warn",
            "a daemon's heart beats, but nothing keeps a second one away",
            "Start it by ml-assets daemon instead of dagster-daemon run; doctor --watch 40 tells "
            "whether there are two",
        )
        return
    yield Line("daemon", "pass", "one daemon's heart beats, and a second would be refused")


def _has_instance(environment: Environment) -> bool:
    from ml_assets.storage import look

    if not (environment.dagster_home / "dagster.yaml").exists():
        return False
    return not environment.storage.url or look(environment.storage.url).has_runs


def _heartbeats(instance: dg.DagsterInstance) -> tuple[set[str], list[str]]:
    """The ids of daemons whose hearts beat, and the errors that they report."""
    now = time.time()
    beats = [
        beat
        for beat in instance.get_daemon_heartbeats().values()
        if now - beat.timestamp < _STALE_SECONDS
    ]
    newest = max((beat.timestamp for beat in beats), default=0.0)
    # All of a daemon's parts beat within one interval; older ones are of a daemon before it.
    fresh = [beat for beat in beats if newest - beat.timestamp < 1.5 * _HEARTBEAT_SECONDS]
    errors = [
        error.message.strip().splitlines()[0] for beat in fresh for error in beat.errors or ()
    ]
    return {str(beat.daemon_id) for beat in fresh}, errors


def _schedules(patient: Patient) -> Iterator[Line]:
    environment = patient.environment
    repository = build_definitions(environment).get_repository_def()
    wanted: list[Any] = [*repository.schedule_defs, *repository.sensor_defs]
    switches = f"{len(repository.schedule_defs)} schedules, {len(repository.sensor_defs)} sensors"
    if not _has_instance(environment):
        yield Line("schedules", "pass", f"{switches}; Dagster has no records yet")
        return
    with _instance(environment) as instance:
        states = {
            state.instigator_name: state.status.value for state in instance.all_instigator_state()
        }
    running = (dg.DefaultScheduleStatus.RUNNING, dg.DefaultSensorStatus.RUNNING)
    differing = []
    for each in wanted:
        should = each.default_status in running
        state = states.get(each.name)
        if state == "STOPPED" and should:
            differing.append(f"{each.name} was switched off in the UI")
        elif state == "RUNNING" and not should:
            differing.append(f"{each.name} was switched on in the UI")
    if differing:
        yield Line(
            "schedules",
            "warn",
            f"not as {environment.name} wants it: {_some(differing)}",
            "In the UI, under Automation: set it back to its default",
        )
        return
    yield Line("schedules", "pass", f"{switches}, all as {environment.name} wants them")


def _first_line(error: Exception) -> str:
    return without_secrets(str(error).strip().splitlines()[0])


def _some(items: Sequence[str], most: int = 5) -> str:
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(items[:most]) + more


CHECKS = (
    Check("variables", (), _variables),
    Check("versions", (), _versions),
    Check("home", (), _home),
    Check("disk", (), _disk),
    Check("alerts", (), _alerts),
    Check("warehouse", ("variables",), _warehouse),
    Check("landing", (), _landing),
    Check("lake", ("home",), _lake),
    Check("contract", ("warehouse", "landing"), _contract),
    Check("registry", ("variables", "home"), _registry),
    Check("champion", ("lake", "registry"), _champion),
    Check("storage", ("variables", "home"), _storage),
    Check("daemon", ("storage",), _daemon),
    Check("schedules", ("storage",), _schedules),
)
