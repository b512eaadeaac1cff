r"""Colours in text from strangers: the terminal's colour sequences are kept, everything else that acts on one is not.

A program's output holds sequences such as ``\x1b[31m``. Those that only choose colours and weights (SGR) are harmless.
Those that move the cursor, clear the screen or set the window's title are removed, and what is left of control,
format and direction characters is made visible as in `oq_nb.text`.

Pure; imports nothing of the package but `text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from oq_nb.text import printable

__all__ = ["RESET", "Run", "clean", "plain", "reset_at_end", "runs"]

#: Ends all colours.
RESET = "\x1b[0m"

_SGR = re.compile(r"\x1b\[[0-9;:]{0,40}m")
# Control sequences, also from the 8-bit range; titles, links and other strings, to their end or for 2,000 characters;
# other escapes of two characters.
_OTHER = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,40}[ -/]{0,8}[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]{0,2000}(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]{0,4}[0-Z\\^-~]"
)
_SPLIT = re.compile(f"({_SGR.pattern})")
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


class Run(NamedTuple):
    """Text of one look."""

    text: str
    #: One of the eight names of terminals' colours, or empty.
    colour: str = ""
    is_bold: bool = False
    is_dim: bool = False
    is_italic: bool = False
    is_underlined: bool = False


def clean(text: str) -> str:
    """Return a line whose only control sequences choose colours; tabs stay."""
    if text.isprintable():
        return text
    if "\x1b" not in text:
        return _visible(_OTHER.sub("", text))
    return "".join(
        part if number % 2 else _visible(_OTHER.sub("", part)) for number, part in enumerate(_SPLIT.split(text))
    )


def _visible(text: str) -> str:
    return "\t".join(map(printable, text.split("\t"))) if "\t" in text else printable(text)


def plain(text: str) -> str:
    """Return a line without colours, and with nothing that acts on a terminal."""
    if text.isprintable():
        return text
    return _SGR.sub("", clean(text))


def reset_at_end(text: str) -> str:
    """Return a cleaned line that leaves no colour behind."""
    return text + RESET if "\x1b" in text and not text.endswith(RESET) else text


def runs(text: str) -> Iterator[Run]:
    """Yield a line in parts of one look each. Backgrounds, and colours beyond the sixteen, are left out.

    Args:
        text: anything; it is cleaned.
    """
    look = Run("")
    for number, part in enumerate(_SPLIT.split(clean(text))):
        if number % 2:
            look = _changed(look, part[2:-1])
        elif part:
            yield look._replace(text=part)


def _changed(look: Run, codes: str) -> Run:
    """Return a look after a sequence."""
    numbers = [int(code) if code.isdecimal() else 0 for code in re.split("[;:]", codes)]
    position = 0
    while position < len(numbers):
        code = numbers[position]
        position += 1
        if code == 0:
            look = Run("")
        elif code in (38, 48):  # of 256 colours, or of all: their values follow, and are passed over
            kind = numbers[position] if position < len(numbers) else 0
            if kind == 5 and code == 38 and position + 1 < len(numbers) and numbers[position + 1] < 16:
                look = look._replace(colour=_NAMES[numbers[position + 1] % 8])
            position += {5: 2, 2: 4}.get(kind, 1)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            look = look._replace(colour=_NAMES[code % 10])
        elif code in _MODES:
            look = look._replace(**_MODES[code])
    return look


_MODES: dict[int, dict[str, Any]] = {
    1: {"is_bold": True},
    2: {"is_dim": True},
    3: {"is_italic": True},
    4: {"is_underlined": True},
    22: {"is_bold": False, "is_dim": False},
    23: {"is_italic": False},
    24: {"is_underlined": False},
    39: {"colour": ""},
}
