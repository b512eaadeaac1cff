"""Index entries: what a scan removes in passing, and what it must leave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from oq_nb import model
from oq_nb.errors import StorageDeniedError
from oq_nb.store.index import Index
from oq_nb.testing import FakeStore, FakeTime

KEY = f"ready/a/0029924237/a{model.new_id()[1:]}"


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def objects(time) -> FakeStore:
    return FakeStore(time)


def test_leftovers_of_others_are_removed_after_a_minute(objects, time):
    index = Index(objects)
    index.add(KEY)
    index.add(KEY)
    objects.delete(KEY)
    assert index.scan("ready/") == []
    assert len(list(objects.versions("ready/"))) == 3
    time.advance(61)
    assert index.scan("ready/") == []
    assert list(objects.versions("ready/")) == []


class MidWrite(FakeStore):
    """Lists as SeaweedFS does in the middle of a write: the version that is being written is not yet the latest."""

    def versions(self, prefix, **options):
        listed = list(super().versions(prefix, **options))
        oldest = listed[-1].version_id
        yield from (replace(entry, is_latest=entry.version_id == oldest) for entry in listed)


@pytest.mark.parametrize("age", [0, 61])
def test_a_marker_that_is_being_written_stays(time, age):
    """Without it the entry beneath would stand again."""
    objects = MidWrite(time)
    index = Index(objects)
    index.add(KEY)
    objects.delete(KEY)
    time.advance(age)
    index.scan("ready/")
    assert list(objects.entries("ready/")) == []


def test_an_entry_that_is_being_written_stays(time):
    """It leads to a task that would be lost without it."""
    objects = MidWrite(time)
    index = Index(objects)
    index.add(KEY)
    newer = index.add(KEY)
    index.scan("ready/")
    assert newer.version_id in {entry.version_id for entry in objects.versions("ready/")}


def test_a_marker_at_the_end_of_a_page_stays_while_its_version_is_on_the_next_one(objects, time):
    index = Index(objects)
    ids = sorted(model.new_id() for _ in range(1000))
    keys = [f"ready/{task_id[0]}/0029924237/{task_id}" for task_id in ids[:-1]]
    for key in keys:
        index.add(key)
    last = f"ready/{ids[-1][0]}/0029924238/{ids[-1]}"
    index.add(last)
    objects.delete(last)
    time.advance(61)
    assert len(index.scan("ready/")) == 999
    assert last not in {entry.key for entry in objects.entries("ready/")}


class NoVersionsDeleted(FakeStore):
    """A store whose policy lets nobody delete versions."""

    def delete(self, key, *, version_id=None):
        if version_id is not None:
            raise StorageDeniedError("DELETE was refused (AccessDenied)")
        super().delete(key)


def test_where_versions_may_not_be_deleted_a_newer_entry_survives(time, caplog):
    """The first refusal is no reason to delete plainly: what stands under the key by then belongs to a later state."""
    objects = NoVersionsDeleted(time)
    index = Index(objects)
    old = index.add(KEY)
    newer = index.add(KEY)
    index.remove(old)
    assert objects.get(KEY).version_id == newer.version_id
    assert [entry.key for entry in index.scan("ready/")] == [KEY]
    assert not index.removes_versions
    index.remove(newer)
    assert index.scan("ready/") == []
    assert caplog.text.count("s3:DeleteObjectVersion") == 1


def test_where_versions_may_not_be_deleted_sweeping_removes_no_entry(time):
    objects = NoVersionsDeleted(time)
    index = Index(objects)
    index.add(KEY)
    standing = index.add(KEY)
    time.advance(120)
    for _ in range(2):
        assert [entry.key for entry in index.scan("ready/")] == [KEY]
        assert objects.get(KEY).version_id == standing.version_id
