"""The objects in the bucket as Python objects: tasks, progress, workers, idempotency records. Pure, no I/O.

Invariants:

* Records are written back without loss: unknown fields are kept, an instant that was not changed is
  written with the very digits it was read with (others write nanoseconds), and fields that are absent stay absent.
* Records are frozen; `TaskRecord.evolve` makes a changed copy.

Imports nothing of the package but `errors`, `text` and this room's `codec`, `keys` and `timestamps`.
"""

from __future__ import annotations

import json
import math
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, ClassVar, TypeGuard, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError

from oq_nb.errors import RecordError
from oq_nb.model.codec import to_json
from oq_nb.model.keys import TASKS, is_task_id
from oq_nb.model.timestamps import Instant
from oq_nb.text import progress_numbers

__all__ = [
    "MAX_MESSAGE_CHARS",
    "MAX_SECONDS",
    "IdempotencyRecord",
    "Progress",
    "RetryPolicy",
    "TaskRecord",
    "TaskStatus",
    "WorkerRecord",
    "prepare",
]

MAX_MESSAGE_CHARS = 1000
_CLOCKS_APART = timedelta(seconds=3)
# Of a field of ours that is read tolerantly where it is used: whatever another program puts there, the task can be
# read, and written back as it was.
_AS_READ, _AS_IS = PlainValidator(lambda value: value), PlainSerializer(lambda value: value)
#: Ten years: no lease and no delay that an object asks for is longer.
MAX_SECONDS = 10 * 365 * 86400.0


class TaskStatus(str, Enum):
    """State of a task."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ARCHIVED = "archived"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        """Whether a task with this status never runs again by itself."""
        return self not in (TaskStatus.PENDING, TaskStatus.RUNNING)

    def __str__(self) -> str:
        return self.value


Self = TypeVar("Self", bound="_Record")


class _Record(BaseModel):
    """An object of the bucket: immutable, and fields that it does not know are kept."""

    # Built by `prepare`: that takes a third of the time that importing the package would take otherwise.
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", defer_build=True)

    #: Fields that are left out of the JSON when they are None (all others are written as null).
    absent_when_unset: ClassVar[frozenset[str]] = frozenset()

    def evolve(self: Self, **changes: Any) -> Self:
        """Return a copy with some fields changed; values are taken as they are."""
        return self.model_copy(update=changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the object as stored in the bucket: field order, absent and null as upstream has them."""
        return {
            name: value
            for name, value in self.model_dump().items()
            if value is not None or name not in self.absent_when_unset
        }

    def to_bytes(self) -> bytes:
        """Return the JSON text that is stored."""
        return to_json(self.to_dict())

    @classmethod
    def from_bytes(cls: type[Self], body: bytes, *, key: str | None = None) -> Self:
        """Read a stored object.

        Args:
            body: the JSON text.
            key: the object's key, named in an error.

        Raises:
            RecordError: it is not such an object; the message says what is wrong with it.
        """
        try:
            value = json.loads(body)
            to_json(value)  # NaN, a number beyond all bounds, half of a character: could be read but never written back
            return cls.model_validate(value)
        except ValidationError as exc:
            first = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "the object"
            reason = f"{where}: {first['msg']}"
        except (ValueError, RecursionError) as exc:
            reason = f"not JSON ({type(exc).__name__})"
        raise RecordError(f"{key or 'object'} is not a {cls.__name__}: {reason}", key=key)


class RetryPolicy(_Record):
    """How long a task waits before its next attempt.

    The delay is ``min(initial × multiplier^retry_count, max) × (1 ± jitter)``.
    """

    # Built by `prepare`: that takes a third of the time that importing the package would take otherwise.
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="allow", defer_build=True)

    #: Milliseconds before the first retry.
    initial_interval_ms: int = Field(1000, ge=0)
    #: Milliseconds that no delay exceeds, before jitter.
    max_interval_ms: int = Field(60000, ge=0)
    #: Growth from one retry to the next.
    multiplier: float = Field(2.0, ge=0)
    #: Half-width of the random part, as a fraction: 0.25 means ± 25 %.
    jitter_percent: float = Field(0.25, ge=0)

    def delay_seconds(self, retry_count: int, chance: float) -> float:
        """Return the delay before the retry that follows ``retry_count`` earlier ones.

        Args:
            retry_count: retries already made, from 0.
            chance: a random number from 0 to 1.
        """
        try:
            grown = self.initial_interval_ms * self.multiplier**retry_count
        except OverflowError:
            grown = math.inf
        base = min(grown, self.max_interval_ms, MAX_SECONDS * 1000)
        return min(max(0.0, base * (1 + self.jitter_percent * (2 * chance - 1))) / 1000, MAX_SECONDS)


