"""What functions take and give, as JSON: the tables of docs/how-to/functions.md, row by row, and what is refused."""

from __future__ import annotations

import ast
import dataclasses
import datetime
import enum
import json
import pickle
import threading
import typing
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import BaseModel

from oq_nb.attempt.async_context import AsyncTaskContext
from oq_nb.attempt.context import TaskContext
from oq_nb.attempt.signature import Signature
from oq_nb.errors import ConfigurationError, PermanentError

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "functions.md").read_text(encoding="utf-8")


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Metrics(BaseModel):
    loss: float


class Node(BaseModel):
    value: int
    next: Node | None = None


#: What the tables use.
NAMES = {
    "np": np,
    "NDArray": NDArray,
    "Literal": typing.Literal,
    "Path": Path,
    "Decimal": Decimal,
    "UUID": uuid.UUID,
    **{name: getattr(datetime, name) for name in ("datetime", "date", "timedelta", "timezone")},
    **{kind.__name__: kind for kind in (Colour, Point, Metrics, Node)},
}


def rows(header: str) -> list[list[str]]:
    """Return the cells of the page's table with this header."""
    lines = PAGE[PAGE.index(header) :].splitlines()[2:]
    table = lines[: lines.index("")]
    cells = [[cell.strip() for cell in line.replace("\\|", "\0").strip("| ").split("|")] for line in table]
    return [[cell.replace("\0", "|") for cell in line] for line in cells]


def code(cell: str) -> str:
    return cell.split("`")[1]


def signature_of(annotation: str, *, gives: bool = False) -> Signature:
    """Return the signature of a function with one parameter, or a result, of this annotation."""

    def function(value): ...

    if annotation != "none":
        function.__annotations__["return" if gives else "value"] = eval(code(annotation), NAMES)
    return Signature(function, "function")


def is_same(a: Any, b: Any) -> bool:
    if isinstance(a, (np.ndarray, np.generic)):
        return type(a) is type(b) and a.dtype == b.dtype and a.shape == b.shape and bool(np.all(a == b))
    if isinstance(a, list):
        return type(b) is list and len(a) == len(b) and all(map(is_same, a, b))
    return type(a) is type(b) and a == b


KEPT = rows("| annotation | you pass | in the bucket |")
REFUSED = rows("| annotation | you pass | you read |")


def test_the_page_has_its_tables():
    assert len(KEPT) == 28
    assert len(REFUSED) == 8


@pytest.mark.parametrize("row", KEPT, ids=lambda row: f"{row[0]} {row[1]}")
def test_arguments_and_results_go_through_json(row):
    annotation, given, stored, got = row
    value, wanted = eval(code(given), NAMES), eval(code(got), NAMES)
    signature = signature_of(annotation)
    made = signature.encode((value,), {})
    assert made == {"value": ast.literal_eval(code(stored))}
    back = signature.decode(json.loads(json.dumps(made)), None)
    assert is_same(back.arguments["value"], wanted)
    gives = signature_of(annotation, gives=True)
    output = gives.encode_result(value)
    assert output == ast.literal_eval(code(stored))
    assert is_same(gives.decode_result(json.loads(json.dumps(output))), wanted)


@pytest.mark.parametrize("row", REFUSED, ids=lambda row: f"{row[0]} {row[1][:30]}")
def test_what_json_would_change_is_refused(row):
    annotation, given, message = row
    with pytest.raises(ConfigurationError) as caught:
        signature_of(annotation).encode((eval(code(given), NAMES),), {})
    assert str(caught.value).startswith("function: value: ")
    assert code(message) in str(caught.value)


def train(lr: float, epochs: int = 10) -> float:
    return lr * epochs


MISTAKES = rows("| you write | you read |")


@pytest.mark.parametrize("row", MISTAKES, ids=lambda row: row[0])
def test_a_call_that_does_not_fit_says_why(row):
    call, message = row
    signature = Signature(train, "train")
    arguments = eval(code(call).replace("train.submit(", "dict("))
    with pytest.raises(ConfigurationError) as caught:
        signature.encode((), arguments)
    assert str(caught.value) == code(message)


def test_a_number_out_of_bounds_of_its_type_is_refused():
    def function(value: np.int8): ...

    with pytest.raises(ConfigurationError, match="value: "):
        Signature(function, "function").encode((1000,), {})


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        ([0.1], "an object with its arguments is needed, not list"),
        ("text", "an object with its arguments is needed, not str"),
        ({}, "missing a required argument: 'lr'"),
        (None, "missing a required argument: 'lr'"),
        ({"lr": "fast"}, "lr: Input should be a valid number"),
        ({"lr": 1, "epoch": 2}, "epoch: there is no such parameter (did you mean epochs?)"),
    ],
)
def test_a_stored_input_that_does_not_fit_fails_for_good(stored, why):
    with pytest.raises(PermanentError) as caught:
        Signature(train, "train").decode(stored, None)
    assert str(caught.value).startswith("the input does not fit train(lr: float, epochs: int = 10) -> float: ")
    assert why in str(caught.value)


