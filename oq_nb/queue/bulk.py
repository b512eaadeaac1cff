"""Many calls at a time, as many as keep this process busy: for submitting many tasks.

A store next door answers within two milliseconds, of which one is this process's own work: more than a few threads only
get in each other's way. A store at a distance answers after fifty, and then fifty threads have work. `Pace` finds out.

Invariants:

* Arguments are taken as they are needed, so that an endless iterator takes no endless memory: at most `MOST_AHEAD` more
  than results were given.
* A call that takes long holds up no others, until so many results wait for its own.
* Results come in the order of the arguments. When the caller stops, what is under way is finished, nothing is begun.

Imports nothing of the package.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["MOST_AHEAD", "Pace", "in_parallel"]

T = TypeVar("T")
R = TypeVar("R")

#: Calls that are under way, or have ended and wait for an earlier one.
MOST_AHEAD = 256

_FEWEST, _FIRST, _MOST = 4, 16, 64
_LEARN_AFTER = 16  # calls
_FORGET_AFTER = 256  # calls, half of which count further on
_MARGIN = 1.5


class Pace:
    """How many calls to have under way: as many as fit into the time that one waits. For several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards what follows
        self._under_way = 0
        self._calls = 0
        self._seconds = self._busy_seconds = 0.0
        #: Calls at a time.
        self.limit: int = _FIRST

    def begin(self) -> None:
        """Wait until one more call may be under way, and count it."""
        with self._changed:
            while self._under_way >= self.limit:
                self._changed.wait()
            self._under_way += 1

    def note(self, seconds: float, busy_seconds: float) -> None:
        """Note a call: how long it took, and how much of that was its thread's processor time."""
        with self._changed:
            self._calls += 1
            self._seconds += seconds
            self._busy_seconds += busy_seconds
            if self._calls < _LEARN_AFTER or self._busy_seconds <= 0:
                return
            self.limit = round(min(_MOST, max(_FEWEST, _MARGIN * self._seconds / self._busy_seconds)))
            if self._calls >= _FORGET_AFTER:
                self._calls //= 2
                self._seconds /= 2
                self._busy_seconds /= 2

    def timed(self, function: Callable[[T], R], argument: T) -> R:
        """Carry out a call that was begun, and note it."""
        began, busy = time.monotonic(), time.thread_time()
        try:
            return function(argument)
        finally:
            self.note(time.monotonic() - began, time.thread_time() - busy)
            with self._changed:
                self._under_way -= 1
                self._changed.notify()


def in_parallel(function: Callable[[T], R], arguments: Iterable[T], *, name: str) -> Generator[Future[R], None, None]:
    """Call a function with each of the arguments, some at a time; yield what has ended, in order.

    Args:
        function: called by threads.
        arguments: taken as they are needed.
        name: of the threads.
    """
    pace = Pace()
    under_way: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(_MOST, thread_name_prefix=name)
    waiting = iter(arguments)
    failure: Exception | None = None  # of the iterator: those before it are carried out
    try:
        while True:
            while under_way and (under_way[0].done() or len(under_way) >= MOST_AHEAD):
                yield _ended(under_way.popleft())
            try:
                argument = next(waiting)
            except StopIteration:
                break
            except Exception as exc:
                failure = exc
                break
            pace.begin()
            under_way.append(pool.submit(pace.timed, function, argument))
        while under_way:
            yield _ended(under_way.popleft())
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)


def _ended(future: Future[R]) -> Future[R]:
    future.exception()
    return future
