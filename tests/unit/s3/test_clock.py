"""The store's time, from `Date` headers of one second's resolution."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from email.utils import formatdate

import pytest

from oq_nb.s3.clock import Clock
from oq_nb.testing import FakeTime


class World:
    """A machine whose wall clock is wrong, and a store whose clock is right."""

    def __init__(self, wrong_by: float = 3600.0) -> None:
        self.store_time = FakeTime(1_800_000_000.25)
        self.monotonic = FakeTime(5.0)
        self.clock = Clock(self.monotonic.monotonic, lambda: self.store_time.seconds + wrong_by)

    def pass_time(self, seconds: float) -> None:
        self.store_time.advance(seconds)
        self.monotonic.advance(seconds)

    def answer(self, takes: float = 0.02) -> None:
        sent = self.monotonic.seconds
        self.pass_time(takes / 2)
        date = formatdate(self.store_time.seconds, usegmt=True)
        self.pass_time(takes / 2)
        self.clock.observe(date, sent, self.monotonic.seconds)

    def error(self, now: datetime) -> float:
        return now.timestamp() - self.store_time.seconds


def test_before_the_first_answer_it_is_the_machines_own_time():
    world = World(wrong_by=3600)
    assert not world.clock.is_synchronised
    assert world.error(world.clock.now()) == pytest.approx(3600)


def test_one_answer_tells_to_the_second_and_many_tell_more():
    world = World()
    world.answer()
    assert world.clock.is_synchronised
    assert abs(world.error(world.clock.now())) <= 0.6
    for _ in range(60):
        world.pass_time(0.37)
        world.answer()
    assert abs(world.error(world.clock.now())) < 0.1


def test_two_programs_on_machines_whose_clocks_are_right_have_the_same_time():
    early, late = World(wrong_by=0), World(wrong_by=0)
    late.pass_time(0.7)  # its only answer says a second later
    early.answer()
    late.answer()
    assert early.error(early.clock.now()) == pytest.approx(0, abs=1e-6)
    assert late.error(late.clock.now()) == pytest.approx(0, abs=1e-6)


def test_a_machine_that_is_a_little_wrong_is_found_out_in_time():
    world = World(wrong_by=0.3)
    world.answer()
    assert world.error(world.clock.now()) == pytest.approx(0.3, abs=1e-6)  # nothing speaks against it yet
    for _ in range(60):
        world.pass_time(0.37)
        world.answer()
    assert abs(world.error(world.clock.now())) < 0.1


def test_the_earliest_time_is_never_late():
    world = World()
    for step in range(200):
        world.pass_time(0.1 + (step % 7) / 3)
        world.answer(takes=0.01 + (step % 5) / 4)
        assert -2.5 < world.error(world.clock.earliest()) <= 0.001


def test_a_machine_that_slept_learns_the_time_anew():
    world = World()
    for _ in range(10):
        world.pass_time(0.3)
        world.answer()
    world.store_time.advance(7200)  # the monotonic clock stood still
    world.answer()
    assert abs(world.error(world.clock.now())) < 0.6


def test_stamps_ascend_however_fast_they_are_asked_for():
    world = World()
    world.answer()
    stamps = [world.clock.stamp() for _ in range(1000)]
    assert len(set(stamps)) == 1000
    assert stamps == sorted(stamps)
    assert world.clock.now() >= stamps[-1]
    assert stamps[-1] - stamps[0] < timedelta(seconds=1)


@pytest.mark.parametrize("date", [None, "", "yesterday", "Tue, 99 Foo 2026 99:99:99 GMT"])
def test_a_date_that_cannot_be_read_is_passed_over(date):
    world = World()
    world.clock.observe(date, 0.0, 1.0)
    assert not world.clock.is_synchronised
    assert world.clock.now().tzinfo is timezone.utc
