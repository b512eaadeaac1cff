"""The entries of unhappy ends: empty objects ``ended/<status>/<minute>/<task id>``. Hints, never the truth.

Which of 100,000 ended tasks failed cannot be seen in a listing of ``tasks/``, and reading them all takes 100,000 GET.
So a task that fails, is cancelled or expires leaves an entry here, and 1 LIST finds the first thousand of them.

Invariants:

* The task decides. An entry may be missing (the writer stopped, the store did not answer, the task was ended by another
  program) or stale (the task was changed by another program since): a reader that shows a task has read it.
* An entry is written after its task has ended, and removed after a replay, an archiving or the task's removal.
* Writing and removing are best effort and never delay, fail or repeat the change of a task. A completed task makes no
  request here.

Imports nothing of the package but `errors`, `model`, `s3`, and `index` and `permission` of this room.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from oq_nb import model
from oq_nb.errors import StorageDeniedError, StorageError
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.s3 import ObjectStore
from oq_nb.store.index import Index, IndexEntry
from oq_nb.store.permission import Permission

__all__ = ["UNHAPPY", "EndedEntries", "EndedEntry"]

logger: logging.Logger = logging.getLogger("oq_nb.ended")

#: How a task ends without an output.
UNHAPPY = (TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.EXPIRED)

_WARNING = (
    "the credentials may not write ended/: dashboards find failed tasks only by reading them; add this statement to "
    'their policy: {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::BUCKET/ended/*"}; '
    "the refusal"
)


@dataclass(frozen=True)
class EndedEntry:
    """An entry that was listed."""

    task_id: str
    status: TaskStatus
    #: In which the task ended: whole minutes since 1970, ten digits.
    minute: str
    key: str
    #: When the entry was written, by the store's clock.
    written_at: datetime


class EndedEntries:
    """The entries of a bucket.

    Args:
        objects: the store.
        index: removes entries by version, where the store keeps versions.
    """

    def __init__(self, objects: ObjectStore, index: Index) -> None:
        self._objects = objects
        self._index = index
        self._may_write = Permission(objects.clock.monotonic, _WARNING)

    def add(self, record: TaskRecord) -> None:
        """Write the entry of a task that has ended unhappily; nothing for any other task. Requests: 1 PUT."""
        if record.status not in UNHAPPY or self._may_write.is_denied:
            return
        try:
            self._objects.put(model.ended_key(record), b"")
            self._may_write.granted()
        except StorageDeniedError as exc:
            self._may_write.refused(exc)
        except StorageError as exc:
            logger.debug("task %s has no entry of its end: %s", record.id, exc)

    def find(self, record: TaskRecord) -> list[IndexEntry]:
        """Return the entry of a task that has ended unhappily, as it stands now. Requests: 1 LIST, or none."""
        if record.status not in UNHAPPY:
            return []
        try:
            return self._index.find(model.ended_key(record))
        except StorageError as exc:
            logger.debug("the entry of task %s stays: %s", record.id, exc)
            return []

    def remove(self, entries: Iterable[IndexEntry]) -> None:
        """Remove entries that were found. Requests: 1 DELETE each."""
        for entry in entries:
            self._index.remove(entry)

    def listed(self, status: TaskStatus | None = None, *, limit: int | None = None) -> list[EndedEntry]:
        """Return the entries, of each task the newest one; of each status the oldest end first.

        Args:
            status: one of `UNHAPPY`; None for all.
            limit: so many entries at most; None for all.

        Requests: 1 LIST per 1,000 entries.
        """
        prefix = model.ENDED if status is None else f"{model.ENDED}{status.value}/"
        newest: dict[str, EndedEntry] = {}
        for line in islice(self._objects.entries(prefix), limit):
            parsed = model.parse_ended_key(line.key)
            if parsed is None or parsed[0] not in UNHAPPY:
                continue
            name, minute, task_id = parsed
            known = newest.get(task_id)
            if known is None or known.minute <= minute:
                newest[task_id] = EndedEntry(task_id, TaskStatus(name), minute, line.key, line.last_modified)
        return list(newest.values())
