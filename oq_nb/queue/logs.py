"""Read what a task's handlers have printed: `read_logs`, `follow_logs`, and `LogTail` for what shows the end of it.

Invariants:

* A piece that is there is read once. While nothing is new, a look takes 1 GET; a LIST only to begin, and now and then
  to find a log that has run ahead.
* A log ends with its task: what follows it looks once more after it has seen the end.

Imports of the package: `ansi`, `errors`, `model`, `store`; and of this room `task` as a type.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, overload

from oq_nb import ansi
from oq_nb.errors import ConfigurationError, StorageDeniedError, StorageError, brief_interrupts
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.model.logs import LogLine, LogParser
from oq_nb.queue import faces
from oq_nb.store import LogPieces

if TYPE_CHECKING:
    from oq_nb.queue.task import Task

__all__ = ["LogReader", "LogTail", "TaskLogs", "follow_logs", "read_logs"]

_EMPTY_LOOKS = 15  # with 1 GET each, until a LIST is made again
_FIRST_PAGE = 20
_TRIES_SECONDS = 5.0  # between two looks while the store does not answer


@dataclass(frozen=True)
class TaskLogs(Sequence[LogLine]):
    """The lines of a task's log, as they were read. ``print`` shows them as text, a notebook with their colours."""

    task_id: str
    #: Whose log it is; 0 for a task that no worker has begun.
    attempt: int
    lines: tuple[LogLine, ...]
    #: Only the last lines were asked for.
    is_end: bool = False

    @overload
    def __getitem__(self, index: int) -> LogLine: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LogLine, ...]: ...
    def __getitem__(self, index: int | slice) -> LogLine | tuple[LogLine, ...]:
        return self.lines[index]

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[LogLine]:
        return iter(self.lines)

    def __str__(self) -> str:
        """Return the lines as text; colours of a terminal stay in it (see `text`)."""
        return "\n".join(map(str, self.lines))

    @property
    def text(self) -> str:
        """The lines as text without colours."""
        return "\n".join(ansi.plain(line.text) for line in self.lines)

    def __repr__(self) -> str:
        which = "the last " if self.is_end else ""
        count = f"{which}{len(self.lines):,} line{'' if len(self.lines) == 1 else 's'}"
        return f"<TaskLogs of task {self.task_id[:8]}, attempt {self.attempt}: {count}>"

    def _repr_html_(self) -> str:
        return faces.logs_html(self)


class LogReader:
    """Reads the log of one attempt, and later what has come since. For one thread at a time.

    Args:
        pieces: the logs of the bucket.
        task_id: the task.
        attempt: its number, from 1.
        last: begin so many lines before the end; None for the beginning.
    """

    def __init__(self, pieces: LogPieces, task_id: str, attempt: int, *, last: int | None = None) -> None:
        self._pieces, self._task_id = pieces, task_id
        self.attempt = attempt
        self._last = last
        self._parser = LogParser()
        self._next: int | None = None  # number of the next piece; None before the first was seen
        self._empty_looks = 0

    def read(self) -> list[LogLine]:
        """Return the lines that are new.

        Raises:
            StorageError: the store does not answer; what was read before is not read again.

        Requests: the first time 1 LIST per 1,000 pieces and 1 GET each (with ``last`` 1 LIST, and a GET for each of the
        newest pieces that so many lines take); then 1 GET, and 1 more for each new piece; each 15th time without a new
        one 1 LIST.
        """
        if self._next is None:
            return self._read_first()
        lines = self._read_on()
        if lines:
            self._empty_looks = 0
            return lines
        self._empty_looks += 1
        if self._empty_looks % _EMPTY_LOOKS:
            return []
        ahead = list(islice(self._pieces.numbers(self._task_id, self.attempt, page_size=_FIRST_PAGE), _FIRST_PAGE))
        ahead = [number for number in ahead if number > self._next]
        if ahead:  # the pieces in between have made room for newer ones
            self._next = min(ahead)
        return self._read_on() if ahead else []

    def _read_first(self) -> list[LogLine]:
        if self._last is None:
            numbers = sorted(self._pieces.numbers(self._task_id, self.attempt))
            bodies = self._pieces.read_many(self._task_id, self.attempt, numbers)
        else:
            numbers, bodies = self._read_end(self._last)
        if not numbers:
            return []
        lines = [line for body in bodies for line in self._parser.lines(body)]
        self._next = max(numbers) + 1
        return lines if self._last is None else lines[max(0, len(lines) - self._last) :]

    def _read_end(self, count: int) -> tuple[list[int], list[bytes]]:
        """Return the newest pieces, oldest first, that have so many lines; twice as many at a time as before."""
        known = self._pieces.numbers(self._task_id, self.attempt, page_size=_FIRST_PAGE)
        numbers: list[int] = []
        bodies: list[bytes] = []
        while sum(body.count(b'\n{"t"') for body in bodies) < count:
            more = list(islice(known, max(1, len(numbers))))
            if not more:
                return numbers, bodies
            numbers += more
            bodies[:0] = self._pieces.read_many(self._task_id, self.attempt, more[::-1])
        self._parser.skip_to_next()
        return numbers, bodies

    def _read_on(self) -> list[LogLine]:
        assert self._next is not None
        lines: list[LogLine] = []
        try:
            while (body := self._read(self._next)) is not None:
                self._next += 1
                lines += self._parser.lines(body)
        except StorageError:
            if not lines:  # else the next look says so
                raise
        return lines

    def _read(self, number: int) -> bytes | None:
        return self._pieces.read(self._task_id, self.attempt, number)


