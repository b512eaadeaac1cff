"""A faulty HTTP proxy in front of a real store: what botocore makes of broken answers is then botocore's own doing."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

from stub_servers import StubServer, pass_on, running

#: Faults by name, and whether the store has done what it was asked when they strike.
PROXY_FAULTS = {
    "answer lost": True,
    "500": False,
    "500 after it was applied": True,
    "503 SlowDown": False,
    "409 ConditionalRequestConflict": False,
    "connection reset": False,
    "connection reset after it was applied": True,
    "ten seconds of nothing": False,
    "truncated body": True,
}
#: Refusals and wrong answers, of the same form; what the client sees then is compared with the simulation.
PROXY_REFUSALS = {
    "ExpiredToken once": False,
    "AccessDenied once": False,
    "SignatureDoesNotMatch once": False,
    "RequestTimeTooSkewed once": False,
    "NoSuchBucket once": False,
    "429": False,
    "429 after it was applied": True,
    "RequestTimeout after it was applied": True,
    "PUT applied twice": True,
    "no ETag": True,
    "corrupt body": True,
    "stale 404": True,
}
_ERRORS = {
    "ExpiredToken once": (400, "ExpiredToken"),
    "AccessDenied once": (403, "AccessDenied"),
    "SignatureDoesNotMatch once": (403, "SignatureDoesNotMatch"),
    "RequestTimeTooSkewed once": (403, "RequestTimeTooSkewed"),
    "NoSuchBucket once": (404, "NoSuchBucket"),
    "429": (429, "TooManyRequests"),
    "429 after it was applied": (429, "TooManyRequests"),
    "RequestTimeout after it was applied": (400, "RequestTimeout"),
    "stale 404": (404, "NoSuchKey"),
    "500": (500, "InternalError"),
    "500 after it was applied": (500, "InternalError"),
    "503 SlowDown": (503, "SlowDown"),
    "409 ConditionalRequestConflict": (409, "ConditionalRequestConflict"),
}


class FaultyProxy(StubServer):
    """Passes requests on; the next `left` of them meet `fault`.

    Args:
        upstream: the store's address.
    """

    def __init__(self, upstream: str) -> None:
        super().__init__(_Handler)
        self.upstream = urlsplit(upstream).netloc
        self.fault: str | None = None
        self.left = 0
        self.seen = 0
        self.is_closing = threading.Event()
        self._counting = threading.Lock()

    @property
    def endpoint(self) -> str:
        return self.url

    def strike(self, fault: str | None, times: int = 1) -> None:
        with self._counting:
            self.fault, self.left, self.seen = fault, times, 0

    def next_fault(self, command: str, path: str) -> str | None:
        """Return what is to happen to a request: by their number here, by what they ask in a subclass."""
        with self._counting:
            self.seen += 1
            if self.left <= 0:
                return None
            self.left -= 1
            return self.fault

    def end(self) -> None:
        """End it at once, also where an answer is kept back."""
        self.is_closing.set()
        super().end()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        fault = self.server.next_fault(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault is None or (PROXY_FAULTS | PROXY_REFUSALS)[fault]:
            status, headers, content = self._pass_on(body)
        if fault == "PUT applied twice":
            status, headers, content = self._pass_on(body)
        if fault == "no ETag":
            headers = [(name, value) for name, value in headers if name.lower() != "etag"]
        if fault == "corrupt body":
            content = b"<html><body>Please log in to the network.</body></html>"
        if fault in (None, "PUT applied twice", "no ETag", "corrupt body"):
            self._answer(status, headers, content)
        elif fault in _ERRORS:
            code, name = _ERRORS[fault]
            text = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>x</Message></Error>".encode()
            self._answer(code, [("Content-Type", "application/xml")], text)
        elif fault in ("answer lost", "ten seconds of nothing"):
            self.server.is_closing.wait(10)
            self.close_connection = True
        elif fault == "truncated body":
            self._answer(status, headers, content, is_cut=True)
        else:
            # Closing with something unread or with no linger makes the kernel send a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True

    do_PUT = do_DELETE = do_HEAD = do_POST = do_GET

    def _pass_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        return pass_on(self, self.server.upstream, body, without=("expect", "connection"))

    def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes, *, is_cut: bool = False) -> None:
        lines = [f"HTTP/1.1 {status} X"]
        lines += [
            f"{k}: {v}" for k, v in headers if k.lower() not in ("content-length", "transfer-encoding", "connection")
        ]
        if status not in (204, 304):
            lines.append(f"Content-Length: {len(content)}")
        head = "\r\n".join(lines).encode("latin-1")
        if not is_cut:
            self.wfile.write(head + b"\r\n\r\n" + (b"" if self.command == "HEAD" else content))
            return
        # Without a body the cut is in the head.
        self.wfile.write(head + b"\r\n\r\n" + content[: len(content) // 2] if content else head[:10])
        self.close_connection = True


@contextmanager
def faulty_proxy(upstream: str) -> Iterator[FaultyProxy]:
    """Run a proxy until the block ends."""
    with running(FaultyProxy(upstream)) as proxy:
        yield proxy