class Progress(_Record):
    """Last reported progress of a running task. Every field but ``updated_at`` may be absent."""

    absent_when_unset: ClassVar[frozenset[str]] = frozenset(
        {
            "percent",
            "current",
            "total",
            "message",
            "rate",
            "unit",
            "unit_divisor",
            "longest_pause",
            "metrics",
            "series",
        }
    )

    #: Completion, 0 to 100.
    percent: int | None = Field(None, ge=0, le=100)
    #: Current item or step.
    current: int | None = Field(None, ge=0)
    #: Number of items or steps.
    total: int | None = Field(None, ge=0)
    #: Status in words: untrusted text, escape it wherever it is shown.
    message: str | None = None
    #: When it was reported, by the store's clock.
    updated_at: Instant
    #: Items per second.
    rate: float | None = None
    #: Name of an item, as tqdm's ``unit``.
    unit: str | None = None
    #: Numbers are shown with prefixes: 1000 or 1024, as tqdm's ``unit_divisor``; None for as they are.
    unit_divisor: int | None = None
    #: Longest time between two reports of this attempt so far, seconds; None before the second one.
    longest_pause: float | None = None
    #: Newest value of each metric by name; None for one that is NaN or infinite. Names are untrusted text.
    metrics: Annotated[dict[str, float | None] | None, _AS_READ, _AS_IS] = None
    #: Position and metrics over time, thinned out, as stored; `read_series` of `oq_nb.model` reads it.
    series: Annotated[dict[str, Any] | None, _AS_READ, _AS_IS] = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until `total` is reached at the present `rate`; None when that cannot be told."""
        if self.total is None or self.current is None or not self.rate or not 0 < self.rate < math.inf:
            return None
        return max(0, self.total - self.current) / self.rate

    def __repr__(self) -> str:
        numbers = progress_numbers(
            self.percent,
            self.current,
            self.total,
            rate=self.rate,
            unit=self.unit,
            unit_divisor=self.unit_divisor,
            seconds_left=self.seconds_left,
        )
        return f"<Progress {numbers or 'reported'}>"

    __str__ = __repr__


class TaskRecord(_Record):
    """A task as stored in the bucket."""

    absent_when_unset: ClassVar[frozenset[str]] = frozenset(
        {
            "input_ref",
            "output_ref",
            "max_reschedules",
            "cancelled_at",
            "cancelled_by",
            "expires_at",
            "expired_at",
            "progress",
            "started_at",
            "last_worker_id",
            "reached",
            "trace",
        }
    )

    id: str
    shard: str
    task_type: str
    #: Any JSON; None when `input_ref` names the object that holds it.
    input: Any = None
    #: Any JSON; None when `output_ref` names the object that holds it.
    output: Any = None
    input_ref: str | None = None
    output_ref: str | None = None
    #: Seconds that a lease lasts.
    timeout_seconds: int = Field(300, ge=0)
    max_retries: int = Field(3, ge=0)
    retry_count: int = Field(0, ge=0)
    retry_policy: RetryPolicy = Field(default_factory=RetryPolicy)
    status: TaskStatus
    created_at: Instant
    #: Not to be claimed before.
    available_at: Instant
    lease_expires_at: Instant | None = None
    #: Fresh for each claim: the fencing token.
    lease_id: str | None = None
    #: Number of claims so far.
    attempt: int = Field(0, ge=0)
    updated_at: Instant
    completed_at: Instant | None = None
    worker_id: str | None = None
    last_error: str | None = None
    reschedule_count: int = Field(0, ge=0)
    max_reschedules: int | None = Field(None, ge=0)
    cancel_requested: bool = False
    cancelled_at: Instant | None = None
    cancelled_by: str | None = None
    #: Not to be claimed at or after.
    expires_at: Instant | None = None
    expired_at: Instant | None = None
    progress: Progress | None = None
    #: Ours: when the present or last attempt began; None where another program claimed it.
    started_at: Instant | None = None
    #: Ours: who ran the last attempt, once that is over.
    last_worker_id: str | None = None
    #: Ours: what the last attempt had reported when it was over.
    reached: Progress | None = None
    #: Ours: the trace that the submission belongs to, as OpenTelemetry carries it (``traceparent``).
    trace: Annotated[dict[str, str] | None, _AS_READ, _AS_IS] = None

    @property
    def lease_seconds(self) -> float:
        """How long a lease lasts: `timeout_seconds` within sensible bounds."""
        return min(max(1, self.timeout_seconds), MAX_SECONDS)

    @property
    def is_loop(self) -> bool:
        """Whether this is the task of a loop under `oq_nb.track`: its own program runs it, no worker can."""
        return self.task_type.startswith("track:")

    @property
    def has_completed(self) -> bool:
        """Whether it has completed; it may have been archived since."""
        is_archived = self.status is TaskStatus.ARCHIVED and self.completed_at is not None and self.last_error is None
        return self.status is TaskStatus.COMPLETED or (is_archived and self.cancelled_at is None)

    @property
    def is_whole(self) -> bool:
        """Whether its handler has come to its end: then it is at 100 %, whatever it last reported.

        A loop under `oq_nb.track` completes also when it was left before its end: its position tells.
        """
        return self.has_completed and (not self.is_loop or self.last_progress is None)

    @property
    def ended_at(self) -> Instant | None:
        """When the task ended, however it ended; None while it is pending or running."""
        if not self.status.is_terminal:
            return None
        return self.completed_at or self.cancelled_at or self.expired_at or self.updated_at

    def supersedes(self, known: TaskRecord) -> bool:
        """Return whether this, of two states of one task, is the later one or the same.

        ``updated_at`` alone does not tell: the clocks of two writers may be a second or two apart. A later attempt is
        later. Within an attempt running comes before pending, and pending before an end, unless the task was replayed.
        """
        if self.attempt != known.attempt:
            return self.attempt > known.attempt
        if self.status is known.status:
            return self.updated_at >= known.updated_at
        if self.status is TaskStatus.PENDING and known.status.is_terminal:
            return self._is_replay_of(known)
        if known.status is TaskStatus.PENDING and self.status.is_terminal and known._is_replay_of(self):
            return False
        return self.status is not TaskStatus.RUNNING and self.updated_at >= known.updated_at - _CLOCKS_APART

    def _is_replay_of(self, ended: TaskRecord) -> bool:
        """Return whether this pending task was made from that end by a replay; else the end was made from it."""
        if ended.status in (TaskStatus.COMPLETED, TaskStatus.FAILED):
            return True  # these end a running attempt: what is pending in the same attempt comes after
        is_new = self.updated_at == self.created_at
        was_retried = self.retry_count > 0 or self.reschedule_count > 0 or self.last_error is not None
        return not is_new and not was_retried and self.updated_at > ended.updated_at

    @property
    def last_progress(self) -> Progress | None:
        """Its progress; of a task that has ended what its last attempt had reported when it was over.

        A task that has ended has no ``progress``: its output is the result. What it had reported stands in `reached`;
        where a program has ended it that does not write this, the output of a loop's task (``track``) tells where the
        loop was, whether it used its items up, was left, interrupted, or failed.
        """
        if self.progress is not None or not self.status.is_terminal:
            return self.progress
        return self.reached or _position_of_loop(self)

    @property
    def key(self) -> str:
        """The object's key."""
        return f"{TASKS}{self.shard}/{self.id}.json"

    def to_dict(self) -> dict[str, Any]:
        """Return the object as stored in the bucket: field order, absent and null as upstream has them."""
        made = super().to_dict()
        made["status"] = self.status.value
        if self.progress is not None:
            made["progress"] = self.progress.to_dict()
        if self.reached is not None:
            made["reached"] = self.reached.to_dict()
        return made

    @classmethod
    def from_bytes(cls, body: bytes, *, key: str | None = None) -> TaskRecord:
        """Read a stored task; with a ``key``, the two must name the same task."""
        record = super().from_bytes(body, key=key)
        if not is_task_id(record.id):
            raise RecordError(f"{key or 'object'} is not a TaskRecord: id: not a UUID", key=key)
        if key is not None and record.key != key:
            raise RecordError(f"{key} holds a task with another id or shard than its key says", key=key)
        return record


