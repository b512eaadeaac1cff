"""What tasks, workers and queues look like as HTML: pure functions to HTML with no script and no style sheet.

Invariants:

* Every text goes through `oq_nb.display.safe`, which escapes what is not HTML by its type.
* It stands without a kernel, without styles (GitHub takes them away) and without ``aria-`` attributes (so do notebooks
  that are not trusted): a native ``<progress>`` in its ``<label>``, states in words, errors folded in ``<details>``.
* No colour of its own for text and background, so that it reads in light and dark.

Imports of the package: `model`, `text`, `safe`, `view`, `sparkline`, `times`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache

from markupsafe import Markup

from oq_nb.display import view
from oq_nb.display.safe import EMPTY, fill, join, quote
from oq_nb.display.sparkline import message_beside, numbers_html
from oq_nb.display.states import TONES, StatusView, status_view, tone_of_count
from oq_nb.display.times import end_line, time_facts
from oq_nb.display.tracebacks import own_part
from oq_nb.model import Progress, TaskRecord, TaskStatus, WorkerRecord
from oq_nb.text import ago, duration, first_line, local_time, shorten

__all__ = [
    "Controls",
    "as_in_a_widget",
    "bar",
    "counts_html",
    "error_html",
    "group_html",
    "more_html",
    "muted",
    "output_html",
    "pill",
    "progress_html",
    "task_html",
    "task_row",
    "tasks_html",
    "worker_html",
    "workers_html",
]

#: Of a row: what selects its task, before the state, and what is done to it, in a column of its own.
Controls = Callable[[TaskRecord], tuple[Markup, Markup]]

# Of each tone, as HTML.
COLOURS = {name: fill("{}", tone.colour) for name, tone in TONES.items()}
_DARK = {name: fill("{}", tone.dark) for name, tone in TONES.items()}
_SIGNS = {name: fill("{}", tone.sign) for name, tone in TONES.items()}
_MUTED = "opacity:.75"
_WRAP = "overflow-wrap:anywhere"
# The same in a widget and in an output, so that nothing jumps when one becomes the other; as it is around elsewhere.
_FONT = "font-size:var(--jp-ui-font-size1,inherit);font-family:var(--jp-ui-font-family,inherit)"
_CELL = "text-align:left;padding:.15em .8em .15em 0;vertical-align:top"
_NARROW = f"{_CELL};white-space:nowrap"
_WIDE = f"{_CELL};{_WRAP}"
_COLUMNS = {"Status": "10.5em", "Type": "11%", "Task": "6em", "Progress": "20%", "Remark": "", "Changed": "10em"}
_PRE = f'<pre style="white-space:pre-wrap;{_WRAP};max-height:24em;overflow:auto;margin:.3em 0">{{}}</pre>'
_ERROR_CHARS = 10_000
_OUTPUT_CHARS = 2_000


# Templates of what is drawn for every task several times a second; `fill` puts the values in.
_BAR_STYLE = "width:100%;height:1em;accent-color:{tone};accent-color:light-dark({tone},{dark})"
_BAR = f'<progress max="100" value="{{value}}"{{said}} style="{_BAR_STYLE}">{{value}}%</progress>'
_ENDLESS_BAR = f'<progress max="100"{{said}} style="{_BAR_STYLE}"></progress>'
_ROW = (
    f'<tr{{mark}}><td style="{_NARROW}">{{before}}{{pill}}</td><td style="{_WIDE}"><bdi>{{kind}}</bdi></td>'
    f'<td style="{_NARROW}">{{name}}</td>{{said}}<td style="{_NARROW}">{{changed}}</td>{{action}}</tr>'
)
_ACTION = f'<td style="{_CELL}">{{}}</td>'
_TWO_CELLS = f'<td style="{_WIDE}">{{}}</td><td style="{_WIDE}"><span dir="auto">{{}}</span></td>'


@lru_cache(maxsize=256)
def _pill(word: str, tone: str) -> Markup:
    return fill(
        '<span style="display:inline-block;padding:0 .6em;border-radius:1em;color:#fff;white-space:nowrap;'
        'background:{}">{}&nbsp;{}</span>',
        COLOURS[tone],
        _SIGNS[tone],
        word,
    )


def pill(status: StatusView) -> Markup:
    """Return a status as a sign, a word and a colour."""
    return _pill(status.word, status.tone)


def bar(percent: int | None, tone: str = "running", *, said: str = "") -> Markup:
    """Return a native progress bar; one without a value when ``percent`` is None.

    Args:
        percent: 0 to 100.
        tone: of the colour.
        said: what a screen reader says instead of the percentage.
    """
    spoken = fill(' aria-valuetext="{}"', said) if said else EMPTY
    if percent is None:
        return fill(_ENDLESS_BAR, said=spoken, tone=COLOURS[tone], dark=_DARK[tone])
    return fill(_BAR, value=int(percent), said=spoken, tone=COLOURS[tone], dark=_DARK[tone])


def muted(said: object) -> Markup:
    """Return a line of less weight."""
    return fill(f'<div style="{_MUTED};{_WRAP}">{{}}</div>', said)


def _line(said: object) -> Markup:
    return fill(f'<div style="{_WRAP}">{{}}</div>', said)


def _message(text: str | None) -> Markup:
    """Return a message as a line; its direction is its own."""
    return fill(f'<div dir="auto" style="{_WRAP}">{{}}</div>', quote(text)) if text else EMPTY


def _framed(tone: str, inner: Markup) -> Markup:
    return fill(
        '<div style="border-left:4px solid {};padding:.1em 0 .1em .8em;margin:.2em 0;max-width:46em;line-height:1.6;'
        f'{_FONT}">{{}}</div>',
        COLOURS[tone],
        inner,
    )


def as_in_a_widget(made: Markup) -> Markup:
    """Return HTML in the font and size of JupyterLab's widgets."""
    return fill(f'<div style="{_FONT}">{{}}</div>', made)


