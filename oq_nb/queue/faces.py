"""Displays of queues and tasks: the only module that imports upwards, and only when something is shown.

`Queue` and `Task` have conveniences that the rooms above draw: widgets, HTML, the web page, the bar of `wait`. They all
go through here, so that the rest of the room needs no import from above, and `import oq_nb` loads none of it.

The imports inside these functions are named in the configuration of import-linter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from oq_nb.model import Progress, TaskRecord

if TYPE_CHECKING:
    from datetime import datetime

    from oq_nb.display.queue_widget import QueueWidget as QueueWidget
    from oq_nb.display.task_widget import TaskWidget as TaskWidget
    from oq_nb.display.timeline import Timeline as Timeline
    from oq_nb.display.wait_bar import TaskGroupDisplay as TaskGroupDisplay
    from oq_nb.queue.logs import TaskLogs
    from oq_nb.queue.queue import Queue
    from oq_nb.queue.task import Task
    from oq_nb.web.server import PageServer as PageServer
    from oq_nb.worker import Worker as Worker

__all__ = [
    "ProgressBar",
    "display_task",
    "group_bar",
    "group_display",
    "logs_html",
    "queue_bundle",
    "queue_widget",
    "register_formatters",
    "serve_page",
    "start_worker",
    "task_bar",
    "task_html",
    "task_line",
    "task_plot",
    "task_series",
    "task_widget",
    "timeline",
]


class ProgressBar(Protocol):
    """What is shown while somebody waits."""

    def show(self) -> None:
        """Show how far it is now."""

    def close(self) -> None:
        """Show the last state, and no more."""


def register_formatters(shell: Any) -> None:
    """Have IPython show a `Progress` as a bar.

    Args:
        shell: the running `InteractiveShell`.
    """

    def draw(progress: Progress) -> str:
        from oq_nb.display import markup, safe

        return safe.as_text(markup.progress_html(progress))

    shell.display_formatter.formatters["text/html"].for_type(Progress, draw)


def task_line(task: Task) -> str:
    """Return a task in one line."""
    from oq_nb.display import view

    return view.task_line(task.record, task.queue.now())


def task_html(task: Task) -> str:
    """Return a task as static HTML."""
    from oq_nb.display import markup, safe

    return safe.as_text(markup.task_html(task.record, task.queue.now()) + markup.more_html(task.record))


def logs_html(logs: TaskLogs) -> str:
    """Return a task's log as static HTML."""
    from datetime import datetime, timezone

    from oq_nb.display.log_html import log_html
    from oq_nb.display.safe import as_text

    now = datetime.now(timezone.utc)
    return as_text(log_html(logs.lines, now, attempt=logs.attempt, is_end=logs.is_end))


def task_series(task: Task, versions: Sequence[TaskRecord] | None) -> Any:
    """Return a task's numbers over time as a frame, of its series or, where they are given, of its versions."""
    from oq_nb.display import numbers

    return numbers.frame_of(_table(task, versions))


def task_plot(task: Task, versions: Sequence[TaskRecord] | None) -> Any:
    """Return a task's numbers over time as a figure; for the arguments see `task_series`."""
    from oq_nb.display import numbers

    return numbers.figure_of(_table(task, versions), f"{task.task_type} {task.id[:8]}")


def _table(task: Task, versions: Sequence[TaskRecord] | None) -> dict[str, list[Any]]:
    from oq_nb.display import numbers

    return numbers.table_of(task.record) if versions is None else numbers.table_of_history(versions)


def timeline(records: Iterable[TaskRecord], now: datetime, *, seconds: float, is_partial: bool) -> Timeline:
    """Return what ran lately; see `oq_nb.display.timeline.timeline_of`."""
    from oq_nb.display.timeline import timeline_of

    return timeline_of(records, now, seconds=seconds, is_partial=is_partial)


def display_task(task: Task) -> None:
    """Show a task in a notebook's cell: its widget, or static HTML once it has ended."""
    if task.is_done:
        from oq_nb.display.kernel import show_static

        show_static(task_html(task), task_line(task))
    else:
        task.widget().display()


def task_widget(task: Task, interval: float) -> TaskWidget:
    """Return a new live display of a task."""
    from oq_nb.display.task_widget import TaskWidget

    return TaskWidget(task, interval)


def queue_widget(queue: Queue, interval: float) -> QueueWidget:
    """Return a new live display of a queue."""
    from oq_nb.display.queue_widget import QueueWidget

    return QueueWidget(queue, interval)


def queue_bundle(queue: Queue) -> dict[str, str]:
    """Return a queue as text and HTML. Requests: one refresh of the overview, of two seconds at most."""
    from oq_nb.display.queue_widget import queue_bundle

    return queue_bundle(queue)


def serve_page(queue: Queue, port: int, *, interval: float, allow_hosts: str | tuple[str, ...]) -> PageServer:
    """Start the web page of a queue."""
    from oq_nb.web import serve

    return serve(queue, port, interval=interval, allow_hosts=allow_hosts)


def start_worker(queue: Queue, functions: Iterable[Any], **options: Any) -> Worker:
    """Start this kernel's worker of a queue; see `oq_nb.worker.kernel_worker`."""
    from oq_nb.worker.kernel_worker import start_worker

    return start_worker(queue, functions, **options)


def group_display(tasks: Sequence[Task]) -> TaskGroupDisplay:
    """Return a new live bar of a group of tasks, which nobody needs to wait for."""
    from oq_nb.display.wait_bar import TaskGroupDisplay

    return TaskGroupDisplay(tasks)


def group_bar(count: Callable[[], Mapping[str, int]], total: int) -> ProgressBar:
    """Return a bar for a group of tasks; see `oq_nb.display.wait_bar.group_bar`."""
    from oq_nb.display.wait_bar import group_bar

    return group_bar(count, total)


def task_bar(task: Task) -> ProgressBar:
    """Return a bar for one task; see `oq_nb.display.wait_bar.task_bar`."""
    from oq_nb.display.wait_bar import task_bar

    return task_bar(task)
