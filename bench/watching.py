"""200 people look at one queue: all at a page that one process serves, or each in a kernel of their own."""

from __future__ import annotations

import threading
import time
import uuid

from bench.measure import Figure, main
from bench.requests import price
from oq_nb.model import Progress, Timestamp, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore

TITLE = "Watching: 20 tasks run and report every 2 s; requests of those who look at the queue"


def _reporting(queue: Queue, tasks: int, stop: threading.Event) -> threading.Thread:
    """Let tasks run that report every two seconds."""
    store = queue.store
    running = []
    for task in queue.submit_many("job", range(tasks), timeout_seconds=3600):
        claimed = transitions.claim(
            task.record, store.clock.stamp(), lease_id=str(uuid.uuid4()), worker_id="w", lease_seconds=3600
        )
        running.append(store.move(task.snapshot, claimed))
        store.objects.put(f"leases/{claimed.shard}/9999999999/{claimed.id}", b"")

    def report() -> None:
        number = 0
        while not stop.wait(2.0):
            number += 1
            for at, held in enumerate(running):
                now, lease_id = store.clock.stamp(), held.record.lease_id
                assert lease_id is not None
                progress = Progress(current=number, updated_at=Timestamp.of(now))
                running[at] = store.move(
                    held, transitions.report(held.record, now, lease_id=lease_id, progress=progress)
                )

    thread = threading.Thread(target=report, name="bench-report")
    thread.start()
    return thread


def _requests_a_second(viewers: int, tasks: int, seconds: int) -> tuple[float, float]:
    """Return the requests a second of so many dashboards in one process, and their price a month."""
    objects, stop = FakeStore(), threading.Event()
    thread = _reporting(Queue(TaskStore(objects)), tasks, stop)
    writes = objects.requests["PUT"]
    watching = Queue(TaskStore(objects))
    watches = [watching.watcher.overview() for _ in range(viewers)]
    try:
        time.sleep(4.0)
        before = objects.requests.copy()
        time.sleep(seconds)
        spent = objects.requests - before
    finally:
        for watch in watches:
            watch.close()
        stop.set()
        thread.join()
    assert objects.requests["PUT"] > writes
    del spent["PUT"]
    return spent.total() / seconds, price(spent) / seconds * 730 * 3600


def run(viewers: int = 200, tasks: int = 20, seconds: int = 20) -> list[Figure]:
    """Count, in a store in memory.

    Args:
        viewers: who look.
        tasks: that run.
        seconds: of counting.
    """
    one, one_price = _requests_a_second(1, tasks, seconds)
    many, many_price = _requests_a_second(viewers, tasks, seconds)
    said = [f"{each:,.2f} dollars a month" for each in (one_price, many_price, one_price * viewers)]
    return [
        Figure("one dashboard", one, "req/s", note=f"{said[0]}, if it is looked at all the time"),
        Figure(f"{viewers} in one process", many, "req/s", against="one", ratio=many / one, note=said[1]),
        Figure(f"{viewers} kernels, one each", one * viewers, "req/s", note=f"{said[2]} (calculated)"),
    ]


if __name__ == "__main__":
    main(TITLE, run, viewers=200, tasks=20, seconds=20)
