"""Upstream's programs and ours in one bucket, in both directions: each row of docs/evidence/interop.md's matrix."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from faults.proxy import FaultyProxy
from stub_servers import running
from waiting import HANGS_AFTER_SECONDS, until

import oq_nb
from oq_nb.display import view

buquet = pytest.importorskip("buquet", reason="upstream (buquet) has no wheel for this Python or platform")

HERE = Path(__file__).resolve().parent
SOON = oq_nb.RetryPolicy(initial_interval_ms=100, max_interval_ms=200, multiplier=1.0, jitter_percent=0.0)
IN_THREE_SECONDS = oq_nb.RetryPolicy(initial_interval_ms=3000, max_interval_ms=3000, multiplier=1.0, jitter_percent=0.0)
BIG = {"text": "x" * 300_000}


def our_worker(queue, task_type, handler, **options):
    worker = oq_nb.Worker(queue, **({"max_poll_seconds": 0.3} | options))
    worker.task(task_type)(handler)
    return worker


def steps(history):
    """Upstream lists the newest version first; a version is its status and its attempt."""
    return [(version.to_dict()["status"], version.attempt) for version in reversed(history)]


# --- a task's ordinary life


def test_they_submit_we_run_with_progress_they_read_result_and_history(ours, theirs):
    def handle(given, context):
        for i in range(3):
            context.report_progress(current=i + 1, total=3, message=f"step {i + 1} of 3")
        return {"doubled": given["x"] * 2}

    submitted = theirs.submit("double", {"x": 21})
    with our_worker(ours, "double", handle):
        until(lambda: theirs.status(submitted.id) == "completed")
    seen = theirs.get(submitted.id)
    assert seen.output == {"doubled": 42}
    assert seen.attempt == 1
    assert seen.worker_id is None
    assert steps(theirs.get_history(submitted.id)) == [
        ("pending", 0),
        ("running", 1),
        ("running", 1),
        ("running", 1),
        ("running", 1),
        ("completed", 1),
    ]
    progress = [record.progress for record in ours.get_history(submitted.id)]
    assert [p and (p.current, p.percent, p.message) for p in progress[2:5]] == [
        (1, 33, "step 1 of 3"),
        (2, 66, "step 2 of 3"),
        (3, 100, "step 3 of 3"),
    ]
    assert progress[0] is progress[1] is progress[5] is None


def test_they_see_our_task_run(ours, theirs):
    """While a task of theirs runs here and reports, their client reads it: progress is a field that it passes over."""
    reported, go_on = threading.Event(), threading.Event()

    def handle(given, context):
        context.report_progress(current=1, total=2, message="half")
        reported.set()
        assert go_on.wait(30)

    submitted = theirs.submit("slow", None)
    with our_worker(ours, "slow", handle, worker_id="ours-1"):
        try:
            assert reported.wait(30)
            seen = theirs.get(submitted.id)
            listed = theirs.list(submitted.shard, buquet.TaskStatus.Running)
            ready = theirs.list_ready(submitted.shard)
        finally:
            go_on.set()
    assert (seen.to_dict()["status"], seen.worker_id, seen.attempt) == ("running", "ours-1", 1)
    assert seen.lease_id is not None
    assert seen.lease_expires_at is not None
    assert [task.id for task in listed] == [submitted.id]
    assert ready == []


def test_we_submit_they_run_and_task_shell_and_display_show_it(ours, theirs, bucket):
    release = threading.Event()

    async def handle(given):
        while not release.is_set():
            await asyncio.sleep(0.05)
        return {"got": given}

    task = ours.submit("echo", {"text": "grüße"})
    assert theirs.list_ready(task.record.shard) == [task.id]
    with theirs.worker({"echo": handle}):
        until(lambda: task.refresh().status == "running")
        assert task.worker_id == "upstream-1"
        assert f"echo {task.id[:8]} running" in repr(task)
        assert _oq("status", task.id).splitlines()[:3] == [f"Task: {task.id}", "Type: echo", "Status: running"]
        assert [worker.worker_id for worker in ours.workers()] == ["upstream-1"]
        assert [found.id for found in ours.list("running")] == [task.id]
        release.set()
        assert task.result(timeout=30) == {"got": {"text": "grüße"}}
    assert "Status: completed" in view.status_lines(task.record, ours.now())
    assert json.loads(_oq("status", task.id, "--json"))["output"] == {"got": {"text": "grüße"}}
    times = [f"{record.updated_at.astimezone():%Y-%m-%d %H:%M:%S %Z}" for record in task.history()]
    assert _oq("history", task.id).splitlines() == [
        f"Version 1: pending (created)  {times[0]}",
        f"Version 2: running (claimed)  {times[1]}",
        f"Version 3: completed          {times[2]}",
    ]


def _oq(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "oq_nb", *arguments], env=os.environ.copy(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_kinds_of_workers_on_one_queue_with_200_tasks(ours, theirs):
    """Each side submits 100; each task is run once, by one side or the other, and both sides run some.

    Ours keeps logs, which nothing of theirs minds.
    """

    def here(given):
        print(f"ours runs {given['n']}")
        time.sleep(0.01)
        return {"n": given["n"], "by": "ours"}

    async def there(given):
        return {"n": given["n"], "by": "theirs"}

    ids = [task.id for task in theirs.submit_many([("mixed", {"n": n}) for n in range(100)])]
    ids += [task.id for task in ours.submit_many("mixed", [{"n": n} for n in range(100, 200)])]
    with theirs.worker({"mixed": there}), our_worker(ours, "mixed", here, concurrency=2, logs=True):
        until(lambda: not ours.store.index.scan("ready/"), 90)
        tasks = [ours.get(task_id).wait(60) for task_id in ids]
    assert [task.output["n"] for task in tasks] == list(range(200))
    assert {task.output["by"] for task in tasks} == {"ours", "theirs"}
    assert {(str(task.status), task.attempt, task.record.retry_count) for task in tasks} == {("completed", 1, 0)}
    assert len(ours.list(limit=None)) == 200
    for number, task in enumerate(tasks):
        is_ours = task.output["by"] == "ours"
        assert task.logs().text == (f"ours runs {number}" if is_ours else "")
    for task in tasks[::20]:
        assert [str(record.status) for record in task.history()] == ["pending", "running", "completed"]


def test_longer_shard_prefix(ours, seaweedfs, bucket):
    from peer import peer_on

    queue = oq_nb.connect(bucket, shard_prefix_len=2)
    with peer_on(seaweedfs.endpoint, bucket, shard_prefix_len=2) as theirs, our_worker(queue, "id", lambda x: x):
        submitted = theirs.submit("id", 7)
        assert len(submitted.shard) == 2
        assert queue.get(submitted.id).result(30) == 7
        assert theirs.get(submitted.id).output == 7
        assert theirs.get(queue.submit("id", 8).wait(30).id).output == 8


# --- failures and retries


def test_their_task_fails_and_is_retried_here(ours, theirs):
    def handle(given, context):
        if given == "bug":
            raise ValueError("a bug")
        if context.attempt == 1:
            raise oq_nb.RetryableError("busy")
        return "done"

    policy = buquet.RetryPolicy(100, 200, 1.0, 0.0)
    retried = theirs.submit("try", "again", retry_policy=policy)
    exhausted = theirs.submit("try", "again", max_retries=0)
    broken = theirs.submit("try", "bug")
    with our_worker(ours, "try", handle):
        for task in (retried, exhausted, broken):
            ours.get(task.id).wait(30)
    seen = theirs.get(retried.id)
    assert (seen.output, seen.attempt, seen.retry_count) == ("done", 2, 1)
    assert [status for status, _ in steps(theirs.get_history(retried.id))] == [
        "pending",
        "running",
        "pending",
        "running",
        "completed",
    ]
    seen = theirs.get(exhausted.id)
    assert (seen.to_dict()["status"], seen.attempt) == ("failed", 1)
    assert "RetryableError: busy" in seen.last_error
    seen = theirs.get(broken.id)
    assert (seen.to_dict()["status"], seen.attempt) == ("failed", 1)
    assert "ValueError: a bug" in seen.last_error


def test_our_task_fails_and_is_retried_there(ours, theirs):
    calls = []

    async def handle(given):
        if given == "bug":
            raise ValueError("a bug")
        calls.append(given)
        if len(calls) == 1 or given == "never":
            raise buquet.RetryableError("busy")
        return "done"

    retried = ours.submit("try", "again", retry_policy=SOON)
    with theirs.worker({"try": handle}):
        assert retried.result(30) == "done"
        exhausted = ours.submit("try", "never", max_retries=0)
        broken = ours.submit("try", "bug")
        with pytest.raises(oq_nb.TaskFailedError, match="RetryableError: busy"):
            exhausted.result(30)
        with pytest.raises(oq_nb.TaskFailedError, match="ValueError: a bug"):
            broken.result(30)
    assert (retried.attempt, retried.record.retry_count) == (2, 1)
    assert [str(record.status) for record in retried.history()] == [
        "pending",
        "running",
        "pending",
        "running",
        "completed",
    ]


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_an_attempt_on_either_side(ours, theirs, first):
    """The first attempt fails on one side, the second succeeds on the other."""

    def fails_here(given):
        raise oq_nb.RetryableError("not here")

    async def fails_there(given):
        raise buquet.RetryableError("not there")

    async def works_there(given):
        return "there"

    # Upstream's worker is not to try again before it is ended.
    task = ours.submit("either", None, retry_policy=SOON if first == "ours" else IN_THREE_SECONDS)
    if first == "ours":
        with our_worker(ours, "either", fails_here) as worker:
            worker.on_error(lambda *_: None)
            until(lambda: task.refresh().record.retry_count)
        with theirs.worker({"either": works_there}):
            task.wait(30)
    else:
        with theirs.worker({"either": fails_there}):
            # Upstream's worker ends at once, also between the task and its entries: the lease entry goes last.
            until(lambda: task.refresh().record.retry_count and not list(ours.store.objects.entries("leases/")))
        with our_worker(ours, "either", lambda given: "here"):
            task.wait(30)
    assert task.output == ("there" if first == "ours" else "here")
    attempts = [record.attempt for record in task.history() if str(record.status) == "running"]
    assert attempts == sorted(set(attempts))


# --- delays


def test_delayed_tasks(ours, theirs):
    """A task is not run before its time, on neither side."""
    soon = datetime.now(timezone.utc) + timedelta(seconds=3)
    for_us = theirs.submit("delayed-here", "a", schedule_at=soon)
    for_them = ours.submit("delayed-there", "b", schedule_at=soon)
    assert ours.list_ready() == []  # upstream's list_ready names whatever stands in the current minute

    async def there(given):
        return given

    with theirs.worker({"delayed-there": there}), our_worker(ours, "delayed-here", lambda given: given):
        tasks = [ours.get(for_us.id).wait(30), for_them.wait(30)]
    assert theirs.get(for_us.id).output == "a"
    assert for_them.output == "b"
    for task in tasks:
        claimed = task.history()[1]
        assert str(claimed.status) == "running"
        # Whole seconds of a Date header: upstream's clock and ours may be one apart.
        assert claimed.updated_at >= task.record.available_at - timedelta(seconds=1)


def test_rescheduling(ours, theirs):
    seen = []

    async def there(given):
        seen.append(given)
        if len(seen) == 1:
            raise buquet.RescheduleError(1)
        return "there"

    def here(given, context):
        if context.attempt == 1:
            raise oq_nb.RescheduleError(1)
        return "here"

    for_us = theirs.submit("put-off-here", 1, max_reschedules=3)
    for_them = ours.submit("put-off-there", 1, max_reschedules=3)
    with theirs.worker({"put-off-there": there}), our_worker(ours, "put-off-here", here):
        assert for_them.result(30) == "there"
        assert ours.get(for_us.id).result(30) == "here"
    assert (for_them.record.reschedule_count, for_them.record.retry_count) == (1, 0)
    mine = theirs.get(for_us.id)
    assert (mine.reschedule_count, mine.retry_count, mine.attempt) == (1, 0, 2)


# --- expiry


@pytest.mark.parametrize("worker_of", ["ours", "theirs"])
def test_expiry(ours, theirs, worker_of):
    """Whoever meets a task after its end marks it expired, whoever submitted it."""

    async def there(given):
        raise AssertionError("it must not run")

    def here(given):
        raise AssertionError("it must not run")

    mine = ours.submit("late", 1, ttl_seconds=1)
    yours = theirs.submit("late", 2, ttl_seconds=1)
    ends = max(mine.record.expires_at, ours.get(yours.id).record.expires_at)
    until(lambda: ours.now() > ends + timedelta(seconds=1.5))
    if worker_of == "ours":
        with our_worker(ours, "late", here):
            until(lambda: theirs.status(mine.id) == theirs.status(yours.id) == "expired")
    else:
        with theirs.worker({"late": there}):
            until(lambda: str(mine.refresh().status) == str(ours.get(yours.id).status) == "expired")
    assert mine.refresh().attempt == 0
    assert theirs.get(yours.id).expired_at is not None
    with pytest.raises(oq_nb.TaskFailedError, match="expired"):
        mine.result(5)
    assert ours.store.index.scan("ready/") == []


def test_they_mark_our_task_expired(ours, theirs):
    task = ours.submit("late", 1, ttl_seconds=1)
    until(lambda: ours.now() > task.record.expires_at + timedelta(seconds=1.5))
    assert theirs.mark_expired(task.id).to_dict()["status"] == "expired"
    assert str(task.refresh().status) == "expired"


# --- cancellation


def test_pending_tasks_are_cancelled_from_either_side(ours, theirs):
    ran = []

    async def there(given):
        ran.append(given)

    mine, yours = ours.submit("unwanted", "mine"), theirs.submit("unwanted", "yours")
    assert theirs.cancel(mine.id, reason="no need", cancelled_by="ann").to_dict()["status"] == "cancelled"
    ours.cancel(yours.id, "nor this", by="bob")
    seen = theirs.get(yours.id)
    assert (seen.to_dict()["status"], seen.cancelled_by, seen.last_error) == ("cancelled", "bob", "nor this")
    assert seen.cancelled_at is not None
    with pytest.raises(oq_nb.TaskCancelledError, match="no need"):
        mine.result(5)
    assert mine.record.cancelled_by == "ann"
    mark = ours.submit("wanted", None)
    with theirs.worker({"unwanted": there, "wanted": there}), our_worker(ours, "unwanted", ran.append):
        mark.wait(30)
        time.sleep(1)
    assert ran == [None]
    assert ours.store.index.scan("ready/") == []


def test_they_ask_our_running_task_to_stop(ours, theirs):
    """Upstream rewrites the task without its progress; our next report sees the request and puts progress back."""
    running = threading.Event()

    def handle(given, context):
        for i in range(600):
            context.report_progress(current=i, total=600)
            running.set()
            context.raise_if_cancelled()
            time.sleep(0.05)

    submitted = theirs.submit("long", None)
    with our_worker(ours, "long", handle):
        assert running.wait(30)
        assert theirs.insist("request_cancellation", submitted.id).cancel_requested
        until(lambda: theirs.status(submitted.id) == "cancelled")
    versions = ours.get_history(submitted.id)
    asked = next(i for i, record in enumerate(versions) if record.cancel_requested)
    assert versions[asked].lease_id == versions[asked - 1].lease_id
    assert versions[asked + 1].progress is not None or str(versions[asked + 1].status) == "cancelled"
    assert {record.attempt for record in versions[1:]} == {1}


def test_we_ask_their_running_task_to_stop(ours, theirs):
    """Their handler sees it once it refreshes; what it returns then completes the task, with the request on it."""
    started = threading.Event()

    async def handle(given, context):
        started.set()
        while True:
            await context.refresh()
            if await context.is_cancellation_requested():
                return "stopped early"
            await asyncio.sleep(0.05)

    task = ours.submit("long", None)
    with theirs.worker({"long": handle}):
        assert started.wait(30)
        task.cancel()
        assert task.record.cancel_requested
        assert task.result(30) == "stopped early"
    assert task.record.cancel_requested


def test_they_cancel_all_of_a_type(ours, theirs):
    mine = [ours.submit("batch", n) for n in range(3)]
    other = ours.submit("other", None)
    assert {task.id for task in theirs.cancel_by_type("batch").cancelled} == {task.id for task in mine}
    assert {str(task.refresh().status) for task in mine} == {"cancelled"}
    yours = [theirs.submit("batch", n) for n in range(3)]
    assert {task.id for task in ours.cancel_by_type("batch")} == {task.id for task in yours}
    assert {theirs.status(task.id) for task in yours} == {"cancelled"}
    assert str(other.refresh().status) == "pending"


# --- idempotency keys


def test_idempotency_keys_are_shared(ours, theirs):
    """The same key and input is the same task, whichever side submits; key order and number form do not matter."""
    first = theirs.submit("pay", {"amount": 3.0, "to": "é", "rows": [1, None]}, idempotency_key="k1")
    assert ours.submit("pay", {"rows": [1, None], "to": "é", "amount": 3.0}, idempotency_key="k1").id == first.id
    with pytest.raises(oq_nb.ConfigurationError, match=first.id):
        ours.submit("pay", {"amount": 4}, idempotency_key="k1")
    second = ours.submit("pay", {"b": 1, "a": 2}, idempotency_key="k2")
    assert theirs.submit("pay", {"a": 2, "b": 1}, idempotency_key="k2").id == second.id
    with pytest.raises(RuntimeError, match="different input"):
        theirs.submit("pay", {"a": 3}, idempotency_key="k2")
    assert len(ours.list()) == 2


def test_idempotency_scopes_are_shared(ours, theirs):
    first = theirs.submit("pay", 1, idempotency_key="k", idempotency_scope="queue")
    assert ours.submit("pay", 1, idempotency_key="k", idempotency_scope="queue").id == first.id
    assert ours.submit("pay", 1, idempotency_key="k").id != first.id
    assert len(ours.list()) == 2


# --- payloads held apart


def test_their_payload_reference_is_loaded_here(ours, theirs):
    submitted = theirs.submit("big", BIG, use_payload_refs=True)
    assert submitted.input_ref is not None
    with our_worker(ours, "big", lambda given: given):
        task = ours.get(submitted.id).wait(30)
    assert task.input == BIG
    assert task.record.output is None
    assert task.record.output_ref is not None
    seen = theirs.get(submitted.id)
    assert seen.output is None
    assert theirs.load_output(seen) == BIG


def test_our_payload_reference_is_loaded_by_their_client_but_not_by_their_worker(ours, theirs):
    """Upstream's worker hands its handler None for an input that is held apart; its large outputs stay in the task."""
    seen = []

    async def handle(given):
        seen.append(given)
        return BIG

    task = ours.submit("big", BIG)
    assert task.record.input_ref is not None
    assert theirs.load_input(theirs.get(task.id)) == BIG
    with theirs.worker({"big": handle}):
        assert task.result(30) == BIG
    assert seen == [None]
    assert task.record.output_ref is None


