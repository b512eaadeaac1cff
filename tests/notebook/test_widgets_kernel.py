"""Widgets in real kernels: refreshed while a cell is busy, frozen at the end, nothing left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
from staged import STATES

from bench.proxy import Proxy

pytestmark = pytest.mark.timeout(900)

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
HOLDING = """
go_on = threading.Event()
@w.task("hold")
def hold(n, context):
    context.report_progress(percent=1, message="step 1")
    go_on.wait(300)
    context.report_progress(percent=2, message="step 2", throttle_seconds=0)  # that tells that it was asked to stop
    context.raise_if_cancelled()
"""
BUSY = """
longest, last, end = 0.0, time.monotonic(), time.monotonic() + {seconds}
while last < end:
    sum(range(1000))
    longest, last = max(longest, time.monotonic() - last), time.monotonic()
print(longest)
"""
THREADS = "print(sorted(t.name for t in threading.enumerate() if t.name.startswith('oq-')))"
COMMS = "import comm; print(len(comm.get_comm_manager().comms))"


def moves_while_a_cell_is_busy(kernel):
    kernel.run(WORKER)
    kernel.run("task = q.submit('count', 16)\ntask")
    paused = float(kernel.run(BUSY.format(seconds=6)))
    busy = [m for m in kernel.of("execute_input") if "while last < end" in m["content"]["code"]][0]
    last = busy["arrived"] + 6
    seen = [when for when, html in kernel.values() if busy["arrived"] <= when <= last and "<progress" in html]
    points = [busy["arrived"], *seen]
    assert len(seen) >= 3
    longest = max(b - a for a, b in zip(points, points[1:], strict=False))
    assert longest < 2.5 + 2 * paused, f"it stood still, the kernel itself for {paused:.2f} s"
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


def test_without_widgets_plain_html_is_updated_in_place(kernels):
    kernel = kernels()
    kernel.run("import os; os.environ['OQ_WIDGETS'] = '0'")
    kernel.run(WORKER)
    kernel.run("task = q.submit('count', 16)\ntask")
    [shown] = kernel.of("display_data")
    assert set(shown["content"]["data"]) == {"text/html", "text/plain"}
    kernel.run(BUSY.format(seconds=6))
    frozen = kernel.wait_for(lambda: [m for m in kernel.of("update_display_data") if "completed" in str(m["content"])])
    updates = [m["content"] for m in kernel.of("update_display_data")]
    assert all(set(update["data"]) == {"text/html", "text/plain"} for update in updates)
    assert {update["transient"]["display_id"] for update in updates} == {shown["content"]["transient"]["display_id"]}
    assert len([update for update in updates if "<progress" in update["data"]["text/html"]]) >= 3
    assert "counted" in frozen[-1]["content"]["data"]["text/html"]
    kernel.run("q.widget()")
    kernel.run("oq_nb.wait([q.submit('count', 2)], 60)")
    assert kernel.run(COMMS).strip() == "0"
    assert not [m for m in kernel.messages if "comm_open" in m["msg_type"]]
    kernel.run("q.widget().close(); w.stop()")
    assert not kernel.of("error")


def test_plain_html_where_no_widget_manager_answers(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("task = q.submit('count', 100)\ntask")
    [shown] = kernel.of("display_data")
    assert VIEW in shown["content"]["data"], "there may be one"

    def updated():
        return [m["content"]["data"] for m in kernel.of("update_display_data") if VIEW not in m["content"]["data"]]

    kernel.wait_for(lambda: len(updated()) >= 3)  # it has been idle, and nobody has reported a view
    assert all("<progress" in data["text/html"] for data in updated())
    kernel.run("task.cancel()")
    kernel.wait_for(lambda: "cancelled" in updated()[-1]["text/plain"])
    kernel.run("w.stop()")


def test_that_nobody_answers_is_learned_once(kernels):
    """By the program that sends the cells: another one, as a page that is opened later, is asked for itself."""
    kernel = kernels()

    def shown(code: str) -> dict:
        before = len(kernel.of("display_data"))
        kernel.run(code)
        [message] = kernel.of("display_data")[before:]
        return message["content"]["data"]

    assert VIEW in shown("q.widget()"), "there may be one"
    kernel.wait_for(lambda: without_widget(kernel))  # it has been idle, and nobody has reported a view
    assert VIEW not in shown("task = q.submit('nobody'); task")
    assert VIEW not in shown("q.widget()")
    mine, kernel.client.session.session = kernel.client.session.session, "a page that is opened later"
    assert VIEW in shown("q.widget()"), "it may answer, though the same display was plain before"
    page = shown("other = q.submit('nobody'); other")
    kernel.send(page[VIEW]["model_id"], {"method": "update", "state": {"_view_count": 1}})
    kernel.client.session.session = mine
    assert VIEW in shown("q.get(task.id).widget()"), "a browser shows displays of this kernel"
    assert not kernel.of("error")


GATED = """
import os
@w.task("gated")
def gated(gate, context):
    while not os.path.exists(gate):
        time.sleep(0.02)
