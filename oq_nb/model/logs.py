"""The log of an attempt as it is stored: pieces of JSON lines. Pure; imports of the package: `ansi`, `model`.

A piece begins with a position, ``{"line": 120, "bytes": 5310}``: so many lines and bytes came before what follows.
Lines are ``{"t": "2026-11-26T07:00:00.123Z", "s": "out", "m": "epoch 3"}``. A further position in a piece, or one at
the beginning of a piece that is ahead of where the piece before it ended, says that something was left out.

Text in a piece is untrusted: whoever can write to the bucket can have written it. `LogParser` cleans it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from oq_nb import ansi
from oq_nb.model.timestamps import Timestamp
from oq_nb.text import counted, size

__all__ = ["GAP", "MAX_LINE_CHARS", "STREAMS", "LogLine", "LogParser", "encode_line", "encode_position", "log_instant"]

#: Where a line came from: standard output, standard error, `logging`.
STREAMS = ("out", "err", "log")
#: The stream of a line that stands for lines that were left out.
GAP = "gap"
#: A longer line is kept as several.
MAX_LINE_CHARS = 16_384

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_COUNT = 2**53


@dataclass(frozen=True)
class LogLine:
    """A line of a task's log."""

    #: When it was written, by the store's clock.
    time: datetime
    #: ``out``, ``err``, ``log``; ``gap`` for a line that says how much was left out.
    stream: str
    #: Without its end; its control characters are made visible, terminal colours (SGR) are kept.
    text: str

    def to_dict(self) -> dict[str, str]:
        """Return it as JSON has it."""
        return {"time": str(Timestamp.parse(self.time)), "stream": self.stream, "text": self.text}

    def __str__(self) -> str:
        """Return the text; no colour is left behind."""
        return ansi.reset_at_end(self.text)


def log_instant(seconds: float) -> str:
    """Return seconds since 1970 as an RFC 3339 text with milliseconds."""
    made = _EPOCH + timedelta(seconds=seconds)
    return f"{made:%Y-%m-%dT%H:%M:%S}.{made.microsecond // 1000:03d}Z"


def encode_line(instant: str, stream: str, text: str) -> str:
    """Return a line as JSON, without a line feed."""
    return f'{{"t":"{instant}","s":"{stream}","m":{json.dumps(text, ensure_ascii=False)}}}'


def encode_position(line: int, size_bytes: int) -> str:
    """Return a position as JSON."""
    return f'{{"line":{line},"bytes":{size_bytes}}}'


class LogParser:
    """Reads the pieces of one attempt, in their order; says where something was left out."""

    def __init__(self) -> None:
        self._line = self._bytes = 0
        self._time: datetime | None = None

    def skip_to_next(self) -> None:
        """Do not say that lines before the next position are left out: they were not asked for."""
        self._time = None
        self._line = -1

    def lines(self, body: bytes) -> Iterator[LogLine]:
        """Yield the lines of a piece; what cannot be read is passed over."""
        for raw in body.split(b"\n"):
            if not raw:
                continue
            try:
                found = json.loads(raw)
            except (ValueError, RecursionError):
                continue
            if not isinstance(found, dict):
                continue
            if "line" in found:
                yield from self._at(found)
            elif (line := _line_of(found)) is not None:
                self._line += 1
                self._bytes += len(line.text.encode("utf-8", "replace")) + 1
                self._time = line.time
                yield line

    def _at(self, found: dict[str, object]) -> Iterator[LogLine]:
        line, size_bytes = _count(found.get("line")), _count(found.get("bytes"))
        lost_lines, lost_bytes = line - self._line, size_bytes - self._bytes
        is_known = self._line >= 0
        self._line, self._bytes = line, size_bytes
        if is_known and (lost_lines > 0 or lost_bytes > 0):
            text = f"… {counted(max(0, lost_lines), 'line')}, {size(max(0, lost_bytes))}, left out here …"
            yield LogLine(self._time or _EPOCH, GAP, text)


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value <= _MAX_COUNT else 0


def _line_of(found: dict[str, object]) -> LogLine | None:
    stream, text = found.get("s"), found.get("m")
    if stream not in STREAMS or not isinstance(text, str):
        return None
    try:
        instant = Timestamp.parse(found.get("t"))
    except ValueError:
        return None
    return LogLine(instant, str(stream), ansi.clean(text[:MAX_LINE_CHARS].encode("utf-8", "replace").decode()))
