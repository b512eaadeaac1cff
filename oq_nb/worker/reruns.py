"""Whether a cell that makes a worker was run again: then the older worker has to go. Pure but for one line of output.

A notebook's function that is defined again is another object under the same name in ``__main__``. A worker all of whose
handlers were defined again, and are those of a newer worker on the same bucket, is what an earlier run of the cell has
left behind.

Imports of the package: `attempt`, `queue`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from oq_nb.attempt.handlers import Handler
from oq_nb.queue.functions import fingerprint

__all__ = ["changed_handlers", "say_replaced"]


def changed_handlers(old: Mapping[str, Handler], new: Mapping[str, Handler]) -> int | None:
    """Return how many handlers do something else than before; None when the new ones do not stand for the old ones.

    Args:
        old: of the worker that runs.
        new: of the worker that is started.
    """
    if not old or not old.keys() <= new.keys():
        return None
    if not all(_is_defined_again(handler.function, new[name].function) for name, handler in old.items()):
        return None
    return sum(fingerprint(new[name].function) != fingerprint(handler.function) for name, handler in old.items())


def _is_defined_again(old: Any, new: Any) -> bool:
    if old is new or not (inspect.isfunction(old) and inspect.isfunction(new)):
        return False
    return old.__module__ == new.__module__ == "__main__" and old.__qualname__ == new.__qualname__


def say_replaced(worker_id: str, changed: int) -> None:
    """Say in one line which worker was replaced."""
    said = "no function" if changed == 0 else f"{changed} function{'s' if changed > 1 else ''}"
    print(f"replaced {worker_id}: {said} changed")
