"""``oq status --watch`` and ``oq tail``: drawn over in place on a terminal, a line per change elsewhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from datetime import datetime
from typing import TYPE_CHECKING

from oq_nb import model
from oq_nb.cli.output import complain, is_screen, name_of, note, say, say_json
from oq_nb.display import times, view
from oq_nb.display.states import has_run_out
from oq_nb.errors import StorageDeniedError, StorageError
from oq_nb.queue.changes import ChangeFeed
from oq_nb.text import ago, counted, duration, local_time, printable, shorten

if TYPE_CHECKING:
    from oq_nb.model import TaskRecord
    from oq_nb.queue import Queue
    from oq_nb.queue.task import Task

__all__ = ["StatusLines", "change_line", "tail", "watch"]

_MESSAGE_CHARS = 200
_OUTPUT_CHARS = 500
_LONG = ("Attempt: ", "Note: ", "Reason: ", "Error: ")
_SECONDS_PER_TASK = 0.0005  # that `oq tail` waits: a listing has 1,000


def change_line(record: TaskRecord, now: datetime) -> str:
    """Return a task in one line, with when it last changed and its whole id."""
    said = view.task_line(record, now).replace(f" {record.id[:8]} ", " ", 1)
    return f"{record.updated_at:%Y-%m-%dT%H:%M:%SZ}  {record.id}  {said}"


class StatusLines:
    """The lines of ``oq status``; for a pending task they say whether there is a worker for it.

    Args:
        task: which.

    Requests: while it is pending 1 LIST and 1 GET for each heartbeat, every five seconds at most.
    """

    def __init__(self, task: Task) -> None:
        from oq_nb.queue.poller import TaskPoller

        self._task = task
        self._poller = TaskPoller(task.queue.store)

    def now(self, warning: str = "") -> list[str]:
        """Return the lines of the task as last seen, and the warning; there is one when the store does not answer."""
        record = self._task.record
        if record.status.value == "pending" and not warning:
            with contextlib.suppress(StorageError):  # the register may be closed to whoever looks
                self._poller.refresh(workers=True)
        has_worker = self._poller.has_worker_for(record)
        now = self._task.queue.now()
        lines = view.status_lines(record, now, has_worker=has_worker)
        # Before what may have many lines.
        place = next((i for i, line in enumerate(lines) if line.startswith(_LONG)), len(lines))
        lines[place:place] = _times(record, now)
        return [*lines, *_output(record), *([warning] if warning else [])]


def _times(record: TaskRecord, now: datetime) -> list[str]:
    """Return when the task started and ended, how long it waited and ran, as far as it says so."""
    started_at, ended_at = record.started_at, record.ended_at
    lines: list[str] = []
    if started_at is not None and ended_at is None and record.status.value == "running":
        parts = [local_time(started_at, now), f"running for {duration((now - started_at).total_seconds())}"]
        waited = times.waited_seconds(record)
        parts += [f"waited {times.seconds_text(waited)}"] if waited is not None and waited >= 1 else []
        lines.append(f"Started: {', '.join(parts)}")
    if ended_at is not None:
        if started_at is not None:
            lines.append(f"Started: {local_time(started_at, now)}")
        lines.append(f"Ended: {local_time(ended_at, now)}, {ago(ended_at, now)}")
        line = times.end_line(record).removeprefix("took ")
        lines += [f"Took: {line}"] if line and started_at is not None else []
    return lines


def _output(record: TaskRecord) -> list[str]:
    """Return the output of a completed task, cut when it is long."""
    if record.output_ref is not None:
        return [f"Output: large, oq result {record.id[:8]} prints it"]
    if record.output is None:
        return []
    made = json.dumps(record.output, ensure_ascii=False)
    if len(made) <= _OUTPUT_CHARS:
        return [f"Output: {printable(made)}"]
    return [f"Output: {printable(shorten(made, _OUTPUT_CHARS))} (oq result {record.id[:8]} prints all of it)"]


def watch(task: Task, interval: float, *, as_json: bool) -> None:
    """Show a task until it has ended. A store that stops answering is tried again.

    Args:
        task: what to show.
        interval: seconds between two looks.
        as_json: print the task object whenever it has changed.
    """
    if as_json or not is_screen():
        _print_changes(task, interval, as_json=as_json)
    else:
        _redraw(task, interval)


def _print_changes(task: Task, interval: float, *, as_json: bool) -> None:
    shown: tuple[bytes, bool] | None = None
    is_out = False
    while True:
        is_lost = not as_json and has_run_out(task.record, task.queue.now())  # nobody writes that down
        version = (task.record.to_bytes(), is_lost)
        if version != shown:
            shown = version
            if as_json:
                say_json(task.record.to_dict())
            else:
                say(change_line(task.record, task.queue.now()))
        if task.is_done:
            return
        time.sleep(interval)
        try:
            task.refresh()
            is_out = False
        except StorageDeniedError:
            raise
        except StorageError as exc:
            if not is_out:
                complain(f"{exc}; trying on")
            is_out = True


def _redraw(task: Task, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    status = StatusLines(task)

    lines: list[str] = []

    def drawn(warning: str = "") -> Text:
        lines[:] = status.now(warning)
        room = max(2, shutil.get_terminal_size().lines - 1)
        return Text("\n".join(lines[:room]), no_wrap=True, overflow="ellipsis")

    # Not as a context manager: a Ctrl-C in the middle of its beginning would leave the cursor hidden.
    live = Live(drawn(), auto_refresh=False, console=Console(highlight=False), transient=True)
    try:
        live.start(refresh=True)
        while not task.is_done:
            time.sleep(interval)
            warning = ""
            try:
                task.refresh()
            except StorageDeniedError:
                raise
            except StorageError as exc:
                warning = f"Store: does not answer, trying on ({shorten(printable(str(exc)), _MESSAGE_CHARS)})"
            live.update(drawn(warning), refresh=True)
    finally:  # what was seen last stays on the screen, after Ctrl-C too
        live.stop()
        say("\n".join(lines))


def tail(queue: Queue, interval: float, *, task_type: str | None, as_json: bool) -> None:
    """Print a line for every task that changes, until Ctrl-C. A store that stops answering is tried again.

    Args:
        queue: whose tasks.
        interval: seconds between two looks at least; half a second more for each 1,000 tasks that are listed.
        task_type: only these.
        as_json: print task objects instead.
    """
    feed = ChangeFeed(queue.store)
    say_start(queue)
    is_out = False
    while True:
        time.sleep(max(interval, feed.count * _SECONDS_PER_TASK))
        try:
            changed = feed.read()
            is_out = False
        except StorageDeniedError:
            raise
        except StorageError as exc:
            if not is_out:
                complain(f"{exc}; trying on")
            is_out = True
            continue
        for held in changed:
            if task_type not in (None, held.record.task_type):
                continue
            if as_json:
                say_json(held.record.to_dict())
            else:
                say(change_line(held.record, queue.now()))


def say_start(queue: Queue) -> None:
    """Say on stderr what is being looked at. Requests: 2 LIST."""
    entries = (entry for prefix in (model.READY, model.LEASES) for entry in queue.store.objects.entries(prefix))
    live = len({parsed[2] for entry in entries if (parsed := model.parse_index_key(entry.key)) is not None})
    note(f"{name_of(queue)}: {counted(live, 'task')} pending or running; Ctrl-C ends this")
