"""What grows with the tasks that have ended, and what must not: on a versioned bucket, each task with its history.

The bucket is filled as workers would have filled it: every entry was written and removed again, every task was written
three times. By several processes, because a bucket of 100,000 tasks takes 700,000 requests.

A poll is measured twice: right after the last of the tasks, and when the store has had time to clear up after entries
that were removed. SeaweedFS removes a folder (one for each shard and minute) some two minutes after it has become
empty, and lists through it until then. No task waits while polls are measured: that too would cost, by the entry.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import oq_nb
from bench.measure import Figure, Store, compared, interleaved, main, queue_at, running_store
from oq_nb import model
from oq_nb.model import transitions
from oq_nb.queue.poller import TaskPoller
from oq_nb.queue.submit import new_record
from oq_nb.store import VersionedTask

__all__ = ["TITLE", "run"]

TITLE = "Growth with finished tasks, on a versioned bucket with their history"

_THREADS = 8


def _finish_one(queue: oq_nb.Queue, number: int) -> None:
    """Write and remove what a task writes and removes in its life, in the order in which it does."""
    store = queue.store
    record = new_record(queue.store, "done", number)
    ready = store.index.add(model.ready_key(record))
    made = store.objects.put(record.key, record.to_bytes(), create=True)
    claimed = transitions.claim(record, store.clock.stamp(), lease_id="l", worker_id="w", lease_seconds=300)
    held = store.move(VersionedTask(record, made.etag), claimed)
    lease = store.index.add(model.lease_key(claimed))
    store.index.remove(ready)
    store.move(held, transitions.complete(claimed, store.clock.stamp(), lease_id="l", output=number))
    store.index.remove(lease)


def fill() -> None:
    """Be a process that fills the bucket."""
    access_key, secret_key = os.environ["BENCH_KEYS"].split(":")
    queue = oq_nb.connect(
        "oq-bench",
        endpoint=os.environ["BENCH_ENDPOINT"],
        prefix=os.environ["BENCH_PREFIX"],
        access_key=access_key,
        secret_key=secret_key,
    )
    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(lambda number: _finish_one(queue, number), range(int(os.environ["BENCH_TASKS"]))):
            pass


def _fill(server: Store, prefix: str, tasks: int, processes: int) -> float:
    """Add finished tasks; return how many a second."""
    environment = {
        **os.environ,
        "BENCH_KEYS": f"{server.access_key}:{server.secret_key}",
        "BENCH_ENDPOINT": server.endpoint,
        "BENCH_PREFIX": prefix,
        "BENCH_TASKS": str(-(-tasks // processes)),
    }
    began = time.perf_counter()
    running = [
        subprocess.Popen([sys.executable, "-c", "from bench.growth import fill; fill()"], env=environment)
        for _ in range(processes)
    ]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError("the bucket could not be filled")
    return tasks / (time.perf_counter() - began)


def _timed(call: Callable[[], object], times: int) -> float:
    """Return the median of so many calls, in milliseconds."""
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def _poll(queue: oq_nb.Queue) -> None:
    """Read what an idle worker reads."""
    for prefix in (model.READY, model.LEASES):
        queue.store.index.scan(prefix)


def run(
    smallest: int = 1000,
    steps: int = 3,
    rounds: int = 15,
    waiting: int = 20,
    processes: int = 2,
    settle_seconds: int = 300,
) -> list[Figure]:
    """Measure at ``smallest`` finished tasks, at ten times as many, and so on, in buckets that are there together."""
    sizes = [smallest * 10**step for step in range(steps)]
    watched: dict[Any, list[str]] = {}

    def refresh(queue: oq_nb.Queue) -> None:
        TaskPoller(queue.store).refresh(watched[queue.store])

    # What is called, and how often for one round: a single short call varies too much.
    calls: dict[str, tuple[Callable[[oq_nb.Queue], object], int]] = {
        "a worker's poll, right after": (_poll, 9),
        f"a worker's poll, {settle_seconds} s later": (_poll, 9),
        f"a refresh of {waiting} watched tasks": (refresh, 9),
        "submit": (lambda queue: queue.submit("later", 1, schedule_at=queue.now().replace(year=2100)), 9),
        "list(limit=100)": (lambda queue: queue.list(limit=100), 1),
        "the whole queue (dashboard), first look": (lambda queue: TaskPoller(queue.store).refresh(overview=True), 1),
    }
    figures = []
    queues: dict[int, oq_nb.Queue] = {}
    with running_store() as server:
        for size in sizes:
            queue = queues[size] = queue_at(server)
            rate = _fill(server, queue.store.objects.prefix, size, processes)  # type: ignore[attr-defined]
            figures.append(Figure(f"filled with {size:,} finished tasks", rate, "tasks/s", note="7 requests each"))
        for number, (name, (call, times)) in enumerate(calls.items()):
            if number == 1:
                time.sleep(settle_seconds)
            if call is refresh:
                for queue in queues.values():
                    watched[queue.store] = [task.id for task in queue.submit_many("waits", range(waiting))]
            cases = {
                str(size): lambda queue=queue, call=call, times=times: _timed(lambda: call(queue), times)
                for size, queue in queues.items()
            }  # type: ignore[misc]
            values = interleaved(cases, rounds if times > 1 else max(3, rounds // 3))
            for size in sizes:
                made = values[str(size)]
                objects = queues[size].store.objects
                objects.requests.clear()
                call(queues[size])
                note = " ".join(f"{n} {kind}" for kind, n in objects.requests.items())
                first = values[str(sizes[0])]
                beside = compared(made, first, f"{sizes[0]:,}") if size != sizes[0] else {}
                figures.append(Figure.of(f"{name}, {size:,}", made, "ms", note=note, **beside))
    return figures


if __name__ == "__main__":
    main(TITLE, run, smallest=1000, steps=3, rounds=15, waiting=20, processes=2, settle_seconds=300)
