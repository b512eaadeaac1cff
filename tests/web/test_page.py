"""What the page of a queue shows and does, asked for without a browser."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import threading
import time
from html.parser import HTMLParser
from urllib.parse import quote

import httpx
import pytest
from prefix_proxy import proxied
from waiting import until

import oq_nb
from oq_nb import model
from oq_nb.errors import ConfigurationError, StorageDeniedError, StorageUnavailableError
from oq_nb.model import Progress, TaskStatus, WorkerRecord, transitions
from oq_nb.queue import Queue
from oq_nb.queue.submit import new_record
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore
from oq_nb.web import sessions as looks
from oq_nb.web.history import History

EVIL = (
    "<script>alert(1)</script><img src='http://127.0.0.1:9/oq-evil.png' onerror=\"alert('2')\">"
    "\"'&lt;</pre></details></option></select></main>\u202egnp\u2066\x1b[31m\x07"
)


class Sieve(HTMLParser):
    """What stands in a page: its elements, the names of their attributes, its text, its links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.attributes, self.texts, self.links, self.rows = set(), set(), [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.elements.add(tag)
        self.attributes |= set(given)
        self.links += [given[name] for name in ("href", "src", "action") if name in given]
        if "data-key" in given:
            self.rows.append(given["data-key"])

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


def claim(queue, task, worker_id="w", lease_seconds=3600):
    lease_id = model.new_id()
    queue.store.update(
        task.id,
        lambda r, now: transitions.claim(r, now, worker_id=worker_id, lease_id=lease_id, lease_seconds=lease_seconds),
    )
    return lease_id


def report(queue, task, lease_id, **progress):
    if progress.get("total"):
        progress.setdefault("percent", 100 * progress["current"] // progress["total"])
    queue.store.update(
        task.id,
        lambda r, now: transitions.report(r, now, lease_id=lease_id, progress=Progress(updated_at=now, **progress)),
    )


def beat(queue, name="w", **fields):
    now = queue.store.clock.stamp()
    record = WorkerRecord(worker_id=name, started_at=now, last_heartbeat=now, shards=queue.all_shards(), **fields)
    queue.store.objects.put("workers/w.json", record.to_bytes())


def post(client, path):
    origin = str(client.base_url).rstrip("/")
    return client.post(path, headers={"origin": origin}, follow_redirects=True)


# --- what is shown


def test_the_first_page_shows_counts_workers_and_bars(fake_queue, serve, visit):
    running, pending, failed = (fake_queue.submit(name) for name in ("resize", "wait", "break"))
    report(fake_queue, running, claim(fake_queue, running), current=9, total=20, message="photo 9")
    lease = claim(fake_queue, failed)
    fake_queue.store.update(failed.id, lambda r, now: transitions.fail(r, now, lease_id=lease, error="no such file"))
    beat(fake_queue, "gpu-2", task_types=["resize"])
    page = Sieve(visit(serve(fake_queue)).get("/").text)
    assert page.rows == [running.id, pending.id, failed.id]
    for text in ("1 running", "1 pending", "1 failed", "1 worker alive", "gpu-2", "heartbeat", "45% (9/20)", "photo 9"):
        assert text in page.text, text
    assert "no such file" in page.text
    assert {"main", "header", "footer", "h1", "table", "caption", "progress", "label"} <= page.elements
    for link in page.links:
        assert not re.match(r"[a-z]+:|/", link), f"not a relative address: {link}"


def test_an_empty_queue_and_one_whose_worker_is_missing(fake_queue, serve, visit):
    client = visit(serve(fake_queue))
    page = Sieve(client.get("/").text)
    assert "No worker is registered" in page.text
    assert "none" in page.text
    fake_queue.submit("t")
    until(lambda: "No worker is alive, and 1 task waits" in Sieve(client.get("/").text).text)


def test_tasks_are_filtered_by_type_and_status(fake_queue, serve, visit):
    first, second, third = fake_queue.submit("a"), fake_queue.submit("b&c=d"), fake_queue.submit("a")
    claim(fake_queue, first)
    third.cancel("no")
    client = visit(serve(fake_queue))

    def rows(**query):
        return set(Sieve(client.get("/", params=query).text).rows)

    assert rows() == {first.id, second.id, third.id}
    assert rows(type="a") == {first.id, third.id}
    assert rows(type="b&c=d") == {second.id}
    assert rows(type="a", status="running") == {first.id}
    assert rows(status="cancelled") == {third.id}
    assert rows(status="ended") == {third.id}
    assert rows(status="ended", type="b&c=d") == set()
    assert '<option value="b&amp;c=d" selected>' in client.get("/", params={"type": "b&c=d"}).text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("status=sleeping", "status: one of all"),
        ("page=0", "page:"),
        ("page=x", "page:"),
        ("page=" + "9" * 5000, "page:"),
    ],
)
def test_what_cannot_be_asked_for_is_said(fake_queue, serve, visit, query, said):
    answer = visit(serve(fake_queue)).get(f"/?{query}")
    assert answer.status_code == 400
    assert said in answer.text


