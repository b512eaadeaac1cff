"""`after_fork`: objects that take new locks in a forked process.

A fork copies one thread and all locks: one that another thread held in that moment stays locked in the child for ever.

Imports nothing of the package.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable

__all__ = ["after_fork"]

_methods: set[weakref.WeakMethod[Callable[[], object]]] = set()


def after_fork(method: Callable[[], object]) -> None:
    """Call a bound method in each process that is forked from this one, as long as its object exists.

    Args:
        method: takes new locks, and does without the threads of the parent; called by the child's only thread.
    """
    _methods.add(weakref.WeakMethod(method, _methods.discard))


def _call_all() -> None:
    for reference in list(_methods):
        method = reference()
        if method is not None:
            method()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_all)
