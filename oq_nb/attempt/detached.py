"""`detached_context`: a context for functions that run without a worker: in a plain call, or in a test.

What is reported stays in memory. Imports nothing of the package but `model`, and of this room `context`.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from oq_nb import model
from oq_nb.attempt.context import TaskContext
from oq_nb.model import Progress, TaskRecord, TaskStatus, Timestamp

if TYPE_CHECKING:
    from oq_nb.store.live_progress import ProgressSource

__all__ = ["DetachedHold", "detached_context"]

logger: logging.Logger = logging.getLogger("oq_nb.progress")


class DetachedHold:
    """Stands for a lease where there is no task in a bucket; see `oq_nb.attempt.context.Hold`.

    Args:
        task_type: what the context says of its task.
        cancel_requested: what it says of a request to stop.
    """

    def __init__(self, task_type: str, *, cancel_requested: bool = False) -> None:
        task_id, now = model.new_id(), Timestamp.of(self.now())
        self.record: TaskRecord = TaskRecord(
            id=task_id,
            shard=model.shard_of(task_id),
            task_type=task_type,
            status=TaskStatus.RUNNING,
            created_at=now,
            available_at=now,
            updated_at=now,
            attempt=1,
            cancel_requested=cancel_requested,
        )
        #: Everything that was reported, oldest first.
        self.reports: list[Progress] = []

    @property
    def task_id(self) -> str:
        """An id that no task has."""
        return self.record.id

    @property
    def is_lost(self) -> bool:
        """Nobody else can have it."""
        return False

    def now(self) -> datetime:
        """Return the machine's time."""
        return datetime.now(timezone.utc)

    def check(self) -> None:
        """Do nothing: it cannot be lost."""

    def report(self, progress: Progress, *, throttle_seconds: float = 0.0, wait: bool = True) -> None:
        """Keep the newest progress."""
        del throttle_seconds, wait
        self.record = self.record.evolve(progress=progress)
        self.reports.append(progress)
        logger.debug("progress without a task: %s", progress)

    def follow(self, source: ProgressSource) -> None:
        """Do nothing: no display knows of it."""

    def extend(self, seconds: float) -> None:
        """Do nothing: there is no lease that could end."""


def detached_context(task_type: str) -> TaskContext:
    """Return a context that reports nowhere."""
    return TaskContext(DetachedHold(task_type))