def test_a_task_is_shown_with_its_progress_over_time(fake_queue, serve, visit):
    task = fake_queue.submit("train", {"epochs": 4}, max_retries=5)
    lease = claim(fake_queue, task, worker_id="gpu-2")
    for epoch in range(3):
        report(fake_queue, task, lease, current=epoch, total=4, message=f"epoch {epoch}")
    answer = visit(serve(fake_queue)).get(f"/task/{task.id}")
    page = Sieve(answer.text)
    for text in (
        "running",
        "train",
        "50% (2/4)",
        "epoch 2",
        "attempt 1",
        "worker gpu-2",
        '{"epochs": 4}',
        "1; 5 times retried at most",
    ):
        assert text in page.text, text
    assert re.search(r"Version 1: pending \(created\)", page.text)
    assert 'Version 5: running (progress: 50%, "epoch 2")' in page.text
    assert "All versions (5)" in page.text
    assert {"svg", "polyline", "progress", "button", "dl"} <= page.elements
    assert "<title>50% train" in answer.text
    for link in page.links:
        assert not re.match(r"[a-z]+:|/", link), f"not a relative address: {link}"


def test_of_a_long_history_the_newest_200_versions_are_shown(fake_queue, serve, visit):
    task = fake_queue.submit("long")
    lease = claim(fake_queue, task)
    for number in range(248):
        report(fake_queue, task, lease, current=number, total=248)
    page = Sieve(visit(serve(fake_queue)).get(f"/task/{task.id}").text)
    assert "The newest 200 versions (250)" in page.text
    assert "Version 250: running (progress: 99%)" in page.text
    assert "Version 51: running (progress" in page.text
    assert "Version 50:" not in page.text
    assert page.text.count("Version 1:") == 0


def test_each_version_is_read_once(fake_queue, fake_store):
    task = fake_queue.submit("t")
    history = History(fake_queue.store, task.id)
    assert [r.status.value for r in history.read().records] == ["pending"]
    lease = claim(fake_queue, task)
    report(fake_queue, task, lease, percent=5)
    before = fake_store.requests["GET"]
    read = history.read()
    assert fake_store.requests["GET"] == before + 2
    assert (read.first_number, read.total, [r.status.value for r in read.records]) == (
        1,
        3,
        ["pending", "running", "running"],
    )
    assert history.read() == read
    assert fake_store.requests["GET"] == before + 2
    # A lifecycle rule has removed all versions but the newest: what is there is counted afresh.
    report(fake_queue, task, lease, percent=6)
    versions = [e for e in fake_store.versions(task.record.key) if not e.is_latest]
    for entry in versions:
        fake_store.delete(entry.key, version_id=entry.version_id)
    read = history.read()
    assert (read.first_number, read.total, read.records[0].progress.percent) == (1, 1, 6)


def test_a_bucket_without_versions_has_no_history(serve, visit):
    queue = Queue(TaskStore(FakeStore(versioned=False)))
    task = queue.submit("t")
    assert "keeps no versions" in visit(serve(queue)).get(f"/task/{task.id}").text


