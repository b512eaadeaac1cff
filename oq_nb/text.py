"""Text that came from a bucket, made safe and short enough to show. Pure; imports nothing of the package.

Anything that someone else stored may hold control characters, terminal escapes or direction marks. `printable`
replaces them with visible escapes, so that a terminal shows them instead of obeying them. `Secret` is text that must
not be shown at all.
"""

from __future__ import annotations

import unicodedata
from datetime import datetime
from itertools import pairwise
from typing import Any

__all__ = [
    "Secret",
    "ago",
    "counted",
    "duration",
    "first_line",
    "hide",
    "local_time",
    "printable",
    "progress_numbers",
    "rate_text",
    "shorten",
    "size",
]

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
_LONGEST_SECONDS = 1e11  # that is said; what a bucket says may be anything
_BYTES = ("B", "byte", "bytes", "Byte", "Bytes")
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
    """Return a length of time in at most two units: ``45 seconds``, ``3 min 20 s``, ``3 h 30 min``, ``2 d 5 h``."""
    whole = int(min(max(0.0, seconds), _LONGEST_SECONDS))
    if whole < 60:
        return counted(whole, "second")
    for (size, name), (small_size, small_name) in pairwise(_UNITS):
        if whole >= size:
            count, rest = divmod(whole, size)
            small = rest // small_size
            return f"{count:,} {name} {small} {small_name}" if small else f"{count:,} {name}"
    raise AssertionError("a minute is the smallest of them")


def ago(then: datetime, now: datetime) -> str:
    """Return how long ago an instant was, such as ``30 seconds ago``; ``in 5 min`` when it is ahead."""
    seconds = (now - then).total_seconds()
    return f"in {duration(-seconds)}" if seconds <= -1 else f"{duration(seconds)} ago"


def local_time(instant: datetime, now: datetime | None = None, *, seconds: bool = True) -> str:
    """Return an instant in local time with the zone's name, and with the date where that is another than today.

    Args:
        instant: aware.
        now: for which day is today; None to give the date always, for what is read later.
        seconds: whether to say them.
    """
    local = instant.astimezone()
    form = f"%H:%M{':%S' if seconds else ''} %Z"
    is_today = now is not None and local.date() == now.astimezone().date()
    return f"{local:{form}}" if is_today else f"{local:%Y-%m-%d {form}}"


def first_line(text: str, limit: int = 200) -> str:
    """Return the first line of a text that has something in it, printable and not too long."""
    lines = text.strip().splitlines()
    return printable(shorten(lines[0], limit)) if lines else ""


def size(count: float, unit: str = "B", divisor: int = 1000) -> str:
    """Return a number with a prefix as tqdm writes it with ``unit_scale=True``, such as ``7.20MB``.

    Args:
        count: how many.
        unit: of what.
        divisor: 1000, or 1024 for prefixes of powers of two.
    """
    from tqdm.std import tqdm

    return f"{tqdm.format_sizeof(count, divisor=divisor)}{unit}"


def _divisor_of(unit: str | None, unit_divisor: int | None) -> int | None:
    """Return the divisor with which numbers of a unit are written; None for no prefixes."""
    if unit_divisor in (1000, 1024):
        return unit_divisor
    return 1000 if unit in _BYTES else None


def rate_text(rate: float, unit: str | None, unit_divisor: int | None = None) -> str:
    """Return a rate such as ``12.5 it/s``, ``7.20MB/s``; one below 1 is turned round: ``30 min/fold``.

    Args:
        rate: items per second, above 0.
        unit: name of an item; text from a bucket.
        unit_divisor: 1000 or 1024 for prefixes; else bytes have decimal ones, and others none.
    """
    name = printable(shorten(unit or "it", 20))
    divisor = _divisor_of(unit, unit_divisor)
    if not 1e-9 < rate < 1e15:
        return f"{rate:.3g} {name}/s"
    if divisor is not None and rate >= 1:
        return f"{size(rate, _short(name), divisor)}/s"
    if rate >= 999.5:
        return f"{rate:,.0f} {name}/s"
    if rate >= 1:
        return f"{rate:.3g} {name}/s"
    return f"{1 / rate:.3g} s/{name}" if rate > 1 / 60 else f"{duration(1 / rate)}/{name}"


def _short(name: str) -> str:
    return "B" if name in _BYTES else name


def progress_numbers(
    percent: int | None,
    current: int | None,
    total: int | None,
    *,
    rate: float | None = None,
    unit: str | None = None,
    unit_divisor: int | None = None,
    seconds_left: float | None = None,
) -> str:
    """Return a progress in words, such as ``45% (450/1000), 12.5 it/s, 44 seconds left``; empty when nothing is known.

    Args:
        percent: 0 to 100.
        current: item reached.
        total: number of items.
        rate: items per second.
        unit: name of an item; text from a bucket.
        unit_divisor: as for `rate_text`.
        seconds_left: estimate of the time left.
    """
    parts: list[str] = []
    counts = ""
    divisor = _divisor_of(unit, unit_divisor)

    def number(count: int) -> str:
        return str(count) if divisor is None else size(count, "B" if unit in _BYTES else "", divisor)

    if current is not None:
        counts = f"{number(current)}/{number(total)}" if total is not None else number(current)
    elif total is not None:
        counts = f"?/{number(total)}"
    if percent is not None:
        parts.append(f"{percent}%" + (f" ({counts})" if counts else ""))
    elif counts:
        parts.append(counts)
    if rate is not None and rate > 0:
        parts.append(rate_text(rate, unit, unit_divisor))
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
