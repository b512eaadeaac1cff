"""`RenderLoop`: the one thread that draws all live displays.

::

    tick (thread "oq-widget") ──> for each display, in a context of a cell: draw() ──> models ──> front end
         ↑ at least once a second, at most five times, or when a watch has news

Invariants:

* Models are written by this thread alone (after they were made): traitlets have no locks. Callbacks of buttons, which
  may run in any thread, note what is wanted and wake it.
* Every draw runs in a copy of a cell's context: without that, ipykernel 7.0 loses the update, and later ones put output
  into the wrong cell. It is the context of the cell that runs, or ran last, because what executes a notebook without a
  browser (nbclient, papermill) takes messages of the present cell only; until another cell has run, it is the one that
  the display was made in.
* It refers to displays weakly, and ends when none is left.
* A cell is over only when what is known has been drawn (`RenderLoop.settle`), half a second at most: what executes a
  notebook without a browser takes no message of a cell that is over. Where no browser is likely, queues are looked at
  once more in this half second, and everything is published without a pause. What became plain between two cells is
  published again.

Imports of the package: `display.kernel`, `display.output`.
"""

from __future__ import annotations

import contextvars
import itertools
import logging
import queue
import threading
import time
import weakref
from typing import Protocol

from oq_nb.display import kernel
from oq_nb.display.output import Output

__all__ = ["Drawable", "Look", "RenderLoop", "loop"]

logger: logging.Logger = logging.getLogger("oq_nb.widget")

_TICK_SECONDS = 1.0
_SMOOTH_SECONDS = 0.25
_SHORTEST_SECONDS = 0.2
_SETTLE_SECONDS = 0.5
_LOOK_SHARE = 0.7  # of these, at most: the rest is for drawing what is known


class Look(Protocol):
    """A look at what is shown, that a cell which ends waits for."""

    def go_on(self) -> bool:
        """See to it that it is made; return whether it was."""


class Drawable(Protocol):
    """What is drawn."""

    @property
    def is_smooth(self) -> bool:
        """Whether it changes all the time, because this process does what it shows: it is drawn four times a second."""

    def draw_if_open(self) -> bool:
        """Draw; return whether to draw again in a second."""

    def look_again(self) -> Look | None:
        """Have it looked at once more before a cell is over; None where that is not worth waiting for."""


