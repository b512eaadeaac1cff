"""`group_failures`: failed tasks by what went wrong, so that 14 times the same error is one line. Pure.

Imports of the package: `model`, `text`, `view`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from oq_nb.display.view import last_line
from oq_nb.model import TaskRecord, Timestamp

__all__ = ["FailureGroup", "error_key", "group_failures"]

_NO_ERROR = "no error was stored"
#: What differs between failures of one kind: ids, addresses and numbers.
_PARTICULAR = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|0x[0-9a-f]+|\d+", re.IGNORECASE)


@dataclass(frozen=True)
class FailureGroup:
    """Tasks that failed in the same way."""

    #: What the newest of them says, such as ``ValueError: bad image 17``: text from a bucket, as it is.
    error: str
    #: The tasks, the one that ended last first.
    records: tuple[TaskRecord, ...]

    @classmethod
    def of(cls, records: Sequence[TaskRecord]) -> FailureGroup:
        """Return a group of failed tasks, one at least; the one that ended last comes first."""
        return cls(_error(records[0]), tuple(records))

    @property
    def key(self) -> str:
        """What the group is called in an address: the same as long as its error is."""
        return error_key(self.records[0])

    @property
    def until(self) -> Timestamp:
        """When the newest of them ended: what has failed since was not part of the group when it was shown."""
        return max(_end(record) for record in self.records)

    def ended_by(self, until: datetime) -> tuple[TaskRecord, ...]:
        """Return those of its tasks that had ended by an instant."""
        return tuple(record for record in self.records if _end(record) <= until)

    @property
    def task_types(self) -> list[str]:
        """The types of its tasks, each once."""
        return sorted({record.task_type for record in self.records})


def group_failures(records: Iterable[TaskRecord]) -> list[FailureGroup]:
    """Return failed tasks by their errors, the largest group first; numbers and ids in a message make no difference.

    Args:
        records: tasks, the one that ended last first.
    """
    groups: dict[str, list[TaskRecord]] = {}
    for record in records:
        groups.setdefault(_kind(record), []).append(record)
    made = [FailureGroup.of(found) for found in groups.values()]
    return sorted(made, key=lambda group: len(group.records), reverse=True)


def error_key(record: TaskRecord) -> str:
    """Return what the group of a failed task is called in an address."""
    return hashlib.sha256(_kind(record).encode("utf-8", "replace")).hexdigest()[:16]


def _kind(record: TaskRecord) -> str:
    return _PARTICULAR.sub("#", _error(record))


def _end(record: TaskRecord) -> Timestamp:
    return record.ended_at or record.updated_at


def _error(record: TaskRecord) -> str:
    return last_line(record.last_error or "") or _NO_ERROR
