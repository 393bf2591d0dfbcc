"""Serves the pages for people (model cards, monitoring), so that links in the UI open.

A page of http cannot link to a file, and Dagster serves no files of ours. How the pages look is in
`ml_assets.report`; where they lie, with those who write them. `ml-assets ui` starts this beside
Dagster, and `deploy/compose.yaml` as a service; where a web server can read the folder, let that
serve it (`reports.url`).
"""

import argparse
import contextlib
from collections.abc import Sequence
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# The pages bring their styles and pictures along, and need neither script nor request.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
_HOSTS = ("127.0.0.1", "localhost")


class Pages(SimpleHTTPRequestHandler):
    """Answers with HTML files of a folder, and with lists of them; never with anything else."""

    server_version = "ml-assets"

    def send_head(self) -> Any:
        """Refuse what is not a page, before the base class opens it."""
        # Another site's name that resolves to this machine is no reason to show it our pages.
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in _HOSTS:
            self.send_error(HTTPStatus.FORBIDDEN, "Open the pages by http://127.0.0.1")
            return None
        file, folder = Path(self.translate_path(self.path)).resolve(), Path(self.directory)
        is_page = file.is_dir() or file.suffix == ".html"
        if not (is_page and file.is_relative_to(folder.resolve())):
            self.send_error(HTTPStatus.NOT_FOUND, "There is no such page")
            return None
        return super().send_head()

    def end_headers(self) -> None:
        """Let no page run a script or ask another server, and none be shown from a cache."""
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of a request that was answered; `log_error` comes here too."""


def serve_pages(folder: Path, port: int, host: str = "127.0.0.1") -> None:
    """Serve a folder's pages until this process ends; the folder need not exist yet.

    Args:
        folder: Where the pages lie.
        port: The port to listen on.
        host: The address to listen on; whatever it is, only requests to `_HOSTS` are answered.
    """
    with contextlib.suppress(OSError):  # on a volume of which it may read alone, others make it
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadingHTTPServer((host, port), partial(Pages, directory=str(folder))) as server:
        server.serve_forever()


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `python -m ml_assets.report_server`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    chosen = parser.parse_args(arguments)
    serve_pages(chosen.folder, chosen.port, chosen.host)


if __name__ == "__main__":
    main()
