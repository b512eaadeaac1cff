"""`IndexReader`: reads an index with one LIST each time, however many entries stand in it.

While the entries of all shards fit on one page, a read returns those of all shards. Else a read returns those of one
shard, in the order of their minutes, and the shards take turns, in a new random order each round. A shard is read out
of turn when something is known to be due there: a task scheduled for this minute, or a task that was just submitted.
A shard of which entries were left over is read on at every second read, so that neither it nor the others have to wait.
Of a shard that had nothing but tasks for later, only the first entries are read: a page of 1,000 takes a store 90 ms.

Invariants: 1 LIST a read; more only where entries that are not wanted (leftovers, tasks of other workers' types) fill
the page of a shard.

Not for several threads at once. Imports nothing of the package but `store`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence

from oq_nb.store.index import Index, IndexEntry

__all__ = ["IndexReader"]


_SHORT = 64  # entries of a short page


class IndexReader:
    """Reads the entries under ``ready/`` or ``leases/``.

    Args:
        index: where they are.
        prefix: which of the two.
        shards: those to read where the entries of all shards are too many.
    """

    def __init__(self, index: Index, prefix: str, shards: Sequence[str]) -> None:
        self._index, self._prefix, self._shards = index, prefix, shards
        self._is_by_shard = False
        self._turns: list[str] = []  # shards that are still to be read in this round
        self._urgent: dict[str, None] = {}  # shards to be read out of turn, in order
        self._ahead: set[str] = set()  # shards whose first entries were of later minutes
        self._later: dict[str, str] = {}  # shard → the earliest minute that was skipped there
        self._unfinished: dict[str, None] = {}  # shards with wanted entries left over, in order
        self._is_shards_turn = False  # after a shard that is read on, one whose turn it is
        self._last_shard: str | None = None  # the one that was read last; None: all at once

    @property
    def reads_a_round(self) -> int:
        """Number of reads that it takes to see all entries."""
        return len(self._shards) if self._is_by_shard else 1

    @property
    def has_urgent(self) -> bool:
        """Whether a shard is to be read out of turn."""
        return bool(self._urgent or self._unfinished)

    @property
    def is_unfinished(self) -> bool:
        """Whether wanted entries were left over in a shard."""
        return bool(self._unfinished)

    def hurry(self, shards: Iterable[str]) -> None:
        """Read these shards before others, where shards take turns."""
        if self._is_by_shard:
            self._urgent.update((shard, None) for shard in shards if shard in self._shards)

    def read_on(self) -> None:
        """Say that entries of the last read were left over: its shard is read again soon, in turn with the others."""
        if self._last_shard is not None:
            self._unfinished[self._last_shard] = None

    def read(self, minute: str, wants: Callable[[IndexEntry], bool] | None = None) -> list[IndexEntry]:
        """Return entries up to a minute. Requests: 1 LIST.

        Args:
            minute: the latest.
            wants: skip entries for which this is false.
        """
        shard = self._last_shard = self._next_shard(minute) if self._is_by_shard else None
        if shard is not None:
            first = _SHORT if shard in self._ahead else None
            found = self._index.scan(f"{self._prefix}{shard}/", until_minute=minute, wants=wants, first=first)
            self._ahead.discard(shard)
            if found.later_minute is not None:
                self._later[shard] = found.later_minute
                if found.seen <= _SHORT // 2:
                    self._ahead.add(shard)
            elif not found.is_whole and (found or first):  # the page was full
                self.read_on()
            return found
        found = self._index.scan(self._prefix, until_minute=minute, wants=wants, max_pages=1)
        self._is_by_shard = not found.is_whole
        if self._is_by_shard:
            self._turns = random.sample(self._shards, len(self._shards))
        else:
            self._urgent.clear()
            self._ahead.clear()
            self._later.clear()
            self._unfinished.clear()
        return found

    def _next_shard(self, minute: str) -> str | None:
        """Return the shard to read; None at the end of a round, when all are tried again."""
        for shard in [shard for shard, later in self._later.items() if later <= minute]:
            del self._later[shard]
            self._urgent[shard] = None
        if self._urgent:
            return self._take(next(iter(self._urgent)))
        self._is_shards_turn = not self._is_shards_turn
        if self._unfinished and not self._is_shards_turn:
            return self._take(next(iter(self._unfinished)))
        return self._take(self._turns[-1]) if self._turns else None

    def _take(self, shard: str) -> str:
        self._urgent.pop(shard, None)
        self._unfinished.pop(shard, None)
        if shard in self._turns:
            self._turns.remove(shard)
        return shard