def _name(text: str, limit: int) -> Markup:
    """Return a name from the bucket: cut, and with a direction of its own."""
    return fill("<bdi>{}</bdi>", quote(text, limit))


# --- a task


def task_html(
    record: TaskRecord | None,
    now: datetime,
    *,
    task_id: str | None = None,
    status: StatusView | None = None,
    last_progress: Progress | None = None,
    is_live: bool = False,
) -> Markup:
    """Return a task with its status, bar, counts, message, attempt and worker; without its error and output.

    Args:
        record: the task as last seen; None when it was not seen yet.
        now: the store's time.
        task_id: which task, when there is no record.
        status: what `states.status_view` says of it; None to ask it here.
        last_progress: what it last reported before it ended, when that is known.
        is_live: it is refreshed: instants are given as distances from now, else as dates.
    """
    state = status or status_view(record, now)
    parts = [fill("<div>{}</div>", _state_line(record, task_id, state, last_progress))]
    if record is not None:
        progress = record.last_progress or (last_progress if record.status is not TaskStatus.PENDING else None)
        if progress is not None:
            parts += [_message(message_beside(progress)), numbers_html(progress)]
        parts.append(muted(join(_facts(record, progress, now, is_live=is_live), " · ")))
    sign = fill("<b>{}</b> ", _SIGNS[state.tone]) if state.tone in ("warning", "bad") else EMPTY
    parts += [_line(join([sign, note])) for note in state.notes]
    return _framed(state.tone, join(parts))


