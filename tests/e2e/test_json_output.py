"""``--json``: every command prints what docs/reference/json.md says; docs/reference/cli.md is the help texts."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from servers import connect_to

from oq_nb import model
from oq_nb.cli import main
from oq_nb.model import Progress, SeriesRecorder, Timestamp, transitions

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TYPES = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "object": dict,
    "array": list,
    "null": type(None),
    "any": object,
}


def tables():
    """Return the documented fields by heading: name to the words of its type."""
    found: dict[str, dict[str, list[str]]] = {}
    heading = ""
    for line in (DOCS / "reference" / "json.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ")
            found[heading] = {}
        row = re.match(r"\| `(\w+)` \| ([a-z ]+) \|", line)
        if row:
            found[heading][row[1]] = row[2].split(" or ")
    return found


DOCUMENTED = tables()
seen: dict[str, set[str]] = {}


def check(kind, value):
    """Hold an object against its table; extra fields are errors."""
    fields = DOCUMENTED[kind]
    assert set(value) <= set(fields), f"{kind}: not documented: {set(value) - set(fields)}"
    for name, types in fields.items():
        if name not in value:
            assert "absent" in types, f"{kind}: {name} is missing"
            continue
        allowed = tuple(TYPES[t] for t in types if t != "absent")
        is_number = isinstance(value[name], bool) and "boolean" not in types and "any" not in types
        assert isinstance(value[name], allowed) and not is_number, f"{kind}.{name} is {value[name]!r}, not {types}"
        seen.setdefault(kind, set()).add(name)
    for name, inner in (("progress", "Progress"), ("reached", "Progress"), ("series", "Series"), ("checks", "Check")):
        for part in [value[name]] if isinstance(value.get(name), dict) else value.get(name) or ():
            check(inner, part)


def nothing_is_documented_that_was_not_seen(*kinds):
    for kind in kinds:
        assert set(DOCUMENTED[kind]) == seen[kind], kind


def series():
    """Return what a task stores of its numbers, with every field: items and percentages never stand together."""
    recorder, start = SeriesRecorder(), Timestamp.parse("2026-11-26T08:00:00Z")
    for number in range(2):
        at = Timestamp.of(start + timedelta(seconds=number))
        recorder.add(at, current=number, percent=number, metrics={"loss": 1 / (1 + number)})
    return recorder.series | {"percent": [0, 1]}


@pytest.fixture(scope="module")
def ready(seaweedfs):
    """A queue with tasks in every state, and with every field somewhere."""
    queue = connect_to(seaweedfs, bucket="oq-json-output", prefix="")
    store = queue.store
    tasks = {
        "large": queue.submit("t", "x" * 100_000, max_reschedules=3, ttl_seconds=3600),
        "cancelled": queue.cancel(queue.submit("t").id, "enough", by="somebody"),
        "running": queue.submit("t", {"a": 1}),
        "done": queue.submit("t"),
        "expired": queue.submit("t", ttl_seconds=1),
    }
    for name in ("running", "done"):
        task, lease_id = tasks[name], model.new_id()
        claimed = transitions.claim(
            task.record, store.clock.stamp(), lease_id=lease_id, worker_id="w", lease_seconds=3600
        )
        trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
        held = store.move(task.snapshot, claimed.evolve(trace=trace))
        progress = Progress(
            percent=45,
            current=450,
            total=1000,
            message="Processing file 450 of 1000",
            updated_at=Timestamp.of(queue.now()),
            rate=12.5,
            unit="files",
            unit_divisor=1000,
            metrics={"loss": 0.31, "accuracy": None},
            series=None if name == "running" else series(),
        )
        for _ in range(2 if name == "running" else 1):
            now = store.clock.stamp()
            held = store.move(held, transitions.report(held.record, now, lease_id=lease_id, progress=progress))
        if name == "done":
            value, ref = store.payloads.save(task.id, "output", "y" * 100_000)
            store.move(
                held,
                transitions.complete(held.record, store.clock.stamp(), lease_id=lease_id, output=value, output_ref=ref),
            )
    expired = tasks["expired"]
    later = Timestamp.of(expired.record.expires_at + timedelta(seconds=1))
    store.move(expired.snapshot, transitions.expire(expired.record, later))
    worker = model.WorkerRecord(
        worker_id="w",
        started_at=Timestamp.of(queue.now()),
        last_heartbeat=Timestamp.of(queue.now()),
        shards=["0"],
        current_tasks=[],
        task_types=["t"],
    )
    store.objects.put("workers/w.json", worker.to_bytes())
    return queue, {name: task.id for name, task in tasks.items()}


@pytest.fixture
def oq(ready, seaweedfs, monkeypatch, capsys):
    monkeypatch.setenv("S3_BUCKET", "oq-json-output")
    monkeypatch.setenv("S3_ENDPOINT", seaweedfs.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)

    def run(*arguments, code=0):
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--json"])
        out, err = capsys.readouterr()
        assert int(left.value.code or 0) == code, err
        assert out.isascii() and (code or not err)
        return [json.loads(line) for line in out.splitlines()]

    return run


def test_tasks(oq, ready):
    _, ids = ready
    [count] = oq("list", "--count")
    check("Count", count)
    nothing_is_documented_that_was_not_seen("Count")
    listed = oq("list")
    assert {task["id"] for task in listed} == set(ids.values())
    shown = [*listed, *oq("status", ids["running"]), *oq("history", ids["done"])]
    shown += oq("status", ids["done"], "--watch", "--interval", "0.1")
    (made,) = oq("submit", "t", '{"x": 1}')
    shown += [made, *oq("cancel", made["id"]), *oq("archive", made["id"])]
    shown += [*oq("replay", made["id"]), *oq("cancel", made["id"]), *oq("wait", made["id"], code=1)]
    for task in shown:
        check("Task", task)
    assert [version["status"] for version in oq("history", ids["done"])] == [
        "pending", "running", "running", "completed",
    ]  # fmt: skip
    nothing_is_documented_that_was_not_seen("Task", "Progress", "Series")
    assert oq("result", ids["done"]) == ["y" * 100_000]


def test_logs(oq, ready):
    queue, ids = ready
    body = b'{"line":0,"bytes":0}\n{"t":"2026-11-26T08:00:00.125Z","s":"err","m":"caf\xc3\xa9 \\u001b[1mbold"}\n'
    queue.store.logs.write(ids["done"], 1, 0, body)
    (line,) = oq("logs", ids["done"])
    check("Line of a log", line)
    nothing_is_documented_that_was_not_seen("Line of a log")
    assert line == {"time": "2026-11-26T08:00:00.125Z", "stream": "err", "text": "café \x1b[1mbold"}
    assert oq("logs", ids["done"], "--follow") == [line]


def test_failures(oq, ready):
    queue, _ = ready
    task, lease_id = queue.submit("t"), model.new_id()
    for change in (
        lambda r, now: transitions.claim(r, now, lease_id=lease_id, worker_id="w", lease_seconds=60),
        lambda r, now: transitions.fail(r, now, lease_id=lease_id, error="ValueError: no"),
    ):
        queue.store.update(task.id, change)
    (group,) = oq("failures")
    check("Failures", group)
    assert (group["error"], group["task_ids"]) == ("ValueError: no", [task.id])
    nothing_is_documented_that_was_not_seen("Failures")
    (again,) = oq("failures", "--retry", task.id)
    check("Task", again)
    queue.cancel(task.id)


def test_workers_survey_rules_and_pruning(oq):
    (worker,) = oq("workers")
    check("Worker", worker)
    (survey,) = oq("retention")
    check("Survey", survey)
    for part in ("current", "old", "tasks"):
        assert all(set(amount) == {"count", "size_bytes"} for amount in survey[part].values())
    (rule,) = oq("retention", "set", "--days", "30")
    check("Rule", rule)
    assert oq("retention")[0]["rule"] == rule
    (removal,) = oq("retention", "unset")
    check("Removal", removal)
    assert removal == {"removed": True}
    pruned = oq("retention", "prune", "--older-than", "0s", "--dry-run")
    for task in pruned:
        check("Pruned", task)
    nothing_is_documented_that_was_not_seen("Worker", "Survey", "Rule", "Removal", "Pruned")


def test_an_examination_and_a_policy(oq):
    (made,) = oq("doctor")
    check("Examination", made)
    assert made["is_fit"] is True
    nothing_is_documented_that_was_not_seen("Examination", "Check")
    (policy,) = oq("doctor", "--policy", "client")
    assert policy["Version"] == "2012-10-17" and policy["Statement"]


def test_the_embedded_store(oq):
    check("Embedded store", oq("local", "status", code=1)[0])
    (stopped,) = oq("local", "stop")
    check("Stop", stopped)
    assert stopped == {"stopped": False}


def test_the_demo_the_embedded_store_and_the_page(oq, monkeypatch, capsys, tmp_path):
    """The demo as a new user runs it, with nothing set up: its first line starts the embedded store."""
    for name in ("S3_BUCKET", "S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("OQ_LOCAL_DIR", str(tmp_path / "embedded"))
    try:
        with pytest.raises(SystemExit) as left:
            main(["demo", "--seconds", "2", "--json"])
        out, err = capsys.readouterr()
        assert (left.value.code or 0) == 0, err
        task = json.loads(out)
        check("Task", task)
        assert task["output"]["files"] > 100 and "Store ready" in err and "%" in err
        (status,) = oq("local", "status")
        check("Embedded store", status)
        assert status["is_running"] is True
        nothing_is_documented_that_was_not_seen("Embedded store")
        page = subprocess.Popen(
            [sys.executable, "-m", "oq_nb", "ui", "--json", "--no-browser"], stdout=subprocess.PIPE, text=True
        )
        check("Page", json.loads(page.stdout.readline()))
        page.send_signal(signal.SIGINT)
        rest, _ = page.communicate(timeout=30)
        assert (page.returncode, rest) == (130, "")
    finally:
        assert oq("local", "stop") == [{"stopped": True}]


JOB = """
import atexit, ctypes, os, subprocess, oq_nb
print("printed while it is imported")
atexit.register(print, "printed at the exit")

