"""`report_progress` with every option, throttle and edge case of the feature document; the rest of a context."""

from __future__ import annotations

import decimal
import logging
import threading

import pytest
from waiting import until

import oq_nb
from oq_nb.attempt.context import TaskContext, current_context, make_progress, running_in
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import ConfigurationError, LeaseExpiredError, StorageUnavailableError, TaskCancelledError
from oq_nb.model import Timestamp, new_id, transitions


class Attempt:
    """A running attempt on the fake store, without a worker."""

    def __init__(self, queue, *, lease_seconds=300.0, throttle_seconds=0.0, renews=True):
        self.queue, self.store, self.objects = queue, queue.store, queue.store.objects
        self.task = queue.submit("job")
        held = self.store.read(self.task.id)
        self.held = self.store.move(
            held,
            transitions.claim(
                held.record,
                self.store.clock.stamp(),
                lease_id=new_id(),
                worker_id="w",
                lease_seconds=lease_seconds,
            ),
        )
        self.scheduler = Scheduler("test")
        self.lease = Lease(self.store, self.held, self.scheduler, lease_seconds=lease_seconds, renews=renews)
        self.context = TaskContext(self.lease, throttle_seconds=throttle_seconds)
        self.objects.requests.clear()

    @property
    def progress(self):
        return self.task.refresh().progress

    @property
    def puts(self):
        return self.objects.requests["PUT"]

    def take_over(self):
        """Have another worker take the task."""
        self.store.update(
            self.task.id,
            lambda r, now: r.evolve(lease_id=new_id(), worker_id="rival", attempt=r.attempt + 1, updated_at=now),
        )


@pytest.fixture
def make(fake_queue):
    made = []

    def start(**options) -> Attempt:
        made.append(Attempt(fake_queue, **options))
        return made[-1]

    yield start
    for attempt in made:
        attempt.scheduler.stop()


# --- what is written


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"percent": 50}, {"percent": 50}),
        ({"current": 50, "total": 100}, {"percent": 50, "current": 50, "total": 100}),
        ({"message": "Downloading file..."}, {"message": "Downloading file..."}),
        (
            {"percent": 75, "current": 750, "total": 1000, "message": "Processing batch 3 of 4"},
            {"percent": 75, "current": 750, "total": 1000, "message": "Processing batch 3 of 4"},
        ),
        ({"percent": 12.9}, {"percent": 12}),
        ({"current": 1, "total": 3}, {"percent": 33, "current": 1, "total": 3}),
        ({"current": 2.7}, {"current": 2}),
        ({"current": 0, "total": 0}, {"current": 0, "total": 0}),
        ({"percent": 10, "current": 1, "total": 2}, {"percent": 10, "current": 1, "total": 2}),
        ({"rate": 2.5, "unit": "files"}, {"rate": 2.5, "unit": "files"}),
        ({"percent": decimal.Decimal("3.5")}, {"percent": 3}),
        ({}, {}),
    ],
    ids=str,
)
def test_what_is_reported_is_stored_when_it_returns_with_one_request(make, given, stored):
    attempt = make()
    attempt.context.report_progress(**given)
    assert dict(attempt.objects.requests) == {"PUT": 1}
    written = attempt.progress.to_dict()
    assert Timestamp.parse(written.pop("updated_at"))
    assert written == stored


@pytest.mark.parametrize(("given", "percent"), [({"percent": 250}, 100), ({"current": 30, "total": 20}, 100)])
def test_above_100_is_clamped_and_logged(make, caplog, given, percent):
    attempt = make()
    with caplog.at_level(logging.WARNING, "oq_nb.progress"):
        attempt.context.report_progress(**given)
    assert attempt.progress.percent == percent
    assert "is shown as 100 %" in caplog.text


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"percent": float("nan")}, "percent"),
        ({"percent": float("inf")}, "percent"),
        ({"percent": -1}, "percent"),
        ({"percent": "50"}, "percent"),
        ({"percent": True}, "percent"),
        ({"current": -1}, "current"),
        ({"current": "many"}, "current"),
        ({"current": 2**64}, "current"),
        ({"total": float("nan")}, "total"),
        ({"message": 7}, "message"),
        ({"message": b"bytes"}, "message"),
        ({"rate": -1}, "rate"),
        ({"unit": 3}, "unit"),
        ({"throttle_seconds": -1}, "throttle_seconds"),
        ({"throttle_seconds": "often"}, "throttle_seconds"),
    ],
    ids=str,
)
def test_what_is_no_progress_is_named_and_nothing_is_written(make, given, named):
    attempt = make()
    with pytest.raises(ValueError, match=f"^{named}: ") as refused:
        attempt.context.report_progress(**given)
    assert isinstance(refused.value, ConfigurationError)
    assert attempt.puts == 0


def test_a_long_message_is_cut_and_half_a_character_replaced():
    made = make_progress(Timestamp.parse("2026-01-28T12:30:00Z"), message="x" * 5000)
    assert len(made.message) == 1000
    assert make_progress(made.updated_at, message="half \ud800").message == "half ?"


# --- throttle