def test_errors_and_outputs_are_shown_folded(fake_queue, serve, visit):
    task = fake_queue.submit("t", ["x" * 500])
    lease = claim(fake_queue, task)
    error = "Traceback (most recent call last):\n  File x\nKeyError: 'no such key'"
    fake_queue.store.update(task.id, lambda r, now: transitions.fail(r, now, lease_id=lease, error=error))
    page = visit(serve(fake_queue)).get(f"/task/{task.id}").text
    assert "<summary" in page
    assert "Last error: KeyError: &#x27;no such key&#x27;" in page
    assert Sieve(page).text.count("x" * 400) == 1
    assert ">Retry</button>" in page


def test_hostile_text_stays_text(fake_queue, serve, visit):
    def add(**changes):
        record = new_record(fake_queue.store, "x").evolve(
            task_type=EVIL, input={EVIL: EVIL}, timeout_seconds=3600, **changes
        )
        return oq_nb.Task(fake_queue, fake_queue.store.create(record))

    running, failed, done, cancelled = add(), add(), add(), add()
    report(fake_queue, running, claim(fake_queue, running, EVIL), percent=45, message=EVIL, unit=EVIL, rate=2.0)
    lease = claim(fake_queue, failed)
    fake_queue.store.update(
        failed.id, lambda r, now: transitions.fail(r, now, lease_id=lease, error="Traceback:\n  x\n" + EVIL)
    )
    other = claim(fake_queue, done)
    fake_queue.store.update(done.id, lambda r, now: transitions.complete(r, now, lease_id=other, output={EVIL: EVIL}))
    fake_queue.cancel(cancelled.id, EVIL, by=EVIL)
    beat(fake_queue, EVIL, task_types=[EVIL], current_tasks=[EVIL])
    fake_queue._label = EVIL
    client = visit(serve(fake_queue))
    paths = [
        "/",
        "/?status=all&type=" + quote(EVIL),
        "/?status=<script>alert(1)</script>",
    ]
    paths += [f"/task/{task.id}" for task in (running, failed, done, cancelled)] + [
        "/find?id=<script>alert(1)</script>"
    ]
    allowed = {"script", "img"}
    for path in paths:
        text = client.get(path).text
        page = Sieve(text)
        assert "<script>alert(1)</script>" in page.text, path
        assert text.count("<script") == 1, path  # the page's own
        assert text.count("<img") == 1, path
        assert page.elements & {"script", "img", "iframe", "object", "style", "base", "embed"} <= allowed, path
        assert not [name for name in page.attributes if name.startswith("on")], path
        assert not [link for link in page.links if "evil" in link.partition("?")[0]], path
        shown = re.sub(r'<option value="[^"]*"', "", text)  # what a form sends back has to be what it is
        for char in "\u202e\u2066\x1b\x07":
            assert char not in shown, path


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/task/8f14e45f-ceea-467f-a9c3-52b3b0a1f6d2", 404, "There is no such task"),
        ("/task/nonsense", 404, "not a task"),
        ("/task/..%2f..%2fworkers", 404, ""),
        ("/task/", 404, "nothing at this address"),
        ("/static/../app.py", 404, ""),
        ("/static/app.py", 404, ""),
        ("/favicon.ico", 404, "nothing at this address"),
        ("/find", 400, "not a task"),
        ("/find?id=zz", 400, "not a task"),
        ("/find?id=" + "f" * 36, 303, ""),
    ],
)
def test_addresses_that_lead_nowhere(fake_queue, serve, visit, path, status, said):
    answer = visit(serve(fake_queue)).get(path)
    assert answer.status_code == status
    assert said in answer.text
    assert "Traceback" not in answer.text


