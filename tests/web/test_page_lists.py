"""The lists of the page: search, order, filters, several at once, failures by their errors; without a browser."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest
from test_page import Sieve, beat, claim, report
from waiting import until

from oq_nb import model
from oq_nb.model import TaskStatus, transitions
from oq_nb.queue.submit import new_record


def fail(queue, task, error="ValueError: bad image 17"):
    lease = claim(queue, task)
    queue.store.update(task.id, lambda r, now: transitions.fail(r, now, lease_id=lease, error=error))
    return task.refresh()


def post(client, path, fields=None):
    origin = str(client.base_url).rstrip("/")
    return client.post(path, data=fields, headers={"origin": origin}, follow_redirects=True)


def rows(client, query):
    return Sieve(client.get(f"/?{query}").text).rows


def pressed(text, name, task):
    """Return what a row's button sends, and where to, as it stands in the page."""
    for tag in re.findall(r"<button class=\"small\"[^>]*>", text):
        if f'value="{task.id}:' in tag and f'aria-label="{name} ' in tag:
            found = {key: html.unescape(value) for key, value in re.findall(r'([a-z-]+)="([^"]*)"', tag)}
            return found["formaction"], {found["name"]: found["value"]}
    raise AssertionError(f"no button {name} for {task.id}")


def shown(client, name, task):
    """Wait until a row has a button, and return what it sends, and where to."""
    part = f'aria-label="{name} {task.task_type} {task.id[:8]}"'
    return pressed(until(lambda: (text := client.get("/").text) and part in text and text), name, task)


def said(answer):
    return html.unescape(re.search(r'id="said"[^>]*>([^<]*)<', answer.text)[1])


def test_search_sort_and_filters(fake_queue, serve, visit):
    first, second, third = (fake_queue.submit(name) for name in ("resize", "train", "resize"))
    report(fake_queue, first, claim(fake_queue, first, "gpu-2"), current=9, total=20, message="photo Nine")
    report(fake_queue, second, claim(fake_queue, second), current=19, total=20, message="epoch 19")
    broken = fail(fake_queue, fake_queue.submit("train"))
    client = visit(serve(fake_queue))
    assert rows(client, "text=PHOTO+nine") == [first.id]
    assert rows(client, "text=gpu-2") == [first.id]
    assert rows(client, "text=photo+nineteen") == []
    assert rows(client, f"text={third.id[:8]}") == [third.id]
    assert rows(client, "text=bad+image") == [broken.id], "a search finds what has ended, too"
    assert rows(client, "sort=progress&status=running") == [second.id, first.id]
    assert rows(client, "sort=type&status=all") == [first.id, third.id, second.id, broken.id]
    assert set(rows(client, "within=1h&type=resize")) == {first.id, third.id}


def test_what_changed_long_ago_is_left_out(fake_queue, serve, visit):
    at = model.Timestamp.of(fake_queue.now() - timedelta(minutes=40))
    record = new_record(fake_queue.store, "t").evolve(created_at=at, updated_at=at, available_at=at)
    old, new = fake_queue.store.create(record).record, fake_queue.submit("t")
    client = visit(serve(fake_queue))
    assert rows(client, "within=15m") == [new.id]
    assert rows(client, "within=1h") == [old.id, new.id]
    assert rows(client, "sort=newest") == [new.id, old.id]


