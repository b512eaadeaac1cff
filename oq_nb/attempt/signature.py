"""`Signature`: what a function takes and gives, as plain JSON by parameter name, checked by pydantic.

Invariants:

* What `encode` lets through, `decode` gives back: a value that JSON would change (a datetime without an annotation, a
  dictionary with numbers as keys) is refused with a hint, and never altered in silence.
* The JSON is plain: an object with one member for each argument, readable without this library.
* The parameter for the context is not part of it.

Pure. Imports of the package: `errors`, `model`, `text`, and `context` and `arrays` of this room. pydantic builds the
validators of a function when it is first called for.
"""

from __future__ import annotations

import collections.abc
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError
from pydantic_core import PydanticSerializationError

from oq_nb.attempt import arrays
from oq_nb.attempt.context import TaskContext
from oq_nb.errors import ConfigurationError, PermanentError
from oq_nb.model import to_json
from oq_nb.text import shorten

__all__ = ["Signature", "is_series"]

#: All arguments of a call, or its result, as JSON: larger things belong into a file or an object of their own.
MAX_BYTES = 8 * 1024 * 1024

_CONTEXT_NAME = "context"
_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", ser_json_inf_nan="strings")
_ANYTHING = (inspect.Parameter.empty, Any, object)


class Signature:
    """What a function takes and gives.

    Args:
        function: a function, or ``async def`` one.
        name: what errors call it.

    Raises:
        ConfigurationError: a parameter or the result cannot be held by JSON, or the function is of a kind that cannot
            be a task; the message names it.
    """

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        self._signature = inspect.signature(function)
        self._context = ""
        self._codecs: dict[str, _Codec] | None = None
        self._result: _Codec | None = None
        for parameter in self._signature.parameters.values():
            if parameter.kind is parameter.VAR_POSITIONAL:
                raise ConfigurationError(
                    f"{name}: *{parameter.name} cannot be stored by name: give it parameters, or one that is a list"
                )
        try:
            self._build()
        except NameError:  # a class that is defined below the function: built at the first call
            self._codecs = None

    def __str__(self) -> str:
        return f"{self._name}{_without_quotes(self._signature)}"

    def __getstate__(self) -> dict[str, Any]:
        return {"function": self._function, "name": self._name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Signature.__init__(self, state["function"], state["name"])

    @property
    def context_name(self) -> str:
        """The parameter that is given the `TaskContext`; empty when there is none."""
        self._build()
        return self._context

    @property
    def names(self) -> list[str]:
        """The parameters that a call is stored by."""
        return list(self._built())

    # --- a call

    def encode(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return a call as JSON by parameter name, defaults included.

        Raises:
            ConfigurationError: an argument is missing, unknown or not valid; the message names it.
        """
        bound = self._bind(args, kwargs)
        made: dict[str, Any] = {}
        for name, codec in self._built().items():
            parameter = self._signature.parameters[name]
            if parameter.kind is parameter.VAR_KEYWORD:
                for key, value in bound.arguments.get(name, {}).items():
                    made[key] = self._encoded(key, codec, value)
            elif name in bound.arguments:
                made[name] = self._encoded(name, codec, bound.arguments[name])
            elif parameter.default is not parameter.empty:
                try:
                    made[name] = codec.dump(parameter.default)
                except _UnfitError:  # a mark for "not given": the function's own business
                    continue
        self._check_size(made)
        return made

    def fits(self, name: str, value: Any) -> bool:
        """Return whether a value is one argument for a parameter, not a series of them; see `TaskFunction.map`."""
        codec = self._built()[name]
        if codec.takes_anything:
            return not is_series(value)
        try:
            codec.dump(value)
        except _UnfitError:
            return False
        return True

    def decode(self, task_input: Any, context: Any) -> inspect.BoundArguments:
        """Return a stored call as arguments.

        Raises:
            PermanentError: the input does not fit the function.
        """
        if task_input is None:
            task_input = {}
        if not isinstance(task_input, dict):
            kind = type(task_input).__name__
            raise PermanentError(f"the input does not fit {self}: an object with its arguments is needed, not {kind}")
        known = self._built()
        more = [name for name in known if self._is_more(name)]
        given: dict[str, Any] = {}
        try:
            for name, value in task_input.items():
                codec = known.get(name) if name not in more else None
                if codec is None and not more:
                    raise _UnfitError(f"{name}: there is no such parameter{_close(name, known)}")
                given[name] = (codec or known[more[0]]).load(value, name)
        except _UnfitError as exc:
            raise PermanentError(f"the input does not fit {self}: {exc}") from None
        if self._context:
            given[self._context] = context
        return self._arguments(given)

    def _arguments(self, given: dict[str, Any]) -> inspect.BoundArguments:
        parameters = self._signature.parameters.values()
        first = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY]
        args: list[Any] = []
        for name in first:
            if name not in given:
                break
            args.append(given.pop(name))
        try:
            return self._signature.bind(*args, **given)
        except TypeError as exc:
            raise PermanentError(f"the input does not fit {self}: {exc}") from None

    # --- its result

    def encode_result(self, value: Any) -> Any:
        """Return what the function gave as JSON.

        A value that is not what the annotation says is stored as it is when JSON holds it: the work is done.

        Raises:
            TypeError: JSON cannot hold it; the message says how it could.
        """
        codec = self._built_result()
        try:
            made = codec.dump(value)
        except _UnfitError as exc:
            try:
                made = _Anything().dump(value)
            except _UnfitError:
                raise TypeError(f"{self._name}: its result cannot be stored: {exc}") from None
        size = len(to_json(made))
        if size > MAX_BYTES * 8:
            raise TypeError(
                f"{self._name}: its result has {size / 1e6:.1f} MB of JSON: write it to a file or an object of its "
                "own, and return where that is"
            )
        return made

    def decode_result(self, value: Any) -> Any:
        """Return a stored output as what the annotation says; as it is when it does not fit."""
        try:
            return self._built_result().load(value, "result")
        except _UnfitError:
            return value

    # --- building

    def _built(self) -> dict[str, _Codec]:
        self._build()
        assert self._codecs is not None
        return self._codecs

    def _built_result(self) -> _Codec:
        self._build()
        assert self._result is not None
        return self._result

    def _build(self) -> None:
        if self._codecs is not None:
            return
        hints = self._hints()
        codecs: dict[str, _Codec] = {}
        for name, parameter in self._signature.parameters.items():
            annotation = hints.get(name, parameter.empty)
            if _is_context(name, annotation):
                self._context = name
                continue
            if name == _CONTEXT_NAME:
                raise ConfigurationError(
                    f"{self._name}: the parameter {_CONTEXT_NAME!r} is given by the worker: annotate it as "
                    "TaskContext, or give it another name"
                )
            codecs[name] = self._codec(f"parameter {name}", annotation)
        self._result = self._codec("its result", hints.get("return", inspect.Parameter.empty))
        self._codecs = codecs

    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self._function, include_extras=True)
        except NameError:
            raise
        except Exception as exc:
            raise ConfigurationError(f"{self._name}: its annotations cannot be read: {exc}") from exc

    def _codec(self, what: str, annotation: Any) -> _Codec:
        if annotation in (None, type(None)):
            annotation = type(None)
        try:
            return _codec_of(annotation)
        except _UnfitError as exc:
            raise ConfigurationError(f"{self._name}: {what}: {exc}") from None

    # --- checking

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        if self.context_name in kwargs and self._context:
            raise ConfigurationError(f"{self}: {self._context} is given by the worker, not by a call")
        signature = self._signature
        if self._context:  # not to be asked for
            kept = [p for p in signature.parameters.values() if p.name != self._context]
            signature = signature.replace(parameters=kept)
        try:
            return signature.bind(*args, **kwargs)
        except TypeError as exc:
            unknown = [name for name in kwargs if name not in signature.parameters]
            hint = _close(unknown[0], self._built()) if unknown else ""
            raise ConfigurationError(f"{self}: {exc}{hint}") from None

    def _encoded(self, name: str, codec: _Codec, value: Any) -> Any:
        try:
            return codec.dump(value)
        except _UnfitError as exc:
            raise ConfigurationError(f"{self._name}: {name}: {exc}") from None

    def _check_size(self, made: dict[str, Any]) -> None:
        try:
            size = len(to_json(made))
        except (TypeError, ValueError, RecursionError) as exc:
            raise ConfigurationError(f"{self._name}: its arguments cannot be stored: {exc}") from None
        if size > MAX_BYTES:
            sizes = {name: len(to_json(value)) for name, value in made.items()}
            largest = max(sizes, key=lambda name: sizes[name])
            raise ConfigurationError(
                f"{self._name}: {largest}: {sizes[largest] / 1e6:.1f} MB of JSON, at most {MAX_BYTES / 1e6:.0f} MB for "
                "all arguments: put it into a file or an object that the workers can read, and pass where that is"
            )

    def _is_more(self, name: str) -> bool:
        return self._signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD


# --- one value


class _UnfitError(Exception):
    """A value, or an annotation, that cannot be had; the text says why."""


class _Codec:
    """One value to and from JSON, by its annotation."""

    takes_anything = False

    def __init__(self, adapter: TypeAdapter[Any], *, is_plain: bool) -> None:
        self._adapter = adapter
        self._is_plain = is_plain

    def dump(self, value: Any) -> Any:
        """Return a value as JSON, converted to what the annotation says."""
        if self._is_plain:
            _check_plain(value)
        try:
            found = self._adapter.validate_python(arrays.without_numpy(value))
            made = self._adapter.dump_python(found, mode="json")
            try:
                to_json(made)
            except ValueError:  # NaN and infinity, which JSON has as text only
                made = json.loads(self._adapter.dump_json(found))
                to_json(made)
        except ValidationError as exc:
            raise _UnfitError(_first(exc)) from None
        except (PydanticSerializationError, ValueError, TypeError, RecursionError) as exc:
            raise _UnfitError(f"JSON cannot hold it: {_said(exc)}") from None
        return made

    def load(self, value: Any, name: str) -> Any:
        """Return a value that was stored."""
        try:
            return self._adapter.validate_json(to_json(value))
        except ValidationError as exc:
            raise _UnfitError(f"{name}: {_first(exc)}") from None


class _Anything(_Codec):
    """A value without annotation: what JSON holds as it is, and NumPy's numbers."""

    takes_anything = True

    def __init__(self) -> None:
        pass

    def dump(self, value: Any) -> Any:
        made = arrays.without_numpy(value)
        _check_plain(made)
        return made

    def load(self, value: Any, name: str) -> Any:  # noqa: ARG002
        return value


def _codec_of(annotation: Any) -> _Codec:
    if annotation in _ANYTHING:
        return _Anything()
    wanted = arrays.for_pydantic(annotation)
    try:
        try:
            adapter = TypeAdapter(wanted, config=_CONFIG)
        except PydanticUserError as exc:
            if exc.code != "type-adapter-config-unused":
                raise
            adapter = TypeAdapter(wanted)  # a model or dataclass has a configuration of its own
    except NameError:
        raise
    except (PydanticSchemaGenerationError, PydanticUserError, TypeError) as exc:
        if isinstance(exc, PydanticUserError) and exc.code in ("undefined-annotation", "class-not-fully-defined"):
            raise NameError(str(exc)) from exc
        raise _UnfitError(
            f"{_name_of(annotation)} cannot be stored as JSON. Pass what it is made of (numbers, text, lists, a "
            "dataclass or pydantic model), or the path of a file that holds it"
        ) from None
    return _Codec(adapter, is_plain=_is_plain(annotation))


def _is_plain(annotation: Any) -> bool:
    """Return whether an annotation says nothing of what a container holds, as ``dict`` and ``list[Any]`` do."""
    containers = (dict, list, collections.abc.Mapping, collections.abc.Sequence)
    if annotation in containers:
        return True
    args = typing.get_args(annotation)
    return (
        typing.get_origin(annotation) in containers and all(arg in (Any, object, str) for arg in args) and Any in args
    )


def _check_plain(value: Any) -> None:
    """Check that JSON holds a value as it is.

    Raises:
        _UnfitError: it would come back as something else, or not at all.
    """
    try:
        to_json(value)
    except TypeError:
        kind = _strange(value)
        raise _UnfitError(
            f"JSON cannot hold {kind}: annotate the parameter with its type, which converts it there and back"
        ) from None
    except (ValueError, RecursionError) as exc:
        raise _UnfitError(f"JSON cannot hold it: {_said(exc)}") from None
    if _has_other_keys(value):
        raise _UnfitError("JSON has text as keys only: annotate the parameter, such as dict[int, float]")


def _has_other_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return any(not isinstance(key, str) for key in value) or any(map(_has_other_keys, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_other_keys, value))


def _strange(value: Any) -> str:
    """Return the name of the first type in a value that JSON does not have."""
    if isinstance(value, dict):
        values: Any = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple)):
        values = value
    else:
        return _name_of(type(value))
    for item in values:
        try:
            to_json(item)
        except (TypeError, ValueError, RecursionError):
            return _strange(item)
    return _name_of(type(value))


