"""`Sessions`: what the pages watch. A watch is opened when somebody asks for it and closed when nobody has for a while.

Invariants:

* Nothing waits for the store in the event loop: that is done by the queue's watcher, or in a daemon thread
  (``oq-ui-…``), which puts down what it found by assignments that stand alone.
* No request is made to the store when no page is open.

Imports of the package: `errors`, `model`, `watch`, `web.history`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from oq_nb.display.buttons import failure_message
from oq_nb.display.queue_widget import known_of
from oq_nb.display.selection import TaskFilter, failure_groups
from oq_nb.errors import OqError
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.queue.actions import ActionResult, ManyResult
from oq_nb.queue.logs import LogTail, TaskLogs
from oq_nb.queue.watcher import Overview, OverviewWatch, TaskState, TaskWatch
from oq_nb.web.history import History, Versions

if TYPE_CHECKING:
    from oq_nb.queue import Queue

__all__ = ["QueueLook", "Sessions", "TaskLook"]

logger: logging.Logger = logging.getLogger("oq_nb.web")

T = TypeVar("T")
AnyWatch = TypeVar("AnyWatch", TaskWatch, OverviewWatch)

_IDLE_SECONDS = 20.0  # without a request, after which a look is closed
_SWEEP_SECONDS = 5.0
_TASKS = 100  # looked at at the same time
_FIRST_SECONDS = 5.0  # that a page waits for the first look
_ENDED_SECONDS = 10.0  # between two looks at a task that has ended
_HISTORY_SECONDS = 5.0  # between two readings of a task's versions
_LOG_SECONDS = 2.0  # between two readings of a task's log
_ACTION_SECONDS = 8.0  # that an answer waits for what a button does
_CHANGE_SECONDS = 1.5  # that an answer waits for the list to show what a button did
_MESSAGE_SECONDS = 30.0
_JOIN_SECONDS = 5.0


class _Look(Generic[AnyWatch]):
    """A watch, and when it was asked for last.

    Args:
        open_watch: makes the watch, given what is to be told of news.
    """

    def __init__(self, open_watch: Callable[[_Bell], AnyWatch]) -> None:
        self._open_watch: Callable[[_Bell], AnyWatch] = open_watch
        self._bell = _Bell()
        self.watch: AnyWatch = open_watch(self._bell)
        self.opened_at: float = time.monotonic()
        self.asked_at: float = self.opened_at

    async def wait_for_first(self) -> None:
        """Wait until something is known, but not for ever."""
        self.asked_at = time.monotonic()
        if self.watch.state.seen_at is None:  # else an earlier watch has left what it knew
            await self._bell.wait(_FIRST_SECONDS)

    def open_again(self) -> None:
        """Look at it afresh."""
        self.watch.close()
        self.watch = self._open_watch(self._bell)
        self.opened_at = time.monotonic()


class _Bell:
    """An `oq_nb.queue.watcher.Signal` that is set from the watcher's thread and waited for in the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def set(self) -> None:
        """Note that there is something new; it stays noted."""
        try:
            self._loop.call_soon_threadsafe(self._event.set)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    async def wait_for_next(self, timeout: float) -> None:
        """Wait for something newer than what was noted so far."""
        self._event.clear()
        await self.wait(timeout)

    async def wait(self, timeout: float) -> None:
        """Wait until something was noted, but not longer than so many seconds."""
        try:
            await asyncio.wait_for(self._event.wait(), timeout)
        except asyncio.TimeoutError:
            pass


class QueueLook(_Look[OverviewWatch]):
    """A queue that is looked at, and what a button of its lists last did.

    Args:
        queue: which.
        interval: seconds between two looks.
    """

    def __init__(self, queue: Queue, interval: float) -> None:
        super().__init__(lambda bell: queue.watcher.overview(interval=interval, signal=bell))
        self._message, self._message_at = "", 0.0

    @property
    def state(self) -> Overview:
        """What is known of the queue."""
        return self.watch.state

    @property
    def message(self) -> str:
        """What a button last did; empty when that is a while ago."""
        return self._message if time.monotonic() - self._message_at < _MESSAGE_SECONDS else ""

    def tell(self, message: str) -> None:
        """Tell what a button did, for a while."""
        self._message, self._message_at = message, time.monotonic()

    async def wait_for_change(self, before: Overview) -> None:
        """Wait until something else is known than before, but not for long."""
        deadline = time.monotonic() + _CHANGE_SECONDS
        while self.state is before and (left := deadline - time.monotonic()) > 0:
            await self._bell.wait_for_next(left)


