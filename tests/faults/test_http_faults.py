"""The same faults over HTTP: a faulty proxy, a real store, our connections and botocore's; all requests, all faults.

``OQ_FAULTS=all`` runs them in front of moto too.

The simulation stands on what is shown here: for the same fault at the same request it ends as real life does.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from faults.failures import FAULTS
from faults.proxy import PROXY_FAULTS, PROXY_REFUSALS, faulty_proxy
from faults.refusals import can_strike
from faults.simulation import Request, World

from oq_nb.errors import ConflictError, OqError, StorageUnavailableError
from oq_nb.model import Progress, Timestamp, transitions
from oq_nb.queue import Queue
from oq_nb.s3 import S3Store
from oq_nb.store import TaskStore

BUCKET = "oq-faults"


class Kinds:
    """Each kind of request, on objects of its own."""

    def __init__(self, objects: Any) -> None:
        self.objects = objects
        self.name = f"f/{uuid.uuid4().hex}/"
        self.made = [objects.put(self.name + "there", b"one"), objects.put(self.name + "there", b"two")]

    def get(self) -> Any:
        return _body(self.objects.get(self.name + "there"))

    def get_missing(self) -> Any:
        return self.objects.get(self.name + "nothing")

    def get_version(self) -> Any:
        return _body(self.objects.get(self.name + "there", version_id=self.made[0].version_id))

    def get_if_changed(self) -> Any:
        return repr(self.objects.get_if_changed(self.name + "there", self.made[1].etag))

    def put(self) -> Any:
        self.objects.put(self.name + "plain", b"new")
        return self.objects.get(self.name + "plain").body

    def put_create(self) -> Any:
        return bool(self.objects.put(self.name + "created", b"new", create=True).etag)

    def put_if_match(self) -> Any:
        return bool(self.objects.put(self.name + "there", b"new", if_match=self.made[1].etag).etag)

    def put_refused(self) -> Any:
        return self.objects.put(self.name + "there", b"new", if_match=self.made[0].etag)

    def delete(self) -> Any:
        self.objects.delete(self.name + "there")
        return self.objects.get(self.name + "there")

    def delete_version(self) -> Any:
        self.objects.delete(self.name + "there", version_id=self.made[1].version_id)
        return self.objects.get(self.name + "there").body

    def list_entries(self) -> Any:
        return [entry.key.rsplit("/", 1)[1] for entry in self.objects.entries(self.name)]

    def list_versions(self) -> Any:
        return [(e.key.rsplit("/", 1)[1], e.size, e.is_latest) for e in self.objects.versions(self.name)]


def _body(found: Any) -> Any:
    return None if found is None else found.body


KINDS = [name for name in vars(Kinds) if not name.startswith("_")]


def outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except ConflictError as exc:
        return f"ConflictError, {'in doubt' if exc.ambiguous else 'for sure'}"
    except OqError as exc:
        return type(exc).__name__


@pytest.fixture(
    scope="module", params=["seaweedfs", "moto_server"] if os.environ.get("OQ_FAULTS") == "all" else ["seaweedfs"]
)
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def proxy(server):
    with faulty_proxy(server.endpoint) as made:
        store = _connect(server, made, read_timeout_seconds=10)
        store.create_bucket()
        store.enable_versioning()
        store.close()
        yield made


def _connect(server: Any, proxy: Any, **options: Any) -> S3Store:
    settings = {"read_timeout_seconds": 0.7, "sleep": lambda seconds: None} | options
    return S3Store(
        BUCKET,
        endpoint=proxy.endpoint,
        region="us-east-1",
        access_key=server.access_key,
        secret_key=server.secret_key,
        **settings,
    )


@pytest.fixture(scope="module")
def connection(server, proxy):
    store = _connect(server, proxy)
    yield store
    store.close()


@pytest.fixture
def objects(connection, proxy):
    proxy.strike(None, 0)
    return connection


def _simulated(kind: str, fault: str, times: int) -> Any:
    world = World()
    process = world.process("p")
    world.current = process
    kinds = Kinds(process.objects)
    for number in range(times):
        world.faults[len(world.requests) + number] = FAULTS[fault]
    return outcome(getattr(kinds, kind))


@pytest.mark.parametrize("fault", PROXY_FAULTS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_fault_is_made_good_or_told_as_in_the_simulation(kind, fault, objects, proxy, cases):
    if fault.startswith("409") and not kind.startswith("put"):
        fault = "500"  # only writes are refused as conflicts
    kinds = Kinds(objects)
    proxy.strike(fault)
    seen = outcome(getattr(kinds, kind))
    assert proxy.left == 0, "the fault did not strike"
    assert seen == _simulated(kind, fault, 1)
    if kind in ("put_create", "put_if_match"):
        was_applied = PROXY_FAULTS[fault]
        assert seen == ("ConflictError, in doubt" if was_applied else True)
        key = kinds.name + ("created" if kind == "put_create" else "there")
        assert objects.get(key).body == b"new"
    elif kind == "put_refused":
        # An answer that was lost leaves a doubt even where nothing was written: whoever knows the content decides.
        assert seen.startswith("ConflictError")
        assert objects.get(kinds.name + "there").body == b"two"
    elif (kind, fault) == ("get_missing", "truncated body"):
        assert seen == "StorageError"  # a 404 that does not say of what: it could be anybody's, nothing is concluded
    else:
        assert seen == outcome(lambda: getattr(Kinds(objects), kind)())
    cases("faults over HTTP", {f"{fault}, once": 1})


#: What a refusal becomes, for every kind of request; the others are made good, or leave a doubt.
_TOLD = {
    "ExpiredToken once": "StorageDeniedError",
    "AccessDenied once": "StorageDeniedError",
    "SignatureDoesNotMatch once": "StorageDeniedError",
    "RequestTimeTooSkewed once": "StorageDeniedError",
    "NoSuchBucket once": "StorageConfigurationError",
}


@pytest.mark.parametrize("fault", PROXY_REFUSALS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_is_told_as_in_the_simulation(kind, fault, objects, proxy, cases):
    sort = "LIST" if kind.startswith("list") else kind.partition("_")[0].upper()
    if can_strike(fault, Request(0, "", sort, "", False)) is False:
        pytest.skip("it does not happen to such a request")
    kinds = Kinds(objects)
    proxy.strike(fault)
    seen = outcome(getattr(kinds, kind))
    assert proxy.left == 0, "the fault did not strike"
    assert seen == _simulated(kind, fault, 1)
    if fault == "stale 404":
        assert seen in (None, "None")
    if fault == "corrupt body" and kind.startswith("list"):
        assert seen == outcome(lambda: getattr(Kinds(objects), kind)())  # asked again, never an empty listing
    if fault in _TOLD:
        assert seen == _TOLD[fault]
    cases("faults over HTTP", {f"{fault}, at one request": 1})


@pytest.mark.parametrize(
    "fault", [name for name in PROXY_FAULTS if name not in ("answer lost", "ten seconds of nothing")]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_stays_is_told(kind, fault, objects, proxy, cases):
    if fault.startswith("409") and not kind.startswith("put"):
        fault = "500"
    kinds = Kinds(objects)
    proxy.strike(fault, 3)
    seen = outcome(getattr(kinds, kind))
    assert seen == _simulated(kind, fault, 3)
    assert proxy.seen == 3 - proxy.left
    if (kind, fault) == ("get_missing", "truncated body"):
        assert seen == "StorageError"
        return
    if fault == "truncated body" and kind in ("put_create", "put_if_match", "put_refused"):
        assert seen.startswith("ConflictError")  # the status says it, whatever became of the body
        return
    assert proxy.left == 0, "three tries were made"
    if fault.startswith("409") and kind != "put":  # without a condition there is nothing to have lost
        assert seen == "ConflictError, for sure"
    elif not (kind in ("put_create", "put_if_match", "put_refused") and PROXY_FAULTS[fault]):
        assert seen == "StorageUnavailableError"
    cases("faults over HTTP", {f"{fault}, three times": 1})


@pytest.mark.parametrize("kind", ["get", "put_if_match", "list_versions", "delete"])
def test_silence_that_stays_is_told(kind, server, proxy, cases):
    store = _connect(server, proxy, read_timeout_seconds=0.3)
    proxy.strike(None, 0)
    kinds = Kinds(store)
    proxy.strike("ten seconds of nothing", 3)
    assert outcome(getattr(kinds, kind)) == "StorageUnavailableError" == _simulated(kind, "ten seconds of nothing", 3)
    store.close()
    cases("faults over HTTP", {"ten seconds of nothing, three times": 1})


@pytest.mark.parametrize("fault", [name for name, applied in PROXY_FAULTS.items() if applied])
def test_a_task_goes_through_its_life_with_every_answer_lost_once(fault, objects, proxy, cases):
    """Create, claim, report, complete: each is applied, its answer does not arrive, and its writer finds out."""
    queue = Queue(TaskStore(objects))
    store = queue.store
    proxy.strike(fault, 1)
    held = queue.submit("t", {"n": 1}, timeout_seconds=60).snapshot
    now = store.clock.stamp

    def progress(record: Any) -> Any:
        return transitions.report(
            record, now(), lease_id="L", progress=Progress(percent=5, updated_at=Timestamp.of(now()))
        )

    steps = [
        lambda r: transitions.claim(r, now(), lease_id="L", worker_id="w", lease_seconds=60),
        progress,
        lambda r: transitions.complete(r, now(), lease_id="L", output=7),
    ]
    for step in steps:
        proxy.strike(fault, 1)
        changed = step(held.record)
        held = store.move(held, changed)
        assert held.record == changed
    assert [r.status.value for r in queue.get_history(held.record.id)] == ["pending", "running", "running", "completed"]
    cases("faults over HTTP", {f"{fault}, in the life of a task": 4})


def test_a_store_that_is_gone(cases):
    store = S3Store(
        BUCKET, endpoint="http://127.0.0.1:9", region="us-east-1", access_key="a", secret_key="s", sleep=lambda s: None
    )
    with pytest.raises(StorageUnavailableError, match="is the store running"):
        store.get("x")
    assert store.requests["GET"] == 3
    store.close()
    cases("faults over HTTP", {"connection refused": 1})
