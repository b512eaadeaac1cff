"""What polling costs: 1 LIST a look however long the index is, few wake-ups, recovery that holds nothing up."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import timedelta

import pytest
from waiting import until

import oq_nb
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.model import RetryPolicy, TaskStatus, new_id, ready_key, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime

SOON = RetryPolicy(initial_interval_ms=10, max_interval_ms=20, multiplier=1.0, jitter_percent=0.0)


def entries_ahead(queue, count, seconds=3600.0):
    """Write index entries of tasks that are scheduled for later, as many as there may be."""
    task = queue.submit("later", schedule_at=queue.now() + timedelta(seconds=seconds))
    for _ in range(count - 1):
        task_id = new_id()
        record = task.record.evolve(id=task_id, shard=queue.store.shard_of(task_id))
        queue.store.objects.put(ready_key(record), b"")


def session_of(queue, **options):
    worker = oq_nb.Worker(queue, "w1", **options)
    worker.task("a")(lambda value: value)
    return worker._open_session(Scheduler("test"), None)


def lists(queue, look):
    objects = queue.store.objects
    before = objects.requests["LIST"]
    look()
    return objects.requests["LIST"] - before


@pytest.mark.parametrize("count", [6000, 999, 1001])
def test_a_look_takes_one_list_however_many_tasks_are_scheduled_ahead(fake_queue, count):
    entries_ahead(fake_queue, count)
    poller = session_of(fake_queue).poller
    assert {lists(fake_queue, poller.find_tasks) for _ in range(40)} == {1}


def test_of_a_shard_that_has_only_tasks_for_later_a_short_page_is_read(fake_queue):
    entries_ahead(fake_queue, 6000)
    poller = session_of(fake_queue).poller
    read = []
    objects = fake_queue.store.objects
    pages = objects._pages
    objects._pages = lambda prefix, size, *more: (read.append((prefix, size)), pages(prefix, size, *more))[1]
    for _ in range(1 + 16):
        poller.find_tasks()
    assert {size for _, size in read} == {1000}  # what stands there is not yet known
    read.clear()
    for _ in range(17 * 3):
        poller.find_tasks()
        assert not poller._ready.has_urgent
    assert {size for prefix, size in read if prefix != "ready/"} == {64}
    tasks = fake_queue.submit_many("a", range(3000))  # more than a short page in each shard
    seen = set()
    for _ in range(17 * 40):
        poller.find_tasks()
        while poller._backlog:
            seen.add(poller._backlog.take().task_id)
            poller._backlog.done()
    assert seen == {task.id for task in tasks}


def test_many_due_entries_of_other_types_before_those_for_later_cause_no_hurry(fake_queue):
    """Neither 40 nor 100 known entries of no use make a look that is too short be followed by another, for ever."""
    entries_ahead(fake_queue, 3000)
    for count in (40, 60):
        of_no_use(fake_queue, "ready", count)
        session = session_of(fake_queue)
        for _ in range(17 * 6):
            session.poller.find_tasks()
            while session.backlog:
                session.backlog.take()
                session.backlog.done()
        hurries = 0
        for _ in range(17 * 4):
            session.poller.find_tasks()
            hurries += session.poller._ready.has_urgent
        assert hurries == 0


def test_a_look_for_lapsed_leases_takes_one_list_however_many_tasks_run(fake_queue):
    task = fake_queue.submit("a")
    for number in range(3000):
        task_id = new_id()
        fake_queue.store.objects.put(f"leases/{task_id[0]}/99999999{number % 60:02d}/{task_id}", b"")
    poller = session_of(fake_queue).poller
    assert {lists(fake_queue, poller.recover_tasks) for _ in range(40)} == {1}
    assert task.refresh().status is TaskStatus.PENDING


def test_what_can_be_run_is_found_beside_thousands_scheduled_ahead(fake_queue):
    entries_ahead(fake_queue, 3000)
    tasks = fake_queue.submit_many("a", range(50))
    session = session_of(fake_queue, concurrency=4)
    seen = set()
    for _ in range(18):  # all at once, each shard, all at once
        session.poller.find_tasks()
        while session.backlog:
            seen.add(session.backlog.take().task_id)
            session.backlog.done()
    assert seen == {task.id for task in tasks}


def of_no_use(queue, index, count):
    """Write due entries that lead nowhere, all in shard 7."""
    for _ in range(count):
        queue.store.objects.put(f"{index}/7/0000000001/7{new_id()[1:]}", b"")


def in_shard_7(queue):
    """Return a task that is in shard 7."""
    while (task := queue.submit("a")).record.shard != "7":
        pass
    return task


def test_due_entries_of_no_use_do_not_hide_a_task_behind_them(fake_queue):
    """A shard is read on at every second look until it has no more; before, it was read once in 17 looks."""
    of_no_use(fake_queue, "ready", 3000)
    task = in_shard_7(fake_queue)
    session = session_of(fake_queue, concurrency=4)
    seen = set()
    for _ in range(17 + 2 * 7):  # its turn comes; then 128, 256, 512 and 1,000 entries at a time
        session.poller.find_tasks()
        while session.backlog:
            seen.add(session.backlog.take().task_id)
            session.backlog.done()
    assert task.id in seen
    assert len({task_id for task_id in seen if task_id.startswith("7")}) >= 3001


def test_the_next_look_is_soon_while_a_shard_has_more(fake_queue):
    of_no_use(fake_queue, "ready", 3000)
    poller = session_of(fake_queue).poller
    pauses, calm = [], 0
    while calm < 2 * 17:  # two rounds in a row: nothing is left, and what was passed over stays so
        poller.find_tasks()
        pauses.append(poller.pause_after(3600.0))
        calm = calm + 1 if pauses[-1] > 1 else 0  # a round takes twice as many looks, as what was passed is read again
        assert len(pauses) < 200, "the shards take turns in random order: its three pages took 30 to 61 looks"
    assert min(pauses) <= 0.1


def test_other_shards_have_their_turn_while_one_has_more_for_ever(fake_queue):
    of_no_use(fake_queue, "ready", 3000)
    poller = session_of(fake_queue).poller
    read = []
    scan = fake_queue.store.index.scan
    fake_queue.store.index.scan = lambda prefix, **options: (read.append(prefix), scan(prefix, **options))[1]
    poller._claims.mark_taken = lambda entries: None  # they stay due
    for _ in range(1 + 2 * 16 + 1):
        poller.find_tasks()
    assert set(read) == {"ready/", *(f"ready/{shard}/" for shard in "0123456789abcdef")}
    assert read.count("ready/7/") >= 2


def test_lapsed_leases_of_no_use_do_not_hide_one_behind_them(fake_queue):
    of_no_use(fake_queue, "leases", 3000)
    fake_queue.store.objects.put(f"leases/7/0000000002/{(lost := '7' + new_id()[1:])}", b"")
    session = session_of(fake_queue)
    seen = []
    session.claims.handle_entry = lambda entry: seen.append(entry.task_id)
    for _ in range(17 + 2 * 25):  # its turn comes; then 128 at a time
        session.poller.recover_tasks()
    assert lost in seen


def test_a_task_of_this_process_is_found_at_once_beside_thousands_scheduled_ahead(fake_queue):
    entries_ahead(fake_queue, 3000)
    worker = oq_nb.Worker(fake_queue, max_poll_seconds=60)
    worker.task("a")(lambda value: value)
    with worker:
        until(lambda: worker._session.poller._ready.reads_a_round == 16)
        worker._session.poller.pause_after = lambda idle: 60.0
        for number in range(20):
            assert fake_queue.submit("a", number).result(20) == number


def test_shards_with_tasks_that_come_due_are_read_first():
    """On a clock that is moved: 3,000 tasks an hour ahead; when the hour comes, two reads find two shards' tasks."""
    clock = FakeTime()
    queue = Queue(TaskStore(FakeStore(clock)))
    entries_ahead(queue, 3000, seconds=7200.0)
    session = session_of(queue)
    soon = queue.submit("a", schedule_at=queue.now() + timedelta(seconds=600))
    for _ in range(17):
        session.poller.find_tasks()
    assert not session.backlog
    clock.advance(660)
    session.poller.find_tasks()
    assert session.backlog.take().task_id == soon.id


