"""Iterate at the speed of C: chunks of an iterable, Python only between two chunks, the position readable at any time.

The caller's ``for`` runs on ``chain.from_iterable`` over ``islice``: no Python code per item. Between two chunks the
generator behind it is back in the loop's own thread, where it may redraw a bar or raise. Chunks grow and shrink so that
one takes some 25 to 100 ms, and hold 256 items at most: that bounds what a loop that turns slow can hide.

Invariants:

* Items, their order, and the exceptions of the iterable are those of a plain loop; nothing is read ahead of the loop.
* ``at_end`` is called exactly once, on exhaustion, ``break``, an exception, or garbage collection.

Pure: no I/O, nothing of the package is imported.
"""

from __future__ import annotations

import dis
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, compress, count, islice
from operator import length_hint
from types import FrameType
from typing import Any, TypeVar

__all__ = ["Ending", "Loop"]

T = TypeVar("T")

_MOST_ITEMS = 256
_SHORT_SECONDS, _LONG_SECONDS = 0.025, 0.1

_SAMPLES: tuple[Iterable[Any], ...] = (
    (),
    [],
    range(1),
    range(1 << 80),
    "",
    b"",
    bytearray(),
    {},
    {}.values(),
    {}.items(),
    set(),
    deque(),
)
#: Iterators whose length hint is exact: what is left, at any time, from any thread.
_EXACT = frozenset(type(iter(sample)) for sample in _SAMPLES) | {type(reversed([])), type(reversed(range(1)))}

#: Where a frame stands when it drops the iterator of its ``for`` without an exception.
_LEAVES_LOOP = frozenset(
    dis.opmap[name]
    for name in ("POP_TOP", "POP_ITER", "END_FOR", "RETURN_VALUE", "RETURN_CONST", "YIELD_VALUE", "RESUME", "SEND")
    if name in dis.opmap
)
_FOR_ITER = dis.opmap["FOR_ITER"]


@dataclass(frozen=True)
class Ending:
    """How a loop ended.

    Args:
        count: items that the loop was done with.
        is_exhausted: whether the iterable came to its end.
        error: what was raised, as far as it is known.
        frame: where the loop was, when an exception ended it that cannot be seen from here.
    """

    count: int
    is_exhausted: bool = False
    error: BaseException | None = None
    frame: FrameType | None = None


class Loop(Iterable[T]):
    """One pass over an iterable.

    Args:
        iterable: anything that ``iter`` takes.
        at_boundary: called between two chunks when `due` has come; returns the next time. It may raise.
        at_end: called once when the loop is over, in the thread that ends it.
    """

    def __init__(
        self, iterable: Iterable[T], at_boundary: Callable[[], float], at_end: Callable[[Ending], None]
    ) -> None:
        self._at_boundary = at_boundary
        self._at_end = at_end
        #: When ``at_boundary`` is called next, on `time.perf_counter`; another thread may set it to 0.
        self.due = 0.0
        self._items: Iterator[T] = iter(iterable)
        self._length: Callable[[], int] | None = None
        if type(self._items) in _EXACT:
            size = length_hint(self._items)
            # A list may grow while it is iterated over.
            self._length = iterable.__len__ if type(iterable) is list else lambda: size
        else:
            self._counter = count(1)
            self._items = compress(self._items, self._counter)
        self._source = self._items
        self._is_in_body = False

    def __iter__(self) -> Iterator[T]:
        return chain.from_iterable(self._chunks())

    @property
    def count(self) -> int:
        """Items that the loop is done with; the one in its body is not counted. From any thread."""
        if self._length is not None:
            handed = self._length() - length_hint(self._source)
        else:
            handed = int(repr(self._counter)[6:-1]) - 1  # it shows its next value, and nothing else does
        return max(0, handed - 1 if self._is_in_body else handed)

    def _chunks(self) -> Iterator[Iterable[T]]:
        caller: FrameType | None = sys._getframe(1)
        is_for = _opcode(sys._getframe(1)) == _FOR_ITER
        ending: Ending | None = None
        items, is_sized, clock = self._items, self._length is not None, time.perf_counter
        size, last = 1, clock()
        try:
            while True:
                if is_sized and length_hint(items):
                    self._is_in_body = True
                    yield islice(items, size)
                else:  # a dict that has changed hints at nothing: asking it for an item raises
                    first = next(items, _END)
                    if first is _END:
                        break
                    self._is_in_body = True
                    yield (first,) if size == 1 else chain((first,), islice(items, size - 1))
                    del first
                self._is_in_body = False
                now = clock()
                if now - last < _SHORT_SECONDS:
                    size = min(size * 2, _MOST_ITEMS)
                elif now - last > _LONG_SECONDS:
                    size = max(size // 2, 1)
                last = now
                if now >= self.due:
                    self.due = self._at_boundary()
            ending = Ending(self.count, is_exhausted=True)
        except GeneratorExit:
            ending = self._left(caller if is_for else None)
            raise
        except BaseException as exc:
            ending = Ending(self.count, error=exc)
            raise
        finally:
            caller = None
            self._at_end(ending or Ending(self.count))

    def _left(self, loop_frame: FrameType | None) -> Ending:
        """Return how the loop was left before its end: by its own will, or because an exception unwinds its frame.

        The exception itself cannot be seen from here. A ``for`` holds its iterator on its frame's stack: it is dropped
        by a few instructions only, or by unwinding. Where the loop is no plain ``for``, nothing is guessed.
        """
        frame = sys._getframe(2)
        code = _opcode(frame) if frame is loop_frame else None
        if code is None or code in _LEAVES_LOOP:
            return Ending(self.count)
        self._is_in_body = self._is_in_body and code != _FOR_ITER  # else the iterable itself has raised
        return Ending(self.count, frame=frame)


_END: Any = object()


def _opcode(frame: FrameType) -> int | None:
    at = frame.f_lasti
    return frame.f_code.co_code[at] if at >= 0 else None
