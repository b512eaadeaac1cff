"""Waiting for tasks: `Task.wait`, `wait`, `as_completed`, `Queue.map`."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest

import oq_nb
from oq_nb.errors import (
    ConfigurationError,
    StorageDeniedError,
    StorageUnavailableError,
    TaskCancelledError,
    TaskFailedError,
    TaskNotFoundError,
    WaitTimeoutError,
)
from oq_nb.model import new_id
from oq_nb.queue import waiting, watcher


@pytest.fixture
def worker(fake_queue):
    with oq_nb.Worker(fake_queue, concurrency=4, max_poll_seconds=0.1) as worker:
        yield worker


@pytest.fixture
def fake_queue(fake_queue):
    """With a worker's handlers to come."""
    worker = oq_nb.Worker(fake_queue, concurrency=4, max_poll_seconds=0.1)

    @worker.task("double")
    def double(n):
        time.sleep(n / 100)
        return n * 2

    @worker.task("fail")
    def fail(n):
        raise oq_nb.PermanentError(f"no {n}")

    with worker:
        yield fake_queue


def test_wait_for_one(fake_queue):
    task = fake_queue.submit("double", 4)
    assert task.wait(20) is task
    assert task.result() == 8


def test_one_that_does_not_end_in_time(fake_queue):
    task = fake_queue.submit("nobody")
    with pytest.raises(WaitTimeoutError, match="still pending after 0.2 s; it goes on"):
        task.wait(0.2)
    with pytest.raises(TimeoutError):
        task.result(0)


def test_no_time_at_all_means_what_is_known_now(fake_queue):
    task = fake_queue.submit("double", 1)
    fake_queue.get(task.id).wait(20)
    assert not task.is_done
    assert task.result(0) == 2
    other = fake_queue.submit("double", 1)
    fake_queue.get(other.id).wait(20)
    assert oq_nb.wait([other], 0, progress=False).done == {other}


def test_one_that_is_deleted(fake_queue, fake_store):
    task = fake_queue.submit("nobody")
    threading.Timer(0.2, fake_store.delete, [task.record.key]).start()
    with pytest.raises(TaskNotFoundError, match=task.id):
        task.wait(20)


def test_a_store_that_is_away_is_waited_for(fake_queue, fake_store):
    task = fake_queue.submit("double", 5)
    fake_store.fault = _raise(StorageUnavailableError("gone"))
    threading.Timer(0.5, setattr, [fake_store, "fault", None]).start()
    assert task.result(30) == 10


def test_one_that_may_not_be_read(fake_queue, fake_store):
    task = fake_queue.submit("nobody")
    fake_store.fault = _raise(StorageDeniedError("no"))
    with pytest.raises(StorageDeniedError, match=task.id):
        task.wait(20)
    fake_store.fault = None


def _raise(error):
    def fault(kind, key, when):
        if threading.current_thread().name.startswith("oq-watch"):
            raise error

    return fault


def test_wait_for_all(fake_queue):
    tasks = fake_queue.submit_many("double", range(12))
    done, not_done = oq_nb.wait(tasks, 20)
    assert done == set(tasks)
    assert not_done == set()
    assert [task.output for task in tasks] == [n * 2 for n in range(12)], "the handles are up to date"


def test_wait_for_the_first(fake_queue):
    never = fake_queue.submit("nobody")
    soon = fake_queue.submit("double", 1)
    assert oq_nb.wait([never, soon], 20, "FIRST_COMPLETED") == ({soon}, {never})


def test_wait_for_the_first_that_failed(fake_queue):
    never, good, bad = fake_queue.submit("nobody"), fake_queue.submit("double", 1), fake_queue.submit("fail")
    done, not_done = oq_nb.wait([never, good, bad], 20, "FIRST_EXCEPTION")
    assert bad in done
    assert never in not_done


def test_wait_returns_when_the_time_is_over(fake_queue):
    never = fake_queue.submit("nobody")
    assert oq_nb.wait([never], 0.2) == (set(), {never})


def test_as_completed(fake_queue):
    slow, fast, bad = fake_queue.submit("double", 60), fake_queue.submit("double", 1), fake_queue.submit("fail")
    order = list(oq_nb.as_completed([slow, fast, bad, fast], timeout=20))
    assert len(order) == 3
    assert order[-1] == slow
    with pytest.raises(TaskFailedError):
        bad.result()


def test_as_completed_that_takes_too_long(fake_queue):
    soon, never = fake_queue.submit("double", 1), fake_queue.submit("nobody")
    seen = []
    with pytest.raises(WaitTimeoutError, match="1 of 2 tasks have not ended in time"):
        seen.extend(oq_nb.as_completed([never, soon], timeout=2))
    for task in oq_nb.as_completed([never, soon], timeout=20):
        assert task == soon
        break


def test_a_deleted_one_ends_its_part_of_the_waiting(fake_queue, fake_store):
    gone, soon = fake_queue.submit("nobody"), fake_queue.submit("double", 1)
    fake_store.delete(gone.record.key)
    assert set(oq_nb.as_completed([gone, soon], timeout=20)) == {gone, soon}
    with pytest.raises(TaskNotFoundError):
        gone.result()


def test_tasks_of_two_queues(fake_queue, queue):
    there = queue.submit("nobody")
    here = fake_queue.submit("double", 1)
    queue.cancel(there.id)
    assert oq_nb.wait([there, here], 20).not_done == set()


@pytest.mark.parametrize("tasks", [[new_id()], [None]])
def test_what_is_no_task(tasks):
    with pytest.raises(ConfigurationError, match="task handles are needed"):
        oq_nb.wait(tasks)


def test_nothing_to_wait_for():
    assert oq_nb.wait([]) == (set(), set())
    assert list(oq_nb.as_completed([])) == []


