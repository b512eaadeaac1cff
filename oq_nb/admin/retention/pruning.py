"""`prune`: remove finished tasks with their versions, payloads and logs.

Invariants:

* Only versions that were listed are removed, a task's newest one last, and none of a task with a version younger than
  a minute: a task that somebody replays meanwhile keeps its new version and runs.
* Payloads, logs, and the entry of an unhappy end, go after their task, never before it.

Imports nothing of the package but `errors`, `model`, `s3` and `store`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from oq_nb import model
from oq_nb.errors import ConfigurationError
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.s3 import SETTLED, Entry, ObjectStore
from oq_nb.store import TaskStore, VersionedTask

__all__ = ["FINISHED", "Pruned", "prune"]

#: The statuses that a task can be pruned in.
FINISHED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.EXPIRED, TaskStatus.ARCHIVED)

_WORKERS = 16
_ORPHANED_FOR = timedelta(days=1)


@dataclass(frozen=True)
class Pruned:
    """A finished task that was removed, or would be; status ``removed``: what is left of one that was gone already."""

    task_id: str
    task_type: str
    status: str
    ended_at: datetime
    versions: int
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return asdict(self) | {"ended_at": str(self.ended_at)}


def prune(
    store: TaskStore,
    *,
    older_than: timedelta,
    statuses: Iterable[TaskStatus] | None = None,
    dry_run: bool = False,
    limit: int | None = None,
    told: Callable[[Pruned], object] | None = None,
) -> list[Pruned]:
    """Remove finished tasks, with all their versions, payloads and logs. It cannot be undone.

    A task that changed within the last minute is left to the next time. Unless ``statuses`` are named, payloads and
    logs go too that a task left behind which is no more, as a lifecycle rule does, and idempotency keys that are no
    longer valid.

    Args:
        store: the tasks.
        older_than: only those that ended at least so long ago.
        statuses: only these, of the final ones; None for all.
        dry_run: only say what would be removed.
        limit: so many at most.
        told: called with each task.

    Raises:
        ConfigurationError: a status that is not final.
        StorageError: the store did not answer; what was told of is removed.

    Requests: 1 LIST per 1,000 tasks, payloads, pieces of logs, entries of unhappy ends and idempotency keys; for each
    task that is old enough 1 GET, 3 LIST and 1 DELETE a version or piece, and 1 LIST and 1 DELETE for such an entry;
    for each key that is 30 days old 1 GET, 1 LIST and 1 DELETE a version.
    """
    wanted = frozenset(FINISHED if statuses is None else statuses)
    if not wanted <= frozenset(FINISHED):
        raise ConfigurationError("statuses: only tasks that have ended can be pruned: " + ", ".join(FINISHED))
    limit_at = store.clock.earliest() - older_than
    changed_at = {
        entry.key.rsplit("/", 1)[1].removesuffix(".json"): entry.last_modified
        for entry in store.objects.entries(model.TASKS)
        if entry.key.endswith(".json")
    }
    ids = [task_id for task_id, at in changed_at.items() if at <= limit_at]
    removed: list[Pruned] = []

    def note(made: Pruned) -> None:
        removed.append(made)
        if told is not None:
            told(made)

    seen: dict[str, TaskRecord | None] = {}
    for held in store.read_many(ids):
        record = held.record
        seen[record.id] = record
        if limit is not None and len(removed) >= limit:
            break
        if record.status not in wanted or record.updated_at > limit_at:
            continue
        lines = _versions(store.objects, record.key)
        more = _beside(store, record.id)
        if not dry_run and not _remove(store, held, lines, more):
            continue
        seen[record.id] = None
        size = sum(line.size for line in (*lines, *more))
        note(Pruned(record.id, record.task_type, record.status.value, record.updated_at, len(lines), size))
    if statuses is None:
        before = min(limit_at, store.clock.earliest() - _ORPHANED_FOR)
        for made in _orphans(store, set(changed_at), before):
            if limit is not None and len(removed) >= limit:
                break
            if not dry_run:
                _delete_all(store.objects, _beside(store, made.task_id))
            note(made)
        if not dry_run:
            _remove_stale_entries(store, set(changed_at), seen)
            store.keys.remove_expired()
    return removed


def _remove_stale_entries(store: TaskStore, known: set[str], seen: dict[str, TaskRecord | None]) -> None:
    """Remove the entries of unhappy ends that lead nowhere, or to a task that another program has changed since.

    Args:
        store: the tasks.
        known: ids of the tasks that are in the bucket.
        seen: the tasks that were read; None for those that were removed.
    """
    young = store.clock.earliest() - SETTLED
    for entry in store.ended.listed():
        record = seen.get(entry.task_id)
        is_right = record is not None and record.status is entry.status and model.ended_key(record) == entry.key
        is_unknown = entry.task_id in known and entry.task_id not in seen
        if not is_right and not is_unknown and entry.written_at <= young:
            store.ended.remove(store.index.find(entry.key))


def _orphans(store: TaskStore, known: set[str], before: datetime) -> Iterator[Pruned]:
    """Yield what is left of tasks that are no more, unless it is young: payloads are written before their task."""
    left: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.objects.entries(model.PAYLOADS):
        left[entry.key.split("/")[1]].append(entry)
    for entry in store.objects.entries(model.LOGS):
        if (parsed := model.parse_log_key(entry.key)) is not None and parsed[0] not in known:
            left[parsed[0]].append(entry)
    for name, entries in left.items():
        changed_at = max(entry.last_modified for entry in entries)
        if name in known or changed_at > before:
            continue
        try:
            task_id = model.check_task_id(name)
        except ConfigurationError:  # not of a task: not ours to remove
            continue
        if store.objects.get(store.key_of(task_id)) is None:
            yield Pruned(task_id, "", "removed", changed_at, len(entries), sum(entry.size for entry in entries))


def _beside(store: TaskStore, task_id: str) -> list[Entry]:
    """Return the payloads of a task, and the pieces of its logs."""
    prefixes = (f"{model.PAYLOADS}{task_id}/", store.logs.prefix(task_id))
    return [line for prefix in prefixes for line in _versions(store.objects, prefix)]


def _versions(objects: ObjectStore, prefix: str) -> list[Entry]:
    lines = objects.versions(prefix) if objects.is_versioned else objects.entries(prefix)
    return [line for line in lines if prefix.endswith("/") or line.key == prefix]


def _remove(store: TaskStore, held: VersionedTask, lines: list[Entry], more: list[Entry]) -> bool:
    """Remove the versions that were listed, then what stands beside the task; return whether the task is gone."""
    latest = next((line for line in lines if line.is_latest), None)
    if latest is None or latest.etag != held.etag:
        return False  # it has changed since it was read
    settled = store.clock.earliest() - SETTLED
    if any(line.last_modified > settled for line in lines):
        return False  # what is listed as an old version may be a replay that is being written
    _delete_all(store.objects, [line for line in lines if line is not latest])
    store.objects.delete(latest.key, version_id=latest.version_id)
    if store.objects.get(latest.key) is not None:
        return False  # replayed in this very moment: it runs, and needs its payloads
    _delete_all(store.objects, more)
    store.ended.remove(store.ended.find(held.record))
    return True


def _delete_all(objects: ObjectStore, lines: list[Entry]) -> None:
    if not lines:
        return
    with ThreadPoolExecutor(min(_WORKERS, len(lines)), thread_name_prefix="oq-prune") as pool:
        list(pool.map(lambda line: objects.delete(line.key, version_id=line.version_id), lines))
