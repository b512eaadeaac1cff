"""The mistakes that people make, each made for real: the message says what is wrong, and what to do.

The same words come from `connect`, from a worker that starts, from ``oq doctor`` and from the widget. ``pytest -rP``
prints the table. Stores that name a region, a token's end or a proxy's log-in do not run here: for these three a server
answers as AWS and squid do.
"""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import sys
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler

import boto3
import more_stores
import pytest
from botocore.config import Config
from servers import connect_to
from stub_servers import StubServer, pass_on, running

import oq_nb
from oq_nb.admin.doctor import examine
from oq_nb.errors import ConfigurationError, OqError, StorageDeniedError
from oq_nb.queue import Queue
from oq_nb.queue.connection import open_store
from oq_nb.s3 import S3Store
from oq_nb.store import TaskStore

WAYS = ("connect", "worker", "doctor", "widget")


def said_by(way: str, bucket: str, settings: dict) -> str:
    """Return what somebody reads who makes a mistake in this way."""
    if way == "connect":
        with pytest.raises(OqError) as caught:
            oq_nb.connect(bucket, **settings)
        return str(caught.value)
    objects = open_store(bucket, **settings)
    try:
        if way == "doctor":
            made = examine(objects)
            assert not made.is_fit
            return next(f"{check.said}; {check.remedy}" for check in made.checks if check.outcome == "failed")
        queue = Queue(TaskStore(objects))
        if way == "widget":
            # It waits for 2 s at most: on a busy machine it may not know better by then than that nothing came.
            drawn = (html.unescape(queue._repr_mimebundle_()["text/html"]) for _ in range(20))
            return next(text for text in drawn if "no answer within 2 s" not in text)
        worker = oq_nb.Worker(queue)
        worker.task("t")(lambda _: None)
        with pytest.raises(OqError) as caught:
            worker.start()
        return str(caught.value)
    finally:
        objects.close()


def check(name: str, pattern: str, bucket: str, settings: dict, ways: tuple[str, ...] = WAYS) -> None:
    """Make a mistake in each way, and look for the words."""
    for way in ways:
        text = " ".join(said_by(way, bucket, settings).split())
        found = re.search(pattern, text)
        assert found, f"{way}: {pattern!r} is not in {text!r}"
        if way == ways[0]:
            print(f"| {name} | {text} | {', '.join(ways)} |")


def at(server, **settings) -> dict:
    """Return the settings of a store."""
    given = {"endpoint": server.endpoint, "access_key": server.access_key, "secret_key": server.secret_key}
    options = getattr(server, "options", None)
    return given | ({"client_options": options} if options else {}) | settings


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    with more_stores.seaweedfs_with_tls(tmp_path_factory.mktemp("tls")) as server:
        connect_to(server)
        yield server


@pytest.fixture(scope="module")
def store(seaweedfs):
    connect_to(seaweedfs)  # the bucket is there
    return seaweedfs


# --- address


def test_a_bucket_that_is_not_there(store):
    pattern = "'not-there' does not exist at .*check its name, or create it with connect"
    check("wrong bucket", pattern, "not-there", at(store), ("connect", "worker", "widget"))
    check(
        "wrong bucket",
        "there is no bucket 'not-there' here.*aws s3api create-bucket",
        "not-there",
        at(store),
        ("doctor",),
    )


def test_nobody_listens():
    settings = {"endpoint": "http://127.0.0.1:9", "access_key": "a", "secret_key": "s"}
    check("wrong port", "no answer from http://127.0.0.1:9 .*is the store running and reachable", "oq-tests", settings)


def test_it_is_no_s3(tmp_path):
    with serving(404, b"<html>Not found</html>") as url:
        settings = {"endpoint": url, "access_key": "a", "secret_key": "s"}
        check("wrong service", "does not answer as S3 does .*check the endpoint", "oq-tests", settings)


def test_https_to_a_port_without_tls(store):
    settings = at(store, endpoint=store.endpoint.replace("http:", "https:"))
    check("https for http", "does not speak TLS .*begin the address with http://", "oq-tests", settings)


def test_http_to_a_port_with_tls(tls):
    settings = at(tls, endpoint=tls.endpoint.replace("https:", "http:"))
    check("http for https", "begin the address with https:// if this port speaks TLS", "oq-tests", settings)