@pytest.mark.parametrize("query", ["sort=size", "within=2h", "error=x", "error=<b>"])
def test_filters_that_do_not_exist_are_refused(fake_queue, serve, visit, query):
    answer = visit(serve(fake_queue)).get(f"/?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in Sieve(answer.text).text


def test_a_pending_task_without_a_worker_says_so_in_the_list(fake_queue, serve, visit):
    fake_queue.submit("orphan")
    fake_queue.submit("resize")
    beat(fake_queue, task_types=["resize"])
    text = Sieve(visit(serve(fake_queue)).get("/").text).text
    assert text.count("No worker has this type") == 1
    assert "start one that has a handler for orphan" in text


def test_a_task_is_cancelled_and_retried_in_its_row(fake_queue, serve, visit):
    pending, other = fake_queue.submit("t"), fake_queue.submit("t")
    client = visit(serve(fake_queue))
    address, fields = pressed(client.get("/?type=t&sort=newest").text, "Cancel", pending)
    answer = post(client, address, fields | {"task": f"{other.id}:0"})  # what is selected is not what was pressed
    assert said(answer) == "1 task was cancelled."
    assert answer.url.query == b"type=t&sort=newest&page=1", "the list is the one that it was"
    assert (pending.refresh().status, other.refresh().status) == (TaskStatus.CANCELLED, TaskStatus.PENDING)
    address, fields = shown(client, "Retry", pending)
    assert said(post(client, address, fields)) == "1 task was made pending again."
    assert pending.refresh().status is TaskStatus.PENDING


def test_several_at_once_and_what_could_not_be_done(fake_queue, serve, visit):
    pending, running, done = (fake_queue.submit("t") for _ in range(3))
    claim(fake_queue, running)
    lease = claim(fake_queue, done)
    fake_queue.store.update(done.id, lambda r, now: transitions.complete(r, now, lease_id=lease, output=None))
    client = visit(serve(fake_queue))
    assert said(post(client, "/tasks/cancel")) == "Nothing was selected."
    answer = post(client, "/tasks/cancel", {"task": [f"{task.id}:0" for task in (pending, running, done)]})
    assert said(answer).startswith("1 task was cancelled, 1 task was asked to stop; 1 not done: task " + done.id)
    assert pending.refresh().status is TaskStatus.CANCELLED
    assert running.refresh().record.cancel_requested
    assert done.refresh().status is TaskStatus.COMPLETED, "a cancel is never anything but a cancel"


def test_a_button_of_earlier_does_nothing_and_says_so(fake_queue, serve, visit):
    """Cancel, pressed when the task has ended; Retry, pressed when it has run again and failed again."""
    task = fake_queue.submit("t", max_retries=0)
    client = visit(serve(fake_queue))
    cancelling = pressed(client.get("/").text, "Cancel", task)
    fail(fake_queue, task)
    answer = post(client, *cancelling)
    assert said(answer) == f"Not done: task {task.id} cannot be cancelled: it is failed, not pending"
    retrying = shown(client, "Retry", task)
    task.replay()
    fail(fake_queue, task)
    on_its_page = {"only": f"{task.id}:1"}
    for path, fields in (retrying, (f"/task/{task.id}/run-again", on_its_page)):
        answer = post(client, path, fields)
        assert "it has run again since it was looked at" in answer.text
        assert task.refresh().status is TaskStatus.FAILED
    assert task.record.attempt == 2


def test_failures_are_grouped_and_a_group_is_retried(fake_queue, serve, visit):
    bad = [fail(fake_queue, fake_queue.submit("resize"), f"ValueError: bad image {n}\n\n  File x") for n in range(14)]
    gone = [fail(fake_queue, fake_queue.submit("train"), "FileNotFoundError: no such file") for _ in range(3)]
    loop = fail(fake_queue, fake_queue.submit("track:epochs"), "KeyError: 'lr'")
    client = visit(serve(fake_queue))
    page = client.get("/?status=failed").text
    text = Sieve(page).text
    assert "18 failures of 3 kinds" in text
    assert re.search(r"14 ×ValueError: bad image \d+resize.*?Retry 143 ×FileNotFoundError: no such filetrain", text)
    key, until_text = re.search(
        r'action="failures/([0-9a-f]{16})/retry[^>]*>.*?name="until" value="([^"]+)"', page
    ).groups()
    assert len(rows(client, f"error={key}")) == 14
    late = fail(fake_queue, fake_queue.submit("resize"), "ValueError: bad image 99")  # was not on the button
    until(lambda: "15 ×" in Sieve(client.get("/").text).text)
    answer = post(client, f"/failures/{key}/retry?status=failed", {"until": until_text})
    assert said(answer) == "14 tasks were made pending again."
    assert {task.refresh().status for task in bad} == {TaskStatus.PENDING}
    assert {task.refresh().status for task in (*gone, loop, late)} == {TaskStatus.FAILED}
    until(lambda: "5 failures of 3 kinds" in Sieve(client.get("/?status=failed").text).text)
    again = post(client, f"/failures/{key}/retry?status=failed", {"until": until_text})
    assert said(again) == "Not done: none of these tasks is failed any more."
    assert not re.search(
        r"KeyError[^R]*Retry", Sieve(again.text).text.partition("failures of")[2].partition("Select all")[0]
    ), "nobody can run a loop again"


@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("/tasks/cancel", {"task": "nonsense"}, 400),
        ("/tasks/retry", {"task": f"{model.new_id()}:x"}, 400),
        ("/tasks/cancel", {"task": [f"{model.new_id()}:0"] * 1200}, 400),
        ("/failures/0123456789abcdef/retry", {"until": "yesterday"}, 400),
        ("/tasks/none", {}, 404),
    ],
)
def test_forms_that_no_page_sends(fake_queue, serve, visit, path, fields, status):
    assert post(visit(serve(fake_queue)), path, fields).status_code == status


