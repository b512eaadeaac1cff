"""The JSON interface: what it says, what it does, whom it answers."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from test_page import EVIL, beat, claim, report
from test_page_lists import fail

from oq_nb.errors import StorageUnavailableError
from oq_nb.model import TaskStatus, new_id, transitions
from oq_nb.queue.submit import new_record


@pytest.fixture
def api(serve):
    """Return what asks a page's interface as a program does: with the token, without cookies."""
    clients = []

    def start(queue):
        page = serve(queue)
        token = page.url.partition("token=")[2]
        headers = {"Authorization": f"Bearer {token}"}
        clients.append(httpx.Client(base_url=f"{page.address}api/v1/", headers=headers, timeout=20, verify=False))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def test_the_queue_its_tasks_and_its_workers(fake_queue, api):
    running, pending, failed = (fake_queue.submit(name) for name in ("resize", "wait", "break"))
    report(fake_queue, running, claim(fake_queue, running), current=9, total=20, message="photo 9")
    fail(fake_queue, failed, "KeyError: 3")
    beat(fake_queue, "gpu-2", task_types=["resize"])
    client = api(fake_queue)
    answer = client.get("queue")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    seen = answer.json()
    assert {name: count for name, count in seen["counts"].items() if count} == {"running": 1, "pending": 1, "failed": 1}
    assert (seen["workers"], seen["workers_alive"], seen["ended_total"], seen["trouble"]) == (1, 1, 1, None)
    found = client.get("tasks").json()
    assert [task["id"] for task in found["tasks"]] == [running.id, pending.id]
    assert [task["id"] for task in found["ended_lately"]] == [failed.id]
    assert (found["page"], found["pages"], found["total"]) == (1, 1, 2)
    first, second = found["tasks"]
    assert (first["state"], first["progress"]["percent"], first["status"]) == ("running", 45, "running")
    assert any("No worker has this type" in note for note in second["notes"])
    assert [task["id"] for task in client.get("tasks?status=failed&text=keyerror").json()["tasks"]] == [failed.id]
    assert [task["id"] for task in client.get("tasks?rows=1&page=2").json()["tasks"]] == [pending.id]
    assert client.get("workers").json()["workers"][0]["worker_id"] == "gpu-2"
    assert client.get("workers").json()["workers"][0]["is_alive"] is True


def test_a_task_and_its_history(fake_queue, api):
    task = fake_queue.submit("t", {"a": 1})
    claim(fake_queue, task)
    client = api(fake_queue)
    shown = client.get(f"tasks/{task.id}").json()
    assert (shown["id"], shown["input"], shown["state"], shown["is_gone"]) == (task.id, {"a": 1}, "running", False)
    history = client.get(f"tasks/{task.id}/history").json()
    assert [version["status"] for version in history["versions"]] == ["pending", "running"]
    assert (history["total"], history["first_number"], history["is_more"]) == (2, 1, False)
    for path in (f"tasks/{new_id()}", f"tasks/{new_id()}/history", "tasks/nonsense"):
        assert client.get(path).status_code == 404
        assert "error" in client.get(path).json()


def test_cancel_and_retry(fake_queue, api):
    task = fake_queue.submit("t")
    client = api(fake_queue)
    done = client.post(f"tasks/{task.id}/cancel", json={"reason": "not needed"})
    assert (done.status_code, done.json()["message"]) == (200, "Cancelled.")
    assert done.json()["task"]["last_error"] == "not needed"
    again = client.post(f"tasks/{task.id}/cancel")
    assert (again.status_code, again.json()["error"].partition(":")[0]) == (409, f"task {task.id} cannot be cancelled")
    assert client.post(f"tasks/{task.id}/retry", json={"attempt": 7}).status_code == 409
    assert task.refresh().status is TaskStatus.CANCELLED
    assert client.post(f"tasks/{task.id}/retry", json={"attempt": 0}).json()["task"]["status"] == "pending"
    assert client.post(f"tasks/{new_id()}/cancel").status_code == 404


