"""What the direct client does besides sending: redirects, event handlers, forks, wrong clocks."""

from __future__ import annotations

import os
import re
import time
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from unittest import mock

import pytest
from servers import connect_to
from stub_servers import StubServer, running

from oq_nb.errors import StorageDeniedError
from oq_nb.s3 import S3Store
from oq_nb.s3.clock import Clock

SECRET = "planted/secret+key/0123456789abcdefghij"


class Regional(StubServer):
    """A store whose bucket is in one region; it refuses requests that are signed for another, as AWS does."""

    def __init__(self, region: str) -> None:
        super().__init__(_Handler)
        self.region = region
        self.names_region = True
        self.seen: list[tuple[str, int, str]] = []  # of each request: region, port of the client, who sent it


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Regional

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        region = re.search(r"/(\d{8})/([^/]+)/s3/", self.headers["authorization"])[2]
        sender = "boto3" if "amz-sdk-invocation-id" in self.headers else "direct"
        self.server.seen.append((region, self.client_address[1], sender))
        status, headers, body = 200, {"ETag": '"e"'}, b""
        if region != self.server.region:
            found = f"<Region>{self.server.region}</Region>" if self.server.names_region else ""
            body = f"<Error><Code>AuthorizationHeaderMalformed</Code>{found}</Error>".encode()
            status, headers = 400, {}
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def regional():
    with running(Regional("eu-west-1")) as server:
        yield server


def store_at(endpoint: str, **options) -> S3Store:
    settings = {"region": "us-east-1", "access_key": "AKIAPLANTED", "secret_key": SECRET, "sleep": lambda _: None}
    return S3Store("bucket-1", endpoint=endpoint, **settings | options)


def seen(server: Regional) -> list[tuple[str, str]]:
    found = [(region, sender) for region, _, sender in server.seen]
    server.seen.clear()
    return found


def test_a_redirect_is_followed_once_and_remembered(regional):
    store = store_at(regional.url)
    store.get("k")
    assert seen(regional) == [("us-east-1", "boto3"), ("eu-west-1", "boto3")]
    for _ in range(3):
        store.get("k")
        store.put("k", b"")
    assert seen(regional) == [("eu-west-1", "direct"), ("eu-west-1", "boto3")] + [("eu-west-1", "direct")] * 4
    store.close()


def test_a_bucket_that_moves_is_followed(regional):
    store = store_at(regional.url, region="eu-west-1")
    store.get("k")
    store.get("k")
    assert seen(regional) == [("eu-west-1", "boto3"), ("eu-west-1", "direct")]
    regional.region = "eu-central-1"
    for _ in range(3):
        store.get("k")
    assert seen(regional) == [
        ("eu-west-1", "direct"),
        ("eu-west-1", "boto3"),
        ("eu-central-1", "boto3"),
        ("eu-central-1", "direct"),
        ("eu-central-1", "direct"),
    ]
    store.close()


def test_a_region_that_nobody_names_costs_one_request_each_time(regional):
    store, regional.names_region = store_at(regional.url), False
    for _ in range(3):
        with pytest.raises(Exception, match="region"):
            store.delete("k")
    heads = 2  # boto3 looks for the region with each
    assert len(regional.seen) <= 3 * (1 + heads)
    assert {sender for _, sender in seen(regional)} == {"boto3"}
    store.close()


def test_handlers_that_somebody_registers_are_called(regional):
    store = store_at(regional.url, region="eu-west-1")
    events: list[str] = []

    def note(event_name: str, **_: object) -> None:
        events.append(event_name)

    requests = (lambda: store.get("k"), lambda: store.put("k", b""), lambda: store.delete("k"))
    for request in requests * 2:
        request()
    assert seen(regional)[3:] == [("eu-west-1", "direct")] * 3
    for event in ("before-send.s3", "before-call.s3", "after-call.s3.GetObject"):
        store.client.meta.events.register(event, note)
    for request in requests:
        request()
    assert events == [
        *("before-call.s3.GetObject", "before-send.s3.GetObject", "after-call.s3.GetObject"),
        *("before-call.s3.PutObject", "before-send.s3.PutObject"),
        *("before-call.s3.DeleteObject", "before-send.s3.DeleteObject"),
    ]
    assert seen(regional) == [("eu-west-1", "boto3")] * 3
    for event in ("before-send.s3", "before-call.s3", "after-call.s3.GetObject"):
        store.client.meta.events.unregister(event, note)
    store.get("k")
    assert seen(regional) == [("eu-west-1", "direct")]
    store.close()


