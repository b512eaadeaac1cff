"""The index entries of one attempt.

After a claim the lease entry is written and the ready entries are removed; after the end the lease entry is removed.
Removing an entry decides nothing, so a `Scheduler` thread does it in the background, and the handler does not wait. The
lease entry is written at once, because upstream's monitor finds the tasks of dead workers by lease entries only.

Invariants:

* At every moment an entry leads to the unfinished task: the ready entries stay until the lease entry is written. (Our
  workers look at the ready entry of a running task again when its lease is over, so where only they run, the lease
  entry may be written later, and an attempt that has ended by then needs none.) A lease entry that could not be written
  is tried again until the attempt ends.
* Where entries cannot be removed by version, nothing is postponed: a late plain delete would remove a newer entry.

Imports nothing of the package but `backoff`, `errors`, `model`, `oq_nb.store` and `scheduler` of this room.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from oq_nb import model
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.backoff import Backoff
from oq_nb.errors import StorageError
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.store.index import Index, IndexEntry

__all__ = ["AttemptIndexEntries"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")

_RETRIES = Backoff(0.5, 30.0)


class AttemptIndexEntries:
    """The entries of an attempt.

    Args:
        index: where they are.
        record: the task as claimed.
        ready: the ready entries that lead to it.
        scheduler: its threads do the work; None: it is done at once.
        on_end: called once, in the scheduler's thread, with the task as the attempt has left it.
    """

    def __init__(
        self,
        index: Index,
        record: TaskRecord,
        ready: Iterable[IndexEntry],
        scheduler: Scheduler | None = None,
        *,
        on_end: Callable[[TaskRecord], None] | None = None,
    ) -> None:
        self._index = index
        self._scheduler = scheduler
        self._on_end = on_end
        self._task_id = record.id
        self._lease_key = model.lease_key(record)
        self._ready = list(ready)
        self._lease_entry: IndexEntry | None = None
        self._failures = 0  # to write the lease entry
        self._end: TaskRecord | None = None
        self._is_abandoned = False
        self._lock = threading.Lock()  # held while entries are changed

    def __repr__(self) -> str:
        return f"<AttemptIndexEntries of task {self._task_id}>"

    def begin(self, at: float | None = None) -> None:
        """Replace the ready entries of the claimed task by a lease entry. Requests: 1 PUT, 1 DELETE.

        Args:
            at: monotonic time at which to do so, where there is a scheduler; None: now.
        """
        if at is not None and (helper := self._helper) is not None:
            helper.call(self, at)
            return
        with self._lock:
            again_at = self._write_lease_entry()
        if again_at is None:
            self._have_called()
        elif self._scheduler is not None:
            self._scheduler.call(self, again_at)

    def end(self, record: TaskRecord) -> None:
        """Remove the entries of an attempt that has ended and left ``record``. Requests: 1 DELETE."""
        self._end = record  # without the lock: nobody waits for an entry
        self._have_called()

    def abandon(self) -> None:
        """The lease is lost: write no lease entry for it any more."""
        self._is_abandoned = True
        if self._lease_entry is None and self._end is None and self._scheduler is not None:
            self._scheduler.forget(self)

    @property
    def _helper(self) -> Scheduler | None:
        """The scheduler, when all entries are removed by version."""
        return None if any(entry.by_key for entry in self._entries()) else self._scheduler

    def _entries(self) -> list[IndexEntry]:
        lease_entry = self._lease_entry
        return self._ready if lease_entry is None else [*self._ready, lease_entry]

    def _have_called(self) -> None:
        if (helper := self._helper) is None:
            self.run_due()
        else:
            helper.call(self)

    def run_due(self) -> float | None:
        """Write or remove the entries that are due; return the monotonic time of the next try to write."""
        with self._lock:
            end = self._end
            if end is not None:
                left, self._ready, self._lease_entry = self._entries(), [], None
                left = [entry for entry in left if not self._is_in_use_again(entry, end)]
            elif self._is_abandoned:
                return None
            elif self._lease_entry is None:
                again_at = self._write_lease_entry()
                if again_at is not None:
                    return again_at
                # By key it is too late now: the task may have been handed back, and have a newer entry.
                left, self._ready = _split(self._ready)
            else:
                left, self._ready = self._ready, []
            for entry in left:
                self._index.remove(entry)
            if end is not None and self._on_end is not None:
                self._on_end(end)
                self._on_end = None
        return None

    def _write_lease_entry(self) -> float | None:
        """Write the lease entry; return when to try again, None when it is written. The caller holds the lock."""
        try:
            self._lease_entry = self._index.add(self._lease_key)
        except StorageError as exc:
            self._failures += 1
            logger.debug("task %s has no lease entry yet, its ready entry stays: %s", self._task_id, exc)
            return self._index.clock.monotonic() + _RETRIES.pause_after(self._failures)
        return None

    @staticmethod
    def _is_in_use_again(entry: IndexEntry, end: TaskRecord) -> bool:
        """Return whether the pending task has an entry under the same key that cannot be told apart from this one."""
        return entry.version_id is None and end.status is TaskStatus.PENDING and entry.key == model.ready_key(end)


def _split(entries: list[IndexEntry]) -> tuple[list[IndexEntry], list[IndexEntry]]:
    """Return the entries that are removed by version, and the others."""
    return [entry for entry in entries if not entry.by_key], [entry for entry in entries if entry.by_key]
