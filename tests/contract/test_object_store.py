"""What the package needs of a store, one suite for all: whatever passes this can hold a queue."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest

from oq_nb.errors import ConflictError
from oq_nb.queue import Queue
from oq_nb.s3 import NOT_MODIFIED
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
from oq_nb.worker import Worker

STALE = '"00000000000000000000000000000000"'


def markers(objects, prefix: str = "") -> list[str]:
    return [entry.key for entry in objects.versions(prefix) if entry.is_delete_marker]


# --- one object


def test_what_was_written_is_read(objects):
    made = objects.put("a", b"one")
    found = objects.get("a")
    assert (found.body, found.etag, found.version_id) == (b"one", made.etag, made.version_id)
    assert made.etag.startswith('"')
    assert made.etag.endswith('"')
    assert made.version_id
    assert objects.get("b") is None
    assert objects.get("a", version_id=made.version_id).body == b"one"


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"x" * 300_000], ids=["empty", "binary", "large"])
def test_any_bytes(objects, body):
    objects.put("a", body)
    assert objects.get("a").body == body
    assert [entry.size for entry in objects.entries("")] == [len(body)]


@pytest.mark.parametrize("key", ["a b", "ü/ä", "a+b", "a%2Fb", "q?x=1&y#z", "x" * 400, "a'\"<>b"])
def test_any_key(objects, key):
    objects.put(key, b"1")
    assert objects.get(key).body == b"1"
    assert [entry.key for entry in objects.entries("")] == [key]
    assert [entry.key for entry in objects.versions("")] == [key]
    objects.delete(key)
    assert objects.get(key) is None


def test_create_only(objects):
    made = objects.put("a", b"one", create=True)
    with pytest.raises(ConflictError) as caught:
        objects.put("a", b"two", create=True)
    assert caught.value.key == "a"
    assert not caught.value.ambiguous
    assert objects.get("a").etag == made.etag
    objects.delete("a")
    objects.put("a", b"three", create=True)
    assert objects.get("a").body == b"three"


def test_over_the_version_that_was_seen_only(objects):
    first = objects.put("a", b"one")
    second = objects.put("a", b"two", if_match=first.etag)
    assert second.etag != first.etag
    for stale in (first.etag, STALE):
        with pytest.raises(ConflictError):
            objects.put("a", b"three", if_match=stale)
    assert objects.get("a").body == b"two"
    assert objects.put("a", b"one", if_match=second.etag).etag == first.etag, "equal bodies, equal ETags"


def test_over_what_is_not_there(objects):
    with pytest.raises(ConflictError):
        objects.put("a", b"one", if_match=STALE)
    made = objects.put("a", b"one")
    objects.delete("a")
    with pytest.raises(ConflictError):
        objects.put("a", b"two", if_match=made.etag)
    assert objects.get("a") is None


def test_reading_only_what_has_changed(objects):
    made = objects.put("a", b"one")
    assert objects.get_if_changed("a", made.etag) is NOT_MODIFIED
    assert objects.get_if_changed("a", STALE).body == b"one"
    objects.put("a", b"two")
    assert objects.get_if_changed("a", made.etag).body == b"two"
    assert objects.get_if_changed("b", made.etag) is None


def test_before_try_is_called_before_the_write(objects):
    seen = []
    objects.put("a", b"one", before_try=lambda: seen.append(objects.get("a")))
    assert seen == [None]


# --- listings


def test_a_listing_in_pages(objects):
    keys = sorted(f"p/{number % 3}/{number:03}" for number in range(25))
    for key in [*keys, "o/1", "q/1"]:
        objects.put(key, b"")
    objects.requests.clear()
    assert [entry.key for entry in objects.entries("p/", page_size=10)] == keys
    assert objects.requests == Counter(LIST=3)
    assert [entry.key for entry in objects.entries("p/1/", page_size=2)] == [k for k in keys if k.startswith("p/1/")]
    assert list(objects.entries("p/9")) == []


@pytest.mark.parametrize("listing", ["entries", "versions"])
@pytest.mark.parametrize("page_size", [1000, 2])
def test_a_listing_after_a_key(objects, listing, page_size, request):
    """A key that is there or is not, a folder with its slash, the end; old versions and markers among them."""
    if listing == "versions" and "moto" in request.node.callspec.params.values():
        pytest.skip("moto leaves out the first key after a marker that is not there")
    keys = [f"r/{shard}/{minute}/{name}" for shard in "67" for minute in (1, 2, 4) for name in "ab"]
    for key in keys:
        objects.put(key, b"")
    if listing == "versions":
        objects.delete("r/7/2/b")
        objects.put("r/7/2/b", b"again")

    def after(key):
        found = getattr(objects, listing)("r/7/", page_size=page_size, after=key)
        return sorted({entry.key for entry in found})

    of_7 = keys[6:]
    assert after("r/7/") == of_7
    assert after("r/7/1/") == of_7
    assert after("r/7/1/a") == of_7[1:]
    assert after("r/7/1/b") == of_7[2:]
    assert after("r/7/2/") == of_7[2:]
    assert after("r/7/2/aa") == of_7[3:]
    assert after("r/7/3/") == of_7[4:]
    assert after("r/7/4/b") == []
    assert after("r/7/9/") == []
    assert after("r/6/") == of_7


def test_a_listing_reads_no_page_that_nobody_asked_for(objects):
    for number in range(12):
        objects.put(f"{number:02}", b"")
    objects.requests.clear()
    pages = objects.entries("", page_size=5)
    assert [next(pages).key for _ in range(5)] == ["00", "01", "02", "03", "04"]
    assert objects.requests == Counter(LIST=1)
    assert next(pages).key == "05"
    assert objects.requests == Counter(LIST=2)


def test_a_listing_knows_age_size_and_etag(objects):
    made = objects.put("a", b"12345")
    (entry,) = objects.entries("")
    assert (entry.key, entry.size, entry.etag) == ("a", 5, made.etag)
    assert abs(entry.last_modified - objects.clock.now()) < timedelta(seconds=3)
    assert not entry.is_delete_marker


@pytest.mark.parametrize("page_size", [1000, 3])
def test_versions_newest_first(objects, page_size):
    made = {key: [objects.put(key, str(number).encode()) for number in range(5)] for key in ("a", "b/c", "d")}
    objects.delete("b/c")
    listed = list(objects.versions("", page_size=page_size))
    assert [entry.key for entry in listed] == ["a"] * 5 + ["b/c"] * 6 + ["d"] * 5
    for key, results in made.items():
        own = [entry for entry in listed if entry.key == key]
        assert [e.is_latest for e in own] == [True] + [False] * (len(own) - 1)
        assert [e.version_id for e in own if not e.is_delete_marker] == [r.version_id for r in reversed(results)]
        bodies = [objects.get(key, version_id=e.version_id).body for e in own if not e.is_delete_marker]
        assert bodies == [b"4", b"3", b"2", b"1", b"0"]
    assert [e.key for e in listed if e.is_delete_marker] == ["b/c"]
    assert objects.get("b/c") is None
    assert [entry.key for entry in objects.entries("")] == ["a", "d"]


def test_versions_of_one_key_come_with_longer_keys_that_begin_alike(objects):
    for key in ("a", "a.b", "ab"):
        objects.put(key, b"")
    assert [entry.key for entry in objects.versions("a")] == ["a", "a.b", "ab"]


# --- removal


def test_removing_is_no_error_when_nothing_is_there(objects):
    objects.delete("a", version_id=objects.put("b", b"").version_id)
    objects.delete("a")
    assert objects.get("b").body == b""


def test_removing_a_version_leaves_no_marker(objects):
    made = objects.put("a", b"")
    objects.delete("a", version_id=made.version_id)
    assert objects.get("a") is None
    assert list(objects.versions("")) == []
    assert list(objects.entries("")) == []


def test_removing_an_old_version_leaves_the_new_one(objects):
    old, new = objects.put("a", b"old"), objects.put("a", b"new")
    objects.delete("a", version_id=old.version_id)
    assert objects.get("a").body == b"new"
    assert [entry.version_id for entry in objects.versions("a")] == [new.version_id]


def test_a_marker_is_removed_by_its_version(objects):
    objects.put("a", b"one")
    objects.delete("a")
    assert markers(objects) == ["a"]
    (marker,) = [entry for entry in objects.versions("a") if entry.is_delete_marker]
    objects.delete("a", version_id=marker.version_id)
    assert objects.get("a").body == b"one"
    assert markers(objects) == []


# --- time and count


def test_every_kind_of_request_is_counted(objects):
    made = objects.put("a", b"one")
    objects.get("a")
    objects.get_if_changed("a", made.etag)
    list(objects.entries(""))
    list(objects.versions(""))
    with pytest.raises(ConflictError):
        objects.put("a", b"two", create=True)
    objects.get("b")
    objects.delete("a")
    assert objects.requests == Counter(PUT=2, GET=3, LIST=2, DELETE=1)


def test_answers_tell_the_time(objects):
    objects.put("a", b"")
    assert objects.clock.is_synchronised
    assert abs(objects.clock.now() - datetime.now(timezone.utc)) < timedelta(seconds=5), "the store is on this machine"
    first, second = objects.clock.stamp(), objects.clock.stamp()
    assert first < second


def test_a_refusal_tells_the_time_too(objects):
    from oq_nb.s3.clock import Clock

    objects.put("a", b"")
    objects.clock = Clock()
    with pytest.raises(ConflictError):
        objects.put("a", b"", create=True)
    # The fake store's requests begin with the time, a server's answers end with it.
    assert objects.clock.is_synchronised


# --- contention


# SeaweedFS lets a writer that finds another one at the same key wait in steps of a second: hence few rounds.
_ROUNDS = 3
_THREADS = 6


def count_up(objects, times: int) -> None:
    """Add one by compare-and-swap: read, write over what was read, again when somebody was faster.

    It ends on every store: a change that is refused although nobody else was faster is a fault, not a lost race.
    """
    refused = 0
    for _ in range(times):
        while True:
            seen = objects.get("count")
            try:
                objects.put("count", str(int(seen.body) + 1).encode(), if_match=seen.etag)
                break
            except ConflictError:
                refused = refused + 1 if objects.get("count").etag == seen.etag else 0
                assert refused < 50, "a change over what is there is refused again and again"
                time.sleep(0.002)


def test_no_increment_is_lost(contended):
    contended.put("count", b"0")
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(lambda _: count_up(contended, 8), range(_THREADS)))
    assert contended.get("count").body == str(8 * _THREADS).encode()
    bodies = [contended.get("count", version_id=e.version_id).body for e in contended.versions("count")]
    assert [int(body) for body in bodies] == list(range(8 * _THREADS, -1, -1)), "each step once, in order"


def test_it_ends_where_every_change_is_refused():
    """As on Ceph RGW 16, where an If-Match never holds."""

    class Refusing(FakeStore):
        def put(self, key, body, *, if_match=None, **options):
            if if_match is not None:
                raise ConflictError("it is another", key=key)
            return super().put(key, body, **options)

    objects = Refusing()
    objects.put("count", b"0")
    with pytest.raises(AssertionError, match="refused again and again"):
        count_up(objects, 1)


def test_one_of_many_creates_it(contended):
    for number in range(_ROUNDS):
        start = threading.Barrier(_THREADS)

        def create(name: int, key: str = f"made/{number}", start: threading.Barrier = start) -> str | None:
            start.wait()
            try:
                return contended.put(key, str(name).encode(), create=True).etag
            except ConflictError:
                return None

        with ThreadPoolExecutor(_THREADS) as pool:
            winners = [etag for etag in pool.map(create, range(_THREADS)) if etag is not None]
        assert winners == [contended.get(f"made/{number}").etag]
        assert len(list(contended.versions(f"made/{number}"))) == 1


def test_one_of_many_changes_what_all_have_seen(contended):
    for number in range(_ROUNDS):
        seen = contended.put(f"changed/{number}", b"")
        start = threading.Barrier(_THREADS)

        def change(name: int, key: str = f"changed/{number}", seen=seen, start: threading.Barrier = start) -> bool:
            start.wait()
            try:
                contended.put(key, str(name).encode(), if_match=seen.etag)
            except ConflictError:
                return False
            return True

        with ThreadPoolExecutor(_THREADS) as pool:
            assert sum(pool.map(change, range(_THREADS))) == 1
        assert len(list(contended.versions(f"changed/{number}"))) == 2


# --- a bucket without versions


def test_without_versions(unversioned):
    made = unversioned.put("a", b"one", create=True)
    with pytest.raises(ConflictError):
        unversioned.put("a", b"two", create=True)
    second = unversioned.put("a", b"two", if_match=made.etag)
    with pytest.raises(ConflictError):
        unversioned.put("a", b"three", if_match=made.etag)
    assert unversioned.get_if_changed("a", second.etag) is NOT_MODIFIED
    assert [entry.key for entry in unversioned.entries("")] == ["a"]
    unversioned.delete("a")
    assert unversioned.get("a") is None
    assert list(unversioned.entries("")) == []


def test_a_queue_without_versions(unversioned):
    queue = Queue(TaskStore(unversioned))
    worker = Worker(queue, max_poll_seconds=0.2)
    worker.task("double")(lambda value: value * 2)
    with worker:
        assert queue.submit("double", 2).result(timeout=30) == 4
    assert [entry.key for entry in unversioned.entries("ready/")] == []
    assert [entry.key for entry in unversioned.entries("leases/")] == []


# --- your own store


def test_the_doctor_finds_it_fit(request):
    """The same checks as ``oq doctor``, on the store that the command line names."""
    from oq_nb.admin.doctor import examine

    if request.config.getoption("--bucket", default=None) is None:
        pytest.skip("needs --bucket; the tests' own stores are examined in test_doctor.py")
    made = examine(request.getfixturevalue("your_store"))
    assert made.is_fit, [check.to_dict() for check in made.checks if check.outcome == "failed"]
