"""The first notebook of every user, in a real kernel; then the kernel is killed, and nothing is lost."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from jupyter_client import KernelManager
from jupyter_core.utils import ensure_event_loop

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


class Kernel:
    """A kernel of the test's own; a cell that raises fails the test."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.manager = KernelManager()
        self.manager.kernel_spec.argv[:] = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(env=os.environ | environment)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str, *wanted: str) -> list[str]:
        """Run a cell; return the reprs of some expressions after it."""
        reply = self.client.execute_interactive(
            code, timeout=120, output_hook=lambda message: None, user_expressions={name: name for name in wanted}
        )["content"]
        if reply["status"] != "ok":
            pytest.fail("\n".join(reply.get("traceback", [str(reply)])))
        values = [reply["user_expressions"][name] for name in wanted]
        assert [value["status"] for value in values] == ["ok"] * len(values), values
        return [value["data"]["text/plain"] for value in values]

    def kill(self) -> None:
        """End it as the out-of-memory killer would."""
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


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
    ensure_event_loop().close()  # jupyter_client made it


def test_the_first_notebook_and_a_killed_kernel(kernels):
    first = kernels()
    first.run(NEEDED)
    output, bar, tracked = first.run(
        NOTEBOOK,
        "task.result()",
        "{v.progress.total for v in task.history() if v.progress}",
        "[(t.task_type, str(t.status)) for t in queue.list()]",
    )
    assert output == "{'processed': 1000}"
    assert bar == "{1000}"
    assert len(eval(tracked)) == 2  # the batch, and the loop of the plain cell
    assert {status for _, status in eval(tracked)} == {"completed"}
    (task_id,) = first.run(INTERRUPTED, "long_task.id")
    first.kill()

    second = kernels()
    found, output, versions, error = second.run(
        TAKEN_UP.format(task_id=task_id.strip("'")),
        "found",
        "output",
        "versions",
        "[v.last_error for v in task.history() if v.attempt == 1][-1]",
    )
    assert eval(found) == ("running", 1, True)
    assert output == "'the first kernel'"
    assert eval(versions) == ["pending 0", "running 1", "pending 1", "running 2", "completed 2"]
    assert error.startswith("'Timeout - lease of worker")
