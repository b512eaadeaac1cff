"""The ``oq`` command line: argument parsing by typer, display by rich, everything else in the library.

Exit codes: 0; 1 for a failed or missing task or a store that cannot be used; 2 for bad usage; 130 after Ctrl-C.
Imports of the package: `client`, `view`, `worker`, `local` and `demo`, inside the commands that need them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oq_nb.errors import ConfigurationError, OqError
from oq_nb.text import printable

if TYPE_CHECKING:
    from rich.console import Console

    from oq_nb.queue import Queue
    from oq_nb.task import Task

__all__ = ["app", "main"]

app = typer.Typer(
    name="oq",
    help="A task queue on an S3 bucket, with live progress. "
    "The bucket is S3_BUCKET (with S3_ENDPOINT, S3_REGION and AWS credentials), else the embedded local store.",
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
local_app = typer.Typer(help="The embedded local store: one S3 server for all your kernels and shells.")
app.add_typer(local_app, name="local", no_args_is_help=True)

BucketOption = Annotated[str | None, typer.Option("--bucket", help="Bucket; default: S3_BUCKET, else embedded.")]
EndpointOption = Annotated[str | None, typer.Option("--endpoint", help="URL of the S3 service; default: S3_ENDPOINT.")]


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see the module for exit codes."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        _leave(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(1)
    except OqError as exc:
        _say(f"oq: {printable(str(exc))}")
        _leave(2 if isinstance(exc, ConfigurationError) else 1)
    except Exception as exc:  # typer's and click's own usage errors know how to show themselves
        show = getattr(exc, "show", None)
        if show is None:
            raise
        show()
        _leave(getattr(exc, "exit_code", 2))
    else:
        _leave(code if isinstance(code, int) else 0)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.exit(code)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _connect(bucket: str | None, endpoint: str | None) -> Queue:
    from oq_nb.client import connect

    return connect(bucket, endpoint=endpoint)


def _find(queue: Queue, task_id: str) -> Task:
    from oq_nb.errors import TaskNotFoundError

    task = queue.get(task_id)
    if task is None:
        raise TaskNotFoundError(f"there is no task {task_id} in {queue!r}", task_id=task_id)
    return task


def _version(value: bool) -> None:
    if value:
        from oq_nb import __version__

        print(f"oq {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    del version


@app.command()
def status(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task's id.")],
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again until it has ended.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the task object as JSON.")] = False,
    bucket: BucketOption = None,
    endpoint: EndpointOption = None,
) -> int:
    """Show a task: its state and its progress."""
    task = _find(_connect(bucket, endpoint), task_id)
    if watch:
        _watch(task, interval, as_json)
    elif as_json:
        _print_json(task)
    else:
        _print_status(task)
    return 0 if task.status.value not in ("failed", "expired", "cancelled") else 1


def _print_json(task: Task) -> None:
    print(json.dumps(task.record.to_dict(), ensure_ascii=False), flush=True)


def _status_text(task: Task) -> str:
    from oq_nb import view

    return "\n".join(view.status_lines(task.record, task.queue.now()))


def _print_status(task: Task) -> None:
    print(_status_text(task), flush=True)


def _watch(task: Task, interval: float, as_json: bool) -> None:
    """Redraw in place on a terminal; else print what changed, as it changes."""
    from oq_nb.errors import StorageUnavailableError

    if as_json or not sys.stdout.isatty():
        show: Callable[[Task], None] = _print_json if as_json else _print_status
        seen = None
        while True:
            if task.record.updated_at.text != seen:
                seen = task.record.updated_at.text
                show(task)
                if not as_json and not task.is_done:
                    print(flush=True)
            if task.is_done:
                return
            time.sleep(interval)
            try:
                task.refresh()
            except StorageUnavailableError as exc:
                _say(f"oq: {printable(str(exc))}")
    from rich.live import Live
    from rich.text import Text

    with Live(Text(_status_text(task)), auto_refresh=False, console=_console()) as live:
        note = ""
        while not task.is_done:
            time.sleep(interval)
            try:
                task.refresh()
                note = ""
            except StorageUnavailableError as exc:
                note = f"\n(store unreachable, trying on: {printable(str(exc))})"
            live.update(Text(_status_text(task) + note), refresh=True)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


@app.command()
def history(
    task_id: Annotated[str, typer.Argument(metavar="ID", help="The task's id.")],
    limit: Annotated[int, typer.Option(min=1, help="Only the newest so many versions.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print each version as one line of JSON.")] = False,
    bucket: BucketOption = None,
    endpoint: EndpointOption = None,
) -> int:
    """Show the versions of a task, oldest first."""
    from oq_nb import view
    from oq_nb.model import check_task_id

    check_task_id(task_id)
    before = None
    for number, record in enumerate(_connect(bucket, endpoint).get_history(task_id, limit=limit), start=1):
        if as_json:
            print(json.dumps(record.to_dict(), ensure_ascii=False))
        else:
            print(view.version_line(number, record, before))
        before = record
    return 0


@app.command()
def demo(
    seconds: Annotated[float, typer.Option(min=1, max=3600, help="About how long the job takes.")] = 30,
    bucket: BucketOption = None,
    endpoint: EndpointOption = None,
) -> int:
    """Run a real job on the embedded store and watch it: hash the files of this Python installation."""
    from oq_nb.demo import TASK_TYPE, hash_files
    from oq_nb.worker import Worker

    console = _console()
    console.print("Starting the store …", style="dim")
    queue = _connect(bucket, endpoint)
    console.print(f"Store ready: {repr(queue)[1:-1]}", markup=False)
    worker = Worker(queue, max_poll_seconds=1)
    worker.task(TASK_TYPE)(hash_files)
    with worker:
        task = queue.submit(TASK_TYPE, {"seconds": seconds}, timeout_seconds=30)
        console.print(f"Submitted task {task.id}; the bar below is read back from the bucket:", markup=False)
        _bar(task, console)
    return _tell_result(task, console)


def _bar(task: Task, console: Console) -> None:
    from rich.progress import BarColumn, Progress, TextColumn

    from oq_nb import view

    columns = (BarColumn(bar_width=30), TextColumn("{task.description}", markup=False))
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


def _tell_result(task: Task, console: Console) -> int:
    if task.status.value != "completed":
        _print_status(task)
        return 1
    output: dict[str, Any] = task.output
    console.print(
        f"Done: {output['files']} files, {output['bytes'] / 1e6:.0f} MB, sha256 {output['sha256'][:16]}…", markup=False
    )
    console.print(
        f"\nLook at it next, from any shell or notebook of yours:\n"
        f"  oq status {task.id}\n"
        f"  oq history {task.id}\n"
        f"  python -c \"import oq_nb; print(oq_nb.connect().get('{task.id}').output)\"\n"
        f"  oq local stop          (ends the store; its data stays)",
        markup=False,
        soft_wrap=True,
    )
    return 0


@local_app.command("status")
def local_status() -> int:
    """Say whether the embedded store runs, and where."""
    from oq_nb import local

    store = local.find()
    if store is None:
        print(f"not running; its data is in {local.default_data_dir()}")
        return 1
    print(f"running: {store.kind} at {store.endpoint}, process {store.pid}, since {store.started_at}")
    print(f"data: {store.data_dir}")
    print(f"log: {store.log_path}")
    return 0


@local_app.command("stop")
def local_stop() -> int:
    """Stop the embedded store; its data stays and is there again at the next start."""
    from oq_nb import local

    print("stopped" if local.stop() else "not running")
    return 0


if __name__ == "__main__":
    main()
