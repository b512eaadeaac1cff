"""What a poll costs beside very many tasks that are scheduled ahead, or whose types have no handler here."""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import oq_nb
from bench.measure import Figure, main, queue_at, running_store, store_name
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.model import minute_of, new_id, ready_key
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
from oq_nb.worker.session import Session

TITLE = "A poll and a claim beside very many other tasks"

_POLLS = 68  # two rounds, where shards take turns and what is passed over is read again


def _fill(queue: Queue, count: int, ahead_seconds: float) -> None:
    """Write the entries of so many tasks, spread over an hour."""
    task = queue.submit("elsewhere", schedule_at=queue.now() + timedelta(seconds=ahead_seconds))

    def entry(number: int) -> None:
        task_id = new_id()
        at = task.record.available_at + timedelta(seconds=number % 3600 if ahead_seconds > 0 else 0)
        record = task.record.evolve(id=task_id, shard=queue.store.shard_of(task_id), available_at=at)
        queue.store.objects.put(ready_key(record), b"")

    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(entry, range(count - 1), chunksize=100):
            pass


def _session(queue: Queue) -> Session:
    worker = oq_nb.Worker(queue, "bench")
    worker.task("mine")(lambda value: value)
    return worker._open_session(Scheduler("bench"), None)


def _polls(queue: Queue, name: str) -> list[Figure]:
    """Poll for two rounds, then until a task that is submitted is found; count its claim."""
    session, objects = _session(queue), queue.store.objects
    in_vain = 0
    while in_vain < _POLLS:  # until a worker knows all that is there
        in_vain = 0 if session.poller.find_tasks() else in_vain + 1
        while session.backlog:
            entry = session.backlog.take()
            assert entry is not None
            session.claims.handle_entry(entry, may_claim=True)
            session.backlog.done(was_attempt=False)
    times, lists = [], []
    for _ in range(_POLLS):
        before, began = objects.requests["LIST"], time.perf_counter()
        session.poller.find_tasks()
        times.append((time.perf_counter() - began) * 1000)
        lists.append(objects.requests["LIST"] - before)
    task = queue.submit("mine")
    session.backlog.wake(task.record.shard)  # as a submission in this process does, or a hint
    session.poller._ready.hurry_new(session.backlog.clear_wake() or (), minute_of(queue.now()))
    before, looks, claim = objects.requests.copy(), 0, None
    while claim is None and looks < 40:
        looks += 1
        session.poller.find_tasks()
        while session.backlog:
            entry = session.backlog.take()
            assert entry is not None
            claim = session.claims.handle_entry(entry, may_claim=True) or claim
            session.backlog.done()
    spent = objects.requests - before
    note = f"at most {max(lists)}; a task is found in look {looks}: " + " ".join(f"{n} {k}" for k, n in spent.items())
    return [
        Figure(f"a poll beside {name}", statistics.mean(lists), "LIST", note=note),
        Figure.of(f"its time beside {name}", times, "ms"),
    ]


def run(fake: int = 1_000_000, entries: int = 100_000, foreign: int = 20_000) -> list[Figure]:
    """Count and measure.

    Args:
        fake: tasks scheduled ahead in a store in memory.
        entries: tasks scheduled ahead on the store.
        foreign: tasks of other types, due, in a store in memory.
    """
    figures = []
    for count, ahead, said in ((0, 0.0, "none, in memory"), (fake, 7200.0, f"{fake:,} scheduled ahead, in memory")):
        queue = Queue(TaskStore(FakeStore()))
        if count:
            _fill(queue, count, ahead)
        figures += _polls(queue, said)
    if foreign:
        queue = Queue(TaskStore(FakeStore()))
        for _ in queue.submit_iter("elsewhere", range(foreign)):
            pass
        figures += _polls(queue, f"{foreign:,} of other types, in memory")
    if entries:
        with running_store() as server:
            for count in (0, entries):
                queue = queue_at(server)
                if count:
                    _fill(queue, count, 7200.0)
                figures += _polls(queue, f"{count:,} scheduled ahead, on {store_name()}")
    return figures


if __name__ == "__main__":
    main(TITLE, run, fake=1_000_000, entries=100_000, foreign=20_000)
