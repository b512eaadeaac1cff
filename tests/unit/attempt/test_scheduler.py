"""Background threads that call objects when they are due."""

from __future__ import annotations

import threading
import time

import pytest
from waiting import until

from oq_nb.attempt.scheduler import Scheduler


class Periodic:
    def __init__(self, *answers, takes=0.0, blocks=None):
        self.answers, self.takes, self.blocks = list(answers), takes, blocks
        self.calls: list[float] = []
        self.threads: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.called = threading.Event()

    def run_due(self):
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.calls.append(time.monotonic())
        self.threads.add(threading.current_thread().name)
        self.called.set()
        if self.blocks is not None:
            self.blocks.wait(10)
        time.sleep(self.takes)
        self.at_once -= 1
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return None if answer is None else time.monotonic() + answer


@pytest.fixture
def scheduler():
    made = Scheduler("t", max_threads=3)
    yield made
    made.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("oq-scheduler-t")]


def test_no_thread_before_there_is_work(scheduler):
    assert not [t for t in threading.enumerate() if t.name.startswith("oq-scheduler-t")]
    periodic = Periodic()
    scheduler.call(periodic)
    until(periodic.called.is_set)
    assert all(name.startswith("oq-scheduler-t-") for name in periodic.threads)


def test_called_again_when_it_says_so_and_not_after(scheduler):
    periodic = Periodic(0.05, 0.05)
    scheduler.call(periodic)
    until(lambda: len(periodic.calls) == 3)
    time.sleep(0.2)
    assert len(periodic.calls) == 3
    assert periodic.calls[1] - periodic.calls[0] >= 0.05


def test_the_earlier_of_two_times_counts(scheduler):
    periodic = Periodic()
    scheduler.call(periodic, time.monotonic() + 60)
    scheduler.call(periodic, time.monotonic() + 0.02)
    scheduler.call(periodic, time.monotonic() + 90)
    until(periodic.called.is_set)


def test_one_thread_at_a_time_for_each_object(scheduler):
    periodic = Periodic(takes=0.01)
    for _ in range(50):
        scheduler.call(periodic)
        time.sleep(0.002)
    until(lambda: len(periodic.calls) > 2)
    time.sleep(0.05)
    assert periodic.most_at_once == 1


def test_a_slow_object_does_not_hold_up_the_others(scheduler):
    gate = threading.Event()
    slow, quick = Periodic(blocks=gate), Periodic()
    scheduler.call(slow)
    until(slow.called.is_set)
    scheduler.call(quick)
    until(quick.called.is_set)
    gate.set()


def test_one_that_raises_is_logged_and_leaves_the_others_alone(scheduler, caplog):
    bad, good = Periodic(RuntimeError("oh")), Periodic()
    scheduler.call(bad)
    until(lambda: "it is not called again" in caplog.text)
    scheduler.call(good)
    until(good.called.is_set)


def test_forgotten_means_not_called(scheduler):
    periodic = Periodic()
    scheduler.call(periodic, time.monotonic() + 0.1)
    scheduler.forget(periodic)
    time.sleep(0.3)
    assert periodic.calls == []


def test_threads_that_linger_end_by_themselves_and_start_again():
    scheduler = Scheduler("l", linger_seconds=0.05)
    for _ in range(2):
        periodic = Periodic()
        scheduler.call(periodic)
        until(periodic.called.is_set)
        until(lambda: not [t for t in threading.enumerate() if t.name.startswith("oq-scheduler-l")])
    scheduler.stop()


def test_after_the_stop_nothing_is_called():
    scheduler = Scheduler("s")
    scheduler.stop()
    periodic = Periodic()
    scheduler.call(periodic)
    time.sleep(0.05)
    assert periodic.calls == []
