"""Iterate at the speed of C: chunks of an iterable, Python only between two chunks, the position readable at any time.

The caller's ``for`` runs on ``chain.from_iterable`` over chunks that are C iterators: no Python code per item. Between
two chunks the generator behind it is back in the loop's own thread, where it may redraw a bar or raise. Chunks grow and
shrink so that one takes some 25 to 100 ms, and hold 1,024 items at most. A chunk takes one ticket from a list for each
item: another thread that empties the list (`Loop.hurry`) brings the loop back to Python at its next item.

* Over a sequence a chunk is ``compress(items, tickets)``. It takes an item before its ticket, so the one that found no
  ticket is looked up again (`_last_of`) and handed out first.
* Over anything else, where an item cannot be had twice, it is ``map({}.get, tickets, items)``: the ticket comes first,
  and an item costs twice as much. A ticket without an item says that the iterable has raised.

Invariants:

* Items, their order, and the exceptions of the iterable are those of a plain loop; nothing is read ahead of the loop,
  and no item is lost when a chunk is cut short.
* ``at_begin`` is called before the first item, ``at_end`` exactly once after it: on exhaustion, ``break``, an
  exception, or garbage collection.
* It rests on what CPython does; `is_possible` tries it, once, and where it does not hold there is no such loop.

Pure: no I/O; imports `frames` of this room.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, compress, count, islice
from operator import length_hint
from types import FrameType
from typing import Any, TypeVar

from oq_nb.progress import frames

__all__ = ["Ending", "Loop", "is_possible"]

T = TypeVar("T")

_MOST_ITEMS = 1024
_SHORT_SECONDS, _LONG_SECONDS = 0.025, 0.1

#: Iterators over what cannot change: their length hint is what is left, at any time, from any thread. Those of dicts,
#: sets and deques hint at nothing once their container has changed, so they are counted.
_EXACT = frozenset(type(iter(sample)) for sample in ((), range(1), range(1 << 80), "", "\xff", b""))


@dataclass(frozen=True)
class Ending:
    """How a loop ended.

    Args:
        count: items that the loop was done with.
        is_exhausted: whether the iterable came to its end.
        error: what was raised, as far as it is known.
        left_at: where the loop was, when an exception ended it, or may have, that cannot be seen from here.
    """

    count: int
    is_exhausted: bool = False
    error: BaseException | None = None
    left_at: frames.Exit | None = None

    @property
    def is_failed(self) -> bool:
        """Whether an exception ended the loop for certain."""
        return self.error is not None or (self.left_at is not None and self.left_at.is_certain)


class Loop(Iterable[T]):
    """One pass over an iterable.

    Args:
        iterable: anything that ``iter`` takes.
        at_boundary: called between two chunks when `due` has come; returns the next time. It may raise.
        at_end: called once when the loop is over, in the thread that ends it.
        at_begin: called once before the first item, with where the ``for`` is.
    """

    def __init__(
        self,
        iterable: Iterable[T],
        at_boundary: Callable[[], float],
        at_end: Callable[[Ending], None],
        at_begin: Callable[[frames.Place | None], None] = lambda _: None,
    ) -> None:
        self._at_begin = at_begin
        self._at_boundary = at_boundary
        self._at_end = at_end
        self._due = 0.0  # when `at_boundary` is called next, on `time.perf_counter`
        self._is_hurried = False
        self._tickets: list[bool] = []
        self._items: Iterator[T] = iter(iterable)
        self._has_length = False
        self._handed: Callable[[], int]
        if type(self._items) in _EXACT:
            items, size = self._items, length_hint(self._items)
            self._has_length, self._handed = True, lambda: size - length_hint(items)
        elif type(self._items) is _LIST_ITERATOR and (owner := _list_of(self._items)) is not None:
            self._has_length, self._handed = True, partial(_index_in, self._items, owner)
        else:
            counter = count(1)
            self._items = compress(self._items, counter)
            self._handed = lambda: int(repr(counter)[6:-1]) - 1  # it shows its next value, and nothing else does
        self._least = 0  # that many were handed out at the last boundary
        self._is_in_body = False
        self._has_begun = False

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self.chunks())

    @property
    def count(self) -> int:
        """Items that the loop is done with; the one in its body is not counted. From any thread."""
        handed = max(self._handed(), self._least)
        return max(0, handed - 1 if self._is_in_body else handed)

    def hurry(self) -> None:
        """Have ``at_boundary`` called before the loop's next item; from any thread."""
        self._is_hurried = True  # first this, then that: the loop does the reverse, so that it misses neither
        self._tickets.clear()

    def chunks(self) -> Generator[Iterable[T], None, None]:
        """Yield the items in chunks, for ``chain.from_iterable``; closing it ends the loop as dropping it does."""
        __tracebackhide__ = True
        taken_at = frames.for_place(frames.caller_of())
        ending: Ending | None = None
        items, has_length, clock = self._items, self._has_length, time.perf_counter
        size, last, is_cut = 1, clock(), False
        asking: Callable[[], bool] = _never  # whether an item was asked for, and has not come
        try:
            self._at_begin(taken_at)
            while True:
                self._tickets = tickets = [True] * (size + 1 if has_length else size - 1)
                if self._is_hurried or (last >= self._due and self._has_begun):
                    self._is_hurried = False
                    self._due = self._at_boundary()
                if is_cut:
                    is_cut = False
                    yield (_last_of(items),)
                elif has_length and length_hint(items):
                    self._is_in_body = True
                    taking = iter(tickets)
                    yield compress(islice(items, size), taking)
                    is_cut = _has_ended(taking) and not tickets
                else:
                    first = next(items, _END)
                    if first is _END:
                        break
                    self._is_in_body = True
                    taking = iter(tickets)
                    asking = partial(_is_ahead, taking, self._handed, self._handed())
                    yield (first,) if size == 1 else chain((first,), map(_second, taking, items))
                    asking = _never
                    del first
                self._is_in_body = is_cut  # there is an item that the body has not had
                self._has_begun = True
                if has_length:
                    self._least = self._handed()
                now = clock()
                if now - last < _SHORT_SECONDS:
                    size = min(size * 2, _MOST_ITEMS)
                elif now - last > _LONG_SECONDS:
                    size = max(int(size * _LONG_SECONDS / 2 / (now - last)), 1)
                last = now
            ending = Ending(self.count, is_exhausted=True)
        except GeneratorExit:
            ending = self._left(taken_at, frames.caller_of(), asking())
            raise
        except BaseException as exc:
            ending = Ending(self.count, error=exc)
            raise
        finally:
            taken_at = None
            self._at_end(ending or Ending(self.count))

    def _left(self, taken_at: frames.Place | None, dropped_by: FrameType | None, has_raised: bool) -> Ending:
        """Return how the loop was left before its end."""
        is_asking = has_raised or frames.is_asking(taken_at, dropped_by)
        self._is_in_body = self._is_in_body and not is_asking
        return Ending(self.count, left_at=frames.how_left(taken_at, dropped_by, has_raised=has_raised))