class RenderLoop:
    """The thread, and what it draws."""

    def __init__(self) -> None:
        # Displays are dropped at any moment in any thread, also inside a lock: only a SimpleQueue may be told of it.
        self._bell: queue.SimpleQueue[Output | threading.Event | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the next two
        self._shown: list[tuple[Output, weakref.ref[Drawable]]] = []
        self._thread: threading.Thread | None = None
        self._broken: weakref.WeakSet[Drawable] = weakref.WeakSet()  # of which a failure was logged
        self._is_leaving = False
        #: A cell is about to be over, and no browser is likely: what is drawn now is to be published at once.
        self.is_saving: bool = False
        self._numbers = itertools.count(1)
        self._news = 0  # number of what the bell was last rung for
        self._drawn = 0  # and of what is drawn; of two that ring at once the lower one may stay, but none comes twice

    # --- from any thread

    def add(self, display: Drawable, output: Output) -> None:
        """Draw a display from now on, until its output is put away."""
        with self._lock:
            if all(output is not known for known, _ in self._shown):
                self._shown.append((output, weakref.ref(display)))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="oq-widget", daemon=True)
                self._thread.start()
        self.wake()

    def wake(self) -> None:
        """Draw soon."""
        self._news = next(self._numbers)
        self._bell.put(None)

    def set(self) -> None:
        """Draw soon: what a watch calls when it has news."""
        self.wake()

    def dispose_output(self, output: Output) -> None:
        """Have the models of a display closed that is no more."""
        if not self._is_leaving:
            self._bell.put(output)
            self._news = next(self._numbers)  # after it: that is done when it is taken from the bell

    def settle(self, timeout: float = _SETTLE_SECONDS) -> None:
        """Wait until what is shown is drawn as it is known; at most so many seconds, and none in the drawing thread."""
        thread, is_drawn = self._thread, threading.Event()
        if thread is None or thread is threading.current_thread() or self.is_settled:
            return
        self._bell.put(is_drawn)
        deadline = time.monotonic() + timeout
        while thread.is_alive() and not is_drawn.wait(0.02) and time.monotonic() < deadline:
            pass

    @property
    def is_settled(self) -> bool:
        """Whether everything is drawn as it is known."""
        return self._drawn == self._news

    @property
    def is_current_thread(self) -> bool:
        """Whether the calling thread is the one that draws."""
        return threading.current_thread() is self._thread

    # --- told by the kernel

    def cell_began(self) -> None:
        """Publish again what became plain between two cells."""
        with self._lock:
            is_missed = any(output.is_missed for output, _ in self._shown)
        if is_missed:
            self.wake()

    def cell_ended(self) -> None:
        """Have everything drawn before the cell is over; looked at and published, too, where no browser is likely."""
        began = time.monotonic()
        with self._lock:
            displays = [display for _, reference in self._shown if (display := reference()) is not None]
        looks = [look for display in displays if (look := display.look_again()) is not None]
        del displays
        try:
            if looks:
                while (looks := [look for look in looks if not look.go_on()]) and (
                    time.monotonic() - began < _LOOK_SHARE * _SETTLE_SECONDS
                ):
                    time.sleep(0.01)
                self.is_saving = True
                self.wake()
            self.settle(max(0.0, began + _SETTLE_SECONDS - time.monotonic()))
        finally:
            self.is_saving = False

    def kernel_ends(self) -> None:
        """Make everything plain HTML before the kernel goes; a page that is still connected saves that.

        The models are left alone: a page that restarts its kernel knows them no more, and would complain.
        """
        self._is_leaving = True
        for output in [output for output, _ in self._shown if output.is_live]:
            try:
                (kernel.cell.context or contextvars.copy_context()).copy().run(output.close)
            except Exception:  # the kernel is going
                return

    # --- in the thread

    def _run(self) -> None:
        waiting: list[threading.Event] = []
        while True:
            if self._is_leaving:
                return
            news = self._news
            pause = self._draw_all()
            self._drawn = news
            for event in waiting:
                event.set()
            rung = self._listen(pause, time.monotonic() + _SHORTEST_SECONDS)
            for dead in rung:
                if isinstance(dead, Output) and not self._dispose(dead):
                    return
            waiting = [event for event in rung if isinstance(event, threading.Event)]
            del rung

    def _listen(self, timeout: float | None, earliest: float) -> list[Output | threading.Event | None]:
        """Return what the bell was rung with: at the earliest then, or as soon as somebody waits for a drawing."""
        rung: list[Output | threading.Event | None] = []
        try:
            rung.append(self._bell.get(timeout=timeout))
            while not isinstance(rung[-1], threading.Event):
                rung.append(self._bell.get(timeout=max(0.0, earliest - time.monotonic())))
        except queue.Empty:
            pass
        return rung

    def _draw_all(self) -> float | None:
        """Draw every display; return in how many seconds one wants it again, None when none does."""
        with self._lock:
            shown = list(self._shown)
        is_busy = is_smooth = False
        for output, reference in shown:
            if output.is_missed and kernel.cell.is_running:
                output.run(output.publish)
            display = reference()
            if display is None:
                continue
            try:
                is_busy |= output.run(display.draw_if_open)
                is_smooth |= display.is_smooth
            except Exception:
                if display not in self._broken:
                    logger.exception("%s could not be drawn", type(display).__name__)
                    self._broken.add(display)
                is_busy = True
        if is_smooth:
            return _SMOOTH_SECONDS
        return _TICK_SECONDS if is_busy else None

    def _dispose(self, dead: Output) -> bool:
        """Close what a display left behind; return whether there are others to draw."""
        try:
            dead.run(dead.dispose)
        except Exception:
            logger.exception("a display could not be put away")
        with self._lock:
            self._shown = [known for known in self._shown if known[0] is not dead]
            if self._shown:
                return True
            self._thread = None
            return False


loop: RenderLoop = RenderLoop()
