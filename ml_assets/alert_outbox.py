"""The outbox of alerts: a small file, so that none is lost while a target is down.

An alert is first written down with all who shall get it, then sent, then crossed out. A process
that is killed in between sends its last message a second time: each gets out at least once. The
file of alerts is served in the same way, as one more target.

What is told at all is decided in `ml_assets.alerts`; how it is sent, in `resources/notifications`.
"""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from ml_assets.alerts import HOUR, LEVELS, Alert, Event, Memory, Rules, message, plan, rationed
from ml_assets.environment import Environment
from ml_assets.resources.notifications import TIMEOUT_SECONDS, Message, Target, send

FILE = "file"  # the key of the file of alerts, among the keys of targets
TICK_BUDGET_SECONDS = 20.0

_FIRST_PAUSE = timedelta(seconds=30)
_LONGEST_PAUSE = timedelta(minutes=15)
_PATIENCE_SECONDS = 5.0

_log = logging.getLogger("ml_assets.alerts")

Sender = Callable[[Target, Message, float], str | None]


class OutboxError(OSError):
    """The outbox cannot be read or written."""


class Waiting(BaseModel):
    """An alert and the keys of those who have not got it yet."""

    alert: Alert
    targets: tuple[str, ...]
    since: datetime


class Trouble(BaseModel):
    """A target that did not take the last message."""

    failures: int
    again_at: datetime
    reason: str


class Outbox(BaseModel):
    """What is remembered between ticks.

    Attributes:
        memory: What has been told.
        waiting: Alerts that somebody has not got yet, oldest first.
        down: Targets that failed, by key.
        known: The names of targets by key: those of the last tick, and those that are no longer
            configured as long as something waits for them.
        sent: When each target got messages, of the last hour.
    """

    memory: Memory = Memory()
    waiting: tuple[Waiting, ...] = ()
    down: dict[str, Trouble] = {}
    known: dict[str, str] = {}
    sent: dict[str, tuple[datetime, ...]] = {}


def folder(environment: Environment) -> Path:
    """Where the outbox and the file of alerts lie."""
    return environment.home / "alerts"


def file_of_alerts(environment: Environment) -> Path:
    """One line of JSON per alert, oldest first."""
    return folder(environment) / "alerts.jsonl"


def rules(environment: Environment) -> Rules:
    """The environment's settings as `plan` takes them."""
    settings = environment.alerts
    return Rules(
        repeat_after=timedelta(hours=settings.repeat_after_hours),
        max_per_hour=settings.max_per_hour,
        least_level=settings.least_level,
        environment=environment.name,
        ui_url=settings.ui_url,
    )


def tell(
    environment: Environment,
    events: Sequence[Event],
    targets: Sequence[Target],
    now: datetime,
    *,
    sender: Sender = send,
    budget_s: float = TICK_BUDGET_SECONDS,
) -> list[str]:
    """Write down what is to be told of events, then send what is due, old and new.

    It takes no longer than its budget and one more message, and raises nothing if a target fails.

    Args:
        environment: Whose outbox.
        events: What happened since the last call.
        targets: All who are told now.
        now: The time of this call.
        sender: How a message is sent.
        budget_s: Seconds after which nothing more is begun.

    Returns:
        What went wrong with which target, in words.

    Raises:
        OutboxError: The outbox cannot be written, as on a full disk. The log has the alerts then.
    """
    with _held(environment):
        box = _brought_up_to_date(_load(environment), targets, now)
        box, given_up = _without_hopeless(environment, box, now)
        decided = plan(events, box.memory, now, rules(environment))
        for alert in decided.alerts:
            _log.log(_severity(alert), "%s: %s", alert.title, alert.cause, extra=_fields(alert))
        to_all = {each.id for each in decided.messages}
        keys = tuple(each.key for each in targets)
        added = [
            Waiting(alert=each, targets=(FILE, *(keys if each.id in to_all else ())), since=now)
            for each in decided.alerts
        ]
        waiting = (*box.waiting, *added)
        box = box.model_copy(update={"memory": decided.memory, "waiting": waiting})
        _save(environment, box)
        for each in given_up:
            _log.warning("%s", each)
        return [*given_up, *_deliver(environment, box, targets, now, sender, budget_s)]


def waiting(environment: Environment) -> Outbox:
    """What waits to be sent.

    Raises:
        OutboxError: It cannot be read.
    """
    return _load(environment)


