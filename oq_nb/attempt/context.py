"""`TaskContext`, the handler's view of its attempt, and `current_context` for code that was not passed one.

Imports nothing of the package but `errors` and `model`.
"""

from __future__ import annotations

import logging
import math
import operator
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from oq_nb.errors import ConfigurationError, TaskCancelledError
from oq_nb.model import MAX_MESSAGE_CHARS, Progress, SeriesRecorder, TaskRecord, Timestamp
from oq_nb.model.series import check_metrics

if TYPE_CHECKING:
    from oq_nb.store.live_progress import ProgressSource

__all__ = ["Hold", "TaskContext", "current_context", "make_progress", "with_series"]

logger: logging.Logger = logging.getLogger("oq_nb.progress")

_MAX_COUNT = 2**64 - 1
_current: ContextVar[TaskContext | None] = ContextVar("oq_nb_current_context", default=None)


def current_context() -> TaskContext | None:
    """Return the context of the handler that is running here, or None outside of handlers."""
    return _current.get()


@contextmanager
def running_in(context: TaskContext) -> Iterator[None]:
    """Make ``context`` the current one for the code inside."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


class Hold(Protocol):
    """What a context needs of a lease: an `oq_nb.attempt.lease.Lease`, or its stand-in in another process."""

    @property
    def task_id(self) -> str:
        """The task's id."""

    @property
    def record(self) -> TaskRecord:
        """The task as last seen."""

    @property
    def is_lost(self) -> bool:
        """Whether this attempt no longer owns the task."""

    def now(self) -> datetime:
        """Return the store's time."""

    def check(self) -> None:
        """Raise `LeaseExpiredError` when the lease is lost."""

    def report(self, progress: Progress, *, throttle_seconds: float = 0.0, wait: bool = True) -> None:
        """Take the newest progress for writing."""

    def extend(self, seconds: float) -> None:
        """Add ``seconds`` to the lease's end."""

    def follow(self, source: ProgressSource) -> None:
        """Have displays of this process ask ``source``; nothing where the attempt runs in another one."""


class TaskContext:
    """A handler's view of the attempt that it runs. Safe to use from several threads.

    Args:
        lease: the attempt's lease.
        throttle_seconds: default of `report_progress`.
    """

    def __init__(self, lease: Hold, *, throttle_seconds: float = 0.0) -> None:
        self._lease = lease
        self._throttle_seconds = throttle_seconds
        self._series = SeriesRecorder()  # a fresh one for each attempt
        self._series_lock = threading.Lock()
        #: The bar of `oq_nb.track` that reports to this task, a weak reference; further ones stay local.
        self.outermost_bar: Callable[[], Any] | None = None

    def __repr__(self) -> str:
        record = self._lease.record
        return f"<TaskContext of {record.task_type} {record.id}, attempt {record.attempt}>"

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self._lease.task_id

    @property
    def task_type(self) -> str:
        """The task's type."""
        return self._lease.record.task_type

    @property
    def attempt(self) -> int:
        """How often the task was claimed, this time included: 1 at the first run."""
        return self._lease.record.attempt

    @property
    def progress(self) -> Progress | None:
        """The progress that was last written."""
        return self._lease.record.progress

    @property
    def cancel_requested(self) -> bool:
        """Whether the task was asked to stop, as far as is known: see `raise_if_cancelled`."""
        return self._lease.record.cancel_requested

    @property
    def is_lease_lost(self) -> bool:
        """Whether this attempt no longer owns the task: stop working on it then."""
        return self._lease.is_lost

    def report_progress(
        self,
        percent: float | None = None,
        current: int | None = None,
        total: int | None = None,
        message: str | None = None,
        *,
        rate: float | None = None,
        unit: str | None = None,
        unit_divisor: int | None = None,
        metrics: Mapping[str, float] | None = None,
        throttle_seconds: float | None = None,
        wait: bool = True,
    ) -> None:
        """Write the task's progress to the bucket, where everyone with access to it can read it.

        Without a throttle the progress is written when this returns. When the store does not answer, the handler goes
        on, one warning is logged, and the newest value is written once the store answers again.

        Args:
            percent: 0 to 100; above is clamped with a warning; from ``current`` and ``total`` when left out.
            current: item or step reached, from 0.
            total: number of items or steps.
            message: status in words; cut at 1,000 characters.
            rate: items per second.
            unit: name of an item.
            unit_divisor: numbers are shown with prefixes: 1000 (k, M, G) or 1024; as tqdm's ``unit_scale=True`` and its
                ``unit_divisor``. None: as they are, bytes (``unit="B"``) with decimal prefixes.
            metrics: numbers by name, such as ``{"loss": 0.31}``: at most 16, names of 1 to 40 characters. Each keeps
                its value until it is given again; one that is NaN or infinite counts as having none. Their course, and
                that of the position, is kept in the same object, thinned out to 60 points: see `oq_nb.Task.series`.
            throttle_seconds: at most one write per this many seconds; values in between are held back, and the newest
                of them is written when the interval ends. None: the worker's default.
            wait: False to return at once, before the value is written.

        Raises:
            ConfigurationError: an argument is not usable (it is a `ValueError`, and names the argument).
            LeaseExpiredError: this attempt no longer owns the task: stop working on it.

        Requests: 1 PUT, If-Match; none for a value that is held back.
        Source: progress-reporting feature, "API".
        """
        throttle = self._throttle_seconds if throttle_seconds is None else _number("throttle_seconds", throttle_seconds)
        progress = make_progress(
            Timestamp.of(self._lease.now()),
            percent=percent,
            current=current,
            total=total,
            message=message,
            rate=rate,
            unit=unit,
            unit_divisor=unit_divisor,
            metrics=metrics,
        )
        with self._series_lock:
            progress = with_series(self._series, progress)
        self._lease.report(progress, throttle_seconds=throttle, wait=wait)

    def follow(self, source: ProgressSource) -> None:
        """Have displays of this process ask ``source`` how far the attempt is, between two reports.

        Args:
            source: has ``reached()``, which is called from any thread; referred to weakly.
        """
        self._lease.follow(source)

    def extend_lease(self, seconds: float) -> None:
        """Add ``seconds`` to the lease's end; for workers that do not renew leases by themselves.

        Raises:
            LeaseExpiredError: this attempt no longer owns the task, or has ended.
            StorageError: it could not be written.

        Requests: 1 PUT, If-Match.
        """
        self._lease.extend(_number("seconds", seconds))

    def raise_if_cancelled(self) -> None:
        """Raise when the task should stop.

        A cancel that the worker's own queue makes in this process is known at once. Any other one is known with the
        next write of the task: a report of progress, or the renewal of the lease, which is due after a third of
        ``timeout_seconds``. So a handler that should stop soon reports its progress.

        Raises:
            TaskCancelledError: the task was asked to stop.
            LeaseExpiredError: this attempt no longer owns the task.
        """
        self._lease.check()
        if self.cancel_requested:
            raise TaskCancelledError(f"task {self.task_id} is asked to stop", task_id=self.task_id)


