"""Which of two states of a task is the later one, when the clocks of their writers do not agree."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oq_nb import model
from oq_nb.model import TaskRecord, TaskStatus, Timestamp, transitions

NOW = Timestamp.parse("2026-01-01T00:00:00Z")


def at(seconds: float) -> Timestamp:
    return Timestamp.of(NOW + timedelta(seconds=seconds))


@pytest.fixture
def pending() -> TaskRecord:
    task_id = model.new_id()
    return TaskRecord(
        id=task_id,
        shard=task_id[0],
        task_type="t",
        status=TaskStatus.PENDING,
        created_at=NOW,
        available_at=NOW,
        updated_at=NOW,
    )


def claim(record, seconds):
    return transitions.claim(record, at(seconds), lease_id=model.new_id(), worker_id="w", lease_seconds=9)


def test_an_end_written_by_a_slower_clock_is_later(pending):
    """A client asks a task to stop, by a clock that is nearly a second ahead of the worker's."""
    running = claim(pending, 1)
    asked = transitions.request_cancellation(running, at(2.0))
    ended = transitions.complete(asked, at(1.2), lease_id=asked.lease_id, output=None)
    assert ended.supersedes(asked)
    assert not asked.supersedes(ended)


def test_a_later_attempt_is_later_whatever_the_clocks_say(pending):
    first = claim(pending, 5)
    lost = transitions.retry(first, at(6), lease_id=first.lease_id, error="x", chance=0.5)
    second = claim(lost.evolve(available_at=NOW), 4)
    assert lost.supersedes(first)
    assert not first.supersedes(lost)
    assert second.supersedes(lost)
    assert not lost.supersedes(second)


def test_an_old_answer_is_not_later(pending):
    running = claim(pending, 1)
    newer = transitions.renew(running, at(2), lease_id=running.lease_id, lease_seconds=9)
    assert newer.supersedes(running)
    assert not running.supersedes(newer)
    assert running.supersedes(running)


def test_a_replayed_task_is_later_than_its_end(pending):
    running = claim(pending, 1)
    ended = transitions.complete(running, at(2), lease_id=running.lease_id, output=1)
    replayed = transitions.replay(ended, at(60))
    assert replayed.supersedes(ended)
    assert not ended.supersedes(replayed)


@pytest.mark.parametrize("seconds", [0.001, 1.5, 60])
def test_what_is_replayed_at_once_is_later_than_each_of_its_ends(pending, seconds):
    """The button beside an end that was just shown: a state that was read before must not win against the replay."""
    running = claim(pending, 1)
    expiring = pending.evolve(expires_at=at(2))
    ends = [
        transitions.complete(running, at(2), lease_id=running.lease_id, output=1),
        transitions.fail(running, at(2), lease_id=running.lease_id, error="x"),
        transitions.finish_cancelled(running, at(2), lease_id=running.lease_id, reason="stop"),
        transitions.cancel(pending, at(2), reason="not needed", by="me"),
        transitions.expire(expiring, at(2)),
    ]
    for ended in ends:
        replayed = transitions.replay(ended, at(2 + seconds))
        assert replayed.supersedes(ended), ended.status
        assert not ended.supersedes(replayed), ended.status


def test_the_end_of_a_waiting_task_by_a_slower_clock_is_later(pending):
    """What was submitted or tried again by a clock that is ahead, and cancelled by one that is behind."""
    running = claim(pending, 1)
    waiting = transitions.retry(running, at(3), lease_id=running.lease_id, error="x", chance=0.5)
    for before, time in ((pending, -1), (waiting, 2)):
        cancelled = transitions.cancel(before, at(time), reason=None, by=None)
        assert cancelled.supersedes(before)
        assert not before.supersedes(cancelled)
