"""What tasks, workers and queues look like as HTML: pure functions to escaped text with no script and no style sheet.

Invariants:

* Every text from a bucket goes through `escape`, which also makes control and direction characters visible.
* It stands without a kernel, without styles (GitHub takes them away) and without ``aria-`` attributes (so do notebooks
  that are not trusted): a native ``<progress>`` in its ``<label>``, states in words, errors folded in ``<details>``.
* No colour of its own for text and background, so that it reads in light and dark.

Imports of the package: `model`, `text`, `view`.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from oq_nb.display import view
from oq_nb.model import Progress, TaskRecord, TaskStatus, WorkerRecord
from oq_nb.text import duration, printable, shorten

__all__ = [
    "bar",
    "counts_html",
    "error_html",
    "escape",
    "group_html",
    "history_svg",
    "more_html",
    "output_html",
    "progress_html",
    "task_html",
    "task_row",
    "tasks_html",
    "worker_html",
    "workers_html",
]

#: Colours that are readable behind white text, and visible on white and on black.
TONES = {
    "waiting": "#6a6f78",
    "running": "#1a6fc4",
    "good": "#20803c",
    "bad": "#c62f2b",
    "warning": "#a35a00",
    "off": "#75707a",
}
#: Of a bar where the page says that it is dark: with the ones above browsers draw a white track there.
_DARK_TONES = {
    "waiting": "#9a95a0",
    "running": "#4a9be8",
    "good": "#3fb950",
    "bad": "#f0625f",
    "warning": "#d98a20",
    "off": "#9a95a0",
}
_SIGNS = {"waiting": "○", "running": "▶", "good": "✓", "bad": "✗", "warning": "⚠", "off": "–"}
_MUTED = "opacity:.75"
_WRAP = "overflow-wrap:anywhere"
_CELL = "text-align:left;padding:.15em .8em .15em 0;vertical-align:top"
_COLUMNS = {"Status": "9em", "Type": "11%", "Task": "6em", "Progress": "", "Remark": "19%", "Changed": "8em"}
_ERROR_CHARS = 10_000
_OUTPUT_CHARS = 2_000


def escape(text: str, limit: int = 1000, *, keep_newlines: bool = False) -> str:
    """Return text from anywhere as HTML that shows it, and only shows it.

    Args:
        text: anything.
        limit: characters at most.
        keep_newlines: leave line feeds as they are.
    """
    return html.escape(printable(shorten(text, limit), keep_newlines=keep_newlines))


def pill(status: view.StatusView) -> str:
    """Return a status as a sign, a word and a colour."""
    return (
        f'<span style="display:inline-block;padding:0 .6em;border-radius:1em;color:#fff;white-space:nowrap;'
        f'background:{TONES[status.tone]}">{_SIGNS[status.tone]}&nbsp;{html.escape(status.word)}</span>'
    )


def bar(percent: int | None, tone: str = "running", *, said: str = "") -> str:
    """Return a native progress bar; one without a value when ``percent`` is None.

    Args:
        percent: 0 to 100.
        tone: of the colour.
        said: what a screen reader says instead of the percentage; escaped here.
    """
    value = "" if percent is None else f' value="{int(percent)}"'
    spoken = f' aria-valuetext="{html.escape(said)}"' if said else ""
    text = "" if percent is None else f"{int(percent)}%"
    colour = f"accent-color:{TONES[tone]};accent-color:light-dark({TONES[tone]},{_DARK_TONES[tone]})"
    return f'<progress max="100"{value}{spoken} style="width:100%;height:1em;{colour}">{text}</progress>'


def task_html(
    record: TaskRecord | None,
    now: datetime,
    *,
    task_id: str | None = None,
    status: view.StatusView | None = None,
    last_progress: Progress | None = None,
    is_live: bool = False,
) -> str:
    """Return a task with its status, bar, counts, message, attempt and worker; without its error and output.

    Args:
        record: the task as last seen; None when it was not seen yet.
        now: the store's time.
        task_id: which task, when there is no record.
        status: what `view.status_view` says of it; None to ask it here.
        last_progress: what it last reported before it ended, when that is known.
        is_live: it is refreshed: instants are given as distances from now, else as dates.
    """
    state = status or view.status_view(record, now)
    parts = [f"<div>{state_line(record, task_id, state, last_progress)}</div>"]
    if record is not None:
        progress = record.progress or (last_progress if record.status is not TaskStatus.PENDING else None)
        if progress is not None and progress.message:
            parts.append(f'<div dir="auto" style="{_WRAP}">{escape(progress.message)}</div>')
        parts.append(
            f'<div style="{_MUTED};{_WRAP}">{" · ".join(_facts(record, progress, now, is_live=is_live))}</div>'
        )
    sign = f"<b>{_SIGNS[state.tone]}</b> " if state.tone in ("warning", "bad") else ""
    parts += [f'<div style="{_WRAP}">{sign}{html.escape(note)}</div>' for note in state.notes]
    return (
        f'<div style="border-left:4px solid {TONES[state.tone]};padding:.1em 0 .1em .8em;margin:.2em 0;max-width:46em;'
        f'line-height:1.6">{"".join(parts)}</div>'
    )


def state_line(
    record: TaskRecord | None, task_id: str | None, state: view.StatusView, last_progress: Progress | None = None
) -> str:
    """Return status, type, short id and bar; the bar's label names the task and says how far it is."""
    if record is None:
        return f"{pill(state)} <code>{escape((task_id or '')[:8])}</code>"
    name = f'<b><bdi>{escape(record.task_type, 100)}</bdi></b> <code title="{record.id}">{record.id[:8]}</code>'
    progress = record.progress
    line = view.progress_line(progress) if progress is not None else ""
    if record.status is TaskStatus.RUNNING:
        percent = progress.percent if progress is not None else None
        said = html.escape(line) if progress is not None else "no report yet"
        drawn = bar(percent, state.tone, said=f"{line}, {state.word}" if line else state.word)
    elif record.status is TaskStatus.COMPLETED:
        said, drawn = "100%", bar(100, state.tone)
    elif record.status.is_terminal and last_progress is not None and last_progress.percent is not None:
        said, drawn = f"stopped at {last_progress.percent}%", bar(last_progress.percent, state.tone)
    else:
        return f"{pill(state)} {name}"
    return f'<label style="display:block">{pill(state)} {name} · <span>{said}</span><br>{drawn}</label>'