def test_a_handler_that_adds_a_header_has_its_header_sent(regional):
    """As programs do that need one on each request, such as who pays."""
    store = store_at(regional.url, region="eu-west-1")
    store.get("k")
    sent = []
    store.client.meta.events.register("before-sign.s3", lambda request, **_: request.headers.add_header("x-mine", "1"))
    store.client.meta.events.register("before-send.s3", lambda request, **_: sent.append(dict(request.headers)))
    store.get("k")
    assert sent[0]["x-mine"] in ("1", b"1")
    assert "x-mine" in str(sent[0]["Authorization"])
    store.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_has_connections_and_locks_of_its_own(regional):
    store = store_at(regional.url, region="eu-west-1")
    store.get("k")
    store.get("k")
    parents = {port for _, port, _ in regional.seen}
    regional.seen.clear()
    locks = [store._lock, store.clock._lock]
    for lock in locks:  # as another thread may hold them in that moment
        lock.acquire()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.clock.now()
            store.get("k")
            code = 0
        finally:
            os._exit(code)
    for lock in locks:
        lock.release()
    deadline, ended, status = time.monotonic() + 30, 0, -1
    while ended == 0 and time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.02)
    if ended == 0:
        os.kill(child, 9)
        os.waitpid(child, 0)
    assert (ended, status) == (child, 0), "the child waits for a lock, or failed"
    assert {port for _, port, _ in regional.seen} & parents == set(), "an answer on the parent's connection"
    regional.seen.clear()
    store.get("k")
    assert {port for _, port, _ in regional.seen} <= parents, "the parent's is still there"
    store.close()


def machine_clock_off_by(seconds: float) -> AbstractContextManager[object]:
    """Have botocore sign as it would on a machine whose clock is wrong."""

    def now(remove_tzinfo: bool = True) -> datetime:
        made = datetime.now(timezone.utc) + timedelta(seconds=seconds)
        return made.replace(tzinfo=None) if remove_tzinfo else made

    return mock.patch("botocore.auth.get_current_datetime", now)


@pytest.mark.parametrize("seconds", [-7200, 7200])
def test_a_clock_that_is_hours_wrong_is_no_matter(seaweedfs, seconds):
    """SeaweedFS refuses signatures beyond a quarter of an hour: requests are signed with its own time."""
    right = connect_to(seaweedfs).store.objects
    store = S3Store(
        right.bucket,
        prefix=right.prefix,
        endpoint=seaweedfs.endpoint,
        region="us-east-1",
        access_key=seaweedfs.access_key,
        secret_key=seaweedfs.secret_key,
        clock=Clock(wall=lambda: time.time() + seconds),
        attempts=1,
    )
    with machine_clock_off_by(seconds):
        for number in range(2):  # through boto3, then directly
            made = store.put(f"k{number}", b"1", create=True)
            assert store.get(f"k{number}").etag == made.etag
            assert [entry.key for entry in store.versions(f"k{number}")] == [f"k{number}"]
            assert store.read_versioning()
            store.delete(f"k{number}", version_id=made.version_id)
    assert abs(store.clock.now().timestamp() - time.time()) < 3
    assert store.requests["PUT"] == 3, "one was refused"
    store.close()
    right.close()


def test_a_store_that_refuses_its_own_time_is_told_apart(seaweedfs):
    """Nothing to be done: the message says what is wrong."""
    store = S3Store(
        "oq-tests",
        endpoint=seaweedfs.endpoint,
        region="us-east-1",
        access_key=seaweedfs.access_key,
        secret_key=seaweedfs.secret_key,
        direct=False,
    )
    with machine_clock_off_by(172_800), pytest.raises(StorageDeniedError, match="clock is wrong, set it"):
        store.get("k")
    store.close()
