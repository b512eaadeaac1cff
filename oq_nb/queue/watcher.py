"""`Watcher`: the one poller of a queue, for all widgets, pages and waiters of the process.

::

    watch = queue.watcher.watch(task_id)          # or a Task; .state is what is known, never blocking
    while not watch.state.is_over:
        watch.wait(timeout=1)                     # until something has changed
    watch.close()

    with queue.watcher.overview() as watch:       # the whole queue
        watch.wait(timeout=5)
        print(watch.state.counts)

    queue.watcher.read_task("…")                  # once, in this thread, nothing is watched: a TaskState
    queue.watcher.read_overview()                 # once, the whole queue: an Overview

Invariants:

* One thread (``oq-watch-…``) per queue, and only while somebody watches; no request is made when nobody does.
* A watch is held weakly: it ends with `close`, or when its owner drops it.
* Nobody's code runs in the thread: it stores the new state and sets an event, so that no watcher can stall or break
  another. States are immutable.
* A store that does not answer leaves the last state, with its `trouble` set, and is tried again, ever less often.
* A task is read soon at first and then ever more rarely: after 5 % of the time that it has been watched, at least
  10 ms and as long as the last read took. What does not change is read less and less often, within bounds of its own.

Imports of the package: `backoff`, `errors`, `model`, `store`, and `poller` of this room.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from oq_nb import model
from oq_nb.backoff import WAKE_SECONDS
from oq_nb.errors import ConfigurationError, OqError, RecordError, StorageDeniedError, StorageError
from oq_nb.forks import after_fork
from oq_nb.model import TaskRecord
from oq_nb.queue.poller import Overview, TaskPoller, has_handler, is_alive
from oq_nb.store import TaskStore, VersionedTask

__all__ = [
    "Overview",
    "OverviewWatch",
    "Signal",
    "TaskState",
    "TaskWatch",
    "Watch",
    "Watcher",
    "has_handler",
    "is_alive",
]

logger: logging.Logger = logging.getLogger("oq_nb.watch")

_TOGETHER_SECONDS = 0.02  # after a new watch of a whole queue: others are likely to follow
FIRST_SECONDS = 0.01  # between the first two reads of a task
_LONGEST_GROWN_SECONDS = 10.0  # who asks for a longer interval gets it from the start
_SHARE = 0.05  # of the time that a task has been watched: the pause before it is read again
_TROUBLE_SECONDS = (1.0, 30.0)
_FAULT_SECONDS = 30.0  # after an error that nobody expected
_OWN_INTERVALS = 2.5  # so long a task that this process writes is not read: its next report mostly comes before


class Signal(Protocol):
    """What is told of a change: a `threading.Event`, or anything else that cannot block."""

    def set(self) -> None:
        """Note that there is something new."""


@dataclass(frozen=True)
class TaskState:
    """What is known of a task. Text in its record is untrusted."""

    task_id: str
    #: The task as last seen; None before it was first read, and when it was never found.
    held: VersionedTask | None = None
    #: It is not in the bucket.
    is_gone: bool = False
    #: Why it could not be read the last time: then the rest is what was known before. None when it could.
    trouble: str | None = None
    #: Whether that will not pass by itself: access was denied, the object is not a task.
    is_lasting: bool = False
    #: When it was last read with success, by the store's clock.
    seen_at: datetime | None = None
    #: Whether a live worker has a handler of its type; None where that is not known.
    has_worker: bool | None = None

    @property
    def record(self) -> TaskRecord | None:
        """The task as last seen."""
        return self.held.record if self.held is not None else None

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is gone."""
        return self.is_gone or (self.held is not None and self.held.record.status.is_terminal)


State = TypeVar("State", TaskState, Overview)


