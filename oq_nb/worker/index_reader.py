"""`IndexReader`: reads an index with one LIST each time, however many entries stand in it.

While the entries of all shards fit on one page, a read returns those of all shards. Else a read returns those of one
shard, in the order of their minutes, and the shards take turns, in a new random order each round. Besides its turn:

* A shard is read out of turn when something is known to be due there: a task scheduled for this minute, or a task that
  was just submitted. Only what stands there from that minute on is read.
* A shard is read on where a page was full, or entries of it were left over: at every second read, so that neither this
  shard nor the others have to wait.
* Whole pages with nothing for this worker (tasks of types that it has no handler for) are passed over from then on, and
  read again at every second read (seldom while a shard is read on), a page at a time: a task may be handed back there.
* Of a shard that had nothing but tasks for later, only the first entries are read: a page of 1,000 takes a store 90 ms.

Invariants:

* 1 LIST a read.
* Every entry is read again while it stands, wherever it stands.

Not for several threads at once. Imports nothing of the package but `errors` and `store`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from oq_nb.errors import StorageError
from oq_nb.store.index import PAGE_SIZE, Index, IndexEntry, IndexScan

__all__ = ["IndexReader"]


_SHORT = 64  # entries of a short page
_LATE_MINUTES = 2  # an entry may be seen so long after the minute that it stands in
_TURNS_WHILE_UNFINISHED = 4  # between two reads of what was passed over, while a shard is to be read on
_MAX_URGENT = 32  # reads before a shard has its turn


@dataclass
class _Passed:
    """The beginning of a shard, which had nothing for this worker."""

    until: str  # this key
    read_again: str = ""  # up to this key


@dataclass(frozen=True)
class _Place:
    """What a read begins with: a shard, after a key, "" for the shard's first entry."""

    shard: str
    after: str = ""
    is_again: bool = False  # it was passed over


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
        self._urgent: dict[str, str] = {}  # shard to be read out of turn → after which key, in order
        self._unfinished: dict[str, str] = {}  # shard to be read on → after which key, in order
        self._passed: dict[str, _Passed] = {}  # shard → what was passed over there, in order
        self._ahead: set[str] = set()  # shards whose first entries were of later minutes
        self._later: dict[str, str] = {}  # shard → the earliest minute that was skipped there
        self._since_turn: Counter[str] = Counter()  # reads since a shard had its turn, by kind
        self._turns_since_again = 0  # shards that had their turn since something passed over was read
        self._last: _Place | None = None  # what was read last; None: all shards at once

    @property
    def reads_a_round(self) -> int:
        """Number of reads that it takes to see all entries, but those that are passed over."""
        if not self._is_by_shard:
            return 1
        return len(self._shards) * (2 if self._passed else 1)

    @property
    def has_urgent(self) -> bool:
        """Whether a shard is to be read out of turn, or on."""
        return bool(self._urgent or self._unfinished)

    @property
    def is_unfinished(self) -> bool:
        """Whether a shard is to be read on."""
        return bool(self._unfinished)

    def hurry(self, keys: Iterable[str]) -> None:
        """Read shards before others, where shards take turns.

        Args:
            keys: of entries that are due there.
        """
        for key in keys:
            self._hurry(key.split("/")[1], key[:-1])

    def hurry_new(self, shards: Iterable[str], minute: str) -> None:
        """Read shards before others in which tasks were submitted lately, where shards take turns.

        Args:
            shards: in which.
            minute: the present one.
        """
        for shard in shards:
            self._hurry(shard, self._start_of(shard, _a_while_before(minute)))

    def _hurry(self, shard: str, after: str) -> None:
        if self._is_by_shard and shard in self._shards:
            self._urgent[shard] = min(after, self._urgent.get(shard, after))

    def read_on(self) -> None:
        """Say that entries of the last read were left over: they are read again soon, in turn with the other shards."""
        if self._last is not None:
            self._unfinished[self._last.shard] = self._last.after

    def start_over(self) -> None:
        """Pass over nothing: this worker may want other entries now."""
        self._passed.clear()

    def read(self, minute: str, wants: Callable[[IndexEntry], bool] | None = None) -> list[IndexEntry]:
        """Return entries up to a minute. Requests: 1 LIST.

        Args:
            minute: the latest.
            wants: skip entries for which this is false.
        """
        self._last = place = self._next_place(minute) if self._is_by_shard else None
        try:
            if place is None:
                found = self._index.scan(self._prefix, until_minute=minute, wants=wants, limit=PAGE_SIZE, max_pages=1)
                self._note_all(found)
            else:
                found = self._index.scan(
                    f"{self._prefix}{place.shard}/",
                    until_minute=minute,
                    wants=wants,
                    limit=PAGE_SIZE,
                    max_pages=1,
                    first=_SHORT if place.shard in self._ahead and not place.is_again else None,
                    after=place.after,
                )
                self._note_shard(place, found, minute)
        except StorageError:
            if place is not None and not place.is_again:
                self.read_on()  # what was to be found there is not forgotten
            raise
        return found

    # --- where to read

    def _next_place(self, minute: str) -> _Place | None:
        """Return what to read; None at the end of a round, when all shards are tried at once again."""
        for shard, later in list(self._later.items()):
            if later <= minute:
                del self._later[shard]
                self._hurry(shard, self._start_of(shard, later))
        if self._urgent and self._may("urgent", _MAX_URGENT):
            shard = next(iter(self._urgent))
            return _Place(shard, self._urgent.pop(shard))
        if self._unfinished and self._may("on"):
            shard = next(iter(self._unfinished))
            return _Place(shard, self._unfinished.pop(shard))
        if self._passed and self._turns_since_again >= (_TURNS_WHILE_UNFINISHED if self._unfinished else 1):
            self._turns_since_again = 0
            shard = next(iter(self._passed))
            self._passed[shard] = passed = self._passed.pop(shard)  # the others are before it the next time
            return _Place(shard, passed.read_again, is_again=True)
        self._since_turn.clear()
        self._turns_since_again += 1
        if not self._turns:
            return None
        shard = self._turns.pop()
        passed_until = self._passed[shard].until if shard in self._passed else ""
        return _Place(shard, self._unfinished.pop(shard, passed_until))

    def _may(self, kind: str, most: int = 1) -> bool:
        """Return whether a read of a kind may come before the next turn, and count it."""
        self._since_turn[kind] += 1
        return self._since_turn[kind] <= most

    def _start_of(self, shard: str, minute: str) -> str:
        # With the slash: SeaweedFS leaves out the folder that a marker without it names.
        return f"{self._prefix}{shard}/{minute}/"

    # --- what was read

    def _note_all(self, found: IndexScan) -> None:
        self._is_by_shard = not found.is_whole
        if self._is_by_shard:
            self._turns = random.sample(self._shards, len(self._shards))
            return
        for known in (self._urgent, self._unfinished, self._passed, self._ahead, self._later):
            known.clear()

    def _note_shard(self, place: _Place, found: IndexScan, minute: str) -> None:
        shard = place.shard
        has_ended = found.is_whole or found.later_minute is not None
        passed = self._passed.get(shard)
        if has_ended and not place.after:
            self._passed.pop(shard, None)  # it has become short
        if place.is_again and passed is not None:
            is_through = has_ended or found.last_key >= passed.until
            passed.read_again = "" if is_through else found.last_key
            return
        self._ahead.discard(shard)
        if found.later_minute is not None:
            self._later[shard] = found.later_minute
            if found.seen <= _SHORT // 2:
                self._ahead.add(shard)
        if not has_ended:
            self._unfinished[shard] = min(found.last_key, self._unfinished.get(shard, found.last_key))
            until = min(found.last_key, self._start_of(shard, _a_while_before(minute)))
            known_until = passed.until if passed is not None else ""
            if not found and found.seen >= PAGE_SIZE and place.after <= known_until < until:
                self._passed[shard] = _Passed(until, "" if passed is None else passed.read_again)


def _a_while_before(minute: str) -> str:
    return f"{max(0, int(minute) - _LATE_MINUTES):010d}"
