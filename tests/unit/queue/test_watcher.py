"""The poller: how many requests a look takes, what it sees, and that nobody is hurt by anybody."""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter
from datetime import timedelta

import pytest
from waiting import until

import oq_nb
from oq_nb import model
from oq_nb.errors import ConfigurationError, StorageDeniedError, StorageUnavailableError
from oq_nb.model import TaskStatus, WorkerRecord, transitions
from oq_nb.queue import Queue
from oq_nb.queue.poller import TaskPoller
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore


def claim(queue: Queue, task_id: str) -> str:
    """Claim as a worker does, its index entries included; return the lease id."""
    before = queue.store.read(task_id)
    lease_id = model.new_id()
    held = queue.store.update(
        task_id, lambda r, now: transitions.claim(r, now, worker_id="w", lease_id=lease_id, lease_seconds=300)
    )
    queue.store.index.add(model.lease_key(held.record))
    for entry in queue.store.index.find(model.ready_key(before.record)):
        queue.store.index.remove(entry)
    return lease_id


def report(queue: Queue, task_id: str, lease_id: str, percent: int) -> None:
    progress = model.Progress(percent=percent, updated_at=queue.store.clock.stamp())
    queue.store.update(task_id, lambda r, now: transitions.report(r, now, lease_id=lease_id, progress=progress))


def complete(queue: Queue, task_id: str, lease_id: str) -> None:
    before = queue.store.read(task_id)
    queue.store.update(task_id, lambda r, now: transitions.complete(r, now, lease_id=lease_id, output=1))
    for entry in queue.store.index.find(model.lease_key(before.record)):
        queue.store.index.remove(entry)


def requests_of(store: FakeStore, call) -> dict[str, int]:
    before = dict(store.requests)
    call()
    return {kind: count - before.get(kind, 0) for kind, count in store.requests.items() if count != before.get(kind, 0)}


@pytest.fixture
def thousand(fake_queue):
    """1,000 tasks of which 10 run."""
    tasks = fake_queue.submit_many("a", range(1000))
    leases = {task.id: claim(fake_queue, task.id) for task in tasks[:10]}
    poller = TaskPoller(fake_queue.store)
    for task in tasks:
        poller.ingest(task.snapshot)
    poller.refresh([task.id for task in tasks])
    return tasks, leases, poller


# --- requests


def test_a_thousand_of_which_ten_run(fake_queue, fake_store, thousand):
    tasks, leases, poller = thousand
    ids = [task.id for task in tasks]
    assert sum(poller.seen[i].record.status is TaskStatus.RUNNING for i in ids) == 10
    for task_id, lease_id in leases.items():
        report(fake_queue, task_id, lease_id, 50)
    assert requests_of(fake_store, lambda: poller.refresh(ids)) == {"LIST": 1, "GET": 10}
    assert all(poller.seen[i].record.progress.percent == 50 for i in leases)
    assert requests_of(fake_store, lambda: poller.refresh(ids)) == {"LIST": 1}, "nothing has changed"


def test_a_thousand_watched_through_the_poller(fake_queue, fake_store, monkeypatch):
    """Counted apart from what reports: a refresh takes 11 requests when all ten have reported, 1 when none has."""
    tasks = fake_queue.submit_many("a", range(1000))
    leases = {task.id: claim(fake_queue, task.id) for task in tasks[:10]}
    reporting = threading.current_thread()
    costs: list[list[str]] = []
    look = TaskPoller.refresh

    def counted(self, *args, **kwargs):
        costs.append([])
        look(self, *args, **kwargs)

    def count(kind, key, moment):
        if moment == "before" and threading.current_thread() is not reporting:
            costs[-1].append(kind)

    monkeypatch.setattr(TaskPoller, "refresh", counted)
    fake_store.fault = count
    watches = fake_queue.watcher.watch_many(tasks, interval=0.2)
    until(lambda: all(watch.state.seen_at for watch in watches))
    calm = len(costs)
    until(lambda: len(costs) > calm + 2)
    assert costs[calm] == ["LIST"], "nothing has changed"
    for task_id, lease_id in leases.items():
        report(fake_queue, task_id, lease_id, 50)
    until(lambda: all(watch.state.record.progress for watch in watches[:10]))
    told = len(costs)
    until(lambda: len(costs) > told + 2)
    assert costs[told] == ["LIST"], "nothing has changed"
    assert Counter(kind for cost in costs[calm:told] for kind in cost) == {"LIST": told - calm, "GET": 10}
    for watch in watches:
        watch.close()