def last_alerts(environment: Environment, count: int) -> list[Alert]:
    """The newest alerts, oldest first; a line that a kill cut short is left out."""
    try:
        lines = file_of_alerts(environment).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    found: dict[str, Alert] = {}
    for line in lines[-2 * count :]:
        try:
            alert = Alert.model_validate_json(line)
        except ValidationError:
            continue
        found[alert.id] = alert  # an alert may be written twice
    return list(found.values())[-count:]


def write_line(environment: Environment, alert: Alert) -> str | None:
    """Add an alert to the file of alerts; returns why that failed, or None."""
    file = file_of_alerts(environment)
    line = json.dumps(alert.model_dump(mode="json"), ensure_ascii=False) + "\n"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # A line that a kill cut short must not spoil this one.
        with file.open("a+b") as opened:
            if opened.tell():
                opened.seek(-1, os.SEEK_END)
                line = line if opened.read() == b"\n" else "\n" + line
            opened.write(line.encode())
    except OSError as error:
        return f"{file} cannot be written: {error.strerror}"
    return None


def _deliver(
    environment: Environment,
    box: Outbox,
    targets: Sequence[Target],
    now: datetime,
    sender: Sender,
    budget_s: float,
) -> list[str]:
    """Send what is due; the outbox is saved after each message that got out."""
    started = time.monotonic()
    told: list[str] = []
    known: list[Target | None] = [None, *targets]  # None: the file
    # Who failed comes last, so that one that hangs does not hold up the others.
    known.sort(key=lambda each: box.down[_key(each)].failures if _key(each) in box.down else 0)
    for target in known:
        key = _key(target)
        if key in box.down and now < box.down[key].again_at:
            continue
        due = _due(environment, box, key, now)
        for alert in due:
            left = budget_s - (time.monotonic() - started)
            if left <= 0:
                return told
            if target is None:
                reason = write_line(environment, alert)
            else:
                reason = sender(target, message(alert), min(TIMEOUT_SECONDS, max(left, 1.0)))
            if reason is not None:
                box = _failed(box, key, reason, now)
                told.append(f"{target.name if target else 'the file of alerts'}: {reason}")
                _log.warning("alert not delivered, and tried again later: %s", told[-1])
                break
            if alert is due[0]:
                # Not earlier: each try that fails would make a digest of digests.
                box = _summed_up(box, key, due, now)
            box = _crossed_out(box, alert.id, key, now)
            _save(environment, box)
    _save(environment, box)
    return told


def room(environment: Environment, box: Outbox, key: str, now: datetime) -> int:
    """How many messages a target may get now: no more than so many in any hour."""
    lately = [at for at in box.sent.get(key, ()) if now - at < HOUR]
    return environment.alerts.max_per_hour - len(lately)


def _due(environment: Environment, box: Outbox, key: str, now: datetime) -> list[Alert]:
    """What a target gets now; if more waits than it may get, as after it was down, a digest too."""
    alerts = [each.alert for each in box.waiting if key in each.targets]
    if key == FILE:
        return alerts
    free = room(environment, box, key, now)
    return rationed(alerts, (), free, now, rules(environment))[0]


def _summed_up(box: Outbox, key: str, due: Sequence[Alert], now: datetime) -> Outbox:
    """Let a target wait for what is due alone: the rest is in the digest among it."""
    alone = {each.id for each in due}
    kept = [entry if entry.alert.id in alone else _without(entry, key) for entry in box.waiting]
    there = {entry.alert.id for entry in kept if key in entry.targets}
    kept += [Waiting(alert=each, targets=(key,), since=now) for each in due if each.id not in there]
    return box.model_copy(update={"waiting": tuple(each for each in kept if each.targets)})


def _brought_up_to_date(box: Outbox, targets: Sequence[Target], now: datetime) -> Outbox:
    """Let what waits for targets that are no longer configured wait for those that are new.

    A URL that was corrected is another target, for all that can be told: its key is a hash of it.
    """
    names = {each.key: each.name for each in targets}
    new = [key for key in names if key not in box.known]
    waiting = []
    for entry in box.waiting:
        there = [key for key in entry.targets if key == FILE or key in names]
        if new and len(there) < len(entry.targets):
            readdressed = tuple(dict.fromkeys((*there, *new)))
            entry = entry.model_copy(update={"targets": readdressed})
        waiting.append(entry)
    awaited = {key for entry in waiting for key in entry.targets}
    sent = {
        key: recent
        for key, times in box.sent.items()
        if (recent := tuple(at for at in times if now - at < HOUR))
    }
    return box.model_copy(
        update={
            "waiting": tuple(waiting),
            "down": {key: each for key, each in box.down.items() if key in {FILE, *names}},
            "known": {key: name for key, name in box.known.items() if key in awaited} | names,
            "sent": sent,
        }
    )


