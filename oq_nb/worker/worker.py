"""Workers: poll, claim, run handlers in background threads, recover what others lost.

One thread polls the index (``oq-worker-…``), ``concurrency`` threads claim and run (``oq-handler-…``), a `Scheduler`
renews leases, writes progress and sends the heartbeat. All are daemons; `Worker.stop` ends and joins them.

Invariants:

* A handler runs only under a lease of its own; what is done at an index entry is in `claims`, a run in `attempt`.
* No thread of a worker ends before `Worker.stop`, whatever the store or a handler does.

Imports of the package: `queue`, `attempt` and what they stand on.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import signal
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from oq_nb import model
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import Handler, handler_of
from oq_nb.attempt.invoke import Outcome, call
from oq_nb.attempt.lease import Lease
from oq_nb.attempt.run import run_attempt
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.errors import ConfigurationError, LeaseExpiredError, OqError, StorageError
from oq_nb.model import WorkerRecord, transitions
from oq_nb.queue import Queue
from oq_nb.store import verify_conditional_writes
from oq_nb.store.index import IndexEntry
from oq_nb.worker.claims import Claim, Claims
from oq_nb.worker.heartbeat import Heartbeat

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Executor

    from oq_nb.worker.executors.backend import ExecutorBackend

__all__ = ["Worker"]

logger = logging.getLogger("oq_nb.worker")

F = TypeVar("F", bound=Callable[..., Any])
Hook = Callable[..., Any]

_MIN_POLL_SECONDS = 0.1
_LEASE_SCAN_SECONDS = (2.0, 60.0)
_EXIT_SECONDS = 2.0
_BACKLOG = 4  # entries kept waiting per handler thread
_MAX_DELAY_SECONDS = 60.0  # of a lease entry

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

    Example:
        >>> worker = Worker(queue)                      # doctest: +SKIP
        >>> @worker.task("double")                      # doctest: +SKIP
        ... def double(input, context):
        ...     return input * 2
        >>> worker.start()                              # doctest: +SKIP

    Requests: idle: at most 1 LIST per ``max_poll_seconds`` and per minute, 1 PUT and 1 DELETE per 15 s. A task: 1 GET,
    2 PUT and 1 DELETE for its claim, 1 PUT and 1 DELETE for its end; 1 GET, 2 PUT and 1 DELETE in all for one that ends
    within ``lease_entry_delay_seconds``.
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
        self.queue = queue
        self.worker_id = _worker_id(worker_id)
        self.shards = _own_shards(shards, queue.all_shards())
        self.concurrency = concurrency
        self.progress_throttle_seconds = progress_throttle_seconds
        self.renew_leases = renew_leases
        self.max_poll_seconds = max(_MIN_POLL_SECONDS, max_poll_seconds)
        self.tasks_completed = 0
        self.tasks_failed = 0
        self._retry_on = tuple(retry_on)
        self._elsewhere = None if executor is None else _elsewhere(executor, self.worker_id)
        self._handlers: dict[str, Handler] = {}
        self._hooks: dict[str, list[Hook]] = {"startup": [], "shutdown": [], "success": [], "error": []}
        self._store = queue.store
        self._claims = Claims(self._store, self.worker_id, lambda task_type: task_type in self._handlers)
        self._claims.lease_entry_delay_seconds = lease_entry_delay_seconds
        self._changed = threading.Condition()  # guards the fields below
        self._backlog: deque[IndexEntry] = deque()
        self._leases: dict[str, Lease] = {}
        self._busy = 0
        self._batch, self._has_claimed = 1, True
        self._woken = False
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._scheduler: Scheduler | None = None
        self._trails: Scheduler | None = None  # apart, so that a store that is slow to delete does not keep up renewals
        self._heartbeat: Heartbeat | None = None
        self._started_at = self._store.clock.stamp()
        self._pid = 0  # of the process that started it: a fork of that has a copy, and none of the threads

    def __repr__(self) -> str:
        state = "stopped" if not self.is_running else "running" if self.problem is None else "claims nothing more"
        types = ", ".join(sorted(self._handlers)) or "no handlers"
        return (
            f"<Worker {self.worker_id} {state}, {len(self._leases)}/{self.concurrency} busy, "
            f"{self.tasks_completed} completed, {self.tasks_failed} failed: {types}>"
        )

    def _repr_html_(self) -> str:
        from oq_nb.display.markup import worker_html

        describes = WorkerRecord.from_bytes(self._describe())
        return str(worker_html(describes, is_running=self.is_running, concurrency=self.concurrency))

    # --- handlers and hooks

    def task(self, task_type: str) -> Callable[[F], F]:
        """Register the decorated function as the handler of a task type.

        It is called with the input, and with a `TaskContext` when it takes a second argument; what it returns is the
        task's output. ``async def`` works too.
        """

        def register(function: F) -> F:
            self._add(handler_of(task_type, function))
            return function

        model.check_task_type(task_type)
        return register

    def register(self, handler: Any) -> None:
        """Register an object with ``task_type`` and ``handle(input, context)``."""
        try:
            task_type, function = handler.task_type, handler.handle
        except AttributeError as exc:
            raise ConfigurationError(f"handler: it needs task_type and handle: {exc}") from None
        self._add(handler_of(task_type, function))

    def _add(self, handler: Handler) -> None:
        self._handlers[handler.task_type] = handler
        self._claims.handlers_changed()
        self.wake()

    def on_startup(self, hook: F) -> F:
        """Call ``hook()`` when the worker starts; usable as a decorator."""
        self._hooks["startup"].append(hook)
        return hook

    def on_shutdown(self, hook: F) -> F:
        """Call ``hook()`` when the worker has stopped; usable as a decorator."""
        self._hooks["shutdown"].append(hook)
        return hook

    def on_success(self, hook: F) -> F:
        """Call ``hook(context, output)`` after a task has completed; usable as a decorator."""
        self._hooks["success"].append(hook)
        return hook

    def on_error(self, hook: F) -> F:
        """Call ``hook(context, error)`` after a handler has raised; usable as a decorator."""
        self._hooks["error"].append(hook)
        return hook

    def _call_hooks(self, name: str, *arguments: Any) -> None:
        for hook in self._hooks[name]:
            try:
                hook(*arguments)
            except Exception:
                logger.exception("the %s hook %r failed", name, hook)

    # --- life

    @property
    def is_running(self) -> bool:
        """Whether its threads run."""
        return bool(self._threads) and not self._stopping

    @property
    def problem(self) -> str | None:
        """Why it claims nothing any more, such as an executor that is broken; None while all is well."""
        return None if self._elsewhere is None else self._elsewhere.problem

    @property
    def task_types(self) -> list[str]:
        """Types that it has a handler for."""
        return sorted(self._handlers)

    @property
    def current_tasks(self) -> list[str]:
        """Ids of the tasks that it runs."""
        with self._changed:
            return list(self._leases)

    def start(self) -> Worker:
        """Start the background threads and return at once; calling it again changes nothing.

        Raises:
            ConfigurationError: no handler is registered, or the store ignores conditional writes.
            StorageError: the store does not answer.

        Requests: 3 PUT, which register the worker and prove that the store refuses stale writes.
        """
        if self._threads:
            return self
        if not self._handlers:
            raise ConfigurationError('no handler: register one with @worker.task("type") before start()')
        if self._elsewhere is not None:
            self._elsewhere.start(self._handlers.values(), self._retry_on)
        self._stopping = False
        self._scheduler = Scheduler(self.worker_id, max_threads=min(self.concurrency, 16) + 1)
        self._trails = Scheduler(f"{self.worker_id}-trail", max_threads=min(self.concurrency, 16))
        self._claims.scheduler = self._trails
        self._started_at = self._store.clock.stamp()
        self._heartbeat = Heartbeat(self._store.objects, self.worker_id, self._describe)
        verify_conditional_writes(self._store.objects, self._heartbeat.key, self._describe())
        self._heartbeat.tidy()
        self._scheduler.call(self._heartbeat)
        self._call_hooks("startup")
        names = [("worker", self._poll)] + [("handler", self._serve)] * self.concurrency
        for number, (name, target) in enumerate(names):
            thread = threading.Thread(target=target, name=f"oq-{name}-{self.worker_id}-{number}", daemon=True)
            self._threads.append(thread)
        self.queue.local_workers.add(self)
        self._pid = os.getpid()
        _started.add(self)
        for thread in self._threads:
            thread.start()
        return self

    def stop(self, timeout: float = 30.0) -> None:
        """Stop: claim nothing more, let running tasks finish, hand back those that do not.

        Args:
            timeout: seconds that running tasks are given; then they go back to pending at once, their handlers'
                next report raises `LeaseExpiredError`, and their results are thrown away.
        """
        if not self._threads or self._scheduler is None:
            return
        deadline = time.monotonic() + max(0.0, timeout)
        with self._changed:
            self._stopping = True
            self._backlog.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._busy == 0, max(0.0, deadline - time.monotonic()))
            left = list(self._leases.values())
        for lease in left:
            self._hand_back(lease)
        if self._elsewhere is not None:
            self._elsewhere.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(1.0 if left else 10.0)
        alive = [thread.name for thread in self._threads if thread.is_alive()]
        if alive:
            logger.warning("handlers that do not stop are left to themselves, their tasks are handed back: %s", alive)
        if self._trails is not None:
            self._trails.finish(max(1.0, min(10.0, deadline - time.monotonic())))
            self._trails.stop()
        self._scheduler.stop()
        if self._heartbeat is not None:
            self._heartbeat.remove()
        with self._changed:  # what handlers that do not stop still do is no longer this worker's
            self._threads, self._heartbeat = [], None
            self._leases.clear()
            self._busy = 0
        self.queue.local_workers.remove(self)
        _started.discard(self)
        self._call_hooks("shutdown")

    def _hand_back(self, lease: Lease) -> None:
        try:
            lease.finish(
                lambda record, now: transitions.release(record, now, lease_id=lease.lease_id), give_up=lambda: True
            )
            logger.info("task %s was handed back to pending", lease.task_id)
        except LeaseExpiredError as exc:  # its handler came to an end just now
            logger.debug("task %s is not handed back: %s", lease.task_id, exc)
        except OqError as exc:
            logger.warning("task %s could not be handed back, its lease will run out: %s", lease.task_id, exc)

    def run(self) -> None:
        """Start, and block until Ctrl-C or SIGTERM; then stop. Requests: see `start`.

        Raises:
            ConfigurationError: the executor is broken, and is not the worker's to make anew.
        """
        ended = threading.Event()
        earlier: Any = None
        in_main = threading.current_thread() is threading.main_thread()
        if in_main:
            earlier = signal.signal(signal.SIGTERM, lambda *_: ended.set())
        self.start()
        try:
            while self.is_running and self.problem is None and not ended.wait(0.5):
                pass
        except KeyboardInterrupt:
            pass
        finally:
            if in_main:
                signal.signal(signal.SIGTERM, earlier)
            self.stop()
        if self.problem is not None:
            raise ConfigurationError(self.problem)

    def __enter__(self) -> Worker:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def wake(self) -> None:
        """Look for tasks now, instead of when the pause between two looks is over."""
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def _ends(self) -> bool:
        """Return whether the thread that asks has to end: after `stop`, whether or not `start` was called again."""
        return self._stopping or threading.current_thread() not in self._threads

    # --- polling

    def _poll(self) -> None:
        now = time.monotonic()
        idle_since = now
        next_ready = next_leases = now
        is_out = False  # the store does not answer
        while True:
            with self._changed:
                if self._ends():
                    return
                wants_more = self._wants_more()
                if self._woken:
                    self._woken, idle_since, next_ready = False, time.monotonic(), 0.0
            now = time.monotonic()
            try:
                if wants_more and now >= next_ready:
                    if self._look_for_tasks():
                        idle_since = now
                    is_out = False
                    next_ready = time.monotonic() + self._pause(now - idle_since)
                if now >= next_leases:
                    soonest = self._look_at_leases()
                    is_out = False
                    low, high = _LEASE_SCAN_SECONDS
                    next_leases = min(now + min(high, max(low, (now - idle_since) / 4)), max(now + 0.5, soonest))
            except StorageError as exc:
                # Said once, and not beside a running task's own warning.
                level = logging.DEBUG if is_out or self._leases else logging.WARNING
                logger.log(level, "worker %s cannot look for tasks for now, trying on: %s", self.worker_id, exc)
                is_out = True
                next_ready = next_leases = time.monotonic() + random.uniform(1, 3)
            except Exception:
                logger.exception("worker %s: a look for tasks failed", self.worker_id)
                next_ready = next_leases = time.monotonic() + 5
            due = self._claims.next_due_at()
            with self._changed:
                until = min(next_leases, next_ready if self._wants_more() else float("inf"), max(due, now + 0.05))
                if not self._ends() and not self._woken:
                    self._changed.wait(max(0.0, min(until - time.monotonic(), self.max_poll_seconds)))
            if due <= time.monotonic():
                next_ready = min(next_ready, time.monotonic())

    def _wants_more(self) -> bool:
        return len(self._backlog) < self.concurrency and self._busy < self.concurrency and self.problem is None

    def _pause(self, idle_seconds: float) -> float:
        """Return the pause between two looks: a quarter of the time that nothing was found, within bounds."""
        pause = min(self.max_poll_seconds, max(_MIN_POLL_SECONDS, idle_seconds / 4))
        return pause * random.uniform(0.8, 1.0)

    def _look_for_tasks(self) -> bool:
        """Read the ready index; return whether there was anything for the handler threads."""
        minute = model.minute_of(self.queue.now())
        own = set(self.shards)

        def wants(entry: IndexEntry) -> bool:
            return entry.shard in own and self._claims.is_due(entry)

        entries = self._store.index.scan(model.READY, until_minute=minute, wants=wants)
        if len(entries) >= 1000:  # more than one page: look at the heads of some shards instead
            entries = []
            for shard in random.sample(self.shards, len(self.shards)):
                entries += self._store.index.scan(f"{model.READY}{shard}/", until_minute=minute, wants=wants)
                if len(entries) >= self.concurrency * _BACKLOG:
                    break
        fresh = self._claims.due(entries)
        random.shuffle(fresh)  # so that several workers do not fight over the same head
        fresh.sort(key=lambda entry: entry.minute)
        # Twice as many each time that none could be claimed: entries that are of no use here must not hide the others.
        self._batch = self.concurrency * _BACKLOG * 8 if self._has_claimed else min(1000, self._batch * 2)
        fresh = fresh[: self._batch]
        self._has_claimed = not fresh
        self._claims.take_up(fresh)
        with self._changed:
            self._backlog.extend(fresh)
            self._changed.notify_all()
        return bool(fresh)

    def _look_at_leases(self) -> float:
        """Recover tasks whose lease has run out; return the monotonic time when the next one may have."""
        minute = model.minute_of(self.queue.now())
        own = set(self.shards)
        entries = self._store.index.scan(model.LEASES, until_minute=minute)
        if len(entries) >= 1000:  # many at once, or many that lead nowhere and hide the others
            entries = self._store.index.scan(model.LEASES, until_minute=minute, limit=100_000)
        for entry in self._claims.due(entries):
            if self._stopping:
                break
            if entry.shard in own and entry.task_id not in self._leases:
                try:
                    self._claims.handle_entry(entry)
                except StorageError:
                    raise
                except Exception:  # one task that cannot be recovered must not keep the others from it
                    logger.exception("worker %s: task %s", self.worker_id, entry.task_id)
                    self._claims.look_again(entry, 60)
        return min((self._claims.due_at(entry) for entry in entries), default=float("inf"))

    # --- handler threads

    def _serve(self) -> None:
        """A handler thread: take an entry, claim its task, run it."""
        loop: asyncio.AbstractEventLoop | None = None
        while True:
            with self._changed:
                while not (self._backlog and self.problem is None) and not self._ends():
                    self._changed.wait()
                if self._ends():
                    break
                entry = self._backlog.popleft()
                self._busy += 1
            try:
                claim = self._claims.handle_entry(entry, may_claim=True)
                if claim is not None:
                    self._has_claimed = True
                    if self._handlers[claim.held.record.task_type].is_async and not (loop or self._elsewhere):
                        import asyncio

                        loop = asyncio.new_event_loop()
                    self._run(claim, loop)
            except StorageError as exc:
                logger.warning("worker %s: task %s has to wait: %s", self.worker_id, entry.task_id, exc)
                self._claims.look_again(entry, random.uniform(1, 3))
            except Exception:
                logger.exception("worker %s: task %s", self.worker_id, entry.task_id)
                self._claims.look_again(entry, 60)
            finally:
                with self._changed:
                    if threading.current_thread() in self._threads:
                        self._busy -= 1
                    if len(self._backlog) < self.concurrency:
                        self._changed.notify_all()
        if loop is not None:
            loop.close()

    def _run(self, claim: Claim, loop: asyncio.AbstractEventLoop | None) -> None:
        """Run the handler of a claimed task to its end."""
        record = claim.held.record
        assert self._scheduler is not None
        lease = Lease(
            self._store,
            claim.held,
            self._scheduler,
            lease_seconds=record.lease_seconds,
            renews=self.renew_leases,
            on_ended=claim.trail.end,
            on_written=self.queue.watcher.ingest,
        )
        self.queue.watcher.ingest(claim.held, from_attempt=True)
        context = TaskContext(lease, throttle_seconds=self.progress_throttle_seconds)
        handler, retry_on = self._handlers[record.task_type], self._retry_on

        def run(task_input: Any) -> Outcome:
            if self._elsewhere is not None:
                from oq_nb.worker.executors.backend import Job

                job = Job(handler, task_input, lease, context, retry_on, self.progress_throttle_seconds)
                return self._elsewhere.run(job)
            return call(handler, task_input, context, retry_on=retry_on, loop=loop)

        with self._changed:
            self._leases[record.id] = lease
        try:
            if self._stopping:  # it was being claimed when `stop` began
                self._hand_back(lease)
                return
            output, error = run_attempt(
                self._store,
                lease,
                handler,
                context,
                run=run,
                gives_up=lambda: self._stopping,
            )
        except LeaseExpiredError as exc:
            why = str(exc).removeprefix(f"task {record.id}: ")
            logger.warning("the result of task %s is thrown away: %s", record.id, why)
            claim.trail.abandon()
            return
        finally:
            with self._changed:
                if self._leases.get(record.id) is lease:  # else it was handed back, and claimed anew
                    del self._leases[record.id]
        if error is None:
            self.tasks_completed += 1
            self._call_hooks("success", context, output)
        else:
            self.tasks_failed += 1
            self._call_hooks("error", context, error)

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


def _elsewhere(executor: Any, worker_id: str) -> ExecutorBackend | None:
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


@atexit.register
def _stop_all() -> None:
    """At the interpreter's end: hand running tasks back, as far as there is time; not at that of a handler's fork."""
    for worker in [worker for worker in _started if worker._pid == os.getpid()]:
        worker.stop(_EXIT_SECONDS)
