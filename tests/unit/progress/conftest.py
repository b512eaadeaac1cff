"""What the tests of this room share: a running task, a default queue, threads that end soon."""

from __future__ import annotations

import pytest

from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.progress import ticks, tracked
from oq_nb.queue import connection
from oq_nb.worker.claims import Claims


@pytest.fixture(autouse=True)
def threads_that_end_at_once():
    """Have new threads, which end soon also when they are done with a test's last write after its end."""
    tracked._new_writer()
    ticks._new_scheduler()
    tracked.WRITER._linger_seconds = 0.05
    ticks._scheduler._linger_seconds = 0.05


@pytest.fixture
def attempt(fake_queue):
    """A claimed task with its context, as a worker has it."""
    task = fake_queue.submit("job", {})
    claims = Claims(fake_queue.store, "w", lambda _: True)
    (entry,) = fake_queue.store.index.scan("ready/")
    claim = claims.handle_entry(entry, may_claim=True)
    scheduler = Scheduler("test")
    lease = Lease(fake_queue.store, claim.held, scheduler, lease_seconds=300, on_ended=claim.entries.end)
    context = TaskContext(lease)
    context.task = task
    yield context
    scheduler.stop()


@pytest.fixture
def own(fake_queue, monkeypatch):
    """The process's default queue."""
    monkeypatch.setattr(connection, "_default_queue", fake_queue)
    return fake_queue
