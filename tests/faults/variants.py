"""Deliberately broken variants of the library: of conditions, index entries and leases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

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


@dataclass(frozen=True)
class Variant:
    """A broken variant.

    Args:
        breaks: breaks the library.
        scenario: a story that shows it.
        told: what is said then.
        faults: those that show it where nothing goes wrong otherwise, each at every request; none: all.
        then: a second fault, at every later request.
    """

    breaks: Callable[[Patch], None]
    scenario: str
    told: str
    faults: tuple[str, ...] = ()
    then: str | None = None


VARIANTS: dict[str, Variant] = {}


def variant(
    name: str, scenario: str, told: str, *faults: str, then: str | None = None
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Register a broken variant; see `Variant`."""

    def register(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
        assert name not in VARIANTS
        VARIANTS[name] = Variant(function, scenario, told, faults, then)
        return function

    return register


@variant("completion without If-Match", "lease takeover", "made it completed under the lease of", "rival holds it")
def _(patch: Patch) -> None:
    original = TaskStore.move

    def move(self: TaskStore, held: VersionedTask, record: Any, **options: Any) -> VersionedTask:
        if record.status is TaskStatus.COMPLETED:
            made = self.objects.put(record.key, record.to_bytes())
            return VersionedTask(record, made.etag, made.version_id)
        return original(self, held, record, **options)

    patch.setattr(TaskStore, "move", move)


@variant("lease id not compared", "without renewal", "under the lease of")
def _(patch: Patch) -> None:
    def only_status(record: Any, lease_id: str) -> None:
        if record.status is not TaskStatus.RUNNING:
            raise transitions.LeaseExpiredError("not running")

    patch.setattr(transitions, "_owned", only_status)


@variant("nothing compared at all", "claim and complete", "became completed", "rival cancels", "rival takes over")
def _(patch: Patch) -> None:
    patch.setattr(transitions, "_owned", lambda record, lease_id: None)


@variant("ready entry deleted before the lease entry exists", "progress", "1: no entry leads to")
def _(patch: Patch) -> None:
    def begin(self: AttemptIndexEntries, at: float | None = None) -> None:
        left, self._ready = self._ready, []
        for old in left:
            self._index.remove(old)
        self._lease_entry = self._index.add(self._lease_key)

    patch.setattr(AttemptIndexEntries, "begin", begin)


@variant("entries removed by name, whatever stands there by now", "retry", "1: no entry leads to")
def _(patch: Patch) -> None:
    patch.setattr(Index, "remove", lambda self, entry: self._objects.delete(entry.key))


@variant(
    "412 after a lost answer taken as a lost race",
    "progress",
    "told that its lease is lost, but it ended",
    "answer lost",
)
def _(patch: Patch) -> None:
    patch.setattr(TaskStore, "_find_own_write", lambda self, mine, over, bodies: (None, False))


@variant(
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


@variant("index entry written after the task", "submit", "1: no entry leads to")
def _(patch: Patch) -> None:
    def create(self: TaskStore, record: Any) -> VersionedTask:
        made = self._put(record, None)
        self.index.add(model.ready_key(record))
        return made

    patch.setattr(TaskStore, "create", create)


@variant("lease entry of a tracked loop written after its task", "tracked loop", "1: no entry leads to")
def _(patch: Patch) -> None:
    def create(self: TaskStore, record: Any) -> VersionedTask:
        made = self._put(record, None)
        self.index.add(model.lease_key(record))
        return made

    patch.setattr(TaskStore, "create", create)


@variant("ready entry of a retry written after the task", "retry", "1: no entry leads to")
def _(patch: Patch) -> None:
    def move(self: TaskStore, held: VersionedTask, record: Any, *, doubted: Any = ()) -> VersionedTask:
        made = self._put(record, held, doubted)
        if record.status is TaskStatus.PENDING:
            self.index.add(model.ready_key(record))
        return made

    patch.setattr(TaskStore, "move", move)


@variant("strangers remove young entries", "submit", "1: no entry leads to")
def _(patch: Patch) -> None:
    patch.setattr(claims, "_OLD_ENTRY", timedelta(0))


@variant("an entry is not renewed after a pause", "submit", "1: ")
def _(patch: Patch) -> None:
    patch.setattr(store_index, "_PAUSE_SECONDS", float("inf"))


@variant("leases recovered before their end", "progress", "under the lease of")
def _(patch: Patch) -> None:
    patch.setattr(Clock, "earliest", lambda self: self.now() + timedelta(hours=1))
    patch.setattr(transitions, "is_lease_expired", lambda record, now: record.status is TaskStatus.RUNNING)


@variant("leases never recovered", "dead worker", "1: the task never ended")
def _(patch: Patch) -> None:
    patch.setattr(Claims, "_handle_running", lambda self, held, entry: None)


@variant("progress kept for the next attempt", "retry", "5: ")
def _(patch: Patch) -> None:
    patch.setattr(transitions, "_NO_LEASE", {"lease_expires_at": None, "lease_id": None, "worker_id": None})


@variant("all attempts write one output object", "payload by reference", "with the output of")
def _(patch: Patch) -> None:
    original = Payloads.save
    patch.setattr(
        Payloads, "save", lambda self, task_id, which, value, attempt=1: original(self, task_id, which, value)
    )


@variant("a recovery that counts no retry", "dead worker", "under the lease of")
def _(patch: Patch) -> None:
    original = transitions._again_or_failed

    def again(record: Any, *arguments: Any) -> Any:
        return original(record, *arguments).evolve(retry_count=record.retry_count)

    patch.setattr(transitions, "_again_or_failed", again)


@variant("entries left in place", "claim and complete", "entries pile up")
def _(patch: Patch) -> None:
    patch.setattr(Index, "remove", lambda self, entry: None)


@variant(
    "renewals go on between two tries to write the end",
    "claim and complete",
    "told that its lease is lost, but it ended",
    "outage of a minute",
    then="every answer lost",
)
def _(patch: Patch) -> None:
    patch.setattr(Lease, "_is_ending", property(lambda self: False, lambda self, value: None), raising=False)
