"""`TaskGroup`: several tasks that were submitted together, as a list with a bar.

Imports of the package: this room.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, SupportsIndex, overload

from oq_nb.queue import faces
from oq_nb.queue.groups import DoneAndNotDone, MapResults, ReturnWhen, wait
from oq_nb.queue.task import Task

if TYPE_CHECKING:
    from oq_nb.queue.faces import TaskGroupDisplay

__all__ = ["TaskGroup"]


class TaskGroup(list[Task]):
    """Tasks that were submitted together: a list, which shows itself as one bar."""

    _display: TaskGroupDisplay | None = None

    def __repr__(self) -> str:
        counts = Counter(str(task.status) for task in self)
        said = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<TaskGroup of {len(self)}: {said or 'no tasks'}>"

    @overload
    def __getitem__(self, index: SupportsIndex) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> TaskGroup: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Task | TaskGroup:
        found = super().__getitem__(index)
        return TaskGroup(found) if isinstance(found, list) else found

    def results(self, timeout: float | None = None, *, progress: bool = True) -> list[Any]:
        """Wait for all; return what they give, in order.

        Args:
            timeout: seconds; None to wait for ever.
            progress: show one bar for the group, in notebooks and terminals.

        Raises:
            TaskFailedError: one failed. The others go on.
            TaskCancelledError: one was cancelled.
            WaitTimeoutError: they have not ended in time.

        Requests: as `oq_nb.wait`.
        """
        return list(MapResults(self, timeout, progress=progress))

    def wait(
        self, timeout: float | None = None, return_when: ReturnWhen = "ALL_COMPLETED", *, progress: bool = True
    ) -> DoneAndNotDone:
        """Wait for them; see `oq_nb.wait`."""
        return wait(self, timeout, return_when, progress=progress)

    def refresh(self) -> TaskGroup:
        """Bring all handles up to date; return the group. Requests: see `oq_nb.wait`, one look."""
        wait(self, 0, progress=False)
        return self

    def cancel(self, reason: str | None = None) -> None:
        """Cancel those that have not ended. Requests: see `Queue.cancel_many`."""
        left = [task.id for task in self if not task.is_done]
        if left:
            self[0].queue.cancel_many(left, reason)

    def _ipython_display_(self) -> None:
        if self._display is None or self._display.is_finished:
            self._display = faces.group_display(self)
        self._display.display()
