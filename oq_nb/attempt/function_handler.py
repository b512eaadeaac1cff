"""A function with a signature as a handler: from a task's input to its arguments, from its result to the output.

Invariants:

* An input that does not fit fails the task for good, before the function is called: another try would not help.
* What is sent to another process is the function alone; the other side builds the signature anew.

Imports of the package: `errors`, and of this room `handlers` and `signature`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from oq_nb.attempt.handlers import Handler
from oq_nb.attempt.signature import Signature

__all__ = ["handler_for"]


class _FunctionHandler:
    """Calls a function with what stands in its task's input."""

    def __init__(self, function: Callable[..., Any], signature: Signature) -> None:
        self._function, self._signature = function, signature

    def __call__(self, task_input: Any, context: Any) -> Any:
        given = self._signature.decode(task_input, context)
        return self._signature.encode_result(self._function(*given.args, **given.kwargs))


class _AsyncFunctionHandler(_FunctionHandler):
    """The same for ``async def`` functions."""

    async def __call__(self, task_input: Any, context: Any) -> Any:
        given = self._signature.decode(task_input, context)
        return self._signature.encode_result(await self._function(*given.args, **given.kwargs))


def handler_for(
    task_type: str,
    function: Callable[..., Any],
    signature: Signature,
    *,
    retry_on: tuple[type[BaseException], ...] = (),
) -> Handler:
    """Return the handler of a function.

    Args:
        task_type: which tasks it runs.
        function: what is called; ``async def`` too.
        signature: what it takes and gives.
        retry_on: exception types that count as retryable, besides those of the worker.
    """
    is_async = inspect.iscoroutinefunction(function)
    kind = _AsyncFunctionHandler if is_async else _FunctionHandler
    return Handler(task_type, kind(function, signature), is_async, wants_context=True, retry_on=retry_on)
