"""What is told: each trouble once, its end, news, and never more than so many an hour."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ml_assets.alerts import (
    Alert,
    Event,
    Level,
    Memory,
    Plan,
    Rules,
    cause_and_remedy,
    message,
    plan,
)

START = datetime(2026, 1, 6, 6, 15, tzinfo=UTC)
RULES = Rules(timedelta(hours=24), 5, "info", "prod", "http://ui:3000/")


def event(
    kind: str = "trouble",
    *days: str,
    subject: str = "run:claims/raw",
    level: Level = "error",
    minutes: float = 0,
) -> Event:
    return Event(
        kind=kind,  # type: ignore[arg-type]
        subject=subject,
        days=days,
        level=level,
        title="claims_scoring failed",
        cause="the warehouse is down",
        remedy="Start it.",
        use_case="claims",
        run_id="r1",
        at=START + timedelta(minutes=minutes),
    )


def after(
    minutes: float, *events: Event, memory: Memory | None = None, rules: Rules = RULES
) -> Plan:
    return plan(events, memory or Memory(), START + timedelta(minutes=minutes), rules)


def test_a_trouble_is_told_with_its_days_cause_remedy_and_link() -> None:
    (alert,) = after(1, event("trouble", "2026-01-04", "2026-01-05")).alerts

    assert alert.title == "claims_scoring failed for 2026-01-04 to 2026-01-05"
    assert alert.link == "http://ui:3000/runs/r1"
    told = message(alert)
    assert told.title == "[prod] claims_scoring failed for 2026-01-04 to 2026-01-05"
    assert told.body == (
        "the warehouse is down\nTo do: Start it.\nRun: http://ui:3000/runs/r1\n"
        "error, 2026-01-06 06:15 UTC"
    )
    assert told.kind == "failure"


def test_the_same_day_is_told_once_and_another_day_by_itself() -> None:
    first = after(1, event("trouble", "2026-01-05"))

    again = after(9, event("trouble", "2026-01-05", "2026-01-06", minutes=8), memory=first.memory)

    assert [each.days for each in again.alerts] == [("2026-01-06",)]


def test_a_trouble_that_goes_on_is_told_again_after_a_day_or_if_it_gets_worse() -> None:
    first = after(1, event("trouble", "2026-01-05", level="warning"))

    worse = after(9, event("trouble", "2026-01-05", minutes=8), memory=first.memory)
    same = after(19, event("trouble", "2026-01-05", minutes=18), memory=worse.memory)
    late = after(1500, event("trouble", "2026-01-05", minutes=1500), memory=same.memory)

    assert [len(each.alerts) for each in (first, worse, same, late)] == [1, 1, 0, 1]


def test_the_end_of_a_trouble_is_told_as_loudly_as_the_trouble_and_then_it_is_new_again() -> None:
    rules = Rules(timedelta(hours=24), 5, "warning")
    first = after(1, event("trouble", "2026-01-05"), rules=rules)

    well = after(9, event("well", "2026-01-05", minutes=8), memory=first.memory, rules=rules)
    later = after(20, event("trouble", "2026-01-05", minutes=19), memory=well.memory, rules=rules)

    assert [each.kind for each in well.messages] == ["well"]
    assert "is well again for 2026-01-05" in well.messages[0].title
    assert message(well.messages[0]).kind == "success"
    assert well.memory.open == {}
    assert len(later.messages) == 1


def test_what_never_was_in_trouble_is_not_told_to_be_well() -> None:
    assert after(1, event("well", "2026-01-05")).alerts == []


def test_a_later_day_ends_a_warning_but_not_an_error() -> None:
    memory = after(
        1,
        event("trouble", "2026-01-05", subject="check:a", level="warning"),
        event("trouble", "2026-01-05", subject="check:b"),
    ).memory

    ended = after(
        9,
        event("well", "2026-01-06", subject="check:a", minutes=8),
        event("well", "2026-01-06", subject="check:b", minutes=8),
        memory=memory,
    )

    assert [each.days for each in ended.alerts] == [("2026-01-05",)]
    assert list(ended.memory.open) == ["check:b"]


def test_what_is_about_the_newest_day_alone_ends_by_a_later_one_even_an_error() -> None:
    memory = after(1, event("trouble", "2026-01-05"), event("trouble", "2026-01-07")).memory
    well = replace(event("well", "2026-01-06", minutes=8), and_before=True)

    ended = after(9, well, memory=memory)

    assert [each.days for each in ended.alerts] == [("2026-01-05",)]
    assert list(ended.memory.open["run:claims/raw"]) == ["2026-01-07"]


def test_a_good_day_of_the_same_run_does_not_end_a_warning_that_goes_on() -> None:
    memory = after(1, event("trouble", "2026-01-04", "2026-01-05", level="warning")).memory
    well = replace(event("well", "2026-01-06", minutes=8), still=("2026-01-05",))

    assert [each.days for each in after(9, well, memory=memory).alerts] == [("2026-01-04",)]


def test_what_has_no_day_has_its_end_too() -> None:
    memory = after(1, event("trouble")).memory

    assert len(after(9, event("trouble"), memory=memory).alerts) == 0
    assert len(after(9, event("well"), memory=memory).alerts) == 1


def test_news_are_told_once_however_often_they_are_read() -> None:
    news = event("news", "2026-01-05T06:00:00+00:00", subject="champion:claims", level="info")

    first = after(1, news)
    again = after(3_000, news, memory=first.memory)

    assert [each.title for each in first.alerts] == ["claims_scoring failed"]
    assert again.alerts == []


def test_what_is_below_the_level_is_kept_in_the_file_alone() -> None:
    rules = Rules(timedelta(hours=24), 5, "error")

    told = after(1, event("trouble", "2026-01-05", level="warning"), rules=rules)

    assert len(told.alerts) == 1
    assert told.messages == []
    assert told.memory.sent == ()


def test_fifty_failures_are_told_as_a_few_and_one_digest_and_none_is_lost() -> None:
    events = [event("trouble", "2026-01-05", subject=f"run:{n}", minutes=n / 60) for n in range(49)]
    worst = event("trouble", "2026-01-05", subject="check:x", level="error")
    mild = [
        Event(**{**vars(each), "level": "warning", "title": f"t{n % 20}"})
        for n, each in enumerate(events)
    ]

    told = after(1, *mild, worst)

    assert len(told.messages) == RULES.max_per_hour
    assert told.messages[0].level == "error", "the worst goes out by itself"
    digest = told.messages[-1]
    assert digest.kind == "digest"
    assert digest.title.startswith("46 more alerts")
    assert "x t3 for 2026-01-05" in digest.cause
    assert digest.cause.endswith("and 5 more")
    assert len(told.alerts) == 51
    assert told.memory.held == ()


def test_what_comes_when_the_hour_is_full_is_summed_up_as_soon_as_there_is_room() -> None:
    first = after(0, *(event("trouble", f"2026-01-0{n}") for n in range(1, 6)))
    full = after(
        10, event("trouble", "2026-01-06"), event("trouble", "2026-01-07"), memory=first.memory
    )
    still = after(50, memory=full.memory)
    room = after(61, event("trouble", "2026-01-08"), memory=still.memory)

    assert [len(each.messages) for each in (first, full, still, room)] == [5, 0, 0, 2]
    assert len(still.memory.held) == 2
    alone, digest = room.messages
    assert (alone.kind, digest.kind) == ("trouble", "digest")
    assert "2026-01-06" in digest.cause
    assert "2026-01-07" in digest.cause


def test_planning_survives_being_written_down() -> None:
    told = after(1, event("trouble", "2026-01-05"))

    kept = Memory.model_validate_json(told.memory.model_dump_json())
    line = Alert.model_validate_json(told.alerts[0].model_dump_json())

    assert kept == told.memory
    assert line == told.alerts[0]
    assert after(2, event("trouble", "2026-01-05"), memory=kept).alerts == []


@pytest.mark.parametrize(
    ("text", "cause", "remedy"),
    [
        ("d1: bad\nd2: bad\nLook at it.", "d1: bad; d2: bad", "Look at it."),
        ("It is down. Start it. Then wait.", "It is down.", "Start it. Then wait."),
        ("psi 0.3 over 0.2", "psi 0.3 over 0.2", "See the run."),
        ("", "", "See the run."),
    ],
)
def test_a_description_is_divided_into_cause_and_remedy(text: str, cause: str, remedy: str) -> None:
    assert cause_and_remedy(text, "See the run.") == (cause, remedy)
