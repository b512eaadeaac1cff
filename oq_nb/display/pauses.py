"""`ReportPauses`: the longest pause between two reports of an attempt, as far as somebody has watched it. Pure.

Imports of the package: `model`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from oq_nb.model import TaskRecord, Timestamp

__all__ = ["ReportPauses", "longest_pause"]


class ReportPauses:
    """What pauses between reports were seen, so that a longer one stands out."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str | None, Timestamp, float | None]] = {}  # by task: lease, last report, pause

    def note(self, record: TaskRecord | None) -> None:
        """Take in a task as it was seen now; of an attempt, in the order in which it happened."""
        if record is None or record.progress is None:
            return
        at = record.progress.updated_at
        lease_id, before, longest = self._known.get(record.id, (None, at, None))
        if lease_id != record.lease_id:
            longest = None
        elif at > before:
            longest = max(longest or 0.0, (at - before).total_seconds())
        self._known[record.id] = (record.lease_id, at, longest)

    def longest(self, record: TaskRecord | None) -> float | None:
        """Return the longest pause of a task's present attempt in seconds; None before two reports were seen."""
        lease_id, _, longest = self._known.get(record.id if record is not None else "", (None, None, None))
        return longest if record is not None and lease_id == record.lease_id else None

    def keep(self, task_ids: Iterable[str]) -> None:
        """Forget all tasks but these."""
        kept = set(task_ids)
        self._known = {task_id: known for task_id, known in self._known.items() if task_id in kept}


def longest_pause(versions: Sequence[TaskRecord]) -> float | None:
    """Return the longest pause between two reports of the present attempt in seconds.

    Args:
        versions: of one task, oldest first.
    """
    pauses = ReportPauses()
    for version in versions:
        pauses.note(version)
    return pauses.longest(versions[-1]) if versions else None
