"""Handlers elsewhere: the same handler and context in processes and other executors, and what their crashes become."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from waiting import until

import oq_nb
from oq_nb.errors import ConfigurationError, PermanentError, RescheduleError, RetryableError, TaskFailedError
from oq_nb.model import RetryPolicy, TaskStatus, new_id, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.worker.executors.backend import make_backend

AT_ONCE = {"retry_policy": RetryPolicy(initial_interval_ms=0, max_interval_ms=0)}


def worker_on(queue, executor="processes", **options):
    return oq_nb.Worker(queue, executor=executor, max_poll_seconds=0.2, **options)


def spawned(size=1):
    """A pool of the standard library, as a user would make it."""
    return concurrent.futures.ProcessPoolExecutor(size, mp_context=multiprocessing.get_context("spawn"))


def pids_of_children():
    return {child.pid for child in psutil.Process().children(recursive=True)}


class Odd(Exception):
    """Cannot be unpickled: its constructor takes other arguments than it keeps."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def register_all(worker):
    """Handlers that are defined here, as in a cell of a notebook."""

    @worker.task("sum")
    def add(items, context):
        assert oq_nb.current_context() is context
        total = 0
        for item in oq_nb.track(items, desc="items", min_seconds=0, throttle_seconds=0.1):
            time.sleep(0.02)
            total += item
        return {"total": total, "pid": os.getpid(), "attempt": context.attempt, "type": context.task_type}

    @worker.task("coroutine")
    async def coroutine(value, context):
        await context.report_progress(current=1, total=4)
        return {"percent": context.progress.percent, "pid": os.getpid(), "value": value}

    @worker.task("raise")
    def raise_it(kind, context):
        context.report_progress(current=7, throttle_seconds=0)
        context.report_progress(current=8, throttle_seconds=60)
        if kind == "retry" and context.attempt == 1:
            raise RetryableError("once")
        if kind == "permanent":
            raise PermanentError("never")
        if kind == "reschedule" and context.attempt == 1:
            raise RescheduleError(0.0)
        if kind == "odd":
            raise Odd("one", "two")
        if kind == "lock":
            error = ValueError("holds a lock")
            error.lock = threading.Lock()
            raise error
        if kind == "output":
            return {1, 2}
        return context.attempt

    @worker.task("die")
    def die(attempts, context):
        context.report_progress(message=str(os.getpid()))
        if context.attempt <= attempts:
            os.kill(os.getpid(), signal.SIGKILL)
        return context.attempt

    @worker.task("wait")
    def wait_for(path, context):
        Path(path).write_text(str(os.getpid()))
        context.report_progress(message="waits")
        while Path(path).exists():
            time.sleep(0.02)
        return context.attempt

    return worker


@pytest.fixture
def worker(fake_queue):
    worker = register_all(worker_on(fake_queue))
    with worker:
        yield worker


def test_a_handler_in_a_process_sees_what_it_sees_in_a_thread(fake_queue, worker):
    task = fake_queue.submit("sum", list(range(100)))
    seen = until(lambda: task.refresh().progress)
    assert (seen.total, seen.message, seen.unit) == (100, "items", "it")
    output = task.result(60)
    assert output["pid"] not in (os.getpid(), None)
    assert {**output, "pid": 0} == {"total": 4950, "pid": 0, "attempt": 1, "type": "sum"}
    reported = [record.progress.current for record in task.history() if record.progress]
    assert len(reported) >= 3
    assert reported == sorted(reported)

    output = fake_queue.submit("coroutine", [1, None]).result(60)
    assert {**output, "pid": 0} == {"percent": 25, "pid": 0, "value": [1, None]}
    assert output["pid"] != os.getpid()


