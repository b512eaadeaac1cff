"""Comprehensions whose exception somebody keeps: up to Python 3.11 they keep their iterator, generators always do.

The loop is not told that it is over then; the stack of its thread says so.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from bars import finished, quiet
from waiting import until

from oq_nb.attempt.context import running_in
from oq_nb.model import TaskStatus
from oq_nb.progress import frames


def divide(number):
    return 1 / (3 - number)


COMPREHENSIONS = {
    "list": lambda items: [divide(item) for item in items],
    "set": lambda items: {divide(item) for item in items},
    "dict": lambda items: {item: divide(item) for item in items},
    "nested": lambda items: [[divide(item) for _ in "ab"] for item in items],
}
EXPRESSIONS = {
    "sum": lambda items: sum(divide(item) for item in items),
    "list": lambda items: list(divide(item) for item in items),  # noqa: C400 - this is about the generator
    "join": lambda items: "".join(str(divide(item)) for item in items),
}


def made(**options):
    bar = quiet(range(9), min_seconds=0, throttle_seconds=0.05, **options)
    assert bar.task is not None
    return bar


def fails(comprehension, bar):
    """Return the exception of a comprehension over a bar, which its traceback keeps."""
    try:
        comprehension(bar)
    except ZeroDivisionError as exc:
        return exc
    raise AssertionError("it has not failed")


@pytest.mark.parametrize("options", [{}, {"miniters": 1}], ids=["ours", "tqdm's way"])
@pytest.mark.parametrize("kind", COMPREHENSIONS)
def test_it_has_failed_though_its_exception_is_kept(own, kind, options):
    bar = made(**options)
    kept = fails(COMPREHENSIONS[kind], bar)
    task = finished(bar)
    assert (task.status, task.record.last_progress.current) == (TaskStatus.FAILED, 3)
    assert "ended at item 3 by an exception at line" in task.record.last_error
    assert __file__ in task.record.last_error
    assert bar.is_ended and bar.n == 3
    del kept
    assert task.refresh().status is TaskStatus.FAILED


@pytest.mark.parametrize("comprehension", [*COMPREHENSIONS.values(), *EXPRESSIONS.values()])
def test_the_next_loop_of_its_thread_is_not_inside_of_it(own, comprehension):
    def second():
        bar = made()
        list(bar)
        return bar

    with ThreadPoolExecutor(1) as pool:
        failed = pool.submit(comprehension, made())
        later = pool.submit(second).result(30)
        assert finished(later).status is TaskStatus.COMPLETED
        assert isinstance(failed.exception(), ZeroDivisionError)


@pytest.mark.parametrize("comprehension", [*COMPREHENSIONS.values(), *EXPRESSIONS.values()])
def test_in_a_handler_the_next_loop_is_not_inside_of_it(attempt, comprehension):
    with running_in(attempt):
        kept = fails(comprehension, quiet(range(9), min_seconds=0))
        for item in quiet(range(5), min_seconds=0, throttle_seconds=0):
            if item == 4:
                until(lambda: (seen := attempt.task.refresh().progress) is not None and seen.total == 5)
    del kept  # a frame that it has passed refers to this one


def test_one_that_goes_on_is_around_what_it_calls(own):
    def inner(number):
        bar = quiet(range(2), min_seconds=0)
        assert bar.task is None
        return [*bar, number]

    def each(items):
        for item in items:
            yield item + 0

    outer = [made() for _ in range(6)]
    assert len([inner(item) for item in outer[0]]) == 9
    assert len(list(inner(item) for item in outer[1])) == 9  # noqa: C400
    for item in (item for item in outer[2]):  # noqa: C416
        inner(item)
    for item in each(item for item in outer[3]):
        inner(item)
    for item in (item + 0 for item in (item + 0 for item in outer[4])):
        inner(item)
    taken = (item for item in outer[5])
    next(taken)
    assert made().task is not None, "nobody takes items of the other one now"
    list(taken)
    assert [finished(bar).status for bar in outer] == [TaskStatus.COMPLETED] * 6


def test_one_that_is_busy_is_never_called_over(own):
    """Whatever another thread sees of its stack meanwhile."""
    numbers = (item for item in range(10**9))
    begun, stop = threading.Event(), threading.Event()

    def work(item):
        begun.set()
        return next(numbers) + sum(n for n in range(item % 40))

    def items():
        while not stop.is_set():
            yield from range(100)

    bar = quiet(items(), min_seconds=0, throttle_seconds=0.02)
    assert bar.task is not None
    done = []
    thread = threading.Thread(target=lambda: done.append([work(item) for item in bar]))
    thread.start()
    assert begun.wait(30)
    for _ in range(100):
        bar.look()
        assert not bar.is_ended
    stop.set()
    thread.join(30)
    assert len(done) == 1
    assert finished(bar).status is TaskStatus.COMPLETED


def test_a_comprehension_that_can_pause_is_not_called_over():
    def taken_by(make):
        class Items:
            place = None

            def __iter__(self):
                self.place = frames.for_place(frames.caller_of())
                yield 1
                yield 2

        items = Items()
        return items, make(items)

    items, taking = taken_by(lambda items: (item for item in items))
    next(taking)
    assert isinstance(items.place, frames.Comprehension)
    assert not frames.is_over(items.place, threading.get_ident())
    assert not frames.may_iterate(items.place, frames.caller_of(0)), "it is paused, and nobody asks"
    taking.close()


@pytest.mark.parametrize("options", [{}, {"miniters": 1}, {"mininterval": 0}], ids=["ours", "miniters", "mininterval"])
@pytest.mark.parametrize("leave", ["break", "raise"])
def test_the_item_at_which_a_loop_was_left_is_exact(own, leave, options):
    """On tqdm's own way too, which counts when it draws."""
    bar = made(**options)
    try:
        for item in bar:
            if item == 3:
                if leave == "break":
                    break
                divide(item)
    except ZeroDivisionError:
        pass
    task = finished(bar)
    assert task.status is (TaskStatus.COMPLETED if leave == "break" else TaskStatus.FAILED)
    assert task.record.last_progress.current == 3
