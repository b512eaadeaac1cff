"""`wait` and `as_completed` for groups of tasks, and what `Queue.map` returns; with one bar for the group.

They have the names and manners of `concurrent.futures`. The tasks go on whatever happens to the waiting program.

Imports of the package: `backoff`, `errors`, `model`, `store`, and this room; the bars are drawn through `faces`.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from oq_nb.backoff import WAKE_SECONDS
from oq_nb.errors import ConfigurationError, WaitTimeoutError, brief_interrupts
from oq_nb.model import TaskStatus
from oq_nb.queue import faces
from oq_nb.queue.poller import TaskPoller
from oq_nb.queue.task import Task
from oq_nb.queue.waiting import LONGEST_SECONDS, adopt_state, check_state, deadline_of, seconds_until
from oq_nb.queue.watcher import TaskWatch
from oq_nb.store import VersionedTask

__all__ = ["DoneAndNotDone", "MapResults", "as_completed", "wait"]


ReturnWhen = Literal["ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION"]


class DoneAndNotDone(NamedTuple):
    """What `wait` returns."""

    #: Tasks that have ended, however they ended, or are gone.
    done: set[Task]
    #: The others.
    not_done: set[Task]


def wait(
    tasks: Iterable[Task],
    timeout: float | None = None,
    return_when: ReturnWhen = "ALL_COMPLETED",
    *,
    progress: bool = True,
) -> DoneAndNotDone:
    """Wait for tasks, as `concurrent.futures.wait`; their handles are brought up to date.

    Args:
        tasks: handles, of one queue or several.
        timeout: seconds; None to wait for ever. No error is raised when they are over.
        return_when: ``FIRST_COMPLETED``, ``FIRST_EXCEPTION`` (one failed, expired or was cancelled) or
            ``ALL_COMPLETED``.
        progress: show one bar for the group, in notebooks and terminals.

    Raises:
        StorageDeniedError: a task may not be read. A store that is away is waited for.

    Requests: as `oq_nb.queue.poller.TaskPoller.refresh` says for all of them together: after 5 % of the time waited,
    at least 10 ms and as long as the last look took, at most 2.2 s. That is about 50 times in the first second, 100 in
    the first 10 s, 1,750 in an hour.
    """
    names = ("ALL_COMPLETED", "FIRST_COMPLETED", "FIRST_EXCEPTION")
    if return_when not in names:
        raise ConfigurationError(f"return_when: one of {', '.join(names)} is needed, not {return_when!r}")
    group = _Group(tasks, timeout, progress=progress)
    done: set[Task] = set()
    with brief_interrupts(), group:
        for task in group.ended(raises=False):
            done.add(task)
            if group.has_news:
                continue  # take those that have ended at the same time, too
            if return_when == "FIRST_COMPLETED" or (return_when == "FIRST_EXCEPTION" and _any_bad(done)):
                break
    return DoneAndNotDone(done, set(group.tasks) - done)


def _any_bad(done: set[Task]) -> bool:
    return any(task.status in (TaskStatus.FAILED, TaskStatus.EXPIRED, TaskStatus.CANCELLED) for task in done)


def as_completed(tasks: Iterable[Task], timeout: float | None = None, *, progress: bool = True) -> Iterator[Task]:
    """Yield tasks as they end, however they end; as `concurrent.futures.as_completed`.

    Args:
        tasks: handles, of one queue or several.
        timeout: seconds from the call; None to wait for ever.
        progress: show one bar for the group, in notebooks and terminals.

    Raises:
        WaitTimeoutError: some have not ended in time.
        StorageDeniedError: a task may not be read. A store that is away is waited for.

    Requests: see `wait`.
    """
    return _as_completed(_Group(tasks, timeout, progress=progress))


def _as_completed(group: _Group) -> Iterator[Task]:
    with brief_interrupts(), group:
        yield from group.ended(raises=True)


class MapResults:
    """The results of `Queue.map`: an iterator in the order of the inputs. Text in errors is the handlers'.

    Args:
        tasks: in order.
        timeout: seconds for each result, counted from the call of `Queue.map`; None to wait for ever.
        progress: show one bar for the group.
    """

    def __init__(self, tasks: list[Task], timeout: float | None, *, progress: bool) -> None:
        #: The tasks, in the order of the inputs.
        self.tasks = tasks
        self._deadline = deadline_of(timeout)
        self._progress = progress
        self._position = 0
        self._group: _Group | None = None
        self._ended: Iterator[Task] = iter(())

    def __repr__(self) -> str:
        done = sum(task.is_done for task in self.tasks)
        return f"<MapResults {done} of {len(self.tasks)} done>"

    def __iter__(self) -> MapResults:
        return self

    def __len__(self) -> int:
        return len(self.tasks)

    def __next__(self) -> Any:
        """Return the next result.

        Raises:
            TaskFailedError: its task failed. The others go on: ``tasks`` has their handles.
            TaskCancelledError: its task was cancelled.
            WaitTimeoutError: it did not end in time.
        """
        if self._position >= len(self.tasks):
            self.close()
            raise StopIteration
        task = self.tasks[self._position]
        if self._group is None:
            self._group = _Group(self.tasks, None, progress=self._progress)
            self._group.deadline = self._deadline
            self._group.__enter__()
            self._ended = self._group.ended(raises=True)
        try:
            with brief_interrupts():
                while not task.is_done and task not in self._group.gone:
                    next(self._ended)
                result = task.result()
        except BaseException:
            self.close()
            raise
        self._position += 1
        if self._position >= len(self.tasks):
            self.close()
        return result

    def cancel(self, reason: str | None = None) -> None:
        """Cancel the tasks that have not ended. Requests: see `Queue.cancel_many`."""
        self.close()
        if self.tasks:
            self.tasks[0].queue.cancel_many([task.id for task in self.tasks if not task.is_done], reason)

    def close(self) -> None:
        """Stop waiting; the tasks go on."""
        if self._group is not None:
            self._group.__exit__()
            self._position = len(self.tasks)


class _Group:
    """Some tasks that are waited for together."""

    def __init__(self, tasks: Iterable[Task], timeout: float | None, *, progress: bool) -> None:
        given = list(tasks)
        for task in given:
            if not isinstance(task, Task):
                raise ConfigurationError(f"tasks: task handles are needed, not {type(task).__name__}")
        self.tasks = list(dict.fromkeys(given))
        self.timeout = timeout
        self.deadline = deadline_of(timeout)
        self.gone: set[Task] = set()
        self._progress = progress
        self._news = threading.Event()
        self._open: list[tuple[Task, TaskWatch]] = []
        self._ready: list[Task] = []
        self._bar: faces.ProgressBar | None = None

    def __enter__(self) -> _Group:
        if self.timeout is not None and self.timeout <= 0:
            self._read_once()
        self._ready = [task for task in self.tasks if task.is_done]
        waiting = [task for task in self.tasks if not task.is_done]
        for watcher in {task.queue.watcher for task in waiting}:
            own = [task for task in waiting if task.queue.watcher is watcher]
            watches = watcher.watch_many(own, interval=LONGEST_SECONDS, longest=LONGEST_SECONDS, signal=self._news)
            self._open += zip(own, watches, strict=True)
        if self._progress:
            self._bar = faces.group_bar(self.count, len(self.tasks))
        return self

    def __exit__(self, *exc: object) -> None:
        self._show()
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        for _, watch in self._open:
            watch.close()
        self._open = []

    def _read_once(self) -> None:
        """Read all of them in this thread, for those who will not wait."""
        for store in {task.queue.store for task in self.tasks}:
            poller = TaskPoller(store)
            own = [task for task in self.tasks if task.queue.store is store]
            for task in own:
                poller.ingest(task.snapshot)
            poller.refresh([task.id for task in own])
            for task in own:
                held = poller.seen[task.id]
                if isinstance(held, VersionedTask):
                    task.adopt(held)

    @property
    def has_news(self) -> bool:
        """Whether another task has ended already."""
        return bool(self._ready)

    def ended(self, *, raises: bool) -> Iterator[Task]:
        """Yield each task once it has ended; return when the time is over, or raise."""
        while True:
            self._show()
            while self._ready:
                yield self._ready.pop(0)
            if not self._open:
                return
            left = seconds_until(self.deadline)
            if left <= 0:
                if raises:
                    raise WaitTimeoutError(
                        f"{len(self._open)} of {len(self.tasks)} tasks have not ended in time; they go on, wait again "
                        "to see more"
                    )
                return
            self._news.wait(min(left, WAKE_SECONDS))
            self._news.clear()
            self._take_news()

    def _take_news(self) -> None:
        still: list[tuple[Task, TaskWatch]] = []
        for task, watch in self._open:
            state = watch.state
            adopt_state(task, state)
            if state.is_over:
                watch.close()
                if state.is_gone:
                    self.gone.add(task)
                self._ready.append(task)
            else:
                check_state(state)
                still.append((task, watch))
        self._open = still

    def _show(self) -> None:
        if self._bar is not None:
            self._bar.show()

    def count(self) -> Counter[str]:
        """Count the tasks by status as it is known now; ``deleted`` for those that are gone. From any thread."""
        newest = {task.id: watch.state for task, watch in self._open}
        counts: Counter[str] = Counter()
        for task in self.tasks:
            state = newest.get(task.id)
            record = task.record if state is None or state.record is None else state.record
            is_gone = task in self.gone or (state is not None and state.is_gone)
            counts["deleted" if is_gone else record.status.value] += 1
        return counts
