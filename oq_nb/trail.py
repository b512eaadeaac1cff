"""The index entries of one attempt: written before its handler, removed beside it.

After a claim the lease entry is written and the ready entries are removed; after the end the lease entry is removed.
Removing decides nothing, so that nobody need wait for it: a `Keeper` thread does it meanwhile. The lease entry is
written at once, because others (upstream's monitor) find dead workers' tasks by lease entries only.

Invariants:

* At every moment an entry leads to the unfinished task: the ready entries stay until the lease entry is written. (A
  worker that meets the ready entry of a running task looks at it again when its lease is over.)
* Where entries cannot be removed by version nothing is put off: a late plain delete would hit a newer entry.

Imports nothing of the package but `errors`, `model`, `index` and `keeper`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable

from oq_nb import model
from oq_nb.errors import StorageError
from oq_nb.index import Index, IndexEntry
from oq_nb.keeper import Keeper
from oq_nb.model import TaskRecord, TaskStatus

__all__ = ["Trail"]

logger = logging.getLogger("oq_nb.worker")


class Trail:
    """The entries of an attempt.

    Args:
        index: where they are.
        record: the task as claimed.
        ready: the ready entries that lead to it.
        keeper: its threads do the work; None: it is done at once.
    """

    def __init__(
        self, index: Index, record: TaskRecord, ready: Iterable[IndexEntry], keeper: Keeper | None = None
    ) -> None:
        self.entries = list(ready)
        self._index = index
        self._keeper = keeper
        self._task_id = record.id
        self._lease_key = model.lease_key(record)
        self._left: list[IndexEntry] = []
        self._end: TaskRecord | None = None
        self._lock = threading.Lock()  # held while entries are changed

    def __repr__(self) -> str:
        return f"<Trail of task {self._task_id}>"

    def begin(self) -> None:
        """The task is claimed: a lease entry takes the place of its ready entries. Requests: 1 PUT, 1 DELETE."""
        try:
            entry = self._index.enter(self._lease_key)
        except StorageError as exc:
            logger.debug("task %s keeps its ready entry as its lease entry: %s", self._task_id, exc)
            return
        with self._lock:
            self._left, self.entries = self.entries, [entry]
        self._remove()

    def end(self, record: TaskRecord) -> None:
        """The attempt has ended, ``record`` is what it left: remove its entries. Requests: 1 DELETE."""
        with self._lock:
            self._end = record
        self._remove()

    def _remove(self) -> None:
        if self._keeper is None or not self._index.removes_versions:
            self.tick()
        else:
            self._keeper.call(self)

    def tick(self) -> float | None:
        """Remove what is to be removed by now."""
        with self._lock:
            left, self._left = self._left, []
            if self._end is not None:
                left += [entry for entry in self.entries if not self._is_in_use_again(entry, self._end)]
                self.entries = []
            for entry in left:
                self._index.leave(entry)
        return None

    @staticmethod
    def _is_in_use_again(entry: IndexEntry, end: TaskRecord) -> bool:
        """Return whether the pending task has an entry under the same key that cannot be told apart from this one."""
        return entry.version_id is None and end.status is TaskStatus.PENDING and entry.key == model.ready_key(end)
