"""Commands that change tasks: ``submit``, ``cancel``, ``replay``, ``archive``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oq_nb.cli import watch as watching
from oq_nb.cli.output import JsonOption, complain, confirm, name_of, note, say, say_json
from oq_nb.cli.queries import IntervalOption, exit_code
from oq_nb.cli.queue_options import IdsArgument, QueueOptions, find, with_queue_options
from oq_nb.errors import ConfigurationError, TaskNotFoundError, TransitionError
from oq_nb.queue import actions
from oq_nb.text import counted, printable

if TYPE_CHECKING:
    from oq_nb.queue import Queue
    from oq_nb.queue.task import Task

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("submit")(with_queue_options(submit))
    app.command("cancel")(with_queue_options(cancel))
    app.command("replay")(with_queue_options(replay))
    app.command("archive")(with_queue_options(archive))


def submit(
    options: QueueOptions,
    task_type: Annotated[str, typer.Argument(metavar="TYPE", help="Task type: the name of its handler.")],
    task_input: Annotated[
        str | None,
        typer.Argument(metavar="INPUT", help="Input as JSON; @FILE reads it from a file, @- from standard input."),
    ] = None,
    timeout: Annotated[
        int,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=1,
            help="Length of the lease: when its worker dies, another one takes the task over after this time.",
        ),
    ] = 300,
    retries: Annotated[
        int,
        typer.Option("--retries", metavar="COUNT", min=0, help="How often the task is tried again after a failure."),
    ] = 3,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help="Do not start it before this time, e.g. 2026-01-28T12:30:00Z."),
    ] = None,
    ttl: Annotated[
        float | None,
        typer.Option(
            "--ttl", metavar="SECONDS", help="The task expires when no worker has started it after this time."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="TEXT", help="Idempotency key: a second task with the same key is not added."),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Watch the task until it ends.")] = False,
    interval: IntervalOption = 2.0,
    as_json: JsonOption = False,
) -> int:
    """Submit a task and print its id."""
    value = _json_of(task_input)
    moment = None if at is None else _moment(at)
    task = options.connect().submit(
        task_type,
        value,
        timeout_seconds=timeout,
        max_retries=retries,
        schedule_at=moment,
        ttl_seconds=ttl,
        idempotency_key=key,
    )
    if watch:
        watching.watch(task, interval, as_json=as_json)
        return exit_code(task.record)
    if as_json:
        say_json(task.record.to_dict())
    else:
        say(task.id)
    return 0


def _json_of(text: str | None) -> Any:
    if text is None:
        return None
    source = "INPUT"
    if text.startswith("@"):
        source = "standard input" if text == "@-" else text[1:]
        try:
            text = sys.stdin.read() if text == "@-" else Path(text[1:]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigurationError(f"{source}: cannot be read: {exc}") from exc
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ConfigurationError(f"{source}: not JSON: {exc} (text needs quotes: '\"text\"')") from exc


def _moment(text: str) -> datetime:
    from oq_nb.model import Timestamp

    try:
        return Timestamp.parse(text)
    except ValueError as exc:
        raise ConfigurationError(f"--at: {text!r}: {exc}, such as 2026-01-28T12:30:00Z") from exc


def cancel(
    options: QueueOptions,
    task_ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Task ids, or unique prefixes of them.")
    ] = None,
    task_type: Annotated[
        str | None,
        typer.Option("--type", metavar="NAME", help="Cancel all pending and running tasks of this type; without ids."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="With --type: do not ask for confirmation.")] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="TEXT", help="Why; it is stored with the task.")
    ] = None,
    as_json: JsonOption = False,
) -> int:
    """Cancel tasks, or ask running ones to stop.

    A pending task is cancelled at once. A running one is asked to stop; its handler sees that at its next progress
    report. With --type, oq asks for confirmation first; without a terminal to ask on, --yes is needed.

    Exit code: 1 when one of the tasks has already ended or does not exist.
    """

    def change(task: Task) -> tuple[Task, str]:
        done = actions.cancel(task.queue, task.id, reason)
        return done.task, done.brief

    if (task_type is None) == (not task_ids):
        raise ConfigurationError("cancel: task ids are needed, or --type, not both")
    queue = options.connect(starts_store=False)
    if task_type is None:
        return _each(queue, task_ids or [], change, as_json=as_json)
    tasks = [task for status in ("pending", "running") for task in queue.list(status, task_type, limit=None)]
    ids = list(dict.fromkeys(task.id for task in tasks))
    if not ids:
        note(f"no pending or running task has the type {printable(task_type)}")
        return 0
    confirm(f"Cancel {counted(len(ids), 'task')} of type {printable(task_type)} in {name_of(queue)}?", yes=yes)
    return _each(queue, ids, change, as_json=as_json)


def replay(options: QueueOptions, task_ids: IdsArgument, as_json: JsonOption = False) -> int:
    """Run finished tasks again; their retries are counted from zero.

    Exit code: 1 when one of the tasks has not ended or does not exist.
    """

    def change(task: Task) -> tuple[Task, str]:
        done = actions.replay(task.queue, task.id)
        return done.task, done.brief

    return _each(options.connect(starts_store=False), task_ids, change, as_json=as_json)


def archive(options: QueueOptions, task_ids: IdsArgument, as_json: JsonOption = False) -> int:
    """Archive finished tasks.

    Exit code: 1 when one of the tasks has not ended or does not exist.
    """

    def change(task: Task) -> tuple[Task, str]:
        return task.queue.archive(task.id), "is archived"

    return _each(options.connect(starts_store=False), task_ids, change, as_json=as_json)


def _each(queue: Queue, task_ids: list[str], change: Callable[[Task], tuple[Task, str]], *, as_json: bool) -> int:
    """Change each task and print what happened to it. One that cannot be changed does not stop the others."""
    code = 0
    for text in task_ids:
        try:
            task, said = change(find(queue, text))
        except (TransitionError, TaskNotFoundError) as exc:
            complain(str(exc))
            code = 1
            continue
        if as_json:
            say_json(task.record.to_dict())
        else:
            say(f"{task.id} {said}")
    return code
