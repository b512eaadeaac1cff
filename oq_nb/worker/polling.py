"""`IndexPoller`: the thread of a worker that looks for tasks to run, and for tasks that dead workers left.

Invariants:

* The thread ends only when the backlog is closed, whatever the store answers.
* An outage is logged once, at its beginning.
* A look makes 1 LIST, however long the index is.
* Entries that are of no use here delay the others, but do not hide them: what a look left over is read on soon.
* Recovering tasks does not hold up the look for tasks.
* Soon after an attempt has ended there is a look: whoever waited for it may have submitted the next task.

Imports of the package: `model`, `errors`, `store`, `attempt`, and of this room `backlog`, `claims`, `hint_watch`,
`index_reader`, `pauses`.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Collection, Sequence
from functools import partial

from oq_nb import model
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import StorageError
from oq_nb.store import TaskStore
from oq_nb.store.index import IndexEntry
from oq_nb.worker.backlog import Backlog
from oq_nb.worker.claims import Claims
from oq_nb.worker.hint_watch import HintWatch
from oq_nb.worker.index_reader import IndexReader
from oq_nb.worker.pauses import PollPauses

__all__ = ["IndexPoller"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")

_ENTRIES_PER_THREAD = 4  # kept waiting
_MAX_RECOVERIES = 128  # under way or waiting at a time


class IndexPoller:
    """Looks for tasks and hands their entries to a `Backlog`; recovers tasks whose lease has run out.

    Args:
        store: the tasks.
        claims: says which entries are due, and recovers.
        backlog: where entries go.
        worker_id: named in the log.
        shards: only entries of these.
        concurrency: tasks at a time.
        pauses: how long between two looks.
        hint: asked whether tasks were submitted, while looks are rare; None: nobody is.
        own_tasks: ids of the tasks that this worker runs.
        recovery: its threads recover tasks; None: they are recovered at once, one after the other.
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
        pauses: PollPauses,
        hint: HintWatch | None = None,
        own_tasks: Collection[str] = (),
        recovery: Scheduler | None = None,
    ) -> None:
        self._store, self._claims, self._backlog = store, claims, backlog
        self._worker_id = worker_id
        self._own_shards = frozenset(shards)
        self._ready = IndexReader(store.index, model.READY, shards)
        self._leases = IndexReader(store.index, model.LEASES, shards)
        self._concurrency = concurrency
        self._pauses, self._hint = pauses, hint
        self._own_tasks = own_tasks
        self._recovery = recovery
        self._batch = 1
        self._claimed_before = 0
        self._found_nothing = True
        self._reads_in_vain = 0  # of the round under way
        self._handlers_version = claims.handlers_version
        #: Since when (monotonic) the store has answered each look, and there was nothing to run.
        self.quiet_since: float = time.monotonic()
        #: How often the whole index was read since the start, and had nothing to run.
        self.empty_rounds: int = 0

    def run(self) -> None:
        """Look for tasks and for lapsed leases until the backlog is closed."""
        now = time.monotonic()
        idle_since = now
        next_ready = next_leases = now
        attempt_ended_at = self._backlog.attempt_ended_at
        is_out = False  # the store does not answer
        while not self._backlog.is_closed:
            woken = self._backlog.clear_wake()
            if woken is not None:
                idle_since, next_ready = time.monotonic(), 0.0
                self._ready.hurry_new(woken, self._minute())
            now = time.monotonic()
            if self._backlog.attempt_ended_at > attempt_ended_at and not is_out:
                attempt_ended_at = self._backlog.attempt_ended_at
                next_ready = min(next_ready, now + self.pause_after(now - idle_since))
            if self._claims.next_due_at(model.READY) <= now:
                next_ready = min(next_ready, now)
            try:
                if self._hint is not None and now < next_ready and self._backlog.wants_more:
                    hinted = self._hint.look(idle_since, now)
                    if hinted is not None:
                        next_ready = now
                        self._ready.hurry_new(hinted, self._minute())
                if now >= next_ready and self._backlog.wants_more:
                    has_found = self.find_tasks()
                    if has_found:
                        idle_since = now
                    if self._hint is not None:
                        self._hint.listed(has_found=has_found)
                    is_out = False
                    next_ready = time.monotonic() + self.pause_after(now - idle_since)
                if now >= next_leases:
                    soonest = self.recover_tasks()
                    is_out = False
                    next_leases = min(now + self._lease_pause(now - idle_since), max(now + 0.5, soonest))
            except StorageError as exc:
                # Logged once, and not beside a running task's own warning.
                level = logging.DEBUG if is_out or self._own_tasks else logging.WARNING
                logger.log(level, "worker %s cannot look for tasks for now, trying on: %s", self._worker_id, exc)
                is_out = True
                self.quiet_since = time.monotonic()
                next_ready = next_leases = time.monotonic() + random.uniform(1, 3)
            except Exception:
                logger.exception("worker %s: a look for tasks failed", self._worker_id)
                next_ready = next_leases = time.monotonic() + 5
            next_hint = float("inf") if self._hint is None or is_out else self._hint.next_at(idle_since, now)
            self._backlog.wait(partial(self._seconds_to_wait, min(next_ready, next_hint), next_leases))

    def _seconds_to_wait(self, next_look: float, next_leases: float, wants_more: bool) -> float:
        """Return how long nothing has to be done, unless something changes."""
        until = next_leases
        if wants_more:
            until = min(until, next_look, self._claims.next_due_at(model.READY))
        return until - time.monotonic()

    def pause_after(self, idle_seconds: float) -> float:
        """Return the pause between two looks for tasks, after so long without any."""
        return self._pauses.for_tasks(
            idle_seconds,
            since_attempt=time.monotonic() - self._backlog.attempt_ended_at,
            reads_a_round=self._ready.reads_a_round,
            is_urgent=self._ready.has_urgent,
        )

    def _minute(self) -> str:
        return model.minute_of(self._store.clock.now())

    def _lease_pause(self, idle_seconds: float) -> float:
        return self._pauses.for_leases(idle_seconds, reads_a_round=self._leases.reads_a_round)

    def find_tasks(self) -> bool:
        """Read the ready index; return whether there was anything for the handler threads. Requests: 1 LIST."""

        def wants(entry: IndexEntry) -> bool:
            return entry.shard in self._own_shards and self._claims.is_due(entry)

        if self._claims.handlers_version != self._handlers_version:
            self._handlers_version = self._claims.handlers_version
            self._ready.start_over()
        self._ready.hurry(self._claims.take_due(model.READY))
        fresh = self._claims.due(model.READY, self._ready.read(self._minute(), wants))
        random.shuffle(fresh)  # so that several workers do not fight over the same head
        fresh.sort(key=lambda entry: entry.minute)
        batch = self._next_batch()
        if len(fresh) > batch:
            self._ready.read_on()
        fresh = fresh[:batch]
        self._found_nothing = not fresh
        self._count_round()
        self._claims.mark_taken(fresh)
        self._backlog.offer(fresh)
        return bool(fresh)

    def _count_round(self) -> None:
        """Note what a look has found, for those who wait until there is nothing."""
        if not self._found_nothing or self._ready.has_urgent:
            self._reads_in_vain = 0
            if not self._found_nothing:
                self.quiet_since = time.monotonic()
            return
        self._reads_in_vain += 1
        if self._reads_in_vain > self._ready.reads_a_round or self._ready.reads_a_round == 1:
            self._reads_in_vain = 0
            self.empty_rounds += 1

    def _next_batch(self) -> int:
        """Return how many entries to take: twice as many each time that none of the last ones could be claimed.

        Entries that are of no use here must not hide the others.
        """
        claimed, self._claimed_before = self._claimed_before, self._claims.count
        if self._claims.count > claimed or (self._found_nothing and not self._ready.is_unfinished):
            self._batch = self._concurrency * _ENTRIES_PER_THREAD * 8
        elif not self._found_nothing:
            self._batch = min(1000, self._batch * 2)
        return self._batch

    def recover_tasks(self) -> float:
        """Have tasks recovered whose lease has run out; return the monotonic time when the next one may have.

        Several workers recover in different orders, each some tasks at a time: they do not fight over the same ones.

        Requests: 1 LIST, and those of each recovery.
        """
        known: list[IndexEntry] = []  # whose time is still to come

        def wants(entry: IndexEntry) -> bool:
            if entry.shard not in self._own_shards or entry.task_id in self._own_tasks:
                return False
            is_due = self._claims.is_due(entry)
            if not is_due:
                known.append(entry)
            return is_due

        due = self._claims.due(model.LEASES, self._leases.read(self._minute(), wants))
        random.shuffle(due)
        places = max(0, _MAX_RECOVERIES - (0 if self._recovery is None else self._recovery.count))
        self._claims.mark_taken(due[:places])
        for entry in due[:places]:
            recovery = _Recovery(self._claims, entry)
            if self._recovery is None:
                recovery.run_due()
            else:
                self._recovery.call(recovery)
        if len(due) > places:
            self._leases.read_on()
        if len(due) > places or self._leases.is_unfinished:
            return time.monotonic()
        return min((self._claims.due_at(entry) for entry in (*known, *due)), default=float("inf"))


class _Recovery:
    """Handles one lease entry; a `Scheduler` calls `run_due`."""

    def __init__(self, claims: Claims, entry: IndexEntry) -> None:
        self._claims, self._entry = claims, entry

    def __repr__(self) -> str:
        return f"<Recovery of task {self._entry.task_id}>"

    def run_due(self) -> None:
        """Recover the task, when its lease has run out."""
        try:
            self._claims.handle_entry(self._entry)
        except StorageError as exc:
            logger.debug("task %s cannot be recovered for now: %s", self._entry.task_id, exc)
            self._claims.look_again(self._entry, random.uniform(1, 3))
        except Exception:  # one task that cannot be recovered must not keep the others from it
            logger.exception("task %s cannot be recovered", self._entry.task_id)
            self._claims.look_again(self._entry, 60)
