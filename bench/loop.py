"""What a bar costs per item over the bare loop: tqdm, rich, ours; with the store up, slow, and gone.

Rounds measure the bare loop, tqdm and ours one after the other; what a round's bare loop took is taken off. Ours are
measured as they are most of their life: from when their task is there (or tried for, when the store is gone), and
written to ten times as often as by default. Beside the time that passes stands the processor time of the loop's own
thread, which a busy machine does not change.
"""

from __future__ import annotations

import io
import logging
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import tqdm.std

import oq_nb
from bench.measure import Figure, compared, main, queue_at, running_store
from bench.proxy import Proxy

TITLE = "Loop: nanoseconds per item over the bare loop"
_PUT_PRICE = 0.005 / 1000  # dollars; S3 Standard, us-east-1


def _generator(n: int) -> Iterator[int]:
    yield from range(n)


@dataclass(frozen=True)
class Cost:
    """Nanoseconds per item: as they pass, and of the processor."""

    wall: float
    cpu: float


class _Timer:
    def __init__(self) -> None:
        self._began = time.perf_counter(), time.thread_time()

    def per_item(self, n: int) -> Cost:
        wall, cpu = time.perf_counter() - self._began[0], time.thread_time() - self._began[1]
        return Cost(wall / n * 1e9, cpu / n * 1e9)


def _cost(loop: Iterable[Any], n: int) -> Cost:
    timer = _Timer()
    for _ in loop:
        pass
    return timer.per_item(n)


def _manual(bar: Any, n: int) -> Cost:
    timer = _Timer()
    update = bar.update
    for _ in range(n):
        update(1)
    cost = timer.per_item(n)
    bar.close()
    return cost


def _ours(bar: Any, n: int, *, is_manual: bool, is_gone: bool) -> Cost:
    """Measure one of ours from when it is a task; what it leaves to the writer is not counted in the next round."""
    loop = bar if is_manual else iter(bar)
    if not is_manual:
        next(loop)
    if not is_gone:
        assert bar.task is not None
    cost = _manual(bar, n) if is_manual else _cost(loop, n)
    if not is_gone:
        bar._sink.wait(10)
    return cost


def _rich(n: int) -> Cost:
    from rich.console import Console
    from rich.progress import track

    return _cost(track(range(n), console=Console(file=io.StringIO(), force_terminal=True), total=n), n)


def run(items: int = 3_000_000, rounds: int = 7, delay_ms: int = 500, seconds: int = 20) -> list[Figure]:
    """Measure in each state of the store, then count requests and memory."""
    logging.getLogger("oq_nb").setLevel(logging.CRITICAL)
    figures: list[Figure] = []
    data = list(range(items))
    sources: dict[str, Callable[[], Iterable[int]]] = {
        "range": lambda: range(items),
        "list": lambda: data,
        "generator": lambda: _generator(items),
    }
    with running_store() as server, Proxy(server.endpoint) as proxy:
        queue = queue_at(server, proxy.endpoint, read_timeout_seconds=2.0)
        options: dict[str, Any] = {"queue": queue, "min_seconds": 0.0, "file": io.StringIO()}
        figures += _requests(proxy, oq_nb.tqdm(range(1 << 40), **options), seconds)
        options["throttle_seconds"] = 0.2
        for state in ("store up", f"store at {delay_ms} ms", "store gone"):
            is_gone = "gone" in state
            proxy.set(delay_seconds=delay_ms / 1000 if "ms" in state else 0.0, answers=not is_gone)
            for name, make in sources.items():
                rows = []
                for _ in range(rounds):
                    bare = _cost(make(), items)
                    theirs = _cost(tqdm.std.tqdm(make(), file=io.StringIO()), items)
                    mine = _ours(oq_nb.tqdm(make(), **options), items, is_manual=False, is_gone=is_gone)
                    rows.append((bare, theirs, mine))
                figures += _compare(f"{name}, {state}", rows)
            rows = []
            for _ in range(rounds):
                bare = _cost(range(items), items)
                theirs = _manual(tqdm.std.tqdm(total=items, file=io.StringIO()), items)
                mine = _ours(oq_nb.tqdm(total=items, **options), items, is_manual=True, is_gone=is_gone)
                rows.append((bare, theirs, mine))
            figures += _compare(f"update(1), {state}", rows)
        proxy.set(answers=True, delay_seconds=0.0)
    rich = [_rich(items).wall - _cost(range(items), items).wall for _ in range(rounds)]
    figures.append(Figure.of("rich.track, range", rich, "ns"))
    figures.append(_memory(data))
    return figures


def _compare(name: str, rows: list[tuple[Cost, Cost, Cost]]) -> list[Figure]:
    mine = [ours.wall - bare.wall for bare, _, ours in rows]
    theirs = [tqdms.wall - bare.wall for bare, tqdms, _ in rows]
    mine_cpu = statistics.median(ours.cpu - bare.cpu for bare, _, ours in rows)
    theirs_cpu = statistics.median(tqdms.cpu - bare.cpu for bare, tqdms, _ in rows)
    note = f"processor: {mine_cpu:.0f} of {theirs_cpu:.0f} ns, {mine_cpu / theirs_cpu:.2f}"
    return [
        Figure.of(name, mine, "ns", note=note, **compared(mine, theirs, "tqdm")),
        Figure.of(f"{name}: tqdm", theirs, "ns"),
    ]


def _requests(proxy: Proxy, bar: Any, seconds: int) -> list[Figure]:
    """Count what a loop whose position changes all the time asks of the store."""
    at_first = proxy.counts()
    began = time.monotonic()
    started: tuple[float, int] | None = None
    for _ in bar:
        time.sleep(0.01)
        now = time.monotonic()
        if started is None and now - began > 1.0:
            started = now, proxy.counts()["PUT"]
        if started is not None and now - started[0] >= seconds:
            passed, puts = now - started[0], proxy.counts()["PUT"] - started[1]
            break
    bar._sink.wait(10)
    at_last = proxy.counts()
    per_hour = puts / passed * 3600
    once = {kind: at_last.get(kind, 0) - at_first.get(kind, 0) for kind in ("PUT", "LIST", "GET", "DELETE")}
    once["PUT"] -= puts
    named = ", ".join(f"{count} {kind}" for kind, count in once.items() if count)
    return [
        Figure("while it runs", per_hour, "PUT/hour", note=f"{per_hour * _PUT_PRICE:.4f} dollars an hour"),
        Figure("its beginning and end", sum(once.values()), "requests", note=named),
    ]


def _memory(data: list[int]) -> Figure:
    """Count the blocks of memory that a loop over a list has taken at its end and not given back."""
    bar = oq_nb.tqdm(data, file=io.StringIO(), queue=None, mininterval=60)
    iterator = iter(bar)
    for _ in range(1000):
        next(iterator)
    before = sys.getallocatedblocks()
    for _ in range(len(data) - 2000):
        next(iterator)
    grown = sys.getallocatedblocks() - before
    return Figure("memory blocks", grown, "blocks", note=f"after {len(data) - 2000:,} items")


if __name__ == "__main__":
    main(TITLE, run, items=3_000_000, rounds=7, delay_ms=500, seconds=20)
