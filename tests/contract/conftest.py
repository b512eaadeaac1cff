"""The stores that the contract runs on, each under a prefix of the test's own.

The fake, moto, SeaweedFS (also with TLS, also through boto3 alone) and LocalStack (`more_stores`).

Or one of yours, and then no other::

    python tests/run.py tests/contract --bucket NAME [--endpoint URL] [--addressing virtual] [--no-versions]

Credentials, region, profile and certificate authority come from the environment, as boto3 has them. The bucket must be
there; all that is written lies under prefixes of the tests' own, and is removed.
"""

from __future__ import annotations

import copy
import uuid
from collections import Counter
from collections.abc import Iterator

import more_stores
import pytest
from botocore.config import Config
from servers import connect_to

from oq_nb.queue.connection import open_store
from oq_nb.s3 import ObjectStore, S3Store
from oq_nb.s3.clock import Clock
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore

STORES = ["fake", "moto", "seaweedfs", "seaweedfs through boto3", "seaweedfs with TLS", "localstack"]
#: moto checks the condition, then writes, with a gap between: a race that goes well there proves nothing.
STORES_THAT_HOLD_RACES = ["fake", "seaweedfs", "seaweedfs with TLS", "localstack"]
STORES_WITHOUT_VERSIONS = ["fake", "moto", "seaweedfs", "localstack"]
_FIXTURES = {
    "moto": "moto_server",
    "seaweedfs": "seaweedfs",
    "seaweedfs through boto3": "seaweedfs",
    "seaweedfs with TLS": "seaweedfs_with_tls",
    "localstack": "localstack",
}
YOURS = "yours"


def pytest_addoption(parser):
    group = parser.getgroup("contract", "the store to run the contract on, instead of the tests' own")
    group.addoption("--bucket", metavar="NAME", help="a bucket that is there")
    group.addoption("--endpoint", metavar="URL", help="S3 service; default: AWS")
    group.addoption("--addressing", choices=("path", "virtual"), help="where the bucket stands in addresses")
    group.addoption("--no-versions", action="store_true", help="the bucket keeps no versions: run what needs none")


def option(config: pytest.Config, name: str) -> str | None:
    """Return an option; they are known only where this folder is named on the command line."""
    return config.getoption(name, default=None)


def pytest_generate_tests(metafunc):
    is_yours, is_plain = option(metafunc.config, "--bucket"), option(metafunc.config, "--no-versions")
    for fixture, kinds, runs_on_yours in (
        ("objects", STORES, not is_plain),
        ("contended", STORES_THAT_HOLD_RACES, not is_plain),
        ("unversioned", STORES_WITHOUT_VERSIONS, is_plain),
    ):
        if fixture in metafunc.fixturenames:
            metafunc.parametrize(fixture, kinds if not is_yours else [YOURS] if runs_on_yours else [], indirect=True)


@pytest.fixture(scope="session")
def your_store(request) -> S3Store:
    """The store that the command line names, connected before the tests' own surroundings are made."""
    addressing = option(request.config, "--addressing")
    options = {"client_options": {"config": Config(s3={"addressing_style": addressing})}} if addressing else {}
    store = open_store(option(request.config, "--bucket"), endpoint=option(request.config, "--endpoint"), **options)
    assert store.bucket_exists(), f"{store!r}: there is no such bucket"
    store.is_versioned = not option(request.config, "--no-versions")
    if store.is_versioned and not store.read_versioning():
        pytest.exit(f"{store!r} keeps no versions: turn them on, or add --no-versions", 2)
    return store


def store_on(kind: str, request: pytest.FixtureRequest) -> Iterator[ObjectStore]:
    """Yield a store of a kind; of yours, everything that the test has written is removed."""
    prefix = f"contract-{uuid.uuid4().hex}/"
    if kind == YOURS:
        store = copy.copy(request.getfixturevalue("your_store"))
        store.prefix, store.requests, store.clock = store.prefix + prefix, Counter(), Clock()
        yield store
        store.clock = Clock()
        for entry in list(store.versions("") if store.is_versioned else store.entries("")):
            store.delete(entry.key, version_id=entry.version_id)
        return
    if kind == "fake":
        yield FakeStore()
        return
    server = request.getfixturevalue(_FIXTURES[kind])
    store = connect_to(server, prefix=prefix).store.objects
    if kind.endswith("boto3"):
        store = S3Store(
            store.bucket,
            prefix=prefix,
            endpoint=server.endpoint,
            region=server.region,
            access_key=server.access_key,
            secret_key=server.secret_key,
            direct=False,
        )
    store.requests.clear()
    yield store
    store.close()


def _session(name: str):
    @pytest.fixture(scope="session", name=name)
    def started(tmp_path_factory):
        with getattr(more_stores, name)(tmp_path_factory.mktemp(name)) as server:
            yield server

    return started


localstack, rclone, ceph = _session("localstack"), _session("rclone"), _session("ceph")
seaweedfs_with_tls = _session("seaweedfs_with_tls")


@pytest.fixture
def objects(request) -> Iterator[ObjectStore]:
    """A store, of each kind."""
    yield from store_on(request.param, request)


@pytest.fixture
def contended(request) -> Iterator[ObjectStore]:
    """A store, of each kind that holds under races."""
    yield from store_on(request.param, request)


@pytest.fixture
def unversioned(request) -> Iterator[ObjectStore]:
    """A store of each kind whose bucket keeps no versions."""
    if request.param == YOURS:
        yield from store_on(YOURS, request)
        return
    if request.param == "fake":
        yield FakeStore(versioned=False)
        return
    server = request.getfixturevalue(_FIXTURES[request.param])
    store = S3Store(
        f"plain-{uuid.uuid4().hex[:12]}",
        endpoint=server.endpoint,
        region=server.region,
        access_key=server.access_key,
        secret_key=server.secret_key,
    )
    store.create_bucket()
    assert not store.read_versioning()
    store.is_versioned = False
    yield store
    store.close()


@pytest.fixture
def tasks(objects) -> TaskStore:
    """The tasks of a store, of each kind."""
    return TaskStore(objects)
