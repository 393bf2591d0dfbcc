"""What people are told: from what happened to the alerts worth sending, as pure functions.

What happened is read from Dagster's records in `ml_assets.alert_events`; how alerts get out, and
are tried again, is in `ml_assets.alert_outbox`.

A trouble has a subject (an asset's run, a check) and days. Each day of a subject is told once:
again only if it got worse, if it was well in between, or after `repeat_after`. Everything is kept
in the file of alerts; the targets get no more than so many an hour, the rest summed up in one
message.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ml_assets.core.texts import visible
from ml_assets.partitions import ranges
from ml_assets.resources.notifications import Kind, Message

LEVELS = ("info", "warning", "error")
Level = Literal["info", "warning", "error"]

HOUR = timedelta(hours=1)
_FORGOTTEN_AFTER = timedelta(days=90)  # a trouble that nobody mended, nor met again
_DIGEST_LINES = 15
_LONGEST = 600  # characters of a cause or a remedy


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: A trouble, its end, or a piece of news.
        subject: What it is about, by which the end of a trouble is known: such as
            `check:claims/raw/every_row_accounted`.
        days: The partitions; none if it has none.
        level: How bad it is.
        title: What happened, without the days; for the end of a trouble, what is well again.
        cause: Why, in a sentence.
        remedy: What to do, in a sentence.
        use_case: Such as `claims`.
        run_id: The run that tells more; empty if there is none.
        at: When.
        and_before: Whether the end of a trouble is the end of that of all earlier days too.
        still: Days that are not well, though others of the same run are.
    """

    kind: Literal["trouble", "well", "news"]
    subject: str
    days: tuple[str, ...]
    level: Level
    title: str
    cause: str
    remedy: str
    use_case: str
    run_id: str
    at: datetime
    and_before: bool = False
    still: tuple[str, ...] = ()


class Alert(BaseModel):
    """What people are told of an event; as it stands in the file of alerts."""

    model_config = ConfigDict(frozen=True)

    id: str
    at: datetime
    level: Level
    kind: Literal["trouble", "well", "news", "digest", "test"]
    title: str
    cause: str
    remedy: str
    use_case: str = ""
    days: tuple[str, ...] = ()
    run_id: str = ""
    link: str = ""
    environment: str = ""


class Told(BaseModel):
    """When a day of a subject was told last, and how bad it was then."""

    level: Level
    at: datetime


class Memory(BaseModel):
    """What has been told and what is held back; see `plan`.

    Attributes:
        open: For each subject, its days in trouble.
        sent: When messages went to the targets, of the last hour.
        held: Alerts that wait to be summed up.
    """

    open: dict[str, dict[str, Told]] = {}
    sent: tuple[datetime, ...] = ()
    held: tuple[Alert, ...] = ()


@dataclass(frozen=True)
class Rules:
    """How much is told; see `alerts` in base.yaml.

    Attributes:
        repeat_after: A trouble that goes on is told again after that.
        max_per_hour: Most messages to the targets in any hour.
        least_level: What is below goes to the file alone.
        environment: Stands before each title.
        ui_url: Where Dagster is opened; empty for no links.
    """

    repeat_after: timedelta
    max_per_hour: int
    least_level: Level
    environment: str = ""
    ui_url: str = ""


@dataclass(frozen=True)
class Plan:
    """What to tell.

    Attributes:
        alerts: Every alert, for the file.
        messages: Those that go to the targets now, digests among them.
        memory: What to remember.
    """

    alerts: list[Alert]
    messages: list[Alert]
    memory: Memory = field(default_factory=Memory)


def plan(events: Sequence[Event], memory: Memory, now: datetime, rules: Rules) -> Plan:
    """Decide what to tell of what happened.

    Args:
        events: In the order in which they happened.
        memory: What the last call returned.
        now: The time of this call; what was sent in the hour before it counts.
        rules: How much is told.
    """
    open_days = {
        subject: kept
        for subject, days in memory.open.items()
        if (kept := {day: told for day, told in days.items() if now - told.at < _FORGOTTEN_AFTER})
    }
    alerts = []
    for event in events:
        days = event.days or ("",)
        known = open_days.get(event.subject, {})
        if event.kind == "well":
            news = tuple(sorted(day for day, told in known.items() if _ended(day, told, event)))
            # As loud as the trouble was: who heard of it shall hear of its end.
            level: Level = max((known[day].level for day in news), key=_place, default="info")
            known = {day: told for day, told in known.items() if day not in news}
        else:
            news = tuple(day for day in days if _is_new(event, known.get(day), rules))
            level = event.level
            known = {**known, **dict.fromkeys(news, Told(level=level, at=event.at))}
        open_days[event.subject] = known
        if news:
            alerts.append(_alert(event, tuple(day for day in news if day), level, rules))
    told = [each for each in alerts if _place(each.level) >= _place(rules.least_level)]
    sent = tuple(at for at in memory.sent if now - at < HOUR)
    messages, held = rationed(told, memory.held, rules.max_per_hour - len(sent), now, rules)
    return Plan(
        alerts + [each for each in messages if each.kind == "digest"],
        messages,
        Memory(
            open={subject: days for subject, days in open_days.items() if days},
            sent=(*sent, *(now for _ in messages)),
            held=held,
        ),
    )


