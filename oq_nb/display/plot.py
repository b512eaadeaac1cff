"""A task's versions plotted over time: a pure function to SVG, which stands as HTML does in `markup`.

Imports of the package: `model`, `text`, `safe`, `view`, `markup` (for its colours).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from oq_nb.display import view
from oq_nb.display.markup import COLOURS
from oq_nb.display.safe import EMPTY, fill, join
from oq_nb.display.states import status_view
from oq_nb.model import TaskRecord
from oq_nb.text import counted, duration, local_time

__all__ = ["history_svg"]


_LINE = '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="{}" {}/>'
_FAINT = Markup('stroke-opacity=".2"')
_DASHED = Markup('stroke-dasharray="3 3"')
_SHOWN_CHANGES = 20


@dataclass(frozen=True)
class _Scale:
    """Where an instant and a percentage are drawn."""

    start: datetime
    seconds: float
    width: int
    height: int

    left, top = 40, 12

    @property
    def right(self) -> int:
        return self.width - 12

    @property
    def bottom(self) -> int:
        return self.height - 28

    def x(self, instant: datetime) -> float:
        share = (instant - self.start).total_seconds() / self.seconds
        return round(self.left + (self.right - self.left) * share, 1)

    def y(self, percent: float) -> float:
        return round(self.bottom - (self.bottom - self.top) * percent / 100, 1)


def history_svg(
    versions: Sequence[TaskRecord], *, first_number: int = 1, width: int = 640, height: int = 160
) -> Markup:
    """Return a task's versions plotted over time: percent as a line, changes of status as marks, a table to read.

    Args:
        versions: oldest first.
        first_number: of the first of them.
        width: pixels.
        height: pixels.
    """
    if not versions:
        return EMPTY
    start, end = versions[0].updated_at, versions[-1].updated_at
    scale = _Scale(start, max((end - start).total_seconds(), 0.001), width, height)
    changed = list(_changes(versions, first_number))
    return fill(
        '<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'style="max-width:100%;height:auto;font-size:11px" fill="currentColor"><title>{title}</title>{shapes}</svg>'
        '<ol style="list-style:none;padding-left:0;margin:.2em 0;line-height:1.6">{changes}</ol>',
        width=width,
        height=height,
        title=f"Progress of task {versions[0].id[:8]} over {duration((end - start).total_seconds())}, "
        f"{counted(len(versions), 'version')}",
        shapes=join(
            [_grid(scale), *_curves(versions, scale), *(_mark(r, scale) for _, r, _ in changed), _ends(scale, end)]
        ),
        changes=_list(changed),
    )


def _grid(scale: _Scale) -> Markup:
    parts: list[Markup] = []
    for percent in (0, 50, 100):
        y = scale.y(percent)
        parts.append(fill(_LINE, scale.left, y, scale.right, y, "currentColor", _FAINT))
        parts.append(fill('<text x="{}" y="{}" text-anchor="end">{}%</text>', scale.left - 5, y + 4, percent))
    return join(parts)


def _curves(versions: Sequence[TaskRecord], scale: _Scale) -> Iterator[Markup]:
    colour = COLOURS["running"]
    for run in _runs(versions):
        points = [(scale.x(record.updated_at), scale.y(percent)) for record, percent in run]
        if len(points) > 1:
            path = " ".join(f"{x},{y}" for x, y in points)
            yield fill('<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>', path, colour)
        for x, y in points if len(points) <= 100 else points[-1:]:
            yield fill('<circle cx="{}" cy="{}" r="2.5" fill="{}"/>', x, y, colour)


def _mark(record: TaskRecord, scale: _Scale) -> Markup:
    """Return the line at which an attempt began or the status changed."""
    x = scale.x(record.updated_at)
    tone = status_view(record, record.updated_at).tone
    return fill(_LINE, x, scale.top, x, scale.bottom, COLOURS[tone], _DASHED)


def _ends(scale: _Scale, end: datetime) -> Markup:
    return fill(
        '<text x="{}" y="{y}">{}</text><text x="{}" y="{y}" text-anchor="end">{}</text>',
        scale.left,
        local_time(scale.start, end),
        scale.right,
        local_time(end),
        y=scale.height - 8,
    )


def _changes(versions: Sequence[TaskRecord], first_number: int) -> Iterator[tuple[int, TaskRecord, TaskRecord | None]]:
    """Yield the versions at which an attempt began or the status changed: number, version, the one before."""
    before: TaskRecord | None = None
    for number, record in enumerate(versions, start=first_number):
        if before is None or before.status is not record.status or before.lease_id != record.lease_id:
            yield number, record, before
        before = record


def _list(changed: Sequence[tuple[int, TaskRecord, TaskRecord | None]]) -> Markup:
    items = [
        fill("<li>{} {}</li>", local_time(record.updated_at), view.version_line(number, record, before))
        for number, record, before in changed
    ]
    if len(items) > _SHOWN_CHANGES:
        items = [*items[:3], fill("<li>… {} more …</li>", len(items) - 13), *items[-10:]]
    return join(items)


def _runs(versions: Sequence[TaskRecord]) -> list[list[tuple[TaskRecord, float]]]:
    """Return the points of each attempt: a line does not go on from one attempt to the next."""
    runs: list[list[tuple[TaskRecord, float]]] = []
    lease: object = object()
    for record in versions:
        end = _end_percent(record)
        if end is not None and runs and end > runs[-1][-1][1]:
            runs[-1].append((record, end))
        if record.progress is None or record.progress.percent is None:
            continue
        if record.lease_id != lease:
            lease = record.lease_id
            runs.append([])
        runs[-1].append((record, float(record.progress.percent)))
    return runs


def _end_percent(record: TaskRecord) -> float | None:
    """Return how far an attempt was when it was over, which may be further than its last report that was written."""
    reached = record.last_progress if record.status.is_terminal else record.reached
    if record.is_whole:
        return 100.0
    return None if reached is None or reached.percent is None else float(reached.percent)
