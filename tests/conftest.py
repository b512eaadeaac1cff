"""Stores and queues for tests; every test has a prefix of its own, and may leave no thread behind."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from pathlib import Path

import pytest
from counting import cases, pytest_terminal_summary, table
from servers import connect_to

from oq_nb import local
from oq_nb.queue import Queue
from oq_nb.queue import connection as client
from oq_nb.queue.hints import flush_all
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore

__all__ = ["cases", "pytest_terminal_summary", "table"]

# Shells start what runs in the background with Ctrl-C ignored, and programs hand that on to those that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
HANGS_AFTER_SECONDS = 60.0


@pytest.fixture(autouse=True)
def surroundings_of_its_own(monkeypatch, tmp_path_factory):
    """No setting of the user's reaches a test, and no test reaches the user's embedded store."""
    for name in ("S3_BUCKET", "S3_ENDPOINT", "S3_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL", "OQ_LOCAL_KIND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OQ_LOCAL_DIR", str(tmp_path_factory.getbasetemp() / "embedded"))
    monkeypatch.setattr(client, "_default_queue", None)


def _ours(before):
    """Return the library's threads that were not there before."""
    return [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("oq-")]


@pytest.fixture(autouse=True)
def no_thread_is_left_behind():
    before = set(threading.enumerate())
    yield
    flush_all()  # hints for workers, which would be written within a second
    deadline = time.monotonic() + HANGS_AFTER_SECONDS  # one that is left would never end; the others are about to
    while (left := _ours(before)) and time.monotonic() < deadline:  # one that ends may have started another
        left[0].join(max(0.0, deadline - time.monotonic()))
    left = [thread.name for thread in left]
    assert not left, f"threads left behind: {left}"


@pytest.fixture
def fake_store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def fake_queue(fake_store) -> Queue:
    """A queue on the fake store."""
    return Queue(TaskStore(fake_store))


def _server(directory: Path, kind: str):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OQ_LOCAL_KIND", kind)
        return local.start(data_dir=directory)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory):
    """A SeaweedFS server of this test run."""
    directory = tmp_path_factory.mktemp("seaweedfs")
    yield _server(directory, "seaweedfs")
    local.stop(data_dir=directory)


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory):
    """A moto server of this test run."""
    directory = tmp_path_factory.mktemp("moto")
    yield _server(directory, "moto")
    local.stop(data_dir=directory)


@pytest.fixture
def queue(seaweedfs) -> Queue:
    """A queue on SeaweedFS, under a prefix of its own."""
    return connect_to(seaweedfs)