def test_what_a_handler_raises_comes_back_with_its_traceback(fake_queue, worker):
    seen = []
    worker.on_error(lambda context, error: seen.append(error))
    failed = {kind: fake_queue.submit("raise", kind) for kind in ("permanent", "odd", "lock", "output")}
    again = {kind: fake_queue.submit("raise", kind, **AT_ONCE) for kind in ("retry", "reschedule")}
    texts = {}
    for kind, task in failed.items():
        with pytest.raises(TaskFailedError):
            task.result(60)
        texts[kind] = task.last_error
        assert task.refresh().record.attempt == 1
        written = [record.progress.current for record in task.history() if record.progress]
        assert written == [7, 8], "what was held back is written"
    assert texts["permanent"].startswith("PermanentError: never\n")
    assert texts["odd"].startswith("Odd: one and two\n")
    assert texts["lock"].startswith("ValueError: holds a lock\n")
    assert "JSON" in texts["output"]
    for kind in ("permanent", "odd", "lock"):
        assert "in raise_it" in texts[kind], "where it was raised, in the other process"
    assert {kind: task.result(60) for kind, task in again.items()} == {"retry": 2, "reschedule": 2}
    assert again["retry"].refresh().record.retry_count == 1
    assert again["reschedule"].refresh().record.retry_count == 0
    until(lambda: len(seen) == 6)
    by_type = {type(error).__name__ for error in seen}
    assert {"PermanentError", "RetryableError", "RescheduleError", "RuntimeError"} <= by_type
    assert all("in raise_it" in str(error.__cause__) for error in seen if type(error) is PermanentError)


def test_exceptions_named_by_the_worker_are_retried(fake_queue):
    class Flaky(Exception):
        pass

    worker = worker_on(fake_queue, retry_on=[Flaky])

    @worker.task("flaky")
    def flaky(value, context):
        if context.attempt == 1:
            raise Flaky("try again")
        return context.attempt

    with worker:
        assert fake_queue.submit("flaky", **AT_ONCE).result(60) == 2


def test_a_killed_process_is_a_retry_and_concerns_one_task_only(fake_queue, tmp_path):
    with register_all(worker_on(fake_queue, concurrency=2)):
        flag = tmp_path / "flag"
        other = fake_queue.submit("wait", str(flag))
        until(lambda: other.refresh().progress)
        task = fake_queue.submit("die", 1, **AT_ONCE)
        assert task.result(60) == 2
        assert (task.refresh().record.retry_count, task.record.attempt) == (1, 2)
        flag.unlink()
        assert other.result(60) == 1
    errors = [record.last_error for record in task.history() if record.last_error]
    assert errors[0].startswith("LostProcess: process ")
    assert "killed, out of memory or crashed" in errors[0]
    pid = next(record.progress.message for record in task.history() if record.progress)
    assert f"process {pid} on " in errors[0]
    assert "SIGKILL" in errors[0]


def test_a_task_that_kills_each_process_fails_when_its_retries_are_used_up(fake_queue, worker):
    task = fake_queue.submit("die", 9, max_retries=1, **AT_ONCE)
    with pytest.raises(TaskFailedError, match="LostProcess"):
        task.result(60)
    assert task.record.attempt == 2
    assert fake_queue.submit("die", 0).result(60) == 1, "the worker goes on"


def test_a_request_to_stop_reaches_the_process(fake_queue):
    worker = worker_on(fake_queue)

    @worker.task("spin")
    def spin(value, context):
        context.report_progress(message="begun")
        while True:  # reports nothing: it is told by the worker
            context.raise_if_cancelled()
            sum(range(1000))

    @worker.task("loop")
    def loop(value):
        for _ in oq_nb.track(range(10_000), min_seconds=0, throttle_seconds=0.1):
            time.sleep(0.01)

    elsewhere = Queue(TaskStore(fake_queue.store.objects))  # the worker hears of it when it renews the lease
    with worker:
        for kind, lease_seconds, queue in (
            ("spin", 300, fake_queue),
            ("spin", 3, elsewhere),
            ("loop", 300, fake_queue),
            ("loop", 300, elsewhere),
        ):
            task = queue.submit(kind, timeout_seconds=lease_seconds)
            until(lambda task=task: task.refresh().progress)
            task.cancel()
            until(lambda task=task: task.refresh().status is TaskStatus.CANCELLED)
            assert task.record.attempt == 1


