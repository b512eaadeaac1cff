"""`ChangeFeed`: every task that has changed since one looked last, however many there are.

A dashboard reads the newest tasks only (see `oq_nb.queue.poller`). This reads all that changed: a listing of ``tasks/``
tells the ETag of each. A task that changes several times between two looks is given once, as it is then.

Imports of the package: `model` and `store`.
"""

from __future__ import annotations

from oq_nb import model
from oq_nb.store import TaskStore, VersionedTask

__all__ = ["ChangeFeed"]


class ChangeFeed:
    """The changes of a queue's tasks since this was made. Not for several threads at once.

    Args:
        store: the tasks.

    Requests: 1 LIST per 1,000 tasks.
    """

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._etags = self._listed()

    @property
    def count(self) -> int:
        """How many tasks there were at the last look."""
        return len(self._etags)

    def read(self) -> list[VersionedTask]:
        """Return the tasks that have changed since the last look, in the order of their changes.

        Raises:
            StorageError: the store did not answer; the next call gives what this one should have.

        Requests: 1 LIST per 1,000 tasks, and 1 GET for each task that has changed, 16 at a time.
        """
        listed = self._listed()
        changed = [task_id for task_id, etag in listed.items() if self._etags.get(task_id) != etag]
        found = list(self._store.read_many(changed))
        # As they were read: a task that changed once more after the listing is not given twice.
        self._etags = listed | {held.record.id: held.etag for held in found}
        return sorted(found, key=lambda held: held.record.updated_at)

    def _listed(self) -> dict[str, str]:
        entries = self._store.objects.entries(model.TASKS)
        named = ((entry.key.rsplit("/", 1)[1], entry.etag) for entry in entries)
        return {name.removesuffix(".json"): etag for name, etag in named if name.endswith(".json")}
