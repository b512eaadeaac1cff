"""The log of a task as HTML, with the colours of a terminal. Pure.

Invariants: as for `oq_nb.display.markup`; what is shown has a bound, whatever stands in the bucket.

Imports of the package: `ansi`, `model`, `safe`, `text`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache

from markupsafe import Markup

from oq_nb import ansi
from oq_nb.display.safe import EMPTY, fill, join
from oq_nb.model.logs import GAP, LogLine
from oq_nb.text import counted, local_time, printable, shorten

__all__ = ["NOTHING", "log_html", "log_line_html"]

#: What stands in the place of a log without lines.
NOTHING = "Nothing was printed so far, or its worker keeps no logs (Worker(logs=True), oq worker --logs)."

_LINE_CHARS = 2_000
_CHARS = 60_000
# Each reads on light and on dark: a contrast of 4.5 at least on #fff or #f4f5f7, and on #111 or #1f2428.
_COLOURS = {
    "red": ("#b3261e", "#ff8a80"),
    "green": ("#1b6e2d", "#81c995"),
    "yellow": ("#7a5600", "#fdd663"),
    "blue": ("#1a5fb4", "#8ab4f8"),
    "magenta": ("#8e2a8a", "#e8a0e5"),
    "cyan": ("#0b6b75", "#78d9ec"),
}
_PRE = (
    "white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;max-height:none;overflow:visible;margin:.3em 0;"
    "line-height:1.45;font-size:.92em"
)


@lru_cache(maxsize=512)
def _span(colour: str, is_bold: bool, is_dim: bool, is_italic: bool, is_underlined: bool) -> str:
    """Return the style of a look."""
    style: list[str] = []
    if colour in _COLOURS:
        light, dark = _COLOURS[colour]
        style.append(f"color:{light};color:light-dark({light},{dark})")
    if is_bold:
        style.append("font-weight:bold")
    if is_dim:
        style.append("opacity:.75")
    if is_italic:
        style.append("font-style:italic")
    if is_underlined:
        style.append("text-decoration:underline")
    return ";".join(style)


def log_line_html(line: LogLine) -> Markup:
    """Return the text of a line with its colours."""
    if line.stream == GAP:
        return fill('<i style="opacity:.75">{}</i>', line.text)
    parts: list[Markup] = []
    room = _LINE_CHARS
    for run in ansi.runs(line.text):
        text = shorten(run.text, room)
        room -= len(text)
        style = _span(run.colour, run.is_bold, run.is_dim, run.is_italic, run.is_underlined)
        shown = _text(text)
        parts.append(fill('<span style="{}">{}</span>', style, shown) if style else shown)
        if room <= 0:
            break
    return join(parts)


def _text(text: str) -> Markup:
    """Return cleaned text as HTML, with its tabs."""
    return join(map(printable, text.split("\t")), "\t")


def log_html(lines: Sequence[LogLine], now: datetime, *, attempt: int = 0, is_end: bool = False) -> Markup:
    """Return lines of a log as a block that scrolls, the newest last.

    Args:
        lines: what to show; of very long ones only the end.
        now: the store's time.
        attempt: whose log it is.
        is_end: there are lines before these.
    """
    if not lines:
        return fill('<div style="opacity:.75">{}</div>', NOTHING)
    shown: list[Markup] = []
    room = _CHARS
    for line in reversed(lines):
        drawn = log_line_html(line)
        room -= len(line.text)
        if room < 0 and shown:
            is_end = True
            break
        shown.append(drawn)
    count = f"the last {counted(len(shown), 'line')}" if is_end else counted(len(shown), "line")
    said = f"Attempt {attempt}, {count}" if attempt else count.capitalize()
    head = fill('<div style="opacity:.75">{}, the newest from {}</div>', said, local_time(lines[-1].time, now))
    # The block is turned round twice, so that it opens at its end and stays there as lines come.
    block = fill(
        f'<div style="display:flex;flex-direction:column-reverse;max-height:24em;overflow:auto" tabindex="0">'
        f'<pre style="{_PRE}">{{}}</pre></div>',
        join(shown[::-1], "\n"),
    )
    return head + block if shown else EMPTY
