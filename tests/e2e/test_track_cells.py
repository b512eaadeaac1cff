"""Loops in the cells of a notebook: interrupted, failing, awaiting, nested; what their tasks say afterwards."""

from __future__ import annotations

import uuid

import pytest
from kernels import Kernel
from servers import connect_to
from waiting import until


@pytest.fixture(scope="module")
def place(seaweedfs, tmp_path_factory):
    """A bucket, and a kernel whose environment leads to it."""
    bucket = f"oq-cells-{uuid.uuid4().hex[:12]}"
    queue = connect_to(seaweedfs, bucket=bucket, prefix="")
    made = Kernel(
        {
            "S3_BUCKET": bucket,
            "S3_ENDPOINT": seaweedfs.endpoint,
            "AWS_ACCESS_KEY_ID": seaweedfs.access_key,
            "AWS_SECRET_ACCESS_KEY": seaweedfs.secret_key,
            "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython")),
        }
    )
    made.run("import asyncio, time, oq_nb\noptions = dict(min_seconds=0, throttle_seconds=0.2)")
    yield made, queue
    made.close()


def the_task(queue, name):
    """Return the task of a loop, once it is over."""

    def find():
        found = [task for task in queue.list(limit=None) if task.task_type == f"track:{name}"]
        return found[0] if found and found[0].is_done else None

    return until(find)


def test_a_cell_that_ends(place):
    kernel, queue = place
    kernel.run("for i in oq_nb.track(range(30), 'ends', **options):\n    time.sleep(0.01)")
    task = the_task(queue, "ends")
    assert (str(task.status), task.output["items"], task.progress) == ("completed", 30, None)
    assert 0.2 < task.output["seconds"] < 60 and task.output["rate"] > 0


def test_what_ends_with_items_left_in_a_cell_has_not_failed(place):
    kernel, queue = place
    kernel.run("for _ in zip(oq_nb.track(range(30), 'in zip', **options), range(3)):\n    time.sleep(0.3)")
    kernel.run("any(time.sleep(0.3) or n == 3 for n in oq_nb.track(range(30), 'in any', **options))")
    for name in ("in zip", "in any"):
        task = the_task(queue, name)
        assert (str(task.status), task.last_error, task.output["total"]) == ("completed", None, 30)


def test_an_exception_that_c_code_passes_on_fails_the_task(place):
    kernel, queue = place
    error = kernel.error(
        "list(map(lambda n: time.sleep(0.3) or 1 / (3 - n), oq_nb.track(range(30), 'map', **options)))"
    )
    assert error["ename"] == "ZeroDivisionError"
    task = the_task(queue, "map")
    assert str(task.status) == "failed" and task.last_error.startswith("ZeroDivisionError: division by zero")
    assert task.record.last_progress.current == 3


def test_an_interrupted_cell(place):
    kernel, queue = place
    cell = kernel.begin("for i in oq_nb.track(range(10000), 'stopped', **options):\n    time.sleep(0.01)")
    until(lambda: [t for t in queue.list(limit=None) if t.progress and t.progress.current > 3])
    kernel.interrupt()
    assert kernel.end(cell)["ename"] == "KeyboardInterrupt"
    task = the_task(queue, "stopped")
    assert (str(task.status), task.record.last_error) == ("cancelled", "KeyboardInterrupt")
    at = task.record.last_progress
    assert 3 < at.current < 10000 and at.total == 10000


def test_a_cancelled_cell(place):
    kernel, queue = place
    cell = kernel.begin("for i in oq_nb.track(range(10000), 'cancelled', **options):\n    time.sleep(0.01)")
    found = until(lambda: [t for t in queue.list(limit=None) if t.task_type == "track:cancelled" and t.progress])
    queue.cancel(found[0].id)
    assert kernel.end(cell)["ename"] == "TaskCancelledError"
    assert str(the_task(queue, "cancelled").status) == "cancelled"


FAILS = """
def work(i):
    if i == 20:
        raise ZeroDivisionError("at twenty")
    time.sleep(0.01)

for i in oq_nb.track(range(100), 'fails', **options):
    work(i)
"""

AWAITS = """
async def work(i):
    await asyncio.sleep(0.01)
    if i == 20:
        raise ZeroDivisionError("at twenty")

for i in oq_nb.track(range(100), 'awaits', **options):
    await work(i)
"""

BY_HAND = """
with oq_nb.track(total=100, desc='by hand', **options) as bar:
    for i in range(100):
        time.sleep(0.01)
        bar.update()
        if i == 20:
            raise ZeroDivisionError("at twenty")
"""


