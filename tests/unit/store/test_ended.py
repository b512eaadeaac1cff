"""Entries of unhappy ends: who leaves one, who removes it, and what a look at the queue says with their help."""

from __future__ import annotations

import io
import logging
import threading
import time as clock
from collections import Counter
from datetime import timedelta

import pytest

from oq_nb import model
from oq_nb.admin import retention
from oq_nb.errors import ConfigurationError, StorageDeniedError, StorageUnavailableError, TransitionError
from oq_nb.model import TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.queue.poller import TaskPoller
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime
from oq_nb.worker import Worker
from oq_nb.worker.claims import Claims


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def objects(time):
    return FakeStore(time)


@pytest.fixture
def queue(objects):
    return Queue(TaskStore(objects))


def entries(queue) -> list[str]:
    """Everything under ``ended/``, old versions and delete markers too."""
    return [entry.key for entry, _ in queue.store.objects.look("ended/")]


def claimed(queue, **options):
    """Return a task that runs, and its lease's id."""
    task = queue.submit("t", **options)
    lease_id = model.new_id()
    queue.store.update(
        task.id,
        lambda record, now: transitions.claim(record, now, lease_id=lease_id, worker_id="w", lease_seconds=60),
    )
    return task.refresh(), lease_id


def ended(queue, status="failed", **options):
    """Return a task that has ended so, by the store's own way of changing tasks."""
    if status == "expired":
        return queue.submit("t", **options)
    task, lease_id = claimed(queue, **options)
    if status == "failed":
        change = lambda record, now: transitions.fail(record, now, lease_id=lease_id, error="ValueError: no")  # noqa: E731
    elif status == "cancelled":
        change = lambda record, now: transitions.finish_cancelled(record, now, lease_id=lease_id, reason=None)  # noqa: E731
    else:
        change = lambda record, now: transitions.complete(record, now, lease_id=lease_id, output=1)  # noqa: E731
    queue.store.update(task.id, change)
    return task.refresh()


def minute(time) -> str:
    return f"{int(time.seconds // 60):010d}"


# --- who leaves one


def test_a_cancelled_task_leaves_an_entry_and_a_replay_removes_it(queue, time):
    task = queue.submit("t").cancel()
    assert entries(queue) == [f"ended/cancelled/{minute(time)}/{task.id}"]
    time.advance(600)
    task.replay()
    assert entries(queue) == []
    task.cancel()
    assert entries(queue) == [f"ended/cancelled/{minute(time)}/{task.id}"]
    queue.archive(task.id)
    assert entries(queue) == []


def test_a_completed_task_leaves_none_and_costs_no_request_more(queue, objects):
    task, lease_id = claimed(queue)
    objects.requests.clear()
    queue.store.update(
        task.id, lambda record, now: transitions.complete(record, now, lease_id=lease_id, output=1), held=task.snapshot
    )
    assert (entries(queue), objects.requests) == ([], Counter(PUT=1))


def test_a_worker_leaves_an_entry_of_each_unhappy_end(fake_queue):
    """With real threads: what fails for good, and what is cancelled while it runs; a retry and a success leave none."""
    worker = Worker(fake_queue, max_poll_seconds=0.1)
    started = threading.Event()

    @worker.task("fails")
    def fails(job):
        raise ValueError("no")

    @worker.task("runs")
    def runs(job, context):
        started.set()
        while True:
            context.report_progress(percent=1)
            context.raise_if_cancelled()

    worker.task("works")(lambda job: job)
    with worker:
        failed, completed = fake_queue.submit("fails"), fake_queue.submit("works", 1)
        stopped = fake_queue.submit("runs")
        assert started.wait(20)
        stopped.cancel()
        for task in (failed, completed, stopped):
            task.wait(20)
    assert {key.split("/")[1]: key.split("/")[3] for key in entries(fake_queue)} == {
        "failed": failed.id,
        "cancelled": stopped.id,
    }
    assert completed.status == "completed" and stopped.refresh().status == "cancelled"


