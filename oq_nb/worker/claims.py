"""What a worker does at an index entry: claim its task, recover it, expire it, or tidy the entry away. No threads here.

Invariants:

* Losing a race for a task is normal and silent: the answer is None.
* No object in the bucket stops a worker: one that is not a task is logged once and skipped.
* An entry of another process that leads nowhere is removed only when it is old (rule 1 of the protocol).
* The lease entry of a pending task is removed only when the task has a ready entry.
* An entry whose task needs nothing for now is not read again before its time.

Imports of the package: `backoff`, `errors`, `text`, `model`, `store`, and of `attempt` index entries and scheduler.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta

from oq_nb import model
from oq_nb.attempt.index_entries import AttemptIndexEntries
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.backoff import Backoff
from oq_nb.errors import ConflictError, RecordError, StorageError, TransitionError
from oq_nb.model import TaskStatus, transitions
from oq_nb.store import TaskStore, Transition, VersionedTask
from oq_nb.store.index import IndexEntry
from oq_nb.text import printable

__all__ = ["Claim", "Claims"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")

_YOUNG_ENTRY = timedelta(minutes=2)  # twice what may lie between an entry and its task
_OLD_ENTRY = timedelta(minutes=10)  # rule 1
_TAKEN_SECONDS = 30.0
_FOREIGN_TYPE_SECONDS = 3600.0  # remembered since it was listed: a task keeps its type
_INVALID = Backoff(2.0, 3600.0)
_LEASE_PAD_SECONDS = 1.0  # how long after its end a lease is looked at again


@dataclass(frozen=True)
class Claim:
    """A task that was claimed, and the index entries of its attempt."""

    held: VersionedTask
    entries: AttemptIndexEntries


class Claims:
    """Handles index entries for a worker. Safe to use from several threads.

    Args:
        store: the tasks.
        worker_id: under whose name tasks are claimed.
        handles: says whether the worker has a handler for a task type.
        scheduler: its threads remove entries that are done with; None: they are removed at once.
        lease_entry_delay_seconds: how much later than the claim a lease entry is written, where there is a scheduler.
    """

    def __init__(
        self,
        store: TaskStore,
        worker_id: str,
        handles: Callable[[str], bool],
        *,
        scheduler: Scheduler | None = None,
        lease_entry_delay_seconds: float = 0.0,
    ) -> None:
        self._store = store
        self._worker_id = worker_id
        self._handles = handles
        self._scheduler = scheduler
        self._lease_entry_delay_seconds = lease_entry_delay_seconds
        self._lock = threading.Lock()  # guards what follows
        self._count = 0
        self._not_before: dict[str, float] = {}  # entry's name → monotonic time of the next look
        # Names of entries of tasks without a handler here → until when (monotonic) they are remembered, in that order.
        self._foreign: dict[str, float] = {}
        self._handlers_version = 0
        self._invalid: dict[str, int] = {}  # entry's name → how often its task could not be read
        # Task id → lease id of a claim whose answer was lost, and the monotonic time at which it was sent.
        self._doubtful: dict[str, tuple[str, float]] = {}

    @property
    def count(self) -> int:
        """Tasks claimed so far."""
        return self._count

    # --- when to look at which entry

    def due(self, prefix: str, entries: Iterable[IndexEntry]) -> list[IndexEntry]:
        """Return those entries of an index whose time has come; forget what is known of entries that are gone.

        Args:
            prefix: of the index.
            entries: what was listed.
        """
        now = self._store.clock.monotonic()
        listed = list(entries)
        names = {entry.name for entry in listed}
        with self._lock:
            past = [name for name, at in self._not_before.items() if at < now and name.startswith(prefix)]
            for name in (name for name in past if name not in names):
                del self._not_before[name]
                self._invalid.pop(name, None)
            while self._foreign and next(iter(self._foreign.values())) < now:
                del self._foreign[next(iter(self._foreign))]
            return [entry for entry in listed if self._not_before.get(entry.name, now) <= now]

    def is_due(self, entry: IndexEntry) -> bool:
        """Return whether the time of an entry has come."""
        name, now = entry.name, self._store.clock.monotonic()
        with self._lock:
            if self._foreign.pop(name, None) is not None:
                self._foreign[name] = now + _FOREIGN_TYPE_SECONDS  # it still stands
                return False
            return self._not_before.get(name, 0.0) <= now

    @property
    def handlers_version(self) -> int:
        """A number that is another one after `handlers_changed`."""
        return self._handlers_version

    def handlers_changed(self) -> None:
        """Look again at the tasks that there was no handler for."""
        with self._lock:
            self._foreign.clear()
            self._handlers_version += 1

    def mark_taken(self, entries: Iterable[IndexEntry]) -> None:
        """Skip these entries for a while: handler threads are about to handle them."""
        until = self._store.clock.monotonic() + _TAKEN_SECONDS
        with self._lock:
            self._not_before.update((entry.name, until) for entry in entries)

    def look_again(self, entry: IndexEntry, seconds: float) -> None:
        """Skip an entry for so many seconds."""
        with self._lock:
            self._not_before[entry.name] = self._store.clock.monotonic() + seconds

    def due_at(self, entry: IndexEntry) -> float:
        """Return the monotonic time of the next look at an entry; infinity when none is planned."""
        with self._lock:
            return self._not_before.get(entry.name, float("inf"))

    def next_due_at(self, prefix: str) -> float:
        """Return the monotonic time of the next look at an entry of an index; infinity when none is planned."""
        with self._lock:
            times = [at for name, at in self._not_before.items() if name.startswith(prefix)]
        return min(times, default=float("inf"))

    def take_due(self, prefix: str) -> list[str]:
        """Return the keys of the entries of an index whose time has come; forget what was planned for these."""
        now = self._store.clock.monotonic()
        with self._lock:
            names = [name for name, at in self._not_before.items() if at <= now and name.startswith(prefix)]
            for name in names:
                del self._not_before[name]
        return [name.split("?")[0] for name in names]

    # --- one entry

    def handle_entry(self, entry: IndexEntry, *, may_claim: bool = False) -> Claim | None:
        """Look at the task that an entry points to and do what it needs.

        Args:
            entry: an entry of either index.
            may_claim: claim the task when it can be; else only recover, expire and tidy.

        Returns:
            The claim, when the task was claimed.

        Raises:
            StorageError: the store did not answer; look at the entry again later.

        Requests: 1 GET; for a claim 2 PUT and 1 DELETE, 1 LIST more at a further attempt; for a recovery 2 PUT and 1
        DELETE; 1 PUT more for the entry of a task that has failed or expired; for an old entry without a task 1 LIST
        and 1 DELETE; for a lease entry of a pending task 1 LIST, and 1 PUT where its ready entry is missing.
        """
        try:
            held = self._store.read(entry.task_id)
        except RecordError as exc:
            self._handle_invalid(entry, exc)
            return None
        with self._lock:
            self._invalid.pop(entry.name, None)
        if held is None or held.record.status.is_terminal:
            self._handle_stale(entry, is_missing=held is None)
            return None
        if held.record.status is TaskStatus.RUNNING:
            lease_id, claimed_at = self._doubtful.get(held.record.id, (None, 0.0))
            if lease_id is not None and lease_id == held.record.lease_id:
                return self._begin(held, claimed_at, entry) if may_claim else None
            self._handle_running(held, entry)
            return None
        return self._handle_pending(held, entry, may_claim)

    def _handle_invalid(self, entry: IndexEntry, error: RecordError) -> None:
        """What is not a task now may have been damaged on its way: look again soon, then ever less often."""
        with self._lock:
            tries = self._invalid[entry.name] = self._invalid.get(entry.name, 0) + 1
        if tries == 1:
            logger.warning("skipped: %s", error)
        self.look_again(entry, _INVALID.pause_after(tries))

    def _handle_stale(self, entry: IndexEntry, *, is_missing: bool = False) -> None:
        """An entry that leads nowhere: remove it when it is old, else remember it (rule 1).

        A young one is written just before its task: it is looked at again soon, then ever less often.
        """
        if entry.written_at is None:
            return
        age = self._store.clock.earliest() - entry.written_at
        if age >= _OLD_ENTRY:
            if is_missing and self._store.is_listed(entry.task_id):
                self.look_again(entry, _INVALID.first_seconds)  # a late answer said that it is not there
                return
            self._store.index.remove(entry)
        elif age < _YOUNG_ENTRY:
            self.look_again(entry, max(0.1, age.total_seconds() / 2))
            return
        self.look_again(entry, max(60.0, (_OLD_ENTRY - age).total_seconds()))

    def _handle_pending(self, held: VersionedTask, entry: IndexEntry, may_claim: bool) -> Claim | None:
        record, now = held.record, self._store.clock.now()
        if record.expires_at is not None and record.expires_at <= now:
            self._settle(held, entry, transitions.expire)
        elif record.cancel_requested:  # others hand a task back as it is; it was asked to stop all the same
            self._settle(held, entry, lambda record, now: transitions.cancel(record, now, reason=None, by=None))
        elif record.available_at > now:
            self.look_again(entry, -(now - record.available_at).total_seconds())
        elif not may_claim:
            if self._handles(record.task_type) or self._is_old(entry):  # those of other types when it is about to go
                self._keep_ready_entry(record)
            self._handle_stale(entry)  # a lease entry of a pending task: its ready entry leads to it
        elif not self._handles(record.task_type):
            with self._lock:
                self._foreign[entry.name] = self._store.clock.monotonic() + _FOREIGN_TYPE_SECONDS
                self._not_before.pop(entry.name, None)
        else:
            return self._claim(held, entry)
        return None

    def _is_old(self, entry: IndexEntry) -> bool:
        return entry.written_at is not None and self._store.clock.earliest() - entry.written_at >= _OLD_ENTRY

    def _keep_ready_entry(self, record: model.TaskRecord) -> None:
        """Write the ready entry of a pending task where there is none.

        Upstream's workers write it after the task: one that dies in between leaves a task which only its old lease
        entry leads to.
        """
        key = model.ready_key(record)
        if not self._store.index.stands(key):
            logger.warning("task %s is pending and has no index entry: it gets one", record.id)
            self._store.index.add(key)

    def _handle_running(self, held: VersionedTask, entry: IndexEntry) -> None:
        """Recover a task whose lease has run out; move the entry of one that goes on to the right minute."""
        record, now = held.record, self._store.clock.earliest()
        ends = record.lease_expires_at
        if ends is not None and now < ends:
            left = -(now - ends).total_seconds()
            wait = left + _LEASE_PAD_SECONDS + random.uniform(0, 0.5)
            if entry.key.startswith(model.READY) and entry.written_at is not None:
                # Written just before its task is handed back or tried again, or about to be removed by its claimant.
                age = (self._store.clock.earliest() - entry.written_at).total_seconds()
                wait = min(wait, max(0.1, age / 2))
            self.look_again(entry, wait)
            right_key = model.lease_key(record)
            if entry.key.startswith(model.LEASES) and entry.key < right_key:
                self._store.index.add(right_key)
                self._store.index.remove(entry)
            return
        logger.warning("task %s: the lease of worker %s has run out", record.id, printable(str(record.worker_id)))
        chance = random.random()
        self._settle(held, entry, lambda record, now: transitions.recover(record, now, chance=chance))

    def _settle(self, held: VersionedTask, entry: IndexEntry, transition: Transition) -> None:
        """Make a transition that anyone may make, and remove the entry that led here."""
        try:
            changed = transition(held.record, self._store.clock.stamp())
            self._store.move(held, changed)
        except (ConflictError, TransitionError):
            self.look_again(entry, _LEASE_PAD_SECONDS)
            return
        self._store.emit("expired" if changed.status is TaskStatus.EXPIRED else "recovered", changed.task_type)
        self._store.ended.add(changed)
        if entry.version_id is not None or changed.status.is_terminal or entry.key != model.ready_key(changed):
            self._store.index.remove(entry)

    def _claim(self, held: VersionedTask, entry: IndexEntry) -> Claim | None:
        record, lease_id = held.record, model.new_id()
        changed = transitions.claim(
            record,
            self._store.clock.stamp(),
            lease_id=lease_id,
            worker_id=self._worker_id,
            lease_seconds=record.lease_seconds,
        )
        # A task that was pending before may have another entry by now than the one that was listed a while ago.
        others = self._store.index.find(model.ready_key(record)) if record.attempt else []
        claimed_at = self._store.clock.monotonic()
        try:
            made = self._store.move(held, changed)
        except ConflictError:
            return None
        except StorageError:
            self._doubtful[record.id] = lease_id, claimed_at  # it may have been applied: the next look tells
            raise
        return self._begin(made, claimed_at, entry, *others) if made.record.lease_id == lease_id else None

    def _begin(self, held: VersionedTask, claimed_at: float, *ready: IndexEntry) -> Claim:
        """Have the lease entry written and the ready entries removed, beside the handler when there is a scheduler."""
        with self._lock:
            self._doubtful.pop(held.record.id, None)
            self._count += 1
        self._store.emit("claimed", held.record.task_type)
        old = {entry.name: entry for entry in ready}.values()
        store = self._store
        entries = AttemptIndexEntries(store.index, held.record, old, self._scheduler, on_end=store.ended.add)
        delay = self._lease_entry_delay_seconds
        entries.begin(claimed_at + delay if delay else None)  # from when it was sent: its answer may have come late
        return Claim(held, entries)
