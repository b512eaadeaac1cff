"""The life of a task as pure functions: each takes a record and the time and returns the changed record.

A transition that the task's state does not allow raises `TransitionError`; a write by someone who no longer holds the
lease raises `LeaseExpiredError`. No I/O, no clock, no randomness here: callers hand in what is needed.

Invariant: a task that was asked to stop does not run again. What would make it pending makes it cancelled.

Source: ``protocol`` and ``wire format`` documents; field values as upstream writes them.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from oq_nb.errors import LeaseExpiredError, TransitionError
from oq_nb.model.records import MAX_SECONDS, Progress, TaskRecord, TaskStatus
from oq_nb.model.timestamps import Timestamp

__all__ = [
    "archive",
    "cancel",
    "claim",
    "complete",
    "expire",
    "extend",
    "fail",
    "finish_cancelled",
    "is_claimable",
    "is_lease_expired",
    "recover",
    "release",
    "renew",
    "replay",
    "report",
    "request_cancellation",
    "reschedule",
    "retry",
]

_NO_LEASE: dict[str, Any] = {"lease_expires_at": None, "lease_id": None, "worker_id": None, "progress": None}
_NO_ATTEMPT: dict[str, Any] = {"last_worker_id": None, "reached": None}


def _refuse(record: TaskRecord, wanted: str, reason: str) -> TransitionError:
    return TransitionError(
        f"task {record.id} cannot be {wanted}: {reason}", status=record.status.value, wanted=wanted, task_id=record.id
    )


def _need(record: TaskRecord, wanted: str, *allowed: TaskStatus) -> None:
    if record.status not in allowed:
        names = " or ".join(status.value for status in allowed)
        raise _refuse(record, wanted, f"it is {record.status.value}, not {names}")


def _owned(record: TaskRecord, lease_id: str) -> None:
    if record.status is not TaskStatus.RUNNING or record.lease_id != lease_id:
        raise LeaseExpiredError(
            f"task {record.id}: this attempt no longer owns it "
            f"(it is {record.status.value}, attempt {record.attempt}): "
            "stop working on it, its result would be thrown away",
            task_id=record.id,
        )


def _attempt_over(record: TaskRecord) -> dict[str, Any]:
    """Return the changes with which every attempt ends: its lease and its progress go, what is kept of it stays."""
    return {**_NO_LEASE, "last_worker_id": record.worker_id, "reached": record.progress}


def is_claimable(record: TaskRecord, now: datetime) -> bool:
    """Return whether the task may be claimed at ``now``."""
    return (
        record.status is TaskStatus.PENDING
        and record.available_at <= now
        and (record.expires_at is None or now < record.expires_at)
    )


def is_lease_expired(record: TaskRecord, now: datetime) -> bool:
    """Return whether the task is running under a lease that has ended (one without an end counts as ended)."""
    return record.status is TaskStatus.RUNNING and (record.lease_expires_at is None or record.lease_expires_at <= now)


def claim(record: TaskRecord, now: Timestamp, *, lease_id: str, worker_id: str, lease_seconds: float) -> TaskRecord:
    """pending → running under a fresh lease."""
    _need(record, "claimed", TaskStatus.PENDING)
    if record.expires_at is not None and record.expires_at <= now:
        raise _refuse(record, "claimed", f"it expired at {record.expires_at}")
    if record.available_at > now:
        raise _refuse(record, "claimed", f"it is not available before {record.available_at}")
    return record.evolve(
        **_NO_ATTEMPT,
        status=TaskStatus.RUNNING,
        lease_id=lease_id,
        worker_id=worker_id,
        lease_expires_at=Timestamp.of(now + timedelta(seconds=lease_seconds)),
        attempt=record.attempt + 1,
        progress=None,
        started_at=now,
        updated_at=now,
    )


def renew(record: TaskRecord, now: Timestamp, *, lease_id: str, lease_seconds: float) -> TaskRecord:
    """Move the end of the lease; it never moves back."""
    _owned(record, lease_id)
    ends = Timestamp.of(now + timedelta(seconds=lease_seconds))
    if record.lease_expires_at is not None and record.lease_expires_at > ends:
        ends = record.lease_expires_at
    return record.evolve(lease_expires_at=ends, updated_at=now)


def extend(record: TaskRecord, now: Timestamp, *, lease_id: str, seconds: float) -> TaskRecord:
    """Add to the end of the lease, or to the present time where that is later; up to ten years from now."""
    _owned(record, lease_id)
    ends = max(now, record.lease_expires_at or now) + timedelta(seconds=seconds)
    ends = min(ends, now + timedelta(seconds=MAX_SECONDS))
    return record.evolve(lease_expires_at=Timestamp.of(ends), updated_at=now)


def report(record: TaskRecord, now: Timestamp, *, lease_id: str, progress: Progress) -> TaskRecord:
    """Replace the progress, and note the longest pause between two reports; the lease stays as it is."""
    _owned(record, lease_id)
    before = record.progress
    if before is not None:
        pause = round((progress.updated_at - before.updated_at).total_seconds(), 3)
        progress = progress.evolve(longest_pause=max(pause, before.longest_pause or 0.0))
    return record.evolve(progress=progress, updated_at=now)


def complete(
    record: TaskRecord, now: Timestamp, *, lease_id: str, output: Any, output_ref: str | None = None
) -> TaskRecord:
    """running → completed with its output."""
    _owned(record, lease_id)
    return record.evolve(
        **_attempt_over(record),
        status=TaskStatus.COMPLETED,
        output=output,
        output_ref=output_ref,
        completed_at=now,
        updated_at=now,
        last_error=None,
    )


def fail(record: TaskRecord, now: Timestamp, *, lease_id: str, error: str) -> TaskRecord:
    """running → failed for good."""
    _owned(record, lease_id)
    return record.evolve(
        **_attempt_over(record), status=TaskStatus.FAILED, last_error=error, completed_at=now, updated_at=now
    )


def retry(record: TaskRecord, now: Timestamp, *, lease_id: str, error: str, chance: float) -> TaskRecord:
    """running → pending after the retry delay, → failed when no retry is left, → cancelled when that was asked for.

    Args:
        record: the task.
        now: store time.
        lease_id: the caller's lease.
        error: kept as ``last_error``.
        chance: a random number from 0 to 1, for the delay's jitter.
    """
    _owned(record, lease_id)
    return _again_or_failed(record, now, error, record.retry_policy.delay_seconds(record.retry_count, chance))


def recover(record: TaskRecord, now: Timestamp, *, chance: float) -> TaskRecord:
    """An expired lease: as `retry`, by anyone."""
    if not is_lease_expired(record, now):
        raise _refuse(record, "recovered", f"it is {record.status.value} and its lease is not over")
    error = f"Timeout - lease of worker {record.worker_id} expired at {record.lease_expires_at}"
    return _again_or_failed(record, now, error, record.retry_policy.delay_seconds(record.retry_count, chance))


def _again_or_failed(record: TaskRecord, now: Timestamp, error: str, delay: float) -> TaskRecord:
    if record.retry_count >= record.max_retries:
        return record.evolve(
            **_attempt_over(record), status=TaskStatus.FAILED, last_error=error, completed_at=now, updated_at=now
        )
    if record.cancel_requested:
        return _cancelled(record, now, error)
    return record.evolve(
        **_attempt_over(record),
        status=TaskStatus.PENDING,
        started_at=None,
        retry_count=record.retry_count + 1,
        available_at=Timestamp.of(now + timedelta(seconds=delay)),
        last_error=error,
        updated_at=now,
    )


def reschedule(record: TaskRecord, now: Timestamp, *, lease_id: str, delay_seconds: float) -> TaskRecord:
    """running → pending after a delay that the handler asked for.

    → cancelled when that was asked for, → failed when its reschedules are used up.
    """
    _owned(record, lease_id)
    if record.cancel_requested:
        return _cancelled(record, now, None)
    if record.max_reschedules is not None and record.reschedule_count >= record.max_reschedules:
        return fail(
            record,
            now,
            lease_id=lease_id,
            error=f"RescheduleError: rescheduled {record.reschedule_count} times, no more are allowed",
        )
    return record.evolve(
        **_attempt_over(record),
        status=TaskStatus.PENDING,
        started_at=None,
        reschedule_count=record.reschedule_count + 1,
        available_at=Timestamp.of(now + timedelta(seconds=delay_seconds)),
        updated_at=now,
    )


def release(record: TaskRecord, now: Timestamp, *, lease_id: str) -> TaskRecord:
    """running → pending at once, or → cancelled when that was asked for: the worker stops. No retry is counted."""
    _owned(record, lease_id)
    if record.cancel_requested:
        return _cancelled(record, now, None)
    return record.evolve(
        **_attempt_over(record), status=TaskStatus.PENDING, started_at=None, available_at=now, updated_at=now
    )


def finish_cancelled(record: TaskRecord, now: Timestamp, *, lease_id: str, reason: str | None) -> TaskRecord:
    """running → cancelled, by its owner, after the handler stopped because it was asked to."""
    _owned(record, lease_id)
    return _cancelled(record, now, reason)


def _cancelled(record: TaskRecord, now: Timestamp, reason: str | None) -> TaskRecord:
    return record.evolve(
        **_attempt_over(record),
        status=TaskStatus.CANCELLED,
        cancelled_at=now,
        last_error=reason if reason is not None else record.last_error,
        updated_at=now,
    )


def cancel(record: TaskRecord, now: Timestamp, *, reason: str | None, by: str | None) -> TaskRecord:
    """pending → cancelled."""
    _need(record, "cancelled", TaskStatus.PENDING)
    return record.evolve(
        status=TaskStatus.CANCELLED,
        cancelled_at=now,
        cancelled_by=by or record.cancelled_by,
        last_error=reason if reason is not None else record.last_error,
        updated_at=now,
    )


def request_cancellation(record: TaskRecord, now: Timestamp, *, by: str | None = None) -> TaskRecord:
    """Ask a running task to stop; asking again changes nothing but the time."""
    _need(record, "asked to stop", TaskStatus.RUNNING)
    return record.evolve(cancel_requested=True, cancelled_by=by or record.cancelled_by, updated_at=now)


def expire(record: TaskRecord, now: Timestamp) -> TaskRecord:
    """pending → expired, at or after ``expires_at``."""
    _need(record, "expired", TaskStatus.PENDING)
    if record.expires_at is None or record.expires_at > now:
        raise _refuse(record, "expired", "its time is not over")
    return record.evolve(status=TaskStatus.EXPIRED, expired_at=now, updated_at=now)


def archive(record: TaskRecord, now: Timestamp) -> TaskRecord:
    """A finished task → archived; its output and error stay readable."""
    _need(
        record,
        "archived",
        TaskStatus.COMPLETED,
        TaskStatus.FAILED,
        TaskStatus.CANCELLED,
        TaskStatus.EXPIRED,
    )
    return record.evolve(status=TaskStatus.ARCHIVED, updated_at=now)


def replay(record: TaskRecord, now: Timestamp, *, attempt: int | None = None) -> TaskRecord:
    """A finished task → pending at once, with its counts of retries and reschedules at zero.

    With ``attempt`` only if that is still its last one: else somebody has run it again since it was looked at.

    The task of a loop that ran under `track` is refused: no worker has its code, it would stay pending for ever.
    """
    if record.is_loop:
        raise _refuse(
            record, "replayed", "it is a loop that ran under track(): no worker can run it, run its program again"
        )
    if not record.status.is_terminal:
        raise _refuse(record, "replayed", f"it is {record.status.value}, not finished")
    if attempt not in (None, record.attempt):
        raise _refuse(record, "replayed", "it has run again since it was looked at")
    return record.evolve(
        **_NO_LEASE,
        **_NO_ATTEMPT,
        status=TaskStatus.PENDING,
        started_at=None,
        output=None,
        output_ref=None,
        retry_count=0,
        reschedule_count=0,
        available_at=now,
        completed_at=None,
        last_error=None,
        cancel_requested=False,
        cancelled_at=None,
        cancelled_by=None,
        expires_at=None,
        expired_at=None,
        updated_at=now,
    )