def test_a_lost_lease_reaches_the_process_at_its_next_report(fake_queue, tmp_path):
    log = tmp_path / "log"
    worker = worker_on(fake_queue)

    @worker.task("slow")
    def slow(path, context):
        context.report_progress(percent=1)
        if context.attempt > 1:
            return "second"
        try:
            while True:
                context.report_progress(percent=2)
                time.sleep(0.05)
        except oq_nb.LeaseExpiredError as exc:
            Path(path).write_text(f"{context.is_lease_lost} {exc}")
            raise

    with worker:
        task = fake_queue.submit("slow", str(log))
        until(lambda: task.refresh().progress)

        def steal(record, now):
            return record.evolve(lease_id=new_id(), worker_id="another", updated_at=now)

        fake_queue.store.update(task.id, steal)
        text = until(lambda: log.exists() and log.read_text())
        assert text.startswith("True ")
        assert task.id in text
        until(lambda: not worker.current_tasks)
        record = task.refresh().record
        assert (record.status, record.worker_id) == (TaskStatus.RUNNING, "another"), "nothing more was written"
        fake_queue.store.update(task.id, lambda record, now: transitions.release(record, now, lease_id=record.lease_id))
        assert task.result(60) == "second"


def test_stopping_gives_time_then_hands_back_and_ends_the_processes(fake_queue, tmp_path):
    worker = register_all(worker_on(fake_queue, concurrency=2))
    before = pids_of_children()
    worker.start()
    quick = fake_queue.submit("sum", list(range(25)))
    stuck = fake_queue.submit("wait", str(tmp_path / "flag"))
    until(lambda: stuck.refresh().progress and quick.refresh().progress)
    pid = int((tmp_path / "flag").read_text())
    worker.stop(10)  # far more than the one needs; the other would take for ever
    assert quick.refresh().status is TaskStatus.COMPLETED
    assert (stuck.refresh().status, stuck.record.retry_count) == (TaskStatus.PENDING, 0), stuck.record.last_error
    until(lambda: not psutil.pid_exists(pid), 10)
    alive = pids_of_children() - before
    names = [" ".join(psutil.Process(pid).cmdline()) for pid in alive if psutil.pid_exists(pid)]
    assert not [name for name in names if "loky" in name and "tracker" not in name], names
    worker.start()  # and again
    (tmp_path / "flag").unlink()
    assert fake_queue.submit("die", 0).result(60) == 1
    worker.stop(0)


@pytest.mark.skipif(os.name != "posix", reason="niceness is POSIX's")
def test_processes_give_way_to_everything_else(fake_queue):
    worker = worker_on(fake_queue)

    @worker.task("priority")
    def priority(value, context):
        autogroup, has_autogroups = (
            Path("/proc/self/autogroup"),
            Path("/proc/sys/kernel/sched_autogroup_enabled"),
        )
        if not autogroup.exists() or has_autogroups.read_text().strip() != "1":
            return {"nice": os.nice(0), "autogroup": None}
        deadline = time.monotonic() + 10
        while not autogroup.read_text().endswith("nice 10\n") and time.monotonic() < deadline:
            time.sleep(0.05)
        return {"nice": os.nice(0), "autogroup": autogroup.read_text(), "sid": os.getsid(0) == os.getpid()}

    with worker:
        found = fake_queue.submit("priority").result(60)
    assert found["nice"] == os.nice(0) + 10
    if found["autogroup"] is not None:
        assert found["autogroup"].endswith("nice 10\n")
        assert found["sid"], "the priority of the kernel's own session is left alone"


