"""Real receivers of alerts on the loopback: HTTP and SMTP servers that can be down or hang."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def http_receiver(
    port: int, *, status: int = 200, pause_s: float = 0
) -> Iterator[list[dict[str, Any]]]:
    """Takes what Apprise's `json://` posts, and heartbeats; yields what it got."""
    got: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.answer(json.loads(body))

        def do_GET(self) -> None:
            self.answer({"asked": self.path})

        def answer(self, found: dict[str, Any]) -> None:
            time.sleep(pause_s)
            if status == 200:
                got.append(found)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def smtp_receiver(port: int) -> Iterator[list[tuple[str, str]]]:
    """Takes mail; yields the subject and the text of each."""
    from aiosmtpd.controller import Controller

    got: list[tuple[str, str]] = []

    class Handler:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            mail = message_from_bytes(envelope.content, policy=policy.default)
            body = mail.get_body(("plain", "html"))
            got.append((str(mail["Subject"]), body.get_content() if body else ""))
            return "250 OK"

    controller = Controller(Handler(), hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield got
    finally:
        controller.stop()


def http_url(port: int) -> str:
    return f"json://127.0.0.1:{port}"


def mail_url(port: int, password: str = "") -> str:
    login = f"ops:{password}@" if password else ""
    return (
        f"mailto://{login}127.0.0.1?smtp=127.0.0.1&port={port}&mode=insecure"
        "&from=ml@example.org&to=ops@example.org&format=text"
    )
