"""The bars of those who wait: in a notebook a live display, or the task's own widget; a tqdm bar in a terminal.

Both are shown and moved in the thread that waits. A group that nobody waits for is watched: see `Watcher.watch_many`.

Imports of the package: `model`, `text`, `view`, `markup`, `browser`, `live`; tqdm when a bar is shown in a terminal.
"""

from __future__ import annotations

import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from oq_nb.display import live, markup, view
from oq_nb.display.browser import browser
from oq_nb.display.kernel import in_kernel
from oq_nb.display.render_loop import loop
from oq_nb.display.states import status_view
from oq_nb.model import TaskStatus
from oq_nb.text import printable, shorten

if TYPE_CHECKING:
    from oq_nb.queue.faces import ProgressBar
    from oq_nb.queue.task import Task
    from oq_nb.queue.watcher import TaskWatch

__all__ = ["GroupDisplay", "TaskGroupDisplay", "group_bar", "task_bar"]

logger: logging.Logger = logging.getLogger("oq_nb.widget")

_INTERVAL_SECONDS = 1.0  # between two looks at a group that nobody waits for


def group_bar(count: Callable[[], Mapping[str, int]], total: int) -> ProgressBar:
    """Return a bar for a group of tasks.

    Args:
        count: counts its tasks by status; ``deleted`` for those that are gone. A bound method.
        total: tasks of the group.
    """
    return GroupDisplay(count, total) if in_kernel() else _GroupLine(count, total)


def task_bar(task: Task) -> ProgressBar:
    """Return a bar for one task."""
    return _TaskDisplay(task) if in_kernel() else _TaskLine(task)


# --- in a notebook


def _display(shown: live.LiveDisplay) -> None:
    """Show it; where that fails, as in a thread that no cell belongs to, what is waited for matters more."""
    try:
        shown.display()
    except Exception:
        logger.warning("the bar cannot be shown", exc_info=True)


class GroupDisplay(live.LiveDisplay):
    """A bar for a group of tasks, refreshed from the thread that draws widgets; plain HTML in the end.

    Args:
        count: counts the tasks by status; its object is referred to weakly.
        total: tasks of the group.
    """

    def __init__(self, count: Callable[[], Mapping[str, int]], total: int) -> None:
        super().__init__(closing_note="")
        self._count = weakref.WeakMethod(count)
        self._total = total
        self._began_at = time.monotonic()
        self._counts: Mapping[str, int] = {}
        self._is_shown = False

    def show(self) -> None:
        """Show it when it is not; it refreshes itself."""
        if not self._is_shown:
            self._is_shown = True
            _display(self)

    def close(self) -> None:
        """Show the last state, and no more."""
        self._read()
        super().close()

    def _read(self) -> None:
        count = self._count()
        if count is not None and not self.is_finished:
            self._counts = count()

    def _build(self, widgets: Any) -> Any:
        self._main = self._own(widgets.HTML(layout=widgets.Layout(width="100%", max_width="48em", margin="0")))
        browser.look_for(self._main)
        self._main.add_class("oq-task")
        return self._main

    def _start(self) -> None:
        """Its tasks are watched by who waits."""

    def _stop(self) -> None:
        """They still are."""

    def _draw(self) -> None:
        self._read()
        self._main.value = str(self._html())

    def _html(self) -> Markup:
        return markup.group_html(self._counts, self._total, time.monotonic() - self._began_at)

    def _frozen(self) -> live.Frozen:
        return partial(_frozen, self._counts, self._total, time.monotonic() - self._began_at)


def _frozen(counts: Mapping[str, int], total: int, seconds: float) -> tuple[str, str]:
    return markup.group_html(counts, total, seconds), view.group_line(counts, total, seconds)[1]


class TaskGroupDisplay(GroupDisplay):
    """A bar for a group of tasks that nobody waits for: it watches them by itself until all have ended.

    Args:
        tasks: the group; their handles are brought up to date.
    """

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__(self._count_tasks, len(tasks))
        self._tasks = list(tasks)
        self._watches: list[TaskWatch] = []
        self._read()

    def _count_tasks(self) -> Counter[str]:
        gone = {watch.state.task_id for watch in self._watches if watch.state.is_gone}
        for watch, task in zip(self._watches, self._tasks, strict=False):
            if watch.state.held is not None:
                task.adopt(watch.state.held)
        return Counter("deleted" if task.id in gone else task.status.value for task in self._tasks)

    def _start(self) -> None:
        if self._tasks:
            watcher = self._tasks[0].queue.watcher
            self._watches = watcher.watch_many(self._tasks, interval=_INTERVAL_SECONDS, signal=loop)

    def _stop(self) -> None:
        for watch in self._watches:
            watch.close()

    def _draw(self) -> None:
        super()._draw()
        if not self._counts.get("pending") and not self._counts.get("running"):
            self._finish()


class _TaskDisplay:
    """The task's own widget; it stays when the waiting is over."""

    def __init__(self, task: Task) -> None:
        self._task: Task | None = task

    def show(self) -> None:
        if self._task is not None:
            _display(self._task.widget())
            self._task = None

    def close(self) -> None:
        """The widget ends with its task."""


# --- in a terminal


class _GroupLine:
    """One tqdm bar for a group of tasks."""

    def __init__(self, count: Callable[[], Mapping[str, int]], total: int) -> None:
        from tqdm.std import tqdm

        self._bar = tqdm(total=total, desc="tasks", unit="task", disable=None, leave=True)
        self._count = count
        self._shown: tuple[int, str] | None = None

    def show(self) -> None:
        counts = Counter(self._count())
        names = ("running", "failed", "expired", "cancelled", "deleted")
        text = ", ".join(f"{counts[name]} {name}" for name in names if counts[name])
        done = sum(counts.values()) - counts["running"] - counts["pending"]
        if (done, text) != self._shown:
            self._shown = (done, text)
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.n = done
            self._bar.refresh()

    def close(self) -> None:
        self._bar.close()


class _TaskLine:
    """A tqdm bar for one task: its percentage and its message."""

    def __init__(self, task: Task) -> None:
        from tqdm.std import tqdm

        name = f"{printable(shorten(task.task_type, 40))} {task.id[:8]}"
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}{postfix}"
        self._bar = tqdm(total=100, desc=name, bar_format=form, disable=None, leave=True)
        self._task = task
        self._shown: tuple[float, str] | None = None
        self._attempt = 0

    def show(self) -> None:
        task, progress = self._task, self._task.record.last_progress
        goes_on = task.status is TaskStatus.RUNNING and task.attempt == self._attempt
        percent: float = self._bar.n if goes_on else 0  # a report may have a message only
        self._attempt = task.attempt
        if task.record.is_whole:
            percent = 100
        elif progress is not None and progress.percent is not None:
            percent = progress.percent
        message = printable(shorten(progress.message, 60)) if progress is not None and progress.message else ""
        state = status_view(task.record, task.queue.now()).text
        text = f"{state}, {message}" if message else state
        if (percent, text) != self._shown:
            self._shown = (percent, text)
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.n = percent
            self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
