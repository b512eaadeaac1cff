"""`Backlog`: index entries between the thread that finds them and the threads that handle them.

Invariants:

* A thread that took an entry counts as busy until it calls `done`, whatever becomes of the entry.
* After `close` nothing is given out, and whoever waits returns.

Imports nothing of the package but `store`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable

from oq_nb.store.index import IndexEntry

__all__ = ["Backlog"]


class Backlog:
    """Index entries that wait for a handler thread.

    Args:
        concurrency: number of handler threads.
        is_blocked: while it returns true nothing is given out, and no more is wanted.
    """

    def __init__(self, concurrency: int, *, is_blocked: Callable[[], bool] = lambda: False) -> None:
        self._concurrency = concurrency
        self._is_blocked = is_blocked
        self._changed = threading.Condition()  # guards what follows
        self._entries: deque[IndexEntry] = deque()
        self._busy = 0
        self._is_woken = False
        self._urgent: set[str] = set()  # shards
        self._is_closed = False

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"<Backlog of {len(self._entries)} entries, {self._busy}/{self._concurrency} busy>"

    @property
    def is_closed(self) -> bool:
        """Whether the worker stops."""
        return self._is_closed

    @property
    def wants_more(self) -> bool:
        """Whether a handler thread is idle, or will soon have nothing to take."""
        with self._changed:
            return self._wants_more()

    def _wants_more(self) -> bool:
        return len(self._entries) < self._concurrency and self._busy < self._concurrency and not self._is_blocked()

    # --- the handler threads' side

    def take(self) -> IndexEntry | None:
        """Wait for an entry; return None once the backlog is closed."""
        with self._changed:
            while not self._is_closed and (not self._entries or self._is_blocked()):
                self._changed.wait()
            if self._is_closed:
                return None
            self._busy += 1
            return self._entries.popleft()

    def done(self) -> None:
        """Say that the entry taken last has been handled."""
        with self._changed:
            self._busy -= 1
            if len(self._entries) < self._concurrency:
                self._changed.notify_all()

    # --- the polling thread's side

    def offer(self, entries: Iterable[IndexEntry]) -> None:
        """Add entries, unless the backlog is closed."""
        with self._changed:
            if not self._is_closed:
                self._entries.extend(entries)
                self._changed.notify_all()

    def wait(self, seconds: Callable[[bool], float]) -> None:
        """Wait until something has changed, but not when it was woken or closed already.

        Args:
            seconds: returns how long at most, given whether more is wanted.
        """
        with self._changed:
            if not self._is_closed and not self._is_woken:
                self._changed.wait(max(0.0, seconds(self._wants_more())))

    def clear_wake(self) -> set[str] | None:
        """Return the shards that `wake` was called with since the last time; None when it was not called."""
        with self._changed:
            if not self._is_woken:
                return None
            self._is_woken = False
            shards, self._urgent = self._urgent, set()
            return shards

    # --- the worker's side

    def wake(self, shard: str | None = None) -> None:
        """Have the polling thread look for tasks now, in this shard first where it cannot look at all at once."""
        with self._changed:
            self._is_woken = True
            if shard is not None:
                self._urgent.add(shard)
            self._changed.notify_all()

    def close(self) -> None:
        """Give out nothing more; forget the entries that wait."""
        with self._changed:
            self._is_closed = True
            self._entries.clear()
            self._changed.notify_all()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no handler thread is busy; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._busy == 0, seconds)
