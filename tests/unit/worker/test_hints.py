"""Idle workers hear of tasks that are submitted elsewhere within seconds, by a hint on which nothing rests."""

from __future__ import annotations

import json
import logging
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import timedelta

import pytest

import oq_nb
from bench.idle import IdleWorker, claim_seconds, month
from oq_nb.errors import StorageDeniedError, StorageUnavailableError
from oq_nb.queue import Queue
from oq_nb.queue import hints as writing
from oq_nb.queue.hints import HintWriter
from oq_nb.store import ReadyHint, TaskStore
from oq_nb.testing import FakeStore, FakeTime
from oq_nb.worker.heartbeat import Heartbeat
from oq_nb.worker.hint_watch import HintWatch
from oq_nb.worker.pauses import PollPauses

KEY = "hints/ready"


def half() -> float:
    return 0.5


# --- how often: pure, on a clock that is moved


def test_after_ten_idle_minutes_half_of_the_tasks_are_claimed_within_two_seconds():
    waited = claim_seconds(600, has_hints=True, rounds=100)
    assert statistics.median(waited) <= 2.0
    assert max(waited) <= 3.0
    assert statistics.median(claim_seconds(600, has_hints=False, rounds=50)) > 5.0  # what it would be without


def test_after_hours_too():
    assert statistics.median(claim_seconds(7200, has_hints=True, rounds=50)) <= 2.0


def test_it_costs_what_an_idle_worker_cost_before():
    _, before = month(1, has_hints=False)
    hour, after = month(1, has_hints=True)
    assert after <= 1.03 * before
    assert hour["LIST"] / 3600 <= 0.1
    assert hour["GET"] / 3600 <= 0.4


@pytest.mark.parametrize("workers", [1, 10, 1000, 1600, 8000, 10_000, 100_000])
def test_all_idle_workers_together_stay_below_a_tenth_of_what_a_prefix_bears(workers):
    worker = IdleWorker(has_hints=True, workers=workers)
    worker.run(2 * 3600)
    first = worker.requests["GET"]
    worker.run(3 * 3600)
    assert (worker.requests["GET"] - first) / 3600 * workers <= 550 * 1.1


def test_pauses_are_within_their_bounds():
    pauses = PollPauses(15.0, half)
    assert not pauses.needs_hint(4)  # the index is listed as often
    assert pauses.needs_hint(60)
    assert not PollPauses(1.0).needs_hint(3600)
    assert [pauses.for_hint(idle) for idle in (10, 60, 600, 7200)] == [0.5, 1.0, 2.0, 3.0]
    assert [pauses.for_hint(600, in_vain=number) for number in range(5)] == [2, 4, 8, 15, 15]
    assert pauses.for_hint(600, workers=5500) == 10


# --- the object


@pytest.fixture
def time_of_store():
    return FakeTime()


@pytest.fixture
def objects(time_of_store):
    return FakeStore(time_of_store)


def test_a_look_tells_what_is_new_and_in_which_shards(objects):
    writer, reader = ReadyHint(objects), ReadyHint(objects)
    assert reader.look() is None  # there is none yet
    writer.write({"3", "a"})
    assert reader.look() == {"3", "a"}
    assert reader.look() is None
    writer.write({"5"})
    assert reader.look() == {"5"}
    late = ReadyHint(objects)
    assert late.look() is None  # the first look only learns what is there
    writer.write({"5"})  # the same shards: new all the same
    assert reader.look() == late.look() == {"5"}
    assert json.loads(objects.get(KEY).body).keys() == {"at", "shards"}


def test_an_unchanged_hint_is_read_conditionally(objects):
    ReadyHint(objects).write({"3"})
    reader = ReadyHint(objects)
    reader.look()
    asked = []
    conditional = objects.get_if_changed
    objects.get_if_changed = lambda key, etag: (asked.append(key), conditional(key, etag))[1]
    assert [reader.look() for _ in range(3)] == [None] * 3
    assert asked == [KEY] * 3


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[]", b"null", b'{"shards": 5}', b'{"shards": [5, {}]}', b"[" * 100_000, b'"' + b"x" * 9000]
)
def test_strange_content_is_a_hint_without_shards(objects, body):
    reader = ReadyHint(objects)
    reader.look()
    objects.put(KEY, body)
    assert reader.look() == set()