def _state_line(
    record: TaskRecord | None, task_id: str | None, state: StatusView, last_progress: Progress | None
) -> Markup:
    """Return status, type, short id and bar; the bar's label names the task and says how far it is."""
    if record is None:
        return fill("{} <code>{}</code>", pill(state), quote((task_id or "")[:8]))
    name = fill('<b>{}</b> <code title="{}">{}</code>', _name(record.task_type, 100), record.id, record.id[:8])
    progress = record.progress
    if record.status is TaskStatus.RUNNING:
        line = view.progress_line(progress, state) if progress is not None else ""
        said = line or "no report yet"
        percent = progress.percent if progress is not None else None
        drawn = bar(percent, state.tone, said=f"{line}, {state.word}" if line else state.word)
    elif record.is_whole:
        said, drawn = "100%", bar(100, state.tone)
    elif record.status.is_terminal:
        reached = record.last_progress or last_progress
        if reached is None or (reached.percent is None and reached.current is None):
            return fill("{} {}", pill(state), name)
        said = _end_words(record, reached, state)
        if reached.percent is None:
            return fill("{} {} · {}", pill(state), name, said)
        drawn = bar(reached.percent, state.tone, said=said)
    else:
        return fill("{} {}", pill(state), name)
    return fill('<label style="display:block">{} {} · <span>{}</span><br>{}</label>', pill(state), name, said, drawn)


def _end_words(record: TaskRecord, reached: Progress, state: StatusView) -> str:
    """Return how far a task was when it ended: a loop that was left has completed, and not all of its items."""
    line = view.progress_line(reached, state)
    is_whole = reached.percent is None or reached.percent == 100
    if record.has_completed:
        return line if is_whole else f"left at {line}"
    return f"stopped at {line}"


def _facts(record: TaskRecord, progress: Progress | None, now: datetime, *, is_live: bool) -> list[str | Markup]:
    facts: list[str | Markup] = [*time_facts(record, now, is_live=is_live)]
    if record.status is TaskStatus.RUNNING:
        if progress is not None:
            facts.append(f"last report {_when(progress.updated_at, now, is_live=is_live)}")
        elif record.started_at is None:
            facts.append(f"started or renewed {_when(record.updated_at, now, is_live=is_live)}")
    if record.retry_count:
        facts.append(f"attempt {record.attempt}, retry {record.retry_count} of {record.max_retries}")
    elif record.attempt:
        facts.append(f"attempt {record.attempt}")
    if record.worker_id or record.last_worker_id:
        facts.append(fill("worker {}", _name(record.worker_id or record.last_worker_id or "", 80)))
    return facts


def _when(instant: datetime, now: datetime, *, is_live: bool) -> str:
    return ago(instant, now) if is_live else local_time(instant)


def more_html(record: TaskRecord) -> Markup:
    """Return a task's error and output, to stand below `task_html`; nothing when it has neither."""
    more = error_html(record) + output_html(record)
    style = f"padding-left:calc(4px + .8em);max-width:46em;{_FONT}"
    return fill(f'<div style="{style}">{{}}</div>', more) if more else EMPTY


def error_html(record: TaskRecord) -> Markup:
    """Return a task's last error, folded; nothing when it has none or says it elsewhere.

    The handler's own frames come first; where others are between and below them, these are in a fold of their own.
    """
    if not record.last_error or record.status is TaskStatus.CANCELLED:
        return EMPTY
    summary = fill("Last error: {}", quote(view.last_line(record.last_error).strip(), 200))
    body = fill(_PRE, quote(record.last_error, _ERROR_CHARS, keep_newlines=True))
    own = own_part(record.last_error)
    if not own:
        return _folded(summary, body)
    first = fill(_PRE, quote(own, _ERROR_CHARS, keep_newlines=True))
    return _folded(summary, first + _folded(fill("All frames, those of libraries too"), body))


def output_html(record: TaskRecord) -> Markup:
    """Return what a completed task returned, folded when it is long."""
    if record.status is not TaskStatus.COMPLETED:
        return EMPTY
    if record.output_ref is not None:
        said = "Its output is large and held apart: <code>task.output</code> reads it."
        return fill(f'<div style="{_MUTED}">{said}</div>')
    if record.output is None:
        return EMPTY
    text = json.dumps(record.output, ensure_ascii=False)
    if len(text) <= 100:
        return _line(fill("Output: <code>{}</code>", text))
    return _folded(fill("Output: <code>{}</code>", quote(text, 80)), fill(_PRE, quote(text, _OUTPUT_CHARS)))


