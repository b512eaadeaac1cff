"""Read and write task records: the one bounded compare-and-swap loop, and the order of writes.

Invariants:

* Every change of a task is a PUT with ``If-Match`` on the ETag last seen, or ``If-None-Match: *`` for a new one.
* An index entry outlives the state that it points to: the successor is written before the task, the predecessor is
  removed after it. Entry and task are written close together: after a pause the entry is written again first.
* A refused write may be our own that was delivered twice, or whose answer was lost: it counts as ours when the task, or
  a version of it since the one that was changed, holds the very bytes that were sent.
* An object that cannot be read as a task is read once more before it counts as invalid.

Imports nothing of the package but `backoff`, `errors`, `model`, `s3`, and `index` and `payloads` of this room.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TypeVar

from oq_nb import model
from oq_nb.backoff import Backoff
from oq_nb.errors import (
    ConflictError,
    RecordError,
    StorageConfigurationError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
    TaskNotFoundError,
)
from oq_nb.model import TaskRecord, TaskStatus, Timestamp
from oq_nb.s3 import SETTLED, NotModified, ObjectStore, PutResult, StoredObject
from oq_nb.s3.clock import Clock
from oq_nb.store.ended import EndedEntries
from oq_nb.store.idempotency import IdempotencyKeys
from oq_nb.store.index import FreshEntry, Index, IndexEntry
from oq_nb.store.live_progress import LiveProgress
from oq_nb.store.local_attempts import LocalAttempts
from oq_nb.store.logs import LogPieces
from oq_nb.store.payloads import Payloads
from oq_nb.store.permission import Permission

__all__ = ["FINISHED_TAG", "Listener", "TaskStore", "Transition", "VersionedTask"]

logger: logging.Logger = logging.getLogger("oq_nb.store")

T = TypeVar("T")
R = TypeVar("R")

_Found = StoredObject | NotModified | None

#: A pure change of a task at a given store time.
Transition = Callable[[TaskRecord, Timestamp], TaskRecord]

#: Called for each event in this process: the event (see `oq_nb.metrics.COUNTED`), the task's type, its duration, s.
Listener = Callable[[str, str, float], object]

#: Tag by which a lifecycle rule finds finished tasks (see `oq_nb.admin.retention`). A replay writes none.
FINISHED_TAG = {"oq-finished": "true"}

_CONFLICT_TRIES = 12
_CONFLICTS = Backoff(0.01, 1.0, jitter=1.0)
_LATE_TRIES = 6
_LATE = Backoff(0.02, 1.0)
_HISTORY_LOOKBACK = 20
_UNTAGGED = "finished tasks are not tagged from now on, so no lifecycle rule finds them"
_READERS = 16
_preparing = threading.Lock()


@dataclass(frozen=True)
class VersionedTask:
    """A task as it was last seen, with the ETag that a change needs."""

    record: TaskRecord
    etag: str
    version_id: str | None = None


def _versioned(found: StoredObject, key: str) -> VersionedTask:
    return VersionedTask(TaskRecord.from_bytes(found.body, key=key), found.etag, found.version_id)


class TaskStore:
    """The tasks of a bucket.

    Args:
        objects: the store.
        shard_prefix_len: hexadecimal digits of a shard, 1 to 4.
        tag_finished: tag tasks that have ended with `FINISHED_TAG`, for a lifecycle rule that removes them.
    """

    def __init__(self, objects: ObjectStore, *, shard_prefix_len: int = 1, tag_finished: bool = False) -> None:
        with _preparing:
            model.prepare()
        self.objects = objects
        self.index: Index = Index(objects)
        self.payloads: Payloads = Payloads(objects)
        #: What failed, was cancelled or expired leaves an entry here.
        self.ended: EndedEntries = EndedEntries(objects, self.index)
        self.keys: IdempotencyKeys = IdempotencyKeys(objects)
        #: What attempts of this process have reached since it was written.
        self.live_progress: LiveProgress = LiveProgress()
        #: The attempts that write through this store, which hear of its `update`.
        self.local_attempts: LocalAttempts = LocalAttempts()
        #: What handlers print, where their workers keep it.
        self.logs: LogPieces = LogPieces(objects, self.shard_of)
        self.shards: list[str] = model.shards(shard_prefix_len)
        self._prefix_len = shard_prefix_len
        self._tag_finished = tag_finished
        self._may_tag = Permission(objects.clock.monotonic, _UNTAGGED, lasting_seconds=0.0)
        #: Called for each event, in whichever thread it happens; must neither block nor raise.
        self.listeners: tuple[Listener, ...] = ()

    def emit(self, event: str, task_type: str, seconds: float = 0.0) -> None:
        """Call the listeners with an event; costs nothing to speak of when there are none."""
        for listener in self.listeners:
            listener(event, task_type, seconds)

    @property
    def clock(self) -> Clock:
        """The store's time."""
        return self.objects.clock

    def key_of(self, task_id: str) -> str:
        """Return the key of a task."""
        return model.task_key(task_id, self.shard_of(task_id))

    def shard_of(self, task_id: str) -> str:
        """Return the shard of a task."""
        return model.shard_of(task_id, self._prefix_len)

    # --- reading

    def read(self, task_id: str) -> VersionedTask | None:
        """Return the task, or None. Requests: 1 GET; 1 GET more for an object that is not a task.

        Raises:
            RecordError: the object under its key is not a task.
        """
        key = self.key_of(task_id)
        found = self._read(key, lambda: self.objects.get(key))
        return None if found is None or isinstance(found, NotModified) else found

    def read_again(self, held: VersionedTask) -> VersionedTask | None:
        """Return the task as it is now, the same object when it has not changed. Requests: 1 GET, If-None-Match."""
        key = held.record.key
        found = self._read(key, lambda: self.objects.get_if_changed(key, held.etag))
        return held if isinstance(found, NotModified) else found

    def _read(self, key: str, get: Callable[[], _Found]) -> VersionedTask | NotModified | None:
        found = get()
        if isinstance(found, StoredObject):
            try:
                return _versioned(found, key)
            except RecordError:  # once may be an answer that was damaged on its way
                found = get()
        return _versioned(found, key) if isinstance(found, StoredObject) else found

    def is_listed(self, task_id: str) -> bool:
        """Return whether a listing shows the task: a second opinion on a read that found none. Requests: 1 LIST."""
        key = self.key_of(task_id)
        return any(entry.key == key for entry in self.objects.entries(key, page_size=1))

    def read_surely(self, task_id: str) -> VersionedTask | None:
        """Return the task, or None when a listing does not show it either.

        A task that is listed but not read was written in between, or the answer was late: it is read again.

        Raises:
            RecordError: the object under its key is not a task.
            StorageUnavailableError: it stays listed, and no read finds it.

        Requests: 1 GET; for a task that is not found 1 LIST, and both again for one that is listed.
        """
        for _ in _LATE.tries(time.sleep, most=_LATE_TRIES):
            held = self.read(task_id)
            if held is not None or not self.is_listed(task_id):
                return held
        raise StorageUnavailableError(
            f"task {task_id} is listed, but reading it finds nothing: try later", key=self.key_of(task_id)
        )

    def was_removed(self, task_id: str) -> bool:
        """Return whether a task that was not found was there before, as far as versions tell. Requests: 1 LIST.

        One that is there by now was not removed.
        """
        key = self.key_of(task_id)
        if not self.objects.is_versioned:
            return False
        found = [entry for entry in self.objects.versions(key) if entry.key == key]
        return bool(found) and not any(entry.is_latest and not entry.is_delete_marker for entry in found)

    def read_many(self, task_ids: Sequence[str]) -> Iterator[VersionedTask]:
        """Yield the tasks that exist, in order; invalid objects are logged and skipped. Requests: 1 GET each."""
        for held in self._in_parallel(self._read_or_none, task_ids):
            if held is not None:
                yield held

    def _read_or_none(self, task_id: str) -> VersionedTask | None:
        try:
            return self.read(task_id)
        except RecordError as exc:
            logger.warning("skipped: %s", exc)
            return None

    def _in_parallel(self, function: Callable[[T], R], arguments: Sequence[T]) -> Iterator[R]:
        if len(arguments) < 2:
            yield from map(function, arguments)
            return
        with ThreadPoolExecutor(min(_READERS, len(arguments)), thread_name_prefix="oq-read") as pool:
            for start in range(0, len(arguments), _READERS * 4):
                yield from pool.map(function, arguments[start : start + _READERS * 4])

    def task_ids_newest_first(self, shards: Sequence[str] | None = None, *, since: datetime | None = None) -> list[str]:
        """Return the ids of tasks, the one that changed last first. Requests: 1 LIST per 1,000 tasks.

        Args:
            shards: only in these; None for all.
            since: leave out those that last changed well before; None for none.
        """
        prefixes = [model.TASKS] if shards is None else [f"{model.TASKS}{shard}/" for shard in shards]
        found = [entry for prefix in prefixes for entry in self.objects.entries(prefix)]
        if since is not None:  # the store's time of a write and the task's own may differ a little
            found = [entry for entry in found if entry.last_modified >= since - SETTLED]
        found.sort(key=lambda entry: entry.last_modified, reverse=True)
        names = (entry.key.rsplit("/", 1)[1] for entry in found if entry.key.endswith(".json"))
        return [name.removesuffix(".json") for name in names]

    def ids_beginning_with(self, beginning: str, limit: int) -> list[str]:
        """Return the ids of tasks that begin so, in order, ``limit`` at most. Requests: 1 LIST."""
        shard = self.shard_of(beginning)
        is_whole = len(shard) == self._prefix_len
        under = f"{model.TASKS}{shard}/{beginning}" if is_whole else f"{model.TASKS}{beginning}"
        entries = islice(self.objects.entries(under, page_size=limit), limit)
        return [entry.key.rsplit("/", 1)[1].removesuffix(".json") for entry in entries]

    def history(self, task_id: str, *, limit: int | None = None) -> list[TaskRecord]:
        """Return the versions of a task, oldest first.

        Args:
            task_id: the task.
            limit: the newest so many; None for all.

        Requests: 1 LIST per 1,000 versions, 1 GET each; 1 GET where the bucket keeps no versions: there is only one.
        """
        key = self.key_of(task_id)
        if not self.objects.is_versioned:
            only = self.objects.get(key)
            return [] if only is None else [TaskRecord.from_bytes(only.body, key=key)]
        versions = (e for e in self.objects.versions(key) if e.key == key and not e.is_delete_marker)
        ids = [entry.version_id for entry in islice(versions, limit)]
        bodies = self._in_parallel(lambda version_id: self.objects.get(key, version_id=version_id), ids)
        records: list[TaskRecord] = []
        for found in (found for found in bodies if found is not None):
            try:
                records.append(TaskRecord.from_bytes(found.body, key=key))
            except RecordError as exc:
                logger.warning("a version was skipped: %s", exc)
        return records[::-1]

    # --- writing

    def create(self, record: TaskRecord) -> VersionedTask:
        """Write a new task, pending or running, its index entry first; writing the same record again is no conflict.

        Raises:
            ConflictError: another task stands there.
            StorageUnavailableError: the store did not take it.

        Requests: 2 PUT.
        """
        is_pending = record.status is TaskStatus.PENDING
        fresh = self.index.fresh_entry(model.ready_key(record) if is_pending else model.lease_key(record))
        try:
            return self._put(record, None, (record.to_bytes(),), fresh)
        except ConflictError as exc:
            if exc.current is not None:
                raise
            # Nothing stands there that could have refused it: the store was too busy to look at the condition.
            message = f"task {record.id} was not written ({exc}): try later"
            raise StorageUnavailableError(message, key=record.key) from exc

    def move(self, held: VersionedTask, record: TaskRecord, *, doubted: Sequence[bytes] = ()) -> VersionedTask:
        """Write a changed task over the one that was last seen; its ready entry first when it becomes pending.

        The entry of the state that it leaves stays: the caller removes it.

        Args:
            held: the task as last seen.
            record: the changed task.
            doubted: bodies of earlier writes whose answers were lost: finding one of them is no conflict.

        Returns:
            The task as it now is, which is ``record`` unless someone changed it since a write that was in doubt.

        Raises:
            ConflictError: someone else changed the task.

        Requests: 1 PUT, If-Match; 1 PUT more for a ready entry.
        """
        if record.status is TaskStatus.PENDING:
            fresh = self.index.fresh_entry(model.ready_key(record))
            return self._put(record, held, doubted, fresh)
        return self._put(record, held, doubted)

    def update(self, task_id: str, transition: Transition, *, held: VersionedTask | None = None) -> VersionedTask:
        """Change a task that others may change too: read, decide, write, and again after a conflict.

        An attempt that writes through this store hears of it at once.

        Args:
            task_id: the task.
            transition: what to change; it may refuse, and returning its record unchanged writes nothing.
            held: the task as last seen, to spare the first read.

        Raises:
            TaskNotFoundError: there is no such task.
            ConflictError: others changed the task twelve times in a row.

        Requests: 1 GET, 1 PUT; more after a conflict; entries as `move` says; 1 PUT more for the entry of an unhappy
        end, 1 LIST and 1 DELETE more when a task leaves such a state.
        """
        for _ in _CONFLICTS.tries(time.sleep, most=_CONFLICT_TRIES):
            if held is None:
                held = self.read(task_id)
            if held is None:
                raise TaskNotFoundError(f"there is no task {task_id} in this bucket", task_id=task_id)
            changed = transition(held.record, self.clock.stamp())
            if changed is held.record:
                return held
            left = self._entries_left(held.record, changed)
            try:
                made = self.move(held, changed)
            except ConflictError as exc:
                held = exc.current
                continue
            for entry in left:
                self.index.remove(entry)
            if made.record.status is not held.record.status:
                self.ended.add(made.record)
            self.local_attempts.tell(made)
            return made
        raise ConflictError(f"task {task_id} was changed by others twelve times in a row: try again", key=task_id)

    def _entries_left(self, before: TaskRecord, after: TaskRecord) -> list[IndexEntry]:
        """Return the entries of the state that a change leaves, in the index or under ``ended/``.

        They are looked up before the change: what is written under the same key after it belongs to a later state.
        """
        if before.status is TaskStatus.PENDING and after.status is not TaskStatus.PENDING:
            return self.index.find(model.ready_key(before))
        return self.ended.find(before) if before.status is not after.status else []

    def _put(
        self,
        record: TaskRecord,
        over: VersionedTask | None,
        doubted: Sequence[bytes] = (),
        fresh: FreshEntry | None = None,
    ) -> VersionedTask:
        body = record.to_bytes()
        try:
            result = self._send(record, body, over, None if fresh is None else fresh.keep)
        except ConflictError as exc:
            current, is_ours = self._find_own_write(record, over, {body, *doubted})
            if current is not None and is_ours:
                return current
            exc.current = current
            if fresh is not None:
                # They stay for now: another's pending task may rest on them. Rule 1 removes them when they are old.
                exc.entries = tuple(fresh.entries)
            self.emit("conflict", record.task_type)
            raise
        if fresh is not None:
            fresh.keep()  # nothing, unless the process stood still while it sent the task
        return VersionedTask(record, result.etag, result.version_id)

    def _send(
        self, record: TaskRecord, body: bytes, over: VersionedTask | None, keep_entry: Callable[[], object] | None
    ) -> PutResult:
        """Write the object, tagged when the task has ended; untagged where the store or the policy refuses tags."""
        put = partial(
            self.objects.put,
            record.key,
            body,
            if_match=over.etag if over else None,
            create=over is None,
            before_try=keep_entry,
        )
        if not (self._tag_finished and record.status.is_terminal) or self._may_tag.is_denied:
            return put()
        try:
            made = put(tags=FINISHED_TAG)
            self._may_tag.granted()
            return made
        except (ConflictError, StorageUnavailableError, StorageConfigurationError):
            raise
        except StorageError as exc:
            if isinstance(exc, StorageDeniedError) and exc.code != "AccessDenied":
                raise  # it is not the tag that was refused
            refusal = exc
        made = put()
        self._may_tag.refused(refusal)
        return made

    def _find_own_write(
        self, mine: TaskRecord, over: VersionedTask | None, bodies: set[bytes]
    ) -> tuple[VersionedTask | None, bool]:
        """After a refused write: return the task as it is now, and whether one of ``bodies`` was written.

        Requests: 1 GET; 1 LIST more where the present state may come after ours, and 1 GET for each version since
        ``over`` that has the size of one of ``bodies``.
        """
        current = self._read(mine.key, lambda: self.objects.get(mine.key))
        if not isinstance(current, VersionedTask):
            return None, False
        if current.record.to_bytes() in bodies:
            return current, True
        if current.record.status is mine.status is TaskStatus.RUNNING and current.record.attempt == mine.attempt:
            # Within an attempt the lease stays the same. With ours on it, a claim was applied; any other change of its
            # owner is made again on the present state. With another one, somebody else has claimed the task.
            is_claim = over is None or over.record.lease_id != mine.lease_id
            return current, is_claim and current.record.lease_id == mine.lease_id
        if self.objects.is_versioned:
            sizes = {len(body) for body in bodies}
            for entry in islice(self.objects.versions(mine.key), _HISTORY_LOOKBACK):
                if over is not None and entry.version_id == over.version_id:
                    break
                if entry.key == mine.key and entry.size in sizes and not entry.is_delete_marker:
                    older = self.objects.get(mine.key, version_id=entry.version_id)
                    if older is not None and older.body in bodies:
                        return current, True
        return current, False
