"""Widgets in real kernels: refreshed while a cell is busy, frozen at the end, nothing left behind."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
VIEW = "application/vnd.jupyter.widget-view+json"

WORKER = """
w = oq_nb.Worker(q)
@w.task("count")
def count(n, context):
    for k in range(n):
        context.report_progress(current=k, total=n, message=f"step {k}")
        context.raise_if_cancelled()
        time.sleep(0.25)
    return {"counted": n}
@w.task("fail")
def fail(n, context):
    context.report_progress(percent=45)
    time.sleep(2)
    raise oq_nb.PermanentError("no such file: <b>x</b>")
w.start();
"""
BUSY = "end = time.monotonic() + {seconds}\nwhile time.monotonic() < end: sum(range(1000))"
THREADS = "print(sorted(t.name for t in threading.enumerate() if t.name.startswith('oq-')))"
COMMS = "import comm; print(len(comm.get_comm_manager().comms))"


def moves_while_a_cell_is_busy(kernel):
    kernel.run(WORKER)
    kernel.run("task = q.submit('count', 16)\ntask")
    kernel.run(BUSY.format(seconds=6))
    busy = [m for m in kernel.of("execute_input") if "time.monotonic() < end" in m["content"]["code"]][0]
    last = busy["arrived"] + 6
    seen = [when for when, html in kernel.values() if busy["arrived"] <= when <= last and "<progress" in html]
    points = [busy["arrived"], *seen]
    assert len(seen) >= 3
    assert max(b - a for a, b in zip(points, points[1:], strict=False)) < 2.5, "it stood still"
    frozen = kernel.wait_for(lambda: kernel.of("update_display_data"))[-1]["content"]
    assert VIEW not in frozen["data"]
    assert "completed" in frozen["data"]["text/plain"]
    assert 'value="100"' in frozen["data"]["text/html"]
    assert "counted" in frozen["data"]["text/html"]
    shown = kernel.of("display_data")[0]["content"]
    assert set(shown["data"]) == {VIEW, "text/html", "text/plain"}
    assert frozen["transient"]["display_id"] == shown["transient"]["display_id"]
    assert not kernel.of("error")
    assert "LookupError" not in "".join(m["content"]["text"] for m in kernel.of("stream"))
    kernel.run("w.stop()")


def test_it_moves_while_a_cell_is_busy(kernels):
    moves_while_a_cell_is_busy(kernels())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", ["6.31.0", "7.0.1"])
def test_it_moves_on_other_kernels(kernels, tmp_path, version):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"ipykernel=={version}", "-e", str(ROOT)], check=True, stdout=subprocess.DEVNULL)
    kernel = kernels(str(python))
    assert kernel.run("import ipykernel; print(ipykernel.__version__)").strip() == version
    moves_while_a_cell_is_busy(kernel)


def test_cancel_says_what_happened_and_takes_effect(kernels):
    kernel = kernels()
    kernel.run("task = q.submit('count', 1000)\ntask")
    kernel.wait_for(lambda: any("No worker has this type" in html for _, html in kernel.values()))
    kernel.press("Cancel")
    kernel.wait_for(lambda: any("Cancelled." in html for _, html in kernel.values()))
    frozen = kernel.wait_for(lambda: kernel.of("update_display_data"))[-1]["content"]["data"]
    assert VIEW not in frozen
    assert "cancelled in a notebook" in frozen["text/html"]
    assert kernel.run("print(q.get(task.id).status)").strip() == "cancelled"


def test_a_running_task_is_asked_to_stop(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("task = q.submit('count', 1000)\ntask")
    kernel.wait_for(lambda: any("step 1" in html for _, html in kernel.values()))
    kernel.press("Cancel")
    kernel.wait_for(lambda: any("Asked to stop" in html for _, html in kernel.values()))
    frozen = kernel.wait_for(lambda: kernel.of("update_display_data"))[-1]["content"]["data"]
    assert "cancelled" in frozen["text/plain"]
    assert "stopped at" in frozen["text/html"], "how far it was is still to be seen"
    kernel.run("w.stop()")


def attempt_of(kernel) -> int:
    return int(kernel.run("print(task.refresh().attempt)"))


def test_a_failed_one_can_be_retried(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("task = q.submit('fail', max_retries=0)\ntask")
    root = kernel.of("display_data")[0]["content"]["data"][VIEW]["model_id"]
    kernel.send(root, {"method": "update", "state": {"_view_count": 1}})  # a browser shows it
    saved = kernel.wait_for(lambda: kernel.of("update_display_data"))[-1]["content"]["data"]
    assert VIEW in saved, "it is still live, for its button"
    assert "no such file: &lt;b&gt;x&lt;/b&gt;" in saved["text/html"]
    assert "stopped at 45%" in saved["text/html"]
    assert attempt_of(kernel) == 1
    kernel.press("Retry")
    kernel.wait_for(lambda: any("pending again" in html for _, html in kernel.values()))
    kernel.wait_for(lambda: attempt_of(kernel) == 2)
    kernel.run("w.stop()")


def test_a_failed_one_that_nobody_looks_at_is_saved_as_html(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("task = q.submit('fail', max_retries=0)\ntask")
    saved = kernel.wait_for(lambda: kernel.of("update_display_data"))[-1]["content"]["data"]
    assert VIEW not in saved
    assert "no such file" in saved["text/html"]
    kernel.run("task.refresh()")
    assert VIEW not in kernel.of("display_data")[-1]["content"]["data"]
    kernel.run("other = q.get(task.id).widget(); other")
    assert VIEW in kernel.of("display_data")[-1]["content"]["data"], "asked for, with its button"
    kernel.wait_for(lambda: VIEW not in kernel.of("update_display_data")[-1]["content"]["data"])
    kernel.run("w.stop()")


def test_the_last_word_is_saved_by_what_runs_notebooks_without_a_browser(kernels):
    """nbclient and its like take messages of the cell that runs only."""
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("task = q.submit('count', 4)\ntask")
    kernel.run("time.sleep(4)")
    frozen = kernel.of("update_display_data")[-1]
    cell = next(m for m in kernel.of("execute_input") if m["content"]["code"] == "time.sleep(4)")
    assert frozen["parent_header"]["msg_id"] == cell["parent_header"]["msg_id"]
    assert "completed" in frozen["content"]["data"]["text/plain"]
    kernel.run("w.stop()")


def test_nothing_is_left_of_two_hundred(kernels):
    kernel = kernels()
    kernel.run(
        "from IPython.display import display\n"
        "def show(count):\n"
        "    for task in q.submit_many('nobody', range(count)):\n"
        "        display(task.widget())\n"
        "    time.sleep(1)\n"
        "show(5); gc.collect(); time.sleep(1)"  # what loads on the first use stays
    )
    threads, comms = kernel.run(THREADS), kernel.run(COMMS)
    assert threads.strip() == "[]"
    size = "import psutil; print(psutil.Process().memory_info().rss)"
    before = int(kernel.run(size))
    kernel.run("show(200); gc.collect()", timeout=120)
    kernel.wait_for(lambda: kernel.run(THREADS) == threads and kernel.run(COMMS) == comms)
    assert int(kernel.run(size)) - before < 30e6
    kernel.run("import ipywidgets.widgets.widget as registry; left = len(registry._instances)")
    assert int(kernel.run("print(left)")) < 10
    last = kernel.of("update_display_data")[-1]["content"]["data"]
    assert VIEW not in last
    assert "No longer refreshed" in last["text/html"]


def test_the_dashboard_is_live_and_ends_with_its_close(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("tasks = q.submit_many('count', [40, 2, 2]); board = q.widget(interval=0.5); board")
    kernel.wait_for(lambda: any("<b>1</b> running" in html for _, html in kernel.values()))
    kernel.wait_for(lambda: any("step " in html and "<table" in html for _, html in kernel.values()))
    kernel.run("board._tasks.value = tasks[0].id")
    kernel.wait_for(lambda: any("<svg" in html and "claimed" in html for _, html in kernel.values()))
    kernel.run("board.close(); del board; w.stop(0)")
    frozen = kernel.wait_for(lambda: kernel.of("update_display_data"))[-1]["content"]["data"]
    assert VIEW not in frozen
    assert "count" in frozen["text/html"]
    kernel.wait_for(lambda: kernel.run(THREADS).strip() == "[]")
