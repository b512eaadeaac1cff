"""`HintWriter`: leaves a hint for idle workers elsewhere when tasks were submitted here, in the background.

Invariants:

* At most one hint a second and process, and the last submission is always followed by one.
* A submission never waits for it and never fails by it. Its thread (``oq-scheduler-hint-…``) ends when nothing is left
  to write; at the interpreter's end it gets two seconds.

Imports of the package: `attempt`, `forks`, `store`.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from functools import cache

from oq_nb.attempt.scheduler import Scheduler
from oq_nb.forks import after_fork
from oq_nb.store.hint import ReadyHint

__all__ = ["HintWriter", "flush_all"]

_PAUSE_SECONDS = 1.0
_EXIT_SECONDS = 2.0
_MAX_SHARDS = 64  # of which more are not named: the tasks are everywhere

_writers: weakref.WeakSet[HintWriter] = weakref.WeakSet()


class HintWriter:
    """Writes the hint of a bucket; a `Scheduler` calls `run_due`. Safe to use from several threads.

    Args:
        hint: what is written.
    """

    def __init__(self, hint: ReadyHint) -> None:
        self._hint = hint
        self._renew_in_child()
        after_fork(self._renew_in_child)
        _writers.add(self)
        _register_exit()

    def _renew_in_child(self) -> None:
        """Begin anew in a process that was forked: threads, and what they were to write, are the parent's."""
        self._lock = threading.Lock()
        self._shards: set[str] = set()
        self._next_at = float("-inf")
        self._scheduler = Scheduler("hint", max_threads=1, linger_seconds=0.0)

    def ring(self, shard: str) -> None:
        """Leave a hint for a task in this shard, soon. Requests: 1 PUT and 1 DELETE a second at most."""
        with self._lock:
            if len(self._shards) < _MAX_SHARDS:
                self._shards.add(shard)
            at = self._next_at
        self._scheduler.call(self, max(at, time.monotonic()))

    def run_due(self) -> None:
        """Write what was rung for since the last time."""
        with self._lock:
            shards, self._shards = self._shards, set()
            self._next_at = time.monotonic() + _PAUSE_SECONDS
        if shards:
            self._hint.write(shards)

    def flush(self, timeout_seconds: float = _EXIT_SECONDS) -> None:
        """Write what is left at once, and wait for that, so long at most."""
        with self._lock:
            is_left = bool(self._shards)
        if is_left:
            self._scheduler.call(self)
        self._scheduler.finish(timeout_seconds)


@cache
def _register_exit() -> None:
    atexit.register(flush_all)


def flush_all() -> None:
    """Write all hints of this process that are left, within two seconds; called at the interpreter's end."""
    deadline = time.monotonic() + _EXIT_SECONDS
    for writer in list(_writers):
        writer.flush(max(0.0, deadline - time.monotonic()))
