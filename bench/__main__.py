"""All benchmarks, or those that are named: a table for each, and a JSON file.

``python -m bench --quick`` takes half an hour; without ``--quick`` over an hour: a bucket is filled with 100,000 tasks.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from bench.measure import Figure, Report, add_store_option, run_module

#: Module → its arguments in the quick form; in the full one its own defaults.
BENCHMARKS: dict[str, dict[str, int]] = {
    "start": {"rounds": 5},
    "loop": {"items": 1_000_000, "rounds": 5},
    "redraws": {"rounds": 1},
    "transport": {"rounds": 5},
    "functions": {"submissions": 100, "rounds": 5},
    "requests": {"tasks": 100, "updates": 20, "idle_seconds": 40, "settle_seconds": 60, "watched": 1000},
    "idle": {"idle_seconds": 60},
    "submission": {"rounds": 3, "stream": 5000},
    "throughput": {"tasks": 200},
    "latency": {"tasks": 50, "waits": 5},
    "peers": {"tasks": 50},
    "executors": {"cells": 200},
    "processes": {"tasks": 60, "rounds": 3},
    "recovery": {"tasks": 300},
    "watching": {"seconds": 10},
    "ahead": {"fake": 100_000, "entries": 10_000, "foreign": 3000},
    "growth": {"smallest": 100, "steps": 2, "rounds": 5, "settle_seconds": 30},
    "scale": {"most_workers": 100},
}


def run(names: list[str], *, quick: bool, save: str | None) -> list[Figure]:
    """Run some benchmarks, each in a process of its own; one that fails does not keep the others from it."""
    report = Report(save, form="quick" if quick else "full")
    for name in names:
        began = time.monotonic()
        try:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                title, figures = process.submit(run_module, name, BENCHMARKS[name] if quick else {}).result()
        except Exception:
            traceback.print_exc()
            report.failed(name)
            continue
        report.add(name, title, figures, time.monotonic() - began)
    return report.figures


def main() -> int:
    """Be the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all when none is given")
    parser.add_argument("--quick", action="store_true", help="half an hour instead of well over one")
    parser.add_argument("--json", metavar="FILE", default="bench.json", help="default %(default)s")
    add_store_option(parser)
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    run(arguments.names or list(BENCHMARKS), quick=arguments.quick, save=arguments.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