def test_the_index_is_read_where_finished_tasks_make_the_other_list_long(fake_queue, fake_store, thousand):
    tasks, leases, poller = thousand
    for number in range(13_000):  # what a bucket looks like after a while
        fake_store.put(f"tasks/f/{number}.json", b"{}")
    ids = [task.id for task in tasks]
    poller.refresh(ids)  # finds out that the list is long
    cost = requests_of(fake_store, lambda: poller.refresh(ids))
    assert cost["LIST"] == 2
    assert cost["GET"] <= 10 + 4
    claimed = tasks[500].id
    claim(fake_queue, claimed)
    cost = requests_of(fake_store, lambda: poller.refresh(ids))
    assert sum(cost.values()) < 20
    assert poller.seen[claimed].record.status is TaskStatus.RUNNING


def test_finished_tasks_are_not_read_again(fake_queue, fake_store):
    tasks = fake_queue.submit_many("a", range(20))
    poller = TaskPoller(fake_queue.store)
    ids = [task.id for task in tasks]
    poller.refresh(ids)
    for task_id in ids:
        complete(fake_queue, task_id, claim(fake_queue, task_id))
    poller.refresh(ids)
    assert {poller.seen[i].record.status for i in ids} == {TaskStatus.COMPLETED}
    assert requests_of(fake_store, lambda: poller.refresh(ids)) == {}


def test_few_tasks_are_read_one_by_one(fake_queue, fake_store):
    task = fake_queue.submit("a")
    poller = TaskPoller(fake_queue.store)
    assert requests_of(fake_store, lambda: poller.refresh([task.id])) == {"GET": 1}


def test_the_index_is_no_truth(fake_queue, fake_store):
    """A task that was claimed by someone who died before writing its lease entry is found all the same."""
    tasks = fake_queue.submit_many("a", range(50))
    for number in range(13_000):
        fake_store.put(f"tasks/f/{number}.json", b"{}")
    poller = TaskPoller(fake_queue.store)
    ids = [task.id for task in tasks]
    poller.refresh(ids)
    lease_id = model.new_id()
    fake_queue.store.update(
        ids[30], lambda r, now: transitions.claim(r, now, worker_id="w", lease_id=lease_id, lease_seconds=300)
    )
    fake_queue.store.index.add(model.ready_key(tasks[30].record))
    for _ in range(15):
        poller.refresh(ids)
    assert poller.seen[ids[30]].record.status is TaskStatus.RUNNING


# --- the whole queue


def test_an_overview(fake_queue, fake_store):
    tasks = fake_queue.submit_many("a", range(6))
    leases = [claim(fake_queue, task.id) for task in tasks[:3]]
    complete(fake_queue, tasks[0].id, leases[0])
    seen = fake_queue.watcher.read_overview()
    assert seen.counts == {"running": 2, "pending": 3, "completed": 1}
    assert [held.record.id for held in seen.live[:2]] == [tasks[1].id, tasks[2].id], "running ones first"
    assert [held.record.id for held in seen.ended] == [tasks[0].id]
    assert (seen.uncounted, seen.unread, seen.trouble) == (0, 0, None)


def test_an_overview_sees_a_task_that_is_run_again_within_the_second_of_its_end(fake_queue):
    """Its new index entry is as old as its end, as far as the two clocks tell."""
    task = fake_queue.submit("t")
    poller = TaskPoller(fake_queue.store)
    task.cancel()
    poller.refresh(overview=True)
    assert poller.overview.counts["cancelled"] == 1
    task.replay()
    poller.refresh(overview=True)
    assert [held.record.id for held in poller.overview.live] == [task.id]
    assert (poller.overview.counts["pending"], poller.overview.counts.get("cancelled", 0)) == (1, 0)


def test_an_overview_of_many_finished_tasks_lists_them_rarely(fake_queue, fake_store):
    fake_queue.submit("a")
    for number in range(5000):
        fake_store.put(f"tasks/f/{number}.json", b"{}")
    poller = TaskPoller(fake_queue.store)
    poller.refresh(overview=True)
    cost = requests_of(fake_store, lambda: poller.refresh(overview=True))
    assert cost["LIST"] == 2, "of the index"
    assert cost["GET"] <= 4
    assert poller.overview.uncounted == 5000


def test_more_tasks_than_are_read_are_counted(fake_queue, fake_store):
    fake_queue.submit_many("a", range(1200))
    seen = fake_queue.watcher.read_overview()
    assert len(seen.live) == 1000
    assert seen.counts["pending"] == 1200
    assert seen.unread == 200


