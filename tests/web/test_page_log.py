"""The log on a task's page: read while it is shown, and not otherwise; hostile text stays text."""

from __future__ import annotations

import time

import pytest
from waiting import until

from oq_nb import model
from oq_nb.errors import StorageUnavailableError
from oq_nb.model import TaskStatus


def logged(queue, *lines, status=TaskStatus.RUNNING, task_type="job"):
    """Return a task whose first attempt has printed these lines."""
    task = queue.submit(task_type)
    record = task.record.evolve(attempt=1, status=status)
    queue.store.objects.put(record.key, record.to_bytes())
    add(queue, task, 0, *lines)
    return task


def add(queue, task, number, *lines):
    encoded = [f'{{"t":"2026-11-26T08:00:00Z","s":"out","m":{model.to_json(line).decode()}}}' for line in lines]
    queue.store.logs.write(task.id, 1, number, "\n".join(encoded).encode())


def spent_on_logs(store):
    """Count the requests for logs from now on."""
    seen = []

    def note(kind, key, when):
        if when == "before" and key.startswith(model.LOGS):
            seen.append(kind)

    store.fault = note
    return seen


def test_it_is_read_only_while_it_is_shown(fake_queue, fake_store, serve, visit):
    task = logged(fake_queue, "first line", "\x1b[32mgreen\x1b[0m")
    seen = spent_on_logs(fake_store)
    client = visit(serve(fake_queue))
    plain = client.get(f"task/{task.id}").text
    assert f'href="{task.id}?log=1#log"' in plain
    assert "first line" not in plain
    assert seen == []
    shown = client.get(f"task/{task.id}?log=1").text
    assert "first line\n" in shown
    assert ">green</span>" in shown
    assert "Attempt 1, 2 lines" in shown
    assert f'href="{task.id}"' in shown
    assert sorted(seen) == ["GET", "LIST"]


def test_it_follows(fake_queue, fake_store, serve, visit, monkeypatch):
    monkeypatch.setattr("oq_nb.web.sessions._LOG_SECONDS", 0.05)
    task = logged(fake_queue, "first line")
    client = visit(serve(fake_queue))
    assert "first line" in client.get(f"task/{task.id}?log=1").text
    add(fake_queue, task, 1, "second line")
    until(lambda: "first line\nsecond line" in client.get(f"task/{task.id}?log=1").text)


def test_hostile_lines(fake_queue, serve, visit):
    hostile = "<script>alert(1)</script>\x1b[31;x\x1b]0;title\x07\u202e&amp;\x00"
    task = logged(fake_queue, hostile, "x" * 100_000, *["y" * 2000] * 100)
    page = visit(serve(fake_queue)).get(f"task/{task.id}?log=1").text
    assert "<script>alert" not in page
    assert "\x1b" not in page and "\x07" not in page and "\u202e" not in page and "\x00" not in page
    assert len(page) < 150_000


def test_a_store_that_is_gone_and_a_task_without_a_log(fake_queue, fake_store, serve, visit, monkeypatch):
    monkeypatch.setattr("oq_nb.web.sessions._LOG_SECONDS", 0.05)
    client = visit(serve(fake_queue))
    silent = fake_queue.submit("job")
    assert "Nothing was printed so far" in client.get(f"task/{silent.id}?log=1").text
    task = logged(fake_queue, "first line")
    assert "first line" in client.get(f"task/{task.id}?log=1").text

    def away(kind, key, when):
        if key.startswith(model.LOGS):
            raise StorageUnavailableError("away")

    fake_store.fault = away
    until(lambda: "The log cannot be read for now" in client.get(f"task/{task.id}?log=1").text)
    assert "first line" in client.get(f"task/{task.id}?log=1").text
    fake_store.fault = None
    until(lambda: "cannot be read" not in client.get(f"task/{task.id}?log=1").text)


def test_programs_ask_for_it_too(fake_queue, fake_store, serve, visit, monkeypatch):
    monkeypatch.setattr("oq_nb.web.sessions._LOG_SECONDS", 0.05)
    task = logged(fake_queue, *(f"line {number}" for number in range(300)))
    client = visit(serve(fake_queue))
    said = client.get(f"api/v1/tasks/{task.id}/logs").json()
    assert (said["attempt"], said["is_end"], said["trouble"]) == (1, True, None)
    assert [line["text"] for line in said["lines"]] == [f"line {number}" for number in range(100, 300)]
    assert said["lines"][0] == {"time": "2026-11-26T08:00:00Z", "stream": "out", "text": "line 100"}
    silent = client.get(f"api/v1/tasks/{fake_queue.submit('job').id}/logs").json()
    assert (silent["attempt"], silent["lines"]) == (0, [])
    assert client.get(f"api/v1/tasks/{model.new_id()}/logs").status_code == 404

    def away(kind, key, when):
        if key.startswith(model.LOGS):
            raise StorageUnavailableError("away")

    other = logged(fake_queue)
    fake_store.fault = away
    answer = client.get(f"api/v1/tasks/{other.id}/logs")
    assert (answer.status_code, answer.json()) == (503, {"error": "away"})
    until(lambda: client.get(f"api/v1/tasks/{task.id}/logs").json()["trouble"] == "away")
    fake_store.fault = None


def test_a_button_leaves_the_log_unfolded(fake_queue, serve, visit):
    task = logged(fake_queue, "first line")
    client = visit(serve(fake_queue))
    assert f'action="{task.id}/cancel?log=1"' in client.get(f"task/{task.id}?log=1").text
    answer = client.post(f"task/{task.id}/cancel?log=1", headers={"Origin": str(client.base_url).rstrip("/")})
    assert answer.headers["location"] == f"../{task.id}?log=1"
    deadline = time.monotonic() + 10
    while not fake_queue.get(task.id).record.cancel_requested:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.browser
def test_a_browser_follows_it_to_its_end(fake_queue, serve, open_page):
    """The newest line is in view as lines come; who has scrolled up stays there."""
    task = logged(fake_queue, *(f"line {number}" for number in range(150)))
    page = open_page(serve(fake_queue).url)
    page.goto(f"{page.url}task/{task.id}")
    page.get_by_text("Show what it prints").click()
    block = page.locator(".log pre")
    block.get_by_text("line 149").wait_for()
    is_at_end = "pre => { const box = pre.parentElement; return Math.abs(box.scrollTop) < 2 }"
    assert block.evaluate(is_at_end)
    add(fake_queue, task, 1, "one more line")
    block.get_by_text("one more line").wait_for(timeout=20_000)
    assert block.evaluate(is_at_end)
    block.evaluate("pre => { pre.parentElement.scrollTop = -500 }")
    top = "pre => pre.getBoundingClientRect().top"
    before = block.evaluate(top)
    add(fake_queue, task, 2, "and another")
    block.get_by_text("and another").wait_for(timeout=20_000)
    assert abs(block.evaluate(top) - before) < 2, "what is being read does not move"
    page.get_by_text("Hide the log").click()
    page.get_by_text("Show what it prints").wait_for()
    assert [text for kind, text in page.said if kind == "error"] == []
