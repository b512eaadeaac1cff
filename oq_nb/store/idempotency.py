"""Idempotency keys: which task a key stands for, for 30 days.

A key is written before its task, and marked when the task is written (``task_written_at``). A key without the mark
whose task is missing is a submission that was cut short; a marked one stands for a task that has been removed since,
by `oq_nb.admin.retention` or a lifecycle rule, and must not run again.

Imports nothing of the package but `backoff`, `errors`, `model` and `s3`.
"""

from __future__ import annotations

import hashlib
import logging
import time
from datetime import timedelta
from typing import Any

from oq_nb import model
from oq_nb.backoff import Backoff
from oq_nb.errors import ConfigurationError, ConflictError, RecordError, StorageError, StorageUnavailableError
from oq_nb.model import IdempotencyRecord, TaskRecord, Timestamp
from oq_nb.s3 import ObjectStore

__all__ = ["IdempotencyKeys"]

logger: logging.Logger = logging.getLogger("oq_nb.store")

_VALID = timedelta(days=30)
_TRIES = 5
_CONFLICTS = Backoff(0.01, 1.0, jitter=1.0)


class IdempotencyKeys:
    """The idempotency keys of a bucket.

    Args:
        objects: the store.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def record(self, task: TaskRecord, key: Any, scope: str) -> IdempotencyRecord:
        """Return what a key's object says when it stands for a task. Nothing is written.

        Args:
            task: the task, with its input.
            key: 1 to 1,000 characters.
            scope: within which the key is unique.

        Raises:
            ConfigurationError: the key cannot be used.
        """
        if not isinstance(key, str) or not key or len(key) > 1000:
            raise ConfigurationError("idempotency_key: text of 1 to 1,000 characters is needed")
        path = model.idempotency_key(scope, key)
        digest = hashlib.sha256(model.canonical_json(task.input)).hexdigest()
        return IdempotencyRecord(
            key=key,
            key_hash=f"sha256:{path.rsplit('/', 1)[1].removesuffix('.json')}",
            task_id=task.id,
            task_key=task.key,
            created_at=task.created_at,
            expires_at=Timestamp.of(task.created_at + _VALID),
            task_type=task.task_type,
            input_hash=f"sha256:{digest}",
        )

    def claim(self, path: str, claim: IdempotencyRecord) -> tuple[IdempotencyRecord, str]:
        """Write a key unless it stands for a task already; return what it stands for, and its ETag.

        Requests: 1 PUT; 1 GET more when the key is there.
        """
        over = None
        for _ in _CONFLICTS.tries(time.sleep, most=_TRIES):
            try:
                if over is None:
                    made = self._objects.put(path, claim.to_bytes(), create=True)
                else:
                    made = self._objects.put(path, claim.to_bytes(), if_match=over.etag)
                return claim, made.etag
            except ConflictError:
                over = self._objects.get(path)
            if over is None:
                continue  # it was removed just now, or the store was too busy to look at the condition
            found = self._parse(path, over.body)
            if found.task_id == claim.task_id or found.expires_at > self._objects.clock.now():
                return found, over.etag
        raise StorageUnavailableError(
            f"idempotency_key: {claim.key!r} is being changed all the time: try later", key=path
        )

    def _parse(self, path: str, body: bytes) -> IdempotencyRecord:
        try:
            return IdempotencyRecord.from_bytes(body, key=path)
        except RecordError:  # once may be an answer that was damaged on its way
            again = self._objects.get(path)
            return IdempotencyRecord.from_bytes(body if again is None else again.body, key=path)

    def mark_written(self, path: str, claimed: IdempotencyRecord, etag: str) -> None:
        """Note with a key that its task is written; failures are logged only. Requests: 1 PUT, unless it is marked."""
        if claimed.task_written_at is not None:
            return
        marked = claimed.evolve(task_written_at=self._objects.clock.stamp())
        try:
            self._objects.put(path, marked.to_bytes(), if_match=etag)
        except StorageError as exc:
            logger.debug("key %s stays without its mark: %s", path, exc)

    def remove_expired(self) -> int:
        """Remove the keys that are no longer valid; return how many. Where there are no versions, none.

        Without versions a key could be removed that somebody has just claimed anew.

        Requests: 1 LIST per 1,000 keys; for each that is 30 days old 1 GET, 1 LIST and 1 DELETE a version.
        """
        if not self._objects.is_versioned:
            return 0
        now, removed = self._objects.clock.earliest(), 0
        old = [e for e in self._objects.entries(model.IDEMPOTENCY) if e.last_modified <= now - _VALID]
        for entry in old:
            lines = [line for line in self._objects.versions(entry.key) if line.key == entry.key]
            found = self._objects.get(entry.key)
            latest = next((line for line in lines if line.is_latest), None)
            if found is None or latest is None or found.etag != latest.etag:
                continue  # it is changing
            try:
                is_over = self._parse(entry.key, found.body).expires_at <= now
            except RecordError as exc:
                logger.debug("not an idempotency key: %s", exc)
                continue
            if is_over:
                for line in sorted(lines, key=lambda line: line.is_latest):  # the newest last: none is uncovered
                    self._objects.delete(line.key, version_id=line.version_id)
                removed += 1
        return removed
