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
