"""`Task`: a handle on a task, what was last seen of it and what can be done with it.

Imports of the package: `errors`, `model`, `store`, and this room; displays are drawn through `faces`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, overload

from oq_nb.errors import TaskCancelledError, TaskFailedError, TaskNotFoundError, brief_interrupts
from oq_nb.model import Progress, TaskRecord, TaskStatus
from oq_nb.queue import faces
from oq_nb.store import VersionedTask

if TYPE_CHECKING:
    from oq_nb.model.logs import LogLine
    from oq_nb.queue.faces import TaskWidget
    from oq_nb.queue.logs import TaskLogs
    from oq_nb.queue.queue import Queue

__all__ = ["Task"]


class Task:
    """A handle on a task: what was last seen of it, and what can be done with it.

    Args:
        queue: where it is.
        snapshot: what was last seen.
    """

    def __init__(self, queue: Queue, snapshot: VersionedTask) -> None:
        self.queue = queue
        self._snapshot = snapshot
        self._widget: TaskWidget | None = None

    def __repr__(self) -> str:
        return f"<Task {faces.task_line(self)}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and other.id == self.id and other.queue is self.queue

    def __hash__(self) -> int:
        return hash(self.id)

    # --- the last snapshot

    @property
    def snapshot(self) -> VersionedTask:
        """The record that was last seen, with its ETag."""
        return self._snapshot

    def adopt(self, snapshot: VersionedTask) -> None:
        """Take over what was just read or written of this task, unless it is older than `snapshot`."""
        if snapshot.record.supersedes(self._snapshot.record):
            self._snapshot = snapshot

    @property
    def record(self) -> TaskRecord:
        """Everything that was last seen, as it stands in the bucket."""
        return self._snapshot.record

    @property
    def id(self) -> str:
        """The task's id."""
        return self.record.id

    @property
    def task_type(self) -> str:
        """Which handler runs it."""
        return self.record.task_type

    @property
    def status(self) -> TaskStatus:
        """Where it is in its life."""
        return self.record.status

    @property
    def progress(self) -> Progress | None:
        """What it last said of itself; None before its first report and after its end."""
        return self.record.progress

    @property
    def attempt(self) -> int:
        """How often it was claimed."""
        return self.record.attempt

    @property
    def worker_id(self) -> str | None:
        """Who runs it."""
        return self.record.worker_id

    @property
    def last_error(self) -> str | None:
        """Why it failed, is tried again, or was cancelled."""
        return self.record.last_error

    @property
    def is_done(self) -> bool:
        """Whether it has ended."""
        return self.status.is_terminal

    @property
    def input(self) -> Any:
        """What its handler is given. Requests: 1 GET when it is held apart."""
        return self.queue.store.payloads.load(self.record, "input")

    @property
    def output(self) -> Any:
        """What its handler returned; None before. Requests: 1 GET when it is held apart."""
        return self.queue.store.payloads.load(self.record, "output")

    # --- doing

    def refresh(self) -> Task:
        """Read it again; return this handle. Requests: 1 GET, If-None-Match.

        Raises:
            TaskNotFoundError: it is gone from the bucket.
        """
        snapshot = self.queue.store.read_again(self._snapshot)
        if snapshot is None:
            raise TaskNotFoundError(f"task {self.id} is gone from the bucket", task_id=self.id)
        self._snapshot = snapshot
        return self

    def wait(self, timeout: float | None = None, *, progress: bool = False) -> Task:
        """Wait until it has ended, however it ended; return this handle. A store that is away is waited for.

        Args:
            timeout: seconds; None to wait for ever.
            progress: show a bar meanwhile.

        Raises:
            WaitTimeoutError: it has not ended in time.
            TaskNotFoundError: it is gone from the bucket.
            StorageDeniedError: it may not be read.

        Requests: 1 GET, If-None-Match, after 5 % of the time waited, at least 10 ms and at most 2.2 s: about 20 for a
        task of 0.2 s, 50 for one of a second, 100 for 10 s, 1,750 for an hour; see `oq_nb.wait` for several.
        """
        from oq_nb.queue.waiting import wait_for

        with brief_interrupts():
            wait_for(self, timeout, progress=progress)
        return self

    def result(self, timeout: float | None = None) -> Any:
        """Wait until it has ended; return its output, as the type that its function's annotation says.

        The function is looked for in this process, see `Queue.task`; without one the output is plain JSON.

        Args:
            timeout: seconds; None to wait for ever.

        Raises:
            TaskFailedError: it failed, or expired before a worker took it; with its handler's traceback.
            TaskCancelledError: it was cancelled.
            WaitTimeoutError: it has not ended in time.
        """
        self.wait(timeout)
        if self.status is TaskStatus.CANCELLED:
            why = f": {self.last_error}" if self.last_error else ""
            raise TaskCancelledError(f"task {self.id} was cancelled{why}", task_id=self.id)
        # An archived task no longer says how it ended: one that failed has an error, one that completed has none.
        archived_failure = self.status is TaskStatus.ARCHIVED and self.last_error is not None
        if self.status in (TaskStatus.FAILED, TaskStatus.EXPIRED) or archived_failure:
            first = (self.last_error or "no worker took it in time").strip().splitlines()[0]
            raise TaskFailedError(f"task {self.id} {self.status}: {first}", task_id=self.id, last_error=self.last_error)
        function = self.queue.functions.get(self.task_type)
        return self.output if function is None else function.signature.decode_result(self.output)

    def cancel(self, reason: str | None = None) -> Task:
        """Cancel it when pending, ask it to stop when running; return this handle. Requests: see `Queue.cancel`."""
        self._snapshot = self.queue.cancel(self.id, reason).snapshot
        return self

    def replay(self) -> Task:
        """Run it again after it has ended; return this handle. Requests: see `Queue.replay`."""
        self._snapshot = self.queue.replay(self.id).snapshot
        return self

    retry = replay

    def history(self, *, limit: int | None = None) -> list[TaskRecord]:
        """Return its versions, oldest first. Requests: see `Queue.get_history`."""
        return self.queue.get_history(self.id, limit=limit)

    @overload
    def logs(
        self, attempt: int | None = None, *, last: int | None = None, follow: Literal[False] = False
    ) -> TaskLogs: ...
    @overload
    def logs(
        self,
        attempt: int | None = None,
        *,
        last: int | None = None,
        follow: Literal[True],
        interval: float = 2.0,
    ) -> Iterator[LogLine]: ...
    def logs(
        self,
        attempt: int | None = None,
        *,
        last: int | None = None,
        follow: bool = False,
        interval: float = 2.0,
    ) -> TaskLogs | Iterator[LogLine]:
        """Return what its handler has printed and logged, where its worker keeps that: ``Worker(logs=True)``.

        It is untrusted text: control characters are made visible; the colours of a terminal stay.

        Args:
            attempt: which attempt's, from 1; None for the present one, or the last.
            last: only so many lines, the newest; None for all that is kept.
            follow: return an iterator that waits for further lines until the task's end; without ``attempt`` it goes on
                with the attempts that follow. A store that does not answer is tried again.
            interval: seconds between two looks with ``follow``.

        Returns:
            A sequence of lines with ``time``, ``stream`` (``out``, ``err``, ``log``; ``gap`` where something was left
            out) and ``text``; ``str()`` gives the text. With ``follow`` an iterator of such lines.

        Raises:
            ConfigurationError: an argument is not usable.
            TaskNotFoundError: it is gone from the bucket.
            StorageError: the store does not answer.

        Requests: 1 GET, 1 LIST per 1,000 pieces and 1 GET each; with ``last`` the newest pieces only. With ``follow``
        2 GET per look, and 1 more for each new piece; now and then 1 LIST.
        """
        from oq_nb.queue import logs

        if follow:
            return logs.follow_logs(self, attempt, last, interval)
        return logs.read_logs(self, attempt, last)

    # --- its numbers

    def series(self, *, full: bool = False) -> Any:
        """Return its numbers over time: position, rate, and each metric that it reported.

        What was last seen of it is used: `refresh` first for what is new. A task that has ended keeps its last series.

        Args:
            full: every report of all attempts that the bucket still has, instead of the series of 60 points.

        Returns:
            A pandas frame with the time (UTC) as its index; where pandas is not installed, a dict of lists.

        Requests: none; with ``full`` 1 LIST per 1,000 versions, 1 GET each.
        """
        return faces.task_series(self, self.history() if full else None)

    def plot(self, *, full: bool = False) -> Any:
        """Return a matplotlib figure of its numbers over local time: position, rate, and each metric.

        A notebook shows it; ``task.plot().savefig("run.png")`` keeps it.

        Args:
            full: as for `series`.

        Raises:
            ConfigurationError: matplotlib is not installed: ``pip install 'oq-nb[plot]'``.

        Requests: as `series`.
        """
        return faces.task_plot(self, self.history() if full else None)

    # --- showing

    def widget(self, interval: float = 1.0) -> TaskWidget:
        """Return a live display of it for a notebook; the same one each time: it can be shown in several places.

        Args:
            interval: seconds between two reads while it changes; above 0.

        Requests: none before it is shown; then as `Watcher.watch` says, and none after the task's end.
        """
        if self._widget is None or self._widget.is_finished or self._widget.interval != interval:
            self._widget = faces.task_widget(self, interval)
        return self._widget

    def _ipython_display_(self) -> None:
        faces.display_task(self)

    def _repr_html_(self) -> str:
        return faces.task_html(self)
