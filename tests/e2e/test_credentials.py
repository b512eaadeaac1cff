"""Credentials that live and die while tasks run: work goes on after the refresh; without one it waits for it.

The store is SeaweedFS with several keys. Before it stands a server that refuses a key whose session has ended, as AWS
does (400 ExpiredToken); everything else is passed on as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler

import more_stores
import pytest
from servers import connect_to
from stub_servers import StubServer, pass_on, running
from waiting import until

import oq_nb
from oq_nb.errors import StorageDeniedError

BUCKET = "oq-tests"
KEYS = [f"SESSION{number}" for number in range(6)]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A SeaweedFS with as many keys as there are sessions."""
    directory = tmp_path_factory.mktemp("keys")
    with more_stores.seaweedfs_with_keys(directory, {key: f"secret-{key}" for key in KEYS}) as server:
        connect_to(server)
        yield server


class Sessions(StubServer):
    """Refuses keys whose session has ended; notes which key each request had."""

    def __init__(self, upstream: str) -> None:
        super().__init__(_Handler)
        self.upstream = upstream.removeprefix("http://")
        self.ended: set[str] = set()
        self.taken: list[str] = []
        self.refused: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Sessions

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        key = re.search(r"Credential=([^/]+)/", self.headers.get("Authorization", "Credential=none/"))[1]
        if key in self.server.ended:
            self.server.refused.append(key)
            status, headers = 400, []
            content = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        else:
            self.server.taken.append(key)
            status, headers, content = pass_on(self, self.server.upstream, body)
            headers = [line for line in headers if line[0].lower() in _PASSED_ON]
        self.send_response(status)
        for name, value in [*headers, ("Content-Length", str(len(content)))]:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_PUT = do_DELETE = answer

    def log_message(self, *_: object) -> None:
        pass


_PASSED_ON = ("etag", "content-type", "x-amz-version-id", "x-amz-delete-marker")


@pytest.fixture
def sessions(store):
    with running(Sessions(store.endpoint)) as server:
        yield server


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with nothing in it; returns the folder."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_PROFILE", "oq")
    return tmp_path


def by_process(home) -> None:
    """Have credentials come from a program: what is in ``session.json``, for some seconds; an error without it."""
    program = home / "program.py"
    program.write_text(
        "import datetime, json, pathlib, sys\n"
        f"path = pathlib.Path({str(home / 'session.json')!r})\n"
        "if not path.exists(): sys.exit('log in first')\n"
        "key = json.loads(path.read_text())\n"
        "over = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=5)\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': key, 'SecretAccessKey': 'secret-' + key,\n"
        "                  'Expiration': over.isoformat()}))\n"
    )
    (home / "config").write_text(f"[profile oq]\ncredential_process = {sys.executable} -I -S {program}\n")


def log_in(home, key: str) -> None:
    """Begin a session, for `by_process`."""
    draft = home / "session.draft"
    draft.write_text(json.dumps(key))
    draft.replace(home / "session.json")


def write_profile(home, key: str) -> None:
    """Begin a session, as ``aws sts … `` and a copy into the credentials file do."""
    draft = home / "credentials.draft"
    draft.write_text(f"[oq]\naws_access_key_id = {key}\naws_secret_access_key = secret-{key}\n")
    draft.replace(home / "credentials")


def connected(sessions: Sessions, request) -> oq_nb.Queue:
    name = re.sub(r"\W+", "-", request.node.name)
    return oq_nb.connect(BUCKET, endpoint=sessions.url, prefix=f"{name}-{time.time_ns()}/")


@contextlib.contextmanager
def working(queue: oq_nb.Queue):
    """Run a worker whose handler reports until it is told to end; yields what to wait for and to set."""
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)
    started, told = threading.Event(), threading.Event()

    @worker.task("long")
    def long(_, context):
        started.set()
        step = 0
        while not told.wait(0.1):
            step += 1
            context.report_progress(current=step)
        return step

    with worker:
        yield started, told


def test_a_session_that_ends_in_the_middle_of_a_run_is_followed_by_the_next(sessions, home, request):
    """As with a role: each session ends, the next one is there."""
    by_process(home)
    log_in(home, KEYS[0])
    queue = connected(sessions, request)
    with working(queue) as (started, told):
        task = queue.submit("long", 1)
        assert started.wait(30)
        for number in range(1, 4):
            until(lambda key=KEYS[number - 1]: key in sessions.taken)
            log_in(home, KEYS[number])
            sessions.ended.add(KEYS[number - 1])
            until(lambda key=KEYS[number]: sessions.taken.count(key) > 5)
        told.set()
        assert task.result(timeout=30) > 0
    assert [record.status.value for record in task.history()][-1] == "completed"
    assert task.refresh().record.attempt == 1, "once"


