"""Idempotency keys after their task was removed, when they are over, and in the middle of everything."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oq_nb import model
from oq_nb.admin.retention import prune
from oq_nb.errors import (
    ConfigurationError,
    RecordError,
    StorageConfigurationError,
    StorageUnavailableError,
    TaskNotFoundError,
)
from oq_nb.model import IdempotencyRecord, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime

DAY = 86400


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def objects(time) -> FakeStore:
    return FakeStore(time)


@pytest.fixture
def queue(objects) -> Queue:
    return Queue(TaskStore(objects))


def finish(queue, task):
    """Run a task to its end."""
    store = queue.store
    lease_id = model.new_id()
    held = store.update(
        task.id,
        lambda record, now: transitions.claim(record, now, lease_id=lease_id, worker_id="w", lease_seconds=60),
    )
    done = transitions.complete(held.record, store.clock.stamp(), lease_id=lease_id, output=1)
    return store.move(held, done).record


def remove_by_rule(objects, task):
    """What a lifecycle rule leaves of a task: nothing."""
    for entry in list(objects.versions(task.record.key)):
        objects.delete(entry.key, version_id=entry.version_id)


def ids(queue):
    return [task.id for task in queue.list(limit=None)]


@pytest.mark.parametrize("by", ["prune", "rule", "marker"])
@pytest.mark.parametrize("versioned", [True, False])
def test_a_task_that_was_removed_does_not_run_again_while_its_key_is_valid(time, by, versioned):
    objects = FakeStore(time, versioned=versioned)
    queue = Queue(TaskStore(objects))
    task = queue.submit("charge", {"amount": 10}, idempotency_key="order-1")
    finish(queue, task)
    time.advance(7 * DAY)
    if by == "prune":
        assert [pruned.task_id for pruned in prune(queue.store, older_than=timedelta(days=1))] == [task.id]
    elif by == "rule":
        remove_by_rule(objects, task)
    else:
        objects.delete(task.record.key)
    for days in (0, 22):  # to the last day
        time.advance(days * DAY)
        with pytest.raises(TaskNotFoundError, match="order-1.*was removed.*submit with another key") as caught:
            queue.submit("charge", {"amount": 10}, idempotency_key="order-1")
        assert caught.value.task_id == task.id
        assert ids(queue) == []
    time.advance(2 * DAY)
    again = queue.submit("charge", {"amount": 10}, idempotency_key="order-1")
    assert ids(queue) == [again.id] != [task.id]


def test_a_key_without_its_mark_is_told_by_the_versions_that_are_left(time, objects, queue):
    """The mark could not be written; a delete marker, or old versions, tell that the task was there."""

    def fault(kind, key, when):
        if kind == "PUT" and key.startswith("idempotency/") and when == "before" and objects.requests["PUT"] > 1:
            raise StorageUnavailableError("no answer")

    objects.fault = fault
    task = queue.submit("t", idempotency_key="k")
    objects.fault = None
    objects.delete(task.record.key)
    with pytest.raises(TaskNotFoundError):
        queue.submit("t", idempotency_key="k")


@pytest.mark.parametrize("dies_at", ["ready/", "tasks/"])
def test_a_submission_that_was_cut_short_is_finished_under_the_promised_id(objects, queue, time, dies_at):
    def fault(kind, key, when):
        if key.startswith(dies_at) and when == "before":
            raise StorageConfigurationError("TLS")

    objects.fault = fault
    with pytest.raises(StorageConfigurationError):
        queue.submit("t", 1, idempotency_key="k")
    objects.fault = None
    ((_, body),) = objects.look("idempotency/")
    promised = IdempotencyRecord.from_bytes(body).task_id
    time.advance(20 * DAY)
    assert queue.submit("t", 1, idempotency_key="k").id == promised
    assert ids(queue) == [promised]


def test_a_late_404_is_not_taken_for_a_removed_task(objects, queue):
    task = queue.submit("t", 1, idempotency_key="k")
    get, late = objects.get, [task.record.key] * 2

    def get_late(key, **options):
        if key in late:
            late.remove(key)
            return None
        return get(key, **options)

    objects.get = get_late
    assert queue.submit("t", 1, idempotency_key="k").id == task.id
    assert late == []
    late += [task.record.key] * 100
    with pytest.raises(StorageUnavailableError, match="is listed, but reading it finds nothing: try later"):
        queue.submit("t", 1, idempotency_key="k")
    late.clear()
    assert queue.submit("t", 1, idempotency_key="k").id == task.id


@pytest.mark.parametrize("before", ["is_listed", "was_removed", "create"])
def test_a_task_that_is_written_while_another_submission_looks_for_it(objects, queue, monkeypatch, before):
    """Both have the same key: the second one finds the key, but no task yet, and the first one goes on meanwhile."""
    other = Queue(TaskStore(objects))
    create, look, made, written = queue.store.create, getattr(other.store, before), [], []

    def create_late(record):
        def look_late(argument):
            if not written:
                written.append(create(record))
            return look(argument)

        monkeypatch.setattr(other.store, before, look_late)
        made.append(other.submit("t", 1, idempotency_key="k").id)
        return written[0]

    monkeypatch.setattr(queue.store, "create", create_late)
    task = queue.submit("t", 1, idempotency_key="k")
    assert len(written) == 1
    assert made == [task.id] == ids(other)


def test_one_damaged_read_of_a_key_is_read_again(objects, queue):
    task = queue.submit("t", 1, idempotency_key="k")
    ((entry, _), *_) = objects.look("idempotency/")
    get, damaged = objects.get, [entry.key]

    def get_damaged(key, **options):
        found = get(key, **options)
        if key in damaged:
            damaged.remove(key)
            return type(found)(found.body[:30], found.etag, found.version_id)
        return found

    objects.get = get_damaged
    assert queue.submit("t", 1, idempotency_key="k").id == task.id
    assert damaged == []
    objects.get = get
    objects.put(entry.key, b"nonsense")
    with pytest.raises(RecordError, match="idempotency/"):
        queue.submit("t", 1, idempotency_key="k")


def test_the_requests_of_a_key(objects, queue):
    queue.submit("t", 1, idempotency_key="k")
    assert objects.requests == {"PUT": 4}
    objects.requests.clear()
    queue.submit("t", 1, idempotency_key="k")
    assert objects.requests == {"PUT": 1, "GET": 2}


def test_a_key_of_another_program_is_marked_when_it_is_met(objects, queue):
    """Upstream writes no mark."""
    task = queue.submit("t", 1, idempotency_key="k")
    entry, body = objects.look("idempotency/")[-1]
    record = IdempotencyRecord.from_bytes(body)
    objects.put(entry.key, record.evolve(task_written_at=None).to_bytes())
    assert queue.submit("t", 1, idempotency_key="k").id == task.id
    assert IdempotencyRecord.from_bytes(objects.look("idempotency/")[-1][1]).task_written_at is not None


def test_a_scope_of_ones_own_holds_for_all_types(queue):
    """As upstream: the key stands for the first task, whatever its type; another input is an error."""
    first = queue.submit("a", 1, idempotency_key="k", idempotency_scope="queue")
    again = queue.submit("b", 1, idempotency_key="k", idempotency_scope="queue")
    assert (again.id, again.record.task_type) == (first.id, "a")
    with pytest.raises(ConfigurationError, match="with another input"):
        queue.submit("b", 2, idempotency_key="k", idempotency_scope="queue")


# --- keys that are over


def keys(objects):
    return sorted({entry.key for entry, _ in objects.look("idempotency/")})


def test_keys_that_are_over_are_removed_with_all_their_versions(time, objects, queue):
    queue.submit("t", 1, idempotency_key="old")
    time.advance(15 * DAY)
    queue.submit("t", 1, idempotency_key="young")
    time.advance(14 * DAY)
    assert queue.store.keys.remove_expired() == 0
    assert len(keys(objects)) == 2
    time.advance(2 * DAY)
    prune(queue.store, older_than=timedelta(days=365), dry_run=True)
    assert len(keys(objects)) == 2, "a dry run removes nothing"
    prune(queue.store, older_than=timedelta(days=365))
    assert keys(objects) == [model.idempotency_key("t", "young")]
    assert len(ids(queue)) == 2, "their tasks stay"


def test_a_key_that_is_claimed_anew_meanwhile_stays(time, objects, queue):
    queue.submit("t", 1, idempotency_key="k")
    time.advance(31 * DAY)
    versions, anew = objects.versions, []

    def versions_then_claim(prefix, **options):
        listed = list(versions(prefix, **options))
        if prefix.startswith("idempotency/") and not anew:
            anew.append(queue.submit("t", 1, idempotency_key="k"))
        return iter(listed)

    objects.versions = versions_then_claim
    assert queue.store.keys.remove_expired() == 0
    assert queue.submit("t", 1, idempotency_key="k").id == anew[0].id


def test_what_is_no_key_is_left_alone(time, objects, queue):
    objects.put("idempotency/t/nonsense.json", b"{}")
    time.advance(60 * DAY)
    assert queue.store.keys.remove_expired() == 0
    assert keys(objects) == ["idempotency/t/nonsense.json"]


def test_without_versions_keys_are_left_alone(time):
    """Between a look and a plain delete somebody may claim the key anew: the task would run twice."""
    queue = Queue(TaskStore(FakeStore(time, versioned=False)))
    queue.submit("t", 1, idempotency_key="k")
    time.advance(60 * DAY)
    assert queue.store.keys.remove_expired() == 0
    assert len(keys(queue.store.objects)) == 1
