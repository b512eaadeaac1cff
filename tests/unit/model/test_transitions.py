"""The life of a task: each change from each state, what it sets, what it clears, and what it refuses."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from oq_nb import model
from oq_nb.errors import LeaseExpiredError, TransitionError
from oq_nb.model import Progress, RetryPolicy, TaskRecord, TaskStatus, Timestamp, transitions

NOW = Timestamp.of(datetime(2026, 1, 28, 12, 0, tzinfo=timezone.utc))
LATER = Timestamp.of(NOW + timedelta(seconds=10))
LEASE = model.new_id()
STATUSES = list(TaskStatus)


def task(status=TaskStatus.PENDING, **more) -> TaskRecord:
    task_id = model.new_id()
    fields = {
        "id": task_id,
        "shard": task_id[0],
        "task_type": "a",
        "input": {"n": 1},
        "status": status,
        "created_at": NOW,
        "available_at": NOW,
        "updated_at": NOW,
    }
    if status is TaskStatus.RUNNING:
        fields |= {
            "lease_id": LEASE,
            "worker_id": "w",
            "attempt": 1,
            "lease_expires_at": Timestamp.of(NOW + timedelta(seconds=300)),
            "progress": Progress(percent=40, updated_at=NOW),
        }
    return TaskRecord(**(fields | more))


CHANGES = {
    "claim": lambda r: transitions.claim(r, LATER, lease_id=model.new_id(), worker_id="w2", lease_seconds=60),
    "renew": lambda r: transitions.renew(r, LATER, lease_id=LEASE, lease_seconds=600),
    "report": lambda r: transitions.report(r, LATER, lease_id=LEASE, progress=Progress(percent=50, updated_at=LATER)),
    "complete": lambda r: transitions.complete(r, LATER, lease_id=LEASE, output=7),
    "fail": lambda r: transitions.fail(r, LATER, lease_id=LEASE, error="ValueError: no"),
    "retry": lambda r: transitions.retry(r, LATER, lease_id=LEASE, error="again", chance=0.5),
    "reschedule": lambda r: transitions.reschedule(r, LATER, lease_id=LEASE, delay_seconds=5),
    "release": lambda r: transitions.release(r, LATER, lease_id=LEASE),
    "finish_cancelled": lambda r: transitions.finish_cancelled(r, LATER, lease_id=LEASE, reason="stop"),
    "cancel": lambda r: transitions.cancel(r, LATER, reason="not needed", by="user:me"),
    "request_cancellation": lambda r: transitions.request_cancellation(r, LATER, by="user:me"),
    "expire": lambda r: transitions.expire(r.evolve(expires_at=NOW), LATER),
    "archive": lambda r: transitions.archive(r, LATER),
    "replay": lambda r: transitions.replay(r, LATER),
}

OUTCOMES = {
    ("pending", "claim"): "running",
    ("pending", "cancel"): "cancelled",
    ("pending", "expire"): "expired",
    ("running", "renew"): "running",
    ("running", "report"): "running",
    ("running", "complete"): "completed",
    ("running", "fail"): "failed",
    ("running", "retry"): "pending",
    ("running", "reschedule"): "pending",
    ("running", "release"): "pending",
    ("running", "finish_cancelled"): "cancelled",
    ("running", "request_cancellation"): "running",
    **{(ended, "archive"): "archived" for ended in ("completed", "failed", "cancelled", "expired")},
    **{(ended, "replay"): "pending" for ended in ("completed", "failed", "cancelled", "expired", "archived")},
}


@pytest.mark.parametrize("status", STATUSES, ids=str)
@pytest.mark.parametrize("name", CHANGES)
def test_which_change_is_allowed_from_which_state(status, name):
    before = task(status)
    wanted = OUTCOMES.get((str(status), name))
    if wanted is None:
        with pytest.raises((TransitionError, LeaseExpiredError)) as refused:
            CHANGES[name](before)
        assert before.id in str(refused.value)
        assert refused.value.task_id == before.id
        return
    after = CHANGES[name](before)
    assert after.status == wanted
    assert after.updated_at == LATER
    assert (after.id, after.input, after.created_at) == (before.id, before.input, before.created_at)
    if after.status is not TaskStatus.RUNNING:
        assert (after.lease_id, after.lease_expires_at, after.worker_id, after.progress) == (None, None, None, None)


@pytest.mark.parametrize("name", ["renew", "report", "complete", "fail", "retry", "reschedule", "release"])
def test_a_former_owner_is_told_to_stop(name):
    with pytest.raises(LeaseExpiredError, match="stop working on it"):
        CHANGES[name](task(TaskStatus.RUNNING, lease_id=model.new_id(), attempt=2))


def test_a_claim_counts_and_forgets_the_progress_of_before():
    made = CHANGES["claim"](task(attempt=2, progress=Progress(percent=10, updated_at=NOW)))
    assert (made.attempt, made.worker_id, made.progress) == (3, "w2", None)
    assert made.lease_expires_at == LATER + timedelta(seconds=60)


def test_a_task_is_not_claimed_before_its_time_nor_after_its_end():
    early = task(available_at=Timestamp.of(LATER + timedelta(seconds=1)))
    late = task(expires_at=LATER)
    for record, why in ((early, "not available before"), (late, "expired at")):
        assert not transitions.is_claimable(record, LATER)
        with pytest.raises(TransitionError, match=why):
            CHANGES["claim"](record)


def test_a_renewal_never_shortens_a_lease():
    record = task(TaskStatus.RUNNING)
    assert transitions.renew(record, LATER, lease_id=LEASE, lease_seconds=1).lease_expires_at == record.lease_expires_at
    assert transitions.renew(record, LATER, lease_id=LEASE, lease_seconds=900).lease_expires_at == LATER + timedelta(
        seconds=900
    )


def test_a_retry_waits_by_its_policy_and_ends_as_failed_when_none_is_left():
    policy = RetryPolicy(initial_interval_ms=1000, multiplier=3.0, max_interval_ms=5000, jitter_percent=0.0)
    record = task(TaskStatus.RUNNING, retry_policy=policy, max_retries=3)
    delays = []
    while record.status is TaskStatus.RUNNING:
        record = transitions.retry(record, LATER, lease_id=LEASE, error="again", chance=0.5)
        if record.status is TaskStatus.PENDING:
            delays.append((record.available_at - LATER).total_seconds())
            record = record.evolve(status=TaskStatus.RUNNING, lease_id=LEASE)
    assert delays == [1.0, 3.0, 5.0]
    assert (record.status, record.retry_count, record.last_error) == (TaskStatus.FAILED, 3, "again")
    assert record.completed_at == LATER


def test_an_expired_lease_counts_as_a_retry():
    record = task(TaskStatus.RUNNING, lease_expires_at=LATER, max_retries=1)
    with pytest.raises(TransitionError, match="its lease is not over"):
        transitions.recover(record, NOW, chance=0.5)
    made = transitions.recover(record, LATER, chance=0.5)
    assert (made.status, made.retry_count) == (TaskStatus.PENDING, 1)
    assert made.last_error == f"Timeout - lease of worker w expired at {LATER}"
    used_up = transitions.recover(record.evolve(retry_count=1), LATER, chance=0.5)
    assert used_up.status is TaskStatus.FAILED


def test_a_running_task_without_an_end_of_its_lease_can_be_recovered():
    assert transitions.is_lease_expired(task(TaskStatus.RUNNING, lease_expires_at=None), NOW)


def test_handing_back_and_putting_off_count_no_retry():
    record = task(TaskStatus.RUNNING, max_reschedules=1)
    assert CHANGES["release"](record).retry_count == 0
    once = CHANGES["reschedule"](record)
    assert (once.retry_count, once.reschedule_count) == (0, 1)
    assert once.available_at == LATER + timedelta(seconds=5)
    twice = CHANGES["reschedule"](once.evolve(status=TaskStatus.RUNNING, lease_id=LEASE))
    assert twice.status is TaskStatus.FAILED
    assert "rescheduled 1 times" in twice.last_error


def test_a_replay_begins_anew_and_keeps_the_count_of_attempts():
    ended = task(
        TaskStatus.FAILED,
        attempt=4,
        retry_count=3,
        last_error="no",
        completed_at=NOW,
        cancel_requested=True,
        expires_at=NOW,
    )
    made = CHANGES["replay"](ended)
    assert (made.retry_count, made.last_error, made.completed_at, made.cancel_requested) == (0, None, None, False)
    assert made.attempt == 4  # lease by lease, over the task's whole life
    assert transitions.is_claimable(made, LATER)


def test_a_record_that_was_read_is_never_changed():
    record = task(TaskStatus.RUNNING)
    before = record.to_bytes()
    CHANGES["complete"](record)
    assert record.to_bytes() == before


@pytest.mark.parametrize("change", ["complete", "fail", "retry", "reschedule", "release", "finish_cancelled"], ids=str)
def test_the_end_of_an_attempt_keeps_what_it_had_reported_and_who_ran_it(change):
    before = task(TaskStatus.RUNNING)
    after = CHANGES[change](before)
    assert after.progress is None
    assert (after.reached, after.last_worker_id) == (before.progress, "w")
    assert after.to_dict()["reached"] == before.progress.to_dict()
    again = TaskRecord.from_bytes(after.to_bytes())
    assert again.reached == before.progress


def test_a_lost_worker_leaves_what_it_had_written():
    before = task(TaskStatus.RUNNING)
    after = transitions.recover(before, Timestamp.of(NOW + timedelta(seconds=301)), chance=0.5)
    assert (after.reached, after.last_worker_id) == (before.progress, "w")


@pytest.mark.parametrize(("before", "change"), [("pending", "claim"), ("failed", "replay")])
def test_the_next_attempt_starts_without_what_the_last_one_had_reached(before, change):
    known = task(TaskStatus(before)).evolve(reached=Progress(percent=40, updated_at=NOW), last_worker_id="w")
    after = CHANGES[change](known)
    assert (after.reached, after.last_worker_id) == (None, None)