def make_progress(
    updated_at: Timestamp,
    *,
    percent: float | None = None,
    current: int | None = None,
    total: int | None = None,
    message: str | None = None,
    rate: float | None = None,
    unit: str | None = None,
    unit_divisor: int | None = None,
    metrics: Mapping[str, float] | None = None,
) -> Progress:
    """Return a `Progress` from a handler's arguments; see `TaskContext.report_progress` for the arguments.

    Raises:
        ConfigurationError: an argument is not usable; the message names it.
    """
    whole_current = None if current is None else _count("current", current)
    whole_total = None if total is None else _count("total", total)
    if percent is not None:
        percent = _number("percent", percent)
    elif whole_current is not None and whole_total:
        percent = whole_current * 100 / whole_total
    if percent is not None and percent > 100:
        logger.warning("progress of %.6g %% is shown as 100 %%", percent)
        percent = 100
    return Progress(
        percent=None if percent is None else int(percent),
        current=whole_current,
        total=whole_total,
        message=None if message is None else _text("message", message, MAX_MESSAGE_CHARS),
        updated_at=updated_at,
        rate=None if rate is None else _number("rate", rate),
        unit=None if unit is None else _text("unit", unit, 50),
        unit_divisor=None if unit_divisor is None else _divisor(unit_divisor),
        metrics=None if metrics is None else check_metrics(metrics),
    )


def with_series(recorder: SeriesRecorder, progress: Progress) -> Progress:
    """Add a report to an attempt's series; return it with the series so far, and the newest value of each metric."""
    recorder.add(progress.updated_at, current=progress.current, percent=progress.percent, metrics=progress.metrics)
    return progress.evolve(metrics=recorder.metrics, series=recorder.series)


def _divisor(value: Any) -> int:
    if isinstance(value, bool) or value not in (1000, 1024):
        raise ConfigurationError(f"unit_divisor: 1000 or 1024 is needed, not {value!r}"[:200])
    return int(value)


def _number(name: str, value: Any) -> float:
    """Return a finite number from 0."""
    if not isinstance(value, bool) and not isinstance(value, (str, bytes)):
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if math.isfinite(number) and number >= 0:
            return number
    raise ConfigurationError(f"{name}: a number from 0 is needed, not {value!r}"[:200])


def _count(name: str, value: Any) -> int:
    """Return a whole number from 0; a float loses its fraction."""
    if not isinstance(value, bool):
        try:
            whole = operator.index(value)
        except TypeError:
            whole = int(_number(name, value))
        if 0 <= whole <= _MAX_COUNT:
            return whole
    raise ConfigurationError(f"{name}: a whole number from 0 is needed, not {value!r}"[:200])


def _text(name: str, value: Any, limit: int) -> str:
    if not isinstance(value, str):
        raise ConfigurationError(f"{name}: text is needed, not {type(value).__name__}")
    return value[:limit].encode("utf-8", "replace").decode()
