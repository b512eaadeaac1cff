"""What a button or a command does to a task, and what is said of it: the same words in widget, page and shell.

Imports nothing of the package but this room and `model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from oq_nb.model import TaskStatus

if TYPE_CHECKING:
    from oq_nb.queue.queue import Queue
    from oq_nb.queue.task import Task

__all__ = ["ActionResult", "cancel", "replay"]


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


def replay(queue: Queue, task_id: str) -> ActionResult:
    """Run a finished task again.

    Args:
        queue: where the task is.
        task_id: its whole id.

    Raises:
        TransitionError: it has not ended, or it is a loop that ran under `track`.
        TaskNotFoundError: there is no such task.

    Requests: see `Queue.replay`.
    """
    task = queue.replay(task_id)
    return ActionResult(task, "It is pending again, with its retries at zero.", "is pending again")
