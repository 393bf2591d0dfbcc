"""How errors end a command: in one message that names what is really lost."""

import errno
import os
import sqlite3

import pytest
import typer

from ml_assets.cli_common import clear_errors


def wrapped(error: Exception) -> Exception:
    try:
        raise RuntimeError("wrapped") from error
    except RuntimeError as outer:
        return outer


def no_place(code: int, file: str | None = None) -> OSError:
    return OSError(code, os.strerror(code), file)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (no_place(errno.EACCES, "/root/card.html"), "/root/card.html: Permission denied. Check"),
        (
            wrapped(no_place(errno.EROFS, "/x/y")),
            "/x/y: Read-only file system. Check room and rights there, then run it again.",
        ),
        (no_place(errno.ENOSPC), "Error: No space left on device. Check room"),
        (
            wrapped(sqlite3.OperationalError("database or disk is full")),
            "the records of runs cannot be written: database or disk is full. Check",
        ),
    ],
)
def test_what_cannot_be_written_is_named(
    error: Exception, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit), clear_errors():
        raise error

    shown = capsys.readouterr().err
    assert told in shown
    assert ("records of runs" in shown) == ("records of runs" in told)


def test_a_fault_after_a_handled_outage_is_not_blamed_on_it() -> None:
    fault = KeyError("a fault of ours")
    fault.__context__ = no_place(errno.EACCES, "/root/card.html")

    with pytest.raises(KeyError), clear_errors():
        raise fault
