"""`AsyncTaskContext`: a coroutine handler's view of its attempt.

Apart from `context`, because it loads asyncio. Imports nothing of the package but `context`.
"""

from __future__ import annotations

import asyncio
from typing import Any

from oq_nb.attempt.context import TaskContext

__all__ = ["AsyncTaskContext"]


class AsyncTaskContext:
    """A `TaskContext` whose methods that write are coroutines; everything else is the same."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Async{repr(self._context)[1:]}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self._context)})

    async def report_progress(self, *args: Any, **kwargs: Any) -> None:
        """See `oq_nb.TaskContext.report_progress`."""
        await asyncio.to_thread(self._context.report_progress, *args, **kwargs)

    async def extend_lease(self, seconds: float) -> None:
        """See `oq_nb.TaskContext.extend_lease`."""
        await asyncio.to_thread(self._context.extend_lease, seconds)

    async def is_cancellation_requested(self) -> bool:
        """Return whether the task was asked to stop (upstream's name for it)."""
        return self._context.cancel_requested
