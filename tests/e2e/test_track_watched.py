"""A loop in one process, looked at, cancelled, interrupted and killed from others; the store slow, and gone."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from waiting import until

import oq_nb
from bench.proxy import Proxy

HERE = Path(__file__).resolve().parent
OQ = [sys.executable, "-m", "oq_nb"]
LINE = re.compile(
    r"running, (?P<percent>\d+)% \((?P<current>\d+)/\d+\), (?P<rate>\S+) it/s, (?P<left>\d+) seconds? left"
)


@pytest.fixture
def start(place, tmp_path):
    """Starts ``looping.py``; returns the process and the handle on its task. Ends what is left."""
    queue, environment = place
    started = []

    def run(*arguments, **more):
        process = subprocess.Popen(
            [sys.executable, str(HERE / "looping.py"), str(tmp_path / "frames"), *map(str, arguments)],
            env=environment | more,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process, queue.get(process.stdout.readline().strip())

    yield run
    for process in started:
        process.kill()
        process.communicate()


def watching(environment, task, *options):
    return subprocess.Popen(
        [*OQ, "status", task.id, "--watch", "--interval", "0.1", *options],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    )


def frames_of(path):
    """Return what the local bar has shown at each position: percent, rate, seconds left."""
    shown = {}
    for frame in path.read_text().replace("\n", "\r").split("\r"):
        parts = frame.strip().split("|")
        if len(parts) == 4 and parts[2] != "None":
            shown.setdefault(int(parts[0]), []).append(tuple(map(float, parts[1:])))
    return shown


def test_who_watches_sees_what_the_local_bar_shows(place, start, tmp_path):
    _, environment = place
    total = 500
    process, task = start(total, 0.1)
    watch = watching(environment, task)
    seen = []
    while len(seen) < 10:  # the loop is far longer than that takes
        line = watch.stdout.readline()
        assert line, "the watcher has ended"
        if found := LINE.search(line):
            seen.append(found)
    process.send_signal(signal.SIGINT)
    last = watch.stdout.read().splitlines()[-1]
    assert (watch.wait(20), process.wait(20) != 0) == (1, True)
    assert "track:steps cancelled" in last
    watch.stdout.close()
    frames = frames_of(tmp_path / "frames")
    positions = [int(found["current"]) for found in seen]
    assert len(set(positions)) >= 8 and positions == sorted(positions)
    for found in seen:
        position = int(found["current"])
        if position < 2:  # the first rate is a mean over next to nothing
            continue
        # The value is read between two drawings: it is one of those, or between them.
        near = [frame for n in (position - 1, position, position + 1) for frame in frames.get(n, [])]
        assert near, f"the bar never showed {position}"
        assert int(found["percent"]) == position * 100 // total
        rates, lefts = [frame[1] for frame in near], [frame[2] for frame in near]
        assert min(rates) * 0.99 <= float(found["rate"]) <= max(rates) * 1.01, (found[0], near)
        assert int(min(lefts)) <= int(found["left"]) <= int(max(lefts)), (found[0], near)


def test_a_killed_loop_is_said_to_be_dead_within_one_lease_and_never_runs_again(place, start):
    queue, environment = place
    lease = 5
    process, task = start(1000, 0.05, lease)
    watch = watching(environment, task)
    until(lambda: getattr(task.refresh().progress, "current", 0) >= 5)
    process.kill()
    killed_at = queue.now()
    process.wait()
    said = next(line for line in watch.stdout if "lease ran out" in line)
    last = task.refresh().progress  # a whole lease after the last that the process can have written
    assert f"running (lease ran out), {last.percent}% ({last.current}/1000)" in said
    # The watcher's clock is the store's, whose answers have whole seconds.
    assert task.record.lease_expires_at <= killed_at + timedelta(seconds=lease + 2)

    status = subprocess.run([*OQ, "status", task.id], env=environment, capture_output=True, text=True, timeout=60)
    assert "Note: Its lease ran out" in status.stdout and f"({last.current}/1000)" in status.stdout
    # A worker that even has a handler for it does not run it, and says that it has failed.
    runs = []
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)
    worker.task("track:steps")(lambda given: runs.append(given))
    with worker:
        assert watch.wait(30) == 1
        until(lambda: task.refresh().is_done)
        time.sleep(0.5)
    watch.stdout.close()
    assert (str(task.status), task.attempt, runs) == ("failed", 1, [])
    assert task.record.last_error.startswith("Timeout")
    assert [entry.key for entry in queue.store.objects.versions("leases/")] == []
    assert [entry.key for entry in queue.store.objects.versions("ready/")] == []
    # Its last progress is in its history.
    assert [record.progress for record in task.history() if record.progress][-1].current == last.current


def test_a_loop_that_was_asked_to_stop_raises_at_its_next_item(place, start):
    _, environment = place
    process, task = start(10_000, 0.02)
    subprocess.run([*OQ, "cancel", task.id], env=environment, check=True, capture_output=True, timeout=60)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "TaskCancelledError" in errors and task.id in errors
    assert str(task.refresh().status) == "cancelled"


def test_ctrl_c_cancels_the_task(start):
    process, task = start(10_000, 0.02)
    until(lambda: getattr(task.refresh().progress, "current", 0) > 2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert str(task.refresh().status) == "cancelled"


def test_an_exception_fails_the_task_with_its_traceback(start):
    process, task = start(100, 0.01, 60, 30)
    _, errors = process.communicate(timeout=30)
    assert "ValueError: at 30" in errors
    assert str(task.refresh().status) == "failed"
    assert task.record.last_error.startswith("ValueError: at 30")
    assert "looping.py" in task.record.last_error


@pytest.mark.parametrize("state", ["slow", "gone"])
def test_the_store_holds_up_neither_the_loop_nor_the_end_of_the_program(seaweedfs, place, start, state):
    """An answer that takes half a second, or none at all until the program has ended."""
    items = 300
    with Proxy(seaweedfs.endpoint) as proxy:
        process, _ = start(items, 0.01, S3_ENDPOINT=proxy.endpoint)
        proxy.set(delay_seconds=0.5 if state == "slow" else 0.0, answers=state != "gone")
        before = requests_in(proxy)
        assert next(line for line in process.stdout if line.startswith("over"))
        over = requests_in(proxy)
        _, errors = process.communicate()  # one that waits for the answers would not end
        ended = requests_in(proxy)
        proxy.set(delay_seconds=0.0, answers=True)
    assert process.returncode == 0, errors
    assert over - before < items / 4, "the loop did not wait for an answer at each item"
    assert ended - over <= 2, "nor did the program for more than its last write"


def requests_in(proxy) -> int:
    return sum(number for method, number in proxy.counts().items() if method.isupper())
