"""The peers' side of `bench.peers`: runs under the Python that has them, imports nothing of ours, prints JSON.

``python bench/peer_side.py rq TASKS``; also huey, celery, dask (no server of its own), buquet. Redis is at
``BENCH_REDIS_URL``, buquet's bucket is ``BENCH_BUCKET`` at ``BENCH_ENDPOINT``.
"""

from __future__ import annotations

import asyncio
import json
import operator
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LATENCY_RUNS = 20
_HERE = Path(__file__).resolve().parent
_BIN = Path(sys.executable).parent
_REDIS = os.environ.get("BENCH_REDIS_URL", "redis://127.0.0.1:6379/0")

if os.environ.get("BENCH_PEER") == "celery":
    from celery import Celery

    app = Celery("peer_side", broker=_REDIS, backend=_REDIS)
    app.conf.broker_connection_retry_on_startup = True

    @app.task(name="noop")
    def noop(value: int) -> int:
        return -value
elif os.environ.get("BENCH_PEER") == "huey":
    from huey import RedisHuey

    huey = RedisHuey("bench", url=_REDIS)
    noop = huey.task()(lambda value: -value)


@contextmanager
def _worker(*command: str) -> Any:
    """A worker process of a peer, as its users start it."""
    process = subprocess.Popen(
        [str(_BIN / command[0]), *command[1:]], cwd=_HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(20)


def _measure(submit: Callable[[int], Any], result: Callable[[Any], Any], tasks: int) -> dict[str, float]:
    """Let a started worker run one task, then many, then one after the other."""
    result(submit(0))
    began = time.perf_counter()
    handles = [submit(number) for number in range(tasks)]
    submitted = time.perf_counter()
    for handle in handles:
        result(handle)
    ended = time.perf_counter()
    waits = []
    for number in range(_LATENCY_RUNS):
        start = time.perf_counter()
        result(submit(number))
        waits.append(time.perf_counter() - start)
    return {
        "submits": tasks / (submitted - began),
        "tasks": tasks / (ended - began),
        "latency_ms": statistics.median(waits) * 1000,
    }


def _poll(is_done: Callable[[], bool]) -> None:
    while not is_done():
        time.sleep(0.001)


def rq(tasks: int) -> dict[str, float]:
    from redis import Redis
    from rq import Queue

    queue = Queue("bench", connection=Redis.from_url(_REDIS))
    with _worker("rq", "worker", "bench", "--url", _REDIS):
        return _measure(
            lambda n: queue.enqueue(operator.neg, n),
            lambda job: _poll(lambda: job.get_status() in ("finished", "failed")),
            tasks,
        )


def huey_(tasks: int) -> dict[str, float]:
    import peer_side

    with _worker("huey_consumer", "peer_side.huey", "-w", "16", "-k", "thread"):
        return _measure(peer_side.noop, lambda handle: handle.get(blocking=True, timeout=60), tasks)


def celery(tasks: int) -> dict[str, float]:
    import peer_side

    with _worker("celery", "-A", "peer_side", "worker", "--loglevel=error"):
        return _measure(peer_side.noop.delay, lambda handle: handle.get(timeout=60), tasks)


def dask(tasks: int) -> dict[str, float]:
    from distributed import Client

    with Client(dashboard_address=":0", silence_logs=50) as client:
        return _measure(
            lambda n: client.submit(operator.neg, n, pure=False), lambda future: future.result(timeout=60), tasks
        )


async def _connect() -> Any:
    import buquet

    bucket, endpoint = os.environ["BENCH_BUCKET"], os.environ["BENCH_ENDPOINT"]
    return await buquet.connect(bucket=bucket, endpoint=endpoint, region="us-east-1")


def buquet(tasks: int) -> dict[str, float]:
    loop = asyncio.new_event_loop()
    queue = loop.run_until_complete(_connect())

    async def submit(number: int) -> Any:
        return await queue.submit("noop", {"n": number})

    async def result(task: Any) -> None:
        while (await queue.get(task.id)).completed_at is None:
            await asyncio.sleep(0.01)

    with _worker("python", str(Path(__file__)), "buquet-worker"):
        return _measure(
            lambda n: loop.run_until_complete(submit(n)), lambda task: loop.run_until_complete(result(task)), tasks
        )


async def _work_for_buquet() -> None:
    import buquet

    queue = await _connect()
    worker = buquet.Worker(queue, "bench", queue.all_shards())

    @worker.task("noop")
    async def noop(value: object) -> object:
        return value

    await worker.run()


if __name__ == "__main__":
    sys.path.insert(0, str(_HERE))
    if sys.argv[1] == "buquet-worker":
        asyncio.run(_work_for_buquet())
    else:
        measure = {"rq": rq, "huey": huey_, "celery": celery, "dask": dask, "buquet": buquet}[sys.argv[1]]
        print(json.dumps(measure(int(sys.argv[2]))), flush=True)
