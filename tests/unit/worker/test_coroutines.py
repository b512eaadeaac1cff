"""Coroutine handlers and hooks: nothing of an attempt goes on in the next one, hooks are awaited."""

from __future__ import annotations

import asyncio
import threading

import pytest

import oq_nb
from oq_nb import aio
from oq_nb.attempt import coroutines
from oq_nb.attempt.coroutines import CoroutineRunner
from oq_nb.errors import TaskCancelledError, TaskFailedError
from oq_nb.model import RetryPolicy

AT_ONCE = RetryPolicy(initial_interval_ms=0, max_interval_ms=0)


@pytest.fixture
def worker(fake_queue):
    made = oq_nb.Worker(fake_queue, "w1", max_poll_seconds=0.2)
    yield made
    made.stop()


def test_background_tasks_of_an_attempt_do_not_go_on_in_the_next(worker, fake_queue, caplog):
    ticks: dict[int, int] = {1: 0, 2: 0}
    cancelled = []

    async def ticking(attempt):
        try:
            while True:
                ticks[attempt] += 1
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            cancelled.append(attempt)
            raise

    @worker.task("a")
    async def handle(value, context):
        if context.attempt == 1:
            asyncio.get_running_loop().create_task(ticking(1))
            await asyncio.sleep(0.01)
            raise oq_nb.RetryableError("once")
        before = ticks[1]
        await asyncio.sleep(0.1)
        return ticks[1] - before

    with worker:
        assert fake_queue.submit("a", retry_policy=AT_ONCE).result(20) == 0
    assert cancelled == [1]
    assert ticks[1] > 0
    assert "a handler of 'a' left 1 background tasks running" in caplog.text
    assert "ticking" in caplog.text


def test_a_background_task_that_ignores_its_cancellation_runs_no_more(worker, fake_queue, caplog, monkeypatch):
    monkeypatch.setattr(coroutines, "_CANCEL_SECONDS", 0.2)
    ticks = [0]

    async def stubborn():
        while True:
            ticks[0] += 1
            try:
                await asyncio.sleep(0.001)
            except asyncio.CancelledError:
                pass

    @worker.task("a")
    async def handle(value, context):
        if context.attempt == 1:
            handle.background = asyncio.get_running_loop().create_task(stubborn())
            await asyncio.sleep(0.01)
            raise oq_nb.RetryableError("once")
        before = ticks[0]
        await asyncio.sleep(0.1)
        return ticks[0] - before

    with worker:
        assert fake_queue.submit("a", retry_policy=AT_ONCE).result(20) == 0
    assert "ignore their cancellation" in caplog.text


def test_what_a_handler_keeps_on_its_loop_is_usable_in_the_next_call(worker, fake_queue):
    """Clients that are bound to a loop are kept from task to task: the loop stays the same."""
    loops = set()

    @worker.task("a")
    async def handle(value):
        loops.add(asyncio.get_running_loop())

    with worker:
        for number in range(3):
            fake_queue.submit("a", number).result(20)
    assert len(loops) == 1


def test_coroutine_hooks_are_awaited(worker, fake_queue, caplog):
    seen = []

    @worker.on_startup
    async def begins():
        await asyncio.sleep(0)
        seen.append("startup")

    @worker.on_shutdown
    async def ends():
        await asyncio.sleep(0)
        seen.append("shutdown")

    @worker.on_success
    async def succeeded(context, output):
        await asyncio.sleep(0)
        seen.append(("success", output))
        raise RuntimeError("a bug in a hook")

    @worker.on_error
    async def failed(context, error):
        await asyncio.sleep(0)
        seen.append(("error", str(error)))

    worker.task("good")(lambda value: value)

    @worker.task("bad")
    async def bad(value):
        raise ValueError("bad")

    with worker:
        fake_queue.submit("good", 1).result(20)
        with pytest.raises(TaskFailedError):
            fake_queue.submit("bad").result(20)
    assert seen == ["startup", ("success", 1), ("error", "bad"), "shutdown"]
    assert "a bug in a hook" in caplog.text


def test_a_hook_of_a_coroutine_handler_runs_on_the_handlers_loop(worker, fake_queue):
    loops = []

    @worker.task("a")
    async def handle(value):
        loops.append(asyncio.get_running_loop())

    @worker.on_success
    async def succeeded(context, output):
        loops.append(asyncio.get_running_loop())

    with worker:
        fake_queue.submit("a").result(20)
    assert loops[0] is loops[1]


def test_coroutine_hooks_are_awaited_in_a_cell(worker):
    """`start` in a notebook is called where a loop runs already."""
    seen = []

    @worker.on_startup
    async def begins():
        await asyncio.sleep(0)
        seen.append(threading.current_thread().name)

    worker.task("a")(lambda value: value)

    async def cell():
        worker.start()
        worker.stop()

    asyncio.run(cell())
    assert seen == ["oq-coroutine"]


def test_hooks_of_the_coroutine_front_run_on_its_loop(fake_queue):
    loops = []

    async def main():
        worker = aio.Worker(aio.Queue(fake_queue), max_poll_seconds=0.2)

        @worker.task("a")
        async def handle(value):
            return value

        @worker.on_startup
        async def begins():
            loops.append(asyncio.get_running_loop())

        @worker.on_shutdown
        async def ends():
            loops.append(asyncio.get_running_loop())

        done = asyncio.Event()
        here = asyncio.get_running_loop()

        @worker.on_success
        async def succeeded(context, output):
            await asyncio.sleep(0)
            here.call_soon_threadsafe(done.set)

        async with worker:
            task = await aio.Queue(fake_queue).submit("a", 1)
            assert await task == 1
            await asyncio.wait_for(done.wait(), 20)
        assert loops == [here, here]

    asyncio.run(main())


def test_a_cancelled_task_and_one_that_is_put_off_do_not_count_as_failed(worker, fake_queue):
    begun = threading.Event()

    @worker.task("cancelled")
    def cancelled(value, context):
        begun.set()
        while True:
            context.report_progress(message="going on")
            context.raise_if_cancelled()

    @worker.task("put off")
    def put_off(value, context):
        if context.attempt == 1:
            raise oq_nb.RescheduleError(0.0)

    @worker.task("bad")
    def bad(value):
        raise ValueError("bad")

    with worker:
        task = fake_queue.submit("cancelled")
        assert begun.wait(20)
        task.cancel()
        with pytest.raises(TaskCancelledError):
            task.result(20)
        fake_queue.submit("put off").result(20)
        with pytest.raises(TaskFailedError):
            fake_queue.submit("bad").result(20)
    assert (worker.tasks_completed, worker.tasks_failed) == (1, 1)


def test_counters_are_whole_when_many_tasks_end_at_once(fake_queue):
    worker = oq_nb.Worker(fake_queue, "w1", concurrency=16, max_poll_seconds=0.2)
    worker.task("a")(lambda value: value)
    with worker:
        for task in fake_queue.submit_many("a", range(200)):
            task.result(30)
    assert worker.tasks_completed == 200


def test_a_runner_runs_what_a_thread_with_a_loop_cannot():
    runner = CoroutineRunner()

    async def answer():
        return 42

    async def main():
        return runner.run(answer(), label="answer")

    assert asyncio.run(main()) == 42
    assert runner.run(answer(), label="answer") == 42
    runner.close()
    runner.close()
