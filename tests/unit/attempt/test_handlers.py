"""An exception as text, and text made safe to show."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from oq_nb import model
from oq_nb.attempt import invoke as calls
from oq_nb.attempt.coroutines import CoroutineRunner
from oq_nb.attempt.handlers import error_text, handler_of
from oq_nb.text import printable, shorten


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as exc:
        return exc


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no")


def test_the_first_line_says_what_the_rest_says_where():
    text = error_text(raised(ValueError("no such file")))
    first, blank, *rest = text.splitlines()
    assert (first, blank) == ("ValueError: no such file", "")
    assert rest[0] == "Traceback (most recent call last):"
    assert "test_handlers.py" in text


@pytest.mark.parametrize("is_async", [False, True])
def test_the_traceback_begins_with_the_handler(is_async):
    def handler(task_input):
        return int(task_input)

    async def async_handler(task_input):
        return int(task_input)

    coroutines = CoroutineRunner()
    made = handler_of("parse", async_handler if is_async else handler)
    error = calls.call(made, "forty-two", SimpleNamespace(), coroutines=coroutines).error
    coroutines.close()
    text = error_text(error)
    frames = [line for line in text.splitlines() if line.startswith("  File ")]
    assert len(frames) == 1
    assert "test_handlers.py" in frames[0]


def test_an_error_of_our_own_keeps_its_traceback():
    handler = handler_of("check", model.check_task_id)
    error = calls.call(handler, "no id", SimpleNamespace()).error
    assert "invoke.py" in error_text(error)


def test_the_cause_is_kept():
    try:
        try:
            raise KeyError("inner")
        except KeyError as exc:
            raise ValueError("outer") from exc
    except ValueError as exc:
        text = error_text(exc)
    assert "KeyError: 'inner'" in text
    assert "direct cause" in text


@pytest.mark.parametrize(
    "error", [ValueError("x" * 100_000), ValueError("half \ud800"), Unprintable(), RecursionError()], ids=type
)
def test_whatever_is_raised_becomes_text_that_can_be_stored(error):
    text = error_text(raised(error))
    assert 0 < len(text) <= 16_010
    text.encode()
    assert text.startswith(type(error).__name__)


def test_a_long_traceback_keeps_both_its_ends():
    def deep(n):
        return deep(n - 1) if n else 1 / 0

    def other(n):
        return deep(n)

    with pytest.raises(ZeroDivisionError) as caught:
        other(300)
    text = error_text(caught.value)
    assert "division by zero" in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("grüße, 世界 ✓", "grüße, 世界 ✓"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        ("right \u202e to left \u200f", "right \\u202e to left \\u200f"),
        ("c1 \x9b31m, zero width \u200b, tag \U000e0041", "c1 \\x9b31m, zero width \\u200b, tag \\U000e0041"),
        ("line \u2028 paragraph \u2029", "line \\u2028 paragraph \\u2029"),
        ("\ud800", "\\ud800"),
    ],
)
def test_control_and_direction_characters_are_shown_not_obeyed(text, shown):
    assert printable(text) == shown


def test_newlines_can_be_kept():
    assert printable("a\n\tb\x1b", keep_newlines=True) == "a\n\tb\\x1b"


def test_shortening():
    assert shorten("abcdef", 6) == "abcdef"
    assert shorten("abcdefg", 6) == "abcde…"
