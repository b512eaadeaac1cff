"""What a handler prints where it runs elsewhere: `RemoteLog` sends it to the worker, `take_over` takes it there.

It travels between the reports, in messages of a bounded size. Where messages go by way of a Dask scheduler only so much
is sent at a time; the beginning and the end of what is printed between two times are kept, and the gap is said.

Imports of the package: `attempt`, and of this room `channels`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from oq_nb.attempt.log_buffer import Chunk, LogBuffer
from oq_nb.model.logs import GAP, STREAMS
from oq_nb.worker.executors.channels import Connection, Message

__all__ = ["RemoteLog", "take_over"]

_PACE_SECONDS = 1.0
_PIECES = (*STREAMS, GAP)


class RemoteLog:
    """What a handler prints here, until it is sent. All but its buffer is for one thread at a time.

    Args:
        limit_bytes: bound of the attempt's log.
        connection: to the worker.
        wake: has `send_due` called soon.
    """

    def __init__(self, limit_bytes: int, connection: Connection, wake: Callable[[], object]) -> None:
        self._wake = wake
        self._message_chars = connection.log_chars
        #: Takes what is printed.
        self.buffer: LogBuffer = LogBuffer(min(limit_bytes, connection.log_burst_bytes), self._note_news)
        self._out: deque[list[Any]] = deque()
        self._send_at = float("inf")
        self._sent_at = float("-inf")
        self._is_closing = False
        #: Whether the worker has said that it has everything.
        self.is_done = False

    def _note_news(self) -> None:
        self._send_at = max(time.monotonic(), self._sent_at + _PACE_SECONDS)
        self._wake()

    def close(self) -> bool:
        """Take nothing more; return whether something is still to be sent, which `send_due` does at once."""
        self.buffer.close()
        if self.buffer.is_empty and not self._out:
            return False
        self._is_closing, self._send_at = True, 0.0
        return True

    def send_due(self, connection: Connection, now: datetime) -> float:
        """Send a message when it is time; return the seconds until the next.

        Args:
            connection: to the worker.
            now: the store's time.
        """
        at = time.monotonic()
        if not self._out:
            if at < self._send_at:
                return self._send_at - at
            self._send_at, self._sent_at = float("inf"), at
            apart = now.timestamp() - at
            self._out.extend([chunk.at + apart, *chunk[1:]] for chunk in self.buffer.take())
        sent: list[list[Any]] = []
        room = self._message_chars
        while self._out and (not sent or room >= len(self._out[0][3]) + 100):
            chunk = self._out.popleft()
            if len(chunk[3]) > self._message_chars:
                self._out.appendleft([*chunk[:3], chunk[3][self._message_chars :], 0, 0])
                chunk = [*chunk[:3], chunk[3][: self._message_chars], 0, 0]
            sent.append(chunk)
            room -= len(chunk[3]) + 100
        if sent:
            is_last = self._is_closing and not self._out and self.buffer.is_empty
            connection.send({"kind": "log", "chunks": sent, "is_last": is_last})
        return 0.0 if self._out else max(0.0, self._send_at - time.monotonic())


def take_over(buffer: LogBuffer, message: Message, now: datetime) -> None:
    """Put what was printed elsewhere into a buffer here.

    Args:
        buffer: of the attempt.
        message: from a `RemoteLog`.
        now: the store's time.
    """
    apart = now.timestamp() - time.monotonic()
    for at, stream, source, text, lost_lines, lost_bytes in message["chunks"]:
        if stream in _PIECES:
            buffer.put(Chunk(float(at) - apart, str(stream), int(source), str(text), int(lost_lines), int(lost_bytes)))
