"""The first notebook of every user, in a real kernel; then the kernel is killed, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernels import Kernel

from oq_nb import local

# What the notebook leaves to its reader; the plain loop lasts long enough to become a task.
NEEDED = """
import time

def process(item):
    time.sleep(0.005)

data = (time.sleep(0.01) or n for n in range(300))
"""

NOTEBOOK = """
import oq_nb

queue = oq_nb.connect()              # a bucket from S3_BUCKET/S3_ENDPOINT/S3_REGION, else the embedded local store
worker = oq_nb.Worker(queue)         # all shards, one task at a time

@worker.task("batch_process")
def handle(input, context):
    for item in oq_nb.track(input["items"], desc="items"):   # inside a handler: progress goes to the task
        process(item)
    return {"processed": len(input["items"])}

worker.start()                       # background threads; the cell returns at once
task = queue.submit("batch_process", {"items": list(range(1000))})
task.widget()                        # a live display; also: just `task` as the last line of a cell
task.result(timeout=60)              # the output, or TaskFailedError with the handler's traceback text

for x in oq_nb.track(data, desc="epochs"):     # in a plain cell: a local bar, and a task anyone can watch
    ...
"""

INTERRUPTED = """
import os, time

@worker.task("long")
def long(input, context):
    for i in range(1000):
        context.report_progress(current=i, total=1000, message=f"item {i}")
        time.sleep(0.1)

long_task = queue.submit("long", {"from": "the first kernel"}, timeout_seconds=3)
while not (long_task.refresh().progress and long_task.progress.current >= 3):
    time.sleep(0.05)
"""

TAKEN_UP = """
import oq_nb, time

queue = oq_nb.connect()
task = queue.get({task_id!r})
found = (str(task.status), task.attempt, len(task.history()) >= 5)
worker = oq_nb.Worker(queue, max_poll_seconds=0.5)

@worker.task("long")
def long(input, context):
    context.report_progress(percent=100, message="a short way this time")
    return input["from"]

worker.start()
output = task.result(timeout=60)
versions = [f"{{v.status}} {{v.attempt}}" for v in task.history() if v.progress is None]
worker.stop()
"""


@pytest.fixture
def kernels(tmp_path):
    """Start kernels that share an embedded store of the test's own."""
    started: list[Kernel] = []
    store = tmp_path / "store"

    def start() -> Kernel:
        started.append(Kernel({"OQ_LOCAL_DIR": str(store), "IPYTHONDIR": str(tmp_path / "ipython")}))
        return started[-1]

    yield start
    for kernel in started:
        kernel.close()
    local.stop(data_dir=Path(store))


def test_the_first_notebook_and_a_killed_kernel(kernels):
    first = kernels()
    first.run(NEEDED)
    first.run(NOTEBOOK)
    assert first.value("task.result()") == {"processed": 1000}
    assert first.value("{v.progress.total for v in task.history() if v.progress}") == {1000}
    tracked = first.value("[(t.task_type, str(t.status)) for t in queue.list()]")
    assert len(tracked) == 2  # the batch, and the loop of the plain cell
    assert {status for _, status in tracked} == {"completed"}
    first.run(INTERRUPTED)
    task_id = first.value("long_task.id")
    first.kill()

    second = kernels()
    second.run(TAKEN_UP.format(task_id=task_id))
    assert second.value("found") == ("running", 1, True)
    assert second.value("output") == "the first kernel"
    assert second.value("versions") == ["pending 0", "running 1", "pending 1", "running 2", "completed 2"]
    error = second.value("[v.last_error for v in task.history() if v.attempt == 1][-1]")
    assert error.startswith("Timeout - lease of worker")
