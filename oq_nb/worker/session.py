"""`Session`: one run of a worker, from `start` to `stop`: its threads and what they share.

One thread polls the index (``oq-worker-…``), others claim and run (``oq-handler-…``), a `Scheduler` renews leases,
writes progress and sends the heartbeat. All are daemons.

Invariants:

* A worker that is started again has a new session: handlers that did not stop belong to the old one.
* Removing index entries has threads of its own, so that a store that is slow to delete does not keep up renewals.

Imports of the package: `attempt`, `queue`, `store`, and this room.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from oq_nb.attempt.handlers import Handler
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.queue import Queue
from oq_nb.store import ReadyHint, verify_conditional_writes
from oq_nb.worker.backlog import Backlog
from oq_nb.worker.claims import Claims
from oq_nb.worker.ending import Ending, RunLimits
from oq_nb.worker.heartbeat import Heartbeat
from oq_nb.worker.hint_watch import HintWatch
from oq_nb.worker.logs import WorkerLogs
from oq_nb.worker.parallel import run_until
from oq_nb.worker.pauses import PollPauses
from oq_nb.worker.polling import IndexPoller
from oq_nb.worker.runner import OnEnded, Runner

if TYPE_CHECKING:
    from oq_nb.worker.executors.backend import ExecutorBackend

__all__ = ["CLOSING_SECONDS", "Session", "WorkerSettings"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")

#: What handing tasks back and ending threads takes at most.
CLOSING_SECONDS = 5.0
_LONG_IDLE_SECONDS = 300.0  # after which heartbeats are rarer
_END_SECONDS = 1.5  # of these for ending processes


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker was told; see `oq_nb.Worker`."""

    worker_id: str
    shards: Sequence[str]
    concurrency: int = 1
    progress_throttle_seconds: float = 0.0
    renew_leases: bool = True
    retry_on: tuple[type[BaseException], ...] = ()
    max_poll_seconds: float = 15.0
    lease_entry_delay_seconds: float = 0.0
    limits: RunLimits = field(default_factory=RunLimits)
    #: Bound of the log of an attempt; None to keep none.
    log_limit_bytes: int | None = None


