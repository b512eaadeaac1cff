"""Programs that end while their worker is in the middle of a task: at their own end, by Ctrl-C, by SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from servers import connect_to

import oq_nb
from oq_nb import local

PROGRAM = """
import sys, threading, time
import oq_nb

queue = oq_nb.connect(prefix=sys.argv[1])
worker = oq_nb.Worker(queue, "leaving", max_poll_seconds=0.5)
begun = threading.Event()

@worker.task("long")
def long(value, context):
    for step in range(600):
        context.report_progress(current=step, total=600)
        begun.set()
        time.sleep(0.1)
"""


@pytest.fixture
def environment(seaweedfs) -> dict[str, str]:
    """What tells a program of the bucket."""
    return os.environ | {
        "S3_BUCKET": "oq-tests",
        "S3_ENDPOINT": seaweedfs.endpoint,
        "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
        "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
    }


@pytest.mark.parametrize("code", [0, 3])
def test_a_task_is_handed_back_at_the_programs_end(seaweedfs, environment, tmp_path, code):
    queue = connect_to(seaweedfs)
    task = queue.submit("long", timeout_seconds=60)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + f"worker.start()\nbegun.wait(60)\nsys.exit({code})\n")
    done = subprocess.run(
        [sys.executable, str(program), queue.store.objects.prefix],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    task.refresh()
    assert (task.status.value, task.attempt, task.record.retry_count) == ("pending", 1, 0)
    assert queue.workers() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_run_ends_with_a_signal_after_the_running_task(seaweedfs, environment, tmp_path, number):
    """The running task may finish; nothing more is claimed."""
    queue = connect_to(seaweedfs)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("range(600)", "range(20)") + "worker.run()\nprint('left')\n")
    first, second = queue.submit("long"), None
    process = subprocess.Popen(
        [sys.executable, str(program), queue.store.objects.prefix], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (first.refresh().progress and first.progress.current):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        second = queue.submit("long")
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (0, "left\n")
    assert first.refresh().status.value == "completed"
    assert second.refresh().status.value == "pending"


FORKS = """
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

elsewhere = oq_nb.Worker(queue, "elsewhere", executor=ThreadPoolExecutor(1), max_poll_seconds=0.5)
elsewhere.task("one")(lambda value: 1)
with elsewhere:
    queue.submit("one").result(60)  # from now on workers are stopped where forks come by, too

@worker.task("fork")
def fork(value):
    child = multiprocessing.get_context("fork").Process(target=int)
    child.start()
    child.join(30)
    return child.exitcode

with worker:
    task = queue.submit("fork")
    print(task.result(60), task.attempt)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_process_that_a_handler_has_forked_hands_nothing_back_at_its_end(seaweedfs, environment, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + FORKS)
    done = subprocess.run(
        [sys.executable, str(program), connect_to(seaweedfs).store.objects.prefix],
        env=environment,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "0 1\n"), done.stderr


HANGING = """
worker.start()
begun.wait(60)
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped")
def test_a_program_ends_soon_while_the_store_hangs(tmp_path, monkeypatch):
    """The store takes connections and does not answer: handing back is given up in time for Jupyter's five seconds."""
    monkeypatch.setenv("OQ_LOCAL_KIND", "seaweedfs")
    store = local.start(data_dir=tmp_path / "store")
    environment = os.environ | {
        "S3_BUCKET": store.bucket,
        "S3_ENDPOINT": store.endpoint,
        "AWS_ACCESS_KEY_ID": store.access_key,
        "AWS_SECRET_ACCESS_KEY": store.secret_key,
    }
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + HANGING)
    queue = oq_nb.connect(
        store.bucket,
        endpoint=store.endpoint,
        access_key=store.access_key,
        secret_key=store.secret_key,
        prefix="p/",
        create=True,
    )
    queue.submit("long", timeout_seconds=60)
    process = subprocess.Popen(
        [sys.executable, str(program), "p/"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        os.kill(store.pid, signal.SIGSTOP)
        began = time.monotonic()
        _, err = process.communicate("\n", timeout=25)  # time-outs and tries of one request alone take thirty
        took = time.monotonic() - began
    finally:
        process.kill()
        os.kill(store.pid, signal.SIGCONT)
        local.stop(data_dir=tmp_path / "store")
    assert process.returncode == 0, err
    assert "Traceback" not in err
    print(f"{took:.1f} s")
