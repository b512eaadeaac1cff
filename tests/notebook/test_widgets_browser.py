"""Widgets in JupyterLab in a real browser, used as a person would."""

from __future__ import annotations

import itertools
import json
import threading
import time

import nbformat
import pytest
from lab import complaints, output, restart_kernel, run_all, run_cell, save, shoot, wait_until_run
from nbconvert import HTMLExporter
from servers import connect_to
from staged import STATES

import oq_nb

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


# --- the quick start, and a kernel that is busy

QUICK_START = """
import time, oq_nb
queue = oq_nb.connect()
worker = oq_nb.Worker(queue)
@worker.task("count")
def count(task_input, context):
    for step in range(task_input):
        context.report_progress(current=step, total=task_input, message=f"step {step}")
        time.sleep(pause)
    return {"counted": task_input}
pause = 0.25
worker.start();
"""
BUSY = """
import os
longest, last = 0.0, time.monotonic()
while not os.path.exists({enough!r}):
    sum(range(1000))
    longest, last = max(longest, time.monotonic() - last), time.monotonic()
pause = 0
print(f"cell is over, it stood still for {longest:.3f} s")
"""
SAMPLE = """() => {
    window.oqSeen = [];
    setInterval(() => {
        const steps = [...document.querySelectorAll('.oq-task')].map(shown => shown.innerText.match(/step ([0-9]+)/));
        const bars = [...document.querySelectorAll('.oq-task progress')].map(bar => bar.value);
        const prompt = document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[3].textContent;
        window.oqSeen.push([performance.now() / 1000, steps.map(found => found ? +found[1] : 0), bars, prompt]);
    }, 100);
}"""


class Probe(threading.Thread):
    """Measures the longest time that the store takes to answer."""

    def __init__(self, queue) -> None:
        super().__init__(name="probe")
        self.queue, self.longest, self.is_over = queue, 0.0, threading.Event()

    def run(self) -> None:
        while not self.is_over.wait(0.2):
            began = time.monotonic()
            self.queue.store.objects.get("nothing")
            self.longest = max(self.longest, time.monotonic() - began)


def test_the_quick_start_moves_while_the_kernel_is_busy(open_lab, seaweedfs, monkeypatch, tmp_path):
    monkeypatch.setenv("OQ_LOCAL_DIR", seaweedfs.data_dir)  # what connect() finds with nothing configured
    enough = tmp_path / "seen enough"
    busy = BUSY.replace("{enough!r}", repr(str(enough)))
    lab, page = open_lab([QUICK_START, "task = queue.submit('count', 1000)\ntask", "task.widget()", busy])
    queue = connect_to(seaweedfs, bucket=seaweedfs.bucket, prefix="")
    page.evaluate(SAMPLE)
    run_all(page)
    page.wait_for_function("() => document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[3].textContent === '[*]:'")
    probe = Probe(queue)
    probe.start()
    page.wait_for_function(  # both displays have moved often enough, while the cell runs
        "() => { const busy = window.oqSeen.filter(seen => seen[3] === '[*]:');"
        " return [0, 1].every(n => new Set(busy.map(seen => seen[1][n])).size > 15); }"
    )
    shoot(page, "busy")
    enough.touch()
    over = output(page, 3).get_by_text("cell is over")
    over.wait_for()
    probe.is_over.set()
    samples = [sample[:3] for sample in page.evaluate("() => window.oqSeen") if sample[3] == "[*]:"]
    samples = list(itertools.dropwhile(lambda sample: not any(sample[1]), samples))
    steps, values = [sample[1][0] for sample in samples], [sample[2][0] for sample in samples if sample[2]]
    assert steps == sorted(steps)
    assert values == sorted(values)
    assert values[-1] > values[0], "so does the bar itself"
    assert any(len(shown) == 2 and shown[0] == shown[1] > 0 for _, shown, _ in samples), "both displays move"
    moves = [b[0] for a, b in itertools.pairwise(samples) if a[1][0] != b[1][0]]
    longest = max(b - a for a, b in itertools.pairwise([samples[0][0], *moves, samples[-1][0]]))
    paused = max(b[0] - a[0] for a, b in itertools.pairwise(samples)), float(over.inner_text().split()[-2])
    still = sum(paused) + 2 * probe.longest  # to write it and to read it
    print(f"longest pause {longest:.2f} s, while page, kernel and store themselves paused for {still:.2f} s")
    assert longest < 2 + still

    page.wait_for_function("() => !document.querySelector('.oq-task')")
    stored = queue.list(status="completed", task_type="count")[0]
    for cell in (1, 2):
        text = output(page, cell).inner_text()
        assert "✓\u00a0completed" in text
        assert stored.id[:8] in text
        assert json.dumps(stored.output) in text
        assert f"{stored.record.completed_at:%Y-%m-%d %H:%M:%S} UTC" in text
    shoot(page, "completed")
    assert complaints(lab, page) == []