def check_arguments(attempt: int | None, last: int | None) -> None:
    """Refuse what cannot be asked for.

    Raises:
        ConfigurationError: an argument is not usable.
    """
    for name, value in (("attempt", attempt), ("last", last)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ConfigurationError(f"{name}: a whole number from 1 is needed, not {value!r}"[:200])


def read_logs(task: Task, attempt: int | None, last: int | None) -> TaskLogs:
    """Return the log of a task as it is now; see `oq_nb.Task.logs`."""
    check_arguments(attempt, last)
    if attempt is None and not task.is_done:
        task.refresh()
    which = task.attempt if attempt is None else attempt
    if which < 1:
        return TaskLogs(task.id, 0, ())
    lines = LogReader(task.queue.store.logs, task.id, which, last=last).read()
    return TaskLogs(task.id, which, tuple(lines), last is not None)


def follow_logs(
    task: Task,
    attempt: int | None,
    last: int | None,
    interval: float,
    *,
    on_trouble: Callable[[StorageError], object] = lambda _: None,
) -> Iterator[LogLine]:
    """Yield the lines of a task's log as they come, until its end; see `oq_nb.Task.logs`.

    Args:
        task: which.
        attempt: the log of this attempt only; None for the present one and those that follow.
        last: begin so many lines before the end; None for the beginning.
        interval: seconds between two looks.
        on_trouble: called when the store stops answering; it is tried again.
    """
    check_arguments(attempt, last)
    reader: LogReader | None = None
    is_out = False
    while True:
        is_over = False
        try:
            if not task.is_done:
                task.refresh()
            is_over = _is_over(task.record, attempt)
            which = task.attempt if attempt is None else attempt
            while reader is None or reader.attempt < which:
                if reader is not None:
                    yield from reader.read()
                    last = None
                reader = LogReader(task.queue.store.logs, task.id, which, last=last)
            if which:
                yield from reader.read()
            is_out = False
        except StorageDeniedError:
            raise
        except StorageError as exc:
            if not is_out:
                on_trouble(exc)
            is_out, is_over = True, False
        if is_over:
            return
        with brief_interrupts():
            time.sleep(max(interval, _TRIES_SECONDS) if is_out else interval)


def _is_over(record: TaskRecord, attempt: int | None) -> bool:
    """Return whether nothing more is to come."""
    if record.status.is_terminal:
        return True
    if attempt is None:
        return False
    return record.attempt > attempt or (record.attempt == attempt and record.status is not TaskStatus.RUNNING)


class LogTail:
    """The end of a task's log, for what shows it and is refreshed. For one thread at a time.

    Args:
        pieces: the logs of the bucket.
        limit: so many lines at most.
    """

    def __init__(self, pieces: LogPieces, limit: int = 200) -> None:
        self._pieces, self._limit = pieces, limit
        self._reader: LogReader | None = None
        self._lines: deque[LogLine] = deque(maxlen=limit)
        self._read_for: TaskRecord | None = None
        self._read_at = float("-inf")
        self._has_failed = False

    def is_due(self, record: TaskRecord, interval: float) -> bool:
        """Return whether something may be new: nothing was read yet, the task has changed, or it runs."""
        known, is_time = self._read_for, time.monotonic() - self._read_at >= interval
        if self._has_failed:
            return is_time
        if known is None or (known.status, known.attempt) != (record.status, record.attempt):
            return True
        return record.status is TaskStatus.RUNNING and is_time

    def read(self, record: TaskRecord) -> TaskLogs:
        """Return the last lines of the present, or last, attempt. Requests: see `LogReader.read`.

        Raises:
            StorageError: the store does not answer.
        """
        self._read_at, self._has_failed = time.monotonic(), True
        if record.attempt < 1:
            self._read_for, self._has_failed = record, False
            return TaskLogs(record.id, 0, ())
        if self._reader is None or self._reader.attempt != record.attempt:
            self._lines.clear()
            self._reader = LogReader(self._pieces, record.id, record.attempt, last=self._limit)
        self._lines.extend(self._reader.read())
        self._read_for, self._has_failed = record, False
        return TaskLogs(record.id, record.attempt, tuple(self._lines), is_end=len(self._lines) == self._limit)
