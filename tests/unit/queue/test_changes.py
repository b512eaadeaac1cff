"""`ChangeFeed`: every change is given once, however many there are between two looks."""

from __future__ import annotations

from collections import Counter

import pytest

from oq_nb.cli import watch
from oq_nb.errors import StorageUnavailableError
from oq_nb.queue.changes import ChangeFeed


def test_all_of_250_tasks_that_end_between_two_looks_are_given_once(fake_queue, fake_store):
    before = fake_queue.submit("t")
    feed = ChangeFeed(fake_queue.store)
    tasks = [fake_queue.submit("t").cancel() for _ in range(250)]
    fake_store.requests.clear()
    given = feed.read()
    assert [held.record.id for held in given] == [task.id for task in tasks]
    assert {held.record.status for held in given} == {"cancelled"}
    assert fake_store.requests == Counter(LIST=1, GET=250)
    assert feed.read() == []
    before.cancel()
    assert [held.record.id for held in feed.read()] == [before.id]


def test_what_a_look_without_an_answer_missed_is_given_by_the_next(fake_queue, fake_store):
    feed = ChangeFeed(fake_queue.store)
    task = fake_queue.submit("t")

    def fault(kind, key, when):
        if kind == "GET":
            raise StorageUnavailableError("503")

    fake_store.fault = fault
    with pytest.raises(StorageUnavailableError):
        feed.read()
    fake_store.fault = None
    assert [held.record.id for held in feed.read()] == [task.id]


def test_tail_prints_each_of_250_tasks_that_end_between_two_looks(fake_queue, monkeypatch, capsys):
    ids = []

    def sleep(seconds):
        if ids:
            raise KeyboardInterrupt
        ids.extend(fake_queue.submit("t").cancel().id for _ in range(250))

    monkeypatch.setattr(watch.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        watch.tail(fake_queue, 2.0, task_type=None, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[1] for line in lines] == ids
    assert all(line.endswith("  t cancelled") for line in lines)
