"""What a notebook has in it once it is saved: the last word of every bar, readable without a kernel."""

from __future__ import annotations

import time

import nbformat
import pytest
from nbclient import NotebookClient

from oq_nb import local

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run cells in a kernel with a store of its own, as nbclient, papermill and nbconvert do; return their outputs."""
    monkeypatch.setenv("OQ_LOCAL_DIR", str(tmp_path / "store"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))

    def run(cells: list[str], **hooks) -> list[list[dict]]:
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        NotebookClient(notebook, timeout=60, kernel_name="python3", store_widget_state=False, **hooks).execute()
        return [[output["data"] for output in cell.outputs if "data" in output] for cell in notebook.cells]

    yield run
    local.stop(data_dir=tmp_path / "store")


def test_bars_of_loops_are_saved_as_they_ended(run):
    loop = "for n in oq_nb.track({}, desc={!r}, queue=None):\n    time.sleep(0.02)\n    if n == {}: {}"
    cells = [
        "import time, oq_nb",
        loop.format("range(20)", "<b>whole & good</b>", -1, "break"),
        loop.format("range(20)", "left", 10, "break"),
        "try:\n    "
        + loop.format("range(20)", "failed", 10, "1 / 0").replace("\n", "\n    ")
        + "\nexcept ZeroDivisionError: pass",
        loop.format("(n for n in range(20))", "length unknown", -1, "break"),
        "with oq_nb.tqdm(total=4000, unit='B', unit_scale=True, delay=0.1, queue=None) as bar:\n"
        "    for _ in range(4):\n        time.sleep(0.05)\n        bar.update(1000)",
        "for _ in oq_nb.trange(3, leave=False, queue=None): time.sleep(0.02)",
        "from ipywidgets.widgets.widget import _instances\nbefore = len(_instances)\n"
        "for _ in range(120):\n    for _ in oq_nb.trange(2, leave=False, queue=None): pass\n"
        "len(_instances) - before",
    ]
    outputs = run(cells)
    assert not any(WIDGET_VIEW in data for cell in outputs for data in cell)
    whole, left, failed, unknown, scaled = (data for [data] in outputs[1:6])
    for data, percent, said in (
        (whole, 100, "20/20"),
        (left, 50, "10/20"),
        (failed, 50, "10/20"),
        (unknown, 100, "20"),
        (scaled, 100, "4.00k/4.00k"),
    ):
        assert f'<progress max="100" value="{percent}"' in data["text/html"]
        assert said in data["text/html"]
        assert said in data["text/plain"]
    assert "&lt;b&gt;whole &amp; good&lt;/b&gt;: 100%" in whole["text/html"]
    colours = [data["text/html"].split("accent-color:")[1][:7] for data in (whole, left, failed)]
    assert len(set(colours)) == 3, "good, left early and failed look alike"
    assert outputs[6] == [{"text/html": "", "text/plain": ""}]
    assert int(outputs[7][-1]["text/plain"]) < 60 * 10, "the models of old bars are closed"


WORKER = """
import time, oq_nb

queue = oq_nb.connect()
worker = oq_nb.Worker(queue, "w")

@worker.task("sleep")
def sleep(seconds):
    time.sleep(seconds)

worker.start();
"""


def test_a_task_that_ends_between_two_cells_is_saved_as_it_ended(run):
    """Whoever runs notebooks without a browser takes no message while no cell runs."""
    outputs = run(
        [WORKER, "queue.submit('sleep', 0.5)", "1", "time.sleep(1); worker.stop()"],
        on_cell_start=lambda cell, cell_index: time.sleep(3 if cell_index == 2 else 0),
    )
    (shown,) = outputs[1]
    assert WIDGET_VIEW not in shown
    assert "completed" in shown["text/plain"]
    assert '<progress max="100" value="100"' in shown["text/html"]