@cache
def is_possible() -> bool:
    """Return whether this interpreter does what a `Loop` rests on; tried once, in well under a millisecond."""
    try:
        five = range(5)
        samples = (five, [*five], (*five,), "abcde", b"abcde", iter([*five]), dict.fromkeys(five), (n for n in five))
        return (
            frames.tells_apart()
            and all(map(_is_counted, samples))
            and all(map(_is_hurried, _forty()))
            and _is_known_to_raise()
        )
    except Exception:
        return False


def _is_counted(five: Iterable[Any]) -> bool:
    endings: list[Ending] = []
    visits = iter([0.0] * 9)  # a loop that never ends ends here
    loop = Loop(five, lambda: next(visits), endings.append)
    counts = [loop.count for _ in loop]
    return counts == [0, 1, 2, 3, 4] and [ending.count for ending in endings] == [5]


def _forty() -> Iterator[Iterable[Any]]:
    """Yield 40 different items in each kind of iterable that has a way of its own here."""
    numbers = range(40)
    letters = "".join(map(chr, range(65, 105)))
    yield from (numbers, range(400, 0, -10), range(1 << 80, (1 << 80) + 40), [*numbers], (*numbers,), bytes(numbers))
    yield from (letters, letters.replace("a", "\xff"), dict.fromkeys(numbers), (number for number in numbers))


def _is_hurried(forty: Iterable[Any]) -> bool:
    """Return whether a loop comes back at its next item, wherever it is, and loses none."""
    expected = [*forty] if hasattr(forty, "__len__") else [*range(40)]
    visits: list[int] = []

    def at_boundary() -> float:
        visits.append(loop.count)
        return float("inf")

    loop = Loop(forty, at_boundary, lambda _: None)
    met = []
    for number, item in enumerate(loop):
        met.append(item)
        if number in (1, 2, 20, 21, 37, 38, 39):
            loop.hurry()
    return met == expected and visits == [1, 2, 3, 21, 22, 38, 39, 40]


def _is_known_to_raise() -> bool:
    """Return whether an iterable that raises in the middle of a chunk is told from a loop that is left."""
    endings: list[Ending] = []
    for last in (lambda: 1 // 0, lambda: None):
        items = (last() if number == 5 else number for number in range(9))
        loop = iter(Loop(items, lambda: float("inf"), endings.append))
        try:
            while next(loop) is not None:
                pass
        except ZeroDivisionError:
            pass
        del loop
    return [(ending.count, ending.is_failed) for ending in endings] == [(5, True), (5, False)]


_END: Any = object()
_second: Any = {}.get  # of two arguments it returns the second: nothing is in there
_LIST_ITERATOR: type = type(iter([]))


def _last_of(iterator: Any) -> Any:
    """Return the item that an iterator over a sequence has handed out last; it has not come to its end."""
    parts = iterator.__reduce__()
    sequence, index = parts[1][0], parts[2]
    # From CPython 3.12 on a range's iterator shows the range that is left.
    return sequence.start - sequence.step if index is None else sequence[index - 1]


def _list_of(iterator: Any) -> list[Any] | None:
    """Return the list that a list's iterator goes over, when it is at its beginning."""
    parts = iterator.__reduce__()
    is_fresh = len(parts) == 3 and parts[2] == 0 and type(parts[1][0]) is list
    return parts[1][0] if is_fresh else None


def _has_ended(iterator: Any) -> bool:
    """Return whether a list's iterator was asked for more than there was."""
    return len(iterator.__reduce__()) == 2


def _never() -> bool:
    return False


def _is_ahead(tickets: Any, handed: Callable[[], int], handed_before: int) -> bool:
    """Return whether more tickets were taken than items since, and there are tickets left."""
    parts = tickets.__reduce__()
    return len(parts) == 3 and parts[2] > handed() - handed_before


def _index_in(iterator: Any, items: list[Any]) -> int:
    """Return how many items a list's iterator has handed out; the list may have grown or shrunk meanwhile."""
    parts = iterator.__reduce__()
    return parts[2] if len(parts) == 3 else len(items)