def test_an_authority_of_ones_own(tls):
    settings = {name: value for name, value in at(tls).items() if name != "client_options"}
    check("own authority", "no trusted connection .*client_options=.*'verify'.*AWS_CA_BUNDLE", "oq-tests", settings)
    connect_to(tls, create=False)


def test_the_bucket_in_the_host_name(store):
    """No name server knows it."""
    config = Config(s3={"addressing_style": "virtual"})
    endpoint = store.endpoint.replace("127.0.0.1", "store.invalid")
    settings = at(store, endpoint=endpoint, client_options={"config": config})
    check("virtual addressing", "part of the host name .*use addressing_style 'path'", "oq-tests", settings)


def test_a_proxy_that_is_not_there(store, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    check("proxy", "the proxy is not reachable: correct HTTP_PROXY .*NO_PROXY", "oq-tests", at(store))


def test_a_proxy_that_wants_a_password(store, monkeypatch):
    with serving(407, b"<html>Proxy Authentication Required</html>") as url:
        monkeypatch.setenv("HTTP_PROXY", url)
        monkeypatch.setenv("http_proxy", url)
        check("proxy's password", "a proxy wants a user and a password: .*NO_PROXY", "oq-tests", at(store))


def test_a_region_that_is_not_the_buckets():
    body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"
    with serving(400, body) as url:
        settings = {"endpoint": url, "access_key": "a", "secret_key": "s", "region": "us-east-1"}
        check("wrong region", "is in another region, eu-west-1 .*S3_REGION", "oq-tests", settings)


@pytest.mark.parametrize("prefix", ["../a/", "a/./b/", "a/..", "."])
def test_a_prefix_that_stores_refuse(store, prefix):
    pattern = "^prefix: no part of it may be . or .., which stores refuse"
    check(f"prefix {prefix}", pattern, "oq-tests", at(store, prefix=prefix), ("connect",))


# --- credentials


def test_a_wrong_key(store):
    pattern = "the store does not know this access key .*check AWS_ACCESS_KEY_ID"
    check("wrong key", pattern, "oq-tests", at(store, access_key="NOBODY"))


def test_a_wrong_secret(store):
    pattern = "the secret key does not belong to the access key .*check AWS_SECRET_ACCESS_KEY"
    check("wrong secret", pattern, "oq-tests", at(store, secret_key="not-it"))


def test_a_session_that_has_ended():
    with serving(
        400, b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
    ) as url:
        settings = {"endpoint": url, "access_key": "a", "secret_key": "s", "region": "us-east-1"}
        check("expired token", "the session of these credentials has ended .*log in again", "oq-tests", settings)


def test_no_credentials(store, monkeypatch):
    without_credentials(monkeypatch)
    settings = at(store, access_key=None, secret_key=None)
    check("no credentials", "no usable credentials .*set AWS_ACCESS_KEY_ID .*AWS_PROFILE", "oq-tests", settings)


def test_a_profile_that_is_not_there(store, monkeypatch):
    without_credentials(monkeypatch)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    settings = at(store, access_key=None, secret_key=None)
    check("wrong profile", "profile .*nobody.* could not be found", "oq-tests", settings, ("connect",))


def without_credentials(monkeypatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")


# --- permissions: a real policy each, with one action missing


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """Moto with policies that count; yields a function from the missing action to the settings of a user without it."""
    port, log = more_stores.free_port(), tmp_path_factory.mktemp("guarded") / "log"
    actions = [action for action, _ in NEEDED]
    environment = {**os.environ, "INITIAL_NO_AUTH_ACTION_COUNT": "1000000"}
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with more_stores.running("moto with policies", command, port, log, env=environment):
        settings = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "us-east-1"}
        keys = {"aws_access_key_id": "a", "aws_secret_access_key": "s"}
        s3, iam = (boto3.client(name, **settings, **keys) for name in ("s3", "iam"))
        s3.create_bucket(Bucket="jobs")
        s3.put_bucket_versioning(Bucket="jobs", VersioningConfiguration={"Status": "Enabled"})
        s3.put_object(Bucket="jobs", Key="k", Body=b"1")
        s3.create_bucket(Bucket="plain")
        users = {}
        for number, missing in enumerate(actions):
            iam.create_user(UserName=f"u{number}")
            allowed = [action for action in actions if action != missing]
            document = {"Effect": "Allow", "Action": allowed, "Resource": "*"}
            policy = json.dumps({"Version": "2012-10-17", "Statement": [document]})
            iam.put_user_policy(UserName=f"u{number}", PolicyName="p", PolicyDocument=policy)
            made = iam.create_access_key(UserName=f"u{number}")["AccessKey"]
            users[missing] = {"access_key": made["AccessKeyId"], "secret_key": made["SecretAccessKey"]}
        for client in (s3, iam):
            client.close()
        request = urllib.request.Request(f"{settings['endpoint_url']}/moto-api/reset-auth", b"0", method="POST")
        request.add_header("Content-Type", "text/plain")
        urllib.request.urlopen(request).close()  # from now on policies count
        yield lambda missing: {"endpoint": settings["endpoint_url"], "region": "us-east-1", **users[missing]}


#: The ten actions, and who reads that one is missing.
NEEDED = [
    ("s3:ListBucket", ("connect", "doctor", "widget")),
    ("s3:GetBucketVersioning", ("connect", "doctor")),
    ("s3:PutObject", ("worker", "doctor")),
    ("s3:GetObject", ("doctor",)),
    ("s3:ListBucketVersions", ("doctor",)),
    ("s3:GetObjectVersion", ("doctor",)),
    ("s3:DeleteObjectVersion", ("doctor",)),
    ("s3:PutBucketVersioning", ("create",)),
    ("s3:CreateBucket", ("create",)),
    ("s3:DeleteObject", ()),  # only where a bucket keeps no versions
]
REQUESTS = {
    "s3:ListBucket": lambda store: list(store.entries("")),
    "s3:GetBucketVersioning": lambda store: store.read_versioning(),
    "s3:PutObject": lambda store: store.put("k", b""),
    "s3:GetObject": lambda store: store.get("k"),
    "s3:ListBucketVersions": lambda store: list(store.versions("")),
    "s3:GetObjectVersion": lambda store: store.get("k", version_id="v"),
    "s3:DeleteObjectVersion": lambda store: store.delete("k", version_id="v"),
    "s3:PutBucketVersioning": lambda store: store.enable_versioning(),
    "s3:CreateBucket": lambda store: store.create_bucket(),
    "s3:DeleteObject": lambda store: store.delete("k"),
}


@pytest.mark.parametrize(("action", "ways"), NEEDED)
def test_a_permission_that_is_missing(guarded, action, ways):
    settings = guarded(action)
    pattern = f"the credentials do not allow [^(]*{action}, or .*allow it; `oq doctor --policy worker` prints"
    store = S3Store("jobs", **settings)
    with pytest.raises(StorageDeniedError, match=pattern):
        REQUESTS[action](store)
    store.close()
    if ways == ("create",):
        bucket = "plain" if action == "s3:PutBucketVersioning" else "new-bucket"
        check(f"without {action}", pattern, bucket, {**settings, "create": True}, ("connect",))
    elif ways:
        check(f"without {action}", pattern, "jobs", settings, ways)


# --- what the store cannot do


@pytest.fixture
def plain(store) -> str:
    """A bucket that keeps no versions."""
    name = f"plain-{uuid.uuid4().hex[:12]}"
    objects = S3Store(name, **at(store), region="us-east-1")
    objects.create_bucket()
    objects.close()
    return name


def test_a_bucket_without_versions_is_not_changed_unasked(store, plain):
    pattern = (
        f"bucket '{plain}' does not keep versions. Turn them on: connect.*create=True.*"
        f"aws s3api put-bucket-versioning --bucket {plain} --versioning-configuration Status=Enabled --endpoint-url "
        f"{store.endpoint}; or do without history: connect.*allow_unversioned=True"
    )
    check("no versioning", pattern, plain, at(store), ("connect",))
    objects = S3Store(plain, **at(store), region="us-east-1")
    assert objects.read_versioning() is False
    queue = oq_nb.connect(plain, **at(store), allow_unversioned=True)
    task = queue.submit("t", 1)
    assert [record.id for record in task.history()] == [task.id]
    assert objects.read_versioning() is False, "still as its owner has it"
    assert queue.store.objects.is_versioned is False
    assert oq_nb.connect(plain, **at(store), create=True).store.objects.is_versioned
    assert objects.read_versioning() is True
    objects.close()


def test_a_store_that_ignores_conditions(tmp_path):
    with more_stores.rclone(tmp_path) as server:
        connect_to(server, bucket="jobs", allow_unversioned=True)
        pattern = "it ignores If-Match on writes: two workers would run the same task.*docs/reference/stores.md"
        check("no conditional writes", pattern, "jobs", at(server, region="us-east-1"), ("worker", "doctor"))


def test_a_store_without_versions_is_fit_without_listing_them(store, plain):
    """As R2: neither versioning nor versions are implemented there. SeaweedFS behind a proxy that says so."""
    with implementing_no_versions(store.endpoint) as url:
        settings = at(store, endpoint=url, region="us-east-1")
        pattern = "does not keep versions .*NotImplemented.*allow_unversioned=True"
        check("versions not implemented", pattern, plain, settings, ("connect",))
        objects = open_store(plain, **settings)
        made = examine(objects)
        assert made.is_fit, made.to_dict()
        outcomes = {one.name: one.outcome for one in made.checks}
        assert outcomes.pop("versioning") == "warning" and set(outcomes.values()) == {"ok"}
        assert list(objects.entries("")) == []
        objects.close()
        queue = oq_nb.connect(plain, **settings, allow_unversioned=True)
        worker = oq_nb.Worker(queue, max_poll_seconds=0.2)
        worker.task("double")(lambda value: value * 2)
        with worker:
            task = queue.submit("double", 2)
            assert task.result(timeout=30) == 4
        assert [record.status for record in task.history()] == ["completed"]
        with pytest.raises(oq_nb.TaskNotFoundError):
            queue.get_history(str(uuid.uuid4()))


def test_a_bucket_that_vanishes_is_one_line_in_the_log(store, caplog):
    name = f"vanishes-{uuid.uuid4().hex[:12]}"
    queue = connect_to(store, bucket=name, prefix="")
    client = queue.store.objects.client
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)
    worker.task("t")(lambda _: None)
    with worker:
        queue.submit("t").wait(30)
        for kind in ("Versions", "DeleteMarkers"):
            for line in client.list_object_versions(Bucket=name).get(kind, []):
                client.delete_object(Bucket=name, Key=line["Key"], VersionId=line["VersionId"])
        caplog.clear()
        client.delete_bucket(Bucket=name)
        deadline = time.monotonic() + 12  # more than two of the pauses after a failure
        while time.monotonic() < deadline:
            time.sleep(0.1)
    lines = [record for record in caplog.records if record.name.startswith("oq_nb") and record.levelname != "DEBUG"]
    looks = [record.getMessage() for record in lines if "cannot look for tasks" in record.getMessage()]
    assert len(looks) == 1 and f"bucket '{name}' does not exist" in looks[0], [r.getMessage() for r in lines]
    assert not any(record.exc_info for record in lines)
    print(f"| a bucket that vanished | {looks[0]} | a worker's log |")


