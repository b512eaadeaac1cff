"""Commands about how tasks ended: ``result``, ``wait``, ``failures``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oq_nb.cli.output import JsonOption, complain, is_screen, note, say, say_json, table
from oq_nb.cli.queries import SinceOption, TypeOption, exit_code, moment_of
from oq_nb.cli.queue_options import IdArgument, IdsArgument, QueueOptions, find, with_queue_options
from oq_nb.display.failures import FailureGroup, group_failures
from oq_nb.display.view import task_line
from oq_nb.errors import TransitionError, WaitTimeoutError
from oq_nb.text import ago, counted, printable, shorten

if TYPE_CHECKING:
    from datetime import datetime

    from oq_nb.queue import Queue

__all__ = ["add_to"]

_TIMED_OUT = 124  # as timeout(1) has it
_CUTS = ((3, 8), (2, 0), (1, 20))  # of the columns of `oq failures`


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("result")(with_queue_options(result))
    app.command("wait")(with_queue_options(wait))
    app.command("failures")(with_queue_options(failures))


def result(options: QueueOptions, task_id: IdArgument, as_json: JsonOption = False) -> int:
    """Print the output of a completed task, as JSON.

    Exit code: 1 when the task has not completed; the reason is on stderr.
    """
    del as_json  # it is JSON either way
    task = find(options.connect(starts_store=False), task_id)
    if not task.is_done:
        complain(f"task {task.id} is {task.status}: oq wait {task.id[:8]} waits for its end")
        return 1
    if exit_code(task.record):
        complain(task_line(task.record, task.queue.now()))
        return 1
    say_json(task.output)
    return 0


def wait(
    options: QueueOptions,
    task_ids: IdsArgument,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="Wait no longer than this.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Wait for tasks to end; print a line for each one.

    Exit code: 0 when all have completed; 1 when one has failed, has expired, was cancelled or does not exist; 124 when
    --timeout is reached before.
    """
    from oq_nb.queue.groups import as_completed

    queue = options.connect(starts_store=False)
    tasks = [find(queue, text) for text in task_ids]
    code = 0
    try:
        for task in as_completed(tasks, timeout, progress=False):
            code = max(code, exit_code(task.record))
            if as_json:
                say_json(task.record.to_dict())
            else:
                say(f"{task.id}  {task_line(task.record, queue.now()).replace(f' {task.id[:8]} ', ' ', 1)}")
    except WaitTimeoutError as exc:
        complain(str(exc))
        return _TIMED_OUT
    return code


def failures(
    options: QueueOptions,
    task_type: TypeOption = None,
    since: SinceOption = None,
    retry: Annotated[
        str | None,
        typer.Option("--retry", metavar="ID", help="Run again all tasks that failed with the same error as this one."),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", metavar="COUNT", min=1, help="Read at most this many failed tasks.")
    ] = 1000,
    as_json: JsonOption = False,
) -> int:
    """List failed tasks by error, the most frequent first.

    Messages that differ only in numbers or ids count as the same error. It reads the entries that oq's workers leave
    for failed tasks; oq list --failed --all also finds tasks that failed in other programs.

    Exit code: 1 when --retry names a task that is not in the list, or a task could not be run again.
    """
    queue = options.connect(starts_store=False)
    now = queue.now()
    after = None if since is None else moment_of("--since", since, now)
    found = queue.failures(task_type=task_type, since=after, limit=limit)
    groups = group_failures(task.record for task in found)
    if retry is not None:
        return _retry(queue, groups, find(queue, retry).id, as_json=as_json)
    if as_json:
        for group in groups:
            say_json(_as_dict(group))
    elif groups:
        rows = [_row(group, now) for group in groups]
        say(table(("COUNT", "ERROR", "LAST", "TYPE", "NEWEST"), rows, cuts=_CUTS))
        if len(found) == limit:
            note(f"these are the newest {limit:,}: --limit reads more")
        elif is_screen():
            note("oq failures --retry NEWEST runs all tasks of a line again")
    else:
        note("no failed task left an entry; oq list --failed --all reads every task")
    return 0


def _row(group: FailureGroup, now: datetime) -> tuple[str, ...]:
    newest = group.records[0]
    types = ", ".join(printable(shorten(name, 40)) for name in group.task_types)
    last = ago(newest.ended_at or newest.updated_at, now)
    return f"{len(group.records):,}", printable(shorten(group.error, 200)), last, types, newest.id[:8]


def _as_dict(group: FailureGroup) -> dict[str, Any]:
    newest = group.records[0]
    return {
        "error": group.error,
        "count": len(group.records),
        "task_types": group.task_types,
        "last_at": str(newest.ended_at),
        "task_ids": [record.id for record in group.records],
    }


def _retry(queue: Queue, groups: list[FailureGroup], task_id: str, *, as_json: bool) -> int:
    from oq_nb.queue import actions

    group = next((group for group in groups if any(record.id == task_id for record in group.records)), None)
    if group is None:
        complain(f"--retry: task {task_id} is not among these failed tasks; oq failures lists them")
        return 1
    code = 0
    for record in group.records:
        try:
            done = actions.replay(queue, record.id, attempt=record.attempt)
        except TransitionError as exc:
            complain(str(exc))
            code = 1
            continue
        if as_json:
            say_json(done.task.record.to_dict())
        else:
            say(f"{record.id} {done.brief}")
    if not as_json:
        note(f"{counted(len(group.records), 'task')} with the error {json.dumps(printable(shorten(group.error, 80)))}")
    return code
