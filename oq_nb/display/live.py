"""`LiveDisplay`: something shown in a notebook that refreshes itself; the one thread that refreshes all of them.

::

    tick (thread "oq-widget") ──> for each display, in a context of a cell: draw() ──> models ──> front end
         ↑ at least once a second, at most five times, or when a watch has news

Invariants:

* Models are written by that thread alone (after they were made): traitlets have no locks. Callbacks of buttons, which
  may run in any thread, note what is wanted and wake it.
* Every draw runs in a copy of a cell's context: without that, ipykernel 7.0 loses the update, and later ones put output
  into the wrong cell. It is the context of the cell that runs, or ran last, because what executes a notebook without a
  browser (nbclient, papermill) takes messages of the present cell only; until another cell has run, it is the one that
  the display was made in.
* The thread refers to displays weakly. One that is dropped or closed becomes plain HTML and its models are closed; when
  none is left the thread ends.
* A display that is over becomes plain HTML at once; its models live on until it is dropped, because a page that was
  reloaded still shows them.
* A cell is over only when what is known has been drawn (`settle`), half a second at most: what executes a notebook
  without a browser takes no message of a cell that is over. What became plain between two cells is said again.

Imports of the package: none but `text`. ipywidgets and IPython are imported when something is shown.
"""

from __future__ import annotations

import atexit
import contextvars
import itertools
import logging
import queue
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = [
    "LiveDisplay",
    "browser",
    "in_kernel",
    "is_ticking",
    "settle",
    "show_static",
    "stale_html",
    "wake",
    "weakly",
]

logger = logging.getLogger("oq_nb.widget")

T = TypeVar("T")

_TICK_SECONDS = 1.0
_SHORTEST_SECONDS = 0.2
_SETTLE_SECONDS = 0.5
_STALE_SECONDS = 20
_MIME = "application/vnd.jupyter.widget-view+json"


def in_kernel() -> bool:
    """Return whether this is a Jupyter kernel, where widgets can be shown."""
    import sys

    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def show_static(html: str, text: str) -> None:
    """Show plain HTML in a notebook, the text elsewhere."""
    if in_kernel():
        _publish({"text/html": html, "text/plain": text})
    else:
        print(text)


def _publish(bundle: dict[str, Any], **how: Any) -> None:
    """Show a bundle, or replace one that is shown (``display_id``, ``update``)."""
    from IPython import display

    show: Any = display.display
    show(bundle, raw=True, **how)


