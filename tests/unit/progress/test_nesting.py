"""Which bar is inside which: only one that is iterated over or entered is around another one."""

from __future__ import annotations

import asyncio
import threading

import pytest
from bars import finished, quiet

from oq_nb.model import TaskStatus
from oq_nb.progress import nesting


def tracked(**options):
    return quiet(min_seconds=0, **options)


def own_task(bar):
    """Whether the bar has a task of its own."""
    return bar._sink is not None


def test_a_bar_that_is_left_open_is_around_nothing(own):
    left = tracked(total=10)
    left.update(3)
    for _ in (bar := quiet(range(2), min_seconds=0)):
        assert bar.task is not None
    assert finished(bar).status is TaskStatus.COMPLETED
    left.close()


def test_a_loop_that_failed_is_around_nothing(own):
    outer = quiet(range(3), min_seconds=0)
    with pytest.raises(ZeroDivisionError):
        for _ in outer:
            1 / 0
    assert own_task(quiet(range(2)))


@pytest.mark.parametrize("how", ["iterated", "iterated by tqdm", "entered"])
def test_a_bar_that_is_iterated_over_or_entered_is_around_the_next(own, how):
    if how == "entered":
        with tracked(total=3, desc="outer") as outer:
            inner = quiet(range(2))
            assert not own_task(inner) and inner._outer is outer
    else:
        options = {"miniters": 1} if how == "iterated by tqdm" else {}
        for _ in (outer := quiet(range(3), **options)):
            inner = quiet(range(2))
            assert not own_task(inner) and inner._outer is outer
    assert own_task(quiet(range(2)))


def test_the_outermost_of_three_names_the_innermost(own):
    for _ in (first := quiet(range(1), desc="a")):
        for _ in quiet(range(1), desc="b"):
            for _ in (third := quiet(range(1), desc="c")):
                assert third._outer is first
                assert first.state().message == "a, c 0/1"


def test_a_bar_in_another_thread_is_not_inside(own):
    made = []
    for _ in quiet(range(1)):
        thread = threading.Thread(target=lambda: made.append(own_task(quiet(range(2)))))
        thread.start()
        thread.join()
    assert made == [True]


def test_a_bar_in_another_asyncio_task_is_not_inside(own):
    async def other():
        return own_task(quiet(range(2)))

    async def main():
        for _ in quiet(range(1)):
            assert not await other()  # the same task
            return await asyncio.gather(other(), other())

    assert asyncio.run(main()) == [True, True]


def test_async_for_is_around_what_is_in_its_body(own):
    async def rows():
        yield 1

    async def main():
        async for _ in (outer := quiet(rows())):
            assert quiet(range(2))._outer is outer
        return own_task(quiet(range(2)))

    assert asyncio.run(main())


# --- cells


class Result:
    """As IPython's ``ExecutionResult``."""

    def __init__(self, error=None):
        self.error_before_exec, self.error_in_exec = None, error


@pytest.fixture
def cell(monkeypatch):
    """Runs code as a cell of this thread."""
    monkeypatch.setattr(nesting, "_thread", nesting._Thread())

    def run(code):
        nesting._begin_cell()
        error = None
        try:
            code()
        except BaseException as exc:
            error = exc
        nesting._end_cell(Result(error))

    return run


def test_an_error_that_leaves_a_cell_fails_the_bars_that_it_opened(own, cell):
    kept = {}

    def code():
        kept["bar"] = tracked(total=10, desc="kept")
        assert kept["bar"].task is not None
        kept["bar"].update(4)
        raise ValueError("in the cell")

    cell(code)
    task = finished(kept["bar"])
    assert task.status is TaskStatus.FAILED and task.last_error.startswith("ValueError: in the cell")
    assert (task.record.last_progress.current, task.record.last_progress.total) == (4, 10)


def test_a_loop_whose_iterator_is_kept_is_failed_too_and_around_nothing(own, cell):
    kept = {}

    def code():
        kept["bar"] = quiet(range(10), min_seconds=0)
        kept["items"] = iter(kept["bar"])
        for i in kept["items"]:
            assert kept["bar"].task is not None
            if i == 4:
                raise ValueError("in the cell")

    cell(code)
    assert finished(kept["bar"]).status is TaskStatus.FAILED
    cell(lambda: kept.update(next=own_task(quiet(range(2)))))
    assert kept["next"]


def test_an_interrupted_cell_cancels_the_bars_that_it_opened(own, cell):
    kept = {}

    def code():
        kept["bar"] = tracked(total=10)
        assert kept["bar"].task is not None
        raise KeyboardInterrupt

    cell(code)
    assert finished(kept["bar"]).status is TaskStatus.CANCELLED


def test_a_cell_that_ends_well_leaves_its_bars_open(own, cell):
    kept = {}
    cell(lambda: kept.update(bar=tracked(total=10)))

    def fails():
        kept["bar"].update()
        raise ValueError("in another cell")

    cell(fails)
    assert not kept["bar"].is_ended
    kept["bar"].close()


def test_an_iterator_that_is_kept_from_one_cell_to_the_next_is_around_nothing_there(own, cell):
    kept = {}

    def code():
        kept["items"] = iter(quiet(range(10)))
        next(kept["items"])

    cell(code)
    cell(lambda: kept.update(next=own_task(quiet(range(2)))))
    assert kept["next"]
    del kept["items"]


def test_a_cell_that_runs_a_cell_goes_on_inside_its_loop(own, cell):
    inside = []

    def code():
        for _ in quiet(range(1)):
            cell(lambda: None)
            inside.append(not own_task(quiet(range(2))))

    cell(code)
    assert inside == [True]