def test_the_pauses_are_such_that_a_round_takes_a_minute_at_most(fake_queue):
    entries_ahead(fake_queue, 3000)
    poller = session_of(fake_queue).poller
    assert poller.pause_after(3600.0) > 10
    poller.find_tasks()
    assert poller.pause_after(3600.0) * 16 <= 60
    assert poller.pause_after(3600.0) > 2


def test_a_busy_worker_sleeps(fake_queue):
    """A task that comes due while all handler threads are busy wakes nobody."""
    worker = oq_nb.Worker(fake_queue, "w1")
    begun, gate = threading.Event(), threading.Event()

    @worker.task("a")
    def handle(value):
        begun.set()
        gate.wait(30)

    with worker:
        late = fake_queue.submit("a", schedule_at=fake_queue.now() + timedelta(seconds=1))
        until(lambda: fake_queue.store.objects.requests["GET"])  # it is known when it comes due
        fake_queue.submit("a")
        assert begun.wait(20)
        until(lambda: fake_queue.now() > late.record.available_at + timedelta(seconds=0.1))
        waits = []
        backlog = worker._session.backlog
        wait = backlog.wait
        backlog.wait = lambda *arguments: (waits.append(1), wait(*arguments))
        time.sleep(2.0)
        gate.set()
        late.result(20)
    assert len(waits) <= 6, f"{len(waits) / 2:g} wake-ups a second"


