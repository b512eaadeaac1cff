"""Workers on the fake store: handlers of every kind, how an attempt ends, hooks, stopping, what is refused."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter

import pytest
from waiting import until

import oq_nb
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import (
    ConfigurationError,
    LeaseExpiredError,
    RetryableError,
    StorageUnavailableError,
    TaskCancelledError,
    TaskFailedError,
)
from oq_nb.model import RetryPolicy, TaskStatus, new_id, ready_key, transitions

SOON = RetryPolicy(initial_interval_ms=10, max_interval_ms=20, multiplier=1.0, jitter_percent=0.0)


@pytest.fixture
def worker(fake_queue):
    made = oq_nb.Worker(fake_queue, "w1", max_poll_seconds=0.2)
    yield made
    made.stop()


# --- handlers


class Doubles:
    task_type = "object"

    def handle(self, value, context):
        return [value * 2, context.attempt]


class DoublesLater:
    task_type = "async object"

    async def handle(self, value, context):
        await asyncio.sleep(0)
        await context.report_progress(percent=50)
        return [value * 2, context.attempt]


def test_functions_with_and_without_the_context(worker, fake_queue):
    @worker.task("plain")
    def plain(value):
        return value + 1

    @worker.task("with context")
    def with_context(value, context):
        return [context.attempt, context.task_id]

    @worker.task("named so")
    def named_so(value, context=None):
        return context is not None

    @worker.task("default")
    def default(value, other=5):
        return other

    worker.task("lambda")(lambda value: value * 3)
    worker.register(Doubles())
    worker.register(DoublesLater())

    @worker.task("async")
    async def later(value, context):
        await asyncio.sleep(0)
        return value

    assert plain(1) == 2  # the decorator returns the function as it is
    with worker:
        assert fake_queue.submit("plain", 1).result(20) == 2
        task = fake_queue.submit("with context", None)
        assert task.result(20) == [1, task.id]
        assert fake_queue.submit("named so").result(20) is True
        assert fake_queue.submit("default").result(20) == 5
        assert fake_queue.submit("lambda", "ab").result(20) == "ababab"
        assert fake_queue.submit("object", 4).result(20) == [8, 1]
        assert fake_queue.submit("async object", 4).result(20) == [8, 1]
        assert fake_queue.submit("async", {"a": [1, None]}).result(20) == {"a": [1, None]}


@pytest.mark.parametrize(
    ("register", "words"),
    [
        (lambda w: w.task("a")(5), "a function is needed, not int"),
        (lambda w: w.task("a")(lambda: 1), r"it is called with \(input\) or \(input, context\)"),
        (lambda w: w.task("a")(lambda a, b, c: 1), "but it takes"),
        (lambda w: w.task(""), "task_type: it is empty"),
        (lambda w: w.task("x" * 201), "at most 200"),
        (lambda w: w.task(lambda value: 1), "task_type: text is needed"),
        (lambda w: w.register(object()), "it needs task_type and handle"),
    ],
)
def test_what_cannot_be_a_handler_is_refused_at_once(worker, register, words):
    with pytest.raises(ConfigurationError, match=words):
        register(worker)


def test_a_handler_that_is_registered_late_gets_the_tasks_that_waited(worker, fake_queue):
    worker.task("other")(lambda value: value)
    with worker:
        task = fake_queue.submit("late", 1)
        until(lambda: fake_queue.store.objects.requests["GET"] >= 1)
        assert task.refresh().status is TaskStatus.PENDING
        worker.task("late")(lambda value: value + 1)
        assert task.result(20) == 2


# --- how an attempt ends


def test_an_ordinary_exception_fails_the_task_at_once_with_its_traceback(worker, fake_queue):
    @worker.task("a")
    def handle(value):
        return {}["missing key"]

    with worker:
        task = fake_queue.submit("a", max_retries=3)
        with pytest.raises(TaskFailedError, match="KeyError: 'missing key'") as failed:
            task.result(20)
    assert (task.attempt, task.record.retry_count) == (1, 0)
    lines = task.last_error.splitlines()
    assert lines[0] == "KeyError: 'missing key'"
    assert 'return {}["missing key"]' in task.last_error
    assert "The handler's error, as stored with the task:" in "\n".join(failed.value._render_traceback_())


@pytest.mark.parametrize("error", [oq_nb.RetryableError("again"), ConnectionResetError("reset")], ids=repr)
def test_what_may_pass_is_tried_again_after_its_delay(fake_queue, error):
    worker = oq_nb.Worker(fake_queue, retry_on=(ConnectionError,), max_poll_seconds=0.2)

    @worker.task("a")
    def handle(value, context):
        if context.attempt < 3:
            raise error
        return context.attempt

    with worker:
        task = fake_queue.submit("a", retry_policy=SOON)
        assert task.result(20) == 3
    assert task.record.retry_count == 2
    assert [str(r.status) for r in task.history()] == ["pending", *["running", "pending"] * 2, "running", "completed"]


def test_retries_are_used_up(worker, fake_queue):
    @worker.task("a")
    def handle(value):
        raise oq_nb.RetryableError("the service is down")

    with worker:
        task = fake_queue.submit("a", max_retries=2, retry_policy=SOON)
        with pytest.raises(TaskFailedError, match="the service is down"):
            task.result(20)
    assert (task.attempt, task.record.retry_count) == (3, 2)


def test_a_permanent_error_is_not_tried_again(fake_queue):
    worker = oq_nb.Worker(fake_queue, retry_on=(Exception,), max_poll_seconds=0.2)

    @worker.task("a")
    def handle(value):
        raise oq_nb.PermanentError("no such customer")

    with worker:
        task = fake_queue.submit("a", retry_policy=SOON)
        with pytest.raises(TaskFailedError, match="no such customer"):
            task.result(20)
    assert task.attempt == 1


def test_a_handler_can_put_its_task_off(worker, fake_queue):
    @worker.task("a")
    def handle(value, context):
        if context.attempt == 1:
            raise oq_nb.RescheduleError(0.05)
        return context.attempt

    with worker:
        task = fake_queue.submit("a")
        assert task.result(20) == 2
    assert (task.record.retry_count, task.record.reschedule_count) == (0, 1)


def test_an_output_that_is_not_json_fails_the_task(worker, fake_queue):
    worker.task("a")(lambda value: {1, 2})
    with worker:
        task = fake_queue.submit("a")
        with pytest.raises(TaskFailedError, match="set is not JSON serializable"):
            task.result(20)


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt()], ids=repr)
def test_a_handler_that_wants_to_leave_fails_its_task_and_not_the_worker(worker, fake_queue, error):
    @worker.task("a")
    def handle(value):
        if value:
            raise error
        return "still here"

    with worker:
        with pytest.raises(TaskFailedError, match=type(error).__name__):
            fake_queue.submit("a", 1).result(20)
        assert fake_queue.submit("a", 0).result(20) == "still here"


def test_a_handler_that_stops_because_it_was_asked_to_ends_as_cancelled(worker, fake_queue):
    begun = threading.Event()

    @worker.task("a")
    def handle(value, context):
        begun.set()
        while True:
            context.report_progress(message="going on")
            context.raise_if_cancelled()

    with worker:
        task = fake_queue.submit("a")
        assert begun.wait(20)
        task.cancel("not needed")
        assert task.record.cancel_requested
        with pytest.raises(TaskCancelledError):
            task.result(20)
    assert task.status is TaskStatus.CANCELLED
    assert task.record.cancelled_at is not None


def test_a_handler_that_reports_nothing_is_told_at_once_by_its_own_process(worker, fake_queue):
    """Its lease lasts 300 s: it would be told by the renewal, after 100 s."""
    begun = threading.Event()

    @worker.task("a")
    def handle(value, context):
        begun.set()
        while True:
            context.raise_if_cancelled()
            time.sleep(0.01)

    with worker:
        task = fake_queue.submit("a")
        assert begun.wait(20)
        task.cancel()
        with pytest.raises(TaskCancelledError):
            task.result(20)
    assert task.status is TaskStatus.CANCELLED


def test_progress_is_cleared_at_the_end_and_kept_in_the_history(worker, fake_queue):
    @worker.task("a")
    def handle(value, context):
        for percent in (25, 50, 75):
            context.report_progress(percent=percent, message=f"Processing batch {percent // 25}")
        return "done"

    with worker:
        task = fake_queue.submit("a")
        assert task.result(20) == "done"
    assert task.progress is None
    assert [r.progress.percent for r in task.history() if r.progress] == [25, 50, 75]


def test_a_task_that_waited_too_long_is_expired_not_run(worker, fake_queue):
    ran = []
    worker.task("a")(ran.append)
    task = fake_queue.submit("a", ttl_seconds=0.5)
    until(lambda: fake_queue.now() > task.record.expires_at)
    with worker, pytest.raises(TaskFailedError, match="no worker took it in time"):
        task.result(20)
    assert task.status is TaskStatus.EXPIRED
    assert ran == []


def test_a_delayed_task_waits_for_its_time(worker, fake_queue):
    from datetime import timedelta

    worker.task("a")(lambda value: value)
    with worker:
        at = fake_queue.now() + timedelta(seconds=0.6)
        task = fake_queue.submit("a", 1, schedule_at=at)
        task.result(20)
    started = next(r for r in task.history() if r.status is TaskStatus.RUNNING)
    assert started.updated_at >= at


def test_an_expired_lease_is_taken_over_and_the_former_owners_result_thrown_away(fake_queue, caplog):
    gate, outcome = threading.Event(), []
    first = oq_nb.Worker(fake_queue, "first", renew_leases=False, max_poll_seconds=0.2)
    second = oq_nb.Worker(fake_queue, "second", max_poll_seconds=0.2)

    @first.task("a")
    def slow(value, context):
        gate.wait(20)
        try:
            context.report_progress(percent=50)
        except LeaseExpiredError:
            outcome.append("told")
            raise
        return "mine"

    second.task("a")(lambda value, context: f"attempt {context.attempt}")
    with first:
        task = fake_queue.submit("a", timeout_seconds=1, retry_policy=SOON)
        until(lambda: task.refresh().status is TaskStatus.RUNNING)
        with second:
            assert task.result(30) == "attempt 2"
            gate.set()
            until(lambda: outcome)
    assert task.refresh().output == "attempt 2"
    assert "is thrown away" in caplog.text


# --- several at a time


def test_as_many_at_a_time_as_asked_for(fake_queue):
    worker = oq_nb.Worker(fake_queue, concurrency=4, max_poll_seconds=0.2)
    together = threading.Barrier(4, timeout=20)

    @worker.task("a")
    def handle(value):
        together.wait()
        return value

    with worker:
        assert [task.result(30) for task in fake_queue.submit_many("a", range(8))] == list(range(8))


def test_each_task_runs_once_with_several_workers(fake_queue):
    ran: Counter[int] = Counter()
    workers = [oq_nb.Worker(fake_queue, f"w{n}", concurrency=3, max_poll_seconds=0.2) for n in range(3)]
    for worker in workers:
        worker.task("a")(lambda value: ran.update([value]))
        worker.start()
    try:
        for task in fake_queue.submit_many("a", range(60)):
            task.result(30)
    finally:
        for worker in workers:
            worker.stop()
    assert ran == Counter(range(60))
    assert sum(worker.tasks_completed for worker in workers) == 60


def test_only_its_own_shards(fake_queue):
    worker = oq_nb.Worker(fake_queue, shards=["0", "1"], max_poll_seconds=0.1)
    worker.task("a")(lambda value: value)
    tasks = fake_queue.submit_many("a", range(64))
    own = [task for task in tasks if task.id[0] in "01"]
    with worker:
        for task in own:
            task.result(20)
    assert {task.id[0] for task in tasks if task.refresh().is_done} <= {"0", "1"}


# --- hooks


def test_hooks_are_called_and_a_failing_one_harms_nobody(worker, fake_queue, caplog):
    seen = []
    worker.on_startup(lambda: seen.append("startup"))
    worker.on_shutdown(lambda: seen.append("shutdown"))

    @worker.on_success
    def succeeded(context, output):
        seen.append(("success", context.task_type, output))
        raise RuntimeError("a bug in a hook")

    @worker.on_error
    def failed(context, error):
        seen.append(("error", context.task_type, repr(error)))

    worker.task("good")(lambda value: value)
    worker.task("bad")(lambda value: 1 / 0)
    with worker:
        fake_queue.submit("good", 1).result(20)
        with pytest.raises(TaskFailedError):
            fake_queue.submit("bad").result(20)
        until(lambda: len(seen) == 3)
    assert seen == [
        "startup",
        ("success", "good", 1),
        ("error", "bad", "ZeroDivisionError('division by zero')"),
        "shutdown",
    ]
    assert "a bug in a hook" in caplog.text


# --- starting and stopping


def test_a_worker_without_handlers_does_not_start(fake_queue):
    with pytest.raises(ConfigurationError, match=r"register one with @worker\.task"):
        oq_nb.Worker(fake_queue).start()


def test_a_store_that_ignores_conditions_is_refused_before_anything_is_claimed(fake_queue, worker):
    put = fake_queue.store.objects.put
    fake_queue.store.objects.put = lambda key, body, *, if_match=None, create=False, before_try=None: put(key, body)
    worker.task("a")(lambda value: value)
    task = fake_queue.submit("a")
    with pytest.raises(ConfigurationError, match="ignores If-Match on writes"):
        worker.start()
    assert not worker.is_running
    assert task.refresh().status is TaskStatus.PENDING


def test_start_and_stop_again_and_again(worker, fake_queue):
    worker.task("a")(lambda value: value)
    for number in range(3):
        assert worker.start() is worker
        worker.start()
        assert worker.is_running
        assert fake_queue.submit("a", number).result(20) == number
        worker.stop()
        worker.stop()
        assert not worker.is_running
        assert not [t.name for t in threading.enumerate() if "w1" in t.name]
    assert worker.tasks_completed == 3


def test_its_threads_are_daemons_with_names_of_ours(worker):
    worker.task("a")(lambda value: value)
    with worker:
        own = [thread for thread in threading.enumerate() if "w1" in thread.name]
        assert len(own) >= 2
        assert all(thread.daemon and thread.name.startswith("oq-") for thread in own)


def test_stopping_lets_a_running_task_finish(worker, fake_queue):
    begun = threading.Event()

    @worker.task("a")
    def handle(value):
        begun.set()
        time.sleep(0.3)
        return "finished"

    worker.start()
    task = fake_queue.submit("a")
    assert begun.wait(20)
    worker.stop()
    assert task.refresh().output == "finished"
    assert task.attempt == 1


def test_what_does_not_finish_in_time_is_handed_back_at_once(worker, fake_queue):
    begun, gate, outcome = threading.Event(), threading.Event(), []

    @worker.task("a")
    def handle(value, context):
        begun.set()
        gate.wait(20)
        try:
            context.report_progress(percent=1)
        except LeaseExpiredError:
            outcome.append("told")

    worker.start()
    task = fake_queue.submit("a")
    assert begun.wait(20)
    worker.stop(timeout=0.1)
    assert task.refresh().status is TaskStatus.PENDING
    assert (task.attempt, task.record.retry_count) == (1, 0)
    assert transitions.is_claimable(task.record, fake_queue.now())
    gate.set()
    until(lambda: outcome)
    until(lambda: not [t for t in threading.enumerate() if "w1" in t.name])
    other = oq_nb.Worker(fake_queue, max_poll_seconds=0.2)
    other.task("a")(lambda value, context: context.attempt)
    with other:
        assert task.result(20) == 2


def test_a_task_claimed_while_it_stops_is_handed_back_not_begun(fake_queue):
    """The claim's answer is on its way when `stop` begins, and comes when its patience is over."""
    worker = oq_nb.Worker(fake_queue, "w1", max_poll_seconds=0.2)
    began, answered, claiming = [], threading.Event(), threading.Event()
    worker.task("t")(began.append)
    task = fake_queue.submit("t")

    def slow_claim(kind, key, when):
        if (kind, when) == ("PUT", "after") and key == task.record.key and not claiming.is_set():
            claiming.set()
            assert answered.wait(20)

    fake_queue.store.objects.fault = slow_claim
    worker.start()
    assert claiming.wait(20)
    stopper = threading.Thread(target=worker.stop, args=(0.1,))
    stopper.start()
    until(lambda: not worker.is_running)
    time.sleep(0.3)
    answered.set()
    stopper.join(20)
    assert not stopper.is_alive()
    fake_queue.store.objects.fault = None
    assert (task.refresh().status, task.attempt, task.record.retry_count) == ("pending", 1, 0)
    assert began == []


