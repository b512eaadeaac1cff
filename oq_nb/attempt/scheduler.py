"""Background threads that call objects when they are due: leases to renew, heartbeats to send.

Threads are daemons named ``oq-scheduler-…``. They start when there is work; `Scheduler.stop` ends and joins them.
Imports nothing of the package but `forks`.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from typing import Protocol

from oq_nb.forks import after_fork

__all__ = ["Periodic", "Scheduler"]

logger: logging.Logger = logging.getLogger("oq_nb.scheduler")


class Periodic(Protocol):
    """Something that is called from time to time."""

    def run_due(self) -> float | None:
        """Do what is due; return the monotonic time of the next call, or None when there is none."""


class Scheduler:
    """Calls `Periodic` objects when they are due, each by one thread at a time.

    Args:
        name: part of the threads' names.
        max_threads: threads at most; each is started when all others are busy.
        linger_seconds: a thread ends after this many seconds without a call; None: not before `stop`.
    """

    def __init__(self, name: str, max_threads: int = 4, *, linger_seconds: float | None = None) -> None:
        self._name = name
        self._max_threads = max(1, max_threads)
        self._linger_seconds = linger_seconds
        self._changed = threading.Condition()
        after_fork(self._renew_in_child)
        self._heap: list[tuple[float, int, Periodic]] = []
        self._due: dict[int, float] = {}  # by id() of an object that the heap or a thread holds
        self._running: set[int] = set()
        self._again: dict[int, float] = {}
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._stopped = False
        self._order = itertools.count()
        self._numbers = itertools.count(1)

    def _renew_in_child(self) -> None:
        """Be stopped, in a process that was forked: its threads, and what they call, belong to the parent."""
        self._changed = threading.Condition()
        self._stopped = True
        self._threads, self._heap, self._due, self._running = [], [], {}, set()

    def call(self, periodic: Periodic, at: float | None = None) -> None:
        """Call ``periodic.run_due()`` at a monotonic time (None: now), or earlier when that was asked already."""
        at = time.monotonic() if at is None else at
        with self._changed:
            if self._stopped:
                return
            if id(periodic) in self._running:
                self._again[id(periodic)] = min(at, self._again.get(id(periodic), at))
                return
            if self._due.get(id(periodic), float("inf")) <= at:
                return
            self._push(periodic, at)
            if self._idle == 0 and len(self._threads) < self._max_threads:
                number = next(self._numbers)
                thread = threading.Thread(target=self._run, name=f"oq-scheduler-{self._name}-{number}", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._changed.notify()

    def forget(self, periodic: Periodic) -> None:
        """Call an object no more; a call under way goes on."""
        with self._changed:
            self._again.pop(id(periodic), None)
            if self._due.pop(id(periodic), None) is not None:
                self._heap = [line for line in self._heap if line[2] is not periodic]
                heapq.heapify(self._heap)
                self._changed.notify_all()

    @property
    def count(self) -> int:
        """Number of objects that are being called or wait for their time."""
        with self._changed:
            return len(self._due) + len(self._running)

    def finish(self, timeout_seconds: float) -> bool:
        """Wait until nothing is left to call; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._due and not self._running, timeout_seconds)

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End the threads; calls under way are waited for up to ``timeout_seconds``."""
        with self._changed:
            self._stopped = True
            self._heap.clear()
            self._due.clear()
            self._changed.notify_all()
            threads = list(self._threads)
        deadline = time.monotonic() + timeout_seconds
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _push(self, periodic: Periodic, at: float) -> None:
        self._due[id(periodic)] = at
        heapq.heappush(self._heap, (at, next(self._order), periodic))

    def _run(self) -> None:
        while True:
            periodic = self._next()
            if periodic is None:
                return
            try:
                next_at = periodic.run_due()
            except Exception:
                logger.exception("%r failed; it is not called again", periodic)
                next_at = None
            with self._changed:
                self._running.discard(id(periodic))
                again = self._again.pop(id(periodic), None)
                times = [at for at in (next_at, again) if at is not None]
                if times and not self._stopped:
                    self._push(periodic, min(times))
                    self._changed.notify()
                elif not self._due and not self._running:
                    self._changed.notify_all()  # somebody may wait for it in `finish`

    def _next(self) -> Periodic | None:
        with self._changed:
            self._idle += 1
            try:
                while not self._stopped:
                    if not self._heap:
                        if not self._changed.wait(self._linger_seconds) and not self._heap:
                            self._threads.remove(threading.current_thread())
                            return None
                        continue
                    at, _, periodic = self._heap[0]
                    if self._due.get(id(periodic)) != at:  # called earlier since
                        heapq.heappop(self._heap)
                        continue
                    wait = at - time.monotonic()
                    if wait > 0:
                        self._changed.wait(wait)
                        continue
                    heapq.heappop(self._heap)
                    del self._due[id(periodic)]
                    self._running.add(id(periodic))
                    return periodic
                return None
            finally:
                self._idle -= 1
