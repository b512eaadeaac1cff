"""Text that came from a bucket, made safe and short enough to show. Pure; imports nothing of the package.

Anything that someone else stored may hold control characters, terminal escapes or direction marks. `printable`
replaces them with visible escapes, so that a terminal shows them instead of obeying them. `Secret` is text that must
not be shown at all.
"""

from __future__ import annotations

import unicodedata
from typing import Any

__all__ = ["Secret", "counted", "duration", "hide", "printable", "progress_numbers", "shorten"]

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


def _visible(char: str, keep: str) -> str:
    if char in keep or unicodedata.category(char) not in _HIDDEN:
        return char
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def printable(text: str, *, keep_newlines: bool = False) -> str:
    r"""Return ``text`` with every control, format and direction character written as an escape such as ``\x1b``.

    Args:
        text: anything.
        keep_newlines: leave line feeds and tabs as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    keep = "\n\t" if keep_newlines else ""
    return "".join(_visible(char, keep) for char in text)


def counted(number: int, name: str) -> str:
    """Return a number of things in words."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a length of time in words, such as ``3 minutes``."""
    seconds = max(0, int(seconds))
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size or (seconds >= size and name != "minute"):
            count = seconds // size
            return f"{count} {name}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def progress_numbers(
    percent: int | None,
    current: int | None,
    total: int | None,
    *,
    rate: float | None = None,
    unit: str | None = None,
    seconds_left: float | None = None,
) -> str:
    """Return a progress in words, such as ``45% (450/1000), 12.5 it/s, 44 seconds left``; empty when nothing is known.

    Args:
        percent: 0 to 100.
        current: item reached.
        total: number of items.
        rate: items per second.
        unit: name of an item; text from a bucket.
        seconds_left: estimate of the time left.
    """
    parts: list[str] = []
    counts = ""
    if current is not None:
        counts = f"{current}/{total}" if total is not None else f"{current}"
    elif total is not None:
        counts = f"?/{total}"
    if percent is not None:
        parts.append(f"{percent}%" + (f" ({counts})" if counts else ""))
    elif counts:
        parts.append(counts)
    if rate:
        name = printable(shorten(unit or "it", 20))
        parts.append(f"{rate:.3g} {name}/s" if rate < 1000 else f"{rate:.0f} {name}/s")
    if seconds_left is not None:
        parts.append(f"{duration(seconds_left)} left")
    return ", ".join(parts)


def shorten(text: str, limit: int) -> str:
    """Return ``text`` cut to at most ``limit`` characters, the last of them an ellipsis when it was cut."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"


class Secret(str):
    """Text whose `repr` does not show it: a traceback with the values of variables is no place for a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'…'"


_SECRETS = {"secret_key", "aws_secret_access_key", "aws_session_token"}


def hide(options: dict[str, Any]) -> dict[str, Any]:
    """Return arguments of `connect` or of boto3 with the secrets among them as `Secret`."""
    made = dict(options)
    for name, value in options.items():
        if name in _SECRETS and isinstance(value, str):
            made[name] = Secret(value)
        elif isinstance(value, dict):
            made[name] = hide(value)
    return made
