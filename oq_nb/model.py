"""The wire format as Python objects: tasks, progress, workers, and the keys they live under. Pure, no I/O.

Invariants:

* Whatever was read is written back with nothing lost: unknown fields are kept, an instant that was not changed is
  written with the very digits it was read with (others write nanoseconds), and fields that are absent stay absent.
* Records are frozen; `TaskRecord.evolve` makes a changed copy.

Imports nothing of the package but `errors`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import uuid
from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, ValidationError

from oq_nb.errors import ConfigurationError, RecordError

__all__ = [
    "IdempotencyRecord",
    "Progress",
    "RetryPolicy",
    "TaskRecord",
    "TaskStatus",
    "Timestamp",
    "WorkerRecord",
    "canonical_json",
    "check_task_id",
    "check_task_type",
    "idempotency_key",
    "lease_key",
    "minute_of",
    "new_id",
    "parse_index_key",
    "payload_key",
    "prepare",
    "ready_key",
    "shard_of",
    "shards",
    "task_key",
    "to_json",
    "worker_key",
]

TASKS, READY, LEASES, WORKERS, PAYLOADS, IDEMPOTENCY = (
    "tasks/",
    "ready/",
    "leases/",
    "workers/",
    "payloads/",
    "idempotency/",
)
MAX_TASK_TYPE_CHARS = 200
MAX_MESSAGE_CHARS = 1000
_CLOCKS_APART = timedelta(seconds=3)
#: Ten years: no lease and no delay that an object asks for is longer.
MAX_SECONDS = 10 * 365 * 86400.0

_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,12}))?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


# --- instants ----------------------------------------------------------------------------------------------------


class Timestamp(datetime):
    """A UTC instant that remembers the text it was read from, to the last digit.

    It is a `datetime` in every other respect (microseconds; further digits are only in `text`).
    """

    _text: str | None

    @classmethod
    def parse(cls, value: Any) -> Timestamp:
        """Read an RFC 3339 text, or take over an aware `datetime`.

        Raises:
            ValueError: when it is neither, or has no time zone.
        """
        if isinstance(value, Timestamp):
            return value
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError("an instant needs a time zone")
            return cls.of(value)
        match = _INSTANT.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError("not an RFC 3339 instant")
        year, month, day, hour, minute, second, fraction, sign, offset_h, offset_m = match.groups()
        micro = int(((fraction or "") + "000000")[:6])
        leap = 1 if second == "60" else 0
        try:
            made = cls(
                int(year), int(month), int(day), int(hour), int(minute), int(second) - leap, micro, tzinfo=timezone.utc
            )
            if leap or sign:
                shift = timedelta(hours=int(offset_h or 0), minutes=int(offset_m or 0)) * (-1 if sign == "+" else 1)
                made = cls.of(made + shift + timedelta(seconds=leap))
        except OverflowError as exc:
            raise ValueError("an instant out of range") from exc
        made._text = value
        return made

    @classmethod
    def of(cls, value: datetime) -> Timestamp:
        """Return an aware `datetime` as a UTC timestamp."""
        utc = value.astimezone(timezone.utc)
        return cls(utc.year, utc.month, utc.day, utc.hour, utc.minute, utc.second, utc.microsecond, tzinfo=timezone.utc)

    @property
    def text(self) -> str:
        """The RFC 3339 text: as it was read, else with six digits and ``Z``."""
        kept: str | None = getattr(self, "_text", None)
        if kept is not None:
            return kept
        return (
            f"{self.year:04}-{self.month:02}-{self.day:02}T{self.hour:02}:{self.minute:02}:{self.second:02}"
            f".{self.microsecond:06}Z"
        )

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (Timestamp.parse, (self.text,))

    def __str__(self) -> str:
        return self.text


Instant = Annotated[
    Timestamp, PlainValidator(Timestamp.parse), PlainSerializer(lambda value: value.text, return_type=str)
]


# --- records -----------------------------------------------------------------------------------------------------


class TaskStatus(str, Enum):
    """Where a task is in its life."""

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
    # Built by `prepare`: that takes a third of the time that importing the package would take otherwise.
    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    #: Fields that are left out of the JSON when they are None (all others are written as null).
    absent_when_unset: ClassVar[frozenset[str]] = frozenset()

    def evolve(self: Self, **changes: Any) -> Self:
        """Return a copy with some fields changed; values are taken as they are."""
        return self.model_copy(update=changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the object as it stands in the bucket: field order, absent and null as upstream has them."""
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
    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

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
    """What a running task last said of itself. Every field but ``updated_at`` may be absent."""

    absent_when_unset = frozenset({"percent", "current", "total", "message", "rate", "unit"})

    #: Completion, 0 to 100.
    percent: int | None = Field(None, ge=0, le=100)
    #: Current item or step.
    current: int | None = Field(None, ge=0)
    #: Number of items or steps.
    total: int | None = Field(None, ge=0)
    #: Status in words: text from elsewhere, escape it wherever it is shown.
    message: str | None = None
    #: When it was reported, by the store's clock.
    updated_at: Instant
    #: Items per second.
    rate: float | None = None
    #: Name of an item, as tqdm's ``unit``.
    unit: str | None = None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until `total` is reached at the present `rate`; None when that cannot be told."""
        if self.total is None or self.current is None or not self.rate or not 0 < self.rate < math.inf:
            return None
        return max(0, self.total - self.current) / self.rate

    def __repr__(self) -> str:
        from oq_nb.view import progress_line

        return f"<Progress {progress_line(self)}>"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        from oq_nb.markup import progress_html

        return progress_html(self)


class TaskRecord(_Record):
    """A task as it stands in the bucket."""

    absent_when_unset = frozenset(
        {
            "input_ref",
            "output_ref",
            "max_reschedules",
            "cancelled_at",
            "cancelled_by",
            "expires_at",
            "expired_at",
            "progress",
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

    @property
    def lease_seconds(self) -> float:
        """How long a lease lasts: `timeout_seconds` within sensible bounds."""
        return min(max(1, self.timeout_seconds), MAX_SECONDS)

    def supersedes(self, known: TaskRecord) -> bool:
        """Return whether this, of two states of one task, is the later one or the same.

        ``updated_at`` alone does not tell: the clocks of two writers may be a second or two apart. A later attempt is
        later, and within an attempt running comes before pending, and that before an end; but for a replay.
        """
        if self.attempt != known.attempt:
            return self.attempt > known.attempt
        if self.status is known.status:
            return self.updated_at >= known.updated_at
        if known.status.is_terminal and self.status is TaskStatus.PENDING:
            return self.updated_at > known.updated_at
        return self.status is not TaskStatus.RUNNING and self.updated_at >= known.updated_at - _CLOCKS_APART

    @property
    def key(self) -> str:
        """The object's key."""
        return f"{TASKS}{self.shard}/{self.id}.json"

    def to_dict(self) -> dict[str, Any]:
        """Return the object as it stands in the bucket: field order, absent and null as upstream has them."""
        made = super().to_dict()
        made["status"] = self.status.value
        if self.progress is not None:
            made["progress"] = self.progress.to_dict()
        return made

    @classmethod
    def from_bytes(cls, body: bytes, *, key: str | None = None) -> TaskRecord:
        """Read a stored task; with a ``key``, the two must name the same task."""
        record = super().from_bytes(body, key=key)
        if not _UUID.fullmatch(record.id):
            raise RecordError(f"{key or 'object'} is not a TaskRecord: id: not a UUID", key=key)
        if key is not None and record.key != key:
            raise RecordError(f"{key} holds a task that belongs elsewhere: its id and shard do not match", key=key)
        return record


