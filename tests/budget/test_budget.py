"""The request budget of the protocol, line by line, counted at the store."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from oq_nb.attempt.lease import Lease
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.model import Progress, Timestamp, new_id, transitions
from oq_nb.queue import Queue
from oq_nb.queue.poller import TaskPoller
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime
from oq_nb.worker import Worker


@pytest.fixture
def objects(fake_queue):
    return fake_queue.store.objects


@pytest.fixture
def scheduler():
    made = Scheduler("budget")
    yield made
    made.stop()


@pytest.fixture
def session(fake_queue, scheduler):
    """What a worker consists of, without its threads: its steps are made one by one."""
    worker = Worker(fake_queue, "w")
    worker.task("t")(lambda value: value)
    return worker._open_session(scheduler, None)


def taken(objects) -> Counter:
    made = Counter(objects.requests)
    objects.requests.clear()
    return made


def claim(session, task):
    store = task.queue.store
    (entry,) = store.index.scan("ready/")
    store.objects.requests.clear()
    made = session.claims.handle_entry(entry, may_claim=True)
    assert made.held.record.id == task.id
    return made


def lease_of(session, task, scheduler) -> Lease:
    made = claim(session, task)
    lease = Lease(task.queue.store, made.held, scheduler, lease_seconds=300, on_ended=made.entries.end)
    task.queue.store.objects.requests.clear()
    return lease


def test_submit_takes_two_puts(fake_queue, objects):
    fake_queue.submit("t", 1)
    assert taken(objects) == Counter(PUT=2)
    fake_queue.submit_many("t", range(5))
    assert taken(objects) == Counter(PUT=10)


def test_a_claim_takes_a_get_two_puts_and_a_delete(fake_queue, objects, session):
    claim(session, fake_queue.submit("t", 1))
    assert taken(objects) == Counter(GET=1, PUT=2, DELETE=1)


def test_one_listing_serves_all_shards(fake_queue, objects, session):
    fake_queue.submit_many("t", range(100))
    objects.requests.clear()
    session.poller.find_tasks()
    assert taken(objects) == Counter(LIST=1)
    assert len({session.backlog.take().shard for _ in range(len(session.backlog))}) > 8


def test_a_progress_update_takes_one_put(fake_queue, objects, session, scheduler):
    lease = lease_of(session, fake_queue.submit("t", 1), scheduler)
    for number in range(1, 4):
        lease.report(Progress(current=number, updated_at=Timestamp.of(lease.now())))
        assert taken(objects) == Counter(PUT=1)


def test_a_renewal_takes_one_put(fake_queue, objects, session, scheduler):
    lease = lease_of(session, fake_queue.submit("t", 1), scheduler)
    before = lease.record.lease_expires_at
    lease._renew_at = 0.0
    lease.run_due()
    assert taken(objects) == Counter(PUT=1)
    assert lease.record.lease_expires_at > before


def test_progress_and_renewal_share_a_put(fake_queue, objects, session, scheduler):
    lease = lease_of(session, fake_queue.submit("t", 1), scheduler)
    before = lease.record.lease_expires_at
    lease.report(Progress(percent=5, updated_at=Timestamp.of(lease.now())))
    assert taken(objects) == Counter(PUT=1)
    assert lease.record.lease_expires_at > before


def test_completion_takes_a_put_and_a_delete(fake_queue, objects, session):
    made = claim(session, fake_queue.submit("t", 1))
    objects.requests.clear()
    session.runner.run(made)
    assert taken(objects) == Counter(PUT=1, DELETE=1)


@pytest.mark.parametrize(("delay_seconds", "most"), [(0.0, 8), (30.0, 6)], ids=["lease entry at once", "later"])
def test_a_task_takes_eight_requests_at_most_with_threads_and_all(fake_queue, objects, delay_seconds, most):
    tasks = fake_queue.submit_many("t", range(40))
    worker = Worker(fake_queue, concurrency=4, lease_entry_delay_seconds=delay_seconds)
    worker.task("t")(lambda value: value)
    with worker:
        while worker.tasks_completed < len(tasks):
            time.sleep(0.01)
        assert worker._session._index_scheduler.finish(10)
    about_a_task = objects.requests - Counter(LIST=objects.requests["LIST"])
    own = Counter(PUT=5, DELETE=3)  # the worker's object: four to prove the store and a heartbeat, and their removal
    spent = about_a_task - own
    assert sum(spent.values()) <= most * len(tasks), spent
    assert objects.requests["LIST"] <= 12
    assert list(objects.entries("ready/")) == list(objects.entries("leases/")) == []


def test_an_idle_worker_lists_once_in_ten_seconds_at_most():
    """Its polling thread, on a clock that is moved: what it asks for in an hour after an hour without work."""
    clock = FakeTime()
    objects = FakeStore(clock)
    worker = Worker(Queue(TaskStore(objects)))
    worker.task("t")(lambda value: value)
    poller = worker._open_session(Scheduler("budget"), None).poller
    pauses = [poller.pause_after(idle) for idle in (3600.0,) * 200]
    ready = 1 / (sum(pauses) / len(pauses))
    poller.find_tasks()
    assert objects.requests == Counter(LIST=1)
    objects.requests.clear()
    poller.recover_tasks()
    assert objects.requests == Counter(LIST=1)
    assert ready + 1 / 60 <= 0.1


@pytest.mark.parametrize("number", [1, 12])
def test_a_refresh_of_a_few_tasks_is_a_get_each(fake_queue, objects, number):
    poller = TaskPoller(fake_queue.store)
    ids = [task.id for task in fake_queue.submit_many("t", range(number))]
    poller.refresh(ids)
    objects.requests.clear()
    poller.refresh(ids)
    assert sum(taken(objects).values()) <= number


def test_a_refresh_of_many_tasks_is_listings_and_a_few_reads(fake_queue, objects):
    poller = TaskPoller(fake_queue.store)
    ids = [task.id for task in fake_queue.submit_many("t", range(500))]
    poller.refresh(ids)
    objects.requests.clear()
    poller.refresh(ids)
    spent = taken(objects)
    assert spent["LIST"] <= 2
    assert sum(spent.values()) <= 10


def test_nobody_watches_nothing_is_asked(fake_queue, objects):
    fake_queue.submit_many("t", range(5))
    watch = fake_queue.watcher.watch(fake_queue.submit("t", 1), interval=0.05)
    watch.wait(0.3)
    watch.close()
    deadline = time.monotonic() + 5
    while fake_queue.watcher.is_running and time.monotonic() < deadline:
        time.sleep(0.02)
    objects.requests.clear()
    time.sleep(0.3)
    assert taken(objects) == Counter()


def test_a_failure_takes_one_put_more_than_a_completion(fake_queue, objects, session, scheduler):
    lease = lease_of(session, fake_queue.submit("t", 1), scheduler)
    lease.finish(lambda record, now: transitions.fail(record, now, lease_id=lease.lease_id, error="no"))
    assert taken(objects) == Counter(PUT=2, DELETE=1)
    assert [entry.key.split("/")[:2] for entry in objects.entries("ended/")] == [["ended", "failed"]]


def test_a_look_at_a_thousand_tasks_with_34_failures_lists_and_reads_what_it_shows(fake_queue, objects):
    def end(number, task):
        lease_id = new_id()
        fake_queue.store.update(
            task.id,
            lambda record, now: transitions.claim(record, now, lease_id=lease_id, worker_id="w", lease_seconds=60),
        )
        if number % 30 == 0:
            return lambda record, now: transitions.fail(record, now, lease_id=lease_id, error="no")
        return lambda record, now: transitions.complete(record, now, lease_id=lease_id, output=1)

    for number, task in enumerate(fake_queue.submit_many("t", range(1000))):
        fake_queue.store.update(task.id, end(number, task))
    poller = TaskPoller(fake_queue.store)
    objects.requests.clear()
    poller.refresh(overview=True)
    spent = taken(objects)
    assert (poller.overview.counts["failed"], len(poller.overview.failures)) == (34, 34)
    assert spent["LIST"] <= 6  # workers, two indexes, tasks (a page and perhaps its end), ended
    assert spent["GET"] <= 134  # the newest 100, and the failures
    poller.refresh(overview=True)
    assert taken(objects)["GET"] <= 100  # some more, for the counts
    objects.requests.clear()
    assert len(fake_queue.failures(limit=None)) == 34
    assert taken(objects) == Counter(LIST=1, GET=34)