def test_a_task_is_found_by_the_beginning_of_its_id(fake_queue, serve, visit):
    tasks = [fake_queue.submit("t") for _ in range(40)]
    client = visit(serve(fake_queue))
    wanted = tasks[0].id
    for beginning in (wanted[:13], wanted, wanted.upper(), f" {wanted[:20]} "):
        answer = client.get("/find", params={"id": beginning})
        assert (answer.status_code, answer.headers["location"]) == (303, f"task/{wanted}")
    assert client.get("/find", params={"id": "abcdefabcdef"}).status_code == 404
    digit = max("0123456789abcdef", key=lambda digit: sum(task.id[0] == digit for task in tasks))
    several = client.get("/find", params={"id": digit})
    assert several.status_code == 200
    shown = set(re.findall(r'href="task/([0-9a-f-]{36})"', several.text))
    assert shown <= {task.id for task in tasks if task.id[0] == digit}
    assert len(shown) > 1


# --- how it stays fresh


def test_what_changes_is_shown_and_what_does_not_costs_nothing(fake_queue, serve, visit):
    task = fake_queue.submit("t")
    lease = claim(fake_queue, task)
    client = visit(serve(fake_queue))
    assert "no report yet" in client.get("/").text
    report(fake_queue, task, lease, percent=40)
    until(lambda: "40%" in client.get("/").text)
    until(lambda: "40%" in client.get(f"/task/{task.id}").text)
    # Ages are in seconds: some two requests of many fall into the same one.
    for _ in range(50):
        first = client.get(f"/task/{task.id}")
        again = client.get(f"/task/{task.id}", headers={"if-none-match": first.headers["etag"]})
        if again.status_code == 304:
            break
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])


def test_a_thousand_tasks_are_shown_a_page_at_a_time(fake_queue, fake_store, serve, visit):
    tasks = list(fake_queue.submit_many("many", range(1200)))
    page = serve(fake_queue, interval=60)
    client = visit(page)
    until(lambda: "1,200" in client.get("/").text)
    before = sum(fake_store.requests.values())
    seen: set[str] = set()
    for number in range(1, 21):
        text = client.get("/", params={"page": str(number), "status": "pending"}).text
        assert len(text) < 150_000
        rows = Sieve(text).rows
        assert len(rows) == 50
        seen |= set(rows)
    assert len(seen) == 1000 <= len(tasks)
    assert "951 to 1,000 of 1,000; 200 more are counted but not read" in Sieve(text).text
    assert 'rel="prev"' in text
    assert 'rel="next"' not in text
    assert client.get("/?page=99").text.count("data-key") == 50  # the last one there is
    assert sum(fake_store.requests.values()) == before  # looking at it is what costs, not showing it


def test_a_task_that_ended_and_is_run_again_elsewhere_is_shown_so(fake_store, fake_queue, serve, visit, monkeypatch):
    monkeypatch.setattr(looks, "_ENDED_SECONDS", 0.1)
    task = fake_queue.submit("t")
    task.cancel("enough")
    client = visit(serve(fake_queue))
    assert "enough" in client.get(f"/task/{task.id}").text
    Queue(TaskStore(fake_store)).replay(task.id)
    until(lambda: ">Cancel</button>" in client.get(f"/task/{task.id}").text)
    fake_store.delete(task.record.key)
    until(lambda: "no longer in the bucket" in client.get(f"/task/{task.id}").text)


def test_no_request_is_made_when_no_page_is_open(fake_queue, fake_store, serve, visit, monkeypatch):
    monkeypatch.setattr(looks, "_IDLE_SECONDS", 0.2)
    monkeypatch.setattr(looks, "_SWEEP_SECONDS", 0.1)
    task = fake_queue.submit("t")
    page = serve(fake_queue)
    assert not fake_queue.watcher.is_running
    client = visit(page)
    client.get("/")
    client.get(f"/task/{task.id}")
    assert fake_queue.watcher.is_running
    until(lambda: not fake_queue.watcher.is_running)
    before = sum(fake_store.requests.values())
    time.sleep(0.3)
    assert sum(fake_store.requests.values()) == before
    assert "1 pending" in Sieve(client.get("/").text).text


def test_not_more_tasks_are_looked_at_than_can_be(fake_queue, serve, visit, monkeypatch):
    monkeypatch.setattr(looks, "_TASKS", 3)
    tasks = [fake_queue.submit(f"t{number}") for number in range(8)]
    client = visit(serve(fake_queue))
    for task in [*tasks, tasks[0]]:
        assert task.task_type in client.get(f"/task/{task.id}").text
    assert len(fake_queue.watcher._living()) <= 3


