"""Handlers that run elsewhere: in processes, in a Dask cluster, in any `concurrent.futures` executor.

The worker's own thread claims a task, sends its handler as a `CallRequest` and supervises the call until it ends: it
writes what is reported, passes on a request to stop, and turns a crash into a retry (`remote` is the other side).

Invariants:

* Only an executor that was made here is ever shut down.
* What a killed process was running counts as a retry; what it had not begun does not.
* A call is attended to until its code has ended, its lease is lost, or the worker stops.

Imports of the package: `errors`, `calls`, `channels`, `child`, `context`, `handlers`, `lease`, `model`, `remote`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from oq_nb.attempt import invoke as calls
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import Handler
from oq_nb.attempt.invoke import Outcome, Verdict
from oq_nb.attempt.lease import Lease
from oq_nb.errors import ConfigurationError, LeaseExpiredError, RetryableError
from oq_nb.model import Progress, Timestamp
from oq_nb.worker.executors.channels import GONE, DaskTransport, Envelope, LocalTransport, Mailbox, Message, Transport
from oq_nb.worker.executors.process import init_process
from oq_nb.worker.executors.remote import CallRequest, execute_request, pickled, unpack

__all__ = ["ExecutorBackend", "make_backend"]

logger = logging.getLogger("oq_nb.executor")

_ATTEND_SECONDS = 0.25
_GRACE_SECONDS = 5.0
_GONE_SECONDS = 60.0
_END_SECONDS = 5.0
_TRIES = 3
_ENDED: Message = {"kind": "ended"}


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
        return ExecutorBackend(_maker_of_processes(), worker_id, at_exit, is_own=True, is_for_each_thread=True)
    if isinstance(executor, Executor):
        return ExecutorBackend(lambda: executor, worker_id, at_exit)
    if callable(executor):
        return ExecutorBackend(executor, worker_id, at_exit, is_own=True)
    raise ConfigurationError(
        'executor: "threads", "processes", a concurrent.futures executor such as ProcessPoolExecutor() or '
        f"Client.get_executor(), or a function that returns one is needed, not {executor!r}"
    )


@dataclass(frozen=True)
class Job:
    """What is run, and for which attempt."""

    handler: Handler
    task_input: Any
    lease: Lease
    context: TaskContext
    retry_on: tuple[type[BaseException], ...] = ()
    throttle_seconds: float = 0.0


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
        self._pools: dict[int, _Pool] = {}
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
        if not _shares_memory(executor):
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

    def run(self, job: Job) -> Outcome:
        """Run a handler to its end; from one of the worker's handler threads."""
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
                if _shares_memory(executor):
                    future = executor.submit(
                        calls.call, job.handler, job.task_input, job.context, retry_on=job.retry_on
                    )
                else:
                    code, transport = _code(job.handler, job.retry_on), self._open_transport(executor)
                    mailbox = transport.open()
                    future = executor.submit(execute_request, self._request(job, code, transport.address, mailbox))
            except _CannotSendError as exc:
                return calls.failure(exc)
            except Exception as exc:
                pool.renew(executor)
                reason = f"{type(exc).__name__}: {exc}"
                if not self._is_own:
                    self._break(reason)
                return reason
            self._register_exit()
            future.add_done_callback(lambda _: mailbox.put(_ENDED))
            attendant = CallSupervisor(job, future, mailbox, lambda: self._is_stopping)
            ended = attendant.attend()
            if attendant.has_crashed or (pool.is_for_one and not future.done()):
                pool.renew(executor)
            if attendant.problem:
                self._break(attendant.problem)
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

    def _pool(self) -> _Pool:
        key = threading.get_ident() if self._is_for_each_thread else 0
        with self._lock:
            if key not in self._pools:
                self._pools[key] = _Pool(self._make, is_own=self._is_own, is_for_one=self._is_for_each_thread)
            return self._pools[key]

    def _open_transport(self, executor: Executor) -> Transport:
        with self._lock:
            if self._transport is None:
                client = getattr(executor, "_client", None)
                is_dask = client is not None and type(executor).__module__.startswith("distributed.")
                self._transport = DaskTransport(client, self._worker_id) if is_dask else LocalTransport(self._worker_id)
            return self._transport

    def _request(self, job: Job, code: bytes, address: tuple[Any, ...], mailbox: Mailbox) -> CallRequest:
        record = job.lease.record.evolve(input=None, output=None)
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
        )

    def _break(self, reason: str) -> None:
        if self.problem is None and not self._is_stopping:
            self.problem = (
                f"executor: it runs nothing any more ({reason}). Stop this worker and make one with a new executor; "
                'one that was given as a function, or "processes", is made anew by itself'
            )
            logger.error("worker %s claims nothing more: %s", self._worker_id, self.problem)


