"""What a worker does at an index entry."""

from __future__ import annotations

import threading

import oq_nb


def test_an_entry_that_is_met_before_its_task_is_looked_at_again_soon(fake_queue, fake_store):
    """An entry is written before its task: a worker may look in between, and must not pass it over for minutes."""
    met = threading.Event()

    def fault(kind, key, when):
        if kind == "PUT" and key.startswith("tasks/") and when == "before" and not met.is_set():
            worker.wake()
            met.wait(10)  # until the worker has looked for the task
        elif kind == "GET" and key.startswith("tasks/") and when == "after":
            met.set()

    worker = oq_nb.Worker(fake_queue, max_poll_seconds=0.1)
    worker.task("a")(lambda n: n + 1)
    with worker:
        fake_store.fault = fault
        task = fake_queue.submit("a", 1)
        assert met.is_set()
        assert task.result(20) == 2


def test_an_entry_that_is_met_before_its_task_is_handed_back_is_looked_at_again_soon(fake_queue, fake_store):
    """The ready entry is written while the task still runs under a long lease: that lease must not be waited for."""
    met, is_running, may_go = threading.Event(), threading.Event(), threading.Event()

    def fault(kind, key, when):
        if kind == "PUT" and key.startswith("tasks/") and when == "before" and threading.get_ident() == stopper:
            other.wake()
            met.wait(10)
        elif kind == "GET" and key.startswith("tasks/") and when == "after":
            met.set()

    def first(n):
        is_running.set()
        may_go.wait(10)

    leaving = oq_nb.Worker(fake_queue, "leaving", max_poll_seconds=0.1)
    leaving.task("a")(first)
    other = oq_nb.Worker(fake_queue, "other", max_poll_seconds=0.1)
    other.task("a")(lambda n: n + 1)
    stopper = threading.get_ident()
    with leaving:
        task = fake_queue.submit("a", 1, timeout_seconds=3600)
        assert is_running.wait(60)
        with other:
            fake_store.fault = fault
            leaving.stop(0)
            fake_store.fault = None
            may_go.set()
            assert met.is_set()
            assert task.result(20) == 2
    assert task.attempt == 2
