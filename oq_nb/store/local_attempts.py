"""`LocalAttempts`: the attempts that a `TaskStore` is used for, which hear at once what it makes of their tasks.

An attempt learns from its own writes what others have made of its task: with its next report, or when its lease is
renewed. What the same `TaskStore` writes (`Task.cancel`, a button of the same queue) it need not wait for. A second
`connect` has a store of its own, and is like another process. Nothing here makes a request.

Imports nothing of the package.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from oq_nb.store.task_store import VersionedTask

__all__ = ["LocalAttempt", "LocalAttempts"]


class LocalAttempt(Protocol):
    """An attempt that this process makes."""

    def hear(self, held: VersionedTask) -> None:
        """Take in its task as this process has just written it for somebody else; from any thread, without waiting."""


class LocalAttempts:
    """The attempts, by their leases. Safe to use from several threads; refers to them weakly."""

    def __init__(self) -> None:
        self._attempts: weakref.WeakValueDictionary[str, LocalAttempt] = weakref.WeakValueDictionary()

    def add(self, lease_id: str, attempt: LocalAttempt) -> None:
        """Tell this attempt from now on what this process makes of its task."""
        self._attempts[lease_id] = attempt

    def tell(self, held: VersionedTask) -> None:
        """Tell the attempt that a task is in, if this process makes it."""
        attempt = self._attempts.get(held.record.lease_id or "")
        if attempt is not None:
            attempt.hear(held)
