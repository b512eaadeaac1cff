"""What it takes to be there: import time beside boto3 alone, memory of a running task and of a widget."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from bench.measure import Figure, compared, interleaved, main

__all__ = ["TITLE", "run"]

TITLE = "Start: processor time of imports, memory"

# Processor time: what is read from disk is in memory after the first round anyway.
_TIMED = "import time; began = time.process_time(); {statement}; print(time.process_time() - began)"
_STATEMENTS = {
    "import oq_nb": "import oq_nb",
    "import boto3": "import boto3",
    "import tqdm": "import tqdm",
    "oq_nb.track is there": "import oq_nb; oq_nb.track",
    "connect(), to a store that is there": (
        "import oq_nb; from oq_nb.queue.connection import open_store; "
        "open_store('b', endpoint='http://127.0.0.1:9', access_key='a', secret_key='s')"
    ),
    "boto3.client('s3')": "import boto3; boto3.session.Session().client('s3', region_name='us-east-1')",
}
_MEMORY = """
import gc, sys, psutil, threading
import oq_nb
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
kind, number = sys.argv[1], int(sys.argv[2])
queue = Queue(TaskStore(FakeStore()))
process, done, started = psutil.Process(), threading.Event(), threading.Semaphore(0)
def rest():
    gc.collect()
    return process.memory_info().rss
if kind == "task":
    worker = oq_nb.Worker(queue, concurrency=number)
    @worker.task("wait")
    def wait(value, context):
        context.report_progress(percent=value % 100, throttle_seconds=1)
        started.release()
        done.wait()
    made = queue.submit_many("wait", range(number))
    before = rest()
    with worker:
        for _ in range(number):
            started.acquire()
        after = rest()
        done.set()
else:
    import tracemalloc
    made = queue.submit_many("wait", range(number + 1))
    first = made.pop().widget()
    tracemalloc.start()
    widgets = [task.widget() for task in made]
    gc.collect()
    before, after = 0, tracemalloc.get_traced_memory()[0]
    for widget in [first, *widgets]:
        getattr(widget, "close", lambda: None)()
print((after - before) / number / 1024)
"""


def _run(code: str, *arguments: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


def run(rounds: int = 9, number: int = 200) -> list[Figure]:
    """Measure each in a fresh process."""
    cases: dict[str, Callable[[], float]] = {
        name: lambda statement=statement: _run(_TIMED.format(statement=statement)) * 1000  # type: ignore[misc]
        for name, statement in _STATEMENTS.items()
    }
    values = interleaved(cases, rounds)
    against = {"import oq_nb": "import boto3", "connect(), to a store that is there": "boto3.client('s3')"}
    figures = []
    for name, made in values.items():
        other = against.get(name, "")
        beside = compared(made, values[other], other) if other else {}
        figures.append(Figure.of(name, made, "ms", **beside))
    figures.append(Figure.of("memory of a running task", [_run(_MEMORY, "task", str(number)) for _ in range(5)], "KiB"))
    figures.append(
        Figure.of(
            "memory of a widget, outside a kernel", [_run(_MEMORY, "widget", str(number)) for _ in range(5)], "KiB"
        )
    )
    return figures


if __name__ == "__main__":
    main(TITLE, run, rounds=9, number=200)
