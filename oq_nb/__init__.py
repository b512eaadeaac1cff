"""oq_nb: a task queue on an S3 bucket, with live progress, made for notebooks.

Importing this package loads neither boto3 nor tqdm nor IPython nor ipywidgets: each is loaded when it is first needed,
as are those parts of the package itself that not every program has a use for.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from oq_nb.attempt.context import TaskContext, current_context
from oq_nb.errors import (
    ConfigurationError,
    ConflictError,
    LeaseExpiredError,
    OqError,
    PermanentError,
    RecordError,
    RescheduleError,
    RetryableError,
    StorageConfigurationError,
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
from oq_nb.queue.connection import connect, default_queue
from oq_nb.queue.task import Task

if TYPE_CHECKING:
    from oq_nb.progress.bar import tqdm, track, trange
    from oq_nb.queue.functions import task
    from oq_nb.queue.groups import as_completed, wait
    from oq_nb.worker import Worker
    from oq_nb.worker.nested_asyncio import enable_nested_asyncio

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
    "StorageConfigurationError",
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
    "task",
    "tqdm",
    "track",
    "trange",
    "wait",
]

__version__ = "0.1.0"

_LAZY = {
    "Worker": "oq_nb.worker",
    "as_completed": "oq_nb.queue.groups",
    "enable_nested_asyncio": "oq_nb.worker.nested_asyncio",
    "task": "oq_nb.queue.functions",
    "tqdm": "oq_nb.progress.bar",
    "track": "oq_nb.progress.bar",
    "trange": "oq_nb.progress.bar",
    "wait": "oq_nb.queue.groups",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = globals()[name] = getattr(importlib.import_module(_LAZY[name]), name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_formatters() -> None:
    """Where IPython runs already, have it show our objects as HTML; IPython is not loaded for it."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None and hasattr(ipython, "get_ipython") else None
    if shell is not None:
        from oq_nb.queue import faces

        faces.register_formatters(shell)


_register_formatters()
