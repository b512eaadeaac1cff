"""Bars for tests: drawn to nowhere, waited for."""

from __future__ import annotations

import io

from waiting import patience

import oq_nb


def quiet(iterable=None, **options):
    """Return a bar that is drawn to a file in memory."""
    return oq_nb.track(iterable, file=io.StringIO(), **options)


wait_until = patience(10.0, pause=0.01)


def finished(bar):
    """Wait until the end of a bar's own task is written; return the task."""
    assert bar._sink.wait(10)
    return bar.task.refresh()
