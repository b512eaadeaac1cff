"""A task's numbers over time, as a table and as a figure; pandas and matplotlib are loaded when they are asked for.

Names of metrics come from a bucket: they are untrusted, and drawn as plain text, not as formulas.

Imports of the package: `errors`, `model`, `text`.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from oq_nb.errors import ConfigurationError
from oq_nb.model import TaskRecord, read_metrics, read_series
from oq_nb.text import local_time, printable, shorten

__all__ = ["Table", "figure_of", "frame_of", "table_of", "table_of_history"]

#: Columns of equal length by name; ``time`` is the first one.
Table = dict[str, list[Any]]

_OWN = ("time", "attempt", "current", "percent", "rate")
_ROW_INCHES, _WIDTH_INCHES = 1.7, 8.0


def table_of(record: TaskRecord) -> Table:
    """Return the series that a task has stored, of its present or last attempt; empty columns when there is none."""
    progress = record.last_progress
    series = read_series(progress.series) if progress is not None else None
    if series is None:
        return {"time": []}
    made: Table = {"time": series.instants}
    made["percent" if series.is_percent else "current"] = list(series.position)
    if not series.is_percent:
        made["rate"] = list(series.rates)
    return made | {_column_name(name): list(values) for name, values in series.metrics.items()}


def table_of_history(versions: Sequence[TaskRecord]) -> Table:
    """Return every report in a task's versions: each with its attempt, as it was written.

    Args:
        versions: oldest first.
    """
    rows: list[dict[str, Any]] = []
    seen: tuple[int, datetime] | None = None
    for record in versions:
        progress = record.progress or record.reached
        if progress is None or (record.attempt, progress.updated_at) == seen:
            continue
        seen = (record.attempt, progress.updated_at)
        row = {
            "time": progress.updated_at,
            "attempt": record.attempt,
            "current": progress.current,
            "percent": progress.percent,
            "rate": progress.rate,
        }
        rows.append(row | {_column_name(name): value for name, value in read_metrics(progress.metrics).items()})
    names = dict.fromkeys(name for row in rows for name in row)
    table = {name: [row.get(name) for row in rows] for name in names or ("time",)}
    always = ("time", "attempt")
    return {name: values for name, values in table.items() if name in always or any(v is not None for v in values)}


def _column_name(name: str) -> str:
    return f"metrics.{name}" if name in _OWN else name


def frame_of(table: Table) -> Any:
    """Return a table as a pandas frame with the time as its index; where pandas is not installed, as it is."""
    try:
        import pandas
    except ImportError:
        return table
    index = pandas.DatetimeIndex(pandas.to_datetime(table["time"], utc=True), name="time")
    return pandas.DataFrame({name: values for name, values in table.items() if name != "time"}, index=index)


def figure_of(table: Table, title: str) -> Any:
    """Return a table as a matplotlib figure: the position, the rate, and each metric over local time.

    It is no figure of pyplot: nothing has to be closed, and a notebook shows it once.

    Args:
        table: the numbers.
        title: plain text.

    Raises:
        ConfigurationError: matplotlib is not installed.
    """
    try:
        import matplotlib.dates
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise ConfigurationError("plot: matplotlib is needed: pip install 'oq-nb[plot]'") from exc

    class TaskFigure(Figure):
        def _repr_png_(self) -> bytes:
            body = io.BytesIO()
            self.savefig(body, format="png", dpi=110)
            return body.getvalue()

    columns = _drawn_columns(table)
    figure = TaskFigure(figsize=(_WIDTH_INCHES, 0.8 + _ROW_INCHES * max(1, len(columns))), layout="constrained")
    figure.suptitle(printable(shorten(title, 80)), parse_math=False)
    if not columns:
        figure.text(0.5, 0.4, "It has not reported two numbers yet.", ha="center")
        return figure
    zone = datetime.now().astimezone().tzinfo
    rows = figure.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, values) in zip(rows, columns.items(), strict=True):
        for times, run in _runs(table, values):
            axes.plot(times, run, marker="." if len(run) < 40 else "", linewidth=1.4, color="#1a6fc4")
        axes.set_ylabel(printable(shorten(name, 20)), parse_math=False)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    dates: Any = matplotlib.dates
    locator = dates.AutoDateLocator(tz=zone)
    rows[-1].xaxis.set_major_locator(locator)
    rows[-1].xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=zone))
    rows[-1].set_xlabel(f"{local_time(table['time'][0])} to {local_time(table['time'][-1])}", parse_math=False)
    return figure


def _drawn_columns(table: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the columns with two numbers at least; percentages only where no items are counted."""
    names = [name for name in table if name not in ("time", "attempt")]
    if "current" in names and "percent" in names:
        names.remove("percent")
    return {name: table[name] for name in names if sum(value is not None for value in table[name]) > 1}


def _runs(table: Table, values: Sequence[Any]) -> list[tuple[list[datetime], list[float]]]:
    """Return the points of each attempt: a line does not go on from one attempt to the next."""
    attempts = table.get("attempt") or [0] * len(values)
    runs: dict[int, tuple[list[datetime], list[float]]] = {}
    for at, attempt, value in zip(table["time"], attempts, values, strict=True):
        if value is not None:
            times, run = runs.setdefault(attempt, ([], []))
            times.append(at)
            run.append(value)
    return list(runs.values())
