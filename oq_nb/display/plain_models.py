"""Stand-ins for ipywidgets' models where no widgets are wanted: they hold values, and nothing is sent to anybody.

A display fills these as it fills widgets, and its outputs are plain HTML that is updated in place.

Imports nothing of the package.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["HTML", "Button", "Dropdown", "HBox", "Layout", "Text", "VBox"]


class _Model:
    """What the models of plain HTML have in common."""

    def __init__(self, children: Iterable[Any] = (), **fields: Any) -> None:
        self.children: tuple[Any, ...] = tuple(children)
        self.value: Any = ""
        self.style: Any = None
        self.__dict__.update(fields)

    def add_class(self, name: str) -> None:
        """There is nothing that it would be added to."""

    def set_trait(self, name: str, value: Any) -> None:
        """Nobody reports anything."""

    def observe(self, handler: Callable[..., None], names: str) -> None:
        """Nobody chooses anything."""

    def on_click(self, handler: Callable[..., None]) -> None:
        """Nobody presses it."""

    def hold_sync(self) -> contextlib.AbstractContextManager[None]:
        """Nothing is sent."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Nothing is left open."""


HTML = Button = Dropdown = HBox = VBox = Layout = Text = _Model
