"""One vocabulary of states: what a task's state is called, in which colour and with which sign, in every place. Pure.

`status_view` is asked by the widget, the dashboard, the page, the shell, ``repr`` and the bar of ``wait``; nothing else
decides what a task's state is called. A state is found from the task's status, its lease, the age of its last report,
what is asked of it, and whether a worker has a handler for it; the table `STATES` says the rest.

Nothing is said that the record does not bear out: a task is ``stalled`` only when its reports came faster before.

Imports of the package: `model`, `text`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.text import ago, duration, first_line, local_time, printable, shorten

__all__ = [
    "STATES",
    "TONES",
    "StatusView",
    "Tone",
    "has_run_out",
    "state_of",
    "status_view",
    "tone_of_count",
    "view_of_watched",
]


@dataclass(frozen=True)
class Tone:
    """How good a state is, as colours and a sign."""

    #: Readable behind white text, visible on white and on black.
    colour: str
    #: Of a bar where the page says that it is dark: with `colour` browsers draw a white track there.
    dark: str
    #: Said beside the word, so that the colour is not needed.
    sign: str
    #: Its name in a terminal, as `rich` has it.
    terminal: str


TONES = {
    "waiting": Tone("#6a6f78", "#9a95a0", "○", "default"),
    "running": Tone("#1a6fc4", "#4a9be8", "▶", "cyan"),
    "good": Tone("#20803c", "#3fb950", "✓", "green"),
    "bad": Tone("#c62f2b", "#f0625f", "✗", "red"),
    "warning": Tone("#a35a00", "#d98a20", "⚠", "yellow"),
    "off": Tone("#75707a", "#9a95a0", "–", "dim"),
}

#: Every state by its word: how good it is.
STATES = {
    "not seen yet": "waiting",
    "cannot be read": "warning",
    "deleted": "off",
    "pending": "waiting",
    "scheduled": "waiting",
    "rescheduled": "waiting",
    "retrying": "warning",
    "overdue": "warning",
    "running": "running",
    "stalled": "warning",
    "asked to stop": "running",
    "lease ran out": "warning",
    "completed": "good",
    "failed": "bad",
    "cancelled": "off",
    "expired": "bad",
    "archived": "off",
}

_STALLED_SECONDS = 30.0  # without a report, at the least
_STALLED_TIMES = 5.0  # or so many times as long as an item takes, and as the longest pause between two reports so far


@dataclass(frozen=True)
class StatusView:
    """Where a task stands, in words. Its text is printable, but not escaped for HTML."""

    #: One of `STATES`; or of another thing that is drawn as a task is, such as a worker.
    word: str
    #: One of `TONES`.
    tone: str
    #: What there is to say about it, a sentence each.
    notes: tuple[str, ...] = ()
    #: The stored status, where there is one.
    status: str = ""

    @property
    def sign(self) -> str:
        """Of its tone."""
        return TONES[self.tone].sign

    @property
    def text(self) -> str:
        """For a line of text: the stored status, and the word where that is another one: ``running (stalled)``."""
        return self.word if self.status in ("", self.word) else f"{self.status} ({self.word})"


def tone_of_count(status: str) -> str:
    """Return the tone of a number of tasks with a status."""
    return STATES.get(status, "off")


def has_run_out(record: TaskRecord, now: datetime) -> bool:
    """Return whether a task counts as running, and its lease has run out: its worker has died, or cannot be reached."""
    ends_at = record.lease_expires_at
    return record.status is TaskStatus.RUNNING and ends_at is not None and ends_at <= now


def state_of(record: TaskRecord, now: datetime) -> str:
    """Return which of `STATES` a task is in.

    Args:
        record: the task.
        now: the store's time.
    """
    if record.status is TaskStatus.PENDING:
        if record.expires_at is not None and record.expires_at <= now:
            return "overdue"
        if record.retry_count:
            return "retrying"
        if record.available_at > now:
            return "rescheduled" if record.reschedule_count else "scheduled"
        return "pending"
    if record.status is TaskStatus.RUNNING:
        if has_run_out(record, now):
            return "lease ran out"
        if record.cancel_requested:
            return "asked to stop"
        return "stalled" if _is_stalled(record, now) else "running"
    return str(record.status.value)


def _is_stalled(record: TaskRecord, now: datetime) -> bool:
    """Return whether a running task is silent for longer than its reports so far let one expect.

    With neither a rate nor two reports there is nothing to expect: then it is not called so, however long it takes.
    """
    progress = record.progress
    if progress is None:
        return False
    usual = [pause for pause in (progress.longest_pause, _seconds_per_item(record)) if pause is not None]
    silent = (now - progress.updated_at).total_seconds()
    return bool(usual) and silent > max(_STALLED_SECONDS, _STALLED_TIMES * max(usual))


def _seconds_per_item(record: TaskRecord) -> float | None:
    rate = record.progress.rate if record.progress is not None else None
    return 1 / rate if rate is not None and 1e-9 < rate < 1e15 else None


def status_view(
    record: TaskRecord | None,
    now: datetime,
    *,
    has_worker: bool | None = None,
    is_gone: bool = False,
    trouble: str | None = None,
    is_lasting: bool = False,
    seen_at: datetime | None = None,
) -> StatusView:
    """Return where a task stands.

    Args:
        record: the task as last seen; None when it was not seen yet.
        now: the store's time.
        has_worker: whether a live worker has a handler for it; None when that is not known.
        is_gone: it is no longer in the bucket.
        trouble: why it cannot be looked at.
        is_lasting: it is not the store that is away: access is denied, or the object is not a task.
        seen_at: when it was last looked at.
    """
    if is_gone:
        return _made("deleted", ["It is no longer in the bucket."])
    if record is None:
        word = "not seen yet" if trouble is None else "cannot be read"
        return _made(word, _trouble_notes(trouble, is_lasting, seen_at, now))
    word = state_of(record, now)
    notes = [*_trouble_notes(trouble, is_lasting, seen_at, now), *_notes(record, now, word, has_worker)]
    return _made(word, notes, record.status.value)


class Watched(Protocol):
    """What is known of a task that is watched, as `TaskState` has it."""

    @property
    def record(self) -> TaskRecord | None: ...

    @property
    def has_worker(self) -> bool | None: ...

    @property
    def is_gone(self) -> bool: ...

    @property
    def trouble(self) -> str | None: ...

    @property
    def is_lasting(self) -> bool: ...

    @property
    def seen_at(self) -> datetime | None: ...


def view_of_watched(state: Watched, now: datetime) -> StatusView:
    """Return where a task stands that is watched: `status_view` of all that is known of it."""
    return status_view(
        state.record,
        now,
        has_worker=state.has_worker,
        is_gone=state.is_gone,
        trouble=state.trouble,
        is_lasting=state.is_lasting,
        seen_at=state.seen_at,
    )


def _made(word: str, notes: list[str], status: str = "") -> StatusView:
    return StatusView(word, STATES[word], tuple(notes), status)


def _trouble_notes(trouble: str | None, is_lasting: bool, seen_at: datetime | None, now: datetime) -> list[str]:
    if trouble is None:
        return []
    since = f" This is its last known state, from {ago(seen_at, now)}." if seen_at is not None else ""
    what = "It cannot be read." if is_lasting else "The store cannot be reached and is tried again."
    return [f"{what}{since} ({printable(shorten(trouble, 500))})"]


def _notes(record: TaskRecord, now: datetime, word: str, has_worker: bool | None) -> list[str]:
    """Return the sentences that belong to a state."""
    if record.status is TaskStatus.PENDING:
        return _pending_notes(record, now, word, has_worker)
    if record.status is TaskStatus.RUNNING:
        return _running_notes(record, now, word)
    notes: list[str] = []
    if word == "cancelled":
        if record.cancelled_by:
            notes.append(f"Cancelled by {printable(shorten(record.cancelled_by, 100))}.")
        if record.last_error:
            notes.append(f"Reason: {first_line(record.last_error)}")
    elif word == "expired":
        notes.append(
            "It was not tried again before it expired." if record.attempt else "No worker took it before it expired."
        )
    elif word == "failed" and record.retry_count:
        notes.append(f"{record.retry_count} of {record.max_retries} retries were made.")
    elif word == "failed" and record.max_retries:
        notes.append("It was not retried.")
    return notes


def _pending_notes(record: TaskRecord, now: datetime, word: str, has_worker: bool | None) -> list[str]:
    if word == "overdue":
        late = "tried again" if record.attempt else "started"
        return [f"It was not {late} in time: the next worker that looks marks it as expired."]
    notes: list[str] = []
    retry = f"retry {record.retry_count} of {record.max_retries}"
    if record.available_at > now:
        when = f"{ago(record.available_at, now)} (at {local_time(record.available_at)})"
        notes.append(f"It is tried again {when}: {retry}." if record.retry_count else f"It can start {when}.")
    else:
        waited = duration((now - record.available_at).total_seconds())
        notes.append(f"It has been waiting for a worker for {waited}.")
        if record.retry_count:
            notes.append(f"It is tried again: {retry}.")
    if has_worker is False:
        kind = printable(shorten(record.task_type, 100))
        notes.append(f"No worker has this type: start one that has a handler for {kind}.")
    return notes


def _running_notes(record: TaskRecord, now: datetime, word: str) -> list[str]:
    notes: list[str] = []
    if word == "lease ran out" and record.lease_expires_at is not None:
        notes.append(
            f"Its lease ran out {ago(record.lease_expires_at, now)}: its worker has died or cannot reach the store. "
            + _what_becomes_of(record)
        )
    elif word == "stalled" and record.progress is not None:
        silent = duration((now - record.progress.updated_at).total_seconds())
        per_item, longest_pause = _seconds_per_item(record), record.progress.longest_pause
        before = f"reports came at least every {duration(max(1, longest_pause))}" if longest_pause is not None else ""
        if per_item is not None and per_item >= 1 and per_item > (longest_pause or 0):
            before = f"an item took {duration(per_item)}"
        since = f", where {before} before" if before else ""
        notes.append(f"It has not reported for {silent}{since}; its worker still holds the lease.")
    elif word == "asked to stop":
        notes.append("It has been asked to stop, which its handler sees with its next report.")
    return notes


def _what_becomes_of(record: TaskRecord) -> str:
    """Return what the next worker makes of a task whose lease has run out."""
    if record.cancel_requested:
        return "It was asked to stop: the next worker that looks marks it as cancelled."
    if record.retry_count < record.max_retries:
        return "The next worker that looks tries it again."
    return "It has no retry left: the next worker that looks marks it as failed."
