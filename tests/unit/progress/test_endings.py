"""How a loop ended, on each path that a bar can take: completed, left, failed, cancelled; and where it was then."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys

import pytest
from bars import finished, quiet
from waiting import until

import oq_nb
from oq_nb.attempt.context import running_in
from oq_nb.errors import LeaseExpiredError, TaskCancelledError
from oq_nb.model import TaskStatus
from oq_nb.progress import frames, loops

PATHS = {
    "chunks": {},
    "miniters": {"miniters": 1},
    "mininterval": {"mininterval": 0},
}


class Mine(oq_nb.tqdm):
    """A class of the user's."""


def made(path, items, **options):
    if path == "subclass":
        import io

        return Mine(items, file=io.StringIO(), min_seconds=0, **options)
    return quiet(items, min_seconds=0, **PATHS[path], **options)


each_path = pytest.mark.parametrize("path", [*PATHS, "subclass"])


@each_path
def test_a_body_that_raises_fails_the_task(own, path):
    bar = made(path, range(9))
    with pytest.raises(ZeroDivisionError):
        for i in bar:
            assert bar.task is not None
            if i == 4:
                i / 0
    task = finished(bar)
    assert task.status is TaskStatus.FAILED
    assert "item 4" in task.last_error and "test_a_body_that_raises" in task.last_error


@each_path
def test_break_completes_it_and_says_where(own, path):
    bar = made(path, range(10))
    for i in bar:
        assert bar.task is not None
        if i == 3:
            break
    task = finished(bar)
    assert (task.status, task.output["items"], task.output["total"]) == (TaskStatus.COMPLETED, 3, 10)


@each_path
def test_return_completes_it(own, path):
    def first(bar):
        for i in bar:
            assert bar.task is not None
            return i

    bar = made(path, range(10))
    assert first(bar) == 0
    assert finished(bar).status is TaskStatus.COMPLETED


@each_path
def test_an_iterable_that_raises_fails_the_task(own, path):
    def source():
        yield 0  # a chunk of one item: what is raised in the middle of a longer one is seen at the top only
        raise OSError("gone")

    bar = made(path, source())
    with pytest.raises(OSError, match="gone"):
        for _ in bar:
            assert bar.task is not None
    assert finished(bar).last_error.startswith("OSError: gone")


@each_path
def test_in_a_with_block_the_exception_is_known_although_it_is_caught_outside(own, path):
    bar = made(path, range(9))
    with pytest.raises(ZeroDivisionError), bar:
        for i in bar:
            assert bar.task is not None
            if i == 4:
                i / 0
    assert finished(bar).last_error.startswith("ZeroDivisionError")


@each_path
def test_an_exception_that_is_caught_in_the_with_block_fails_it_too(own, path):
    bar = made(path, range(9))
    with bar:
        try:
            for i in bar:
                assert bar.task is not None
                if i == 4:
                    i / 0
        except ZeroDivisionError:
            pass
    task = finished(bar)
    assert task.status is TaskStatus.FAILED and "by an exception at line" in task.last_error


# --- async for


async def rows(n, *, fails=False):
    for row in range(n):
        await asyncio.sleep(0)
        yield row
    if fails:
        raise OSError("gone")


def test_async_for_completes(own):
    async def main(bar):
        async for _ in bar:
            await asyncio.to_thread(lambda: bar.task)

    bar = quiet(rows(5), total=5, min_seconds=0)
    asyncio.run(main(bar))
    task = finished(bar)
    assert (task.status, task.output["items"]) == (TaskStatus.COMPLETED, 5)


@pytest.mark.parametrize("awaits", [False, True])
def test_a_body_of_an_async_for_that_raises_fails_the_task(own, awaits):
    async def divide(i):
        await asyncio.sleep(0)
        i / 0

    async def body(bar):
        async for i in bar:
            assert bar.task is not None
            if i == 3:
                await divide(i) if awaits else i / 0

    bar = quiet(rows(9), total=9, min_seconds=0)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(body(bar))
    task = finished(bar)
    assert task.status is TaskStatus.FAILED and "in body" in task.last_error


