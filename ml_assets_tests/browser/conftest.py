"""A browser, and where its screenshots go.

`BROWSER_SHOTS` names a folder for the screenshots.
"""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_assets_tests.browser.stack import Stack, running_stack
from ml_assets_tests.programs import need_programs

DESKTOP = {"width": 1280, "height": 900}
PATIENCE_MS = 60_000  # a page on a machine that has other work to do
# Its own certificate and component downloads would only fail: no request leaves this machine.
_ARGUMENTS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, driven by Playwright; without it, the tests are skipped."""
    need_programs("chromium")
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE_MS)
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # as root, its sandbox does not start
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), headless=True, args=[*root, *_ARGUMENTS]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def stack(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running platform; only once it is known that there is a browser to look at it."""
    with socket.socket() as one, socket.socket() as two, socket.socket() as three:
        for probe in (one, two, three):
            probe.bind(("127.0.0.1", 0))
        ports = [probe.getsockname()[1] for probe in (one, two, three)]
    with running_stack(tmp_path_factory.mktemp("browser"), ports) as running:
        yield running


@pytest.fixture(scope="session")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the screenshots."""
    named = os.environ.get("BROWSER_SHOTS")
    folder = Path(named) if named else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def shoot(shots: Path) -> Callable[..., None]:
    """Keep what a page, or a part of it, looks like now, under a name."""

    def keep(seen: Any, name: str, **options: Any) -> None:
        seen.screenshot(path=shots / f"{name}.png", animations="disabled", **options)

    return keep


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    """An empty tab of a new visitor, on a desktop."""
    context = chromium.new_context(viewport=DESKTOP)
    context.set_default_timeout(PATIENCE_MS)
    yield context.new_page()
    context.close()
