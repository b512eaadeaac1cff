"""The objects in the bucket, and how a task may change. Pure: no I/O, no clock, no randomness.

======================  =======================================================
`records`               tasks, progress, workers as frozen objects
`timestamps`, `codec`   instants and JSON, written back digit by digit
`series`                numbers over time, thinned out
`keys`                  ids, shards, and the key of every object
`transitions`           one pure function for each change in a task's life
`logs`                  the log of an attempt: pieces of JSON lines
======================  =======================================================

May import: `oq_nb.errors`, `oq_nb.text` and `oq_nb.ansi`, nothing else of the package.
"""

from oq_nb.model.codec import canonical_json, to_json
from oq_nb.model.keys import (
    ENDED,
    HINT,
    IDEMPOTENCY,
    LEASES,
    LOGS,
    MAX_TASK_TYPE_CHARS,
    PAYLOADS,
    READY,
    TASKS,
    WORKERS,
    check_task_id,
    check_task_type,
    ended_key,
    idempotency_key,
    is_task_id,
    lease_key,
    log_key,
    log_prefix,
    minute_of,
    new_id,
    parse_ended_key,
    parse_index_key,
    parse_log_key,
    payload_key,
    ready_key,
    shard_of,
    shards,
    task_key,
    worker_key,
)
from oq_nb.model.records import (
    MAX_MESSAGE_CHARS,
    MAX_SECONDS,
    IdempotencyRecord,
    Progress,
    RetryPolicy,
    TaskRecord,
    TaskStatus,
    WorkerRecord,
    prepare,
)
from oq_nb.model.series import Series, SeriesRecorder, read_metrics, read_series
from oq_nb.model.timestamps import Instant, Timestamp

__all__ = [
    "ENDED",
    "HINT",
    "IDEMPOTENCY",
    "LEASES",
    "LOGS",
    "MAX_MESSAGE_CHARS",
    "MAX_SECONDS",
    "MAX_TASK_TYPE_CHARS",
    "PAYLOADS",
    "READY",
    "TASKS",
    "WORKERS",
    "IdempotencyRecord",
    "Instant",
    "Progress",
    "RetryPolicy",
    "Series",
    "SeriesRecorder",
    "TaskRecord",
    "TaskStatus",
    "Timestamp",
    "WorkerRecord",
    "canonical_json",
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
    "prepare",
    "read_metrics",
    "read_series",
    "ready_key",
    "shard_of",
    "shards",
    "task_key",
    "to_json",
    "worker_key",
]