# --- buttons, and a page that is reloaded

WORK = """
w = oq_nb.Worker(q, concurrency=2)
@w.task("fail")
def fail(n, context):
    context.report_progress(percent=45)
    time.sleep(2)
    raise oq_nb.PermanentError("no such file")
@w.task("count")
def count(n, context):
    for k in range(n):
        context.report_progress(current=k, total=n, message=f"step {k}")
        context.raise_if_cancelled()
        time.sleep(0.25)
    return {"counted": n}
w.start();
"""
SHORT_BUSY = "end = time.monotonic() + 3\nwhile time.monotonic() < end: sum(range(1000))\nprint('cell is over')"


def unfold(page, summary, inside):
    """Click until what is folded stays open: the widget is shown anew once the page is known to be there."""
    for _ in range(30):
        summary.click()
        page.wait_for_timeout(2000)
        if inside.is_visible():
            return
    pytest.fail("it does not stay unfolded")


def test_buttons_and_a_reload(open_lab, connecting, queue):
    cells = [connecting + WORK, "task = q.submit('count', 1200)\ntask", "bad = q.submit('fail')\nbad", SHORT_BUSY]
    lab, page = open_lab(cells)
    run_all(page)
    bar = output(page, 1).locator("progress")
    wait_until_run(page, len(cells))
    output(page, 3).get_by_text("cell is over", exact=True).wait_for()
    retry = page.get_by_role("button", name="Retry")
    retry.wait_for()  # what the page said while the kernel was busy has been read
    error = output(page, 2).get_by_text("Last error: oq_nb.errors.PermanentError: no such file")
    unfold(page, error, output(page, 2).get_by_text("raise oq_nb.PermanentError"))
    retry.click()
    output(page, 2).get_by_text("attempt 2").wait_for()
    retry.wait_for()  # it has failed again
    save(page)
    before = int(bar.get_attribute("value"))
    lab.open(page)
    bar.wait_for(state="attached")  # first what was saved, some seconds old; then the widget, which goes on
    while int(bar.get_attribute("value")) <= before:
        page.wait_for_timeout(100)
    retry.wait_for()
    output(page, 1).get_by_role("button", name="Cancel").click()
    output(page, 1).get_by_text("stopped at").wait_for()
    shoot(page, "cancelled")
    stored = queue.list(status="cancelled", task_type="count")[0]
    text = output(page, 1).inner_text()
    assert stored.id[:8] in text
    assert "cancelled" in text
    last = [record.progress.percent for record in stored.history() if record.progress is not None][-1]
    assert f"stopped at {last}%" in text
    assert complaints(lab, page) == []


WAITING = """
import matplotlib.pyplot as plt
task = q.submit("count", 4000)
task.widget().display()
fig, ax = plt.subplots(figsize=(2, 1))
lines = 0
while not task.is_done:
    lines += 1
    ax.plot([0, 1], [lines, lines])
    try:
        task.result(0.2)
    except TimeoutError:
        pass
    except oq_nb.TaskCancelledError:
        print(f"cancelled after {lines} lines, {len(ax.lines)} in one figure of {len(plt.get_fignums())}")
"""


def test_cancel_is_heard_while_a_cell_waits(open_lab, connecting, queue):
    """With the ipykernel that is installed; a figure of the waiting cell is whole."""
    lab, page = open_lab([connecting + WORK, WAITING])
    run_all(page)
    page.locator(".oq-task").get_by_text("step").first.wait_for()
    page.wait_for_function("() => document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[1].textContent === '[*]:'")
    page.get_by_role("button", name="Cancel").click()
    wait_until_run(page, 2)
    said = page.locator(".jp-OutputArea-output", has_text="cancelled after").inner_text().split()
    assert said[2] == said[4], "lines that it has drawn, and that are in the figure"
    page.locator(".jp-OutputArea-output img").wait_for()
    assert page.locator(".jp-OutputArea-output img").count() == 1
    [stored] = queue.list(status="cancelled", task_type="count")
    assert stored.record.attempt == 1
    assert complaints(lab, page) == []


