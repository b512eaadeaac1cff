"""Task functions and upstream's programs in one bucket: what is stored is plain JSON by parameter name."""

from __future__ import annotations

import time

import pytest
from pydantic import BaseModel

pytest.importorskip("buquet", reason="upstream (buquet) has no wheel for this Python or platform")

WAIT = 60


class Metrics(BaseModel):
    loss: float


def train(lr: float, epochs: int = 10) -> Metrics:
    return Metrics(loss=lr * epochs)


@pytest.fixture
def function(ours):
    yield ours.task(train)
    for worker in ours.functions.listeners():
        worker.stop(5)


def test_upstream_submits_a_call_and_reads_the_result(ours, theirs, function):
    ours.start_worker(max_poll_seconds=0.3)
    submitted = theirs.submit("train", {"lr": 0.5})
    deadline = time.monotonic() + WAIT
    while theirs.status(submitted.id) != "completed":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert theirs.get(submitted.id).output == {"loss": 5.0}
    assert ours.get(submitted.id).result() == Metrics(loss=5.0)


def test_upstream_runs_a_call_that_was_submitted_here(theirs, function):
    seen = []

    async def handle(given):
        seen.append(given)
        return {"loss": given["lr"] * given["epochs"]}

    with theirs.worker({"train": handle}):
        task = function.submit(lr=0.25, epochs=2)
        assert task.result(WAIT) == Metrics(loss=0.5)
    assert seen == [{"lr": 0.25, "epochs": 2}]
