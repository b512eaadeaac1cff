"""`select_tasks`: which tasks of a queue are shown, and which page of them; for the dashboard and the web page. Pure.

Imports of the package: `model`, `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oq_nb.model import TaskRecord, TaskStatus, WorkerRecord
from oq_nb.text import printable, shorten

__all__ = ["ALL", "ENDED", "STATUSES", "Known", "Selection", "TaskFilter", "select_tasks", "type_options"]

ALL, ENDED = "all", "ended"
#: What can be asked for.
STATUSES = (ALL, ENDED, *(status.value for status in TaskStatus))

_UNHAPPY = (TaskStatus.FAILED.value, TaskStatus.CANCELLED.value, TaskStatus.EXPIRED.value)
_ENDED_ROWS = 10  # below the running and waiting ones
_TYPES = 200  # in the filter


@dataclass(frozen=True)
class TaskFilter:
    """Which tasks of a queue are asked for."""

    #: One of `STATUSES`.
    status: str = ALL
    #: Empty for all.
    task_type: str = ""
    #: From 1; the last one when there are fewer.
    page: int = 1

    @property
    def wants_live(self) -> bool:
        """Whether tasks are asked for that have not ended."""
        return self.status in (ALL, TaskStatus.PENDING.value, TaskStatus.RUNNING.value)


@dataclass(frozen=True)
class Selection:
    """A page of the tasks asked for."""

    #: The tasks on it.
    records: tuple[TaskRecord, ...]
    #: Position of the first of them, counted from 1.
    first: int
    #: Tasks on all pages.
    total: int
    #: The page's number, counted from 1.
    page: int
    #: How many pages there are, 1 or more.
    pages: int
    #: Where all tasks are asked for: the newest of those that have ended, on the first page only.
    newest_ended: tuple[TaskRecord, ...] = ()
    #: Of how many.
    ended_total: int = 0
    #: What it is of: ``Running and waiting``, ``Failed``.
    name: str = ""
    #: What it cannot have because it was not read; empty for nothing.
    left_out: str = ""

    @property
    def title(self) -> str:
        """What stands above it: ``Failed: 21 to 40 of 45``; without numbers when all are on the page."""
        position = f": {self.first:,} to {self.first + len(self.records) - 1:,} of {self.total:,}"
        over = f"; {self.left_out}" if self.left_out else ""
        return f"{self.name}{position if self.total > len(self.records) else ''}{over}"


@dataclass(frozen=True)
class Known:
    """What is known of a queue's tasks, to select from."""

    #: Pending and running tasks, in the order in which they are shown.
    live: Sequence[TaskRecord] = ()
    #: Tasks that have ended, the newest first.
    ended: Sequence[TaskRecord] = ()
    #: Tasks that failed, were cancelled or expired, however long ago, the newest first.
    failures: Sequence[TaskRecord] = ()
    #: Pending and running tasks that are counted but not in `live`.
    unread: int = 0
    #: Failed, cancelled and expired tasks that are counted but not in `failures`.
    unread_failures: int = 0
    #: All tasks that have ended, read or not.
    ended_total: int = 0


def select_tasks(known: Known, wanted: TaskFilter, *, rows: int) -> Selection:
    """Return a page of the tasks that are asked for.

    Args:
        known: to select from.
        wanted: what is asked for.
        rows: of a page.
    """

    def of_type(records: Iterable[TaskRecord]) -> list[TaskRecord]:
        return [record for record in records if wanted.task_type in ("", record.task_type)]

    ended = of_type(known.ended)
    if wanted.status == ALL:
        main, name = of_type(known.live), "Running and waiting"
    elif wanted.status == ENDED:
        main, name = ended, "Ended"
    else:
        both = {record.id: record for record in (*known.live, *known.ended, *known.failures)}
        main = [record for record in of_type(both.values()) if record.status.value == wanted.status]
        name = wanted.status.capitalize()
    pages = max(1, -(-len(main) // rows))
    page = max(1, min(wanted.page, pages))
    start = (page - 1) * rows
    newest = ended[:_ENDED_ROWS] if wanted.status == ALL and page == 1 else []
    total = len(ended) if wanted.task_type else max(known.ended_total, len(ended))
    shown = tuple(main[start : start + rows])
    left_out = _left_out(known, wanted)
    return Selection(shown, start + 1, len(main), page, pages, tuple(newest), total, name, left_out)


def _left_out(known: Known, wanted: TaskFilter) -> str:
    """Return what a selection cannot have because it was not read; empty for nothing."""
    if wanted.wants_live:
        return f"{known.unread:,} more are counted but not read" if known.unread else ""
    if wanted.status in _UNHAPPY:
        return f"{known.unread_failures:,} more failed, cancelled or expired ones are not read" * (
            known.unread_failures > 0
        )
    if known.ended_total <= len(known.ended):
        return ""
    return f"among the {len(known.ended)} that ended last, of {known.ended_total:,} (oq list shows the others)"


def type_options(known: Known, workers: Sequence[WorkerRecord], chosen: str) -> list[tuple[str, str]]:
    """Return the task types that can be chosen, as labels that can be shown and names as they are.

    Args:
        known: of the tasks.
        workers: whose handlers are known.
        chosen: the present choice, which stays among them; empty for none.
    """
    names = {record.task_type for record in (*known.live, *known.ended, *known.failures)}
    names |= {name for worker in workers for name in worker.task_types or ()}
    names |= {chosen} - {""}
    return [(printable(shorten(name, 60)), name) for name in sorted(names)[:_TYPES]]
