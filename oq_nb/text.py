"""Text that came from a bucket, made safe and short enough to show. Pure; imports nothing of the package.

Anything that someone else stored may hold control characters, terminal escapes or direction marks. `printable`
replaces them with visible escapes, so that a terminal shows them instead of obeying them.
"""

from __future__ import annotations

import unicodedata

__all__ = ["printable", "shorten"]

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


def shorten(text: str, limit: int) -> str:
    """Return ``text`` cut to at most ``limit`` characters, the last of them an ellipsis when it was cut."""
    return text if len(text) <= limit else text[: max(0, limit - 1)] + "…"