def _facts(record: TaskRecord, progress: Progress | None, now: datetime, *, is_live: bool) -> list[str]:
    facts: list[str] = []
    ended_at = record.completed_at or record.cancelled_at or record.expired_at
    if record.status.is_terminal:
        when = ended_at or record.updated_at
        facts.append(f"ended {_when(when, now, is_live=is_live)}")
        facts.append(f"{duration((when - record.created_at).total_seconds())} after it was submitted")
    elif progress is not None:
        facts.append(f"updated {_when(progress.updated_at, now, is_live=is_live)}")
    elif record.status is TaskStatus.RUNNING:
        facts.append(f"started or renewed {_when(record.updated_at, now, is_live=is_live)}")
    else:
        facts.append(f"submitted {_when(record.created_at, now, is_live=is_live)}")
    if record.attempt > 1 or record.retry_count:
        facts.append(f"attempt {record.attempt}, retry {record.retry_count} of {record.max_retries}")
    elif record.attempt:
        facts.append(f"attempt {record.attempt}")
    if record.worker_id:
        facts.append(f"worker <bdi>{escape(record.worker_id, 80)}</bdi>")
    return facts


def _when(instant: datetime, now: datetime, *, is_live: bool) -> str:
    return view.ago(instant, now) if is_live else f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def more_html(record: TaskRecord) -> str:
    """Return a task's error and output, to stand below `task_html`; nothing when it has neither."""
    more = error_html(record) + output_html(record)
    return f'<div style="padding-left:calc(4px + .8em);max-width:46em">{more}</div>' if more else ""


def error_html(record: TaskRecord) -> str:
    """Return a task's last error, folded; nothing when it has none or says it elsewhere."""
    if not record.last_error or record.status is TaskStatus.CANCELLED:
        return ""
    lines = record.last_error.strip().splitlines() or [""]
    summary = next((line for line in reversed(lines) if line and not line.startswith((" ", "\t"))), lines[0])
    first = escape(summary.strip(), 200)
    body = escape(record.last_error, _ERROR_CHARS, keep_newlines=True)
    return _folded(f"Last error: {first}", body)


