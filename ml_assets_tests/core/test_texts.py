"""Texts from outside, made fit to be shown."""

import json

import pytest

from ml_assets.core.texts import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ä 漢字 – 1.5 %", "plain, ä 漢字 – 1.5 %"),
        ("two\nlines\r\n", r"two\nlines\r\n"),
        ("\x1b[31mred", r"\u001b[31mred"),
        ("\x9b2J \x00", r"\u009b2J \u0000"),
        ("\u202egnirts", r"\u202egnirts"),
        ("a\u2028b", r"a\u2028b"),
        ("\x7f", r"\u007f"),
        ("\udcff", r"\udcff"),
        ("back\\slash", "back\\slash"),
        ("no-break\u00a0space", "no-break\u00a0space"),
        ("", ""),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_json_stays_json() -> None:
    text = json.dumps({"a": "\x9b\x7f\u2028\u202e\U000f0000"}, ensure_ascii=False)
    assert json.loads(visible(text)) == json.loads(text)


def test_what_is_to_be_kept_is_kept() -> None:
    assert visible("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\u001b"