def message(alert: Alert) -> Message:
    """An alert as targets get it."""
    kinds: Mapping[str, Kind] = {"info": "info", "warning": "warning", "error": "failure"}
    lines = [
        alert.cause,
        f"To do: {alert.remedy}" if alert.remedy else "",
        f"Run: {alert.link or alert.run_id}" if alert.run_id else "",
        f"{alert.level}, {alert.at:%Y-%m-%d %H:%M} UTC",
    ]
    return Message(
        title=f"[{alert.environment}] {alert.title}" if alert.environment else alert.title,
        body="\n".join(visible(line, keep="\n") for line in lines if line),
        kind="success" if alert.kind == "well" else kinds[alert.level],
    )


def cause_and_remedy(text: str, otherwise: str) -> tuple[str, str]:
    """Divide what a check or an error says into what happened and what to do.

    Args:
        text: Sentences. The last line is the remedy; of a single line, all after the first
            sentence.
        otherwise: The remedy if the text has none.
    """
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        cause, remedy = "; ".join(lines[:-1]).replace(":; ", ": "), lines[-1]
    else:
        first, *rest = re.split(r"(?<=[.!?])\s+(?=[A-Z])", lines[0] if lines else "", maxsplit=1)
        cause, remedy = first, "".join(rest)
    return _shortened(cause), _shortened(remedy) or otherwise


def days_in_words(days: Sequence[str]) -> str:
    """Days for a title: ranges, and at most three of them."""
    found = [first if first == last else f"{first} to {last}" for first, last in ranges(days)]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def rationed(
    new: Sequence[Alert], held: Sequence[Alert], room: int, now: datetime, rules: Rules
) -> tuple[list[Alert], tuple[Alert, ...]]:
    """What goes out now, and what waits: the worst by themselves, the last place for the digest.

    Args:
        new: Alerts that may go out by themselves.
        held: Alerts that were held back before: the digest has them.
        room: How many messages may go out now.
        now: The time of the digest.
        rules: Whose environment a digest names.
    """
    if len(new) <= room and not held:
        return list(new), ()
    if room < 1:
        return [], (*held, *new)
    by_level = sorted(new, key=lambda each: -_place(each.level))
    alone, rest = by_level[: room - 1], [*held, *by_level[room - 1 :]]
    return [*alone, _digest(rest, len(new) + len(held), now, rules)] if rest else alone, ()


def _is_new(event: Event, told: Told | None, rules: Rules) -> bool:
    if told is None:
        return True
    if event.kind == "news":
        return False
    worse = _place(event.level) > _place(told.level)
    return worse or event.at - told.at >= rules.repeat_after


def _ended(day: str, told: Told, event: Event) -> bool:
    """Whether a day's trouble is over: it was mended; or a later day is well, where that counts.

    It does for mere warnings, and for what is about the newest day alone.
    """
    days = event.days or ("",)
    if day in event.still:
        return False
    return day in days or ((event.and_before or told.level != "error") and day <= max(days))


def _alert(event: Event, days: tuple[str, ...], level: Level, rules: Rules) -> Alert:
    known = "\n".join((event.kind, event.subject, *days, event.at.isoformat()))
    of_days = f" for {days_in_words(days)}" if days and event.kind != "news" else ""
    again = " is well again" if event.kind == "well" else ""
    return Alert(
        id=hashlib.sha256(known.encode()).hexdigest()[:16],
        at=event.at,
        level=level,
        kind=event.kind,
        title=f"{event.title}{again}{of_days}",
        cause=event.cause,
        remedy=event.remedy,
        use_case=event.use_case,
        days=days if event.kind != "news" else (),
        run_id=event.run_id,
        link=f"{rules.ui_url.rstrip('/')}/runs/{event.run_id}"
        if rules.ui_url and event.run_id
        else "",
        environment=rules.environment,
    )


def _digest(rest: Sequence[Alert], among: int, now: datetime, rules: Rules) -> Alert:
    known = "\n".join(each.id for each in rest)
    counted = Counter(each.title for each in sorted(rest, key=lambda each: -_place(each.level)))
    lines = [f"{n} x {title}" if n > 1 else title for title, n in counted.items()]
    more = len(lines) - _DIGEST_LINES
    return Alert(
        id=hashlib.sha256(known.encode()).hexdigest()[:16],
        at=now,
        level=max((each.level for each in rest), key=_place),
        kind="digest",
        title=f"{len(rest)} more alerts, held back so as not to flood you",
        cause="\n".join([*lines[:_DIGEST_LINES], *([f"and {more} more"] if more > 0 else [])]),
        remedy="See all of them by `ml-assets alerts list --last "
        f"{among}`; begin with the oldest, others often follow from it.",
        environment=rules.environment,
    )


def _place(level: Level) -> int:
    return LEVELS.index(level)


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