def test_a_handler_that_did_not_stop_is_none_of_the_workers_business_when_it_starts_again(fake_queue):
    worker = oq_nb.Worker(fake_queue, "w1", max_poll_seconds=0.2)
    go, started = threading.Event(), threading.Event()

    @worker.task("stuck")
    def stuck(value, context):
        if context.attempt == 1:
            started.set()
            assert go.wait(30)
        return context.attempt

    worker.task("t")(lambda value: value)
    task = fake_queue.submit("stuck")
    worker.start()
    assert started.wait(20)
    (old,) = [thread for thread in threading.enumerate() if thread.name.startswith("oq-handler-w1")]
    worker.stop(timeout=0.05)
    assert worker.current_tasks == []
    worker.start()
    try:
        assert fake_queue.submit("t", 1).result(timeout=20) == 1, "its one place is free"
        assert task.result(timeout=20) == 2, "the task was handed back, and run again"
        go.set()
        old.join(20)
        assert not old.is_alive(), "it does not go on beside the new one"
        assert fake_queue.submit("t", 2).result(timeout=20) == 2
        until(lambda: "0/1 busy" in repr(worker))  # a moment after its result is there
    finally:
        go.set()
        worker.stop()
    assert worker.tasks_completed == 3
    assert [str(record.status) for record in task.history()].count("completed") == 1


