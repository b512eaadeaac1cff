"""The upstream package, called from plain test code: its coroutines run on a loop in a thread of the test's own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import buquet

RUN_OPTIONS = {"poll_interval_ms": 100, "with_monitor": False}


class Peer:
    """Upstream's queue on a bucket; each of its coroutine methods is a plain method here.

    Args:
        loop: a loop that runs in another thread.
        queue: what upstream's ``connect`` returned.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, queue: Any) -> None:
        self._loop = loop
        self.queue = queue

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.queue, name)

        def call(*arguments: Any, **options: Any) -> Any:
            async def run() -> Any:
                return await method(*arguments, **options)

            return asyncio.run_coroutine_threadsafe(run(), self._loop).result(60)

        return call

    def insist(self, name: str, *arguments: Any) -> Any:
        """Call a method until no other writer is in its way: upstream raises where we try again."""
        for _ in range(100):
            try:
                return getattr(self, name)(*arguments)
            except RuntimeError as exc:
                if "Precondition failed" not in str(exc):
                    raise
        raise AssertionError(f"{name} met another writer a hundred times")

    def status(self, task_id: str) -> str:
        """Return a task's status as upstream reads it, in the wire format's words."""
        return str(self.get(task_id).to_dict()["status"])

    @contextmanager
    def worker(self, handlers: dict[str, Any], worker_id: str = "upstream-1", **options: Any) -> Iterator[Any]:
        """Run an upstream worker for as long as the block lasts."""
        worker = buquet.Worker(self.queue, worker_id, self.queue.all_shards())
        for task_type, handler in handlers.items():
            worker.task(task_type)(handler)
        run = asyncio.run_coroutine_threadsafe(self._run(worker, RUN_OPTIONS | options), self._loop)
        try:
            yield worker
        finally:
            if run.done():
                run.result()
            run.cancel()

    @staticmethod
    async def _run(worker: Any, options: dict[str, Any]) -> int:
        return int(await worker.run(buquet.WorkerRunOptions(**options)))


@contextmanager
def peer_on(endpoint: str, bucket: str, **options: Any) -> Iterator[Peer]:
    """Connect upstream to a bucket; credentials are those of the environment."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="peer-loop", daemon=True)
    thread.start()

    async def connect() -> Any:
        return await buquet.connect(endpoint=endpoint, bucket=bucket, region="us-east-1", **options)

    async def settle() -> None:
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    try:
        yield Peer(loop, asyncio.run_coroutine_threadsafe(connect(), loop).result(60))
    finally:
        asyncio.run_coroutine_threadsafe(settle(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(30)
        loop.close()
