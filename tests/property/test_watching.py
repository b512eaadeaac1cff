"""What is shown of a task never goes backward, in whichever order its versions are read."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from oq_nb import model
from oq_nb.model import Progress, RetryPolicy, TaskRecord, TaskStatus, Timestamp, transitions
from oq_nb.queue.watcher import Watcher
from oq_nb.store import TaskStore, VersionedTask
from oq_nb.testing import FakeStore, FakeTime

AT_ONCE = RetryPolicy(initial_interval_ms=0, jitter_percent=0.0)


def random_history(chosen: random.Random) -> list[TaskRecord]:
    """Return a history as the library writes it, up to an end, perhaps with a replay."""
    start = Timestamp.parse("2026-01-01T00:00:00Z")
    passed = 0.0

    def now(early: float = 0.0) -> Timestamp:
        nonlocal passed
        passed += chosen.choice([0.001, 0.5, 3.0])
        return Timestamp.of(start + timedelta(seconds=passed - early))

    task_id = model.new_id()
    record = TaskRecord(
        id=task_id, shard=task_id[0], task_type="t", timeout_seconds=60, max_retries=9, retry_policy=AT_ONCE,
        status=TaskStatus.PENDING, created_at=start, available_at=start, updated_at=start,
    )  # fmt: skip
    versions = [record]
    while not record.status.is_terminal or (len(versions) < 12 and chosen.random() < 0.3):
        at, lease = now(), str(record.lease_id)
        if record.status.is_terminal:
            record = transitions.replay(record, now())
        elif record.status is TaskStatus.PENDING:
            at = max(at, record.available_at)
            record = transitions.claim(record, at, lease_id=model.new_id(), worker_id="w", lease_seconds=60)
        else:
            what = chosen.random()
            if what < 0.4:
                record = transitions.report(record, at, lease_id=lease, progress=Progress(percent=1, updated_at=at))
            elif what < 0.5:
                record = transitions.release(record, at, lease_id=lease)
            elif what < 0.7:
                record = transitions.retry(record, at, lease_id=lease, error="no", chance=0.5)
            else:  # by a worker whose clock is behind that of whoever wrote before
                record = transitions.complete(record, now(chosen.choice([0.0, 1.0])), lease_id=lease, output=1)
        versions.append(record)
    return versions


def goes_backward(seed: int) -> str | None:
    """Hand versions to a watch, old ones again now and then; return what it showed that is older than before."""
    chosen = random.Random(seed)
    versions = random_history(chosen)
    store = TaskStore(FakeStore(FakeTime()))
    held = [VersionedTask(record, f'"{number}"') for number, record in enumerate(versions)]
    watcher = Watcher(store)
    watch = watcher.watch(held[0], interval=1000.0)
    shown = 0
    try:
        for newest in range(len(held)):
            for one in (held[newest], *chosen.choices(held[: newest + 1], k=3)):
                watcher.ingest(one)
                index = next(n for n, h in enumerate(held) if h is watch.state.held)
                if index < shown:
                    return f"seed {seed}: version {index} is shown after version {shown} of {len(held)}"
                shown = index
        return (
            None if shown == len(held) - 1 else f"seed {seed}: version {shown} is shown, not the last, {len(held) - 1}"
        )
    finally:
        watch.close()


@pytest.fixture
def without_reading(monkeypatch):
    """No thread reads: the test alone decides what is seen in which order."""
    monkeypatch.setattr(Watcher, "ring", lambda self: None)


def test_what_is_shown_never_goes_backward(without_reading, cases):
    assert [found for seed in range(400) if (found := goes_backward(seed))] == []
    cases("random orders in which versions are read", {"histories": 400})


@pytest.mark.parametrize(
    ("name", "supersedes"),
    [
        ("a watcher that goes backwards", lambda self, known: True),
        ("a watcher that shows nothing new", lambda self, known: False),
        ("a watcher that judges by times only", lambda self, known: self.updated_at >= known.updated_at),
        ("a watcher that judges by attempts only", lambda self, known: self.attempt >= known.attempt),
    ],
)
def test_a_broken_watcher_is_caught(name, supersedes, without_reading, monkeypatch, cases):
    monkeypatch.setattr(TaskRecord, "supersedes", supersedes)
    assert any(goes_backward(seed) for seed in range(400)), name
    cases("broken variants, all caught", {name: 1})