def output_html(record: TaskRecord) -> str:
    """Return what a completed task returned, folded when it is long."""
    if record.status is not TaskStatus.COMPLETED:
        return ""
    if record.output_ref is not None:
        return f'<div style="{_MUTED}">Its output is large and held apart: <code>task.output</code> reads it.</div>'
    if record.output is None:
        return ""
    text = json.dumps(record.output, ensure_ascii=False)
    if len(text) <= 100:
        return f'<div style="{_WRAP}">Output: <code>{escape(text)}</code></div>'
    return _folded(f"Output: <code>{escape(text, 80)}</code>", escape(text, _OUTPUT_CHARS))


def _folded(summary: str, body: str) -> str:
    return (
        f'<details style="{_WRAP};line-height:1.6"><summary style="cursor:pointer">{summary}</summary>'
        f'<pre style="white-space:pre-wrap;{_WRAP};max-height:24em;overflow:auto;margin:.3em 0">{body}</pre></details>'
    )


def progress_html(progress: Progress) -> str:
    """Return progress alone."""
    message = f'<div dir="auto" style="{_WRAP}">{escape(progress.message)}</div>' if progress.message else ""
    line = html.escape(view.progress_line(progress))
    return (
        f'<div style="max-width:46em"><label style="display:block">{line}<br>{bar(progress.percent, said=line)}</label>'
        f'{message}<div style="{_MUTED}">updated {progress.updated_at:%Y-%m-%d %H:%M:%S} UTC</div></div>'
    )


# --- a queue


def counts_html(counts: Mapping[str, int], uncounted: int | None = None) -> str:
    """Return tasks by status, as signs, words and numbers."""
    tones = {"running": "running", "completed": "good", "failed": "bad", "expired": "bad", "pending": "waiting"}
    order = ["running", "pending", "completed", "failed", "cancelled", "expired", "archived"]
    shown = [name for name in order if counts.get(name) or name in ("running", "pending")]
    pills = []
    for name in shown:
        tone = tones.get(name, "off")
        pills.append(
            f'<span style="white-space:nowrap;border:1px solid {TONES[tone]};border-radius:1em;padding:0 .6em">'
            f"{_SIGNS[tone]} <b>{counts.get(name, 0):,}</b> {name}</span>"
        )
    if uncounted:
        pills.append(f'<span style="{_MUTED};white-space:nowrap">and {uncounted:,} that ended earlier</span>')
    return f'<div style="line-height:2">{" ".join(pills)}</div>'


def task_row(record: TaskRecord, now: datetime, *, is_live: bool = True, link: str | None = None) -> str:
    """Return a task as a row of a table: status, type, id, bar, what there is to say.

    Args:
        record: the task.
        now: the store's time.
        is_live: it is refreshed: instants are given as distances from now, else as dates.
        link: where its id leads, with ``{}`` for the id; the row is marked with the id then, too.
    """
    state = view.status_view(record, now)
    progress = record.progress
    middle, remark = "", ""
    if record.status is TaskStatus.RUNNING:
        line = view.progress_line(progress) if progress is not None else "no report yet"
        percent = progress.percent if progress is not None else None
        drawn = f"{bar(percent, state.tone, said=line)}<br>{html.escape(line)}"
        middle = f'<label style="display:block">{drawn}</label>'
        remark = escape(progress.message, 120) if progress is not None and progress.message else ""
    elif record.status is TaskStatus.PENDING:
        middle = html.escape(state.notes[0]) if state.notes else ""
    elif record.last_error:
        remark = html.escape(view.first_line(_last_words(record.last_error), 120))
    elif record.output is not None:
        remark = f"<code>{escape(json.dumps(record.output, ensure_ascii=False), 80)}</code>"
    if record.status is TaskStatus.RUNNING and state.notes:
        remark = html.escape(shorten(state.notes[0], 120))
    cell = f'style="{_CELL};white-space:nowrap"'
    wide = f'style="{_CELL};{_WRAP}"'
    name, mark = f'<code title="{record.id}">{record.id[:8]}</code>', ""
    if link is not None:
        name, mark = f'<a href="{html.escape(link.format(record.id))}">{name}</a>', f' data-key="{record.id}"'
    said = f'<td {wide}>{middle}</td><td {wide}><span dir="auto">{remark}</span></td>'
    if record.status is not TaskStatus.RUNNING:  # there is no bar
        said = f'<td {wide} colspan="2">{middle}<span dir="auto">{remark}</span></td>'
    return (
        f"<tr{mark}><td {cell}>{pill(state)}</td><td {wide}><bdi>{escape(record.task_type, 60)}</bdi></td>"
        f"<td {cell}>{name}</td>{said}"
        f"<td {cell}>{_changed(record.updated_at, now, is_live=is_live)}</td></tr>"
    )