class WorkerRecord(_Record):
    """A worker's registration and heartbeat."""

    absent_when_unset = frozenset({"current_tasks", "task_types"})

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
    """Says which task an idempotency key stands for."""

    key: str
    key_hash: str
    task_id: str
    task_key: str
    created_at: Instant
    expires_at: Instant
    task_type: str
    input_hash: str


# --- JSON --------------------------------------------------------------------------------------------------------


def to_json(value: Any) -> bytes:
    """Return compact JSON as UTF-8.

    Raises:
        ValueError: a number that JSON does not have (NaN, Infinity), a circular structure, text that is not Unicode.
        TypeError: a value that JSON does not have.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def canonical_json(value: Any) -> bytes:
    """Return compact JSON with sorted keys: equal values give equal bytes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True).encode()


# --- keys --------------------------------------------------------------------------------------------------------


def new_id() -> str:
    """Return a fresh task or lease id: a random UUID, lower case with dashes."""
    return str(uuid.uuid4())


def check_task_id(task_id: Any) -> str:
    """Return the id in its stored form.

    Raises:
        ConfigurationError: it is not a UUID.
    """
    if isinstance(task_id, uuid.UUID):
        return str(task_id)
    if isinstance(task_id, str) and _UUID.fullmatch(task_id.lower()):
        return task_id.lower()
    shown = repr(task_id)
    raise ConfigurationError(
        f"task_id: not a task id: {shown[:80]} (a task id is a UUID such as 8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2)"
    )


