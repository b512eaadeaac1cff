"""Widgets in JupyterLab in a real browser."""

from __future__ import annotations

import time

import pytest
from lab import prompt_of, run_all, save, wait_until_run

pytestmark = pytest.mark.browser

EVIL = (
    "<script>alert(1)</script><img src='http://127.0.0.1:9/oq-evil.png' onerror=\"alert('2')\">"
    "\"'&lt;</pre></details></option></select>\u202egnp\u2066\x1b[31m\x07"
)

HOSTILE = f"""
from oq_nb import model, transitions
EVIL = {EVIL!r}
def add(task_type=EVIL, **changes):
    record = q._new_record("x").evolve(task_type=task_type, timeout_seconds=3600, **changes)
    return oq_nb.Task(q, q.store.create(record))
def claim(task):
    task._held = q.store.update(task.id, lambda r, now: transitions.claim(
        r, now, worker_id=EVIL, lease_id=model.new_id(), lease_seconds=3600))
    return task._held.record.lease_id
running = add()
lease = claim(running)
said = model.Progress(percent=45, message=EVIL, unit=EVIL, rate=2.0, updated_at=q.store.clock.stamp())
running._held = q.store.update(running.id, lambda r, now: transitions.report(r, now, lease_id=lease, progress=said))
failed = add()
lease = claim(failed)
failed._held = q.store.update(failed.id, lambda r, now: transitions.fail(
    r, now, lease_id=lease, error="Traceback:\\n  x\\n" + EVIL))
done = add()
lease = claim(done)
done._held = q.store.update(done.id, lambda r, now: transitions.complete(r, now, lease_id=lease, output={{EVIL: EVIL}}))
pending = add()
now = q.store.clock.stamp()
q.store.objects.put("workers/w.json", model.WorkerRecord(worker_id=EVIL, started_at=now, last_heartbeat=now,
    task_types=[EVIL], shards=q.all_shards(), current_tasks=[EVIL]).to_bytes());
"""


def test_hostile_text_is_shown_as_text(open_lab, connecting):
    shown = ["running", "failed", "done", "pending", "q.widget(interval=0.5)", "q", "running.progress"]
    lab, page = open_lab([connecting + HOSTILE, *shown])
    run_all(page)
    wait_until_run(page, len(shown) + 1)
    select = page.locator(".oq-queue select").nth(2)
    page.wait_for_function("() => document.querySelectorAll('.oq-queue select')[2].options.length >= 5")
    select.select_option(index=1)
    page.wait_for_selector(".oq-queue svg")
    for number in range(2):  # the filters, too
        page.locator(".oq-queue select").nth(0).select_option(index=1 - number)
        time.sleep(1)
    page.evaluate("() => document.querySelectorAll('.jp-OutputArea-output details').forEach(d => { d.open = true })")
    time.sleep(2)
    page.screenshot(path=lab.notebook.with_name("hostile.png"))
    outputs = page.locator(".jp-OutputArea-output").all_inner_texts()
    assert len(outputs) >= len(shown)
    for name, text in zip(shown, outputs, strict=False):
        assert "<script>alert(1)</script><img src=" in text, name
        for char in "\u202e\u2066\x1b\x07":
            assert char not in text, name
    # The outputs of the last two are sanitized by JupyterLab as well; the others are ours alone.
    inside = page.evaluate(
        "() => [...document.querySelectorAll('.jp-OutputArea-output *')].filter("
        "e => e.tagName === 'SCRIPT' || e.tagName === 'IMG' || e.getAttributeNames().some(n => n.startsWith('on')))"
        ".map(e => e.outerHTML)"
    )
    assert inside == []
    assert page.dialogs == []
    assert not [url for url in page.requested if "evil" in url]
    assert not [said for said in page.said if said[0] in ("error", "warning") and "oq" in said[1].lower()]


WORK = """
w = oq_nb.Worker(q, concurrency=2)
@w.task("fail")
def fail(n, context):
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


def test_it_moves_in_a_busy_kernel_and_after_a_reload(open_lab, connecting):
    busy = "end = time.monotonic() + 8\nwhile time.monotonic() < end: sum(range(1000))\nprint('cell is over')"
    lab, page = open_lab([connecting + WORK, "task = q.submit('count', 90)\ntask", "bad = q.submit('fail')\nbad", busy])
    run_all(page)
    bar = page.locator(".oq-task progress").first
    bar.wait_for(state="attached", timeout=30000)
    page.wait_for_function("() => document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[3].textContent === '[*]:'")
    seen = [int(bar.get_attribute("value") or 0)]
    for _ in range(3):
        time.sleep(2)
        assert prompt_of(page, 3) == "[*]:"
        seen.append(int(bar.get_attribute("value") or 0))
    assert sorted(set(seen)) == seen, f"it stood still: {seen}"
    page.get_by_text("cell is over", exact=True).wait_for(timeout=30000)
    retry = page.get_by_role("button", name="Retry")
    retry.wait_for(timeout=10000)  # what the page said while the kernel was busy has been read
    retry.click()
    page.get_by_text("pending again").wait_for(timeout=10000)
    retry.wait_for(timeout=10000)  # it has failed again
    save(page)
    lab.open(page)
    bar.wait_for(state="attached", timeout=30000)
    before = int(bar.get_attribute("value") or 0)
    assert before >= seen[-1]
    page.wait_for_function(f"() => document.querySelector('.oq-task progress').value > {before}", timeout=10000)
    page.get_by_role("button", name="Cancel").first.click()
    page.get_by_text("cancelled in a notebook").or_(page.get_by_text("stopped at")).first.wait_for(timeout=20000)
    assert "cancelled" in page.locator(".oq-task").first.inner_text()
