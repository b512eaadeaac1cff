"""A task that kills its worker process again and again ends as failed; the others complete. Real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from servers import connect_to

from oq_nb.model import RetryPolicy


def test_a_task_that_kills_its_worker_ends_as_failed(seaweedfs, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    monkeypatch.setenv("S3_ENDPOINT", seaweedfs.endpoint)
    queue = connect_to(seaweedfs)
    at_once = RetryPolicy(initial_interval_ms=0, max_interval_ms=0)
    poison = queue.submit("poison", timeout_seconds=1, max_retries=2, retry_policy=at_once)
    plain = [
        queue.submit("plain", number, timeout_seconds=1, max_retries=5, retry_policy=at_once) for number in range(6)
    ]
    command = [sys.executable, str(Path(__file__).with_name("poison_worker.py"))]
    command += [queue.store.objects.bucket, queue.store.objects.prefix]
    processes: list[subprocess.Popen[bytes]] = []
    ends: list[int] = []
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            for process in processes.copy():
                if process.poll() is not None:
                    ends.append(process.returncode)
                    processes.remove(process)
            if poison.refresh().status == "failed" and all(task.refresh().status == "completed" for task in plain):
                break
            while len(processes) < 2:  # what a supervisor does
                processes.append(subprocess.Popen(command))
            time.sleep(0.2)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)
    assert poison.status == "failed"
    assert (poison.attempt, poison.record.retry_count) == (3, 2)
    assert "Timeout" in poison.record.last_error
    assert ends.count(-signal.SIGKILL) == 3, "one worker for each attempt"
    assert [task.result(timeout=60) for task in plain] == [number + 1 for number in range(6)]
    statuses = [record.status.value for record in queue.get_history(poison.id)]
    assert statuses == ["pending", "running", "pending", "running", "pending", "running", "failed"]
