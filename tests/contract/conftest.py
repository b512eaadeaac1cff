"""The stores that the contract runs on, each under a prefix of the test's own: fake, moto, SeaweedFS."""

from __future__ import annotations

import uuid

import pytest
from servers import connect_to

from oq_nb.s3 import ObjectStore
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore

STORES = ["fake", "moto", "seaweedfs", "seaweedfs through boto3"]
#: moto checks the condition, then writes, with a gap between: a race that goes well there proves nothing.
STORES_THAT_HOLD_RACES = ["fake", "seaweedfs"]


def store_on(kind: str, request: pytest.FixtureRequest) -> ObjectStore:
    if kind == "fake":
        return FakeStore()
    server = request.getfixturevalue("moto_server" if kind == "moto" else "seaweedfs")
    store = connect_to(server, prefix=f"contract-{uuid.uuid4().hex}/").store.objects
    if kind.endswith("boto3"):
        store._client = store._client._client
    store.requests.clear()
    return store


@pytest.fixture(params=STORES)
def objects(request) -> ObjectStore:
    """A store, of each kind."""
    store = store_on(request.param, request)
    yield store
    store.close()


@pytest.fixture(params=STORES_THAT_HOLD_RACES)
def contended(request) -> ObjectStore:
    """A store, of each kind that holds under races."""
    store = store_on(request.param, request)
    yield store
    store.close()


@pytest.fixture
def tasks(objects) -> TaskStore:
    """The tasks of a store, of each kind."""
    return TaskStore(objects)
