"""The boundary to S3: every failure, answers that got lost, certificates, addresses, prefixes, secrets."""

from __future__ import annotations

import http.server
import inspect
import re
import socket
import ssl
import threading
import traceback
from collections import Counter

import botocore.exceptions
import pytest
from botocore.config import Config
from servers import connect_to
from stub_servers import StubServer, running

import oq_nb
from oq_nb import errors
from oq_nb.errors import (
    ConfigurationError,
    ConflictError,
    OqError,
    StorageConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from oq_nb.local import files as local_files
from oq_nb.model import transitions
from oq_nb.s3 import NOT_MODIFIED, S3Store
from oq_nb.s3 import errors as s3_errors

SECRET = "planted/secret+key/0123456789abcdefghij"


class Canned(StubServer):
    """A server that gives the answers it was told to, the last one again and again, and notes what was asked."""

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.answers: list[object] = []
        self.asked: list[tuple[str, str, dict[str, str]]] = []


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # which answers to Expect: 100-continue
    server: Canned

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        answers = self.server.answers
        given = answers.pop(0) if len(answers) > 1 else answers[0]
        self.close_connection = True
        if given == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        status, headers, body = given
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body)), "Connection": "close"} | headers).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = do_HEAD = answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def canned():
    with running(Canned()) as server:
        yield server


def store_at(endpoint: str, **options) -> S3Store:
    settings = {"region": "us-east-1", "access_key": "AKIAPLANTED", "secret_key": SECRET, "sleep": lambda _: None}
    return S3Store("bucket-1", endpoint=endpoint, **{**settings, "read_timeout_seconds": 2.0, **options})


def refusal(status: int, code: str) -> tuple[int, dict[str, str], bytes]:
    return status, {}, f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()


OK = (200, {"ETag": '"e"', "x-amz-version-id": "v"}, b"")
REQUESTS = {
    "GET": lambda store: store.get("k"),
    "PUT": lambda store: store.put("k", b"x", create=True),
    "DELETE": lambda store: store.delete("k"),
    "LIST": lambda store: list(store.entries("k")),
    "VERSIONS": lambda store: list(store.versions("k")),
    "BUCKET": lambda store: store.bucket_exists(),
}
SENSELESS = b"<html><body>Sign in <br></body></html>"


# --- every answer becomes one of our errors


