"""What the code of a handler prints and logs, wherever in this process it runs: told apart by a context variable.

While somebody captures, ``sys.stdout`` and ``sys.stderr`` are stand-ins that pass everything on to the streams that
were there, and give a copy of what is written in a handler's context to the buffer of its attempt. So two handlers in
one kernel do not mix, and a notebook's cells print where they always did. What is logged is taken where a logger calls
its handlers: a handler on the root logger would switch off ``logging.basicConfig()`` and the warnings that Python shows
where nothing is configured.

What was printed by a logging handler in doing its work is not taken twice.

Not captured: threads that a handler starts itself (the context is copied to coroutines and by ``asyncio.to_thread``
only), unless the whole process is its own; what C code and child processes write; ``sys.stdout.buffer``.

Invariants:

* Nothing here raises into what is printed, nor waits for anything but a buffer's lock.
* The streams are put back when the last one stops capturing, unless somebody else has replaced them meanwhile.

Imports of the package: of this room `log_buffer`.
"""

from __future__ import annotations

import copy
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from oq_nb.attempt.log_buffer import LogBuffer

__all__ = ["capturing", "install", "uninstall"]

_STREAMS = {"stdout": "out", "stderr": "err"}


class _Sink(Protocol):
    def add(self, stream: str, text: str) -> None:
        """Take what was written."""


class _Mute:
    """Where an original stream or a logging handler writes: what they print was taken already."""

    def add(self, stream: str, text: str) -> None:
        """Take nothing."""


_MUTE = _Mute()
_current: ContextVar[_Sink | None] = ContextVar("oq_nb_log", default=None)


class _Stream:
    """Stands in for a stream: passes everything on, and gives a copy to the handler's buffer."""

    def __init__(self, stream: Any, name: str) -> None:
        self.oq_stream, self.oq_name, self.oq_label = stream, name, _STREAMS[name]

    def write(self, text: str) -> Any:
        sink = _current.get() or _capture.everything
        if sink is None:
            return self.oq_stream.write(text)
        if text and isinstance(text, str):
            sink.add(self.oq_label, text)
        token = _current.set(_MUTE)  # the stream may be made of others
        try:
            return self.oq_stream.write(text)
        finally:
            _current.reset(token)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.oq_stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.oq_stream)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave it open: it is not ours."""

    def __repr__(self) -> str:
        return repr(self.oq_stream)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (sys, self.oq_name)  # in another process, the stream there


class _Capture:
    """What is installed in this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._logging: tuple[Any, Any] | None = None  # the method that was there, and ours
        #: Takes what is printed outside of every handler's context, in a process that is one handler's own.
        self.everything: LogBuffer | None = None

    def renew_lock(self) -> None:
        """Take a new lock, in a forked process: a thread of the parent may have held the old one."""
        self._lock = threading.Lock()

    def install(self) -> None:
        with self._lock:
            self._users += 1
        self.renew()

    def renew(self) -> None:
        """Stand in for the streams that are there now: somebody may have replaced them (``%%capture`` does)."""
        with self._lock:
            for name in _STREAMS:
                stream = getattr(sys, name)
                if stream is not None and not isinstance(stream, _Stream):
                    setattr(sys, name, _Stream(stream, name))
            if self._logging is None:
                original = logging.Logger.callHandlers
                ours = _taking(original)
                self._logging = original, ours
                logging.Logger.callHandlers = ours  # type: ignore[method-assign]

    def uninstall(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users:
                return
            for name in _STREAMS:
                stream = getattr(sys, name)
                if isinstance(stream, _Stream):
                    setattr(sys, name, stream.oq_stream)
            if self._logging is not None and logging.Logger.callHandlers is self._logging[1]:
                logging.Logger.callHandlers = self._logging[0]  # type: ignore[method-assign]
                self._logging = None


def _taking(original: Callable[[logging.Logger, logging.LogRecord], None]) -> Any:
    """Return what a logger calls instead of its handlers: what calls them, and gives a copy to the handler's buffer."""
    formatter = logging.Formatter("%(levelname)s %(name)s: %(message)s")

    def callHandlers(self: logging.Logger, record: logging.LogRecord) -> None:
        sink = _current.get() or _capture.everything
        if sink is None:
            return original(self, record)
        try:
            sink.add("log", formatter.format(copy.copy(record)) + "\n")
        except Exception:  # arguments that do not fit the message: the logging handlers complain of it
            pass
        token = _current.set(_MUTE)
        try:
            return original(self, record)
        finally:
            _current.reset(token)

    return callHandlers


_capture = _Capture()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_capture.renew_lock)


def install() -> None:
    """Begin to stand in for the streams of this process; for each call there is one of `uninstall`."""
    _capture.install()


def uninstall() -> None:
    """Put the streams back, when nobody else captures."""
    _capture.uninstall()


@contextmanager
def capturing(buffer: LogBuffer | None, *, everything: bool = False) -> Iterator[None]:
    """Give a buffer what the code inside prints and logs; between `install` and `uninstall`.

    Args:
        buffer: of the attempt; None to capture nothing.
        everything: also what is printed by threads outside of the context: the process is this handler's own.
    """
    if buffer is None:
        yield
        return
    _capture.renew()
    token = _current.set(buffer)
    if everything:
        _capture.everything = buffer
    try:
        yield
    finally:
        _current.reset(token)
        if everything:
            _capture.everything = None
