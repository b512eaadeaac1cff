"""A fleet dies with its tasks: how long until all of them run again, and what that takes, against one task."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import oq_nb
from bench.measure import Figure, main, queue_at, running_store
from oq_nb import model
from oq_nb.model import RetryPolicy, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore, VersionedTask

TITLE = "Recovery of a crashed fleet"

_AT_ONCE = RetryPolicy(initial_interval_ms=0, max_interval_ms=0, multiplier=1.0, jitter_percent=0.0)


def _crash(queue: Queue, tasks: int, dead: int, lease_seconds: float) -> float:
    """Let so many workers claim tasks and die; return the monotonic time when the first lease ends."""
    handles = queue.submit_many("job", range(tasks), retry_policy=_AT_ONCE)
    store = queue.store

    def claim(number: int) -> VersionedTask:
        held = handles[number].snapshot
        record = transitions.claim(
            held.record,
            store.clock.stamp(),
            lease_id=str(uuid.uuid4()),
            worker_id=f"dead-{number % dead}",
            lease_seconds=lease_seconds,
        )
        made = store.move(held, record)
        store.index.add(model.lease_key(record))
        for entry in store.index.find(model.ready_key(held.record)):
            store.index.remove(entry)
        return made

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(claim, range(tasks)))
    return began + lease_seconds


def _recover(server: object, tasks: int, dead: int, workers: int) -> tuple[float, Counter[str]]:
    """Return how long after the end of the last lease all tasks run again, and the requests until then."""
    queue = queue_at(server)  # type: ignore[arg-type]
    lease_seconds = max(5.0, tasks / 25)
    _crash(queue, tasks, dead, lease_seconds)
    ends = time.monotonic() + lease_seconds
    while time.monotonic() < ends:  # all leases have run out
        time.sleep(0.1)
    ran: Counter[int] = Counter()
    lock, done = threading.Lock(), threading.Event()

    def job(value: int) -> None:
        with lock:
            ran[value] += 1
            if len(ran) == tasks:
                done.set()

    prefix = queue.store.objects.prefix  # type: ignore[attr-defined]
    places = [queue_at(server, prefix=prefix).store.objects for _ in range(workers)]  # type: ignore[arg-type]
    queues = [Queue(TaskStore(place)) for place in places]
    fleet = [oq_nb.Worker(one, f"new-{number}", concurrency=4) for number, one in enumerate(queues)]
    for worker in fleet:
        worker.task("job")(job)
    began = time.monotonic()
    try:
        for worker in fleet:
            worker.start()
        assert done.wait(600), f"{len(ran)} of {tasks} run again"
        took = time.monotonic() - began
    finally:
        for worker in fleet:
            worker.stop()
    assert ran == Counter(range(tasks)), "each once"
    spent: Counter[str] = Counter()
    for one in queues:
        spent += one.store.objects.requests
    return took, spent


def run(tasks: int = 1000, dead: int = 100, workers: int = 10) -> list[Figure]:
    """Measure.

    Args:
        tasks: that run when the fleet dies.
        dead: workers of the fleet.
        workers: of the new one, with 4 threads each.
    """
    logging.getLogger("oq_nb").setLevel(logging.ERROR)  # else a line for each lease that has run out
    figures = []
    with running_store() as server:
        for count in (1, tasks):
            took, spent = _recover(server, count, min(dead, count), workers)
            each = " ".join(f"{number / count:.2f} {kind}" for kind, number in sorted(spent.items()))
            figures.append(Figure(f"{count:,} tasks, {workers} workers: all run again after", took, "s"))
            figures.append(Figure(f"{count:,} tasks: requests a task", spent.total() / count, "requests", note=each))
    return figures


if __name__ == "__main__":
    main(TITLE, run, tasks=1000, dead=100, workers=10)