@pytest.mark.parametrize(
    ("kind", "status", "code", "expected", "words"),
    [
        ("PUT", 412, "PreconditionFailed", ConflictError, "not what was last seen"),
        ("PUT", 404, "NoSuchKey", ConflictError, "not what was last seen"),
        ("PUT", 409, "ConditionalRequestConflict", ConflictError, "not what was last seen"),
        ("PUT", 409, "OperationAborted", ConflictError, "not what was last seen"),
        ("PUT", 503, "SlowDown", StorageUnavailableError, "try later"),
        ("GET", 500, "InternalError", StorageUnavailableError, "try later"),
        ("LIST", 503, "ServiceUnavailable", StorageUnavailableError, "try later"),
        ("GET", 429, "TooManyRequests", StorageUnavailableError, "try later"),
        ("PUT", 400, "RequestTimeout", StorageUnavailableError, "try later"),
        ("PUT", 507, "InsufficientStorage", StorageUnavailableError, "try later"),
        ("GET", 403, "AccessDenied", StorageDeniedError, "policy"),
        ("GET", 403, "InvalidAccessKeyId", StorageDeniedError, "does not know this access key .*AWS_ACCESS_KEY_ID"),
        ("LIST", 403, "SignatureDoesNotMatch", StorageDeniedError, "does not belong to the access key .*AWS_SECRET"),
        ("GET", 400, "ExpiredToken", StorageDeniedError, "session of these credentials has ended .*log in again"),
        ("LIST", 400, "", StorageError, "begin the address with https://"),
        ("PUT", 403, "AccessDenied", StorageDeniedError, "do not allow s3:PutObject, .*oq doctor --policy"),
        ("VERSIONS", 403, "AccessDenied", StorageDeniedError, "do not allow s3:ListBucketVersions"),
        ("DELETE", 407, "", StorageError, "a proxy wants a user and a password: .*NO_PROXY"),
        ("GET", 403, "RequestTimeTooSkewed", StorageDeniedError, "clock is wrong, set it"),
        ("VERSIONS", 401, "Unauthorized", StorageDeniedError, "check the credentials"),
        ("GET", 404, "NoSuchBucket", StorageConfigurationError, "create=True"),
        ("PUT", 404, "NoSuchBucket", StorageConfigurationError, "create=True"),
        ("DELETE", 404, "NoSuchBucket", StorageConfigurationError, "create=True"),
        ("LIST", 404, "NoSuchBucket", StorageConfigurationError, "create=True"),
        ("PUT", 400, "AuthorizationHeaderMalformed", StorageConfigurationError, "another region"),
        ("PUT", 400, "InvalidBucketName", StorageConfigurationError, "not a valid name"),
        ("PUT", 501, "NotImplemented", StorageError, "cannot do this"),
        ("PUT", 400, "EntityTooLarge", StorageError, "EntityTooLarge"),
        ("PUT", 418, "NobodyKnowsThis", StorageError, "NobodyKnowsThis"),
        ("GET", 405, "MethodNotAllowed", StorageError, "MethodNotAllowed"),
        ("PUT", 200, "InternalError", StorageUnavailableError, "try later"),
        ("GET", 200, "", StorageError, "sent no ETag"),
    ],
)
def test_an_answer_becomes_one_error_with_its_remedy(canned, kind, status, code, expected, words):
    canned.answers = [refusal(status, code)]
    with pytest.raises(OqError, match=words) as caught:
        REQUESTS[kind](store_at(canned.url))
    assert type(caught.value) is expected
    assert caught.value.__cause__ is not None or kind == "GET"
    tries = 3 if expected is StorageUnavailableError or code.startswith("Conditional") else 1
    assert len(canned.asked) == tries


@pytest.mark.parametrize(
    ("status", "code", "in_doubt"),
    [
        (429, "TooManyRequests", True),
        (400, "RequestTimeout", True),
        (503, "SlowDown", True),
        (403, "AccessDenied", False),
    ],
)
def test_a_write_that_may_have_been_applied_leaves_doubt(canned, status, code, in_doubt):
    """A gateway says 429, or that the request took too long, after the store has taken it."""
    canned.answers = [refusal(status, code), refusal(412, "PreconditionFailed")]
    with pytest.raises(OqError) as caught:
        store_at(canned.url).put("k", b"", if_match='"e"')
    assert getattr(caught.value, "ambiguous", False) is in_doubt


@pytest.mark.parametrize("kind", REQUESTS)
@pytest.mark.parametrize("status", [200, 302, 307, 400, 403, 404, 418, 500])
def test_whatever_answers_no_foreign_exception_comes_out(canned, kind, status):
    """A captive portal, a proxy's error page, something that is not S3 at all."""
    canned.answers = [(status, {"Content-Type": "text/html"}, SENSELESS)]
    try:
        REQUESTS[kind](store_at(canned.url, attempts=1))
    except OqError as exc:
        assert str(exc)
    else:
        assert (kind, status) in {("DELETE", 200), ("DELETE", 404)}


@pytest.mark.parametrize(
    "body",
    [
        b"<ListBucketResult><Contents><Key>a</Key>",
        b"<ListBucketResult><Contents><Key>a</Key></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents></Contents></ListBucketResult>",
        b"<ListBucketResult><Contents><LastModified>soon</LastModified></Contents></ListBucketResult>",
        b"\xff\x00",
    ],
)
def test_a_listing_that_is_none(canned, body):
    canned.answers = [(200, {}, body)]
    with pytest.raises(StorageError):
        list(store_at(canned.url).entries("k"))