def _without_hopeless(
    environment: Environment, box: Outbox, now: datetime
) -> tuple[Outbox, list[str]]:
    """Give up what has waited for too long."""
    names = box.known | {FILE: "the file of alerts"}
    hours = environment.alerts.give_up_after_hours
    kept, told = [], []
    for entry in box.waiting:
        if now - entry.since < timedelta(hours=hours):
            kept.append(entry)
            continue
        told += [
            f"{names.get(key, 'a target that is no longer configured')}: gave up on "
            f"“{entry.alert.title}” after {hours} h; ml-assets alerts list shows it"
            for key in entry.targets
        ]
    return box.model_copy(update={"waiting": tuple(kept)}), told


def _failed(box: Outbox, key: str, reason: str, now: datetime) -> Outbox:
    failures = (box.down[key].failures if key in box.down else 0) + 1
    pause = min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE)
    trouble = Trouble(failures=failures, again_at=now + pause, reason=reason)
    return box.model_copy(update={"down": {**box.down, key: trouble}})


def _crossed_out(box: Outbox, alert_id: str, key: str, now: datetime) -> Outbox:
    kept = [_without(entry, key) if entry.alert.id == alert_id else entry for entry in box.waiting]
    sent = {} if key == FILE else {key: (*box.sent.get(key, ()), now)}
    return box.model_copy(
        update={
            "waiting": tuple(each for each in kept if each.targets),
            "down": {other: each for other, each in box.down.items() if other != key},
            "sent": box.sent | sent,
        }
    )


def _without(entry: Waiting, key: str) -> Waiting:
    """What waits, but no longer for this target."""
    left = tuple(each for each in entry.targets if each != key)
    return entry.model_copy(update={"targets": left})


def _key(target: Target | None) -> str:
    return FILE if target is None else target.key


def _severity(alert: Alert) -> int:
    return (logging.INFO, logging.WARNING, logging.ERROR)[
        0 if alert.kind == "well" else LEVELS.index(alert.level)
    ]


def _fields(alert: Alert) -> dict[str, str]:
    found = {"alert": alert.id, "run_id": alert.run_id, "partition": " ".join(alert.days)}
    return {name: value for name, value in found.items() if value}


@contextmanager
def _held(environment: Environment) -> Iterator[None]:
    """One process at a time works on the outbox."""
    try:
        folder(environment).mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder(environment) / "outbox.lock", timeout=_PATIENCE_SECONDS)
        lock.acquire()
    except Timeout:
        raise OutboxError(
            f"another process has been sending alerts from {folder(environment)} for more than "
            f"{_PATIENCE_SECONDS:g} s. The next tick tries again; if it lasts, look for a second "
            "daemon."
        ) from None
    except OSError as error:
        raise _unusable(environment, error) from error
    try:
        yield
    finally:
        lock.release()


def _load(environment: Environment) -> Outbox:
    file = folder(environment) / "outbox.json"
    try:
        return Outbox.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Outbox()
    except (ValidationError, UnicodeDecodeError):
        # Nothing of ours leaves it half written: it was edited, or the disk lost it.
        aside = file.with_suffix(".unreadable")
        file.replace(aside)
        _log.error("the outbox of alerts could not be read; it was put aside as %s", aside)
        return Outbox()
    except OSError as error:
        raise _unusable(environment, error) from error


def _save(environment: Environment, box: Outbox) -> None:
    file = folder(environment) / "outbox.json"
    aside = file.with_suffix(".new")
    try:
        with aside.open("w", encoding="utf-8") as opened:
            opened.write(box.model_dump_json())
            opened.flush()
            os.fsync(opened.fileno())
        aside.replace(file)
    except OSError as error:
        raise _unusable(environment, error) from error


def _unusable(environment: Environment, error: OSError) -> OutboxError:
    return OutboxError(
        f"alerts cannot be kept in {folder(environment)}: {error.strerror or error}. Give the disk "
        "room and this user the right to write there; nothing is lost: the next tick reads on from "
        "where the last one ended."
    )
