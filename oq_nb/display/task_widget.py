"""`TaskWidget`: a task in a notebook, always as it is; with Cancel, and Retry once it has failed.

Imports of the package: `errors`, `model`, `view`, `markup`, `watch`, `live`; ipywidgets when it is shown.
"""

from __future__ import annotations

import html
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from oq_nb.display import live, markup, view
from oq_nb.errors import OqError
from oq_nb.model import Progress, TaskRecord, TaskStatus
from oq_nb.queue.watcher import TaskState, TaskWatch, check_interval
from oq_nb.text import printable, shorten

if TYPE_CHECKING:
    from oq_nb.queue import Queue
    from oq_nb.queue.task import Task

__all__ = ["Action", "TaskWidget"]

logger = logging.getLogger("oq_nb.widget")

_RETRY_SECONDS = 300.0  # so long a failed task keeps its Retry button in a browser, then it becomes plain HTML too
_REPORT_SECONDS = 5.0  # so long the end of a task waits for its last report
_VIEW_SECONDS = 3.0  # so long it takes a browser at most to say that it shows a widget


class Action:
    """What a button does, in a thread of its own: one at a time; `said` tells how it went.

    Args:
        queue: where the task is.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._is_busy = False
        self.said = ""

    @property
    def is_busy(self) -> bool:
        """Whether one is under way."""
        return self._is_busy

    def start(self, doing: str, work: Callable[[], str]) -> None:
        """Do something unless something is being done; ``work`` returns what happened, to be said."""
        with self._lock:
            if self._is_busy:
                return
            self._is_busy, self.said = True, doing
        threading.Thread(target=self._run, args=(work,), name="oq-action", daemon=True).start()
        live.wake()

    def _run(self, work: Callable[[], str]) -> None:
        try:
            said = work()
        except OqError as exc:
            said = f"Not done: {exc}"
        except Exception as exc:
            logger.exception("a button failed")
            said = f"Not done: {type(exc).__name__}: {exc}"
        with self._lock:
            self._is_busy, self.said = False, said
        live.wake()

    def cancel(self, task_id: str) -> None:
        """Cancel a task, or ask it to stop. Requests: see `Queue.cancel`."""

        def work() -> str:
            task = self._queue.cancel(task_id, "cancelled in a notebook")
            self._queue.watcher.ingest(task.snapshot)
            if task.status is TaskStatus.CANCELLED:
                return "Cancelled."
            return "Asked to stop: its handler sees it with its next report."

        self.start("Cancelling …", work)

    def retry(self, task_id: str) -> None:
        """Run a task again. Requests: see `Queue.replay`."""

        def work() -> str:
            self._queue.watcher.ingest(self._queue.replay(task_id).snapshot)
            return "It is pending again, with its retries at zero."

        self.start("Trying again …", work)

    def html(self) -> str:
        """Return what was said, for the place beside the button."""
        return f'<span role="status">{html.escape(printable(shorten(self.said, 300)))}</span>'


class _LastReport:
    """Reads in a thread what an attempt had reported when it ended, which its last version does not say.

    Args:
        queue: where the task is.
        record: it, at its end.

    Requests: 1 LIST of its versions, 3 GET at most.
    """

    def __init__(self, queue: Queue, record: TaskRecord) -> None:
        self._queue = queue
        self._began_at = time.monotonic()
        self.record = record
        self.progress: Progress | None = None
        self.is_read = False
        threading.Thread(target=self._read, name="oq-history", daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether it is known, or not worth waiting for any longer."""
        return self.is_read or time.monotonic() - self._began_at > _REPORT_SECONDS

    def _read(self) -> None:
        try:
            versions = self._queue.get_history(self.record.id, limit=3)
            said = [v.progress for v in versions if v.attempt == self.record.attempt and v.progress is not None]
            self.progress = said[-1] if said else None
        except Exception:  # no history, no answer: what was last seen will do
            logger.debug("the last report of task %s cannot be read", self.record.id, exc_info=True)
        self.is_read = True
        live.wake()