class Session:
    """The threads of a worker, from its start to its stop.

    Args:
        queue: where the tasks are.
        settings: what the worker was told.
        handlers: by task type; more may be added while it runs.
        scheduler: its threads renew leases, write progress and send the heartbeat.
        index_scheduler: its threads change index entries; None: they are changed at once, by the handler threads.
        recovery: its threads recover tasks of dead workers; None: the polling thread does so.
        backend: runs handlers elsewhere; None: they run in the handler threads.
        describe: returns the body of the heartbeat.
        on_ended: called after each attempt whose end was written here.
    """

    def __init__(
        self,
        queue: Queue,
        settings: WorkerSettings,
        handlers: Mapping[str, Handler],
        *,
        scheduler: Scheduler,
        index_scheduler: Scheduler | None,
        recovery: Scheduler | None = None,
        backend: ExecutorBackend | None = None,
        describe: Callable[[], bytes],
        on_ended: OnEnded,
    ) -> None:
        self._settings = settings
        self._objects = queue.store.objects
        self._scheduler, self._index_scheduler, self._recovery = scheduler, index_scheduler, recovery
        self._backend = backend
        self._describe = describe
        self.claims: Claims = Claims(
            queue.store,
            settings.worker_id,
            lambda task_type: task_type in handlers,
            scheduler=index_scheduler,
            lease_entry_delay_seconds=settings.lease_entry_delay_seconds,
        )
        is_blocked = (lambda: False) if backend is None else (lambda: backend.problem is not None)
        self.backlog: Backlog = Backlog(
            settings.concurrency, is_blocked=is_blocked, max_attempts=settings.limits.max_tasks
        )
        limit = settings.log_limit_bytes
        self._logs = (
            None
            if limit is None
            else WorkerLogs(queue.store, settings.worker_id, concurrency=settings.concurrency, limit_bytes=limit)
        )
        self.runner: Runner = Runner(
            queue,
            self.claims,
            self.backlog,
            handlers,
            scheduler,
            backend=backend,
            logs=self._logs,
            worker_id=settings.worker_id,
            retry_on=settings.retry_on,
            throttle_seconds=settings.progress_throttle_seconds,
            renews=settings.renew_leases,
            on_ended=on_ended,
        )
        self.heartbeat: Heartbeat = Heartbeat(
            queue.store.objects, settings.worker_id, describe, is_idle=self._is_long_idle
        )
        pauses = PollPauses(settings.max_poll_seconds)
        hint: HintWatch | None = None
        if queue.hints is not None:
            hint = HintWatch(ReadyHint(queue.store.objects), pauses, lambda: self.heartbeat.workers)
        self.poller: IndexPoller = IndexPoller(
            queue.store,
            self.claims,
            self.backlog,
            worker_id=settings.worker_id,
            shards=settings.shards,
            concurrency=settings.concurrency,
            pauses=pauses,
            hint=hint,
            own_tasks=self.runner,
            recovery=recovery,
        )
        #: Says when a worker with limits has come to its end.
        self.ending: Ending = Ending(settings.limits, self.backlog, self.poller)
        self._threads: list[threading.Thread] = []

    @property
    def is_stopping(self) -> bool:
        """Whether it has been told to stop."""
        return self.backlog.is_closed

    @property
    def is_limited(self) -> bool:
        """Whether it ends by itself."""
        return bool(self._settings.limits)

    def _is_long_idle(self) -> bool:
        since = self.backlog.idle_since
        return since is not None and time.monotonic() - since > _LONG_IDLE_SECONDS

    def register(self) -> None:
        """Write the worker's object, and show that the store refuses stale writes. Requests: 4 PUT."""
        verify_conditional_writes(self._objects, self.heartbeat.key, self._describe())
        self.heartbeat.tidy()
        self._scheduler.call(self.heartbeat)

    def start(self) -> None:
        """Start the threads."""
        if self._logs is not None:
            self._logs.start()
        roles = [("worker", self.poller.run)] + [("handler", self.runner.serve)] * self._settings.concurrency
        for number, (role, target) in enumerate(roles):
            name = f"oq-{role}-{self._settings.worker_id}-{number}"
            self._threads.append(threading.Thread(target=target, name=name, daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float) -> None:
        """Let what runs end, hand back what does not, end the threads, remove the worker's object.

        It returns `CLOSING_SECONDS` after the time-out at the latest, also when the store does not answer.

        Args:
            timeout: seconds that running tasks are given.
        """
        self.backlog.close()
        self.backlog.wait_idle(max(0.0, timeout))
        deadline = time.monotonic() + CLOSING_SECONDS
        left = self.runner.leases
        if self._logs is not None:
            self._logs.end()
        self._scheduler.forget(self.heartbeat)
        name = f"stop-{self._settings.worker_id}"
        calls: list[Callable[[], object]] = [self.heartbeat.remove]
        calls += [partial(self.runner.hand_back, lease) for lease in left]
        # Processes end after their tasks were handed back: what a killed process ran would count as a retry.
        hanging = run_until(deadline if self._backend is None else deadline - _END_SECONDS, calls, name=name)
        if self._backend is not None:
            run_until(deadline, [self._backend.stop], name=name)
        alive = _join(self._threads, min(deadline, time.monotonic() + 1.0) if left else deadline)
        if alive and not hanging:
            logger.warning("handlers that do not stop are left to themselves, their tasks are handed back: %s", alive)
        elif hanging or alive:
            logger.warning(
                "worker %s: the store does not answer; tasks that could not be handed back go on when their leases "
                "have run out, and the worker's entry is removed by others in a day: %s",
                self._settings.worker_id,
                [lease.task_id for lease in left if not lease.is_lost],
            )
        if self._index_scheduler is not None:
            self._index_scheduler.finish(max(0.0, deadline - time.monotonic()))
            self._index_scheduler.stop(max(0.0, deadline - time.monotonic()))
        if self._logs is not None:
            self._logs.stop(deadline)
        for scheduler in (self._scheduler, self._recovery):
            if scheduler is not None:
                scheduler.stop(max(0.0, deadline - time.monotonic()))
        self.runner.forget()  # what handlers that do not stop still do is no longer this worker's


def _join(threads: Iterable[threading.Thread], deadline: float) -> list[str]:
    """Wait for threads until a monotonic time; return the names of those that have not ended."""
    others = [thread for thread in threads if thread is not threading.current_thread()]
    for thread in others:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in others if thread.is_alive()]