def test_a_worker_registers_says_what_it_does_and_leaves_no_trace(worker, fake_queue):
    begun, gate = threading.Event(), threading.Event()

    @worker.task("a")
    def handle(value):
        begun.set()
        gate.wait(20)

    with worker:
        task = fake_queue.submit("a")
        assert begun.wait(20)
        (found,) = fake_queue.workers()
        assert (found.worker_id, found.task_types, len(found.shards)) == ("w1", ["a"], 16)
        worker._session.heartbeat.run_due()
        (found,) = fake_queue.workers()
        assert (found.current_task, found.current_tasks) == (task.id, [task.id])
        assert len(list(fake_queue.store.objects.versions("workers/"))) == 1
        assert "1/1 busy" in repr(worker)
        assert "running" in repr(worker)
        gate.set()
        task.wait(20)
    assert fake_queue.workers() == []
    assert list(fake_queue.store.objects.versions("workers/")) == []
    assert "stopped" in repr(worker)


def test_an_outage_is_survived_and_said_once(worker, fake_queue, caplog):
    worker.task("a")(lambda value: value)

    def out(kind, key, when):
        raise StorageUnavailableError("nobody there", key=key)

    with worker, caplog.at_level(logging.WARNING, "oq_nb.worker"):
        fake_queue.store.objects.fault = out
        worker.wake()
        until(lambda: "cannot look for tasks" in caplog.text)
        worker.wake()
        time.sleep(0.3)
        fake_queue.store.objects.fault = None
        assert fake_queue.submit("a", 1).result(30) == 1
    assert caplog.text.count("cannot look for tasks") == 1


