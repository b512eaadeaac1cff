"""A write that was delivered twice, or refused after it was applied: its writer is not told that it lost."""

from __future__ import annotations

import pytest

from oq_nb import model
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import ConflictError
from oq_nb.model import Progress, TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
from oq_nb.worker.claims import Claims


@pytest.fixture(params=[True, False], ids=["versions", "no versions"])
def queue(request) -> Queue:
    return Queue(TaskStore(FakeStore(versioned=request.param)))


def twice(objects, prefix="tasks/", between=None):
    """The next write under a prefix is applied, sent once more by something on the way, and then refused (412)."""
    left = [1]

    def fault(kind, key, when):
        if kind == "PUT" and when == "after" and key.startswith(prefix) and left[0]:
            left[0] -= 1
            if between is not None:
                between()
            raise ConflictError(f"PUT {key}: 412", key=key)

    objects.fault = fault
    return left


def running(queue):
    """Submit a task and claim it."""
    task = queue.submit("t", timeout_seconds=60)
    held = queue.store.read(task.id)
    claimed = transitions.claim(
        held.record, queue.store.clock.stamp(), lease_id=model.new_id(), worker_id="w", lease_seconds=60
    )
    return queue.store.move(held, claimed)


def done(queue):
    held = running(queue)
    complete = transitions.complete(held.record, queue.store.clock.stamp(), lease_id=held.record.lease_id, output=1)
    return queue.store.move(held, complete)


def test_a_submission(queue):
    left = twice(queue.store.objects)
    task = queue.submit("t", 1)
    assert left == [0]
    assert [found.id for found in queue.list()] == [task.id]


def test_a_submission_with_a_key(queue):
    for prefix in ("idempotency/", "tasks/"):
        left = twice(queue.store.objects, prefix)
        task = queue.submit("t", 1, idempotency_key=prefix)
        assert left == [0]
        assert queue.submit("t", 1, idempotency_key=prefix).id == task.id
    assert len(queue.list()) == 2


def test_a_claim(queue):
    task = queue.submit("t", max_retries=0)
    (entry,) = queue.store.index.scan(model.READY)
    left = twice(queue.store.objects)
    claim = Claims(queue.store, "w", lambda task_type: True).handle_entry(entry, may_claim=True)
    assert left == [0]
    assert claim is not None and claim.held.record == queue.get(task.id).record
    assert claim.held.record.status is TaskStatus.RUNNING


def test_a_claim_of_a_task_that_somebody_asks_to_stop_meanwhile(queue):
    """Between the two deliveries a client changes the task: the claim stands all the same."""
    task = queue.submit("t")
    (entry,) = queue.store.index.scan(model.READY)
    twice(queue.store.objects, between=lambda: Queue(TaskStore(queue.store.objects)).cancel(task.id))
    claim = Claims(queue.store, "w", lambda task_type: True).handle_entry(entry, may_claim=True)
    assert claim is not None and claim.held.record == queue.get(task.id).record
    assert claim.held.record.cancel_requested


@pytest.mark.parametrize("ends", ["complete", "fail", "retry", "reschedule", "release", "finish_cancelled"])
def test_an_end(queue, ends):
    held = running(queue)
    scheduler, lost, events = Scheduler("test"), [], []
    queue.store.listeners = (lambda event, *_: events.append(event),)
    lease = Lease(queue.store, held, scheduler, lease_seconds=60, on_lost=lambda: lost.append(1))
    options = {
        "complete": {"output": 1},
        "fail": {"error": "no"},
        "retry": {"error": "no", "chance": 0.5},
        "reschedule": {"delay_seconds": 5},
        "release": {},
        "finish_cancelled": {"reason": None},
    }[ends]
    left = twice(queue.store.objects)
    try:
        made = lease.finish(
            lambda record, now: getattr(transitions, ends)(record, now, lease_id=lease.lease_id, **options)
        )
    finally:
        scheduler.stop()
    assert left == [0]
    assert lost == []
    assert "conflict" not in events and "lease_lost" not in events
    assert made.record == queue.get(held.record.id).record
    assert made.record.status is not TaskStatus.RUNNING


def test_progress_and_renewals(queue):
    held = running(queue)
    scheduler = Scheduler("test")
    lease = Lease(queue.store, held, scheduler, lease_seconds=60)
    left = twice(queue.store.objects)
    try:
        lease.report(Progress(current=3, updated_at=queue.store.clock.stamp()))
        lease.check()
    finally:
        scheduler.stop()
    assert left == [0]
    assert queue.get(held.record.id).progress.current == 3


@pytest.mark.parametrize("change", ["cancel", "replay", "archive"])
def test_what_a_client_changes(queue, change):
    task_id = queue.submit("t").id if change == "cancel" else done(queue).record.id
    left = twice(queue.store.objects)
    task = getattr(queue, change)(task_id)
    assert left == [0]
    assert task.status == {"cancel": "cancelled", "replay": "pending", "archive": "archived"}[change]
    assert queue.get(task_id).record == task.record


def test_an_end_that_somebody_has_archived_since():
    """Between the two deliveries another client makes a change of its own: versions show that ours came first."""
    queue = Queue(TaskStore(FakeStore()))
    held = running(queue)
    scheduler = Scheduler("test")
    lease = Lease(queue.store, held, scheduler, lease_seconds=60)
    twice(queue.store.objects, between=lambda: Queue(TaskStore(queue.store.objects)).archive(held.record.id))
    try:
        made = lease.finish(lambda record, now: transitions.complete(record, now, lease_id=lease.lease_id, output=1))
    finally:
        scheduler.stop()
    assert made.record.status is TaskStatus.ARCHIVED
    assert [r.status.value for r in queue.get_history(held.record.id)] == [
        "pending",
        "running",
        "completed",
        "archived",
    ]


def test_a_lost_race_for_a_claim_costs_one_read():
    queue = Queue(TaskStore(FakeStore()))
    task = queue.submit("t")
    held = queue.store.read(task.id)
    claims = [
        transitions.claim(
            held.record, queue.store.clock.stamp(), lease_id=model.new_id(), worker_id=w, lease_seconds=60
        )
        for w in ("first", "second")
    ]
    queue.store.move(held, claims[0])
    queue.store.objects.requests.clear()
    with pytest.raises(ConflictError) as caught:
        queue.store.move(held, claims[1])
    assert queue.store.objects.requests == {"PUT": 1, "GET": 1}
    assert caught.value.current.record == claims[0], "what stands there is handed on, and need not be read again"


def test_a_change_that_lost_is_made_on_the_new_state_without_another_read():
    queue = Queue(TaskStore(FakeStore()))
    held = running(queue)
    queue.cancel(held.record.id)
    scheduler = Scheduler("test")
    lease = Lease(queue.store, held, scheduler, lease_seconds=60)
    queue.store.objects.requests.clear()
    try:
        lease.finish(lambda record, now: transitions.complete(record, now, lease_id=lease.lease_id, output=1))
    finally:
        scheduler.stop()
    record = queue.get(held.record.id).record
    assert (record.status, record.cancel_requested) == (TaskStatus.COMPLETED, True)
    assert queue.store.objects.requests["PUT"] == 2
