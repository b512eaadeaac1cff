"""Iteration in chunks: same items, exact positions, and how a loop ended."""

from __future__ import annotations

# ruff: noqa: SIM113, C417, UP028 - the loops here are what is tested
import asyncio
import gc
import time
from collections import deque

import pytest

from oq_nb.progress import loops
from oq_nb.progress.loops import Loop


def numbers(n):
    yield from range(n)


MAKERS = {
    "range": range,
    "big range": lambda n: range(1 << 70, (1 << 70) + n),
    "list": lambda n: list(range(n)),
    "tuple": lambda n: tuple(range(n)),
    "text": lambda n: "x" * n,
    "bytes": bytes,
    "dict": lambda n: dict.fromkeys(range(n)),
    "set": lambda n: set(range(n)),
    "deque": lambda n: deque(range(n)),
    "reversed list": lambda n: reversed(list(range(n))),
    "generator": numbers,
    "map": lambda n: map(str, range(n)),
    "zip": lambda n: zip(range(n), range(n), strict=True),
    "falsy items": lambda n: (0 for _ in range(n)),
}


class Watched:
    def __init__(self, iterable):
        self.endings = []
        self.loop = Loop(iterable, lambda: time.perf_counter() + 1, self.endings.append)

    @property
    def ending(self):
        (ending,) = self.endings
        return ending


@pytest.fixture(params=MAKERS)
def make(request):
    return MAKERS[request.param]


@pytest.mark.parametrize("n", [0, 1, 2, 255, 256, 257, 5000])
def test_the_items_are_those_of_a_plain_loop(make, n):
    watched = Watched(make(n))
    assert list(watched.loop) == list(make(n))
    assert (watched.ending.count, watched.ending.is_exhausted) == (n, True)


def test_the_position_is_exact_at_every_item(make):
    watched = Watched(make(700))
    for done, _ in enumerate(watched.loop):
        assert watched.loop.count == done
    assert watched.ending.count == 700


def test_it_works_here():
    assert loops.is_possible()


@pytest.mark.parametrize("broken", ["length_hint", "compress", "repr", "_index_in"])
def test_where_a_trick_does_not_hold_that_is_noticed(broken, monkeypatch):
    wrong = {
        "length_hint": lambda items: 3,
        "compress": lambda items, selectors: items,
        "repr": lambda counter: "count(3)",
        "_index_in": lambda iterator, items: 2,
    }
    monkeypatch.setattr(loops, broken, wrong[broken], raising=False)
    assert not loops.is_possible.__wrapped__()


def leave_by_break(loop):
    seen = 0
    for _ in loop:
        seen += 1
        if seen == 50:
            break


def leave_by_return(loop):
    seen = 0
    for _ in loop:
        seen += 1
        if seen == 50:
            return seen


def leave_by_break_in_try(loop):
    seen = 0
    for _ in loop:
        try:
            seen += 1
            if seen == 50:
                break
        finally:
            seen += 0


@pytest.mark.parametrize("leave", [leave_by_break, leave_by_return, leave_by_break_in_try])
def test_leaving_a_loop_is_no_error(make, leave):
    watched = Watched(make(700))
    leave(watched.loop)
    assert (watched.ending.count, watched.ending.left_at, watched.ending.is_exhausted) == (49, None, False)


def fail_by_raise(loop):
    seen = 0
    for _ in loop:
        seen += 1
        if seen == 50:
            raise ValueError("in the body")


def fail_in_a_call(loop):
    seen = 0
    for _ in loop:
        seen += 1
        if seen == 50:
            int("no number")


def fail_by_operator(loop):
    seen = 0
    for _ in loop:
        seen += 1
        if seen == 50:
            seen / 0


def fail_by_assertion(loop):
    seen = 0
    for _ in loop:
        seen += 1
        assert seen != 50


def fail_by_name(loop):
    seen = 0
    for _ in loop:
        seen += 1
        if seen == 50:
            no_such_name  # noqa: B018, F821


@pytest.mark.parametrize("fail", [fail_by_raise, fail_in_a_call, fail_by_operator, fail_by_assertion, fail_by_name])
def test_an_exception_in_the_body_is_told_from_leaving(make, fail):
    watched = Watched(make(700))
    with pytest.raises((ValueError, ZeroDivisionError, AssertionError, NameError)):
        fail(watched.loop)
    assert watched.ending.count == 49
    assert watched.ending.left_at.code is fail.__code__


def test_an_exception_at_the_top_of_a_program_is_told_too():
    watched = Watched(range(100))
    with pytest.raises(KeyError):
        exec(compile("for x in loop:\n    if x == 50: raise KeyError", "cell", "exec"), {"loop": watched.loop})
    assert (watched.ending.count, watched.ending.left_at.code.co_filename) == (50, "cell")


class Broken:
    """Raises at its 40th item."""

    def __init__(self):
        self.given = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.given += 1
        if self.given == 40:
            raise KeyError("broken")
        return self.given


def broken_generator():
    yield from range(39)
    raise KeyError("broken")


@pytest.mark.parametrize("source", [Broken, broken_generator])
def test_an_exception_of_the_iterable_passes_through(source):
    def run(loop):
        for _ in loop:
            pass

    watched = Watched(source())
    with pytest.raises(KeyError, match="broken"):
        run(watched.loop)
    assert watched.ending.count == 39
    assert isinstance(watched.ending.error, KeyError) or watched.ending.left_at is not None


def test_where_nothing_can_be_known_nothing_is_guessed(make):
    watched = Watched(make(700))
    with pytest.raises(ZeroDivisionError):
        list(map(lambda _: 1 / 0, watched.loop))
    assert (watched.ending.error, watched.ending.is_failed) == (None, False)


