"""How a ``for`` was left: by its own will, or because an exception unwinds its frame.

An iterator is not told why it is dropped. But a ``for`` holds it on its frame's stack, and drops it by a few
instructions only (``break``, ``return``), or by unwinding: the instruction at which the frame stands tells them apart.

It rests on what CPython does: `tells_apart` tries it, once, and callers guess nothing where it does not hold.

Pure: no I/O, nothing of the package is imported.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FrameType
from typing import Any

__all__ = ["Place", "caller_of", "for_place", "is_iterating", "raised_in", "tells_apart"]

#: Where a frame stands when it asks for an item of its ``for`` or ``async for``.
_TAKES_ITEM = frozenset(dis.opmap[name] for name in ("FOR_ITER", "GET_ANEXT") if name in dis.opmap)
#: Where a frame stands when it drops the iterator of its ``for`` without an exception.
_LEAVES_LOOP = frozenset(
    dis.opmap[name] for name in ("POP_TOP", "POP_ITER", "END_FOR", "RETURN_VALUE", "RETURN_CONST") if name in dis.opmap
)
#: Where a generator's frame stands when it is closed; a coroutine's, where an exception comes out of an ``await``.
_PAUSED = frozenset(dis.opmap[name] for name in ("YIELD_VALUE", "YIELD_FROM", "RESUME", "SEND") if name in dis.opmap)
#: Up to Python 3.11 these have frames of their own.
_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>"})
_CACHE = dis.opmap.get("CACHE", -1)


def caller_of(depth: int = 1) -> FrameType | None:
    """Return the frame that called the caller's, or one further out; None when the interpreter ends."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no other way to a frame
    for _ in range(depth):
        frame = frame.f_back if frame is not None else None
    return frame


#: Where a ``for`` is: its frame, or the code of a comprehension.
Place = FrameType | CodeType


def for_place(frame: FrameType | None) -> Place | None:
    """Return where a frame is that just takes an item of a ``for`` or ``async for``, else None."""
    if frame is None or not is_iterating(frame):
        return None
    # A comprehension's frame holds its iterator, which must not hold the frame in turn.
    return frame.f_code if frame.f_code.co_name in _COMPREHENSIONS else frame


def is_iterating(place: Place | None) -> bool:
    """Return whether a frame just takes an item of a ``for`` or ``async for``."""
    return isinstance(place, FrameType) and _opcode(place) in _TAKES_ITEM


def raised_in(frame: Place | None, dropped_by: FrameType | None) -> Place | None:
    """Return the place of a ``for`` when an exception is unwinding it; None when not, or when that cannot be told.

    Args:
        frame: that of the ``for``, as `for_place` returned it.
        dropped_by: the frame that drops the loop's iterator right now.
    """
    if isinstance(frame, CodeType):  # a comprehension cannot be left in another way, and may be dropped much later
        return frame
    if frame is None or dropped_by is not frame:
        return None
    code = _opcode(frame)
    if code is None or code in _LEAVES_LOOP:
        return None
    if code in _PAUSED and not frame.f_code.co_flags & inspect.CO_COROUTINE:
        return None
    return frame


def _opcode(frame: FrameType) -> int | None:
    at, code = frame.f_lasti, frame.f_code.co_code
    while at >= 2 and code[at] == _CACHE:  # a generator is entered from behind the instruction on 3.12
        at -= 2
    return code[at] if at >= 0 else None


@cache
def tells_apart() -> bool:
    """Return whether this interpreter lets break, return and raise be told apart; tried once, in a few microseconds."""
    try:
        return all(_is_told(leave, raises) for leave, raises in _WAYS.items()) and all(
            _is_told_async(leave, raises) for leave, raises in _ASYNC_WAYS.items()
        )
    except Exception:
        return False


class _Probe:
    """An iterable that notes how its loop was left."""

    def __init__(self) -> None:
        self.taken_by: Place | None = None
        self.raised_in: Place | None = None
        self.is_dropped = False

    def __iter__(self) -> Iterator[int]:
        frame = for_place(caller_of())
        self.taken_by = frame
        try:
            yield 1
            yield 2
        except GeneratorExit:
            self.is_dropped, self.raised_in = True, raised_in(frame, caller_of())
            raise


class _AsyncProbe(_Probe):
    """As `_Probe`, for ``async for``."""

    def __aiter__(self) -> _AsyncProbe:
        return _AsyncItems(self)  # type: ignore[return-value]


class _AsyncItems:
    def __init__(self, probe: _Probe) -> None:
        self._probe = probe

    def __anext__(self) -> Any:
        self._probe.taken_by = for_place(caller_of())
        return self._next()

    async def _next(self) -> int:
        return 1

    def __del__(self) -> None:
        probe = self._probe
        probe.is_dropped, probe.raised_in = True, raised_in(probe.taken_by, caller_of())


def _by_break(items: Any) -> None:
    for _ in items:
        break


def _by_return(items: Any) -> Any:
    for item in items:
        return item


def _by_break_in_try(items: Any) -> None:
    for item in items:
        try:
            if item:
                break
        finally:
            item += 1


def _by_raise(items: Any) -> None:
    for _ in items:
        raise LookupError


def _by_call(items: Any) -> None:
    for _ in items:
        int("no number")


def _by_operator(items: Any) -> None:
    for item in items:
        item / 0


async def _async_break(items: Any) -> None:
    async for _ in items:
        break


async def _async_return(items: Any) -> Any:
    async for item in items:
        return item


async def _async_raise(items: Any) -> None:
    async for _ in items:
        raise LookupError


_WAYS: dict[Callable[[Any], Any], bool] = {
    _by_break: False,
    _by_return: False,
    _by_break_in_try: False,
    _by_raise: True,
    _by_call: True,
    _by_operator: True,
}
_ASYNC_WAYS: dict[Callable[[Any], Any], bool] = {_async_break: False, _async_return: False, _async_raise: True}


def _is_told(leave: Callable[[Any], Any], raises: bool) -> bool:
    probe = _Probe()
    try:
        leave(probe)
    except (LookupError, ValueError, ZeroDivisionError):
        pass
    return _is_right(probe, leave, raises)


def _is_told_async(leave: Callable[[Any], Any], raises: bool) -> bool:
    probe = _AsyncProbe()
    running = leave(probe)
    try:
        running.send(None)
    except (StopIteration, LookupError):
        pass
    return _is_right(probe, leave, raises)


def _is_right(probe: _Probe, leave: Callable[[Any], Any], raises: bool) -> bool:
    frame, probe.taken_by = probe.taken_by, None
    found, probe.raised_in = probe.raised_in, None
    is_taken = isinstance(frame, FrameType) and frame.f_code is leave.__code__
    return probe.is_dropped and is_taken and (found is not None) == raises
