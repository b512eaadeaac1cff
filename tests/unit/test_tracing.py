"""Spans of submissions and attempts with OpenTelemetry; and that nothing happens without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from oq_nb import tracing

PROGRAM = Path(__file__).with_name("tracing_program.py")

WITHOUT = """
import sys, oq_nb
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
queue = Queue(TaskStore(FakeStore()))
worker = oq_nb.Worker(queue, max_poll_seconds=0.1)
worker.task("t")(lambda value: value)
task, *_ = queue.submit("t", 1), *queue.submit_many("t", [2])
with worker:
    task.result(20)
loaded = sorted(name for name in sys.modules if name.startswith("opentelemetry"))
print(loaded, "trace" in task.refresh().record.to_dict())
"""

NO_SDK = "import opentelemetry.trace\n" + WITHOUT.replace(
    'sorted(name for name in sys.modules if name.startswith("opentelemetry"))', '"opentelemetry.sdk" in sys.modules'
)


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_opentelemetry_nothing_is_imported_and_nothing_is_written():
    assert run("-c", WITHOUT) == "[] False\n"


def test_with_the_api_alone_nothing_is_written():
    pytest.importorskip("opentelemetry.trace")
    assert run("-c", NO_SDK) == "False False\n"


@pytest.mark.parametrize("executor", [None, "threads", "processes"])
def test_one_trace_spans_what_submits_and_what_runs(executor):
    pytest.importorskip("opentelemetry.sdk")
    if executor == "processes":
        pytest.importorskip("loky")
    made = json.loads(run(str(PROGRAM), *([executor] if executor else [])))
    spans = {span["id"]: span for span in made["spans"]}
    plain, first, second, failed, lonely = made["tasks"]
    runs = {span["attributes"]["oq.task.id"]: span for span in made["spans"] if span["name"].startswith("run ")}
    for task in (plain, first, second, failed, lonely):
        run_span = runs[task["id"]]
        submission = spans[run_span["parent"]]
        assert submission["name"].startswith("submit ") and submission["kind"] == "PRODUCER"
        assert run_span["kind"] == "CONSUMER" and run_span["attributes"]["oq.worker.id"] == "w1"
        assert run_span["attributes"]["oq.task.attempt"] == 1
        assert run_span["attributes"]["oq.task.status"] == task["status"]
        assert task["trace"]["traceparent"].split("-")[1:3] == [submission["trace"], submission["id"]]
        assert run_span["trace"] == submission["trace"]
        assert (run_span["trace"] == made["cell"]) == (task is not lonely)
        if task is not failed:
            assert task["output"] == f"{run_span['trace']}-{run_span['id']}", (
                "what a handler does belongs to its attempt"
            )
    assert spans[runs[first["id"]]["parent"]] == spans[runs[second["id"]]["parent"]], "submitted together"
    assert spans[runs[first["id"]]["parent"]]["attributes"]["oq.task.count"] == 2
    assert (runs[failed["id"]]["status"], runs[failed["id"]]["events"]) == ("ERROR", ["exception"])
    assert runs[plain["id"]]["status"] == "UNSET"


@pytest.mark.parametrize(
    "stored",
    [None, "x", 7, {}, {"traceparent": 7}, {"traceparent": "00-x-y-01"}, {"traceparent": "0" * 10_000}, {"a": "b"}],
    ids=lambda value: repr(value)[:30],
)
def test_what_is_no_trace_counts_as_none(stored):
    trace = pytest.importorskip("opentelemetry.trace")
    with tracing.attempt_span(stored, task_id="i", task_type="t", attempt=1, worker_id="w") as span:
        assert not trace.get_current_span().get_span_context().is_valid
        span.end("failed", ValueError("no"))
    with tracing.attached(stored):
        assert not trace.get_current_span().get_span_context().is_valid


def test_a_trace_is_carried_into_another_thread_and_left_there():
    pytest.importorskip("opentelemetry.trace")
    carried = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    assert tracing.bound(tracing.current_trace)() is None
    with tracing.attached(carried):
        assert tracing.current_trace() == carried
        function = tracing.bound(tracing.current_trace)
    assert tracing.current_trace() is None
    assert function() == carried
