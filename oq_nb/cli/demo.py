"""``oq demo``: one command from nothing to a live bar."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oq_nb import view
from oq_nb.cli.output import JsonOption, say, say_json
from oq_nb.cli.place import Place, with_place
from oq_nb.text import printable

if TYPE_CHECKING:
    from oq_nb.task import Task

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(with_place(demo))


def demo(
    place: Place,
    seconds: Annotated[
        float, typer.Option("--seconds", metavar="SECONDS", min=1, max=3600, help="About how long the job takes.")
    ] = 30,
    as_json: JsonOption = False,
) -> int:
    """Run a real job on the embedded store and watch it: hash the files of this Python installation."""
    from oq_nb.demo import TASK_TYPE, hash_files
    from oq_nb.worker import Worker

    note = _note if as_json else say
    note("Starting the store …")
    queue = place.connect()
    note(f"Store ready: {printable(repr(queue)[1:-1])}")
    worker = Worker(queue, max_poll_seconds=1)
    worker.task(TASK_TYPE)(hash_files)
    with worker:
        task = queue.submit(TASK_TYPE, {"seconds": seconds}, timeout_seconds=30)
        note(f"Submitted task {task.id}; the bar below is read back from the bucket:")
        _bar(task)
    if as_json:
        say_json(task.record.to_dict())
        return 0 if task.status.value == "completed" else 1
    return _tell_result(task)


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _bar(task: Task) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
    console = Console(highlight=False, stderr=True)
    with Progress(*columns, console=console, auto_refresh=False) as display:
        row = display.add_task("waiting for the worker", total=100)
        try:
            while not task.is_done:
                time.sleep(0.25)
                task.refresh()
                progress = task.progress
                if progress is not None:
                    display.update(row, completed=progress.percent or 0, description=view.progress_line(progress))
                display.refresh()
        except KeyboardInterrupt:
            task.cancel("Ctrl-C in oq demo")
            raise
        finished = task.status.value == "completed"
        display.update(row, completed=100 if finished else None, description=str(task.status), refresh=True)


def _tell_result(task: Task) -> int:
    if task.status.value != "completed":
        say("\n".join(view.status_lines(task.record, task.queue.now())))
        return 1
    output: dict[str, Any] = task.output
    say(f"Done: {output['files']} files, {output['bytes'] / 1e6:.0f} MB, sha256 {output['sha256'][:16]}…")
    say(
        f"\nLook at it next, from any shell or notebook of yours:\n"
        f"  oq status {task.id[:8]}\n"
        f"  oq history {task.id[:8]}\n"
        f"  python -c \"import oq_nb; print(oq_nb.connect().get('{task.id}').output)\"\n"
        f"  oq local stop          (ends the store; its data stays)"
    )
    return 0
