"""Bars for tests: drawn to nowhere, waited for."""

from __future__ import annotations

import io
import time

import oq_nb


def quiet(iterable=None, **options):
    """Return a bar that is drawn to a file in memory."""
    return oq_nb.track(iterable, file=io.StringIO(), **options)


def wait_until(condition, seconds=10.0):
    """Wait until something holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


def finished(bar):
    """Wait until the end of a bar's own task is written; return the task."""
    assert bar._sink.wait(10)
    return bar.task.refresh()
