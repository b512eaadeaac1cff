"""What goes to the terminal: lines, tables and JSON on stdout, everything else on stderr.

Text from a bucket passes through `oq_nb.text.printable` (or JSON's own escapes, which here cover everything that is
not ASCII) before it comes here. Rich draws it as plain text: brackets in it are no markup.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from oq_nb.display.states import STATES, TONES
from oq_nb.errors import ConfigurationError
from oq_nb.text import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = [
    "JsonOption",
    "complain",
    "confirm",
    "cut",
    "is_screen",
    "name_of",
    "note",
    "own_stdout",
    "paint",
    "parse_age",
    "program_name",
    "say",
    "say_json",
    "screen_width",
    "table",
]

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON, one object per line; see docs/reference/json.md.")
]

_IN_NUMBERS = "0123456789.,/:%"


def say(text: str = "") -> None:
    """Print a line (or several) on stdout, at once."""
    print(text, flush=True)


def say_json(value: Any, stream: TextIO | None = None) -> None:
    """Print a JSON object as one line of ASCII, on stdout when no stream is given: nothing in it acts on a terminal."""
    print(json.dumps(value).replace("\x7f", "\\u007f"), file=stream, flush=True)


@contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Give stdout to the caller alone: what anything else prints meanwhile goes to stderr.

    That holds for this program's Python code, for C code and for child processes that are started meanwhile; in a
    program of its own also for what is printed at its exit, such as what C code has buffered.
    """
    stdout = sys.stdout
    stdout.flush()
    try:
        number, other = stdout.fileno(), sys.stderr.fileno()
    except (OSError, ValueError, AttributeError):  # not a file: only Python code can print there
        own = sys.stdout
        with redirect_stdout(sys.stderr):
            yield own
        return
    # Asked before anything else runs: a module may put something else in the place of stdout.
    goes_on = stdout is not sys.__stdout__  # called by a program that has taken stdout; else the process ends after it
    if goes_on:
        _flush_c()
    own = os.fdopen(os.dup(number), "w", encoding="utf-8", buffering=1)
    os.dup2(other, number)
    try:
        yield own
    finally:
        sys.stdout.flush()
        if goes_on:
            stdout.flush()
            _flush_c()
            os.dup2(own.fileno(), number)
        with suppress(BrokenPipeError):
            own.close()


def _flush_c() -> None:
    """Write what C code has printed and the C library still keeps: Python's own flush does not reach it."""
    with suppress(ImportError, OSError, AttributeError, TypeError):  # Python without ctypes; Windows
        import ctypes

        ctypes.CDLL(None).fflush(None)


def note(text: str) -> None:
    """Print a line on stderr: something to know, that is not what was asked for."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print one line on stderr, with the program's name."""
    print(f"oq: {printable(' '.join(text.split()))}", file=sys.stderr, flush=True)


