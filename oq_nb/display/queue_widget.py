"""`QueueWidget`: a queue in a notebook: counts, running tasks with bars, those that ended, workers, one task in detail.

Imports of the package: `errors`, `model`, `queue`, and of this room all but the other widgets; ipywidgets when it is
shown.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from oq_nb.display import kernel, live, markup, view
from oq_nb.display.board_table import groups_html, tables_html
from oq_nb.display.browser import browser
from oq_nb.display.buttons import Action
from oq_nb.display.choice import Choice, Option
from oq_nb.display.clickable import Press, is_clickable, make_clickable
from oq_nb.display.plot import history_svg
from oq_nb.display.render_loop import loop
from oq_nb.display.safe import EMPTY, as_text, fill, quote
from oq_nb.display.selection import (
    ALL,
    SORTS,
    STATUSES,
    WITHIN,
    Known,
    Selection,
    TaskFilter,
    failure_groups,
    select_tasks,
    type_options,
)
from oq_nb.display.several import SeveralAction
from oq_nb.display.states import status_view
from oq_nb.display.task_button import LateNote, TaskButton
from oq_nb.errors import OqError
from oq_nb.model import TaskRecord, TaskStatus, Timestamp
from oq_nb.queue.watcher import Overview, OverviewWatch, check_interval, has_handler
from oq_nb.text import ago, counted, duration, local_time, printable, shorten

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["QueueWidget", "queue_bundle", "queue_html"]

_ROWS = 20  # of a page
_ENDED_ROWS = 10
_WORKERS = 8
_VERSIONS = 200  # of the history that is plotted
_LONGEST_SECONDS = 30.0
_REPR_SECONDS = 2.0


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
        self._several = SeveralAction(queue)
        self._late_note = LateNote(queue)
        self._detail = _Detail(queue)
        # What the user has chosen: set by callbacks in any thread, read by the thread that draws.
        self._wanted = TaskFilter()
        self._selected = ""

    @property
    def state(self) -> Overview:
        """What is known of the queue."""
        return self._watch.state if self._watch is not None else self._last

    # --- models

    def _build(self, widgets: Any) -> Any:
        wide = widgets.Layout(width="100%", margin="0")
        self._head = self._own(widgets.HTML(layout=wide))
        style = self._head.style
        self._table = self._own(make_clickable(widgets, live.weakly(self._press_in_table), layout=wide, style=style))
        self._is_clickable = is_clickable(self._table)
        self._detail_box = self._own(widgets.HTML(layout=wide, style=style))
        # Apart from what changes every second, so that what the user has unfolded stays so.
        self._more_box = self._own(widgets.HTML(layout=wide, style=style))
        self._said = self._own(widgets.HTML(layout=widgets.Layout(width="auto", flex="1 1 auto"), style=style))
        slim = widgets.Layout(width="auto", max_width="24em", flex="0 0 auto", margin="2px 1em 2px 0")
        like: dict[str, Any] = {"layout": slim, "style": {"description_width": "initial"}}

        def choice(name: str, first: str, chosen: Any, **changes: Any) -> Choice:
            def make(options: list[Option]) -> Any:
                model = self._own(widgets.Dropdown(description=name, options=options, **(like | changes)))
                model.observe(live.weakly(chosen), "value")
                return model

            return Choice(make, (first, ""))

        self._types = choice("Type", "all types", self._choose_type)
        statuses = [(status, status) for status in STATUSES]
        self._statuses = self._own(widgets.Dropdown(description="Status", options=statuses, **like))
        self._search = self._own(widgets.Text(description="Search", value="", continuous_update=False, **like))
        times = [(f"last {duration(seconds)}" if seconds else "any time", name) for name, seconds in WITHIN.items()]
        self._times = self._own(widgets.Dropdown(description="Changed", options=times, value="", **like))
        orders = [(label, name) for name, label in SORTS.items()]
        self._orders = self._own(widgets.Dropdown(description="Order", options=orders, value="", **like))
        # Where rows have buttons, one of these shows a task; it is still told which one that is.
        unseen = {"layout": widgets.Layout(display="none")} if self._is_clickable else {}
        self._tasks = choice("Task", "select one …", self._choose_task, **unseen)
        narrow = widgets.Layout(width="auto", flex="0 0 auto")
        self._back = self._own(widgets.Button(description="‹ Previous", layout=narrow))
        self._next = self._own(widgets.Button(description="Next ›", layout=narrow))
        self._buttons = self._make_buttons(widgets)
        self._statuses.observe(live.weakly(self._choose_status), "value")
        for model in (self._search, self._times, self._orders):
            model.observe(live.weakly(self._choose_others), "value")
        self._back.on_click(live.weakly(self._go_back))
        self._next.on_click(live.weakly(self._go_on))
        line = widgets.Layout(flex_flow="row wrap", width="100%", margin="0")
        models = [self._types.model, self._statuses, self._times, self._orders, self._search, self._back, self._next]
        self._filters = self._own(widgets.HBox(models, layout=line))
        self._chosen = self._own(widgets.HBox([self._tasks.model, self._button, self._said], layout=line))
        parts = [self._head, self._filters, self._table, self._chosen, self._detail_box, self._more_box]
        root = self._own(widgets.VBox(parts, layout=wide))
        browser.look_for(root)
        root.add_class("oq-queue")
        return root

    def _make_buttons(self, widgets: Any) -> TaskButton:
        hidden = widgets.Layout(width="auto", flex="0 0 auto", display="none")
        board = weakref.ref(self)

        def make(name: str) -> Any:
            return widgets.Button(description=name, layout=hidden)

        def find(task_id: str) -> TaskRecord | None:
            shown = board()
            return shown.record_of(task_id) if shown is not None else None

        return TaskButton(make, self._output, self._action, find)

    @property
    def _button(self) -> Any:
        return self._buttons.model

    def record_of(self, task_id: str) -> TaskRecord | None:
        """Return a task as it was last seen; None when it is not among those that are known."""
        detail, overview = self._detail.record, self.state
        if detail is not None and detail.id == task_id:
            return detail
        known = (*overview.live, *overview.ended, *overview.failures)
        return next((held.record for held in known if held.record.id == task_id), None)

    # --- callbacks: in the kernel's main thread, a subshell's, or (where this module sets options) the drawing one

    def _choose_type(self, change: Any) -> None:
        if not loop.is_current_thread:
            self._wanted = replace(self._wanted, task_type=change["new"], page=1)
            loop.wake()

    def _choose_status(self, change: Any) -> None:
        if change["new"] != self._wanted.status:  # else it says what was chosen by a button
            self._wanted = replace(self._wanted, status=change["new"], error="", page=1)
        loop.wake()

    def _choose_others(self, _change: Any) -> None:
        text, within, sort = self._search.value[:200], self._times.value, self._orders.value
        self._wanted = replace(self._wanted, text=text, within=within, sort=sort, error="", page=1)
        loop.wake()

    def _choose_task(self, change: Any) -> None:
        if not loop.is_current_thread:
            self._selected = change["new"] or ""
            loop.wake()

    def _go_back(self, _button: Any) -> None:
        self._wanted = replace(self._wanted, page=max(1, self._wanted.page - 1))
        loop.wake()

    def _go_on(self, _button: Any) -> None:
        self._wanted = replace(self._wanted, page=self._wanted.page + 1)
        loop.wake()

    def _press_in_table(self, press: Press) -> None:
        """Do what a button of the table said; called in the kernel's main thread or a subshell's."""
        ids = [task_id for task_id, _ in press.tasks]
        if press.action == "show":
            self._selected = ids[0] if ids else ""
            loop.wake()
        elif press.action in ("cancel", "cancel-selected"):
            self._several.cancel(ids)
        elif press.action in ("retry", "retry-selected"):
            self._several.replay(press.tasks)
        elif press.action == "show-group":
            self._wanted = replace(self._wanted, status=TaskStatus.FAILED.value, error=press.group, page=1)
            self._statuses.value = TaskStatus.FAILED.value
            loop.wake()
        elif press.action == "retry-group":
            self._retry_group(press)

    def _retry_group(self, press: Press) -> None:
        """Run failed tasks of one kind again: those that had failed when the button was drawn."""
        try:
            until = Timestamp.parse(press.until)
        except ValueError:
            return
        groups = failure_groups(known_of(self.state), TaskFilter(), self._store.clock.now())
        found = [record for group in groups if group.key == press.group for record in group.ended_by(until)]
        attempts = [(record.id, record.attempt) for record in found if not record.is_loop]
        if attempts:
            self._several.replay(attempts)
        else:
            self._several.say("Not done: none of these tasks is failed any more.")

    # --- life

    def _start(self) -> None:
        self._watch = self._watcher.overview(interval=self.interval, longest=_LONGEST_SECONDS, signal=loop)

    def _stop(self) -> None:
        if self._watch is not None:
            self._last = self._watch.state
            self._watch.close()

    def _draw(self) -> None:
        overview = self.state
        now = self._store.clock.now()
        again = live.stale_html("The tasks are not affected", "queue.widget()")
        self._head.value = str(_head_html(self._name, overview, now, is_live=True) + again)
        selection = self._select(overview)
        known = [self._store.live_progress.bring_up_to_date(record, now) for record in selection.records]
        selection = replace(selection, records=tuple(known))
        self._table.value = str(self._table_html(overview, selection, now))
        self._offer_types(overview)
        self._offer_tasks([*selection.records, *selection.newest_ended])
        self._draw_detail(overview, now)

    def _select(self, overview: Overview) -> Selection:
        """Return the page of tasks that is asked for, and set the buttons that turn pages."""
        wanted = self._wanted
        found = select_tasks(known_of(overview), wanted, rows=_ROWS, now=self._store.clock.now())
        self._back.disabled, self._next.disabled = found.page == 1, found.page == found.pages
        if found.page != wanted.page and self._wanted is wanted:
            self._wanted = replace(wanted, page=found.page)
        return found

    def _table_html(self, overview: Overview, selection: Selection, now: datetime) -> Markup:
        failures = EMPTY
        if self._wanted.status in (ALL, TaskStatus.FAILED.value):
            groups = failure_groups(known_of(overview), self._wanted, now)
            wants_all = self._wanted.status != ALL
            failures = groups_html(
                groups, now, wants_all=wants_all, is_clickable=self._is_clickable, is_one=bool(self._wanted.error)
            )
        tables = tables_html(
            selection,
            now,
            has_worker=lambda record: has_handler(overview.workers, record, now),
            message=self._several.message,
            groups=failures,
            is_clickable=self._is_clickable,
        )
        return markup.as_in_a_widget(tables)

    def _offer_types(self, overview: Overview) -> None:
        chosen = self._wanted.task_type
        if self._types.offer(type_options(known_of(overview), overview.workers, chosen), chosen):
            self._filters.children = (self._types.model, *self._filters.children[1:])

    def _offer_tasks(self, shown: Iterable[TaskRecord]) -> None:
        selected, record = self._selected, self._detail.record
        labels = {record.id: f"{printable(shorten(record.task_type, 40))} {record.id[:8]}" for record in shown}
        if selected and selected not in labels:
            name = printable(shorten(record.task_type, 40)) if record is not None else "task"
            labels[selected] = f"{name} {selected[:8]}"
        if self._tasks.offer(sorted((label, task_id) for task_id, label in labels.items()), selected):
            self._chosen.children = (self._tasks.model, *self._chosen.children[1:])

    def _draw_detail(self, overview: Overview, now: datetime) -> None:
        self._detail.select(self._selected, overview)
        detail, more = self._detail.html(now)
        self._detail_box.value, self._more_box.value = str(detail), str(more)
        record = self._detail.record
        is_late = kernel.cell.busy_seconds > live.BUSY_SECONDS
        if self._buttons.show(record if self._selected else None, is_late=is_late):
            self._chosen.children = (self._tasks.model, self._button, self._said)
        said = self._action.html(record)
        if is_late and record is not None and self._selected and not self._buttons.is_heard:
            said += self._late_note.html(record.id)
        self._said.value = str(said)

    def _frozen(self) -> live.Frozen:
        return partial(_frozen, self._name, self.state, self._store.clock.now())


def _frozen(name: str, overview: Overview, now: datetime) -> tuple[str, str]:
    return queue_html(name, overview, now), queue_text(name, overview)


def known_of(overview: Overview) -> Known:
    """Return what an overview knows of the queue's tasks."""
    return Known(
        live=[held.record for held in overview.live],
        ended=[held.record for held in overview.ended],
        failures=[held.record for held in overview.failures],
        unread=overview.unread,
        unread_failures=overview.unread_failures,
        ended_total=overview.ended_total,
    )


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
        for held in (*overview.live, *overview.ended, *overview.failures):
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
        loop.wake()

    def html(self, now: datetime) -> tuple[Markup, Markup]:
        """Return it, and its error, output and history."""
        with self._lock:
            task_id, versions, trouble = self._task_id, self._versions, self._trouble
        if not task_id:
            return EMPTY, EMPTY
        if not versions:
            return fill('<div role="status">{}</div>', quote(trouble) or "Reading …"), EMPTY
        record = versions[-1]
        more = markup.more_html(record) + history_svg(versions)
        state = status_view(record, now)
        last = view.last_report(versions)
        return markup.task_html(record, now, status=state, last_progress=last, is_live=True), more