def _folded(summary: Markup, body: Markup) -> Markup:
    return fill(
        f'<details style="{_WRAP};line-height:1.6"><summary style="cursor:pointer">{{}}</summary>{{}}</details>',
        summary,
        body,
    )


def progress_html(progress: Progress) -> Markup:
    """Return progress alone."""
    line = view.progress_line(progress)
    return fill(
        '<div style="max-width:46em"><label style="display:block">{}<br>{}</label>{}'
        f'<div style="{_MUTED}">updated {{}}</div></div>',
        line,
        bar(progress.percent, said=line),
        _message(message_beside(progress)) + numbers_html(progress),
        local_time(progress.updated_at),
    )


# --- a queue


def not_in_counts(uncounted: int | None, unlisted: int, unreadable: int) -> str:
    """Return what there is besides the tasks whose status is known, in words; empty for nothing.

    Args:
        uncounted: ended tasks of which that is all that is known.
        unlisted: tasks of which nothing is known but that they are there.
        unreadable: tasks whose objects cannot be read.
    """
    parts = [
        f"{uncounted:,} more that ended, with no failure noted" if uncounted else "",
        f"{unlisted:,} more that may be pending, running or ended: they were not read" if unlisted else "",
        f"{unreadable:,} that cannot be read" if unreadable else "",
    ]
    return "".join(f" and {part}" for part in parts if part).strip()


def counts_html(
    counts: Mapping[str, int],
    uncounted: int | None = None,
    *,
    unlisted: int = 0,
    unreadable: int = 0,
    link: str = "",
) -> Markup:
    """Return tasks by status, as signs, words and numbers.

    Args:
        counts: by status.
        uncounted: as for `not_in_counts`.
        unlisted: the same.
        unreadable: the same.
        link: where each leads, with ``{}`` for the status; empty for nowhere.
    """
    order = ["running", "pending", "completed", "failed", "cancelled", "expired", "archived"]
    shown = [name for name in order if counts.get(name) or name in ("running", "pending")]
    pills = [
        fill(
            '<span style="white-space:nowrap;border:1px solid {};border-radius:1em;padding:0 .6em">{} <b>{}</b> {}'
            "</span>",
            COLOURS[tone_of_count(name)],
            _SIGNS[tone_of_count(name)],
            f"{counts.get(name, 0):,}",
            fill('<a href="{}">{}</a>', link.format(name), name) if link else name,
        )
        for name in shown
    ]
    besides = not_in_counts(uncounted, unlisted, unreadable)
    if besides:
        pills.append(fill(f'<span style="{_MUTED}">{{}}</span>', besides))
    return fill('<div style="line-height:2">{}</div>', join(pills, " "))


def task_row(
    record: TaskRecord,
    now: datetime,
    *,
    is_live: bool = True,
    link: str | None = None,
    has_worker: bool | None = None,
    controls: Controls | None = None,
) -> Markup:
    """Return a task as a row of a table: status, type, id, bar, what there is to say.

    Args:
        record: the task.
        now: the store's time.
        is_live: it is refreshed: instants are given as distances from now, else as dates.
        link: where its id leads, with ``{}`` for the id; the row is marked with the id then, too.
        has_worker: as for `states.status_view`.
        controls: what selects it and what is done to it; None for neither.
    """
    state = status_view(record, now, has_worker=has_worker)
    before, action = controls(record) if controls is not None else (EMPTY, None)
    middle, remark = _row_words(record, state, now)
    name, mark = fill('<code title="{}">{}</code>', record.id, record.id[:8]), EMPTY
    if link is not None:
        name = fill('<a href="{}">{}</a>', link.format(record.id), name)
    if link is not None or controls is not None:
        mark = fill(' data-key="{}"', record.id)
    return fill(
        _ROW,
        mark=mark,
        before=before,
        pill=pill(state),
        kind=quote(record.task_type, 60),
        name=name,
        said=fill(_TWO_CELLS, middle, remark),
        changed=_changed(record.updated_at, now, is_live=is_live),
        action=fill(_ACTION, action) if action is not None else EMPTY,
    )


