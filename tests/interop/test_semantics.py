"""Deadlines, leases and keys: what an argument means on either side is the same, or is in docs/evidence/interop.md."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import datetime, timedelta, timezone

import pytest

import oq_nb

buquet = pytest.importorskip("buquet")


def upstream_record(ours, submitted):
    """Return what upstream has written."""
    return ours.get(submitted.id).record


def test_the_time_to_live_counts_from_the_submission_on_both_sides(ours, theirs):
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    yours = upstream_record(ours, theirs.submit("t", 1, ttl_seconds=60, schedule_at=later))
    mine = ours.submit("t", 1, ttl_seconds=60, schedule_at=later).record
    for record in (yours, mine):
        assert 58 <= (record.expires_at - record.created_at).total_seconds() <= 62
        assert record.expires_at < record.available_at


def test_a_deadline_that_has_passed_is_accepted_on_both_sides(ours, theirs):
    past = datetime(2020, 1, 1, tzinfo=timezone.utc)
    yours = [theirs.submit("t", 1, ttl_seconds=0), theirs.submit("t", 1, expires_at=past)]
    mine = [ours.submit("t", 1, ttl_seconds=0), ours.submit("t", 1, expires_at=past)]
    worker = oq_nb.Worker(ours, max_poll_seconds=0.2)

    @worker.task("t")
    def never(given):
        raise AssertionError("it must not run")

    with worker:
        for submitted in (*yours, *mine):
            assert str(ours.get(submitted.id).wait(30).status) == "expired"


def test_extending_adds_to_the_present_end_on_both_sides(ours, theirs):
    added = {}

    async def there(given, context):
        before = (await theirs.queue.get(context.task_id)).to_dict()["lease_expires_at"]
        await context.extend_lease(60)
        added["theirs"] = (before, (await theirs.queue.get(context.task_id)).to_dict()["lease_expires_at"])

    def here(given, context):
        before = ours.get(context.task_id).record.lease_expires_at
        context.extend_lease(60)
        added["ours"] = (before, ours.get(context.task_id).record.lease_expires_at)

    task = ours.submit("there", 1, timeout_seconds=300)
    with theirs.worker({"there": there}):
        task.wait(30)
    worker = oq_nb.Worker(ours, max_poll_seconds=0.2)
    worker.task("here")(here)
    with worker:
        ours.submit("here", 1, timeout_seconds=300).result(30)
    for before, after in added.values():
        seconds = [datetime.fromisoformat(str(at)[:19]) for at in (before, after)]
        assert abs((seconds[1] - seconds[0]).total_seconds() - 60) <= 1
    assert set(added) == {"theirs", "ours"}


def test_a_scope_of_its_own_gives_the_first_task_whatever_the_type(ours, theirs):
    first = theirs.submit("a", 1, idempotency_key="k", idempotency_scope="queue")
    assert theirs.submit("b", 1, idempotency_key="k", idempotency_scope="queue").id == first.id
    assert ours.submit("b", 1, idempotency_key="k", idempotency_scope="queue").id == first.id
    mine = ours.submit("a", 2, idempotency_key="l", idempotency_scope="queue")
    assert theirs.submit("b", 2, idempotency_key="l", idempotency_scope="queue").id == mine.id
    assert ours.submit("b", 2, idempotency_key="l", idempotency_scope="queue").id == mine.id


def test_a_key_that_we_have_marked_is_read_by_upstream(ours, theirs):
    """The field of ours stands in the object."""
    first = theirs.submit("a", 1, idempotency_key="k")
    assert ours.submit("a", 1, idempotency_key="k").id == first.id
    (key,) = [entry.key for entry in ours.store.objects.entries("idempotency/")]
    assert b"task_written_at" in ours.store.objects.get(key).body
    assert theirs.submit("a", 1, idempotency_key="k").id == first.id


def test_a_task_that_they_hand_back_after_a_request_to_cancel_does_not_run_here(ours, theirs):
    is_running, may_fail = threading.Event(), threading.Event()

    async def there(given, context):
        is_running.set()
        while not may_fail.is_set():
            await asyncio.sleep(0.05)
        raise buquet.RetryableError("once more")

    policy = oq_nb.RetryPolicy(initial_interval_ms=3000, jitter_percent=0.0)
    task = ours.submit("t", 1, retry_policy=policy)
    with theirs.worker({"t": there}):
        assert is_running.wait(30)
        ours.cancel(task.id, by="me")
        may_fail.set()
        while str(task.refresh().status) == "running":
            time.sleep(0.1)
    assert (str(task.status), task.record.cancel_requested) == ("pending", True), "upstream hands it back"
    worker = oq_nb.Worker(ours, max_poll_seconds=0.2)

    @worker.task("t")
    def never(given):
        raise AssertionError("it must not run")

    with worker:
        task.wait(30)
    assert (str(task.status), task.record.cancelled_by) == ("cancelled", "me")