def test_a_lapsed_lease_without_retries_and_a_missed_start_leave_entries(queue, time):
    claims = Claims(queue.store, "w", lambda task_type: True)
    dead, late = queue.submit("t", max_retries=0, timeout_seconds=60), queue.submit("t", ttl_seconds=30)
    ready = {entry.task_id: entry for entry in queue.store.index.scan("ready/")}
    claims.handle_entry(ready[dead.id], may_claim=True)
    time.advance(120)
    claims.handle_entry(ready[late.id], may_claim=True)
    (lease,) = queue.store.index.scan("leases/")
    claims.handle_entry(lease)
    assert entries(queue) == [
        f"ended/expired/{minute(time)}/{late.id}",
        f"ended/failed/{minute(time)}/{dead.id}",
    ]


def test_a_recovered_task_that_is_tried_again_leaves_none(queue, time):
    claims = Claims(queue.store, "w", lambda task_type: True)
    queue.submit("t", timeout_seconds=60)
    (entry,) = queue.store.index.scan("ready/")
    claims.handle_entry(entry, may_claim=True)
    time.advance(120)
    (lease,) = queue.store.index.scan("leases/")
    claims.handle_entry(lease)
    assert entries(queue) == []


def test_a_loop_that_fails_leaves_an_entry(fake_queue):
    import oq_nb

    with (
        pytest.raises(ZeroDivisionError),
        oq_nb.tqdm(total=3, file=io.StringIO(), queue=fake_queue, min_seconds=0) as bar,
    ):
        task = bar.task
        raise ZeroDivisionError
    task.wait(20)
    deadline = clock.monotonic() + 20
    while not entries(fake_queue) and clock.monotonic() < deadline:  # it is written after the end, by a thread
        clock.sleep(0.01)
    assert [key.split("/")[1::2] for key in entries(fake_queue)] == [["failed", task.id]]


# --- best effort