def test_between_two_writes_the_newest_is_held_back_and_then_written(make):
    attempt = make()
    for percent in range(0, 50, 10):
        attempt.context.report_progress(percent=percent, throttle_seconds=0.5)
    assert attempt.puts <= 1  # the first, at once; by a background thread
    until(lambda: attempt.progress and attempt.progress.percent == 40)
    assert attempt.puts == 2


def test_the_workers_default_counts_unless_the_call_says_otherwise(make):
    attempt = make(throttle_seconds=60)
    attempt.context.report_progress(percent=1)
    until(lambda: attempt.puts == 1)
    attempt.context.report_progress(percent=2)
    assert attempt.progress.percent == 1
    assert attempt.lease.flush(5.0)  # as at the end of a handler: what was held back is written
    assert attempt.progress.percent == 2
    attempt.context.report_progress(percent=3)
    attempt.context.report_progress(percent=4, throttle_seconds=0)
    assert attempt.progress.percent == 4
    assert attempt.puts == 3


def test_reports_from_several_threads_serialise(make):
    attempt = make()
    threads = [
        threading.Thread(target=lambda n=n: [attempt.context.report_progress(current=n * 10 + i) for i in range(5)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert attempt.puts <= 20
    versions = [record.progress.current for record in attempt.task.history() if record.progress]
    assert versions[-1] == attempt.progress.current
    assert len(versions) == attempt.puts


# --- whose task it is


def test_a_former_owner_is_told_and_writes_nothing(make):
    attempt = make()
    attempt.context.report_progress(percent=1)
    attempt.take_over()
    with pytest.raises(LeaseExpiredError, match="no longer owns it"):
        attempt.context.report_progress(percent=50)
    assert attempt.context.is_lease_lost
    puts = attempt.puts
    with pytest.raises(LeaseExpiredError):
        attempt.context.report_progress(percent=60)
    with pytest.raises(LeaseExpiredError):
        attempt.context.raise_if_cancelled()
    assert attempt.puts == puts
    assert attempt.task.refresh().record.worker_id == "rival"


def test_a_report_goes_on_after_somebody_changed_another_field(make):
    attempt = make()
    assert not attempt.context.cancel_requested
    attempt.context.raise_if_cancelled()
    attempt.queue.request_cancellation(attempt.task.id)
    attempt.context.report_progress(percent=50)
    assert attempt.progress.percent == 50
    assert attempt.task.record.cancel_requested
    assert attempt.context.cancel_requested
    with pytest.raises(TaskCancelledError, match=attempt.task.id):
        attempt.context.raise_if_cancelled()


def test_a_task_that_is_gone(make):
    attempt = make()
    attempt.objects.delete(attempt.held.record.key)
    with pytest.raises(LeaseExpiredError, match="is gone from the bucket"):
        attempt.context.report_progress(percent=1)


# --- a store that does not answer


def test_an_outage_costs_one_warning_and_the_newest_value_is_written_afterwards(make, caplog):
    attempt = make()

    def out(kind, key, when):
        raise StorageUnavailableError("no answer", key=key)

    attempt.objects.fault = out
    with caplog.at_level(logging.WARNING, "oq_nb.lease"):
        for percent in range(20):
            attempt.context.report_progress(percent=percent)
        attempt.objects.fault = None
        until(lambda: len(caplog.records) == 2)  # the second one is logged after the value is written
    assert attempt.progress.percent == 19
    said = [record.getMessage() for record in caplog.records]
    assert "cannot be written now; the handler goes on" in said[0]
    assert said[1].endswith("progress is written again")


# --- leases


def test_the_lease_is_renewed_at_a_third_of_its_length_with_one_request_each(make):
    attempt = make(lease_seconds=0.9)
    ends = attempt.held.record.lease_expires_at
    until(lambda: attempt.puts >= 3)
    assert dict(attempt.objects.requests).keys() == {"PUT"}
    assert attempt.task.refresh().record.lease_expires_at > ends
    assert attempt.task.record.progress is None


def test_a_report_renews_too(make):
    attempt = make(lease_seconds=60)
    ends = attempt.held.record.lease_expires_at
    attempt.context.report_progress(percent=1)
    assert attempt.task.refresh().record.lease_expires_at > ends


def test_without_renewal_the_lease_stays_as_it_is_unless_extended(make):
    attempt = make(lease_seconds=60, renews=False)
    ends = attempt.held.record.lease_expires_at
    attempt.context.report_progress(percent=1)
    assert attempt.task.refresh().record.lease_expires_at == ends
    attempt.context.extend_lease(600)
    assert (attempt.task.refresh().record.lease_expires_at - ends).total_seconds() > 500
    with pytest.raises(ValueError, match="^seconds: "):
        attempt.context.extend_lease(float("nan"))


# --- the current context


def test_the_current_context_is_that_of_the_handler_that_runs_here(make):
    attempt = make()
    assert current_context() is None
    with running_in(attempt.context):
        assert oq_nb.current_context() is attempt.context
        seen = []
        thread = threading.Thread(target=lambda: seen.append(current_context()))
        thread.start()
        thread.join()
        assert seen == [None]  # threads of a handler's own are handed the context
    assert current_context() is None


def test_what_the_context_says_of_itself(make):
    context = make().context
    assert (context.attempt, context.task_type) == (1, "job")
    assert context.task_id in repr(context)
    assert "attempt 1" in repr(context)
