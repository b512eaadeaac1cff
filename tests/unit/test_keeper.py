"""Background threads that call objects when they are due."""

from __future__ import annotations

import threading
import time

import pytest

from oq_nb.keeper import Keeper


class Kept:
    def __init__(self, *answers, takes=0.0, blocks=None):
        self.answers, self.takes, self.blocks = list(answers), takes, blocks
        self.calls: list[float] = []
        self.threads: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.called = threading.Event()

    def tick(self):
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
def keeper():
    made = Keeper("t", max_threads=3)
    yield made
    made.stop()
    assert not [t for t in threading.enumerate() if t.name.startswith("oq-keeper-t")]


def until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_no_thread_before_there_is_work(keeper):
    assert not [t for t in threading.enumerate() if t.name.startswith("oq-keeper-t")]
    kept = Kept()
    keeper.call(kept)
    until(kept.called.is_set)
    assert all(name.startswith("oq-keeper-t-") for name in kept.threads)


def test_called_again_when_it_says_so_and_not_after(keeper):
    kept = Kept(0.05, 0.05)
    keeper.call(kept)
    until(lambda: len(kept.calls) == 3)
    time.sleep(0.2)
    assert len(kept.calls) == 3
    assert kept.calls[1] - kept.calls[0] >= 0.05


def test_the_earlier_of_two_times_counts(keeper):
    kept = Kept()
    keeper.call(kept, time.monotonic() + 60)
    keeper.call(kept, time.monotonic() + 0.02)
    keeper.call(kept, time.monotonic() + 90)
    until(kept.called.is_set)


def test_one_thread_at_a_time_for_each_object(keeper):
    kept = Kept(takes=0.01)
    for _ in range(50):
        keeper.call(kept)
        time.sleep(0.002)
    until(lambda: len(kept.calls) > 2)
    time.sleep(0.05)
    assert kept.most_at_once == 1


def test_a_slow_object_does_not_hold_up_the_others(keeper):
    gate = threading.Event()
    slow, quick = Kept(blocks=gate), Kept()
    keeper.call(slow)
    until(slow.called.is_set)
    keeper.call(quick)
    until(quick.called.is_set)
    gate.set()


def test_one_that_raises_is_logged_and_leaves_the_others_alone(keeper, caplog):
    bad, good = Kept(RuntimeError("oh")), Kept()
    keeper.call(bad)
    until(lambda: "it is not called again" in caplog.text)
    keeper.call(good)
    until(good.called.is_set)


def test_forgotten_means_not_called(keeper):
    kept = Kept()
    keeper.call(kept, time.monotonic() + 0.1)
    keeper.forget(kept)
    time.sleep(0.3)
    assert kept.calls == []


def test_threads_that_linger_end_by_themselves_and_start_again():
    keeper = Keeper("l", linger_seconds=0.05)
    for _ in range(2):
        kept = Kept()
        keeper.call(kept)
        until(kept.called.is_set)
        until(lambda: not [t for t in threading.enumerate() if t.name.startswith("oq-keeper-l")])
    keeper.stop()


def test_after_the_stop_nothing_is_called():
    keeper = Keeper("s")
    keeper.stop()
    kept = Kept()
    keeper.call(kept)
    time.sleep(0.05)
    assert kept.calls == []
