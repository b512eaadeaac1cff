"""Functions as tasks with a real store and real workers: submitted, run, edited, replaced."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
import threading
import types

import pytest
from pydantic import BaseModel

import oq_nb
from oq_nb import aio
from oq_nb.errors import TaskFailedError

WAIT = 60


class Metrics(BaseModel):
    loss: float


def define(queue, text, name="train", **options):
    """Define a function as a cell of a notebook does: in ``__main__``, again and again."""
    space = {"__name__": "__main__", "oq_nb": oq_nb, "Metrics": Metrics, "threading": threading}
    exec(textwrap.dedent(text), space)
    return queue.task(**options)(space[name])


@pytest.fixture
def workers(queue):
    """End the workers of the queue that a test has started."""
    yield
    for worker in queue.functions.listeners():
        worker.stop(5)
    for thread in threading.enumerate():
        if thread.name.startswith("oq-retire-"):
            thread.join(10)


def polling():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("oq-worker-")]


def test_from_a_call_to_a_result(queue, workers):
    train = define(queue, "def train(lr: float, epochs: int = 10) -> Metrics: return Metrics(loss=lr * epochs)")
    queue.start_worker(concurrency=2)
    task = train.submit(lr=0.5)
    assert task.result(WAIT) == Metrics(loss=5.0)
    assert task.output == {"loss": 5.0}
    assert queue.get(task.id).record.input == {"lr": 0.5, "epochs": 10}
    assert queue.get(task.id).result() == Metrics(loss=5.0)
    group = train.map(lr=[1, 2, 3], epochs=2)
    assert group.results(WAIT, progress=False) == [Metrics(loss=2.0), Metrics(loss=4.0), Metrics(loss=6.0)]
    assert repr(group) == "<TaskGroup of 3: 3 completed>"


def test_functions_that_are_defined_later_are_run_too(queue, workers):
    queue.start_worker()
    first = define(queue, "def first(a: int) -> int: return a + 1", "first").submit(1)
    assert first.result(WAIT) == 2


def test_a_context_and_its_progress(queue, workers):
    train = define(
        queue,
        """
        def train(steps: int, context) -> int:
            for step in range(steps):
                context.report_progress(current=step, total=steps)
            return context.attempt
        """,
    )
    queue.start_worker()
    task = train.submit(4)
    assert task.result(WAIT) == 1
    assert any(version.progress is not None and version.progress.total == 4 for version in task.history())


def test_a_definition_counts_for_what_is_claimed_afterwards(queue, workers):
    gate, started = threading.Event(), threading.Semaphore(0)
    text = """
    def train(n: int) -> str:
        started.release()
        gate.wait()
        return "VERSION 1"
    """

    def defined(version):
        function = define(queue, text.replace("VERSION 1", version))
        function.__wrapped__.__globals__.update(gate=gate, started=started)
        return function

    train = defined("VERSION 1")
    queue.start_worker(concurrency=2)
    group = train.map(n=range(5))
    for _ in range(2):
        started.acquire(timeout=WAIT)
    defined("VERSION 2")
    gate.set()
    assert sorted(group.results(WAIT, progress=False)) == ["VERSION 1"] * 2 + ["VERSION 2"] * 3


def test_another_signature_fails_the_tasks_that_no_longer_fit(queue, workers):
    train = define(queue, "def train(lr: float) -> float: return lr")
    waiting = train.submit(0.5)
    define(queue, "def train(rate: float) -> float: return rate")
    queue.start_worker()
    with pytest.raises(TaskFailedError) as caught:
        waiting.result(WAIT)
    assert "the input does not fit train(rate: float) -> float: lr: there is no such parameter" in str(caught.value)
    assert (waiting.record.attempt, waiting.record.retry_count) == (1, 0)


def test_a_worker_that_is_started_again_replaces_the_older_one(queue, workers, capsys):
    gate, started = threading.Event(), threading.Event()
    text = "def train(n: int) -> int:\n    started.set(); gate.wait(); return n"
    train = define(queue, text)
    train.__wrapped__.__globals__.update(gate=gate, started=started)
    first = queue.start_worker()
    running = train.submit(1)
    assert started.wait(WAIT)
    second = queue.start_worker()
    assert capsys.readouterr().out == f"replaced {first.worker_id}: no function changed\n"
    assert not first.is_running
    assert second.is_running
    define(queue, "def train(n: int) -> int: return n * 2")
    define(queue, "def other(n: int) -> int: return n", "other")
    third = queue.start_worker()
    assert capsys.readouterr().out == f"replaced {second.worker_id}: 2 functions changed\n"
    assert train.submit(5).result(WAIT) == 10
    gate.set()
    assert running.result(WAIT) == 1, "the first worker has finished what it ran"
    assert running.record.attempt == 1
    for thread in threading.enumerate():
        if thread.name.startswith("oq-retire-"):
            thread.join(WAIT)
    assert [worker.worker_id for worker in queue.workers()] == [third.worker_id]
    assert polling() == [f"oq-worker-{third.worker_id}-0"]


def test_a_second_connection_to_the_same_place_has_the_same_functions(queue, workers, capsys):
    again = oq_nb.queue.Queue(queue.store.__class__(queue.store.objects))
    train = define(queue, "def train(n: int) -> int: return n")
    first = queue.start_worker()
    define(again, "def train(n: int) -> int: return n * 3")
    assert train.submit(2).result(WAIT) == 6
    again.start_worker()
    assert capsys.readouterr().out == f"replaced {first.worker_id}: 1 function changed\n"


def test_processes_take_the_new_version(queue, workers):
    text = "def train(n: int) -> str: return 'VERSION 1'"
    train = define(queue, text)
    queue.start_worker(executor="processes")
    assert train.submit(1).result(WAIT) == "VERSION 1"
    define(queue, text.replace("1", "2"))
    assert train.submit(1).result(WAIT) == "VERSION 2"


def test_retry_on_of_a_function(queue, workers):
    text = """
    def train(context) -> int:
        if context.attempt < 2:
            raise OSError("try again")
        return context.attempt
    """
    policy = oq_nb.RetryPolicy(initial_interval_ms=1)
    train = define(queue, text, retry_on=OSError, retry_policy=policy)
    queue.start_worker(max_poll_seconds=0.2)
    assert train.submit().result(WAIT) == 2


def test_coroutines(queue, workers):
    train = define(queue, "async def train(n: int) -> int: return n + 1")
    queue.start_worker()
    assert train.submit(1).result(WAIT) == 2
    assert asyncio.run(train(3)) == 4


def test_in_a_program_of_coroutines(queue, workers):
    async def main():
        mine = aio.Queue(queue)

        @mine.task("add")
        async def add(a: int, b: int = 1, context=None) -> Metrics:
            await context.report_progress(percent=50)
            return Metrics(loss=a + b)

        worker = await mine.start_worker()
        try:
            task = await add.submit(1)
            assert await task == Metrics(loss=2)
            tasks = await add.map(a=[1, 2])
            assert [await task for task in tasks] == [Metrics(loss=2), Metrics(loss=3)]
            assert (await add.options(max_retries=0).submit(1)).record.max_retries == 0
        finally:
            await worker.stop(5)

    asyncio.run(main())


def test_a_worker_of_ones_own_takes_functions_too(queue):
    train = define(queue, "def train(n: int) -> int: return n + 1")
    worker = oq_nb.Worker(queue)
    worker.register(train)
    with worker:
        assert train.submit(1).result(WAIT) == 2


def test_a_cell_that_makes_a_worker_may_be_run_again(queue, capsys):
    """The form with a worker and a name: what an earlier run of the cell has left is replaced, others' workers stay."""

    def run_cell(text):
        space = {"__name__": "__main__"}
        exec(text, space)
        worker = oq_nb.Worker(queue)
        worker.task("work")(space["handle"])
        return worker.start()

    def other(value):
        return value

    bystander = oq_nb.Worker(queue)
    bystander.task("other")(other)
    with bystander:
        first = run_cell("def handle(value): return 'VERSION 1'")
        second = run_cell("def handle(value): return 'VERSION 2'")
        try:
            assert capsys.readouterr().out == f"replaced {first.worker_id}: 1 function changed\n"
            assert not first.is_running
            results = [queue.submit("work", n).result(WAIT) for n in range(4)]
            assert results == ["VERSION 2"] * 4
            beside = oq_nb.Worker(queue)  # with the very same function: meant to run beside the other
            beside.task("work")(second.handlers["work"].function)
            with beside:
                assert second.is_running
            assert bystander.is_running
        finally:
            second.stop(5)
    assert capsys.readouterr().out == ""