@pytest.mark.parametrize(("name", "code"), [("fails", FAILS), ("awaits", AWAITS), ("by hand", BY_HAND)])
def test_a_cell_that_fails(place, name, code):
    kernel, queue = place
    assert kernel.error(code)["ename"] == "ZeroDivisionError"
    task = the_task(queue, name)
    assert str(task.status) == "failed"
    assert task.record.last_error.startswith("ZeroDivisionError: at twenty")


LEFT_OPEN = """
left = oq_nb.track(total=10, desc='left open', **options)
left.update(3)
left.task
raise ValueError("in the cell")
"""

LEFT_OPEN_AWAITING = """
left = oq_nb.track(total=10, desc='left awaiting', **options)
left.update(3)
await asyncio.sleep(0.3)
left.task
raise ValueError("in the cell")
"""

LEFT_OPEN_ITERATING = """
left = oq_nb.track(range(10), desc='left iterating', **options)
pairs = zip(left, range(10))
for a, b in pairs:
    left.task
    if a == 3:
        raise ValueError("in the cell")
"""


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("left open", LEFT_OPEN),
        ("left awaiting", LEFT_OPEN_AWAITING),
        ("left iterating", LEFT_OPEN_ITERATING),
    ],
)
def test_a_bar_that_a_failed_cell_leaves_open_fails_and_later_loops_are_tracked(place, name, code):
    kernel, queue = place
    assert kernel.error(code)["ename"] == "ValueError"
    task = the_task(queue, name)
    assert str(task.status) == "failed" and task.last_error.startswith("ValueError: in the cell")
    assert (task.record.last_progress.current, task.record.last_progress.total) == (3, 10)
    kernel.run(f"for i in oq_nb.track(range(3), 'after {name}', **options):\n    time.sleep(0.3)")
    assert str(the_task(queue, f"after {name}").status) == "completed"


def test_a_bar_that_is_left_open_does_not_turn_tracking_off(place):
    kernel, queue = place
    kernel.run("kept = oq_nb.track(total=10, desc='kept', **options)\nkept.update(2)")
    kernel.run("for i in oq_nb.track(range(3), 'beside', **options):\n    time.sleep(0.3)")
    assert str(the_task(queue, "beside").status) == "completed"
    kernel.run("kept.update(8)\nkept.close()")
    assert str(the_task(queue, "kept").status) == "completed"


def test_a_failed_async_for_fails(place):
    kernel, queue = place
    code = """
async def rows():
    for n in range(9):
        await asyncio.sleep(0.1)
        yield n

async for n in oq_nb.track(rows(), 'rows', total=9, **options):
    if n == 4:
        raise ZeroDivisionError("at four")
"""
    assert kernel.error(code)["ename"] == "ZeroDivisionError"
    task = the_task(queue, "rows")
    assert str(task.status) == "failed" and task.last_error.startswith("ZeroDivisionError: at four")


def test_a_cancelled_loop_shows_no_source_of_the_library(place):
    kernel, _ = place
    code = """
for i in oq_nb.track(range(10000), 'hidden', **options):
    if i == 5:
        bar_task = [t for t in oq_nb.default_queue().list('running') if t.task_type == 'track:hidden']
        for t in bar_task:
            t.cancel()
    time.sleep(0.05)
"""
    shown = "\n".join(kernel.error("oq_nb.connect()\n" + code)["traceback"])
    assert "TaskCancelledError" in shown
    for line in ("at_boundary", "_raise_problem", "raise problem", "progress/bar.py", "progress/loops.py"):
        assert line not in shown, shown


NESTED = """
for epoch in oq_nb.trange(3, desc='epochs', **options):
    for batch in oq_nb.trange(20, desc='batches', leave=False, **options):
        time.sleep(0.02)
"""


def test_nested_loops_are_one_task(place):
    kernel, queue = place
    kernel.run(NESTED)
    task = the_task(queue, "epochs")
    assert (str(task.status), task.output["items"]) == ("completed", 3)
    assert not [t for t in queue.list(limit=None) if t.task_type == "track:batches"]
    messages = {record.progress.message for record in task.history() if record.progress}
    assert any("epochs, batches " in message for message in messages)


def test_a_loop_beside_a_worker_of_the_same_kernel(place):
    kernel, queue = place
    code = """
worker = oq_nb.Worker(oq_nb.connect(), max_poll_seconds=0.2)
@worker.task("inside")
def inside(given):
    for i in oq_nb.track(range(60), 'inside'):
        time.sleep(0.02)
    return i
with worker:
    task = worker.queue.submit("inside", {})
    for i in oq_nb.track(range(60), 'outside', **options):
        time.sleep(0.02)
    assert task.result(30) == 59
"""
    kernel.run(code)
    assert str(the_task(queue, "outside").status) == "completed"
    (inside,) = [task for task in queue.list(limit=None) if task.task_type == "inside"]
    said = [record.progress for record in inside.history() if record.progress]
    assert (said[-1].current, said[-1].message) == (60, "inside")
