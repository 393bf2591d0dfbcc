"""The example proxy asks for a login, and lets viewers only look: a real nginx."""

import base64
import http.client
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ml_assets.report_server import Pages
from ml_assets_tests.postgres import unused_port
from ml_assets_tests.programs import need_programs

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[2] / "deploy" / "proxy" / "nginx.conf"
USERS = {"viewers": "anna", "operators": "otto"}


class Upstream(BaseHTTPRequestHandler):
    """Tells who was asked, and what of the login came through."""

    def do_GET(self) -> None:
        port = self.server.server_address[1]
        content = f"{port} {self.path} {self.headers.get('Authorization')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_DELETE = do_POST = do_GET

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def upstreams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    reports = tmp_path_factory.mktemp("reports")
    (reports / "claims").mkdir()
    (reports / "claims" / "model_card_v1.html").write_text("version 1")
    handlers = {
        **dict.fromkeys(("3000", "3002", "5000"), Upstream),
        "3001": partial(Pages, directory=str(reports)),  # the real one: it refuses foreign names
    }
    servers = {name: ThreadingHTTPServer(("127.0.0.1", 0), each) for name, each in handlers.items()}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {name: server.server_port for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def port(upstreams: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    need_programs("nginx", "openssl")
    folder = tmp_path_factory.mktemp("nginx")
    key, certificate = folder / "ml-assets.key", folder / "ml-assets.crt"
    subject = ["-subj", "/CN=localhost", "-keyout", str(key), "-out", str(certificate)]
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject)
    for group, user in USERS.items():
        hashed = run("openssl", "passwd", "-apr1", "right").strip()
        (folder / f"{group}.htpasswd").write_text(f"{user}:{hashed}\n")
        (folder / f"{group}.htpasswd").chmod(0o644)
    folder.chmod(0o755)
    port = unused_port()
    text = CONFIG.read_text()
    for there, here in {
        "listen 443": f"listen 127.0.0.1:{port}",
        "listen 80": f"listen 127.0.0.1:{unused_port()}",
        "/etc/nginx/tls": str(folder),
        "/etc/nginx": str(folder),
        **{f"127.0.0.1:{name}": f"127.0.0.1:{ours}" for name, ours in upstreams.items()},
    }.items():
        assert there in text
        text = text.replace(there, here)
    shutil.copy(CONFIG.with_name("mlflow_headers.conf"), folder)
    config = folder / "nginx.conf"
    config.write_text(f"user root;\npid {folder}/pid;\nerror_log {folder}/log;\n{text}")
    process = subprocess.Popen(
        ["nginx", "-c", str(config), "-g", "daemon off;"], stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(100):
            try:
                ask(port, "/")
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)


def run(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def ask(port: int, path: str, user: str = "", method: str = "GET", password: str = "right") -> str:
    """The status and content of an answer; in place of the content, where it sends us on to."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=10)
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"Authorization": f"Basic {login}"} if user else {}
    with closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return f"{answer.status} {answer.headers.get('Location') or answer.read().decode()}"


def test_nobody_gets_in_without_a_login(port: int) -> None:
    for path in ("/", "/operate/", "/mlflow/", "/reports/", "/graphql"):
        assert ask(port, path).startswith("401"), path
        assert ask(port, path, "anna", password="wrong").startswith("401"), path


def test_viewers_see_the_read_only_webserver_and_operators_the_other(
    port: int, upstreams: dict[str, int]
) -> None:
    assert ask(port, "/runs", "anna") == f"200 {upstreams['3002']} /runs None"
    assert ask(port, "/operate/graphql", "anna").startswith("401")
    assert ask(port, "/operate/graphql", "otto") == f"200 {upstreams['3000']} /operate/graphql None"


def test_mlflow_can_be_looked_at_and_not_changed(port: int, upstreams: dict[str, int]) -> None:
    assert ask(port, "/mlflow/x", "anna") == f"200 {upstreams['5000']} /x None"
    search = "/ajax-api/2.0/mlflow/runs/search"
    found = ask(port, f"/mlflow{search}?a=b", "anna", "POST")
    assert found == f"200 {upstreams['5000']} {search}?a=b None"
    for method, path in (("DELETE", "/x"), ("POST", "/api/2.0/mlflow/runs/delete")):
        assert ask(port, f"/mlflow{path}", "anna", method).startswith("403"), path


def test_viewers_read_the_pages_and_change_nothing(port: int) -> None:
    assert ask(port, "/reports/claims/model_card_v1.html", "anna") == "200 version 1"
    assert "model_card_v1.html" in ask(port, "/reports/claims/", "anna")
    # A folder without its last slash is sent on to where the browser finds it.
    assert ask(port, "/reports/claims", "anna").endswith(f":{port}/reports/claims/")
    assert ask(port, "/reports/claims/none.html", "anna").startswith("404")
    assert ask(port, "/reports/claims/model_card_v1.html", "anna", "POST").startswith("403")
