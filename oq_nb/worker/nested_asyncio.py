"""`enable_nested_asyncio`: let a cell wait for coroutines that are bound to the kernel's own event loop.

Nothing in the package needs it: the synchronous calls use no loop, coroutine handlers run on loops of the worker's own
threads, and ``await`` works in a cell. It is for code that is neither: a handler, a client library or an
`asyncio.Queue` bound to the loop of the kernel, which must go on running while a cell blocks it (``asyncio.run(…)``,
``loop.run_until_complete(…)``).

This is the only place that imports nest-asyncio, and it does so when it is called. Imports nothing of the package but
`errors`.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import logging
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from oq_nb.errors import ConfigurationError

__all__ = ["NestedAsyncio", "enable_nested_asyncio"]

logger: logging.Logger = logging.getLogger("oq_nb.nested")

_PACKAGES = ("nest_asyncio2", "nest_asyncio")
_PATCHES = "asyncio.run, Task, Future and get_event_loop, and the class of the loop, for the whole process"


@dataclass(frozen=True)
class NestedAsyncio:
    """What was patched, and by what; its repr says so."""

    loop: asyncio.AbstractEventLoop
    package: str
    version: str

    def __repr__(self) -> str:
        kind = f"{type(self.loop).__module__}.{type(self.loop).__qualname__}"
        return f"<nested asyncio on {kind}: {self.package} {self.version} has patched {_PATCHES}>"


def enable_nested_asyncio(loop: asyncio.AbstractEventLoop | None = None) -> NestedAsyncio:
    """Allow ``asyncio.run`` and ``run_until_complete`` inside a running event loop, such as a kernel's.

    It replaces ``asyncio.run``, ``asyncio.Task``, ``asyncio.Future``, ``asyncio.get_event_loop`` and methods of the
    loop's class, in the whole process and for good: other tasks of the loop run while a nested call waits, also in the
    middle of what their authors took for undisturbed. Prefer ``await`` where it is possible.

    Args:
        loop: the loop to patch; None: the one that runs here, a kernel's inside a cell.

    Returns:
        What was patched, and by which package: nest-asyncio2, which is maintained, when it is installed, else
        nest-asyncio.

    Raises:
        ConfigurationError: the loop is not one of asyncio's own (uvloop, for one), none runs here, or neither package
            is installed.

    Example:
        >>> enable_nested_asyncio()                       # doctest: +SKIP
        >>> asyncio.run(main())                           # doctest: +SKIP
    """
    if loop is None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigurationError(
                "loop: no event loop runs here. Call this in a notebook's cell or in a coroutine, or name the loop; a "
                "plain script needs it not: asyncio.run() works there"
            ) from None
    if not isinstance(loop, asyncio.BaseEventLoop):
        kind = f"{type(loop).__module__}.{type(loop).__qualname__}"
        raise ConfigurationError(
            f"loop: {kind} cannot be nested, only asyncio's own loops can (uvloop's are written in C). Use await, or "
            "run the kernel without it: asyncio.set_event_loop_policy(None) before the loop is made"
        )
    module = _nest_asyncio()
    try:
        if module.__name__ == "nest_asyncio2":
            module.apply(loop, run_close_loop=True)  # else each asyncio.run in a thread leaves a loop open
        else:
            module.apply(loop)
    except TypeError:  # an older release of it
        module.apply(loop)
    made = NestedAsyncio(loop, module.__name__, _version(module.__name__))
    logger.info("%r", made)
    return made


def _nest_asyncio() -> ModuleType:
    """Return the package that does it: the one that did so before, as they do not go together, else the maintained."""
    names = list(_PACKAGES)
    if getattr(asyncio, "_nest_patched", False):
        names.reverse()
    for name in names:
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise ConfigurationError("nested asyncio needs nest-asyncio2, or nest-asyncio: pip install nest-asyncio2")


def _version(name: str) -> Any:
    try:
        return importlib.metadata.version(name.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"
