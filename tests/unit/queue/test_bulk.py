"""Many submissions: at the pace that the store bears, in bounded memory, in order."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
import tracemalloc

import pytest

from oq_nb import aio
from oq_nb.errors import ConfigurationError, StorageUnavailableError
from oq_nb.queue.bulk import MOST_AHEAD, Pace, in_parallel


def settled(seconds, busy_seconds, calls=100):
    pace = Pace()
    for _ in range(calls):
        pace.note(seconds, busy_seconds)
    return pace.limit


def test_as_many_calls_are_under_way_as_fit_into_the_time_that_one_waits():
    assert Pace().limit == 16  # before anything is known
    assert settled(0.004, 0.001) == 6  # a store next door
    assert settled(0.020, 0.001) == 30
    assert settled(0.050, 0.001) == 64  # one at a distance
    assert settled(0.001, 0.001) == 4
    assert settled(1.0, 0.0) == 16  # a platform that does not tell


def test_a_store_that_becomes_slow_is_noticed():
    pace = Pace()
    for _ in range(1000):
        pace.note(0.004, 0.001)
    assert pace.limit == 6
    for _ in range(500):
        pace.note(0.050, 0.001)
    assert pace.limit > 50


def test_arguments_are_taken_as_they_are_needed_and_results_keep_their_order():
    taken = []

    def numbers():
        for number in itertools.count():
            taken.append(number)
            yield number

    results = in_parallel(lambda number: number * 2, numbers(), name="oq-test")
    assert [next(results).result() for _ in range(500)] == list(range(0, 1000, 2))
    assert len(taken) <= 500 + MOST_AHEAD
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("oq-test")]


def test_a_call_that_takes_long_holds_up_no_others():
    """S3 takes ten times as long for one request in a hundred, and a request that is tried again takes seconds."""
    ended, others_done, may_end = [], threading.Event(), threading.Event()

    def call(number):
        if number == 20:
            assert may_end.wait(60)
        else:
            ended.append(number)
        if len(ended) == 20 + MOST_AHEAD - 1:
            others_done.set()
        return number

    def numbers():
        for number in range(1000):
            taken.append(number)
            yield number

    taken: list[int] = []
    results = in_parallel(call, numbers(), name="oq-test")
    assert [next(results).result() for _ in range(20)] == list(range(20))
    rest: list[int] = []
    reader = threading.Thread(target=lambda: rest.extend(future.result() for future in results), name="oq-test-reader")
    reader.start()
    assert others_done.wait(60), f"only {len(ended)} calls ended beside the one that takes long"
    assert len(taken) == 20 + MOST_AHEAD, "memory is bounded"
    assert not rest, "in order"
    may_end.set()
    reader.join(60)
    assert rest == list(range(20, 1000))


def test_never_more_calls_are_under_way_than_the_pace_allows(monkeypatch):
    monkeypatch.setattr(Pace, "note", lambda *_: None)
    under_way, most, lock = 0, 0, threading.Lock()

    def call(number):
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1

    for _ in in_parallel(call, range(300), name="oq-test"):
        pass
    assert most == Pace().limit == 16


def test_an_endless_iterator_is_submitted_as_far_as_it_is_asked_for(fake_queue):
    tasks = list(itertools.islice(fake_queue.submit_iter("a", itertools.count(), timeout_seconds=7), 100))
    assert [task.input for task in tasks] == list(range(100))
    assert {task.record.timeout_seconds for task in tasks} == {7}
    assert 100 <= fake_queue.counts()["ready"] <= 100 + MOST_AHEAD
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("oq-submit")]


def test_nothing_is_submitted_before_it_is_asked_for(fake_queue):
    fake_queue.submit_iter("a", range(10))
    assert not fake_queue.store.objects.requests


def test_memory_does_not_grow_with_the_number_of_tasks(fake_queue, monkeypatch):
    store = fake_queue.store.objects
    put = store.put

    def forgotten(key, body, **options):  # a store that keeps nothing
        made = put(key, body, **options)
        store._keys.clear()
        return made

    monkeypatch.setattr(store, "put", forgotten)

    def most(count):
        tracemalloc.start()
        try:
            for _ in fake_queue.submit_iter("a", ("x" * 1000 for _ in range(count))):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    most(200)
    few, many = most(500), most(5000)
    each = 10_000  # bytes of a task that is kept; if all were: 45 MB more
    assert many < few + MOST_AHEAD * each, "no more than those that may wait for an earlier one"


def test_an_error_is_raised_in_its_place(fake_queue):
    def fault(kind, key, when):
        if kind == "PUT" and key.startswith("tasks/") and when == "before":
            seen.append(key)
            if len(seen) == 40:
                raise StorageUnavailableError("no answer")

    seen: list[str] = []
    fake_queue.store.objects.fault = fault
    given = []
    with pytest.raises(StorageUnavailableError):
        for task in fake_queue.submit_iter("a", range(1000)):
            given.append(task)
    assert [task.input for task in given] == list(range(len(given)))
    assert len(seen) <= 40 + MOST_AHEAD
    fake_queue.store.objects.fault = None


def test_an_input_that_is_not_usable_ends_it_in_its_place(fake_queue):
    given = []
    with pytest.raises(ConfigurationError, match="input: not something that JSON holds"):
        for task in fake_queue.submit_iter("a", [1, 2, object(), 4]):
            given.append(task.input)
    assert fake_queue.counts()["ready"] == 2
    with pytest.raises(ConfigurationError, match="idempotency_key"):
        fake_queue.submit_iter("a", [1], idempotency_key="k")
    with pytest.raises(ConfigurationError, match="an iterable of inputs"):
        fake_queue.submit_iter("a", "text")


def test_the_coroutine_form(fake_queue):
    async def some():
        queue = aio.Queue(fake_queue)
        return [task.sync.input async for task in queue.submit_iter("a", range(20))]

    assert asyncio.run(some()) == list(range(20))
