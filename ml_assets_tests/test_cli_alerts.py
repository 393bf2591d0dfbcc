"""`ml-assets alerts`: whether targets are reached, and what was told, without secrets."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml_assets.alert_outbox import tell
from ml_assets.alerts import Event
from ml_assets.cli import app
from ml_assets.cli_common import console
from ml_assets.environment import InvalidEnvironment, load_environment, masked
from ml_assets.resources.notifications import Message, send, targets
from ml_assets_tests.receivers import (
    free_port,
    http_receiver,
    http_url,
    mail_url,
    smtp_receiver,
)

SECRET = "hunter2222"
SLACK = "T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 400)


def alerts(home: Path, *arguments: str, urls: str = "", heartbeat: str = "") -> tuple[int, str]:
    result = CliRunner().invoke(
        app,
        ["alerts", *arguments, "--home", str(home)],
        env={"ML_ASSETS_ALERT_URLS": urls, "ML_ASSETS_HEARTBEAT_URL": heartbeat},
    )
    return result.exit_code, result.output


def test_a_test_alert_reaches_every_target(tmp_path: Path) -> None:
    http, mail = free_port(), free_port()
    with http_receiver(http) as posted, smtp_receiver(mail) as mailed:
        code, output = alerts(tmp_path, "test", urls=f"{http_url(http)} {mail_url(mail)}")

    assert code == 0, output
    assert output.count("sent") == 2
    assert str(tmp_path / "alerts" / "alerts.jsonl") in output
    assert len(posted) == len(mailed) == 1
    assert "test of the alerts" in alerts(tmp_path, "list")[1]


def test_each_target_that_failed_is_told_with_its_reason_and_no_secret(tmp_path: Path) -> None:
    down, well = free_port(), free_port()
    urls = (
        f"json://ops:{SECRET}@127.0.0.1:{down}, {http_url(well)}, slack://{SECRET}, "
        f"nosuch://{SECRET}/x"
    )
    with http_receiver(well):
        code, output = alerts(tmp_path, "test", urls=urls)

    assert code == 1
    assert f"failed JSON json://127.0.0.1:{down}: A Connection error" in output
    assert "Connection error" in output
    assert output.count("sent") == 1
    assert "target 3 (slack) is refused" in output
    assert "target 4 (nosuch) is refused" in output
    assert SECRET not in output


def test_no_target_is_no_failure_and_the_file_has_it(tmp_path: Path) -> None:
    code, output = alerts(tmp_path, "test")

    assert code == 0
    assert "names no targets" in output


def test_what_waits_for_a_target_that_is_down_is_listed(tmp_path: Path) -> None:
    url = f"json://ops:{SECRET}@127.0.0.1:{free_port()}"
    environment = load_environment("dev", environ={"ML_ASSETS_HOME": str(tmp_path)})
    at = datetime(2026, 1, 6, 6, 15, tzinfo=UTC)
    event = Event(
        "trouble", "run:x", (), "error", "x failed", "it is [red]", "Mend it.", "claims", "", at
    )
    tell(environment, [event], targets(url)[0], at)

    code, output = alerts(tmp_path, "list", urls=url)

    assert code == 0
    assert "2026-01-06 06:15 error x failed" in output
    assert "it is [red]" in output
    assert "2026-01-06 06:15:30" in output, "when it is tried again"
    assert url.replace(f"ops:{SECRET}@", "") in output
    assert SECRET not in output


def test_what_waits_for_no_target_or_for_the_next_hour_says_so(tmp_path: Path) -> None:
    environment = load_environment("dev", environ={"ML_ASSETS_HOME": str(tmp_path)})
    url = f"json://127.0.0.1:{free_port()}"
    known = targets(url)[0]
    end = datetime.now(UTC)
    for n in range(31):
        at = end - timedelta(minutes=6 * (34 - n))
        event = Event("trouble", f"run:{n}", (), "error", "x failed", "down", "", "claims", "", at)
        tell(environment, [event], known, at, sender=lambda *_: "down")

    gone = alerts(tmp_path, "list")[1]
    tell(environment, [], known, end, sender=lambda *_: None)
    tell(environment, [replace(event, subject="run:y")], known, end, sender=lambda *_: None)
    full = alerts(tmp_path, "list", urls=url)[1]

    assert re.search(rf"{url}, no longer configured .* 31 .* to the next new target", gone)
    assert re.search(rf"{url} .* 1 .* when its hour is over", full)


def test_the_watcher_is_asked_by_the_test_and_what_it_says_shows_no_secret(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/{SECRET}"

    with http_receiver(port) as asked:
        well = alerts(tmp_path, "test", heartbeat=url)
    down = alerts(tmp_path, "test", heartbeat=url)

    assert asked == [{"asked": f"/{SECRET}"}]
    assert (well[0], down[0]) == (0, 1)
    assert "asked heartbeat" in well[1]
    assert "failed heartbeat: Connection refused" in down[1]
    assert SECRET not in well[1] + down[1]


def test_an_empty_list_says_so(tmp_path: Path) -> None:
    assert "No alert was ever told" in alerts(tmp_path, "list")[1]


def test_what_is_no_url_is_refused_when_the_environment_is_loaded(tmp_path: Path) -> None:
    code, output = alerts(tmp_path, "list", urls=f"json://127.0.0.1:9 mailto:ops:{SECRET}")

    assert code == 1
    assert "environment variables: alerts.urls: target 2 is no URL of Apprise" in output
    assert SECRET not in output


def test_targets_come_from_the_variable_alone_and_are_masked(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(f"alerts:\n  urls: slack://{SECRET}/b/c\n")
    (tmp_path / "dev.yaml").write_text("")

    with pytest.raises(InvalidEnvironment, match="set ML_ASSETS_ALERT_URLS instead") as refused:
        load_environment("dev", environ={}, config_dir=tmp_path)

    assert SECRET not in str(refused.value)
    environment = load_environment("dev", environ={"ML_ASSETS_ALERT_URLS": f"json://h/{SECRET}"})
    assert masked(environment)["alerts"]["urls"] == "***"


def test_a_target_is_shown_by_scheme_and_host_and_told_apart_from_its_like() -> None:
    hook = f"jsons://hooks.example.com/services/T000/{SECRET}?+X-Auth={SECRET}"
    urls = f"{hook}, {hook}2, form://ops:{SECRET}@h:81/{SECRET}, slack://{SLACK}, ntfy://{SECRET}"

    names = [each.name for each in targets(urls)[0]]

    assert SECRET not in str(names)
    assert names[0] != names[1]
    assert all(
        re.fullmatch(r"JSON jsons://hooks\.example\.com \(\w{6}\)", name) for name in names[:2]
    )
    assert names[2:] == ["Form form://h:81", "Slack slack://", "ntfy ntfys://"]


def test_the_reason_of_a_failure_quotes_nothing_of_the_url(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **names: object) -> None:
        raise ConnectionError(f"HTTPConnectionPool(host='h.net'): url: /T000/{SECRET}?x={SECRET}")

    monkeypatch.setattr("apprise.Apprise.notify", refuse)
    (target,), _ = targets(f"jsons://h.net/T000/{SECRET}?x={SECRET}")

    reason = send(target, Message("title", "body", "info"))

    assert reason == "ConnectionError: HTTPConnectionPool(host='h.net'): url: ***"


def test_the_urls_of_the_documentation_are_ones_that_apprise_takes() -> None:
    page = (Path(__file__).parents[1] / "docs" / "alerts.md").read_text(encoding="utf-8")
    examples = re.findall(r"^\|[^|]+\|.* `([a-z]+://[^`]+)` \|$", page, re.MULTILINE)

    good, bad = targets(" ".join(examples))

    assert len(examples) == 6
    assert [str(each) for each in bad] == []
    assert len(good) == 6
