"""What a task looks like in lines of text: pure functions from records to text. HTML: `markup`; the words: `states`.

Text that came from a bucket is untrusted: everything here returns it through `text.printable`.

Imports of the package: `model`, `text`, `sparkline`, `states`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from oq_nb.display.sparkline import number_lines
from oq_nb.display.states import StatusView, status_view
from oq_nb.model import Progress, TaskRecord, TaskStatus
from oq_nb.text import ago, duration, first_line, printable, progress_numbers, shorten

__all__ = [
    "group_line",
    "group_state",
    "last_line",
    "last_report",
    "numbers_line",
    "progress_line",
    "progress_parts",
    "status_lines",
    "task_line",
    "version_line",
]

_ENDS_TO_NAME = ("failed", "expired", "cancelled", "deleted")  # of a group: the others are good, or to come


def progress_line(progress: Progress, state: StatusView | None = None) -> str:
    """Return percent, counts, rate and time left, such as ``45% (450/1000), 12.5 it/s, 44 seconds left``.

    Args:
        progress: what was reported.
        state: of its task: nothing is estimated for one that is stalled, or whose lease ran out.
    """
    return numbers_line(progress, state) or "reported"


def numbers_line(progress: Progress, state: StatusView | None = None) -> str:
    """Return what `progress_line` does; empty where nothing but a message was reported."""
    is_going_on = state is None or state.word in ("running", "asked to stop")
    return progress_numbers(
        progress.percent,
        progress.current,
        progress.total,
        rate=progress.rate if is_going_on else None,
        unit=progress.unit,
        unit_divisor=progress.unit_divisor,
        seconds_left=progress.seconds_left if is_going_on else None,
    )


def progress_parts(progress: Progress, state: StatusView | None = None, *, message_limit: int = 60) -> list[str]:
    """Return what a report says: its numbers as `progress_line` has them, its message, or both."""
    numbers, message = numbers_line(progress, state), printable(shorten(progress.message or "", message_limit))
    return [part for part in (numbers, message) if part] or ["reported"]


def last_report(versions: Sequence[TaskRecord]) -> Progress | None:
    """Return what the last attempt last reported; None when it has not, or another one is to come.

    Args:
        versions: of one task, oldest first.
    """
    for record in reversed(versions):
        if record.progress is not None:
            return record.progress
        if record.status is TaskStatus.PENDING:
            return None
    return None


def last_line(error: str) -> str:
    """Return the line of a traceback that says what it was; as it is, not made printable."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith((" ", "\t"))), lines[0] if lines else "")


def status_lines(record: TaskRecord, now: datetime, *, has_worker: bool | None = None) -> list[str]:
    """Return the lines of ``oq status``: the task, its state, its progress, what there is to say.

    Args:
        record: the task.
        now: the store's time.
        has_worker: whether a live worker has a handler for it; None when that is not known.
    """
    state = status_view(record, now, has_worker=has_worker)
    lines = [f"Task: {record.id}", f"Type: {printable(record.task_type)}", f"Status: {state.text}"]
    progress = record.last_progress
    if progress is not None:
        numbers, is_whole = numbers_line(progress, state), record.is_whole
        if (numbers or not progress.message) and not is_whole:
            lines.append(f"Progress: {numbers or 'reported'}")
        if progress.message:
            lines.append(f"Message: {printable(progress.message)}")
        lines += [f"Metric: {line}" for line in number_lines(progress)]
        if not is_whole:
            lines.append(f"Updated: {ago(progress.updated_at, now)}")
    if record.attempt > 1:
        lines.append(f"Attempt: {record.attempt}")
    lines += [f"Note: {note}" for note in state.notes if not note.startswith("Reason: ")]
    if record.last_error:
        first, *rest = printable(record.last_error, keep_newlines=True).strip().splitlines() or [""]
        lines += [f"{'Reason' if record.status is TaskStatus.CANCELLED else 'Error'}: {first}"]
        lines += [f"  {line}" for line in rest]
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


def group_state(counts: Mapping[str, int], total: int) -> StatusView:
    """Return the state of a group: completed when all of it is; ended when all have, some in another way."""
    named = {name for name, count in counts.items() if count}
    if total > sum(count for name, count in counts.items() if name not in ("pending", "running")):
        return StatusView("waiting", "running")
    if named <= {"completed", "archived"}:
        return StatusView("completed", "good")
    return StatusView("ended", "bad" if named & {"failed", "expired"} else "off")


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
        if record.attempt and record.updated_at != record.created_at:
            return "the first one that is kept"
        return "created running" if record.attempt else "created"
    if record.status is TaskStatus.RUNNING:
        if before.status is not TaskStatus.RUNNING or before.lease_id != record.lease_id:
            return "claimed" if record.attempt <= 1 else f"claimed, attempt {record.attempt}"
        if record.cancel_requested and not before.cancel_requested:
            return "cancellation requested"
        if progress is not None and progress != before.progress:
            said = [f"{progress.percent}%" if progress.percent is not None else numbers_line(progress)]
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
    has_ended = record.status.is_terminal and not before.status.is_terminal
    if has_ended and record.last_progress is not None and not record.is_whole:
        return f"at {numbers_line(record.last_progress, status_view(record, record.updated_at))}"
    return ""


def task_line(record: TaskRecord, now: datetime) -> str:
    """Return a task in one line: type, short id, state, progress."""
    state = status_view(record, now)
    parts = [f"{printable(shorten(record.task_type, 40))} {record.id[:8]} {state.text}"]
    progress = None if record.is_whole else record.last_progress
    if progress is not None:
        parts += progress_parts(progress, state)
    elif record.status is TaskStatus.PENDING and record.available_at > now:
        parts.append(f"available {ago(record.available_at, now)}")
    if record.status is TaskStatus.FAILED and record.last_error:
        parts.append(first_line(last_line(record.last_error), 80))
    elif record.status is TaskStatus.CANCELLED and record.last_error:
        parts.append(first_line(record.last_error, 80))
    return ", ".join(parts)
