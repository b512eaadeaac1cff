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

logger: logging.Logger = logging.getLogger("oq_nb.worker")

_HEARTBEAT_SECONDS = 15.0
_IDLE_HEARTBEAT_SECONDS = 25.0  # a worker counts as silent after 60
_TIDY_SECONDS = 600.0  # and a second for each worker that there is
_DEAD_WORKER = timedelta(days=1)
_LATELY = timedelta(minutes=2)  # a worker that was heard of then is counted
_TIDY_LIMIT = 200


class Heartbeat:
    """Writes the worker's object; a `Scheduler` calls `run_due`. Safe to use from several threads.

    Args:
        objects: the store.
        worker_id: whose object it is.
        body: returns what to write.
        is_idle: whether the worker has had nothing to do for long, so that it is written more rarely.
    """

    def __init__(
        self,
        objects: ObjectStore,
        worker_id: str,
        body: Callable[[], bytes],
        *,
        is_idle: Callable[[], bool] = lambda: False,
    ) -> None:
        self._objects = objects
        self.key: str = model.worker_key(worker_id)
        self.body = body
        self._is_idle = is_idle
        #: How many workers the queue has, this one included, as far as known.
        self.workers: int = 1
        self._tidy_at = float("inf")  # not before the first `tidy`
        self._version: str | None = None
        self._is_removed = False
        self._io = threading.Lock()  # held while a heartbeat is written, or the object is removed

    def run_due(self) -> float | None:
        """Write, and remove the version before; nothing once it is removed.

        Requests: 1 PUT, 1 DELETE; every ten minutes those of `tidy`.
        """
        with self._io:
            if self._is_removed:
                return None
            try:
                before, self._version = self._version, self._objects.put(self.key, self.body()).version_id
                if before is not None:
                    self._objects.delete(self.key, version_id=before)
            except OqError as exc:
                logger.debug("heartbeat: %s", exc)
        if time.monotonic() >= self._tidy_at:
            self.tidy()  # not under the lock: `remove` need not wait for it
        return time.monotonic() + (_IDLE_HEARTBEAT_SECONDS if self._is_idle() else _HEARTBEAT_SECONDS)

    def tidy(self) -> None:
        """Count the workers. Remove what was replaced, of others only what is settled, and workers dead for a day.

        Requests: 1 LIST per 1,000 workers, and 1 DELETE for each that is removed.
        """
        self._tidy_at = time.monotonic() + _TIDY_SECONDS + self.workers
        try:
            now = self._objects.clock.now()
            long_ago, settled, lately = now - _DEAD_WORKER, now - SETTLED, now - _LATELY
            is_versioned = self._objects.is_versioned
            lines = list((self._objects.versions if is_versioned else self._objects.entries)(model.WORKERS))
            there = [e for e in lines if e.is_latest and not e.is_delete_marker]
            self.workers = max(1, sum(e.last_modified > lately for e in there))
            if not is_versioned:
                return
            alive = {e.key for e in there if e.last_modified > long_ago}
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
