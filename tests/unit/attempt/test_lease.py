"""A lease: every class of error at its writes, its end, a sleep of the machine, and what `close` stops."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from oq_nb import model
from oq_nb.attempt import lease as lease_module
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.backoff import Backoff
from oq_nb.errors import (
    ConfigurationError,
    LeaseExpiredError,
    RecordError,
    StorageConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
)
from oq_nb.model import TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime

TROUBLES = [
    StorageConfigurationError("endpoint: no trusted connection"),
    StorageConfigurationError("bucket 'b' does not exist"),
    StorageDeniedError("refused (ExpiredToken)", code="ExpiredToken"),
    StorageDeniedError("refused (AccessDenied)", code="AccessDenied"),
    StorageUnavailableError("no answer"),
    StorageError("sent no ETag"),
]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(lease_module, "_RETRIES", Backoff(0.001, 0.001))


class FakeScheduler:
    """Calls nothing by itself; says what is planned."""

    def __init__(self):
        self.planned = {}

    def call(self, periodic, at=None):
        self.planned[id(periodic)] = at

    def forget(self, periodic):
        self.planned.pop(id(periodic), None)


class Running:
    """A running attempt in a time that moves only when told to."""

    def __init__(self, *, lease_seconds=30, scheduler=None, **options):
        self.time = FakeTime()
        self.objects = FakeStore(self.time)
        self.store = TaskStore(self.objects)
        self.task = Queue(self.store).submit("t", timeout_seconds=lease_seconds)
        held = self.store.read(self.task.id)
        claimed = transitions.claim(
            held.record, self.store.clock.stamp(), lease_id=model.new_id(), worker_id="w", lease_seconds=lease_seconds
        )
        self.scheduler = scheduler or FakeScheduler()
        made = self.store.move(held, claimed)
        self.lease = Lease(self.store, made, self.scheduler, lease_seconds=lease_seconds, **options)

    @property
    def record(self):
        return self.store.read(self.task.id).record

    def complete(self, **options):
        lease_id = self.lease.lease_id
        return self.lease.finish(
            lambda record, now: transitions.complete(record, now, lease_id=lease_id, output=7), **options
        )


def raise_times(error, times, *, when="before", kind="PUT", prefix="tasks/"):
    """A fault that strikes so many times."""
    left = [times]

    def fault(kind_, key, when_):
        if left[0] and (kind_, when_) == (kind, when) and key.startswith(prefix):
            left[0] -= 1
            raise error

    fault.left = left
    return fault


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", TROUBLES, ids=lambda error: f"{type(error).__name__}: {error}")
def test_an_end_is_tried_until_it_is_written(error, when):
    running = Running()
    running.objects.fault = fault = raise_times(error, 3, when=when)
    assert running.complete().record.output == 7
    assert fault.left == [0] or when == "after"
    assert (running.record.status, running.record.output) == (TaskStatus.COMPLETED, 7)
    assert [record.status.value for record in running.store.history(running.task.id)] == [
        "pending",
        "running",
        "completed",
    ]


def test_a_storage_error_of_the_settings_is_of_both_kinds():
    """Who configures sees a `ConfigurationError`, what runs sees a `StorageError` and tries again."""
    assert issubclass(StorageConfigurationError, StorageError)
    assert issubclass(StorageConfigurationError, ConfigurationError)
    assert issubclass(StorageConfigurationError, ValueError)


def test_who_gives_up_is_told_why():
    running = Running()
    running.objects.fault = raise_times(TROUBLES[0], 99)
    with pytest.raises(StorageConfigurationError, match="no trusted connection"):
        running.complete(give_up=lambda: True)
    assert running.record.status is TaskStatus.RUNNING


def test_an_end_over_a_task_that_became_invalid_is_given_up():
    """Somebody overwrote the task with nonsense: no thread waits for ever."""
    running = Running()
    running.objects.put(running.task.record.key, b"nonsense")
    with pytest.raises(RecordError):
        running.complete()


def test_one_damaged_answer_ends_no_attempt():
    """The task is read after a conflict; what came was cut off on its way."""
    running = Running()
    Queue(running.store).cancel(running.task.id)
    get, damaged = running.objects.get, [running.task.record.key]

    def get_damaged(key, **options):
        found = get(key, **options)
        if key in damaged:
            damaged.remove(key)
            return type(found)(found.body[:40], found.etag, found.version_id)
        return found

    running.objects.get = get_damaged
    assert running.complete().record.output == 7
    assert damaged == []


def test_one_late_404_ends_no_attempt():
    running = Running()
    Queue(running.store).cancel(running.task.id)
    get, late = running.objects.get, [running.task.record.key] * 2

    def get_late(key, **options):
        if key in late:
            late.remove(key)
            return None
        return get(key, **options)

    running.objects.get = get_late
    assert running.complete().record.output == 7
    assert late == []


# --- a request to stop


def test_a_request_to_stop_by_this_process_is_seen_without_a_request():
    running = Running()
    Queue(running.store).cancel(running.task.id)
    assert running.scheduler.planned[id(running.lease)] is None, "now"
    before = running.objects.requests.copy()
    running.lease.run_due()
    assert running.lease.record.cancel_requested
    assert running.objects.requests == before
    assert running.complete().record.cancel_requested
    made = running.objects.requests - before
    assert (made["PUT"], made["GET"]) == (1, 0), "it was written over what was heard, not over what was claimed"


def test_a_request_to_stop_by_another_process_is_seen_with_the_next_write():
    running = Running()
    Queue(TaskStore(running.objects)).cancel(running.task.id)
    running.lease.run_due()
    assert not running.lease.record.cancel_requested
    running.time.advance(10)  # a third of the lease: it is renewed
    running.lease.run_due()
    assert running.lease.record.cancel_requested


def test_what_was_heard_does_not_take_the_place_of_what_is_newer():
    running = Running()
    Queue(running.store).cancel(running.task.id)
    running.time.advance(10)
    running.lease.extend(5)  # meets the request in the bucket, before the scheduler has come to it
    newest = running.lease.held
    running.lease.run_due()
    assert running.lease.record.cancel_requested
    assert running.lease.held.record.lease_expires_at >= newest.record.lease_expires_at


def test_only_the_attempt_that_the_task_is_in_hears_of_it():
    running, other = Running(), Running()
    Queue(other.store).cancel(other.task.id)
    running.store.local_attempts.tell(other.store.read(other.task.id))
    running.lease.run_due()
    assert not running.lease.record.cancel_requested


def test_an_attempt_that_is_over_hears_nothing():
    running = Running()
    Queue(running.store).cancel(running.task.id)
    ended = running.complete()
    running.lease.run_due()
    assert running.lease.held is ended


# --- after the end, and after a run that wrote none


def test_a_closed_lease_is_not_renewed():
    running = Running()
    before = running.record
    running.lease.close()
    assert running.scheduler.planned == {}
    running.time.advance(20)
    assert running.lease.run_due() is None
    assert running.record == before


def test_extending_after_the_end_says_that_it_has_ended():
    running = Running()
    running.complete()
    with pytest.raises(LeaseExpiredError, match="this attempt has ended"):
        running.lease.extend(60)


def test_extending_while_the_end_is_written_says_so_and_loses_no_lease(caplog):
    """The end holds the lease's lock while the store is slow; what waits for it must not call the lease lost."""
    running, is_writing, may_go, raised = Running(), threading.Event(), threading.Event(), []

    def slow(kind, key, when):
        if kind == "PUT" and when == "after":
            is_writing.set()
            may_go.wait(10)

    def extend():
        try:
            running.lease.extend(60)
        except LeaseExpiredError as exc:
            raised.append(str(exc))

    running.objects.fault = slow
    ending = threading.Thread(target=running.complete)
    ending.start()
    assert is_writing.wait(60)
    extending = threading.Thread(target=extend)
    extending.start()
    may_go.set()
    ending.join(10)
    extending.join(10)
    assert raised == [f"task {running.task.id}: this attempt has ended"]
    assert "no longer owns" not in caplog.text
    assert running.record.status is TaskStatus.COMPLETED


