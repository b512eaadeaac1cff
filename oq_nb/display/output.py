"""`Output`: what a live display leaves in a notebook, and what outlives it.

Imports of the package: `display.kernel`.
"""

from __future__ import annotations

import contextvars
import uuid
from collections.abc import Callable
from typing import Any, TypeVar

from oq_nb.display import kernel

__all__ = ["Frozen", "Output"]

T = TypeVar("T")

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
        self.is_static = False
        #: Became plain while no cell ran: published again with the next.
        self.is_missed = False

    @property
    def is_live(self) -> bool:
        """Whether it is shown somewhere as a widget."""
        return bool(self._display_ids) and not self.is_static

    def run(self, function: Callable[[], T]) -> T:
        """Call a function so that its messages belong to the present cell; from the thread that draws alone."""
        return (kernel.cell.context or self._context).run(function)

    def show(self, model: Any, html: str, text: str) -> None:
        """Show a widget in one more place, with what stands for it where it cannot be shown."""
        display_id = f"oq-{uuid.uuid4().hex}"
        bundle = {kernel.MIME: kernel.view_of(model), "text/html": str(html), "text/plain": text}
        kernel.publish(bundle, display_id=display_id)
        self._display_ids.append(display_id)
        self._said, self.is_static = (str(html), text, True), False

    def publish(self, *, with_model: Any = None, note: str = "") -> None:
        """Replace every output by the present HTML and text, and the widget when there is still to be one.

        What has not changed is left alone: what is replaced flickers.
        """
        html, text = self.frozen()
        said = (str(html) + note, text, with_model is not None)
        if said == self._said and not self.is_missed:
            return
        bundle: dict[str, Any] = {"text/html": said[0], "text/plain": text}
        if with_model is not None:
            bundle = {kernel.MIME: kernel.view_of(with_model), **bundle}
        for display_id in self._display_ids:
            kernel.publish(bundle, display_id=display_id, update=True)
        self._said = said
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
