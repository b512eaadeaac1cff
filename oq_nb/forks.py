"""`after_fork`: objects that take new locks in a forked process.

A fork copies one thread and all locks: one that another thread held in that moment stays locked in the child for ever.

Imports nothing of the package.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from types import MethodType

__all__ = ["after_fork"]

#: Objects, and the name of the method that each wants called. Not `weakref.WeakMethod`: one that is alive when the
#: interpreter ends prints an error.
_objects: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()


def after_fork(method: Callable[[], object]) -> None:
    """Call a bound method in each process that is forked from this one, as long as its object exists.

    Args:
        method: takes new locks, and does without the threads of the parent; called by the child's only thread. An
            object has one such method.
    """
    assert isinstance(method, MethodType)
    _objects[method.__self__] = method.__name__


def _call_all() -> None:
    for kept, name in list(_objects.items()):
        getattr(kept, name)()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_call_all)
