"""`prune` beside somebody who replays: at whichever request the replay comes, the task runs again with all it has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from oq_nb.admin import retention
from oq_nb.admin.retention import pruning
from oq_nb.model import TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore, VersionedTask
from oq_nb.testing import FakeStore, FakeTime

TEXT = "x" * 70_000


def replayed_at(number: int, pause_seconds: float) -> tuple[str | None, bool]:
    """Prune a finished task while somebody replays it just before one of the requests.

    Args:
        number: of that request.
        pause_seconds: how long `prune` stands still after it.

    Returns:
        What does not hold, and whether there was such a request.
    """
    time = FakeTime()
    objects = FakeStore(time)
    store, other = TaskStore(objects), Queue(TaskStore(objects))
    task = Queue(store).submit("t", {"text": TEXT}, timeout_seconds=30)
    held = store.read(task.id)
    assert held is not None
    at = store.clock.stamp()
    held = store.move(held, transitions.claim(held.record, at, lease_id="L", worker_id="w", lease_seconds=30))
    store.move(held, transitions.complete(held.record, store.clock.stamp(), lease_id="L", output=1))
    time.advance(7200)
    count, was_replayed = 0, False

    def replays(kind: str, key: str, when: str) -> None:
        nonlocal count, was_replayed
        count += when == "before"
        if when == "before" and count == number + 1 and not was_replayed:
            objects.fault = None
            if other.get(task.id) is not None:
                other.replay(task.id)
                was_replayed = True
            objects.fault = replays
            time.advance(pause_seconds)

    objects.fault = replays
    retention.prune(store, older_than=timedelta(hours=1))
    objects.fault = None
    there = store.read(task.id)
    if not was_replayed:
        return ("it was not pruned" if there is not None else None), count > number
    if there is None or there.record.status is not TaskStatus.PENDING:
        return f"replayed at request {number}, then {pause_seconds:g} s: it is {there and there.record.status}", True
    if store.payloads.load(there.record, "input") != {"text": TEXT}:
        return "its input is gone", True
    return None, True


def each() -> Iterator[str]:
    for pause in (0.0, 200.0):
        for number in range(60):
            wrong, was_made = replayed_at(number, pause)
            if wrong:
                yield wrong
            if not was_made:
                break


def test_a_replay_beside_prune_is_never_lost(cases):
    assert list(each()) == []
    assert sum(replayed_at(number, 0.0)[1] for number in range(60)) >= 6
    cases("replays beside prune", {"requests": 2 * sum(replayed_at(number, 0.0)[1] for number in range(60))})


def _no_etags(patch: pytest.MonkeyPatch) -> None:
    original = pruning._remove

    def remove(store, held, lines, payloads):
        latest = next(line for line in lines if line.is_latest)
        return original(store, VersionedTask(held.record, latest.etag), lines, payloads)

    patch.setattr(pruning, "_remove", remove)


def _by_name(patch: pytest.MonkeyPatch) -> None:
    def remove(store, held, lines, payloads):
        for line in (*lines, *payloads):
            store.objects.delete(line.key)
        return True

    patch.setattr(pruning, "_remove", remove)


def _payloads_first(patch: pytest.MonkeyPatch) -> None:
    original = pruning._remove

    def remove(store, held, lines, payloads):
        pruning._delete_all(store.objects, payloads)
        return original(store, held, lines, payloads)

    patch.setattr(pruning, "_remove", remove)


@pytest.mark.parametrize(
    ("name", "breaks"),
    [
        ("prune without comparing ETags", _no_etags),
        ("prune deletes by name", _by_name),
        ("prune removes payloads before their task", _payloads_first),
    ],
)
def test_a_broken_prune_is_caught(name, breaks, monkeypatch, cases):
    breaks(monkeypatch)
    found = []
    try:
        found = list(each())
    except Exception as exc:
        found.append(str(exc))
    assert found, name
    cases("broken variants, all caught", {name: 1})
