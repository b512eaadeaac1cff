"""What old versions and finished tasks cost in a bucket, and how they go: lifecycle rules, and `prune`.

One rule removes old *versions* after some days, another *finished tasks*: the store does it by itself. A rule cannot
look into a task, but at tags: it finds those that ended in a process of ``connect(tag_finished=True)``. `prune` finds
all.

Invariants:

* `survey` only looks. Rules are found by their ids: others' rules stay as they are.
* A task that is replayed is written anew, without the tag: a rule never removes what may still run.
* `prune` removes only the versions that it has listed, a task's newest one last, and none of a task with a version
  younger than a minute: a task that somebody replays meanwhile keeps its new version and runs.

Imports nothing of the package but `errors`, `model`, `s3` and `store`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from oq_nb import model
from oq_nb.errors import ConfigurationError, StorageDeniedError, StorageError
from oq_nb.model import TaskStatus
from oq_nb.s3 import SETTLED, Entry, ObjectStore
from oq_nb.store import FINISHED_TAG, TaskStore, VersionedTask

__all__ = [
    "FINISHED",
    "PRICE_PER_GB_MONTH",
    "Amount",
    "Pruned",
    "Survey",
    "prune",
    "read_finished_rule",
    "read_rule",
    "remove_rule",
    "set_finished_rule",
    "set_rule",
    "survey",
]

#: US dollars: list price of S3 Standard, us-east-1, first 50 TB, November 2026. Old versions cost what objects cost.
PRICE_PER_GB_MONTH = 0.023

_GB = 1e9
_WORKERS = 16
_ORPHANED_FOR = timedelta(days=1)
#: The statuses that a task can be pruned in.
FINISHED = (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.EXPIRED, TaskStatus.ARCHIVED)


class HasLifecycle(ObjectStore, Protocol):
    """An `ObjectStore` whose bucket has lifecycle rules."""

    prefix: str

    def read_tags(self, key: str) -> dict[str, str]:
        """Return the tags of an object. Requests: 1 GET."""

    def read_lifecycle(self) -> list[dict[str, Any]]:
        """Return the bucket's rules. Requests: 1 GET."""

    def write_lifecycle(self, rules: list[dict[str, Any]]) -> None:
        """Replace the bucket's rules. Requests: 1 PUT, or 1 DELETE for none."""


@dataclass
class Amount:
    """So many objects (or versions) with so many bytes."""

    count: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        """Count one more."""
        self.count += 1
        self.size_bytes += size_bytes

    def price(self, per_gb_month: float = PRICE_PER_GB_MONTH) -> float:
        """Return what storing it costs, US dollars a month."""
        return self.size_bytes / _GB * per_gb_month

    def to_dict(self) -> dict[str, int]:
        """Return it as JSON has it."""
        return {"count": self.count, "size_bytes": self.size_bytes}


@dataclass
class Survey:
    """What lies in a queue's part of a bucket."""

    #: Newest versions, by folder: ``tasks``, ``payloads``, ``ready``, ``leases``, ``workers``, ``idempotency``.
    current: dict[str, Amount] = field(default_factory=lambda: defaultdict(Amount))
    #: Versions that have been replaced or removed, by folder.
    old: dict[str, Amount] = field(default_factory=lambda: defaultdict(Amount))
    #: Tasks by status, with all their versions; ``unread`` above the limit.
    tasks: dict[str, Amount] = field(default_factory=lambda: defaultdict(Amount))
    delete_markers: int = 0

    def total(self, which: str) -> Amount:
        """Return the sum of ``current`` or ``old``."""
        parts: dict[str, Amount] = getattr(self, which)
        return Amount(sum(a.count for a in parts.values()), sum(a.size_bytes for a in parts.values()))

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        made: dict[str, Any] = {
            name: {key: amount.to_dict() for key, amount in sorted(getattr(self, name).items())}
            for name in ("current", "old", "tasks")
        }
        return made | {"delete_markers": self.delete_markers}


def survey(store: TaskStore, *, read_limit: int = 1000) -> Survey:
    """Count objects and versions.

    Args:
        store: the queue's tasks.
        read_limit: so many tasks are read for their status, the ones that changed last.

    Requests: 1 LIST per 1,000 versions; 1 GET for each task that is read.
    """
    made = Survey()
    tasks: dict[str, Amount] = defaultdict(Amount)
    changed_at: dict[str, datetime] = {}
    for folder in (model.TASKS, model.PAYLOADS, model.READY, model.LEASES, model.WORKERS, model.IDEMPOTENCY):
        name = folder.rstrip("/")
        lines = store.objects.versions(folder) if store.objects.is_versioned else store.objects.entries(folder)
        for line in lines:
            if line.is_delete_marker:
                made.delete_markers += 1
                continue
            (made.current if line.is_latest else made.old)[name].add(line.size)
            if folder == model.TASKS and line.key.endswith(".json"):
                task_id = line.key.rsplit("/", 1)[1].removesuffix(".json")
                tasks[task_id].add(line.size)
                if line.is_latest:
                    changed_at[task_id] = line.last_modified
    newest = sorted(changed_at, key=lambda task_id: changed_at[task_id], reverse=True)
    read = {held.record.id: held.record.status.value for held in store.read_many(newest[:read_limit])}
    for task_id, amount in tasks.items():
        total = made.tasks[read.get(task_id, "removed" if task_id not in changed_at else "unread")]
        total.count += 1
        total.size_bytes += amount.size_bytes
    return made


