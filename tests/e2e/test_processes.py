"""Worker processes, a store and a kernel that die, stop or are cut off in the middle of a task."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from servers import connect_to
from waiting import until

import oq_nb
from oq_nb import local

HERE = Path(__file__).resolve().parent
SOON = oq_nb.RetryPolicy(initial_interval_ms=100, max_interval_ms=200, multiplier=1.0, jitter_percent=0.0)


@pytest.fixture
def workers(tmp_path):
    """Starts worker processes on a bucket of their own; ends those that are left. Their logs are in `tmp_path`."""
    started: list[subprocess.Popen[bytes]] = []

    def start(server: local.LocalStore, bucket: str, *options: str) -> subprocess.Popen[bytes]:
        environment = os.environ | {
            "S3_BUCKET": bucket,
            "S3_ENDPOINT": server.endpoint,
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }
        with open(tmp_path / f"worker-{len(started) + 1}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(HERE / "job.py"), *options], env=environment, stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)


@pytest.fixture
def bucket(seaweedfs, request):
    """A bucket of the test's own: a worker process is told of a bucket by its environment, which knows no prefix."""
    name = f"e2e-{abs(hash((request.node.name, time.time()))):x}"[:40]
    connect_to(seaweedfs, bucket=name, prefix="")
    return name


def statuses(task) -> list[str]:
    """Return the task's history without reports and renewals."""
    names: list[str] = []
    for record in task.history():
        name = f"{record.status} {record.attempt}"
        if not names or names[-1] != name:
            names.append(name)
    return names


def diary_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


# --- worker processes


def test_a_killed_workers_task_is_completed_by_another(seaweedfs, bucket, workers, tmp_path):
    queue = connect_to(seaweedfs, bucket=bucket, prefix="")
    first = workers(seaweedfs, bucket)
    job = {"steps": 20, "seconds": 0.2, "diary": str(tmp_path / "diary")}
    task = queue.submit("steps", job, timeout_seconds=2, retry_policy=SOON)
    until(lambda: task.refresh().progress and task.progress.current >= 2)
    killed = task.worker_id
    workers(seaweedfs, bucket)
    first.send_signal(signal.SIGKILL)
    output = task.result(timeout=60)
    assert output["attempt"] == task.attempt == 2
    assert output["worker"] != killed
    assert statuses(task) == ["pending 0", "running 1", "pending 1", "running 2", "completed 2"]
    lost = next(record for record in task.history() if str(record.status) == "pending" and record.attempt == 1)
    assert lost.last_error.startswith(f"Timeout - lease of worker {killed} expired")
    assert lost.progress is None
    claims = [r for r in task.history() if str(r.status) == "running" and r.progress is None]
    assert [record.attempt for record in claims] == [1, 2]


@pytest.mark.parametrize(
    ("lease_seconds", "run_seconds"), [(2, 8), pytest.param(6, 30, marks=pytest.mark.slow)], ids=["2s-8s", "6s-30s"]
)
def test_a_lease_is_renewed_while_its_job_runs(seaweedfs, bucket, workers, tmp_path, lease_seconds, run_seconds):
    """A job far longer than its lease completes on its first attempt, with a second worker that waits for its end."""
    queue = connect_to(seaweedfs, bucket=bucket, prefix="")
    workers(seaweedfs, bucket)
    workers(seaweedfs, bucket)
    job = {"steps": 1, "seconds": run_seconds, "diary": str(tmp_path / "diary")}
    task = queue.submit("steps", job, timeout_seconds=lease_seconds)
    assert task.result(timeout=run_seconds + 60)["attempt"] == 1
    assert statuses(task) == ["pending 0", "running 1", "completed 1"]
    ends = [record.lease_expires_at for record in task.history() if record.lease_expires_at]
    assert ends == sorted(ends)
    assert (ends[-1] - ends[0]).total_seconds() > run_seconds - lease_seconds - 2