def is_series(value: Any) -> bool:
    """Return whether a value holds several: a list, a tuple, a range, an array, a pandas column."""
    if isinstance(value, (str, bytes, bytearray, Mapping)):
        return False
    if isinstance(value, (list, tuple, range)):
        return True
    return getattr(value, "ndim", 0) >= 1 and hasattr(value, "__len__") and hasattr(value, "__getitem__")


def _is_context(name: str, annotation: Any) -> bool:
    if name == _CONTEXT_NAME and annotation in _ANYTHING:
        return True
    choices = typing.get_args(annotation) or (annotation,)
    kinds = [choice for choice in choices if isinstance(choice, type) and choice is not type(None)]
    return bool(kinds) and all(
        issubclass(kind, TaskContext) or (kind.__name__ == "AsyncTaskContext" and kind.__module__.startswith("oq_nb."))
        for kind in kinds
    )


def _without_quotes(signature: inspect.Signature) -> str:
    """Return a signature as it is written, not too long; annotations that are text lose their quotes."""

    def plain(annotation: Any) -> Any:
        return _AsWritten(annotation) if isinstance(annotation, str) else annotation

    parameters = [p.replace(annotation=plain(p.annotation)) for p in signature.parameters.values()]
    made = signature.replace(parameters=parameters, return_annotation=plain(signature.return_annotation))
    return shorten(str(made), 200)


class _AsWritten(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _name_of(annotation: Any) -> str:
    if typing.get_args(annotation):
        return str(annotation).replace("typing.", "")
    return getattr(annotation, "__qualname__", None) or str(annotation)


def _first(error: ValidationError) -> str:
    """Return the first thing that is wrong, without the whole input."""
    found = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in found["loc"])
    given = shorten(repr(found["input"]), 60)
    said = found["msg"].removeprefix("Value error, ")
    text = f"{said}, not {given}" if found["type"] != "missing" else said
    return f"{where}: {text}" if where else text


def _said(error: BaseException) -> str:
    first = str(error).splitlines()[0] if str(error) else type(error).__name__
    return shorten(re.sub(r"^Error calling function `\w+`: \w+: ", "", first), 200)


def _close(name: str, known: Mapping[str, Any]) -> str:
    import difflib

    found = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {found[0]}?)" if found else ""
