"""What a worker does at an entry when an answer is late or damaged, and with a task that was asked to stop."""

from __future__ import annotations

import pytest

from oq_nb import model
from oq_nb.errors import StorageUnavailableError
from oq_nb.model import TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, FakeTime
from oq_nb.worker.claims import Claims


class Place:
    def __init__(self):
        self.time = FakeTime()
        self.objects = FakeStore(self.time)
        self.queue = Queue(TaskStore(self.objects))
        self.claims = Claims(self.queue.store, "w", lambda task_type: True)

    def look(self):
        """Look at all entries that are due; return the claims."""
        made = []
        for entry in self.claims.due(model.READY, self.queue.store.index.scan(model.READY)):
            claim = self.claims.handle_entry(entry, may_claim=True)
            if claim is not None:
                made.append(claim.held.record.id)
        return made

    def answers(self, key, times, make):
        """Have so many reads of an object bring what ``make`` makes of it."""
        get, left = self.objects.get, [times]

        def answer(asked, **options):
            found = get(asked, **options)
            if asked == key and left[0]:
                left[0] -= 1
                return make(found)
            return found

        self.objects.get = answer
        return left


@pytest.fixture
def place() -> Place:
    return Place()


class Later:
    """A scheduler that keeps when it was asked to call."""

    def __init__(self):
        self.times = []

    def call(self, periodic, at=None):
        self.times.append(at)


@pytest.mark.parametrize("is_known_at_once", [True, False])
def test_a_lease_entrys_delay_counts_from_the_claim_however_late_its_answer_comes(place, is_known_at_once):
    later = Later()
    place.claims = Claims(
        place.queue.store, "w", lambda task_type: True, scheduler=later, lease_entry_delay_seconds=5.0
    )
    task = place.queue.submit("t", timeout_seconds=300)
    put, clock = place.objects.put, place.queue.store.clock

    def answers_late(key, *arguments, **options):
        place.objects.put = put
        made = put(key, *arguments, **options)
        place.time.advance(35)
        if not is_known_at_once:
            raise StorageUnavailableError("no answer")
        return made

    place.objects.put = answers_late
    sent_at = clock.monotonic()
    if not is_known_at_once:
        with pytest.raises(StorageUnavailableError):
            place.look()
        assert later.times == []
        place.time.advance(2)
    assert place.look() == [task.id]
    assert later.times == [sent_at + 5]


def half(found):
    return type(found)(found.body[:100], found.etag, found.version_id)


def test_one_damaged_answer_delays_nothing(place):
    task = place.queue.submit("t")
    left = place.answers(task.record.key, 1, half)
    assert place.look() == [task.id]
    assert left == [0]


def test_a_few_damaged_answers_delay_a_task_by_seconds(place, caplog):
    task = place.queue.submit("t")
    place.answers(task.record.key, 6, half)
    seconds = 0
    while not (claimed := place.look()):
        place.time.advance(1)
        seconds += 1
    assert claimed == [task.id]
    assert seconds <= 15, "2, 4 and 8 seconds"
    assert caplog.text.count("skipped") == 1


def test_an_object_that_is_no_task_is_read_ever_less_often(place):
    task = place.queue.submit("t")
    place.objects.put(task.record.key, b"nonsense")
    for _ in range(24 * 60):
        assert place.look() == []
        place.time.advance(60)
    assert place.objects.requests["GET"] <= 2 * (12 + 24), "twice at each look: doubling pauses, then one an hour"


def test_one_late_404_of_a_task_that_waited_long_loses_nothing(place):
    """Its only entry is old by then, as those that lead nowhere are."""
    task = place.queue.submit("t", schedule_at=place.queue.now().replace(year=2030))
    place.time.advance((task.record.available_at - place.queue.now()).total_seconds() + 1)
    left = place.answers(task.record.key, 1, lambda found: None)
    assert place.look() == []
    assert left == [0]
    place.time.advance(3)
    assert place.look() == [task.id]


def test_an_old_entry_without_a_task_is_removed(place):
    place.queue.store.index.add(f"ready/a/0030000000/a{model.new_id()[1:]}")
    place.look()
    place.time.advance(601)
    place.look()
    assert place.objects.look(model.READY) == []


def test_a_pending_task_that_was_asked_to_stop_is_cancelled(place):
    """Upstream's workers hand a task back as it is."""
    task = place.queue.submit("t")
    asked = task.record.evolve(cancel_requested=True, cancelled_by="her")
    place.objects.put(task.record.key, asked.to_bytes())
    assert place.look() == []
    record = place.queue.get(task.id).record
    assert (record.status, record.cancelled_by) == (TaskStatus.CANCELLED, "her")
    assert place.objects.look(model.READY) == []


