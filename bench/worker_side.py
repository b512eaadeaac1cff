"""A worker in a process of its own, for benchmarks: runs ``noop`` tasks until its standard input ends."""

from __future__ import annotations

import os
import sys

import oq_nb


def work(concurrency: int) -> None:
    access_key, secret_key = os.environ["BENCH_KEYS"].split(":")
    queue = oq_nb.connect(
        "oq-bench",
        endpoint=os.environ["BENCH_ENDPOINT"],
        prefix=os.environ["BENCH_PREFIX"],
        access_key=access_key,
        secret_key=secret_key,
    )
    worker = oq_nb.Worker(queue, concurrency=concurrency)

    @worker.task("noop")
    def noop(value: int) -> int:
        return value

    with worker:
        sys.stdin.read()


if __name__ == "__main__":
    work(int(sys.argv[1]) if len(sys.argv) > 1 else 16)
