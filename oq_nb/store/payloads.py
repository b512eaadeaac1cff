"""Inputs and outputs of tasks: small ones stand in the task object, large ones in an object of their own.

Invariant: an attempt writes its output under a key of its own, so that an attempt that has lost its lease cannot change
what another one has completed.

Imports nothing of the package but `errors`, `model` and `s3`.
"""

from __future__ import annotations

import json
from typing import Any

from oq_nb import model
from oq_nb.errors import RecordError
from oq_nb.model import TaskRecord
from oq_nb.s3 import ObjectStore

__all__ = ["PAYLOAD_LIMIT_BYTES", "Payloads"]

#: Inputs and outputs above this many bytes of JSON are kept in an object of their own.
PAYLOAD_LIMIT_BYTES = 64 * 1024


class Payloads:
    """The large inputs and outputs of a bucket's tasks.

    Args:
        objects: the store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def save(self, task_id: str, which: str, value: Any, *, attempt: int = 1) -> tuple[Any, str | None]:
        """Return ``(value, None)``, or ``(None, key)`` after writing a large value to an object of its own.

        Args:
            task_id: the task.
            which: ``input`` or ``output``.
            value: any JSON.
            attempt: which attempt's output it is.

        Requests: 1 PUT for a value above 64 KiB.
        """
        body = model.to_json(value)
        if len(body) <= PAYLOAD_LIMIT_BYTES:
            return value, None
        key = model.payload_key(task_id, which, attempt)
        self._objects.put(key, body)
        return None, key

    def load(self, record: TaskRecord, which: str) -> Any:
        """Return a task's ``input`` or ``output``, wherever it is stored.

        Requests: 1 GET for one with its own object; 1 GET more when that is missing or not JSON.

        Raises:
            RecordError: the object that the task refers to is missing, belongs to another task, or is not JSON.
        """
        key: str | None = getattr(record, f"{which}_ref")
        if key is None:
            return getattr(record, which)
        if not key.startswith(f"{model.PAYLOADS}{record.id}/"):
            raise RecordError(f"task {record.id}: its {which} points outside its payloads", task_id=record.id)
        for is_last in (False, True):  # once may be an answer that was late, or damaged on its way
            found = self._objects.get(key)
            try:
                if found is not None:
                    return json.loads(found.body)
            except (ValueError, RecursionError) as exc:
                if is_last:
                    message = f"task {record.id}: its {which} ({key}) is not JSON"
                    raise RecordError(message, task_id=record.id, key=key) from exc
        raise RecordError(f"task {record.id}: its {which} ({key}) is gone", task_id=record.id, key=key)