# --- dead workers


def _start_worker(script: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, str(HERE / script), *arguments], env=os.environ.copy())


@pytest.fixture
def doomed():
    """Starts worker processes; ends those that are left."""
    started = []

    def start(script: str, *arguments: str) -> subprocess.Popen[bytes]:
        started.append(_start_worker(script, *arguments))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait(10)


def test_their_monitor_recovers_our_dead_workers_task(ours, theirs, doomed):
    async def handle(given):
        return "by upstream"

    task = ours.submit("long", None, timeout_seconds=2, retry_policy=SOON)
    process = doomed("our_worker.py", "long")
    until(lambda: task.refresh().progress)
    process.kill()
    with theirs.worker({"long": handle}, with_monitor=True, monitor_check_interval_s=1):
        assert task.result(60) == "by upstream"
    assert (task.attempt, task.record.retry_count) == (2, 1)
    history = task.history()
    recovered = next(record for record in history if record.retry_count == 1)
    assert str(recovered.status) == "pending"
    assert recovered.last_error.startswith("Timeout - ")
    assert recovered.progress is None


def test_our_worker_recovers_their_dead_workers_task(ours, theirs, doomed):
    submitted = theirs.submit("long", None, timeout_seconds=2, retry_policy=buquet.RetryPolicy(100, 200, 1.0, 0.0))
    process = doomed("upstream_worker.py", "long")
    until(lambda: theirs.status(submitted.id) == "running")
    process.kill()
    with our_worker(ours, "long", lambda given, context: f"by us, attempt {context.attempt}"):
        assert ours.get(submitted.id).result(60) == "by us, attempt 2"
    seen = theirs.get(submitted.id)
    assert (seen.output, seen.retry_count) == ("by us, attempt 2", 1)
    versions = list(reversed(theirs.get_history(submitted.id)))
    assert versions[2].to_dict()["status"] == "pending"
    assert versions[2].last_error.startswith("Timeout - ")


