"""`WorkerLogs`: keeps what a worker's handlers print, each attempt's in a log of its own.

One `Scheduler` writes for all of them; it has no thread before something was printed.

Imports of the package: `attempt`, `store`.
"""

from __future__ import annotations

import time

from oq_nb.attempt import capture
from oq_nb.attempt.attempt_log import AttemptLog, LogPermissions
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.store import TaskStore

__all__ = ["WorkerLogs"]

_MAX_THREADS = 4


class WorkerLogs:
    """The logs of what a worker runs, from its start to its stop.

    Args:
        store: the tasks.
        name: of the worker.
        concurrency: tasks at a time.
        limit_bytes: bound of an attempt's log.
    """

    def __init__(self, store: TaskStore, name: str, *, concurrency: int, limit_bytes: int) -> None:
        self._store = store
        self._scheduler = Scheduler(f"{name}-logs", max_threads=min(concurrency, _MAX_THREADS))
        self._limit_bytes = limit_bytes
        self._permissions = LogPermissions(store.clock.monotonic)
        self._logs: dict[AttemptLog, None] = {}  # in order; changed by single operations, which need no lock
        self._is_installed = False

    def start(self) -> None:
        """Begin to capture."""
        capture.install()
        self._is_installed = True

    def open(self, lease: Lease) -> AttemptLog:
        """Return the log of an attempt that begins. Requests: as for `AttemptLog`."""
        log = AttemptLog(
            self._store.logs,
            lease.task_id,
            lease.record.attempt,
            now=self._store.clock.now,
            scheduler=self._scheduler,
            limit_bytes=self._limit_bytes,
            permissions=self._permissions,
            on_over=lambda log: self._logs.pop(log, None),
        )
        self._logs[log] = None
        return log

    def end(self) -> None:
        """Take nothing more, and have the rest of all logs written, with one try; returns at once."""
        for log in list(self._logs):
            log.stop()

    def stop(self, deadline: float) -> None:
        """End; wait for what is being written until a monotonic time, and capture no more."""
        self.end()
        self._scheduler.finish(max(0.0, deadline - time.monotonic()))
        self._scheduler.stop(max(0.0, deadline - time.monotonic()))
        if self._is_installed:
            self._is_installed = False
            capture.uninstall()
