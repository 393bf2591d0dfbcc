"""What must not leave the platform in a text: passwords in URLs, secrets, values of rows.

The masks of the configuration itself (`masked`, `mask_url`) are in `ml_assets.environment`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from urllib.parse import unquote

_SECRET_NAME = re.compile(r"PASS(WORD|WD)?$|PASSWORD|SECRET|TOKEN|CREDENTIAL|_KEY$|ALERT_URLS$")
_URL_NAME = re.compile(r"_UR[IL]S?$")
_SHORTEST = 4  # characters; a shorter value would blot out words that are no secret

# Within one word of a text, up to its last @: a password may hold an @ or a / itself.
_URL_PASSWORD = re.compile(r"(?<=://)([^\s/:@]*):(\S*)@")
_ASSIGNED = re.compile(
    r"\b((?:[\w-]*(?:password|passwd|secret|token)|api[_-]?key)[\"']?\s*[=:]\s*[\"']?)"
    r"[^\s\"'&,;]+",
    re.IGNORECASE,
)

_EXAMPLE = re.compile(r"[,;]?\s*for example [^;)\n]*(?=[;)\n]|$)")
_FAILURE_CASES = re.compile(r"(failure cases?: )[^\"\n]*")
_GIVEN = re.compile(
    r"((?:=|\b(?:found|holds|value|literal|string|float|int|number|date|base 10):?) ?)"
    r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")"
)
_QUOTED = re.compile(r"'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"")


def secret_values(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The secrets among the environment variables, longest first.

    Values of variables that are named like secrets, the passwords within variables that are named
    like URLs, and each as it reads once percent-decoded.
    """
    return _secret_values(tuple(sorted((os.environ if environ is None else environ).items())))


@cache
def _secret_values(environ: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    found: set[str] = set()
    for name, value in environ:
        words = value.replace(",", " ").split() if _URL_NAME.search(name) else []
        if _SECRET_NAME.search(name):
            found |= {value, *words}
        found |= {password for word in words for _, password in _URL_PASSWORD.findall(word)}
    found |= {unquote(each) for each in found}
    return tuple(sorted((each for each in found if len(each) >= _SHORTEST), key=_longest_first))


def without_secrets(text: str, secrets: Iterable[str] | None = None) -> str:
    """A text fit for logs and alerts: passwords of URLs and secrets are replaced by `***`.

    Args:
        text: Any text.
        secrets: What to blot out wherever it stands; by default `secret_values`.
    """
    # The whole of a known secret first: the patterns would end at some signs within it.
    for secret in secret_values() if secrets is None else secrets:
        text = text.replace(secret, "***")
    return _ASSIGNED.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", text))


def without_values(text: str, *, ours: bool = True) -> str:
    """A message without the values of rows that it may quote: they may be of a person.

    Args:
        text: What an error or a check says.
        ours: Whether the platform worded it. Its own messages quote a value as an example or after
            a word such as `found`, and names of columns and files elsewhere; in a library's, every
            quotation may be a value.
    """
    text = _FAILURE_CASES.sub(r"\1…", _EXAMPLE.sub("", text))
    return _GIVEN.sub(r"\1…", text) if ours else _QUOTED.sub("…", text)


def _longest_first(text: str) -> tuple[int, str]:
    return -len(text), text
