"""What a task looks like: pure functions from records to text and to escaped HTML. No I/O, no clock, no widgets.

Text that came from a bucket is untrusted: it goes through `text.printable`, and through `html.escape` for HTML.
"""

from __future__ import annotations

from datetime import datetime

from oq_nb.model import Progress, TaskRecord, TaskStatus
from oq_nb.text import printable, shorten

__all__ = ["ago", "duration", "progress_line", "status_lines", "task_line", "version_line"]


def duration(seconds: float) -> str:
    """Return a length of time in words, such as ``3 minutes``."""
    seconds = max(0, int(seconds))
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size or (seconds >= size and name != "minute"):
            count = seconds // size
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def ago(then: datetime, now: datetime) -> str:
    """Return how long ago an instant was, such as ``30 seconds ago``; ``in 5 minutes`` when it is ahead."""
    seconds = (now - then).total_seconds()
    if seconds <= -1:
        return f"in {duration(-seconds)}"
    return f"{duration(seconds)} ago"


def progress_line(progress: Progress) -> str:
    """Return percent, counts, rate and time left, such as ``45% (450/1000), 12.5 it/s, 44 seconds left``."""
    parts: list[str] = []
    counts = ""
    if progress.current is not None:
        counts = f"{progress.current}/{progress.total}" if progress.total is not None else f"{progress.current}"
    elif progress.total is not None:
        counts = f"?/{progress.total}"
    if progress.percent is not None:
        parts.append(f"{progress.percent}%" + (f" ({counts})" if counts else ""))
    elif counts:
        parts.append(counts)
    if progress.rate:
        unit = printable(shorten(progress.unit or "it", 20))
        parts.append(f"{progress.rate:.3g} {unit}/s" if progress.rate < 1000 else f"{progress.rate:.0f} {unit}/s")
    left = progress.seconds_left
    if left is not None:
        parts.append(f"{duration(left)} left")
    return ", ".join(parts) or "reported"


def status_lines(record: TaskRecord, now: datetime) -> list[str]:
    """Return the lines of ``oq status``: the task, its state, its progress."""
    lines = [f"Task: {record.id}", f"Type: {printable(record.task_type)}", f"Status: {record.status}"]
    progress = record.progress
    if progress is not None:
        lines.append(f"Progress: {progress_line(progress)}")
        if progress.message:
            lines.append(f"Message: {printable(progress.message)}")
        lines.append(f"Updated: {ago(progress.updated_at, now)}")
    if record.status is TaskStatus.PENDING and record.available_at > now:
        lines.append(f"Available: {ago(record.available_at, now)}")
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
            said = f"{progress.percent}%" if progress.percent is not None else progress_line(progress)
            message = f', "{printable(shorten(progress.message, 80))}"' if progress.message else ""
            return f"progress: {said}{message}"
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
    if record.progress is not None:
        parts.append(progress_line(record.progress))
        if record.progress.message:
            parts.append(printable(shorten(record.progress.message, 60)))
    elif record.status is TaskStatus.PENDING and record.available_at > now:
        parts.append(f"available {ago(record.available_at, now)}")
    if record.status in (TaskStatus.FAILED, TaskStatus.CANCELLED) and record.last_error:
        parts.append(printable(shorten(record.last_error.strip().splitlines()[0], 80)))
    return ", ".join(parts)
