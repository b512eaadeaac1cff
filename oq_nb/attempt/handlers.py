"""Handlers: the functions and objects that users register, in one form. Pure.

Imports nothing of the package but `errors`, `model` and `text`.
"""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from oq_nb.errors import ConfigurationError
from oq_nb.model import check_task_type
from oq_nb.text import shorten

__all__ = ["Handler", "error_text", "handler_of"]

_MAX_ERROR_CHARS = 16_000
# Of this package and of asyncio, which is not imported for it.
_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_BETWEEN = (_PACKAGE + os.sep, os.path.join(os.path.dirname(os.__file__), "asyncio") + os.sep)


@dataclass(frozen=True)
class Handler:
    """A function that runs the tasks of one type."""

    task_type: str
    function: Callable[..., Any]
    is_async: bool
    wants_context: bool
    #: Exception types that count as retryable, besides those of the worker.
    retry_on: tuple[type[BaseException], ...] = ()


def handler_of(task_type: str, function: Any) -> Handler:
    """Return a function, or the ``handle`` method of an object, as a handler.

    Raises:
        ConfigurationError: it cannot be called with an input, or with an input and a context.
    """
    check_task_type(task_type)
    if not callable(function):
        raise ConfigurationError(f"handler of {task_type!r}: a function is needed, not {type(function).__name__}")
    is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return Handler(task_type, function, is_async, wants_context=False)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    takes_rest = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if len(required) > 2 or (not positional and not takes_rest):
        raise ConfigurationError(
            f"handler of {task_type!r}: it is called with (input) or (input, context), but it takes "
            f"{inspect.signature(function)}"
        )
    second = positional[1].name if len(positional) > 1 else ""
    wants_context = len(required) == 2 or second in ("context", "ctx") or (takes_rest and len(positional) < 2)
    return Handler(task_type, function, is_async, wants_context)


def error_text(error: BaseException) -> str:
    """Return an exception for ``last_error``: type and message in the first line, then the traceback.

    It begins with the handler's own code, and has at most 16,000 characters.
    """
    try:
        message = str(error)
    except Exception:
        message = "(its message cannot be shown)"
    first = shorten(f"{type(error).__name__}: {message}", 2000)
    lines = "".join(traceback.format_exception(type(error), error, _from_the_handler_on(error.__traceback__)))
    room = _MAX_ERROR_CHARS - len(first)
    if len(lines) > room:
        lines = lines[: room // 2] + "\n…\n" + lines[-room // 2 :]
    return f"{first}\n\n{lines}".encode("utf-8", "replace").decode()


def _from_the_handler_on(found: TracebackType | None) -> TracebackType | None:
    """Leave out the frames of this package and asyncio above the handler; keep all when there are no others."""
    left = found
    while left is not None and left.tb_frame.f_code.co_filename.startswith(_BETWEEN):
        left = left.tb_next
    return left or found
