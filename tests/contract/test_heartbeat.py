"""A worker's object, beside other workers that come and tidy."""

from __future__ import annotations

import threading
from datetime import timedelta

from oq_nb import model
from oq_nb.worker import heartbeat
from oq_nb.worker.heartbeat import Heartbeat


def test_a_worker_that_comes_removes_nothing_of_one_that_is_writing(contended):
    ended = threading.Event()

    def come() -> None:
        while not ended.is_set():
            Heartbeat(contended, "comes", lambda: b"{}").tidy()

    coming = [threading.Thread(target=come, daemon=True) for _ in range(2)]
    for thread in coming:
        thread.start()
    lost = []
    try:
        for number in range(200):
            key, body = model.worker_key(f"there-{number % 20}"), b'{"number": %d}' % number
            version = contended.put(key, body).version_id
            found = contended.get(key)
            if found is None or found.version_id != version:
                lost.append(number)
            if number % 3 == 0:
                contended.delete(key, version_id=version)
    finally:
        ended.set()
        for thread in coming:
            thread.join(30)
    assert lost == []


def test_what_dead_workers_left_is_removed(objects, monkeypatch):
    own = Heartbeat(objects, "own", lambda: b"{}")
    for _ in range(3):
        objects.put(own.key, b"{}")  # a life before, under the same name
        objects.put(model.worker_key("killed"), b"{}")
    objects.put(model.worker_key("ended"), b"{}")
    objects.delete(model.worker_key("ended"))

    def left() -> dict[str, int]:
        lines = [line.key for line in objects.versions(model.WORKERS)]
        return {name: lines.count(model.worker_key(name)) for name in ("own", "killed", "ended")}

    own.tidy()
    assert left() == {"own": 1, "killed": 3, "ended": 2}  # the others' are too young to be sure of
    monkeypatch.setattr(heartbeat, "SETTLED", timedelta(seconds=-5))
    own.tidy()
    assert left() == {"own": 1, "killed": 1, "ended": 0}
    monkeypatch.setattr(heartbeat, "_DEAD_WORKER", timedelta(seconds=-5))
    own.tidy()
    assert left()["killed"] == 0
