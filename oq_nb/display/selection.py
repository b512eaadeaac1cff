"""`select_tasks`: which tasks of a queue are shown, and which page of them; for the dashboard and the web page. Pure.

Imports of the package: `model`, `text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from oq_nb.model import TaskRecord, TaskStatus, WorkerRecord
from oq_nb.text import printable, shorten

__all__ = ["ALL", "ENDED", "STATUSES", "Selection", "TaskFilter", "select_tasks", "type_options"]

ALL, ENDED = "all", "ended"
#: What can be asked for.
STATUSES = (ALL, ENDED, *(status.value for status in TaskStatus))

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

    @property
    def wants_ended(self) -> bool:
        """Whether tasks are asked for that have ended."""
        return self.status not in (TaskStatus.PENDING.value, TaskStatus.RUNNING.value)


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

    @property
    def title(self) -> str:
        """What stands above it: ``Failed: 21 to 40 of 45``; without numbers when all are on the page."""
        if self.total <= len(self.records):
            return self.name
        return f"{self.name}: {self.first:,} to {self.first + len(self.records) - 1:,} of {self.total:,}"


def select_tasks(
    live: Iterable[TaskRecord], ended: Iterable[TaskRecord], wanted: TaskFilter, *, rows: int
) -> Selection:
    """Return a page of the tasks that are asked for.

    Args:
        live: pending and running tasks, in the order in which they are shown.
        ended: tasks that have ended, newest first.
        wanted: what is asked for.
        rows: of a page.
    """
    live = [record for record in live if wanted.task_type in ("", record.task_type)]
    ended = [record for record in ended if wanted.task_type in ("", record.task_type)]
    if wanted.status == ALL:
        main, name = live, "Running and waiting"
    elif wanted.status == ENDED:
        main, name = ended, "Ended"
    else:
        main = [record for record in (*live, *ended) if record.status.value == wanted.status]
        name = wanted.status.capitalize()
    pages = max(1, -(-len(main) // rows))
    page = max(1, min(wanted.page, pages))
    start = (page - 1) * rows
    newest = ended[:_ENDED_ROWS] if wanted.status == ALL and page == 1 else []
    shown = tuple(main[start : start + rows])
    return Selection(shown, start + 1, len(main), page, pages, tuple(newest), len(ended), name)


def type_options(records: Iterable[TaskRecord], workers: Sequence[WorkerRecord], chosen: str) -> list[tuple[str, str]]:
    """Return the task types that can be chosen, as labels that can be shown and names as they are.

    Args:
        records: tasks that are known.
        workers: whose handlers are known.
        chosen: the present choice, which stays among them; empty for none.
    """
    names = {record.task_type for record in records}
    names |= {name for worker in workers for name in worker.task_types or ()}
    names |= {chosen} - {""}
    return [(printable(shorten(name, 60)), name) for name in sorted(names)[:_TYPES]]
