"""Tables and colours: what a terminal of a given width shows, and what a pipe gets."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timezone

import pytest

from oq_nb.cli import output, queries

HEADERS = ("ID", "STATUS", "TYPE", "CHANGED", "PROGRESS")
ROWS = [
    (
        "8f14e45f",
        "running",
        "batch_process",
        "30 seconds ago",
        "45% (450/1000), 12.5 it/s  Processing [red]450 of 1000",
    ),
    ("9a0364b9", "failed", "t", "1 minute ago", "ValueError: no"),
]
CUTS = ((4, 20), (2, 8), (3, 0), (4, 6), (2, 4))


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch):
    """Return a function that sets the width of the terminal that stdout is."""

    def make(columns: int, **environment: str) -> None:
        monkeypatch.setattr("sys.stdout", Screen())
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((columns, 24)))
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.delenv("NO_COLOR", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return make


def test_a_pipe_gets_everything_and_no_colour(capsys):
    assert output.table(HEADERS, ROWS, cuts=CUTS, status_column=1).split("\n") == [
        "ID        STATUS   TYPE           CHANGED         PROGRESS",
        "8f14e45f  running  batch_process  30 seconds ago  45% (450/1000), 12.5 it/s  Processing [red]450 of 1000",
        "9a0364b9  failed   t              1 minute ago    ValueError: no",
    ]
    assert output.paint("ok", "good") == "ok"


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (
            200,
            "8f14e45f  running  batch_process  30 seconds ago  45% (450/1000), 12.5 it/s  Processing [red]450 of 1000",
        ),
        (80, "8f14e45f  running  batch_process  30 seconds ago  45% (450/1000), 12.5 it/s  Pr…"),
        (70, "8f14e45f  running  batch_process  30 seconds ago  45% (450/1000)…"),
        (66, "8f14e45f  running  batch_pr…  30 seconds ago  45% (450/1000)…"),
        (55, "8f14e45f  running  batch_process  45% (450/1000), 12.5…"),
        (40, "8f14e45f  running  batch_p…  45%…"),
        (30, "8f14e45f  running  bat…  45%…"),
        (5, "8f14e45f  running  bat…  45%…"),
    ],
)
def test_a_narrow_terminal_cuts_the_least_important_column_and_never_a_number(screen, columns, line):
    screen(columns, NO_COLOR="1")
    shown = output.table(HEADERS, ROWS, cuts=CUTS, status_column=1).split("\n")[1]
    assert shown == line
    numbers = set(re.findall(r"\d[\d.]*", ROWS[0][3] + ROWS[0][4]))
    assert set(re.findall(r"\d[\d.]*", shown.split("  ", 2)[2])) <= numbers


def test_colours_are_of_the_status_only_and_nothing_is_markup(screen):
    screen(200)
    header, first, second = output.table(HEADERS, ROWS, cuts=CUTS, status_column=1).split("\n")
    assert "\x1b" not in header
    assert first.startswith("8f14e45f  \x1b[36mrunning") and first.count("\x1b") == 2 and "[red]450" in first
    assert "\x1b[31mfailed" in second
    assert output.paint("ok", "good") == "\x1b[32mok\x1b[0m"


def test_wide_characters_take_two_cells(screen):
    screen(14, NO_COLOR="1")
    assert output.table(("A", "B"), [("番号番号番号", "12")], cuts=((0, 4),)).split("\n") == [
        "A           B",
        "番号番号…   12",
    ]


def test_a_history_that_is_too_wide_says_the_date_where_it_changes(monkeypatch):
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()
    rows = [
        ("Version 1: pending (created)", datetime(2026, 1, 27, 23, 59, 58, tzinfo=timezone.utc)),
        ('Version 2: running (progress: 45%, "Processing")', datetime(2026, 1, 27, 23, 59, 59, tzinfo=timezone.utc)),
        ("Version 3: completed", datetime(2026, 1, 28, 0, 0, 1, tzinfo=timezone.utc)),
    ]
    assert queries._version_lines(rows, None) == [
        "Version 1: pending (created)                      2026-01-27 23:59:58 UTC",
        'Version 2: running (progress: 45%, "Processing")  2026-01-27 23:59:59 UTC',
        "Version 3: completed                              2026-01-28 00:00:01 UTC",
    ]
    assert queries._version_lines(rows, 60) == [
        "Version 1: pending (created)         2026-01-27 23:59:58 UTC",
        'Version 2: running (progress: 45%, "Processing")  23:59:59',
        "Version 3: completed                 2026-01-28 00:00:01 UTC",
    ]
    monkeypatch.delenv("TZ")
    time.tzset()


TAKES_STDOUT = """
import ctypes, os, sys
from oq_nb.cli.output import own_stdout

sys.stdout = open(1, "w", closefd=False)
before = sys.stdout
C = ctypes.CDLL(None)
print("before")
C.printf(b"before, by C code\\n")
with own_stdout() as own:
    print("the log", file=own)
    C.printf(b"meanwhile, by C code\\n")
    print("meanwhile")
    sys.stdout = open(1, "w", closefd=False)
    print("meanwhile, by another stdout")
sys.stdout = before
C.printf(b"after, by C code\\n")
print("after")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no C library by the name of None")
def test_a_program_that_goes_on_gets_its_stdout_back_and_nothing_of_what_was_printed_meanwhile():
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    ended = subprocess.run(
        [sys.executable, "-c", TAKES_STDOUT], env=environment, capture_output=True, text=True, timeout=60
    )
    meanwhile = ["meanwhile", "meanwhile, by C code", "meanwhile, by another stdout"]
    assert (ended.returncode, sorted(ended.stderr.splitlines())) == (0, sorted(meanwhile))
    lines = ended.stdout.splitlines()
    assert sorted(lines[:2]) == ["before", "before, by C code"] and lines[2] == "the log"
    assert sorted(lines[3:]) == ["after", "after, by C code"]
