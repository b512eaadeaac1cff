"""Tasks on every store: create, change, history, payloads by reference, idempotency, and the requests they take."""

from __future__ import annotations

import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from oq_nb import model
from oq_nb.errors import (
    ConfigurationError,
    ConflictError,
    LeaseExpiredError,
    RecordError,
    TaskNotFoundError,
    TransitionError,
)
from oq_nb.model import Progress, TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.s3.clock import Clock
from oq_nb.store import PAYLOAD_LIMIT_BYTES, TaskStore, verify_conditional_writes


@pytest.fixture
def queue(tasks) -> Queue:
    """A queue on each kind of store."""
    return Queue(tasks)


def claim(tasks: TaskStore, task_id: str, lease_id: str | None = None):
    """Claim a task as a worker does, without its index entries."""
    held = tasks.read(task_id)
    changed = transitions.claim(
        held.record, tasks.clock.stamp(), lease_id=lease_id or model.new_id(), worker_id="w", lease_seconds=60
    )
    return tasks.move(held, changed)


def keys(tasks: TaskStore, prefix: str) -> list[str]:
    return [entry.key for entry in tasks.objects.entries(prefix)]


def test_a_new_task_takes_two_requests_and_is_found_by_its_entry(queue, tasks):
    tasks.objects.requests.clear()
    task = queue.submit("t", {"ü": [1, None, True]})
    assert tasks.objects.requests == Counter(PUT=2)
    assert queue.get(task.id).record == task.record
    assert keys(tasks, "") == [model.ready_key(task.record), task.record.key]
    (entry,) = tasks.index.scan(model.READY)
    assert entry.task_id == task.id
    assert entry.version_id == tasks.index.find(entry.key)[0].version_id


def test_a_task_is_created_once(queue, tasks):
    record = queue.submit("t").record
    with pytest.raises(ConflictError):
        tasks.create(record.evolve(input=2))
    assert tasks.read(record.id).record == record


def test_the_life_of_a_task_and_its_history(queue, tasks):
    task = queue.submit("t", 1)
    held = claim(tasks, task.id)
    lease = held.record.lease_id
    for percent in (10, 20):
        now = tasks.clock.stamp()
        report = transitions.report(
            held.record, now, lease_id=lease, progress=Progress(percent=percent, message="<b>", updated_at=now)
        )
        tasks.objects.requests.clear()
        held = tasks.move(held, report)
        assert tasks.objects.requests == Counter(PUT=1)
    held = tasks.move(held, transitions.complete(held.record, tasks.clock.stamp(), lease_id=lease, output={"a": 1}))
    history = tasks.history(task.id)
    assert [record.status.value for record in history] == ["pending", "running", "running", "running", "completed"]
    assert [record.progress and record.progress.percent for record in history] == [None, None, 10, 20, None]
    assert history[-1] == held.record == tasks.read(task.id).record
    assert [record.to_bytes() for record in tasks.history(task.id, limit=2)] == [
        record.to_bytes() for record in history[-2:]
    ]


def test_a_change_over_an_old_view_is_refused(queue, tasks):
    task = queue.submit("t")
    old = tasks.read(task.id)
    first = claim(tasks, task.id)
    with pytest.raises(ConflictError):
        tasks.move(
            old,
            transitions.claim(
                old.record, tasks.clock.stamp(), lease_id=model.new_id(), worker_id="late", lease_seconds=60
            ),
        )
    assert tasks.read(task.id).record.lease_id == first.record.lease_id


def test_a_former_owner_changes_nothing(queue, tasks):
    task = queue.submit("t")
    held = claim(tasks, task.id)
    lease = held.record.lease_id
    tasks.update(task.id, lambda record, now: transitions.release(record, now, lease_id=lease))
    claim(tasks, task.id)
    before = tasks.objects.get(task.record.key)
    with pytest.raises(LeaseExpiredError):
        tasks.update(task.id, lambda record, now: transitions.complete(record, now, lease_id=lease, output=1))
    assert tasks.objects.get(task.record.key) == before


def test_looking_again_costs_nothing_while_nothing_changed(queue, tasks):
    held = tasks.read(queue.submit("t").id)
    assert tasks.read_again(held) is held
    claim(tasks, held.record.id)
    assert tasks.read_again(held).record.status is TaskStatus.RUNNING


def test_a_change_by_many_at_once(contended):
    """Each of them reads, decides, writes, and again when another was faster: none is lost."""
    tasks = TaskStore(contended)
    task = Queue(tasks).submit("t", timeout_seconds=60)

    def count(_: int) -> None:
        tasks.update(task.id, lambda record, now: record.evolve(attempt=record.attempt + 1, updated_at=now))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(12)))
    assert tasks.read(task.id).record.attempt == 12
    assert len(tasks.history(task.id)) == 13


def test_only_one_worker_gets_a_task(contended):
    tasks = TaskStore(contended)
    task = Queue(tasks).submit("t")
    held = tasks.read(task.id)

    def try_to_claim(number: int) -> bool:
        changed = transitions.claim(
            held.record, tasks.clock.stamp(), lease_id=model.new_id(), worker_id=f"w{number}", lease_seconds=60
        )
        try:
            tasks.move(held, changed)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(try_to_claim, range(4))) == 1