def test_a_dropped_iterator_ends_the_loop(make):
    watched = Watched(make(700))
    iterator = iter(watched.loop)
    for _ in range(50):
        next(iterator)
    del iterator
    gc.collect()
    assert (watched.ending.count, watched.ending.is_failed) == (49, False)


def test_a_closed_generator_around_the_loop_is_no_error():
    def around(loop):
        for item in loop:
            yield item

    watched = Watched(range(700))
    generator = around(watched.loop)
    for _ in range(50):
        next(generator)
    generator.close()
    assert (watched.ending.count, watched.ending.is_failed) == (49, False)


def test_a_cancelled_coroutine_ends_the_loop():
    async def body(loop):
        for _ in loop:
            await asyncio.sleep(0.001)

    async def main(loop):
        running = asyncio.ensure_future(body(loop))
        while loop.count < 10:
            await asyncio.sleep(0.01)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    watched = Watched(range(100_000))
    asyncio.run(main(watched.loop))
    assert 10 <= watched.ending.count < 100_000
    assert watched.ending.left_at is not None


def test_a_list_that_grows_is_followed():
    items, watched = [0], None
    watched = Watched(items)
    seen = 0
    for item in watched.loop:
        assert watched.loop.count == seen
        seen += 1
        if item < 700:
            items.append(item + 1)
    assert seen == watched.ending.count == 701


class Sub(list):
    """A list that gives out another list's items."""

    def __iter__(self):
        return iter([7, 8, 9])


@pytest.mark.parametrize(
    "make",
    [
        lambda items: items,
        iter,
        lambda items: Sub(items),
        lambda items: bytearray(len(items)),
        lambda items: deque(items),
        lambda items: iter(range(len(items))),
    ],
)
def test_the_count_of_other_sequences_is_exact(make):
    watched = Watched(make(list(range(600))))
    seen = 0
    for _ in watched.loop:
        assert watched.loop.count == seen
        seen += 1
    assert watched.ending.count == seen


def test_an_iterator_that_was_begun_counts_from_where_it_is():
    iterator = iter(list(range(600)))
    next(iterator)
    watched = Watched(iterator)
    assert len(list(watched.loop)) == watched.ending.count == 599


@pytest.mark.parametrize("grow", [lambda items: items.append(0), lambda items: items.extend(b"x")])
@pytest.mark.parametrize("kind", [list, bytearray])
def test_what_grows_through_its_iterator_is_followed(kind, grow):
    items = kind(b"a" * 10)
    watched = Watched(iter(items))
    seen = 0
    for _ in watched.loop:
        assert watched.loop.count == seen
        seen += 1
        if seen < 600:
            grow(items)
    assert watched.ending.count == seen


def test_a_list_that_shrinks_counts_what_was_handed_out():
    items = list(range(600))
    watched = Watched(items)
    seen = 0
    for _ in watched.loop:
        seen += 1
        items.pop()
    assert watched.ending.count == seen == 300
    items = [1, 2, 3]
    watched = Watched(items)
    for _ in watched.loop:
        items.clear()
    assert watched.ending.count == 1


@pytest.mark.parametrize("kind", [dict.fromkeys, set, deque])
def test_what_must_not_change_raises_as_ever_and_the_count_is_right(kind):
    items = kind(range(300))
    watched = Watched(items)

    def run(loop):
        seen = 0
        for _ in loop:
            seen += 1
            if seen == 200:
                items.update({1000: 0}) if isinstance(items, dict) else None
                items.add(1000) if isinstance(items, set) else None
                items.append(1000) if isinstance(items, deque) else None

    with pytest.raises(RuntimeError, match=r"changed size|mutated"):
        run(watched.loop)
    assert watched.ending.count == 200


async def fails():
    await asyncio.sleep(0)
    raise ValueError("awaited")


def test_an_exception_at_an_await_is_an_exception():
    async def body(loop):
        seen = 0
        for _ in loop:
            seen += 1
            if seen == 50:
                await fails()

    watched = Watched(range(700))
    with pytest.raises(ValueError, match="awaited"):
        asyncio.run(body(watched.loop))
    assert (watched.ending.count, watched.ending.left_at is not None) == (49, True)


def test_a_break_after_an_await_is_none():
    async def body(loop):
        for seen in loop:
            await asyncio.sleep(0)
            if seen == 50:
                break

    watched = Watched(range(700))
    asyncio.run(body(watched.loop))
    assert (watched.ending.count, watched.ending.left_at) == (50, None)


def test_the_boundary_is_visited_when_it_is_due_and_may_raise():
    visits = []

    def at_boundary():
        visits.append(None)
        if len(visits) == 3:
            raise KeyboardInterrupt
        return 0.0

    endings = []
    with pytest.raises(KeyboardInterrupt):
        for _ in Loop(range(100_000), at_boundary, endings.append):
            pass
    assert len(visits) == 3
    assert isinstance(endings[0].error, KeyboardInterrupt)
    assert endings[0].count == 1 + 2 + 4


def test_a_chunk_holds_1024_items_at_most():
    counts = []
    loop = Loop(range(10_000), lambda: counts.append(loop.count) or 0.0, lambda _: None)
    list(loop)
    steps = [after - before for before, after in zip(counts, counts[1:], strict=False)]
    assert max(steps) == 1024


def test_a_slow_loop_is_visited_at_every_item():
    counts = []
    loop = Loop(range(4), lambda: counts.append(loop.count) or 0.0, lambda _: None)
    for _ in loop:
        time.sleep(0.11)
    assert counts == [1, 2, 3, 4]
