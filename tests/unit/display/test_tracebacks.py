"""Which frames of a traceback are the handler's own."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from test_view import made

import oq_nb
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


IN_A_CLONE = """Traceback (most recent call last):
  File "/home/ada/oq_nb/oq_nb/attempt/invoke.py", line 60, in call_handler
    return call()
  File "/home/ada/oq_nb/oq_nb/aio.py", line 9, in run
    return work()
  File "/home/ada/oq_nb/jobs.py", line 3, in train
    load(x)
  File "/home/ada/oq_nb/notebooks/data.py", line 8, in load
    raise ValueError("bad image")
ValueError: bad image
"""


def test_code_beside_the_package_in_a_clone_is_the_users():
    assert own_part(IN_A_CLONE).splitlines() == [
        '  File "/home/ada/oq_nb/jobs.py", line 3, in train',
        "    load(x)",
        '  File "/home/ada/oq_nb/notebooks/data.py", line 8, in load',
        '    raise ValueError("bad image")',
        "ValueError: bad image",
    ]


def test_every_module_of_the_package_is_the_librarys():
    package = Path(oq_nb.__file__).parent
    files = [f"/x/oq_nb/{path.relative_to(package)}" for path in package.rglob("*.py")]
    frames = [f'  File "{file}", line 1, in f\n    g()\n' for file in files]
    own = '  File "/home/ada/jobs.py", line 3, in train\n    load(x)'
    error = "Traceback (most recent call last):\n" + "".join(frames) + own + "\nValueError: x"
    assert len(files) > 150
    assert own_part(error) == own + "\nValueError: x"


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
