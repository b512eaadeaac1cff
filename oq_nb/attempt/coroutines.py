"""`CoroutineRunner`: an event loop that runs one coroutine after the other, and nothing between them.

Invariants: what a coroutine leaves running is cancelled before the next one begins. A background task that ignores its
cancellation for five seconds never runs again: its loop is given up, and the next coroutine gets a new one.

Loads asyncio. Imports nothing of the package.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Awaitable
from typing import Any

__all__ = ["CoroutineRunner"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")

_CANCEL_SECONDS = 5.0
_MAX_NAMED = 5


class CoroutineRunner:
    """Runs coroutines on an event loop of its own. For one thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, awaitable: Awaitable[Any], *, label: str) -> Any:
        """Run a coroutine to its end; then cancel the tasks that it has started and not awaited.

        A thread that runs an event loop already (a notebook's cell) waits for another thread, which runs it.

        Args:
            awaitable: what to run.
            label: names it in the log.
        """
        if _runs_a_loop():
            return _run_in_thread(awaitable, label)
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        try:
            return self._loop.run_until_complete(_wait_for(awaitable))
        finally:
            if not _cancel_leftovers(self._loop, label):
                self._give_up()

    def close(self) -> None:
        """Close the loop."""
        if self._loop is None:
            return
        loop, self._loop = self._loop, None
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                loop.run_until_complete(asyncio.wait_for(loop.shutdown_asyncgens(), _CANCEL_SECONDS))
        finally:
            loop.close()

    def _give_up(self) -> None:
        """Close a loop with tasks that do not end; closed, it runs them no more."""
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.set_exception_handler(lambda *_: None)  # about tasks that were never finished: they are in the log
            loop.close()


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def _cancel_leftovers(loop: asyncio.AbstractEventLoop, label: str) -> bool:
    """Cancel all tasks of a loop that does not run; return whether they have ended."""
    left = asyncio.all_tasks(loop)
    if not left:
        return True
    names = ", ".join(sorted(_name(task) for task in left)[:_MAX_NAMED])
    logger.warning(
        "%s left %d background tasks running, which are cancelled (%s): await them, or cancel them before it returns",
        label,
        len(left),
        names,
    )
    deadline = time.monotonic() + _CANCEL_SECONDS
    while left and time.monotonic() < deadline:
        for task in left:
            task.cancel()
        done, _ = loop.run_until_complete(asyncio.wait(left, timeout=max(0.0, deadline - time.monotonic())))
        for task in done:
            if not task.cancelled() and task.exception() is not None:
                logger.debug("%s: its background task %s failed: %r", label, _name(task), task.exception())
        left = asyncio.all_tasks(loop)  # a cancelled task may have started others
    if left:
        logger.error("%s: background tasks ignore their cancellation, and are stopped where they are: %s", label, names)
    return not left


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__qualname__", task.get_name())


def _runs_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _run_in_thread(awaitable: Awaitable[Any], label: str) -> Any:
    """Run a coroutine on a loop in a thread of its own, and wait for it."""
    outcome: list[Any] = []
    failure: list[BaseException] = []

    def run() -> None:
        runner = CoroutineRunner()
        try:
            outcome.append(runner.run(awaitable, label=label))
        except BaseException as exc:
            failure.append(exc)
        finally:
            runner.close()

    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="oq-coroutine", daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
