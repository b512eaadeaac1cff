"""Functions that are tasks: what `@queue.task` and `@oq_nb.task` take and refuse, and what a call becomes."""

from __future__ import annotations

import inspect
import pickle
import types
from datetime import datetime, timezone

import numpy as np
import pytest
from pydantic import BaseModel

import oq_nb
from oq_nb import ConfigurationError, TaskContext
from oq_nb.queue import connection
from oq_nb.queue.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore, run_function


class Metrics(BaseModel):
    loss: float


def train(lr: float, epochs: int = 10) -> Metrics:
    """Train a model."""
    return Metrics(loss=lr * epochs)


def bind(queue, function=train, **options):
    """Make a function of this module a task, under its own name."""
    function.__qualname__ = function.__name__  # as at the top of a module
    return queue.task(**options)(function)


def stored(queue, task):
    return queue.get(task.id).record


def test_a_call_is_a_plain_call(fake_queue):
    task = bind(fake_queue)
    assert task(0.1) == Metrics(loss=1.0)
    assert task(0.1, epochs=2) == Metrics(loss=0.2)
    assert fake_queue.list() == []
    assert (task.__name__, task.__doc__) == ("train", "Train a model.")
    assert inspect.signature(task) == inspect.signature(train)
    assert repr(task).startswith("<task train(lr: float, epochs: int = 10) -> Metrics on Queue ")


def test_a_submitted_call_is_plain_json_by_name(fake_queue):
    task = bind(fake_queue).submit(0.5)
    assert task.task_type == "train"
    assert stored(fake_queue, task).input == {"lr": 0.5, "epochs": 10}
    assert fake_queue.store.objects.requests["PUT"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "missing a required argument: 'lr'"),
        ({"lr": "fast"}, "train: lr: Input should be a valid number"),
        ({"lr": 1, "epoch": 1}, "did you mean epochs?"),
        ({"lr": 1, "epochs": 1.5}, "train: epochs: Input should be a valid integer"),
        ({"lr": 10**400}, "train: lr: "),
    ],
)
def test_a_call_that_does_not_fit_writes_nothing(fake_queue, arguments, said):
    task = bind(fake_queue)
    with pytest.raises(ConfigurationError) as caught:
        task.submit(**arguments)
    assert said in str(caught.value)
    with pytest.raises(ConfigurationError):
        task.map([{"lr": 1}, arguments])
    assert fake_queue.store.objects.look() == []


def test_an_argument_of_ten_megabytes_is_refused(fake_queue):
    def keep(text: str): ...

    with pytest.raises(ConfigurationError, match=r"keep: text: 10\.0 MB of JSON, at most 8 MB"):
        bind(fake_queue, keep).submit("x" * 10_000_000)
    assert fake_queue.store.objects.look() == []


# --- options


def test_options_of_the_decorator_and_of_one_use(fake_queue):
    task = fake_queue.task("other", max_retries=0, timeout_seconds=60)(train)
    record = stored(fake_queue, task.submit(1))
    assert (record.task_type, record.max_retries, record.timeout_seconds) == ("other", 0, 60)
    at = datetime(2099, 1, 1, tzinfo=timezone.utc)
    later = task.options(max_retries=5, schedule_at=at)
    record = stored(fake_queue, later.submit(1))
    assert (record.max_retries, record.timeout_seconds, record.available_at) == (5, 60, at)
    assert stored(fake_queue, task.submit(1)).max_retries == 0
    with pytest.raises(ConfigurationError, match=r"max_retry: there is no such option; there are timeout_seconds, max"):
        task.options(max_retry=1)
    with pytest.raises(ConfigurationError, match="retires: there is no such option"):
        fake_queue.task(retires=1)
    with pytest.raises(ConfigurationError, match="max_retries: a whole number"):
        task.options(max_retries=-1).submit(1)


def test_an_idempotent_call_is_one_task(fake_queue):
    task = bind(fake_queue, idempotent=True)
    first = task.submit(0.5)
    assert task.submit(lr=0.5, epochs=10).id == first.id
    assert task.submit(0.6).id != first.id
    group = task.map(lr=[0.5, 0.6, 0.7])
    assert group[0].id == first.id
    assert len({t.id for t in group}) == 3
    assert len(fake_queue.list()) == 3


# --- many calls


