"""`select_tasks`: which tasks of a queue are shown, and which page of them; for the dashboard and the web page. Pure.

Imports of the package: `model`, `text`, `failures`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from oq_nb.display.failures import FailureGroup, error_key, group_failures
from oq_nb.model import TaskRecord, TaskStatus, WorkerRecord
from oq_nb.text import counted, printable, shorten

__all__ = [
    "ALL",
    "ENDED",
    "SORTS",
    "STATUSES",
    "WITHIN",
    "Known",
    "Selection",
    "TaskFilter",
    "failure_groups",
    "select_tasks",
    "type_options",
]

ALL, ENDED = "all", "ended"
#: What can be asked for.
STATUSES = (ALL, ENDED, *(status.value for status in TaskStatus))
#: In which order, and what it is called; without one in the order of their turn, ended ones by their end.
SORTS = {
    "": "their turn",
    "newest": "changed last",
    "oldest": "changed first",
    "submitted": "submitted last",
    "longest": "running longest",
    "progress": "furthest",
    "type": "type",
}
#: How long ago they may have changed, in seconds, by what is asked for.
WITHIN = {"": 0, "15m": 900, "1h": 3600, "6h": 21_600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}

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
    #: Words that all stand in its id, type, message, error or worker, in any case; empty for all.
    text: str = ""
    #: One of `WITHIN`.
    within: str = ""
    #: One of `SORTS`.
    sort: str = ""
    #: Which failures: `FailureGroup.key`; empty for all.
    error: str = ""

    @property
    def is_narrow(self) -> bool:
        """Whether it asks for more than a status."""
        return bool(self.task_type or self.text or self.within or self.error)

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
    #: Among which those were looked for, where not all that ended were read; empty for all.
    ended_among: str = ""
    #: What it is of: ``Running and waiting``, ``Failed``.
    name: str = ""
    #: What it cannot have because it was not read; empty for nothing.
    left_out: str = ""
    #: The error of the newest of them where failures of one kind are asked for, as it can be shown; empty for others.
    kind: str = ""

    @property
    def title(self) -> str:
        """What stands above it: ``Failed: 21 to 40 of 45``; without numbers when all are on the page."""
        position = f": {self.first:,} to {self.first + len(self.records) - 1:,} of {self.total:,}"
        over = f"; {self.left_out}" if self.left_out else ""
        kind = f"; of one kind, such as: {self.kind}" if self.kind else ""
        return f"{self.name}{position if self.total > len(self.records) else ''}{over}{kind}"


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
    #: Failed, cancelled and expired tasks that are counted but not in `failures`, by status.
    unread_failures: Mapping[str, int] = field(default_factory=dict)
    #: All tasks that have ended, read or not.
    ended_total: int = 0


def select_tasks(known: Known, wanted: TaskFilter, *, rows: int, now: datetime | None = None) -> Selection:
    """Return a page of the tasks that are asked for.

    Args:
        known: to select from.
        wanted: what is asked for.
        rows: of a page.
        now: the store's time; needed where ``wanted.within`` is asked for.
    """
    matches = _Matcher(wanted, now)
    both = {record.id: record for record in (*known.live, *known.ended, *known.failures)}
    ended = [record for record in known.ended if matches(record)]
    if wanted.is_narrow:  # it finds those that failed long ago, too
        shown = {record.id for record in ended}
        ended += [record for record in known.failures if record.id not in shown and matches(record)]
    if wanted.error or wanted.status not in (ALL, ENDED):
        status = TaskStatus.FAILED.value if wanted.error else wanted.status
        main = [record for record in both.values() if record.status.value == status and matches(record)]
        name = status.capitalize()
    elif wanted.status == ALL:
        main, name = [record for record in known.live if matches(record)], "Running and waiting"
    else:
        main, name = ended, "Ended"
    main = _sorted(main, wanted.sort)
    pages = max(1, -(-len(main) // rows))
    page = max(1, min(wanted.page, pages))
    start = (page - 1) * rows
    is_first_of_all = wanted.status == ALL and not wanted.error and page == 1
    return Selection(
        records=tuple(main[start : start + rows]),
        first=start + 1,
        total=len(main),
        page=page,
        pages=pages,
        newest_ended=tuple(ended[:_ENDED_ROWS] if is_first_of_all else ()),
        ended_total=len(ended) if wanted.is_narrow else max(known.ended_total, len(ended)),
        ended_among=_among(known, wanted) if wanted.is_narrow else "",
        name=name,
        left_out=_left_out(known, wanted),
        kind=printable(shorten(FailureGroup.of(main[:1]).error, 100)) if wanted.error and main else "",
    )


class _Matcher:
    """Whether a task is one of those asked for, but for its status."""

    def __init__(self, wanted: TaskFilter, now: datetime | None) -> None:
        self._wanted = wanted
        self._words = wanted.text.casefold().split()
        seconds = WITHIN.get(wanted.within, 0)
        self._since = now - timedelta(seconds=seconds) if seconds and now is not None else None

    def __call__(self, record: TaskRecord) -> bool:
        wanted = self._wanted
        if wanted.task_type not in ("", record.task_type):
            return False
        if self._since is not None and record.updated_at < self._since:
            return False
        if wanted.error and error_key(record) != wanted.error:
            return False
        return not self._words or self._has_words(record)

    def _has_words(self, record: TaskRecord) -> bool:
        message = record.last_progress.message if record.last_progress is not None else None
        parts = (record.id, record.task_type, record.worker_id, message, record.last_error, record.cancelled_by)
        text = "\n".join(part for part in parts if part).casefold()
        return all(word in text for word in self._words)


def _sorted(records: list[TaskRecord], sort: str) -> list[TaskRecord]:
    """Return tasks in an order of `SORTS`; equal ones stay as they are."""
    if sort in ("newest", "oldest"):
        return sorted(records, key=lambda record: record.updated_at, reverse=sort == "newest")
    if sort == "submitted":
        return sorted(records, key=lambda record: record.created_at, reverse=True)
    if sort == "type":
        return sorted(records, key=lambda record: record.task_type)
    if sort == "progress":
        return sorted(records, key=_percent, reverse=True)
    if sort == "longest":
        return sorted(records, key=_started)
    return records


def _percent(record: TaskRecord) -> int:
    progress = record.last_progress
    if record.is_whole:
        return 100
    return progress.percent if progress is not None and progress.percent is not None else -1


def _started(record: TaskRecord) -> tuple[bool, datetime]:
    started_at = record.started_at if record.status is TaskStatus.RUNNING else None
    return started_at is None, started_at or record.updated_at


def failure_groups(known: Known, wanted: TaskFilter, now: datetime) -> list[FailureGroup]:
    """Return the failed tasks that are asked for by their errors, the largest group first.

    Args:
        known: to select from.
        wanted: what is asked for; its status, page, order and group make no difference.
        now: the store's time.
    """
    matches = _Matcher(replace(wanted, error=""), now)
    both = {record.id: record for record in (*known.failures, *known.ended)}
    failed = [record for record in both.values() if record.status is TaskStatus.FAILED and matches(record)]
    return group_failures(_sorted(failed, "newest"))


def _left_out(known: Known, wanted: TaskFilter) -> str:
    """Return what a selection cannot have because it was not read; empty for nothing."""
    if wanted.wants_live and not wanted.error:
        return f"{known.unread:,} more are counted but not read" if known.unread else ""
    if wanted.error or wanted.status in _UNHAPPY:
        status = TaskStatus.FAILED.value if wanted.error else wanted.status
        unread = known.unread_failures.get(status, 0)
        return f"{unread:,} more {status} ones are not read" if unread else ""
    among = _among(known, wanted)
    return f"{among} (oq list shows the others)" if among else ""


def _among(known: Known, wanted: TaskFilter) -> str:
    """Return which of the tasks that ended are known; empty for all."""
    ended = {record.id for record in known.ended}
    older = sum(record.id not in ended for record in known.failures) if wanted.is_narrow else 0
    if known.ended_total <= len(ended) + older:
        return ""
    failures = f" and {counted(older, 'older failure')}" if older else ""
    return f"among the {len(ended)} that ended last{failures}, of {known.ended_total:,}"


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