def test_an_entry_that_leads_nowhere_is_not_counted(fake_queue, fake_store):
    tasks = fake_queue.submit_many("a", range(3))
    poller = TaskPoller(fake_queue.store)
    fake_store.delete(tasks[0].record.key)
    for _ in range(2):
        poller.refresh(overview=True)
        poller.keep([])
        assert poller.overview.counts == {"running": 0, "pending": 2}
        assert poller.overview.unread == 0


def test_ended_ones_leave_the_live_ones(fake_queue):
    tasks = fake_queue.submit_many("a", range(3))
    poller = TaskPoller(fake_queue.store)
    poller.refresh(overview=True)
    complete(fake_queue, tasks[0].id, claim(fake_queue, tasks[0].id))
    fake_queue.cancel(tasks[1].id)
    poller.refresh(overview=True)
    assert [held.record.id for held in poller.overview.live] == [tasks[2].id]
    assert poller.overview.counts == {"running": 0, "pending": 1, "completed": 1, "cancelled": 1}


# --- workers


def enter_worker(queue: Queue, *, types: list[str] | None, seconds_ago: float = 0) -> None:
    at = model.Timestamp.of(queue.store.clock.now() - timedelta(seconds=seconds_ago))
    record = WorkerRecord(worker_id="w", started_at=at, last_heartbeat=at, shards=queue.all_shards(), task_types=types)
    queue.store.objects.put(model.worker_key("w"), record.to_bytes())


@pytest.mark.parametrize(
    ("types", "seconds_ago", "expected"),
    [(["a"], 0, True), (["b"], 0, False), (None, 0, None), (["a"], 300, False)],
)
def test_whether_there_is_a_worker(fake_queue, types, seconds_ago, expected):
    task = fake_queue.submit("a")
    enter_worker(fake_queue, types=types, seconds_ago=seconds_ago)
    assert fake_queue.watcher.read_task(task, workers=True).has_worker is expected


def test_no_worker_at_all(fake_queue):
    assert fake_queue.watcher.read_task(fake_queue.submit("a"), workers=True).has_worker is False
    assert fake_queue.watcher.read_task(fake_queue.submit("a")).has_worker is None


# --- the thread


def test_no_thread_and_no_request_without_a_watch(fake_queue, fake_store):
    task = fake_queue.submit("a")
    assert not fake_queue.watcher.is_running
    with fake_queue.watcher.watch(task, interval=0.01) as watch:
        assert watch.state.record.status is TaskStatus.PENDING, "what the handle knew, at once"
        assert fake_queue.watcher.is_running
        lease_id = claim(fake_queue, task.id)
        until(lambda: watch.state.record.status is TaskStatus.RUNNING)
        complete(fake_queue, task.id, lease_id)
        until(lambda: watch.state.is_over)
        until(lambda: not fake_queue.watcher.is_running)
    count = sum(fake_store.requests.values())
    time.sleep(0.1)
    assert sum(fake_store.requests.values()) == count


def test_a_watch_that_is_dropped_ends(fake_queue):
    kept = [fake_queue.watcher.watch(fake_queue.submit("a"), interval=0.01)]
    until(lambda: kept[0].state.seen_at)
    kept.clear()
    gc.collect()
    until(lambda: not fake_queue.watcher.is_running)


def test_all_watch_through_one_thread(fake_queue):
    tasks = fake_queue.submit_many("a", range(30))
    watches = fake_queue.watcher.watch_many(tasks, interval=0.01)
    over = fake_queue.watcher.overview(interval=0.01)
    until(lambda: over.state.seen_at and all(watch.state.seen_at for watch in watches))
    assert sum(thread.name.startswith("oq-watch-queue") for thread in threading.enumerate()) == 1
    for watch in [*watches, over]:
        watch.close()


def test_what_one_sees_all_who_watch_the_task_see(fake_queue):
    """A waiter that looks often keeps a widget that does not up to date, and is told after it."""
    task = fake_queue.submit("a")
    with fake_queue.watcher.watch(task, interval=600) as seldom:
        until(lambda: seldom.state.seen_at)
        with fake_queue.watcher.watch(task, interval=0.01) as often:
            complete(fake_queue, task.id, claim(fake_queue, task.id))
            until(lambda: often.state.is_over)
            assert seldom.state.is_over
            assert seldom.wait(60)


