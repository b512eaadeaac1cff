"""What goes to the terminal: lines, tables and JSON on stdout, everything else on stderr.

Text from a bucket passes through `oq_nb.text.printable` (or JSON's own escapes, which here cover everything that is
not ASCII) before it comes here.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Sequence
from typing import Annotated, Any, TextIO

import typer

from oq_nb.text import printable

__all__ = ["JsonOption", "complain", "is_screen", "name_of", "note", "paint", "say", "say_json", "table"]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line; see docs/json.md.")]

_COLOURS = {
    "good": "32",
    "bad": "31",
    "warning": "33",
    "running": "36",
    "off": "2",
    "completed": "32",
    "failed": "31",
    "expired": "31",
    "cancelled": "2",
    "archived": "2",
}


def say(text: str = "") -> None:
    """Print a line (or several) on stdout, at once."""
    print(text, flush=True)


def say_json(value: Any) -> None:
    """Print a JSON object as one line of ASCII: nothing in it can act on a terminal."""
    print(json.dumps(value).replace("\x7f", "\\u007f"), flush=True)


def note(text: str) -> None:
    """Print a line on stderr: something to know, that is not what was asked for."""
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> None:
    """Print one line on stderr, with the program's name."""
    print(f"oq: {printable(' '.join(text.split()))}", file=sys.stderr, flush=True)


def name_of(options: object) -> str:
    """Return what to call a queue or a store, such as ``s3://bucket/ at http://…``."""
    return printable(repr(options).strip("<>").removeprefix("Queue ").removeprefix("S3Store "))


def is_screen(stream: TextIO | None = None) -> bool:
    """Return whether a stream, stdout when None, is a terminal on which lines can be drawn over."""
    return (stream or sys.stdout).isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def paint(text: str, tone: str) -> str:
    """Return text in the colour of a status or a tone, where stdout shows colours and nobody minds (``NO_COLOR``)."""
    code = _COLOURS.get(tone)
    if code is None or not is_screen() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], *, status_column: int | None = None) -> str:
    """Return aligned columns; on a terminal the last one is cut to its width, elsewhere nothing is cut.

    Args:
        headers: names of the columns.
        rows: printable text.
        status_column: the column that is coloured by its own text.
    """
    from rich.cells import cell_len, set_cell_size

    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(cell_len(line[column]) for line in lines) for column in range(len(headers))]
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    shown: list[str] = []
    for number, line in enumerate(lines):
        cells = [cell + " " * (width - cell_len(cell)) for cell, width in zip(line[:-1], widths[:-1], strict=True)] + [
            line[-1]
        ]
        text = "  ".join(cells).rstrip()
        if room is not None and cell_len(text) > room:
            text = set_cell_size(text, max(1, room - 1)).rstrip() + "…"
        if status_column is not None and number:
            word = line[status_column]
            text = text.replace(f"  {word}", f"  {paint(word, word)}", 1)
        shown.append(text)
    return "\n".join(shown)