def test_an_idle_worker_asks_less_and_less(fake_queue):
    poller = oq_nb.Worker(fake_queue, max_poll_seconds=15)._open_session(Scheduler("test"), None).poller
    pauses = [poller.pause_after(idle) for idle in (0, 1, 4, 20, 600)]
    assert pauses == sorted(pauses)
    assert pauses[0] <= 0.1
    assert 12 <= pauses[-1] <= 15


def test_work_in_the_same_process_is_seen_at_once(fake_queue):
    worker = oq_nb.Worker(fake_queue, max_poll_seconds=60)
    worker.task("a")(lambda value: value)
    with worker:
        worker._session.poller.pause_after = lambda idle: 60.0
        time.sleep(0.3)
        assert fake_queue.submit("a", 1).result(20) == 1


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": "two"}, "concurrency"),
        ({"concurrency": True}, "concurrency"),
        ({"worker_id": "a/b"}, "worker_id"),
        ({"worker_id": ""}, "worker_id"),
        ({"worker_id": "a\n"}, "worker_id"),
        ({"shards": []}, "shards"),
        ({"shards": ["g"]}, "shards"),
        ({"progress_throttle_seconds": -1}, "progress_throttle_seconds"),
        ({"max_poll_seconds": float("nan")}, "max_poll_seconds"),
        ({"lease_entry_delay_seconds": 61}, "lease_entry_delay_seconds"),
        ({"lease_entry_delay_seconds": True}, "lease_entry_delay_seconds"),
    ],
    ids=str,
)
def test_arguments_that_cannot_be_used(fake_queue, options, named):
    with pytest.raises(ConfigurationError, match=f"^{named}: "):
        oq_nb.Worker(fake_queue, **options)


