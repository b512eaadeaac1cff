"""Functions as tasks in JupyterLab: written, submitted, edited and run again, as a person would."""

from __future__ import annotations

import pytest
from lab import complaints, output, run_all, run_cell, shoot
from servers import connect_to

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

CONNECT = "import time, threading, oq_nb\nqueue = oq_nb.connect()"
FUNCTION = """
@queue.task
def train(n: int, steps: int = 3) -> str:
    for step in oq_nb.track(range(steps), desc="steps"):
        started.release()
        gate.wait()
    return "VERSION 1"
"""
START = "queue.start_worker(concurrency=2);"
SUBMIT = """
gate, started = threading.Event(), threading.Semaphore(0)
tasks = train.map(n=range(4))
for _ in range(2):
    started.acquire()
tasks[0]
"""
RESULTS = "gate.set()\nprint(sorted(tasks.results(timeout=60, progress=False)))"
LEFT = """
deadline = time.monotonic() + 30
while len(queue.workers()) > 1 and time.monotonic() < deadline:
    time.sleep(0.2)
polling = [t.name for t in threading.enumerate() if t.name.startswith("oq-worker-")]
print(f"{len(queue.workers())} registered, {len(polling)} polling")
"""
CELLS = "document.querySelectorAll('.jp-CodeCell')"
NUMBER = "n => parseInt(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[n].textContent.slice(1)) || 0"
GROUP = "tasks"
SET_SOURCE = (
    "([n, text]) => jupyterapp.shell.currentWidget.content.widgets[n].model.sharedModel.setSource(text)"  # as typed
)


def test_a_function_is_edited_and_run_again(open_lab, seaweedfs, monkeypatch):
    monkeypatch.setenv("OQ_LOCAL_DIR", seaweedfs.data_dir)
    for task in (queue := connect_to(seaweedfs, bucket=seaweedfs.bucket, prefix="")).list(status="pending"):
        task.cancel()  # of other tests in the embedded store
    lab, page = open_lab([CONNECT, FUNCTION, START, SUBMIT, RESULTS, LEFT, GROUP])
    for cell in range(4):
        run_cell(page, cell)
    output(page, 3).locator(".oq-task").wait_for()  # its last line shows a task that moves
    run_cell(page, 6)
    output(page, 6).get_by_text("0 of 4 tasks").wait_for()  # the group as a last line is one bar
    shoot(page, "functions-running")

    # Two of the four run the first version. What is claimed after the cell was run again runs the second.
    page.evaluate(SET_SOURCE, [1, FUNCTION.replace("VERSION 1", "VERSION 2")])
    run_cell(page, 1)
    run_cell(page, 4)
    assert "['VERSION 1', 'VERSION 1', 'VERSION 2', 'VERSION 2']" in output(page, 4).inner_text()

    output(page, 6).get_by_text("4 of 4 tasks").wait_for()  # it has moved by itself
    page.wait_for_function(f"() => !{CELLS}[6].querySelector('.oq-task')")  # and is plain HTML by now

    # The worker is started again: it replaces the other one, and says what has changed.
    run_cell(page, 2)
    said = output(page, 2).inner_text()
    assert said.startswith("replaced ")
    assert said.strip().endswith(": 1 function changed")
    run_cell(page, 5)
    assert "1 registered, 1 polling" in output(page, 5).inner_text()

    for _ in range(2):
        before = page.evaluate(NUMBER, 6)
        run_all(page)
        page.wait_for_function(f"n => ({NUMBER})(6) > n", arg=before)
    assert output(page, 2).inner_text().strip().endswith(": no function changed")
    assert "['VERSION 2', 'VERSION 2', 'VERSION 2', 'VERSION 2']" in output(page, 4).inner_text()
    assert "1 registered, 1 polling" in output(page, 5).inner_text()
    shoot(page, "functions-again")
    results = [task.output for task in queue.list(status="completed", task_type="train")]
    assert sorted(results) == ["VERSION 1"] * 2 + ["VERSION 2"] * 10
    assert complaints(lab, page) == []