class CallSupervisor:
    """Attends to one call: the worker's side of what `oq_nb.worker.executors.remote.RemoteLease` is on the other."""

    def __init__(self, job: Job, future: Future[Any], mailbox: Mailbox, is_stopping: Callable[[], bool]) -> None:
        self._lease, self._future, self._mailbox = job.lease, future, mailbox
        self._retry_on = job.retry_on
        self._is_stopping = is_stopping
        self._caller: Envelope | None = None  # who began
        self._told: tuple[Any, ...] = ()
        self._told_at = 0.0
        self._gone_at = self._lost_at = float("inf")
        #: Whether the executor gave back something else than a result.
        self.has_crashed = False
        #: Why the executor is of no use at all.
        self.problem: str | None = None

    def attend(self) -> Outcome | str:
        """Return how the handler ended, or why it did not begin."""
        while True:
            envelope = self._mailbox.get(_ATTEND_SECONDS)
            if envelope is not None:
                if envelope.message is _ENDED:
                    return self._result()
                if envelope.message is GONE:
                    self._gone_at = time.monotonic()
                elif envelope.message.get("kind") == "begin":
                    if not self._begin(envelope):
                        self._future.cancel()
                        return self._crash("the executor began it again on another process")
                else:
                    self._answer(envelope)
            self._tell()
            now = time.monotonic()
            if now - self._gone_at > _GONE_SECONDS:
                self._future.cancel()
                return self._crash("its end was not heard of")
            if self._lease.is_lost:
                self._lost_at = min(self._lost_at, now)
                if self._future.cancel() or self._is_stopping() or now - self._lost_at > _GRACE_SECONDS:
                    return "its lease is lost"

    def _begin(self, envelope: Envelope) -> bool:
        """Let the handler begin, unless it did before."""
        if self._caller is not None or self._lease.is_lost:
            envelope.reply({"lost": "it is not to run here"})
            return self._caller is None  # a lost lease is seen to below
        self._caller = envelope
        self._tell()
        return True

    def _tell(self) -> None:
        """Tell the other side what became of the task, when that has changed or it has long heard nothing."""
        if self._caller is None:
            return
        state, now = self._state(), time.monotonic()
        seen = (state["cancel_requested"], state["lost"])
        if seen != self._told or now - self._told_at > self._lease.lease_seconds / 3:
            self._told, self._told_at = seen, now
            self._caller.reply(state)

    def _state(self) -> Message:
        progress, lost = self._lease.record.progress, None
        try:
            self._lease.check()
        except LeaseExpiredError as exc:
            lost = str(exc)
        return {
            "cancel_requested": self._lease.record.cancel_requested,
            "lost": lost,
            "progress": None if progress is None else progress.to_dict(),
        }

    def _answer(self, envelope: Envelope) -> None:
        """Do what the other side asks for."""
        message, error = envelope.message, None
        try:
            if message["kind"] == "report":
                self._lease.report(
                    Progress.model_validate(message["progress"]),
                    throttle_seconds=float(message["throttle_seconds"]),
                    wait=bool(message["wait"]),
                )
            elif message["kind"] == "extend":
                self._lease.extend(float(message["seconds"]))
        except LeaseExpiredError:
            pass  # the state says so
        except Exception as exc:
            error = str(exc)
        envelope.reply({**self._state(), "number": message.get("number"), "error": error})

    def _result(self) -> Outcome | str:
        """Return what the executor gives back."""
        try:
            values = self._future.result()
        except BaseException as exc:
            return self._no_result(exc)
        if isinstance(values, Outcome):
            return values
        if values is None:
            return "it did not begin: it heard nothing of the worker"
        return unpack(values)

    def _no_result(self, error: BaseException) -> Outcome | str:
        reason = f"{type(error).__name__}: {error}"
        is_crash = isinstance(error, (BrokenExecutor, CancelledError)) or type(error).__name__ == "KilledWorker"
        self.has_crashed = True
        if not is_crash and self._caller is not None:
            return calls.failure(error, self._retry_on)
        if not is_crash:
            self.problem = reason
        return reason if self._caller is None else self._crash(reason)

    def _crash(self, reason: str) -> Outcome:
        """Return the outcome of a run whose process is gone: another try."""
        begun = self._caller.message if self._caller is not None else {}
        where = f"process {begun.get('pid')} on {begun.get('host')}"
        text = (
            f"LostProcess: {where}, which ran the task, is gone: killed, out of memory or crashed.\n\n{reason}\n\n"
            "It left no traceback. The system's log says whether memory ran out (dmesg, journalctl -k)."
        )
        first = reason.strip().partition("\n")[0]
        logger.warning("task %s: %s, which ran it, is gone; it is tried again: %s", self._lease.task_id, where, first)
        return Outcome(error=RetryableError(text.partition("\n")[0]), verdict=Verdict.RETRY, text=text)