def test_retries_in_a_config_are_refused(store):
    pattern = "^client_options: config must not name retries: .*oq_nb tries again by itself"
    for retries in ({"max_attempts": 5}, {"mode": "adaptive"}):
        settings = at(store, client_options={"config": Config(retries=retries)})
        check("retries of botocore's", pattern, "oq-tests", settings, ("connect",))


@pytest.mark.parametrize("name", ["endpoint_url", "region_name", "aws_access_key_id", "aws_secret_access_key"])
def test_what_connect_has_a_name_for_is_refused_elsewhere(store, name):
    with pytest.raises(ConfigurationError, match=f"^client_options: {name} cannot be given here, use "):
        oq_nb.connect("oq-tests", **at(store, client_options={name: "x"}))


# --- servers that answer as others do


@contextlib.contextmanager
def serving(status: int, body: bytes):
    """Answer everything in one way."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_DELETE = answer

        def log_message(self, *_):
            pass

    with running(StubServer(Handler)) as server:
        yield server.url


@contextlib.contextmanager
def implementing_no_versions(endpoint: str):
    """Pass everything on to a store but what has to do with versions."""
    from urllib.parse import parse_qs, urlsplit

    upstream = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            asked = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
            status, headers = 501, []
            content = b"<Error><Code>NotImplemented</Code><Message>not implemented</Message></Error>"
            if not {"versioning", "versions", "versionId"} & asked.keys():
                status, headers, content = pass_on(self, upstream, body)
                headers = [line for line in headers if line[0].lower() in ("etag", "content-type")]
            self.send_response(status)
            for name, value in [*headers, ("Content-Length", str(len(content)))]:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        do_GET = do_HEAD = do_PUT = do_DELETE = answer

        def log_message(self, *_):
            pass

    with running(StubServer(Handler)) as server:
        yield server.url
