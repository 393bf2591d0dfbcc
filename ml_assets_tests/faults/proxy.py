"""A TCP proxy in the path to a server, which can cut connections or fall silent."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal["cut", "silence"]


@dataclass
class Proxy:
    """Forwards to a port on loopback, until a fault strikes.

    Attributes:
        target: The server's port.
        port: The proxy's own.
        connections: How many it has taken so far.
        struck: How many of them met the fault.
    """

    target: int
    port: int = 0
    connections: int = 0
    struck: int = 0
    _fault: Fault | None = None
    _after_bytes: int = 0
    _times: int = 0
    _open: list[socket.socket] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def fail(self, fault: Fault, *, after_bytes: int, times: int) -> None:
        """Let the fault strike the next connections, once the server has sent so many bytes.

        Args:
            fault: `cut` resets both sides; `silence` forwards nothing more, and keeps both open.
            after_bytes: Bytes from the server that a connection still gets through.
            times: How many connections meet it; later ones are forwarded.
        """
        self._fault, self._after_bytes, self._times = fault, after_bytes, times

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            fault = self._fault if self._times > 0 else None
            self._times -= 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target), timeout=5)
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            for each in (client, server):
                # No thread may wait long within a socket: until it is out, no close takes effect.
                each.settimeout(0.1)
            silent = threading.Event()
            for source, sink, counted in ((server, client, True), (client, server, False)):
                threading.Thread(
                    target=self._forward,
                    args=(source, sink, fault if counted else None, silent),
                    daemon=True,
                ).start()

    def _forward(
        self,
        source: socket.socket,
        sink: socket.socket,
        fault: Fault | None,
        silent: threading.Event,
    ) -> None:
        left = self._after_bytes if fault else 0
        try:
            while found := self._received(source):
                if silent.is_set():
                    continue  # taken, and never handed on
                if fault and len(found) >= left:
                    sink.sendall(found[:left])
                    self.struck += 1
                    if fault == "cut":
                        _reset(source, sink)
                        return
                    silent.set()
                    self._over.wait()
                    return
                left -= len(found)
                sink.sendall(found)
            if not silent.is_set():
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            for each in (source, sink):
                with contextlib.suppress(OSError):
                    each.close()

    def _received(self, source: socket.socket) -> bytes:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                return source.recv(4096)
        return b""

    def _end(self) -> None:
        self._over.set()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.close()


def _reset(*each: socket.socket) -> None:
    """Close with a reset, as a firewall or a crashed machine does; not the polite way."""
    for one in each:
        with contextlib.suppress(OSError):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()


@contextmanager
def proxy_to(port: int) -> Iterator[Proxy]:
    """A proxy before a server on loopback; it and its connections are gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(port, listener.getsockname()[1])
        thread = threading.Thread(target=proxy._serve, args=(listener,), daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(timeout=5)
            proxy._end()
