"""`AttemptLog`: writes what an attempt prints to the bucket, piece by piece, from a background thread.

Invariants:

* One piece at most per five seconds while something is printed, and two at most at the end; none where nothing is.
* The handler never waits for it. At the attempt's end it is waited for, two seconds at most and not at all while the
  store does not answer, so that whoever sees the task's end can read all of its log.
* A piece that could not be written is written again, the same under the same name, until it is; what is printed
  meanwhile is kept within the bound.

Imports of the package: `backoff`, `errors`, `store`, and of this room `log_buffer`, `log_packer`, `scheduler`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime

from oq_nb.attempt.log_buffer import LineAssembler, LogBuffer
from oq_nb.attempt.log_packer import LogPacker, Piece
from oq_nb.attempt.scheduler import Scheduler
from oq_nb.backoff import Backoff
from oq_nb.errors import OqError, StorageDeniedError
from oq_nb.store import LogPieces
from oq_nb.store.permission import Permission

__all__ = ["AttemptLog", "LogPermissions"]

logger: logging.Logger = logging.getLogger("oq_nb.logs")

_FIRST_SECONDS = 2.0  # after the first line
_PIECE_SECONDS = 5.0
_END_SECONDS = 2.0  # that the attempt's end waits for its log
_RETRIES = Backoff(5.0, 15.0)
_GIVE_UP_SECONDS = 600.0  # after the attempt's end
_WRITE = (
    "the credentials may not write logs/: what handlers print is not kept; add this statement to their policy: "
    '{"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::BUCKET/logs/*"}; the refusal'
)
_REMOVE = (
    "the credentials may not remove pieces of logs: the end of a long log is written only when its attempt ends; add "
    'this statement to their policy: {"Effect": "Allow", "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"], '
    '"Resource": "arn:aws:s3:::BUCKET/logs/*"}; the refusal'
)


class LogPermissions:
    """What the credentials allow; shared by the logs of a worker.

    Args:
        monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.write: Permission = Permission(monotonic, _WRITE, lasting_seconds=0.0)
        self.remove: Permission = Permission(monotonic, _REMOVE, lasting_seconds=0.0)


