"""`Runner`: the handler threads of a worker. Each takes an index entry, claims its task and runs the handler.

Invariants:

* A handler runs only under a lease of its own.
* No handler thread ends before the backlog is closed, whatever the store or a handler does.

Imports of the package: `attempt`, `model`, `errors`, `queue`, and of this room `backlog` and `claims`.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from oq_nb.attempt.attempt_log import AttemptLog
from oq_nb.attempt.capture import capturing
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import Handler
from oq_nb.attempt.invoke import Outcome, call
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.log_buffer import LogBuffer
from oq_nb.attempt.run import run_attempt
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import LeaseExpiredError, OqError, StorageError
from oq_nb.model import TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.tracing import attempt_span
from oq_nb.worker.backlog import Backlog
from oq_nb.worker.claims import Claim, Claims

if TYPE_CHECKING:
    from oq_nb.attempt.coroutines import CoroutineRunner

__all__ = ["Backend", "EndedAttempt", "Logs", "OnEnded", "Runner"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")


@dataclass(frozen=True)
class EndedAttempt:
    """An attempt whose end was written here."""

    context: TaskContext
    #: What the handler returned.
    output: Any
    #: What it raised, or None.
    error: BaseException | None
    #: What became of the task: completed, failed, cancelled, or pending again.
    status: TaskStatus
    #: Runs coroutines in the thread that ran the handler.
    coroutines: CoroutineRunner | None = None


OnEnded = Callable[[EndedAttempt], object]


class Backend(Protocol):
    """What runs handlers outside of the worker's threads: `oq_nb.worker.executors.backend.ExecutorBackend`."""

    def call(
        self,
        handler: Handler,
        task_input: Any,
        lease: Lease,
        context: TaskContext,
        *,
        retry_on: tuple[type[BaseException], ...],
        throttle_seconds: float,
        log: LogBuffer | None = None,
    ) -> Outcome:
        """Run a handler to its end."""


class Logs(Protocol):
    """What keeps what handlers print: `oq_nb.worker.logs.WorkerLogs`."""

    def open(self, lease: Lease) -> AttemptLog:
        """Return the log of an attempt that begins."""


