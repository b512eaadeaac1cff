"""Workers that end by themselves: after so many attempts, or when there is nothing to run."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta

import pytest

import oq_nb
from oq_nb import aio
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import ConfigurationError, StorageUnavailableError
from oq_nb.model import TaskStatus, new_id, ready_key
from oq_nb.worker.backlog import Backlog
from oq_nb.worker.ending import Ending, RunLimits


def doubling(queue, **options):
    worker = oq_nb.Worker(queue, "w1", max_poll_seconds=0.2, **options)
    worker.task("a")(lambda value: value * 2)
    return worker


def test_a_worker_ends_when_it_is_idle_and_leaves_nothing_that_it_could_run(fake_queue):
    tasks = fake_queue.submit_many("a", range(50))
    later = fake_queue.submit("a", schedule_at=fake_queue.now() + timedelta(hours=1))
    foreign = fake_queue.submit("no handler for it")
    worker = doubling(fake_queue, concurrency=4)
    assert worker.run(until_idle=0.3) == "idle"
    assert (worker.tasks_completed, worker.tasks_failed) == (50, 0)
    assert {task.refresh().status for task in tasks} == {TaskStatus.COMPLETED}
    assert {later.refresh().status, foreign.refresh().status} == {TaskStatus.PENDING}
    assert fake_queue.counts() == {"ready": 1, "scheduled": 1, "running": 0}
    assert fake_queue.workers() == []
    assert not [thread.name for thread in threading.enumerate() if "w1" in thread.name]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_more_is_claimed_than_max_tasks(fake_queue, concurrency):
    tasks = fake_queue.submit_many("a", range(12))
    for _ in range(40):  # entries that lead nowhere count for nothing
        fake_queue.store.objects.put(f"ready/7/0000000001/7{new_id()[1:]}", b"")
    worker = doubling(fake_queue, concurrency=concurrency)
    assert worker.run(max_tasks=7) == "max_tasks"
    assert worker.tasks_completed == 7
    statuses = [task.refresh().status for task in tasks]
    assert statuses.count(TaskStatus.COMPLETED) == 7
    assert statuses.count(TaskStatus.PENDING) == 5
    assert {task.record.attempt for task in tasks} == {0, 1}
    assert worker.run(max_tasks=5) == "max_tasks"  # it can be run again
    assert {task.refresh().status for task in tasks} == {TaskStatus.COMPLETED}


def test_an_attempt_that_fails_counts_too(fake_queue):
    task = fake_queue.submit("a", max_retries=0)  # None cannot be doubled
    worker = doubling(fake_queue)
    assert worker.run(max_tasks=1) == "max_tasks"
    assert worker.tasks_failed == 1
    assert task.refresh().status is TaskStatus.FAILED


def test_a_running_task_keeps_a_worker_that_ends_when_idle(fake_queue):
    begun, gate = threading.Event(), threading.Event()
    worker = oq_nb.Worker(fake_queue, "w1", max_poll_seconds=0.1)

    @worker.task("slow")
    def slow(value):
        begun.set()
        assert gate.wait(30)
        return value

    task = fake_queue.submit("slow", 5)
    ends = []
    running = threading.Thread(target=lambda: ends.append(worker.run(until_idle=0)))
    running.start()
    assert begun.wait(20)
    running.join(1.2)  # two looks of `run` at whether it is idle
    assert running.is_alive()
    gate.set()
    running.join(20)
    assert ends == ["idle"]
    assert task.result(60) == 5


def test_what_is_submitted_at_the_last_moment_is_run(fake_queue):
    """Being idle for so long is not enough: the index is looked at once more after that."""
    worker = doubling(fake_queue)
    worker.set_limits(until_idle=0)
    late = []

    def submit_before_the_last_look(kind, key, when):
        if (kind, key, when) == ("LIST", "ready/", "before") and worker.is_running and len(late) < 1:
            late.append(None)
            late[0] = fake_queue.submit("a", 21)

    fake_queue.store.objects.fault = submit_before_the_last_look
    with worker:
        deadline = time.monotonic() + 20
        while (reached := worker.reached_limit()) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert reached == "idle"
    assert late[0].refresh().output == 42


class Polls:
    """What an `Ending` sees of a poller."""

    def __init__(self) -> None:
        self.quiet_since = time.monotonic()
        self.empty_rounds = 0


def test_idle_is_only_what_two_rounds_after_the_time_have_seen():
    polls, backlog = Polls(), Backlog(1)
    ending = Ending(RunLimits(until_idle=0), backlog, polls)
    polls.empty_rounds = 7
    assert ending.reached() is None
    assert backlog.clear_wake() == set()  # it has asked for a look
    polls.empty_rounds = 8  # this one may have been under way
    assert ending.reached() is None
    polls.empty_rounds = 9
    assert ending.reached() == "idle"
    polls.quiet_since = time.monotonic()  # something was found, or the store did not answer: all anew
    assert ending.reached() is None
    assert backlog.clear_wake() == set()


def test_an_outage_is_no_idleness(fake_queue, monkeypatch):
    monkeypatch.setattr("oq_nb.worker.polling.random.uniform", lambda low, high: 0.05)  # between two tries
    worker = doubling(fake_queue)
    worker.set_limits(until_idle=0.5)
    asked = threading.Semaphore(0)

    def out(kind, key, when):
        if kind == "LIST":
            asked.release()
            raise StorageUnavailableError("nobody there")

    with worker:
        fake_queue.store.objects.fault = out
        for _ in range(2):
            assert asked.acquire(timeout=20)
        before = worker._session.poller.empty_rounds
        quiet_since = worker._session.poller.quiet_since
        for _ in range(4):
            assert asked.acquire(timeout=20)
        assert worker._session.poller.quiet_since > quiet_since
        assert worker._session.poller.empty_rounds == before
        assert worker.reached_limit() is None
        fake_queue.store.objects.fault = None


def test_where_shards_take_turns_a_round_is_all_of_them(fake_queue):
    task = fake_queue.submit("a", schedule_at=fake_queue.now() + timedelta(hours=1))
    for _ in range(3000):
        task_id = new_id()
        record = task.record.evolve(id=task_id, shard=fake_queue.store.shard_of(task_id))
        fake_queue.store.objects.put(ready_key(record), b"")
    worker = doubling(fake_queue)
    session = worker._open_session(Scheduler("test"), None)
    rounds = []
    for _ in range(1 + 3 * 17):
        session.poller.find_tasks()
        rounds.append(session.poller.empty_rounds)
    assert rounds[0] <= 1
    assert rounds[-1] in (3, 4)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"until_idle": -1}, "until_idle: a number of seconds"),
        ({"until_idle": "30"}, "until_idle: a number of seconds"),
        ({"until_idle": True}, "until_idle: a number of seconds"),
        ({"max_tasks": 0}, "max_tasks: a whole number from 1"),
        ({"max_tasks": 1.5}, "max_tasks: a whole number from 1"),
    ],
)
def test_limits_that_make_no_sense_are_refused_before_anything_is_written(fake_queue, limits, words):
    worker = doubling(fake_queue)
    with pytest.raises(ConfigurationError, match=words):
        worker.run(**limits)
    assert not worker.is_running
    assert fake_queue.workers() == []


def test_a_started_worker_takes_no_limits(fake_queue):
    with doubling(fake_queue) as worker:
        with pytest.raises(ConfigurationError, match="started already"):
            worker.run(max_tasks=1)
        assert worker.is_running


def test_the_coroutine_form_ends_too(fake_queue):
    fake_queue.submit_many("a", range(3))
    worker = aio.Worker(fake_queue, "w1", max_poll_seconds=0.2)
    worker.task("a")(lambda value: value * 2)
    assert asyncio.run(worker.run(max_tasks=3)) == "max_tasks"
    assert worker.sync.tasks_completed == 3
