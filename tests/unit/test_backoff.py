"""Pauses between tries: how long, how many, and none after the last."""

from __future__ import annotations

from itertools import islice

import pytest

from oq_nb.backoff import Backoff


def test_a_pause_doubles_up_to_its_limit():
    assert [Backoff(0.5, 5.0).pause_after(tries) for tries in (1, 2, 3, 4, 5, 5000)] == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0]


def test_jitter_shortens_a_pause_by_at_most_its_part():
    pauses = [Backoff(1.0, 1.0, jitter=0.5).pause_after(1) for _ in range(500)]
    assert min(pauses) >= 0.5
    assert max(pauses) <= 1.0
    assert len(set(pauses)) > 400


@pytest.mark.parametrize(("most", "pauses"), [(1, []), (3, [0.5, 1.0])])
def test_there_is_a_pause_between_tries_and_none_after_the_last(most, pauses):
    slept = []
    assert list(Backoff(0.5, 5.0).tries(slept.append, most=most)) == list(range(1, most + 1))
    assert slept == pauses


def test_without_a_limit_it_goes_on():
    slept = []
    assert list(islice(Backoff(0.5, 5.0).tries(slept.append), 6)) == [1, 2, 3, 4, 5, 6]
    assert slept == [0.5, 1.0, 2.0, 4.0, 5.0]
