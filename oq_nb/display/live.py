"""`LiveDisplay`: something shown in a notebook that refreshes itself.

Invariants:

* A display that is dropped or closed becomes plain HTML, and its models are closed.
* A display that is over becomes plain HTML at once; its models live on until it is dropped, because a page that was
  reloaded still shows them.
* That no front end answers is learned once for each program that sends cells (`Browser.is_silent`), not for each
  display. A display that nobody is likely to see as a widget has its models all the same: it may be shown elsewhere.
* An output is not replaced while a page is still making its view of the widget (`browser.Shown`).

Imports of the package: `queue.watcher`, `display.browser`, `display.kernel`, `display.output`, `display.render_loop`.
ipywidgets and IPython are imported when something is shown.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from markupsafe import Markup

from oq_nb.display import kernel, plain_models
from oq_nb.display.browser import Shown, browser
from oq_nb.display.output import Frozen, Output
from oq_nb.display.render_loop import Look, loop
from oq_nb.display.safe import as_text, fill
from oq_nb.queue.watcher import OverviewWatch
from oq_nb.text import local_time

__all__ = ["BUSY_SECONDS", "Frozen", "LiveDisplay", "stale_html", "weakly"]

#: So long a cell runs before a button says that it is not heard meanwhile.
BUSY_SECONDS = 1.0

_STALE_SECONDS = 20
_MOST_ASKED = 3  # so often one look is asked for
_CLOSING_NOTE = '<div style="opacity:.75">No longer refreshed: <code>.widget()</code> shows it again.</div>'


def stale_html(comfort: str, code: str) -> Markup:
    """Return HTML that a browser shows when nothing has redrawn it for a while: then no kernel can say so.

    Args:
        comfort: what is not affected.
        code: what shows it again.
    """
    return fill(
        "<style>@keyframes oq-late{{to{{visibility:visible;height:auto}}}}"
        ".oq-stale{{visibility:hidden;height:0;overflow:hidden;line-height:1.6;max-width:46em;"
        "animation:oq-late 0s linear {}s forwards}}</style>"
        '<div class="oq-stale">⚠ Not refreshed since {}: what stands here is from then. The kernel was '
        "restarted, or is kept busy. {}; <code>{}</code> shows it again.</div>",
        _STALE_SECONDS,
        local_time(datetime.fromtimestamp(time.time() // 5 * 5, timezone.utc)),  # changes, so that it starts anew
        comfort,
        code,
    )


class _Look:
    """One look at a whole queue that begins after this was made; none where the store does not answer anyway."""

    def __init__(self, watch: OverviewWatch) -> None:
        # A look that may be under way has perhaps missed what has just happened: then the one after it counts.
        self._missing = 1 if watch.due > time.monotonic() + watch.slack else 2
        self._watch, self._state = watch, watch.state  # after `due`: a look that ends between the two is not counted
        self._asked = 0
        if self._state.trouble is not None:
            self._missing = 0

    def go_on(self) -> bool:
        """Ask for it as long as it is not to be made soon, which the end of another one forgets; see `Look`."""
        watch = self._watch
        if watch.state is not self._state:
            self._state = watch.state
            self._missing -= 1
        if self._missing <= 0 or watch.is_closed:
            return True
        if watch.due > time.monotonic() and self._asked < _MOST_ASKED:
            self._asked += 1
            watch.refresh()
        return False


class _NoLook:
    """What is shown is known as it is."""

    def go_on(self) -> bool:
        """There is nothing to wait for."""
        return True


class LiveDisplay:
    """Something that refreshes itself while it is shown.

    A subclass makes its models in `_build`, fills them in `_draw`, and says in `_frozen` what remains.

    Args:
        closing_note: HTML that is added to what remains when it is closed before it was over.
    """

    def __init__(self, closing_note: str = _CLOSING_NOTE) -> None:
        self._output = Output(closing_note)
        self._root: Any = None
        self._watch: Any = None  # of a subclass that has one
        self._is_over = False
        self._is_closed = False
        self._latest: Shown | None = None  # for the last time
        self._sender: str | None = None  # of the cell that it was shown in for the last time
        self._build_lock = threading.Lock()
        self._finalizer: Any = None

    # --- for subclasses

    @property
    def is_smooth(self) -> bool:
        """Whether it is drawn four times a second, because this process does what it shows."""
        return False

    def _build(self, widgets: Any) -> Any:
        """Make the models and return the outermost; register each with `_own`.

        Args:
            widgets: the module ``ipywidgets``, or `oq_nb.display.plain_models`.
        """
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

    def _draw_over(self) -> None:
        """Add to the plain HTML what has happened since; by default nothing has."""

    def _frozen(self) -> Frozen:
        """Return what makes the present state as HTML and as text; it must not refer to this display."""
        raise NotImplementedError

    def _own(self, model: Any) -> Any:
        """Note a model that is to be closed in the end."""
        return self._output.own(model)

    def _save(self, *, keeps_widget: bool = False) -> None:
        """Have the outputs say the present state in plain HTML.

        Args:
            keeps_widget: the widget is still shown, only what is saved with the notebook changes.
        """
        self._output.frozen = self._frozen()
        self._output.publish(with_model=self._root if keeps_widget else None)

    def _finish(self) -> None:
        """Have the outputs say the last state in plain HTML, and refresh them no more; the next time, if not yet."""
        if not self.is_replaceable:
            return
        self._save()
        self._is_over = True
        self._stop()

    # --- life

    @property
    def is_finished(self) -> bool:
        """Whether it is refreshed no more: it was closed, or what it shows has ended."""
        return self._is_closed or self._is_over

    @property
    def is_replaceable(self) -> bool:
        """Whether the outputs may be replaced now: the page has made its view, or nobody is there to make one."""
        return self._latest is None or self._output.is_plain or self._latest.is_replaceable

    @property
    def box(self) -> Any:
        """The ipywidgets box, to put into a layout of your own; it is refreshed from now on."""
        import ipywidgets

        return self._begin(ipywidgets)

    def _begin(self, widgets: Any) -> Any:
        with self._build_lock:
            if self._root is None and not self._is_closed:
                self._root = self._build(widgets)
                self._root.add_class("oq-live")
                self._finalizer = weakref.finalize(self, loop.dispose_output, self._output)
                self._finalizer.atexit = False
                self._start()
                self._draw()
                loop.add(self, self._output)
        return self._root

    def close(self) -> None:
        """Stop refreshing: what is shown becomes plain HTML, and the models are closed."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._root is not None:
            self._stop()
            self._output.frozen = self._frozen()
            self._finalizer()

    def draw_if_open(self) -> bool:
        """Draw; return whether to draw again in a second. Called by the thread that draws."""
        if self._is_over and not self._is_closed:
            self._draw_over()
        if self.is_finished:
            return False
        self._draw()
        if not self._is_over:
            self._output.frozen = self._frozen()
            if self._output.is_live and not self._output.is_plain and not browser.can_come:
                browser.note_silence(self._sender)
                self._output.become_plain()
            has_browser = browser.is_likely
            self._output.refresh(has_browser=has_browser, is_last=loop.is_saving and not has_browser)
        return not self._is_over

    def look_again(self) -> Look | None:
        """Have it looked at once more before a cell is over, when that is what is saved: no browser is likely."""
        if self.is_finished or not self._output.is_live or browser.is_likely:
            return None
        return _Look(self._watch) if isinstance(self._watch, OverviewWatch) else _NoLook()

    def display(self) -> None:
        """Show it in the present cell; as text where there is no notebook."""
        html, text = self._frozen()()
        if not kernel.in_kernel() or self.is_finished:
            kernel.show_static(html, text)
            return
        kernel.cell.follow(loop)
        self._sender = kernel.sender()
        if browser.note_cell():
            self._sender = None
        root = self.box if kernel.wants_widgets() else self._begin(plain_models)
        has_models = kernel.wants_widgets() and not isinstance(root, plain_models.VBox)
        is_plain = not has_models or browser.is_silent(self._sender)
        self._output.frozen = self._frozen()
        if self._is_over:  # since a moment ago
            kernel.show_static(*self._output.frozen())
            return
        self._latest = Shown(root)
        self._output.show(None if is_plain else root)
        if self._is_over:
            self._output.publish()
        loop.wake()

    def _ipython_display_(self) -> None:
        self.display()

    def __repr__(self) -> str:
        return self._frozen()()[1]

    def _repr_html_(self) -> str:
        return as_text(self._frozen()()[0])


def weakly(method: Callable[..., Any]) -> Callable[..., None]:
    """Return a callback that does not keep the object of the method alive."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        target = reference()
        if target is not None:
            target(*arguments)

    return call