class Watch(Generic[State]):
    """Somebody watches: `state` is what is known, `wait` returns when there is more. Made by a `Watcher`.

    Args:
        watcher: whose.
        state: what is known so far.
        interval: seconds between two reads while things change.
        longest: seconds between two reads when nothing has changed for long.
        signal: set when the state has changed; None for an event of its own.
        first: seconds between the first two reads; the pauses grow from there to ``interval``.
    """

    def __init__(
        self,
        watcher: Watcher,
        state: State,
        *,
        interval: float,
        longest: float,
        signal: Signal | None = None,
        first: float | None = None,
    ) -> None:
        self._watcher = watcher
        self._state: State = state
        self._own = threading.Event()
        self._signal = signal
        self.interval = interval
        self.longest: float = max(interval, longest)
        self.is_closed: bool = False
        self._first = interval if first is None else min(first, interval)
        self._pause = min(self._first, _TOGETHER_SECONDS)
        self._began_at = self._changed_at = time.monotonic()
        self._due = self._began_at + self._pause

    @property
    def state(self) -> State:
        """What is known now; another object once it has changed."""
        return self._state

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the state has changed since the last call; return False when the time is over first."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not (has_changed := self._own.wait(max(0.0, min(deadline - time.monotonic(), WAKE_SECONDS)))):
            if time.monotonic() >= deadline:
                break
        self._own.clear()
        return has_changed

    def refresh(self) -> None:
        """Have it read now instead of at its time."""
        self.expect_change()
        self._watcher.ring()

    def close(self) -> None:
        """Stop watching; the state stays as it is."""
        self.is_closed = True
        self._watcher.remove(self)

    def __enter__(self) -> Watch[State]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    # --- called by the watcher

    @property
    def due(self) -> float:
        """When to read next, on `time.monotonic`."""
        return self._due

    @property
    def slack(self) -> float:
        """Seconds before `due` at which it may be read together with others."""
        return 0.25 * self._pause

    def expect_change(self) -> None:
        """Read it at the next opportunity, and often again from then on."""
        self._changed_at = self._due = time.monotonic()

    def put_off(self, seconds: float) -> None:
        """Read it only after so many seconds."""
        self._due = time.monotonic() + seconds

    def plan(self, now: float, took: float, trouble_pause: float | None) -> None:
        """Set the next read: after 5 % of the time that it has been watched until that is as long as ``interval``.

        From then on it is a quarter of the time that nothing has changed, within bounds.

        Args:
            now: by `time.monotonic`.
            took: seconds that the read took; the pause is at least as long.
            trouble_pause: seconds after a failure; None when the read did not fail.
        """
        steady = min(self.longest, max(self.interval, (now - self._changed_at) / 4))
        growing = max(self._first, took, _SHARE * (now - self._began_at))
        if trouble_pause is not None:
            self._pause = max(trouble_pause, self.interval)
        else:
            self._pause = growing if growing < self.interval else steady
        self._due = now + self._pause

    def replace_state(self, state: State) -> None:
        """Set what is known, without telling anybody yet."""
        self._state = state

    def tell(self) -> None:
        """Tell who watches that the state has changed."""
        self._changed_at = time.monotonic()
        self._own.set()
        if self._signal is not None:
            self._signal.set()