# --- buttons


def test_a_pending_task_is_cancelled(fake_queue, serve, visit):
    task = fake_queue.submit("t")
    client = visit(serve(fake_queue))
    assert (
        f'<form method="post" action="{task.id}/cancel"><button>Cancel</button>' in client.get(f"/task/{task.id}").text
    )
    answer = post(client, f"/task/{task.id}/cancel")
    assert answer.url.path == f"/task/{task.id}"
    assert "Cancelled." in answer.text
    assert "cancelled on the web page" in answer.text
    assert ">Retry</button>" in answer.text
    assert task.refresh().status is TaskStatus.CANCELLED
    again = post(client, f"/task/{task.id}/cancel")
    assert "Not done" in again.text


def test_a_running_task_is_asked_to_stop(fake_queue, serve, visit):
    task = fake_queue.submit("t")
    claim(fake_queue, task)
    answer = post(visit(serve(fake_queue)), f"/task/{task.id}/cancel")
    assert "Asked to stop" in answer.text
    assert "<button disabled>Stopping …</button>" in answer.text
    assert task.refresh().record.cancel_requested


def test_an_ended_task_is_run_again(fake_queue, serve, visit):
    task = fake_queue.submit("t")
    lease = claim(fake_queue, task)
    fake_queue.store.update(task.id, lambda r, now: transitions.complete(r, now, lease_id=lease, output=7))
    client = visit(serve(fake_queue))
    assert ">Run again</button>" in client.get(f"/task/{task.id}").text
    answer = post(client, f"/task/{task.id}/run-again")
    assert "It is pending again" in answer.text
    assert task.refresh().status is TaskStatus.PENDING
    assert "Not done" in post(client, f"/task/{task.id}/run-again").text


def test_a_loop_of_track_cannot_be_run_again(fake_queue, serve, visit):
    task = fake_queue.submit("track:epochs")
    task.cancel()
    client = visit(serve(fake_queue))
    page = client.get(f"/task/{task.id}").text
    assert "<button" not in page.partition("<main")[2]
    assert "run its program again" in page
    assert "no worker can run it" in post(client, f"/task/{task.id}/run-again").text
    assert task.refresh().status is TaskStatus.CANCELLED


def test_a_button_for_a_task_that_is_not_there(fake_queue, serve, visit):
    client = visit(serve(fake_queue))
    answer = post(client, f"/task/{model.new_id()}/cancel")
    assert answer.status_code == 404
    assert "There is no such task" in answer.text
    assert post(client, "/task/nonsense/cancel").status_code == 404


def test_what_a_button_said_is_not_said_for_ever(fake_queue, serve, visit, monkeypatch):
    task = fake_queue.submit("t")
    client = visit(serve(fake_queue))
    assert "Cancelled." in post(client, f"/task/{task.id}/cancel").text
    monkeypatch.setattr(looks, "_MESSAGE_SECONDS", 0.0)
    until(lambda: "Cancelled.</span>" not in client.get(f"/task/{task.id}").text)


def test_what_a_button_said_is_not_said_of_a_task_that_has_gone_on(fake_queue, serve, visit):
    task = fake_queue.submit("t")
    lease = claim(fake_queue, task)
    client = visit(serve(fake_queue))
    assert "Asked to stop: " in post(client, f"/task/{task.id}/cancel").text
    assert "Asked to stop: " in client.get(f"/task/{task.id}").text
    fake_queue.store.update(
        task.id, lambda r, now: transitions.finish_cancelled(r, now, lease_id=lease, reason="it was asked to")
    )
    until(lambda: "it was asked to" in client.get(f"/task/{task.id}").text)
    assert "Asked to stop: " not in client.get(f"/task/{task.id}").text


# --- a store in trouble