def make_worker(queue):
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)

    @worker.task("good")
    def good(_):
        print("printed by a handler")
        os.write(1, b"printed by C code\\n")
        ctypes.CDLL(None).printf(b"printed late by C code\\n")  # which keeps it until the exit
        subprocess.run(["echo", "printed by a child process"], check=True)
        return 1

    @worker.task("bad")
    def bad(_):
        raise ValueError("no \\x1b[2J")
    return worker
"""


def test_the_events_of_a_worker_and_a_tail(oq, ready, tmp_path):
    queue, _ = ready
    (tmp_path / "json_job.py").write_text(JOB)
    command = [sys.executable, "-m", "oq_nb", "worker", "json_job", "--metrics-port", "0", "--json"]
    tail = subprocess.Popen(
        [sys.executable, "-m", "oq_nb", "tail", "--type", "good", "--interval", "0.2", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "Ctrl-C ends this" in tail.stderr.readline()
    worker = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    lines = [worker.stdout.readline()]
    good, bad = queue.submit("good"), queue.submit("bad")
    lines += [worker.stdout.readline(), worker.stdout.readline()]
    for task in (good, bad):
        task.wait(30)
    worker.send_signal(signal.SIGINT)
    rest, printed = worker.communicate(timeout=60)
    assert worker.returncode == 130
    whats = ("while it is imported", "by a handler", "by C code", "by a child process", "at the exit", "late by C code")
    assert sorted(printed.splitlines()) == sorted(f"printed {what}" for what in whats)
    events = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    for event in events:
        check("Event", event)
    kinds = [event["event"] for event in events]
    assert kinds[0] == "started" and sorted(kinds[1:3]) == ["completed", "error"]
    assert kinds[3:] == ["stopping", "stopped"]
    queue.submit("good")
    ended = subprocess.run(
        [*command[:5], "--exit-when-idle", "0", "--json"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.returncode == 0
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    for event in events:
        check("Event", event)
    assert [event["event"] for event in events] == ["started", "completed", "stopping", "stopped"]
    assert events[2]["limit"] == "idle" and events[2]["left"]["ready"] >= 1  # of a type that it has no handler for
    check("Count", events[2]["left"])
    nothing_is_documented_that_was_not_seen("Event")
    changes = []
    while not changes or changes[-1]["status"] != "completed":
        changes.append(json.loads(tail.stdout.readline()))
        check("Task", changes[-1])
    assert {change["id"] for change in changes} == {good.id}
    tail.send_signal(signal.SIGINT)
    tail.communicate(timeout=30)
    assert tail.returncode == 130


REPLACING_JOB = """
import atexit, ctypes, os, sys, oq_nb
sys.stdout = open(1, "w", closefd=False)
atexit.register(print, "printed at the exit")
atexit.register(os.write, 1, b"written at the exit\\n")