class _Output:
    """What outlives a display: its models and outputs, to be put away by the thread. Does not refer to the display."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self.models: list[Any] = []
        self.display_ids: list[str] = []
        self.html = ""
        self.text = ""
        self.said: tuple[str, str, bool] | None = None  # HTML, text and whether with a widget, as the outputs have it
        self.is_static = False
        self.is_missed = False  # became plain while no cell ran: said again with the next
        #: Added when it is put away before it was over.
        self.closing_note = '<div style="opacity:.75">No longer refreshed: <code>.widget()</code> shows it again.</div>'

    def run(self, function: Callable[[], T]) -> T:
        """Call a function so that its messages belong to the present cell; from the thread that draws alone."""
        return (_cell.context or self._context).run(function)

    def publish(self, *, with_model: Any = None) -> None:
        """Replace every output by the present HTML and text, and the widget when there is still to be one."""
        bundle: dict[str, Any] = {"text/html": self.html, "text/plain": self.text}
        if with_model is not None:
            bundle = {_MIME: _view(with_model), **bundle}
        for display_id in self.display_ids:
            _publish(bundle, display_id=display_id, update=True)
        self.said = (self.html, self.text, with_model is not None)
        self.is_static = with_model is None
        self.is_missed = self.is_static and not _cell.is_running

    def dispose(self) -> None:
        if not self.is_static and self.display_ids:
            self.html += self.closing_note
            self.publish()
        for model in self.models:
            model.close()
        self.models.clear()


class _Browser:
    """Whether a browser has ever shown a display of this kernel: only then is anybody there to press buttons."""

    is_there = False

    def look_for(self, model: Any) -> None:
        """Note when a browser reports a view of a model, which takes until the kernel is idle."""
        model.observe(self._note, "_view_count")

    def _note(self, change: Any) -> None:
        if change["new"] and not is_ticking():
            self.is_there = True
            wake()


browser = _Browser()


class _Cell:
    """The context of the cell that runs or ran last; None before a cell has begun since the first display."""

    def __init__(self) -> None:
        self.context: contextvars.Context | None = None
        self.is_running = True
        self._shell: Any = None

    def follow(self) -> None:
        """Be told when a cell begins."""
        from IPython import get_ipython

        shell = get_ipython()
        if shell is not self._shell:
            self._shell = shell
            atexit.register(_ticker.say_goodbye)
            shell.events.register("pre_run_cell", self._begin)
            shell.events.register("post_run_cell", self._end)

    def _begin(self, *_: object) -> None:
        self.context, self.is_running = contextvars.copy_context(), True
        if _ticker.has_missed:
            wake()

    def _end(self, *_: object) -> None:
        self.is_running = False
        settle()


_cell = _Cell()


class _Ticker:
    """The thread, and what it looks after."""

    def __init__(self) -> None:
        # Displays are dropped at any moment in any thread, also inside a lock: only a SimpleQueue may be told of it.
        self._bell: queue.SimpleQueue[_Output | threading.Event | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # guards the next three
        self._displays: list[weakref.ref[LiveDisplay]] = []
        self._remains: list[_Output] = []
        self.thread: threading.Thread | None = None
        self._is_leaving = False
        self._numbers = itertools.count(1)
        self._news = 0  # number of what the bell was last rung for
        self._drawn = 0  # and of what is drawn; of two that ring at once the lower one may stay, but none comes twice

    @property
    def has_missed(self) -> bool:
        """Whether something became plain between two cells."""
        with self._lock:
            return any(remains.is_missed for remains in self._remains)

    def add(self, display: LiveDisplay, remains: _Output) -> None:
        with self._lock:
            if remains not in self._remains:
                self._remains.append(remains)
                self._displays.append(weakref.ref(display))
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._run, name="oq-widget", daemon=True)
                self.thread.start()
        self.set()

    def set(self) -> None:
        """Draw soon: what a watch calls when it has news."""
        self._news = next(self._numbers)
        self._bell.put(None)

    def bury(self, remains: _Output) -> None:
        """Have the models of a display closed that is no more."""
        if not self._is_leaving:
            self._bell.put(remains)
            self._news = next(self._numbers)  # after it: that is done when it is taken from the bell

    def say_goodbye(self) -> None:
        """Make everything plain HTML before the kernel goes; a page that is still connected saves that.

        The models are left alone: a page that restarts its kernel knows them no more, and would complain.
        """
        self._is_leaving = True
        for remains in [remains for remains in self._remains if not remains.is_static and remains.display_ids]:
            remains.html += remains.closing_note
            try:
                (_cell.context or contextvars.copy_context()).copy().run(remains.publish)
            except Exception:  # the kernel is going
                return

    def settle(self, timeout: float) -> None:
        """Have everything drawn that is known now, and wait until it has been; mostly it has."""
        thread, is_drawn = self.thread, threading.Event()
        if thread is None or thread is threading.current_thread() or self._drawn == self._news:
            return
        self._bell.put(is_drawn)
        deadline = time.monotonic() + timeout
        while thread.is_alive() and not is_drawn.wait(0.02) and time.monotonic() < deadline:
            pass

    def _run(self) -> None:
        waiting: list[threading.Event] = []
        while True:
            if self._is_leaving:
                return
            news = self._news
            is_busy = self._draw_all()
            self._drawn = news
            for event in waiting:
                event.set()
            rung = self._listen(_TICK_SECONDS if is_busy else None, time.monotonic() + _SHORTEST_SECONDS)
            for dead in rung:
                if isinstance(dead, _Output) and not self._dispose(dead):
                    return
            waiting = [event for event in rung if isinstance(event, threading.Event)]
            del rung

    def _listen(self, timeout: float | None, earliest: float) -> list[_Output | threading.Event | None]:
        """Return what the bell was rung with: at the earliest then, or as soon as somebody waits for a drawing."""
        rung: list[_Output | threading.Event | None] = []
        try:
            rung.append(self._bell.get(timeout=timeout))
            while not isinstance(rung[-1], threading.Event):
                rung.append(self._bell.get(timeout=max(0.0, earliest - time.monotonic())))
        except queue.Empty:
            pass
        return rung

    def _draw_all(self) -> bool:
        """Draw every display; return whether any will want it again."""
        with self._lock:
            displays = [display for reference in self._displays if (display := reference()) is not None]
            missed = [remains for remains in self._remains if remains.is_missed and _cell.is_running]
        for remains in missed:
            remains.run(remains.publish)
        is_busy = False
        for display in displays:
            try:
                is_busy |= display._remains.run(display._draw_if_open)
            except Exception:
                if not display._has_failed:
                    logger.exception("%s could not be drawn", type(display).__name__)
                display._has_failed = is_busy = True
        return is_busy

    def _dispose(self, dead: _Output) -> bool:
        """Close what a display left behind; return whether there are others to look after."""
        try:
            dead.run(dead.dispose)
        except Exception:
            logger.exception("a display could not be put away")
        with self._lock:
            self._displays = [reference for reference in self._displays if reference() is not None]
            self._remains = [remains for remains in self._remains if remains is not dead]
            if self._remains:
                return True
            self.thread = None
            return False


_ticker = _Ticker()


def wake() -> None:
    """Draw what is shown soon."""
    _ticker.set()


def settle(timeout: float = _SETTLE_SECONDS) -> None:
    """Wait until what is shown is drawn as it is known; at most so many seconds, and none in the drawing thread."""
    _ticker.settle(timeout)


def is_ticking() -> bool:
    """Whether the calling thread is the one that draws."""
    return threading.current_thread() is _ticker.thread


def stale_html(comfort: str, code: str) -> str:
    """Return HTML that a browser shows when nothing has redrawn it for a while: then no kernel can say so.

    Args:
        comfort: what is not affected.
        code: what shows it again.
    """
    return (
        "<style>@keyframes oq-late{to{visibility:visible;height:auto}}"
        ".oq-stale{visibility:hidden;height:0;overflow:hidden;line-height:1.6;max-width:46em;"
        f"animation:oq-late 0s linear {_STALE_SECONDS}s forwards}}</style>"
        f'<div class="oq-stale" data-tick="{int(time.monotonic() // 5)}">⚠ Not refreshed for a while: the kernel was '
        f"restarted, or is kept busy. {comfort}; <code>{code}</code> shows it again.</div>"
    )


class LiveDisplay:
    """Something that refreshes itself while it is shown.

    A subclass makes its models in `_build`, fills them in `_draw`, and says in `_static` what remains.
    """

    def __init__(self) -> None:
        self._remains = _Output()
        self._root: Any = None
        self._is_over = False
        self._is_closed = False
        self._has_failed = False
        self._build_lock = threading.Lock()
        self._undertaker: Any = None

    # --- for subclasses

    def _build(self) -> Any:
        """Make the models and return the outermost; register each with `_own`."""
        raise NotImplementedError

    def _start(self) -> None:
        """Begin to watch."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Watch no longer."""
        raise NotImplementedError

    def _draw(self) -> None:
        """Bring the models up to date."""
        raise NotImplementedError

    def _static(self) -> tuple[str, str]:
        """Return the present state as HTML and as text."""
        raise NotImplementedError

    def _own(self, model: Any) -> Any:
        """Note a model, its layout and its style: ipywidgets would not close the latter two."""
        for part in (model, getattr(model, "layout", None), getattr(model, "style", None)):
            if part is not None and all(part is not known for known in self._remains.models):
                self._remains.models.append(part)
        return model

    def _save(self, *, keeps_widget: bool = False) -> None:
        """Have the outputs say the present state in plain HTML.

        Args:
            keeps_widget: the widget is still shown, only what is saved with the notebook changes.
        """
        self._remains.html, self._remains.text = self._static()
        if self._remains.said != (self._remains.html, self._remains.text, keeps_widget):  # what is replaced flickers
            self._remains.publish(with_model=self._root if keeps_widget else None)

    def _finish(self) -> None:
        """Have the outputs say the last state in plain HTML, and refresh them no more."""
        self._save()
        self._is_over = True
        self._stop()

    # --- life

    @property
    def is_finished(self) -> bool:
        """Whether it is refreshed no more: it was closed, or what it shows has ended."""
        return self._is_closed or self._is_over

    @property
    def box(self) -> Any:
        """The ipywidgets box, to put into a layout of your own; it is refreshed from now on."""
        with self._build_lock:
            if self._root is None and not self._is_closed:
                self._root = self._build()
                self._undertaker = weakref.finalize(self, _ticker.bury, self._remains)
                self._undertaker.atexit = False
                self._start()
                self._draw()
                _ticker.add(self, self._remains)
        return self._root

    def close(self) -> None:
        """Stop refreshing: what is shown becomes plain HTML, and the models are closed."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._root is not None:
            self._stop()
            self._remains.html, self._remains.text = self._static()
            self._undertaker()

    def _draw_if_open(self) -> bool:
        """Draw; return whether to draw again in a second."""
        if self.is_finished:
            return False
        self._draw()
        if not self._is_over:
            self._remains.html, self._remains.text = self._static()
        return not self._is_over

    def _ipython_display_(self) -> None:
        if not in_kernel() or self.is_finished:
            show_static(*self._static())
            return
        _cell.follow()
        root = self.box
        html, text = self._static()
        display_id = f"oq-{uuid.uuid4().hex}"
        bundle = {_MIME: _view(root), "text/html": html, "text/plain": text}
        _publish(bundle, display_id=display_id)
        self._remains.display_ids.append(display_id)
        self._remains.said = (html, text, True)
        self._remains.is_static = self._is_over
        if self._is_over:  # since a moment ago
            self._remains.publish()
        _ticker.set()

    def __repr__(self) -> str:
        return self._static()[1]

    def _repr_html_(self) -> str:
        return self._static()[0]


def _view(model: Any) -> dict[str, Any]:
    return {"version_major": 2, "version_minor": 0, "model_id": model.model_id}


def weakly(method: Callable[..., Any]) -> Callable[..., None]:
    """Return a callback that does not keep the object of the method alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        target = reference()
        if target is not None:
            target(*arguments)

    return call