def test_tasks_that_end_while_they_are_shown(open_lab, connecting, queue):
    """Every output is replaced soon after it was shown, some while the page still makes its view of the widget."""
    setup = """
w = oq_nb.Worker(q, concurrency=4, max_poll_seconds=0.2)
@w.task("quick")
def quick(n, context):
    context.report_progress(percent=45)
    if n % 2: raise oq_nb.PermanentError("an odd one")
w.start();
"""
    count = 16
    cells = [connecting + setup, "from IPython.display import display; kept = []"]
    show = "kept += [q.submit('quick', {}), q.submit('quick', {})]; display(*kept[-2:])"
    cells += [show.format(n, n + 1) for n in range(0, count, 2)]
    lab, page = open_lab(cells, height=3000)
    run_all(page)
    wait_until_run(page, len(cells))
    page.wait_for_function(  # the failed ones keep their widgets, the others have become plain HTML
        "n => document.querySelectorAll('.oq-task').length === n"
        " && [...document.querySelectorAll('.oq-task button')].filter(b => b.innerText === 'Retry').length === n"
        " && [...document.querySelectorAll('.oq-task')].every(task => task.innerText.includes('an odd one'))",
        arg=count // 2,
    )
    shown = [output(page, n).all_inner_texts() for n in range(2, len(cells))]
    assert all("completed" in good and "an odd one" in bad for good, bad in shown), shown
    shoot(page, "ended while shown")
    assert complaints(lab, page) == []


def test_bars_that_end_while_the_page_still_makes_their_views(open_lab):
    cells = [
        "import oq_nb\nfor n in range(12):\n    for m in oq_nb.track(range(3), f'quick {n}', queue=None): pass",
        "for n in range(12):\n    for m in oq_nb.track(range(3), f'gone {n}', queue=None, leave=False): pass",
        "for n in range(12):\n    try:\n        for m in oq_nb.track(range(3), f'bad {n}', queue=None): 1 / 0\n"
        "    except ZeroDivisionError: pass",
    ]
    lab, page = open_lab(cells, height=3000)
    run_all(page)
    wait_until_run(page, len(cells))
    page.wait_for_function("() => document.querySelectorAll('.jp-OutputArea-output progress').length === 24")
    page.wait_for_function("() => document.querySelectorAll('.jp-OutputArea-output .widget-box').length === 0")
    shoot(page, "bars that ended at once")
    assert [f"quick {n}: 100%" in output(page, 0).nth(n).inner_text() for n in range(12)] == [True] * 12
    assert output(page, 1).all_inner_texts() == [""] * output(page, 1).count()
    assert [f"bad {n}: 0%" in " ".join(output(page, 2).nth(n).inner_text().split()) for n in range(12)] == [True] * 12
    assert complaints(lab, page) == []


# --- a kernel that is restarted, while the task goes on elsewhere


@pytest.fixture
def elsewhere(queue):
    """A worker that is not in the notebook's kernel."""
    worker = oq_nb.Worker(queue, "elsewhere", concurrency=2, max_poll_seconds=0.2)

    @worker.task("count")
    def count(n, context):
        for k in range(n):
            context.report_progress(current=k, total=n, message=f"step {k}")
            context.raise_if_cancelled()
            time.sleep(0.25)
        return {"counted": n}

    @worker.task("fail")
    def fail(n, context):
        raise oq_nb.PermanentError("boom")

    with worker:
        yield worker
        for task in queue.list(status="running"):
            task.cancel().wait(30)