def test_something_else_than_a_queue():
    with pytest.raises(ConfigurationError, match=r"^queue: what connect\(\) returns"):
        oq_nb.Worker("my-bucket")


def test_a_dead_workers_task_is_recovered_from_its_ready_entry(worker, fake_queue):
    """A worker that died between its claim and its lease entry leaves the ready entry: that leads to the task."""
    task = fake_queue.submit("a", timeout_seconds=1, retry_policy=SOON)
    held = fake_queue.store.read(task.id)
    dead = transitions.claim(
        held.record, fake_queue.store.clock.stamp(), lease_id=new_id(), worker_id="dead", lease_seconds=0.2
    )
    fake_queue.store.move(held, dead)
    worker.task("a")(lambda value, context: context.attempt)
    with worker:
        assert task.result(30) == 2
    assert task.record.retry_count == 1


def _entries(queue):
    return {prefix: [entry.task_id for entry in queue.store.index.scan(prefix)] for prefix in ("ready/", "leases/")}


def test_a_lease_entry_may_come_later_and_takes_the_ready_entrys_place_then(fake_queue):
    goes_on = threading.Event()
    worker = oq_nb.Worker(fake_queue, lease_entry_delay_seconds=0.5)
    worker.task("a")(lambda value: goes_on.wait(20))
    task = fake_queue.submit("a")
    with worker:
        until(lambda: task.refresh().status == "running")
        assert _entries(fake_queue) == {"ready/": [task.id], "leases/": []}
        until(lambda: _entries(fake_queue) == {"ready/": [], "leases/": [task.id]})
        goes_on.set()
        assert task.result(20) is True
    assert _entries(fake_queue) == {"ready/": [], "leases/": []}


