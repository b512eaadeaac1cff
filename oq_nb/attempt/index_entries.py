"""The index entries of one attempt.

After a claim the lease entry is written and the ready entries are removed; after the end the lease entry is removed.
Removing an entry decides nothing, so a `Scheduler` thread does it in the background, and the handler does not wait. The
lease entry is written at once, because upstream's monitor finds the tasks of dead workers by lease entries only.

Invariants:

* At every moment an entry leads to the unfinished task: the ready entries stay until the lease entry is written. (Our
  workers look at the ready entry of a running task again when its lease is over, so where only they run, the lease
  entry may be written later, and an attempt that has ended by then needs none.)
* Where entries cannot be removed by version, nothing is postponed: a late plain delete would remove a newer entry.

Imports nothing of the package but `errors`, `model`, `index` and `scheduler`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from oq_nb import model
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import StorageError
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.store.index import Index, IndexEntry

__all__ = ["AttemptIndexEntries"]

logger = logging.getLogger("oq_nb.worker")


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
        self.entries = list(ready)
        self._index = index
        self._scheduler = scheduler
        self._on_end = on_end
        self._task_id = record.id
        self._lease_key = model.lease_key(record)
        self._has_lease_entry = False
        self._left: list[IndexEntry] = []
        self._end: TaskRecord | None = None
        self._lock = threading.Lock()  # held while entries are changed

    def __repr__(self) -> str:
        return f"<AttemptIndexEntries of task {self._task_id}>"

    def begin(self, at: float | None = None) -> None:
        """Replace the ready entries of the claimed task by a lease entry. Requests: 1 PUT, 1 DELETE.

        Args:
            at: monotonic time at which to do so, where there is a scheduler; None: now.
        """
        if at is None or self._helper is None:
            with self._lock:
                self._take_place()
        self._have_called(at)

    def end(self, record: TaskRecord) -> None:
        """Remove the entries of an attempt that has ended and left ``record``. Requests: 1 DELETE."""
        self._end = record  # without the lock: nobody waits for an entry
        self._have_called()

    def abandon(self) -> None:
        """The lease is lost: write no lease entry for it any more."""
        if not self._has_lease_entry and self._end is None and self._scheduler is not None:
            self._scheduler.forget(self)  # it would write one; what is only to be removed still is

    @property
    def _helper(self) -> Scheduler | None:
        """The scheduler, while entries can be removed by version."""
        return self._scheduler if self._index.removes_versions else None

    def _have_called(self, at: float | None = None) -> None:
        if (helper := self._helper) is None:
            self.run_due()
        else:
            helper.call(self, at)

    def run_due(self) -> float | None:
        """Write or remove the entries that are due."""
        with self._lock:
            end = self._end
            if end is None and not self._has_lease_entry:
                self._take_place()
            left, self._left = self._left, []
            if end is not None:
                left += [entry for entry in self.entries if not self._is_in_use_again(entry, end)]
                self.entries = []
            for entry in left:
                self._index.remove(entry)
            if end is not None and self._on_end is not None:
                self._on_end(end)
                self._on_end = None
        return None

    def _take_place(self) -> None:
        """Write the lease entry; the caller holds the lock."""
        self._has_lease_entry = True
        try:
            entry = self._index.add(self._lease_key)
        except StorageError as exc:
            logger.debug("task %s keeps its ready entry as its lease entry: %s", self._task_id, exc)
            return
        self._left, self.entries = self.entries, [entry]

    @staticmethod
    def _is_in_use_again(entry: IndexEntry, end: TaskRecord) -> bool:
        """Return whether the pending task has an entry under the same key that cannot be told apart from this one."""
        return entry.version_id is None and end.status is TaskStatus.PENDING and entry.key == model.ready_key(end)