def _changed(instant: datetime, now: datetime, *, is_live: bool) -> str:
    """Return an instant for a narrow column: its time on the day of ``now``, else its date."""
    if is_live:
        return view.ago(instant, now)
    shown = f"{instant:%H:%M:%S} UTC" if instant.date() == now.date() else f"{instant:%Y-%m-%d}"
    return f'<span title="{instant:%Y-%m-%d %H:%M:%S} UTC">{shown}</span>'


def _last_words(error: str) -> str:
    """Return the line of a traceback that says what it was."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith((" ", "\t"))), lines[0] if lines else "")


def tasks_html(
    records: Iterable[TaskRecord], now: datetime, *, caption: str, is_live: bool = True, link: str | None = None
) -> str:
    """Return tasks as a table; ``caption`` is not escaped; ``link`` as for `task_row`."""
    rows = "".join(task_row(record, now, is_live=is_live, link=link) for record in records)
    side = "text-align:left;box-sizing:border-box;padding:0 .8em 0 0"
    head = "".join(
        f'<th scope="col" style="{side}{f";width:{width}" if width else ""}">{name}</th>'
        for name, width in _COLUMNS.items()
    )
    body = rows or f'<tr><td colspan="6" style="text-align:left;{_MUTED}">none</td></tr>'
    return (
        f'<table style="border-collapse:collapse;width:100%;table-layout:fixed;line-height:1.5">'
        f'<caption style="text-align:left;padding-top:.5em;{_MUTED}">{caption}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def workers_html(workers: Sequence[WorkerRecord], now: datetime, *, limit: int = 20) -> str:
    """Return the registered workers with their last heartbeats; silent ones are called so."""
    if not workers:
        return f'<div style="{_MUTED}">No worker is registered.</div>'
    lines = []
    for worker in sorted(workers, key=lambda worker: worker.last_heartbeat, reverse=True)[:limit]:
        silent = (now - worker.last_heartbeat).total_seconds() > 60
        busy = len(worker.current_tasks or ([worker.current_task] if worker.current_task else []))
        types = ", ".join(escape(name, 40) for name in (worker.task_types or [])[:10])
        sign = _SIGNS["warning" if silent else "good"]
        lines.append(
            f'<li style="{_WRAP}"><b>{sign} <bdi>{escape(worker.worker_id, 80)}</bdi></b>'
            f"{' silent' if silent else ''}, heartbeat {view.ago(worker.last_heartbeat, now)}, {busy} running, "
            f"{worker.tasks_completed:,} completed, {worker.tasks_failed:,} failed{f': {types}' if types else ''}</li>"
        )
    more = f"<li>and {len(workers) - limit:,} more</li>" if len(workers) > limit else ""
    return f'<ul style="margin:.2em 0;padding-left:0;list-style:none;line-height:1.6">{"".join(lines)}{more}</ul>'


def worker_html(worker: WorkerRecord, *, is_running: bool, concurrency: int) -> str:
    """Return a worker of this process.

    Args:
        worker: what it would say of itself.
        is_running: whether its threads run.
        concurrency: tasks at a time.
    """
    state = view.StatusView("running", "running") if is_running else view.StatusView("stopped", "off")
    current = worker.current_tasks or []
    types = ", ".join(f"<code>{escape(name, 60)}</code>" for name in worker.task_types or []) or "no handlers yet"
    tasks = ", ".join(f"<code>{escape(task_id, 40)}</code>" for task_id in current[:10])
    hint = "" if is_running else f'<div style="{_MUTED}"><code>worker.start()</code> starts it in the background.</div>'
    runs = f"<div>Runs: {tasks}</div>" if tasks else ""
    return (
        f"<div>{pill(state)} <b>worker <bdi>{escape(worker.worker_id, 80)}</bdi></b></div>"
        f"<div>{len(current)} of {concurrency} busy · {worker.tasks_completed:,} completed · "
        f"{worker.tasks_failed:,} failed</div><div>Handles: {types}</div>{runs}{hint}"
    )


# --- several tasks that are waited for


def group_html(counts: Mapping[str, int], total: int, seconds: float) -> str:
    """Return a bar for a group of tasks.

    Args:
        counts: tasks by status; ``deleted`` for those that are gone.
        total: tasks of the group.
        seconds: since it has been waited for.
    """
    done, line = view.group_line(counts, total, seconds)
    bad = counts.get("failed", 0) + counts.get("expired", 0)
    state = (
        view.StatusView("done", "bad" if bad else "good") if done == total else view.StatusView("waiting", "running")
    )
    percent = done * 100 // total if total else 100
    return (
        f'<div style="border-left:4px solid {TONES[state.tone]};padding:.1em 0 .1em .8em;margin:.2em 0;max-width:46em;'
        f'line-height:1.6"><label style="display:block">{pill(state)} {html.escape(line)}<br>'
        f"{bar(percent, state.tone, said=line)}</label></div>"
    )


# --- history


def history_svg(versions: Sequence[TaskRecord], *, first_number: int = 1, width: int = 640, height: int = 160) -> str:
    """Return a task's versions plotted over time: percent as a line, changes of status as marks, a table to read.

    Args:
        versions: oldest first.
        first_number: of the first of them.
        width: pixels.
        height: pixels.
    """
    if not versions:
        return ""
    start = versions[0].updated_at
    span = max((versions[-1].updated_at - start).total_seconds(), 0.001)
    left, right, top, bottom = 40, width - 12, 12, height - 28

    def place(record: TaskRecord, percent: float) -> tuple[float, float]:
        x = left + (right - left) * (record.updated_at - start).total_seconds() / span
        return round(x, 1), round(bottom - (bottom - top) * percent / 100, 1)

    shapes: list[str] = []
    for percent in (0, 50, 100):
        y = place(versions[0], percent)[1]
        shapes.append(f'<line x1="{left}" y1="{y}" x2="{right}" y2="{y}" stroke="currentColor" stroke-opacity=".2"/>')
        shapes.append(f'<text x="{left - 5}" y="{y + 4}" text-anchor="end">{percent}%</text>')
    for points in _runs(versions):
        path = " ".join(f"{x},{y}" for x, y in (place(record, percent) for record, percent in points))
        if len(points) > 1:
            shapes.append(f'<polyline points="{path}" fill="none" stroke="{TONES["running"]}" stroke-width="2"/>')
        dots = points if len(points) <= 100 else points[-1:]
        shapes += [
            f'<circle cx="{x}" cy="{y}" r="2.5" fill="{TONES["running"]}"/>' for x, y in (place(*p) for p in dots)
        ]
    previous: TaskRecord | None = None
    changes: list[str] = []
    for number, record in enumerate(versions, start=first_number):
        if previous is None or previous.status is not record.status or previous.lease_id != record.lease_id:
            state = view.status_view(record, record.updated_at)
            x = place(record, 0)[0]
            shapes.append(
                f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="{TONES[state.tone]}" '
                'stroke-dasharray="3 3"/>'
            )
            changes.append(
                f"<li>{_clock(record.updated_at)} {html.escape(view.version_line(number, record, previous))}</li>"
            )
        previous = record
    shapes.append(f'<text x="{left}" y="{height - 8}">{_clock(start)}</text>')
    shapes.append(f'<text x="{right}" y="{height - 8}" text-anchor="end">{_clock(versions[-1].updated_at)} UTC</text>')
    title = f"Progress of task {versions[0].id[:8]} over {duration(span)}, {len(versions)} versions"
    shown = changes if len(changes) <= 20 else [*changes[:3], f"<li>… {len(changes) - 13} more …</li>", *changes[-10:]]
    return (
        f'<svg role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'style="max-width:100%;height:auto;font-size:11px" fill="currentColor"><title>{title}</title>'
        f"{''.join(shapes)}</svg>"
        f'<ol style="list-style:none;padding-left:0;margin:.2em 0;line-height:1.6">{"".join(shown)}</ol>'
    )


def _runs(versions: Sequence[TaskRecord]) -> list[list[tuple[TaskRecord, float]]]:
    """Return the points of each attempt: a line does not go on from one attempt to the next."""
    runs: list[list[tuple[TaskRecord, float]]] = []
    lease: Any = object()
    for record in versions:
        if record.status is TaskStatus.COMPLETED and runs and runs[-1]:
            runs[-1].append((record, 100.0))
        if record.progress is None or record.progress.percent is None:
            continue
        if record.lease_id != lease:
            lease = record.lease_id
            runs.append([])
        runs[-1].append((record, float(record.progress.percent)))
    return runs


def _clock(instant: datetime) -> str:
    return f"{instant:%H:%M:%S}"