class TaskLook(_Look[TaskWatch]):
    """A task that is looked at, its versions, and what a button last did.

    Args:
        queue: where it is.
        task_id: which.
        interval: seconds between two looks.
    """

    def __init__(self, queue: Queue, task_id: str, interval: float) -> None:
        super().__init__(lambda bell: queue.watcher.watch(task_id, interval=interval, workers=True, signal=bell))
        self.versions: Versions | None = None
        self.history_trouble: str = ""
        self.message: str = ""
        self._message_at = 0.0
        self._message_of: TaskStatus | None = None
        self.action: asyncio.Future[None] | None = None
        self.reading: asyncio.Future[None] | None = None
        #: The end of its log, read while somebody looks at it; None before.
        self.log: TaskLogs | None = None
        self.log_trouble: str = ""
        self.log_reading: asyncio.Future[None] | None = None
        self._log_tail = LogTail(queue.store.logs)
        self._history = History(queue.store, task_id)
        self._read_at = float("-inf")
        self._read_for: TaskRecord | None = None
        self._before: TaskState | None = None

    @property
    def state(self) -> TaskState:
        """What is known of the task."""
        state = self.watch.state
        is_empty = state.record is None and not state.is_gone and state.trouble is None
        return self._before if is_empty and self._before is not None else state

    def refresh_end(self) -> None:
        """Look again at a task that has ended: somebody may have run it again, and a watch ends with its task."""
        if self.watch.state.is_over and time.monotonic() - self.opened_at > _ENDED_SECONDS:
            self._before = self.watch.state
            self.open_again()

    @property
    def is_busy(self) -> bool:
        """Whether a button's work is under way."""
        return self.action is not None and not self.action.done()

    def tell(self, message: str, record: TaskRecord | None = None) -> None:
        """Tell what a button did, for a while, until the task has gone on.

        Args:
            message: what it did.
            record: the task after that; None for as it is known.
        """
        of = record.status if record is not None else self._status
        self.message, self._message_at, self._message_of = message, time.monotonic(), of

    def forget_message(self) -> None:
        """Say it no longer, when it is old."""
        is_old = time.monotonic() - self._message_at > _MESSAGE_SECONDS or self._message_of is not self._status
        if is_old and not self.is_busy:
            self.message = ""

    @property
    def _status(self) -> TaskStatus | None:
        record = self.state.record
        return record.status if record is not None else None

    def history_is_due(self) -> bool:
        """Whether to read the versions: there are new ones, and the last time is a while ago or the status another."""
        record = self.state.record
        if record is None or (self.reading is not None and not self.reading.done()):
            return False
        known = self._read_for
        if known is None or known.status is not record.status:
            return True
        return known != record and time.monotonic() - self._read_at >= _HISTORY_SECONDS

    def log_is_due(self) -> bool:
        """Whether to read the log: something may be new."""
        record = self.state.record
        if record is None or (self.log_reading is not None and not self.log_reading.done()):
            return False
        return self._log_tail.is_due(record, _LOG_SECONDS)

    def read_log(self) -> None:
        """Read what is new of the log; in a thread."""
        record = self.state.record
        if record is None:
            return
        try:
            self.log, self.log_trouble = self._log_tail.read(record), ""
        except OqError as exc:
            self.log_trouble = str(exc)
        except Exception as exc:
            logger.exception("the log of a task could not be read")
            self.log_trouble = f"{type(exc).__name__}: {exc}"

    def read_history(self) -> None:
        """Read the versions; in a thread."""
        self._read_at, self._read_for = time.monotonic(), self.state.record
        try:
            self.versions, self.history_trouble = self._history.read(), ""
        except OqError as exc:
            self.history_trouble = str(exc)
        except Exception as exc:
            logger.exception("the versions of a task could not be read")
            self.history_trouble = f"{type(exc).__name__}: {exc}"


