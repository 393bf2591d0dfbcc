"""What must not leave the platform in a text: passwords in URLs, secrets, values of rows.

The mask of the whole configuration (`masked`) is in `ml_assets.environment`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from functools import cache
from urllib.parse import parse_qsl, unquote

from ml_assets.core.texts import visible

_SECRET_NAME = re.compile(
    r"PASS(WORD|WD)?$|PASSWORD|_PWD$|SECRET|TOKEN|CREDENTIAL|_KEY$|ACCESS_KEY_ID$|ALERT_URLS$"
    r"|HEARTBEAT_URL$"
)
_URL_NAME = re.compile(r"_UR[IL]S?$")
_SHORTEST = 4  # characters; a shorter value would blot out words that are no secret

# Up to the last @: SQLAlchemy takes a `/` in a password and an `@` in a user as they are. In a
# text, up to the last one of a word.
_LOGIN = re.compile(r"(?<=://).*@")
_URL_PASSWORD = re.compile(r"(?<=://)([^/:]*):(.*)@")
_WORDS_PASSWORD = re.compile(r"(?<=://)([^\s/:]*):(\S*)@")

# Signatures as in links that S3 and Azure sign.
_QUERY_NAME = r"[?&](?:[^=&\s]*(?:password|secret|token|key|signature|credential)[^=&\s]*|sig)="
_QUERY_SECRET = re.compile(rf"({_QUERY_NAME})[^&]*", re.IGNORECASE)
_WORDS_QUERY_SECRET = re.compile(rf"({_QUERY_NAME})[^&\s\"'<>]*", re.IGNORECASE)

# In quotes a value may have blanks; if the last quote is cut off, it ends with the line.
_ASSIGNED = re.compile(
    r"\b([\w-]*(?:password|passwd|pwd|secret|token|(?:api|access|account|private|secret)[_-]?key"
    r"(?:[_-]?id)?|x-amz-(?:signature|credential))[\"']?\s*[=:]\s*)"
    r"(?:(\")(?:[^\"\\\n]|\\.)+|(')(?:[^'\\\n]|\\.)+|[^\s\"'&,;]+)",
    re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(
    r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?=-----END|[\"']|\Z)", re.DOTALL
)
# Of chat services and watchers, who knows the path may write. A library may quote it alone.
_WEBHOOK = re.compile(
    r"((?:hooks\.slack\.com/\w+|discord(?:app)?\.com/api/webhooks|/webhookb2|hc-ping\.com"
    r"|logic\.azure\.com(?::\d+)?/workflows)/|/services/(?=T\w+/B\w+/))[\w.~%/@-]+",
    re.IGNORECASE,
)
_AUTHORIZATION = re.compile(
    r"\b(authorization[\"']?\s*[=:]\s*[\"']?(?:(?:bearer|basic|digest|token)\s+)?)[^\s\"',;]+"
    r"|\b(bearer )[\w.~+/=-]{16,}",
    re.IGNORECASE,
)

# What databases and their drivers quote of a row, whoever words the rest. A value may hold a
# bracket or a line's end: up to the last bracket of the line on which the first one closes.
_ROW = re.compile(
    r"(\bkey \([^\n]*?\)=\(|\bfailing row contains \()[^)]*(?:[^\n]*(?=\)))?", re.IGNORECASE
)
_PARAMETERS = re.compile(r"(\[parameters: )(?:[^\n]*(?=\])|[^\n]*)")

_EXAMPLE = re.compile(r"[,;]?\s*for example [^;)\n]*(?=[;)\n]|$)")
_FAILURE_CASES = re.compile(r"(failure cases?: |unable to parse: )[^\"\n]*")
# A value that was clipped ends with an ellipsis in place of the quote.
_GIVEN = re.compile(
    r"((?:=|\b(?:found|holds|value|literal|string|float|int|number|date|base 10|time data"
    r"|KeyError):?) ?)('(?:[^'\\]|\\.)*['…]|\"(?:[^\"\\]|\\.)*[\"…])"
)
# An apostrophe within a word, as in "doesn't" and O'Hara, neither opens nor closes.
_QUOTED = re.compile(
    r"(?<!\w)[bru]?(?:'(?:[^'\\\n]|\\.|'(?=\w))*['…]|\"(?:[^\"\\\n]|\\.)*[\"…])",
    re.IGNORECASE,
)
# What is wrong with a line of a file: it may quote anything of that line, and the header's names.
_LINE = re.compile(r"(\bline [\d,]+(?:, column (?:'[^'\n]*'|\"[^\"\n]*\"))?: )([^\n]*)")

# The lines of a traceback, which quote code but no row; the second may follow the first only.
_FRAME = re.compile(r'\s*File "[^"\n]*", line \d+')
_SOURCE = re.compile(r"\s{2,}\S")
_HEADING = re.compile(
    r"Traceback \(most recent|Stack Trace:|The above exception was|During handling of the above"
)
_RAISED = re.compile(r"[A-Za-z_][\w.]*(?:: |$)")


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
        found |= {password for word in words for _, password in _WORDS_PASSWORD.findall(word)}
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
    # What follows the word Authorization may itself be assigned: it comes first.
    text = _AUTHORIZATION.sub(r"\1\2***", text)
    text = _WORDS_QUERY_SECRET.sub(r"\1***", _WORDS_PASSWORD.sub(r"\1:***@", text))
    text = _PRIVATE_KEY.sub(r"\1***", _WEBHOOK.sub(r"\1***", text))
    return _ASSIGNED.sub(r"\1\2\3***", text)


def secrets_of_url(url: str) -> tuple[str, ...]:
    """What may be secret of a URL that is one as a whole, such as a webhook's; longest first.

    All but its scheme: login, path and query, whole and in parts, but the host where it reads as
    one.
    """
    rest = url.partition("://")[2]
    place, _, _ = re.split(r"([/?#])", rest + "/", maxsplit=1)
    login, _, host = place.rpartition("@")
    beyond = rest[len(place) :]
    path, _, query = beyond.partition("?")
    found = {url, rest, login, beyond, path, query}
    found |= {*re.split("[/#:]", f"{login}/{path}"), *(value for _, value in parse_qsl(query))}
    if not re.search(r"[.:]", host) and host != "localhost":
        found.add(host)
    found |= {unquote(each) for each in found}
    return tuple(sorted((each for each in found if len(each) >= _SHORTEST), key=_longest_first))


def mask_url(url: str) -> str:
    """A URL without the password that it may carry, fit for logs and metadata."""
    return _URL_PASSWORD.sub(r"\1:***@", _QUERY_SECRET.sub(r"\1***", url))


def without_login(url: str) -> str:
    """A URL without user and password."""
    return _LOGIN.sub("", url)


def without_values(text: str, *, ours: bool = True) -> str:
    """A message without the values of rows that it may quote: they may be of a person.

    Args:
        text: What an error or a check says.
        ours: Whether the platform worded it. Its own messages quote a value as an example, after a
            word such as `found` or of a line of a file, and names of columns and files elsewhere;
            in a library's, every quotation may be a value.
    """
    text = _PARAMETERS.sub(r"\1…", _ROW.sub(r"\1…", text))
    text = _FAILURE_CASES.sub(r"\1…", _EXAMPLE.sub("", text))
    if not ours:
        return _QUOTED.sub("…", text)
    text = _LINE.sub(lambda found: found[1] + _QUOTED.sub("…", found[2]), text)
    return _GIVEN.sub(r"\1…", text)


def fit(text: str, *, ours: bool = True, keep: str = "\n\t") -> str:
    """A text fit to be told or logged: no secret, no value of a row, nothing that a terminal obeys.

    Args:
        text: What is said.
        ours: See `without_values`.
        keep: See `core.texts.visible`.
    """
    return visible(without_secrets(without_values(text, ours=ours)), keep=keep)


def fit_error(text: str) -> str:
    """`fit` for an error as Python or Dagster prints it, with its causes and frames.

    Messages are taken for a library's, but those of classes of our own. Frames stay as they are.
    """
    parts: list[tuple[bool, list[str]]] = []
    ours = after_frame = False
    for line in text.split("\n"):
        is_frame = bool(_FRAME.match(line))
        is_code = is_frame or (after_frame and bool(_SOURCE.match(line)))
        if is_code or _HEADING.match(line):
            ours = False
        elif _RAISED.match(line):
            ours = line.startswith("ml_assets.")
        if parts and parts[-1][0] == (ours or is_code):
            parts[-1][1].append(line)
        else:
            parts.append((ours or is_code, [line]))
        after_frame = is_code
    return "\n".join(fit("\n".join(lines), ours=kept) for kept, lines in parts)


def _longest_first(text: str) -> tuple[int, str]:
    return -len(text), text
