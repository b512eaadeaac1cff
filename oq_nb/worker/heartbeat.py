"""A worker's object under ``workers/``: written from time to time, each version replacing the one before.

Imports nothing of the package but `errors`, `model` and `s3`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from oq_nb import model
from oq_nb.errors import OqError, StorageError
from oq_nb.s3 import SETTLED, ObjectStore

__all__ = ["Heartbeat"]

logger = logging.getLogger("oq_nb.worker")

_HEARTBEAT_SECONDS = 15.0
_DEAD_WORKER = timedelta(days=1)
_TIDY_LIMIT = 200


class Heartbeat:
    """Writes the worker's object; a `Scheduler` calls `run_due`. Safe to use from several threads.

    Args:
        objects: the store.
        worker_id: whose object it is.
        body: returns what to write.
    """

    def __init__(self, objects: ObjectStore, worker_id: str, body: Callable[[], bytes]) -> None:
        self._objects = objects
        self.key = model.worker_key(worker_id)
        self.body = body
        self._version: str | None = None
        self._is_removed = False
        self._io = threading.Lock()  # held while a heartbeat is written, or the object is removed

    def run_due(self) -> float | None:
        """Write, and remove the version before; nothing once it is removed. Requests: 1 PUT, 1 DELETE."""
        with self._io:
            if self._is_removed:
                return None
            try:
                before, self._version = self._version, self._objects.put(self.key, self.body()).version_id
                if before is not None:
                    self._objects.delete(self.key, version_id=before)
            except OqError as exc:
                logger.debug("heartbeat: %s", exc)
            return time.monotonic() + _HEARTBEAT_SECONDS

    def tidy(self) -> None:
        """Remove what was replaced, of other workers only what is settled; and workers that are dead for a day.

        Requests: 1 LIST, and 1 DELETE for each that is removed.
        """
        try:
            now = self._objects.clock.now()
            long_ago, settled = now - _DEAD_WORKER, now - SETTLED
            lines = list(self._objects.versions(model.WORKERS)) if self._objects.is_versioned else []
            alive = {e.key for e in lines if e.is_latest and not e.is_delete_marker and e.last_modified > long_ago}
            lines = [e for e in lines if e.key == self.key or e.last_modified < settled]
            for entry in sorted(lines, key=lambda entry: entry.is_delete_marker)[:_TIDY_LIMIT]:
                if entry.key not in alive or not entry.is_latest:
                    self._objects.delete(entry.key, version_id=entry.version_id)
                elif entry.key == self.key:
                    self._version = entry.version_id
        except StorageError as exc:
            logger.debug("objects of dead workers stay for now: %s", exc)

    def remove(self) -> None:
        """Take the worker out of the register, for good. Requests: 1 LIST, 1 DELETE."""
        self._is_removed = True  # before the lock: a heartbeat that hangs writes nothing more after it
        with self._io:
            try:
                if self._objects.is_versioned:
                    for entry in list(self._objects.versions(self.key)):
                        if entry.key == self.key:
                            self._objects.delete(entry.key, version_id=entry.version_id)
                else:
                    self._objects.delete(self.key)
            except OqError as exc:
                logger.debug("the worker's object stays: %s", exc)