def test_extending_adds_to_the_present_end():
    """As upstream's `extend_lease`."""
    running = Running(lease_seconds=30, renews=False)
    ends = running.record.lease_expires_at
    running.time.advance(10)
    running.lease.extend(60)
    assert running.record.lease_expires_at == ends + timedelta(seconds=60)
    running.lease.extend(0.5)
    assert running.record.lease_expires_at == ends + timedelta(seconds=60.5)


def test_a_lease_that_is_over_is_extended_from_now():
    running = Running(lease_seconds=30, renews=False)
    running.time.advance(100)
    now = running.store.clock.now()
    running.lease.extend(60)
    assert now + timedelta(seconds=60) <= running.record.lease_expires_at <= now + timedelta(seconds=61)


# --- a sleep of the machine


def sleep(running, seconds):
    """Let the machine sleep: the store's time and the wall clock go on, the monotonic clock does not."""
    running.time.advance(seconds)
    before, clock = running.store.clock.monotonic, running.store.clock
    clock.monotonic = lambda: before() - seconds
    running.lease._monotonic = clock.monotonic


def test_the_first_renewal_after_a_sleep_never_ends_in_the_past():
    running = Running(lease_seconds=30)
    running.time.advance(8)
    sleep(running, 3600)
    running.time.advance(3)
    running.objects.requests.clear()
    assert running.lease.run_due() is not None
    now = running.time.seconds
    assert now + 28 <= running.record.lease_expires_at.timestamp() <= now + 31
    assert running.objects.requests["PUT"] == 1, "no lease was written that ends in the past"
    assert running.objects.requests["GET"] == 1 + 1, "the task was read once to know the time (and once by this test)"