def test_a_store_that_is_away_keeps_the_last_state(fake_queue, fake_store, caplog):
    task = fake_queue.submit("a")

    def fail(kind, key, when):
        if when == "before":
            raise StorageUnavailableError("no answer")

    with fake_queue.watcher.watch(task, interval=0.01) as watch, fake_queue.watcher.overview(interval=0.01) as over:
        until(lambda: watch.state.seen_at and over.state.seen_at)
        fake_store.fault = fail
        until(lambda: watch.state.trouble and over.state.trouble)
        assert watch.state.record.status is TaskStatus.PENDING
        assert not watch.state.is_over
        assert over.state.counts["pending"] == 1
        fake_store.fault = None
        fake_queue.watcher.refresh_all()
        until(lambda: watch.state.trouble is None and over.state.trouble is None)
    warned = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warned) == 1, "once, not at every try"


def test_a_lasting_trouble_is_told_apart(fake_queue, fake_store):
    task = fake_queue.submit("a")

    def deny(kind, key, when):
        raise StorageDeniedError("no")

    fake_store.fault = deny
    assert fake_queue.watcher.read_task(task).is_lasting


def test_a_task_that_is_gone(fake_queue, fake_store):
    task = fake_queue.submit("a")
    with fake_queue.watcher.watch(task, interval=0.01) as watch:
        fake_store.delete(task.record.key)
        until(lambda: watch.state.is_gone)
        assert watch.state.is_over
        assert watch.state.record is not None, "what was last seen"


def test_an_object_that_is_no_task(fake_queue, fake_store):
    task = fake_queue.submit("a")
    fake_store.put(task.record.key, b"[]")
    state = fake_queue.watcher.read_task(task.id)
    assert (state.is_lasting, state.is_gone) == (True, False)
    assert "not a TaskRecord" in state.trouble


def test_a_replayed_task_is_watched_again(fake_queue):
    task = fake_queue.submit("a")
    fake_queue.cancel(task.id)
    with fake_queue.watcher.watch(task.refresh(), interval=0.01) as watch:
        assert watch.state.is_over
        assert not fake_queue.watcher.is_running
        fake_queue.watcher.ingest(fake_queue.replay(task.id).snapshot)
        assert not watch.state.is_over
        claim(fake_queue, task.id)
        until(lambda: watch.state.record.status is TaskStatus.RUNNING)


def test_signals_are_set_and_looks_get_rarer(fake_queue, fake_store):
    news = threading.Event()
    task = fake_queue.submit("a")
    with fake_queue.watcher.watch(task, interval=0.01, longest=5, signal=news) as watch:
        until(lambda: watch.state.seen_at)
        claim(fake_queue, task.id)
        assert news.wait(60)
        time.sleep(0.5)
        before = sum(fake_store.requests.values())
        time.sleep(0.5)
        assert sum(fake_store.requests.values()) - before <= 5


@pytest.mark.parametrize("interval", [0, -1, float("nan"), "1", True, None])
def test_a_wrong_interval(fake_queue, interval):
    with pytest.raises(ConfigurationError, match="interval"):
        fake_queue.watcher.watch(model.new_id(), interval=interval)


def test_the_same_on_a_real_store(queue):
    """ETags of listings and of reads are the same, so that a task that has not changed is not read again."""
    tasks = queue.submit_many("a", range(40))
    poller = TaskPoller(TaskStore(queue.store.objects))
    ids = [task.id for task in tasks]
    poller.refresh(ids)
    assert {poller.seen[i].record.status for i in ids} == {TaskStatus.PENDING}
    assert requests_of(queue.store.objects, lambda: poller.refresh(ids)) == {"LIST": 1}
    lease_id = claim(queue, ids[0])
    assert requests_of(queue.store.objects, lambda: poller.refresh(ids)) == {"LIST": 1, "GET": 1}
    complete(queue, ids[0], lease_id)
    poller.refresh(ids, overview=True)
    assert poller.overview.counts == {"running": 0, "pending": 39, "completed": 1}


def test_a_worker_of_the_same_process_tells_who_watches(fake_queue):
    task = fake_queue.submit("job")
    goes_on = threading.Event()
    worker = oq_nb.Worker(fake_queue)

    @worker.task("job")
    def job(value, context):
        for percent in (10, 20):
            context.report_progress(percent=percent)
        goes_on.wait(20)
        return "done"

    with fake_queue.watcher.watch(task, interval=3600) as watch:
        until(lambda: fake_queue.watcher.is_running)
        with worker:
            until(lambda: watch.state.record.progress is not None and watch.state.record.progress.percent == 20)
            assert watch.state.record.status is TaskStatus.RUNNING
            goes_on.set()
            until(lambda: watch.state.record.status is TaskStatus.COMPLETED)
        assert watch.state.held.etag == fake_queue.get(task.id).snapshot.etag