def test_a_store_that_is_gone_leaves_what_was_known(fake_queue, fake_store, serve, visit):
    task = fake_queue.submit("t")
    report(fake_queue, task, claim(fake_queue, task), percent=40)
    client = visit(serve(fake_queue))
    client.get("/"), client.get(f"/task/{task.id}")

    def down(kind, key, when):
        raise StorageUnavailableError("no connection to the store")

    fake_store.fault = down
    for path in ("/", f"/task/{task.id}"):
        text = until(lambda path=path: (t := client.get(path).text) and "cannot be reached" in t and t)
        assert "no connection to the store" in text
        assert "40%" in text
    assert "Not done: no connection" in post(client, f"/task/{task.id}/cancel").text
    assert client.get("/find?id=ab").status_code == 503
    other = client.get(f"/task/{model.new_id()}")
    assert other.status_code == 200
    assert "cannot be reached" in other.text
    fake_store.fault = None
    client.get("/")
    until(lambda: "cannot be reached" not in client.get("/").text)
    until(lambda: "cannot be reached" not in client.get(f"/task/{task.id}").text, 40)


def test_a_page_opened_while_the_store_is_gone_or_shut(fake_queue, fake_store, serve, visit):
    def denied(kind, key, when):
        raise StorageDeniedError("access denied: s3:GetObject is needed")

    fake_store.fault = denied
    client = visit(serve(fake_queue))
    assert "s3:GetObject is needed" in client.get("/").text
    text = client.get(f"/task/{model.new_id()}").text
    assert "cannot be read" in text
    assert "s3:GetObject is needed" in text
    fake_store.fault = None


def test_an_object_that_is_no_task_is_said_to_be_none(fake_queue, fake_store, serve, visit):
    task_id = model.new_id()
    fake_store.put(fake_queue.store.key_of(task_id), b"<script>alert(1)</script>")
    answer = visit(serve(fake_queue)).get(f"/task/{task_id}")
    assert "is not a TaskRecord" in Sieve(answer.text).text


def test_a_store_that_hangs_holds_up_neither_the_page_nor_its_end(fake_queue, fake_store, serve, visit, monkeypatch):
    monkeypatch.setattr(looks, "_FIRST_SECONDS", 0.3)
    monkeypatch.setattr(looks, "_ACTION_SECONDS", 0.3)
    monkeypatch.setattr(looks, "_JOIN_SECONDS", 0.2)
    task = fake_queue.submit("t")
    free = threading.Event()
    fake_store.fault = lambda kind, key, when: free.wait(30)
    page = serve(fake_queue)
    client = visit(page)
    try:
        assert "Looking …" in client.get("/").text
        assert "not seen yet" in client.get(f"/task/{task.id}").text
        text = post(client, f"/task/{task.id}/cancel").text
        assert "Cancelling …" in text
        page.stop()
        assert not page.is_running
    finally:
        free.set()
        fake_store.fault = None


# --- behind a proxy


def test_it_works_behind_a_proxy_that_takes_a_prefix_away(fake_queue, serve):
    task = fake_queue.submit("t")
    page = serve(fake_queue)
    with proxied(page.port, f"/user/ada/proxy/{page.port}/") as address:
        token = page.url.partition("token=")[2]
        with httpx.Client(base_url=address, timeout=20) as client:
            assert client.get("").status_code == 401
            entered = client.get("", params={"token": token})
            assert next(iter(client.cookies.jar)).path == f"/user/ada/proxy/{page.port}"
            assert 'url=./"' in entered.text
            overview = client.get("")
            link = re.search(r'href="(task/[0-9a-f-]+)"', overview.text)[1]
            assert link == f"task/{task.id}"
            shown = client.get(link)
            for text, base in ((overview.text, overview.url), (shown.text, shown.url)):
                files = [name for name in Sieve(text).links if "static/" in name]
                assert len(files) >= 3
                for name in files:
                    answer = client.get(base.join(name))
                    assert answer.status_code == 200, name
                    assert "immutable" in answer.headers["cache-control"]
            action = re.search(r'action="([0-9a-f-]+/cancel)"', shown.text)[1]
            origin = address.partition("/user")[0]
            done = client.post(shown.url.join(action), headers={"origin": origin}, follow_redirects=True)
            assert str(done.url) == f"{address}task/{task.id}"
            assert "Cancelled." in done.text
            found = client.get("find", params={"id": task.id[:12]}, follow_redirects=True)
            assert str(found.url) == f"{address}task/{task.id}"
            home = re.search(r'class="home" href="([^"]+)"', shown.text)[1]
            assert str(client.get(shown.url.join(home)).url) == address


