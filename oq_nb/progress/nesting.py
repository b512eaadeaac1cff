"""Which bar is inside which, and what becomes of the bars that a failed cell leaves open.

A bar is outside of another one while it is iterated over or entered (``with``), in the same thread and asyncio task,
and in the same cell of a notebook: a bar that was merely left open somewhere is outside of nothing.

An error that leaves a cell fails the bars that were made in it and are still open.

Imports nothing of the package. IPython is used where it runs already.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Bar", "begin", "follow_cells", "note_made", "note_unclear", "outermost"]

_MOST_UNCLEAR = 100  # bars that a cell keeps until it is over


class Bar(Protocol):
    """What is known here of a bar."""

    @property
    def is_ended(self) -> bool:
        """Whether its loop is over, or it was closed."""

    def may_be_around(self) -> bool:
        """Return whether what runs here and now may be in the body of its loop, as the stack says."""

    def fail(self, error: BaseException) -> None:
        """End it, or say that it has failed: an error has left the cell that it was made in."""


class _Cell:
    """A cell that runs, and the bars that were made in it; a program that is no notebook is one cell."""

    def __init__(self, task: Any) -> None:
        self._task = None if task is None else weakref.ref(task)
        self.made: list[weakref.ref[Bar]] = []
        self.unclear: deque[Bar] = deque(maxlen=_MOST_UNCLEAR)

    def runs_in(self, task: Any) -> bool:
        """Return whether it runs in this asyncio task, or, given None, outside of any."""
        return (self._task() if self._task is not None else None) is task


@dataclass(frozen=True)
class _Begun:
    """A bar that is iterated over or entered, and where."""

    bar: weakref.ref[Bar]
    pid: int
    task: weakref.ref[Any] | None
    cell: _Cell | None  # None: in a task of its own, which outlives a cell


class _Thread(threading.local):
    """What is known of a thread."""

    def __init__(self) -> None:
        self.begun: list[_Begun] = []
        self.cells = [_Cell(None)]  # a cell may run another one


_thread = _Thread()


def begin(bar: Bar) -> None:
    """Note that a bar is iterated over or entered from now on, here."""
    task = _current_task()
    cell = _thread.cells[-1] if _thread.cells[-1].runs_in(task) else None
    _thread.begun = [known for known in _thread.begun if _is_open(known)]
    _thread.begun.append(_Begun(weakref.ref(bar), os.getpid(), None if task is None else weakref.ref(task), cell))


def outermost() -> Any:
    """Return the bar that is around whatever runs here, the outermost one; None when there is none."""
    task = _current_task()
    for known in _thread.begun:
        is_here = (known.task() if known.task is not None else None) is task
        bar = known.bar()
        if is_here and _is_open(known) and known.cell in (None, _thread.cells[-1]) and bar and bar.may_be_around():
            return bar
    return None


def note_made(bar: Bar) -> None:
    """Note that a bar was made, here."""
    cell = _thread.cells[-1]
    if cell.runs_in(_current_task()):
        cell.made = [known for known in cell.made if known() is not None]
        cell.made.append(weakref.ref(bar))


def note_unclear(bar: Bar) -> None:
    """Note that a bar has ended here, and that the end of its cell tells whether by an error."""
    if len(_thread.cells) > 1:
        _thread.cells[-1].unclear.append(bar)


def _is_open(known: _Begun) -> bool:
    bar = known.bar()
    return bar is not None and not bar.is_ended and known.pid == os.getpid()


def _current_task() -> Any:
    """Return the asyncio task that runs here, if any; asyncio is not loaded for it."""
    asyncio = sys.modules.get("asyncio")
    try:
        return asyncio.current_task() if asyncio is not None else None
    except RuntimeError:  # no event loop runs in this thread
        return None


# --- cells

_followed: weakref.WeakSet[Any] = weakref.WeakSet()


def follow_cells() -> None:
    """Have IPython, where it runs already, tell of the beginning and end of each cell."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    if shell is None or shell in _followed:
        return
    _followed.add(shell)
    shell.events.register("pre_run_cell", _begin_cell)
    shell.events.register("post_run_cell", _end_cell)
    _thread.cells.append(_Cell(_current_task()))  # the cell that runs now began before


def _begin_cell(_: Any = None) -> None:
    _thread.cells.append(_Cell(_current_task()))


def _end_cell(result: Any = None) -> None:
    """Fail what the cell has left open when an error has left it.

    Args:
        result: IPython's ``ExecutionResult``; None when the cell was interrupted before it had one.
    """
    if len(_thread.cells) == 1:
        return
    cell = _thread.cells.pop()
    if result is None:
        error: BaseException | None = KeyboardInterrupt()
    else:
        error = result.error_before_exec or result.error_in_exec
    if error is None:
        return
    for bar in (*(reference() for reference in cell.made), *cell.unclear):
        if bar is not None:
            bar.fail(error)