# --- the lifecycle rules

_OLD_VERSIONS, _FINISHED_TASKS = "oq-old-versions", "oq-finished-tasks"


def rule_id(which: str, prefix: str) -> str:
    """Return the id of a rule of a queue."""
    return f"{which}:{prefix or '*'}"


def read_rule(objects: HasLifecycle) -> dict[str, Any] | None:
    """Return the queue's rule for old versions, or None. Requests: 1 GET."""
    return _find(_rules(objects), rule_id(_OLD_VERSIONS, objects.prefix))


def read_finished_rule(objects: HasLifecycle) -> dict[str, Any] | None:
    """Return the queue's rule for finished tasks, or None. Requests: 1 GET."""
    return _find(_rules(objects), rule_id(_FINISHED_TASKS, objects.prefix))


def _find(rules: list[dict[str, Any]], wanted: str) -> dict[str, Any] | None:
    return next((rule for rule in rules if rule.get("ID") == wanted), None)


def set_rule(objects: HasLifecycle, *, days: int, keep: int | None = None) -> dict[str, Any]:
    """Have the store remove old versions by itself; other rules of the bucket stay.

    Args:
        objects: the bucket.
        days: how long a version is kept after it was replaced, from 1.
        keep: keep the newest so many old versions of each object even then, 1 to 100; not every store knows this.

    Returns:
        The rule as the store has it.

    Raises:
        ConfigurationError: the store did not take the rule, or not as it was given.

    Requests: 2 GET, 1 PUT.
    """
    _check_days(days)
    if keep is not None and not 1 <= keep <= 100:
        raise ConfigurationError(f"keep: a whole number from 1 to 100 is needed, not {keep!r}")
    expiration: dict[str, int] = {"NoncurrentDays": days}
    if keep is not None:
        expiration["NewerNoncurrentVersions"] = keep
    rule: dict[str, Any] = {
        "ID": rule_id(_OLD_VERSIONS, objects.prefix),
        "Status": "Enabled",
        "Filter": {"Prefix": objects.prefix},
        "NoncurrentVersionExpiration": expiration,
        "Expiration": {"ExpiredObjectDeleteMarker": True},
    }
    return _replace(objects, _rules(objects), rule)


def set_finished_rule(objects: HasLifecycle, *, days: int) -> dict[str, Any]:
    """Have the store remove finished tasks by itself: those that carry the tag of ``connect(tag_finished=True)``.

    Their payloads, objects of their own above 64 KiB, are left to `prune`; their versions to the rule of `set_rule`.

    Args:
        objects: the bucket.
        days: how long a task is kept after it has ended, from 1.

    Returns:
        The rule as the store has it.

    Raises:
        ConfigurationError: the store keeps no tags, or did not take the rule.

    Requests: 3 GET, 2 PUT, 1 DELETE.
    """
    _check_days(days)
    rules = _rules(objects)
    _prove_tags(objects)
    ((tag, value),) = FINISHED_TAG.items()
    rule: dict[str, Any] = {
        "ID": rule_id(_FINISHED_TASKS, objects.prefix),
        "Status": "Enabled",
        "Filter": {"And": {"Prefix": objects.prefix + model.TASKS, "Tags": [{"Key": tag, "Value": value}]}},
        "Expiration": {"Days": days},
    }
    return _replace(objects, rules, rule)


def _check_days(days: int) -> None:
    if not 1 <= days <= 36500:
        raise ConfigurationError(f"days: a whole number from 1 to 36,500 is needed, not {days!r}")


def _prove_tags(objects: HasLifecycle) -> None:
    key = f"oq-doctor-tags-{model.new_id()}"
    try:
        written = objects.put(key, b"", create=True, tags=FINISHED_TAG)
        found = objects.read_tags(key)
        objects.delete(key, version_id=written.version_id)
    except StorageDeniedError:
        raise
    except StorageError as exc:
        raise ConfigurationError(f"lifecycle: this store keeps no tags, prune removes finished tasks ({exc})") from exc
    if found != FINISHED_TAG:
        raise ConfigurationError("lifecycle: this store drops tags, prune removes finished tasks")


def _replace(objects: HasLifecycle, rules: list[dict[str, Any]], rule: dict[str, Any]) -> dict[str, Any]:
    """Write one rule beside the others, and see that the store has it as it was given."""
    others = [other for other in rules if other.get("ID") != rule["ID"]]
    _write(objects, [*others, rule])
    kept = _find(_rules(objects), rule["ID"])
    if kept is not None and all(_says(kept.get(part), rule[part]) for part in rule):
        return kept
    if kept is not None:
        _write(objects, others)  # half a rule might remove more than it should
    raise ConfigurationError("lifecycle: the store answered that it took the rule, but does not show it: prune instead")


