"""Traces with OpenTelemetry: a submission and each attempt are spans, and one trace spans notebook and worker.

The task carries where it belongs, as the W3C's ``traceparent`` (and ``tracestate``) in its field ``trace``. Baggage is
not carried: whatever a program keeps there does not get into the bucket.

Invariant: nothing of OpenTelemetry is imported here unless the program has loaded ``opentelemetry.trace`` itself, which
whoever sets a tracer up has done. Without it nothing is measured, nothing is written, and a call costs a look-up.

What stands in a task's ``trace`` is untrusted: anything but a valid ``traceparent`` counts as none.

Imports nothing of the package. Source: W3C Trace Context; OpenTelemetry's API.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

__all__ = ["AttemptSpan", "attached", "attempt_span", "bound", "current_trace", "submit_span"]

R = TypeVar("R")

_FIELDS = ("traceparent", "tracestate")
_MAX_CHARS = 1024


def _api() -> Any:
    """Return ``opentelemetry.trace`` when the program has loaded it, else None."""
    module = sys.modules.get("opentelemetry.trace")
    return module if hasattr(module, "get_tracer") else None


def _propagator() -> Any:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator()


def current_trace() -> dict[str, str] | None:
    """Return what a task carries of the trace that goes on here; None where none does."""
    if _api() is None:
        return None
    carrier: dict[str, str] = {}
    _propagator().inject(carrier)
    return carrier or None


def _context_of(trace: Any) -> Any:
    """Return the context that a task carries, as OpenTelemetry has it; without a span when it carries none."""
    from opentelemetry.context import Context

    given = trace if isinstance(trace, dict) else {}
    carrier = {
        name: given[name] for name in _FIELDS if isinstance(given.get(name), str) and len(given[name]) <= _MAX_CHARS
    }
    return _propagator().extract(carrier, context=Context())


@contextmanager
def submit_span(task_type: str, **attributes: int | str) -> Iterator[dict[str, str] | None]:
    """Make what is submitted inside a span; yield what its tasks carry, None where nobody traces.

    Args:
        task_type: of the tasks.
        **attributes: of the span, their names after ``oq.``.
    """
    api = _api()
    if api is None:
        yield None
        return
    tracer = api.get_tracer("oq_nb")
    named = {f"oq.{name.replace('_', '.')}": value for name, value in attributes.items()}
    with tracer.start_as_current_span(
        f"submit {task_type}", kind=api.SpanKind.PRODUCER, attributes={"oq.task.type": task_type, **named}
    ):
        yield current_trace()


class AttemptSpan:
    """The span of an attempt that runs; does nothing where nobody traces.

    Args:
        span: OpenTelemetry's, or None.
    """

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def end(self, status: str, error: BaseException | None) -> None:
        """Note how it ended.

        Args:
            status: what became of the task.
            error: what its handler raised, or None.
        """
        if self._span is None:
            return
        self._span.set_attribute("oq.task.status", status)
        if error is not None:
            from opentelemetry.trace import StatusCode

            self._span.record_exception(error)
            self._span.set_status(StatusCode.ERROR, f"{type(error).__name__}: {error}"[:500])


@contextmanager
def attempt_span(trace: Any, *, task_id: str, task_type: str, attempt: int, worker_id: str) -> Iterator[AttemptSpan]:
    """Make what runs inside a span, below the one of the task's submission.

    Args:
        trace: what the task carries.
        task_id: its id.
        task_type: its type.
        attempt: how often it was claimed.
        worker_id: who runs it.
    """
    api = _api()
    if api is None:
        yield AttemptSpan()
        return
    attributes = {
        "oq.task.id": task_id,
        "oq.task.type": task_type,
        "oq.task.attempt": attempt,
        "oq.worker.id": worker_id,
    }
    with api.get_tracer("oq_nb").start_as_current_span(
        f"run {task_type}", context=_context_of(trace), kind=api.SpanKind.CONSUMER, attributes=attributes
    ) as span:
        yield AttemptSpan(span)


@contextmanager
def attached(trace: Any) -> Iterator[None]:
    """Let the code inside belong to the trace that a task carries: in another thread or process than its span's."""
    if _api() is None or not trace:
        yield
        return
    from opentelemetry import context

    token = context.attach(_context_of(trace))
    try:
        yield
    finally:
        context.detach(token)


def bound(function: Callable[..., R]) -> Callable[..., R]:
    """Return a function that belongs to the trace that goes on here, whichever thread calls it."""
    trace = current_trace()
    if trace is None:
        return function

    def call(*args: Any) -> R:
        with attached(trace):
            return function(*args)

    return call
