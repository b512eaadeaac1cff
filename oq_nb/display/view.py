"""What a task looks like in words: pure functions from records to text. No I/O, no clock, no widgets; HTML: `markup`.

Text that came from a bucket is untrusted: everything here returns it through `text.printable`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from oq_nb.model import Progress, TaskRecord, TaskStatus
from oq_nb.text import duration, printable, progress_numbers, shorten

__all__ = [
    "StatusView",
    "ago",
    "first_line",
    "group_line",
    "has_run_out",
    "last_line",
    "progress_line",
    "progress_parts",
    "stalled_seconds",
    "status_lines",
    "status_view",
    "task_line",
    "version_line",
]

_STALLED_SECONDS = 30.0  # without an update, at the least
_STALLED_ITEMS = 5.0  # or so many times as long as an item takes
_ENDS_TO_NAME = ("failed", "expired", "cancelled", "deleted")  # of a group: the others are good, or to come


def ago(then: datetime, now: datetime) -> str:
    """Return how long ago an instant was, such as ``30 seconds ago``; ``in 5 minutes`` when it is ahead."""
    seconds = (now - then).total_seconds()
    if seconds <= -1:
        return f"in {duration(-seconds)}"
    return f"{duration(seconds)} ago"


def progress_line(progress: Progress) -> str:
    """Return percent, counts, rate and time left, such as ``45% (450/1000), 12.5 it/s, 44 seconds left``."""
    return _numbers(progress) or "reported"


def _numbers(progress: Progress) -> str:
    return progress_numbers(
        progress.percent,
        progress.current,
        progress.total,
        rate=progress.rate,
        unit=progress.unit,
        seconds_left=progress.seconds_left,
    )


def progress_parts(progress: Progress, *, message_limit: int = 60) -> list[str]:
    """Return what a report says: its numbers as `progress_line` has them, its message, or both."""
    numbers, message = _numbers(progress), printable(shorten(progress.message or "", message_limit))
    return [part for part in (numbers, message) if part] or ["reported"]


@dataclass(frozen=True)
class StatusView:
    """Where a task stands, in words. Its text is printable, but not escaped for HTML."""

    #: One word or two: ``running``, ``retrying``, ``lease ran out``.
    word: str
    #: How good that is: ``waiting``, ``running``, ``good``, ``bad``, ``warning`` or ``off``.
    tone: str
    #: What there is to say about it, a sentence each.
    notes: tuple[str, ...] = ()


def stalled_seconds(record: TaskRecord, now: datetime) -> float | None:
    """Return for how long a running task has been silent when that is longer than its reports let one expect."""
    progress = record.progress
    if record.status is not TaskStatus.RUNNING or progress is None:
        return None
    per_item = 1 / progress.rate if progress.rate and progress.rate > 0 else 0.0
    silent = (now - progress.updated_at).total_seconds()
    return silent if silent > max(_STALLED_SECONDS, _STALLED_ITEMS * per_item) else None


def has_run_out(record: TaskRecord, now: datetime) -> bool:
    """Return whether a task counts as running, and its lease has run out: its worker has died, or cannot be reached."""
    ends_at = record.lease_expires_at
    return record.status is TaskStatus.RUNNING and ends_at is not None and ends_at <= now


def status_view(
    record: TaskRecord | None,
    now: datetime,
    *,
    has_worker: bool | None = None,
    is_gone: bool = False,
    trouble: str | None = None,
    is_lasting: bool = False,
    seen_at: datetime | None = None,
) -> StatusView:
    """Return where a task stands.

    Args:
        record: the task as last seen; None when it was not seen yet.
        now: the store's time.
        has_worker: whether a live worker has a handler for it; None when that is not known.
        is_gone: it is no longer in the bucket.
        trouble: why it cannot be looked at.
        is_lasting: it is not the store that is away: access is denied, or the object is not a task.
        seen_at: when it was last looked at.
    """
    if is_gone:
        return StatusView("deleted", "off", ("It is no longer in the bucket.",))
    made = StatusView("not seen yet", "waiting") if record is None else _status_view(record, now, has_worker)
    if trouble is None:
        return made
    since = f" This is its last known state, from {ago(seen_at, now)}." if seen_at is not None else ""
    what = "It cannot be read." if is_lasting else "The store cannot be reached and is tried again."
    note = f"{what}{since} ({printable(shorten(trouble, 300))})"
    return StatusView(made.word, "warning" if record is None else made.tone, (note, *made.notes))


def _status_view(record: TaskRecord, now: datetime, has_worker: bool | None) -> StatusView:
    if record.status is TaskStatus.PENDING:
        return _pending(record, now, has_worker)
    if record.status is TaskStatus.RUNNING:
        return _running(record, now)
    tone = {TaskStatus.COMPLETED: "good", TaskStatus.FAILED: "bad", TaskStatus.EXPIRED: "bad"}.get(record.status, "off")
    notes: list[str] = []
    if record.status is TaskStatus.CANCELLED:
        if record.cancelled_by:
            notes.append(f"Cancelled by {printable(shorten(record.cancelled_by, 100))}.")
        if record.last_error:
            notes.append(f"Reason: {first_line(record.last_error)}")
    elif record.status is TaskStatus.EXPIRED:
        notes.append("No worker took it before it expired.")
    elif record.status is TaskStatus.FAILED and record.retry_count:
        notes.append(f"{record.retry_count} of {record.max_retries} retries were made.")
    return StatusView(record.status.value, tone, tuple(notes))


def _pending(record: TaskRecord, now: datetime, has_worker: bool | None) -> StatusView:
    worker: tuple[str, ...] = ()
    if has_worker is False:
        worker = (f"No worker has this type: start one that has a handler for {printable(_type(record))}.",)
    if record.available_at > now:
        when = f"{ago(record.available_at, now)} (at {record.available_at:%H:%M:%S} UTC)"
        if record.retry_count:
            note = f"It is tried again {when}: retry {record.retry_count} of {record.max_retries}."
            return StatusView("retrying", "warning", (note, *worker))
        word = "rescheduled" if record.reschedule_count else "scheduled"
        return StatusView(word, "waiting", (f"It can start {when}.", *worker))
    if record.expires_at is not None and record.expires_at <= now:
        return StatusView("expired", "bad", ("It was not started in time.",))
    note = f"It has been waiting for a worker for {duration((now - record.available_at).total_seconds())}."
    if record.retry_count:
        return StatusView(
            "retrying", "warning", (f"{note} Retry {record.retry_count} of {record.max_retries}.", *worker)
        )
    return StatusView("pending", "waiting", (note, *worker))


def _running(record: TaskRecord, now: datetime) -> StatusView:
    word, tone, notes = "running", "running", []
    silent = stalled_seconds(record, now)
    if record.lease_expires_at is not None and record.lease_expires_at <= now:
        word, tone = "lease ran out", "warning"
        notes.append(
            f"Its lease ran out {ago(record.lease_expires_at, now)}: its worker has died or cannot reach the store. "
            + (
                "The next worker that looks tries it again."
                if record.retry_count < record.max_retries
                else "It has no retry left: the next worker that looks marks it as failed."
            )
        )
    elif silent is not None:
        word, tone = "stalled", "warning"
        notes.append(f"It has not reported for {duration(silent)}; its worker still holds the lease.")
    if record.cancel_requested:
        notes.append("It has been asked to stop, which its handler sees with its next report.")
    return StatusView(word, tone, tuple(notes))


def _type(record: TaskRecord) -> str:
    return shorten(record.task_type, 100)


def first_line(text: str, limit: int = 200) -> str:
    """Return the first line of a text that has something in it, printable and not too long."""
    lines = text.strip().splitlines()
    return printable(shorten(lines[0], limit)) if lines else ""


def last_line(error: str) -> str:
    """Return the line of a traceback that says what it was; as it is, not made printable."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith((" ", "\t"))), lines[0] if lines else "")


