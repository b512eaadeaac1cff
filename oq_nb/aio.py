"""The same queue with coroutines: thin wrappers around the synchronous objects.

The example of the progress-reporting feature runs with ``from oq_nb.aio import connect, Worker`` and nothing else
changed. Requests run in threads; waiting for a task takes no thread: the queue's one poller notifies the event loop
when a task has changed. So ``asyncio.gather(*tasks)`` waits for a thousand tasks as for one.

Invariant: nothing here makes a request on the event loop.

Imports of the package: `queue`, `attempt`, `errors`; `worker` when a worker is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from oq_nb import queue
from oq_nb.attempt.async_context import AsyncTaskContext
from oq_nb.errors import ConfigurationError, OqError
from oq_nb.model import TaskStatus
from oq_nb.queue import connection as client
from oq_nb.queue import task, waiting

if TYPE_CHECKING:
    import builtins

    from oq_nb.display.queue_widget import QueueWidget
    from oq_nb.display.timeline import Timeline
    from oq_nb.model import TaskRecord, WorkerRecord
    from oq_nb.model.logs import LogLine
    from oq_nb.queue import functions
    from oq_nb.queue.logs import TaskLogs
    from oq_nb.web.server import PageServer
    from oq_nb.worker import Worker as SyncWorker

__all__ = ["AsyncTaskContext", "Queue", "Task", "TaskFunction", "Worker", "connect"]

F = TypeVar("F", bound=Callable[..., Any])

_WAKE_SECONDS = 5.0


class Task:
    """An `oq_nb.Task` whose methods are coroutines; ``await task`` gives its result.

    What was last seen of it (``status``, ``progress``, …) is read as there, without ``await``. So are ``input`` and
    ``output``, but for those above 64 KiB, which are objects of their own: `wait`, `result`, `load_input` and
    `load_output` read these.
    """

    def __init__(self, task: task.Task) -> None:
        #: The synchronous handle.
        self.sync = task
        self._loaded: dict[str, Any] = {}  # large inputs and outputs, by key

    def __repr__(self) -> str:
        return repr(self.sync)

    def _repr_html_(self) -> str:
        return self.sync._repr_html_()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.sync, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.sync)})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Task) and self.sync == other.sync

    def __hash__(self) -> int:
        return hash(self.sync)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    @property
    def input(self) -> Any:
        """What its handler is given. Requests: none.

        Raises:
            ConfigurationError: it is above 64 KiB and was not read yet: ``await task.load_input()``.
        """
        return self._payload("input")

    @property
    def output(self) -> Any:
        """What its handler returned; None before. Requests: none.

        Raises:
            ConfigurationError: it is above 64 KiB and was not read yet: ``await task.load_output()``.
        """
        return self._payload("output")

    async def load_input(self) -> Any:
        """Return what its handler is given. Requests: 1 GET the first time when it is above 64 KiB."""
        return await self._load("input")

    async def load_output(self) -> Any:
        """Return what its handler returned; None before. Requests: 1 GET the first time when it is above 64 KiB."""
        return await self._load("output")

    def _payload(self, which: str) -> Any:
        key = getattr(self.sync.record, f"{which}_ref")
        if key is None:
            return getattr(self.sync.record, which)
        if key not in self._loaded:
            raise ConfigurationError(
                f"{which}: that of task {self.sync.id} is above 64 KiB and has to be read from the store first: use "
                f"`await task.load_{which}()`, which does not block the event loop",
                task_id=self.sync.id,
            )
        return self._loaded[key]

    async def _load(self, which: str) -> Any:
        key = getattr(self.sync.record, f"{which}_ref")
        if key is not None and key not in self._loaded:
            self._loaded[key] = await asyncio.to_thread(getattr, self.sync, which)
        return self._payload(which)

    async def refresh(self) -> Task:
        """See `oq_nb.Task.refresh`."""
        await asyncio.to_thread(self.sync.refresh)
        return self

    async def wait(self, timeout: float | None = None) -> Task:
        """See `oq_nb.Task.wait`. No thread waits; cancelling it leaves nothing behind.

        Requests: as there, and 1 GET for an output above 64 KiB, so that ``task.output`` has it.
        """
        await self._wait(timeout)
        if self.sync.status is TaskStatus.COMPLETED:
            with contextlib.suppress(OqError):  # it has ended: who wants the output asks for it, and is told
                await self._load("output")
        return self

    async def _wait(self, timeout: float | None) -> None:
        if timeout is not None and timeout <= 0 and not self.sync.is_done:
            await self.refresh()  # asked for what is known now
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        with waiting.Wait(self.sync, timeout, signal=_Signal(loop, news)) as wait:
            while not wait.is_over():
                try:
                    await asyncio.wait_for(news.wait(), min(wait.seconds_left, _WAKE_SECONDS))
                except asyncio.TimeoutError:
                    continue
                news.clear()

    async def result(self, timeout: float | None = None) -> Any:
        """See `oq_nb.Task.result`."""
        await self._wait(timeout)
        key = self.sync.record.output_ref
        if key is not None and key in self._loaded:
            return self._loaded[key]
        output = await asyncio.to_thread(self.sync.result)
        if key is not None:
            self._loaded[key] = output
        return output

    async def cancel(self, reason: str | None = None) -> Task:
        """See `oq_nb.Task.cancel`."""
        await asyncio.to_thread(self.sync.cancel, reason)
        return self

    async def replay(self) -> Task:
        """See `oq_nb.Task.replay`."""
        await asyncio.to_thread(self.sync.replay)
        return self

    retry = replay

    async def logs(
        self, attempt: int | None = None, *, last: int | None = None, follow: bool = False, interval: float = 2.0
    ) -> TaskLogs | AsyncIterator[LogLine]:
        """See `oq_nb.Task.logs`; with ``follow=True``: ``async for line in await task.logs(follow=True)``."""
        if not follow:
            return await asyncio.to_thread(self.sync.logs, attempt, last=last)
        return _follow(self.sync.logs(attempt, last=last, follow=True, interval=interval))

    async def history(self, *, limit: int | None = None) -> list[TaskRecord]:
        """See `oq_nb.Task.history`."""
        return await asyncio.to_thread(self.sync.history, limit=limit)

    async def series(self, *, full: bool = False) -> Any:
        """See `oq_nb.Task.series`."""
        return await asyncio.to_thread(self.sync.series, full=full)

    async def plot(self, *, full: bool = False) -> Any:
        """See `oq_nb.Task.plot`."""
        return await asyncio.to_thread(self.sync.plot, full=full)


async def _follow(lines: Iterator[LogLine]) -> AsyncIterator[LogLine]:
    """Yield what an iterator gives that waits; each of its steps runs in a thread."""
    while (line := await asyncio.to_thread(next, lines, None)) is not None:
        yield line


class _Signal:
    """Wakes a coroutine from the poller's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, news: asyncio.Event) -> None:
        self._loop, self._news = loop, news

    def set(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop is closed: nobody waits
            pass


class Queue:
    """An `oq_nb.Queue` whose methods are coroutines."""

    def __init__(self, queue: queue.Queue) -> None:
        #: The synchronous queue.
        self.sync = queue

    def __repr__(self) -> str:
        return repr(self.sync)

    def all_shards(self) -> list[str]:
        """Return all shards."""
        return self.sync.all_shards()

    async def submit(self, task_type: str, input: Any = None, **options: Any) -> Task:  # noqa: A002
        """See `oq_nb.Queue.submit`."""
        return Task(await asyncio.to_thread(self.sync.submit, task_type, input, **options))

    async def submit_many(self, task_type: str, inputs: Iterable[Any], **options: Any) -> builtins.list[Task]:
        """See `oq_nb.Queue.submit_many`."""
        return _wrapped(await asyncio.to_thread(self.sync.submit_many, task_type, inputs, **options))

    async def submit_iter(self, task_type: str, inputs: Iterable[Any], **options: Any) -> AsyncIterator[Task]:
        """See `oq_nb.Queue.submit_iter`."""
        made: Any = self.sync.submit_iter(task_type, inputs, **options)
        try:
            while (task := await asyncio.to_thread(next, made, None)) is not None:
                yield Task(task)
        finally:
            await asyncio.to_thread(made.close)

    async def map(
        self, task_type: str, inputs: Iterable[Any], *, timeout: float | None = None, **options: Any
    ) -> AsyncIterator[Any]:
        """Run a handler on many inputs; ``async for`` gives its outputs in the order of the inputs.

        See `oq_nb.Queue.map`; the tasks are submitted when the first output is asked for, and no bar is shown.
        """
        loop = asyncio.get_running_loop()
        ends = None if timeout is None else loop.time() + timeout
        for made in await self.submit_many(task_type, inputs, **options):
            yield await made.result(None if ends is None else max(0.0, ends - loop.time()))

    async def get(self, task_id: str) -> Task | None:
        """See `oq_nb.Queue.get`."""
        found = await asyncio.to_thread(self.sync.get, task_id)
        return None if found is None else Task(found)

    async def list(self, *args: Any, **options: Any) -> builtins.list[Task]:
        """See `oq_nb.Queue.list`."""
        return _wrapped(await asyncio.to_thread(self.sync.list, *args, **options))

    async def failures(self, *args: Any, **options: Any) -> builtins.list[Task]:
        """See `oq_nb.Queue.failures`."""
        return _wrapped(await asyncio.to_thread(self.sync.failures, *args, **options))

    async def counts(self) -> dict[str, int]:
        """See `oq_nb.Queue.counts`."""
        return await asyncio.to_thread(self.sync.counts)

    async def timeline(self, hours: float = 1.0, *, limit: int = 1000) -> Timeline:
        """See `oq_nb.Queue.timeline`."""
        return await asyncio.to_thread(self.sync.timeline, hours, limit=limit)

    async def list_ready(self, *, limit: int = 100) -> builtins.list[Task]:
        """See `oq_nb.Queue.list_ready`."""
        return _wrapped(await asyncio.to_thread(self.sync.list_ready, limit=limit))

    async def get_history(self, task_id: str, *, limit: int | None = None) -> builtins.list[TaskRecord]:
        """See `oq_nb.Queue.get_history`."""
        return await asyncio.to_thread(self.sync.get_history, task_id, limit=limit)

    async def cancel(self, task_id: str, reason: str | None = None, *, by: str | None = None) -> Task:
        """See `oq_nb.Queue.cancel`."""
        return Task(await asyncio.to_thread(self.sync.cancel, task_id, reason, by=by))

    async def cancel_many(self, task_ids: Iterable[str], reason: str | None = None) -> builtins.list[Task]:
        """See `oq_nb.Queue.cancel_many`."""
        return _wrapped(await asyncio.to_thread(self.sync.cancel_many, task_ids, reason))

    async def cancel_by_type(self, task_type: str, reason: str | None = None) -> builtins.list[Task]:
        """See `oq_nb.Queue.cancel_by_type`."""
        return _wrapped(await asyncio.to_thread(self.sync.cancel_by_type, task_type, reason))

    async def request_cancellation(self, task_id: str, *, by: str | None = None) -> Task:
        """See `oq_nb.Queue.request_cancellation`."""
        return Task(await asyncio.to_thread(self.sync.request_cancellation, task_id, by=by))

    async def replay(self, task_id: str) -> Task:
        """See `oq_nb.Queue.replay`."""
        return Task(await asyncio.to_thread(self.sync.replay, task_id))

    retry = replay

    async def archive(self, task_id: str) -> Task:
        """See `oq_nb.Queue.archive`."""
        return Task(await asyncio.to_thread(self.sync.archive, task_id))

    async def workers(self) -> builtins.list[WorkerRecord]:
        """See `oq_nb.Queue.workers`."""
        return await asyncio.to_thread(self.sync.workers)

    async def now(self) -> datetime:
        """Return the store's time."""
        return self.sync.now()

    def widget(self, interval: float = 2.0) -> QueueWidget:
        """See `oq_nb.Queue.widget`."""
        return self.sync.widget(interval)

    def serve_ui(self, port: int = 0, **options: Any) -> PageServer:
        """See `oq_nb.Queue.serve_ui`; it serves from threads of its own."""
        return self.sync.serve_ui(port, **options)

    @property
    def page(self) -> PageServer | None:
        """See `oq_nb.Queue.page`."""
        return self.sync.page

    @property
    def functions(self) -> functions.Functions:
        """See `oq_nb.Queue.functions`."""
        return self.sync.functions

    def task(self, function: Any = None, /, **options: Any) -> Any:
        """See `oq_nb.Queue.task`: ``await train.submit(lr=0.1)``; calling the function stays a plain call."""
        from oq_nb.queue import functions

        made = functions.task(function, queue=self.sync, **options)
        if isinstance(made, functions.TaskFunction):
            return TaskFunction(made)
        return lambda decorated: TaskFunction(made(decorated))

    async def start_worker(self, *functions: Any, **options: Any) -> Worker:
        """See `oq_nb.Queue.start_worker`."""
        given = [getattr(function, "sync", function) for function in functions]
        worker = Worker.__new__(Worker)
        worker.sync = await asyncio.to_thread(self.sync.start_worker, *given, **options)
        return worker


class TaskFunction:
    """An `oq_nb.queue.functions.TaskFunction` whose methods that submit are coroutines.

    Calling it is a plain call: of an ``async def`` function it returns a coroutine.
    """

    def __init__(self, function: functions.TaskFunction[..., Any]) -> None:
        functools.update_wrapper(self, function)
        #: The synchronous one.
        self.sync = function

    def __repr__(self) -> str:
        return repr(self.sync)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function here and now."""
        return self.sync(*args, **kwargs)

    async def submit(self, *args: Any, **kwargs: Any) -> Task:
        """Add a task that calls the function with these arguments."""
        return Task(await asyncio.to_thread(self.sync.submit, *args, **kwargs))

    async def map(self, *args: Any, **kwargs: Any) -> list[Task]:
        """Add a task for each of several calls."""
        return _wrapped(await asyncio.to_thread(self.sync.map, *args, **kwargs))

    def options(self, **options: Any) -> TaskFunction:
        """Return the function with other options of `Queue.submit`."""
        return TaskFunction(self.sync.options(**options))


def _wrapped(tasks: Iterable[task.Task]) -> list[Task]:
    return [Task(task) for task in tasks]


async def connect(bucket: str | None = None, **options: Any) -> Queue:
    """See `oq_nb.connect`."""
    return Queue(await asyncio.to_thread(client.connect, bucket, **options))


class Worker:
    """An `oq_nb.Worker` that is started and stopped from a running event loop.

    Its coroutine handlers, and the hooks of success and error, run on event loops of the worker's own threads;
    coroutine hooks of the start and the end run on the loop that starts and stops it. All else is as there.
    """

    def __init__(self, queue: Queue, worker_id: str | None = None, shards: Any = None, **options: Any) -> None:
        from oq_nb import worker

        #: The synchronous worker.
        found: Any = getattr(queue, "sync", queue)
        self.sync: SyncWorker = worker.Worker(found, worker_id, shards, **options)

    def __repr__(self) -> str:
        return repr(self.sync)

    def _repr_html_(self) -> str:
        return self.sync._repr_html_()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "sync":
            raise AttributeError(name)
        return getattr(self.sync, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.sync)})

    def task(self, task_type: str) -> Callable[[F], F]:
        """See `oq_nb.Worker.task`."""
        return self.sync.task(task_type)

    async def start(self) -> Worker:
        """See `oq_nb.Worker.start`. Coroutine hooks of the start and the end run on the loop that runs this."""
        self.sync.hooks.run_on(asyncio.get_running_loop())
        await asyncio.to_thread(self.sync.start)
        return self

    async def stop(self, timeout: float = 30.0) -> None:
        """See `oq_nb.Worker.stop`."""
        await asyncio.to_thread(self.sync.stop, timeout)

    async def retire(self) -> None:
        """See `oq_nb.Worker.retire`."""
        self.sync.retire()

    def set_limits(self, until_idle: float | None = None, max_tasks: int | None = None) -> None:
        """See `oq_nb.Worker.set_limits`."""
        self.sync.set_limits(until_idle, max_tasks)

    def reached_limit(self) -> str | None:
        """See `oq_nb.Worker.reached_limit`."""
        return self.sync.reached_limit()

    async def run(self, *, until_idle: float | None = None, max_tasks: int | None = None) -> str:
        """Run until the surrounding task is cancelled, or until a limit is reached; then stop.

        Returns:
            See `oq_nb.Worker.run`, as for the arguments.

        Raises:
            ConfigurationError: see `oq_nb.Worker.run`.
        """
        self.sync.set_limits(until_idle, max_tasks)
        reached: str | None = None
        await self.start()
        try:
            while self.sync.is_running and self.sync.problem is None and reached is None:
                await asyncio.sleep(0.5)
                reached = self.sync.reached_limit()
        finally:
            await asyncio.shield(self.stop())
        if self.sync.problem is not None:
            raise ConfigurationError(self.sync.problem)
        return reached or "stopped"

    async def __aenter__(self) -> Worker:
        return await self.start()

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()