first = q.submit("gated", {gate!r})
while str(first.refresh().status) != "running":
    time.sleep(0.02)
tasks = [first, *q.submit_many("count", [3, 4]), q.submit("fail", max_retries=0)]
"""


@contextmanager
def open_when(gate, condition):
    """Open a gate for a task when a condition holds, beside the block."""
    is_over = threading.Event()

    def watch():
        while not is_over.wait(0.05):
            if condition():
                gate.touch()
                return

    watcher = threading.Thread(target=watch, name="opens-a-gate")
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()


def one_bar_for_a_group(kernel, gate):
    """The first task runs until the bar has said so."""

    def has_been_said():
        return any("0 of 4 tasks, 1 running" in html for _, html in kernel.values())

    kernel.run(WORKER)
    kernel.run(GATED.format(gate=str(gate)))
    start = len(kernel.messages)
    earlier = {m["content"]["transient"]["display_id"] for m in kernel.of("display_data")}
    code = "done, not_done = oq_nb.wait(tasks, 150)"
    with open_when(gate, has_been_said):
        kernel.run(code)
    since = [m for m in kernel.messages[start:] if m["msg_type"] in ("display_data", "update_display_data")]
    here = [
        m for m in since if m["content"]["transient"]["display_id"] not in earlier
    ]  # those may be updated beside it
    shown, *updates = here
    assert shown["msg_type"] == "display_data"
    assert VIEW in shown["content"]["data"]
    last = updates[-1]
    assert {m["content"]["transient"]["display_id"] for m in here} == {shown["content"]["transient"]["display_id"]}
    assert VIEW not in last["content"]["data"]
    assert last["content"]["data"]["text/plain"].startswith("4 of 4 tasks, 1 failed")
    assert 'value="100"' in last["content"]["data"]["text/html"]
    cell = next(m for m in kernel.of("execute_input") if m["content"]["code"] == code)
    assert last["parent_header"]["msg_id"] == cell["parent_header"]["msg_id"]
    of_cell = [m for m in kernel.messages if m["parent_header"].get("msg_id") == cell["parent_header"]["msg_id"]]
    assert of_cell.index(last) < next(
        n for n, m in enumerate(of_cell) if kernel._is_idle(m, cell["parent_header"]["msg_id"])
    )
    assert has_been_said()
    kernel.run("w.stop()")


def test_one_bar_for_a_group(kernels, tmp_path):
    one_bar_for_a_group(kernels(), tmp_path / "gate")


def test_map_and_as_completed_have_one_bar_each(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("print(list(q.map('count', [1, 2])))")
    kernel.run("for task in oq_nb.as_completed(q.submit_many('count', [1, 2]), 60): pass")
    kernel.run("for task in oq_nb.as_completed(q.submit_many('count', [1, 1]), 60): break")
    assert len(kernel.of("display_data")) == 3
    last = {m["content"]["transient"]["display_id"]: m for m in kernel.of("update_display_data")}
    said = [m["content"]["data"]["text/plain"] for m in last.values()]
    assert [text.split(",")[0] for text in said[:2]] == ["2 of 2 tasks"] * 2
    assert said[2].startswith(("1 of 2 tasks", "2 of 2 tasks"))
    kernel.run("try: oq_nb.wait([q.submit('nobody')], 0.5)\nfinally: pass")
    kernel.run("w.stop(); gc.collect()")
    kernel.wait_for(lambda: kernel.run(THREADS).strip() == "[]")
    assert kernel.of("update_display_data")[-1]["content"]["data"]["text/plain"].startswith("0 of 1 task,")


def test_a_cell_that_waits_ends_with_the_last_word_in_every_output(kernels):
    """Without that a notebook that is executed without a browser is saved with bars that stand still."""
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("task = q.submit('count', 3)\ntask")
    start = len(kernel.messages)
    kernel.run("print(task.result(150))")
    frozen = [m for m in kernel.messages[start:] if m["msg_type"] == "update_display_data"]
    assert frozen, "before the cell was over"
    assert "completed" in frozen[-1]["content"]["data"]["text/plain"]
    kernel.run("other = q.submit('count', 3); other.wait(150, progress=True)")
    assert "completed" in kernel.of("update_display_data")[-1]["content"]["data"]["text/plain"]
    kernel.run("w.stop()")


def test_the_cell_that_waits_saves_the_queue_as_it_is_then(kernels):
    """Without a browser. The dashboard looks once by itself; all later looks are those at the ends of cells."""
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run(HOLDING)
    kernel.run("from oq_nb.display import render_loop; render_loop._SETTLE_SECONDS = 100")  # a machine may be slow
    kernel.run("task = q.submit('hold')\nwhile not task.refresh().progress: time.sleep(0.05)")
    kernel.run("q.widget(interval=900)")
    saved = kernel.of("display_data", "update_display_data")[-1]["content"]["data"]
    assert "1 running" in saved["text/plain"]
    code = "go_on.set(); task.wait(100); print(task.status)"
    assert kernel.run(code).strip() == "completed"
    cell = next(m for m in kernel.of("execute_input") if m["content"]["code"] == code)["parent_header"]["msg_id"]
    updates = [m for m in kernel.of("update_display_data") if m["parent_header"]["msg_id"] == cell]
    assert updates, "before the cell was over"
    last = updates[-1]["content"]["data"]
    assert "1 completed" in last["text/plain"]
    assert "running" not in last["text/plain"]
    assert VIEW in last, "the queue goes on"
    kernel.run("w.stop()")


def test_every_state(kernels, request):
    kernel = kernels()
    kernel.run(
        f"import sys; sys.path.insert(0, {str(request.path.parent)!r}); from staged import stage\ntasks = stage(q)"
    )
    for name, (word, note) in STATES.items():
        kernel.run(f"tasks[{name!r}].widget()")
        saved = [m["content"]["data"] for m in kernel.of("update_display_data", "display_data")]
        html = [data["text/html"] for data in saved]
        kernel.wait_for(
            lambda html=html, word=word, note=note: (
                any(word in text and note in text for text in [*(value for _, value in kernel.values()), *html])
                or any(
                    note in m["content"]["data"]["text/html"] and word in m["content"]["data"]["text/html"]
                    for m in kernel.of("update_display_data")
                )
            )
        )


def test_a_store_that_goes_away(kernels, seaweedfs):
    """Really away: nobody listens there any more. The last state is kept, and said to be that."""
    kernel = kernels()
    with Proxy(seaweedfs.endpoint) as proxy:
        kernel.run(WORKER)
        kernel.run(
            f"far = oq_nb.connect('oq-tests', prefix=q.store.objects.prefix, endpoint={proxy.endpoint!r})\n"
            "task = far.get(q.submit('count', 2000).id); task"
        )
        kernel.wait_for(lambda: any("step 1" in html for _, html in kernel.values()))
    away = "The store cannot be reached and is tried again. This is its last known state, from"
    html = kernel.wait_for(lambda: [html for _, html in kernel.values() if away in html])[-1]
    assert "running" in html
    assert "<progress" in html
    kernel.press("Cancel")
    kernel.wait_for(lambda: any("Not done: " in html for _, html in kernel.values()))
    kernel.run("q.cancel(task.id); w.stop()")


def test_a_kernel_that_is_shut_down_leaves_html(kernels):
    kernel = kernels()
    kernel.run("task = q.submit('nobody')\ntask")
    kernel.run("q.widget()")
    kernel.client.shutdown()
    kernel.wait_for(lambda: len(without_widget(kernel)) >= 2)
    last = {m["content"]["transient"]["display_id"]: m["content"]["data"] for m in kernel.of("update_display_data")}
    assert len(last) == 2
    for data in last.values():
        assert VIEW not in data
        assert "No longer refreshed" in data["text/html"]
    assert not kernel.of("comm_close"), "a page that restarts its kernel would complain"


def ipykernel_in_a_folder(version: str) -> Path:
    """Install an ipykernel into a folder of its own, once for each environment; what it needs is there already."""
    folder = Path(sys.prefix if sys.prefix != sys.base_prefix else tempfile.gettempdir()) / "oq-ipykernels" / version
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run([*pip, "--target", made, f"ipykernel=={version}"], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"ipykernel {version} cannot be installed: {done.stderr.strip().splitlines()[-1:]}")
            try:
                shutil.copytree(made, folder.with_suffix(f".{os.getpid()}"))
                folder.with_suffix(f".{os.getpid()}").rename(folder)
            except OSError:  # another run was faster
                shutil.rmtree(folder.with_suffix(f".{os.getpid()}"), ignore_errors=True)
    return folder


@pytest.mark.parametrize("version", ["6.31.0", "7.0.1"])
def test_it_moves_on_other_kernels(kernels, version, tmp_path):
    paths = [str(ipykernel_in_a_folder(version)), os.environ.get("PYTHONPATH", "")]
    kernel = kernels(PYTHONPATH=os.pathsep.join(filter(None, paths)))
    assert kernel.run("import ipykernel; print(ipykernel.__version__)").strip() == version
    moves_while_a_cell_is_busy(kernel)
    one_bar_for_a_group(kernel, tmp_path / "gate")


def without_widget(kernel) -> list[dict]:
    """Return what outputs were replaced by when their widget was over; while it lives, what is saved is updated too."""
    updates = [message["content"]["data"] for message in kernel.of("update_display_data")]
    return [data for data in updates if VIEW not in data]


def test_cancel_says_what_happened_and_takes_effect(kernels):
    kernel = kernels()
    kernel.run("task = q.submit('count', 1000)\ntask")
    kernel.wait_for(lambda: any("No worker has this type" in html for _, html in kernel.values()))
    kernel.press("Cancel")
    kernel.wait_for(lambda: any("Cancelled." in html for _, html in kernel.values()))
    frozen = kernel.wait_for(lambda: without_widget(kernel))[-1]
    assert "cancelled in a notebook" in frozen["text/html"]
    assert kernel.run("print(q.get(task.id).status)").strip() == "cancelled"


def test_a_running_task_is_asked_to_stop(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run(HOLDING)
    kernel.run("task = q.submit('hold')\ntask")
    kernel.wait_for(lambda: any("step 1" in html for _, html in kernel.values()))
    kernel.press("Cancel")
    kernel.wait_for(lambda: any("Asked to stop" in html for _, html in kernel.values()))
    kernel.run("go_on.set()")
    frozen = kernel.wait_for(lambda: without_widget(kernel))[-1]
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
    error = "no such file: &lt;b&gt;x&lt;/b&gt;"
    updates = kernel.wait_for(lambda: [m for m in kernel.of("update_display_data") if error in str(m["content"])])
    saved = updates[-1]["content"]["data"]
    assert VIEW in saved, "it is still live, for its button"
    assert error in saved["text/html"]
    assert "stopped at 45%" in saved["text/html"]
    assert attempt_of(kernel) == 1
    kernel.run("w.stop()")  # it would take the task before that is drawn, and then it is not pending any more
    kernel.press("Retry")
    kernel.wait_for(lambda: any("pending again" in html for _, html in kernel.values()))
    kernel.run("w.start()")
    kernel.wait_for(lambda: attempt_of(kernel) == 2)
    kernel.run("w.stop()")


def test_a_failed_one_that_nobody_looks_at_is_saved_as_html(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("task = q.submit('fail', max_retries=0)\ntask")
    saved = kernel.wait_for(lambda: without_widget(kernel))[-1]
    assert "no such file" in saved["text/html"]
    kernel.run("task.refresh()")
    assert VIEW not in kernel.of("display_data")[-1]["content"]["data"]
    kernel.run("other = q.get(task.id).widget(); other")
    assert VIEW in kernel.of("display_data")[-1]["content"]["data"], "asked for, with its button"
    kernel.wait_for(lambda: VIEW not in kernel.of("update_display_data")[-1]["content"]["data"])
    kernel.run("w.stop()")


def test_an_output_is_not_replaced_while_a_page_still_makes_its_view(kernels):
    """JupyterLab would throw away the view half made, and complain: of a task that ends right after it was shown."""
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run(HOLDING)
    kernel.run("from oq_nb.display import browser; browser._VIEW_SECONDS = float('inf')")  # a page may take its time
    kernel.run("task = q.submit('hold')\nwhile not task.refresh().progress: time.sleep(0.05)")
    kernel.run("task.widget()", cellId="of JupyterLab")
    saved, shown = (m["content"] for m in kernel.of("display_data"))
    root = shown["data"][VIEW]["model_id"]

    def updates(output):
        found = (m["content"] for m in kernel.of("update_display_data"))
        return [update["data"] for update in found if update["transient"] == output["transient"]]

    kernel.run("go_on.set(); task.wait(60)")
    kernel.wait_for(lambda: any("completed" in update["text/plain"] for update in updates(saved)))
    assert updates(shown) == []
    kernel.send(root, {"method": "update", "state": {"_view_count": 1}})  # now it has its view
    kernel.wait_for(lambda: updates(shown))
    assert updates(shown) == [{"text/html": "", "text/plain": ""}]
    kernel.run("w.stop()")


def test_a_task_that_failed_before_keeps_its_widget_for_the_button(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run("bad, good = q.submit('fail', max_retries=0), q.submit('count', 2)")
    kernel.run("good.wait(60); bad.wait(60)")
    kernel.run("bad.widget()", cellId="of JupyterLab")
    kernel.run("good.widget()", cellId="of JupyterLab")
    saved, shown, plain = (m["content"]["data"] for m in kernel.of("display_data")[-3:])
    assert VIEW not in saved and "stopped at 45%" in saved["text/html"]
    assert VIEW in shown
    assert VIEW not in plain and "completed" in plain["text/plain"]
    kernel.run("w.stop()")


def test_jupyterlab_saves_the_last_known_state_beside_the_widget(kernels):
    kernel = kernels()
    kernel.run(WORKER)
    kernel.run(HOLDING)
    kernel.run("task = q.submit('hold')\ntask", cellId="of JupyterLab")
    saved, shown = (m["content"] for m in kernel.of("display_data"))
    assert set(saved["data"]) == {"text/html", "text/plain"}
    assert VIEW in shown["data"]

    def updates(output):
        found = (m["content"] for m in kernel.of("update_display_data"))
        return [update["data"] for update in found if update["transient"] == output["transient"]]

    def running():
        return [u for u in updates(saved) if "step 1" in u["text/html"] and "As seen at" in u["text/html"]]

    kernel.wait_for(running)
    assert "running" in running()[-1]["text/plain"]
    assert updates(shown) == [], "the widget does not flicker"
    kernel.run("go_on.set(); task.wait(60)", cellId="of JupyterLab")
    kernel.wait_for(lambda: "completed" in updates(saved)[-1]["text/plain"])
    kernel.wait_for(lambda: updates(shown))
    assert updates(shown) == [{"text/html": "", "text/plain": ""}]
    assert "As seen at" not in updates(saved)[-1]["text/html"]
    assert VIEW not in str(kernel.of("update_display_data")), "nothing of a widget is left"
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
        "show(200); gc.collect(); time.sleep(1)",  # what is loaded on the first use stays, as does the most
    )
    kernel.wait_for(lambda: kernel.run(THREADS).strip() == "[]")
    threads, comms = kernel.run(THREADS), kernel.run(COMMS)
    assert threads.strip() == "[]"
    size = "import psutil; print(psutil.Process().memory_info().rss)"
    before = int(kernel.run(size))
    kernel.run("show(200); gc.collect()")
    kernel.wait_for(lambda: kernel.run(THREADS) == threads and kernel.run(COMMS) == comms)
    assert int(kernel.run(size)) - before < 10e6
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
    offered = "print(tasks[0].id in [value for _, value in board._tasks.model.options])"
    kernel.wait_for(lambda: kernel.run(offered).strip() == "True")
    kernel.run("board._tasks.model.value = tasks[0].id")
    kernel.wait_for(lambda: any("<svg" in html and "claimed" in html for _, html in kernel.values()))
    kernel.run("board.close(); del board; w.stop(0)")
    frozen = kernel.wait_for(lambda: kernel.of("update_display_data"))[-1]["content"]["data"]
    assert VIEW not in frozen
    assert "count" in frozen["text/html"]
    kernel.wait_for(lambda: kernel.run(THREADS).strip() == "[]")
