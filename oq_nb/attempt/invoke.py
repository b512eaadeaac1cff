"""Call a handler, and return what its result or exception means for the task: an `Outcome`.

Invariants: nothing that a handler raises leaves `call`; an output that JSON cannot hold is the handler's error.

Pure but for the handler itself. Imports of the package: `errors`, `model`, and of this room `context`, `handlers`;
`async_context` for coroutine handlers.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from oq_nb import model
from oq_nb.attempt.context import TaskContext, running_in
from oq_nb.attempt.handlers import Handler, error_text
from oq_nb.errors import PermanentError, RescheduleError, RetryableError, TaskCancelledError

if TYPE_CHECKING:
    from oq_nb.attempt.coroutines import CoroutineRunner

__all__ = ["Outcome", "Verdict", "call", "failure"]


class Verdict(str, Enum):
    """What becomes of the task after a run of its handler."""

    COMPLETE = "complete"
    FAIL = "fail"
    RETRY = "retry"
    RESCHEDULE = "reschedule"
    CANCEL = "cancel"
    #: Back to pending without a retry counted: it never began, or it is not the task's fault.
    RELEASE = "release"


@dataclass(frozen=True)
class Outcome:
    """How a handler's run ended."""

    output: Any = None
    error: BaseException | None = None
    verdict: Verdict = Verdict.COMPLETE
    #: What is kept as ``last_error``.
    text: str = ""
    #: Seconds until a rescheduled task may run again.
    delay_seconds: float = 0.0


def call(
    handler: Handler,
    task_input: Any,
    context: TaskContext,
    *,
    retry_on: tuple[type[BaseException], ...] = (),
    coroutines: CoroutineRunner | None = None,
) -> Outcome:
    """Call a handler in this thread.

    Args:
        handler: what to call.
        task_input: its input.
        context: what it sees of its attempt; `current_context` gives it, too.
        retry_on: exception types that count as retryable, besides `RetryableError`.
        coroutines: runs coroutine handlers; None: each runs on a loop of its own.
    """
    try:
        with running_in(context):
            if handler.is_async:
                from oq_nb.attempt.async_context import AsyncTaskContext  # it loads asyncio

                seen: Any = AsyncTaskContext(context)
                coroutine = (
                    handler.function(task_input, seen) if handler.wants_context else handler.function(task_input)
                )
                output = _run(coroutine, coroutines, f"a handler of {handler.task_type!r}")
            else:
                output = (
                    handler.function(task_input, context) if handler.wants_context else handler.function(task_input)
                )
        model.to_json(output)  # refused here, as the handler's error
    except BaseException as exc:
        return failure(exc, (*retry_on, *handler.retry_on))
    return Outcome(output)


def _run(coroutine: Coroutine[Any, Any, Any], coroutines: CoroutineRunner | None, label: str) -> Any:
    """Run a coroutine; not with ``asyncio.run``, which others patch."""
    if coroutines is not None:
        return coroutines.run(coroutine, label=label)
    from oq_nb.attempt.coroutines import CoroutineRunner  # it loads asyncio

    own = CoroutineRunner()
    try:
        return own.run(coroutine, label=label)
    finally:
        own.close()


def failure(error: BaseException, retry_on: tuple[type[BaseException], ...] = ()) -> Outcome:
    """Return what a handler's exception means for its task."""
    delay = 0.0
    if isinstance(error, TaskCancelledError):
        verdict = Verdict.CANCEL
    elif isinstance(error, RescheduleError):
        verdict, delay = Verdict.RESCHEDULE, error.delay
    elif isinstance(error, (RetryableError, *retry_on)) and not isinstance(error, PermanentError):
        verdict = Verdict.RETRY
    else:
        verdict = Verdict.FAIL
    return Outcome(error=error, verdict=verdict, text=error_text(error), delay_seconds=delay)