@pytest.mark.parametrize(
    ("args", "kwargs", "inputs"),
    [
        ((), {"lr": [0.1, 0.2], "epochs": 5}, [(0.1, 5), (0.2, 5)]),
        ((), {"lr": np.array([0.1, 0.2]), "epochs": range(1, 3)}, [(0.1, 1), (0.2, 2)]),
        ((), {"lr": [0.1], "epochs": (1, 2, 3)}, [(0.1, 1), (0.1, 2), (0.1, 3)]),
        (([0.1, 0.2],), {}, [(0.1, 10), (0.2, 10)]),
        (([{"lr": 0.1}, {"lr": 0.2, "epochs": 3}],), {}, [(0.1, 10), (0.2, 3)]),
        ((), {"lr": []}, []),
    ],
)
def test_map_broadcasts(fake_queue, args, kwargs, inputs):
    group = bind(fake_queue).map(*args, **kwargs)
    assert [tuple(stored(fake_queue, task).input.values()) for task in group] == inputs
    assert repr(group) == f"<TaskGroup of {len(inputs)}: {f'{len(inputs)} pending' if inputs else 'no tasks'}>"


def test_a_list_that_is_an_argument_is_one_argument(fake_queue):
    def add(items: list[int], start: int = 0) -> int: ...

    task = bind(fake_queue, add)
    group = task.map(items=[1, 2], start=[0, 5])
    assert [stored(fake_queue, t).input for t in group] == [{"items": [1, 2], "start": n} for n in (0, 5)]
    group = task.map(items=[[1, 2], [3]])
    assert [stored(fake_queue, t).input["items"] for t in group] == [[1, 2], [3]]


def test_a_column_of_pandas_is_a_series(fake_queue):
    import pandas as pd

    frame = pd.DataFrame({"lr": [0.1, 0.2], "n": [1, 2]})
    group = bind(fake_queue).map(lr=frame["lr"], epochs=frame["n"])
    assert [stored(fake_queue, t).input for t in group] == [{"lr": 0.1, "epochs": 1}, {"lr": 0.2, "epochs": 2}]


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {"lr": [1, 2], "epochs": [1, 2, 3]}, "train.map: the lengths differ: lr has 2, epochs has 3"),
        ((), {"lr": 0.1}, "train.map: none of its arguments is a series: use submit for one call"),
        (([1], [2], [3]), {}, "3 arguments are given, it takes 2"),
        (([1],), {"lr": [2]}, "multiple values for lr"),
        ((), {"lr": [1, "fast"]}, "train: lr: Input should be a valid number"),
        ((), {"lr": 0.1, "rate": [1, 2]}, "got an unexpected keyword argument 'rate'"),
    ],
)
def test_a_map_that_does_not_fit_writes_nothing(fake_queue, args, kwargs, said):
    with pytest.raises(ConfigurationError) as caught:
        bind(fake_queue).map(*args, **kwargs)
    assert said in str(caught.value)
    assert fake_queue.store.objects.look() == []


# --- what can be a task