def _position_of_loop(record: TaskRecord) -> Progress | None:
    """Return where a loop ended, from its task's input and output; None when the task was no loop."""
    given, output = record.input, record.output
    if not isinstance(given, dict) or given.keys() != {"host", "pid", "total"} or not isinstance(output, dict):
        return None
    items, seconds = output.get("items"), output.get("seconds")
    if not _is_count(items) or isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        return None
    total = output.get("total")
    if not _is_count(total):  # not written when the loop came to its end
        total = items if _is_count(given["total"]) else None
    unit = output.get("unit")
    return Progress(
        percent=min(100, items * 100 // total) if total else None,
        current=items,
        total=total if total is None or total >= items else None,
        unit=unit[:50] if isinstance(unit, str) else None,
        updated_at=record.completed_at or record.cancelled_at or record.updated_at,
    )


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


class WorkerRecord(_Record):
    """A worker's registration and heartbeat."""

    absent_when_unset: ClassVar[frozenset[str]] = frozenset({"current_tasks", "task_types"})

    worker_id: str
    started_at: Instant
    last_heartbeat: Instant
    shards: list[str] = Field(default_factory=list)
    current_task: str | None = None
    tasks_completed: int = 0
    tasks_failed: int = 0
    #: Ours: all tasks of a worker that runs several at once.
    current_tasks: list[str] | None = None
    #: Ours: the task types that have a handler.
    task_types: list[str] | None = None


class IdempotencyRecord(_Record):
    """Which task an idempotency key stands for."""

    absent_when_unset: ClassVar[frozenset[str]] = frozenset({"task_written_at"})

    key: str
    key_hash: str
    task_id: str
    task_key: str
    created_at: Instant
    expires_at: Instant
    task_type: str
    input_hash: str
    #: Ours: when the task was written; until then the submission may have been cut short.
    task_written_at: Instant | None = None


def prepare() -> None:
    """Build the validators of the records, once; else the first use of each does, which only one thread may."""
    for kind in (RetryPolicy, Progress, TaskRecord, WorkerRecord, IdempotencyRecord):
        kind.model_rebuild()
