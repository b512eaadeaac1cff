"""The index in any order of events, beside others who delete plainly: a sweep changes nothing that can be seen."""

from __future__ import annotations

import random

import pytest

from oq_nb import model
from oq_nb.errors import StorageError
from oq_nb.store.index import Index
from oq_nb.testing import FakeStore, FakeTime

KEYS = [f"ready/{shard}/0030000000/{shard}{'0' * 7}-0000-4000-a000-{n:012d}" for shard in "ab" for n in range(30)]


def standing(store: FakeStore) -> set[str]:
    """Return the keys that anybody sees; no request."""
    return {entry.key for entry, _ in store.look(model.READY) if entry.is_latest and not entry.is_delete_marker}


def random_run(seed: int) -> list[str]:
    """Add, overwrite, delete and scan at random; return what did not hold after any request of a scan."""
    chosen, time = random.Random(seed), FakeTime()
    found: list[str] = []
    store = FakeStore(time)
    index = Index(store)
    seen: set[str] = set()

    def look(kind: str, key: str, when: str) -> None:
        if when == "after" and standing(store) != seen:
            found.append(f"seed {seed}: {kind} {key} of a scan changed what stands: {standing(store) ^ seen}")

    for _ in range(60):
        what, key = chosen.random(), chosen.choice(KEYS)
        time.advance(chosen.choice([0.0, 1.0, 70.0]))
        if what < 0.45:
            index.add(key)
        elif what < 0.8:
            for other in chosen.sample(KEYS, chosen.choice([1, 5, 40])):
                if other in standing(store):
                    store.delete(other)  # plainly, as others do: it leaves a marker
        elif what < 0.85:
            for entry in index.find(key):
                index.remove(entry)
        else:
            seen = standing(store)
            store.fault = look
            listed = {entry.key for entry in index.scan(model.READY)}
            store.fault = None
            if listed != seen:
                found.append(f"seed {seed}: a scan found {listed ^ seen} too many or too few")
    for _ in range(40):
        time.advance(70.0)
        for entry in index.scan(model.READY):
            index.remove(entry)
    left = [entry for entry, _ in store.look(model.READY) if entry.is_delete_marker or not entry.is_latest]
    if left:
        found.append(f"seed {seed}: {len(left)} old versions and markers pile up")
    return found


def test_a_sweep_changes_nothing_that_can_be_seen_and_leaves_nothing_behind(cases):
    for seed in range(150):
        assert random_run(seed) == []
    cases("random orders of events at the index", {"orders": 150})


def _markers_first(self: Index, leftovers: list) -> None:
    for entry in sorted(leftovers, key=lambda entry: not entry.is_delete_marker)[:20]:
        self._delete(entry.key, entry.version_id)


def _all_kinds_at_once(self: Index, leftovers: list) -> None:
    for entry in leftovers[:20]:
        self._delete(entry.key, entry.version_id)


def _never(self: Index, leftovers: list) -> None:
    pass


def _plainly(self: Index, leftovers: list) -> None:
    for entry in leftovers[:20]:
        try:
            self._objects.delete(entry.key)
        except StorageError:
            return


@pytest.mark.parametrize(
    ("name", "sweep"),
    [
        ("markers swept first", _markers_first),
        ("markers and versions swept in the order of the listing", _all_kinds_at_once),
        ("leftovers deleted plainly", _plainly),
        ("leftovers never swept", _never),
    ],
)
def test_a_broken_sweep_is_caught(name, sweep, monkeypatch, cases):
    monkeypatch.setattr(Index, "_sweep", sweep)
    assert any(random_run(seed) for seed in range(40)), name
    cases("broken variants, all caught", {name: 1})
