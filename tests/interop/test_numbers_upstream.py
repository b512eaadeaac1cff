"""Fields of ours (metrics, series, what was reached, the trace) in a bucket that upstream's programs read and write."""

from __future__ import annotations

import threading
import time

import pytest
from waiting import until

import oq_nb
from oq_nb.model import read_series
from oq_nb.queue.submit import new_record

pytest.importorskip("buquet", reason="upstream (buquet) has no wheel for this Python or platform")

SOON = oq_nb.RetryPolicy(initial_interval_ms=100, max_interval_ms=200, multiplier=1.0, jitter_percent=0.0)
TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


def our_worker(queue, task_type, handler, **options):
    worker = oq_nb.Worker(queue, **({"max_poll_seconds": 0.3, "worker_id": "ours-1"} | options))
    worker.task(task_type)(handler)
    return worker


def submit_traced(queue, task_type, **options):
    """Submit a task that carries a trace, as one does that is submitted inside a span."""
    record = new_record(queue.store, task_type, trace=TRACE, **options)
    return queue.get(queue.store.create(record).record.id)


def test_they_read_and_ask_a_task_with_numbers(ours, theirs):
    reported, go_on = threading.Event(), threading.Event()

    def handle(given, context):
        context.report_progress(current=1, total=2, metrics={"loss": 2.0})
        time.sleep(0.01)
        context.report_progress(current=2, total=2, metrics={"loss": 1.0})
        reported.set()
        assert go_on.wait(30)
        return 1

    task = submit_traced(ours, "fit")
    with our_worker(ours, "fit", handle):
        try:
            assert reported.wait(30)
            assert read_series(task.refresh().progress.series).metrics == {"loss": (2, 1)}
            assert theirs.status(task.id) == "running"
            theirs.insist("request_cancellation", task.id)  # they rewrite the object
            assert task.refresh().record.cancel_requested
        finally:
            go_on.set()
        task.wait(30)
    record = task.refresh().record
    assert (record.status, record.last_worker_id, record.reached.metrics) == ("completed", "ours-1", {"loss": 1.0})
    seen = theirs.get(task.id)
    assert (seen.output, theirs.status(task.id)) == (1, "completed")
    assert len(theirs.get_history(task.id)) == len(task.history())


def test_they_run_a_task_that_carries_a_trace(ours, theirs):
    async def handle(given):
        return "theirs"

    task = submit_traced(ours, "fit")
    with theirs.worker({"fit": handle}):
        assert task.result(30) == "theirs"
    # They drop what they do not know when they write: the trace ends there, and nothing else is lost.
    assert task.refresh().record.trace is None


def test_they_run_the_attempt_after_ours(ours, theirs):
    def fails(given, context):
        context.report_progress(current=1, total=4, metrics={"loss": 2.0})
        raise oq_nb.RetryableError("again")

    async def handle(given):
        return "theirs"

    task = submit_traced(ours, "fit", retry_policy=SOON)
    worker = our_worker(ours, "fit", fails)
    with worker:
        until(lambda: task.refresh().record.retry_count >= 1)
        assert task.record.reached is None or task.record.reached.metrics == {"loss": 2.0}
    with theirs.worker({"fit": handle}):
        assert task.result(30) == "theirs"
    record = task.refresh().record
    assert (record.reached, record.last_worker_id) == (None, None), "of an attempt of theirs nothing is known"
