"""Reading an index beside very many tasks of other types: 1 LIST a look, and nothing stays hidden."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import oq_nb
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.model import minute_of, new_id, ready_key
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.store.index import Index
from oq_nb.testing import FakeStore, FakeTime
from oq_nb.worker import index_reader
from oq_nb.worker.index_reader import IndexReader

ROUND = 17  # all shards at once, then each of them
LONG_ROUND = 2 * ROUND  # where every second look reads again what was passed over


class Place:
    """A worker for tasks of type "mine" beside tasks of other types, all of which are in shard 7."""

    def __init__(self, others: int) -> None:
        self.time = FakeTime()
        self.queue = Queue(TaskStore(FakeStore(self.time)))
        self.objects = self.queue.store.objects
        self.old = self.queue.now()
        for _ in range(others):
            self.put("elsewhere", "7")
        self.time.advance(3600)
        self.worker = oq_nb.Worker(self.queue, "w1")
        self.worker.task("mine")(lambda value: value)
        self.session = self.worker._open_session(Scheduler("test"), None)

    def put(self, task_type: str, start: str, at=None) -> str:
        """Write a task, by a client that leaves no hint and is in another process; return its id, which begins so."""
        task_id = start + new_id()[len(start) :]
        plain = oq_nb.queue.submit.new_record(self.queue.store, task_type, None)
        record = plain.evolve(
            id=task_id, shard=start[0], available_at=type(plain.available_at).of(at or self.queue.now())
        )
        self.objects.put(ready_key(record), b"")
        self.objects.put(record.key, record.to_bytes())
        return task_id

    def look(self) -> list[str]:
        """Look once, handle what is found; return the tasks that were claimed."""
        before, claimed = self.objects.requests["LIST"], []
        self.session.poller.find_tasks()
        assert self.objects.requests["LIST"] == before + 1, "a look takes 1 LIST"
        while self.session.backlog:
            entry = self.session.backlog.take()
            if self.session.claims.handle_entry(entry, may_claim=True):
                claimed.append(entry.task_id)
            self.session.backlog.done()
        return claimed

    def looks_until(self, task_id: str) -> int:
        """Return how many looks it takes until a task is claimed."""
        for number in range(1, 500):
            if task_id in self.look():
                return number
        raise AssertionError("it is not found")

    def know_all(self) -> None:
        """Look until all that stands there is known."""
        for _ in range(15 * ROUND):
            self.look()


@pytest.fixture(scope="module")
def many():
    """5,500 tasks of other types, whose types are known by now. Whoever uses it leaves it as it is."""
    place = Place(5500)
    place.know_all()
    return place


def test_what_is_known_costs_a_list_a_look_and_no_hurry(many):
    before = many.objects.requests.copy()
    for _ in range(3 * LONG_ROUND):
        assert many.look() == []
        assert not many.session.poller._ready.has_urgent
    assert many.objects.requests - before == {"LIST": 3 * LONG_ROUND}
    assert many.session.poller.pause_after(3600.0) * 32 <= 60, "a round takes a minute"


def test_each_type_is_read_once(many):
    many.time.advance(3000)
    many.know_all()
    many.time.advance(3000)  # longer than an entry that is gone is remembered
    before = many.objects.requests["GET"]
    many.know_all()
    assert many.objects.requests["GET"] == before


def test_a_task_that_was_submitted_here_or_hinted_at_is_found_in_the_next_look(many):
    for shard in "07f":
        task_id = many.put("mine", shard)
        many.session.poller._ready.hurry_new([shard], minute_of(many.queue.now()))
        assert many.looks_until(task_id) == 1


def test_a_task_of_another_process_is_found_within_two_rounds(many):
    """Two, as the order of the shards is another one each time."""
    for shard in "7777700f":
        assert many.looks_until(many.put("mine", shard)) <= 2 * LONG_ROUND


def test_a_task_that_comes_back_among_old_ones_is_found(many):
    """What was passed over is read again: 6 pages, one in two looks."""
    for start, minutes in (("70", 0), ("77", 0), ("7c", 0), ("7", -10)):
        task_id = many.put("mine", start, many.old + timedelta(minutes=minutes))
        assert many.looks_until(task_id) <= 2 * 6 + 2


def test_what_is_scheduled_ahead_does_not_slow_the_second_reading():
    """A shard with both: short pages are for the tasks ahead, whole ones for what was passed over."""
    place = Place(2010)
    in_an_hour = place.queue.now() + timedelta(hours=1)
    for _ in range(1200):
        place.put("mine", "7", in_an_hour)
    place.know_all()
    assert "7" in place.session.poller._ready._ahead
    for _ in range(3):
        task_id = place.put("mine", "7", place.old - timedelta(minutes=10))
        assert place.looks_until(task_id) <= 2 * 3 + 2


def test_a_planned_look_finds_its_task_among_old_ones(many):
    """As after a claim whose answer was lost: it is planned, and only what stands there from it on is read."""
    task_id = many.put("mine", "7", many.old)
    (entry,) = (e for e in many.queue.store.index.scan("ready/7/", limit=10_000) if e.task_id == task_id)
    many.session.claims.look_again(entry, 5)
    for _ in range(LONG_ROUND):
        assert many.look() == []
    many.time.advance(6)
    assert many.looks_until(task_id) == 1


def test_a_new_handler_has_the_old_tasks():
    place = Place(3000)
    place.know_all()
    ran = set()
    place.worker._session = place.session
    place.worker.task("elsewhere")(lambda value: value)
    for _ in range(2 * 3000 // 32 + 2 * LONG_ROUND):  # 32 at a time, in every second look
        ran.update(place.look())
    assert len(ran) == 3000


def test_the_first_walk_through_the_types_does_not_hide_what_is_submitted_meanwhile():
    place = Place(5500)
    for _ in range(ROUND + 4):
        place.look()
    task_id = place.put("mine", "7")
    place.session.poller._ready.hurry_new(["7"], minute_of(place.queue.now()))
    assert place.looks_until(task_id) == 1


def test_entries_that_are_gone_are_forgotten_after_an_hour():
    place = Place(1500)
    place.know_all()
    assert len(place.session.claims._foreign) == 1500
    for entry in place.queue.store.index.scan("ready/7/", limit=10_000):
        place.queue.store.index.remove(entry)
    place.time.advance(3601)
    for _ in range(2 * LONG_ROUND):
        place.look()
    assert place.session.claims._foreign == {}
    assert not place.session.poller._ready._passed


def test_a_stream_of_hurries_does_not_keep_shards_from_their_turn(many):
    old = many.put("mine", "3", many.old)
    for number in range(1, 17 * 35):
        many.session.poller._ready.hurry_new("0123456789abcdef", minute_of(many.queue.now()))
        if old in many.look():
            break
    assert number <= 17 * 33


def test_a_read_that_fails_loses_no_hurry(many):
    many.know_all()
    task_id = many.put("mine", "7")
    many.session.poller._ready.hurry_new(["7"], minute_of(many.queue.now()))

    def fault(kind, key, when):
        raise oq_nb.errors.StorageUnavailableError("away", key=key)

    many.objects.fault = fault
    with pytest.raises(oq_nb.errors.StorageError):
        many.session.poller.find_tasks()
    many.objects.fault = None
    assert many.looks_until(task_id) <= 2


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_every_entry_is_returned_again_and_again(data):
    """Whatever stands where, and whatever is not wanted at a time: what is wanted comes within a bounded time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("oq_nb.store.index.PAGE_SIZE", 6)
        patch.setattr(index_reader, "PAGE_SIZE", 6)
        patch.setattr(index_reader, "_SHORT", 4)
        shards = "01"
        index = Index(FakeStore(FakeTime()))
        minutes = st.integers(0, 12)
        standing = data.draw(st.lists(st.tuples(st.sampled_from(shards), minutes), max_size=60))
        entries = [index.add(f"ready/{shard}/{minute:010d}/{shard}{new_id()[1:]}") for shard, minute in standing]
        now = 10
        wanted: set[str] = set()
        reader = IndexReader(index, "ready/", shards)
        random.seed(0)
        for _ in range(data.draw(st.integers(0, 40))):  # a history: what is wanted changes, entries come and go
            what = data.draw(st.integers(0, 5))
            if what == 0 and entries:
                wanted ^= {data.draw(st.sampled_from(entries)).key}
            elif what == 1 and entries:
                index.remove(gone := data.draw(st.sampled_from(entries)))
                entries.remove(gone)
                wanted.discard(gone.key)
            elif what == 2:
                shard, minute = data.draw(st.sampled_from(shards)), data.draw(minutes)
                entries.append(index.add(f"ready/{shard}/{minute:010d}/{shard}{new_id()[1:]}"))
            elif what == 3:
                reader.hurry([data.draw(st.sampled_from(entries)).key] if entries else [])
            elif what == 4:
                reader.read_on()
            reader.read(f"{now:010d}", lambda entry: entry.key in wanted)
        if entries:
            wanted.add(data.draw(st.sampled_from(entries)).key)
        missing = {key for key in wanted if int(key.split("/")[2]) <= now}
        objects = index._objects
        for _ in range(3 * (len(entries) + 10)):
            before = objects.requests["LIST"]
            missing -= {entry.key for entry in reader.read(f"{now:010d}", lambda entry: entry.key in wanted)}
            assert objects.requests["LIST"] == before + 1
        assert not missing
