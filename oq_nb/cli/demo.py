"""``oq demo``: one command from nothing to a live bar."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oq_nb.cli.output import JsonOption, is_screen, name_of, note, program_name, say, say_json
from oq_nb.cli.queries import exit_code
from oq_nb.cli.queue_options import QueueOptions, with_queue_options
from oq_nb.display import view

if TYPE_CHECKING:
    from oq_nb.queue.task import Task

__all__ = ["add_to"]

_LOOK_SECONDS = 0.25


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(with_queue_options(demo))


def demo(
    options: QueueOptions,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="SECONDS", min=1, max=3600, help="About how long the job takes.")
    ] = 30,
    as_json: JsonOption = False,
) -> int:
    """Run a real job for half a minute and watch it.

    A worker in this process hashes the files of Python's standard library. The bar shows the progress that is read back
    from the bucket. Ctrl-C cancels the task.
    """
    from oq_nb.cli.demo_job import TASK_TYPE, hash_files
    from oq_nb.worker import Worker

    tell = note if as_json else say
    tell("Starting the store …")
    queue = options.connect()
    tell(f"Store ready: {name_of(queue)}")
    worker = Worker(queue, max_poll_seconds=1)
    worker.task(TASK_TYPE)(hash_files)
    with worker:
        task = queue.submit(TASK_TYPE, {"seconds": seconds}, timeout_seconds=30)
        tell(f"Submitted task {task.id}; how far it is, read back from the bucket:")
        try:
            (_bar if is_screen(sys.stderr) else _lines)(task)
        except (KeyboardInterrupt, SystemExit):
            task.cancel("oq demo was interrupted")
            note(f"Task {task.id} is cancelled.")
            raise
    if as_json:
        say_json(task.record.to_dict())
        return exit_code(task.record)
    return _tell_result(task, options)


def _bar(task: Task) -> None:
    """Draw a bar on stderr, in place, until the task has ended."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    column = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (BarColumn(bar_width=30), TextColumn("{task.description}", markup=False, table_column=column))
    console = Console(highlight=False, stderr=True)
    display = Progress(*columns, console=console, auto_refresh=False, expand=True)
    try:  # not as a context manager: a Ctrl-C in the middle of its beginning would leave the cursor hidden
        display.start()
        row = display.add_task("waiting for the worker", total=100)
        while not task.is_done:
            time.sleep(_LOOK_SECONDS)
            progress = task.refresh().progress
            if progress is not None:
                said = "  ".join(view.progress_parts(progress, message_limit=1000))
                display.update(row, completed=progress.percent or 0, description=said)
            display.refresh()
        finished = task.status.value == "completed"
        display.update(row, completed=100 if finished else None, description=str(task.status), refresh=True)
    finally:
        display.stop()


def _lines(task: Task) -> None:
    """Print a line on stderr for every tenth of the way, where nothing can be drawn over."""
    shown = -1
    while not task.is_done:
        time.sleep(_LOOK_SECONDS)
        progress = task.refresh().progress
        if progress is not None and (progress.percent or 0) // 10 > shown:
            shown = (progress.percent or 0) // 10
            note("  ".join(view.progress_parts(progress)))


def _tell_result(task: Task, options: QueueOptions) -> int:
    if task.status.value != "completed":
        say("\n".join(view.status_lines(task.record, task.queue.now())))
        return 1
    output: dict[str, Any] = task.output
    say(f"Done: {output['files']} files, {output['bytes'] / 1e6:.0f} MB, sha256 {output['sha256'][:16]}…")
    oq = program_name()
    code = f"import oq_nb; print(oq_nb.connect({options.arguments}).get('{task.id}').output)"
    say(
        f"\nLook at it next, from any shell or notebook of yours:\n"
        f"  {oq} status {task.id[:8]}{options.as_arguments}\n"
        f"  {oq} history {task.id[:8]}{options.as_arguments}\n"
        f'  {shlex.quote(sys.executable)} -c "{code}"'
    )
    if options.is_embedded:
        say(f"  {oq} local stop          (ends the store; its data stays)")
    return 0
