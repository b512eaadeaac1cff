"""A loop that is called back at its next item, wherever it is: every item comes once, in order."""

from __future__ import annotations

import threading

import pytest

from oq_nb.progress.loops import Ending, Loop

NEVER = float("inf")


def letters(count):
    return "".join(chr(0x100 + number) for number in range(count))


KINDS = {
    "range": lambda count: range(count),
    "range with a step": lambda count: range(7, 7 + 3 * count, 3),
    "range that goes down": lambda count: range(count, 0, -1),
    "range of large numbers": lambda count: range(1 << 70, (1 << 70) + count),
    "list": lambda count: list(range(count)),
    "tuple": lambda count: tuple(range(count)),
    "str": letters,
    "ASCII str": lambda count: "".join(chr(number % 100 + 20) for number in range(count)),
    "bytes": lambda count: bytes(number % 256 for number in range(count)),
    "dict": lambda count: dict.fromkeys(range(count)),
    "generator": lambda count: (number for number in range(count)),
    "iterator of a list": lambda count: iter(list(range(count))),
    "range's iterator, begun": lambda count: begun(range(-1, count)),
    "list's iterator, begun": lambda count: begun(list(range(-1, count))),
    "falsy items": lambda count: [None, 0, False, "", []] * (count // 5),
}


def begun(iterable):
    iterator = iter(iterable)
    next(iterator)
    return iterator


class Watched:
    """A loop, the counts at its boundaries, and its end."""

    def __init__(self, iterable, at_boundary=lambda: None):
        self.counts: list[int] = []
        self.endings: list[Ending] = []
        self._also = at_boundary
        self.loop = Loop(iterable, self._at_boundary, self.endings.append)

    def _at_boundary(self) -> float:
        self.counts.append(self.loop.count)
        self._also()
        return NEVER


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [1, 2, 3, 50, 126, 127, 128, 129, 254, 255, 256, 299])
def test_it_comes_back_at_the_very_next_item_and_loses_none(kind, at):
    """Chunks begin after 1, 3, 7, 15 … 255 items: ``at`` lies within chunks, at their ends and beginnings."""
    expected = list(KINDS[kind](300))
    watched, met = Watched(KINDS[kind](300)), []
    for number, item in enumerate(watched.loop, start=1):
        met.append(item)
        assert watched.loop.count == number - 1
        if number == at:
            watched.loop.hurry()
        if number == at + 1:
            assert at in watched.counts, "it was not called back"
    assert met == expected
    assert watched.counts == [1, at] if at > 1 else watched.counts == [1]
    assert watched.endings == [Ending(300, is_exhausted=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_called_back_at_every_item(kind):
    watched, met = Watched(KINDS[kind](60)), []
    for item in watched.loop:
        met.append(item)
        watched.loop.hurry()
    assert met == list(KINDS[kind](60))
    assert watched.counts == list(range(1, 61))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_raised_when_it_is_called_back_ends_it_there(kind):
    def stop():
        if watched.counts[-1] == 100:
            raise RuntimeError("cancelled")

    watched, met = Watched(KINDS[kind](300), stop), []
    with pytest.raises(RuntimeError, match="cancelled"):
        for item in watched.loop:
            met.append(item)
            if len(met) == 100:
                watched.loop.hurry()
    assert met == list(KINDS[kind](300))[:100]
    assert watched.endings[0].count == 100


@pytest.mark.parametrize("kind", KINDS)
def test_left_at_the_item_after_it_was_called_back(kind):
    watched, met = Watched(KINDS[kind](300)), []
    for item in watched.loop:
        met.append(item)
        if len(met) == 100:
            watched.loop.hurry()
        if len(met) == 101:
            break
    assert met == list(KINDS[kind](300))[:101]
    assert watched.endings[0].count == 100, "the item of the break is not done"


@pytest.mark.parametrize("kind", KINDS)
def test_called_back_by_another_thread_again_and_again(kind):
    watched, is_over = Watched(KINDS[kind](20_000)), threading.Event()

    def call_back():
        while not is_over.is_set():
            watched.loop.hurry()

    thread = threading.Thread(target=call_back, daemon=True)
    thread.start()
    try:
        met = list(watched.loop)
    finally:
        is_over.set()
        thread.join()
    assert met == list(KINDS[kind](20_000))
    assert watched.counts == sorted(watched.counts)
    assert watched.endings == [Ending(20_000, is_exhausted=True)]


def test_a_list_that_grows_and_shrinks_in_the_loop_is_gone_over_as_by_a_plain_loop():
    def change(items, number):
        if number in (10, 100, 250):
            items.extend(range(1000 + number, 1005 + number))
        if number in (20, 120):
            del items[-3:]

    plain, expected = list(range(300)), []
    for number, item in enumerate(plain):
        expected.append(item)
        change(plain, number)
    ours, met = list(range(300)), []
    watched = Watched(ours)
    for number, item in enumerate(watched.loop):
        met.append(item)
        change(ours, number)
        watched.loop.hurry()
    assert met == expected