# --- its life


def test_it_is_served_until_it_is_stopped(fake_queue):
    before = set(threading.enumerate())
    with fake_queue.serve_ui() as page:
        assert page.is_running
        assert any(thread.name == f"oq-ui-{page.port}" for thread in threading.enumerate())
        assert httpx.get(page.url).status_code == 200
        assert fake_queue.serve_ui() is page
        assert fake_queue.serve_ui(page.port) is page
        assert not page.wait(0.01)
    assert not page.is_running
    assert page.wait(0)
    assert ", stopped" in repr(page)
    assert "no longer" in page._repr_html_()
    page.stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(page.url)
    assert not [t for t in set(threading.enumerate()) - before if t.name.startswith("oq-")]
    with fake_queue.serve_ui(page.port) as again:  # its port is free at once
        assert again is not page
        assert again.port == page.port


def test_what_is_shown_of_it(fake_queue, serve):
    page = serve(fake_queue)
    token = page.url.partition("token=")[2]
    assert repr(page).startswith(f"<PageServer {page.address} of Queue")
    assert token not in repr(page)
    shown = page._repr_html_()
    assert f'href="{page.url}"' in shown
    assert token not in re.sub(r'href="[^"]*"', "", shown)


def test_a_port_that_somebody_has_and_arguments_that_make_no_sense(fake_queue, serve):
    page = serve(fake_queue)
    other = Queue(TaskStore(FakeStore()))
    with pytest.raises(ConfigurationError, match=rf"port: {page.port} of 127.0.0.1 cannot be had"):
        other.serve_ui(page.port)
    for port in (-1, 65536, True, "80", 1.5):
        with pytest.raises(ConfigurationError, match="port:"):
            other.serve_ui(port)
    for interval in (0, -1, "x", float("nan")):
        with pytest.raises(ConfigurationError, match="interval:"):
            other.serve_ui(interval=interval)
    for hosts in ("hub.example", ["https://hub.example"], ["hub.example:80"], [""], [1]):
        with pytest.raises(ConfigurationError, match="allow_hosts:"):
            other.serve_ui(allow_hosts=hosts)


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_it_says_what_to_install(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from oq_nb.testing import FakeStore; from oq_nb.store import TaskStore; from oq_nb.queue import Queue\n"
        "try: Queue(TaskStore(FakeStore())).serve_ui()\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == f"ConfigurationError the web page needs {missing}: pip install 'oq-nb[ui]'\n"


def test_it_runs_beside_a_loop_and_where_loops_are_patched():
    code = (
        "import asyncio, httpx, nest_asyncio\n"
        "from oq_nb.testing import FakeStore; from oq_nb.store import TaskStore; from oq_nb.queue import Queue\n"
        "async def main():\n"
        "    with Queue(TaskStore(FakeStore())).serve_ui() as page:\n"
        "        return (await asyncio.to_thread(httpx.get, page.url)).status_code\n"
        "print(asyncio.run(main()))\n"
        "nest_asyncio.apply()\n"
        "print(asyncio.run(main()))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["200", "200"], done.stderr


def test_many_requests_at_once(fake_queue, serve, visit):
    tasks = [fake_queue.submit("t") for _ in range(5)]
    page = serve(fake_queue)
    cookies = dict(visit(page).cookies)

    async def ask():
        async with httpx.AsyncClient(base_url=page.address, cookies=cookies, timeout=30) as client:
            paths = ["/", *(f"/task/{task.id}" for task in tasks)] * 8
            return await asyncio.gather(*(client.get(path) for path in paths))

    assert {answer.status_code for answer in asyncio.run(ask())} == {200}
