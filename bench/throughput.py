"""Tasks per second of one worker: ours and upstream's on the same SeaweedFS, also with time added to each request."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from datetime import timedelta

import oq_nb
from bench.measure import Figure, Store, compared, interleaved, main, queue_at, running_store, upstream_settings
from bench.proxy import Proxy

TITLE = "Throughput: no-op tasks, one worker, from the start of the worker to the last completion"


def ours(server: Store, endpoint: str, tasks: int, concurrency: int, delay_seconds: float = 0.0) -> float:
    """Return tasks per second of one worker of ours, whose lease entries come so much later than the claim."""
    queue = queue_at(server, endpoint)
    worker = oq_nb.Worker(queue, concurrency=concurrency, lease_entry_delay_seconds=delay_seconds)

    @worker.task("noop")
    def noop(value: int) -> int:
        return value

    queue_at(server, prefix=queue.store.objects.prefix).submit_many("noop", range(tasks))  # type: ignore[attr-defined]
    began = time.perf_counter()
    with worker:
        while worker.tasks_completed < tasks:
            time.sleep(0.01)
        return tasks / (time.perf_counter() - began)


def in_processes(server: Store, endpoint: str, tasks: int, processes: int, concurrency: int) -> float:
    """Return tasks per second of several workers, each a process of its own, from the first end to the last."""
    queue = queue_at(server)
    environment = {
        **os.environ,
        "BENCH_PREFIX": queue.store.objects.prefix,  # type: ignore[attr-defined]
        "BENCH_ENDPOINT": endpoint,
        "BENCH_KEYS": f"{server.access_key}:{server.secret_key}",
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.worker_side", str(concurrency)], env=environment, stdin=subprocess.PIPE
        )
        for _ in range(processes)
    ]
    try:
        for _ in range(processes * 4):  # they are up, as good as certainly all of them
            queue.submit("noop", 0).result(timeout=60)
        begin = queue.now() + timedelta(seconds=2 + tasks / 50)  # all are there when the first one begins
        handles = queue.submit_many("noop", range(tasks), schedule_at=begin)
        oq_nb.wait(handles)
    finally:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        for worker in workers:
            worker.wait(60)
    ends = sorted(held.record.completed_at for held in queue.store.read_many([task.id for task in handles]))  # type: ignore[type-var]
    return (tasks - 1) / (ends[-1] - ends[0]).total_seconds()  # type: ignore[operator]


def upstream(server: Store, endpoint: str, tasks: int) -> float:
    """Return tasks per second of one worker of upstream's, in a process of its own."""
    environment = {
        **os.environ,
        **upstream_settings(server),
        "BENCH_STORE": server.endpoint,
        "BENCH_ENDPOINT": endpoint,
        "BENCH_TASKS": str(tasks),
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.throughput", "--upstream"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return float(done.stdout.split()[-1])


async def _upstream() -> None:
    import buquet

    bucket, tasks = os.environ["BENCH_BUCKET"], int(os.environ["BENCH_TASKS"])
    near = await buquet.connect(bucket=bucket, endpoint=os.environ["BENCH_STORE"], region="us-east-1")
    for start in range(0, tasks, 50):
        await near.submit_many([("noop", {"n": n}) for n in range(start, min(tasks, start + 50))])
    queue = await buquet.connect(bucket=bucket, endpoint=os.environ["BENCH_ENDPOINT"], region="us-east-1")
    worker = buquet.Worker(queue, "bench", queue.all_shards())
    done = asyncio.Event()
    count = 0

    @worker.task("noop")
    async def noop(value: object) -> object:
        nonlocal count
        count += 1
        if count == tasks:
            done.set()
        return value

    began = time.perf_counter()
    running = asyncio.ensure_future(worker.run())
    await done.wait()
    print(tasks / (time.perf_counter() - began), flush=True)
    running.cancel()
    os._exit(0)  # its worker has no stop


def run(
    tasks: int = 300, rounds: int = 5, concurrency: int = 16, delay_ms: int = 25, processes: int = 4
) -> list[Figure]:
    """Measure, directly and through a proxy that adds ``delay_ms``; then with several worker processes.

    The processes of 4 threads wait for the delayed answers most of the time: they show how workers add up, until
    processor and store are used up; the processes of ``concurrency`` threads use them up at once.
    """
    figures: list[Figure] = []
    with running_store() as server, Proxy(server.endpoint, delay_ms / 1000) as proxy:
        for name, endpoint, theirs in (
            ("direct", server.endpoint, tasks),
            (f"+{delay_ms} ms per request", proxy.endpoint, max(20, tasks // 6)),
        ):
            cases = {
                "": lambda endpoint=endpoint: ours(server, endpoint, tasks, concurrency),
                ", lease entries later": lambda endpoint=endpoint: ours(server, endpoint, tasks, concurrency, 10),
            }
            try:
                import buquet  # noqa: F401

                cases["buquet"] = lambda endpoint=endpoint, theirs=theirs: upstream(server, endpoint, theirs)
            except ImportError:
                pass
            values = interleaved(cases, rounds)
            peer = Figure.of(f"buquet, {name}", values["buquet"], "tasks/s") if "buquet" in values else None
            if peer is not None:
                figures.append(peer)
            for how in ("", ", lease entries later"):
                beside = compared(values[how], values["buquet"], "buquet") if peer is not None else {}
                title = f"oq_nb, concurrency {concurrency}, {name}{how}"
                figures.append(Figure.of(title, values[how], "tasks/s", **beside))
        figures += _added_up(server, proxy.endpoint, tasks, 4, sorted({1, 2, processes}), rounds, f", +{delay_ms} ms")
        figures += _added_up(server, server.endpoint, tasks, concurrency, [1, 2], rounds, ", direct")
    return figures


def _added_up(
    server: Store, endpoint: str, tasks: int, concurrency: int, numbers: list[int], rounds: int, how: str
) -> list[Figure]:
    """Measure so many worker processes beside one."""
    cases = {
        str(number): lambda number=number: in_processes(server, endpoint, tasks, number, concurrency)
        for number in numbers
    }
    values = interleaved(cases, rounds)
    figures = []
    for number in numbers:
        made = values[str(number)]
        beside = compared(made, values["1"], "one process") if number > 1 else {}
        name = f"oq_nb, {number} process{'es' if number > 1 else ''} of {concurrency} threads{how}"
        figures.append(Figure.of(name, made, "tasks/s", **beside))
    return figures


if __name__ == "__main__":
    if sys.argv[1:] == ["--upstream"]:
        asyncio.run(_upstream())
    else:
        main(TITLE, run, tasks=300, rounds=5, concurrency=16, delay_ms=25, processes=4)
