"""Clicks on buttons that are heard while a cell runs.

What a page sends waits for the end of the running cell, except on a *subshell*: a thread of the kernel that takes
messages of its own. JupyterLab 4.4 and Notebook 7.4 name one for messages of widgets. ipykernel 7.0 to 7.3 follow them.
ipykernel 7.4 sends such a message to the shell in which Python last published on that widget instead, which is the busy
one (``docs/evidence/ipykernel-subshells.md``). So each button here says itself where its clicks go: to a subshell of
our own.

This uses private names of ipykernel. Where one is missing nothing changes: clicks wait as they always did, and
`hear_while_busy` returns False, so that the button can say so.

Invariants:

* Where it goes is changed for buttons only, and of these for clicks only: all else goes where ipykernel sends it.
* A click's callback runs on the subshell's thread, beside the running cell: it must note what is wanted, and no more.
* No ``pre_execute`` and ``post_execute`` are fired for what a page sends to a model of ours (`without_cell_hooks`), as
  that it shows it: on a subshell, hooks such as matplotlib's would draw beside the running cell, whose figures would be
  shown half done or not at all.

Imports nothing of the package.
"""

from __future__ import annotations

import concurrent.futures
import logging
import sys
import threading
import weakref
from typing import Any

__all__ = ["hear_while_busy", "without_cell_hooks"]

logger: logging.Logger = logging.getLogger("oq_nb.widget")

_SUBSHELL_SECONDS = 2.0  # in which a subshell can be made

_lock = threading.Lock()
_subshells: weakref.WeakKeyDictionary[Any, str | None] = weakref.WeakKeyDictionary()  # by kernel; None: cannot be made


def hear_while_busy(button: Any) -> bool:
    """Have a button's clicks heard while a cell runs; return whether they are.

    Call it right after the button was made.

    Args:
        button: an ipywidgets button; anything else is left alone.
    """
    if not without_cell_hooks(button):
        return False
    comm, kernel = button.comm, _running_kernel()
    if hasattr(comm, "_reply_subshell_for"):  # ipykernel 7.4: it asks the comm where a message is to go
        subshell_id, as_before = _own_subshell(kernel), comm._reply_subshell_for  # noqa: SLF001
        if subshell_id is None:
            return False

        def route(data: Any, named: str | None) -> str | None:
            is_click = isinstance(data, dict) and data.get("method") == "custom"
            chosen: str | None = subshell_id if is_click else as_before(data, named)
            return chosen

        comm._reply_subshell_for = route  # noqa: SLF001
    return True


def without_cell_hooks(model: Any) -> bool:
    """Have no hooks of cells fired for what a page sends to a model; return whether it may come on a subshell.

    Args:
        model: of ipywidgets; anything else is left alone.
    """
    comm, handle = getattr(model, "comm", None), getattr(model, "_handle_msg", None)
    if comm is None or handle is None or not getattr(_running_kernel(), "_supports_kernel_subshells", False):
        return False
    comm.handle_msg = handle
    return True


def _running_kernel() -> Any:
    module = sys.modules.get("ipykernel.kernelbase")
    if module is None or not module.Kernel.initialized():
        return None
    return module.Kernel.instance()


def _own_subshell(kernel: Any) -> str | None:
    """Return the id of our subshell, which is made when it is first needed; None where it cannot be made."""
    with _lock:
        if kernel not in _subshells:
            try:
                _subshells[kernel] = _make_subshell(kernel.shell_channel_thread)
            except Exception:  # whatever has changed in ipykernel: clicks wait as they did
                logger.debug("no subshell can be made: clicks wait for the end of the running cell", exc_info=True)
                _subshells[kernel] = None
        return _subshells[kernel]


def _make_subshell(thread: Any) -> str:
    """Make one, in the only thread that may."""
    made: concurrent.futures.Future[str] = concurrent.futures.Future()
    manager = thread.manager

    def make() -> None:
        try:
            made.set_result(manager._create_subshell())  # noqa: SLF001
        except BaseException as exc:
            made.set_exception(exc)

    thread.io_loop.add_callback(make)
    return made.result(_SUBSHELL_SECONDS)