def test_a_404_that_is_not_of_s3_proves_nothing(canned):
    """Taken for «no such task», it would let index entries of living tasks be removed."""
    canned.answers = [(404, {"Content-Type": "text/html"}, SENSELESS)]
    for kind in ("GET", "PUT"):
        with pytest.raises(StorageError, match="does not answer as S3 does") as caught:
            REQUESTS[kind](store_at(canned.url))
        assert type(caught.value) is StorageError
    canned.answers = [refusal(404, "NoSuchKey")]
    assert store_at(canned.url).get("k") is None
    canned.answers = [refusal(404, "NoSuchVersion")]
    assert store_at(canned.url).get("k", version_id="v") is None


def test_not_modified(canned):
    canned.answers = [(304, {}, b"")]
    assert store_at(canned.url).get_if_changed("k", '"e"') is NOT_MODIFIED


def test_half_a_body(canned):
    canned.answers = [(200, {"ETag": '"e"', "Content-Length": "10"}, b"half"), (200, {"ETag": '"e"'}, b"whole")]
    assert store_at(canned.url).get("k").body == b"whole"
    canned.answers = [(200, {"ETag": '"e"', "Content-Length": "10"}, b"half")]
    with pytest.raises(StorageUnavailableError):
        store_at(canned.url).get("k")


def test_an_object_that_does_not_fit_in_memory(canned):
    canned.answers = [(200, {"ETag": '"e"', "Content-Length": str(10**13)}, b"")]
    with pytest.raises(StorageError, match="too large to read"):
        store_at(canned.url).get("k")


def test_half_a_body_of_unknown_length(canned):
    canned.answers = [
        (200, {"ETag": '"e"', "Content-Length": None, "Transfer-Encoding": "chunked"}, b"4\r\nhalf\r\n"),
        (200, {"ETag": '"e"', "Content-Length": None, "Transfer-Encoding": "chunked"}, b"5\r\nwhole\r\n0\r\n\r\n"),
    ]
    assert store_at(canned.url).get("k").body == b"whole"
    assert len(canned.asked) == 2


def test_nobody_listens():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        store = store_at(f"http://127.0.0.1:{unused.getsockname()[1]}")
        for request in REQUESTS.values():
            with pytest.raises(StorageUnavailableError, match="is the store running and reachable"):
                request(store)
    assert store.requests == Counter(GET=3, PUT=3, DELETE=3, LIST=9)


def test_somebody_listens_and_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = store_at(f"http://127.0.0.1:{silent.getsockname()[1]}", read_timeout_seconds=0.2)
        with pytest.raises(StorageUnavailableError, match="ReadTimeoutError"):
            store.get("k")


# --- every class of botocore


def _made(kind: type[Exception]) -> Exception:
    """Return an exception of this class with something in every field that its message names."""
    if issubclass(kind, botocore.exceptions.ClientError):
        return kind({"Error": {"Code": "Odd"}, "ResponseMetadata": {"HTTPStatusCode": 400}}, "GetObject")
    if issubclass(kind, botocore.exceptions.WaiterError):
        return kind(name="x", reason="x", last_response={})
    fields = dict.fromkeys(re.findall(r"{(\w+)", getattr(kind, "fmt", "")), "x")
    return kind(**fields)


CLASSES = sorted(
    (
        found
        for found in vars(botocore.exceptions).values()
        if inspect.isclass(found)
        and issubclass(found, Exception)
        and not issubclass(found, Warning)
        and found.__module__ == "botocore.exceptions"
    ),
    key=lambda found: found.__name__,
)
UNAVAILABLE = {
    "ChecksumError",
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "ConnectionError",
    "CredentialRetrievalError",
    "EndpointConnectionError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteReadError",
    "MetadataRetrievalError",
    "ProxyConnectionError",
    "ReadTimeoutError",
    "ResponseStreamingError",
}


def test_every_class_of_botocore_becomes_one_of_ours():
    assert len(CLASSES) > 80
    request = s3_errors.Request("GET", "k", "b", None)
    sorts: dict[type, set[str]] = {}
    for kind in CLASSES:
        mapped = s3_errors.translate(_made(kind), request)
        assert isinstance(mapped, StorageError), kind
        assert str(mapped)
        sorts.setdefault(type(mapped), set()).add(kind.__name__)
        assert s3_errors.is_retryable(_made(kind), "GET") == (kind.__name__ in UNAVAILABLE), kind
        if s3_errors.is_ambiguous(_made(kind)):
            assert kind.__name__ in UNAVAILABLE
    assert sorts[StorageUnavailableError] == UNAVAILABLE
    assert {"NoCredentialsError", "PartialCredentialsError", "SSOTokenLoadError"} <= sorts[StorageDeniedError]
    assert {"ParamValidationError", "SSLError"} == sorts[StorageConfigurationError]
    assert set(sorts) <= {StorageError, StorageUnavailableError, StorageDeniedError, StorageConfigurationError}


