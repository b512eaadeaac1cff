"""Commands that only read: ``status``, ``history``, ``list``, ``workers``, ``tail``."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from oq_nb.cli import watch as watching
from oq_nb.cli.output import JsonOption, cut, note, parse_age, say, say_json, screen_width, table
from oq_nb.cli.queue_options import IdArgument, QueueOptions, find, with_queue_options
from oq_nb.display import view
from oq_nb.display.states import status_view
from oq_nb.errors import ConfigurationError
from oq_nb.model import TaskStatus
from oq_nb.text import ago, first_line, local_time, printable, shorten

if TYPE_CHECKING:
    from datetime import datetime

    from oq_nb.model import TaskRecord
    from oq_nb.queue import Queue

__all__ = ["STATUSES", "IntervalOption", "SinceOption", "TypeOption", "add_to", "exit_code", "moment_of"]

IntervalOption = Annotated[
    float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Time between two reads of the store.")
]
STATUSES = ("pending", "running", "completed", "failed", "cancelled", "expired", "archived")
_CUTS = ((4, 20), (2, 8), (3, 0), (4, 6), (2, 4))  # of the columns of `oq list`
_WORKER_CUTS = ((6, 10), (0, 12), (2, 0))  # of `oq workers`
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only tasks that changed since: 90s, 30m, 12h, 7d, or 2026-01-28T12:30:00Z."
    ),
]
TypeOption = Annotated[str | None, typer.Option("--type", metavar="NAME", help="Only tasks of this type.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("status")(with_queue_options(status))
    app.command("history")(with_queue_options(history))
    app.command("list")(with_queue_options(list_tasks))
    app.command("workers")(with_queue_options(workers))
    app.command("tail")(with_queue_options(tail))


def exit_code(record: TaskRecord) -> int:
    """Return 1 for a task that has failed, expired or was cancelled; else 0."""
    return 1 if record.status.value in ("failed", "expired", "cancelled") else 0


def moment_of(option: str, text: str, now: datetime) -> datetime:
    """Return the instant that a user has typed: an age such as ``12h``, or a time with a zone.

    Raises:
        ConfigurationError: it is neither.
    """
    from oq_nb.model import Timestamp

    age = parse_age(text)
    if age is not None:
        return now - age
    try:
        return Timestamp.parse(text)
    except ValueError as exc:
        raise ConfigurationError(f"{option}: {text!r}: such as 30m, 12h, 7d, or 2026-01-28T12:30:00Z") from exc


def status(
    options: QueueOptions,
    task_id: IdArgument,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            "-w",
            help="Until the task ends: redrawn in place on a terminal, elsewhere one line for each change.",
        ),
    ] = False,
    interval: IntervalOption = 2.0,
    as_json: JsonOption = False,
) -> int:
    """Show the status and progress of a task.

    Exit code: 1 when the task has failed, has expired, was cancelled or does not exist; else 0.
    """
    task = find(options.connect(starts_store=False), task_id)
    if watch:
        watching.watch(task, interval, as_json=as_json)
    elif as_json:
        say_json(task.record.to_dict())
    else:
        say("\n".join(watching.StatusLines(task).now()))
    return exit_code(task.record)


def history(
    options: QueueOptions,
    task_id: IdArgument,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="COUNT", min=1, help="Show only the newest versions, this many.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Show the versions of a task, oldest first.

    One line for each version says what changed and when, from the submission to the end.
    """
    task = find(options.connect(starts_store=False), task_id)
    versions: list[TaskRecord | None] = [None]
    if limit is None:
        versions += task.history()
        first = 1
    else:  # one more is read than is shown, to tell what the first one changed
        objects, key = task.queue.store.objects, task.record.key
        first = 1 + max(0, sum(e.key == key and not e.is_delete_marker for e in objects.versions(key)) - limit)
        versions = ([] if first > 1 else [None]) + task.history(limit=limit + (first > 1))
    rows: list[tuple[str, datetime]] = []
    for number, (before, record) in enumerate(pairwise(versions), start=first):
        assert record is not None
        if as_json:
            say_json(record.to_dict())
        else:
            rows.append((view.version_line(number, record, before), record.updated_at))
    if rows:
        say("\n".join(_version_lines(rows, screen_width())))
    return 0


def _version_lines(rows: list[tuple[str, datetime]], room: int | None) -> list[str]:
    """Return the lines of a history, each with its local time; where room is short, the date only when it changes."""
    from rich.cells import cell_len

    width = max(cell_len(line) for line, _ in rows)
    times = [local_time(instant) for _, instant in rows]
    if room is not None and width + 2 + max(map(len, times)) > room:
        days = [f"{instant.astimezone():%Y-%m-%d}" for _, instant in rows]
        short = [f"{instant.astimezone():%H:%M:%S}" for _, instant in rows]
        times = [times[i] if i == 0 or days[i] != days[i - 1] else short[i] for i in range(len(rows))]
    made: list[str] = []
    for (line, _), time in zip(rows, times, strict=True):
        most = width if room is None else max(8, min(width, room - 2 - len(time)))
        shown = cut(line, most)
        made.append(f"{shown}{' ' * (most - cell_len(shown))}  {time}")
    return made


