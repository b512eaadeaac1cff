"""`History`: the versions of one task, each read once.

Imports of the package: `errors`, `model`, `store`.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from oq_nb.errors import RecordError
from oq_nb.model import TaskRecord
from oq_nb.s3 import Entry
from oq_nb.store import TaskStore

__all__ = ["History", "Versions"]

_LIMIT = 200  # versions that are kept
_COUNTED = 20_000  # versions that are counted: 20 LIST, once
_READERS = 8


@dataclass(frozen=True)
class Versions:
    """The newest versions of a task, oldest first. Text in them is untrusted."""

    records: tuple[TaskRecord, ...] = ()
    #: Versions that there are, the ones before these included.
    total: int = 0
    #: Whether there are more than were counted.
    is_more: bool = False
    #: The version before the first of these, to tell what that one changed; None when there is none.
    before: TaskRecord | None = None

    @property
    def first_number(self) -> int:
        """The number of the first of these, counted from 1."""
        return self.total - len(self.records) + 1


class History:
    """Reads the versions of a task, and later those that have come since. Not for several threads at once.

    Args:
        store: the tasks.
        task_id: which.
    """

    def __init__(self, store: TaskStore, task_id: str) -> None:
        self._store = store
        self._key = store.key_of(task_id)
        self._known: tuple[TaskRecord, ...] = ()
        self._known_ids: set[str | None] = set()
        self._total, self._is_more = 0, False

    def read(self) -> Versions:
        """Return the versions as they are now.

        Raises:
            StorageError: the store does not answer; what was read before is kept.

        Requests: 1 LIST per 1,000 versions (20 at most) and 1 GET for each of the newest 200; later 1 LIST, and 1 GET
        for each that is new.
        """
        if not self._store.objects.is_versioned:
            return Versions()
        new: list[Entry] = []
        is_more = is_joined = False
        for entry in self._store.objects.versions(self._key):
            if entry.key != self._key or entry.is_delete_marker:
                continue
            is_joined = entry.version_id in self._known_ids
            is_more = len(new) >= _COUNTED
            if is_joined or is_more:
                break
            new.append(entry)
        wanted = new[: _LIMIT + 1][::-1]
        read: list[TaskRecord] = []
        if wanted:
            with ThreadPoolExecutor(min(_READERS, len(wanted)), thread_name_prefix="oq-ui-read") as pool:
                read = [record for record in pool.map(self._read_one, wanted) if record is not None]
        if is_joined:
            self._total += len(new)
            self._known = (*self._known, *read)[-_LIMIT - 1 :]
        else:
            self._total, self._known, self._is_more = len(new), tuple(read), is_more
        self._known_ids = {entry.version_id for entry in new} or self._known_ids
        first = max(0, len(self._known) - _LIMIT)
        return Versions(self._known[first:], self._total, self._is_more, self._known[0] if first else None)

    def _read_one(self, entry: Entry) -> TaskRecord | None:
        found = self._store.objects.get(self._key, version_id=entry.version_id)
        if found is None:
            return None
        try:
            return TaskRecord.from_bytes(found.body, key=self._key)
        except RecordError:
            return None
