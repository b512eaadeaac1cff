"""Handlers in a Dask cluster: the same handler and context; a Dask worker that is killed counts as a retry."""

from __future__ import annotations

import os
import signal
import threading
import time
import warnings

import pytest
from waiting import until

import oq_nb
from oq_nb.model import RetryPolicy, TaskStatus

distributed = pytest.importorskip("distributed")

pytestmark = [pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def client():
    """A cluster of two processes; its workers know nothing of the store."""
    import dask

    settings = {"distributed.worker.memory.terminate": False, "distributed.admin.log-length": 100}
    with (
        warnings.catch_warnings(),
        dask.config.set(settings),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_dask_cluster(client, fake_queue):
    executor = client.get_executor()
    worker = oq_nb.Worker(fake_queue, executor=executor, concurrency=2, max_poll_seconds=0.2)

    @worker.task("sum")
    def add(items, context):
        assert oq_nb.current_context() is context
        total = 0
        for item in oq_nb.track(items, desc="items", min_seconds=0, throttle_seconds=0.2):
            time.sleep(0.02)
            total += item
        context.report_progress(current=1, message="exact")  # is written when it returns
        return {"total": total, "pid": os.getpid(), "message": context.progress.message}

    @worker.task("coroutine")
    async def coroutine(value, context):
        await context.report_progress(percent=50)
        return context.progress.percent

    @worker.task("raise")
    def raise_it(value):
        raise KeyError(value)

    @worker.task("die")
    def die(value, context):
        context.report_progress(message=str(os.getpid()))
        if context.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return context.attempt

    @worker.task("spin")
    def spin(value, context):
        context.report_progress(message="begun")
        while True:
            context.raise_if_cancelled()
            time.sleep(0.01)

    with worker:
        task = fake_queue.submit("sum", list(range(100)))
        seen = until(lambda: task.refresh().progress)
        assert (seen.total, seen.message) == (100, "items")
        output = task.result(60)
        assert output["pid"] != os.getpid()
        assert (output["total"], output["message"]) == (4950, "exact")
        assert fake_queue.submit("coroutine").result(60) == 50
        with pytest.raises(oq_nb.TaskFailedError, match="KeyError"):
            (failed := fake_queue.submit("raise", "key")).result(60)
        assert "in raise_it" in failed.last_error

        spinning = fake_queue.submit("spin", timeout_seconds=3)
        until(lambda: spinning.refresh().progress)
        spinning.cancel()
        until(lambda: spinning.refresh().status is TaskStatus.CANCELLED)

        policy = RetryPolicy(initial_interval_ms=0, max_interval_ms=0)
        killed = fake_queue.submit("die", retry_policy=policy)
        assert killed.result(90) == 2
        assert (killed.refresh().record.retry_count, killed.record.attempt) == (1, 2)
        errors = [record.last_error for record in killed.history() if record.last_error]
        pid = next(record.progress.message for record in killed.history() if record.progress)
        assert errors[0].startswith(f"LostProcess: process {pid} on ")

        stuck = fake_queue.submit("spin")
        until(lambda: stuck.refresh().progress)
        worker.stop(0.5)
        assert (stuck.refresh().status, stuck.record.retry_count) == (TaskStatus.PENDING, 0)
        # The handler was told: it does not hold its Dask worker any longer.
        until(lambda: not any(client.processing().values()))
    assert executor.submit(abs, -1).result(30) == 1, "it is not shut down"


def test_threads_of_a_dask_cluster_in_this_process(fake_queue):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        worker = oq_nb.Worker(fake_queue, executor=client.get_executor(), max_poll_seconds=0.2)

        @worker.task("here")
        def here(value, context):
            context.report_progress(percent=10)
            return [os.getpid(), threading.current_thread().name, context.progress.percent]

        with worker:
            pid, name, percent = fake_queue.submit("here").result(60)
        assert (pid, percent) == (os.getpid(), 10)
        assert "Dask" in name


def test_an_asynchronous_client_is_refused(fake_queue):
    import asyncio

    async def main():
        async with (
            distributed.LocalCluster(
                n_workers=1, processes=False, dashboard_address=":0", asynchronous=True, silence_logs=50
            ) as cluster,
            distributed.Client(cluster, asynchronous=True) as client,
        ):
            worker = oq_nb.Worker(fake_queue, executor=client.get_executor())
            worker.task("any")(lambda value: value)
            with pytest.raises(oq_nb.ConfigurationError, match="^executor: its Dask client is an asynchronous one"):
                worker.start()

    asyncio.run(main())
