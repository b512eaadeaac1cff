"""`IndexPoller`: the thread of a worker that looks for tasks to run, and for tasks that dead workers left.

Invariants:

* The thread ends only when the backlog is closed, whatever the store answers.
* An outage is logged once, at its beginning.

Requests: 1 LIST of ``ready/`` for each look for tasks, 1 LIST of ``leases/`` for each look for lapsed leases.

Imports of the package: `model`, `errors`, `store`, and of this room `backlog` and `claims`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Collection, Sequence

from oq_nb import model
from oq_nb.errors import StorageError
from oq_nb.store import TaskStore
from oq_nb.store.index import IndexEntry
from oq_nb.worker.backlog import Backlog
from oq_nb.worker.claims import Claims

__all__ = ["MIN_POLL_SECONDS", "IndexPoller"]

logger = logging.getLogger("oq_nb.worker")

#: Shortest pause between two looks for tasks.
MIN_POLL_SECONDS = 0.1
_LEASE_SCAN_SECONDS = (2.0, 60.0)
_ENTRIES_PER_THREAD = 4  # kept waiting


class IndexPoller:
    """Looks for tasks and hands their entries to a `Backlog`; recovers tasks whose lease has run out.

    Args:
        store: the tasks.
        claims: says which entries are due, and recovers.
        backlog: where entries go.
        worker_id: named in the log.
        shards: only entries of these.
        concurrency: tasks at a time.
        max_poll_seconds: longest pause between two looks for tasks.
        own_tasks: ids of the tasks that this worker runs.
    """

    def __init__(
        self,
        store: TaskStore,
        claims: Claims,
        backlog: Backlog,
        *,
        worker_id: str,
        shards: Sequence[str],
        concurrency: int,
        max_poll_seconds: float,
        own_tasks: Collection[str] = (),
    ) -> None:
        self._store, self._claims, self._backlog = store, claims, backlog
        self._worker_id = worker_id
        self._shards, self._own_shards = shards, frozenset(shards)
        self._concurrency = concurrency
        self._max_poll_seconds = max_poll_seconds
        self._own_tasks = own_tasks
        self._batch = 1
        self._claimed_before = 0
        self._found_nothing = True

    def run(self) -> None:
        """Look for tasks and for lapsed leases until the backlog is closed."""
        now = time.monotonic()
        idle_since = now
        next_ready = next_leases = now
        is_out = False  # the store does not answer
        while not self._backlog.is_closed:
            wants_more = self._backlog.wants_more
            if self._backlog.clear_wake():
                idle_since, next_ready = time.monotonic(), 0.0
            now = time.monotonic()
            try:
                if wants_more and now >= next_ready:
                    if self.find_tasks():
                        idle_since = now
                    is_out = False
                    next_ready = time.monotonic() + self.pause_after(now - idle_since)
                if now >= next_leases:
                    soonest = self.recover_tasks()
                    is_out = False
                    low, high = _LEASE_SCAN_SECONDS
                    next_leases = min(now + min(high, max(low, (now - idle_since) / 4)), max(now + 0.5, soonest))
            except StorageError as exc:
                # Logged once, and not beside a running task's own warning.
                level = logging.DEBUG if is_out or self._own_tasks else logging.WARNING
                logger.log(level, "worker %s cannot look for tasks for now, trying on: %s", self._worker_id, exc)
                is_out = True
                next_ready = next_leases = time.monotonic() + random.uniform(1, 3)
            except Exception:
                logger.exception("worker %s: a look for tasks failed", self._worker_id)
                next_ready = next_leases = time.monotonic() + 5
            due = self._claims.next_due_at()
            self._backlog.wait(self._pause_function(now, next_ready, next_leases, due))
            if due <= time.monotonic():
                next_ready = min(next_ready, time.monotonic())

    def _pause_function(self, now: float, next_ready: float, next_leases: float, due: float) -> Callable[[bool], float]:
        def pause(wants_more: bool) -> float:
            until = min(next_leases, next_ready if wants_more else float("inf"), max(due, now + 0.05))
            return min(until - time.monotonic(), self._max_poll_seconds)

        return pause

    def pause_after(self, idle_seconds: float) -> float:
        """Return the pause between two looks: a quarter of the time that nothing was found, within bounds."""
        pause = min(self._max_poll_seconds, max(MIN_POLL_SECONDS, idle_seconds / 4))
        return pause * random.uniform(0.8, 1.0)

    def find_tasks(self) -> bool:
        """Read the ready index; return whether there was anything for the handler threads."""
        minute = model.minute_of(self._store.clock.now())

        def wants(entry: IndexEntry) -> bool:
            return entry.shard in self._own_shards and self._claims.is_due(entry)

        entries = self._store.index.scan(model.READY, until_minute=minute, wants=wants)
        if len(entries) >= 1000:  # more than one page: look at the heads of some shards instead
            entries = []
            for shard in random.sample(self._shards, len(self._shards)):
                entries += self._store.index.scan(f"{model.READY}{shard}/", until_minute=minute, wants=wants)
                if len(entries) >= self._concurrency * _ENTRIES_PER_THREAD:
                    break
        fresh = self._claims.due(entries)
        random.shuffle(fresh)  # so that several workers do not fight over the same head
        fresh.sort(key=lambda entry: entry.minute)
        fresh = fresh[: self._next_batch()]
        self._found_nothing = not fresh
        self._claims.mark_taken(fresh)
        self._backlog.offer(fresh)
        return bool(fresh)

    def _next_batch(self) -> int:
        """Return how many entries to take: twice as many each time that none of the last ones could be claimed.

        Entries that are of no use here must not hide the others.
        """
        claimed, self._claimed_before = self._claimed_before, self._claims.count
        if self._found_nothing or self._claims.count > claimed:
            self._batch = self._concurrency * _ENTRIES_PER_THREAD * 8
        else:
            self._batch = min(1000, self._batch * 2)
        return self._batch

    def recover_tasks(self) -> float:
        """Recover tasks whose lease has run out; return the monotonic time when the next one may have."""
        minute = model.minute_of(self._store.clock.now())
        entries = self._store.index.scan(model.LEASES, until_minute=minute)
        if len(entries) >= 1000:  # many at once, or many that lead nowhere and hide the others
            entries = self._store.index.scan(model.LEASES, until_minute=minute, limit=100_000)
        for entry in self._claims.due(entries):
            if self._backlog.is_closed:
                break
            if entry.shard in self._own_shards and entry.task_id not in self._own_tasks:
                try:
                    self._claims.handle_entry(entry)
                except StorageError:
                    raise
                except Exception:  # one task that cannot be recovered must not keep the others from it
                    logger.exception("worker %s: task %s", self._worker_id, entry.task_id)
                    self._claims.look_again(entry, 60)
        return min((self._claims.due_at(entry) for entry in entries), default=float("inf"))
