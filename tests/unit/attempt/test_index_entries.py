"""The entries of an attempt where the store fails: a lease entry is written in the end, nothing is removed too much."""

from __future__ import annotations

import pytest

from oq_nb import model
from oq_nb.attempt.index_entries import AttemptIndexEntries
from oq_nb.errors import StorageConfigurationError, StorageDeniedError, StorageUnavailableError
from oq_nb.model import transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime


class FakeScheduler:
    def __init__(self, time):
        self.time, self.due = time, {}

    def call(self, periodic, at=None):
        self.due[periodic] = self.time.monotonic() if at is None else at

    def forget(self, periodic):
        self.due.pop(periodic, None)

    def run(self, seconds):
        """Let time pass, and call what is due."""
        self.time.advance(seconds)
        for periodic in [p for p, at in self.due.items() if at <= self.time.monotonic()]:
            del self.due[periodic]
            again = periodic.run_due()
            if again is not None:
                self.due[periodic] = again


class Place:
    def __init__(self, **options):
        self.time = FakeTime()
        self.objects = FakeStore(self.time, **options)
        self.store = TaskStore(self.objects)
        self.scheduler = FakeScheduler(self.time)
        self.task = Queue(self.store).submit("t", timeout_seconds=600)
        held = self.store.read(self.task.id)
        ready = self.store.index.scan(model.READY)
        self.record = transitions.claim(
            held.record, self.store.clock.stamp(), lease_id=model.new_id(), worker_id="w", lease_seconds=600
        )
        self.held = self.store.move(held, self.record)
        self.entries = AttemptIndexEntries(self.store.index, self.record, ready, self.scheduler)

    def keys(self, prefix):
        return [entry.key for entry in self.objects.entries(prefix)]


def refuse(error, times):
    left = [times]

    def fault(kind, key, when):
        if kind == "PUT" and key.startswith("leases/") and when == "before" and left[0]:
            left[0] -= 1
            raise error

    return fault


@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        StorageUnavailableError("no answer"),
        StorageConfigurationError("TLS"),
        StorageDeniedError("ExpiredToken", code="ExpiredToken"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("times", [1, 4])
def test_a_lease_entry_that_could_not_be_written_is_written_later(error, times, versioned):
    """Upstream's monitor finds the tasks of dead workers by these entries only."""
    place = Place(versioned=versioned)
    place.objects.fault = refuse(error, times)
    place.entries.begin()
    assert place.keys(model.LEASES) == []
    assert place.keys(model.READY) == [model.ready_key(place.record)], "the ready entry leads to the task meanwhile"
    for _ in range(6):
        place.scheduler.run(10)
    assert place.keys(model.LEASES) == [model.lease_key(place.record)]
    assert place.keys(model.READY) == ([] if versioned else [model.ready_key(place.record)])
    done = transitions.complete(place.record, place.store.clock.stamp(), lease_id=place.record.lease_id, output=1)
    place.store.move(place.held, done)
    place.entries.end(done)
    place.scheduler.run(1)
    assert place.keys("") == [place.record.key]
    assert list(place.scheduler.due) == []


def test_no_lease_entry_is_written_for_an_attempt_that_is_over():
    for how in ("end", "abandon"):
        place = Place()
        place.objects.fault = refuse(StorageUnavailableError("no answer"), 1)
        place.entries.begin()
        if how == "end":
            place.entries.end(place.record.evolve(status="completed"))
        else:
            place.entries.abandon()
        for _ in range(6):
            place.scheduler.run(10)
        assert place.keys(model.LEASES) == []


def test_an_entry_without_versions_is_not_removed_late():
    """By the time that its lease entry can be written the task may have been handed back, under the same key."""
    place = Place(versioned=False)
    place.objects.fault = refuse(StorageUnavailableError("no answer"), 1)
    place.entries.begin()
    lease_id = place.record.lease_id
    back = place.store.update(place.task.id, lambda record, now: transitions.release(record, now, lease_id=lease_id))
    assert model.ready_key(back.record) == model.ready_key(place.record), "in the same minute"
    place.scheduler.run(1)
    assert model.ready_key(back.record) in place.keys(model.READY)
