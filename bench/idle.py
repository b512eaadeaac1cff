"""Workers that wait: what they cost a month, and how soon they notice a task that is submitted elsewhere.

The first half is counted on a clock that is moved, with the pauses and the hint as they are. The second is measured:
workers on the store that have been idle for a while, half of them without hints, each get a task from another client.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

import oq_nb
from bench.measure import Figure, main, queue_at, running_store, store_name
from oq_nb.queue import Queue
from oq_nb.store import ReadyHint, TaskStore
from oq_nb.testing import FakeStore, FakeTime
from oq_nb.worker.hint_watch import HintWatch
from oq_nb.worker.pauses import PollPauses

TITLE = "workers that wait"

_MONTH_SECONDS = 730 * 3600
_PRICES = {"LIST": 5e-6, "PUT": 5e-6, "GET": 0.4e-6}
_CLAIM_SECONDS = 0.2  # LIST, GET and PUT, at 50 to 70 ms each
_HINT_PUT_SECONDS = 0.05


@dataclass
class IdleWorker:
    """The polling thread of an idle worker, on a clock that is moved.

    Args:
        has_hints: whether it looks at the hint; without, it is as workers were before there was one.
        workers: how many the queue has.
        seed: of its random numbers.
    """

    has_hints: bool
    workers: int = 1
    seed: int = 0
    requests: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._time = FakeTime()
        self._objects = FakeStore(self._time)
        self._writer = ReadyHint(self._objects)
        self._pauses = PollPauses(15.0, random.Random(self.seed).random)
        self._start = self._time.monotonic()
        self._next_list = self._next_leases = self._start
        self._watch = HintWatch(ReadyHint(self._objects), self._pauses, lambda: self.workers)
        self._writer.write(["0"])

    def run(self, seconds: float, submitted_at: float = float("inf")) -> float | None:
        """Let time pass; return how long after its submission a task was claimed, None when there was none.

        Args:
            seconds: since the worker became idle.
            submitted_at: when a task is submitted, seconds since then.
        """
        submitted_at += self._start
        is_hinted = False
        self._objects.requests.clear()
        while (now := self._time.monotonic()) < self._start + seconds:
            if not is_hinted and now >= submitted_at + _HINT_PUT_SECONDS:
                is_hinted = True
                self._writer.write(["0"])
                self._objects.requests -= Counter(PUT=1, DELETE=1)
            idle = now - self._start
            if self.has_hints and now < self._next_list and self._watch.look(self._start, now) is not None:
                self._next_list = now
            if now >= self._next_list:
                self.requests["LIST"] += 1
                if now >= submitted_at:
                    return now + _CLAIM_SECONDS - submitted_at
                self._next_list = now + self._pauses.for_tasks(idle)
            if now >= self._next_leases:
                self.requests["LIST"] += 1
                self._next_leases = now + self._pauses.for_leases(idle)
            due = [self._next_list, self._next_leases]
            if self.has_hints:
                due.append(self._watch.next_at(self._start, now))
            if not is_hinted:
                due.append(submitted_at + _HINT_PUT_SECONDS)
            self._time.advance(max(0.001, min(due) - now))
        self.requests += self._objects.requests
        return None


def claim_seconds(idle_seconds: float, *, has_hints: bool, rounds: int = 200) -> list[float]:
    """Return how long tasks waited that were submitted to a worker after so long, each to another worker."""
    waited = []
    for seed in range(rounds):
        at = idle_seconds * (1 + random.Random(f"at {seed}").random() / 10)
        found = IdleWorker(has_hints, seed=seed).run(idle_seconds * 2 + 60, at)
        assert found is not None
        waited.append(found)
    return waited


def month(workers: int, *, has_hints: bool) -> tuple[Counter[str], float]:
    """Return the requests of a worker in an hour, and the price of all workers a month, US dollars."""
    worker = IdleWorker(has_hints, workers=workers)
    worker.run(2 * 3600)
    first = Counter(worker.requests)
    worker.requests.clear()
    worker.run(3 * 3600)
    hour = worker.requests
    assert sum(first.values()) >= sum(hour.values())
    hour["PUT"] += round(3600 / (25 if has_hints else 15))  # heartbeats; removing what they replace is free
    if has_hints:
        hour["LIST"] += 1 + round(3600 / (600 + workers)) * -(-workers // 1000)  # old hints; counting the workers
    price = sum(_PRICES.get(kind, 0.0) * number for kind, number in hour.items()) / 3600 * _MONTH_SECONDS
    return hour, price * workers


def _counted() -> list[Figure]:
    figures = []
    for workers in (1, 10, 1000, 10_000):
        _, before = month(workers, has_hints=False)
        hour, after = month(workers, has_hints=True)
        note = " ".join(f"{number / 3600:.3f} {kind}/s" for kind, number in sorted(hour.items())) + " each"
        looks = hour["GET"] / 3600 * workers
        figures.append(
            Figure(
                f"{workers:,} idle workers, a month",
                after,
                "dollars",
                against="without hints",
                ratio=after / before,
                note=f"before {before:.2f}; {note}; {looks:.1f} GET/s in all",
            )
        )
    for idle, said in ((20, "20 s"), (60, "a minute"), (600, "ten minutes"), (7200, "two hours")):
        before, after = (sorted(claim_seconds(idle, has_hints=has)) for has in (False, True))
        middle = statistics.median(after)
        note = f"before {statistics.median(before):.2f}; longest {after[-1]:.1f}, before {before[-1]:.1f}"
        figures.append(
            Figure(
                f"claim after {said} without work",
                middle,
                "s",
                against="without hints",
                ratio=middle / statistics.median(before),
                note=f"{note} (simulated, 50 to 70 ms a request)",
            )
        )
    return figures


def _measured(idle_seconds: int, workers: int) -> list[Figure]:
    with running_store() as server:
        queue_at(server)
        pairs: dict[bool, list[tuple[Queue, oq_nb.Worker]]] = {True: [], False: []}
        try:
            for number in range(workers):
                for has_hints in (True, False):
                    queue = queue_at(server)
                    mine = Queue(TaskStore(queue.store.objects), hints=has_hints)
                    worker = oq_nb.Worker(mine, f"w{number}-{has_hints}")
                    worker.task("noop")(lambda value: value)
                    pairs[has_hints].append((queue, worker.start()))
            time.sleep(idle_seconds)
            waited: dict[bool, list[float]] = {True: [], False: []}
            for both in zip(pairs[True], pairs[False], strict=True):
                tasks = [queue.submit("noop") for queue, _ in both]
                for has_hints, task in zip((True, False), tasks, strict=True):
                    task.wait(120, progress=False)
                    record = task.refresh().record
                    started, ended = record.available_at, record.completed_at
                    assert ended is not None
                    waited[has_hints].append((ended - started).total_seconds())
        finally:
            for both_kinds in pairs.values():
                for _, worker in both_kinds:
                    worker.stop()
    return [
        Figure.of(
            f"claim and run after {idle_seconds} s without work",
            waited[True],
            "s",
            against="without hints",
            ratio=statistics.median(waited[True]) / statistics.median(waited[False]),
            note=f"before {statistics.median(waited[False]):.2f}; longest {max(waited[True]):.1f}, before "
            f"{max(waited[False]):.1f} ({store_name()}, {workers} workers of each kind)",
        )
    ]


def run(idle_seconds: int = 600, workers: int = 10) -> list[Figure]:
    """Count and measure.

    Args:
        idle_seconds: of the measured workers; 0: none are.
        workers: so many of each kind.
    """
    return _counted() + (_measured(idle_seconds, workers) if idle_seconds else [])


if __name__ == "__main__":
    main(TITLE, run, idle_seconds=600, workers=10)