def _name(queue: Queue) -> str:
    return repr(queue).strip("<>")


# --- without a widget


def _head_html(name: str, overview: Overview, now: datetime, *, is_live: bool) -> Markup:
    trouble = EMPTY
    if overview.trouble is not None:
        since = f" This is from {ago(overview.seen_at, now)}." if overview.seen_at is not None else ""
        trouble = fill(
            '<div role="status">⚠ The store cannot be reached and is tried again.{} ({})</div>',
            since,
            quote(overview.trouble, 500),
        )
    if overview.seen_at is None:
        return fill("<div><b>{}</b></div>{}", quote(name), trouble or fill("<div>Looking …</div>"))
    seen = f"as of {local_time(overview.seen_at, now if is_live else None)}"  # still true when nobody draws it any more
    return fill(
        '<div style="line-height:1.6"><b>{}</b> <span style="opacity:.75">{}</span></div>{}{}{}',
        quote(name),
        seen,
        trouble,
        markup.counts_html(
            overview.counts, overview.uncounted, unlisted=overview.unlisted, unreadable=overview.unreadable
        ),
        markup.workers_html(overview.workers, now, limit=_WORKERS),
    )


def queue_html(name: str, overview: Overview, now: datetime) -> Markup:
    """Return a queue as HTML that stands without a kernel.

    Args:
        name: of the queue.
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
        made += markup.tasks_html(
            ended, now, caption=f"Ended lately: {len(ended)} of {overview.ended_total:,}", is_live=False
        )
    return made


def queue_text(name: str, overview: Overview) -> str:
    """Return a queue in a line or two."""
    counts = ", ".join(f"{count:,} {status}" for status, count in overview.counts.items() if count)
    if overview.seen_at is None:
        return printable(name)
    besides = markup.not_in_counts(overview.uncounted, overview.unlisted, overview.unreadable)
    counts = f"{counts or 'none of a known status'} {besides}" if besides else counts
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
    hint = fill('<div style="opacity:.75"><code>queue.widget()</code> shows it live.</div>')
    name = _name(queue)
    html = as_text(queue_html(name, overview, queue.now()) + hint)
    return {"text/plain": queue_text(name, overview), "text/html": html}
