"""Pauses between the tries of something that failed: one schedule for every loop that tries again.

Also `WAKE_SECONDS`, the longest piece of a long wait.

::

    for _ in Backoff(0.5, 5.0).tries(time.sleep):
        try:
            return request()
        except StorageError:
            if give_up():
                raise

Pure: the caller hands in what sleeps. Imports nothing of the package.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

__all__ = ["WAKE_SECONDS", "Backoff"]

#: How long a wait of the main thread lasts at most before it is begun again: Python calls the handler of a signal when
#: the wait ends, where the system gave the signal to another thread, or just before the wait began.
WAKE_SECONDS = 0.5

_MAX_DOUBLINGS = 30


@dataclass(frozen=True)
class Backoff:
    """A pause that doubles from try to try, up to a limit."""

    #: Seconds after the first try.
    first_seconds: float
    #: Seconds that no pause exceeds.
    most_seconds: float
    #: Random part of a pause, as a fraction of it: 0 always waits the whole pause, 1 waits any part of it.
    jitter: float = 0.0

    def pause_after(self, tries: int) -> float:
        """Return the seconds to wait after so many tries, from 1."""
        whole = min(self.most_seconds, self.first_seconds * 2.0 ** min(tries - 1, _MAX_DOUBLINGS))
        return whole * (1 - self.jitter * random.random()) if self.jitter else whole

    def tries(self, sleep: Callable[[float], object], *, most: int | None = None) -> Iterator[int]:
        """Yield 1, 2, 3, … with a pause between them; ``most`` numbers at most, and no pause after the last."""
        for number in count(1):
            yield number
            if number == most:
                return
            sleep(self.pause_after(number))
