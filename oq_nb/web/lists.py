"""The HTML of the lists of tasks: filters, tables with buttons in their rows, failures by their errors. Pure.

A button carries what it said: the address says what is done, and its value names the task and the attempt that was
shown. What no longer fits is not done, and the page says so.

Imports of the package: `display` (its pure half), `model`, `queue.watcher` (for its records), `text`, `web.asked`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import htpy as h
from markupsafe import Markup

from oq_nb.display import markup
from oq_nb.display.buttons import button_of
from oq_nb.display.failures import FailureGroup
from oq_nb.display.queue_widget import known_of
from oq_nb.display.safe import fill, quote
from oq_nb.display.selection import (
    ALL,
    ENDED,
    SORTS,
    STATUSES,
    WITHIN,
    Known,
    Selection,
    TaskFilter,
    failure_groups,
    select_tasks,
    type_options,
)
from oq_nb.model import TaskRecord
from oq_nb.queue.watcher import Overview, has_handler
from oq_nb.text import ago, counted, duration, shorten
from oq_nb.web.asked import query_of

__all__ = ["filters", "tables"]

_ROWS = 50  # of a page
_GROUPS = 5  # of failures, where they are not asked for
_TASK_LINK = "task/{}"
_FORM = "several"  # the form of what is selected


def filters(seen: Overview, chosen: TaskFilter) -> h.Element:
    """Return the form that asks for other tasks."""
    types = {"": "all types"} | {value: label for label, value in type_options(known_of(seen), seen.workers, "")}
    if chosen.task_type not in types:
        types |= {value: label for label, value in type_options(Known(), (), chosen.task_type)}
    times = {name: f"last {duration(seconds)}" if seconds else "any time" for name, seconds in WITHIN.items()}
    text = h.input(
        type="search",
        name="text",
        value=chosen.text,
        size="16",
        placeholder="id, type, message, error",
        autocomplete="off",
    )
    return h.form("#filters.filters", action="./", data_keep=True)[
        h.label["Search ", text],
        " ",
        _select("Status", "status", {status: status for status in STATUSES}, chosen.status),
        " ",
        _select("Type", "type", types, chosen.task_type),
        " ",
        _select("Changed", "within", times, chosen.within),
        " ",
        _select("Order", "sort", SORTS, chosen.sort),
        " ",
        h.input(type="hidden", name="error", value=chosen.error) if chosen.error else None,
        h.button["Show"],
        " ",
        h.a(href="./")["All"] if chosen != TaskFilter() else None,
    ]


def _select(label: str, name: str, options: Mapping[str, str], chosen: str) -> h.Element:
    made = (h.option(value=value, selected=value == chosen)[shown] for value, shown in options.items())
    return h.label[f"{label} ", h.select(name=name)[made]]


# --- tasks


def tables(seen: Overview, chosen: TaskFilter, now: datetime) -> h.Node:
    """Return the tasks asked for, a page of them, and failures; where all are, also the ones that ended lately."""
    found = select_tasks(known_of(seen), chosen, rows=_ROWS, now=now)
    shown = [*found.records, *found.newest_ended]
    controls = _Controls(chosen)

    def table(records: Iterable[TaskRecord], caption: str | Markup) -> Markup:
        return markup.tasks_html(
            records,
            now,
            caption=caption,
            link=_TASK_LINK,
            has_worker=lambda record: has_handler(seen.workers, record, now),
            controls=controls,
        )

    ended: Markup | None = None
    if found.newest_ended:
        everything = query_of(replace(chosen, status=ENDED, page=1))
        all_of_them = fill('<a href="{}">{}</a>', everything, f"{found.ended_total:,}")
        among = f"; {found.ended_among}" if found.ended_among else ""
        ended = table(found.newest_ended, fill("Ended lately: {} of {}{}", len(found.newest_ended), all_of_them, among))
    return h.fragment[
        _failures(seen, chosen, now) if chosen.status != ALL else None,
        h.div(".tasks")[_several(shown, chosen), table(found.records, found.title), _pager(chosen, found)],
        _failures(seen, chosen, now) if chosen.status == ALL else None,
        h.div(".tasks")[ended] if ended is not None else None,
    ]


class _Controls:
    """What selects a task of a row, and its button.

    Args:
        chosen: the filter to which an action leads back.
    """

    def __init__(self, chosen: TaskFilter) -> None:
        self._back = query_of(chosen)

    def __call__(self, record: TaskRecord) -> tuple[Markup, Markup]:
        button = button_of(record)
        if button is None:
            return fill('<span class="no-box"></span>'), fill("")
        name = fill("{} {}", quote(record.task_type, 60), record.id[:8])
        value = f"{record.id}:{record.attempt}"
        box = fill(
            '<input type="checkbox" form="{}" name="task" value="{}" aria-label="Select {}">', _FORM, value, name
        )
        action = fill(
            '<button class="small" form="{}" formaction="{}" name="only" value="{}" aria-label="{} {}"{}>{}</button>',
            _FORM,
            f"tasks/{'retry' if button.replays else 'cancel'}{self._back}",
            value,
            button.name,
            name,
            fill("") if button.is_enabled else fill(" disabled"),
            button.name,
        )
        return box, action


def _several(shown: list[TaskRecord], chosen: TaskFilter) -> h.Element | None:
    """Return what is done to the tasks that are selected."""
    kinds = {button.replays for record in shown if (button := button_of(record)) is not None}
    back = query_of(chosen)
    # The first one keeps Enter in a box from pressing the button that happens to be the form's first.
    return h.form(f"#{_FORM}.buttons", method="post", action=f"tasks/none{back}")[
        h.button(disabled=True, hidden=True),
        h.label(".only-live")[h.input("#select-all", type="checkbox"), " Select all on this page"] if kinds else None,
        h.button(formaction=f"tasks/cancel{back}")["Cancel selected"] if False in kinds else None,
        h.button(formaction=f"tasks/retry{back}")["Retry selected"] if True in kinds else None,
    ]


def _pager(chosen: TaskFilter, found: Selection) -> h.Element | None:
    if found.pages <= 1:
        return None
    number, pages = found.page, found.pages

    def to(page: int) -> str:
        return query_of(replace(chosen, page=page))

    return h.nav(".pager", aria_label="Pages")[
        h.a(rel="prev", href=to(number - 1))["‹ Previous"] if number > 1 else None,
        f" page {number:,} of {pages:,} ",
        h.a(rel="next", href=to(number + 1))["Next ›"] if number < pages else None,
    ]


# --- failures


def _failures(seen: Overview, chosen: TaskFilter, now: datetime) -> h.Element | None:
    """Return the failed tasks by their errors, where these are asked for; a few of the groups where all tasks are."""
    if chosen.status not in (ALL, "failed") or (chosen.error and chosen.status == ALL):
        return None
    groups = failure_groups(known_of(seen), chosen, now)
    unread = seen.unread_failures["failed"]
    if not groups and not unread:
        return None
    limit = len(groups) if chosen.status == "failed" else _GROUPS
    total = sum(len(group.records) for group in groups)
    rows = [_group(group, chosen, now) for group in groups[:limit]]
    more: h.Node = None
    if len(groups) > limit:
        more = h.a(href=query_of(TaskFilter("failed")))[f"and {len(groups) - limit:,} kinds more"]
    if unread:
        more = [more, f" {unread:,} more failed {'one is' if unread == 1 else 'ones are'} counted but not read."]
    kinds = counted(len(groups), "kind")
    if not groups:
        return h.section("#failures.groups", aria_labelledby="failed")[
            h.h2("#failed")["Failures"], h.p(".muted")["None of those that were read.", more]
        ]
    return h.section("#failures.groups", aria_labelledby="failed")[
        h.h2("#failed")[f"{counted(total, 'failure')} of {kinds}"],
        h.table[
            h.thead[h.tr[(h.th(scope="col")[name] for name in ("Count", "Error", "Type", "Last", "Action"))]],
            h.tbody[rows],
        ],
        h.p(".muted")[more] if more else None,
    ]


def _group(group: FailureGroup, chosen: TaskFilter, now: datetime) -> h.Element:
    error = quote(group.error, 200)
    here = query_of(TaskFilter("failed", error=group.key))
    types = ", ".join(shorten(name, 40) for name in group.task_types[:5])
    can = sum(not record.is_loop for record in group.records)
    retry: h.Node = None
    if can:
        name = f"Retry {can:,}"
        retry = h.form(method="post", action=f"failures/{group.key}/retry{query_of(chosen)}")[
            h.input(type="hidden", name="until", value=str(group.until)),
            h.button(".small", aria_label=Markup("{} × {}").format(name, error))[name],
        ]
    return h.tr(f"#group-{group.key}")[
        h.td[f"{len(group.records):,} ×"],
        h.td[h.a(href=here)[error]],
        h.td[h.bdi[quote(types, 200)]],
        h.td[ago(group.until, now)],
        h.td[retry],
    ]