def test_what_did_not_reach_the_store_leaves_no_doubt():
    in_doubt = {kind.__name__ for kind in CLASSES if s3_errors.is_ambiguous(_made(kind))}
    assert in_doubt == UNAVAILABLE - {
        "ConnectTimeoutError",
        "CredentialRetrievalError",
        "EndpointConnectionError",
        "MetadataRetrievalError",
        "ProxyConnectionError",
    }


def test_no_credentials(canned, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageDeniedError, match="AWS_ACCESS_KEY_ID"):
        store_at(canned.url, access_key=None, secret_key=None).get("k")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigurationError, match="nobody"):
        store_at(canned.url)


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "no-url"},
        {"endpoint": "http://[::1"},
        {"client_options": {"bogus": 1}},
        {"client_options": {"config": 3}},
        {"region": "not a region"},
    ],
)
def test_settings_that_make_no_client(options):
    with pytest.raises(ConfigurationError):
        store_at(**{"endpoint": "http://127.0.0.1:1"} | options).get("k")


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 300, "b/c", "b\n"])
def test_names_that_no_bucket_has(canned, name):
    canned.answers = [OK]
    with pytest.raises(ConfigurationError, match=r"^bucket:"):
        oq_nb.connect(name, endpoint=canned.url, access_key="a", secret_key=SECRET)
    assert canned.asked == []


# --- writes whose answer got lost


@pytest.mark.parametrize("first", ["drop", refusal(500, "InternalError"), refusal(503, "SlowDown")], ids=str)
def test_a_conflict_after_a_lost_answer_may_be_our_own_write(canned, first):
    canned.answers = [first, refusal(412, "PreconditionFailed")]
    with pytest.raises(ConflictError) as caught:
        store_at(canned.url).put("k", b"x", if_match='"e"')
    assert caught.value.ambiguous
    assert [headers["If-Match"] for _, _, headers in canned.asked] == ['"e"', '"e"'], "sent again with its condition"


def test_a_conflict_at_once_is_somebody_elses(canned):
    canned.answers = [refusal(412, "PreconditionFailed")]
    with pytest.raises(ConflictError) as caught:
        store_at(canned.url).put("k", b"x", create=True)
    assert not caught.value.ambiguous
    canned.answers = [refusal(409, "ConditionalRequestConflict"), refusal(412, "PreconditionFailed")]
    with pytest.raises(ConflictError) as caught:
        store_at(canned.url).put("k", b"x", create=True)
    assert not caught.value.ambiguous, "the first try was not even judged"


def test_every_try_is_announced(canned):
    canned.answers = ["drop", refusal(503, "SlowDown"), OK]
    tries: list[int] = []
    assert store_at(canned.url).put("k", b"x", before_try=lambda: tries.append(len(canned.asked))).etag == '"e"'
    assert tries == [0, 1, 2]


class Relay:
    """Passes connections on to a server; can keep answers to itself, and can speak TLS to its clients."""

    def __init__(self, endpoint: str, context: ssl.SSLContext | None = None) -> None:
        host, port = endpoint.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.answers_to_swallow = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                if self._context is not None:
                    client = self._context.wrap_socket(client, server_side=True)
            except ssl.SSLError:
                continue
            except OSError:
                return
            server = socket.create_connection(self._target)
            self._open += [client, server]
            for source, sink, swallows in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass_on, args=(source, sink, swallows), daemon=True)
                thread.start()
                self._threads.append(thread)

    def _pass_on(self, source: socket.socket, sink: socket.socket, swallows: bool) -> None:
        try:
            while data := source.recv(65536):
                if swallows and self.answers_to_swallow > 0:
                    self.answers_to_swallow -= 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._open:
            end.close()
        for thread in self._threads:
            thread.join(5)