def _says(kept: Any, given: Any) -> bool:
    """Return whether a part of a rule says all that was given; stores add to it."""
    if isinstance(given, dict):
        return isinstance(kept, dict) and all(_says(kept.get(name), value) for name, value in given.items())
    return bool(kept == given)


def remove_rule(objects: HasLifecycle) -> bool:
    """Remove the queue's rules; return whether there was one. Requests: 1 GET, and 1 PUT or DELETE."""
    rules = _rules(objects)
    ours = [rule_id(which, objects.prefix) for which in (_OLD_VERSIONS, _FINISHED_TASKS)]
    others = [rule for rule in rules if rule.get("ID") not in ours]
    if len(others) < len(rules):
        _write(objects, others)
    return len(others) < len(rules)


def _rules(objects: HasLifecycle) -> list[dict[str, Any]]:
    if not hasattr(objects, "read_lifecycle"):
        raise ConfigurationError("lifecycle: this store has no lifecycle rules: prune removes finished tasks")
    try:
        return objects.read_lifecycle()
    except StorageDeniedError:
        raise
    except StorageError as exc:
        raise ConfigurationError(
            f"lifecycle: this store has no such rules, prune removes finished tasks ({exc})"
        ) from exc


def _write(objects: HasLifecycle, rules: list[dict[str, Any]]) -> None:
    try:
        objects.write_lifecycle(rules)
    except StorageDeniedError:
        raise
    except StorageError as exc:
        raise ConfigurationError(f"lifecycle: the store did not take the rule ({exc})") from exc


# --- finished tasks


@dataclass(frozen=True)
class Pruned:
    """A finished task that was removed, or would be; status ``removed``: payloads of one that was gone already."""

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
    """Remove finished tasks, with all their versions and payloads. It cannot be undone.

    A task that changed within the last minute is left to the next time. Unless ``statuses`` are named, payloads go too
    that a task left behind which is no more, as a lifecycle rule does.

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

    Requests: 1 LIST per 1,000 tasks and per 1,000 payloads; for each task that is old enough 1 GET, 2 LIST and 1 DELETE
    a version.
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

    for held in store.read_many(ids):
        record = held.record
        if limit is not None and len(removed) >= limit:
            break
        if record.status not in wanted or record.updated_at > limit_at:
            continue
        lines = _versions(store.objects, record.key)
        payloads = _versions(store.objects, f"{model.PAYLOADS}{record.id}/")
        if not dry_run and not _remove(store, held, lines, payloads):
            continue
        size = sum(line.size for line in (*lines, *payloads))
        note(Pruned(record.id, record.task_type, record.status.value, record.updated_at, len(lines), size))
    if statuses is None:
        before = min(limit_at, store.clock.earliest() - _ORPHANED_FOR)
        for made in _orphans(store, set(changed_at), before):
            if limit is not None and len(removed) >= limit:
                break
            if not dry_run:
                _delete_all(store.objects, _versions(store.objects, f"{model.PAYLOADS}{made.task_id}/"))
            note(made)
    return removed


def _orphans(store: TaskStore, known: set[str], before: datetime) -> Iterator[Pruned]:
    """Yield what is left of tasks that are no more, unless it is young: payloads are written before their task."""
    payloads: dict[str, list[Entry]] = defaultdict(list)
    for entry in store.objects.entries(model.PAYLOADS):
        payloads[entry.key.split("/")[1]].append(entry)
    for name, entries in payloads.items():
        changed_at = max(entry.last_modified for entry in entries)
        if name in known or changed_at > before:
            continue
        try:
            task_id = model.check_task_id(name)
        except ConfigurationError:  # not of a task: not ours to remove
            continue
        if store.objects.get(store.key_of(task_id)) is None:
            yield Pruned(task_id, "", "removed", changed_at, len(entries), sum(entry.size for entry in entries))


def _versions(objects: ObjectStore, prefix: str) -> list[Entry]:
    lines = objects.versions(prefix) if objects.is_versioned else objects.entries(prefix)
    return [line for line in lines if prefix.endswith("/") or line.key == prefix]


def _remove(store: TaskStore, held: VersionedTask, lines: list[Entry], payloads: list[Entry]) -> bool:
    """Remove the versions that were listed, then the payloads; return whether the task is gone."""
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
    _delete_all(store.objects, payloads)
    return True


def _delete_all(objects: ObjectStore, lines: list[Entry]) -> None:
    if not lines:
        return
    with ThreadPoolExecutor(min(_WORKERS, len(lines)), thread_name_prefix="oq-prune") as pool:
        list(pool.map(lambda line: objects.delete(line.key, version_id=line.version_id), lines))
