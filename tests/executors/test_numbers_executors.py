"""Metrics and what was reached, of handlers that run in the worker, in an executor's threads, and in processes."""

from __future__ import annotations

import pytest

import oq_nb
from oq_nb.model import read_series


def fit(task_input, context):
    """Report by hand, then in a loop; fail when asked to."""
    import time

    context.report_progress(current=0, total=3, metrics={"loss": 3.0, "bad": float("nan")})
    for step in (bar := oq_nb.track(range(1, 4), desc="fit", min_seconds=0, throttle_seconds=0.01)):
        bar.set_postfix(loss=3 / step, refresh=False)
        time.sleep(0.05)
        if step == task_input:
            raise ValueError("no")
    return "done"


@pytest.mark.parametrize("executor", [None, "threads", "processes"])
@pytest.mark.parametrize("fails_at", [None, 2])
def test_numbers_come_back_from_wherever_a_handler_runs(fake_queue, executor, fails_at):
    if executor == "processes":
        pytest.importorskip("loky")
    worker = oq_nb.Worker(fake_queue, worker_id="w1", max_poll_seconds=0.1, executor=executor)
    worker.task("fit")(fit)
    task = fake_queue.submit("fit", fails_at, max_retries=0)
    with worker:
        task.wait(60)
    record = task.refresh().record
    assert (str(record.status), record.last_worker_id) == ("failed" if fails_at else "completed", "w1")
    reached = record.reached
    assert reached.metrics == {"loss": 1.5 if fails_at else 1.0, "bad": None}
    assert (reached.current, reached.total) == ((1, 3) if fails_at else (3, 3))
    series = read_series(reached.series)
    assert (series.position[0], series.metrics["loss"][0]) == (0, 3)
    assert series.metrics["loss"][-1] == reached.metrics["loss"]