@pytest.mark.parametrize(("max_retries", "status"), [(3, TaskStatus.CANCELLED), (0, TaskStatus.FAILED)])
def test_a_dead_workers_task_that_was_asked_to_stop_is_not_run_again(place, max_retries, status):
    task = place.queue.submit("t", timeout_seconds=30, max_retries=max_retries)
    assert place.look() == [task.id]
    place.queue.cancel(task.id, by="her")
    place.time.advance(40)
    claims = Claims(place.queue.store, "other", lambda task_type: True)
    for entry in place.queue.store.index.scan(model.LEASES):
        claims.handle_entry(entry)
    record = place.queue.get(task.id).record
    assert (record.status, record.cancelled_by, record.lease_id, record.worker_id) == (status, "her", None, None)
    assert record.retry_count == 0
    assert "Timeout" in record.last_error


def test_a_task_that_is_handed_back_after_a_request_to_cancel_is_cancelled():
    now = model.Timestamp.parse("2026-11-26T00:00:00Z")
    place = Place()
    record = place.queue.submit("t").record.evolve(available_at=now)
    running = transitions.claim(record, now, lease_id="l", worker_id="w", lease_seconds=60)
    asked = transitions.request_cancellation(running, now, by="her")
    for change, options in (
        (transitions.release, {}),
        (transitions.retry, {"error": "no", "chance": 0.5}),
        (transitions.reschedule, {"delay_seconds": 5}),
    ):
        ended = change(asked, now, lease_id="l", **options)
        assert (ended.status, ended.cancelled_at, ended.cancelled_by) == (TaskStatus.CANCELLED, now, "her")
        assert (ended.lease_id, ended.worker_id, ended.lease_expires_at, ended.progress) == (None, None, None, None)
        assert change(running, now, lease_id="l", **options).status is TaskStatus.PENDING


# --- times, as upstream has them


def test_the_time_to_live_counts_from_the_submission(place):
    now = place.queue.now()
    later = now.replace(year=2031)
    task = place.queue.submit("t", schedule_at=later, ttl_seconds=60)
    assert 59 <= (task.record.expires_at - now).total_seconds() <= 61
    place.time.advance((later - now).total_seconds() + 1)
    assert place.look() == []
    assert task.refresh().status == "expired"


@pytest.mark.parametrize("options", [{"ttl_seconds": 0}, {"expires_at": "past"}], ids=["ttl 0", "past"])
def test_a_deadline_that_has_passed_lets_the_task_expire(place, options):
    if "expires_at" in options:
        options = {"expires_at": place.queue.now().replace(year=2020)}
    task = place.queue.submit("t", **options)
    assert task.status == "pending"
    assert place.look() == []
    assert task.refresh().status == "expired"
    assert place.objects.look(model.READY) == []


class Upstream:
    """Leaves what upstream's worker leaves when it is killed between a task that it puts back and its entry."""

    def __init__(self, place: Place, **options):
        self.task = place.queue.submit("t", timeout_seconds=30, **options)
        assert place.look() == [self.task.id]
        held = place.queue.store.read(self.task.id)
        now = place.queue.store.clock.stamp()
        back = transitions.retry(held.record, now, lease_id=held.record.lease_id, error="no", chance=0.5)
        place.objects.put(back.key, back.to_bytes())
        assert list(place.objects.entries(model.READY)) == []


@pytest.fixture
def rival(place) -> Claims:
    return Claims(place.queue.store, "other", lambda task_type: True)


def recover(place, claims) -> None:
    for entry in claims.due(model.LEASES, place.queue.store.index.scan(model.LEASES)):
        claims.handle_entry(entry)


def test_a_pending_task_without_a_ready_entry_gets_one(place, rival, caplog):
    """Only its old lease entry leads to it; without this, that was removed after ten minutes, and the task was lost."""
    task = Upstream(place).task
    place.time.advance(90)
    recover(place, rival)
    assert [entry.key.rsplit("/")[-1] for entry in place.objects.entries(model.READY)] == [task.id]
    assert f"task {task.id} is pending and has no index entry" in caplog.text
    assert place.look() == [task.id]
    assert place.queue.get(task.id).attempt == 2


def test_a_task_of_another_type_gets_its_ready_entry_before_its_lease_entry_goes(place):
    """Not earlier: that is a request for each task that a worker cannot run."""
    task = Upstream(place).task
    other = Claims(place.queue.store, "other", lambda task_type: False)
    place.time.advance(90)
    place.objects.requests.clear()
    recover(place, other)
    assert place.objects.requests == {"LIST": 1, "GET": 1}
    assert list(place.objects.entries(model.READY)) == []
    place.time.advance(700)
    recover(place, other)
    assert list(place.objects.entries(model.LEASES)) == []
    assert place.look() == [task.id]


def test_a_ready_entry_that_stands_is_not_written_again(place, rival):
    task = Upstream(place).task
    place.time.advance(90)
    recover(place, rival)
    place.time.advance(90)
    place.objects.requests.clear()
    recover(place, rival)
    assert place.objects.requests["PUT"] == 0
    place.time.advance(700)
    recover(place, rival)
    assert list(place.objects.entries(model.LEASES)) == []
    assert place.look() == [task.id]
