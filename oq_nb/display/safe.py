"""HTML that is safe to show: text is escaped unless its type says that it is HTML already.

``markupsafe.Markup`` is the type of HTML. `fill` puts values into a template: what is not `Markup` is escaped, and its
control and direction characters are made visible. Templates are literals: ruff's S704 refuses ``Markup(…)`` of anything
else.

Live widgets are drawn with this several times a second. ``htpy``, which draws the web page, takes several times as long
(docs/how-to/ui.md has the figures).

Imports of the package: `text`.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from markupsafe import Markup

from oq_nb.text import printable, shorten

__all__ = ["EMPTY", "as_text", "fill", "join", "quote"]

EMPTY = Markup()

# Declares a string to be HTML; Markup() itself would look for __html__ first, which takes most of the time of a draw.
_declare = str.__new__


def fill(template: str, *values: object, **named: object) -> Markup:
    """Return a template with values in the places of its braces.

    Args:
        template: HTML; a literal, with ``{}`` or ``{name}`` where a value belongs. Attributes stand in double quotes.
        values: put in as they are when they are `Markup`, else escaped; None is nothing.
        named: the same, by name.
    """
    for name in named:
        named[name] = _escaped(named[name])
    return _declare(Markup, template.format(*[_escaped(value) for value in values], **named))


def join(parts: Iterable[object], between: str = "") -> Markup:
    """Return parts one after the other; those that are not `Markup` are escaped, and what stands between them, too."""
    return _declare(Markup, escape(between).join([_escaped(part) for part in parts]))


def quote(text: str, limit: int = 1000, *, keep_newlines: bool = False) -> Markup:
    """Return text from anywhere as HTML that shows it, and only shows it.

    Args:
        text: anything.
        limit: characters at most.
        keep_newlines: leave line feeds as they are.
    """
    return _declare(Markup, escape(printable(shorten(text, limit), keep_newlines=keep_newlines)))


def as_text(html: str) -> str:
    r"""Return HTML in which notebooks typeset no formulas: a price of $5, or ``\href`` in a message, stays what it is.

    MathJax, which JupyterLab and nbconvert run over every output, leaves out what has one of these classes.
    """
    return f'<div class="mathjax_ignore tex2jax_ignore">{html}</div>' if html else html


def _escaped(value: object) -> str:
    if isinstance(value, Markup):
        return value
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(value)
    return text if text.isalnum() and text.isascii() else escape(printable(text))
