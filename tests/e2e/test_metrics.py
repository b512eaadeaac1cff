"""Metrics: what a Prometheus server makes of the text, and whether the counts are those of the store."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic
from servers import connect_to
from waiting import until

import oq_nb
from bench.proxy import Proxy
from oq_nb import metrics as metrics_module
from oq_nb import model
from oq_nb.cli import main
from oq_nb.errors import ConfigurationError, ConflictError
from oq_nb.metrics import COUNTED, OTHER, Metrics
from oq_nb.model import TaskStatus, transitions
from oq_nb.queue import Queue
from oq_nb.store import TaskStore


def families(text, parse=classic):
    return {family.name: family for family in parse(text)}


def labels_of(text):
    return {s.labels["task_type"] for family in classic(text) for s in family.samples if "task_type" in s.labels}


def claim(task, lease_seconds):
    """Claim a task as a worker does that dies right after."""
    store, lease_id = task.queue.store, model.new_id()
    changed = transitions.claim(
        task.record, store.clock.stamp(), lease_id=lease_id, worker_id="w", lease_seconds=lease_seconds
    )
    held = store.move(task.snapshot, changed)
    store.index.add(model.lease_key(held.record))
    return held


@pytest.fixture
def worker(queue):
    made = oq_nb.Worker(queue, max_poll_seconds=0.1)

    @made.task("steps")
    def steps(count, context):
        for number in range(count):
            context.report_progress(current=number, total=count)

    @made.task("fails")
    def fails(_):
        raise ValueError("no")

    @made.task("retries")
    def retries(_, context):
        if context.attempt == 1:
            raise oq_nb.RetryableError("again")

    @made.task("puts off")
    def puts_off(_, context):
        if context.attempt == 1:
            raise oq_nb.RescheduleError(0.05)

    made.go = threading.Event()

    @made.task("stops")
    def stops(_, context):
        context.report_progress(percent=1)
        assert made.go.wait(30)
        context.report_progress(percent=2)  # the request to stop has changed the task: a conflict
        context.raise_if_cancelled()

    return made


def test_what_happens_is_counted(queue, worker):
    metrics = Metrics(worker)
    soon = oq_nb.RetryPolicy(initial_interval_ms=20)
    with worker:
        tasks = [queue.submit("steps", 3), queue.submit("fails"), queue.submit("puts off")]
        tasks.append(queue.submit("retries", retry_policy=soon))
        stopped = queue.submit("stops")
        until(lambda: stopped.refresh().progress is not None)
        Queue(TaskStore(queue.store.objects)).cancel(stopped.id)  # as from elsewhere: its worker meets it at a write
        worker.go.set()
        for task in [*tasks, stopped]:
            task.wait(60)
        until(lambda: metrics.value("oq_tasks_completed_total", task_type="retries") == 1)
    wanted = {
        "steps": {"submitted": 1, "claimed": 1, "completed": 1},
        "fails": {"submitted": 1, "claimed": 1, "failed": 1},
        "retries": {"submitted": 1, "claimed": 2, "retried": 1, "completed": 1},
        "puts off": {"submitted": 1, "claimed": 2, "rescheduled": 1, "completed": 1},
        "stops": {"submitted": 1, "claimed": 1, "cancelled": 1},
    }
    counted = {
        task_type: {
            event: count
            for event, (name, _) in COUNTED.items()
            if event != "conflict" and (count := metrics.value(f"{name}_total", task_type=task_type))
        }
        for task_type in wanted
    }
    assert counted == wanted
    assert metrics.value("oq_progress_updates_total", task_type="steps") == 3
    assert metrics.value("oq_progress_update_latency_seconds_count", task_type="steps") == 3
    assert 0 < metrics.value("oq_progress_update_latency_seconds_sum", task_type="steps") < 60
    assert metrics.value("oq_conflicts_total", task_type="stops") == 1
    metrics.close()
    queue.submit("steps", 1)
    assert metrics.value("oq_tasks_submitted_total", task_type="steps") == 1  # closed: nothing is counted any more


def test_losses_recoveries_and_expiries_are_counted(fake_queue):
    queue, store = fake_queue, fake_queue.store
    other = oq_nb.Worker(queue, max_poll_seconds=0.1)
    other.task("t")(lambda _: None)
    metrics = Metrics(other)
    lost = queue.submit("t", timeout_seconds=1, max_retries=0)
    held = claim(lost, lease_seconds=0.01)
    late = queue.submit("t", ttl_seconds=0.05)
    until(lambda: queue.now() > late.record.expires_at + timedelta(seconds=1))
    with other:
        until(lambda: lost.refresh().is_done and late.refresh().is_done)
    assert (lost.status, late.status) == (TaskStatus.FAILED, TaskStatus.EXPIRED)
    assert metrics.value("oq_tasks_recovered_total", task_type="t") == 1
    assert metrics.value("oq_tasks_expired_total", task_type="t") == 1
    before = metrics.value("oq_conflicts_total", task_type="t")  # two threads may have gone for the lost one
    with pytest.raises(ConflictError):
        store.move(held, held.record.evolve(attempt=7))
    assert metrics.value("oq_conflicts_total", task_type="t") == before + 1
    metrics.close()


def test_a_lost_lease_is_counted_once(queue):
    worker = oq_nb.Worker(queue, max_poll_seconds=0.1)
    started, go = threading.Event(), threading.Event()

    @worker.task("t")
    def handle(_, context):
        started.set()
        go.wait(30)
        for _ in range(3):
            try:
                context.report_progress(percent=1)
            except oq_nb.LeaseExpiredError:
                pass
        raise RuntimeError("whatever")

    metrics = Metrics(worker)
    with worker:
        task = queue.submit("t")
        assert started.wait(30)
        queue.store.update(task.id, lambda record, now: record.evolve(lease_id=model.new_id(), updated_at=now))
        go.set()
        until(lambda: metrics.value("oq_lease_losses_total", task_type="t"))
    assert metrics.value("oq_lease_losses_total", task_type="t") == 1
    assert metrics.value("oq_tasks_failed_total", task_type="t") == 0
    metrics.close()


def test_both_formats_are_understood_by_prometheus(queue, worker):
    metrics = Metrics(worker)
    with worker:
        queue.submit("steps", 2).wait(60)
    names = {name.removesuffix("_total") for name, _ in COUNTED.values()}
    names |= {"oq_progress_updates", "oq_progress_update_latency_seconds", "oq_queue_depth", "oq_s3_requests"}
    text = metrics.text()
    assert {name for name in families(text) if not name.endswith("_created")} == names
    assert families(text)["oq_progress_update_latency_seconds"].type == "histogram"
    assert all(family.documentation for family in families(text).values())
    with metrics.serve() as url:
        for accepts, parse in (("text/plain", classic), ("application/openmetrics-text; version=1.0.0", openmetrics)):
            request = urllib.request.Request(url, headers={"Accept": accepts})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.headers["Content-Type"].startswith(accepts.split(";")[0])
                assert names <= set(families(answer.read().decode(), parse))
    promtool = shutil.which("promtool")
    if promtool is not None:  # the server's own tool, where it is installed
        done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
    metrics.close()


def test_requests_are_those_that_the_store_has_seen(seaweedfs):
    with Proxy(seaweedfs.endpoint) as proxy:
        queue = oq_nb.connect(
            "oq-tests",
            endpoint=proxy.endpoint,
            access_key=seaweedfs.access_key,
            secret_key=seaweedfs.secret_key,
            prefix=f"t-{uuid.uuid4().hex}/",
            create=True,
        )
        worker = oq_nb.Worker(queue, max_poll_seconds=0.1, concurrency=4)
        worker.task("steps")(lambda count, context: [context.report_progress(current=n) for n in range(count)])
        metrics = Metrics(worker)
        with worker:
            tasks = queue.submit_many("steps", [3] * 10)
            for task in tasks:
                task.wait(60)
            text = metrics.text()
        tasks[0].history()
        queue.list()
        requests = families(metrics.text())["oq_s3_requests"].samples
        counted = {sample.labels["kind"]: sample.value for sample in requests if sample.name.endswith("_total")}
        seen = {kind: count for kind, count in proxy.counts().items() if not kind.startswith("bytes")}
        assert counted == seen and seen["PUT"] > 50
        assert families(text)["oq_queue_depth"].samples  # its own listing is among them
        updates = metrics.value("oq_progress_updates_total", task_type="steps")
        assert updates == 30
        metrics.close()
        queue.store.objects.close()


def test_label_values_are_bounded(fake_queue):
    metrics = Metrics(fake_queue, ["mine"])
    for number in range(50):
        fake_queue.submit(f"stranger-{number}")
    fake_queue.submit("mine")
    assert labels_of(metrics.text()) == {"mine", OTHER}
    assert metrics.value("oq_tasks_submitted_total", task_type=OTHER) == 50
    metrics.close()


def test_depth_tells_ready_scheduled_and_running_apart(fake_queue):
    fake_queue.submit_many("t", range(3))
    fake_queue.submit("t", schedule_at=fake_queue.now() + timedelta(hours=1))
    running = fake_queue.submit("t")
    store = fake_queue.store
    held = store.move(
        running.snapshot,
        transitions.claim(
            running.record, store.clock.stamp(), lease_id=model.new_id(), worker_id="w", lease_seconds=60
        ),
    )
    store.index.add(model.lease_key(held.record))
    for entry in store.index.find(model.ready_key(running.record)):
        store.index.remove(entry)
    metrics = Metrics(fake_queue)
    before = store.objects.requests["LIST"]
    depth = {state: metrics.value("oq_queue_depth", state=state) for state in ("ready", "scheduled", "running")}
    assert depth == {"ready": 3, "scheduled": 1, "running": 1}
    assert store.objects.requests["LIST"] == before + 2  # read three times, listed once
    metrics.close()


def test_a_store_that_does_not_answer_leaves_the_other_metrics(fake_queue, fake_store):
    metrics = Metrics(fake_queue, ["t"])
    fake_queue.submit("t")

    def fault(kind, key, when):
        raise oq_nb.StorageUnavailableError("away")

    fake_store.fault = fault
    found = families(metrics.text())
    assert found["oq_queue_depth"].samples == []
    assert metrics.value("oq_tasks_submitted_total", task_type="t") == 1
    metrics.close()


def test_metrics_can_be_put_into_a_registry_of_the_user(fake_queue):
    registry = CollectorRegistry()
    metrics = Metrics(fake_queue, ["t"], registry=registry)
    fake_queue.submit("t")
    assert registry.get_sample_value("oq_tasks_submitted_total", {"task_type": "t"}) == 1
    metrics.close()


def test_a_port_that_is_taken_is_said_in_one_line(fake_queue):
    metrics = Metrics(fake_queue)
    with metrics.serve() as url:
        port = int(url.rsplit(":", 1)[1].split("/")[0])
        with pytest.raises(ConfigurationError, match=f"port {port} of 127.0.0.1 cannot be had"), metrics.serve(port):
            pass
    metrics.close()


def test_nothing_is_loaded_and_nobody_listens_before_they_are_asked_for(fake_queue):
    assert fake_queue.store.listeners == ()
    code = "import sys, oq_nb, oq_nb.worker, oq_nb.cli; print('prometheus_client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


JOB = """
import oq_nb

