"""Numbers over time in little space: the newest value of each metric, and a thinned-out series of each. Pure.

A report adds a point: where the task is, and the metrics that were given. When there are more than 60 points (fewer
with many metrics, so that all of it stays below 4 KiB), the stretch of time that a point stands for is doubled, or
more, and the points of each stretch become one. So the points stay evenly spread over the attempt, however long it
takes, and the cost of a report does not grow.

Invariants:

* The first point and the newest one are always there.
* A point has the newest value of its stretch of each metric that was given in it, so that a metric that is given rarely
  does not vanish.
* JSON has no NaN and no infinity: a metric with such a value is null until it is a finite number again.
* What is read from a bucket may be anything: `read_series` and `read_metrics` return what can be used of it.

Imports nothing of the package but `errors` and this room's `codec` and `timestamps`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from oq_nb.errors import ConfigurationError
from oq_nb.model.codec import to_json
from oq_nb.model.timestamps import Timestamp

__all__ = [
    "MAX_BYTES",
    "MAX_METRICS",
    "MAX_NAME_BYTES",
    "MAX_POINTS",
    "Series",
    "SeriesRecorder",
    "check_metrics",
    "read_metrics",
    "read_series",
    "usable_metrics",
]

MAX_POINTS = 60
#: Of the JSON of `metrics` and `series` together.
MAX_BYTES = 4096
MAX_METRICS = 16
MAX_NAME_BYTES = 40

_POINT_BYTES = 24  # a time and a position, at most, with their commas
_VALUE_BYTES = 13  # -1.2346e+100, and a comma
_EXACT_BYTES = 26  # of a newest value, which is not rounded
_FRAME_BYTES = 140  # the names of the fields, brackets, the first instant
_SMALLEST = 1e-99
_MOST_READ = 10_000  # points, of a series that others have written

#: A number, or None where there was none, or none that JSON has.
Value = float | None


@dataclass(frozen=True)
class Series:
    """Numbers over time. All columns are as long as `seconds`; None stands where there was no number."""

    #: When the first point was reported, by the store's clock.
    start: datetime
    #: Of each point, since `start`; ascending.
    seconds: tuple[float, ...] = ()
    #: The item reached; else the percentage, where the task counts no items.
    position: tuple[Value, ...] = ()
    #: By name: untrusted text.
    metrics: Mapping[str, tuple[Value, ...]] = field(default_factory=dict)
    #: Whether `position` is a percentage.
    is_percent: bool = False

    def __len__(self) -> int:
        return len(self.seconds)

    @property
    def instants(self) -> list[datetime]:
        """When each point was reported."""
        return [self.start + timedelta(seconds=seconds) for seconds in self.seconds]

    @property
    def rates(self) -> tuple[Value, ...]:
        """Items per second from the point before to this one; None where that cannot be told."""
        made: list[Value] = []
        before: tuple[float, float] | None = None
        for at, position in zip(self.seconds, self.position, strict=True):
            rate: Value = None
            if position is not None:
                if before is not None and at > before[0] and position >= before[1]:
                    rate = (position - before[1]) / (at - before[0])
                before = (at, position)
            made.append(rate)
        return tuple(made)


class SeriesRecorder:
    """Collects the numbers of one attempt. Not for several threads at once.

    It keeps columns, as they are stored: most reports are never written, and so a report must cost little.
    """

    def __init__(self) -> None:
        self._start: datetime | None = None
        self._start_text = ""
        self._seconds: list[float] = []
        self._current: list[Value] | None = None
        self._percent: list[Value] | None = None
        self._columns: dict[str, list[Value]] = {}  # of the metrics
        self._stretch = 0.0  # seconds that a point stands for
        self._newest: dict[str, Value] = {}
        self._given: dict[str, int] = {}  # in which report each metric was given last
        self._reports = 0
        self._limit = MAX_POINTS

    def add(
        self,
        at: datetime,
        *,
        current: int | None = None,
        percent: float | None = None,
        metrics: Mapping[str, Value] | None = None,
    ) -> None:
        """Add a point.

        Args:
            at: the store's time.
            current: the item reached.
            percent: 0 to 100.
            metrics: as `check_metrics` returns them; those that are left out keep their values.
        """
        if current is None and percent is None and not metrics:
            return
        if self._start is None:
            self._start, self._start_text = at, Timestamp.of(at).text
        self._add_place(_short_time((at - self._start).total_seconds()))
        if current is not None:
            if self._current is None:
                self._current = self._new_column()
            self._current[-1] = _rounded(current)
        elif percent is not None:  # it says nothing that the item does not
            if self._percent is None:
                self._percent = self._new_column()
            self._percent[-1] = _rounded(percent)
        if metrics:
            self._add_metrics(metrics)
        if len(self._seconds) > self._limit:
            self._thin_out()

    def _add_place(self, seconds: float) -> None:
        """Make room for a point: one more, or the last one again when this is in the same stretch of time."""
        count = len(self._seconds)
        last = self._seconds[-1] if count else -1.0
        if seconds <= last:  # at once, or the clock was set back
            return
        if count > 1 and self._stretch and math.ceil(last / self._stretch) == math.ceil(seconds / self._stretch):
            self._seconds[-1] = seconds
            return
        self._seconds.append(seconds)
        for column in self._all_columns():
            column.append(None)

    def _new_column(self) -> list[Value]:
        return [None] * len(self._seconds)

    def _all_columns(self) -> Iterator[list[Value]]:
        if self._current is not None:
            yield self._current
        if self._percent is not None:
            yield self._percent
        yield from self._columns.values()

    def _add_metrics(self, metrics: Mapping[str, Value]) -> None:
        self._reports += 1
        is_known = True
        for name, value in metrics.items():
            if name not in self._columns:
                is_known, self._columns[name] = False, self._new_column()
            self._columns[name][-1] = _rounded(value)
            self._newest[name], self._given[name] = value, self._reports
        if is_known:
            return
        while len(self._newest) > MAX_METRICS:  # the one that has not been given for longest goes
            oldest = min(self._given, key=lambda name: self._given[name])
            del self._newest[oldest], self._given[oldest], self._columns[oldest]
        names = sum(len(to_json(name)) + 4 for name in self._newest)
        room = MAX_BYTES - _FRAME_BYTES - 2 * names - _EXACT_BYTES * len(self._newest)
        self._limit = max(4, min(MAX_POINTS, room // (_POINT_BYTES + _VALUE_BYTES * len(self._newest))))

    def _thin_out(self) -> None:
        """Make longer stretches, and one point of each: its newest time, and the newest value of each column."""
        self._stretch = max(2 * self._stretch, self._seconds[-1] / (self._limit // 2))
        groups: list[range] = [range(1)]  # the first point stays by itself
        for index in range(1, len(self._seconds)):
            begin = groups[-1].start
            is_same = begin > 0 and math.ceil(self._seconds[begin] / self._stretch) == math.ceil(
                self._seconds[index] / self._stretch
            )
            if is_same:
                groups[-1] = range(begin, index + 1)
            else:
                groups.append(range(index, index + 1))
        self._seconds = [self._seconds[group[-1]] for group in groups]
        for column in self._all_columns():
            column[:] = [
                next((column[index] for index in reversed(group) if column[index] is not None), None)
                for group in groups
            ]

    @property
    def metrics(self) -> dict[str, Value] | None:
        """The newest value of each metric; None when there is none."""
        return dict(self._newest) or None

    @property
    def series(self) -> dict[str, Any] | None:
        """The points as they are stored, see docs/reference/json.md; None as long as there are fewer than two."""
        if len(self._seconds) < 2:
            return None
        made: dict[str, Any] = {"start": self._start_text, "seconds": self._seconds.copy()}
        if self._current is not None:
            made["current"] = self._current.copy()
        elif self._percent is not None:
            made["percent"] = self._percent.copy()
        if self._columns:
            made["metrics"] = {name: column.copy() for name, column in self._columns.items()}
        return made


def check_metrics(metrics: Any) -> dict[str, Value]:
    """Return a handler's metrics as numbers that JSON has; what is NaN or infinite becomes None.

    Raises:
        ConfigurationError: it is no mapping from names to numbers; the message names the argument.
    """
    if not isinstance(metrics, Mapping):
        raise ConfigurationError(
            f'metrics: numbers by name are needed, such as {{"loss": 0.31}}, not {metrics!r}'[:200]
        )
    if len(metrics) > MAX_METRICS:
        raise ConfigurationError(f"metrics: at most {MAX_METRICS} are kept, not {len(metrics):,}")
    made: dict[str, Value] = {}
    for name, value in metrics.items():
        if not _is_name(name):
            raise ConfigurationError(
                f"metrics: a name of 1 to {MAX_NAME_BYTES} characters (bytes in UTF-8) is needed, not {name!r}"[:200]
            )
        try:
            made[name] = _finite(value)
        except TypeError:
            raise ConfigurationError(f"metrics: for {name!r} a number is needed, not {value!r}"[:200]) from None
    return made


def usable_metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Return what can be kept of numbers that were given for something else, such as tqdm's postfix.

    Args:
        values: by name.

    Returns:
        What `check_metrics` accepts; ``math.nan`` for what is NaN or infinite.
    """
    made: dict[str, float] = {}
    for name, value in values.items():
        if len(made) == MAX_METRICS:
            break
        if _is_name(name):
            try:
                number = _finite(value)
            except TypeError:
                continue
            made[name] = math.nan if number is None else number
    return made


