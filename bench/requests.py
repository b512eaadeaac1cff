"""Requests and bytes, counted by a proxy before the store, and what they cost by AWS's price list.

Per task and per progress update, of an idle worker, and of watching many tasks. Counts, not times: a busy machine
changes at most the number of listings.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import oq_nb
from bench.measure import Figure, Store, main, queue_at, running_store
from bench.proxy import Proxy
from oq_nb import model
from oq_nb.store import VersionedTask

__all__ = ["TITLE", "price", "run"]

TITLE = "Requests: counted at the store, priced as S3 Standard in us-east-1"

#: Dollars per request: PUT and LIST 0.005 a thousand, GET and HEAD 0.0004 a thousand, DELETE nothing.
PRICES = {"PUT": 5e-6, "LIST": 5e-6, "POST": 5e-6, "GET": 4e-7, "HEAD": 4e-7, "DELETE": 0.0}
_MONTH_SECONDS = 30 * 24 * 3600


def price(counts: Counter[str]) -> float:
    """Return what so many requests cost, dollars."""
    return sum(PRICES.get(kind, 0.0) * number for kind, number in counts.items())


class _Counting:
    """What passed the proxy since it was asked last."""

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self._before = Counter(proxy.counts())

    def take(self) -> Counter[str]:
        now = Counter(self._proxy.counts())
        made, self._before = now - self._before, now
        return made


def _said(counts: Counter[str], per: float) -> str:
    kinds = " ".join(
        f"{counts[kind] / per:.2f} {kind}" for kind in ("PUT", "GET", "LIST", "DELETE", "HEAD") if counts[kind]
    )
    return f"{kinds}; {(counts['bytes_in'] + counts['bytes_out']) / per:,.0f} bytes of bodies"


def _requests(counts: Counter[str]) -> int:
    return sum(number for kind, number in counts.items() if not kind.startswith("bytes"))


def _per_task(
    server: Store, proxy: Proxy, tasks: int, how: str = "", lease_entry_delay_seconds: float = 0.0
) -> list[Figure]:
    queue = queue_at(server, proxy.endpoint)
    worker = oq_nb.Worker(queue, concurrency=16, lease_entry_delay_seconds=lease_entry_delay_seconds)
    worker.task("noop")(lambda value: value)
    counting = _Counting(proxy)
    queue.submit_many("noop", range(tasks))
    submit = counting.take()
    with worker:
        while worker.tasks_completed < tasks:
            time.sleep(0.05)
    work = counting.take()
    whole = submit + work
    return [
        Figure(f"submit, a task{how}", _requests(submit) / tasks, "requests", note=_said(submit, tasks)),
        Figure(f"claim to end, a task{how}", _requests(work) / tasks, "requests", note=_said(work, tasks)),
        Figure(f"a million tasks{how}", price(whole) / tasks * 1e6, "dollars"),
    ]


def _per_progress_update(server: Store, proxy: Proxy, updates: int) -> list[Figure]:
    queue = queue_at(server, proxy.endpoint)
    worker = oq_nb.Worker(queue)
    made: list[Counter[str]] = []

    @worker.task("report")
    def report(total: int, context: oq_nb.TaskContext) -> None:
        time.sleep(1)  # what belongs to the claim is over by then
        counting = _Counting(proxy)
        for number in range(total):
            context.report_progress(current=number, total=total, message="a message as they are")
        made.append(counting.take())

    quiet = queue_at(server, prefix=queue.store.objects.prefix)  # type: ignore[attr-defined]
    with worker:
        quiet.submit("report", updates).result(timeout=300)  # submitted and waited for past the proxy
    counts = made[0]
    hour = price(counts) / updates * 1800
    return [
        Figure("progress update", _requests(counts) / updates, "requests", note=_said(counts, updates)),
        Figure("an hour of progress every 2 s", hour, "dollars"),
    ]


def _idle(server: Store, proxy: Proxy, seconds: int, settle_seconds: int) -> list[Figure]:
    queue = queue_at(server, proxy.endpoint)
    worker = oq_nb.Worker(queue)
    worker.task("noop")(lambda value: value)
    with worker:
        time.sleep(settle_seconds)
        counting = _Counting(proxy)
        time.sleep(seconds)
        counts = counting.take()
    note = f"in {seconds} s after {settle_seconds} s without work: {_said(counts, seconds)}"
    return [
        Figure("idle worker", counts["LIST"] / seconds, "LIST/s", note=note),
        Figure("idle worker, a month", price(counts) / seconds * _MONTH_SECONDS, "dollars"),
    ]


def _watching(server: Store, number: int, refreshes: int) -> Figure:
    """Watch that many running tasks, by what every widget and page uses; each refresh meets one that has reported."""
    from oq_nb.model import Progress, Timestamp, transitions
    from oq_nb.queue.poller import TaskPoller

    queue = queue_at(server)
    store = queue.store
    handles = queue.submit_many("job", range(number), timeout_seconds=3600)
    poller = TaskPoller(store)

    def claim(task: oq_nb.Task) -> VersionedTask:
        now = store.clock.stamp()
        return store.move(
            task.snapshot,
            transitions.claim(task.record, now, lease_id=str(uuid.uuid4()), worker_id="w", lease_seconds=3600),
        )

    with ThreadPoolExecutor(16) as pool:
        running = list(pool.map(claim, handles))
        list(pool.map(lambda held: store.index.add(model.lease_key(held.record)), running))
    for held in running:
        poller.ingest(held)
    ids = [held.record.id for held in running]
    poller.refresh(ids)
    objects = store.objects
    total: Counter[str] = Counter()
    for _ in range(refreshes):
        now = store.clock.stamp()
        report = Progress(percent=1, updated_at=Timestamp.of(now))
        lease_id = running[0].record.lease_id
        assert lease_id is not None
        running[0] = store.move(
            running[0], transitions.report(running[0].record, now, lease_id=lease_id, progress=report)
        )
        objects.requests.clear()
        poller.refresh(ids)
        total += objects.requests
    return Figure(
        f"watching {number} running, a refresh",
        price(total) / refreshes * 1e6,
        "dollars/M",
        note=" ".join(f"{n / refreshes:.1f} {kind}" for kind, n in total.items()),
    )


def _upstream(server: Store, proxy: Proxy, tasks: int) -> list[Figure]:
    from bench import throughput

    counting = _Counting(proxy)
    throughput.upstream(server, proxy.endpoint, tasks)
    counts = counting.take()
    return [Figure("buquet: claim to end, a task", _requests(counts) / tasks, "requests", note=_said(counts, tasks))]


def run(
    tasks: int = 200,
    updates: int = 50,
    idle_seconds: int = 120,
    settle_seconds: int = 300,
    watched: int = 1000,
    peer: int = 1,
) -> list[Figure]:
    """Count."""
    with running_store() as server, Proxy(server.endpoint) as proxy:
        figures = _per_task(server, proxy, tasks)
        figures += _per_task(server, proxy, tasks, ", lease entries later", 10)[1:]
        try:
            if not peer:
                raise ImportError
            import buquet  # noqa: F401

            figures += _upstream(server, proxy, max(10, tasks // 4))
        except ImportError:
            pass
        figures += _per_progress_update(server, proxy, updates)
        figures += _idle(server, proxy, idle_seconds, settle_seconds)
        figures += [_watching(server, number, 5) for number in (1, 12, 100, 1000) if number <= watched]
    return figures


if __name__ == "__main__":
    main(TITLE, run, tasks=200, updates=50, idle_seconds=120, settle_seconds=300, watched=1000, peer=1)
