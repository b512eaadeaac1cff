"""Handlers that were defined in the cells of a notebook, in processes, in a real kernel on a real store."""

from __future__ import annotations

import pytest
from kernels import Kernel

SETUP = """
import os, time
import oq_nb

queue = oq_nb.connect()
worker = oq_nb.Worker(queue, executor="processes", concurrency=5, max_poll_seconds=0.2)
kernel_pid = os.getpid()

class Step:
    # of the notebook, as the handler's helpers are
    def __init__(self, size):
        self.size = size

def square(value):
    return value * value * FACTOR

FACTOR = 2

@worker.task("square")
def handle(input, context):
    return {"output": square(input), "pid": os.getpid(), "step": Step(3).size}

@worker.task("spin")
def spin(seconds):
    end = time.monotonic() + seconds
    for _ in oq_nb.track(iter(lambda: time.monotonic() > end, True), total=10**6, min_seconds=0, throttle_seconds=0.2):
        sum(i * i for i in range(2000))
    return os.getpid()

worker.start();
"""

BARS = """
def positions():
    found = [task.refresh().progress for task in tasks]
    return [progress.current if progress else 0 for progress in found]

tasks = queue.submit_many("spin", [600] * 5)
for t in tasks:
    t.widget()
while not all(positions()):
    time.sleep(0.1)
before = positions()
"""

MOVED = """
while not all(later > earlier for later, earlier in zip(positions(), before)):
    time.sleep(0.1)
before = positions()
"""


def interrupt_a_cell(kernel):
    """Interrupt a cell that sleeps, once it has begun: before that, IPython lets an interruption go by."""
    cell = kernel.begin("print('begun', flush=True)\ntime.sleep(60)")
    while True:
        message = kernel.client.get_iopub_msg()
        if message["parent_header"].get("msg_id") == cell and message["msg_type"] == "stream":
            break
    kernel.interrupt()
    assert kernel.end(cell)["ename"] == "KeyboardInterrupt"


@pytest.fixture
def kernel(seaweedfs, queue):
    # The queue's own prefix is out of reach of the environment: a bucket of its own stands in for it.
    bucket = queue.store.objects.prefix.strip("/")
    queue.store.objects.close()
    import oq_nb

    oq_nb.connect(
        bucket,
        endpoint=seaweedfs.endpoint,
        access_key=seaweedfs.access_key,
        secret_key=seaweedfs.secret_key,
        create=True,
    )
    kernel = Kernel(
        {
            "S3_BUCKET": bucket,
            "S3_ENDPOINT": seaweedfs.endpoint,
            "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
            "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
        }
    )
    yield kernel
    kernel.close()


@pytest.mark.timeout(900)
def test_functions_of_cells_run_in_processes_and_bars_move(kernel):
    """Five processes compute without a pause, and give way to everything else: beside other tests they are slow."""
    kernel.run(SETUP)
    kernel.run("made = queue.submit('square', 4).result()")
    made = kernel.value("made")
    assert (made["output"], made["step"]) == (32, 3)
    assert made["pid"] != kernel.value("kernel_pid")

    kernel.run("FACTOR = 10\nmade = queue.submit('square', 4).result()")
    assert kernel.value("made['output']") == 160

    kernel.run(BARS)
    kernel.run(MOVED)
    interrupt_a_cell(kernel)
    kernel.run(MOVED)
    assert kernel.value("[t.attempt for t in tasks]") == [1] * 5, "the interruption of a cell is not theirs"
    kernel.run("for t in tasks: t.cancel()\nfor t in tasks: t.wait()")
    assert kernel.value("[str(t.status) for t in tasks]") == ["cancelled"] * 5
    kernel.run("worker.stop(5)")
    assert kernel.value("worker.is_running") is False
