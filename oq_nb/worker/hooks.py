"""`Hooks`: functions and coroutine functions of the user's, called at the start, the end, and after each task.

Invariants: a hook that fails is logged and harms nobody.

Imports of the package: `attempt`, for coroutines.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from oq_nb.attempt.coroutines import CoroutineRunner

__all__ = ["Hook", "Hooks"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")

Hook = Callable[..., Any]


class Hooks:
    """What a worker calls, by the name of the event."""

    def __init__(self) -> None:
        self._hooks: dict[str, list[Hook]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, event: str, hook: Hook) -> None:
        """Call a hook at an event."""
        self._hooks.setdefault(event, []).append(hook)

    def run_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run coroutine hooks of the start and the end on this loop, while it runs, instead of one of their own."""
        self._loop = loop

    def call(self, event: str, *arguments: Any, coroutines: CoroutineRunner | None = None) -> None:
        """Call the hooks of an event, one after the other; what a coroutine function returns is awaited.

        Args:
            event: startup, shutdown, success or error.
            *arguments: what the hooks are given.
            coroutines: runs coroutines in this thread; None: the loop of `run_on`, else one of their own.
        """
        for hook in self._hooks.get(event, ()):
            try:
                returned = hook(*arguments)
                if inspect.isawaitable(returned):
                    self._await(returned, coroutines, f"the {event} hook {getattr(hook, '__name__', hook)}")
            except Exception:
                logger.exception("the %s hook %r failed", event, hook)

    def _await(self, awaitable: Awaitable[Any], coroutines: CoroutineRunner | None, label: str) -> None:
        if coroutines is not None:
            coroutines.run(awaitable, label=label)
            return
        import asyncio

        from oq_nb.attempt.coroutines import CoroutineRunner

        async def wait() -> None:
            await awaitable

        loop = self._loop
        if loop is not None and loop.is_running() and not _is_here(loop):
            asyncio.run_coroutine_threadsafe(wait(), loop).result()
            return
        own = CoroutineRunner()
        try:
            own.run(awaitable, label=label)
        finally:
            own.close()


def _is_here(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this thread runs the loop: it cannot wait for it then."""
    import asyncio

    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
