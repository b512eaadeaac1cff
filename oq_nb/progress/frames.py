"""How a loop was left: by its own will, or because an exception unwinds its frame.

An iterator is not told why it is dropped. But a ``for`` holds it on its frame's stack, and drops it by a few
instructions only (``break``, ``return``), or by unwinding: the instruction at which the frame stands tells them apart.

Two cases remain open at that moment, and `how_left` says so: a ``for`` that asks for its next item (``zip`` and
``islice`` end, too, with items left), and a loop without a ``for`` of its own (``list(map(work, items))``, a generator
that is closed). What an exception has passed on its way to the top is known afterwards: `Exit.is_passed_by`.

A comprehension that has a frame of its own keeps its iterator in that frame, and so does the traceback of an exception
that somebody keeps: nothing is dropped. That it is over is told by the stack of its thread (`may_iterate`, `is_over`).

It rests on what CPython does: `tells_apart` tries it, once, and callers guess nothing where it does not hold.

Pure: no I/O, nothing of the package is imported.
"""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, FrameType
from typing import Any

__all__ = [
    "Comprehension",
    "Exit",
    "Place",
    "caller_of",
    "for_place",
    "guess",
    "how_left",
    "is_asking",
    "is_over",
    "may_iterate",
    "tells_apart",
]

#: Where a frame stands when it asks for an item of its ``for`` or ``async for``.
_TAKES_ITEM = frozenset(dis.opmap[name] for name in ("FOR_ITER", "GET_ANEXT") if name in dis.opmap)
#: Where a frame stands when it drops the iterator of its ``for`` without an exception.
_LEAVES_LOOP = frozenset(
    dis.opmap[name] for name in ("POP_TOP", "POP_ITER", "END_FOR", "RETURN_VALUE", "RETURN_CONST") if name in dis.opmap
)
#: Where a generator's frame stands when it is closed; a coroutine's, where an exception comes out of an ``await``.
_PAUSED = frozenset(dis.opmap[name] for name in ("YIELD_VALUE", "YIELD_FROM", "RESUME", "SEND") if name in dis.opmap)
#: These have frames of their own; up to Python 3.11 comprehensions, too.
_GENERATOR_EXPRESSION = "<genexpr>"
_COMPREHENSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", _GENERATOR_EXPRESSION})
_GENERATORS = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_CAN_PAUSE = _GENERATORS | inspect.CO_COROUTINE
_LOOKS = 20  # at a stack that another thread changes meanwhile
_CACHE = dis.opmap.get("CACHE", -1)