class Runner:
    """Runs claimed tasks.

    Args:
        queue: where the tasks are.
        claims: claims the task of an entry.
        backlog: gives out entries.
        handlers: by task type.
        scheduler: its threads renew leases and write progress.
        backend: runs handlers elsewhere; None: they run in the handler threads.
        logs: keeps what handlers print; None: nothing does.
        worker_id: named in the log.
        retry_on: exception types that count as retryable.
        throttle_seconds: default of ``report_progress``.
        renews: renew leases while their handlers run.
        on_ended: called after each attempt whose end was written here.
    """

    def __init__(
        self,
        queue: Queue,
        claims: Claims,
        backlog: Backlog,
        handlers: Mapping[str, Handler],
        scheduler: Scheduler,
        *,
        backend: Backend | None = None,
        logs: Logs | None = None,
        worker_id: str = "",
        retry_on: tuple[type[BaseException], ...] = (),
        throttle_seconds: float = 0.0,
        renews: bool = True,
        on_ended: OnEnded,
    ) -> None:
        self._queue, self._claims, self._backlog = queue, claims, backlog
        self._handlers = handlers
        self._scheduler = scheduler
        self._backend, self._logs = backend, logs
        self._worker_id = worker_id
        self._retry_on = retry_on
        self._throttle_seconds = throttle_seconds
        self._renews = renews
        self._on_ended = on_ended
        self._lock = threading.Lock()
        self._leases: dict[str, Lease] = {}  # by task id

    def __contains__(self, task_id: object) -> bool:
        """Return whether a task is run here."""
        return task_id in self._leases

    def __iter__(self) -> Iterator[str]:
        with self._lock:
            return iter(list(self._leases))

    def __len__(self) -> int:
        return len(self._leases)

    @property
    def leases(self) -> list[Lease]:
        """The leases of the tasks that run."""
        with self._lock:
            return list(self._leases.values())

    def serve(self) -> None:
        """A handler thread: take an entry, claim its task, run it; until the backlog is closed."""
        coroutines: CoroutineRunner | None = None
        while (entry := self._backlog.take()) is not None:
            claim: Claim | None = None
            try:
                claim = self._claims.handle_entry(entry, may_claim=True)
                if claim is not None:
                    if self._handlers[claim.held.record.task_type].is_async and coroutines is None:
                        from oq_nb.attempt.coroutines import CoroutineRunner  # it loads asyncio

                        coroutines = CoroutineRunner()
                    self.run(claim, coroutines)
            except StorageError as exc:
                logger.warning("worker %s: task %s has to wait: %s", self._worker_id, entry.task_id, exc)
                self._claims.look_again(entry, random.uniform(1, 3))
            except Exception:
                logger.exception("worker %s: task %s", self._worker_id, entry.task_id)
                self._claims.look_again(entry, 60)
            finally:
                self._backlog.done(was_attempt=claim is not None)
        if coroutines is not None:
            coroutines.close()

    def run(self, claim: Claim, coroutines: CoroutineRunner | None = None) -> None:
        """Run the handler of a claimed task to its end.

        Args:
            claim: the task.
            coroutines: runs coroutine handlers; None: each runs on a loop of its own.
        """
        record, store = claim.held.record, self._queue.store
        lease = Lease(
            store,
            claim.held,
            self._scheduler,
            lease_seconds=record.lease_seconds,
            renews=self._renews,
            on_ended=claim.entries.end,
            on_written=self._queue.watcher.ingest,
        )
        self._queue.watcher.ingest(claim.held, from_attempt=True)
        context = TaskContext(lease, throttle_seconds=self._throttle_seconds)
        handler = self._handlers[record.task_type]

        def run_logged(task_input: Any) -> Outcome:
            if self._logs is None:
                return run(task_input, None)
            log = self._logs.open(lease)
            try:
                return run(task_input, log.buffer)
            finally:
                log.finish()

        def run(task_input: Any, log: LogBuffer | None) -> Outcome:
            if self._backend is None:
                with capturing(log):
                    return call(handler, task_input, context, retry_on=self._retry_on, coroutines=coroutines)
            return self._backend.call(
                handler,
                task_input,
                lease,
                context,
                retry_on=self._retry_on,
                throttle_seconds=self._throttle_seconds,
                log=log,
            )

        with self._lock:
            self._leases[record.id] = lease
        try:
            if self._backlog.is_closed:  # it was being claimed when `stop` began
                self.hand_back(lease)
                return
            with attempt_span(
                record.trace,
                task_id=record.id,
                task_type=record.task_type,
                attempt=record.attempt,
                worker_id=self._worker_id,
            ) as span:
                output, error = run_attempt(
                    store, lease, handler, context, run=run_logged, gives_up=lambda: self._backlog.is_closed
                )
                span.end(lease.record.status.value, error)
        except LeaseExpiredError as exc:
            why = str(exc).removeprefix(f"task {record.id}: ")
            logger.warning("the result of task %s is thrown away: %s", record.id, why)
            claim.entries.abandon()
            return
        finally:
            with self._lock:
                if self._leases.get(record.id) is lease:  # else it was handed back, and claimed anew
                    del self._leases[record.id]
        self._on_ended(EndedAttempt(context, output, error, lease.record.status, coroutines))

    def hand_back(self, lease: Lease) -> None:
        """Give a running task back to pending; what its handler still returns is thrown away. Requests: 2 PUT."""
        try:
            left = lease.finish(
                lambda record, now: transitions.release(record, now, lease_id=lease.lease_id), give_up=lambda: True
            )
            if left.record.status is TaskStatus.PENDING:
                self._queue.local_workers.announce(left.record)
            logger.info("task %s was handed back: it is %s", lease.task_id, left.record.status)
        except LeaseExpiredError as exc:  # its handler came to an end just now
            logger.debug("task %s is not handed back: %s", lease.task_id, exc)
        except OqError as exc:
            logger.warning("task %s could not be handed back, its lease will run out: %s", lease.task_id, exc)

    def forget(self) -> None:
        """Disown what still runs: handlers that do not stop, whose tasks were handed back."""
        with self._lock:
            self._leases.clear()
