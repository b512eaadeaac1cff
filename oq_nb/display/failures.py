"""`group_failures`: failed tasks by what went wrong, so that 14 times the same error is one line. Pure.

Imports of the package: `model`, `text`, `view`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from oq_nb.display.view import last_line
from oq_nb.model import TaskRecord

__all__ = ["FailureGroup", "group_failures"]

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
        groups.setdefault(_PARTICULAR.sub("#", _error(record)), []).append(record)
    made = [FailureGroup(_error(found[0]), tuple(found)) for found in groups.values()]
    return sorted(made, key=lambda group: len(group.records), reverse=True)


def _error(record: TaskRecord) -> str:
    return last_line(record.last_error or "") or _NO_ERROR
