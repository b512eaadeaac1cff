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
    """A store whose policy lets nobody delete versions, while `denies` is true."""

    denies = True
    code = "AccessDenied"

    def delete(self, key, *, version_id=None):
        if version_id is not None and self.denies:
            raise StorageDeniedError(f"DELETE was refused ({self.code})", code=self.code)
        super().delete(key, version_id=version_id)


def test_where_versions_may_not_be_deleted_a_newer_entry_survives(time, caplog):
    """A refusal is no reason to delete by key: the newest entry with that key belongs to a later state of the task."""
    objects = NoVersionsDeleted(time)
    index = Index(objects)
    old = index.add(KEY)
    newer = index.add(KEY)
    for _ in range(2):
        index.remove(old)
        assert objects.get(KEY).version_id == newer.version_id
        time.advance(61)
    assert not index.removes_versions, "it was refused for a minute"
    index.remove(newer)
    assert objects.get(KEY).version_id == newer.version_id, "an entry with a version id is never removed without it"
    (listed,) = index.scan("ready/")
    assert (listed.key, listed.version_id, listed.by_key) == (KEY, None, True)
    index.remove(listed)
    assert index.scan("ready/") == []
    assert caplog.text.count("s3:DeleteObjectVersion") == 1


def test_once_the_policy_is_mended_entries_are_removed_by_version_again(time):
    objects = NoVersionsDeleted(time)
    index = Index(objects)
    old = index.add(KEY)
    for _ in range(2):
        index.remove(old)
        time.advance(61)
    assert not index.removes_versions
    objects.denies = False
    time.advance(600)
    assert index.removes_versions
    (listed,) = index.scan("ready/")
    assert listed.version_id == old.version_id
    index.remove(listed)
    assert list(objects.versions("ready/")) == []


def test_a_lasting_refusal_is_remembered_when_asking_again_fails(time):
    objects = NoVersionsDeleted(time)
    index = Index(objects)
    old = index.add(KEY)
    for _ in range(2):
        index.remove(old)
        time.advance(61)
    time.advance(600)
    assert index.removes_versions, "it is asked again"
    index.remove(old)
    assert not index.removes_versions, "and not for another minute"


@pytest.mark.parametrize("code", ["ExpiredToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidToken"])
@pytest.mark.parametrize("operation", ["delete", "versions"])
def test_refused_credentials_say_nothing_of_versions(time, code, operation):
    """For an hour the token has expired, or the clock is wrong: afterwards all is as before."""
    objects = NoVersionsDeleted(time)
    objects.code = code
    index = Index(objects)
    old = index.add(KEY)
    newer = index.add(KEY)
    if operation == "versions":

        def refuse(*_, **__):
            raise StorageDeniedError(f"LIST was refused ({code})", code=code)

        objects.versions = refuse
    for _ in range(60):
        if operation == "versions":
            with pytest.raises(StorageDeniedError):
                index.scan("ready/")
        else:
            index.remove(old)
        assert index.removes_versions
        time.advance(60)
    objects.__dict__.pop("versions", None)
    objects.denies = False
    index.remove(old)
    assert [entry.version_id for entry in objects.versions("ready/")] == [newer.version_id]


def test_a_single_access_denied_changes_nothing(time):
    objects = NoVersionsDeleted(time)
    index = Index(objects)
    old = index.add(KEY)
    index.remove(old)
    objects.denies = False
    index.remove(old)
    time.advance(3600)
    objects.denies = True
    index.remove(index.add(KEY))
    assert index.removes_versions, "an hour apart, with a success in between"


def test_a_listing_that_is_denied_once_shows_keys_that_are_not_removed(time):
    """Listed without its version id, an entry stays until versions are listed again, or never can be."""
    objects = FakeStore(time)
    index = Index(objects)
    index.add(KEY)
    versions, denied = objects.versions, [StorageDeniedError("LIST was refused", code="AccessDenied")]

    def refuse_once(prefix, **options):
        if denied:
            raise denied.pop()
        return versions(prefix, **options)

    objects.versions = refuse_once
    (listed,) = index.scan("ready/")
    newer = index.add(KEY)
    index.remove(listed)
    assert objects.get(KEY).version_id == newer.version_id
    assert index.removes_versions


def test_where_versions_may_never_be_listed_keys_are(time, caplog):
    objects = FakeStore(time)

    def refuse(*_, **__):
        raise StorageDeniedError("LIST was refused", code="AccessDenied")

    objects.versions = refuse
    index = Index(objects)
    index.add(KEY)
    for _ in range(2):
        (listed,) = index.scan("ready/")
        time.advance(61)
    assert listed.by_key
    index.remove(listed)
    assert index.scan("ready/") == []
    assert caplog.text.count("s3:ListBucketVersions") == 1


def test_where_versions_may_not_be_deleted_sweeping_removes_no_entry(time):
    objects = NoVersionsDeleted(time)
    index = Index(objects)
    index.add(KEY)
    standing = index.add(KEY)
    time.advance(120)
    for _ in range(3):
        assert [entry.key for entry in index.scan("ready/")] == [KEY]
        assert objects.get(KEY).version_id == standing.version_id
        time.advance(40)
