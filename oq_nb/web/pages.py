"""The HTML of the pages but a task's: pure functions to documents without a script or a style of their own in them.

Drawn with ``htpy``, which escapes every text that is not HTML by its type; `oq_nb.display.markup` draws tasks, workers
and histories, as in notebooks.

Imports of the package: `display` (its pure half), `queue.watcher` (for its records), `text`, `web.lists`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import htpy as h
from markupsafe import Markup

from oq_nb.display import markup
from oq_nb.display.safe import quote
from oq_nb.display.selection import TaskFilter
from oq_nb.display.timeline import timeline_of
from oq_nb.queue.watcher import Overview, is_alive
from oq_nb.text import ago, counted, local_time
from oq_nb.web import lists

__all__ = ["Content", "document", "html_of", "overview", "problem", "several"]

_WORKERS = 20


@dataclass(frozen=True)
class Content:
    """What a page says; the same as long as that does not change."""

    title: str
    #: What stands in its ``<main>``.
    body: Markup
    #: Of a page that watches a task: ``running`` until that has ended, then ``ended``. Empty for other pages.
    watched: str = ""


def html_of(*parts: h.Node) -> Markup:
    """Return parts of a page as HTML."""
    return Markup(h.fragment[parts])  # noqa: S704 - htpy has escaped it


def document(content: Content, now: datetime, *, name: str, root: str, version: str) -> str:
    """Return a whole page.

    Args:
        content: what it says.
        now: the store's time.
        name: of the queue.
        root: the way to the first page.
        version: of the script and the style sheet.
    """

    def static(file: str) -> str:
        return f"{root}static/{file}?v={version}"

    head = h.head[
        h.meta(charset="utf-8"),
        h.title[quote(content.title, 200)],
        h.meta(name="viewport", content="width=device-width, initial-scale=1"),
        h.meta(name="color-scheme", content="light dark"),
        h.link(rel="icon", type="image/svg+xml", href=static("icon.svg")),
        h.link(rel="stylesheet", href=static("page.css")),
        h.script(src=static("page.js"), defer=True),
    ]
    search = h.form(action=f"{root}find", role="search")[
        h.label(for_="id")["Task"],
        " ",
        h.input(
            id="id",
            name="id",
            placeholder="id, or its beginning",
            size="18",
            required=True,
            autocomplete="off",
            autocapitalize="off",
            spellcheck="false",
        ),
        " ",
        h.button["Open"],
    ]
    icon = h.img(src=static("icon.svg"), alt="All tasks", width="24", height="24")
    body = h.body[
        h.a(".skip", href="#main")["Skip to the content"],
        h.header[h.a(".home", href=root)[icon], h.span(".queue")[quote(name, 300)], search],
        h.main("#main", tabindex="-1", data_watched=content.watched or None)[content.body],
        h.footer[
            h.span("#state", role="status"),
            h.span(".refresh")[f"As of {local_time(now)}. ", h.a(href="")["Refresh"]],
        ],
    ]
    return str(h.html(lang="en")[head, body])


# --- the queue


def overview(seen: Overview, chosen: TaskFilter, now: datetime, *, message: str = "") -> Content:
    """Return the first page: counts, tasks with bars, failures by their errors, workers.

    Args:
        seen: what was seen of the queue.
        chosen: which tasks are asked for.
        now: the store's time.
        message: what a button last did.
    """
    trouble = _trouble(seen, now)
    if seen.seen_at is None:
        return Content("oq", html_of(h.h1["Tasks"], trouble or h.p["Looking …"]))
    running = seen.counts.get("running", 0)
    workers = h.section(aria_labelledby="workers")[
        h.h2("#workers")["Workers"], markup.workers_html(seen.workers, now, limit=_WORKERS)
    ]
    body = html_of(
        h.h1["Tasks"],
        trouble,
        markup.counts_html(
            seen.counts, seen.uncounted, unlisted=seen.unlisted, unreadable=seen.unreadable, link="?status={}"
        ),
        _worker_note(seen, now),
        lists.filters(seen, chosen),
        h.p("#said", role="status")[quote(message, 500)],
        lists.tables(seen, chosen, now),
        workers,
        _timeline(seen, now),
    )
    return Content(f"{running:,} running · oq", body)


def _trouble(seen: Overview, now: datetime) -> h.Element | None:
    if seen.trouble is None:
        return None
    since = f" This is from {ago(seen.seen_at, now)}." if seen.seen_at is not None else ""
    return h.p(".note")[
        h.span(role="alert")["⚠ The store cannot be reached and is tried again."],
        f"{since} (",
        quote(seen.trouble, 300),
        ")",
    ]


def _worker_note(seen: Overview, now: datetime) -> h.Element:
    alive = sum(is_alive(worker, now) for worker in seen.workers)
    waiting = seen.counts.get("pending", 0)
    if alive or not waiting:
        return h.p(".muted")[h.a(href="#workers")[counted(alive, "worker")], " alive"]
    verb = "waits" if waiting == 1 else "wait"
    return h.p(".note")[
        f"⚠ No worker is alive, and {counted(waiting, 'task')} {verb}: ", h.code["oq worker MODULE"], " starts one."
    ]


def _timeline(seen: Overview, now: datetime) -> h.Element:
    """Return which worker ran what in the last hour, of the tasks that the overview knows. Requests: none.

    It ends with the present minute, so that the page stays the same for as long as nothing happens.
    """
    end = now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    records = {held.record.id: held.record for held in (*seen.live, *seen.ended, *seen.failures)}
    is_partial = 0 < len(seen.ended) < seen.ended_total and seen.ended[-1].record.updated_at > end - timedelta(hours=1)
    made = timeline_of(records.values(), end, is_partial=is_partial)
    return h.section(aria_labelledby="timeline")[
        h.h2("#timeline")["Last hour"],
        h.div(".timeline", tabindex="0", role="region", aria_label="Which worker ran what")[made.html()]
        if made.runs
        else h.p(".muted")["Nothing ran."],
    ]


def several(beginning: str, task_ids: Sequence[str], is_more: bool) -> Content:
    """Return the tasks whose ids begin so."""
    items = [h.li[h.a(href=f"task/{task_id}")[h.code[task_id]]] for task_id in task_ids]
    heading = h.h1["Several tasks begin with ", quote(beginning)]
    return Content("oq", html_of(heading, h.ul(".plain")[items, h.li["and more"] if is_more else None]))


def problem(text: str) -> Content:
    """Return a page that says what was wrong."""
    return Content("oq", html_of(h.h1["That did not work"], h.p(role="alert")[quote(text, 500)]))
