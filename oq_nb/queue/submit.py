"""Adding tasks: a record is made from what the caller gave, checked, and written; with idempotency keys.

Invariants:

* A record is checked completely before anything is written.
* A task's ready entry is written before the task (`TaskStore.create`); an idempotency key is written before both.
* A key that stands for a task whose writing was cut short still leads to one task: it is written under the id that the
  key promised.

Imports of the package: `errors`, `model`, `store`, and of this room `bulk` and `hints`.
"""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterable
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, Protocol

from oq_nb import model
from oq_nb.errors import ConfigurationError, ConflictError, OqError, TaskNotFoundError
from oq_nb.model import RetryPolicy, TaskRecord, TaskStatus, Timestamp
from oq_nb.queue.bulk import in_parallel
from oq_nb.queue.hints import HintWriter
from oq_nb.store import TaskStore, VersionedTask

__all__ = ["LocalWorkers", "Submitter", "Wakeable", "check_instant", "check_whole", "new_record"]

_SOON = timedelta(seconds=1)


class Wakeable(Protocol):
    """A worker of this process."""

    def wake(self, shard: str | None = None) -> None:
        """Look for tasks now, in this shard first."""


class LocalWorkers:
    """The workers of this process: they need not wait for their next poll when a task is submitted here.

    Args:
        hints: tells idle workers elsewhere; None: nobody does.
    """

    def __init__(self, hints: HintWriter | None = None) -> None:
        self._hints = hints
        self._workers: weakref.WeakSet[Wakeable] = weakref.WeakSet()

    def add(self, worker: Wakeable) -> None:
        """Wake this worker from now on, as long as it exists."""
        self._workers.add(worker)

    def remove(self, worker: Wakeable) -> None:
        """Wake this worker no more."""
        self._workers.discard(worker)

    def wake(self, shard: str | None = None) -> None:
        """Have all of them look for tasks now, in this shard first."""
        for worker in list(self._workers):
            worker.wake(shard)

    def announce(self, record: TaskRecord) -> None:
        """Have a task found that is pending: by idle workers of this process at once, by others within seconds.

        Requests: in the background at most 1 PUT and 1 DELETE a second, for the hint; none for a task for later.
        """
        self.wake(record.shard)
        if self._hints is not None and record.available_at - record.updated_at < _SOON:
            self._hints.ring(record.shard)


def new_record(
    store: TaskStore,
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
    trace: dict[str, str] | None = None,
) -> TaskRecord:
    """Return the record of a new, pending task. Nothing is written.

    Args:
        store: where it will be.
        task_type: see `oq_nb.Queue.submit`, as for the others.
        input: see there.
        timeout_seconds: see there.
        max_retries: see there.
        retry_policy: see there.
        schedule_at: see there.
        ttl_seconds: see there.
        expires_at: see there.
        max_reschedules: see there.
        trace: what it carries of the trace that it belongs to, see `oq_nb.tracing`.

    Raises:
        ConfigurationError: an argument is not usable.
    """
    model.check_task_type(task_type)
    try:
        model.to_json(input)
    except (TypeError, ValueError, RecursionError) as exc:
        raise ConfigurationError(f"input: not something that JSON holds: {exc}") from exc
    check_whole("timeout_seconds", timeout_seconds, 1)
    check_whole("max_retries", max_retries, 0)
    if max_reschedules is not None:
        check_whole("max_reschedules", max_reschedules, 0)
    if retry_policy is not None and not isinstance(retry_policy, RetryPolicy):
        raise ConfigurationError(f"retry_policy: a RetryPolicy is needed, not {type(retry_policy).__name__}")
    now = store.clock.stamp()
    available = now if schedule_at is None else check_instant("schedule_at", schedule_at)
    ends = None if expires_at is None else check_instant("expires_at", expires_at)
    if ttl_seconds is not None:
        if ends is not None:
            raise ConfigurationError("ttl_seconds: give it or expires_at, not both")
        if isinstance(ttl_seconds, bool) or not isinstance(ttl_seconds, (int, float)) or not 0 <= ttl_seconds < 1e10:
            raise ConfigurationError(f"ttl_seconds: a number of seconds from 0 is needed, not {ttl_seconds!r}")
        ends = Timestamp.of(now + timedelta(seconds=ttl_seconds))
    task_id = model.new_id()
    return TaskRecord(
        id=task_id,
        shard=store.shard_of(task_id),
        task_type=task_type,
        input=input,
        timeout_seconds=timeout_seconds,
        max_retries=max_retries,
        retry_policy=retry_policy or RetryPolicy(),
        status=TaskStatus.PENDING,
        created_at=now,
        available_at=available,
        updated_at=now,
        max_reschedules=max_reschedules,
        expires_at=ends,
        trace=trace,
    )


