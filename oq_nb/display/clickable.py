"""A model that shows HTML in which there are buttons, and tells what was pressed.

Where ``anywidget`` is installed that is a widget with a script of its own (``clickable.js``), which takes over what has
changed node by node (``morph.js``, as the web page does). Elsewhere it is an ``ipywidgets.HTML``, to which no buttons
are given. The HTML is Python's either way. Nothing is loaded from a content network.

Imports of the package: `display.clicks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

from oq_nb.display.clicks import hear_while_busy

__all__ = ["Press", "is_clickable", "make_clickable", "press_of"]


@dataclass(frozen=True)
class Press:
    """What was pressed, as it stood on the button."""

    action: str
    #: Ids, and the last attempt of each when the button was drawn.
    tasks: tuple[tuple[str, int | None], ...] = ()
    #: Key of a group of failures; empty for none.
    group: str = ""
    #: Of a group: the instant by which its tasks had failed, as text.
    until: str = ""


def press_of(content: Any) -> Press | None:
    """Return what a page has sent; None when it is not what the script sends. The page is not trusted."""
    if not isinstance(content, dict):
        return None
    action, tasks = content.get("action"), content.get("tasks")
    group, until = content.get("group", ""), content.get("until", "")
    if not all(isinstance(text, str) for text in (action, group, until)) or not isinstance(tasks, list):
        return None
    made: list[tuple[str, int | None]] = []
    for text in tasks[:1000]:
        task_id, _, attempt = text.partition(":") if isinstance(text, str) else ("", "", "")
        if not task_id or (attempt and not (attempt.isascii() and attempt.isdigit() and len(attempt) < 10)):
            return None
        made.append((task_id, int(attempt) if attempt else None))
    return Press(str(action), tuple(made), str(group), str(until))


def make_clickable(widgets: Any, pressed: Callable[[Press], None], **fields: Any) -> Any:
    """Return a model whose ``value`` is HTML.

    Args:
        widgets: the module ``ipywidgets``, or `oq_nb.display.plain_models`.
        pressed: called with what was pressed, in the kernel's main thread or a subshell's; it must not keep the display
            alive.
        **fields: of the model.
    """
    kind = _clickable_class() if widgets.__name__ == "ipywidgets" else None
    if kind is None:
        return widgets.HTML(**fields)
    model = kind(layout=fields.get("layout"))

    def tell(_model: Any, content: Any, _buffers: Any) -> None:
        press = press_of(content)
        if press is not None:
            pressed(press)

    model.on_msg(tell)
    hear_while_busy(model)
    return model


def is_clickable(model: Any) -> bool:
    """Return whether buttons in the HTML of a model tell that they were pressed."""
    kind = _clickable_class()
    return kind is not None and isinstance(model, kind)


@lru_cache(maxsize=1)
def _clickable_class() -> Any:
    try:
        import anywidget
        import traitlets
    except ImportError:
        return None
    folder = resources.files("oq_nb.display")
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in ("morph.js", "clickable.js"))

    class ClickableHTML(anywidget.AnyWidget):
        """HTML that says what is pressed in it."""

        _esm = script
        value = traitlets.Unicode().tag(sync=True)

    return ClickableHTML
