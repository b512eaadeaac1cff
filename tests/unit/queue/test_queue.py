"""The client's side on the fake store: looking, changing, and what is refused with nothing written."""

from __future__ import annotations

import copy
import json
import uuid
from datetime import datetime, timedelta, timezone

import pytest

import oq_nb
from oq_nb.errors import (
    ConfigurationError,
    ConflictError,
    RecordError,
    StorageUnavailableError,
    TaskFailedError,
    TaskNotFoundError,
    TransitionError,
    WaitTimeoutError,
)
from oq_nb.model import TaskStatus, new_id, transitions
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime

TOMORROW = timedelta(days=1)


def begin(queue, task):
    store = queue.store
    held = store.read(task.id)
    return store.move(
        held,
        transitions.claim(held.record, store.clock.stamp(), lease_id=new_id(), worker_id="w", lease_seconds=300),
    )


def end(queue, task, *, error=None):
    store, held = queue.store, begin(queue, task)
    lease_id = held.record.lease_id
    if error is None:
        changed = transitions.complete(held.record, store.clock.stamp(), lease_id=lease_id, output="out")
    else:
        changed = transitions.fail(held.record, store.clock.stamp(), lease_id=lease_id, error=error)
    store.move(held, changed)
    return task.refresh()


# --- submitting


def test_a_new_task(fake_queue):
    task = fake_queue.submit("resize", {"width": 640, "names": ["a", "ü", "\n"]})
    assert (task.status, task.attempt, task.is_done, task.progress) == (TaskStatus.PENDING, 0, False, None)
    assert uuid.UUID(task.id).version == 4
    assert task.input == {"width": 640, "names": ["a", "ü", "\n"]}
    assert fake_queue.get(task.id) == task
    assert fake_queue.get(task.id.upper()) == task
    assert task.id[:8] in repr(task)
    assert "resize" in repr(task)
    assert hash(fake_queue.get(task.id)) == hash(task)


CIRCULAR: list = []
CIRCULAR.append(CIRCULAR)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"input": {1, 2}}, "input"),
        ({"input": float("nan")}, "input"),
        ({"input": datetime.now()}, "input"),
        ({"input": CIRCULAR}, "input"),
        ({"input": "\ud800"}, "input"),
        ({"task_type": ""}, "task_type"),
        ({"task_type": "x" * 201}, "task_type"),
        ({"task_type": "a\x1b[31m"}, "task_type"),
        ({"task_type": None}, "task_type"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"timeout_seconds": 1.5}, "timeout_seconds"),
        ({"max_retries": -1}, "max_retries"),
        ({"max_reschedules": "x"}, "max_reschedules"),
        ({"retry_policy": {"multiplier": 2}}, "retry_policy"),
        ({"schedule_at": datetime(2030, 1, 1)}, "schedule_at"),
        ({"schedule_at": "tomorrow"}, "schedule_at"),
        ({"expires_at": datetime(2020, 1, 1)}, "expires_at"),
        ({"ttl_seconds": -1}, "ttl_seconds"),
        ({"ttl_seconds": float("inf")}, "ttl_seconds"),
        ({"ttl_seconds": 5, "expires_at": datetime(2090, 1, 1, tzinfo=timezone.utc)}, "ttl_seconds"),
        ({"idempotency_key": ""}, "idempotency_key"),
        ({"idempotency_key": 7}, "idempotency_key"),
    ],
    ids=lambda value: "" if isinstance(value, str) else next(iter(value)),
)
def test_bad_input_is_named_and_nothing_is_written(fake_queue, arguments, named):
    with pytest.raises(ValueError, match=f"^{named}: "):
        fake_queue.submit(**{"task_type": "a"} | arguments)
    assert fake_queue.store.objects.look() == []


def test_many_at_once_in_their_order(fake_queue):
    tasks = fake_queue.submit_many("a", (n for n in range(40)), max_retries=1)
    assert [task.input for task in tasks] == list(range(40))
    assert {task.record.max_retries for task in tasks} == {1}
    assert fake_queue.submit_many("a", []) == []


def test_many_with_one_that_cannot_be_are_none(fake_queue):
    with pytest.raises(ConfigurationError, match="^input: "):
        fake_queue.submit_many("a", [1, 2, object()])
    for inputs in ("text", b"bytes"):
        with pytest.raises(ConfigurationError, match="^inputs: "):
            fake_queue.submit_many("a", inputs)
    with pytest.raises(ConfigurationError, match="^idempotency_key: "):
        fake_queue.submit_many("a", [1], idempotency_key="k")
    assert fake_queue.store.objects.look() == []


def test_when_the_store_takes_only_some_of_many_those_are_told(fake_queue):
    taken = []

    def fault(kind, key, when):
        if kind == "PUT" and key.startswith("tasks/") and when == "before":
            taken.append(key)
            if len(taken) > 5:
                raise StorageUnavailableError("no answer", key=key)

    fake_queue.store.objects.fault = fault
    with pytest.raises(StorageUnavailableError) as failed:
        fake_queue.submit_many("a", range(20))
    fake_queue.store.objects.fault = None
    assert {t.id for t in failed.value.submitted} == {t.id for t in fake_queue.list()}
    assert len(failed.value.submitted) == 5


