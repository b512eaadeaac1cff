"""Connections to a plain HTTP endpoint, on the standard library's client: a third of the time of botocore's session.

A store next door (on this machine, in this rack) answers within a millisecond; then most of a request's time is what
botocore's session and urllib3 do about it in this process, holding the interpreter. `PlainSession` stands in for that
session where there is nothing for it to do: no TLS, no proxy. Everything else goes through botocore's.

Invariants:

* Answers and exceptions are those of botocore's session.
* A connection goes back to the others only when its answer was read to the end: no answer is ever taken for another's.

Part of `s3`. Imports nothing of the package.
"""

from __future__ import annotations

import http.client
import os
import socket
import weakref
from collections import deque
from contextlib import suppress
from typing import Any, NoReturn
from urllib.parse import urlsplit

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.utils import get_environ_proxies
from urllib3.util import wait_for_read

__all__ = ["PlainAnswer", "PlainSession"]


class PlainSession:
    """Sends requests to one origin, over connections that are kept for the next ones.

    Args:
        origin: the URL whose scheme, host and port are connected to; ``http`` only.
        connect_timeout: bound on setting up a connection, seconds; None: no bound.
        read_timeout: bound on each wait for the answer, seconds; None: no bound.
        max_connections: how many are kept.
    """

    def __init__(
        self, origin: str, *, connect_timeout: float | None, read_timeout: float | None, max_connections: int
    ) -> None:
        self._free: deque[http.client.HTTPConnection] = deque()
        parts = urlsplit(origin)
        self._host, self._port = parts.hostname or "", parts.port or http.client.HTTP_PORT
        self._origin_length = len(f"{parts.scheme}://{parts.netloc}")
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._max_connections = max_connections
        self._process = os.getpid()
        weakref.finalize(self, _close_all, self._free)

    @classmethod
    def instead_of(cls, client: Any, origin: str) -> PlainSession | None:
        """Return a session for a boto3 client's requests to ``origin``; None where botocore's own has to send them."""
        config = client.meta.config
        proxies = get_environ_proxies(origin) if config.proxies is None else config.proxies
        if not origin.startswith("http://") or proxies.get("http"):
            return None
        return cls(
            origin,
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            max_connections=config.max_pool_connections,
        )

    def close(self) -> None:
        """Close the connections that are not in use."""
        _close_all(self._free)

    def send(self, request: Any) -> PlainAnswer:
        """Send a request of botocore's, and return the answer, whose body is read at once unless it is to be streamed.

        Raises:
            EndpointConnectionError: nobody listens.
            ConnectTimeoutError: nobody answers.
            ReadTimeoutError: the answer does not come.
            ConnectionClosedError: it broke off.
            HTTPClientError: it is not HTTP.
        """
        connection = self._connection(request.url)
        try:
            with suppress(BrokenPipeError):  # refused before it was read to the end: the answer says why
                connection.request(request.method, request.url[self._origin_length :], request.body, request.headers)
            answer = PlainAnswer(self, connection, connection.getresponse(), request.url)
        except BaseException as exc:
            connection.close()
            _raise(exc, request.url)
        if not request.stream_output:
            answer.content  # noqa: B018
        return answer

    def _connection(self, url: str) -> http.client.HTTPConnection:
        if self._process != os.getpid():  # a fork: these are our parent's
            self.close()
            self._process = os.getpid()
        while self._free:
            with suppress(IndexError):
                connection = self._free.pop()
                if not wait_for_read(connection.sock, 0):  # else the other end has hung up
                    return connection
                connection.close()
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._connect_timeout)
        try:
            connection.connect()
        except TimeoutError as exc:
            raise ConnectTimeoutError(endpoint_url=url, error=exc) from exc
        except OSError as exc:
            raise EndpointConnectionError(endpoint_url=url, error=exc) from exc
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sock.settimeout(self._read_timeout)
        return connection

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection for the next request."""
        if connection.sock is None or len(self._free) >= self._max_connections:
            connection.close()
        else:
            self._free.append(connection)


class PlainAnswer:
    """What the store answered, as botocore's session returns it."""

    def __init__(
        self,
        session: PlainSession,
        connection: http.client.HTTPConnection,
        raw: http.client.HTTPResponse,
        url: str,
    ) -> None:
        self._session, self._connection, self._url = session, connection, url
        self._raw = raw
        self._content: bytes | None = None
        self.status_code, self.headers = raw.status, raw.headers

    @property
    def raw(self) -> PlainAnswer:
        """What to close."""
        return self

    @property
    def content(self) -> bytes:
        """The body; as much as there is, when it is shorter than its head says.

        Raises:
            ReadTimeoutError: it does not come.
            ConnectionClosedError: it broke off.
        """
        if self._content is None:
            try:
                self._content = self._raw.read()
            except BaseException as exc:
                self.close()
                if not isinstance(exc, http.client.IncompleteRead) or self._raw.chunked:
                    _raise(exc, self._url)
                self._content = exc.partial  # its length tells
            else:
                self._session.give_back(self._connection)
        return self._content

    def close(self) -> None:
        """Give up the rest of the body, and the connection with it."""
        self._raw.close()
        self._connection.close()


def _close_all(free: deque[http.client.HTTPConnection]) -> None:
    while free:
        with suppress(IndexError):  # another thread has taken the last one
            free.pop().close()


def _raise(exc: BaseException, url: str) -> NoReturn:
    """Raise what botocore's session raises for this."""
    if isinstance(exc, TimeoutError):
        raise ReadTimeoutError(endpoint_url=url, error=exc) from exc
    if isinstance(exc, (OSError, http.client.HTTPException)):
        raise ConnectionClosedError(endpoint_url=url, error=exc) from exc
    if isinstance(exc, Exception):
        raise HTTPClientError(error=exc) from exc
    raise exc