def test_what_has_no_name_of_its_own_is_refused(fake_queue):
    def nested(a: int): ...

    class Model:
        def fit(self, a: int): ...

    def numbers():
        yield 1

    for function, said in (
        (lambda a: a, "a lambda has no name"),
        (nested, "nested is defined inside test_what_has_no_name_of_its_own_is_refused"),
        (Model.fit, "is a method: define the function outside of the class"),
        (print, "a function is needed, not builtin_function_or_method"),
        (Model, "a function is needed, not type"),
        (Model().fit, "a function is needed, not method"),
        (3, "a function is needed, not int"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            fake_queue.task(function)
        assert said in str(caught.value)
    with pytest.raises(ConfigurationError, match="it is a generator: return a list"):
        fake_queue.task("numbers")(numbers)
    with pytest.raises(ConfigurationError, match="is a method"):
        fake_queue.task("fit")(Model.fit)
    with pytest.raises(ConfigurationError, match="it is a task already"):
        fake_queue.task(fake_queue.task("a")(nested))
    assert fake_queue.task("given")(lambda a: a).submit(1).task_type == "given"
    assert fake_queue.task("nested")(nested).submit(1).task_type == "nested"


def in_module(name, text):
    module = types.ModuleType(name)
    exec(text, module.__dict__)
    return module


def test_two_modules_with_one_name_are_told_apart(fake_queue):
    text = "def resize(path: str): return __name__"
    first, second = in_module("photos", text), in_module("films", text)
    fake_queue.task(first.resize)
    with pytest.raises(ConfigurationError) as caught:
        fake_queue.task(second.resize)
    assert str(caught.value) == (
        "task 'resize': a function of module photos has this name already, and films defines another: give one of them "
        'a name of its own, @queue.task("films.resize")'
    )
    assert fake_queue.functions.get("resize").origin == ("photos", "resize")
    again = in_module("photos", "def resize(path: str, width: int = 3): return 'again'")
    fake_queue.task(again.resize)
    assert fake_queue.functions.get("resize")("x") == "again"


def test_functions_are_those_of_the_place_whatever_queue_is_used(fake_store):
    first, second = Queue(TaskStore(fake_store)), Queue(TaskStore(fake_store))
    bind(first)
    assert second.functions.get("train") is first.functions.get("train")
    assert Queue(TaskStore(FakeStore())).functions.get("train") is None


# --- modules


def test_a_function_of_a_module_is_bound_when_it_is_needed(fake_queue, monkeypatch):
    module = in_module(
        "jobs", "import oq_nb\n@oq_nb.task(max_retries=1)\ndef resize(path: str) -> int: return len(path)\n"
    )
    assert module.resize("abc") == 3
    assert module.resize.queue is None
    assert "no queue yet" in repr(module.resize)
    monkeypatch.setattr(connection, "_default_queue", fake_queue)
    task = module.resize.submit("abc")
    assert (task.queue, task.record.max_retries) == (fake_queue, 1)
    assert fake_queue.functions.get("resize") is module.resize


def test_the_type_and_options_of_a_module_function():
    @oq_nb.task("train", retry_on=ValueError)
    def anything(a: int): ...

    assert anything.task_type == "train"
    assert anything.handler.retry_on == (ValueError,)
    with pytest.raises(ConfigurationError, match="retry_on: exception types are needed, not 'ValueError'"):
        oq_nb.task("x", retry_on=["ValueError"])(train)
    with pytest.raises(ConfigurationError, match="task_type: it is empty"):
        oq_nb.task("")(train)


def test_it_can_be_pickled(fake_queue):
    copy = pickle.loads(pickle.dumps(oq_nb.task("copied", max_retries=1)(train)))
    assert copy(2, 3) == Metrics(loss=6)
    assert (copy.task_type, copy.queue) == ("copied", None)


# --- run as a worker would, without a store


def test_run_function():
    def work(items: list[int], context: TaskContext) -> int:
        for number, _ in enumerate(items, start=1):
            context.report_progress(current=number, total=len(items))
        return len(items)

    run = run_function(oq_nb.task("work")(work), items=[1, 2])
    assert (run.input, run.output, run.result, run.error) == ({"items": [1, 2]}, 2, 2, None)
    assert [report.percent for report in run.reports] == [50, 100]
    run = run_function(oq_nb.task("train")(train), lr=0.5, epochs="2")
    assert (run.input, run.output, run.result) == ({"lr": 0.5, "epochs": 2}, {"loss": 1.0}, Metrics(loss=1.0))


def test_run_function_shows_errors_as_a_task_has_them():
    def work(a: int):
        raise ValueError(f"no {a}")

    run = run_function(oq_nb.task("work")(work), 3)
    assert (run.verdict, run.last_error.splitlines()[0]) == ("fail", "ValueError: no 3")
    with pytest.raises(ValueError, match="no 3"):
        run.result  # noqa: B018
    run = run_function(oq_nb.task("work", retry_on=ValueError)(work), 3)
    assert run.verdict == "retry"
    with pytest.raises(ConfigurationError, match="work: a: Input should be a valid integer"):
        run_function(oq_nb.task("work")(work), "three")


def test_run_function_runs_coroutines():
    async def work(a: int, context) -> int:
        await context.report_progress(percent=30)
        return a * 2

    run = run_function(oq_nb.task("work")(work), 4)
    assert (run.result, run.reports[0].percent) == (8, 30)


def test_a_plain_call_is_given_a_context_that_reports_nowhere():
    def work(a: int, context: TaskContext) -> int:
        context.report_progress(percent=a)
        return context.progress.percent

    task = oq_nb.task("work")(work)
    assert task(7) == 7
    assert task(a=8) == 8
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
        task()