def status_lines(record: TaskRecord, now: datetime, *, has_worker: bool | None = None) -> list[str]:
    """Return the lines of ``oq status``: the task, its state, its progress.

    Args:
        record: the task.
        now: the store's time.
        has_worker: whether a live worker has a handler for it; None when that is not known.
    """
    lines = [f"Task: {record.id}", f"Type: {printable(record.task_type)}", f"Status: {record.status}"]
    progress = record.progress
    if progress is not None:
        numbers = _numbers(progress)
        if numbers or not progress.message:
            lines.append(f"Progress: {numbers or 'reported'}")
        if progress.message:
            lines.append(f"Message: {printable(progress.message)}")
        lines.append(f"Updated: {ago(progress.updated_at, now)}")
    if record.status is TaskStatus.PENDING and record.available_at > now:
        lines.append(f"Available: {ago(record.available_at, now)}")
    if record.status is TaskStatus.PENDING and has_worker is False:
        lines.append("Worker: none has a handler for this type")
    if record.status is TaskStatus.RUNNING and record.lease_expires_at is not None:
        if record.lease_expires_at <= now:
            lines.append(
                f"Lease: ran out {ago(record.lease_expires_at, now)}: its worker has died or cannot be reached"
            )
        if record.cancel_requested:
            lines.append("Cancellation: requested")
    if record.attempt > 1:
        lines.append(f"Attempt: {record.attempt}")
    if record.last_error:
        first, *rest = printable(record.last_error, keep_newlines=True).strip().splitlines() or [""]
        lines += [f"Error: {first}", *(f"  {line}" for line in rest)]
    return lines