def test_a_restarted_kernel(open_lab, connecting, elsewhere, queue):
    done, task, bad = queue.submit("count", 2), queue.submit("count", 2000), queue.submit("fail", max_retries=0)
    oq_nb.wait([done, bad], 60, progress=False)
    cells = [connecting, f"q.get({done.id!r})", f"task = q.get({task.id!r})\ntask", "task.widget()", "q.widget()"]
    cells += [f"bad = q.get({bad.id!r})\nbad.widget()"]
    lab, page = open_lab(cells)
    run_all(page)
    wait_until_run(page, len(cells))
    bar = output(page, 2).locator("progress")
    page.wait_for_function("() => document.querySelectorAll('.oq-task progress').length === 2")
    page.wait_for_function(  # what is saved has been brought up to date
        "() => [2, 3, 4].every(n => JSON.stringify(jupyterapp.shell.currentWidget.context.model.toJSON().cells[n])"
        ".match(/running.*As seen at/))"
    )
    output(page, 5).get_by_role("button", name="Retry").wait_for()
    restart_kernel(page)
    stale = output(page, 2).get_by_text("Not refreshed since")
    assert not stale.is_visible()
    stale.wait_for()
    shoot(page, "restarted")
    assert "completed" in output(page, 1).inner_text(), "the last word stands"
    assert int(bar.get_attribute("value")) >= 0, "and so does the last state"
    save(page)
    saved = lab.notebook.read_text()
    lab.open(page)
    for cell, words in {1: "completed", 2: "running", 3: "running", 4: "As seen at", 5: "failed"}.items():
        output(page, cell).get_by_text(words).first.wait_for()
        text = output(page, cell).all_inner_texts()
        assert len(text) == 1, text
        assert "Loading widget" not in text[0]
        assert "model not found" not in text[0]
    assert "As seen at" in output(page, 2).inner_text()
    assert "1 running" in output(page, 4).inner_text(), "the dashboard's last state, too"
    assert "boom" in output(page, 5).inner_text()
    shoot(page, "restarted-reloaded")
    exported = HTMLExporter().from_notebook_node(nbformat.reads(saved, 4))[0]
    assert exported.count("As seen at") == 4, "two of the running task, one of the queue, one with Retry"
    for cell in (0, 2):  # shown again
        run_cell(page, cell)
    bar.wait_for(state="attached")
    now = int(bar.get_attribute("value") or 0)
    page.wait_for_function(f"() => document.querySelector('.oq-task progress').value > {now}")
    save(page)
    lab.open(page)
    bar.wait_for(state="attached")
    assert "completed" in output(page, 1).inner_text()
    # JupyterLab complains of widgets whose kernel is gone on its console, also when they are hidden.
    assert [said for said in complaints(lab, page) if "widget model not found" not in said] == []


# --- every state, the dashboard

STAGE = "import sys; sys.path.insert(0, {folder!r}); from staged import stage; tasks = stage(q)"


ROWS = 'tbody tr:not([data-key^="group-"])'  # of tasks


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_every_state_and_the_dashboard(open_lab, connecting, request, theme):
    stage = STAGE.format(folder=str(request.path.parent))
    names = list(STATES)
    cells = [connecting + stage, *(f"tasks[{name!r}]" for name in names), "q.widget(interval=0.5)", "q"]
    lab, page = open_lab(cells, theme=f"JupyterLab {theme}", height=3600)
    run_all(page)
    wait_until_run(page, len(cells))
    for number, name in enumerate(names, start=1):
        word, note = STATES[name]
        said = output(page, number).get_by_text(note)
        said.first.wait_for()
        assert word in output(page, number).inner_text()
    bar = output(page, names.index("running") + 1).get_by_role("progressbar", name="train")
    assert bar.get_attribute("value") == "45"
    assert bar.get_attribute("aria-valuetext") == "45% (450/1000), 12.5 img/s, 44 seconds left, running"
    assert output(page, len(cells) - 1).get_by_role("progressbar").count() == 6, "without a widget, too"
    board = page.locator(".oq-queue")
    board.get_by_text("gpu-1", exact=True).wait_for()
    for text in ("6 running", "3 pending", "1 completed", "1 failed", "1 cancelled"):
        board.get_by_text(text).first.wait_for()
    kinds, statuses = board.get_by_label("Type"), board.get_by_label("Status")
    rows = board.locator(ROWS)
    page.wait_for_function("rows => document.querySelectorAll('.oq-queue ' + rows).length === 12", arg=ROWS)
    shoot(page, f"states-{theme.lower()}")
    tallest = max(rows.nth(number).bounding_box()["height"] for number in range(rows.count()))
    assert tallest < 260, "no column is so narrow that its text stands on end"
    kinds.select_option(label="resize")
    page.wait_for_function("rows => document.querySelectorAll('.oq-queue ' + rows).length === 2", arg=ROWS)
    statuses.select_option(label="completed")
    page.wait_for_function("rows => document.querySelectorAll('.oq-queue ' + rows).length === 1", arg=ROWS)
    assert "73400320" in rows.inner_text()
    kinds.select_option(label="train")
    statuses.select_option(label="failed")
    rows.get_by_text("ValueError: could not read data/part-0007.parquet").wait_for()
    rows.get_by_role("button", name="Details train").focus()
    page.keyboard.press("Enter")  # JupyterLab would begin to edit the cell
    board.locator(".jupyter-button", has_text="Retry").wait_for()
    board.get_by_role("img", name="Progress of task").wait_for()
    shoot(page, f"detail-{theme.lower()}")
    assert axe_violations(page) == []
    assert complaints(lab, page) == []