_AGE = re.compile(r"(\d+)\s*([smhdw])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def parse_age(text: str) -> timedelta | None:
    """Return a length of time such as ``90s``, ``30m``, ``12h``, ``30d`` or ``8w``; None for anything else."""
    match = _AGE.fullmatch(text.strip())
    if match is None:
        return None
    try:
        return timedelta(seconds=int(match[1]) * _UNIT_SECONDS[match[2]])
    except OverflowError:
        return None


def program_name() -> str:
    """Return how this program was called, as a shell wants it: ``oq`` may not be on the path."""
    called = sys.argv[0]
    found = shutil.which("oq")
    if found is not None and os.path.basename(called) == "oq" and os.path.realpath(found) == os.path.realpath(called):
        return "oq"
    if os.path.basename(called) == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m oq_nb"
    return shlex.quote(called)


def confirm(question: str, *, yes: bool) -> None:
    """Ask a question that has to be answered with yes before something is changed; leave with 1 after a no.

    Args:
        question: printable text.
        yes: whether it was answered on the command line.

    Raises:
        ConfigurationError: nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("--yes: it is needed where nobody can be asked")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def name_of(options: object) -> str:
    """Return what to call a queue or a store, such as ``s3://bucket/ at http://…``."""
    return printable(repr(options).strip("<>").removeprefix("Queue ").removeprefix("S3Store "))


def is_screen(stream: TextIO | None = None) -> bool:
    """Return whether a stream, stdout when None, is a terminal on which lines can be drawn over."""
    return (stream or sys.stdout).isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def screen_width() -> int | None:
    """Return the width of the terminal that stdout is, in cells; None where it is none: nothing is cut there."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def paint(text: str, tone: str) -> str:
    """Return text in the colour of a status or a tone, where stdout shows colours and nobody minds (``NO_COLOR``)."""
    from rich.text import Text

    return _drawn(Text(text, style=_style(tone)), width=len(text) + 1)


def _style(state: str) -> str:
    """Return how a tone or a state looks, in rich's words; a state may stand in brackets: ``running (stalled)``."""
    word = state.rpartition("(")[2].rstrip(")")
    tone = TONES.get(word) or TONES.get(STATES.get(word, ""))
    return tone.terminal if tone is not None and tone.terminal != "default" else ""


def table(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    cuts: Sequence[tuple[int, int]] = (),
    status_column: int | None = None,
) -> str:
    """Return aligned columns. On a terminal they are cut to its width, elsewhere nothing is cut.

    Args:
        headers: names of the columns.
        rows: printable text.
        cuts: what may be cut on a narrow terminal, the least important first: a column, and the width it keeps at
            least; with 0 the whole column is left out. No number is ever cut in two.
        status_column: the column that is coloured by its own text.
    """
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    widths = [max(map(cell_len, column)) for column in zip(headers, *rows, strict=True)]
    room = screen_width()
    if room is not None:
        widths = _fit(widths, room, cuts)
    shown = [column for column, width in enumerate(widths) if width]
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="none")
    for column in shown:
        made.add_column(Text(cut(headers[column], widths[column])), no_wrap=True, min_width=widths[column])
    for row in rows:
        styles = {column: _style(row[column]) for column in shown if column == status_column}
        made.add_row(*(Text(cut(row[column], widths[column]), style=styles.get(column, "")) for column in shown))
    lines = _drawn(made, width=sum(widths) + 2 * len(widths)).splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _fit(widths: list[int], room: int, cuts: Sequence[tuple[int, int]]) -> list[int]:
    """Return the widths of columns with two spaces between them, cut until they fit or nothing more may be cut."""
    made = list(widths)
    for column, least in cuts:
        over = _over(made, room)
        if over <= 0:
            break
        made[column] = max(min(least, made[column]), made[column] - over) if least else 0
    for column, _ in reversed([*cuts]):  # leaving out a column may have freed more than was needed
        if made[column]:
            made[column] = min(widths[column], made[column] + max(0, -_over(made, room)))
    return made


def _over(widths: Sequence[int], room: int) -> int:
    """Return by how many cells a line is too long; negative when there is room."""
    shown = [width for width in widths if width]
    return sum(shown) + 2 * (len(shown) - 1) - room


def cut(text: str, width: int) -> str:
    """Return text of at most so many cells; when it was cut, it ends with an ellipsis and not within a number."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    kept = set_cell_size(text, max(0, width - 1)).rstrip(" ")
    if text[len(kept) : len(kept) + 1] in _IN_NUMBERS:
        kept = kept.rstrip(_IN_NUMBERS)
    return kept.rstrip(" (,") + "…"


def _drawn(what: RenderableType, width: int) -> str:
    """Return what rich draws, with colours where stdout shows them."""
    from rich.console import Console

    colours: Literal["auto"] | None = "auto" if is_screen() and not os.environ.get("NO_COLOR") else None
    console = Console(
        file=sys.stdout,
        width=width,
        color_system=colours,
        legacy_windows=False,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(what, end="", no_wrap=True)
    return captured.get()
