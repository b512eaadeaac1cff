"""Up to 10,000 workers: what cannot run here, by formula and by simulation on the fake store.

The formula gives the requests a second under each prefix, against what AWS promises for one: 3,500 writes and 5,500
reads. The simulation lets real workers look at one bucket at the same moment, as often as it takes: all read before any
of them writes, which is the worst that can happen, and counts what they have to send for each task that is claimed.
"""

from __future__ import annotations

import math
import random
from collections import Counter

import oq_nb
from bench.measure import Figure, main
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.model import TaskStatus
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore

__all__ = ["READS", "TITLE", "WRITES", "busiest_prefix", "run", "simulate"]

TITLE = "Scale: requests by prefix (formula), contention for tasks (simulation)"

WRITES, READS = 3500.0, 5500.0  # a second under one prefix, AWS


def busiest_prefix(
    workers: int,
    *,
    concurrency: int,
    task_seconds: float,
    prefix_len: int,
    progress_seconds: float = math.inf,
    lease_seconds: float = 300.0,
    poll_seconds: float = 0.1,
) -> dict[str, float]:
    """Return requests a second under the busiest prefix, for workers that are busy all the time.

    Args:
        workers: processes.
        concurrency: tasks at a time, each.
        task_seconds: how long a task runs.
        prefix_len: hexadecimal digits of a shard.
        progress_seconds: between two reports of a running task.
        lease_seconds: a task's ``timeout_seconds``; its lease is renewed at a third of it.
        poll_seconds: shortest pause of a worker between two looks for tasks.
    """
    running = workers * concurrency
    rate = running / task_seconds
    shards = 16**prefix_len
    # A renewal is part of a report where there are reports more often than that; a short task needs none.
    renewal_seconds = lease_seconds / 3 if task_seconds > lease_seconds / 3 else math.inf
    while_running = running / min(progress_seconds, renewal_seconds)
    looks = min(1 / poll_seconds, concurrency / task_seconds)  # one for each task that is started, at most
    return {
        "tasks": (3 * rate + while_running) / shards,
        "index": 2 * rate / shards,
        "reads": rate / shards,
        "lists": workers * looks,
    }


def simulate(workers: int, tasks: int, *, seed: int = 0) -> Counter[str]:
    """Let workers claim all tasks, each one at a time, in lockstep; return the requests by kind, and ``lost`` races."""
    random.seed(seed)
    objects = FakeStore()
    store = TaskStore(objects)
    queue = Queue(store)
    queue.submit_many("noop", range(tasks))
    crew = [oq_nb.Worker(queue, f"w{number}") for number in range(workers)]
    for worker in crew:
        worker.task("noop")(lambda value: value)
    sessions = [worker._open_session(Scheduler(worker.worker_id), None) for worker in crew]
    objects.requests.clear()
    claimed = lost = 0
    while claimed < tasks:
        seen = []
        for session in sessions:
            if not session.backlog:
                session.poller.find_tasks()
            if session.backlog:
                entry = session.backlog.take()
                session.backlog.done()
                held = store.read(entry.task_id)
                if held is not None and held.record.status is TaskStatus.PENDING:
                    seen.append((session, held, entry))
                elif held is not None:
                    session.claims._handle_running(held, entry)
        random.shuffle(seen)
        for session, held, entry in seen:
            if session.claims._handle_pending(held, entry, True) is not None:
                claimed += 1
            else:
                lost += 1
    return objects.requests + Counter(lost=lost)


def run(most_workers: int = 1000, tasks_each: int = 4) -> list[Figure]:
    """Work it out."""
    figures = []
    for workers in (100, 1000, 10_000):
        for seconds in (1, 60):
            for prefix_len in (1, 2, 3):
                load = busiest_prefix(
                    workers, concurrency=1, task_seconds=seconds, prefix_len=prefix_len, progress_seconds=2.0
                )
                writes = max(load["tasks"], load["index"]) / WRITES
                worst = max(writes, load["reads"] / READS, load["lists"] / READS)
                name = f"{workers:,} workers, tasks of {seconds} s, progress every 2 s, {prefix_len} hex"
                said = f"tasks/ {load['tasks']:,.1f} PUT/s, ready/ {load['index']:,.1f} writes/s"
                note = f"{said}, {load['lists']:,.0f} LIST/s of all shards at most"
                figures.append(Figure(name, worst * 100, "% of limit", note=note))
    workers = 1
    while workers <= most_workers:
        tasks = max(200, min(4000, workers * tasks_each))
        counts = simulate(workers, tasks)
        note = " ".join(f"{counts[kind] / tasks:.2f} {kind}" for kind in ("GET", "PUT", "LIST", "DELETE", "lost"))
        whole = sum(counts[kind] for kind in ("GET", "PUT", "LIST", "DELETE")) / tasks
        figures.append(Figure(f"simulated: {workers:,} workers claim {tasks:,} tasks", whole, "requests", note=note))
        workers *= 10
    return figures


if __name__ == "__main__":
    main(TITLE, run, most_workers=1000, tasks_each=4)
