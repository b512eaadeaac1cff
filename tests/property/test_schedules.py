"""Several workers and clients, their requests in any order, faults in between: seeded schedules, and hypothesis.

``OQ_FAULTS=all`` runs many more; ``OQ_SEED=123`` runs one schedule again and says what was done in it.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from schedule import STRIKES, TASK_TYPES, Schedule, random_schedule

IS_LONG = os.environ.get("OQ_FAULTS") == "all"
SEED = os.environ.get("OQ_SEED")
BLOCKS = range(40) if IS_LONG else range(4)
PER_BLOCK = 500 if IS_LONG else 60
STEPS = 250


@pytest.mark.timeout(1800 if IS_LONG else 900)
@pytest.mark.parametrize("block", [0] if SEED else BLOCKS)
def test_any_order_of_requests(block, cases):
    seeds = [int(SEED)] if SEED else range(block * PER_BLOCK, (block + 1) * PER_BLOCK)
    requests = tasks = 0
    for seed in seeds:
        schedule = random_schedule(seed, STEPS)
        requests += len(schedule.world.requests)
        tasks += len(schedule.world.final_records())
        told = "\n  ".join(schedule.world.violations)
        steps = "\n  ".join(schedule.steps)
        assert not told, (
            f"seed {seed}; again: OQ_SEED={seed} python -m pytest tests/property/test_schedules.py -k any_order\n"
            f"  {told}\nafter\n  {steps}"
        )
    assert tasks >= len(seeds)
    cases("random schedules", {"schedules": len(seeds)})
    cases("requests in random schedules", {"requests": requests})
    cases("tasks in random schedules", {"tasks": tasks})


def test_a_seed_gives_the_same_schedule_again():
    first, second = random_schedule(7, STEPS), random_schedule(7, STEPS)
    assert first.steps == second.steps
    assert [str(r) for r in first.world.requests] == [str(r) for r in second.world.requests]


def test_a_broken_variant_is_caught_by_a_schedule(monkeypatch):
    """The schedules have teeth too: without its condition, a completion is written over another attempt."""
    from faults.variants import VARIANTS

    VARIANTS["lease id not compared"].breaks(monkeypatch)
    assert any(random_schedule(seed, STEPS).world.violations for seed in range(200))


class Processes(RuleBasedStateMachine):
    """Hypothesis chooses; a failure is shrunk to the fewest steps, printed as a program that can be run again."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule = Schedule()

    @initialize(workers=st.integers(1, 3))
    def begin(self, workers):
        for _ in range(workers):
            self.schedule.starts_worker(0.0)

    @rule(skew=st.sampled_from([0.0, 3600.0, -3600.0]))
    def starts_worker(self, skew):
        if len(self.schedule.able) < 12:
            self.schedule.starts_worker(skew)

    @rule(
        task_type=st.sampled_from(TASK_TYPES),
        delay=st.sampled_from([0.0, 45.0]),
        key=st.sampled_from([None, None, "k"]),
    )
    def submits(self, task_type, delay, key):
        self.schedule.submits(task_type, delay, key)

    @rule(what=st.sampled_from(["cancel", "replay"]), number=st.integers(0, 9))
    def changes(self, what, number):
        self.schedule.changes(what, number)

    @rule(number=st.integers(0, 9), turns=st.sampled_from([1, 2, 5, 15]))
    def goes(self, number, turns):
        self.schedule.goes(number, turns)

    @rule(number=st.integers(0, 9), fault=st.sampled_from(STRIKES))
    def strikes(self, number, fault):
        self.schedule.strikes(number, fault)

    @rule(number=st.integers(0, 9))
    def dies(self, number):
        self.schedule.dies(number)

    @rule(seconds=st.sampled_from([1.0, 3.0, 12.0, 35.0, 70.0]))
    def passes(self, seconds):
        self.schedule.passes(seconds)

    @invariant()
    def holds(self):
        assert not self.schedule.world.violations

    def teardown(self):
        assert not self.schedule.close()


Processes.TestCase.settings = settings(
    max_examples=3000 if IS_LONG else 80,
    stateful_step_count=80 if IS_LONG else 50,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


class TestProcesses(Processes.TestCase):
    """Run the state machine."""
