"""How a loop was left that C drives (``list``, ``map``, ``any``), or that stands in ``zip`` or ``islice``.

There the loop is told nothing: only the exception's traceback says, once it is at the top, that it came through here.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from datetime import timedelta
from itertools import islice, takewhile

import pytest
from bars import finished, quiet
from waiting import until

from oq_nb.attempt.context import running_in
from oq_nb.errors import TaskCancelledError
from oq_nb.model import Progress, TaskStatus
from oq_nb.progress import frames, tracked
from oq_nb.progress.loops import Loop


def generator(n):
    yield from range(n)


SOURCES = [range, lambda n: list(range(n)), generator]


@pytest.fixture(params=SOURCES, ids=["range", "list", "generator"])
def bar(request, own):
    """A loop over nine items whose task is there."""
    made = quiet(request.param(9), total=9, min_seconds=0)
    assert made.task is not None
    return made


@pytest.fixture
def at_once(monkeypatch):
    """Nothing comes to light later: nobody waits for it."""
    monkeypatch.setattr(tracked, "_UNCLEAR_SECONDS", 0.0)


@pytest.fixture
def top(monkeypatch):
    """Return what notes an exception as the one that a cell or a program showed last."""
    return lambda error: monkeypatch.setattr(sys, "last_value", error, raising=False)


def by_islice(items):
    for _ in islice(items, 3):
        pass


def by_zip(items):
    for _ in zip(range(3), items):  # noqa: B905 - of different lengths
        pass


def by_takewhile(items):
    for _ in takewhile(lambda item: item < 2, items):
        pass


def by_a_list_comprehension(items):
    return [item + 1 for item in islice(items, 3)]


def by_a_list_comprehension_of_zip(items):
    return [item for _, item in zip(range(3), items)]  # noqa: B905


def by_a_dict_comprehension(items):
    return {item: item for item in islice(items, 3)}


def by_a_generator_expression(items):
    return sum(item for item in islice(items, 3))


def by_any(items):
    return any(item == 3 for item in items)


def by_next(items):
    return next((item for item in items if item == 3), None)


def by_a_pipeline(items):
    def each():
        for item in items:
            yield item + 0

    for item in each():
        if item == 3:
            break


LEFT = [
    by_islice,
    by_zip,
    by_takewhile,
    by_a_list_comprehension,
    by_a_list_comprehension_of_zip,
    by_a_dict_comprehension,
    by_a_generator_expression,
    by_any,
    by_next,
    by_a_pipeline,
]


@pytest.mark.parametrize("leave", LEFT)
def test_what_ends_with_items_left_has_not_failed(bar, at_once, leave):
    leave(bar)
    assert bar.is_ended  # at once, not when the garbage is collected
    task = finished(bar)
    assert (task.status, task.last_error) == (TaskStatus.COMPLETED, None)
    assert (task.output["items"], task.output["total"]) == (3, 9)


def test_an_error_of_something_else_is_not_taken_for_its_own(bar, top):
    def look(items):
        found = any(item == 3 for item in items)
        return 1 / 0 if found else found

    with pytest.raises(ZeroDivisionError) as raised:
        look(bar)
    top(raised.value)
    assert finished(bar).status is TaskStatus.COMPLETED


def test_an_error_that_was_shown_before_is_not_taken_for_its_own(own, top):
    def run(items, work):
        return list(map(work, islice(items, 3)))

    with pytest.raises(ZeroDivisionError) as raised:
        run(range(9), lambda item: 1 / item)
    top(raised.value)
    bar = quiet(range(9), min_seconds=0)
    assert bar.task is not None
    run(bar, str)
    assert finished(bar).status is TaskStatus.COMPLETED


def divide(item):
    return 1 / (3 - item)


def in_map(items):
    return list(map(divide, items))


def in_map_of_zip(items):
    return sum(map(lambda item, _: divide(item), items, range(9)))


def in_a_pipeline(items):
    def each():
        for item in items:
            yield item + 0

    for item in each():
        divide(item)


def in_two_pipelines(items):
    def each(inner):
        for item in inner:
            yield item + 0

    for item in each(each(items)):
        divide(item)


@pytest.mark.parametrize("fail", [in_map, in_map_of_zip, in_a_pipeline, in_two_pipelines])
def test_an_exception_that_came_through_fails_the_task(bar, top, fail):
    with pytest.raises(ZeroDivisionError) as raised:
        fail(bar)
    top(raised.value)
    task = finished(bar)
    assert task.status is TaskStatus.FAILED and task.last_error.startswith("ZeroDivisionError: division by zero")
    assert (task.output["items"], task.output["total"]) == (3, 9)


def test_an_exception_of_the_other_iterable_fails_the_task(bar, top):
    def other():
        yield from range(3)
        raise OSError("of the other one")

    def run(items):
        for _ in zip(other(), items):  # noqa: B905
            pass

    with pytest.raises(OSError, match="of the other one") as raised:
        run(bar)
    top(raised.value)
    assert finished(bar).last_error.startswith("OSError: of the other one")


# --- an iterable that raises in the middle of a chunk: known for certain, caught or not


def gone(n):
    yield from range(n)
    raise OSError("gone")


class Gone:
    """An iterator that is no generator."""

    def __init__(self, n):
        self._left = n

    def __iter__(self):
        return self

    def __next__(self):
        if not self._left:
            raise OSError("gone")
        self._left -= 1
        return self._left


CONSUMERS = [
    list,
    sum,
    sorted,
    lambda items: [*items],
    lambda items: [item + 1 for item in items],
    lambda items: dict.fromkeys(items),
]


@pytest.mark.parametrize("consume", CONSUMERS)
@pytest.mark.parametrize("source", [gone, Gone])
@pytest.mark.parametrize("n", [0, 1, 2, 3, 6, 100])
def test_an_iterable_that_raises_fails_the_task_whatever_drives_it(own, at_once, source, n, consume):
    bar = quiet(source(n), total=200, min_seconds=0)
    assert bar.task is not None
    try:
        consume(bar)
    except OSError:
        pass
    task = finished(bar)
    assert task.status is TaskStatus.FAILED, task
    assert task.last_error.startswith(("OSError: gone", f"The loop was ended at item {n} by an exception at line"))
    assert task.output["items"] == n


def test_the_line_is_that_of_the_exception(own):
    bar = quiet(range(9), min_seconds=0)
    assert bar.task is not None
    line = sys._getframe().f_lineno
    try:
        for item in bar:
            divide(item)
    except ZeroDivisionError:
        pass
    later = finished(bar)
    assert f"at line {line + 3} of " in later.last_error


def test_an_error_that_is_met_and_passed_over_is_not_its_end(own):
    class Rows:
        """As ``csv.reader``: it goes on after an error."""

        def __init__(self):
            self._at = 0

        def __iter__(self):
            return self

        def __next__(self):
            self._at += 1
            if self._at == 5:
                raise ValueError("a bad row")
            if self._at > 9:
                raise StopIteration
            return self._at

    bar = quiet(Rows(), total=8, min_seconds=0)
    assert bar.task is not None
    rows, iterator = [], iter(bar)
    while True:
        try:
            rows.append(next(iterator))
        except ValueError:
            continue
        except StopIteration:
            break
    assert rows == [1, 2, 3, 4, 6, 7, 8, 9]
    task = finished(bar)
    assert (task.status, task.output["items"]) == (TaskStatus.COMPLETED, 8)


def test_hurry_between_the_ticket_and_the_item_changes_nothing():
    """Another thread empties the tickets while the iterable makes the item that it will fail with."""
    endings = []

    def source():
        yield from range(50)
        emptied = threading.Thread(target=loop.hurry)
        emptied.start()
        emptied.join()
        raise OSError("gone")

    loop = Loop(source(), lambda: float("inf"), endings.append)
    with pytest.raises(OSError, match="gone"):
        list(loop)
    assert [(ending.count, ending.is_failed) for ending in endings] == [(50, True)]


def test_an_interpreter_that_drops_a_for_elsewhere_is_noticed(monkeypatch):
    monkeypatch.setattr(frames, "_may_be_passing", lambda frame, _: frames.Exit(frame, 1, True))
    assert not frames.tells_apart.__wrapped__()


# --- while it is unclear


def test_loops_of_which_it_is_unclear_how_they_ended_hold_up_no_other(own):
    """There are four writers, and it takes a second until it is clear."""
    unclear = []
    for _ in range(8):
        bar = quiet(range(9), min_seconds=0)
        assert bar.task is not None
        any(bar)
        unclear.append(bar)
    other = quiet(range(9), min_seconds=0, throttle_seconds=0)
    for item in other:
        if item == 4:
            assert other.task is not None
            until(lambda: own.get(other.task.id).progress.current == 4)
            break
    assert any(bar._sink._over.is_set() is False for bar in unclear)
    for bar in unclear:
        assert finished(bar).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("is_held_back", [False, True])
def test_a_loop_has_ended_when_it_was_left(own, is_held_back):
    bar = quiet(range(9), min_seconds=0)
    assert bar.task is not None
    if is_held_back:  # a report that is to be written later
        said = Progress(current=0, updated_at=own.store.clock.stamp())
        bar._sink._lease.report(said, throttle_seconds=1000, wait=False)
    any(bar)
    then = own.now()
    task = finished(bar)
    assert task.record.completed_at < then + timedelta(seconds=0.1), "not when it became clear, a second later"


def test_at_the_end_of_a_program_nothing_is_waited_for(own, monkeypatch):
    monkeypatch.setattr(tracked, "_UNCLEAR_SECONDS", 1e6)
    bar = quiet(range(9), min_seconds=0)
    assert bar.task is not None
    any(bar)
    assert not bar._sink._over.is_set()
    tracked._flush_all()
    assert finished(bar).status is TaskStatus.COMPLETED


def test_what_an_exception_led_to_is_found(own, top):
    def run(bar):
        for item in bar:
            divide(item)

    bar = quiet(range(9), min_seconds=0)
    assert bar.task is not None
    with pytest.raises(RuntimeError) as raised:
        try:
            run(bar)
        except ZeroDivisionError as exc:
            raise RuntimeError("the job failed") from exc
    top(raised.value)
    assert finished(bar).last_error.startswith("RuntimeError: the job failed")


def test_a_coroutine_that_ctrl_c_cancels_is_cancelled(own, top):
    """``asyncio.run`` cancels its coroutine, and raises the interrupt in place of what comes out of that."""

    async def job(bar):
        for item in bar:
            if item == 3:
                asyncio.current_task().cancel()
            await asyncio.sleep(0)

    async def main(bar):
        try:
            await job(bar)
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None

    bar = quiet(range(9), min_seconds=0)
    assert bar.task is not None
    with pytest.raises(KeyboardInterrupt) as raised:
        asyncio.run(main(bar))
    top(raised.value)
    task = finished(bar)
    assert (task.status, task.last_error, task.output["items"]) == (TaskStatus.CANCELLED, "KeyboardInterrupt", 3)


def test_a_coroutine_that_was_cancelled_is_cancelled(own, top):
    async def job(bar):
        for item in bar:
            if item == 3:
                asyncio.current_task().cancel()
            await asyncio.sleep(0)

    bar = quiet(range(9), min_seconds=0)
    assert bar.task is not None
    with pytest.raises(asyncio.CancelledError) as raised:
        asyncio.run(job(bar))
    top(raised.value)
    assert finished(bar).status is TaskStatus.CANCELLED


@pytest.mark.parametrize("way", ["cancelled", "raises", "ends"])
def test_an_async_for_closes_its_bar_however_it_ends(own, way):
    async def items():
        for number in range(3):
            yield number
        if way == "raises":
            raise OSError("gone")
        while way == "cancelled":
            await asyncio.sleep(0.01)
            yield 0

    async def job(bar):
        async for _ in bar:
            if way == "cancelled" and not bar._has_problem:
                own.cancel(bar.task.id)
                until(lambda: bar._has_problem)

    bar = quiet(items(), min_seconds=0, throttle_seconds=0)
    assert bar.task is not None
    with contextlib.suppress(OSError, TaskCancelledError):
        asyncio.run(job(bar))
    assert bar.is_ended and bar.disable and bar not in type(bar)._instances
    expected = {"cancelled": TaskStatus.CANCELLED, "raises": TaskStatus.FAILED, "ends": TaskStatus.COMPLETED}
    assert finished(bar).status is expected[way]


# --- in a handler


def test_a_bar_that_was_left_open_at_its_total_has_no_inner_ones(attempt):
    with running_in(attempt):
        download = quiet(total=5, desc="download", min_seconds=0, throttle_seconds=0)
        download.update(5)
        items = quiet(range(20), desc="items", min_seconds=0, throttle_seconds=0)
        for item in items:
            if item == 9:
                until(
                    lambda: (said := attempt.task.refresh().progress) and said.message == "items" and said.current == 9
                )
        until(lambda: attempt.task.refresh().progress.current == 20)


def test_a_bar_that_is_moved_by_hand_names_the_one_inside(attempt):
    with running_in(attempt):
        files = quiet(total=5, desc="files", min_seconds=0, throttle_seconds=0)
        files.update(1)
        for item in quiet(range(20), desc="rows", min_seconds=0, throttle_seconds=0):
            if item == 9:
                until(lambda: (said := attempt.task.refresh().progress) and said.message == "files, rows 9/20")
        files.close()


@pytest.mark.parametrize("in_handler", [False, True])
@pytest.mark.parametrize("options", [{}, {"miniters": 1}])
def test_a_cancel_reaches_the_inner_loop_at_its_next_item(own, attempt, in_handler, options):
    seen = []

    def run():
        for _ in (outer := quiet(range(3), desc="epochs", min_seconds=0, throttle_seconds=0)):
            task = attempt.task if in_handler else outer.task
            for item in (inner := quiet(range(100_000), desc="batches", **options)):
                seen.append(item)
                if item == 3000:
                    own.cancel(task.id)
                    if in_handler:
                        attempt.report_progress(current=1)
                    until(lambda: inner._has_problem)

    with pytest.raises(TaskCancelledError):
        if in_handler:
            with running_in(attempt):
                run()
        else:
            run()
    assert seen[-1] == 3000


# --- positions that are no whole numbers


@pytest.mark.parametrize(
    ("total", "step", "times", "said"),
    [
        (1, 0.01, 60, "60% (0/1)"),
        (10, 0.1, 100, "100% (10/10)"),
        (2.5, 0.75, 1, "30% (0/2)"),
        (1e30, 1, 3, "3"),
        (3, 1, 2, "66% (2/3)"),
        (100_000, 1, 99_999, "99% (99999/100000)"),
    ],
)
def test_the_percentage_is_that_of_the_bar(own, total, step, times, said):
    with quiet(total=total, min_seconds=0) as bar:
        assert bar.task is not None
        for _ in range(times):
            bar.update(step)
    progress = finished(bar).record.last_progress.evolve(rate=None)
    assert repr(progress) == f"<Progress {said}>"
