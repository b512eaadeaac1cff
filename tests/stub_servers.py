"""Servers that stand in for a store's bad moments, and the proxies among them: one way to run and to end them all.

Ended with their threads and connections, those to the store behind a proxy too: what is left open would be found, and
reported, by the collector in some later test.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
import threading
from collections.abc import Collection, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple, TypeVar


class StubServer(ThreadingHTTPServer):
    """A server on a free port of this machine, for `running`."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self._serving: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Serve a connection in a thread of its own."""
        arguments = (request, client_address)
        thread = threading.Thread(target=self.process_request_thread, args=arguments, name="stub", daemon=True)
        with self._lock:
            self._serving[thread] = request
        thread.start()

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """Serve it, until one of both sides ends it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._serving.pop(threading.current_thread(), None)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing when the other side has gone away: that is often what is tested."""
        if not isinstance(sys.exc_info()[1], (OSError, http.client.HTTPException)):
            super().handle_error(request, client_address)

    def end(self) -> None:
        """End the connections, then wait for their threads."""
        self.shutdown()
        self.server_close()
        with self._lock:
            serving = dict(self._serving)
        for connection in serving.values():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in serving:
            thread.join(20)


S = TypeVar("S", bound=StubServer)


@contextlib.contextmanager
def running(server: S) -> Iterator[S]:
    """Run a server until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.end()
        thread.join()


class Answer(NamedTuple):
    """What a server said."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes


def pass_on(
    handler: BaseHTTPRequestHandler, target: str, body: bytes, *, without: Collection[str] = (), host: bool = True
) -> Answer:
    """Ask ``target`` (host and port) what ``handler`` was asked, by a connection for this request.

    Args:
        handler: with the request.
        target: the store behind.
        body: of the request.
        without: headers that are left out, in small letters.
        host: pass the ``Host`` header on, which is signed.
    """
    connection = http.client.HTTPConnection(target, timeout=10)
    with contextlib.closing(connection):
        connection.putrequest(handler.command, handler.path, skip_host=host, skip_accept_encoding=True)
        for name, value in handler.headers.items():
            if name.lower() not in without and (host or name.lower() != "host"):
                connection.putheader(name, value)
        connection.endheaders(body)
        with contextlib.closing(connection.getresponse()) as answer:
            return Answer(answer.status, answer.getheaders(), answer.read())
