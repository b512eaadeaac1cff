"""Submission beside upstream: 1,000 by `submit_many`, 1,000 at once there; memory; another `connect()`."""

from __future__ import annotations

import gc
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from bench.measure import Figure, compared, interleaved, main, queue_at, running_store, upstream_settings
from bench.proxy import Proxy

TITLE = "Submission"

_CONNECT = 'connect(bucket=os.environ["BENCH_BUCKET"], endpoint=os.environ["BENCH_ENDPOINT"], region="us-east-1")'
_UPSTREAM = f"""
import asyncio, os, sys, time, buquet

async def main(tasks):
    queue = await buquet.{_CONNECT}
    await queue.submit("noop", {{"n": 0}})
    began, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(queue.submit("noop", {{"n": number}}) for number in range(tasks)))
    print(tasks / (time.perf_counter() - began), (time.process_time() - busy) / tasks * 1000)

asyncio.run(main(int(sys.argv[1])))
"""
_OURS = f"""
import os, sys, time, oq_nb

queue, tasks = oq_nb.{_CONNECT}, int(sys.argv[1])
queue.submit("noop", {{"n": 0}})
began, busy = time.perf_counter(), time.process_time()
queue.submit_many("noop", [{{"n": number}} for number in range(tasks)])
print(tasks / (time.perf_counter() - began), (time.process_time() - busy) / tasks * 1000)
"""
_STREAM = f"""
import os, sys, oq_nb
from bench.measure import peak_memory_mb

queue, tasks = oq_nb.{_CONNECT}, int(sys.argv[1])
for task in queue.submit_iter("noop", ("x" * 1000 for _ in range(tasks))):
    pass
print(peak_memory_mb())
"""


def _in_a_process(program: str, tasks: int, settings: dict[str, str]) -> list[float]:
    told = subprocess.run(
        [sys.executable, "-c", program, str(tasks)],
        env=os.environ | settings,
        check=True,
        capture_output=True,
        text=True,
        timeout=1200,
    )
    return [float(word) for word in told.stdout.split()]


class _Upstream:
    """Upstream's client: now and then a process of it with very many requests at once is aborted, and run again."""

    def __init__(self) -> None:
        self.aborted = 0

    def run(self, tasks: int, settings: dict[str, str]) -> list[float]:
        """Submit so many tasks in a process of its own; up to five times."""
        for _ in range(4):
            try:
                return _in_a_process(_UPSTREAM, tasks, settings)
            except subprocess.CalledProcessError as exc:
                if exc.returncode != -signal.SIGABRT:
                    raise
                self.aborted += 1
        return _in_a_process(_UPSTREAM, tasks, settings)


def _beside_upstream(settings: dict[str, str], tasks: int, rounds: int, where: str) -> list[Figure]:
    busy: dict[str, list[float]] = {"ours": [], "buquet": []}
    upstream = _Upstream()

    def ours() -> float:
        rate, milliseconds = _in_a_process(_OURS, tasks, settings)
        busy["ours"].append(milliseconds)
        return rate

    def theirs() -> float:
        rate, milliseconds = upstream.run(tasks, settings)
        busy["buquet"].append(milliseconds)
        return rate

    cases = {"ours": ours, "buquet": theirs}
    try:
        upstream.run(1, settings)
    except subprocess.CalledProcessError as exc:  # it does not work with every store
        said = (exc.stderr.strip() or str(exc)).splitlines()[-1]
        print(f"left out: buquet: {said[:200]}", file=sys.stderr)
        del cases["buquet"], busy["buquet"]
    values = interleaved(cases, rounds)
    notes = {name: f"{statistics.median(times):.2f} ms of processor time a task" for name, times in busy.items()}
    beside = compared(values["ours"], values["buquet"], "buquet") if "buquet" in cases else {}
    figures = [Figure.of(f"submit_many of {tasks:,}{where}", values["ours"], "tasks/s", note=notes["ours"], **beside)]
    if "buquet" in cases:
        if upstream.aborted:
            notes["buquet"] += f"; aborted {upstream.aborted} times beside these {rounds} rounds"
        name = f"buquet, {tasks:,} at once{where}"
        figures.append(Figure.of(name, values["buquet"], "tasks/s", note=notes["buquet"]))
    return figures


def _resident_mb() -> float:
    if Path("/proc/self/statm").exists():
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _second_connect(connect: object, count: int = 20) -> list[Figure]:
    kept = [connect() for _ in range(3)]  # type: ignore[operator]
    gc.collect()
    before, times = _resident_mb(), []
    for _ in range(count):
        busy = time.process_time()
        kept.append(connect())  # type: ignore[operator]
        times.append((time.process_time() - busy) * 1000)
    gc.collect()
    return [
        Figure.of("a further connect() to the same place", times, "ms", note="processor time"),
        Figure("its memory", (_resident_mb() - before) / count, "MB"),
    ]


def run(tasks: int = 1000, rounds: int = 5, stream: int = 20_000) -> list[Figure]:
    """Measure.

    Args:
        tasks: of each submission.
        rounds: of each comparison.
        stream: tasks of the longer stream; the shorter one has a tenth.
    """
    with running_store() as server, Proxy(server.endpoint, delay_seconds=0.025) as slow:
        figures = _second_connect(lambda: queue_at(server))
        settings = upstream_settings(server)
        figures += _beside_upstream(settings, tasks, rounds, "")
        far = settings | {"BENCH_ENDPOINT": slow.endpoint}
        for every, where in ((0, ", 25 ms added to each request"), (100, ", 25 ms added, 250 ms to every 100th")):
            slow.set(slow_every=every)
            try:
                figures += _beside_upstream(far, tasks, rounds, where)
            except subprocess.CalledProcessError as exc:  # upstream's client was aborted each time
                rates = [_in_a_process(_OURS, tasks, far)[0] for _ in range(rounds)]
                note = f"a client's process ended with {exc.returncode}"
                figures.append(Figure.of(f"submit_many of {tasks:,}{where}", rates, "tasks/s", note=note))
        if stream:
            few, many = (_in_a_process(_STREAM, count, settings)[0] for count in (stream // 10, stream))
            note = f"{few:.0f} MB with {stream // 10:,}"
            figures.append(Figure(f"submit_iter of {stream:,}, whole process", many, "MB", note=note))
    return figures


if __name__ == "__main__":
    main(TITLE, run, tasks=1000, rounds=5, stream=20_000)