def test_an_async_iterator_that_raises_fails_the_task(own):
    async def main(bar):
        async for _ in bar:
            assert bar.task is not None

    bar = quiet(rows(3, fails=True), total=9, min_seconds=0)
    with pytest.raises(OSError, match="gone"):
        asyncio.run(main(bar))
    assert finished(bar).last_error.startswith("OSError: gone")


@pytest.mark.parametrize("way", ["break", "return"])
def test_an_async_for_that_is_left_completes_at_once(own, way):
    async def main(bar):
        async for i in bar:
            assert bar.task is not None
            if i == 3:
                if way == "return":
                    return
                break

    bar = quiet(rows(9), total=9, min_seconds=0)
    asyncio.run(main(bar))
    assert bar.is_ended
    task = finished(bar)
    assert (task.status, task.output["total"]) == (TaskStatus.COMPLETED, 9)


def test_a_failing_async_comprehension_fails_the_task(own):
    async def main(bar):
        return [bar.task and 1 / (2 - i) async for i in bar]

    bar = quiet(rows(9), total=9, min_seconds=0)
    try:
        asyncio.run(main(bar))
    except ZeroDivisionError:
        pass
    gc.collect()  # up to Python 3.11 the iterator is dropped with the traceback, which asyncio refers to
    assert finished(bar).status is TaskStatus.FAILED


@pytest.mark.parametrize("kind", ["list", "set", "dict"])
def test_a_failing_comprehension_fails_the_task(own, kind):
    def run(bar):
        if kind == "list":
            return [bar.task and 1 / (2 - i) for i in bar]
        if kind == "set":
            return {bar.task and 1 / (2 - i) for i in bar}
        return {i: bar.task and 1 / (2 - i) for i in bar}

    bar = quiet(range(9), min_seconds=0)
    try:
        run(bar)
    except ZeroDivisionError:
        pass
    assert finished(bar).status is TaskStatus.FAILED


def test_an_async_for_is_told_of_a_cancellation_at_its_next_item(own):
    seen = []

    async def main(bar):
        async for i in bar:
            seen.append(i)
            if i == 3:
                own.cancel(bar.task.id)
                until(lambda: bar._has_problem)

    bar = quiet(rows(100), total=100, min_seconds=0, throttle_seconds=0, lease_seconds=5)
    with pytest.raises(TaskCancelledError):
        asyncio.run(main(bar))
    assert seen == [0, 1, 2, 3]
    assert finished(bar).status is TaskStatus.CANCELLED


# --- where break and raise cannot be told apart


@pytest.fixture
def cannot_tell(monkeypatch):
    monkeypatch.setattr(frames, "_LEAVES_LOOP", frozenset())  # as on an interpreter with other instructions
    frames.tells_apart.cache_clear()
    loops.is_possible.cache_clear()
    yield
    monkeypatch.undo()
    frames.tells_apart.cache_clear()
    loops.is_possible.cache_clear()


def test_an_interpreter_that_does_not_tell_them_apart_is_noticed(cannot_tell):
    assert not frames.tells_apart()
    assert not loops.is_possible()


@pytest.mark.parametrize("name", ["_TAKES_ITEM", "_LEAVES_LOOP", "_PAUSED"])
def test_other_instructions_are_noticed(name, monkeypatch):
    wrong = {"_TAKES_ITEM": frozenset(), "_LEAVES_LOOP": frozenset(range(256)), "_PAUSED": frozenset(range(256))}
    monkeypatch.setattr(frames, name, wrong[name])
    assert not frames.tells_apart.__wrapped__()


def test_there_a_break_completes_the_task_and_says_where(own, cannot_tell):
    bar = quiet(range(10), min_seconds=0)
    for i in bar:
        assert bar._loop is None and bar.task is not None
        if i == 3:
            break
    task = finished(bar)
    assert (task.status, task.output["items"], task.output["total"]) == (TaskStatus.COMPLETED, 3, 10)


