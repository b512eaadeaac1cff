"""NumPy's numbers and small arrays as JSON, for the signatures of task functions. Never imports NumPy by itself.

Only what comes back the same is let through: an array's type must be the one that its annotation names
(``NDArray[np.float32]``), or one that a list of numbers has anyway (``int64``, ``float64``, ``bool``).

Pure; imports nothing of the package.
"""

from __future__ import annotations

import sys
import types
import typing
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator

__all__ = ["for_pydantic", "without_numpy"]

#: Elements of an array; a larger one belongs into a file.
MAX_ELEMENTS = 100_000


def _numpy() -> Any:
    return sys.modules.get("numpy")


def without_numpy(value: Any) -> Any:
    """Return a NumPy number as Python's own; all else as it is. Lists and dictionaries are looked through."""
    np = _numpy()
    if np is None:
        return value
    if isinstance(value, np.generic) and not isinstance(value, (np.datetime64, np.timedelta64, np.void)):
        return value.item()
    if type(value) is list:
        return [without_numpy(item) for item in value] if any(isinstance(item, np.generic) for item in value) else value
    if type(value) is dict and any(isinstance(item, np.generic) for item in value.values()):
        return {key: without_numpy(item) for key, item in value.items()}
    return value


def for_pydantic(annotation: Any) -> Any:
    """Return an annotation with NumPy's types in it replaced by ones that pydantic can read and write."""
    np = _numpy()
    if np is None:
        return annotation
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if args and hasattr(origin, "__value__"):  # an alias by a ``type`` statement, which NDArray is from NumPy 2.5 on
        annotation = origin.__value__[args]
        origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is np.ndarray:
        return _array(np, None)
    if origin is np.ndarray:
        return _array(np, _dtype_of(np, args))
    if isinstance(annotation, type) and issubclass(annotation, np.generic):
        return _scalar(np, annotation)
    if not args or origin is typing.Literal:
        return annotation
    made = tuple(for_pydantic(arg) for arg in args)
    if all(new is old for new, old in zip(made, args, strict=True)):
        return annotation
    if origin is Annotated:
        return Annotated.__class_getitem__((made[0], *args[1:]))
    if origin in (typing.Union, getattr(types, "UnionType", None)):
        return typing.Union[made]  # noqa: UP007
    return origin[made] if origin is not None else annotation


def _dtype_of(np: Any, args: tuple[Any, ...]) -> Any:
    for arg in args:
        if typing.get_origin(arg) is np.dtype:
            (kind,) = typing.get_args(arg)
            if isinstance(kind, type) and issubclass(kind, np.generic) and kind not in _abstract(np):
                return np.dtype(kind)
    return None


def _abstract(np: Any) -> tuple[Any, ...]:
    return (np.generic, np.number, np.integer, np.floating, np.signedinteger, np.unsignedinteger, np.inexact)


def _scalar(np: Any, kind: Any) -> Any:
    def read(value: Any) -> Any:
        try:
            return kind(value)
        except (TypeError, ValueError, OverflowError) as exc:
            raise ValueError(f"Input should be a valid {kind.__name__} ({exc})") from None

    def write(value: Any) -> Any:
        made = value.item()
        if kind(made) != value and made == made:
            raise ValueError(f"{kind.__name__} {value!r} does not come back from JSON")
        return made

    del np
    return Annotated[Any, PlainValidator(read), PlainSerializer(write)]


def _array(np: Any, dtype: Any) -> Any:
    def read(value: Any) -> Any:
        try:
            made = np.asarray(value, dtype=dtype)
        except (TypeError, ValueError, OverflowError) as exc:
            raise ValueError(f"Input should be an array ({exc})") from None
        if made.dtype == object:
            raise ValueError("Input should be an array of numbers or text, whose rows are of one length")
        return made

    def write(value: Any) -> Any:
        if value.size > MAX_ELEMENTS:
            raise ValueError(f"an array of {value.size:,} elements, at most {MAX_ELEMENTS:,}: pass the path of a file")
        made = value.tolist()
        back = np.asarray(made, dtype=dtype)
        if back.dtype != value.dtype or back.shape != value.shape:
            name = value.dtype.name
            raise ValueError(
                f"an array of {name} and shape {value.shape} comes back as {back.dtype.name}, {back.shape}: "
                f"annotate it, such as NDArray[np.{name}]"
            )
        return made

    return Annotated[Any, PlainValidator(read), PlainSerializer(write)]
