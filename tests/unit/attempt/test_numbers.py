"""Metrics that a handler reports: kept as numbers with their series, in the same write; and what is kept at the end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from oq_nb.attempt.async_context import AsyncTaskContext
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import handler_of
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.run import run_attempt
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import ConfigurationError, RetryableError
from oq_nb.model import RetryPolicy, TaskStatus, new_id, read_series, transitions


class Attempts:
    """A task whose reports are so many seconds apart as `pass_time` says."""

    def __init__(self, queue):
        self.store, self.objects = queue.store, queue.store.objects
        self.task = queue.submit("train", max_retries=1, retry_policy=RetryPolicy(initial_interval_ms=0))
        self.scheduler = Scheduler("test")
        self.now = self.store.clock.now()

    def pass_time(self, seconds):
        self.now += timedelta(seconds=seconds)

    def claim(self) -> Lease:
        held = self.store.read(self.task.id)
        now = self.store.clock.stamp()
        claimed = transitions.claim(held.record, now, lease_id=new_id(), worker_id="w", lease_seconds=300)
        self.lease = Lease(self.store, self.store.move(held, claimed), self.scheduler, lease_seconds=300)
        self.lease.now = lambda: self.now
        self.objects.requests.clear()
        return self.lease

    def run(self, function):
        lease = self.claim()
        return run_attempt(self.store, lease, handler_of("train", function), TaskContext(lease))

    @property
    def record(self):
        return self.task.refresh().record


@pytest.fixture
def attempts(fake_queue):
    made = Attempts(fake_queue)
    yield made
    made.scheduler.stop()


def test_metrics_are_numbers_in_the_same_write_and_have_a_series(attempts):
    context = TaskContext(attempts.claim())
    context.report_progress(current=1, total=3, metrics={"loss": 2.0})
    assert dict(attempts.objects.requests) == {"PUT": 1}
    progress = attempts.record.progress
    assert progress.metrics == {"loss": 2.0}
    assert progress.to_dict().keys() == {"percent", "current", "total", "updated_at", "metrics"}, (
        "the five as they were"
    )
    attempts.pass_time(2)
    context.report_progress(current=2, total=3, metrics={"loss": 1.5, "accuracy": 0.5})
    attempts.pass_time(2)
    context.report_progress(current=3, total=3, message="saving")
    progress = attempts.record.progress
    assert (progress.message, progress.metrics) == ("saving", {"loss": 1.5, "accuracy": 0.5})
    series = read_series(progress.series)
    assert (series.seconds, series.position) == ((0.0, 2.0, 4.0), (1, 2, 3))
    assert series.metrics == {"loss": (2, 1.5, None), "accuracy": (None, 0.5, None)}


def test_what_is_held_back_is_in_the_series_when_it_is_written(attempts):
    context = TaskContext(attempts.claim(), throttle_seconds=100)
    for number in range(4):
        context.report_progress(current=number, metrics={"loss": 1 / (1 + number)}, wait=False)
        attempts.pass_time(1)
    assert attempts.lease.flush(5.0)
    assert read_series(attempts.record.progress.series).position == (0, 1, 2, 3)


@pytest.mark.parametrize("metrics", [{"loss": "much"}, {"": 1}, 3])
def test_bad_metrics_are_refused_and_nothing_is_written(attempts, metrics):
    context = TaskContext(attempts.claim())
    with pytest.raises(ConfigurationError, match="metrics"):
        context.report_progress(current=1, metrics=metrics)
    assert not attempts.objects.requests
    context.report_progress(current=2, metrics={"loss": float("nan")})
    assert attempts.record.progress.metrics == {"loss": None}


def test_coroutines_report_metrics_too(attempts):
    context = AsyncTaskContext(TaskContext(attempts.claim()))
    asyncio.run(context.report_progress(current=1, metrics={"loss": 2.0}))
    assert attempts.record.progress.metrics == {"loss": 2.0}


def test_what_was_reached_is_kept_with_the_end_and_a_fresh_attempt_starts_a_fresh_series(attempts):
    def fails(task_input, context):
        for number in range(3):
            context.report_progress(current=number, total=10, message="fitting", metrics={"loss": 3 - number})
            attempts.pass_time(1)
        raise RetryableError("again")

    attempts.run(fails)
    record = attempts.record
    assert (record.status, record.progress, record.last_worker_id) == (TaskStatus.PENDING, None, "w")
    assert (record.reached.current, record.reached.message, record.reached.metrics) == (2, "fitting", {"loss": 1})

    def completes(task_input, context):
        assert attempts.record.reached is None
        context.report_progress(current=9, total=10, metrics={"loss": 0.5})
        attempts.pass_time(1)
        context.report_progress(current=10, total=10, metrics={"loss": 0.25})

    attempts.run(completes)
    record = attempts.record
    assert (record.status, record.progress) == (TaskStatus.COMPLETED, None)
    assert read_series(record.reached.series).metrics == {"loss": (0.5, 0.25)}
    assert record.last_progress is record.reached


def test_a_value_that_is_held_back_when_a_handler_completes_is_kept_without_a_request_more(attempts):
    def works(task_input, context):
        context.report_progress(current=1, total=2, throttle_seconds=0)
        context.report_progress(current=2, total=2, throttle_seconds=1000, wait=False)

    attempts.run(works)
    assert attempts.objects.requests["PUT"] == 2, "one report and the end, as before"
    assert attempts.record.reached.current == 2


def test_replaying_a_task_forgets_what_was_reached(attempts):
    attempts.run(lambda task_input, context: context.report_progress(current=1))
    assert attempts.record.reached is not None
    attempts.task.replay()
    record = attempts.record
    assert (record.reached, record.last_worker_id) == (None, None)
    assert not record.to_dict().keys() & {"reached", "last_worker_id", "trace"}
