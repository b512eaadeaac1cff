"""`Backlog`: index entries between the thread that finds them and the threads that handle them.

Invariants:

* A thread that took an entry counts as busy until it calls `done`, whatever becomes of the entry.
* After `close` nothing is given out, and whoever waits returns.
* Where the number of attempts is limited, no entry is given out that could lead to one too many.

Imports of the package: `backoff`, `store`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from oq_nb.backoff import WAKE_SECONDS
from oq_nb.store.index import IndexEntry

__all__ = ["Backlog"]


class Backlog:
    """Index entries that wait for a handler thread.

    Args:
        concurrency: number of handler threads.
        is_blocked: while it returns true nothing is given out, and no more is wanted.
        max_attempts: how many entries may lead to an attempt; None: any number.
    """

    def __init__(
        self,
        concurrency: int,
        *,
        is_blocked: Callable[[], bool] = lambda: False,
        max_attempts: int | None = None,
    ) -> None:
        self._concurrency = concurrency
        self._is_blocked = is_blocked
        self._changed = threading.Condition()  # guards what follows
        self._entries: deque[IndexEntry] = deque()
        self._busy = 0
        self._idle_since = time.monotonic()
        #: When (monotonic) an attempt ended the last time; minus infinity before the first.
        self.attempt_ended_at: float = float("-inf")
        self._attempts_left = float("inf") if max_attempts is None else max_attempts
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
        has_room = len(self._entries) < self._concurrency and self._busy < self._concurrency
        return has_room and self._attempts_left > 0 and not self._is_blocked()

    @property
    def idle_since(self) -> float | None:
        """Since when (monotonic) no handler thread is busy and no entry waits; None while one does."""
        with self._changed:
            return self._idle_since if self._is_idle else None

    @property
    def is_spent(self) -> bool:
        """Whether there were as many attempts as there may be, and all have ended."""
        with self._changed:
            return self._attempts_left <= 0 and self._busy == 0

    @property
    def _is_idle(self) -> bool:
        return self._busy == 0 and not self._entries

    # --- the handler threads' side

    def take(self) -> IndexEntry | None:
        """Wait for an entry; return None once the backlog is closed."""
        with self._changed:
            while not self._is_closed and (not self._entries or self._attempts_left <= 0 or self._is_blocked()):
                self._changed.wait()
            if self._is_closed:
                return None
            self._busy += 1
            self._attempts_left -= 1
            return self._entries.popleft()

    def done(self, *, was_attempt: bool = True) -> None:
        """Say that the entry taken last has been handled, and whether its task was claimed."""
        with self._changed:
            self._busy -= 1
            if was_attempt:
                self.attempt_ended_at = time.monotonic()
            else:
                self._attempts_left += 1
            if self._is_idle:
                self._idle_since = time.monotonic()
            if len(self._entries) < self._concurrency or not was_attempt:
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
        """Wait until no handler thread is busy; return whether that is so. A second Ctrl-C is heard meanwhile."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while self._busy and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(min(left, WAKE_SECONDS))
            return self._busy == 0
