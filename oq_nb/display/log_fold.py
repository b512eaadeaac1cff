"""`LogFold`: the log of a task below its widget, read while it is unfolded and not otherwise.

Imports of the package: `model`, `queue`, and of this room `log_html`, `render_loop`, `safe`.
"""

from __future__ import annotations

import logging
import threading
from datetime import datetime
from typing import TYPE_CHECKING

from markupsafe import Markup

from oq_nb.display.log_html import log_html
from oq_nb.display.render_loop import loop
from oq_nb.display.safe import EMPTY, fill, quote
from oq_nb.errors import OqError
from oq_nb.model import TaskRecord
from oq_nb.queue.logs import LogTail, TaskLogs

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["LogFold", "below_html", "fold_html"]

logger: logging.Logger = logging.getLogger("oq_nb.widget")

_READ_SECONDS = 2.0


class LogFold:
    """What is shown of a task's log: nothing until it is unfolded, then its end.

    Args:
        queue: where the task is.

    Requests: none while it is folded; then as for `oq_nb.queue.logs.LogReader`, a look every two seconds while the task
    runs, and one after its end.
    """

    def __init__(self, queue: Queue) -> None:
        self._tail = LogTail(queue.store.logs)
        self._lock = threading.Lock()  # guards whether somebody reads
        self._is_reading = False
        self._trouble = ""
        #: Whether it is shown.
        self.is_open: bool = False
        #: What was read last; None before.
        self.logs: TaskLogs | None = None

    def toggle(self) -> None:
        """Unfold it, or fold it."""
        self.is_open = not self.is_open
        loop.wake()

    def refresh(self, record: TaskRecord | None) -> bool:
        """Read what is new, in a thread of its own, when it is time; return whether that is under way.

        Args:
            record: the task as it is shown.
        """
        with self._lock:
            if self._is_reading:
                return True
            if record is None or not self.is_open or not self._tail.is_due(record, _READ_SECONDS):
                return False
            self._is_reading = True
        threading.Thread(target=self._read, args=(record,), name="oq-log", daemon=True).start()
        return True

    def _read(self, record: TaskRecord) -> None:
        try:
            self.logs, self._trouble = self._tail.read(record), ""
        except OqError as exc:
            self._trouble = str(exc)
        except Exception as exc:
            logger.exception("the log of task %s could not be read", record.id)
            self._trouble = f"{type(exc).__name__}: {exc}"
        with self._lock:
            self._is_reading = False
        loop.wake()

    def html(self, now: datetime) -> Markup:
        """Return it as HTML; nothing while it is folded."""
        if not self.is_open:
            return EMPTY
        return below_html(fold_html(self.logs, now, self._trouble))


def fold_html(logs: TaskLogs | None, now: datetime, trouble: str = "") -> Markup:
    """Return a log in its frame.

    Args:
        logs: what was read; None before.
        now: the store's time.
        trouble: why it cannot be read for now.
    """
    said = EMPTY
    if trouble:
        said = fill("<div>⚠ The log cannot be read for now. ({})</div>", quote(trouble, 300))
    if logs is None:
        return said or fill('<div style="opacity:.75">Reading the log …</div>')
    return said + log_html(logs.lines, now, attempt=logs.attempt, is_end=logs.is_end)


def below_html(log: Markup) -> Markup:
    """Return a log as it stands below a task."""
    style = "padding-left:calc(4px + .8em);max-width:72em;line-height:1.6"
    return fill(f'<div style="{style}">{{}}</div>', log) if log else EMPTY
