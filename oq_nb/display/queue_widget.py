"""`QueueWidget`: a queue in a notebook: counts, running tasks with bars, those that ended, workers, one task in detail.

Imports of the package: `errors`, `model`, `view`, `markup`, `watch`, `live`, `widget`; ipywidgets when it is shown.
"""

from __future__ import annotations

import html
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from oq_nb.display import live, markup, view
from oq_nb.display.task_widget import Action
from oq_nb.errors import OqError
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.queue.watcher import Overview, OverviewWatch, check_interval
from oq_nb.text import counted, printable, shorten

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["QueueWidget", "queue_bundle", "queue_html"]

_ROWS = 20  # of a page
_ENDED_ROWS = 10
_WORKERS = 8
_TYPES = 200  # in the filter
_VERSIONS = 200  # of the history that is plotted
_LONGEST_SECONDS = 30.0
_REPR_SECONDS = 2.0

_ALL, _ENDED = "all", "ended"


class QueueWidget(live.LiveDisplay):
    """A queue in a notebook, refreshed from a background thread until it is closed or dropped.

    It lives as long as it, or the queue that made it, is referred to. The same widget can be shown several times.

    Args:
        queue: which.
        interval: seconds between two looks while something changes; above 0.
    """

    def __init__(self, queue: Queue, interval: float = 2.0) -> None:
        super().__init__()
        check_interval(interval)
        self.interval = interval
        self._store = queue.store
        self._watcher = queue.watcher
        self._name = _name(queue)
        self._watch: OverviewWatch | None = None
        self._last = Overview()
        self._action = Action(queue)
        self._has_ended = False  # the selected task, when it was last drawn
        self._detail = _Detail(queue)
        # Wishes of the user, set by callbacks in any thread, read by the thread that draws.
        self._type = ""
        self._status = _ALL
        self._page = 0
        self._selected = ""

    @property
    def state(self) -> Overview:
        """What is known of the queue."""
        return self._watch.state if self._watch is not None else self._last

    # --- models

    def _build(self) -> Any:
        import ipywidgets as widgets

        wide = widgets.Layout(width="100%", margin="0")
        self._head = self._own(widgets.HTML(layout=wide))
        style = self._head.style
        self._table = self._own(widgets.HTML(layout=wide, style=style))
        self._detail_box = self._own(widgets.HTML(layout=wide, style=style))
        # Apart from what changes every second, so that what the user has unfolded stays so.
        self._more_box = self._own(widgets.HTML(layout=wide, style=style))
        self._said = self._own(widgets.HTML(layout=widgets.Layout(width="auto", flex="1 1 auto"), style=style))
        slim = widgets.Layout(width="auto", max_width="24em", flex="0 0 auto", margin="2px 1em 2px 0")
        like: dict[str, Any] = {"layout": slim, "style": {"description_width": "initial"}}
        self._types = self._own(widgets.Dropdown(description="Type", options=[("all types", "")], **like))
        statuses = [("all", _ALL), ("ended", _ENDED), *((status.value, status.value) for status in TaskStatus)]
        self._statuses = self._own(widgets.Dropdown(description="Status", options=statuses, **like))
        self._tasks = self._own(widgets.Dropdown(description="Task", options=[("select one …", "")], **like))
        narrow = widgets.Layout(width="auto", flex="0 0 auto")
        self._back = self._own(widgets.Button(description="‹ Previous", layout=narrow))
        self._next = self._own(widgets.Button(description="Next ›", layout=narrow))
        hidden = widgets.Layout(width="auto", flex="0 0 auto", display="none")
        self._button = self._own(widgets.Button(description="Cancel", layout=hidden))
        self._types.observe(live.weakly(self._choose_type), "value")
        self._statuses.observe(live.weakly(self._choose_status), "value")
        self._tasks.observe(live.weakly(self._choose_task), "value")
        self._back.on_click(live.weakly(self._go_back))
        self._next.on_click(live.weakly(self._go_on))
        self._button.on_click(live.weakly(self._press))
        line = widgets.Layout(flex_flow="row wrap", width="100%", margin="0")
        filters = self._own(widgets.HBox([self._types, self._statuses, self._back, self._next], layout=line))
        chosen = self._own(widgets.HBox([self._tasks, self._button, self._said], layout=line))
        parts = [self._head, filters, self._table, chosen, self._detail_box, self._more_box]
        root = self._own(widgets.VBox(parts, layout=wide))
        root.add_class("oq-queue")
        return root

    # --- callbacks: in the kernel's main thread, a subshell's, or (where this module sets options) the drawing one

    def _choose_type(self, change: Any) -> None:
        if not live.is_ticking():
            self._type, self._page = change["new"], 0
            live.wake()

    def _choose_status(self, change: Any) -> None:
        self._status, self._page = change["new"], 0
        live.wake()

    def _choose_task(self, change: Any) -> None:
        if not live.is_ticking():
            self._selected = change["new"] or ""
            self._action.said = ""
            live.wake()

    def _go_back(self, _button: Any) -> None:
        self._page = max(0, self._page - 1)
        live.wake()

    def _go_on(self, _button: Any) -> None:
        self._page += 1
        live.wake()

    def _press(self, _button: Any) -> None:
        record = self._detail.record
        if record is None or record.id != self._selected:
            return
        if record.status.is_terminal:
            self._action.retry(record.id)
        else:
            self._action.cancel(record.id)

    # --- life

    def _start(self) -> None:
        self._watch = self._watcher.overview(interval=self.interval, longest=_LONGEST_SECONDS, signal=live._ticker)

    def _stop(self) -> None:
        if self._watch is not None:
            self._last = self._watch.state
            self._watch.close()

    def _draw(self) -> None:
        overview = self.state
        now = self._store.clock.now()
        again = live.stale_html("The tasks are not affected", "queue.widget()")
        self._head.value = _head_html(self._name, overview, now, is_live=True) + again
        shown, table = self._table_html(overview, now)
        self._table.value = table
        self._offer_types(overview)
        self._offer_tasks(shown)
        self._draw_detail(overview, now)
        self._said.value = self._action.html()

    def _table_html(self, overview: Overview, now: Any) -> tuple[list[TaskRecord], str]:
        """Return the tasks on the page, and the table of them."""
        live_ones = [h.record for h in overview.live if self._type in ("", h.record.task_type)]
        ended = [h.record for h in overview.ended if self._type in ("", h.record.task_type)]
        if self._status == _ALL:
            main, name = live_ones, "Running and waiting"
        else:
            both = ended if self._status == _ENDED else [*live_ones, *ended]
            main = [record for record in both if self._status in (_ENDED, record.status.value)]
            name = self._status.capitalize()
        self._page = max(0, min(self._page, (len(main) - 1) // _ROWS))
        start = self._page * _ROWS
        page = main[start : start + _ROWS]
        self._back.disabled, self._next.disabled = start == 0, start + _ROWS >= len(main)
        caption = name
        if len(main) > _ROWS:
            caption += f": {start + 1:,} to {start + len(page):,} of {len(main):,}"
        if overview.unread and self._status != _ENDED:
            caption += f", and {overview.unread:,} more that are counted but not read"
        made = markup.tasks_html(page, now, caption=html.escape(caption))
        if self._status == _ALL:
            newest = ended[:_ENDED_ROWS]
            if newest:
                made += markup.tasks_html(newest, now, caption=f"Ended lately: {len(newest)} of {len(ended)}")
            page = [*page, *newest]
        return page, made

    def _offer_types(self, overview: Overview) -> None:
        names = {held.record.task_type for held in (*overview.live, *overview.ended)}
        names |= {name for worker in overview.workers for name in worker.task_types or ()}
        names |= {self._type} - {""}
        options = [("all types", ""), *((printable(shorten(name, 60)), name) for name in sorted(names)[:_TYPES])]
        _offer(self._types, options, self._type)

    def _offer_tasks(self, shown: Sequence[TaskRecord]) -> None:
        labels = {record.id: f"{printable(shorten(record.task_type, 40))} {record.id[:8]}" for record in shown}
        record = self._detail.record
        if self._selected and self._selected not in labels:
            name = printable(shorten(record.task_type, 40)) if record is not None else "task"
            labels[self._selected] = f"{name} {self._selected[:8]}"
        # In an order that does not change with every step of a task.
        options = [("select one …", ""), *sorted((label, task_id) for task_id, label in labels.items())]
        _offer(self._tasks, options, self._selected)

    def _draw_detail(self, overview: Overview, now: Any) -> None:
        self._detail.select(self._selected, overview)
        self._detail_box.value, self._more_box.value = self._detail.html(now)
        record = self._detail.record
        if not self._selected or record is None:
            self._button.layout.display = "none"
            return
        if record.status.is_terminal and not self._has_ended:
            self._action.said = ""  # what was asked for is over
        self._has_ended = record.status.is_terminal
        self._button.layout.display = None
        is_good = record.status is TaskStatus.COMPLETED
        self._button.description = "Run again" if is_good else "Retry" if record.status.is_terminal else "Cancel"
        self._button.disabled = self._action.is_busy

    def _static(self) -> tuple[str, str]:
        overview = self.state
        return queue_html(self._name, overview, self._store.clock.now()), queue_text(self._name, overview)


class _Detail:
    """The task that was selected: its state, and its versions, which are read once and then carried on.

    Args:
        queue: where it is.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._lock = threading.Lock()  # guards the next three
        self._task_id = ""
        self._versions: list[TaskRecord] = []
        self._trouble = ""

    @property
    def record(self) -> TaskRecord | None:
        """The newest version."""
        with self._lock:
            return self._versions[-1] if self._versions else None

    def select(self, task_id: str, overview: Overview) -> None:
        """Show this task; read its versions in a thread when it is another one, else add what has been seen since."""
        with self._lock:
            is_new = task_id != self._task_id
            if is_new:
                self._task_id, self._versions, self._trouble = task_id, [], ""
        if is_new and task_id:
            threading.Thread(target=self._read, args=(task_id,), name="oq-history", daemon=True).start()
            return
        for held in (*overview.live, *overview.ended):
            if held.record.id == task_id:
                with self._lock:
                    newest = self._versions[-1] if self._versions else None
                    if newest is not None and newest != held.record and held.record.supersedes(newest):
                        self._versions = [*self._versions, held.record][-2 * _VERSIONS :]

    def _read(self, task_id: str) -> None:
        versions: list[TaskRecord] = []
        trouble = ""
        try:
            versions = self._queue.get_history(task_id, limit=_VERSIONS)
        except OqError as exc:
            trouble = str(exc)
        except Exception as exc:  # whatever it is, it is said rather than lost with the thread
            trouble = f"{type(exc).__name__}: {exc}"
        with self._lock:
            if self._task_id == task_id:
                self._versions, self._trouble = versions, trouble
        live.wake()

    def html(self, now: Any) -> tuple[str, str]:
        """Return it, and its error, output and history."""
        with self._lock:
            task_id, versions, trouble = self._task_id, self._versions, self._trouble
        if not task_id:
            return "", ""
        if not versions:
            return f'<div role="status">{markup.escape(trouble) or "Reading …"}</div>', ""
        record = versions[-1]
        reported = [version.progress for version in versions if version.progress is not None]
        last = reported[-1] if reported else None
        more = markup.more_html(record) + markup.history_svg(versions)
        return markup.task_html(record, now, last_progress=last, is_live=True), more


def _offer(model: Any, options: list[tuple[str, str]], value: str) -> None:
    """Set the options of a selection when they have changed; the value stays."""
    if list(model.options) != options:
        with model.hold_sync():
            model.options = options
            model.value = value


def _name(queue: Queue) -> str:
    return repr(queue).strip("<>")


# --- without a widget


def _head_html(name: str, overview: Overview, now: Any, *, is_live: bool) -> str:
    trouble = ""
    if overview.trouble is not None:
        since = f" This is from {view.ago(overview.seen_at, now)}." if overview.seen_at is not None else ""
        trouble = (
            f'<div role="status">⚠ The store cannot be reached and is tried again.{since} '
            f"({markup.escape(overview.trouble, 300)})</div>"
        )
    if overview.seen_at is None:
        return f"<div><b>{markup.escape(name)}</b></div>{trouble or '<div>Looking …</div>'}"
    seen = f"seen {view.ago(overview.seen_at, now)}" if is_live else f"seen {overview.seen_at:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f'<div style="line-height:1.6"><b>{markup.escape(name)}</b> <span style="opacity:.75">{seen}</span></div>'
        f"{trouble}"
        f"{markup.counts_html(overview.counts, overview.uncounted)}"
        f"{markup.workers_html(overview.workers, now, limit=_WORKERS)}"
    )


def queue_html(name: str, overview: Overview, now: Any) -> str:
    """Return a queue as HTML that stands without a kernel.

    Args:
        name: of the queue; escaped here.
        overview: what was seen.
        now: the store's time.
    """
    made = _head_html(name, overview, now, is_live=False)
    if overview.live:
        shown = [held.record for held in overview.live[:_ROWS]]
        total = len(overview.live) + overview.unread
        caption = f"Running and waiting: {len(shown)} of {total:,}"
        made += markup.tasks_html(shown, now, caption=caption, is_live=False)
    if overview.ended:
        ended = [held.record for held in overview.ended[:_ENDED_ROWS]]
        made += markup.tasks_html(ended, now, caption=f"Ended lately: {len(ended)}", is_live=False)
    return made


def queue_text(name: str, overview: Overview) -> str:
    """Return a queue in a line or two."""
    counts = ", ".join(f"{count:,} {status}" for status, count in overview.counts.items() if count)
    if overview.seen_at is None:
        return printable(name)
    return f"{printable(name)}\n  {counts or 'no tasks'}; {counted(len(overview.workers), 'worker')}"


def queue_bundle(queue: Queue) -> dict[str, str]:
    """Return a queue as text and HTML, with what a look of two seconds at most tells.

    Requests: as one look of `oq_nb.queue.watcher.Watcher.read_overview`.
    """
    seen: list[Overview] = []
    thread = threading.Thread(target=lambda: seen.append(queue.watcher.read_overview()), name="oq-look", daemon=True)
    thread.start()
    thread.join(_REPR_SECONDS)
    overview = seen[0] if seen else Overview()
    if not seen:
        overview = replace(overview, trouble=f"no answer within {_REPR_SECONDS:g} s")
    hint = '<div style="opacity:.75"><code>queue.widget()</code> shows it live.</div>'
    name = _name(queue)
    return {"text/plain": queue_text(name, overview), "text/html": queue_html(name, overview, queue.now()) + hint}
