"""``oq logs``: what a task's handler has printed and logged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from oq_nb import ansi
from oq_nb.cli.output import JsonOption, complain, is_screen, note, say, say_json
from oq_nb.cli.queue_options import IdArgument, QueueOptions, find, with_queue_options
from oq_nb.text import local_time

if TYPE_CHECKING:
    from oq_nb.model.logs import LogLine

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs")(with_queue_options(logs))


def logs(
    options: QueueOptions,
    task_id: IdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for new lines until the task ends.")] = False,
    lines: Annotated[
        int | None,
        typer.Option("--lines", "-n", metavar="COUNT", min=1, help="Print only the newest lines, this many."),
    ] = None,
    attempt: Annotated[
        int | None,
        typer.Option("--attempt", metavar="NUMBER", min=1, help="Print the log of this attempt; default: the newest."),
    ] = None,
    times: Annotated[bool, typer.Option("--times", "-t", help="Put the time before each line.")] = False,
    interval: Annotated[
        float, typer.Option("--interval", metavar="SECONDS", min=0.1, help="Time between two reads with --follow.")
    ] = 2.0,
    as_json: JsonOption = False,
) -> int:
    """Print the log of a task.

    It has what the handler printed and logged, if the worker stores that (oq worker --logs). Colours are shown only on
    a terminal, and not when NO_COLOR is set; other control characters are made visible. With --follow and without
    --attempt, it continues with the next attempt when the task is tried again.
    """
    from oq_nb.queue.logs import follow_logs, read_logs

    task = find(options.connect(starts_store=False), task_id)
    if follow:
        found: Iterable[LogLine] = follow_logs(
            task, attempt, lines, interval, on_trouble=lambda exc: complain(f"{exc}; trying on")
        )
    else:
        found = read_logs(task, attempt, lines)
    count = 0
    has_colours = is_screen() and not os.environ.get("NO_COLOR")
    for line in found:
        count += 1
        if as_json:
            say_json(line.to_dict())
        else:
            say(_text(line, times=times, has_colours=has_colours))
    if not count and not as_json:
        which = attempt or task.attempt
        whose = f"attempt {which} of task {task.id}" if which else f"task {task.id}, which no worker has begun,"
        note(f"{whose} has printed nothing, or its worker keeps no logs (oq worker MODULE --logs)")
    return 0


def _text(line: LogLine, *, times: bool, has_colours: bool) -> str:
    text = str(line) if has_colours else ansi.plain(line.text)
    return f"{local_time(line.time)}  {text}" if times else text