def test_a_task_that_others_took_during_a_sleep_is_lost():
    running = Running(lease_seconds=30)
    running.time.advance(8)
    sleep(running, 3600)
    recovered = running.store.update(running.task.id, lambda record, now: transitions.recover(record, now, chance=0.5))
    running.time.advance(3)
    running.lease.run_due()
    assert running.lease.is_lost
    assert running.record == recovered.record


def test_a_wall_clock_that_is_set_costs_one_read():
    running = Running(lease_seconds=30)
    for jump in (0, 7200, 0):
        before = running.store.clock.wall
        running.store.clock.wall = lambda before=before, jump=jump: before() + jump
        running.time.advance(11)
        running.objects.requests.clear()
        running.lease.run_due()
        assert running.objects.requests == {"PUT": 1} | ({"GET": 1} if jump else {})


def test_a_lease_that_is_nearly_over_when_it_begins_is_renewed_at_once():
    running = Running(lease_seconds=30)
    running.time.advance(25)
    late = Lease(running.store, running.lease.held, running.scheduler, lease_seconds=30)
    assert running.scheduler.planned[id(late)] == running.store.clock.monotonic()


def test_scheduler_threads_renew_and_stop():
    """With real threads: a lease of a second is renewed, and no more once it is closed."""
    objects = FakeStore()
    store = TaskStore(objects)
    task = Queue(store).submit("t", timeout_seconds=1)
    held = store.read(task.id)
    claimed = transitions.claim(
        held.record, store.clock.stamp(), lease_id=model.new_id(), worker_id="w", lease_seconds=1
    )
    scheduler, renewed = Scheduler("test"), threading.Event()
    lease = Lease(
        store, store.move(held, claimed), scheduler, lease_seconds=1, on_written=lambda written: renewed.set()
    )
    try:
        assert renewed.wait(60)
        lease.close()
        assert scheduler.finish(5), "nothing is left to call"
        writes = objects.requests["PUT"]
        assert not scheduler.finish(0) or objects.requests["PUT"] == writes
    finally:
        scheduler.stop()
