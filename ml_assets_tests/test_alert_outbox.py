"""Alerts get out at least once, to real receivers, however long those are down."""

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets import alert_outbox
from ml_assets.alert_outbox import (
    OutboxError,
    file_of_alerts,
    folder,
    last_alerts,
    tell,
    waiting,
)
from ml_assets.alerts import Event
from ml_assets.environment import Environment, load_environment
from ml_assets.resources.notifications import Message, Target, targets
from ml_assets_tests.receivers import (
    free_port,
    http_receiver,
    http_url,
    mail_url,
    smtp_receiver,
)

START = datetime(2026, 1, 6, 6, 15, tzinfo=UTC)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return load_environment("dev", environ={"ML_ASSETS_HOME": str(tmp_path)})


def event(day: int = 5, subject: str = "run:claims/raw", minutes: float = 0) -> Event:
    return Event(
        "trouble",
        subject,
        (f"2026-01-{day:02}",),
        "error",
        "claims_scoring failed",
        "the warehouse is down",
        "Start it.",
        "claims",
        "r1",
        START + timedelta(minutes=minutes),
    )


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def to(*urls: str) -> list[Target]:
    good, bad = targets(" ".join(urls))
    assert not bad
    return good


def titles(environment: Environment) -> list[str]:
    return [each.title for each in last_alerts(environment, 1_000)]


def test_an_alert_reaches_the_file_http_and_mail_and_nothing_waits(
    environment: Environment,
) -> None:
    http, mail = free_port(), free_port()
    with http_receiver(http) as posted, smtp_receiver(mail) as mailed:
        failed = tell(environment, [event()], to(http_url(http), mail_url(mail)), at(1))

    assert failed == []
    assert [each["title"] for each in posted] == ["[dev] claims_scoring failed for 2026-01-05"]
    assert posted[0]["type"] == "failure"
    ((subject, text),) = mailed
    assert subject == "[dev] claims_scoring failed for 2026-01-05"
    assert "To do: Start it." in text
    assert "http://127.0.0.1:3000/runs/r1" in text
    line = json.loads(file_of_alerts(environment).read_text(encoding="utf-8"))
    assert line["cause"] == "the warehouse is down"
    assert line["days"] == ["2026-01-05"]
    assert waiting(environment).waiting == ()


def test_targets_that_are_down_for_a_while_get_everything_once_they_are_back(
    environment: Environment,
) -> None:
    http, mail = free_port(), free_port()
    both = to(http_url(http), mail_url(mail))

    failed = tell(environment, [event(5)], both, at(0))
    soon = tell(environment, [event(6, minutes=0.2)], both, at(0.2))  # within the first pause
    again = tell(environment, [], both, at(1))
    with http_receiver(http) as posted, smtp_receiver(mail) as mailed:
        paused = tell(environment, [], both, at(1.5))  # the second pause is a minute
        back = tell(environment, [], both, at(3))

    assert len(failed) == len(again) == 2, "each target says why"
    assert soon == paused == back == []
    days = [
        "[dev] claims_scoring failed for 2026-01-05",
        "[dev] claims_scoring failed for 2026-01-06",
    ]
    assert [each["title"] for each in posted] == days
    assert [subject for subject, _ in mailed] == days
    assert len(titles(environment)) == 2, "the file had them at once"
    assert waiting(environment).waiting == ()
    assert waiting(environment).down == {}


def test_a_target_that_hangs_holds_up_neither_the_tick_nor_the_others(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_outbox, "TIMEOUT_SECONDS", 0.5)
    hangs, well = free_port(), free_port()
    with http_receiver(hangs, pause_s=3), http_receiver(well) as posted:
        both = to(http_url(hangs), http_url(well))
        failed = tell(environment, [event(5), event(6)], both, at(0))

    assert [each.split(": ")[1] for each in failed] == ["no answer within 0.5 s"]
    assert len(posted) == 2
    assert {key for each in waiting(environment).waiting for key in each.targets} == {both[0].key}


def test_a_target_that_refuses_is_given_up_after_a_while_and_told_so(
    environment: Environment,
) -> None:
    port = free_port()
    with http_receiver(port, status=500):
        (failed,) = tell(environment, [event()], to(http_url(port)), at(0))
        late = tell(environment, [], to(http_url(port)), at(60 * 72))

    assert "500" in failed
    assert len(late) == 1
    assert "gave up on “claims_scoring failed for 2026-01-05” after 72 h" in late[0]
    assert waiting(environment).waiting == ()
    assert titles(environment) == ["claims_scoring failed for 2026-01-05"]


