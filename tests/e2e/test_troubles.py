"""Errors that users meet first, on a real store: a clock that is wrong, TLS that breaks, credentials that are gone."""

from __future__ import annotations

import threading
import time
import types

import pytest
from botocore.exceptions import CredentialRetrievalError, SSLError

import oq_nb
from oq_nb import model
from oq_nb.s3.direct import client as direct

TASKS = 24


class WrongClock:
    """The machine's clock as requests are signed by it: an hour fast while `is_wrong`."""

    def __init__(self):
        self.is_wrong = False

    def gmtime(self, seconds=None):
        return time.gmtime((time.time() if seconds is None else seconds) + 3600 * self.is_wrong)


@pytest.fixture
def clock(monkeypatch):
    made = WrongClock()
    shim = types.SimpleNamespace(**{name: getattr(time, name) for name in ("strftime", "monotonic", "time", "sleep")})
    shim.gmtime = made.gmtime
    monkeypatch.setattr(direct, "time", shim)
    return made


def test_a_clock_that_is_wrong_for_a_second_loses_no_task(queue, clock):
    """Every task is handed back within a minute of its submission, so that its next ready entry has the same key."""
    while time.time() % 60 > 40:  # what follows has to happen within one minute
        time.sleep(0.5)
    is_running, may_fail = threading.Semaphore(0), threading.Event()
    worker = oq_nb.Worker(queue, concurrency=TASKS, max_poll_seconds=0.2, lease_entry_delay_seconds=10)

    @worker.task("t")
    def handler(number, context):
        if context.attempt == 1:
            is_running.release()
            may_fail.wait(30)
            raise oq_nb.RescheduleError(0)
        return number

    policy = oq_nb.RetryPolicy(initial_interval_ms=0)
    tasks = queue.submit_many("t", range(TASKS), retry_policy=policy)
    with worker:
        for _ in tasks:
            assert is_running.acquire(timeout=30)
        entry = queue.store.index.add(f"ready/0/0000000001/{model.new_id()}")
        clock.is_wrong = True
        queue.store.index.remove(entry)
        time.sleep(1)
        clock.is_wrong = False
        may_fail.set()
        assert [task.result(40) for task in tasks] == list(range(TASKS))
    left = [task.id for task in queue.list("pending", limit=None)]
    assert left == []


@pytest.mark.parametrize("what", ["output", "end", "lease entry"])
def test_tls_that_breaks_once_costs_no_attempt(queue, monkeypatch, what):
    """A captive portal: the handler runs once, its result is kept, nobody renews a lease for nothing."""
    store, runs, broken = queue.store.objects, [], []
    run = store._client.put_object
    prefix = {"output": "payloads/", "end": "tasks/", "lease entry": "leases/"}[what]

    def put_object(**arguments):
        key = arguments["Key"].removeprefix(store.prefix)
        if key.startswith(prefix) and not broken and (runs or what == "lease entry"):
            broken.append(key)
            raise SSLError(endpoint_url="https://portal", error="CERTIFICATE_VERIFY_FAILED: self-signed certificate")
        return run(**arguments)

    monkeypatch.setattr(store._client, "put_object", put_object)
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)

    @worker.task("t")
    def handler(task_input):
        runs.append(1)
        return "x" * (100_000 if what == "output" else 10)

    task = queue.submit("t", timeout_seconds=5, max_retries=0)
    with worker:
        assert len(task.result(30)) >= 10
    assert (len(runs), len(broken), task.attempt) == (1, 1, 1)


def test_credentials_that_cannot_be_fetched_for_a_moment_are_waited_for(queue, monkeypatch):
    """The metadata service does not answer twice: `wait` goes on."""
    task, store = queue.submit("t", 1), queue.store.objects
    get, left = store._client.get_object, [2]

    def get_object(**arguments):
        if left[0]:
            left[0] -= 1
            raise CredentialRetrievalError(provider="iam-role", error_msg="metadata service timed out")
        return get(**arguments)

    monkeypatch.setattr(store._client, "get_object", get_object)
    worker = oq_nb.Worker(queue, max_poll_seconds=0.2)
    worker.task("t")(lambda number: number + 1)
    assert queue.get(task.id).status == "pending"
    assert left == [0]
    left[0] = 2
    with worker:
        assert task.result(30) == 2