def axe_violations(page):
    """Return what axe has to complain of in what is ours: widgets, their static HTML, the dashboard."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    found = axe.run(page, context={"include": [[".jp-OutputArea-output"]]}).response["violations"]
    return [(each["id"], each["help"], [node["html"][:300] for node in each["nodes"]][:5]) for each in found]


# --- text from a bucket

EVIL = (
    "<script>alert(1)</script><img src='http://127.0.0.1:9/oq-evil.png' onerror=\"alert('2')\">"
    "\"'&lt;</pre></details></option></select>\u202egnp\u2066\x1b[31m\x07"
)
HOSTILE = f"""
from oq_nb import model
from oq_nb.model import transitions
from oq_nb.queue.submit import new_record
EVIL = {EVIL!r}
def add(task_type=EVIL, **changes):
    record = new_record(q.store, "x").evolve(task_type=task_type, timeout_seconds=3600, **changes)
    return oq_nb.Task(q, q.store.create(record))
def claim(task):
    task.adopt(q.store.update(task.id, lambda r, now: transitions.claim(
        r, now, worker_id=EVIL, lease_id=model.new_id(), lease_seconds=3600)))
    return task.snapshot.record.lease_id
running = add()
lease = claim(running)
said = model.Progress(percent=45, message=EVIL, unit=EVIL, rate=2.0, updated_at=q.store.clock.stamp())
running.adopt(q.store.update(running.id, lambda r, now: transitions.report(r, now, lease_id=lease, progress=said)))
failed = add()
lease = claim(failed)
failed.adopt(q.store.update(failed.id, lambda r, now: transitions.fail(
    r, now, lease_id=lease, error="Traceback:\\n  x\\n" + EVIL)))
done = add()
lease = claim(done)
done.adopt(q.store.update(done.id, lambda r, now: transitions.complete(r, now, lease_id=lease, output={{EVIL: EVIL}})))
pending = add()
now = q.store.clock.stamp()
q.store.objects.put("workers/w.json", model.WorkerRecord(worker_id=EVIL, started_at=now, last_heartbeat=now,
    task_types=[EVIL], shards=q.all_shards(), current_tasks=[EVIL]).to_bytes());
