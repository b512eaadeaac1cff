"""tqdm's bar for the surroundings; in a notebook it becomes plain HTML at its end.

tqdm's widget bar leaves a model behind that is gone after a restart ("model not found"), and a text that says 0%. Here
the last word stands in the saved notebook, on GitHub and in what nbconvert makes of it. Outside of a notebook
this is tqdm's class and nothing more.

Invariants:

* Nothing here raises into a loop.
* The models of the last `_KEPT` bars live on, because a page that is reloaded from an older save still shows them;
  those before are closed.
* A bar that ends at once is not replaced before the page has made its view of it (`browser.Shown`): the loop goes on,
  the drawing thread does it.

Imports of the package: `display`, `text`; IPython when a bar is shown in a notebook.
"""

from __future__ import annotations

import html
import logging
import re
import uuid
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm as _auto_tqdm
from tqdm.std import tqdm as _std_tqdm

from oq_nb.display import kernel, markup
from oq_nb.display.browser import Shown, browser
from oq_nb.display.output import Output
from oq_nb.display.render_loop import loop
from oq_nb.text import printable

__all__ = ["is_widget_bar", "tqdm"]

logger: logging.Logger = logging.getLogger("oq_nb.widget")

if TYPE_CHECKING:

    class _AnyName(type):
        def __getattr__(cls, name: str) -> Any: ...

    class _Base(metaclass=_AnyName):
        """tqdm for type checkers: any name. Its stubs know the text bar only."""

        def __init__(self, *args: Any, **kwargs: Any) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __enter__(self) -> Any: ...
        def __exit__(self, *error: Any) -> Any: ...
        def __iter__(self) -> Any: ...
        def __anext__(self) -> Any: ...
        def __del__(self) -> None: ...
        def clear(self, *args: Any, **kwargs: Any) -> Any: ...
        def close(self) -> Any: ...
        def display(self, *args: Any, **kwargs: Any) -> Any: ...
        def refresh(self, *args: Any, **kwargs: Any) -> Any: ...
else:
    _Base = _auto_tqdm
_KEPT = 50
_ended: deque[Any] = deque()
_late: set[_Late] = set()  # which the drawing thread refers to weakly


def is_widget_bar() -> bool:
    """Return whether bars are widgets here."""
    return _auto_tqdm.status_printer is not _std_tqdm.status_printer


class tqdm(_Base):
    """tqdm; in a notebook its output becomes plain HTML when it is closed. Takes everything that tqdm takes."""

    _display_id: str | None = None  # None: not to be shown, or not by us
    _shown: Shown | None = None
    _has_failed = False
    _is_left = False  # before its items were used up

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if not is_widget_bar() or not kwargs.get("display", True):
            super().__init__(*args, **kwargs)
            return
        super().__init__(*args, **(kwargs | {"display": False}))
        if not self.disable:
            self._display_id = f"oq-{uuid.uuid4().hex}"
            if self.delay <= 0:
                self._show()

    def display(self, *args: Any, **kwargs: Any) -> Any:
        """Draw the bar; see tqdm."""
        if self._display_id is not None and not self.displayed and kwargs.get("check_delay", True):
            self._show()
        return super().display(*args, **kwargs)

    def close(self) -> None:
        """Close the bar; see tqdm. Calling it again changes nothing."""
        is_shown = self._display_id is not None and self.displayed and not self.disable
        super().close()
        if is_shown:
            self._freeze()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._has_failed = self._has_failed or exc_type is not None
        super().__exit__(exc_type, exc_value, traceback)

    def mark_failed(self) -> None:
        """Have the bar say that its loop was ended by an error."""
        self._has_failed = True
        self.disp(bar_style="danger")

    def show_failed(self) -> None:
        """Have the plain bar that it has become say that its loop was ended by an error."""
        self._has_failed = True
        if self._display_id is not None and self.displayed and self.leave:
            self._replace()

    def _show(self) -> None:
        self.displayed = True
        try:
            if browser.note_cell():
                kernel.cell.follow(loop)
                browser.look_for(self.container)
            self._shown = Shown(self.container)
            view = {kernel.MIME: kernel.view_of(self.container)}
            kernel.publish({**view, **self._bundle()}, display_id=self._display_id)
        except Exception:
            logger.debug("a bar could not be shown", exc_info=True)

    def _freeze(self) -> None:
        self._replace()
        _ended.append(self.container)
        while len(_ended) > _KEPT:
            _close_models(_ended.popleft())

    def _replace(self) -> None:
        """Have plain HTML in the place of the widget, now or as soon as the page has made its view."""
        try:
            bundle = self._bundle() if self.leave else {"text/html": "", "text/plain": ""}
            if self._display_id is None or self._shown is None or self._shown.is_replaceable:
                kernel.publish(bundle, display_id=self._display_id, update=True)
            else:
                _Late(self._display_id, bundle, self._shown)
        except Exception:
            logger.debug("a bar could not be made plain", exc_info=True)

    def _bundle(self) -> dict[str, Any]:
        """Return what the bar says now, as HTML and as text."""
        shown = self.format_dict | {"ncols": None}
        text = printable(self.format_meter(**shown))
        form = (shown["bar_format"] or "{l_bar}{bar}{r_bar}").replace("{bar}", "<bar/>")
        said = self.format_meter(**(shown | {"bar_format": form}))
        parts = re.split(r"\|?<bar/>\|?", said, maxsplit=1)
        left, right = (html.escape(printable(part.strip())) for part in (parts if len(parts) == 2 else ["", said]))
        if self.total:
            percent, is_whole = int(min(100, max(0, self.n * 100 / self.total))), self.n >= self.total
        else:
            percent, is_whole = 100, True
        tone = "bad" if self._has_failed else "good" if is_whole and not self._is_left else "off"
        bar = markup.bar(percent, tone if self.disable else "running")  # disabled: tqdm's word for closed
        nowrap = "white-space:nowrap"
        page = (
            f'<label style="display:flex;gap:.6em;align-items:center;max-width:46em"><span style="{nowrap}">{left}'
            f'</span> {bar} <span style="{nowrap}">{right}</span></label>'
        )
        return {"text/html": page, "text/plain": text}


class _Late:
    """What a bar becomes as soon as the page has made its view; see `Drawable`."""

    is_smooth = False

    def __init__(self, display_id: str, bundle: dict[str, str], shown: Shown) -> None:
        self._shown = shown
        self._output = Output()
        self._output.frozen = lambda: (bundle["text/html"], bundle["text/plain"])
        self._output.adopt(display_id)
        _late.add(self)
        loop.add(self, self._output)

    def draw_if_open(self) -> bool:
        """Become it if possible; return whether to try again in a second."""
        if not self._shown.is_replaceable:
            return True
        _late.discard(self)
        loop.dispose_output(self._output)
        return False

    def look_again(self) -> None:
        """There is nothing to look at."""


def _close_models(container: Any) -> None:
    for widget in (*container.children, container):
        for part in (getattr(widget, "layout", None), getattr(widget, "style", None), widget):
            if part is not None:
                part.close()
