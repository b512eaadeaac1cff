"""The HTML of the pages: pure functions to whole documents without a script or a style of their own in them.

What tasks, workers and histories look like is said by `oq_nb.markup`, as in notebooks. Every text from the bucket, and
from the request, is escaped by it.

Imports of the package: `markup`, `model`, `text`, `view`, `watch` (for its records).
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from oq_nb import markup, view
from oq_nb.model import Progress, TaskRecord, TaskStatus
from oq_nb.text import printable, shorten
from oq_nb.watch import Overview, TaskState, is_alive
from oq_nb.web.history import Versions

__all__ = [
    "ALL",
    "ENDED",
    "STATUSES",
    "Content",
    "TaskPage",
    "Wish",
    "document",
    "entering",
    "foreign_host",
    "foreign_origin",
    "overview",
    "problem",
    "several",
    "task",
    "who_are_you",
]

ALL, ENDED = "all", "ended"
#: What can be asked for.
STATUSES = (ALL, ENDED, *(status.value for status in TaskStatus))

_ROWS = 50  # of a page
_ENDED_ROWS = 10  # below the running and waiting ones
_WORKERS = 20
_TYPES = 200  # in the filter
_INPUT_CHARS = 2_000
_TASK_LINK = "task/{}"


@dataclass(frozen=True)
class Content:
    """What a page says; the same as long as that does not change."""

    #: Escaped by `document`.
    title: str
    #: HTML.
    body: str


@dataclass(frozen=True)
class Wish:
    """What of the queue is asked for."""

    #: One of `STATUSES`.
    status: str = ALL
    #: Empty for all.
    task_type: str = ""
    #: From 1; the last one when there are fewer.
    page: int = 1

    def query(self, page: int) -> str:
        """Return it as a query, for another page."""
        given = {"status": self.status if self.status != ALL else "", "type": self.task_type}
        return "?" + urlencode({name: value for name, value in given.items() if value} | {"page": str(page)})


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


def document(content: Content, now: datetime, *, name: str, root: str, version: str) -> str:
    """Return a whole page.

    Args:
        content: what it says.
        now: the store's time.
        name: of the queue.
        root: the way to the first page.
        version: of the script and the style sheet.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{markup.escape(content.title, 200)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" type="image/svg+xml" href="{root}static/icon.svg?v={version}">
<link rel="stylesheet" href="{root}static/page.css?v={version}">
<script src="{root}static/page.js?v={version}" defer></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<a class="home" href="{root}"><img src="{root}static/icon.svg?v={version}" alt="All tasks" width="24" height="24"></a>
<span class="queue">{markup.escape(name, 300)}</span>
<form action="{root}find" role="search">
<label for="id">Task</label> <input id="id" name="id" placeholder="id, or its beginning" size="18" required
 autocomplete="off" autocapitalize="off" spellcheck="false"> <button>Open</button>
</form>
</header>
<main id="main">{content.body}</main>
<footer>
<span id="state" role="status"></span>
<span class="refresh">As of {now:%Y-%m-%d %H:%M:%S} UTC. <a href="">Refresh</a></span>
</footer>
</body>
</html>
"""


# --- the queue


def overview(seen: Overview, wish: Wish, now: datetime) -> Content:
    """Return the first page: counts, tasks with bars, workers.

    Args:
        seen: what was seen of the queue.
        wish: which tasks are asked for.
        now: the store's time.
    """
    trouble = _trouble(seen, now)
    if seen.seen_at is None:
        return Content("oq", f"<h1>Tasks</h1>{trouble or '<p>Looking …</p>'}")
    running = seen.counts.get("running", 0)
    body = (
        f"<h1>Tasks</h1>{trouble}{markup.counts_html(seen.counts, seen.uncounted)}{_worker_note(seen, now)}"
        f"{_filters(seen, wish)}{_tables(seen, wish, now)}"
        f'<section aria-labelledby="workers"><h2 id="workers">Workers</h2>'
        f"{markup.workers_html(seen.workers, now, limit=_WORKERS)}</section>"
    )
    return Content(f"{running:,} running · oq", body)


def _trouble(seen: Overview, now: datetime) -> str:
    if seen.trouble is None:
        return ""
    since = f" This is from {view.ago(seen.seen_at, now)}." if seen.seen_at is not None else ""
    return (
        f'<p class="note"><span role="alert">⚠ The store cannot be reached and is tried again.</span>{since} '
        f"({markup.escape(seen.trouble, 300)})</p>"
    )


def _worker_note(seen: Overview, now: datetime) -> str:
    alive = sum(is_alive(worker, now) for worker in seen.workers)
    waiting = seen.counts.get("pending", 0)
    if alive or not waiting:
        return f'<p class="muted"><a href="#workers">{_count(alive, "worker")}</a> alive</p>'
    return (
        f'<p class="note">⚠ No worker is alive, and {_count(waiting, "task")} '
        f"{'waits' if waiting == 1 else 'wait'}: <code>oq worker MODULE</code> starts one.</p>"
    )


def _count(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _filters(seen: Overview, wish: Wish) -> str:
    names = {held.record.task_type for held in (*seen.live, *seen.ended)}
    names |= {name for worker in seen.workers for name in worker.task_types or ()}
    names |= {wish.task_type} - {""}
    types = "".join(_option(name, printable(shorten(name, 60)), wish.task_type) for name in sorted(names)[:_TYPES])
    statuses = "".join(_option(status, status, wish.status) for status in STATUSES)
    reset = '<a href="./">All</a>' if wish != Wish() else ""
    return (
        '<form class="filters" action="./" data-keep><label>Status <select name="status">'
        f'{statuses}</select></label> <label>Type <select name="type">{_option("", "all types", wish.task_type)}{types}'
        f"</select></label> <button>Show</button> {reset}</form>"
    )


def _option(value: str, label: str, chosen: str) -> str:
    return f'<option value="{html.escape(value)}"{" selected" if value == chosen else ""}>{html.escape(label)}</option>'


def _tables(seen: Overview, wish: Wish, now: datetime) -> str:
    """Return the tasks asked for, a page of them; where all are, also the ones that ended lately."""
    live = [held.record for held in seen.live if wish.task_type in ("", held.record.task_type)]
    ended = [held.record for held in seen.ended if wish.task_type in ("", held.record.task_type)]
    if wish.status == ALL:
        main, name = live, "Running and waiting"
    else:
        both = ended if wish.status == ENDED else [*live, *ended]
        main = [record for record in both if wish.status in (ENDED, record.status.value)]
        name = wish.status.capitalize()
    pages = max(1, -(-len(main) // _ROWS))
    number = min(wish.page, pages)
    shown = main[(number - 1) * _ROWS : number * _ROWS]
    caption = name
    if len(main) > len(shown):
        first = (number - 1) * _ROWS + 1
        caption += f": {first:,} to {first + len(shown) - 1:,} of {len(main):,}"
    caption += _left_out(seen, wish)
    made = markup.tasks_html(shown, now, caption=html.escape(caption), link=_TASK_LINK)
    made += _pager(wish, number, pages)
    if wish.status == ALL and ended and number == 1:
        newest = ended[:_ENDED_ROWS]
        more = Wish(ENDED, wish.task_type).query(1)
        caption = f'Ended lately: {len(newest)} of <a href="{html.escape(more)}">{len(ended)}</a>'
        made += markup.tasks_html(newest, now, caption=caption, link=_TASK_LINK)
    return f'<div class="tasks">{made}</div>'


def _left_out(seen: Overview, wish: Wish) -> str:
    """Return what the table cannot have, because it was not read."""
    if wish.status in (ALL, TaskStatus.PENDING.value, TaskStatus.RUNNING.value):
        return f"; {seen.unread:,} more are counted but not read" if seen.unread else ""
    over = sum(count for name, count in seen.counts.items() if name not in ("pending", "running"))
    over += seen.uncounted or 0
    if over <= len(seen.ended):
        return ""
    return f", of the {len(seen.ended)} that ended last (oq list shows the others)"


def _pager(wish: Wish, number: int, pages: int) -> str:
    if pages <= 1:
        return ""
    links: list[str] = []
    if number > 1:
        links.append(f'<a rel="prev" href="{html.escape(wish.query(number - 1))}">‹ Previous</a>')
    links.append(f"page {number:,} of {pages:,}")
    if number < pages:
        links.append(f'<a rel="next" href="{html.escape(wish.query(number + 1))}">Next ›</a>')
    return f'<nav class="pager" aria-label="Pages">{" ".join(links)}</nav>'


def several(beginning: str, task_ids: Sequence[str], is_more: bool) -> Content:
    """Return the tasks whose ids begin so."""
    items = "".join(
        f'<li><a href="task/{task_id}"><code>{task_id}</code></a></li>' for task_id in map(html.escape, task_ids)
    )
    more = "<li>and more</li>" if is_more else ""
    said = f"Several tasks begin with {markup.escape(beginning)}"
    return Content("oq", f'<h1>{said}</h1><ul class="plain">{items}{more}</ul>')


# --- a task


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
    situation = _situation(state, now)
    main = markup.task_html(
        record,
        now,
        task_id=page.task_id,
        situation=situation,
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
    said = f"{percent}% " if percent is not None and record.status is TaskStatus.RUNNING else f"{situation.word}: "
    return Content(f"{said}{shorten(record.task_type, 60)} {short} · oq", body)


def _situation(state: TaskState, now: datetime) -> view.Situation:
    if state.is_lasting and state.record is None:
        return view.Situation("cannot be read", "bad", (printable(shorten(state.trouble or "", 300)),))
    return view.situation(
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
        lines.append(("Rescheduled", _count(record.reschedule_count, "time")))
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


# --- what is not a page of the queue


def problem(text: str) -> Content:
    """Return a page that says what was wrong."""
    return Content("oq", f'<h1>That did not work</h1><p role="alert">{markup.escape(text, 500)}</p>')


def _bare(title: str, body: str, head: str = "") -> str:
    """Return a page for somebody who may be anybody: nothing of the queue, and nothing to load."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{title}</title>\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n{head}</head>\n'
        '<body style="font-family:system-ui,sans-serif;max-width:40em;margin:2em auto;padding:0 1em;line-height:1.5">\n'
        f"<main>{body}</main>\n</body>\n</html>\n"
    )