def test_a_profile_that_was_renewed_is_read_again(store, sessions, home, request):
    """A session's keys in the credentials file: boto3 would never look there again."""
    write_profile(home, KEYS[0])
    queue = connected(sessions, request)
    first_client = queue.store.objects._client
    with working(queue) as (started, told):
        task = queue.submit("long", 1)
        assert started.wait(30)
        sessions.ended.add(KEYS[0])
        until(lambda: len(sessions.refused) > 3)
        told.set()  # the handler finishes in the meantime
        with pytest.raises(StorageDeniedError, match="the session of these credentials has ended .*log in again"):
            task.wait(10)
        write_profile(home, KEYS[1])
        assert connect_to(store, prefix=queue.store.objects.prefix).get(task.id).result(timeout=60) >= 0
    assert KEYS[1] in sessions.taken
    assert task.refresh().record.attempt == 1, "its end was written when credentials were back"
    assert queue.store.objects._client is not first_client
    assert len(first_client._http._manager.pools) == 0, "the connections of the first session are closed"


def test_credentials_that_are_gone_for_a_while(sessions, home, request, caplog):
    """The handler finishes, its end is written when they are back; the log says it once, not with every request."""
    by_process(home)
    log_in(home, KEYS[0])
    queue = connected(sessions, request)
    caplog.set_level(logging.WARNING, logger="oq_nb")
    with working(queue) as (started, told):
        task = queue.submit("long", 1)
        assert started.wait(30)
        (home / "session.json").unlink()
        told.set()
        until(lambda: any("log in first" in record.getMessage() for record in caplog.records))
        time.sleep(3)
        warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert not any(record.exc_info for record in warnings), "no traceback"
        assert len(warnings) <= 4, [record.getMessage() for record in warnings]
        log_in(home, KEYS[1])
        assert task.result(timeout=60) >= 0
    assert task.refresh().record.attempt == 1
    print(f"| credentials are gone | {warnings[0].getMessage()} | a worker's log |")


def test_an_expired_log_in_is_one_clear_message(sessions, home):
    """AWS IAM Identity Center: the token in the cache is over, and nobody is there to log in."""
    (home / "config").write_text(
        "[profile oq]\nsso_session = mine\nsso_account_id = 123456789012\nsso_role_name = worker\nregion = us-east-1\n"
        "[sso-session mine]\nsso_region = us-east-1\nsso_start_url = https://example.awsapps.com/start\n"
    )
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    over = (datetime.now(timezone.utc) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    where = {"startUrl": "https://example.awsapps.com/start", "region": "us-east-1"}
    token = {**where, "accessToken": "x", "expiresAt": over}
    (cache / f"{hashlib.sha1(b'mine').hexdigest()}.json").write_text(json.dumps(token))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for command in (["list"], ["worker", "os.path:join"], ["doctor"]):
        made = subprocess.run(
            [sys.executable, "-m", "oq_nb", *command, "--bucket", BUCKET, "--endpoint", sessions.url],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        text = " ".join((made.stdout + made.stderr).split())
        assert made.returncode != 0
        assert "no usable credentials for LIST bucket" in text and "log in again (aws sso login)" in text, text
        assert "expired" in text and "Traceback" not in text, text
        print(f"| expired SSO log-in | {text} | oq {command[0]} |")
    assert sessions.taken == []


def test_a_role_of_motos_is_assumed_and_renewed(moto_server, home, monkeypatch):
    """STS hands out sessions of a quarter of an hour, which boto3 renews all the time, as they are about to end."""
    (home / "config").write_text(
        "[profile base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n"
        "[profile oq]\nrole_arn = arn:aws:iam::123456789012:role/worker\nsource_profile = base\n"
        "duration_seconds = 900\nregion = us-east-1\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_server.endpoint)
    queue = oq_nb.connect(BUCKET, endpoint=moto_server.endpoint, create=True, prefix=f"role-{time.time_ns()}/")
    seen: set[str] = set()
    with working(queue) as (started, told):
        task = queue.submit("long", 1)
        assert started.wait(30)

        def renewed() -> bool:
            seen.add(queue.store.objects._client.identity()[0])
            return len(seen) >= 3

        until(renewed)
        told.set()
        assert task.result(timeout=30) >= 0
    assert all(key.startswith("ASIA") for key in seen)
    assert task.refresh().record.attempt == 1


def test_credentials_of_the_machine(moto_server, home, monkeypatch):
    """An instance's role, from the metadata service (moto's)."""
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", moto_server.endpoint)
    queue = oq_nb.connect(BUCKET, endpoint=moto_server.endpoint, create=True, prefix=f"machine-{time.time_ns()}/")
    task = queue.submit("t", 1)
    assert queue.get(task.id).input == 1
    assert queue.store.objects._client.identity()[1], "with a token"
