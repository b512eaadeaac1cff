"""What a button or a command does to a task, and what is said of it: the same words in widget, page and shell.

A button's action carries what the button said: cancelling never runs a task again, and `replay` with the attempt that
was shown leaves a task alone that has run again since.

Imports nothing of the package but this room, `errors`, `model` and `text`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from oq_nb.errors import OqError
from oq_nb.model import TaskStatus
from oq_nb.text import counted, printable, shorten

if TYPE_CHECKING:
    from oq_nb.queue.queue import Queue
    from oq_nb.queue.task import Task

__all__ = ["ActionResult", "ManyResult", "cancel", "cancel_many", "replay", "replay_many"]

_AT_A_TIME = 8  # of several tasks


@dataclass(frozen=True)
class ActionResult:
    """A task after an action."""

    #: The task as the action left it.
    task: Task
    #: What happened, as a sentence.
    message: str
    #: What happened, to follow the task's id: ``is asked to stop``.
    brief: str


def cancel(queue: Queue, task_id: str, reason: str | None = None) -> ActionResult:
    """Cancel a pending task, ask a running one to stop.

    Args:
        queue: where the task is.
        task_id: its whole id.
        reason: stored with the task as its error.

    Raises:
        TransitionError: it has ended already.
        TaskNotFoundError: there is no such task.

    Requests: see `Queue.cancel`.
    """
    task = queue.cancel(task_id, reason)
    if task.status is TaskStatus.CANCELLED:
        return ActionResult(task, "Cancelled.", "cancelled")
    return ActionResult(task, "Asked to stop: its handler sees it with its next report.", "is asked to stop")


def replay(queue: Queue, task_id: str, *, attempt: int | None = None) -> ActionResult:
    """Run a finished task again.

    Args:
        queue: where the task is.
        task_id: its whole id.
        attempt: the last attempt when it was looked at; None for whatever has become of it.

    Raises:
        TransitionError: it has not ended, has run again since, or is a loop that ran under `track`.
        TaskNotFoundError: there is no such task.

    Requests: see `Queue.replay`.
    """
    task = queue.replay(task_id, attempt=attempt)
    return ActionResult(task, "It is pending again, with its retries at zero.", "is pending again")


@dataclass(frozen=True)
class ManyResult:
    """Several tasks after an action."""

    #: Those that were changed.
    results: tuple[ActionResult, ...]
    #: Why the others were not, by their ids.
    refused: dict[str, str]

    @property
    def message(self) -> str:
        """What was done, as a sentence that stays true: ``2 tasks were cancelled; 1 not done: …``."""
        by_brief: dict[str, int] = {}
        for result in self.results:
            by_brief[result.brief] = by_brief.get(result.brief, 0) + 1
        done = ", ".join(f"{counted(count, 'task')} {_of_many(brief, count)}" for brief, count in by_brief.items())
        if not self.refused:
            return f"{done}." if done else "Nothing was selected."
        first = printable(shorten(next(iter(self.refused.values())), 200))
        others = f"{len(self.refused):,} not done: {first}"
        return f"{done}; {others}" if done else f"Not done: {first}" if len(self.refused) == 1 else others


def _of_many(brief: str, count: int) -> str:
    done = {"is pending again": "made pending again"}.get(brief, brief.removeprefix("is "))
    return f"{'was' if count == 1 else 'were'} {done}"


def cancel_many(queue: Queue, task_ids: Iterable[str], reason: str | None = None) -> ManyResult:
    """Cancel several tasks, eight at a time; one that cannot be cancelled does not stop the others. See `cancel`."""
    return _each({task_id: partial(cancel, queue, task_id, reason) for task_id in task_ids})


def replay_many(queue: Queue, attempts: Iterable[tuple[str, int | None]]) -> ManyResult:
    """Run several tasks again, eight at a time; one that cannot be run again does not stop the others. See `replay`.

    Args:
        queue: where the tasks are.
        attempts: their ids, and the last attempt of each when it was looked at.
    """
    return _each({task_id: partial(replay, queue, task_id, attempt=attempt) for task_id, attempt in attempts})


def _each(changes: dict[str, Callable[[], ActionResult]]) -> ManyResult:
    if not changes:
        return ManyResult((), {})

    def run(change: Callable[[], ActionResult]) -> ActionResult | OqError:
        try:
            return change()
        except OqError as exc:
            return exc

    with ThreadPoolExecutor(min(_AT_A_TIME, len(changes)), thread_name_prefix="oq-actions") as pool:
        found = dict(zip(changes, pool.map(run, changes.values()), strict=True))
    done = tuple(result for result in found.values() if isinstance(result, ActionResult))
    return ManyResult(done, {task_id: str(exc) for task_id, exc in found.items() if isinstance(exc, OqError)})
