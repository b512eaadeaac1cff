"""A process that is forked while locks are held: it uses its queue, and leaves its parent's tasks alone."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, threading, time
import oq_nb
from oq_nb.queue import Queue
from oq_nb.store import TaskStore
from oq_nb.testing import FakeStore

queue = Queue(TaskStore(FakeStore()))
worker = oq_nb.Worker(queue, "w1", concurrency=2, max_poll_seconds=0.1)
forked, seen = threading.Event(), []

def child(context):
    assert not worker.is_running
    assert worker.current_tasks == []
    task = queue.submit("double", 4)  # wakes no worker of the parent's
    for percent in (50, 60):
        context.report_progress(percent=percent)
    worker.stop()
    worker.start()
    assert task.result(20) == 8
    worker.stop()

@worker.task("double")
def double(value):
    return value * 2

@worker.task("fork")
def fork(value, context):
    context.report_progress(percent=1)
    session = worker._session
    lease = session.runner.leases[0]
    locks = [session.backlog._changed, session._scheduler._changed, session._index_scheduler._changed, lease._changed,
             lease._io, getattr(worker, "_lock", threading.Lock()), queue.watcher._lock]
    held, release = threading.Event(), threading.Event()

    def hold():
        for lock in locks:
            lock.acquire()
        held.set()
        release.wait()
        for lock in locks:
            lock.release()

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    pid = os.fork()
    if pid == 0:
        try:
            child(context)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    release.set()
    holder.join()
    deadline = time.monotonic() + 30
    while not (found := os.waitpid(pid, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            return "the child hangs"
        time.sleep(0.02)
    context.report_progress(percent=2)
    return os.waitstatus_to_exitcode(found[1])

with worker:
    task = queue.submit("fork")
    print(task.result(60), task.attempt, [r.progress.percent for r in task.history() if r.progress])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_locks_of_its_own():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout) == (0, "0 1 [1, 2]\n"), done.stderr
    assert done.stderr.count("a forked process reports is not written") == 1
