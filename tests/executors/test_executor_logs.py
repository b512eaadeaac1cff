"""What handlers print in processes and in a Dask cluster reaches the log of their attempt."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import pytest

import oq_nb
from oq_nb.model.logs import GAP

WAIT = 120


def run(queue, handler, value=None, **options):
    worker = oq_nb.Worker(queue, "w1", logs=True, max_poll_seconds=0.2, **options)
    worker.task("job")(handler)
    task = queue.submit("job", value, retry_policy=oq_nb.RetryPolicy(initial_interval_ms=1))
    with worker:
        task.wait(WAIT)
    return task


def test_processes(fake_queue):
    """All that is printed there is the handler's: by threads of its own, too."""

    def job(count):
        print("to stdout")
        print("\x1b[1mto stderr\x07", file=sys.stderr)
        logging.getLogger("job").error("logged")
        thread = threading.Thread(target=print, args=("in a thread",))
        thread.start()
        thread.join()
        for number in range(count):
            print(number)

    lines = [(line.stream, line.text) for line in run(fake_queue, job, 20_000, executor="processes").logs()]
    assert lines[:4] == [
        ("out", "to stdout"),
        ("err", "\x1b[1mto stderr\\x07"),
        ("log", "ERROR job: logged"),
        ("out", "in a thread"),
    ]
    assert lines[4:] == [("out", str(number)) for number in range(20_000)]


def test_more_than_is_kept_comes_from_a_process(fake_queue):
    def job(_):
        for number in range(50_000):
            print(f"line {number:06d}")

    lines = run(fake_queue, job, executor="processes", log_limit_bytes=100_000).logs().lines
    assert lines[0].text == "line 000000"
    assert lines[-1].text == "line 049999"
    assert GAP in {line.stream for line in lines}


@pytest.mark.skipif(os.name != "posix", reason="a process that kills itself")
def test_a_process_that_is_killed_leaves_what_it_had_sent(fake_queue):
    def job(_, context):
        print(f"attempt {context.attempt}")
        if context.attempt == 1:
            context.report_progress(10)  # behind what was printed, and waited for
            os.kill(os.getpid(), signal.SIGKILL)

    task = run(fake_queue, job, executor="processes")
    assert [line.text for line in task.logs(attempt=1)] == ["attempt 1"]
    assert [line.text for line in task.logs()] == ["attempt 2"]


@pytest.mark.filterwarnings("default")
def test_a_dask_cluster(fake_queue):
    distributed = pytest.importorskip("distributed")

    def job(name):
        for number in range(3000):
            print(f"{name} {number}")

    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster) as client,
    ):
        worker = oq_nb.Worker(
            fake_queue, "w1", logs=True, concurrency=2, max_poll_seconds=0.2, executor=client.get_executor()
        )
        worker.task("job")(job)
        with worker:
            tasks = [fake_queue.submit("job", name) for name in "ab"]
            for task in tasks:
                task.wait(WAIT)
    for task, name in zip(tasks, "ab", strict=True):
        assert [line.text for line in task.logs()] == [f"{name} {number}" for number in range(3000)]
