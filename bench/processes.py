"""CPU-bound tasks in processes: ours beside `concurrent.futures.ProcessPoolExecutor` and Dask's local cluster."""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor

import oq_nb
from bench.measure import Figure, compared, interleaved, main, queue_at, running_store

TITLE = "CPU-bound tasks in processes, from the first submission to the last result; processes are up before"


def spin(milliseconds: int) -> int:
    """Use so much processor time."""
    end = time.process_time() + milliseconds / 1000
    count = 0
    while time.process_time() < end:
        count += sum(range(200))
    return count


def run(tasks: int = 100, milliseconds: int = 50, rounds: int = 3, processes: int = 0) -> list[Figure]:
    """Measure.

    Args:
        tasks: of each round.
        milliseconds: of processor time for each task.
        rounds: of the comparison.
        processes: how many; 0: as many as there are processors.
    """
    count = processes or os.cpu_count() or 2
    cases = {}
    with running_store() as server, ProcessPoolExecutor(count) as pool:
        queue = queue_at(server)
        worker = oq_nb.Worker(queue, executor="processes", concurrency=count)
        worker.task("spin")(spin)

        def ours() -> float:
            began = time.perf_counter()
            oq_nb.wait(queue.submit_many("spin", [milliseconds] * tasks), progress=False)
            return time.perf_counter() - began

        def plain() -> float:
            began = time.perf_counter()
            list(pool.map(spin, [milliseconds] * tasks))
            return time.perf_counter() - began

        cases = {"ours": ours, "ProcessPoolExecutor": plain}
        client = _dask(count)
        if client is not None:

            def dask() -> float:
                began = time.perf_counter()
                client.gather([client.submit(spin, milliseconds, pure=False) for _ in range(tasks)])
                return time.perf_counter() - began

            cases["Dask"] = dask
        try:
            with worker:
                for case in cases.values():
                    case()
                values = interleaved(cases, rounds)
        finally:
            if client is not None:
                client.close()
                client.cluster.close()
    figures = []
    for name, times in values.items():
        overhead = [(seconds * count / tasks) * 1000 - milliseconds for seconds in times]
        beside = {} if name == "ours" else compared(values["ours"], times, name)
        rate = f"{tasks / sorted(times)[len(times) // 2]:.1f} tasks/s"
        figures.append(
            Figure.of(f"{name}: overhead a task", overhead, "ms", note=f"{rate}, {count} processes", **beside)
        )
    return figures


def _dask(count: int) -> object | None:
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        return None
    return Client(LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None, silence_logs=50))  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main(TITLE, run, tasks=100, milliseconds=50, rounds=3, processes=0)
