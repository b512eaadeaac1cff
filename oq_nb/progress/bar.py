"""`track`: tqdm in every respect, and the progress is in S3.

`tqdm` here is a subclass of the tqdm class for the surroundings (``tqdm.auto``): a widget bar in a notebook, a text bar
elsewhere. Counting, drawing and all options are tqdm's own. What is added:

* the loop runs on C iterators (`loops`), and comes back to Python between two chunks, whenever a tenth of a second has
  passed (`ticks`), and when there is something that it has to be told. There it draws when tqdm would. While it runs
  the bar's class is `_LoopingBar`, whose ``n`` is the loop's position whenever and wherever it is read;
* where the progress goes: to the running task inside a handler, to a task of the loop's own elsewhere (`tracked`);
* how the loop ended (`frames`, `outcome`).

A bar inside another one (`nesting`) stays local; the outer one names it in its message: a task has one progress.

Invariants: the loop's thread does no I/O but tqdm's own drawing; nothing is raised with tqdm's lock held; whatever asks
for exact behaviour in the loop (``miniters``, ``mininterval=0``, a clock or a subclass of one's own) takes tqdm's path.

Imports of the package: `attempt.context`, `errors`, `model`, `queue`, and this room.
"""

from __future__ import annotations

import functools
import io
import os
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Generator, Iterable, Iterator
from dataclasses import replace
from itertools import chain
from numbers import Number
from types import FrameType, SimpleNamespace, TracebackType
from typing import Any, Generic, TypeVar

from tqdm import std as tqdm_std

from oq_nb import model
from oq_nb.attempt.context import TaskContext, current_context
from oq_nb.errors import ConfigurationError
from oq_nb.progress import frames, loops, nesting, notebook_bar
from oq_nb.progress.loops import Ending, Loop
from oq_nb.progress.notebook_bar import is_widget_bar
from oq_nb.progress.outcome import has_led_to
from oq_nb.progress.reading import BarState, read_bar
from oq_nb.progress.ticks import Ticks
from oq_nb.progress.tracked import FLUSH_SECONDS, LoopTask, RunningTask
from oq_nb.queue import Queue, connection
from oq_nb.queue.task import Task

__all__ = ["tqdm", "track", "trange"]

T = TypeVar("T")


class _Default:
    def __repr__(self) -> str:
        return "<the default queue>"


_DEFAULT = _Default()
_THROTTLE_SECONDS = 2.0
_MIN_SECONDS = 1.0
_LEASE_SECONDS = 60.0
_TICK_SECONDS = 0.1


