"""`Worker`: what users register handlers and hooks with, start and stop.

Its threads live in a `Session`, a new one for each start: one polls the index, ``concurrency`` ones claim and run.

Invariants: what it was told is read when it starts; counters are kept from one start to the next.

Imports of the package: `queue`, `attempt`, and of this room `session` and `pauses`.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from oq_nb import model
from oq_nb.attempt.handlers import Handler, handler_of
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import ConfigurationError, RescheduleError
from oq_nb.forks import after_fork
from oq_nb.model import TaskStatus, WorkerRecord
from oq_nb.queue import Queue
from oq_nb.queue.functions import place_of
from oq_nb.worker.ending import Limit, RunLimits
from oq_nb.worker.hooks import Hooks
from oq_nb.worker.parallel import run_until
from oq_nb.worker.pauses import MIN_POLL_SECONDS
from oq_nb.worker.reruns import changed_handlers, say_replaced
from oq_nb.worker.runner import EndedAttempt
from oq_nb.worker.session import Session, WorkerSettings

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from oq_nb.queue.functions import Functions
    from oq_nb.worker.executors.backend import ExecutorBackend

__all__ = ["Worker"]

logger: logging.Logger = logging.getLogger("oq_nb.worker")

F = TypeVar("F", bound=Callable[..., Any])

_EXIT_SECONDS = 2.0
_NO_BOUND_SECONDS = 1e8
_MAX_DELAY_SECONDS = 60.0  # of a lease entry
_MAX_SCHEDULER_THREADS = 16
_MIN_LOG_BYTES, _MAX_LOG_BYTES = 10_000, 1_000_000_000
_RECOVERY_THREADS = 8
_RECOVERY_LINGER_SECONDS = 10.0

#: Workers that this process has started and not stopped.
_started: weakref.WeakSet[Worker] = weakref.WeakSet()


class Worker:
    """Runs the tasks of a queue in background threads.

    Args:
        queue: where the tasks are.
        worker_id: a name of its own; None makes one from host and process.
        shards: only tasks of these; None for all.
        concurrency: tasks at a time, from 1.
        progress_throttle_seconds: default of ``report_progress``: at most one write per so many seconds.
        renew_leases: renew while the handler runs; else a lease is the longest run.
        retry_on: exception types that count as retryable, besides `RetryableError`.
        executor: where handlers run. None or ``"threads"``: in the worker's threads. ``"processes"``: each in a process
            of its own, made anew when it is killed. A `concurrent.futures` executor (``ProcessPoolExecutor()``, Dask's
            ``Client.get_executor()``, …): there; it is never shut down. A function that returns one: the worker shuts
            it down, and makes it anew when its processes were killed. What a killed process ran counts as a retry.
        max_poll_seconds: longest pause between two looks at an idle queue.
        lease_entry_delay_seconds: how long after its claim a task gets its entry under ``leases/``, up to 60. Tasks
            that are over by then go without: 4 requests instead of 6. Only where no worker of upstream's (``buquet``)
            is on the same bucket and prefix: it removes the ready entry that leads to the task until then, and should
            this worker die before the other entry is written, nothing leads to the task any more.
        logs: keep what handlers print and log in the bucket, for ``task.logs()``, ``oq logs``, widget and page; see
            docs/how-to/logs.md for what is caught. Whoever can read the bucket can read it.
        log_limit_bytes: how much is kept of each attempt, from 10,000: its beginning and its end.
        functions: ``queue.functions``, to run all task functions of the queue in this process, also those that are
            defined later; see `oq_nb.Queue.start_worker`.

    Example:
        >>> worker = Worker(queue)                      # doctest: +SKIP
        >>> @worker.task("double")                      # doctest: +SKIP
        ... def double(input, context):
        ...     return input * 2
        >>> worker.start()                              # doctest: +SKIP

    Requests: idle: at most 1 LIST per ``max_poll_seconds`` and per minute, 1 GET per 2 to 3 s for hints, 1 PUT and
    1 DELETE per 15 s (25 s after five minutes); with more than 1,000 entries in an index (tasks that are scheduled
    ahead, for one) 1 LIST of one shard each 4 s. A task: 1 GET, 2 PUT and 1 DELETE for its claim, 1 PUT and 1 DELETE
    for its end; 1 GET, 2 PUT and 1 DELETE in all for one that ends within ``lease_entry_delay_seconds``. In the half
    second after a task 4 to 9 LIST more, where no other waits. With ``logs`` a task that prints something: 1 PUT per
    5 s meanwhile, and 1 at its end (2 when it printed more than half of ``log_limit_bytes``; then 1 DELETE for each
    piece that makes room).
    """

    def __init__(
        self,
        queue: Queue,
        worker_id: str | None = None,
        shards: Iterable[str] | None = None,
        *,
        concurrency: int = 1,
        progress_throttle_seconds: float = 0.0,
        renew_leases: bool = True,
        retry_on: Iterable[type[BaseException]] = (),
        executor: Executor | str | Callable[[], Executor] | None = None,
        max_poll_seconds: float = 15.0,
        lease_entry_delay_seconds: float = 0.0,
        logs: bool = False,
        log_limit_bytes: int = 10_000_000,
        functions: Functions | None = None,
    ) -> None:
        if not isinstance(queue, Queue):
            raise ConfigurationError(f"queue: what connect() returns is needed, not {type(queue).__name__}")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= 1000:
            raise ConfigurationError(f"concurrency: a whole number from 1 to 1000 is needed, not {concurrency!r}")
        for name, value in (
            ("progress_throttle_seconds", progress_throttle_seconds),
            ("max_poll_seconds", max_poll_seconds),
            ("lease_entry_delay_seconds", lease_entry_delay_seconds),
        ):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
                raise ConfigurationError(f"{name}: a number of seconds from 0 is needed, not {value!r}")
        if lease_entry_delay_seconds > _MAX_DELAY_SECONDS:
            most = f"{_MAX_DELAY_SECONDS:g} s at most"
            raise ConfigurationError(f"lease_entry_delay_seconds: {most}, not {lease_entry_delay_seconds!r}")
        if not isinstance(logs, bool):
            raise ConfigurationError(f"logs: True or False is needed, not {logs!r}"[:200])
        if (
            isinstance(log_limit_bytes, bool)
            or not isinstance(log_limit_bytes, int)
            or not (_MIN_LOG_BYTES <= log_limit_bytes <= _MAX_LOG_BYTES)
        ):
            raise ConfigurationError(
                f"log_limit_bytes: a whole number from {_MIN_LOG_BYTES:,} to {_MAX_LOG_BYTES:,} is needed, not "
                f"{log_limit_bytes!r}"[:200]
            )
        self.queue = queue
        self.worker_id: str = _worker_id(worker_id)
        self.shards: list[str] = _own_shards(shards, queue.all_shards())
        self.concurrency = concurrency
        self.progress_throttle_seconds = progress_throttle_seconds
        self.renew_leases = renew_leases
        self.max_poll_seconds: float = max(MIN_POLL_SECONDS, max_poll_seconds)
        self.lease_entry_delay_seconds = lease_entry_delay_seconds
        #: Keep what handlers print; read when it starts.
        self.logs = logs
        self.log_limit_bytes = log_limit_bytes
        #: Attempts whose output was written.
        self.tasks_completed: int = 0
        #: Attempts whose handler raised; not those of tasks that were cancelled or put off.
        self.tasks_failed: int = 0
        #: What `on_startup` and the like have registered.
        self.hooks: Hooks = Hooks()
        self._lock = threading.Lock()  # guards the counters, and the change from one session to none
        self._retry_on = tuple(retry_on)
        self._backend = None if executor is None else _make_backend(executor, self.worker_id)
        self._functions = functions
        self._handlers: dict[str, Handler] = {f.task_type: f.handler for f in functions or ()}
        self._store = queue.store
        self._session: Session | None = None
        self._limits = RunLimits()
        self._started_at = self._store.clock.stamp()
        after_fork(self._renew_in_child)

    def __repr__(self) -> str:
        state = "stopped" if not self.is_running else "running" if self.problem is None else "claims nothing more"
        types = ", ".join(sorted(self._handlers)) or "no handlers"
        return (
            f"<Worker {self.worker_id} {state}, {len(self.current_tasks)}/{self.concurrency} busy, "
            f"{self.tasks_completed} completed, {self.tasks_failed} failed: {types}>"
        )

    def _repr_html_(self) -> str:
        from oq_nb.display.markup import worker_html
        from oq_nb.display.safe import as_text

        describes = WorkerRecord.from_bytes(self._describe())
        return as_text(worker_html(describes, is_running=self.is_running, concurrency=self.concurrency))

    # --- handlers and hooks

    def task(self, task_type: str) -> Callable[[F], F]:
        """Register the decorated function as the handler of a task type.

        It is called with the input, and with a `TaskContext` when it takes a second argument; what it returns is the
        task's output. ``async def`` works too.
        """

        def register(function: F) -> F:
            self.set_handler(handler_of(task_type, function))
            return function

        model.check_task_type(task_type)
        return register

    def register(self, handler: Any) -> None:
        """Register an object with ``task_type`` and ``handle(input, context)``, or a task function."""
        if isinstance(ready := getattr(handler, "handler", None), Handler):
            self.set_handler(ready)
            return
        try:
            task_type, function = handler.task_type, handler.handle
        except AttributeError as exc:
            raise ConfigurationError(f"handler: it needs task_type and handle: {exc}") from None
        self.set_handler(handler_of(task_type, function))

    def set_handler(self, handler: Handler) -> None:
        """Run the tasks of a type by this handler from now on."""
        self._handlers[handler.task_type] = handler
        if self._session is not None:
            self._session.claims.handlers_changed()
        self.wake()

    def on_startup(self, hook: F) -> F:
        """Call ``hook()`` when the worker starts; usable as a decorator. Coroutine functions are awaited."""
        self.hooks.add("startup", hook)
        return hook

    def on_shutdown(self, hook: F) -> F:
        """Call ``hook()`` when the worker has stopped; usable as a decorator. Coroutine functions are awaited."""
        self.hooks.add("shutdown", hook)
        return hook

    def on_success(self, hook: F) -> F:
        """Call ``hook(context, output)`` after a task has completed; usable as a decorator.

        Coroutine functions are awaited, on the event loop that ran a coroutine handler.
        """
        self.hooks.add("success", hook)
        return hook

    def on_error(self, hook: F) -> F:
        """Call ``hook(context, error)`` after a handler has raised; usable as a decorator. See `on_success`."""
        self.hooks.add("error", hook)
        return hook

    # --- life

    @property
    def is_running(self) -> bool:
        """Whether its threads run."""
        return self._session is not None and not self._session.is_stopping

    @property
    def problem(self) -> str | None:
        """Why it claims nothing any more, such as an executor that is broken; None while all is well."""
        return None if self._backend is None else self._backend.problem

    def set_limits(self, until_idle: float | None = None, max_tasks: int | None = None) -> None:
        """Say when `reached_limit` is to tell that it has come to its end; `run` does so by itself.

        Args:
            until_idle: see `run`.
            max_tasks: see `run`; no more is claimed from then on.

        Raises:
            ConfigurationError: an argument is not usable, or the worker is started already.
        """
        limits = RunLimits(until_idle, max_tasks)
        if limits and self._session is not None:
            raise ConfigurationError("until_idle, max_tasks: the worker is started already; stop() it first")
        self._limits = limits

    def reached_limit(self) -> Limit | None:
        """Return which of its limits a started worker has reached; None: it goes on. Not for several threads."""
        session = self._session
        return None if session is None or not session.is_limited else session.ending.reached()

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """Its handlers, by task type."""
        return MappingProxyType(self._handlers)

    @property
    def task_types(self) -> list[str]:
        """Types that it has a handler for."""
        return sorted(self._handlers)

    @property
    def current_tasks(self) -> list[str]:
        """Ids of the tasks that it runs."""
        return [] if self._session is None else list(self._session.runner)

    def start(self) -> Worker:
        """Start the background threads and return at once; calling it again changes nothing.

        Raises:
            ConfigurationError: no handler is registered, or the store ignores conditional writes.
            StorageError: the store does not answer.

        Requests: 4 PUT, which register the worker and prove that the store refuses stale writes.
        """
        if self._session is not None:
            return self
        if not self._handlers and self._functions is None:
            raise ConfigurationError('no handler: register one with @worker.task("type") before start()')
        if self._backend is not None:
            self._backend.start(self._handlers.values(), self._retry_on)
        self._started_at = self._store.clock.stamp()
        threads = min(self.concurrency, _MAX_SCHEDULER_THREADS)
        session = self._open_session(
            Scheduler(self.worker_id, max_threads=threads + 1),
            Scheduler(f"{self.worker_id}-index", max_threads=threads),
            Scheduler(f"{self.worker_id}-recovery", _RECOVERY_THREADS, linger_seconds=_RECOVERY_LINGER_SECONDS),
        )
        try:
            session.register()
            self.hooks.call("startup")
            self._session = session
            self.queue.local_workers.add(self)
            _started.add(self)
            _register_exit()
            if self._functions is not None:
                self._functions.subscribe(self)
            session.start()
        except BaseException:
            session.stop(0.0)
            self._forget_session()
            raise
        self._replace_earlier_runs()
        return self

    def _replace_earlier_runs(self) -> None:
        """Retire the workers that earlier runs of the same cell of a notebook have left."""
        place = place_of(self._store.objects)
        for worker in list(_started):
            if worker is self or not worker.is_running or place_of(worker.queue.store.objects) != place:
                continue
            changed = changed_handlers(worker.handlers, self.handlers)
            if changed is not None:
                worker.retire()
                say_replaced(worker.worker_id, changed)

    def _open_session(
        self, scheduler: Scheduler, index_scheduler: Scheduler | None, recovery: Scheduler | None = None
    ) -> Session:
        """Return what runs on these schedulers, before any thread of it is started."""
        settings = WorkerSettings(
            worker_id=self.worker_id,
            shards=self.shards,
            concurrency=self.concurrency,
            progress_throttle_seconds=self.progress_throttle_seconds,
            renew_leases=self.renew_leases,
            retry_on=self._retry_on,
            max_poll_seconds=self.max_poll_seconds,
            lease_entry_delay_seconds=self.lease_entry_delay_seconds,
            limits=self._limits,
            log_limit_bytes=self.log_limit_bytes if self.logs else None,
        )
        return Session(
            self.queue,
            settings,
            self._handlers,
            scheduler=scheduler,
            index_scheduler=index_scheduler,
            recovery=recovery,
            backend=self._backend,
            describe=self._describe,
            on_ended=self._note_end,
        )

    def _note_end(self, ended: EndedAttempt) -> None:
        """Count an attempt, and call the hooks."""
        if ended.error is None:
            with self._lock:
                self.tasks_completed += 1
            self.hooks.call("success", ended.context, ended.output, coroutines=ended.coroutines)
            return
        # A task that was cancelled or put off has not failed.
        is_failure = ended.status is not TaskStatus.CANCELLED and not isinstance(ended.error, RescheduleError)
        if is_failure:
            with self._lock:
                self.tasks_failed += 1
        self.hooks.call("error", ended.context, ended.error, coroutines=ended.coroutines)

    def stop(self, timeout: float = 30.0) -> None:
        """Stop: claim nothing more, let running tasks finish, hand back those that do not.

        Args:
            timeout: seconds that running tasks are given; then they go back to pending at once, their handlers'
                next report raises `LeaseExpiredError`, and their results are thrown away.

        It returns 5 s after that at the latest, also when the store does not answer; leases of tasks that could not be
        handed back run out.
        """
        if self._session is None:
            return
        self._session.stop(timeout)
        if self._forget_session():
            self.hooks.call("shutdown")

    def _renew_in_child(self) -> None:
        """Be a worker that is not started, in a process that was forked: threads and tasks are the parent's."""
        self._lock = threading.Lock()
        self._session = None
        self.queue.local_workers.remove(self)
        _started.discard(self)

    def _forget_session(self) -> bool:
        """Be a worker that is not started; return whether it was, for whoever is first of several."""
        with self._lock:
            was_started, self._session = self._session is not None, None
        if self._functions is not None:
            self._functions.unsubscribe(self)
        self.queue.local_workers.remove(self)
        _started.discard(self)
        return was_started

    def retire(self) -> None:
        """Claim nothing more, finish what runs, however long that takes, then stop. Returns at once."""
        if self._session is None:
            return
        self._session.backlog.close()
        name = f"oq-retire-{self.worker_id}"
        threading.Thread(target=self.stop, args=(_NO_BOUND_SECONDS,), name=name, daemon=True).start()

    def run(self, *, until_idle: float | None = None, max_tasks: int | None = None) -> Limit | Literal["stopped"]:
        """Start, and block until Ctrl-C or SIGTERM, or until a limit is reached; then stop.

        Args:
            until_idle: end after so many seconds without a task that it can run now. Tasks that are scheduled for
                later, or that run elsewhere, do not keep it. An outage of the store does not count.
            max_tasks: end after so many attempts at tasks; it claims no more than that.

        Returns:
            ``"idle"``, ``"max_tasks"`` or ``"stopped"``: why it has ended. `tasks_completed` and `tasks_failed` say
            what it did.

        Raises:
            ConfigurationError: an argument is not usable, or the worker is started already; or the
                executor is broken, and is not the worker's to make anew.

        Requests: see `start`; 2 LIST before it ends as idle.
        """
        self.set_limits(until_idle, max_tasks)
        ended = threading.Event()
        reached: Limit | None = None
        earlier: Any = None
        in_main = threading.current_thread() is threading.main_thread()
        if in_main:
            earlier = signal.signal(signal.SIGTERM, lambda *_: ended.set())
        try:
            self.start()
            while self.is_running and self.problem is None and not ended.wait(0.5):
                if (reached := self.reached_limit()) is not None:
                    break
        except KeyboardInterrupt:
            pass
        finally:
            if in_main:
                signal.signal(signal.SIGTERM, earlier)
            self.stop()
        if self.problem is not None:
            raise ConfigurationError(self.problem)
        return reached or "stopped"

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def wake(self, shard: str | None = None) -> None:
        """Look for tasks now, instead of when the pause between two looks is over.

        Args:
            shard: where one is known to be.
        """
        session = self._session
        if session is not None:
            session.backlog.wake(shard)

    def _describe(self) -> bytes:
        """Return what the heartbeat says."""
        current = self.current_tasks
        return WorkerRecord(
            worker_id=self.worker_id,
            started_at=self._started_at,
            last_heartbeat=self._store.clock.stamp(),
            shards=self.shards,
            current_task=current[0] if current else None,
            tasks_completed=self.tasks_completed,
            tasks_failed=self.tasks_failed,
            current_tasks=current,
            task_types=sorted(self._handlers),
        ).to_bytes()


