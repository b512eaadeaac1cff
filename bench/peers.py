"""Submission, completion and latency of no-op tasks: ours beside upstream's, RQ, Huey, Celery, Dask, as users run them.

Upstream (``buquet``) keeps tasks in a bucket as we do, on the same server, and is taken from this Python; the others
keep theirs in memory (Redis, a scheduler) and are taken from the Python that ``BENCH_PEERS_PYTHON`` names (``python
-m venv V && V/bin/pip install rq huey celery redis distributed``), else from this one; Redis from ``redis-server`` on
the path. A peer that is not there is left out.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import oq_nb
from bench.measure import Figure, Store, compared, main, queue_at, running_store, upstream_settings

__all__ = ["TITLE", "run"]

TITLE = "Peers: no-op tasks, submitted one by one while a worker runs"

_PEERS = ("huey", "celery", "dask", "rq")
_SIDE = Path(__file__).with_name("peer_side.py")
_LATENCY_RUNS = 20


def ours(server: Store, tasks: int) -> dict[str, float]:
    """Measure as `peer_side` does, with the worker in a process of its own."""
    queue = queue_at(server)
    prefix = queue.store.objects.prefix  # type: ignore[attr-defined]
    environment = {
        **os.environ,
        "BENCH_PREFIX": prefix,
        "BENCH_ENDPOINT": server.endpoint,
        "BENCH_KEYS": f"{server.access_key}:{server.secret_key}",
    }
    worker = subprocess.Popen([sys.executable, "-m", "bench.worker_side"], env=environment, stdin=subprocess.PIPE)
    try:
        queue.submit("noop", 0).result(timeout=60)
        began = time.perf_counter()
        handles = [queue.submit("noop", number) for number in range(tasks)]
        submitted = time.perf_counter()
        oq_nb.wait(handles)
        ended = time.perf_counter()
        waits = []
        for number in range(_LATENCY_RUNS):
            start = time.perf_counter()
            queue.submit("noop", number).result(timeout=60)
            waits.append(time.perf_counter() - start)
    finally:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.wait(30)
    return {
        "submits": tasks / (submitted - began),
        "tasks": tasks / (ended - began),
        "latency_ms": statistics.median(waits) * 1000,
    }


@contextmanager
def _redis() -> Iterator[str | None]:
    """A Redis server of this run; None where there is none to be had."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="oq-bench-redis-") as directory:
        process = subprocess.Popen(
            [program, "--port", str(port), "--dir", directory, "--save", ""],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_for(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("redis-server does not answer")


def _peer(name: str, tasks: int, settings: dict[str, str], python: str) -> dict[str, float]:
    environment = {**os.environ, **settings, "BENCH_PEER": name}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, str(_SIDE), name, str(tasks)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(tasks: int = 200, rounds: int = 5) -> list[Figure]:
    """Measure in turns."""
    found: dict[str, list[dict[str, float]]] = {}
    with running_store() as server, _redis() as redis:
        cases: dict[str, Callable[[], dict[str, float]]] = {
            "oq_nb": lambda: ours(server, tasks),
            "buquet": lambda: _peer("buquet", tasks, upstream_settings(server), sys.executable),
        }
        settings, python = {"BENCH_REDIS_URL": redis or ""}, os.environ.get("BENCH_PEERS_PYTHON", sys.executable)
        for name in _PEERS if redis else ("dask",):
            cases[name] = lambda name=name: _peer(name, tasks, settings, python)  # type: ignore[misc]
        for number in range(rounds):
            for name, case in list(cases.items()):
                try:
                    found.setdefault(name, []).append(case())
                except RuntimeError as exc:
                    if number:
                        raise
                    del cases[name], found[name]
                    print(f"left out: {str(exc).splitlines()[-1][:200]}", file=sys.stderr)
    figures = []
    for key, what, unit in (
        ("submits", "submitted", "tasks/s"),
        ("tasks", "submitted and completed", "tasks/s"),
        ("latency_ms", "one task, submission to result", "ms"),
    ):
        mine = [row[key] for row in found["oq_nb"]]
        for name, rows in found.items():
            made = [row[key] for row in rows]
            beside = compared(mine, made, "oq_nb over this") if name != "oq_nb" else {}
            figures.append(Figure.of(f"{what}: {name}", made, unit, **beside))
    return figures


if __name__ == "__main__":
    main(TITLE, run, tasks=200, rounds=5)
