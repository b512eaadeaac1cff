"""``oq doctor`` on real servers, fit and unfit: each fault is named, with what mends it; and the policies it prints."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from servers import connect_to
from stub_servers import StubServer, pass_on, running

import oq_nb
from oq_nb.admin import retention
from oq_nb.admin.doctor import examine
from oq_nb.admin.policies import ROLES, policy
from oq_nb.cli import main
from oq_nb.errors import ConflictError
from oq_nb.model import Timestamp, WorkerRecord
from oq_nb.s3 import S3Store
from oq_nb.s3.clock import Clock
from oq_nb.testing import FakeStore
from oq_nb.worker.pauses import PollPauses

GOOD = ["connection", "region", "credentials", "bucket", "versioning", "objects", "clock"] + [
    "conditional writes",
    "racing creations",
    "racing changes",
    "clean-up",
]


def store_on(server, bucket, **options):
    settings = {"endpoint": server.endpoint, "region": "us-east-1"} | options
    return S3Store(bucket, **({"access_key": server.access_key, "secret_key": server.secret_key} | settings))


@pytest.fixture(params=["seaweedfs", "moto_server"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def bucket(server):
    """A bucket of the test's own, with versions."""
    name = f"doctor-{uuid.uuid4().hex[:12]}"
    connect_to(server, bucket=name, prefix="")
    return name


def outcomes(made):
    return {check.name: check.outcome for check in made.checks}


def test_a_good_store_passes_every_check_and_nothing_is_left_of_it(seaweedfs):
    name = f"doctor-{uuid.uuid4().hex[:12]}"
    connect_to(seaweedfs, bucket=name, prefix="")
    objects = store_on(seaweedfs, name, prefix="mine/")
    made = examine(objects)
    assert outcomes(made) == dict.fromkeys(GOOD, "ok"), made.to_dict()
    assert made.is_fit and all(not check.remedy for check in made.checks)
    assert list(objects.versions("")) == []


def test_a_bucket_that_is_not_there(server):
    made = examine(store_on(server, "not-there"))
    assert not made.is_fit
    assert made.checks[-1].name == "bucket"
    assert made.checks[-1].remedy == (f"aws s3api create-bucket --bucket not-there --endpoint-url {server.endpoint}")


def test_a_bucket_without_versions_is_a_warning_with_the_command_and_is_not_changed(server):
    name = f"plain-{uuid.uuid4().hex[:12]}"
    objects = store_on(server, name)
    objects.create_bucket()
    made = examine(objects)
    versioning = next(check for check in made.checks if check.name == "versioning")
    assert versioning.outcome == "warning" and made.is_fit, made.to_dict()
    command = f"aws s3api put-bucket-versioning --bucket {name} --versioning-configuration Status=Enabled"
    assert versioning.remedy.startswith(f"{command} --endpoint-url {server.endpoint}")
    assert objects.read_versioning() is False
    assert list(objects.entries("")) == []


