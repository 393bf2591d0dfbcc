"""The door to people: notifications through Apprise, to targets that are URLs.

Apprise knows mail, chat, on-call and webhook services by URL, so that a target is configuration.
What is worth a notification, and when it is sent again, is decided in `ml_assets.alerts` and
`ml_assets.alert_outbox`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ml_assets.core.texts import visible
from ml_assets.masking import without_secrets

TIMEOUT_SECONDS = 8.0

Kind = Literal["info", "warning", "failure", "success"]


class InvalidTarget(ValueError):
    """A URL that Apprise does not take; the message shows no more of it than its scheme."""


@dataclass(frozen=True)
class Target:
    """Where notifications go.

    Attributes:
        name: Its service and URL without secrets, fit to be shown.
        key: Tells it from others over time; a hash of the URL.
        url: Apprise's URL, which may carry secrets.
    """

    name: str
    key: str
    url: str = field(repr=False)


@dataclass(frozen=True)
class Message:
    """What is said.

    Attributes:
        title: One line.
        body: Plain text.
        kind: How the service may colour it.
    """

    title: str
    body: str
    kind: Kind


def targets(urls: str) -> tuple[list[Target], list[InvalidTarget]]:
    """Read targets from Apprise's URLs, separated by commas or blanks.

    Returns:
        The targets, each once, and an error for each URL that is not one.
    """
    if not urls.strip():
        return [], []
    from apprise import Apprise

    good: dict[str, Target] = {}
    bad = []
    for number, url in enumerate(_divided(urls), 1):
        service = Apprise.instantiate(url, suppress_exceptions=True)
        if service is None:
            scheme = url.split("://")[0] if "://" in url else "no scheme"
            bad.append(
                InvalidTarget(
                    f"alert target {number} ({visible(scheme)[:20]}) is refused by Apprise: either "
                    "it has no service of that name, or a part of the URL is missing. Correct "
                    "ML_ASSETS_ALERT_URLS; docs/alerts.md has examples."
                )
            )
            continue
        key = hashlib.sha256(url.encode()).hexdigest()[:16]
        good[key] = Target(f"{service.service_name} {_shown(service)}", key, url)
    return list(good.values()), bad


def send(target: Target, message: Message, timeout_s: float = TIMEOUT_SECONDS) -> str | None:
    """Send a message to a target, once.

    Returns:
        None if the target took it, or else the reason why not, without secrets.
    """
    from apprise import Apprise, AppriseAsset, NotifyFormat

    door = Apprise(asset=AppriseAsset(app_id="ml_assets", app_desc="ml_assets alerts", app_url=""))
    if not door.add(target.url):
        return "Apprise refuses its URL: correct ML_ASSETS_ALERT_URLS"
    try:
        result = door.notify(
            title=visible(message.title),
            body=message.body,
            notify_type=message.kind,
            body_format=NotifyFormat.TEXT,
            timeout=timeout_s,
        )
    except Exception as error:  # a plugin's own fault must not cost the other targets
        return without_secrets(f"{type(error).__name__}: {error}")
    if result:
        return None
    if result.status.name == "TIMEOUT":
        return f"no answer within {timeout_s:g} s"
    return _reason([str(entry.message) for entry in result.logs()])


def _reason(lines: Sequence[str]) -> str:
    text = lines[0] if lines else "it did not take the message, and said no reason"
    return visible(without_secrets(text))[:300]


def _divided(urls: str) -> list[str]:
    from apprise.utils.parse import parse_urls

    return [str(url) for url in parse_urls(urls)]  # type: ignore[no-untyped-call]


def _shown(service: object) -> str:
    """The URL without secrets and without Apprise's own settings."""
    return str(service.url(privacy=True)).split("?")[0]  # type: ignore[attr-defined]