JOBS = """
import oq_nb


@oq_nb.task(timeout_seconds=30)
def double(value: int) -> int:
    return value * 2


@oq_nb.task("shout", max_retries=0)
def anything(text: str, context: oq_nb.TaskContext) -> str:
    context.report_progress(percent=50)
    return text.upper()
"""


def test_oq_worker_runs_the_functions_of_a_module(queue, seaweedfs, tmp_path, monkeypatch):
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    where = ["--bucket", queue.store.objects.bucket, "--prefix", queue.store.objects.prefix]
    command = [sys.executable, "-m", "oq_nb", "worker", "jobs.py", *where, "--endpoint", seaweedfs.endpoint]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert "double, shout; 1 at a time" in process.stdout.readline()
            tasks = [queue.submit("double", {"value": 21}), queue.submit("shout", {"text": "hey"})]
            assert [task.result(WAIT) for task in tasks] == [42, "HEY"]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=WAIT)
    assert process.returncode == 0


def test_start_worker_takes_modules_and_functions(queue, workers):
    module = types.ModuleType("jobs")
    exec(JOBS, module.__dict__)
    queue.start_worker(module)
    assert queue.submit("double", {"value": 2}).result(WAIT) == 4
    assert module.anything.queue is queue
    with pytest.raises(oq_nb.ConfigurationError, match="no function in it is decorated"):
        queue.start_worker(types)
    with pytest.raises(oq_nb.ConfigurationError, match="functions: modules, or functions decorated"):
        queue.start_worker("jobs")