def test_a_wrong_return_when(fake_queue):
    with pytest.raises(ConfigurationError, match="return_when"):
        oq_nb.wait([], return_when="SOMETIME")


# --- map


def test_map_is_in_order(fake_queue):
    assert list(fake_queue.map("double", [30, 1, 20, 2])) == [60, 2, 40, 4]


def test_map_submits_at_once_and_without_inputs(fake_queue):
    results = fake_queue.map("double", range(3))
    assert len(results) == 3
    assert {task.task_type for task in results.tasks} == {"double"}
    assert list(results) == [0, 2, 4]
    assert next(results, None) is None
    assert list(fake_queue.map("double", [])) == []


def test_map_raises_where_the_result_would_be(fake_queue):
    good = fake_queue.submit_many("double", [1])
    results = fake_queue.map("double", [1, 2])
    results.tasks[1:] = [fake_queue.submit("fail", 7), *good]
    assert next(results) == 2
    with pytest.raises(TaskFailedError, match="no 7"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_map_takes_too_long(fake_queue):
    results = fake_queue.map("nobody", [1], timeout=0.3)
    with pytest.raises(TimeoutError):
        next(results)
    results.cancel()
    assert results.tasks[0].refresh().status == "cancelled"
    with pytest.raises(TaskCancelledError):
        results.tasks[0].result()


# --- the bar


def test_one_bar_for_the_group(fake_queue, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tasks = [*fake_queue.submit_many("double", range(5)), fake_queue.submit("fail")]
    oq_nb.wait(tasks, 20)
    shown = capsys.readouterr().err
    assert "6/6" in shown
    assert "1 failed" in shown
    tasks[0].wait(progress=True)
    fake_queue.submit("double", 50).wait(20, progress=True)
    assert "completed" in capsys.readouterr().err


def test_a_bar_shows_the_progress_of_the_present_attempt(fake_queue):
    from oq_nb.display.wait_bar import _TaskLine
    from oq_nb.model import Progress, transitions

    task = fake_queue.submit("t", max_retries=2)
    line = _TaskLine(task)

    def move(change, *arguments, **options):
        fake_queue.store.update(task.id, lambda record, now: change(record, *(arguments or (now,)), **options))
        task.refresh()
        line.show()
        return line._bar.n, line._bar.postfix

    def said(**progress):
        return Progress(updated_at=fake_queue.store.clock.stamp(), **progress)

    claim = {"worker_id": "w", "lease_seconds": 60}
    move(transitions.claim, lease_id="a", **claim)
    assert move(transitions.report, lease_id="a", progress=said(percent=90)) == (90, "running")
    assert move(transitions.report, lease_id="a", progress=said(message="nearly")) == (90, "running, nearly")
    assert move(transitions.retry, lease_id="a", error="no", chance=0.5) == (0, "pending (retrying)")
    assert move(transitions.claim, task.record.available_at, lease_id="b", **claim) == (0, "running")
    assert move(transitions.fail, lease_id="b", error="ValueError: no") == (0, "failed")
    line.close()


def test_no_bar_where_nobody_looks(fake_queue, capsys):
    oq_nb.wait(fake_queue.submit_many("double", range(3)), 20)
    assert capsys.readouterr().err == ""


def test_what_an_import_loads():
    code = "import sys, oq_nb; print(sorted({'IPython', 'ipywidgets', 'tqdm', 'boto3'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


def reads_of_a_wait(fake_queue, monkeypatch, seconds):
    """Return when a task is read that is waited for, in seconds since the beginning; requests take no time."""
    clock = Clock()
    monkeypatch.setattr(watcher, "time", clock)
    task = fake_queue.submit("a")
    made = watcher.TaskWatch(
        fake_queue.watcher,
        watcher.TaskState(task.id, task.snapshot),
        interval=waiting.LONGEST_SECONDS,
        longest=waiting.LONGEST_SECONDS,
        wants_workers=False,
        first=watcher.FIRST_SECONDS,
    )
    reads = []
    while made.due - 1000.0 <= seconds:
        clock.now = made.due
        reads.append(clock.now - 1000.0)
        made.plan(clock.now, 0.0, None)
    return reads


def test_a_wait_reads_soon_at_first_and_ever_more_rarely(fake_queue, monkeypatch):
    reads = reads_of_a_wait(fake_queue, monkeypatch, 3600.0)
    assert reads[0] == pytest.approx(0.01)
    for before, after in pairwise(reads):
        assert after - before <= max(0.01, 0.05 * before) + 1e-6  # no end is seen later than that
        assert after - before <= 2.2 + 1e-6
    within = {seconds: sum(at <= seconds for at in reads) for seconds in (0.2, 1.0, 10.0, 60.0, 3600.0)}
    assert within == {0.2: 20, 1.0: 52, 10.0: 100, 60.0: 137, 3600.0: 1746}
    # As before (0.1 s, then a quarter of the time, 2 s at most), which was 1,813 in an hour.
    assert within[3600.0] <= 1813


def test_the_pause_is_at_least_as_long_as_the_last_read_took(fake_queue):
    with fake_queue.watcher.watch(new_id(), interval=600.0) as watch:  # not read meanwhile
        made = watcher.TaskWatch(
            fake_queue.watcher, watch.state, interval=1.0, longest=1.0, wants_workers=False, first=0.01
        )
        now = time.monotonic()
        made.plan(now, 0.4, None)
        assert made.due - now == pytest.approx(0.4)


def test_a_long_interval_is_kept_from_the_start(fake_queue):
    with fake_queue.watcher.watch(new_id(), interval=60.0) as watch:
        assert watch.due - time.monotonic() < 1  # the first read
        watch.plan(1000.0, 0.0, None)
        assert watch.due - 1000.0 == pytest.approx(60.0)