def entering() -> str:
    """Return what leads from the address with the token to the one without."""
    return _bare(
        "oq", '<p><a href="./">Go on to the tasks</a></p>', '<meta http-equiv="refresh" content="0; url=./">\n'
    )


def who_are_you(root: str, *, is_wrong: bool) -> str:
    """Return what is said without the token, and a place to give it."""
    wrong = (
        '<p role="alert"><b>That is not its token.</b> It has a new one each time it is started.</p>'
        if is_wrong
        else ""
    )
    return _bare(
        "oq: token needed",
        f"<h1>A token is needed</h1>{wrong}<p>Open the address that <code>oq ui</code> has printed, or "
        "<code>queue.serve_ui().url</code>; or give the token that stands in it after <code>token=</code>:</p>"
        f'<form action="{root}"><label>Token <input name="token" type="password" size="36" required '
        'autocomplete="off"></label> <button>Open</button></form>',
    )


def foreign_host(host: str) -> str:
    """Return what is said when the page was asked for under a name that is not its own."""
    shown = markup.escape(host, 200)
    return _bare(
        "oq: unknown host",
        f"<h1>Not under this name</h1><p>The page was asked for as <code>{shown}</code>, which is not a name of this "
        "machine. Behind a proxy, allow the name under which the proxy is reached: "
        "<code>oq ui --allow-host NAME</code>, or <code>queue.serve_ui(allow_hosts=[…])</code>.</p>",
    )


def foreign_origin(origin: str | None) -> str:
    """Return what is said when another page has sent the request."""
    shown = "without an <code>Origin</code>" if origin is None else f"from <code>{markup.escape(origin, 200)}</code>"
    return _bare(
        "oq: foreign origin",
        f"<h1>Refused</h1><p>The request came {shown}, not from this page itself. A program gives the token: "
        "<code>Authorization: Bearer …</code>.</p>",
    )
