"""Where the progress of a loop goes: to the running task, or to a task that the loop is itself.

Both are called by one background writer, `WRITER`; the loop's thread only reads what they noticed.

A loop's own task is written as running from the start, under a lease of its own and with ``max_retries`` 0. It is never
pending, so no worker can claim it, ours or upstream's; when its process dies, its lease runs out, and the
next worker marks it as failed: there is no retry that could put it back. Its type is ``track:<description>``.

Invariants:

* Nothing here raises into a loop but a lost lease in a handler, and a cancellation that was asked for.
* A loop that is over is written within `FLUSH_SECONDS`, or given up; nothing waits longer for a store that is gone.

Imports of the package: `attempt`, `errors`, `model`, `queue`, and `loops`, `outcome` and `reading` of this room.
"""

from __future__ import annotations

import atexit
import logging
import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from oq_nb import model
from oq_nb.attempt.context import TaskContext, make_progress, with_series
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import LeaseExpiredError, OqError, TaskCancelledError
from oq_nb.model import TaskRecord, TaskStatus, Timestamp
from oq_nb.progress.loops import Ending
from oq_nb.progress.outcome import end_of_loop, uncaught_in
from oq_nb.progress.reading import BarState
from oq_nb.queue import Queue
from oq_nb.queue.task import Task

__all__ = ["FLUSH_SECONDS", "BarState", "LoopTask", "RunningTask"]

logger: logging.Logger = logging.getLogger("oq_nb.track")

FLUSH_SECONDS = 5.0
_RETRY_SECONDS = 5.0
_LEAST_SECONDS = 0.02
_LINGER_SECONDS = 1.0
_UNCLEAR_SECONDS = 1.0  # in which an exception that left a loop has reached the top, or was caught
_LOOK_SECONDS = 0.05  # between two looks for it


#: Returns what the bar says now, or None when the bar is gone.
Source = Callable[[], "BarState | None"]
#: Has the loop look at once whether there is something that it has to be told.
Hurry = Callable[[], None]


def _new_writer() -> None:
    global WRITER
    WRITER = Scheduler("track", max_threads=4, linger_seconds=_LINGER_SECONDS)


#: The process's one background writer; its threads end by themselves when no loop is open.
WRITER: Scheduler
_new_writer()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_writer)


def _progress_of(reported: BarState, now: datetime) -> model.Progress:
    return make_progress(Timestamp.of(now), **reported.as_arguments)


class _Position:
    """Where a bar is, for displays of this process; see `oq_nb.store.live_progress`.

    Args:
        source: reads the bar.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._last: tuple[tuple[Any, ...], model.Progress] | None = None

    def reached(self, now: datetime) -> model.Progress | None:
        """Return where it is, as of when that changed: a loop that stands still must not look as if it went on."""
        reported = self._source()
        if reported is None:
            return None
        if self._last is None or self._last[0] != reported.content:
            self._last = reported.content, _progress_of(reported, now)
        return self._last[1]


class RunningTask:
    """Reports a loop to the task that is running.

    Args:
        context: the running attempt.
        source: reads the bar.
        throttle_seconds: at most one write per so many seconds.
        min_seconds: a loop that is shorter reports nothing.
        hurry: called by the writer when there is a `problem`.
    """

    def __init__(
        self,
        context: TaskContext,
        source: Source,
        throttle_seconds: float,
        min_seconds: float,
        hurry: Hurry = lambda: None,
    ) -> None:
        self._context = context
        self._source = source
        self._hurry = hurry
        self._throttle_seconds = throttle_seconds
        self._begins_at = time.monotonic() + min_seconds
        self._seen: tuple[Any, ...] | None = None
        self._is_over = False
        self._lost: OqError | None = None
        self._pid = os.getpid()
        self._position = _Position(source)
        context.follow(self._position)
        self._scheduler = WRITER
        self._scheduler.call(self, self._begins_at)

    def run_due(self) -> float | None:
        """Hand the newest value to the task's writer."""
        if self._is_over:
            return None
        reported = self._source()
        if reported is None:
            return None
        self._report(reported, self._throttle_seconds)
        if self.problem is not None:
            self._hurry()
        return None if self._lost else time.monotonic() + max(self._throttle_seconds, _LEAST_SECONDS)

    def _report(self, reported: BarState, throttle_seconds: float) -> None:
        content = reported.content
        if content == self._seen:
            return
        self._seen = content
        try:
            self._context.report_progress(**reported.as_arguments, throttle_seconds=throttle_seconds, wait=False)
        except LeaseExpiredError as exc:
            self._lost = exc
        except OqError as exc:
            logger.debug("progress of a loop is not reported: %s", exc)

    @property
    def problem(self) -> OqError | None:
        """What the loop has to be told: a lost lease, a cancellation."""
        context = self._context
        if self._lost is None and context.is_lease_lost:
            self._lost = LeaseExpiredError(
                f"task {context.task_id}: another worker has taken it over, stop working on it", task_id=context.task_id
            )
        if self._lost is None and context.cancel_requested:
            return TaskCancelledError(f"task {context.task_id} is asked to stop", task_id=context.task_id)
        return self._lost

    def end(self, ending: Ending, reported: BarState) -> None:
        """Hand over the last, exact value; no waiting."""
        self._is_over = True
        if os.getpid() != self._pid:
            return
        self._scheduler.forget(self)
        # Where a loop failed is worth a report however short it was.
        is_due = time.monotonic() >= self._begins_at or ending.is_failed
        if is_due and not isinstance(ending.error, LeaseExpiredError):
            self._report(reported, 0.0)