class TaskWidget(live.LiveDisplay):
    """A task in a notebook, refreshed from a background thread until it has ended; then plain HTML.

    It lives as long as it, or the task handle that made it, is referred to. The same widget can be shown several times.

    Args:
        task: which.
        interval: seconds between two looks while it changes; above 0.
    """

    def __init__(self, task: Task, interval: float = 1.0) -> None:
        super().__init__()
        check_interval(interval)
        self.interval = interval
        self._queue = task.queue
        self._first = TaskState(task.id, task.snapshot)
        self._watch: TaskWatch | None = None
        self._last_progress: Progress | None = task.progress
        self._action = Action(task.queue)
        self._failed_at: float | None = None
        self._last_report: _LastReport | None = None
        self._is_over = self._first.is_over and task.status is not TaskStatus.FAILED

    @property
    def state(self) -> TaskState:
        """What is known of the task."""
        return self._watch.state if self._watch is not None else self._first

    # --- models

    def _build(self) -> Any:
        import ipywidgets as widgets

        wide = widgets.Layout(width="100%", max_width="48em", margin="0")
        narrow = widgets.Layout(width="auto", flex="0 0 auto", margin=".2em .8em .2em 1em")
        rest = widgets.Layout(width="auto", flex="1 1 auto", margin="0")
        self._main = self._own(widgets.HTML(layout=wide))
        self._detail = self._own(widgets.HTML(layout=wide, style=self._main.style))
        self._said = self._own(widgets.HTML(layout=rest, style=self._main.style))
        self._button = self._own(widgets.Button(description="Cancel", layout=narrow))
        self._button.on_click(live.weakly(self._press))
        row = self._own(widgets.HBox([self._button, self._said], layout=wide))
        # Browsers count their views in there; it stays 0 where there is none.
        root = self._own(widgets.VBox([self._main, self._detail, row], layout=wide, _view_count=0))
        live.browser.look_for(root)
        root.add_class("oq-task")
        return root

    def _press(self, _button: Any) -> None:
        """Cancel or retry; called in the kernel's main thread or a subshell's."""
        if self.state.is_over:
            self._action.retry(self._first.task_id)
        else:
            self._action.cancel(self._first.task_id)

    # --- life

    def _start(self) -> None:
        self._watch = self._queue.watcher.watch(
            self._first.held, interval=self.interval, workers=True, signal=live._ticker
        )

    def _stop(self) -> None:
        if self._watch is not None:
            self._first = self._watch.state
            self._watch.close()

    def _draw(self) -> None:
        state = self.state
        record = state.record
        if record is not None and record.progress is not None:
            self._last_progress = record.progress
        elif record is not None and record.status is TaskStatus.PENDING:
            self._last_progress = None
        is_failed = record is not None and record.status is TaskStatus.FAILED and not state.is_gone
        is_reading = state.is_over and not state.is_gone and self._is_reading_last_report()
        if state.is_over:
            self._main.value = self._main_html(is_live=is_failed)
        else:
            if self._failed_at is not None:
                self._failed_at = None
                self._save(keeps_widget=True)
            again = live.stale_html("The task is not affected", f"queue.get('{self._first.task_id}').widget()")
            self._main.value = self._main_html(is_live=True) + again
        self._detail.value = self._detail_html()
        self._said.value = self._action.html()
        self._draw_button(state, is_failed)
        if not state.is_over or is_reading:
            return
        if not is_failed:
            self._button.layout.display = "none"
            self._finish()
        else:
            self._draw_failed()

    def _is_reading_last_report(self) -> bool:
        """Look for what a task reported after it was last seen running; what is known is saved meanwhile."""
        record = self.state.record
        if record is None or record.status not in (TaskStatus.FAILED, TaskStatus.CANCELLED) or not record.attempt:
            return False
        reading = self._last_report
        if reading is None or reading.record != record:
            self._last_report = _LastReport(self._queue, record)
            self._save(keeps_widget=record.status is TaskStatus.FAILED and live.browser.is_there)
            return True
        if reading.is_read:
            self._last_progress = reading.progress or self._last_progress
        return not reading.is_over

    def _draw_failed(self) -> None:
        """Keep the Retry button where there is a browser; save plain HTML where none is known of."""
        has_browser = live.browser.is_there
        if self._failed_at is None:
            self._failed_at = time.monotonic()
            self._save(keeps_widget=has_browser)
        since = time.monotonic() - self._failed_at
        if since > _RETRY_SECONDS and not self._action.is_busy:
            self._button.layout.display = "none"
            self._finish()
        elif self._remains.is_static == has_browser and (has_browser or since > _VIEW_SECONDS):
            self._save(keeps_widget=has_browser)

    def _draw_button(self, state: TaskState, is_failed: bool) -> None:
        record = state.record
        is_asked = record is not None and record.status is TaskStatus.RUNNING and record.cancel_requested
        name = "Retry" if is_failed else "Stopping …" if is_asked else "Cancel"
        self._button.description = name
        self._button.tooltip = f"{name} task {self._first.task_id[:8]}"
        self._button.disabled = self._action.is_busy or is_asked or (state.is_over and not is_failed)

    # --- what it looks like

    def _status_view(self) -> view.StatusView:
        state = self.state
        return view.status_view(
            state.record,
            self._queue.now(),
            has_worker=state.has_worker,
            is_gone=state.is_gone,
            trouble=state.trouble,
            is_lasting=state.is_lasting,
            seen_at=state.seen_at,
        )

    def _main_html(self, *, is_live: bool) -> str:
        return markup.task_html(
            self.state.record,
            self._queue.now(),
            task_id=self._first.task_id,
            status=self._status_view(),
            last_progress=self._last_progress,
            is_live=is_live,
        )

    def _detail_html(self) -> str:
        record = self.state.record
        return "" if record is None else markup.more_html(record)

    def _static(self) -> tuple[str, str]:
        record = self.state.record
        if record is None:
            return self._main_html(is_live=False), f"task {self._first.task_id}, not seen yet"
        status = self._status_view()
        text = "\n  ".join([view.task_line(record, self._queue.now()), *status.notes])
        return self._main_html(is_live=False) + self._detail_html(), text