class tqdm(notebook_bar.tqdm, Generic[T]):
    """tqdm, whose progress others can watch.

    Takes everything that tqdm takes, and by keyword:

    Args:
        queue: where a loop outside of a handler becomes a task: what ``connect()`` returned. Left out: the process's
            last ``connect()``, else what the environment configures. None: a plain bar.
        context: report to this running task; left out: to the handler's that runs here.
        task_type: of the loop's own task; left out: ``track:<description>``.
        show: draw a local bar; left out: not inside a handler.
        throttle_seconds: at most one write per so many seconds, from 0.
        min_seconds: a loop that is shorter reports nothing and leaves no task, from 0.
        lease_seconds: how long after the death of this process the loop's own task counts as running, from 5.

    Raises:
        ConfigurationError: one of these cannot be used.
        LeaseExpiredError: in a handler, at the next item: another worker has taken the task over.
        TaskCancelledError: at the next item: its task was cancelled.

    Requests: at most 1 PUT per ``throttle_seconds``, by a background thread.
    """

    status_printer: Any  # these three are tqdm's
    miniters: float
    mininterval: float

    _sink: RunningTask | LoopTask | None = None
    _loop: Loop[Any] | None = None
    _ticks: Ticks | None = None
    _outer: tqdm[Any] | None = None
    _inner: weakref.ref[tqdm[Any]] | None = None
    _is_hidden = False
    _is_ended = False
    _wants_note = False
    _error: BaseException | None = None
    _has_problem = False
    _pid = 0
    _made_at = 0.0
    _first: float = 0
    _offset: float = 0
    _ends_later = False
    _left: Ending | None = None
    _unclear: frames.Exit | None = None
    _is_begun = False
    _place: frames.Comprehension | None = None  # that iterates over it, where that has a frame of its own
    _thread_id = 0  # of its thread
    _over_at: float | None = None  # the position at which it seemed to be over
    _items: weakref.ref[Generator[Any, None, None]] | None = None  # the generator behind its iterator
    _is_iterated = False
    _is_entered = False
    _context: TaskContext | None = None
    #: The numbers that `set_postfix` was given last, by name; another dict each time.
    postfix_numbers: dict[str, Any] | None = None

    def __init__(
        self,
        *args: Any,
        queue: Any = _DEFAULT,
        context: Any = None,
        task_type: str | None = None,
        show: bool | None = None,
        throttle_seconds: float = _THROTTLE_SECONDS,
        min_seconds: float = _MIN_SECONDS,
        lease_seconds: float = _LEASE_SECONDS,
        **kwargs: Any,
    ) -> None:
        self.disable = True  # nothing is to be closed when this ends in an error
        for name, value, least in (
            ("throttle_seconds", throttle_seconds, 0.0),
            ("min_seconds", min_seconds, 0.0),
            ("lease_seconds", lease_seconds, 5.0),
        ):
            _check_seconds(name, value, least)
        found = context if context is not None else current_context()
        self._context = getattr(found, "_context", found)  # a coroutine's context stands for the one it wraps
        if self._context is not None and not hasattr(self._context, "report_progress"):
            raise ConfigurationError(f"context: the one that a handler is given is needed, or None, not {context!r}")
        find = self._queue_finder(queue) if self._context is None else None
        if task_type is not None:
            model.check_task_type(task_type)
        self._pid, self._made_at = os.getpid(), time.monotonic()
        disable = kwargs.get("disable", False)
        file = kwargs.get("file")
        if disable is None and not getattr(file or sys.stderr, "isatty", lambda: True)():
            show, disable = False, False  # hidden, but reported
        elif disable and self._context is not None:
            show, disable = False, False
        if "disable" in kwargs:
            kwargs["disable"] = disable
        if show is False or (show is None and self._context is not None):
            args = self._hide(args, kwargs)
        super().__init__(*args, **kwargs)
        if self._is_hidden:
            self._instances.discard(self)  # takes no line of the screen
        if self.disable:
            return
        self._attach(find, task_type, throttle_seconds, min_seconds, lease_seconds)

    def _hide(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Draw nothing, everything else goes on; return the arguments for that."""
        self._is_hidden = True
        if len(args) > 4:  # `file`, by position
            args = (*args[:4], _Nowhere(), *args[5:])
        else:
            kwargs["file"] = _Nowhere()
        if is_widget_bar():
            kwargs["display"] = False
            self.status_printer = lambda *_: _no_container()
        return args

    # --- where the progress goes

    def _attach(
        self, find: Any, task_type: str | None, throttle_seconds: float, min_seconds: float, lease_seconds: float
    ) -> None:
        me = weakref.ref(self)

        def source() -> BarState | None:
            bar = me()
            return None if bar is None else bar.state()

        def hurry() -> None:
            bar = me()
            if bar is not None:
                bar.hurry()

        def look() -> None:
            bar = me()
            if bar is not None:
                bar.look()

        nesting.follow_cells()
        if self._context is not None:
            self._outer = self._context.outermost_bar() if self._context.outermost_bar is not None else None
            if self._outer is None or self._outer.is_done or not self._outer.may_be_around():
                self._outer = None
                self._context.outermost_bar = me
                self._sink = RunningTask(self._context, source, throttle_seconds, min_seconds, hurry)
        else:
            nesting.note_made(self)
            self._outer = nesting.outermost()
            if self._outer is None and find is not None:
                kind = task_type if task_type is not None else self._own_type()
                self._sink = LoopTask(find, kind, source, throttle_seconds, min_seconds, lease_seconds, hurry, look)
        if self._outer is not None:
            self._outer.name_inner(self)

    def _own_type(self) -> str:
        name = "".join(char if char.isprintable() else " " for char in str(self.desc or "loop").rstrip(": "))
        return f"track:{name}"[:200]

    def _queue_finder(self, queue: Any) -> Any:
        """Return what finds the queue, or None when there is none; no I/O."""
        if queue is None:
            return None
        if queue is not _DEFAULT:
            chosen = getattr(queue, "sync", queue)
            if not isinstance(chosen, Queue):
                raise ConfigurationError(f"queue: what connect() returns is needed, or None, not {queue!r}")
            return lambda: chosen
        if connection.has_default_queue():
            return connection.default_queue
        self._wants_note = True
        return None

    @property
    def task(self) -> Task | None:
        """The loop's own task, which is created when it is not there yet; None inside a handler or without a queue."""
        return self._sink.task(FLUSH_SECONDS) if isinstance(self._sink, LoopTask) else None

    @property
    def is_done(self) -> bool:
        """Whether no bar can be inside of this one: it is over, or was moved by hand to its total and left open."""
        is_left_open = not self._is_begun and self._loop is None and bool(self.total) and self.n >= self.total
        return self._is_ended or is_left_open

    @property
    def is_ended(self) -> bool:
        """Whether the loop is over, or the bar was closed."""
        return self._is_ended

    def may_be_around(self) -> bool:
        """Return whether what runs here and now may be in the body of the loop, as the stack says."""
        place = self._place
        if place is None or self._thread_id != threading.get_ident():
            return not self._is_ended
        self.look()
        return not self._is_ended and frames.may_iterate(place, frames.caller_of())

    def look(self) -> None:
        """End the bar where a comprehension was ended by an exception that somebody keeps; from any thread."""
        place, count = self._place, self.n
        if place is None or self._is_ended:
            return
        if not frames.is_over(place, self._thread_id):
            self._over_at = None
        elif self._over_at == count or self._thread_id == threading.get_ident():
            items = self._items() if self._items is not None else None
            if items is not None:
                items.close()
        else:  # another thread's stack: one look may be wrong
            self._over_at = count

    def state(self) -> BarState:
        """Return what the bar says now; from any thread."""
        inner = self._inner() if self._inner is not None else None
        return read_bar(self, None if inner is None or inner.is_ended else inner)

    def name_inner(self, bar: tqdm[Any]) -> None:
        """Have the message name another bar, inside of this one, until that one is closed."""
        self._inner = weakref.ref(bar)

    def hurry(self) -> None:
        """Have the loop told at its next item, or by the next method, what it has to be told; from any thread."""
        self._has_problem = True
        loop, inner = self._loop, self._inner() if self._inner is not None else None
        if loop is not None:
            loop.hurry()
        else:
            self.miniters, self.mininterval = 0, 0.0
        if inner is not None and not inner.is_ended:
            inner.hurry()

    def fail(self, error: BaseException) -> None:
        """End the bar, and its task: ``error`` has left the cell that it was made in.

        One that has ended already, nobody knew why, is drawn anew where the error came through its loop.
        """
        if self._is_ended:
            if self._unclear is not None and has_led_to(self._unclear, error):
                self.show_failed()
            return
        self._is_entered = False
        self._end(Ending(int(self.n or 0), error=error))
        self.close()

    # --- iterating

    def __iter__(self) -> Iterator[T]:
        self._is_iterated = True
        if (
            type(self) is not tqdm
            or self.disable
            or not self.dynamic_miniters
            or not self.mininterval
            or self._time is not vars(tqdm_std)["time"]  # its stubs do not name it
            or self._loop is not None
            or not loops.is_possible()
        ):
            items = self._iterate_as_tqdm()
            self._items = weakref.ref(items)
            return items
        self._first = self._offset = self.n
        self._loop = Loop(self.iterable, self._at_boundary, self._at_end, self._begin)
        self.__class__ = _LoopingBar
        chunks = self._loop.chunks()
        self._items = weakref.ref(chunks)
        return chain.from_iterable(chunks)

    def _iterate_as_tqdm(self) -> Generator[T, None, None]:
        if self.disable:
            yield from self.iterable
            return
        self._ends_later = True
        taken_at = frames.for_place(frames.caller_of())
        ending: Ending | None = None
        items: Any = super().__iter__()
        try:
            self._begin(taken_at)
            for item in items:
                yield item
                if self._has_problem:
                    self._raise_problem()
            ending = Ending(int(self.n or 0), is_exhausted=True)
        except GeneratorExit:
            items.close()  # then it has counted
            ending = self._how_left(taken_at, frames.caller_of())
            raise
        except BaseException as exc:
            ending = Ending(int(self.n or 0), error=exc)
            raise
        finally:
            taken_at = None
            self._ends_later = False
            self._end(ending or Ending(int(self.n or 0)))
            self.close()

    def __aiter__(self) -> AsyncIterator[T]:
        return self if self.disable else _AsyncLoop(self)

    async def __anext__(self) -> T:
        if self.disable:
            item: T = await super().__anext__()
            return item
        __tracebackhide__ = True
        self._is_iterated = True
        self._ends_later = True  # tqdm's closes the bar, and does not say why
        self._begin()
        ending: Ending | None = None
        try:
            self._raise_problem()
            item = await super().__anext__()
        except StopAsyncIteration:
            ending = Ending(int(self.n or 0), is_exhausted=True)
            raise
        except BaseException as exc:
            ending = Ending(int(self.n or 0), error=exc)
            raise
        finally:
            self._ends_later = False
            if ending is not None:
                self._end(ending)
                self.close()
        return item

    def end_async_for(self, taken_at: frames.Place | None, dropped_by: FrameType | None) -> None:
        """End the bar after an ``async for``; for the arguments see `oq_nb.progress.frames.how_left`."""
        self._end(self._how_left(taken_at, dropped_by))
        self.close()

    def _begin(self, taken_at: frames.Place | None = None) -> None:
        """Note that the bar is iterated over or entered from now on.

        Args:
            taken_at: the ``for``, if there is one.
        """
        if isinstance(taken_at, frames.Comprehension):
            self._place, self._thread_id = taken_at, threading.get_ident()
        if not self._is_begun:
            self._is_begun = True
            if self._context is None:  # in a handler, its context knows the outermost one
                nesting.begin(self)

    def _how_left(self, taken_at: frames.Place | None, dropped_by: FrameType | None) -> Ending:
        """Return how a loop on tqdm's own path was left."""
        count = int(self.n or 0)
        how_left = frames.how_left if frames.tells_apart() else frames.guess
        return Ending(count, left_at=how_left(taken_at, dropped_by))

    def _at_boundary(self) -> float:
        """Between two chunks: draw when tqdm would, and pass on what the loop has to be told."""
        __tracebackhide__ = True
        loop = self._loop
        if self._ticks is None and loop is not None:
            self._ticks = Ticks(loop.hurry, _TICK_SECONDS)
        self._raise_problem()
        try:
            self.update(0)  # its own count is where the loop is
        except KeyboardInterrupt as exc:
            raise exc.with_traceback(None)  # noqa: B904 - the frames of whatever draws tell its user nothing
        return time.perf_counter() + min(float(self.mininterval), _TICK_SECONDS)

    def _at_end(self, ending: Ending) -> None:
        # First the number, then the class: a reader of ``n`` meanwhile finds one of the two.
        self.__dict__["n"] = self._first + ending.count
        self.__class__ = tqdm
        self._loop = None
        self._end(ending)
        self.close()

    def _mark_failed(self) -> None:
        if is_widget_bar() and not self._is_hidden:
            self.mark_failed()

    def _raise_problem(self) -> None:
        __tracebackhide__ = True
        outer = self._outer if self._sink is None else None  # an inner bar is told what the outermost one is
        sink = self._sink if outer is None or outer.is_ended else outer._sink  # noqa: SLF001 - of its own class
        problem = sink.problem if sink is not None else None
        if problem is not None:
            raise problem

    # --- tqdm's methods, with what is ours

    def refresh(self, nolock: bool = False, lock_args: tuple[Any, ...] | None = None) -> Any:
        """Draw the bar now; see tqdm. Raises what the loop has to be told.

        Raises:
            LeaseExpiredError: in a handler: another worker has taken the task over.
            TaskCancelledError: its task was cancelled.
        """
        __tracebackhide__ = True
        if nolock:  # the caller holds the lock, and may be tqdm's monitor
            return super().refresh(nolock=True)
        if self.disable:
            return None
        if lock_args and not self._lock.acquire(*lock_args):
            return False
        if not lock_args:
            self._lock.acquire()
        try:
            drawn = super().refresh(nolock=True)
        finally:
            self._lock.release()
        if not self._is_ended and self._loop is None:
            self._raise_problem()
        return drawn

    def set_postfix(self, ordered_dict: Any = None, refresh: bool = True, **kwargs: Any) -> None:
        """Show values behind the bar; see tqdm. Numbers among them are reported as metrics of the task."""
        # In one go: tqdm's own, and a second pass for the numbers, would cost more than tqdm's own alone.
        values = dict(ordered_dict or ())
        for name in sorted(kwargs):
            values[name] = kwargs[name]
        numbers = {}
        texts = []
        for name, value in values.items():
            if isinstance(value, Number):
                numbers[name] = value
                value = self.format_num(value)
            elif not isinstance(value, str):
                value = str(value)
            texts.append(f"{name}={value.strip()}")
        self.postfix_numbers = numbers
        self.postfix = ", ".join(texts)
        if refresh:
            self.refresh()

    def clear(self, nolock: bool = False) -> None:
        """Clear the bar's line; see tqdm."""
        if nolock or self.disable:
            super().clear(nolock=nolock)
        else:
            with self._lock:
                super().clear(nolock=True)

    def display(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the bar, unless it is hidden; see tqdm."""
        return True if self._is_hidden else super().display(*args, **kwargs)

    def close(self) -> None:
        """Close the bar and write its last position; see tqdm. Calling it again changes nothing."""
        if self._ends_later:  # tqdm's own loop closes it before it is known how that ended
            return
        is_known = self._is_ended or self._left is not None
        if not is_known and not getattr(self, "disable", True):
            self._end(Ending(int(self.n or 0), error=self._error))
        super().close()

    def __del__(self) -> None:
        if self._left is not None:
            self._is_entered = False
            self._end(self._left)
        if not self._is_ended and not getattr(self, "disable", True) and self.total and self.n < self.total:
            self._error = RuntimeError(f"the bar was dropped at item {self.n} of {self.total}, without close()")
        super().__del__()

    def __enter__(self) -> Any:
        self._is_entered = True
        self._begin()
        return super().__enter__()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._is_entered, left, self._left = False, self._left, None
        if left is not None and exc_value is not None:
            self._end(replace(left, error=exc_value))
        elif left is not None:  # what is not certain was no exception, or one that was caught here
            self._end(left if left.is_failed else replace(left, left_at=None))
        self._error = exc_value
        try:
            super().__exit__(exc_type, exc_value, traceback)
        finally:
            self._error = None

    def _end(self, ending: Ending) -> None:
        if self._is_ended:
            return
        if self._is_entered and ending.left_at is not None:
            self._left = ending  # `__exit__` is told which exception it was
            if self._ticks is not None:
                self._ticks.stop()
            return
        self._is_ended = True
        if self._ticks is not None:
            self._ticks.stop()
        self._is_left = self._is_iterated and not ending.is_exhausted
        if ending.is_failed:
            self._mark_failed()
        elif ending.left_at is not None:
            self._unclear = ending.left_at
            nesting.note_unclear(self)
        if self._sink is not None:
            self._sink.end(ending, self.state())
        elif self._wants_note and not self._is_hidden and time.monotonic() - self._made_at >= _MIN_SECONDS:
            _say_how_to_share()


class _LoopingBar(tqdm[T]):
    """Bar of a running loop; ``n`` is computed from the iterator.

    A property of the bar's own class would make ``update`` a third slower; there is no loop of this kind, and so no
    bar of this class, when a bar is moved by hand or has a class of the user's.
    """

    @property
    def n(self) -> float:
        """The items that the loop is done with, moved by what was set since it began."""
        loop = self._loop
        return self._offset + (0 if loop is None else loop.count)

    @n.setter
    def n(self, value: float) -> None:
        """Count on from ``value``, as tqdm does; at the loop's end the items count."""
        loop = self._loop
        self._offset = value - (0 if loop is None else loop.count)


class _AsyncLoop:
    """One ``async for`` over a bar: it notes how it was left.

    Args:
        bar: which.
    """

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar
        self._taken_at: frames.Place | None = None

    def __aiter__(self) -> _AsyncLoop:
        return self

    def __anext__(self) -> Any:
        self._taken_at = frames.for_place(frames.caller_of())
        return self._bar.__anext__()

    def __del__(self) -> None:
        if not self._bar.is_ended:
            self._bar.end_async_for(self._taken_at, frames.caller_of())


_LoopingBar.__name__ = _LoopingBar.__qualname__ = tqdm.__name__


def track(
    iterable: Iterable[T] | None = None, desc: str | None = None, total: float | None = None, **options: Any
) -> tqdm[T]:
    """Show a bar for a loop, and let others watch it.

    Inside a handler the progress goes to the running task; elsewhere the loop becomes a task of its own.

    Args:
        iterable: what to loop over; None for a bar that is moved with ``update``.
        desc: description.
        total: number of items; None: ``len(iterable)``, else unknown.
        **options: everything that `oq_nb.tqdm` and tqdm take.

    Returns:
        The bar: iterate over it, or use it as tqdm's.

    Example:
        >>> for item in track(range(3), desc="items", queue=None):  # doctest: +SKIP
        ...     work(item)
    """
    return tqdm(iterable, desc, total, **options)


def trange(*args: int, **options: Any) -> tqdm[int]:
    """Return ``track(range(*args), **options)``."""
    return tqdm(range(*args), **options)


class _Nowhere(io.TextIOBase):
    """Where a hidden bar is drawn."""

    encoding = "utf-8"

    def write(self, text: str) -> int:
        return len(text)

    def writable(self) -> bool:
        return True


def _no_container() -> Any:
    part = SimpleNamespace(style=SimpleNamespace(bar_color=None), value="", bar_style="", layout=SimpleNamespace())
    return SimpleNamespace(children=[part, part, part], pbar=None)


def _check_seconds(name: str, value: Any, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < 1e7:
        raise ConfigurationError(f"{name}: a number of seconds from {least:g} is needed, not {value!r}")


@functools.cache
def _say_how_to_share() -> None:
    """Say once how others can watch a loop."""
    tqdm.write(
        "oq_nb: only this process can watch this loop; after oq_nb.connect() anyone with the bucket can "
        "(queue=None leaves this note out)",
        file=sys.stderr,
    )
