"""How long a worker waits between two looks for tasks."""

from __future__ import annotations

import random
import time

import pytest

import oq_nb
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.worker.backlog import Backlog
from oq_nb.worker.pauses import PollPauses


def longest(idle_seconds, **options):
    return round(PollPauses(draw=lambda: 1.0).for_tasks(idle_seconds, **options), 6)


def looks(run_seconds, *, is_soon, after=60.0):
    """Mean number of looks from the claim of a task until so long after its end, on a clock of numbers.

    Args:
        is_soon: whether the end of the attempt counts, as it does; else as before.
    """
    pauses, made, rounds = PollPauses(draw=random.Random(1).random), 0, 400
    for _ in range(rounds):
        next_at, has_ended = pauses.for_tasks(0.0), False
        while True:
            if not has_ended and next_at >= run_seconds:
                has_ended = True
                if is_soon:
                    next_at = min(next_at, run_seconds + pauses.for_tasks(run_seconds, since_attempt=0.0))
            if next_at >= run_seconds + after:
                break
            made += 1
            since = next_at - run_seconds if has_ended and is_soon else float("inf")
            next_at += pauses.for_tasks(next_at, since_attempt=since)
    return made / rounds


def test_a_pause_is_a_quarter_of_the_idle_time_within_bounds():
    assert [longest(idle) for idle in (0, 0.2, 1, 4, 20, 60, 3600)] == [0.1, 0.1, 0.25, 1, 5, 15, 15]


def test_after_an_attempt_it_is_half_of_the_time_since_then_from_twenty_milliseconds():
    assert [longest(600, since_attempt=ago) for ago in (0, 0.04, 0.1, 0.4)] == [0.02, 0.02, 0.05, 0.2]
    assert longest(0, since_attempt=0.4) == 0.1, "never longer than without"
    assert longest(600, since_attempt=0.5) == 15, "half a second after it, it is what it would be without"


def test_pauses_differ_by_a_fifth():
    assert PollPauses(draw=lambda: 0.0).for_tasks(4) == pytest.approx(0.8)
    assert PollPauses(draw=lambda: 0.0).for_tasks(4, since_attempt=0) == pytest.approx(0.016)


def test_no_pause_is_longer_than_what_was_asked_for():
    assert PollPauses(0.5, lambda: 1.0).for_tasks(600) == 0.5
    assert PollPauses(0.5, lambda: 1.0).for_tasks(600, since_attempt=600) == 0.5
    assert PollPauses(0.1, lambda: 1.0).for_tasks(600, since_attempt=0.4) == 0.1


def test_where_a_look_reads_one_shard_only_it_is_not_made_sooner():
    assert longest(600, reads_a_round=16) == 3.75
    assert longest(600, reads_a_round=16, since_attempt=0) == 3.75
    assert longest(600, reads_a_round=16, since_attempt=0, is_urgent=True) == 0.1


@pytest.mark.parametrize(("run_seconds", "more"), [(0.01, 4.3), (0.1, 4.2), (1, 6.9), (10, 9), (60, 9), (3600, 9)])
def test_what_it_costs_to_find_the_next_task_soon(run_seconds, more):
    assert looks(run_seconds, is_soon=True) - looks(run_seconds, is_soon=False) == pytest.approx(more, abs=0.5)


def test_the_end_of_an_attempt_leads_to_a_look_soon(fake_queue, monkeypatch):
    """Whoever submits from elsewhere is found though the next look was to be made in a minute."""

    def for_tasks(self, idle_seconds, *, since_attempt=float("inf"), **options):
        return 0.02 if since_attempt < 30 else 60.0

    monkeypatch.setattr(PollPauses, "for_tasks", for_tasks)
    monkeypatch.setattr(PollPauses, "needs_hint", lambda self, idle, **options: False)
    worker = oq_nb.Worker(fake_queue, concurrency=2)  # the other thread is free, so that there is a next look
    worker.task("a")(lambda value: value)
    elsewhere = Queue(TaskStore(fake_queue.store.objects))
    with worker:
        time.sleep(0.3)  # it has looked
        assert fake_queue.submit("a", 0).result(20) == 0, "of the worker's own process: found at once"
        for number in range(5):
            assert elsewhere.submit("a", number).result(20) == number


def test_an_entry_that_led_to_no_attempt_does_not_count():
    backlog = Backlog(1)
    backlog.offer(["an entry"])
    backlog.take()
    backlog.done(was_attempt=False)
    assert backlog.attempt_ended_at == float("-inf")
    backlog.offer(["an entry"])
    backlog.take()
    before = time.monotonic()
    backlog.done()
    assert before <= backlog.attempt_ended_at <= time.monotonic()