class LoopTask:
    """Makes a loop a task of its own, and reports to it.

    Args:
        find_queue: returns the queue, or None; called by the writer, it may take its time.
        task_type: of the task.
        source: reads the bar.
        throttle_seconds: at most one write per so many seconds.
        min_seconds: a loop that is shorter leaves no task, unless `task` is asked for.
        lease_seconds: how long after the process's death the task counts as running.
        hurry: called by the writer when there is a `problem`.
        look: called by the writer now and then: the bar may find that its loop is over.

    Requests: 3 PUT, 1 LIST and 1 DELETE for a loop, and 1 PUT per ``throttle_seconds`` while its position changes,
    else per third of the lease.
    """

    def __init__(
        self,
        find_queue: Callable[[], Queue | None],
        task_type: str,
        source: Source,
        throttle_seconds: float,
        min_seconds: float,
        lease_seconds: float,
        hurry: Hurry = lambda: None,
        look: Hurry = lambda: None,
    ) -> None:
        self._find_queue = find_queue
        self._task_type = task_type
        self._source = source
        self._hurry, self._look = hurry, look
        self._position = _Position(source)
        self._throttle_seconds = throttle_seconds
        self._lease_seconds = lease_seconds
        self._begins_at = time.monotonic() + min_seconds
        self._lease: Lease | None = None
        self._task: Task | None = None
        self._record: TaskRecord | None = None
        self._seen: tuple[Any, ...] | None = None
        self._series = model.SeriesRecorder()
        self._ending: tuple[Ending, BarState] | None = None
        self._ended_at = 0.0
        self._is_last_look = False
        self._has_warned = False
        self._is_bar_gone = False
        self._created = threading.Event()
        self._over = threading.Event()
        self._pid = os.getpid()
        self._scheduler = WRITER
        _open.add(self)
        self._scheduler.call(self, self._begins_at)

    # --- the loop's side

    @property
    def problem(self) -> OqError | None:
        """What the loop has to be told: that its task was cancelled."""
        lease = self._lease
        if lease is not None and lease.record.cancel_requested:
            return TaskCancelledError(f"the loop's task {lease.task_id} was cancelled", task_id=lease.task_id)
        return None

    def task(self, timeout_seconds: float) -> Task | None:
        """Return a handle on the task, which is created when it is not there; None when that took too long."""
        if not self._created.is_set() and not self._over.is_set():
            self._begins_at = time.monotonic()
            self._scheduler.call(self)
            self._created.wait(timeout_seconds)
        return self._task

    def end(self, ending: Ending, reported: BarState) -> None:
        """Have the task ended by the writer; no waiting."""
        if self._ending is not None or os.getpid() != self._pid:
            return
        self._ended_at = time.monotonic()
        self._ending = (ending, reported)
        if self._lease is None and time.monotonic() < self._begins_at:
            self._scheduler.forget(self)
            self._close()
        else:
            self._scheduler.call(self)

    @property
    def is_of_this_process(self) -> bool:
        """Whether it was made by this process, not by one that this was forked from."""
        return os.getpid() == self._pid

    def end_with_program(self, uncaught: BaseException | None) -> None:
        """Have the task of a loop that is still open ended: the program ends.

        Args:
            uncaught: the error that ended the program, if any.
        """
        reported = self._source()
        if reported is None:
            return
        error = uncaught
        if error is None and reported.total is not None and reported.current < reported.total:
            error = RuntimeError(f"the program ended at item {reported.current} of {reported.total}")
        self.end(Ending(reported.current, error=error), reported)

    def look_no_longer(self) -> None:
        """Write the end now, whatever ended the loop: the program ends."""
        self._is_last_look = True
        self._scheduler.call(self)

    def wait(self, timeout_seconds: float) -> bool:
        """Wait until the end is written or given up; return whether it is."""
        return self._over.wait(timeout_seconds)

    # --- the writer's side

    def run_due(self) -> float | None:
        """Do what is due: create the task, report to it, end it."""
        if self._ending is None:
            self._look()
        if self._over.is_set():
            return None
        now = time.monotonic()
        if self._lease is None and now < self._begins_at:
            return self._begins_at
        try:
            if self._lease is None:
                self._create()
            if self._ending is not None and self._lease is not None and self._is_unclear():
                return time.monotonic() + _LOOK_SECONDS
            if self._lease is None or self._ending is not None:
                self._finish()
                return None
            return self._report(self._lease)
        except OqError as exc:
            self._warn(f"the loop goes on, but cannot be watched by others for now: {exc}")
            if self._ending is None:
                return time.monotonic() + _RETRY_SECONDS
            self._close()
            return None
        except Exception:
            self._close()
            raise

    def _create(self) -> None:
        """Write the task, running, its lease entry first; no lease when there is no queue."""
        queue = self._find_queue()
        reported = self._source() if self._ending is None else self._ending[1]
        if queue is None or reported is None:
            return
        store = queue.store
        now = store.clock.stamp()
        record = self._record
        if record is None or record.lease_expires_at is None or record.lease_expires_at <= now:
            record = self._record = self._new_record(store.shard_of, reported, now)
        held = store.create(record)  # the same record again after a lost answer: it may be there
        self._task = Task(queue, held)
        if held.record.lease_id != record.lease_id:
            self._warn("another program ended the loop's task before its creation was confirmed; it is not reported")
            return
        entries = store.index.find(model.lease_key(record))
        self._lease = Lease(
            store,
            held,
            self._scheduler,
            lease_seconds=self._lease_seconds,
            entries=entries,
            on_ended=store.ended.add,
        )
        self._lease.follow(self._position)
        self._created.set()

    def _new_record(self, shard_of: Callable[[str], str], reported: BarState, now: Timestamp) -> TaskRecord:
        task_id, host = model.new_id(), socket.gethostname()
        return TaskRecord(
            id=task_id,
            shard=shard_of(task_id),
            task_type=self._task_type,
            input={"host": host, "pid": os.getpid(), "total": reported.total},
            status=TaskStatus.RUNNING,
            timeout_seconds=max(1, int(self._lease_seconds)),
            max_retries=0,
            created_at=now,
            available_at=now,
            updated_at=now,
            attempt=1,
            started_at=Timestamp.of(now - timedelta(seconds=reported.seconds)),  # of the loop: before its task was made
            lease_id=model.new_id(),
            lease_expires_at=Timestamp.of(now + timedelta(seconds=self._lease_seconds)),
            worker_id=f"track-{host}-{os.getpid()}",
            progress=self._progress(reported, now),
        )

    def _progress(self, reported: BarState, now: Timestamp) -> model.Progress:
        self._seen = reported.content
        return with_series(self._series, _progress_of(reported, now))

    def _report(self, lease: Lease) -> float | None:
        if lease.is_lost:
            self._warn("another program ended the loop's task; the loop goes on and is no longer reported")
            self._close()
            return None
        reported = self._source()
        if reported is None:  # the bar is gone and was not closed
            nothing = BarState(0, None, None, None, "it", 0.0)
            self._ended_at = time.monotonic()
            self._ending = (Ending(0), nothing)
            self._is_bar_gone = True
            self._finish()
            return None
        if reported.content != self._seen:
            lease.report(
                self._progress(reported, Timestamp.of(lease.now())),
                throttle_seconds=self._throttle_seconds,
                wait=False,
            )
        if self.problem is not None:
            self._hurry()
        return time.monotonic() + max(self._throttle_seconds, _LEAST_SECONDS)

    def _is_unclear(self) -> bool:
        """Return whether what ended the loop may still come to light; note it when it has."""
        if self._ending is None:
            return False
        ending, reported = self._ending
        if ending.error is not None or ending.left_at is None:
            return False
        error = uncaught_in(ending.left_at)
        if error is not None:
            self._ending = (replace(ending, error=error), reported)
            return False
        return not self._is_last_look and time.monotonic() < self._ended_at + _UNCLEAR_SECONDS

    def _finish(self) -> None:
        try:
            if self._lease is not None and self._ending is not None:
                ending, reported = self._ending
                ended_at = self._ended_at
                deadline = ended_at + FLUSH_SECONDS
                reached = None if self._is_bar_gone else self._progress(reported, Timestamp.of(self._lease.now()))
                change = end_of_loop(
                    self._lease.lease_id,
                    ending,
                    reported,
                    reached,
                    seconds_ago=lambda: time.monotonic() - ended_at,
                )
                ended = self._lease.finish(change, give_up=lambda: time.monotonic() >= deadline)
                if self._task is not None:
                    self._task.adopt(ended)
        except OqError as exc:
            self._warn(f"the end of the loop could not be written: {exc}")
        finally:
            self._close()

    def _close(self) -> None:
        self._ending = self._ending and (Ending(self._ending[0].count), self._ending[1])  # drops the place
        if self._lease is not None:
            self._scheduler.forget(self._lease)
        self._over.set()
        self._created.set()
        _open.discard(self)

    def _warn(self, message: str) -> None:
        if not self._has_warned:
            logger.warning("%s: %s", self._task_type, message)
        self._has_warned = True


_open: weakref.WeakSet[LoopTask] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    """At the interpreter's end: end what is open, and give its writing a bounded time."""
    left = [task for task in _open if task.is_of_this_process]
    # What ended a script; at a prompt or in a notebook it is any error that was shown.
    uncaught = None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)
    for task in left:
        task.end_with_program(uncaught)
        task.look_no_longer()
    deadline = time.monotonic() + FLUSH_SECONDS
    given_up = [task for task in left if not task.wait(max(0.0, deadline - time.monotonic()))]
    if given_up:
        logger.warning("the ends of %d loops could not be written: their tasks count as running", len(given_up))
