"""Whether a browser shows what a kernel displays, and when it may be replaced there.

Imports of the package: `display.kernel`, `display.render_loop`.
"""

from __future__ import annotations

import time
from typing import Any

from oq_nb.display import kernel
from oq_nb.display.render_loop import loop

__all__ = ["Browser", "Shown", "browser"]

_NO_BROWSER_SECONDS = 10.0  # without a cell running: a browser would have reported the views of widgets by then
_VIEW_SECONDS = 3.0  # so long it takes a page at most to say that it shows a widget


class Browser:
    """Whether a browser shows displays of this kernel: only then is anybody there to press buttons."""

    is_there: bool = False
    #: A cell was sent by a program that shows notebooks: it is likely to report a view soon.
    is_expected: bool = False

    def __init__(self) -> None:
        self._silent: set[str] = set()

    @property
    def can_come(self) -> bool:
        """Whether one has shown a display, or may yet: the kernel has not been idle for long enough to hear of it."""
        return self.is_there or kernel.cell.idle_seconds < _NO_BROWSER_SECONDS

    @property
    def is_likely(self) -> bool:
        """Whether one has shown a display, or is about to."""
        return self.is_there or (self.is_expected and self.can_come)

    def note_cell(self) -> bool:
        """Note who has sent the present cell; return whether it is a program that shows notebooks."""
        is_shown = kernel.is_shown_live()
        self.is_expected = self.is_expected or is_shown
        return is_shown

    def note_silence(self, sender: str | None) -> None:
        """Note that what sent a cell has reported no view of what the cell showed, though there was time to.

        Args:
            sender: its session. None for a program that shows notebooks, which may only have been asleep.
        """
        if sender is not None:
            self._silent.add(sender)

    def is_silent(self, sender: str | None) -> bool:
        """Whether this is known not to show widgets; never once a browser has reported a view."""
        return not self.is_there and sender in self._silent

    def look_for(self, model: Any) -> None:
        """Note when a browser reports a view of a model, which takes until the kernel is idle."""
        model.set_trait("_view_count", 0)  # browsers count their views in there once it is a number
        model.observe(self._note, "_view_count")

    def _note(self, change: Any) -> None:
        if change["new"] and not loop.is_current_thread:
            self.is_there = True
            loop.wake()


browser: Browser = Browser()


class Shown:
    """That a widget is shown from now on in one place more.

    JupyterLab throws away a view that is half made when its output is replaced, and complains on its console: an
    output is not replaced until the page has made its view.

    Args:
        model: of the widget, which `Browser.look_for` knows.
    """

    def __init__(self, model: Any) -> None:
        self._model, self._at = model, time.monotonic()
        self._views_before = self._views

    @property
    def _views(self) -> int:
        """Views that pages have of it, as far as they have told; only a kernel that is idle learns of them."""
        return getattr(self._model, "_view_count", None) or 0

    @property
    def is_replaceable(self) -> bool:
        """Whether the output may be replaced now: the page has made its view, or nobody is there to make one."""
        if not browser.is_likely:
            return True
        return self._views > self._views_before or time.monotonic() - self._at > _VIEW_SECONDS