class TaskWatch(Watch[TaskState]):
    """Somebody watches a task."""

    def __init__(self, *args: Any, wants_workers: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.wants_workers = wants_workers


class OverviewWatch(Watch[Overview]):
    """Somebody watches the whole queue."""


AnyWatch = TaskWatch | OverviewWatch


class Watcher:
    """Reads what is watched, from one thread. Safe to use from several threads.

    Args:
        store: the tasks.
        name: of the thread.
    """

    def __init__(self, store: TaskStore, *, name: str = "queue") -> None:
        self._store = store
        self._name = name
        self._lock = threading.Lock()  # guards the next two
        self._watches: list[weakref.ref[AnyWatch]] = []
        self._thread: threading.Thread | None = None
        # Weak references end at any moment in any thread, also inside a lock: only a SimpleQueue may be told of it.
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._poller = TaskPoller(store)  # the thread's
        self._failures = 0
        after_fork(self._renew_in_child)

    def _renew_in_child(self) -> None:
        """Watch nothing, in a process that was forked: the thread is the parent's."""
        self._lock, self._watches, self._thread = threading.Lock(), [], None
        self._bell, self._poller, self._failures = queue.SimpleQueue(), TaskPoller(self._store), 0

    # --- watching

    def watch(
        self,
        task: Any,
        *,
        interval: float = 1.0,
        longest: float = 10.0,
        workers: bool = False,
        signal: Signal | None = None,
    ) -> TaskWatch:
        """Watch a task until the watch is closed or dropped.

        Args:
            task: its id, or what has one: a `Task`, whose last snapshot is the first state.
            interval: seconds between two reads while it changes; above 0.
            longest: seconds between two reads when it has not changed for long.
            workers: also tell whether a live worker has a handler for it, while it is pending.
            signal: set when there is news.

        Requests: see `oq_nb.queue.poller.TaskPoller.refresh`, about 20 times in the first 0.2 s, 50 in the first
        second, 100 in the first 10 s, and then once per ``interval``; ever less often when nothing changes; none after
        its end.
        """
        return self.watch_many([task], interval=interval, longest=longest, workers=workers, signal=signal)[0]

    def watch_many(
        self,
        tasks: Iterable[Any],
        *,
        interval: float = 1.0,
        longest: float = 10.0,
        workers: bool = False,
        signal: Signal | None = None,
    ) -> list[TaskWatch]:
        """Watch several tasks; the arguments are those of `watch`."""
        check_interval(interval)
        made = [
            TaskWatch(
                self,
                state,
                interval=interval,
                longest=longest,
                signal=signal,
                wants_workers=workers,
                first=FIRST_SECONDS if interval <= _LONGEST_GROWN_SECONDS else None,
            )
            for state in map(_first_state, tasks)
        ]
        self._add(made)
        return made

    def overview(self, *, interval: float = 2.0, longest: float = 10.0, signal: Signal | None = None) -> OverviewWatch:
        """Watch the whole queue until the watch is closed or dropped; see `watch`. Its first state is empty."""
        check_interval(interval)
        made = OverviewWatch(self, self._poller.overview, interval=interval, longest=longest, signal=signal)
        self._add([made])
        return made

    def ingest(self, held: VersionedTask, *, from_attempt: bool = False) -> None:
        """Take in a task that was just read or written in this process; its watchers need not wait for the next read.

        Args:
            held: the task.
            from_attempt: it runs in this process, which hands over all that it writes: it is read again only after
                some intervals, and no overview is refreshed for it.
        """
        intervals = _OWN_INTERVALS if from_attempt else 1.0
        for watch in self._living():
            if isinstance(watch, TaskWatch) and watch.state.task_id == held.record.id:
                known = watch.state.held
                if known is None or held.record.supersedes(known.record):
                    watch.replace_state(_seen(watch.state, held, self._store.clock.now()))
                    watch.tell()
                watch.put_off(intervals * watch.interval)
            elif isinstance(watch, OverviewWatch) and not from_attempt:
                watch.expect_change()
        if not from_attempt:
            self.ring()

    def refresh_all(self) -> None:
        """Read everything that is watched now."""
        for watch in self._living():
            watch.expect_change()
        self.ring()

    @property
    def is_running(self) -> bool:
        """Whether the thread runs."""
        thread = self._thread
        return thread is not None and thread.is_alive()

    # --- once, without the thread

    def read_task(self, task: Any, *, workers: bool = False) -> TaskState:
        """Read a task once, in this thread. Requests: 1 GET; with ``workers`` 1 LIST and 1 GET each at most.

        Returns:
            Its state; where the store does not answer, with its ``trouble`` set.
        """
        state = _first_state(task)
        poller = TaskPoller(self._store)
        if state.held is not None:
            poller.ingest(state.held)
        try:
            poller.refresh([state.task_id], workers=workers)
        except (StorageError, ConfigurationError) as exc:
            return replace(state, trouble=str(exc), is_lasting=_is_lasting(exc))
        return _next_state(state, poller, self._store.clock.now(), workers)

    def read_overview(self) -> Overview:
        """Read the whole queue once, in this thread. Requests: see `oq_nb.queue.poller.TaskPoller.refresh`.

        Returns:
            What was found; where the store does not answer, with its ``trouble`` set.
        """
        poller = TaskPoller(self._store)
        try:
            poller.refresh(overview=True)
        except (StorageError, ConfigurationError) as exc:
            return replace(poller.overview, trouble=str(exc))
        return poller.overview

    # --- called by watches

    def remove(self, watch: Any) -> None:
        """Watch no more for this one; see `Watch.close`."""
        with self._lock:
            self._watches = [reference for reference in self._watches if reference() not in (None, watch)]
        self.ring()

    def ring(self) -> None:
        """Have the thread see what is due now; start it when somebody watches and it does not run."""
        with self._lock:
            is_wanted = any(_is_open(reference()) for reference in self._watches)
            if is_wanted and not self.is_running:
                self._thread = threading.Thread(target=self._run, name=f"oq-watch-{self._name}", daemon=True)
                self._thread.start()
        self._bell.put(None)

    # --- the thread

    def _living(self) -> list[AnyWatch]:
        with self._lock:
            return [watch for reference in self._watches if (watch := reference()) is not None]

    def _add(self, made: Iterable[AnyWatch]) -> None:
        bell = self._bell

        def ring(_: object) -> None:
            bell.put(None)

        with self._lock:
            self._watches += [weakref.ref(watch, ring) for watch in made]
        self.ring()

    def _run(self) -> None:
        while True:
            pause = self._step()
            if pause is None:
                return
            try:
                self._bell.get(timeout=pause)
                while True:
                    self._bell.get_nowait()
            except queue.Empty:
                pass

    def _step(self) -> float | None:
        """Read what is due; return the seconds until more is, or None when nobody watches any more.

        No watch may be referred to from here while the thread sleeps: their owners could not drop them.
        """
        with self._lock:
            self._watches = [reference for reference in self._watches if reference() is not None]
            watches = [watch for reference in self._watches if (watch := reference()) is not None and _is_open(watch)]
            if not watches:
                self._thread = None
                self._poller = TaskPoller(self._store)
                return None
        now = time.monotonic()
        due = [watch for watch in watches if watch.due <= now + watch.slack]
        if any(watch.due <= now for watch in due):
            try:
                self._read_due(due, watches)
            except Exception:
                logger.exception("%s could not be read", self._store.objects)
                for watch in due:
                    watch.put_off(_FAULT_SECONDS)
        now = time.monotonic()
        return max(0.001, min((watch.due - now for watch in watches), default=60.0))

    def _read_due(self, due: list[AnyWatch], watches: list[AnyWatch]) -> None:
        tasks = [watch for watch in due if isinstance(watch, TaskWatch)]
        overviews = [watch for watch in due if isinstance(watch, OverviewWatch)]
        for known in [watch.state.held for watch in tasks]:
            if known is not None:
                self._poller.ingest(known)
        wants_workers = any(w.wants_workers and _is_pending(w.state) for w in tasks)
        trouble: OqError | None = None
        began = time.monotonic()
        try:
            self._poller.refresh(
                [watch.state.task_id for watch in tasks], overview=bool(overviews), workers=wants_workers
            )
            if self._failures:
                logger.info("%s answers again", self._store.objects)
            self._failures = 0
        except (StorageError, ConfigurationError) as exc:
            trouble = exc
            self._failures += 1
            if self._failures == 1:
                logger.warning("what is watched cannot be read for now: %s", exc)
        shortest, longest = _TROUBLE_SECONDS
        pause = min(longest, shortest * 2 ** min(self._failures - 1, 10)) if trouble is not None else None
        seen_at, now = self._store.clock.now(), time.monotonic()
        told: list[AnyWatch] = []
        for watch in due:
            before = watch.state
            if isinstance(watch, TaskWatch):
                watch.replace_state(
                    _next_state(watch.state, self._poller, seen_at, watch.wants_workers)
                    if trouble is None
                    else replace(watch.state, trouble=str(trouble), is_lasting=_is_lasting(trouble))
                )
            else:
                watch.replace_state(
                    self._poller.overview if trouble is None else replace(watch.state, trouble=str(trouble))
                )
            if replace(watch.state, seen_at=None) != replace(before, seen_at=None):
                told.append(watch)
        if trouble is None:
            told += self._show_others(set(watches) - set(due), seen_at)
        for watch in told:  # who waits for one of them finds all of them up to date
            watch.tell()
        for watch in due:
            watch.plan(now, now - began, pause)
        if not any(isinstance(watch, OverviewWatch) for watch in watches):
            self._poller.forget_overview()
        self._poller.keep(watch.state.task_id for watch in watches if isinstance(watch, TaskWatch))

    def _show_others(self, others: Iterable[AnyWatch], seen_at: datetime) -> list[AnyWatch]:
        """Let watches that are not due have what was seen of their tasks; return those that this is news to."""
        told: list[AnyWatch] = []
        for watch in others:
            if not isinstance(watch, TaskWatch):
                continue
            found, known = self._poller.seen.get(watch.state.task_id), watch.state.held
            if isinstance(found, VersionedTask) and found is not known and (known is None or _is_later(found, known)):
                watch.replace_state(replace(watch.state, held=found, is_gone=False, seen_at=seen_at))
                told.append(watch)
        return told


def _is_later(found: VersionedTask, known: VersionedTask) -> bool:
    return found.etag != known.etag and found.record.supersedes(known.record)


def _is_open(watch: AnyWatch | None) -> bool:
    """Return whether there is still something to read."""
    return watch is not None and not (isinstance(watch, TaskWatch) and watch.state.is_over)


def _first_state(task: Any) -> TaskState:
    if isinstance(task, VersionedTask):
        return TaskState(task.record.id, task)
    snapshot = getattr(task, "snapshot", None)
    if isinstance(snapshot, VersionedTask):
        return TaskState(snapshot.record.id, snapshot)
    return TaskState(model.check_task_id(task))


def _next_state(state: TaskState, poller: TaskPoller, now: datetime, wants_workers: bool) -> TaskState:
    found = poller.seen.get(state.task_id)
    if isinstance(found, RecordError):
        return replace(state, trouble=str(found), is_lasting=True, seen_at=now)
    if state.held is not None and found is not None and not found.record.supersedes(state.held.record):
        found = state.held  # ingested while the read was under way
    if found is None:
        return replace(state, is_gone=True, trouble=None, is_lasting=False, seen_at=now)
    has_worker = poller.has_worker_for(found.record) if wants_workers else None
    return replace(_seen(state, found, now), has_worker=has_worker)


def _seen(state: TaskState, held: VersionedTask, now: datetime) -> TaskState:
    """Return the state of a task that was just seen in the store, so that there is no trouble with it."""
    return replace(state, held=held, is_gone=False, trouble=None, is_lasting=False, seen_at=now)


def _is_pending(state: TaskState) -> bool:
    return state.record is None or state.record.status is model.TaskStatus.PENDING


def _is_lasting(exc: OqError) -> bool:
    return isinstance(exc, (StorageDeniedError, ConfigurationError))


def check_interval(interval: Any) -> None:
    """Raise `ConfigurationError` unless ``interval`` is a number of seconds above 0."""
    if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 0 < interval < 1e6:
        raise ConfigurationError(f"interval: a number of seconds above 0 is needed, not {interval!r}")
