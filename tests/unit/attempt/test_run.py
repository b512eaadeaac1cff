"""A run from its input to its end, with a store that fails: what is written, and that the lease is closed."""

from __future__ import annotations

import pytest

from oq_nb import model
from oq_nb.attempt import lease as lease_module
from oq_nb.attempt import run as run_module
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import handler_of
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.run import run_attempt
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.backoff import Backoff
from oq_nb.errors import (
    RescheduleError,
    RetryableError,
    StorageConfigurationError,
    StorageDeniedError,
    StorageUnavailableError,
)
from oq_nb.model import TaskStatus, transitions

BIG = "x" * 70_000
TROUBLES = [
    StorageConfigurationError("no trusted connection"),
    StorageDeniedError("ExpiredToken", code="ExpiredToken"),
    StorageUnavailableError("no answer"),
]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(lease_module, "_RETRIES", Backoff(0.001, 0.001))
    monkeypatch.setattr(run_module, "_STORE_RETRIES", Backoff(0.001, 0.001))


class Run:
    """A claimed task and what runs it."""

    def __init__(self, queue, task_input=None, **options):
        self.queue, self.store, self.objects = queue, queue.store, queue.store.objects
        self.task = queue.submit("t", task_input, timeout_seconds=300, **options)
        self.scheduler = Scheduler("test")

    def __call__(self, function, **options):
        held = self.store.read(self.task.id)
        now = self.store.clock.stamp()
        claimed = transitions.claim(held.record, now, lease_id=model.new_id(), worker_id="w", lease_seconds=300)
        self.lease = Lease(self.store, self.store.move(held, claimed), self.scheduler, lease_seconds=300)
        return run_attempt(self.store, self.lease, handler_of("t", function), TaskContext(self.lease), **options)

    @property
    def record(self):
        return self.store.read(self.task.id).record


@pytest.fixture
def run(fake_queue):
    made = []

    def begin(*arguments, **options):
        made.append(Run(fake_queue, *arguments, **options))
        return made[-1]

    yield begin
    for one in made:
        one.scheduler.stop()


def fails(error, kind, prefix, times=1):
    left = [times]

    def fault(kind_, key, when):
        if left[0] and kind_ == kind and key.startswith(prefix) and when == "before":
            left[0] -= 1
            raise error

    return fault


@pytest.mark.parametrize("error", TROUBLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("kind", "prefix"), [("GET", "payloads/"), ("PUT", "payloads/"), ("PUT", "tasks/")])
def test_no_passing_error_ends_a_run(run, error, kind, prefix):
    one = run(BIG)

    def handler(task_input):
        one.objects.fault = fails(error, kind, prefix)
        return task_input

    if kind == "GET":
        one.objects.fault = fails(error, kind, prefix, times=2)
        one(lambda task_input: task_input)
    else:
        one(handler)
    one.objects.fault = None
    assert one.record.status is TaskStatus.COMPLETED
    assert one.store.payloads.load(one.record, "output") == BIG
    assert one.record.attempt == 1


def test_whatever_ends_a_run_closes_its_lease(run):
    one = run()
    one.objects.fault = None

    def handler(task_input):
        one.objects.fault = fails(TROUBLES[0], "PUT", "tasks/", times=99)

    with pytest.raises(StorageConfigurationError):
        one(handler, gives_up=lambda: True)
    assert one.lease.is_lost
    assert one.scheduler.finish(0), "no renewal is planned"

    one.objects.fault = None
    other = run()

    def run_elsewhere(task_input):
        raise AssertionError("a bug in an executor")

    with pytest.raises(AssertionError):
        other(lambda task_input: None, run=run_elsewhere)
    assert other.lease.is_lost
    assert other.scheduler.finish(0)


def damaged(objects, key, times, make):
    """Have so many reads of an object bring what ``make`` makes of it."""
    get, left = objects.get, [times]

    def get_damaged(asked, **options):
        found = get(asked, **options)
        if asked == key and left[0]:
            left[0] -= 1
            return make(found)
        return found

    objects.get = get_damaged
    return left


HALF = pytest.param(lambda found: type(found)(found.body[:100], found.etag, found.version_id), id="damaged")
LATE = pytest.param(lambda found: None, id="404")


@pytest.mark.parametrize("make", [HALF, LATE])
def test_an_input_that_cannot_be_read_once_is_read_again(run, make):
    one = run(BIG)
    left = damaged(one.objects, one.task.record.input_ref, 1, make)
    assert one(lambda task_input: len(task_input)) == (70_000, None)
    assert left == [0]


@pytest.mark.parametrize("make", [HALF, LATE])
def test_an_input_that_cannot_be_read_is_a_failure_that_is_tried_again(run, make):
    one = run(BIG, max_retries=1)
    damaged(one.objects, one.task.record.input_ref, 3, make)
    one(lambda task_input: len(task_input))
    assert (one.record.status, one.record.retry_count) == (TaskStatus.PENDING, 1)
    assert "RecordError" in one.record.last_error
    left = damaged(one.objects, one.task.record.input_ref, 99, make)
    one.store.update(one.task.id, lambda record, now: record.evolve(available_at=now, updated_at=now))
    one(lambda task_input: len(task_input))
    assert (one.record.status, one.record.retry_count) == (TaskStatus.FAILED, 1)
    assert left[0] > 0, "it is not read for ever"


# --- a request to cancel


def raise_it(error):
    raise error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RetryableError("once more"), TaskStatus.CANCELLED),
        (RescheduleError(10), TaskStatus.CANCELLED),
        (ValueError("no"), TaskStatus.FAILED),
        (None, TaskStatus.COMPLETED),
    ],
    ids=["retry", "reschedule", "failure", "completion"],
)
def test_a_task_that_was_asked_to_stop_does_not_run_again(run, error, status):
    """An attempt that had come to its end all the same ends as it did."""
    one = run()

    def handler(task_input):
        one.queue.cancel(one.task.id, by="me")
        if error is not None:
            raise error

    one(handler)
    record = one.record
    assert record.status is status
    assert record.lease_id is record.worker_id is record.lease_expires_at is None
    ready = [entry for entry in one.store.index.scan("ready/") if entry.key != model.ready_key(one.task.record)]
    assert ready == [], "the entry of the state that was not written is removed"
    if status is TaskStatus.CANCELLED:
        assert record.cancelled_by == "me" and record.cancelled_at is not None
        assert (record.retry_count, record.reschedule_count) == (0, 0)
