"""Store time: what the store's ``Date`` headers say, carried on by the monotonic clock.

A ``Date`` header has a resolution of one second, so each response only bounds the store's time: it was in
``[Date, Date + 1 s)`` at some moment between sending and receiving. `Clock` intersects these bounds; after a few
responses it knows the store's time far better than a second. When a bound contradicts the rest (the machine slept,
the store's clock was set) the clock starts over from that response.

Within the bounds the machine's own time is the best guess, since most machines' clocks are set: two programs that have
seen different answers then have the same time, and what one submits is due at once for the other. Where it is outside,
it is wrong, and the middle of the bounds is taken.

No request is made here. Imports nothing of the package but `model`.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import lru_cache

from oq_nb.model import Timestamp

__all__ = ["Clock"]

_DRIFT = 100e-6  # how far two clocks may drift apart, seconds a second
_SET_BACK = timedelta(seconds=5)  # a greater step back is no correction: the store's clock was set


@lru_cache(maxsize=4)  # a second's answers all say the same
def _seconds_of(date: str) -> float:
    return parsedate_to_datetime(date).timestamp()


_clocks: weakref.WeakSet[Clock] = weakref.WeakSet()


class Clock:
    """The store's time, as far as its answers tell; the machine's own time before the first one.

    Args:
        monotonic: seconds of a clock that never goes back.
        wall: seconds since 1970 by the machine's own clock.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self.monotonic = monotonic
        self.wall = wall
        self._lock = threading.Lock()
        # Bounds of (store time - monotonic time), valid at monotonic time `_seen`.
        self._low: float | None = None
        self._high = 0.0
        self._seen = 0.0
        self._last = datetime.min.replace(tzinfo=timezone.utc)
        _clocks.add(self)

    def renew_lock(self) -> None:
        """Take a new lock, in a forked process: a thread of the parent may have held the old one."""
        self._lock = threading.Lock()

    @property
    def is_synchronised(self) -> bool:
        """Whether a response has told the store's time yet."""
        return self._low is not None

    def observe(self, date: str | None, sent: float, received: float) -> None:
        """Take in the ``Date`` header of a response; one that cannot be read is passed over.

        Args:
            date: the header's text.
            sent: monotonic seconds when the request was sent.
            received: monotonic seconds when its answer was there.
        """
        if not date:
            return
        try:
            stamp = _seconds_of(date)
        except (ValueError, TypeError):
            return
        low, high = stamp - received, stamp + 1 - sent
        with self._lock:
            if self._low is not None:
                drift = max(0.0, received - self._seen) * _DRIFT
                kept_low, kept_high = max(low, self._low - drift), min(high, self._high + drift)
                if kept_low <= kept_high:
                    low, high = kept_low, kept_high
            self._low, self._high, self._seen = low, high, received

    def now(self) -> datetime:
        """Return the store's time, UTC; not before a `stamp`, so that what was just written is not in the future."""
        with self._lock:
            now = datetime.fromtimestamp(self._likely(), timezone.utc)
            return self._last if timedelta(0) < self._last - now < _SET_BACK else now

    def _likely(self) -> float:
        """Return the likeliest time of the store, seconds since 1970. Under the lock."""
        own = self.wall()
        if self._low is None:
            return own
        now = self.monotonic()
        return own if self._low <= own - now <= self._high else now + (self._low + self._high) / 2

    def earliest(self) -> datetime:
        """Return the earliest that the store's time can be, UTC: a lease that is over by it is over for sure.

        It is at most a second behind `now`, unless all answers so far were slow.
        """
        with self._lock:
            if self._low is None:
                return datetime.fromtimestamp(self.wall(), timezone.utc)
            now = self.monotonic()
            return datetime.fromtimestamp(now + self._low - max(0.0, now - self._seen) * _DRIFT, timezone.utc)

    def stamp(self) -> Timestamp:
        """Return the store's time for writing, later than any that was given out before by this clock."""
        now = self.now()
        with self._lock:
            if now <= self._last and self._last - now < _SET_BACK:
                now = self._last + timedelta(microseconds=1)
            self._last = now
        return Timestamp.of(now)


def _renew_locks() -> None:
    for clock in list(_clocks):
        clock.renew_lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
