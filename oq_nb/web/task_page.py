"""The HTML of a task's page: pure functions, as in `oq_nb.web.pages`.

Imports of the package: `markup`, `model`, `text`, `view`, `watch` (for its records), `web.history`, `web.pages`.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from oq_nb.display import markup, view
from oq_nb.model import Progress, TaskRecord, TaskStatus
from oq_nb.queue.watcher import TaskState
from oq_nb.text import counted, printable, shorten
from oq_nb.web.history import Versions
from oq_nb.web.pages import Content

__all__ = ["TaskPage", "task"]

_INPUT_CHARS = 2_000


@dataclass(frozen=True)
class TaskPage:
    """A task, and what is around it."""

    task_id: str
    state: TaskState
    #: None before they were read.
    versions: Versions | None
    #: Why they could not be read.
    history_trouble: str
    #: Whether the bucket keeps them.
    keeps_versions: bool
    #: What a button last did.
    said: str
    #: Whether a button's work is under way.
    is_busy: bool
    #: Whether a worker could run it again after its end.
    can_run_again: bool


def task(page: TaskPage, now: datetime) -> Content:
    """Return a task's page: how it stands, its buttons, its progress over time, its versions, its fields.

    Args:
        page: what is known.
        now: the store's time.
    """
    state, record = page.state, page.state.record
    short = page.task_id[:8]
    heading = f"<h1>Task <code>{html.escape(page.task_id)}</code></h1>"
    if record is None and state.is_gone:
        return Content(f"{short} · oq", f"{heading}<p>There is no such task in this bucket.</p>")
    versions = _with_newest(page.versions, record)
    status = _status_view(state, now)
    main = markup.task_html(
        record,
        now,
        task_id=page.task_id,
        status=status,
        last_progress=_last_progress(versions),
        is_live=True,
    )
    body = f"{heading}{main}{_buttons(page)}"
    if record is None:
        return Content(f"{short} · oq", body)
    body += markup.error_html(record) + markup.output_html(record)
    body += _history(page, versions)
    body += f'<section aria-labelledby="fields"><h2 id="fields">Details</h2>{_fields(record, now)}</section>'
    percent = record.progress.percent if record.progress is not None else None
    said = f"{percent}% " if percent is not None and record.status is TaskStatus.RUNNING else f"{status.word}: "
    return Content(f"{said}{shorten(record.task_type, 60)} {short} · oq", body)


def _status_view(state: TaskState, now: datetime) -> view.StatusView:
    if state.is_lasting and state.record is None:
        return view.StatusView("cannot be read", "bad", (printable(shorten(state.trouble or "", 300)),))
    return view.status_view(
        state.record,
        now,
        has_worker=state.has_worker,
        is_gone=state.is_gone,
        trouble=state.trouble,
        seen_at=state.seen_at,
    )


def _with_newest(versions: Versions | None, record: TaskRecord | None) -> tuple[TaskRecord, ...]:
    """Return the versions that were read, and what has been seen since."""
    known = versions.records if versions is not None else ()
    if record is None or (known and (known[-1] == record or not record.supersedes(known[-1]))):
        return known
    return (*known, record)


def _last_progress(versions: Sequence[TaskRecord]) -> Progress | None:
    """Return what the present attempt last reported."""
    for record in reversed(versions):
        if record.progress is not None:
            return record.progress
        if record.status is TaskStatus.PENDING:
            return None
    return None


def _buttons(page: TaskPage) -> str:
    record = page.state.record
    said = f'<span id="said" role="status">{markup.escape(page.said, 300)}</span>'
    if record is None or page.state.is_gone:
        return f'<div class="buttons">{said}</div>' if page.said else ""
    if record.status.is_terminal:
        action, name = "run-again", "Run again" if record.status is TaskStatus.COMPLETED else "Retry"
        is_off = page.is_busy
        if not page.can_run_again:
            return (
                f'<div class="buttons"><span class="muted">A loop that was followed by <code>track()</code>: run its '
                f"program again to repeat it.</span> {said}</div>"
            )
    else:
        is_asked = record.status is TaskStatus.RUNNING and record.cancel_requested
        action, name = "cancel", "Stopping …" if is_asked else "Cancel"
        is_off = page.is_busy or is_asked
    return (
        f'<div class="buttons"><form method="post" action="{page.task_id}/{action}">'
        f"<button{' disabled' if is_off else ''}>{name}</button></form> {said}</div>"
    )


def _history(page: TaskPage, versions: Sequence[TaskRecord]) -> str:
    parts = ['<section aria-labelledby="history"><h2 id="history">Progress over time</h2>']
    if not page.keeps_versions:
        return f'{parts[0]}<p class="muted">This bucket keeps no versions.</p></section>'
    if page.history_trouble:
        trouble = markup.escape(page.history_trouble, 300)
        parts.append(f'<p class="note">⚠ The versions cannot be read for now. ({trouble})</p>')
    read = page.versions
    if read is None:
        parts.append("" if page.history_trouble else '<p class="muted">Reading the versions …</p>')
        return f"{''.join(parts)}</section>"
    parts.append(f'<div class="plot">{markup.history_svg(versions, first_number=read.first_number)}</div>')
    lines: list[str] = []
    before = read.before
    for number, record in enumerate(read.records, start=read.first_number):
        line = html.escape(view.version_line(number, record, before))
        at = f'<time datetime="{record.updated_at:%Y-%m-%dT%H:%M:%SZ}">{record.updated_at:%H:%M:%S}</time>'
        lines.append(f"<li>{at} {line}</li>")
        before = record
    total = f"more than {read.total:,}" if read.is_more else f"{read.total:,}"
    name = "All versions" if len(lines) == read.total else f"The newest {len(lines):,} versions"
    parts.append(
        f"<details><summary>{name} ({total})</summary>"
        f'<ol class="plain versions" reversed>{"".join(reversed(lines))}</ol></details></section>'
    )
    return "".join(parts)


def _fields(record: TaskRecord, now: datetime) -> str:
    lines: list[tuple[str, str]] = [
        ("Id", f"<code>{record.id}</code>"),
        ("Type", f"<bdi>{markup.escape(record.task_type, 300)}</bdi>"),
        ("Status", record.status.value),
        ("Submitted", _instant(record.created_at, now)),
        ("Changed", _instant(record.updated_at, now)),
    ]
    if record.status is TaskStatus.PENDING:
        lines.append(("Can start", _instant(record.available_at, now)))
    if record.expires_at is not None:
        lines.append(("Expires", _instant(record.expires_at, now)))
    lines.append(("Attempts", f"{record.attempt:,}; {record.retry_count:,} of {record.max_retries:,} retries"))
    if record.reschedule_count:
        lines.append(("Rescheduled", counted(record.reschedule_count, "time")))
    if record.worker_id:
        lines.append(("Worker", f"<bdi>{markup.escape(record.worker_id, 200)}</bdi>"))
    if record.lease_expires_at is not None:
        lines.append(("Lease ends", _instant(record.lease_expires_at, now)))
    lines.append(("Lease", f"{record.timeout_seconds:,} seconds"))
    if record.cancelled_by:
        lines.append(("Cancelled by", f"<bdi>{markup.escape(record.cancelled_by, 200)}</bdi>"))
    lines.append(("Input", _input(record)))
    items = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in lines)
    return f'<dl class="fields">{items}</dl>'


def _input(record: TaskRecord) -> str:
    if record.input_ref is not None:
        return '<span class="muted">large, and held apart: <code>task.input</code> reads it</span>'
    value: Any = record.input
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= 100:
        return f"<code>{markup.escape(text)}</code>"
    body = markup.escape(json.dumps(value, ensure_ascii=False, indent=2), _INPUT_CHARS, keep_newlines=True)
    return f"<details><summary><code>{markup.escape(text, 60)}</code></summary><pre>{body}</pre></details>"


def _instant(instant: datetime, now: datetime) -> str:
    return (
        f'<time datetime="{instant:%Y-%m-%dT%H:%M:%SZ}">{instant:%Y-%m-%d %H:%M:%S} UTC</time> '
        f'<span class="muted">({view.ago(instant, now)})</span>'
    )