def group_line(counts: Mapping[str, int], total: int, seconds: float) -> tuple[int, str]:
    """Return how many of a group have ended, and the group in a line.

    Args:
        counts: tasks by status; ``deleted`` for those that are gone.
        total: tasks of the group.
        seconds: since it has been waited for.
    """
    done = sum(count for name, count in counts.items() if name not in ("pending", "running"))
    named = [f"{counts[name]:,} {name}" for name in ("running", *_ENDS_TO_NAME) if counts.get(name)]
    noun = "task" if total == 1 else "tasks"
    return done, ", ".join([f"{done:,} of {total:,} {noun}", *named, duration(seconds)])


def version_line(number: int, record: TaskRecord, before: TaskRecord | None) -> str:
    """Return a line of ``oq history``: what this version of the task changed.

    Args:
        number: counted from 1.
        record: this version.
        before: the version before it, None for the first one.
    """
    return f"Version {number}: {record.status} ({_change(record, before)})".replace(" ()", "")


def _change(record: TaskRecord, before: TaskRecord | None) -> str:
    progress = record.progress
    if before is None:
        return "created" if record.attempt == 0 else "created running"
    if record.status is TaskStatus.RUNNING:
        if before.status is not TaskStatus.RUNNING or before.lease_id != record.lease_id:
            return "claimed" if record.attempt <= 1 else f"claimed, attempt {record.attempt}"
        if record.cancel_requested and not before.cancel_requested:
            return "cancellation requested"
        if progress is not None and progress != before.progress:
            said = [f"{progress.percent}%" if progress.percent is not None else _numbers(progress)]
            if progress.message:
                said.append(f'"{printable(shorten(progress.message, 80))}"')
            return f"progress: {', '.join(part for part in said if part) or 'reported'}"
        return "lease renewed"
    if record.status is TaskStatus.PENDING and before.status is TaskStatus.RUNNING:
        if record.retry_count > before.retry_count:
            return f"retry {record.retry_count} of {record.max_retries}"
        return "rescheduled" if record.reschedule_count > before.reschedule_count else "released"
    if record.status is TaskStatus.PENDING and before.status.is_terminal:
        return "replayed"
    return ""


def task_line(record: TaskRecord, now: datetime) -> str:
    """Return a task in one line: type, short id, status, progress."""
    parts = [f"{printable(shorten(record.task_type, 40))} {record.id[:8]} {record.status}"]
    if has_run_out(record, now):
        parts.append("lease ran out")
    if record.progress is not None:
        parts += progress_parts(record.progress)
    elif record.status is TaskStatus.PENDING and record.available_at > now:
        parts.append(f"available {ago(record.available_at, now)}")
    if record.status in (TaskStatus.FAILED, TaskStatus.CANCELLED) and record.last_error:
        parts.append(printable(shorten(record.last_error.strip().splitlines()[0], 80)))
    return ", ".join(parts)
