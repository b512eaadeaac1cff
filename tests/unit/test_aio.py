"""The coroutine front: the same names, waiting that takes no thread, nothing left behind."""

from __future__ import annotations

import asyncio
import threading

import pytest

import oq_nb
from oq_nb import aio
from oq_nb.attempt.context import TaskContext


def names(kind):
    return {name for name in dir(kind) if not name.startswith("_")}


def test_every_public_name_of_the_synchronous_classes_is_there(fake_queue):
    queue = aio.Queue(fake_queue)
    worker = aio.Worker(queue)
    worker.task("double")(lambda value: value * 2)
    task = aio.Task(fake_queue.submit("double", 2))
    for ours, theirs in ((queue, oq_nb.Queue), (worker, oq_nb.Worker), (task, oq_nb.Task)):
        missing = {name for name in names(theirs) if not hasattr(ours, name)} - {"store", "watcher", "label"}
        assert not missing, theirs
    assert names(TaskContext) <= set(dir(aio.AsyncTaskContext(TaskContext.__new__(TaskContext))))


@pytest.mark.parametrize(
    ("ours", "theirs"), [(aio.Queue, oq_nb.Queue), (aio.Task, oq_nb.Task), (aio.Worker, oq_nb.Worker)]
)
def test_what_makes_requests_is_a_coroutine(ours, theirs):
    at_once = {"all_shards", "widget", "serve_ui", "task", "register", "wake", "adopt"}
    at_once |= {"on_startup", "on_shutdown", "on_success", "on_error", "set_handler", "set_limits", "reached_limit"}
    for name in names(theirs):
        if callable(getattr(theirs, name)) and name not in at_once and name not in ("store", "watcher"):
            method = getattr(ours, name)
            assert asyncio.iscoroutinefunction(method) or name in ("map", "submit_iter"), name


def doubling(queue, **options):
    worker = aio.Worker(queue, max_poll_seconds=0.1, **options)

    @worker.task("double")
    async def double(value, context):
        await context.report_progress(current=1, total=2, throttle_seconds=0)
        await asyncio.sleep(0.05)
        if value == "bad":
            raise KeyError(value)
        return value * 2

    return worker


def test_tasks_are_awaited(fake_queue):
    async def main():
        queue = aio.Queue(fake_queue)
        async with doubling(queue, concurrency=4) as worker:
            assert worker.is_running
            tasks = await queue.submit_many("double", range(20))
            assert await asyncio.gather(*tasks) == [value * 2 for value in range(20)]
            assert [output async for output in queue.map("double", ["a", "b", "c"])] == ["aa", "bb", "cc"]
            with pytest.raises(oq_nb.TaskFailedError, match="KeyError"):
                await (await queue.submit("double", "bad"))
            assert len(await tasks[0].history()) >= 3
            assert (await queue.get(tasks[0].id)) == tasks[0]
            assert await (await tasks[0].replay()) == 0
        assert not worker.is_running
        assert {task.status.value for task in await queue.list()} == {"completed", "failed"}
        with pytest.raises(oq_nb.WaitTimeoutError, match=r"after 0\.2 s"):
            await (await queue.submit("double", 1)).wait(timeout=0.2)
        later = await queue.submit("double", 1)
        assert [task.id for task in await queue.cancel_many([later.id])] == [later.id]
        with pytest.raises(oq_nb.TaskCancelledError):
            await later

    asyncio.run(main())


def test_a_thousand_waits_take_no_threads_and_stop_at_once(fake_queue):
    """No worker has a handler: a wait that held a thread, or the end of the loop up, would do so for ever."""

    async def main():
        queue = aio.Queue(fake_queue)
        tasks = [aio.Task(task) for task in await asyncio.to_thread(fake_queue.submit_many, "none", range(300))]
        before = threading.active_count()
        waits = [asyncio.ensure_future(task.result()) for task in tasks]
        while not any(thread.name.startswith("oq-") for thread in threading.enumerate()):
            await asyncio.sleep(0)  # until what looks at the tasks has begun
        for _ in range(20):
            await asyncio.sleep(0.01)  # and each wait has had its turns
            assert threading.active_count() <= before + 1, "the poller's, at most"
        assert await queue.now(), "and requests go on meanwhile"
        await tasks[0].refresh()
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        assert all(wait.cancelled() for wait in waits)

    asyncio.run(main())  # would wait for threads that are still busy


def test_a_worker_runs_until_its_coroutine_is_cancelled(fake_queue):
    async def main():
        worker = doubling(aio.Queue(fake_queue))
        running = asyncio.ensure_future(worker.run())
        assert await aio.Task(await asyncio.to_thread(fake_queue.submit, "double", 4)) == 8
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert not worker.is_running

    asyncio.run(main())


def test_a_queue_of_either_kind_makes_a_worker(fake_queue):
    assert aio.Worker(fake_queue).sync.queue is fake_queue
    with pytest.raises(oq_nb.ConfigurationError, match="^queue: "):
        aio.Worker("bucket")


BIG = {"text": "x" * 100_000}


def test_a_large_output_is_never_read_on_the_event_loop(fake_queue):
    readers = []

    def fault(kind, key, when):
        if (kind, when) == ("GET", "before") and key.startswith("payloads/"):
            readers.append(threading.current_thread())

    async def main():
        here = threading.current_thread()
        queue = aio.Queue(fake_queue)
        worker = aio.Worker(queue, max_poll_seconds=0.1)
        worker.task("echo")(lambda value: value)
        async with worker:
            done = await queue.submit("echo", BIG)
            assert await done == BIG
            waited = await queue.submit("echo", BIG)
            await waited.wait()
        readers.clear()
        assert done.output == BIG, "it was read for the result"
        assert waited.output == BIG, "it was read when the task had ended"
        assert await done == BIG
        assert readers == [], "it is read once"
        for which in ("input", "output"):
            seen = await queue.get(done.id)
            with pytest.raises(oq_nb.ConfigurationError, match=rf"^{which}: .* use `await task.load_{which}\(\)`"):
                getattr(seen, which)
            assert readers == []
            assert await getattr(seen, f"load_{which}")() == BIG
            assert getattr(seen, which) == BIG
            assert len(readers) == 1
            assert here not in readers
            readers.clear()
        small = await queue.submit("none", [1])
        assert (small.input, small.output, await small.load_input()) == ([1], None, [1])

    fake_queue.store.objects.fault = fault
    asyncio.run(main())


def test_an_output_that_cannot_be_read_does_not_make_a_wait_fail(fake_queue):
    from oq_nb.errors import RecordError

    async def main():
        queue = aio.Queue(fake_queue)
        worker = aio.Worker(queue, max_poll_seconds=0.1)
        worker.task("echo")(lambda value: value)
        async with worker:
            task = await queue.submit("echo", 1)
            assert await task == 1
        gone = await queue.submit("big", BIG)
        async with worker:
            worker.task("big")(lambda value: value)
            await asyncio.to_thread(lambda: gone.sync.wait(20))
        for entry in list(fake_queue.store.objects.entries("payloads/")):
            fake_queue.store.objects.delete(entry.key)
        assert (await gone.wait()).status == "completed"
        with pytest.raises(oq_nb.ConfigurationError):
            gone.output
        with pytest.raises(RecordError, match="is gone"):
            await gone.load_output()
        with pytest.raises(RecordError, match="is gone"):
            await gone

    asyncio.run(main())