def test_without_renewal_a_long_job_is_taken_over(seaweedfs, bucket, workers, tmp_path):
    queue = connect_to(seaweedfs, bucket=bucket, prefix="")
    workers(seaweedfs, bucket, "--no-renew")
    renewing = workers(seaweedfs, bucket)
    until(lambda: len(queue.workers()) == 2)
    renewing.send_signal(signal.SIGSTOP)  # until the other one has the task
    diary = tmp_path / "diary"
    job = {"steps": 12, "seconds": 0.5, "diary": str(diary), "quiet": True}
    task = queue.submit("steps", job, timeout_seconds=3, retry_policy=SOON)
    until(lambda: task.refresh().status == "running")
    first = task.worker_id
    renewing.send_signal(signal.SIGCONT)
    assert task.result(timeout=60)["attempt"] == 2
    assert task.output["worker"] != first
    assert statuses(task) == ["pending 0", "running 1", "pending 1", "running 2", "completed 2"]
    until(lambda: "attempt 1 LeaseExpiredError" in diary_of(diary))
    assert "attempt 1 step 12" not in diary_of(diary)
    assert "attempt 2 step 12" in diary_of(diary)
    log = tmp_path / "worker-1.log"
    until(lambda: f"the result of task {task.id} is thrown away" in log.read_text())


# --- the store


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_the_store_goes_away_while_a_job_reports(tmp_path, workers, how):
    """The handler goes on, one warning is logged; when the store is back, progress goes on and the task completes."""
    directory = tmp_path / "store"
    server = local.start(data_dir=directory)
    try:
        queue = connect_to(server, bucket="outage", prefix="")
        workers(server, "outage")
        diary, log = tmp_path / "diary", tmp_path / "worker-1.log"
        enough = tmp_path / "enough"
        job = {"steps": 1000, "seconds": 0.1, "diary": str(diary), "enough": str(enough)}
        task = queue.submit("steps", job, timeout_seconds=60)
        until(lambda: task.refresh().progress and task.progress.current >= 3)
        os.kill(server.pid, signal.SIGSTOP if how == "stopped" else signal.SIGKILL)
        at_outage = len(diary_of(diary))
        # One report may wait for its answer, up to 5 s; after it none does.
        until(lambda: len(diary_of(diary)) >= at_outage + 15)
        until(lambda: "cannot be written now" in log.read_text())
        if how == "stopped":
            os.kill(server.pid, signal.SIGCONT)
        else:
            server = local.start(data_dir=directory)
        at_return = len(diary_of(diary))
        until(lambda: task.refresh().progress and task.progress.current > at_return)
        enough.touch()
        assert task.result(timeout=60)["attempt"] == 1
        warnings = [line for line in log.read_text().splitlines() if line.startswith(("WARNING", "ERROR"))]
        assert len(warnings) == 2, warnings
        assert "cannot be written now" in warnings[0]
        assert warnings[1].endswith("progress is written again")
        reported = [record.progress.current for record in task.history() if record.progress]
        assert reported == sorted(reported)
        assert statuses(task) == ["pending 0", "running 1", "completed 1"]
    finally:
        local.stop(data_dir=directory)


# --- what stays in the bucket


@pytest.mark.parametrize("passing", [150, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.timeout(600)
def test_nothing_piles_up(queue, passing):
    """After many tasks a look at the empty index asks as much and finds as little as the first one."""
    objects = queue.store.objects

    def cost_of_a_look() -> tuple[Counter[str], list[int]]:
        before = Counter(objects.requests)
        found = [len(queue.store.index.scan(prefix)) for prefix in ("ready/", "leases/")]
        after = objects.requests - before
        listed = [len(list(objects.versions(prefix))) for prefix in ("ready/", "leases/")]
        return after, found + listed

    worker = oq_nb.Worker(queue, concurrency=8, max_poll_seconds=0.5)

    @worker.task("pass")
    def handle(n, context):
        if n % 10 == 0:
            context.report_progress(current=n)
        if n % 50 == 0 and context.attempt == 1:
            raise oq_nb.RetryableError("once more")
        return n

    at_first = cost_of_a_look()
    assert at_first == (Counter(LIST=2), [0, 0, 0, 0])
    with worker:
        for start in range(0, passing, 500):
            inputs = range(start, min(passing, start + 500))
            tasks = queue.submit_many("pass", inputs, retry_policy=SOON)
            assert [task.result(120) for task in tasks] == list(inputs)
        until(lambda: cost_of_a_look() == at_first)  # entries are removed beside the handlers
        assert len([e for e in objects.versions("workers/") if e.is_delete_marker]) == 0
        assert len(list(objects.versions("workers/"))) <= 2  # the newest, and one that is being replaced
    assert cost_of_a_look() == at_first
    assert [e.key for prefix in ("ready/", "leases/", "workers/") for e in objects.versions(prefix)] == []
    assert Counter(str(task.status) for task in queue.list(limit=None)) == {"completed": passing}