def test_a_body_that_is_too_large_is_not_read(fake_queue, serve, visit):
    client = visit(serve(fake_queue))
    answer = client.post(
        "/tasks/cancel", content=b"x" * 2_000_000, headers={"origin": str(client.base_url).rstrip("/")}
    )
    assert answer.status_code == 413


def test_tasks_of_which_only_their_number_is_known(fake_queue, serve, visit, monkeypatch):
    for name, limit in (("_PAGE", 10), ("_INDEX_PAGES", 2), ("_LIVE_LIMIT", 5), ("_ENDED_LIMIT", 2)):
        monkeypatch.setattr(f"oq_nb.queue.poller.{name}", limit)
    for _ in range(50):
        fake_queue.submit("resize")
    client = visit(serve(fake_queue))
    answer = until(lambda: (found := client.get("/")) and "more that may be" in found.text and found)
    pending, unlisted = re.search(
        r"<b>(\d+)</b> <a [^>]*>pending</a>.*?and (\d+) more that may be", answer.text
    ).groups()
    assert int(pending) + int(unlisted) == 50
    for query in ("status=failed", "status=ended", "status=pending&type=resize", "type=train"):
        assert client.get(f"/?{query}").status_code == 200
    assert "Ended lately" not in answer.text and "Failures" not in answer.text


def test_a_queue_of_one_task_that_cannot_be_read(fake_queue, serve, visit):
    task = fake_queue.submit("resize")
    objects = fake_queue.store.objects
    objects.put(task.record.key, objects.get(task.record.key).body.replace(b'"pending"', b'"paused"'))
    client = visit(serve(fake_queue))
    answer = until(lambda: (found := client.get("/")) and "cannot be read" in found.text and found)
    assert "and 1 that cannot be read" in answer.text and answer.status_code == 200
    assert client.get("/?status=ended").status_code == 200


def test_failures_that_are_counted_and_not_read(fake_queue, serve, visit, monkeypatch):
    monkeypatch.setattr("oq_nb.queue.poller._FAILURES_LIMIT", 2)
    monkeypatch.setattr("oq_nb.queue.poller._COUNT_LIMIT", 0)
    monkeypatch.setattr("oq_nb.queue.poller._ENDED_LIMIT", 0)
    for _ in range(3):
        fail(fake_queue, fake_queue.submit("resize"))
    client = visit(serve(fake_queue))
    answer = until(lambda: (found := client.get("/")) and "2 failures of 1 kind" in found.text and found)
    assert "1 more failed one is counted but not read." in answer.text
    other = client.get("/?status=failed&type=train").text
    assert "0 failures" not in other
    section = html.unescape(re.sub(r"<[^>]*>", " ", other[other.index('id="failures"') :]))
    assert "None of those that were read. 1 more failed one is counted but not read." in " ".join(section.split())