def test_plain_json_of_others_is_taken_with_defaults_left_out():
    given = Signature(train, "train").decode({"lr": 1}, None)
    assert (given.args, given.kwargs) == ((1.0,), {})
    assert train(*given.args, **given.kwargs) == 10.0


def test_defaults_are_stored_with_the_call():
    assert Signature(train, "train").encode((0.5,), {}) == {"lr": 0.5, "epochs": 10}


def test_a_default_that_means_not_given_is_left_out():
    missing = object()

    def function(a: int, b=missing): ...

    signature = Signature(function, "function")
    assert signature.encode((1,), {}) == {"a": 1}
    assert signature.decode({"a": 1}, None).arguments == {"a": 1}


def positional_only(a, b=2, /, *, c=3): ...


def more_of_them(a, **more: int): ...


def test_every_kind_of_parameter():
    signature = Signature(positional_only, "f")
    stored = signature.encode((1,), {"c": 5})
    assert stored == {"a": 1, "b": 2, "c": 5}
    given = signature.decode(stored, None)
    assert (given.args, given.kwargs) == ((1, 2), {"c": 5})
    signature = Signature(more_of_them, "f")
    stored = signature.encode((1,), {"x": "2", "y": 3})
    assert stored == {"a": 1, "x": 2, "y": 3}
    assert signature.decode(stored, None).kwargs == {"x": 2, "y": 3}
    with pytest.raises(ConfigurationError, match=r"f: x: Input should be a valid integer"):
        signature.encode((1,), {"x": "two"})


@pytest.mark.parametrize("annotation", [TaskContext, AsyncTaskContext, TaskContext | None, "TaskContext"])
def test_the_context_is_given_and_not_stored(annotation):
    def function(a: int, what): ...

    function.__annotations__["what"] = annotation
    signature = Signature(function, "function")
    assert signature.context_name == "what"
    assert signature.encode((1,), {}) == {"a": 1}
    assert signature.decode({"a": 1}, "the context").arguments == {"a": 1, "what": "the context"}
    with pytest.raises(ConfigurationError, match="what is given by the worker"):
        signature.encode((1,), {"what": 3})


def test_a_parameter_named_context_is_the_context():
    def function(context, a: int): ...

    signature = Signature(function, "function")
    assert signature.encode((1,), {}) == {"a": 1}
    assert signature.decode({"a": 1}, "the context").arguments == {"context": "the context", "a": 1}

    def other(context: str): ...

    with pytest.raises(ConfigurationError, match="annotate it as TaskContext, or give it another name"):
        Signature(other, "other")


def test_what_can_never_be_stored_is_refused_at_the_definition():
    def gives() -> threading.Lock: ...

    def takes(value: list[threading.Thread]): ...

    def rest(*values: int): ...

    with pytest.raises(ConfigurationError, match=r"gives: its result: .*lock cannot be stored as JSON"):
        Signature(gives, "gives")
    with pytest.raises(ConfigurationError, match=r"takes: parameter value: .*Thread.* cannot be stored as JSON"):
        Signature(takes, "takes")
    with pytest.raises(ConfigurationError, match=r"rest: \*values cannot be stored by name"):
        Signature(rest, "rest")


def test_a_circular_value_is_refused():
    node = Node(value=1)
    node.next = node

    def function(value: Node): ...

    with pytest.raises(ConfigurationError, match="function: value: JSON cannot hold it: Circular reference"):
        Signature(function, "function").encode((node,), {})


def test_a_result_that_is_not_what_the_annotation_says_is_kept():
    def function() -> Metrics: ...

    signature = Signature(function, "function")
    assert signature.encode_result({"accuracy": 1}) == {"accuracy": 1}
    assert signature.decode_result({"accuracy": 1}) == {"accuracy": 1}
    assert signature.decode_result({"loss": 1}) == Metrics(loss=1)
    with pytest.raises(TypeError, match="function: its result cannot be stored"):
        signature.encode_result(threading.Lock())


def test_nothing_to_give():
    def function() -> None: ...

    signature = Signature(function, "function")
    assert signature.encode_result(None) is None
    assert signature.decode_result(None) is None


def test_a_class_that_is_defined_below_its_function():
    space: dict[str, Any] = {}
    exec("from __future__ import annotations\ndef f(a: Later): ...\n", space)
    signature = Signature(space["f"], "f")
    with pytest.raises(NameError):
        signature.encode((1,), {})
    space["Later"] = int
    assert signature.encode(("1",), {}) == {"a": 1}


def test_it_is_sent_as_the_function_alone():
    copy = pickle.loads(pickle.dumps(Signature(train, "train")))
    assert copy.encode((1,), {}) == {"lr": 1.0, "epochs": 10}
    assert str(copy) == "train(lr: float, epochs: int = 10) -> float"
