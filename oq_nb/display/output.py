"""`Output`: what a live display leaves in a notebook, and what outlives it.

A widget needs its kernel: where that was restarted and the page reloaded, JupyterLab says "Loading widget…" or "model
not found", and does not show the HTML that stands beside the widget in the same output. So in JupyterLab and Notebook a
display makes two outputs: the saved one, plain HTML, brought up to date every few seconds; and the widget. The saved
one brings a style with it: while the output that follows shows a widget, the saved one is hidden; while that one shows
nothing but words, it is hidden itself. Other front ends get one output, with the widget and the HTML in it.

Imports of the package: `text`, `display.clicks`, `display.kernel`.
"""

from __future__ import annotations

import contextvars
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, TypeVar

from oq_nb.display import kernel
from oq_nb.display.clicks import without_cell_hooks
from oq_nb.text import local_time

__all__ = ["Frozen", "Output"]

T = TypeVar("T")

_PLAIN_SECONDS = 1.0  # between two updates of outputs without a widget
_FIRST_SECONDS = 1.0  # until what is saved beside a widget says more than what was known when it was shown
_SAVED_SECONDS = 5.0  # between two updates of what is saved beside a widget, when something has changed
_SEEN_SECONDS = 60.0  # and when nothing has: since then it was seen again

_NEXT = ".jp-OutputArea-child"
#: Hides what is saved while the next output shows a widget, and the next output while it shows none.
_APART = (
    f"<style>{_NEXT}:has(.oq-saved):has(+ {_NEXT} .oq-live),"
    f"{_NEXT}:has(.oq-saved) + {_NEXT}:not(:has(.jp-OutputArea-output *)){{display:none}}</style>"
)

#: Makes a display's present state as HTML and as text, when somebody needs it; does not refer to the display.
Frozen = Callable[[], "tuple[str, str]"]


