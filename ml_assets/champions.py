"""Who serves, since when, and by which rule or whose hand: the history, and changes to it.

The history is a table to which rows are only ever added; the last one tells who serves. The gate's
own decision is in `ml_assets.core.gate`, and its asset in `ml_assets.assets.champion`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import pairwise

import dagster as dg
import pandas as pd
from filelock import FileLock, Timeout

from ml_assets.core.tables import ChampionHistory
from ml_assets.environment import Environment
from ml_assets.home import HomeError
from ml_assets.resources.lake import Lake
from ml_assets.resources.registry import Registry, RegistryError
from ml_assets.use_case import UseCase

GATE = "gate"
_PATIENCE_SECONDS = 120


class NoChampion(RuntimeError):
    """No model serves, or none could take its place."""


class Undecided(RuntimeError):
    """Somebody else is deciding just now."""


@dataclass(frozen=True)
class Reign:
    """One row of the history.

    Attributes:
        day: For the gate, the day it decided about; for a hand, the local day of the deed.
        at: Since when the version serves.
        version: Version in the registry.
        sha256: SHA-256 of its bundle.
        event: first, promoted, kept, promoted_by_hand or rolled_back.
        rule: The gate's rule, or `hand`.
        by: `gate`, or the user.
        reason: Why, in words.
    """

    day: str
    at: datetime
    version: int
    sha256: str
    event: str
    rule: str
    by: str
    reason: str


@dataclass(frozen=True)
class Hand:
    """A person who decides, why, and when.

    Attributes:
        by: The user's name.
        because: The reason, in the person's words.
        at: Now.
    """

    by: str
    because: str
    at: datetime


def history(lake: Lake, use_case: UseCase) -> list[Reign]:
    """Everyone who ever served, oldest first."""
    table = f"{use_case.name}/champion_history"
    days = lake.rows_per_day(table)
    if not days:
        return []
    rows = lake.read(table, min(days), max(days)).sort_values("at", kind="stable")
    return [Reign(**row) for row in rows.to_dict("records")]


def champion(lake: Lake, use_case: UseCase) -> Reign:
    """Who serves now.

    Raises:
        NoChampion: Nobody has been chosen yet.
    """
    reigns = history(lake, use_case)
    if not reigns:
        raise NoChampion(
            f"no model serves yet: {use_case.name}/champion was never decided. Materialise "
            f"{use_case.name}/training_set, {use_case.name}/model and {use_case.name}/champion for "
            f"a day with enough matured rows (job {use_case.name}_training), then score again."
        )
    return reigns[-1]


def barred(reigns: list[Reign]) -> dict[int, Reign]:
    """Versions that were rolled back, each with the row that did it; only a hand brings them back.

    Otherwise the gate, deciding a day anew, would promote again what a person took out of service.
    """
    found: dict[int, Reign] = {}
    for before, after in pairwise(reigns):
        if after.event == "rolled_back":
            found[before.version] = after
        found.pop(after.version, None)
    return found


def in_words(reigns: list[Reign], place: int) -> str:
    """Why the version of a row serves from then on."""
    reign = reigns[place]
    if reign.event == "rolled_back":
        return (
            f"serves again, since version {reigns[place - 1].version} was withdrawn: {reign.reason}"
        )
    return reign.reason


def record(lake: Lake, use_case: UseCase, reign: Reign) -> Reign:
    """Add a row to the history: from now on, this version serves.

    Returns:
        The row as it was added. It never goes before the last one, though a clock was set back, or
        the deed had to wait for another.
    """
    if reigns := history(lake, use_case):
        reign = replace(reign, at=max(reign.at, reigns[-1].at + timedelta(microseconds=1)))
    frame = pd.DataFrame([asdict(reign)])
    frame["at"] = pd.to_datetime(frame["at"], utc=True).astype("datetime64[us, UTC]")
    lake.append(
        f"{use_case.name}/champion_history",
        ChampionHistory.validate(frame),
        note={"cause": "gate" if reign.by == "gate" else "hand"},
    )
    return reign


@contextmanager
def deciding(environment: Environment, use_case: UseCase) -> Iterator[None]:
    """One decision at a time, be it the gate's or a person's, on this machine.

    Raises:
        HomeError: The project's folder cannot be written.
        Undecided: Another decision takes more than two minutes.
    """
    file = environment.home / f"{use_case.name}_champion.lock"
    lock = FileLock(file, timeout=_PATIENCE_SECONDS)
    try:
        environment.home.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise Undecided(
            f"another decision about the champion of {use_case.name} has been under way for "
            f"{_PATIENCE_SECONDS} s (it holds {file}). Try again when it is done."
        ) from None
    except OSError as error:
        raise HomeError(
            f"the folder {environment.home} cannot be used: {error}. Choose another with --home or "
            "ML_ASSETS_HOME, or give this user the right to write there."
        ) from error
    try:
        yield
    finally:
        lock.release()


def promote(
    environment: Environment,
    use_case: UseCase,
    lake: Lake,
    registry: Registry,
    version: int,
    hand: Hand,
) -> Reign:
    """Let a version serve from now on, by hand.

    Raises:
        NoChampion: The version serves already.
        RegistryError: The registry does not have the version, or its files are not sound.
    """
    with deciding(environment, use_case):
        reigns = history(lake, use_case)
        if reigns and reigns[-1].version == version:
            _follow(use_case, registry, version)
            raise NoChampion(
                f"{use_case.name} version {version} serves already, since {reigns[-1].at:%F %H:%M} "
                "UTC. Nothing was changed."
            )
        sha256 = registry.version(use_case.name, version).sha256
        day = hand.at.astimezone(environment.zone).date().isoformat()
        reign = Reign(
            day, hand.at, version, sha256, "promoted_by_hand", "hand", hand.by, hand.because
        )
        return _enthrone(use_case, lake, registry, reign)


def rollback(
    environment: Environment,
    use_case: UseCase,
    lake: Lake,
    registry: Registry,
    hand: Hand,
) -> Reign:
    """Give the service back to the version that served before.

    Versions that were rolled back themselves are passed over. The gate does not promote the version
    that is taken out of service again, and none at all for `gate.hold_after_rollback_days`.

    Raises:
        NoChampion: Nobody served before.
        RegistryError: The registry does not have that version, or its files are not sound.
    """
    with deciding(environment, use_case):
        serving, earlier = champion(lake, use_case), earlier_champions(lake, use_case)
        if not earlier:
            raise NoChampion(
                f"{use_case.name} version {serving.version} is the only one that ever served and "
                "was not rolled back: there is none to go back to. Choose a version by hand: "
                "ml-assets models, then ml-assets promote VERSION --because TEXT."
            )
        day = hand.at.astimezone(environment.zone).date().isoformat()
        reign = replace(
            earlier[0],
            day=day,
            at=hand.at,
            event="rolled_back",
            rule="hand",
            by=hand.by,
            reason=hand.because,
        )
        return _enthrone(use_case, lake, registry, reign)


def earlier_champions(lake: Lake, use_case: UseCase) -> list[Reign]:
    """Those who served before the one that serves now, newest first, each once, without barred."""
    reigns = history(lake, use_case)
    passed_over = {*barred(reigns), *(reign.version for reign in reigns[-1:])}
    found: dict[int, Reign] = {}
    for reign in reversed(reigns):
        if reign.version not in passed_over:
            found.setdefault(reign.version, reign)
    return list(found.values())


def _enthrone(use_case: UseCase, lake: Lake, registry: Registry, reign: Reign) -> Reign:
    # Loaded first: nobody shall serve whose files are gone or altered.
    registry.load(use_case.name, reign.version, reign.sha256)
    reign = record(lake, use_case, reign)
    _follow(use_case, registry, reign.version)
    return reign


def _follow(use_case: UseCase, registry: Registry, version: int) -> None:
    """Let the registry's alias follow the history.

    A failure is told, not raised: the deed is done and on record, and a person who took it for
    failed would do it twice. The gate's next decision sets the alias again.
    """
    try:
        registry.set_alias(use_case.name, "champion", version)
    except RegistryError as error:
        dg.get_dagster_logger().warning(
            f"version {version} serves, but the registry's alias could not follow: {error}"
        )


def remedy(lake: Lake, use_case: UseCase, registry: Registry) -> str:
    """What to do when the champion cannot be loaded: the newest earlier champion that can."""
    for reign in earlier_champions(lake, use_case):
        try:
            registry.load(use_case.name, reign.version, reign.sha256)
        except RegistryError:
            continue
        return (
            f"The last champion that loads is version {reign.version}: ml-assets promote "
            f"{reign.version} --because TEXT."
        )
    return (
        f"No earlier champion loads either: restore the registry's files from a backup, or run the "
        f"job {use_case.name}_training for a later day."
    )