# --- looking


@pytest.mark.parametrize(
    "task_id",
    ["", "abc", "../../etc/passwd", "tasks/x", None, 5, "8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2/../x", "é" * 36],
    ids=repr,
)
def test_what_is_not_a_task_id_reaches_no_key(fake_queue, task_id):
    for method in ("get", "get_history", "cancel", "request_cancellation", "replay", "archive"):
        with pytest.raises(ValueError, match="^task_id: not a task id"):
            getattr(fake_queue, method)(task_id)
    assert not fake_queue.store.objects.requests


def test_a_task_that_is_not_there(fake_queue):
    nobody = new_id()
    assert fake_queue.get(nobody) is None
    for method in ("get_history", "cancel", "request_cancellation", "replay", "archive"):
        with pytest.raises(TaskNotFoundError, match=nobody) as missing:
            getattr(fake_queue, method)(nobody)
        assert missing.value.task_id == nobody


def test_an_object_that_is_not_a_task_is_named_and_the_others_are_listed(fake_queue):
    task, broken = fake_queue.submit("a"), new_id()
    key = fake_queue.store.key_of(broken)
    fake_queue.store.objects.put(key, b"{")
    with pytest.raises(RecordError, match=key):
        fake_queue.get(broken)
    assert fake_queue.list() == [task]


def test_listing_by_status_type_limit_and_shard(fake_queue):
    tasks = fake_queue.submit_many("a", range(6)) + fake_queue.submit_many("b", range(4))
    end(fake_queue, tasks[0])
    end(fake_queue, tasks[1], error="no")
    begin(fake_queue, tasks[2])
    assert len(fake_queue.list()) == 10
    assert fake_queue.list("completed") == [tasks[0]]
    assert fake_queue.list(TaskStatus.FAILED) == [tasks[1]]
    assert set(fake_queue.list("pending")) == set(tasks[3:])
    assert set(fake_queue.list("pending", "b")) == set(tasks[6:])
    assert set(fake_queue.list(task_type="b", limit=None)) == set(tasks[6:])
    assert len(fake_queue.list(limit=3)) == 3
    assert fake_queue.list(limit=0) == []
    shard = tasks[0].id[0]
    assert set(fake_queue.list(shards=[shard])) == {task for task in tasks if task.id[0] == shard}
    with pytest.raises(ConfigurationError, match="^status: one of pending, running"):
        fake_queue.list("done")
    with pytest.raises(ConfigurationError, match="^limit: "):
        fake_queue.list(limit=-1)


def test_only_what_can_be_claimed_now_is_ready(fake_queue):
    ready = fake_queue.submit("a")
    fake_queue.submit("a", schedule_at=fake_queue.now() + TOMORROW)
    end(fake_queue, fake_queue.submit("a"))
    assert fake_queue.list_ready() == [ready]
    assert fake_queue.list_ready(limit=0) == []


def test_the_history_oldest_first_and_its_newest_part(fake_queue):
    task = end(fake_queue, fake_queue.submit("a"))
    assert [str(r.status) for r in task.history()] == ["pending", "running", "completed"]
    assert [str(r.status) for r in fake_queue.get_history(task.id, limit=2)] == ["running", "completed"]


def test_shards_and_time(fake_queue):
    assert fake_queue.all_shards() == list("0123456789abcdef")
    fake_queue.all_shards().clear()
    assert len(fake_queue.all_shards()) == 16
    assert abs(fake_queue.now() - datetime.now(timezone.utc)) < timedelta(seconds=2)


# --- waiting


def test_results_of_what_has_ended(fake_queue):
    assert end(fake_queue, fake_queue.submit("a")).result() == "out"
    failed = end(fake_queue, fake_queue.submit("a"), error="ValueError: no\n\nTraceback …")
    with pytest.raises(TaskFailedError, match="failed: ValueError: no$") as told:
        failed.result()
    assert told.value.last_error == failed.last_error
    with pytest.raises(WaitTimeoutError, match="pending"):
        fake_queue.submit("a").result(timeout=0.05)


def test_an_archived_task_keeps_its_result(fake_queue):
    good, bad = fake_queue.submit("a"), fake_queue.submit("a")
    end(fake_queue, good)
    end(fake_queue, bad, error="no")
    for task in (good, bad):
        assert fake_queue.archive(task.id).status is TaskStatus.ARCHIVED
        task.refresh()
    assert good.result() == "out"
    with pytest.raises(TaskFailedError):
        bad.result()


# --- changing


def test_cancelling(fake_queue):
    task = fake_queue.submit("a").cancel("not needed")
    assert (task.status, task.last_error) == (TaskStatus.CANCELLED, "not needed")
    with pytest.raises(TransitionError, match="cannot be cancelled: it is cancelled") as refused:
        task.cancel()
    assert (refused.value.status, refused.value.wanted) == ("cancelled", "cancelled")
    with pytest.raises(TransitionError, match="it is pending, not running"):
        fake_queue.request_cancellation(fake_queue.submit("a").id)


