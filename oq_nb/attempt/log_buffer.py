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

_OVERHEAD = 30  # that a write costs in memory, and about half of what a line costs in a piece, besides its text
_BLOCK_SECONDS = 0.01  # what is written within this time counts as written at once
_BLOCK_CHARS = 1 << 15
_MAX_SOURCES = 100


class Chunk(NamedTuple):
    """What a thread wrote within a moment, or a gap."""

    #: Monotonic seconds.
    at: float
    #: ``out``, ``err``, ``log`` or ``gap``.
    stream: str
    #: The thread that wrote it: lines of several threads do not mix.
    source: int
    text: str
    lost_lines: int = 0
    lost_bytes: int = 0


class _Block:
    """A chunk that grows."""

    __slots__ = ("at", "lost_bytes", "lost_lines", "parts", "size", "source", "stream")

    def __init__(self, at: float, stream: str, source: int) -> None:
        self.at, self.stream, self.source = at, stream, source
        self.parts: list[str] = []
        self.size = self.lost_lines = self.lost_bytes = 0

    def chunk(self) -> Chunk:
        return Chunk(self.at, self.stream, self.source, "".join(self.parts), self.lost_lines, self.lost_bytes)


class LogBuffer:
    """What an attempt has written, until it is taken. Safe to use from several threads.

    Args:
        limit_bytes: bound of the attempt's log; the buffer holds three quarters of it at most.
        on_news: called when something is added to an empty buffer; must neither block nor print.
    """

    def __init__(self, limit_bytes: int, on_news: Callable[[], object] = lambda: None) -> None:
        self.limit_bytes = limit_bytes
        self._head_room, self._tail_room = limit_bytes // 2, limit_bytes // 4
        self._block_chars = max(1, min(_BLOCK_CHARS, limit_bytes // 32))
        self._on_news = on_news
        # A thread may come back in the middle of `add`: the garbage collector can call what prints.
        self._lock = threading.RLock()
        self._is_closed = False
        self._clear()
        after_fork(self._renew_in_child)

    def _clear(self) -> None:
        self._head: list[_Block] = []
        self._tail: deque[_Block] = deque()
        self._open: _Block | None = None  # the newest
        self._head_size = self._tail_size = 0
        self._lost_lines = self._lost_bytes = 0

    def _renew_in_child(self) -> None:
        """Take nothing more, in a process that was forked: nobody would take it away."""
        self._lock = threading.RLock()
        self._is_closed = True
        self._clear()

    def add(self, stream: str, text: str) -> None:
        """Take what was written just now, in this thread."""
        at, source, width = time.monotonic(), threading.get_ident(), self._block_chars
        if len(text) <= width:
            self._add(at, stream, source, text)
            return
        for start in range(0, len(text), width):
            self._add(at, stream, source, text[start : start + width])

    def put(self, chunk: Chunk) -> None:
        """Take a chunk of another buffer."""
        with self._lock:
            self._open = None
            self._add(*chunk[:4])
            if self._open is not None and chunk.stream == GAP:
                self._open.lost_lines, self._open.lost_bytes = chunk.lost_lines, chunk.lost_bytes

    def _add(self, at: float, stream: str, source: int, text: str) -> None:
        """Take text; nothing after `close`. Called for everything that is printed."""
        with self._lock:
            if self._is_closed:
                return
            size, block = len(text) + _OVERHEAD, self._open
            is_first = block is None and not self._head and not self._tail
            if block is None or block.stream != stream or block.source != source or self._is_full(block, at):
                block = self._open = _Block(at, stream, source)
                if not self._tail and self._head_size + size <= self._head_room:
                    self._head.append(block)
                else:
                    self._tail.append(block)
            block.parts.append(text)
            block.size += size
            if self._tail:
                self._tail_size += size
                if self._tail_size > self._tail_room:
                    self._drop()
            else:
                self._head_size += size
        if is_first:
            self._on_news()

    def _is_full(self, block: _Block, at: float) -> bool:
        """Return whether a block ends here; not within a line, as long as that is not very long."""
        if block.size < self._block_chars and at - block.at < _BLOCK_SECONDS:
            return False
        return block.size >= 4 * self._block_chars or block.parts[-1][-1:] == "\n" or block.stream == GAP

    def _drop(self) -> None:
        while self._tail_size > self._tail_room and len(self._tail) > 1:
            gone = self._tail.popleft()
            text = "".join(gone.parts)
            self._tail_size -= gone.size
            self._lost_lines += text.count("\n") + gone.lost_lines
            self._lost_bytes += _size(text) + gone.lost_bytes

    def take(self) -> list[Chunk]:
        """Return what is there, oldest first, and forget it; a gap stands where something was dropped."""
        with self._lock:
            head, tail = self._head, self._tail
            lost_lines, lost_bytes = self._lost_lines, self._lost_bytes
            self._clear()
        taken = [block.chunk() for block in head]
        if lost_lines or lost_bytes:
            taken.append(Chunk(tail[0].at if tail else 0.0, GAP, 0, "", lost_lines, lost_bytes))
        taken += [block.chunk() for block in tail]
        return taken

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to take."""
        return not self._head and not self._tail

    def close(self) -> None:
        """Take nothing more; what is there can still be taken."""
        with self._lock:
            self._is_closed = True


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