def test_a_store_that_refuses_or_loses_the_entry_changes_nothing_else(queue, objects, time, caplog):
    def refuse(error):
        def fault(kind, key, when):
            if kind == "PUT" and key.startswith("ended/") and when == "before":
                raise error

        objects.fault = fault

    refuse(StorageUnavailableError("503"))
    with caplog.at_level(logging.WARNING):
        assert queue.submit("t").cancel().status == "cancelled"
    assert (entries(queue), caplog.records) == ([], [])
    refuse(StorageDeniedError("ExpiredToken", code="ExpiredToken"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert queue.submit("t").cancel().status == "cancelled"
            time.advance(61)
    assert caplog.records == [], "a token that has expired says nothing of the policy"
    refuse(StorageDeniedError("AccessDenied", code="AccessDenied"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert queue.submit("t").cancel().status == "cancelled"
            time.advance(61)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "ended/" in caplog.text and "s3:PutObject" in caplog.text


# --- what a look says


def test_one_failure_before_130_successes_is_counted_and_found_at_the_first_look(queue, objects, time):
    failed = ended(queue)
    for _ in range(130):
        time.advance(1)
        ended(queue, "completed")
    poller = TaskPoller(queue.store)
    objects.requests.clear()
    poller.refresh(overview=True)
    seen = poller.overview
    assert [held.record.id for held in seen.failures] == [failed.id]
    assert (seen.counts["failed"], seen.counts["completed"], seen.uncounted) == (1, 100, 30)
    assert (seen.ended_total, len(seen.ended), sum(seen.unread_failures.values())) == (131, 100, 0)
    assert objects.requests == Counter(LIST=5, GET=101)  # workers, leases, ready, tasks, ended
    poller.refresh(overview=True)
    assert (poller.overview.counts["completed"], poller.overview.uncounted) == (130, 0)
    poller.keep([])
    objects.requests.clear()
    poller.refresh(overview=True)
    assert [held.record.id for held in poller.overview.failures] == [failed.id]
    assert objects.requests["GET"] == 0


def test_more_failures_than_are_read_at_once_are_counted_at_the_first_look(queue, time):
    for number in range(250):
        time.advance(1)
        ended(queue, "failed" if number < 240 else "cancelled")
    poller = TaskPoller(queue.store)
    found = []
    for _ in range(3):
        poller.refresh(overview=True)
        seen = poller.overview
        assert (seen.counts["failed"], seen.counts["cancelled"], seen.uncounted) == (240, 10, 0)
        assert len(seen.failures) + seen.unread_failures["failed"] == 250
        found.append(len(seen.failures))
    assert found[0] < found[1] <= found[2] == 250


def test_the_task_decides_not_its_entry(queue, time):
    stale, missing, fine = ended(queue), ended(queue), ended(queue)
    for entry in queue.store.index.find(model.ended_key(missing.record)):  # as a worker of upstream leaves it
        queue.store.index.remove(entry)
    queue.store.objects.put(f"ended/expired/{minute(time)}/{model.new_id()}", b"")  # leads nowhere
    queue.store.objects.put("ended/nonsense", b"")
    queue.store.objects.put(f"ended/running/{minute(time)}/{fine.id}", b"")
    key = model.ended_key(stale.record)
    stale.replay()
    queue.store.objects.put(key, b"")  # written late, or the task was replayed by another program
    poller = TaskPoller(queue.store)
    poller.refresh(overview=True)
    seen = poller.overview
    assert {held.record.id for held in seen.failures} == {missing.id, fine.id}
    assert {name: count for name, count in seen.counts.items() if count} == {"pending": 1, "failed": 2}
    assert seen.uncounted == 0


def test_an_entry_of_a_task_that_completed_since_is_corrected_when_the_task_is_read(queue, time):
    task = ended(queue)
    key = model.ended_key(task.record)
    task.replay()
    queue.store.objects.put(key, b"")
    lease_id = model.new_id()
    for change in (
        lambda r, n: transitions.claim(r, n, lease_id=lease_id, worker_id="w", lease_seconds=60),
        lambda r, n: transitions.complete(r, n, lease_id=lease_id, output=1),
    ):
        queue.store.update(task.id, change)
    for entry in queue.store.index.scan("leases/"):
        queue.store.index.remove(entry)
    poller = TaskPoller(queue.store)
    poller.refresh(overview=True)
    assert (poller.overview.failures, poller.overview.counts["completed"]) == ((), 1)
    assert not poller.overview.counts.get("failed")


# --- Queue.failures


def test_failures_are_found_among_many_with_few_requests(queue, objects, time):
    failed = []
    for number in range(200):
        time.advance(60)
        task = ended(queue, "failed" if number % 50 == 0 else "completed")
        if task.status == "failed":
            failed.append(task.id)
    cancelled = queue.submit("other").cancel()
    objects.requests.clear()
    assert [task.id for task in queue.failures()] == failed[::-1]
    assert objects.requests == Counter(LIST=1, GET=4)
    assert [task.id for task in queue.failures(limit=2)] == failed[:1:-1]
    since = queue.now() - timedelta(minutes=101)
    assert [task.id for task in queue.failures(since=since)] == failed[:1:-1]
    assert [task.id for task in queue.failures("cancelled")] == [cancelled.id]
    assert queue.failures("cancelled", "t") == [] == queue.failures(TaskStatus.EXPIRED)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"status": "completed"}, "status: failed, cancelled or expired, not completed"),
        ({"status": "lost"}, "status: one of pending"),
        ({"limit": -1}, "limit: a whole number from 0"),
        ({"since": "yesterday"}, "since: a datetime with a time zone"),
    ],
)
def test_failures_of_nonsense_are_refused_by_name(queue, arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        queue.failures(**arguments)


# --- prune


def test_pruning_removes_entries_with_their_tasks_and_those_that_lead_nowhere(queue, time):
    ended(queue)
    kept = queue.submit("t").cancel()
    stale = queue.submit("t").cancel()
    key = model.ended_key(stale.record)
    time.advance(90)
    stale.replay()
    queue.store.objects.put(key, b"")
    queue.store.objects.put(f"ended/failed/{minute(time)}/{model.new_id()}", b"")
    time.advance(7200)
    assert len(entries(queue)) == 4
    retention.prune(queue.store, older_than=timedelta(hours=1), dry_run=True)
    assert len(entries(queue)) == 4
    retention.prune(queue.store, older_than=timedelta(hours=1), statuses=[TaskStatus.FAILED])
    assert [key.split("/")[1] for key in entries(queue)] == ["cancelled", "cancelled", "failed"]
    retention.prune(queue.store, older_than=timedelta(days=1))
    assert model.ended_key(kept.record) in entries(queue)
    retention.prune(queue.store, older_than=timedelta(hours=1))
    assert entries(queue) == [] and queue.get(stale.id).status == "pending"


# --- loops are not replayed


def test_a_loop_of_track_is_not_replayed_by_anything(queue):
    task = queue.submit("track:epochs").cancel()
    for replay in (task.replay, task.retry, lambda: queue.replay(task.id), lambda: queue.retry(task.id)):
        with pytest.raises(TransitionError, match=r"ran under track\(\): no worker can run it, run its program again"):
            replay()
    assert task.refresh().status == "cancelled" and entries(queue) == [model.ended_key(task.record)]


def test_a_failure_is_not_hidden_by_a_thousand_that_were_cancelled(queue, time, monkeypatch):
    monkeypatch.setattr("oq_nb.queue.poller._FAILURES_LIMIT", 5)
    monkeypatch.setattr("oq_nb.queue.poller._ENDED_LIMIT", 3)
    monkeypatch.setattr("oq_nb.queue.poller._COUNT_LIMIT", 3)
    failed = ended(queue)
    for _ in range(9):
        time.advance(61)
        ended(queue, "cancelled")
    poller = TaskPoller(queue.store)
    poller.refresh(overview=True)
    seen = poller.overview
    assert failed.id in [held.record.id for held in seen.failures]
    assert seen.unread_failures == {"failed": 0, "cancelled": 4, "expired": 0}
    time.advance(61)
    for _ in range(7):
        ended(queue)
    poller.refresh(overview=True)
    assert poller.overview.unread_failures == {"failed": 3, "cancelled": 4, "expired": 0}


def test_where_an_index_has_more_than_is_listed_nothing_is_called_ended_that_may_be_pending(queue, monkeypatch):
    monkeypatch.setattr("oq_nb.queue.poller._PAGE", 10)
    monkeypatch.setattr("oq_nb.queue.poller._INDEX_PAGES", 2)
    monkeypatch.setattr("oq_nb.queue.poller._LIVE_LIMIT", 5)
    monkeypatch.setattr("oq_nb.queue.poller._ENDED_LIMIT", 2)
    monkeypatch.setattr("oq_nb.queue.poller._COUNT_LIMIT", 2)
    for _ in range(50):
        queue.submit("t")
    poller = TaskPoller(queue.store)
    poller.refresh(overview=True)
    seen = poller.overview
    assert (seen.uncounted, seen.ended_total) == (0, 0)
    assert seen.counts["pending"] + seen.unlisted == 50
    assert seen.unlisted > 20


@pytest.mark.parametrize("in_index", [False, True])
def test_a_task_that_cannot_be_read_is_called_that(queue, objects, in_index):
    task = queue.submit("t") if in_index else ended(queue, "completed")
    body = objects.get(task.record.key).body.replace(b'"pending"', b'"paused"').replace(b'"completed"', b'"paused"')
    objects.put(task.record.key, body)
    other = queue.submit("t")
    poller = TaskPoller(queue.store)
    for _ in range(3):
        poller.refresh(overview=True)
        seen = poller.overview
        assert (seen.unreadable, seen.uncounted, seen.ended_total, seen.unlisted) == (1, 0, 0, 0)
        assert {name: count for name, count in seen.counts.items() if count} == {"pending": 1}
        poller.keep([])
    queue.store.objects.delete(task.record.key)
    poller.refresh(overview=True)
    assert (poller.overview.unreadable, poller.overview.counts["pending"]) == (0, 1)
    assert other.refresh().status is TaskStatus.PENDING
