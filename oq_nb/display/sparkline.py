"""Small curves of a task's numbers: as SVG, and in block characters for a terminal. Pure.

Names of metrics come from a bucket: they are untrusted, and go through `oq_nb.display.safe` or `oq_nb.text.printable`.
Where a page takes SVG away (GitHub does, and so do notebooks that are not trusted), name and value stay.

Imports of the package: `model`, `text`, `safe`, `states` (for its colours).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from oq_nb.display.safe import EMPTY, fill, join, quote
from oq_nb.display.states import TONES
from oq_nb.model import Progress, Series, read_metrics, read_series
from oq_nb.text import printable, rate_text, shorten

__all__ = [
    "Curve",
    "curves_of",
    "message_beside",
    "number_lines",
    "number_text",
    "numbers_html",
    "spark_svg",
    "spark_text",
]

_BLOCKS = "▁▂▃▄▅▆▇█"
_CELLS = 20  # of a curve in a terminal
_WIDTH, _HEIGHT = 90, 18  # pixels
_SHOWN = 8  # metrics of a task
_NAME_CHARS = 40

_CHIP = (
    '<span style="display:inline-block;max-width:100%;margin-right:1.2em">'
    '<span style="opacity:.75"><bdi>{}</bdi></span> <b>{}</b>{}</span>'
)
_SVG = (
    ' <svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
    'style="vertical-align:middle;max-width:100%"><title>{title}</title>'
    '<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
    '<circle cx="{x}" cy="{y}" r="2" fill="{colour}"/></svg>'
)
_COLOUR = fill("{}", TONES["running"].colour)


@dataclass(frozen=True)
class Curve:
    """A number and its course. Its name is untrusted text."""

    name: str
    #: The newest value, as it is shown.
    value: str
    #: Seconds since the first point, and values; only where there is one.
    points: tuple[tuple[float, float], ...] = ()


def number_text(value: float | None) -> str:
    """Return a number with four significant digits; ``not finite`` for NaN and infinity."""
    return "not finite" if value is None else f"{value:.4g}"


def curves_of(progress: Progress, *, most: int = _SHOWN) -> list[Curve]:
    """Return the metrics of a report, and its rate, as curves: the metrics by their order, the rate last.

    Args:
        progress: what was reported.
        most: so many metrics at most; the rate only where all of them are there.
    """
    newest, series = read_metrics(progress.metrics), read_series(progress.series)
    made = [
        Curve(name, number_text(value), _points(series, series.metrics.get(name, ()) if series else ()))
        for name, value in list(newest.items())[:most]
    ]
    if series is not None and len(newest) <= most and made and not series.is_percent:
        points = _points(series, series.rates)
        if points:
            newest_rate = progress.rate if progress.rate else points[-1][1]
            said = rate_text(newest_rate, progress.unit, progress.unit_divisor) if newest_rate > 0 else "0"
            made.append(Curve("rate", said, points))
    return made


def _points(series: Series | None, column: Sequence[float | None]) -> tuple[tuple[float, float], ...]:
    if series is None:
        return ()
    return tuple((at, float(value)) for at, value in zip(series.seconds, column, strict=False) if value is not None)


def spark_text(points: Sequence[tuple[float, float]], cells: int = _CELLS) -> str:
    """Return a curve in block characters, such as ``█▆▅▃▂▁``; empty when there are fewer than two points.

    Args:
        points: times and values.
        cells: characters at most.
    """
    if len(points) < 2:
        return ""
    (begin, _), (end, _) = points[0], points[-1]
    count = min(cells, len(points))
    sums: list[list[float]] = [[] for _ in range(count)]
    for at, value in points:
        share = (at - begin) / (end - begin) if end > begin else 0.0
        sums[min(count - 1, int(share * count))].append(value)
    means: list[float] = []
    for cell in sums:  # one without a point goes on as the one before
        means.append(sum(value / len(cell) for value in cell) if cell else means[-1])
    low, high = min(means), max(means)
    return "".join(_BLOCKS[_level(value, low, high)] for value in means)


def _level(value: float, low: float, high: float) -> int:
    return min(7, int(_share(value, low, high) * 8))


def _share(value: float, low: float, high: float) -> float:
    """Return where a value lies between the least and the greatest, 0 to 1; the middle when they are the same."""
    if high <= low:
        return 0.5
    half = high / 2 - low / 2  # their difference may be more than a number can be
    return min(1.0, max(0.0, (value / 2 - low / 2) / half))


def spark_svg(points: Sequence[tuple[float, float]], title: str = "") -> Markup:
    """Return a curve as SVG; nothing when there are fewer than two points.

    Args:
        points: times and values.
        title: said by a screen reader, and shown by a pointer that rests on it.
    """
    if len(points) < 2:
        return EMPTY
    (begin, _), (end, _) = points[0], points[-1]
    values = [value for _, value in points]
    low, high = min(values), max(values)
    drawn = [
        (
            round(2 + (_WIDTH - 4) * ((at - begin) / (end - begin) if end > begin else 0.0), 1),
            round(_HEIGHT - 2 - (_HEIGHT - 4) * _share(value, low, high), 1),
        )
        for at, value in points
    ]
    return fill(
        _SVG,
        width=_WIDTH,
        height=_HEIGHT,
        title=title,
        points=" ".join(f"{x},{y}" for x, y in drawn),
        colour=_COLOUR,
        x=drawn[-1][0],
        y=drawn[-1][1],
    )


def message_beside(progress: Progress) -> str:
    """Return a report's message without the metrics that tqdm's postfix says in it: they are shown as numbers."""
    names = read_metrics(progress.metrics)
    parts = (progress.message or "").split(", ")
    return ", ".join(part for part in parts if part.partition("=")[0] not in names or "=" not in part)


def numbers_html(progress: Progress, *, most: int = _SHOWN) -> Markup:
    """Return the metrics of a report in a line, each with its newest value and its curve; nothing without metrics.

    Args:
        progress: what was reported.
        most: so many at most.
    """
    curves = curves_of(progress, most=most)
    if not curves:
        return EMPTY
    return fill('<div style="line-height:1.8">{}</div>', join(_chips(curves)))


def _chips(curves: Sequence[Curve]) -> Iterator[Markup]:
    for curve in curves:
        title = ""
        if curve.points:
            low, high = (number_text(pick(value for _, value in curve.points)) for pick in (min, max))
            title = f"{printable(shorten(curve.name, _NAME_CHARS))}: {low} to {high}"
        yield fill(_CHIP, quote(curve.name, _NAME_CHARS), curve.value, spark_svg(curve.points, title))


def number_lines(progress: Progress) -> list[str]:
    """Return a line for each metric, such as ``loss 0.31 █▆▅▃▂▁ (2.3 to 0.31)``."""
    lines: list[str] = []
    for curve in curves_of(progress):
        parts = [printable(shorten(curve.name, _NAME_CHARS)), curve.value]
        if drawn := spark_text(curve.points):
            values = [value for _, value in curve.points]
            parts += [drawn, f"({number_text(min(values))} to {number_text(max(values))})"]
        lines.append(" ".join(parts))
    return lines
