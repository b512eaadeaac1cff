"""Handlers that were defined in the cells of a notebook, in processes, in a real kernel on a real store."""

from __future__ import annotations

import os
import sys

import pytest
from jupyter_client import KernelManager
from jupyter_core.utils import ensure_event_loop

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


class Kernel:
    """A kernel; a cell that raises fails the test, unless it is meant to."""

    def __init__(self, environment):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv[:] = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(env=os.environ | environment)
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, code, wanted="None"):
        reply = self.client.execute_interactive(
            code, timeout=None, output_hook=lambda _: None, user_expressions={"wanted": wanted}
        )["content"]
        if reply["status"] != "ok":
            pytest.fail("\n".join(reply.get("traceback", [str(reply)])))
        return eval(reply["user_expressions"]["wanted"]["data"]["text/plain"])

    def interrupt_a_cell(self):
        """Interrupt a cell that sleeps, as the button of the notebook does: the signal goes to the process group."""
        sent = self.client.execute("print('begun', flush=True)\ntime.sleep(60)")
        while True:  # before it has begun, IPython lets an interruption go by
            message = self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") == sent and message["msg_type"] == "stream":
                break
        self.manager.interrupt_kernel()
        while (reply := self.client.get_shell_msg(timeout=60))["parent_header"].get("msg_id") != sent:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt"

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()
        ensure_event_loop().close()  # jupyter_client made it


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
    output = kernel.run("made = queue.submit('square', 4).result()", "made")
    assert (output["output"], output["step"]) == (32, 3)
    assert output["pid"] != kernel.run("", "kernel_pid")

    assert kernel.run("FACTOR = 10\nmade = queue.submit('square', 4).result()", "made['output']") == 160

    kernel.run(BARS)
    kernel.run(MOVED)
    kernel.interrupt_a_cell()
    kernel.run(MOVED)
    assert kernel.run("", "[t.attempt for t in tasks]") == [1] * 5, "the interruption of a cell is not theirs"
    cancelled = "for t in tasks: t.cancel()\nfor t in tasks: t.wait()"
    assert kernel.run(cancelled, "[str(t.status) for t in tasks]") == ["cancelled"] * 5
    assert kernel.run("worker.stop(5)", "worker.is_running") is False