def _row_words(record: TaskRecord, state: StatusView, now: datetime) -> tuple[str | Markup, str | Markup]:
    """Return what stands under Progress and under Remark."""
    progress = record.progress
    if record.status is TaskStatus.RUNNING:
        line = view.progress_line(progress, state) if progress is not None else "no report yet"
        percent = progress.percent if progress is not None else None
        drawn = bar(percent, state.tone, said=line)
        middle = fill(
            '<label style="display:block">{}<br>{}</label>', drawn, join([line, *_ran_for(record, now)], " · ")
        )
        if state.notes:
            return middle, shorten(state.notes[0], 200)
        said = quote(message_beside(progress), 120) if progress is not None and progress.message else EMPTY
        return middle, said + numbers_html(progress, most=2) if progress is not None else said
    if record.status is TaskStatus.PENDING:
        first, *rest = state.notes
        return (first, join(rest, " ")) if rest else (EMPTY, first)  # both in one narrow column would be a tall row
    reached = None if record.is_whole else record.last_progress
    took = end_line(record)
    middle = fill("{}", took)
    if reached is not None:
        line = ", ".join(part for part in (_end_words(record, reached, state), took) if part)
        drawn = bar(reached.percent, state.tone, said=line) + fill("<br>") if reached.percent is not None else EMPTY
        middle = fill('<label style="display:block">{}{}</label>', drawn, line)
        if record.has_completed:  # its output says no more
            return middle, EMPTY
    if record.last_error:
        return middle, first_line(view.last_line(record.last_error), 200)
    if record.output is not None:
        return middle, fill("<code>{}</code>", quote(json.dumps(record.output, ensure_ascii=False), 80))
    return middle, EMPTY


def _ran_for(record: TaskRecord, now: datetime) -> list[str]:
    """Return for how long the present attempt has been running, where that is known."""
    if record.started_at is None:
        return []
    return [f"running for {duration((now - record.started_at).total_seconds())}"]


def _changed(instant: datetime, now: datetime, *, is_live: bool) -> str | Markup:
    """Return an instant for a narrow column: its time on the day of ``now``, else its date."""
    if is_live:
        return ago(instant, now)
    local = instant.astimezone()
    is_today = local.date() == now.astimezone().date()
    return fill('<span title="{}">{}</span>', local_time(instant), f"{local:%H:%M:%S %Z}" if is_today else local.date())


def tasks_html(
    records: Iterable[TaskRecord],
    now: datetime,
    *,
    caption: str | Markup,
    is_live: bool = True,
    link: str | None = None,
    has_worker: Callable[[TaskRecord], bool | None] = lambda _: None,
    controls: Controls | None = None,
    action_width: str = "7em",
) -> Markup:
    """Return tasks as a table; ``is_live``, ``link`` and ``controls`` as for `task_row`.

    Args:
        records: the tasks.
        now: the store's time.
        caption: what they are.
        is_live: see there.
        link: see there.
        has_worker: whether a live worker has a handler for a task; None where that is not known.
        controls: see there.
        action_width: of the column of ``controls``.
    """
    rows = join(
        task_row(
            record,
            now,
            is_live=is_live,
            link=link,
            has_worker=has_worker(record) if record.status is TaskStatus.PENDING else None,
            controls=controls,
        )
        for record in records
    )
    if not rows:
        rows = fill(f'<tr><td colspan="{len(_COLUMNS)}" style="text-align:left;{_MUTED}">none</td></tr>')
    return fill(
        '<table style="border-collapse:collapse;width:100%;table-layout:fixed;line-height:1.5">'
        f'<caption style="text-align:left;padding-top:.5em;{_MUTED}">{{}}</caption><thead><tr>{{}}</tr></thead>'
        "<tbody>{}</tbody></table>",
        caption,
        _head() if controls is None else _head(action_width),
        rows,
    )


