"""`ExecutorBackend`: runs a worker's handlers in processes, in a Dask cluster, in any `concurrent.futures` executor.

The worker's own thread claims a task, sends its handler as a `CallRequest` and supervises the call until it ends: it
writes what is reported, passes on a request to stop, and turns a crash into a retry (`remote` is the other side).

Invariants:

* What a killed process was running counts as a retry; what it had not begun does not.
* An executor that runs nothing three times in a row is not tried again: `problem` says why.

Imports of the package: `errors`, `model`, `attempt`, and of this room all but `process`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

from oq_nb import tracing
from oq_nb.attempt.capture import capturing
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import Handler
from oq_nb.attempt.invoke import Outcome, Verdict, call, failure
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.log_buffer import LogBuffer
from oq_nb.errors import ConfigurationError
from oq_nb.model import Timestamp
from oq_nb.worker.executors.channels import DaskTransport, LocalTransport, Mailbox, Transport
from oq_nb.worker.executors.pool import ExecutorPool, process_executor_factory, shares_memory
from oq_nb.worker.executors.remote import CallRequest, execute_request, pickled
from oq_nb.worker.executors.supervisor import ENDED, CallSupervisor, Job

__all__ = ["ExecutorBackend", "make_backend"]

logger: logging.Logger = logging.getLogger("oq_nb.executor")

_TRIES = 3


def make_backend(
    executor: Any, worker_id: str, *, at_exit: Callable[[], object] = lambda: None
) -> ExecutorBackend | None:
    """Return what runs handlers as ``Worker(executor=…)`` says; None for the worker's own threads.

    Args:
        executor: see `oq_nb.Worker`.
        worker_id: part of names.
        at_exit: called at the interpreter's end, before it waits for what runs in executors.

    Raises:
        ConfigurationError: it is no executor, or what it needs is not installed.
    """
    if executor is None or (isinstance(executor, str) and executor == "threads"):
        return None
    if isinstance(executor, str) and executor == "processes":
        return ExecutorBackend(process_executor_factory(), worker_id, at_exit, is_own=True, is_for_each_thread=True)
    if isinstance(executor, Executor):
        return ExecutorBackend(lambda: executor, worker_id, at_exit)
    if callable(executor):
        return ExecutorBackend(executor, worker_id, at_exit, is_own=True)
    raise ConfigurationError(
        'executor: "threads", "processes", a concurrent.futures executor such as ProcessPoolExecutor() or '
        f"Client.get_executor(), or a function that returns one is needed, not {executor!r}"
    )


class ExecutorBackend:
    """Runs handlers in an executor.

    Args:
        make: returns the executor.
        worker_id: part of names.
        at_exit: called at the interpreter's end.
        is_own: what ``make`` returns is the worker's: made anew when its processes are gone, shut down at its end.
        is_for_each_thread: each handler thread has an executor of its own, so that a crash concerns one task only.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        worker_id: str,
        at_exit: Callable[[], object],
        *,
        is_own: bool = False,
        is_for_each_thread: bool = False,
    ) -> None:
        self._make, self._worker_id = make, worker_id
        self._at_exit: Callable[[], object] | None = at_exit
        self._is_own, self._is_for_each_thread = is_own, is_for_each_thread
        self._lock = threading.Lock()
        self._pools: dict[int, ExecutorPool] = {}
        self._transport: Transport | None = None
        self._running = 0
        self._is_stopping = False
        #: Why nothing can be run any more; None while all is well.
        self.problem: str | None = None

    def start(self, handlers: Iterable[Handler], retry_on: tuple[type[BaseException], ...] = ()) -> None:
        """Get ready, and see whether the handlers can be sent.

        Raises:
            ConfigurationError: one cannot, or there is no usable executor.
        """
        self._is_stopping, self.problem = False, None
        executor = None if self._is_for_each_thread else self._pool().get()
        client = getattr(executor, "_client", None)
        if client is not None and getattr(client, "asynchronous", False):
            raise ConfigurationError("executor: its Dask client is an asynchronous one: use Client(asynchronous=False)")
        if not shares_memory(executor):
            for handler in handlers:
                _code(handler, retry_on)

    def stop(self) -> None:
        """Give up what still runs: end the executors that were made here, with their processes."""
        self._is_stopping = True
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
            transport, self._transport = self._transport, None
            is_idle = self._running == 0
        for pool in pools:
            pool.close(is_idle=is_idle)
        if transport is not None:
            transport.close()

    def call(
        self,
        handler: Handler,
        task_input: Any,
        lease: Lease,
        context: TaskContext,
        *,
        retry_on: tuple[type[BaseException], ...] = (),
        throttle_seconds: float = 0.0,
        log: LogBuffer | None = None,
    ) -> Outcome:
        """Run a handler to its end; from one of the worker's handler threads."""
        job = Job(handler, task_input, lease, context, retry_on, throttle_seconds, log)
        reason = ""
        for _ in range(_TRIES):
            ended = self._try(job)
            if isinstance(ended, Outcome):
                return ended
            reason = ended
            if job.lease.is_lost or self._is_stopping or not self._is_own:
                break
        else:
            self._break(reason)
        return Outcome(verdict=Verdict.RELEASE, text=reason)

    def _try(self, job: Job) -> Outcome | str:
        """Run a handler once; return how it ended, or why it did not begin."""
        pool, executor, transport, mailbox = self._pool(), None, None, Mailbox("")
        future: Future[Any]
        with self._lock:
            self._running += 1
        try:
            try:
                executor = pool.get()
                if shares_memory(executor):
                    future = executor.submit(tracing.bound(_call_here), job)
                else:
                    code, transport = _code(job.handler, job.retry_on), self._open_transport(executor)
                    mailbox = transport.open()
                    future = executor.submit(execute_request, self._request(job, code, transport.address, mailbox))
            except _CannotSendError as exc:
                return failure(exc)
            except Exception as exc:
                pool.renew(executor)
                reason = f"{type(exc).__name__}: {exc}"
                if not self._is_own:
                    self._break(reason)
                return reason
            self._register_exit()
            future.add_done_callback(lambda _: mailbox.put(ENDED))
            supervisor = CallSupervisor(job, future, mailbox, lambda: self._is_stopping)
            ended = supervisor.supervise()
            if supervisor.has_crashed or (pool.is_for_one and not future.done()):
                pool.renew(executor)
            if supervisor.problem:
                self._break(supervisor.problem)
            return ended
        finally:
            with self._lock:
                self._running -= 1
            if transport is not None:
                transport.drop(mailbox)

    def _register_exit(self) -> None:
        """Be called at the interpreter's end before the executors, which wait there until all that runs has ended.

        They register with `threading` when they begin to run something, and what registers last is called first.
        """
        at_exit, self._at_exit = self._at_exit, None
        register = getattr(threading, "_register_atexit", None)
        if at_exit is not None and register is not None:
            with contextlib.suppress(RuntimeError):  # the end has begun
                register(at_exit)

    def _pool(self) -> ExecutorPool:
        key = threading.get_ident() if self._is_for_each_thread else 0
        with self._lock:
            if key not in self._pools:
                self._pools[key] = ExecutorPool(self._make, is_own=self._is_own, is_for_one=self._is_for_each_thread)
            return self._pools[key]

    def _open_transport(self, executor: Executor) -> Transport:
        with self._lock:
            if self._transport is None:
                client = getattr(executor, "_client", None)
                is_dask = client is not None and type(executor).__module__.startswith("distributed.")
                self._transport = DaskTransport(client, self._worker_id) if is_dask else LocalTransport(self._worker_id)
            return self._transport

    def _request(self, job: Job, code: bytes, address: tuple[Any, ...], mailbox: Mailbox) -> CallRequest:
        record = job.lease.record
        record = record.evolve(input=None, output=None, trace=tracing.current_trace() or record.trace)
        return CallRequest(
            address=address,
            call_id=mailbox.call_id,
            code=code,
            task_input=job.task_input,
            record=record.to_bytes(),
            now=Timestamp.of(job.lease.now()).text,
            throttle_seconds=job.throttle_seconds,
            lease_seconds=job.lease.lease_seconds,
            ends_with_worker=self._is_for_each_thread,
            pid=os.getpid(),
            log_limit_bytes=0 if job.log is None else job.log.limit_bytes,
        )

    def _break(self, reason: str) -> None:
        if self.problem is None and not self._is_stopping:
            self.problem = (
                f"executor: it runs nothing any more ({reason}). Stop this worker and make one with a new executor; "
                'one that was given as a function, or "processes", is made anew by itself'
            )
            logger.error("worker %s claims nothing more: %s", self._worker_id, self.problem)


def _call_here(job: Job) -> Outcome:
    """Call a handler in a thread of this process."""
    with capturing(job.log):
        return call(job.handler, job.task_input, job.context, retry_on=job.retry_on)


class _CannotSendError(ConfigurationError):
    """A handler cannot be pickled."""


def _code(handler: Handler, retry_on: tuple[type[BaseException], ...]) -> bytes:
    """Return a handler as bytes.

    Raises:
        ConfigurationError: it cannot be sent.
    """
    try:
        return pickled((handler, retry_on))
    except Exception as exc:
        raise _CannotSendError(
            f"handler of {handler.task_type!r}: it cannot be sent to another process ({type(exc).__name__}: {exc}). "
            "What it refers to goes along: make queues, clients, locks and open files inside the handler; a function "
            'of a notebook or script needs cloudpickle: pip install "oq-nb[processes]"'
        ) from exc