def test_old_versions_do_not_pile_up(objects, time_of_store):
    writers = [ReadyHint(objects) for _ in range(3)]
    for number in range(30):
        writers[number % 3].write({"1"})
    assert len(objects.look(KEY)) == 3  # each writer removes what it has replaced itself
    ReadyHint(objects).tidy()
    assert len(objects.look(KEY)) == 3  # while they are young, a listing may not tell which is the latest
    time_of_store.advance(120)
    newest = objects.get(KEY)
    ReadyHint(objects).tidy()
    assert [body for _, body in objects.look(KEY)] == [newest.body]


@pytest.mark.parametrize("error", [StorageDeniedError("no", code="AccessDenied"), StorageUnavailableError("gone")])
def test_a_store_that_refuses_is_said_once_at_debug(objects, time_of_store, caplog, error):
    caplog.set_level(logging.DEBUG, logger="oq_nb")

    def refuse(kind, key, when):
        raise error

    objects.fault = refuse
    hint = ReadyHint(objects)
    for _ in range(5):
        hint.write({"1"})
        assert hint.look() is None
        hint.tidy()
    said = [record for record in caplog.records if "idle workers find tasks" in record.message]
    assert [record.levelno for record in said] == [logging.DEBUG] * 2  # of writing, and of reading
    assert [record.levelno for record in caplog.records if record.levelno > logging.DEBUG] == []
    objects.fault = None
    if isinstance(error, StorageDeniedError):
        objects.requests.clear()
        assert hint.look() is None and not objects.requests  # not asked again for ten minutes
        time_of_store.advance(601)
    hint.look()
    hint.write({"1"})
    assert objects.get(KEY) is not None
    assert hint.look() == {"1"}


# --- writing in the background


class Written:
    """What a `HintWriter` writes."""

    def __init__(self):
        self.calls, self.again = [], threading.Semaphore(0)

    def write(self, shards):
        self.calls.append((time.monotonic(), set(shards)))
        self.again.release()


def test_many_submissions_are_two_hints_the_first_at_once_and_the_last_not_lost(monkeypatch):
    monkeypatch.setattr(writing, "_PAUSE_SECONDS", 0.4)
    written = Written()
    writer = HintWriter(written)
    began = time.monotonic()
    writer.ring("0")
    assert written.again.acquire(timeout=20)
    for number in range(1000):
        writer.ring(f"{number % 16:x}")
    assert written.again.acquire(timeout=20)
    writer.flush(20)
    took = time.monotonic() - began
    assert written.calls[0][1] == {"0"}
    assert set().union(*(shards for _, shards in written.calls[1:])) == set("0123456789abcdef")
    assert len(written.calls) <= 2 + took / 0.4
    assert all(later - earlier >= 0.39 for (earlier, _), (later, _) in zip(written.calls[:-1], written.calls[1:-1]))


def test_nobody_waits_for_a_hint_that_hangs(fake_store):
    queue, gate, hangs = Queue(TaskStore(fake_store), hints=True), threading.Event(), threading.Event()

    def fault(kind, key, when):
        if key == KEY:
            hangs.set()
            gate.wait(30)
            raise StorageUnavailableError("no answer")

    fake_store.fault = fault
    tasks = [queue.submit("a") for _ in range(20)]
    assert hangs.wait(20)
    assert len(queue.submit_many("a", range(20))) == len(tasks)
    assert not gate.is_set()
    gate.set()
    queue.hints.flush(20)


def test_tasks_for_later_leave_no_hint(fake_store):
    queue = Queue(TaskStore(fake_store), hints=True)
    queue.submit("a", schedule_at=queue.now() + timedelta(hours=1))
    queue.hints.flush(20)
    assert fake_store.get(KEY) is None
    queue.submit("a")
    queue.hints.flush(20)
    assert fake_store.get(KEY) is not None


def test_a_queue_leaves_no_hints_unless_it_is_told_to(fake_queue):
    fake_queue.submit("a")
    assert fake_queue.hints is None
    assert fake_queue.store.objects.requests == Counter(PUT=2)


def test_a_program_that_ends_at_once_has_left_its_hint(queue):
    objects = queue.store.objects
    program = (
        "import oq_nb, sys; bucket, endpoint, key, secret, prefix = sys.argv[1:]; "
        "oq_nb.connect(bucket, endpoint=endpoint, access_key=key, secret_key=secret, prefix=prefix).submit('a')"
    )
    credentials = objects.client._request_signer._credentials
    arguments = [objects.bucket, objects.endpoint, credentials.access_key, credentials.secret_key, objects.prefix]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True, timeout=60)
    assert objects.get(KEY) is not None


# --- workers


def rarely(monkeypatch):
    """Let workers list once a minute, and look at the hint all the time."""
    monkeypatch.setattr(PollPauses, "for_tasks", lambda self, idle, **options: 60.0)
    monkeypatch.setattr(PollPauses, "needs_hint", lambda self, idle, **options: True)
    monkeypatch.setattr(PollPauses, "for_hint", lambda self, idle, **options: 0.02)


