"""What a notebook prints when a wait is cancelled, too long or interrupted: the line of the cell, none of ours."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import oq_nb

PACKAGE = str(Path(oq_nb.__file__).parent)

SETUP = """
import os, signal, threading, oq_nb
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
queue = Queue(TaskStore(FakeStore()))
task = queue.submit("nobody-runs-this")
gone = queue.submit("cancelled").cancel("not needed")
def interrupt_later():
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
"""
CELLS = {
    "gone.result()  # of the user": "TaskCancelledError: task",
    "task.wait(timeout=0.05)  # of the user": "WaitTimeoutError",
    "list(oq_nb.as_completed([task], timeout=0.05, progress=False))  # of the user": "WaitTimeoutError: 1 of 1",
    "interrupt_later()\ntask.wait()  # of the user": "KeyboardInterrupt",
    "interrupt_later()\noq_nb.wait([task], progress=False)  # of the user": "KeyboardInterrupt",
    "interrupt_later()\nlist(oq_nb.as_completed([task], progress=False))  # of the user": "KeyboardInterrupt",
}


@pytest.fixture(scope="module")
def cells():
    sources = [SETUP, *CELLS]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "python3", "language": "python"}
    NotebookClient(notebook, timeout=120, allow_errors=True).execute(env=os.environ.copy())
    assert not notebook.cells[0].outputs
    return {cell.source: cell.outputs for cell in notebook.cells[1:]}


@pytest.mark.parametrize("source", CELLS)
def test_a_notebook_shows_the_line_of_the_cell_and_none_of_the_package(cells, source):
    [error] = [output for output in cells[source] if output.output_type == "error"]
    said = "\n".join(error.traceback)
    assert PACKAGE not in said
    assert "threading.py" not in said
    assert "# of the user" in said
    assert CELLS[source] in said.splitlines()[-1]
