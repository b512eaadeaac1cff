"""Ids, shards, task types, and the key of every object in the bucket. Pure.

Imports nothing of the package but `errors`; records only as types.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import datetime
from typing import Any, Protocol

from oq_nb.errors import ConfigurationError

__all__ = [
    "ENDED",
    "HINT",
    "IDEMPOTENCY",
    "LEASES",
    "LOGS",
    "PAYLOADS",
    "READY",
    "TASKS",
    "WORKERS",
    "check_task_id",
    "check_task_type",
    "ended_key",
    "idempotency_key",
    "is_task_id",
    "lease_key",
    "log_key",
    "log_prefix",
    "minute_of",
    "new_id",
    "parse_ended_key",
    "parse_index_key",
    "parse_log_key",
    "payload_key",
    "ready_key",
    "shard_of",
    "shards",
    "task_key",
    "worker_key",
]

TASKS, READY, LEASES, WORKERS, PAYLOADS, IDEMPOTENCY, ENDED, LOGS = (
    "tasks/",
    "ready/",
    "leases/",
    "workers/",
    "payloads/",
    "idempotency/",
    "ended/",
    "logs/",
)
#: The object that changes when tasks were submitted, see `oq_nb.store.hint`.
HINT = "hints/ready"
MAX_TASK_TYPE_CHARS = 200
_LAST_PIECE = 99_999_999

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)


class _Indexed(Protocol):
    """What an index key needs of a task record."""

    @property
    def id(self) -> str: ...
    @property
    def shard(self) -> str: ...
    @property
    def available_at(self) -> datetime: ...
    @property
    def lease_expires_at(self) -> datetime | None: ...


class _Ended(Protocol):
    """What the key of an ended entry needs of a task record."""

    @property
    def id(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def ended_at(self) -> datetime | None: ...


def new_id() -> str:
    """Return a fresh task or lease id: a random UUID, lower case with dashes."""
    return str(uuid.uuid4())


def is_task_id(text: str) -> bool:
    """Return whether a text is a task id in its stored form: a UUID, lower case with dashes."""
    return _UUID.fullmatch(text) is not None


def check_task_id(task_id: Any) -> str:
    """Return the id in its stored form.

    Raises:
        ConfigurationError: it is not a UUID.
    """
    if isinstance(task_id, uuid.UUID):
        return str(task_id)
    if isinstance(task_id, str) and is_task_id(task_id.lower()):
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


def ready_key(record: _Indexed) -> str:
    """Return the key of the ready entry for the record's ``available_at``."""
    return f"{READY}{record.shard}/{minute_of(record.available_at)}/{record.id}"


def lease_key(record: _Indexed) -> str:
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
    if len(parts) != 4 or not is_task_id(parts[3]) or not parts[2].isdigit() or not parts[3].startswith(parts[1]):
        return None
    return parts[1], parts[2], parts[3]


def ended_key(record: _Ended) -> str:
    """Return the key of the entry that an unhappy end leaves, by status and the minute of the end."""
    if record.ended_at is None:
        raise ValueError(f"task {record.id} has not ended")
    return f"{ENDED}{record.status!s}/{minute_of(record.ended_at)}/{record.id}"


def parse_ended_key(key: str) -> tuple[str, str, str] | None:
    """Return status, minute and task id of an ended entry's key, or None when it is not one."""
    parts = key.split("/")
    if len(parts) != 4 or f"{parts[0]}/" != ENDED or not parts[2].isdigit() or not is_task_id(parts[3]):
        return None
    return parts[1], parts[2], parts[3]


def log_prefix(task_id: str, shard: str, attempt: int | None = None) -> str:
    """Return the prefix of the pieces of a task's log, or of those of one attempt."""
    under = f"{LOGS}{shard}/{task_id}/"
    return under if attempt is None else f"{under}{attempt}/"


def log_key(task_id: str, shard: str, attempt: int, number: int) -> str:
    """Return the key of a piece of a log. Names count down from 99999999, so that a listing gives the newest first.

    Args:
        task_id: the task.
        shard: its shard.
        attempt: whose log.
        number: of the piece, from 0.
    """
    return f"{log_prefix(task_id, shard, attempt)}{_LAST_PIECE - number:08d}"


def parse_log_key(key: str) -> tuple[str, int, int] | None:
    """Return task id, attempt and number of a piece of a log, or None when it is not one."""
    parts = key.split("/")
    if len(parts) != 5 or f"{parts[0]}/" != LOGS or not is_task_id(parts[2]):
        return None
    attempt, name = parts[3], parts[4]
    if not (attempt.isdecimal() and attempt.isascii() and len(attempt) < 10 and name.isdecimal() and name.isascii()):
        return None
    return (parts[2], int(attempt), _LAST_PIECE - int(name)) if len(name) == 8 else None
