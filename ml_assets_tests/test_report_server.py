"""The pages for people are served, and nothing else is."""

import http.client
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_assets.assets.common import page_link
from ml_assets.environment import load_environment
from ml_assets_tests.test_servers import free_ports

__all__ = ["free_ports"]  # a fixture
PATIENCE_S = 60


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of reports with a page, and what is no page in it and beside it."""
    folder = tmp_path / "reports"
    (folder / "claims").mkdir(parents=True)
    (folder / "claims" / "model_card_v1.html").write_text("<title>version 1</title>")
    (folder / "claims" / "model_card_v1.4711").write_text("half of a page")
    (tmp_path / "secret.html").write_text("another's page")
    (folder / "link.html").symlink_to(tmp_path / "secret.html")
    return folder


@pytest.fixture
def port(folder: Path, free_ports: list[int]) -> Iterator[int]:
    """The port of a server of that folder, in a process of its own."""
    yield from serving(folder, free_ports[0])


def serving(folder: Path, port: int, *more: str) -> Iterator[int]:
    """Serve a folder at a port until the test ends."""
    command = ["-m", "ml_assets.report_server", "--folder", str(folder), "--port", str(port)]
    process = subprocess.Popen([sys.executable, *command, *more])
    deadline = time.monotonic() + PATIENCE_S
    try:
        while True:
            try:
                asked(port, "/")
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "it does not answer"
                assert process.poll() is None, "it ended"
                time.sleep(0.05)
        yield port
    finally:
        # Not by SIGTERM: where SIGINT is ignored, as in a shell's background, Dagster's runs in
        # this process ignore that too, and it hands it down.
        process.kill()
        process.wait(timeout=PATIENCE_S)


def asked(
    port: int, path: str, *, host: str | None = None, method: str = "GET", at: str = "127.0.0.1"
) -> tuple[int, dict[str, str], str]:
    """Status, headers and text of an answer; the path goes out as it is."""
    connection = http.client.HTTPConnection(at, port, timeout=PATIENCE_S)
    connection.request(method, path, headers={"Host": host or f"127.0.0.1:{port}"})
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read().decode()


def test_pages_and_their_lists_are_served_and_nothing_else(port: int) -> None:
    status, headers, text = asked(port, "/claims/model_card_v1.html")
    assert (status, text) == (200, "<title>version 1</title>")
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "model_card_v1.html" in asked(port, "/claims/")[2]

    for path in (
        "/claims/model_card_v1.4711",
        "/claims/model_card_v2.html",
        "/link.html",
        "/../secret.html",
        "/%2e%2e/secret.html",
    ):
        status, _, text = asked(port, path)
        assert status == 404, path
        assert "another's page" not in text
    assert asked(port, "/claims/model_card_v1.html", method="POST")[0] == 501


def test_a_foreign_name_for_this_machine_is_refused(port: int) -> None:
    assert asked(port, "/claims/model_card_v1.html", host=f"evil.example:{port}")[0] == 403
    assert asked(port, "/claims/model_card_v1.html", host=f"localhost:{port}")[0] == 200


def test_another_address_is_listened_on_only_if_asked_for(
    folder: Path, free_ports: list[int], port: int
) -> None:
    with pytest.raises(ConnectionRefusedError):
        asked(port, "/", at="127.0.0.2")

    for everywhere in serving(folder, free_ports[1], "--host", "0.0.0.0"):
        assert asked(everywhere, "/claims/", at="127.0.0.2")[0] == 200
        foreign = f"ml.example.org:{everywhere}"
        assert asked(everywhere, "/claims/", at="127.0.0.2", host=foreign)[0] == 403


def test_a_folder_that_is_another_s_to_make_is_served_once_it_is_there(
    tmp_path: Path, free_ports: list[int]
) -> None:
    (tmp_path / "home").write_text("nobody makes a folder below a file")
    folder = tmp_path / "home" / "reports"

    for port in serving(folder, free_ports[0]):
        assert asked(port, "/")[0] == 404
        (tmp_path / "home").unlink()
        folder.mkdir(parents=True)
        (folder / "page.html").write_text("here")
        assert asked(port, "/page.html")[2] == "here"


def test_the_ui_links_to_a_page_where_it_is_served_and_tells_its_path_where_not(
    tmp_path: Path,
) -> None:
    served = load_environment("dev", environ={"ML_ASSETS_HOME": str(tmp_path)})
    nowhere = served.reports.model_copy(update={"url": ""})
    not_served = served.model_copy(update={"reports": nowhere})
    file = served.reports_folder / "claims" / "a page.html"

    assert page_link(served, file).value == "http://127.0.0.1:3001/claims/a%20page.html"
    assert page_link(not_served, file).value == str(file)
