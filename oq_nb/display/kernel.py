"""The Jupyter kernel that this runs in, if it does: publishing outputs, and the cell that runs.

Imports `safe` of this room; IPython when something is shown.
"""

from __future__ import annotations

import atexit
import contextvars
import importlib.util
import os
import sys
import time
from typing import Any, Protocol

from oq_nb.display.safe import as_text

__all__ = [
    "MIME",
    "Cell",
    "CellObserver",
    "cell",
    "in_kernel",
    "is_shown_live",
    "publish",
    "sender",
    "show_static",
    "shows_outputs_apart",
    "view_of",
    "wants_widgets",
]

#: Of a widget in an output.
MIME = "application/vnd.jupyter.widget-view+json"


def in_kernel() -> bool:
    """Return whether this is a Jupyter kernel, where widgets can be shown."""
    if "IPython" not in sys.modules:
        return False
    from IPython import get_ipython

    return getattr(get_ipython(), "kernel", None) is not None


def wants_widgets() -> bool:
    """Return whether displays are to be widgets: ``OQ_WIDGETS=0`` says no, and so does a missing ipywidgets."""
    if os.environ.get("OQ_WIDGETS", "").strip().lower() in ("0", "no", "off", "false"):
        return False
    return importlib.util.find_spec("ipywidgets") is not None


def is_shown_live() -> bool:
    """Return whether the present cell was sent by a program that shows notebooks: those name the cell they run.

    JupyterLab does; what runs a notebook from start to end (nbclient, papermill) does not.
    """
    return "cellId" in _request().get("metadata", {})


def sender() -> str:
    """Return the id of the session that the present cell was sent in: a page that is reloaded has another one."""
    return str(_request().get("header", {}).get("session", ""))


def shows_outputs_apart() -> bool:
    """Return whether the present cell was sent by JupyterLab or Notebook: outputs stand below each other in a page.

    VS Code names its cells too, by an address with a scheme.
    """
    cell_id = _request().get("metadata", {}).get("cellId")
    return isinstance(cell_id, str) and ":" not in cell_id


def _request() -> dict[str, Any]:
    """Return the message that the present cell was sent in."""
    from IPython import get_ipython

    return get_ipython().kernel.get_parent() or {}


def show_static(html: str, text: str) -> None:
    """Show plain HTML in a notebook, the text elsewhere."""
    if in_kernel():
        publish({"text/html": str(html), "text/plain": text})
    else:
        print(text)


def publish(bundle: dict[str, Any], **how: Any) -> None:
    """Show a bundle, or replace one that is shown (``display_id``, ``update``)."""
    from IPython import display

    if bundle.get("text/html"):
        bundle = bundle | {"text/html": as_text(bundle["text/html"])}
    show: Any = display.display
    show(bundle, raw=True, **how)


def view_of(model: Any) -> dict[str, Any]:
    """Return what stands for a widget's model in a bundle, under `MIME`."""
    return {"version_major": 2, "version_minor": 0, "model_id": model.model_id}


class CellObserver(Protocol):
    """What is told of cells."""

    def cell_began(self) -> None:
        """A cell begins."""

    def cell_ended(self) -> None:
        """A cell's code is over; its messages still count as its own until this returns."""

    def kernel_ends(self) -> None:
        """The process is about to end."""


class Cell:
    """The context of the cell that runs or ran last; None before a cell has begun since the first display."""

    def __init__(self) -> None:
        self.context: contextvars.Context | None = None
        self.is_running: bool = True
        self._began_at = self._ended_at = float("inf")
        self._shell: Any = None
        self._observer: CellObserver | None = None

    @property
    def idle_seconds(self) -> float:
        """For how long no cell has been running; 0 or less while one does, and before the first has ended."""
        return 0.0 if self.is_running else time.monotonic() - self._ended_at

    @property
    def busy_seconds(self) -> float:
        """For how long the present cell has been running; 0 or less while none does, or none was seen to begin."""
        return time.monotonic() - self._began_at if self.is_running else 0.0

    def follow(self, observer: CellObserver) -> None:
        """Be told when a cell begins; from now on the observer is, too."""
        from IPython import get_ipython

        shell = get_ipython()
        if shell is not self._shell:
            self._shell, self._observer, self._began_at = (
                shell,
                observer,
                time.monotonic(),
            )  # a cell runs: it shows this
            atexit.register(observer.kernel_ends)
            shell.events.register("pre_run_cell", self._begin)
            shell.events.register("post_run_cell", self._end)

    def _begin(self, *_: object) -> None:
        self.context, self.is_running, self._began_at = contextvars.copy_context(), True, time.monotonic()
        if self._observer is not None:
            self._observer.cell_began()

    def _end(self, *_: object) -> None:
        self.is_running, self._ended_at = False, time.monotonic()
        if self._observer is not None:
            self._observer.cell_ended()


cell: Cell = Cell()
