"""Which frames of a traceback are the handler's own."""

from __future__ import annotations

import json
import traceback

import pytest
from test_view import made

from oq_nb.display import markup
from oq_nb.display.tracebacks import own_part


def raised(make) -> str:
    try:
        make()
    except Exception as exc:
        return "".join(traceback.format_exception(exc))
    raise AssertionError("nothing was raised")


def test_own_frames_without_those_of_libraries():
    error = raised(lambda: json.loads("{"))
    assert "json/decoder.py" in error or "decoder.py" in error
    own = own_part(error)
    assert own.count("File ") == 2, "this function, and its helper"
    assert "decoder.py" not in own
    assert own.splitlines()[-1] == error.splitlines()[-1]
    assert 'json.loads("{")' in own


@pytest.mark.parametrize(
    "error",
    [
        "",
        "just text",
        "ValueError: no frames at all",
        raised(lambda: 1 / 0),
        'Traceback (most recent call last):\n  File "/usr/lib/python3.12/x.py", line 1, in f\n    g()\nValueError: x',
        "Traceback (most recent call last):\n" * 50,
    ],
)
def test_where_there_is_nothing_to_set_apart(error):
    assert own_part(error) == ""


CHAINED = """KeyError: 'b'

Traceback (most recent call last):
  File "/home/ada/first.py", line 1, in a
    b()
  File "/x/site-packages/lib.py", line 7, in c
    d()
KeyError: 'a'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/tmp/ipykernel_77/123.py", line 3, in handle
    pipeline.fit(x)
    ~~~~~~~~~~~~^^^
  File "C:\\\\Python\\\\Lib\\\\site-packages\\\\sklearn\\\\pipeline.py", line 50, in fit
    raise KeyError("b")
KeyError: 'b'
"""


def test_of_several_the_last_one():
    assert own_part(CHAINED).splitlines() == [
        '  File "/tmp/ipykernel_77/123.py", line 3, in handle',
        "    pipeline.fit(x)",
        "    ~~~~~~~~~~~~^^^",
        "KeyError: 'b'",
    ]


def test_the_handlers_frames_stand_first_and_all_of_them_below():
    drawn = str(markup.error_html(made("failed", last_error=CHAINED)))
    assert drawn.index("ipykernel_77") < drawn.index("All frames") < drawn.index("sklearn")
    assert drawn.count("<details") == drawn.count("</details>") == 2
    assert "first.py" in drawn
