"""`HintWatch`: when a worker looks at the hint of `oq_nb.store.hint`, and what it makes of it.

Invariants:

* A hint that is new leads to one listing of the index, no more: whatever is submitted for others, looks and listings
  become as rare as without hints.
* Nothing is asked while the index is listed as often anyway.

For the polling thread. Imports of the package: `store`, and `pauses` of this room.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from oq_nb.store.hint import ReadyHint
from oq_nb.worker.pauses import PollPauses

__all__ = ["HintWatch"]

_TIDY_SECONDS = 3600.0


class HintWatch:
    """Looks at the hint when that is due.

    Args:
        hint: what is looked at.
        pauses: how long between two looks.
        workers: returns how many workers the queue has, as far as known.
    """

    def __init__(self, hint: ReadyHint, pauses: PollPauses, workers: Callable[[], int]) -> None:
        self._hint, self._pauses, self._workers = hint, pauses, workers
        self._next_at = float("-inf")
        self._tidy_at = float("-inf")
        self._in_vain = 0
        self._is_followed = False  # a listing follows that a hint has led to

    def next_at(self, idle_since: float, now: float) -> float:
        """Return the monotonic time of the next look; infinity while looking is of no use."""
        if not self._hint.is_readable or not self._pauses.needs_hint(now - idle_since, workers=self._workers()):
            return float("inf")
        return self._next_at

    def look(self, idle_since: float, now: float) -> set[str] | None:
        """Return the shards of a new hint, None when there is none or no look is due. Requests: 1 GET, or none.

        Once an hour 1 LIST more, and 1 DELETE for each old version.
        """
        if self.next_at(idle_since, now) > now:
            return None
        if now >= self._tidy_at:
            self._tidy_at = now + _TIDY_SECONDS * random.uniform(1, 2)
            self._hint.tidy()
        shards = self._hint.look()
        self._is_followed = shards is not None
        if shards is None:
            self._in_vain = 0
        self._next_at = now + self._pauses.for_hint(now - idle_since, workers=self._workers(), in_vain=self._in_vain)
        return shards

    def listed(self, *, has_found: bool) -> None:
        """Note whether a listing of the index had something to run."""
        if has_found:
            self._in_vain = 0
        elif self._is_followed:
            self._in_vain += 1
        self._is_followed = False
