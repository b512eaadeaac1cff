"""The same queue as coroutines: thin wrappers that run the synchronous calls in threads. No second implementation.

The example of the progress-reporting feature runs with ``from oq_nb.aio import connect, Worker`` and nothing else
changed. Imports of the package: `client`, `queue`, `task`, `context`; `worker` inside functions, because workers import
this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from oq_nb import client, queue, task
from oq_nb.context import TaskContext

if TYPE_CHECKING:
    from oq_nb.model import Progress, TaskRecord

__all__ = ["AsyncTaskContext", "Queue", "Task", "Worker", "connect"]

F = TypeVar("F", bound=Callable[..., Any])


class AsyncTaskContext:
    """A `TaskContext` whose methods that write are coroutines; everything else is the same."""

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __repr__(self) -> str:
        return f"<Async{repr(self._context)[1:]}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def report_progress(self, *args: Any, **kwargs: Any) -> None:
        """See `oq_nb.TaskContext.report_progress`."""
        await asyncio.to_thread(self._context.report_progress, *args, **kwargs)

    async def extend_lease(self, seconds: float) -> None:
        """See `oq_nb.TaskContext.extend_lease`."""
        await asyncio.to_thread(self._context.extend_lease, seconds)

    async def is_cancellation_requested(self) -> bool:
        """Return whether somebody asked the task to stop (upstream's name)."""
        return self._context.cancel_requested


class Task:
    """An `oq_nb.Task` whose methods are coroutines; ``await task`` gives its result."""

    def __init__(self, task: task.Task) -> None:
        self.sync = task

    def __repr__(self) -> str:
        return repr(self.sync)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sync, name)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    async def refresh(self) -> Task:
        """See `oq_nb.Task.refresh`."""
        await asyncio.to_thread(self.sync.refresh)
        return self

    async def wait(self, timeout: float | None = None) -> Task:
        """See `oq_nb.Task.wait`."""
        await asyncio.to_thread(self.sync.wait, timeout)
        return self

    async def result(self, timeout: float | None = None) -> Any:
        """See `oq_nb.Task.result`."""
        return await asyncio.to_thread(self.sync.result, timeout)

    async def cancel(self, reason: str | None = None) -> Task:
        """See `oq_nb.Task.cancel`."""
        await asyncio.to_thread(self.sync.cancel, reason)
        return self

    async def history(self, *, limit: int | None = None) -> list[TaskRecord]:
        """See `oq_nb.Task.history`."""
        return await asyncio.to_thread(self.sync.history, limit=limit)

    @property
    def progress(self) -> Progress | None:
        """See `oq_nb.Task.progress`."""
        return self.sync.progress


class Queue:
    """An `oq_nb.Queue` whose methods are coroutines."""

    def __init__(self, queue: queue.Queue) -> None:
        self.sync = queue

    def __repr__(self) -> str:
        return repr(self.sync)

    def all_shards(self) -> list[str]:
        """Return all shards."""
        return self.sync.all_shards()

    async def submit(self, task_type: str, input: Any = None, **options: Any) -> Task:  # noqa: A002
        """See `oq_nb.Queue.submit`."""
        return Task(await asyncio.to_thread(self.sync.submit, task_type, input, **options))

    async def submit_many(self, task_type: str, inputs: Iterable[Any], **options: Any) -> list[Task]:
        """See `oq_nb.Queue.submit_many`."""
        return [Task(t) for t in await asyncio.to_thread(self.sync.submit_many, task_type, inputs, **options)]

    async def get(self, task_id: str) -> Task | None:
        """See `oq_nb.Queue.get`."""
        found = await asyncio.to_thread(self.sync.get, task_id)
        return None if found is None else Task(found)

    async def list(self, *args: Any, **kwargs: Any) -> Any:
        """See `oq_nb.Queue.list`."""
        return [Task(task) for task in await asyncio.to_thread(self.sync.list, *args, **kwargs)]

    async def get_history(self, task_id: str, *, limit: int | None = None) -> Any:
        """See `oq_nb.Queue.get_history`."""
        return await asyncio.to_thread(self.sync.get_history, task_id, limit=limit)

    async def cancel(self, task_id: str, reason: str | None = None) -> Task:
        """See `oq_nb.Queue.cancel`."""
        return Task(await asyncio.to_thread(self.sync.cancel, task_id, reason))

    async def request_cancellation(self, task_id: str) -> Task:
        """See `oq_nb.Queue.request_cancellation`."""
        return Task(await asyncio.to_thread(self.sync.request_cancellation, task_id))

    async def replay(self, task_id: str) -> Task:
        """See `oq_nb.Queue.replay`."""
        return Task(await asyncio.to_thread(self.sync.replay, task_id))

    async def archive(self, task_id: str) -> Task:
        """See `oq_nb.Queue.archive`."""
        return Task(await asyncio.to_thread(self.sync.archive, task_id))

    async def workers(self) -> Any:
        """See `oq_nb.Queue.workers`."""
        return await asyncio.to_thread(self.sync.workers)

    async def now(self) -> Any:
        """Return the store's time."""
        return self.sync.now()


async def connect(bucket: str | None = None, **options: Any) -> Queue:
    """See `oq_nb.connect`."""
    return Queue(await asyncio.to_thread(client.connect, bucket, **options))


class Worker:
    """An `oq_nb.Worker` that is driven from a running event loop; its handlers run on loops of its own threads."""

    def __init__(self, queue: Queue, worker_id: str | None = None, shards: Any = None, **options: Any) -> None:
        from oq_nb import worker

        self.sync = worker.Worker(queue.sync, worker_id, shards, **options)

    def __repr__(self) -> str:
        return repr(self.sync)

    def task(self, task_type: str) -> Callable[[F], F]:
        """See `oq_nb.Worker.task`."""
        return self.sync.task(task_type)

    async def start(self) -> Worker:
        """See `oq_nb.Worker.start`."""
        await asyncio.to_thread(self.sync.start)
        return self

    async def stop(self, timeout: float = 30.0) -> None:
        """See `oq_nb.Worker.stop`."""
        await asyncio.to_thread(self.sync.stop, timeout)

    async def run(self) -> None:
        """Run until the surrounding task is cancelled; then stop."""
        await self.start()
        try:
            while self.sync.is_running:
                await asyncio.sleep(0.5)
        finally:
            await asyncio.shield(self.stop())

    async def __aenter__(self) -> Worker:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