"""


def test_hostile_text_is_shown_as_text(open_lab, connecting):
    shown = ["running", "failed", "failed.widget()", "done", "pending", "q.widget(interval=0.5)"]
    shown += ["q", "running.progress", "print(failed, done, q.widget())"]
    lab, page = open_lab([connecting + HOSTILE, *shown])
    run_all(page)
    wait_until_run(page, len(shown) + 1)
    page.locator(".oq-queue").get_by_role("button", name="Details").first.click()
    page.wait_for_selector(".oq-queue svg")
    for number in range(2):  # the filters, too
        page.locator(".oq-queue select").nth(0).select_option(index=1 - number)
        run_cell(page, len(shown))  # the kernel has taken the choice before, and what is shown is drawn at its end
    page.evaluate("() => document.querySelectorAll('.jp-OutputArea-output details').forEach(d => { d.open = true })")
    run_cell(page, len(shown))
    shoot(page, "hostile")
    for number, name in enumerate(shown, start=1):
        text = output(page, number).inner_text()
        assert "<script>alert(1)</script><img src=" in text, name
        for char in "\u202e\u2066\x1b\x07":
            assert char not in text, name
    # What is not a widget is sanitized by JupyterLab as well; widgets are ours alone.
    inside = page.evaluate(
        "() => [...document.querySelectorAll('.jp-OutputArea-output *')].filter("
        "e => e.tagName === 'SCRIPT' || e.tagName === 'IMG' || e.getAttributeNames().some(n => n.startsWith('on')))"
        ".map(e => e.outerHTML)"
    )
    assert inside == []
    assert complaints(lab, page) == []


# --- a dashboard in windows of all widths

MEASURE = """() => {
    const box = document.querySelector('.oq-queue .oq-c'), room = box.getBoundingClientRect();
    const em = parseFloat(getComputedStyle(box).fontSize), isShown = e => e.getClientRects().length > 0;
    const tables = [...box.children].filter(e => e.tagName === 'TABLE');
    const rows = tables.flatMap(table => [...table.querySelectorAll('tr[data-key]')]);
    const heads = tables.flatMap(table => [...table.querySelectorAll('tr')].slice(0, 1)).flatMap(row => {
        const ends = [...row.children].filter(isShown).map(head => {
            const words = document.createRange();
            words.selectNodeContents(head);
            return [head.innerText, words.getBoundingClientRect()];
        });
        return ends.slice(1).filter(([, to], n) => ends[n][1].right > to.left).map(([name]) => name);
    });
    const buttons = rows.filter(row => {
        const [first, second] = row.querySelectorAll('button');
        return second && first.getBoundingClientRect().top !== second.getBoundingClientRect().top;
    });
    const covered = rows.flatMap(row => [...row.querySelectorAll('span,button,code,bdi')].filter(isShown)).filter(e =>
        e.getBoundingClientRect().right > e.closest('td').getBoundingClientRect().right + 1);
    return {
        width: Math.round(room.width / em),
        remark: Math.min(...rows.map(row => row.children[4]).filter(cell => isShown(cell) && cell.innerText)
            .map(cell => cell.getBoundingClientRect().width / em)),
        tallest: Math.max(...rows.map(row => row.getBoundingClientRect().height / em)),
        heads: heads,
        apart: buttons.length,
        covered: covered.map(e => e.innerText),
        outside: [...box.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > room.right + 1).length,
        scrolls: [box, box.closest('.jp-OutputArea-output')].some(e => e.scrollWidth > e.clientWidth + 1),
        changed: rows.some(row => isShown(row.children[5])),
        stacked: rows.every(row => row.children[4].getBoundingClientRect().left
            === row.children[0].getBoundingClientRect().left || !isShown(row.children[4])),
    };
}"""


def test_the_dashboard_is_readable_at_every_width(open_lab, connecting, request):
    cells = [connecting + STAGE.format(folder=str(request.path.parent)), "q.widget()"]
    lab, page = open_lab(cells, height=2000)
    page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
    run_all(page)
    wait_until_run(page, len(cells))
    page.wait_for_function("rows => document.querySelectorAll('.oq-queue ' + rows).length === 12", arg=ROWS)
    found = {}
    for width in sorted({*range(400, 2000, 50), 1920}):
        page.set_viewport_size({"width": width, "height": 2000})
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        found[width] = page.evaluate(MEASURE)
        print(width, found[width])
        if width in (400, 600, 1100, 1400, 1920):
            shoot(page, f"dashboard-{width}")
        if width == 600:
            assert axe_violations(page) == []
    assert min(seen["width"] for seen in found.values()) < 32 < 120 < max(seen["width"] for seen in found.values())
    for width, seen in found.items():
        assert seen["remark"] >= 8, (width, seen)
        assert seen["tallest"] < 22, (width, seen)
        assert seen["heads"] == seen["covered"] == [], (width, seen)
        assert not seen["outside"], (width, seen)
        assert not seen["scrolls"], (width, seen)
        if width >= 600:
            assert not seen["apart"], (width, seen)
    columns = [seen["remark"] for seen in found.values() if not seen["stacked"]]
    assert 15 < len(columns) < len(found), "stacked where there is little room, else in columns"
    assert all(wider > 0.7 * narrower for narrower, wider in itertools.pairwise(columns)), columns
    assert found[1920]["changed"], "where there is room"
    assert complaints(lab, page) == []