@oq_nb.task
def replacing():
    print("printed by a handler")
    ctypes.CDLL(None).printf(b"printed late by C code\\n")
"""


@pytest.mark.parametrize("stdout_is", ["a file", "a pipe"])
def test_a_module_with_a_stdout_of_its_own_prints_nothing_between_the_events(oq, ready, tmp_path, stdout_is):
    queue, _ = ready
    (tmp_path / "replacing_job.py").write_text(REPLACING_JOB)
    queue.submit("replacing")
    command = [sys.executable, "-m", "oq_nb", "worker", "replacing_job.py", "--json", "--exit-when-idle", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with (tmp_path / "out.json").open("w+") as file:
        where = file if stdout_is == "a file" else subprocess.PIPE
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=where, stderr=subprocess.PIPE, text=True, timeout=60
        )
        file.seek(0)
        out = file.read() if ended.stdout is None else ended.stdout
    assert ended.returncode == 0, ended.stderr
    events = [json.loads(line)["event"] for line in out.splitlines()]
    assert events == ["started", "completed", "stopping", "stopped"]
    said = ["printed at the exit", "printed by a handler", "printed late by C code", "written at the exit"]
    assert sorted(ended.stderr.splitlines()) == said


def test_the_reference_is_what_the_help_texts_say():
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    assert reference.main(["--check"]) == 0, "run python docs/reference.py"
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    assert page.count("\n## oq ") == len(list(reference.commands(reference.app))) > 15
    for line in page.splitlines():  # no option without a name or an explanation
        assert not re.match(r"\| `\s*`|\| `[^`]+` \|\s*\|", line), line