def test_an_idle_worker_runs_what_another_process_has_submitted(fake_store, monkeypatch):
    rarely(monkeypatch)
    looked = threading.Semaphore(0)

    def fault(kind, key, when):
        if (kind, key, when) == ("GET", KEY, "after"):
            looked.release()

    fake_store.fault = fault
    here, elsewhere = (Queue(TaskStore(fake_store), hints=True) for _ in range(2))
    worker = oq_nb.Worker(here, "w1")
    worker.task("a")(lambda value: value * 2)
    with worker:
        for number in (1, 2):
            assert looked.acquire(timeout=20) and looked.acquire(timeout=20)
            assert elsewhere.submit("a", number).result(30) == number * 2  # not after a minute
        worker.stop()
        lists = fake_store.requests["LIST"]
        assert lists < 30


def test_a_task_that_is_handed_back_is_taken_by_an_idle_worker_elsewhere(fake_store, monkeypatch):
    rarely(monkeypatch)
    begun, gate = threading.Event(), threading.Event()
    queues = [Queue(TaskStore(fake_store), hints=True) for _ in range(2)]
    first, second = (oq_nb.Worker(queue, f"w{number}") for number, queue in enumerate(queues))

    @first.task("a")
    def handle(value, context):
        begun.set()
        gate.wait(30)

    second.task("a")(lambda value: "second")
    with first:
        task = queues[0].submit("a")
        assert begun.wait(20)
        with second:
            first.stop(0)
            gate.set()
            assert task.result(30) == "second"


def test_workers_go_on_where_the_hint_is_refused(fake_store, monkeypatch, caplog):
    monkeypatch.setattr(PollPauses, "needs_hint", lambda self, idle, **options: True)

    def fault(kind, key, when):
        if key == KEY:
            raise StorageDeniedError("no", code="AccessDenied")

    fake_store.fault = fault
    here, elsewhere = (Queue(TaskStore(fake_store), hints=True) for _ in range(2))
    worker = oq_nb.Worker(here, "w1", max_poll_seconds=0.2)
    worker.task("a")(lambda value: value * 2)
    with worker:
        assert elsewhere.submit("a", 3).result(20) == 6
    assert [record for record in caplog.records if record.levelno >= logging.INFO and "hint" in record.message] == []


def test_a_hint_that_leads_to_nothing_makes_looks_rarer_and_is_listed_for_once(objects):
    writer = ReadyHint(objects)
    watch = HintWatch(ReadyHint(objects), PollPauses(15.0, half), lambda: 1)
    now, pauses = 1000.0, []
    assert watch.look(0.0, now) is None
    for _ in range(6):
        before, now = now, watch.next_at(0.0, now)
        pauses.append(now - before)
        writer.write({"1"})  # for somebody else
        assert watch.look(0.0, now - 0.01) is None  # not due
        assert watch.look(0.0, now) == {"1"}
        watch.listed(has_found=False)
    assert pauses == [2.0, 2.0, 4.0, 8.0, 15.0, 15.0]
    now = watch.next_at(0.0, now)
    assert watch.look(0.0, now) is None  # nothing new: as before
    assert watch.next_at(0.0, now) - now == 2.0


def test_the_workers_of_a_queue_are_counted(objects, time_of_store):
    for number in range(5):
        objects.put(f"workers/old{number}.json", b"{}")
    time_of_store.advance(600)
    for number in range(1500):
        objects.put(f"workers/w{number}.json", b"{}")
    heartbeat = Heartbeat(objects, "w0", lambda: b"{}")
    heartbeat.tidy()
    assert heartbeat.workers == 1500
    objects.put("workers/late.json", b"{}")
    heartbeat.run_due()
    assert heartbeat.workers == 1500  # counted every ten minutes, and a second for each of them
    heartbeat._tidy_at = time.monotonic()
    heartbeat.run_due()
    assert heartbeat.workers == 1501
    assert heartbeat._tidy_at > time.monotonic() + 2000


def test_an_idle_workers_heartbeat_is_rarer_but_never_silent(objects):
    is_idle = [False]
    heartbeat = Heartbeat(objects, "w0", lambda: b"{}", is_idle=lambda: is_idle[0])
    assert heartbeat.run_due() - time.monotonic() == pytest.approx(15, abs=1)
    is_idle[0] = True
    assert heartbeat.run_due() - time.monotonic() == pytest.approx(25, abs=1)  # a worker is silent after 60