class _Pool:
    """An executor, made when it is needed; made anew, when it is ours, after its processes are gone.

    Args:
        make: returns it.
        is_own: it is ours.
        is_for_one: one call at a time runs in it.
    """

    def __init__(self, make: Callable[[], Any], *, is_own: bool, is_for_one: bool) -> None:
        self._make, self.is_own, self.is_for_one = make, is_own, is_for_one
        self._lock = threading.Lock()
        self._executor: Executor | None = None

    def get(self) -> Executor:
        """Return the executor."""
        with self._lock:
            if self._executor is None:
                made = self._make()
                if not isinstance(made, Executor):
                    raise ConfigurationError(
                        f"executor: the function returned {type(made).__name__}, not a concurrent.futures executor"
                    )
                self._executor = made
            return self._executor

    def renew(self, broken: Executor | None) -> None:
        """Have another one made, unless that was done since ``broken`` was got."""
        with self._lock:
            if not self.is_own or broken is None or self._executor is not broken:
                return
            self._executor = None
        _end(broken, is_idle=False)

    def close(self, *, is_idle: bool) -> None:
        """End the executor when it is ours."""
        with self._lock:
            executor, self._executor = self._executor, None
        if self.is_own and executor is not None:
            _end(executor, is_idle=is_idle)


def _end(executor: Executor, *, is_idle: bool) -> None:
    """Shut an executor down, with the processes that still run something; its threads cannot be ended."""
    processes = list((getattr(executor, "_processes", None) or {}).values())
    manager = getattr(executor, "_executor_manager_thread", None)
    with contextlib.suppress(Exception):  # whatever state it is in
        if is_idle:  # processes that end by themselves leave nothing behind
            executor.shutdown(wait=False)
            if manager is not None:
                manager.join(_END_SECONDS)
            if manager is None or not manager.is_alive():
                return
        elif _is_loky(executor):
            executor.shutdown(wait=True, kill_workers=True)  # type: ignore[call-arg]
            return
        else:
            executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


def _is_loky(executor: Any) -> bool:
    return any(kind.__module__.startswith("loky.") for kind in type(executor).__mro__)


def _shares_memory(executor: Any) -> bool:
    """Return whether code runs in this very interpreter: nothing has to be sent."""
    interpreters = getattr(concurrent.futures, "InterpreterPoolExecutor", ())
    return isinstance(executor, ThreadPoolExecutor) and not (interpreters and isinstance(executor, interpreters))


def _maker_of_processes() -> Callable[[], Any]:
    """Return what makes an executor of one process, which takes functions that were defined in a notebook."""
    try:
        import cloudpickle  # noqa: F401
        import loky
    except ImportError as exc:
        raise ConfigurationError(
            f'executor: "processes" needs a package that is not installed ({exc}): pip install "oq-nb[processes]"'
        ) from exc
    return lambda: loky.ProcessPoolExecutor(max_workers=1, initializer=init_process, initargs=(os.getpid(),))


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
