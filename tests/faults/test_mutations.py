"""The harness has teeth: each of these deliberately broken variants of the library is caught by the single faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from faults.cases import Case, each_single, run
from faults.failures import FAULTS

from oq_nb import model
from oq_nb.attempt.index_entries import AttemptIndexEntries
from oq_nb.attempt.lease import Lease
from oq_nb.model import TaskStatus, transitions
from oq_nb.s3.clock import Clock
from oq_nb.store import TaskStore, VersionedTask
from oq_nb.store import index as store_index
from oq_nb.store.index import Index
from oq_nb.store.payloads import Payloads
from oq_nb.worker import claims
from oq_nb.worker.claims import Claims

Patch = pytest.MonkeyPatch
#: What to break, a scenario that shows it, and what is said then.
MUTATIONS: dict[str, tuple[Callable[[Patch], None], str, str]] = {}


def mutation(name: str, scenario: str, told: str) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    def register(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
        MUTATIONS[name] = (function, scenario, told)
        return function

    return register


@mutation("completion without If-Match", "lease takeover", "by worker")
def _(patch: Patch) -> None:
    original = TaskStore.move

    def move(self: TaskStore, held: VersionedTask, record: Any, **options: Any) -> VersionedTask:
        if record.status is TaskStatus.COMPLETED:
            made = self.objects.put(record.key, record.to_bytes())
            return VersionedTask(record, made.etag, made.version_id)
        return original(self, held, record, **options)

    patch.setattr(TaskStore, "move", move)


@mutation("lease id not compared", "progress", "under the lease of")
def _(patch: Patch) -> None:
    def only_status(record: Any, lease_id: str) -> None:
        if record.status is not TaskStatus.RUNNING:
            raise transitions.LeaseExpiredError("not running")

    patch.setattr(transitions, "_owned", only_status)


@mutation("nothing compared at all", "claim and complete", "became completed")
def _(patch: Patch) -> None:
    patch.setattr(transitions, "_owned", lambda record, lease_id: None)


@mutation("ready entry deleted before the lease entry exists", "progress", "1: no entry leads to")
def _(patch: Patch) -> None:
    def begin(self: AttemptIndexEntries, at: float | None = None) -> None:
        left, self._ready = self._ready, []
        for old in left:
            self._index.remove(old)
        self._lease_entry = self._index.add(self._lease_key)

    patch.setattr(AttemptIndexEntries, "begin", begin)


@mutation("entries removed by name, whatever stands there by now", "retry", "1: no entry leads to")
def _(patch: Patch) -> None:
    patch.setattr(Index, "remove", lambda self, entry: self._objects.delete(entry.key))


@mutation("412 after a lost answer taken as a lost race", "progress", "told that its lease is lost, but it ended")
def _(patch: Patch) -> None:
    patch.setattr(TaskStore, "_find_own_write", lambda self, mine, over, bodies: (self.read(mine.id), False))


@mutation(
    "a conflict taken as a lost lease, without looking",
    "cancel while running",
    "told that its lease is lost, but it ended",
)
def _(patch: Patch) -> None:
    original = Lease._write

    def write(self: Lease, transition: Any, bodies: Any = None) -> VersionedTask:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._store, "_find_own_write", lambda mine, over, bodies: (None, False))
            inner.setattr(self._store, "read", lambda task_id: None)
            inner.setattr(self._store, "is_listed", lambda task_id: False)
            return original(self, transition, bodies)

    patch.setattr(Lease, "_write", write)


@mutation("index entry written after the task", "submit", "1: no entry leads to")
def _(patch: Patch) -> None:
    def create(self: TaskStore, record: Any) -> VersionedTask:
        made = self._put(record, None)
        self.index.add(model.ready_key(record))
        return made

    patch.setattr(TaskStore, "create", create)


@mutation("lease entry of a tracked loop written after its task", "tracked loop", "1: no entry leads to")
def _(patch: Patch) -> None:
    def create(self: TaskStore, record: Any) -> VersionedTask:
        made = self._put(record, None)
        self.index.add(model.lease_key(record))
        return made

    patch.setattr(TaskStore, "create", create)


@mutation("ready entry of a retry written after the task", "retry", "1: no entry leads to")
def _(patch: Patch) -> None:
    def move(self: TaskStore, held: VersionedTask, record: Any, *, doubted: Any = ()) -> VersionedTask:
        made = self._put(record, held, doubted)
        if record.status is TaskStatus.PENDING:
            self.index.add(model.ready_key(record))
        return made

    patch.setattr(TaskStore, "move", move)


@mutation("strangers remove young entries", "submit", "1: no entry leads to")
def _(patch: Patch) -> None:
    patch.setattr(claims, "_OLD_ENTRY", timedelta(0))


@mutation("an entry is not renewed after a pause", "submit", "1: ")
def _(patch: Patch) -> None:
    patch.setattr(store_index, "_PAUSE_SECONDS", float("inf"))


@mutation("leases recovered before their end", "progress", "under the lease of")
def _(patch: Patch) -> None:
    patch.setattr(Clock, "earliest", lambda self: self.now() + timedelta(hours=1))
    patch.setattr(transitions, "is_lease_expired", lambda record, now: record.status is TaskStatus.RUNNING)


@mutation("leases never recovered", "dead worker", "1: the task never ended")
def _(patch: Patch) -> None:
    patch.setattr(Claims, "_handle_running", lambda self, held, entry: None)


@mutation("progress kept for the next attempt", "retry", "5: ")
def _(patch: Patch) -> None:
    patch.setattr(transitions, "_NO_LEASE", {"lease_expires_at": None, "lease_id": None, "worker_id": None})


@mutation("all attempts write one output object", "payload by reference", "with the output of")
def _(patch: Patch) -> None:
    original = Payloads.save
    patch.setattr(
        Payloads, "save", lambda self, task_id, which, value, attempt=1: original(self, task_id, which, value)
    )


@mutation("a recovery that counts no retry", "dead worker", "no retry was counted")
def _(patch: Patch) -> None:
    original = transitions._again_or_failed

    def again(record: Any, *arguments: Any) -> Any:
        return original(record, *arguments).evolve(retry_count=record.retry_count)

    patch.setattr(transitions, "_again_or_failed", again)


@mutation("entries left in place", "claim and complete", "entries pile up")
def _(patch: Patch) -> None:
    patch.setattr(Index, "remove", lambda self, entry: None)


@mutation(
    "renewals go on between two tries to write the end",
    "claim and complete",
    "told that its lease is lost, but it ended",
)
def _(patch: Patch) -> None:
    patch.setattr(Lease, "_is_ending", property(lambda self: False, lambda self, value: None), raising=False)


#: Needs two faults: the answer of the end is lost for good, then that of a try.
TWO_FAULTS = {"renewals go on between two tries to write the end": ("outage of a minute", "every answer lost")}


def _violations(name: str, scenario: str) -> Iterator[str]:
    if name not in TWO_FAULTS:
        for _, found in each_single(scenario):
            yield from found
        return
    first, second = TWO_FAULTS[name]
    calm = run(Case(scenario))
    for number in range(calm.scenario_requests):
        alone = run(Case(scenario, ((number, first),)))
        for other in range(number + 1, len(alone.requests)):
            yield from run(Case(scenario, ((number, first), (other, second)))).violations


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_broken_variant_is_caught(name, monkeypatch, cases):
    breaks, scenario, told = MUTATIONS[name]
    assert run(Case(scenario)).check() == [], "it is clean before it is broken; with faults too: see test_single_faults"
    breaks(monkeypatch)
    seen = []
    for found in _violations(name, scenario):
        seen.append(found)
        if told in found.split("): ", 1)[-1]:
            break
    else:
        pytest.fail(f"nothing noticed of: {name}; but {seen[:3]}")
    cases("broken variants, all caught", {name: 1})


def test_each_fault_notices_something():
    """No fault is for show: a fault that never changed a run would be one that does not strike."""
    calm = [str(request) for request in run(Case("payload by reference")).requests]
    for name in FAULTS:
        if name in ("rival submits", "slow answer"):  # needs a key; see the test of leases met after a slow answer
            continue
        changed = [
            number
            for number in range(14)
            if [str(r) for r in run(Case("payload by reference", ((number, name),))).requests] != calm
        ]
        assert changed, name
