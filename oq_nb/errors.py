"""Every error that oq_nb raises to its callers, and the three that handlers raise.

::

    OqError                       .task_id .key; __cause__ kept
    ├ ConfigurationError          also ValueError: an argument, a setting or the bucket cannot be used as it is
    ├ StorageError
    │ ├ StorageUnavailableError   time-out, 5xx, no connection: try later
    │ ├ StorageConfigurationError also ConfigurationError: bucket, region or TLS, found out by a request
    │ ├ StorageDeniedError        .code: fix the credentials or the policy
    │ └ ConflictError             a conditional write was refused: read again, decide again
    ├ TaskNotFoundError
    ├ TransitionError             .status .wanted: the task is not in a state that allows this
    ├ LeaseExpiredError           this attempt no longer owns the task: stop, its result is thrown away
    ├ TaskFailedError             .last_error; renders the remote traceback in IPython
    ├ TaskCancelledError
    ├ WaitTimeoutError            also TimeoutError
    └ RecordError                 an object in the bucket is invalid

    RetryableError, PermanentError, RescheduleError     raised by handlers; not OqError

This module imports nothing of the package.
"""

from __future__ import annotations

import functools
import os
import traceback
from typing import Any

__all__ = [
    "ConfigurationError",
    "ConflictError",
    "LeaseExpiredError",
    "OqError",
    "PermanentError",
    "RecordError",
    "RescheduleError",
    "RetryableError",
    "StorageConfigurationError",
    "StorageDeniedError",
    "StorageError",
    "StorageUnavailableError",
    "TaskCancelledError",
    "TaskFailedError",
    "TaskNotFoundError",
    "TransitionError",
    "WaitTimeoutError",
]


class OqError(Exception):
    """Base of all errors that oq_nb raises to its callers.

    Args:
        message: what happened, to which task, and what to do about it.
        task_id: the task concerned, when there is one.
        key: the object concerned, when there is one.
    """

    def __init__(self, message: str, *, task_id: str | None = None, key: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


class ConfigurationError(OqError, ValueError):
    """An argument, a setting or the bucket cannot be used as it is; the message names it and says what to do."""


class StorageError(OqError):
    """A request to the store failed, or its answer cannot be used."""


class StorageUnavailableError(StorageError):
    """The store did not answer, or is too busy: try again later."""


class StorageConfigurationError(StorageError, ConfigurationError):
    """A request failed because of the bucket's name, its region, or the trust in the endpoint's certificate.

    It is a `StorageError` too, because the same failure may pass: a captive portal breaks TLS for a minute, a proxy
    answers for another bucket. What runs already tries again; what has just been configured says what is wrong.
    """


class StorageDeniedError(StorageError):
    """The store refused the credentials, or they do not allow this operation.

    Args:
        message: what was refused, and what to do.
        key: the object.
        code: the store's own code, such as ``AccessDenied`` or ``ExpiredToken``; empty when there was none.
    """

    def __init__(self, message: str, *, key: str | None = None, code: str = "") -> None:
        super().__init__(message, key=key)
        self.code = code


class ConflictError(StorageError):
    """A conditional write was refused: the object has changed since the writer read it.

    Args:
        message: what happened.
        key: the object.
        ambiguous: an earlier try of this write may have been applied, so the object may hold our own write.

    Attributes:
        current: the task as it was read after the refusal (an `oq_nb.store.VersionedTask`), where it was.
        entries: index entries that were written for the refused state.
    """

    def __init__(self, message: str, *, key: str | None = None, ambiguous: bool = False) -> None:
        super().__init__(message, key=key)
        self.ambiguous = ambiguous
        self.current: Any = None
        self.entries: tuple[Any, ...] = ()


class TaskNotFoundError(OqError):
    """No task with this id is in the bucket."""


class TransitionError(OqError):
    """The task is not in a state that allows what was asked.

    Args:
        message: what was refused and why.
        status: the task's status.
        wanted: what was asked for.
        task_id: the task.
    """

    def __init__(self, message: str, *, status: str, wanted: str, task_id: str | None = None) -> None:
        super().__init__(message, task_id=task_id)
        self.status = status
        self.wanted = wanted


class LeaseExpiredError(OqError):
    """This attempt no longer owns its task: stop working on it; nothing more is written for it."""


class TaskFailedError(OqError):
    """The task ended as failed (or expired unclaimed); ``last_error`` is its handler's traceback or reason.

    Args:
        message: which task failed, and why in one line.
        task_id: the task.
        last_error: the text stored with the task.
    """

    def __init__(self, message: str, *, task_id: str | None = None, last_error: str | None = None) -> None:
        super().__init__(message, task_id=task_id)
        self.last_error = last_error

    def _render_traceback_(self) -> list[str]:
        """Lines that IPython shows instead of a local traceback: the remote one is what matters."""
        from oq_nb.text import printable

        lines = [f"{type(self).__name__}: {printable(str(self))}"]
        if self.last_error:
            lines += ["", "The handler's error, as stored with the task:", ""]
            lines += printable(self.last_error, keep_newlines=True).splitlines()
        return lines


class _Brief(OqError):
    """Shown by IPython with the lines of whoever called, and none of this package."""

    def _render_traceback_(self) -> list[str]:
        return brief_traceback(self)


class TaskCancelledError(_Brief):
    """The task was cancelled, or is asked to stop."""


class WaitTimeoutError(_Brief, TimeoutError):
    """The task was not finished within the time-out. It goes on running; call `wait` again."""


def brief_traceback(error: BaseException) -> list[str]:
    """Return the lines that IPython shows of an error that is none of this package: the frames of whoever called."""
    from oq_nb.text import printable

    hidden = (
        os.path.dirname(__file__),
        f"{os.sep}IPython{os.sep}",
        f"{os.sep}ipykernel{os.sep}",
        os.path.join(os.path.dirname(os.__file__), "threading.py"),
    )
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not any(part in f.filename for part in hidden)]
    said = printable(str(error))
    lines = "".join(traceback.format_list(frames)).splitlines()
    return [*lines, f"{type(error).__name__}: {said}" if said else type(error).__name__]


class brief_interrupts:
    """A block that waits: a Ctrl-C in it is shown by IPython as `brief_traceback` has it."""

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Have an interrupt shown briefly; it goes on."""
        if isinstance(error, KeyboardInterrupt):
            error.__dict__["_render_traceback_"] = functools.partial(brief_traceback, error)


class RecordError(OqError):
    """An object in the bucket is invalid: not JSON, fields missing, or stored under the wrong key."""


class RetryableError(Exception):
    """Raised by a handler: this attempt failed, try the task again after its retry delay."""


class PermanentError(Exception):
    """Raised by a handler: the task cannot succeed, fail it without another try."""


class RescheduleError(Exception):
    """Raised by a handler: run the task again after a delay, without counting a retry.

    Args:
        delay: seconds from now, 0 or more.
        message: an optional reason, for logs.
    """

    def __init__(self, delay: float, message: str = "") -> None:
        super().__init__(message or f"reschedule in {delay} s")
        if not isinstance(delay, (int, float)) or isinstance(delay, bool) or not 0 <= delay <= 10 * 365 * 86400:
            raise ValueError(f"delay: seconds from 0 to ten years, not {delay!r}")
        self.delay: float = float(delay)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, self.__dict__)


def _rebuilt(kind: type[BaseException], args: tuple[Any, ...], fields: dict[str, Any]) -> BaseException:
    """Return an error as it was before it was pickled, whatever its constructor takes."""
    error = kind.__new__(kind, *args)
    error.__dict__.update(fields)
    return error
