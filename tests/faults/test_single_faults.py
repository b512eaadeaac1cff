"""Every request of every scenario fails once, in every way: nothing is lost, nothing is done under an old lease."""

from __future__ import annotations

import pytest
from faults.cases import Case, run, run_all_single
from faults.failures import FAULTS, happens
from faults.promises import check
from faults.refusals import FOR_GOOD
from faults.scenarios import SCENARIOS, submit
from faults.simulation import LEASE_SECONDS, World, running

from oq_nb.s3.clock import Clock

#: Faults that are handled as another one is: they strike a few stories, or only where entries are kept as usual.
ALIKE_FOR_GOOD = tuple(
    f"{name} for good"
    for name in ("SignatureDoesNotMatch", "RequestTimeTooSkewed", "NoSuchBucket", "wrong region", "429")
)
ALIKE = (
    *(f"{name} once" for name in ("AccessDenied", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "wrong region")),
    *("redirect once", "TLS failure once", "NoSuchBucket once", "no credentials for a minute"),
    *("429", "RequestTimeout after it was applied"),
)
A_FEW = ("submit", "claim and complete", "cancel while pending", "idempotent submit", "tracked loop")
#: Stories in which it makes no difference how entries are kept.
AS_USUAL = (
    *("hinted", "waits an hour", "fail after throttled progress", "without renewal"),
    *("beside an idle worker", "claimed by an old listing"),
)
HOW = [
    (name, how) for how in ("beside", "around", "late") for name in SCENARIOS if how == "beside" or name not in AS_USUAL
]


def faults_for(scenario: str, entries: str) -> tuple[str, ...]:
    left_out = (*FOR_GOOD, *ALIKE) if entries != "beside" else () if scenario in A_FEW else ALIKE_FOR_GOOD
    return tuple(name for name in FAULTS if name not in left_out)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("scenario", "entries"), HOW)
def test_any_request_may_fail(scenario, entries, cases, table):
    faults = faults_for(scenario, entries)
    counts, found = run_all_single(scenario, entries=entries, faults=faults)
    table("single faults", counts)
    assert not found, "\n".join(found[:20])
    calm = run(Case(scenario, entries=entries))
    expected = sum(happens(name, scenario, request) for name in faults for request in calm.requests)
    assert sum(counts.values()) - 1 == expected >= 150


def test_a_rival_makes_conditional_writes_fail():
    """The rivals are real: between them they make every change of a task by its owner meet a 412."""
    refused = set()
    for scenario in SCENARIOS:
        calm = run(Case(scenario))
        for request in calm.requests[: calm.scenario_requests]:
            if request.is_conditional and request.kind == "PUT" and request.key.startswith("tasks/"):
                for name in (name for name in FAULTS if name.startswith("rival")):
                    if happens(name, scenario, request) and run(Case(scenario, ((request.number, name),))).refused:
                        refused.add((scenario, request.number))
    assert len(refused) >= 50


def early_recoveries() -> list[str]:
    """Let a worker whose first answers are slow meet a lease shortly before its end; return what does not hold."""
    found = []
    for tenths in range(0, 250, 5):
        world = World()
        with running(world):
            submit(world, "quick")
            first = world.process("first worker")
            first.dies_in_handler = True
            world.act(first, first.look)
            second = world.process("second worker")
            world.pass_time(LEASE_SECONDS - tenths / 10)
            second.next_fault = FAULTS["slow answer"]
            world.act(second, second.serve)
            world.settle()
        found += check(world)
    return found


def test_a_worker_that_hardly_knows_the_time_recovers_no_lease_too_early(monkeypatch, cases):
    monkeypatch.setattr("faults.simulation.CLOCKS_AHEAD_SECONDS", (-90.0,))  # of no use to anyone
    assert early_recoveries() == []
    cases("leases met shortly before their end, after a slow answer", {"moments": 50})
    monkeypatch.setattr(Clock, "earliest", Clock.now)
    assert any("under the lease of" in what for what in early_recoveries()), (
        "the middle of what is possible is too early"
    )


def test_a_case_runs_alike_each_time():
    case = Case("retry", ((5, "every answer lost"), (9, "dies after it was applied")))
    first, second = run(case), run(case)
    assert [str(request) for request in first.requests] == [str(request) for request in second.requests]
    assert [body for _, body in first.bucket.look()] == [body for _, body in second.bucket.look()]
