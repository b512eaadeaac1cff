"""`LogBuffer`, what was printed and not yet taken away; `LineAssembler`, which makes lines of it.

Invariants:

* `LogBuffer.add` is cheap and waits for nothing but a lock that is never held while anything is written or formatted.
* A buffer is bounded: it keeps the beginning and the end of what comes between two `take`, and counts what it drops.
* Text that a carriage return has overwritten is no line: of a progress bar its last state stays.

Imports of the package: `ansi`, `forks`, `model`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from oq_nb import ansi
from oq_nb.forks import after_fork
from oq_nb.model.logs import GAP, MAX_LINE_CHARS

__all__ = ["Chunk", "LineAssembler", "Lines", "LogBuffer"]

_OVERHEAD = 60  # that a line costs in a piece, and at least in memory, besides its text
_JOINED_CHARS = 4096
_SLICE_CHARS = 1 << 16
_MAX_SOURCES = 100


class Chunk(NamedTuple):
    """What was written at once, or a gap."""

    #: Monotonic seconds.
    at: float
    #: ``out``, ``err``, ``log`` or ``gap``.
    stream: str
    #: The thread that wrote it: lines of several threads do not mix.
    source: int
    text: str
    lost_lines: int = 0
    lost_bytes: int = 0


class LogBuffer:
    """What an attempt has written, until it is taken. Safe to use from several threads.

    Args:
        limit_bytes: bound of the attempt's log; the buffer holds three quarters of it at most.
        on_news: called when something is added to an empty buffer; must neither block nor print.
    """

    def __init__(self, limit_bytes: int, on_news: Callable[[], object] = lambda: None) -> None:
        self.limit_bytes = limit_bytes
        self._head_room, self._tail_room = limit_bytes // 2, limit_bytes // 4
        self._slice_chars = min(_SLICE_CHARS, max(1, limit_bytes // 8))
        self._on_news = on_news
        # A thread may come back in the middle of `add`: the garbage collector can call what prints.
        self._lock = threading.RLock()
        self._is_closed = False
        self._clear()
        after_fork(self._renew_in_child)

    def _clear(self) -> None:
        self._head: list[Chunk] = []
        self._tail: deque[Chunk] = deque()
        self._head_size = self._tail_size = 0
        self._lost_lines = self._lost_bytes = 0

    def _renew_in_child(self) -> None:
        """Take nothing more, in a process that was forked: nobody would take it away."""
        self._lock = threading.RLock()
        self._is_closed = True
        self._clear()

    def add(self, stream: str, text: str) -> None:
        """Take what was written just now, in this thread."""
        at, source = time.monotonic(), threading.get_ident()
        width = self._slice_chars
        if len(text) <= width:
            self.put(Chunk(at, stream, source, text))
            return
        for start in range(0, len(text), width):
            self.put(Chunk(at, stream, source, text[start : start + width]))

    def put(self, chunk: Chunk) -> None:
        """Take a chunk; nothing after `close`."""
        with self._lock:
            if self._is_closed:
                return
            is_first = self.is_empty
            self._put(chunk)
        if is_first:
            self._on_news()

    def _put(self, chunk: Chunk) -> None:
        length = len(chunk.text)
        if not self._tail and self._head and _is_continued(self._head[-1], chunk):
            self._head[-1] = self._head[-1]._replace(text=self._head[-1].text + chunk.text)
            self._head_size += length
            return
        if not self._tail and self._head_size + length <= self._head_room:
            self._head.append(chunk)
            self._head_size += length + _OVERHEAD
            return
        if self._tail and _is_continued(self._tail[-1], chunk):
            self._tail[-1] = self._tail[-1]._replace(text=self._tail[-1].text + chunk.text)
        else:
            self._tail.append(chunk)
            length += _OVERHEAD
        self._tail_size += length
        while self._tail_size > self._tail_room and len(self._tail) > 1:
            gone = self._tail.popleft()
            self._tail_size -= len(gone.text) + _OVERHEAD
            self._lost_lines += gone.text.count("\n") + gone.lost_lines
            self._lost_bytes += _size(gone.text) + gone.lost_bytes

    def take(self) -> list[Chunk]:
        """Return what is there, oldest first, and forget it; a gap stands where something was dropped."""
        with self._lock:
            taken, tail = self._head, self._tail
            lost_lines, lost_bytes = self._lost_lines, self._lost_bytes
            self._clear()
        if lost_lines or lost_bytes:
            taken.append(Chunk(tail[0].at if tail else 0.0, GAP, 0, "", lost_lines, lost_bytes))
        taken += tail
        return taken

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._head and not self._tail

    def close(self) -> None:
        """Take nothing more; what is there can still be taken."""
        with self._lock:
            self._is_closed = True


def _is_continued(last: Chunk, chunk: Chunk) -> bool:
    """Return whether a chunk goes on with the line of the one before it."""
    return (
        last.stream == chunk.stream
        and last.source == chunk.source
        and last.stream != GAP
        and len(last.text) < _JOINED_CHARS
        and not last.text.endswith("\n")
    )


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


class Lines(NamedTuple):
    """Something that a `LineAssembler` has made: a line, or a gap."""

    at: float
    stream: str
    text: str
    lost_lines: int = 0
    lost_bytes: int = 0


class LineAssembler:
    """Makes lines of what was written; a line is done when its end was written. For one thread."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], tuple[float, str]] = {}  # lines without an end, by stream and thread

    def feed(self, chunks: Iterable[Chunk]) -> Iterator[Lines]:
        """Yield the lines that are done with these chunks."""
        for chunk in chunks:
            if chunk.stream == GAP:
                yield from self.finish()
                yield Lines(chunk.at, GAP, "", chunk.lost_lines, chunk.lost_bytes)
                continue
            key = (chunk.stream, chunk.source)
            at, text = self._open.pop(key, (chunk.at, ""))
            *done, rest = (text + chunk.text).split("\n")
            for line in done:
                yield from _lines(at, chunk.stream, _overwritten(line.removesuffix("\r")))
                at = chunk.at
            rest = _overwritten(rest)
            if len(rest) > MAX_LINE_CHARS:
                yield from _lines(at, chunk.stream, rest)
                rest = ""
            if rest:
                while len(self._open) >= _MAX_SOURCES:
                    yield from self._end(next(iter(self._open)))
                self._open[key] = (at, rest)

    def finish(self) -> Iterator[Lines]:
        """Yield what has no end, as lines."""
        for key in list(self._open):
            yield from self._end(key)

    def _end(self, key: tuple[str, int]) -> Iterator[Lines]:
        at, text = self._open.pop(key)
        if text.strip() or "\r" not in text:  # else it was wiped
            yield from _lines(at, key[0], text.rstrip("\r"))


def _overwritten(text: str) -> str:
    """Return what a line shows after its carriage returns; one at the end may still be overwritten."""
    if "\r" not in text:
        return text
    at_end = text.endswith("\r")
    *_, last = text.rstrip("\r").rpartition("\r")
    return last + "\r" * at_end


def _lines(at: float, stream: str, text: str) -> Iterator[Lines]:
    text = ansi.clean(text)
    for start in range(0, max(1, len(text)), MAX_LINE_CHARS):
        yield Lines(at, stream, text[start : start + MAX_LINE_CHARS])
