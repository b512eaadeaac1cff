"""Colours survive, nothing else that acts on a terminal does."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oq_nb import ansi

SGR = re.compile(r"\x1b\[[0-9;:]*m")
NASTY = st.text(
    alphabet=st.sampled_from("\x1b[]()0123456789;:mAJKHPX^_\\\x07\x08\x9b\x9c\x90\x9d\r\n\t\u202e\u2066 aé<&\ud800"),
    max_size=60,
)


@given(st.one_of(NASTY, st.text(max_size=60)))
def test_only_colours_are_left(text):
    made = ansi.clean(text)
    left = SGR.sub("", made).replace("\t", "")
    assert not re.search(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", left)
    assert ansi.clean(made) == made
    assert "\x1b" not in ansi.plain(text)
    assert "".join(run.text for run in ansi.runs(text)) == ansi.plain(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("plain é 漢字 🙂", "plain é 漢字 🙂"),
        ("\x1b[1;31mred\x1b[0m", "\x1b[1;31mred\x1b[0m"),
        ("up\x1b[3A, wiped\x1b[2K, left\x1b[10D", "up, wiped, left"),
        ("\x1b]0;a title\x07shown", "shown"),
        ("\x1b]8;;https://example.org\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPa string\x1b\\shown", "shown"),
        ("\x9b2Jshown", "shown"),
        ("\x1b(Bshown\x1b7\x1b8", "shown"),
        ("\x1b[" + "1;" * 100 + "mlong", "\\x1b[" + "1;" * 100 + "mlong"),
        ("\x1b\x1b[31m[2J", "\\x1b\x1b[31m[2J"),
        ("back\x08space\x00", "back\\x08space\\x00"),
        ("a\tb", "a\tb"),
    ],
)
def test_what_is_left(text, left):
    assert ansi.clean(text) == left


def test_looks():
    runs = list(ansi.runs("a\x1b[1;31mb\x1b[22mc\x1b[39;4md\x1b[me\x1b[38;5;2mf\x1b[97mg"))
    assert [(run.text, run.colour, run.is_bold, run.is_underlined) for run in runs] == [
        ("a", "", False, False),
        ("b", "red", True, False),
        ("c", "red", False, False),
        ("d", "", False, True),
        ("e", "", False, False),
        ("f", "green", False, False),
        ("g", "white", False, False),
    ]
    assert ansi.reset_at_end("plain") == "plain"
    assert ansi.reset_at_end("\x1b[1mb") == "\x1b[1mb\x1b[0m"
