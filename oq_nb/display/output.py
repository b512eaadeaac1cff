"""`Output`: what a live display leaves in a notebook, and what outlives it.

Imports of the package: `display.clicks`, `display.kernel`.
"""

from __future__ import annotations

import contextvars
import time
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from oq_nb.display import kernel
from oq_nb.display.clicks import without_cell_hooks

__all__ = ["Frozen", "Output"]

T = TypeVar("T")

_PLAIN_SECONDS = 1.0  # between two updates of outputs without a widget

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
        self._display_ids: list[str] = []
        self._said: tuple[str, str, bool] | None = None  # HTML, text and whether with a widget, as the outputs have it
        self.models: list[Any] = []
        #: What it would say now.
        self.frozen: Frozen = lambda: ("", "")
        self.is_static: bool = False
        #: There is no widget: its HTML is updated in place.
        self.is_plain: bool = False
        self._published_at = 0.0
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
        return bool(self._display_ids) and not self.is_static

    def run(self, function: Callable[[], T]) -> T:
        """Call a function so that its messages belong to the present cell; from the thread that draws alone."""
        return (kernel.cell.context or self._context).run(function)

    def show(self, model: Any) -> None:
        """Show a widget in one more place, with what stands for it where it cannot be shown.

        Args:
            model: of the widget; None for plain HTML that is updated in place.
        """
        display_id = f"oq-{uuid.uuid4().hex}"
        html, text = self.frozen()
        self.is_plain = self.is_plain or model is None
        kernel.publish(_bundle(str(html), text, None if self.is_plain else model), display_id=display_id)
        self._display_ids.append(display_id)
        self._said, self.is_static, self._published_at = (str(html), text, True), False, time.monotonic()

    def become_plain(self) -> None:
        """Show no widget any more, but HTML that is updated in place."""
        self.is_plain, self._said = True, None
        self.refresh()

    def refresh(self) -> None:
        """Update what is shown without a widget; once a second at most."""
        if self.is_plain and self.is_live and time.monotonic() - self._published_at >= _PLAIN_SECONDS:
            self.publish(with_model=True)  # as long as it is live, it counts as one

    def publish(self, *, with_model: Any = None, note: str = "") -> None:
        """Replace every output by the present HTML and text, and the widget when there is still to be one.

        What has not changed is left alone: what is replaced flickers.
        """
        html, text = self.frozen()
        said = (str(html) + note, text, with_model is not None)
        if said == self._said and not self.is_missed:
            return
        bundle = _bundle(said[0], text, None if self.is_plain else with_model)
        for display_id in self._display_ids:
            kernel.publish(bundle, display_id=display_id, update=True)
        self._said, self._published_at = said, time.monotonic()
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


def _bundle(html: str, text: str, model: Any) -> dict[str, Any]:
    widget = {} if model is None else {kernel.MIME: kernel.view_of(model)}
    return {**widget, "text/html": html, "text/plain": text}