def caller_of(depth: int = 1) -> FrameType | None:
    """Return the frame that called the caller's, or one further out; None when the interpreter ends."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - there is no other way to a frame
    for _ in range(depth):
        frame = frame.f_back if frame is not None else None
    return frame


@dataclass(frozen=True)
class Comprehension:
    """Where the ``for`` of a comprehension or of a generator expression is that has a frame of its own.

    That frame holds its iterator, which must not hold the frame in turn.

    Args:
        code: its own.
        caller: the code that evaluates it, and where that stands meanwhile.
    """

    code: CodeType
    caller: tuple[CodeType, int] | None

    @property
    def is_generator(self) -> bool:
        """Whether it may be closed at any time."""
        return self.code.co_name == _GENERATOR_EXPRESSION

    def is_frame(self, frame: FrameType | None) -> bool:
        """Return whether a frame is its own."""
        return frame is not None and frame.f_code is self.code

    def is_returning_to(self, frame: FrameType | None) -> bool:
        """Return whether a frame is still where it evaluates the comprehension."""
        return frame is not None and self.caller == (frame.f_code, _at(frame))


#: Where a ``for`` is.
Place = FrameType | Comprehension


@dataclass(frozen=True)
class Exit:
    """Where a loop was left before its items were used up, by an exception or by what may have been one.

    Args:
        where: the frame or the code that the exception unwinds.
        line: of that code, at that moment.
        is_certain: whether it was an exception.
        instruction: which one the exception passes there; None for any.
        seen: the error that the top of the program had shown before.
    """

    where: FrameType | CodeType
    line: int
    is_certain: bool
    instruction: int | None = None
    seen: Any = field(default_factory=lambda: getattr(sys, "last_value", None), repr=False)

    @property
    def code(self) -> CodeType:
        """The code that was left."""
        return self.where.f_code if isinstance(self.where, FrameType) else self.where

    def is_passed_by(self, error: BaseException) -> bool:
        """Return whether an exception has passed here on its way, as its traceback says; see also `seen`."""
        tb = error.__traceback__
        while tb is not None:
            if self.where in (tb.tb_frame, tb.tb_frame.f_code) and (
                self.instruction is None or self.instruction == _instruction(tb.tb_frame.f_code, tb.tb_lasti)
            ):
                return True
            tb = tb.tb_next
        return False


def for_place(frame: FrameType | None) -> Place | None:
    """Return where a frame is that just takes an item of a ``for`` or ``async for``, else None."""
    if frame is None or not _is_iterating(frame):
        return None
    if frame.f_code.co_name not in _COMPREHENSIONS:
        return frame
    caller = frame.f_back
    return Comprehension(frame.f_code, caller and (caller.f_code, _instruction(caller.f_code, caller.f_lasti)))


def _is_iterating(frame: FrameType | None) -> bool:
    """Return whether a frame just takes an item of a ``for`` or ``async for``."""
    return frame is not None and _opcode(frame) in _TAKES_ITEM


def is_asking(taken_at: Place | None, dropped_by: FrameType | None) -> bool:
    """Return whether a loop was left when it asked for its next item, so that it was done with the one before.

    Args:
        taken_at: the ``for``, as `for_place` returned it.
        dropped_by: the frame that drops the loop's iterator right now.
    """
    if isinstance(taken_at, Comprehension):
        if taken_at.is_frame(dropped_by):
            return _is_iterating(dropped_by)
        return taken_at.is_returning_to(dropped_by) and not taken_at.is_generator
    return taken_at is not None and dropped_by is taken_at and _is_iterating(dropped_by)


def how_left(taken_at: Place | None, dropped_by: FrameType | None, *, has_raised: bool = False) -> Exit | None:
    """Return where an exception is unwinding a loop, or may be; None when it was left without one.

    Args:
        taken_at: the ``for``, as `for_place` returned it.
        dropped_by: the frame that drops the loop's iterator right now.
        has_raised: whether the iterable itself is known to have raised.
    """
    if isinstance(taken_at, Comprehension):
        # Its iterator is dropped with its frame: when it returns, or much later, with the exception's traceback.
        # A generator's frame may be closed at any time.
        if has_raised:
            return Exit(taken_at.code, taken_at.code.co_firstlineno, True)
        if taken_at.is_frame(dropped_by) or taken_at.is_generator:
            return _may_be_passing(dropped_by, has_raised)
        return None if taken_at.is_returning_to(dropped_by) else Exit(taken_at.code, taken_at.code.co_firstlineno, True)
    if taken_at is None or dropped_by is not taken_at:
        return _may_be_passing(dropped_by, has_raised)
    code = _opcode(taken_at)
    if code is None or code in _LEAVES_LOOP:
        return None
    if code in _PAUSED and not taken_at.f_code.co_flags & inspect.CO_COROUTINE:
        return _may_be_passing(taken_at, has_raised)
    if code in _TAKES_ITEM and not has_raised:
        return _may_be_passing(taken_at, has_raised)
    return Exit(taken_at, taken_at.f_lineno, True)


def guess(taken_at: Place | None, dropped_by: FrameType | None) -> Exit | None:
    """Return what `how_left` does, where an interpreter does not tell the ways apart: nothing that is certain."""
    if not isinstance(taken_at, FrameType) or dropped_by is not taken_at:
        return None
    return Exit(taken_at, taken_at.f_lineno, False)


def _may_be_passing(frame: FrameType | None, has_raised: bool) -> Exit | None:
    """Return where an exception passes, if there is one: in the first frame from here outward that does not pause."""
    while frame is not None and frame.f_code.co_flags & _GENERATORS and _opcode(frame) in _PAUSED:
        frame = frame.f_back
    if frame is None or (_opcode(frame) in _LEAVES_LOOP and not has_raised):
        return None
    return Exit(frame.f_code, frame.f_lineno, has_raised, _at(frame))


def may_iterate(place: Comprehension, frame: FrameType | None) -> bool:
    """Return whether a comprehension may be taking items, as the stack of its thread says.

    A generator may be paused. It counts as iterated over while the ``for`` that takes its items may be going on, or the
    call that does (``sum``).

    Args:
        place: where the comprehension's ``for`` is.
        frame: the innermost one of the stack.
    """
    code, caller = place.code, place.caller
    if (code.co_flags & _CAN_PAUSE and not place.is_generator) or code.co_flags & inspect.CO_ASYNC_GENERATOR:
        return True
    if place.is_generator and (caller is None or caller[0].co_flags & _CAN_PAUSE):
        return True
    while frame is not None:
        if frame.f_code is code:
            return True
        if place.is_generator and caller is not None and frame.f_code is caller[0]:
            takes_items = caller[0].co_code[caller[1]] in _TAKES_ITEM
            if takes_items or _at(frame) == caller[1]:
                return True
        frame = frame.f_back
    return False


def is_over(place: Comprehension, ident: int) -> bool:
    """Return whether a comprehension that cannot pause is over, in this thread or another one.

    Args:
        place: where its ``for`` is.
        ident: of its thread. Of another thread the answer is most likely right: ask twice.
    """
    if place.code.co_flags & _CAN_PAUSE:
        return False
    for _ in range(_LOOKS):
        innermost = sys._current_frames().get(ident)  # noqa: SLF001 - there is no other way to another thread's stack
        if may_iterate(place, innermost):
            return False
        # A frame that runs is called by the same ones all the time: what was seen from it outward was one stack.
        if sys._current_frames().get(ident) is innermost:  # noqa: SLF001
            return True
    return False


def _opcode(frame: FrameType) -> int | None:
    at = _at(frame)
    return frame.f_code.co_code[at] if at >= 0 else None


def _at(frame: FrameType) -> int:
    return _instruction(frame.f_code, frame.f_lasti)


def _instruction(code: CodeType, at: int) -> int:
    """Return where the instruction begins that a frame stands at."""
    content = code.co_code
    while at >= 2 and content[at] == _CACHE:  # a generator is entered from behind the instruction on 3.12
        at -= 2
    return at


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
        self.has_raised = False
        self.is_dropped = False

    def __iter__(self) -> Iterator[int]:
        frame = for_place(caller_of())
        self.taken_by = frame
        try:
            yield 1
            yield 2
        except GeneratorExit:
            self.is_dropped, self.has_raised = True, _is_certain(how_left(frame, caller_of()))
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
        probe.is_dropped, probe.has_raised = True, _is_certain(how_left(probe.taken_by, caller_of()))


def _is_certain(left_at: Exit | None) -> bool:
    return left_at is not None and left_at.is_certain


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


def _by_zip(items: Any) -> None:
    for _ in zip(items, (1,)):  # noqa: B905 - this is about their different lengths
        pass


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
    _by_zip: False,
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
    is_taken = isinstance(frame, FrameType) and frame.f_code is leave.__code__
    return probe.is_dropped and is_taken and probe.has_raised == raises
