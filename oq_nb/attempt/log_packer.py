"""`LogPacker`: makes pieces of an attempt's lines, within the bound of its log. Pure.

The first half of the bound is for the beginning. What comes after it waits in a ring of a quarter of the bound, until
it becomes a piece, too; the old ones of those are removed as new ones come (`LogPacker.to_remove`). So all pieces
together never exceed the bound, and at least a quarter of it is the end.

Imports of the package: `model`, and of this room `log_buffer`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from oq_nb.attempt.log_buffer import Lines
from oq_nb.model.logs import GAP, encode_line, encode_position, log_instant

__all__ = ["LogPacker", "Piece", "WrittenPiece"]


class _Line(NamedTuple):
    number: int
    offset: int
    size: int  # of its text, with its end
    encoded: bytes


@dataclass(frozen=True)
class Piece:
    """A piece that is to be written."""

    number: int
    body: bytes
    #: It belongs to the beginning, and stays.
    is_head: bool


@dataclass(frozen=True)
class WrittenPiece:
    """A piece of the end, in the bucket."""

    number: int
    size: int
    version_id: str | None


class LogPacker:
    """The lines of an attempt on their way to the bucket. For one thread.

    Args:
        limit_bytes: bound of all pieces together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._head_room, self._ring_room = limit_bytes // 2, limit_bytes // 4
        self._head: list[_Line] = []
        self._ring: deque[_Line] = deque()
        self._ring_size = 0
        self._is_head_full = False
        self._line = self._offset = 0  # of the next line
        self._number = 0  # of the next piece
        self._written: deque[WrittenPiece] = deque()  # of the end, oldest first
        self._written_size = 0

    @property
    def is_empty(self) -> bool:
        """Whether no line waits."""
        return not self._head and not self._ring

    def add(self, lines: Iterable[Lines], wall: Callable[[float], float]) -> None:
        """Take lines.

        Args:
            lines: the next ones.
            wall: returns seconds since 1970 by the store's clock for monotonic seconds.
        """
        at, instant = -1.0, ""
        for line in lines:
            if line.stream == GAP:
                self._line += line.lost_lines
                self._offset += line.lost_bytes
                # More comes than is kept: what follows is the end, and one gap is easier to read than several.
                self._is_head_full = True
                self._ring.clear()
                self._ring_size = 0
                continue
            if line.at != at:
                at, instant = line.at, log_instant(wall(line.at))
            encoded = encode_line(instant, line.stream, line.text).encode("utf-8", "replace")
            size = len(line.text if line.text.isascii() else line.text.encode("utf-8", "replace")) + 1
            self._put(_Line(self._line, self._offset, size, encoded))
            self._line += 1
            self._offset += size

    def _put(self, line: _Line) -> None:
        length = len(line.encoded) + 1
        if not self._is_head_full:
            if length <= self._head_room:
                self._head_room -= length
                self._head.append(line)
                return
            self._is_head_full = True
        self._ring.append(line)
        self._ring_size += length
        while self._ring_size > self._ring_room and len(self._ring) > 1:
            self._ring_size -= len(self._ring.popleft().encoded) + 1

    def next_piece(self, *, holds_end: bool = False) -> Piece | None:
        """Return the next piece that is to be written, or None; its lines wait no more.

        Args:
            holds_end: no old pieces can be removed: once there are enough of them, what follows waits for the end.
        """
        is_head = bool(self._head)
        if not is_head and (not self._ring or (holds_end and self._written_size >= self._ring_room)):
            return None
        lines: Iterable[_Line] = self._head if is_head else self._ring
        made: list[bytes] = []
        expected = (-1, -1)
        for line in lines:
            if (line.number, line.offset) != expected:
                made.append(encode_position(line.number, line.offset).encode())
            made.append(line.encoded)
            expected = (line.number + 1, line.offset + line.size)
        made.append(b"")
        piece = Piece(self._number, b"\n".join(made), is_head)
        self._number += 1
        if is_head:
            self._head = []
        else:
            self._ring.clear()
            self._ring_size = 0
        return piece

    def note_written(self, piece: Piece, version_id: str | None) -> None:
        """Note that a piece is in the bucket."""
        if not piece.is_head:
            self._written.append(WrittenPiece(piece.number, len(piece.body), version_id))
            self._written_size += len(piece.body)

    @property
    def to_remove(self) -> WrittenPiece | None:
        """The piece that is to be removed next, when the newer ones are enough of the end."""
        if len(self._written) > 1 and self._written_size - self._written[0].size >= self._ring_room:
            return self._written[0]
        return None

    def note_removed(self) -> None:
        """Note that `to_remove` is removed."""
        self._written_size -= self._written.popleft().size

    def drop(self) -> None:
        """Forget the lines that wait."""
        self._head = []
        self._ring.clear()
        self._ring_size = 0
