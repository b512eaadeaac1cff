"""Connections to a plain HTTP endpoint: kept, replaced, and never with an answer on them that is another request's."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError, ReadTimeoutError

from oq_nb.s3 import S3Store
from oq_nb.s3.direct.plain_http import PlainSession


class Echo:
    """A server that answers each request with its path, and can be told to do worse."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self._ends.append(end)
            self._threads.append(threading.Thread(target=self._serve, args=(end,), daemon=True))
            self._threads[-1].start()

    def _serve(self, end: socket.socket) -> None:
        with end, end.makefile("rb") as lines:
            try:
                while line := lines.readline():
                    path = line.split()[1]
                    while lines.readline().strip():
                        pass
                    if path == b"/silence":
                        continue
                    if path == b"/nonsense":
                        end.sendall(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
                        return
                    said = b" close" if path == b"/last" else b" keep-alive"
                    end.sendall(b"HTTP/1.1 200 OK\r\nConnection:%s\r\nContent-Length: %d\r\n\r\n" % (said, len(path)))
                    end.sendall(path[:2] if path == b"/half" else path)
                    if path in (b"/half", b"/last", b"/hangs-up"):
                        return
            except OSError:
                pass

    def hang_up(self) -> None:
        for end in self._ends:
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads[1:]:
            thread.join(5)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join(5)
        self.hang_up()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def session(echo):
    made = PlainSession(echo.url, connect_timeout=10, read_timeout=10, max_connections=4)
    yield made
    made.close()


@pytest.fixture
def hasty(echo):
    """A session that does not wait long; the other one's threads share two processors with their server."""
    made = PlainSession(echo.url, connect_timeout=10, read_timeout=0.3, max_connections=4)
    yield made
    made.close()


def ask(session, echo, path, *, streams=False):
    return session.send(AWSPreparedRequest("GET", echo.url + path, {}, None, streams))


def test_one_connection_serves_one_request_after_the_other(session, echo):
    assert [ask(session, echo, f"/{n}").content for n in range(5)] == [b"/%d" % n for n in range(5)]
    assert echo.connections == 1


def test_every_thread_gets_its_own_answers_and_no_more_connections_are_kept_than_said(session, echo):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: ask(session, echo, f"/{n}").content, range(2000)))
    assert answers == [b"/%d" % n for n in range(2000)]
    assert 1 <= len(session._free) <= 4


@pytest.mark.parametrize("path", ["/last", "/hangs-up"])
def test_a_connection_that_the_store_has_closed_is_replaced(session, echo, path):
    assert ask(session, echo, path).content == path.encode()
    echo.hang_up()
    assert ask(session, echo, "/next").content == b"/next"
    assert echo.connections == 2


@pytest.mark.parametrize(
    ("path", "expected"), [("/silence", ReadTimeoutError), ("/nonsense", ConnectionClosedError)], ids=str
)
def test_after_a_failure_the_connection_is_not_used_again(hasty, echo, path, expected):
    ask(hasty, echo, "/first")
    with pytest.raises(expected):
        ask(hasty, echo, path)
    assert ask(hasty, echo, "/next").content == b"/next"
    assert echo.connections == 2


def test_half_a_body_is_given_and_the_connection_is_not_used_again(session, echo):
    assert ask(session, echo, "/half").content == b"/h"
    assert ask(session, echo, "/next").content == b"/next"
    assert echo.connections == 2


def test_a_body_that_nobody_reads_is_on_no_connection_that_is_used_again(session, echo):
    one = ask(session, echo, "/one", streams=True)
    assert ask(session, echo, "/two").content == b"/two"
    one.raw.close()
    assert ask(session, echo, "/three").content == b"/three"
    assert echo.connections == 2
    four = ask(session, echo, "/four", streams=True)
    assert (four.content, four.content) == (b"/four", b"/four")
    assert ask(session, echo, "/five").content == b"/five"
    assert echo.connections == 2


def test_ctrl_c_in_the_middle_of_an_answer(session, echo, monkeypatch):
    ask(session, echo, "/first")
    connection = session._free[-1]

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(connection, "getresponse", interrupt)
    with pytest.raises(KeyboardInterrupt):
        ask(session, echo, "/interrupted")
    assert ask(session, echo, "/next").content == b"/next"


def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        session = PlainSession(url, connect_timeout=2, read_timeout=0.3, max_connections=4)
        with pytest.raises(EndpointConnectionError):
            session.send(AWSPreparedRequest("GET", url + "/", {}, None, False))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_leaves_its_parents_connections_alone(session, echo):
    ask(session, echo, "/parent")
    context = multiprocessing.get_context("fork")
    said = context.SimpleQueue()
    child = context.Process(target=lambda: said.put([ask(session, echo, f"/child-{n}").content for n in range(3)]))
    child.start()
    child.join(20)
    assert child.exitcode == 0
    assert said.get() == [b"/child-0", b"/child-1", b"/child-2"]
    assert ask(session, echo, "/parent-again").content == b"/parent-again"
    assert echo.connections == 2, "one each"


def test_closed_connections_are_closed(session, echo):
    ask(session, echo, "/one")
    sock = session._free[-1].sock
    session.close()
    assert sock.fileno() == -1
    assert ask(session, echo, "/two").content == b"/two"


@pytest.mark.parametrize(
    ("endpoint", "options", "environment", "is_plain"),
    [
        ("http://127.0.0.1:9000", {}, {}, True),
        ("http://127.0.0.1:9000", {"addressing_style": "virtual"}, {}, True),
        ("https://127.0.0.1:9000", {}, {}, False),
        (None, {}, {}, False),
        ("http://10.0.0.1:9000", {}, {"HTTP_PROXY": "http://127.0.0.1:1"}, False),
        ("http://10.0.0.1:9000", {}, {"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": "10.0.0.1"}, True),
        ("http://10.0.0.1:9000", {}, {"HTTPS_PROXY": "http://127.0.0.1:1"}, True),
        ("http://10.0.0.1:9000", {"proxies": {"http": "http://127.0.0.1:1"}}, {}, False),
        ("http://10.0.0.1:9000", {"proxies": {}}, {"HTTP_PROXY": "http://127.0.0.1:1"}, True),
    ],
)
def test_only_where_there_is_neither_tls_nor_a_proxy(endpoint, options, environment, is_plain, monkeypatch):
    for name in ("HTTP_PROXY", "NO_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name.lower(), value)
    proxies = options.get("proxies")
    config = Config(proxies=proxies, s3={"addressing_style": options.get("addressing_style", "path")})
    store = S3Store(
        "bucket-1",
        endpoint=endpoint,
        region="eu-west-1",
        access_key="a",
        secret_key="b",
        client_options={"config": config},
    )
    assert store._client._find_place() is not None
    assert isinstance(store._client._http, PlainSession) is is_plain
    store.close()