def test_processes_end_with_a_worker_that_is_killed(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, sys, time
            import oq_nb
            from oq_nb.queue import Queue
            from oq_nb.store import TaskStore
            from oq_nb.testing import FakeStore

            if __name__ == "__main__":
                queue = Queue(TaskStore(FakeStore()))
                worker = oq_nb.Worker(queue, executor="processes")

                @worker.task("spin")
                def spin(value, context):
                    context.report_progress(message=str(os.getpid()), throttle_seconds=0)
                    while not value:
                        sum(range(1000))
                    return str(os.getpid())

                worker.start()
                is_idle = sys.argv[1] == "kill while idle"
                task = queue.submit("spin", is_idle)
                while not is_idle and task.refresh().progress is None:
                    time.sleep(0.05)
                print(task.result(60) if is_idle else task.progress.message, flush=True)
                if "kill" in sys.argv[1]:
                    os.kill(os.getpid(), 9)
            """
        )
    )
    for how in ("kill", "kill while idle", "end"):  # the last: at its own end with a task that still runs
        done = subprocess.run([sys.executable, str(script), how], stdout=subprocess.PIPE, text=True, check=False)
        pid = int(done.stdout.strip())
        until(lambda pid=pid: not psutil.pid_exists(pid))  # it computes for ever, if nobody ends it


# --- executors of the user's own


def test_a_pool_of_the_users_is_used_and_left_alone(fake_queue):
    with spawned(2) as pool, register_all(worker_on(fake_queue, pool, concurrency=2)) as worker:
        outputs = [task.result(60) for task in fake_queue.submit_many("sum", [[1], [2, 3]])]
        assert [output["total"] for output in outputs] == [1, 5]
        assert os.getpid() not in {output["pid"] for output in outputs}
        worker.stop()
        assert pool.submit(abs, -1).result(30) == 1, "it is not shut down"
        worker.start()
        assert fake_queue.submit("coroutine", 1).result(60)["percent"] == 25


def test_a_broken_pool_of_the_users_is_said_and_nothing_more_is_claimed(fake_queue, caplog):
    with spawned() as pool, register_all(worker_on(fake_queue, pool)) as worker:
        task = fake_queue.submit("die", 1, **AT_ONCE)
        until(lambda: task.refresh().record.retry_count == 1)
        until(lambda: worker.problem)
        assert worker.problem.startswith("executor: it runs nothing any more (BrokenProcessPool")
        assert "claims nothing more" in repr(worker)
        assert [r.message for r in caplog.records if "claims nothing more" in r.message]
        later = fake_queue.submit("sum", [1])
        time.sleep(1.0)
        assert later.refresh().record.attempt == 0
        until(lambda: task.refresh().status is TaskStatus.PENDING)
        worker.stop()
        with pytest.raises(ConfigurationError, match="runs nothing any more"):
            worker.run()  # as a service would: it ends, with an error
    with register_all(worker_on(fake_queue)):
        assert task.result(60) >= 2
        assert later.result(60)["total"] == 1


def test_a_pool_from_a_function_is_made_anew(fake_queue):
    made = []

    def make():
        made.append(spawned(2))
        return made[-1]

    with register_all(worker_on(fake_queue, make, concurrency=2)):
        task = fake_queue.submit("die", 1, **AT_ONCE)
        assert task.result(60) == 2
        assert fake_queue.submit("sum", [1, 2]).result(60)["total"] == 3
        assert len(made) == 2
    with pytest.raises(RuntimeError, match="shutdown"):
        made[-1].submit(abs, 1)


def test_an_executor_of_threads_needs_nothing_to_be_sent(fake_queue):
    lock, seen = threading.Lock(), []
    with concurrent.futures.ThreadPoolExecutor(2) as pool, register_all(worker_on(fake_queue, pool)) as worker:

        @worker.task("here")
        def here(value, context):
            with lock:
                seen.append(oq_nb.current_context() is context)
            return threading.current_thread().name

        assert fake_queue.submit("here").result(30).startswith("ThreadPoolExecutor")
        assert fake_queue.submit("coroutine", 1).result(30)["pid"] == os.getpid()
        assert seen == [True]


def test_loky_itself_works_too(fake_queue):
    import loky

    pool = loky.get_reusable_executor(1, timeout=5)
    try:
        with register_all(worker_on(fake_queue, pool)):
            assert fake_queue.submit("sum", [1, 2]).result(60)["total"] == 3
    finally:
        pool.shutdown(kill_workers=True)


# --- what cannot be used


@pytest.mark.parametrize("executor", [5, "process", object(), 0.0])
def test_what_is_no_executor_is_named(fake_queue, executor):
    with pytest.raises(ConfigurationError, match="^executor: "):
        worker_on(fake_queue, executor)


def test_a_function_that_returns_no_executor_is_named(fake_queue):
    worker = register_all(worker_on(fake_queue, lambda: 5))
    with pytest.raises(ConfigurationError, match="^executor: the function returned int"):
        worker.start()


def test_a_handler_that_cannot_be_sent_is_named_at_the_start(fake_queue):
    lock = threading.Lock()
    worker = worker_on(fake_queue)

    @worker.task("locked")
    def locked(value):
        with lock:
            return value

    with pytest.raises(ConfigurationError, match=r"handler of 'locked': it cannot be sent .*inside the handler"):
        worker.start()
    assert not worker.is_running


def test_threads_are_the_default(fake_queue):
    assert make_backend(None, "w") is None
    assert make_backend("threads", "w") is None
    with register_all(worker_on(fake_queue, "threads")):
        assert fake_queue.submit("sum", [1]).result(30)["pid"] == os.getpid()
