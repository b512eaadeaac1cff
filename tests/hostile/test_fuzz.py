"""Mutated objects: refused as what they are, or good for every step of a task's life."""

from __future__ import annotations

import random
from datetime import datetime, timezone

import pytest
from strange import WIRE, mutate

import oq_nb
from oq_nb import model
from oq_nb.display import view
from oq_nb.errors import RecordError
from oq_nb.model import IdempotencyRecord, TaskRecord, Timestamp, WorkerRecord, transitions

KINDS = {"task": TaskRecord, "worker": WorkerRecord, "idempotency": IdempotencyRecord}
CHANGES = [
    lambda r, t: transitions.claim(r, t, lease_id="l", worker_id="w", lease_seconds=r.lease_seconds),
    lambda r, t: transitions.recover(r, t, chance=0.9),
    lambda r, t: transitions.cancel(r, t, reason="x", by=None),
    lambda r, t: transitions.request_cancellation(r, t),
    lambda r, t: transitions.expire(r, t),
    lambda r, t: transitions.archive(r, t),
    lambda r, t: transitions.replay(r, t),
    lambda r, t: transitions.release(r, t, lease_id=r.lease_id or "l"),
    lambda r, t: transitions.retry(r, t, lease_id=r.lease_id or "l", error="e", chance=1.0),
    lambda r, t: transitions.complete(r, t, lease_id=r.lease_id or "l", output=1),
]


@pytest.mark.parametrize("seed", range(4))
def test_what_can_be_read_can_be_changed_shown_and_written_back(seed, capsys):
    chance = random.Random(seed)
    now = Timestamp.of(datetime.now(timezone.utc))
    fixtures = sorted(WIRE.glob("*.json"))
    tried = refused = changed = 0
    for _ in range(3000):
        path = chance.choice(fixtures)
        kind = KINDS[path.stem.split("-")[0].split(".")[0]]
        body = mutate(path.read_bytes().rstrip(), chance)
        tried += 1
        try:
            record = kind.from_bytes(body)
        except RecordError as exc:
            refused += 1
            assert str(exc).isprintable()
            continue
        again = kind.from_bytes(record.to_bytes())
        assert again.to_dict() == record.to_dict(), f"seed {seed}, {path.stem}: {body!r}"
        if kind is TaskRecord:
            model.ready_key(record)
            if record.progress is not None:
                assert view.progress_line(record.progress).isprintable()
            for change in CHANGES:
                try:
                    made = change(record, now)
                except (oq_nb.TransitionError, oq_nb.LeaseExpiredError):
                    continue
                kind.from_bytes(made.to_bytes())
                changed += 1
    assert refused > 300
    assert changed > 300
    with capsys.disabled():
        print(f"\nseed {seed}: {tried} objects tried, {refused} refused, {changed} changes made", end=" ")
