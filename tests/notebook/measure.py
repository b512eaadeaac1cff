"""Measure what a dashboard of 1,000 tasks of which 10 run costs a kernel and a page, side by side with none:

    python tests/notebook/measure.py [--quick]

Needs a browser, and takes two minutes. The tasks run in this process, so that the kernel does nothing but watch.
``--quick`` needs none: the processor time of a refresh, on a store in memory.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from statistics import median

import psutil
from lab import PATIENCE, Lab, output, run_cell
from playwright.sync_api import sync_playwright

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

from browsers import launch  # noqa: E402

import oq_nb  # noqa: E402
from oq_nb import local, model  # noqa: E402
from oq_nb.model import transitions  # noqa: E402
from oq_nb.queue import Queue  # noqa: E402
from oq_nb.queue.poller import TaskPoller  # noqa: E402
from oq_nb.store import TaskStore  # noqa: E402
from oq_nb.testing import FakeStore  # noqa: E402

TASKS, RUNNING, SECONDS = 1000, 10, 20
LOOP = """
started = time.perf_counter()
while time.perf_counter() < started + 5: pass   # warm
count, end = 0, time.perf_counter() + 10
while time.perf_counter() < end: count += 1
print(count)
"""
CELLS = [
    "import time, oq_nb\nqueue = oq_nb.connect()\nrequests = queue.store.objects.requests",
    LOOP,
    "queue.widget()",
    LOOP,
    "before = dict(requests); time.sleep(20); print({k: requests[k] - before.get(k, 0) for k in requests})",
]


def quick() -> None:
    """Print the median processor time of a look and of a drawing after ten reports, and what is sent to a page."""
    queue = Queue(TaskStore(FakeStore()))
    tasks = queue.submit_many("count", range(TASKS))
    leases = [model.new_id() for _ in range(RUNNING)]
    for task, lease_id in zip(tasks, leases, strict=False):
        held = queue.store.update(
            task.id, partial(transitions.claim, worker_id="w", lease_id=lease_id, lease_seconds=300)
        )
        queue.store.index.add(model.lease_key(held.record))
    poller, board = TaskPoller(queue.store), queue.widget(interval=600)
    board._build()
    looking, drawing = [], []
    for percent in range(40):
        said = model.Progress(percent=percent, updated_at=queue.store.clock.stamp())
        for task, lease_id in zip(tasks, leases, strict=False):
            queue.store.update(task.id, partial(transitions.report, lease_id=lease_id, progress=said))
        began = time.thread_time()
        poller.refresh(overview=True)
        looking.append(time.thread_time() - began)
        board._last = poller.overview
        began = time.thread_time()
        board._draw()
        drawing.append(time.thread_time() - began)
    sent = len(board._table.value) + len(board._head.value)
    print(f"a look {median(looking) * 1000:.1f} ms, a drawing {median(drawing) * 1000:.1f} ms, {sent / 1000:.1f} kB")


def main() -> None:
    """Run the cells, print the figures."""
    logging.getLogger("oq_nb").setLevel(logging.ERROR)  # the tasks are not waited for in the end
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        os.environ["OQ_LOCAL_DIR"] = str(Path(folder) / "local")
        queue = oq_nb.connect()
        worker = oq_nb.Worker(queue, concurrency=RUNNING)

        @worker.task("count")
        def count(total: int, context: oq_nb.TaskContext) -> None:
            for step in range(total):
                context.report_progress(current=step, total=total)
                context.raise_if_cancelled()
                time.sleep(1)

        queue.submit_many("count", [10_000] * RUNNING)
        queue.submit_many("nobody", range(TASKS - RUNNING))
        worker.start()
        lab = Lab(Path(folder), CELLS)
        browser = launch(playwright)
        try:
            page = browser.new_page()
            page.set_default_timeout(PATIENCE * 1000)
            received: list[int] = []
            page.on("websocket", lambda ws: ws.on("framereceived", lambda frame: received.append(len(frame))))
            lab.open(page)
            run_cell(page, 0)
            kernel = next(
                process
                for process in psutil.Process(lab.pid).children(recursive=True)
                if "ipykernel_launcher" in " ".join(process.cmdline())
            )
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")

            def spent() -> tuple[float, float, int]:
                metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
                times = kernel.cpu_times()
                return times.user + times.system, metrics["TaskDuration"], sum(received)

            def watch(name: str) -> None:
                before = spent()
                page.wait_for_timeout(SECONDS * 1000)
                kernel_s, page_s, sent = (b - a for a, b in zip(before, spent(), strict=True))
                print(
                    f"{name}: kernel {kernel_s / SECONDS:.1%} of a processor, page {page_s / SECONDS:.1%}, "
                    f"{sent / SECONDS / 1000:.1f} kB/s to the page"
                )

            watch("without")
            run_cell(page, 1)
            run_cell(page, 2)
            page.locator(".oq-queue").get_by_text(f"{TASKS - RUNNING} pending").wait_for()
            page.wait_for_timeout(5000)
            watch("with   ")
            run_cell(page, 3)
            alone, beside = (int(output(page, cell).inner_text()) for cell in (1, 3))
            print(f"a busy cell does {beside / alone:.1%} of what it does without")
            run_cell(page, 4)
            print(f"requests in {SECONDS} s: {output(page, 4).inner_text().strip()}")
        finally:
            browser.close()
            lab.stop()
            worker.stop(0)
            local.stop()


if __name__ == "__main__":
    quick() if "--quick" in sys.argv else main()
