"""`PollPauses`: how long a worker waits between two looks, by how long it has been idle. Pure.

==========  =========================================================  =====================
look        pause                                                      price of a look
==========  =========================================================  =====================
index       a quarter of the idle time, 0.1 s to ``max_poll_seconds``  1 LIST
the same    for half a second after an attempt of this worker: half    1 LIST
            of the time since then, from 0.02 s
leases      a quarter of the idle time, 2 to 60 s                      1 LIST
hint        a sixtieth of the idle time, 0.5 to 2 s; 3 s after an      1 GET, a twelfth of
            hour; longer with many workers                             a LIST
==========  =========================================================  =====================

Whoever waits for the result of a task may submit the next one right after it: the worker that ran the first one looks
soon. That costs four LIST more for each attempt of a tenth of a second or less, nine at most, whatever the number of
workers.

Imports nothing of the package.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["MIN_POLL_SECONDS", "PollPauses"]

#: Shortest pause between two looks for tasks, but for those right after an attempt.
MIN_POLL_SECONDS = 0.1
_MIN_NEXT_SECONDS, _NEXT_WITHIN_SECONDS = 0.02, 0.5  # shortest pause after an attempt; for how long
_LEASE_SCAN_SECONDS = (2.0, 60.0)
_ROUND_SECONDS = 60.0  # in which all shards are read, where that takes more than one LIST
_HINT_SECONDS = (0.5, 2.0)
_LONG_IDLE_SECONDS, _LONG_IDLE_HINT_SECONDS = 3600.0, 3.0
_HINTS_PER_SECOND = 550.0  # of all workers: a tenth of what S3 promises one prefix
_MAX_DOUBLINGS = 10


@dataclass(frozen=True)
class PollPauses:
    """The pauses of a worker, seconds."""

    #: Longest pause between two looks for tasks.
    max_poll_seconds: float = 15.0
    #: Returns a random number from 0 to 1, so that workers do not look in step.
    draw: Callable[[], float] = random.random

    def for_tasks(
        self,
        idle_seconds: float,
        *,
        since_attempt: float = float("inf"),
        reads_a_round: int = 1,
        is_urgent: bool = False,
    ) -> float:
        """Return the pause between two listings of the index.

        Args:
            idle_seconds: since when nothing was found.
            since_attempt: seconds since an attempt of this worker ended.
            reads_a_round: listings that it takes to see all entries; with more than one, no pause is below
                `MIN_POLL_SECONDS`.
            is_urgent: something is known to be left over.
        """
        pause = MIN_POLL_SECONDS if is_urgent else max(MIN_POLL_SECONDS, idle_seconds / 4)
        if reads_a_round > 1:
            pause = min(pause, _ROUND_SECONDS / reads_a_round)
        elif since_attempt < _NEXT_WITHIN_SECONDS:
            pause = min(pause, max(_MIN_NEXT_SECONDS, since_attempt / 2))
        return min(pause, self.max_poll_seconds) * (0.8 + 0.2 * self.draw())

    def for_leases(self, idle_seconds: float, *, reads_a_round: int = 1) -> float:
        """Return the pause between two listings of the leases."""
        low, high = _LEASE_SCAN_SECONDS
        return min(high / reads_a_round, max(low, idle_seconds / 4))

    def for_hint(self, idle_seconds: float, *, workers: int = 1, in_vain: int = 0) -> float:
        """Return the pause between two looks at the hint.

        Args:
            idle_seconds: since when nothing was found.
            workers: how many workers the queue has, as far as known: all of them look.
            in_vain: hints in a row that led to nothing here; the pause doubles with each, up to the longest one.
        """
        low, high = _HINT_SECONDS
        pause = max(low, min(high, idle_seconds / 60))
        if idle_seconds >= _LONG_IDLE_SECONDS:
            pause = _LONG_IDLE_HINT_SECONDS
        pause *= 2.0 ** min(in_vain, _MAX_DOUBLINGS)
        pause = max(min(pause, self.max_poll_seconds), workers / _HINTS_PER_SECOND)
        return pause * (0.9 + 0.2 * self.draw())

    def needs_hint(self, idle_seconds: float, *, workers: int = 1) -> bool:
        """Return whether looking at the hint is of use: while the index is listed as often, it is not."""
        return min(self.max_poll_seconds, idle_seconds / 4) > max(_HINT_SECONDS[1], workers / _HINTS_PER_SECOND)
