"""Whatever is in a bucket: no worker ends of it, and the other tasks run."""

from __future__ import annotations

import gc
import heapq
import json
import os
import random
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import formatdate

import pytest
from servers import connect_to
from strange import JUNK, ODD, WIRE, mutate, plain_task, running

import oq_nb
from oq_nb import model
from oq_nb.errors import OqError, RecordError
from oq_nb.model import TaskStatus, Timestamp
from oq_nb.queue import Queue
from oq_nb.s3 import Entry
from oq_nb.s3.clock import Clock
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore


def place(queue: Queue, body: bytes, *, task_id: str | None = None, index: str = "ready") -> str:
    """Put an object where a task belongs, and an index entry that leads to it."""
    task_id = task_id or model.new_id()
    queue.store.objects.put(f"tasks/{task_id[0]}/{task_id}.json", body)
    queue.store.objects.put(f"{index}/{task_id[0]}/0000000001/{task_id}", b"")
    return task_id


def place_fields(queue: Queue, *, index: str = "ready", **fields) -> str:
    task_id = model.new_id()
    return place(queue, json.dumps(plain_task(task_id, **fields)).encode(), task_id=task_id, index=index)


@pytest.fixture
def queue_and_worker(fake_queue):
    """A queue, and a worker for it that looks often."""
    worker = oq_nb.Worker(fake_queue, concurrency=2, max_poll_seconds=0.2)
    worker.task("double")(lambda value: value * 2)
    worker.task("test")(lambda value: value)
    yield fake_queue, worker
    worker.stop(timeout=5)


def runs_on(queue: Queue, count: int = 5) -> bool:
    tasks = [queue.submit("double", number) for number in range(count)]
    return [task.result(timeout=60) for task in tasks] == [number * 2 for number in range(count)]


