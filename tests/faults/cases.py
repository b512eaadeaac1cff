"""Run a scenario with faults at chosen requests, let fresh workers run, and tell what does not hold."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from faults.failures import FAULTS, happens
from faults.promises import check
from faults.scenarios import SCENARIOS
from faults.simulation import Fault, World, running
from faults.stories import in_words, what_differs, what_differs_when_calm

#: Requests of the last workers, when all has ended already.
TIDY_REQUESTS = 2


@dataclass(frozen=True)
class Case:
    """One run: a scenario, which fault strikes at which request, and how index entries are kept (see `World`)."""

    scenario: str
    faults: tuple[tuple[int, str], ...] = ()
    entries: str = "beside"

    def __str__(self) -> str:
        struck = ", then ".join(f"{fault!r} at #{number}" for number, fault in self.faults)
        return f"{self.scenario}, entries {self.entries}: {struck or 'no fault'}"


@dataclass(frozen=True)
class Struck:
    """One case of many: the fault, what sort of request it struck, and what did not hold."""

    fault: str
    request: str
    told: list[str]


def run(case: Case) -> World:
    """Run a case to its end; `World.violations` says what does not hold."""
    faults: dict[int, Fault] = {number: FAULTS[name] for number, name in case.faults}
    world = World(faults, entries=case.entries)
    with running(world):
        SCENARIOS[case.scenario](world)
        world.end_scenario()
        world.settle()
    check(world)
    return world


def each_single(scenario: str, *, entries: str = "beside", faults: Iterable[str] = FAULTS) -> Iterator[Struck]:
    """Run a scenario with each fault at each of its requests, those of the fresh workers too."""
    calm = run(Case(scenario, entries=entries))
    differing = what_differs_when_calm(scenario, calm) if entries == "beside" else []
    yield Struck("no fault", "", [f"{Case(scenario, entries=entries)}: {what}" for what in calm.violations + differing])
    for number, request in enumerate(calm.requests):
        for name in faults:
            if not happens(name, scenario, request):
                continue
            case = Case(scenario, ((number, name),), entries)
            world = run(case)
            told = world.violations + what_differs(scenario, world, (name,))
            if world.faults:
                told.append("the fault did not strike")
            yield Struck(name, request.sort, [f"{case} ({request}): {what}" for what in told])


def run_all_single(
    scenario: str, *, entries: str = "beside", faults: Iterable[str] = FAULTS
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Run all of `each_single`; return the number of cases by fault and sort of request, and what did not hold."""
    counts: Counter[tuple[str, str]] = Counter()
    found: list[str] = []
    for struck in each_single(scenario, entries=entries, faults=faults):
        counts[struck.fault, struck.request] += 1
        found += struck.told
    return counts, found


#: Faults that are combined in pairs: one of each sort.
PAIRED = (
    "dies before",
    "dies after it was applied",
    "answer lost",
    "every answer lost",
    "arrives late",
    "outage of a minute",
    "rival cancels",
    "rival runs the task",
    "rival claims and dies",
    "rival takes over",
    "rival holds it",
    "sleeps before",
    "sleeps after",
)


def run_all_pairs(
    scenario: str, faults: tuple[str, ...] = PAIRED, *, reach: int = 1000, entries: str = "beside"
) -> tuple[Counter[str], list[str]]:
    """Run a scenario with each pair of faults at each pair of requests, the second one up to ``reach`` later.

    The second request is counted in the run with the first fault, so that fresh workers and further tries are struck.

    Returns:
        The number of cases by the first fault, and what did not hold.
    """
    calm = run(Case(scenario, entries=entries))
    counts: Counter[str] = Counter()
    found: list[str] = []
    for first in range(calm.scenario_requests):
        for name in faults:
            alone = run(Case(scenario, ((first, name),), entries))
            end = min(len(alone.requests) - TIDY_REQUESTS, first + 1 + reach)
            for second in range(first + 1, end):
                for other in faults:
                    case = Case(scenario, ((first, name), (second, other)), entries)
                    world = run(case)
                    if is_known_gap(world, case):
                        counts[
                            "(known gap: stood still while it sent a new task, and died before its next request)"
                        ] += 1
                        continue
                    counts[name] += 1
                    told = world.violations + (["a fault did not strike"] if world.faults else [])
                    found += [f"{case}: {what}" for what in told]
    return counts, found


def is_known_gap(world: World, case: Case) -> bool:
    """Return whether a run shows the one gap that `docs/evidence/guarantees.md` names, and nothing else.

    A process stands still for longer than entries are kept, between its last look at the clock and the sending of a
    task with a fresh entry; and it dies, or loses the store, before its next request, which would renew the entry.
    """
    (first, name), (second, other) = case.faults
    sent = world.requests[first]
    return (
        name == "sleeps before"
        and (sent.kind, sent.key[:6]) == ("PUT", "tasks/")
        and second == first + 1
        and world.requests[second].process == sent.process
        and other in ("dies before", "outage of a minute")
        and all("no entry leads to" in what or "never ended" in what for what in world.violations)
    )


def main(arguments: list[str]) -> None:
    """Run one case again and print it: ``PYTHONPATH=.:tests python -m faults.cases STORY FAULT NUMBER [entries]``."""
    scenario, fault, number = arguments[:3]
    world = run(Case(scenario, ((int(number), fault),), *arguments[3:]))
    for request in world.requests:
        print(request)
    for versions in world.versions_of_tasks().values():
        print(in_words(versions))
    for what in (*world.errors, *world.violations, *what_differs(scenario, world, (fault,))):
        print(what)


if __name__ == "__main__":
    main(sys.argv[1:])