def test_there_an_exception_that_reaches_the_top_fails_the_task(own, cannot_tell, monkeypatch):
    bar = quiet(range(10), min_seconds=0)
    try:
        for i in bar:
            assert bar.task is not None
            if i == 3:
                i / 0
    except ZeroDivisionError as exc:
        monkeypatch.setattr(sys, "last_value", exc, raising=False)
    assert finished(bar).last_error.startswith("ZeroDivisionError")


# --- told at the next item


@each_path
def test_a_cancellation_is_raised_at_the_very_next_item(attempt, path):
    seen = []
    with running_in(attempt):
        bar = made(path, range(100_000), throttle_seconds=0)
        with pytest.raises(TaskCancelledError):
            for i in bar:
                seen.append(i)
                if i == 3000:  # chunks have 1,024 items by then
                    attempt.task.cancel()
                    attempt.report_progress(current=i)
                    until(lambda: bar._has_problem)
    assert seen[-1] == 3000


@each_path
def test_a_lost_lease_is_raised_at_the_very_next_item(attempt, fake_queue, path):
    seen = []
    with running_in(attempt):
        bar = made(path, range(100_000), throttle_seconds=0)
        with pytest.raises(LeaseExpiredError):
            for i in bar:
                seen.append(i)
                if i == 3000:
                    lost = {"lease_id": None, "worker_id": None, "status": TaskStatus.FAILED}
                    fake_queue.store.update(attempt.task_id, lambda r, now: r.evolve(**lost))
                    with contextlib.suppress(LeaseExpiredError):  # it may be known by now
                        attempt.report_progress(current=i, message="which is refused")
                    until(lambda: bar._has_problem)
    assert seen[-1] == 3000


def test_what_a_stopped_loop_leaves_in_its_iterator_is_what_comes_next(own):
    items = iter(range(100_000))
    bar = quiet((n for n in items), min_seconds=0, throttle_seconds=0, lease_seconds=5)
    with pytest.raises(TaskCancelledError):
        for i in bar:
            if i == 3000:
                own.cancel(bar.task.id)
                until(lambda: bar._has_problem)
    assert next(items) == 3001
    assert finished(bar).output["items"] == 3001


# --- the position at the end


def interrupted(bar, error):
    for i in bar:
        assert bar.task is not None
        if i == 215:
            raise error


@pytest.mark.parametrize(("error", "status"), [(KeyboardInterrupt(), "cancelled"), (ValueError("x"), "failed")])
def test_the_last_position_of_a_loop_that_did_not_end_is_kept(own, monkeypatch, error, status):
    bar = quiet(range(2000), min_seconds=0, unit="row")
    try:
        interrupted(bar, error)
    except (KeyboardInterrupt, ValueError) as exc:
        monkeypatch.setattr(sys, "last_value", exc, raising=False)
    assert bar._sink.wait(60)
    for task in (bar.task, own.get(bar.task.id)):  # the handle needs no refresh
        assert str(task.status) == status
        progress = task.record.last_progress
        assert (progress.current, progress.total, progress.percent, progress.unit) == (215, 2000, 10, "row")
        assert "215/2000" in repr(task)
        assert task.progress is None  # a task that has ended has none: the promise of the format
    assert task.output["items"] == 215 and task.output["total"] == 2000


def test_a_loop_left_at_three_of_ten_is_at_three_of_ten(own):
    bar = quiet(range(10), min_seconds=0)
    for i in bar:
        assert bar.task is not None
        if i == 3:
            break
    progress = finished(bar).record.last_progress
    assert (progress.current, progress.total, progress.percent) == (3, 10, 30)
    assert "3/10" in repr(bar.task)


def test_a_loop_that_used_its_items_up_is_at_a_hundred_percent(own):
    bar = quiet(range(10), min_seconds=0)
    for _ in bar:
        assert bar.task is not None
    progress = finished(bar).record.last_progress
    assert (progress.current, progress.total, progress.percent) == (10, 10, 100)
