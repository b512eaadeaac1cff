"""Bars for tests: drawn to nowhere, waited for."""

from __future__ import annotations

import io

from waiting import HANGS_AFTER_SECONDS

import oq_nb


def quiet(iterable=None, **options):
    """Return a bar that is drawn to a file in memory."""
    return oq_nb.track(iterable, file=io.StringIO(), **options)


def finished(bar):
    """Wait until the end of a bar's own task is written; return the task."""
    assert bar._sink.wait(HANGS_AFTER_SECONDS)
    return bar.task.refresh()
