"""When a bar is drawn, and what tqdm's ``miniters`` is then: tqdm and ours side by side, in real time.

Each scenario is a loop whose items take so long; both classes run it one after the other, several rounds. What is
counted: redraws, the longest pause without one, ``miniters`` in the middle and at the end.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import tqdm.std

import oq_nb
from bench.measure import Figure, main

__all__ = ["SCENARIOS", "TITLE", "Drawn", "observe", "run"]

TITLE = "Redraws: tqdm beside ours (longest pause in seconds; redraws and miniters in the note)"


@dataclass(frozen=True)
class Scenario:
    """A loop.

    Args:
        name: what happens in it.
        seconds: of each item, in order.
        options: of the bar.
    """

    name: str
    seconds: list[float]
    options: dict[str, Any]


def _scenarios() -> list[Scenario]:
    return [
        Scenario("15 quick items, then 0.5 s each", [0.0] * 15 + [0.5] * 12, {}),
        Scenario("400 items of 1 ms, then 0.5 s each", [0.001] * 400 + [0.5] * 8, {}),
        Scenario("5 items of 0.5 s, then 0.1 ms each", [0.5] * 5 + [0.0001] * 10_000, {}),
        Scenario("2,000 items of 1 ms", [0.001] * 2000, {}),
        Scenario("10 items of 0.3 s", [0.3] * 10, {}),
        Scenario("15 quick items, then 0.5 s each, mininterval=1", [0.0] * 15 + [0.5] * 12, {"mininterval": 1.0}),
        Scenario("15 quick items, then 0.5 s each, smoothing=0", [0.0] * 15 + [0.5] * 12, {"smoothing": 0}),
    ]


SCENARIOS = _scenarios()


@dataclass(frozen=True)
class Drawn:
    """What a bar did: how often it was drawn, the longest pause, ``miniters`` at its middle item and at the last."""

    redraws: int
    longest_pause: float
    miniters_midway: float
    miniters: float


class _Frames(io.StringIO):
    """Notes when something is drawn; what is drawn within a millisecond is one redraw."""

    def __init__(self) -> None:
        super().__init__()
        self.times: list[float] = []

    def write(self, text: str) -> int:
        now = time.perf_counter()
        if not self.times or now - self.times[-1] > 0.001:
            self.times.append(now)
        return len(text)


def observe(make: Callable[..., Any], scenario: Scenario) -> Drawn:
    """Run a scenario with a bar class."""
    file = _Frames()
    bar = make(scenario.seconds, file=file, **scenario.options)
    began = time.perf_counter()
    midway = last = 0.0
    for position, seconds in enumerate(_loop(bar)):
        if position == len(scenario.seconds) * 3 // 4:
            midway = bar.miniters
        last = bar.miniters
        if seconds:
            time.sleep(seconds)
    ended = time.perf_counter()
    times = [began, *[at for at in file.times if at <= ended], ended]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    return Drawn(len(file.times), max(pauses), float(midway), float(last))


def _loop(bar: Any) -> Iterator[float]:
    yield from bar


def run(rounds: int = 3) -> list[Figure]:
    """Run every scenario with both classes."""
    figures = []
    for scenario in SCENARIOS:
        theirs, ours = [], []
        for _ in range(rounds):
            theirs.append(observe(tqdm.std.tqdm, scenario))
            ours.append(observe(lambda *args, **options: oq_nb.tqdm(*args, queue=None, **options), scenario))
        for name, made in (("tqdm", theirs), ("ours", ours)):
            redraws = statistics.median(drawn.redraws for drawn in made)
            midway = statistics.median(drawn.miniters_midway for drawn in made)
            last = statistics.median(drawn.miniters for drawn in made)
            note = f"{redraws:g} redraws; miniters {midway:.3g} at three quarters, {last:.3g} at the end"
            figures.append(Figure.of(f"{scenario.name}: {name}", [d.longest_pause for d in made], "s", note=note))
    return figures


if __name__ == "__main__":
    main(TITLE, run, rounds=3)