def make_worker(queue):
    worker = oq_nb.Worker(queue, "metered", max_poll_seconds=0.2)

    @worker.task("steps")
    def steps(count, context):
        for number in range(count):
            context.report_progress(current=number + 1, total=count, message=f"step {number}")
    return worker
"""


def test_a_worker_process_serves_them(seaweedfs, tmp_path):
    queue = connect_to(seaweedfs)
    (tmp_path / "metered_job.py").write_text(JOB)
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
    }
    place = ["--bucket", "oq-tests", "--endpoint", seaweedfs.endpoint, "--prefix", queue.store.objects.prefix]
    command = [sys.executable, "-m", "oq_nb", "worker", "metered_job", "--metrics-port", "0", "--json", *place]
    process = subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        started = json.loads(process.stdout.readline())
        assert (started["event"], started["task_types"]) == ("started", ["steps"])
        tasks = queue.submit_many("steps", [4, 4])
        for task in tasks:
            task.wait(60)
        ended = [json.loads(process.stdout.readline()) for _ in tasks]
        assert {line["task_id"] for line in ended} == {task.id for task in tasks}
        with urllib.request.urlopen(started["metrics"], timeout=10) as answer:
            text = answer.read().decode()
        found = {sample.name: sample.value for family in classic(text) for sample in family.samples if sample.labels}
        assert found["oq_tasks_claimed_total"] == found["oq_tasks_completed_total"] == 2
        assert found["oq_progress_updates_total"] == 8
        assert labels_of(text) == {"steps"}
        process.send_signal(signal.SIGTERM)
        rest, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    last = json.loads(rest.splitlines()[-1])
    assert (last["event"], last["completed"], last["failed"]) == ("stopped", 2, 0)
    assert (process.returncode, err) == (0, "")


def test_a_worker_whose_port_is_taken_does_not_start(fake_queue, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("oq_nb.queue.connection.connect", lambda *_, **__: fake_queue)
    (tmp_path / "other_job.py").write_text(JOB)
    with Metrics(fake_queue).serve() as url:
        port = url.rsplit(":", 1)[1].split("/")[0]
        with pytest.raises(SystemExit) as left:
            main(["worker", str(tmp_path / "other_job.py"), "--metrics-port", port])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "") and "cannot be had" in err and err.count("\n") == 1


def test_all_metrics_are_documented():
    page = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    for name, text in COUNTED.values():
        assert f"| `{name}_total{{task_type}}` | counter | {text[0].lower()}{text[1:].rstrip('.')} |" in page
    for name in re.findall(r"`(oq_\w+)\{", page):
        source = (Path(metrics_module.__file__)).read_text(encoding="utf-8")
        assert f'"{name.removesuffix("_total")}"' in source, name