class Output:
    """The models and outputs of a display, to be put away by the drawing thread. Does not refer to the display.

    Args:
        closing_note: HTML that is added when it is put away before it was over.
    """

    def __init__(self, closing_note: str = "") -> None:
        self._context = contextvars.copy_context()
        self._closing_note = closing_note
        self._places: list[_Place] = []
        self._said: tuple[str, str, bool] | None = None  # HTML, text and whether with a widget, as the outputs have it
        self.models: list[Any] = []
        #: What it would say now.
        self.frozen: Frozen = lambda: ("", "")
        self.is_static: bool = False
        #: There is no widget: its HTML is updated in place.
        self.is_plain: bool = False
        self._published_at = 0.0
        self._is_fresh = True  # was shown, and nothing was published since
        #: Became plain while no cell ran: published again with the next.
        self.is_missed: bool = False

    def own(self, model: Any) -> Any:
        """Note a model, its layout and style, to be closed in the end: ipywidgets would not close the latter two."""
        for part in (model, getattr(model, "layout", None), getattr(model, "style", None)):
            if part is not None and all(part is not known for known in self.models):
                self.models.append(part)
                without_cell_hooks(part)
        return model

    def disown(self, model: Any) -> None:
        """Close a model and its style before the end; others may have the same layout."""
        for part in (model, getattr(model, "style", None)):
            if part is not None:
                part.close()
                self.models = [known for known in self.models if known is not part]

    @property
    def is_live(self) -> bool:
        """Whether it is shown somewhere as a widget."""
        return bool(self._places) and not self.is_static

    def run(self, function: Callable[[], T]) -> T:
        """Call a function so that its messages belong to the present cell; from the thread that draws alone."""
        return (kernel.cell.context or self._context).run(function)

    def show(self, model: Any) -> None:
        """Show a widget in one more place, with what stands for it where it cannot be shown.

        Args:
            model: of the widget; None for plain HTML that is updated in place.
        """
        html, text = self._now()
        self.is_plain = model is None
        view = None if self.is_plain else model
        place = _Place(view if kernel.shows_outputs_apart() else None)
        place.show(html, text, view)
        self._places.append(place)
        self._said, self.is_static, self._published_at = (html, text, True), False, time.monotonic()
        self._is_fresh = True

    def adopt(self, display_id: str) -> None:
        """Take over an output that has been shown with a widget in it, to make plain HTML of it later."""
        self._places.append(_Place(None, display_id))

    def become_plain(self) -> None:
        """Show no widget any more, but HTML that is updated in place."""
        self.is_plain, self._said = True, None
        self.refresh()

    def refresh(self, *, has_browser: bool = False, is_last: bool = False) -> None:
        """Update what is shown or saved beside a widget, every few seconds; and without a widget, once a second.

        Args:
            has_browser: somebody may look at an output that has both: it is left alone, since it would flicker.
            is_last: what is shown now is likely to be what is saved: it is updated without a pause.
        """
        if not self.is_live:
            return
        since = time.monotonic() - self._published_at
        if self.is_plain:
            if is_last or since >= _PLAIN_SECONDS:
                self.publish(with_model=True)  # as long as it is live, it counts as one
            return
        is_due = is_last or since >= (_FIRST_SECONDS if self._is_fresh else _SAVED_SECONDS)
        if is_due and (not has_browser or all(place.is_apart for place in self._places)):
            if since >= _SEEN_SECONDS:
                self._said = None
            self.publish(with_model=self._model)

    def _now(self) -> tuple[str, str]:
        html, text = self.frozen()
        return str(html), text  # no Markup, which would escape what is added to it

    @property
    def _model(self) -> Any:
        return next((place.model for place in self._places if place.model is not None), None)

    def publish(self, *, with_model: Any = None, note: str = "") -> None:
        """Replace every output by the present HTML and text, and the widget when there is still to be one.

        What has not changed is left alone: what is replaced flickers.
        """
        html, text = self._now()
        said = (html + note, text, with_model is not None)
        if said == self._said and not self.is_missed:
            return
        for place in self._places:
            place.show(said[0], text, None if self.is_plain else with_model, is_update=True)
        self._said, self._published_at, self._is_fresh = said, time.monotonic(), False
        self.is_static = with_model is None
        self.is_missed = self.is_static and not kernel.cell.is_running

    def close(self) -> None:
        """Leave plain HTML, with the closing note."""
        if self.is_live:
            self.publish(note=self._closing_note)

    def dispose(self) -> None:
        """Leave plain HTML, and close the models."""
        self.close()
        for model in self.models:
            model.close()
        self.models.clear()


class _Place:
    """Where a display is shown: an output that has all of it, or one for the HTML and one for the widget.

    Args:
        model: of the widget that gets an output of its own; None for one output.
        display_id: of the output that has all of it or the HTML.
    """

    def __init__(self, model: Any, display_id: str = "") -> None:
        self._id, self._view_id = display_id or f"oq-{uuid.uuid4().hex}", f"oq-{uuid.uuid4().hex}"
        self.is_apart = model is not None
        self.model = model
        self._has_view = False

    def show(self, html: str, text: str, model: Any, *, is_update: bool = False) -> None:
        """Show this.

        Args:
            html: for those who see no widget.
            text: for those who see no HTML either.
            model: of the widget; None for no widget any more.
            is_update: it is shown already.
        """
        self.model = model
        view = {} if model is None else {kernel.MIME: kernel.view_of(model)}
        if not self.is_apart:
            kernel.publish({**view, "text/html": html, "text/plain": text}, display_id=self._id, update=is_update)
            return
        saved = html if model is None else _saved_html(html)
        kernel.publish({"text/html": saved, "text/plain": text}, display_id=self._id, update=is_update)
        if self._has_view != bool(view) or not is_update:
            empty = {"text/html": "", "text/plain": ""}
            kernel.publish({**view, **empty}, display_id=self._view_id, update=is_update)
            self._has_view = bool(view)


def _saved_html(html: str) -> str:
    """Return what is saved while a widget is shown beside it; front ends that take the style away show both."""
    seen = local_time(datetime.now(timezone.utc))
    said = f"As seen at {seen}; <code>.widget()</code> shows it live."
    return f'<div class="oq-saved">{_APART}{html}<div style="opacity:.75">{said}</div></div>'
