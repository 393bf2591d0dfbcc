"""Programs that some tests need beside Python: PostgreSQL's, a browser, a web server."""

import os
import shutil
from typing import NoReturn

import pytest


def need_programs(*names: str) -> None:
    """Skip the test that calls this, or that asks for the fixture which does, where one is missing.

    `make system-packages` installs them all. With `REQUIRE_PROGRAMS=1`, as in CI, a missing one
    fails the test: a skipped proof would look like one that holds.
    """
    if absent := [name for name in names if shutil.which(name) is None]:
        leave_out(f"{' and '.join(absent)} not on the PATH: sudo make system-packages")


def leave_out(reason: str) -> NoReturn:
    """Skip a test for what the machine lacks; fail it with `REQUIRE_PROGRAMS=1`."""
    if os.environ.get("REQUIRE_PROGRAMS") == "1":
        pytest.fail(reason)
    pytest.skip(reason)