def check_task_type(task_type: Any) -> str:
    """Return the task type.

    Raises:
        ConfigurationError: it is not text of 1 to 200 visible characters.
    """
    if not isinstance(task_type, str):
        raise ConfigurationError(f"task_type: text is needed, not {type(task_type).__name__}")
    if not task_type.strip():
        raise ConfigurationError("task_type: it is empty")
    if len(task_type) > MAX_TASK_TYPE_CHARS:
        raise ConfigurationError(f"task_type: {len(task_type)} characters, at most {MAX_TASK_TYPE_CHARS} are allowed")
    if not task_type.isprintable():
        raise ConfigurationError(f"task_type: control characters are not allowed: {task_type!r}")
    return task_type


def shards(prefix_len: int = 1) -> list[str]:
    """Return all shards: the hexadecimal numbers of ``prefix_len`` digits (1 to 4)."""
    if isinstance(prefix_len, bool) or prefix_len not in (1, 2, 3, 4):
        raise ConfigurationError(f"shard_prefix_len: a whole number from 1 to 4, not {prefix_len!r}")
    return [f"{number:0{prefix_len}x}" for number in range(16**prefix_len)]


def shard_of(task_id: str, prefix_len: int = 1) -> str:
    """Return the shard of a task: the first hexadecimal digits of its id."""
    return task_id[:prefix_len]


def minute_of(instant: datetime) -> str:
    """Return the minute of an instant as index keys have it: whole minutes since 1970, ten digits."""
    return f"{max(0, int(instant.timestamp() // 60)):010d}"


def task_key(task_id: str, shard: str) -> str:
    """Return the key of a task object."""
    return f"{TASKS}{shard}/{task_id}.json"


def ready_key(record: TaskRecord) -> str:
    """Return the key of the ready entry for the record's ``available_at``."""
    return f"{READY}{record.shard}/{minute_of(record.available_at)}/{record.id}"


def lease_key(record: TaskRecord) -> str:
    """Return the key of the lease entry for the record's ``lease_expires_at``."""
    if record.lease_expires_at is None:
        raise ValueError(f"task {record.id} has no lease")
    return f"{LEASES}{record.shard}/{minute_of(record.lease_expires_at)}/{record.id}"


def payload_key(task_id: str, which: str, attempt: int = 1) -> str:
    """Return the key of a large ``input`` or ``output``; of a later attempt ``output-2.json`` and so on."""
    return f"{PAYLOADS}{task_id}/{which}.json" if attempt <= 1 else f"{PAYLOADS}{task_id}/{which}-{attempt}.json"


def worker_key(worker_id: str) -> str:
    """Return the key of a worker's registration."""
    return f"{WORKERS}{worker_id}.json"


def idempotency_key(scope: str, key: str) -> str:
    """Return the key of an idempotency record."""
    return f"{IDEMPOTENCY}{scope}/{hashlib.sha256(f'{scope}:{key}'.encode()).hexdigest()}.json"


def parse_index_key(key: str) -> tuple[str, str, str] | None:
    """Return shard, minute and task id of an index key, or None when it is not one."""
    parts = key.split("/")
    if len(parts) != 4 or not _UUID.fullmatch(parts[3]) or not parts[2].isdigit() or not parts[3].startswith(parts[1]):
        return None
    return parts[1], parts[2], parts[3]


def prepare() -> None:
    """Build the validators of the records, once; else the first use of each does, which only one thread may."""
    for kind in (RetryPolicy, Progress, TaskRecord, WorkerRecord, IdempotencyRecord):
        kind.model_rebuild()