@pytest.mark.parametrize("dead", ["ours", "theirs"])
def test_a_dead_worker_without_retries_left_means_failed_on_either_side(ours, theirs, doomed, dead):
    async def there(given):
        raise AssertionError("it must not run")

    task = ours.submit("long", None, timeout_seconds=2, max_retries=0)
    process = doomed("our_worker.py" if dead == "ours" else "upstream_worker.py", "long")
    until(lambda: str(task.refresh().status) == "running")
    process.kill()
    if dead == "ours":
        with theirs.worker({"long": there}, with_monitor=True, monitor_check_interval_s=1):
            task.wait(60)
    else:
        with our_worker(ours, "long", lambda given: None):
            task.wait(60)
    assert str(task.status) == theirs.status(task.id) == "failed"
    assert task.attempt == 1
    assert task.last_error.startswith("Timeout")


class _CutsOff(FaultyProxy):
    """Passes requests on to the store, but no PUT of a ready entry: whoever sends it is to be killed then."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self.has_cut = threading.Event()

    def next_fault(self, command: str, path: str) -> str | None:
        if command != "PUT" or "/ready/" not in path:
            return None
        self.has_cut.set()
        return "ten seconds of nothing"


def test_a_task_that_their_worker_puts_back_while_it_is_killed_is_not_lost(ours, theirs, seaweedfs):
    """They write the task, then its ready entry: in between only the old lease entry leads to it."""
    from peer import peer_on

    async def fails_there(given):
        raise buquet.RetryableError("not there")

    task = ours.submit("cut", None, retry_policy=SOON, timeout_seconds=2)
    with (
        running(_CutsOff(seaweedfs.endpoint)) as proxy,
        peer_on(proxy.endpoint, ours.store.objects.bucket) as cut,
        cut.worker({"cut": fails_there}),
    ):
        assert proxy.has_cut.wait(HANGS_AFTER_SECONDS)
    assert (task.refresh().status, task.record.retry_count) == ("pending", 1)
    assert list(ours.store.objects.entries("ready/")) == []
    with our_worker(ours, "cut", lambda given: "here"):
        assert task.result(HANGS_AFTER_SECONDS) == "here"
    assert task.attempt == 2


def test_their_monitor_leaves_a_renewed_lease_alone(ours, theirs):
    """A job of ours that runs for several leases is not taken away by their monitor."""

    async def handle(given):
        raise AssertionError("it must not run")

    finished = threading.Event()

    def slow(given, context):
        assert finished.wait(120)
        return "done"

    task = ours.submit("long", None, timeout_seconds=6)
    with our_worker(ours, "long", slow):
        until(lambda: str(task.refresh().status) == "running")
        first_end = task.record.lease_expires_at
        with theirs.worker({"long": handle}, with_monitor=True, monitor_check_interval_s=1, monitor_sweep_interval_s=1):
            until(lambda: ours.store.clock.now() > first_end)
            time.sleep(2)  # their monitor looks twice at a task whose first lease is over
            finished.set()
            assert task.result(60) == "done"
    assert task.attempt == 1
    assert len({record.lease_expires_at for record in task.history() if str(record.status) == "running"}) > 2
