"""The door to people: notifications through Apprise, to targets that are URLs; and a heartbeat.

Apprise knows mail, chat, on-call and webhook services by URL, so that a target is configuration.
What is worth a notification, and when it is sent again, is decided in `ml_assets.alerts` and
`ml_assets.alert_outbox`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ml_assets.core.texts import visible
from ml_assets.masking import secret_values, secrets_of_url, without_secrets

TIMEOUT_SECONDS = 8.0
HEARTBEAT_SECONDS = 5.0

Kind = Literal["info", "warning", "failure", "success"]


class InvalidTarget(ValueError):
    """A URL that Apprise does not take; the message shows no more of it than its scheme."""


@dataclass(frozen=True)
class Target:
    """Where notifications go.

    Attributes:
        name: Its service, scheme and host, fit to be shown; paths of webhooks are secrets.
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
    return _told_apart(list(good.values())), bad


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
        return _reason([f"{type(error).__name__}: {error}"], target.url)
    if result:
        return None
    if result.status.name == "TIMEOUT":
        return f"no answer within {timeout_s:g} s"
    return _reason([str(entry.message) for entry in result.logs()], target.url)


def heartbeat(url: str, timeout_s: float = HEARTBEAT_SECONDS) -> str | None:
    """Ask a URL, so that a watcher elsewhere knows that the platform is alive.

    Returns:
        None if it was answered, or else the reason why not, without secrets.
    """
    import urllib.error
    import urllib.request
    from http.client import HTTPException

    # Of the environment, which takes no other scheme than http and https.
    request = urllib.request.Request(url, headers={"User-Agent": "ml_assets"})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=timeout_s):  # noqa: S310
            return None
    except urllib.error.HTTPError as error:
        error.close()
        return f"it answers {error.code}"
    except (OSError, ValueError, HTTPException) as error:
        why = getattr(error, "reason", error)
        return _reason([getattr(why, "strerror", None) or str(why)], url)


def _reason(lines: Sequence[str], url: str) -> str:
    """The first line; of its target's URL, no more than its name shows."""
    text = lines[0] if lines else "it did not take the message, and said no reason"
    return visible(without_secrets(text, [*secrets_of_url(url), *secret_values()]))[:300]


def _divided(urls: str) -> list[str]:
    from apprise.utils.parse import parse_urls

    return [str(url) for url in parse_urls(urls)]  # type: ignore[no-untyped-call]


def _shown(service: object) -> str:
    """Scheme and host: paths and queries of webhooks are secrets, and Apprise does not mask them.

    What stands for a host in the URL of a chat service is often a token, or a topic that whoever
    knows may read: it is shown only if Apprise shows all of it, and it reads as a host.
    """
    url = str(service.url(privacy=True))  # type: ignore[attr-defined]
    scheme, _, rest = url.partition("://")
    place = re.split("[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    is_whole = re.sub(r":\d+$", "", place) == service.host  # type: ignore[attr-defined]
    is_host = bool(re.search("[.:]", place)) or place == "localhost"
    return f"{scheme}://{place if is_whole and is_host else ''}"


def _told_apart(found: list[Target]) -> list[Target]:
    """Targets of one name, such as two webhooks of one host, with a part of their keys."""
    names = [each.name for each in found]
    return [
        replace(each, name=f"{each.name} ({each.key[:6]})") if names.count(each.name) > 1 else each
        for each in found
    ]