def test_what_waits_for_a_url_that_is_corrected_goes_to_the_new_one_alone(
    environment: Environment,
) -> None:
    other, mended = free_port(), free_port()
    wrong = http_url(free_port())
    with http_receiver(other) as well, http_receiver(mended) as posted:
        tell(environment, [event(5)], to(wrong, http_url(other)), at(0))
        between = tell(environment, [event(6, minutes=5)], to(http_url(other)), at(5))
        tell(environment, [], to(http_url(mended), http_url(other)), at(6))
        again = tell(environment, [], to(http_url(mended), http_url(other)), at(7))

    assert between == again == []
    assert [each["title"][-2:] for each in posted] == ["05"], "what was told while it was away, not"
    assert [each["title"][-2:] for each in well] == ["05", "06"], "and nothing twice"
    assert waiting(environment).waiting == ()
    assert http_url(mended).split("//")[1] in str(waiting(environment).known)
    assert wrong.split("//")[1] not in str(waiting(environment).known)


def test_what_waits_for_a_target_that_is_removed_is_given_up_after_a_while_and_told_so(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    (gone,) = to(http_url(free_port()))
    tell(environment, [event()], [gone], at(0))

    early = tell(environment, [], [], at(60 * 71))
    assert {key for each in waiting(environment).waiting for key in each.targets} == {gone.key}
    late = tell(environment, [], [], at(60 * 72))

    assert early == []
    assert late == [
        f"{gone.name}: gave up on “claims_scoring failed for 2026-01-05” after 72 h; "
        "ml-assets alerts list shows it"
    ]
    assert late[0] in caplog.text
    assert waiting(environment).waiting == ()


def test_a_target_that_comes_back_gets_the_worst_and_a_digest_and_no_more_within_the_hour(
    environment: Environment,
) -> None:
    sent: list[Message] = []

    def down(target: Target, message: Message, timeout_s: float) -> str:
        return "down"

    def up(target: Target, message: Message, timeout_s: float) -> None:
        sent.append(message)

    target = to(http_url(free_port()))
    mild = [
        replace(event(5, f"run:{n}", 3 * n), level="warning", title=f"mild {n}") for n in range(99)
    ]
    for each in [*mild, event(5, minutes=300)]:  # one after the other, for five hours
        tell(environment, [each], target, each.at, sender=down)
    tell(environment, [], target, at(320), sender=up)
    back = list(sent)
    tell(environment, [event(6, minutes=330)], target, at(330), sender=up)
    full = list(sent)
    tell(environment, [], target, at(381), sender=up)

    assert len(back) == environment.alerts.max_per_hour == 20
    assert back[0].title == "[dev] claims_scoring failed for 2026-01-05", "the worst comes first"
    assert "81 more alerts" in back[-1].title
    assert "digest" not in "".join(each.title for each in back[:-1])
    assert "ml-assets alerts list --last 100" in back[-1].body
    assert full == back, "the hour is full"
    assert [each.title for each in sent[20:]] == ["[dev] claims_scoring failed for 2026-01-06"]
    assert waiting(environment).waiting == ()
    assert sum(each.startswith("mild") for each in titles(environment)) == 99


def test_tries_that_fail_sum_nothing_up_and_one_that_gets_through_does_so_once(
    environment: Environment,
) -> None:
    sent: list[str] = []

    def flaky(target: Target, message: Message, timeout_s: float) -> str | None:
        if len(sent) == 1:
            return "down again"
        sent.append(message.title)
        return None

    target = to(http_url(free_port()))
    for n in range(60):
        late = event(5, f"run:{n}", 3 * n)
        tell(environment, [late], target, late.at, sender=lambda *_: "down")
    many = waiting(environment).waiting
    for n in range(180, 300, 15):
        tell(environment, [], target, at(n), sender=lambda *_: "down")
    still = waiting(environment).waiting
    tell(environment, [], target, at(320), sender=flaky)
    left = waiting(environment).waiting
    tell(environment, [], target, at(350), sender=lambda _, message, __: sent.append(message.title))

    assert many == still
    assert len(still) == 60
    assert [each.alert.kind for each in left] == ["trouble"] * 18 + ["digest"]
    assert len(sent) == 20
    assert "41 more alerts" in sent[-1]
    assert waiting(environment).waiting == ()


def test_fifty_failures_in_one_night_are_a_few_messages_and_all_are_in_the_file(
    environment: Environment,
) -> None:
    port = free_port()
    night = [event(5, f"run:{n}", n / 60) for n in range(50)]
    with http_receiver(port) as posted:
        tell(environment, night, to(http_url(port)), at(1))

    assert len(posted) == environment.alerts.max_per_hour == 20
    assert "31 more alerts" in posted[-1]["title"]
    assert "31 x claims_scoring failed for 2026-01-05" in posted[-1]["message"]
    assert len(titles(environment)) == 51


def test_a_tick_ends_within_its_budget_and_the_next_goes_on(environment: Environment) -> None:
    sent: list[str] = []

    def slow(target: Target, message: Message, timeout_s: float) -> str | None:
        time.sleep(0.3)
        sent.append(message.title)
        return None

    port = free_port()
    night = [event(5, f"run:{n}", n / 60) for n in range(6)]
    tell(environment, night, to(http_url(port)), at(1), sender=slow, budget_s=0.5)
    early = len(sent)
    tell(environment, [], to(http_url(port)), at(2), sender=slow, budget_s=60)

    assert 0 < early < 6
    assert len(sent) == 6


KILLED = """
import os, signal, sys
from datetime import datetime
from ml_assets.alert_outbox import tell
from ml_assets.environment import load_environment
from ml_assets.resources.notifications import send, targets
from ml_assets_tests.test_alert_outbox import at, event

def deadly(target, message, timeout_s):
    assert send(target, message, timeout_s) is None
    if message.title.endswith("06"):
        os.kill(os.getpid(), signal.SIGKILL)

night = [event(5), event(6), event(7)]
tell(load_environment(), night, targets(sys.argv[1])[0], at(0), sender=deadly)
"""


@pytest.mark.slow
def test_what_a_kill_interrupts_gets_out_later_at_least_once(environment: Environment) -> None:
    port = free_port()
    with http_receiver(port) as posted:
        killed = subprocess.run(
            [sys.executable, "-c", KILLED, http_url(port)],
            env={"ML_ASSETS_HOME": str(environment.home)},
            cwd=Path(__file__).parents[1],
            check=False,
        )
        # The same events are read again, since the sensor's cursor was not kept.
        tell(environment, [event(5), event(6), event(7)], to(http_url(port)), at(1))

    assert killed.returncode == -signal.SIGKILL
    days = [each["title"][-2:] for each in posted]
    assert days == ["05", "06", "06", "07"], "the one under way twice, the others once"
    assert [each[-2:] for each in titles(environment)] == ["05", "06", "07"]


def test_a_line_that_a_kill_cut_short_spoils_no_other(environment: Environment) -> None:
    tell(environment, [event(5)], [], at(0))
    with file_of_alerts(environment).open("a") as file:
        file.write('{"id": "cut sh')

    tell(environment, [event(6)], [], at(1))

    assert [each[-2:] for each in titles(environment)] == ["05", "06"]


def test_an_outbox_that_cannot_be_written_is_told_and_the_events_are_told_later(
    environment: Environment, caplog: pytest.LogCaptureFixture
) -> None:
    folder(environment).mkdir(parents=True)
    (folder(environment) / "outbox.new").mkdir()  # as good as a full disk, also for root

    with pytest.raises(OutboxError, match="Give the disk room"):
        tell(environment, [event()], [], at(0))
    (folder(environment) / "outbox.new").rmdir()
    tell(environment, [event()], [], at(1))

    assert "the warehouse is down" in caplog.text, "the log has it at once"
    assert len(titles(environment)) == 1


def test_an_unreadable_outbox_is_put_aside(environment: Environment) -> None:
    folder(environment).mkdir(parents=True)
    (folder(environment) / "outbox.json").write_text("{")

    tell(environment, [event()], [], at(0))

    assert len(titles(environment)) == 1
    assert (folder(environment) / "outbox.unreadable").exists()


def test_two_daemons_at_once_tell_a_trouble_once(environment: Environment) -> None:
    sent: list[str] = []
    target = to(http_url(free_port()))

    def sender(target: Target, message: Message, timeout_s: float) -> str | None:
        time.sleep(0.05)
        sent.append(message.title)
        return None

    def tick() -> None:
        tell(environment, [event(5), event(6)], target, at(0), sender=sender)

    both = [threading.Thread(target=tick) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()

    assert [each[-2:] for each in sent] == ["05", "06"]
