"""The HTML of the pages but a task's: pure functions to documents without a script or a style of their own in them.

`oq_nb.display.markup` draws tasks, workers and histories, as in notebooks. It escapes every text from the bucket, and
from the request.

Imports of the package: `markup`, `model`, `text`, `view`, `watch` (for its records).
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlencode

from oq_nb.display import markup, view
from oq_nb.model import TaskStatus
from oq_nb.queue.watcher import Overview, is_alive
from oq_nb.text import counted, printable, shorten

__all__ = [
    "ALL",
    "ENDED",
    "STATUSES",
    "Content",
    "TaskFilter",
    "document",
    "overview",
    "problem",
    "several",
]

ALL, ENDED = "all", "ended"
#: What can be asked for.
STATUSES = (ALL, ENDED, *(status.value for status in TaskStatus))

_ROWS = 50  # of a page
_ENDED_ROWS = 10  # below the running and waiting ones
_WORKERS = 20
_TYPES = 200  # in the filter
_TASK_LINK = "task/{}"


@dataclass(frozen=True)
class Content:
    """What a page says; the same as long as that does not change."""

    #: Escaped by `document`.
    title: str
    #: HTML.
    body: str


@dataclass(frozen=True)
class TaskFilter:
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


def overview(seen: Overview, chosen: TaskFilter, now: datetime) -> Content:
    """Return the first page: counts, tasks with bars, workers.

    Args:
        seen: what was seen of the queue.
        chosen: which tasks are asked for.
        now: the store's time.
    """
    trouble = _trouble(seen, now)
    if seen.seen_at is None:
        return Content("oq", f"<h1>Tasks</h1>{trouble or '<p>Looking …</p>'}")
    running = seen.counts.get("running", 0)
    body = (
        f"<h1>Tasks</h1>{trouble}{markup.counts_html(seen.counts, seen.uncounted)}{_worker_note(seen, now)}"
        f"{_filters(seen, chosen)}{_tables(seen, chosen, now)}"
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
        return f'<p class="muted"><a href="#workers">{counted(alive, "worker")}</a> alive</p>'
    return (
        f'<p class="note">⚠ No worker is alive, and {counted(waiting, "task")} '
        f"{'waits' if waiting == 1 else 'wait'}: <code>oq worker MODULE</code> starts one.</p>"
    )


def _filters(seen: Overview, chosen: TaskFilter) -> str:
    names = {held.record.task_type for held in (*seen.live, *seen.ended)}
    names |= {name for worker in seen.workers for name in worker.task_types or ()}
    names |= {chosen.task_type} - {""}
    types = "".join(_option(name, printable(shorten(name, 60)), chosen.task_type) for name in sorted(names)[:_TYPES])
    statuses = "".join(_option(status, status, chosen.status) for status in STATUSES)
    reset = '<a href="./">All</a>' if chosen != TaskFilter() else ""
    return (
        '<form class="filters" action="./" data-keep><label>Status <select name="status">'
        f'{statuses}</select></label> <label>Type <select name="type">'
        f"{_option('', 'all types', chosen.task_type)}{types}"
        f"</select></label> <button>Show</button> {reset}</form>"
    )


def _option(value: str, label: str, chosen: str) -> str:
    return f'<option value="{html.escape(value)}"{" selected" if value == chosen else ""}>{html.escape(label)}</option>'


def _tables(seen: Overview, chosen: TaskFilter, now: datetime) -> str:
    """Return the tasks asked for, a page of them; where all are, also the ones that ended lately."""
    live = [held.record for held in seen.live if chosen.task_type in ("", held.record.task_type)]
    ended = [held.record for held in seen.ended if chosen.task_type in ("", held.record.task_type)]
    if chosen.status == ALL:
        main, name = live, "Running and waiting"
    else:
        both = ended if chosen.status == ENDED else [*live, *ended]
        main = [record for record in both if chosen.status in (ENDED, record.status.value)]
        name = chosen.status.capitalize()
    pages = max(1, -(-len(main) // _ROWS))
    number = min(chosen.page, pages)
    shown = main[(number - 1) * _ROWS : number * _ROWS]
    caption = name
    if len(main) > len(shown):
        first = (number - 1) * _ROWS + 1
        caption += f": {first:,} to {first + len(shown) - 1:,} of {len(main):,}"
    caption += _left_out(seen, chosen)
    made = markup.tasks_html(shown, now, caption=html.escape(caption), link=_TASK_LINK)
    made += _pager(chosen, number, pages)
    if chosen.status == ALL and ended and number == 1:
        newest = ended[:_ENDED_ROWS]
        more = TaskFilter(ENDED, chosen.task_type).query(1)
        caption = f'Ended lately: {len(newest)} of <a href="{html.escape(more)}">{len(ended)}</a>'
        made += markup.tasks_html(newest, now, caption=caption, link=_TASK_LINK)
    return f'<div class="tasks">{made}</div>'


def _left_out(seen: Overview, chosen: TaskFilter) -> str:
    """Return what the table cannot have, because it was not read."""
    if chosen.status in (ALL, TaskStatus.PENDING.value, TaskStatus.RUNNING.value):
        return f"; {seen.unread:,} more are counted but not read" if seen.unread else ""
    over = sum(count for name, count in seen.counts.items() if name not in ("pending", "running"))
    over += seen.uncounted or 0
    if over <= len(seen.ended):
        return ""
    return f", of the {len(seen.ended)} that ended last (oq list shows the others)"


def _pager(chosen: TaskFilter, number: int, pages: int) -> str:
    if pages <= 1:
        return ""
    links: list[str] = []
    if number > 1:
        links.append(f'<a rel="prev" href="{html.escape(chosen.query(number - 1))}">‹ Previous</a>')
    links.append(f"page {number:,} of {pages:,}")
    if number < pages:
        links.append(f'<a rel="next" href="{html.escape(chosen.query(number + 1))}">Next ›</a>')
    return f'<nav class="pager" aria-label="Pages">{" ".join(links)}</nav>'


def several(beginning: str, task_ids: Sequence[str], is_more: bool) -> Content:
    """Return the tasks whose ids begin so."""
    items = "".join(
        f'<li><a href="task/{task_id}"><code>{task_id}</code></a></li>' for task_id in map(html.escape, task_ids)
    )
    more = "<li>and more</li>" if is_more else ""
    said = f"Several tasks begin with {markup.escape(beginning)}"
    return Content("oq", f'<h1>{said}</h1><ul class="plain">{items}{more}</ul>')


def problem(text: str) -> Content:
    """Return a page that says what was wrong."""
    return Content("oq", f'<h1>That did not work</h1><p role="alert">{markup.escape(text, 500)}</p>')
