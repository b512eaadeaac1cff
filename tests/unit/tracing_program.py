"""A program that traces: it submits tasks, runs them in workers of several kinds, and prints its spans as JSON.

Apart, because a process has one tracer provider, for ever.
"""

from __future__ import annotations

import json
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import oq_nb
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore


def inside(_given) -> str:
    """Return the trace and the span that a handler sees as the present ones."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}-{context.span_id:016x}"


def plain(given):
    return inside(given)


async def coroutine(given):
    return inside(given)


def fails(_given):
    raise ValueError("no")


def main(executor: str | None) -> None:
    """Run it all, and print it."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    queue = Queue(TaskStore(FakeStore()))
    worker = oq_nb.Worker(queue, worker_id="w1", max_poll_seconds=0.1, executor=executor)
    for function in (plain, coroutine, fails):
        worker.task(function.__name__)(function)
    with trace.get_tracer("notebook").start_as_current_span("cell") as cell:
        tasks = [queue.submit("plain"), *queue.submit_many("coroutine", [1, 2]), queue.submit("fails")]
    lonely = queue.submit("plain")
    with worker:
        for task in (*tasks, lonely):
            task.wait(30)
    spans = [
        {
            "name": span.name,
            "trace": f"{span.context.trace_id:032x}",
            "id": f"{span.context.span_id:016x}",
            "parent": None if span.parent is None else f"{span.parent.span_id:016x}",
            "kind": span.kind.name,
            "status": span.status.status_code.name,
            "attributes": dict(span.attributes),
            "events": [event.name for event in span.events],
        }
        for span in exporter.get_finished_spans()
    ]
    records = [task.refresh().record for task in (*tasks, lonely)]
    made = {
        "cell": f"{cell.get_span_context().trace_id:032x}",
        "spans": spans,
        "tasks": [{"trace": r.trace, "output": r.output, "id": r.id, "status": r.status.value} for r in records],
    }
    print(json.dumps(made))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
