"""Buttons of widgets and of the page: which one a task has, and what a widget's does in a thread of its own.

Imports of the package: `errors`, `model`, `queue.actions`, `display.render_loop`, `display.safe`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from oq_nb.display.render_loop import loop
from oq_nb.display.safe import fill, quote
from oq_nb.errors import OqError
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.queue import actions
from oq_nb.queue.actions import ActionResult

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["CANCELLING", "REPLAYING", "Action", "Button", "button_of", "failure_message"]

logger: logging.Logger = logging.getLogger("oq_nb.widget")

CANCELLING, REPLAYING = "Cancelling …", "Starting it again …"


@dataclass(frozen=True)
class Button:
    """A button beside a task."""

    #: What stands on it.
    name: str
    #: Whether it runs the task again; else it cancels it.
    replays: bool
    #: Whether it can be pressed.
    is_enabled: bool


def button_of(record: TaskRecord, *, is_busy: bool = False) -> Button | None:
    """Return the button that a task has; None for a loop that has ended, which no worker can run again.

    Args:
        record: the task.
        is_busy: whether what the button does is under way.
    """
    if record.status.is_terminal:
        if record.is_loop:
            return None
        name = "Run again" if record.status is TaskStatus.COMPLETED else "Retry"
        return Button(name, replays=True, is_enabled=not is_busy)
    is_asked = record.status is TaskStatus.RUNNING and record.cancel_requested
    return Button("Stopping …" if is_asked else "Cancel", replays=False, is_enabled=not is_busy and not is_asked)


def failure_message(error: Exception) -> str:
    """Return what is said when a button's work has failed; an error that is not ours is logged."""
    if isinstance(error, OqError):
        return f"Not done: {error}"
    logger.error("a button failed", exc_info=error)
    return f"Not done: {type(error).__name__}: {error}"


class Action:
    """What a widget's button does, in a thread of its own, one at a time; and how it went.

    Args:
        queue: where the task is.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._lock = threading.Lock()  # guards the next three
        self._is_busy = False
        self._message = ""
        self._about: tuple[str, TaskStatus, int] | None = None  # which task, and what it is as long as that is said

    @property
    def is_busy(self) -> bool:
        """Whether one is under way."""
        return self._is_busy

    def cancel(self, record: TaskRecord) -> None:
        """Cancel a task, or ask it to stop. Requests: see `Queue.cancel`."""
        self._start(record, CANCELLING, lambda: actions.cancel(self._queue, record.id, "cancelled in a notebook"))

    def replay(self, record: TaskRecord) -> None:
        """Run a task again, unless it has been run again since. Requests: see `Queue.replay`."""
        self._start(record, REPLAYING, lambda: actions.replay(self._queue, record.id, attempt=record.attempt))

    def refuse(self, record: TaskRecord, message: str) -> None:
        """Do nothing, and say why.

        Args:
            record: the task as it is.
            message: why.
        """
        with self._lock:
            if self._is_busy:
                return
            self._message, self._about = message, _state_of(record)
        loop.wake()

    def message(self, record: TaskRecord | None) -> str:
        """Return what was done to a task, or is being done; nothing once the task has gone on since.

        Args:
            record: the task as it is shown.
        """
        with self._lock:
            if record is None or self._about is None or self._about[0] != record.id:
                return ""
            return self._message if self._is_busy or self._about == _state_of(record) else ""

    def html(self, record: TaskRecord | None) -> Markup:
        """Return the `message`, for the place beside the button."""
        return fill('<span role="status">{}</span>', quote(self.message(record), 300))

    def _start(self, record: TaskRecord, doing: str, work: Callable[[], ActionResult]) -> None:
        with self._lock:
            if self._is_busy:
                return
            self._is_busy, self._message, self._about = True, doing, _state_of(record)
        threading.Thread(target=self._run, args=(work,), name="oq-action", daemon=True).start()
        loop.wake()

    def _run(self, work: Callable[[], ActionResult]) -> None:
        about = self._about
        try:
            result = work()
            self._queue.watcher.ingest(result.task.snapshot)
            message, about = result.message, _state_of(result.task.record)
        except Exception as exc:
            message = failure_message(exc)
        with self._lock:
            self._is_busy, self._message, self._about = False, message, about
        loop.wake()


def _state_of(record: TaskRecord) -> tuple[str, TaskStatus, int]:
    return record.id, record.status, record.attempt
