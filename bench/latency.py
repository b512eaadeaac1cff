"""What the store's latency does: one task from submission to result, and tasks per second."""

from __future__ import annotations

import statistics
import time

import oq_nb
from bench.measure import Figure, compared, main, queue_at, running_store
from bench.proxy import Proxy
from bench.throughput import ours

__all__ = ["TITLE", "run"]

TITLE = "Latency of the store: added to each request, by a proxy"

_DELAYS_MS = (0, 25, 100, 500)


def _one_by_one(queue: oq_nb.Queue, tasks: int) -> float:
    """Return the median of the seconds from submission to result, with a worker in this process."""
    worker = oq_nb.Worker(queue, concurrency=2)
    worker.task("noop")(lambda value: value)
    waits = []
    with worker:
        queue.submit("noop", 0).result(timeout=60)
        for number in range(tasks):
            began = time.perf_counter()
            queue.submit("noop", number).result(timeout=60)
            waits.append(time.perf_counter() - began)
    return statistics.median(waits)


def run(tasks: int = 100, waits: int = 7, rounds: int = 5, longest_ms: int = 500) -> list[Figure]:
    """Measure at each delay in turns."""
    delays = [delay for delay in _DELAYS_MS if delay <= longest_ms]
    slow: dict[int, list[float]] = {delay: [] for delay in delays}
    rates: dict[int, list[float]] = {delay: [] for delay in delays}
    with running_store() as server, Proxy(server.endpoint) as proxy:
        for _ in range(rounds):
            for delay in delays:
                proxy.set(delay_seconds=delay / 1000)
                slow[delay].append(_one_by_one(queue_at(server, proxy.endpoint), waits) * 1000)
                rates[delay].append(ours(server, proxy.endpoint, tasks, 16))
    figures = [Figure.of(f"submission to result, +{delay} ms", made, "ms") for delay, made in slow.items()]
    for delay, made in rates.items():
        beside = compared(made, rates[0], "that at +0 ms") if delay else {}
        figures.append(Figure.of(f"16 at a time, +{delay} ms", made, "tasks/s", **beside))
    return figures


if __name__ == "__main__":
    main(TITLE, run, tasks=100, waits=7, rounds=5)
