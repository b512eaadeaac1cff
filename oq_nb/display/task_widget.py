"""`TaskWidget`: a task in a notebook, always as it is; with its log, Cancel, and Retry once it has failed.

Imports of the package: `model`, `queue`, and of this room all but the other widgets; ipywidgets when it is shown.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from oq_nb.display import kernel, live, markup, view
from oq_nb.display.browser import browser
from oq_nb.display.buttons import Action
from oq_nb.display.clicks import hear_while_busy
from oq_nb.display.log_fold import LogFold, below_html, fold_html
from oq_nb.display.render_loop import loop
from oq_nb.display.safe import EMPTY
from oq_nb.display.states import view_of_watched
from oq_nb.display.task_button import LateNote, TaskButton
from oq_nb.model import Progress, TaskRecord, TaskStatus
from oq_nb.queue.watcher import TaskState, TaskWatch, check_interval

if TYPE_CHECKING:
    from oq_nb.queue import Queue
    from oq_nb.queue.logs import TaskLogs
    from oq_nb.queue.task import Task

__all__ = ["TaskWidget"]

logger: logging.Logger = logging.getLogger("oq_nb.widget")

_RETRY_SECONDS = 300.0  # so long a failed task keeps its Retry button in a browser, then it becomes plain HTML too
_REPORT_SECONDS = 5.0  # so long the end of a task waits for its last report
_VIEW_SECONDS = 3.0  # so long it takes a browser at most to say that it shows a widget


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
        loop.wake()


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
        self._last_progress: Progress | None = task.record.last_progress
        self._action = Action(task.queue)
        self._fold = LogFold(task.queue)
        self._over_since: float | None = None
        self._late_note = LateNote(task.queue)
        self._failed_at: float | None = None
        self._last_report: _LastReport | None = None
        self._is_over = self._first.is_over and task.status is not TaskStatus.FAILED

    @property
    def state(self) -> TaskState:
        """What is known of the task."""
        return self._watch.state if self._watch is not None else self._first

    @property
    def is_smooth(self) -> bool:
        """Whether this process runs the task, and knows how far it is at any moment."""
        record = self.state.record
        return record is not None and self._queue.store.live_progress.of(record, self._queue.now()) is not None

    def _present_state(self) -> TaskState:
        """Return what is known of the task, with its progress as this process knows it where it runs here."""
        state = self.state
        if state.held is None:
            return state
        record = self._queue.store.live_progress.bring_up_to_date(state.held.record, self._queue.now())
        return state if record is state.held.record else replace(state, held=replace(state.held, record=record))

    # --- models

    def _build(self, widgets: Any) -> Any:
        wide = widgets.Layout(width="100%", max_width="48em", margin="0")
        narrow = widgets.Layout(width="auto", flex="0 0 auto", margin=".2em .8em .2em 1em")
        rest = widgets.Layout(width="auto", flex="1 1 auto", margin="0")
        self._main = self._own(widgets.HTML(layout=wide))
        self._detail = self._own(widgets.HTML(layout=wide, style=self._main.style))
        self._said = self._own(widgets.HTML(layout=rest, style=self._main.style))
        widget = weakref.ref(self)

        def find(_task_id: str) -> TaskRecord | None:
            shown = widget()
            return shown.state.record if shown is not None else None

        def make(name: str) -> Any:
            return widgets.Button(description=name, layout=narrow)

        self._buttons = TaskButton(make, self._output, self._action, find)
        beside = widgets.Layout(width="auto", flex="0 0 auto", margin=".2em .8em .2em 0")
        self._log_button = self._own(widgets.Button(description="Log", layout=beside))
        self._log_button.on_click(live.weakly(self._press_log))
        hear_while_busy(self._log_button)
        whole = widgets.Layout(width="100%", margin="0")
        self._log = self._own(widgets.HTML(layout=whole, style=self._main.style))
        self._row = self._own(widgets.HBox([self._button, self._log_button, self._said], layout=wide))
        root = self._own(widgets.VBox([self._main, self._detail, self._row, self._log], layout=whole))
        browser.look_for(root)
        root.add_class("oq-task")
        return root

    @property
    def _button(self) -> Any:
        return self._buttons.model

    def _press_log(self, _button: Any) -> None:
        """Show the log, or hide it; called in the kernel's main thread or a subshell's."""
        self._fold.toggle()

    # --- life

    def _start(self) -> None:
        self._watch = self._queue.watcher.watch(self._first.held, interval=self.interval, workers=True, signal=loop)

    def _stop(self) -> None:
        if self._watch is not None:
            self._first = self._watch.state
            self._watch.close()

    def _draw(self) -> None:
        state = self.state
        record = state.record
        if record is not None and record.progress is not None:
            self._last_progress = self._queue.store.live_progress.of(record, self._queue.now()) or record.progress
        elif record is not None and record.status is TaskStatus.PENDING:
            self._last_progress = None
        # A failed task keeps its widget for the button.
        is_failed = (
            record is not None and record.status is TaskStatus.FAILED and not state.is_gone and not record.is_loop
        )
        is_reading = state.is_over and not state.is_gone and self._is_reading_last_report()
        is_reading = self._draw_log(state) or is_reading
        if state.is_over:
            self._main.value = str(self._main_html(is_live=is_failed))
        else:
            if self._failed_at is not None:
                self._failed_at = None
                self._save(keeps_widget=True)
            again = live.stale_html("The task is not affected", f"queue.get('{self._first.task_id}').widget()")
            self._main.value = str(self._main_html(is_live=True) + again)
        # What is published anew is drawn anew, which folds what somebody has unfolded: so it is published first.
        if not (is_reading and browser.is_likely):
            self._detail.value = str(self._detail_html())
        self._draw_button(state, is_failed)
        self._said.value = str(self._action.html(record) + self._late_html())
        if not state.is_over or is_reading:
            return
        if not is_failed:
            self._buttons.hide()
            self._log_button.layout.display = "none"
            self._finish()
        else:
            self._draw_failed()

    def _is_reading_last_report(self) -> bool:
        """Look for what a task reported after it was last seen running; what is known is saved meanwhile."""
        record = self.state.record
        if record is None or record.status not in (TaskStatus.FAILED, TaskStatus.CANCELLED) or not record.attempt:
            return False
        if record.reached is not None:  # what it had reported stands in its end
            self._last_progress = record.reached
            return False
        reading = self._last_report
        if reading is None or reading.record != record:
            self._last_report = _LastReport(self._queue, record)
            if not browser.is_likely:  # what runs a notebook may be over any moment, and saves what is known
                self._save()
            return True
        if reading.is_read:
            self._last_progress = reading.progress or self._last_progress
        return not reading.is_over

    def _draw_failed(self) -> None:
        """Keep the Retry button where there is a browser; save plain HTML where none is known of."""
        if not self.is_replaceable:
            return
        has_browser = browser.is_likely
        if self._failed_at is None:
            self._failed_at = time.monotonic()
            self._save(keeps_widget=has_browser)
        since = time.monotonic() - self._failed_at
        if since > _RETRY_SECONDS and not self._action.is_busy:
            self._buttons.hide()
            self._log_button.layout.display = "none"
            self._finish()
        elif self._output.is_static == has_browser and (has_browser or since > _VIEW_SECONDS):
            self._save(keeps_widget=has_browser)

    def _draw_log(self, state: TaskState) -> bool:
        """Bring the log up to date; return whether the end of the task waits for the end of it."""
        record = state.record
        has_log = record is not None and not record.is_loop and not state.is_gone
        self._log_button.layout.display = None if has_log else "none"
        self._log_button.description = "Hide log" if self._fold.is_open else "Log"
        is_reading = has_log and self._fold.refresh(record)
        self._log.value = str(self._fold.html(self._queue.now()))
        if not state.is_over:
            self._over_since = None
            return False
        if self._over_since is None:
            self._over_since = time.monotonic()
        return is_reading and time.monotonic() - self._over_since < _REPORT_SECONDS

    def _draw_button(self, state: TaskState, is_failed: bool) -> None:
        is_late = kernel.cell.busy_seconds > live.BUSY_SECONDS
        is_pressable = state.record is not None and (is_failed or not state.is_over)
        if self._buttons.show(state.record, is_pressable=is_pressable, is_late=is_late):
            self._row.children = (self._button, self._log_button, self._said)

    def _late_html(self) -> Markup:
        """Return what works while a cell runs where the button is not heard."""
        is_late = kernel.cell.busy_seconds > live.BUSY_SECONDS and not self._buttons.is_heard and not self.state.is_over
        return self._late_note.html(self._first.task_id) if is_late else EMPTY

    def _draw_over(self) -> None:
        """Add what was said of a click that came too late."""
        if self._action.message(self.state.record):
            self._output.frozen = partial(_with_note, self._frozen(), self._action.html(self.state.record))
            self._output.publish()

    # --- what it looks like

    def _main_html(self, *, is_live: bool) -> Markup:
        return _main_html(*self._shown(), is_live=is_live)

    def _shown(self) -> tuple[TaskState, Progress | None, datetime]:
        """Return all that a drawing is made of."""
        state = self._present_state()
        return state, self._last_progress, self._queue.now()

    def _detail_html(self) -> Markup:
        record = self.state.record
        return EMPTY if record is None else markup.more_html(record)

    def _frozen(self) -> live.Frozen:
        return partial(_frozen, *self._shown(), logs=self._fold.logs if self._fold.is_open else None)


def _main_html(state: TaskState, last_progress: Progress | None, now: datetime, *, is_live: bool) -> Markup:
    return markup.task_html(
        state.record,
        now,
        task_id=state.task_id,
        status=view_of_watched(state, now),
        last_progress=last_progress,
        is_live=is_live,
    )


def _with_note(frozen: live.Frozen, note: Markup) -> tuple[str, str]:
    html, text = frozen()
    return html + note, text


def _frozen(
    state: TaskState,
    last_progress: Progress | None,
    now: datetime,
    *,
    logs: TaskLogs | None,
) -> tuple[str, str]:
    """Return a task as HTML and as text that stand without a kernel."""
    main = _main_html(state, last_progress, now, is_live=False)
    if state.record is None:
        return main, f"task {state.task_id}, not seen yet"
    line = view.task_line(state.record, now)
    text = "\n  ".join([line, *view_of_watched(state, now).notes])
    log = below_html(fold_html(logs, now)) if logs is not None else EMPTY
    return main + markup.more_html(state.record) + log, text
