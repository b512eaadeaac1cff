"""The HTML of a task's page: pure functions, as in `oq_nb.web.pages`.

Imports of the package: `display`, `model`, `text`, `queue.watcher` (for its records), `web.history`, `web.pages`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import htpy as h

from oq_nb.display import markup, view
from oq_nb.display.buttons import button_of
from oq_nb.display.log_fold import fold_html
from oq_nb.display.plot import history_svg
from oq_nb.display.safe import quote
from oq_nb.display.states import StatusView, view_of_watched
from oq_nb.model import TaskRecord, TaskStatus
from oq_nb.queue.logs import TaskLogs
from oq_nb.queue.watcher import TaskState
from oq_nb.text import ago, counted, local_time, shorten
from oq_nb.web.history import Versions
from oq_nb.web.pages import Content, html_of

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
    message: str
    #: Whether a button's work is under way.
    is_busy: bool
    #: Whether its log is shown.
    shows_log: bool = False
    #: None before it was read.
    log: TaskLogs | None = None
    #: Why it cannot be read.
    log_trouble: str = ""


def task(page: TaskPage, now: datetime) -> Content:
    """Return a task's page: how it stands, its buttons, its progress over time, its versions, its fields.

    Args:
        page: what is known.
        now: the store's time.
    """
    state, record = page.state, page.state.record
    short = page.task_id[:8]
    heading = h.h1["Task ", h.code[page.task_id]]
    if record is None and state.is_gone:
        return Content(f"{short} · oq", html_of(heading, h.p["There is no such task in this bucket."]))
    versions = _with_newest(page.versions, record)
    status = view_of_watched(state, now)
    main = markup.task_html(
        record,
        now,
        task_id=page.task_id,
        status=status,
        last_progress=view.last_report(versions),
        is_live=True,
    )
    if record is None:
        return Content(f"{short} · oq", html_of(heading, main, _buttons(page)))
    body = html_of(
        heading,
        main,
        _buttons(page),
        markup.error_html(record),
        markup.output_html(record),
        _log(page, record, now),
        h.section(aria_labelledby="history")[h.h2("#history")["Progress over time"], _history(page, versions)],
        h.section(aria_labelledby="fields")[h.h2("#fields")["Details"], _fields(record, status, now)],
    )
    percent = record.progress.percent if record.progress is not None else None
    is_over = record.status.is_terminal
    sign = f"{status.sign} " if is_over else ""
    said = f"{percent}%" if percent is not None and record.status is TaskStatus.RUNNING else f"{sign}{status.word}:"
    watched = "ended" if is_over else "running"
    return Content(f"{said} {shorten(record.task_type, 60)} {short} · oq", body, watched)


def _with_newest(versions: Versions | None, record: TaskRecord | None) -> tuple[TaskRecord, ...]:
    """Return the versions that were read, and what has been seen since."""
    known = versions.records if versions is not None else ()
    if record is None or (known and (known[-1] == record or not record.supersedes(known[-1]))):
        return known
    return (*known, record)


def _buttons(page: TaskPage) -> h.Element | None:
    record = page.state.record
    message = h.span("#said", role="status")[quote(page.message, 300)]
    if record is None or page.state.is_gone:
        return h.div(".buttons")[message] if page.message else None
    button = button_of(record, is_busy=page.is_busy)
    if button is None:
        track = h.code["track()"]
        why = h.span(".muted")["A loop that was followed by ", track, ": run its program again to repeat it."]
        return h.div(".buttons")[why, " ", message]
    address = f"{page.task_id}/{'run-again' if button.replays else 'cancel'}{'?log=1' if page.shows_log else ''}"
    seen = h.input(type="hidden", name="only", value=f"{page.task_id}:{record.attempt}")
    form = h.form(method="post", action=address)[h.button(disabled=not button.is_enabled)[button.name], seen]
    return h.div(".buttons")[form, None if record.status.is_terminal else _TELL, " ", message]


#: Needs the script, which shows one of the two.
_TELL = h.fragment[
    h.button(".tell", type="button", data_tell=True)["Tell me when it ends"],
    h.span(".told")["A notification will say when it ends."],
]


def _log(page: TaskPage, record: TaskRecord, now: datetime) -> h.Element | None:
    """Return the end of what its handler has printed, or the way to it: it is read while it is shown only."""
    if record.is_loop:
        return None
    heading = h.h2("#log")["Log"]
    if not page.shows_log:
        link = h.a(href=f"{page.task_id}?log=1#log")["Show what it prints"]
        return h.section(aria_labelledby="log")[heading, h.p[link]]
    link = h.a(href=page.task_id)["Hide the log"]
    return h.section(".log", aria_labelledby="log")[heading, fold_html(page.log, now, page.log_trouble), h.p[link]]


def _history(page: TaskPage, versions: Sequence[TaskRecord]) -> h.Node:
    if not page.keeps_versions:
        return h.p(".muted")["This bucket keeps no versions."]
    trouble: h.Node = None
    if page.history_trouble:
        why = quote(page.history_trouble, 300)
        trouble = h.p(".note")["⚠ The versions cannot be read for now. (", why, ")"]
    read = page.versions
    if read is None:
        return trouble or h.p(".muted")["Reading the versions …"]
    lines: list[h.Element] = []
    before = read.before
    for number, record in enumerate(read.records, start=read.first_number):
        at = h.time(datetime=_iso(record.updated_at))[local_time(record.updated_at)]
        lines.append(h.li[at, " ", view.version_line(number, record, before)])
        before = record
    total = f"more than {read.total:,}" if read.is_more else f"{read.total:,}"
    name = "All versions" if len(lines) == read.total else f"The newest {len(lines):,} versions"
    return [
        trouble,
        h.div(".plot")[history_svg(versions, first_number=read.first_number)],
        h.details[h.summary[f"{name} ({total})"], h.ol(".plain.versions", reversed=True)[lines[::-1]]],
    ]


def _fields(record: TaskRecord, status: StatusView, now: datetime) -> h.Element:
    lines: list[tuple[str, h.Node]] = [
        ("Id", h.code[record.id]),
        ("Type", h.bdi[quote(record.task_type, 300)]),
        ("Status", status.text),
        ("Submitted", _instant(record.created_at, now)),
        ("Changed", _instant(record.updated_at, now)),
    ]
    if record.status is TaskStatus.PENDING:
        lines.append(("Can start", _instant(record.available_at, now)))
    if record.expires_at is not None:
        lines.append(("Expires", _instant(record.expires_at, now)))
    if record.started_at is not None and record.attempt:
        lines.append(("Started", _instant(record.started_at, now)))
    retries = ""
    if record.retry_count:
        retries = f"; {record.retry_count:,} of {record.max_retries:,} retries made"
    elif record.max_retries and not record.status.is_terminal:
        retries = f"; {counted(record.max_retries, 'time')} retried at most"
    lines.append(("Attempts", f"{record.attempt:,}{retries}"))
    if record.reschedule_count:
        lines.append(("Rescheduled", counted(record.reschedule_count, "time")))
    if record.worker_id:
        lines.append(("Worker", h.bdi[quote(record.worker_id, 200)]))
    if record.lease_expires_at is not None:
        lines.append(("Lease ends", _instant(record.lease_expires_at, now)))
    lines.append(("Lease", f"{record.timeout_seconds:,} seconds"))
    if record.cancelled_by:
        lines.append(("Cancelled by", h.bdi[quote(record.cancelled_by, 200)]))
    lines.append(("Input", _input(record)))
    return h.dl(".fields")[(h.div[h.dt[name], h.dd[value]] for name, value in lines)]


def _input(record: TaskRecord) -> h.Element:
    if record.input_ref is not None:
        return h.span(".muted")["large, and held apart: ", h.code["task.input"], " reads it"]
    text = json.dumps(record.input, ensure_ascii=False)
    if len(text) <= 100:
        return h.code[quote(text)]
    body = quote(json.dumps(record.input, ensure_ascii=False, indent=2), _INPUT_CHARS, keep_newlines=True)
    return h.details[h.summary[h.code[quote(text, 60)]], h.pre[body]]


def _iso(instant: datetime) -> str:
    return f"{instant:%Y-%m-%dT%H:%M:%SZ}"


def _instant(instant: datetime, now: datetime) -> h.Node:
    return [h.time(datetime=_iso(instant))[local_time(instant)], " ", h.span(".muted")[f"({ago(instant, now)})"]]