def _make_backend(executor: Any, worker_id: str) -> ExecutorBackend | None:
    """Return what runs handlers outside of the worker's own threads; imported only for those who want it."""
    from oq_nb.worker.executors.backend import make_backend

    return make_backend(executor, worker_id, at_exit=_stop_all)


def _worker_id(worker_id: str | None) -> str:
    if worker_id is None:
        host = "".join(char for char in socket.gethostname() if char.isalnum() or char == "-")[:40] or "host"
        return f"{host}-{os.getpid()}-{model.new_id()[:6]}"
    if not isinstance(worker_id, str) or not 1 <= len(worker_id) <= 200:
        raise ConfigurationError("worker_id: text of 1 to 200 characters is needed")
    if "/" in worker_id or not worker_id.isprintable():
        raise ConfigurationError(f"worker_id: no slashes or control characters: {worker_id!r}")
    return worker_id


def _own_shards(shards: Iterable[str] | None, every: list[str]) -> list[str]:
    if shards is None:
        return every
    own = sorted(set(shards))
    wrong = [shard for shard in own if shard not in set(every)]
    if wrong or not own:
        raise ConfigurationError(f"shards: {wrong or 'none given'}; this queue has {every[0]} to {every[-1]}")
    return own


def _stop_all() -> None:
    """At the interpreter's end: hand running tasks back, as far as there is time; Jupyter gives a kernel 5 s."""
    deadline = time.monotonic() + 2 * _EXIT_SECONDS
    run_until(deadline, [partial(worker.stop, _EXIT_SECONDS) for worker in list(_started)], name="exit")


@cache
def _register_exit() -> None:
    """Have `_stop_all` called at the interpreter's end, once.

    By `threading`, where that is offered: functions of `atexit` may not start threads in CPython from 3.12 on.
    """
    register = getattr(threading, "_register_atexit", atexit.register)
    register(_stop_all)