def list_tasks(
    options: QueueOptions,
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help="Only tasks that are pending, running, completed, failed, cancelled, expired or archived.",
            autocompletion=lambda: list(STATUSES),
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="The same as --status failed.")] = False,
    task_type: TypeOption = None,
    since: SinceOption = None,
    limit: Annotated[int, typer.Option("--limit", metavar="COUNT", min=1, help="Show at most this many.")] = 20,
    every: Annotated[
        bool, typer.Option("--all", help="Read every task: finds failed ones that left no entry, too.")
    ] = False,
    count: Annotated[
        bool,
        typer.Option(
            "--count", help="Print only how many tasks are ready, scheduled and running: 2 requests, for autoscalers."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """List tasks, the most recently changed first.

    A pending task is marked "no worker has this type" when no live worker has a handler for it.

    A task that fails, is cancelled or expires leaves an entry in the bucket. With --status failed, cancelled or expired
    oq reads only these entries, so other tasks do not slow it down. Workers of other programs and earlier versions of
    oq leave no entry: --all reads every task and finds theirs too.
    """
    if failed and status not in (None, "failed"):
        raise ConfigurationError(f"--failed: not together with --status {status}")
    if count:
        if status or failed or task_type or since or every:
            raise ConfigurationError(
                "--count: it counts the index, which knows no types and no ends: no filter with it"
            )
        return _count_tasks(options.connect(starts_store=False), as_json=as_json)
    status = "failed" if failed else status
    queue = options.connect(starts_store=False)
    now = queue.now()
    after = None if since is None else moment_of("--since", since, now)
    is_quick = status in ("failed", "cancelled", "expired") and not every
    if is_quick:
        found = queue.failures(status or "failed", task_type, since=after, limit=limit)
    else:
        found = queue.list(status, task_type, since=after, limit=limit)
    if as_json:
        for task in found:
            say_json(task.record.to_dict())
        return 0
    if found:
        shown = _short_ids([task.id for task in found])
        orphans = _without_worker(queue, [task.record for task in found], now)
        rows = [
            _row(short, task.record, now, is_orphan=task.id in orphans)
            for short, task in zip(shown, found, strict=True)
        ]
        say(table(("ID", "STATUS", "TYPE", "CHANGED", "PROGRESS"), rows, cuts=_CUTS, status_column=1))
    if is_quick and len(found) < limit:
        note(f"{len(found) or 'no'} {status} left an entry of their end; --all reads every task, those of others too")
    elif not found:  # what is on stdout is always a list
        note("no such task" if status or task_type or since else "no task yet: oq submit adds one")
    return 0


def _count_tasks(queue: Queue, *, as_json: bool) -> int:
    counts = queue.counts()
    if as_json:
        say_json(counts)
    else:
        say("  ".join(f"{number} {state}" for state, number in counts.items()))
    return 0


def _short_ids(ids: list[str]) -> list[str]:
    """Return beginnings that tell these ids apart, of eight characters or more."""
    length = 8
    while length < 36 and len({task_id[:length] for task_id in ids}) < len(set(ids)):
        length += 1
    return [task_id[:length] for task_id in ids]


def _without_worker(queue: Queue, records: list[TaskRecord], now: datetime) -> set[str]:
    """Return the pending ones that no live worker has a handler for. Requests: none, or as `Queue.workers`."""
    from oq_nb.queue.watcher import has_handler

    waiting = [record for record in records if record.status.value == "pending" and record.available_at <= now]
    workers = queue.workers() if waiting else []
    return {record.id for record in waiting if has_handler(workers, record, now) is False}


def _row(short: str, record: TaskRecord, now: datetime, *, is_orphan: bool) -> tuple[str, str, str, str, str]:
    state = status_view(record, now)
    parts: list[str] = []
    progress = None if record.is_whole or record.status is TaskStatus.PENDING else record.last_progress
    error = record.last_error if record.status.is_terminal or progress is None else None
    if progress is not None and error:  # which says more than the message of before
        parts += [numbers] if (numbers := view.numbers_line(progress, state)) else []
    elif progress is not None:
        parts += view.progress_parts(progress, state, message_limit=1000)
    if error:
        parts.append(first_line(error if record.status is TaskStatus.CANCELLED else view.last_line(error)))
    elif record.status is TaskStatus.PENDING and record.available_at > now:
        parts.append(f"starts {ago(record.available_at, now)}")
    elif is_orphan:
        parts.append("no worker has this type")
    kind = printable(shorten(record.task_type, 40))
    return short, state.text, kind, ago(record.updated_at, now), "  ".join(parts)


def workers(options: QueueOptions, as_json: JsonOption = False) -> int:
    """List the workers and what they are doing.

    This is what their last heartbeats say. A worker that has sent none for a minute is shown as silent: it has probably
    died.
    """
    from oq_nb.queue.watcher import is_alive

    queue = options.connect(starts_store=False)
    found = queue.workers()
    now = queue.now()
    if as_json:
        for worker in found:
            say_json(worker.to_dict() | {"is_alive": is_alive(worker, now)})
        return 0
    rows = [
        (
            printable(shorten(worker.worker_id, 50)),
            "alive" if is_alive(worker, now) else "silent",
            ago(worker.last_heartbeat, now),
            str(len(worker.current_tasks or ([worker.current_task] if worker.current_task else []))),
            str(worker.tasks_completed),
            str(worker.tasks_failed),
            printable(", ".join(shorten(name, 40) for name in worker.task_types or ["?"])),
        )
        for worker in found
    ]
    if rows:
        headers = ("WORKER", "STATE", "HEARTBEAT", "BUSY", "COMPLETED", "FAILED", "TYPES")
        say(table(headers, rows, cuts=_WORKER_CUTS))
    else:
        note("no worker: oq worker MODULE starts one")
    return 0


def tail(
    options: QueueOptions,
    task_type: TypeOption = None,
    interval: IntervalOption = 2.0,
    as_json: JsonOption = False,
) -> int:
    """Print a line for every task that changes.

    It runs until Ctrl-C. A task that changes several times between two reads is printed once, in its newest state.
    """
    if task_type is not None and not task_type.strip():
        raise ConfigurationError("--type: it is empty")
    watching.tail(options.connect(starts_store=False), interval, task_type=task_type, as_json=as_json)
    return 0
