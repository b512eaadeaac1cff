"""oq_nb: a task queue on an S3 bucket, with live progress, made for notebooks.

Importing this package loads neither boto3 nor tqdm nor IPython nor ipywidgets: each is loaded when it is first needed,
as are those parts of the package itself that not every program has a use for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from oq_nb.client import connect, default_queue
from oq_nb.context import TaskContext, current_context
from oq_nb.errors import (
    ConfigurationError,
    ConflictError,
    LeaseExpiredError,
    OqError,
    PermanentError,
    RecordError,
    RescheduleError,
    RetryableError,
    StorageDeniedError,
    StorageError,
    StorageUnavailableError,
    TaskCancelledError,
    TaskFailedError,
    TaskNotFoundError,
    TransitionError,
    WaitTimeoutError,
)
from oq_nb.model import Progress, RetryPolicy, TaskRecord, TaskStatus, WorkerRecord
from oq_nb.queue import Queue
from oq_nb.task import Task

if TYPE_CHECKING:
    from oq_nb.bar import tqdm, track, trange
    from oq_nb.nested import enable_nested_asyncio
    from oq_nb.waiting import as_completed, wait
    from oq_nb.worker import Worker

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "LeaseExpiredError",
    "OqError",
    "PermanentError",
    "Progress",
    "Queue",
    "RecordError",
    "RescheduleError",
    "RetryPolicy",
    "RetryableError",
    "StorageDeniedError",
    "StorageError",
    "StorageUnavailableError",
    "Task",
    "TaskCancelledError",
    "TaskContext",
    "TaskFailedError",
    "TaskNotFoundError",
    "TaskRecord",
    "TaskStatus",
    "TransitionError",
    "WaitTimeoutError",
    "Worker",
    "WorkerRecord",
    "__version__",
    "as_completed",
    "connect",
    "current_context",
    "default_queue",
    "enable_nested_asyncio",
    "tqdm",
    "track",
    "trange",
    "wait",
]

__version__ = "0.1.0"

_LAZY = {
    "Worker": "oq_nb.worker",
    "as_completed": "oq_nb.waiting",
    "enable_nested_asyncio": "oq_nb.nested",
    "tqdm": "oq_nb.bar",
    "track": "oq_nb.bar",
    "trange": "oq_nb.bar",
    "wait": "oq_nb.waiting",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
