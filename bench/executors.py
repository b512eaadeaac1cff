"""How long a cell takes in a kernel whose worker runs five CPU-bound handlers: in processes, in threads, and none.

In a real kernel, on SeaweedFS, with five live bars shown; that all of them move is checked in each round. What five
busy processes that have nothing to do with the kernel cost its cells on the same machine is measured beside it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jupyter_client import BlockingKernelClient, KernelManager

from bench.measure import Figure, Store, compared, interleaved, main, running_store

TITLE = "Latency of a kernel's cell (95th percentile) while five CPU-bound handlers run, against an idle kernel's"

SETUP = """
import time
import oq_nb
from IPython.display import display

queue = oq_nb.connect(create=True)
workers = {}

def spin(seconds):
    end = time.monotonic() + seconds
    for _ in oq_nb.track(iter(lambda: time.monotonic() > end, True), total=1_000_000, min_seconds=0):
        sum(i * i for i in range(2_000))

def begin(executor, count, seconds):
    worker = workers[executor] = oq_nb.Worker(queue, executor=executor, concurrency=count, max_poll_seconds=0.2)
    worker.task("spin")(spin)
    worker.start()
    tasks = queue.submit_many("spin", [seconds] * count)
    for task in tasks:
        display(task.widget())
    while not all(task.refresh().progress for task in tasks):
        time.sleep(0.1)
    return tasks

def positions(tasks):
    found = [task.refresh().progress for task in tasks]
    return [progress.current if progress else 0 for progress in found]

def end(executor, tasks):
    for task in tasks:
        task.cancel()
    workers.pop(executor).stop(10)
"""


class Kernel:
    """A real kernel, whose cells are timed from outside."""

    def __init__(self, client: BlockingKernelClient) -> None:
        self.client = client

    def run(self, code: str, seconds: float = 120) -> None:
        """Run a cell to its end; raise when it fails."""
        reply = self.client.execute_interactive(code, timeout=seconds, output_hook=lambda _: None)
        if reply["content"]["status"] != "ok":
            raise RuntimeError("\n".join(reply["content"]["traceback"]))

    def latency(self, cells: int) -> float:
        """Return the 95th percentile of the time from sending a cell to its answer, in seconds."""
        times = []
        for _ in range(cells):
            time.sleep(0.02)
            began = time.perf_counter()
            sent = self.client.execute("1 + 1", store_history=False)
            while self.client.get_shell_msg(timeout=60)["parent_header"].get("msg_id") != sent:
                pass
            times.append(time.perf_counter() - began)
        return statistics.quantiles(times, n=20)[-1]

    def latency_beside(self, executor: str, handlers: int, cells: int) -> float:
        """Return the same while so many handlers run, all of whose bars must move."""
        self.run(f"tasks = begin({executor!r}, {handlers}, 600); before = positions(tasks)")
        found = self.latency(cells)
        self.run(
            "deadline = time.monotonic() + 60\n"
            "while not all(a > b for a, b in zip(positions(tasks), before)):\n"
            "    assert time.monotonic() < deadline, (before, positions(tasks))\n"
            "    time.sleep(0.2)\n"
            f"end({executor!r}, tasks)"
        )
        return found


#: A busy process, as low in priority as a handler's.
_STRANGER = "import os\nos.nice(10)\nwhile True: sum(i * i for i in range(2_000))"


def latency_beside_strangers(kernel: Kernel, processes: int, cells: int) -> float:
    """Return a cell's latency while so many busy processes run that are not the kernel's."""
    strangers = [subprocess.Popen([sys.executable, "-c", _STRANGER]) for _ in range(processes)]
    try:
        time.sleep(1)
        return kernel.latency(cells)
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait()


@contextmanager
def kernel_on(server: Store) -> Iterator[Kernel]:
    """A kernel whose ``connect()`` finds the server."""
    environment: dict[str, Any] = {
        **os.environ,
        "S3_BUCKET": f"kernel-{uuid.uuid4().hex[:12]}",
        "S3_ENDPOINT": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
    }
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(env=environment)
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=120)
        yield Kernel(client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run(rounds: int = 5, cells: int = 150, handlers: int = 5) -> list[Figure]:
    """Measure."""
    with running_store() as server, kernel_on(server) as kernel:
        kernel.run(SETUP)
        kernel.latency(20)
        values = interleaved(
            {
                "idle": lambda: kernel.latency(cells),
                "strangers": lambda: latency_beside_strangers(kernel, handlers, cells),
                "processes": lambda: kernel.latency_beside("processes", handlers, cells),
                "threads": lambda: kernel.latency_beside("threads", handlers, max(10, cells // 20)),  # seconds each
            },
            rounds,
        )
    milliseconds = {name: [value * 1000 for value in times] for name, times in values.items()}
    figures = [Figure.of("kernel that runs nothing", milliseconds["idle"], "ms")]
    for name, what in (
        ("strangers", f"{handlers} busy processes of another program"),
        ("processes", f"{handlers} handlers in processes"),
        ("threads", f"{handlers} handlers in threads"),
    ):
        beside = compared(milliseconds[name], milliseconds["idle"], "idle")
        figures.append(Figure.of(what, milliseconds[name], "ms", **beside))
    return figures


if __name__ == "__main__":
    main(TITLE, run, rounds=5, cells=150, handlers=5)
