"""Run one attempt: load the input, call the handler under a lease, and write the result.

Invariants:

* The result is written only under the attempt's own lease; when the lease is lost, the result is thrown away.
* Whatever ends a run, its lease is closed: it is not renewed any more.
* No exception of a handler leaves `run_attempt`: it becomes the task's retry, failure or cancellation.

Imports of the package: `backoff`, `errors`, `model`, `store`; of this room `context`, `handlers`, `invoke`, `lease`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.handlers import Handler
from oq_nb.attempt.invoke import Outcome, Verdict, call, failure
from oq_nb.attempt.lease import Lease
from oq_nb.backoff import Backoff
from oq_nb.errors import LeaseExpiredError, RecordError, StorageError
from oq_nb.model import TaskRecord, Timestamp, transitions
from oq_nb.store import TaskStore, Transition

__all__ = ["run_attempt"]

T = TypeVar("T")

_FLUSH_SECONDS = 2.0
_STORE_RETRIES = Backoff(1.0, 1.0)


def run_attempt(
    store: TaskStore,
    lease: Lease,
    handler: Handler,
    context: TaskContext,
    *,
    retry_on: tuple[type[BaseException], ...] = (),
    run: Callable[[Any], Outcome] | None = None,
    gives_up: Callable[[], bool] = lambda: False,
) -> tuple[Any, BaseException | None]:
    """Run a handler and write the task's end, retrying while the store does not answer.

    Args:
        store: the tasks.
        lease: the attempt's lease.
        handler: what to call.
        context: what the handler sees.
        retry_on: exception types that count as retryable, besides `RetryableError`.
        run: calls the handler with the input, in another thread or process; None: in this thread.
        gives_up: asked between tries to write the end.

    Returns:
        The handler's output, and what it raised or None.

    Raises:
        LeaseExpiredError: the lease was lost, the result is thrown away; or the task was handed back.
        StorageError: the end could not be written before ``gives_up`` was true; the lease will expire.

    Requests: 1 PUT and 1 DELETE for the end; 1 PUT more for a large output or a retry, 1 GET for a large input.
    """
    try:
        return _run(store, lease, handler, context, retry_on, run, gives_up)
    finally:
        lease.close()


def _run(
    store: TaskStore,
    lease: Lease,
    handler: Handler,
    context: TaskContext,
    retry_on: tuple[type[BaseException], ...],
    run: Callable[[Any], Outcome] | None,
    gives_up: Callable[[], bool],
) -> tuple[Any, BaseException | None]:
    try:
        task_input = retry_while_owned(lease, lambda: store.payloads.load(lease.record, "input"), gives_up)
    except RecordError as exc:
        outcome = failure(exc, (RecordError,))  # what was damaged on its way may be read by the next attempt
    else:
        outcome = call(handler, task_input, context, retry_on=retry_on) if run is None else run(task_input)
    if outcome.verdict is not Verdict.COMPLETE:
        lease.check()
        lease.flush(_FLUSH_SECONDS)
        lease.finish(_end_of_failure(lease.lease_id, outcome), give_up=gives_up)
        if outcome.verdict is Verdict.RELEASE:
            raise LeaseExpiredError(f"it was handed back: {outcome.text}", task_id=lease.task_id)
        return outcome.output, outcome.error
    lease_id, attempt, output = lease.lease_id, lease.record.attempt, outcome.output
    value, ref = retry_while_owned(
        lease, lambda: store.payloads.save(lease.task_id, "output", output, attempt=attempt), gives_up
    )
    lease.flush(_FLUSH_SECONDS, held_back=False)  # a loop's last position, which its thread did not wait for
    lease.finish(
        lambda record, now: transitions.complete(record, now, lease_id=lease_id, output=value, output_ref=ref),
        give_up=gives_up,
    )
    return output, None


def retry_while_owned(lease: Lease, request: Callable[[], T], gives_up: Callable[[], bool]) -> T:
    """Make a request, retrying while the store does not answer and the lease is ours."""
    for _ in _STORE_RETRIES.tries(time.sleep):
        lease.check()
        try:
            return request()
        except StorageError:
            if gives_up():
                raise
    raise AssertionError("unreachable")


def _end_of_failure(lease_id: str, outcome: Outcome) -> Transition:
    """Return the change of the task that an outcome stands for."""
    chance = random.random()

    def change(record: TaskRecord, now: Timestamp) -> TaskRecord:
        if outcome.verdict is Verdict.CANCEL and record.cancel_requested:
            return transitions.finish_cancelled(record, now, lease_id=lease_id, reason=None)
        if outcome.verdict is Verdict.RESCHEDULE:
            return transitions.reschedule(record, now, lease_id=lease_id, delay_seconds=outcome.delay_seconds)
        if outcome.verdict is Verdict.RETRY:
            return transitions.retry(record, now, lease_id=lease_id, error=outcome.text, chance=chance)
        if outcome.verdict is Verdict.RELEASE:
            return transitions.release(record, now, lease_id=lease_id)
        return transitions.fail(record, now, lease_id=lease_id, error=outcome.text)

    return change