@lru_cache(maxsize=8)
def _head(action_width: str = "") -> Markup:
    """Return the heads of the columns; with a width, of a column of buttons too."""
    columns = _COLUMNS | ({"Status": "12em", "Action": action_width} if action_width else {})
    return join(
        fill(
            '<th scope="col" style="text-align:left;box-sizing:border-box;padding:0 .8em 0 0{}">{}</th>',
            f";width:{width}" if width else "",
            name,
        )
        for name, width in columns.items()
    )


def workers_html(workers: Sequence[WorkerRecord], now: datetime, *, limit: int = 20) -> Markup:
    """Return the registered workers with their last heartbeats; silent ones are called so."""
    if not workers:
        return fill(f'<div style="{_MUTED}">No worker is registered.</div>')
    newest = sorted(workers, key=lambda worker: worker.last_heartbeat, reverse=True)[:limit]
    lines = [_worker_line(worker, now) for worker in newest]
    if len(workers) > limit:
        lines.append(fill("<li>and {} more</li>", f"{len(workers) - limit:,}"))
    return fill('<ul style="margin:.2em 0;padding-left:0;list-style:none;line-height:1.6">{}</ul>', join(lines))


def _worker_line(worker: WorkerRecord, now: datetime) -> Markup:
    silent = (now - worker.last_heartbeat).total_seconds() > 60
    busy = len(worker.current_tasks or ([worker.current_task] if worker.current_task else []))
    types = join((quote(name, 40) for name in (worker.task_types or [])[:10]), ", ")
    return fill(
        f'<li style="{_WRAP}"><b>{{}} {{}}</b>{{}}, heartbeat {{}}, {{}} running, {{}} completed, {{}} failed{{}}</li>',
        _SIGNS["warning" if silent else "good"],
        _name(worker.worker_id, 80),
        " silent" if silent else "",
        ago(worker.last_heartbeat, now),
        busy,
        f"{worker.tasks_completed:,}",
        f"{worker.tasks_failed:,}",
        fill(": {}", types) if types else EMPTY,
    )


def worker_html(worker: WorkerRecord, *, is_running: bool, concurrency: int) -> Markup:
    """Return a worker of this process.

    Args:
        worker: what it would say of itself.
        is_running: whether its threads run.
        concurrency: tasks at a time.
    """
    state = StatusView("running", "running") if is_running else StatusView("stopped", "off")
    current = worker.current_tasks or []
    types = join((fill("<code>{}</code>", quote(name, 60)) for name in worker.task_types or []), ", ")
    tasks = join((fill("<code>{}</code>", quote(task_id, 40)) for task_id in current[:10]), ", ")
    hint = fill(f'<div style="{_MUTED}"><code>worker.start()</code> starts it in the background.</div>')
    return fill(
        "<div>{} <b>worker {}</b></div><div>{} of {} busy · {} completed · {} failed</div><div>Handles: {}</div>{}{}",
        pill(state),
        _name(worker.worker_id, 80),
        len(current),
        concurrency,
        f"{worker.tasks_completed:,}",
        f"{worker.tasks_failed:,}",
        types or "no handlers yet",
        fill("<div>Runs: {}</div>", tasks) if tasks else EMPTY,
        EMPTY if is_running else hint,
    )


# --- several tasks that are waited for


def group_html(counts: Mapping[str, int], total: int, seconds: float) -> Markup:
    """Return a bar for a group of tasks.

    Args:
        counts: tasks by status; ``deleted`` for those that are gone.
        total: tasks of the group.
        seconds: since it has been waited for.
    """
    done, line = view.group_line(counts, total, seconds)
    state = view.group_state(counts, total)
    percent = done * 100 // total if total else 100
    drawn = bar(percent, state.tone, said=line)
    return _framed(state.tone, fill('<label style="display:block">{} {}<br>{}</label>', pill(state), line, drawn))
