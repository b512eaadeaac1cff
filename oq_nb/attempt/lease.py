"""`Lease`: the only writer of a running task, from its claim to its end.

Invariants:

* All writes of one attempt go through one lock; the newest progress wins; nothing is written once the lease is lost.
* Progress and renewals are written by a `Scheduler` thread, never by the handler's own, which waits for an unthrottled
  report at most a few seconds and not at all while the store does not answer.
* A value that was held back is written when its interval ends, or with the next renewal.
* On a conflict the task is read again: with our ``lease_id`` the change is made on the new object, else the lease is
  lost. The attempt's end is tried until it is written, the lease is lost, or the caller gives up, whatever the error.
* A request to stop is seen with the next write; one made through the same `TaskStore` at once (`hear`).
* No lease is written that ends in the past: after a pause of the machine the store is asked for the time first.
* After `close` nothing is written or renewed.

Imports nothing of the package but `errors`, `model`, `transitions`, `store`, `index` and `scheduler`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from oq_nb.attempt.scheduler import Scheduler
from oq_nb.backoff import Backoff
from oq_nb.errors import (
    ConflictError,
    LeaseExpiredError,
    OqError,
    StorageError,
    StorageUnavailableError,
    TransitionError,
)
from oq_nb.forks import after_fork
from oq_nb.model import Progress, TaskRecord, TaskStatus, Timestamp, transitions
from oq_nb.store import TaskStore, Transition, VersionedTask
from oq_nb.store.index import IndexEntry
from oq_nb.store.live_progress import ProgressSource

__all__ = ["Lease"]

logger: logging.Logger = logging.getLogger("oq_nb.lease")

_CONFLICT_TRIES = 12
_REPORT_WAIT_SECONDS = 5.0
_SLEPT_SECONDS = 5.0
_INVALID_TRIES = 5  # to write the end of a task whose object has become invalid
_RETRIES = Backoff(0.5, 5.0)


class Lease:
    """One attempt's lease on its task.

    Args:
        store: the tasks.
        held: the task as claimed.
        scheduler: its threads write progress and renewals.
        lease_seconds: length of the lease from each renewal.
        entries: index entries to remove when the attempt ends.
        renews: renew the lease each third of its length; otherwise the lease limits the run.
        on_lost: called once when the lease is lost, from the thread that noticed.
        on_ended: called with the task as the attempt has left it.
        on_written: called with the task whenever it was written; must neither block nor raise.
    """

    def __init__(
        self,
        store: TaskStore,
        held: VersionedTask,
        scheduler: Scheduler,
        *,
        lease_seconds: float,
        entries: Iterable[IndexEntry] = (),
        renews: bool = True,
        on_lost: Callable[[], None] | None = None,
        on_ended: Callable[[TaskRecord], None] | None = None,
        on_written: Callable[[VersionedTask], None] | None = None,
    ) -> None:
        if held.record.lease_id is None:
            raise ValueError("the task has no lease")
        self.task_id: str = held.record.id
        self.lease_id: str = held.record.lease_id
        self.lease_seconds = lease_seconds
        self._on_lost = on_lost
        self._on_ended = on_ended
        self._on_written = on_written
        self._store = store
        self._scheduler = scheduler
        self._entries = list(entries)
        self._refused: list[IndexEntry] = []  # index entries of states that others' changes kept from being written
        self._renews = renews
        self._monotonic = store.clock.monotonic
        self._io = threading.Lock()  # held while a write is under way
        self._changed = threading.Condition()  # guards what follows
        self._held = held
        self._heard: VersionedTask | None = None  # as this process has written it for somebody else
        self._pending: Progress | None = None
        self._newest: Progress | None = None  # that was reported, written or not
        self._asked = 0  # number of the newest report
        self._written = 0  # number of the newest report that is written
        self._last_write = float("-inf")
        self._write_at = float("inf")
        self._known_apart = self._clocks_apart()
        self._renew_at = self._next_renewal(held.record, self._monotonic())
        self._failures = 0
        self._retry_at = float("-inf")  # while the store does not answer
        self._over: OqError | None = None
        self._is_ending = False  # the end is all that is written from now on
        self._is_inherited = False  # by a process that was forked while the handler ran
        self._has_warned = False
        self._store.live_progress.follow(self.lease_id, self)
        self._store.local_attempts.add(self.lease_id, self)
        after_fork(self._renew_in_child)
        if renews:
            scheduler.call(self, self._renew_at)

    def __repr__(self) -> str:
        return f"<Lease of task {self.task_id}, attempt {self.record.attempt}>"

    def _renew_in_child(self) -> None:
        """Write nothing, in a process that was forked: the lease is the parent's."""
        self._io, self._changed = threading.Lock(), threading.Condition()
        self._is_inherited = True

    # --- what the handler's side asks

    @property
    def record(self) -> TaskRecord:
        """The task as last seen."""
        return self._held.record

    @property
    def held(self) -> VersionedTask:
        """The task as last seen, with its ETag."""
        return self._held

    @property
    def is_lost(self) -> bool:
        """Whether this attempt no longer owns the task, because it lost its lease or has ended."""
        return self._over is not None

    def now(self) -> datetime:
        """Return the store's time."""
        return self._store.clock.now()

    def reached(self, now: datetime) -> Progress | None:
        """Return the newest progress that was reported, written or not; None before the first, and at the end."""
        del now
        return None if self.is_lost else self._newest

    def follow(self, source: ProgressSource) -> None:
        """Have displays of this process ask ``source``, which knows more than what is reported; referred to weakly."""
        self._store.live_progress.follow(self.lease_id, source)

    def hear(self, held: VersionedTask) -> None:
        """Take in a request to stop that the same store has written: the handler need not wait for the next write."""
        if held.record.cancel_requested and not self._is_inherited:
            self._heard = held
            self._scheduler.call(self)

    def check(self) -> None:
        """Raise when the lease is lost.

        Raises:
            LeaseExpiredError: stop, nothing more is written.
        """
        if self._over is not None:
            raise type(self._over)(str(self._over), task_id=self.task_id)

    def report(self, progress: Progress, *, throttle_seconds: float = 0.0, wait: bool = True) -> None:
        """Take the newest progress for writing.

        Args:
            progress: what to write.
            throttle_seconds: at most one write per this many seconds; in between the newest value is held back.
            wait: for an unthrottled value, return when it is written or the store has not answered for 5 s.

        Raises:
            LeaseExpiredError: the lease is lost.

        Requests: 1 PUT, If-Match, by a background thread.
        """
        self.check()
        if self._is_inherited:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(
                    "task %s: progress that a forked process reports is not written: report it from the process that "
                    "runs the handler",
                    self.task_id,
                )
            return
        now = self._monotonic()
        with self._changed:
            self._pending = self._newest = progress
            self._asked += 1
            number = self._asked
            due = max(now, self._last_write + throttle_seconds, self._retry_at)
            self._write_at = min(self._write_at, due) if throttle_seconds else due
            waits = wait and self._write_at <= now and self._failures == 0
        self._scheduler.call(self, self._write_at)
        if waits:
            self._wait_for(number, _REPORT_WAIT_SECONDS)
        self.check()

    def flush(self, timeout_seconds: float, *, held_back: bool = True) -> bool:
        """Write the newest value now; return whether it is written.

        Args:
            timeout_seconds: how long to wait for it.
            held_back: also when it is not due yet.
        """
        with self._changed:
            if self._pending is None or self._over is not None:
                return self._pending is None
            if not held_back and self._write_at > self._monotonic():
                return False
            self._write_at = self._monotonic()
            number = self._asked
        self._scheduler.call(self)
        return self._wait_for(number, timeout_seconds)

    def _wait_for(self, number: int, timeout_seconds: float) -> bool:
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._written >= number or self._over is not None or self._failures > 0, timeout_seconds
            )
            if not done:
                self._note_failure("the store has not answered for a while")
            return self._written >= number

    def extend(self, seconds: float) -> None:
        """Add ``seconds`` to the lease's end. Requests: 1 PUT, If-Match.

        Raises:
            LeaseExpiredError: the lease is lost, or the attempt has ended.
            StorageError: it could not be written.
        """
        self.check()
        if self._is_inherited:
            raise StorageError(
                f"task {self.task_id}: a forked process cannot extend the lease of its parent", task_id=self.task_id
            )
        with self._io:
            self.check()
            if self._is_ending:
                raise LeaseExpiredError(f"task {self.task_id}: this attempt is ending", task_id=self.task_id)
            self._read_again_after_pause()
            self._write(lambda record, now: transitions.extend(record, now, lease_id=self.lease_id, seconds=seconds))

    # --- what the scheduler does

    def run_due(self) -> float | None:
        """Write what is due: progress, a renewal, or both in one PUT."""
        with self._io:
            now = self._monotonic()
            self._take_in_what_was_heard()
            with self._changed:
                if self._over is not None or self._is_ending:
                    return None
                if now < self._write_at and now < self._renew_at:
                    return self._next_at()
                progress, number = self._pending, self._asked
            try:
                self._read_again_after_pause()
                made = self._write(lambda record, at: self._report_and_renew(record, at, progress))
            except OqError as exc:
                with self._changed:
                    if self._over is not None:
                        return None
                    self._note_failure(str(exc))
                    return self._next_at()
            if progress is not None:
                self._store.emit("progress", self.record.task_type, self._monotonic() - now)
            with self._changed:
                self._written = max(self._written, number)
                self._last_write = now
                if self._asked == number:
                    self._pending = None
                    self._write_at = float("inf")
                self._renew_at = self._next_renewal(made.record, now)
                self._note_success()
                return self._next_at()

    def _take_in_what_was_heard(self) -> None:
        """Go on from what this process has written for somebody else. The caller holds `_io`."""
        heard, self._heard = self._heard, None
        if heard is not None and heard.record.lease_id == self.lease_id and not self.record.cancel_requested:
            self._held = heard  # what was seen before it has no such request, so it is older

    def _report_and_renew(self, record: TaskRecord, now: Timestamp, progress: Progress | None) -> TaskRecord:
        if progress is not None:
            record = transitions.report(record, now, lease_id=self.lease_id, progress=progress)
        if self._renews:
            record = transitions.renew(record, now, lease_id=self.lease_id, lease_seconds=self.lease_seconds)
        return record

    def _next_renewal(self, record: TaskRecord, written_at: float) -> float:
        """Return the monotonic time of the next renewal: a third of the lease from now, at once when most is over."""
        if not self._renews:
            return float("inf")
        ends = record.lease_expires_at
        if ends is not None and ends - timedelta(seconds=self.lease_seconds / 3) < self._store.clock.now():
            return self._monotonic()  # the answer to the write says that it is later than was thought
        return written_at + self.lease_seconds / 3

    def _read_again_after_pause(self) -> None:
        """After a sleep of the machine, have the store tell the time. The caller holds `_io`.

        Most monotonic clocks stand still meanwhile, and a lease counted from them would end in the past.

        Requests: 1 GET, If-None-Match, when the machine's two clocks have moved apart.
        """
        apart = self._clocks_apart()
        if abs(apart - self._known_apart) > _SLEPT_SECONDS:
            found = self._store.read_again(self._held)
            self._known_apart = apart
            if found is not None and found.record.lease_id == self.lease_id:
                self._held = found

    def _clocks_apart(self) -> float:
        return self._store.clock.wall() - self._monotonic()

    def _next_at(self) -> float | None:
        at = min(self._write_at, self._renew_at)
        return None if at == float("inf") else at

    def _note_failure(self, reason: str) -> None:
        """Try again later; say it once."""
        self._retry_at = self._monotonic() + _RETRIES.pause_after(self._failures + 1)
        if self._failures == 0:
            logger.warning(
                "task %s: progress cannot be written now; the handler goes on, and it is tried again: %s",
                self.task_id,
                reason,
            )
        self._failures += 1
        if self._write_at != float("inf"):
            self._write_at = max(self._write_at, self._retry_at)
        if self._renew_at != float("inf"):
            self._renew_at = max(self._renew_at, self._retry_at)
        self._changed.notify_all()

    def _note_success(self) -> None:
        if self._failures:
            logger.warning("task %s: progress is written again", self.task_id)
        self._failures = 0
        self._retry_at = float("-inf")
        self._changed.notify_all()

    # --- the end

    def finish(self, transition: Transition, *, give_up: Callable[[], bool] = lambda: False) -> VersionedTask:
        """Write the attempt's end, retrying until the store takes it; then remove its index entries.

        Args:
            transition: the change of the task; it refuses when the lease is not ours.
            give_up: asked between tries.

        Raises:
            LeaseExpiredError: the lease is lost; nothing was written.
            StorageError: the caller gave up.
            RecordError: somebody has overwritten the task with something invalid.

        Requests: 1 PUT, If-Match, and 1 DELETE; 1 PUT more when the task becomes pending.
        """
        # A renewal between two tries would meet a first one that was applied, and take its own end for a lost lease.
        self._is_ending = True
        bodies: list[bytes] = []
        ended = ""

        def noted(record: TaskRecord, now: Timestamp) -> TaskRecord:
            nonlocal ended
            # Kept with the end as what was reached: it may have been held back, or dropped by another program.
            if (newest := self._newest) is not None:
                then = max(record.updated_at, newest.updated_at)
                record = transitions.report(record, then, lease_id=self.lease_id, progress=newest)
            changed = transition(record, now)
            ended = _how_it_ended(record, changed)
            return changed

        for tries in _RETRIES.tries(time.sleep):
            self.check()
            try:
                with self._io:
                    self.check()
                    made = self._write(noted, bodies)
                    self._close(LeaseExpiredError(f"task {self.task_id}: this attempt has ended", task_id=self.task_id))
                break
            except (LeaseExpiredError, TransitionError):
                raise
            except OqError as exc:
                if give_up() or (tries >= _INVALID_TRIES and not isinstance(exc, StorageError)):
                    raise
                if tries == 1:
                    logger.warning("task %s: its result cannot be written now, trying again: %s", self.task_id, exc)
        self._store.emit(ended, made.record.task_type)
        # A task that this attempt has ended for good never became pending by what it wrote before.
        refused = [e for e in self._refused if not e.by_key] if made.record.status.is_terminal else []
        for entry in (*self._entries, *refused):
            self._store.index.remove(entry)
        if self._on_ended is not None:
            self._on_ended(made.record)
        return made

    def close(self) -> None:
        """Write nothing more: the run is over. Unless its end was written, the lease runs out."""
        self._close(LeaseExpiredError(f"task {self.task_id}: this attempt has ended", task_id=self.task_id))
        self._scheduler.forget(self)

    def _close(self, reason: OqError) -> None:
        with self._changed:
            if self._over is None:
                self._over = reason
            self._changed.notify_all()

    def _write(self, transition: Transition, bodies: list[bytes] | None = None) -> VersionedTask:
        """Make one change, on the newest state of the task; the caller holds `_io`."""
        held = self._held
        for _ in range(_CONFLICT_TRIES):
            try:
                changed = transition(held.record, self._store.clock.stamp())
            except (LeaseExpiredError, TransitionError) as exc:
                self._lose(exc)
                raise
            self._held = held  # ours: what another attempt wrote is never shown to this one's handler
            try:
                made = self._store.move(held, changed, doubted=bodies or ())
            except ConflictError as exc:
                self._refused += exc.entries
                found = exc.current or self._store.read(self.task_id)
                if found is None and self._store.is_listed(self.task_id):
                    message = f"task {self.task_id} is listed, but reading it finds nothing: try later"
                    raise StorageUnavailableError(message, key=self._held.record.key) from exc
                if found is None:
                    gone = LeaseExpiredError(f"task {self.task_id} is gone from the bucket", task_id=self.task_id)
                    self._lose(gone)
                    raise gone from None
                held = found
                continue
            except StorageError:
                if bodies is not None:
                    bodies.append(changed.to_bytes())
                raise
            self._held = made
            if self._on_written is not None:
                self._on_written(made)
            return made
        raise ConflictError(
            f"task {self.task_id} was changed by others twelve times in a row: try again", key=self._held.record.key
        )

    def _lose(self, reason: OqError) -> None:
        logger.warning("%s", reason)
        self._store.emit("lease_lost", self.record.task_type)
        self._close(reason if isinstance(reason, LeaseExpiredError) else LeaseExpiredError(str(reason)))
        if self._on_lost is not None:
            self._on_lost()


def _how_it_ended(before: TaskRecord, after: TaskRecord) -> str:
    """Return the event that an attempt's end is."""
    if after.status is not TaskStatus.PENDING:
        return str(after.status)
    if after.retry_count > before.retry_count:
        return "retried"
    return "rescheduled" if after.reschedule_count > before.reschedule_count else "released"
