"""Count the objects and versions of a queue, and what storing them costs. Only reads.

Imports nothing of the package but `model` and `store`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from oq_nb import model
from oq_nb.store import TaskStore

__all__ = ["PRICE_PER_GB_MONTH", "Amount", "Survey", "survey"]

#: US dollars: list price of S3 Standard, us-east-1, first 50 TB, November 2026. Old versions cost what objects cost.
PRICE_PER_GB_MONTH = 0.023

_GB = 1e9
_FOLDERS = (
    model.TASKS,
    model.PAYLOADS,
    model.LOGS,
    model.READY,
    model.LEASES,
    model.ENDED,
    model.WORKERS,
    model.IDEMPOTENCY,
    "hints/",
)


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

    #: Newest versions, by folder, such as ``tasks``, ``payloads``, ``logs``, ``ready``, ``leases``, ``ended``.
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
    for folder in _FOLDERS:
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
