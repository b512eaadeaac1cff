"""A task in every state that a widget tells apart, put into a real store; for cells of a notebook, and for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import oq_nb
from oq_nb import model
from oq_nb.model import Progress, TaskRecord, TaskStatus, Timestamp, WorkerRecord
from oq_nb.queue.submit import new_record

#: What the widget of each says: its word, and a part of its note.
STATES = {
    "pending": ("pending", "No worker has this type: start one that has a handler for resize"),
    "scheduled": ("scheduled", "It can start in"),
    "running": ("running", "last report"),
    "open end": ("running", "no report yet"),
    "stalled": ("stalled", "It has not reported for"),
    "quiet": ("running", "last report 3 min"),
    "lease ran out": ("lease ran out", "its worker has died or cannot reach the store"),
    "retrying": ("retrying", "It is tried again in"),
    "stopping": ("asked to stop", "It has been asked to stop"),
    "completed": ("completed", "Output:"),
    "failed": ("failed", "Last error: ValueError: could not read"),
    "cancelled": ("cancelled", "Reason: not needed any more"),
    "deleted": ("deleted", "It is no longer in the bucket"),
}
ERROR = (
    'Traceback (most recent call last):\n  File "train.py", line 12, in handle\n    load(path)\n'
    "ValueError: could not read data/part-0007.parquet"
)


def stage(queue: oq_nb.Queue) -> dict[str, oq_nb.Task]:
    """Put a task in each state into the bucket; return their handles by the names in `STATES`."""

    def at(seconds: float) -> Timestamp:
        return Timestamp.of(queue.store.clock.now() + timedelta(seconds=seconds))

    def put(task_type: str, status: str = "pending", **changes: Any) -> oq_nb.Task:
        record = new_record(queue.store, task_type)
        fields: dict[str, Any] = {"status": TaskStatus(status)}
        if status == "running":
            fields |= {"attempt": 1, "lease_id": model.new_id(), "worker_id": "gpu-1", "lease_expires_at": at(900)}
            fields |= {"started_at": at(-12600)}
        if status in ("completed", "failed"):
            fields |= {"attempt": 1, "completed_at": at(0)}
        made: TaskRecord = record.evolve(**(fields | changes))
        if not made.status.is_terminal:
            return oq_nb.Task(queue, queue.store.create(made))
        queue.store.objects.put(made.key, made.to_bytes())  # no entry of an index leads to one that has ended
        return queue.get(made.id)

    def said(seconds_ago: float = 1, **fields: Any) -> Progress:
        return Progress(updated_at=at(-seconds_ago), **fields)

    half = {"percent": 45, "current": 450, "total": 1000, "rate": 12.5, "unit": "img"}
    made = {
        "pending": put("resize"),
        "scheduled": put("nightly", available_at=at(5400)),
        "running": put("train", "running", progress=said(**half, message="epoch 3 of 8, loss 0.0713")),
        "open end": put("crawl", "running"),
        "stalled": put("train", "running", progress=said(200, **half, message="epoch 3 of 8, loss 0.0713")),
        "quiet": put("train", "running", progress=said(200, message="loading the model")),
        "lease ran out": put("train", "running", progress=said(200, **half), lease_expires_at=at(-90)),
        "retrying": put("train", available_at=at(300), retry_count=2, attempt=2, last_error=ERROR),
        "stopping": put("train", "running", progress=said(**half), cancel_requested=True),
        "completed": put("resize", "completed", output={"images": 1000, "bytes": 73400320}),
        "failed": put("train", "failed", attempt=4, retry_count=3, last_error=ERROR),
        "cancelled": put("train", "cancelled", cancelled_at=at(0), last_error="not needed any more"),
        "deleted": put("train"),
    }
    queue.store.objects.delete(made["deleted"].record.key)
    now = at(0)
    worker = WorkerRecord(
        worker_id="gpu-1",
        started_at=now,
        last_heartbeat=now,
        shards=queue.all_shards(),
        task_types=["crawl", "nightly", "train"],
    )
    queue.store.objects.put(model.worker_key("gpu-1"), worker.to_bytes())
    return made
