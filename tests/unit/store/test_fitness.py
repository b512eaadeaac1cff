"""A worker starts only where a right change is carried out and a wrong one refused; each fault is named."""

from __future__ import annotations

from collections import Counter

import pytest

from oq_nb.errors import ConfigurationError, ConflictError, StorageError, StorageUnavailableError
from oq_nb.store.fitness import verify_conditional_writes
from oq_nb.testing import FakeStore


class Dialect(FakeStore):
    """A store with a way of its own with conditions."""

    def __init__(self, *, if_match="right", if_none_match="right"):
        super().__init__()
        self.if_match, self.if_none_match = if_match, if_none_match

    def put(self, key, body, *, if_match=None, create=False, before_try=None, tags=None):
        if create and self.if_none_match == "ignored":
            create = False
        if if_match is not None:
            if self.if_match == "never holds":
                raise ConflictError("412", key=key)
            if self.if_match == "not implemented":
                raise StorageError("501", key=key)
            if self.if_match == "no answer":
                raise StorageUnavailableError("nobody answers", key=key)
            if self.if_match == "ignored":
                if_match = None
            elif self.if_match == "unquoted":
                if_match = "no quotes" if if_match.startswith('"') else f'"{if_match}"'
        return super().put(key, body, if_match=if_match, create=create, before_try=before_try, tags=tags)


def test_a_fit_store_takes_four_writes():
    objects = Dialect()
    verify_conditional_writes(objects, "k", b"1")
    assert objects.requests == Counter(PUT=4)
    assert objects.get("k").body == b"1"


@pytest.mark.parametrize(
    ("dialect", "said"),
    [
        ({"if_match": "never holds"}, "refuses a change whose If-Match names the very object that is there"),
        ({"if_match": "unquoted"}, "takes an If-Match only without the quotes of the ETag"),
        ({"if_match": "ignored"}, "ignores If-Match on writes: two workers would run the same task"),
        ({"if_none_match": "ignored"}, "ignores If-None-Match on writes: two workers would run the same task"),
        ({"if_match": "not implemented"}, "cannot do conditional writes (If-Match: 501)"),
        ({"if_match": "never holds", "if_none_match": "ignored"}, "refuses a change whose If-Match names"),
    ],
)
def test_each_fault_is_named_with_a_remedy_that_recommends_nothing_that_failed(dialect, said):
    with pytest.raises(ConfigurationError) as caught:
        verify_conditional_writes(Dialect(**dialect), "k", b"1")
    text = str(caught.value)
    assert said in text and "docs/reference/stores.md" in text
    assert not any(name in text for name in ("Ceph", "MinIO", "R2"))


def test_a_store_that_does_not_answer_is_not_called_unfit():
    with pytest.raises(StorageUnavailableError):
        verify_conditional_writes(Dialect(if_match="no answer"), "k", b"1")


def test_somebody_else_who_writes_there_makes_no_fault():
    class Busy(FakeStore):
        others = 2

        def put(self, key, body, *, if_match=None, **options):
            if if_match is not None and self.others:
                self.others -= 1
                super().put(key, b"another's")
            return super().put(key, body, if_match=if_match, **options)

    verify_conditional_writes(Busy(), "k", b"1")
