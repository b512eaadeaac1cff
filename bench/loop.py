"""What a bar costs per item over the bare loop: tqdm, rich, ours; with the store up, slow, and gone."""

from __future__ import annotations

import io
import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tqdm.std

import oq_nb
from bench.measure import Figure, main, queue_at, seaweedfs
from bench.proxy import Proxy

TITLE = "Loop: nanoseconds per item over the bare loop"


def _generator(n: int) -> Iterator[int]:
    yield from range(n)


def _cost(loop: Iterable[Any], n: int) -> float:
    began = time.perf_counter()
    for _ in loop:
        pass
    return (time.perf_counter() - began) / n * 1e9


def _manual(bar: Any, n: int) -> float:
    began = time.perf_counter()
    update = bar.update
    for _ in range(n):
        update(1)
    passed = time.perf_counter() - began
    bar.close()
    return passed / n * 1e9


def _rich(n: int) -> float:
    from rich.console import Console
    from rich.progress import track

    return _cost(track(range(n), console=Console(file=io.StringIO(), force_terminal=True), total=n), n)


def run(items: int = 3_000_000, rounds: int = 7, delay_ms: int = 500) -> list[Figure]:
    """Measure in each state of the store; each loop outlives the second after which it becomes a task where it can."""
    logging.getLogger("oq_nb").setLevel(logging.CRITICAL)
    figures: list[Figure] = []
    data = list(range(items))
    sources: dict[str, Callable[[], Iterable[int]]] = {
        "range": lambda: range(items),
        "list": lambda: data,
        "generator": lambda: _generator(items),
    }
    with seaweedfs() as server, Proxy(server.endpoint) as proxy:
        queue = queue_at(server, proxy.endpoint, read_timeout_seconds=2.0)
        for state in ("store up", f"store at {delay_ms} ms", "store gone"):
            proxy.set(delay_seconds=delay_ms / 1000 if "ms" in state else 0.0, answers="gone" not in state)
            options: dict[str, Any] = {"queue": queue, "min_seconds": 0.0, "throttle_seconds": 2.0}
            for name, make in sources.items():
                rows = [
                    (
                        _cost(make(), items),
                        _cost(tqdm.std.tqdm(make(), file=io.StringIO()), items),
                        _cost(oq_nb.tqdm(make(), file=io.StringIO(), **options), items),
                    )
                    for _ in range(rounds)
                ]
                figures += _compare(f"{name}, {state}", rows)
            manual = [
                (
                    _cost(range(items), items),
                    _manual(tqdm.std.tqdm(total=items, file=io.StringIO()), items),
                    _manual(oq_nb.tqdm(total=items, file=io.StringIO(), **options), items),
                )
                for _ in range(rounds)
            ]
            figures += _compare(f"update(1), {state}", manual)
        proxy.set(answers=True, delay_seconds=0.0)
    bare = [_cost(range(items), items) for _ in range(3)]
    slow = [_rich(items) - statistics.median(bare) for _ in range(3)]
    figures.append(Figure.of("rich.track, range", slow, "ns"))
    return figures


def _compare(name: str, rows: list[tuple[float, float, float]]) -> list[Figure]:
    bare, theirs, mine = (statistics.median(column) for column in zip(*rows, strict=True))
    ours = Figure.of(name, [row[2] - bare for row in rows], "ns", against="tqdm", ratio=(mine - bare) / (theirs - bare))
    return [ours, Figure.of(f"{name}: tqdm", [row[1] - bare for row in rows], "ns")]


if __name__ == "__main__":
    main(TITLE, run, items=3_000_000, rounds=7, delay_ms=500)