class Sessions:
    """What the pages of a queue look at. Made and used in the event loop's thread.

    Args:
        queue: which.
        interval: seconds between two looks at the store while something changes.
    """

    def __init__(self, queue: Queue, interval: float) -> None:
        self._queue = queue
        self._interval = interval
        self._overview: QueueLook | None = None
        self._tasks: dict[str, TaskLook] = {}
        self._threads: set[threading.Thread] = set()
        self._timer: asyncio.TimerHandle | None = None

    # --- looking

    async def overview(self) -> QueueLook:
        """Return what is known of the queue; the first time wait for a look at it."""
        if self._overview is None:
            self._overview = QueueLook(self._queue, self._interval)
            self._sweep_later()
        look = self._overview
        await look.wait_for_first()
        return look

    async def task(self, task_id: str, *, with_log: bool = False) -> TaskLook:
        """Return what is known of a task; the first time wait for a look at it, and for its versions.

        Args:
            task_id: in its stored form.
            with_log: read its log, too.
        """
        look = self._tasks.get(task_id)
        if look is None:
            while len(self._tasks) >= _TASKS:
                oldest = min(self._tasks, key=lambda known: self._tasks[known].asked_at)
                self._tasks.pop(oldest).watch.close()
            look = self._tasks[task_id] = TaskLook(self._queue, task_id, self._interval)
            self._sweep_later()
        look.refresh_end()
        await look.wait_for_first()
        look.forget_message()
        first: list[asyncio.Future[None]] = []
        if look.history_is_due():
            look.reading = self.in_thread(look.read_history)
            first += [look.reading] if look.versions is None else []
        if with_log and look.log_is_due():
            look.log_reading = self.in_thread(look.read_log)
            first += [look.log_reading] if look.log is None else []
        if first:
            await asyncio.wait(first, timeout=_FIRST_SECONDS)
        return look

    async def failed_until(self, key: str, until: datetime) -> list[tuple[str, int | None]]:
        """Return the tasks of a group of failures that had ended by an instant, and their last attempts.

        Args:
            key: `FailureGroup.key`.
            until: when the list was seen: what has failed since was not on the button.
        """
        known = known_of((await self.overview()).state)
        group = next(
            (group for group in failure_groups(known, TaskFilter(), self._queue.now()) if group.key == key), None
        )
        found = group.ended_by(until) if group is not None else ()
        return [(record.id, record.attempt) for record in found if not record.is_loop]

    # --- doing

    async def act(self, task_id: str, doing: str, work: Callable[[], ActionResult]) -> None:
        """Do something to a task, one thing at a time; its message is shown on the task's page.

        Args:
            task_id: in its stored form.
            doing: the message while it is being done.
            work: does it; called in a thread.
        """
        look = await self.task(task_id)
        if not look.is_busy:
            look.tell(doing)
            look.action = self.in_thread(lambda: self._do(look, work))
        assert look.action is not None
        await asyncio.wait([look.action], timeout=_ACTION_SECONDS)

    def _do(self, look: TaskLook, work: Callable[[], ActionResult]) -> None:
        """Do what a button asks for; in a thread."""
        try:
            result = work()
        except Exception as exc:
            look.tell(failure_message(exc))
        else:
            self._queue.watcher.ingest(result.task.snapshot)
            look.tell(result.message, result.task.record)

    async def act_on_several(self, doing: str, work: Callable[[], ManyResult]) -> ManyResult | None:
        """Do something to several tasks; the message is shown above the lists.

        Args:
            doing: the message while it is being done.
            work: does it; called in a thread.

        Returns:
            How it went; None when it is not over yet, or has failed as a whole.
        """
        look = await self.overview()
        before = look.state
        look.tell(doing)
        action = self.in_thread(lambda: self._do_several(look, work))
        await asyncio.wait([action], timeout=_ACTION_SECONDS)
        if not action.done():
            return None
        result = action.result()
        if result is not None and (result.results or result.refused):
            look.watch.refresh()  # what was refused has changed since it was shown
            await look.wait_for_change(before)
        return result

    def _do_several(self, look: QueueLook, work: Callable[[], ManyResult]) -> ManyResult | None:
        """Do what a button asks for; in a thread."""
        try:
            result = work()
        except Exception as exc:
            look.tell(failure_message(exc))
            return None
        for each in result.results:
            self._queue.watcher.ingest(each.task.snapshot)
        look.tell(result.message)
        return result

    def in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Call a function that waits for the store in a daemon thread: at the end nobody has to wait for it."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def tell(setter: Callable[[Any], None], value: Any) -> None:
            if not future.done():
                setter(value)

        def run() -> None:
            try:
                setter: Callable[[Any], None] = future.set_result
                value: Any = work()
            except Exception as exc:
                setter, value = future.set_exception, exc
            try:
                loop.call_soon_threadsafe(tell, setter, value)
            except RuntimeError:  # the loop is closed
                pass
            finally:
                self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name="oq-ui-work", daemon=True)
        self._threads.add(thread)
        thread.start()
        return future

    # --- closing

    def _sweep_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SWEEP_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        oldest = time.monotonic() - _IDLE_SECONDS
        if self._overview is not None and self._overview.asked_at < oldest:
            self._overview.watch.close()
            self._overview = None
        for task_id, look in list(self._tasks.items()):
            if look.asked_at < oldest and not look.is_busy:
                self._tasks.pop(task_id).watch.close()
        if self._overview is not None or self._tasks:
            self._sweep_later()

    def close(self) -> None:
        """Close all looks. From any thread, once the loop has ended."""
        for look in self._tasks.values():
            look.watch.close()
        self._tasks.clear()
        if self._overview is not None:
            self._overview.watch.close()
            self._overview = None
        deadline = time.monotonic() + _JOIN_SECONDS
        for thread in list(self._threads):
            thread.join(max(0.0, deadline - time.monotonic()))
