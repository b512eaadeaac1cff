"""The program itself: its commands, its exit codes, and what becomes of errors.

Exit codes: 0; 1 for a failed or missing task, or a store that cannot be used; 2 for bad usage; 130 after Ctrl-C; 141
when whoever reads the output has stopped reading and 143 after SIGTERM, as other programs have it. No error of ours
shows a traceback.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any

import typer

from oq_nb.cli import changes, demo, doctor, local_store, logs, outcomes, queries, retention, ui, worker
from oq_nb.cli.output import complain
from oq_nb.errors import ConfigurationError, OqError

__all__ = ["app", "main"]

_HELP = """A task queue on an S3 bucket, with live progress.

The bucket is that of --bucket or S3_BUCKET (with S3_ENDPOINT, S3_REGION and AWS credentials). Without either, it is in
the embedded store, a small S3 server on this machine.

Exit codes: 0 for success; 1 for a failed or missing task, or a store that cannot be used; 2 for wrong usage; 130 after
Ctrl-C.
"""

app: typer.Typer = typer.Typer(
    name="oq",
    help=_HELP,
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(value: bool) -> None:
    if value:
        from oq_nb import __version__

        print(f"oq {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    del version


for _commands in (queries, logs, outcomes, changes, worker, doctor, ui, demo, retention):
    _commands.add_to(app)
local_store.add_to(app)


class _Complaints(logging.Handler):
    """Shows what the library has to say as one line on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see the module for exit codes."""
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a character shows its number
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    logger, complaints = logging.getLogger("oq_nb"), _Complaints(logging.WARNING)
    logger.addHandler(complaints)
    try:
        with _orderly_end():
            code = _run(arguments)
    finally:
        logger.removeHandler(complaints)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = _stop_writing()
    sys.exit(code)


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM unwind what runs, as Ctrl-C does: the cursor comes back, tasks are handed back."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    earlier = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, earlier)


def _run(arguments: list[str] | None) -> int:
    try:
        code: Any = app(args=arguments, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        return _stop_writing()
    except SystemExit as exc:  # typer's own answer to a closed pipe is 1
        if isinstance(exc.__context__, BrokenPipeError):
            return _stop_writing()
        raise
    except OqError as exc:
        complain(str(exc))
        return 2 if isinstance(exc, ConfigurationError) else 1
    except Exception as exc:  # typer's own usage errors know how to show themselves
        show = getattr(exc, "show", None)
        if show is None:
            raise
        show()
        return int(getattr(exc, "exit_code", 2))
    return code if isinstance(code, int) else 0


def _stop_writing() -> int:
    """Throw away what is still to be written, so that the interpreter does not complain at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141
