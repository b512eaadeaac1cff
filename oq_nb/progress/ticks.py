"""Ticks: bring running loops back to Python from time to time, although an item of theirs may take long.

One thread per process (``oq-scheduler-ticks-…``), which ends by itself when no loop runs. Where no thread can be
started there are no ticks: a loop then comes back at the end of each chunk.

Imports of the package: `attempt.scheduler`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from oq_nb.attempt.scheduler import Scheduler

__all__ = ["Ticks"]

_LINGER_SECONDS = 1.0

_scheduler: Scheduler


def _new_scheduler() -> None:
    global _scheduler
    _scheduler = Scheduler("ticks", max_threads=1, linger_seconds=_LINGER_SECONDS)


_new_scheduler()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_scheduler)


class Ticks:
    """Calls something every so many seconds, until `stop`.

    Args:
        call: must neither block nor raise.
        seconds: between two calls.
    """

    def __init__(self, call: Callable[[], None], seconds: float) -> None:
        self._call, self._seconds = call, seconds
        self._is_stopped = False
        self._scheduler = _scheduler
        try:
            self._scheduler.call(self, time.monotonic() + seconds)
        except RuntimeError:  # no thread can be started here
            self._is_stopped = True

    def stop(self) -> None:
        """Call no more."""
        if not self._is_stopped:
            self._is_stopped = True
            self._scheduler.forget(self)

    def run_due(self) -> float | None:
        """Call once; return when to call again."""
        if self._is_stopped:
            return None
        self._call()
        return time.monotonic() + self._seconds
