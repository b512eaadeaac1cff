"""``oq worker`` with handlers in processes, as a service runs it: signals, and an executor that breaks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from waiting import until

from oq_nb.model import TaskStatus

JOBS = """
import concurrent.futures, multiprocessing, os, signal, time
import oq_nb

def slow(seconds, context):
    for _ in oq_nb.track(range(int(seconds * 20)), min_seconds=0, throttle_seconds=0.2):
        time.sleep(0.05)
    return os.getpid()

def die(value):
    os.kill(os.getpid(), signal.SIGKILL)

def make_worker(queue):
    worker = oq_nb.Worker(queue, executor="processes", max_poll_seconds=0.2)
    worker.task("slow")(slow)
    return worker

def fragile(queue):
    pool = concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
    worker = oq_nb.Worker(queue, executor=pool, max_poll_seconds=0.2)
    worker.task("die")(die)
    return worker
"""


@pytest.fixture
def serve(queue, seaweedfs, tmp_path):
    """Start ``oq worker`` in a terminal of its own, as far as signals go."""
    (tmp_path / "jobs.py").write_text(JOBS)
    started = []

    def start(name):
        environment = os.environ | {
            "S3_BUCKET": queue.store.objects.bucket,
            "S3_ENDPOINT": seaweedfs.endpoint,
            "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
            "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
        }
        command = [sys.executable, "-m", "oq_nb", "worker", f"jobs:{name}", "--prefix", queue.store.objects.prefix]
        done = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            stdout=-1,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(done)
        return done

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_ctrl_c_lets_the_running_task_finish(queue, serve):
    service = serve("make_worker")
    task = queue.submit("slow", 3)
    until(lambda: task.refresh().progress)
    os.killpg(service.pid, signal.SIGINT)  # what a terminal does: the handler's process gets it, too
    said, _ = service.communicate(timeout=60)
    assert service.returncode == 130, said
    assert (task.refresh().status, task.record.attempt) == (TaskStatus.COMPLETED, 1)
    assert "Traceback" not in said
    assert "waiting up to 30 s for 1 running" in said


def test_a_broken_executor_ends_the_service_with_an_error(queue, serve):
    service = serve("fragile")
    task = queue.submit("die", max_retries=5)
    said, _ = service.communicate(timeout=90)
    assert service.returncode == 1, said
    assert "executor: it runs nothing any more (BrokenProcessPool" in said
    assert task.refresh().status is TaskStatus.PENDING
    assert task.record.last_error.startswith("LostProcess: ")
