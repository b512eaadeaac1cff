"""How far two runs of the benchmarks agree: ``python -m bench.compare FIRST.json SECOND.json``.

Two figures agree when they are no farther apart than their spreads together. Ratios are what counts: times are those of
the machine, which is another one an hour later. The command fails when ratios are apart.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench.measure import Figure

__all__ = ["apart", "read"]


def read(path: Path) -> dict[str, Figure]:
    """Return the figures of a run, by benchmark and name."""
    benchmarks: dict[str, Any] = json.loads(path.read_text())["benchmarks"]
    return {
        f"{benchmark}: {figure['name']}": Figure(**figure)
        for benchmark, told in benchmarks.items()
        for figure in told.get("figures", ())
    }


def apart(one: float, its_spread: float, other: float, others_spread: float) -> bool:
    """Return whether two figures are farther apart than their spreads together."""
    return abs(one - other) > abs(one) * its_spread + abs(other) * others_spread


def _ratios(one: Figure, other: Figure) -> tuple[float, float, float, float] | None:
    if not (one.ratio and other.ratio and one.ratio_spread and other.ratio_spread):
        return None
    return one.ratio, one.ratio_spread, other.ratio, other.ratio_spread


def _values(one: Figure, other: Figure) -> tuple[float, float, float, float] | None:
    return (one.value, one.spread, other.value, other.spread) if one.spread and other.spread else None


def _counts(one: Figure, other: Figure) -> tuple[float, float, float, float] | None:
    return None if one.spread or other.spread else (_shown(one.value), 0.0, _shown(other.value), 0.0)


def _shown(value: float) -> float:
    return float(f"{value:.4g}")


def main(arguments: list[str] | None = None) -> int:
    """Be the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, metavar="FIRST.json")
    parser.add_argument("second", type=Path, metavar="SECOND.json")
    given = parser.parse_args(arguments)
    try:
        first, second = read(given.first), read(given.second)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        parser.error(f"not the file of a run: {exc}")
    both = [(name, first[name], second[name]) for name in first if name in second]
    bad = {}
    for kind, pick in (("ratios", _ratios), ("times and rates", _values), ("figures of a single round", _counts)):
        found = [(name, pair) for name, one, other in both if (pair := pick(one, other)) is not None]
        bad[kind] = [(name, pair) for name, pair in found if apart(*pair)]
        how = "are equal" if kind.startswith("figures") else "agree within their spreads"
        print(f"{len(found) - len(bad[kind])} of {len(found)} {kind} {how}")
        for name, (one_value, its, other_value, others) in bad[kind]:
            spreads = f" (±{its:.0%}, ±{others:.0%})" if its else ""
            print(f"  {name}: {one_value:.4g} and {other_value:.4g}{spreads}")
    return 1 if bad["ratios"] else 0


if __name__ == "__main__":
    sys.exit(main())