def test_a_task_that_is_tried_again_keeps_one_ready_entry_where_lease_entries_come_late(fake_queue):
    def fails(value):
        raise RetryableError("not yet")

    worker = oq_nb.Worker(fake_queue, lease_entry_delay_seconds=60)
    worker.task("a")(fails)
    task = fake_queue.submit("a", retry_policy=RetryPolicy(initial_interval_ms=3_600_000, max_interval_ms=3_600_000))
    with worker:
        until(lambda: task.refresh().record.retry_count == 1)
    (entry,) = fake_queue.store.index.scan("ready/")
    assert entry.key == ready_key(task.record)
    assert fake_queue.store.index.scan("leases/") == []


def test_a_worker_that_stops_hands_back_what_has_no_lease_entry_yet(fake_queue):
    goes_on = threading.Event()
    worker = oq_nb.Worker(fake_queue, lease_entry_delay_seconds=60)
    worker.task("a")(lambda value: goes_on.wait(20))
    task = fake_queue.submit("a")
    worker.start()
    until(lambda: task.refresh().status == "running")
    worker.stop(0)
    goes_on.set()
    assert task.refresh().status == "pending"
    assert _entries(fake_queue) == {"ready/": [task.id], "leases/": []}


def test_a_lost_lease_leaves_no_entry_to_be_written_and_does_not_hold_up_the_end(fake_queue):
    goes_on = threading.Event()
    worker = oq_nb.Worker(fake_queue, lease_entry_delay_seconds=60)
    worker.task("a")(lambda value: goes_on.wait(20))
    task = fake_queue.submit("a", timeout_seconds=300)
    with worker:
        until(lambda: task.refresh().status == "running")
        lease_id = task.record.lease_id
        fake_queue.store.update(task.id, lambda r, now: transitions.release(r, now, lease_id=lease_id))
        goes_on.set()
        until(lambda: not worker.current_tasks)
        assert worker._session._index_scheduler.finish(1.0)