class AttemptLog:
    """The log of one attempt.

    Args:
        pieces: where it is written.
        task_id: the task.
        attempt: its number.
        now: returns the store's time.
        scheduler: its threads write.
        limit_bytes: bound of what is kept.
        permissions: what the credentials allow.
        on_over: called when nothing more is to be written.
    """

    def __init__(
        self,
        pieces: LogPieces,
        task_id: str,
        attempt: int,
        *,
        now: Callable[[], datetime],
        scheduler: Scheduler,
        limit_bytes: int,
        permissions: LogPermissions,
        on_over: Callable[[AttemptLog], object] = lambda _: None,
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        self._pieces, self._now, self._scheduler = pieces, now, scheduler
        self._permissions, self._on_over = permissions, on_over
        #: Takes what is printed.
        self.buffer: LogBuffer = LogBuffer(limit_bytes, self._plan)
        self._assembler = LineAssembler()
        self._packer = LogPacker(limit_bytes)
        self._unwritten: Piece | None = None
        self._has_news = False
        self._last_try_at = float("-inf")
        self._failures = 0
        self._ended_at: float | None = None
        self._is_last_try = False
        self._is_over = threading.Event()
        self._is_settled = threading.Event()  # everything is written, or the store does not take it now

    def __repr__(self) -> str:
        return f"<AttemptLog of task {self.task_id}, attempt {self.attempt}>"

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be written."""
        return self._is_over.is_set()

    def _plan(self) -> None:
        """Have what was printed written, in a while."""
        self._has_news = True
        self._scheduler.call(self, max(time.monotonic() + _FIRST_SECONDS, self._last_try_at + _PIECE_SECONDS))

    def finish(self) -> None:
        """Take nothing more, and have the rest written; return when it is, or after two seconds.

        Requests: 2 PUT at most, by a background thread; none when nothing was printed since the last piece.
        """
        self._is_settled.clear()
        self._end()
        if self._failures == 0 and not self._is_last_try:
            self._is_settled.wait(_END_SECONDS)

    def stop(self) -> None:
        """Take nothing more, and have the rest written with one try; returns at once."""
        self._is_last_try = True
        self._end()

    def _end(self) -> None:
        self.buffer.close()
        if self._ended_at is None:
            self._ended_at = time.monotonic()
        if not self._has_news:
            self._note_over()
        elif not self.is_over:
            self._scheduler.call(self)

    def _note_over(self) -> None:
        self._is_over.set()
        self._is_settled.set()
        self._on_over(self)

    # --- what the scheduler does

    def run_due(self) -> float | None:
        """Write a piece; at the attempt's end, all that is left."""
        is_end = self._ended_at is not None
        lines = self._assembler.feed(self.buffer.take())
        self._packer.add(lines, self._wall())
        if is_end:
            self._packer.add(self._assembler.finish(), self._wall())
        if self._permissions.write.is_denied:
            self._unwritten = None
            self._packer.drop()
        try:
            while self._write_next(is_end=is_end) and is_end:
                pass
        except OqError as exc:
            return self._note_failure(exc)
        if not is_end:
            self._remove_old()
            return None if self._packer.is_empty else self._last_try_at + _PIECE_SECONDS
        self._is_settled.set()
        if self._remove_old() or self._gives_up:
            self._note_over()
            return None
        return time.monotonic() + _RETRIES.first_seconds

    @property
    def _gives_up(self) -> bool:
        """Whether what fails now, after the attempt's end, is not tried again."""
        is_late = self._ended_at is not None and time.monotonic() - self._ended_at > _GIVE_UP_SECONDS
        return self._is_last_try or is_late

    def _wall(self) -> Callable[[float], float]:
        apart = self._now().timestamp() - time.monotonic()
        return lambda at: at + apart

    def _write_next(self, *, is_end: bool) -> bool:
        """Write a piece; return whether there was one. Requests: 1 PUT."""
        holds_end = self._permissions.remove.is_denied and not is_end
        piece = self._unwritten or self._packer.next_piece(holds_end=holds_end)
        if piece is None:
            return False
        self._unwritten, self._last_try_at = piece, time.monotonic()
        version_id = self._pieces.write(self.task_id, self.attempt, piece.number, piece.body)
        self._unwritten = None
        self._packer.note_written(piece, version_id)
        self._permissions.write.granted()
        if self._failures:
            self._failures = 0
            logger.warning("task %s: its log is written again", self.task_id)
        return True

    def _remove_old(self) -> bool:
        """Remove what the newest pieces have made too old; return whether that is done. Requests: 1 DELETE each."""
        while (old := self._packer.to_remove) is not None and not self._permissions.remove.is_denied:
            try:
                self._pieces.remove(self.task_id, self.attempt, old.number, old.version_id)
            except OqError as exc:
                if isinstance(exc, StorageDeniedError):
                    self._permissions.remove.refused(exc)
                return self._permissions.remove.is_denied
            self._permissions.remove.granted()
            self._packer.note_removed()
        return True

    def _note_failure(self, error: OqError) -> float | None:
        """Try again later; say it once."""
        if isinstance(error, StorageDeniedError):
            self._permissions.write.refused(error)
        elif self._failures == 0:
            logger.warning(
                "task %s: its log cannot be written now; the handler goes on, and it is tried again: %s",
                self.task_id,
                error,
            )
        self._failures += 1
        self._is_settled.set()
        if self._ended_at is not None and self._gives_up:
            logger.warning("task %s: the end of its log is not written: %s", self.task_id, error)
            self._note_over()
            return None
        return time.monotonic() + _RETRIES.pause_after(self._failures)