def read_metrics(stored: Any) -> dict[str, Value]:
    """Return the numbers that are stored under ``progress.metrics``; empty when it is anything else."""
    if not isinstance(stored, dict):
        return {}
    return {name: _number(value) for name, value in list(stored.items())[:MAX_METRICS] if isinstance(name, str)}


def read_series(stored: Any) -> Series | None:
    """Return what is stored under ``progress.series``; None when it is not a series of two points at least."""
    if not isinstance(stored, dict):
        return None
    seconds, columns = stored.get("seconds"), stored.get("metrics")
    if not isinstance(seconds, list) or not 2 <= len(seconds) <= _MOST_READ:
        return None
    times = [_number(value) for value in seconds]
    if any(value is None for value in times):
        return None
    whole = [float(value or 0) for value in times]
    if any(later < earlier for earlier, later in pairwise(whole)) or not whole[-1] < 1e10:
        return None
    try:
        start = Timestamp.parse(stored.get("start"))
        _ = start + timedelta(seconds=whole[-1])
    except (ValueError, OverflowError):
        return None
    found = columns.items() if isinstance(columns, dict) else ()
    metrics = {
        name: column
        for name, values in list(found)[:MAX_METRICS]
        if isinstance(name, str) and (column := _column(values, len(whole))) is not None
    }
    current, percent = (_column(stored.get(name), len(whole)) for name in ("current", "percent"))
    return Series(
        start,
        tuple(whole),
        current or percent or (None,) * len(whole),
        metrics,
        is_percent=current is None and percent is not None,
    )