def test_cancelling_many(fake_queue):
    tasks = fake_queue.submit_many("a", range(3))
    end(fake_queue, tasks[0])
    other = fake_queue.submit("b")
    assert fake_queue.cancel_many([*(t.id for t in tasks), new_id()], "stop") == tasks[1:]
    assert fake_queue.cancel_by_type("b") == [other]
    assert fake_queue.cancel_by_type("b") == []


def test_replaying(fake_queue):
    task = end(fake_queue, fake_queue.submit("a"), error="no")
    assert task.replay().status is TaskStatus.PENDING
    assert (task.last_error, task.attempt) == (None, 1)
    with pytest.raises(TransitionError, match="it is pending, not finished"):
        task.retry()
    assert fake_queue.list_ready() == [task]


def test_a_task_that_others_change_all_the_time_gives_up_with_a_clear_error(fake_queue, monkeypatch):
    monkeypatch.setattr("oq_nb.store.task_store.time.sleep", lambda seconds: None)
    task = fake_queue.submit("a")
    key = task.record.key

    def fault(kind, at, when):
        if kind == "PUT" and at == key and when == "before":
            fake_queue.store.objects.fault = None
            body = json.loads(fake_queue.store.objects.get(key).body)
            body["updated_at"] = fake_queue.store.clock.stamp().text
            fake_queue.store.objects.put(key, json.dumps(body).encode())
            fake_queue.store.objects.fault = fault

    fake_queue.store.objects.fault = fault
    with pytest.raises(oq_nb.ConflictError, match="was changed by others twelve times in a row"):
        task.cancel()


# --- idempotency keys


def test_a_key_gives_one_task(fake_queue):
    first = fake_queue.submit("a", {"b": 1, "a": 2}, idempotency_key="k")
    again = fake_queue.submit("a", {"a": 2, "b": 1}, idempotency_key="k")
    assert again == first
    assert fake_queue.submit("b", {"a": 2, "b": 1}, idempotency_key="k") != first  # the type is the scope
    with pytest.raises(ConfigurationError, match=f"already belongs to task {first.id} with another input"):
        fake_queue.submit("a", {"a": 3}, idempotency_key="k")
    assert len(fake_queue.list()) == 2


def test_a_key_whose_writer_died_before_its_task(fake_queue):
    def die(kind, key, when):
        if key.startswith("ready/"):
            raise StorageUnavailableError("gone", key=key)

    fake_queue.store.objects.fault = die
    with pytest.raises(StorageUnavailableError):
        fake_queue.submit("a", 1, idempotency_key="k")
    fake_queue.store.objects.fault = None
    task = fake_queue.submit("a", 1, idempotency_key="k")
    assert fake_queue.list() == [task]
    assert fake_queue.submit("a", 1, idempotency_key="k") == task


class TooBusy:
    """Refuses the first so many writes under a prefix without looking at their condition (409)."""

    def __init__(self, prefix, times):
        self.prefix, self.times = prefix, times

    def __call__(self, kind, key, when):
        if kind == "PUT" and when == "before" and key.startswith(self.prefix) and self.times:
            self.times -= 1
            raise ConflictError("not judged", key=key, ambiguous=True)


@pytest.mark.parametrize("is_over", [False, True], ids=["new key", "key that is over"])
def test_a_key_that_the_store_was_too_busy_for_is_written_again(is_over):
    time = FakeTime()
    queue = oq_nb.Queue(TaskStore(FakeStore(time)))
    if is_over:
        earlier = queue.submit("a", 1, idempotency_key="k")
        time.advance(40 * 86400)
    queue.store.objects.fault = fault = TooBusy("idempotency/", 3)
    task = queue.submit("a", 1, idempotency_key="k")
    assert fault.times == 0
    assert not is_over or task != earlier
    assert queue.submit("a", 1, idempotency_key="k") == task
    queue.store.objects.fault = TooBusy("idempotency/", 99)
    with pytest.raises(StorageUnavailableError, match="'other' is being changed all the time: try later"):
        queue.submit("a", 1, idempotency_key="other")


@pytest.mark.parametrize("key", [None, "k"])
def test_a_task_that_the_store_was_too_busy_for_is_no_lost_race(fake_queue, key):
    fake_queue.store.objects.fault = TooBusy("tasks/", 1)
    with pytest.raises(StorageUnavailableError, match="was not written .* try later"):
        fake_queue.submit("a", 1, idempotency_key=key)
    assert fake_queue.submit("a", 1, idempotency_key=key).status == "pending"


# --- what a task shows


def test_a_handle_does_not_change_under_its_reader(fake_queue):
    task = fake_queue.submit("a")
    record = task.record
    end(fake_queue, copy.copy(task))
    assert task.record is record
    assert task.refresh().record is not record
