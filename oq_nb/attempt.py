"""One attempt at a task: call its handler under a lease, and write how it ended.

Invariants:

* The end is written under the attempt's own lease only; a lost lease throws the result away.
* Nothing that a handler raises leaves `run_attempt`: it becomes the task's retry, failure or cancellation.

Imports nothing of the package but `errors`, `model`, `transitions`, `handlers`, `context`, `lease` and `store`; `aio`
for coroutine handlers.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from oq_nb import model, transitions
from oq_nb.context import TaskContext, running_in
from oq_nb.errors import (
    PermanentError,
    RecordError,
    RescheduleError,
    RetryableError,
    StorageError,
    TaskCancelledError,
)
from oq_nb.handlers import Handler, error_text
from oq_nb.lease import Lease
from oq_nb.model import TaskRecord, Timestamp
from oq_nb.store import TaskStore, Transition

__all__ = ["run_attempt"]

T = TypeVar("T")

_FLUSH_SECONDS = 2.0
_STORE_RETRY_SECONDS = 1.0


def run_attempt(
    store: TaskStore,
    lease: Lease,
    handler: Handler,
    context: TaskContext,
    *,
    retry_on: tuple[type[BaseException], ...] = (),
    loop: asyncio.AbstractEventLoop | None = None,
    gives_up: Callable[[], bool] = lambda: False,
) -> tuple[Any, BaseException | None]:
    """Run a handler and write the task's end, however long the store does not answer.

    Args:
        store: the tasks.
        lease: the attempt's hold on its task.
        handler: what to call.
        context: what the handler sees.
        retry_on: exception types that count as retryable, besides `RetryableError`.
        loop: where coroutine handlers run.
        gives_up: asked between tries to write the end.

    Returns:
        The handler's output, and what it raised or None.

    Raises:
        LeaseExpiredError: the lease was lost, the result is thrown away.
        StorageError: the end could not be written before ``gives_up`` said so; the lease will run out.

    Requests: 1 PUT and 1 DELETE for the end; 1 PUT more for a large output or a retry, 1 GET for a large input.
    """
    output: Any = None
    error: BaseException | None = None
    try:
        task_input = _insist(lease, lambda: store.load(lease.record, "input"), gives_up)
    except RecordError as exc:
        error = exc
    else:
        output, error = _call(handler, task_input, context, loop)
    lease_id = lease.lease_id
    if error is not None:
        lease.check()
        lease.flush(_FLUSH_SECONDS)
        lease.finish(_end_of_failure(lease_id, error, retry_on), give_up=gives_up)
        return output, error
    attempt = lease.record.attempt
    value, ref = _insist(lease, lambda: store.offload(lease.task_id, "output", output, attempt=attempt), gives_up)
    lease.finish(
        lambda record, now: transitions.complete(record, now, lease_id=lease_id, output=value, output_ref=ref),
        give_up=gives_up,
    )
    return output, None


def _call(
    handler: Handler, task_input: Any, context: TaskContext, loop: asyncio.AbstractEventLoop | None
) -> tuple[Any, BaseException | None]:
    try:
        with running_in(context):
            if handler.is_async and loop is not None:
                from oq_nb.aio import AsyncTaskContext

                seen: Any = AsyncTaskContext(context)
                coroutine = (
                    handler.function(task_input, seen) if handler.wants_context else handler.function(task_input)
                )
                output = loop.run_until_complete(coroutine)
            else:
                output = (
                    handler.function(task_input, context) if handler.wants_context else handler.function(task_input)
                )
        model.to_json(output)  # refused here, as the handler's error
    except BaseException as exc:
        return None, exc
    return output, None


def _insist(lease: Lease, request: Callable[[], T], gives_up: Callable[[], bool]) -> T:
    """Make a request again and again while the store does not answer and the lease is ours."""
    while True:
        lease.check()
        try:
            return request()
        except StorageError:
            if gives_up():
                raise
            time.sleep(_STORE_RETRY_SECONDS)


def _end_of_failure(lease_id: str, error: BaseException, retry_on: tuple[type[BaseException], ...]) -> Transition:
    """Return what a handler's exception means for its task."""
    text, chance = error_text(error), random.random()

    def change(record: TaskRecord, now: Timestamp) -> TaskRecord:
        if isinstance(error, TaskCancelledError) and record.cancel_requested:
            return transitions.finish_cancelled(record, now, lease_id=lease_id, reason=None)
        if isinstance(error, RescheduleError):
            return transitions.reschedule(record, now, lease_id=lease_id, delay_seconds=error.delay)
        if isinstance(error, (RetryableError, *retry_on)) and not isinstance(error, PermanentError):
            return transitions.retry(record, now, lease_id=lease_id, error=text, chance=chance)
        return transitions.fail(record, now, lease_id=lease_id, error=text)

    return change
