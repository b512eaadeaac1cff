"""Waiting for one task: `wait_for` in a thread, `Wait` for coroutines and others.

The task goes on whatever happens to the waiting program.

Imports of the package: `backoff`, `errors`, and this room; the bar is drawn through `faces`.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from oq_nb.backoff import WAKE_SECONDS
from oq_nb.errors import ConfigurationError, StorageDeniedError, TaskNotFoundError, WaitTimeoutError
from oq_nb.queue import faces
from oq_nb.queue.watcher import Signal, TaskState, TaskWatch

if TYPE_CHECKING:
    from oq_nb.queue.task import Task

__all__ = [
    "LONGEST_SECONDS",
    "Wait",
    "adopt_state",
    "check_state",
    "deadline_of",
    "seconds_until",
    "wait_for",
]

LONGEST_SECONDS = 2.2  # between two reads


def wait_for(task: Task, timeout: float | None, *, progress: bool) -> None:
    """Wait for one task; see `Task.wait`."""
    if task.is_done:
        return
    if timeout is not None and timeout <= 0:
        task.refresh()  # asked for what is known now
    news = threading.Event()
    shown = faces.task_bar(task) if progress else None
    with Wait(task, timeout, signal=news) as wait:
        try:
            while True:
                is_over = wait.is_over()
                if shown is not None:
                    shown.show()
                if is_over:
                    return
                news.wait(min(wait.seconds_left, WAKE_SECONDS))
                news.clear()
        finally:
            if shown is not None:
                shown.close()


class Wait:
    """A wait for one task, whatever the waiter does between two reads: a thread sleeps, a coroutine awaits.

    Args:
        task: brought up to date by each read.
        timeout: seconds; None to wait for ever.
        signal: rung when there is news.
    """

    def __init__(self, task: Task, timeout: float | None, *, signal: Signal) -> None:
        self._task, self._timeout = task, timeout
        self._deadline = deadline_of(timeout)
        self._watch: TaskWatch | None = None
        if not task.is_done:
            self._watch = task.queue.watcher.watch(
                task, interval=LONGEST_SECONDS, longest=LONGEST_SECONDS, signal=signal
            )

    def __enter__(self) -> Wait:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._watch is not None:
            self._watch.close()

    @property
    def seconds_left(self) -> float:
        """Seconds until the time is over."""
        return seconds_until(self._deadline)

    def is_over(self) -> bool:
        """Take over what is known; return whether the task has ended.

        Raises:
            WaitTimeoutError: the time is over.
            TaskNotFoundError: the task is gone from the bucket.
            StorageDeniedError: it may not be read.
        """
        task = self._task
        if self._watch is None:
            return True
        state = self._watch.state
        adopt_state(task, state)
        if state.is_gone:
            raise TaskNotFoundError(f"task {task.id} is gone from the bucket", task_id=task.id)
        if task.is_done:
            return True
        check_state(state)
        if self.seconds_left <= 0:
            away = f" (the store cannot be reached: {state.trouble})" if state.trouble else ""
            raise WaitTimeoutError(
                f"task {task.id} is still {task.status} after {self._timeout:g} s{away}; it goes on, wait again to see "
                "more",
                task_id=task.id,
            )
        return False


def adopt_state(task: Task, state: TaskState) -> None:
    """Bring a handle up to date with what a watch knows."""
    if state.held is not None:
        task.adopt(state.held)


def check_state(state: TaskState) -> None:
    """Raise `StorageDeniedError` when it makes no sense to wait on."""
    if state.trouble is not None and state.is_lasting:
        raise StorageDeniedError(f"task {state.task_id} cannot be waited for: {state.trouble}")


def deadline_of(timeout: float | None) -> float | None:
    """Return when a time-out ends, on `time.monotonic`; None for never."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or timeout != timeout:
        raise ConfigurationError(f"timeout: a number of seconds or None is needed, not {timeout!r}")
    return time.monotonic() + min(timeout, 1e9)


def seconds_until(deadline: float | None) -> float:
    """Return the seconds until `deadline_of`."""
    return float("inf") if deadline is None else deadline - time.monotonic()