def wait_for(condition, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def errors_in(caplog) -> list[str]:
    """Return what was logged with a traceback, or as an error."""
    return [r.getMessage()[:300] for r in caplog.records if r.exc_info or r.levelname in ("ERROR", "CRITICAL")]


@pytest.fixture
def nothing_is_collected():
    """Keep the collector from finalizing other tests' objects in code that is at its recursion limit on purpose."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_objects_that_are_no_tasks(queue_and_worker, nothing_is_collected, caplog):
    queue, worker = queue_and_worker
    placed = {place(queue, body, index=index) for body in JUNK.values() for index in ("ready", "leases")}
    before = {task_id: queue.store.objects.get(queue.store.key_of(task_id)) for task_id in placed}
    worker.start()
    assert runs_on(queue)
    worker.stop()
    for task_id, stored in before.items():
        assert queue.store.objects.get(queue.store.key_of(task_id)) == stored, "left as they are"
        with pytest.raises(RecordError, match=task_id):
            queue.get(task_id)
    assert {task.status for task in queue.list(limit=None)} == {TaskStatus.COMPLETED}
    assert errors_in(caplog) == []


@pytest.mark.parametrize("index", ["ready", "leases"])
def test_tasks_with_odd_fields(queue_and_worker, caplog, index):
    queue, worker = queue_and_worker
    for fields in ODD.values():
        place_fields(queue, index=index, **fields)
    worker.start()
    assert runs_on(queue)
    worker.stop()
    for task in queue.list(limit=None):
        assert repr(task).isprintable()
        assert queue.get_history(task.id)
    queue.list_ready()
    assert errors_in(caplog) == []
    for record in caplog.records:
        assert record.getMessage().isprintable(), repr(record.getMessage())


def test_one_lost_task_does_not_keep_the_next_from_being_recovered(queue_and_worker):
    queue, worker = queue_and_worker
    lost = []
    for fields in list(ODD.values()) * 2:
        place_fields(queue, index="leases", **fields)
        lost.append(place_fields(queue, index="leases", **running(task_type="double", input=4)))
    worker.start()
    wait_for(lambda: all(queue.get(task_id).status == "completed" for task_id in lost))
    assert [queue.get(task_id).output for task_id in lost] == [8] * len(lost)


def test_index_entries_of_every_kind(queue_and_worker):
    queue, worker = queue_and_worker
    task_id = model.new_id()
    for index in ("ready", "leases"):
        for rest in (
            "",
            "x",
            "a/b/c/d/e",
            f"{task_id[0]}/no-minute/{task_id}",
            f"{task_id[0]}//{task_id}",
            f"/0000000001/{task_id}",
            f"zz/0000000001/{task_id}",
            f"{task_id[0]}/0000000001/not-an-id",
            f"{task_id[0]}/0000000001/../../x",
            f"{task_id[0]}/99999999999999/{task_id}",
            f"{task_id[0]}/٣٣٣/{task_id}",
            f"{task_id[0]}/0000000001/{task_id.upper()}",
            f"{task_id[0]}/0000000001/{task_id}/x",
        ):
            queue.store.objects.put(f"{index}/{rest}", b"junk")
    worker.start()
    assert runs_on(queue)


def test_workers_that_are_none(queue_and_worker):
    queue, worker = queue_and_worker
    for number, body in enumerate(JUNK.values()):
        queue.store.objects.put(f"workers/junk-{number}.json", body)
    worker.start()
    assert runs_on(queue)
    assert [found.worker_id for found in queue.workers()] == [worker.worker_id]


def test_idempotency_records_that_are_none(fake_queue):
    key = model.idempotency_key("double", "k")
    for body in JUNK.values():
        fake_queue.store.objects.put(key, body)
        with pytest.raises(OqError):
            fake_queue.submit("double", 1, idempotency_key="k")
    assert list(fake_queue.store.objects.entries(model.TASKS)) == []


def test_a_version_that_is_no_task_does_not_hide_the_others(fake_queue):
    task = fake_queue.submit("double", 1)
    good = fake_queue.store.objects.get(task.record.key)
    fake_queue.store.objects.put(task.record.key, b"oops")
    fake_queue.store.objects.put(task.record.key, good.body)
    assert [record.status for record in fake_queue.get_history(task.id)] == ["pending", "pending"]


def test_a_task_replaced_by_junk_while_it_runs(queue_and_worker):
    queue, worker = queue_and_worker
    started, go_on = threading.Event(), threading.Event()

    @worker.task("long")
    def long(value, context):
        started.set()
        go_on.wait(30)
        context.report_progress(percent=50)
        return value

    worker.start()
    task = queue.submit("long", 1, timeout_seconds=5)
    assert started.wait(30)
    queue.store.objects.put(task.record.key, b"<junk>")
    go_on.set()
    assert runs_on(queue)
    worker.stop()
    assert queue.store.objects.get(task.record.key).body == b"<junk>"


@pytest.mark.parametrize("hours", [-30, -3, 3, 30])
def test_a_machine_whose_clock_is_hours_off(hours):
    """The store's time counts: what is due is run, and only what is lost is recovered."""
    store = FakeStore()
    right = Queue(TaskStore(store))
    now = datetime.now(timezone.utc)
    in_an_hour, an_hour_ago = (Timestamp.of(now + timedelta(hours=n)).text for n in (1, -1))
    live = place_fields(right, index="leases", **running(lease_expires_at=in_an_hour))
    lost = place_fields(right, index="leases", **running(task_type="double", input=3, lease_expires_at=an_hour_ago))
    later = right.submit("double", 1, schedule_at=now + timedelta(hours=1))
    clock = Clock(wall=lambda: time.time() + hours * 3600)
    store.clock = clock
    honest, at = clock.observe, clock.monotonic
    # The fake store would tell the machine's own time.
    clock.observe = lambda date, sent, received: honest(formatdate(time.time(), usegmt=True), at(), at())
    worker = oq_nb.Worker(Queue(TaskStore(store)), max_poll_seconds=0.2)
    worker.task("double")(lambda value: value * 2)
    worker.task("test")(lambda value: value)
    with worker:
        assert runs_on(worker.queue, 3)
        assert wait_for(lambda: right.get(lost).status == "completed", 30)
    assert right.get(lost).output == 6
    assert right.get(live).status == "running"
    assert right.get(later.id).status == "pending"
    assert abs(right.get(lost).record.completed_at - datetime.now(timezone.utc)) < timedelta(minutes=1)


@pytest.mark.parametrize("index", ["ready", "leases"])
def test_twenty_thousand_entries_of_no_use(fake_store, index, capsys):
    """Tasks of a type without a handler here, and entries that lead nowhere, all older than the ones that count."""
    queue = Queue(TaskStore(fake_store))
    fake_store.clock = Clock(wall=lambda: time.time() - 300)  # written five minutes ago
    for number in range(20_000):
        task_id = model.new_id()
        if number % 4 == 0:
            body = json.dumps(plain_task(task_id, task_type="foreign")).encode()
            fake_store.put(f"tasks/{task_id[0]}/{task_id}.json", body)
        fake_store.put(f"{index}/{task_id[0]}/0000000001/{task_id}", b"")
    fake_store.clock = Clock()
    wanted = [queue.submit("double", number) for number in range(3)]
    lost = place_fields(queue, index="leases", **running(task_type="double", input=5))
    worker = oq_nb.Worker(queue, concurrency=2)
    worker.task("double")(lambda value: value * 2)
    fake_store.requests.clear()
    with worker:
        assert [task.result(timeout=120) for task in wanted] == [0, 2, 4]
        assert wait_for(lambda: queue.get(lost).status == "completed", 120)
    assert queue.get(lost).output == 10
    with capsys.disabled():
        print(f"\n20,000 entries under {index}/, then ours; requests: {dict(fake_store.requests)}", end=" ")


class Million(FakeStore):
    """A bucket with a million pending tasks and their ready entries, each made when it is asked for."""

    MINUTES, EACH = 625, 100  # in each of 16 shards

    def __init__(self):
        super().__init__()
        self._gone: set[str] = set()

    def _entries(self, prefix):
        shards = "0123456789abcdef" if prefix == "ready/" else prefix.split("/")[1]
        now = self.clock.now()
        for shard in shards:
            for minute in range(self.MINUTES):
                for number in range(self.EACH):
                    key = f"ready/{shard}/{minute:010}/{shard}{minute:07x}-0000-4000-8000-{number:012x}"
                    if key not in self._gone:
                        yield Entry(key, now, '"e"', 0, "made")

    def versions(self, prefix, *, page_size=1000, after=""):
        if not prefix.startswith("ready/"):
            yield from super().versions(prefix, page_size=page_size, after=after)
            return
        own = list(super().versions(prefix, page_size=page_size, after=after))
        others = (entry for entry in self._entries(prefix) if entry.key > after)
        both = heapq.merge(own, others, key=lambda entry: entry.key)
        for number, entry in enumerate(both):
            if number % page_size == 0:
                self.requests["LIST"] += 1
            yield entry

    def _make(self, key):
        if key.startswith("tasks/") and "-0000-4000-8000-" in key and key not in self._keys:
            body = json.dumps(plain_task(key[8:-5], task_type="double", input=int(key[-17:-5], 16))).encode()
            self._add(self._keys.setdefault(key, []), body)

    def get(self, key, **options):
        self._make(key)
        return super().get(key, **options)

    def delete(self, key, *, version_id=None):
        if version_id == "made":
            self.requests["DELETE"] += 1
            self._gone.add(key)
        else:
            super().delete(key, version_id=version_id)


def test_a_million_tasks_are_ready(capsys):
    """A worker neither reads them all nor keeps them all: it goes on task by task, with few listings."""
    store = Million()
    worker = oq_nb.Worker(Queue(TaskStore(store)), concurrency=2, max_poll_seconds=0.2)
    done = []
    worker.task("double")(lambda value: done.append(value) or value * 2)
    with worker:
        assert wait_for(lambda: len(done) >= 300)
    made = [json.loads(body) for entry, body in store.look("tasks/") if entry.is_latest]
    completed = [task for task in made if task["status"] == "completed"]
    assert len(completed) >= 300
    assert all(task["output"] == task["input"] * 2 for task in completed)
    assert len(made) < len(done) + 200, "tasks are read when their turn comes"
    assert store.requests["LIST"] < len(done), "not a page for each task"
    with capsys.disabled():
        print(f"\n{len(done)} of 1,000,000 ready tasks run; requests: {dict(store.requests)}", end=" ")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.skipif(not os.environ.get("OQ_TEST_SLOW"), reason="set OQ_TEST_SLOW=1: takes minutes and gigabytes")
def test_a_million_ready_entries(fake_store):
    """Entries that lead nowhere, in a thousand minutes, and one task in the last minute."""
    for number in range(1_000_000):
        task_id = model.new_id()
        fake_store.put(f"ready/{task_id[0]}/{number // 1000:010}/{task_id}", b"")
    queue = Queue(TaskStore(fake_store))
    task = queue.submit("double", 4)
    worker = oq_nb.Worker(queue, concurrency=2)
    worker.task("double")(lambda value: value * 2)
    with worker:
        assert task.result(timeout=2400) == 8


def test_a_handler_registered_later_gets_its_tasks(queue_and_worker):
    queue, worker = queue_and_worker
    worker.start()
    task = queue.submit("late", 1)
    assert runs_on(queue)
    assert wait_for(lambda: worker._session.claims._foreign)
    assert task.refresh().status == "pending"
    worker.task("late")(lambda value: value + 1)
    assert task.result(timeout=30) == 2


def test_fifty_megabytes_on_a_real_store(seaweedfs):
    """As a task object, as no task at all, as a task's input, and as an index entry."""
    queue = connect_to(seaweedfs, read_timeout_seconds=30.0)
    text = "x" * 50_000_000
    inline = place_fields(queue, input=text, task_type="length")
    junk = place(queue, text.encode())
    queue.store.objects.put(f"ready/0/0000000001/{'0' + model.new_id()[1:]}", text.encode())
    large = queue.submit("length", text)
    worker = oq_nb.Worker(queue, concurrency=2, max_poll_seconds=0.5)
    worker.task("length")(len)
    worker.task("double")(lambda value: value * 2)
    with worker:
        assert queue.submit("double", 2).result(timeout=60) == 4
        assert large.result(timeout=60) == 50_000_000
        assert queue.get(inline).result(timeout=60) == 50_000_000
    with pytest.raises(RecordError):
        queue.get(junk)


def test_a_worker_among_mutated_tasks(queue_and_worker, capsys, caplog):
    """A thousand mutated tasks with entries in both indexes; the others run, and nothing is thrown."""
    queue, worker = queue_and_worker
    chance = random.Random(7)
    fixtures = sorted(WIRE.glob("task-*.json"))
    for number in range(1000):
        path = chance.choice(fixtures)
        original, fresh = json.loads(path.read_bytes())["id"], model.new_id()
        body = mutate(path.read_bytes().rstrip(), chance).replace(original.encode(), fresh.encode())
        for shard in (b'"shard": "%c', b'"shard":"%c'):
            body = body.replace(shard % ord(original[0]), shard % ord(fresh[0]))
        place(queue, body, task_id=fresh, index=("ready", "leases")[number % 2])
    worker.start()
    assert runs_on(queue, 20)
    wait_for(lambda: not worker._session.backlog, 30)
    worker.stop()
    assert errors_in(caplog) == []
    seen: dict[str, int] = {}
    for task in queue.list(limit=None):
        seen[str(task.status)] = seen.get(str(task.status), 0) + 1
    assert sum(seen.values()) > 100, "enough of them could be read"
    with capsys.disabled():
        print(f"\n1000 mutated tasks among 20, readable in the end: {seen}", end=" ")