def test_a_write_whose_answer_got_lost_counts_on_a_real_store(seaweedfs):
    relay = Relay(seaweedfs.endpoint)
    try:
        tasks = connect_to(seaweedfs).store
        direct = tasks.objects
        tasks.objects = S3Store(
            direct.bucket,
            prefix=direct.prefix,
            endpoint=f"http://127.0.0.1:{relay.port}",
            region="us-east-1",
            access_key=seaweedfs.access_key,
            secret_key=seaweedfs.secret_key,
        )
        queue = oq_nb.Queue(tasks)
        relay.answers_to_swallow = 1
        task = queue.submit("t", 1)
        assert relay.answers_to_swallow == 0
        assert direct.get(task.record.key).etag == tasks.read(task.id).etag
        held = tasks.read(task.id)
        claimed = transitions.claim(held.record, tasks.clock.stamp(), lease_id="l", worker_id="w", lease_seconds=60)
        relay.answers_to_swallow = 1
        made = tasks.move(held, claimed)
        assert relay.answers_to_swallow == 0
        assert made.record == claimed, "found as our own write, not taken for a lost race"
        assert [record.status.value for record in tasks.history(task.id)] == ["pending", "running"]
        tasks.objects.close()
    finally:
        relay.close()


def test_a_writer_that_dies_between_head_and_body_leaves_nothing(seaweedfs, monkeypatch):
    """SeaweedFS would store an empty object, over a task too, if the head did not say what the body is."""
    store = connect_to(seaweedfs).store.objects
    heads = []

    def stop(request):
        heads.append(request)
        raise botocore.exceptions.ConnectionClosedError(endpoint_url=request.url)

    made = store.put("k", b"before")
    with monkeypatch.context() as patch, pytest.raises(StorageUnavailableError):
        patch.setattr(store._client._http, "send", stop)
        store.put("k", b"x" * 1000, if_match=made.etag)
    host, port = seaweedfs.endpoint.removeprefix("http://").split(":")
    lines = [f"PUT {heads[0].url.removeprefix(seaweedfs.endpoint)} HTTP/1.1", f"Host: {host}:{port}"]
    for name, value in heads[0].headers.items():
        if name != "Expect":
            lines.append(f"{name}: {value.decode() if isinstance(value, bytes) else value}")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        connection.shutdown(socket.SHUT_WR)
        answer = connection.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert store.get("k").body == b"before"
    assert len(list(store.versions("k"))) == 1


# --- certificates, addresses, prefixes


def test_a_certificate_authority_of_ones_own(moto_server, tmp_path):
    local_files.write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "inner.crt", tmp_path / "inner.key")
    relay = Relay(moto_server.endpoint, context)
    settings = {"access_key": "a", "secret_key": SECRET, "create": True, "prefix": "ca/"}
    endpoint = f"https://127.0.0.1:{relay.port}"
    try:
        queue = oq_nb.connect(
            "oq-tests", endpoint=endpoint, client_options={"verify": str(tmp_path / "inner.crt")}, **settings
        )
        task = queue.submit("t", 1)
        assert queue.get(task.id).input == 1
        queue.store.objects.close()
        for options in ({}, {"verify": str(tmp_path / "missing.crt")}):
            with pytest.raises(ConfigurationError, match="client_options=.*AWS_CA_BUNDLE") as caught:
                oq_nb.connect("oq-tests", endpoint=endpoint, client_options=options, **settings)
            assert SECRET not in str(caught.value)
    finally:
        relay.close()


def test_addresses_with_an_endpoint_have_the_bucket_in_the_path(canned):
    canned.answers = [OK]
    store_at(canned.url, prefix="p/").put("k", b"")
    assert canned.asked[0][1] == "/bucket-1/p/k"
    assert canned.asked[0][2]["Host"] == f"127.0.0.1:{canned.server_port}"


