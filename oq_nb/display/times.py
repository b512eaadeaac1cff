"""When a task started, how long it waited, ran and took: pure functions from a record to text in local time.

Imports of the package: `model`, `text`.
"""

from __future__ import annotations

from datetime import datetime

from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.text import duration, local_time, progress_numbers, rate_text

__all__ = ["end_line", "seconds_text", "time_facts", "took_seconds", "waited_seconds"]


def seconds_text(seconds: float) -> str:
    """Return a length of time: tenths of a second below a minute, ``20.1 s``; above as `oq_nb.text.duration`."""
    if seconds < 0.05:
        return "0 s"
    return f"{seconds:.1f} s" if seconds < 59.95 else duration(seconds)


def waited_seconds(record: TaskRecord) -> float | None:
    """Return for how long the last attempt waited for a worker; None when it has not begun, or nobody knows when.

    It counts from when the task could start: after its submission, its delay, or the pause before a retry. A loop under
    ``track`` waits for nobody.
    """
    if record.started_at is None or record.is_loop:
        return None
    since = max(record.available_at, record.created_at)
    return max(0.0, (record.started_at - since).total_seconds())


def took_seconds(record: TaskRecord) -> float | None:
    """Return for how long the last attempt of an ended task ran; None when that is not known."""
    if record.started_at is None or record.ended_at is None:
        return None
    return max(0.0, (record.ended_at - record.started_at).total_seconds())


def end_line(record: TaskRecord) -> str:
    """Return what there is to keep of an ended task: ``1000/1000 in 20.1 s, 49.7 it/s, waited 0.1 s``.

    Empty for a task that has not ended, and for one of which neither position nor times are known.
    """
    if not record.status.is_terminal:
        return ""
    took, waited, reached = took_seconds(record), waited_seconds(record), record.last_progress
    counts = rate = ""
    if reached is not None and reached.current is not None:
        counts = progress_numbers(
            None, reached.current, reached.total, unit=reached.unit, unit_divisor=reached.unit_divisor
        )
        if took and reached.current:
            rate = rate_text(reached.current / took, reached.unit, reached.unit_divisor)
    parts = [counts] if counts else []
    if took is not None:
        parts = [f"{counts} in {seconds_text(took)}" if counts else f"took {seconds_text(took)}"]
    parts += [rate] if rate else []
    parts += [f"waited {seconds_text(waited)}"] if waited is not None else []
    return ", ".join(parts)


def time_facts(record: TaskRecord, now: datetime, *, is_live: bool) -> list[str]:
    """Return when a task started, how long it has been running, waited and took, and when it ended.

    Args:
        record: the task.
        now: the store's time.
        is_live: it is refreshed: what changes with the time is said, and today's date is not.
    """
    today = now if is_live else None
    facts: list[str] = []
    if record.status.is_terminal:
        line = end_line(record)
        facts += [line] if line else []
        if record.started_at is not None:
            facts.append(f"started {local_time(record.started_at, today)}")
        return [*facts, f"ended {local_time(record.ended_at or record.updated_at, today)}"]
    if record.status is TaskStatus.RUNNING and record.started_at is not None:
        facts.append(f"started {local_time(record.started_at, today)}")
        if is_live:
            facts.append(f"running for {duration((now - record.started_at).total_seconds())}")
        waited = waited_seconds(record)
        facts += [f"waited {seconds_text(waited)}"] if waited is not None and waited >= 1 else []
    elif record.status is TaskStatus.PENDING:
        facts.append(f"submitted {local_time(record.created_at, today)}")
        if is_live and record.available_at <= now:
            since = max(record.available_at, record.created_at)
            facts.append(f"waiting for {duration((now - since).total_seconds())}")
    return facts
