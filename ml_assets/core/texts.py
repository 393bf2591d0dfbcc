"""Texts from outside, fit to be shown: in a terminal, in a log, in a page.

Escaping what a page or a terminal takes for markup belongs where it is shown.
"""

import json
import unicodedata

# Control characters, those that turn the direction of writing, ends of lines, lone surrogates.
_INVISIBLE = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


def visible(text: str, *, keep: str = "") -> str:
    r"""A text with what cannot be seen written as JSON would: `\n`, `\u001b`, `\u202e`.

    So it stays one line, no terminal obeys it, and JSON stays JSON.

    Args:
        text: Any text.
        keep: Characters to leave as they are.
    """
    if text.isprintable():
        return text
    return "".join(
        _escaped(each) if unicodedata.category(each) in _INVISIBLE and each not in keep else each
        for each in text
    )


def _escaped(character: str) -> str:
    # The one control character that JSON lets stand.
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]
