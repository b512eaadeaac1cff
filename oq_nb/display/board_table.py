"""The lists of a dashboard as HTML, with buttons where these are heard. Pure.

Imports of the package: `model`, `text`, and the pure half of this room.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from markupsafe import Markup

from oq_nb.display import markup
from oq_nb.display.buttons import button_of
from oq_nb.display.failures import FailureGroup
from oq_nb.display.safe import EMPTY, fill, join, quote
from oq_nb.display.selection import Selection
from oq_nb.model import TaskRecord
from oq_nb.text import ago, counted, shorten

__all__ = ["groups_html", "tables_html"]

# One style for the buttons of all rows: of what is sent every second it would be a third. Where there is little room
# the least important column goes: when a task has changed, which is among its details. Where there is too little for
# columns, a row's cells stand below each other: state, type, id and buttons, then its progress, then what it says.
_STYLE = fill(
    "<style>.oq-b{{font:inherit;color:inherit;background:none;border:1px solid;border-radius:.3em;white-space:nowrap;"
    "cursor:pointer}}.oq-b:disabled{{opacity:.7;cursor:default}}.oq-c{{container-type:inline-size}}"
    "@container (max-width:88em){{.oq-c th:nth-child(6),.oq-c td:nth-child(6){{display:none}}}}"
    "@container (max-width:60em){{.oq-c>table thead,.oq-c>table td:empty{{display:none}}"
    ".oq-c>table tr{{display:flex;flex-wrap:wrap;border-top:1px solid #8886}}"
    ".oq-c td:nth-child(4),.oq-c td:nth-child(5){{flex:1 0 100%;order:1;box-sizing:border-box}}"
    ".oq-c td:nth-child(7){{margin-left:auto}}}}</style>"
)
_CELL = "text-align:left;padding:.15em .8em .15em 0;vertical-align:top"
_GROUPS = 5  # of failures, where they are not asked for


def _button(action: str, label: str, about: str | Markup = "", *, is_enabled: bool = True, **data: str) -> Markup:
    """Return a button; its name says what it is about, its attributes what is sent when it is pressed."""
    sent = join((fill(' data-{}="{}"', name, value) for name, value in data.items()))
    called = fill(' aria-label="{} {}"', label, about) if about else EMPTY
    return fill(
        '<button class="oq-b" data-action="{}"{}{}{}>{}</button>',
        action,
        sent,
        called,
        EMPTY if is_enabled else fill(" disabled"),
        label,
    )


def _controls(record: TaskRecord) -> tuple[Markup, Markup]:
    """Return what selects a task, and its buttons."""
    name = fill("{} {}", quote(record.task_type, 60), record.id[:8])
    attempt = str(record.attempt)  # what is sent is the row's task and this
    details = _button("show", "Details", name, attempt=attempt)
    button = button_of(record)
    if button is None:
        return EMPTY, details
    box = fill('<input type="checkbox" data-attempt="{}" aria-label="Select {}"> ', attempt, name)
    action = "retry" if button.replays else "cancel"
    return box, details + fill(" ") + _button(action, button.name, name, is_enabled=button.is_enabled, attempt=attempt)


def tables_html(
    selection: Selection,
    now: datetime,
    *,
    has_worker: Callable[[TaskRecord], bool | None],
    message: str,
    groups: Markup,
    is_clickable: bool,
) -> Markup:
    """Return the tasks that are selected, those that ended lately, and what failed.

    Args:
        selection: which.
        now: the store's time.
        has_worker: whether a live worker has a handler for a task.
        message: what was done to several tasks.
        groups: the failures by their errors.
        is_clickable: buttons in it are heard.
    """
    controls = _controls if is_clickable else None

    def table(records: Sequence[TaskRecord], caption: str) -> Markup:
        return markup.tasks_html(
            records,
            now,
            caption=caption,
            has_worker=has_worker,
            controls=controls,
            action_width="13em",
        )

    made = fill('<div role="status">{}</div>', quote(message, 500))
    if is_clickable:
        made = _STYLE + made + _several([*selection.records, *selection.newest_ended])
    made += table(selection.records, selection.title) + fill('<div class="oq-g">{}</div>', groups)
    if selection.newest_ended:
        caption = f"Ended lately: {len(selection.newest_ended)} of {selection.ended_total:,}"
        caption += f"; {selection.ended_among}" if selection.ended_among else ""
        made += table(selection.newest_ended, caption)
    return fill('<div class="oq-c">{}</div>', made) if is_clickable else made


def _several(shown: Sequence[TaskRecord]) -> Markup:
    """Return what is done to the tasks that are selected."""
    kinds = {button.replays for record in shown if (button := button_of(record)) is not None}
    if not kinds:
        return EMPTY
    parts = [fill('<label><input type="checkbox" data-all> Select all on this page</label>')]
    if False in kinds:
        parts.append(_button("cancel-selected", "Cancel selected"))
    if True in kinds:
        parts.append(_button("retry-selected", "Retry selected"))
    return fill('<div style="line-height:2">{}</div>', join(parts, " "))


def groups_html(
    groups: Sequence[FailureGroup], now: datetime, *, wants_all: bool, is_clickable: bool, is_one: bool = False
) -> Markup:
    """Return failed tasks by their errors; nothing when there are none.

    Args:
        groups: the largest first.
        now: the store's time.
        wants_all: all of them, else a few.
        is_clickable: buttons in it are heard.
        is_one: the tasks of one of them are shown.
    """
    if not groups:
        return EMPTY
    shown = groups if wants_all else groups[:_GROUPS]
    total = sum(len(group.records) for group in groups)
    caption = f"{counted(total, 'failure')} of {counted(len(groups), 'kind')}"
    if len(shown) < len(groups):
        caption += f"; the {len(shown)} most frequent"
    names = ["Count", "Error", "Type", "Last", *(["Action"] if is_clickable else [])]
    every = _button("show-group", "Show all failures", group="") if is_clickable and is_one else EMPTY
    return every + fill(
        '<table style="border-collapse:collapse;width:100%;line-height:1.5">'
        '<caption style="text-align:left;padding-top:.5em;opacity:.75">{}</caption><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table>",
        caption,
        join(fill('<th scope="col" style="text-align:left;padding:0 .8em 0 0">{}</th>', name) for name in names),
        join(_group(group, now, is_clickable=is_clickable) for group in shown),
    )


def _group(group: FailureGroup, now: datetime, *, is_clickable: bool) -> Markup:
    error = quote(group.error, 200)
    cells: list[object] = [
        f"{len(group.records):,} ×",
        fill("<bdi>{}</bdi>", error),
        fill("<bdi>{}</bdi>", quote(", ".join(shorten(name, 40) for name in group.task_types[:5]), 200)),
        ago(group.until, now),
    ]
    if is_clickable:
        action = _button("show-group", "Show", error, group=group.key)
        can = sum(not record.is_loop for record in group.records)
        if can:
            action += fill(" ") + _button(
                "retry-group", f"Retry {can:,}", error, group=group.key, until=str(group.until)
            )
        cells.append(action)
    drawn = join(fill(f'<td style="{_CELL};overflow-wrap:anywhere">{{}}</td>', cell) for cell in cells)
    return fill('<tr data-key="{}">{}</tr>', f"group-{group.key}", drawn)