def test_cancelling_removes_the_entry_and_leaves_no_marker(queue, tasks):
    task = queue.submit("t")
    queue.cancel(task.id, "no longer wanted")
    assert list(tasks.objects.versions(model.READY)) == []
    with pytest.raises(TransitionError):
        queue.cancel(task.id)
    with pytest.raises(TaskNotFoundError):
        queue.cancel(model.new_id())


def test_a_newer_entry_under_the_same_key_is_left_alone(queue, tasks):
    task = queue.submit("t")
    (seen,) = tasks.index.scan(model.READY)
    newer = tasks.index.add(model.ready_key(task.record))
    tasks.index.remove(seen)
    (left,) = tasks.index.scan(model.READY)
    assert left.version_id == newer.version_id


def test_what_others_left_behind_is_swept(queue, tasks):
    for _ in range(3):
        tasks.objects.put("ready/0/0000000001/junk", b"")
    tasks.objects.delete("ready/0/0000000001/junk")
    task = queue.submit("t")
    assert [entry.task_id for entry in tasks.index.scan(model.READY)] == [task.id]
    assert len(list(tasks.objects.versions(model.READY))) == 5, "too young to be touched"
    later = Clock(wall=lambda: time.time() + 120)
    later.observe = lambda *_: None
    tasks.objects.clock = later
    for _ in range(2):
        assert [entry.task_id for entry in tasks.index.scan(model.READY)] == [task.id]
    assert [entry.key for entry in tasks.objects.versions(model.READY)] == [model.ready_key(task.record)]


def test_entries_of_later_minutes_are_passed_over(queue, tasks):
    now = queue.now()
    later = queue.submit("t", schedule_at=now + timedelta(hours=1))
    soon = queue.submit("t")
    until = model.minute_of(queue.now())
    assert [entry.task_id for entry in tasks.index.scan(model.READY, until_minute=until)] == [soon.id]
    assert {entry.task_id for entry in tasks.index.scan(model.READY)} == {soon.id, later.id}


@pytest.mark.parametrize("size", [100, PAYLOAD_LIMIT_BYTES + 1])
def test_large_payloads_stand_apart(queue, tasks, size):
    text = "x" * size
    task = queue.submit("t", {"text": text})
    assert queue.get(task.id).input == {"text": text}
    payloads = keys(tasks, model.PAYLOADS)
    stored = json.loads(tasks.objects.get(task.record.key).body)
    if size < PAYLOAD_LIMIT_BYTES:
        assert payloads == []
        assert stored["input"] == {"text": text}
    else:
        assert payloads == [model.payload_key(task.id, "input")] == [stored["input_ref"]]
        assert stored["input"] is None
        tasks.objects.delete(payloads[0])
        with pytest.raises(RecordError, match="is gone"):
            tasks.payloads.load(task.record, "input")


def test_a_key_stands_for_one_task(queue, tasks):
    first = queue.submit("t", {"a": 1, "b": 2}, idempotency_key="k")
    tasks.objects.requests.clear()
    again = queue.submit("t", {"b": 2, "a": 1}, idempotency_key="k")
    assert again.id == first.id
    assert tasks.objects.requests == Counter(PUT=1, GET=2)
    assert queue.submit("t", 1, idempotency_key="other").id != first.id
    assert queue.submit("u", 1, idempotency_key="k").id != first.id, "the key's scope is the task type"
    before = sorted(keys(tasks, ""))
    with pytest.raises(ConfigurationError, match="another input"):
        queue.submit("t", {"a": 2}, idempotency_key="k")
    assert sorted(keys(tasks, "")) == before


def test_a_key_used_by_many_at_once(contended):
    queue = Queue(TaskStore(contended))
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: queue.submit("t", 1, idempotency_key="k"), range(4)))
    assert len({task.id for task in made}) == 1
    assert len(keys(queue.store, model.TASKS)) == 1


def test_bad_input_leaves_nothing_behind(queue, tasks):
    for arguments in (
        ("t", object()),
        ("t", float("nan")),
        ("t", {"a": {1, 2}}),
        ("t", "\ud800"),
        ("", 1),
        ("x" * 201, 1),
        ("a\nb", 1),
        (None, 1),
    ):
        with pytest.raises(ConfigurationError, match=r"^(input|task_type):"):
            queue.submit(*arguments)
    for task_id in ("../x", "", None, 3, "not-a-uuid", "../../workers/" + model.new_id()):
        with pytest.raises(ConfigurationError, match="not a task id"):
            queue.get(task_id)
    assert keys(tasks, "") == []


def test_an_object_that_is_not_a_task(queue, tasks):
    task_id = model.new_id()
    tasks.objects.put(tasks.key_of(task_id), b'{"id": 3}')
    with pytest.raises(RecordError, match=task_id) as caught:
        queue.get(task_id)
    assert caught.value.key == tasks.key_of(task_id)
    good = queue.submit("t")
    assert [task.id for task in queue.list()] == [good.id]


def test_a_stale_write_is_refused_before_any_work(tasks):
    tasks.objects.requests.clear()
    verify_conditional_writes(tasks.objects, "workers/w.json", b"{}")
    assert tasks.objects.requests == Counter(PUT=4)
    assert tasks.objects.get("workers/w.json").body == b"{}"
