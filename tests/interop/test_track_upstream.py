"""Loops that are tasks of their own, seen by upstream: read, cancelled, never claimed, never run again."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time

import pytest
from waiting import until

import oq_nb

pytest.importorskip("buquet", reason="upstream (buquet) has no wheel for this Python or platform")

DIES = """
import os, sys, time, oq_nb
queue = oq_nb.connect()
bar = oq_nb.track(range(1000), "dies", queue=queue, min_seconds=0, throttle_seconds=0.2, lease_seconds=5)
print(bar.task.id, flush=True)
for i in bar:
    time.sleep(0.05)
"""


def test_their_worker_leaves_a_loop_alone_and_their_monitor_fails_it_once_it_is_dead(ours, theirs):
    runs = []

    async def handle(given):
        runs.append(given)

    process = subprocess.Popen([sys.executable, "-c", DIES], env=os.environ, stdout=subprocess.PIPE, text=True)
    try:
        task = ours.get(process.stdout.readline().strip())
        with theirs.worker({"track:dies": handle}, with_monitor=True, monitor_check_interval_s=1):
            until(lambda: task.refresh().progress.current > 20)  # a second and more of their polls
            assert theirs.status(task.id) == "running"
            process.kill()
            task.wait(60)
            time.sleep(1)
    finally:
        process.kill()
        process.communicate()
    assert str(task.refresh().status) == theirs.status(task.id) == "failed"
    assert (task.attempt, runs) == (1, [])
    assert task.record.last_error.startswith("Timeout")


def test_they_read_a_loop_and_ask_it_to_stop(ours, theirs):
    bar = oq_nb.track(range(100_000), "long", queue=ours, min_seconds=0, throttle_seconds=0.1, file=io.StringIO())
    with pytest.raises(oq_nb.TaskCancelledError):
        for i in bar:
            if i == 5:
                seen = theirs.get(bar.task.id).to_dict()
                assert (seen["status"], seen["max_retries"], seen["task_type"]) == ("running", 0, "track:long")
                theirs.insist("request_cancellation", bar.task.id)
            time.sleep(0.005)
    assert bar._sink.wait(60)
    assert theirs.status(bar.task.id) == "cancelled"
