"""Which worker ran what, and when: tasks as bars in the lanes of their workers, with throughput and waiting time. Pure.

Names of workers and types come from a bucket: they are untrusted, and go through `oq_nb.display.safe`.

Imports of the package: `model`, `text`, `safe`, `states`, `times`.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from markupsafe import Markup

from oq_nb.display.safe import EMPTY, as_text, fill, join, quote
from oq_nb.display.states import TONES, state_of, tone_of_count
from oq_nb.display.times import seconds_text, waited_seconds
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.text import counted, duration, local_time, printable, shorten

__all__ = ["Run", "Timeline", "timeline_of"]

_LANES = 12  # workers that are drawn, the busiest first
_ROWS = 4  # of a lane: tasks that ran at the same time
_BARS = 600
_WIDTH, _LABEL, _ROW, _GAP = 760, 150, 11, 7
_COLUMNS = 60  # of a lane in a terminal
_BINS = 60
_SHORTEST_SECONDS = 60.0  # that are shown


@dataclass(frozen=True)
class Run:
    """The last attempt at a task. Its names are untrusted text."""

    task_id: str
    task_type: str
    worker_id: str
    started_at: datetime
    #: None while it runs.
    ended_at: datetime | None
    #: The task's state, one of `oq_nb.display.states.STATES`.
    state: str
    #: Seconds that it waited for a worker; None for a loop.
    waited_seconds: float | None = None


@dataclass(frozen=True)
class Timeline:
    """What ran in a stretch of time; shows itself in a notebook and as text.

    Earlier attempts at a task that was tried again are not in it, and tasks that another program ran are only when they
    run now: their objects do not say when the last attempt began.
    """

    runs: tuple[Run, ...]
    start: datetime
    end: datetime
    #: Tasks that ended in the stretch and were read, also those whose attempts are not known.
    ended: int = 0
    #: How many of these did not complete.
    unhappy: int = 0
    #: Whether there is more than was read.
    is_partial: bool = False

    @property
    def waited(self) -> list[float]:
        """Seconds that the tasks which were started in the stretch waited for a worker; ascending."""
        return sorted(
            run.waited_seconds for run in self.runs if run.waited_seconds is not None and run.started_at >= self.start
        )

    @property
    def per_minute(self) -> float:
        """Tasks that ended, a minute."""
        return self.ended / max(1e-9, (self.end - self.start).total_seconds() / 60)

    @cached_property
    def shown_from(self) -> datetime:
        """Where the picture begins: with the first run, where that began within the stretch."""
        first = min((run.started_at for run in self.runs), default=self.start)
        return min(max(self.start, first), self.end - timedelta(seconds=_SHORTEST_SECONDS))

    @property
    def ended_by_bin(self) -> list[int]:
        """How many runs ended in each sixtieth of what is shown."""
        bins = [0] * _BINS
        for run in self.runs:
            if run.ended_at is not None and self.shown_from <= run.ended_at <= self.end:
                bins[min(_BINS - 1, int(self._share(run.ended_at) * _BINS))] += 1
        return bins

    @property
    def summary(self) -> str:
        """Throughput and waiting time in a line."""
        parts = [f"{counted(self.ended, 'task')} ended in {duration((self.end - self.start).total_seconds())}"]
        if self.ended:
            parts[0] += f" ({self.per_minute:.3g} per minute)"
        if self.unhappy:
            parts.append(f"{self.unhappy:,} of them failed, expired or were cancelled")
        waited = self.waited
        if waited:
            middle, worst = statistics.median(waited), waited[-1]
            parts.append(f"waited {seconds_text(middle)} in the median, {seconds_text(worst)} at most")
        if self.is_partial:
            parts.append("only the newest were read")
        return "; ".join(parts)

    @property
    def lanes(self) -> list[tuple[str, list[Run]]]:
        """The runs by worker: the worker that ran longest first."""
        found: dict[str, list[Run]] = {}
        for run in sorted(self.runs, key=lambda run: run.started_at):
            found.setdefault(run.worker_id, []).append(run)
        return sorted(found.items(), key=lambda lane: -self.busy_seconds(lane[1]))

    def busy_seconds(self, runs: Iterable[Run]) -> float:
        """Return for how long at least one of these ran, within the stretch."""
        busy, until = 0.0, self.start
        for run in sorted(runs, key=lambda run: run.started_at):
            begin, end = max(run.started_at, until), min(run.ended_at or self.end, self.end)
            if end > begin:
                busy += (end - begin).total_seconds()
                until = end
        return busy

    def __repr__(self) -> str:
        return f"<Timeline {self.summary}>"

    def __str__(self) -> str:
        whole = (self.end - self.shown_from).total_seconds()
        lines = [f"{local_time(self.shown_from, self.end)} to {local_time(self.end, self.end)}: {self.summary}"]
        for worker_id, runs in self.lanes[:_LANES]:
            share = 100 * self.busy_seconds(runs) / whole
            name = printable(shorten(worker_id, 24))
            lines.append(f"{name:<24} {self._text_lane(runs)} {counted(len(runs), 'task')}, busy {share:.0f} %")
        return "\n".join(lines)

    def _text_lane(self, runs: Sequence[Run]) -> str:
        cells = ["·"] * _COLUMNS
        for run in runs:
            first = int(self._share(run.started_at) * (_COLUMNS - 1))
            last = int(self._share(run.ended_at or self.end) * (_COLUMNS - 1))
            sign = "x" if _tone(run) == "bad" else "█"
            for column in range(first, last + 1):
                cells[column] = sign if cells[column] != "x" else "x"
        return "".join(cells)

    def _share(self, instant: datetime) -> float:
        begin = self.shown_from
        share = (instant - begin).total_seconds() / (self.end - begin).total_seconds()
        return min(1.0, max(0.0, share))

    def _repr_html_(self) -> str:
        return as_text(self.html())

    def html(self) -> Markup:
        """Return it as HTML that stands without a script."""
        more = len(self.lanes) - _LANES
        return fill(
            '<div style="max-width:{}px"><div>{}</div>{}{}</div>',
            _WIDTH,
            self.summary,
            self._svg() if self.runs else EMPTY,
            fill("<div>and {} more</div>", counted(more, "worker")) if more > 0 else EMPTY,
        )

    def _svg(self) -> Markup:
        parts: list[Markup] = []
        y, drawn = 4, 0
        for worker_id, runs in self.lanes[:_LANES]:
            rows = _rows_of(runs)
            height = _ROW * len(rows)
            parts.append(
                fill(
                    '<text x="{}" y="{}" text-anchor="end">{}</text>',
                    _LABEL - 8,
                    y + _ROW - 1,
                    quote(worker_id, 22),
                )
            )
            parts.append(
                fill(
                    '<rect x="{}" y="{}" width="{}" height="{}" fill="currentColor" fill-opacity=".06"/>',
                    _LABEL,
                    y,
                    _WIDTH - _LABEL,
                    height,
                )
            )
            for number, row in enumerate(rows):
                for run in row[: max(0, _BARS - drawn)]:
                    parts.append(self._bar(run, y + number * _ROW))
                    drawn += 1
            y += height + _GAP
        parts.append(self._throughput(y))
        y += 34
        parts.append(self._ends(y))
        return fill(
            '<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            'style="max-width:100%;height:auto;font-size:11px" fill="currentColor"><title>{title}</title>{parts}</svg>',
            width=_WIDTH,
            height=y + 6,
            title=f"Which worker ran what: {self.summary}",
            parts=join(parts),
        )

    def _x(self, instant: datetime) -> float:
        return round(_LABEL + (_WIDTH - _LABEL) * self._share(instant), 1)

    def _bar(self, run: Run, y: int) -> Markup:
        left, right = self._x(run.started_at), self._x(run.ended_at or self.end)
        said = run.state
        if run.ended_at is not None:
            said += f", took {seconds_text((run.ended_at - run.started_at).total_seconds())}"
        if run.waited_seconds is not None:
            said += f", waited {seconds_text(run.waited_seconds)}"
        return fill(
            '<rect x="{}" y="{}" width="{}" height="{}" rx="1.5" fill="{}"><title>{} {}: {}, started {}</title></rect>',
            left,
            y + 1,
            max(1.5, round(right - left, 1)),
            _ROW - 2,
            TONES[_tone(run)].colour,
            quote(run.task_type, 60),
            run.task_id[:8],
            said,
            local_time(run.started_at, self.end),
        )

    def _throughput(self, y: int) -> Markup:
        """Return how many ended when, as columns."""
        bins = self.ended_by_bin
        most = max(bins) or 1
        step = (_WIDTH - _LABEL) / _BINS
        columns = [
            fill(
                '<rect x="{}" y="{}" width="{}" height="{}" fill-opacity=".45"/>',
                round(_LABEL + number * step, 1),
                round(y + 22 - 20 * count / most, 1),
                round(step - 1, 1),
                round(20 * count / most, 1),
            )
            for number, count in enumerate(bins)
            if count
        ]
        said = fill('<text x="{}" y="{}" text-anchor="end">ended, {} at most</text>', _LABEL - 8, y + 20, max(bins))
        return join([said, *columns])

    def _ends(self, y: int) -> Markup:
        return fill(
            '<text x="{}" y="{y}">{}</text><text x="{}" y="{y}" text-anchor="end">{}</text>',
            _LABEL,
            local_time(self.shown_from, self.end, seconds=False),
            _WIDTH,
            local_time(self.end, self.end, seconds=False),
            y=y,
        )


def timeline_of(
    records: Iterable[TaskRecord], now: datetime, *, seconds: float = 3600.0, is_partial: bool = False
) -> Timeline:
    """Return what ran in the last stretch of time.

    Args:
        records: tasks; those that did not run then are left out.
        now: the store's time.
        seconds: length of the stretch.
        is_partial: whether there are more tasks than these.
    """
    start = now - timedelta(seconds=seconds)
    runs: list[Run] = []
    ended = unhappy = 0
    for record in records:
        if record.ended_at is not None and record.ended_at >= start and record.attempt:
            ended += 1
            unhappy += record.status not in (TaskStatus.COMPLETED, TaskStatus.ARCHIVED)
        run = _run_of(record, now)
        if run is not None and run.started_at <= now and (run.ended_at is None or run.ended_at >= start):
            runs.append(run)
    return Timeline(tuple(runs), start, now, ended, unhappy, is_partial)


def _run_of(record: TaskRecord, now: datetime) -> Run | None:
    """Return the last attempt at a task; None when it never ran, waits to run again, or nobody knows when it began."""
    worker_id = record.worker_id or record.last_worker_id
    started_at = record.started_at
    if record.status is TaskStatus.PENDING or worker_id is None:
        return None
    if started_at is None:
        if record.status is not TaskStatus.RUNNING:
            return None
        started_at = record.available_at  # another program claimed it; it cannot have begun before
    ended_at = record.ended_at if record.status is not TaskStatus.ARCHIVED else record.completed_at
    if ended_at is not None and ended_at < started_at:
        return None
    if ended_at is None and record.status is not TaskStatus.RUNNING:
        return None
    return Run(
        record.id,
        record.task_type,
        worker_id,
        started_at,
        ended_at,
        state_of(record, now),
        waited_seconds(record),
    )


def _tone(run: Run) -> str:
    return "running" if run.ended_at is None else tone_of_count(run.state)


def _rows_of(runs: Sequence[Run]) -> list[list[Run]]:
    """Return a worker's runs in rows, those that ran at the same time below each other; the last row takes the rest."""
    rows: list[list[Run]] = []
    for run in runs:
        for row in rows:
            last = row[-1].ended_at
            if last is not None and last <= run.started_at:
                row.append(run)
                break
        else:
            if len(rows) < _ROWS:
                rows.append([run])
            else:
                rows[-1].append(run)
    return rows