@pytest.mark.parametrize(
    ("change", "said", "remedy"),
    [
        ({"secret_key": "not-it"}, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY="),
        ({"access_key": "NOBODY"}, "InvalidAccessKeyId", "export AWS_ACCESS_KEY_ID="),
    ],
)
def test_wrong_credentials_are_told_apart(seaweedfs, change, said, remedy):
    made = examine(store_on(seaweedfs, "oq-tests", **change))
    (check,) = made.checks
    assert (check.name, check.outcome) == ("credentials", "failed") and said in check.said and remedy in check.remedy
    assert "not-it" not in str(made.to_dict())


def test_no_credentials_at_all(seaweedfs, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    made = examine(store_on(seaweedfs, "oq-tests", access_key=None, secret_key=None))
    (check,) = made.checks
    assert check.name == "credentials" and check.remedy.startswith("export AWS_ACCESS_KEY_ID=")


def test_a_store_that_does_not_answer():
    made = examine(S3Store("b", endpoint="http://127.0.0.1:9", region="us-east-1", access_key="a", secret_key="s"))
    (check,) = made.checks
    assert (check.name, check.outcome) == ("connection", "failed") and "--endpoint or S3_ENDPOINT" in check.remedy


@contextmanager
def serving(handler):
    with running(StubServer(handler)) as server:
        yield server.url


def test_a_bucket_in_another_region_is_named_with_the_setting():
    """No store that runs here has regions: this one answers as AWS and MinIO do."""

    class Elsewhere(BaseHTTPRequestHandler):
        def do_GET(self):
            body = b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>"
            self.send_response(400)
            self.send_header("x-amz-bucket-region", "eu-west-1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with serving(Elsewhere) as endpoint:
        made = examine(S3Store("b-1", endpoint=endpoint, region="us-east-1", access_key="a", secret_key="s"))
    (check,) = made.checks
    assert (check.name, check.outcome) == ("region", "failed"), made.to_dict()
    assert check.remedy == "export S3_REGION=eu-west-1, or --region eu-west-1"


def test_a_store_that_ignores_conditions_is_not_fit(moto_server):
    """A real server behind a proxy that leaves the conditions out."""
    upstream = urlsplit(moto_server.endpoint).netloc

    class Careless(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            without = ("if-match", "if-none-match", "expect", "connection")
            status, headers, content = pass_on(self, upstream, body, without=without, host=False)
            self.send_response(status)
            for name, value in headers:
                if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            lengths = [value for name, value in headers if name.lower() == "content-length"]
            self.send_header("Content-Length", (lengths or [str(len(content))])[0])
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_PUT = do_DELETE = do_POST = do_GET

        def log_message(self, *_):
            pass

    name = f"careless-{uuid.uuid4().hex[:12]}"
    connect_to(moto_server, bucket=name, prefix="")
    with serving(Careless) as endpoint:
        objects = store_on(moto_server, name, endpoint=endpoint)
        made = examine(objects)
        objects.close()
    assert not made.is_fit
    wrong = next(check for check in made.checks if check.outcome == "failed")
    assert wrong.name == "conditional writes" and "it ignores If-Match" in wrong.said
    assert "docs/reference/stores.md" in wrong.remedy
    assert made.checks[-1].name == "clean-up" and made.checks[-1].outcome == "ok"
    assert list(store_on(moto_server, name).versions("")) == []


class Racy(FakeStore):
    """Looks first and writes then, as a store would that is not atomic."""

    bucket, prefix, region = "racy", "", "us-east-1"

    def bucket_exists(self):
        return True

    def read_versioning(self):
        return True

    def put(self, key, body, *, if_match=None, create=False, before_try=None, tags=None):
        found = self.get(key)
        if (create and found is not None) or (if_match is not None and (found is None or found.etag != if_match)):
            raise ConflictError("it is another", key=key)
        time.sleep(0.005)
        return super().put(key, body)


def test_a_store_that_loses_races_only_is_not_fit_either():
    made = examine(Racy())
    assert not made.is_fit
    assert outcomes(made)["conditional writes"] == "ok"
    assert outcomes(made)["racing creations"] == "failed"


def test_the_command_says_it_all_on_stdout_with_the_exit_code(seaweedfs, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    place = ("--bucket", "not-there", "--endpoint", seaweedfs.endpoint)
    with pytest.raises(SystemExit) as left:
        main(["doctor", *place])
    out, err = capsys.readouterr()
    assert (left.value.code, err) == (1, "")
    assert " failed  bucket: there is no bucket 'not-there' here" in out
    assert "to mend it: aws s3api create-bucket --bucket not-there" in out and "Not fit" in out
    with pytest.raises(SystemExit) as left:
        main(["doctor", *place, "--json"])
    out, err = capsys.readouterr()
    made = json.loads(out)
    assert (left.value.code, err, made["is_fit"]) == (1, "", False)
    assert made["checks"][-1]["remedy"].startswith("aws s3api create-bucket")


# --- policies


class Spy:
    """Notes what each request would have to be allowed to do, and with which keys."""

    def __init__(self, queue):
        self.seen: set[tuple[str, str]] = set()
        objects = queue.store.objects
        self._prefix, self._call = objects.prefix, objects._call
        objects._call = self

    def __call__(self, operation, **arguments):
        version = "Version" if arguments.get("VersionId") else ""
        action = {
            "get_object": f"s3:GetObject{version}",
            "get_object_tagging": "s3:GetObjectTagging",
            "put_object": "s3:PutObject",
            "delete_object": f"s3:DeleteObject{version}",
            "list_objects_v2": "s3:ListBucket",
            "list_object_versions": "s3:ListBucketVersions",
            "get_bucket_versioning": "s3:GetBucketVersioning",
            "get_bucket_lifecycle_configuration": "s3:GetLifecycleConfiguration",
            "put_bucket_lifecycle_configuration": "s3:PutLifecycleConfiguration",
            "delete_bucket_lifecycle": "s3:PutLifecycleConfiguration",
        }[operation]
        key = arguments.get("Key", "")
        folder = key.removeprefix(self._prefix).partition("/")[0]
        folder = "oq-doctor-*" if folder.startswith("oq-doctor-") else folder
        self.seen.add((action, folder))
        if "Tagging" in arguments:
            self.seen.add(("s3:PutObjectTagging", folder))
        return self._call(operation, **arguments)


def allowed(statements, prefix=""):
    """Return what statements allow, as `Spy` notes it."""
    made = set()
    for statement in statements:
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            path = resource.removeprefix("arn:aws:s3:::BUCKET").removeprefix(f"/{prefix}")
            made |= {(action, path.removesuffix("/*").strip("/")) for action in statement["Action"]}
    return made


LARGE = "x" * 100_000


def as_watcher(queue, ids):
    queue.list()
    queue.workers()
    for task_id in ids:
        task = queue.get(task_id)
        task.history()
        task.input, task.output  # noqa: B018
        task.logs()
    queue.watcher.read_overview()


def as_client(queue, ids):
    as_watcher(queue, ids)
    queue.submit("double", LARGE, idempotency_key="k")
    again = queue.submit("double", LARGE, idempotency_key="k")
    assert again.cancel().status == "cancelled"
    again.replay().cancel()
    queue.archive(again.id)
    for _ in oq_nb.track(range(2)):  # on the queue of the last connect()
        time.sleep(0.5)


def as_worker(queue, ids):
    worker = oq_nb.Worker(queue, max_poll_seconds=0.1, logs=True)

    @worker.task("double")
    def double(text, context):
        print("hello")
        context.report_progress(percent=50)
        return text * 2

    @worker.task("retry")
    def retry(_, context):
        if context.attempt == 1:
            raise oq_nb.RetryableError("again")

    @worker.task("fail")
    def fail(_):
        raise ValueError("no")

    with pytest.MonkeyPatch.context() as patch, worker:
        patch.setattr(PollPauses, "needs_hint", lambda self, idle, **options: True)  # as when it is idle
        for task in [queue.get(task_id) for task_id in ids]:
            task.wait(60)


def prepared(seaweedfs):
    """Return a queue, seen by nobody, and the ids of its tasks."""
    queue = connect_to(seaweedfs)
    ids = [queue.submit("double", LARGE).id]
    ids.append(queue.submit("retry", retry_policy=oq_nb.RetryPolicy(initial_interval_ms=50)).id)
    ids.append(queue.submit("fail").id)
    now = Timestamp.of(queue.now())
    worker = WorkerRecord(worker_id="w", started_at=now, last_heartbeat=now)
    queue.store.objects.put("workers/w.json", worker.to_bytes())
    return queue, ids


def as_doctor(queue, ids):
    assert examine(queue.store.objects).is_fit


#: What a role needs only when an answer was lost, when an attempt prints more than is kept, when tasks are handed back,
#: or for hints that others have left.
UNUSUAL = {
    "worker": {
        ("s3:GetObjectVersion", "tasks"),
        ("s3:DeleteObjectVersion", "logs"),
        ("s3:PutObject", "hints"),
        ("s3:DeleteObjectVersion", "hints"),
    }
}


@pytest.mark.parametrize("role", ROLES)
def test_a_policy_allows_what_its_role_does_and_nothing_else(seaweedfs, role):
    queue, ids = prepared(seaweedfs)
    if role != "worker":
        as_worker(queue, ids)
    same = connect_to(seaweedfs, prefix=queue.store.objects.prefix, create=False)
    spy = Spy(same)
    same.store.objects.bucket_exists()  # what connect() asks
    same.store.objects.read_versioning()
    {"watcher": as_watcher, "client": as_client, "worker": as_worker, "doctor": as_doctor}[role](same, ids)
    prefix = same.store.objects.prefix
    granted = allowed(policy(role, "BUCKET", prefix)["Statement"], prefix)
    unused, deadline = granted - UNUSUAL.get(role, set()), time.monotonic() + 10
    while unused - spy.seen and time.monotonic() < deadline:  # a loop's last request follows its end
        time.sleep(0.05)
    assert spy.seen - granted == set(), "used, and not allowed"
    assert unused - spy.seen == set(), "allowed, and not used"


def test_the_documented_statements_are_what_retention_needs(seaweedfs, monkeypatch):
    queue = connect_to(seaweedfs, bucket=f"doctor-{uuid.uuid4().hex[:12]}", prefix="")
    task = queue.submit("t", LARGE).cancel()
    queue.store.logs.write(task.id, 1, 0, b"")
    spy = Spy(queue)
    retention.survey(queue.store)
    retention.set_rule(queue.store.objects, days=30)
    retention.set_finished_rule(queue.store.objects, days=30)
    retention.remove_rule(queue.store.objects)
    monkeypatch.setattr(Clock, "earliest", lambda clock: clock.now() + timedelta(hours=1))
    (pruned,) = retention.prune(queue.store, older_than=timedelta(minutes=30))
    assert pruned.task_id == task.id
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "retention.md").read_text(encoding="utf-8")
    extra = allowed(json.loads(page.partition("```json")[2].partition("```")[0]))
    assert spy.seen <= extra | allowed(policy("watcher", "BUCKET")["Statement"])
    assert extra <= spy.seen