def crashed(queue, count, lease_seconds=0.2):
    """Return tasks whose worker is dead and whose leases have run out."""
    tasks = queue.submit_many("a", range(count), retry_policy=SOON)
    for task in tasks:
        held = queue.store.read(task.id)
        record = transitions.claim(
            held.record, queue.store.clock.stamp(), lease_id=new_id(), worker_id="dead", lease_seconds=lease_seconds
        )
        queue.store.move(held, record)
        queue.store.objects.put(f"leases/{record.shard}/0000000001/{record.id}", b"")
        for entry in queue.store.index.find(ready_key(held.record)):
            queue.store.index.remove(entry)
    time.sleep(lease_seconds + 1.6)  # the store's clock tells whole seconds
    return tasks


def test_recovery_does_not_hold_up_the_look_for_tasks_and_is_parallel(fake_queue):
    tasks = crashed(fake_queue, 12)
    ids = {task.record.key for task in tasks}
    at_once, gate, most = [0], threading.Event(), [0]
    lock = threading.Lock()

    def fault(kind, key, when):
        if (kind, when) == ("GET", "before") and key in ids and threading.current_thread().name.startswith("oq-sch"):
            with lock:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            gate.wait(20)  # the recoveries hang until the new task has run
            with lock:
                at_once[0] -= 1

    fake_queue.store.objects.fault = fault
    worker = oq_nb.Worker(fake_queue, "w1", max_poll_seconds=0.1)
    worker.task("a")(lambda value: value)
    worker.task("new")(lambda value: value)
    with worker:
        until(lambda: most[0] > 1)
        assert fake_queue.submit("new", 5).result(20) == 5
        gate.set()
        assert [task.result(60) for task in tasks] == list(range(12))
    assert most[0] == 8


def test_workers_recover_in_different_orders(fake_queue):
    crashed(fake_queue, 40)
    orders = []
    for number in range(2):
        session = session_of(fake_queue)
        order: list[str] = []
        session.claims.handle_entry = lambda entry, order=order: order.append(entry.task_id)
        session.poller.recover_tasks()
        orders.append(order)
    assert len(orders[0]) == 40
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_a_crashed_fleet_is_recovered_whole(fake_queue):
    tasks = crashed(fake_queue, 300)
    ran: Counter[int] = Counter()
    workers = [oq_nb.Worker(fake_queue, f"w{number}", concurrency=4, max_poll_seconds=0.1) for number in range(3)]
    for worker in workers:
        worker.task("a")(lambda value: ran.update([value]))
        worker.start()
    try:
        for task in tasks:
            task.result(60)
    finally:
        for worker in workers:
            worker.stop()
    assert ran == Counter(range(300))
    assert {task.record.retry_count for task in tasks} == {1}