def _column(stored: Any, length: int) -> tuple[Value, ...] | None:
    if not isinstance(stored, list) or len(stored) != length:
        return None
    return tuple(_number(value) for value in stored)


def _number(stored: Any) -> Value:
    if isinstance(stored, bool) or not isinstance(stored, (int, float)):
        return None
    try:
        return stored if math.isfinite(float(stored)) else None
    except OverflowError:
        return None


def _is_name(name: Any) -> bool:
    try:
        return isinstance(name, str) and bool(name) and len(to_json(name)) - 2 <= MAX_NAME_BYTES
    except ValueError:  # half of a character
        return False


def _finite(value: Any) -> Value:
    """Return a number that JSON has, None for NaN and infinity.

    Raises:
        TypeError: it is not a number.
    """
    if isinstance(value, (bool, str, bytes, bytearray)) or value is None:
        raise TypeError
    try:
        number = float(value)
    except OverflowError:
        return None
    except ValueError as exc:
        raise TypeError from exc
    if not math.isfinite(number):
        return None
    return int(value) if isinstance(value, int) and abs(number) < 2**53 else number


def _rounded(value: Value) -> Value:
    """Return a number with five significant digits."""
    if value is None or abs(value) < _SMALLEST:
        return None if value is None else 0
    made = float(f"{value:.5g}")
    return int(made) if made.is_integer() and abs(made) < 1e8 else made


def _short_time(seconds: float) -> float:
    return float(_rounded(round(seconds, 3)) or 0) if seconds < 1e4 else round(seconds, 1)