def test_several_and_a_group(fake_queue, api):
    bad = [fail(fake_queue, fake_queue.submit("resize"), f"ValueError: bad image {n}") for n in range(3)]
    pending = fake_queue.submit("t")
    client = api(fake_queue)
    (group,) = client.get("failures").json()["groups"]
    assert (group["count"], group["task_types"], sorted(group["task_ids"])) == (
        3,
        ["resize"],
        sorted(task.id for task in bad),
    )
    answer = client.post("tasks/cancel", json={"tasks": [pending.id, bad[0].id]}).json()
    assert answer["changed"] == [pending.id]
    assert list(answer["refused"]) == [bad[0].id]
    answer = client.post(f"failures/{group['key']}/retry", json={"until": group["until"]}).json()
    assert (sorted(answer["changed"]), answer["refused"]) == (sorted(group["task_ids"]), {})
    assert answer["message"] == "3 tasks were made pending again."
    assert client.post("tasks/retry", json={"tasks": [f"{pending.id}:0"]}).json()["changed"] == [pending.id]
    assert client.post("failures/0123456789abcdef/retry").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "named"),
    [
        ("GET", "tasks?status=odd", None, 400, "status"),
        ("GET", "tasks?rows=501", None, 400, "rows"),
        ("GET", "tasks?rows=x", None, 400, "rows"),
        ("POST", "tasks/cancel", b"[]", 400, "object"),
        ("POST", "tasks/cancel", b"{", 400, "object"),
        ("POST", "tasks/cancel", b"[" * 100_000, 400, "object"),
        ("POST", "tasks/cancel", b'{"tasks": []}', 400, "tasks"),
        ("POST", "tasks/retry", b'{"tasks": ["x"]}', 400, "x"),
        ("POST", "failures/0123456789abcdef/retry", b'{"until": 3}', 400, "until"),
        ("GET", "nothing", None, 404, "address"),
        ("DELETE", "tasks", None, 404, "address"),
    ],
)
def test_what_cannot_be_asked_for(fake_queue, api, method, path, body, status, named):
    answer = api(fake_queue).request(method, path, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert named in answer.json()["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Host": "evil.example"}, 403),
        ({"Origin": "https://evil.example"}, 403),
    ],
)
def test_whom_it_does_not_answer(fake_queue, api, headers, status):
    task = fake_queue.submit("t")
    client = api(fake_queue)
    if status == 401:
        del client.headers["Authorization"]
    origin = {"Origin": str(client.base_url).partition("/api/")[0]}
    for method, path in (("GET", "tasks"), ("POST", f"tasks/{task.id}/cancel"), ("POST", "tasks/cancel")):
        answer = client.request(method, path, headers=origin | headers)
        assert answer.status_code == status
        assert set(answer.json()) == {"error"}
    assert task.refresh().status is TaskStatus.PENDING


def test_with_a_cookie_a_change_needs_the_pages_own_origin(fake_queue, serve, visit):
    task = fake_queue.submit("t")
    page = serve(fake_queue)
    client = visit(page)
    assert client.get("/api/v1/queue").status_code == 200
    assert client.post(f"/api/v1/tasks/{task.id}/cancel").status_code == 403
    origin = {"Origin": page.address.rstrip("/")}
    assert client.post(f"/api/v1/tasks/{task.id}/cancel", headers=origin).status_code == 200


def test_text_from_the_bucket_stays_text(fake_queue, api):
    record = new_record(fake_queue.store, "x").evolve(task_type=EVIL, input={EVIL: EVIL}, timeout_seconds=3600)
    task = fake_queue.store.create(record).record
    lease = new_id()
    fake_queue.store.update(
        task.id, lambda r, now: transitions.claim(r, now, worker_id=EVIL, lease_id=lease, lease_seconds=60)
    )
    fake_queue.store.update(task.id, lambda r, now: transitions.fail(r, now, lease_id=lease, error=EVIL))
    client = api(fake_queue)
    for path in ("tasks", f"tasks/{task.id}", f"tasks/{task.id}/history", "failures"):
        answer = client.get(path)
        assert answer.headers["content-type"] == "application/json"
        assert answer.content.isascii()
        assert not set(answer.content) & (set(range(32)) - {10}), "nothing in it acts on a terminal"
        assert json.dumps(EVIL)[1:-1] in answer.text
    assert client.get(f"tasks/{task.id}").json()["task_type"] == EVIL


def test_a_store_that_is_away(fake_queue, fake_store, api):
    task = fake_queue.submit("t")

    def down(kind, key, when):
        raise StorageUnavailableError("no connection to the store")

    fake_store.fault = down
    client = api(fake_queue)
    for method, path in (("GET", "queue"), ("GET", f"tasks/{task.id}"), ("POST", f"tasks/{task.id}/cancel")):
        answer = client.request(method, path)
        assert (answer.status_code, "no connection" in answer.json()["error"]) == (503, True), path
    fake_store.fault = None


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
def test_the_examples_of_the_documentation(fake_queue, serve):
    text = (Path(__file__).parents[2] / "docs" / "how-to" / "ui.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ (curl (?:[^\\\n]|\\\n)*)$", text, re.MULTILINE)
    assert len(commands) == 4
    task = fake_queue.submit("t")
    bad = fail(fake_queue, fake_queue.submit("resize"), "ValueError: bad image 3")
    page = serve(fake_queue)
    token = page.url.partition("token=")[2]
    answers = []
    for command in commands:
        command = command.replace("http://127.0.0.1:8899/", page.address)
        command = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", task.id, command)
        done = subprocess.run(command, shell=True, capture_output=True, timeout=30, env=os.environ | {"TOKEN": token})
        assert done.stdout, (command, done.stderr)
        answers.append(json.loads(done.stdout))
    queue, tasks, failures, cancelled = answers
    assert queue["counts"]["pending"] == 1
    assert [found["id"] for found in tasks["tasks"]] == [bad.id]
    assert [group["count"] for group in failures["groups"]] == [1]
    assert (cancelled["message"], cancelled["task"]["last_error"]) == ("Cancelled.", "not needed")
