"""`Queue`: the tasks in a bucket, and what can be done with them from outside of a worker.

Imports of the package: `errors`, `model`, `store`, and this room; displays are drawn through `faces`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from oq_nb import model
from oq_nb.errors import ConfigurationError, OqError, RecordError, TaskNotFoundError, TransitionError
from oq_nb.model import RetryPolicy, TaskRecord, TaskStatus, Timestamp, WorkerRecord, transitions
from oq_nb.queue import faces
from oq_nb.queue.hints import HintWriter
from oq_nb.queue.recent import read_recent
from oq_nb.queue.submit import LocalWorkers, Submitter, check_instant, check_whole, new_record
from oq_nb.queue.task import Task
from oq_nb.queue.watcher import Watcher
from oq_nb.store import UNHAPPY, ReadyHint, TaskStore, VersionedTask
from oq_nb.store.index import IndexEntry
from oq_nb.tracing import current_trace, submit_span

if TYPE_CHECKING:
    from oq_nb.queue.faces import PageServer, QueueWidget, Timeline, Worker
    from oq_nb.queue.functions import Functions, TaskFunction
    from oq_nb.queue.groups import MapResults

__all__ = ["Queue"]

P = ParamSpec("P")
R = TypeVar("R")


class Queue:
    """The tasks in a bucket. Safe to use from several threads.

    Args:
        store: the tasks.
        label: shown in the repr, such as ``embedded seaweedfs``.
        hints: leave hints for idle workers elsewhere, and have workers look at them; see `oq_nb.store.hint`.
    """

    def __init__(self, store: TaskStore, *, label: str = "", hints: bool = False) -> None:
        self.store = store
        self._label = label
        #: Writes hints for idle workers elsewhere; None: nobody is told.
        self.hints: HintWriter | None = HintWriter(ReadyHint(store.objects)) if hints else None
        #: Workers of this process, woken for each task that is submitted here.
        self.local_workers: LocalWorkers = LocalWorkers(self.hints)
        self._submitter = Submitter(store, self.local_workers)
        #: Watches tasks for the widgets, pages and waiters of this process; makes no request while nobody does.
        self.watcher: Watcher = Watcher(store)
        self._widget: QueueWidget | None = None
        self._page: PageServer | None = None
        self._functions: Functions | None = None

    def __repr__(self) -> str:
        label = f" ({self._label})" if self._label else ""
        return f"<Queue {repr(self.store.objects)[1:-1].removeprefix('S3Store ')}{label}>"

    # --- showing

    def widget(self, interval: float = 2.0) -> QueueWidget:
        """Return a live display of the queue for a notebook; the same one each time.

        Args:
            interval: seconds between two reads while something changes; above 0.

        Requests: none before it is shown; then as `Watcher.overview` says, until it is closed or dropped.
        """
        if self._widget is None or self._widget.is_finished or self._widget.interval != interval:
            self._widget = faces.queue_widget(self, interval)
        return self._widget

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return faces.queue_bundle(self)

    def serve_ui(self, port: int = 0, *, interval: float = 2.0, allow_hosts: Iterable[str] = ()) -> PageServer:
        """Serve a web page of the queue on this machine, from a background thread; see docs/how-to/ui.md.

        Called again with the same arguments, it returns the one that is served already.

        Args:
            port: of 127.0.0.1; 0 for any that is free.
            interval: seconds between two reads while something changes; above 0.
            allow_hosts: names under which a proxy on another machine asks for it, such as ``hub.example.org``.

        Returns:
            What serves it, until its ``stop()`` or the end of the process; its ``url`` has the token that is needed.

        Raises:
            ConfigurationError: an argument is not usable, the port cannot be had, or ``oq-nb[ui]`` is not installed.

        Requests: none before the page is opened; then as `oq_nb.queue.watcher.Watcher` says, until it is closed.
        """
        hosts = allow_hosts if isinstance(allow_hosts, str) else tuple(allow_hosts)
        if self._page is None or not self._page.serves(port, interval, hosts):
            self._page = faces.serve_page(self, port, interval=interval, allow_hosts=hosts)
        return self._page

    @property
    def page(self) -> PageServer | None:
        """The web page that `serve_ui` serves; None where none is served."""
        return self._page if self._page is not None and self._page.is_running else None

    # --- functions that are tasks

    @property
    def functions(self) -> Functions:
        """The functions of this process whose tasks are in this bucket, under this prefix; see `task`."""
        if self._functions is None:
            from oq_nb.queue.functions import Functions

            self._functions = Functions.of(self.store.objects)
        return self._functions

    @overload
    def task(self, function: Callable[P, R], /) -> TaskFunction[P, R]: ...
    @overload
    def task(
        self,
        name: str | None = None,
        /,
        *,
        retry_on: Iterable[type[BaseException]] | type[BaseException] = (),
        idempotent: bool = False,
        **options: Any,
    ) -> Callable[[Callable[P, R]], TaskFunction[P, R]]: ...
    def task(self, function: Any = None, /, **options: Any) -> Any:
        """Make a function's calls submittable as tasks of this queue: ``train.submit(lr=0.1)``, ``train.map(lr=[…])``.

        The type of the tasks is the function's name. Arguments are checked against its signature when a task is
        submitted, and again by the worker; they are stored as plain JSON by name. Calling the function stays a plain
        call. Defining it again replaces it at once, for running workers of this process too. See
        docs/how-to/functions.md.

        Args:
            function: the decorated function; or the type of its tasks, where that is not to be the function's name.
            **options: ``retry_on``: exception types after which a task is tried again. ``idempotent``: a call with
                equal arguments returns the first task, for 30 days. All others as for `submit`, such as
                ``max_retries`` and ``timeout_seconds``.

        Raises:
            ConfigurationError: it is not a function that can be a task, or an argument is not usable.

        Requests: none.

        Example:
            >>> @queue.task                                   # doctest: +SKIP
            ... def train(lr: float, epochs: int = 10) -> float:
            ...     return lr * epochs
            >>> train.submit(lr=0.1).result()                 # doctest: +SKIP
        """
        from oq_nb.queue.functions import task

        return task(function, queue=self, **options)

    def start_worker(self, *functions: Any, concurrency: int = 1, **options: Any) -> Worker:
        """Start this kernel's worker; it runs all functions of the queue, also those that are defined later.

        A worker that was started so before is replaced: it claims nothing more, finishes what it runs, and one line
        says what has changed.

        Args:
            *functions: modules, or functions decorated with ``@oq_nb.task``, that it is to run as well.
            concurrency: tasks at a time, from 1.
            **options: as for `oq_nb.Worker`.

        Raises:
            ConfigurationError: an argument is not usable, or the store ignores conditional writes.
            StorageError: the store does not answer.

        Requests: as `oq_nb.Worker.start`.
        """
        return faces.start_worker(self, functions, concurrency=concurrency, **options)

    # --- submitting

    def submit(
        self,
        task_type: str,
        input: Any = None,  # noqa: A002
        *,
        timeout_seconds: int = 300,
        max_retries: int = 3,
        retry_policy: RetryPolicy | None = None,
        schedule_at: datetime | None = None,
        ttl_seconds: float | None = None,
        expires_at: datetime | None = None,
        max_reschedules: int | None = None,
        idempotency_key: str | None = None,
        idempotency_scope: str | None = None,
    ) -> Task:
        """Add a task.

        Args:
            task_type: which handler runs it; 1 to 200 characters.
            input: what the handler is given: anything that JSON holds. Above 64 KiB it is kept in an object of its own.
            timeout_seconds: length of a lease; a worker that dies is noticed within it. From 1.
            max_retries: further attempts after a retryable failure or a lost worker. From 0.
            retry_policy: delays between attempts.
            schedule_at: not to be run before; an aware `datetime`.
            ttl_seconds: not to be started later than this many seconds from now; 0: not at all.
            expires_at: not to be started at or after; an aware `datetime`. One in the past lets the task expire.
            max_reschedules: how often `RescheduleError` may put it off; None for always.
            idempotency_key: submitting again with the same key and input returns the first task, for 30 days.
            idempotency_scope: within which the key is unique; the task type when None.

        Raises:
            ConfigurationError: an argument is not usable, or the key stands for another input. Nothing was written.
            StorageError: the store did not take it; it may be there all the same when no answer came.

        Requests: 2 PUT; 1 PUT more for a large input, 1 PUT more with an idempotency key.
        """
        with submit_span(task_type) as trace:
            record = new_record(
                self.store,
                task_type,
                input,
                timeout_seconds=timeout_seconds,
                max_retries=max_retries,
                retry_policy=retry_policy,
                schedule_at=schedule_at,
                ttl_seconds=ttl_seconds,
                expires_at=expires_at,
                max_reschedules=max_reschedules,
                trace=trace,
            )
            if idempotency_key is None:
                return Task(self, self._submitter.create(record))
            return Task(self, self._submitter.create_once(record, idempotency_key, idempotency_scope or task_type))

    def submit_many(self, task_type: str, inputs: Iterable[Any], **options: Any) -> builtins.list[Task]:
        """Add many tasks, some at the same time.

        Args:
            task_type: which handler runs them.
            inputs: one for each task.
            **options: as for `submit`, the same for all.

        Returns:
            The tasks, in the order of their inputs.

        Raises:
            ConfigurationError: an argument is not usable. Nothing was written.
            StorageError: the store did not take all; its ``submitted`` lists the tasks that are there.

        Requests: 2 PUT each; see `submit`.
        """
        _check_many(inputs, options)
        items = list(inputs)
        with submit_span(task_type, task_count=len(items)) as trace:
            records = [new_record(self.store, task_type, item, trace=trace, **options) for item in items]
            made = [*self._submitter.create_many(records)]
        tasks = [Task(self, held) for held in made if isinstance(held, VersionedTask)]
        for failure in made:
            if isinstance(failure, OqError):
                failure.submitted = tasks  # type: ignore[attr-defined]
                raise failure
        return tasks

    def submit_iter(self, task_type: str, inputs: Iterable[Any], **options: Any) -> Iterator[Task]:
        """Add very many tasks in bounded memory: inputs are taken as they are needed, tasks given as they are there.

        Nothing is submitted before the first one is asked for; when the caller stops, up to 256 more may be there than
        it was given::

            for task in queue.submit_iter("resize", (path for path in endless())):
                ids.write(task.id)

        Args:
            task_type: which handler runs them.
            inputs: one for each task; any iterator.
            **options: as for `submit`, the same for all.

        Returns:
            The tasks, in the order of their inputs.

        Raises:
            ConfigurationError: an input is not usable; those before it were submitted.
            StorageError: the store did not take one, raised in its place; those before it were submitted, and some of
                those after it may be there.

        Requests: 2 PUT each; see `submit`.
        """
        _check_many(inputs, options)
        trace = current_trace()  # the caller's: a span of its own would end before the last submission
        return self._submit_each(new_record(self.store, task_type, item, trace=trace, **options) for item in inputs)

    def _submit_each(self, records: Iterable[TaskRecord]) -> Iterator[Task]:
        with closing(self._submitter.create_many(records)) as made:
            for held in made:
                if isinstance(held, OqError):
                    raise held
                yield Task(self, held)

    def map(
        self,
        task_type: str,
        inputs: Iterable[Any],
        *,
        timeout: float | None = None,
        progress: bool = True,
        **options: Any,
    ) -> MapResults:
        """Run a handler on many inputs; return an iterator of its outputs in the order of the inputs.

        As `concurrent.futures.Executor.map`: all tasks are submitted at once, an error is raised where its result would
        be. Unlike there the other tasks go on then; ``tasks`` of what is returned has their handles, ``cancel()`` stops
        them.

        Args:
            task_type: which handler runs them.
            inputs: one for each task.
            timeout: seconds from now, for all; None to wait for ever.
            progress: show one bar for the group, in notebooks and terminals.
            **options: as for `submit`, the same for all.

        Raises:
            ConfigurationError: an argument is not usable. Nothing was written.
            StorageError: the store did not take all.

        Requests: as `submit_many`, then as `oq_nb.wait`; iterating raises what `Task.result` raises.
        """
        from oq_nb.queue.groups import MapResults

        return MapResults(self.submit_many(task_type, inputs, **options), timeout, progress=progress)

    # --- reading

    def get(self, task_id: str) -> Task | None:
        """Return a task, or None. Requests: 1 GET.

        Raises:
            ConfigurationError: it is not a task id.
            RecordError: the object under its key is not a task.
        """
        held = self.store.read(model.check_task_id(task_id))
        return None if held is None else Task(self, held)

    def list(
        self,
        status: TaskStatus | str | None = None,
        task_type: str | None = None,
        *,
        since: datetime | None = None,
        limit: int | None = 100,
        shards: Sequence[str] | None = None,
    ) -> builtins.list[Task]:
        """Return tasks, the ones that changed last first.

        Args:
            status: only these.
            task_type: only these.
            since: only those that changed at this time or later; an aware `datetime`.
            limit: so many at most; None for all.
            shards: only in these; None for all.

        Requests: pending and running ones: 1 LIST of each index per 1,000 entries; others: 1 LIST per 1,000 tasks; and
        1 GET for each task read, 16 at a time.
        """
        wanted = None if status is None else _status(status)
        if limit is not None:
            check_whole("limit", limit, 0)
        after = None if since is None else check_instant("since", since)
        if wanted in (TaskStatus.PENDING, TaskStatus.RUNNING):
            ids = self._indexed_ids(shards)
        else:
            ids = self.store.task_ids_newest_first(shards, since=after)
        found: builtins.list[Task] = []
        for held in self.store.read_many(ids):
            if limit is not None and len(found) >= limit:
                break
            is_late = after is None or held.record.updated_at >= after
            if is_late and wanted in (None, held.record.status) and task_type in (None, held.record.task_type):
                found.append(Task(self, held))
        return found

    def _indexed_ids(self, shards: Sequence[str] | None) -> builtins.list[str]:
        """Return the ids that the index knows: every pending or running task is among them."""
        entries: builtins.list[IndexEntry] = []
        for prefix in (model.READY, model.LEASES):
            for part in [prefix] if shards is None else [f"{prefix}{shard}/" for shard in shards]:
                entries += self.store.index.scan(part, limit=1_000_000)
        entries.sort(key=lambda entry: entry.minute, reverse=True)
        return list(dict.fromkeys(entry.task_id for entry in entries))

    def failures(
        self,
        status: TaskStatus | str = TaskStatus.FAILED,
        task_type: str | None = None,
        *,
        since: datetime | None = None,
        limit: int | None = 100,
    ) -> builtins.list[Task]:
        """Return tasks that failed (or were cancelled, or expired), the last one first, however many others there are.

        They are found by the entries that such an end leaves (see `oq_nb.store.ended`): a task that another program has
        ended, such as upstream's worker, leaves none; ``list(status)`` reads every task and finds these too.

        Args:
            status: ``failed``, ``cancelled`` or ``expired``.
            task_type: only these.
            since: only those that ended at this time or later; an aware `datetime`.
            limit: so many at most; None for all.

        Raises:
            ConfigurationError: an argument is not usable.

        Requests: 1 LIST per 1,000 such tasks, and 1 GET for each task looked at, 16 at a time.
        """
        wanted = _status(status)
        if wanted not in UNHAPPY:
            raise ConfigurationError(f"status: failed, cancelled or expired, not {wanted.value}")
        if limit is not None:
            check_whole("limit", limit, 0)
        after = None if since is None else check_instant("since", since)
        entries = self.store.ended.listed(wanted)
        if after is not None:
            entries = [entry for entry in entries if entry.minute >= model.minute_of(after)]
        entries.sort(key=lambda entry: entry.minute, reverse=True)
        found: builtins.list[Task] = []
        for held in self.store.read_many([entry.task_id for entry in entries]):
            if limit is not None and len(found) >= limit:
                break
            record = held.record
            is_late = after is None or (record.ended_at is not None and record.ended_at >= after)
            if record.status is wanted and is_late and task_type in (None, record.task_type):
                found.append(Task(self, held))
        return found

    def timeline(self, hours: float = 1.0, *, limit: int = 1000) -> Timeline:
        """Return which worker ran what and when, lately, with throughput and waiting times; it shows itself.

        Args:
            hours: so far back; above 0, at most 720.
            limit: so many tasks are read at most, those that run and the newest first; from 1.

        Returns:
            A picture in a notebook, lines of text as ``str``; its ``runs``, ``per_minute`` and ``waited`` are numbers.

        Raises:
            ConfigurationError: an argument is not usable.

        Requests: 1 LIST, 1 LIST per 1,000 tasks in the bucket (200 at most), and 1 GET for each task that runs or has
        changed in that time (``limit`` at most), 16 at a time. None later: it is a snapshot.
        """
        if isinstance(hours, bool) or not isinstance(hours, (int, float)) or not 0 < hours <= 720:
            raise ConfigurationError(f"hours: a number above 0, at most 720, is needed, not {hours!r}")
        check_whole("limit", limit, 1)
        now = self.now()
        records, is_partial = read_recent(self.store, now - timedelta(hours=hours), limit)
        return faces.timeline(records, self.now(), seconds=hours * 3600, is_partial=is_partial)

    def counts(self) -> dict[str, int]:
        """Return how many tasks are ``ready`` (can be claimed), ``scheduled`` (for later) and ``running``.

        What an autoscaler wants: as many workers as ready and running tasks need. Tasks of dead workers count as
        running until a worker recovers them.

        Requests: 2 LIST, 1 more per 1,000 such tasks; none for tasks that have ended.
        """
        return self.store.index.counts()

    def list_ready(self, *, limit: int = 100) -> builtins.list[Task]:
        """Return tasks that can be claimed now, oldest first. Requests: 1 LIST, 1 GET for each entry."""
        now = self.now()
        entries = self.store.index.scan(model.READY, limit=1_000_000, until_minute=model.minute_of(now))
        entries.sort(key=lambda entry: entry.minute)
        ids = list(dict.fromkeys(entry.task_id for entry in entries))
        ready: builtins.list[Task] = []
        for held in self.store.read_many(ids):
            if len(ready) >= limit:
                break
            if transitions.is_claimable(held.record, now):
                ready.append(Task(self, held))
        return ready

    def get_history(self, task_id: str, *, limit: int | None = None) -> builtins.list[TaskRecord]:
        """Return the versions of a task, oldest first; the newest ``limit`` of them.

        Raises:
            TaskNotFoundError: there is no such task.

        Requests: 1 LIST per 1,000 versions, 1 GET each.
        """
        versions = self.store.history(model.check_task_id(task_id), limit=limit)
        if not versions:
            raise TaskNotFoundError(f"there is no task {task_id} in {self!r}", task_id=task_id)
        return versions

    def workers(self) -> builtins.list[WorkerRecord]:
        """Return the registered workers. Requests: 1 LIST, 1 GET each."""
        found: builtins.list[WorkerRecord] = []
        for entry in self.store.objects.entries(model.WORKERS):
            stored = self.store.objects.get(entry.key)
            if stored is None:
                continue
            try:
                found.append(WorkerRecord.from_bytes(stored.body, key=entry.key))
            except RecordError:
                continue
        return found

    def now(self) -> datetime:
        """Return the store's time, UTC. Requests: none once the store has answered anything."""
        return self.store.clock.now()

    def all_shards(self) -> builtins.list[str]:
        """Return all shards."""
        return list(self.store.shards)

    # --- changing

    def cancel(self, task_id: str, reason: str | None = None, *, by: str | None = None) -> Task:
        """Cancel a pending task at once; ask a running one to stop, which its handler sees with its next report.

        A handler of a worker that has this queue sees it at once.

        The reason is kept with a pending task. A running one belongs to its worker: nothing but who asked is written.

        Raises:
            TransitionError: it has ended already.
            TaskNotFoundError: there is no such task.

        Requests: 1 GET, 1 PUT, and 1 LIST and 1 DELETE for the index entry of a pending task.
        """

        def change(record: TaskRecord, now: Timestamp) -> TaskRecord:
            if record.status is TaskStatus.RUNNING:
                return transitions.request_cancellation(record, now, by=by)
            return transitions.cancel(record, now, reason=reason, by=by)

        return self._update(task_id, change)

    def cancel_many(self, task_ids: Iterable[str], reason: str | None = None) -> builtins.list[Task]:
        """Cancel several tasks; those that have ended already are skipped. Requests: as `cancel`, for each."""
        cancelled: builtins.list[Task] = []
        for task_id in [model.check_task_id(task_id) for task_id in task_ids]:
            try:
                cancelled.append(self.cancel(task_id, reason))
            except (TransitionError, TaskNotFoundError):
                continue
        return cancelled

    def cancel_by_type(self, task_type: str, reason: str | None = None) -> builtins.list[Task]:
        """Cancel the pending tasks of a type. Requests: as `list` for pending tasks, and `cancel` for each."""
        pending = self.list(TaskStatus.PENDING, model.check_task_type(task_type), limit=None)
        return self.cancel_many([task.id for task in pending], reason)

    def request_cancellation(self, task_id: str, *, by: str | None = None) -> Task:
        """Ask a running task to stop. Requests: 1 GET, 1 PUT.

        Raises:
            TransitionError: it is not running.
            TaskNotFoundError: there is no such task.
        """
        return self._update(task_id, lambda record, now: transitions.request_cancellation(record, now, by=by))

    def replay(self, task_id: str, *, attempt: int | None = None) -> Task:
        """Run a finished task again, with its retries at zero. Requests: 1 GET, 2 PUT.

        Args:
            task_id: its whole id.
            attempt: only if this is still its last one; None for whatever has become of it.

        Raises:
            TransitionError: it has not ended, has run again since ``attempt``, or is a loop that ran under `track`,
                which no worker can run.
            TaskNotFoundError: there is no such task.
        """
        task = self._update(task_id, lambda record, now: transitions.replay(record, now, attempt=attempt))
        self.local_workers.announce(task.record)
        return task

    retry = replay

    def archive(self, task_id: str) -> Task:
        """Mark a finished task as put away. Requests: 1 GET, 1 PUT.

        Raises:
            TransitionError: it has not ended, or is archived already.
            TaskNotFoundError: there is no such task.
        """
        return self._update(task_id, transitions.archive)

    def _update(self, task_id: str, change: Callable[[TaskRecord, Timestamp], TaskRecord]) -> Task:
        return Task(self, self.store.update(model.check_task_id(task_id), change))


def _check_many(inputs: Any, options: dict[str, Any]) -> None:
    if "idempotency_key" in options:
        raise ConfigurationError("idempotency_key: one key cannot stand for many tasks; use submit for each")
    if isinstance(inputs, (str, bytes)):
        raise ConfigurationError("inputs: an iterable of inputs is needed, not text")


def _status(value: TaskStatus | str) -> TaskStatus:
    try:
        return TaskStatus(value)
    except ValueError:
        names = ", ".join(status.value for status in TaskStatus)
        raise ConfigurationError(f"status: one of {names}, not {value!r}") from None