def test_addresses_with_the_bucket_in_the_host_name(moto_server, monkeypatch):
    """Against moto, which is taken for a proxy, so that no name has to be looked up."""
    config = Config(s3={"addressing_style": "virtual"}, proxies={"http": moto_server.endpoint})
    store = S3Store(
        "oq-virtual",
        endpoint="http://s3.amazonaws.com",
        region="us-east-1",
        access_key="a",
        secret_key=SECRET,
        client_options={"config": config},
    )
    seen: list[str] = []
    send = store._client._http.send
    monkeypatch.setattr(store._client._http, "send", lambda request: seen.append(request.url) or send(request))
    store.create_bucket()
    store.enable_versioning()
    made = store.put("a/b", b"1", create=True)
    assert store.get("a/b").etag == made.etag
    with pytest.raises(ConflictError):
        store.put("a/b", b"2", create=True)
    assert [entry.key for entry in store.versions("a/")] == ["a/b"]
    assert seen[-1].startswith("http://oq-virtual.s3.amazonaws.com/?versions")
    store.close()


def test_a_config_of_the_callers_is_merged_into_ours(canned):
    canned.answers = [OK]
    store = store_at(canned.url, client_options={"config": Config(user_agent_extra="mine", max_pool_connections=3)})
    config = store._client.meta.config
    assert (config.read_timeout, config.max_pool_connections) == (2.0, 3)
    assert config.retries["total_max_attempts"] == 1, "tries are counted here, not by botocore"


def test_several_queues_in_one_bucket(seaweedfs):
    one, two = connect_to(seaweedfs), connect_to(seaweedfs)
    first, second = one.submit("t", 1), two.submit("t", 2)
    assert [task.id for task in one.list()] == [first.id]
    assert [task.id for task in two.list()] == [second.id]
    assert [task.id for task in two.list_ready()] == [second.id]
    assert one.get(second.id) is None
    with pytest.raises(oq_nb.TaskNotFoundError):
        one.get_history(second.id)
    assert one.submit("t", 1, idempotency_key="k").id != two.submit("t", 1, idempotency_key="k").id


def test_a_worker_runs_only_the_tasks_of_its_prefix(seaweedfs):
    one, two = connect_to(seaweedfs), connect_to(seaweedfs)
    worker = oq_nb.Worker(one)
    worker.task("t")(lambda value: value)
    other = two.submit("t", 2)
    with worker:
        assert one.submit("t", 1).result(timeout=30) == 1
    assert two.get(other.id).status == "pending"
    assert two.workers() == []


# --- secrets


def test_the_secret_is_in_no_repr_error_or_traceback(canned, seaweedfs, caplog):
    caplog.set_level("DEBUG", logger="oq_nb")
    seen = [repr(store_at(canned.url)), str(vars(store_at(canned.url)))]
    for answer in ("drop", refusal(403, "SignatureDoesNotMatch"), refusal(500, "x"), (200, {}, SENSELESS)):
        for request in REQUESTS.values():
            canned.answers = [answer]
            try:
                request(store_at(canned.url, attempts=1))
            except OqError as exc:
                seen += [str(exc), repr(exc), "".join(traceback.format_exception(exc))]
    with pytest.raises(StorageDeniedError) as caught:
        oq_nb.connect("oq-tests", endpoint=seaweedfs.endpoint, access_key="AKIAPLANTED", secret_key=SECRET)
    seen += ["".join(traceback.format_exception(caught.value)), repr(connect_to(seaweedfs))]
    assert len(seen) > 60
    for text in [*seen, caplog.text]:
        assert SECRET not in text
        assert seaweedfs.secret_key not in text


def test_the_secret_is_not_sent(canned):
    canned.answers = [OK]
    store_at(canned.url).put("k", b"x")
    assert SECRET not in repr(canned.asked)


def test_the_tree_of_errors_is_what_the_docstring_says():
    shown = re.findall(r"[├└] (\w+)", errors.__doc__ or "")
    assert {"ConfigurationError", "StorageError", *(kind.__name__ for kind in StorageError.__subclasses__())} <= set(
        shown
    )
    assert set(shown) == {name for name in errors.__all__ if issubclass(getattr(errors, name), OqError)} - {"OqError"}