class Submitter:
    """Writes new tasks. Safe to use from several threads.

    Args:
        store: where to.
        workers: told of each task.
    """

    def __init__(self, store: TaskStore, workers: LocalWorkers) -> None:
        self._store = store
        self._workers = workers

    def create(self, record: TaskRecord) -> VersionedTask:
        """Write a task. Requests: 2 PUT; 1 PUT more for a large input."""
        value, ref = self._store.payloads.save(record.id, "input", record.input)
        held = self._store.create(record.evolve(input=value, input_ref=ref))
        self._store.emit("submitted", record.task_type)
        self._workers.announce(record)
        return held

    def create_many(self, records: Iterable[TaskRecord]) -> Generator[VersionedTask | OqError, None, None]:
        """Write tasks, some at a time; yield each that was written, or why not, in order.

        Requests: 2 PUT each; 1 PUT more for a large input.
        """
        with closing(in_parallel(self.create, records, name="oq-submit")) as ended:
            for future in ended:
                error = future.exception()
                if error is not None and not isinstance(error, OqError):
                    raise error
                yield future.result() if error is None else error

    def create_once(self, record: TaskRecord, key: str, scope: str) -> VersionedTask:
        """Write a task unless its idempotency key stands for one already; return the one that the key stands for.

        Args:
            record: the task.
            key: 1 to 1,000 characters.
            scope: within which the key is unique.

        Raises:
            ConfigurationError: the key is not usable, or stands for another input.
            TaskNotFoundError: the key stands for a task that was removed.

        Requests: 4 PUT; 1 PUT and 2 GET when the key stands for a task already.
        """
        keys, path = self._store.keys, model.idempotency_key(scope, key)
        claim = keys.record(record, key, scope)
        earlier, etag = keys.claim(path, claim)
        if earlier.input_hash != claim.input_hash:
            raise ConfigurationError(
                f"idempotency_key: {key!r} already belongs to task {earlier.task_id} with another input",
                task_id=earlier.task_id,
            )
        task_id = model.check_task_id(earlier.task_id)
        held = None if task_id == record.id else self._store.read_surely(task_id)
        if held is None:
            if task_id != record.id and (self._store.was_removed(task_id) or earlier.task_written_at is not None):
                raise TaskNotFoundError(
                    f"idempotency_key: {key!r} belongs to task {task_id}, which was removed from the bucket. It is not "
                    f"run again before {earlier.expires_at}: to run it, submit with another key",
                    task_id=task_id,
                )
            # This is the first submission, or the first one stopped before its task: the id that was promised is used.
            held = self._create_or_read(record.evolve(id=task_id, shard=self._store.shard_of(task_id)))
        keys.mark_written(path, earlier, etag)
        return held

    def _create_or_read(self, record: TaskRecord) -> VersionedTask:
        """Write the task of an idempotency key, unless another program with the same key did so first."""
        try:
            return self.create(record)
        except ConflictError:
            held = self._store.read_surely(record.id)
        if held is None:
            raise TaskNotFoundError(f"task {record.id} was deleted just after it was submitted", task_id=record.id)
        return held


def check_whole(name: str, value: Any, least: int) -> None:
    """Raise `ConfigurationError` unless ``value`` is a whole number from ``least`` to 2**31 - 1."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < 2**31:
        raise ConfigurationError(f"{name}: a whole number from {least} is needed, not {value!r}")


def check_instant(name: str, value: Any) -> Timestamp:
    """Return an aware `datetime` as a `Timestamp`; raise `ConfigurationError` for anything else."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ConfigurationError(f"{name}: a datetime with a time zone is needed, not {value!r}")
    return Timestamp.of(value)
